/* mneme man: the man page, mneme(1), written from the table of verbs. */
#include <string.h>

#include "cli/args.h"
#include "cli/help.h"

/* Text in troff: dashes and backslashes are themselves, a line never begins
 * with a control character. */
static void put(mn__string *out, const char *text)
{
    bool begin = true;
    for (; *text; text++) {
        if (begin && (*text == '.' || *text == '\''))
            mn__string_puts(out, "\\&");
        if (*text == '\\')
            mn__string_puts(out, "\\e");
        else if (*text == '-')
            mn__string_puts(out, "\\-");
        else
            mn__string_add(out, text, 1);
        begin = *text == '\n';
    }
}

static void put_option(const mn__option *option, mn__string *out)
{
    mn__string name = {0};
    mn__args_name(option, &name);
    mn__string_puts(out, ".TP\n.B ");
    put(out, name.text ? name.text : "");
    if (*mn__args_value(option)) {
        mn__string_puts(out, " \\fI");
        put(out, mn__args_value(option));
        mn__string_puts(out, "\\fR");
    }
    mn__string_puts(out, "\n");
    put(out, option->help);
    if (option->type != MN__OPTION_BOOL && option->type != MN__OPTION_LIST && *option->fallback) {
        mn__string_puts(out, " (");
        put(out, option->fallback);
        mn__string_puts(out, ")");
    }
    mn__string_puts(out, "\n");
    out->failed |= name.failed;
    mn__string_free(&name);
}

static void put_verb(const mn__verb *verb, mn__string *out)
{
    mn__string_printf(out, ".SS mneme %s ", verb->name);
    put(out, verb->operands);
    mn__string_puts(out, "\n");
    put(out, verb->summary);
    mn__string_puts(out, ".\n");
    if (*verb->details) {
        mn__string_puts(out, ".PP\n.nf\n");
        put(out, verb->details);
        mn__string_puts(out, "\n.fi\n");
    }
    const mn__option *option;
    for (int64_t i = 0; (option = mn__verb_option(verb, i)); i++)
        put_option(option, out);
}

static mn_status run(mn__call *call, mn_error *error)
{
    (void)call;
    mn__string out = {0};
    mn__string_puts(&out, ".TH MNEME 1 \"\" \"mneme " MN_VERSION "\" \"User Commands\"\n"
                          ".SH NAME\nmneme \\- language models that read book\\-length text\n"
                          ".SH SYNOPSIS\n.B mneme\n.I VERB\n[\\fIOPTIONS\\fR] [\\fIOPERANDS\\fR]\n"
                          ".SH VERBS\n");
    for (int i = 0; mn__verbs[i]; i++)
        put_verb(mn__verbs[i], &out);
    mn__string recipe = {0};
    mn__help_recipe(&recipe);
    mn__string_puts(&out, ".SH RECIPES\n.nf\n");
    put(&out, recipe.text ? recipe.text : "");
    mn__string_puts(&out, ".fi\n.SH EXIT STATUS\n");
    out.failed |= recipe.failed;
    mn__string_free(&recipe);
#define EXIT_STATUS(name, exit_status, meaning) \
    mn__string_printf(&out, ".TP\n.B %d\n%s\n", exit_status, meaning);
    MN_ERROR_MAP(EXIT_STATUS)
#undef EXIT_STATUS
    mn__string_puts(&out, ".SH ENVIRONMENT\n.TP\n.B MNEME_CPU\nthe highest CPU level to use: "
                          "baseline, v3, v4, v4bf16 or amx\n");
    return mn__print(&out, error);
}

const mn__verb mn__verb_man = {
    .name = "man",
    .operands = "",
    .summary = "print the man page",
    .details = "  mneme man | man -l -",
    .run = run,
};
