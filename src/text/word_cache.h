/* A cache of words to ids, of fixed size: two words a slot, the newest stay. */
#ifndef MN__TEXT_WORD_CACHE_H
#define MN__TEXT_WORD_CACHE_H

#include <stdint.h>

#include "text/ids.h"

typedef struct mn__word_cache mn__word_cache;

mn__word_cache *mn__word_cache_new(void); /* NULL when memory is short */
void mn__word_cache_free(mn__word_cache *cache);
/* The word's slot, to be handed to both of the following. */
uint64_t mn__word_cache_slot(const char *word, int64_t bytes);
/* Appends a known word's ids; false for another. */
bool mn__word_cache_find(const mn__word_cache *cache, uint64_t slot, const char *word,
                         int64_t bytes, mn__ids *ids);
/* Long words, and words of many ids, are not kept. */
void mn__word_cache_keep(mn__word_cache *cache, uint64_t slot, const char *word, int64_t bytes,
                         const int32_t *ids, int64_t count);

#endif
