/* Optimisers: the moments and their names, and Adam through its kernel. */
#include "optim/optimizer.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define OPTIONS mn__optimizer_options

const mn__option mn__optimizer_option_table[] = {
    MN__ENUM(OPTIONS, type, "adamw", "adam|adamw|adafactor", "which optimiser"),
    MN__FLOAT(OPTIONS, beta1, "0.9", 0, 0.9999999, "adam, adamw: decay of the first moment"),
    MN__FLOAT(OPTIONS, beta2, "0.999", 0, 0.9999999, "adam, adamw: decay of the second moment"),
    MN__FLOAT(OPTIONS, epsilon, "1e-8", 0, 1, "adam, adamw: added to the root"),
    MN__FLOAT(OPTIONS, decay, "0", 0, 1, "adamw: weight decay, times the rate"),
    MN__BOOL(OPTIONS, decay_vectors, "false", "adamw: gains and biases decay too"),
    MN__INT(OPTIONS, factor_from, "128", 1, 1e18,
            "adafactor: matrices whose two sizes are at least this keep factored moments"),
    MN__FLOAT(OPTIONS, momentum, "0", 0, 0.9999999, "adafactor: momentum of the update, 0: none"),
    MN__FLOAT(OPTIONS, decay_power, "0.8", 0.01, 1,
              "adafactor: the second moment's decay at update t is 1 - t^-power"),
    MN__OPTIONS_END};

mn_status mn__optimizer_check(const mn__optimizer_options *options, mn_error *error)
{
    if (options->decay > 0 && options->type != MN__OPTIMIZER_ADAMW)
        return mn__fail(error, MN_ERROR_OPTION, "use `type: adamw`, or leave `decay` away",
                        "optimizer: only adamw has a weight decay, here decay is %g",
                        options->decay);
    if (options->momentum > 0 && options->type != MN__OPTIMIZER_ADAFACTOR)
        return mn__fail(error, MN_ERROR_OPTION, "use `beta1` for adam and adamw",
                        "optimizer: only adafactor has a momentum, here momentum is %g",
                        options->momentum);
    return MN_OK;
}

/* ---- Moments -------------------------------------------------------------------- */

static bool factored(const mn__optimizer *optimizer, const mn__param *param)
{
    const int64_t *size = param->value.size, from = optimizer->options.factor_from;
    return optimizer->options.type == MN__OPTIMIZER_ADAFACTOR && param->value.rank == 2 &&
           size[0] >= from && size[1] >= from;
}

static bool add_moment(mn__optimizer *optimizer, float **moment, int64_t n)
{
    *moment = mn__store_alloc(&optimizer->store, n * (int64_t)sizeof(float));
    if (!*moment)
        return false;
    mn__queue *queue = &optimizer->params->device->queue;
    queue->kernels->fill(queue, (mn__matrix){*moment, MN__F32, 1, n, n}, 0.0f);
    return true;
}

static bool add_moments(mn__optimizer *optimizer, const mn__param *param, mn__moments *moments)
{
    int64_t n = mn__tensor_elements(&param->value);
    bool adafactor = optimizer->options.type == MN__OPTIMIZER_ADAFACTOR;
    if ((!adafactor || optimizer->options.momentum > 0) &&
        !add_moment(optimizer, &moments->first, n))
        return false;
    if (!factored(optimizer, param))
        return add_moment(optimizer, &moments->second, n);
    return add_moment(optimizer, &moments->rows, param->value.size[0]) &&
           add_moment(optimizer, &moments->columns, param->value.size[1]);
}

