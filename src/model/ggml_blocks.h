/* Blocks of quantised numbers as GGUF files hold them (ggml's ggml-common.h), into floats:
 * Q8_0 and Q4_0, which kernel/blocks.h has too, and the super-blocks of 256
 *
 *   Q4_K  x = d sc q - dmin m, of each 32 with a scale sc and a least value m of 6 bits
 *   Q6_K  x = d sc (q - 32),   of each 16 with a scale sc of 8 bits
 *
 * after ggml's dequantize_row_q4_K and dequantize_row_q6_K. Not here: making them. */
#ifndef MN__MODEL_GGML_BLOCKS_H
#define MN__MODEL_GGML_BLOCKS_H

#include "kernel/blocks.h"

enum { MN__SUPER_BLOCK = 256 };

typedef struct mn__block_q4_k {
    mn__f16 d, dmin;
    uint8_t scales[12]; /* eight pairs (sc, m) of 6 bits each */
    uint8_t q[MN__SUPER_BLOCK / 2];
} mn__block_q4_k;

typedef struct mn__block_q6_k {
    uint8_t low[MN__SUPER_BLOCK / 2];  /* 4 bits of each */
    uint8_t high[MN__SUPER_BLOCK / 4]; /* 2 more */
    int8_t scales[MN__SUPER_BLOCK / 16];
    mn__f16 d;
} mn__block_q6_k;

void mn__block_int8_floats(const mn__block_int8 *block, float out[MN__BLOCK]);
void mn__block_int4_floats(const mn__block_int4 *block, float out[MN__BLOCK]);
void mn__block_q4_k_floats(const mn__block_q4_k *block, float out[MN__SUPER_BLOCK]);
void mn__block_q6_k_floats(const mn__block_q6_k *block, float out[MN__SUPER_BLOCK]);

#endif
