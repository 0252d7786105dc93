/* mneme probe WHAT RUN: what a run does with its past. Each probe is a function in the
 * table below, over one struct of options; what it finds is JSON, which is printed as it is
 * or as text. */
#include <string.h>

#include "cli/help.h"
#include "cli/open.h"
#include "cli/table.h"
#include "eval/data.h"
#include "eval/probe_mass.h"
#include "eval/probe_retrieved.h"

typedef struct probe_options {
    mn__run_use use; /* first */
    const char *model, *data, *split, *document;
    int64_t layer, head, at, tokens, most, around, rows, limit;
    bool json;
} probe_options;

#define OPTIONS probe_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, model, "", "names RUN, in the operand's place"),
    MN__STRING(OPTIONS, data, "", "what to read: [TYPE=]PATH[@SPLIT] or a data set; the run's own"),
    MN__STRING(OPTIONS, split, "", "train, validation, test or all; test where there is one"),
    MN__STRING(OPTIONS, document, "", "its name; the first that is long enough, or all"),
    MN__BOOL(OPTIONS, json, "false", "print JSON"),
    MN__OPTIONS_END,
};
static const mn__option retrieved[] = {
    MN__INT(OPTIONS, layer, "-1", -1, 1e9, "retrieved: whose memory; -1: the first that has one"),
    MN__INT(OPTIONS, head, "0", 0, 1e9, "retrieved: whose queries, from 0 on"),
    MN__INT(OPTIONS, at, "-1", -1, 1e15, "retrieved: the passage's first token; -1: at the end"),
    MN__INT(OPTIONS, tokens, "16", 1, 1e6, "retrieved: how long the passage is"),
    MN__INT(OPTIONS, most, "4", 1, 65536, "retrieved: memories that are shown of each token's"),
    MN__INT(OPTIONS, around, "24", 0, 1e6, "retrieved: tokens of text before and after"),
    MN__OPTIONS_END,
};
static const mn__option mass[] = {
    MN__INT(OPTIONS, rows, "8", 1, 4096, "attention-mass: documents read side by side"),
    MN__INT(OPTIONS, limit, "0", 0, 1e15,
            "attention-mass: only the first tokens of each document; 0: all"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {mn__run_options, own, retrieved, mass, NULL};

/* ---- retrieved ------------------------------------------------------------------------- */

static mn_status find_retrieved(const mn__call *call, mn__opened *opened,
                                const mn__dataset *dataset, mn__split split, json_t **result,
                                mn_error *error)
{
    const probe_options *options = call->options;
    const mn__retrieved_config config = {.document = options->document,
                                         .at = options->at,
                                         .tokens = options->tokens,
                                         .layer = options->layer,
                                         .head = options->head,
                                         .most = options->most,
                                         .around = options->around,
                                         .compute = opened->compute};
    return mn__probe_retrieved(&opened->run, dataset, split, &config, call->progress, result,
                               error);
}

/* On one line: newlines and the like are spaces. */
static void put_line(mn__string *out, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    for (; text && *text; text++)
        mn__string_add(out, (unsigned char)*text < ' ' ? " " : text, 1);
}

static long long integer_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void put_retrieved(mn__string *out, const json_t *result)
{
    const json_t *token, *memory;
    size_t i, k;
    mn__string_printf(out, "%s, layer %lld, head %lld, a memory of %lld tokens\n",
                      json_string_value(json_object_get(result, "document")),
                      integer_of(result, "layer"), integer_of(result, "head"),
                      integer_of(result, "memory"));
    json_array_foreach(json_object_get(result, "tokens"), i, token)
    {
        mn__string_printf(out, "\n%12lld         ", integer_of(token, "position"));
        put_line(out, token, "before");
        mn__string_puts(out, "[");
        put_line(out, token, "text");
        mn__string_puts(out, "]\n");
        json_array_foreach(json_object_get(token, "memories"), k, memory)
        {
            mn__string_printf(out, "%12lld  %5.3f  ", integer_of(memory, "position"),
                              json_real_value(json_object_get(memory, "score")));
            put_line(out, memory, "before");
            mn__string_puts(out, "[");
            put_line(out, memory, "text");
            mn__string_puts(out, "]");
            put_line(out, memory, "after");
            mn__string_puts(out, "\n");
        }
    }
}

/* ---- attention-mass ---------------------------------------------------------------------- */

static mn_status find_mass(const mn__call *call, mn__opened *opened, const mn__dataset *dataset,
                           mn__split split, json_t **result, mn_error *error)
{
    const probe_options *options = call->options;
    const mn__mass_config config = {.document = options->document,
                                    .rows = options->rows,
                                    .limit = options->limit,
                                    .compute = opened->compute};
    return mn__probe_mass(&opened->run, dataset, split, &config, call->progress, result, error);
}

/* A row of percentages a layer: a region's whole, then its buckets from old to new. */
static void put_mass(mn__string *out, const json_t *result)
{
    const json_t *layer, *region, *bucket;
    size_t i, k, n;
    mn__string_puts(out, "per cent of attention, in sixths from the oldest to the newest\n");
    json_array_foreach(json_object_get(result, "layers"), i, layer)
    {
        mn__string_printf(out, "layer %lld", integer_of(layer, "layer"));
        json_array_foreach(json_object_get(layer, "regions"), k, region)
        {
            mn__string_printf(out, "%s  %s %.1f:", k ? " |" : "",
                              json_string_value(json_object_get(region, "name")),
                              100 * json_real_value(json_object_get(region, "share")));
            json_array_foreach(json_object_get(region, "buckets"), n, bucket)
                mn__string_printf(out, " %.1f", 100 * json_real_value(bucket));
        }
        mn__string_puts(out, "\n");
    }
}

/* ---- All probes --------------------------------------------------------------------------- */

static const struct probe {
    const char *name;
    mn_status (*find)(const mn__call *call, mn__opened *opened, const mn__dataset *dataset,
                      mn__split split, json_t **result, mn_error *error);
    void (*put)(mn__string *out, const json_t *result); /* as text */
} probes[] = {
    {"retrieved", find_retrieved, put_retrieved},
    {"attention-mass", find_mass, put_mass},
};
enum { PROBES = sizeof probes / sizeof *probes };

static mn_status find_probe(const char *name, const struct probe **probe, mn_error *error)
{
    mn__string names = {0};
    *probe = NULL;
    for (int i = 0; i < PROBES; i++) {
        mn__string_printf(&names, "%s%s", i ? ", " : "the probes are: ", probes[i].name);
        if (!strcmp(probes[i].name, name))
            *probe = &probes[i];
    }
    mn_status status =
        *probe ? MN_OK
               : mn__fail(error, MN_ERROR_USAGE, names.text, "there is no probe `%s`", name);
    mn__string_free(&names);
    return status;
}

static mn_status print(const struct probe *probe, json_t *result, bool json, mn_error *error)
{
    mn__string text = {0};
    if (json)
        return mn__table_json(result, error);
    probe->put(&text, result);
    json_decref(result);
    return mn__print(&text, error);
}

static mn_status run(mn__call *call, mn_error *error)
{
    const probe_options *options = call->options;
    const struct probe *probe;
    mn__opened opened;
    mn_status status = find_probe(call->operands[0], &probe, error);
    if (status == MN_OK)
        status = mn__opened_open(&opened, call->operands[1], &options->use, error);
    if (status != MN_OK)
        return status;
    mn__dataset *dataset;
    mn__split split;
    json_t *result = NULL;
    status = mn__evaluation_data(&opened.run, options->data, options->split, call->progress,
                                 &dataset, &split, error);
    if (status == MN_OK) {
        status = probe->find(call, &opened, dataset, split, &result, error);
        mn__dataset_close(dataset);
    }
    mn__opened_close(&opened);
    return status == MN_OK ? print(probe, result, options->json, error) : status;
}

const mn__verb mn__verb_probe = {
    .name = "probe",
    .operands = "WHAT RUN",
    .least = 2,
    .most = 2,
    .model = true,
    .summary = "look at what a run does with its past",
    .details =
        "attention-mass: the share of attention that each layer's memory, its compressed one and\n"
        "its window receive, in sixths by age, where every memory is full.\n"
        "retrieved: what one head of a layer with a kNN memory brings back at each token of a\n"
        "passage: positions in the document, inner products, and the text there.\n\n"
        "  mneme probe retrieved runs/small --data book.txt --layer 2 --head 1 --at 40000",
    .tables = tables,
    .options_bytes = sizeof(probe_options),
    .run = run,
};
