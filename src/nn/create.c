/* Adding a layer's parameters by name. */
#include "nn/create.h"

#include <stdio.h>

mn_status mn__create(mn__param **param, mn__params *params, const char *prefix, const char *name,
                     int rank, const int64_t *size, mn__init init, mn_error *error)
{
    char full[160];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    *param = mn__params_add(params, full, rank, size, init);
    if (!*param)
        return mn__fail(error, MN_ERROR_MEMORY, "use a smaller model", "no memory for %s", full);
    return MN_OK;
}
