/* bench train: tokens per second of whole training steps (forward, backward,
 * clipping, AdamW) against PyTorch, the same models, paired in one run.
 *
 *   bench_train [a b c] [--precision f32|bf16] [--rounds N] [--alone]
 *
 * Each round times a step of ours, then one of the peer's; the figures are
 * medians over rounds, the ratios medians of the rounds' own. --alone leaves the
 * peer out. Last line: one JSON object of f32_a, best_a, f32_b, best_b, xl_c and
 * share_of_peak_b, as far as they were measured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/progress.h"
#include "base/threads.h"
#include "peer.h"
#include "train/learner.h"
#include "train/plan.h"

enum { ROUNDS_MAX = 101 };

typedef struct bench_options {
    const char *models;
    bool precision[2]; /* f32, bf16 */
    int rounds;
    bool alone;
} bench_options;

/* One model in one precision. */
typedef struct result {
    bool measured, compared;
    double ours, theirs; /* tokens/s, medians */
    double ratio;        /* median of the rounds' */
    double share;        /* of peak, median */
    char variant[64];    /* the peer's fastest form */
} result;

static const char *const precision_names[] = {"f32", "bf16"};

static void stop(const mn_error *error)
{
    fprintf(stderr, "bench_train: %s\n%s\n", error->message, error->hint);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int count)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    return count % 2 ? sorted[count / 2] : 0.5 * (sorted[count / 2 - 1] + sorted[count / 2]);
}

/* ---- Ours ------------------------------------------------------------------------------ */

typedef struct ours {
    mn__recipe recipe;
    mn__device device;
    mn__learner learner;
    int64_t step, vocabulary;
} ours;

static void open_ours(ours *run, char model, int precision)
{
    mn_error error;
    char path[512];
    snprintf(path, sizeof path, "%s/bench/train_%c.yaml", MNEME_SOURCE_DIR, model);
    *run = (ours){.vocabulary = model == 'b' ? 50304 : 256};
    if (mn__recipe_read(&run->recipe, path, NULL, 0, &error) ||
        mn__recipe_set_precision(&run->recipe, precision ? MN__PRECISION_BF16 : MN__PRECISION_F32,
                                 &error) ||
        mn__device_open(&run->device, &error) ||
        mn__learner_open(&run->learner, &run->recipe, &run->device, run->vocabulary, &error))
        stop(&error);
}

static void close_ours(ours *run)
{
    mn__learner_close(&run->learner);
    mn__device_close(&run->device);
    mn__recipe_free(&run->recipe);
}

static void fill_batch(ours *run)
{
    mn__batch *batch = &run->learner.batch[0];
    mn__random_key key = {.seed = 3, .step = (uint64_t)run->step};
    for (int64_t i = 0; i < batch->rows * batch->length; i++) {
        uint64_t at = (uint64_t)(2 * i), V = (uint64_t)run->vocabulary;
        batch->ids[i] = (int32_t)mn__random_below(key, at, V);
        batch->targets[i] = (int32_t)mn__random_below(key, at + 1, V);
        batch->weights[i] = 1.0f;
    }
    for (int64_t b = 0; b < batch->rows; b++) {
        batch->valid[b] = batch->length;
        batch->start[b] = false;
    }
}

/* Tokens per second of one whole step. */
static double step_ours(ours *run)
{
    mn_error error;
    mn__step done;
    double norm;
    fill_batch(run);
    double begin = mn__clock();
    run->step++;
    if (mn__learner_step(&run->learner, run->step, &done, &error) ||
        mn__learner_update(&run->learner, run->step, &norm, &error))
        stop(&error);
    return (double)done.tokens / (mn__clock() - begin);
}

/* 6 per matrix weight and token; of attention the causal half: 2 T^2 D H forward,
 * 5 backward. With a memory: what a step of the plan counts. */
static double flops_per_token(const ours *run, char name)
{
    if (name == 'c') {
        mn__plan plan;
        mn_error error;
        if (mn__plan_make(&plan, &run->recipe, run->vocabulary, NULL, &error))
            stop(&error);
        return (plan.products + plan.attention) / (double)plan.tokens;
    }
    const mn__decoder *decoder = run->learner.decoder;
    const mn__decoder_options *model = mn__decoder_options_of(decoder);
    double width = (double)(model->heads * model->head_width);
    double attention = 7.0 * (double)run->recipe.data.segment * width * (double)model->depth;
    return 3.0 * mn__decoder_flops_per_token(decoder) + attention;
}

/* ---- Pairs ------------------------------------------------------------------------------- */

static peer *start_peer(char model, int precision, result *out)
{
    char line[160];
    peer *worker = peer_start(MNEME_SOURCE_DIR "/bench/train_torch.py");
    snprintf(line, sizeof line,
             "{\"model\": \"%c\", \"precision\": \"%s\", \"threads\": %d, \"limit\": 240}", model,
             precision_names[precision], mn__threads());
    json_t *ready = worker ? peer_ask(worker, line) : NULL;
    const char *variant = json_string_value(json_object_get(ready, "variant"));
    if (variant)
        snprintf(out->variant, sizeof out->variant, "%s", variant);
    bool started = variant != NULL;
    json_decref(ready);
    if (started)
        return worker;
    fprintf(stderr, "no peer for model %c in %s\n", model, precision_names[precision]);
    peer_stop(worker);
    return NULL;
}

