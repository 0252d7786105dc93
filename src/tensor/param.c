/* Parameters and buffers. */
#include "tensor/param.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"

void mn__params_init(mn__params *params, mn__device *device, uint64_t seed)
{
    *params = (mn__params){.device = device, .random = {.seed = seed}};
    mn__arena_init(&params->nodes, 1 << 14);
    mn__store_init(&params->store, device, 1 << 20);
}

const char *mn__weights_name(mn__weights weights)
{
    static const char *const names[] = {"masters", "f32", "f16", "bf16", "int8", "int4", "auto"};
    return names[weights];
}

const char *mn__form_name(mn__form form)
{
    return mn__weights_name((mn__weights)((int)form + MN__WEIGHTS_F32));
}

void mn__params_free(mn__params *params)
{
    for (int64_t i = 0; i < params->count; i++)
        if (params->items[i]->packed)
            params->device->queue.kernels->pack_free(params->items[i]->packed);
    if (params->source.owner)
        params->source.close(params->source.owner);
    mn__store_free(&params->store);
    mn__arena_free(&params->nodes);
    mn__free(params->items);
    *params = (mn__params){0};
}

static bool make_room(mn__params *params)
{
    if (params->count < params->capacity)
        return true;
    int64_t capacity = params->capacity ? 2 * params->capacity : 64;
    mn__param **items = mn__realloc(params->items, capacity * (int64_t)sizeof *items);
    if (!items)
        return false;
    params->items = items;
    params->capacity = capacity;
    return true;
}

static mn__matrix as_row(void *data, const mn__tensor *like)
{
    int64_t n = mn__tensor_elements(like);
    return (mn__matrix){data, MN__F32, 1, n, n};
}

static void fill(mn__params *params, mn__param *param, mn__init init)
{
    int64_t n = mn__tensor_elements(&param->value);
    mn__matrix all = {param->value.data, MN__F32, 1, n, n};
    params->random.operation++;
    if (params->bare)
        return;
    if (init.kind != MN__INIT_NORMAL) {
        mn__queue *queue = &params->device->queue;
        queue->kernels->fill(queue, all, init.kind == MN__INIT_ZERO ? 0.0f : init.mean);
        return;
    }
    if (params->device->counting)
        return;
    float *value = param->value.data;
    mn__random_fill_normal(params->random, init.deviation, value, n);
    if (init.mean != 0.0f)
        for (int64_t i = 0; i < n; i++)
            value[i] += init.mean;
}

bool mn__param_waits(const mn__params *params, const mn__param *param)
{
    return params->weights != MN__WEIGHTS_MASTERS && param->readers != MN__READERS_ANY &&
           !param->held;
}

static mn_status no_room(const mn__param *param, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, "use a smaller model, or --weights of fewer bits",
                    "no memory for %s", param->name);
}

mn_status mn__param_hold(mn__params *params, mn__param *param, mn__dtype rows, mn__form form,
                         mn_error *error)
{
    mn__queue *queue = &params->device->queue;
    assert(mn__param_waits(params, param));
    if (param->readers & MN__READERS_ROWS && !param->lies) {
        param->value.dtype = rows;
        param->value.data = mn__store_alloc(&params->store, mn__tensor_bytes(&param->value));
        if (!param->value.data)
            return no_room(param, error);
    }
    param->held = true;
    if (!(param->readers & MN__READERS_PRODUCTS))
        return MN_OK;
    int64_t k = param->value.size[1], n = param->value.size[0];
    int64_t bytes = queue->kernels->pack_bytes(queue, k, n, form);
    param->packs = true;
    param->form = form;
    if (!params->device->counting)
        param->packed = queue->kernels->pack_new(queue, k, n, form);
    if (params->device->counting ? bytes < 0 : !param->packed)
        return no_room(param, error);
    params->packed_bytes += bytes;
    return MN_OK;
}

void mn__param_point(mn__param *param, mn__dtype dtype, const void *data, bool whole)
{
    assert(!param->held);
    param->value.dtype = dtype;
    param->value.data = (void *)(uintptr_t)data;
    param->lies = true;
    param->held = whole;
}

