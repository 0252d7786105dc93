/* Cutting batches. The cursor moves for all rows of all ranks alike; ids are read
 * for this rank's rows alone. */
#include "data/batch.h"

#include <assert.h>
#include <jansson.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"

enum { SHUFFLE_OPERATION = 0x64617461 }; /* a number of its own among the random draws */

struct mn__batcher {
    const mn__dataset *dataset;
    mn__batcher_config config;
    mn__cursor cursor;
    mn__hash_text data;   /* of what is read, which a cursor must fit */
    int64_t count;        /* documents with tokens */
    int64_t *documents;   /* [count] as configured */
    int64_t *order;       /* [count] this epoch's */
    int64_t *begins;      /* [count + 1] of the stream, in this epoch's order */
    int64_t *permutation; /* [count] */
    int64_t row_tokens;   /* contiguous: n */
    int32_t *tokens;      /* [length + 1] */
};

static mn_status fail_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "batches: out of memory");
}

/* ---- Batches ---------------------------------------------------------------- */

static void clear_row(mn__batch *batch, int64_t row)
{
    int64_t T = batch->length;
    memset(batch->ids + row * T, 0, (size_t)T * sizeof *batch->ids);
    memset(batch->targets + row * T, 0, (size_t)T * sizeof *batch->targets);
    memset(batch->weights + row * T, 0, (size_t)T * sizeof *batch->weights);
    batch->start[row] = false;
    batch->valid[row] = 0;
    batch->document[row] = -1;
    batch->position[row] = 0;
}

mn_status mn__batch_new(mn__batch *batch, mn__arena *arena, int64_t rows, int64_t length,
                        mn_error *error)
{
    int64_t cells = mn__size_product(rows, length);
    *batch = (mn__batch){
        .rows = rows,
        .length = length,
        .ids = mn__arena_calloc(arena, cells, sizeof *batch->ids),
        .targets = mn__arena_calloc(arena, cells, sizeof *batch->targets),
        .weights = mn__arena_calloc(arena, cells, sizeof *batch->weights),
        .start = mn__arena_calloc(arena, rows, sizeof *batch->start),
        .valid = mn__arena_calloc(arena, rows, sizeof *batch->valid),
        .document = mn__arena_calloc(arena, rows, sizeof *batch->document),
        .position = mn__arena_calloc(arena, rows, sizeof *batch->position),
    };
    if (!batch->ids || !batch->targets || !batch->weights || !batch->start || !batch->valid ||
        !batch->document || !batch->position)
        return fail_memory(error);
    for (int64_t row = 0; row < rows; row++)
        clear_row(batch, row);
    return MN_OK;
}

/* The row's inputs and targets are neighbours in `tokens`, [valid + 1]. */
static void fill_row(mn__batch *batch, int64_t row, const int32_t *tokens, int64_t valid)
{
    int64_t first = row * batch->length;
    memcpy(batch->ids + first, tokens, (size_t)valid * sizeof *tokens);
    memcpy(batch->targets + first, tokens + 1, (size_t)valid * sizeof *tokens);
    for (int64_t t = 0; t < valid; t++)
        batch->weights[first + t] = 1;
    batch->valid[row] = valid;
}

/* ---- The order of documents --------------------------------------------------- */

static int64_t tokens_of(const mn__batcher *batcher, int64_t document)
{
    return mn__dataset_at(batcher->dataset, document)->tokens;
}

/* The order of the cursor's epoch. */
static void order_documents(mn__batcher *batcher)
{
    mn__random_key key = {.seed = batcher->config.seed,
                          .step = (uint64_t)batcher->cursor.epoch,
                          .operation = SHUFFLE_OPERATION};
    if (batcher->config.shuffle)
        mn__random_permutation(key, batcher->permutation, batcher->count);
    batcher->begins[0] = 0;
    for (int64_t i = 0; i < batcher->count; i++) {
        int64_t from = batcher->config.shuffle ? batcher->permutation[i] : i;
        batcher->order[i] = batcher->documents[from];
        batcher->begins[i + 1] = batcher->begins[i] + tokens_of(batcher, batcher->order[i]);
    }
}

static void next_epoch(mn__batcher *batcher)
{
    batcher->cursor.epoch++;
    batcher->cursor.next = 0;
    order_documents(batcher);
}

static bool is_mine(const mn__batcher *batcher, int64_t row)
{
    int64_t mine = row - batcher->config.first_row;
    return mine >= 0 && mine < batcher->config.my_rows;
}

/* ---- One stream in contiguous rows ---------------------------------------------- */

