/* The trainer: the loop, and what is due at its steps. Opening is in open.c. */
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "train/trainer_own.h"

/* ---- Records ------------------------------------------------------------------------ */

static double rate_of(double amount, double seconds)
{
    return seconds > 0 ? amount / seconds : 0;
}

static void put_bits(mn__trainer *trainer, double loss, mn__split split)
{
    double bits = trainer->bits_per_nat[split];
    if (bits > 0)
        mn__metrics_number(&trainer->metrics, "bits_per_byte", loss * bits);
}

/* What was trained beside the task's loss, a token. */
static void put_others(mn__trainer *trainer)
{
    mn__named_losses *others = &trainer->counters.others;
    double tokens = (double)trainer->counters.nats_tokens;
    for (int i = 0; i < others->count; i++)
        mn__metrics_number(&trainer->metrics, others->item[i].name, others->item[i].sum / tokens);
    *others = (mn__named_losses){0};
}

/* What the interval since the last line came to. */
static mn_status log_training(mn__trainer *trainer, mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    mn__metrics *metrics = &trainer->metrics;
    trainer->loss = counters->nats_tokens ? counters->nats / (double)counters->nats_tokens : NAN;
    double seconds = trainer->interval_seconds;
    double flops =
        (trainer->plan.products + trainer->plan.attention) * (double)trainer->interval_steps;
    trainer->tokens_per_second = rate_of((double)trainer->interval_tokens, seconds);
    trainer->share_of_peak =
        trainer->plan.peak > 0 ? rate_of(flops, seconds) / trainer->plan.peak : 0;
    mn__metrics_begin(metrics, "train", counters->step);
    mn__metrics_integer(metrics, "tokens", counters->tokens);
    mn__metrics_integer(metrics, "epoch", mn__batcher_cursor(trainer->batcher)->epoch);
    mn__metrics_number(metrics, "loss", trainer->loss);
    put_bits(trainer, trainer->loss, MN__SPLIT_TRAIN);
    put_others(trainer);
    mn__metrics_number(metrics, "gradient_norm", counters->norm);
    mn__metrics_number(metrics, "rate",
                       mn__schedule_rate(&trainer->recipe.schedule, counters->step));
    mn__metrics_number(metrics, "tokens_per_s", trainer->tokens_per_second);
    mn__metrics_number(metrics, "share_of_peak", trainer->share_of_peak);
    mn__metrics_number(metrics, "seconds", counters->seconds);
    counters->nats = 0;
    counters->nats_tokens = 0;
    trainer->interval_seconds = 0;
    trainer->interval_steps = trainer->interval_tokens = 0;
    return mn__metrics_end(metrics, error);
}

static mn_status log_skipped(mn__trainer *trainer, const char *why, mn_error *error)
{
    mn__log_warning("%s; skipped", why);
    mn__metrics_begin(&trainer->metrics, "skipped", trainer->counters.step);
    mn__metrics_text(&trainer->metrics, "why", why);
    return mn__metrics_end(&trainer->metrics, error);
}

static mn_status log_validation(mn__trainer *trainer, const mn__step *done, double seconds,
                                mn_error *error)
{
    double loss = done->nats / (double)done->tokens;
    mn__metrics *metrics = &trainer->metrics;
    mn__metrics_begin(metrics, "validation", trainer->counters.step);
    mn__metrics_integer(metrics, "tokens", done->tokens);
    mn__metrics_number(metrics, "loss", loss);
    mn__metrics_number(metrics, "perplexity", exp(loss));
    put_bits(trainer, loss, MN__SPLIT_VALIDATION);
    mn__metrics_number(metrics, "seconds", seconds);
    return mn__metrics_end(metrics, error);
}

/* ---- What is due ----------------------------------------------------------------------- */

