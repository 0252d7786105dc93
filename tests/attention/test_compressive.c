/* The Compressive Transformer: a naive twin in double precision, which holds the whole
 * document and knows nothing of states; what its paper's algorithm keeps invariant; and
 * the ways to get it wrong that published versions have shown. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "reader/session.h"
#include "support/model.h"

enum { V = 23, SEGMENT = 8, TOKENS = 61, WIDTH = 16, HEADS = 2, HEAD = 8 };

typedef test_model fixture;

static void open_model(fixture *f, const char *model, const char *attention)
{
    char recipe[512];
    snprintf(recipe, sizeof recipe,
             "model: {width: 16, heads: 2, initial_deviation: 0.3, %s}\nattention: {%s}\n", model,
             attention);
    test_model_open(f, recipe, V, SEGMENT, 3);
}

/* Weights of one name and size become the other's; every weight of `to` must be there,
 * but for those named so. */
static void copy_weights(fixture *to, const fixture *from, const char *but)
{
    for (int64_t i = 0; i < to->params.count; i++) {
        mn__param *param = to->params.items[i];
        const mn__param *same = mn__params_find(&from->params, param->name);
        if (!same && but && strstr(param->name, but))
            continue;
        assert_non_null(same);
        assert_int_equal(mn__tensor_bytes(&param->value), mn__tensor_bytes(&same->value));
        memcpy(param->value.data, same->value.data, (size_t)mn__tensor_bytes(&param->value));
        mn__param_changed(param);
    }
}

static float *weight(fixture *f, const char *name, int64_t *count)
{
    mn__param *param = mn__params_find(&f->params, name);
    assert_non_null(param);
    mn__param_changed(param);
    if (count)
        *count = mn__tensor_elements(&param->value);
    return param->value.data;
}

static int32_t token(int64_t t)
{
    return (int32_t)mn__random_below((mn__random_key){.seed = 8}, (uint64_t)t, V);
}

/* Losses of a text of `count` tokens, read in pieces; changed: a token that is another
 * one, or -1. */
static void read_text(fixture *f, int64_t count, int64_t piece, int64_t changed, float *losses)
{
    mn_error error;
    mn__session session;
    mn__session_options options = {.rows = 1, .capacity = TOKENS + 1, .compute = MN__F32};
    int32_t ids[TOKENS], targets[TOKENS];
    float weights[TOKENS];
    for (int64_t t = 0; t < count; t++) {
        ids[t] = t == changed ? (token(t) + 1) % V : token(t);
        targets[t] = token(t + 1);
        weights[t] = 1.0f;
    }
    succeed(mn__session_open(&session, f->decoder, &f->params, &options, &error), &error);
    for (int64_t t = 0, T; t < count; t += T) {
        T = count - t < piece ? count - t : piece;
        mn__stretch stretch = {.T = T,
                               .ids = ids + t,
                               .targets = targets + t,
                               .weights = weights,
                               .losses = losses + t};
        succeed(mn__session_read(&session, &stretch, &error), &error);
    }
    mn__session_close(&session);
}

static double difference(const float *a, const float *b, int64_t from, int64_t to)
{
    double largest = 0;
    for (int64_t i = from; i < to; i++)
        largest = fmax(largest, fabs((double)a[i] - (double)b[i]));
    return largest;
}

/* Sums of about a hundred terms in float, in two orders. */
static const double rounding = 5e-5;

static void expect_equal(const char *model_a, const char *a, const char *model_b, const char *b,
                         const char *but)
{
    fixture left, right;
    float first[TOKENS], second[TOKENS];
    open_model(&left, model_a, a);
    open_model(&right, model_b, b);
    copy_weights(&left, &right, but);
    read_text(&left, TOKENS, TOKENS, -1, first);
    read_text(&right, TOKENS, TOKENS, -1, second);
    assert_true(difference(first, second, 0, TOKENS) <= rounding);
    test_model_close(&left);
    test_model_close(&right);
}

/* ---- The naive twin -------------------------------------------------------------------------- */

typedef double row[WIDTH];

