/* The public interface on small models: what it says is what the library's own calls come to,
 * ownership is as the header has it (under the address sanitizer), and misuse is an error. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "eval/conversation.h"
#include "mneme.h"
#include "support/failing.h"
#include "support/folder.h"
#include "support/model.h"
#include "support/small_model.h"

enum { BYTES = 1500, TOKENS = BYTES + 1, CHUNK = 512, V = SMALL_VOCABULARY };

static const char *folder;
static char text[BYTES + 1], model_path[512], sliding_path[512], other_path[512], bare_path[512];

static void make(char *path, const char *name, const char *type, uint32_t seed, const char *chat)
{
    strcpy(path, folder_path(folder, "%s", name));
    small_model_make(path, type, seed, chat);
}

static int setup(void **state)
{
    int status = folder_make(state);
    folder = *state;
    for (int i = 0; i < BYTES; i++)
        text[i] = "the river runs to the sea.\n"[(i + i / 50) % 27];
    make(model_path, "model", "llama", 1, small_model_chat);
    make(other_path, "other", "llama", 2, small_model_chat);
    make(sliding_path, "sliding", "mistral", 1, small_model_chat);
    make(bare_path, "bare", "llama", 1, NULL);
    return status;
}

static const mn_model_options one_thread = {.threads = 1};

static mn_model *open_model(const char *path, const mn_model_options *options)
{
    mn_error error;
    mn_model *model;
    succeed(mn_model_open(&model, path, options, &error), &error);
    return model;
}

static mn_session *open_session(mn_model *model)
{
    mn_error error;
    mn_session *session;
    succeed(mn_session_open(&session, model, NULL, &error), &error);
    return session;
}

static int32_t *tokens_of(const mn_model *model, mn_turn turn, const char *said, int64_t *count)
{
    mn_error error;
    int32_t *ids;
    succeed(mn_tokenize(model, turn, said, (int64_t)strlen(said), &ids, count, &error), &error);
    return ids;
}

static void read_all(mn_session *session, const int32_t *ids, int64_t count)
{
    mn_error error;
    succeed(mn_session_sync(session, ids, count, NULL, NULL, NULL, &error), &error);
}

static void check_logits(mn_session *session, const float *expected)
{
    mn_error error;
    const float *logits = mn_session_logits(session, &error);
    assert_non_null(logits);
    assert_memory_equal(logits, expected, V * sizeof(float));
}

static void copy_logits(mn_session *session, float *to)
{
    mn_error error;
    const float *logits = mn_session_logits(session, &error);
    assert_non_null(logits);
    memcpy(to, logits, V * sizeof *to);
}

/* ---- Models and texts ------------------------------------------------------------------------ */

