/* Keys, values and position rows into panels: once per call, O(S) memory, shared
 * by all heads and queries that read them. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"
#include "kernel/cpu/bf16.h"
#include "kernel/cpu/kept.h"
#include "kernel/plain.h"

#include <math.h>
#include <omp.h>

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- Rows --------------------------------------------------------------- */

/* to[d] = (from[d] + add[d]) * factor for d < n, zero up to width. */
static void widen_row(float *to, int64_t width, const void *from, mn__dtype dtype, int64_t n,
                      const float *add, float factor)
{
    mn__kept_widen(to, from, dtype, n);
    if (add)
        for (int64_t d = 0; d < n; d++)
            to[d] += add[d];
    if (factor != 1)
        for (int64_t d = 0; d < n; d++)
            to[d] *= factor;
    memset(to + n, 0, (size_t)(width - n) * sizeof *to);
}

static void fetch_rows(const void *rows, int64_t stride, int64_t n, int64_t bytes)
{
    for (int64_t i = 0; i < n; i++)
        fetch_row((const char *)rows + i * stride, bytes);
}

/* The same in the packed form's type. */
static void put_row(const mn__flash *flash, void *to, int64_t width, const void *from,
                    mn__dtype dtype, int64_t n, const float *add, float factor)
{
    if (!flash->bf16) {
        widen_row(to, width, from, dtype, n, add, factor);
    } else if (!add && factor == 1) {
        mn__kept_narrow(to, from, dtype, n);
        memset((mn__bf16 *)to + n, 0, (size_t)(width - n) * sizeof(mn__bf16));
    } else {
        float part[PANEL];
        for (int64_t d = 0; d < width; d += PANEL) {
            int64_t there = d < n ? smaller(n - d, PANEL) : 0;
            const char *at = (const char *)from + mn__kept_bytes(dtype, d);
            widen_row(part, PANEL, at, dtype, there, add ? add + d : NULL, factor);
            mn__floats_narrow((mn__bf16 *)to + d, part, PANEL);
        }
    }
}

static void put_all_rows(const mn__flash *flash, void *to, const void *from, mn__dtype dtype,
                         int64_t stride, int64_t n, int64_t rows, const float *add, float factor)
{
    int64_t D = flash->call->D, row = flash->width * flash->size;
    int64_t apart = stride * mn__dtype_bytes(dtype);
    fetch_rows(from, apart, n, mn__kept_bytes(dtype, D));
    for (int64_t i = 0; i < n; i++)
        put_row(flash, (char *)to + i * row, flash->width, (const char *)from + i * apart, dtype, D,
                add, factor);
    memset((char *)to + n * row, 0, (size_t)((rows - n) * row));
}

void MN__KERNEL(attention_rows)(const mn__flash *flash, void *to, const void *from, int64_t stride,
                                int64_t n, int64_t rows, const float *add, float factor)
{
    put_all_rows(flash, to, from, flash->call->dtype, stride, n, rows, add, factor);
}

void MN__KERNEL(attention_kept_rows)(const mn__flash *flash, int i, void *to, const void *data,
                                     const int64_t stride[3], int64_t b, int64_t j, int64_t g,
                                     int64_t n, int64_t rows)
{
    mn__dtype dtype = mn__kept_dtype(flash->call->group[i].kept, flash->call->dtype);
    int64_t at = b * stride[0] + j * stride[1] + g * stride[2];
    put_all_rows(flash, to, (const char *)data + at * mn__dtype_bytes(dtype), dtype, stride[1], n,
                 rows, NULL, 1);
}

