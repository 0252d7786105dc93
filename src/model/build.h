/* The decoder's insides, shared by decoder.c, which runs it, and build.c and
 * blocks.c, which make it from a recipe. */
#ifndef MN__MODEL_BUILD_H
#define MN__MODEL_BUILD_H

#include "model/decoder.h"
#include "nn/feed_forward.h"
#include "nn/head.h"

/* An attention of the model, with what it keeps between forward and commit. */
struct mn__attending {
    mn__attention attention;
    mn__pending pending;
    int64_t number; /* of its state */
    struct mn__attending *next;
};

struct mn__sublayer {
    bool joins;                      /* reads what the sublayer before it reads: a parallel form */
    mn__norm norm;                   /* its own; one for all of a parallel form */
    mn__norm after;                  /* of its output (norm_place both) */
    struct mn__attending *attending; /* NULL: it is a feed-forward */
    mn__feed_forward feed_forward;
};

struct mn__block {
    int64_t count;
    struct mn__sublayer *sublayer; /* [count] */
};

struct mn__decoder {
    mn__decoder_options options;
    mn__arena arena; /* blocks, options */
    mn__params *params;
    int64_t vocabulary, segment;
    bool pre_norm, norms_after, has_final_norm;
    mn__embedding embedding;
    mn__param *positions; /* [max_positions, C] or NULL */
    mn__rope rope;
    struct mn__block *block;         /* [depth] */
    struct mn__attending *attending; /* the first of all blocks' */
    int64_t attentions;
    mn__kept kept; /* of keys and values, in states that are opened */
    mn__norm final_norm;
    mn__head head;
    mn__pending recomputed; /* what a block run again in backward would remember */
};

/* Makes the blocks, lists of sublayers, that the recipe's mappings describe. */
mn_status mn__blocks_create(mn__decoder *decoder, const mn__yaml_node *model,
                            const mn__yaml_node *attention, mn_error *error);
mn_status mn__decoder_create_norm(mn__decoder *decoder, mn__norm *norm, const char *prefix,
                                  mn_error *error);

#endif