/* One layer, post-norm, bias-free, so that memory holds what attention reads. */
typedef struct twin {
    fixture *f;
    int64_t n_m, n_cm, rate;
    row *x;          /* [TOKENS]: before the document stand zeros */
    row *compressed; /* every one made so far, in order */
    int64_t made;
} twin;

static void multiply(fixture *f, const char *name, int64_t first, int64_t rows, int64_t columns,
                     const double *x, double *y)
{
    const float *W = weight(f, name, NULL);
    for (int64_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (int64_t c = 0; c < columns; c++)
            y[r] += (double)W[(first + r) * columns + c] * x[c];
    }
}

static double score(fixture *f, int64_t head, const double *q, const double *key, int64_t distance,
                    const char *relative, const char *bias)
{
    row R;
    double k[HEAD], r[HEAD], sum = 0;
    const float *u = weight(f, "layers.0.attention.content_bias", NULL) + head * HEAD;
    const float *v = weight(f, bias, NULL) + head * HEAD;
    for (int64_t c = 0; c < WIDTH; c++) {
        double angle = (double)distance * pow(10000, -2.0 * (double)(c % (WIDTH / 2)) / WIDTH);
        R[c] = c < WIDTH / 2 ? sin(angle) : cos(angle);
    }
    multiply(f, "layers.0.attention.key_value.weight", head * HEAD, HEAD, WIDTH, key, k);
    multiply(f, relative, head * HEAD, HEAD, WIDTH, R, r);
    for (int64_t n = 0; n < HEAD; n++)
        sum += (q[n] + (double)u[n]) * k[n] + (q[n] + (double)v[n]) * r[n];
    return sum / sqrt(HEAD);
}

static const double *row_at(const twin *t, int64_t at)
{
    static const row zero;
    return at < 0 ? zero : t->x[at];
}

/* Token i's output: over the compressed rows, and over the memory and the window so far. */
static void attend(const twin *t, int64_t i, double *y)
{
    int64_t start = i / SEGMENT * SEGMENT;
    double heads[WIDTH];
    for (int64_t head = 0; head < HEADS; head++) {
        double q[HEAD], value[HEAD], total = 0, *out = heads + head * HEAD;
        memset(out, 0, HEAD * sizeof *out);
        multiply(t->f, "layers.0.attention.query.weight", head * HEAD, HEAD, WIDTH, t->x[i], q);
        for (int64_t j = 0; j < t->n_cm + t->n_m + i - start + 1; j++) {
            static const row zero;
            bool packed = j < t->n_cm;
            int64_t slot = t->made - t->n_cm + j, at = start - t->n_m + j - t->n_cm;
            const double *key = packed ? slot < 0 ? zero : t->compressed[slot] : row_at(t, at);
            double s = packed
                           ? score(t->f, head, q, key, t->n_cm + i - start - j,
                                   "layers.0.attention.relative_compressed.weight",
                                   "layers.0.attention.position_bias_compressed")
                           : score(t->f, head, q, key, i - at, "layers.0.attention.relative.weight",
                                   "layers.0.attention.position_bias");
            multiply(t->f, "layers.0.attention.key_value.weight", WIDTH + head * HEAD, HEAD, WIDTH,
                     key, value);
            for (int64_t n = 0; n < HEAD; n++)
                out[n] += exp(s) * value[n];
            total += exp(s);
        }
        for (int64_t n = 0; n < HEAD; n++)
            out[n] /= total;
    }
    multiply(t->f, "layers.0.attention.out.weight", 0, WIDTH, WIDTH, heads, y);
}

/* After the window that ends before `end`: the oldest SEGMENT rows of memory and window. */
static void compress(twin *t, int64_t end)
{
    double group[8 * WIDTH];
    for (int64_t n = 0; n < SEGMENT / t->rate; n++) {
        for (int64_t i = 0; i < t->rate; i++)
            memcpy(group + i * WIDTH, row_at(t, end - t->n_m - SEGMENT + n * t->rate + i),
                   sizeof(row));
        multiply(t->f, "layers.0.attention.compress.weight", 0, WIDTH, t->rate * WIDTH, group,
                 t->compressed[t->made++]);
    }
}

