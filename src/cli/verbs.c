/* The table of verbs. */
#include <stddef.h>
#include <string.h>

#include "cli/cli.h"

const mn__verb *const mn__verbs[] = {
    &mn__verb_train,    &mn__verb_read,    &mn__verb_ask,        &mn__verb_chat,
    &mn__verb_generate, &mn__verb_eval,    &mn__verb_probe,      &mn__verb_plan,
    &mn__verb_prepare,  &mn__verb_convert, &mn__verb_inspect,    &mn__verb_report,
    &mn__verb_help,     &mn__verb_man,     &mn__verb_completion, NULL,
};

const mn__verb *mn__verb_find(const char *name)
{
    for (int i = 0; mn__verbs[i]; i++)
        if (strcmp(mn__verbs[i]->name, name) == 0)
            return mn__verbs[i];
    return NULL;
}

const char *mn__verb_nearest(const char *word)
{
    const char *nearest = NULL;
    int least = 3;
    for (int i = 0; mn__verbs[i]; i++) {
        int distance = mn__string_distance(word, mn__verbs[i]->name);
        if (distance >= 0 && distance < least) {
            least = distance;
            nearest = mn__verbs[i]->name;
        }
    }
    return nearest;
}

const mn__option *mn__verb_option(const mn__verb *verb, int64_t index)
{
    for (const mn__option *const *table = verb->tables; table && *table; table++)
        for (const mn__option *option = *table; option->type != MN__OPTION_END; option++)
            if (index-- == 0)
                return option;
    return NULL;
}
