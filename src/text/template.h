/* Chat templates: the part of Jinja that the templates of language models are
 * written in, over JSON values. Renderings are those of Jinja 3 as transformers
 * sets it up: trim_blocks and lstrip_blocks, no autoescape, lists and dictionaries
 * that cannot be changed, loop controls, `raise_exception`, `strftime_now`, and a
 * `tojson` that is Python's json.dumps.
 *
 * Statements: for (with if and else, loop.*, break, continue), if/elif/else, set (a name,
 *   several, an attribute of a namespace, a block), macro, raw, generation.
 * Expressions: all of Jinja's operators; conditions; calls; slices.
 * Filters, tests, functions and methods: the tables in template_filter.c,
 *   template_test.c and template_call.c.
 * Not: include, import, extends, block, call, filter, with, recursive loops, escaping;
 *   each is an error that names it.
 *
 * A template is not trusted: work, memory, nesting and output are bounded. */
#ifndef MN__TEXT_TEMPLATE_H
#define MN__TEXT_TEMPLATE_H

#include <jansson.h>

#include "base/error.h"
#include "base/string.h"

typedef struct mn__template mn__template;

/* `name` is what errors call it; text is copied, at most 1 MiB of UTF-8.
 * MN_ERROR_FORMAT: not Jinja, with the line. MN_ERROR_UNSUPPORTED: a statement that is
 * not of the list above, by name. */
mn_status mn__template_parse(mn__template **tmpl, const char *name, const char *text, int64_t bytes,
                             mn_error *error);
void mn__template_free(mn__template *tmpl); /* NULL is fine */

/* Appends the rendering to `out`; on failure `out` is as it was. variables: an object, borrowed.
 * now: seconds since 1970, what strftime_now tells in the machine's time zone.
 * MN_ERROR_MISMATCH: the template refuses its input (raise_exception). MN_ERROR_FORMAT: it
 * does what its values cannot, or runs over a limit. MN_ERROR_UNSUPPORTED: a filter, test,
 * function or method that is not there, by name. A template may be rendered by several
 * threads at once. */
mn_status mn__template_render(const mn__template *tmpl, const json_t *variables, int64_t now,
                              mn__string *out, mn_error *error);

#endif