/* Which of the epoch's documents holds this token of the stream. */
static int64_t find_document(const mn__batcher *batcher, int64_t token)
{
    int64_t low = 0, high = batcher->count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (batcher->begins[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static mn_status read_stream(const mn__batcher *batcher, int64_t from, int64_t count, int32_t *out,
                             mn_error *error)
{
    for (int64_t i = find_document(batcher, from); count > 0; i++) {
        int64_t left = batcher->begins[i + 1] - from, take = left < count ? left : count;
        mn_status status = mn__dataset_tokens(batcher->dataset, batcher->order[i],
                                              from - batcher->begins[i], take, out, error);
        if (status)
            return status;
        from += take;
        out += take;
        count -= take;
    }
    return MN_OK;
}

static mn_status fill_stream_row(mn__batcher *batcher, mn__batch *batch, int64_t row, int64_t at,
                                 int64_t valid, mn_error *error)
{
    int64_t from = row * batcher->row_tokens + at, mine = row - batcher->config.first_row;
    int64_t document = find_document(batcher, from + 1);
    mn_status status = read_stream(batcher, from, valid + 1, batcher->tokens, error);
    if (status)
        return status;
    fill_row(batch, mine, batcher->tokens, valid);
    batch->start[mine] = at == 0;
    batch->document[mine] = batcher->order[document];
    batch->position[mine] = from + 1 - batcher->begins[document];
    return MN_OK;
}

static mn_status next_contiguous(mn__batcher *batcher, mn__batch *batch, bool *more,
                                 mn_error *error)
{
    mn__cursor *cursor = &batcher->cursor;
    int64_t at = cursor->row[0].offset, left = batcher->row_tokens - 1 - at;
    int64_t valid = left < batch->length ? left : batch->length;
    *more = !batcher->config.once || cursor->epoch == 0;
    if (!*more)
        return MN_OK;
    for (int64_t row = 0; row < cursor->rows; row++) {
        mn_status status =
            is_mine(batcher, row) ? fill_stream_row(batcher, batch, row, at, valid, error) : MN_OK;
        if (status)
            return status;
    }
    for (int64_t row = 0; row < cursor->rows; row++)
        cursor->row[row].offset = valid < left ? at + valid : 0;
    cursor->tokens += valid * cursor->rows;
    if (valid == left)
        next_epoch(batcher);
    return MN_OK;
}

/* ---- A document per row --------------------------------------------------------- */

/* The row's document, the next one if it has none; false where all are taken. */
static bool hold_document(mn__batcher *batcher, mn__cursor_row *row)
{
    if (row->document >= 0)
        return true;
    if (batcher->cursor.next == batcher->count) {
        if (batcher->config.once)
            return false;
        next_epoch(batcher);
    }
    *row = (mn__cursor_row){.document = batcher->order[batcher->cursor.next++]};
    return true;
}

/* tokens[0..valid]: the token before the segment, or the start id, then the segment. */
static mn_status fill_document_row(mn__batcher *batcher, mn__batch *batch, int64_t mine,
                                   mn__cursor_row at, int64_t valid, mn_error *error)
{
    int64_t before = at.offset > 0;
    batcher->tokens[0] = mn__dataset_tokenizer(batcher->dataset)->start;
    mn_status status = mn__dataset_tokens(batcher->dataset, at.document, at.offset - before,
                                          valid + before, batcher->tokens + 1 - before, error);
    if (status)
        return status;
    fill_row(batch, mine, batcher->tokens, valid);
    batch->start[mine] = at.offset == 0;
    batch->document[mine] = at.document;
    batch->position[mine] = at.offset;
    return MN_OK;
}

static mn_status next_documents(mn__batcher *batcher, mn__batch *batch, bool *more, mn_error *error)
{
    mn__cursor *cursor = &batcher->cursor;
    *more = false;
    for (int64_t row = 0; row < cursor->rows; row++) {
        mn__cursor_row *at = &cursor->row[row];
        if (!hold_document(batcher, at))
            continue;
        int64_t left = tokens_of(batcher, at->document) - at->offset;
        int64_t valid = left < batch->length ? left : batch->length;
        mn_status status = is_mine(batcher, row)
                               ? fill_document_row(batcher, batch, row - batcher->config.first_row,
                                                   *at, valid, error)
                               : MN_OK;
        if (status)
            return status;
        cursor->tokens += valid;
        *at = valid < left ? (mn__cursor_row){at->document, at->offset + valid}
                           : (mn__cursor_row){.document = -1};
        *more = true;
    }
    return MN_OK;
}

mn_status mn__batcher_next(mn__batcher *batcher, mn__batch *batch, bool *more, mn_error *error)
{
    assert(batch->rows == batcher->config.my_rows && batch->length == batcher->config.length);
    for (int64_t row = 0; row < batch->rows; row++)
        clear_row(batch, row);
    mn_status status = batcher->config.style == MN__BATCH_CONTIGUOUS
                           ? next_contiguous(batcher, batch, more, error)
                           : next_documents(batcher, batch, more, error);
    batcher->cursor.batches += !status && *more;
    return status;
}

/* ---- Making ------------------------------------------------------------------- */

/* The documents that are to be read and are not empty. */
static void choose_documents(mn__batcher *batcher)
{
    const mn__batcher_config *config = &batcher->config;
    int64_t all = config->documents ? config->document_count : mn__dataset_count(batcher->dataset);
    for (int64_t i = 0; i < all; i++) {
        int64_t document = config->documents ? config->documents[i] : i;
        const mn__dataset_document *entry = mn__dataset_at(batcher->dataset, document);
        if (entry->tokens > 0 && (config->documents || entry->split == config->split))
            batcher->documents[batcher->count++] = document;
    }
    batcher->config.documents = NULL; /* the caller's */
}

static mn_status allocate(mn__batcher *batcher, mn_error *error)
{
    const mn__batcher_config *config = &batcher->config;
    int64_t room = config->documents ? config->document_count : mn__dataset_count(batcher->dataset);
    batcher->documents = mn__calloc(room, sizeof(int64_t));
    batcher->order = mn__calloc(room, sizeof(int64_t));
    batcher->begins = mn__calloc(room + 1, sizeof(int64_t));
    batcher->permutation = mn__calloc(room, sizeof(int64_t));
    batcher->tokens = mn__calloc(config->length + 1, sizeof(int32_t));
    batcher->cursor.row = mn__calloc(config->rows, sizeof *batcher->cursor.row);
    batcher->cursor.rows = config->rows;
    if (!batcher->documents || !batcher->order || !batcher->begins || !batcher->permutation ||
        !batcher->tokens || !batcher->cursor.row)
        return fail_memory(error);
    return MN_OK;
}

static mn_status check_length(const mn__batcher *batcher, mn_error *error)
{
    const char *folder = mn__dataset_folder(batcher->dataset);
    const char *split = mn__split_name(batcher->config.split);
    if (batcher->count == 0)
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "prepare it with validation or test shares, or choose another split",
                        "%s: there is nothing to read in the %s split", folder, split);
    if (batcher->config.style == MN__BATCH_CONTIGUOUS && batcher->row_tokens < 2)
        return mn__fail(error, MN_ERROR_MISMATCH, "use fewer rows, or more text",
                        "%s: the %s split's %lld tokens are too few for %lld rows", folder, split,
                        (long long)batcher->begins[batcher->count],
                        (long long)batcher->config.rows);
    return MN_OK;
}

static void hash_data(mn__batcher *batcher)
{
    struct {
        char dataset[32], documents[32];
        int64_t style, rows, shuffle;
        uint64_t seed;
    } all = {.style = batcher->config.style,
             .rows = batcher->config.rows,
             .shuffle = batcher->config.shuffle,
             .seed = batcher->config.seed};
    mn__hash_text dataset = mn__dataset_fingerprint(batcher->dataset, MN__SPLITS);
    mn__hash_text documents =
        mn__hash_of(batcher->documents, batcher->count * (int64_t)sizeof(int64_t));
    memcpy(all.dataset, dataset.hex, sizeof all.dataset);
    memcpy(all.documents, documents.hex, sizeof all.documents);
    batcher->data = mn__hash_of(&all, sizeof all);
}

void mn__batcher_restart(mn__batcher *batcher)
{
    mn__cursor *cursor = &batcher->cursor;
    *cursor = (mn__cursor){.rows = cursor->rows, .row = cursor->row};
    for (int64_t row = 0; row < cursor->rows; row++)
        cursor->row[row] = (mn__cursor_row){.document = -1};
    order_documents(batcher);
}

static mn_status set_up(mn__batcher *batcher, mn_error *error)
{
    mn_status status = allocate(batcher, error);
    if (status)
        return status;
    choose_documents(batcher);
    mn__batcher_restart(batcher);
    batcher->row_tokens = batcher->begins[batcher->count] / batcher->config.rows;
    hash_data(batcher);
    return check_length(batcher, error);
}

mn_status mn__batcher_new(mn__batcher **out, const mn__dataset *dataset,
                          const mn__batcher_config *config, mn_error *error)
{
    assert(config->rows > 0 && config->length > 0);
    assert(config->first_row >= 0 && config->first_row + config->my_rows <= config->rows);
    mn__batcher *batcher = mn__calloc(1, sizeof *batcher);
    if (!batcher)
        return fail_memory(error);
    batcher->dataset = dataset;
    batcher->config = *config;
    if (config->my_rows == 0)
        batcher->config.my_rows = config->rows;
    mn_status status = set_up(batcher, error);
    if (status)
        mn__batcher_free(batcher);
    else
        *out = batcher;
    return status;
}

void mn__batcher_free(mn__batcher *batcher)
{
    if (!batcher)
        return;
    mn__free(batcher->documents);
    mn__free(batcher->order);
    mn__free(batcher->begins);
    mn__free(batcher->permutation);
    mn__free(batcher->tokens);
    mn__free(batcher->cursor.row);
    mn__free(batcher);
}

int64_t mn__batcher_epoch_tokens(const mn__batcher *batcher)
{
    return batcher->config.style == MN__BATCH_CONTIGUOUS
               ? (batcher->row_tokens - 1) * batcher->config.rows
               : batcher->begins[batcher->count];
}

/* ---- The cursor ----------------------------------------------------------------- */

const mn__cursor *mn__batcher_cursor(const mn__batcher *batcher)
{
    return &batcher->cursor;
}

mn_status mn__batcher_save(const mn__batcher *batcher, mn__string *json, mn_error *error)
{
    const mn__cursor *cursor = &batcher->cursor;
    mn__string_printf(json, "{\"mneme_cursor\": 1, \"data\": \"%s\", ", batcher->data.hex);
    mn__string_printf(json, "\"epoch\": %lld, \"next\": %lld, ", (long long)cursor->epoch,
                      (long long)cursor->next);
    mn__string_printf(json, "\"batches\": %lld, \"tokens\": %lld, \"rows\": [",
                      (long long)cursor->batches, (long long)cursor->tokens);
    for (int64_t row = 0; row < cursor->rows; row++)
        mn__string_printf(json, "%s[%lld, %lld]", row ? ", " : "",
                          (long long)cursor->row[row].document, (long long)cursor->row[row].offset);
    mn__string_puts(json, "]}");
    return json->failed ? fail_memory(error) : MN_OK;
}

static bool is_document(const mn__batcher *batcher, int64_t document)
{
    for (int64_t i = 0; i < batcher->count; i++)
        if (batcher->documents[i] == document)
            return true;
    return false;
}

/* Would the batcher ever stand there? */
static bool row_is_possible(const mn__batcher *batcher, json_int_t document, json_int_t offset)
{
    if (offset < 0)
        return false;
    if (batcher->config.style == MN__BATCH_CONTIGUOUS)
        return document == -1 && offset < batcher->row_tokens - 1;
    return document == -1 ? offset == 0
                          : is_document(batcher, document) && offset < tokens_of(batcher, document);
}

static mn_status take_rows(mn__batcher *batcher, json_t *rows, mn_error *error)
{
    if (json_array_size(rows) != (size_t)batcher->cursor.rows)
        return mn__fail(error, MN_ERROR_MISMATCH, NULL, "a data cursor has another number of rows");
    for (int64_t row = 0; row < batcher->cursor.rows; row++) {
        json_int_t document, offset;
        if (json_unpack(json_array_get(rows, (size_t)row), "[II]", &document, &offset) ||
            !row_is_possible(batcher, document, offset))
            return mn__fail(error, MN_ERROR_FORMAT, NULL, "a data cursor's row %lld is impossible",
                            (long long)row);
        batcher->cursor.row[row] = (mn__cursor_row){document, offset};
    }
    return MN_OK;
}

static mn_status take_cursor(mn__batcher *batcher, json_t *json, mn_error *error)
{
    int version = 0;
    const char *data;
    json_int_t epoch, next, batches, tokens;
    json_t *rows;
    if (json_unpack(json, "{s:i, s:s, s:I, s:I, s:I, s:I, s:o}", "mneme_cursor", &version, "data",
                    &data, "epoch", &epoch, "next", &next, "batches", &batches, "tokens", &tokens,
                    "rows", &rows) ||
        version != 1 || epoch < 0 || next < 0 || next > batcher->count)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "not a data cursor of this version");
    if (strcmp(data, batcher->data.hex) != 0)
        return mn__fail(error, MN_ERROR_MISMATCH,
                        "go on with the data, rows, style and seed that the run began with",
                        "a data cursor was made with other data or other batches");
    mn_status status = take_rows(batcher, rows, error);
    if (status)
        return status;
    batcher->cursor.epoch = epoch;
    batcher->cursor.next = next;
    batcher->cursor.batches = batches;
    batcher->cursor.tokens = tokens;
    order_documents(batcher);
    return MN_OK;
}

mn_status mn__batcher_load(mn__batcher *batcher, const char *json, int64_t bytes, mn_error *error)
{
    json_error_t why;
    json_t *parsed = json_loadb(json, (size_t)bytes, JSON_REJECT_DUPLICATES, &why);
    if (!parsed)
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "a data cursor: %s", why.text);
    mn_status status = take_cursor(batcher, parsed, error);
    json_decref(parsed);
    return status;
}
