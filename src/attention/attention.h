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

enum { MN__LOSSES_MAX = 4, MN__EXPORTS_MAX = 4 };

/* Losses beside the task's, already weighted, F32 [1] each; those of one name
 * are one sum. */
typedef struct mn__losses {
    int count;
    const char *name[MN__LOSSES_MAX];
    mn__var *sum[MN__LOSSES_MAX];
} mn__losses;

typedef struct mn__attention mn__attention;
typedef struct mn__segment mn__segment;

/* The attention that a segment's queries gave to one region of a layer's past. */
typedef struct mn__mass_region {
    const char *name;  /* "compressed", "memory", "window" */
    int64_t count;     /* its keys, the oldest first */
    int64_t stride;    /* key k has, of head h in row b, mass[(b H + h) stride + k]: */
    const float *mass; /* sums over the row's real queries */
    int64_t full;      /* from this position on no key of the layer is an empty one */
} mn__mass_region;

/* What a probe is shown of a forward pass, by the layers that have it. */
typedef struct mn__watch {
    void *user;
    /* Where attention went; NULL: not asked for. */
    void (*mass)(void *user, const mn__attention *layer, const mn__segment *segment,
                 const mn__mass_region *region);
    /* Memories that each query retrieved, before the segment is remembered; NULL. */
    void (*retrieved)(void *user, const mn__attention *layer, const mn__segment *segment,
                      const mn__state *state, const mn__retrieved *found);
} mn__watch;

/* What every layer of one forward pass shares. B rows of T tokens. */
struct mn__segment {
    int64_t B, T;
    const bool *start;             /* [B]: the row begins a document; NULL: none does */
    const int64_t *valid;          /* [B]: real tokens of the row, the rest is padding; NULL: T */
    const int64_t *position;       /* [B]: of the row's first token in its document */
    const int64_t *positions;      /* [B * T]: of every token */
    const mn__watch *watch;        /* NULL: nobody does */
    mn__losses auxiliary;          /* added by layers while the tape records */
    const mn__attention *exporter; /* the layer that shows something to all; or NULL */
    mn__var *exported[MN__EXPORTS_MAX]; /* that */
};

/* What a segment leaves to be remembered, by the type's own numbering. */
typedef struct mn__pending {
    mn__var *var[MN__SLOTS_MAX];
} mn__pending;

typedef struct mn__attention_type mn__attention_type;

/* One attention of a model. */
struct mn__attention {
    const mn__attention_type *type;
    void *options;      /* the type's own, read from the recipe */
    int64_t C, H, G, D; /* width, heads, key-value heads, head width */
    int64_t segment;    /* tokens of a training segment */
    bool bias;          /* projections have one */
    bool out_bias;      /* so has that of the output */
    bool head_norm;     /* queries and keys are normalised, head by head */
    float head_epsilon; /* in that norm */
    bool pre_norm;      /* the type normalises its input (and what it remembers) */
    mn__norm norm;      /* its sublayer's; else the block normalises the sum */
    float dropout;
    float deviation;      /* of initial weights */
    const mn__rope *rope; /* of types that take rotary positions, or NULL */
    /* The model's first attention of the same type, which holds what they share;
     * itself for that one. */
    const mn__attention *first;
    mn__linear query, key_value;   /* [H D, C]; [2 G D, C]: keys, then values */
    mn__linear out;                /* [C, H D] */
    mn__norm query_norm, key_norm; /* RMS over D, where head_norm */
    void *own;                     /* further parameters of the type */
};

struct mn__attention_type {
    const char *name;  /* in recipes */
    const char *paper; /* "Dai et al. 2019, arXiv 1901.02860" */
    const char *help;
    const mn__option *options;
    int64_t options_bytes;
    const char *auxiliary; /* the name of its auxiliary loss; NULL: it has none */
    bool head_norm;        /* it takes the model's head_norm */
    bool keeps;            /* its keys and values are slots of mn__state_add_heads */
    /* Whether an output depends on a later input in the form that the options
     * choose; NULL: never, the type is strictly causal. */
    bool (*looks_ahead)(const mn__attention *layer);
    /* Segments to be unrolled for every parameter to receive a gradient; NULL: 1. */
    int (*gradient_segments)(const mn__attention *layer);

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
    /* Makes from the state what every layer of the segment may read in
     * segment->exported, before the first of them runs, and itself the
     * exporter; or leaves both as they are. NULL: never exports. */
    void (*exports)(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                    const mn__state *state);
    /* x [B, T, C], F32, the residual stream, to [B, T, C] in the compute type. */
    mn__var *(*forward)(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                        mn__var *x, const mn__state *state, mn__pending *pending);
    /* Remembers `pending` of each row's valid tokens; rows without any stay as
     * they are. live: the graph may pass into the next segment of this step, for
     * slots appended to so. Statistics go to mn__buffer_add_statistic. */
    void (*commit)(const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                   mn__state *state, const mn__pending *pending, bool live);
    /* Moves buffers on by the statistics of all commits since the last update,
     * in operations; called once per update, after the optimiser. NULL: none. */
    void (*update)(const mn__attention *layer, mn__tape *tape);
    /* Tokens between grid points; 1: none. */
    int64_t (*grid)(const mn__attention *layer);
};

