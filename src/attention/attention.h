/* The contract of an attention type: how a layer sees the past.
 *
 * `forward` reads the state and never changes it; what is to be remembered goes
 * into `pending`, which `commit` then writes. So a forward pass can be repeated
 * (recompute, speculative reading) and a failed one leaves the stream whole.
 * Types are written in operations (op/op.h) alone. Adding one: a file here, a
 * line in registry.c, a test, a recipe; see CONTRIBUTING.md.
 *
 * A type's segment grid counts from its document's start: its forward is given
 * segments that do not cross a grid point, and the state holds the open
 * segment, so that the caller's chunking does not matter. */
#ifndef MN__ATTENTION_ATTENTION_H
#define MN__ATTENTION_ATTENTION_H

#include "attention/state.h"
#include "base/options.h"
#include "nn/linear.h"
#include "nn/norm.h"
#include "op/op.h"

/* What every layer of one forward pass shares. B rows of T tokens. */
typedef struct mn__segment {
    int64_t B, T;
    const bool *start;        /* [B]: the row begins a document; NULL: none does */
    const int64_t *valid;     /* [B]: real tokens of the row, the rest is padding; NULL: T */
    const int64_t *position;  /* [B]: of the row's first token in its document */
    const int64_t *positions; /* [B * T]: of every token */
    mn__var *auxiliary;       /* sum of auxiliary losses so far, F32 [1]; NULL: none */
} mn__segment;

/* What a segment leaves to be remembered, by the type's own numbering. */
typedef struct mn__pending {
    mn__var *var[MN__SLOTS_MAX];
} mn__pending;

typedef struct mn__attention_type mn__attention_type;

/* One layer of a model. */
typedef struct mn__attention {
    const mn__attention_type *type;
    void *options;      /* the type's own, read from the recipe */
    int64_t C, H, G, D; /* width, heads, key-value heads, head width */
    int64_t segment;    /* tokens of a training segment */
    bool bias;          /* projections have one */
    bool pre_norm;      /* the type normalises its input (and what it remembers) */
    mn__norm norm;      /* its norm; else the block normalises the sum */
    float dropout;
    float deviation;      /* of initial weights */
    const mn__rope *rope; /* of types that take rotary positions, or NULL */
    /* The model's first layer of the same type, which holds what its layers
     * share; itself for that one. */
    const struct mn__attention *first;
    mn__linear query, key_value; /* [H D, C]; [2 G D, C]: keys, then values */
    mn__linear out;              /* [C, H D] */
    void *own;                   /* further parameters of the type */
} mn__attention;

struct mn__attention_type {
    const char *name;  /* in recipes */
    const char *paper; /* "Dai et al. 2019, arXiv 1901.02860" */
    const char *help;
    const mn__option *options;
    int64_t options_bytes;
    bool strictly_causal; /* no output depends on a later input */
    /* Segments within which each trainable parameter receives a gradient. */
    int gradient_segments;

    /* Checks the options against the layer. */
    mn_status (*check)(const mn__attention *layer, mn_error *error);
    /* Adds parameters and buffers, named prefix + ".query.weight" etc.; memory
     * for `own` comes from params->nodes. */
    mn_status (*create)(mn__attention *layer, mn__params *params, const char *prefix,
                        mn_error *error);
    /* Adds slots. capacity: the most tokens that a stream will hold (what an
     * unbounded cache takes); 0: a segment sees nothing of earlier ones. */
    mn_status (*create_state)(const mn__attention *layer, mn__states *states, mn__state *state,
                              int64_t capacity, mn_error *error);
    /* x [B, T, C], F32, the residual stream, to [B, T, C] in the compute type. */
    mn__var *(*forward)(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending);
    /* Remembers `pending` of each row's valid tokens; rows without any stay as
     * they are. live: the graph may pass into the next segment of this step. */
    void (*commit)(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live);
    /* Tokens between grid points; 1: none. */
    int64_t (*grid)(const mn__attention *layer);
};

/* The list of types, NULL-ended, and one by name (NULL if unknown). */
extern const mn__attention_type *const mn__attention_types[];
const mn__attention_type *mn__attention_find(const char *name);

/* ---- Shared by types (attention/shared.c) ---------------------------------------- */

/* Adds query, key_value and out. */
mn_status mn__attention_create(mn__attention *layer, mn__params *params, const char *prefix,
                               mn_error *error);
/* The layer's input as its projections see it: normed if the layer's norm comes
 * first, in the compute type. */
mn__var *mn__attention_input(const mn__attention *layer, mn__tape *tape, mn__var *x);
/* h [B, T, C] to queries [B, T, H, D]. */
mn__var *mn__attention_queries(const mn__attention *layer, mn__tape *tape, mn__var *h);
/* h [B, S, C] to keys and values [B, S, G, D], two views. False on failure. */
bool mn__attention_keys_values(const mn__attention *layer, mn__tape *tape, mn__var *h,
                               mn__var **keys, mn__var **values);
/* heads [B, T, H, D] to [B, T, C]. */
mn__var *mn__attention_out(const mn__attention *layer, mn__tape *tape, mn__var *heads);
/* Real tokens of a row. */
int64_t mn__segment_valid(const mn__segment *segment, int64_t row);
/* Entries start <= p < start + count of a slot [B, P, ...] as a constant; a copy
 * while recording, since a commit may come before backward has read it. */
mn__var *mn__slot_read(mn__tape *tape, const mn__slot *slot, int64_t start, int64_t count);
/* Appends each row's valid entries of source [B, T, ...] to the end of a right-aligned slot [B, P,
 * ...], whose oldest entries fall off its front. */
void mn__slot_append(mn__tape *tape, mn__slot *slot, const mn__tensor *source,
                     const mn__segment *segment);

#endif
