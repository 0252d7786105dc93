/* read() and write() as files use them: interrupted calls are repeated, and the
 * tests' faults (mn__file_fail_write_after, mn__file_short_calls) happen here. */
#ifndef MN__BASE_FILE_CALL_H
#define MN__BASE_FILE_CALL_H

#include <stdint.h>

/* Like read() and write(): may do less than asked; never fail with EINTR. */
int64_t mn__file_call_read(int file, void *data, int64_t bytes);
int64_t mn__file_call_write(int file, const void *data, int64_t bytes);

#endif
