/* The scores of one tile of queries and keys, in units of log 2: what is visible,
 * masks, position terms.
 *
 * A tile in which every score counts and nothing is added to it costs its
 * products only. Otherwise a second pass adds ALiBi's, T5's and the keys' biases
 * and writes -inf where a mask hides.
 *
 * Transformer-XL (Dai et al. 2019, section 3.3) and Shaw's keys: the product of
 * the queries with the rows of all distances that occur in the tile,
 *     skewed[i, c] = (q_i + v) . r[distance of column c],
 * is read at a skew, score[i, j] += skewed[i, ROWS - 1 - i + j]. The next tile of
 * keys shares all but KEYS of its distances with this one: those columns move
 * over, so that each is computed once. */
#include "kernel/cpu/attention.h"

#include <math.h>
#include <string.h>

enum { SPAN = ROWS + KEYS }; /* columns of `skewed` */

/* ---- The tile of queries ----------------------------------------------------------- */

/* Every array starts at a multiple of 64 bytes: ROWS and KEYS are of 16. */
int64_t MN__KERNEL(query_tile_bytes)(const mn__flash *flash)
{
    return 2 * ROWS * flash->width * flash->size +
           (ROWS * KEYS + ROWS * SPAN) * (int64_t)sizeof(float);
}

void MN__KERNEL(query_tile_init)(query_tile *tile, const mn__flash *flash, void *scratch)
{
    char *at = scratch;
    int64_t bytes = ROWS * flash->width * flash->size;
    *tile = (query_tile){.flash = flash, .content = at, .position = at + bytes};
    tile->scores = (float *)(at + 2 * bytes);
    tile->skewed = tile->scores + ROWS * KEYS;
    memset(scratch, 0, (size_t)MN__KERNEL(query_tile_bytes)(flash));
}

bool MN__KERNEL(query_tile_set)(query_tile *tile, int64_t b, int64_t h, int64_t t0)
{
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    int64_t valid = call->queries_valid ? smaller(call->queries_valid[b], call->T) : call->T;
    int64_t unit = flash->bf16 ? BF16_ROW_UNIT : ROW_UNIT;
    tile->b = b;
    tile->h = h;
    tile->g = h * call->G / call->H;
    tile->t0 = t0;
    tile->n = larger(0, smaller(ROWS, valid - t0));
    tile->m = (tile->n + unit - 1) / unit * unit;
    return tile->n > 0;
}

/* The keys that a query at `position` sees by the mask's distances: first..end - 1. */
static void masked_range(const mn__key_group *group, int64_t position, int64_t *first, int64_t *end)
{
    switch (group->mask) {
    case MN__MASK_NONE:
        break;
    case MN__MASK_CAUSAL:
    case MN__MASK_SEGMENTED:
        *end = smaller(*end, position + 1);
        break;
    case MN__MASK_STRICT:
        *end = smaller(*end, position);
        break;
    case MN__MASK_BAND:
        *end = smaller(*end, position + 1);
        *first = larger(*first, position - group->window + 1);
        break;
    case MN__MASK_BAND_STRICT:
        *end = smaller(*end, position);
        *first = larger(*first, position - group->window);
        break;
    }
}

static void present_range(const mn__key_group *group, int64_t b, int64_t *first, int64_t *end)
{
    *first = group->first ? larger(0, group->first[b]) : 0;
    *end = group->length ? smaller(group->count, group->length[b]) : group->count;
}

void MN__KERNEL(query_range)(const mn__attention_call *call, int i, int64_t b, int64_t t,
                             int64_t *first, int64_t *end)
{
    const mn__key_group *group = &call->group[i];
    present_range(group, b, first, end);
    masked_range(group, group->offset + t, first, end);
}

static void hide(float *scores, int64_t from, int64_t to)
{
    for (int64_t j = from; j < to; j++)
        scores[j] = -INFINITY;
}

void MN__KERNEL(mask_scores)(const mn__attention_call *call, int i, int64_t b, int64_t t,
                             int64_t j0, int64_t n, float *scores)
{
    const mn__key_group *group = &call->group[i];
    int64_t first, end;
    MN__KERNEL(query_range)(call, i, b, t, &first, &end);
    first = larger(0, smaller(n, first - j0));
    end = larger(first, smaller(n, end - j0));
    hide(scores, 0, first);
    hide(scores, end, n);
    if (group->keep)
        for (int64_t j = first; j < end; j++)
            if (!group->keep[b * group->count + j0 + j])
                scores[j] = -INFINITY;
    if (group->mask == MN__MASK_SEGMENTED) {
        int32_t segment = group->query_segment[b * call->T + t];
        for (int64_t j = first; j < end; j++)
            if (group->key_segment[b * group->count + j0 + j] != segment)
                scores[j] = -INFINITY;
    }
}

