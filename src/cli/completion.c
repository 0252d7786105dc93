/* mneme completion: verbs, options and choices for bash, zsh and fish, written
 * from the table of verbs. */
#include <string.h>

#include "cli/args.h"
#include "cli/help.h"

/* ---- Words ---------------------------------------------------------------- */

static void put_verbs(mn__string *out)
{
    for (int i = 0; mn__verbs[i]; i++)
        mn__string_printf(out, "%s%s", i ? " " : "", mn__verbs[i]->name);
}

static void put_options(const mn__verb *verb, mn__string *out)
{
    const mn__option *option;
    for (int64_t i = 0; (option = mn__verb_option(verb, i)); i++) {
        mn__args_name(option, out);
        mn__string_puts(out, " ");
    }
    mn__string_puts(out, "--help");
}

/* "a|b" as "a b". */
static void put_choices(const char *choices, mn__string *out)
{
    for (; *choices; choices++)
        mn__string_add(out, *choices == '|' ? " " : choices, 1);
}

/* Text inside single quotes, for zsh also outside of its own brackets. */
static void put_quoted(mn__string *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("[]:", *text))
            mn__string_puts(out, "\\");
        mn__string_puts(out, *text == '\'' ? "'\\'" : "");
        mn__string_add(out, text, 1);
    }
}

/* ---- bash ------------------------------------------------------------------ */

static void put_bash(mn__string *out)
{
    mn__string_puts(out,
                    "# mneme for bash: eval \"$(mneme completion bash)\"\n"
                    "_mneme() {\n"
                    "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
                    "    local words=\n"
                    "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words='");
    put_verbs(out);
    mn__string_puts(out, "'\n    else\n        case ${COMP_WORDS[1]}$before in\n");
    const mn__option *option;
    for (int v = 0; mn__verbs[v]; v++)
        for (int64_t i = 0; (option = mn__verb_option(mn__verbs[v], i)); i++)
            if (option->type == MN__OPTION_ENUM) {
                mn__string_printf(out, "        %s", mn__verbs[v]->name);
                mn__args_name(option, out);
                mn__string_puts(out, ") words='");
                put_choices(option->choices, out);
                mn__string_puts(out, "' ;;\n");
            }
    mn__string_puts(out, "        help*) words='");
    put_verbs(out);
    mn__string_puts(
        out, " recipe' ;;\n        completion*) words='bash zsh fish' ;;\n        esac\n    fi\n"
             "    if [ -z \"$words\" ] && [[ $word == -* ]]; then\n"
             "        case ${COMP_WORDS[1]} in\n");
    for (int v = 0; mn__verbs[v]; v++) {
        mn__string_printf(out, "        %s) words='", mn__verbs[v]->name);
        put_options(mn__verbs[v], out);
        mn__string_puts(out, "' ;;\n");
    }
    mn__string_puts(out, "        esac\n    fi\n"
                         "    if [ -n \"$words\" ]; then\n"
                         "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
                         "    else\n"
                         "        mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n    fi\n}\n"
                         "complete -o filenames -F _mneme mneme\n");
}

/* ---- zsh ------------------------------------------------------------------- */

static void put_zsh_option(const mn__option *option, mn__string *out)
{
    mn__string_puts(out, option->type == MN__OPTION_LIST ? "            '*" : "            '");
    mn__args_name(option, out);
    mn__string_puts(out, "[");
    put_quoted(out, option->help);
    mn__string_puts(out, "]");
    if (option->type == MN__OPTION_ENUM) {
        mn__string_puts(out, ":choice:(");
        put_choices(option->choices, out);
        mn__string_puts(out, ")");
    } else if (option->type != MN__OPTION_BOOL) {
        mn__string_printf(out, ":%s:_files", mn__args_value(option));
    }
    mn__string_puts(out, "' \\\n");
}

