/* A norm over the model's width. */
#include "nn/norm.h"

#include "nn/create.h"

mn_status mn__norm_create(mn__norm *norm, mn__params *params, const char *prefix,
                          mn__norm_kind kind, int64_t width, float epsilon, mn_error *error)
{
    *norm = (mn__norm){.kind = kind, .epsilon = epsilon};
    mn_status status = mn__create(&norm->gain, params, prefix, "gain", 1, &width,
                                  (mn__init){MN__INIT_CONSTANT, 1.0f, 0.0f}, error);
    if (status != MN_OK || kind == MN__NORM_RMS)
        return status;
    return mn__create(&norm->bias, params, prefix, "bias", 1, &width,
                      (mn__init){.kind = MN__INIT_ZERO}, error);
}

mn__var *mn__norm_forward(const mn__norm *norm, mn__tape *tape, mn__var *x, mn__dtype out)
{
    return mn__op_norm(tape, norm->kind, x, mn__tape_param(tape, norm->gain),
                       mn__tape_param(tape, norm->bias), norm->epsilon, out);
}