static mn_status validate(mn__trainer *trainer, const mn__progress *progress, mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    mn__step done;
    double begin = mn__clock();
    mn_status status = mn__validate(&trainer->validator, &trainer->learner, progress, &done, error);
    if (status != MN_OK)
        return status;
    counters->validation_due = false;
    status = log_validation(trainer, &done, mn__clock() - begin, error);
    double loss = done.nats / (double)done.tokens;
    if (status != MN_OK || !(loss < counters->best))
        return status;
    status =
        mn__weights_save(trainer->best_path, &trainer->learner.params, counters->step, loss, error);
    if (status == MN_OK) {
        counters->best = loss;
        counters->best_step = counters->step;
    }
    return status;
}

static mn_status save(mn__trainer *trainer, mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    mn_status status = mn__metrics_sync(&trainer->metrics, error);
    counters->updates = trainer->learner.optimizer.updates;
    counters->line_bytes = trainer->metrics.lines.bytes;
    counters->event_bytes = trainer->metrics.events.bytes;
    if (status == MN_OK)
        status = mn__checkpoint_save(trainer->last_path, &trainer->learner, trainer->batcher,
                                     counters, error);
    if (status == MN_OK)
        trainer->saved_step = counters->step;
    return status;
}

static bool every(int64_t step, int64_t n)
{
    return n > 0 && step > 0 && step % n == 0;
}

/* An update is due at every step, or from some step on at every n-th; and at the
 * end, so that no gradient is left over. */
static bool update_due(const mn__trainer *trainer, int64_t step)
{
    const mn__train_options *train = &trainer->recipe.train;
    int64_t since = step - train->update_every_from;
    return since <= 0 || since % train->update_every == 0 || step == train->steps;
}

/* ---- Steps --------------------------------------------------------------------------------- */

static mn_status next_batches(mn__trainer *trainer, mn_error *error)
{
    mn_status status = MN_OK;
    bool more = true;
    for (int64_t u = 0; status == MN_OK && u < trainer->recipe.train.unroll; u++)
        status = mn__batcher_next(trainer->batcher, &trainer->learner.batch[u], &more, error);
    return status;
}

static mn_status compute(mn__trainer *trainer, mn__step *done, mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    mn_status status = mn__learner_step(&trainer->learner, counters->step, done, error);
    if (status != MN_OK || !update_due(trainer, counters->step))
        return status;
    return mn__learner_update(&trainer->learner, counters->step, &counters->norm, error);
}

/* One step of the training; what it brings is counted. */
static mn_status step_once(mn__trainer *trainer, mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    const mn__train_options *train = &trainer->recipe.train;
    double begin = mn__clock();
    mn_status status = next_batches(trainer, error);
    if (status != MN_OK)
        return status;
    mn__step done = {0};
    mn_error number = {.code = MN_OK};
    counters->step++;
    status = compute(trainer, &done, &number);
    if (status == MN_ERROR_NUMBER && train->non_finite == MN__NON_FINITE_SKIP) {
        mn__learner_forget(&trainer->learner);
        done = (mn__step){0};
        status = log_skipped(trainer, number.message, &number);
    }
    if (status != MN_OK) {
        if (error)
            *error = number;
        return status;
    }
    counters->tokens += done.tokens;
    counters->nats += done.nats;
    counters->nats_tokens += done.tokens;
    mn__named_losses_add_all(&counters->others, &done.others, 1);
    double seconds = mn__clock() - begin;
    counters->seconds += seconds;
    trainer->interval_seconds += seconds;
    trainer->interval_tokens += done.tokens;
    trainer->interval_steps++;
    counters->validation_due |= every(counters->step, train->validate_every) ||
                                (train->validate_every > 0 && counters->step == train->steps);
    if (every(counters->step, train->log_every) || counters->step == train->steps)
        return log_training(trainer, error);
    return MN_OK;
}

/* ---- The loop -------------------------------------------------------------------------------- */

static void put_time_left(char *note, size_t room, double seconds)
{
    long long left = (long long)(seconds + 0.5);
    if (left >= 3600)
        snprintf(note, room, ", %lldh %02lldm left", left / 3600, left / 60 % 60);
    else if (left >= 60)
        snprintf(note, room, ", %lldm %02llds left", left / 60, left % 60);
    else
        snprintf(note, room, ", %llds left", left);
}

