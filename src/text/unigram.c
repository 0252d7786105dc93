/* Unigram models, after the `tokenizers` package (src/models/unigram/model.rs). */
#include "text/unigram.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "text/utf8.h"

static const double unknown_penalty = 10; /* below the least score, as in SentencePiece */

/* The best way to cut the piece up to a place. */
struct mn__unigram_node {
    double score;
    int64_t begin; /* of its last token; -1: none reaches here */
    int32_t id;    /* -1: unknown */
};
typedef struct mn__unigram_node node;

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

mn_status mn__unigram_add(mn__unigram *unigram, const char *text, int64_t bytes, double score,
                          mn_error *error)
{
    if (unigram->vocab == unigram->capacity) {
        int64_t capacity = 2 * unigram->capacity + 1024;
        double *scores =
            mn__realloc(unigram->scores, mn__size_product(capacity, (int64_t)sizeof *scores));
        if (!scores)
            return fail_memory(error);
        unigram->scores = scores;
        unigram->capacity = capacity;
    }
    if (!mn__trie_add(&unigram->tokens, text, bytes, (int32_t)unigram->vocab))
        return fail_memory(error);
    unigram->least = unigram->vocab == 0 ? score : fmin(unigram->least, score);
    unigram->scores[unigram->vocab++] = score;
    return MN_OK;
}

static bool reserve(mn__unigram_scratch *scratch, int64_t count)
{
    if (count <= scratch->capacity)
        return true;
    mn__free(scratch->nodes);
    scratch->capacity = 0;
    scratch->nodes = mn__malloc(mn__size_product(count, (int64_t)sizeof *scratch->nodes));
    if (!scratch->nodes)
        return false;
    scratch->capacity = count;
    return true;
}

static void offer(node *to, double score, int64_t begin, int32_t id)
{
    if (to->begin < 0 || score > to->score)
        *to = (node){score, begin, id};
}

/* Every token that begins at text[at]; the character itself as unknown where it is no token. */
static void step(const mn__unigram *unigram, const char *text, int64_t bytes, int64_t at,
                 int length, node *nodes)
{
    double score = nodes[at].score;
    bool single = false;
    int32_t place = 0;
    for (int64_t end = at; end < bytes; end++) {
        const mn__pair_slot *edge =
            mn__pairs_find(&unigram->tokens.edges, place, (unsigned char)text[end]);
        if (!edge)
            break;
        place = edge->id;
        if (edge->rank < 0)
            continue;
        offer(&nodes[end + 1], score + unigram->scores[edge->rank], at, edge->rank);
        single |= end + 1 == at + length;
    }
    if (!single)
        offer(&nodes[at + length], score + unigram->least - unknown_penalty, at, -1);
}

/* The tokens of text[begin..end), which no token covers. */
static mn_status add_unknown(const mn__unigram *unigram, const char *text, int64_t bytes,
                             mn__ids *ids, mn_error *error)
{
    bool all = unigram->byte_fallback;
    for (int64_t i = 0; all && i < bytes; i++)
        all = unigram->byte_ids[(unsigned char)text[i]] >= 0;
    for (int64_t i = 0; all && i < bytes; i++)
        mn__ids_add(ids, unigram->byte_ids[(unsigned char)text[i]]);
    if (all)
        return MN_OK;
    if (unigram->unknown < 0)
        return mn__fail(error, MN_ERROR_MISMATCH, NULL,
                        "\"%.*s\" is not in the vocabulary, which has no unknown token",
                        (int)(bytes < 64 ? bytes : 64), text);
    mn__ids_add(ids, unigram->unknown);
    return MN_OK;
}

mn_status mn__unigram_encode(const mn__unigram *unigram, mn__unigram_scratch *scratch,
                             const char *text, int64_t bytes, mn__ids *ids, mn_error *error)
{
    if (!reserve(scratch, bytes + 1))
        return fail_memory(error);
    node *nodes = scratch->nodes;
    for (int64_t i = 0; i <= bytes; i++)
        nodes[i].begin = -1;
    nodes[0].score = 0;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        step(unigram, text, bytes, at, length, nodes);
        at += length;
    }
    /* Backwards: each node of the best way now says where the next token ends. */
    int64_t next = -1;
    for (int64_t end = bytes, begin; end > 0; end = begin) {
        begin = nodes[end].begin;
        nodes[end].begin = next;
        next = end;
    }
    for (int64_t begin = 0, end = next; end >= 0;) {
        int64_t after = nodes[end].begin;
        if (nodes[end].id >= 0) {
            mn__ids_add(ids, nodes[end].id);
        } else {
            while (after >= 0 && nodes[after].id < 0) { /* neighbours are one */
                end = after;
                after = nodes[end].begin;
            }
            mn_status status = add_unknown(unigram, text + begin, end - begin, ids, error);
            if (status)
                return status;
        }
        begin = end;
        end = after;
    }
    return MN_OK;
}

void mn__unigram_free(mn__unigram *unigram)
{
    mn__trie_free(&unigram->tokens);
    mn__free(unigram->scores);
}

void mn__unigram_scratch_free(mn__unigram_scratch *scratch)
{
    mn__free(scratch->nodes);
    *scratch = (mn__unigram_scratch){0};
}
