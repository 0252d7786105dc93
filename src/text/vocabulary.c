/* Words by hash: open addressing, at most half full. */
#include "text/vocabulary.h"

#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

enum { LEAST_SLOTS = 1024 };

/* The slot that holds the word, or the free one where it belongs. */
static int64_t slot_of(const mn__vocabulary *vocabulary, const char *word, int64_t bytes)
{
    int64_t mask = vocabulary->slot_count - 1;
    int64_t slot = (int64_t)(XXH3_64bits(word, (size_t)bytes) & (uint64_t)mask);
    for (;; slot = (slot + 1) & mask) {
        int32_t id = vocabulary->slots[slot];
        if (id < 0)
            return slot;
        const mn__vocabulary_word *found = &vocabulary->words[id];
        if (found->bytes == bytes &&
            memcmp(vocabulary->text.text + found->begin, word, (size_t)bytes) == 0)
            return slot;
    }
}

static bool grow_slots(mn__vocabulary *vocabulary)
{
    int64_t count = vocabulary->slot_count ? 2 * vocabulary->slot_count : LEAST_SLOTS;
    int32_t *slots = mn__malloc(mn__size_product(count, (int64_t)sizeof *slots));
    if (!slots)
        return false;
    memset(slots, -1, (size_t)count * sizeof *slots);
    mn__free(vocabulary->slots);
    vocabulary->slots = slots;
    vocabulary->slot_count = count;
    for (int64_t id = 0; id < vocabulary->count; id++) {
        const mn__vocabulary_word *word = &vocabulary->words[id];
        slots[slot_of(vocabulary, vocabulary->text.text + word->begin, word->bytes)] = (int32_t)id;
    }
    return true;
}

static bool grow_words(mn__vocabulary *vocabulary)
{
    int64_t capacity = vocabulary->capacity ? 2 * vocabulary->capacity : LEAST_SLOTS / 2;
    mn__vocabulary_word *words =
        mn__realloc(vocabulary->words, mn__size_product(capacity, (int64_t)sizeof *words));
    if (!words)
        return false;
    vocabulary->words = words;
    vocabulary->capacity = capacity;
    return true;
}

int32_t mn__vocabulary_find(const mn__vocabulary *vocabulary, const char *word, int64_t bytes)
{
    return vocabulary->count ? vocabulary->slots[slot_of(vocabulary, word, bytes)] : -1;
}

mn__vocabulary_word *mn__vocabulary_add(mn__vocabulary *vocabulary, const char *word, int64_t bytes)
{
    int32_t id = mn__vocabulary_find(vocabulary, word, bytes);
    if (id >= 0)
        return &vocabulary->words[id];
    if (vocabulary->count == INT32_MAX || bytes > INT32_MAX)
        return NULL;
    if (2 * vocabulary->count >= vocabulary->slot_count && !grow_slots(vocabulary))
        return NULL;
    if (vocabulary->count == vocabulary->capacity && !grow_words(vocabulary))
        return NULL;
    int64_t slot = slot_of(vocabulary, word, bytes), begin = vocabulary->text.bytes;
    mn__string_add(&vocabulary->text, word, bytes);
    if (vocabulary->text.failed)
        return NULL;
    id = (int32_t)vocabulary->count++;
    vocabulary->slots[slot] = id;
    vocabulary->words[id] =
        (mn__vocabulary_word){.begin = begin, .bytes = (int32_t)bytes, .id = id};
    return &vocabulary->words[id];
}

void mn__vocabulary_free(mn__vocabulary *vocabulary)
{
    mn__string_free(&vocabulary->text);
    mn__free(vocabulary->words);
    mn__free(vocabulary->slots);
    *vocabulary = (mn__vocabulary){0};
}
