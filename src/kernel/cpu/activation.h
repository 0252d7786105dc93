/* Activations on rows of floats. */
#ifndef MN__KERNEL_CPU_ACTIVATION_H
#define MN__KERNEL_CPU_ACTIVATION_H

#include "kernel/cpu/level.h"

/* x[i] = f(x[i]). */
void MN__KERNEL(activate_row)(mn__activation activation, float *x, int64_t n);

#endif
