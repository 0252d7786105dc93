/* The tape: vars, records, and the walk backward. Where gradients lie is in
 * gradient.c. */
#include "tensor/tape.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor/gradient.h"

void mn__tape_init(mn__tape *tape, mn__params *params, mn__dtype compute)
{
    *tape = (mn__tape){.device = params->device, .params = params, .compute = compute};
    mn__arena_init(&tape->nodes, 1 << 18);
    mn__arena_init(&tape->cells, 1 << 14);
    mn__arena_init(&tape->kept_nodes, 1 << 12);
    mn__store_init(&tape->values, params->device, 1 << 22);
    mn__store_init(&tape->kept, params->device, 1 << 20);
    mn__store_init(&tape->gradients, params->device, 1 << 22);
}

void mn__tape_free(mn__tape *tape)
{
    mn__arena_free(&tape->nodes);
    mn__arena_free(&tape->cells);
    mn__store_free(&tape->values);
    mn__store_free(&tape->kept);
    mn__arena_free(&tape->kept_nodes);
    mn__store_free(&tape->gradients);
    *tape = (mn__tape){0};
}

void mn__tape_reset(mn__tape *tape)
{
    mn__arena_reset(&tape->nodes);
    mn__arena_reset(&tape->cells);
    mn__store_reset(&tape->values);
    mn__store_reset(&tape->kept);
    mn__arena_reset(&tape->kept_nodes);
    mn__store_reset(&tape->gradients);
    tape->pooled = tape->spare = NULL;
    tape->last = NULL;
    tape->status = MN_OK;
    mn__error_clear(&tape->error);
}

mn_status mn__tape_status(const mn__tape *tape, mn_error *error)
{
    if (tape->status != MN_OK && error)
        *error = tape->error;
    return tape->status;
}

