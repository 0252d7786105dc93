/* The terminal: the line of progress, and Ctrl-C. */
#ifndef MN__CLI_TERMINAL_H
#define MN__CLI_TERMINAL_H

#include "base/progress.h"

/* Progress on standard error: one line that is written over where that is a
 * terminal, else a plain line every ten seconds. After the first SIGINT or
 * SIGTERM it says stop; the second ends the program at once. */
const mn__progress *mn__terminal_progress(void);
/* SIGINT or SIGTERM came. */
bool mn__terminal_stopped(void);
/* Clears the line, before something else is written. */
void mn__terminal_clear(void);

#endif
