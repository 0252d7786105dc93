/* The four laws of state, for every attention type: chunking, saving, reset, it
 * matters. Each type is tried in the forms listed; a registered type without a
 * form here fails the test. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention/naive.h"
#include "kernel/blocks.h"
#include "reader/session.h"
#include "support/folder.h"
#include "support/model.h"

enum { V = 31, TOKENS = 53, SEGMENT = 8, ROWS = 3 };

static const struct form {
    const char *type, *model, *attention;
} forms[] = {
    {"full", "positions: rope, kv_heads: 2", "type: full"},
    {"full", "positions: learned, max_positions: 64", "type: full"},
    {"full", "norm: rms, gated: true", "type: full, alibi: true"},
    {"full",
     "norm: rms, positions: rope, rope_width: 4, rope_interleaved: true, kv_heads: 2,"
     " head_norm: true, norm_place: both, bias: true, attention_bias: inputs",
     "type: full"},
    {"full",
     "positions: rope, rope_scaling: yarn, rope_factor: 4, rope_original: 16, head_width: 10",
     "type: full"},
    {"full", "positions: rope, layers: [{layers: [0], type: full, rope: false}]", "type: full"},
    {"window", "norm: rms, positions: rope, head_norm: true, norm_place: both, kv_heads: 1",
     "type: window, window: 9"},
    {"window", "norm_place: both, block: [[attention, feed_forward], attention]",
     "type: window, window: 6"},
    {"window", "positions: rope, kv_heads: 1", "type: window, window: 9"},
    {"window", "norm_place: post",
     "type: window, window: 5, strict: true, t5: true, buckets: 6, far: 8"},
    {"window", "positions: rope", "type: window, window: 1"},
    {"window", "norm: rms",
     "type: window, window: 6, strict: true, t5: true, buckets: 6, far: 8, normalise: true"},
    {"window", "norm: rms, kv_heads: 2",
     "type: window, window: 11, strict: true, t5: true, normalise: true, zero_memory: true"},
    {"window", "positions: rope", "type: window, window: 7, normalise: true"},
    {"xl", "norm_place: post, final_norm: false", "type: xl, memory: 12"},
    {"xl", "bias: true, attention_bias: true", "type: xl, memory: 12, untie: true, clamp: 7"},
    {"xl", "norm: rms", "type: xl, memory: 5, zero_memory: true"},
    {"xl", "norm: rms", "type: xl, memory: 20, same_length: true"},
    {"xl", "norm: rms", "type: xl, memory: 0"},
    {"compressive", "norm: rms", "type: compressive, memory: 12, compressed: 5"},
    {"compressive", "norm_place: post, bias: true, attention_bias: true",
     "type: compressive, memory: 6, compressed: 4, rate: 2, through: everything, untie: true"},
    {"compressive", "norm: layer",
     "type: compressive, memory: 4, compressed: 7, rate: 2, zero_memory: false, clamp: 6,"
     " remember: inputs, compression: dilated, dilations: 2, through: compression"},
    {"compressive", "norm: rms",
     "type: compressive, memory: 3, compressed: 9, rate: 2, zero_memory: false,"
     " loss: autoencoding"},
    {"compressive", "norm: rms",
     "type: compressive, memory: 8, compressed: 6, rate: 4, compression: max, extra: 1"},
    {"compressive", "norm: rms",
     "type: compressive, memory: 8, compressed: 6, compression: mean, remember: inputs"},
    {"compressive", "norm: rms",
     "type: compressive, memory: 2, compressed: 6, compression: most_used, zero_memory: false"},
    {"compressive", "norm: rms, block: [[attention, feed_forward], attention]",
     "type: compressive, memory: 12, compressed: 5, compression: most_used"},
    /* Two grids: a segment ends at the points of each. */
    {"compressive",
     "norm: rms, layers: [{layers: [1], type: knn, window: 5, memory: 20, neighbours: 20,"
     " segment: 16}]",
     "type: compressive, memory: 4, compressed: 6, rate: 2"},
    {"naive_compressive", "norm: rms",
     "type: naive_compressive, memory: 12, compressed: 5, rate: 3"},
    {"naive_compressive", "norm_place: post",
     "type: naive_compressive, memory: 6, compressed: 4, rate: 2, through: everything"},
    /* Clusters that hold all: discrete choices may differ between chunkings. */
    {"naive_routing", "norm: rms",
     "type: naive_routing, routing_heads: 2, clusters: 3, window: 8, block: 3, max_relative: 4,"
     " strict: true"},
    {"naive_block_recurrent", "norm: rms",
     "type: naive_block_recurrent, window: 4, states: 5, form: dual, gate: lstm"},
    {"naive_block_recurrent", "norm: rms",
     "type: naive_block_recurrent, window: 8, states: 5, feedback: true, form: single"},
    /* Memories that are retrieved whole: discrete choices may differ between chunkings. */
    {"knn", "norm: rms", "type: knn, window: 8, memory: 24, neighbours: 24"},
    {"knn", "norm: rms", "type: knn, window: 5, t5: false, memory: 19, neighbours: 32"},
    {"knn", "norm: rms", "type: knn, window: 11, memory: 3, neighbours: 3, combine: add"},
    {"knn", "norm: rms", "type: knn, window: 6, memory: 30, neighbours: 30, empty: local"},
    {"knn", "norm: rms",
     "type: knn, window: 6, memory: 12, neighbours: 12, search: buckets, keep: bf16"},
    {"knn", "norm: rms", "type: knn, window: 9, segment: 16, memory: 20, neighbours: 20"},
    {"knn", "norm_place: post, layers: [{layers: [0], type: window, window: 8}]",
     "type: knn, window: 8, memory: 16, neighbours: 16, normalise: false, t5: false,"
     " strict: false, zero_memory: false, empty: local"},
    {"knn", "positions: rope, kv_heads: 2", "type: knn, window: 6, t5: false, memory: 0"},
    {"knn", "norm: rms", "type: knn, window: 8, memory: 20, neighbours: 20, cache: false"},
    {"knn", "norm: rms, block: [[attention, feed_forward], attention]",
     "type: knn, window: 8, memory: 40, neighbours: 40"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 4, states: 5, gate: fixed, form: skip"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 5, states: 5, gate: fixed, form: dual"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 8, states: 5, gate: fixed, form: single"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 3, states: 5, gate: lstm, form: skip"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 6, states: 5, gate: lstm, form: dual"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 12, states: 5, gate: lstm, form: single"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 7, states: 5, gate: full, form: skip"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 4, states: 5, gate: full, form: dual"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 10, states: 5, gate: full, form: single"},
    {"block_recurrent", "kv_heads: 2, bias: true, attention_bias: true",
     "type: block_recurrent, window: 4, states: 7, hidden: 9, form: dual"},
    {"block_recurrent", "norm_place: post",
     "type: block_recurrent, window: 5, states: 5, strict: false, t5: false, normalise: false,"
     " zero_memory: false"},
    {"block_recurrent", "norm: rms",
     "type: block_recurrent, window: 8, states: 5, feedback: true, gate: lstm"},
    {"block_recurrent",
     "norm: rms, layers: [{layers: [0], type: block_recurrent, window: 8, recurrent: false,"
     " feedback: true}]",
     "type: block_recurrent, window: 8, states: 5, feedback: true, form: dual"},
    {"block_recurrent",
     "norm: rms, layers: [{layers: [0], type: window, window: 6, strict: true, t5: true,"
     " normalise: true, zero_memory: true}]",
     "type: block_recurrent, window: 6, states: 5"},
    /* Other blocks than attention and feed-forward. */
    {"xl", "norm: rms, block: [[attention, feed_forward]]", "type: xl, memory: 12"},
    {"xl", "norm_place: post, block: [attention, {type: window, window: 9}]",
     "type: xl, memory: 12, untie: true"},
    {"full", "positions: rope, block: [[feed_forward, attention, {type: window, window: 3}]]",
     "type: full"},
    {"full", "block: [feed_forward]", "type: full"},
    {"window",
     "layers: [{layers: [0], block: [feed_forward]}, {layers: [1], type: xl, memory: 6},"
     " {layers: [1], block: [attention, {type: full, alibi: true}, [attention, feed_forward]]}]",
     "type: window"},
    {"naive_compressive", "norm: rms, block: [[attention, feed_forward], attention]",
     "type: naive_compressive, memory: 6, compressed: 4, rate: 2, through: everything"},
    {"naive_routing", "norm: rms, block: [attention, [attention, feed_forward]]",
     "type: naive_routing, routing_heads: 2, clusters: 3, window: 8, block: 3, max_relative: 4,"
     " strict: true"},
    {"block_recurrent", "norm: rms, block: [[attention, feed_forward], attention]",
     "type: block_recurrent, window: 8, states: 5, feedback: true, form: single"},
    {"naive_block_recurrent", "norm: rms, block: [[attention, feed_forward], attention]",
     "type: naive_block_recurrent, window: 8, states: 5, feedback: true, form: single"},
};
enum { FORMS = sizeof forms / sizeof *forms };

