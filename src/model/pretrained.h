/* Pretrained models: a folder as Hugging Face keeps it, opened as a decoder,
 * or one file: GGUF (model/gguf_model.h), or a checkpoint of llama2.c (model/llama2c_model.h).
 *
 *   config.json                     what the model is (model/family.h)
 *   model.safetensors, or several   its weights (base/safetensors_folder.h): F32, F16, BF16
 *
 * Parameters are named as any decoder's. For training they are F32 masters, copied from the
 * files; for reading alone they stay in the mapped files where these have them as asked, or
 * are kept packed (tensor/param.h), and the files stay open: they must not be written to. What
 * config.json claims is compared with the files before memory is taken for it. Not here: tokenizers
 * (text/tokenizer.h). */
#ifndef MN__MODEL_PRETRAINED_H
#define MN__MODEL_PRETRAINED_H

#include "model/decoder.h"
#include "model/family.h"

typedef struct mn__pretrained {
    mn__arena arena;
    const char *folder;
    mn__config config; /* its recipe: what the model would be called in training */
    mn__params params;
    mn__decoder *decoder;
} mn__pretrained;

/* tokens: of the longest text that will be read, for frequencies that depend on it; 0: the
 * longest that the model is for. Errors name the key or tensor: MN_ERROR_UNSUPPORTED for
 * what is not known here, MN_ERROR_MISMATCH for a tensor that is missing, ill-shaped or one
 * too many. The device is the caller's and outlives the model; on a counting one, all is
 * checked and nothing is loaded. */
mn_status mn__pretrained_open(mn__pretrained *model, mn__device *device, const char *folder,
                              int64_t tokens, mn_error *error);
/* The same with weights kept as asked (not AUTO); as_filed: quantised ones as they lie in a
 * GGUF file, where that can be. */
mn_status mn__pretrained_open_as(mn__pretrained *model, mn__device *device, const char *folder,
                                 int64_t tokens, mn__weights weights, bool as_filed,
                                 mn_error *error);
void mn__pretrained_close(mn__pretrained *model);

/* Whether a folder holds such a model, or it is such a file. */
bool mn__pretrained_is(const char *folder);

/* The two halves of opening, for other owners (model/run.h): config.json, whose recipe may
 * then be changed; and the decoder that it describes, of new params, with the folder's
 * weights, kept as params->weights says. */
mn_status mn__pretrained_read(mn__config *config, mn__arena *arena, const char *folder,
                              int64_t tokens, mn_error *error);
mn_status mn__pretrained_load(mn__decoder **decoder, mn__params *params, const mn__config *config,
                              const char *folder, mn_error *error);

#endif
