/* Parameters and buffers: the tensors that live as long as a model. A parameter
 * is an f32 master with a gradient; a buffer is saved with the weights but
 * never receives gradients: it moves by statistics. Products in bf16 read a copy
 * that follows the master by its version. */
#ifndef MN__TENSOR_PARAM_H
#define MN__TENSOR_PARAM_H

#include "tensor/device.h"
#include "tensor/tensor.h"

typedef struct mn__param {
    const char *name;  /* "layers.0.attention.query.weight" */
    mn__tensor value;  /* F32 */
    float *gradient;   /* as value; NULL until training is prepared, and for buffers */
    bool gradient_set; /* this update's gradient has a first contribution */
    float *statistic;  /* of buffers, as value: what this update's forward passes add up for
                          its running averages; NULL until training is prepared */
    bool buffer;
    bool decays;      /* weight decay applies: matrices, not gains and biases */
    bool starts_anew; /* a training from weights that lack it, of a model without what it
                         belongs to, begins with it as it is made */
    uint64_t version; /* counts changes of value */
    mn__tensor bf16;  /* copy for products; data NULL: none yet */
    uint64_t bf16_version;
} mn__param;

typedef struct mn__params {
    mn__device *device;
    mn__arena nodes; /* the structs and names */
    mn__store store; /* the data */
    mn__param **items;
    int64_t count, capacity;
    mn__random_key random; /* each initialisation draws from the next operation */
    bool bare;             /* new ones are not filled: all values come from a file */
} mn__params;

/* How a new parameter is filled. */
typedef enum mn__init_kind {
    MN__INIT_ZERO,
    MN__INIT_CONSTANT, /* mean */
    MN__INIT_NORMAL    /* N(mean, deviation^2) */
} mn__init_kind;
typedef struct mn__init {
    mn__init_kind kind;
    float mean, deviation;
} mn__init;

void mn__params_init(mn__params *params, mn__device *device, uint64_t seed);
void mn__params_free(mn__params *params);
/* A new parameter (or buffer), or NULL when memory is short. Names are unique:
 * asserted. A matrix decays, anything else does not. */
mn__param *mn__params_add(mn__params *params, const char *name, int rank, const int64_t *size,
                          mn__init init);
mn__param *mn__params_add_buffer(mn__params *params, const char *name, int rank,
                                 const int64_t *size, mn__init init);
mn__param *mn__params_find(const mn__params *params, const char *name);
/* Gradients for every parameter and statistics for every buffer (once, before
 * training). */
mn_status mn__params_prepare_gradients(mn__params *params, mn_error *error);
/* Marks every gradient as not yet set; every statistic becomes 0. */
void mn__params_clear_gradients(mn__params *params);
/* To be called after `value` was changed. */
void mn__param_changed(mn__param *param);
/* The value in a product's type: the master itself, or its bf16 copy, made or
 * renewed now. data is NULL when memory is short. */
mn__tensor mn__param_in(mn__params *params, mn__param *param, mn__dtype dtype);
int64_t mn__params_elements(const mn__params *params); /* without buffers */

#endif
