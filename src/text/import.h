/* Vocabularies of other files, rewritten as a tokenizer.json (which a run then keeps): tiktoken's
 * rank files, GPT-2's encoder.json and vocab.bpe, those inside GGUF, llama2.c's tokenizer.bin, and
 * models of SentencePiece. */
#ifndef MN__TEXT_IMPORT_H
#define MN__TEXT_IMPORT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/gguf.h"
#include "base/string.h"

/* Whether text begins as a rank file does: base64, a space, a number. */
bool mn__import_is_tiktoken(const char *text, int64_t bytes);
/* family: "llama3", "qwen" or "glm4", which decides expression and special tokens; NULL: told by
 * the number of ranks. config: of a tokenizer_config.json beside it, whose added_tokens_decoder
 * then gives the special tokens; NULL: none. */
mn_status mn__import_tiktoken(const char *text, int64_t bytes, const char *family,
                              const char *config, int64_t config_bytes, mn__string *json,
                              mn_error *error);
/* encoder: token to id; merges: "#version", then "left right" a line. */
mn_status mn__import_gpt2(const char *encoder, int64_t encoder_bytes, const char *merges,
                          int64_t merges_bytes, mn__string *json, mn_error *error);
/* tokenizer.ggml.model "gpt2" with the expressions of tokenizer.ggml.pre that import_gguf.c lists,
 * or "llama" with scores. MN_ERROR_UNSUPPORTED names another. */
mn_status mn__import_gguf(mn__gguf *file, mn__string *json, mn_error *error);
/* llama2.c's tokenizer.bin, of SentencePiece's BPE as Llama 2 has it: <unk>, <s>, </s>, 256 bytes,
 * then the others, spaces as spaces. */
mn_status mn__import_llama2c(const char *data, int64_t bytes, mn__string *json, mn_error *error);

/* A model of SentencePiece that leaves texts as they are, without a space before them: of BPE, or
 * with `unigram` the other kind. Which of them it is, and whether it cuts texts so, has to be seen
 * from what comes out. */
mn_status mn__import_sentencepiece(const char *model, int64_t bytes, bool unigram, mn__string *json,
                                   mn_error *error);

/* ---- Shared by the importers --------------------------------------------------------------------
 */

/* Appends {"id": ..., "content": ..., ...}, after a comma where the string does not end in '['. */
void mn__import_added(mn__string *json, int64_t id, const char *content, int64_t bytes,
                      bool special);
/* Appends the members pre_tokenizer and decoder of a byte-level vocabulary, each with a comma
 * behind it, for one of GPT-2's, Llama 3's and Qwen 2's expressions. */
void mn__import_byte_level(mn__string *json, const char *regex);
/* Appends the members decoder and normalizer of SentencePiece's spaces, each with a comma behind
 * it. prefix: a text begins with a space of its own. */
void mn__import_spaces(bool prefix, mn__string *json);
/* A token of SentencePiece's BPE: the pair whose join has the highest score merges first. */
typedef struct mn__scored_token {
    const char *text; /* spaces as U+2581 */
    int64_t bytes;
    double score; /* NaN counts as 0 */
    bool joins;   /* a pair may become it; else it is special, or a byte */
} mn__scored_token;
/* Appends the file's beginning, with model, decoder and normalizer, and a comma. unknown: the id of
 * what is no token, or none where it is outside; prefix: as of mn__import_spaces. */
mn_status mn__import_scored(const mn__scored_token *tokens, int64_t count, int64_t unknown,
                            bool prefix, mn__string *json, mn_error *error);
/* Appends the member post_processor that puts ids before a text, with a comma; none for count 0. */
void mn__import_before(mn__string *json, const int64_t *ids, int count);

#endif
