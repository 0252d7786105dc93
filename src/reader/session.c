/* A session: reading on, segment by segment. */
#include "reader/session.h"

#include <string.h>

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, "use fewer rows or shorter chunks",
                    "no memory for a session");
}

mn_status mn__session_open(mn__session *session, mn__decoder *decoder, mn__params *params,
                           const mn__session_options *options, mn_error *error)
{
    *session = (mn__session){.decoder = decoder, .params = params, .options = *options};
    if (session->options.chunk <= 0)
        session->options.chunk = 512;
    session->grid = mn__decoder_grid(decoder);
    mn__arena_init(&session->arena, 1 << 16);
    mn__tape_init(&session->tape, params, options->compute);
    int64_t rows = options->rows, C = mn__decoder_options_of(decoder)->width;
    session->hidden = mn__arena_calloc(&session->arena, rows * C, sizeof *session->hidden);
    session->logits = mn__arena_calloc(&session->arena, rows * mn__decoder_vocabulary(decoder),
                                       sizeof *session->logits);
    mn_status status = session->hidden && session->logits ? MN_OK : no_memory(error);
    if (status == MN_OK)
        status = mn__decoder_states_open(decoder, &session->states, rows, options->capacity,
                                         options->compute, error);
    if (status != MN_OK)
        mn__session_close(session);
    return status;
}

void mn__session_close(mn__session *session)
{
    mn__states_close(&session->states);
    mn__tape_free(&session->tape);
    mn__arena_free(&session->arena);
    *session = (mn__session){0};
}

void mn__session_reset(mn__session *session)
{
    mn__states_start(&session->states, NULL);
    session->torn = false;
}

mn_status mn__session_check(const mn__session *session, mn_error *error)
{
    return session->torn
               ? mn__fail(error, MN_ERROR_MEMORY, "reset the session, or load a saved one",
                          "memory ran out while the session remembered a segment")
               : MN_OK;
}

/* Whether all of a step was computed: what its kernels lacked, too. */
static mn_status check_step(mn__session *session, mn_error *error)
{
    mn_status status = mn__tape_status(&session->tape, error);
    mn_status queue = mn__queue_check(&session->tape.device->queue, status ? NULL : error);
    return status ? status : queue;
}

/* ---- Reading ----------------------------------------------------------------------- */

/* Columns from..from+T of a [rows, all] array, in the step's memory. */
#define COLUMNS(session, array, all, from, T) \
    columns(session, array, (int64_t)sizeof *(array), all, from, T)
static void *columns(mn__session *session, const void *array, int64_t each, int64_t all,
                     int64_t from, int64_t T)
{
    int64_t rows = session->options.rows;
    char *out = mn__arena_calloc(&session->tape.nodes, rows * T, each);
    for (int64_t b = 0; out && b < rows; b++)
        memcpy(out + b * T * each, (const char *)array + (b * all + from) * each,
               (size_t)(T * each));
    return out;
}

static int64_t real_tokens(const mn__stretch *stretch, int64_t row)
{
    return stretch->valid ? stretch->valid[row] : stretch->T;
}

/* How far the next segment may go: to the next grid point, which is the same for
 * all rows that have tokens left. */
static mn_status segment_length(const mn__session *session, const mn__stretch *stretch,
                                int64_t from, int64_t *length, mn_error *error)
{
    int64_t longest = 0, phase = -1;
    for (int64_t b = 0; b < session->options.rows; b++) {
        int64_t left = real_tokens(stretch, b) - from;
        bool starts = from == 0 && stretch->start && stretch->start[b];
        int64_t own = starts ? 0 : session->states.position[b] % session->grid;
        if (left <= 0)
            continue;
        if (phase >= 0 && own != phase)
            return mn__fail(error, MN_ERROR_MISMATCH, "read them in sessions of their own",
                            "rows at different places of the segment grid of %lld tokens",
                            (long long)session->grid);
        phase = own;
        longest = left > longest ? left : longest;
    }
    int64_t most = session->options.chunk;
    int64_t next = phase < 0 ? INT64_MAX : mn__decoder_next_point(session->decoder, phase) - phase;
    most = most < next ? most : next;
    *length = longest < most ? longest : most;
    return MN_OK;
}

/* Hidden states of a row's tokens t..t+count to `to` [count, C]. */
static void keep_hidden(mn__session *session, const mn__var *hidden, int64_t row, int64_t t,
                        int64_t count, float *to)
{
    int64_t C = hidden->value.size[2];
    mn__tensor from = mn__tensor_slice(&hidden->value, 0, row, 1);
    from = mn__tensor_slice(&from, 1, t, count);
    mn__tensor own = mn__tensor_of(to, MN__F32, 3, (int64_t[]){1, count, C});
    mn__tensor_convert(&session->tape.device->queue, &own, &from);
}

/* Each row's last one, and all that the stretch wants. */
static void keep_all_hidden(mn__session *session, const mn__stretch *stretch, int64_t from,
                            const mn__var *hidden, const mn__segment *segment)
{
    if (session->tape.device->counting)
        return;
    int64_t C = hidden->value.size[2];
    for (int64_t b = 0; b < segment->B; b++) {
        int64_t valid = mn__segment_valid(segment, b);
        if (valid == 0)
            continue;
        keep_hidden(session, hidden, b, valid - 1, 1, session->hidden + b * C);
        if (stretch->hidden)
            keep_hidden(session, hidden, b, 0, valid,
                        stretch->hidden + (b * stretch->T + from) * C);
    }
}

