/* Small trainings for tests. */
#include "support/training.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "support/folder.h"

enum { WORDS = 6000, OVERRIDES_MOST = 32 };

/* Words of a small vocabulary in random order: there is something to learn. */
static void write_text(const char *path)
{
    static const char *const words[] = {"the ",   "river ", "runs ",   "to ",
                                        "a ",     "sea ",   "where",   " some ",
                                        "ships ", "lie\n",  "still, ", "asleep. "};
    mn__string text = {0};
    mn__random_key key = {.seed = 5};
    for (uint64_t i = 0; i < WORDS; i++)
        mn__string_puts(&text, words[mn__random_below(key, i, 12)]);
    folder_write(path, text.text, text.bytes);
    mn__string_free(&text);
}

void training_make(const char *folder)
{
    write_text(folder_path(folder, "text.txt"));
    mn__string recipe = {0};
    mn__string_printf(&recipe,
                      "model: {depth: 2, width: 16, heads: 2, dropout: 0.1}\n"
                      "attention: {type: xl, memory: 16}\n"
                      "data:\n"
                      "  corpus: [%s]\n"
                      "  prepared: %s\n"
                      "  validation: 0.1\n"
                      "  batch: 4\n"
                      "  segment: 16\n"
                      "optimizer: {type: adamw, decay: 0.1}\n"
                      "schedule: {rate: 1e-2, warmup: 4}\n"
                      "train: {steps: 16, clip: 1, log_every: 3, checkpoint_every: 4, "
                      "validate_every: 5, validation_tokens: 256, precision: f32, threads: 1}\n",
                      folder_path(folder, "text.txt"), folder_path(folder, "data"));
    folder_write(folder_path(folder, "recipe.yaml"), recipe.text, recipe.bytes);
    mn__string_free(&recipe);
}

/* ---- Running ------------------------------------------------------------------------ */

static bool go_on(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)total, (void)note;
    const training *how = user;
    struct timespec pause = {0, how->pause * 1000};
    if (how->pause)
        nanosleep(&pause, NULL);
    return strcmp(what, "training") || !how->stop_after || done < how->stop_after;
}

static mn__train_call call_of(const training *how)
{
    mn__train_call call = {.overrides = how->overrides, .from = how->from, .resume = how->resume};
    call.recipe = how->recipe ? how->recipe : folder_path(how->folder, "recipe.yaml");
    call.folder = folder_path(how->folder, "%s", how->run);
    while (how->overrides && how->overrides[call.override_count])
        call.override_count++;
    return call;
}

mn_status training_run(const training *how, mn__train_result *result, mn_error *error)
{
    mn__train_call call = call_of(how);
    training copy = *how;
    mn__progress progress = {go_on, &copy};
    return mn__train(&call, &progress, result, error);
}

mn__train_result training_good(const training *how)
{
    mn_error error;
    mn__train_result result;
    if (training_run(how, &result, &error) != MN_OK)
        fail_msg("%s: %s", how->run, error.message);
    return result;
}

mn__trainer *training_open(const training *how)
{
    mn_error error;
    mn__trainer *trainer = NULL;
    mn__train_call call = call_of(how);
    if (mn__trainer_open(&trainer, &call, NULL, &error) != MN_OK)
        fail_msg("%s: %s", how->run, error.message);
    return trainer;
}

/* ---- Comparing ------------------------------------------------------------------------- */

/* A JSON object without what depends on the clock. */
static json_t *without_timings(const char *text, size_t bytes)
{
    static const char *const timings[] = {"tokens_per_s", "share_of_peak", "seconds", "event_bytes",
                                          "line_bytes"};
    json_t *object = json_loadb(text, bytes, 0, NULL);
    assert_non_null(object);
    for (size_t i = 0; i < sizeof timings / sizeof *timings; i++)
        json_object_del(object, timings[i]);
    return object;
}

static void compare_objects(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    json_t *left = without_timings(a, a_bytes), *right = without_timings(b, b_bytes);
    if (!json_equal(left, right))
        fail_msg("%.*s\nis not\n%.*s", (int)a_bytes, a, (int)b_bytes, b);
    json_decref(left);
    json_decref(right);
}

static void compare_metrics(const char *a_path, const char *b_path)
{
    int64_t bytes;
    char *a = folder_read(a_path, &bytes), *b = folder_read(b_path, &bytes);
    const char *left = a, *right = b;
    while (*left && *right) {
        size_t left_bytes = strcspn(left, "\n"), right_bytes = strcspn(right, "\n");
        compare_objects(left, left_bytes, right, right_bytes);
        left += left_bytes + 1;
        right += right_bytes + 1;
    }
    assert_true(*left == *right); /* both have ended */
    free(a);
    free(b);
}

static void compare_metadata(const mn__safetensors *a, const mn__safetensors *b, const char *key)
{
    const char *left = mn__safetensors_metadata(a, key), *right = mn__safetensors_metadata(b, key);
    assert_true((left == NULL) == (right == NULL));
    if (left)
        compare_objects(left, strlen(left), right, strlen(right));
}

static void compare_tensors(const char *a_path, const char *b_path)
{
    mn__safetensors *a, *b;
    assert_int_equal(mn__safetensors_open(&a, a_path, NULL), MN_OK);
    assert_int_equal(mn__safetensors_open(&b, b_path, NULL), MN_OK);
    assert_int_equal(mn__safetensors_count(a), mn__safetensors_count(b));
    for (int64_t i = 0; i < mn__safetensors_count(a); i++) {
        const mn__safetensor *left = mn__safetensors_at(a, i);
        const mn__safetensor *right = mn__safetensors_find(b, left->name);
        assert_non_null(right);
        assert_int_equal(left->bytes, right->bytes);
        if (memcmp(left->data, right->data, (size_t)left->bytes))
            fail_msg("%s differs between %s and %s", left->name, a_path, b_path);
    }
    compare_metadata(a, b, "train");
    compare_metadata(a, b, "data");
    mn__safetensors_close(a);
    mn__safetensors_close(b);
}

void training_compare(const char *folder, const char *a, const char *b)
{
    compare_tensors(folder_path(folder, "%s/last.safetensors", a),
                    folder_path(folder, "%s/last.safetensors", b));
    compare_tensors(folder_path(folder, "%s/best.safetensors", a),
                    folder_path(folder, "%s/best.safetensors", b));
    compare_metrics(folder_path(folder, "%s/metrics.jsonl", a),
                    folder_path(folder, "%s/metrics.jsonl", b));
}

int training_count(const char *folder, const char *run, const char *kind)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "{\"kind\": \"%s\"", kind);
    int64_t bytes;
    char *text = folder_read(folder_path(folder, "%s/metrics.jsonl", run), &bytes);
    int count = 0;
    for (const char *at = text; (at = strstr(at, wanted)); at++)
        count++;
    free(text);
    return count;
}

double training_last(const char *folder, const char *run, const char *kind, const char *name)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "{\"kind\": \"%s\"", kind);
    int64_t bytes;
    char *text = folder_read(folder_path(folder, "%s/metrics.jsonl", run), &bytes);
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, wanted)); at++)
        last = at;
    json_t *line = last ? json_loadb(last, strcspn(last, "\n"), 0, NULL) : NULL;
    if (!json_is_number(json_object_get(line, name)))
        fail_msg("%s: no %s in its last line of %s", run, name, kind);
    double value = json_number_value(json_object_get(line, name));
    json_decref(line);
    free(text);
    return value;
}
