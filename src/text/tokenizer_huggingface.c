/* tokenizer.json, as the `tokenizers` package of Hugging Face writes and reads it: added tokens
 * are found, the rest is normalised, cut by pre-tokenizers, and each piece is given to the model.
 *
 * Bytes that are no UTF-8, which the package does not take, become their byte tokens where the
 * vocabulary has all 256 of them. What this is not: truncation and padding, which the file may ask
 * for; pairs of texts; offsets. */
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "text/added_tokens.h"
#include "text/huggingface.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_types.h"
#include "text/utf8.h"
#include "text/word_cache.h"

static const char file[] = "tokenizer.json", mark[] = "\xE2\x96\x81";

enum { MARK = sizeof mark - 1 };

/* What encoding writes to. The one that is spare is kept for the next call; a second thread makes
 * one of its own. */
typedef struct workshop {
    mn__pretokenizer_scratch pieces;
    mn__bpe_scratch bpe;
    mn__unigram_scratch unigram;
    mn__word_cache *cache;
    mn__string normal, scratch;
} workshop;

typedef struct huggingface {
    mn__added_tokens raw, normal; /* found before normalising, and after */
    mn__normalizer normalizer;
    mn__pretokenizer pretokenizer;
    mn__cutter cutter;
    int32_t byte_ids[256];
    bool has_bytes;   /* all of them */
    bool marks_apart; /* no token has a mark behind another character: it may be cut there */
    bool in_parts;    /* a document may be cut between a line's end and one of these: */
    bool begins[256]; /* letters, with which no added token begins */
    _Atomic(workshop *) spare;
} huggingface;

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* ---- Encoding ---------------------------------------------------------------------------------
 */

static void workshop_free(workshop *w)
{
    if (!w)
        return;
    mn__pretokenizer_scratch_free(&w->pieces);
    mn__bpe_scratch_free(&w->bpe);
    mn__unigram_scratch_free(&w->unigram);
    mn__word_cache_free(w->cache);
    mn__string_free(&w->normal);
    mn__string_free(&w->scratch);
    mn__free(w);
}

static workshop *workshop_take(huggingface *own)
{
    workshop *w = atomic_exchange(&own->spare, NULL);
    if (w)
        return w;
    w = mn__calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->cache = mn__word_cache_new();
    if (w->cache)
        return w;
    workshop_free(w);
    return NULL;
}

static void workshop_give(huggingface *own, workshop *w)
{
    workshop_free(atomic_exchange(&own->spare, w));
}

typedef struct job {
    const huggingface *own;
    workshop *w;
    mn__ids *ids;
} job;

static mn_status cut(const job *j, const char *piece, int64_t bytes, mn_error *error)
{
    const mn__cutter *cutter = &j->own->cutter;
    uint64_t slot = mn__word_cache_slot(piece, bytes);
    if (mn__word_cache_find(j->w->cache, slot, piece, bytes, j->ids))
        return MN_OK;
    int64_t before = j->ids->count;
    mn_status status =
        cutter->is_unigram
            ? mn__unigram_encode(&cutter->unigram, &j->w->unigram, piece, bytes, j->ids, error)
            : mn__bpe_encode(&cutter->bpe, &j->w->bpe, piece, bytes, j->ids, error);
    if (!status && !j->ids->failed && j->ids->count > before)
        mn__word_cache_keep(j->w->cache, slot, piece, bytes, j->ids->id + before,
                            j->ids->count - before);
    return status;
}

/* The next mark behind another character. */
static int64_t next_mark(const char *text, int64_t bytes)
{
    for (int64_t at = 1; at < bytes;) {
        const char *found = memmem(text + at, (size_t)(bytes - at), mark, MARK);
        if (!found)
            break;
        at = found - text;
        if (at < MARK || memcmp(found - MARK, mark, MARK) != 0)
            return at;
        at += MARK;
    }
    return bytes;
}

