/* GGUF, the container of ggml's models, versions 2 and 3, read only: metadata
 * and the directory of tensors (docs/gguf.md of ggml). The file is mapped and
 * every length is checked against its size before any use. What this is not: a
 * reader of the quantised blocks themselves. */
#ifndef MN__BASE_GGUF_H
#define MN__BASE_GGUF_H

#include <stdbool.h>

#include "base/error.h"

/* The file's own numbers. */
typedef enum mn__gguf_type {
    MN__GGUF_U8,
    MN__GGUF_I8,
    MN__GGUF_U16,
    MN__GGUF_I16,
    MN__GGUF_U32,
    MN__GGUF_I32,
    MN__GGUF_F32,
    MN__GGUF_BOOL,
    MN__GGUF_STRING,
    MN__GGUF_ARRAY,
    MN__GGUF_U64,
    MN__GGUF_I64,
    MN__GGUF_F64,
} mn__gguf_type;

/* Bytes in the map, without a NUL after them. */
typedef struct mn__gguf_text {
    const char *text;
    int64_t bytes;
} mn__gguf_text;

typedef struct mn__gguf_value mn__gguf_value;
struct mn__gguf_value {
    const char *key; /* NULL for an array's items */
    mn__gguf_type type;
    union {
        uint64_t u; /* U8, U16, U32, U64 */
        int64_t i;  /* I8, I16, I32, I64 */
        double f;   /* F32, F64 */
        bool b;
        mn__gguf_text text;
        struct {
            mn__gguf_type type; /* of the items */
            int64_t count;
            const unsigned char *raw;    /* numbers as the file has them, not aligned */
            const mn__gguf_text *texts;  /* [count], of strings */
            const mn__gguf_value *items; /* [count], of arrays */
        } array;
    } as;
};

typedef struct mn__gguf_tensor {
    const char *name;
    int type;              /* ggml's number */
    const char *type_name; /* "F32", "Q4_K", ... */
    int rank;              /* at most 4 */
    int64_t size[4];       /* outermost first: the reverse of the file's order */
    int64_t offset;        /* from the start of the data */
    const void *data;      /* in the map */
    int64_t bytes;
} mn__gguf_tensor;

/* Whether a path names one, by its end. */
bool mn__gguf_is_model(const char *path);

typedef struct mn__gguf mn__gguf;
/* MN_ERROR_FORMAT for a broken file, MN_ERROR_UNSUPPORTED for another version
 * or an unknown tensor type. */
mn_status mn__gguf_open(mn__gguf **file, const char *path, mn_error *error);
void mn__gguf_close(mn__gguf *file); /* NULL is fine */
int mn__gguf_version(const mn__gguf *file);

/* In the file's order; NULL where there is no such name. */
int64_t mn__gguf_value_count(const mn__gguf *file);
const mn__gguf_value *mn__gguf_value_at(const mn__gguf *file, int64_t index);
const mn__gguf_value *mn__gguf_find_value(const mn__gguf *file, const char *key);
int64_t mn__gguf_tensor_count(const mn__gguf *file);
const mn__gguf_tensor *mn__gguf_tensor_at(const mn__gguf *file, int64_t index);
const mn__gguf_tensor *mn__gguf_find_tensor(const mn__gguf *file, const char *name);

/* A required value as a type: any whole number that fits; any number; a bool;
 * a string (ended by NUL, owned by the file); an array of this item type.
 * MN_ERROR_FORMAT, naming file and key, where it is missing or otherwise. */
mn_status mn__gguf_int(const mn__gguf *file, const char *key, int64_t *value, mn_error *error);
mn_status mn__gguf_float(const mn__gguf *file, const char *key, double *value, mn_error *error);
mn_status mn__gguf_bool(const mn__gguf *file, const char *key, bool *value, mn_error *error);
mn_status mn__gguf_string(mn__gguf *file, const char *key, const char **value, mn_error *error);
mn_status mn__gguf_array(const mn__gguf *file, const char *key, mn__gguf_type type,
                         const mn__gguf_value **value, mn_error *error);
/* Item `index` of an array of numbers or bools (0 and 1); false where it is no
 * whole number that fits, or no number. */
bool mn__gguf_item_int(const mn__gguf_value *array, int64_t index, int64_t *value);
bool mn__gguf_item_float(const mn__gguf_value *array, int64_t index, double *value);

#endif
