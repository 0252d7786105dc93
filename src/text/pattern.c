/* The known regular expressions, by hand. */
#include "text/pattern.h"

#include <stddef.h>
#include <string.h>
#include <utf8proc.h>

#include "text/utf8.h"

#define WHITE "\\s+(?!\\S)|\\s+"
#define MODERN(digits)                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" WHITE

static const char *const texts[] = {
    [MN__PATTERN_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" WHITE,
    [MN__PATTERN_LLAMA3] = MODERN("{1,3}"),
    [MN__PATTERN_QWEN2] = MODERN(""),
};

const char *mn__pattern_text(mn__pattern pattern)
{
    return texts[pattern];
}

mn__pattern mn__pattern_of(const char *regex)
{
    for (mn__pattern p = MN__PATTERN_GPT2; p <= MN__PATTERN_QWEN2; p++)
        if (strcmp(regex, texts[p]) == 0)
            return p;
    return MN__PATTERN_NONE;
}

/* ---- Classes ----------------------------------------------------------------------------------
 */

/* What the expressions tell apart. */
enum { OTHER, LETTER, NUMBER, SPACE, NEWLINE };

/* Of ASCII: the same classes. */
static const unsigned char ascii[128] = {
    ['\t'] = SPACE, ['\n'] = NEWLINE, ['\v'] = SPACE, ['\f'] = SPACE, ['\r'] = NEWLINE,
    [' '] = SPACE,  ['0'] = NUMBER,   ['1'] = NUMBER, ['2'] = NUMBER, ['3'] = NUMBER,
    ['4'] = NUMBER, ['5'] = NUMBER,   ['6'] = NUMBER, ['7'] = NUMBER, ['8'] = NUMBER,
    ['9'] = NUMBER, ['A'] = LETTER,   ['B'] = LETTER, ['C'] = LETTER, ['D'] = LETTER,
    ['E'] = LETTER, ['F'] = LETTER,   ['G'] = LETTER, ['H'] = LETTER, ['I'] = LETTER,
    ['J'] = LETTER, ['K'] = LETTER,   ['L'] = LETTER, ['M'] = LETTER, ['N'] = LETTER,
    ['O'] = LETTER, ['P'] = LETTER,   ['Q'] = LETTER, ['R'] = LETTER, ['S'] = LETTER,
    ['T'] = LETTER, ['U'] = LETTER,   ['V'] = LETTER, ['W'] = LETTER, ['X'] = LETTER,
    ['Y'] = LETTER, ['Z'] = LETTER,   ['a'] = LETTER, ['b'] = LETTER, ['c'] = LETTER,
    ['d'] = LETTER, ['e'] = LETTER,   ['f'] = LETTER, ['g'] = LETTER, ['h'] = LETTER,
    ['i'] = LETTER, ['j'] = LETTER,   ['k'] = LETTER, ['l'] = LETTER, ['m'] = LETTER,
    ['n'] = LETTER, ['o'] = LETTER,   ['p'] = LETTER, ['q'] = LETTER, ['r'] = LETTER,
    ['s'] = LETTER, ['t'] = LETTER,   ['u'] = LETTER, ['v'] = LETTER, ['w'] = LETTER,
    ['x'] = LETTER, ['y'] = LETTER,   ['z'] = LETTER,
};

static int class_of(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return SPACE;
    default:
        return code == 0x85 ? SPACE : OTHER;
    }
}

typedef struct character {
    int kind;
    int length; /* 0 at the text's end, where `kind` is -1 */
} character;

static inline character look(const char *text, int64_t bytes, int64_t at)
{
    if (at >= bytes)
        return (character){-1, 0};
    unsigned char byte = (unsigned char)text[at];
    if (byte < 0x80)
        return (character){ascii[byte], 1};
    uint32_t code = 0;
    int length = mn__utf8_decode(text + at, bytes - at, &code);
    return length > 0 ? (character){class_of(code), length} : (character){OTHER, 1};
}

