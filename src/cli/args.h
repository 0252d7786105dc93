/* The command line: `--name value`, `--name=value`, `--switch`, operands. An
 * option whose value is a list may be given many times; `--` ends the options. */
#ifndef MN__CLI_ARGS_H
#define MN__CLI_ARGS_H

#include "cli/cli.h"

/* Fills call->options, operands and count from the words after the verb, in
 * call->arena. *help: --help or -h was among them, and nothing else counts.
 * MN_ERROR_USAGE for anything that does not fit the verb. */
mn_status mn__args_parse(mn__call *call, int argc, char **argv, bool *help, mn_error *error);

/* "train_vocab" as it is typed: "--train-vocab". */
void mn__args_name(const mn__option *option, mn__string *out);
/* What its value is called: "FILE", "N"; "" for a switch. */
const char *mn__args_value(const mn__option *option);

/* "a,b,c" as a list, in the arena; "" is empty. */
mn_status mn__args_split(const char *text, mn__arena *arena, mn__string_list *list,
                         mn_error *error);

#endif
