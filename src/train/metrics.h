/* A run's metrics: metrics.jsonl, one object a line, and a TensorBoard event
 * file beside it. Both only grow; after a resume they are cut back to what the
 * checkpoint knew of. */
#ifndef MN__TRAIN_METRICS_H
#define MN__TRAIN_METRICS_H

#include "base/string.h"

typedef struct mn__metrics_file {
    int file;
    int64_t bytes;
} mn__metrics_file;

typedef struct mn__metrics {
    const char *folder;
    mn__metrics_file lines, events;
    mn__string line, event; /* the record being made */
    const char *kind;
    int64_t step;
    double time; /* wall clock, for TensorBoard */
} mn__metrics;

/* Opens both, cut to the lengths given (0: begins anew). MN_ERROR_FORMAT where a
 * file is shorter than that. */
mn_status mn__metrics_open(mn__metrics *metrics, const char *folder, int64_t line_bytes,
                           int64_t event_bytes, mn_error *error);
void mn__metrics_close(mn__metrics *metrics);

/* One record: begin, its fields, end (which writes it). */
void mn__metrics_begin(mn__metrics *metrics, const char *kind, int64_t step);
void mn__metrics_integer(mn__metrics *metrics, const char *name, int64_t value);
/* Also a scalar "<kind>/<name>" for TensorBoard; null where it is not finite. */
void mn__metrics_number(mn__metrics *metrics, const char *name, double value);
void mn__metrics_text(mn__metrics *metrics, const char *name, const char *value);
mn_status mn__metrics_end(mn__metrics *metrics, mn_error *error);

/* Makes what was written last, before a checkpoint that counts on it. */
mn_status mn__metrics_sync(mn__metrics *metrics, mn_error *error);

#endif