static mn_status take(void *user, const char *piece, int64_t bytes, mn_error *error)
{
    const job *j = user;
    if (!j->own->marks_apart)
        return cut(j, piece, bytes, error);
    for (int64_t at = 0, length; at < bytes; at += length) {
        length = next_mark(piece + at, bytes - at);
        mn_status status = cut(j, piece + at, length, error);
        if (status)
            return status;
    }
    return MN_OK;
}

/* Text between added tokens that are found before normalising. until: see mn__pretokenizer_run. */
static mn_status encode_text(job *j, const char *text, int64_t bytes, int64_t until, bool at_start,
                             mn_error *error)
{
    const huggingface *own = j->own;
    mn_status status = MN_OK;
    if (own->normalizer.count > 0) {
        if (!j->w->pieces.matcher && !(j->w->pieces.matcher = mn__matcher_new()))
            return fail_memory(error);
        status = mn__normalizer_apply(&own->normalizer, j->w->pieces.matcher, text, bytes,
                                      &j->w->normal, &j->w->scratch, error);
        text = j->w->normal.text ? j->w->normal.text : "";
        until = bytes = j->w->normal.bytes;
    }
    int64_t done = 0, from = 0, begin, end, next;
    const mn__added_token *token;
    while (!status && (token = mn__added_tokens_next(&own->normal, text, until, from, done, &begin,
                                                     &end, &next))) {
        if (begin > done)
            status =
                mn__pretokenizer_run(&own->pretokenizer, &j->w->pieces, text + done, begin - done,
                                     begin - done, at_start && done == 0, take, j, error);
        mn__ids_add(j->ids, token->id);
        done = end > done ? end : done;
        from = next;
    }
    if (status || done >= until)
        return status;
    return mn__pretokenizer_run(&own->pretokenizer, &j->w->pieces, text + done, bytes - done,
                                until - done, at_start && done == 0, take, j, error);
}

/* Valid UTF-8, of which text[until..bytes) is only seen. */
static mn_status encode_valid(job *j, const char *text, int64_t bytes, int64_t until, bool at_start,
                              mn_error *error)
{
    int64_t done = 0, from = 0, begin, end, next;
    const mn__added_token *token;
    mn_status status = MN_OK;
    while (!status && (token = mn__added_tokens_next(&j->own->raw, text, until, from, done, &begin,
                                                     &end, &next))) {
        if (begin > done)
            status = encode_text(j, text + done, begin - done, begin - done, at_start && done == 0,
                                 error);
        mn__ids_add(j->ids, token->id);
        done = end > done ? end : done;
        from = next;
    }
    if (status || done >= until)
        return status;
    return encode_text(j, text + done, bytes - done, until - done, at_start && done == 0, error);
}

/* The last place where a document may be cut, or 0. */
static int64_t last_cut(const huggingface *own, const char *text, int64_t bytes)
{
    for (int64_t at = bytes - 1; own->in_parts && at > 0; at--)
        if (text[at - 1] == '\n' && own->begins[(unsigned char)text[at]])
            return at;
    return 0;
}

static mn_status encode_all(job *j, const char *text, int64_t bytes, int64_t until, mn_error *error)
{
    const huggingface *own = j->own;
    for (int64_t at = 0; at < until;) {
        int64_t valid = mn__utf8_valid(text + at, bytes - at);
        int64_t stop = at + valid < until ? at + valid : until;
        mn_status status = MN_OK;
        if (stop > at)
            status = encode_valid(j, text + at, valid, stop - at, at == 0, error);
        if (status)
            return status;
        at = stop;
        if (at == until)
            break;
        if (!own->has_bytes)
            return mn__fail(error, MN_ERROR_FORMAT,
                            "mend the text, or use a vocabulary with a token for each byte",
                            "invalid UTF-8 at byte %lld", (long long)at);
        mn__ids_add(j->ids, own->byte_ids[(unsigned char)text[at++]]);
    }
    return MN_OK;
}

static mn_status encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error)
{
    huggingface *own = tokenizer->own;
    int64_t until = last ? bytes : last_cut(own, text, bytes);
    *used = 0;
    if (until == 0)
        return MN_OK;
    workshop *w = workshop_take(own);
    if (!w)
        return fail_memory(error);
    mn_status status = encode_all(&(job){own, w, ids}, text, bytes, until, error);
    workshop_give(own, w);
    *used = until;
    return status;
}

