/* The report's JSON. */
#include "eval/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "eval/evaluation.h"
#include "eval/perplexity.h"
#include "eval/score.h"
#include "reader/limit.h"
#include "text/utf8.h"

extern const char mn__report_html[]; /* made of report.html by the build */

static const int64_t DEEPEST = 8192; /* tokens read for a passage, unless asked for */

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a report");
}

/* ---- Learning curves ------------------------------------------------------------------ */

static mn_status add_line(json_t *metrics, const char *path, int64_t number, const char *line,
                          int64_t bytes, mn_error *error)
{
    json_t *object;
    mn_status status = mn__json_parse(path, line, bytes, &object, error);
    if (status != MN_OK) {
        mn__error_prefix(error, "line %lld", (long long)number);
        mn__error_hint(error, "the file is damaged: remove that line");
        return status;
    }
    const char *kind = json_string_value(json_object_get(object, "kind"));
    json_t *list = kind ? json_object_get(metrics, kind) : NULL;
    if (list)
        json_array_append(list, object);
    json_decref(object);
    return MN_OK;
}

/* A last line without an end was being written: it is left out. *metrics is the
 * caller's to free, after a failure too. */
static mn_status read_metrics(const char *folder, json_t **metrics, mn_error *error)
{
    mn__string path = {0};
    char *text;
    int64_t bytes;
    mn__string_printf(&path, "%s/metrics.jsonl", folder);
    mn_status status =
        path.failed ? no_memory(error) : mn__file_read(path.text, 0, &text, &bytes, error);
    if (status == MN_OK) {
        *metrics = json_pack("{s:[], s:[]}", "train", "validation");
        int64_t number = 1;
        const char *last = text + bytes;
        for (const char *line = text, *end;
             status == MN_OK && (end = memchr(line, '\n', (size_t)(last - line)));
             line = end + 1, number++)
            status = add_line(*metrics, path.text, number, line, end - line, error);
        mn__free(text);
    }
    mn__string_free(&path);
    return status;
}

/* ---- Evaluations ------------------------------------------------------------------------- */

/* One file of results as {identity, tokens, nats, documents, positions}. */
static json_t *sum_results(const json_t *file)
{
    mn__tally all = {0}, range[MN__POSITION_RANGES] = {{0}};
    const json_t *documents = json_object_get(file, "documents"), *document, *entry;
    size_t i, k;
    json_array_foreach((json_t *)documents, i, document)
    {
        const json_t *positions = json_object_get(document, "positions");
        all.tokens += json_integer_value(json_object_get(document, "tokens"));
        all.nats += json_number_value(json_object_get(document, "nats"));
        json_array_foreach((json_t *)positions, k, entry)
        {
            json_int_t first = json_integer_value(json_array_get(entry, 0));
            int into = first < 0 ? MN__POSITION_RANGES : mn__position_range(first);
            if (into >= MN__POSITION_RANGES)
                continue;
            mn__tally *tally = &range[into];
            tally->tokens += json_integer_value(json_array_get(entry, 1));
            tally->nats += json_number_value(json_array_get(entry, 2));
        }
    }
    json_t *rows = json_array();
    for (int r = 0; r < MN__POSITION_RANGES; r++)
        if (range[r].tokens)
            json_array_append_new(rows, json_pack("[I, I, f]", (json_int_t)mn__position_first(r),
                                                  (json_int_t)range[r].tokens, range[r].nats));
    return json_pack("{s:O, s:I, s:f, s:I, s:o}", "identity", json_object_get(file, "identity"),
                     "tokens", (json_int_t)all.tokens, "nats", all.nats, "documents",
                     (json_int_t)json_array_size(documents), "positions", rows);
}

static mn_status add_results(json_t *list, const char *fingerprint, const char *path,
                             mn_error *error)
{
    json_t *file;
    mn_status status = mn__results_read(path, &file, error);
    if (status != MN_OK)
        return status;
    const json_t *identity = json_object_get(file, "identity");
    const char *model = json_string_value(json_object_get(identity, "model"));
    if (model && !strcmp(model, fingerprint)) /* not of earlier weights */
        json_array_append_new(list, sum_results(file));
    json_decref(file);
    return MN_OK;
}

