/* The command line, read against a verb's tables of options. */
#include "cli/args.h"

#include <string.h>

typedef struct argument_words {
    mn__call *call;
    char **argv;
    int argc, at;
    const char **operands;
    mn_error *error;
} argument_words;

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the command line");
}

void mn__args_name(const mn__option *option, mn__string *out)
{
    mn__string_puts(out, "--");
    for (const char *c = option->name; *c; c++)
        mn__string_add(out, *c == '_' ? "-" : c, 1);
}

const char *mn__args_value(const mn__option *option)
{
    switch (option->type) {
    case MN__OPTION_INT:
        return "N";
    case MN__OPTION_FLOAT:
        return "X";
    case MN__OPTION_ENUM:
        return option->choices;
    case MN__OPTION_STRING:
    case MN__OPTION_LIST:
        return "TEXT";
    case MN__OPTION_BOOL:
    case MN__OPTION_END:
        break;
    }
    return "";
}

/* Is `word` (`bytes` long, without its dashes) this option's name? */
static bool names(const mn__option *option, const char *word, size_t bytes)
{
    if (strlen(option->name) != bytes)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (option->name[i] != (word[i] == '-' ? '_' : word[i]))
            return false;
    return true;
}

static mn_status fail_unknown(const argument_words *words, const char *word)
{
    const mn__verb *verb = words->call->verb;
    const char *nearest = NULL;
    char name[64];
    size_t bytes = strcspn(word, "=");
    for (size_t i = 0; i <= bytes && i < sizeof name; i++)
        name[i] = i == bytes || i + 1 == sizeof name ? '\0' : word[i] == '-' ? '_' : word[i];
    for (int i = 0; verb->tables && verb->tables[i] && !nearest; i++)
        nearest = mn__options_nearest(verb->tables[i], name);
    mn__string hint = {0};
    mn__string_puts(&hint, nearest ? "did you mean --" : "the options are listed by: mneme help ");
    mn__string_puts(&hint, nearest ? nearest : verb->name);
    for (int64_t i = 0; nearest && i < hint.bytes; i++)
        if (hint.text[i] == '_')
            hint.text[i] = '-';
    if (nearest)
        mn__string_puts(&hint, "?");
    mn_status status = mn__fail(words->error, MN_ERROR_USAGE, hint.text,
                                "mneme %s has no option --%.*s", verb->name, (int)bytes, word);
    mn__string_free(&hint);
    return status;
}

static mn_status append(mn__string_list *list, const char *item, mn__arena *arena, mn_error *error)
{
    const char **items = mn__arena_calloc(arena, list->count + 1, sizeof *items);
    if (!items)
        return no_memory(error);
    if (list->count)
        memcpy(items, list->items, (size_t)list->count * sizeof *items);
    items[list->count] = item;
    *list = (mn__string_list){.items = items, .count = list->count + 1};
    return MN_OK;
}

/* The words of the command line live as long as the call does. */
static mn_status set(const argument_words *words, const mn__option *option, const char *value)
{
    mn__call *call = words->call;
    if (option->type == MN__OPTION_LIST)
        return append((mn__string_list *)(void *)((char *)call->options + option->offset), value,
                      call->arena, words->error);
    const mn__option one[] = {*option, MN__OPTIONS_END};
    mn_status status =
        mn__options_set(one, option->name, value, call->options, call->arena, words->error);
    if (status == MN_ERROR_OPTION && words->error)
        words->error->code = status = MN_ERROR_USAGE;
    return status;
}

/* argv[at] is `--word`; takes the next word too where that is its value. */
static mn_status parse_option(argument_words *words, const char *word)
{
    size_t bytes = strcspn(word, "=");
    const char *value = word[bytes] ? word + bytes + 1 : NULL;
    const mn__option *option;
    for (int64_t i = 0;; i++) {
        option = mn__verb_option(words->call->verb, i);
        if (!option)
            return fail_unknown(words, word);
        if (names(option, word, bytes))
            break;
    }
    if (!value && option->type == MN__OPTION_BOOL)
        value = "true";
    else if (!value && words->at + 1 < words->argc)
        value = words->argv[++words->at];
    if (!value)
        return mn__fail(words->error, MN_ERROR_USAGE, option->help, "--%.*s wants a value: %s",
                        (int)bytes, word, mn__args_value(option));
    return set(words, option, value);
}

