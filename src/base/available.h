/* How much memory a run may take: what the machine has free, or what the
 * container's limit leaves, whichever is less. */
#ifndef MN__BASE_AVAILABLE_H
#define MN__BASE_AVAILABLE_H

#include <stdint.h>

/* Bytes; -1 where the system does not say. */
int64_t mn__memory_available(void);

/* The same from files like /proc/meminfo, /proc/self/cgroup and /sys/fs/cgroup. */
int64_t mn__memory_available_in(const char *meminfo, const char *membership, const char *mount);

#endif