static mn_status read_results(mn__run *run, json_t *list, mn_error *error)
{
    mn__string path = {0};
    char **names = NULL;
    int64_t count = 0;
    const char *folder = mn__results_folder(run, &run->arena);
    const char *fingerprint = mn__run_fingerprint(run, error);
    mn_status status = !folder || !fingerprint ? no_memory(error) : MN_OK;
    if (status == MN_OK && mn__file_is_folder(folder))
        status = mn__file_list(folder, &names, &count, error);
    for (int64_t i = 0; i < count && status == MN_OK; i++) {
        size_t length = strlen(names[i]);
        if (length < 5 || strcmp(names[i] + length - 5, ".json"))
            continue;
        mn__string_clear(&path);
        mn__string_printf(&path, "%s/%s", folder, names[i]);
        status = path.failed ? no_memory(error) : add_results(list, fingerprint, path.text, error);
    }
    mn__free(names);
    mn__string_free(&path);
    return status;
}

/* ---- The passage ---------------------------------------------------------------------------- */

typedef struct passage_scores {
    int64_t from, count;
    int32_t *ids; /* [count] */
    float *nats;  /* [count], of the way that is being scored */
} passage_scores;

static mn_status take(void *user, int64_t document, int64_t position, int64_t count,
                      const int32_t *ids, const float *nats, mn_error *error)
{
    (void)document, (void)error;
    passage_scores *to = user;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = position + i - to->from;
        if (at < 0 || at >= to->count)
            continue;
        to->ids[at] = ids[i];
        to->nats[at] = nats[i];
    }
    return MN_OK;
}

static mn_status end(void *user, int64_t document, mn_error *error)
{
    (void)user, (void)document, (void)error;
    return MN_OK;
}

static int64_t longest_document(const mn__dataset *dataset, mn__split split)
{
    int64_t longest = -1, tokens = 0;
    for (int64_t i = 0; i < mn__dataset_count(dataset); i++) {
        const mn__dataset_document *document = mn__dataset_at(dataset, i);
        if ((split == MN__SPLITS || document->split == split) && document->tokens > tokens) {
            longest = i;
            tokens = document->tokens;
        }
    }
    return longest;
}

/* [text, carried, cleared] of each token; a character cut in pieces stands at its
 * last one. NULL when memory is short. */
static json_t *token_rows(const mn__tokenizer *tokenizer, const passage_scores *passage,
                          const float *carried)
{
    json_t *rows = json_array();
    mn__utf8_stream stream = {0};
    mn__string text = {0};
    for (int64_t i = 0; i < passage->count; i++) {
        int64_t bytes;
        const char *piece = mn__tokenizer_piece(tokenizer, passage->ids[i], &bytes);
        mn__string_clear(&text);
        mn__utf8_stream_feed(&stream, piece, bytes, &text);
        json_array_append_new(rows, json_pack("[s%, f, f]", text.text ? text.text : "",
                                              (size_t)text.bytes, (double)carried[i],
                                              (double)passage->nats[i]));
    }
    bool failed = text.failed;
    mn__string_free(&text);
    if (!failed)
        return rows;
    json_decref(rows);
    return NULL;
}

static mn_status score_passage(mn__run *run, const mn__dataset *dataset, int64_t document,
                               const mn__report_options *options, passage_scores *passage,
                               const mn__progress *progress, json_t **out, mn_error *error)
{
    float *carried = mn__malloc(mn__size_product(passage->count, sizeof *carried));
    passage->ids = mn__malloc(mn__size_product(passage->count, sizeof *passage->ids));
    passage->nats = mn__malloc(mn__size_product(passage->count, sizeof *passage->nats));
    mn_status status = carried && passage->ids && passage->nats ? MN_OK : no_memory(error);
    mn__score_config config = {.segment = run->segment,
                               .rows = 1,
                               .documents = &document,
                               .count = 1,
                               .before = &run->before,
                               .limit = passage->from + passage->count,
                               .compute = options->compute};
    const mn__score_sink sink = {take, end, passage};
    if (status == MN_OK)
        status = mn__limit_check(run, "the document, up to the passage's end,", config.limit,
                                 options->compute, error);
    for (int way = MN__WAY_CARRIED; way <= MN__WAY_CLEARED && status == MN_OK; way++) {
        config.way = (mn__way)way;
        status = mn__score(run->decoder, &run->params, dataset, &config, &sink, progress, error);
        if (status == MN_OK && way == MN__WAY_CARRIED)
            memcpy(carried, passage->nats, (size_t)passage->count * sizeof *carried);
    }
    json_t *rows = status == MN_OK ? token_rows(run->tokenizer, passage, carried) : NULL;
    if (rows)
        *out =
            json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:o}", "document",
                      mn__dataset_at(dataset, document)->name, "title",
                      mn__dataset_at(dataset, document)->title, "from", (json_int_t)passage->from,
                      "segment", (json_int_t)mn__score_length(&config, run->decoder), "form",
                      mn__decoder_form(run->decoder), "data",
                      mn__dataset_fingerprint(dataset, MN__SPLITS).hex, "tokens", rows);
    if (status == MN_OK && !*out)
        status = no_memory(error);
    mn__free(carried);
    mn__free(passage->ids);
    mn__free(passage->nats);
    return status;
}