/* ---- Parsing ----------------------------------------------------------------------------------
 */

typedef struct parsing {
    mn__tokenizer *tokenizer;
    huggingface *own;
    mn__json root;
    mn__string text, scratch;
    bool *added;      /* [V] whether an id is an added token */
    bool gives_bytes; /* the decoder undoes the alphabet */
} parsing;

/* What an added token is found as: those that are normalised, as the normalizer leaves them. */
static mn_status add_found(parsing *p, mn__added_tokens *tokens, const char *content,
                           mn__added_token token, mn_error *error)
{
    if (tokens == &p->own->raw)
        return mn__added_tokens_add(tokens, content, (int64_t)strlen(content), token, error);
    mn__matcher *matcher = mn__matcher_new();
    if (!matcher)
        return fail_memory(error);
    mn_status status = mn__normalizer_apply(&p->own->normalizer, matcher, content,
                                            (int64_t)strlen(content), &p->text, &p->scratch, error);
    mn__matcher_free(matcher);
    if (status || p->text.bytes == 0)
        return status;
    return mn__added_tokens_add(tokens, p->text.text, p->text.bytes, token, error);
}

static mn_status add_token(parsing *p, mn__json object, mn_error *error)
{
    int64_t id;
    const char *content;
    mn__added_token token = {0};
    bool normalized = true, special = false;
    mn_status status = mn__json_int(object, "id", MN__JSON_REQUIRED, &id, error);
    if (!status)
        status = mn__json_string(object, "content", MN__JSON_REQUIRED, &content, error);
    if (!status)
        status = mn__json_bool(object, "normalized", MN__JSON_OPTIONAL, &normalized, error);
    if (!status)
        status = mn__json_bool(object, "special", MN__JSON_OPTIONAL, &special, error);
    if (!status)
        status = mn__json_bool(object, "single_word", MN__JSON_OPTIONAL, &token.single_word, error);
    if (!status)
        status = mn__json_bool(object, "lstrip", MN__JSON_OPTIONAL, &token.lstrip, error);
    if (!status)
        status = mn__json_bool(object, "rstrip", MN__JSON_OPTIONAL, &token.rstrip, error);
    if (status || !*content)
        return status;
    int32_t known = mn__cutter_find(&p->own->cutter, content);
    if (known >= 0 && known != id)
        return mn__fail(error, MN_ERROR_FORMAT, NULL,
                        "%s: the added token \"%s\" has id %lld, the vocabulary gives it %d", file,
                        content, (long long)id, known);
    status = mn__cutter_set(&p->own->cutter, file, id, content, error);
    token.id = (int32_t)id;
    return status
               ? status
               : add_found(p, normalized ? &p->own->normal : &p->own->raw, content, token, error);
}

static mn_status parse_added(parsing *p, mn_error *error)
{
    mn__json list = {file, NULL};
    mn_status status = mn__json_array(p->root, "added_tokens", MN__JSON_OPTIONAL, &list, error);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++)
        status = add_token(p, (mn__json){file, json_array_get(list.value, i)}, error);
    if (status)
        return status;
    int64_t vocab = p->own->cutter.vocab;
    p->added = mn__calloc(vocab + 1, (int64_t)sizeof(bool));
    p->tokenizer->special = mn__calloc(vocab + 1, (int64_t)sizeof(bool));
    if (!p->added || !p->tokenizer->special)
        return fail_memory(error);
    for (size_t i = 0; i < json_array_size(list.value); i++) {
        const json_t *token = json_array_get(list.value, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        if (!content || !*content)
            continue;
        json_int_t id = json_integer_value(json_object_get(token, "id"));
        p->added[id] = true;
        p->tokenizer->special[id] = json_is_true(json_object_get(token, "special"));
    }
    return MN_OK;
}

