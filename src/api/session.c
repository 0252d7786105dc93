/* Sessions of the public interface: a reading, which is never longer than its model's window. */
#include <string.h>

#include "api/own.h"
#include "base/memory.h"
#include "eval/generate.h"
#include "reader/session_file.h"

enum { MOST_TOKENS = 1000000000 }; /* of one generation: sums of them stay far from overflow */

static const mn_session_options usual;

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a session");
}

/* ---- Opening -------------------------------------------------------------------------- */

/* With room for at least so many tokens. */
static mn_status open_reading(mn_session *session, const mn_session_options *options, int64_t least,
                              mn_error *error)
{
    mn_model *model = session->model;
    int64_t capacity = options->capacity > least ? options->capacity : least;
    const mn__reading_options own = {.capacity = capacity > 0 ? capacity : 1,
                                     .chunk =
                                         options->chunk > 0 ? options->chunk : model->run.segment,
                                     .budget = options->snapshot_bytes,
                                     .compute = model->compute};
    return mn__reading_open(&session->reading, model->run.decoder, &model->run.params, &own, error);
}

static mn_status begin(mn_session **out, mn_model *model, const mn_session_options *options,
                       int64_t least, mn_error *error)
{
    *out = NULL;
    if (options->capacity < 0 || options->chunk < 0 || options->snapshot_bytes < 0)
        return mn__fail(error, MN_ERROR_USAGE, "0 is the usual",
                        "an option of a session is negative");
    mn_session *session = mn__calloc(1, sizeof *session);
    if (!session)
        return no_memory(error);
    session->model = model;
    mn_status status = open_reading(session, options, least, error);
    if (status == MN_OK)
        *out = session;
    else
        mn__free(session);
    return status;
}

mn_status mn_session_open(mn_session **session, mn_model *model, const mn_session_options *options,
                          mn_error *error)
{
    return begin(session, model, options ? options : &usual, 1, error);
}

void mn_session_free(mn_session *session)
{
    if (!session)
        return;
    mn__reading_close(&session->reading);
    mn__free(session);
}

mn_status mn_session_fork(mn_session **out, const mn_session *session, mn_error *error)
{
    *out = NULL;
    mn_session *fork = mn__calloc(1, sizeof *fork);
    if (!fork)
        return no_memory(error);
    fork->model = session->model;
    mn_status status = mn__reading_fork(&fork->reading, &session->reading, error);
    if (status == MN_OK)
        *out = fork;
    else
        mn__free(fork);
    return status;
}

const int32_t *mn_session_ids(const mn_session *session, int64_t *count)
{
    *count = session->reading.ids.count;
    return session->reading.ids.id;
}

/* ---- Reading -------------------------------------------------------------------------- */

/* Progress of the library's own, handed on. */
struct telling {
    mn_progress *progress;
    void *user;
};

static bool tell(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    const struct telling *telling = user;
    (void)what, (void)note;
    return !telling->progress || telling->progress(telling->user, done, total);
}

/* Ids that are some, a text that the model's window holds, and memory for it. */
static mn_status prepare(mn_session *session, const int32_t *ids, int64_t count, int64_t total,
                         mn_error *error)
{
    const mn_model *model = session->model;
    int64_t V = mn__decoder_vocabulary(model->run.decoder);
    if (count < 0)
        return mn__fail(error, MN_ERROR_USAGE, NULL, "%lld tokens", (long long)count);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return mn__fail(error, MN_ERROR_MISMATCH, "take them from mn_tokenize of this model",
                            "id %d is outside the vocabulary of %lld", ids[i], (long long)V);
    mn_status status = mn__model_check_length(&model->run, total, model->compute, error);
    if (status != MN_OK)
        return status;
    return mn__reading_reserve(&session->reading, total - session->reading.ids.count, error);
}

static mn_sync sync_of(mn__sync sync)
{
    static const mn_synced how[] = {[MN__EXTENDED] = MN_SYNCED_EXTENDED,
                                    [MN__REWOUND] = MN_SYNCED_REWOUND,
                                    [MN__REBUILT] = MN_SYNCED_REBUILT};
    return (mn_sync){
        .how = how[sync.how], .reused = sync.reused, .read = sync.read, .dropped = sync.dropped};
}

mn_status mn_session_sync(mn_session *session, const int32_t *ids, int64_t count,
                          mn_progress *progress, void *user, mn_sync *sync, mn_error *error)
{
    struct telling telling = {progress, user};
    const mn__progress own = {.report = tell, .user = &telling};
    mn__sync done = {0};
    mn_status status = prepare(session, ids, count, count, error);
    if (status == MN_OK)
        status = mn__reading_sync(&session->reading, ids, count, "reading", &own, &done, error);
    if (sync)
        *sync = sync_of(done);
    return status;
}

