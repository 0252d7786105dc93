/* mneme eval: perplexities of books (eval/evaluation.h). */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/help.h"
#include "cli/open.h"
#include "cli/table.h"
#include "eval/data.h"
#include "eval/evaluation.h"

typedef struct eval_options {
    mn__run_use use; /* first */
    const char *model, *data, *split, *documents;
    int64_t window, stride, rows;
    bool cleared, json, csv;
    const char *out, *tokens;
} eval_options;

static const mn__option own[] = {
    MN__STRING(eval_options, model, "", "names RUN, in the operand's place"),
    MN__STRING(eval_options, data, "",
               "what to read: [TYPE=]PATH[@SPLIT] or a data set; the run's own"),
    MN__STRING(eval_options, split, "", "train, validation, test or all; test where there is one"),
    MN__STRING(eval_options, documents, "", "only these, by name: a,b,c"),
    MN__INT(eval_options, window, "0", 0, 1e9,
            "slide a window of so many tokens; 0: carry the state"),
    MN__INT(eval_options, stride, "0", 0, 1e9, "by so many tokens; 0: half the window"),
    MN__BOOL(eval_options, cleared, "false", "clear the state at every segment"),
    MN__INT(eval_options, rows, "8", 1, 4096, "documents or windows read side by side"),
    MN__BOOL(eval_options, json, "false", "print JSON"),
    MN__BOOL(eval_options, csv, "false", "print CSV"),
    MN__STRING(eval_options, out, "", "write to this file instead of standard output"),
    MN__STRING(eval_options, tokens, "", "write each token's nats to this CSV file"),
    MN__OPTIONS_END,
};
static const mn__option *const tables[] = {mn__run_options, own, NULL};

/* ---- Output ------------------------------------------------------------------------ */

static const mn__column figure_columns[] = {
    {"name", "document", 0},
    {"tokens", "tokens", 0},
    {"words", "words", 0},
    {"nats", "nats", 1},
    {"bits_per_byte", "bits/byte", 4},
    {"bits_per_character", "bits/char", 4},
    {"token_perplexity", "token ppl", 3},
    {"word_perplexity", "word ppl", 3},
    {0},
};
static const mn__column position_columns[] = {
    {"from", "from", 0},
    {"to", "to", 0},
    {"tokens", "tokens", 0},
    {"nats_per_token", "nats/token", 4},
    {"token_perplexity", "token ppl", 3},
    {0},
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long integer_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void put_head(mn__string *out, const json_t *result)
{
    const json_t *identity = json_object_get(result, "identity"),
                 *total = json_object_get(result, "total");
    const char *way = text_of(identity, "way");
    mn__string_printf(out, "model      %s, %s of step %lld, %s\n", text_of(result, "run"),
                      text_of(identity, "weights"), integer_of(identity, "step"),
                      text_of(identity, "model"));
    mn__string_printf(out, "data       %s, split %s, %s; newlines %s\n", text_of(result, "dataset"),
                      text_of(identity, "split"), text_of(identity, "data"),
                      text_of(identity, "newlines"));
    if (!strcmp(way, "window"))
        mn__string_printf(out, "read       a window of %lld tokens that slides by %lld",
                          integer_of(identity, "window"), integer_of(identity, "stride"));
    else
        mn__string_printf(out, "read       segments of %lld tokens, the state %s",
                          integer_of(identity, "segment"),
                          !strcmp(way, "cleared") ? "cleared before each"
                                                  : "carried through each document");
    mn__string_printf(out, ", in %s; %s\n", text_of(identity, "precision"),
                      text_of(identity, "form"));
    mn__string_puts(out, "attention ");
    for (const char *c = text_of(identity, "attention"); *c; c++)
        mn__string_add(out, *c == '\n' ? " " : c, 1);
    mn__string_printf(out, "\nbuild      %s, %s, CPU level %s\n", text_of(identity, "version"),
                      text_of(identity, "build"), text_of(identity, "level"));
    if (!json_is_true(json_object_get(result, "lossless")))
        mn__string_puts(out, "bits       left out: the tokens do not hold every byte\n");
    mn__string_printf(out, "words      %s\n\n", text_of(total, "words_are"));
}

static void put_text(mn__string *out, const json_t *result)
{
    put_head(out, result);
    json_t *rows = json_copy(json_object_get(result, "documents"));
    json_t *total = json_copy(json_object_get(result, "total"));
    json_object_set_new(total, "name", json_string("all"));
    json_array_append_new(rows, total);
    mn__table_put(out, figure_columns, rows);
    json_decref(rows);
    mn__string_puts(out, "\nby position in the document\n");
    mn__table_put(out, position_columns, json_object_get(result, "positions"));
}

static void put_csv_rows(mn__string *out, const char *kind, const json_t *rows)
{
    static const char *const keys[] = {"name",
                                       "from",
                                       "to",
                                       "tokens",
                                       "words",
                                       "bytes",
                                       "characters",
                                       "nats",
                                       "bits_per_byte",
                                       "bits_per_character",
                                       "token_perplexity",
                                       "word_perplexity"};
    size_t i;
    const json_t *row;
    if (!kind) {
        mn__string_puts(out, "kind");
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            mn__string_printf(out, ",%s", keys[k]);
        mn__string_puts(out, ",model,data,way,form\n");
        return;
    }
    const json_t *identity = json_object_get(rows, "identity");
    const json_t *items = json_object_get(rows, kind);
    json_array_foreach((json_t *)items, i, row)
    {
        mn__string_puts(out, kind);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            mn__string_puts(out, ",");
            mn__table_csv(out, json_object_get(row, keys[k]));
        }
        mn__string_printf(out, ",%s,%s,%s,\"%s\"\n", text_of(identity, "model"),
                          text_of(identity, "data"), text_of(identity, "way"),
                          text_of(identity, "form"));
    }
}

