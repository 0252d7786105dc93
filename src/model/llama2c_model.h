/* A checkpoint of karpathy's llama2.c (its export.py) as a model's folder: its header in the
 * words of a config.json, its tensors under the names that transformers gives them. All of
 * them are Llamas whose rotary pairs are neighbours, with frequencies of base 10000 and
 * norms with 1e-5, which the files do not say.
 *
 *   legacy     seven int32: width, feed-forward width, layers, heads, key-value heads,
 *              vocabulary (negative: the head is not the embedding), longest text; F32
 *   1          "ak42" as an int32, the version, the seven, a byte that says whether the
 *              head is the embedding, zeros up to byte 256; F32
 *   2          the same and an int32, the group; norms in F32, then of each matrix its
 *              int8 and, for each group of them, a scale in F32
 *
 * Not here: its tokenizer.bin (text/import.h). */
#ifndef MN__MODEL_LLAMA2C_MODEL_H
#define MN__MODEL_LLAMA2C_MODEL_H

#include <stdbool.h>

#include "base/json.h"
#include "base/safetensors.h"

bool mn__llama2c_is_model(const char *path); /* by its name */

typedef struct mn__llama2c mn__llama2c;
/* Maps the file; its size must be what its header says, to the byte, before anything is
 * taken for it. MN_ERROR_FORMAT otherwise, MN_ERROR_UNSUPPORTED for another version. */
mn_status mn__llama2c_open(mn__llama2c **file, const char *path, mn_error *error);
void mn__llama2c_close(mn__llama2c *file); /* NULL is fine */
/* *root is the caller's. */
mn_status mn__llama2c_config(const mn__llama2c *file, json_t **root, mn_error *error);
/* All F32, in the map or, of version 2, in the file's own memory. */
const mn__safetensor *mn__llama2c_tensors(const mn__llama2c *file, int64_t *count);

#endif
