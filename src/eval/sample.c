/* Choosing the next token. */
#include "eval/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/random.h"

mn_status mn__sampler_open(mn__sampler *sampler, const mn__sample_options *options,
                           int64_t vocabulary, mn_error *error)
{
    *sampler = (mn__sampler){.options = *options, .vocabulary = vocabulary};
    sampler->candidate = mn__calloc(vocabulary, sizeof *sampler->candidate);
    return sampler->candidate ? MN_OK
                              : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a sampler");
}

void mn__sampler_close(mn__sampler *sampler)
{
    mn__free(sampler->candidate);
    *sampler = (mn__sampler){0};
}

static int by_probability(const void *a, const void *b)
{
    const mn__candidate *x = a, *y = b;
    if (x->p != y->p)
        return x->p > y->p ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* The logits, and their largest; false where they are no distribution. */
static bool take(mn__sampler *sampler, const float *logits, double *most)
{
    *most = -INFINITY;
    for (int64_t i = 0; i < sampler->vocabulary; i++) {
        if (isnan(logits[i]))
            return false;
        sampler->candidate[i] = (mn__candidate){.id = (int32_t)i, .p = (double)logits[i]};
        *most = fmax(*most, (double)logits[i]);
    }
    return isfinite(*most);
}

static void normalise(mn__candidate *candidate, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += candidate[i].p;
    for (int64_t i = 0; i < count; i++)
        candidate[i].p /= sum;
}

static int64_t keep_top_p(const mn__candidate *candidate, int64_t count, double top_p)
{
    double sum = 0;
    int64_t kept = 0;
    while (kept < count && (kept == 0 || sum < top_p))
        sum += candidate[kept++].p;
    return kept;
}

static int64_t keep_min_p(const mn__candidate *candidate, int64_t count, double min_p)
{
    int64_t kept = 1;
    while (kept < count && candidate[kept].p >= min_p * candidate[0].p && candidate[kept].p > 0)
        kept++;
    return kept;
}

int64_t mn__sampler_keep(mn__sampler *sampler, const float *logits)
{
    const mn__sample_options *options = &sampler->options;
    mn__candidate *candidate = sampler->candidate;
    int64_t count = sampler->vocabulary;
    double most;
    if (!take(sampler, logits, &most))
        return 0;
    bool greedy = options->temperature <= 0;
    for (int64_t i = 0; i < count; i++)
        candidate[i].p =
            greedy ? (candidate[i].p == most) : exp((candidate[i].p - most) / options->temperature);
    qsort(candidate, (size_t)count, sizeof *candidate, by_probability);
    if (greedy)
        count = 1;
    if (options->top_k > 0 && options->top_k < count)
        count = options->top_k;
    normalise(candidate, count);
    if (options->top_p < 1)
        count = keep_top_p(candidate, count, options->top_p);
    count = keep_min_p(candidate, count, options->min_p);
    normalise(candidate, count);
    return count;
}

int32_t mn__sampler_next(mn__sampler *sampler, const float *logits)
{
    int64_t count = mn__sampler_keep(sampler, logits);
    if (count == 0)
        return -1;
    uint32_t words[4];
    mn__random_key key = {.seed = (uint64_t)sampler->options.seed};
    mn__random_block(key, (uint64_t)sampler->drawn++, words);
    double u = (double)(((uint64_t)words[0] << 32 | words[1]) >> 11) * 0x1p-53, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += sampler->candidate[i].p;
        if (u < sum)
            return sampler->candidate[i].id;
    }
    return sampler->candidate[count - 1].id; /* the sum was rounded below u */
}
