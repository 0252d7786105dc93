/* PG-19 (Rae et al. 2020) in its published layout: folders train, validation and
 * test of <id>.txt, and metadata.csv: id, "title by author", year, link, without
 * a header. Splits that are not there are left out, books without a row keep
 * an empty title. */
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/corpus_types.h"
#include "data/csv.h"
#include "text/vocabulary.h"

/* What the authors' table gives; words normalise the published perplexities. */
static const struct {
    int64_t books, words;
} published[MN__SPLITS] = {
    [MN__SPLIT_TRAIN] = {28602, INT64_C(1973136207)},
    [MN__SPLIT_VALIDATION] = {50, 3007061},
    [MN__SPLIT_TEST] = {100, 6966499},
};

static mn_status fail_memory(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
}

/* ---- Titles --------------------------------------------------------------- */

/* A book's id and its title, one after the other in `text`. */
typedef struct titles {
    mn__vocabulary ids; /* count: the title's offset in `text` */
    mn__string text;    /* titles, each with its NUL */
} titles;

static mn_status take_row(titles *all, const mn__csv *csv, mn_error *error)
{
    if (csv->fields != 4)
        return mn__fail(error, MN_ERROR_FORMAT, "its rows are: id, title, year, link",
                        "line %lld: %lld fields instead of 4", (long long)csv->line,
                        (long long)csv->fields);
    const char *id = csv->field[0], *title = csv->field[1];
    mn__vocabulary_word *word = mn__vocabulary_add(&all->ids, id, (int64_t)strlen(id));
    if (!word)
        return fail_memory("titles", error);
    word->count = all->text.bytes;
    mn__string_add(&all->text, title, (int64_t)strlen(title) + 1);
    return all->text.failed ? fail_memory("titles", error) : MN_OK;
}

static mn_status parse_titles(titles *all, const char *text, int64_t bytes, mn_error *error)
{
    mn__csv csv;
    bool more = true;
    mn_status status = MN_OK;
    mn__csv_begin(&csv, text, bytes);
    while (!status && more) {
        status = mn__csv_next(&csv, &more, error);
        if (!status && more)
            status = take_row(all, &csv, error);
    }
    mn__csv_free(&csv);
    return status;
}

static mn_status read_titles(titles *all, const char *folder, mn_error *error)
{
    mn__string path = {0};
    char *text = NULL;
    int64_t bytes;
    mn_status status = MN_OK;
    mn__string_printf(&path, "%s/metadata.csv", folder);
    if (path.failed)
        return fail_memory(folder, error);
    if (mn__file_exists(path.text))
        status = mn__file_read(path.text, 0, &text, &bytes, error);
    if (!status && text)
        status = parse_titles(all, text, bytes, error);
    if (status && text)
        mn__error_prefix(error, "%s", path.text);
    mn__free(text);
    mn__string_free(&path);
    return status;
}

static const char *title_of(const titles *all, const char *id)
{
    int32_t at = mn__vocabulary_find(&all->ids, id, (int64_t)strlen(id));
    return at >= 0 ? all->text.text + all->ids.words[at].count : "";
}

/* ---- Books ------------------------------------------------------------------ */

static mn_status add_book(mn__corpus *corpus, const titles *all, mn__split split,
                          const char *folder, const char *file, mn_error *error)
{
    char *id = mn__arena_strdup(&corpus->arena, file);
    char *path = mn__arena_printf(&corpus->arena, "%s/%s/%s", folder, mn__split_name(split), file);
    if (!id || !path)
        return fail_memory(folder, error);
    *strrchr(id, '.') = '\0';
    mn_status status = mn__corpus_add_document(corpus, id, title_of(all, id), split, error);
    return status ? status : mn__corpus_add_part(corpus, path, 0, -1, error);
}

static mn_status add_split(mn__corpus *corpus, const titles *all, mn__split split,
                           const char *folder, mn_error *error)
{
    char **names;
    int64_t count, before = corpus->count;
    char *path = mn__arena_printf(&corpus->arena, "%s/%s", folder, mn__split_name(split));
    if (!path)
        return fail_memory(folder, error);
    if (!mn__file_is_folder(path))
        return MN_OK;
    mn_status status = mn__file_list(path, &names, &count, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count && !status; i++)
        if (names[i][0] != '.' && mn__corpus_ends_in(names[i], ".txt"))
            status = add_book(corpus, all, split, folder, names[i], error);
    mn__free(names);
    if (corpus->count - before == published[split].books)
        corpus->published_words[split] = published[split].words;
    return status;
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    titles all = {0};
    int64_t before = corpus->count;
    mn_status status = read_titles(&all, path, error);
    for (int split = 0; split < MN__SPLITS && !status; split++)
        status = add_split(corpus, &all, (mn__split)split, path, error);
    mn__vocabulary_free(&all.ids);
    mn__string_free(&all.text);
    if (!status && corpus->count == before)
        return mn__fail(error, MN_ERROR_FORMAT,
                        "PG-19 has folders train, validation and test of .txt files",
                        "%s: there is no book in it", path);
    return status;
}

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    mn__string name = {0};
    mn__string_printf(&name, "%s/metadata.csv", path);
    mn_status status = name.failed ? fail_memory(path, error) : MN_OK;
    *yes = !status && mn__file_exists(name.text);
    mn__string_free(&name);
    return status;
}

const mn__corpus_type mn__corpus_pg19 = {
    .name = "pg19",
    .help = "PG-19's layout: train, validation, test and metadata.csv",
    .recognise = recognise,
    .list = list,
    .has_splits = true,
};
