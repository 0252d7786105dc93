/* The decoder's insides, shared by decoder.c, which runs it, and build.c, which
 * makes it from a recipe. */
#ifndef MN__MODEL_BUILD_H
#define MN__MODEL_BUILD_H

#include "model/decoder.h"
#include "nn/feed_forward.h"

struct mn__layer {
    mn__attention attention; /* with the norm of its sublayer */
    mn__norm norm;           /* the feed-forward's */
    mn__feed_forward feed_forward;
    mn__pending pending; /* between forward and commit */
};

struct mn__decoder {
    mn__decoder_options options;
    mn__arena arena; /* layers, options */
    mn__params *params;
    int64_t vocabulary, segment;
    bool pre_norm, has_final_norm;
    mn__param *embedding; /* [V, C] */
    mn__param *positions; /* [max_positions, C] or NULL */
    mn__rope rope;
    struct mn__layer *layer; /* [depth] */
    mn__norm final_norm;
    mn__linear head;        /* weight: the embedding's where tied */
    mn__pending recomputed; /* what a block run again in backward would remember */
};

#endif