static void embed(fixture *f, int32_t id, double *x)
{
    const float *table = weight(f, "embedding.weight", NULL);
    for (int64_t c = 0; c < WIDTH; c++)
        x[c] = (double)table[id * WIDTH + c];
}

/* -log softmax of the tied head, after the norm of the sum (gain 1, bias 0). */
static double nats(fixture *f, const double *sum, int32_t target)
{
    row hidden, e;
    double mean = 0, square = 0, total = 0, own = 0;
    for (int64_t c = 0; c < WIDTH; c++)
        mean += sum[c] / WIDTH;
    for (int64_t c = 0; c < WIDTH; c++)
        square += (sum[c] - mean) * (sum[c] - mean) / WIDTH;
    for (int64_t c = 0; c < WIDTH; c++)
        hidden[c] = (sum[c] - mean) / sqrt(square + 1e-5);
    for (int32_t v = 0; v < V; v++) {
        double logit = 0;
        embed(f, v, e);
        for (int64_t c = 0; c < WIDTH; c++)
            logit += hidden[c] * e[c];
        total += exp(logit);
        own = v == target ? logit : own;
    }
    return log(total) - own;
}

static void check_twin(int64_t n_m, int64_t n_cm, int64_t rate)
{
    fixture f;
    char attention[96];
    float got[TOKENS];
    static row x[TOKENS], compressed[TOKENS * SEGMENT];
    twin t = {&f, n_m, n_cm, rate, x, compressed, 0};
    snprintf(attention, sizeof attention, "type: compressive, memory: %d, compressed: %d, rate: %d",
             (int)n_m, (int)n_cm, (int)rate);
    open_model(&f,
               "depth: 1, norm_place: post, final_norm: false, block: [attention],"
               " norm_epsilon: 1e-5",
               attention);
    for (int64_t i = 0; i < TOKENS; i++)
        embed(&f, token(i), x[i]);
    read_text(&f, TOKENS, TOKENS, -1, got);
    for (int64_t i = 0; i < TOKENS; i++) {
        row sum;
        attend(&t, i, sum);
        for (int64_t c = 0; c < WIDTH; c++)
            sum[c] += x[i][c];
        double expected = nats(&f, sum, token(i + 1));
        if (!(fabs((double)got[i] - expected) <= rounding))
            fail_msg("token %d costs %g nats and should cost %g", (int)i, (double)got[i], expected);
        if ((i + 1) % SEGMENT == 0)
            compress(&t, i + 1);
    }
    test_model_close(&f);
}

static void test_twin(void **state)
{
    (void)state;
    check_twin(8, 6, 2);
    check_twin(12, 5, 3); /* a memory that is no whole number of windows */
    check_twin(3, 7, 8);  /* ... that is shorter than one */
    check_twin(0, 9, 4);
}

/* ---- Invariants of the algorithm ------------------------------------------------------------- */

/* 1. Without memories it is a causal Transformer with relative positions; 2. without the
 * compressed one, Transformer-XL. */
static void test_without_memories(void **state)
{
    (void)state;
    static const char *const models[] = {"depth: 2, norm: rms", "depth: 2, norm_place: post"};
    for (int i = 0; i < 2; i++) {
        expect_equal(models[i], "type: compressive, memory: 0, compressed: 0", models[i],
                     "type: xl, memory: 0", "position_bias_compressed");
        expect_equal(models[i], "type: compressive, memory: 13, compressed: 0, zero_memory: false",
                     models[i], "type: xl, memory: 13", "position_bias_compressed");
        expect_equal(models[i],
                     "type: compressive, memory: 9, compressed: 0, remember: inputs, clamp: 5",
                     models[i], "type: xl, memory: 9, zero_memory: true, clamp: 5",
                     "position_bias_compressed");
    }
}

/* 3. Windows that a growing memory holds give what one window of all gives. */
static void test_segments_of_one_document(void **state)
{
    (void)state;
    expect_equal(
        "depth: 2, norm: rms", "type: compressive, memory: 80, compressed: 8, zero_memory: false",
        "depth: 2, norm: rms",
        "type: compressive, memory: 80, compressed: 8, zero_memory: false, window: 80", NULL);
}

