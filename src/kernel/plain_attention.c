/* Attention over key groups, as defined in kernel.h: one query at a time, in
 * double precision, every score recomputed where it is needed.
 *
 *   score = ((q . k + x) * scale + y) * scales[h] + bias
 *   p     = exp(score - lse),  lse = log (sum exp score + exp sink)
 *   out   = sum p f (value + Shaw's value),  f: dropout's factor
 *   d score = p f (d out . value) - p (d out . out)
 *
 * Not fast, and not careful about memory: O(T) scratch, O(T S D) time. */
#include "kernel/plain.h"

#include <math.h>

#include "kernel/blocks.h"

/* One query: row b, time t, head h; g is the head whose keys it reads. */
typedef struct query {
    int64_t b, t, h, g;
} query;

int64_t mn__t5_bucket(int64_t distance, int64_t buckets, int64_t far)
{
    int64_t exact = buckets / 2;
    if (distance < exact)
        return distance < 0 ? 0 : distance;
    if (distance >= far || far <= exact)
        return buckets - 1;
    float log_step = logf((float)distance / (float)exact) / logf((float)far / (float)exact);
    int64_t bucket = exact + (int64_t)(log_step * (float)(buckets - exact));
    return bucket < buckets ? bucket : buckets - 1;
}

/* ---- Where things stand --------------------------------------------------------- */

static int64_t offset_of(const int64_t stride[3], int64_t b, int64_t t, int64_t h)
{
    return b * stride[0] + t * stride[1] + h * stride[2];
}

static int64_t key_at(const mn__key_group *group, query at, int64_t j)
{
    return offset_of(group->key_stride, at.b, j, at.g);
}

static int64_t value_at(const mn__key_group *group, query at, int64_t j)
{
    return offset_of(group->value_stride, at.b, j, at.g);
}

