/* The products of tiles: c[m, n] (+)= a[m, k] b[k, n] with b in panels.
 *
 * Float: a block of 12 x 32 (AVX-512) or 6 x 2 vectors of c stays in registers
 * while k runs; each element of a is broadcast. The panel stays in the first
 * cache over all blocks of rows. bf16: the same with pairs (VDPBF16PS), or with
 * AMX, where a block is 32 x 32. */
#include "kernel/cpu/attention.h"
#include "kernel/cpu/attention_vector.h"

#if defined(__AVX512F__)
enum { BLOCK = 12, REST = 4 }; /* rows: every multiple of 4 is some of these */
#else
enum { BLOCK = 6, REST = 2 };
#endif

#define UNROLL _Pragma("GCC unroll 16")

/* ---- What is not multiplied --------------------------------------------------------------- */

typedef struct range {
    int64_t first, end;
} range;

/* The rows, in blocks of `unit`, in which some of the n columns j.. of c count. */
static range rows_of(const tile_product *p, int64_t j, int64_t n, int64_t unit)
{
    range i = {0, p->m};
    if (p->skip != SKIP_SCORES)
        return i;
    i.first = clip(j - p->diagonal, 0, p->m) / unit * unit;
    if (p->band)
        i.end = clip((j + n - 1 + p->band - p->diagonal + unit - 1) / unit * unit, 0, p->m);
    return i;
}

/* The k, in steps of `unit`, where `rows` rows of a, from i on, may differ from zero. */
static range depth_of(const tile_product *p, int64_t i, int64_t rows, int64_t unit)
{
    range k = {0, p->k};
    if (p->skip == SKIP_WEIGHTS)
        k.end = clip((i + rows + p->diagonal + unit - 1) / unit * unit, 0, p->k);
    if (p->skip == SKIP_WEIGHTS && p->band)
        k.first = clip(i + p->diagonal - p->band + 1, 0, p->k) / unit * unit;
    if (p->skip == SKIP_TURNED_WEIGHTS)
        k.first = clip(i - p->diagonal, 0, p->k) / unit * unit;
    if (p->skip == SKIP_TURNED_WEIGHTS && p->band)
        k.end = clip((i + rows - 1 + p->band - p->diagonal + unit - 1) / unit * unit, 0, p->k);
    return k;
}

/* ---- Float -------------------------------------------------------------------------------- */

/* c[rows, vectors * LANES]; rows and vectors are known when compiled. */
static inline __attribute__((always_inline)) void block_f32(const tile_product *p, range k,
                                                            float *c, const float *a,
                                                            const float *b, const int rows,
                                                            const int vectors)
{
    int64_t c_row = p->c_row, a_row = p->a_row, a_k = p->a_k;
    vec sum[BLOCK][2];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) sum[i][j] =
        p->accumulate ? vec_load(c + i * c_row + j * LANES) : vec_set(0);
    a += k.first * a_k;
    b += k.first * PANEL;
    for (int64_t count = k.end - k.first; count > 0; count--, a += a_k, b += PANEL) {
        vec right[2];
        UNROLL for (int j = 0; j < vectors; j++) right[j] = vec_load(b + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) sum[i][j] +=
            a[i * a_row] * right[j];
    }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++)
        vec_store(c + i * c_row + j * LANES, sum[i][j]);
}

static inline __attribute__((always_inline)) void column_f32(const tile_product *p, int64_t j,
                                                             const float *b, const int vectors)
{
    const float *a = p->a;
    float *c = p->c + j;
    range counts = rows_of(p, j, vectors * LANES, REST);
    for (int64_t i = counts.first, rows; i < counts.end; i += rows) {
        rows = i + BLOCK <= counts.end ? BLOCK : REST;
        const range k = depth_of(p, i, rows, 1);
        if (rows == BLOCK)
            block_f32(p, k, c + i * p->c_row, a + i * p->a_row, b, BLOCK, vectors);
        else
            block_f32(p, k, c + i * p->c_row, a + i * p->a_row, b, REST, vectors);
    }
}

void MN__KERNEL(tile_f32)(const tile_product *p)
{
    for (int64_t j = 0; j < p->n; j += 2 * LANES) {
        const float *b = (const float *)p->b + j / PANEL * p->b_panel + j % PANEL;
        if (p->n - j >= 2 * LANES)
            column_f32(p, j, b, 2);
        else
            column_f32(p, j, b, 1);
    }
}

/* ---- bf16: AMX ------------------------------------------------------------------------- */

#if defined(MN__AMX_TILES)

#include <immintrin.h>

