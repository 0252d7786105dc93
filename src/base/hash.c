/* Fingerprints: XXH3, 128 bits, written as xxhsum -H2 writes them. */
#include "base/hash.h"

#include <stdio.h>
#include <xxhash.h>

#include "base/memory.h"

struct mn__hash {
    XXH3_state_t *state; /* libxxhash's: its size is not fixed between versions */
};

mn__hash *mn__hash_new(void)
{
    mn__hash *hash = mn__malloc(sizeof *hash);
    if (!hash)
        return NULL;
    hash->state = XXH3_createState();
    if (!hash->state) {
        mn__free(hash);
        return NULL;
    }
    XXH3_128bits_reset(hash->state);
    return hash;
}

void mn__hash_add(mn__hash *hash, const void *data, int64_t bytes)
{
    if (bytes > 0)
        XXH3_128bits_update(hash->state, data, (size_t)bytes);
}

static mn__hash_text text_of(XXH128_hash_t value)
{
    mn__hash_text text;
    snprintf(text.hex, sizeof text.hex, "%016llx%016llx", (unsigned long long)value.high64,
             (unsigned long long)value.low64);
    return text;
}

mn__hash_text mn__hash_end(mn__hash *hash)
{
    XXH128_hash_t value = XXH3_128bits_digest(hash->state);
    XXH3_freeState(hash->state);
    mn__free(hash);
    return text_of(value);
}

mn__hash_text mn__hash_of(const void *data, int64_t bytes)
{
    return text_of(bytes > 0 ? XXH3_128bits(data, (size_t)bytes) : XXH3_128bits("", 0));
}
