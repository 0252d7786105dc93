/* mneme plan: what a recipe needs, before it runs (train/plan.h); or reading a text with a
 * pretrained model (reader/plan.h). */
#include "cli/plan.h"

#include <stdio.h>

#include "base/file.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/help.h"
#include "cli/table.h"
#include "model/gguf_model.h"
#include "model/pretrained.h"
#include "reader/limit.h"
#include "reader/plan.h"

typedef struct plan_options {
    const char *model;
    mn__string_list set;
    int64_t threads, tokens;
    int precision; /* f32 | bf16 */
    int weights;   /* auto | f32 | f16 | bf16 | int8 | int4 */
    int cache;     /* mn__kept */
    bool json;
} plan_options;

static const mn__option own[] = {
    MN__STRING(plan_options, model, "", "names RECIPE or MODEL, in the operand's place"),
    MN__LIST(plan_options, set, "", "change the recipe: section.key=value, as often as wanted"),
    MN__INT(plan_options, threads, "0", 0, 4096, "threads that compute; 0: the recipe's choice"),
    MN__INT(plan_options, tokens, "0", 0, 1e9,
            "a pretrained model's: of the text to be read; 0: the longest it is for"),
    MN__ENUM(plan_options, precision, "f32", "f32|bf16", "a pretrained model's: of products"),
    MN__ENUM(plan_options, weights, "auto", "auto|f32|f16|bf16|int8|int4",
             "a pretrained model's: kept so; auto: as products are"),
    MN__ENUM(plan_options, cache, "auto", "auto|f32|bf16|int8",
             "a pretrained model's: keys and values kept so; auto: as products are"),
    MN__BOOL(plan_options, json, "false", "print JSON"),
    MN__OPTIONS_END,
};
static const mn__option *const tables[] = {own, NULL};

json_t *mn__plan_json(const mn__plan *plan)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, "
        "s:f}",
        "parameters", (json_int_t)plan->parameters, "attention_sublayers",
        (json_int_t)plan->attentions, "weights_bytes", (json_int_t)plan->weights, "gradients_bytes",
        (json_int_t)plan->gradients, "bf16_copies_bytes", (json_int_t)plan->copies, "moments_bytes",
        (json_int_t)plan->moments, "states_bytes", (json_int_t)plan->states, "activations_bytes",
        (json_int_t)plan->activations, "total_bytes", (json_int_t)plan->total, "available_bytes",
        (json_int_t)plan->available, "state_row_bytes", (json_int_t)plan->state_row,
        "state_bytes_per_thousand_tokens", (json_int_t)plan->state_per_thousand, "tokens_per_step",
        (json_int_t)plan->tokens, "matrix_flops_per_step", plan->products,
        "attention_flops_per_step", plan->attention, "peak_flops_per_second", plan->peak,
        "seconds_per_step_at_peak", plan->seconds);
}

static mn_status print(const char *path, const mn__plan *plan, int64_t steps, mn_error *error)
{
    static const mn__column columns[] = {{"name", "what", 0}, {"value", "needed", 4}, {0}};
    const double MIB = 1 << 20;
    json_t *rows = json_pack(
        "[{s:s,s:I},{s:s,s:I},{s:s,s:f},{s:s,s:f},{s:s,s:f},{s:s,s:f},{s:s,s:f},{s:s,s:f},"
        "{s:s,s:f},{s:s,s:f},{s:s,s:I},{s:s,s:f},{s:s,s:f},{s:s,s:f},{s:s,s:f}]",
        "name", "parameters", "value", (json_int_t)plan->parameters, "name", "attention sublayers",
        "value", (json_int_t)plan->attentions, "name", "weights, MiB", "value",
        (double)plan->weights / MIB, "name", "their gradients, MiB", "value",
        (double)plan->gradients / MIB, "name", "bf16 copies, MiB", "value",
        (double)plan->copies / MIB, "name", "optimiser's moments, MiB", "value",
        (double)plan->moments / MIB, "name", "attention state, all rows, MiB", "value",
        (double)plan->states / MIB, "name", "activations at their peak, MiB", "value",
        (double)plan->activations / MIB, "name", "in all, MiB", "value", (double)plan->total / MIB,
        "name", "available here, MiB", "value", (double)plan->available / MIB, "name",
        "tokens of a step", "value", (json_int_t)plan->tokens, "name",
        "state of a thousand tokens more, a row, MiB", "value",
        (double)plan->state_per_thousand / MIB, "name", "GFLOP of a step", "value",
        (plan->products + plan->attention) / 1e9, "name", "peak of this machine, GFLOP/s", "value",
        plan->peak / 1e9, "name", "hours of all steps, were all at the peak", "value",
        plan->seconds * (double)steps / 3600);
    mn__string text = {0};
    mn__string_printf(&text, "%s\n\n", path);
    mn__table_put(&text, columns, rows);
    json_decref(rows);
    return mn__print(&text, error);
}

