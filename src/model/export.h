/* A model as a folder that transformers loads, and model/pretrained.h too:
 *
 *   config.json            model/config_write.h
 *   model.safetensors      the weights, under the family's names (model/naming.h)
 *   tokenizer.json         text/export.h; beside it tokenizer_config.json
 *
 * Where the model's rotary pairs are neighbours and the family's half a head apart, or the
 * other way round, the rows of queries and keys are put in the family's order: the same
 * function, as both are turned alike. */
#ifndef MN__MODEL_EXPORT_H
#define MN__MODEL_EXPORT_H

#include "model/decoder.h"
#include "model/family.h"
#include "text/tokenizer.h"

typedef struct mn__export {
    const mn__decoder *decoder;
    const mn__params *params; /* the decoder's: F32 masters */
    const mn__tokenizer *tokenizer;
    const mn__ids *before;   /* what stands before every text (model/run.h); NULL: as the tokenizer
                              * says */
    const mn__family *first; /* tried before all others; or NULL */
    int64_t context;         /* the longest text that the model is for */
    const int32_t *ends;     /* [end_count]: ids at which a text ends */
    int64_t end_count;
    mn__dtype type;     /* of the weights in the file: F32 or BF16 */
    const char *source; /* what it is made from, for errors */
} mn__export;

/* Writes the folder; config.json, which makes it a model, comes last. Each file is replaced
 * as a whole. *family: the one that was chosen. MN_ERROR_UNSUPPORTED before anything is
 * written, where the model or its tokenizer has no counterpart. */
mn_status mn__export_write(const mn__export *what, const char *folder, const mn__family **family,
                           mn_error *error);

#endif
