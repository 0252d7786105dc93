/* mneme: language models that read book-length text.
 *
 * This is the whole public interface of libmneme. Handles are opaque; each
 * call says who owns what. No call exits or prints: a call that can fail
 * returns a status and, where its last argument is not NULL, fills it in.
 *
 * A model is opened once; a session is one text that it reads, with what its
 * attention remembers of it. A book is read once, saved, and asked tomorrow:
 *
 *     mn_model *model = NULL;
 *     mn_session *session = NULL;
 *     int32_t *ids = NULL;
 *     int64_t count;
 *     mn_sync sync;
 *     mn_error error;
 *     mn_status status = mn_model_open(&model, "SmolLM2-135M-Instruct", NULL, &error);
 *     if (status == MN_OK)
 *         status = mn_tokenize(model, MN_TURN_RAW, book, strlen(book), &ids, &count, &error);
 *     if (status == MN_OK)
 *         status = mn_session_open(&session, model, NULL, &error);
 *     if (status == MN_OK)
 *         status = mn_session_sync(session, ids, count, show, NULL, &sync, &error);
 *     if (status == MN_OK)
 *         status = mn_session_save(session, "book.mns", &error);
 *     const mn_generate_options how = {.tokens = 100};
 *     if (status == MN_OK)
 *         status = mn_session_generate(session, &how, print, stdout, NULL, &error);
 *     if (status != MN_OK)
 *         fprintf(stderr, "%s (%s)\n", error.message, error.hint);
 *     mn_free(ids);
 *     mn_session_free(session);
 *     mn_model_free(model);
 *
 * Tomorrow, mn_session_load takes the place of open and sync.
 *
 * One thread at a time: calls that concern one model, or sessions of it, must
 * not overlap. The work of a call is shared among threads of the library's own. */
#ifndef MNEME_H
#define MNEME_H

#include <stdbool.h>
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

/* Frees what a call has given to the caller to free so. NULL is fine. */
void mn_free(void *memory);

/* ---- Models ------------------------------------------------------------- */

typedef struct mn_model mn_model;

/* How a model is opened; all zero, or NULL for the whole, is the usual. Texts
 * are only read during the call. */
typedef struct mn_model_options {
    int threads;           /* that compute, of the whole process; 0: what the container allows */
    const char *precision; /* of products: "f32", "bf16"; NULL: f32, or as a run was trained */
    const char *weights;   /* how they are kept: "f32", "f16", "bf16", "int8", "int4"; NULL: as
                            * products are, and quantised ones of a GGUF file as filed */
    const char *cache;     /* how keys and values of full and window attention are kept: "f32",
                            * "bf16", "int8"; NULL: as products are */
    int64_t tokens;        /* of the longest text planned for, where the frequencies of rotary
                            * positions depend on it; 0: the model's window */
    const char *const *settings; /* [setting_count]: "attention.window=4096", as --set */
    int64_t setting_count;
} mn_model_options;

/* Opens a pretrained model's folder as Hugging Face keeps it, a GGUF file, or a
 * run's folder. *model is the caller's, to be freed after all its sessions. A
 * pretrained model's files stay mapped until then: they must not be written to.
 * MN_ERROR_UNSUPPORTED names what this build does not know. */
mn_status mn_model_open(mn_model **model, const char *path, const mn_model_options *options,
                        mn_error *error);
void mn_model_free(mn_model *model); /* NULL is fine */

typedef struct mn_model_info {
    int64_t parameters, vocabulary;
    int64_t window;        /* tokens of the longest text; INT64_MAX: no bound is known */
    const char *precision; /* of products; a static string */
    const int32_t *ends;   /* [end_count], the model's: ids at which it ends a text */
    int64_t end_count;
    bool chats; /* it has a chat template */
} mn_model_info;
mn_model_info mn_model_describe(const mn_model *model);
/* 32 hexadecimal digits of the weights, the model's; the first call reads all of them. NULL when
 * memory is short. */
