/* Adafactor (Shazeer and Stern 2018, arXiv 1804.04235, algorithms 4 and 5), in the
 * form of Tensor2Tensor, which the Routing, Memorizing and Block-Recurrent
 * Transformers were trained with. At update t, with beta = 1 - t^-0.8:
 *
 *   matrices  R = beta R + (1 - beta) mean_columns(G^2 + e1), C likewise over rows,
 *             V[i,j] = R[i] C[j] / mean(R)
 *   else      V = beta V + (1 - beta) (G^2 + e1)
 *   U = G / sqrt(V);  U /= max(1, RMS(U));  step = rate max(e2, RMS(X)) U
 *   X -= step, or with momentum M = mu M + (1 - mu) step, X -= M
 *
 * e1 = 1e-30, e2 = 1e-3. Sums are in double and in a fixed order: per row, or per
 * block of columns, then over the rows. */
#include <math.h>

#include "optim/optimizer.h"

static const double E1 = 1e-30, E2 = 1e-3;
enum { COLUMN_BLOCK = 256 };

/* One parameter as a matrix [rows, columns]. */
struct update {
    int64_t rows, columns;
    float *value;
    const float *gradient;
    float scale; /* of the gradient */
    float *first, *second;
    float *row_scale, *column_scale; /* factored: 1 / sqrt(V) = row_scale column_scale */
    double *sums;                    /* [rows] */
    bool factored;
};

static double sum(const double *x, int64_t n)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += x[i];
    return total;
}

/* sums[r] = the sum of squares of row r of x times scale. */
static void square_rows(const struct update *u, const float *x, double scale)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < u->rows; r++) {
        const float *row = x + r * u->columns;
        double total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t c = 0; c < u->columns; c++)
            total += (double)row[c] * (double)row[c];
        u->sums[r] = total * scale * scale;
    }
}

static void square_columns(const struct update *u, float *columns, double beta)
{
    double scale = (double)u->scale, n = (double)u->rows;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < u->columns; first += COLUMN_BLOCK) {
        int64_t count = u->columns - first < COLUMN_BLOCK ? u->columns - first : COLUMN_BLOCK;
        double total[COLUMN_BLOCK] = {0};
        for (int64_t r = 0; r < u->rows; r++) {
            const float *row = u->gradient + r * u->columns + first;
#pragma omp simd
            for (int64_t c = 0; c < count; c++)
                total[c] += (double)row[c] * (double)row[c];
        }
        for (int64_t c = 0; c < count; c++) {
            double mean = total[c] * scale * scale / n + E1;
            columns[first + c] = (float)(beta * (double)columns[first + c] + (1 - beta) * mean);
        }
    }
}

/* Renews R and C and what 1 / sqrt(V) is the product of. */
static void factor(const struct update *u, mn__moments *moments, double beta)
{
    square_rows(u, u->gradient, (double)u->scale);
    double mean = 0;
    for (int64_t r = 0; r < u->rows; r++) {
        double square = u->sums[r] / (double)u->columns + E1;
        double next = beta * (double)moments->rows[r] + (1 - beta) * square;
        moments->rows[r] = (float)next;
        mean += next / (double)u->rows;
    }
    square_columns(u, moments->columns, beta);
    for (int64_t r = 0; r < u->rows; r++)
        u->row_scale[r] = (float)sqrt(mean / (double)moments->rows[r]);
    for (int64_t c = 0; c < u->columns; c++)
        u->column_scale[c] = (float)(1 / sqrt((double)moments->columns[c]));
}

static void average_squares(const struct update *u, double beta)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < u->rows * u->columns; i++) {
        double g = (double)u->gradient[i] * (double)u->scale;
        u->second[i] = (float)(beta * (double)u->second[i] + (1 - beta) * (g * g + E1));
    }
}

/* One element of U, before clipping. */
static inline float direction(const struct update *u, int64_t r, int64_t c)
{
    float g = u->gradient[r * u->columns + c] * u->scale;
    return u->factored ? g * (u->row_scale[r] * u->column_scale[c])
                       : g / sqrtf(u->second[r * u->columns + c]);
}

static double direction_rms(const struct update *u)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < u->rows; r++) {
        double total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t c = 0; c < u->columns; c++) {
            double x = (double)direction(u, r, c);
            total += x * x;
        }
        u->sums[r] = total;
    }
    return sqrt(sum(u->sums, u->rows) / (double)(u->rows * u->columns));
}

static void apply(const struct update *u, float step, float momentum)
{
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < u->rows; r++)
        for (int64_t c = 0; c < u->columns; c++) {
            int64_t i = r * u->columns + c;
            float change = step * direction(u, r, c);
            if (u->first)
                u->first[i] = change = momentum * u->first[i] + (1 - momentum) * change;
            u->value[i] -= change;
        }
}

void mn__adafactor_update(mn__optimizer *optimizer, mn__param *param, mn__moments *moments,
                          double rate, double gradient_scale)
{
    mn__device *device = optimizer->params->device;
    mn__matrix all = mn__tensor_matrix(&param->value, 0);
    if (device->counting) {
        device->counted.bytes += 24.0 * (double)all.rows * (double)all.columns;
        return;
    }
    struct update u = {.rows = all.rows,
                       .columns = all.columns,
                       .value = all.data,
                       .gradient = param->gradient,
                       .scale = (float)gradient_scale,
                       .first = moments->first,
                       .second = moments->second,
                       .row_scale = optimizer->row_scale,
                       .column_scale = optimizer->column_scale,
                       .sums = optimizer->scratch,
                       .factored = moments->rows != NULL};
    double beta = 1 - pow((double)optimizer->updates, -optimizer->options.decay_power);
    if (u.factored)
        factor(&u, moments, beta);
    else
        average_squares(&u, beta);
    double clip = fmax(1.0, direction_rms(&u));
    square_rows(&u, u.value, 1.0);
    double size = sqrt(sum(u.sums, u.rows) / (double)(u.rows * u.columns));
    apply(&u, (float)(rate * fmax(E2, size) / clip), (float)optimizer->options.momentum);
}
