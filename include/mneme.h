/* mneme: language models that read book-length text.
 *
 * This is the whole public interface of libmneme. Handles are opaque; each
 * call says who owns what. No call exits or prints: a call that can fail
 * returns a status and, where its last argument is not NULL, fills it in. */
#ifndef MNEME_H
#define MNEME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MN_VERSION "0.1.0"

/* ---- Errors ------------------------------------------------------------- */

/* Every code: name, the exit status of the command-line program, meaning. */
#define MN_ERROR_MAP(X)                                            \
    X(OK, 0, "success")                                            \
    X(USAGE, 2, "the command line or an argument is wrong")        \
    X(OPTION, 3, "a recipe or an option is wrong")                 \
    X(IO, 4, "a file could not be read or written")                \
    X(FORMAT, 5, "a file is not what it should be")                \
    X(MEMORY, 6, "out of memory, or the run would not fit in it")  \
    X(UNSUPPORTED, 7, "something this build or machine cannot do") \
    X(NUMBER, 8, "a loss or gradient is not finite")               \
    X(MISMATCH, 9, "two things that must fit together do not")     \
    X(INTERRUPTED, 10, "stopped on request; what was done is saved")

typedef enum mn_status {
#define MN_ERROR_ENUM(name, exit_status, meaning) MN_ERROR_##name,
    MN_ERROR_MAP(MN_ERROR_ENUM)
#undef MN_ERROR_ENUM
} mn_status;
#define MN_OK MN_ERROR_OK

/* What went wrong. Owned by the caller; filled in by the failing call. */
typedef struct mn_error {
    mn_status code;
    char message[768]; /* with the file, the line and the value concerned */
    char hint[384];    /* what to do about it; may be empty */
} mn_error;

/* "MN_ERROR_IO" and "a file could not be read or written". Static strings. */
const char *mn_status_name(mn_status status);
const char *mn_status_meaning(mn_status status);

/* The library's version, and how it was built ("gcc 12.2.0 -O2, oneDNN 2.6"). */
const char *mn_version(void);
const char *mn_build(void);

#ifdef __cplusplus
}
#endif
#endif