/* to[d] (+)= from[d] * factor for d < n, which is constant for whole panels. */
static inline __attribute__((always_inline)) void
write_part(void *to, mn__dtype dtype, bool accumulate, const float *from, float factor, int64_t n)
{
    mn__bf16 *bf16 = to;
    float *f32 = to, part[PANEL] = {0};
    if (accumulate && dtype == MN__BF16)
        mn__floats_widen(part, bf16, n);
    else if (accumulate)
        memcpy(part, f32, (size_t)n * sizeof *part);
    for (int64_t d = 0; d < n; d++)
        part[d] += from[d] * factor;
    if (dtype == MN__BF16)
        mn__floats_narrow(bf16, part, n);
    else
        memcpy(f32, part, (size_t)n * sizeof *part);
}

void MN__KERNEL(attention_write_row)(void *to, mn__dtype dtype, bool accumulate, const float *from,
                                     float factor, int64_t D)
{
    char *row = to;
    int64_t bytes = mn__dtype_bytes(dtype), d = 0;
    for (; d + PANEL <= D; d += PANEL)
        write_part(row + d * bytes, dtype, accumulate, from + d, factor, PANEL);
    if (d < D)
        write_part(row + d * bytes, dtype, accumulate, from + d, factor, D - d);
}

/* ---- Panels ------------------------------------------------------------------------- */

/* 32 bits of a packed row: a float, or a pair of bf16. */
typedef uint32_t word __attribute__((may_alias));

static inline void turn_block(word *to, int64_t to_row, const word *from, int64_t from_row)
{
    vec x[LANES];
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++)
        memcpy(&x[i], from + i * from_row, sizeof(vec));
    vec_turn(x);
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++)
        memcpy(to + i * to_row, &x[i], sizeof(vec));
}

void MN__KERNEL(attention_turn)(void *to, int64_t to_row, const void *from, int64_t from_row,
                                int64_t rows, int64_t columns)
{
    for (int64_t r = 0; r < rows; r += LANES)
        for (int64_t c = 0; c < columns; c += LANES)
            turn_block((word *)to + c * to_row + r, to_row, (const word *)from + r * from_row + c,
                       from_row);
}

/* PANEL rows, `row` elements apart, become the columns of one panel: [words][32]. */
static void put_columns(const mn__flash *flash, word *panel, const void *x, int64_t row)
{
    int64_t per_word = (int64_t)sizeof *panel / flash->size;
    MN__KERNEL(attention_turn)
    (panel, PANEL, x, row / per_word, PANEL, flash->width / per_word);
}

static void put_rows_f32(float *panels, const float *x, int64_t row, int64_t width, int64_t apart)
{
    for (int64_t d = 0; d < width; d += PANEL, panels += apart)
        for (int64_t k = 0; k < PANEL; k++)
            if (width - d >= PANEL) /* a constant: moves, no call */
                memcpy(panels + k * PANEL, x + k * row + d, PANEL * sizeof *x);
            else
                memcpy(panels + k * PANEL, x + k * row + d, (size_t)(width - d) * sizeof *x);
}

static void put_rows_bf16(word *panels, const mn__bf16 *x, int64_t row, int64_t width,
                          int64_t apart)
{
    for (int64_t d = 0; d < width; d += PANEL, panels += apart / 2)
        for (int64_t k = 0; k < PANEL; k += 2) {
            const mn__bf16 *even = x + k * row + d, *odd = even + row;
            word *pairs = panels + k / 2 * PANEL;
            for (int64_t c = 0; c < PANEL; c++)
                pairs[c] = (uint32_t)even[c] | (uint32_t)odd[c] << 16;
        }
}

/* The same become rows of the panels: [width / 32][apart elements][32]. */
static void put_rows(const mn__flash *flash, void *panels, const void *x, int64_t row,
                     int64_t apart)
{
    if (flash->bf16)
        put_rows_bf16(panels, x, row, flash->width, apart);
    else
        put_rows_f32(panels, x, row, flash->width, apart);
}

void *MN__KERNEL(attention_panels)(const mn__flash *flash, void *packed, int64_t padded, int64_t bg,
                                   int64_t at, bool columns)
{
    int64_t each = padded * flash->panels * PANEL;
    int64_t start = columns ? at * flash->width : at * PANEL;
    return (char *)packed + (bg * each + start) * flash->size;
}

