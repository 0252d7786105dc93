/* Dropout's factors for the weights of a tile, defined in kernel.h and made for these
 * loops: a tile's keys are one unit, block c of which gives the keys c + 16 n, so that
 * 16 blocks side by side give vectors of factors in the order of the keys. */
#include "kernel/cpu/attention.h"

enum { BLOCKS = 16, WORDS = 4 };
_Static_assert((int)KEYS == (int)MN__DROPOUT_UNIT, "a tile of keys is one of dropout's units");

/* mn__random_block for BLOCKS counters from `first`, a multiple of BLOCKS: the n-th words
 * of all blocks stand side by side. See base/random.c. */
static void random_words(mn__random_key key, uint64_t first, uint32_t words[WORDS][BLOCKS])
{
    const uint32_t m0 = 0xD2511F53, m1 = 0xCD9E8D57, w0 = 0x9E3779B9, w1 = 0xBB67AE85;
    const uint32_t low = (uint32_t)first, high = (uint32_t)(first >> 32);
#pragma omp simd
    for (int b = 0; b < BLOCKS; b++) {
        uint32_t c0 = low + (uint32_t)b, c1 = high;
        uint32_t c2 = (uint32_t)key.step, c3 = key.operation;
        uint32_t k0 = (uint32_t)key.seed;
        uint32_t k1 = (uint32_t)(key.seed >> 32) ^ (uint32_t)(key.step >> 32);
        _Pragma("GCC unroll 10") for (int round = 0; round < 10; round++)
        {
            uint64_t p0 = (uint64_t)m0 * c0, p1 = (uint64_t)m1 * c2;
            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)p0;
            k0 += w0;
            k1 += w1;
        }
        words[0][b] = c0;
        words[1][b] = c1;
        words[2][b] = c2;
        words[3][b] = c3;
    }
}

void MN__KERNEL(attention_factors)(const query_tile *tile, int64_t i, int64_t j0,
                                   float factors[KEYS])
{
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    const int32_t below = mn__dropout_below(call->dropout.rate);
    const float scale = mn__dropout_scale(call->dropout.rate);
    int64_t query = (tile->b * call->H + tile->h) * call->T + tile->t0 + i;
    int64_t unit = query * flash->units + flash->group[tile->i].unit + j0 / KEYS;
    uint32_t words[WORDS][BLOCKS];
    random_words(call->dropout.key, (uint64_t)unit * BLOCKS, words);
    for (int n = 0; n < WORDS; n++) {
        float *lower = factors + n * BLOCKS, *upper = lower + WORDS * BLOCKS;
#pragma omp simd
        for (int b = 0; b < BLOCKS; b++) {
            lower[b] = (int32_t)(words[n][b] & 0xFFFF) < below ? 0.0F : scale;
            upper[b] = (int32_t)(words[n][b] >> 16) < below ? 0.0F : scale;
        }
    }
}
