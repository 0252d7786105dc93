/* Evaluations: what was asked, what is known, what it adds up to. */
#include "eval/evaluation.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "reader/limit.h"

static const double SAVE_SECONDS = 2.0;

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for an evaluation");
}

/* ---- Identity ------------------------------------------------------------------------ */

mn_status mn__run_compute(const mn__run *run, mn__dtype *compute, mn_error *error)
{
    const mn__yaml_node *precision = mn__yaml_get(mn__yaml_get(run->recipe, "train"), "precision");
    const char *text = precision && precision->kind == MN__YAML_SCALAR ? precision->text : "";
    *compute = MN__F32;
    if (!strcmp(text, "bf16"))
        *compute = MN__BF16;
    else if (strcmp(text, "f32"))
        return mn__yaml_fail(precision ? precision : run->recipe,
                             "train.precision is f32 or bf16 in a run", error,
                             "the run does not say its precision");
    return MN_OK;
}

static json_t *text_of(const mn__decoder *decoder,
                       void (*write)(const mn__decoder *decoder, mn__string *out))
{
    mn__string text = {0};
    write(decoder, &text);
    json_t *out = text.failed ? NULL : json_stringn(text.text, (size_t)text.bytes);
    mn__string_free(&text);
    return out;
}

/* What is read and how. */
static json_t *reading_of(const mn__evaluation *evaluation)
{
    const mn__score_config *config = &evaluation->config;
    const mn__dataset *dataset = evaluation->dataset;
    bool window = config->way == MN__WAY_WINDOW;
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "data",
                  mn__dataset_fingerprint(dataset, evaluation->split).hex, "split",
                  evaluation->split == MN__SPLITS ? "all" : mn__split_name(evaluation->split),
                  "tokenizer", evaluation->run->tokenizer->fingerprint.hex, "newlines",
                  mn__dataset_newlines(dataset) == MN__NEWLINES_LF ? "lf" : "keep", "way",
                  mn__way_name(config->way), window ? "window" : "segment",
                  (json_int_t)(window ? config->window : config->segment));
    if (out && window)
        json_object_set_new(out, "stride", json_integer(config->stride));
    return out;
}

static json_t *identity_of(const mn__evaluation *evaluation)
{
    mn__run *run = evaluation->run;
    const mn__decoder *decoder = run->decoder;
    mn__level level = run->params.device->queue.kernels->level;
    json_t *out = reading_of(evaluation);
    json_t *model = json_pack("{s:s, s:s, s:I, s:s, s:o, s:o, s:s, s:s, s:s, s:s}", "model",
                              mn__run_fingerprint(run, NULL), "weights", run->weights_file, "step",
                              (json_int_t)run->step, "form", mn__decoder_form(decoder), "options",
                              text_of(decoder, mn__decoder_write_model), "attention",
                              text_of(decoder, mn__decoder_write_attention), "precision",
                              mn__dtype_name(evaluation->config.compute), "version", mn_version(),
                              "build", mn_build(), "level", mn__level_name(level));
    if (model && run->params.weights != MN__WEIGHTS_MASTERS)
        json_object_set_new(model, "kept",
                            json_sprintf("%s%s", mn__weights_name(run->params.weights),
                                         run->params.as_filed ? ", or as filed" : ""));
    if (model && mn__decoder_kept(decoder) != MN__KEPT_AS_COMPUTED)
        json_object_set_new(model, "cache", json_string(mn__kept_name(mn__decoder_kept(decoder))));
    if (out && model && json_object_update(out, model) == 0) {
        json_decref(model);
        return out;
    }
    json_decref(out);
    json_decref(model);
    return NULL;
}

const char *mn__results_folder(const mn__run *run, mn__arena *arena)
{
    bool file = mn__file_exists(run->folder) && !mn__file_is_folder(run->folder);
    return mn__arena_printf(arena, "%s%seval", run->folder, file ? "." : "/");
}

static mn_status set_path(mn__evaluation *evaluation, mn_error *error)
{
    char *text = json_dumps(evaluation->identity, JSON_SORT_KEYS | JSON_COMPACT);
    if (!text)
        return no_memory(error);
    mn__hash_text hash = mn__hash_of(text, (int64_t)strlen(text));
    free(text);
    evaluation->folder = mn__results_folder(evaluation->run, &evaluation->arena);
    if (evaluation->folder)
        evaluation->path =
            mn__arena_printf(&evaluation->arena, "%s/%s-%.8s.json", evaluation->folder,
                             mn__way_name(evaluation->config.way), hash.hex);
    return evaluation->path ? MN_OK : no_memory(error);
}

