/* The safetensors container: an 8-byte little-endian header length, a JSON
 * header {name: {dtype, shape, data_offsets}, "__metadata__": {...}}, the data.
 * Reading maps the file and checks every bound before any use: offsets cover
 * the data without holes or overlaps, sizes agree with shapes and dtypes, names
 * are unique, the header has at most 100 MB.
 *
 * A file written here carries in its metadata, as `check`, the XXH3 hash of all
 * its bytes, and is compared with it when it is opened. */
#ifndef MN__BASE_SAFETENSORS_H
#define MN__BASE_SAFETENSORS_H

#include "base/file.h"

typedef struct mn__safetensor {
    const char *name;
    const char *dtype; /* "F32", "BF16", "F16", "I64", "I32", "U8", ... */
    int rank;          /* at most 8; 0 for a scalar */
    int64_t size[8];
    const void *data; /* in the map, or a copy where the file does not align it */
    int64_t bytes;
} mn__safetensor;

typedef struct mn__safetensors mn__safetensors;
/* Tensors keep the header's order. MN_ERROR_FORMAT for a broken file,
 * MN_ERROR_UNSUPPORTED for an unknown dtype or a rank above 8. */
mn_status mn__safetensors_open(mn__safetensors **file, const char *path, mn_error *error);
void mn__safetensors_close(mn__safetensors *file); /* NULL is fine */
int64_t mn__safetensors_count(const mn__safetensors *file);
const mn__safetensor *mn__safetensors_at(const mn__safetensors *file, int64_t index);
const mn__safetensor *mn__safetensors_find(const mn__safetensors *file, const char *name);
/* A value of __metadata__, or NULL. */
const char *mn__safetensors_metadata(const mn__safetensors *file, const char *key);

/* Bits of one element of a dtype, 0 for an unknown one. */
int mn__safetensors_bits(const char *dtype);

/* Writes `count` tensors atomically. The header keeps the order given. The data
 * start at a multiple of 64 bytes; as the format allows no holes, they lie
 * there by falling element size, which aligns each to its own element.
 * metadata: key, value, key, value, ..., NULL (or NULL). */
mn_status mn__safetensors_write(const char *path, const mn__safetensor *tensors, int64_t count,
                                const char *const *metadata, mn_error *error);

#endif
