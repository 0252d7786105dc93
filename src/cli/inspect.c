/* mneme inspect: what a file or folder is, and what it holds. */
#include <stdio.h>
#include <string.h>

#include "base/gguf.h"
#include "base/safetensors_folder.h"
#include "cli/cli.h"
#include "cli/dataset.h"
#include "cli/help.h"
#include "cli/open.h"
#include "cli/table.h"
#include "model/pretrained.h"

typedef struct inspect_options {
    const char *model;
    bool json, verify;
    int weights; /* f32 | f16 | bf16 | int8 | int4 */
} inspect_options;

static const mn__option own[] = {
    MN__STRING(inspect_options, model, "", "names PATH, in the operand's place"),
    MN__BOOL(inspect_options, json, "false", "print JSON"),
    MN__BOOL(inspect_options, verify, "false",
             "read all of a data set first, and compare it with its hashes"),
    MN__ENUM(inspect_options, weights, "f32", "f32|f16|bf16|int8|int4",
             "of a pretrained model: what it takes open, kept so"),
    MN__OPTIONS_END,
};
static const mn__option *const tables[] = {own, NULL};

/* ---- Tensors ------------------------------------------------------------------ */

static const mn__column tensor_columns[] = {
    {"name", "tensor", 0}, {"type", "type", 0}, {"shape", "shape", 0}, {"bytes", "bytes", 0}, {0},
};

static json_t *tensor_row(const char *name, const char *type, int rank, const int64_t *size,
                          int64_t bytes)
{
    mn__string shape = {0};
    for (int i = 0; i < rank; i++)
        mn__string_printf(&shape, "%s%lld", i ? " x " : "", (long long)size[i]);
    json_t *row = json_pack("{s:s, s:s, s:s, s:I}", "name", name, "type", type, "shape",
                            shape.text ? shape.text : "scalar", "bytes", (json_int_t)bytes);
    mn__string_free(&shape);
    return row;
}

/* {"kind", ..., "values": [{name, value}], "tensors": [...]} */
static mn_status print_tensors(json_t *root, const char *title, bool json, mn_error *error)
{
    if (json || !root)
        return mn__table_json(root, error);
    static const mn__column value_columns[] = {{"name", "value", 0}, {"value", "is", 6}, {0}};
    const json_t *values = json_object_get(root, "values"),
                 *tensors = json_object_get(root, "tensors");
    json_int_t bytes = 0;
    size_t i;
    const json_t *row;
    json_array_foreach(tensors, i, row) bytes += json_integer_value(json_object_get(row, "bytes"));
    mn__string text = {0};
    mn__string_printf(&text, "%s\n%zu tensors, ", title, json_array_size(tensors));
    mn__table_integer(&text, bytes);
    mn__string_puts(&text, " bytes\n");
    if (json_array_size(values)) {
        mn__string_puts(&text, "\n");
        mn__table_put(&text, value_columns, values);
    }
    mn__string_puts(&text, "\n");
    mn__table_put(&text, tensor_columns, tensors);
    json_decref(root);
    return mn__print(&text, error);
}

/* ---- safetensors ----------------------------------------------------------------- */

/* What a session was read in. */
static void put_session(mn__string *out, json_t *root, const mn__safetensors *file)
{
    static const struct {
        const char *key, *words;
    } said[] = {
        {"precision", "read in"}, {"kept", "weights kept as"}, {"cache", "keys and values in"}};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        const char *value = mn__safetensors_metadata(file, said[i].key);
        value = value ? value : "";
        json_object_set_new(root, said[i].key, json_string(value));
        mn__string_printf(out, "%s%s %s", i ? ", " : "\n", said[i].words, value);
    }
}

static mn_status inspect_safetensors(const char *path, bool json, mn_error *error)
{
    mn__safetensors *file;
    mn_status status = mn__safetensors_open(&file, path, error);
    if (status != MN_OK)
        return status;
    json_t *tensors = json_array();
    for (int64_t i = 0; i < mn__safetensors_count(file); i++) {
        const mn__safetensor *tensor = mn__safetensors_at(file, i);
        json_array_append_new(tensors, tensor_row(tensor->name, tensor->dtype, tensor->rank,
                                                  tensor->size, tensor->bytes));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:o}", "kind", "safetensors", "file", path, "tensors", tensors);
    const char *format = mn__safetensors_metadata(file, "format");
    mn__string title = {0};
    mn__string_printf(&title, "%s: safetensors%s%s", path, format ? ", " : "",
                      format ? format : "");
    if (format && !strcmp(format, "mneme session"))
        put_session(&title, root, file);
    status = print_tensors(root, title.text ? title.text : path, json, error);
    mn__string_free(&title);
    mn__safetensors_close(file);
    return status;
}

