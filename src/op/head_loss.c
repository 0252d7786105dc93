/* Cross-entropy fused with the head: logits exist for one chunk of rows at a
 * time, and their gradients are used up before the next.
 *
 *   x = s h [W; M]^T + b;  loss = scale * sum_r weight[r] (CE(x[r], target[r]) + z (log Z[r])^2)
 *   g = weight (softmax(x) - onehot) (the kernel's);  dh = s g [W; M];  d[W; M] = g^T s h;
 *   db = sum g
 *
 * Two matrices hold the rows of the classes, `weight` W and, if there is one, `more` M: the
 * columns of x and g lie side by side. Forward makes g W, dW and db for a loss of scale 1; backward
 * multiplies them by scale and what arrives. Rows of weight 0 at a chunk's ends cost nothing. */
#include "op/common.h"

enum { PARTS = 2 }; /* W, M */

typedef struct head_record {
    mn__record record;
    mn__var *hidden, *part[PARTS], *bias;
    mn__tensor dhidden, dpart[PARTS], dbias; /* data NULL: not wanted */
    float scale, logit_scale;
} head_record;

/* What one forward pass works with. */
typedef struct head_work {
    const mn__head_loss *args;
    mn__matrix hidden;        /* [N, C] */
    mn__matrix part[PARTS];   /* [V, C], [K, C], compute type */
    const mn__packed *packed; /* instead of the first one's data, or NULL */
    int parts;
    int64_t classes;  /* V + K */
    float *logits;    /* [chunk, V + K] */
    void *rounded;    /* logits' gradients in a 16-bit compute type, or NULL */
    void *scaled;     /* s h, or NULL where s is 1 */
    float *losses;    /* [N] */
    float *penalties; /* [N], or NULL where nobody asks and z is 0 */
    int64_t chunk;
    head_record *record; /* NULL: no gradients */
} head_work;

/* ---- Backward -------------------------------------------------------------------- */

/* var's gradient += factor * arrived * made */
static void contribute(mn__tape *tape, mn__var *var, const mn__tensor *made, float factor,
                       const float *arrived)
{
    mn__tensor gradient;
    bool accumulate;
    mn__queue *queue = &tape->device->queue;
    if (!made->data || !mn__tape_gradient(tape, var, &gradient, &accumulate))
        return;
    float *factors = mn__op_repeat(tape, arrived, factor, mn__op_rows(made));
    int64_t count = mn__tensor_matrices(&gradient);
    for (int64_t n = 0; n < count && factors; n++)
        queue->kernels->scale_rows(queue, mn__tensor_matrix(&gradient, n), factors,
                                   mn__tensor_matrix_of(made, count, n), accumulate);
}

static void head_backward(mn__tape *tape, mn__record *base)
{
    head_record *record = (head_record *)base;
    mn__tensor arrived = mn__tape_gradient_of(tape, base->out);
    float scale = record->scale;
    contribute(tape, record->hidden, &record->dhidden, scale * record->logit_scale, arrived.data);
    for (int i = 0; i < PARTS; i++)
        contribute(tape, record->part[i], &record->dpart[i], scale, arrived.data);
    contribute(tape, record->bias, &record->dbias, scale, arrived.data);
}

/* ---- A chunk of rows ---------------------------------------------------------------- */

static mn__matrix rows_of(mn__matrix matrix, int64_t first, int64_t count)
{
    int64_t offset = first * matrix.stride * mn__dtype_bytes(matrix.dtype);
    matrix.data = (char *)matrix.data + offset;
    matrix.rows = count;
    return matrix;
}

/* The columns of part i. */
static mn__matrix columns_of(const head_work *work, mn__matrix matrix, int i)
{
    int64_t first = i ? work->part[0].rows : 0;
    matrix.data = (char *)matrix.data + first * mn__dtype_bytes(matrix.dtype);
    matrix.columns = work->part[i].rows;
    return matrix;
}