static void models(void **state)
{
    (void)state;
    mn_error error = {0};
    mn_model *model = open_model(model_path, &one_thread);
    mn_model_info info = mn_model_describe(model);
    assert_int_equal(info.vocabulary, V);
    assert_int_equal(info.window, SMALL_CONTEXT);
    assert_true(info.parameters > 20000 && info.chats);
    const char *fingerprint = mn_model_fingerprint(model, &error);
    assert_non_null(fingerprint);
    assert_int_equal(strlen(fingerprint), 32);
    assert_string_equal(info.precision, "f32");
    assert_int_equal(info.end_count, 1);
    assert_int_equal(info.ends[0], 259);
    mn_model_free(model);

    static const char *const settings[] = {"attention.type=window", "attention.window=100"};
    const mn_model_options how = {.threads = 1,
                                  .precision = "bf16",
                                  .weights = "int8",
                                  .settings = settings,
                                  .setting_count = 2};
    model = open_model(bare_path, &how);
    info = mn_model_describe(model);
    assert_true(info.window == INT64_MAX && !info.chats);
    assert_string_equal(info.precision, "bf16");
    int32_t *ids;
    int64_t count;
    assert_int_equal(mn_tokenize(model, MN_TURN_ALONE, "a", 1, &ids, &count, &error),
                     MN_ERROR_UNSUPPORTED);
    assert_true(!ids && *error.message && *error.hint);
    mn_model_free(model);
    static const char *const scaled[] = {"model.rope_scaling=yarn", "model.rope_original=2048",
                                         "model.rope_factor=1.5"};
    model = open_model(model_path, &(mn_model_options){.settings = scaled, .setting_count = 3});
    assert_int_equal(mn_model_describe(model).window, 3 * SMALL_CONTEXT / 2);
    mn_model_free(model);
    mn_model_free(NULL);

    const struct {
        mn_model_options options;
        const char *path;
        mn_status status;
    } wrong[] = {
        {{.precision = "f64"}, model_path, MN_ERROR_OPTION},
        {{.weights = "int3"}, model_path, MN_ERROR_OPTION},
        {{.weights = "bf16"}, model_path, MN_ERROR_OPTION},
        {{.cache = "int4"}, model_path, MN_ERROR_OPTION},
        {{.cache = "auto"}, model_path, MN_ERROR_OPTION},
        {{.threads = -1}, model_path, MN_ERROR_USAGE},
        {{.setting_count = 1}, model_path, MN_ERROR_USAGE},
        {{.tokens = -1}, model_path, MN_ERROR_USAGE},
        {{0}, "/nowhere", MN_ERROR_IO},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(mn_model_open(&model, wrong[i].path, &wrong[i].options, &error),
                         wrong[i].status);
        assert_true(!model && *error.message && *error.hint);
        assert_int_equal(mn_model_open(&model, wrong[i].path, &wrong[i].options, NULL),
                         wrong[i].status);
    }
}

static void check_turn(const mn_model *model, mn_turn turn, const char *said, const char *expected)
{
    mn_error error;
    int64_t count, bytes;
    char *back;
    int32_t *ids = tokens_of(model, turn, said, &count);
    succeed(mn_detokenize(model, ids, count, &back, &bytes, &error), &error);
    assert_string_equal(back, expected);
    assert_int_equal(bytes, strlen(expected));
    mn_free(back);
    mn_free(ids);
}

static void texts(void **state)
{
    (void)state;
    mn_error error;
    mn_model *model = open_model(model_path, &one_thread);
    check_turn(model, MN_TURN_RAW, "Hi.", "<s>Hi.");
    check_turn(model, MN_TURN_ON, "Hi.", "Hi.");
    check_turn(model, MN_TURN_TEXT, "A text.", "<s><|user|>A text.\n\n");
    check_turn(model, MN_TURN_FIRST, "Why?", "Why?<|end|><|assistant|>");
    check_turn(model, MN_TURN_LATER, "And?", "<|end|><|user|>And?<|end|><|assistant|>");
    check_turn(model, MN_TURN_ALONE, "Why?", "<s><|user|>Why?<|end|><|assistant|>");
    check_turn(model, MN_TURN_ON, "", "");
    int32_t *ids;
    int64_t count, bytes;
    char *back;
    assert_int_equal(mn_tokenize(model, (mn_turn)9, "a", 1, &ids, &count, &error), MN_ERROR_USAGE);
    assert_int_equal(mn_tokenize(model, MN_TURN_RAW, "a", -1, &ids, &count, &error),
                     MN_ERROR_USAGE);
    assert_int_equal(mn_detokenize(model, &(int32_t){V}, 1, &back, &bytes, &error),
                     MN_ERROR_MISMATCH);
    assert_null(back);
    mn_model_free(model);
}