/* The list of types, NULL-ended, and one by name (NULL if unknown). */
extern const mn__attention_type *const mn__attention_types[];
/* Further types that recipes may name: a NULL-ended list of the caller's, which
 * stays; NULL takes it back. */
void mn__attention_add_types(const mn__attention_type *const *types);
const mn__attention_type *mn__attention_find(const char *name);

/* ---- Shared by types (attention/shared.c) ---------------------------------------- */

/* Adds query, key_value and out; and query_norm and key_norm, where head_norm. */
mn_status mn__attention_create(mn__attention *layer, mn__params *params, const char *prefix,
                               mn_error *error);
/* The layer's input as its projections see it: normed if the layer's norm comes
 * first, in the compute type. */
mn__var *mn__attention_input(const mn__attention *layer, mn__tape *tape, mn__var *x);
/* h [B, T, C] to queries [B, T, H, D], with head_norm normalised; so are keys. */
mn__var *mn__attention_queries(const mn__attention *layer, mn__tape *tape, mn__var *h);
/* h [B, S, C] to keys and values [B, S, G, D], two views. False on failure. */
bool mn__attention_keys_values(const mn__attention *layer, mn__tape *tape, mn__var *h,
                               mn__var **keys, mn__var **values);
/* heads [B, T, H, D] to [B, T, C]. */
mn__var *mn__attention_out(const mn__attention *layer, mn__tape *tape, mn__var *heads);
/* Real tokens of a row. */
int64_t mn__segment_valid(const mn__segment *segment, int64_t row);
/* Whether somebody asks where attention goes. */
bool mn__segment_watches_mass(const mn__segment *segment);
/* How many tokens of its window of the grid every row that has tokens has read, by a
 * counter of them; -1 fails the tape: rows differ. And moves that counter on. */
int64_t mn__segment_phase(mn__tape *tape, const mn__segment *segment, const int64_t *counter);
void mn__segment_advance(const mn__segment *segment, int64_t *counter, int64_t grid);
/* Adds a loss of the layer's type->auxiliary, F32 [1]; and the sum of all losses
 * that layers have added (NULL: none did). */
void mn__segment_add_loss(const mn__attention *layer, mn__tape *tape, mn__segment *segment,
                          mn__var *loss);
mn__var *mn__segment_losses(mn__tape *tape, const mn__segment *segment);

/* Slots of entries in time, [B, P, ...], are right-aligned: the newest is last. */

/* Entries start <= p < start + count of a slot: a part of its live value, else a
 * constant, which is a copy while recording: a commit may come before backward
 * has read it. */
mn__var *mn__slot_read(mn__tape *tape, const mn__slot *slot, int64_t start, int64_t count);
/* Keys or values [B, T, G, D] of a segment as the slot keeps them, so that a token meets the same
 * ones in its own segment and in a later one, however the text is cut. */
mn__var *mn__slot_keep(mn__tape *tape, const mn__slot *slot, mn__var *heads);
/* The newest entries that any row sees: at most `most`, and more[b] (NULL: 0); and no
 * more than the document has filled, unless zeros take part. *first [B], in the step's memory:
 * where each row's begin among them. -1 fails the tape. */
int64_t mn__entries_visible(mn__tape *tape, const mn__segment *segment, int64_t most,
                            const int64_t *more, const int64_t *filled, bool zeros,
                            int64_t **first);
/* Each row's newest P entries of old [B, P, ...] and then the first counts[b] of
 * source [B, T, ...] (NULL: all T). */
mn__var *mn__entries_append(mn__tape *tape, mn__var *old, mn__var *source, const int64_t *counts);
/* The same into a slot; its live value too, or from now on no more. A source of
 * P entries of which counts[b] is P or 0 replaces a row's, or keeps it. */
void mn__slot_append(mn__tape *tape, mn__slot *slot, mn__var *source, const int64_t *counts,
                     bool live);

/* A ring is a slot [B, H, M, D]: entry n of a row's document, from 0 on, lies at n mod M
 * of each head, until entry n + M takes its place. */

/* The first counts[b] (NULL: all T) of source [B, T, H, D] become a row's entries from
 * written[b] on; of more than M the last M do. Nothing else is touched or moved, and the
 * caller counts on. No gradient passes. */
void mn__ring_append(mn__tape *tape, mn__slot *ring, const mn__var *source, const int64_t *counts,
                     const int64_t *written);
/* The slots that hold something after so many entries: 0 <= m < filled. */
int64_t mn__ring_filled(const mn__slot *ring, int64_t written);

/* For commit: adds to the buffer's sum of this update, if the tape trains;
 * value has as many elements as the buffer. For update: that sum, as a
 * constant, and the buffer's next value. */
void mn__buffer_add_statistic(mn__tape *tape, mn__param *buffer, const mn__var *value);
mn__var *mn__buffer_statistic(mn__tape *tape, const mn__param *buffer);
void mn__buffer_set(mn__tape *tape, mn__param *buffer, const mn__var *value);

#endif
