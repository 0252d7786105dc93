/* llama2.c's tokenizer.bin (its tokenizer.py) as a tokenizer.json: an int32, the longest token;
 * of each token a float, its score, an int32, its length, and its text. */
#include <string.h>

#include "base/memory.h"
#include "text/import.h"

enum { UNKNOWN, BEGIN, END, BYTES, OTHERS = BYTES + 256 };

typedef struct tokens {
    mn__scored_token *items; /* [count]; texts are `begins` until all is read */
    int64_t count, capacity;
    mn__string text;
} tokens;

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

static mn_status broken(int64_t token, const char *why, mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT,
                    "give the tokenizer.bin that llama2.c's tokenizer.py has written",
                    "token %lld %s", (long long)token, why);
}

static bool add(tokens *t, double score)
{
    if (t->count == t->capacity) {
        int64_t capacity = t->capacity ? 2 * t->capacity : 1024;
        mn__scored_token *items =
            mn__realloc(t->items, mn__size_product(capacity, (int64_t)sizeof *items));
        if (!items)
            return false;
        t->items = items;
        t->capacity = capacity;
    }
    t->items[t->count] = (mn__scored_token){.score = score, .joins = t->count >= OTHERS};
    t->count++;
    return true;
}

/* Spaces as SentencePiece writes them. */
static void add_text(tokens *t, const char *text, int64_t bytes)
{
    int64_t begin = t->text.bytes;
    for (int64_t i = 0; i < bytes; i++)
        if (text[i] == ' ')
            mn__string_puts(&t->text, "\xE2\x96\x81");
        else
            mn__string_add(&t->text, text + i, 1);
    t->items[t->count - 1].bytes = t->text.bytes - begin;
}

static mn_status read_tokens(tokens *t, const char *data, int64_t bytes, mn_error *error)
{
    for (int64_t at = 4; at < bytes;) {
        float score;
        int32_t length;
        if (bytes - at < 8)
            return broken(t->count, "is cut off", error);
        memcpy(&score, data + at, 4);
        memcpy(&length, data + at + 4, 4);
        at += 8;
        if (length < 1 || length > bytes - at)
            return broken(t->count, "is longer than the file, or empty", error);
        if (!add(t, (double)score))
            return fail_memory(error);
        add_text(t, data + at, length);
        at += length;
    }
    if (t->text.failed)
        return fail_memory(error);
    int64_t begin = 0;
    for (int64_t i = 0; i < t->count; begin += t->items[i++].bytes)
        t->items[i].text = t->text.text + begin;
    return MN_OK;
}

static bool is_text(const mn__scored_token *token, const char *text)
{
    return token->bytes == (int64_t)strlen(text) &&
           !memcmp(token->text, text, (size_t)token->bytes);
}

/* The file gives no roles: they are Llama 2's. Its <s> and </s> stand between newlines, as the
 * runner prints them. */
static mn_status name_specials(tokens *t, mn_error *error)
{
    static const char *const named[][2] = {
        {"<unk>", "<unk>"}, {"<s>", "\n<s>\n"}, {"</s>", "\n</s>\n"}};
    if (t->count < OTHERS)
        return broken(t->count, "is missing: there are <unk>, <s>, </s> and the bytes", error);
    for (int i = UNKNOWN; i <= END; i++) {
        if (!is_text(&t->items[i], named[i][0]) && !is_text(&t->items[i], named[i][1]))
            return broken(i, "is not Llama 2's <unk>, <s> or </s>", error);
        t->items[i].text = named[i][0];
        t->items[i].bytes = (int64_t)strlen(named[i][0]);
    }
    for (int i = 0; i < 256; i++) {
        const char digits[] = "0123456789ABCDEF",
                   byte[] = {'<', '0', 'x', digits[i / 16], digits[i % 16], '>', '\0'};
        if (!is_text(&t->items[BYTES + i], byte))
            return broken(BYTES + i, "is not the byte that it is in Llama 2's", error);
    }
    return MN_OK;
}

static mn_status write(const tokens *t, mn__string *json, mn_error *error)
{
    const int64_t begin = BEGIN;
    mn_status status = mn__import_scored(t->items, t->count, UNKNOWN, true, json, error);
    if (status)
        return status;
    mn__import_before(json, &begin, 1);
    mn__string_puts(json, "\"added_tokens\":[");
    for (int64_t i = UNKNOWN; i <= END; i++)
        mn__import_added(json, i, t->items[i].text, t->items[i].bytes, true);
    mn__string_puts(json, "]}\n");
    return json->failed ? fail_memory(error) : MN_OK;
}

mn_status mn__import_llama2c(const char *data, int64_t bytes, mn__string *json, mn_error *error)
{
    tokens t = {0};
    mn_status status = read_tokens(&t, data, bytes, error);
    if (!status)
        status = name_specials(&t, error);
    if (!status)
        status = write(&t, json, error);
    mn__free(t.items);
    mn__string_free(&t.text);
    return status;
}
