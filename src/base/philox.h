/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as
 * easy as 1, 2, 3", section 3.3), one counter, to be inlined into loops over many:
 * ten rounds of
 *     (L0, R0, L1, R1) -> (hi(M1 L1) ^ R0 ^ k0, lo(M1 L1), hi(M0 L0) ^ R1 ^ k1, lo(M0 L0))
 * with k0, k1 raised by the Weyl constants W0, W1 between rounds.
 * Not for secrets. */
#ifndef MN__BASE_PHILOX_H
#define MN__BASE_PHILOX_H

#include "base/random.h"

/* Four words for counter `index`, each `stride` apart. The counter is index, step,
 * operation; the key is the seed. The upper half of `step`, which no run reaches,
 * has no place of its own and goes into the key. */
static inline __attribute__((always_inline)) void mn__philox(mn__random_key key, uint64_t index,
                                                             uint32_t *out, int64_t stride)
{
    const uint32_t m0 = 0xD2511F53, m1 = 0xCD9E8D57, w0 = 0x9E3779B9, w1 = 0xBB67AE85;
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32);
    uint32_t c2 = (uint32_t)key.step, c3 = key.operation;
    uint32_t k0 = (uint32_t)key.seed, k1 = (uint32_t)(key.seed >> 32) ^ (uint32_t)(key.step >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)m0 * c0, p1 = (uint64_t)m1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += w0;
        k1 += w1;
    }
    out[0] = c0;
    out[stride] = c1;
    out[2 * stride] = c2;
    out[3 * stride] = c3;
}

#endif
