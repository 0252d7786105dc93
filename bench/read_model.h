/* The model of `bench read`: the shape of Qwen2-0.5B with random weights, as a folder of
 * Hugging Face's layout. */
#ifndef BENCH_READ_MODEL_H
#define BENCH_READ_MODEL_H

#include <stdint.h>

enum {
    READ_LAYERS = 24,
    READ_WIDTH = 896,
    READ_HEADS = 14,
    READ_KEY_HEADS = 2,
    READ_HIDDEN = 4864,
    READ_VOCABULARY = 151936,
    READ_CONTEXT = 32768
};

/* config.json, model.safetensors (BF16, 988 MB, the head tied) and tokenizer.json (as many
 * tokens and merges as the shape's own) in `folder`, which is made; nothing is done where it is
 * whole already. Ends the program on failure. */
void read_model_make(const char *folder);
/* Matrix weights that a token is multiplied with in the layers, and in the head. */
int64_t read_model_layer_weights(void);
int64_t read_model_head_weights(void);

#endif
