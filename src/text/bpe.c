/* Byte-pair encoding, after Sennrich et al. 2016 (algorithm 1) and the `tokenizers` package. */
#include "text/bpe.h"

#include <string.h>

#include "base/memory.h"
#include "text/utf8.h"

enum { FEW = 32 };

struct mn__bpe_link {
    int32_t before, after; /* places, or -1 */
};

struct mn__bpe_entry {
    int32_t rank, place, id; /* of the pair that begins there */
};

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* ---- The tables -------------------------------------------------------------------------------
 */

void mn__bpe_init(mn__bpe *bpe)
{
    *bpe = (mn__bpe){.unknown = -1};
    memset(bpe->byte_ids, -1, sizeof bpe->byte_ids);
}

void mn__bpe_free(mn__bpe *bpe)
{
    mn__vocabulary_free(&bpe->tokens);
    mn__pairs_free(&bpe->merges);
}

mn_status mn__bpe_add_token(mn__bpe *bpe, const char *text, int64_t bytes, int32_t id,
                            mn_error *error)
{
    int64_t before = bpe->tokens.count;
    mn__vocabulary_word *word = mn__vocabulary_add(&bpe->tokens, text, bytes);
    if (!word)
        return fail_memory(error);
    if (bpe->tokens.count == before)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "the token \"%.*s\" is there twice",
                        (int)(bytes < 64 ? bytes : 64), text);
    word->count = id;
    if (bpe->byte_level && bytes == 1)
        bpe->byte_ids[(unsigned char)*text] = id;
    return MN_OK;
}

int32_t mn__bpe_find(const mn__bpe *bpe, const char *text, int64_t bytes)
{
    int32_t word = mn__vocabulary_find(&bpe->tokens, text, bytes);
    return word < 0 ? -1 : (int32_t)bpe->tokens.words[word].count;
}

static mn_status add_pair(mn__bpe *bpe, int32_t left, int32_t right, int32_t rank, int32_t id,
                          mn_error *error)
{
    mn__pair_slot *slot = mn__pairs_add(&bpe->merges, left, right);
    if (!slot)
        return fail_memory(error);
    slot->rank = rank;
    slot->id = id;
    return MN_OK;
}

mn_status mn__bpe_add_merge(mn__bpe *bpe, const char *left, int64_t left_bytes, const char *right,
                            int64_t right_bytes, int32_t rank, mn_error *error)
{
    char room[256], *joined = room;
    if (left_bytes + right_bytes > (int64_t)sizeof room) {
        joined = mn__malloc(left_bytes + right_bytes);
        if (!joined)
            return fail_memory(error);
    }
    memcpy(joined, left, (size_t)left_bytes);
    memcpy(joined + left_bytes, right, (size_t)right_bytes);
    int32_t a = mn__bpe_find(bpe, left, left_bytes), b = mn__bpe_find(bpe, right, right_bytes);
    int32_t both = mn__bpe_find(bpe, joined, left_bytes + right_bytes);
    if (joined != room)
        mn__free(joined);
    if (a < 0 || b < 0 || both < 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "merge %d: a part of it, or the whole, is not in the vocabulary", rank);
    return add_pair(bpe, a, b, rank, both, error);
}

mn_status mn__bpe_add_splits(mn__bpe *bpe, const char *text, int64_t bytes, int32_t rank,
                             mn_error *error)
{
    int32_t both = mn__bpe_find(bpe, text, bytes);
    for (int64_t at = 1; both >= 0 && at < bytes; at++) {
        int32_t a = mn__bpe_find(bpe, text, at);
        int32_t b = a < 0 ? -1 : mn__bpe_find(bpe, text + at, bytes - at);
        mn_status status = b < 0 ? MN_OK : add_pair(bpe, a, b, rank, both, error);
        if (status)
            return status;
    }
    return MN_OK;
}

/* ---- Merging ----------------------------------------------------------------------------------
 */

