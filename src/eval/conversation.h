/* A conversation about a text: a model, a reading of the text and of what was asked and
 * answered since, and the file that all of it is kept in.
 *
 * The file (reader/reading.h) also says how the model was opened: its folder and every option
 * that was set, so that a question needs nothing but the file; and how many answers it holds. */
#ifndef MN__EVAL_CONVERSATION_H
#define MN__EVAL_CONVERSATION_H

#include "base/options.h"
#include "eval/generate.h"
#include "text/chat.h"

/* How a model is opened to read. */
typedef struct mn__manner {
    const char *model;   /* a pretrained model's folder or file, or a run's folder */
    mn__string_list set; /* as of mn__run_open */
    int precision;       /* 0: as the run was trained; 1: f32; 2: bf16 */
    int weights;         /* mn__weights; 0: as products read them */
    mn__kept cache;      /* of keys and values; see mn__decoder_keep */
    bool raw;            /* without a chat template, which runs have none of anyway */
    int64_t window;      /* tokens that a token sees; 0: as the model has it */
    int64_t stretch;     /* tokens that positions are scaled to; 0: they are not */
} mn__manner;

typedef struct mn__conversation {
    mn__arena arena;
    mn__manner manner; /* with the folder's whole path */
    mn__run run;
    mn__dtype compute;
    mn__chat *chat; /* NULL: raw */
    mn__reading reading;
    int64_t turns;       /* answers in the reading */
    int64_t planned;     /* tokens of the text, where its reading was stopped before the end */
    const char *path;    /* of its file, or NULL */
    int64_t saved_bytes; /* of that, when it was written last */
} mn__conversation;

/* A new one. The device outlives it; path (may be NULL) too. MN_ERROR_UNSUPPORTED: a pretrained
 * model without a chat template, and not `raw`; positions that are scaled already. */
mn_status mn__conversation_open(mn__conversation *conversation, mn__device *device,
                                const mn__manner *manner, const char *path, mn_error *error);
/* From its file, with all that was read, and memory for `room` tokens more (what is beyond that
 * is made when it is needed). model: the folder, where it has moved; or NULL. */
mn_status mn__conversation_load(mn__conversation *conversation, mn__device *device,
                                const char *path, const char *model, int64_t room, mn_error *error);
void mn__conversation_close(mn__conversation *conversation);
/* Writes its file. */
mn_status mn__conversation_save(mn__conversation *conversation, mn_error *error);

/* Reads a text in a new conversation, going on from its file where that holds a part of it, and
 * saves it: at the end, every save_seconds (0: not), and when it is stopped
 * (MN_ERROR_INTERRUPTED; the same call goes on). anew: whatever the file holds.
 * MN_ERROR_MISMATCH: the file holds another text, or the text is longer than the window. */
typedef struct mn__read_report {
    mn__sync sync;
    int64_t tokens; /* of the text, with what is around it */
    double seconds;
} mn__read_report;
mn_status mn__conversation_read(mn__conversation *conversation, const char *text, int64_t bytes,
                                bool anew, int64_t save_seconds, const mn__progress *progress,
                                mn__read_report *report, mn_error *error);

/* Asks; the answer, by config (whose prompt and compute mean nothing), goes to its emit and
 * stays in the reading. An answer that is stopped stays as far as it came, and is
 * MN_ERROR_INTERRUPTED. MN_ERROR_MISMATCH: there is no room for it in the model's window. */
typedef struct mn__answer {
    mn__sync sync; /* of the question */
    mn__generated generated;
    double question_seconds;
} mn__answer;
mn_status mn__conversation_ask(mn__conversation *conversation, const char *question,
                               const mn__generate_config *config, mn__answer *answer,
                               mn_error *error);

#endif
