/* Rotary positions, rows by id, and the largest of each row, as defined.
 *
 * RoPE (Su et al. 2021): (x, y) -> magnitude (x cos - y sin, x sin + y cos) for
 * the angle sign * position * frequency. */
#include "kernel/plain.h"

#include <math.h>

static void rope_head(mn__matrix out, mn__matrix in, int64_t row, int64_t start, int64_t pairs,
                      double position, const float *frequencies, bool interleaved, double magnitude)
{
    for (int64_t pair = 0; pair < pairs; pair++) {
        int64_t first = start + (interleaved ? 2 * pair : pair);
        int64_t second = interleaved ? first + 1 : first + pairs;
        double angle = position * (double)frequencies[pair];
        double x = (double)mn__get(in, row, first), y = (double)mn__get(in, row, second);
        mn__set(out, row, first, magnitude * (x * cos(angle) - y * sin(angle)));
        mn__set(out, row, second, magnitude * (x * sin(angle) + y * cos(angle)));
    }
}

static void rope(mn__queue *queue, mn__matrix out, mn__matrix in, int64_t heads, int64_t pairs,
                 const int64_t *positions, const float *frequencies, bool interleaved,
                 float magnitude, float sign)
{
    (void)queue;
    int64_t width = out.columns / heads;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t h = 0; h < heads; h++) {
            rope_head(out, in, r, h * width, pairs, (double)sign * (double)positions[r],
                      frequencies, interleaved, (double)magnitude);
            for (int64_t c = h * width + 2 * pairs; c < (h + 1) * width; c++)
                mn__set(out, r, c, (double)mn__get(in, r, c));
        }
}

static void gather(mn__queue *queue, mn__matrix out, mn__matrix table, const int32_t *ids,
                   float scale)
{
    (void)queue;
    for (int64_t r = 0; r < out.rows; r++)
        for (int64_t c = 0; c < out.columns; c++)
            mn__set(out, r, c,
                    ids[r] < 0 ? 0.0 : (double)scale * (double)mn__get(table, ids[r], c));
}

static void scatter_add(mn__queue *queue, mn__matrix table, mn__matrix in, const int32_t *ids,
                        float scale)
{
    (void)queue;
    for (int64_t r = 0; r < in.rows; r++)
        for (int64_t c = 0; c < in.columns && ids[r] >= 0; c++)
            mn__set(table, ids[r], c,
                    (double)mn__get(table, ids[r], c) + (double)scale * (double)mn__get(in, r, c));
}

/* Descending by value, ascending by index; NaN stands before every number. */
static bool stands_before(double value, double other)
{
    return isnan(other) ? false : isnan(value) || value > other;
}

static void top_k(mn__queue *queue, int64_t k, float *values, int32_t *indices, mn__matrix in)
{
    (void)queue;
    for (int64_t r = 0; r < in.rows; r++)
        for (int64_t c = 0; c < in.columns; c++) {
            double value = (double)mn__get(in, r, c);
            int64_t rank = 0;
            for (int64_t other = 0; other < in.columns; other++) {
                double rival = (double)mn__get(in, r, other);
                rank += stands_before(rival, value) || (other < c && !stands_before(value, rival));
            }
            if (rank < k) {
                values[r * k + rank] = (float)value;
                indices[r * k + rank] = (int32_t)c;
            }
        }
}

void mn__plain_fill_rows(mn__kernels *kernels)
{
    kernels->rope = rope;
    kernels->gather = gather;
    kernels->scatter_add = scatter_add;
    kernels->top_k = top_k;
}
