/* A text file is one document. */
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
    return status ? status : mn__corpus_add_part(corpus, path, 0, -1, error);
}

const mn__corpus_type mn__corpus_text = {
    .name = "text",
    .help = "a text file, one document",
    .recognise = recognise,
    .list = list,
};
