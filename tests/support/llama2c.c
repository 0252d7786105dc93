/* Small checkpoints of llama2.c, and its run.c in double precision. */
#include "support/llama2c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

enum {
    C = LLAMA2C_WIDTH,
    F = LLAMA2C_HIDDEN,
    L = LLAMA2C_LAYERS,
    H = LLAMA2C_HEADS,
    G = LLAMA2C_KV_HEADS,
    D = C / H,
    V = LLAMA2C_VOCABULARY,
    T = LLAMA2C_CONTEXT
};

typedef struct weights {
    float embedding[V][C], attention_norm[L][C], query[L][C][C], key[L][G * D][C],
        value[L][G * D][C], out[L][C][C], feed_forward_norm[L][C], gate[L][F][C], down[L][C][F],
        up[L][F][C], norm[C], head[V][C];
} weights;

/* ---- Weights ------------------------------------------------------------------------------- */

/* Uniform in mean +- deviation. */
static void draw(float *values, int64_t count, uint32_t seed, uint32_t tensor, float mean,
                 float deviation)
{
    mn__random_key key = {.seed = seed, .operation = tensor};
    for (int64_t i = 0; i < count; i++)
        values[i] = mean + deviation * ((float)mn__random_below(key, (uint64_t)i, 2001) / 1000 - 1);
}

/* To what version 2 keeps: for each group a scale and int8. */
static void round_groups(float *values, int64_t count, FILE *file)
{
    static signed char q[V * C];
    static float scales[V * C / LLAMA2C_GROUP];
    for (int64_t g = 0; g < count / LLAMA2C_GROUP; g++) {
        float *group = values + g * LLAMA2C_GROUP, most = 0;
        for (int i = 0; i < LLAMA2C_GROUP; i++)
            most = fmaxf(most, fabsf(group[i]));
        scales[g] = most / 127;
        for (int i = 0; i < LLAMA2C_GROUP; i++) {
            q[g * LLAMA2C_GROUP + i] = (signed char)lrintf(group[i] / scales[g]);
            group[i] = (float)q[g * LLAMA2C_GROUP + i] * scales[g];
        }
    }
    if (file) {
        fwrite(q, 1, (size_t)count, file);
        fwrite(scales, sizeof *scales, (size_t)(count / LLAMA2C_GROUP), file);
    }
}

#define EACH_VECTOR(X) X(attention_norm, L) X(feed_forward_norm, L) X(norm, 1)
#define EACH_MATRIX(X) \
    X(embedding, 1) X(query, L) X(key, L) X(value, L) X(out, L) X(gate, L) X(down, L) X(up, L)

static weights *draw_weights(int version, bool tied, uint32_t seed)
{
    weights *w = malloc(sizeof *w);
    uint32_t tensor = 0;
    assert_non_null(w);
#define DRAW_VECTOR(name, times) \
    draw((float *)w->name, sizeof w->name / 4, seed, tensor++, 1, 0.3F);
#define DRAW_MATRIX(name, times) \
    draw((float *)w->name, sizeof w->name / 4, seed, tensor++, 0, 0.7F);
    EACH_VECTOR(DRAW_VECTOR)
    EACH_MATRIX(DRAW_MATRIX)
    DRAW_MATRIX(head, 1)
#define ROUND(name, times) round_groups((float *)w->name, sizeof w->name / 4, NULL);
    if (version == 2) {
        EACH_MATRIX(ROUND)
        ROUND(head, 1)
    }
    if (tied)
        memcpy(w->head, w->embedding, sizeof w->head);
    return w;
}

static void put(FILE *file, const void *values, size_t bytes)
{
    assert_int_equal(fwrite(values, 1, bytes, file), bytes);
}

#define PUT(name) put(file, w->name, sizeof w->name)

static void write_legacy(FILE *file, const weights *w, bool tied)
{
    const int32_t header[7] = {C, F, L, H, G, tied ? V : -V, T};
    static const float angles[T * D];
    put(file, header, sizeof header);
    PUT(embedding), PUT(attention_norm), PUT(query), PUT(key), PUT(value), PUT(out);
    PUT(feed_forward_norm), PUT(gate), PUT(down), PUT(up), PUT(norm);
    put(file, angles, sizeof angles);
    if (!tied)
        PUT(head);
}

