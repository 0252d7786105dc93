/* A source tree: its text files, each a document (or all of them one, by
 * option). Passed over: hidden names, folders that builds make, empty files, and
 * files that are not UTF-8 text. */
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/corpus_types.h"
#include "data/source.h"
#include "data/walk.h"
#include "text/utf8.h"

static bool enters(const char *name)
{
    static const char *const built[] = {"build", "_build", "node_modules", "target", "__pycache__",
                                        "dist",  "out",    "venv",         "runs"};
    for (size_t i = 0; i < sizeof built / sizeof *built; i++)
        if (strcmp(name, built[i]) == 0)
            return false;
    return strncmp(name, "build-", 6) != 0 && strncmp(name, "cmake-build-", 12) != 0;
}

enum { CHUNK = 1 << 16 };

/* Valid UTF-8 to its end, no NUL, not empty. */
static mn_status is_text(mn__source *source, char *buffer, bool *text, mn_error *error)
{
    int64_t held = 0, got = 1, total = 0;
    mn_status status = MN_OK;
    for (*text = true; *text && got > 0; total += got) {
        status = mn__source_read(source, buffer + held, CHUNK - held, &got, error);
        if (status)
            return status;
        int64_t bytes = held + got, valid = mn__utf8_valid(buffer, bytes);
        held = bytes - valid;
        bool cut = held == mn__utf8_partial(buffer, bytes) && got > 0;
        *text = !memchr(buffer, '\0', (size_t)bytes) && (held == 0 || cut);
        memmove(buffer, buffer + valid, (size_t)held);
    }
    *text = *text && total > 0;
    return MN_OK;
}

static mn_status check_file(const char *path, bool *text, mn_error *error)
{
    mn__source *source;
    char *buffer = mn__malloc(CHUNK);
    if (!buffer)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
    mn_status status = mn__source_open(&source, path, 0, -1, error);
    if (!status) {
        status = is_text(source, buffer, text, error);
        mn__source_close(source);
    }
    mn__free(buffer);
    return status;
}

static mn_status add_file(void *user, const char *path, const char *relative, mn_error *error)
{
    mn__corpus *corpus = user;
    bool text = false;
    mn_status status = mn__source_is_compressed(path) ? MN_OK : check_file(path, &text, error);
    if (status || !text)
        return status;
    if (!corpus->options.one)
        status = mn__corpus_add_document(corpus, relative, "", MN__SPLIT_TRAIN, error);
    return status ? status : mn__corpus_add_part(corpus, path, 0, -1, error);
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    mn__walk walk = {.enters = enters, .found = add_file, .user = corpus};
    int64_t parts = corpus->part_count;
    mn_status status = MN_OK;
    if (corpus->options.one)
        status =
            mn__corpus_add_document(corpus, mn__corpus_base_name(path), "", MN__SPLIT_TRAIN, error);
    if (!status)
        status = mn__walk_files(&walk, path, error);
    if (!status && corpus->part_count == parts)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: there is no text file in it", path);
    return status;
}

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    (void)error;
    *yes = mn__file_is_folder(path);
    return MN_OK;
}

const mn__corpus_type mn__corpus_tree = {
    .name = "tree",
    .help = "the text files of a source tree, each a document",
    .recognise = recognise,
    .list = list,
};