/* Every id's bytes: added tokens are their content, the others go through the decoder. */
static mn_status parse_pieces(parsing *p, mn_error *error)
{
    const mn__cutter *cutter = &p->own->cutter;
    mn__decoder_plan plan = {0};
    mn_status status =
        mn__decoder_plan_parse(&plan, file, json_object_get(p->root.value, "decoder"), error);
    p->tokenizer->strip_first_space = plan.strip_first_space;
    p->gives_bytes = plan.byte_level;
    for (int64_t id = 0; !status && id < cutter->vocab; id++) {
        const char *token = cutter->tokens[id] ? cutter->tokens[id] : "";
        mn__string_clear(&p->text);
        if (p->added[id])
            mn__string_puts(&p->text, token);
        else
            mn__decoder_plan_apply(&plan, token, &p->text, &p->scratch);
        status = p->text.failed || p->scratch.failed
                     ? fail_memory(error)
                     : mn__tokenizer_add_piece(p->tokenizer, p->text.text ? p->text.text : "",
                                               p->text.bytes, error);
    }
    return status;
}

/* Merges never join a mark to what stands before it, except to other marks: then a text may be cut
 * before it, and its words be kept. Equal to cutting nothing, as no merge crosses such a place. */
static bool marks_stand_apart(const mn__bpe *bpe)
{
    if (bpe->byte_level || bpe->whole_words || mn__bpe_find(bpe, mark, MARK) < 0)
        return false;
    for (int64_t i = 0; i < bpe->tokens.count; i++) {
        const mn__vocabulary_word *word = &bpe->tokens.words[i];
        if (next_mark(bpe->tokens.text.text + word->begin, word->bytes) < word->bytes)
            return false;
    }
    return true;
}

static void find_properties(parsing *p)
{
    huggingface *own = p->own;
    mn__tokenizer *tokenizer = p->tokenizer;
    const mn__cutter *cutter = &own->cutter;
    bool on_bytes = cutter->bpe.byte_level;
    memcpy(own->byte_ids, cutter->is_unigram ? cutter->unigram.byte_ids : cutter->bpe.byte_ids,
           sizeof own->byte_ids);
    own->has_bytes = on_bytes || cutter->bpe.byte_fallback ||
                     (cutter->is_unigram && cutter->unigram.byte_fallback);
    for (int i = 0; i < 256; i++)
        own->has_bytes &= own->byte_ids[i] >= 0;
    own->marks_apart = !cutter->is_unigram && marks_stand_apart(&cutter->bpe);

    bool plain =
        (own->raw.plain || own->raw.count == 0) && (own->normal.plain || own->normal.count == 0);
    own->in_parts = plain && own->normalizer.count == 0 && own->pretokenizer.known_pattern;
    for (int c = 'A'; c <= 'z'; c++)
        own->begins[c] = (c <= 'Z' || c >= 'a') && !own->raw.first[c] && !own->normal.first[c];

    bool strips = false; /* an added token takes white space that it does not give back */
    for (int64_t i = 0; i < own->raw.count; i++)
        strips |= own->raw.list[i].lstrip || own->raw.list[i].rstrip;
    for (int64_t i = 0; i < own->normal.count; i++)
        strips |= own->normal.list[i].lstrip || own->normal.list[i].rstrip;
    bool keeps = on_bytes && p->gives_bytes && !strips && own->normalizer.count == 0 &&
                 !own->pretokenizer.adds_space && !own->pretokenizer.loses &&
                 !tokenizer->strip_first_space;
    tokenizer->any_bytes = tokenizer->lossless = keeps;
    for (int i = 0; i < 256; i++) {
        bool in_text = i != 0xC0 && i != 0xC1 && i < 0xF5; /* of UTF-8 */
        tokenizer->any_bytes &= own->byte_ids[i] >= 0;
        tokenizer->lossless &= own->byte_ids[i] >= 0 || !in_text;
    }
    tokenizer->unknown = cutter->is_unigram ? cutter->unigram.unknown : cutter->bpe.unknown;
}

