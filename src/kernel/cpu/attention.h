/* What the files of the fast attention share.
 *
 * Flash attention (Dao et al. 2022, 2023): a tile of ROWS queries meets the
 * keys tile by tile; scores live in one tile only, and the softmax is corrected
 * as larger scores appear. Scores are kept in units of log 2, so that exp is
 * exp2. Everything but the tiles' products is float; the products are float or,
 * for bf16 data on levels with bf16 products, bf16 with float sums. Where a
 * level has no bf16 product, bf16 data is widened when it is packed.
 *
 * Packed form ("panels"): a matrix b[k, n] that stands on the right of a product
 * is cut into panels of 32 columns; float: [n / 32][k][32]; bf16: pairs of rows
 * interleaved, [n / 32][k / 2][32][2]. Either way element (k, n) of a panel
 * starts at k * 32, when k is even.
 *
 *   attention_tile.c      the products of tiles
 *   attention_pack.c      keys, values and position rows into panels
 *   attention_score.c     the scores of one tile: visibility, masks, position terms
 *   attention_dropout.c   the factors that dropout gives to the weights of a tile
 *   attention_forward.c   the online softmax
 *   attention_few.c       the same for a few queries: nothing is packed
 *   attention_backward.c  gradients */
#ifndef MN__KERNEL_CPU_ATTENTION_H
#define MN__KERNEL_CPU_ATTENTION_H

#include "kernel/cpu/level.h"

enum {
    ROWS = 96,  /* queries of a tile: a multiple of 32 */
    PANEL = 32, /* columns of a panel */
    KEYS = 128, /* keys of a tile: a multiple of 32 */
    ROW_UNIT = 4,
    BLOCK_ROWS = 32 /* no product takes more rows of weights at a time */
};

#if defined(__AMX_BF16__)
#define MN__AMX_TILES 1
enum { BF16_ROW_UNIT = 32 };
#else
enum { BF16_ROW_UNIT = 4 };
#endif
#if defined(__AVX512BF16__)
#define MN__BF16_TILES 1
enum { HAVE_BF16_TILES = 1 };
#else
enum { HAVE_BF16_TILES = 0 };
#endif

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t clip(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Rows of a head lie far apart: each would wait for memory by itself. */
static inline void fetch_row(const void *row, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)row + at);
}

/* ---- Products of tiles ------------------------------------------------------------ */

/* What need not be multiplied: weights (query i, key j) with j > i + diagonal and, of a
 * band > 0, those with j <= i + diagonal - band. */
typedef enum skipping {
    SKIP_NOTHING,
    SKIP_SCORES,        /* c are scores [i, j]: those may keep what they hold */
    SKIP_WEIGHTS,       /* a are weights [i, j]: those are zero */
    SKIP_TURNED_WEIGHTS /* a are weights [j, i]: those are zero; float products only */
} skipping;

/* c[m, n] (+)= a[m, k] b[k, n]: c's columns are contiguous, a has strides, b is
 * in panels `b_panel` elements apart. m is a multiple of ROW_UNIT (bf16:
 * BF16_ROW_UNIT), n of 16 (bf16: 32). */
typedef struct tile_product {
    float *c;
    int64_t c_row;
    const void *a;
    int64_t a_row, a_k; /* bf16: a_k is 1 */
    const void *b;
    int64_t b_panel;
    int64_t m, n, k; /* bf16: k is a multiple of 32 */
    bool accumulate;
    skipping skip;
    int64_t diagonal, band;
} tile_product;

void MN__KERNEL(tile_f32)(const tile_product *product);
void MN__KERNEL(tile_bf16)(const tile_product *product);
/* Around the tile_bf16 calls of one thread. */
void MN__KERNEL(tile_begin)(bool bf16);
void MN__KERNEL(tile_end)(bool bf16);

/* ---- A call, packed --------------------------------------------------------------- */

/* Rows by distance: XL's r and Shaw's keys and values. Column c of a tile whose
 * first query and key are t0 and j0 is the entry entry_of(t0, j0) + c; score
 * (i, j) of the tile is at c = ROWS - 1 - i + j, distances fall with c. */
