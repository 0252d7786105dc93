/* Reading a prepared data set: the tables in memory, the ids mapped. */
#include "data/shards.h"

#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "data/shard_file.h"

typedef struct place {
    int64_t shard, offset; /* of a document's first id */
} place;

struct mn__dataset {
    mn__arena arena;
    const char *folder;
    mn__dataset_header header;
    mn__tokenizer *tokenizer;
    mn__dataset_document *documents; /* [count] */
    place *places;                   /* [count] */
    int64_t count;
    mn__map *maps;      /* [header.shards] */
    mn__hash_text *ids; /* [header.shards] hashes of the maps */
    bool *checked;      /* [header.shards] has that hash */
};

static mn_status fail_memory(const char *folder, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", folder);
}

static mn_status fail_shard(const mn__dataset *dataset, int64_t shard, const char *why,
                            mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT, "the data set is damaged: prepare it again",
                    "%s: shard %lld %s", dataset->folder, (long long)shard, why);
}

/* ---- Opening ---------------------------------------------------------------- */

static mn_status append_documents(mn__dataset *dataset, int64_t shard, const mn__shard_table *table,
                                  mn_error *error)
{
    int64_t count = dataset->count + table->count, offset = 0;
    mn__dataset_document *documents =
        mn__realloc(dataset->documents, mn__size_product(count, (int64_t)sizeof *documents));
    if (documents)
        dataset->documents = documents;
    place *places = mn__realloc(dataset->places, mn__size_product(count, (int64_t)sizeof *places));
    if (places)
        dataset->places = places;
    if (!documents || !places)
        return fail_memory(dataset->folder, error);
    for (int64_t i = 0; i < table->count; i++) {
        documents[dataset->count] = table->documents[i];
        places[dataset->count++] = (place){shard, offset};
        offset += table->documents[i].tokens;
    }
    return MN_OK;
}

static mn_status open_shard(mn__dataset *dataset, int64_t shard, mn_error *error)
{
    mn__shard_table table;
    mn_status status = mn__shard_table_read(&table, &dataset->arena, dataset->folder, shard, error);
    if (status)
        return status;
    if (strcmp(table.table.hex, dataset->header.tables[shard].hex) != 0)
        return fail_shard(dataset, shard, "has another table than dataset.json says", error);
    char *path = mn__shard_path(dataset->folder, shard, "ids");
    if (!path)
        return fail_memory(dataset->folder, error);
    status = mn__map_open(&dataset->maps[shard], path, error);
    mn__free(path);
    if (!status && dataset->maps[shard].bytes != table.tokens * dataset->header.id_bytes)
        status = fail_shard(dataset, shard, "has not as many ids as its table says", error);
    dataset->ids[shard] = table.ids;
    return status ? status : append_documents(dataset, shard, &table, error);
}

static mn_status open_all(mn__dataset *dataset, const char *folder, mn_error *error)
{
    dataset->folder = mn__arena_strdup(&dataset->arena, folder);
    if (!dataset->folder)
        return fail_memory(folder, error);
    mn_status status = mn__dataset_header_read(&dataset->header, &dataset->arena, folder, error);
    if (!status)
        status = mn__tokenizer_load(&dataset->tokenizer, folder, error);
    if (status)
        return status;
    if (dataset->header.id_bytes != mn__shard_id_bytes(dataset->tokenizer->vocab))
        return mn__fail(error, MN_ERROR_FORMAT, "prepare the data set again",
                        "%s: its ids of %d bytes do not fit its vocabulary of %lld", folder,
                        dataset->header.id_bytes, (long long)dataset->tokenizer->vocab);
    int64_t shards = dataset->header.shards;
    dataset->maps = mn__calloc(shards, (int64_t)sizeof *dataset->maps);
    dataset->ids = mn__calloc(shards, (int64_t)sizeof *dataset->ids);
    dataset->checked = mn__calloc(shards, (int64_t)sizeof *dataset->checked);
    if (!dataset->maps || !dataset->ids || !dataset->checked)
        return fail_memory(folder, error);
    for (int64_t i = 0; i < shards && !status; i++)
        status = open_shard(dataset, i, error);
    return status;
}

mn_status mn__dataset_open(mn__dataset **out, const char *folder, mn_error *error)
{
    mn__dataset *dataset = mn__calloc(1, sizeof *dataset);
    if (!dataset)
        return fail_memory(folder, error);
    mn__arena_init(&dataset->arena, 1 << 16);
    mn_status status = open_all(dataset, folder, error);
    if (status)
        mn__dataset_close(dataset);
    else
        *out = dataset;
    return status;
}

void mn__dataset_close(mn__dataset *dataset)
{
    if (!dataset)
        return;
    for (int64_t i = 0; dataset->maps && i < dataset->header.shards; i++)
        mn__map_close(&dataset->maps[i]);
    mn__tokenizer_free(dataset->tokenizer);
    mn__free(dataset->documents);
    mn__free(dataset->places);
    mn__free(dataset->maps);
    mn__free(dataset->ids);
    mn__free(dataset->checked);
    mn__arena_free(&dataset->arena);
    mn__free(dataset);
}

