/* Texts longer than a window. */
#include "reader/limit.h"

#include <stdio.h>

#include "attention/types.h"
#include "kernel/blocks.h"
#include "nn/rope.h"

/* Runs over all attentions: how many see all of a text, and the bytes that a token of theirs
 * takes. */
static int64_t count_full(const mn__decoder *decoder, mn__dtype compute, int64_t *bytes)
{
    int64_t count = 0, depth = mn__decoder_options_of(decoder)->depth;
    mn__dtype dtype = mn__kept_dtype(mn__decoder_kept(decoder), compute);
    const mn__attention *attention;
    *bytes = 0;
    for (int64_t layer = 0; layer < depth; layer++)
        for (int64_t n = 0; (attention = mn__decoder_attention(decoder, layer, n)); n++)
            if (attention->type == &mn__attention_full) {
                count++;
                *bytes += 2 * attention->G * mn__kept_bytes(dtype, attention->D);
            }
    return count;
}

/* Learned positions are a table of so many rows. */
static int64_t learned_positions(const mn__run *run)
{
    const mn__decoder_options *options = mn__decoder_options_of(run->decoder);
    return mn__decoder_learns_positions(run->decoder) ? options->max_positions : INT64_MAX;
}

/* YaRN's factor says how far positions are scaled, whether a configuration or a person set it,
 * and configurations differ in whether their window counts it. */
static int64_t scaled(const mn__run *run, int64_t context)
{
    const mn__decoder_options *options = mn__decoder_options_of(run->decoder);
    if (options->rope_scaling != MN__ROPE_YARN || context == INT64_MAX)
        return context;
    double length = options->rope_factor * (double)options->rope_original;
    return length < (double)context ? context : length < 1e15 ? (int64_t)(length + 0.5) : INT64_MAX;
}

/* Where frequencies depend on the length, they are right up to the one that they were made for:
 * longrope's short factors up to the first training's, dynamic's base from there on. */
static int64_t turned(const mn__run *run, int64_t context)
{
    const mn__decoder_options *options = mn__decoder_options_of(run->decoder);
    int64_t original = options->rope_original, length = options->rope_length;
    if (!mn__decoder_plans(options))
        return context;
    if (options->rope_scaling == MN__ROPE_DYNAMIC)
        return length > original ? length : original;
    return length > original ? context : original;
}

int64_t mn__limit_of(const mn__run *run)
{
    int64_t bytes, most = learned_positions(run);
    int64_t context = turned(run, scaled(run, run->context > 0 ? run->context : INT64_MAX));
    if (context < most && count_full(run->decoder, MN__F32, &bytes))
        most = context;
    return most;
}

int64_t mn__limit_token_bytes(const mn__run *run, mn__dtype compute)
{
    int64_t bytes;
    count_full(run->decoder, compute, &bytes);
    return bytes;
}

mn_status mn__limit_check(const mn__run *run, const char *what, int64_t tokens, mn__dtype compute,
                          mn_error *error)
{
    int64_t most = mn__limit_of(run), beyond = tokens - most;
    if (tokens <= most)
        return MN_OK;
    if (learned_positions(run) == most)
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "read less, or with a model whose positions are no table, or train one "
                        "with a memory: mneme train",
                        "%s has %lld tokens, %lld more than the model has learned positions for "
                        "(%lld)",
                        what, (long long)tokens, (long long)beyond, (long long)most);
    char hint[384];
    snprintf(hint, sizeof hint,
             "--window %lld, --stretch %lld, or a model trained with a memory: mneme train, "
             "recipes/compressive",
             (long long)most, (long long)tokens);
    return mn__fail(error, MN_ERROR_MISMATCH, hint,
                    "%s has %lld tokens, %lld more than the window of %lld that the model is made "
                    "for. Three ways out: a sliding window, in which a token sees the %lld before "
                    "it, and all earlier ones (at the end the first %lld) are forgotten but for "
                    "what passes from layer to layer; positions scaled to %lld, which lie %.2f "
                    "times closer than in training, and %.0f MiB of keys and values; or a trained "
                    "memory, which costs a training",
                    what, (long long)tokens, (long long)beyond, (long long)most, (long long)most,
                    (long long)beyond, (long long)tokens, (double)tokens / (double)most,
                    (double)tokens * (double)mn__limit_token_bytes(run, compute) / (1 << 20));
}
