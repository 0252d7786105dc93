/* Packing of the operands of matrix products.
 *
 * A sliver holds, for each k, `width` lines (rows of a, columns of b) side by
 * side; bf16 goes in pairs (k, k + 1), moved as 32-bit words. Lines that lie
 * side by side in memory are copied; lines along memory are transposed in
 * registers; what is left at the edges goes one by one. */
#include "kernel/cpu/pack.h"

#include "kernel/cpu/vector.h"

enum { ROWS = MN__LANES == 16 ? 14 : 6, COLUMNS = 2 * MN__LANES };

/* The lines of an operand: element l of line i lies at i * across + l * along. */
typedef struct lines {
    const void *data;
    mn__dtype dtype;
    int64_t across, along;
} lines;

static inline const void *line_at(const lines *x, int64_t i, int64_t l)
{
    int64_t offset = i * x->across + l * x->along;
    return (const char *)x->data + offset * (x->dtype == MN__F32 ? 4 : 2);
}

static inline float value_at(const lines *x, int64_t i, int64_t l)
{
    const void *at = line_at(x, i, l);
    return x->dtype == MN__F32 ? *(const float *)at : mn__bf16_to_f32(*(const mn__bf16 *)at);
}

/* ---- f32 ----------------------------------------------------------------------- */

/* MN__LANES values of one line, from l on, or at one l, of the lines from i on. */
static inline mn__words values_at(const lines *x, int64_t i, int64_t l)
{
    const void *at = line_at(x, i, l);
    return x->dtype == MN__F32 ? *(const mn__words *)at : mn__words_of_halves(at) << 16;
}

/* Of lines that lie side by side: what the same sliver reads next, k further on. */
static inline __attribute__((always_inline)) void fetch_after(const lines *x, int64_t width,
                                                              int64_t l, int64_t k)
{
    for (int64_t i = 0; i < width; i += MN__LANES)
        __builtin_prefetch(line_at(x, i, l + k), 0, 2);
}

static inline __attribute__((always_inline)) void copy_f32(float *sliver, int64_t width,
                                                           const lines *x, int64_t used, int64_t k)
{
    const bool whole = x->dtype == MN__F32 && x->across == 1 && used == width;
    for (int64_t l = 0; l < k; l++)
        if (whole) { /* of a constant width: moves, no call */
            fetch_after(x, width, l, k);
            memcpy(sliver + l * width, line_at(x, 0, l), (size_t)width * sizeof *sliver);
        } else {
            for (int64_t i = 0; i < used; i++)
                sliver[l * width + i] = value_at(x, i, l);
        }
}

/* The next sliver's lines, which lie far apart: asked for while this one's are turned. */
static inline __attribute__((always_inline)) void fetch_lines(const lines *x, int64_t i, int64_t l,
                                                              int64_t width)
{
    for (int64_t n = 0; n < (width < MN__LANES ? width : MN__LANES); n++)
        __builtin_prefetch(line_at(x, i + n, l), 0, 2);
}

/* Writes whole vectors: where width < MN__LANES a row's surplus is overwritten
 * by the next, that of the last goes past the end. Returns the k done. */
static inline __attribute__((always_inline)) int64_t
transpose_f32(float *sliver, int64_t width, const lines *x, int64_t used, int64_t k)
{
    int64_t l = 0;
    for (; l + MN__LANES <= k; l += MN__LANES)
        for (int64_t first = 0; first < width; first += MN__LANES) {
            mn__words v[MN__LANES];
            fetch_lines(x, first + width, l, width - first);
            for (int i = 0; i < MN__LANES; i++)
                v[i] = first + i < used ? values_at(x, first + i, l) : (mn__words){0};
            mn__words_transpose(v);
            for (int j = 0; j < MN__LANES; j++)
                *(mn__words *)(sliver + (l + j) * width + first) = v[j];
        }
    return l;
}

static inline __attribute__((always_inline)) void pack_f32(float *sliver, int64_t width, lines x,
                                                           int64_t used, int64_t k)
{
    bool whole_vectors = width % MN__LANES == 0 || width < MN__LANES;
    int64_t done = x.across != 1 && x.along == 1 && whole_vectors
                       ? transpose_f32(sliver, width, &x, used, k)
                       : 0;
    x.data = line_at(&x, 0, done);
    sliver += done * width;
    k -= done;
    if (used < width)
        memset(sliver, 0, (size_t)(k * width) * sizeof *sliver);
    if (x.across == 1 && used == width)
        copy_f32(sliver, width, &(lines){x.data, x.dtype, 1, x.along}, width, k);
    else
        copy_f32(sliver, width, &x, used, k);
}