static void write_header(FILE *file, int version, bool tied)
{
    static const char zeros[256];
    const int32_t header[9] = {0x616b3432, version, C, F, L, H, G, V, T};
    const int32_t group = LLAMA2C_GROUP;
    put(file, header, sizeof header);
    fputc(tied, file);
    if (version == 2)
        put(file, &group, sizeof group);
    put(file, zeros, 256 - (size_t)ftell(file));
}

static void write_groups(FILE *file, const weights *w, bool tied)
{
    weights *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, w, sizeof *copy);
#define PUT_GROUPS(name, times)                                                 \
    for (size_t i = 0; i < (times); i++)                                        \
        round_groups((float *)copy->name + i * sizeof copy->name / 4 / (times), \
                     (int64_t)(sizeof copy->name / 4 / (times)), file);
    EACH_MATRIX(PUT_GROUPS)
    if (!tied) {
        PUT_GROUPS(head, 1)
    }
    free(copy);
}

void llama2c_write(const char *path, int version, bool tied, uint32_t seed)
{
    weights *w = draw_weights(version == 2 ? 0 : version, tied, seed);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    if (version == 0)
        write_legacy(file, w, tied);
    else
        write_header(file, version, tied);
#define PUT_PLAIN(name, times) PUT(name);
    if (version) {
        EACH_VECTOR(PUT_PLAIN)
    }
    if (version == 2)
        write_groups(file, w, tied);
    if (version == 1) {
        EACH_MATRIX(PUT_PLAIN)
        if (!tied)
            PUT(head);
    }
    assert_int_equal(fclose(file), 0);
    free(w);
}

/* ---- The runner ------------------------------------------------------------------------------ */

static void rms(const double *x, const float *gain, double *out)
{
    double sum = 0;
    for (int i = 0; i < C; i++)
        sum += x[i] * x[i];
    for (int i = 0; i < C; i++)
        out[i] = x[i] / sqrt(sum / C + 1e-5) * (double)gain[i];
}

static void multiply(const float *w, const double *x, int64_t rows, int64_t columns, double *out)
{
    for (int64_t r = 0; r < rows; r++) {
        out[r] = 0;
        for (int64_t c = 0; c < columns; c++)
            out[r] += (double)w[r * columns + c] * x[c];
    }
}

/* Neighbours turn together. */
static void turn(double *x, int heads, int64_t position)
{
    for (int i = 0; i < heads * D; i += 2) {
        double angle = (double)position * pow(10000, -(double)(i % D) / D);
        double a = x[i], b = x[i + 1];
        x[i] = a * cos(angle) - b * sin(angle);
        x[i + 1] = a * sin(angle) + b * cos(angle);
    }
}

static void attend(const double *query, double keys[T][G * D], double values[T][G * D], int64_t n,
                   double *out)
{
    for (int h = 0; h < H; h++) {
        double weight[T], sum = 0;
        int g = h / (H / G);
        for (int64_t t = 0; t < n; t++) {
            double score = 0;
            for (int d = 0; d < D; d++)
                score += query[h * D + d] * keys[t][g * D + d];
            sum += weight[t] = exp(score / sqrt(D));
        }
        for (int d = 0; d < D; d++) {
            out[h * D + d] = 0;
            for (int64_t t = 0; t < n; t++)
                out[h * D + d] += weight[t] / sum * values[t][g * D + d];
        }
    }
}

static void feed_forward(const weights *w, int l, const double *x, double *out)
{
    double gate[F], up[F];
    multiply(w->gate[l][0], x, F, C, gate);
    multiply(w->up[l][0], x, F, C, up);
    for (int i = 0; i < F; i++)
        gate[i] *= up[i] / (1 + exp(-gate[i]));
    multiply(w->down[l][0], gate, C, F, out);
}