mn__var *mn__tape_fail(mn__tape *tape, mn_status code, const char *hint, const char *format, ...)
{
    if (tape->status != MN_OK)
        return NULL; /* the first failure is the cause */
    char message[sizeof tape->error.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    tape->status = mn__fail(&tape->error, code, hint, "%s", message);
    return NULL;
}

static void out_of_memory(mn__tape *tape, int64_t bytes)
{
    mn__tape_fail(tape, MN_ERROR_MEMORY,
                  "use a smaller batch, a shorter segment or `recompute: true`",
                  "no memory for %lld more bytes of this step", (long long)bytes);
}

/* ---- Marks -------------------------------------------------------------------- */

mn__tape_mark mn__tape_mark_now(const mn__tape *tape)
{
    return (mn__tape_mark){mn__arena_mark_now(&tape->nodes), mn__store_mark(&tape->values)};
}

void mn__tape_release(mn__tape *tape, mn__tape_mark mark)
{
    if (tape->recording)
        return;
    mn__arena_release(&tape->nodes, mark.nodes);
    mn__store_release(&tape->values, mark.values);
}

mn__var *mn__tape_release_except(mn__tape *tape, mn__tape_mark mark, mn__var *kept)
{
    if (tape->recording || !kept)
        return kept;
    assert(mn__tensor_contiguous(&kept->value));
    mn__tensor value = kept->value;
    int64_t bytes = mn__tensor_bytes(&value);
    value.data = mn__store_release_except(&tape->values, mark.values, value.data, bytes);
    mn__arena_release(&tape->nodes, mark.nodes);
    if (!value.data) {
        out_of_memory(tape, bytes);
        return NULL;
    }
    return mn__tape_constant(tape, value);
}

mn__var *mn__tape_keep(mn__tape *tape, mn__var *var)
{
    if (tape->recording || !var)
        return var;
    mn__tensor value = mn__tensor_of(NULL, var->value.dtype, var->value.rank, var->value.size);
    value.data = mn__store_alloc(&tape->kept, mn__tensor_bytes(&value));
    mn__var *kept = mn__arena_calloc(&tape->kept_nodes, 1, sizeof *kept);
    if (!value.data || !kept) {
        out_of_memory(tape, mn__tensor_bytes(&value));
        return NULL;
    }
    kept->value = value;
    mn__tensor_convert(&tape->device->queue, &value, &var->value);
    return kept;
}

/* ---- Vars --------------------------------------------------------------------- */

void *mn__tape_alloc(mn__tape *tape, int64_t bytes)
{
    void *data = mn__store_alloc(&tape->values, bytes);
    if (!data)
        out_of_memory(tape, bytes);
    return data;
}

static mn__var *new_var(mn__tape *tape, mn__tensor value)
{
    mn__var *var = mn__arena_calloc(&tape->nodes, 1, sizeof *var);
    if (var)
        var->value = value;
    else
        out_of_memory(tape, sizeof *var);
    return var;
}

mn__var *mn__tape_new(mn__tape *tape, mn__dtype dtype, int rank, const int64_t *size)
{
    mn__tensor value = mn__tensor_of(NULL, dtype, rank, size);
    value.data = mn__tape_alloc(tape, mn__tensor_bytes(&value));
    return value.data ? new_var(tape, value) : NULL;
}

mn__var *mn__tape_param(mn__tape *tape, mn__param *param)
{
    if (param && !param->value.data)
        return mn__tape_fail(tape, MN_ERROR_UNSUPPORTED,
                             "open it without --weights: this model needs the values themselves",
                             "%s is kept packed, for products alone", param->name);
    return mn__tape_weight(tape, param);
}

mn__var *mn__tape_weight(mn__tape *tape, mn__param *param)
{
    if (!param)
        return NULL;
    mn__var *var = new_var(tape, param->value);
    if (var) {
        var->param = param;
        var->wants_gradient = tape->recording && param->gradient;
    }
    return var;
}

mn__var *mn__tape_constant(mn__tape *tape, mn__tensor value)
{
    return new_var(tape, value);
}

mn__var *mn__tape_input(mn__tape *tape, mn__tensor value)
{
    mn__var *var = new_var(tape, value);
    if (var)
        var->wants_gradient = true;
    return var;
}

mn__var *mn__tape_view(mn__tape *tape, mn__var *whole, mn__tensor value, mn__tensor place)
{
    mn__var *var = new_var(tape, value);
    if (var) {
        var->whole = whole;
        var->place = place;
        var->wants_gradient = whole->wants_gradient;
    }
    return var;
}

/* ---- Records -------------------------------------------------------------------- */

bool mn__tape_wants(const mn__tape *tape, mn__var *const *inputs, int count)
{
    if (!tape->recording)
        return false;
    for (int i = 0; i < count; i++)
        if (inputs[i] && inputs[i]->wants_gradient)
            return true;
    return false;
}

void *mn__tape_record(mn__tape *tape, int64_t bytes, mn__var *out,
                      void (*backward)(mn__tape *, mn__record *))
{
    mn__record *record = mn__arena_calloc(&tape->nodes, 1, bytes);
    if (!record) {
        out_of_memory(tape, bytes);
        return NULL;
    }
    record->backward = backward;
    record->out = out;
    record->previous = tape->last;
    tape->last = record;
    out->wants_gradient = true;
    return record;
}

/* ---- Backward ---------------------------------------------------------------------- */

void *mn__tape_scratch(mn__tape *tape, int64_t bytes)
{
    return mn__tape_alloc(tape, bytes);
}

/* Walks from the last record; scratch dies with each record, and so does the
 * gradient of what it made. */
static void walk(mn__tape *tape)
{
    while (tape->last && tape->status == MN_OK) {
        mn__record *record = tape->last;
        tape->last = record->previous;
        if (!record->out->gradient)
            continue;
        mn__arena_mark scratch = mn__store_mark(&tape->values);
        mn__gradient_complete(tape, record->out);
        record->backward(tape, record);
        mn__store_release(&tape->values, scratch);
        mn__gradient_give_back(tape, record->out);
    }
}

mn_status mn__tape_backward(mn__tape *tape, mn__var *loss, float scale, mn_error *error)
{
    if (tape->status != MN_OK || !loss)
        return mn__tape_status(tape, error);
    assert(loss->value.dtype == MN__F32 && mn__tensor_elements(&loss->value) == 1);
    mn__tensor seed;
    bool accumulate;
    if (mn__tape_gradient(tape, loss, &seed, &accumulate)) {
        mn__queue *queue = &tape->device->queue;
        queue->kernels->fill(queue, mn__tensor_matrix(&seed, 0), scale);
    }
    walk(tape);
    return mn__tape_status(tape, error);
}

/* ---- Recompute ------------------------------------------------------------------------ */

struct recompute {
    mn__record record;
    mn__block block;
    void *user;
    mn__var *x;
    mn__random_key random;
};

/* Runs the block on a tape of its own, above everything else in the stores. */
static void recompute_backward(mn__tape *tape, mn__record *record)
{
    struct recompute *self = (struct recompute *)record;
    mn__record *outer = tape->last;
    mn__random_key random = tape->random;
    bool recording = tape->recording;
    mn__arena_mark nodes = mn__arena_mark_now(&tape->nodes);
    tape->last = NULL;
    tape->recording = true;
    tape->random = self->random;
    mn__var *x = self->x->wants_gradient ? mn__tape_input(tape, self->x->value)
                                         : mn__tape_constant(tape, self->x->value);
    mn__var *out = x ? self->block(tape, self->user, x) : NULL;
    if (out) {
        mn__tensor arrived = mn__tape_gradient_of(tape, self->record.out);
        if (!mn__tape_hand_over(self->record.out, out))
            mn__tape_contribute(tape, out, 1.0f, &arrived);
        walk(tape);
    }
    if (tape->status == MN_OK && x->gradient) {
        mn__gradient_complete(tape, x);
        mn__tensor inner = mn__tape_gradient_of(tape, x);
        if (!mn__tape_hand_over(x, self->x))
            mn__tape_contribute(tape, self->x, 1.0f, &inner);
        mn__gradient_give_back(tape, x);
    }
    tape->random = random;
    tape->recording = recording;
    tape->last = outer;
    mn__arena_release(&tape->nodes, nodes);
}

mn__var *mn__tape_recompute(mn__tape *tape, mn__block block, void *user, mn__var *x)
{
    if (!x || !tape->recording)
        return x ? block(tape, user, x) : NULL;
    mn__random_key random = tape->random;
    mn__tape_mark mark = mn__tape_mark_now(tape);
    tape->recording = false;
    tape->rehearsing = true;
    mn__var *out = block(tape, user, x);
    out = mn__tape_release_except(tape, mark, out);
    tape->rehearsing = false;
    tape->recording = true;
    if (!out)
        return NULL;
    struct recompute *self = mn__tape_record(tape, sizeof *self, out, recompute_backward);
    if (!self)
        return NULL;
    self->block = block;
    self->user = user;
    self->x = x;
    self->random = random;
    return out;
}
