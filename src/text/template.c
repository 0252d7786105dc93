/* Chat templates from text to rendering, and the bounds that a rendering has. */
#include "text/template.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "text/template_own.h"
#include "text/utf8.h"

enum {
    MOST_TEMPLATE = 1 << 20,
    MOST_DEPTH = 500,     /* nodes within nodes, calls within calls, lists within lists */
    WORK = 100 * 1000000, /* units; about a second */
    MEMORY = 64 << 20,    /* bytes of values, and as many of output */
    PER_INPUT_BYTE = 64,  /* more of both for each byte that is given */
    ARENA_BLOCK = 64 << 10,
};

const char mn__jinja_hint[] = "--raw takes the prompt as it stands, without the model's template";

/* ---- Parsing ----------------------------------------------------------------------- */

static mn_status parse(mn__template *tmpl, const char *name, const char *text, int64_t bytes,
                       mn_error *error)
{
    mn__jinja_tokens tokens = {0};
    tmpl->name = mn__arena_strdup(&tmpl->arena, name);
    if (!tmpl->name)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
    mn_status status = mn__jinja_tokenize(&tmpl->arena, tmpl->name, text, bytes, &tokens, error);
    if (!status)
        status = mn__jinja_parse(&tmpl->arena, tmpl->name, &tokens, &tmpl->body, error);
    mn__free(tokens.at);
    return status;
}

mn_status mn__template_parse(mn__template **tmpl, const char *name, const char *text, int64_t bytes,
                             mn_error *error)
{
    *tmpl = NULL;
    if (bytes > MOST_TEMPLATE)
        return mn__fail(error, MN_ERROR_FORMAT, mn__jinja_hint,
                        "%s: a template of %lld bytes is over the limit of 1 MiB", name,
                        (long long)bytes);
    if (mn__utf8_valid(text, bytes) != bytes)
        return mn__fail(error, MN_ERROR_FORMAT, mn__jinja_hint, "%s: byte %lld is not UTF-8", name,
                        (long long)mn__utf8_valid(text, bytes));
    mn__template *made = mn__calloc(1, (int64_t)sizeof *made);
    if (!made)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
    mn__arena_init(&made->arena, ARENA_BLOCK);
    mn_status status = parse(made, name, text, bytes, error);
    if (status)
        mn__template_free(made);
    else
        *tmpl = made;
    return status;
}

void mn__template_free(mn__template *tmpl)
{
    if (tmpl)
        mn__arena_free(&tmpl->arena);
    mn__free(tmpl);
}

/* ---- Bounds -------------------------------------------------------------------------- */

mn_status mn__jinja_fail(mn__jinja_run *run, mn_status code, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return mn__fail(run->error, code, mn__jinja_hint, "%s, line %d: %s", run->name, run->line,
                    message);
}

mn_status mn__jinja_no_memory(mn__jinja_run *run)
{
    return mn__fail(run->error, MN_ERROR_MEMORY, NULL, "%s: out of memory", run->name);
}

mn_status mn__jinja_spend(mn__jinja_run *run, int64_t units)
{
    if (units > run->work_left)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "the template does not come to an end");
    run->work_left -= units;
    return MN_OK;
}

mn_status mn__jinja_alloc(mn__jinja_run *run, int64_t bytes, void *out)
{
    if (bytes < 0 || bytes > run->memory - run->arena.used)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "the template wants too much memory");
    void *block = mn__arena_alloc(&run->arena, bytes);
    if (!block)
        return mn__jinja_no_memory(run);
    memcpy(out, &block, sizeof block);
    return MN_OK;
}

mn_status mn__jinja_enter(mn__jinja_run *run)
{
    if (++run->depth > MOST_DEPTH)
        return mn__jinja_fail(run, MN_ERROR_FORMAT, "values or calls are nested too deep");
    return MN_OK;
}

void mn__jinja_leave(mn__jinja_run *run)
{
    run->depth--;
}

void mn__jinja_given(mn__jinja_run *run, int64_t bytes)
{
    run->work_left += PER_INPUT_BYTE * bytes;
    run->memory += PER_INPUT_BYTE * bytes;
}

mn_status mn__template_render(const mn__template *tmpl, const json_t *variables, int64_t now,
                              mn__string *out, mn_error *error)
{
    int64_t before = out->bytes;
    mn__jinja_run run = {.name = tmpl->name,
                         .error = error,
                         .out = out,
                         .work_left = WORK,
                         .memory = MEMORY,
                         .now = now,
                         .line = 1};
    mn__arena_init(&run.arena, ARENA_BLOCK);
    mn_status status = mn__jinja_run_template(&run, tmpl, variables);
    mn__arena_free(&run.arena);
    if (status && out->text) {
        out->bytes = before;
        out->text[before] = '\0';
    }
    return status;
}
