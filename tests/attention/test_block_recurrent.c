/* The Block-Recurrent Transformer: a twin in plain loops and double precision, which
 * also knows the mistakes that programs of this paper made, so that each is seen to
 * matter; and what must hold of the layer whatever its weights, by properties. (The
 * gradients' numbers are held to PyTorch's in tests/golden, the laws of state in
 * test_laws.c, the buckets of T5's bias in tests/golden/test_attention.c.) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive_loops.h"
#include "attention/recurrent.h"
#include "attention/types.h"
#include "support/model.h"

enum {
    C = LOOPS_C,
    H = LOOPS_H,
    D = LOOPS_D,
    E = LOOPS_E,
    W = LOOPS_W,
    S = LOOPS_S,
    F = LOOPS_F,
    TOKENS = LOOPS_TOKENS,
    ROWS = 3
};
enum { STATE = 2 };               /* the slot of c */
static const double bound = 3e-5; /* some 6 roundings of sums of up to 50 terms, by 7 blocks */

static const char *const gates[] = {"fixed", "lstm", "full"};
static const char *const forms[] = {"skip", "dual", "single"};

/* ---- A layer ------------------------------------------------------------------------ */

typedef struct fixture {
    mn__arena arena;
    mn__device device;
    mn__params params;
    mn__attention layer;
    mn__states states;
    mn__tape tape;
    int64_t rows;
} fixture;

static mn__param *find(const fixture *f, const char *name)
{
    mn__param *param = mn__params_find(&f->params, name);
    if (!param)
        fail_msg("no %s", name);
    return param;
}

static float *values(const fixture *f, const char *name)
{
    mn__param *param = find(f, name);
    mn__param_changed(param);
    return param->value.data;
}

static void set_all(const fixture *f, const char *name, float value)
{
    float *to = values(f, name);
    for (int64_t i = 0; i < mn__tensor_elements(&find(f, name)->value); i++)
        to[i] = value;
}

/* A layer of `rows` rows. Vectors that begin as constants get values of their own. */
static void open_type(fixture *f, const mn__attention_type *type, const char *options, int64_t rows,
                      bool bias)
{
    mn_error error;
    mn__yaml_node *node;
    char text[160];
    *f = (fixture){.rows = rows};
    mn__arena_init(&f->arena, 0);
    succeed(mn__device_open(&f->device, &error), &error);
    mn__params_init(&f->params, &f->device, 3);
    mn__attention *layer = &f->layer;
    *layer = (mn__attention){.type = type,
                             .C = C,
                             .H = H,
                             .G = H,
                             .D = D,
                             .segment = 2 * W,
                             .bias = bias,
                             .out_bias = bias,
                             .pre_norm = true,
                             .deviation = 0.4f,
                             .first = layer};
    snprintf(text, sizeof text, "{window: %d, %s}", W, options);
    succeed(mn__yaml_parse(&f->arena, "options", text, (int64_t)strlen(text), &node, &error),
            &error);
    layer->options = mn__arena_calloc(&f->arena, 1, type->options_bytes);
    succeed(mn__options_read(type->options, node, NULL, layer->options, &f->arena, &error), &error);
    succeed(mn__norm_create(&layer->norm, &f->params, "norm", MN__NORM_RMS, C, 1e-6f, &error),
            &error);
    succeed(type->check(layer, &error), &error);
    succeed(type->create(layer, &f->params, "a", &error), &error);
    for (int64_t i = 0; i < f->params.count; i++) {
        mn__param *param = f->params.items[i];
        mn__random_key key = {.seed = 2, .operation = (uint32_t)i};
        float *value = param->value.data;
        for (int64_t n = 0; param->value.rank == 1 && n < param->value.size[0]; n++)
            value[n] += 0.3f * mn__random_normal(key, (uint64_t)n);
    }
    succeed(mn__params_prepare_gradients(&f->params, &error), &error);
    mn__tape_init(&f->tape, &f->params, MN__F32);
}

static void open_states(fixture *f)
{
    mn_error error;
    succeed(mn__states_open(&f->states, &f->device, MN__F32, f->rows, 1, &error), &error);
    succeed(f->layer.type->create_state(&f->layer, &f->states, &f->states.layer[0], 0, &error),
            &error);
}

