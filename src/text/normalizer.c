/* Normalizers, after the `tokenizers` package (src/normalizers). */
#include "text/normalizer.h"

#include <string.h>
#include <utf8proc.h>

#include "base/memory.h"
#include "text/charsmap.h"
#include "text/utf8.h"

enum { STEPS_MOST = 64, DEPTH_MOST = 16 };

struct mn__normalizer_step {
    mn_status (*apply)(const mn__normalizer_step *step, mn__matcher *matcher, const char *text,
                       int64_t bytes, mn__string *out, mn_error *error);
    mn__string pattern, content;
    mn__regex *regex;
    utf8proc_option_t options; /* of a Unicode form */
    uint32_t inert;            /* code points below are as they were, in that form */
    bool left, right;
    mn__charsmap map;
};

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
}

/* ---- Unicode ----------------------------------------------------------------------------------
 */

static mn_status compose(const mn__normalizer_step *step, const char *text, int64_t bytes,
                         mn__string *out, mn_error *error)
{
    const utf8proc_uint8_t *from = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t count = utf8proc_decompose(from, bytes, NULL, 0, step->options);
    if (count < 0)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "a normalizer: %s", utf8proc_errmsg(count));
    utf8proc_int32_t *codes = mn__malloc(mn__size_product(count + 1, (int64_t)sizeof *codes));
    if (!codes)
        return fail_memory(error);
    utf8proc_decompose(from, bytes, codes, count, step->options);
    count = utf8proc_normalize_utf32(codes, count, step->options);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        char one[4];
        mn__string_add(out, one, mn__utf8_encode((uint32_t)codes[i], one));
    }
    mn__free(codes);
    return MN_OK;
}

/* Parts of inert characters are copied. An ASCII character never composes with what stands before
 * it, so that what lies between two of them is composed by itself. */
static mn_status apply_form(const mn__normalizer_step *step, mn__matcher *matcher, const char *text,
                            int64_t bytes, mn__string *out, mn_error *error)
{
    (void)matcher;
    int64_t begin = 0; /* of what is not in `out` yet */
    int64_t ascii = 0; /* the last place before which a form may be cut */
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        if ((unsigned char)text[at] < 0x80)
            ascii = at;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (code < step->inert) {
            at += length;
            continue;
        }
        mn__string_add(out, text + begin, ascii - begin);
        for (at += length; at < bytes && (unsigned char)text[at] >= 0x80;)
            at++;
        mn_status status = compose(step, text + ascii, at - ascii, out, error);
        if (status)
            return status;
        begin = ascii = at;
    }
    mn__string_add(out, text + begin, bytes - begin);
    return MN_OK;
}

static mn_status apply_lowercase(const mn__normalizer_step *step, mn__matcher *matcher,
                                 const char *text, int64_t bytes, mn__string *out, mn_error *error)
{
    (void)step, (void)matcher, (void)error;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        char one[4];
        at += mn__utf8_decode(text + at, bytes - at, &code);
        if (code == 0x130) /* the one whose lower case is two characters */
            mn__string_puts(out, "i\xCC\x87");
        else
            mn__string_add(
                out, one, mn__utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code), one));
    }
    return MN_OK;
}

static mn_status apply_strip_accents(const mn__normalizer_step *step, mn__matcher *matcher,
                                     const char *text, int64_t bytes, mn__string *out,
                                     mn_error *error)
{
    (void)step, (void)matcher, (void)error;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (utf8proc_category((utf8proc_int32_t)code) != UTF8PROC_CATEGORY_MN)
            mn__string_add(out, text + at, length);
        at += length;
    }
    return MN_OK;
}

/* ---- Strings ----------------------------------------------------------------------------------
 */

/* White_Space, without the separators that Python adds to it. */
static bool is_white(uint32_t code)
{
    return mn__utf8_is_space(code) && (code < 0x1C || code > 0x1F);
}

static mn_status apply_strip(const mn__normalizer_step *step, mn__matcher *matcher,
                             const char *text, int64_t bytes, mn__string *out, mn_error *error)
{
    (void)matcher, (void)error;
    int64_t begin = -1, end = 0;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        if (!is_white(code)) {
            begin = begin < 0 ? at : begin;
            end = at + length;
        }
        at += length;
    }
    if (begin < 0 && (step->left || step->right)) /* white space alone */
        return MN_OK;
    begin = step->left ? begin : 0;
    mn__string_add(out, text + begin, (step->right ? end : bytes) - begin);
    return MN_OK;
}

