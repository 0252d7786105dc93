/* The safetensors container, after huggingface/safetensors'
 * safetensors/src/tensor.rs, whose rules are enforced here too. */
#include "base/safetensors.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/string.h"

enum { LENGTH_BYTES = 8, HEADER_LIMIT = 100 * 1000 * 1000, DATA_ALIGNMENT = 64, RANK_LIMIT = 8 };

/* How the header of a file of ours begins, with the hash of the whole file, the
 * hash's own digits taken as zeros. */
#define CHECK_BEGIN "{\"__metadata__\":{\"check\":\""
#define CHECK_ZEROS "00000000000000000000000000000000"
enum { CHECK_AT = sizeof CHECK_BEGIN - 1, CHECK_DIGITS = sizeof CHECK_ZEROS - 1 };

struct mn__safetensors {
    mn__map map;
    json_t *header; /* owns the names */
    const json_t *metadata;
    mn__safetensor *tensors;        /* [count], in the header's order */
    const mn__safetensor **by_name; /* [count] */
    int64_t count;
    mn__arena copies; /* of tensors that the file does not align */
};

int mn__safetensors_bits(const char *dtype)
{
    static const struct {
        const char *name;
        int bits;
    } dtypes[] = {
        {"F64", 64}, {"F32", 32},    {"F16", 16},    {"BF16", 16},   {"I64", 64},
        {"I32", 32}, {"I16", 16},    {"I8", 8},      {"U64", 64},    {"U32", 32},
        {"U16", 16}, {"U8", 8},      {"BOOL", 8},    {"C64", 64},    {"F8_E4M3", 8},
        {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E8M0", 8}, {"F8_E5M2", 8},
    };
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtype, dtypes[i].name) == 0)
            return dtypes[i].bits;
    return 0;
}

/* ---- Reading -------------------------------------------------------------- */

/* What is being read, for the checks below. */
typedef struct reader {
    mn__safetensors *file;
    const char *path;
    const unsigned char *data; /* after the header */
    int64_t data_bytes;
    mn_error *error;
} reader;

static mn_status broken(const reader *r, const char *name, const char *what)
{
    return mn__fail(r->error, MN_ERROR_FORMAT, "the file is damaged; fetch or write it again",
                    "%s: tensor '%s': %s", r->path, name, what);
}

static mn_status no_memory(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
}

static mn_status read_shape(const reader *r, mn__safetensor *tensor, const json_t *shape)
{
    if (!json_is_array(shape))
        return broken(r, tensor->name, "no shape");
    if (json_array_size(shape) > RANK_LIMIT)
        return mn__fail(r->error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: tensor '%s' has %zu dimensions, more than %d", r->path, tensor->name,
                        json_array_size(shape), RANK_LIMIT);
    tensor->rank = (int)json_array_size(shape);
    for (int i = 0; i < tensor->rank; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return broken(r, tensor->name, "a size is no whole number");
        tensor->size[i] = json_integer_value(size);
    }
    return MN_OK;
}

/* The bytes that shape and dtype ask for, -1 where there is no such number. */
static int64_t wanted_bytes(const mn__safetensor *tensor)
{
    int64_t bits = mn__safetensors_bits(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++)
        bits = mn__size_product(bits, tensor->size[i]);
    return bits < 0 || bits % 8 != 0 ? -1 : bits / 8;
}

static mn_status read_offsets(const reader *r, mn__safetensor *tensor, const json_t *offsets)
{
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return broken(r, tensor->name, "data_offsets are not two whole numbers");
    int64_t begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || begin > end || end > r->data_bytes)
        return broken(r, tensor->name, "data_offsets lie outside of the file");
    if (end - begin != wanted_bytes(tensor))
        return broken(r, tensor->name, "data_offsets do not agree with shape and dtype");
    tensor->data = r->data + begin;
    tensor->bytes = end - begin;
    return MN_OK;
}

static mn_status read_tensor(const reader *r, mn__safetensor *tensor, const char *name,
                             const json_t *entry)
{
    tensor->name = name;
    tensor->dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!tensor->dtype)
        return broken(r, name, "no dtype");
    if (mn__safetensors_bits(tensor->dtype) == 0)
        return mn__fail(r->error, MN_ERROR_UNSUPPORTED, NULL,
                        "%s: tensor '%s' has the unknown dtype '%s'", r->path, name, tensor->dtype);
    mn_status status = read_shape(r, tensor, json_object_get(entry, "shape"));
    return status ? status : read_offsets(r, tensor, json_object_get(entry, "data_offsets"));
}