static void open(fixture *f, const char *options)
{
    char text[128];
    snprintf(text, sizeof text, "states: %d, buckets: 6, far: 8%s%s", S, *options ? ", " : "",
             options);
    open_type(f, &mn__attention_block_recurrent, text, 1, false);
    open_states(f);
}

static void close(fixture *f)
{
    mn__tape_free(&f->tape);
    mn__states_close(&f->states);
    mn__params_free(&f->params);
    mn__device_close(&f->device);
    mn__arena_free(&f->arena);
}

static float *state_of(fixture *f, int64_t row)
{
    return (float *)f->states.layer[0].slot[STATE].value.data + row * S * C;
}

/* One segment of all rows: x [rows, T, C], valid [rows] or NULL. The result dies with the
 * tape's reset. */
static mn__var *segment(fixture *f, mn__var *x, const int64_t *valid, const bool *start, bool live)
{
    mn_error error;
    mn__pending pending = {{0}};
    mn__segment seg = {.B = f->rows, .T = x->value.size[1], .valid = valid, .start = start};
    if (start && f->tape.recording)
        mn__states_start_live(&f->states, &f->tape, start);
    else if (start)
        mn__states_start(&f->states, start);
    mn__var *y =
        f->layer.type->forward(&f->layer, &f->tape, &seg, x, &f->states.layer[0], &pending);
    succeed(mn__tape_status(&f->tape, &error), &error);
    f->layer.type->commit(&f->layer, &f->tape, &seg, &f->states.layer[0], &pending, live);
    if (!live)
        mn__states_cut(&f->states);
    succeed(mn__tape_status(&f->tape, &error), &error);
    return y;
}

static mn__tensor tensor(float *data, int64_t rows, int64_t T)
{
    return mn__tensor_of(data, MN__F32, 3, (int64_t[]){rows, T, C});
}

/* Reads one row's tokens from .. to in pieces. */
static void read_text(fixture *f, float *x, int64_t from, int64_t to, int64_t piece, float *y)
{
    for (int64_t t = from, T; t < to; t += T) {
        T = to - t < piece ? to - t : piece;
        mn__var *in = mn__tape_constant(&f->tape, tensor(x + t * C, 1, T));
        mn__var *out = segment(f, in, NULL, NULL, false);
        memcpy(y + t * C, out->value.data, (size_t)(T * C) * sizeof *y);
        mn__tape_reset(&f->tape);
    }
}

static void make_text(float *x, uint32_t which, int64_t tokens)
{
    for (int64_t i = 0; i < tokens * C; i++)
        x[i] = mn__random_normal((mn__random_key){.seed = 9, .operation = which}, (uint64_t)i);
}

static double difference(const float *a, const float *b, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        largest = d > largest || isnan(d) ? d : largest;
    }
    return largest;
}

/* ---- The twin ------------------------------------------------------------------------- */

static double state_difference(fixture *f, const loops *w)
{
    double largest = 0;
    for (int i = 0; i < S * C; i++)
        largest = fmax(largest, fabs((double)state_of(f, 0)[i] - w->c[i / C][i % C]));
    return largest;
}

static void check_twin(int gate, int form)
{
    static loops w;
    fixture f;
    char options[64];
    float x[TOKENS * C], y[TOKENS * C], expected[TOKENS * C];
    snprintf(options, sizeof options, "gate: %s, form: %s", gates[gate], forms[form]);
    open(&f, options);
    make_text(x, 0, TOKENS);
    for (int64_t piece = 1; piece <= TOKENS; piece += 13) {
        mn__states_start(&f.states, NULL);
        read_text(&f, x, 0, TOKENS, piece, y);
        for (loops_mistake m = LOOPS_RIGHT; m < LOOPS_MISTAKES; m++) {
            w = (loops){.params = &f.params, .mistake = m, .gate = gate, .form = form};
            loops_run(&w, x, expected);
            double outputs = difference(y, expected, TOKENS * C);
            double largest = fmax(outputs, state_difference(&f, &w));
            if (m == LOOPS_RIGHT ? largest > bound : outputs < 100 * bound)
                fail_msg("gate %s, form %s, mistake: %s: differs by %g and %g", gates[gate],
                         forms[form], loops_mistakes[m], outputs, largest);
        }
    }
    close(&f);
}