void llama2c_logits(int version, bool tied, uint32_t seed, const int32_t *ids, int64_t n,
                    float *logits)
{
    static double keys[L][T][G * D], values[L][T][G * D];
    weights *w = draw_weights(version, tied, seed);
    assert_true(n <= T);
    for (int64_t t = 0; t < n; t++) {
        double x[C], normed[C], query[C], mixed[C], added[C], out[V];
        for (int i = 0; i < C; i++)
            x[i] = (double)w->embedding[ids[t]][i];
        for (int l = 0; l < L; l++) {
            rms(x, w->attention_norm[l], normed);
            multiply(w->query[l][0], normed, C, C, query);
            multiply(w->key[l][0], normed, G * D, C, keys[l][t]);
            multiply(w->value[l][0], normed, G * D, C, values[l][t]);
            turn(query, H, t);
            turn(keys[l][t], G, t);
            attend(query, keys[l], values[l], t + 1, mixed);
            multiply(w->out[l][0], mixed, C, C, added);
            for (int i = 0; i < C; i++)
                x[i] += added[i];
            rms(x, w->feed_forward_norm[l], normed);
            feed_forward(w, l, normed, added);
            for (int i = 0; i < C; i++)
                x[i] += added[i];
        }
        rms(x, w->norm, normed);
        multiply(w->head[0], normed, V, C, out);
        for (int i = 0; i < V; i++)
            logits[t * V + i] = (float)out[i];
    }
    free(w);
}

/* ---- Its tokenizer -----------------------------------------------------------------------------
 */

/* After the bytes: the alphabet of what is encoded in tests, and joins of equal and of falling
 * scores. */
static const struct {
    const char *text;
    float score;
} tokens[V - 259] = {{" a", -1},        {"ab", -2},  {" ab", -3},  {"ba", -4},
                     {"aba", -5},       {" ", -90},  {"a", -91},   {"b", -92},
                     {"\xC3\xA9", -93}, {"\n", -94}, {"bb", -2.5F}};

static const char *token_text(int id)
{
    static const char *const specials[] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    static char byte[8];
    snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)(id - 3) & 0xFFU);
    return id < 3 ? specials[id] : id < 259 ? byte : tokens[id - 259].text;
}

void llama2c_write_tokenizer(const char *path)
{
    FILE *file = fopen(path, "wb");
    const int32_t longest = 8;
    assert_non_null(file);
    put(file, &longest, sizeof longest);
    for (int i = 0; i < V; i++) {
        float score = i < 259 ? 0 : tokens[i - 259].score;
        const int32_t bytes = (int32_t)strlen(token_text(i));
        put(file, &score, sizeof score);
        put(file, &bytes, sizeof bytes);
        put(file, token_text(i), (size_t)bytes);
    }
    assert_int_equal(fclose(file), 0);
}

static int find_token(const char *text, size_t bytes)
{
    for (int i = 259; i < V; i++)
        if (strlen(token_text(i)) == bytes && !memcmp(token_text(i), text, bytes))
            return i;
    return -1;
}

/* The best pair, from the left; -1: none. */
static int64_t best_pair(const int32_t *ids, int64_t count, int32_t *joined)
{
    float best = -1e10F;
    int64_t at = -1;
    for (int64_t i = 1; i + 1 < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "%s", token_text(ids[i]));
        strcat(text, token_text(ids[i + 1]));
        int id = find_token(text, strlen(text));
        if (id >= 0 && tokens[id - 259].score > best) {
            best = tokens[id - 259].score;
            *joined = id;
            at = i;
        }
    }
    return at;
}

int64_t llama2c_encode(const char *text, int32_t *ids)
{
    int64_t count = 0, at;
    int32_t joined;
    ids[count++] = 1;
    if (*text)
        ids[count++] = find_token(" ", 1);
    for (size_t bytes; *text; text += bytes) {
        bytes = 1;
        while (((unsigned char)text[bytes] & 0xC0) == 0x80 && bytes < 4)
            bytes++;
        int id = find_token(text, bytes);
        if (id >= 0)
            ids[count++] = id;
        for (size_t i = 0; id < 0 && i < bytes; i++)
            ids[count++] = (unsigned char)text[i] + 3;
    }
    while ((at = best_pair(ids, count, &joined)) >= 0) {
        ids[at] = joined;
        memmove(ids + at + 1, ids + at + 2, (size_t)(count - at - 2) * sizeof *ids);
        count--;
    }
    return count;
}