static mn_status check_metadata(const reader *r, const json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: __metadata__ is no object", r->path);
    json_object_foreach(
        (json_t *)(uintptr_t)metadata, key,
        value) if (!json_is_string(value)) return mn__fail(r->error, MN_ERROR_FORMAT, NULL,
                                                           "%s: __metadata__ '%s' is no string",
                                                           r->path, key);
    return MN_OK;
}

static mn_status read_entries(const reader *r)
{
    mn__safetensors *file = r->file;
    int64_t most = (int64_t)json_object_size(file->header);
    file->tensors = mn__calloc(most, sizeof *file->tensors);
    file->by_name = mn__calloc(most, sizeof *file->by_name);
    if (!file->tensors || !file->by_name)
        return no_memory(r->path, r->error);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        mn_status status;
        if (strcmp(name, "__metadata__") == 0) {
            file->metadata = entry;
            status = check_metadata(r, entry);
        } else {
            mn__safetensor *tensor = &file->tensors[file->count];
            file->by_name[file->count++] = tensor;
            status = read_tensor(r, tensor, name, entry);
        }
        if (status)
            return status;
    }
    return MN_OK;
}

/* By begin, then end: tensors without elements come before their neighbour. */
static int compare_places(const void *a, const void *b)
{
    const mn__safetensor *x = *(const mn__safetensor *const *)a;
    const mn__safetensor *y = *(const mn__safetensor *const *)b;
    const char *x_begin = x->data, *y_begin = y->data;
    if (x_begin != y_begin)
        return x_begin < y_begin ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const mn__safetensor *const *)a)->name,
                  (*(const mn__safetensor *const *)b)->name);
}

/* The tensors must cover the data from end to end, each byte once. */
static mn_status check_cover(const reader *r)
{
    const mn__safetensor **sorted = r->file->by_name;
    const unsigned char *at = r->data;
    qsort(sorted, (size_t)r->file->count, sizeof *sorted, compare_places);
    for (int64_t i = 0; i < r->file->count; i++) {
        if (sorted[i]->data != at)
            return broken(r, sorted[i]->name, "overlaps the one before it, or leaves a hole");
        at += sorted[i]->bytes;
    }
    if (at != r->data + r->data_bytes)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: %lld bytes after the last tensor",
                        r->path, (long long)(r->data + r->data_bytes - at));
    return MN_OK;
}

/* Old files may start their data anywhere; reading a float there is undefined. */
static mn_status align_data(const reader *r)
{
    for (int64_t i = 0; i < r->file->count; i++) {
        mn__safetensor *tensor = &r->file->tensors[i];
        uintptr_t element = (uintptr_t)(mn__safetensors_bits(tensor->dtype) + 7) / 8;
        if ((uintptr_t)tensor->data % element == 0)
            continue;
        void *copy = mn__arena_alloc(&r->file->copies, tensor->bytes);
        if (!copy)
            return no_memory(r->path, r->error);
        tensor->data = memcpy(copy, tensor->data, (size_t)tensor->bytes);
    }
    return MN_OK;
}

/* Files of others, and of our earlier builds, carry no hash. */
static mn_status verify(const reader *r, const char *header, int64_t header_bytes)
{
    const mn__map *map = &r->file->map;
    if (header_bytes < CHECK_AT + CHECK_DIGITS || memcmp(header, CHECK_BEGIN, CHECK_AT) != 0)
        return MN_OK;
    mn__hash *hash = mn__hash_new();
    if (!hash)
        return no_memory(r->path, r->error);
    const int64_t digits = LENGTH_BYTES + CHECK_AT, after = digits + CHECK_DIGITS;
    mn__hash_add(hash, map->data, digits);
    mn__hash_add(hash, CHECK_ZEROS, CHECK_DIGITS);
    mn__hash_add(hash, map->data + after, map->bytes - after);
    mn__hash_text is = mn__hash_end(hash);
    if (memcmp(is.hex, header + CHECK_AT, CHECK_DIGITS) == 0)
        return MN_OK;
    return mn__fail(r->error, MN_ERROR_FORMAT, "restore it from a copy",
                    "%s: damaged, its bytes are not those that were written", r->path);
}