static void test_twin(void **state)
{
    (void)state;
    for (int gate = 0; gate < 3; gate++)
        for (int form = 0; form < 3; form++)
            check_twin(gate, form);
}

/* ---- Properties, by the numbers of the paper's list of invariants ----------------------- */

/* Equal weights for a window of the same options. */
static void open_window(fixture *window, const fixture *f, const char *options)
{
    char text[128];
    snprintf(text, sizeof text, "buckets: 6, far: 8, strict: true, t5: true, normalise: true%s%s",
             *options ? ", " : "", options);
    open_type(window, &mn__attention_window, text, 1, false);
    open_states(window);
    for (int64_t i = 0; i < window->params.count; i++) {
        mn__tensor *to = &window->params.items[i]->value;
        const mn__param *from = find(f, window->params.items[i]->name);
        memcpy(to->data, from->value.data, (size_t)mn__tensor_bytes(to));
        mn__param_changed(window->params.items[i]);
    }
}

/* 1 and 8: without states, or where nothing of them reaches the output, it is the window. */
static void test_window_without_states(void **state)
{
    (void)state;
    static const char *const options[] = {"recurrent: false", ""};
    float x[TOKENS * C], y[TOKENS * C], expected[TOKENS * C];
    make_text(x, 0, TOKENS);
    for (int i = 0; i < 2; i++) {
        fixture f, window;
        open(&f, options[i]);
        open_window(&window, &f, "zero_memory: true");
        if (i == 1)
            set_all(&f, "a.cross_out.weight", 0);
        read_text(&f, x, 0, TOKENS, 9, y);
        read_text(&window, x, 0, TOKENS, 9, expected);
        assert_memory_equal(y, expected, sizeof y);
        close(&f);
        close(&window);
    }
}

/* 13: a token that sees nothing reads nothing, not a mean of what is not there. */
static void test_nothing_seen(void **state)
{
    (void)state;
    fixture f;
    float x[C], y[C];
    open(&f, "recurrent: false, zero_memory: false");
    make_text(x, 0, 1);
    read_text(&f, x, 0, 1, 1, y);
    for (int i = 0; i < C; i++)
        assert_true(y[i] == 0.0f);
    close(&f);
}

/* 3: a fixed gate that is all old keeps the states, and all new forgets them; and with a
 * constant u, c_t = g^t c_0 + (1 - g^t) u. */
static void test_fixed_gate(void **state)
{
    (void)state;
    enum { BLOCKS = 6 };
    float x[BLOCKS * W * C], y[BLOCKS * W * C];
    make_text(x, 0, BLOCKS * W);
    for (int i = 0; i < 3; i++) {
        static const float biases[] = {40, -40, 0.4f};
        fixture f;
        open_type(&f, &mn__attention_block_recurrent, "states: 5", 1, true);
        open_states(&f);
        set_all(&f, "a.state.attention_gate.bias", biases[i]);
        set_all(&f, "a.state.out.weight", 0);
        const float *u = values(&f, "a.state.out.bias"), *c0 = values(&f, "a.state.initial");
        double g = pow(1 / (1 + exp(-(double)biases[i])), BLOCKS);
        read_text(&f, x, 0, BLOCKS * W, BLOCKS * W, y);
        for (int n = 0; n < S * C; n++) {
            double c = g * (double)c0[n] + (1 - g) * (double)u[n % C];
            assert_true(fabs((double)state_of(&f, 0)[n] - c) <= 1e-6);
        }
        close(&f);
    }
}

