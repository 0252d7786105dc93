/* Readings. */
#include "reader/reading.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"

enum { USUAL_BUDGET = 256 << 20 };

struct mn__mark {
    int64_t at;
    mn__mark *older;
    float hidden[]; /* [C], then the snapshot */
};

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for what was read");
}

/* ---- Marks ---------------------------------------------------------------------------- */

static int64_t width_of(const mn__reading *reading)
{
    return mn__decoder_options_of(reading->session.decoder)->width;
}

/* The snapshot after hidden [C], at a multiple of 8. */
static char *snapshot_of(const mn__reading *reading, mn__mark *mark)
{
    return (char *)mark->hidden + (width_of(reading) * (int64_t)sizeof(float) + 7) / 8 * 8;
}

static int64_t bytes_of_mark(const mn__reading *reading)
{
    return (int64_t)sizeof(mn__mark) + (width_of(reading) * (int64_t)sizeof(float) + 7) / 8 * 8 +
           mn__states_snapshot_bytes(&reading->session.states);
}

static void drop(mn__reading *reading, mn__mark **link)
{
    mn__mark *mark = *link;
    *link = mark->older;
    mn__free(mark);
    reading->marks--;
    reading->mark_bytes -= bytes_of_mark(reading);
}

static void drop_after(mn__reading *reading, int64_t at)
{
    while (reading->newest && reading->newest->at > at)
        drop(reading, &reading->newest);
}

/* Every other of the older marks goes. */
static void thin_out(mn__reading *reading)
{
    bool keep = true;
    for (mn__mark **link = &reading->newest; *link;) {
        if (keep)
            link = &(*link)->older;
        else
            drop(reading, link);
        keep = !keep;
    }
    reading->stride *= 2;
}

/* A mark less costs time later, no more: where memory is short there is none. */
bool mn__reading_mark(mn__reading *reading)
{
    const mn__session *session = &reading->session;
    int64_t bytes = bytes_of_mark(reading), at = reading->ids.count;
    if (at == 0 || (reading->newest && reading->newest->at == at))
        return true;
    mn__mark *mark = bytes > reading->options.budget ? NULL : mn__malloc(bytes);
    if (!mark)
        return false;
    *mark = (mn__mark){.at = at, .older = reading->newest};
    memcpy(mark->hidden, session->hidden, (size_t)width_of(reading) * sizeof(float));
    mn__states_snapshot(&session->states, snapshot_of(reading, mark));
    reading->newest = mark;
    reading->marks++;
    reading->mark_bytes += bytes;
    while (reading->mark_bytes > reading->options.budget && reading->marks > 1)
        thin_out(reading);
    return true;
}

/* Between calls: marks that are copies of memories are spared. */
static void mark_on_the_way(mn__reading *reading)
{
    int64_t last = reading->newest ? reading->newest->at : 0;
    if (reading->ids.count - last >= reading->stride)
        mn__reading_mark(reading);
}

/* ---- Opening -------------------------------------------------------------------------- */

mn_status mn__reading_open(mn__reading *reading, mn__decoder *decoder, mn__params *params,
                           const mn__reading_options *options, mn_error *error)
{
    *reading = (mn__reading){.options = *options};
    if (reading->options.budget <= 0)
        reading->options.budget = USUAL_BUDGET;
    const mn__session_options own = {.rows = 1,
                                     .capacity = options->capacity,
                                     .chunk = options->chunk,
                                     .compute = options->compute};
    mn_status status = mn__session_open(&reading->session, decoder, params, &own, error);
    if (status == MN_OK) {
        reading->options.chunk = reading->session.options.chunk;
        reading->stride = reading->options.chunk;
    }
    return status;
}

/* Nothing is read. */
void mn__reading_clear(mn__reading *reading)
{
    drop_after(reading, 0);
    mn__ids_clear(&reading->ids);
    reading->end_count = 0;
    mn__session_reset(&reading->session);
}

void mn__reading_close(mn__reading *reading)
{
    if (!reading->session.decoder)
        return;
    drop_after(reading, 0);
    mn__ids_free(&reading->ids);
    mn__free(reading->ends);
    mn__session_close(&reading->session);
    *reading = (mn__reading){0};
}

/* ---- Reading on ----------------------------------------------------------------------- */

/* Room for another end, before a segment is read. */
static bool has_room(mn__reading *reading)
{
    if (reading->end_count < reading->end_capacity)
        return true;
    int64_t capacity = 2 * reading->end_capacity + 64;
    int64_t *ends = mn__realloc(reading->ends, capacity * (int64_t)sizeof *ends);
    if (!ends)
        return false;
    reading->ends = ends;
    reading->end_capacity = capacity;
    return true;
}

