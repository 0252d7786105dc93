/* SentencePiece's BPE as a tokenizer.json: scores become ranks. */
#include <stdlib.h>

#include "base/memory.h"
#include "text/import.h"

static int falling(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double score_of(const mn__scored_token *token)
{
    return token->score == token->score ? token->score : 0;
}

/* Scores, falling; a rank is the place of a score's first occurrence. */
static double *sorted_scores(const mn__scored_token *tokens, int64_t count)
{
    double *sorted = mn__malloc(mn__size_product(count, (int64_t)sizeof *sorted));
    for (int64_t id = 0; sorted && id < count; id++)
        sorted[id] = score_of(&tokens[id]);
    if (sorted)
        qsort(sorted, (size_t)count, sizeof *sorted, falling);
    return sorted;
}

static int64_t rank_of(const double *sorted, int64_t count, double score)
{
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (sorted[middle] > score)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void mn__import_spaces(bool prefix, mn__string *json)
{
    static const char spaces[] =
        "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
        "{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
        "{\"type\":\"Fuse\"}%s]},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},";
    mn__string_printf(json, spaces,
                      prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"
                             : "",
                      prefix ? "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"}," : "");
}

mn_status mn__import_scored(const mn__scored_token *tokens, int64_t count, int64_t unknown,
                            bool prefix, mn__string *json, mn_error *error)
{
    double *sorted = sorted_scores(tokens, count);
    if (!sorted)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    mn__string_puts(json, "{\"version\":\"1.0\",\"model\":{\"type\":\"TokenRanks\","
                          "\"byte_fallback\":true,\"fuse_unk\":true,\"tokens\":[");
    for (int64_t id = 0; id < count; id++) {
        mn__string_puts(json, id ? ",[" : "[");
        mn__string_json(json, tokens[id].text, tokens[id].bytes);
        if (tokens[id].joins)
            mn__string_printf(json, ",%lld]",
                              (long long)rank_of(sorted, count, score_of(&tokens[id])));
        else
            mn__string_puts(json, ",null]");
    }
    mn__free(sorted);
    mn__string_puts(json, "]");
    if (unknown >= 0 && unknown < count) {
        mn__string_puts(json, ",\"unk_token\":");
        mn__string_json(json, tokens[unknown].text, tokens[unknown].bytes);
    }
    mn__string_puts(json, "},");
    mn__import_spaces(prefix, json);
    return MN_OK;
}