const char *mn_model_fingerprint(mn_model *model, mn_error *error);

/* What reading so many tokens takes, in bytes, without opening the model: its
 * program is run with sizes alone. MN_ERROR_MISMATCH: more than its window. */
typedef struct mn_memory {
    int64_t weights;     /* with their copies in other types */
    int64_t state;       /* keys, values and memories of the whole text */
    int64_t activations; /* at their peak; independent of the text's length */
    int64_t total;       /* of these; kernels' scratch comes on top */
    int64_t session;     /* of the file that mn_session_save writes */
    int64_t available;   /* what the machine or container has; -1: not known */
} mn_memory;
mn_status mn_memory_estimate(const char *path, const mn_model_options *options, int64_t tokens,
                             mn_memory *memory, mn_error *error);

/* ---- Text and tokens ---------------------------------------------------- */

/* What a text is, and so what stands around it. But for RAW and ON this is
 * the model's chat template; MN_ERROR_UNSUPPORTED where it has none (mn_model_describe). */
typedef enum mn_turn {
    MN_TURN_RAW,   /* a text as it is, after what the tokenizer puts before every text */
    MN_TURN_ON,    /* a text as it is, which goes on from what was read */
    MN_TURN_TEXT,  /* the beginning of a first message, before there is a question */
    MN_TURN_FIRST, /* a question after such a text, up to where its answer begins */
    MN_TURN_LATER, /* a question after an answer, up to where its answer begins */
    MN_TURN_ALONE  /* a question about nothing, up to where its answer begins */
} mn_turn;

/* Ids of a text: *ids [*count], which the caller frees by mn_free. Appended to
 * what was read before, they are what mn_session_sync wants. Invalid UTF-8 is
 * MN_ERROR_FORMAT for vocabularies that do not hold every byte. */
mn_status mn_tokenize(const mn_model *model, mn_turn turn, const char *text, int64_t bytes,
                      int32_t **ids, int64_t *count, mn_error *error);
/* The bytes of ids: *text, with a NUL after *bytes, which the caller frees by
 * mn_free. A character may be cut where ids are. */
mn_status mn_detokenize(const mn_model *model, const int32_t *ids, int64_t count, char **text,
                        int64_t *bytes, mn_error *error);

/* ---- Sessions ----------------------------------------------------------- */

typedef struct mn_session mn_session;

/* All zero, or NULL for the whole, is the usual. */
typedef struct mn_session_options {
    int64_t capacity; /* tokens to have memory for from the start; more is made when needed */
    int64_t chunk;    /* most tokens of a forward pass; 0: 512, or a run's segment. It bounds the
                       * memory of activations */
    int64_t snapshot_bytes; /* for going back, see mn_session_snapshot; 0: 256 MiB */
} mn_session_options;

/* A session in which nothing was read. *session is the caller's; the model
 * outlives it. */
mn_status mn_session_open(mn_session **session, mn_model *model, const mn_session_options *options,
                          mn_error *error);
void mn_session_free(mn_session *session); /* NULL is fine */

/* What was read, the session's until the next call that changes it. */
const int32_t *mn_session_ids(const mn_session *session, int64_t *count);

/* Is told before each chunk how many tokens of how many are there; false stops
 * the call, which then is MN_ERROR_INTERRUPTED. What was read stays. */
typedef bool mn_progress(void *user, int64_t done, int64_t total);

/* What making a session's text another one came to. */
typedef enum mn_synced {
    MN_SYNCED_EXTENDED, /* all of the old text was the new one's beginning */
    MN_SYNCED_REWOUND,  /* it went back to a snapshot */
    MN_SYNCED_REBUILT   /* there was none to go back to: read from the start */
} mn_synced;
typedef struct mn_sync {
    mn_synced how;
    int64_t reused;  /* tokens whose state was there */
    int64_t read;    /* tokens that were read, some of them again */
    int64_t dropped; /* tokens of the old text that the new one has not */
} mn_sync;