mn_status mn__reading_ended(mn__reading *reading, int64_t end, mn_error *error)
{
    if (!has_room(reading))
        return no_memory(error);
    reading->ends[reading->end_count++] = end;
    return MN_OK;
}

/* One segment: `count` tokens, which cross no multiple of the chunk. The ids may be those that
 * the reading holds. hidden: [count, C] or NULL, as of mn__stretch. */
static mn_status read_segment(mn__reading *reading, const int32_t *ids, int64_t count,
                              float *hidden, mn_error *error)
{
    int64_t at = reading->ids.count;
    mn_status status = mn__reading_ended(reading, at + count, error);
    if (status != MN_OK)
        return status;
    int32_t *own = mn__ids_extend(&reading->ids, count);
    if (!own) {
        reading->ids.failed = false;
        status = no_memory(error);
    } else {
        memmove(own, ids, (size_t)count * sizeof *own);
        status = mn__session_read(&reading->session,
                                  &(mn__stretch){.T = count, .ids = own, .hidden = hidden}, error);
    }
    if (status == MN_OK)
        return MN_OK;
    if (reading->session.torn) {
        mn__reading_clear(reading);
        return status;
    }
    /* Segments of the model's own grid, within this one, may have been read. */
    reading->ids.count = reading->session.states.position[0];
    reading->ends[reading->end_count - 1] = reading->ids.count;
    reading->end_count -= reading->ids.count == at;
    return status;
}

/* How many of `most` tokens the next segment takes: to a multiple of the chunk. */
static int64_t segment_length(const mn__reading *reading, int64_t most)
{
    int64_t chunk = reading->options.chunk;
    int64_t next = chunk - reading->ids.count % chunk;
    return most < next ? most : next;
}

static mn_status check_room(const mn__reading *reading, int64_t count, mn_error *error)
{
    if (count <= reading->options.capacity)
        return MN_OK;
    return mn__fail(error, MN_ERROR_MISMATCH, "plan for more tokens",
                    "a text of %lld tokens, and %lld are planned for", (long long)count,
                    (long long)reading->options.capacity);
}

/* Rows whose logits are wanted, of a call's ids. */
struct asked {
    const int64_t *rows;
    int64_t count, done;
    float *hidden; /* [chunk, C]: a segment's */
    float *logits;
};

/* Those of the segment that begins at ids[from], which was read. */
static mn_status take_logits(mn__reading *reading, struct asked *asked, int64_t from, int64_t count,
                             mn_error *error)
{
    int64_t C = width_of(reading), n = 0, done = asked->done;
    int64_t V = mn__decoder_vocabulary(reading->session.decoder);
    for (; done + n < asked->count && asked->rows[done + n] < from + count; n++)
        memmove(asked->hidden + n * C, asked->hidden + (asked->rows[done + n] - from) * C,
                (size_t)C * sizeof(float));
    if (n == 0)
        return MN_OK;
    asked->done += n;
    return mn__session_head(&reading->session, asked->hidden, n, asked->logits + done * V, error);
}

static mn_status add(mn__reading *reading, const int32_t *ids, int64_t count, struct asked *asked,
                     mn_error *error)
{
    mn_status status = check_room(reading, reading->ids.count + count, error);
    for (int64_t done = 0; done < count && status == MN_OK;) {
        int64_t n = segment_length(reading, count - done);
        status = read_segment(reading, ids + done, n, asked ? asked->hidden : NULL, error);
        if (status == MN_OK)
            mark_on_the_way(reading);
        if (status == MN_OK && asked)
            status = take_logits(reading, asked, done, n, error);
        done += n;
    }
    return status;
}

mn_status mn__reading_add(mn__reading *reading, const int32_t *ids, int64_t count, mn_error *error)
{
    return add(reading, ids, count, NULL, error);
}

mn_status mn__reading_add_logits(mn__reading *reading, const int32_t *ids, int64_t count,
                                 const int64_t *rows, int64_t row_count, float *logits,
                                 mn_error *error)
{
    struct asked asked = {.rows = rows, .count = row_count, .logits = logits};
    asked.hidden = mn__malloc(mn__size_product(reading->options.chunk,
                                               width_of(reading) * (int64_t)sizeof *asked.hidden));
    if (!asked.hidden)
        return no_memory(error);
    mn_status status = add(reading, ids, count, &asked, error);
    mn__free(asked.hidden);
    return status;
}

/* ---- Going back ----------------------------------------------------------------------- */

/* To the newest mark at or before `count`, or the start; what was there is left in `ids`
 * [ids.count..] and `ends` [end_count..] as it was. */