/* Tile registers: 0 to 3 are the sums of a 32 x 32 block, 4 and 5 hold 16 rows
 * of a each, 6 and 7 the 16 pairs of rows of b for 16 columns each. All have 16
 * rows of 64 bytes. Static: gcc 12 believes that only the first 8 bytes are read. */
static const struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_config = {.palette = 1,
                 .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                 .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

void MN__KERNEL(tile_begin)(bool bf16)
{
    if (bf16)
        _tile_loadconfig(&tile_config);
}

void MN__KERNEL(tile_end)(bool bf16)
{
    if (bf16)
        _tile_release();
}

static void block_bf16(const tile_product *p, range depth, float *c, const mn__bf16 *a,
                       const mn__bf16 *b)
{
    size_t c_bytes = (size_t)p->c_row * sizeof *c, a_bytes = (size_t)p->a_row * sizeof *a;
    enum { B_BYTES = 2 * PANEL * sizeof *b };
    float *c1 = c + 16 * p->c_row;
    if (p->accumulate) {
        _tile_loadd(0, c, c_bytes);
        _tile_loadd(1, c + 16, c_bytes);
        _tile_loadd(2, c1, c_bytes);
        _tile_loadd(3, c1 + 16, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    a += depth.first;
    b += depth.first * PANEL;
    for (int64_t k = depth.first; k < depth.end; k += 32, a += 32, b += 32 * PANEL) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, b, B_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + 32, B_BYTES);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 16 * p->a_row, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    _tile_stored(1, c + 16, c_bytes);
    _tile_stored(2, c1, c_bytes);
    _tile_stored(3, c1 + 16, c_bytes);
}

void MN__KERNEL(tile_bf16)(const tile_product *p)
{
    const mn__bf16 *a = p->a, *b = p->b;
    for (int64_t j = 0; j < p->n; j += PANEL, b += p->b_panel) {
        range counts = rows_of(p, j, PANEL, 32);
        for (int64_t i = counts.first; i < counts.end; i += 32)
            block_bf16(p, depth_of(p, i, 32, 32), p->c + i * p->c_row + j, a + i * p->a_row, b);
    }
}

#else

void MN__KERNEL(tile_begin)(bool bf16)
{
    (void)bf16;
}

void MN__KERNEL(tile_end)(bool bf16)
{
    (void)bf16;
}

/* ---- bf16: VDPBF16PS -------------------------------------------------------------------- */

#if defined(MN__BF16_TILES)

static __m512bh pairs_of(const mn__bf16 *from)
{
    __m512i bits;
    memcpy(&bits, from, sizeof bits);
    return (__m512bh)bits;
}

static __m512bh pair_of(const mn__bf16 *from)
{
    int32_t bits;
    memcpy(&bits, from, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
}

static inline __attribute__((always_inline)) void block_bf16(const tile_product *p, range depth,
                                                             float *c, const mn__bf16 *a,
                                                             const mn__bf16 *b, const int rows)
{
    vec sum[BLOCK][2];
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < 2; j++) sum[i][j] =
        p->accumulate ? vec_load(c + i * p->c_row + j * LANES) : vec_set(0);
    a += depth.first;
    b += depth.first * PANEL;
    for (int64_t k = depth.first; k < depth.end; k += 2, a += 2, b += 2 * PANEL) {
        __m512bh left = pairs_of(b), right = pairs_of(b + PANEL);
        UNROLL for (int i = 0; i < rows; i++)
        {
            __m512bh pair = pair_of(a + i * p->a_row);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], pair, left);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], pair, right);
        }
    }
    UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < 2; j++)
        vec_store(c + i * p->c_row + j * LANES, sum[i][j]);
}

void MN__KERNEL(tile_bf16)(const tile_product *p)
{
    const mn__bf16 *a = p->a, *b = p->b;
    for (int64_t j = 0; j < p->n; j += PANEL, b += p->b_panel) {
        range counts = rows_of(p, j, PANEL, REST);
        for (int64_t i = counts.first, rows; i < counts.end; i += rows) {
            float *c = p->c + i * p->c_row + j;
            rows = i + BLOCK <= counts.end ? BLOCK : REST;
            const range k = depth_of(p, i, rows, 2);
            if (rows == BLOCK)
                block_bf16(p, k, c, a + i * p->a_row, b, BLOCK);
            else
                block_bf16(p, k, c, a + i * p->a_row, b, REST);
        }
    }
}

#else

/* Never called: without bf16 products the packed form is float. */
void MN__KERNEL(tile_bf16)(const tile_product *p)
{
    (void)p;
    __builtin_unreachable();
}

#endif
#endif