/* What is planned is what a session then takes. */
static void memory(void **state)
{
    (void)state;
    mn_error error;
    mn_memory few, many;
    succeed(mn_memory_estimate(model_path, &one_thread, 1024, &few, &error), &error);
    succeed(mn_memory_estimate(model_path, &one_thread, 2048, &many, &error), &error);
    assert_true(few.weights > 0 && few.weights == many.weights);
    assert_int_equal(few.activations, many.activations); /* of one chunk */
    /* keys and values: 2 layers, 2 of 2 heads of 8, F32 */
    assert_true(few.state >= 2LL * 2 * 16 * 4 * 1024 && many.state > few.state);
    assert_int_equal(few.total, few.weights + few.state + few.activations);
    mn_model *model = open_model(model_path, &one_thread);
    mn_session *session = open_session(model);
    int64_t count, bytes;
    int32_t *ids = tokens_of(model, MN_TURN_RAW, text, &count);
    read_all(session, ids, 1024);
    const char *path = folder_path(folder, "planned.mns");
    succeed(mn_session_save(session, path, &error), &error);
    free(folder_read(path, &bytes));
    assert_true(bytes > few.session && bytes < few.session + 16384); /* a header, and the tokens */
    mn_free(ids);
    mn_session_free(session);
    mn_model_free(model);

    /* kept in half the bytes; a session that was kept otherwise is not read as if it were so */
    const mn_model_options halves = {.threads = 1, .cache = "bf16"};
    succeed(mn_memory_estimate(model_path, &halves, 1024, &many, &error), &error);
    assert_int_equal(few.state - many.state, 2LL * 2 * 16 * 2 * 1024);
    model = open_model(model_path, &halves);
    assert_int_equal(mn_session_load(&session, model, path, NULL, &error), MN_ERROR_MISMATCH);
    assert_null(session);
    mn_model_free(model);
    assert_int_equal(mn_memory_estimate(model_path, NULL, 3000, &few, &error), MN_ERROR_MISMATCH);
    assert_int_equal(mn_memory_estimate(model_path, NULL, 0, &few, &error), MN_ERROR_USAGE);
    assert_int_equal(mn_memory_estimate("/nowhere", NULL, 9, &few, &error), MN_ERROR_IO);
    succeed(mn_memory_estimate(sliding_path, NULL, 100000, &few, &error), &error);
    assert_true(few.state < 100000);
}

/* ---- Sessions ---------------------------------------------------------------------------------
 */

struct seen {
    int64_t calls, most, stop;
};

static bool see(void *user, int64_t done, int64_t total)
{
    struct seen *seen = user;
    assert_true(done >= 0 && done <= total);
    seen->calls++;
    seen->most = done;
    return done < seen->stop;
}