static void go_back(mn__reading *reading, int64_t count)
{
    mn__session *session = &reading->session;
    drop_after(reading, count);
    mn__mark *mark = reading->newest;
    int64_t at = mark ? mark->at : 0;
    if (mark) {
        mn__states_rewind(&session->states, snapshot_of(reading, mark));
        memcpy(session->hidden, mark->hidden, (size_t)width_of(reading) * sizeof(float));
        session->torn = false;
    } else {
        mn__session_reset(session);
    }
    reading->ids.count = at;
    while (reading->end_count > 0 && reading->ends[reading->end_count - 1] > at)
        reading->end_count--;
}

mn_status mn__reading_rewind(mn__reading *reading, int64_t count, mn__sync *sync, mn_error *error)
{
    int64_t was = reading->ids.count, ends = reading->end_count;
    assert(count >= 0 && count <= was);
    mn_status status = MN_OK;
    mn__sync done = {.how = MN__EXTENDED, .reused = was};
    if (count < was) {
        go_back(reading, count);
        int64_t at = reading->ids.count;
        done = (mn__sync){.how = at || count == 0 ? MN__REWOUND : MN__REBUILT,
                          .reused = at,
                          .read = count - at,
                          .dropped = was - count};
        /* again in the segments of the first time */
        for (int64_t i = reading->end_count; i < ends && at < count && status == MN_OK; i++) {
            int64_t end = reading->ends[i] < count ? reading->ends[i] : count;
            status = read_segment(reading, reading->ids.id + at, end - at, NULL, error);
            at = end;
        }
    }
    if (sync)
        *sync = done;
    return status;
}

static int64_t common_prefix(const mn__reading *reading, const int32_t *ids, int64_t count)
{
    int64_t n = 0, most = reading->ids.count < count ? reading->ids.count : count;
    while (n < most && reading->ids.id[n] == ids[n])
        n++;
    return n;
}

mn_status mn__reading_sync(mn__reading *reading, const int32_t *ids, int64_t count,
                           const char *what, const mn__progress *progress, mn__sync *sync,
                           mn_error *error)
{
    mn__sync done;
    mn_status status = check_room(reading, count, error);
    if (status == MN_OK)
        status = mn__reading_rewind(reading, common_prefix(reading, ids, count), &done, error);
    if (status != MN_OK)
        return status;
    while (reading->ids.count < count && status == MN_OK) {
        int64_t at = reading->ids.count;
        if (!mn__progress_report(progress, what, at, count, NULL))
            status = mn__fail(error, MN_ERROR_INTERRUPTED, "the same call goes on from there",
                              "stopped after %lld of %lld tokens", (long long)at, (long long)count);
        else
            status =
                read_segment(reading, ids + at, segment_length(reading, count - at), NULL, error);
        done.read += reading->ids.count - at;
        if (status == MN_OK)
            mark_on_the_way(reading);
    }
    mn__reading_mark(reading);
    if (sync)
        *sync = done;
    return status;
}

const float *mn__reading_logits(mn__reading *reading, mn_error *error)
{
    return mn__session_logits(&reading->session, error);
}

mn_status mn__reading_reserve(mn__reading *reading, int64_t tokens, mn_error *error)
{
    mn__session *session = &reading->session;
    mn__states states;
    int64_t capacity = reading->options.capacity, needed = reading->ids.count + tokens;
    if (needed <= capacity)
        return MN_OK;
    capacity += capacity / 4;
    capacity = capacity > needed ? capacity : needed;
    mn_status status = mn__session_check(session, error);
    if (status == MN_OK)
        status = mn__decoder_states_open(session->decoder, &states, 1, capacity,
                                         reading->options.compute, error);
    if (status != MN_OK)
        return status;
    mn__states_copy_grown(&states, &session->states);
    mn__states_close(&session->states);
    session->states = states;
    session->options.capacity = reading->options.capacity = capacity;
    return MN_OK;
}

/* ---- Forks ---------------------------------------------------------------------------- */

mn_status mn__reading_fork(mn__reading *fork, const mn__reading *reading, mn_error *error)
{
    const mn__session *session = &reading->session;
    mn_status status = mn__session_check(session, error);
    if (status != MN_OK)
        return status;
    status = mn__reading_open(fork, session->decoder, session->params, &reading->options, error);
    if (status != MN_OK)
        return status;
    int64_t count = reading->ids.count;
    int32_t *ids = count ? mn__ids_extend(&fork->ids, count) : NULL;
    for (int64_t i = 0; i < reading->end_count && status == MN_OK; i++)
        status = mn__reading_ended(fork, reading->ends[i], error);
    if ((count && !ids) || status != MN_OK) {
        mn__reading_close(fork);
        return no_memory(error);
    }
    if (count)
        memcpy(ids, reading->ids.id, (size_t)count * sizeof *ids);
    mn__states_copy_grown(&fork->session.states, &session->states);
    memcpy(fork->session.hidden, session->hidden, (size_t)width_of(fork) * sizeof(float));
    mn__reading_mark(fork);
    return MN_OK;
}
