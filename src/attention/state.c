/* State: slots and counters of all layers' streams. */
#include "attention/state.h"

#include <assert.h>
#include <string.h>

#include "kernel/blocks.h"
#include "op/op.h"

mn_status mn__states_open(mn__states *states, mn__device *device, mn__dtype compute, int64_t rows,
                          int64_t layers, mn_error *error)
{
    *states = (mn__states){.device = device, .compute = compute, .rows = rows, .layers = layers};
    mn__arena_init(&states->nodes, 1 << 12);
    mn__store_init(&states->store, device, 1 << 16);
    states->layer = mn__arena_calloc(&states->nodes, layers, sizeof *states->layer);
    states->position = mn__arena_calloc(&states->nodes, rows, sizeof *states->position);
    if (!states->layer || !states->position)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the state of %lld rows",
                        (long long)rows);
    return MN_OK;
}

void mn__states_close(mn__states *states)
{
    mn__store_free(&states->store);
    mn__arena_free(&states->nodes);
    *states = (mn__states){0};
}

const char *mn__kept_name(mn__kept kept)
{
    static const char *const names[] = {"auto", "f32", "bf16", "int8"};
    return names[kept];
}

int64_t mn__states_bytes(const mn__states *states)
{
    int64_t bytes = 0;
    for (int64_t layer = 0; layer < states->layers; layer++)
        for (int i = 0; i < states->layer[layer].slots; i++)
            bytes += mn__tensor_bytes(&states->layer[layer].slot[i].value);
    return bytes;
}

/* ---- Rows ------------------------------------------------------------------------ */

static mn__matrix slot_row(const mn__slot *slot, int64_t row)
{
    mn__tensor one = mn__tensor_slice(&slot->value, 0, row, 1);
    int64_t n = mn__tensor_elements(&one);
    return (mn__matrix){one.data, one.dtype, 1, n, n};
}

static void row_start(mn__states *states, mn__state *state, int64_t row)
{
    mn__queue *queue = &states->device->queue;
    for (int i = 0; i < state->slots; i++) {
        mn__slot *slot = &state->slot[i];
        mn__matrix to = slot_row(slot, row);
        if (slot->initial)
            queue->kernels->convert(
                queue, to,
                (mn__matrix){slot->initial->value.data, MN__F32, 1, to.columns, to.columns});
        else
            queue->kernels->fill(queue, to, 0.0f);
    }
    for (int i = 0; i < state->counters; i++)
        state->counter[i][row] = 0;
}

mn__slot *mn__state_add(mn__states *states, mn__state *state, const char *name, mn__dtype dtype,
                        int rank, const int64_t *size, mn__param *initial)
{
    assert(state->slots < MN__SLOTS_MAX && rank < MN__RANK_MAX);
    int64_t full[MN__RANK_MAX] = {states->rows};
    memcpy(full + 1, size, (size_t)rank * sizeof *size);
    mn__slot *slot = &state->slot[state->slots];
    *slot = (mn__slot){.name = name, .initial = initial};
    slot->value = mn__tensor_of(NULL, dtype, rank + 1, full);
    slot->value.data = mn__store_alloc(&states->store, mn__tensor_bytes(&slot->value));
    if (!slot->value.data)
        return NULL;
    state->slots++;
    for (int64_t row = 0; row < states->rows; row++)
        row_start(states, state, row);
    return slot;
}

mn__slot *mn__state_add_heads(mn__states *states, mn__state *state, const char *name, int64_t M,
                              int64_t G, int64_t D)
{
    mn__dtype dtype = mn__kept_dtype(states->kept, states->compute);
    int64_t size[] = {M, G, dtype == MN__U8 ? mn__block_int8_bytes(D) : D};
    return mn__state_add(states, state, name, dtype, 3, size, NULL);
}

bool mn__state_add_counter(mn__states *states, mn__state *state)
{
    assert(state->counters < MN__COUNTERS_MAX);
    int64_t *counter = mn__arena_calloc(&states->nodes, states->rows, sizeof *counter);
    if (!counter)
        return false;
    state->most[state->counters] = INT64_MAX;
    state->counter[state->counters++] = counter;
    return true;
}

