/* A folder of texts: each file under it of the kinds .txt .md .html .epub .pdf is a document
 * (or all of them are one, by option). README.md is about the folder, and passed over. */
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/corpus_types.h"
#include "data/document.h"
#include "data/source.h"
#include "data/walk.h"

/* "a/b.txt" and "a/b.txt.gz": 5 and so on, the length without the ending; -1 for
 * other files. */
static int64_t stem_bytes(const char *path)
{
    int64_t bytes = (int64_t)strlen(path);
    if (mn__source_is_compressed(path))
        bytes = strrchr(path, '.') - path;
    if (bytes < 4 || strncmp(path + bytes - 4, ".txt", 4) != 0)
        return -1;
    return bytes - 4;
}

static bool is_document(const char *path)
{
    return mn__document_is_named(path) && strcasecmp(mn__corpus_base_name(path), "README.md") != 0;
}

static mn_status add_text(void *user, const char *path, const char *relative, mn_error *error)
{
    mn__corpus *corpus = user;
    int64_t stem = stem_bytes(relative);
    if (stem < 0 && !is_document(relative))
        return MN_OK;
    if (stem < 0)
        stem = (int64_t)strlen(relative); /* "a.epub" may stand beside "a.txt" */
    mn_status status = MN_OK;
    if (!corpus->options.one) {
        const char *name = mn__arena_printf(&corpus->arena, "%.*s", (int)stem, relative);
        status = name ? mn__corpus_add_document(corpus, name, "", MN__SPLIT_TRAIN, error)
                      : mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    }
    return status ? status : mn__corpus_add_file(corpus, path, error);
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    mn__walk walk = {.found = add_text, .user = corpus};
    mn_status status = MN_OK;
    int64_t parts = corpus->part_count;
    if (corpus->options.one)
        status =
            mn__corpus_add_document(corpus, mn__corpus_base_name(path), "", MN__SPLIT_TRAIN, error);
    if (!status)
        status = mn__walk_files(&walk, path, error);
    if (!status && corpus->part_count == parts)
        return mn__fail(error, MN_ERROR_FORMAT,
                        "for files of other kinds read it as a tree: tree=PATH",
                        "%s: there is no .txt, .md, .html, .epub or .pdf file in it", path);
    return status;
}

/* Markdown and HTML are found in source trees, too. */
static bool is_surely_text(const char *name)
{
    return name[0] != '.' && (stem_bytes(name) > 0 || mn__corpus_ends_in(name, ".epub") ||
                              mn__corpus_ends_in(name, ".pdf"));
}

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    char **names;
    int64_t count;
    if (!mn__file_is_folder(path))
        return MN_OK;
    mn_status status = mn__file_list(path, &names, &count, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count && !*yes; i++)
        *yes = is_surely_text(names[i]);
    mn__free(names);
    return MN_OK;
}

const mn__corpus_type mn__corpus_folder = {
    .name = "folder",
    .help = "a folder of .txt, .md, .html, .epub and .pdf files, each a document",
    .recognise = recognise,
    .list = list,
};
