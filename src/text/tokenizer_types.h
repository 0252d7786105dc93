/* The kinds of tokenizers; each is defined in tokenizer_<name>.c. */
#ifndef MN__TEXT_TOKENIZER_TYPES_H
#define MN__TEXT_TOKENIZER_TYPES_H

#include "text/tokenizer.h"

extern const mn__tokenizer_type mn__tokenizer_type_bytes;
extern const mn__tokenizer_type mn__tokenizer_type_characters;
extern const mn__tokenizer_type mn__tokenizer_type_words;
extern const mn__tokenizer_type mn__tokenizer_type_sentencepiece;
extern const mn__tokenizer_type mn__tokenizer_type_huggingface;

/* MN_ERROR_OPTION where there is none. */
mn_status mn__tokenizer_type_find(const mn__tokenizer_type **type, const char *name,
                                  mn_error *error);
/* A tokenizer of a kind and a copy of its payload. Where the fingerprint is not
 * the one expected (NULL: any), MN_ERROR_FORMAT, before the payload is parsed. */
mn_status mn__tokenizer_of_payload(mn__tokenizer **tokenizer, const char *kind, const char *payload,
                                   int64_t bytes, const char *expected, mn_error *error);

#endif