/* The id fed before a document's first token. */
static mn_status find_start(parsing *p, mn_error *error)
{
    static const char *const names[] = {
        "<|begin_of_text|>", "<s>", "<bos>", "<|endoftext|>", "</s>", "\xC4\x8A", "\n", NULL};
    mn__tokenizer *tokenizer = p->tokenizer;
    mn_status status =
        mn__post_processor_parse(&tokenizer->before, &tokenizer->after, file,
                                 json_object_get(p->root.value, "post_processor"), error);
    for (int64_t i = 0; !status && i < tokenizer->before.count + tokenizer->after.count; i++) {
        int64_t n = tokenizer->before.count;
        int32_t id = i < n ? tokenizer->before.id[i] : tokenizer->after.id[i - n];
        if (id >= tokenizer->vocab)
            status = mn__fail(error, MN_ERROR_FORMAT, NULL,
                              "%s: the post-processor's id %d is outside the vocabulary", file, id);
    }
    tokenizer->start = -1;
    if (tokenizer->before.count > 0)
        tokenizer->start = tokenizer->before.id[0];
    for (int i = 0; names[i] && tokenizer->start < 0; i++) {
        int32_t id = mn__cutter_find(&p->own->cutter, names[i]);
        if (id >= 0 && (p->added[id] || strlen(names[i]) < 3)) /* no "</s>" of source code */
            tokenizer->start = id;
    }
    tokenizer->start = tokenizer->start < 0 ? 0 : tokenizer->start;
    return status;
}

static mn_status parse_root(parsing *p, mn_error *error)
{
    huggingface *own = p->own;
    mn__json model;
    mn_status status = mn__normalizer_parse(&own->normalizer, file,
                                            json_object_get(p->root.value, "normalizer"), error);
    if (!status)
        status = mn__pretokenizer_parse(&own->pretokenizer, file,
                                        json_object_get(p->root.value, "pre_tokenizer"), error);
    if (!status)
        status = mn__json_object(p->root, "model", MN__JSON_REQUIRED, &model, error);
    if (!status)
        status =
            mn__cutter_parse(&own->cutter, file, model.value, own->pretokenizer.byte_level, error);
    if (!status)
        status = parse_added(p, error);
    if (!status && own->cutter.vocab == 0)
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: the vocabulary is empty", file);
    if (!status)
        status = parse_pieces(p, error);
    if (!status)
        status = find_start(p, error);
    if (!status)
        find_properties(p);
    /* The texts belong to the JSON. */
    mn__free(own->cutter.tokens);
    own->cutter.tokens = NULL;
    mn__vocabulary_free(&own->cutter.texts);
    return status;
}

static mn_status parse(mn__tokenizer *tokenizer, mn_error *error)
{
    json_t *root;
    huggingface *own = mn__calloc(1, sizeof *own);
    tokenizer->own = own;
    if (!own)
        return fail_memory(error);
    mn__cutter_init(&own->cutter);
    const mn__string *text = &tokenizer->payload;
    mn_status status =
        mn__json_parse(file, text->text ? text->text : "", text->bytes, &root, error);
    if (status)
        return status;
    parsing p = {.tokenizer = tokenizer, .own = own, .root = {file, root}};
    status = json_is_object(root)
                 ? parse_root(&p, error)
                 : mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: is no JSON object", file);
    mn__string_free(&p.text);
    mn__string_free(&p.scratch);
    mn__free(p.added);
    json_decref(root);
    return status;
}

static void free_own(void *user)
{
    huggingface *own = user;
    if (!own)
        return;
    mn__added_tokens_free(&own->raw);
    mn__added_tokens_free(&own->normal);
    mn__normalizer_free(&own->normalizer);
    mn__pretokenizer_free(&own->pretokenizer);
    mn__cutter_free(&own->cutter);
    workshop_free(atomic_exchange(&own->spare, NULL));
    mn__free(own);
}

const mn__tokenizer_type mn__tokenizer_type_huggingface = {
    .name = "huggingface",
    .file = "tokenizer.huggingface.json",
    .help = "a tokenizer.json of Hugging Face, as it is",
    .parse = parse,
    .encode = encode,
    .free = free_own,
};
