/* Pairs of ids by hash, and tries made of them. */
#include "text/pairs.h"

#include <string.h>

#include "base/memory.h"

enum { LEAST_BITS = 8 };

static mn__pair_slot *slot_of(const mn__pairs *pairs, int32_t left, int32_t right)
{
    uint64_t mask = (UINT64_C(1) << pairs->bits) - 1;
    uint64_t at = mn__pairs_home(pairs, left, right);
    while (pairs->slots[at].left >= 0 &&
           (pairs->slots[at].left != left || pairs->slots[at].right != right))
        at = (at + 1) & mask;
    return &pairs->slots[at];
}

static bool grow(mn__pairs *pairs)
{
    mn__pairs larger = {.bits = pairs->slots ? pairs->bits + 1 : LEAST_BITS, .count = pairs->count};
    int64_t size = INT64_C(1) << larger.bits;
    larger.slots = mn__malloc(mn__size_product(size, (int64_t)sizeof *larger.slots));
    if (!larger.slots)
        return false;
    memset(larger.slots, -1, (size_t)size * sizeof *larger.slots);
    for (int64_t i = 0; pairs->slots && i < size / 2; i++) {
        const mn__pair_slot *slot = &pairs->slots[i];
        if (slot->left >= 0)
            *slot_of(&larger, slot->left, slot->right) = *slot;
    }
    mn__free(pairs->slots);
    *pairs = larger;
    return true;
}

mn__pair_slot *mn__pairs_add(mn__pairs *pairs, int32_t left, int32_t right)
{
    if ((!pairs->slots || 2 * pairs->count >= INT64_C(1) << pairs->bits) && !grow(pairs))
        return NULL;
    mn__pair_slot *slot = slot_of(pairs, left, right);
    if (slot->left < 0) {
        *slot = (mn__pair_slot){left, right, -1, -1};
        pairs->count++;
    }
    return slot;
}

void mn__pairs_free(mn__pairs *pairs)
{
    mn__free(pairs->slots);
    *pairs = (mn__pairs){0};
}

bool mn__trie_add(mn__trie *trie, const char *text, int64_t bytes, int32_t value)
{
    int32_t node = 0;
    for (int64_t i = 0; i < bytes; i++) {
        if (trie->nodes == INT32_MAX)
            return false;
        mn__pair_slot *edge = mn__pairs_add(&trie->edges, node, (unsigned char)text[i]);
        if (!edge)
            return false;
        if (edge->id < 0)
            edge->id = ++trie->nodes;
        node = edge->id;
        if (i == bytes - 1)
            edge->rank = value;
    }
    return true;
}

void mn__trie_free(mn__trie *trie)
{
    mn__pairs_free(&trie->edges);
    trie->nodes = 0;
}
