/* GGUF: "GGUF", u32 version, u64 tensors, u64 values; each value a string key, a
 * u32 type and the value; each tensor a string name, u32 rank, u64 sizes, u32
 * type, u64 offset; then the data at a multiple of general.alignment. All
 * numbers are little-endian. */
#include "base/gguf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/memory.h"

enum {
    RANK_LIMIT = 4,
    DEPTH_LIMIT = 8, /* of arrays in arrays */
    DEFAULT_ALIGNMENT = 32,
    LEAST_VALUE_BYTES = 8 + 4 + 1,
    LEAST_TENSOR_BYTES = 8 + 4 + 4 + 8,
};

struct mn__gguf {
    mn__map map;
    mn__arena arena; /* all that follows */
    const char *path;
    int version;
    mn__gguf_value *values;
    mn__gguf_tensor *tensors;
    int64_t value_count, tensor_count;
    const mn__gguf_value **values_by_key;
    const mn__gguf_tensor **tensors_by_name;
};

/* ---- Types ---------------------------------------------------------------- */

/* Bytes of a value of fixed size, else 0. */
static int64_t value_bytes(mn__gguf_type type)
{
    switch (type) {
    case MN__GGUF_U8:
    case MN__GGUF_I8:
    case MN__GGUF_BOOL:
        return 1;
    case MN__GGUF_U16:
    case MN__GGUF_I16:
        return 2;
    case MN__GGUF_U32:
    case MN__GGUF_I32:
    case MN__GGUF_F32:
        return 4;
    case MN__GGUF_U64:
    case MN__GGUF_I64:
    case MN__GGUF_F64:
        return 8;
    case MN__GGUF_STRING:
    case MN__GGUF_ARRAY:
        break;
    }
    return 0;
}

/* ggml's tensor types: elements and bytes of a block. */
typedef struct tensor_type {
    const char *name;
    int elements, bytes;
} tensor_type;

static const tensor_type tensor_types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},
};

static const tensor_type *find_tensor_type(uint32_t number)
{
    const size_t count = sizeof tensor_types / sizeof *tensor_types;
    return number < count && tensor_types[number].name ? &tensor_types[number] : NULL;
}

/* ---- Reading -------------------------------------------------------------- */

/* The place in the map. A failed read remembers the status; later ones return
 * nothing, so that a caller may check once after several. */
typedef struct cursor {
    mn__gguf *file;
    int64_t at;
    mn_status status;
    mn_error *error;
} cursor;

static bool broken(cursor *c, const char *what, const char *name)
{
    if (!c->status)
        c->status = mn__fail(c->error, MN_ERROR_FORMAT, "the file is damaged; fetch it again",
                             "%s: byte %lld: %s%s%s%s", c->file->path, (long long)c->at, what,
                             name ? " '" : "", name ? name : "", name ? "'" : "");
    return false;
}

