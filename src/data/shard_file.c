/* The JSON files of a data set. Each carries, or is covered by, a hash, so that
 * a changed byte is found before it is believed. */
#include "data/shard_file.h"

#include <jansson.h>
#include <string.h>

#include "base/memory.h"

static const char damaged_hint[] = "a file of the data set is damaged: prepare it again";

static mn_status fail_memory(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
}

static mn_status fail_damaged(const char *path, const char *why, mn_error *error)
{
    return mn__fail(error, MN_ERROR_FORMAT, damaged_hint, "%s: %s", path, why);
}

char *mn__shard_path(const char *folder, int64_t shard, const char *ending)
{
    mn__string path = {0};
    mn__string_printf(&path, "%s/shard-%05lld.%s", folder, (long long)shard, ending);
    if (!path.failed)
        return path.text;
    mn__string_free(&path);
    return NULL;
}

int mn__shard_id_bytes(int64_t vocab)
{
    return vocab <= 1 << 8 ? 1 : vocab <= 1 << 16 ? 2 : 4;
}

/* ---- Reading JSON ----------------------------------------------------------- */

/* A whole file as JSON. *hash (may be NULL): of its bytes. */
static mn_status read_json(const char *path, json_t **json, mn__hash_text *hash, mn_error *error)
{
    char *text;
    int64_t bytes;
    json_error_t why;
    mn_status status = mn__file_read(path, 0, &text, &bytes, error);
    if (status)
        return status;
    if (hash)
        *hash = mn__hash_of(text, bytes);
    *json = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &why);
    mn__free(text);
    return *json ? MN_OK : fail_damaged(path, why.text, error);
}

static bool take_hash(mn__hash_text *hash, const char *hex)
{
    if (strlen(hex) != sizeof hash->hex - 1)
        return false;
    memcpy(hash->hex, hex, sizeof hash->hex);
    return true;
}

/* ---- A shard's table -------------------------------------------------------- */

void mn__shard_table_add(mn__string *table, const mn__dataset_document *document)
{
    mn__string_puts(table, table->bytes ? ",\n  {\"name\": " : "  {\"name\": ");
    mn__string_json(table, document->name, (int64_t)strlen(document->name));
    mn__string_puts(table, ", \"title\": ");
    mn__string_json(table, document->title, (int64_t)strlen(document->title));
    mn__string_printf(table, ", \"split\": \"%s\", \"raw_bytes\": %lld, \"bytes\": %lld, ",
                      mn__split_name(document->split), (long long)document->raw_bytes,
                      (long long)document->bytes);
    mn__string_printf(table, "\"characters\": %lld, \"words\": %lld, \"tokens\": %lld, ",
                      (long long)document->characters, (long long)document->words,
                      (long long)document->tokens);
    mn__string_printf(table, "\"hash\": \"%s\"}", document->hash.hex);
}

void mn__shard_table_end(mn__string *file, const mn__string *lines, mn__hash_text ids)
{
    mn__string_printf(file, "{\"mneme_shard\": %d, \"ids\": \"%s\", \"documents\": [\n",
                      MN__DATASET_VERSION, ids.hex);
    mn__string_add(file, lines->text, lines->bytes);
    mn__string_puts(file, "\n]}\n");
}

static mn_status take_document(mn__dataset_document *document, mn__arena *arena, json_t *json,
                               const char *path, mn_error *error)
{
    const char *name, *title, *split, *hash;
    json_int_t raw, bytes, characters, words, tokens;
    if (json_unpack(json, "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "name", &name, "title",
                    &title, "split", &split, "hash", &hash, "raw_bytes", &raw, "bytes", &bytes,
                    "characters", &characters, "words", &words, "tokens", &tokens) ||
        !mn__split_named(split, &document->split) || !take_hash(&document->hash, hash) || raw < 0 ||
        bytes < 0 || characters < 0 || words < 0 || tokens < 0 || tokens > INT64_MAX / 8)
        return fail_damaged(path, "a document's entry is not as it should be", error);
    document->name = mn__arena_strdup(arena, name);
    document->title = mn__arena_strdup(arena, title);
    document->raw_bytes = raw;
    document->bytes = bytes;
    document->characters = characters;
    document->words = words;
    document->tokens = tokens;
    return document->name && document->title ? MN_OK : fail_memory(path, error);
}

static mn_status take_documents(mn__shard_table *table, mn__arena *arena, json_t *list,
                                const char *path, mn_error *error)
{
    table->count = (int64_t)json_array_size(list);
    table->documents = mn__arena_calloc(arena, table->count, (int64_t)sizeof *table->documents);
    if (!table->documents)
        return fail_memory(path, error);
    for (int64_t i = 0; i < table->count; i++) {
        mn__dataset_document *document = &table->documents[i];
        mn_status status =
            take_document(document, arena, json_array_get(list, (size_t)i), path, error);
        if (status)
            return status;
        if (__builtin_add_overflow(table->tokens, document->tokens, &table->tokens))
            return fail_damaged(path, "too many tokens", error);
    }
    return MN_OK;
}

