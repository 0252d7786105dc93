/* libsentencepiece for C: the one C++ file of the project is behind this. No
 * exception leaves it. */
#ifndef MN__TEXT_SENTENCEPIECE_H
#define MN__TEXT_SENTENCEPIECE_H

#include "base/error.h"
#include "text/ids.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mn__sentencepiece mn__sentencepiece;

typedef enum mn__piece_kind {
    MN__PIECE_NORMAL,  /* text, white space as U+2581 */
    MN__PIECE_BYTE,    /* "<0x0A>" */
    MN__PIECE_CONTROL, /* "<s>": stands for no text */
    MN__PIECE_UNKNOWN,
} mn__piece_kind;

/* From a .model file's bytes. MN_ERROR_FORMAT: it is none. */
mn_status mn__sentencepiece_parse(mn__sentencepiece **out, const char *model, int64_t bytes,
                                  mn_error *error);
void mn__sentencepiece_free(mn__sentencepiece *model); /* NULL is fine */
int32_t mn__sentencepiece_vocab(const mn__sentencepiece *model);
/* NUL-ended; belongs to the model. */
const char *mn__sentencepiece_piece(const mn__sentencepiece *model, int32_t id,
                                    mn__piece_kind *kind);
/* Its score: of BPE the order of merging, falling; of a unigram model a log-probability. */
float mn__sentencepiece_score(const mn__sentencepiece *model, int32_t id);
/* The id of a piece that stands for text, or -1. */
int32_t mn__sentencepiece_find(const mn__sentencepiece *model, const char *piece);
int32_t mn__sentencepiece_begin(const mn__sentencepiece *model); /* <s>'s id, or -1 */
/* Appends the ids of valid UTF-8 of at most 1 GiB. */
mn_status mn__sentencepiece_encode(const mn__sentencepiece *model, const char *text, int64_t bytes,
                                   mn__ids *ids, mn_error *error);

/* Trains a lossless model: identity normalisation, no dummy prefix, white space
 * kept, bytes for what is not in the alphabet, the newline a symbol. Lines:
 * valid UTF-8 without newlines; line i is text[begins[i] .. begins[i + 1]). The
 * model's bytes go to `write`, once. */
typedef struct mn__sentencepiece_training {
    const char *text;
    const int64_t *begins;  /* [lines + 1] */
    int64_t lines, longest; /* bytes of the longest line */
    int64_t vocab;
    bool unigram;
    int threads;
} mn__sentencepiece_training;
mn_status mn__sentencepiece_train(const mn__sentencepiece_training *training,
                                  void (*write)(void *user, const void *data, int64_t bytes),
                                  void *user, mn_error *error);

#ifdef __cplusplus
}
#endif
#endif
