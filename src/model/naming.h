/* The parameters of a decoder beside a family's tensors (model/family.h): who is whose, in
 * one order, for those who read a folder and those who write one. */
#ifndef MN__MODEL_NAMING_H
#define MN__MODEL_NAMING_H

#include "model/family.h"
#include "tensor/param.h"

/* Our parameters and their tensors of one naming, of one layer: weights, or biases. */
typedef struct mn__match {
    const mn__naming *naming;
    int ours, theirs;        /* how many */
    mn__param *param[2];     /* [ours] */
    char their_name[2][128]; /* [theirs], without the family's prefix */
    int64_t rows, columns;   /* of all of ours together; columns 0: vectors */
} mn__match;

/* Whether their weight is [columns, rows]. */
bool mn__match_is_turned(const mn__match *match);

/* Goes through what the parameters have of a family's names: set the first three, the rest
 * zero, and call next until it says false. What they lack, a bias, a head of their own, is
 * passed over. */
typedef struct mn__matches {
    const mn__family *family;
    const mn__params *params;
    int64_t depth;
    mn__match match;
    int64_t naming, layer, ending; /* of the next one */
} mn__matches;
bool mn__matches_next(mn__matches *matches);

/* Whether a family has a name for a parameter of ours. */
bool mn__family_names(const mn__family *family, int64_t depth, const char *parameter);

#endif
