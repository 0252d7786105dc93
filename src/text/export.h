/* A tokenizer as a tokenizer.json that the `tokenizers` package loads, with the same ids. */
#ifndef MN__TEXT_EXPORT_H
#define MN__TEXT_EXPORT_H

#include "text/tokenizer.h"

/* Appends the file's text. Bytes become a byte-level vocabulary without merges, characters one
 * of characters; a lossless model of SentencePiece becomes BPE or Unigram, and is compared; one of
 * Hugging Face stays as it is, but that TokenRanks, which is ours (text/huggingface.h), becomes BPE
 * with its merges. MN_ERROR_UNSUPPORTED, with the reason, for other kinds. */
mn_status mn__tokenizer_export(const mn__tokenizer *tokenizer, mn__string *json, mn_error *error);
/* The same, but that these ids, and not the tokenizer's own, stand before every text. */
mn_status mn__tokenizer_export_with(const mn__tokenizer *tokenizer, const mn__ids *before,
                                    mn__string *json, mn_error *error);

#endif
