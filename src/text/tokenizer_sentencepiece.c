/* SentencePiece models, published and trained here.
 *
 * A model trained here is lossless for any bytes. Three things that the library
 * itself would lose are kept by giving them to it never, but encoding them as
 * byte pieces: invalid UTF-8 and NUL, and U+2581, with which it writes a space.
 * Such a model has the newline as a symbol of its own and so is read line by
 * line; other models normalise a document as a whole, and get it so. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/threads.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_types.h"
#include "text/utf8.h"

enum {
    SPACE_MARK = 0x2581,
    LONGEST_LINE = 1 << 20,    /* bytes; longer lines are encoded in parts */
    LONGEST_EXAMPLE = 1 << 14, /* of a line, in training */
    DEFAULT_SAMPLE = 256 << 20,
};

typedef struct spm {
    mn__sentencepiece *model;
    int32_t newline;       /* the id of the symbol, or -1 */
    int32_t byte_ids[256]; /* or -1 */
    bool by_lines;
} spm;

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a SentencePiece tokenizer: out of memory");
}

/* ---- Encoding --------------------------------------------------------------- */

/* Length of the prefix that can be given to the library as it is. */
static int64_t plain_prefix(const char *text, int64_t bytes)
{
    int64_t at = 0;
    while (at < bytes) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (length <= 0 || code == 0 || code == SPACE_MARK)
            break;
        at += length;
    }
    return at;
}

static mn_status encode_line(const spm *own, const char *line, int64_t bytes, mn__ids *ids,
                             mn_error *error)
{
    for (int64_t at = 0; at < bytes;) {
        int64_t plain = plain_prefix(line + at, bytes - at);
        if (plain > 0) {
            mn_status status = mn__sentencepiece_encode(own->model, line + at, plain, ids, error);
            if (status)
                return status;
            at += plain;
        } else {
            mn__ids_add(ids, own->byte_ids[(unsigned char)line[at++]]);
        }
    }
    return MN_OK;
}

/* How much of a line that has no end within LONGEST_LINE is encoded at once. */
static int64_t cut_line(const char *line)
{
    return LONGEST_LINE - mn__utf8_partial(line, LONGEST_LINE);
}

static mn_status encode_lines(const spm *own, const char *text, int64_t bytes, bool last,
                              int64_t *used, mn__ids *ids, mn_error *error)
{
    for (*used = 0; *used < bytes;) {
        const char *line = text + *used;
        int64_t rest = bytes - *used, window = rest < LONGEST_LINE ? rest : LONGEST_LINE;
        const char *newline = memchr(line, '\n', (size_t)window);
        if (!newline && rest < LONGEST_LINE && !last)
            return MN_OK;
        int64_t length = newline ? newline - line : rest >= LONGEST_LINE ? cut_line(line) : rest;
        mn_status status = encode_line(own, line, length, ids, error);
        if (status)
            return status;
        if (newline)
            mn__ids_add(ids, own->newline);
        *used += length + (newline != NULL);
    }
    return MN_OK;
}

static mn_status encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error)
{
    const spm *own = tokenizer->own;
    if (own->by_lines)
        return encode_lines(own, text, bytes, last, used, ids, error);
    if (!last)
        return MN_OK;
    int64_t valid = mn__utf8_valid(text, bytes);
    if (valid < bytes)
        return mn__fail(error, MN_ERROR_FORMAT,
                        "mend the text, or train a lossless vocabulary, which takes any bytes",
                        "invalid UTF-8 at byte %lld", (long long)valid);
    *used = bytes;
    return mn__sentencepiece_encode(own->model, text, bytes, ids, error);
}

/* ---- Parsing ---------------------------------------------------------------- */

static mn_status add_piece(mn__tokenizer *tokenizer, int32_t id, mn_error *error)
{
    static const char mark[] = "\xE2\x96\x81";
    spm *own = tokenizer->own;
    mn__piece_kind kind;
    const char *piece = mn__sentencepiece_piece(own->model, id, &kind);
    unsigned byte;
    if (kind == MN__PIECE_CONTROL)
        return mn__tokenizer_add_piece(tokenizer, "", 0, error);
    if (kind == MN__PIECE_UNKNOWN) {
        tokenizer->unknown = id;
        return mn__tokenizer_add_piece(tokenizer, "\xEF\xBF\xBD", 3, error);
    }
    if (kind == MN__PIECE_BYTE && sscanf(piece, "<0x%2X>", &byte) == 1) {
        own->byte_ids[byte] = id;
        return mn__tokenizer_add_piece(tokenizer, &(char){(char)byte}, 1, error);
    }
    mn__string text = {0};
    for (const char *at; (at = strstr(piece, mark)); piece = at + sizeof mark - 1) {
        mn__string_add(&text, piece, at - piece);
        mn__string_puts(&text, " ");
    }
    mn__string_puts(&text, piece);
    mn_status status = text.failed
                           ? fail_memory(error)
                           : mn__tokenizer_add_piece(tokenizer, text.text, text.bytes, error);
    mn__string_free(&text);
    return status;
}