static mn_status plan_recipe(const mn__call *call, mn__recipe *recipe, mn_error *error)
{
    const plan_options *options = call->options;
    mn__threads_set((int)(options->threads ? options->threads : recipe->train.threads));
    mn__device device;
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    int64_t vocabulary;
    mn__plan plan;
    if (recipe->train.precision == MN__PRECISION_AUTO)
        status = mn__recipe_set_precision(recipe, mn__precision_best(&device), error);
    if (status == MN_OK)
        status = mn__plan_vocabulary(recipe, &vocabulary, error);
    if (status == MN_OK)
        status = mn__plan_make(&plan, recipe, vocabulary, &device, error);
    mn__device_close(&device);
    if (status != MN_OK)
        return status;
    status = options->json ? mn__table_json(mn__plan_json(&plan), error)
                           : print(recipe->path, &plan, recipe->train.steps, error);
    return status == MN_OK ? mn__plan_check(&plan, error) : status;
}

/* ---- Reading ---------------------------------------------------------------------------- */

enum { CHUNK = 512 };

static json_t *reading_json(const mn__read_plan *plan, double peak)
{
    double flops = plan->products + plan->attention;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}",
                     "tokens", (json_int_t)plan->tokens, "parameters", (json_int_t)plan->parameters,
                     "weights_bytes", (json_int_t)plan->weights, "bf16_copies_bytes",
                     (json_int_t)plan->copies, "state_bytes", (json_int_t)plan->state,
                     "state_bytes_per_thousand_tokens", (json_int_t)plan->state_per_thousand,
                     "activations_bytes", (json_int_t)plan->activations, "total_bytes",
                     (json_int_t)plan->total, "available_bytes", (json_int_t)plan->available,
                     "session_file_bytes", (json_int_t)plan->session, "matrix_flops",
                     plan->products, "attention_flops", plan->attention, "peak_flops_per_second",
                     peak, "seconds_at_peak", peak > 0 ? flops / peak : 0);
}

static mn_status print_reading(const char *path, const mn__read_plan *plan, double peak,
                               mn_error *error)
{
    static const mn__column columns[] = {{"name", "what", 0}, {"value", "needed", 4}, {0}};
    const double MIB = 1 << 20;
    double flops = plan->products + plan->attention;
    const struct {
        const char *name;
        double value;
    } lines[] = {
        {"tokens", (double)plan->tokens},
        {"parameters", (double)plan->parameters},
        {"weights, MiB", (double)plan->weights / MIB},
        {"bf16 copies, MiB", (double)plan->copies / MIB},
        {"state, MiB", (double)plan->state / MIB},
        {"state of a thousand tokens more, MiB", (double)plan->state_per_thousand / MIB},
        {"activations at their peak, MiB", (double)plan->activations / MIB},
        {"in all, MiB", (double)plan->total / MIB},
        {"available here, MiB", (double)plan->available / MIB},
        {"a session's file, MiB", (double)plan->session / MIB},
        {"GFLOP to read it", flops / 1e9},
        {"peak of this machine, GFLOP/s", peak / 1e9},
        {"minutes, were all at the peak", peak > 0 ? flops / peak / 60 : 0},
    };
    json_t *rows = json_array();
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        json_array_append_new(
            rows, i < 2 ? json_pack("{s:s, s:I}", "name", lines[i].name, "value",
                                    (json_int_t)lines[i].value)
                        : json_pack("{s:s, s:f}", "name", lines[i].name, "value", lines[i].value));
    mn__string text = {0};
    mn__string_printf(&text, "%s\n\n", path);
    mn__table_put(&text, columns, rows);
    json_decref(rows);
    return mn__print(&text, error);
}

