/* What reading one text takes. */
#include "reader/plan.h"

#include <assert.h>
#include <string.h>

#include "base/available.h"
#include "base/memory.h"

/* One chunk, of which nothing is computed. */
static mn_status read_chunk(mn__decoder *decoder, mn__tape *tape, mn__states *states,
                            const int32_t *ids, int64_t count, bool start, bool last,
                            mn_error *error)
{
    mn__segment segment = {.B = 1, .T = count, .start = &start};
    static const int32_t first = 0;
    mn__var *hidden = mn__decoder_forward(decoder, tape, &segment, ids, states);
    if (hidden && last)
        mn__decoder_logits(decoder, tape, hidden, &first, 1);
    mn_status status = mn__tape_status(tape, error);
    if (status == MN_OK)
        mn__decoder_commit(decoder, tape, &segment, states, false);
    mn__tape_reset(tape);
    return status;
}

static mn_status read_text(mn__read_plan *plan, mn__decoder *decoder, mn__tape *tape,
                           mn__states *states, mn_error *error)
{
    int32_t *ids = mn__calloc(plan->chunk, sizeof *ids);
    if (!ids)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a plan");
    mn_status status = MN_OK;
    for (int64_t t = 0, count; t < plan->tokens && status == MN_OK; t += count) {
        int64_t point = mn__decoder_next_point(decoder, t);
        count = plan->tokens - t < plan->chunk ? plan->tokens - t : plan->chunk;
        count = point - t < count ? point - t : count;
        status =
            read_chunk(decoder, tape, states, ids, count, t == 0, t + count == plan->tokens, error);
    }
    mn__free(ids);
    return status;
}

static mn_status state_bytes(const mn__decoder *decoder, int64_t tokens, mn__dtype compute,
                             int64_t *bytes, mn_error *error)
{
    mn__states states;
    mn_status status = mn__decoder_states_open(decoder, &states, 1, tokens, compute, error);
    if (status != MN_OK)
        return status;
    *bytes = mn__states_bytes(&states);
    mn__states_close(&states);
    return MN_OK;
}

/* The tensors of a session's file; its header is some bytes more. */
static mn_status count_session(mn__read_plan *plan, const mn__decoder *decoder,
                               const mn__states *states, mn_error *error)
{
    mn__arena arena;
    mn__safetensor *tensors;
    int64_t count;
    mn__arena_init(&arena, 1 << 12);
    mn_status status = mn__states_list(states, &arena, &tensors, &count, error);
    plan->session = mn__decoder_options_of(decoder)->width * (int64_t)sizeof(float);
    for (int64_t i = 0; i < count && status == MN_OK; i++)
        plan->session += tensors[i].bytes;
    mn__arena_free(&arena);
    return status;
}

static void count_memory(mn__read_plan *plan, const mn__params *params, const mn__tape *tape)
{
    plan->parameters = mn__params_elements(params);
    for (int64_t i = 0; i < params->count; i++)
        plan->weights += mn__param_bytes(params, params->items[i]);
    plan->copies = params->store.arena.used + params->packed_bytes - plan->weights;
    plan->weights += params->nodes.used;
    plan->activations = tape->values.arena.peak + tape->kept.arena.peak + tape->nodes.peak;
    plan->total = plan->weights + plan->copies + plan->state + plan->activations;
}

static mn_status count_reading(mn__read_plan *plan, mn__decoder *decoder, mn__tape *tape,
                               mn_error *error)
{
    mn__states states;
    mn_status status =
        mn__decoder_states_open(decoder, &states, 1, plan->tokens, tape->compute, error);
    if (status != MN_OK)
        return status;
    plan->state = mn__states_bytes(&states);
    status = read_text(plan, decoder, tape, &states, error);
    if (status == MN_OK)
        status = count_session(plan, decoder, &states, error);
    mn__states_close(&states);
    return status;
}

mn_status mn__read_plan_make(mn__read_plan *plan, mn__decoder *decoder, mn__params *params,
                             int64_t tokens, int64_t chunk, mn__dtype compute, mn_error *error)
{
    assert(params->device->counting);
    *plan = (mn__read_plan){.tokens = tokens, .chunk = chunk, .available = mn__memory_available()};
    mn__counted before = params->device->counted;
    mn__tape tape;
    mn__tape_init(&tape, params, compute);
    int64_t thousand = 0, two = 0;
    mn_status status = state_bytes(decoder, 1000, compute, &thousand, error);
    if (status == MN_OK)
        status = state_bytes(decoder, 2000, compute, &two, error);
    if (status == MN_OK)
        status = count_reading(plan, decoder, &tape, error);
    plan->state_per_thousand = two - thousand;
    count_memory(plan, params, &tape);
    plan->products = params->device->counted.products - before.products;
    plan->attention = params->device->counted.attention - before.attention;
    mn__tape_free(&tape);
    return status;
}

static double mebibytes(int64_t bytes)
{
    return (double)bytes / (1 << 20);
}

mn_status mn__read_plan_check(const mn__read_plan *plan, mn_error *error)
{
    if (plan->available < 0 || plan->total <= plan->available)
        return MN_OK;
    return mn__fail(error, MN_ERROR_MEMORY, "plan for fewer tokens, or read with a window",
                    "reading %lld tokens needs %.0f MiB and there are %.0f: weights %.0f, their "
                    "bf16 copies %.0f, state %.0f, activations %.0f",
                    (long long)plan->tokens, mebibytes(plan->total), mebibytes(plan->available),
                    mebibytes(plan->weights), mebibytes(plan->copies), mebibytes(plan->state),
                    mebibytes(plan->activations));
}
