/* Random numbers made of Philox's words. */
#include "base/random.h"

#include <math.h>

#include "base/philox.h"

void mn__random_block(mn__random_key key, uint64_t index, uint32_t out[4])
{
    mn__philox(key, index, out, 1);
}

float mn__random_uniform(mn__random_key key, uint64_t index)
{
    uint32_t words[4];
    mn__random_block(key, index / 4, words);
    return (float)(words[index % 4] >> 8) * 0x1p-24F;
}

/* Box and Muller (1958): two words make two normals. */
static void normal_pair(uint32_t radius_word, uint32_t angle_word, double out[2])
{
    const double two_pi = 6.283185307179586;
    double radius = sqrt(-2 * log(((double)radius_word + 1) * 0x1p-32));
    double angle = two_pi * (double)angle_word * 0x1p-32;
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

float mn__random_normal(mn__random_key key, uint64_t index)
{
    uint32_t words[4];
    double pair[2];
    mn__random_block(key, index / 4, words);
    normal_pair(words[index & 2], words[(index & 2) + 1], pair);
    return (float)pair[index & 1];
}

__extension__ typedef unsigned __int128 wide;

/* Lemire's multiplication (2019) without the rejection: of 64 random bits, the
 * bias is below n / 2^64. */
uint64_t mn__random_below(mn__random_key key, uint64_t index, uint64_t n)
{
    uint32_t words[4];
    mn__random_block(key, index, words);
    uint64_t bits = (uint64_t)words[0] << 32 | words[1];
    return (uint64_t)((wide)bits * n >> 64);
}

void mn__random_fill_normal(mn__random_key key, float deviation, float *out, int64_t n)
{
    for (int64_t i = 0; i < n; i += 4) {
        uint32_t words[4];
        double normals[4];
        mn__random_block(key, (uint64_t)i / 4, words);
        normal_pair(words[0], words[1], normals);
        normal_pair(words[2], words[3], normals + 2);
        for (int64_t j = 0; j < 4 && i + j < n; j++)
            out[i + j] = deviation * (float)normals[j];
    }
}

void mn__random_permutation(mn__random_key key, int64_t *out, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)mn__random_below(key, (uint64_t)i, (uint64_t)i + 1);
        int64_t held = out[i];
        out[i] = out[j];
        out[j] = held;
    }
}
