/* Normalizers of a tokenizer.json: a list of steps, each of which rewrites the text. */
#ifndef MN__TEXT_NORMALIZER_H
#define MN__TEXT_NORMALIZER_H

#include "base/json.h"
#include "base/string.h"
#include "text/regex.h"

typedef struct mn__normalizer_step mn__normalizer_step;

/* Start from {0}: one that changes nothing. */
typedef struct mn__normalizer {
    mn__normalizer_step *steps; /* [count] */
    int64_t count;
} mn__normalizer;

/* Of the file's object; NULL or null: no steps. MN_ERROR_UNSUPPORTED names an unknown type. */
mn_status mn__normalizer_parse(mn__normalizer *normalizer, const char *file, const json_t *value,
                               mn_error *error);
/* Leaves what valid UTF-8 becomes in *out (cleared first); `scratch` is overwritten. */
mn_status mn__normalizer_apply(const mn__normalizer *normalizer, mn__matcher *matcher,
                               const char *text, int64_t bytes, mn__string *out,
                               mn__string *scratch, mn_error *error);
void mn__normalizer_free(mn__normalizer *normalizer);

#endif
