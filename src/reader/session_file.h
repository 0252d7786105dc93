/* Sessions in files: one safetensors file of the state, with what it must be opened by.
 *
 *   format "mneme session", version, weights (their fingerprint), precision, kept (how
 *   weights are), cache (how keys and values are: F32, BF16 or INT8), options (a hash of every
 *   option of the model); the checksum of the container; tensors "hidden", "state.*"
 *
 * A reading (reader/reading.h) adds its own. */
#ifndef MN__READER_SESSION_FILE_H
#define MN__READER_SESSION_FILE_H

#include "reader/session.h"

enum { MN__SESSION_VERSION = 2 };

/* What an owner adds to a session's file. */
typedef struct mn__session_extra {
    const mn__safetensor *tensors;
    int64_t count;
    const char *const *metadata; /* key, value, ..., NULL; or NULL */
} mn__session_extra;

/* extra may be NULL. Errors as of mn__session_save. */
mn_status mn__session_write(const mn__session *session, const char *path, const char *fingerprint,
                            const mn__session_extra *extra, mn_error *error);

/* MN_ERROR_FORMAT: no session, or one without a checksum; MN_ERROR_UNSUPPORTED: of another
 * version. */
mn_status mn__session_file_open(mn__safetensors **file, const char *path, mn_error *error);
/* MN_ERROR_MISMATCH where what is in it was read with another tokenizer than the one with this
 * fingerprint. */
mn_status mn__session_file_check_tokenizer(const mn__safetensors *file, const char *path,
                                           const char *fingerprint, mn_error *error);
/* Takes the state of an open file whose format is known; errors as of mn__session_load, which
 * leave the session reset. `path` is for errors. */
mn_status mn__session_take(mn__session *session, const mn__safetensors *file, const char *path,
                           const char *fingerprint, mn_error *error);

#endif
