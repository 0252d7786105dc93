/* The tape: operations run eagerly and, when a gradient is wanted, record
 * themselves; backward walks the record from its end.
 *
 * A `var` is a tensor on the tape. Vars, records and values live in the tape's
 * arenas until mn__tape_reset; gradients live in a pool that takes a buffer
 * back as soon as the operation that made its var has been walked, so that
 * backward holds few at a time.
 *
 * Errors stick: the first failure is kept in tape->error, the failing operation
 * returns NULL, and every operation given a NULL var returns NULL. A caller
 * writes the whole forward pass and checks once, with mn__tape_status. */
#ifndef MN__TENSOR_TAPE_H
#define MN__TENSOR_TAPE_H

#include "tensor/device.h"
#include "tensor/param.h"
#include "tensor/tensor.h"

typedef struct mn__var mn__var;
typedef struct mn__record mn__record;
typedef struct mn__tape mn__tape;

struct mn__var {
    mn__tensor value;
    bool wants_gradient;
    bool gradient_set;  /* all of it has a first contribution */
    void *gradient;     /* contiguous, the dtype of value; NULL: none yet */
    mn__param *param;   /* the parameter that this var stands for, or NULL */
    mn__var *whole;     /* a view's var, which holds this one's gradient */
    mn__tensor place;   /* a view's gradient in its whole's: data is a byte offset */
    mn__var *next_part; /* mn__op_split: the disjoint views that cover a var */
    mn__var *parts;
};

/* One recorded operation; operations embed it as their first member. */
struct mn__record {
    void (*backward)(mn__tape *tape, mn__record *record);
    mn__record *previous;
    mn__var *out; /* walked only if this has a gradient */
};

/* The discrete choices of a run (indices of mn__op_top_k and mn__op_retrieve, in order), kept or
 * replayed: two programs can be compared only where they choose alike, and
 * rounding decides near ties. For tests. */
typedef struct mn__choices {
    bool replaying;
    int32_t *index; /* [capacity], the caller's */
    int64_t capacity, next;
} mn__choices;

struct mn__tape {
    mn__device *device;
    mn__params *params;
    mn__dtype compute; /* F32 or BF16: the type of products and attention */
    bool recording;
    bool training;         /* dropout is on */
    bool rehearsing;       /* not recording a block that runs again in backward: to the same bits */
    mn__choices *choices;  /* NULL: choices are neither kept nor replayed */
    mn__random_key random; /* seed and step; `operation` counts draws */
    mn__arena nodes;       /* vars and records */
    mn__store values;      /* tensors that live to the step's end */
    mn__store kept;        /* mn__tape_keep's copies */
    mn__store gradients;   /* the pool's memory */
    mn__arena cells;       /* the pool's list */
    mn__arena kept_nodes;
    struct mn__pooled *pooled, *spare;
    mn__record *last;
    mn_status status;
    mn_error error;
};

/* ---- Life ------------------------------------------------------------------- */

void mn__tape_init(mn__tape *tape, mn__params *params, mn__dtype compute);
void mn__tape_free(mn__tape *tape);
/* Forgets every var and any error; memory is kept for the next step. */
void mn__tape_reset(mn__tape *tape);
mn_status mn__tape_status(const mn__tape *tape, mn_error *error);

/* What is not recorded may be given back early: everything made after the mark
 * dies. Nothing happens while recording. */
typedef struct mn__tape_mark {
    mn__arena_mark nodes, values;
} mn__tape_mark;
mn__tape_mark mn__tape_mark_now(const mn__tape *tape);
void mn__tape_release(mn__tape *tape, mn__tape_mark mark);
/* Releases all after the mark except `kept`, whose value is moved down to it;
 * returns its new var (`kept` itself while recording). */
mn__var *mn__tape_release_except(mn__tape *tape, mn__tape_mark mark, mn__var *kept);
/* The value, out of reach of marks: while recording var itself, else a
 * contiguous copy that lives to the reset. */
mn__var *mn__tape_keep(mn__tape *tape, mn__var *var);

/* ---- Vars ------------------------------------------------------------------- */

