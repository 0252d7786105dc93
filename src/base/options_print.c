/* Options as text: values for a recipe, lines for --help, rows for the docs. */
#include <stdio.h>
#include <string.h>

#include "base/options.h"

/* The shortest text that reads back as the same number. */
static void put_float(mn__string *out, double value)
{
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        double back = 0;
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (sscanf(text, "%lf", &back) == 1 && back == value)
            break;
    }
    mn__string_puts(out, text);
}

static void put_text(mn__string *out, const char *text)
{
    mn__string_json(out, text, (int64_t)strlen(text));
}

static void put_list(mn__string *out, const mn__string_list *list)
{
    mn__string_puts(out, "[");
    for (int64_t i = 0; i < list->count; i++) {
        mn__string_puts(out, i ? ", " : "");
        put_text(out, list->items[i]);
    }
    mn__string_puts(out, "]");
}

static void put_choice(mn__string *out, const char *choices, int index)
{
    for (; index > 0 && choices; index--)
        choices = strchr(choices, '|') ? strchr(choices, '|') + 1 : NULL;
    if (choices)
        mn__string_add(out, choices, (int64_t)strcspn(choices, "|"));
}

void mn__options_value(const mn__option *option, const void *component, mn__string *out)
{
    const void *field = (const char *)component + option->offset;
    switch (option->type) {
    case MN__OPTION_BOOL:
        mn__string_puts(out, *(const bool *)field ? "true" : "false");
        break;
    case MN__OPTION_INT:
        mn__string_printf(out, "%lld", (long long)*(const int64_t *)field);
        break;
    case MN__OPTION_FLOAT:
        put_float(out, *(const double *)field);
        break;
    case MN__OPTION_STRING:
        put_text(out, *(const char *const *)field);
        break;
    case MN__OPTION_ENUM:
        put_choice(out, option->choices, *(const int *)field);
        break;
    case MN__OPTION_LIST:
        put_list(out, field);
        break;
    case MN__OPTION_END:
        break;
    }
}

void mn__options_write(const mn__option *table, const void *component, int indent, mn__string *out)
{
    for (; table->type != MN__OPTION_END; table++) {
        mn__string_printf(out, "%*s%s: ", indent, "", table->name);
        mn__options_value(table, component, out);
        mn__string_puts(out, "\n");
    }
}

/* What a value may be: "text", "constant|cosine", "1 to 64". */
static void put_kind(const mn__option *option, mn__string *out)
{
    switch (option->type) {
    case MN__OPTION_BOOL:
        mn__string_puts(out, "true|false");
        return;
    case MN__OPTION_STRING:
        mn__string_puts(out, "text");
        return;
    case MN__OPTION_ENUM:
        mn__string_puts(out, option->choices);
        return;
    case MN__OPTION_LIST:
        mn__string_puts(out, "list");
        return;
    case MN__OPTION_INT:
    case MN__OPTION_FLOAT:
        mn__string_puts(out, option->type == MN__OPTION_INT ? "whole number" : "number");
        break;
    case MN__OPTION_END:
        return;
    }
    if (option->least == 0 && option->most == 0)
        return;
    if (option->most > 1e300)
        mn__string_printf(out, ", at least %.15g", option->least);
    else if (option->least < -1e300)
        mn__string_printf(out, ", at most %.15g", option->most);
    else
        mn__string_printf(out, ", %.15g to %.15g", option->least, option->most);
}

void mn__options_help(const mn__option *table, mn__string *out)
{
    for (; table->type != MN__OPTION_END; table++) {
        mn__string_printf(out, "  %-22s %s\n  %-22s (", table->name, table->help, "");
        put_kind(table, out);
        mn__string_printf(out, "; default %s)\n", *table->fallback ? table->fallback : "none");
    }
}

void mn__options_markdown(const mn__option *table, mn__string *out)
{
    mn__string_puts(out, "| key | value | default | what it is |\n|---|---|---|---|\n");
    for (; table->type != MN__OPTION_END; table++) {
        mn__string kind = {0};
        put_kind(table, &kind);
        mn__string_printf(out, "| `%s` | ", table->name);
        for (int64_t i = 0; i < kind.bytes; i++) /* a bar would end the cell */
            mn__string_printf(out, "%s%c", kind.text[i] == '|' ? "\\" : "", kind.text[i]);
        mn__string_printf(out, " | `%s` | %s |\n", table->fallback, table->help);
        out->failed |= kind.failed;
        mn__string_free(&kind);
    }
}
