/* Added tokens, after the `tokenizers` package (src/tokenizer/added_vocabulary.rs). */
#include "text/added_tokens.h"

#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/utf8.h"

mn_status mn__added_tokens_add(mn__added_tokens *tokens, const char *text, int64_t bytes,
                               mn__added_token token, mn_error *error)
{
    if (tokens->count == tokens->capacity) {
        int64_t capacity = 2 * tokens->capacity + 64;
        mn__added_token *list =
            mn__realloc(tokens->list, mn__size_product(capacity, (int64_t)sizeof *list));
        if (!list)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
        tokens->list = list;
        tokens->capacity = capacity;
    }
    if (!mn__trie_add(&tokens->trie, text, bytes, (int32_t)tokens->count))
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    tokens->plain = (tokens->plain || tokens->count == 0) && !token.single_word && !token.lstrip &&
                    !token.rstrip && !memchr(text, '\n', (size_t)bytes);
    tokens->first[(unsigned char)*text] = true;
    if (tokens->count == 0)
        tokens->first_byte = (unsigned char)*text;
    else if (tokens->first_byte != (unsigned char)*text)
        tokens->first_byte = -1;
    tokens->list[tokens->count++] = token;
    return MN_OK;
}

void mn__added_tokens_free(mn__added_tokens *tokens)
{
    mn__trie_free(&tokens->trie);
    mn__free(tokens->list);
}

/* ---- Characters beside a match ------------------------------------------------------------------
 */

static bool is_white(uint32_t code)
{
    return mn__utf8_is_space(code) && (code < 0x1C || code > 0x1F);
}

/* \w: letters, marks, decimal digits, connectors. */
static bool is_word(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* The character that ends at text[at], at > 0; its first byte's place. */
static int64_t character_before(const char *text, int64_t at, uint32_t *code)
{
    int64_t begin = at - 1;
    while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80)
        begin--;
    mn__utf8_decode(text + begin, at - begin, code);
    return begin;
}

static bool stands_alone(const char *text, int64_t bytes, int64_t begin, int64_t end)
{
    uint32_t code = ' ';
    if (begin > 0)
        character_before(text, begin, &code);
    if (is_word(code))
        return false;
    code = ' ';
    if (end < bytes)
        mn__utf8_decode(text + end, bytes - end, &code);
    return !is_word(code);
}

static int64_t white_before(const char *text, int64_t at)
{
    uint32_t code;
    for (int64_t begin; at > 0; at = begin) {
        begin = character_before(text, at, &code);
        if (!is_white(code))
            break;
    }
    return at;
}

static int64_t white_behind(const char *text, int64_t bytes, int64_t at)
{
    while (at < bytes) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (!is_white(code))
            break;
        at += length;
    }
    return at;
}

/* ---- Matching
 * ------------------------------------------------------------------------------------ */

/* The longest token at text[at], or NULL. */
static const mn__added_token *longest(const mn__added_tokens *tokens, const char *text,
                                      int64_t bytes, int64_t at, int64_t *end)
{
    const mn__added_token *found = NULL;
    int32_t node = 0;
    for (int64_t i = at; i < bytes; i++) {
        const mn__pair_slot *edge =
            mn__pairs_find(&tokens->trie.edges, node, (unsigned char)text[i]);
        if (!edge)
            break;
        node = edge->id;
        if (edge->rank >= 0) {
            found = &tokens->list[edge->rank];
            *end = i + 1;
        }
    }
    return found;
}

/* The next place where a token may begin. */
static int64_t next_candidate(const mn__added_tokens *tokens, const char *text, int64_t bytes,
                              int64_t at)
{
    if (tokens->first_byte >= 0) {
        const char *found = memchr(text + at, tokens->first_byte, (size_t)(bytes - at));
        return found ? found - text : bytes;
    }
    while (at < bytes && !tokens->first[(unsigned char)text[at]])
        at++;
    return at;
}

const mn__added_token *mn__added_tokens_next(const mn__added_tokens *tokens, const char *text,
                                             int64_t bytes, int64_t from, int64_t done,
                                             int64_t *begin, int64_t *end, int64_t *next)
{
    for (int64_t at = from; tokens->count > 0 && at < bytes; at++) {
        at = next_candidate(tokens, text, bytes, at);
        const mn__added_token *token = at < bytes ? longest(tokens, text, bytes, at, end) : NULL;
        if (!token)
            continue;
        *next = *end;
        if (token->single_word && !stands_alone(text, bytes, at, *end)) {
            at = *end - 1;
            continue;
        }
        *begin = token->lstrip ? white_before(text, at) : at;
        *begin = *begin < done ? done : *begin;
        *end = token->rstrip ? white_behind(text, bytes, *end) : *end;
        return token;
    }
    return NULL;
}
