/* llama2.c's checkpoints in the words of transformers. */
#include "model/llama2c_model.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/memory.h"

enum { MAGIC = 0x616b3432, LEGACY_HEADER = 28, HEADER = 256, FIELDS = 7 };

enum part {
    EMBEDDING,
    ATTENTION_NORM,
    QUERY,
    KEY,
    VALUE,
    OUT,
    FEED_FORWARD_NORM,
    GATE,
    DOWN,
    UP,
    FINAL_NORM,
    ANGLES, /* cos and sin of all positions: they follow from the rest */
    HEAD,
    PARTS
};

struct mn__llama2c {
    const char *path;
    mn__map map;
    mn__arena arena;
    int version; /* 0: legacy */
    int64_t width, hidden, depth, heads, kv_heads, vocabulary, context;
    bool tied;
    int64_t group;          /* of version 2, else 0 */
    int64_t at;             /* where the next tensor begins */
    mn__safetensor *tensor; /* [count] */
    int64_t count;
};

bool mn__llama2c_is_model(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && !strcmp(path + length - 4, ".bin") && !mn__file_is_folder(path);
}

/* ---- Header ---------------------------------------------------------------------------- */

static mn_status broken(const mn__llama2c *file, mn_error *error, const char *why)
{
    return mn__fail(error, MN_ERROR_FORMAT,
                    "give a .bin that llama2.c's export.py has written, and fetch it whole",
                    "%s: no checkpoint of llama2.c: %s", file->path, why);
}

static int64_t int_at(const mn__llama2c *file, int64_t at)
{
    int32_t value;
    memcpy(&value, file->map.data + at, sizeof value);
    return value;
}

/* Bounds within which no product of sizes overflows. */
static mn_status check_sizes(const mn__llama2c *file, mn_error *error)
{
    const struct {
        const char *name;
        int64_t value, most;
    } sizes[] = {{"width", file->width, 1000000},
                 {"feed-forward width", file->hidden, 10000000},
                 {"layers", file->depth, 1024},
                 {"heads", file->heads, 1024},
                 {"key-value heads", file->kv_heads, 1024},
                 {"vocabulary", file->vocabulary, INT32_MAX},
                 {"longest text", file->context, 1000000000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most) {
            char why[96];
            snprintf(why, sizeof why, "its %s would be %lld", sizes[i].name,
                     (long long)sizes[i].value);
            return broken(file, error, why);
        }
    if (file->width % file->heads || file->heads % file->kv_heads)
        return broken(file, error, "its heads do not divide into its width, or each other");
    return MN_OK;
}

static mn_status read_header(mn__llama2c *file, mn_error *error)
{
    int64_t *const fields[FIELDS] = {&file->width,  &file->hidden,   &file->depth,
                                     &file->heads,  &file->kv_heads, &file->vocabulary,
                                     &file->context};
    if (file->map.bytes < LEGACY_HEADER)
        return broken(file, error, "it is too short");
    bool named = int_at(file, 0) == MAGIC;
    if (named && file->map.bytes < HEADER)
        return broken(file, error, "it is too short");
    file->version = named ? (int)int_at(file, 4) : 0;
    if (named && file->version != 1 && file->version != 2)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "versions are the legacy one, 1 and 2",
                        "%s: version %d of llama2.c's checkpoints is not supported", file->path,
                        file->version);
    for (int i = 0; i < FIELDS; i++)
        *fields[i] = int_at(file, (named ? 8 : 0) + 4 * i);
    file->tied = named ? file->map.data[36] != 0 : file->vocabulary > 0;
    if (!named && file->vocabulary < 0)
        file->vocabulary = -file->vocabulary;
    if (file->version == 2) {
        int32_t group;
        memcpy(&group, file->map.data + 37, sizeof group);
        file->group = group;
        if (group < 1)
            return broken(file, error, "its groups are empty");
    }
    file->at = named ? HEADER : LEGACY_HEADER;
    return check_sizes(file, error);
}

