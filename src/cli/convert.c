/* mneme convert: a model as a folder that transformers loads (model/export.h). */
#include "base/file.h"
#include "cli/help.h"
#include "cli/open.h"
#include "cli/table.h"
#include "model/export.h"

typedef struct convert_options {
    int to; /* huggingface */
    const char *tokenizer;
    int64_t context;
    int type; /* f32 | bf16 */
    bool force, json;
} convert_options;

static const mn__option own[] = {
    MN__ENUM(convert_options, to, "huggingface", "huggingface", "the layout to write"),
    MN__STRING(convert_options, tokenizer, "",
               "of a pretrained model, a file; default: that of the model"),
    MN__INT(convert_options, context, "0", 0, 1e9,
            "tokens of the longest text; 0: as the model has it, a run's segment"),
    MN__ENUM(convert_options, type, "f32", "f32|bf16", "of the weights that are written"),
    MN__BOOL(convert_options, force, "false", "replace a model that FOLDER holds"),
    MN__BOOL(convert_options, json, "false", "print what was made as JSON"),
    MN__OPTIONS_END,
};
static const mn__option *const tables[] = {own, NULL};

/* Nothing is overwritten unasked, and never what is read. */
static mn_status check_folder(const mn__call *call, mn_error *error)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json", "recipe.yaml"};
    const convert_options *options = call->options;
    const char *folder = call->operands[1];
    if (mn__file_is_same(call->operands[0], folder))
        return mn__fail(error, MN_ERROR_USAGE, "name another folder",
                        "%s is what is to be converted", folder);
    for (size_t i = 0; i < sizeof files / sizeof *files && !options->force; i++) {
        const char *path = mn__arena_printf(call->arena, "%s/%s", folder, files[i]);
        if (!path)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a path");
        if (mn__file_exists(path))
            return mn__fail(error, MN_ERROR_USAGE, "name another folder, or add --force",
                            "%s is there already", path);
    }
    return MN_OK;
}

/* No option goes by unheard. */
static mn_status check_options(const convert_options *options, const mn__run *run, mn_error *error)
{
    int64_t positions = mn__decoder_options_of(run->decoder)->max_positions;
    if (*options->tokenizer && !run->family)
        return mn__fail(error, MN_ERROR_USAGE, "leave --tokenizer out",
                        "%s is a run, which has its own tokenizer", run->folder);
    if (options->context && mn__decoder_learns_positions(run->decoder) &&
        options->context != positions)
        return mn__fail(error, MN_ERROR_USAGE, "leave --context out",
                        "%s has learned %lld positions, for no more and no fewer tokens",
                        run->folder, (long long)positions);
    return MN_OK;
}

/* The tokens of the longest text: the model's own, or a segment that it was trained on. */
static int64_t context_of(const mn__run *run, int64_t asked)
{
    if (mn__decoder_learns_positions(run->decoder))
        return mn__decoder_options_of(run->decoder)->max_positions;
    return asked ? asked : run->context ? run->context : run->segment;
}

static mn_status print(const mn__call *call, const mn__run *run, const mn__family *family,
                       int64_t context, mn_error *error)
{
    const convert_options *options = call->options;
    const char *folder = call->operands[1];
    long long parameters = (long long)mn__params_elements(&run->params);
    if (options->json)
        return mn__table_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "kind",
                                        "pretrained model", "folder", folder, "family",
                                        family->type, "parameters", (json_int_t)parameters,
                                        "vocabulary", (json_int_t)run->tokenizer->vocab, "context",
                                        (json_int_t)context),
                              error);
    mn__string text = {0};
    mn__string_printf(&text, "%s: %s, %lld parameters, texts of up to %lld tokens\n", folder,
                      family->architecture, parameters, (long long)context);
    return mn__print(&text, error);
}

static mn_status convert(const mn__call *call, const mn__run *run, mn_error *error)
{
    const convert_options *options = call->options;
    const mn__family *family;
    const mn__export what = {.decoder = run->decoder,
                             .params = &run->params,
                             .tokenizer = run->tokenizer,
                             .before = &run->before,
                             .first = run->family,
                             .context = context_of(run, options->context),
                             .ends = run->ends,
                             .end_count = run->end_count,
                             .type = options->type ? MN__BF16 : MN__F32,
                             .source = call->operands[0]};
    mn_status status = mn__export_write(&what, call->operands[1], &family, error);
    return status == MN_OK ? print(call, run, family, what.context, error) : status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const convert_options *options = call->options;
    const mn__run_how how = {.weights = MN__WEIGHTS_MASTERS,
                             .tokenizer = *options->tokenizer ? options->tokenizer : NULL};
    mn__device device;
    mn__run model;
    mn_status status = check_folder(call, error);
    if (status == MN_OK)
        status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__run_open_as(&model, &device, call->operands[0], &how, error);
    if (status == MN_OK) {
        status = check_options(options, &model, error);
        if (status == MN_OK)
            status = convert(call, &model, error);
        mn__run_close(&model);
    }
    mn__device_close(&device);
    return status;
}

const mn__verb mn__verb_convert = {
    .name = "convert",
    .operands = "MODEL FOLDER",
    .least = 2,
    .most = 2,
    .summary = "write a model as a folder that transformers loads",
    .details = "MODEL is a checkpoint of llama2.c (.bin; its tokenizer.bin is beside it, or\n"
               "named by --tokenizer), a run that was trained here, a GGUF file or a folder.\n"
               "FOLDER gets config.json, model.safetensors, tokenizer.json and\n"
               "tokenizer_config.json. A model or a tokenizer without a counterpart is refused\n"
               "before anything is written, and the message says in what it differs.\n\n"
               "  mneme convert stories15M.bin stories15M --to huggingface\n"
               "  mneme convert runs/books books-hf",
    .tables = tables,
    .options_bytes = sizeof(convert_options),
    .run = run,
};