static int64_t clip(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int64_t distance_of(const mn__key_group *group, query at, int64_t j)
{
    return group->offset + at.t - j;
}

/* The first element of XL's r, or of Shaw's row, for this query and key. */
static int64_t relative_at(const mn__attention_call *call, const mn__key_group *group, query at,
                           int64_t j)
{
    return (clip(distance_of(group, at, j), 0, group->limit) * call->H + at.h) * call->D;
}

static int64_t shaw_at(const mn__attention_call *call, const mn__key_group *group, query at,
                       int64_t j)
{
    return (group->limit + clip(distance_of(group, at, j), -group->limit, group->limit)) * call->D;
}

static int64_t t5_at(const mn__attention_call *call, const mn__key_group *group, query at,
                     int64_t j)
{
    return mn__t5_bucket(distance_of(group, at, j), group->buckets, group->far) * call->H + at.h;
}

static bool is_masked(const mn__key_group *group, query at, int64_t j, int64_t T)
{
    int64_t distance = distance_of(group, at, j);
    switch (group->mask) {
    case MN__MASK_NONE:
        return false;
    case MN__MASK_CAUSAL:
        return distance < 0;
    case MN__MASK_STRICT:
        return distance < 1;
    case MN__MASK_BAND:
        return distance < 0 || distance >= group->window;
    case MN__MASK_BAND_STRICT:
        return distance < 1 || distance > group->window;
    case MN__MASK_SEGMENTED:
        return distance < 0 ||
               group->query_segment[at.b * T + at.t] != group->key_segment[at.b * group->count + j];
    }
    return false;
}

static bool is_visible(const mn__attention_call *call, const mn__key_group *group, query at,
                       int64_t j)
{
    if (call->queries_valid && at.t >= call->queries_valid[at.b])
        return false;
    if (group->first && j < group->first[at.b])
        return false;
    if (group->length && j >= group->length[at.b])
        return false;
    if (group->keep && !group->keep[at.b * group->count + j])
        return false;
    return !is_masked(group, at, j, call->T);
}

/* Element d of a row of keys or values, which begins at `at`. */
static double kept_element(const mn__attention_call *call, const mn__key_group *group,
                           const void *data, int64_t at, int64_t d)
{
    const mn__block_int8 *blocks = (const void *)((const char *)data + at);
    switch (group->kept) {
    case MN__KEPT_AS_COMPUTED:
        break;
    case MN__KEPT_F32:
        return (double)mn__element(data, MN__F32, at + d);
    case MN__KEPT_BF16:
        return (double)mn__element(data, MN__BF16, at + d);
    case MN__KEPT_INT8:
        return (double)mn__f16_to_f32(blocks[d / MN__BLOCK].scale) *
               (double)blocks[d / MN__BLOCK].q[d % MN__BLOCK];
    }
    return (double)mn__element(data, call->dtype, at + d);
}

/* ---- Scores ------------------------------------------------------------------------ */

static double query_element(const mn__attention_call *call, query at, int64_t d)
{
    return (double)mn__element(call->queries, call->dtype,
                               offset_of(call->query_stride, at.b, at.t, at.h) + d);
}

/* q . k + x */
static double product(const mn__attention_call *call, const mn__key_group *group, query at,
                      int64_t j)
{
    bool xl = group->position == MN__POSITION_XL;
    bool shaw = group->position == MN__POSITION_SHAW && group->shaw_keys;
    double sum = 0;
    for (int64_t d = 0; d < call->D; d++) {
        double q = query_element(call, at, d);
        double u = xl && group->u ? (double)group->u[at.h * call->D + d] : 0.0;
        double v = xl && group->v ? (double)group->v[at.h * call->D + d] : 0.0;
        sum += (q + u) * kept_element(call, group, group->keys, key_at(group, at, j), d);
        if (xl)
            sum += (q + v) * (double)mn__element(group->relative, call->dtype,
                                                 relative_at(call, group, at, j) + d);
        if (shaw)
            sum += q * (double)group->shaw_keys[shaw_at(call, group, at, j) + d];
    }
    return sum;
}

/* (q . k + x) * scale + y */
static double unscaled_score(const mn__attention_call *call, const mn__key_group *group, query at,
                             int64_t j)
{
    double score = product(call, group, at, j) * (double)call->scale;
    if (group->position == MN__POSITION_ALIBI)
        score -= (double)group->slopes[at.h] * (double)distance_of(group, at, j);
    if (group->position == MN__POSITION_T5)
        score += (double)group->table[t5_at(call, group, at, j)];
    return score;
}

static double head_scale(const float *scales, int64_t h)
{
    return scales ? (double)scales[h] : 1.0;
}

static double score_of(const mn__attention_call *call, const mn__key_group *group, query at,
                       int64_t j)
{
    double score = unscaled_score(call, group, at, j) * head_scale(call->scales, at.h);
    if (group->bias)
        score +=
            (double)group->bias[at.b * group->bias_stride[0] + at.g * group->bias_stride[1] + j];
    return score;
}

static int64_t count_keys(const mn__attention_call *call)
{
    int64_t count = 0;
    for (int i = 0; i < call->groups; i++)
        count += call->group[i].count;
    return count;
}

/* p[0..count_keys) = the softmax of the query's scores, group after group;
 * returns the log-sum-exp. */
static double softmax_of(const mn__attention_call *call, query at, double *p)
{
    double sink = call->sink && !(call->queries_valid && at.t >= call->queries_valid[at.b])
                      ? (double)call->sink[at.h]
                      : -INFINITY;
    double largest = sink;
    bool sees = sink != -INFINITY; /* something, be it NaN */
    int64_t n = 0;
    for (int i = 0; i < call->groups; i++)
        for (int64_t j = 0; j < call->group[i].count; j++, n++) {
            const mn__key_group *group = &call->group[i];
            p[n] = is_visible(call, group, at, j) ? score_of(call, group, at, j) : -INFINITY;
            largest = p[n] > largest ? p[n] : largest;
            sees = sees || p[n] != -INFINITY;
        }
    if (!sees) {
        for (int64_t j = 0; j < n; j++)
            p[j] = 0;
        return -INFINITY;
    }
    double sum = exp(sink - largest);
    for (int64_t j = 0; j < n; j++)
        sum += exp(p[j] - largest);
    double lse = largest + log(sum);
    for (int64_t j = 0; j < n; j++)
        p[j] = exp(p[j] - lse);
    return lse;
}

/* ---- Forward --------------------------------------------------------------------------- */

/* value + Shaw's value */
static double value_element(const mn__attention_call *call, const mn__key_group *group, query at,
                            int64_t j, int64_t d)
{
    double value = kept_element(call, group, group->values, value_at(group, at, j), d);
    if (group->position == MN__POSITION_SHAW && group->shaw_values)
        value += (double)group->shaw_values[shaw_at(call, group, at, j) + d];
    return value;
}

/* weights = p times dropout's factors; they may be p itself. */
static void drop(const mn__attention_call *call, query at, double *weights, const double *p)
{
    int64_t units = 0, n = (at.b * call->H + at.h) * call->T + at.t;
    for (int i = 0; i < call->groups; i++)
        units += mn__dropout_units(call->group[i].count);
    int64_t unit = n * units;
    for (int i = 0; i < call->groups; i++) {
        int64_t count = call->group[i].count;
        for (int64_t j = 0; j < count; j++)
            weights[j] = p[j] * (double)mn__dropout_factor(&call->dropout, unit, j);
        unit += mn__dropout_units(count);
        weights += count;
        p += count;
    }
}

static double output_element(const mn__attention_call *call, query at, const double *weights,
                             int64_t d)
{
    double sum = 0;
    for (int i = 0; i < call->groups; weights += call->group[i].count, i++)
        for (int64_t j = 0; j < call->group[i].count; j++)
            if (weights[j] != 0)
                sum += weights[j] * value_element(call, &call->group[i], at, j, d);
    return sum;
}

static void add_masses(const mn__attention_call *call, query at, const double *p)
{
    for (int i = 0; i < call->groups; p += call->group[i].count, i++) {
        int64_t count = call->group[i].count;
        double mass = 0;
        for (int64_t j = 0; j < count; j++) {
            mass += p[j];
            if (call->key_mass[i])
                call->key_mass[i][(at.b * call->H + at.h) * count + j] += (float)p[j];
        }
        if (call->group_mass)
            call->group_mass[((at.b * call->H + at.h) * call->T + at.t) * call->groups + i] =
                (float)mass;
    }
}

static void clear(void *data, mn__dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        mn__element_set(data, dtype, i, 0);
}

static void forward(mn__queue *queue, const mn__attention_call *call)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    double *p = mn__queue_scratch(queue, count_keys(call) * (int64_t)sizeof *p);
    if (!p)
        return;
    for (int i = 0; i < call->groups; i++)
        if (call->key_mass[i])
            clear(call->key_mass[i], MN__F32, call->B * call->H * call->group[i].count);
    for (int64_t b = 0; b < call->B; b++)
        for (int64_t h = 0; h < call->H; h++)
            for (int64_t t = 0; t < call->T; t++) {
                query at = {b, t, h, h * call->G / call->H};
                call->lse[(b * call->H + h) * call->T + t] = (float)softmax_of(call, at, p);
                add_masses(call, at, p);
                drop(call, at, p, p);
                for (int64_t d = 0; d < call->D; d++)
                    mn__element_set(call->out, call->dtype,
                                    offset_of(call->out_stride, b, t, h) + d,
                                    output_element(call, at, p, d));
            }
    mn__arena_release(&queue->scratch, mark);
}

