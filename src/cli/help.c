/* mneme help [VERB]: written from the table of verbs; `recipe` is in help_recipe.c. */
#include "cli/help.h"

#include <stdio.h>
#include <string.h>

#include "cli/args.h"

static void put_option(const mn__option *option, mn__string *out)
{
    mn__string name = {0};
    mn__args_name(option, &name);
    const char *value = mn__args_value(option);
    mn__string_printf(&name, "%s%s", *value ? " " : "", value);
    mn__string_printf(out, "  %-24s", name.text ? name.text : "");
    if (name.bytes > 24)
        mn__string_printf(out, "\n  %-24s", "");
    mn__string_printf(out, " %s", option->help);
    if (option->type == MN__OPTION_LIST)
        mn__string_puts(out, "; may be given again");
    else if (option->type != MN__OPTION_BOOL && *option->fallback)
        mn__string_printf(out, " [%s]", option->fallback);
    mn__string_puts(out, "\n");
    out->failed |= name.failed;
    mn__string_free(&name);
}

void mn__help_verb(const mn__verb *verb, mn__string *out)
{
    const mn__option *option = mn__verb_option(verb, 0);
    mn__string_printf(out, "mneme %s: %s\n\nusage: mneme %s%s%s%s\n", verb->name, verb->summary,
                      verb->name, *verb->operands ? " " : "", verb->operands,
                      option ? " [OPTIONS]" : "");
    if (*verb->details)
        mn__string_printf(out, "\n%s\n", verb->details);
    if (option)
        mn__string_puts(out, "\noptions:\n");
    for (int64_t i = 0; (option = mn__verb_option(verb, i)); i++)
        put_option(option, out);
}

void mn__help_all(mn__string *out)
{
    mn__string_puts(out, "mneme " MN_VERSION ": language models that read book-length text\n\n"
                         "usage: mneme VERB [OPTIONS]\n\nverbs:\n");
    for (int i = 0; mn__verbs[i]; i++)
        mn__string_printf(out, "  %-11s %s\n", mn__verbs[i]->name, mn__verbs[i]->summary);
    mn__string_puts(out, "\nmneme help VERB says more about one; mneme help recipe, what a recipe "
                         "may say;\nmneme --version, which build this is.\n\nexit status:\n");
#define EXIT_STATUS(name, exit_status, meaning) \
    mn__string_printf(out, "  %2d  %s\n", exit_status, meaning);
    MN_ERROR_MAP(EXIT_STATUS)
#undef EXIT_STATUS
}

mn_status mn__print(mn__string *text, mn_error *error)
{
    bool failed = text->failed;
    if (!failed && text->bytes)
        fwrite(text->text, 1, (size_t)text->bytes, stdout);
    mn__string_free(text);
    return failed ? mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for what is to be printed")
                  : MN_OK;
}

mn_status mn__verb_unknown(const char *word, mn_error *error)
{
    const char *nearest = mn__verb_nearest(word);
    char hint[128] = "the verbs are listed by: mneme help";
    if (nearest)
        snprintf(hint, sizeof hint, "did you mean %s?", nearest);
    return mn__fail(error, MN_ERROR_USAGE, hint, "mneme has no verb '%s'", word);
}

static mn_status run(mn__call *call, mn_error *error)
{
    mn__string text = {0};
    if (call->count == 0) {
        mn__help_all(&text);
        return mn__print(&text, error);
    }
    if (!strcmp(call->operands[0], "recipe")) {
        mn__help_recipe(&text);
        return mn__print(&text, error);
    }
    const mn__verb *verb = mn__verb_find(call->operands[0]);
    if (!verb)
        return mn__verb_unknown(call->operands[0], error);
    mn__help_verb(verb, &text);
    return mn__print(&text, error);
}

const mn__verb mn__verb_help = {
    .name = "help",
    .operands = "[VERB]",
    .most = 1,
    .summary = "what there is to do, what one verb takes, or what a recipe may say",
    .details = "  mneme help train\n"
               "  mneme help recipe",
    .run = run,
};