/* ---- Which documents ------------------------------------------------------------------- */

static mn_status want_names(mn__evaluation *evaluation, const char *const *names, int64_t count,
                            mn_error *error)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t document = mn__dataset_find(evaluation->dataset, names[i], evaluation->split);
        if (document < 0)
            return mn__fail(error, MN_ERROR_USAGE, "mneme eval without --documents lists them",
                            "%s has no document '%s' in this split",
                            mn__dataset_folder(evaluation->dataset), names[i]);
        evaluation->results[document].wanted = true;
    }
    return MN_OK;
}

static mn_status choose(mn__evaluation *evaluation, const char *const *names, int64_t count,
                        mn_error *error)
{
    const mn__dataset *dataset = evaluation->dataset;
    int64_t all = mn__dataset_count(dataset), in_split = 0;
    mn_status status = want_names(evaluation, names, count, error);
    for (int64_t i = 0; i < all && status == MN_OK; i++) {
        bool inside = evaluation->split == MN__SPLITS ||
                      mn__dataset_at(dataset, i)->split == evaluation->split;
        in_split += inside;
        evaluation->results[i].wanted |= inside && count == 0;
        evaluation->wanted += evaluation->results[i].wanted;
    }
    evaluation->all = evaluation->wanted == in_split;
    if (status == MN_OK && evaluation->wanted == 0)
        status =
            mn__fail(error, MN_ERROR_USAGE, "choose another --split",
                     "%s has no documents in the split %s", mn__dataset_folder(dataset),
                     evaluation->split == MN__SPLITS ? "all" : mn__split_name(evaluation->split));
    return status;
}

/* ---- The file of results ------------------------------------------------------------------ */

mn__hash_text mn__results_check(const json_t *file)
{
    mn__hash_text check = {""};
    json_t *without = json_copy((json_t *)(uintptr_t)file);
    json_object_del(without, "check");
    char *text = without
                     ? json_dumps(without, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17))
                     : NULL;
    json_decref(without);
    if (text)
        check = mn__hash_of(text, (int64_t)strlen(text));
    free(text);
    return check;
}

mn_status mn__results_read(const char *path, json_t **file, mn_error *error)
{
    mn_status status = mn__json_read(path, file, error);
    if (status != MN_OK) {
        if (status == MN_ERROR_FORMAT)
            mn__error_hint(error, "remove it and evaluate again");
        return status;
    }
    /* Files of earlier builds have no check. */
    const char *check = json_string_value(json_object_get(*file, "check"));
    mn__hash_text is = mn__results_check(*file);
    if (json_is_object(*file) && (!check || !strcmp(check, is.hex)))
        return MN_OK;
    json_decref(*file);
    return mn__fail(error, MN_ERROR_FORMAT, "remove it and evaluate again",
                    "%s: was changed after it was written", path);
}

static json_t *ranges_of(const mn__document_result *result)
{
    json_t *out = json_array();
    for (int i = 0; i < MN__POSITION_RANGES; i++)
        if (result->range[i].tokens)
            json_array_append_new(out, json_pack("[I, I, f]", (json_int_t)mn__position_first(i),
                                                 (json_int_t)result->range[i].tokens,
                                                 result->range[i].nats));
    return out;
}

static json_t *finished_documents(const mn__evaluation *evaluation)
{
    json_t *out = json_array();
    for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset); i++) {
        const mn__document_result *result = &evaluation->results[i];
        const mn__dataset_document *document = mn__dataset_at(evaluation->dataset, i);
        if (result->done)
            json_array_append_new(out, json_pack("{s:s, s:s, s:I, s:f, s:o}", "name",
                                                 document->name, "hash", document->hash.hex,
                                                 "tokens", (json_int_t)result->all.tokens, "nats",
                                                 result->all.nats, "positions", ranges_of(result)));
    }
    return out;
}

static mn_status save(mn__evaluation *evaluation, mn_error *error)
{
    json_t *root = json_pack("{s:i, s:O, s:o}", "version", 1, "identity", evaluation->identity,
                             "documents", finished_documents(evaluation));
    mn__hash_text check = mn__results_check(root);
    if (root && (!*check.hex || json_object_set_new(root, "check", json_string(check.hex)))) {
        json_decref(root);
        root = NULL;
    }
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    if (!text)
        return no_memory(error);
    mn_status status = mn__file_make_folder(evaluation->folder, error);
    if (status == MN_OK)
        status = mn__file_write(evaluation->path, text, (int64_t)strlen(text), error);
    evaluation->saved = mn__clock();
    free(text);
    return status;
}