static void part_gradients(mn__tape *tape, const head_work *work, int i, mn__matrix g,
                           mn__matrix hidden, int64_t first)
{
    head_record *record = work->record;
    if (record->dhidden.data) {
        mn__matrix out = rows_of(mn__tensor_matrix(&record->dhidden, 0), first, g.rows);
        mn__matmul product =
            mn__op_product((mn__factor){g, false}, (mn__factor){work->part[i], false}, out);
        product.accumulate = i > 0;
        mn__op_multiply_matrices(tape, &product);
    }
    if (record->dpart[i].data) {
        mn__matmul product = mn__op_product((mn__factor){g, true}, (mn__factor){hidden, false},
                                            mn__tensor_matrix(&record->dpart[i], 0));
        product.accumulate = true;
        mn__op_multiply_matrices(tape, &product);
    }
}

static void chunk_gradients(mn__tape *tape, const head_work *work, mn__matrix hidden, int64_t first,
                            int64_t count)
{
    mn__queue *queue = &tape->device->queue;
    head_record *record = work->record;
    mn__matrix g = mn__op_flat(work->logits, MN__F32, count, work->classes);
    if (record->dbias.data)
        queue->kernels->sum_rows(queue, record->dbias.data, g);
    if (work->rounded) {
        mn__matrix rounded = mn__op_flat(work->rounded, tape->compute, g.rows, g.columns);
        queue->kernels->convert(queue, rounded, g);
        g = rounded;
    }
    for (int i = 0; i < work->parts; i++)
        part_gradients(tape, work, i, columns_of(work, g, i), hidden, first);
}

static void run_chunk(mn__tape *tape, const head_work *work, int64_t first, int64_t count)
{
    mn__queue *queue = &tape->device->queue;
    const mn__head_loss *args = work->args;
    mn__matrix hidden = rows_of(work->hidden, first, count);
    if (work->scaled) {
        mn__matrix scaled = mn__op_flat(work->scaled, hidden.dtype, count, hidden.columns);
        queue->kernels->axpby(queue, scaled, args->logit_scale, hidden, 0);
        hidden = scaled;
    }
    mn__matrix logits = mn__op_flat(work->logits, MN__F32, count, work->classes);
    const float *bias = args->bias ? args->bias->value.data : NULL;
    for (int i = 0; i < work->parts; i++) {
        mn__matmul product =
            mn__op_product((mn__factor){hidden, false}, (mn__factor){work->part[i], true},
                           columns_of(work, logits, i));
        product.packed = i ? NULL : work->packed;
        product.bias = bias && i ? bias + work->part[0].rows : bias;
        mn__op_multiply_matrices(tape, &product);
    }
    mn__cross_entropy call = {.rows = count,
                              .vocabulary = work->classes,
                              .stride = work->classes,
                              .logits = work->logits,
                              .targets = args->targets + first,
                              .weights = args->weights + first,
                              .z = args->z,
                              .gradient = work->record,
                              .losses = work->losses + first,
                              .penalties = work->penalties ? work->penalties + first : NULL};
    queue->kernels->cross_entropy(queue, &call);
    if (work->record)
        chunk_gradients(tape, work, hidden, first, count);
}

/* The next rows that count, from *first on: at most a chunk. A counting device
 * has no weights to look at. */
static int64_t next_chunk(const mn__tape *tape, const head_work *work, int64_t *first)
{
    const float *weights = work->args->weights;
    int64_t N = work->hidden.rows, look = tape->device->counting ? 0 : 1;
    while (look && *first < N && weights[*first] == 0)
        ++*first;
    int64_t count = N - *first < work->chunk ? N - *first : work->chunk;
    while (look && count > 0 && weights[*first + count - 1] == 0)
        count--;
    return count;
}

