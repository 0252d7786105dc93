/* Checkpoints of llama2.c made by a test, with random weights, and its runner's arithmetic,
 * written plainly: what the converted model is compared with. */
#ifndef TESTS_SUPPORT_LLAMA2C_H
#define TESTS_SUPPORT_LLAMA2C_H

#include <stdbool.h>
#include <stdint.h>

enum {
    LLAMA2C_WIDTH = 16,
    LLAMA2C_HIDDEN = 24,
    LLAMA2C_LAYERS = 2,
    LLAMA2C_HEADS = 4,
    LLAMA2C_KV_HEADS = 2,
    LLAMA2C_VOCABULARY = 270,
    LLAMA2C_CONTEXT = 32,
    LLAMA2C_GROUP = 8
};

/* Writes a checkpoint: version 0 (legacy), 1 or 2; tied: the head is the embedding. Weights of
 * version 2 are rounded to its int8. The same seed, the same weights but for that. */
void llama2c_write(const char *path, int version, bool tied, uint32_t seed);
/* And a tokenizer.bin of LLAMA2C_VOCABULARY tokens. */
void llama2c_write_tokenizer(const char *path);

/* The runner's logits [n, V] for n tokens, of such a checkpoint. */
void llama2c_logits(int version, bool tied, uint32_t seed, const int32_t *ids, int64_t n,
                    float *logits);
/* The runner's ids of a text, with its <s> first; how many. */
int64_t llama2c_encode(const char *text, int32_t *ids);

#endif