/* Reading whole, in parts, stopped and gone on with, and to another text and back. */
static void check_sync(const char *path)
{
    mn_error error;
    mn_sync sync;
    float whole[V], part[V], logits[V];
    mn_model *model = open_model(path, &one_thread);
    mn_session *session = open_session(model), *other = open_session(model);
    int64_t count, n;
    int32_t *ids = tokens_of(model, MN_TURN_RAW, text, &count);
    assert_int_equal(count, TOKENS);
    struct seen seen = {.stop = INT64_MAX};
    succeed(mn_session_sync(session, ids, 700, see, &seen, &sync, &error), &error);
    assert_true(sync.how == MN_SYNCED_EXTENDED && sync.read == 700 && sync.reused == 0);
    assert_int_equal(seen.calls, 2);
    copy_logits(session, part);
    succeed(mn_session_sync(session, ids, count, see, &seen, &sync, &error), &error);
    assert_true(sync.how == MN_SYNCED_EXTENDED && sync.reused == 700 && sync.read == count - 700);
    copy_logits(session, whole);
    const int32_t *own = mn_session_ids(session, &n);
    assert_int_equal(n, count);
    assert_memory_equal(own, ids, (size_t)count * sizeof *ids);

    /* stopped, and gone on with */
    seen = (struct seen){.stop = CHUNK};
    assert_int_equal(mn_session_sync(other, ids, 700, see, &seen, &sync, &error),
                     MN_ERROR_INTERRUPTED);
    mn_session_ids(other, &n);
    assert_int_equal(n, CHUNK);
    succeed(mn_session_sync(other, ids, 700, NULL, NULL, &sync, &error), &error);
    assert_int_equal(sync.reused, CHUNK);
    check_logits(other, part);

    /* to a shorter text, another one, and back */
    succeed(mn_session_sync(session, ids, 700, NULL, NULL, &sync, &error), &error);
    assert_true(sync.how == MN_SYNCED_REWOUND && sync.dropped == count - 700);
    check_logits(session, part);
    ids[600] = 'x';
    succeed(mn_session_sync(session, ids, 700, NULL, NULL, &sync, &error), &error);
    assert_true(sync.how == MN_SYNCED_REWOUND && sync.dropped == 100);
    copy_logits(session, logits);
    assert_memory_not_equal(logits, part, sizeof part);
    ids[600] = text[599];
    ids[0] = 'y';
    succeed(mn_session_sync(session, ids, 20, NULL, NULL, &sync, &error), &error);
    assert_int_equal(sync.read, 20);
    ids[0] = 256;
    read_all(session, ids, 700);
    read_all(session, ids, count);
    check_logits(session, whole);

    /* forks and snapshots */
    mn_session *fork;
    succeed(mn_session_rewind(session, 700, &sync, &error), &error);
    check_logits(session, part);
    assert_true(mn_session_snapshot(session));
    succeed(mn_session_fork(&fork, session, &error), &error);
    succeed(mn_session_read(session, ids + 700, count - 700, NULL, NULL, &error), &error);
    check_logits(session, whole);
    check_logits(fork, part);
    succeed(mn_session_rewind(session, 700, &sync, &error), &error);
    assert_true(sync.how == MN_SYNCED_REWOUND && sync.read == 0);
    check_logits(session, part);
    seen = (struct seen){.stop = 1024};
    assert_int_equal(mn_session_read(fork, ids + 700, count - 700, see, &seen, &error),
                     MN_ERROR_INTERRUPTED);
    mn_session_ids(fork, &n);
    succeed(mn_session_read(fork, ids + n, count - n, see, &(struct seen){.stop = count}, &error),
            &error);
    check_logits(fork, whole);
    mn_session_free(fork);
    mn_session_free(other);
    mn_session_free(session);
    mn_session_free(NULL);
    mn_model_free(model);
    mn_free(ids);
}

static void syncs(void **state)
{
    (void)state;
    check_sync(model_path);
    check_sync(sliding_path);
}

/* Of the rows asked for: those of a session that has read so far and no further, to rounding, as
 * sums of products are cut by how many rows there are; of a row that is alone in its segment and
 * the last, bit for bit. */