static void put_zsh(mn__string *out)
{
    mn__string_puts(out, "#compdef mneme\n# mneme for zsh: eval \"$(mneme completion zsh)\"\n"
                         "_mneme() {\n    local -a verbs\n    verbs=(\n");
    for (int v = 0; mn__verbs[v]; v++) {
        mn__string_printf(out, "        '%s:", mn__verbs[v]->name);
        put_quoted(out, mn__verbs[v]->summary);
        mn__string_puts(out, "'\n");
    }
    mn__string_puts(out, "    )\n    if (( CURRENT == 2 )); then\n"
                         "        _describe verb verbs\n        return\n    fi\n"
                         "    case $words[2] in\n");
    const mn__option *option;
    for (int v = 0; mn__verbs[v]; v++) {
        mn__string_printf(out,
                          "    %s)\n        shift words\n        (( CURRENT-- ))\n"
                          "        _arguments \\\n",
                          mn__verbs[v]->name);
        for (int64_t i = 0; (option = mn__verb_option(mn__verbs[v], i)); i++)
            put_zsh_option(option, out);
        mn__string_puts(out, "            '--help[what this verb takes]' '*:file:_files' ;;\n");
    }
    mn__string_puts(out, "    esac\n}\ncompdef _mneme mneme\n");
}

/* ---- fish ------------------------------------------------------------------ */

static void put_fish_text(mn__string *out, const char *text)
{
    mn__string_puts(out, "'");
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            mn__string_puts(out, "\\");
        mn__string_add(out, text, 1);
    }
    mn__string_puts(out, "'");
}

static void put_fish_option(const mn__verb *verb, const mn__option *option, mn__string *out)
{
    mn__string name = {0};
    mn__args_name(option, &name);
    mn__string_printf(out, "complete -c mneme -n '__fish_seen_subcommand_from %s' -l %s",
                      verb->name, name.text ? name.text + 2 : "");
    if (option->type == MN__OPTION_ENUM) {
        mn__string_puts(out, " -x -a '");
        put_choices(option->choices, out);
        mn__string_puts(out, "'");
    } else if (option->type != MN__OPTION_BOOL) {
        mn__string_puts(out, " -r");
    }
    mn__string_puts(out, " -d ");
    put_fish_text(out, option->help);
    mn__string_puts(out, "\n");
    out->failed |= name.failed;
    mn__string_free(&name);
}

static void put_fish(mn__string *out)
{
    mn__string_puts(out, "# mneme for fish: mneme completion fish | source\n");
    const mn__option *option;
    for (int v = 0; mn__verbs[v]; v++) {
        mn__string_printf(out, "complete -c mneme -n __fish_use_subcommand -f -a %s -d ",
                          mn__verbs[v]->name);
        put_fish_text(out, mn__verbs[v]->summary);
        mn__string_puts(out, "\n");
        for (int64_t i = 0; (option = mn__verb_option(mn__verbs[v], i)); i++)
            put_fish_option(mn__verbs[v], option, out);
    }
}

static mn_status run(mn__call *call, mn_error *error)
{
    static const struct {
        const char *name;
        void (*put)(mn__string *out);
    } shells[] = {{"bash", put_bash}, {"zsh", put_zsh}, {"fish", put_fish}};
    for (size_t i = 0; i < sizeof shells / sizeof *shells; i++)
        if (!strcmp(call->operands[0], shells[i].name)) {
            mn__string out = {0};
            shells[i].put(&out);
            return mn__print(&out, error);
        }
    return mn__fail(error, MN_ERROR_USAGE, "the shells are bash, zsh and fish",
                    "no completion for '%s'", call->operands[0]);
}

const mn__verb mn__verb_completion = {
    .name = "completion",
    .operands = "SHELL",
    .least = 1,
    .most = 1,
    .summary = "print the completion for a shell: bash, zsh or fish",
    .details = "  eval \"$(mneme completion bash)\"",
    .run = run,
};
