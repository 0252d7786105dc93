/* Adding a layer's parameters by name. */
#ifndef MN__NN_CREATE_H
#define MN__NN_CREATE_H

#include "tensor/param.h"

/* *param = a new parameter "prefix.name". */
mn_status mn__create(mn__param **param, mn__params *params, const char *prefix, const char *name,
                     int rank, const int64_t *size, mn__init init, mn_error *error);
/* The same for a matrix that is read in certain ways alone (mn__readers). */
mn_status mn__create_read(mn__param **param, mn__params *params, const char *prefix,
                          const char *name, const int64_t size[2], mn__init init, int readers,
                          mn_error *error);

#endif
