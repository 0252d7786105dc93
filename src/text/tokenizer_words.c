/* Words, as Transformer-XL reads WikiText: a line is split on white space and
 * ended by <eos>; <eos> has id 0, the others follow by falling count, equal
 * counts by first occurrence (so that an adaptive softmax's cut-offs fit).
 * A word that was not counted is <unk>, which WikiText's own text contains.
 *
 * The payload is one word a line, in order of ids. Decoding gives WikiText's
 * own form (" word word \n"), in which the text is published. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer_types.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

static const char end_of_line[] = "<eos>", unknown_word[] = "<unk>";

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a vocabulary of words: out of memory");
}

/* The next word of line[*at..bytes), or NULL where none is left. MN_ERROR_FORMAT
 * goes to *status for bad UTF-8. */
static const char *next_word(const char *line, int64_t bytes, int64_t *at, int64_t *word_bytes,
                             int64_t *bad)
{
    const char *word = NULL;
    while (*at < bytes) {
        uint32_t code;
        int length = mn__utf8_decode(line + *at, bytes - *at, &code);
        if (length <= 0) {
            *bad = *at;
            return NULL;
        }
        bool space = mn__utf8_is_space(code);
        if (!word && !space)
            word = line + *at;
        if (word && space)
            break;
        *at += length;
    }
    if (word)
        *word_bytes = line + *at - word;
    return word;
}

/* Calls `take` for each word of each whole line (and of the rest, if `last`),
 * and at each line's end with word = NULL. */
static mn_status each_word(const char *text, int64_t bytes, bool last, int64_t *used,
                           bool (*take)(void *user, const char *word, int64_t bytes), void *user,
                           mn_error *error)
{
    for (*used = 0; *used < bytes;) {
        const char *line = text + *used;
        const char *newline = memchr(line, '\n', (size_t)(bytes - *used));
        if (!newline && !last)
            return MN_OK;
        int64_t length = newline ? newline - line : bytes - *used, word_bytes = 0, bad = -1;
        const char *word;
        for (int64_t at = 0; (word = next_word(line, length, &at, &word_bytes, &bad));)
            if (!take(user, word, word_bytes))
                return fail_memory(error);
        if (bad >= 0)
            return mn__fail(error, MN_ERROR_FORMAT,
                            "mend the text, or use the bytes tokenizer, which takes any bytes",
                            "invalid UTF-8 at byte %lld", (long long)(*used + bad));
        if (!take(user, NULL, 0))
            return fail_memory(error);
        *used += length + (newline != NULL);
    }
    return MN_OK;
}

/* ---- Using ------------------------------------------------------------------ */

static void free_own(void *own)
{
    if (own)
        mn__vocabulary_free(own);
    mn__free(own);
}

static mn_status add_word(mn__tokenizer *tokenizer, const char *word, int64_t bytes,
                          mn_error *error)
{
    mn__vocabulary *vocabulary = tokenizer->own;
    if (bytes == 0 || mn__vocabulary_find(vocabulary, word, bytes) >= 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "a vocabulary of words: line %lld is empty or its word is there twice",
                        (long long)tokenizer->vocab + 1);
    if (!mn__vocabulary_add(vocabulary, word, bytes))
        return fail_memory(error);
    if (tokenizer->vocab == 0)
        return mn__tokenizer_add_piece(tokenizer, " \n", 2, error);
    mn__string piece = {0};
    mn__string_puts(&piece, " ");
    mn__string_add(&piece, word, bytes);
    mn_status status = piece.failed
                           ? fail_memory(error)
                           : mn__tokenizer_add_piece(tokenizer, piece.text, piece.bytes, error);
    mn__string_free(&piece);
    return status;
}

static mn_status parse(mn__tokenizer *tokenizer, mn_error *error)
{
    mn__vocabulary *vocabulary = mn__calloc(1, sizeof *vocabulary);
    tokenizer->own = vocabulary;
    if (!vocabulary)
        return fail_memory(error);
    const char *at = tokenizer->payload.text, *end = at + tokenizer->payload.bytes;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            return mn__fail(error, MN_ERROR_FORMAT, NULL,
                            "a vocabulary of words: its last line is cut off");
        mn_status status = add_word(tokenizer, at, newline - at, error);
        if (status)
            return status;
        at = newline + 1;
    }
    tokenizer->start = mn__vocabulary_find(vocabulary, end_of_line, sizeof end_of_line - 1);
    tokenizer->unknown = mn__vocabulary_find(vocabulary, unknown_word, sizeof unknown_word - 1);
    if (tokenizer->start != 0 || tokenizer->unknown < 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "a vocabulary of words has no %s in its first line, or no %s", end_of_line,
                        unknown_word);
    return MN_OK;
}

typedef struct encoding {
    const mn__tokenizer *tokenizer;
    mn__ids *ids;
} encoding;

static bool take_id(void *user, const char *word, int64_t bytes)
{
    const encoding *to = user;
    int32_t id = word ? mn__vocabulary_find(to->tokenizer->own, word, bytes) : 0;
    mn__ids_add(to->ids, id >= 0 ? id : to->tokenizer->unknown);
    return !to->ids->failed;
}

static mn_status encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error)
{
    encoding to = {tokenizer, ids};
    return each_word(text, bytes, last, used, take_id, &to, error);
}

/* ---- Learning --------------------------------------------------------------- */

static mn_status learner_new(void **learner, mn__tokenizer_plan plan, mn_error *error)
{
    (void)plan;
    *learner = mn__calloc(1, sizeof(mn__vocabulary));
    return *learner ? MN_OK : fail_memory(error);
}

static bool count_word(void *user, const char *text, int64_t bytes)
{
    if (!text)
        return true;
    mn__vocabulary_word *word = mn__vocabulary_add(user, text, bytes);
    if (word)
        word->count++;
    return word;
}

static mn_status learn(void *learner, const char *text, int64_t bytes, bool last, int64_t *used,
                       mn_error *error)
{
    return each_word(text, bytes, last, used, count_word, learner, error);
}

static int by_count(const void *a, const void *b)
{
    const mn__vocabulary_word *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static void write_word(mn__string *payload, const char *word, int64_t bytes)
{
    mn__string_add(payload, word, bytes);
    mn__string_puts(payload, "\n");
}

static mn_status finish(void *learner, mn__string *payload, mn_error *error)
{
    (void)error;
    mn__vocabulary *vocabulary = learner;
    int32_t eos = mn__vocabulary_find(vocabulary, end_of_line, sizeof end_of_line - 1);
    bool has_unknown = mn__vocabulary_find(vocabulary, unknown_word, sizeof unknown_word - 1) >= 0;
    if (vocabulary->count)
        qsort(vocabulary->words, (size_t)vocabulary->count, sizeof *vocabulary->words, by_count);
    write_word(payload, end_of_line, sizeof end_of_line - 1);
    for (int64_t i = 0; i < vocabulary->count; i++) {
        const mn__vocabulary_word *word = &vocabulary->words[i];
        if (word->id != eos)
            write_word(payload, vocabulary->text.text + word->begin, word->bytes);
    }
    if (!has_unknown)
        write_word(payload, unknown_word, sizeof unknown_word - 1);
    return MN_OK;
}

const mn__tokenizer_type mn__tokenizer_type_words = {
    .name = "words",
    .file = "tokenizer.words",
    .help = "the words of the corpus, <eos> at each line's end, <unk> for the others",
    .parse = parse,
    .encode = encode,
    .free = free_own,
    .learner_new = learner_new,
    .learn = learn,
    .finish = finish,
    .learner_free = free_own,
};
