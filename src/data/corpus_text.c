/* A file is one document: a text, or the text of an HTML, EPUB or PDF document. */
#include "base/file.h"
#include "data/corpus_types.h"

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    (void)error;
    *yes = !mn__file_is_folder(path);
    return MN_OK;
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    mn_status status =
        mn__corpus_add_document(corpus, mn__corpus_base_name(path), "", MN__SPLIT_TRAIN, error);
    return status ? status : mn__corpus_add_file(corpus, path, error);
}

const mn__corpus_type mn__corpus_text = {
    .name = "text",
    .help = "a text (or HTML, EPUB, PDF), one document",
    .recognise = recognise,
    .list = list,
};
