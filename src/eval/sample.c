/* Choosing the next token. */
#include "eval/sample.h"

#include <math.h>
#include <stdbool.h>

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

/* The logits, and the place of the largest; false where they are no distribution. */
static bool take(mn__sampler *sampler, const float *logits, int64_t *most)
{
    *most = 0;
    for (int64_t i = 0; i < sampler->vocabulary; i++) {
        if (isnan(logits[i]))
            return false;
        *most = logits[i] > logits[*most] ? i : *most;
    }
    for (int64_t i = 0; i < sampler->vocabulary; i++)
        sampler->candidate[i] = (mn__candidate){.id = (int32_t)i, .p = (double)logits[i]};
    return isfinite(logits[*most]);
}

static double sum_of(const mn__candidate *candidate, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += candidate[i].p;
    return sum;
}

static void normalise(mn__candidate *candidate, int64_t count)
{
    double sum = sum_of(candidate, count);
    for (int64_t i = 0; i < count; i++)
        candidate[i].p /= sum;
}

/* ---- The most probable first: a heap, of which only what is wanted is taken --------------- */

static bool before(const mn__candidate *a, const mn__candidate *b)
{
    return a->p > b->p || (a->p == b->p && a->id < b->id);
}

static void swap(mn__candidate *a, mn__candidate *b)
{
    mn__candidate held = *a;
    *a = *b;
    *b = held;
}

static void sift_down(mn__candidate *heap, int64_t count, int64_t at)
{
    for (int64_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && before(heap + child + 1, heap + child);
        if (!before(heap + child, heap + at))
            return;
        swap(heap + child, heap + at);
        at = child;
    }
}

/* Moves the most probable to the front, in their order: `most` of them, or fewer whose p
 * make up `sum`. How many. */
static int64_t keep_largest(mn__candidate *candidate, int64_t count, int64_t most, double sum)
{
    double taken = 0;
    int64_t kept = 0;
    for (int64_t i = count / 2 - 1; i >= 0; i--)
        sift_down(candidate, count, i);
    while (kept < most && kept < count && (kept == 0 || taken < sum)) {
        taken += candidate[0].p;
        kept++;
        swap(candidate, candidate + count - kept);
        sift_down(candidate, count - kept, 0);
    }
    for (int64_t i = 0; i < kept && i < count - 1 - i; i++)
        swap(candidate + i, candidate + count - 1 - i);
    return kept;
}

static int64_t keep_top_p(const mn__candidate *candidate, int64_t count, double top_p)
{
    double sum = 0;
    int64_t kept = 0;
    while (kept < count && (kept == 0 || sum < top_p))
        sum += candidate[kept++].p;
    return kept;
}

static int64_t keep_min_p(mn__candidate *candidate, int64_t count, double min_p)
{
    double most = 0;
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
        most = candidate[i].p > most ? candidate[i].p : most;
    for (int64_t i = 0; i < count; i++)
        if (candidate[i].p >= min_p * most && candidate[i].p > 0)
            candidate[kept++] = candidate[i];
    return kept;
}

int64_t mn__sampler_keep(mn__sampler *sampler, const float *logits)
{
    const mn__sample_options *options = &sampler->options;
    mn__candidate *candidate = sampler->candidate;
    int64_t count = sampler->vocabulary, most;
    if (!take(sampler, logits, &most))
        return 0;
    if (options->temperature <= 0) {
        candidate[0] = (mn__candidate){.id = (int32_t)most, .p = 1};
        return 1;
    }
    for (int64_t i = 0; i < count; i++)
        candidate[i].p = exp((candidate[i].p - (double)logits[most]) / options->temperature);
    if (options->top_k > 0 && options->top_k < count) {
        count = keep_largest(candidate, count, options->top_k, INFINITY);
        normalise(candidate, count);
        if (options->top_p < 1)
            count = keep_top_p(candidate, count, options->top_p);
    } else if (options->top_p < 1) {
        count = keep_largest(candidate, count, count, options->top_p * sum_of(candidate, count));
    }
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
