/* Words to ids: sets of two, a cache line a word. */
#include "text/word_cache.h"

#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

enum { SET_BITS = 15, WAYS = 2, BYTES_MOST = 30, IDS_MOST = 8 };

typedef struct entry {
    unsigned char bytes, count; /* bytes = 0: free */
    char word[BYTES_MOST];
    int32_t ids[IDS_MOST];
} entry;

struct mn__word_cache {
    entry sets[1 << SET_BITS][WAYS]; /* the newer word first */
};

mn__word_cache *mn__word_cache_new(void)
{
    return mn__calloc(1, sizeof(mn__word_cache));
}

void mn__word_cache_free(mn__word_cache *cache)
{
    mn__free(cache);
}

uint64_t mn__word_cache_slot(const char *word, int64_t bytes)
{
    return bytes > BYTES_MOST ? 0 : XXH3_64bits(word, (size_t)bytes) >> (64 - SET_BITS);
}

bool mn__word_cache_find(const mn__word_cache *cache, uint64_t slot, const char *word,
                         int64_t bytes, mn__ids *ids)
{
    const entry *e = cache->sets[slot];
    if (e->bytes != bytes || memcmp(e->word, word, (size_t)bytes) != 0)
        e++;
    if (e->bytes != bytes || bytes == 0 || memcmp(e->word, word, (size_t)bytes) != 0)
        return false;
    int32_t *out = mn__ids_extend(ids, e->count);
    for (int i = 0; out && i < e->count; i++)
        out[i] = e->ids[i];
    return true;
}

void mn__word_cache_keep(mn__word_cache *cache, uint64_t slot, const char *word, int64_t bytes,
                         const int32_t *ids, int64_t count)
{
    if (bytes > BYTES_MOST || count > IDS_MOST)
        return;
    entry *e = cache->sets[slot];
    e[1] = e[0];
    e->bytes = (unsigned char)bytes;
    e->count = (unsigned char)count;
    memcpy(e->word, word, (size_t)bytes);
    memcpy(e->ids, ids, (size_t)count * sizeof *ids);
}