static const mn__attention_type *const naive_types[] = {&naive_compressive, &naive_routing,
                                                        &naive_block_recurrent, NULL};

typedef test_model fixture;

/* How keys and values are kept, of types that give the choice: all of mn__kept. */
static int precisions_of(const struct form *form)
{
    bool chosen = !strcmp(form->type, "full") || !strcmp(form->type, "window");
    chosen = chosen && !strstr(form->model, "type: xl"); /* of some layers */
    return chosen ? MN__KEPT_INT8 + 1 : 1;
}

/* F32 is what they are computed in, here. */
#define EACH_FORM(i, kept)                                          \
    for (int i = 0; i < FORMS; i++)                                 \
        for (int kept = 0; kept < precisions_of(&forms[i]); kept++) \
            if (kept != MN__KEPT_F32)

/* Losses apart by rounding: sums of about 100 terms in float. Where keys and values are rounded
 * once more, a number at the border of two steps may go either way, a step of 2^-8 of the
 * largest (of a key, times a query's number below 4, or of a value): with room for several. */
static double rounding(int kept)
{
    return kept == MN__KEPT_BF16 || kept == MN__KEPT_INT8 ? 2e-2 : 2e-4;
}

static void model_open(fixture *f, const struct form *form, int kept)
{
    mn_error error;
    char recipe[512];
    snprintf(recipe, sizeof recipe,
             "model: {depth: 2, width: 24, heads: 4, initial_deviation: 0.2, %s}\n"
             "attention: {%s}\n",
             form->model, form->attention);
    mn__attention_add_types(naive_types);
    test_model_open(f, recipe, V, SEGMENT, 7);
    succeed(mn__decoder_keep(f->decoder, (mn__kept)kept, &error), &error);
}