/* Makes the text that was read ids[0..count): reads on, goes back or begins anew
 * by itself, and says which in *sync (may be NULL). The same call goes on after
 * MN_ERROR_INTERRUPTED. MN_ERROR_MISMATCH: longer than the model's window, with
 * the ways out; then nothing was done. progress may be NULL. */
mn_status mn_session_sync(mn_session *session, const int32_t *ids, int64_t count,
                          mn_progress *progress, void *user, mn_sync *sync, mn_error *error);
/* Reads more of the text. Errors as above. */
mn_status mn_session_read(mn_session *session, const int32_t *ids, int64_t count,
                          mn_progress *progress, void *user, mn_error *error);
/* The same, with logits [row_count, vocabulary] in the caller's memory: of the
 * tokens after ids[rows[i]], for rows that rise. Others' are never computed. */
mn_status mn_session_read_logits(mn_session *session, const int32_t *ids, int64_t count,
                                 const int64_t *rows, int64_t row_count, float *logits,
                                 mn_error *error);
/* Back to the first `count` tokens, bit for bit as if no more had been read. */
mn_status mn_session_rewind(mn_session *session, int64_t count, mn_sync *sync, mn_error *error);

/* Logits [vocabulary] of the token after the last one, the session's until the
 * next call; NULL on failure: nothing was read, or memory is short. */
const float *mn_session_logits(mn_session *session, mn_error *error);

/* Keeps what is needed to come back to this place without reading again. Some are
 * made on the way by themselves; the older of too many are thinned out. False
 * where it takes more than snapshot_bytes or memory is short: coming back then
 * takes longer, no more. */
bool mn_session_snapshot(mn_session *session);
/* Another session of the same text that goes its own way; the caller's, as the
 * first one is. */
mn_status mn_session_fork(mn_session **fork, const mn_session *session, mn_error *error);

/* Writes text and state to one file, whole or not at all; and opens it again in
 * this process or another, without reading anything: what follows is the same
 * bit for bit. A file of another model, tokenizer, precision or options is
 * MN_ERROR_MISMATCH, a damaged one MN_ERROR_FORMAT. Files of `mneme read` are
 * such files, too. */
mn_status mn_session_save(const mn_session *session, const char *path, mn_error *error);
mn_status mn_session_load(mn_session **session, mn_model *model, const char *path,
                          const mn_session_options *options, mn_error *error);

/* ---- Generation --------------------------------------------------------- */

/* How tokens are chosen; all zero: the most probable ones, up to the model's own
 * end of a text. */
typedef struct mn_generate_options {
    int64_t tokens;     /* at most; 0: 256 */
    double temperature; /* 0: always the most probable token */
    int64_t top_k;      /* among the k most probable; 0: all */
    double top_p;       /* among the most probable that sum to this; 0: all */
    double min_p;       /* among those of this share of the most probable's; 0: all */
    int64_t seed;
    const char *const *stop; /* [stop_count]: it ends before any of these texts */
    int64_t stop_count;
} mn_generate_options;

/* Is given text as it comes, whole characters, not NUL-ended; false stops, which
 * is MN_ERROR_INTERRUPTED. */
typedef bool mn_emit(void *user, const char *text, int64_t bytes);

typedef struct mn_generated {
    int64_t tokens;
    bool ended;             /* the model ended the text itself */
    const char *stopped_by; /* one of options->stop, or NULL */
} mn_generated;

/* Goes on with the text that was read; what is said stays in the session. options and
 * generated may be NULL. MN_ERROR_MISMATCH: the model's window has no room for so many
 * tokens. */
mn_status mn_session_generate(mn_session *session, const mn_generate_options *options,
                              mn_emit *emit, void *user, mn_generated *generated, mn_error *error);

#ifdef __cplusplus
}
#endif
#endif