/* Adafactor's, for the parameter with the most rows and that with the most columns. */
static bool add_scratch(mn__optimizer *optimizer)
{
    int64_t rows = 1, columns = 1;
    for (int64_t i = 0; i < optimizer->params->count; i++) {
        mn__matrix all = mn__tensor_matrix(&optimizer->params->items[i]->value, 0);
        rows = all.rows > rows ? all.rows : rows;
        columns = all.columns > columns ? all.columns : columns;
    }
    mn__store *store = &optimizer->store;
    optimizer->scratch = mn__store_alloc(store, rows * (int64_t)sizeof(double));
    optimizer->row_scale = mn__store_alloc(store, rows * (int64_t)sizeof(float));
    optimizer->column_scale = mn__store_alloc(store, columns * (int64_t)sizeof(float));
    return optimizer->scratch && optimizer->row_scale && optimizer->column_scale;
}

mn_status mn__optimizer_open(mn__optimizer *optimizer, mn__params *params,
                             const mn__optimizer_options *options, mn_error *error)
{
    *optimizer = (mn__optimizer){.options = *options, .params = params};
    mn_status status = mn__optimizer_check(options, error);
    if (status != MN_OK)
        return status;
    mn__arena_init(&optimizer->nodes, 1 << 14);
    mn__store_init(&optimizer->store, params->device, 1 << 20);
    optimizer->moments =
        mn__arena_calloc(&optimizer->nodes, params->count, sizeof *optimizer->moments);
    bool enough = optimizer->moments != NULL;
    for (int64_t i = 0; i < params->count && enough; i++)
        if (!params->items[i]->buffer)
            enough = add_moments(optimizer, params->items[i], &optimizer->moments[i]);
    if (enough && options->type == MN__OPTIMIZER_ADAFACTOR)
        enough = add_scratch(optimizer);
    if (enough)
        return MN_OK;
    mn__optimizer_close(optimizer);
    return mn__fail(error, MN_ERROR_MEMORY, "train a smaller model, or with adafactor",
                    "no memory for the optimiser's moments");
}

void mn__optimizer_close(mn__optimizer *optimizer)
{
    mn__store_free(&optimizer->store);
    mn__arena_free(&optimizer->nodes);
    *optimizer = (mn__optimizer){0};
}

/* ---- Updates -------------------------------------------------------------------- */

static void update_adam(mn__optimizer *optimizer, mn__param *param, mn__moments *moments,
                        double rate, double gradient_scale)
{
    const mn__optimizer_options *options = &optimizer->options;
    double t = (double)optimizer->updates;
    bool decays = param->decays || options->decay_vectors;
    /* The corrections belong to the betas as the kernel has them, rounded. */
    float beta1 = (float)options->beta1, beta2 = (float)options->beta2;
    mn__adam call = {.n = mn__tensor_elements(&param->value),
                     .value = param->value.data,
                     .first = moments->first,
                     .second = moments->second,
                     .gradient = param->gradient,
                     .gradient_scale = (float)gradient_scale,
                     .rate = (float)rate,
                     .beta1 = beta1,
                     .beta2 = beta2,
                     .epsilon = (float)options->epsilon,
                     .correction1 = (float)(1 - pow((double)beta1, t)),
                     .correction2 = (float)(1 - pow((double)beta2, t)),
                     .decay = decays ? (float)options->decay : 0.0f};
    mn__queue *queue = &optimizer->params->device->queue;
    queue->kernels->adam(queue, &call);
}

static void complete_gradient(mn__params *params, mn__param *param)
{
    if (param->gradient_set)
        return;
    mn__queue *queue = &params->device->queue;
    int64_t n = mn__tensor_elements(&param->value);
    queue->kernels->fill(queue, (mn__matrix){param->gradient, MN__F32, 1, n, n}, 0.0f);
    param->gradient_set = true;
}

void mn__optimizer_update(mn__optimizer *optimizer, double rate, double gradient_scale)
{
    mn__params *params = optimizer->params;
    optimizer->updates++;
    for (int64_t i = 0; i < params->count; i++) {
        mn__param *param = params->items[i];
        if (param->buffer)
            continue;
        complete_gradient(params, param);
        if (optimizer->options.type == MN__OPTIMIZER_ADAFACTOR)
            mn__adafactor_update(optimizer, param, &optimizer->moments[i], rate, gradient_scale);
        else
            update_adam(optimizer, param, &optimizer->moments[i], rate, gradient_scale);
        mn__param_changed(param);
    }
}