static void session_open(fixture *f, mn__session *session, int64_t rows, mn__dtype compute)
{
    mn_error error;
    mn__session_options options = {.rows = rows, .capacity = TOKENS + 1, .compute = compute};
    succeed(mn__session_open(session, f->decoder, &f->params, &options, &error), &error);
}

/* Token t of text `which`. */
static int32_t token(int64_t which, int64_t t)
{
    mn__random_key key = {.seed = 5, .operation = (uint32_t)which};
    return (int32_t)mn__random_below(key, (uint64_t)t, V);
}

/* Reads tokens from..to of one text in pieces; losses[t] is that of token t + 1. */
static void read_text(mn__session *session, int64_t which, int64_t from, int64_t to, int64_t piece,
                      float *losses)
{
    mn_error error;
    int32_t ids[TOKENS], targets[TOKENS];
    float weights[TOKENS];
    for (int64_t t = 0; t < TOKENS; t++) {
        ids[t] = token(which, t);
        targets[t] = token(which, t + 1);
        weights[t] = 1.0f;
    }
    for (int64_t t = from, T; t < to; t += T) {
        T = to - t < piece ? to - t : piece;
        mn__stretch stretch = {.T = T,
                               .ids = ids + t,
                               .targets = targets + t,
                               .weights = weights,
                               .losses = losses + t};
        succeed(mn__session_read(session, &stretch, &error), &error);
    }
}

static double largest_difference(const float *a, const float *b, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        largest = difference > largest || isnan(difference) ? difference : largest;
    }
    return largest;
}

/* ---- 1. Chunking --------------------------------------------------------------------- */

static void check_chunking(fixture *f, mn__dtype compute, double bound)
{
    float whole[TOKENS], pieces[TOKENS];
    mn__session session;
    session_open(f, &session, 1, compute);
    read_text(&session, 0, 0, TOKENS, TOKENS, whole);
    for (int64_t piece = 1; piece <= 13; piece += 6) {
        mn__session_reset(&session);
        read_text(&session, 0, 0, TOKENS, piece, pieces);
        assert_true(largest_difference(whole, pieces, TOKENS) <= bound);
    }
    mn__session_close(&session);
}

