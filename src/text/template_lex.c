/* A template's tokens. White space is Jinja's: a tag with "-" takes all of it on that
 * side; lstrip_blocks takes what stands before a block or comment on its line;
 * trim_blocks takes the line's end after one; "+" keeps both; one line's end at the
 * end of the template goes. Line ends become "\n". */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "text/template_own.h"
#include "text/utf8.h"

enum { MOST_BRACKETS = 100 };

typedef struct lexer {
    mn__arena *arena;
    const char *name;
    mn_error *error;
    mn__jinja_tokens *tokens;
    const char *text; /* [bytes], and a NUL */
    int64_t at, bytes;
    int line;
    bool line_begins; /* what was read last ended a line */
    char open[MOST_BRACKETS];
    int brackets;
} lexer;

static mn_status fail(const lexer *l, const char *problem)
{
    return mn__fail(l->error, MN_ERROR_FORMAT, mn__jinja_hint, "%s, line %d: %s", l->name, l->line,
                    problem);
}

static mn_status no_memory(const lexer *l)
{
    return mn__fail(l->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", l->name);
}

static mn_status add(lexer *l, mn__jinja_token token)
{
    mn__jinja_tokens *tokens = l->tokens;
    if (tokens->count == tokens->capacity) {
        int64_t capacity = tokens->capacity ? 2 * tokens->capacity : 64;
        mn__jinja_token *at =
            mn__realloc(tokens->at, mn__size_product(capacity, (int64_t)sizeof *at));
        if (!at)
            return no_memory(l);
        tokens->at = at;
        tokens->capacity = capacity;
    }
    token.line = l->line;
    tokens->at[tokens->count++] = token;
    return MN_OK;
}

static bool looking_at(const lexer *l, int64_t at, const char *text)
{
    int64_t bytes = (int64_t)strlen(text);
    return bytes <= l->bytes - at && memcmp(l->text + at, text, (size_t)bytes) == 0;
}

/* Where white space that begins at `at` ends. */
static int64_t after_space(const lexer *l, int64_t at)
{
    uint32_t code;
    while (at < l->bytes) {
        int length = mn__utf8_decode(l->text + at, l->bytes - at, &code);
        if (!mn__utf8_is_space(code))
            break;
        at += length;
    }
    return at;
}

/* Where white space that ends at `end` begins, not before `least`. */
static int64_t before_space(const lexer *l, int64_t least, int64_t end)
{
    uint32_t code;
    while (end > least) {
        int64_t at = end - 1;
        while (at > least && (l->text[at] & 0xC0) == 0x80)
            at--;
        mn__utf8_decode(l->text + at, end - at, &code);
        if (!mn__utf8_is_space(code))
            break;
        end = at;
    }
    return end;
}

/* Goes on to `to`, counting lines. */
static void advance(lexer *l, int64_t to)
{
    if (to > l->at)
        l->line_begins = l->text[to - 1] == '\n';
    for (; l->at < to; l->at++)
        l->line += l->text[l->at] == '\n';
}

/* ---- Text between tags ---------------------------------------------------------- */

/* Emits the text from l->at to `end`, where a tag begins whose sign is `sign`. */
static mn_status add_text(lexer *l, int64_t end, char sign, bool block)
{
    int64_t stop = end;
    if (sign == '-') {
        stop = before_space(l, l->at, end);
    } else if (sign != '+' && block) {
        int64_t begin = end;
        while (begin > l->at && l->text[begin - 1] != '\n')
            begin--;
        bool whole_line = begin > l->at || l->line_begins;
        if (whole_line && before_space(l, begin, end) == begin)
            stop = begin;
    }
    if (stop == l->at)
        return MN_OK;
    return add(l, (mn__jinja_token){
                      .kind = MN__JINJA_T_TEXT, .text = l->text + l->at, .bytes = stop - l->at});
}

static char sign_at(const lexer *l, int64_t at)
{
    return at < l->bytes && (l->text[at] == '-' || l->text[at] == '+') ? l->text[at] : '\0';
}

/* The place after a tag's end `close` at `at`, sign and white space included; -1 where
 * there is none. */
static int64_t after_close(const lexer *l, int64_t at, const char *close, bool block)
{
    char sign = sign_at(l, at);
    if (sign == '+' && !block)
        return -1;
    int64_t after = at + (sign ? 1 : 0);
    if (!looking_at(l, after, close))
        return -1;
    after += 2;
    if (sign == '-')
        return after_space(l, after);
    return after + (block && !sign && after < l->bytes && l->text[after] == '\n');
}

static mn_status skip_comment(lexer *l)
{
    int64_t at = l->at + 2;
    at += sign_at(l, at) != '\0';
    for (; at < l->bytes; at++) {
        int64_t after = after_close(l, at, "#}", true);
        if (after >= 0) {
            advance(l, after);
            return MN_OK;
        }
    }
    return fail(l, "a comment has no end \"#}\"");
}

/* The place after the tag {% word %} at `at`, or -1. sign: of its beginning. */
static int64_t after_word(const lexer *l, int64_t at, const char *word, bool trims)
{
    int64_t after = at + 2;
    after += sign_at(l, after) != '\0';
    after = after_space(l, after);
    if (!looking_at(l, at, "{%") || !looking_at(l, after, word))
        return -1;
    after = after_space(l, after + (int64_t)strlen(word));
    int64_t end = after_close(l, after, "%}", true);
    if (!trims && end > 0 && looking_at(l, after, "%}"))
        end = after + 2;
    return end;
}

static mn_status read_raw(lexer *l, int64_t begin)
{
    advance(l, begin);
    for (int64_t at = begin; at < l->bytes; at++) {
        int64_t after = l->text[at] == '{' ? after_word(l, at, "endraw", true) : -1;
        if (after < 0)
            continue;
        mn_status status = add_text(l, at, sign_at(l, at + 2), true);
        advance(l, after);
        return status;
    }
    return fail(l, "a raw block has no {% endraw %}");
}

/* ---- Inside tags -------------------------------------------------------------------- */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static mn_status read_name(lexer *l)
{
    int64_t end = l->at;
    while (end < l->bytes && (is_letter(l->text[end]) || is_digit(l->text[end])))
        end++;
    int64_t bytes = end - l->at;
    char *name = mn__arena_alloc(l->arena, bytes + 1);
    if (!name)
        return no_memory(l);
    memcpy(name, l->text + l->at, (size_t)bytes);
    name[bytes] = '\0';
    mn_status status =
        add(l, (mn__jinja_token){.kind = MN__JINJA_T_NAME, .text = name, .bytes = bytes});
    advance(l, end);
    return status;
}

/* Digits, with single underscores between them. */
static int64_t after_digits(const lexer *l, int64_t at)
{
    while (at < l->bytes && (is_digit(l->text[at]) || (l->text[at] == '_' && at + 1 < l->bytes &&
                                                       is_digit(l->text[at + 1]))))
        at++;
    return at;
}

static mn_status read_number(lexer *l)
{
    int64_t end = after_digits(l, l->at);
    bool after_dot = l->at > 0 && l->text[l->at - 1] == '.', real = false;
    if (!after_dot && end + 1 < l->bytes && l->text[end] == '.' && is_digit(l->text[end + 1])) {
        real = true;
        end = after_digits(l, end + 1);
    }
    int64_t exponent = end + 1;
    if (exponent < l->bytes && (l->text[exponent] == '+' || l->text[exponent] == '-'))
        exponent++;
    if (!after_dot && exponent < l->bytes && (l->text[end] == 'e' || l->text[end] == 'E') &&
        is_digit(l->text[exponent])) {
        real = true;
        end = after_digits(l, exponent);
    }
    char digits[64];
    int length = 0;
    for (int64_t i = l->at; i < end; i++) {
        if (l->text[i] != '_' && length + 1 < (int)sizeof digits)
            digits[length++] = l->text[i];
        else if (l->text[i] != '_')
            return fail(l, "a number has over 62 digits");
    }
    digits[length] = '\0';
    mn__jinja_value value = mn__jinja_float(real ? strtod(digits, NULL) : 0);
    if (!real) {
        int64_t whole = 0;
        for (int i = 0; i < length; i++)
            if (__builtin_mul_overflow(whole, 10, &whole) ||
                __builtin_add_overflow(whole, digits[i] - '0', &whole))
                return fail(l, "a number is too large");
        if (length > 1 && digits[0] == '0' && whole > 0)
            return fail(l, "a number begins with 0");
        value = mn__jinja_int(whole);
    }
    mn_status status = add(l, (mn__jinja_token){.kind = MN__JINJA_T_VALUE, .value = value});
    advance(l, end);
    return status;
}

/* `count` hexadecimal digits; -1 where there are fewer. */
static int64_t hexadecimal(const char *text, int64_t bytes, int count)
{
    int64_t code = 0;
    for (int i = 0; i < count; i++) {
        char c = i < bytes ? text[i] : 'x';
        int digit = is_digit(c)            ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        code = 16 * code + digit;
    }
    return code;
}

/* Writes what the escape after a backslash at text[0] stands for; its length, or -1. */
static int64_t unescape(const char *text, int64_t bytes, mn__string *out)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    const char *simple = memchr(from, text[0], sizeof from - 1);
    if (simple) {
        mn__string_add(out, to + (simple - from), 1);
        return 1;
    }
    if (text[0] == '\n')
        return 1;
    int64_t code = -1, length = 0;
    if (text[0] >= '0' && text[0] <= '7') {
        for (code = 0; length < 3 && length < bytes && text[length] >= '0' && text[length] <= '7';)
            code = 8 * code + (text[length++] - '0');
    } else if (text[0] == 'x' || text[0] == 'u' || text[0] == 'U') {
        int digits = text[0] == 'x' ? 2 : text[0] == 'u' ? 4 : 8;
        code = hexadecimal(text + 1, bytes - 1, digits);
        length = digits + 1;
        if (code < 0)
            return -1;
    } else if (text[0] == 'N') {
        return -1;
    } else { /* no escape: the backslash stays */
        mn__string_puts(out, "\\");
        return 0;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return -1;
    char encoded[4];
    mn__string_add(out, encoded, mn__utf8_encode((uint32_t)code, encoded));
    return length;
}

static mn_status read_string(lexer *l)
{
    char quote = l->text[l->at];
    int64_t end = l->at + 1;
    while (end < l->bytes && l->text[end] != quote)
        end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->bytes)
        return fail(l, "a string has no end");
    mn__string text = {0};
    int64_t used = 0;
    for (int64_t i = l->at + 1; i < end && used >= 0 && !text.failed; i += used) {
        used = 1;
        if (l->text[i] != '\\') {
            mn__string_add(&text, l->text + i, 1);
        } else {
            used = unescape(l->text + i + 1, end - i - 1, &text);
            used += used >= 0;
        }
    }
    char *kept = text.failed ? NULL : mn__arena_alloc(l->arena, text.bytes);
    int64_t bytes = text.bytes;
    if (kept && bytes > 0)
        memcpy(kept, text.text, (size_t)bytes);
    mn__string_free(&text);
    if (!kept)
        return no_memory(l);
    if (used < 0)
        return fail(l, "a string has an escape that is no character");
    mn_status status = add(
        l, (mn__jinja_token){.kind = MN__JINJA_T_VALUE, .value = mn__jinja_borrow(kept, bytes)});
    advance(l, end + 1);
    return status;
}