static double step_peer(peer *worker)
{
    json_t *answer = peer_ask(worker, "step 1");
    double tokens = json_number_value(json_object_get(answer, "tokens_per_s"));
    json_decref(answer);
    return tokens;
}

static result measure(char model, int precision, const bench_options *options)
{
    result out = {.measured = true};
    double mine[ROUNDS_MAX], theirs[ROUNDS_MAX], ratios[ROUNDS_MAX], shares[ROUNDS_MAX];
    peer *worker = options->alone ? NULL : start_peer(model, precision, &out);
    out.compared = worker;
    ours run;
    open_ours(&run, model, precision);
    mn__dtype dtype = precision ? MN__BF16 : MN__F32;
    double flops = flops_per_token(&run, model);
    step_ours(&run); /* first steps touch memory and make plans of products */
    step_ours(&run);
    for (int n = 0; n < options->rounds; n++) {
        double before = mn__peak_measure(&run.device, dtype);
        mine[n] = step_ours(&run);
        double after = mn__peak_measure(&run.device, dtype);
        shares[n] = mine[n] * flops / (0.5 * (before + after));
        theirs[n] = worker ? step_peer(worker) : NAN;
        ratios[n] = mine[n] / theirs[n];
    }
    out.ours = median(mine, options->rounds);
    out.share = median(shares, options->rounds);
    if (worker) {
        out.theirs = median(theirs, options->rounds);
        out.ratio = median(ratios, options->rounds);
    }
    close_ours(&run);
    peer_stop(worker);
    return out;
}

/* ---- Printing ------------------------------------------------------------------------------ */

static void print_row(char model, int precision, const result *row)
{
    printf("%-6c %-5s %10.0f %9.2f", model, precision_names[precision], row->ours, row->share);
    if (row->compared)
        printf(" %10.0f %7.2f  %s", row->theirs, row->ratio, row->variant);
    printf("\n");
    fflush(stdout);
}

/* Each side's faster precision, so far as it was measured. */
static double best(const result rows[2])
{
    double mine = fmax(rows[0].ours, rows[1].ours);
    double theirs = fmax(rows[0].theirs, rows[1].theirs);
    return mine / theirs;
}

static void add(json_t *figures, const char *name, bool known, double value)
{
    if (known && isfinite(value))
        json_object_set_new(figures, name, json_real(value));
}

static void print_figures(result rows[3][2])
{
    json_t *figures = json_object();
    bool both[3];
    for (int m = 0; m < 3; m++)
        both[m] = rows[m][0].compared && rows[m][1].compared;
    add(figures, "f32_a", rows[0][0].compared, rows[0][0].ratio);
    add(figures, "best_a", both[0], best(rows[0]));
    add(figures, "f32_b", rows[1][0].compared, rows[1][0].ratio);
    add(figures, "best_b", both[1], best(rows[1]));
    add(figures, "xl_c", both[2], best(rows[2]));
    add(figures, "share_of_peak_b", rows[1][0].measured, rows[1][0].share);
    char *text = json_dumps(figures, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(4));
    puts(text ? text : "{}");
    free(text);
    json_decref(figures);
}

static int usage(void)
{
    fprintf(stderr, "bench_train [a b c] [--precision f32|bf16] [--rounds N] [--alone]\n");
    return 2;
}

int main(int argc, char **argv)
{
    static char models[4];
    bench_options options = {.models = models, .precision = {true, true}, .rounds = 5};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strlen(argv[i]) == 1 && strchr("abc", argv[i][0])) {
            strncat(models, argv[i], sizeof models - strlen(models) - 1);
        } else if (!strcmp(argv[i], "--alone")) {
            options.alone = true;
        } else if (!strcmp(argv[i], "--rounds") && atoi(value) > 0 && atoi(value) <= ROUNDS_MAX) {
            options.rounds = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--precision") &&
                   (!strcmp(value, "f32") || !strcmp(value, "bf16"))) {
            options.precision[strcmp(value, "f32") == 0] = false;
            i++;
        } else {
            return usage();
        }
    }
    if (!models[0])
        strcpy(models, "abc");
    mn__threads_set(0);
    result rows[3][2] = {{{0}}};
    printf("%-6s %-5s %10s %9s %10s %7s\n", "model", "type", "tokens/s", "of peak", "PyTorch's",
           "ratio");
    for (const char *model = models; *model; model++)
        for (int precision = 0; precision < 2; precision++) {
            if (!options.precision[precision])
                continue;
            result *row = &rows[*model - 'a'][precision];
            *row = measure(*model, precision, &options);
            print_row(*model, precision, row);
        }
    print_figures(rows);
    return 0;
}