static inline __attribute__((always_inline)) void pack_f32_of(float *sliver, int64_t width, lines x,
                                                              int64_t used, int64_t k)
{
    if (x.across == 1) /* so that the compiler sees it */
        pack_f32(sliver, width, (lines){x.data, x.dtype, 1, x.along}, used, k);
    else
        pack_f32(sliver, width, x, used, k);
}

void MN__KERNEL(pack_a_f32)(void *sliver, mn__operand a, int64_t used, int64_t k)
{
    if (a.dtype == MN__F32)
        pack_f32_of(sliver, ROWS, (lines){a.data, MN__F32, a.row, a.column}, used, k);
    else
        pack_f32_of(sliver, ROWS, (lines){a.data, MN__BF16, a.row, a.column}, used, k);
}

void MN__KERNEL(pack_b_f32)(void *sliver, mn__operand b, int64_t used, int64_t k)
{
    if (b.dtype == MN__F32)
        pack_f32_of(sliver, COLUMNS, (lines){b.data, MN__F32, b.column, b.row}, used, k);
    else
        pack_f32_of(sliver, COLUMNS, (lines){b.data, MN__BF16, b.column, b.row}, used, k);
}

/* ---- bf16 pairs -------------------------------------------------------------------- */

#if MN__LANES == 16

static inline uint32_t bf16_at(const lines *x, int64_t i, int64_t l)
{
    return x->dtype == MN__BF16 ? *(const mn__bf16 *)line_at(x, i, l)
                                : mn__f32_to_bf16(*(const float *)line_at(x, i, l));
}

/* Pairs (k, k + 1) of lines that lie side by side, by whole vectors: where width < MN__LANES
 * a row's surplus is overwritten by the next. Returns the pairs done. */
static inline __attribute__((always_inline)) int64_t join_pairs(uint32_t *sliver, int64_t width,
                                                                const lines *x, int64_t k)
{
    const bool surplus = width % MN__LANES != 0; /* read beyond the lines: the next k must follow */
    int64_t p = 0, safe = !surplus ? k - 1 : x->along < MN__LANES ? 0 : k - 2;
    for (; 2 * p < safe; p++) {
        fetch_after(x, width, 2 * p, k);
        fetch_after(x, width, 2 * p + 1, k);
        for (int64_t first = 0; first < width; first += MN__LANES)
            *(mn__words *)(sliver + p * width + first) =
                mn__words_of_halves(line_at(x, first, 2 * p)) |
                mn__words_of_halves(line_at(x, first, 2 * p + 1)) << 16;
    }
    return p;
}

/* `pairs` of them, of which k / 2 are whole and a last one may be half. */
static inline __attribute__((always_inline)) void
copy_pairs(uint32_t *sliver, int64_t width, const lines *x, int64_t used, int64_t k)
{
    for (int64_t p = 0; p < k / 2; p++)
        for (int64_t i = 0; i < used; i++)
            sliver[p * width + i] = bf16_at(x, i, 2 * p) | bf16_at(x, i, 2 * p + 1) << 16;
    for (int64_t i = 0; i < used && k % 2; i++)
        sliver[k / 2 * width + i] = bf16_at(x, i, k - 1);
}

/* As transpose_f32, for bf16. Returns the pairs done. */
static inline __attribute__((always_inline)) int64_t
transpose_pairs(uint32_t *sliver, int64_t width, const lines *x, int64_t used, int64_t k)
{
    int64_t p = 0;
    for (; p + MN__LANES <= k / 2; p += MN__LANES)
        for (int64_t first = 0; first < width; first += MN__LANES) {
            mn__words v[MN__LANES];
            fetch_lines(x, first + width, 2 * p, width - first);
            for (int i = 0; i < MN__LANES; i++)
                v[i] = first + i < used ? *(const mn__words *)line_at(x, first + i, 2 * p)
                                        : (mn__words){0};
            mn__words_transpose(v);
            for (int j = 0; j < MN__LANES; j++)
                *(mn__words *)(sliver + (p + j) * width + first) = v[j];
        }
    return p;
}

