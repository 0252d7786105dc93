/* Help pages, and how verbs print. */
#ifndef MN__CLI_HELP_H
#define MN__CLI_HELP_H

#include "cli/cli.h"

void mn__help_all(mn__string *out);
void mn__help_verb(const mn__verb *verb, mn__string *out);
/* Every key of a recipe, with its values and its default. */
void mn__help_recipe(mn__string *out);
/* Prints and frees a text; MN_ERROR_MEMORY where it had failed. */
mn_status mn__print(mn__string *text, mn_error *error);
/* MN_ERROR_USAGE, naming the nearest verb. */
mn_status mn__verb_unknown(const char *word, mn_error *error);

#endif