/* ---- Keys and values ------------------------------------------------------------------ */

typedef struct source {
    const void *data;
    const int64_t *stride;
    void *columns, *rows; /* either may be NULL */
} source;

/* Hidden keys are packed as zeros: what stands there may be anything. */
bool MN__KERNEL(attention_key_present)(const mn__key_group *group, int64_t b, int64_t j)
{
    return j < group->count && !(group->first && j < group->first[b]) &&
           !(group->length && j >= group->length[b]) &&
           !(group->keep && !group->keep[b * group->count + j]);
}

bool MN__KERNEL(attention_keys_present)(const mn__key_group *group, int64_t b, int64_t j, int64_t n)
{
    bool all = j + n <= group->count && !(group->first && j < group->first[b]) &&
               !(group->length && j + n > group->length[b]);
    for (int64_t k = 0; group->keep && all && k < n; k++)
        all = group->keep[b * group->count + j + k];
    return all;
}

bool MN__KERNEL(attention_in_form)(const mn__flash *flash, int i, const void *rows, int64_t apart,
                                   int64_t b, int64_t j, int64_t n)
{
    const mn__key_group *group = &flash->call->group[i];
    enum { WORD = sizeof(word) };
    return mn__dtype_bytes(mn__kept_dtype(group->kept, flash->call->dtype)) == flash->size &&
           flash->call->D == flash->width && (uintptr_t)rows % WORD == 0 && apart % WORD == 0 &&
           MN__KERNEL(attention_keys_present)(group, b, j, n);
}

/* The PANEL keys (or values) j.. of row b, head g; x is scratch for them. */
static void pack_keys(const mn__flash *flash, int i, const source *from, int64_t b, int64_t g,
                      int64_t j, char *x)
{
    const mn__attention_call *call = flash->call;
    int64_t bg = b * call->G + g, padded = flash->group[i].padded;
    int64_t count = call->group[i].count;
    mn__dtype dtype = mn__kept_dtype(call->group[i].kept, call->dtype);
    int64_t bytes = mn__dtype_bytes(dtype), apart = from->stride[1] * bytes;
    int64_t row_bytes = mn__kept_bytes(dtype, call->D);
    const char *keys = (const char *)from->data +
                       (b * from->stride[0] + j * from->stride[1] + g * from->stride[2]) * bytes;
    const char *rows = keys;
    int64_t row = from->stride[1];
    if (j == 0)
        fetch_rows(keys, apart, smaller(PANEL, count), row_bytes);
    if (j + PANEL < count)
        fetch_rows(keys + PANEL * apart, apart, smaller(PANEL, count - j - PANEL), row_bytes);
    if (!MN__KERNEL(attention_in_form)(flash, i, keys, apart, b, j, PANEL)) {
        rows = x;
        row = flash->width;
        for (int64_t n = 0; n < PANEL; n++, x += row * flash->size)
            if (MN__KERNEL(attention_key_present)(&call->group[i], b, j + n))
                put_row(flash, x, row, keys + n * apart, dtype, call->D, NULL, 1);
            else
                memset(x, 0, (size_t)(row * flash->size));
    }
    if (from->columns)
        put_columns(flash, MN__KERNEL(attention_panels)(flash, from->columns, padded, bg, j, true),
                    rows, row);
    if (from->rows)
        put_rows(flash, MN__KERNEL(attention_panels)(flash, from->rows, padded, bg, j, false), rows,
                 row, padded * PANEL);
}

static void pack_group(const mn__flash *flash, int i, char *scratch)
{
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[i];
    const packed_group *packed = &flash->group[i];
    const source keys = {group->keys, group->key_stride, packed->keys, packed->key_rows};
    const source values = {group->values, group->value_stride, packed->value_columns,
                           packed->values};
    int64_t blocks = packed->padded / PANEL;
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < call->B * call->G * blocks; item++) {
        int64_t bg = item / blocks, j = item % blocks * PANEL;
        char *x = scratch + omp_get_thread_num() * PANEL * flash->width * flash->size;
        pack_keys(flash, i, &keys, bg / call->G, bg % call->G, j, x);
        pack_keys(flash, i, &values, bg / call->G, bg % call->G, j, x);
    }
}

