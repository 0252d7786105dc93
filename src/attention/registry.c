/* The list of attention types. */
#include <string.h>

#include "attention/types.h"

const mn__attention_type *const mn__attention_types[] = {
    &mn__attention_full,
    &mn__attention_window,
    &mn__attention_xl,
    NULL,
};

const mn__attention_type *mn__attention_find(const char *name)
{
    for (const mn__attention_type *const *type = mn__attention_types; *type; type++)
        if (!strcmp((*type)->name, name))
            return *type;
    return NULL;
}
