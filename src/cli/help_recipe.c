/* mneme help recipe: every key of a recipe, written from the tables that read it. */
#include "attention/attention.h"
#include "cli/help.h"
#include "model/decoder.h"
#include "train/recipe.h"

static void put_table(mn__string *out, const char *title, const mn__option *table)
{
    mn__string_printf(out, "\n%s\n", title);
    mn__options_help(table, out);
}

static void put_attention(mn__string *out)
{
    mn__string_puts(out,
                    "\nattention:\n  type                   how a layer sees the past; each has "
                    "keys of its own\n                         (");
    for (int i = 0; mn__attention_types[i]; i++)
        mn__string_printf(out, "%s%s", i ? "|" : "", mn__attention_types[i]->name);
    mn__string_puts(out, "; default full)\n");
    for (int i = 0; mn__attention_types[i]; i++) {
        const mn__attention_type *type = mn__attention_types[i];
        mn__string_printf(out, "\nattention: type: %s\n  %s\n  %s\n", type->name, type->help,
                          type->paper);
        mn__options_help(type->options, out);
    }
}

void mn__help_recipe(mn__string *out)
{
    mn__option prepare[MN__PREPARE_OPTIONS_MAX + 1];
    mn__recipe_prepare_table(prepare);
    mn__string_puts(out, "A recipe is one YAML file: sections of keys with values, as in recipes/. "
                         "What it\nleaves out has the default; a run's folder keeps it complete. "
                         "--set SECTION.KEY=VALUE\nchanges a key. 2k, 1M, 64Ki and 1e6 are whole "
                         "numbers.\n");
    put_table(out, "model:", mn__decoder_option_table);
    mn__string_puts(
        out, "  block                  the sublayers of a layer, a list; a list in it is parallel\n"
             "                         (default [attention, feed_forward])\n"
             "  layers                 single layers with another attention or block, a list:\n"
             "                         [{layers: [0, 3], type: full}]\n");
    put_attention(out);
    put_table(out, "data:", mn__data_option_table);
    put_table(out, "data: how the corpus is prepared, as `mneme prepare` does", prepare);
    put_table(out, "optimizer:", mn__optimizer_option_table);
    put_table(out, "schedule:", mn__schedule_option_table);
    put_table(out, "train:", mn__train_option_table);
}