/* 4: the LSTM's gate begins mostly closed to what is new: sigmoid(1) and sigmoid(-1). */
static void test_lstm_gate(void **state)
{
    (void)state;
    fixture f;
    float x[W * C], y[W * C];
    open_type(&f, &mn__attention_block_recurrent, "states: 5, gate: lstm", 1, true);
    open_states(&f);
    set_all(&f, "a.state.out.weight", 0);
    for (int i = 0; i < 2; i++) {
        set_all(&f,
                i ? "a.state.attention_gate.input.weight" : "a.state.attention_gate.forget.weight",
                0);
        set_all(&f, i ? "a.state.attention_gate.input.bias" : "a.state.attention_gate.forget.bias",
                0);
    }
    const float *u = values(&f, "a.state.out.bias"), *c0 = values(&f, "a.state.initial");
    make_text(x, 0, W);
    read_text(&f, x, 0, W, W, y);
    for (int n = 0; n < S * C; n++) {
        double c = 0.7310585786 * (double)c0[n] + 0.2689414214 * (double)u[n % C];
        assert_true(fabs((double)state_of(&f, 0)[n] - c) <= 1e-6);
    }
    close(&f);
}

/* The largest difference between two states of a row. */
static double spread(fixture *f)
{
    double largest = 0;
    for (int s = 1; s < S; s++)
        largest = fmax(largest, difference(state_of(f, 0), state_of(f, 0) + s * C, C));
    return largest;
}

/* 5: states that begin alike stay alike, and only their ids tell them apart. */
static void test_ids_part_states(void **state)
{
    (void)state;
    float x[TOKENS * C], y[TOKENS * C];
    make_text(x, 0, TOKENS);
    for (int with = 0; with < 2; with++) {
        fixture f;
        open(&f, "form: dual, gate: lstm");
        float *initial = values(&f, "a.state.initial");
        for (int n = C; n < S * C; n++)
            initial[n] = initial[n % C];
        if (!with)
            set_all(&f, "a.state.ids", 0);
        mn__states_start(&f.states, NULL);
        read_text(&f, x, 0, TOKENS, TOKENS, y);
        if (with)
            assert_true(spread(&f) > 0.01);
        else /* rows of one product, perhaps of other tiles */
            assert_true(spread(&f) <= 1e-6);
        close(&f);
    }
}

/* 6: the order of the states means nothing. */
static void test_states_permuted(void **state)
{
    (void)state;
    static const char *const names[] = {"a.state.initial", "a.state.ids"};
    fixture f;
    float x[TOKENS * C], y[TOKENS * C], again[TOKENS * C], before[S * C];
    open(&f, "form: single");
    make_text(x, 0, TOKENS);
    read_text(&f, x, 0, TOKENS, TOKENS, y);
    memcpy(before, state_of(&f, 0), sizeof before);
    for (int i = 0; i < 2; i++) { /* state s becomes s - 1 */
        float *value = values(&f, names[i]), first[C];
        memcpy(first, value, sizeof first);
        memmove(value, value + C, (S - 1) * C * sizeof *value);
        memcpy(value + (S - 1) * C, first, sizeof first);
    }
    mn__states_start(&f.states, NULL);
    read_text(&f, x, 0, TOKENS, TOKENS, again);
    assert_true(difference(y, again, TOKENS * C) <= bound);
    assert_true(difference(state_of(&f, 0), before + C, (S - 1) * C) <= bound);
    assert_true(difference(state_of(&f, 0), before, S * C) > 0.01);
    close(&f);
}

/* 7: a block's tokens move the states that the next block reads, not those that they read
 * themselves; beyond the window a token is seen through the states alone. */
static void test_reach(void **state)
{
    (void)state;
    static const char *const options[] = {"", "recurrent: false"};
    float x[TOKENS * C], y[TOKENS * C], again[TOKENS * C];
    for (int i = 0; i < 2; i++) {
        fixture f;
        open(&f, options[i]);
        make_text(x, 0, TOKENS);
        read_text(&f, x, 0, TOKENS, TOKENS, y);
        x[0] += 1; /* block 0; block 5 begins beyond 4 windows of it */
        mn__states_start(&f.states, NULL);
        read_text(&f, x, 0, TOKENS, TOKENS, again);
        double far = difference(y + 5 * W * C, again + 5 * W * C, W * C);
        assert_true(i == 0 ? far > 1e-4 : far == 0);
        if (i == 0) { /* what tokens read of the states alone */
            set_all(&f, "a.out.weight", 0);
            mn__states_start(&f.states, NULL);
            read_text(&f, x, 0, TOKENS, TOKENS, y);
            x[W * C] += 1;
            mn__states_start(&f.states, NULL);
            read_text(&f, x, 0, TOKENS, TOKENS, again);
            assert_true(difference(y, again, W * C) == 0);
            assert_true(difference(y + W * C, again + W * C, C) > 1e-4); /* its own query */
            assert_true(difference(y + (W + 1) * C, again + (W + 1) * C, (W - 1) * C) == 0);
            assert_true(difference(y + 2 * W * C, again + 2 * W * C, W * C) > 1e-4);
        }
        close(&f);
    }
}