static mn_status balance(lexer *l, char c)
{
    const char *begins = "([{", *ends = ")]}";
    const char *begin = strchr(begins, c), *end = strchr(ends, c);
    if (begin && l->brackets == MOST_BRACKETS)
        return fail(l, "brackets are nested too deep");
    if (begin)
        l->open[l->brackets++] = ends[begin - begins];
    if (end && (l->brackets == 0 || l->open[--l->brackets] != c))
        return fail(l, "a closing bracket has no opening one");
    return MN_OK;
}

static mn_status read_operator(lexer *l)
{
    static const char doubled[][3] = {"//", "**", "==", "!=", ">=", "<="};
    char c = l->text[l->at], after = l->at + 1 < l->bytes ? l->text[l->at + 1] : '\0';
    int op = c, length = 1;
    for (size_t i = 0; i < sizeof doubled / sizeof *doubled; i++)
        if (c == doubled[i][0] && after == doubled[i][1]) {
            op = MN__JINJA_OP(c, after);
            length = 2;
        }
    if (length == 1 && (c == '\0' || !strchr("+-/*%~[](){}><=.:|,", c))) {
        char problem[] = "the character ' ' has no place here";
        problem[15] = c > ' ' && c <= '~' ? c : '?';
        return fail(l, problem);
    }
    mn_status status = balance(l, c);
    if (!status)
        status = add(l, (mn__jinja_token){.kind = MN__JINJA_T_OPERATOR, .op = op});
    advance(l, l->at + length);
    return status;
}

