/* Folders for transformers. */
#include "model/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/safetensors.h"
#include "model/config_write.h"
#include "model/naming.h"
#include "text/export.h"

/* The weights of one model, on their way into a file. */
struct writing {
    const mn__export *what;
    const mn__family *family;
    mn__arena arena;        /* names, and what is not in the file as it is in memory */
    mn__safetensor *tensor; /* [capacity] */
    int64_t count, capacity, given;
    bool to_halves, to_neighbours; /* how rotary pairs are to move; neither: they stay */
};

static mn_status fail_memory(const struct writing *w, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: no memory to convert it", w->what->source);
}

/* ---- Rows ----------------------------------------------------------------------------------- */

static bool ends(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcmp(text + length - tail, end);
}

/* How many of a parameter's first rows belong to heads that turn. */
static int64_t rows_that_turn(const mn__param *param)
{
    static const char *const all[] = {".query.weight", ".query.bias", ".query_norm.gain",
                                      ".key_norm.gain"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (ends(param->name, all[i]))
            return param->value.size[0];
    bool both = ends(param->name, ".key_value.weight") || ends(param->name, ".key_value.bias");
    return both ? param->value.size[0] / 2 : 0;
}

/* Which of our rows is row `row` of a parameter in the file. */
static int64_t row_of(const struct writing *w, const mn__param *param, int64_t row)
{
    const mn__decoder_options *options = mn__decoder_options_of(w->what->decoder);
    int64_t D = options->head_width, width = options->rope_width ? options->rope_width : D;
    int64_t i = row % D;
    if ((!w->to_halves && !w->to_neighbours) || row >= rows_that_turn(param) || i >= width)
        return row;
    if (w->to_halves)
        return row - i + (i < width / 2 ? 2 * i : 2 * (i - width / 2) + 1);
    return row - i + (i % 2 ? width / 2 + i / 2 : i / 2);
}

/* Row `row` of all of ours together. */
static const float *row_at(const struct writing *w, const mn__match *match, int64_t row)
{
    int n = 0;
    while (row >= match->param[n]->value.size[0])
        row -= match->param[n++]->value.size[0];
    const float *data = match->param[n]->value.data;
    return data + row_of(w, match->param[n], row) * (match->columns ? match->columns : 1);
}

/* Whether `rows` rows from `first` on lie in memory as they are to lie in the file. */
static bool is_plain(const struct writing *w, const mn__match *match, int64_t first, int64_t rows)
{
    int64_t width = match->columns ? match->columns : 1;
    const float *begin = row_at(w, match, first);
    if (w->what->type != MN__F32 || mn__match_is_turned(match) || match->naming->skip)
        return false;
    for (int64_t r = 0; r < rows; r++)
        if (row_at(w, match, first + r) != begin + r * width)
            return false;
    return true;
}

/* Element i of a tensor of the file. */
static void put(const struct writing *w, void *data, int64_t i, float value)
{
    if (w->what->type == MN__BF16)
        ((mn__bf16 *)data)[i] = mn__f32_to_bf16(value);
    else
        ((float *)data)[i] = value;
}

/* The rows, after `skip` rows of zeros; or as columns. NULL when memory is short. */
static const void *copy_rows(struct writing *w, const mn__match *match, int64_t first, int64_t rows)
{
    int64_t width = match->columns ? match->columns : 1, skip = match->naming->skip;
    bool turned = mn__match_is_turned(match);
    void *data = mn__arena_calloc(&w->arena, mn__size_product(rows + skip, width),
                                  mn__dtype_bytes(w->what->type));
    for (int64_t r = 0; data && r < rows; r++) {
        const float *row = row_at(w, match, first + r);
        for (int64_t c = 0; c < width; c++)
            put(w, data, turned ? c * rows + r : (skip + r) * width + c, row[c]);
    }
    return data;
}

/* ---- Tensors -------------------------------------------------------------------------------- */

/* The head alone stands beside the model that the prefix names. */
static char *full_name(struct writing *w, const mn__match *match, int n)
{
    bool head = !strcmp(match->naming->ours[0], "head");
    return mn__arena_printf(&w->arena, "%s%s", head ? "" : w->family->prefix, match->their_name[n]);
}

static bool add_match(struct writing *w, const mn__match *match)
{
    int64_t rows = match->rows / match->theirs;
    for (int n = 0; n < match->theirs; n++) {
        mn__safetensor *tensor = &w->tensor[w->count++];
        int64_t in_file = rows + match->naming->skip;
        bool turned = mn__match_is_turned(match);
        *tensor = (mn__safetensor){
            .name = full_name(w, match, n),
            .dtype = mn__dtype_name(w->what->type),
            .rank = match->columns ? 2 : 1,
            .size = {turned ? match->columns : in_file, turned ? in_file : match->columns},
            .bytes =
                in_file * (match->columns ? match->columns : 1) * mn__dtype_bytes(w->what->type),
            .data = is_plain(w, match, n * rows, rows) ? row_at(w, match, n * rows)
                                                       : copy_rows(w, match, n * rows, rows)};
        if (!tensor->name || !tensor->data)
            return false;
    }
    w->given += match->ours;
    return true;
}

static mn_status collect(struct writing *w, mn_error *error)
{
    const mn__export *what = w->what;
    mn__matches matches = {.family = w->family,
                           .params = what->params,
                           .depth = mn__decoder_options_of(what->decoder)->depth};
    w->capacity = 2 * what->params->count;
    w->tensor = mn__arena_calloc(&w->arena, w->capacity, sizeof *w->tensor);
    bool whole = w->tensor;
    while (whole && mn__matches_next(&matches))
        whole = add_match(w, &matches.match);
    if (!whole)
        return fail_memory(w, error);
    for (int64_t i = 0; w->given < what->params->count && i < what->params->count; i++)
        if (!mn__family_names(w->family, matches.depth, what->params->items[i]->name))
            return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                            "the family %s has no counterpart of %s", w->family->type,
                            what->params->items[i]->name);
    return MN_OK;
}

