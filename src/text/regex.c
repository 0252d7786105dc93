/* Regular expressions, by PCRE2. */
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "base/memory.h"
#include "base/string.h"

struct mn__regex {
    pcre2_code *code;
};

struct mn__matcher {
    pcre2_general_context *memory;
    pcre2_match_data *data;
};

static void *take(size_t bytes, void *user)
{
    (void)user;
    return mn__malloc((int64_t)bytes);
}

static void give(void *block, void *user)
{
    (void)user;
    mn__free(block);
}

/* ---- Rewriting ------------------------------------------------------------------------------ */

/* What a class holds in place of the escape; NULL: PCRE2 means the same by it. The circled and
 * squared letters are alphabetic without being letters. */
static const char *class_of(char escape)
{
    switch (escape) {
    case 's':
        return "\\x{9}-\\x{D}\\x{85}\\p{Z}";
    case 'w':
        return "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}"
               "\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
    default:
        return NULL;
    }
}

static mn_status fail_escape(const char *pattern, char escape, mn_error *error)
{
    return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                    "the regular expression %s: \\%c has no equal in PCRE2 here", pattern, escape);
}

/* One escape; in_class: between brackets. */
static mn_status rewrite_escape(const char *pattern, char escape, bool in_class, mn__string *out,
                                mn_error *error)
{
    bool negated = escape == 'S' || escape == 'W';
    const char *members = class_of(negated ? (char)(escape - 'A' + 'a') : escape);
    if (strchr("hHCKGX", escape) || (negated && in_class))
        return fail_escape(pattern, escape, error);
    if (!members)
        mn__string_printf(out, "\\%c", escape);
    else if (in_class)
        mn__string_puts(out, members);
    else
        mn__string_printf(out, "[%s%s]", negated ? "^" : "", members);
    return MN_OK;
}

/* Copies a class up to its end, *at at its bracket. */
static mn_status rewrite_class(const char *pattern, const char **at, mn__string *out,
                               mn_error *error)
{
    const char *first = *at + 1 + ((*at)[1] == '^'); /* where a bracket is itself */
    mn__string_add(out, *at, first - *at);
    for (*at = first; **at && (**at != ']' || *at == first); ++*at) {
        mn_status status = MN_OK;
        if (**at == '\\' && (*at)[1])
            status = rewrite_escape(pattern, *++*at, true, out, error);
        else if (**at == '[' || strncmp(*at, "&&", 2) == 0)
            status = mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                              "the regular expression %s: a class within a class", pattern);
        else
            mn__string_add(out, *at, 1);
        if (status)
            return status;
    }
    if (**at) /* else PCRE2 says that the class has no end */
        mn__string_puts(out, "]");
    return MN_OK;
}

static mn_status rewrite(const char *pattern, mn__string *out, mn_error *error)
{
    for (const char *at = pattern; *at; at += *at != '\0') {
        mn_status status = MN_OK;
        if (*at == '\\' && at[1])
            status = rewrite_escape(pattern, *++at, false, out, error);
        else if (*at == '[')
            status = rewrite_class(pattern, &at, out, error);
        else
            mn__string_add(out, at, 1);
        if (status)
            return status;
    }
    return out->failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory")
                       : MN_OK;
}

/* ---- Compiling --------------------------------------------------------------------------------
 */

static mn_status compile(mn__regex *regex, const char *pattern, const char *rewritten,
                         mn_error *error)
{
    pcre2_general_context *memory = pcre2_general_context_create(take, give, NULL);
    pcre2_compile_context *context = memory ? pcre2_compile_context_create(memory) : NULL;
    int code = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE place = 0;
    if (context)
        regex->code =
            pcre2_compile((PCRE2_SPTR)rewritten, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &place, context);
    pcre2_compile_context_free(context);
    pcre2_general_context_free(memory);
    if (regex->code) {
        pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* else it is interpreted */
        return MN_OK;
    }
    if (code == PCRE2_ERROR_NOMEMORY || code == PCRE2_ERROR_HEAP_FAILED)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    char why[128] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return mn__fail(error, MN_ERROR_FORMAT, NULL, "the regular expression %s: %s", pattern, why);
}

mn_status mn__regex_compile(mn__regex **out, const char *pattern, mn_error *error)
{
    mn__string rewritten = {0};
    mn__regex *regex = mn__calloc(1, sizeof *regex);
    mn_status status = regex ? rewrite(pattern, &rewritten, error)
                             : mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    if (!status)
        status = compile(regex, pattern, rewritten.text ? rewritten.text : "", error);
    mn__string_free(&rewritten);
    if (status)
        mn__regex_free(regex);
    else
        *out = regex;
    return status;
}

void mn__regex_free(mn__regex *regex)
{
    if (regex)
        pcre2_code_free(regex->code);
    mn__free(regex);
}

/* ---- Matching ---------------------------------------------------------------------------------
 */

mn__matcher *mn__matcher_new(void)
{
    mn__matcher *matcher = mn__calloc(1, sizeof *matcher);
    if (!matcher)
        return NULL;
    matcher->memory = pcre2_general_context_create(take, give, NULL);
    if (matcher->memory)
        matcher->data = pcre2_match_data_create(1, matcher->memory);
    if (matcher->data)
        return matcher;
    mn__matcher_free(matcher);
    return NULL;
}

void mn__matcher_free(mn__matcher *matcher)
{
    if (!matcher)
        return;
    pcre2_match_data_free(matcher->data);
    pcre2_general_context_free(matcher->memory);
    mn__free(matcher);
}

mn_status mn__regex_find(const mn__regex *regex, mn__matcher *matcher, const char *text,
                         int64_t bytes, int64_t from, int64_t *begin, int64_t *end, mn_error *error)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)(text ? text : "");
    int found = pcre2_match(regex->code, subject, (PCRE2_SIZE)bytes, (PCRE2_SIZE)from,
                            PCRE2_NO_UTF_CHECK, matcher->data, NULL);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter's stack is the heap */
        found = pcre2_match(regex->code, subject, (PCRE2_SIZE)bytes, (PCRE2_SIZE)from,
                            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, matcher->data, NULL);
    *begin = *end = -1;
    if (found == PCRE2_ERROR_NOMATCH)
        return MN_OK;
    if (found == PCRE2_ERROR_NOMEMORY)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "a tokenizer: out of memory");
    if (found < 0) {
        char why[128] = "";
        pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
        return mn__fail(error, MN_ERROR_UNSUPPORTED, NULL,
                        "the tokenizer's regular expression fails on this text: %s", why);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(matcher->data);
    *begin = (int64_t)place[0];
    *end = (int64_t)place[1];
    return MN_OK;
}