/* A parameter on the tape; its gradients meet in the parameter. NULL for NULL. The tape
 * fails where the parameter is kept for products alone. */
mn__var *mn__tape_param(mn__tape *tape, mn__param *param);
/* The same for the weight of mn__op_linear and mn__op_head_loss, which may be packed. */
mn__var *mn__tape_weight(mn__tape *tape, mn__param *param);
/* A constant over caller's memory, which must live until the reset. */
mn__var *mn__tape_constant(mn__tape *tape, mn__tensor value);
/* The same with a gradient, which is kept after backward (tests; states). */
mn__var *mn__tape_input(mn__tape *tape, mn__tensor value);

/* ---- For operations ----------------------------------------------------------- */

/* Fails: remembers the first error, returns NULL. */
mn__var *mn__tape_fail(mn__tape *tape, mn_status code, const char *hint, const char *format, ...)
    MN__PRINTF(4, 5);
/* Uninitialised data from the step's store; NULL fails the tape. */
void *mn__tape_alloc(mn__tape *tape, int64_t bytes);
/* A new contiguous var, uninitialised, that wants no gradient yet. */
mn__var *mn__tape_new(mn__tape *tape, mn__dtype dtype, int rank, const int64_t *size);
/* A var over part of whole's memory, whose gradient lies in whole's. `value` is
 * made from whole->value by slicing or reshaping; `place` likewise from a
 * contiguous tensor of whole's size whose data is NULL (see mn__tape_place). */
mn__var *mn__tape_view(mn__tape *tape, mn__var *whole, mn__tensor value, mn__tensor place);
mn__tensor mn__tape_place(const mn__var *whole);
/* Declares that these views are disjoint and cover `whole`, so that each one's
 * first contribution may set its part instead of adding to zeros. */
void mn__tape_parts(mn__var *whole, mn__var *const *parts, int count);
/* True if the operation has to record itself for these inputs (NULLs allowed). */
bool mn__tape_wants(const mn__tape *tape, mn__var *const *inputs, int count);
/* A record of `bytes` (>= sizeof(mn__record)) for `out`, cleared, last on the
 * tape; out->wants_gradient becomes true. NULL when memory is short. */
void *mn__tape_record(mn__tape *tape, int64_t bytes, mn__var *out,
                      void (*backward)(mn__tape *, mn__record *));

/* In backward: where to put the gradient of `var` (NULL allowed). False if none
 * is wanted or memory is short. *accumulate says whether to add to what is
 * there, or to set all of it. */
bool mn__tape_gradient(mn__tape *tape, mn__var *var, mn__tensor *gradient, bool *accumulate);
/* The same for a kernel that always adds: a gradient not yet set is cleared. */
bool mn__tape_gradient_to_add(mn__tape *tape, mn__var *var, mn__tensor *gradient);
/* In backward: the complete gradient of an output. */
mn__tensor mn__tape_gradient_of(mn__tape *tape, mn__var *out);
/* In backward: adds (or sets) all of var's gradient from `source`, of its size. */
void mn__tape_contribute(mn__tape *tape, mn__var *var, float factor, const mn__tensor *source);
/* In backward: the gradient of `out`, which the caller has read, becomes that of
 * `var` without a copy. False, and nothing done, where var has a gradient
 * already or is not its own memory: then contribute. */
bool mn__tape_hand_over(mn__var *out, mn__var *var);
/* Scratch within one backward function; it returns with the next one's start. */
void *mn__tape_scratch(mn__tape *tape, int64_t bytes);

/* ---- Backward -------------------------------------------------------------------- */

/* Gradients of loss * scale for every parameter and input on the tape.
 * loss: F32, one element. */
mn_status mn__tape_backward(mn__tape *tape, mn__var *loss, float scale, mn_error *error);

/* out = block(user, x), keeping only x: the block runs again in backward. It
 * must be pure: a function of x, parameters and the tape's random key. */
typedef mn__var *(*mn__block)(mn__tape *tape, void *user, mn__var *x);
mn__var *mn__tape_recompute(mn__tape *tape, mn__block block, void *user, mn__var *x);

#endif