static void test_chunking(void **state)
{
    (void)state;
    EACH_FORM(i, kept)
    {
        fixture f;
        model_open(&f, &forms[i], kept);
        check_chunking(&f, MN__F32, rounding(kept));
        /* bf16 rounds some 20 times on the way, by 2^-9 each, of logits of a few units. */
        check_chunking(&f, MN__BF16, 0.25);
        test_model_close(&f);
    }
}

/* ---- 2. Saving ------------------------------------------------------------------------ */

static void test_saving(void **state)
{
    mn_error error;
    const char *path = folder_path(*state, "session");
    EACH_FORM(i, kept)
    {
        fixture f;
        mn__session on, loaded;
        float expected[TOKENS] = {0}, got[TOKENS] = {0};
        model_open(&f, &forms[i], kept);
        session_open(&f, &on, 1, MN__F32);
        session_open(&f, &loaded, 1, MN__F32);
        read_text(&on, 0, 0, 19, 19, expected);
        succeed(mn__session_save(&on, path, "weights", &error), &error);
        read_text(&on, 0, 19, TOKENS, 5, expected);
        read_text(&loaded, 1, 0, 11, 11, got); /* a state that must not shine through */
        succeed(mn__session_load(&loaded, path, "weights", &error), &error);
        read_text(&loaded, 0, 19, TOKENS, 5, got);
        assert_memory_equal(got + 19, expected + 19, (TOKENS - 19) * sizeof *got);
        const float *logits = mn__session_logits(&on, &error);
        const float *again = mn__session_logits(&loaded, &error);
        assert_memory_equal(logits, again, V * sizeof *logits);
        assert_int_equal(mn__session_load(&loaded, path, "others", &error), MN_ERROR_MISMATCH);
        mn__session_close(&on);
        mn__session_close(&loaded);
        test_model_close(&f);
    }
}

/* ---- 3. Reset --------------------------------------------------------------------------- */

/* Rows 0 and 2 read on while row 1 begins another document. */
static void check_reset(fixture *f, int kept)
{
    mn_error error;
    enum { BEFORE = 2 * SEGMENT, AFTER = 2 * SEGMENT };
    int32_t ids[ROWS * BEFORE], targets[ROWS * BEFORE];
    float weights[ROWS * AFTER], with[ROWS * AFTER] = {0}, without[ROWS * AFTER] = {0};
    mn__session session;
    for (int64_t i = 0; i < ROWS * AFTER; i++)
        weights[i] = 1.0f;
    for (int which = 0; which < 2; which++) {
        session_open(f, &session, ROWS, MN__F32);
        for (int64_t i = 0; i < ROWS * BEFORE; i++) {
            int64_t row = i / BEFORE;
            /* What row 1 read before differs between the two runs. */
            ids[i] = token(row == 1 ? 10 + which : row, i % BEFORE);
        }
        mn__stretch before = {.T = BEFORE, .ids = ids};
        succeed(mn__session_read(&session, &before, &error), &error);
        for (int64_t i = 0; i < ROWS * AFTER; i++) {
            ids[i] = token(20 + i / AFTER, i % AFTER);
            targets[i] = token(20 + i / AFTER, i % AFTER + 1);
        }
        const bool start[ROWS] = {false, true, false};
        mn__stretch after = {.T = AFTER,
                             .ids = ids,
                             .start = start,
                             .targets = targets,
                             .weights = weights,
                             .losses = which ? with : without};
        succeed(mn__session_read(&session, &after, &error), &error);
        assert_int_equal(session.states.position[1], AFTER);
        assert_int_equal(session.states.position[2], BEFORE + AFTER);
        mn__session_close(&session);
    }
    assert_memory_equal(with, without, sizeof with);
    float alone[TOKENS] = {0};
    session_open(f, &session, 1, MN__F32);
    read_text(&session, 21, 0, AFTER, AFTER, alone);
    assert_true(largest_difference(alone, with + AFTER, AFTER) <= rounding(kept));
    mn__session_close(&session);
}

/* A row without valid tokens keeps its state bit for bit, and padding is never
 * remembered. */
