/* Element types. */
#ifndef MN__KERNEL_DTYPE_H
#define MN__KERNEL_DTYPE_H

#include <stdint.h>
#include <string.h>

typedef enum mn__dtype { MN__F32, MN__BF16, MN__I32, MN__I64, MN__U8 } mn__dtype;

static inline int64_t mn__dtype_bytes(mn__dtype dtype)
{
    switch (dtype) {
    case MN__F32:
    case MN__I32:
        return 4;
    case MN__BF16:
        return 2;
    case MN__I64:
        return 8;
    case MN__U8:
        return 1;
    }
    return 0;
}

/* "F32", "BF16", ...: safetensors' names. */
static inline const char *mn__dtype_name(mn__dtype dtype)
{
    static const char *const names[] = {"F32", "BF16", "I32", "I64", "U8"};
    return names[dtype];
}

/* bfloat16: the upper half of a float, rounded to nearest even; NaN stays NaN. */
typedef uint16_t mn__bf16;

static inline float mn__bf16_to_f32(mn__bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline mn__bf16 mn__f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u;
    return (mn__bf16)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

/* binary16, of files and of the scales of quantised blocks: not a type of tensors. */
typedef uint16_t mn__f16;

static inline float mn__f16_to_f32(mn__f16 x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, rest = x & 0x7fffu, bits;
    if (rest >= 0x7c00u) { /* infinite, or NaN */
        bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    } else if (rest >= 0x400u) {
        bits = sign | ((rest << 13) + (112u << 23));
    } else { /* rest * 2^-24, exactly */
        float value = (float)rest * 0x1p-24f;
        return sign ? -value : value;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To nearest even; beyond the largest, infinite; NaN stays NaN. */
static inline mn__f16 mn__f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (mn__f16)(sign | 0x7e00u);
    if (rest >= 0x47800000u) /* 2^16 */
        return (mn__f16)(sign | 0x7c00u);
    if (rest < 0x38800000u) { /* below 2^-14: adding 1/2 rounds to a multiple of 2^-24 */
        float small, half = 0.5f;
        memcpy(&small, &rest, sizeof small);
        small += half;
        memcpy(&rest, &small, sizeof rest);
        return (mn__f16)(sign | (rest - 0x3f000000u));
    }
    rest += 0xfffu + ((rest >> 13) & 1u);
    return (mn__f16)(sign | ((rest - (112u << 23)) >> 13));
}

#endif
