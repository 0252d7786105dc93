/* Dropout of attention weights as defined in kernel.h: a factor as a function of the key
 * and of where the weight stands, whichever kernel asks, in whatever order. */
#include <math.h>

#include "kernel/kernel.h"

enum { VALUES = 1 << 16, BLOCKS = 16, WORDS = 4 };

int32_t mn__dropout_below(float rate)
{
    return (int32_t)lroundf(rate * VALUES);
}

float mn__dropout_scale(float rate)
{
    return (float)VALUES / (float)(VALUES - mn__dropout_below(rate));
}

int64_t mn__dropout_units(int64_t keys)
{
    return (keys + MN__DROPOUT_UNIT - 1) / MN__DROPOUT_UNIT;
}

float mn__dropout_factor(const mn__weight_dropout *dropout, int64_t unit, int64_t key)
{
    if (dropout->rate == 0)
        return 1;
    unit += key / MN__DROPOUT_UNIT;
    int64_t block = unit * BLOCKS + key % BLOCKS, half = key % MN__DROPOUT_UNIT / BLOCKS;
    uint32_t words[WORDS];
    mn__random_block(dropout->key, (uint64_t)block, words);
    uint32_t bits = (words[half % WORDS] >> (half < WORDS ? 0 : 16)) & (VALUES - 1);
    bool dropped = (int32_t)bits < mn__dropout_below(dropout->rate);
    return dropped ? 0 : mn__dropout_scale(dropout->rate);
}