/* ---- Positions ---------------------------------------------------------------------------- */

static int64_t distance_of(const mn__flash *flash, const mn__key_group *group, int64_t entry)
{
    return group->offset + flash->tiles * ROWS - 1 - entry;
}

static const char *distance_row(const mn__flash *flash, const mn__key_group *group,
                                const distance_rows *rows, int64_t h, int64_t entry)
{
    int64_t row = clip(distance_of(flash, group, entry), rows->low, rows->high) - rows->low;
    return (const char *)rows->source +
           (row * rows->heads + h) * flash->call->D * mn__dtype_bytes(rows->dtype);
}

static void pack_distances(const mn__flash *flash, const mn__key_group *group,
                           const distance_rows *to, char *scratch)
{
    int64_t D = flash->call->D, row = flash->width * flash->size, blocks = to->entries / PANEL;
#pragma omp parallel for schedule(static)
    for (int64_t item = 0; item < to->heads * blocks; item++) {
        int64_t h = item / blocks, entry = item % blocks * PANEL;
        char *x = scratch + omp_get_thread_num() * PANEL * row;
        for (int64_t n = 0; n < PANEL; n++)
            fetch_row(distance_row(flash, group, to, h, entry + n), D * mn__dtype_bytes(to->dtype));
        for (int64_t n = 0; n < PANEL; n++)
            put_row(flash, x + n * row, flash->width, distance_row(flash, group, to, h, entry + n),
                    to->dtype, D, NULL, 1);
        if (to->columns)
            put_columns(
                flash,
                MN__KERNEL(attention_panels)(flash, to->columns, to->entries, h, entry, true), x,
                flash->width);
        if (to->rows)
            put_rows(flash,
                     MN__KERNEL(attention_panels)(flash, to->rows, to->entries, h, entry, false), x,
                     flash->width, to->entries * PANEL);
    }
}

float MN__KERNEL(attention_distance_bias)(const mn__attention_call *call, int i, int64_t distance,
                                          int64_t h)
{
    const mn__key_group *group = &call->group[i];
    float y = group->position == MN__POSITION_T5
                  ? group->table[mn__t5_bucket(distance, group->buckets, group->far) * call->H + h]
                  : -group->slopes[h] * (float)distance;
    return y * (call->scales ? call->scales[h] : 1) * (float)M_LOG2E;
}

static void fill_by_distance(const mn__flash *flash, int i)
{
    const mn__attention_call *call = flash->call;
    const packed_group *packed = &flash->group[i];
#pragma omp parallel for schedule(static)
    for (int64_t h = 0; h < call->H; h++)
        for (int64_t entry = 0; entry < packed->entries; entry++)
            packed->by_distance[h * packed->entries + entry] = MN__KERNEL(attention_distance_bias)(
                call, i, distance_of(flash, &call->group[i], entry), h);
}

/* ---- All of a call -------------------------------------------------------------------------- */

/* n * PANEL-wide panels of `rows` rows, or NULL with the queue's failure noted. */
static bool take(mn__queue *queue, const mn__flash *flash, void **to, int64_t n, int64_t rows)
{
    *to = mn__queue_scratch(queue, n * rows * flash->panels * PANEL * flash->size);
    return *to != NULL;
}

static bool take_distances(mn__queue *queue, const mn__flash *flash, distance_rows *to,
                           bool columns, bool rows)
{
    return (!columns || take(queue, flash, &to->columns, to->heads, to->entries)) &&
           (!rows || take(queue, flash, &to->rows, to->heads, to->entries));
}