static mn_status load_ranges(const mn__evaluation *evaluation, const mn__json *object,
                             mn__document_result *result, mn_error *error)
{
    mn__json positions;
    mn_status status = mn__json_array(*object, "positions", MN__JSON_REQUIRED, &positions, error);
    if (status != MN_OK)
        return status;
    mn__tally sum = {0};
    size_t i;
    const json_t *entry;
    json_array_foreach(positions.value, i, entry)
    {
        json_int_t first = json_integer_value(json_array_get(entry, 0));
        int range = first >= 0 ? mn__position_range(first) : MN__POSITION_RANGES;
        if (range >= MN__POSITION_RANGES)
            break;
        mn__tally *tally = &result->range[range];
        tally->tokens = json_integer_value(json_array_get(entry, 1));
        tally->nats = json_number_value(json_array_get(entry, 2));
        sum.tokens += tally->tokens;
    }
    if (sum.tokens != result->all.tokens)
        return mn__fail(error, MN_ERROR_FORMAT, "remove it and evaluate again",
                        "%s: the positions of a document do not add up", evaluation->path);
    return MN_OK;
}

static mn_status load_document(mn__evaluation *evaluation, mn__json object, mn_error *error)
{
    const char *name, *hash;
    mn__document_result result = {.done = true};
    mn_status status = mn__json_string(object, "name", MN__JSON_REQUIRED, &name, error);
    if (status == MN_OK)
        status = mn__json_string(object, "hash", MN__JSON_REQUIRED, &hash, error);
    if (status == MN_OK)
        status = mn__json_int(object, "tokens", MN__JSON_REQUIRED, &result.all.tokens, error);
    if (status == MN_OK)
        status = mn__json_float(object, "nats", MN__JSON_REQUIRED, &result.all.nats, error);
    if (status == MN_OK)
        status = load_ranges(evaluation, &object, &result, error);
    if (status != MN_OK)
        return status;
    int64_t document = mn__dataset_find(evaluation->dataset, name, evaluation->split);
    const mn__dataset_document *is =
        document < 0 ? NULL : mn__dataset_at(evaluation->dataset, document);
    if (!is || strcmp(is->hash.hex, hash) || is->tokens != result.all.tokens)
        return mn__fail(error, MN_ERROR_FORMAT, "remove it and evaluate again",
                        "%s: '%s' is no document of this data set", evaluation->path, name);
    result.wanted = evaluation->results[document].wanted;
    evaluation->results[document] = result;
    evaluation->reused += result.wanted;
    return MN_OK;
}

static mn_status load(mn__evaluation *evaluation, mn_error *error)
{
    if (!mn__file_exists(evaluation->path))
        return MN_OK;
    json_t *root;
    mn_status status = mn__results_read(evaluation->path, &root, error);
    if (status != MN_OK)
        return status;
    mn__json documents;
    status = mn__json_array((mn__json){evaluation->path, root}, "documents", MN__JSON_REQUIRED,
                            &documents, error);
    for (size_t i = 0; status == MN_OK && i < json_array_size(documents.value); i++)
        status = load_document(
            evaluation, (mn__json){evaluation->path, json_array_get(documents.value, i)}, error);
    json_decref(root);
    return status;
}

/* ---- Opening and running ------------------------------------------------------------------- */

static mn_status open_all(mn__evaluation *evaluation, const char *const *names, int64_t count,
                          mn_error *error)
{
    const mn__tokenizer *read_by = mn__dataset_tokenizer(evaluation->dataset);
    if (strcmp(read_by->fingerprint.hex, evaluation->run->tokenizer->fingerprint.hex))
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "give --data the text itself: it is then prepared with the run's tokenizer",
                        "%s was made with another tokenizer than the run",
                        mn__dataset_folder(evaluation->dataset));
    evaluation->results = mn__arena_calloc(
        &evaluation->arena, mn__dataset_count(evaluation->dataset), sizeof *evaluation->results);
    evaluation->identity = identity_of(evaluation);
    if (!evaluation->results || !evaluation->identity)
        return no_memory(error);
    mn_status status = set_path(evaluation, error);
    if (status == MN_OK)
        status = choose(evaluation, names, count, error);
    return status == MN_OK ? load(evaluation, error) : status;
}