static mn_status read_header(reader *r)
{
    const mn__map *map = &r->file->map;
    uint64_t header_bytes = 0;
    if (map->bytes < LENGTH_BYTES)
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL,
                        "%s: %lld bytes are too few for a safetensors file", r->path,
                        (long long)map->bytes);
    for (int i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)map->data[i] << 8 * i;
    if (header_bytes > HEADER_LIMIT || header_bytes > (uint64_t)(map->bytes - LENGTH_BYTES))
        return mn__fail(r->error, MN_ERROR_FORMAT, "is it a safetensors file, and all of it?",
                        "%s: a header of %llu bytes in a file of %lld", r->path,
                        (unsigned long long)header_bytes, (long long)map->bytes);
    const char *text = (const char *)map->data + LENGTH_BYTES;
    r->data = map->data + LENGTH_BYTES + header_bytes;
    r->data_bytes = map->bytes - LENGTH_BYTES - (int64_t)header_bytes;
    if (header_bytes == 0 || *text != '{')
        return mn__fail(r->error, MN_ERROR_FORMAT, NULL, "%s: the header is no JSON object",
                        r->path);
    mn_status status = verify(r, text, (int64_t)header_bytes);
    if (status)
        return status;
    return mn__json_parse(r->path, text, (int64_t)header_bytes, &r->file->header, r->error);
}

static mn_status read_file(reader *r)
{
    mn_status status = mn__map_open(&r->file->map, r->path, r->error);
    if (!status)
        status = read_header(r);
    if (!status)
        status = read_entries(r);
    if (!status)
        status = check_cover(r);
    if (!status)
        status = align_data(r);
    return status;
}

mn_status mn__safetensors_open(mn__safetensors **file, const char *path, mn_error *error)
{
    *file = NULL;
    mn__safetensors *new = mn__calloc(1, sizeof *new);
    if (!new)
        return no_memory(path, error);
    mn__arena_init(&new->copies, 0);
    mn_status status = read_file(&(reader){.file = new, .path = path, .error = error});
    if (status) {
        if (status == MN_ERROR_FORMAT)
            mn__error_hint(error, "the file is damaged; fetch or write it again");
        mn__safetensors_close(new);
        return status;
    }
    qsort(new->by_name, (size_t) new->count, sizeof *new->by_name, compare_names);
    *file = new;
    return MN_OK;
}

void mn__safetensors_close(mn__safetensors *file)
{
    if (!file)
        return;
    mn__arena_free(&file->copies);
    mn__free(file->by_name);
    mn__free(file->tensors);
    json_decref(file->header);
    mn__map_close(&file->map);
    mn__free(file);
}

int64_t mn__safetensors_count(const mn__safetensors *file)
{
    return file->count;
}

const mn__safetensor *mn__safetensors_at(const mn__safetensors *file, int64_t index)
{
    assert(index >= 0 && index < file->count);
    return &file->tensors[index];
}

const mn__safetensor *mn__safetensors_find(const mn__safetensors *file, const char *name)
{
    const mn__safetensor wanted = {.name = name}, *key = &wanted;
    const mn__safetensor *const *found =
        bsearch(&key, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_names);
    return found ? *found : NULL;
}

const char *mn__safetensors_metadata(const mn__safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->metadata, key));
}

/* ---- Writing -------------------------------------------------------------- */

static void add_metadata(mn__string *header, const char *const *metadata)
{
    mn__string_puts(header, CHECK_BEGIN CHECK_ZEROS "\"");
    for (const char *const *at = metadata; at && *at; at += 2) {
        mn__string_puts(header, ",");
        mn__string_json(header, at[0], (int64_t)strlen(at[0]));
        mn__string_puts(header, ":");
        mn__string_json(header, at[1], (int64_t)strlen(at[1]));
    }
    mn__string_puts(header, "}");
}

static void add_entry(mn__string *header, const mn__safetensor *tensor, int64_t begin)
{
    mn__string_puts(header, ",");
    mn__string_json(header, tensor->name, (int64_t)strlen(tensor->name));
    mn__string_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", tensor->dtype);
    for (int i = 0; i < tensor->rank; i++)
        mn__string_printf(header, "%s%lld", i ? "," : "", (long long)tensor->size[i]);
    mn__string_printf(header, "],\"data_offsets\":[%lld,%lld]}", (long long)begin,
                      (long long)(begin + tensor->bytes));
}

/* A header that a reader would refuse is never written. */
static mn_status check_tensors(const char *path, const mn__safetensor *tensors, int64_t count,
                               mn_error *error)
{
    for (int64_t i = 0; i < count; i++) {
        const mn__safetensor *tensor = &tensors[i];
        bool valid = tensor->rank >= 0 && tensor->rank <= RANK_LIMIT &&
                     mn__safetensors_bits(tensor->dtype) > 0 &&
                     tensor->bytes == wanted_bytes(tensor);
        if (!valid)
            return mn__fail(error, MN_ERROR_MISMATCH, NULL,
                            "%s: tensor '%s': its %lld bytes do not fit its shape and dtype %s",
                            path, tensor->name, (long long)tensor->bytes, tensor->dtype);
    }
    return MN_OK;
}

