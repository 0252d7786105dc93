/* Tokenizers on disk: our tokenizer.json names the kind and the fingerprint of the
 * payload, a file of its own beside it. One of Hugging Face is a payload itself;
 * a .model file is SentencePiece's or tiktoken's, as it begins. */
#include <jansson.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "text/import.h"
#include "text/tokenizer_types.h"

enum { JSON_LIMIT = 1 << 16, FILE_LIMIT = 1 << 30 };

static mn_status fail_memory(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
}

/* ---- Saving --------------------------------------------------------------- */

static mn_status save_payload(const mn__tokenizer *tokenizer, const char *folder, mn_error *error)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, tokenizer->type->file);
    mn_status status = path.failed ? fail_memory(folder, error)
                                   : mn__file_write(path.text, tokenizer->payload.text,
                                                    tokenizer->payload.bytes, error);
    mn__string_free(&path);
    return status;
}

mn_status mn__tokenizer_save(const mn__tokenizer *tokenizer, const char *folder, mn_error *error)
{
    mn_status status = mn__file_make_folder(folder, error);
    if (!status && tokenizer->type->file)
        status = save_payload(tokenizer, folder, error);
    if (status)
        return status;
    mn__string path = {0}, json = {0};
    mn__string_printf(&path, "%s/tokenizer.json", folder);
    mn__string_printf(&json, "{\"mneme_tokenizer\": 1, \"kind\": \"%s\", \"vocab\": %lld, ",
                      tokenizer->type->name, (long long)tokenizer->vocab);
    mn__string_printf(&json, "\"lossless\": %s, \"fingerprint\": \"%s\"}\n",
                      tokenizer->lossless ? "true" : "false", tokenizer->fingerprint.hex);
    status = path.failed || json.failed ? fail_memory(folder, error)
                                        : mn__file_write(path.text, json.text, json.bytes, error);
    mn__string_free(&path);
    mn__string_free(&json);
    return status;
}

/* ---- Loading -------------------------------------------------------------- */

static mn_status load_payload(mn__tokenizer **tokenizer, const char *kind, const char *path,
                              const char *fingerprint, mn_error *error)
{
    char *text = NULL;
    int64_t bytes = 0;
    mn_status status = path ? mn__file_read(path, 0, &text, &bytes, error) : MN_OK;
    if (!status)
        status = mn__tokenizer_of_payload(tokenizer, kind, text, bytes, fingerprint, error);
    if (status && path)
        mn__error_prefix(error, "%s", path);
    mn__free(text);
    return status;
}

/* Whether a tokenizer.json is ours. */
static bool is_described(const char *text, int64_t bytes)
{
    return bytes <= JSON_LIMIT && memmem(text, (size_t)bytes, "\"mneme_tokenizer\"", 17);
}

static mn_status load_kind(mn__tokenizer **tokenizer, const char *folder, const char *kind,
                           const char *fingerprint, mn_error *error)
{
    const mn__tokenizer_type *type;
    mn__string path = {0};
    mn_status status = mn__tokenizer_type_find(&type, kind, error);
    if (!status && type->file)
        mn__string_printf(&path, "%s/%s", folder, type->file);
    if (!status && path.failed)
        status = fail_memory(folder, error);
    if (!status)
        status = load_payload(tokenizer, kind, path.text, fingerprint, error);
    mn__string_free(&path);
    return status;
}

static mn_status load_described(mn__tokenizer **tokenizer, const char *folder, const char *path,
                                const char *text, int64_t bytes, mn_error *error)
{
    json_error_t why;
    const char *kind = NULL, *fingerprint = NULL;
    int version = 0;
    json_t *json = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return mn__fail(error, MN_ERROR_FORMAT, "copy the folder again: a file of it was changed",
                        "%s:%d: %s", path, why.line, why.text);
    mn_status status = MN_OK;
    if (json_unpack(json, "{s:i, s:s, s:s}", "mneme_tokenizer", &version, "kind", &kind,
                    "fingerprint", &fingerprint) ||
        version != 1)
        status =
            mn__fail(error, MN_ERROR_FORMAT, "name the folder of a run or of a prepared data set",
                     "%s: does not describe a tokenizer of this version", path);
    if (!status)
        status = load_kind(tokenizer, folder, kind, fingerprint, error);
    if (status == MN_ERROR_OPTION)
        status = mn__fail(error, MN_ERROR_FORMAT, "copy the folder again: a file of it was changed",
                          "%s: no kind of tokenizer is named \"%s\"", path, kind);
    json_decref(json);
    return status;
}

/* ---- Files of others ------------------------------------------------------------ */

static bool ends(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* A file of the folder; *text is NULL where there is none. */
static mn_status read_beside(const char *folder, const char *name, char **text, int64_t *bytes,
                             mn_error *error)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    *text = NULL;
    *bytes = 0;
    mn_status status = MN_OK;
    if (path.failed)
        status = fail_memory(folder, error);
    else if (mn__file_exists(path.text))
        status = mn__file_read(path.text, FILE_LIMIT, text, bytes, error);
    mn__string_free(&path);
    return status;
}

static mn_status read_tiktoken(const char *folder, const char *text, int64_t bytes,
                               mn__string *json, mn_error *error)
{
    char *config;
    int64_t config_bytes;
    mn_status status = read_beside(folder, "tokenizer_config.json", &config, &config_bytes, error);
    if (!status)
        status = mn__import_tiktoken(text, bytes, NULL, config, config_bytes, json, error);
    mn__free(config);
    return status;
}

