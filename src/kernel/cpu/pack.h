/* Packing of the operands of matrix products; see product.h. */
#ifndef MN__KERNEL_CPU_PACK_H
#define MN__KERNEL_CPU_PACK_H

#include "kernel/cpu/level.h"

/* [k, rows] and [k, columns] floats. */
void MN__KERNEL(pack_a_f32)(void *sliver, mn__operand a, int64_t used, int64_t k);
void MN__KERNEL(pack_b_f32)(void *sliver, mn__operand b, int64_t used, int64_t k);
/* The same of bf16 pairs (k, k + 1). */
void MN__KERNEL(pack_a_pairs)(void *sliver, mn__operand a, int64_t used, int64_t k);
void MN__KERNEL(pack_b_pairs)(void *sliver, mn__operand b, int64_t used, int64_t k);
/* [k / 32, 32 rows, 32 k] bf16. */
void MN__KERNEL(pack_a_amx)(void *sliver, mn__operand a, int64_t used, int64_t k);

#endif