mn_status mn__shard_table_read(mn__shard_table *table, mn__arena *arena, const char *folder,
                               int64_t shard, mn_error *error)
{
    json_t *json = NULL, *list;
    int version = 0;
    const char *ids;
    char *path = mn__shard_path(folder, shard, "json");
    if (!path)
        return fail_memory(folder, error);
    *table = (mn__shard_table){0};
    mn_status status = read_json(path, &json, &table->table, error);
    if (!status && (json_unpack(json, "{s:i, s:s, s:o}", "mneme_shard", &version, "ids", &ids,
                                "documents", &list) ||
                    version != MN__DATASET_VERSION || !take_hash(&table->ids, ids)))
        status = fail_damaged(path, "not a shard's table of this version", error);
    if (!status)
        status = take_documents(table, arena, list, path, error);
    json_decref(json);
    mn__free(path);
    return status;
}

/* ---- dataset.json ------------------------------------------------------------- */

static const char check_key[] = ",\n\"check\": \"";

/* The file ends in the hash of what is before it. */
static bool check_holds(const char *text, int64_t bytes)
{
    const char *end = NULL;
    for (const char *at = text; (at = strstr(at, check_key)); at++)
        end = at;
    if (!end || end - text + (int64_t)sizeof check_key - 1 + 32 > bytes)
        return false;
    mn__hash_text hash = mn__hash_of(text, end - text);
    return memcmp(end + sizeof check_key - 1, hash.hex, 32) == 0;
}

static mn_status check_header(const char *path, mn_error *error)
{
    char *text;
    int64_t bytes;
    mn_status status = mn__file_read(path, 0, &text, &bytes, error);
    if (status)
        return status;
    if (!check_holds(text, bytes))
        status = fail_damaged(path, "does not have the hash that it ends in", error);
    mn__free(text);
    return status;
}

static mn_status take_tables(mn__dataset_header *header, mn__arena *arena, json_t *list,
                             const char *path, mn_error *error)
{
    header->shards = (int64_t)json_array_size(list);
    header->tables = mn__arena_calloc(arena, header->shards, (int64_t)sizeof *header->tables);
    if (!header->tables)
        return fail_memory(path, error);
    for (int64_t i = 0; i < header->shards; i++) {
        const char *hex = json_string_value(json_array_get(list, (size_t)i));
        if (!hex || !take_hash(&header->tables[i], hex))
            return fail_damaged(path, "a shard's hash is not as it should be", error);
    }
    return MN_OK;
}

static mn_status take_header(mn__dataset_header *header, mn__arena *arena, json_t *json,
                             const char *path, mn_error *error)
{
    int version = 0;
    const char *newlines, *settings;
    json_int_t words[MN__SPLITS];
    json_t *tables;
    if (json_unpack(json, "{s:i, s:s, s:i, s:s, s:[III], s:o}", "mneme_dataset", &version,
                    "newlines", &newlines, "id_bytes", &header->id_bytes, "settings", &settings,
                    "published_words", &words[0], &words[1], &words[2], "shards", &tables) ||
        version != MN__DATASET_VERSION)
        return fail_damaged(path, "not a data set of this version", error);
    header->newlines = strcmp(newlines, "keep") == 0 ? MN__NEWLINES_KEEP : MN__NEWLINES_LF;
    for (int i = 0; i < MN__SPLITS; i++)
        header->published_words[i] = words[i];
    header->settings = mn__arena_strdup(arena, settings);
    return header->settings ? take_tables(header, arena, tables, path, error)
                            : fail_memory(path, error);
}

mn_status mn__dataset_header_read(mn__dataset_header *header, mn__arena *arena, const char *folder,
                                  mn_error *error)
{
    json_t *json = NULL;
    const char *path = mn__arena_printf(arena, "%s/dataset.json", folder);
    if (!path)
        return fail_memory(folder, error);
    *header = (mn__dataset_header){0};
    if (!mn__file_exists(path))
        return mn__fail(error, MN_ERROR_FORMAT,
                        "make it with `mneme prepare`; if that was interrupted, run it again",
                        "%s: there is no finished data set in it", folder);
    mn_status status = check_header(path, error);
    if (!status)
        status = read_json(path, &json, NULL, error);
    if (!status)
        status = take_header(header, arena, json, path, error);
    json_decref(json);
    return status;
}

mn_status mn__dataset_header_write(const mn__dataset_header *header, const char *folder,
                                   mn_error *error)
{
    mn__string text = {0}, path = {0};
    mn__string_printf(&path, "%s/dataset.json", folder);
    mn__string_printf(&text,
                      "{\"mneme_dataset\": %d,\n\"newlines\": \"%s\",\n\"id_bytes\": %d,\n"
                      "\"settings\": \"%s\",\n\"published_words\": [%lld, %lld, %lld],\n"
                      "\"shards\": [",
                      MN__DATASET_VERSION, header->newlines == MN__NEWLINES_KEEP ? "keep" : "lf",
                      header->id_bytes, header->settings, (long long)header->published_words[0],
                      (long long)header->published_words[1], (long long)header->published_words[2]);
    for (int64_t i = 0; i < header->shards; i++)
        mn__string_printf(&text, "%s\n  \"%s\"", i ? "," : "", header->tables[i].hex);
    mn__string_puts(&text, "\n]");
    mn__hash_text hash = mn__hash_of(text.text, text.bytes);
    mn__string_printf(&text, "%s%s\"}\n", check_key, hash.hex);
    mn_status status = text.failed || path.failed
                           ? fail_memory(folder, error)
                           : mn__file_write(path.text, text.text, text.bytes, error);
    mn__string_free(&text);
    mn__string_free(&path);
    return status;
}