static mn_status check_shard(const mn__dataset *dataset, int64_t shard, mn_error *error)
{
    mn__hash_text hash = mn__hash_of(dataset->maps[shard].data, dataset->maps[shard].bytes);
    if (strcmp(hash.hex, dataset->ids[shard].hex) != 0)
        return fail_shard(dataset, shard, "has other ids than were written", error);
    dataset->checked[shard] = true;
    return MN_OK;
}

mn_status mn__dataset_verify(const mn__dataset *dataset, const mn__progress *progress,
                             mn_error *error)
{
    for (int64_t i = 0; i < dataset->header.shards; i++) {
        if (!mn__progress_report(progress, "verifying", i, dataset->header.shards, NULL))
            return mn__fail(error, MN_ERROR_INTERRUPTED, NULL, "%s: verifying was stopped",
                            dataset->folder);
        mn_status status = check_shard(dataset, i, error);
        if (status)
            return status;
    }
    return MN_OK;
}

/* ---- What it holds ------------------------------------------------------------ */

const char *mn__dataset_folder(const mn__dataset *dataset)
{
    return dataset->folder;
}

const mn__tokenizer *mn__dataset_tokenizer(const mn__dataset *dataset)
{
    return dataset->tokenizer;
}

mn__newlines mn__dataset_newlines(const mn__dataset *dataset)
{
    return dataset->header.newlines;
}

int64_t mn__dataset_count(const mn__dataset *dataset)
{
    return dataset->count;
}

const mn__dataset_document *mn__dataset_at(const mn__dataset *dataset, int64_t document)
{
    assert(document >= 0 && document < dataset->count);
    return &dataset->documents[document];
}

static bool is_in(const mn__dataset_document *document, mn__split split)
{
    return split == MN__SPLITS || document->split == split;
}

int64_t mn__dataset_find(const mn__dataset *dataset, const char *name, mn__split split)
{
    for (int64_t i = 0; i < dataset->count; i++)
        if (is_in(&dataset->documents[i], split) && strcmp(dataset->documents[i].name, name) == 0)
            return i;
    return -1;
}

mn__dataset_counts mn__dataset_counts_of(const mn__dataset *dataset, mn__split split)
{
    mn__dataset_counts sum = {0};
    for (int64_t i = 0; i < dataset->count; i++) {
        const mn__dataset_document *document = &dataset->documents[i];
        if (!is_in(document, split))
            continue;
        sum.documents++;
        sum.raw_bytes += document->raw_bytes;
        sum.bytes += document->bytes;
        sum.characters += document->characters;
        sum.words += document->words;
        sum.tokens += document->tokens;
    }
    if (split < MN__SPLITS)
        sum.published_words = dataset->header.published_words[split];
    return sum;
}

/* A chain: each link's hash covers the one before it. */
mn__hash_text mn__dataset_fingerprint(const mn__dataset *dataset, mn__split split)
{
    mn__hash_text chain = dataset->tokenizer->fingerprint;
    for (int64_t i = 0; i < dataset->count; i++) {
        const mn__dataset_document *document = &dataset->documents[i];
        struct {
            char before[32], document[32];
            int64_t tokens, newlines;
        } link = {.tokens = document->tokens, .newlines = dataset->header.newlines};
        if (!is_in(document, split))
            continue;
        memcpy(link.before, chain.hex, sizeof link.before);
        memcpy(link.document, document->hash.hex, sizeof link.document);
        chain = mn__hash_of(&link, sizeof link);
    }
    return chain;
}

/* ---- Ids ------------------------------------------------------------------------ */

/* out[0..count) from ids of one width; the largest. */
#define WIDEN(type)                                                             \
    static uint32_t widen_##type(const void *from, int64_t count, int32_t *out) \
    {                                                                           \
        const type *ids = from;                                                 \
        uint32_t largest = 0;                                                   \
        for (int64_t i = 0; i < count; i++) {                                   \
            largest = ids[i] > largest ? ids[i] : largest;                      \
            out[i] = (int32_t)ids[i];                                           \
        }                                                                       \
        return largest;                                                         \
    }
WIDEN(uint8_t)
WIDEN(uint16_t)
WIDEN(uint32_t)
#undef WIDEN

mn_status mn__dataset_tokens(const mn__dataset *dataset, int64_t document, int64_t offset,
                             int64_t count, int32_t *out, mn_error *error)
{
    assert(offset >= 0 && count >= 0);
    assert(offset + count <= mn__dataset_at(dataset, document)->tokens);
    if (count == 0)
        return MN_OK;
    const place *at = &dataset->places[document];
    mn_status status = dataset->checked[at->shard] ? MN_OK : check_shard(dataset, at->shard, error);
    if (status)
        return status;
    int width = dataset->header.id_bytes;
    const unsigned char *from = dataset->maps[at->shard].data + (at->offset + offset) * width;
    uint32_t largest = width == 1   ? widen_uint8_t(from, count, out)
                       : width == 2 ? widen_uint16_t(from, count, out)
                                    : widen_uint32_t(from, count, out);
    if (largest >= dataset->tokenizer->vocab)
        return fail_shard(dataset, at->shard, "holds an id that is not in the vocabulary", error);
    return MN_OK;
}
