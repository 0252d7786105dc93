/* Fingerprints of models and data: XXH3, 128 bits, from libxxhash. */
#ifndef MN__BASE_HASH_H
#define MN__BASE_HASH_H

#include "base/error.h"

typedef struct mn__hash mn__hash;
typedef struct mn__hash_text {
    char hex[33];
} mn__hash_text;

mn__hash *mn__hash_new(void); /* NULL when memory is short */
void mn__hash_add(mn__hash *hash, const void *data, int64_t bytes);
mn__hash_text mn__hash_end(mn__hash *hash); /* frees it */
mn__hash_text mn__hash_of(const void *data, int64_t bytes);

#endif