/* Tokens that are read with one state: frequencies of positions may depend on it. */
static int64_t longest_text(const mn__evaluation *evaluation)
{
    int64_t longest = 0, tokens;
    const mn__run *run = evaluation->run;
    for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset); i++) {
        tokens = mn__dataset_at(evaluation->dataset, i)->tokens;
        longest = tokens > longest ? tokens : longest;
    }
    if (evaluation->config.way != MN__WAY_CARRIED)
        longest = mn__score_length(&evaluation->config, run->decoder);
    return longest + run->before.count;
}

/* Nothing is read beyond the window that the model is made for. */
static mn_status check_lengths(const mn__evaluation *evaluation, mn_error *error)
{
    const mn__run *run = evaluation->run;
    const mn__score_config *config = &evaluation->config;
    int64_t lead = run->before.count > 1 ? run->before.count - 1 : 0;
    int64_t most = config->way == MN__WAY_CARRIED ? INT64_MAX : config->segment;
    mn_status status = MN_OK;
    for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset) && status == MN_OK; i++) {
        const mn__dataset_document *document = mn__dataset_at(evaluation->dataset, i);
        int64_t tokens = document->tokens < most ? document->tokens : most;
        char what[128];
        snprintf(what, sizeof what, "%s%.100s", tokens < document->tokens ? "a part of " : "",
                 document->name);
        if (evaluation->results[i].wanted)
            status = mn__limit_check(run, what, lead + tokens, config->compute, error);
    }
    return status;
}

mn_status mn__evaluation_open(mn__evaluation *evaluation, mn__run *run, const mn__dataset *dataset,
                              mn__split split, const mn__score_config *config,
                              const char *const *names, int64_t name_count, mn_error *error)
{
    *evaluation =
        (mn__evaluation){.run = run, .dataset = dataset, .split = split, .config = *config};
    evaluation->config.segment = mn__score_length(config, run->decoder);
    evaluation->config.before = &run->before;
    mn__arena_init(&evaluation->arena, 1 << 16);
    mn_status status = mn__run_plan(run, longest_text(evaluation), error);
    if (status == MN_OK)
        status = open_all(evaluation, names, name_count, error);
    if (status == MN_OK)
        status = check_lengths(evaluation, error);
    if (status != MN_OK)
        mn__evaluation_close(evaluation);
    return status;
}

void mn__evaluation_repeat(mn__evaluation *evaluation)
{
    evaluation->again = true;
    evaluation->reused = 0;
}

void mn__evaluation_close(mn__evaluation *evaluation)
{
    json_decref(evaluation->identity);
    mn__arena_free(&evaluation->arena);
    *evaluation = (mn__evaluation){0};
}

static mn_status take_tokens(void *user, int64_t document, int64_t position, int64_t count,
                             const int32_t *ids, const float *nats, mn_error *error)
{
    mn__evaluation *evaluation = user;
    mn__document_result *result = &evaluation->scoring[document];
    for (int64_t i = 0; i < count; i++) {
        mn__tally *range = &result->range[mn__position_range(position + i)];
        range->tokens++;
        range->nats += (double)nats[i];
        result->all.tokens++;
        result->all.nats += (double)nats[i];
    }
    return evaluation->watch ? evaluation->watch(evaluation->watch_user, document, position, count,
                                                 ids, nats, error)
                             : MN_OK;
}

static mn_status take_end(void *user, int64_t document, mn_error *error)
{
    mn__evaluation *evaluation = user;
    mn__document_result *result = &evaluation->results[document];
    bool wanted = result->wanted;
    *result = evaluation->scoring[document];
    result->wanted = wanted;
    result->done = true;
    bool due = mn__clock() - evaluation->saved >= SAVE_SECONDS;
    return due ? save(evaluation, error) : MN_OK;
}

mn_status mn__evaluation_run(mn__evaluation *evaluation, const mn__progress *progress,
                             mn_error *error)
{
    int64_t all = mn__dataset_count(evaluation->dataset), count = 0;
    int64_t *documents = mn__arena_calloc(&evaluation->arena, all, sizeof *documents);
    evaluation->scoring = mn__arena_calloc(&evaluation->arena, all, sizeof *evaluation->scoring);
    if (!documents || !evaluation->scoring)
        return no_memory(error);
    for (int64_t i = 0; i < all; i++)
        if (evaluation->results[i].wanted && (evaluation->again || !evaluation->results[i].done))
            documents[count++] = i;
    if (count == 0)
        return MN_OK;
    evaluation->config.documents = documents;
    evaluation->config.count = count;
    evaluation->saved = mn__clock();
    const mn__score_sink sink = {take_tokens, take_end, evaluation};
    mn_status status = mn__score(evaluation->run->decoder, &evaluation->run->params,
                                 evaluation->dataset, &evaluation->config, &sink, progress, error);
    mn_status saved = save(evaluation, status == MN_OK ? error : NULL);
    return status == MN_OK ? saved : status;
}