static bool open_positions(mn__flash *flash, mn__queue *queue, int i, bool backward)
{
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[i];
    packed_group *packed = &flash->group[i];
    packed->entries = flash->tiles * ROWS + packed->padded + KEYS; /* of a tile's end beyond */
    bool by_distance = group->position == MN__POSITION_ALIBI || group->position == MN__POSITION_T5;
    if (by_distance)
        packed->by_distance =
            mn__queue_scratch(queue, call->H * packed->entries * (int64_t)sizeof(float));
    if (group->position == MN__POSITION_XL)
        packed->relative = (distance_rows){group->relative, call->dtype,     0,    group->limit,
                                           call->H,         packed->entries, NULL, NULL};
    if (group->position == MN__POSITION_SHAW && group->shaw_keys)
        packed->relative = (distance_rows){
            group->shaw_keys, MN__F32, -group->limit, group->limit, 1, packed->entries, NULL, NULL};
    if (group->position == MN__POSITION_SHAW && group->shaw_values)
        packed->shaw_values =
            (distance_rows){group->shaw_values, MN__F32, -group->limit, group->limit, 1,
                            packed->entries,    NULL,    NULL};
    return (!by_distance || packed->by_distance) &&
           take_distances(queue, flash, &packed->relative, packed->relative.entries != 0,
                          packed->relative.entries && backward) &&
           take_distances(queue, flash, &packed->shaw_values,
                          packed->shaw_values.entries && backward,
                          packed->shaw_values.entries != 0);
}

static bool open_group(mn__flash *flash, mn__queue *queue, int i, bool backward)
{
    const mn__attention_call *call = flash->call;
    packed_group *packed = &flash->group[i];
    int64_t bg = call->B * call->G;
    packed->padded = round_up(call->group[i].count, KEYS);
    return take(queue, flash, &packed->keys, bg, packed->padded) &&
           take(queue, flash, &packed->values, bg, packed->padded) &&
           (!backward || (take(queue, flash, &packed->key_rows, bg, packed->padded) &&
                          take(queue, flash, &packed->value_columns, bg, packed->padded))) &&
           open_positions(flash, queue, i, backward);
}

/* Gradients of Shaw's positions have float products only. */
static bool needs_floats(const mn__attention_call *call)
{
    for (int i = 0; i < call->groups; i++)
        if (call->group[i].position == MN__POSITION_SHAW)
            return true;
    return false;
}

bool MN__KERNEL(attention_open)(mn__flash *flash, mn__queue *queue, const mn__attention_call *call,
                                bool backward)
{
    bool bf16 = call->dtype == MN__BF16 && HAVE_BF16_TILES && !(backward && needs_floats(call));
    *flash = (struct mn__flash){.call = call,
                                .bf16 = bf16,
                                .width = round_up(call->D, bf16 ? 32 : 16),
                                .panels = (call->D + PANEL - 1) / PANEL,
                                .tiles = (call->T + ROWS - 1) / ROWS,
                                .size = bf16 ? 2 : 4};
    for (int i = 0; i < call->groups; i++)
        if (!open_group(flash, queue, i, backward))
            return false;
    for (int i = 0; i < call->groups; i++) {
        flash->group[i].unit = flash->units;
        flash->units += mn__dropout_units(call->group[i].count);
    }
    mn__arena_mark mark = mn__arena_mark_now(&queue->scratch);
    char *scratch =
        mn__queue_scratch(queue, omp_get_max_threads() * PANEL * flash->width * flash->size);
    if (!scratch)
        return false;
    for (int i = 0; i < call->groups; i++) {
        packed_group *packed = &flash->group[i];
        pack_group(flash, i, scratch);
        if (packed->relative.entries)
            pack_distances(flash, &call->group[i], &packed->relative, scratch);
        if (packed->shaw_values.entries)
            pack_distances(flash, &call->group[i], &packed->shaw_values, scratch);
        if (packed->by_distance)
            fill_by_distance(flash, i);
    }
    mn__arena_release(&queue->scratch, mark);
    return true;
}
