/* Readings in files: a session's (session_file.h), and
 *
 *   ids   I32 [tokens]    what was read
 *   ends  I64 [segments]  where its segments ended */
#include <string.h>

#include "reader/reading.h"
#include "reader/session_file.h"

mn_status mn__reading_save(const mn__reading *reading, const char *path, const char *fingerprint,
                           const char *const *metadata, mn_error *error)
{
    static const int64_t nothing;
    const mn__safetensor tensors[] = {
        {.name = "ids",
         .dtype = "I32",
         .rank = 1,
         .size = {reading->ids.count},
         .data = reading->ids.count ? (const void *)reading->ids.id : &nothing,
         .bytes = reading->ids.count * (int64_t)sizeof(int32_t)},
        {.name = "ends",
         .dtype = "I64",
         .rank = 1,
         .size = {reading->end_count},
         .data = reading->end_count ? reading->ends : &nothing,
         .bytes = reading->end_count * (int64_t)sizeof(int64_t)}};
    const mn__session_extra extra = {.tensors = tensors, .count = 2, .metadata = metadata};
    return mn__session_write(&reading->session, path, fingerprint, &extra, error);
}

static const mn__safetensor *find(const mn__safetensors *file, const char *name, const char *dtype)
{
    const mn__safetensor *tensor = mn__safetensors_find(file, name);
    return tensor && tensor->rank == 1 && !strcmp(tensor->dtype, dtype) ? tensor : NULL;
}

int64_t mn__reading_file_tokens(const mn__safetensors *file)
{
    const mn__safetensor *ids = find(file, "ids", "I32");
    return ids && find(file, "ends", "I64") ? ids->size[0] : -1;
}

static mn_status damaged(const char *path, const char *what, mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT, "read the text again", "%s: %s", path, what);
}

static mn_status check_ids(const mn__reading *reading, const int32_t *ids, int64_t count,
                           const char *path, mn_error *error)
{
    int64_t V = mn__decoder_vocabulary(reading->session.decoder);
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= V)
            return damaged(path, "its tokens are none of the model's", error);
    return MN_OK;
}

/* Ends rise to the number of tokens. */
static mn_status take_ends(mn__reading *reading, const mn__safetensor *ends, int64_t tokens,
                           const char *path, mn_error *error)
{
    const int64_t *end = ends->data;
    int64_t before = 0;
    mn_status status = MN_OK;
    for (int64_t i = 0; i < ends->size[0] && status == MN_OK; i++) {
        if (end[i] <= before || end[i] > tokens)
            return damaged(path, "its segments are none that reading leads to", error);
        before = end[i];
        status = mn__reading_ended(reading, before, error);
    }
    return status == MN_OK && before != tokens
               ? damaged(path, "its segments are not as long as its text", error)
               : status;
}

static mn_status take(mn__reading *reading, const mn__safetensors *file, const char *path,
                      const char *fingerprint, mn_error *error)
{
    int64_t tokens = mn__reading_file_tokens(file);
    if (tokens < 0)
        return damaged(path, "it holds a session without its text", error);
    if (tokens > reading->options.capacity)
        return mn__fail(error, MN_ERROR_MISMATCH, "plan for more tokens",
                        "%s holds %lld tokens, and %lld are planned for", path, (long long)tokens,
                        (long long)reading->options.capacity);
    mn_status status = mn__session_take(&reading->session, file, path, fingerprint, error);
    if (status != MN_OK)
        return status;
    const mn__safetensor *ids = find(file, "ids", "I32");
    status = check_ids(reading, ids->data, tokens, path, error);
    if (status == MN_OK && reading->session.states.position[0] != tokens)
        status = damaged(path, "its state is not of its text", error);
    int32_t *own = status == MN_OK && tokens ? mn__ids_extend(&reading->ids, tokens) : NULL;
    if (status == MN_OK && tokens && !own)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the tokens of %s", path);
    if (own)
        memcpy(own, ids->data, (size_t)ids->bytes);
    if (status == MN_OK)
        status = take_ends(reading, find(file, "ends", "I64"), tokens, path, error);
    return status;
}

mn_status mn__reading_take(mn__reading *reading, const mn__safetensors *file, const char *path,
                           const char *fingerprint, mn_error *error)
{
    mn__reading_clear(reading);
    mn_status status = take(reading, file, path, fingerprint, error);
    if (status == MN_OK)
        mn__reading_mark(reading);
    else
        mn__reading_clear(reading);
    return status;
}

mn_status mn__reading_load(mn__reading *reading, const char *path, const char *fingerprint,
                           mn_error *error)
{
    mn__safetensors *file;
    mn_status status = mn__session_file_open(&file, path, error);
    if (status != MN_OK) {
        mn__reading_clear(reading);
        return status;
    }
    status = mn__reading_take(reading, file, path, fingerprint, error);
    mn__safetensors_close(file);
    return status;
}
