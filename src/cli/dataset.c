/* What a data set is: its splits and counts. */
#include "cli/dataset.h"

#include "cli/help.h"
#include "cli/table.h"

static json_t *splits_of(const mn__dataset *dataset)
{
    json_t *rows = json_array();
    for (int split = 0; split <= MN__SPLITS; split++) {
        mn__dataset_counts counts = mn__dataset_counts_of(dataset, (mn__split)split);
        if (!counts.documents)
            continue;
        json_t *row =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:s}", "split",
                      split == MN__SPLITS ? "all" : mn__split_name((mn__split)split), "documents",
                      (json_int_t)counts.documents, "tokens", (json_int_t)counts.tokens, "words",
                      (json_int_t)counts.words, "characters", (json_int_t)counts.characters,
                      "bytes", (json_int_t)counts.bytes, "fingerprint",
                      mn__dataset_fingerprint(dataset, (mn__split)split).hex);
        if (row && counts.published_words)
            json_object_set_new(row, "published_words", json_integer(counts.published_words));
        json_array_append_new(rows, row);
    }
    return rows;
}

mn_status mn__dataset_print(const mn__dataset *dataset, bool json, mn_error *error)
{
    static const mn__column columns[] = {
        {"split", "split", 0},
        {"documents", "documents", 0},
        {"tokens", "tokens", 0},
        {"words", "words", 0},
        {"characters", "characters", 0},
        {"bytes", "bytes", 0},
        {"fingerprint", "fingerprint", 0},
        {0},
    };
    const mn__tokenizer *tokenizer = mn__dataset_tokenizer(dataset);
    const char *newlines = mn__dataset_newlines(dataset) == MN__NEWLINES_LF ? "lf" : "keep";
    json_t *splits = splits_of(dataset);
    if (json)
        return mn__table_json(
            json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:o}", "kind", "data set", "folder",
                      mn__dataset_folder(dataset), "tokenizer", tokenizer->type->name, "vocabulary",
                      (json_int_t)tokenizer->vocab, "tokenizer_fingerprint",
                      tokenizer->fingerprint.hex, "newlines", newlines, "splits", splits),
            error);
    mn__string text = {0};
    mn__string_printf(&text,
                      "%s: a data set of %lld documents\ntokenizer %s, %lld ids, %s; "
                      "newlines %s\n\n",
                      mn__dataset_folder(dataset), (long long)mn__dataset_count(dataset),
                      tokenizer->type->name, (long long)tokenizer->vocab,
                      tokenizer->fingerprint.hex, newlines);
    mn__table_put(&text, columns, splits);
    json_decref(splits);
    return mn__print(&text, error);
}