/* ---- Backward -------------------------------------------------------------------------- */

/* Sums in double; the gradients of queries, keys and values are rounded once,
 * at the end. */
struct sums {
    double *p, *weights;                                   /* [count_keys] */
    double *queries;                                       /* [D], of the query at hand */
    double *keys[MN__GROUPS_MAX], *values[MN__GROUPS_MAX]; /* [B, count, G, D] */
};

static bool open_sums(mn__queue *queue, const mn__attention_call *call, struct sums *sums)
{
    int64_t each = (int64_t)sizeof(double);
    sums->p = mn__queue_scratch(queue, count_keys(call) * each);
    sums->weights = mn__queue_scratch(queue, count_keys(call) * each);
    sums->queries = mn__queue_scratch(queue, call->D * each);
    bool complete = sums->p && sums->weights && sums->queries;
    for (int i = 0; i < call->groups; i++) {
        int64_t n = call->B * call->group[i].count * call->G * call->D;
        sums->keys[i] = mn__queue_scratch(queue, n * each);
        sums->values[i] = mn__queue_scratch(queue, n * each);
        complete = complete && sums->keys[i] && sums->values[i];
        for (int64_t j = 0; complete && j < n; j++)
            sums->keys[i][j] = sums->values[i][j] = 0;
    }
    return complete;
}

static int64_t sum_at(const mn__attention_call *call, int i, query at, int64_t j)
{
    return ((at.b * call->group[i].count + j) * call->G + at.g) * call->D;
}

static double out_gradient(const mn__attention_call *call, const mn__attention_gradients *gradients,
                           query at, int64_t d)
{
    return (double)mn__element(gradients->out, call->dtype,
                               offset_of(gradients->out_stride, at.b, at.t, at.h) + d);
}

static void add_float(float *sum, int64_t index, double x)
{
    if (sum)
        sum[index] += (float)x;
}

/* What the score ((q . k + x) * scale + y) * scales[h] + bias hands on. */
static void score_backward(const mn__attention_call *call, const mn__attention_gradients *gradients,
                           int i, query at, int64_t j, double dscore, struct sums *sums)
{
    const mn__key_group *group = &call->group[i];
    const struct mn__group_gradients *to = &gradients->group[i];
    add_float(to->bias, (at.b * call->G + at.g) * group->count + j, dscore);
    if (gradients->scales)
        add_float(gradients->scales, at.h, dscore * unscaled_score(call, group, at, j));
    double dy = dscore * head_scale(call->scales, at.h), dx = dy * (double)call->scale;
    if (group->position == MN__POSITION_T5)
        add_float(to->table, t5_at(call, group, at, j), dy);
    for (int64_t d = 0; d < call->D; d++) {
        double q = query_element(call, at, d);
        double k = (double)mn__element(group->keys, call->dtype, key_at(group, at, j) + d);
        double u = 0;
        if (group->position == MN__POSITION_XL) {
            int64_t r = relative_at(call, group, at, j) + d, c = at.h * call->D + d;
            double relative = (double)mn__element(group->relative, call->dtype, r);
            u = group->u ? (double)group->u[c] : 0.0;
            add_float(to->u, c, dx * k);
            add_float(to->v, c, dx * relative);
            add_float(to->relative, r, dx * (q + (group->v ? (double)group->v[c] : 0.0)));
            sums->queries[d] += dx * relative;
        }
        if (group->position == MN__POSITION_SHAW && group->shaw_keys) {
            int64_t a = shaw_at(call, group, at, j) + d;
            add_float(to->shaw_keys, a, dx * q);
            sums->queries[d] += dx * (double)group->shaw_keys[a];
        }
        sums->queries[d] += dx * k;
        sums->keys[i][sum_at(call, i, at, j) + d] += dx * (q + u);
    }
}

