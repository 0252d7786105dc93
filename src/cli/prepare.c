/* mneme prepare: text to a data set (data/prepare.h). */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/dataset.h"
#include "cli/help.h"
#include "data/prepare.h"

typedef struct prepare_options {
    mn__prepare_config config; /* first: mn__prepare_options is over it */
    bool json;
} prepare_options;

static const mn__option own[] = {
    MN__BOOL(prepare_options, json, "false", "print what was made as JSON"),
    MN__OPTIONS_END,
};
static const mn__option *const tables[] = {mn__prepare_options, own, NULL};

/* Operands are data too: `mneme prepare books --out books.data`. */
static mn_status add_operands(mn__call *call, mn__string_list *data, mn_error *error)
{
    const char **items =
        mn__arena_calloc(call->arena, data->count + call->count + 1, sizeof *items);
    if (!items)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the command line");
    for (int64_t i = 0; i < call->count; i++)
        items[i] = call->operands[i];
    for (int64_t i = 0; i < data->count; i++)
        items[call->count + i] = data->items[i];
    *data = (mn__string_list){.items = items, .count = data->count + call->count};
    return MN_OK;
}

static mn_status run(mn__call *call, mn_error *error)
{
    prepare_options *options = call->options;
    mn__prepare_config *config = &options->config;
    mn_status status = add_operands(call, &config->data, error);
    if (status != MN_OK)
        return status;
    if (config->data.count == 0)
        return mn__fail(error, MN_ERROR_USAGE, "name a text, a folder or a corpus",
                        "mneme prepare wants something to read");
    if (!*config->out)
        return mn__fail(error, MN_ERROR_USAGE, "add --out FOLDER",
                        "mneme prepare wants a folder to write to");
    mn__prepare_result result;
    status = mn__prepare(config, call->progress, &result, error);
    if (status != MN_OK)
        return status;
    if (result.already_whole)
        fprintf(stderr, "%s was made from this before; nothing was done\n", config->out);
    if (result.empty_documents)
        fprintf(stderr, "%lld empty documents were left out\n", (long long)result.empty_documents);
    mn__dataset *dataset;
    status = mn__dataset_open(&dataset, config->out, error);
    if (status != MN_OK)
        return status;
    status = mn__dataset_print(dataset, options->json, error);
    mn__dataset_close(dataset);
    return status;
}

const mn__verb mn__verb_prepare = {
    .name = "prepare",
    .operands = "[DATA...]",
    .most = MN__ANY_NUMBER,
    .summary = "make a data set of text: tokens, counts and fingerprints",
    .details = "DATA is [TYPE=]PATH[@SPLIT]: a text, a folder of texts, PG-19's layout, enwik8 or\n"
               "text8, WikiText, a source tree. HTML, EPUB and PDF files are read as their text.\n"
               "@SPLIT takes that split alone of a corpus that has its own, and puts all of any\n"
               "other into it. An interrupted run goes on where it was.\n\n"
               "  mneme prepare books/ --out books.data --validation 0.05\n"
               "  mneme prepare pg19=books/pg19 --out pg19.data --train-vocab 32000",
    .tables = tables,
    .options_bytes = sizeof(prepare_options),
    .run = run,
};