/* What --model says is the last operand, for verbs that have it so. */
static mn_status take_model(const argument_words *words)
{
    mn__call *call = words->call;
    const mn__verb *verb = call->verb;
    const mn__option *option = NULL;
    for (int64_t i = 0; verb->model && (option = mn__verb_option(verb, i)); i++)
        if (!strcmp(option->name, "model"))
            break;
    const char *model =
        option ? *(const char **)(void *)((char *)call->options + option->offset) : "";
    if (!*model)
        return MN_OK;
    if (call->count >= verb->most)
        return mn__fail(words->error, MN_ERROR_USAGE, "give one of them",
                        "'%s' and --model %s name the same thing", call->operands[verb->most - 1],
                        model);
    words->operands[call->count++] = model;
    return MN_OK;
}

static mn_status check_operands(const argument_words *words)
{
    const mn__call *call = words->call;
    const mn__verb *verb = call->verb;
    mn__string hint = {0};
    mn__string_printf(&hint, "usage: mneme %s %s; more by: mneme help %s", verb->name,
                      verb->operands, verb->name);
    mn_status status = MN_OK;
    if (call->count < verb->least)
        status = mn__fail(words->error, MN_ERROR_USAGE, hint.text, "mneme %s wants %s", verb->name,
                          verb->operands);
    else if (verb->most != MN__ANY_NUMBER && call->count > verb->most)
        status = mn__fail(words->error, MN_ERROR_USAGE, hint.text,
                          "mneme %s does not know what to do with '%s'", verb->name,
                          call->operands[verb->most]);
    mn__string_free(&hint);
    return status;
}

static mn_status parse_words(argument_words *words, bool *help)
{
    mn__call *call = words->call;
    bool options = true;
    for (; words->at < words->argc; words->at++) {
        const char *word = words->argv[words->at];
        mn_status status = MN_OK;
        if (options && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
            *help = true;
            return MN_OK;
        }
        if (options && !strcmp(word, "--"))
            options = false;
        else if (options && !strncmp(word, "--", 2))
            status = parse_option(words, word + 2);
        else if (options && word[0] == '-' && word[1])
            status = mn__fail(words->error, MN_ERROR_USAGE,
                              "options have two dashes; `--` ends them, for a name with a dash",
                              "there is no option %s", word);
        else
            words->operands[call->count++] = word;
        if (status != MN_OK)
            return status;
    }
    mn_status status = take_model(words);
    return status == MN_OK ? check_operands(words) : status;
}

mn_status mn__args_parse(mn__call *call, int argc, char **argv, bool *help, mn_error *error)
{
    argument_words words = {.call = call, .argc = argc, .argv = argv, .error = error};
    *help = false;
    words.operands = mn__arena_calloc(call->arena, argc + 1, sizeof *words.operands);
    call->options = mn__arena_calloc(call->arena, 1, call->verb->options_bytes + 1);
    if (!words.operands || !call->options)
        return no_memory(error);
    call->operands = words.operands;
    mn_status status = MN_OK;
    for (int i = 0; status == MN_OK && call->verb->tables && call->verb->tables[i]; i++)
        status = mn__options_default(call->verb->tables[i], call->options, call->arena, error);
    return status ? status : parse_words(&words, help);
}

mn_status mn__args_split(const char *text, mn__arena *arena, mn__string_list *list, mn_error *error)
{
    mn_status status = MN_OK;
    char *copy = mn__arena_strdup(arena, text);
    if (!copy)
        return no_memory(error);
    *list = (mn__string_list){0};
    for (char *save = NULL, *item = strtok_r(copy, ",", &save); item && status == MN_OK;
         item = strtok_r(NULL, ",", &save))
        status = append(list, item, arena, error);
    return status;
}
