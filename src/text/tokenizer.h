/* Tokenizers: bytes to ids and back.
 *
 * A kind is one `mn__tokenizer_type` in one file and one line in the table in
 * tokenizer.c. What a tokenizer has learned is its *payload*, the bytes of one
 * file; all kinds are saved, loaded and fingerprinted through it, and all
 * decode by joining the bytes of their pieces.
 *
 *   bytes          256 ids
 *   characters     the code points counted over a corpus
 *   words          WikiText's words, <eos> at each line's end, <unk>
 *   sentencepiece  a .model file, published or trained here
 *   huggingface    a tokenizer.json as the `tokenizers` package has it
 */
#ifndef MN__TEXT_TOKENIZER_H
#define MN__TEXT_TOKENIZER_H

#include <stdbool.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/string.h"
#include "text/ids.h"

typedef struct mn__tokenizer_type mn__tokenizer_type;

/* Immutable once made, so that threads may share it. */
typedef struct mn__tokenizer {
    const mn__tokenizer_type *type;
    int64_t vocab;             /* V: ids are 0..V-1 */
    int32_t start;             /* the id fed before a document's first token */
    int32_t unknown;           /* the id of what is not in the vocabulary, or -1 */
    bool lossless;             /* decode(encode(x)) = x for valid UTF-8 */
    bool any_bytes;            /* ... and for any bytes whatever */
    bool strip_first_space;    /* of a decoded text: SentencePiece's dummy prefix */
    mn__ids before, after;     /* special ids that a model wants around a text; encoding
                                * leaves them out */
    bool *special;             /* [V] ids that are no text of a document; NULL: none */
    mn__hash_text fingerprint; /* of kind and payload */
    mn__string payload;
    mn__string pieces;     /* every id's bytes, joined */
    int64_t *piece_begins; /* [V + 1] offsets into `pieces` */
    int64_t piece_capacity;
    void *own; /* the kind's tables */
} mn__tokenizer;

/* How to learn a vocabulary. */
typedef struct mn__tokenizer_plan {
    int64_t vocab;       /* sentencepiece: how many ids */
    bool unigram;        /* sentencepiece: Unigram instead of BPE */
    int64_t train_bytes; /* sentencepiece: learn from an even sample of lines of
                          * at most this many bytes; <= 0: 256 MiB */
} mn__tokenizer_plan;

/* ---- Using one ------------------------------------------------------------ */

/* Appends text's ids to `ids`. The result is the same as feeding an encoder
 * with the text in any pieces. MN_ERROR_FORMAT: invalid UTF-8 where the kind
 * needs it valid; MN_ERROR_MISMATCH: a character that is not in the set. */
mn_status mn__tokenizer_encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes,
                               mn__ids *ids, mn_error *error);
/* Appends the ids' bytes to `text`. MN_ERROR_MISMATCH for an id outside 0..V-1. */
mn_status mn__tokenizer_decode(const mn__tokenizer *tokenizer, const int32_t *ids, int64_t count,
                               mn__string *text, mn_error *error);
/* One id's bytes (not NUL-ended; they may cut a character); id must be valid. */
const char *mn__tokenizer_piece(const mn__tokenizer *tokenizer, int32_t id, int64_t *bytes);

/* Encodes one document that comes in pieces; memory stays bounded for every
 * kind but those that normalise the whole document: SentencePiece models that
 * are not lossless, and tokenizer.json files with a normalizer or an unusual
 * pre-tokenizer. */
typedef struct mn__encoder {
    const mn__tokenizer *tokenizer;
    mn__string waiting; /* what could not be encoded yet */
    int64_t consumed;   /* bytes of the document encoded so far */
} mn__encoder;
void mn__encoder_begin(mn__encoder *encoder, const mn__tokenizer *tokenizer);
mn_status mn__encoder_feed(mn__encoder *encoder, const char *text, int64_t bytes, mn__ids *ids,
                           mn_error *error);
/* The document ends; the encoder is ready for the next one. */
mn_status mn__encoder_end(mn__encoder *encoder, mn__ids *ids, mn_error *error);
void mn__encoder_free(mn__encoder *encoder);

/* ---- Making, saving, loading ---------------------------------------------- */

mn_status mn__tokenizer_bytes(mn__tokenizer **tokenizer, mn_error *error);
/* From a folder (a run, a data set, a model of Hugging Face), or the word `bytes`,
 * or a file: tokenizer.json, a SentencePiece model, a rank file of tiktoken (with
 * tokenizer_config.json beside it, or of a model that is known), GPT-2's
 * encoder.json or vocab.json (their merges beside them), a .gguf, llama2.c's
 * tokenizer.bin. A payload that differs from its fingerprint is MN_ERROR_FORMAT. */
mn_status mn__tokenizer_load(mn__tokenizer **tokenizer, const char *path, mn_error *error);
/* Writes tokenizer.json and the payload's file into a folder. */
mn_status mn__tokenizer_save(const mn__tokenizer *tokenizer, const char *folder, mn_error *error);
void mn__tokenizer_free(mn__tokenizer *tokenizer); /* NULL is fine */

/* Learns a vocabulary from documents that come in pieces. */
typedef struct mn__tokenizer_builder mn__tokenizer_builder;
/* kind: "characters", "words", "sentencepiece" ("bytes" learns nothing, but works). */
mn_status mn__tokenizer_builder_new(mn__tokenizer_builder **builder, const char *kind,
                                    mn__tokenizer_plan plan, mn_error *error);
mn_status mn__tokenizer_builder_feed(mn__tokenizer_builder *builder, const char *text,
                                     int64_t bytes, mn_error *error);
mn_status mn__tokenizer_builder_end_document(mn__tokenizer_builder *builder, mn_error *error);
/* Learns; the builder is freed in any case. */
mn_status mn__tokenizer_builder_end(mn__tokenizer_builder *builder, mn__tokenizer **tokenizer,
                                    mn_error *error);
void mn__tokenizer_builder_free(mn__tokenizer_builder *builder); /* NULL is fine */

/* ---- Adding a kind -------------------------------------------------------- */

struct mn__tokenizer_type {
    const char *name;
    const char *file; /* the payload's, beside tokenizer.json; NULL: no payload */
    const char *help;
    /* Fills in a tokenizer (payload set, the rest zero): vocabulary, pieces
     * through mn__tokenizer_add_piece, own tables. */
    mn_status (*parse)(mn__tokenizer *tokenizer, mn_error *error);
    /* Encodes a prefix of text and says how long it was in *used. Where text
     * goes on is decided by its bytes alone, so that the result does not depend
     * on the pieces it came in. `last`: the document ends here, use all. */
    mn_status (*encode)(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error);
    void (*free)(void *own); /* NULL: mn__free */
    /* Learning; NULL for kinds that learn nothing. `learn` takes a prefix of
     * text in as `encode` does; `finish` makes the payload. */
    mn_status (*learner_new)(void **learner, mn__tokenizer_plan plan, mn_error *error);
    mn_status (*learn)(void *learner, const char *text, int64_t bytes, bool last, int64_t *used,
                       mn_error *error);
    mn_status (*finish)(void *learner, mn__string *payload, mn_error *error);
    void (*learner_free)(void *learner);
};

/* The table of kinds, NULL-ended. */
extern const mn__tokenizer_type *const mn__tokenizer_types[];

/* Appends the next id's bytes during `parse`. */
mn_status mn__tokenizer_add_piece(mn__tokenizer *tokenizer, const char *bytes, int64_t count,
                                  mn_error *error);

#endif