static void run_chunks(mn__tape *tape, const head_work *work)
{
    mn__queue *queue = &tape->device->queue;
    int64_t N = work->hidden.rows;
    queue->kernels->fill(queue, mn__op_flat(work->losses, MN__F32, 1, N), 0);
    if (work->penalties)
        queue->kernels->fill(queue, mn__op_flat(work->penalties, MN__F32, 1, N), 0);
    if (work->record) {
        const mn__tensor *cleared[] = {&work->record->dhidden, &work->record->dpart[0],
                                       &work->record->dpart[1], &work->record->dbias};
        for (int i = 0; i < 4; i++)
            if (cleared[i]->data)
                mn__tensor_fill(&tape->device->queue, cleared[i], 0);
    }
    for (int64_t first = 0, count; (count = next_chunk(tape, work, &first)) > 0; first += count)
        run_chunk(tape, work, first, count);
}

/* ---- Forward -------------------------------------------------------------------------- */

/* Enough rows for products to run at their peak, and logits that stay within a
 * bound; equal chunks. */
static int64_t chunk_rows(int64_t N, int64_t V)
{
    const int64_t most = 2048, bytes = (int64_t)256 << 20;
    int64_t rows = bytes / (V * (int64_t)sizeof(float));
    rows = rows > most ? most : rows < 64 ? 64 : rows;
    int64_t chunks = (N + rows - 1) / rows;
    return chunks ? (N + chunks - 1) / chunks : 1;
}

/* Logits, rounded, and scaled rows; nats, penalties; their ends. */
int64_t mn__op_head_loss_scratch(int64_t N, int64_t C, int64_t V)
{
    return chunk_rows(N, V) * (V * 6 + C * 4) + N * 8 + 5 * 64;
}

static bool check(mn__tape *tape, const mn__head_loss *args)
{
    const mn__tensor *hidden = &args->hidden->value, *weight = &args->weight->value;
    const mn__tensor *more = args->more ? &args->more->value : NULL;
    const char *hint = "hidden is [N, C], weight [V, C], more [K, C], bias [V + K]";
    if (hidden->rank != 2 || weight->rank != 2 || hidden->size[1] != weight->size[1]) {
        mn__op_fail_sizes(tape, "head", hint, "hidden", hidden, "weight", weight);
        return false;
    }
    if (more && (more->rank != 2 || more->size[1] != weight->size[1])) {
        mn__op_fail_sizes(tape, "head", hint, "more", more, "weight", weight);
        return false;
    }
    int64_t classes = weight->size[0] + (more ? more->size[0] : 0);
    if (args->bias && mn__tensor_elements(&args->bias->value) != classes) {
        mn__op_fail_sizes(tape, "head", hint, "bias", &args->bias->value, "weight", weight);
        return false;
    }
    for (int64_t r = 0; r < hidden->size[0] && !tape->device->counting; r++)
        if (args->weights[r] != 0 && (args->targets[r] < 0 || args->targets[r] >= classes)) {
            mn__tape_fail(tape, MN_ERROR_MISMATCH,
                          "give the row weight 0, or use the tokenizer of this model",
                          "head: target %d of row %lld, of a vocabulary of %lld",
                          (int)args->targets[r], (long long)r, (long long)classes);
            return false;
        }
    return true;
}

/* The record with room for its gradients, all that stays of this pass. */
static head_record *new_record(mn__tape *tape, mn__var *out, const mn__head_loss *args)
{
    head_record *record = mn__tape_record(tape, sizeof *record, out, head_backward);
    if (!record)
        return NULL;
    record->hidden = args->hidden;
    record->part[0] = args->weight;
    record->part[1] = args->more;
    record->bias = args->bias;
    record->scale = args->scale;
    record->logit_scale = args->logit_scale;
    if (args->hidden->wants_gradient)
        record->dhidden = mn__op_keep(tape, tape->compute, &args->hidden->value);
    for (int i = 0; i < PARTS; i++)
        if (record->part[i] && record->part[i]->wants_gradient)
            record->dpart[i] = mn__op_keep(tape, MN__F32, &record->part[i]->value);
    if (args->bias && args->bias->wants_gradient)
        record->dbias = mn__op_keep(tape, MN__F32, &args->bias->value);
    return tape->status == MN_OK ? record : NULL;
}

