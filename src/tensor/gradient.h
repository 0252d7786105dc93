/* Where gradients lie: the tape's own part of tape.h's gradient functions. */
#ifndef MN__TENSOR_GRADIENT_H
#define MN__TENSOR_GRADIENT_H

#include "tensor/tape.h"

/* Clears what no view has contributed to, so that all of var's gradient is
 * defined. */
void mn__gradient_complete(mn__tape *tape, mn__var *var);
/* Returns the memory of a var's gradient to the pool. */
void mn__gradient_give_back(mn__tape *tape, mn__var *var);

#endif
