/* Parameters and buffers: the tensors that live as long as a model. A parameter
 * is an f32 master with a gradient; a buffer is saved with the weights but
 * never receives gradients: it moves by statistics. Products in bf16 read a copy
 * that follows the master by its version.
 *
 * Where nothing is trained there need be no masters. Values then lie in the file that they
 * come from, mapped, where it has them as products want them (mn__param_point); else what
 * only products read is kept packed, in a form of kernel.h, and what is read row by row, an
 * embedding's table, in the type of its file (mn__param_hold). */
#ifndef MN__TENSOR_PARAM_H
#define MN__TENSOR_PARAM_H

#include "base/hash.h"
#include "tensor/device.h"
#include "tensor/tensor.h"

/* What a model's weights are kept as. */
typedef enum mn__weights {
    MN__WEIGHTS_MASTERS, /* F32, as training needs them */
    MN__WEIGHTS_F32,     /* in a file, or packed, in these forms */
    MN__WEIGHTS_F16,     /* packed */
    MN__WEIGHTS_BF16,
    MN__WEIGHTS_INT8,
    MN__WEIGHTS_INT4,
    MN__WEIGHTS_AUTO /* for those who open models: what suits the products' type */
} mn__weights;
/* "masters", "f32", .. */
const char *mn__weights_name(mn__weights weights);
const char *mn__form_name(mn__form form);

/* What reads a parameter: these alone, or anything. */
typedef enum mn__readers {
    MN__READERS_ANY = 0,
    MN__READERS_ROWS = 1,     /* mn__op_embed */
    MN__READERS_PRODUCTS = 2, /* mn__op_linear, mn__op_head_loss: as weight [out, in] */
} mn__readers;

typedef struct mn__param {
    const char *name;   /* "layers.0.attention.query.weight" */
    mn__tensor value;   /* F32; of one that is held, F32 or BF16, or sizes without data */
    int readers;        /* mn__readers, or several */
    bool held, packs;   /* see mn__param_hold; its products read `packed` */
    bool lies;          /* see mn__param_point */
    mn__form form;      /* of packed */
    mn__packed *packed; /* value, transposed: [in, out]; NULL on a counting device */
    float *gradient;    /* as value; NULL until training is prepared, and for buffers */
    bool gradient_set;  /* this update's gradient has a first contribution */
    float *statistic;   /* of buffers, as value: what this update's forward passes add up for
                           its running averages; NULL until training is prepared */
    bool buffer;
    bool decays;      /* weight decay applies: matrices, not gains and biases */
    bool starts_anew; /* a training from weights that lack it, of a model without what it
                         belongs to, begins with it as it is made */
    uint64_t version; /* counts changes of value */
    mn__tensor bf16;  /* copy for products; data NULL: none yet */
    uint64_t bf16_version;
} mn__param;

/* Files that values lie in. */
typedef struct mn__params_source {
    void *owner; /* or NULL */
    void (*close)(void *owner);
    /* The hash of the files' tensors that were taken; "" when memory is short. */
    mn__hash_text (*digest)(void *owner);
} mn__params_source;

typedef struct mn__params {
    mn__device *device;
    mn__arena nodes; /* the structs and names */
    mn__store store; /* the data */
    mn__param **items;
    int64_t count, capacity;
    mn__random_key random; /* each initialisation draws from the next operation */
    bool bare;             /* new ones are not filled: all values come from a file */
    mn__weights weights;   /* MASTERS, or the form in which new ones are held */
    bool as_filed;         /* but quantised ones as their file has them, where that can be */
    int64_t packed_bytes;
    char digest[33]; /* of the files' tensors that were taken, where weights are held; "":
                        source can tell */
    mn__params_source source;
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
/* Whether a parameter is empty until it is held: there are no masters, and it has readers
 * of its own. */
bool mn__param_waits(const mn__params *params, const mn__param *param);
/* Makes room for one that waits: for rows in `rows` (F32 or BF16), if rows are read, and
 * packed in `form`, if products read it. */
mn_status mn__param_hold(mn__params *params, mn__param *param, mn__dtype rows, mn__form form,
                         mn_error *error);
/* Makes `data`, in the source's files, the value of one that waits. whole: for all its readers;
 * else products read it packed, and mn__param_hold is still to come. */
void mn__param_point(mn__param *param, mn__dtype dtype, const void *data, bool whole);
/* What the parameter's value takes, packed form included. */
int64_t mn__param_bytes(const mn__params *params, const mn__param *param);
/* A new parameter (or buffer), or NULL when memory is short. Names are unique:
 * asserted. A matrix decays, anything else does not. */
mn__param *mn__params_add(mn__params *params, const char *name, int rank, const int64_t *size,
                          mn__init init);
mn__param *mn__params_add_buffer(mn__params *params, const char *name, int rank,
                                 const int64_t *size, mn__init init);
/* The same for one that is read in certain ways alone, `readers` of mn__readers. */
mn__param *mn__params_add_read(mn__params *params, const char *name, int rank, const int64_t *size,
                               mn__init init, int readers);
mn__param *mn__params_find(const mn__params *params, const char *name);
/* Gradients for every parameter and statistics for every buffer (once, before
 * training). MN_ERROR_UNSUPPORTED where there are no masters. */
mn_status mn__params_prepare_gradients(mn__params *params, mn_error *error);
/* Marks every gradient as not yet set; every statistic becomes 0. */
void mn__params_clear_gradients(mn__params *params);
/* To be called after `value` was changed. */
void mn__param_changed(mn__param *param);
/* The value in a product's type: itself, or its copy in bf16, made or
 * renewed now. data is NULL when memory is short. */
mn__tensor mn__param_in(mn__params *params, mn__param *param, mn__dtype dtype);
int64_t mn__params_elements(const mn__params *params); /* without buffers */

#endif
