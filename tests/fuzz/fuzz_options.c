/* Fuzzing recipes: any bytes as YAML, read against a table, written back. What
 * was accepted must be accepted again in its written form, and be the same. */
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

typedef struct component {
    int64_t whole;
    double number;
    bool yes;
    const char *text;
    int choice;
    mn__string_list list;
} component;

static const mn__option table[] = {
    MN__INT(component, whole, "64Ki", -10, 1e12, "a whole number"),
    MN__FLOAT(component, number, "0.5", 0, INFINITY, "a number"),
    MN__BOOL(component, yes, "true", "a flag"),
    MN__STRING(component, text, "", "a text"),
    MN__ENUM(component, choice, "b", "a|b|c", "a choice"),
    MN__LIST(component, list, "", "a list"),
    MN__OPTIONS_END,
};

static void must(bool condition)
{
    if (!condition)
        abort();
}

static mn__string written(const mn__yaml_node *root)
{
    mn__string out = {0};
    must(mn__yaml_write(root, &out, NULL) == MN_OK);
    return out;
}

static void check_options(mn__arena *arena, const mn__yaml_node *root)
{
    component first, second;
    mn_error error = {0};
    const char *const also[] = {"model", NULL};
    if (mn__options_read(table, root, also, &first, arena, &error)) {
        must(error.message[0] != '\0');
        return;
    }
    mn__string once = {0}, twice = {0};
    mn__options_write(table, &first, 0, &once);
    mn__yaml_node *again;
    must(mn__yaml_parse(arena, "again", once.text, once.bytes, &again, NULL) == MN_OK);
    must(mn__options_read(table, again, NULL, &second, arena, NULL) == MN_OK);
    mn__options_write(table, &second, 0, &twice);
    must(strcmp(once.text, twice.text) == 0);
    mn__string_free(&once);
    mn__string_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mn__arena arena;
    mn__arena_init(&arena, 0);
    mn__yaml_node *root, *back;
    mn_error error = {0};
    if (mn__yaml_parse(&arena, "fuzz", (const char *)data, (int64_t)size, &root, &error) == MN_OK) {
        mn__string once = written(root);
        must(mn__yaml_parse(&arena, "back", once.text, once.bytes, &back, NULL) == MN_OK);
        mn__string twice = written(back);
        must(strcmp(once.text, twice.text) == 0);
        check_options(&arena, root);
        mn__string_free(&once);
        mn__string_free(&twice);
        char *assignment = mn__arena_printf(&arena, "%.*s", (int)size, (const char *)data);
        must(assignment != NULL);
        (void)mn__yaml_set(&arena, root, assignment, &error);
    } else {
        must(error.message[0] != '\0');
    }
    mn__arena_free(&arena);
    return 0;
}