/* The rank of a pair, INT32_MAX for one that does not merge. */
static int32_t rank_of(const mn__bpe *bpe, int32_t left, int32_t right, int32_t *id)
{
    const mn__pair_slot *slot = mn__pairs_find(&bpe->merges, left, right);
    *id = slot ? slot->id : -1;
    return slot ? slot->rank : INT32_MAX;
}

int64_t mn__bpe_merge_few(const mn__bpe *bpe, int32_t *symbols, int64_t count)
{
    for (;;) {
        int64_t best = -1;
        int32_t best_rank = INT32_MAX, best_id = -1;
        for (int64_t i = 0; i + 1 < count; i++) {
            int32_t id, rank = rank_of(bpe, symbols[i], symbols[i + 1], &id);
            if (rank < best_rank)
                best = i, best_rank = rank, best_id = id;
        }
        if (best < 0)
            return count;
        symbols[best] = best_id;
        count--;
        memmove(symbols + best + 1, symbols + best + 2,
                (size_t)(count - best - 1) * sizeof *symbols);
    }
}

/* The same for at most FEW symbols, each pair looked up once. */
static int64_t merge_short(const mn__bpe *bpe, int32_t *symbols, int64_t count)
{
    int32_t ranks[FEW], ids[FEW];
    for (int64_t i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(bpe, symbols[i], symbols[i + 1], &ids[i]);
    while (count > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < count; i++)
            best = ranks[i] < ranks[best] ? i : best;
        if (ranks[best] == INT32_MAX)
            break;
        symbols[best] = ids[best];
        count--;
        for (int64_t i = best + 1; i < count; i++) {
            symbols[i] = symbols[i + 1];
            ranks[i - 1] = ranks[i];
            ids[i - 1] = ids[i];
        }
        if (best > 0)
            ranks[best - 1] = rank_of(bpe, symbols[best - 1], symbols[best], &ids[best - 1]);
        if (best + 1 < count)
            ranks[best] = rank_of(bpe, symbols[best], symbols[best + 1], &ids[best]);
    }
    return count;
}

/* ---- ... of many symbols: a queue of pairs, ordered by rank, then place -------------------------
 */

typedef struct mn__bpe_entry entry;

static bool before(const entry *a, const entry *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static void push(entry *heap, int64_t *count, entry new)
{
    int64_t at = (*count)++;
    for (; at > 0 && before(&new, &heap[(at - 1) / 2]); at = (at - 1) / 2)
        heap[at] = heap[(at - 1) / 2];
    heap[at] = new;
}

static entry pop(entry *heap, int64_t *count)
{
    entry first = heap[0], last = heap[--*count];
    int64_t at = 0;
    for (int64_t child; (child = 2 * at + 1) < *count; at = child) {
        if (child + 1 < *count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &last))
            break;
        heap[at] = heap[child];
    }
    heap[at] = last;
    return first;
}

static bool reserve(mn__bpe_scratch *scratch, int64_t count)
{
    if (count <= scratch->capacity)
        return true;
    if (count > INT32_MAX)
        return false;
    mn__free(scratch->links);
    mn__free(scratch->heap);
    scratch->capacity = 0;
    scratch->links = mn__malloc(mn__size_product(count, (int64_t)sizeof *scratch->links));
    scratch->heap = mn__malloc(mn__size_product(3 * count, (int64_t)sizeof *scratch->heap));
    if (!scratch->links || !scratch->heap)
        return false;
    scratch->capacity = count;
    return true;
}

typedef struct queue {
    const mn__bpe *bpe;
    int32_t *symbols; /* -1: part of the one before */
    struct mn__bpe_link *links;
    entry *heap;
    int64_t count;
} queue;

static void push_pair(queue *q, int32_t left, int32_t right)
{
    int32_t id;
    if (left < 0 || right < 0)
        return;
    int32_t rank = rank_of(q->bpe, q->symbols[left], q->symbols[right], &id);
    if (rank < INT32_MAX)
        push(q->heap, &q->count, (entry){rank, left, id});
}

