/* Errors: every function that can fail returns a status and fills an mn_error
 * (which may be NULL). */
#ifndef MN__BASE_ERROR_H
#define MN__BASE_ERROR_H

#include "mneme.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MN__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define MN__PRINTF(text, first)
#endif

/* Fills `error` (if not NULL) and returns `code`, so that a failing function
 * ends in `return mn__fail(error, MN_ERROR_IO, "hint", "%s: %s", path, why);`.
 * `hint` says what to do; NULL for none. */
mn_status mn__fail(mn_error *error, mn_status code, const char *hint, const char *format, ...)
    MN__PRINTF(4, 5);

/* The same for the text of errno: message becomes "<format>: <strerror>". Without
 * a hint, there is a usual one for a full disk, a missing file and permissions. */
mn_status mn__fail_errno(mn_error *error, const char *hint, const char *format, ...)
    MN__PRINTF(3, 4);

/* Clears `error` to MN_OK. NULL is fine. */
void mn__error_clear(mn_error *error);

/* Gives an error a hint, where it has none. NULL is fine. */
void mn__error_hint(mn_error *error, const char *hint);

/* Puts "<format>: " before an error's message, for the caller's context. */
void mn__error_prefix(mn_error *error, const char *format, ...) MN__PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