/* ---- GGUF -------------------------------------------------------------------------- */

static json_t *gguf_value(const mn__gguf_value *value)
{
    static const char *const types[] = {"U8",   "I8",     "U16",   "I16", "U32", "I32", "F32",
                                        "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"};
    switch (value->type) {
    case MN__GGUF_U8:
    case MN__GGUF_U16:
    case MN__GGUF_U32:
    case MN__GGUF_U64:
        return json_integer((json_int_t)value->as.u);
    case MN__GGUF_I8:
    case MN__GGUF_I16:
    case MN__GGUF_I32:
    case MN__GGUF_I64:
        return json_integer(value->as.i);
    case MN__GGUF_F32:
    case MN__GGUF_F64:
        return json_real(value->as.f);
    case MN__GGUF_BOOL:
        return json_boolean(value->as.b);
    case MN__GGUF_STRING:
        return json_stringn(value->as.text.text, (size_t)value->as.text.bytes);
    case MN__GGUF_ARRAY:
        return json_sprintf("%lld of %s", (long long)value->as.array.count,
                            types[value->as.array.type]);
    }
    return NULL;
}

static mn_status inspect_gguf(const char *path, bool json, mn_error *error)
{
    mn__gguf *file;
    mn_status status = mn__gguf_open(&file, path, error);
    if (status != MN_OK)
        return status;
    json_t *tensors = json_array(), *values = json_array();
    for (int64_t i = 0; i < mn__gguf_tensor_count(file); i++) {
        const mn__gguf_tensor *tensor = mn__gguf_tensor_at(file, i);
        json_array_append_new(tensors, tensor_row(tensor->name, tensor->type_name, tensor->rank,
                                                  tensor->size, tensor->bytes));
    }
    for (int64_t i = 0; i < mn__gguf_value_count(file); i++) {
        const mn__gguf_value *value = mn__gguf_value_at(file, i);
        json_t *as_json = gguf_value(value);
        json_array_append_new(values,
                              json_pack("{s:s, s:o}", "name", value->key, "value",
                                        as_json ? as_json : json_string("text that is no UTF-8")));
    }
    json_t *root = json_pack("{s:s, s:s, s:i, s:o, s:o}", "kind", "gguf", "file", path, "version",
                             mn__gguf_version(file), "values", values, "tensors", tensors);
    mn__string title = {0};
    mn__string_printf(&title, "%s: GGUF, version %d", path, mn__gguf_version(file));
    status = print_tensors(root, title.text ? title.text : path, json, error);
    mn__string_free(&title);
    mn__gguf_close(file);
    return status;
}

/* ---- Runs ------------------------------------------------------------------------ */

/* Every layer's sublayers, as in a recipe. */
static json_t *block_rows(const mn__decoder *decoder)
{
    json_t *rows = json_array();
    for (int64_t i = 0; i < mn__decoder_options_of(decoder)->depth; i++) {
        mn__string text = {0};
        mn__decoder_put_block(decoder, i, &text);
        json_array_append_new(rows, json_string(text.text ? text.text : ""));
        mn__string_free(&text);
    }
    return rows;
}

/* "layers 0 to 5: [xl, feed_forward]", a line for those that are alike. */
static void put_blocks(mn__string *out, const json_t *rows)
{
    size_t count = json_array_size(rows);
    for (size_t i = 0, next; i < count; i = next) {
        const json_t *row = json_array_get(rows, i);
        for (next = i + 1; next < count && json_equal(json_array_get(rows, next), row); next++)
            ;
        mn__string_printf(out, "\nlayer%s %zu", next > i + 1 ? "s" : "", i);
        if (next > i + 1)
            mn__string_printf(out, " to %zu", next - 1);
        mn__string_printf(out, ": %s", json_string_value(row));
    }
}