/* ---- Saving and loading ------------------------------------------------------------ */

/* The moments by name; which of them a parameter has is in mn__moments. */
static const struct kind {
    const char *name;
    size_t offset;
    int from, rank; /* its sizes: value.size[from .. from + rank), rank 0: all of them */
} kinds[] = {{"first", offsetof(mn__moments, first), 0, 0},
             {"second", offsetof(mn__moments, second), 0, 0},
             {"rows", offsetof(mn__moments, rows), 0, 1},
             {"columns", offsetof(mn__moments, columns), 1, 1}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static float *moment_of(const mn__moments *moments, const struct kind *kind)
{
    float *moment;
    memcpy(&moment, (const char *)moments + kind->offset, sizeof moment);
    return moment;
}

/* One moment described as a file would hold it; data NULL where it does not exist. */
static mn__safetensor describe(const mn__optimizer *optimizer, int64_t i, const struct kind *kind,
                               mn__arena *arena)
{
    const mn__param *param = optimizer->params->items[i];
    mn__safetensor tensor = {.dtype = "F32", .data = moment_of(&optimizer->moments[i], kind)};
    if (!tensor.data)
        return tensor;
    tensor.rank = kind->rank ? kind->rank : param->value.rank;
    tensor.bytes = (int64_t)sizeof(float);
    for (int axis = 0; axis < tensor.rank; axis++) {
        tensor.size[axis] = param->value.size[kind->from + axis];
        tensor.bytes *= tensor.size[axis];
    }
    tensor.name = mn__arena_printf(arena, "optimizer.%s.%s", param->name, kind->name);
    return tensor;
}

mn_status mn__optimizer_list(const mn__optimizer *optimizer, mn__arena *arena,
                             mn__safetensor **tensors, int64_t *count, mn_error *error)
{
    int64_t params = optimizer->params->count;
    *tensors = mn__arena_calloc(arena, params * KINDS, sizeof **tensors);
    *count = 0;
    for (int64_t i = 0; *tensors && i < params; i++)
        for (int k = 0; k < KINDS; k++) {
            mn__safetensor tensor = describe(optimizer, i, &kinds[k], arena);
            if (!tensor.data)
                continue;
            if (!tensor.name)
                return mn__fail(error, MN_ERROR_MEMORY, NULL, "out of memory");
            (*tensors)[(*count)++] = tensor;
        }
    return *tensors ? MN_OK : mn__fail(error, MN_ERROR_MEMORY, NULL, "out of memory");
}

static mn_status load_moment(const mn__safetensor *to, const mn__safetensors *file, mn_error *error)
{
    const mn__safetensor *from = mn__safetensors_find(file, to->name);
    bool same = from && !strcmp(from->dtype, to->dtype) && from->rank == to->rank;
    for (int axis = 0; same && axis < to->rank; axis++)
        same = from->size[axis] == to->size[axis];
    if (!same)
        return mn__fail(
            error, MN_ERROR_MISMATCH, "resume with the recipe that the checkpoint was made with",
            "the checkpoint %s %s", from ? "has another size or type of" : "lacks", to->name);
    memcpy((void *)(uintptr_t)to->data, from->data, (size_t)to->bytes);
    return MN_OK;
}

mn_status mn__optimizer_load(mn__optimizer *optimizer, const mn__safetensors *file, mn_error *error)
{
    mn__arena arena;
    mn__arena_init(&arena, 1 << 14);
    mn__safetensor *tensors;
    int64_t count;
    mn_status status = mn__optimizer_list(optimizer, &arena, &tensors, &count, error);
    for (int64_t i = 0; status == MN_OK && i < count; i++)
        status = load_moment(&tensors[i], file, error);
    mn__arena_free(&arena);
    return status;
}
