/* enwik8 and text8 (Mahoney): one file of 100,000,000 bytes, of which the first
 * 90 % train, the next 5 % validate, the last 5 % test. The published figures
 * are over the stored bytes: prepare with newlines kept. */
#include <string.h>

#include "base/file.h"
#include "data/corpus_types.h"
#include "data/source.h"

static mn_status recognise(const char *path, bool *yes, mn_error *error)
{
    (void)error;
    const char *name = mn__corpus_base_name(path);
    bool named = strncmp(name, "enwik8", 6) == 0 || strncmp(name, "text8", 5) == 0;
    *yes = named && !mn__file_is_folder(path);
    return MN_OK;
}

static mn_status list(mn__corpus *corpus, const char *path, mn_error *error)
{
    int64_t bytes = 0;
    mn_status status = mn__source_size(path, &bytes, error);
    int64_t ends[MN__SPLITS + 1] = {0, bytes / 20 * 18, bytes / 20 * 19, bytes};
    if (!status && bytes < 20)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: %lld bytes are too few to split", path,
                        (long long)bytes);
    for (int split = 0; split < MN__SPLITS && !status; split++) {
        status = mn__corpus_add_document(corpus, mn__split_name((mn__split)split), "",
                                         (mn__split)split, error);
        if (!status)
            status = mn__corpus_add_part(corpus, path, ends[split], ends[split + 1] - ends[split],
                                         error);
    }
    return status;
}

const mn__corpus_type mn__corpus_enwik = {
    .name = "enwik",
    .help = "enwik8 or text8, plain or compressed: 90, 5 and 5 % of the bytes",
    .recognise = recognise,
    .list = list,
    .has_splits = true,
};