static mn_status choose_passage(mn__run *run, const mn__dataset *dataset, mn__split split,
                                const mn__report_options *options, const mn__progress *progress,
                                json_t **out, mn_error *error)
{
    int64_t document = *options->document ? mn__dataset_find(dataset, options->document, split)
                                          : longest_document(dataset, split);
    if (document < 0)
        return mn__fail(error, MN_ERROR_USAGE, "name one with --document, or --passage 0",
                        "%s has no document '%s' in this split", mn__dataset_folder(dataset),
                        options->document);
    int64_t tokens = mn__dataset_at(dataset, document)->tokens, from = options->from;
    int64_t count = options->passage < tokens ? options->passage : tokens;
    if (from < 0)
        from = (tokens < DEEPEST ? tokens : DEEPEST) - count;
    from = from < 0 ? 0 : from;
    if (from >= tokens)
        return mn__fail(error, MN_ERROR_USAGE, "begin the passage before the document's end",
                        "'%s' has %lld tokens, a passage cannot begin at %lld",
                        mn__dataset_at(dataset, document)->name, (long long)tokens,
                        (long long)from);
    passage_scores passage = {.from = from, .count = tokens - from < count ? tokens - from : count};
    return score_passage(run, dataset, document, options, &passage, progress, out, error);
}

static mn_status read_passage(mn__run *run, const mn__report_options *options,
                              const mn__progress *progress, json_t **out, mn_error *error)
{
    mn__dataset *dataset;
    mn__split split;
    mn_status status =
        mn__evaluation_data(run, options->data, options->split, progress, &dataset, &split, error);
    if (status != MN_OK)
        return status;
    status = choose_passage(run, dataset, split, options, progress, out, error);
    mn__dataset_close(dataset);
    return status;
}

/* ---- The report --------------------------------------------------------------------------------
 */

mn_status mn__report_add(json_t *runs, mn__run *run, const mn__report_options *options,
                         const mn__progress *progress, mn_error *error)
{
    json_t *metrics = NULL, *passage = NULL, *results = json_array();
    mn__string recipe = {0};
    mn_status status = read_metrics(run->folder, &metrics, error);
    if (status == MN_OK)
        status = read_results(run, results, error);
    if (status == MN_OK && options->passage > 0)
        status = read_passage(run, options, progress, &passage, error);
    if (status == MN_OK)
        status = mn__yaml_write(run->recipe, &recipe, error);
    if (status != MN_OK) {
        json_decref(metrics);
        json_decref(results);
        json_decref(passage);
        mn__string_free(&recipe);
        return status;
    }
    json_t *entry = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:o, s:o, s:o}", "name", run->folder, "model",
        mn__run_fingerprint(run, error), "weights", run->weights_file, "step",
        (json_int_t)run->step, "parameters", (json_int_t)mn__params_elements(&run->params),
        "recipe", recipe.text ? recipe.text : "", "build", mn_build(), "metrics", metrics,
        "evaluations", results, "passage", passage ? passage : json_null());
    mn__string_free(&recipe);
    return entry && json_array_append_new(runs, entry) == 0 ? MN_OK : no_memory(error);
}

/* In a script element "<" could begin its end: it is written as an escape, which
 * in JSON, where it can only stand in a string, is the same. */
static void put_script_json(mn__string *out, const char *json)
{
    for (; *json; json++) {
        size_t plain = strcspn(json, "<");
        mn__string_add(out, json, (int64_t)plain);
        json += plain;
        if (!*json)
            return;
        mn__string_puts(out, "\\u003c");
    }
}

mn_status mn__report_write(const json_t *runs, const char *path, mn_error *error)
{
    static const char marker[] = "{{DATA}}";
    const char *at = strstr(mn__report_html, marker);
    char *json = json_dumps(runs, JSON_COMPACT | JSON_REAL_PRECISION(7));
    mn__string page = {0};
    mn__string_add(&page, mn__report_html, at - mn__report_html);
    if (json)
        put_script_json(&page, json);
    mn__string_puts(&page, at + sizeof marker - 1);
    mn_status status = !json || page.failed ? no_memory(error)
                                            : mn__file_write(path, page.text, page.bytes, error);
    free(json);
    mn__string_free(&page);
    return status;
}
