/* The table of one CPU level: what every file of this folder offers. */
#include "kernel/cpu/level.h"

void MN__KERNEL(fill)(mn__kernels *kernels)
{
    MN__KERNEL(fill_attention)(kernels);
    MN__KERNEL(fill_attention_backward)(kernels);
    MN__KERNEL(fill_matmul)(kernels);
    MN__KERNEL(fill_elementwise)(kernels);
    MN__KERNEL(fill_kept)(kernels);
    MN__KERNEL(fill_activation)(kernels);
    MN__KERNEL(fill_norm)(kernels);
    MN__KERNEL(fill_rows)(kernels);
    MN__KERNEL(fill_gathered)(kernels);
    MN__KERNEL(fill_nearest)(kernels);
    MN__KERNEL(fill_training)(kernels);
}