static bool report(mn__trainer *trainer, const mn__progress *progress)
{
    const mn__counters *counters = &trainer->counters;
    int64_t steps = trainer->recipe.train.steps, here = counters->step - trainer->first_step;
    if (here == 0)
        return mn__progress_report(progress, "training", counters->step, steps, NULL);
    double loss =
        counters->nats_tokens ? counters->nats / (double)counters->nats_tokens : trainer->loss;
    double each = (counters->seconds - trainer->first_seconds) / (double)here;
    double speed = rate_of((double)(counters->tokens - trainer->first_tokens),
                           counters->seconds - trainer->first_seconds);
    char note[160];
    size_t length =
        (size_t)snprintf(note, sizeof note, "loss %.3f, %.3gk tokens/s", loss, speed / 1000);
    if (trainer->plan.peak > 0 && length < sizeof note)
        length += (size_t)snprintf(note + length, sizeof note - length, ", %.0f%% of peak",
                                   100 * trainer->plan.seconds / each);
    if (length < sizeof note)
        put_time_left(note + length, sizeof note - length, each * (double)(steps - counters->step));
    return mn__progress_report(progress, "training", counters->step, steps, note);
}

/* What is to be done between two steps. A gradient that waits for an update is in
 * no checkpoint: validations and checkpoints wait with it, so that a run that was
 * stopped there does after the resume what another did at once. */
static mn_status settle(mn__trainer *trainer, bool *stopped, const mn__progress *progress,
                        mn_error *error)
{
    mn__counters *counters = &trainer->counters;
    const mn__train_options *train = &trainer->recipe.train;
    mn_status status = MN_OK;
    bool whole = trainer->learner.scored == 0;
    *stopped = !report(trainer, progress) || *stopped;
    if (counters->validation_due && whole && !*stopped) {
        status = validate(trainer, progress, error);
        if (status == MN_ERROR_INTERRUPTED) { /* it is due again after the resume */
            *stopped = true;
            status = MN_OK;
        }
    }
    trainer->checkpoint_due |= every(counters->step, train->checkpoint_every) || *stopped ||
                               counters->step == train->steps;
    if (status != MN_OK || !trainer->checkpoint_due || !whole)
        return status;
    trainer->checkpoint_due = false;
    return counters->step == trainer->saved_step ? MN_OK : save(trainer, error);
}

mn_status mn__trainer_run(mn__trainer *trainer, int64_t step, const mn__progress *progress,
                          mn_error *error)
{
    const mn__counters *counters = &trainer->counters;
    int64_t end = step < trainer->recipe.train.steps ? step : trainer->recipe.train.steps;
    bool stopped = false;
    for (;;) {
        mn_status status = settle(trainer, &stopped, progress, error);
        if (status != MN_OK)
            return status;
        if (stopped && trainer->learner.scored == 0)
            return mn__fail(error, MN_ERROR_INTERRUPTED, "go on with --resume",
                            "stopped at step %lld of %lld; it is saved in %s",
                            (long long)counters->step, (long long)trainer->recipe.train.steps,
                            trainer->last_path);
        if (counters->step >= end)
            return MN_OK;
        status = step_once(trainer, error);
        if (status != MN_OK)
            return status;
    }
}

void mn__trainer_result(const mn__trainer *trainer, mn__train_result *result)
{
    const mn__counters *counters = &trainer->counters;
    *result = (mn__train_result){.step = counters->step,
                                 .tokens = counters->tokens,
                                 .loss = trainer->loss,
                                 .best = counters->best,
                                 .best_step = counters->best_step,
                                 .bits_per_nat = trainer->bits_per_nat[MN__SPLIT_VALIDATION],
                                 .seconds = counters->seconds,
                                 .plan = trainer->plan};
}

mn_status mn__train(const mn__train_call *call, const mn__progress *progress,
                    mn__train_result *result, mn_error *error)
{
    mn__trainer *trainer;
    mn_status status = mn__trainer_open(&trainer, call, progress, error);
    if (status != MN_OK)
        return status;
    status = mn__trainer_run(trainer, INT64_MAX, progress, error);
    if (result)
        mn__trainer_result(trainer, result);
    mn__trainer_close(trainer);
    return status;
}
