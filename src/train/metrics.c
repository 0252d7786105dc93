/* Metrics as JSON lines and TensorBoard events. */
#include "train/metrics.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file_call.h"
#include "train/events.h"

static const char LINES[] = "metrics.jsonl", EVENTS[] = "events.out.tfevents.mneme";

static double wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static mn_status open_file(mn__metrics_file *out, const char *folder, const char *name,
                           int64_t bytes, mn_error *error)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/%s", folder, name);
    if (path.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the metrics");
    mn_status status = MN_OK;
    out->bytes = bytes;
    out->file = open(path.text, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    off_t length = out->file < 0 ? -1 : lseek(out->file, 0, SEEK_END);
    if (length < 0)
        status = mn__fail_errno(error, NULL, "%s: cannot write", path.text);
    else if (length < bytes)
        status = mn__fail(error, MN_ERROR_FORMAT, "restore the file, or train in a new folder",
                          "%s: %lld bytes, but the checkpoint was made after %lld", path.text,
                          (long long)length, (long long)bytes);
    else if (ftruncate(out->file, bytes) != 0 || lseek(out->file, bytes, SEEK_SET) < 0)
        status = mn__fail_errno(error, NULL, "%s: cannot cut off what is past the checkpoint",
                                path.text);
    mn__string_free(&path);
    return status;
}

static mn_status append(mn__metrics_file *out, const mn__string *text, const char *folder,
                        const char *name, mn_error *error)
{
    for (int64_t at = 0; at < text->bytes;) {
        int64_t done = mn__file_call_write(out->file, text->text + at, text->bytes - at);
        if (done < 0)
            return mn__fail_errno(error, "free some space on that disk, then --resume",
                                  "%s/%s: cannot write", folder, name);
        at += done;
        out->bytes += done;
    }
    return MN_OK;
}

mn_status mn__metrics_open(mn__metrics *metrics, const char *folder, int64_t line_bytes,
                           int64_t event_bytes, mn_error *error)
{
    *metrics = (mn__metrics){.folder = folder, .lines = {-1, 0}, .events = {-1, 0}};
    mn_status status = open_file(&metrics->lines, folder, LINES, line_bytes, error);
    if (status == MN_OK)
        status = open_file(&metrics->events, folder, EVENTS, event_bytes, error);
    if (status == MN_OK && event_bytes == 0) {
        mn__events_begin(&metrics->event, wall_clock());
        status = append(&metrics->events, &metrics->event, folder, EVENTS, error);
    }
    return status;
}

void mn__metrics_close(mn__metrics *metrics)
{
    if (metrics->lines.file >= 0)
        close(metrics->lines.file);
    if (metrics->events.file >= 0)
        close(metrics->events.file);
    mn__string_free(&metrics->line);
    mn__string_free(&metrics->event);
    *metrics = (mn__metrics){.lines = {-1, 0}, .events = {-1, 0}};
}

void mn__metrics_begin(mn__metrics *metrics, const char *kind, int64_t step)
{
    metrics->kind = kind;
    metrics->step = step;
    metrics->time = wall_clock();
    mn__string_clear(&metrics->line);
    mn__string_clear(&metrics->event);
    mn__string_printf(&metrics->line, "{\"kind\": \"%s\", \"step\": %lld", kind, (long long)step);
}

void mn__metrics_integer(mn__metrics *metrics, const char *name, int64_t value)
{
    mn__string_printf(&metrics->line, ", \"%s\": %lld", name, (long long)value);
}

void mn__metrics_number(mn__metrics *metrics, const char *name, double value)
{
    if (!isfinite(value)) {
        mn__string_printf(&metrics->line, ", \"%s\": null", name);
        return;
    }
    char tag[128];
    snprintf(tag, sizeof tag, "%s/%s", metrics->kind, name);
    mn__string_printf(&metrics->line, ", \"%s\": %.10g", name, value);
    mn__events_scalar(&metrics->event, metrics->time, metrics->step, tag, (float)value);
}

void mn__metrics_text(mn__metrics *metrics, const char *name, const char *value)
{
    mn__string_printf(&metrics->line, ", \"%s\": ", name);
    mn__string_json(&metrics->line, value, (int64_t)strlen(value));
}

mn_status mn__metrics_end(mn__metrics *metrics, mn_error *error)
{
    mn__string_puts(&metrics->line, "}\n");
    if (metrics->line.failed || metrics->event.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the metrics");
    mn_status status = append(&metrics->lines, &metrics->line, metrics->folder, LINES, error);
    return status ? status
                  : append(&metrics->events, &metrics->event, metrics->folder, EVENTS, error);
}

mn_status mn__metrics_sync(mn__metrics *metrics, mn_error *error)
{
    if (fsync(metrics->lines.file) != 0 || fsync(metrics->events.file) != 0)
        return mn__fail_errno(error, NULL, "%s: cannot sync the metrics", metrics->folder);
    return MN_OK;
}