static void merge_at(queue *q, entry pair)
{
    int32_t left = pair.place, right = q->links[left].after, id = -1;
    if (q->symbols[left] < 0 || right < 0)
        return; /* merged by now */
    if (rank_of(q->bpe, q->symbols[left], q->symbols[right], &id) != pair.rank || id != pair.id)
        return; /* another pair by now, which has an entry of its own */
    q->symbols[left] = id;
    q->symbols[right] = -1;
    int32_t after = q->links[left].after = q->links[right].after;
    if (after >= 0)
        q->links[after].before = left;
    push_pair(q, q->links[left].before, left);
    push_pair(q, left, after);
}

int64_t mn__bpe_merge_many(const mn__bpe *bpe, mn__bpe_scratch *scratch, int32_t *symbols,
                           int64_t count)
{
    if (!reserve(scratch, count))
        return -1;
    queue q = {bpe, symbols, scratch->links, scratch->heap, 0};
    for (int32_t i = 0; i < count; i++)
        q.links[i] = (struct mn__bpe_link){i - 1, i + 1 < count ? i + 1 : -1};
    for (int32_t i = 0; i + 1 < count; i++)
        push_pair(&q, i, i + 1);
    while (q.count > 0)
        merge_at(&q, pop(q.heap, &q.count));
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        if (symbols[i] >= 0)
            symbols[kept++] = symbols[i];
    return kept;
}

/* ---- Encoding ---------------------------------------------------------------------------------
 */

static bool add_bytes(const mn__bpe *bpe, const char *text, int length, mn__ids *symbols)
{
    for (int i = 0; i < length; i++)
        if (bpe->byte_ids[(unsigned char)text[i]] < 0)
            return false;
    for (int i = 0; i < length; i++)
        mn__ids_add(symbols, bpe->byte_ids[(unsigned char)text[i]]);
    return true;
}

/* What a piece starts as. */
static void start(const mn__bpe *bpe, const char *text, int64_t bytes, mn__ids *symbols)
{
    bool unknown = false; /* the last one was */
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int length = bpe->byte_level ? 1 : mn__utf8_decode(text + at, bytes - at, &code);
        int32_t id = bpe->byte_level ? bpe->byte_ids[(unsigned char)text[at]]
                                     : mn__bpe_find(bpe, text + at, length);
        if (id >= 0)
            mn__ids_add(symbols, id);
        bool found = id >= 0 || (bpe->byte_fallback && add_bytes(bpe, text + at, length, symbols));
        if (!found && bpe->unknown >= 0 && !(unknown && bpe->fuse_unknown))
            mn__ids_add(symbols, bpe->unknown);
        unknown = !found;
        at += length;
    }
}

mn_status mn__bpe_encode(const mn__bpe *bpe, mn__bpe_scratch *scratch, const char *text,
                         int64_t bytes, mn__ids *ids, mn_error *error)
{
    int32_t whole = bpe->whole_words ? mn__bpe_find(bpe, text, bytes) : -1;
    if (whole >= 0) {
        mn__ids_add(ids, whole);
        return MN_OK;
    }
    mn__ids *symbols = &scratch->symbols;
    mn__ids_clear(symbols);
    start(bpe, text, bytes, symbols);
    if (symbols->failed)
        return fail_memory(error);
    int64_t count = symbols->count <= FEW
                        ? merge_short(bpe, symbols->id, symbols->count)
                        : mn__bpe_merge_many(bpe, scratch, symbols->id, symbols->count);
    if (count < 0)
        return fail_memory(error);
    int32_t *out = count > 0 ? mn__ids_extend(ids, count) : NULL;
    if (out)
        memcpy(out, symbols->id, (size_t)count * sizeof *out);
    return MN_OK;
}

void mn__bpe_scratch_free(mn__bpe_scratch *scratch)
{
    mn__ids_free(&scratch->symbols);
    mn__free(scratch->links);
    mn__free(scratch->heap);
    *scratch = (mn__bpe_scratch){0};
}