static mn_status inspect_run(const char *path, bool json, mn_error *error)
{
    static const mn__run_use as_trained = {0};
    mn__opened opened;
    mn_status status = mn__opened_open(&opened, path, &as_trained, error);
    if (status != MN_OK)
        return status;
    mn__run *run = &opened.run;
    json_t *tensors = json_array();
    for (int64_t i = 0; i < run->params.count; i++) {
        const mn__tensor *value = &run->params.items[i]->value;
        json_array_append_new(tensors,
                              tensor_row(run->params.items[i]->name, mn__dtype_name(value->dtype),
                                         value->rank, value->size, mn__tensor_bytes(value)));
    }
    json_t *blocks = block_rows(run->decoder);
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:I, s:s, s:I, s:s, s:I, s:o, s:o}", "kind", "run", "folder", path,
        "weights", run->weights_file, "step", (json_int_t)run->step, "fingerprint",
        mn__run_fingerprint(run, error), "parameters",
        (json_int_t)mn__params_elements(&run->params), "tokenizer", run->tokenizer->type->name,
        "vocabulary", (json_int_t)run->tokenizer->vocab, "blocks", blocks, "tensors", tensors);
    mn__string title = {0};
    mn__string_printf(&title, "%s: a run, %s of step %lld, %s\ntokenizer %s, %lld ids", path,
                      run->weights_file, (long long)run->step, mn__run_fingerprint(run, error),
                      run->tokenizer->type->name, (long long)run->tokenizer->vocab);
    put_blocks(&title, blocks);
    status = print_tensors(root, title.text ? title.text : path, json, error);
    mn__string_free(&title);
    mn__opened_close(&opened);
    return status;
}

/* ---- Pretrained models ----------------------------------------------------------------- */

/* {name, value} of each line "name: value". */
static json_t *option_rows(const mn__decoder *decoder)
{
    json_t *rows = json_array();
    mn__string text = {0};
    mn__decoder_write_model(decoder, &text);
    char *rest = text.failed ? NULL : text.text;
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strstr(line, ": ");
        if (!colon)
            continue;
        *colon = '\0';
        json_array_append_new(rows, json_pack("{s:s, s:s}", "name", line, "value", colon + 2));
    }
    mn__string_free(&text);
    return rows;
}

/* Adds a parameter to the row of its group and form: {group, form, tensors, bytes}. `name`: to
 * be said by name, too. */
static void add_kept(json_t *rows, const char *group, const char *form, int64_t bytes,
                     const char *name)
{
    json_t *row = NULL;
    for (size_t i = 0; i < json_array_size(rows) && !row; i++) {
        json_t *other = json_array_get(rows, i);
        if (!strcmp(json_string_value(json_object_get(other, "group")), group) &&
            !strcmp(json_string_value(json_object_get(other, "form")), form))
            row = other;
    }
    if (!row) {
        row = json_pack("{s:s, s:s, s:I, s:I}", "group", group, "form", form, "tensors",
                        (json_int_t)0, "bytes", (json_int_t)0);
        json_array_append_new(rows, row);
    }
    json_t *tensors = json_object_get(row, "tensors"), *sum = json_object_get(row, "bytes");
    json_integer_set(tensors, json_integer_value(tensors) + 1);
    json_integer_set(sum, json_integer_value(sum) + (json_int_t)bytes);
    if (name && !json_object_get(row, "names"))
        json_object_set_new(row, "names", json_array());
    if (name)
        json_array_append_new(json_object_get(row, "names"), json_string(name));
}

/* What is kept alike once the model is open. Named are weights that are in another form than
 * the one asked for, as their rows are no blocks of it. */
static json_t *kept_rows(const mn__params *params)
{
    mn__queue *queue = &params->device->queue;
    json_t *rows = json_array();
    for (int64_t i = 0; i < params->count; i++) {
        const mn__param *param = params->items[i];
        const int64_t *size = param->value.size;
        const char *form = mn__form_name(param->form);
        if (param->packs)
            add_kept(rows, "weights of products", form,
                     queue->kernels->pack_bytes(queue, size[1], size[0], param->form),
                     strcmp(form, mn__weights_name(params->weights)) ? param->name : NULL);
    }
    for (int held = 1; held >= 0; held--)
        for (int64_t i = 0; i < params->count; i++) {
            const mn__param *param = params->items[i];
            if (param->held == held && (!param->packs || param->readers & MN__READERS_ROWS))
                add_kept(rows, held ? "rows of embeddings" : "others",
                         mn__dtype_name(param->value.dtype), mn__tensor_bytes(&param->value), NULL);
        }
    return rows;
}

