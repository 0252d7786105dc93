/* A map from pairs of ids to pairs of ids: merges of two tokens, edges of a trie.
 * Open addressing, at most half full. */
#ifndef MN__TEXT_PAIRS_H
#define MN__TEXT_PAIRS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mn__pair_slot {
    int32_t left, right; /* left -1: free */
    int32_t rank, id;
} mn__pair_slot;

/* Start from {0}. */
typedef struct mn__pairs {
    mn__pair_slot *slots; /* [2^bits] */
    int bits;
    int64_t count;
} mn__pairs;

/* The slot of a pair, or NULL. */
static inline const mn__pair_slot *mn__pairs_find(const mn__pairs *pairs, int32_t left,
                                                  int32_t right);
/* The pair's slot, new with rank and id -1; NULL when memory is short. left >= 0. */
mn__pair_slot *mn__pairs_add(mn__pairs *pairs, int32_t left, int32_t right);
void mn__pairs_free(mn__pairs *pairs);

/* Fibonacci hashing: the product's upper bits depend on all of the key's. */
static inline uint64_t mn__pairs_home(const mn__pairs *pairs, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key ^= key >> 29;
    return key * UINT64_C(0x9E3779B97F4A7C15) >> (64 - pairs->bits);
}

static inline const mn__pair_slot *mn__pairs_find(const mn__pairs *pairs, int32_t left,
                                                  int32_t right)
{
    if (pairs->count == 0)
        return 0;
    uint64_t mask = (UINT64_C(1) << pairs->bits) - 1;
    uint64_t at = mn__pairs_home(pairs, left, right);
    for (;; at = (at + 1) & mask) {
        const mn__pair_slot *slot = &pairs->slots[at];
        if (slot->left == left && slot->right == right)
            return slot;
        if (slot->left < 0)
            return 0;
    }
}

/* A trie of byte strings on such a map: edges (node, byte) -> id = node; the root is 0, and a
 * node where a string ends has rank = its value. */
typedef struct mn__trie {
    mn__pairs edges;
    int32_t nodes; /* besides the root */
} mn__trie;

/* False when memory is short. A string that is there already takes the new value; value >= 0. */
bool mn__trie_add(mn__trie *trie, const char *text, int64_t bytes, int32_t value);
void mn__trie_free(mn__trie *trie);

#endif