static void rows_of_logits(void **state)
{
    (void)state;
    static const int64_t rows[] = {0, 1, 99, 510, 511, 512, 600, 1022, 1023, 1200};
    enum { ROWS = sizeof rows / sizeof *rows };
    float logits[ROWS * V];
    mn_error error;
    mn_model *model = open_model(model_path, &one_thread);
    mn_session *session = open_session(model), *other;
    int64_t count, n;
    int32_t *ids = tokens_of(model, MN_TURN_RAW, text, &count);
    succeed(mn_session_read_logits(session, ids, 1201, rows, ROWS, logits, &error), &error);
    mn_session_ids(session, &n);
    assert_int_equal(n, 1201);
    check_logits(session, logits + (ROWS - 1) * V);
    for (int i = 0; i < ROWS; i++) {
        other = open_session(model);
        read_all(other, ids, rows[i] + 1);
        const float *expected = mn_session_logits(other, &error);
        assert_non_null(expected);
        float most = 0;
        for (int v = 0; v < V; v++)
            most = fmaxf(most, fabsf(expected[v]));
        for (int v = 0; v < V; v++)
            if (!(fabsf(expected[v] - logits[i * V + v]) <= 1e-5f * most))
                fail_msg("row %lld, %d: %g, not %g", (long long)rows[i], v,
                         (double)logits[i * V + v], (double)expected[v]);
        mn_session_free(other);
    }
    /* of later tokens, from where it stands; and of none */
    succeed(mn_session_read_logits(session, ids + 1201, 100, (int64_t[]){5}, 1, logits, &error),
            &error);
    succeed(mn_session_read_logits(session, ids + 1301, 100, NULL, 0, NULL, &error), &error);
    static const int64_t wrong[][2] = {{3, 3}, {4, 3}, {-1, 2}, {3, 50}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(mn_session_read_logits(session, ids, 50, wrong[i], 2, logits, &error),
                         MN_ERROR_USAGE);
    mn_session_ids(session, &n);
    assert_int_equal(n, 1401);
    mn_session_free(session);
    mn_model_free(model);
    mn_free(ids);
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static bool gather(void *user, const char *said, int64_t bytes)
{
    strncat(user, said, (size_t)bytes);
    return true;
}

static void check_file(const char *path)
{
    mn_error error;
    char first[512] = "", again[512] = "";
    const mn_generate_options how = {.tokens = 20, .temperature = 1, .top_p = 0.9, .seed = 3};
    mn_generated generated;
    mn_model *model = open_model(path, &one_thread);
    mn_session *session = open_session(model), *loaded;
    int64_t count, n, same;
    int32_t *ids = tokens_of(model, MN_TURN_TEXT, text, &count);
    int32_t *question = tokens_of(model, MN_TURN_FIRST, "Why?", &n);
    const char *file = folder_path(folder, "book.mns");
    read_all(session, ids, count);
    succeed(mn_session_save(session, file, &error), &error);
    succeed(mn_session_read(session, question, n, NULL, NULL, &error), &error);
    succeed(mn_session_generate(session, &how, gather, first, &generated, &error), &error);
    assert_true(generated.tokens > 0 && generated.tokens <= 20 && !generated.stopped_by);
    mn_session_free(session);
    mn_model_free(model);

    model = open_model(path, &one_thread);
    succeed(mn_session_load(&loaded, model, file, NULL, &error), &error);
    const int32_t *own = mn_session_ids(loaded, &same);
    assert_int_equal(same, count);
    assert_memory_equal(own, ids, (size_t)count * sizeof *ids);
    succeed(mn_session_read(loaded, question, n, NULL, NULL, &error), &error);
    succeed(mn_session_generate(loaded, &how, gather, again, &generated, &error), &error);
    assert_string_equal(first, again);
    mn_session_ids(loaded, &same);
    assert_int_equal(same, count + n + generated.tokens);
    mn_session_free(loaded);
    mn_free(question);
    mn_free(ids);
    mn_model_free(model);
}

/* A file of `mneme read` is a session of the same text. */
static void check_file_of_read(void)
{
    mn_error error;
    mn__device device;
    mn__conversation conversation;
    mn__read_report report;
    char path[512];
    strcpy(path, folder_path(folder, "read.mns"));
    const mn__manner manner = {.model = model_path};
    succeed(mn__device_open(&device, &error), &error);
    succeed(mn__conversation_open(&conversation, &device, &manner, path, &error), &error);
    succeed(mn__conversation_read(&conversation, text, BYTES, false, 0, NULL, &report, &error),
            &error);
    mn__conversation_close(&conversation);
    mn__device_close(&device);
    mn_session *session;
    mn_model *model = open_model(model_path, &one_thread);
    int64_t count, n;
    int32_t *ids = tokens_of(model, MN_TURN_TEXT, text, &count);
    succeed(mn_session_load(&session, model, path, NULL, &error), &error);
    const int32_t *own = mn_session_ids(session, &n);
    assert_int_equal(n, count);
    assert_memory_equal(own, ids, (size_t)n * sizeof *ids);
    mn_session_free(session);
    mn_model_free(model);
    mn_free(ids);
}

static void files(void **state)
{
    (void)state;
    mn_error error;
    mn_session *session;
    check_file_of_read();
    check_file(sliding_path);
    check_file(model_path);
    const char *file = folder_path(folder, "book.mns"), *junk = folder_path(folder, "junk.mns");
    mn_model *other = open_model(other_path, &one_thread);
    assert_int_equal(mn_session_load(&session, other, file, NULL, &error), MN_ERROR_MISMATCH);
    assert_null(session);
    assert_non_null(strstr(error.message, "other weights"));
    mn_model_free(other);
    other = open_model(model_path, &(mn_model_options){.threads = 1, .precision = "bf16"});
    assert_int_equal(mn_session_load(&session, other, file, NULL, &error), MN_ERROR_MISMATCH);
    folder_write(junk, "no session", -1);
    assert_int_equal(mn_session_load(&session, other, junk, NULL, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn_session_load(&session, other, "/nowhere", NULL, &error), MN_ERROR_IO);
    assert_null(session);
    mn_model_free(other);
}

/* ---- Generation -------------------------------------------------------------------------------
 */

static bool refuse(void *user, const char *said, int64_t bytes)
{
    (void)user, (void)said, (void)bytes;
    return false;
}

static void generates(void **state)
{
    (void)state;
    mn_error error;
    mn_generated generated;
    char said[4096] = "", more[4096] = "";
    mn_model *model = open_model(model_path, &one_thread);
    mn_session *session = open_session(model), *fork;
    int64_t count, n;
    int32_t *ids = tokens_of(model, MN_TURN_RAW, "the river", &count);
    assert_int_equal(mn_session_generate(session, NULL, gather, said, NULL, &error),
                     MN_ERROR_USAGE); /* nothing was read */
    read_all(session, ids, count);
    succeed(mn_session_fork(&fork, session, &error), &error);
    succeed(mn_session_generate(session, &(mn_generate_options){.tokens = 30}, gather, said,
                                &generated, &error),
            &error);
    /* in two calls, the same */
    for (int i = 0; i < 2; i++)
        succeed(mn_session_generate(fork, &(mn_generate_options){.tokens = 15}, gather, more, NULL,
                                    &error),
                &error);
    int64_t tokens;
    const int32_t *one = mn_session_ids(session, &n), *two = mn_session_ids(fork, &tokens);
    assert_int_equal(n, count + generated.tokens);
    assert_int_equal(tokens, n);
    assert_memory_equal(one, two, (size_t)n * sizeof *one);
    /* stopped by a text, and by the caller */
    size_t ascii = 0;
    while ((unsigned char)said[ascii] > 0x7F)
        ascii++;
    assert_true(said[ascii] != '\0');
    const char end[2] = {said[ascii], '\0'}, *const stop[] = {"no such text", end};
    *more = '\0';
    succeed(mn_session_rewind(fork, count, NULL, &error), &error);
    succeed(mn_session_generate(fork,
                                &(mn_generate_options){.tokens = 30, .stop = stop, .stop_count = 2},
                                gather, more, &generated, &error),
            &error);
    assert_ptr_equal(generated.stopped_by, end);
    assert_int_equal(strlen(more), ascii);
    assert_int_equal(mn_session_generate(fork, NULL, refuse, NULL, NULL, &error),
                     MN_ERROR_INTERRUPTED);
    assert_int_equal(mn_session_generate(fork, &(mn_generate_options){.tokens = SMALL_CONTEXT},
                                         gather, more, NULL, &error),
                     MN_ERROR_MISMATCH);
    assert_int_equal(mn_session_generate(fork, &(mn_generate_options){.temperature = -1}, gather,
                                         more, NULL, &error),
                     MN_ERROR_USAGE);
    assert_int_equal(mn_session_generate(fork, &(mn_generate_options){.tokens = INT64_MAX}, gather,
                                         more, NULL, &error),
                     MN_ERROR_USAGE);
    mn_session_free(fork);
    mn_session_free(session);
    mn_model_free(model);
    mn_free(ids);
}

/* ---- Misuse and short memory
 * --------------------------------------------------------------------- */

static void misuse(void **state)
{
    (void)state;
    mn_error error;
    mn_session *session;
    mn_model *model = open_model(model_path, &one_thread);
    static const mn_session_options wrong[] = {
        {.capacity = -1}, {.chunk = -1}, {.snapshot_bytes = -1}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mn_session_open(&session, model, &wrong[i], &error), MN_ERROR_USAGE);
        assert_null(session);
    }
    session = open_session(model);
    int32_t ids[SMALL_CONTEXT + 1] = {0};
    int64_t n;
    assert_null(mn_session_logits(session, &error));
    assert_int_equal(error.code, MN_ERROR_USAGE);
    assert_int_equal(mn_session_sync(session, ids, SMALL_CONTEXT + 1, NULL, NULL, NULL, &error),
                     MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "window of 2048"));
    assert_int_equal(mn_session_sync(session, ids, -1, NULL, NULL, NULL, &error), MN_ERROR_USAGE);
    ids[3] = V;
    assert_int_equal(mn_session_sync(session, ids, 9, NULL, NULL, NULL, &error), MN_ERROR_MISMATCH);
    ids[3] = -1;
    assert_int_equal(mn_session_read(session, ids, 9, NULL, NULL, &error), MN_ERROR_MISMATCH);
    assert_int_equal(mn_session_rewind(session, 1, NULL, &error), MN_ERROR_USAGE);
    mn_session_ids(session, &n);
    assert_int_equal(n, 0);
    mn_session_free(session);
    mn_model_free(model);
}

/* Everything once, each allocation failing in turn. */
static mn_status everything(void *user, mn_error *error)
{
    mn_model *model = NULL;
    mn_session *session = NULL, *fork = NULL;
    int32_t *ids = NULL;
    int64_t count;
    char *back = NULL, said[512] = "";
    float logits[V];
    mn_memory planned;
    const char *file = user;
    mn_status status = mn_memory_estimate(model_path, &one_thread, 50, &planned, error);
    if (status == MN_OK)
        status = mn_model_open(&model, model_path, &one_thread, error);
    if (status == MN_OK)
        status = mn_tokenize(model, MN_TURN_TEXT, text, 40, &ids, &count, error);
    int64_t bytes;
    if (status == MN_OK)
        status = mn_detokenize(model, ids, count, &back, &bytes, error);
    if (status == MN_OK)
        status = mn_session_open(&session, model, NULL, error);
    if (status == MN_OK)
        status = mn_session_sync(session, ids, count, NULL, NULL, NULL, error);
    if (status == MN_OK)
        status = mn_session_read_logits(session, ids, 10, (int64_t[]){7}, 1, logits, error);
    if (status == MN_OK)
        status = mn_session_fork(&fork, session, error);
    if (status == MN_OK)
        status = mn_session_generate(fork, &(mn_generate_options){.tokens = 3}, gather, said, NULL,
                                     error);
    if (status == MN_OK)
        status = mn_session_save(fork, file, error);
    mn_session_free(session);
    session = NULL;
    if (status == MN_OK)
        status = mn_session_load(&session, model, file, NULL, error);
    mn_session_free(session);
    mn_session_free(fork);
    mn_model_free(model);
    mn_free(ids);
    mn_free(back);
    return status;
}

static void allocations(void **state)
{
    (void)state;
    mn_error error;
    static char file[512];
    strcpy(file, folder_path(folder, "failing.mns"));
    succeed(everything(file, &error), &error);
    assert_true(failing_each("the public interface", everything, file, false, NULL) > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models),         cmocka_unit_test(texts),
        cmocka_unit_test(memory),         cmocka_unit_test(syncs),
        cmocka_unit_test(rows_of_logits), cmocka_unit_test(files),
        cmocka_unit_test(generates),      cmocka_unit_test(misuse),
        cmocka_unit_test(allocations),
    };
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
