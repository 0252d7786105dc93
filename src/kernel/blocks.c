/* Numbers into quantised blocks of 4 bits. */
#include "kernel/blocks.h"

#include <math.h>

/* The number furthest from 0 becomes -8: there are eight steps on its side. */
mn__block_int4 mn__block_int4_of(const float x[MN__BLOCK])
{
    mn__block_int4 block;
    float furthest = 0;
    for (int i = 0; i < MN__BLOCK; i++)
        furthest = fabsf(x[i]) > fabsf(furthest) ? x[i] : furthest;
    float scale = furthest / -8, inverse = scale != 0 ? 1 / scale : 0;
    block.scale = mn__f32_to_f16(scale);
    for (int i = 0; i < MN__BLOCK / 2; i++) {
        int both = 0;
        for (int half = 0; half < 2; half++) {
            float q = x[i + half * MN__BLOCK / 2] * inverse + 8.5f;
            int whole = q >= 15 ? 15 : q > 0 ? (int)q : 0;
            both |= whole << (4 * half);
        }
        block.q[i] = (uint8_t)both;
    }
    return block;
}