static mn_status read_token(lexer *l)
{
    char c = l->text[l->at];
    if (c == '"' || c == '\'')
        return read_string(l);
    if (is_digit(c))
        return read_number(l);
    if (is_letter(c))
        return read_name(l);
    return read_operator(l);
}

static mn_status read_tag(lexer *l, bool block)
{
    mn_status status =
        add(l, (mn__jinja_token){.kind = block ? MN__JINJA_T_BLOCK : MN__JINJA_T_PRINT});
    int64_t begin = l->at + 2;
    advance(l, begin + (sign_at(l, begin) != '\0'));
    l->brackets = 0;
    while (!status) {
        int64_t after = l->brackets ? -1 : after_close(l, l->at, block ? "%}" : "}}", block);
        if (after >= 0) {
            status = add(l, (mn__jinja_token){.kind = block ? MN__JINJA_T_BLOCK_END
                                                            : MN__JINJA_T_PRINT_END});
            advance(l, after);
            break;
        }
        int64_t space = after_space(l, l->at);
        if (space > l->at)
            advance(l, space);
        else if (l->at >= l->bytes)
            status = fail(l, block ? "a tag has no end \"%}\"" : "a tag has no end \"}}\"");
        else
            status = read_token(l);
    }
    return status;
}

/* Text up to the next tag, and the tag. */
static mn_status read_piece(lexer *l)
{
    int64_t at = l->at;
    while (at < l->bytes &&
           !(l->text[at] == '{' && at + 1 < l->bytes &&
             (l->text[at + 1] == '{' || l->text[at + 1] == '%' || l->text[at + 1] == '#')))
        at++;
    if (at == l->bytes) {
        mn_status status = add_text(l, at, '+', false);
        advance(l, at);
        return status;
    }
    bool print = l->text[at + 1] == '{', comment = l->text[at + 1] == '#';
    int64_t raw = after_word(l, at, "raw", false);
    mn_status status = add_text(l, at, sign_at(l, at + 2), !print);
    advance(l, at);
    if (status)
        return status;
    if (comment)
        return skip_comment(l);
    return raw >= 0 ? read_raw(l, raw) : read_tag(l, !print);
}

/* A copy with "\n" for every line's end, without one at the end of all. */
static mn_status normalize(lexer *l, const char *text, int64_t bytes)
{
    char *copy = mn__arena_alloc(l->arena, bytes + 1);
    if (!copy)
        return no_memory(l);
    int64_t length = 0;
    for (int64_t i = 0; i < bytes; i++) {
        copy[length++] = text[i] == '\r' ? '\n' : text[i];
        i += text[i] == '\r' && i + 1 < bytes && text[i + 1] == '\n';
    }
    length -= length > 0 && copy[length - 1] == '\n';
    copy[length] = '\0';
    l->text = copy;
    l->bytes = length;
    return MN_OK;
}

mn_status mn__jinja_tokenize(mn__arena *arena, const char *name, const char *text, int64_t bytes,
                             mn__jinja_tokens *tokens, mn_error *error)
{
    lexer l = {.arena = arena,
               .name = name,
               .error = error,
               .tokens = tokens,
               .line = 1,
               .line_begins = true};
    mn_status status = normalize(&l, text, bytes);
    while (!status && l.at < l.bytes)
        status = read_piece(&l);
    return status ? status : add(&l, (mn__jinja_token){.kind = MN__JINJA_T_END});
}