/* Whether a text of everything that normalisers fold comes back as it was. */
static mn_status try_round_trip(mn__tokenizer *tokenizer, bool *equal, mn_error *error)
{
    static const char text[] =
        "  two  spaces \t\r x\xEF\xBC\xA1\xEF\xAC\x81 e\xCC\x81\xC3\xA9 \xC2\xA0\xE2\x80\x8B"
        "\xEF\xBB\xBF \xE2\x80\x99 \xF0\x9F\x98\x80 1\xC2\xBD  ";
    mn__ids ids = {0};
    mn__string back = {0};
    int64_t used;
    mn_status status = encode(tokenizer, text, (int64_t)sizeof text - 1, true, &used, &ids, error);
    if (!status && ids.failed)
        status = fail_memory(error);
    if (!status)
        status = mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, error);
    *equal = !status && back.bytes == (int64_t)sizeof text - 1 &&
             memcmp(back.text, text, sizeof text - 1) == 0;
    mn__ids_free(&ids);
    mn__string_free(&back);
    return status;
}

static bool has_all_bytes(const spm *own)
{
    for (int i = 0; i < 256; i++)
        if (own->byte_ids[i] < 0)
            return false;
    return true;
}

/* Does the model put a space before a text? (Its pieces then decode to one.) */
static mn_status find_dummy_prefix(mn__tokenizer *tokenizer, mn_error *error)
{
    const spm *own = tokenizer->own;
    mn__ids ids = {0};
    mn__string back = {0};
    mn_status status = mn__sentencepiece_encode(own->model, "a", 1, &ids, error);
    if (!status && ids.failed)
        status = fail_memory(error);
    if (!status)
        status = mn__tokenizer_decode(tokenizer, ids.id, ids.count, &back, error);
    tokenizer->strip_first_space = !status && back.bytes > 0 && back.text[0] == ' ';
    mn__ids_free(&ids);
    mn__string_free(&back);
    return status;
}

static mn_status find_properties(mn__tokenizer *tokenizer, mn_error *error)
{
    spm *own = tokenizer->own;
    bool equal = false;
    int32_t begin = mn__sentencepiece_begin(own->model);
    own->newline = mn__sentencepiece_find(own->model, "\n");
    tokenizer->start = begin >= 0 ? begin : own->newline >= 0 ? own->newline : 0;
    if (begin >= 0)
        mn__ids_add(&tokenizer->before, begin);
    if (tokenizer->before.failed)
        return fail_memory(error);
    mn_status status = find_dummy_prefix(tokenizer, error);
    if (!status)
        status = try_round_trip(tokenizer, &equal, error);
    own->by_lines =
        equal && own->newline >= 0 && has_all_bytes(own) && !tokenizer->strip_first_space;
    tokenizer->any_bytes = tokenizer->lossless = own->by_lines;
    return status;
}

static mn_status parse(mn__tokenizer *tokenizer, mn_error *error)
{
    spm *own = mn__calloc(1, sizeof *own);
    tokenizer->own = own;
    if (!own)
        return fail_memory(error);
    memset(own->byte_ids, -1, sizeof own->byte_ids);
    mn_status status = mn__sentencepiece_parse(&own->model, tokenizer->payload.text,
                                               tokenizer->payload.bytes, error);
    if (status)
        return status;
    tokenizer->unknown = -1;
    int32_t vocab = mn__sentencepiece_vocab(own->model);
    for (int32_t id = 0; id < vocab && !status; id++)
        status = add_piece(tokenizer, id, error);
    return status ? status : find_properties(tokenizer, error);
}

static void free_own(void *own)
{
    if (own)
        mn__sentencepiece_free(((spm *)own)->model);
    mn__free(own);
}

/* ---- Training ----------------------------------------------------------------- */

/* An even sample of the lines seen: every `stride`-th. When the room is full,
 * every second of those kept is dropped and the stride doubles. */