static void put_csv(mn__string *out, json_t *result)
{
    put_csv_rows(out, NULL, NULL);
    json_t *total = json_array();
    json_array_append(total, json_object_get(result, "total"));
    json_object_set_new(result, "total", total);
    put_csv_rows(out, "total", result);
    put_csv_rows(out, "positions", result);
    put_csv_rows(out, "documents", result);
}

static void put_json(mn__string *out, const json_t *result)
{
    char *text = json_dumps(result, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
    out->failed |= !text;
    mn__string_puts(out, text ? text : "");
    mn__string_puts(out, "\n");
    free(text);
}

static mn_status put_result(const eval_options *options, const mn__evaluation *evaluation,
                            mn_error *error)
{
    json_t *result = mn__evaluation_json(evaluation);
    if (!result)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the figures");
    mn__string text = {0};
    if (options->json)
        put_json(&text, result);
    else if (options->csv)
        put_csv(&text, result);
    else
        put_text(&text, result);
    json_decref(result);
    if (!*options->out || text.failed)
        return mn__print(&text, error);
    mn_status status = mn__file_write(options->out, text.text, text.bytes, error);
    mn__string_free(&text);
    return status;
}

/* ---- Tokens ---------------------------------------------------------------------------- */

typedef struct token_file {
    mn__writer *writer;
    const mn__evaluation *evaluation;
} token_file;

static mn_status write_tokens(void *user, int64_t document, int64_t position, int64_t count,
                              const int32_t *ids, const float *nats, mn_error *error)
{
    (void)error; /* the writer keeps its own, for the commit */
    const token_file *file = user;
    mn__string cell = {0};
    json_t *name = json_string(mn__dataset_at(file->evaluation->dataset, document)->name);
    mn__table_csv(&cell, name);
    json_decref(name);
    for (int64_t i = 0; i < count; i++)
        mn__writer_printf(file->writer, "%s,%lld,%d,%.7g\n", cell.text ? cell.text : "",
                          (long long)(position + i), (int)ids[i], (double)nats[i]);
    bool failed = cell.failed;
    mn__string_free(&cell);
    return failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the tokens") : MN_OK;
}

/* Results already known have no tokens: every document is read again for them. */
static mn_status run_with_tokens(mn__evaluation *evaluation, const char *path,
                                 const mn__progress *progress, mn_error *error)
{
    token_file file = {.evaluation = evaluation};
    mn_status status = mn__writer_open(&file.writer, path, error);
    if (status != MN_OK)
        return status;
    mn__writer_printf(file.writer, "document,position,token,nats\n");
    mn__evaluation_repeat(evaluation);
    evaluation->watch = write_tokens;
    evaluation->watch_user = &file;
    status = mn__evaluation_run(evaluation, progress, error);
    if (status == MN_OK)
        return mn__writer_commit(file.writer, error);
    mn__writer_abort(file.writer);
    return status;
}

/* ---- The verb ----------------------------------------------------------------------------- */

static mn_status check(const eval_options *options, mn_error *error)
{
    if (options->window && options->cleared)
        return mn__fail(error, MN_ERROR_USAGE, "a window begins with a cleared state anyway",
                        "--window and --cleared contradict each other");
    if (options->stride && !options->window)
        return mn__fail(error, MN_ERROR_USAGE, "add --window W",
                        "--stride means nothing without --window");
    if (options->stride > options->window)
        return mn__fail(error, MN_ERROR_USAGE, "a longer stride would leave tokens out",
                        "--stride %lld is longer than --window %lld", (long long)options->stride,
                        (long long)options->window);
    if (options->json && options->csv)
        return mn__fail(error, MN_ERROR_USAGE, "choose one",
                        "--json and --csv contradict each other");
    return MN_OK;
}

static mn__score_config config_of(const eval_options *options, const mn__opened *opened)
{
    int64_t stride = options->stride ? options->stride : (options->window + 1) / 2;
    return (mn__score_config){.way = options->window    ? MN__WAY_WINDOW
                                     : options->cleared ? MN__WAY_CLEARED
                                                        : MN__WAY_CARRIED,
                              .segment = opened->run.segment,
                              .window = options->window,
                              .stride = stride,
                              .rows = options->rows,
                              .compute = opened->compute};
}

static mn_status evaluate(mn__call *call, mn__opened *opened, const mn__dataset *dataset,
                          mn__split split, mn_error *error)
{
    const eval_options *options = call->options;
    const mn__score_config config = config_of(options, opened);
    mn__evaluation evaluation;
    mn__string_list names;
    mn_status status = mn__args_split(options->documents, call->arena, &names, error);
    if (status == MN_OK)
        status = mn__evaluation_open(&evaluation, &opened->run, dataset, split, &config,
                                     names.items, names.count, error);
    if (status != MN_OK)
        return status;
    if (*options->tokens)
        status = run_with_tokens(&evaluation, options->tokens, call->progress, error);
    else
        status = mn__evaluation_run(&evaluation, call->progress, error);
    if (status == MN_OK)
        status = put_result(options, &evaluation, error);
    mn__evaluation_close(&evaluation);
    return status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const eval_options *options = call->options;
    mn__opened opened;
    mn_status status = check(options, error);
    if (status == MN_OK)
        status = mn__opened_open(&opened, call->operands[0], &options->use, error);
    if (status != MN_OK)
        return status;
    mn__dataset *dataset;
    mn__split split;
    status = mn__evaluation_data(&opened.run, options->data, options->split, call->progress,
                                 &dataset, &split, error);
    if (status == MN_OK) {
        status = evaluate(call, &opened, dataset, split, error);
        mn__dataset_close(dataset);
    }
    mn__opened_close(&opened);
    return status;
}

const mn__verb mn__verb_eval = {
    .name = "eval",
    .operands = "RUN",
    .least = 1,
    .most = 1,
    .model = true,
    .summary = "perplexity over whole documents, each token scored once",
    .details = "The state is carried through each document; or cleared at every segment\n"
               "(--cleared), to see what it is worth; or there is none, and a window slides\n"
               "(--window W --stride S). Documents that were scored before in the same way are\n"
               "not read again: what is known is kept in RUN/eval, where mneme report finds it.\n"
               "RUN may be a pretrained model's folder, or its file: of x.gguf it is kept in\n"
               "x.gguf.eval.\n\n"
               "  mneme eval runs/xl --data pg19=books/pg19@test --set attention.memory=1024\n"
               "  mneme eval --model Qwen2.5-0.5B --data text=book.txt",
    .tables = tables,
    .options_bytes = sizeof(eval_options),
    .run = run,
};
