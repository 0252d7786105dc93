/* The program: a table of verbs, each with its options; the command line, the
 * help, the man page and the completions of shells are all made from it.
 *
 * To add a verb: one file with a `const mn__verb`, one line in verbs.c. A verb
 * reads its options, calls the library and prints; it does no arithmetic. */
#ifndef MN__CLI_CLI_H
#define MN__CLI_CLI_H

#include "base/options.h"
#include "base/progress.h"

typedef struct mn__verb mn__verb;

/* One call of a verb, parsed. */
typedef struct mn__call {
    const mn__verb *verb;
    void *options;               /* the verb's struct, filled in */
    const char *const *operands; /* [count]: what is not an option */
    int64_t count;
    mn__arena *arena;             /* dies with the call */
    const mn__progress *progress; /* the terminal's line; says stop after Ctrl-C */
} mn__call;

enum { MN__ANY_NUMBER = -1 };

struct mn__verb {
    const char *name;
    const char *operands;            /* as in the usage line: "RUN", "[FILE...]" */
    int64_t least, most;             /* operands; most may be MN__ANY_NUMBER */
    bool model;                      /* its option --model may take the last operand's place */
    const char *summary;             /* one line, no full stop */
    const char *details;             /* paragraphs of at most 78 columns; "" for none */
    const mn__option *const *tables; /* NULL-ended: the options, over one struct */
    int64_t options_bytes;           /* of that struct */
    mn_status (*run)(mn__call *call, mn_error *error);
};

/* All verbs, NULL-ended, in the order of the help page. */
extern const mn__verb *const mn__verbs[];
const mn__verb *mn__verb_find(const char *name); /* NULL: there is none */
/* The verb nearest to a word, or NULL. */
const char *mn__verb_nearest(const char *word);

extern const mn__verb mn__verb_train, mn__verb_read, mn__verb_ask, mn__verb_chat, mn__verb_eval,
    mn__verb_generate, mn__verb_report, mn__verb_plan, mn__verb_prepare, mn__verb_inspect,
    mn__verb_convert, mn__verb_probe, mn__verb_help, mn__verb_man, mn__verb_completion;

/* The options of a verb over all its tables, by index; NULL at the end. */
const mn__option *mn__verb_option(const mn__verb *verb, int64_t index);

#endif