typedef struct sample {
    mn__tokenizer_plan plan;
    mn__string text;
    int64_t *begins; /* [lines + 1] */
    int64_t lines, capacity;
    int64_t stride, seen;
} sample;

static void learner_free(void *learner)
{
    sample *lines = learner;
    if (!lines)
        return;
    mn__string_free(&lines->text);
    mn__free(lines->begins);
    mn__free(lines);
}

static mn_status learner_new(void **learner, mn__tokenizer_plan plan, mn_error *error)
{
    sample *lines = mn__calloc(1, sizeof *lines);
    *learner = lines;
    if (!lines)
        return fail_memory(error);
    lines->plan = plan;
    if (plan.train_bytes <= 0)
        lines->plan.train_bytes = DEFAULT_SAMPLE;
    lines->stride = 1;
    return MN_OK;
}

static void drop_every_second(sample *lines)
{
    int64_t kept = 0, bytes = 0;
    for (int64_t i = 0; i < lines->lines; i += 2) {
        int64_t begin = lines->begins[i], length = lines->begins[i + 1] - begin;
        memmove(lines->text.text + bytes, lines->text.text + begin, (size_t)length);
        lines->begins[kept++] = bytes;
        bytes += length;
    }
    lines->begins[kept] = bytes;
    lines->lines = kept;
    lines->text.bytes = bytes;
    lines->stride *= 2;
}

static mn_status keep_line(sample *lines, const char *line, int64_t bytes, mn_error *error)
{
    if (bytes == 0 || lines->seen++ % lines->stride != 0)
        return MN_OK;
    if (lines->lines + 2 > lines->capacity) {
        int64_t capacity = 2 * lines->capacity + 4096;
        int64_t *begins = mn__realloc(lines->begins, capacity * (int64_t)sizeof *begins);
        if (!begins)
            return fail_memory(error);
        lines->begins = begins;
        lines->capacity = capacity;
    }
    lines->begins[lines->lines++] = lines->text.bytes;
    mn__string_add(&lines->text, line, bytes);
    lines->begins[lines->lines] = lines->text.bytes;
    if (lines->text.failed)
        return fail_memory(error);
    if (lines->text.bytes > lines->plan.train_bytes && lines->lines > 1)
        drop_every_second(lines);
    return MN_OK;
}

/* Only what the library would be given in encoding is learned from. */
static mn_status learn_line(sample *lines, const char *line, int64_t bytes, mn_error *error)
{
    for (int64_t at = 0; at < bytes;) {
        int64_t room = bytes - at < LONGEST_EXAMPLE ? bytes - at : LONGEST_EXAMPLE;
        int64_t plain = plain_prefix(line + at, room);
        mn_status status = keep_line(lines, line + at, plain, error);
        if (status)
            return status;
        at += plain > 0 ? plain : 1;
    }
    return MN_OK;
}

static mn_status learn(void *learner, const char *text, int64_t bytes, bool last, int64_t *used,
                       mn_error *error)
{
    for (*used = 0; *used < bytes;) {
        const char *line = text + *used;
        const char *newline = memchr(line, '\n', (size_t)(bytes - *used));
        if (!newline && !last)
            return MN_OK;
        int64_t length = newline ? newline - line : bytes - *used;
        mn_status status = learn_line(learner, line, length, error);
        if (status)
            return status;
        *used += length + (newline != NULL);
    }
    return MN_OK;
}

static void write_payload(void *user, const void *data, int64_t bytes)
{
    mn__string_add(user, data, bytes);
}

static mn_status finish(void *learner, mn__string *payload, mn_error *error)
{
    const sample *lines = learner;
    if (lines->lines == 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "there is no text to learn a SentencePiece vocabulary from");
    mn__sentencepiece_training training = {
        .text = lines->text.text,
        .begins = lines->begins,
        .lines = lines->lines,
        .vocab = lines->plan.vocab,
        .unigram = lines->plan.unigram,
        .threads = mn__threads(),
        .longest = LONGEST_EXAMPLE,
    };
    return mn__sentencepiece_train(&training, write_payload, payload, error);
}

const mn__tokenizer_type mn__tokenizer_type_sentencepiece = {
    .name = "sentencepiece",
    .file = "tokenizer.model",
    .help = "a SentencePiece model: a .model file, or trained on the corpus",
    .parse = parse,
    .encode = encode,
    .free = free_own,
    .learner_new = learner_new,
    .learn = learn,
    .finish = finish,
    .learner_free = learner_free,
};
