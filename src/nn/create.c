/* Adding a layer's parameters by name. */
#include "nn/create.h"

#include <stdio.h>

static mn_status create(mn__param **param, mn__params *params, const char *prefix, const char *name,
                        int rank, const int64_t *size, mn__init init, int readers, mn_error *error)
{
    char full[160];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    *param = mn__params_add_read(params, full, rank, size, init, readers);
    if (!*param)
        return mn__fail(error, MN_ERROR_MEMORY, "use a smaller model", "no memory for %s", full);
    return MN_OK;
}

mn_status mn__create(mn__param **param, mn__params *params, const char *prefix, const char *name,
                     int rank, const int64_t *size, mn__init init, mn_error *error)
{
    return create(param, params, prefix, name, rank, size, init, MN__READERS_ANY, error);
}

mn_status mn__create_read(mn__param **param, mn__params *params, const char *prefix,
                          const char *name, const int64_t size[2], mn__init init, int readers,
                          mn_error *error)
{
    return create(param, params, prefix, name, 2, size, init, readers, error);
}
