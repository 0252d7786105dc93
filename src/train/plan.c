/* The plan: a step on a counting device, and the measured peak. */
#include "train/plan.h"

#include <math.h>
#include <string.h>

#include "base/available.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "train/learner.h"

/* ---- Counting ------------------------------------------------------------------- */

enum { STEPS_MOST = 4096 };

static void fill_batches(mn__learner *learner)
{
    for (int64_t u = 0; u < learner->recipe->train.unroll; u++) {
        mn__batch *batch = &learner->batch[u];
        for (int64_t b = 0; b < batch->rows; b++)
            batch->valid[b] = batch->length;
        for (int64_t i = 0; i < batch->rows * batch->length; i++)
            batch->weights[i] = 1.0f;
    }
}

/* Steps until one costs what the last did: then the memories are full. */
static mn_status count_steps(mn__plan *plan, mn__learner *learner, mn_error *error)
{
    mn__counted *counted = &learner->device->counted;
    fill_batches(learner);
    for (int64_t step = 1; step <= STEPS_MOST; step++) {
        double products = plan->products, attention = plan->attention, norm;
        mn__counted before = *counted;
        mn__step done;
        mn_status status = mn__learner_step(learner, step, &done, error);
        if (status == MN_OK)
            status = mn__learner_update(learner, step, &norm, error);
        if (status != MN_OK)
            return status;
        plan->tokens = done.tokens;
        plan->products = counted->products - before.products;
        plan->attention = counted->attention - before.attention;
        if (plan->products == products && plan->attention == attention)
            return MN_OK;
    }
    mn__log_warning("the plan stops counting at step %d, and a step still costs more than the one "
                    "before it: the run will need more time and memory than is said here",
                    (int)STEPS_MOST);
    return MN_OK;
}

static mn_status state_bytes(const mn__learner *learner, int64_t capacity, int64_t *bytes,
                             mn_error *error)
{
    mn__states states;
    mn_status status = mn__decoder_states_open(learner->decoder, &states, 1, capacity,
                                               learner->tape.compute, error);
    if (status != MN_OK)
        return status;
    *bytes = mn__states_bytes(&states);
    mn__states_close(&states);
    return MN_OK;
}

static mn_status count_states(mn__plan *plan, const mn__learner *learner, mn_error *error)
{
    int64_t thousand, two;
    mn_status status = state_bytes(learner, 0, &plan->state_row, error);
    if (status == MN_OK)
        status = state_bytes(learner, 1000, &thousand, error);
    if (status == MN_OK)
        status = state_bytes(learner, 2000, &two, error);
    if (status != MN_OK)
        return status;
    int64_t rows = learner->parts * learner->rows * (learner->parts > 1 ? 2 : 1);
    plan->state_per_thousand = two - thousand;
    plan->states = (rows + learner->recipe->train.validation_batch) * plan->state_row;
    return MN_OK;
}

static void count_memory(mn__plan *plan, const mn__learner *learner)
{
    const mn__params *params = &learner->params;
    const mn__tape *tape = &learner->tape;
    plan->parameters = mn__params_elements(params);
    plan->attentions = mn__decoder_attentions(learner->decoder);
    plan->gradients = plan->parameters * (int64_t)sizeof(float);
    for (int64_t i = 0; i < params->count; i++)
        plan->weights += mn__tensor_bytes(&params->items[i]->value);
    plan->copies = params->store.arena.used - plan->weights - plan->gradients;
    plan->weights += params->nodes.used;
    plan->moments = learner->optimizer.store.arena.used;
    plan->activations = tape->values.arena.peak + tape->gradients.arena.peak +
                        tape->kept.arena.peak + tape->nodes.peak + learner->arena.used;
    plan->total = plan->weights + plan->gradients + plan->copies + plan->moments + plan->states +
                  plan->activations;
}

mn_status mn__plan_make(mn__plan *plan, const mn__recipe *recipe, int64_t vocabulary,
                        mn__device *device, mn_error *error)
{
    *plan = (mn__plan){.available = mn__memory_available()};
    mn__device counting;
    mn__learner learner;
    mn_status status = mn__device_open_counting(&counting, error);
    if (status != MN_OK)
        return status;
    status = mn__learner_open(&learner, recipe, &counting, vocabulary, error);
    if (status == MN_OK)
        status = count_steps(plan, &learner, error);
    if (status == MN_OK)
        status = count_states(plan, &learner, error);
    if (status == MN_OK)
        count_memory(plan, &learner);
    mn__dtype compute = learner.tape.compute;
    mn__learner_close(&learner);
    mn__device_close(&counting);
    if (status != MN_OK || !device)
        return status;
    plan->peak = mn__peak_measure(device, compute);
    if (plan->peak > 0)
        plan->seconds = (plan->products + plan->attention) / plan->peak;
    return MN_OK;
}

