/* Tokenizers on disk: our tokenizer.json names the kind and the fingerprint of the
 * payload, a file of its own beside it. One of Hugging Face is a payload itself;
 * a .model file alone is SentencePiece's. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
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

/* A file of any kind; its beginning tells which. */
static mn_status load_file(mn__tokenizer **tokenizer, const char *folder, const char *path,
                           mn_error *error)
{
    char *text = NULL;
    int64_t bytes;
    mn_status status = mn__file_read(path, FILE_LIMIT, &text, &bytes, error);
    if (status)
        return status;
    int64_t first = (int64_t)strspn(text, " \t\r\n");
    const char *kind = first < bytes && text[first] == '{' ? "huggingface" : "sentencepiece";
    if (is_described(text, bytes)) {
        status = load_described(tokenizer, folder, path, text, bytes, error);
    } else {
        status = mn__tokenizer_of_payload(tokenizer, kind, text, bytes, NULL, error);
        if (status)
            mn__error_prefix(error, "%s", path);
    }
    mn__free(text);
    return status;
}

static mn_status load_folder(mn__tokenizer **tokenizer, const char *folder, mn_error *error)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/tokenizer.json", folder);
    mn_status status =
        path.failed ? fail_memory(folder, error) : load_file(tokenizer, folder, path.text, error);
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
