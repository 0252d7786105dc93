/* Functions of one float without branches, so that loops over them vectorise.
 *
 * Largest errors, with and without fused multiply-add (tests/kernel/test_math.c
 * holds them to these):
 *   mn__exp      2 ulp on [-87.3, 87.3]; 0 below, infinity above 88.37; NaN stays
 *   mn__sigmoid  4 ulp on [-80, 80]
 *   mn__tanh     4e-7 absolute (a rational function, as in Eigen)
 *   mn__erf      5e-7 absolute (the same) */
#ifndef MN__KERNEL_CPU_MATH_H
#define MN__KERNEL_CPU_MATH_H

#include <stdint.h>
#include <string.h>

static inline float mn__float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t mn__bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* exp(x) = 2^n exp(r), |r| <= ln(2) / 2; adding 1.5 * 2^23 rounds to the integer n
 * and leaves it in the low bits. The polynomial is Cephes' expf. */
static inline float mn__exp(float x)
{
    const float round = 12582912.0F, log2e = 1.44269504F;
    const float ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
    float in = x > 88.37F ? 88.37F : x;
    in = in < -87.33F ? -87.33F : in;
    float shifted = in * log2e + round, n = shifted - round;
    float r = in - n * ln2_high - n * ln2_low;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    float value = p * mn__float_of_bits((mn__bits_of_float(shifted) << 23) + 0x3f800000U);
    value = x < -87.33F ? 0.0F : value;
    return x > 88.37F ? mn__float_of_bits(0x7f800000U) : value;
}

static inline float mn__sigmoid(float x)
{
    return 1.0F / (1.0F + mn__exp(-x));
}

static inline float mn__tanh(float x)
{
    float in = x > 7.9F ? 7.9F : x;
    in = in < -7.9F ? -7.9F : in;
    float s = in * in;
    float p = -2.76076847742355e-16F;
    p = p * s + 2.00018790482477e-13F;
    p = p * s - 8.60467152213735e-11F;
    p = p * s + 5.12229709037114e-08F;
    p = p * s + 1.48572235717979e-05F;
    p = p * s + 6.37261928875436e-04F;
    p = p * s + 4.89352455891786e-03F;
    float q = 1.19825839466702e-06F;
    q = q * s + 1.18534705686654e-04F;
    q = q * s + 2.26843463243900e-03F;
    q = q * s + 4.89352518554385e-03F;
    return in * p / q;
}

static inline float mn__erf(float x)
{
    float in = x > 4.0F ? 4.0F : x;
    in = in < -4.0F ? -4.0F : in;
    float s = in * in;
    float p = -2.72614225801306e-10F;
    p = p * s + 2.77068142495902e-08F;
    p = p * s - 2.10102402082508e-06F;
    p = p * s - 5.69250639462346e-05F;
    p = p * s - 7.34990630326855e-04F;
    p = p * s - 2.95459980854025e-03F;
    p = p * s - 1.60960333262415e-02F;
    float q = -1.45660718464996e-05F;
    q = q * s - 2.13374055278905e-04F;
    q = q * s - 1.68282697438203e-03F;
    q = q * s - 7.37332916720468e-03F;
    q = q * s - 1.42647390514189e-02F;
    return in * p / q;
}

#endif