typedef struct distance_rows {
    const void *source; /* row clip(distance, low, high) - low, [rows, heads, D] */
    mn__dtype dtype;
    int64_t low, high, heads; /* heads: H, or 1 where all share */
    int64_t entries;          /* a multiple of 32 */
    void *columns;            /* [heads][entries / 32][width][32]: for products with queries */
    void *rows;               /* [heads][width / 32][entries][32]: with weights; or NULL */
} distance_rows;

typedef struct packed_group {
    int64_t padded;                 /* count rounded up to KEYS */
    void *keys;                     /* [B, G][padded / 32][width][32]: k = width */
    void *values;                   /* [B, G][panels][padded][32]: k = padded */
    void *key_rows, *value_columns; /* backward: the same, turned; else NULL */
    distance_rows relative;         /* XL, Shaw keys; entries 0: none */
    distance_rows shaw_values;
    float *by_distance; /* ALiBi, T5: [H][entries], in units of log 2, scales[h] included */
    int64_t entries;    /* of by_distance and the distance_rows */
    int64_t unit;       /* dropout's units before this group */
} packed_group;

typedef struct mn__flash {
    const mn__attention_call *call;
    bool bf16;      /* the tiles' products are */
    int64_t width;  /* D rounded up to 16, bf16 and few queries: 32 */
    int64_t panels; /* of `width` columns */
    int64_t tiles;  /* of queries: T / ROWS rounded up */
    int64_t size;   /* bytes of a packed element */
    int64_t units;  /* dropout's, of a query */
    packed_group group[MN__GROUPS_MAX];
} mn__flash;

/* Packs the call's keys, values and position rows into the queue's scratch;
 * false when memory is short. */
bool MN__KERNEL(attention_open)(mn__flash *flash, mn__queue *queue, const mn__attention_call *call,
                                bool backward);

/* The panels of (b, g) in one of packed_group's four arrays, from row or column
 * `at` on. */
void *MN__KERNEL(attention_panels)(const mn__flash *flash, void *packed, int64_t padded, int64_t bg,
                                   int64_t at, bool columns);

/* to[i, d] = (from[i, d] + add[d]) * factor for i < n, zero up to `rows` and
 * `width`: float, or bf16 where flash->bf16. */
void MN__KERNEL(attention_rows)(const mn__flash *flash, void *to, const void *from, int64_t stride,
                                int64_t n, int64_t rows, const float *add, float factor);

/* The same of n keys or values (group i's array with its strides) from (b, j, g) on, as they
 * are kept. */
void MN__KERNEL(attention_kept_rows)(const mn__flash *flash, int i, void *to, const void *data,
                                     const int64_t stride[3], int64_t b, int64_t j, int64_t g,
                                     int64_t n, int64_t rows);

/* Whether key j is there for some query of row b. */
bool MN__KERNEL(attention_key_present)(const mn__key_group *group, int64_t b, int64_t j);
/* Whether all of the keys j.. are. */
bool MN__KERNEL(attention_keys_present)(const mn__key_group *group, int64_t b, int64_t j,
                                        int64_t n);

/* Whether the n keys or values j.. are all there and lie as products take them, `apart` bytes
 * from each other: in the packed form's type and width, in whole words. */
bool MN__KERNEL(attention_in_form)(const mn__flash *flash, int i, const void *rows, int64_t apart,
                                   int64_t b, int64_t j, int64_t n);

/* ALiBi's or T5's term, as it is added to scores in units of log 2. */
float MN__KERNEL(attention_distance_bias)(const mn__attention_call *call, int i, int64_t distance,
                                          int64_t h);

/* to[d] (+)= from[d] * factor for d < D. */
void MN__KERNEL(attention_write_row)(void *to, mn__dtype dtype, bool accumulate, const float *from,
                                     float factor, int64_t D);

/* to[c, r] = from[r, c], floats or other words of 32 bits; rows and columns are
 * multiples of 16. */
void MN__KERNEL(attention_turn)(void *to, int64_t to_row, const void *from, int64_t from_row,
                                int64_t rows, int64_t columns);

/* ---- The scores of a tile ----------------------------------------------------------- */

/* The keys of group i that query t of row b sees: in first <= j < *end, but for those
 * that `keep` and segments hide. */