/* `refusal` says why reading so much would be refused: MN_OK where it would not. */
static mn_status make_reading(mn__read_plan *plan, const char *path, const plan_options *options,
                              mn_error *refusal, mn_error *error)
{
    mn__device device;
    mn__pretrained model;
    mn_status status = mn__device_open_counting(&device, error);
    if (status != MN_OK)
        return status;
    mn__weights usual = options->precision ? MN__WEIGHTS_BF16 : MN__WEIGHTS_F32;
    mn__weights weights = options->weights ? (mn__weights)options->weights : usual;
    status = mn__pretrained_open_as(&model, &device, path, options->tokens, weights,
                                    !options->weights, error);
    *refusal = (mn_error){0};
    if (status == MN_OK) {
        const mn__dtype compute = options->precision ? MN__BF16 : MN__F32;
        const mn__run read = {.decoder = model.decoder, .context = model.config.context};
        status = mn__decoder_keep(model.decoder, (mn__kept)options->cache, error);
        if (status == MN_OK)
            status = mn__read_plan_make(plan, model.decoder, &model.params, model.config.tokens,
                                        CHUNK, compute, error);
        if (status == MN_OK)
            mn__limit_check(&read, "the text", model.config.tokens, compute, refusal);
        mn__pretrained_close(&model);
    }
    mn__device_close(&device);
    return status;
}

static mn_status plan_reading(const mn__call *call, const char *path, mn_error *error)
{
    const plan_options *options = call->options;
    if (options->set.count)
        return mn__fail(error, MN_ERROR_USAGE, "leave it out",
                        "%s is a pretrained model: --set is for recipes", path);
    mn__threads_set((int)options->threads);
    mn__device device;
    mn__read_plan plan;
    mn_error refusal;
    mn_status status = make_reading(&plan, path, options, &refusal, error);
    if (status == MN_OK)
        status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    double peak = mn__peak_measure(&device, options->precision ? MN__BF16 : MN__F32);
    mn__device_close(&device);
    status = options->json ? mn__table_json(reading_json(&plan, peak), error)
                           : print_reading(path, &plan, peak, error);
    if (status == MN_OK && refusal.code != MN_OK) {
        fflush(stdout);
        fprintf(stderr, "note: %s. `mneme read` refuses it without one (%s)\n", refusal.message,
                refusal.hint);
    }
    return status == MN_OK ? mn__read_plan_check(&plan, error) : status;
}

/* ---- Which it is -------------------------------------------------------------------------- */

static mn_status run(mn__call *call, mn_error *error)
{
    const plan_options *options = call->options;
    const char *path = call->operands[0]; /* a run's folder holds the recipe it was made by */
    const char *folder = path;
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_IO, "is the name right?",
                        "%s: there is no such recipe, run or model", path);
    if (mn__file_is_folder(path))
        path = mn__arena_printf(call->arena, "%s/recipe.yaml", path);
    if (!path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a path");
    if (mn__gguf_is_model(folder) || (!mn__file_exists(path) && mn__pretrained_is(folder)))
        return plan_reading(call, folder, error);
    if (options->tokens)
        return mn__fail(error, MN_ERROR_USAGE, "leave it out, or name a pretrained model's folder",
                        "%s is a recipe: --tokens is for pretrained models", path);
    mn__recipe recipe;
    mn_status status =
        mn__recipe_read(&recipe, path, options->set.items, options->set.count, error);
    if (status == MN_OK)
        status = plan_recipe(call, &recipe, error);
    mn__recipe_free(&recipe);
    return status;
}

const mn__verb mn__verb_plan = {
    .name = "plan",
    .operands = "RECIPE|MODEL",
    .least = 1,
    .most = 1,
    .model = true,
    .summary = "say what memory and time a recipe or a reading needs, without running it",
    .details = "The recipe's own step is run with sizes alone, without arithmetic, until its\n"
               "memories are full. RECIPE may be a run's folder. Ends with status 6 where the\n"
               "run would not fit here. MODEL is a pretrained model's folder: what reading\n"
               "--tokens of text with it takes.\n\n"
               "  mneme plan --model Llama-3.1-8B --tokens 128000",
    .tables = tables,
    .options_bytes = sizeof(plan_options),
    .run = run,
};