/* ---- Figures ----------------------------------------------------------------------------------
 */

typedef struct unit_counts {
    int64_t bytes, characters, words;
    bool lossless; /* the tokens hold every byte, so that nats may be shared among them */
} unit_counts;

static void set_figures(json_t *object, mn__tally tally, unit_counts units)
{
    json_object_set_new(object, "tokens", json_integer(tally.tokens));
    json_object_set_new(object, "nats", json_real(tally.nats));
    if (tally.tokens) {
        json_object_set_new(object, "nats_per_token", json_real(tally.nats / (double)tally.tokens));
        json_object_set_new(object, "token_perplexity",
                            json_real(mn__perplexity(tally.nats, tally.tokens)));
    }
    if (units.bytes) {
        json_object_set_new(object, "bytes", json_integer(units.bytes));
        if (units.lossless)
            json_object_set_new(object, "bits_per_byte",
                                json_real(mn__bits_per(tally.nats, units.bytes)));
    }
    if (units.characters) {
        json_object_set_new(object, "characters", json_integer(units.characters));
        if (units.lossless)
            json_object_set_new(object, "bits_per_character",
                                json_real(mn__bits_per(tally.nats, units.characters)));
    }
    if (units.words) {
        json_object_set_new(object, "words", json_integer(units.words));
        double perplexity = mn__perplexity(tally.nats, units.words);
        json_object_set_new(object, "word_perplexity",
                            json_real(perplexity)); /* absent where it overflows */
    }
}

static json_t *document_rows(const mn__evaluation *evaluation)
{
    json_t *rows = json_array();
    for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset); i++) {
        const mn__document_result *result = &evaluation->results[i];
        const mn__dataset_document *document = mn__dataset_at(evaluation->dataset, i);
        if (!result->wanted || !result->done)
            continue;
        json_t *row = json_pack("{s:s, s:s}", "name", document->name, "title", document->title);
        set_figures(row, result->all,
                    (unit_counts){document->bytes, document->characters, document->words,
                                  evaluation->run->tokenizer->lossless});
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *position_rows(const mn__evaluation *evaluation)
{
    json_t *rows = json_array();
    for (int range = 0; range < MN__POSITION_RANGES; range++) {
        mn__tally tally = {0};
        for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset); i++) {
            const mn__document_result *result = &evaluation->results[i];
            if (!result->wanted || !result->done)
                continue;
            tally.tokens += result->range[range].tokens;
            tally.nats += result->range[range].nats;
        }
        if (!tally.tokens)
            continue;
        int64_t first = mn__position_first(range);
        int64_t last = range + 1 < MN__POSITION_RANGES ? mn__position_first(range + 1) - 1 : first;
        json_t *row = json_pack("{s:I, s:I}", "from", (json_int_t)first, "to", (json_int_t)last);
        set_figures(row, tally, (unit_counts){0});
        json_array_append_new(rows, row);
    }
    return rows;
}

json_t *mn__evaluation_json(const mn__evaluation *evaluation)
{
    mn__tally tally = {0};
    unit_counts units = {.lossless = evaluation->run->tokenizer->lossless};
    int64_t documents = 0;
    for (int64_t i = 0; i < mn__dataset_count(evaluation->dataset); i++) {
        const mn__document_result *result = &evaluation->results[i];
        const mn__dataset_document *document = mn__dataset_at(evaluation->dataset, i);
        if (!result->wanted || !result->done)
            continue;
        documents++;
        tally.tokens += result->all.tokens;
        tally.nats += result->all.nats;
        units.bytes += document->bytes;
        units.characters += document->characters;
        units.words += document->words;
    }
    int64_t published =
        mn__dataset_counts_of(evaluation->dataset, evaluation->split).published_words;
    bool use_published = evaluation->all && published > 0;
    if (use_published)
        units.words = published;
    json_t *total = json_pack("{s:I}", "documents", (json_int_t)documents);
    set_figures(total, tally, units);
    json_object_set_new(total, "words_are", json_string(use_published ? "published" : "counted"));
    return json_pack("{s:O, s:s, s:s, s:b, s:o, s:o, s:o}", "identity", evaluation->identity, "run",
                     evaluation->run->folder, "dataset", mn__dataset_folder(evaluation->dataset),
                     "lossless", units.lossless, "total", total, "positions",
                     position_rows(evaluation), "documents", document_rows(evaluation));
}