void MN__KERNEL(query_range)(const mn__attention_call *call, int i, int64_t b, int64_t t,
                             int64_t *first, int64_t *end);
/* Those of its n scores of the keys j0.. that are hidden become -inf. */
void MN__KERNEL(mask_scores)(const mn__attention_call *call, int i, int64_t b, int64_t t,
                             int64_t j0, int64_t n, float *scores);

/* A tile of queries, and what a thread needs to compute its scores. */
typedef struct query_tile {
    const mn__flash *flash;
    int64_t b, h, g, t0, n;   /* n <= ROWS queries are there */
    int64_t m;                /* n rounded up to the products' rows */
    float factor;             /* scores are products * factor (* 1 where it is in the queries) */
    void *content, *position; /* [ROWS][width]: the queries of q . k, and of q . r */
    float *scores;            /* [ROWS][KEYS] */
    int64_t end;              /* keys from here on are hidden from all of the tile */
    float *skewed;            /* [ROWS][ROWS + KEYS]: q . r by distance */
    int64_t skewed_j0;        /* of the key tile that `skewed` stands for, or -1 */
    int i;                    /* the group of content and position */
} query_tile;

int64_t MN__KERNEL(query_tile_bytes)(const mn__flash *flash);
void MN__KERNEL(query_tile_init)(query_tile *tile, const mn__flash *flash, void *scratch);
/* The queries t0.. of (b, h). False where none is valid. */
bool MN__KERNEL(query_tile_set)(query_tile *tile, int64_t b, int64_t h, int64_t t0);
/* Prepares for group i; key tiles first, first + KEYS, .. < *end may be visible, and
 * first is a multiple of PANEL. */
void MN__KERNEL(query_tile_group)(query_tile *tile, int i, int64_t *first, int64_t *end);
/* The scores of the keys j0.., for increasing j0: -inf where masked. Returns the
 * factor (> 0) that is still to be applied. */
float MN__KERNEL(query_tile_scores)(query_tile *tile, int64_t j0);
/* How many of the keys j0.. are to be multiplied, rounded up to PANEL: the scores
 * beyond are -inf. */
int64_t MN__KERNEL(query_tile_keys)(const query_tile *tile, int64_t j0);
/* Query i of the tile sees no key j > i + diagonal of those from j0 on, and none with
 * j <= i + diagonal - band where that is not 0. */
int64_t MN__KERNEL(query_tile_diagonal)(const query_tile *tile, int64_t j0);
int64_t MN__KERNEL(query_tile_band)(const query_tile *tile);
/* Of n keys j0.., the `first` <= j < `end`, multiples of PANEL, that may bear weight in
 * the products that take query i. */
typedef struct key_range {
    int64_t first, end;
} key_range;
key_range MN__KERNEL(query_tile_range)(int64_t diagonal, int64_t band, int64_t i, int64_t n);
/* The entry of column 0, see distance_rows. */
int64_t MN__KERNEL(entry_of)(const query_tile *tile, int64_t j0);

/* ---- Dropout ----------------------------------------------------------------------------- */

static inline bool drops_weights(const mn__flash *flash)
{
    return flash->call->dropout.rate > 0;
}

/* Those of one unit. */
void MN__KERNEL(unit_factors)(const mn__weight_dropout *dropout, int64_t unit,
                              float factors[MN__DROPOUT_UNIT]);
/* Those of the weights of the tile's query i and the keys j0..j0 + KEYS - 1. */
void MN__KERNEL(attention_factors)(const query_tile *tile, int64_t i, int64_t j0,
                                   float factors[KEYS]);

/* ---- Outputs ------------------------------------------------------------------------- */

/* out[b, t, h] = from[D] * scale (0: whatever stands there), and its lse. */
void MN__KERNEL(attention_write)(const mn__attention_call *call, int64_t b, int64_t t, int64_t h,
                                 const float *from, float scale, float lse);

/* ---- A few queries ------------------------------------------------------------------- */

/* Whether attention_few is the way: few queries, no masses, no Shaw's positions, no
 * dropout. */
bool MN__KERNEL(attention_is_few)(const mn__attention_call *call);
void MN__KERNEL(attention_few)(mn__queue *queue, const mn__attention_call *call);

#endif