static mn_status read_pair(const char *folder, const char *merges_name, const char *text,
                           int64_t bytes, mn__string *json, mn_error *error)
{
    char *merges;
    int64_t merges_bytes;
    mn_status status = read_beside(folder, merges_name, &merges, &merges_bytes, error);
    if (!status && !merges)
        status = mn__fail(error, MN_ERROR_IO, NULL, "the merges, %s/%s, are missing", folder,
                          merges_name);
    if (!status)
        status = mn__import_gpt2(text, bytes, merges, merges_bytes, json, error);
    mn__free(merges);
    return status;
}

static mn_status load_gguf(mn__tokenizer **tokenizer, const char *path, mn_error *error)
{
    mn__gguf *file;
    mn__string json = {0};
    mn_status status = mn__gguf_open(&file, path, error);
    if (status)
        return status;
    status = mn__import_gguf(file, &json, error);
    mn__gguf_close(file);
    if (!status)
        status =
            mn__tokenizer_of_payload(tokenizer, "huggingface", json.text, json.bytes, NULL, error);
    if (status)
        mn__error_prefix(error, "%s", path);
    mn__string_free(&json);
    return status;
}

/* What the file's name and its beginning tell. */
static mn_status load_text(mn__tokenizer **tokenizer, const char *folder, const char *path,
                           const char *text, int64_t bytes, mn_error *error)
{
    mn__string json = {0};
    bool object = text[strspn(text, " \t\r\n")] == '{', imported = true;
    mn_status status = MN_OK;
    if (object && ends(path, "encoder.json"))
        status = read_pair(folder, "vocab.bpe", text, bytes, &json, error);
    else if (object && ends(path, "vocab.json"))
        status = read_pair(folder, "merges.txt", text, bytes, &json, error);
    else if (ends(path, ".bin"))
        status = mn__import_llama2c(text, bytes, &json, error);
    else if (mn__import_is_tiktoken(text, bytes))
        status = read_tiktoken(folder, text, bytes, &json, error);
    else
        imported = false;
    if (!status)
        status = mn__tokenizer_of_payload(
            tokenizer, object || imported ? "huggingface" : "sentencepiece",
            imported ? json.text : text, imported ? json.bytes : bytes, NULL, error);
    if (status)
        mn__error_prefix(error, "%s", path);
    mn__string_free(&json);
    return status;
}

static mn_status load_file(mn__tokenizer **tokenizer, const char *folder, const char *path,
                           mn_error *error)
{
    char *text = NULL;
    int64_t bytes;
    if (mn__gguf_is_model(path))
        return load_gguf(tokenizer, path, error);
    mn_status status = mn__file_read(path, FILE_LIMIT, &text, &bytes, error);
    if (!status)
        status = is_described(text, bytes)
                     ? load_described(tokenizer, folder, path, text, bytes, error)
                     : load_text(tokenizer, folder, path, text, bytes, error);
    mn__free(text);
    if (status == MN_ERROR_FORMAT)
        mn__error_hint(error, "it is damaged, or no tokenizer's: get or make it again");
    return status;
}

/* The file of a folder that holds its tokenizer: by its name, in this order, or a rank file. */
static mn_status find_in_folder(const char *folder, mn__string *path, mn_error *error)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "spiece.model",
                                        "encoder.json", "vocab.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        mn__string_clear(path);
        mn__string_printf(path, "%s/%s", folder, names[i]);
        if (path->failed)
            return fail_memory(folder, error);
        if (mn__file_exists(path->text))
            return MN_OK;
    }
    char **found;
    int64_t count, which = -1;
    mn_status status = mn__file_list(folder, &found, &count, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count && which < 0; i++)
        which = ends(found[i], ".tiktoken") ? i : -1;
    mn__string_clear(path);
    mn__string_printf(path, "%s/%s", folder, which < 0 ? "tokenizer.json" : found[which]);
    mn__free(found);
    return path->failed ? fail_memory(folder, error) : MN_OK;
}

static mn_status load_folder(mn__tokenizer **tokenizer, const char *folder, mn_error *error)
{
    mn__string path = {0};
    mn_status status = find_in_folder(folder, &path, error);
    if (!status)
        status = load_file(tokenizer, folder, path.text, error);
    mn__string_free(&path);
    return status;
}

/* The folder that a file lies in. */
static mn_status load_beside(mn__tokenizer **tokenizer, const char *path, mn_error *error)
{
    const char *slash = strrchr(path, '/');
    mn__string folder = {0};
    mn__string_add(&folder, slash ? path : ".", slash ? slash - path + 1 : 1);
    mn_status status =
        folder.failed ? fail_memory(path, error) : load_file(tokenizer, folder.text, path, error);
    mn__string_free(&folder);
    return status;
}

mn_status mn__tokenizer_load(mn__tokenizer **tokenizer, const char *path, mn_error *error)
{
    *tokenizer = NULL;
    if (strcmp(path, "bytes") == 0)
        return mn__tokenizer_bytes(tokenizer, error);
    return mn__file_is_folder(path) ? load_folder(tokenizer, path, error)
                                    : load_beside(tokenizer, path, error);
}