void mn__state_bound_counter(mn__state *state, int counter, int64_t most)
{
    assert(counter < state->counters);
    state->most[counter] = most;
}

void mn__states_start(mn__states *states, const bool *start)
{
    for (int64_t row = 0; row < states->rows; row++) {
        if (start && !start[row])
            continue;
        states->position[row] = 0;
        for (int64_t layer = 0; layer < states->layers; layer++)
            row_start(states, &states->layer[layer], row);
    }
}

/* [rows, elements of a row]: what the slot holds, by `start` or from before. */
static mn__var *start_rows(mn__tape *tape, const mn__slot *slot, const bool *start)
{
    int64_t rows = slot->value.size[0], n = mn__tensor_elements(&slot->value) / rows;
    int32_t *index = mn__arena_calloc(&tape->nodes, rows, sizeof *index);
    if (!index)
        return mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for a state's rows");
    mn__var *old = slot->live;
    if (!old && (old = mn__tape_new(tape, slot->value.dtype, slot->value.rank, slot->value.size)))
        mn__tensor_convert(&tape->device->queue, &old->value, &slot->value);
    old = mn__op_reshape(tape, old, 2, (int64_t[]){rows, n});
    for (int64_t row = 0; row < rows; row++)
        index[row] = start[row] ? -1 : (int32_t)row;
    if (slot->initial) {
        mn__var *initial = mn__tape_param(tape, slot->initial);
        initial = mn__op_cast(tape, initial, slot->value.dtype);
        initial = mn__op_reshape(tape, initial, 2, (int64_t[]){1, n});
        old = mn__op_concat(tape, 0, (mn__var *[]){old, initial}, 2);
        for (int64_t row = 0; row < rows; row++)
            index[row] = start[row] ? (int32_t)rows : (int32_t)row;
    }
    return mn__op_gather(tape, old, index, rows);
}

void mn__states_start_live(mn__states *states, mn__tape *tape, const bool *start)
{
    assert(tape->recording);
    bool any = false;
    for (int64_t row = 0; row < states->rows; row++)
        any = any || start[row];
    for (int64_t layer = 0; any && layer < states->layers; layer++)
        for (int i = 0; i < states->layer[layer].slots; i++) {
            mn__slot *slot = &states->layer[layer].slot[i];
            if (slot->live || slot->initial)
                slot->live = mn__op_reshape(tape, start_rows(tape, slot, start), slot->value.rank,
                                            slot->value.size);
        }
    mn__states_start(states, start);
}

void mn__states_cut(mn__states *states)
{
    for (int64_t layer = 0; layer < states->layers; layer++)
        for (int i = 0; i < states->layer[layer].slots; i++)
            states->layer[layer].slot[i].live = NULL;
}

void mn__states_copy_row(mn__states *to, int64_t to_row, const mn__states *from, int64_t row)
{
    assert(to->layers == from->layers);
    mn__queue *queue = &to->device->queue;
    to->position[to_row] = from->position[row];
    for (int64_t layer = 0; layer < to->layers; layer++) {
        mn__state *into = &to->layer[layer];
        const mn__state *source = &from->layer[layer];
        assert(into->slots == source->slots && into->counters == source->counters);
        for (int i = 0; i < into->slots; i++)
            queue->kernels->convert(queue, slot_row(&into->slot[i], to_row),
                                    slot_row(&source->slot[i], row));
        for (int i = 0; i < into->counters; i++)
            into->counter[i][to_row] = source->counter[i][row];
    }
}

void mn__states_copy(mn__states *to, const mn__states *from)
{
    assert(to->rows == from->rows);
    for (int64_t row = 0; row < to->rows; row++)
        mn__states_copy_row(to, row, from, row);
}

/* ---- Snapshots -------------------------------------------------------------------- */

/* Copies what a snapshot holds to it or, if `back`, from it; how many bytes. With a NULL
 * snapshot it only counts. */
