/* Learning-rate schedules; the formulas are in schedule.h. */
#include "optim/schedule.h"

#include <math.h>

#define OPTIONS mn__schedule_options

const mn__option mn__schedule_option_table[] = {
    MN__ENUM(OPTIONS, type, "cosine", "constant|cosine|rsqrt|rsqrt_normalized",
             "how the learning rate goes"),
    MN__FLOAT(OPTIONS, rate, "3e-4", 0, 1000, "the peak learning rate"),
    MN__FLOAT(OPTIONS, start, "0", 0, 1000, "constant, cosine: where the warm-up begins"),
    MN__FLOAT(OPTIONS, final, "0", 0, 1000, "cosine: the rate at the end"),
    MN__INT(OPTIONS, warmup, "0", 0, 1e18, "steps from `start` up to `rate`"),
    MN__INT(OPTIONS, steps, "0", 0, 1e18, "cosine: where it ends; 0: with the training"),
    MN__OPTIONS_END};

mn_status mn__schedule_check(const mn__schedule_options *options, mn_error *error)
{
    if (options->type == MN__SCHEDULE_COSINE && options->steps <= options->warmup)
        return mn__fail(error, MN_ERROR_OPTION, "shorten `schedule.warmup`",
                        "schedule: a warm-up of %lld steps leaves none of %lld to the cosine",
                        (long long)options->warmup, (long long)options->steps);
    if (options->type == MN__SCHEDULE_RSQRT_NORMALIZED && options->warmup < 1)
        return mn__fail(error, MN_ERROR_OPTION, "set `schedule.warmup`, 10000 in the papers",
                        "schedule: rsqrt_normalized needs a warmup of at least 1 step");
    if (options->type >= MN__SCHEDULE_RSQRT && options->start > 0)
        return mn__fail(error, MN_ERROR_OPTION, "leave `start` away, or use `type: cosine`",
                        "schedule: rsqrt and rsqrt_normalized have no `start`, here it is %g",
                        options->start);
    if (options->type != MN__SCHEDULE_COSINE && options->final > 0)
        return mn__fail(error, MN_ERROR_OPTION, "leave `final` away, or use `type: cosine`",
                        "schedule: only cosine has a final rate, here final is %g", options->final);
    return MN_OK;
}

static double cosine(const mn__schedule_options *options, double t)
{
    double warmup = (double)options->warmup;
    double part = fmin(1, (t - warmup) / ((double)options->steps - warmup));
    return options->final + (options->rate - options->final) * (1 + cos(acos(-1) * part)) / 2;
}

double mn__schedule_rate(const mn__schedule_options *options, int64_t step)
{
    double t = (double)step, warmup = (double)options->warmup, rate = options->rate;
    double ramp = t < warmup ? t / warmup : 1;
    switch ((mn__schedule_type)options->type) {
    case MN__SCHEDULE_RSQRT:
        return rate / sqrt(fmax(t, warmup)) * ramp;
    case MN__SCHEDULE_RSQRT_NORMALIZED:
        return rate * sqrt(warmup / fmax(t, warmup));
    case MN__SCHEDULE_COSINE:
        if (t > warmup)
            return cosine(options, t);
        break;
    case MN__SCHEDULE_CONSTANT:
        break;
    }
    return options->start + (rate - options->start) * ramp;
}