/* 4. Weights I / c make the convolution the mean. */
static void set_mean(fixture *f, const char *name, int64_t rate)
{
    int64_t count;
    float *W = weight(f, name, &count);
    for (int64_t i = 0; i < count; i++)
        W[i] = i / (rate * WIDTH) == i % WIDTH ? 1.0f / (float)rate : 0.0f;
}

static void test_convolution_as_mean(void **state)
{
    (void)state;
    fixture conv, mean;
    float a[TOKENS], b[TOKENS];
    open_model(&conv, "depth: 2, norm: rms",
               "type: compressive, memory: 8, compressed: 9, rate: 4, remember: inputs");
    open_model(&mean, "depth: 2, norm: rms",
               "type: compressive, memory: 8, compressed: 9, rate: 4, remember: inputs,"
               " compression: mean");
    copy_weights(&conv, &mean, "compress.weight");
    read_text(&conv, TOKENS, TOKENS, -1, a);
    read_text(&mean, TOKENS, TOKENS, -1, b);
    assert_true(difference(a, b, 0, TOKENS) > 1e-2); /* as drawn */
    set_mean(&conv, "layers.0.attention.compress.weight", 4);
    set_mean(&conv, "layers.1.attention.compress.weight", 4);
    read_text(&conv, TOKENS, TOKENS, -1, a);
    assert_true(difference(a, b, 0, TOKENS) <= rounding);
    test_model_close(&conv);
    test_model_close(&mean);
}

/* 5. A compression of one to one that changes nothing, without positions, is a longer
 * memory. */
static void test_rate_one(void **state)
{
    (void)state;
    fixture left, right;
    float a[TOKENS], b[TOKENS];
    static const char *const positions[] = {"relative.weight", "relative_compressed.weight"};
    open_model(&left, "depth: 2, norm: rms",
               "type: compressive, memory: 8, compressed: 16, rate: 1, zero_memory: false");
    open_model(&right, "depth: 2, norm: rms", "type: xl, memory: 24");
    for (int layer = 0; layer < 2; layer++) {
        char name[64];
        for (int i = 0; i < 2; i++) {
            int64_t count;
            snprintf(name, sizeof name, "layers.%d.attention.%s", layer, positions[i]);
            float *W = weight(&left, name, &count);
            memset(W, 0, (size_t)count * sizeof *W);
            if (i == 0)
                memset(weight(&right, name, NULL), 0, (size_t)count * sizeof *W);
        }
        snprintf(name, sizeof name, "layers.%d.attention.compress.weight", layer);
        set_mean(&left, name, 1);
    }
    for (int64_t i = 0; i < right.params.count; i++) {
        const mn__param *from = right.params.items[i];
        memcpy(weight(&left, from->name, NULL), from->value.data,
               (size_t)mn__tensor_bytes(&from->value));
    }
    read_text(&left, TOKENS, TOKENS, -1, a);
    read_text(&right, TOKENS, TOKENS, -1, b);
    assert_true(difference(a, b, 0, TOKENS) <= rounding);
    test_model_close(&left);
    test_model_close(&right);
}

/* ---- Losses ---------------------------------------------------------------------------------- */

/* The auxiliary loss of each of `windows` windows of one token repeated, or of the text. */
static void auxiliary_losses(fixture *f, int windows, bool repeated, double *losses)
{
    mn_error error;
    mn__tape tape;
    mn__states states;
    mn__tape_init(&tape, &f->params, MN__F32);
    succeed(mn__decoder_states_open(f->decoder, &states, 1, 0, MN__F32, &error), &error);
    for (int n = 0; n < windows; n++) {
        int32_t ids[SEGMENT];
        for (int64_t t = 0; t < SEGMENT; t++)
            ids[t] = token(repeated ? 0 : n * SEGMENT + t);
        mn__segment segment = {.B = 1, .T = SEGMENT};
        tape.recording = true;
        mn__decoder_forward(f->decoder, &tape, &segment, ids, &states);
        mn__var *sum = mn__segment_losses(&tape, &segment);
        succeed(mn__tape_status(&tape, &error), &error);
        losses[n] = sum ? (double)*(const float *)sum->value.data : NAN;
        mn__decoder_commit(f->decoder, &tape, &segment, &states, false);
        mn__tape_reset(&tape);
    }
    mn__states_close(&states);
    mn__tape_free(&tape);
}