mn_status mn_session_read(mn_session *session, const int32_t *ids, int64_t count,
                          mn_progress *progress, void *user, mn_error *error)
{
    mn__reading *reading = &session->reading;
    int64_t total = reading->ids.count + count, chunk = reading->options.chunk;
    mn_status status = prepare(session, ids, count, total, error);
    for (int64_t done = 0, n; done < count && status == MN_OK; done += n) {
        n = chunk - reading->ids.count % chunk; /* to where segments end */
        n = n < count - done ? n : count - done;
        if (progress && !progress(user, reading->ids.count, total))
            status =
                mn__fail(error, MN_ERROR_INTERRUPTED, "go on with those that are left",
                         "stopped after %lld of %lld tokens", (long long)done, (long long)count);
        else
            status = mn__reading_add(reading, ids + done, n, error);
    }
    return status;
}

mn_status mn_session_read_logits(mn_session *session, const int32_t *ids, int64_t count,
                                 const int64_t *rows, int64_t row_count, float *logits,
                                 mn_error *error)
{
    mn__reading *reading = &session->reading;
    mn_status status = prepare(session, ids, count, reading->ids.count + count, error);
    if (status != MN_OK)
        return status;
    for (int64_t i = 0; i < row_count; i++)
        if (rows[i] >= count || rows[i] <= (i ? rows[i - 1] : -1))
            return mn__fail(error, MN_ERROR_USAGE, "let them rise from 0 to below the count of ids",
                            "row %lld of %lld is %lld", (long long)i, (long long)row_count,
                            (long long)rows[i]);
    return mn__reading_add_logits(reading, ids, count, rows, row_count, logits, error);
}

mn_status mn_session_rewind(mn_session *session, int64_t count, mn_sync *sync, mn_error *error)
{
    mn__sync done = {0};
    int64_t read = session->reading.ids.count;
    if (count < 0 || count > read)
        return mn__fail(error, MN_ERROR_USAGE, "mn_session_sync reads on, too",
                        "back to %lld tokens of %lld", (long long)count, (long long)read);
    mn_status status = mn__reading_rewind(&session->reading, count, &done, error);
    if (sync)
        *sync = sync_of(done);
    return status;
}

const float *mn_session_logits(mn_session *session, mn_error *error)
{
    return mn__reading_logits(&session->reading, error);
}

bool mn_session_snapshot(mn_session *session)
{
    return mn__reading_mark(&session->reading);
}

/* ---- Files ---------------------------------------------------------------------------- */

mn_status mn_session_save(const mn_session *session, const char *path, mn_error *error)
{
    mn__run *run = &session->model->run;
    const char *const metadata[] = {"tokenizer", run->tokenizer->fingerprint.hex, NULL};
    const char *weights = mn__run_fingerprint(run, error);
    if (!weights)
        return MN_ERROR_MEMORY;
    return mn__reading_save(&session->reading, path, weights, metadata, error);
}

mn_status mn_session_load(mn_session **out, mn_model *model, const char *path,
                          const mn_session_options *options, mn_error *error)
{
    mn__safetensors *file;
    mn__run *run = &model->run;
    *out = NULL;
    const char *weights = mn__run_fingerprint(run, error);
    mn_status status = weights ? mn__session_file_open(&file, path, error) : MN_ERROR_MEMORY;
    if (status != MN_OK)
        return status;
    status = mn__session_file_check_tokenizer(file, path, run->tokenizer->fingerprint.hex, error);
    if (status == MN_OK)
        status =
            begin(out, model, options ? options : &usual, mn__reading_file_tokens(file), error);
    if (status == MN_OK)
        status = mn__reading_take(&(*out)->reading, file, path, weights, error);
    if (status != MN_OK) {
        mn_session_free(*out);
        *out = NULL;
    }
    mn__safetensors_close(file);
    return status;
}

/* ---- Generation ----------------------------------------------------------------------- */

mn_status mn_session_generate(mn_session *session, const mn_generate_options *options,
                              mn_emit *emit, void *user, mn_generated *generated, mn_error *error)
{
    static const mn_generate_options nothing;
    options = options ? options : &nothing;
    if (options->tokens > MOST_TOKENS)
        return mn__fail(error, MN_ERROR_USAGE, "no text is so long", "%lld tokens to generate",
                        (long long)options->tokens);
    if (options->tokens < 0 || options->top_k < 0 || options->stop_count < 0 ||
        !(options->temperature >= 0) || !(options->top_p >= 0) || !(options->min_p >= 0))
        return mn__fail(error, MN_ERROR_USAGE, "0 is the usual",
                        "an option of generation is negative");
    const mn__generate_config config = {
        .prompt_bytes = 1, /* something stands before it */
        .tokens = options->tokens ? options->tokens : 256,
        .sample = {.temperature = options->temperature,
                   .top_k = options->top_k,
                   .top_p = options->top_p > 0 ? options->top_p : 1,
                   .min_p = options->min_p,
                   .seed = options->seed},
        .stop = {.items = (const char **)(uintptr_t)options->stop, .count = options->stop_count},
        .hide_special = session->model->chat,
        .emit = emit,
        .user = user};
    mn__generated own = {.unread = -1};
    mn_status status = prepare(session, NULL, 0, session->reading.ids.count + config.tokens, error);
    if (status == MN_OK)
        status = mn__generate_within(&session->model->run, &session->reading, &config, &own, error);
    if (generated)
        *generated =
            (mn_generated){.tokens = own.tokens, .ended = own.ended, .stopped_by = own.stopped_by};
    return status;
}
