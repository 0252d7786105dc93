/* Pre-tokenizers of a tokenizer.json: stages that cut text into the pieces that a model then
 * takes one by one. */
#ifndef MN__TEXT_PRETOKENIZER_H
#define MN__TEXT_PRETOKENIZER_H

#include "base/json.h"
#include "base/string.h"
#include "text/regex.h"

enum { MN__PRETOKENIZER_STAGES = 16 };

typedef struct mn__pretokenizer_stage mn__pretokenizer_stage;

/* Start from {0}: one that leaves the text whole. */
typedef struct mn__pretokenizer {
    mn__pretokenizer_stage *stages; /* [count] */
    int64_t count;
    bool byte_level;    /* the model's tokens are written in GPT-2's alphabet */
    bool adds_space;    /* to what does not begin with one */
    bool loses;         /* white space */
    bool known_pattern; /* the first stage is one of pattern.h */
} mn__pretokenizer;

/* What running one writes to; one for each thread, for one pre-tokenizer. Start from {0}. */
typedef struct mn__pretokenizer_scratch {
    mn__matcher *matcher;
    mn__string text[MN__PRETOKENIZER_STAGES], bytes;
} mn__pretokenizer_scratch;

/* Takes one piece, of at least one byte. Those of a byte-level one are bytes as they were. */
typedef mn_status (*mn__pretoken_take)(void *user, const char *piece, int64_t bytes,
                                       mn_error *error);

/* Of the file's object; NULL or null: none. MN_ERROR_UNSUPPORTED names an unknown type. */
mn_status mn__pretokenizer_parse(mn__pretokenizer *pretokenizer, const char *file,
                                 const json_t *value, mn_error *error);
/* Cuts valid UTF-8. at_start: the text begins its document. Where the first stage is a known
 * pattern, pieces from text[until] on are left out (but seen); `until` is where a piece begins. */
mn_status mn__pretokenizer_run(const mn__pretokenizer *pretokenizer,
                               mn__pretokenizer_scratch *scratch, const char *text, int64_t bytes,
                               int64_t until, bool at_start, mn__pretoken_take take, void *user,
                               mn_error *error);
void mn__pretokenizer_free(mn__pretokenizer *pretokenizer);
void mn__pretokenizer_scratch_free(mn__pretokenizer_scratch *scratch);

#endif