static void check_padding(fixture *f, int kept)
{
    mn_error error;
    enum { T = 5 };
    mn__session padded, exact;
    float a[TOKENS] = {0}, b[TOKENS] = {0};
    session_open(f, &padded, 2, MN__F32);
    session_open(f, &exact, 1, MN__F32);
    int32_t ids[2 * T];
    for (int i = 0; i < 2 * T; i++)
        ids[i] = i < T ? token(0, i) : token(3, i);
    const int64_t valid[2] = {3, 0};
    mn__stretch stretch = {.T = T, .ids = ids, .valid = valid};
    succeed(mn__session_read(&padded, &stretch, &error), &error);
    assert_int_equal(padded.states.position[0], 3);
    assert_int_equal(padded.states.position[1], 0);
    mn__states fresh;
    succeed(mn__decoder_states_open(f->decoder, &fresh, 2, TOKENS + 1, MN__F32, &error), &error);
    for (int64_t layer = 0; layer < fresh.layers; layer++)
        for (int i = 0; i < fresh.layer[layer].slots; i++) {
            const mn__tensor *got = &padded.states.layer[layer].slot[i].value;
            int64_t bytes = mn__tensor_bytes(got) / 2;
            assert_memory_equal((const char *)got->data + bytes,
                                (const char *)fresh.layer[layer].slot[i].value.data + bytes,
                                (size_t)bytes);
        }
    mn__states_close(&fresh);
    read_text(&exact, 0, 0, 3, 3, a);
    /* Both go on with text 4; in the padded session row 1 stays idle. */
    const int64_t next[2] = {T, 0};
    int32_t targets[2 * T];
    float weights[2 * T], losses[2 * T] = {0};
    for (int i = 0; i < 2 * T; i++) {
        ids[i] = token(4, i % T);
        targets[i] = token(4, i % T + 1);
        weights[i] = 1.0f;
    }
    mn__stretch on = {.T = T,
                      .ids = ids,
                      .valid = next,
                      .targets = targets,
                      .weights = weights,
                      .losses = losses};
    succeed(mn__session_read(&padded, &on, &error), &error);
    read_text(&exact, 4, 0, T, T, b);
    assert_true(largest_difference(losses, b, T) <= rounding(kept));
    mn__session_close(&padded);
    mn__session_close(&exact);
}

static void test_reset(void **state)
{
    (void)state;
    EACH_FORM(i, kept)
    {
        fixture f;
        model_open(&f, &forms[i], kept);
        check_reset(&f, kept);
        check_padding(&f, kept);
        test_model_close(&f);
    }
}

/* ---- 4. It matters ----------------------------------------------------------------------- */

static bool sees_nothing(const struct form *form)
{
    return !strcmp(form->model, "block: [feed_forward]");
}

/* A token that sees itself alone: its queries and keys choose nothing. */
static bool sees_itself(const struct form *form)
{
    return !strcmp(form->attention, "type: window, window: 1");
}

static bool forgets(const struct form *form)
{
    return sees_nothing(form) || sees_itself(form) || strstr(form->attention, "xl, memory: 0") ||
           strstr(form->attention, "naive_routing"); /* a segment is a sequence */
}

static void check_matters(fixture *f, const struct form *form, int kept)
{
    float carried[TOKENS] = {0}, cleared[TOKENS] = {0};
    mn__session session;
    session_open(f, &session, 1, MN__F32);
    read_text(&session, 0, 0, 2 * SEGMENT, TOKENS, carried);
    read_text(&session, 0, 2 * SEGMENT, 3 * SEGMENT, TOKENS, carried);
    mn__session_reset(&session);
    read_text(&session, 0, 2 * SEGMENT, 3 * SEGMENT, TOKENS, cleared);
    double difference = largest_difference(carried + 2 * SEGMENT, cleared + 2 * SEGMENT, SEGMENT);
    if (forgets(form))
        assert_true(difference <= rounding(kept));
    else
        assert_true(difference > 1e-2);
    mn__session_close(&session);
}