static double gradient_of(const fixture *f, const char *name)
{
    const mn__param *param = find(f, name);
    double sum = 0;
    for (int64_t i = 0; param->gradient_set && i < mn__tensor_elements(&param->value); i++)
        sum += fabs((double)param->gradient[i]);
    return sum;
}

static double sum_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)x[i]);
    return sum;
}

static mn__var *dot(fixture *f, mn__var *y, const mn__tensor *d)
{
    mn__var *product = mn__op_multiply(&f->tape, y, mn__tape_constant(&f->tape, *d));
    return mn__op_sum(&f->tape, product);
}

/* 9: gradient reaches block 0 from block 7 of its segment; from another segment only where
 * that is unrolled with it; and the initial states only where a document starts. */
static void test_gradients(void **state)
{
    (void)state;
    enum { T = 8 * W };
    mn_error error;
    float x[2 * T * C], weights[T * C] = {0};
    const bool yes = true;
    make_text(x, 0, 2 * T);
    make_text(weights + 7 * W * C, 1, W); /* the last block's loss */
    mn__tensor d = tensor(weights, 1, T);
    for (int segments = 0; segments < 3; segments++) {
        fixture f;
        bool live = segments == 2;
        open(&f, "");
        f.tape.recording = true;
        mn__params_clear_gradients(&f.params);
        mn__var *first = mn__tape_input(&f.tape, tensor(x, 1, T));
        mn__var *y = segment(&f, first, NULL, &yes, live);
        if (segments) {
            mn__var *second = mn__tape_constant(&f.tape, tensor(x + T * C, 1, T));
            y = segment(&f, second, NULL, NULL, false);
        }
        succeed(mn__tape_backward(&f.tape, dot(&f, y, &d), 1, &error), &error);
        double reached = first->gradient ? sum_of(first->gradient, W * C) : 0;
        assert_true(segments == 1 ? reached == 0 : reached > 1e-6);
        double initial = gradient_of(&f, "a.state.initial");
        assert_true(segments == 1 ? initial == 0 : initial > 1e-6);
        close(&f);
    }
}

/* 10: a row that starts a document has the initial states, and the others keep theirs. */
static void test_row_starts(void **state)
{
    (void)state;
    fixture f;
    float x[2 * TOKENS * C], kept[S * C];
    open_type(&f, &mn__attention_block_recurrent, "states: 5", 2, false);
    open_states(&f);
    make_text(x, 0, 2 * TOKENS);
    segment(&f, mn__tape_constant(&f.tape, tensor(x, 2, TOKENS)), NULL, NULL, false);
    memcpy(kept, state_of(&f, 1), sizeof kept);
    assert_true(difference(state_of(&f, 0), values(&f, "a.state.initial"), S * C) > 0.01);
    mn__states_start(&f.states, (const bool[]){true, false});
    assert_memory_equal(state_of(&f, 0), values(&f, "a.state.initial"), S * C * sizeof(float));
    assert_memory_equal(state_of(&f, 1), kept, sizeof kept);
    close(&f);
}

