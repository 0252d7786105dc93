/* A decoder as a config.json: the way back of model/family.h, by the same tables. What is
 * written is read again, and must make the same decoder: so whatever a family cannot say is
 * found by comparing, and named. */
#ifndef MN__MODEL_CONFIG_WRITE_H
#define MN__MODEL_CONFIG_WRITE_H

#include "model/decoder.h"
#include "model/family.h"

/* Chooses the first family that transformers has and that describes the decoder, `first`
 * (may be NULL) before all others, and says it in its words: *root is the caller's. What
 * counts in training alone, and the order of rotary pairs (model/export.h), are passed over.
 * context: the longest text that the model is for. MN_ERROR_UNSUPPORTED: there is none; the
 * message says in what the nearest differs. */
mn_status mn__config_write(json_t **root, const mn__family **family, const mn__decoder *decoder,
                           int64_t context, const mn__family *first, mn_error *error);

#endif