/* As many segments as the types ask for, and one more, unrolled. */
static void check_gradients(fixture *f)
{
    enum { SEGMENTS_MAX = 4 };
    mn_error error;
    mn__tape tape;
    mn__states states;
    int32_t ids[SEGMENTS_MAX][SEGMENT], targets[SEGMENTS_MAX][SEGMENT];
    float weights[SEGMENT];
    mn__var *total = NULL;
    const bool start = true;
    succeed(mn__params_prepare_gradients(&f->params, &error), &error);
    mn__tape_init(&tape, &f->params, MN__F32);
    succeed(mn__decoder_states_open(f->decoder, &states, 1, 4 * SEGMENT, MN__F32, &error), &error);
    mn__params_clear_gradients(&f->params);
    tape.recording = true;
    int segments = mn__decoder_gradient_segments(f->decoder) + 1;
    assert_true(segments <= SEGMENTS_MAX);
    for (int n = 0; n < segments; n++) {
        for (int64_t t = 0; t < SEGMENT; t++) {
            ids[n][t] = token(0, n * SEGMENT + t);
            targets[n][t] = token(0, n * SEGMENT + t + 1);
            weights[t] = 1.0f;
        }
        mn__segment segment = {.B = 1, .T = SEGMENT, .start = n ? NULL : &start};
        mn__var *hidden = mn__decoder_forward(f->decoder, &tape, &segment, ids[n], &states);
        mn__var *loss =
            mn__decoder_loss(f->decoder, &tape, hidden, targets[n], weights, 1.0f, 0.0f, NULL);
        mn__var *auxiliary = mn__segment_losses(&tape, &segment);
        loss = auxiliary ? mn__op_add(&tape, loss, auxiliary) : loss;
        total = n ? mn__op_add(&tape, total, loss) : loss;
        succeed(mn__tape_status(&tape, &error), &error);
        mn__decoder_commit(f->decoder, &tape, &segment, &states, n + 1 < segments);
    }
    succeed(mn__tape_backward(&tape, total, 1.0f, &error), &error);
    for (int64_t i = 0; i < f->params.count; i++) {
        const mn__param *param = f->params.items[i];
        double sum = 0;
        for (int64_t k = 0; !param->buffer && k < mn__tensor_elements(&param->value); k++)
            sum += fabs((double)param->gradient[k]);
        if (!param->buffer && !(param->gradient_set && sum > 0))
            fail_msg("%s receives no gradient", param->name);
    }
    mn__states_close(&states);
    mn__tape_free(&tape);
}

static void test_matters(void **state)
{
    (void)state;
    EACH_FORM(i, kept)
    {
        fixture f;
        model_open(&f, &forms[i], kept);
        check_matters(&f, &forms[i], kept);
        if (!sees_itself(&forms[i]) && kept != MN__KEPT_INT8) /* which pass no gradient */
            check_gradients(&f);
        test_model_close(&f);
    }
}

static void test_every_type_has_a_form(void **state)
{
    (void)state;
    for (const mn__attention_type *const *type = mn__attention_types; *type; type++) {
        bool found = false;
        for (int i = 0; i < FORMS; i++)
            found = found || !strcmp(forms[i].type, (*type)->name);
        if (!found)
            fail_msg("no form of %s is held to the laws", (*type)->name);
    }
}

/* A later token changes nothing before it. */
static void test_causality(void **state)
{
    (void)state;
    EACH_FORM(i, kept)
    {
        fixture f;
        mn__session session;
        float base[TOKENS] = {0}, changed[TOKENS] = {0};
        model_open(&f, &forms[i], kept);
        session_open(&f, &session, 1, MN__F32);
        read_text(&session, 0, 0, 3 * SEGMENT, TOKENS, base);
        for (int64_t at = 1; at < 3 * SEGMENT; at += 5) {
            int32_t ids[3 * SEGMENT], targets[3 * SEGMENT];
            float weights[3 * SEGMENT];
            mn_error error;
            for (int64_t t = 0; t < 3 * SEGMENT; t++) {
                ids[t] = t == at ? (token(0, t) + 1) % V : token(0, t);
                targets[t] = token(0, t + 1);
                weights[t] = 1.0f;
            }
            mn__session_reset(&session);
            mn__stretch stretch = {.T = 3 * SEGMENT,
                                   .ids = ids,
                                   .targets = targets,
                                   .weights = weights,
                                   .losses = changed};
            succeed(mn__session_read(&session, &stretch, &error), &error);
            assert_memory_equal(base, changed, (size_t)at * sizeof *base);
            assert_true(base[at] != changed[at]);
        }
        mn__session_close(&session);
        test_model_close(&f);
    }
}