static mn_status load_vocabulary(const char *path, int64_t *vocabulary, mn_error *error)
{
    mn__tokenizer *tokenizer;
    mn_status status = mn__tokenizer_load(&tokenizer, path, error);
    if (status != MN_OK)
        return status;
    *vocabulary = tokenizer->vocab;
    mn__tokenizer_free(tokenizer);
    return MN_OK;
}

mn_status mn__plan_vocabulary(const mn__recipe *recipe, int64_t *vocabulary, mn_error *error)
{
    const char *prepared = recipe->data.prepared, *tokenizer = recipe->prepare.tokenizer;
    if (*prepared && mn__file_is_folder(prepared))
        return load_vocabulary(prepared, vocabulary, error);
    *vocabulary = recipe->prepare.train_vocab;
    if (*vocabulary > 0)
        return MN_OK;
    for (int i = 0; mn__tokenizer_types[i]; i++)
        if (!strcmp(mn__tokenizer_types[i]->name, tokenizer) && mn__tokenizer_types[i]->learner_new)
            return mn__fail(
                error, MN_ERROR_OPTION, "run `mneme prepare` and name its folder in data.prepared",
                "%s: how many %s there are is only known from the data", recipe->path, tokenizer);
    return load_vocabulary(tokenizer, vocabulary, error);
}

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

mn_status mn__plan_check(const mn__plan *plan, mn_error *error)
{
    if (plan->available < 0 || plan->total <= plan->available)
        return MN_OK;
    return mn__fail(error, MN_ERROR_MEMORY,
                    "make data.batch or data.segment smaller, set train.accumulate, or "
                    "model.recompute: true",
                    "the run needs %.0f MiB and there are %.0f: weights %.0f, their gradients "
                    "%.0f, bf16 copies %.0f, moments %.0f, state %.0f, activations %.0f",
                    mebibytes(plan->total), mebibytes(plan->available), mebibytes(plan->weights),
                    mebibytes(plan->gradients), mebibytes(plan->copies), mebibytes(plan->moments),
                    mebibytes(plan->states), mebibytes(plan->activations));
}

/* ---- The peak -------------------------------------------------------------------- */

/* Seconds of the fastest of `times` packed n^3 products; 0 when memory is short. */
static double time_product(mn__device *device, mn__dtype dtype, int64_t n, int times)
{
    mn__queue *queue = &device->queue;
    const mn__kernels *kernels = queue->kernels;
    int64_t each = mn__dtype_bytes(dtype), elements = n * n;
    void *a = mn__malloc(elements * each), *b = mn__malloc(elements * each);
    float *c = mn__malloc(elements * (int64_t)sizeof *c);
    mn__packed *packed = kernels->pack_new(queue, n, n, mn__form_of(dtype));
    double best = 0;
    if (a && b && c) {
        kernels->fill(queue, (mn__matrix){a, dtype, n, n, n}, 0.5f);
        kernels->fill(queue, (mn__matrix){b, dtype, n, n, n}, 0.25f);
        mn__operand operand = {.data = b, .dtype = dtype, .row = n, .column = 1};
        if (packed)
            kernels->pack(queue, packed, operand);
        mn__matmul call = {.batch = {1, 1},
                           .m = n,
                           .n = n,
                           .k = n,
                           .a = {.data = a, .dtype = dtype, .row = n, .column = 1},
                           .b = operand,
                           .packed = packed,
                           .c = c,
                           .c_dtype = MN__F32,
                           .c_row = n};
        for (int i = 0; i <= times; i++) { /* the first warms up */
            double begin = mn__clock();
            kernels->matmul(queue, &call);
            double seconds = mn__clock() - begin;
            if (i == 1 || (i > 1 && seconds < best))
                best = seconds;
        }
    }
    if (packed)
        kernels->pack_free(packed);
    mn__free(a);
    mn__free(b);
    mn__free(c);
    return best;
}

double mn__peak_measure(mn__device *device, mn__dtype dtype)
{
    static const double SLOW = 0.02; /* seconds: a table without fast products */
    int64_t n = 256;
    double seconds = time_product(device, dtype, n, 1);
    if (seconds > 0 && seconds < SLOW) {
        n = 2048;
        seconds = time_product(device, dtype, n, 1);
    }
    return seconds > 0 ? 2 * pow((double)n, 3) / seconds : 0;
}

/* bf16 wins clearly with AMX tiles, and on AMD's cores from AVX-512 BF16 on
 * (Zen 4: 450 against 200 GFLOP/s); without either it is emulated and slower. */
mn__precision mn__precision_best(const mn__device *device)
{
    mn__level level = device->queue.kernels->level;
    bool amd = false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    amd = __builtin_cpu_is("amd");
#endif
    bool fast = level >= MN__LEVEL_AMX || (level == MN__LEVEL_V4BF16 && amd);
    return fast ? MN__PRECISION_BF16 : MN__PRECISION_F32;
}
