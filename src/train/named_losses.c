/* Named sums of losses. */
#include "train/named_losses.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

void mn__named_losses_add(mn__named_losses *losses, const char *name, double value)
{
    int i = 0;
    while (i < losses->count && strcmp(losses->item[i].name, name))
        i++;
    assert(i < MN__NAMED_LOSSES_MAX && strlen(name) < MN__LOSS_NAME_MAX);
    if (i == losses->count) {
        losses->item[i].sum = 0;
        snprintf(losses->item[losses->count++].name, MN__LOSS_NAME_MAX, "%s", name);
    }
    losses->item[i].sum += value;
}

void mn__named_losses_add_all(mn__named_losses *losses, const mn__named_losses *more, double factor)
{
    for (int i = 0; i < more->count; i++)
        mn__named_losses_add(losses, more->item[i].name, factor * more->item[i].sum);
}

void mn__named_losses_save(const mn__named_losses *losses, mn__string *json)
{
    mn__string_puts(json, "{");
    for (int i = 0; i < losses->count; i++)
        mn__string_printf(json, "%s\"%s\": %.17g", i ? ", " : "", losses->item[i].name,
                          losses->item[i].sum);
    mn__string_puts(json, "}");
}

mn_status mn__named_losses_load(mn__named_losses *losses, mn__json object, mn_error *error)
{
    const char *name;
    json_t *sum;
    *losses = (mn__named_losses){0};
    json_object_foreach((json_t *)(uintptr_t)object.value, name, sum)
    {
        if (!json_is_number(sum) || strlen(name) >= MN__LOSS_NAME_MAX ||
            losses->count == MN__NAMED_LOSSES_MAX)
            return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: `losses` are no sums of losses",
                            object.file);
        mn__named_losses_add(losses, name, json_number_value(sum));
    }
    return MN_OK;
}