/* 6. Of rows that are alike in groups of c the mean loses nothing; 7. nor does anything of
 * zeros, but of real rows the compression as drawn does. */
static void test_attention_loss(void **state)
{
    (void)state;
    fixture f;
    double losses[4];
    open_model(&f, "depth: 1, norm_place: post, block: [attention]",
               "type: compressive, memory: 8, compressed: 6, rate: 4");
    auxiliary_losses(&f, 4, false, losses);
    assert_true(losses[0] == 0);
    for (int n = 1; n < 4; n++)
        assert_true(losses[n] > 1e-3);
    set_mean(&f, "layers.0.attention.compress.weight", 4);
    auxiliary_losses(&f, 4, true, losses); /* every row is the same one */
    for (int n = 0; n < 4; n++)
        assert_true(losses[n] <= 1e-12); /* the square of rounding */
    test_model_close(&f);
}

/* ---- Sizes and reach ------------------------------------------------------------------------- */

/* 9. After t windows |cm| = min(n_cm, max(0, t N - n_m) / c). */
static void test_growth(void **state)
{
    (void)state;
    enum { N_M = 16, N_CM = 9, RATE = 2, WINDOWS = 6 };
    fixture f;
    mn_error error;
    mn__session session;
    mn__session_options options = {.rows = 1, .capacity = TOKENS, .compute = MN__F32};
    open_model(&f, "depth: 1",
               "type: compressive, memory: 16, compressed: 9, rate: 2, zero_memory: false");
    succeed(mn__session_open(&session, f.decoder, &f.params, &options, &error), &error);
    for (int64_t t = 1; t <= WINDOWS; t++) {
        int32_t ids[SEGMENT];
        for (int64_t i = 0; i < SEGMENT; i++)
            ids[i] = token(t * SEGMENT + i);
        succeed(mn__session_read(&session, &(mn__stretch){.T = SEGMENT, .ids = ids}, &error),
                &error);
        int64_t expected = t * SEGMENT < N_M ? 0 : (t * SEGMENT - N_M) / RATE;
        expected = expected < N_CM ? expected : N_CM;
        const mn__state *own = &session.states.layer[0];
        assert_int_equal(own->slot[1].value.size[1], N_CM);
        assert_int_equal(own->counter[2][0], expected);
        const float *cm = own->slot[1].value.data; /* the newest stand last */
        for (int64_t i = 0; i < N_CM * WIDTH; i++)
            assert_true((cm[i] != 0) == (i / WIDTH >= N_CM - expected));
    }
    mn__session_close(&session);
    test_model_close(&f);
}

/* 10. A token changes nothing before it, something as long as a memory holds it, and
 * nothing from l (n_m + c n_cm) + n_s tokens on. */
static void test_reach(void **state)
{
    (void)state;
    fixture f;
    float base[TOKENS], changed[TOKENS];
    enum { AT = 3, N_M = 8, N_CM = 6, RATE = 4, HELD = N_M + RATE * N_CM };
    open_model(&f, "depth: 1, norm: rms", "type: compressive, memory: 8, compressed: 6, rate: 4");
    read_text(&f, TOKENS, TOKENS, -1, base);
    read_text(&f, TOKENS, TOKENS, AT, changed);
    assert_true(difference(base, changed, 0, AT) == 0);
    for (int64_t from = SEGMENT; from < HELD; from += SEGMENT)
        assert_true(difference(base, changed, from, from + SEGMENT) > 1e-5);
    assert_true(difference(base, changed, HELD + SEGMENT, TOKENS) == 0);
    test_model_close(&f);
}

