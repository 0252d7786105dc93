/* A folder of a pretrained model as Hugging Face keeps one, with random weights: bytes as
 * tokens, a chat template, and a context of SMALL_CONTEXT tokens. */
#ifndef TESTS_SUPPORT_SMALL_MODEL_H
#define TESTS_SUPPORT_SMALL_MODEL_H

#include <stdint.h>

enum { SMALL_CONTEXT = 2048, SMALL_VOCABULARY = 260 };

/* folder: is made. type: "llama", or "mistral" with a sliding window of 50. seed: of weights.
 * Without a chat template where `chat` is NULL. Fails the test where it cannot. */
void small_model_make(const char *folder, const char *type, uint32_t seed, const char *chat);

/* The llama of this seed as one GGUF file: what it computes and how it cuts text is the same.
 * eot: the id that it names as the end of a turn beside the end of a text; -1: none. */
void small_gguf_make(const char *path, uint32_t seed, const char *chat, int eot);

/* "<s><|user|>...<|end|><|assistant|>". */
extern const char small_model_chat[];

#endif
