/* The safetensors container: an 8-byte little-endian header length, a JSON
 * header {name: {dtype, shape, data_offsets}, "__metadata__": {...}}, the data.
 * Reading maps the file and checks every bound before any use. */
#ifndef MN__BASE_SAFETENSORS_H
#define MN__BASE_SAFETENSORS_H

#include "base/file.h"

typedef struct mn__safetensor {
    const char *name;
    const char *dtype; /* "F32", "BF16", "F16", "I64", "I32", "U8", ... */
    int rank;
    int64_t size[8];
    const void *data; /* in the map */
    int64_t bytes;
} mn__safetensor;

typedef struct mn__safetensors mn__safetensors;
mn_status mn__safetensors_open(mn__safetensors **file, const char *path, mn_error *error);
void mn__safetensors_close(mn__safetensors *file); /* NULL is fine */
int64_t mn__safetensors_count(const mn__safetensors *file);
const mn__safetensor *mn__safetensors_at(const mn__safetensors *file, int64_t index);
const mn__safetensor *mn__safetensors_find(const mn__safetensors *file, const char *name);
/* A value of __metadata__, or NULL. */
const char *mn__safetensors_metadata(const mn__safetensors *file, const char *key);

/* Writes `count` tensors in the order given, aligned to 64 bytes, atomically.
 * metadata: key, value, key, value, ..., NULL (or NULL). */
mn_status mn__safetensors_write(const char *path, const mn__safetensor *tensors, int64_t count,
                                const char *const *metadata, mn_error *error);

#endif