static mn_status apply_prepend(const mn__normalizer_step *step, mn__matcher *matcher,
                               const char *text, int64_t bytes, mn__string *out, mn_error *error)
{
    (void)matcher, (void)error;
    if (bytes > 0)
        mn__string_add(out, step->content.text, step->content.bytes);
    mn__string_add(out, text, bytes);
    return MN_OK;
}

static mn_status apply_replace(const mn__normalizer_step *step, mn__matcher *matcher,
                               const char *text, int64_t bytes, mn__string *out, mn_error *error)
{
    (void)matcher, (void)error;
    const mn__string *pattern = &step->pattern;
    int64_t at = 0;
    while (pattern->bytes > 0 && at < bytes) {
        const char *found =
            memmem(text + at, (size_t)(bytes - at), pattern->text, (size_t)pattern->bytes);
        if (!found)
            break;
        mn__string_add(out, text + at, found - (text + at));
        mn__string_add(out, step->content.text, step->content.bytes);
        at = found - text + pattern->bytes;
    }
    mn__string_add(out, text + at, bytes - at);
    return MN_OK;
}

static mn_status apply_replace_regex(const mn__normalizer_step *step, mn__matcher *matcher,
                                     const char *text, int64_t bytes, mn__string *out,
                                     mn_error *error)
{
    int64_t copied = 0, begin, end;
    for (int64_t at = 0; at <= bytes;) {
        mn_status status =
            mn__regex_find(step->regex, matcher, text, bytes, at, &begin, &end, error);
        if (status)
            return status;
        if (begin < 0)
            break;
        mn__string_add(out, text + copied, begin - copied);
        mn__string_add(out, step->content.text, step->content.bytes);
        copied = at = end;
        if (begin == end) { /* an empty match: one character on */
            for (at++; at < bytes && ((unsigned char)text[at] & 0xC0) == 0x80;)
                at++;
        }
    }
    mn__string_add(out, text + copied, bytes - copied);
    return MN_OK;
}

static mn_status apply_charsmap(const mn__normalizer_step *step, mn__matcher *matcher,
                                const char *text, int64_t bytes, mn__string *out, mn_error *error)
{
    (void)matcher, (void)error;
    mn__charsmap_apply(&step->map, text, bytes, out);
    return MN_OK;
}

/* ---- Parsing ----------------------------------------------------------------------------------
 */

static mn_status copy_string(mn__json object, const char *key, mn__string *out, mn_error *error)
{
    const char *text;
    mn_status status = mn__json_string(object, key, MN__JSON_REQUIRED, &text, error);
    if (!status)
        mn__string_puts(out, text);
    return status ? status : out->failed ? fail_memory(error) : MN_OK;
}

static mn_status parse_replace(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    mn__json pattern;
    const char *regex = NULL;
    mn_status status = copy_string(object, "content", &step->content, error);
    if (!status)
        status = mn__json_object(object, "pattern", MN__JSON_REQUIRED, &pattern, error);
    if (!status)
        status = mn__json_string(pattern, "Regex", MN__JSON_OPTIONAL, &regex, error);
    if (status)
        return status;
    step->apply = regex ? apply_replace_regex : apply_replace;
    if (regex)
        return mn__regex_compile(&step->regex, regex, error);
    return copy_string(pattern, "String", &step->pattern, error);
}

static mn_status parse_strip(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    step->apply = apply_strip;
    step->left = step->right = true;
    mn_status status = mn__json_bool(object, "strip_left", MN__JSON_OPTIONAL, &step->left, error);
    return status ? status
                  : mn__json_bool(object, "strip_right", MN__JSON_OPTIONAL, &step->right, error);
}

static mn_status parse_prepend(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    step->apply = apply_prepend;
    return copy_string(object, "prepend", &step->content, error);
}

static mn_status parse_charsmap(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    const char *base64;
    step->apply = apply_charsmap;
    mn_status status =
        mn__json_string(object, "precompiled_charsmap", MN__JSON_REQUIRED, &base64, error);
    return status ? status : mn__charsmap_parse(&step->map, base64, (int64_t)strlen(base64), error);
}

static mn_status parse_lowercase(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    (void)object, (void)error;
    step->apply = apply_lowercase;
    return MN_OK;
}