/* Past all of one class from `at` on, at most `most` of them. */
static inline int64_t skip(const char *text, int64_t bytes, int64_t at, int kind, int64_t most)
{
    for (; most > 0; most--) {
        character next = look(text, bytes, at);
        if (next.kind != kind)
            break;
        at += next.length;
    }
    return at;
}

/* ---- The parts of the expressions -------------------------------------------------------------
 */

/* After an apostrophe at text[at]: the end of 's 't 're 've 'm 'll 'd, or 0. */
static int64_t contraction(const char *text, int64_t bytes, int64_t at, bool any_case)
{
    char next[2] = {0, 0};
    for (int i = 0; i < 2 && at + 1 + i < bytes; i++) {
        next[i] = text[at + 1 + i];
        if (any_case && next[i] >= 'A' && next[i] <= 'Z')
            next[i] = (char)(next[i] - 'A' + 'a');
    }
    if (next[0] == 's' || next[0] == 't' || next[0] == 'm' || next[0] == 'd')
        return at + 2;
    if ((next[0] == 'r' && next[1] == 'e') || (next[0] == 'v' && next[1] == 'e') ||
        (next[0] == 'l' && next[1] == 'l'))
        return at + 3;
    if (any_case && next[0] == '\xC5' && next[1] == '\xBF') /* the long s */
        return at + 3;
    return 0;
}

static bool is_space(int kind)
{
    return kind == SPACE || kind == NEWLINE;
}

/* \s*[\r\n]+ where `lines`, else \s+(?!\S), else \s+. */
static int64_t white(const char *text, int64_t bytes, int64_t at, bool lines)
{
    int64_t end = at, last = at, line = 0;
    for (;;) {
        character next = look(text, bytes, end);
        if (!is_space(next.kind))
            break;
        last = end;
        end += next.length;
        if (next.kind == NEWLINE)
            line = end;
    }
    if (lines && line)
        return line;
    return end == bytes || last == at ? end : last;
}

static int64_t next_gpt2(const char *text, int64_t bytes, int64_t at)
{
    character first = look(text, bytes, at);
    int64_t end = text[at] == '\'' ? contraction(text, bytes, at, false) : 0;
    if (end)
        return end;
    if (text[at] == ' ') {
        character next = look(text, bytes, at + 1);
        if (next.length && !is_space(next.kind))
            return skip(text, bytes, at + 1 + next.length, next.kind, INT64_MAX);
    }
    if (is_space(first.kind))
        return white(text, bytes, at, false);
    return skip(text, bytes, at + first.length, first.kind, INT64_MAX);
}

static int64_t next_modern(const char *text, int64_t bytes, int64_t at, int digits)
{
    character first = look(text, bytes, at);
    if (first.kind == LETTER)
        return skip(text, bytes, at + first.length, LETTER, INT64_MAX);
    if (first.kind == NUMBER)
        return skip(text, bytes, at + first.length, NUMBER, digits - 1);
    int64_t end = text[at] == '\'' ? contraction(text, bytes, at, true) : 0;
    if (end)
        return end;
    character next = look(text, bytes, at + first.length);
    if (first.kind != NEWLINE && next.kind == LETTER)
        return skip(text, bytes, at + first.length + next.length, LETTER, INT64_MAX);
    if (first.kind == OTHER || (text[at] == ' ' && next.kind == OTHER)) {
        end = skip(text, bytes, at + first.length, OTHER, INT64_MAX);
        return skip(text, bytes, end, NEWLINE, INT64_MAX);
    }
    return white(text, bytes, at, true);
}

int64_t mn__pattern_next(mn__pattern pattern, const char *text, int64_t bytes, int64_t at)
{
    if (pattern == MN__PATTERN_GPT2)
        return next_gpt2(text, bytes, at);
    return next_modern(text, bytes, at, pattern == MN__PATTERN_LLAMA3 ? 3 : 1);
}
