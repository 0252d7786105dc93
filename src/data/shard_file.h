/* The files of a data set (shards.h), as its reader and its writer share them. */
#ifndef MN__DATA_SHARD_FILE_H
#define MN__DATA_SHARD_FILE_H

#include "base/file.h"
#include "data/shards.h"

enum { MN__DATASET_VERSION = 1 };

/* "<folder>/shard-00012.ids" and the like; freed by mn__free, NULL: no memory. */
char *mn__shard_path(const char *folder, int64_t shard, const char *ending);

/* The least width that holds the ids 0..vocab-1. */
int mn__shard_id_bytes(int64_t vocab);

/* A shard's table: its documents (in the arena) and the hash of its ids. */
typedef struct mn__shard_table {
    mn__dataset_document *documents; /* [count] */
    int64_t count;
    int64_t tokens;      /* their sum */
    mn__hash_text ids;   /* hash of the .ids file */
    mn__hash_text table; /* hash of the .json file */
} mn__shard_table;
mn_status mn__shard_table_read(mn__shard_table *table, mn__arena *arena, const char *folder,
                               int64_t shard, mn_error *error);
/* One document as a line of a table. */
void mn__shard_table_add(mn__string *table, const mn__dataset_document *document);
/* The whole file's text around those lines. */
void mn__shard_table_end(mn__string *file, const mn__string *lines, mn__hash_text ids);

/* What dataset.json holds. */
typedef struct mn__dataset_header {
    mn__newlines newlines;
    int id_bytes;
    int64_t published_words[MN__SPLITS];
    const char *settings;  /* hash of what it was made by and from */
    mn__hash_text *tables; /* [shards] */
    int64_t shards;
} mn__dataset_header;
mn_status mn__dataset_header_read(mn__dataset_header *header, mn__arena *arena, const char *folder,
                                  mn_error *error);
mn_status mn__dataset_header_write(const mn__dataset_header *header, const char *folder,
                                   mn_error *error);

#endif
