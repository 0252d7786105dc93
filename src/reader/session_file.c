/* Sessions in files. */
#include "reader/session_file.h"

#include <stdio.h>
#include <string.h>

#include "base/hash.h"

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a session's file");
}

/* Of all that makes a state mean what it means, but the weights and the precision. */
static mn_status hash_options(const mn__session *session, mn__hash_text *hash, mn_error *error)
{
    mn__string text = {0};
    if (session->params->weights != MN__WEIGHTS_MASTERS)
        mn__string_printf(&text, "weights: %s%s\n", mn__weights_name(session->params->weights),
                          session->params->as_filed ? ", or as filed" : "");
    mn__decoder_write_model(session->decoder, &text);
    mn__decoder_write_attention(session->decoder, &text);
    mn_status status = text.failed ? no_memory(error) : MN_OK;
    if (status == MN_OK)
        *hash = mn__hash_of(text.text, text.bytes);
    mn__string_free(&text);
    return status;
}

/* What keys and values are kept in. */
static const char *cache_of(const mn__session *session)
{
    static const char *const names[] = {
        [MN__KEPT_F32] = "F32", [MN__KEPT_BF16] = "BF16", [MN__KEPT_INT8] = "INT8"};
    mn__kept kept = session->states.kept;
    return kept == MN__KEPT_AS_COMPUTED ? mn__dtype_name(session->options.compute) : names[kept];
}

static mn__safetensor describe_hidden(const mn__session *session)
{
    int64_t C = mn__decoder_options_of(session->decoder)->width;
    return (mn__safetensor){.name = "hidden",
                            .dtype = "F32",
                            .rank = 2,
                            .size = {session->options.rows, C},
                            .data = session->hidden,
                            .bytes = session->options.rows * C * (int64_t)sizeof(float)};
}

/* ---- Writing -------------------------------------------------------------------------- */

static int64_t count_metadata(const char *const *metadata)
{
    int64_t count = 0;
    while (metadata && metadata[count])
        count++;
    return count;
}

/* How the model's weights are kept, which says how their products are computed. */
typedef struct kept_text {
    char text[32];
} kept_text;
static kept_text weights_of(const mn__session *session)
{
    const mn__params *params = session->params;
    kept_text out;
    snprintf(out.text, sizeof out.text, "%s%s", mn__weights_name(params->weights),
             params->weights != MN__WEIGHTS_MASTERS && params->as_filed ? ", or as filed" : "");
    return out;
}

static mn_status write_all(const mn__session *session, const char *path, const char *fingerprint,
                           const mn__session_extra *extra, mn__arena *arena, mn_error *error)
{
    mn__safetensor *state, *all;
    const char **metadata;
    char version[16];
    const kept_text weights = weights_of(session);
    mn__hash_text options;
    int64_t count, more = count_metadata(extra->metadata);
    mn_status status = hash_options(session, &options, error);
    if (status == MN_OK)
        status = mn__states_list(&session->states, arena, &state, &count, error);
    if (status != MN_OK)
        return status;
    all = mn__arena_calloc(arena, count + 1 + extra->count, sizeof *all);
    snprintf(version, sizeof version, "%d", MN__SESSION_VERSION);
    const char *const own[] = {
        "format",  "mneme session", "version",   version,
        "weights", fingerprint,     "precision", mn__dtype_name(session->options.compute),
        "kept",    weights.text,    "cache",     cache_of(session),
        "options", options.hex};
    int64_t own_count = sizeof own / sizeof *own;
    metadata = mn__arena_calloc(arena, own_count + more + 1, sizeof *metadata);
    if (!all || !metadata)
        return no_memory(error);
    memcpy(all, state, (size_t)count * sizeof *all);
    all[count++] = describe_hidden(session);
    if (extra->count)
        memcpy(all + count, extra->tensors, (size_t)extra->count * sizeof *all);
    memcpy(metadata, own, sizeof own);
    if (more)
        memcpy(metadata + own_count, extra->metadata, (size_t)more * sizeof *metadata);
    return mn__safetensors_write(path, all, count + extra->count, metadata, error);
}

mn_status mn__session_write(const mn__session *session, const char *path, const char *fingerprint,
                            const mn__session_extra *extra, mn_error *error)
{
    static const mn__session_extra nothing;
    mn__arena arena;
    mn_status status = mn__session_check(session, error);
    if (status != MN_OK)
        return status;
    mn__arena_init(&arena, 1 << 12);
    status = write_all(session, path, fingerprint, extra ? extra : &nothing, &arena, error);
    mn__arena_free(&arena);
    return status;
}

mn_status mn__session_save(const mn__session *session, const char *path, const char *fingerprint,
                           mn_error *error)
{
    return mn__session_write(session, path, fingerprint, NULL, error);
}

/* ---- Reading -------------------------------------------------------------------------- */

