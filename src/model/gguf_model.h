/* A GGUF file as a model's folder: its metadata in the words of a config.json, its tensors
 * under the names that transformers gives them. Architectures: llama, whose heads' rows are
 * in the order of neighbouring rotary pairs, and qwen2. Not here: the container
 * (base/gguf.h), its vocabulary (text/import.h). */
#ifndef MN__MODEL_GGUF_MODEL_H
#define MN__MODEL_GGUF_MODEL_H

#include "base/arena.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/safetensors.h"

/* *root is the caller's. `interleaved`: rotary pairs are neighbours. */
mn_status mn__gguf_config(mn__gguf *file, const char *path, json_t **root, bool *interleaved,
                          mn_error *error);
/* Names in the arena, data in the map; types are ggml's names. */
mn_status mn__gguf_tensors(const mn__gguf *file, mn__arena *arena, mn__safetensor **tensors,
                           int64_t *count, mn_error *error);

#endif