static mn_status write_weights(struct writing *w, const char *folder, mn_error *error)
{
    static const char *const metadata[] = {"format", "pt", NULL};
    const char *path = mn__arena_printf(&w->arena, "%s/model.safetensors", folder);
    if (!path)
        return fail_memory(w, error);
    return mn__safetensors_write(path, w->tensor, w->count, metadata, error);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static mn_status write_text(struct writing *w, const char *folder, const char *name,
                            const char *text, int64_t bytes, mn_error *error)
{
    const char *path = mn__arena_printf(&w->arena, "%s/%s", folder, name);
    return path ? mn__file_write(path, text, bytes, error) : fail_memory(w, error);
}

static mn_status write_json(struct writing *w, const char *folder, const char *name, json_t *root,
                            mn_error *error)
{
    char *text = json_dumps(root, JSON_INDENT(2));
    mn__string whole = {0};
    mn__string_printf(&whole, "%s\n", text ? text : "");
    mn_status status = !text || whole.failed
                           ? fail_memory(w, error)
                           : write_text(w, folder, name, whole.text, whole.bytes, error);
    mn__string_free(&whole);
    free(text);
    return status;
}

/* Where texts begin and end. A family's own numbers, of its published vocabulary, would hold
 * where these are not said. */
static void put_ids(const struct writing *w, json_t *root)
{
    json_t *ids = json_array();
    for (int64_t i = 0; i < w->what->end_count; i++)
        json_array_append_new(ids, json_integer(w->what->ends[i]));
    json_t *end = w->what->end_count > 1 ? ids : json_array_get(ids, 0);
    json_object_set_new(root, "bos_token_id", json_integer(w->what->tokenizer->start));
    json_object_set(root, "eos_token_id", end ? end : json_null());
    json_object_set_new(root, "pad_token_id", json_null());
    json_object_set_new(root, "torch_dtype",
                        json_string(w->what->type == MN__BF16 ? "bfloat16" : "float32"));
    json_decref(ids);
}

static void put_special(const struct writing *w, json_t *root, const char *key, int32_t id)
{
    const mn__tokenizer *tokenizer = w->what->tokenizer;
    int64_t bytes;
    if (!tokenizer->special || id < 0 || id >= tokenizer->vocab || !tokenizer->special[id])
        return;
    const char *text = mn__tokenizer_piece(tokenizer, id, &bytes);
    json_object_set_new(root, key, json_stringn(text, (size_t)bytes));
}

static json_t *tokenizer_config(const struct writing *w)
{
    const mn__export *what = w->what;
    json_t *root =
        json_pack("{s:s, s:I, s:b}", "tokenizer_class", "PreTrainedTokenizerFast",
                  "model_max_length", (json_int_t)what->context, "clean_up_tokenization_spaces", 0);
    put_special(w, root, "bos_token", what->tokenizer->start);
    put_special(w, root, "unk_token", what->tokenizer->unknown);
    if (what->end_count)
        put_special(w, root, "eos_token", what->ends[what->end_count - 1]);
    return root;
}

/* ---- The folder -------------------------------------------------------------------------------
 */

static mn_status write_all(struct writing *w, const char *folder, json_t *config,
                           const mn__string *tokenizer, mn_error *error)
{
    mn_status status = mn__file_make_folder(folder, error);
    if (status == MN_OK)
        status = write_weights(w, folder, error);
    if (status == MN_OK)
        status = write_text(w, folder, "tokenizer.json", tokenizer->text, tokenizer->bytes, error);
    if (status == MN_OK) {
        json_t *beside = tokenizer_config(w);
        status = write_json(w, folder, "tokenizer_config.json", beside, error);
        json_decref(beside);
    }
    return status == MN_OK ? write_json(w, folder, "config.json", config, error) : status;
}

mn_status mn__export_write(const mn__export *what, const char *folder, const mn__family **family,
                           mn_error *error)
{
    struct writing w = {.what = what};
    json_t *config = NULL;
    mn__string tokenizer = {0};
    mn__arena_init(&w.arena, 1 << 14);
    mn_status status =
        mn__config_write(&config, &w.family, what->decoder, what->context, what->first, error);
    if (status == MN_OK)
        status = mn__tokenizer_export_with(what->tokenizer,
                                           what->before ? what->before : &what->tokenizer->before,
                                           &tokenizer, error);
    if (status == MN_OK) {
        bool ours = mn__decoder_options_of(what->decoder)->rope_interleaved;
        bool theirs = w.family->options && strstr(w.family->options, "rope_interleaved: true");
        w.to_halves = w.family->rope && ours && !theirs;
        w.to_neighbours = w.family->rope && theirs && !ours;
        put_ids(&w, config);
        status = collect(&w, error);
    }
    if (status == MN_OK)
        status = write_all(&w, folder, config, &tokenizer, error);
    if (status == MN_ERROR_UNSUPPORTED)
        mn__error_prefix(error, "%s", what->source);
    *family = w.family;
    json_decref(config);
    mn__string_free(&tokenizer);
    mn__arena_free(&w.arena);
    return status;
}
