/* A set of words with ids and counts: a hash table over one block of text. */
#ifndef MN__TEXT_VOCABULARY_H
#define MN__TEXT_VOCABULARY_H

#include "base/error.h"
#include "base/string.h"

typedef struct mn__vocabulary_word {
    int64_t begin; /* in `text` */
    int32_t bytes;
    int32_t id; /* order of arrival */
    int64_t count;
} mn__vocabulary_word;

/* Start from {0}. */
typedef struct mn__vocabulary {
    mn__string text;            /* all words, joined */
    mn__vocabulary_word *words; /* [count], by id */
    int64_t count, capacity;
    int32_t *slots; /* [slot_count] ids, -1: free */
    int64_t slot_count;
} mn__vocabulary;

/* The word's id, or -1. */
int32_t mn__vocabulary_find(const mn__vocabulary *vocabulary, const char *word, int64_t bytes);
/* The word, added with count 0 if it is new; NULL when memory is short. */
mn__vocabulary_word *mn__vocabulary_add(mn__vocabulary *vocabulary, const char *word,
                                        int64_t bytes);
void mn__vocabulary_free(mn__vocabulary *vocabulary);

#endif