void MN__KERNEL(query_tile_group)(query_tile *tile, int i, int64_t *first, int64_t *end)
{
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    const mn__key_group *group = &call->group[i];
    const char *queries = (const char *)call->queries +
                          (tile->b * call->query_stride[0] + tile->t0 * call->query_stride[1] +
                           tile->h * call->query_stride[2]) *
                              mn__dtype_bytes(call->dtype);
    bool xl = group->position == MN__POSITION_XL;
    const float *u = xl && group->u ? group->u + tile->h * call->D : NULL;
    const float *v = xl && group->v ? group->v + tile->h * call->D : NULL;
    float factor = call->scale * (call->scales ? call->scales[tile->h] : 1) * (float)M_LOG2E;
    tile->i = i;
    tile->skewed_j0 = -1;
    tile->factor = flash->bf16 ? factor : 1;
    float folded = flash->bf16 ? 1 : factor;
    MN__KERNEL(attention_rows)
    (flash, tile->content, queries, call->query_stride[1], tile->n, tile->m, u, folded);
    if (flash->group[i].relative.entries)
        MN__KERNEL(attention_rows)
    (flash, tile->position, queries, call->query_stride[1], tile->n, tile->m, v, folded);
    int64_t last_first = 0, first_end = group->count;
    present_range(group, tile->b, first, end);
    masked_range(group, group->offset + tile->t0, first, &first_end);
    masked_range(group, group->offset + tile->t0 + tile->n - 1, &last_first, end);
    *first -= *first % PANEL;
    tile->end = *end;
}

int64_t MN__KERNEL(query_tile_keys)(const query_tile *tile, int64_t j0)
{
    return smaller(KEYS, (tile->end - j0 + PANEL - 1) / PANEL * PANEL);
}

int64_t MN__KERNEL(query_tile_diagonal)(const query_tile *tile, int64_t j0)
{
    const mn__key_group *group = &tile->flash->call->group[tile->i];
    bool strict = group->mask == MN__MASK_STRICT || group->mask == MN__MASK_BAND_STRICT;
    if (group->mask == MN__MASK_NONE)
        return ROWS + KEYS;
    return group->offset + tile->t0 - j0 - strict;
}

int64_t MN__KERNEL(query_tile_band)(const query_tile *tile)
{
    const mn__key_group *group = &tile->flash->call->group[tile->i];
    bool band = group->mask == MN__MASK_BAND || group->mask == MN__MASK_BAND_STRICT;
    return band ? group->window : 0;
}

/* A product's block has the weights of up to BLOCK_ROWS queries, of which i may be the
 * first or the last. */
key_range MN__KERNEL(query_tile_range)(int64_t diagonal, int64_t band, int64_t i, int64_t n)
{
    int64_t end = (i + diagonal + BLOCK_ROWS + PANEL - 1) / PANEL * PANEL;
    int64_t first = i - BLOCK_ROWS + 1 + diagonal - band + 1;
    key_range range = {band ? clip(first, 0, n) / PANEL * PANEL : 0, clip(end, 0, n)};
    return range;
}

/* ---- Position terms --------------------------------------------------------------------- */

int64_t MN__KERNEL(entry_of)(const query_tile *tile, int64_t j0)
{
    return tile->flash->tiles * ROWS - ROWS - tile->t0 + j0;
}

static void multiply(const mn__flash *flash, const tile_product *product)
{
    if (flash->bf16)
        MN__KERNEL(tile_bf16)(product);
    else
        MN__KERNEL(tile_f32)(product);
}

/* skewed[:, c..] for the distances of the columns c.. */
static void compute_skewed(query_tile *tile, int64_t j0, int64_t c)
{
    const mn__flash *flash = tile->flash;
    const distance_rows *relative = &flash->group[tile->i].relative;
    int64_t h = relative->heads == 1 ? 0 : tile->h;
    multiply(flash,
             &(tile_product){
                 .c = tile->skewed + c,
                 .c_row = SPAN,
                 .a = tile->position,
                 .a_row = flash->width,
                 .a_k = 1,
                 .b = MN__KERNEL(attention_panels)(flash, relative->columns, relative->entries, h,
                                                   MN__KERNEL(entry_of)(tile, j0) + c, true),
                 .b_panel = flash->width * PANEL,
                 .m = tile->m,
                 .n = SPAN - c,
                 .k = flash->width,
             });
}