int64_t mn__param_bytes(const mn__params *params, const mn__param *param)
{
    mn__queue *queue = &params->device->queue;
    bool valued = !param->packs || param->readers & MN__READERS_ROWS;
    int64_t bytes = valued ? mn__tensor_bytes(&param->value) : 0;
    return param->packs ? bytes + queue->kernels->pack_bytes(queue, param->value.size[1],
                                                             param->value.size[0], param->form)
                        : bytes;
}

mn__param *mn__params_add(mn__params *params, const char *name, int rank, const int64_t *size,
                          mn__init init)
{
    return mn__params_add_read(params, name, rank, size, init, MN__READERS_ANY);
}

mn__param *mn__params_add_read(mn__params *params, const char *name, int rank, const int64_t *size,
                               mn__init init, int readers)
{
    assert(!mn__params_find(params, name));
    mn__param *param = mn__arena_calloc(&params->nodes, 1, sizeof *param);
    if (!param || !make_room(params))
        return NULL;
    param->name = mn__arena_strdup(&params->nodes, name);
    param->value = mn__tensor_of(NULL, MN__F32, rank, size);
    param->readers = readers;
    param->decays = rank >= 2;
    param->version = 1;
    bool waits = mn__param_waits(params, param);
    if (!waits)
        param->value.data = mn__store_alloc(&params->store, mn__tensor_bytes(&param->value));
    if (!param->name || (!waits && !param->value.data))
        return NULL;
    if (waits)
        params->random.operation++;
    else
        fill(params, param, init);
    params->items[params->count++] = param;
    return param;
}

mn__param *mn__params_add_buffer(mn__params *params, const char *name, int rank,
                                 const int64_t *size, mn__init init)
{
    mn__param *param = mn__params_add(params, name, rank, size, init);
    if (param) {
        param->buffer = true;
        param->decays = false;
    }
    return param;
}

mn__param *mn__params_find(const mn__params *params, const char *name)
{
    for (int64_t i = 0; i < params->count; i++)
        if (!strcmp(params->items[i]->name, name))
            return params->items[i];
    return NULL;
}

mn_status mn__params_prepare_gradients(mn__params *params, mn_error *error)
{
    if (params->weights != MN__WEIGHTS_MASTERS)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "open it to train it",
                        "the model is opened for reading: its weights are kept without masters");
    for (int64_t i = 0; i < params->count; i++) {
        mn__param *param = params->items[i];
        float **sum = param->buffer ? &param->statistic : &param->gradient;
        if (*sum)
            continue;
        *sum = mn__store_alloc(&params->store, mn__tensor_bytes(&param->value));
        if (!*sum)
            return mn__fail(error, MN_ERROR_MEMORY, "train a smaller model",
                            "no memory for the gradient of %s", param->name);
    }
    mn__params_clear_gradients(params);
    return MN_OK;
}

void mn__params_clear_gradients(mn__params *params)
{
    mn__queue *queue = &params->device->queue;
    for (int64_t i = 0; i < params->count; i++) {
        mn__param *param = params->items[i];
        param->gradient_set = false;
        if (param->statistic)
            queue->kernels->fill(queue, as_row(param->statistic, &param->value), 0.0f);
    }
}

void mn__param_changed(mn__param *param)
{
    param->version++;
}

mn__tensor mn__param_in(mn__params *params, mn__param *param, mn__dtype dtype)
{
    if (dtype == param->value.dtype)
        return param->value;
    if (!param->bf16.data) {
        mn__tensor copy = mn__tensor_of(NULL, MN__BF16, param->value.rank, param->value.size);
        copy.data = mn__store_alloc(&params->store, mn__tensor_bytes(&copy));
        param->bf16 = copy;
    }
    if (param->bf16.data && param->bf16_version != param->version) {
        mn__queue *queue = &params->device->queue;
        queue->kernels->convert(queue, mn__tensor_matrix(&param->bf16, 0),
                                mn__tensor_matrix(&param->value, 0));
        param->bf16_version = param->version;
    }
    return param->bf16;
}

int64_t mn__params_elements(const mn__params *params)
{
    int64_t elements = 0;
    for (int64_t i = 0; i < params->count; i++)
        if (!params->items[i]->buffer)
            elements += mn__tensor_elements(&params->items[i]->value);
    return elements;
}
