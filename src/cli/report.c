/* mneme report: runs as one page (eval/report.h). */
#include "eval/report.h"

#include <stdio.h>

#include "base/file.h"
#include "cli/open.h"

typedef struct report_options {
    mn__run_use use; /* first */
    const char *out, *data, *split, *document;
    int64_t passage, from;
} report_options;

#define OPTIONS report_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, out, "", "the HTML file; report.html in the first run"),
    MN__STRING(OPTIONS, data, "", "where the passage is from: a text or a data set; the run's own"),
    MN__STRING(OPTIONS, split, "", "train, validation, test or all; test where there is one"),
    MN__STRING(OPTIONS, document, "", "the passage's document, by name; the longest"),
    MN__INT(OPTIONS, passage, "1000", 0, 1e6, "tokens of the passage; 0: none"),
    MN__INT(OPTIONS, from, "-1", -1, 1e15, "where it begins; -1: up to 8,192 tokens deep"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {mn__run_options, own, NULL};

static mn_status add_run(mn__call *call, const char *folder, json_t *runs, mn_error *error)
{
    const report_options *options = call->options;
    mn__opened opened;
    mn_status status = mn__opened_open(&opened, folder, &options->use, error);
    if (status != MN_OK)
        return status;
    const mn__report_options report = {.data = options->data,
                                       .split = options->split,
                                       .document = options->document,
                                       .passage = options->passage,
                                       .from = options->from,
                                       .compute = opened.compute};
    status = mn__report_add(runs, &opened.run, &report, call->progress, error);
    mn__opened_close(&opened);
    return status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const report_options *options = call->options;
    if (!*options->out && mn__file_exists(call->operands[0]) &&
        !mn__file_is_folder(call->operands[0]))
        return mn__fail(error, MN_ERROR_USAGE, "name the page: --out report.html",
                        "%s is no folder, which the page could be put in", call->operands[0]);
    const char *path = *options->out
                           ? options->out
                           : mn__arena_printf(call->arena, "%s/report.html", call->operands[0]);
    json_t *runs = json_array();
    mn_status status =
        path && runs ? MN_OK : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a report");
    for (int64_t i = 0; i < call->count && status == MN_OK; i++)
        status = add_run(call, call->operands[i], runs, error);
    if (status == MN_OK)
        status = mn__report_write(runs, path, error);
    json_decref(runs);
    if (status == MN_OK)
        printf("%s\n", path);
    return status;
}

const mn__verb mn__verb_report = {
    .name = "report",
    .operands = "RUN...",
    .least = 1,
    .most = MN__ANY_NUMBER,
    .summary = "one page: learning curves, loss by position, what memory did to each token",
    .details = "The page needs no network and no other file. What mneme eval has found in these\n"
               "ways of reading is on it; the passage is scored now, with and without memory.",
    .tables = tables,
    .options_bytes = sizeof(report_options),
    .run = run,
};
