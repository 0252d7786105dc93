/* Scoring: which tokens are read when, and which of them are scored. */
#include "eval/score.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The next stretch of a document: positions from..from+count are its targets, of
 * which those before `scored` are only read. */
typedef struct row_stretch {
    int64_t document; /* -1: the row is idle */
    int64_t from, count, scored;
    bool start; /* with an empty state */
} row_stretch;

typedef struct score_work {
    const mn__score_config *config;
    const mn__dataset *dataset;
    const mn__score_sink *sink;
    const mn__progress *progress;
    mn__session session;
    mn__arena arena;
    int64_t length;      /* T, the longest stretch, without what stands before a text */
    int64_t rows;        /* no more than there are documents, but for windows */
    int64_t *documents;  /* [config->count], the longest first, so that rows end together */
    int64_t next;        /* in documents */
    row_stretch *row;    /* [rows] */
    row_stretch sliding; /* window: the last one given to a row */
    int32_t *ids, *targets;
    float *weights, *losses;
    bool *start;
    int64_t *valid;
    int64_t done, total; /* tokens */
    double nats, began;
} score_work;

const char *mn__way_name(mn__way way)
{
    static const char *const names[] = {"carried", "cleared", "window"};
    return names[way];
}

static int64_t tokens_of(const score_work *work, int64_t document)
{
    int64_t tokens = mn__dataset_at(work->dataset, document)->tokens;
    int64_t limit = work->config->limit;
    return limit > 0 && limit < tokens ? limit : tokens;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- Which stretch is next --------------------------------------------------------- */

/* The next document that has tokens, or -1; those without are at their end. */
static mn_status next_document(score_work *work, int64_t *document, mn_error *error)
{
    const mn__score_config *config = work->config;
    mn_status status = MN_OK;
    *document = -1;
    while (*document < 0 && work->next < config->count && status == MN_OK) {
        int64_t candidate = work->documents[work->next++];
        if (tokens_of(work, candidate) > 0)
            *document = candidate;
        else
            status = work->sink->end(work->sink->user, candidate, error);
    }
    return status;
}

static bool at_end(const score_work *work, const row_stretch *last)
{
    return last->document < 0 || last->from + last->count >= tokens_of(work, last->document);
}

static mn_status begin_document(score_work *work, row_stretch *out, mn_error *error)
{
    mn_status status = next_document(work, &out->document, error);
    *out = (row_stretch){.document = out->document, .start = true};
    if (out->document >= 0)
        out->count = least(work->length, tokens_of(work, out->document));
    return status;
}

/* Segments follow each other; a row whose document has ended takes the next. */
static mn_status next_segment(score_work *work, row_stretch *row, mn_error *error)
{
    if (at_end(work, row))
        return begin_document(work, row, error);
    row->from += row->count;
    row->count = least(work->length, tokens_of(work, row->document) - row->from);
    row->scored = row->from;
    row->start = work->config->way == MN__WAY_CLEARED;
    return MN_OK;
}

/* Any row takes the next window: the last of a document ends where it does. */
static mn_status next_window(score_work *work, row_stretch *row, mn_error *error)
{
    row_stretch *last = &work->sliding;
    mn_status status = MN_OK;
    if (at_end(work, last)) {
        status = begin_document(work, last, error);
    } else {
        int64_t scored = last->from + last->count;
        int64_t end = least(scored + work->config->stride, tokens_of(work, last->document));
        last->from = end > work->length ? end - work->length : 0;
        last->count = end - last->from;
        last->scored = scored;
    }
    *row = *last;
    return status;
}

/* Inputs before the one that a document's first token follows. */
static int64_t lead_of(const score_work *work, const row_stretch *row)
{
    const mn__ids *before = work->config->before;
    return row->document >= 0 && row->from == 0 && before && before->count > 1 ? before->count - 1
                                                                               : 0;
}

/* ---- Reading a row's stretch ----------------------------------------------------------- */

static mn_status fill_row(score_work *work, int64_t b, int64_t T, mn_error *error)
{
    const row_stretch *row = &work->row[b];
    const mn__ids *before = work->config->before;
    int64_t lead = lead_of(work, row);
    work->start[b] = row->start;
    work->valid[b] = row->document < 0 ? 0 : lead + row->count;
    if (row->document < 0)
        return MN_OK;
    for (int64_t t = 0; t < lead; t++)
        work->ids[b * T + t] = before->id[t];
    int32_t *ids = work->ids + b * T + lead, *targets = work->targets + b * T + lead;
    mn_status status =
        mn__dataset_tokens(work->dataset, row->document, row->from, row->count, targets, error);
    if (status == MN_OK && row->from > 0)
        status = mn__dataset_tokens(work->dataset, row->document, row->from - 1, 1, ids, error);
    else
        ids[0] = before && before->count ? before->id[lead]
                                         : mn__dataset_tokenizer(work->dataset)->start;
    memcpy(ids + 1, targets, (size_t)(row->count - 1) * sizeof *ids);
    for (int64_t t = row->scored - row->from; t < row->count; t++)
        work->weights[b * T + lead + t] = 1.0f;
    return status;
}

static mn_status read_rows(score_work *work, int64_t T, mn_error *error)
{
    int64_t rows = work->rows, all = rows * T;
    memset(work->ids, 0, (size_t)all * sizeof *work->ids);
    memset(work->targets, 0, (size_t)all * sizeof *work->targets);
    memset(work->weights, 0, (size_t)all * sizeof *work->weights);
    mn_status status = MN_OK;
    for (int64_t b = 0; b < rows && status == MN_OK; b++)
        status = fill_row(work, b, T, error);
    if (status != MN_OK)
        return status;
    return mn__session_read(&work->session,
                            &(mn__stretch){.T = T,
                                           .ids = work->ids,
                                           .start = work->start,
                                           .valid = work->valid,
                                           .targets = work->targets,
                                           .weights = work->weights,
                                           .losses = work->losses},
                            error);
}

static mn_status hand_on(score_work *work, int64_t b, int64_t T, mn_error *error)
{
    const row_stretch *row = &work->row[b];
    const mn__score_sink *sink = work->sink;
    if (row->document < 0)
        return MN_OK;
    int64_t skip = row->scored - row->from, count = row->count - skip;
    int64_t at = b * T + lead_of(work, row) + skip;
    const float *nats = work->losses + at;
    for (int64_t t = 0; t < count; t++) {
        if (!isfinite(nats[t]))
            return mn__fail(error, MN_ERROR_NUMBER, "was the training stable? try f32",
                            "%s: the loss of token %lld is not finite",
                            mn__dataset_at(work->dataset, row->document)->name,
                            (long long)(row->scored + t));
        work->nats += (double)nats[t];
    }
    work->done += count;
    mn_status status = sink->tokens(sink->user, row->document, row->scored, count,
                                    work->targets + at, nats, error);
    if (status == MN_OK && at_end(work, row))
        status = sink->end(sink->user, row->document, error);
    return status;
}

/* ---- All of it ------------------------------------------------------------------------- */

static bool report(const score_work *work)
{
    char note[96];
    double seconds = mn__clock() - work->began;
    snprintf(note, sizeof note, "%.4f nats a token, %.3gk tokens/s",
             work->done ? work->nats / (double)work->done : 0.0,
             seconds > 0 ? (double)work->done / seconds / 1000 : 0.0);
    return mn__progress_report(work->progress, "scoring", work->done, work->total, note);
}

static mn_status score_all(score_work *work, mn_error *error)
{
    int64_t rows = work->rows;
    bool window = work->config->way == MN__WAY_WINDOW;
    for (int64_t b = 0; b < rows; b++)
        work->row[b].document = -1;
    work->sliding.document = -1;
    for (;;) {
        int64_t T = 0;
        mn_status status = MN_OK;
        for (int64_t b = 0; b < rows && status == MN_OK; b++) {
            status = window ? next_window(work, &work->row[b], error)
                            : next_segment(work, &work->row[b], error);
            int64_t own = lead_of(work, &work->row[b]) + work->row[b].count;
            if (work->row[b].document >= 0 && own > T)
                T = own;
        }
        if (status != MN_OK || T == 0)
            return status;
        status = read_rows(work, T, error);
        for (int64_t b = 0; b < rows && status == MN_OK; b++)
            status = hand_on(work, b, T, error);
        if (status != MN_OK)
            return status;
        if (!report(work))
            return mn__fail(error, MN_ERROR_INTERRUPTED, "run it again to go on",
                            "stopped after %lld of %lld tokens", (long long)work->done,
                            (long long)work->total);
    }
}

int64_t mn__score_length(const mn__score_config *config, const mn__decoder *decoder)
{
    if (config->way == MN__WAY_WINDOW)
        return config->window;
    int64_t grid = mn__decoder_grid(decoder);
    return config->segment > grid ? config->segment / grid * grid : grid;
}

struct length {
    int64_t document, tokens;
};

/* The longest first; of equal ones the first. */
static int by_length(const void *a, const void *b)
{
    const struct length *x = a, *y = b;
    if (x->tokens != y->tokens)
        return x->tokens < y->tokens ? 1 : -1;
    return (x->document > y->document) - (x->document < y->document);
}

static bool sort_documents(score_work *work)
{
    int64_t count = work->config->count;
    struct length *all = mn__arena_calloc(&work->arena, count, sizeof *all);
    work->documents = mn__arena_calloc(&work->arena, count, sizeof *work->documents);
    if (!all || !work->documents)
        return false;
    for (int64_t i = 0; i < count; i++)
        all[i] = (struct length){work->config->documents[i],
                                 tokens_of(work, work->config->documents[i])};
    qsort(all, (size_t)count, sizeof *all, by_length);
    for (int64_t i = 0; i < count; i++)
        work->documents[i] = all[i].document;
    return true;
}

static mn_status open_scoring(score_work *work, mn__decoder *decoder, mn__params *params,
                              mn_error *error)
{
    const mn__score_config *config = work->config;
    mn__arena *arena = &work->arena;
    mn__arena_init(arena, 0);
    int64_t longest = 0;
    if (!sort_documents(work))
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for %lld documents",
                        (long long)config->count);
    for (int64_t i = config->count - 1; i >= 0; i--) {
        longest = tokens_of(work, work->documents[i]);
        work->total += longest;
    }
    bool window = config->way == MN__WAY_WINDOW;
    int64_t rows = window ? config->rows : least(config->rows, config->count);
    work->rows = rows = rows > 0 ? rows : 1;
    work->length = mn__score_length(config, decoder);
    int64_t lead = config->before && config->before->count > 1 ? config->before->count - 1 : 0;
    int64_t all = mn__size_product(rows, work->length + lead);
    work->row = mn__arena_calloc(arena, rows, sizeof *work->row);
    work->start = mn__arena_calloc(arena, rows, sizeof *work->start);
    work->valid = mn__arena_calloc(arena, rows, sizeof *work->valid);
    work->ids = mn__arena_calloc(arena, all, sizeof *work->ids);
    work->targets = mn__arena_calloc(arena, all, sizeof *work->targets);
    work->weights = mn__arena_calloc(arena, all, sizeof *work->weights);
    work->losses = mn__arena_calloc(arena, all, sizeof *work->losses);
    if (!work->row || !work->start || !work->valid || !work->ids || !work->targets ||
        !work->weights || !work->losses)
        return mn__fail(error, MN_ERROR_MEMORY, "read fewer rows side by side",
                        "no memory to score %lld rows of %lld tokens", (long long)rows,
                        (long long)work->length);
    bool carried = config->way == MN__WAY_CARRIED;
    mn__session_options options = {.rows = rows,
                                   .capacity = lead + (carried ? longest : work->length),
                                   .chunk = work->length,
                                   .compute = config->compute,
                                   .watch = config->watch};
    return mn__session_open(&work->session, decoder, params, &options, error);
}

mn_status mn__score(mn__decoder *decoder, mn__params *params, const mn__dataset *dataset,
                    const mn__score_config *config, const mn__score_sink *sink,
                    const mn__progress *progress, mn_error *error)
{
    if (config->way == MN__WAY_WINDOW && (config->stride < 1 || config->stride > config->window))
        return mn__fail(error, MN_ERROR_USAGE, "a stride is 1 up to the window",
                        "a stride of %lld does not fit a window of %lld", (long long)config->stride,
                        (long long)config->window);
    score_work work = {.config = config,
                       .dataset = dataset,
                       .sink = sink,
                       .progress = progress,
                       .began = mn__clock()};
    mn_status status = open_scoring(&work, decoder, params, error);
    if (status == MN_OK)
        status = score_all(&work, error);
    if (work.session.decoder)
        mn__session_close(&work.session);
    mn__arena_free(&work.arena);
    return status;
}