/* Falling element size, otherwise the order given (the array's own order). */
static int compare_elements(const void *a, const void *b)
{
    const mn__safetensor *x = *(const mn__safetensor *const *)a;
    const mn__safetensor *y = *(const mn__safetensor *const *)b;
    int x_bits = mn__safetensors_bits(x->dtype), y_bits = mn__safetensors_bits(y->dtype);
    return x_bits != y_bits ? y_bits - x_bits : (x > y) - (x < y);
}

/* Sorts `order` by name; the name that is there twice, or NULL. */
static const char *find_twice(const mn__safetensor **order, int64_t count)
{
    qsort(order, (size_t)count, sizeof *order, compare_names);
    for (int64_t i = 1; i < count; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            return order[i]->name;
    return NULL;
}

/* Fills in where each tensor's data begin, and the order in which they lie. */
static void place_tensors(const mn__safetensor *tensors, int64_t count,
                          const mn__safetensor **order, int64_t *begins)
{
    int64_t at = 0;
    qsort(order, (size_t)count, sizeof *order, compare_elements);
    for (int64_t i = 0; i < count; i++) {
        begins[order[i] - tensors] = at;
        at += order[i]->bytes;
    }
}

/* Puts the file's hash in its place. */
static bool sign(mn__string *header, const unsigned char length[LENGTH_BYTES],
                 const mn__safetensor *const *order, int64_t count)
{
    mn__hash *hash = mn__hash_new();
    if (!hash)
        return false;
    mn__hash_add(hash, length, LENGTH_BYTES);
    mn__hash_add(hash, header->text, header->bytes);
    for (int64_t i = 0; i < count; i++)
        mn__hash_add(hash, order[i]->data, order[i]->bytes);
    mn__hash_text is = mn__hash_end(hash);
    memcpy(header->text + CHECK_AT, is.hex, CHECK_DIGITS);
    return true;
}

static mn_status write_file(const char *path, mn__string *header,
                            const mn__safetensor *const *order, int64_t count, mn_error *error)
{
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (unsigned char)((uint64_t)header->bytes >> 8 * i);
    if (!sign(header, length, order, count))
        return no_memory(path, error);
    mn__writer *writer;
    mn_status status = mn__writer_open(&writer, path, error);
    if (status)
        return status;
    mn__writer_write(writer, length, LENGTH_BYTES);
    mn__writer_write(writer, header->text, header->bytes);
    for (int64_t i = 0; i < count; i++)
        mn__writer_write(writer, order[i]->data, order[i]->bytes);
    return mn__writer_commit(writer, error);
}

static void make_header(mn__string *header, const mn__safetensor *tensors, int64_t count,
                        const int64_t *begins, const char *const *metadata)
{
    add_metadata(header, metadata);
    for (int64_t i = 0; i < count; i++)
        add_entry(header, &tensors[i], begins[i]);
    mn__string_puts(header, "}");
    while (!header->failed && (LENGTH_BYTES + header->bytes) % DATA_ALIGNMENT != 0)
        mn__string_puts(header, " ");
}

mn_status mn__safetensors_write(const char *path, const mn__safetensor *tensors, int64_t count,
                                const char *const *metadata, mn_error *error)
{
    mn_status status = check_tensors(path, tensors, count, error);
    if (status)
        return status;
    const mn__safetensor **order = mn__calloc(count, sizeof *order);
    int64_t *begins = mn__calloc(count, sizeof *begins);
    mn__string header = {0};
    const char *twice = NULL;
    if (order && begins) {
        for (int64_t i = 0; i < count; i++)
            order[i] = &tensors[i];
        twice = find_twice(order, count);
        place_tensors(tensors, count, order, begins);
        make_header(&header, tensors, count, begins, metadata);
    }
    if (!order || !begins || header.failed)
        status = no_memory(path, error);
    else if (twice)
        status = mn__fail(error, MN_ERROR_MISMATCH, NULL, "%s: two tensors are called '%s'", path,
                          twice);
    else if (header.bytes > HEADER_LIMIT)
        status = mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                          "%s: a header of %lld bytes; the format allows %d", path,
                          (long long)header.bytes, HEADER_LIMIT);
    else
        status = write_file(path, &header, order, count, error);
    mn__string_free(&header);
    mn__free(begins);
    mn__free(order);
    return status;
}