static inline __attribute__((always_inline)) void
pack_pairs(uint32_t *sliver, int64_t width, lines x, int64_t used, int64_t k, int64_t pairs)
{
    int64_t done = 0;
    if (x.dtype == MN__BF16 && x.along == 1)
        done = transpose_pairs(sliver, width, &x, used, k);
    else if (x.dtype == MN__BF16 && x.across == 1 && used == width)
        done = join_pairs(sliver, width, &x, k);
    x.data = line_at(&x, 0, 2 * done);
    sliver += done * width;
    pairs -= done;
    k -= 2 * done;
    if (used < width || 2 * pairs != k)
        memset(sliver, 0, (size_t)(pairs * width) * sizeof *sliver);
    if (x.across == 1 && used == width)
        copy_pairs(sliver, width, &(lines){x.data, x.dtype, 1, x.along}, width, k);
    else
        copy_pairs(sliver, width, &x, used, k);
}

static int64_t pairs_of(int64_t k, int64_t step)
{
    return (k + step - 1) / step * step / 2;
}

void MN__KERNEL(pack_a_pairs)(void *sliver, mn__operand a, int64_t used, int64_t k)
{
    pack_pairs(sliver, ROWS, (lines){a.data, MN__BF16, a.row, a.column}, used, k, pairs_of(k, 2));
}

/* Padded for the 32-deep steps of AMX, which read the same form. */
void MN__KERNEL(pack_b_pairs)(void *sliver, mn__operand b, int64_t used, int64_t k)
{
    if (b.dtype == MN__BF16)
        pack_pairs(sliver, COLUMNS, (lines){b.data, MN__BF16, b.column, b.row}, used, k,
                   pairs_of(k, 32));
    else
        pack_pairs(sliver, COLUMNS, (lines){b.data, MN__F32, b.column, b.row}, used, k,
                   pairs_of(k, 32));
}

/* ---- AMX ------------------------------------------------------------------------------- */

enum { AMX_ROWS = 32, STEP = 32 };

/* 32 k of 16 lines that lie side by side: pairs are joined, then transposed. */
static inline void turn_amx(mn__bf16 *out, const mn__bf16 *in, int64_t along)
{
    mn__words v[MN__LANES];
    for (int p = 0; p < MN__LANES; p++) {
        const mn__bf16 *low = in + 2 * p * along;
        v[p] = mn__words_of_halves(low) | mn__words_of_halves(low + along) << 16;
    }
    mn__words_transpose(v);
    for (int i = 0; i < MN__LANES; i++)
        *(mn__words *)(out + i * STEP) = v[i];
}

static void pack_amx_edge(mn__bf16 *out, const lines *x, int64_t used, int64_t depth)
{
    memset(out, 0, AMX_ROWS * STEP * sizeof *out);
    for (int64_t i = 0; i < used; i++)
        for (int64_t d = 0; d < depth; d++)
            out[i * STEP + d] = *(const mn__bf16 *)line_at(x, i, d);
}

void MN__KERNEL(pack_a_amx)(void *sliver, mn__operand a, int64_t used, int64_t k)
{
    lines x = {a.data, MN__BF16, a.row, a.column};
    mn__bf16 *out = sliver;
    for (int64_t l = 0; l < k; l += STEP, out += AMX_ROWS * STEP) {
        const mn__bf16 *in = line_at(&x, 0, l);
        if (used < AMX_ROWS || k - l < STEP) {
            x.data = in;
            pack_amx_edge(out, &x, used, k - l < STEP ? k - l : STEP);
            x.data = a.data;
        } else if (x.along == 1) {
            for (int64_t i = 0; i < AMX_ROWS; i++)
                *(mn__words *)(out + i * STEP) = *(const mn__words *)(in + i * x.across);
        } else if (x.across == 1) {
            turn_amx(out, in, x.along);
            turn_amx(out + MN__LANES * STEP, in + MN__LANES, x.along);
        } else {
            x.data = in;
            pack_amx_edge(out, &x, used, STEP);
            x.data = a.data;
        }
    }
}

#endif
