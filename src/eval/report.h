/* The report: one HTML file that needs nothing else, with the learning curves of
 * runs, their evaluations by position, and for each run a passage of a document,
 * scored twice, with its state carried and with it cleared at every segment.
 *
 * The page is src/eval/report.html, carried in the library; what is made here is
 * the JSON that it shows. */
#ifndef MN__EVAL_REPORT_H
#define MN__EVAL_REPORT_H

#include <jansson.h>

#include "eval/data.h"

typedef struct mn__report_options {
    const char *data, *split; /* of the passage; as in eval/data.h */
    const char *document;     /* "": the longest */
    int64_t passage;          /* tokens shown; 0: no passage */
    int64_t from;             /* where it begins; -1: as far into the document as the
                               * passage's end is at most 8,192 */
    mn__dtype compute;
} mn__report_options;

/* Adds a run to an array. MN_ERROR_FORMAT: its metrics or results are damaged. */
mn_status mn__report_add(json_t *runs, mn__run *run, const mn__report_options *options,
                         const mn__progress *progress, mn_error *error);
mn_status mn__report_write(const json_t *runs, const char *path, mn_error *error);

#endif