/* 11: dropout is of what tokens read; the states are moved by all. And the forms' sizes. */
static void test_dropout_spares_states(void **state)
{
    (void)state;
    fixture f;
    float x[TOKENS * C], y[2][TOKENS * C], moved[2][S * C];
    make_text(x, 0, TOKENS);
    for (int rate = 0; rate < 2; rate++) {
        open(&f, rate ? "form: dual, dropout: 0.4" : "form: dual");
        f.layer.dropout = 0.4f; /* the blocks' */
        f.tape.training = true;
        for (uint64_t seed = 0; seed < 2; seed++) {
            f.tape.random = (mn__random_key){.seed = seed};
            mn__states_start(&f.states, NULL);
            read_text(&f, x, 0, TOKENS, TOKENS, y[seed]);
            memcpy(moved[seed], state_of(&f, 0), sizeof moved[0]);
        }
        assert_memory_equal(moved[0], moved[1], sizeof moved[0]);
        assert_true((difference(y[0], y[1], TOKENS * C) > 0.01) == (rate > 0));
        close(&f);
    }
    int64_t sizes[3];
    for (int form = 0; form < 3; form++) {
        char options[32];
        snprintf(options, sizeof options, "form: %s", forms[form]);
        open(&f, options);
        sizes[form] = mn__params_elements(&f.params);
        close(&f);
    }
    assert_int_equal(sizes[1] - sizes[0], 2 * F * C + 2 * C); /* feed-forward, norm, gate */
    assert_int_equal(sizes[2] - sizes[0], F * (2 * E + C) - 2 * E * C);
}

/* ---- Rows at different places of their blocks ----------------------------------------- */

/* 2: rows are independent: one batch of rows that have read 0, 3 and 6 tokens, with
 * padding, is as each row by itself: outputs, gradients and final states. */
static void test_rows_apart(void **state)
{
    (void)state;
    enum { T = 11 };
    static const int64_t before[ROWS] = {0, 3, 6}, valid[ROWS] = {11, 7, 9};
    mn_error error;
    fixture all, one;
    float x[ROWS * TOKENS * C], d[ROWS * T * C], prefix[ROWS * 6 * C], rest[ROWS * T * C];
    float states[ROWS * S * C], *sums;
    make_text(x, 0, ROWS * TOKENS);
    make_text(d, 1, ROWS * T);
    for (int b = 0; b < ROWS; b++) {
        memcpy(prefix + b * 6 * C, x + b * TOKENS * C, 6 * C * sizeof *x);
        memcpy(rest + b * T * C, x + (b * TOKENS + before[b]) * C, T * C * sizeof *x);
        memset(d + (b * T + valid[b]) * C, 0, (size_t)((T - valid[b]) * C) * sizeof *d);
    }
    open_type(&all, &mn__attention_block_recurrent, "states: 5, form: dual", ROWS, false);
    open_states(&all);
    segment(&all, mn__tape_constant(&all.tape, tensor(prefix, ROWS, 6)), before, NULL, false);
    mn__tape_reset(&all.tape);
    all.tape.recording = true;
    mn__params_clear_gradients(&all.params);
    mn__var *in = mn__tape_input(&all.tape, tensor(rest, ROWS, T));
    mn__var *out = segment(&all, in, valid, NULL, false);
    mn__tensor weights = tensor(d, ROWS, T);
    succeed(mn__tape_backward(&all.tape, dot(&all, out, &weights), 1, &error), &error);
    memcpy(states, state_of(&all, 0), sizeof states);
    sums = calloc((size_t)mn__params_elements(&all.params), sizeof *sums);
    assert_non_null(sums);
    for (int b = 0; b < ROWS; b++) {
        open_type(&one, &mn__attention_block_recurrent, "states: 5, form: dual", 1, false);
        open_states(&one);
        if (before[b])
            segment(&one, mn__tape_constant(&one.tape, tensor(prefix + b * 6 * C, 1, before[b])),
                    NULL, NULL, false);
        mn__tape_reset(&one.tape);
        one.tape.recording = true;
        mn__params_clear_gradients(&one.params);
        mn__var *x1 = mn__tape_input(&one.tape, tensor(rest + b * T * C, 1, valid[b]));
        mn__var *y1 = segment(&one, x1, NULL, NULL, false);
        mn__tensor w1 = tensor(d + b * T * C, 1, valid[b]);
        succeed(mn__tape_backward(&one.tape, dot(&one, y1, &w1), 1, &error), &error);
        int64_t n = valid[b] * C;
        const float *whole = (const float *)out->value.data + b * T * C;
        assert_true(difference(whole, y1->value.data, n) <= bound);
        const float *gradient = (const float *)in->gradient + b * T * C;
        assert_true(difference(gradient, x1->gradient, n) <= bound);
        assert_true(difference(states + b * S * C, state_of(&one, 0), S * C) <= bound);
        float *sum = sums;
        for (int64_t i = 0; i < one.params.count; i++) {
            const mn__param *param = one.params.items[i];
            for (int64_t k = 0; k < mn__tensor_elements(&param->value); k++)
                *sum++ += param->gradient_set ? param->gradient[k] : 0;
        }
        close(&one);
    }
    const float *sum = sums;
    for (int64_t i = 0; i < all.params.count; i++) {
        const mn__param *param = all.params.items[i];
        int64_t n = mn__tensor_elements(&param->value);
        double largest = fmax(1, sum_of(sum, n) / (double)n);
        if (param->gradient_set && !(difference(param->gradient, sum, n) <= bound * largest))
            fail_msg("the gradient of %s differs by %g", param->name,
                     difference(param->gradient, sum, n));
        sum += n;
    }
    free(sums);
    close(&all);
}