static bool prepare_work(mn__tape *tape, head_work *work, const mn__tensor part[PARTS])
{
    int64_t C = part[0].size[1], bytes = mn__dtype_bytes(tape->compute);
    work->hidden = mn__tensor_matrix(&work->args->hidden->value, 0);
    for (; work->parts < PARTS && part[work->parts].rank; work->parts++) {
        work->part[work->parts] = mn__tensor_matrix(&part[work->parts], 0);
        work->classes += part[work->parts].size[0];
    }
    int64_t V = work->classes;
    work->chunk = chunk_rows(work->hidden.rows, V);
    work->logits = mn__tape_alloc(tape, work->chunk * V * (int64_t)sizeof(float));
    if (work->record && tape->compute != MN__F32)
        work->rounded = mn__tape_alloc(tape, work->chunk * V * bytes);
    if (work->args->logit_scale != 1)
        work->scaled = mn__tape_alloc(tape, work->chunk * C * bytes);
    work->losses = work->args->losses;
    if (!work->losses)
        work->losses = mn__tape_alloc(tape, work->hidden.rows * (int64_t)sizeof(float));
    work->penalties = work->args->penalties;
    if (!work->penalties && work->args->z != 0)
        work->penalties = mn__tape_alloc(tape, work->hidden.rows * (int64_t)sizeof(float));
    return tape->status == MN_OK;
}

/* out (+)= scale * sum_r weight[r] x[r] */
static bool add_sum(mn__tape *tape, const head_work *work, mn__var *out, const float *x,
                    bool accumulate)
{
    mn__queue *queue = &tape->device->queue;
    float *sum = mn__tape_alloc(tape, sizeof *sum);
    if (!sum)
        return false;
    int64_t N = work->hidden.rows;
    void *rows = (void *)(uintptr_t)x, *weights = (void *)(uintptr_t)work->args->weights;
    queue->kernels->dot_rows(queue, sum, mn__op_flat(rows, MN__F32, 1, N),
                             mn__op_flat(weights, MN__F32, 1, N));
    queue->kernels->axpby(queue, mn__tensor_matrix(&out->value, 0), work->args->scale,
                          mn__op_flat(sum, MN__F32, 1, 1), accumulate ? 1 : 0);
    return true;
}

static bool total(mn__tape *tape, const head_work *work, mn__var *out)
{
    return add_sum(tape, work, out, work->losses, false) &&
           (!work->penalties || add_sum(tape, work, out, work->penalties, true));
}

mn__var *mn__op_head_loss(mn__tape *tape, const mn__head_loss *given)
{
    mn__head_loss args = *given;
    if (!args.hidden || !args.weight || !check(tape, &args))
        return NULL;
    args.hidden = mn__op_cast(tape, args.hidden, tape->compute);
    if (args.bias)
        args.bias = mn__op_cast(tape, args.bias, MN__F32);
    mn__op_weight weight;
    if (!mn__op_take_weight(tape, args.weight, (mn__var *const[]){args.hidden, args.bias}, 2,
                            &weight))
        return NULL;
    mn__tensor part[PARTS] = {weight.value};
    if (args.more)
        part[1] = mn__op_in_compute(tape, args.more);
    mn__var *out = mn__tape_new(tape, MN__F32, 1, (int64_t[]){1});
    if (!args.hidden || !out || tape->status != MN_OK)
        return NULL;
    head_work work = {.args = &args, .packed = weight.packed};
    if (mn__tape_wants(tape, (mn__var *const[]){args.hidden, args.weight, args.more, args.bias},
                       4) &&
        !(work.record = new_record(tape, out, &args)))
        return NULL;
    mn__arena_mark mark = mn__store_mark(&tape->values);
    if (!prepare_work(tape, &work, part))
        return NULL;
    run_chunks(tape, &work);
    bool good = total(tape, &work, out);
    mn__store_release(&tape->values, mark);
    return good ? out : NULL;
}