/* scores = skewed, read at a skew. */
static void put_position_scores(query_tile *tile, int64_t j0)
{
    if (tile->skewed_j0 >= 0 && tile->skewed_j0 == j0 - KEYS) {
        for (int64_t i = 0; i < tile->m; i++)
            memmove(tile->skewed + i * SPAN, tile->skewed + i * SPAN + KEYS, ROWS * sizeof(float));
        compute_skewed(tile, j0, ROWS);
    } else {
        compute_skewed(tile, j0, 0);
    }
    tile->skewed_j0 = j0;
    for (int64_t i = 0; i < tile->m; i++)
        memcpy(tile->scores + i * KEYS, tile->skewed + i * SPAN + ROWS - 1 - i,
               KEYS * sizeof(float));
}

/* ---- Biases and masks -------------------------------------------------------------------- */

/* Whether every score of the tile is visible, by ranges alone. */
static bool is_whole(const query_tile *tile, int64_t j0)
{
    const mn__key_group *group = &tile->flash->call->group[tile->i];
    int64_t first, end;
    present_range(group, tile->b, &first, &end);
    masked_range(group, group->offset + tile->t0, &first, &end);
    masked_range(group, group->offset + tile->t0 + tile->n - 1, &first, &end);
    return first <= j0 && j0 + KEYS <= end;
}

static void add_biases(const query_tile *tile, int64_t i, int64_t j0, float factor, float *scores)
{
    const mn__key_group *group = &tile->flash->call->group[tile->i];
    const packed_group *packed = &tile->flash->group[tile->i];
    for (int64_t j = 0; j < KEYS; j++)
        scores[j] *= factor;
    if (packed->by_distance) {
        const float *y = packed->by_distance + tile->h * packed->entries +
                         MN__KERNEL(entry_of)(tile, j0) + ROWS - 1 - i;
        for (int64_t j = 0; j < KEYS; j++)
            scores[j] += y[j];
    }
    if (group->bias) {
        const float *bias =
            group->bias + tile->b * group->bias_stride[0] + tile->g * group->bias_stride[1] + j0;
        int64_t n = smaller(KEYS, group->count - j0);
        for (int64_t j = 0; j < n; j++)
            scores[j] += bias[j] * (float)M_LOG2E;
    }
}

float MN__KERNEL(query_tile_scores)(query_tile *tile, int64_t j0)
{
    const mn__flash *flash = tile->flash;
    const mn__key_group *group = &flash->call->group[tile->i];
    const packed_group *packed = &flash->group[tile->i];
    bool relative = packed->relative.entries != 0;
    if (relative)
        put_position_scores(tile, j0);
    multiply(flash,
             &(tile_product){
                 .c = tile->scores,
                 .c_row = KEYS,
                 .a = tile->content,
                 .a_row = flash->width,
                 .a_k = 1,
                 .b = MN__KERNEL(attention_panels)(flash, packed->keys, packed->padded,
                                                   tile->b * flash->call->G + tile->g, j0, true),
                 .b_panel = flash->width * PANEL,
                 .m = tile->m,
                 .n = MN__KERNEL(query_tile_keys)(tile, j0),
                 .k = flash->width,
                 .accumulate = relative,
                 .skip = SKIP_SCORES,
                 .diagonal = MN__KERNEL(query_tile_diagonal)(tile, j0),
                 .band = MN__KERNEL(query_tile_band)(tile),
             });
    bool biased = packed->by_distance || group->bias || !(tile->factor > 0);
    bool masked = group->keep || group->mask == MN__MASK_SEGMENTED || !is_whole(tile, j0);
    if (!biased && !masked)
        return tile->factor;
    for (int64_t i = 0; i < tile->n; i++) {
        if (biased)
            add_biases(tile, i, j0, tile->factor, tile->scores + i * KEYS);
        if (masked)
            MN__KERNEL(mask_scores)
        (flash->call, tile->i, tile->b, tile->t0 + i, j0, KEYS, tile->scores + i * KEYS);
    }
    return biased ? 1 : tile->factor;
}
