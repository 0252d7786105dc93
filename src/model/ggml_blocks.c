/* ggml's blocks into floats. */
#include "model/ggml_blocks.h"

void mn__block_int8_floats(const mn__block_int8 *block, float out[MN__BLOCK])
{
    float scale = mn__f16_to_f32(block->scale);
    for (int i = 0; i < MN__BLOCK; i++)
        out[i] = scale * (float)block->q[i];
}

void mn__block_int4_floats(const mn__block_int4 *block, float out[MN__BLOCK])
{
    float scale = mn__f16_to_f32(block->scale);
    for (int i = 0; i < MN__BLOCK; i++)
        out[i] = scale * (float)mn__block_int4_at(block, i);
}

/* Scale and least value of the j-th 32: 6 bits each, those of the last four in parts. */
static void q4_k_scale(const uint8_t *s, int j, int *scale, int *least)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *least = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *least = s[j + 4] >> 4 | (s[j] >> 6) << 4;
    }
}

/* 32 bytes hold 64 numbers: the low halves first. */
void mn__block_q4_k_floats(const mn__block_q4_k *block, float out[MN__SUPER_BLOCK])
{
    float d = mn__f16_to_f32(block->d), dmin = mn__f16_to_f32(block->dmin);
    for (int j = 0; j < MN__SUPER_BLOCK / 32; j++) {
        int scale, least;
        q4_k_scale(block->scales, j, &scale, &least);
        const uint8_t *q = block->q + j / 2 * 32;
        for (int i = 0; i < 32; i++)
            out[32 * j + i] =
                d * (float)scale * (float)(j % 2 ? q[i] >> 4 : q[i] & 15) - dmin * (float)least;
    }
}

/* Of each 128 numbers, four quarters of 32 share 64 bytes of low parts and 32 of high ones. */
void mn__block_q6_k_floats(const mn__block_q6_k *block, float out[MN__SUPER_BLOCK])
{
    float d = mn__f16_to_f32(block->d);
    for (int i = 0; i < MN__SUPER_BLOCK; i++) {
        int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        int low = block->low[64 * half + 32 * (quarter % 2) + l] >> (quarter / 2 * 4) & 15;
        int high = block->high[32 * half + l] >> (2 * quarter) & 3;
        int scale = block->scales[8 * half + 2 * quarter + l / 16];
        out[i] = d * (float)scale * (float)((low | high << 4) - 32);
    }
}
