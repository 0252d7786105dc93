/* Generation: a prompt is read, then tokens are chosen and read one by one, and
 * their text is handed on as it comes: valid UTF-8 only, and nothing that is, or
 * may yet become, a stop string. */
#ifndef MN__EVAL_GENERATE_H
#define MN__EVAL_GENERATE_H

#include "base/options.h"
#include "eval/sample.h"
#include "model/run.h"
#include "reader/reading.h"

typedef struct mn__generate_config {
    const char *prompt;
    int64_t prompt_bytes;
    int64_t tokens; /* at most */
    mn__sample_options sample;
    mn__string_list stop;
    bool hide_special; /* ids that are no text (tokenizer.h) are said without their names */
    mn__dtype compute;
    /* Whole characters, not NUL-ended; false stops. */
    bool (*emit)(void *user, const char *text, int64_t bytes);
    void *user;
} mn__generate_config;

typedef struct mn__generated {
    int64_t prompt_tokens, tokens;
    const char *stopped_by; /* the stop string, or NULL */
    bool ended;             /* the model's own end of a text came */
    int32_t unread;         /* the last token, where it was said but not read; or -1 */
    double prompt_seconds, seconds;
} mn__generated;

/* The prompt follows what stands before every text (model/run.h), and rotary frequencies that
 * depend on the length are made for prompt and tokens together. MN_ERROR_INTERRUPTED: emit said
 * stop; MN_ERROR_UNSUPPORTED: the model looks ahead in the form that its options choose;
 * MN_ERROR_MISMATCH: there is no room for so many tokens in its window. */
mn_status mn__generate(mn__run *run, const mn__generate_config *config, mn__generated *generated,
                       mn_error *error);

/* The same from where a reading stands, in which what is said stays, but for its last token
 * where that ended it. Of the config, prompt and compute mean nothing (but that without
 * prompt_bytes a first space is left out); of `generated`, the prompt's figures stay. */
mn_status mn__generate_on(mn__run *run, mn__reading *reading, const mn__generate_config *config,
                          mn__generated *generated, mn_error *error);
/* The same, and the last token is read as well, so that what is read next follows it. */
mn_status mn__generate_within(mn__run *run, mn__reading *reading, const mn__generate_config *config,
                              mn__generated *generated, mn_error *error);

#endif
