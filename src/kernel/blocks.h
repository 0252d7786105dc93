/* Quantised blocks: 32 numbers that share a scale, in the layout of ggml's Q8_0 and
 * Q4_0 (ggml-common.h), so that what a GGUF file holds is taken over exactly. */
#ifndef MN__KERNEL_BLOCKS_H
#define MN__KERNEL_BLOCKS_H

#include <math.h>

#include "kernel/dtype.h"

enum { MN__BLOCK = 32 };

/* x[i] = scale * q[i], -127 <= q <= 127 */
typedef struct mn__block_int8 {
    mn__f16 scale;
    int8_t q[MN__BLOCK];
} mn__block_int8;

/* x[i] = scale * (q - 8), q the low half of byte i for i < 16, the high half of byte
 * i - 16 for the others */
typedef struct mn__block_int4 {
    mn__f16 scale;
    uint8_t q[MN__BLOCK / 2];
} mn__block_int4;

/* The nearest blocks, as ggml's reference makes them (quantize_row_q8_0_ref,
 * quantize_row_q4_0_ref). What is not finite makes a block of no meaning, one of 8 bits with a
 * scale that is not finite. */
mn__block_int4 mn__block_int4_of(const float x[MN__BLOCK]);
static inline mn__block_int8 mn__block_int8_of(const float x[MN__BLOCK])
{
    mn__block_int8 block;
    uint32_t most = 0; /* |x| as bits, in which NaN is the largest */
    for (int i = 0; i < MN__BLOCK; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, sizeof largest);
    float scale = largest / 127, inverse = scale != 0 ? 1 / scale : 0;
    block.scale = mn__f32_to_f16(scale);
    for (int i = 0; i < MN__BLOCK; i++) {
        float q = roundf(x[i] * inverse);
        block.q[i] = (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q == q ? q : 0);
    }
    return block;
}

/* Bytes of the blocks of n numbers. */
static inline int64_t mn__block_int8_bytes(int64_t n)
{
    return (n + MN__BLOCK - 1) / MN__BLOCK * (int64_t)sizeof(mn__block_int8);
}

/* Bytes of n elements of a row of keys or values that lie in a type (mn__kept_dtype): of whole
 * blocks, where these are its U8. */
static inline int64_t mn__kept_bytes(mn__dtype dtype, int64_t n)
{
    return dtype == MN__U8 ? mn__block_int8_bytes(n) : n * mn__dtype_bytes(dtype);
}

/* q of element i, -8 to 7. */
static inline int mn__block_int4_at(const mn__block_int4 *block, int i)
{
    int byte = block->q[i % (MN__BLOCK / 2)];
    return (i < MN__BLOCK / 2 ? byte & 15 : byte >> 4) - 8;
}

#endif
