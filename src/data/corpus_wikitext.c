/* WikiText (Merity et al. 2016): wiki.train.tokens and so on, in a folder, or one
 * such file. An article begins with a line " = Title = " between blank lines; its
 * documents, joined, are the file again. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "data/corpus_types.h"
#include "data/source.h"

static bool is_blank(const char *line, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++)
        if (!strchr(" \t\r\n", line[i]))
            return false;
    return true;
}

bool mn__wikitext_title(const char *line, int64_t bytes, const char **title, int64_t *title_bytes)
{
    while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r'))
        bytes--;
    if (bytes < 7 || memcmp(line, " = ", 3) != 0 || memcmp(line + bytes - 3, " = ", 3) != 0)
        return false;
    *title = line + 3;
    *title_bytes = bytes - 6;
    return (*title)[0] != '=' && (*title)[*title_bytes - 1] != '=';
}

/* ---- One file ----------------------------------------------------------------- */

typedef struct scan {
    mn__corpus *corpus;
    const char *path;
    mn__split split;
    int64_t article;   /* where the open article began */
    int64_t count;     /* articles ended */
    int64_t at;        /* where the line begins */
    int64_t candidate; /* where a title's line began, waiting for a blank line; -1 */
    bool after_blank;
    const char *title; /* of the open article */
    const char *candidate_title;
} scan;

static mn_status fail_memory(const scan *file, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", file->path);
}

static mn_status end_article(scan *file, int64_t end, mn_error *error)
{
    if (end == file->article)
        return MN_OK;
    const char *name = mn__arena_printf(&file->corpus->arena, "%s-%05lld",
                                        mn__split_name(file->split), (long long)file->count++);
    if (!name)
        return fail_memory(file, error);
    mn_status status = mn__corpus_add_document(file->corpus, name, file->title, file->split, error);
    if (!status)
        status = mn__corpus_add_part(file->corpus, file->path, file->article, end - file->article,
                                     error);
    file->article = end;
    return status;
}

/* The candidate is a title: what came before is another article, unless it is
 * only the blank lines at the file's beginning. */
static mn_status begin_article(scan *file, mn_error *error)
{
    mn_status status = MN_OK;
    if (file->title[0])
        status = end_article(file, file->candidate, error);
    file->title = file->candidate_title;
    return status;
}

static mn_status scan_line(scan *file, const mn__string *line, mn_error *error)
{
    const char *title;
    int64_t title_bytes;
    bool blank = is_blank(line->text, line->bytes);
    mn_status status = MN_OK;
    if (blank && file->candidate >= 0)
        status = begin_article(file, error);
    file->candidate = -1;
    if (file->after_blank && mn__wikitext_title(line->text, line->bytes, &title, &title_bytes)) {
        file->candidate = file->at;
        file->candidate_title =
            mn__arena_printf(&file->corpus->arena, "%.*s", (int)title_bytes, title);
        if (!file->candidate_title)
            return fail_memory(file, error);
    }
    file->after_blank = blank;
    file->at += line->bytes;
    return status;
}

static mn_status list_file(mn__corpus *corpus, const char *path, mn__split split, mn_error *error)
{
    scan file = {.corpus = corpus,
                 .path = path,
                 .split = split,
                 .candidate = -1,
                 .after_blank = true,
                 .title = ""};
    mn__source *source;
    mn__string line = {0};
    mn_status status = mn__source_open(&source, path, 0, -1, error);
    if (status)
        return status;
    do {
        status = mn__source_line(source, &line, error);
        if (!status && line.bytes > 0)
            status = scan_line(&file, &line, error);
    } while (!status && line.bytes > 0);
    if (!status)
        status = end_article(&file, file.at, error);
    mn__string_free(&line);
    mn__source_close(source);
    return status;
}

/* ---- The layouts -------------------------------------------------------------- */

static const char *const split_words[MN__SPLITS] = {"train", "valid", "test"};
static const char *const layouts[] = {"wiki.%s.tokens", "wiki.%s.raw", "%s.txt"};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* *path: the split's file in the folder in some layout, or NULL. */
static mn_status find_file(mn__arena *arena, const char *folder, int layout, int split,
                           const char **path, mn_error *error)
{
    char name[64];
    snprintf(name, sizeof name, layouts[layout], split_words[split]);
    *path = mn__arena_printf(arena, "%s/%s", folder, name);
    if (!*path)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", folder);
    if (!mn__file_exists(*path))
        *path = NULL;
    return MN_OK;
}

static mn_status list_layout(mn__corpus *corpus, const char *folder, int layout, bool *found,
                             mn_error *error)
{
    mn_status status = MN_OK;
    for (int split = 0; split < MN__SPLITS && !status; split++) {
        const char *path;
        status = find_file(&corpus->arena, folder, layout, split, &path, error);
        if (status || !path)
            continue;
        *found = true;
        status = list_file(corpus, path, (mn__split)split, error);
    }
    return status;
}

static mn_status list_folder(mn__corpus *corpus, const char *folder, mn_error *error)
{
    bool found = false;
    mn_status status = MN_OK;
    for (int layout = 0; layout < LAYOUTS && !found && !status; layout++)
        status = list_layout(corpus, folder, layout, &found, error);
    if (!status && !found)
        status = mn__fail(error, MN_ERROR_FORMAT, "WikiText has wiki.train.tokens and so on",
                          "%s: none of its files is WikiText's", folder);
    return status;
}

/* "x/wiki.valid.tokens" is the validation split; without a word, train. */
static mn__split split_of(const char *path)
{
    for (int split = MN__SPLIT_VALIDATION; split < MN__SPLITS; split++)
        if (strstr(mn__corpus_base_name(path), split_words[split]))
            return (mn__split)split;
    return MN__SPLIT_TRAIN;
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    return mn__file_is_folder(path) ? list_folder(corpus, path, error)
                                    : list_file(corpus, path, split_of(path), error);
}

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    const char *name = mn__corpus_base_name(path), *file = NULL;
    mn__arena arena;
    mn_status status = MN_OK;
    *yes = strncmp(name, "wiki.", 5) == 0 && mn__corpus_ends_in(name, ".tokens");
    mn__arena_init(&arena, 4096);
    for (int split = 0; split < MN__SPLITS && !*yes && !status; split++) {
        status = find_file(&arena, path, 0, split, &file, error);
        *yes = file != NULL;
    }
    mn__arena_free(&arena);
    return status;
}

const mn__corpus_type mn__corpus_wikitext = {
    .name = "wikitext",
    .help = "WikiText, token or raw form; each article is a document",
    .recognise = recognise,
    .list = list,
    .has_splits = true,
};