/* The weighted targets' nats of one segment into columns of stretch->losses; a
 * failure stays on the tape. */
static void score(mn__session *session, const mn__stretch *stretch, mn__var *hidden, int64_t from,
                  int64_t T)
{
    mn__tape *tape = &session->tape;
    int64_t rows = session->options.rows;
    const int32_t *targets = COLUMNS(session, stretch->targets, stretch->T, from, T);
    float *weights = COLUMNS(session, stretch->weights, stretch->T, from, T);
    float *losses = mn__arena_calloc(&tape->nodes, rows * T, sizeof *losses);
    if (!targets || !weights || !losses) {
        mn__tape_fail(tape, MN_ERROR_MEMORY, NULL, "no memory for losses");
        return;
    }
    for (int64_t b = 0; b < rows; b++)
        for (int64_t t = 0; t < T; t++)
            if (from + t >= real_tokens(stretch, b))
                weights[b * T + t] = 0.0f;
    if (!mn__decoder_loss(session->decoder, tape, hidden, targets, weights, 1.0f, 0.0f, losses))
        return;
    for (int64_t b = 0; b < rows; b++)
        memcpy(stretch->losses + b * stretch->T + from, losses + b * T, (size_t)T * sizeof *losses);
}

static mn_status read_segment(mn__session *session, const mn__stretch *stretch, int64_t from,
                              int64_t T, mn_error *error)
{
    mn__tape *tape = &session->tape;
    int64_t rows = session->options.rows;
    const int32_t *ids = COLUMNS(session, stretch->ids, stretch->T, from, T);
    int64_t *valid = mn__arena_calloc(&tape->nodes, rows, sizeof *valid);
    if (!ids || !valid)
        return no_memory(error);
    for (int64_t b = 0; b < rows; b++) {
        int64_t left = real_tokens(stretch, b) - from;
        valid[b] = left < 0 ? 0 : left < T ? left : T;
    }
    mn__segment segment = {.B = rows,
                           .T = T,
                           .valid = valid,
                           .start = from == 0 ? stretch->start : NULL,
                           .watch = session->options.watch};
    mn__var *hidden = mn__decoder_forward(session->decoder, tape, &segment, ids, &session->states);
    if (hidden && stretch->targets)
        score(session, stretch, hidden, from, T);
    mn_status status = check_step(session, error);
    if (status != MN_OK)
        return status;
    mn__decoder_commit(session->decoder, tape, &segment, &session->states, false);
    keep_all_hidden(session, stretch, from, hidden, &segment);
    status = check_step(session, error);
    session->torn = status != MN_OK;
    return status;
}

mn_status mn__session_read(mn__session *session, const mn__stretch *stretch, mn_error *error)
{
    mn_status status = mn__session_check(session, error);
    for (int64_t from = 0, T = 0; from < stretch->T && status == MN_OK; from += T) {
        status = segment_length(session, stretch, from, &T, error);
        if (status != MN_OK || T == 0)
            break;
        status = read_segment(session, stretch, from, T, error);
        mn__tape_reset(&session->tape);
    }
    return status;
}

static mn_status check_read(const mn__session *session, mn_error *error)
{
    for (int64_t b = 0; b < session->options.rows; b++)
        if (session->states.position[b] > 0)
            return mn__session_check(session, error);
    return mn__fail(error, MN_ERROR_USAGE, "read at least the tokenizer's start id",
                    "nothing has been read that a token could follow");
}

/* A few rows at a time, so that the tape's memory stays small. */
mn_status mn__session_head(mn__session *session, const float *hidden, int64_t count, float *logits,
                           mn_error *error)
{
    enum { AT_ONCE = 64 };
    mn__tape *tape = &session->tape;
    int64_t C = mn__decoder_options_of(session->decoder)->width;
    int64_t V = mn__decoder_vocabulary(session->decoder);
    int32_t every[AT_ONCE];
    mn_status status = MN_OK;
    for (int32_t i = 0; i < AT_ONCE; i++)
        every[i] = i;
    for (int64_t from = 0, rows; from < count && status == MN_OK; from += rows) {
        rows = count - from < AT_ONCE ? count - from : AT_ONCE;
        mn__tensor own = mn__tensor_of((float *)(uintptr_t)(hidden + from * C), MN__F32, 2,
                                       (int64_t[]){rows, C});
        mn__var *var =
            mn__decoder_logits(session->decoder, tape, mn__tape_constant(tape, own), every, rows);
        if (var)
            memcpy(logits + from * V, var->value.data, (size_t)mn__tensor_bytes(&var->value));
        status = check_step(session, error);
        mn__tape_reset(tape);
    }
    return status;
}

const float *mn__session_logits(mn__session *session, mn_error *error)
{
    if (check_read(session, error) != MN_OK)
        return NULL;
    mn_status status =
        mn__session_head(session, session->hidden, session->options.rows, session->logits, error);
    return status == MN_OK ? session->logits : NULL;
}