static int64_t each_kept(const mn__states *states, char *snapshot, bool back)
{
    int64_t at = 0, row_bytes = states->rows * (int64_t)sizeof(int64_t);
#define KEEP(own, bytes)                                                             \
    do {                                                                             \
        if (snapshot)                                                                \
            memcpy(back ? (void *)(own) : (void *)(snapshot + at),                   \
                   back ? (void *)(snapshot + at) : (void *)(own), (size_t)(bytes)); \
        at += (bytes);                                                               \
    } while (0)
    KEEP(states->position, row_bytes);
    for (int64_t layer = 0; layer < states->layers; layer++) {
        const mn__state *state = &states->layer[layer];
        for (int i = 0; i < state->counters; i++)
            KEEP(state->counter[i], row_bytes);
        for (int i = 0; i < state->slots; i++)
            if (!state->slot[i].grows)
                KEEP(state->slot[i].value.data, mn__tensor_bytes(&state->slot[i].value));
    }
#undef KEEP
    return at;
}

int64_t mn__states_snapshot_bytes(const mn__states *states)
{
    return each_kept(states, NULL, false);
}

void mn__states_snapshot(const mn__states *states, void *to)
{
    each_kept(states, to, false);
}

void mn__states_rewind(mn__states *states, const void *snapshot)
{
    mn__states_cut(states);
    each_kept(states, (char *)(uintptr_t)snapshot, true);
}

void mn__states_copy_grown(mn__states *to, const mn__states *from)
{
    assert(to->rows == 1 && from->rows == 1 && to->layers == from->layers);
    assert(to->kept == from->kept && to->compute == from->compute);
    to->position[0] = from->position[0];
    for (int64_t layer = 0; layer < to->layers; layer++) {
        const mn__state *into = &to->layer[layer], *source = &from->layer[layer];
        assert(into->slots == source->slots && into->counters == source->counters);
        for (int i = 0; i < into->counters; i++)
            into->counter[i][0] = source->counter[i][0];
        for (int i = 0; i < into->slots; i++) {
            const mn__tensor *value = &source->slot[i].value;
            int64_t bytes = mn__tensor_bytes(value);
            if (source->slot[i].grows)
                bytes = value->size[1] ? bytes / value->size[1] * source->counter[0][0] : 0;
            assert(bytes <= mn__tensor_bytes(&into->slot[i].value));
            if (bytes)
                memcpy(into->slot[i].value.data, value->data, (size_t)bytes);
        }
    }
}

/* ---- Files ------------------------------------------------------------------------ */

static mn__safetensor integers(const mn__states *states, const int64_t *values, const char *name)
{
    return (mn__safetensor){.name = name,
                            .dtype = mn__dtype_name(MN__I64),
                            .rank = 1,
                            .size = {states->rows},
                            .data = values,
                            .bytes = states->rows * (int64_t)sizeof *values};
}

/* The first `filled` entries of a row's slot. */
static void cut_down(mn__safetensor *tensor, int64_t filled)
{
    tensor->bytes = tensor->size[1] ? tensor->bytes / tensor->size[1] * filled : 0;
    tensor->size[1] = filled;
}

/* whole: slots that grow with all their room. */
static mn_status list_tensors(const mn__states *states, bool whole, mn__arena *arena,
                              mn__safetensor **tensors, int64_t *count, mn_error *error)
{
    int64_t most = 1;
    for (int64_t layer = 0; layer < states->layers; layer++)
        most += states->layer[layer].slots + states->layer[layer].counters;
    mn__safetensor *list = mn__arena_calloc(arena, most, sizeof *list);
    if (!list)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to list the state");
    int64_t n = 0;
    bool named = true;
    list[n++] = integers(states, states->position, "state.position");
    for (int64_t layer = 0; layer < states->layers; layer++) {
        const mn__state *state = &states->layer[layer];
        for (int i = 0; i < state->slots; i++, n++) {
            const mn__tensor *value = &state->slot[i].value;
            list[n] = (mn__safetensor){.dtype = mn__dtype_name(value->dtype),
                                       .rank = value->rank,
                                       .data = value->data,
                                       .bytes = mn__tensor_bytes(value)};
            memcpy(list[n].size, value->size, sizeof value->size);
            if (state->slot[i].grows && states->rows == 1 && !whole)
                cut_down(&list[n], state->counter[0][0]);
            list[n].name =
                mn__arena_printf(arena, "state.%lld.%s", (long long)layer, state->slot[i].name);
            named = named && list[n].name;
        }
        for (int i = 0; i < state->counters; i++, n++) {
            const char *name = mn__arena_printf(arena, "state.%lld.counter%d", (long long)layer, i);
            named = named && name;
            list[n] = integers(states, state->counter[i], name);
        }
    }
    if (!named)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to list the state");
    *tensors = list;
    *count = n;
    return MN_OK;
}