/* ---- Tensors --------------------------------------------------------------------------- */

/* With '#' for the layer. */
static const char *const names[PARTS] = {
    "model.embed_tokens.weight",
    "model.layers.#.input_layernorm.weight",
    "model.layers.#.self_attn.q_proj.weight",
    "model.layers.#.self_attn.k_proj.weight",
    "model.layers.#.self_attn.v_proj.weight",
    "model.layers.#.self_attn.o_proj.weight",
    "model.layers.#.post_attention_layernorm.weight",
    "model.layers.#.mlp.gate_proj.weight",
    "model.layers.#.mlp.down_proj.weight",
    "model.layers.#.mlp.up_proj.weight",
    "model.norm.weight",
    NULL,
    "lm_head.weight",
};

static const enum part legacy_order[] = {
    EMBEDDING, ATTENTION_NORM, QUERY, KEY,        VALUE,  OUT,  FEED_FORWARD_NORM,
    GATE,      DOWN,           UP,    FINAL_NORM, ANGLES, HEAD, PARTS};
static const enum part named_order[] = {ATTENTION_NORM,
                                        FEED_FORWARD_NORM,
                                        FINAL_NORM,
                                        EMBEDDING,
                                        QUERY,
                                        KEY,
                                        VALUE,
                                        OUT,
                                        GATE,
                                        DOWN,
                                        UP,
                                        HEAD,
                                        PARTS};

/* [rows, columns]; columns 0: a vector. */
static void size_of(const mn__llama2c *file, enum part part, int64_t *rows, int64_t *columns)
{
    int64_t head = file->width / file->heads;
    *columns = part == DOWN ? file->hidden : file->width;
    *rows = file->width;
    if (part == ATTENTION_NORM || part == FEED_FORWARD_NORM || part == FINAL_NORM)
        *columns = 0;
    else if (part == EMBEDDING || part == HEAD)
        *rows = file->vocabulary;
    else if (part == KEY || part == VALUE)
        *rows = file->kv_heads * head;
    else if (part == GATE || part == UP)
        *rows = file->hidden;
    else if (part == ANGLES)
        *rows = file->context, *columns = head / 2 * 2;
}

static bool is_grouped(const mn__llama2c *file, int64_t columns)
{
    return file->group && columns;
}

/* Of one tensor in the file; -1: it does not divide into groups. */
static int64_t bytes_of(const mn__llama2c *file, int64_t rows, int64_t columns)
{
    int64_t count = rows * (columns ? columns : 1);
    if (!is_grouped(file, columns))
        return 4 * count;
    return count % file->group ? -1 : count + count / file->group * 4;
}

static bool repeats(enum part part)
{
    return names[part] && strchr(names[part], '#');
}

/* The order's tensors, layer by layer in each part; the sum of their bytes. */
static mn_status check_bytes(const mn__llama2c *file, const enum part *order, int64_t *count,
                             mn_error *error)
{
    int64_t bytes = file->at;
    *count = 0;
    for (; *order != PARTS; order++) {
        int64_t rows, columns, times = repeats(*order) ? file->depth : 1;
        if (*order == HEAD && file->tied)
            continue;
        size_of(file, *order, &rows, &columns);
        int64_t each = bytes_of(file, rows, columns);
        if (each < 0)
            return broken(file, error, "its matrices do not divide into its groups");
        bytes += times * each;
        *count += names[*order] ? times : 0;
    }
    if (bytes == file->map.bytes)
        return MN_OK;
    char why[128];
    snprintf(why, sizeof why, "by its header it has %lld bytes, and there are %lld",
             (long long)bytes, (long long)file->map.bytes);
    return broken(file, error, why);
}

