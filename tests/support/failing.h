/* Every allocation of some work made to fail in turn. */
#ifndef TESTS_SUPPORT_FAILING_H
#define TESTS_SUPPORT_FAILING_H

#include <stdbool.h>

#include "base/memory.h"

/* Some work, from nothing to nothing: what it takes it gives back. */
typedef mn_status (*failing_work)(void *user, mn_error *error);

/* Runs the work with its first allocation failing, then its second, and so on
 * until none is left to fail. Each time it must succeed (what is not needed may
 * be missing) or end with MN_ERROR_MEMORY and a message, and hold no memory
 * afterwards. `single`: each allocation from an arena is one of its own, so that
 * all of these fail too. `after`, or NULL, is called between two runs, when no
 * allocation fails. How many failed. */
int64_t failing_each(const char *what, failing_work work, void *user, bool single,
                     void (*after)(void *user));

#endif