static void values_backward(const mn__attention_call *call,
                            const mn__attention_gradients *gradients, int i, query at, int64_t j,
                            double weight, struct sums *sums)
{
    const mn__key_group *group = &call->group[i];
    for (int64_t d = 0; d < call->D; d++) {
        double dout = out_gradient(call, gradients, at, d);
        sums->values[i][sum_at(call, i, at, j) + d] += weight * dout;
        if (group->position == MN__POSITION_SHAW && group->shaw_values)
            add_float(gradients->group[i].shaw_values, shaw_at(call, group, at, j) + d,
                      weight * dout);
    }
}

static void query_backward(const mn__attention_call *call, const mn__attention_gradients *gradients,
                           query at, struct sums *sums)
{
    double lse = softmax_of(call, at, sums->p), mean = 0;
    drop(call, at, sums->weights, sums->p);
    for (int64_t d = 0; d < call->D; d++) {
        mean += out_gradient(call, gradients, at, d) * output_element(call, at, sums->weights, d);
        sums->queries[d] = 0;
    }
    if (call->sink && lse > -INFINITY)
        add_float(gradients->sink, at.h, -exp((double)call->sink[at.h] - lse) * mean);
    const double *p = sums->p, *weights = sums->weights;
    for (int i = 0; i < call->groups; i++) {
        for (int64_t j = 0; j < call->group[i].count; j++) {
            if (!is_visible(call, &call->group[i], at, j))
                continue;
            double dp = 0;
            for (int64_t d = 0; d < call->D; d++)
                dp += out_gradient(call, gradients, at, d) *
                      value_element(call, &call->group[i], at, j, d);
            values_backward(call, gradients, i, at, j, weights[j], sums);
            score_backward(call, gradients, i, at, j, weights[j] * dp - p[j] * mean, sums);
        }
        p += call->group[i].count;
        weights += call->group[i].count;
    }
}

/* to (+)= from, rounded once. */
static void put(void *to, mn__dtype dtype, int64_t at, bool accumulate, const double *from,
                int64_t n)
{
    for (int64_t d = 0; d < n; d++)
        mn__element_set(to, dtype, at + d,
                        from[d] + (accumulate ? (double)mn__element(to, dtype, at + d) : 0.0));
}

static void put_keys_and_values(const mn__attention_call *call,
                                const mn__attention_gradients *gradients, int i,
                                const struct sums *sums)
{
    const struct mn__group_gradients *to = &gradients->group[i];
    for (int64_t b = 0; to->keys && b < call->B; b++)
        for (int64_t g = 0; g < call->G; g++)
            for (int64_t j = 0; j < call->group[i].count; j++) {
                int64_t from = sum_at(call, i, (query){.b = b, .g = g}, j);
                put(to->keys, call->dtype, offset_of(to->key_stride, b, j, g), to->accumulate,
                    sums->keys[i] + from, call->D);
                put(to->values, call->dtype, offset_of(to->value_stride, b, j, g), to->accumulate,
                    sums->values[i] + from, call->D);
            }
}

static void backward(mn__queue *queue, const mn__attention_call *call,
                     const mn__attention_gradients *gradients)
{
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    struct sums sums;
    if (!open_sums(queue, call, &sums))
        return;
    for (int64_t b = 0; b < call->B; b++)
        for (int64_t h = 0; h < call->H; h++)
            for (int64_t t = 0; t < call->T; t++) {
                query_backward(call, gradients, (query){b, t, h, h * call->G / call->H}, &sums);
                if (gradients->queries)
                    put(gradients->queries, call->dtype,
                        offset_of(gradients->query_stride, b, t, h), gradients->queries_accumulate,
                        sums.queries, call->D);
            }
    for (int i = 0; i < call->groups; i++)
        put_keys_and_values(call, gradients, i, &sums);
    mn__arena_release(&queue->scratch, mark);
}

void mn__plain_fill_attention(mn__kernels *kernels)
{
    kernels->attention = forward;
    kernels->attention_backward = backward;
}
