/* Frequencies of rotary positions; the equations are in rope.h. */
#include "nn/rope.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* ---- Checks --------------------------------------------------------------------------- */

static bool uses_original(mn__rope_scaling scaling)
{
    return scaling == MN__ROPE_DYNAMIC || scaling == MN__ROPE_LLAMA3 || scaling == MN__ROPE_YARN ||
           scaling == MN__ROPE_LONGROPE;
}

static mn_status check(const mn__rope_options *options, mn_error *error)
{
    mn__rope_scaling scaling = options->scaling;
    if (options->width < 2 || options->width % 2)
        return mn__fail(error, MN_ERROR_OPTION, "choose an even number of at least 2",
                        "rotary positions turn pairs: model.rope_width %lld",
                        (long long)options->width);
    if (scaling != MN__ROPE_NONE && !(options->factor >= 1))
        return mn__fail(error, MN_ERROR_OPTION, "1 leaves the length as it is, 4 stretches it so",
                        "model.rope_factor %g is less than 1", options->factor);
    if (uses_original(scaling) && options->original < 2)
        return mn__fail(error, MN_ERROR_OPTION, "give it: model.rope_original: 4096",
                        "model.rope_scaling needs the length of the first training");
    if ((scaling == MN__ROPE_NTK || scaling == MN__ROPE_DYNAMIC) && options->width < 4)
        return mn__fail(error, MN_ERROR_OPTION, "choose another model.rope_scaling",
                        "a base cannot be scaled for a single pair");
    if (scaling == MN__ROPE_LLAMA3 && !(options->low > 0 && options->high > options->low))
        return mn__fail(error, MN_ERROR_OPTION, "they are usually 1 and 4",
                        "model.rope_low %g and rope_high %g are no range", options->low,
                        options->high);
    if (scaling == MN__ROPE_YARN && !(options->base > 1 && options->slow > 0 && options->fast > 0))
        return mn__fail(error, MN_ERROR_OPTION, "they are usually 10000, 1 and 32",
                        "yarn needs model.rope_base > 1, rope_slow > 0, rope_fast > 0");
    for (int64_t i = 0; scaling == MN__ROPE_LONGROPE && i < options->width / 2; i++)
        if (!(options->short_factors[i] > 0 && options->long_factors[i] > 0))
            return mn__fail(error, MN_ERROR_OPTION, "frequencies are divided by them",
                            "model.rope_short or rope_long holds a factor that is not positive");
    return MN_OK;
}

/* ---- Equations ------------------------------------------------------------------------ */

static double base(const mn__rope_options *options)
{
    double d = (double)options->width, f = options->factor, stretch = 1;
    if (options->scaling == MN__ROPE_NTK)
        stretch = f;
    if (options->scaling == MN__ROPE_DYNAMIC && options->length > options->original)
        stretch = f * (double)options->length / (double)options->original - (f - 1);
    return stretch == 1 ? options->base : options->base * pow(stretch, d / (d - 2));
}

static double llama3(const mn__rope_options *options, double w)
{
    double turns = (double)options->original * w / (2 * pi), f = options->factor;
    if (turns > options->high)
        return w;
    if (turns < options->low)
        return w / f;
    double s = (turns - options->low) / (options->high - options->low);
    return (1 - s) * w / f + s * w;
}

/* The pair, not a whole one, that turns so many times over the first training's length. */
static double pair_of(const mn__rope_options *options, double turns)
{
    return (double)options->width * log((double)options->original / (turns * 2 * pi)) /
           (2 * log(options->base));
}

static double yarn(const mn__rope_options *options, int64_t i, double w)
{
    double from = pair_of(options, options->fast), to = pair_of(options, options->slow);
    if (options->truncate) {
        from = floor(from);
        to = ceil(to);
    }
    from = fmax(from, 0);
    to = fmin(to, (double)options->width - 1);
    if (from == to)
        to += 0.001;
    double r = fmin(fmax(((double)i - from) / (to - from), 0), 1);
    return w * (1 - r) + w / options->factor * r;
}

static double frequency(const mn__rope_options *options, int64_t i)
{
    double w = pow(base(options), -2.0 * (double)i / (double)options->width);
    switch (options->scaling) {
    case MN__ROPE_LINEAR:
        return w / options->factor;
    case MN__ROPE_LLAMA3:
        return llama3(options, w);
    case MN__ROPE_YARN:
        return yarn(options, i, w);
    case MN__ROPE_LONGROPE:
        return w / (options->length > options->original ? options->long_factors
                                                        : options->short_factors)[i];
    case MN__ROPE_NONE:
    case MN__ROPE_NTK:
    case MN__ROPE_DYNAMIC:
        break;
    }
    return w;
}

static double magnitude(const mn__rope_options *options)
{
    if (options->magnitude > 0)
        return options->magnitude;
    if (options->scaling == MN__ROPE_YARN)
        return 0.1 * log(options->factor) + 1;
    if (options->scaling == MN__ROPE_LONGROPE)
        return sqrt(1 + log(options->factor) / log((double)options->original));
    return 1;
}

mn_status mn__rope_create(mn__rope *rope, mn__arena *arena, const mn__rope_options *options,
                          mn_error *error)
{
    mn_status status = check(options, error);
    if (status != MN_OK)
        return status;
    int64_t pairs = options->width / 2;
    float *frequencies = mn__arena_calloc(arena, pairs, sizeof *frequencies);
    if (!frequencies)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for rotary frequencies");
    for (int64_t i = 0; i < pairs; i++)
        frequencies[i] = (float)frequency(options, i);
    *rope = (mn__rope){.pairs = pairs,
                       .frequencies = frequencies,
                       .interleaved = options->interleaved,
                       .magnitude = (float)magnitude(options)};
    return MN_OK;
}