/* Int8 and scales at `from` as floats, in the arena; NULL when memory is short. */
static const float *ungroup(mn__llama2c *file, const unsigned char *from, int64_t count)
{
    float *values = mn__arena_alloc(&file->arena, mn__size_product(count, (int64_t)sizeof *values));
    const unsigned char *scales = from + count;
    for (int64_t i = 0; values && i < count; i++) {
        float scale;
        memcpy(&scale, scales + i / file->group * 4, sizeof scale);
        values[i] = (float)(signed char)from[i] * scale;
    }
    return values;
}

static bool place(mn__llama2c *file, enum part part, int64_t layer)
{
    int64_t rows, columns;
    size_of(file, part, &rows, &columns);
    const unsigned char *from = file->map.data + file->at;
    int64_t count = rows * (columns ? columns : 1);
    file->at += bytes_of(file, rows, columns);
    if (!names[part])
        return true;
    const char *mark = strchr(names[part], '#');
    mn__safetensor *tensor = &file->tensor[file->count++];
    *tensor = (mn__safetensor){
        .name = mark ? mn__arena_printf(&file->arena, "%.*s%lld%s", (int)(mark - names[part]),
                                        names[part], (long long)layer, mark + 1)
                     : names[part],
        .dtype = "F32",
        .rank = columns ? 2 : 1,
        .size = {rows, columns},
        .data = is_grouped(file, columns) ? (const void *)ungroup(file, from, count) : from,
        .bytes = 4 * count};
    return tensor->name && tensor->data;
}

static mn_status place_all(mn__llama2c *file, mn_error *error)
{
    const enum part *order = file->version ? named_order : legacy_order;
    int64_t count;
    mn_status status = check_bytes(file, order, &count, error);
    if (status != MN_OK)
        return status;
    bool whole = (file->tensor = mn__arena_calloc(&file->arena, count, sizeof *file->tensor));
    for (; *order != PARTS; order++)
        for (int64_t i = 0; whole && i < (repeats(*order) ? file->depth : 1); i++)
            whole = (*order == HEAD && file->tied) || place(file, *order, i);
    return whole ? MN_OK : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
}

/* ---- Opening --------------------------------------------------------------------------- */

mn_status mn__llama2c_open(mn__llama2c **out, const char *path, mn_error *error)
{
    mn__llama2c *file = *out = mn__calloc(1, sizeof *file);
    if (!file)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
    file->path = path;
    mn__arena_init(&file->arena, 1 << 14);
    mn_status status = mn__map_open(&file->map, path, error);
    if (status == MN_OK)
        status = read_header(file, error);
    if (status == MN_OK)
        status = place_all(file, error);
    if (status != MN_OK) {
        mn__llama2c_close(file);
        *out = NULL;
    }
    return status;
}

void mn__llama2c_close(mn__llama2c *file)
{
    if (!file)
        return;
    mn__map_close(&file->map);
    mn__arena_free(&file->arena);
    mn__free(file);
}

/* Texts begin with <s>, the id 1, and llama2.c's runner ends at it, too: stories follow each
 * other by it alone. Models that were trained by others end with </s>, the id 2. */
mn_status mn__llama2c_config(const mn__llama2c *file, json_t **root, mn_error *error)
{
    *root = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b}", "model_type",
                      "llama", "hidden_size", (json_int_t)file->width, "intermediate_size",
                      (json_int_t)file->hidden, "num_hidden_layers", (json_int_t)file->depth,
                      "num_attention_heads", (json_int_t)file->heads, "num_key_value_heads",
                      (json_int_t)file->kv_heads, "vocab_size", (json_int_t)file->vocabulary,
                      "max_position_embeddings", (json_int_t)file->context, "rms_norm_eps", 1e-5,
                      "rope_theta", 10000.0, "tie_word_embeddings", (int)file->tied);
    if (*root && file->vocabulary > 2)
        json_object_set_new(*root, "eos_token_id", json_pack("[i, i]", 1, 2));
    return *root ? MN_OK : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory to open a model");
}

const mn__safetensor *mn__llama2c_tensors(const mn__llama2c *file, int64_t *count)
{
    *count = file->count;
    return file->tensor;
}