/* What reading keeps of the states does not outlive a training step, which changes the
 * weights that made it. */
static void test_kept_states(void **state)
{
    (void)state;
    fixture f, fresh;
    float x[TOKENS * C], y[TOKENS * C], again[TOKENS * C];
    open(&f, "");
    open(&fresh, "");
    make_text(x, 0, TOKENS);
    read_text(&f, x, 0, W + 1, 1, y); /* those of block 1 are kept */
    f.tape.recording = true;
    segment(&f, mn__tape_constant(&f.tape, tensor(x + (W + 1) * C, 1, 1)), NULL, NULL, false);
    mn__tape_reset(&f.tape);
    f.tape.recording = false;
    read_text(&fresh, x, 0, W, W, again);
    set_all(&f, "a.state.ids", 0.3f);
    set_all(&fresh, "a.state.ids", 0.3f);
    read_text(&fresh, x, W, TOKENS, 3, again);
    read_text(&f, x, W + 2, TOKENS, 1, y);
    assert_true(difference(y + (W + 2) * C, again + (W + 2) * C, (TOKENS - W - 2) * C) <= bound);
    assert_true(difference(state_of(&f, 0), state_of(&fresh, 0), S * C) <= bound);
    close(&f);
    close(&fresh);
}

/* ---- Options ---------------------------------------------------------------------------- */

/* What cannot be is refused with a reason. */
static void test_refusals(void **state)
{
    (void)state;
    mn_error error;
    fixture f;
    const mn__rope rope = {0};
    float x[W * C];
    open_type(&f, &mn__attention_block_recurrent, "states: 5", 1, false);
    f.layer.rope = &rope;
    assert_int_equal(f.layer.type->check(&f.layer, &error), MN_ERROR_OPTION);
    f.layer.rope = NULL;
    open_states(&f);
    ((mn__recurrent_options *)f.layer.options)->feedback = true; /* its segments are two blocks */
    assert_int_equal(f.layer.type->check(&f.layer, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.hint, "train.unroll"));
    ((mn__recurrent_options *)f.layer.options)->recurrent = false; /* and nobody shows states */
    make_text(x, 0, W);
    mn__pending pending = {{0}};
    mn__segment seg = {.B = 1, .T = W};
    mn__var *in = mn__tape_constant(&f.tape, tensor(x, 1, W));
    assert_null(f.layer.type->forward(&f.layer, &f.tape, &seg, in, &f.states.layer[0], &pending));
    assert_int_equal(mn__tape_status(&f.tape, &error), MN_ERROR_OPTION);
    assert_non_null(strstr(error.message, "feedback"));
    close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twin),
        cmocka_unit_test(test_window_without_states),
        cmocka_unit_test(test_nothing_seen),
        cmocka_unit_test(test_fixed_gate),
        cmocka_unit_test(test_lstm_gate),
        cmocka_unit_test(test_ids_part_states),
        cmocka_unit_test(test_states_permuted),
        cmocka_unit_test(test_reach),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_row_starts),
        cmocka_unit_test(test_dropout_spares_states),
        cmocka_unit_test(test_rows_apart),
        cmocka_unit_test(test_kept_states),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
