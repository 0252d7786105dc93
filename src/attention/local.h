/* The local attention under Memorizing and Block-Recurrent Transformers, and of
 * `window`: what these types share. A token sees the last W tokens, whose keys and
 * values are cached as they were computed; see window.c for the equations. What a
 * type adds to it stands in the type's own file.
 *
 * A type's options begin with a mn__local_options. Its slots MN__LOCAL_KEYS and
 * MN__LOCAL_VALUES and its counter MN__LOCAL_FILLED, of state and of `pending`, are
 * those of mn__local_create_state, which is to be called first. */
#ifndef MN__ATTENTION_LOCAL_H
#define MN__ATTENTION_LOCAL_H

#include "attention/attention.h"

typedef struct mn__local_options {
    int64_t window;
    bool strict, t5;
    int64_t buckets, far;
    double spread;
    bool normalise;
    double scale;
    bool zero_memory;
    double dropout;
} mn__local_options;

/* Their rows of an option table. published: "true" where strict, t5, normalise and
 * zero_memory, as in both papers, are to be what is not said. */
/* clang-format off */
#define MN__LOCAL_OPTIONS(published) \
    MN__INT(mn__local_options, window, "512", 1, 1e9, "tokens that a token sees"), \
    MN__BOOL(mn__local_options, strict, published, "a token does not see itself"), \
    MN__BOOL(mn__local_options, t5, published, "T5's relative bias instead of RoPE"), \
    MN__INT(mn__local_options, buckets, "32", 2, 4096, "buckets of distance of T5's bias"), \
    MN__INT(mn__local_options, far, "128", 2, 1e9, \
            "the distance from which T5's last bucket holds"), \
    MN__FLOAT(mn__local_options, spread, "0.177", 0, 100, \
              "standard deviation of T5's biases at the start; the authors' is 1 / sqrt(buckets)"), \
    MN__BOOL(mn__local_options, normalise, published, \
             "queries and keys of length 1, and a learned scale for each head"), \
    MN__FLOAT(mn__local_options, scale, "1", 1e-3, 1e3, \
              "what those scales begin with; sqrt(head width) for as much as without normalise"), \
    MN__BOOL(mn__local_options, zero_memory, published, \
             "an empty cache is zeros that take part, not absent"), \
    MN__FLOAT(mn__local_options, dropout, "0", 0, 0.99, \
              "of attention weights, while training")
/* clang-format on */

enum { MN__LOCAL_KEYS, MN__LOCAL_VALUES, MN__LOCAL_SLOTS };
enum { MN__LOCAL_FILLED, MN__LOCAL_COUNTERS };

/* Parameters beside the projections. */
typedef struct mn__local {
    mn__param *distance; /* T5: [buckets, H], or NULL */
    mn__param *scale;    /* normalise: [H], or NULL */
} mn__local;

mn_status mn__local_check(const mn__local_options *options, const mn__attention *layer,
                          mn_error *error);
/* Adds prefix + ".distance" and ".scale", where the options want them. */
mn_status mn__local_create(mn__local *local, const mn__local_options *options,
                           const mn__attention *layer, mn__params *params, const char *prefix,
                           mn_error *error);
/* Tokens before its own that a token may see. */
int64_t mn__local_reach(const mn__local_options *options);
/* Adds keys and values of the last `most` tokens (at least the reach), and a counter. */
mn_status mn__local_create_state(const mn__attention *layer, mn__states *states, mn__state *state,
                                 int64_t most, mn_error *error);

/* Heads [B, T, H, D] or [B, T, G, D], as they meet: keys and queries of length 1 or rotated, keys
 * and values as the state keeps them. */
typedef struct mn__local_heads {
    mn__var *queries, *keys, *values;
} mn__local_heads;
/* Of h [B, T, C], a segment's tokens; keys and values are left in `pending`. False on failure. */
bool mn__local_project(const mn__local_options *options, const mn__attention *layer, mn__tape *tape,
                       const mn__segment *segment, const mn__state *state, mn__var *h,
                       mn__local_heads *heads, mn__pending *pending);
/* What mn__op_attention takes: one group, of the cached keys in reach (or the newest `least`,
 * where that is more) and the segment's own. False on failure. */
bool mn__local_args(const mn__local *local, const mn__local_options *options,
                    const mn__attention *layer, mn__tape *tape, const mn__segment *segment,
                    const mn__state *state, int64_t least, const mn__local_heads *heads,
                    mn__attention_args *args);
/* Remembers what mn__local_project left. */
void mn__local_commit(mn__tape *tape, const mn__segment *segment, mn__state *state,
                      const mn__pending *pending, bool live);

/* ---- Normalised heads ------------------------------------------------------------ */

/* x / sqrt(sum x^2 + 1e-6) of each head x [.., D] of `heads`, in the compute type. */
mn__var *mn__heads_normalise(mn__tape *tape, mn__var *heads);
/* As mn__attention_keys_values, of any key_value [2 G D, C], with normalised keys. */
bool mn__heads_keys_values(const mn__attention *layer, const mn__linear *key_value, mn__tape *tape,
                           mn__var *h, mn__var **keys, mn__var **values);
/* Adds a scale for each head, prefix.name [H], of options->scale; and |scale|, as the
 * attention operation's `scales` takes it (NULL for NULL). */
mn_status mn__heads_create_scale(mn__param **scale, const mn__local_options *options,
                                 const mn__attention *layer, mn__params *params, const char *prefix,
                                 const char *name, mn_error *error);
mn__var *mn__heads_scale(mn__tape *tape, mn__param *scale);

#endif