static bool no_memory(cursor *c)
{
    if (!c->status)
        c->status = mn__fail(c->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", c->file->path);
    return false;
}

static int64_t bytes_left(const cursor *c)
{
    return c->file->map.bytes - c->at;
}

static const unsigned char *take(cursor *c, int64_t bytes)
{
    if (c->status)
        return NULL;
    if (bytes < 0 || bytes > bytes_left(c)) {
        broken(c, "the file ends inside an entry", NULL);
        return NULL;
    }
    const unsigned char *data = c->file->map.data + c->at;
    c->at += bytes;
    return data;
}

static uint64_t little_endian(const unsigned char *data, int64_t bytes)
{
    uint64_t value = 0;
    for (int64_t i = 0; i < bytes; i++)
        value |= (uint64_t)data[i] << 8 * i;
    return value;
}

static uint64_t take_number(cursor *c, int64_t bytes)
{
    const unsigned char *data = take(c, bytes);
    return data ? little_endian(data, bytes) : 0;
}

/* A count of things of at least `each` bytes, so that it cannot ask for more
 * memory than the file could fill. */
static int64_t take_count(cursor *c, int64_t each)
{
    uint64_t count = take_number(c, 8);
    if (count > (uint64_t)(bytes_left(c) / each)) {
        broken(c, "a count exceeds the file", NULL);
        return 0;
    }
    return (int64_t)count;
}

static mn__gguf_text take_text(cursor *c)
{
    int64_t bytes = take_count(c, 1);
    return (mn__gguf_text){.text = (const char *)take(c, bytes), .bytes = c->status ? 0 : bytes};
}

/* A text with a NUL after it. */
static const char *end_text(cursor *c, mn__gguf_text text)
{
    if (c->status || (text.bytes > 0 && memchr(text.text, '\0', (size_t)text.bytes))) {
        broken(c, "a name with a NUL inside", NULL);
        return NULL;
    }
    char *copy = mn__arena_alloc(&c->file->arena, text.bytes + 1);
    if (!copy) {
        no_memory(c);
        return NULL;
    }
    if (text.bytes > 0)
        memcpy(copy, text.text, (size_t)text.bytes);
    copy[text.bytes] = '\0';
    return copy;
}

static mn__gguf_type take_type(cursor *c)
{
    uint64_t type = take_number(c, 4);
    if (type > MN__GGUF_F64)
        broken(c, "an unknown type of value", NULL);
    return c->status ? MN__GGUF_U8 : (mn__gguf_type)type;
}

static bool decode_number(const unsigned char *data, mn__gguf_value *value)
{
    int64_t bytes = value_bytes(value->type);
    uint64_t bits = little_endian(data, bytes);
    int shift = (int)(64 - 8 * bytes);
    float single;
    uint32_t half = (uint32_t)bits;
    switch (value->type) {
    case MN__GGUF_I8:
    case MN__GGUF_I16:
    case MN__GGUF_I32:
    case MN__GGUF_I64:
        value->as.i = (int64_t)(bits << shift) >> shift; /* extends the sign */
        return true;
    case MN__GGUF_F32:
        memcpy(&single, &half, sizeof single);
        value->as.f = single;
        return true;
    case MN__GGUF_F64:
        memcpy(&value->as.f, &bits, sizeof value->as.f);
        return true;
    case MN__GGUF_BOOL:
        value->as.b = bits == 1;
        return bits <= 1;
    default:
        value->as.u = bits;
        return true;
    }
}

static bool read_value(cursor *c, mn__gguf_value *value, int depth);

static bool read_texts(cursor *c, mn__gguf_value *value, int64_t count)
{
    mn__gguf_text *texts = mn__arena_calloc(&c->file->arena, count, sizeof *texts);
    if (!texts)
        return no_memory(c);
    for (int64_t i = 0; i < count && !c->status; i++)
        texts[i] = take_text(c);
    value->as.array.texts = texts;
    return !c->status;
}

static bool read_arrays(cursor *c, mn__gguf_value *value, int64_t count, int depth)
{
    mn__gguf_value *items = mn__arena_calloc(&c->file->arena, count, sizeof *items);
    if (!items)
        return no_memory(c);
    for (int64_t i = 0; i < count; i++) {
        items[i].type = MN__GGUF_ARRAY;
        if (!read_value(c, &items[i], depth))
            return false;
    }
    value->as.array.items = items;
    return true;
}

static bool read_array(cursor *c, mn__gguf_value *value, int depth)
{
    mn__gguf_type type = take_type(c);
    int64_t each = value_bytes(type);
    int64_t least = type == MN__GGUF_STRING ? 8 : type == MN__GGUF_ARRAY ? 12 : each;
    int64_t count = take_count(c, least);
    if (c->status)
        return false;
    value->as.array.type = type;
    value->as.array.count = count;
    if (type == MN__GGUF_STRING)
        return read_texts(c, value, count);
    if (type == MN__GGUF_ARRAY && depth >= DEPTH_LIMIT)
        return broken(c, "arrays nested too deep", NULL);
    if (type == MN__GGUF_ARRAY)
        return read_arrays(c, value, count, depth + 1);
    value->as.array.raw = take(c, count * each);
    for (int64_t i = 0; type == MN__GGUF_BOOL && i < count; i++)
        if (value->as.array.raw[i] > 1)
            return broken(c, "a bool that is neither 0 nor 1", NULL);
    return true;
}

static bool read_value(cursor *c, mn__gguf_value *value, int depth)
{
    if (value->type == MN__GGUF_ARRAY)
        return read_array(c, value, depth);
    if (value->type == MN__GGUF_STRING) {
        value->as.text = take_text(c);
        return !c->status;
    }
    const unsigned char *data = take(c, value_bytes(value->type));
    return data &&
           (decode_number(data, value) || broken(c, "a bool that is neither 0 nor 1", value->key));
}

static bool read_values(cursor *c)
{
    mn__gguf *file = c->file;
    file->values = mn__arena_calloc(&file->arena, file->value_count, sizeof *file->values);
    if (!file->values)
        return no_memory(c);
    for (int64_t i = 0; i < file->value_count; i++) {
        mn__gguf_value *value = &file->values[i];
        value->key = end_text(c, take_text(c));
        value->type = take_type(c);
        if (c->status || !read_value(c, value, 0))
            return false;
    }
    return true;
}

/* The sizes of a tensor, from the file's innermost first, and its bytes. */
static bool read_sizes(cursor *c, mn__gguf_tensor *tensor, const unsigned char *sizes,
                       const tensor_type *type)
{
    int64_t elements = 1;
    for (int i = 0; i < tensor->rank; i++) {
        uint64_t size = little_endian(sizes + 8 * i, 8);
        if (size > INT64_MAX)
            return broken(c, "an impossible size of tensor", tensor->name);
        tensor->size[tensor->rank - 1 - i] = (int64_t)size;
        elements = mn__size_product(elements, (int64_t)size);
    }
    int64_t row = tensor->rank > 0 ? tensor->size[tensor->rank - 1] : 1;
    if (elements < 0 || row % type->elements != 0)
        return broken(c, "an impossible size of tensor", tensor->name);
    tensor->bytes = mn__size_product(elements / type->elements, type->bytes);
    return tensor->bytes >= 0 || broken(c, "an impossible size of tensor", tensor->name);
}

static bool read_tensor(cursor *c, mn__gguf_tensor *tensor)
{
    tensor->name = end_text(c, take_text(c));
    uint64_t rank = take_number(c, 4);
    if (rank > RANK_LIMIT)
        return broken(c, "too many dimensions for tensor", tensor->name);
    tensor->rank = (int)rank;
    const unsigned char *sizes = take(c, 8 * tensor->rank);
    uint32_t number = (uint32_t)take_number(c, 4);
    uint64_t offset = take_number(c, 8);
    if (c->status)
        return false;
    const tensor_type *type = find_tensor_type(number);
    if (!type) {
        c->status = mn__fail(c->error, MN_ERROR_UNSUPPORTED, NULL,
                             "%s: tensor '%s' has the unknown type %u", c->file->path, tensor->name,
                             number);
        return false;
    }
    if (offset > INT64_MAX)
        return broken(c, "an impossible offset of tensor", tensor->name);
    tensor->type = (int)number;
    tensor->type_name = type->name;
    tensor->offset = (int64_t)offset;
    return read_sizes(c, tensor, sizes, type);
}

static bool read_tensors(cursor *c)
{
    mn__gguf *file = c->file;
    file->tensors = mn__arena_calloc(&file->arena, file->tensor_count, sizeof *file->tensors);
    if (!file->tensors)
        return no_memory(c);
    for (int64_t i = 0; i < file->tensor_count; i++)
        if (!read_tensor(c, &file->tensors[i]))
            return false;
    return true;
}

/* ---- Checking ------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(const mn__gguf_value *const *)a)->key,
                  (*(const mn__gguf_value *const *)b)->key);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const mn__gguf_tensor *const *)a)->name,
                  (*(const mn__gguf_tensor *const *)b)->name);
}

static int compare_offsets(const void *a, const void *b)
{
    const mn__gguf_tensor *x = *(const mn__gguf_tensor *const *)a;
    const mn__gguf_tensor *y = *(const mn__gguf_tensor *const *)b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static bool index_values(cursor *c)
{
    mn__gguf *file = c->file;
    int64_t count = file->value_count;
    const mn__gguf_value **sorted = mn__arena_calloc(&file->arena, count, sizeof *sorted);
    if (!sorted)
        return no_memory(c);
    for (int64_t i = 0; i < count; i++)
        sorted[i] = &file->values[i];
    qsort(sorted, (size_t)count, sizeof *sorted, compare_keys);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            return broken(c, "the same key twice:", sorted[i]->key);
    file->values_by_key = sorted;
    return true;
}

static bool check_places(cursor *c, const mn__gguf_tensor **sorted, int64_t alignment)
{
    int64_t end = 0;
    qsort(sorted, (size_t)c->file->tensor_count, sizeof *sorted, compare_offsets);
    for (int64_t i = 0; i < c->file->tensor_count; i++) {
        const mn__gguf_tensor *tensor = sorted[i];
        if (tensor->offset % alignment != 0)
            return broken(c, "a misaligned tensor", tensor->name);
        if (tensor->offset < end)
            return broken(c, "a tensor that overlaps another:", tensor->name);
        if (tensor->offset > bytes_left(c) || tensor->bytes > bytes_left(c) - tensor->offset)
            return broken(c, "a tensor that the file is too short for:", tensor->name);
        end = tensor->offset + tensor->bytes;
    }
    return true;
}

static bool index_tensors(cursor *c, int64_t alignment)
{
    mn__gguf *file = c->file;
    int64_t count = file->tensor_count;
    const mn__gguf_tensor **sorted = mn__arena_calloc(&file->arena, count, sizeof *sorted);
    if (!sorted)
        return no_memory(c);
    for (int64_t i = 0; i < count; i++) {
        sorted[i] = &file->tensors[i];
    }
    if (!check_places(c, sorted, alignment))
        return false;
    for (int64_t i = 0; i < count; i++)
        file->tensors[i].data = file->map.data + c->at + file->tensors[i].offset;
    qsort(sorted, (size_t)count, sizeof *sorted, compare_names);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return broken(c, "the same name twice:", sorted[i]->name);
    file->tensors_by_name = sorted;
    return true;
}

/* Moves to the data; a file without tensors may end before. */
static bool skip_to_data(cursor *c, int64_t *alignment)
{
    *alignment = DEFAULT_ALIGNMENT;
    if (mn__gguf_find_value(c->file, "general.alignment")) {
        c->status = mn__gguf_int(c->file, "general.alignment", alignment, c->error);
        if (c->status)
            return false;
    }
    if (*alignment < 8 || *alignment > 1 << 20 || (*alignment & (*alignment - 1)) != 0)
        return broken(c, "general.alignment is no power of two from 8 on", NULL);
    int64_t padding = (*alignment - c->at % *alignment) % *alignment;
    return c->file->tensor_count == 0 || take(c, padding);
}

static bool read_header(cursor *c)
{
    const unsigned char *magic = take(c, 4);
    if (!magic || memcmp(magic, "GGUF", 4) != 0) {
        c->status = mn__fail(c->error, MN_ERROR_FORMAT, NULL, "%s: not a GGUF file", c->file->path);
        return false;
    }
    uint64_t version = take_number(c, 4);
    if (!c->status && version != 2 && version != 3) {
        c->status =
            mn__fail(c->error, MN_ERROR_UNSUPPORTED, "convert it to GGUF version 3, little-endian",
                     "%s: GGUF version %llu%s; 2 and 3 are read", c->file->path,
                     (unsigned long long)version, version & 0xFFFF ? "" : " (a big-endian file)");
    }
    c->file->version = (int)version;
    c->file->tensor_count = take_count(c, LEAST_TENSOR_BYTES);
    c->file->value_count = take_count(c, LEAST_VALUE_BYTES);
    return !c->status;
}

static bool read_file(cursor *c)
{
    int64_t alignment;
    return read_header(c) && read_values(c) && read_tensors(c) && index_values(c) &&
           skip_to_data(c, &alignment) && index_tensors(c, alignment);
}

mn_status mn__gguf_open(mn__gguf **file, const char *path, mn_error *error)
{
    *file = NULL;
    mn__gguf *new = mn__calloc(1, sizeof *new);
    if (!new)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    mn__arena_init(&new->arena, 0);
    new->path = path;
    cursor c = {.file = new, .error = error};
    c.status = mn__map_open(&new->map, path, error);
    if (!c.status && !(new->path = mn__arena_strdup(&new->arena, path))) {
        new->path = path;
        no_memory(&c);
    }
    if (!c.status)
        read_file(&c);
    if (c.status) {
        mn__gguf_close(new);
        return c.status;
    }
    *file = new;
    return MN_OK;
}

void mn__gguf_close(mn__gguf *file)
{
    if (!file)
        return;
    mn__arena_free(&file->arena);
    mn__map_close(&file->map);
    mn__free(file);
}

/* ---- Looking -------------------------------------------------------------- */

int mn__gguf_version(const mn__gguf *file)
{
    return file->version;
}

int64_t mn__gguf_value_count(const mn__gguf *file)
{
    return file->value_count;
}

const mn__gguf_value *mn__gguf_value_at(const mn__gguf *file, int64_t index)
{
    assert(index >= 0 && index < file->value_count);
    return &file->values[index];
}

const mn__gguf_value *mn__gguf_find_value(const mn__gguf *file, const char *key)
{
    const mn__gguf_value wanted = {.key = key}, *at = &wanted;
    const mn__gguf_value *const *found =
        bsearch(&at, file->values_by_key, (size_t)file->value_count, sizeof at, compare_keys);
    return found ? *found : NULL;
}

int64_t mn__gguf_tensor_count(const mn__gguf *file)
{
    return file->tensor_count;
}

const mn__gguf_tensor *mn__gguf_tensor_at(const mn__gguf *file, int64_t index)
{
    assert(index >= 0 && index < file->tensor_count);
    return &file->tensors[index];
}

const mn__gguf_tensor *mn__gguf_find_tensor(const mn__gguf *file, const char *name)
{
    const mn__gguf_tensor wanted = {.name = name}, *at = &wanted;
    const mn__gguf_tensor *const *found =
        bsearch(&at, file->tensors_by_name, (size_t)file->tensor_count, sizeof at, compare_names);
    return found ? *found : NULL;
}

static mn_status not_a(const mn__gguf *file, const char *key, const char *what, mn_error *error)
{
    const char *found = mn__gguf_find_value(file, key) ? "is no" : "is missing: a";
    return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: '%s' %s %s", file->path, key, found, what);
}

/* A whole number of any width; false for another type or one beyond int64_t. */
static bool value_as_int(const mn__gguf_value *value, int64_t *out)
{
    switch (value->type) {
    case MN__GGUF_U8:
    case MN__GGUF_U16:
    case MN__GGUF_U32:
    case MN__GGUF_U64:
        *out = (int64_t)value->as.u;
        return value->as.u <= INT64_MAX;
    case MN__GGUF_I8:
    case MN__GGUF_I16:
    case MN__GGUF_I32:
    case MN__GGUF_I64:
        *out = value->as.i;
        return true;
    case MN__GGUF_BOOL:
    case MN__GGUF_F32:
    case MN__GGUF_F64:
    case MN__GGUF_STRING:
    case MN__GGUF_ARRAY:
        break;
    }
    return false;
}

static bool value_as_float(const mn__gguf_value *value, double *out)
{
    int64_t whole;
    if (value->type == MN__GGUF_F32 || value->type == MN__GGUF_F64)
        *out = value->as.f;
    else if (value_as_int(value, &whole))
        *out = (double)whole;
    else
        return false;
    return true;
}

mn_status mn__gguf_int(const mn__gguf *file, const char *key, int64_t *value, mn_error *error)
{
    const mn__gguf_value *found = mn__gguf_find_value(file, key);
    return found && value_as_int(found, value) ? MN_OK : not_a(file, key, "whole number", error);
}

mn_status mn__gguf_float(const mn__gguf *file, const char *key, double *value, mn_error *error)
{
    const mn__gguf_value *found = mn__gguf_find_value(file, key);
    return found && value_as_float(found, value) ? MN_OK : not_a(file, key, "number", error);
}

mn_status mn__gguf_bool(const mn__gguf *file, const char *key, bool *value, mn_error *error)
{
    const mn__gguf_value *found = mn__gguf_find_value(file, key);
    if (!found || found->type != MN__GGUF_BOOL)
        return not_a(file, key, "bool", error);
    *value = found->as.b;
    return MN_OK;
}

bool mn__gguf_is_model(const char *path)
{
    size_t length = strlen(path);
    return length > 5 && !strcmp(path + length - 5, ".gguf");
}

mn_status mn__gguf_string(mn__gguf *file, const char *key, const char **value, mn_error *error)
{
    const mn__gguf_value *found = mn__gguf_find_value(file, key);
    if (!found || found->type != MN__GGUF_STRING)
        return not_a(file, key, "string", error);
    cursor c = {.file = file, .error = error};
    *value = end_text(&c, found->as.text);
    return c.status;
}

mn_status mn__gguf_array(const mn__gguf *file, const char *key, mn__gguf_type type,
                         const mn__gguf_value **value, mn_error *error)
{
    const mn__gguf_value *found = mn__gguf_find_value(file, key);
    if (!found || found->type != MN__GGUF_ARRAY || found->as.array.type != type)
        return not_a(file, key, "array of the type wanted", error);
    *value = found;
    return MN_OK;
}

/* A bool comes as a number; of texts and arrays only the type is set. */
static mn__gguf_value item_at(const mn__gguf_value *array, int64_t index)
{
    assert(array->type == MN__GGUF_ARRAY && index >= 0 && index < array->as.array.count);
    mn__gguf_value item = {.type = array->as.array.type};
    int64_t each = value_bytes(item.type);
    if (each > 0)
        decode_number(array->as.array.raw + index * each, &item);
    if (item.type == MN__GGUF_BOOL)
        item = (mn__gguf_value){.type = MN__GGUF_U8, .as.u = item.as.b};
    return item;
}

bool mn__gguf_item_int(const mn__gguf_value *array, int64_t index, int64_t *value)
{
    mn__gguf_value item = item_at(array, index);
    return value_as_int(&item, value);
}

bool mn__gguf_item_float(const mn__gguf_value *array, int64_t index, double *value)
{
    mn__gguf_value item = item_at(array, index);
    return value_as_float(&item, value);
}
