/* Dropout's factors for the weights of a tile, defined in kernel.h and made for these
 * loops: a tile has as many keys as a unit, block c of which gives the keys c + 16 n, so
 * that 16 blocks side by side give vectors of factors in the order of the keys. */
#include "base/philox.h"
#include "kernel/cpu/attention.h"

#include <string.h>

enum { BLOCKS = 16, WORDS = 4 };
_Static_assert((int)KEYS == (int)MN__DROPOUT_UNIT, "a tile's keys are of two units at most");

/* mn__random_block for BLOCKS counters from `first`: the n-th words of all blocks
 * stand side by side. */
static void random_words(mn__random_key key, uint64_t first, uint32_t words[WORDS][BLOCKS])
{
#pragma omp simd
    for (int b = 0; b < BLOCKS; b++)
        mn__philox(key, first + (uint64_t)b, &words[0][b], BLOCKS);
}

void MN__KERNEL(unit_factors)(const mn__weight_dropout *dropout, int64_t unit,
                              float factors[MN__DROPOUT_UNIT])
{
    const int32_t below = mn__dropout_below(dropout->rate);
    const float scale = mn__dropout_scale(dropout->rate);
    uint32_t words[WORDS][BLOCKS];
    random_words(dropout->key, (uint64_t)unit * BLOCKS, words);
    for (int n = 0; n < WORDS; n++) {
        float *lower = factors + n * BLOCKS, *upper = lower + WORDS * BLOCKS;
#pragma omp simd
        for (int b = 0; b < BLOCKS; b++) {
            lower[b] = (int32_t)(words[n][b] & 0xFFFF) < below ? 0.0F : scale;
            upper[b] = (int32_t)(words[n][b] >> 16) < below ? 0.0F : scale;
        }
    }
}

void MN__KERNEL(attention_factors)(const query_tile *tile, int64_t i, int64_t j0,
                                   float factors[KEYS])
{
    const mn__flash *flash = tile->flash;
    const mn__attention_call *call = flash->call;
    int64_t query = (tile->b * call->H + tile->h) * call->T + tile->t0 + i;
    int64_t unit = query * flash->units + flash->group[tile->i].unit + j0 / KEYS;
    int64_t before = j0 % KEYS; /* the tile begins in the midst of a unit */
    float of_unit[KEYS];
    MN__KERNEL(unit_factors)(&call->dropout, unit, before ? of_unit : factors);
    if (before == 0)
        return;
    memcpy(factors, of_unit + before, (size_t)(KEYS - before) * sizeof *factors);
    MN__KERNEL(unit_factors)(&call->dropout, unit + 1, of_unit);
    memcpy(factors + KEYS - before, of_unit, (size_t)before * sizeof *factors);
}