/* ---- How keys and values are kept ------------------------------------------------------- */

/* Types that do not give the choice say so, by name, and go on as they were. */
static void test_refusals(void **state)
{
    (void)state;
    mn_error error;
    for (int i = 0; i < FORMS; i++) {
        fixture f;
        if (precisions_of(&forms[i]) > 1 || sees_nothing(&forms[i]))
            continue;
        model_open(&f, &forms[i], MN__KEPT_AS_COMPUTED);
        for (int kept = MN__KEPT_F32; kept <= MN__KEPT_INT8; kept++) {
            assert_int_equal(mn__decoder_keep(f.decoder, (mn__kept)kept, &error),
                             MN_ERROR_UNSUPPORTED);
            const char *named = strstr(forms[i].model, "type: xl") ? "xl" : forms[i].type;
            assert_non_null(strstr(error.message, named));
            assert_non_null(strstr(error.message, mn__kept_name((mn__kept)kept)));
        }
        assert_int_equal(mn__decoder_kept(f.decoder), MN__KEPT_AS_COMPUTED);
        test_model_close(&f);
    }
}

/* Slots are as large as they are said to be, and a session of one precision is none of
 * another. */
static void test_precisions(void **state)
{
    mn_error error;
    const char *path = folder_path(*state, "kept");
    static const char *const names[] = {"F32", "F32", "BF16", "INT8"};
    for (int i = 0; i < FORMS; i++)
        for (int kept = 1; kept < precisions_of(&forms[i]); kept++) {
            static const int64_t bytes_of[] = {0, 4, 2, 0};
            fixture f;
            mn__session session, other;
            float losses[TOKENS];
            if (sees_nothing(&forms[i]) || sees_itself(&forms[i])) /* nothing is kept */
                continue;
            model_open(&f, &forms[i], kept);
            session_open(&f, &session, 1, MN__F32);
            const mn__tensor *keys = &session.states.layer[0].slot[0].value;
            const mn__attention *layer = mn__decoder_attention(f.decoder, 0, 0);
            int64_t row =
                kept == MN__KEPT_INT8 ? mn__block_int8_bytes(layer->D) : bytes_of[kept] * layer->D;
            assert_int_equal(mn__tensor_bytes(keys), keys->size[1] * layer->G * row);
            read_text(&session, 0, 0, 19, 19, losses);
            succeed(mn__session_save(&session, path, "weights", &error), &error);
            int next = kept % MN__KEPT_INT8 + 1; /* and F32 is what F32 computes */
            succeed(mn__decoder_keep(f.decoder, (mn__kept)next, &error), &error);
            session_open(&f, &other, 1, MN__F32);
            assert_int_equal(mn__session_load(&other, path, "weights", &error), MN_ERROR_MISMATCH);
            assert_non_null(strstr(error.message, names[kept]));
            assert_non_null(strstr(error.message, names[next]));
            assert_int_equal(other.states.position[0], 0);
            mn__session_close(&other);
            mn__session_close(&session);
            test_model_close(&f);
        }
}

/* Blocks of 8 bits pass no gradient: a tape that records says so, and computes nothing. */
static void test_no_gradient(void **state)
{
    (void)state;
    mn_error error;
    fixture f;
    mn__tape tape;
    mn__states states;
    const bool start = true;
    const int32_t ids[2] = {3, 4};
    model_open(&f, &forms[0], MN__KEPT_INT8);
    succeed(mn__params_prepare_gradients(&f.params, &error), &error);
    mn__tape_init(&tape, &f.params, MN__F32);
    succeed(mn__decoder_states_open(f.decoder, &states, 1, SEGMENT, MN__F32, &error), &error);
    tape.recording = true;
    mn__segment segment = {.B = 1, .T = 2, .start = &start};
    assert_null(mn__decoder_forward(f.decoder, &tape, &segment, ids, &states));
    assert_int_equal(mn__tape_status(&tape, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "8 bits"));
    mn__states_close(&states);
    mn__tape_free(&tape);
    test_model_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_has_a_form),
        cmocka_unit_test(test_chunking),
        cmocka_unit_test(test_saving),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_matters),
        cmocka_unit_test(test_causality),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_precisions),
        cmocka_unit_test(test_no_gradient),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
