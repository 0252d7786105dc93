/* A linear layer. */
#include "nn/linear.h"

#include "nn/create.h"

mn_status mn__linear_create(mn__linear *linear, mn__params *params, const char *prefix, int64_t in,
                            int64_t out, bool bias, float deviation, mn_error *error)
{
    *linear = (mn__linear){0};
    mn_status status =
        mn__create_read(&linear->weight, params, prefix, "weight", (int64_t[]){out, in},
                        (mn__init){MN__INIT_NORMAL, 0.0f, deviation}, MN__READERS_PRODUCTS, error);
    if (status != MN_OK || !bias)
        return status;
    return mn__create(&linear->bias, params, prefix, "bias", 1, &out,
                      (mn__init){.kind = MN__INIT_ZERO}, error);
}

mn__var *mn__linear_forward(const mn__linear *linear, mn__tape *tape, mn__var *x,
                            mn__activation activation)
{
    return mn__op_linear(tape, x, mn__tape_weight(tape, linear->weight),
                         mn__tape_param(tape, linear->bias), activation);
}