mn_status mn__states_list(const mn__states *states, mn__arena *arena, mn__safetensor **tensors,
                          int64_t *count, mn_error *error)
{
    return list_tensors(states, false, arena, tensors, count, error);
}

static bool is_as_wanted(const mn__safetensor *from, const mn__safetensor *into, bool grows)
{
    if (strcmp(from->dtype, into->dtype) || from->rank != into->rank)
        return false;
    for (int i = 0; i < from->rank; i++)
        if (from->size[i] != into->size[i] && !(grows && i == 1))
            return false;
    return true;
}

static mn_status load_one(const mn__safetensor *into, bool grows, const mn__safetensors *file,
                          mn_error *error)
{
    const mn__safetensor *from = mn__safetensors_find(file, into->name);
    if (!from)
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "it was saved by a run of another model; start without --resume",
                        "the file holds no %s", into->name);
    if (!is_as_wanted(from, into, grows))
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "batch rows, memory lengths and precision must be those of the saved run",
                        "%s has another size or type in the file", into->name);
    if (from->bytes > into->bytes)
        return mn__fail(error, MN_ERROR_MISMATCH, "plan for more tokens",
                        "%s of the file is of %lld tokens, and %lld are planned for", into->name,
                        (long long)from->size[1], (long long)into->size[1]);
    if (from->bytes)
        memcpy((void *)(uintptr_t)into->data, from->data, (size_t)from->bytes);
    return MN_OK;
}

/* That a counter is one that reading leads to, and no index goes astray by it. */
static mn_status check_counters(const mn__states *states, mn_error *error)
{
    for (int64_t row = 0; row < states->rows; row++) {
        int64_t position = states->position[row];
        bool good = position >= 0;
        for (int64_t layer = 0; layer < states->layers; layer++) {
            const mn__state *state = &states->layer[layer];
            for (int i = 0; i < state->counters; i++) {
                int64_t counter = state->counter[i][row];
                good = good && counter >= 0 && counter <= position && counter <= state->most[i];
            }
        }
        if (!good)
            return mn__fail(error, MN_ERROR_FORMAT, "read the text again",
                            "the file's counters are none that reading leads to");
    }
    return MN_OK;
}

/* That as many entries were in the file as the counter says. */
static mn_status check_grown(const mn__states *states, const mn__state *state,
                             const mn__safetensor *into, const mn__safetensors *file,
                             mn_error *error)
{
    const mn__safetensor *from = mn__safetensors_find(file, into->name);
    if (states->rows > 1 || from->size[1] == state->counter[0][0] || from->size[1] == into->size[1])
        return MN_OK;
    return mn__fail(error, MN_ERROR_FORMAT, "read the text again",
                    "%s of the file has %lld entries, not %lld", into->name,
                    (long long)from->size[1], (long long)state->counter[0][0]);
}

mn_status mn__states_load(mn__states *states, const mn__safetensors *file, mn_error *error)
{
    mn__arena arena;
    mn__arena_init(&arena, 1 << 12);
    mn__safetensor *tensors;
    int64_t count = 0, n = 1;
    mn_status status = list_tensors(states, true, &arena, &tensors, &count, error);
    if (status == MN_OK)
        status = load_one(&tensors[0], false, file, error);
    for (int64_t layer = 0; layer < states->layers && status == MN_OK; layer++) {
        const mn__state *state = &states->layer[layer];
        int64_t first = n;
        for (int i = 0; i < state->slots && status == MN_OK; i++, n++)
            status = load_one(&tensors[n], state->slot[i].grows && states->rows == 1, file, error);
        for (int i = 0; i < state->counters && status == MN_OK; i++, n++)
            status = load_one(&tensors[n], false, file, error);
        for (int i = 0; i < state->slots && status == MN_OK; i++)
            if (state->slot[i].grows)
                status = check_grown(states, state, &tensors[first + i], file, error);
    }
    if (status == MN_OK)
        status = check_counters(states, error);
    mn__arena_free(&arena);
    return status;
}