/* " (no blocks of 32: a, b and 3 more)" */
static void put_names(mn__string *out, const json_t *names)
{
    enum { MOST = 4 };
    size_t count = json_array_size(names);
    for (size_t i = 0; i < count && i < MOST; i++)
        mn__string_printf(out, "%s%s", i ? ", " : " (rows that are no blocks of 32: ",
                          json_string_value(json_array_get(names, i)));
    if (count > MOST)
        mn__string_printf(out, " and %zu more", count - MOST);
    if (count)
        mn__string_puts(out, ")");
}

/* "open: weights of products in int8, 14 tensors, 1,234 bytes; ..." */
static void put_kept(mn__string *out, const json_t *rows)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        int tensors = (int)json_integer_value(json_object_get(row, "tensors"));
        mn__string_printf(out, "%s%s in %s, %d tensor%s, ",
                          i ? "; " : "\nopen: ", json_string_value(json_object_get(row, "group")),
                          json_string_value(json_object_get(row, "form")), tensors,
                          tensors == 1 ? "" : "s");
        mn__table_integer(out, json_integer_value(json_object_get(row, "bytes")));
        mn__string_puts(out, " bytes");
        put_names(out, json_object_get(row, "names"));
    }
}

/* As they lie in the folder. */
static mn_status folder_rows(const char *path, json_t *rows, mn_error *error)
{
    mn__safetensors_folder *files;
    mn_status status = mn__safetensors_folder_open(&files, path, error);
    if (status != MN_OK)
        return status;
    for (int64_t i = 0; i < mn__safetensors_folder_count(files); i++) {
        const mn__safetensor *tensor = mn__safetensors_folder_at(files, i);
        json_array_append_new(rows, tensor_row(tensor->name, tensor->dtype, tensor->rank,
                                               tensor->size, tensor->bytes));
    }
    mn__safetensors_folder_close(files);
    return MN_OK;
}

static mn_status print_pretrained(const mn__pretrained *model, bool json, mn_error *error)
{
    json_t *tensors = json_array(), *blocks = block_rows(model->decoder);
    json_t *kept = kept_rows(&model->params);
    const mn__family *family = model->config.family;
    mn_status status = folder_rows(model->folder, tensors, error);
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "kind",
                             "pretrained model", "folder", model->folder, "family", family->type,
                             "parameters", (json_int_t)mn__params_elements(&model->params),
                             "vocabulary", (json_int_t)model->config.vocabulary, "context",
                             (json_int_t)model->config.context, "blocks", blocks, "values",
                             option_rows(model->decoder), "tensors", tensors, "open", kept);
    if (status != MN_OK) {
        json_decref(root);
        return status;
    }
    mn__string title = {0};
    mn__string_printf(&title,
                      "%s: a pretrained model, %s (%s)\n%lld parameters, %lld ids, texts of up "
                      "to %lld tokens",
                      model->folder, family->type, family->help,
                      (long long)mn__params_elements(&model->params),
                      (long long)model->config.vocabulary, (long long)model->config.context);
    put_kept(&title, kept);
    put_blocks(&title, blocks);
    status = print_tensors(root, title.text ? title.text : model->folder, json, error);
    mn__string_free(&title);
    return status;
}