static mn_status check_format(const mn__safetensors *file, const char *path, mn_error *error)
{
    const char *format = mn__safetensors_metadata(file, "format");
    const char *version = mn__safetensors_metadata(file, "version");
    if (!format || strcmp(format, "mneme session") || !version)
        return mn__fail(error, MN_ERROR_FORMAT, "give a file that a session was saved to",
                        "%s is no session", path);
    char own[16];
    snprintf(own, sizeof own, "%d", MN__SESSION_VERSION);
    if (strcmp(version, own))
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "read the text again, or use that version",
                        "%s is a session of version %s, and this program knows version %s", path,
                        version, own);
    if (!mn__safetensors_metadata(file, "check"))
        return mn__fail(error, MN_ERROR_FORMAT, "read the text again",
                        "%s has lost its checksum: something else has written it", path);
    return MN_OK;
}

mn_status mn__session_file_open(mn__safetensors **file, const char *path, mn_error *error)
{
    mn_status status = mn__safetensors_open(file, path, error);
    if (status == MN_OK && (status = check_format(*file, path, error)) != MN_OK)
        mn__safetensors_close(*file);
    return status;
}

/* NULL is no value of any of ours. */
static bool is_other(const mn__safetensors *file, const char *key, const char *own,
                     const char **value)
{
    *value = mn__safetensors_metadata(file, key);
    if (!*value)
        *value = "none";
    return strcmp(*value, own) != 0;
}

static mn_status check_file(const mn__session *session, const mn__safetensors *file,
                            const char *path, const char *fingerprint, mn_error *error)
{
    const char *value, *precision = mn__dtype_name(session->options.compute);
    const mn__safetensor *hidden = mn__safetensors_find(file, "hidden");
    const mn__safetensor wanted = describe_hidden(session);
    const kept_text weights = weights_of(session);
    mn__hash_text options;
    if (is_other(file, "weights", fingerprint, &value))
        return mn__fail(error, MN_ERROR_MISMATCH, "open the model that read it, or read again",
                        "%s was read by a model of other weights (%s, not %s)", path, value,
                        fingerprint);
    if (is_other(file, "precision", precision, &value))
        return mn__fail(error, MN_ERROR_MISMATCH, "open it with that precision, or read again",
                        "%s was read in precision %s, not %s", path, value, precision);
    if (is_other(file, "kept", weights.text, &value))
        return mn__fail(error, MN_ERROR_MISMATCH, "open it with those --weights, or read again",
                        "%s was read with weights kept as %s, not as %s", path, value,
                        weights.text);
    if (is_other(file, "cache", cache_of(session), &value))
        return mn__fail(error, MN_ERROR_MISMATCH, "open it with that cache, or read again",
                        "%s keeps keys and values in %s, not %s", path, value, cache_of(session));
    mn_status status = hash_options(session, &options, error);
    if (status != MN_OK)
        return status;
    if (is_other(file, "options", options.hex, &value))
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "open the model with the options that read it, or read again",
                        "%s was read by the same weights with other options", path);
    if (!hidden || strcmp(hidden->dtype, "F32") || hidden->bytes != wanted.bytes)
        return mn__fail(error, MN_ERROR_MISMATCH, "open it with as many rows",
                        "%s holds another number of rows", path);
    return MN_OK;
}

mn_status mn__session_file_check_tokenizer(const mn__safetensors *file, const char *path,
                                           const char *fingerprint, mn_error *error)
{
    const char *theirs = mn__safetensors_metadata(file, "tokenizer");
    if (theirs && !strcmp(theirs, fingerprint))
        return MN_OK;
    return mn__fail(error, MN_ERROR_MISMATCH, "open the model with that tokenizer, or read again",
                    "%s was read with another tokenizer (%s, not %s)", path,
                    theirs ? theirs : "none", fingerprint);
}

mn_status mn__session_take(mn__session *session, const mn__safetensors *file, const char *path,
                           const char *fingerprint, mn_error *error)
{
    mn_status status = check_file(session, file, path, fingerprint, error);
    if (status == MN_OK && (status = mn__states_load(&session->states, file, error)) != MN_OK)
        mn__error_prefix(error, "%s", path);
    if (status != MN_OK) {
        mn__session_reset(session);
        return status;
    }
    const mn__safetensor *hidden = mn__safetensors_find(file, "hidden");
    memcpy(session->hidden, hidden->data, (size_t)hidden->bytes);
    session->torn = false;
    return MN_OK;
}

mn_status mn__session_load(mn__session *session, const char *path, const char *fingerprint,
                           mn_error *error)
{
    mn__safetensors *file;
    mn_status status = mn__session_file_open(&file, path, error);
    if (status != MN_OK) {
        mn__session_reset(session);
        return status;
    }
    status = mn__session_take(session, file, path, fingerprint, error);
    mn__safetensors_close(file);
    return status;
}
