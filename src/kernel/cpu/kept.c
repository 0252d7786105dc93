/* Keys and values into the blocks of 8 bits that they are kept in. */
#include "kernel/cpu/kept.h"

#include "kernel/cpu/chunk.h"

static void quantise_row(mn__block_int8 *to, const void *from, mn__dtype dtype, int64_t n)
{
    for (int64_t c = 0; c < n; c += MN__BLOCK, to++) {
        float x[MN__BLOCK] = {0};
        mn__kept_widen(x, (const char *)from + c * mn__dtype_bytes(dtype), dtype,
                       n - c < MN__BLOCK ? n - c : MN__BLOCK);
        *to = mn__block_int8_of(x);
    }
}

static void quantise(mn__queue *queue, mn__matrix out, mn__matrix in)
{
    (void)queue;
#pragma omp parallel for schedule(static) if (mn__is_large(in))
    for (int64_t r = 0; r < in.rows; r++)
        quantise_row((mn__block_int8 *)(void *)((char *)out.data + r * out.stride),
                     (const char *)in.data + r * in.stride * mn__dtype_bytes(in.dtype), in.dtype,
                     in.columns);
}

void MN__KERNEL(fill_kept)(mn__kernels *kernels)
{
    kernels->quantise = quantise;
}