static mn_status parse_strip_accents(mn__normalizer_step *step, mn__json object, mn_error *error)
{
    (void)object, (void)error;
    step->apply = apply_strip_accents;
    return MN_OK;
}

static const struct {
    const char *name;
    mn_status (*parse)(mn__normalizer_step *step, mn__json object, mn_error *error);
    int options; /* of a Unicode form */
    uint32_t inert;
} types[] = {
    {"NFC", NULL, UTF8PROC_STABLE | UTF8PROC_COMPOSE, 0x300},
    {"NFD", NULL, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, 0x80},
    {"NFKC", NULL, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, 0x80},
    {"NFKD", NULL, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, 0x80},
    {"Prepend", parse_prepend, 0, 0},
    {"Replace", parse_replace, 0, 0},
    {"Lowercase", parse_lowercase, 0, 0},
    {"Strip", parse_strip, 0, 0},
    {"StripAccents", parse_strip_accents, 0, 0},
    {"Precompiled", parse_charsmap, 0, 0},
};

static mn_status add_step(mn__normalizer *normalizer, mn__json object, const char *type,
                          mn_error *error)
{
    size_t at = 0, count = sizeof types / sizeof *types;
    while (at < count && strcmp(types[at].name, type))
        at++;
    if (at == count)
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL, "%s: the normalizer \"%s\" is unknown",
                        object.file, type);
    if (normalizer->count == STEPS_MOST)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: over %d normalizers", object.file,
                        STEPS_MOST);
    if (!normalizer->steps)
        normalizer->steps = mn__calloc(STEPS_MOST, (int64_t)sizeof *normalizer->steps);
    if (!normalizer->steps)
        return fail_memory(error);
    mn__normalizer_step *step = &normalizer->steps[normalizer->count++];
    step->apply = apply_form;
    step->options = (utf8proc_option_t)types[at].options;
    step->inert = types[at].inert;
    return types[at].parse ? types[at].parse(step, object, error) : MN_OK;
}

static mn_status parse_at(mn__normalizer *normalizer, mn__json object, int depth, mn_error *error)
{
    const char *type;
    mn_status status = mn__json_string(object, "type", MN__JSON_REQUIRED, &type, error);
    if (status)
        return status;
    if (strcmp(type, "Sequence"))
        return add_step(normalizer, object, type, error);
    mn__json list;
    status = mn__json_array(object, "normalizers", MN__JSON_REQUIRED, &list, error);
    if (!status && depth == DEPTH_MOST)
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: normalizers nested over %d deep",
                          object.file, DEPTH_MOST);
    for (size_t i = 0; !status && i < json_array_size(list.value); i++)
        status = parse_at(normalizer, (mn__json){object.file, json_array_get(list.value, i)},
                          depth + 1, error);
    return status;
}

mn_status mn__normalizer_parse(mn__normalizer *normalizer, const char *file, const json_t *value,
                               mn_error *error)
{
    if (!value || json_is_null(value))
        return MN_OK;
    return parse_at(normalizer, (mn__json){file, value}, 0, error);
}

void mn__normalizer_free(mn__normalizer *normalizer)
{
    for (int64_t i = 0; i < normalizer->count; i++) {
        mn__normalizer_step *step = &normalizer->steps[i];
        mn__string_free(&step->pattern);
        mn__string_free(&step->content);
        mn__regex_free(step->regex);
        mn__charsmap_free(&step->map);
    }
    mn__free(normalizer->steps);
    *normalizer = (mn__normalizer){0};
}

/* ---- Applying ---------------------------------------------------------------------------------
 */

mn_status mn__normalizer_apply(const mn__normalizer *normalizer, mn__matcher *matcher,
                               const char *text, int64_t bytes, mn__string *out,
                               mn__string *scratch, mn_error *error)
{
    mn__string_clear(out);
    if (normalizer->count == 0)
        mn__string_add(out, text, bytes);
    for (int64_t i = 0; i < normalizer->count; i++) {
        const mn__normalizer_step *step = &normalizer->steps[i];
        if (i > 0) {
            mn__string held = *scratch;
            *scratch = *out;
            *out = held;
            mn__string_clear(out);
            text = scratch->text ? scratch->text : "";
            bytes = scratch->bytes;
        }
        mn_status status = step->apply(step, matcher, text, bytes, out, error);
        if (status)
            return status;
        if (out->failed)
            return fail_memory(error);
    }
    return out->failed ? fail_memory(error) : MN_OK;
}
