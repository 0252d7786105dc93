/* How many threads compute: OpenMP's team, sized by the container. */
#ifndef MN__BASE_THREADS_H
#define MN__BASE_THREADS_H

/* The cgroup's CPU quota and the affinity mask, whichever is less; at least 1. */
int mn__threads_default(void);
/* Sets the OpenMP team; n <= 0 chooses the default. Returns the number set. */
int mn__threads_set(int n);
int mn__threads(void);

/* CPUs that the quotas of a process's cgroups allow, parts of one rounded up,
 * or 0 where none is set. `membership` is like /proc/self/cgroup, `mount` like
 * /sys/fs/cgroup; both versions of cgroups are understood. */
int mn__threads_quota(const char *membership, const char *mount);

#endif
