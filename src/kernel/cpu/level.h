/* Names of one CPU level. Each file of this folder is compiled once per level,
 * with MN__LEVEL=v3 (say) and MN__LEVEL_v3=1; MN__KERNEL(x) is then mn__v3_x. */
#ifndef MN__KERNEL_CPU_LEVEL_H
#define MN__KERNEL_CPU_LEVEL_H

#include "kernel/kernel.h"

#define MN__PASTE(level, name)       mn__##level##_##name
#define MN__PASTE_LEVEL(level, name) MN__PASTE(level, name)
#define MN__KERNEL(name)             MN__PASTE_LEVEL(MN__LEVEL, name)

/* Each file puts its kernels into the level's table. */
void MN__KERNEL(fill)(mn__kernels *kernels); /* all of them: table.c */
void MN__KERNEL(fill_attention)(mn__kernels *kernels);
void MN__KERNEL(fill_attention_backward)(mn__kernels *kernels);
void MN__KERNEL(fill_matmul)(mn__kernels *kernels);
void MN__KERNEL(fill_elementwise)(mn__kernels *kernels);
void MN__KERNEL(fill_kept)(mn__kernels *kernels);
void MN__KERNEL(fill_activation)(mn__kernels *kernels);
void MN__KERNEL(fill_norm)(mn__kernels *kernels);
void MN__KERNEL(fill_rows)(mn__kernels *kernels);
void MN__KERNEL(fill_gathered)(mn__kernels *kernels);
void MN__KERNEL(fill_nearest)(mn__kernels *kernels);
void MN__KERNEL(fill_training)(mn__kernels *kernels);

#endif
