/* Characters: one id for each code point that occurs in a corpus, in order of
 * code points. What was not counted cannot be encoded: there is no <unk>, since
 * bits per character would then be over another text.
 *
 * The payload is the characters themselves, in UTF-8, in order of ids. */
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer_types.h"
#include "text/utf8.h"

enum { CODES = 0x110000 };

/* Says where bad UTF-8 is; offsets are counted from `text`. */
static mn_status fail_invalid(int64_t offset, mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT,
                    "mend the text, or use the bytes tokenizer, which takes any bytes",
                    "invalid UTF-8 at byte %lld", (long long)offset);
}

/* ---- Using ------------------------------------------------------------------ */

static mn_status parse(mn__tokenizer *tokenizer, mn_error *error)
{
    const mn__string *set = &tokenizer->payload;
    int32_t *id_of = mn__malloc(CODES * (int64_t)sizeof *id_of); /* [CODES], -1: none */
    tokenizer->own = id_of;
    if (!id_of)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a character set: out of memory");
    memset(id_of, -1, CODES * sizeof *id_of);
    for (int64_t at = 0; at < set->bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(set->text + at, set->bytes - at, &code);
        if (length <= 0)
            return fail_invalid(at, error);
        if (id_of[code] >= 0)
            return mn__fail(error, MN_ERROR_FORMAT, NULL, "a character set holds U+%04X twice",
                            code);
        id_of[code] = (int32_t)tokenizer->vocab;
        mn_status status = mn__tokenizer_add_piece(tokenizer, set->text + at, length, error);
        if (status)
            return status;
        at += length;
    }
    if (tokenizer->vocab == 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "a character set is empty");
    tokenizer->start = id_of['\n'] >= 0 ? id_of['\n'] : id_of[' '] >= 0 ? id_of[' '] : 0;
    tokenizer->unknown = -1;
    tokenizer->lossless = true;
    return MN_OK;
}

static mn_status encode(const mn__tokenizer *tokenizer, const char *text, int64_t bytes, bool last,
                        int64_t *used, mn__ids *ids, mn_error *error)
{
    const int32_t *id_of = tokenizer->own;
    for (*used = 0; *used < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + *used, bytes - *used, &code);
        if (length == MN__UTF8_PARTIAL && !last)
            return MN_OK;
        if (length <= 0)
            return fail_invalid(*used, error);
        if (id_of[code] < 0)
            return mn__fail(error, MN_ERROR_MISMATCH,
                            "count the set over all the text that is to be read",
                            "U+%04X at byte %lld is not among the tokenizer's %lld characters",
                            code, (long long)*used, (long long)tokenizer->vocab);
        mn__ids_add(ids, id_of[code]);
        *used += length;
    }
    return MN_OK;
}

/* ---- Learning --------------------------------------------------------------- */

typedef struct seen_set {
    bool code[CODES];
} seen_set;

static mn_status learner_new(void **learner, mn__tokenizer_plan plan, mn_error *error)
{
    (void)plan;
    *learner = mn__calloc(1, sizeof(seen_set));
    return *learner ? MN_OK
                    : mn__fail(error, MN_ERROR_MEMORY, NULL, "counting characters: out of memory");
}

static mn_status learn(void *learner, const char *text, int64_t bytes, bool last, int64_t *used,
                       mn_error *error)
{
    seen_set *seen = learner;
    for (*used = 0; *used < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + *used, bytes - *used, &code);
        if (length == MN__UTF8_PARTIAL && !last)
            return MN_OK;
        if (length <= 0)
            return fail_invalid(*used, error);
        seen->code[code] = true;
        *used += length;
    }
    return MN_OK;
}

static mn_status finish(void *learner, mn__string *payload, mn_error *error)
{
    (void)error;
    const seen_set *seen = learner;
    for (uint32_t code = 0; code < CODES; code++) {
        char text[4];
        if (seen->code[code])
            mn__string_add(payload, text, mn__utf8_encode(code, text));
    }
    return MN_OK;
}

const mn__tokenizer_type mn__tokenizer_type_characters = {
    .name = "characters",
    .file = "tokenizer.characters",
    .help = "one id for each character that occurs in the corpus",
    .parse = parse,
    .encode = encode,
    .learner_new = learner_new,
    .learn = learn,
    .finish = finish,
};
