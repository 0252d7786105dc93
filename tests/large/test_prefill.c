/* A long text is read chunk by chunk in memory that does not grow with it: two layers of the
 * Qwen2-0.5B shape (width 896, 14 heads, 2 key-value heads, feed-forward 4864), bf16, up to 131,072
 * tokens; all that the process ever holds stays under weights + state + 0.5 GiB, activations of the
 * last chunk are those of the first, and what kernels take for themselves grows by no more than
 * one layer's keys and values, which attention packs for its products.
 *
 * Every token attends to all before it, so that the whole text takes minutes; here the chunks at
 * the beginning, in the middle and at the end are read, over a state that is filled up to there
 * with random keys and values. PREFILL=whole in the environment reads all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/progress.h"
#include "reader/session.h"
#include "support/model.h"

enum { LENGTH = 131072, CHUNK = 512, V = 1024, SPARE = 512 << 20 };

static const char recipe[] =
    "model: {depth: 2, width: 896, heads: 14, kv_heads: 2, hidden: 4864, norm: rms, norm_place: "
    "pre, "
    "activation: silu, gated: true, bias: false, attention_bias: inputs, positions: rope, "
    "rope_base: 1000000, tied: true}\n"
    "attention: {type: full}\n";

typedef struct fixture {
    mn__arena arena;
    mn__device device;
    mn__params params;
    mn__decoder *decoder;
    mn__session session;
} fixture;

static void open_session(fixture *f)
{
    mn_error error;
    mn__yaml_node *root;
    *f = (fixture){0};
    mn__arena_init(&f->arena, 0);
    succeed(mn__yaml_parse(&f->arena, "r", recipe, (int64_t)strlen(recipe), &root, &error), &error);
    succeed(mn__device_open(&f->device, &error), &error);
    mn__params_init(&f->params, &f->device, 1);
    const mn__session_options options = {
        .rows = 1, .capacity = LENGTH, .chunk = CHUNK, .compute = MN__BF16};
    succeed(mn__decoder_new(&f->decoder, &f->params, mn__yaml_get(root, "model"),
                            mn__yaml_get(root, "attention"), V, CHUNK, &error),
            &error);
    succeed(mn__session_open(&f->session, f->decoder, &f->params, &options, &error), &error);
}

static void close_session(fixture *f)
{
    mn__session_close(&f->session);
    mn__decoder_free(f->decoder);
    mn__params_free(&f->params);
    mn__device_close(&f->device);
    mn__arena_free(&f->arena);
}

/* Random keys and values up to `tokens`, as if these had been read. */
static void fill_state(mn__states *states, int64_t tokens)
{
    uint32_t random = 1;
    for (int64_t layer = 0; layer < states->layers; layer++) {
        mn__state *state = &states->layer[layer];
        for (int i = 0; i < state->slots; i++) {
            mn__bf16 *data = state->slot[i].value.data;
            int64_t count = mn__tensor_elements(&state->slot[i].value) / LENGTH * tokens;
            assert_true(state->slot[i].value.dtype == MN__BF16 && state->slot[i].grows);
            for (int64_t k = 0; k < count; k++) {
                random = random * 1664525u + 1013904223u;
                data[k] = mn__f32_to_bf16((float)(random >> 8) / (float)(1 << 23) - 1.0f);
            }
        }
        for (int i = 0; i < state->counters; i++)
            state->counter[i][0] = tokens;
    }
    states->position[0] = tokens;
}

static void read_to(fixture *f, int64_t end)
{
    static int32_t ids[CHUNK];
    mn_error error;
    for (int64_t at = f->session.states.position[0]; at < end; at += CHUNK) {
        for (int64_t i = 0; i < CHUNK; i++)
            ids[i] = (int32_t)((at + i) * (at + i) % V);
        succeed(mn__session_read(&f->session, &(mn__stretch){.T = CHUNK, .ids = ids}, &error),
                &error);
    }
    assert_int_equal(f->session.states.position[0], end);
}

/* Bytes of the most that the process has held so far. */
static int64_t peak_of_process(void)
{
    char line[256];
    long long kilobytes = -1;
    FILE *file = fopen("/proc/self/status", "r");
    if (!file)
        return -1;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kilobytes) == 1)
            break;
    fclose(file);
    return kilobytes * 1024;
}

static void memory_does_not_grow(void **state)
{
    (void)state;
    static const int64_t places[] = {0, LENGTH / 2, LENGTH - 2 * CHUNK};
    const char *said = getenv("PREFILL");
    bool whole = said && !strcmp(said, "whole");
    fixture f;
    mn_error error;
    int64_t activations = 0, held = 0;
    open_session(&f);
    mn__states *states = &f.session.states;
    int64_t state_bytes = mn__states_bytes(states);
    assert_int_equal(state_bytes / LENGTH, 2 * 2 * 128 * 2); /* layers, K and V, width, bf16 */
    for (int i = 0; i < 3; i++) {
        double begin = mn__clock();
        if (!whole && i)
            fill_state(states, places[i]);
        read_to(&f, places[i] + 2 * CHUNK);
        const float *logits = mn__session_logits(&f.session, &error);
        assert_non_null(logits);
        assert_true(logits[0] == logits[0]);
        const mn__tape *tape = &f.session.tape;
        int64_t now = tape->values.arena.peak + tape->kept.arena.peak + tape->nodes.peak;
        fprintf(stderr, "to %lld tokens: activations %.2f MiB, held %.2f MiB, %.1f s\n",
                (long long)(places[i] + 2 * CHUNK), (double)now / (1 << 20),
                (double)mn__memory_now().peak_bytes / (1 << 20), mn__clock() - begin);
        if (i == 0) {
            activations = now;
            held = mn__memory_now().peak_bytes;
        }
        assert_int_equal(now, activations);
    }
    assert_true(mn__memory_now().peak_bytes <= held + state_bytes / states->layers + (4 << 20));
    int64_t weights = 0;
    for (int64_t i = 0; i < f.params.count; i++)
        weights += mn__param_bytes(&f.params, f.params.items[i]) / 2 * 3; /* masters, bf16 copies */
    int64_t peak = peak_of_process();
    fprintf(stderr, "weights %.1f MiB, state %.1f MiB, the process at its peak %.1f MiB\n",
            (double)weights / (1 << 20), (double)state_bytes / (1 << 20), (double)peak / (1 << 20));
    assert_true(mn__memory_now().peak_bytes < weights + state_bytes + SPARE);
    if (peak > 0)
        assert_true(peak < weights + state_bytes + SPARE);
    close_session(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_does_not_grow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
