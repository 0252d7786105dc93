/* The parts of a matrix product: tiles of c, and the packing of a and b.
 *
 * Blocking after Goto and van de Geijn 2008, "Anatomy of high-performance
 * matrix multiplication". c is cut into tiles of `rows` x MN__TILE_COLUMNS. b
 * is packed as slivers of so many columns, a as slivers of `rows` rows, both
 * padded with zeros; k is padded to whole steps. */
#ifndef MN__KERNEL_CPU_PRODUCT_H
#define MN__KERNEL_CPU_PRODUCT_H

#include "kernel/cpu/level.h"
#include "kernel/cpu/vector.h"

/* Every tile is two vectors wide. */
enum { MN__TILE_ROWS_MAX = 32, MN__TILE_COLUMNS = 2 * MN__LANES };

/* Where a tile's sums go: out[r, j] = sum (+ partial[r, j]) (+ bias[j]) (+ out[r, j]). */
typedef struct mn__tile_out {
    void *out;
    mn__dtype dtype;
    int64_t out_bytes;    /* from row to row */
    const float *partial; /* or NULL */
    int64_t partial_stride;
    const float *bias; /* or NULL */
    bool add;
    /* Where the tile goes next: shortly before the last step its lines, rows `c_bytes` apart,
     * are asked for, which earlier would not outlast b's stream through L1. */
    const char *c;
    int64_t c_bytes;
} mn__tile_out;

struct mn__packed {
    int64_t k, n;
    mn__form form;
    _Alignas(64) unsigned char data[]; /* slivers, as the kind packs them, or quantised.c */
};

/* Whether products make floats of it on the way: of integers, or of f16. */
static inline bool mn__is_quantised(const mn__packed *packed)
{
    return packed && !mn__form_is_floats(packed->form);
}

/* How one dtype is multiplied at this level. */
typedef struct mn__product_kind {
    mn__dtype dtype; /* of the packed operands */
    int64_t rows;    /* of a tile */
    int64_t step;    /* the k of one step: 1; 2 (pairs); 32 (tiles) */
    int64_t depth;   /* the k of one pass, so that a sliver of a stays in L1 */
    /* A sliver of a times one of b over `steps`; `used` rows matter. With fewer than `rows`, or
     * where `sums_only`, out is a float buffer [rows, MN__TILE_COLUMNS] and nothing is added. */
    void (*tile)(int64_t used, int64_t steps, const void *a, const void *b, const mn__tile_out *to);
    bool sums_only;
    /* `used` rows and k elements of a into a sliver of whole steps; a is F32 or BF16. */
    void (*pack_a)(void *sliver, mn__operand a, int64_t used, int64_t k);
    /* k elements of `used` columns of b into a sliver. */
    void (*pack_b)(void *sliver, mn__operand b, int64_t used, int64_t k);
    void (*begin)(void), (*end)(void); /* around a thread's tiles, or NULL */
} mn__product_kind;

/* For inputs of this dtype. */
const mn__product_kind *MN__KERNEL(product_kind)(mn__dtype dtype);

/* Bias, activation and sum for n columns of c from j on; `sum` is changed. */
void MN__KERNEL(finish_product)(const mn__matmul *call, float *sum, void *c, int64_t j, int64_t n);

/* Integer forms and f16: quantised.c. Their bytes without the head, or -1; blocks of one
 * sliver of columns, from operand b, its own columns alone, or from all blocks; `depth` of its rows
 * from l on (a multiple of 32), as the kind wants them in a sliver of b. */
int64_t MN__KERNEL(quantised_bytes)(int64_t k, int64_t n, mn__form form);
void MN__KERNEL(quantise_sliver)(mn__packed *packed, int64_t sliver, mn__operand b);
void MN__KERNEL(place_sliver)(mn__packed *packed, int64_t sliver, const void *blocks);
void MN__KERNEL(unpack_sliver)(void *to, const mn__packed *packed, int64_t sliver, int64_t l,
                               int64_t depth, bool pairs);
/* sums [MN__FEW_ROWS][MN__TILE_COLUMNS] of m rows of floats, `stride` apart, with a sliver. */
void MN__KERNEL(multiply_quantised)(const mn__packed *packed, int64_t m, const float *a,
                                    int64_t stride, int64_t sliver, float *sums);

/* Products of a few rows with packed weights: matmul_few.c. */
enum { MN__FEW_ROWS = 4 };
/* a as rows of the dtype, `stride` apart, with zeros after k, and rows of zeros: to four where
 * there are three, to a multiple of eight where there are more than four. NULL when memory is
 * short. */
void *MN__KERNEL(few_rows)(mn__queue *queue, const mn__matmul *call, mn__dtype dtype,
                           int64_t stride);
bool MN__KERNEL(is_few)(const mn__matmul *call);
void MN__KERNEL(matmul_few)(mn__queue *queue, const mn__matmul *call);

/* Products of a few rows that need no packing: matmul_thin.c. */
bool MN__KERNEL(is_thin)(const mn__matmul *call);
void MN__KERNEL(matmul_thin)(mn__queue *queue, const mn__matmul *call);

#endif