/* All is checked; nothing is loaded. */
static mn_status inspect_pretrained(const char *path, mn__weights weights, bool json,
                                    mn_error *error)
{
    mn__device device;
    mn__pretrained model;
    mn_status status = mn__device_open_counting(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__pretrained_open_as(&model, &device, path, 0, weights, false, error);
    if (status == MN_OK) {
        status = print_pretrained(&model, json, error);
        mn__pretrained_close(&model);
    }
    mn__device_close(&device);
    return status;
}

/* ---- Data sets and tokenizers ---------------------------------------------------------- */

static mn_status inspect_dataset(const mn__call *call, mn_error *error)
{
    const inspect_options *options = call->options;
    mn__dataset *dataset;
    mn_status status = mn__dataset_open(&dataset, call->operands[0], error);
    if (status != MN_OK)
        return status;
    if (options->verify)
        status = mn__dataset_verify(dataset, call->progress, error);
    if (status == MN_OK)
        status = mn__dataset_print(dataset, options->json, error);
    mn__dataset_close(dataset);
    return status;
}

static mn_status inspect_tokenizer(const char *path, bool json, mn_error *error)
{
    mn__tokenizer *tokenizer;
    mn_status status = mn__tokenizer_load(&tokenizer, path, error);
    if (status != MN_OK)
        return status;
    if (json) {
        status = mn__table_json(json_pack("{s:s, s:s, s:s, s:I, s:b, s:i, s:s}", "kind",
                                          "tokenizer", "path", path, "type", tokenizer->type->name,
                                          "vocabulary", (json_int_t)tokenizer->vocab, "lossless",
                                          tokenizer->lossless, "start", (int)tokenizer->start,
                                          "fingerprint", tokenizer->fingerprint.hex),
                                error);
    } else {
        printf("%s: a tokenizer\n%s, %lld ids, %s, start %d, %s\n", path, tokenizer->type->name,
               (long long)tokenizer->vocab, tokenizer->lossless ? "lossless" : "not lossless",
               (int)tokenizer->start, tokenizer->fingerprint.hex);
    }
    mn__tokenizer_free(tokenizer);
    return status;
}

/* ---- Which it is ------------------------------------------------------------------------- */

static bool holds(const char *folder, const char *name)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    bool there = !path.failed && mn__file_exists(path.text);
    mn__string_free(&path);
    return there;
}

static bool ends(const char *path, const char *ending)
{
    size_t length = strlen(path), own_length = strlen(ending);
    return length >= own_length && !strcmp(path + length - own_length, ending);
}

static bool is_tokenizer(const char *path)
{
    static const char *const held[] = {"tokenizer.json", "tokenizer.model", "encoder.json"};
    static const char *const endings[] = {".model", ".tiktoken", "tokenizer.json", "encoder.json"};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        if (holds(path, held[i]))
            return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (ends(path, endings[i]))
            return true;
    return false;
}

static mn_status inspect(const mn__call *call, mn_error *error)
{
    const inspect_options *options = call->options;
    const char *path = call->operands[0];
    bool json = options->json;
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_IO, "check the path", "%s: there is no such file", path);
    if (holds(path, "dataset.json"))
        return inspect_dataset(call, error);
    if (options->verify)
        return mn__fail(error, MN_ERROR_USAGE, "leave out --verify",
                        "%s: --verify is for data sets, which keep hashes of what they hold", path);
    if (holds(path, "recipe.yaml"))
        return inspect_run(path, json, error);
    if (mn__pretrained_is(path) && mn__file_is_folder(path))
        return inspect_pretrained(path, (mn__weights)(options->weights + MN__WEIGHTS_F32), json,
                                  error);
    if (is_tokenizer(path))
        return inspect_tokenizer(path, json, error);
    if (ends(path, ".safetensors") || ends(path, ".mns"))
        return inspect_safetensors(path, json, error);
    if (ends(path, ".gguf"))
        return inspect_gguf(path, json, error);
    return mn__fail(
        error, MN_ERROR_UNSUPPORTED,
        "inspect reads .safetensors, .mns, .gguf, .model, data sets, tokenizers, runs and "
        "pretrained models",
        "%s: neither a file nor a folder that mneme knows", path);
}

static mn_status run(mn__call *call, mn_error *error)
{
    return inspect(call, error);
}

const mn__verb mn__verb_inspect = {
    .name = "inspect",
    .operands = "PATH",
    .least = 1,
    .most = 1,
    .model = true,
    .summary = "say what a file or folder is and what it holds",
    .details =
        "PATH is a .safetensors, .mns or .gguf file, a run, a pretrained model's folder, a\n"
        "data set, or a tokenizer. Of a pretrained model it says, too, what its weights take\n"
        "once they are kept as --weights says.\n\n"
        "  mneme inspect books --verify\n"
        "  mneme inspect Llama-3.1-8B --weights int8",
    .tables = tables,
    .options_bytes = sizeof(inspect_options),
    .run = run,
};