/* 11. A pool of a constant is that constant. */
static void test_pools_of_a_constant(void **state)
{
    (void)state;
    static const char *const pools[] = {"max", "mean", "max, extra: 3", "mean, extra: 2",
                                        "most_used"};
    for (int i = 0; i < 5; i++) {
        fixture f;
        mn_error error;
        mn__session session;
        mn__session_options options = {.rows = 1, .capacity = TOKENS, .compute = MN__F32};
        char attention[128];
        int32_t ids[5 * SEGMENT];
        snprintf(attention, sizeof attention,
                 "type: compressive, memory: 8, compressed: 4, rate: 2, compression: %s", pools[i]);
        open_model(&f, "depth: 1, norm_place: post", attention);
        succeed(mn__session_open(&session, f.decoder, &f.params, &options, &error), &error);
        for (int64_t t = 0; t < 5 * SEGMENT; t++)
            ids[t] = token(0);
        succeed(mn__session_read(&session, &(mn__stretch){.T = 5 * SEGMENT, .ids = ids}, &error),
                &error);
        const float *x = weight(&f, "embedding.weight", NULL) + token(0) * WIDTH;
        const float *cm = session.states.layer[0].slot[1].value.data;
        for (int64_t n = 0; n < 4 * WIDTH; n++)
            assert_float_equal(cm[n], x[n % WIDTH], 1e-6);
        mn__session_close(&session);
        test_model_close(&f);
    }
}

/* What has been used most stays: rows of which one token is read by every other. */
static void test_most_used_are_rows_of_memory(void **state)
{
    (void)state;
    fixture f;
    mn_error error;
    mn__session session;
    mn__session_options options = {.rows = 1, .capacity = TOKENS, .compute = MN__F32};
    int32_t ids[3 * SEGMENT];
    open_model(&f, "depth: 1, norm_place: post",
               "type: compressive, memory: 8, compressed: 4, rate: 2, compression: most_used");
    succeed(mn__session_open(&session, f.decoder, &f.params, &options, &error), &error);
    for (int64_t t = 0; t < 2 * SEGMENT; t++)
        ids[t] = token(t);
    succeed(mn__session_read(&session, &(mn__stretch){.T = 2 * SEGMENT, .ids = ids}, &error),
            &error);
    /* The first window has left: four of its rows, in the order of their places. */
    const float *cm = session.states.layer[0].slot[1].value.data;
    const float *table = weight(&f, "embedding.weight", NULL);
    int64_t at = 0;
    for (int64_t n = 0; n < 4; n++, at++)
        while (memcmp(cm + n * WIDTH, table + token(at) * WIDTH, WIDTH * sizeof *cm))
            assert_true(++at < SEGMENT);
    mn__session_close(&session);
    test_model_close(&f);
}

/* ---- Where attention goes -------------------------------------------------------------------- */

struct masses {
    int64_t told;
    double sum; /* of the segment's regions so far */
};

static void add_mass(void *user, const mn__attention *layer, const mn__segment *segment,
                     const mn__mass_region *region)
{
    struct masses *masses = user;
    static const char *const names[] = {"compressed", "memory", "window"};
    assert_string_equal(region->name, names[masses->told % 3]);
    assert_int_equal(region->count, masses->told % 3 == 0 ? 5 : masses->told % 3 == 1 ? 12 : 8);
    assert_int_equal(region->full, 16 + 3 * 8); /* 2 rows a window */
    for (int64_t h = 0; h < layer->H; h++)
        for (int64_t k = 0; k < region->count; k++)
            masses->sum += (double)region->mass[h * region->stride + k];
    if (++masses->told % 3 == 0) { /* every query of every head gives 1 */
        assert_float_equal(masses->sum, (double)(layer->H * segment->T), 1e-4);
        masses->sum = 0;
    }
}

