/* The parts of a tokenizer.json that stand apart from its text: the model, the decoder, the
 * post-processor. */
#ifndef MN__TEXT_HUGGINGFACE_H
#define MN__TEXT_HUGGINGFACE_H

#include "base/json.h"
#include "text/bpe.h"
#include "text/unigram.h"

/* ---- Model ------------------------------------------------------------------------------------
 */

/* What cuts a piece into tokens. Start from mn__cutter_init. */
typedef struct mn__cutter {
    bool is_unigram;
    mn__bpe bpe;
    mn__unigram unigram;
    const char **tokens; /* [vocab] every id's text, borrowed from the JSON; NULL: unused */
    int64_t vocab, capacity;
    mn__vocabulary texts; /* the same texts; `count` is the id */
} mn__cutter;

void mn__cutter_init(mn__cutter *cutter);
void mn__cutter_free(mn__cutter *cutter);
/* Of the object `model`; byte_level: its tokens are written in GPT-2's alphabet. Types are BPE,
 * Unigram, and TokenRanks, which is ours: {"tokens": [[text, rank or null], ...]}, by id, where a
 * pair merges if its join is a token, at that one's rank (tiktoken, SentencePiece's BPE). */
mn_status mn__cutter_parse(mn__cutter *cutter, const char *file, const json_t *model,
                           bool byte_level, mn_error *error);
/* Makes room for the id and sets its text. MN_ERROR_FORMAT for one far outside. */
mn_status mn__cutter_set(mn__cutter *cutter, const char *file, int64_t id, const char *text,
                         mn_error *error);
/* The id of a token, or -1. */
int32_t mn__cutter_find(const mn__cutter *cutter, const char *text);

/* ---- Decoder and post-processor
 * ------------------------------------------------------------------ */

enum { MN__DECODER_STEPS = 16 };

/* How a token's text becomes bytes. Start from {0}. */
typedef struct mn__decoder_plan {
    struct {
        int kind;
        const char *from, *to; /* borrowed from the JSON */
    } steps[MN__DECODER_STEPS];
    int count;
    bool byte_level;        /* ByteLevel and nothing else */
    bool strip_first_space; /* of the joined text */
} mn__decoder_plan;

/* Of the file's object `decoder`; null: tokens are their text. MN_ERROR_UNSUPPORTED for what
 * cannot be said of each token alone. */
mn_status mn__decoder_plan_parse(mn__decoder_plan *plan, const char *file, const json_t *value,
                                 mn_error *error);
/* A token's bytes into *out (cleared first); `scratch` is overwritten. */
void mn__decoder_plan_apply(const mn__decoder_plan *plan, const char *token, mn__string *out,
                            mn__string *scratch);

/* The ids that the file's `post_processor` puts before and after a text. */
mn_status mn__post_processor_parse(mn__ids *before, mn__ids *after, const char *file,
                                   const json_t *value, mn_error *error);

#endif