static void test_masses(void **state)
{
    (void)state;
    fixture f;
    mn_error error;
    mn__session session;
    struct masses masses = {0};
    const mn__watch watch = {.user = &masses, .mass = add_mass};
    mn__session_options options = {
        .rows = 1, .capacity = TOKENS, .compute = MN__F32, .watch = &watch};
    int32_t ids[4 * SEGMENT];
    for (int64_t t = 0; t < 4 * SEGMENT; t++)
        ids[t] = token(t);
    open_model(&f, "depth: 2, norm: rms", "type: compressive, memory: 12, compressed: 5");
    succeed(mn__session_open(&session, f.decoder, &f.params, &options, &error), &error);
    succeed(mn__session_read(&session, &(mn__stretch){.T = 4 * SEGMENT, .ids = ids}, &error),
            &error);
    assert_int_equal(masses.told, 4 * 2 * 3);
    mn__session_close(&session);
    test_model_close(&f);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* Rows whose memories lose different numbers of entries keep out of each other's way. */
static void check_rows(const char *attention)
{
    enum { LATER = 5 * SEGMENT };
    fixture f;
    mn_error error;
    mn__session session;
    mn__session_options options = {.rows = 2, .capacity = TOKENS, .compute = MN__F32};
    const int64_t first_alone[] = {SEGMENT, 0};
    int32_t ids[2 * LATER], targets[2 * LATER];
    float weights[2 * LATER], losses[2 * LATER] = {0}, alone[TOKENS];
    open_model(&f, "depth: 2, norm: rms", attention);
    for (int layer = 0; layer < 2; layer++) { /* attention that chooses */
        char name[64];
        int64_t count;
        snprintf(name, sizeof name, "layers.%d.attention.query.weight", layer);
        float *W = weight(&f, name, &count);
        for (int64_t i = 0; i < count; i++)
            W[i] *= 8;
    }
    for (int64_t i = 0; i < 2 * LATER; i++) { /* row 0 reads another part of the text */
        ids[i] = token(i < LATER ? 100 + i : i - LATER);
        targets[i] = token(i < LATER ? 101 + i : i - LATER + 1);
        weights[i] = 1.0f;
    }
    read_text(&f, LATER, LATER, -1, alone);
    succeed(mn__session_open(&session, f.decoder, &f.params, &options, &error), &error);
    succeed(mn__session_read(
                &session, &(mn__stretch){.T = SEGMENT, .ids = ids, .valid = first_alone}, &error),
            &error);
    succeed(
        mn__session_read(
            &session,
            &(mn__stretch){
                .T = LATER, .ids = ids, .targets = targets, .weights = weights, .losses = losses},
            &error),
        &error);
    assert_true(difference(losses + LATER, alone, 0, LATER) <= rounding);
    mn__session_close(&session);
    test_model_close(&f);
}

static void test_rows(void **state)
{
    (void)state;
    check_rows("type: compressive, memory: 6, compressed: 24, rate: 1, zero_memory: false,"
               " compression: most_used");
    check_rows("type: compressive, memory: 3, compressed: 12, rate: 2, zero_memory: false");
    check_rows("type: compressive, memory: 11, compressed: 4, compression: max, extra: 1");
}

/* ---- Options --------------------------------------------------------------------------------- */

static void expect_error(const char *attention, const char *message)
{
    mn_error error;
    char recipe[256];
    fixture f;
    snprintf(recipe, sizeof recipe, "model: {width: 16, heads: 2}\nattention: {%s}\n", attention);
    assert_int_equal(test_model_try(&f, recipe, V, SEGMENT, 1, &error), MN_ERROR_OPTION);
    if (!strstr(error.message, message))
        fail_msg("`%s`, not `%s`", error.message, message);
}

/* A compression that nothing would train, and ones that give nothing. */
static void test_refusals(void **state)
{
    (void)state;
    expect_error("type: compressive, loss: none", "would never be trained");
    expect_error("type: compressive, rate: 9", "a window of 8 tokens gives no compressed memory");
    expect_error("type: compressive, compression: dilated, dilations: 3",
                 "a window of 8 tokens gives no compressed memory");
    expect_error("type: compressive, compression: dilated, dilations: 1, loss: autoencoding",
                 "is for compression: conv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_without_memories),
        cmocka_unit_test(test_segments_of_one_document),
        cmocka_unit_test(test_convolution_as_mean),
        cmocka_unit_test(test_rate_one),
        cmocka_unit_test(test_attention_loss),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_reach),
        cmocka_unit_test(test_pools_of_a_constant),
        cmocka_unit_test(test_most_used_are_rows_of_memory),
        cmocka_unit_test(test_masses),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
