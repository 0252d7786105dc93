/* prepare: from corpora to a data set.
 *
 * The folder goes through three states, each entered by one atomic write:
 *   prepare.json     a run with these settings has begun
 *   shard-*.json     shard after shard is finished; a restart goes on after them
 *   dataset.json     all is there */
#include "data/prepare.h"

#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "data/shard_file.h"
#include "text/utf8.h"

const mn__option mn__prepare_options[] = {
    MN__LIST(mn__prepare_config, data, "", "what to read: [TYPE=]PATH[@SPLIT], one or more"),
    MN__STRING(mn__prepare_config, out, "", "the data set's folder"),
    MN__STRING(mn__prepare_config, tokenizer, "bytes",
               "bytes, characters, words, sentencepiece, or a path to a tokenizer"),
    MN__INT(mn__prepare_config, train_vocab, "0", 0, 1 << 24,
            "train a SentencePiece vocabulary of so many ids"),
    MN__ENUM(mn__prepare_config, train_model, "bpe", "bpe|unigram", "what SentencePiece trains"),
    MN__INT(mn__prepare_config, train_bytes, "256Mi", 1, 0x1p40,
            "train it on an even sample of lines of so many bytes"),
    MN__ENUM(mn__prepare_config, train_on, "train", "train|all",
             "the split that words and SentencePiece learn from (characters: always all)"),
    MN__ENUM(mn__prepare_config, newlines, "lf", "lf|keep",
             "lf: CR LF and CR become LF, no byte-order mark; keep: every byte as stored"),
    MN__FLOAT(mn__prepare_config, validation, "0", 0, 0.5,
              "share held out for validation, where a corpus has no splits"),
    MN__FLOAT(mn__prepare_config, test, "0", 0, 0.5, "share held out for the test"),
    MN__BOOL(mn__prepare_config, one, "false", "read a folder as one document"),
    MN__INT(mn__prepare_config, shard_tokens, "64Mi", 1, 0x1p40,
            "a shard ends with the document that reaches this"),
    MN__OPTIONS_END,
};

enum { CHUNK = 1 << 20 };

typedef struct preparing {
    const mn__prepare_config *config;
    const mn__progress *progress;
    mn__prepare_result result;
    mn__corpus *corpus;
    mn__tokenizer *tokenizer;
    mn__hash_text settings;
    int64_t total, done; /* stored bytes; total -1: unknown */
    char *chunk;         /* [CHUNK] */
    /* the open shard */
    int64_t shard;
    mn__writer *writer;
    mn__hash *hash;   /* of its ids */
    mn__string lines; /* of its table */
    int64_t tokens;
    /* the open document */
    mn__encoder encoder;
    mn__ids ids;
    mn__string packed;
} preparing;

static mn_status fail_memory(const preparing *work, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "preparing %s: out of memory", work->config->out);
}

static mn_status report(preparing *work, const char *what, mn_error *error)
{
    if (mn__progress_report(work->progress, what, work->done, work->total, NULL))
        return MN_OK;
    return mn__fail(error, MN_ERROR_INTERRUPTED, "run the same command again to go on",
                    "preparing %s was stopped after %lld bytes", work->config->out,
                    (long long)work->done);
}

/* ---- Settings ------------------------------------------------------------------- */

static void hash_text(mn__hash *hash, const char *text)
{
    mn__hash_add(hash, text, (int64_t)strlen(text) + 1);
}

static void hash_number(mn__hash *hash, int64_t number)
{
    mn__hash_add(hash, &number, sizeof number);
}

/* Size and time of change, by which a file that was edited is known. */
static void hash_file(mn__hash *hash, const mn__corpus_part *part)
{
    struct stat info = {0};
    (void)stat(part->path, &info); /* a file that is gone fails when it is read */
    hash_number(hash, part->offset);
    hash_number(hash, part->bytes);
    if (part->converted)
        hash_text(hash, "converted");
    hash_number(hash, info.st_size);
    hash_number(hash, info.st_mtim.tv_sec);
    hash_number(hash, info.st_mtim.tv_nsec);
}

static void hash_corpus(mn__hash *hash, const mn__corpus *corpus)
{
    for (int64_t i = 0; i < corpus->count; i++) {
        hash_text(hash, corpus->documents[i].name);
        hash_number(hash, corpus->documents[i].split);
        hash_number(hash, corpus->documents[i].parts);
    }
    for (int64_t i = 0; i < corpus->part_count; i++)
        hash_file(hash, &corpus->parts[i]);
}

/* What decides every byte of the result. A tokenizer that is to be learned is
 * decided by the rest; one that was given, by itself. */
static mn_status hash_settings(preparing *work, mn_error *error)
{
    const mn__prepare_config *config = work->config;
    mn__hash *hash = mn__hash_new();
    if (!hash)
        return fail_memory(work, error);
    hash_text(hash, work->tokenizer ? work->tokenizer->fingerprint.hex : config->tokenizer);
    hash_number(hash, config->train_vocab);
    hash_number(hash, config->train_model);
    hash_number(hash, config->train_bytes);
    hash_number(hash, config->train_on);
    hash_number(hash, config->newlines);
    hash_number(hash, config->shard_tokens);
    hash_corpus(hash, work->corpus);
    work->settings = mn__hash_end(hash);
    return MN_OK;
}

static mn_status fail_other_settings(const preparing *work, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MISMATCH, "remove that folder, or choose another",
                    "%s: was prepared with other settings, or from files that have changed",
                    work->config->out);
}

/* Is the data set there already? */
static mn_status check_whole(preparing *work, mn_error *error)
{
    mn__arena arena;
    mn__dataset_header header;
    mn__arena_init(&arena, 4096);
    mn_status status = mn__dataset_header_read(&header, &arena, work->config->out, error);
    if (!status && strcmp(header.settings, work->settings.hex) != 0)
        status = fail_other_settings(work, error);
    mn__arena_free(&arena);
    work->result.already_whole = !status;
    return status;
}

static mn_status check_begun(const preparing *work, const char *path, mn_error *error)
{
    char *text;
    int64_t bytes;
    mn_status status = mn__file_read(path, 4096, &text, &bytes, error);
    if (status)
        return status;
    if (!strstr(text, work->settings.hex))
        status = fail_other_settings(work, error);
    mn__free(text);
    return status;
}

/* Files of something else: not what a run killed at its very beginning left. */
static int64_t count_strangers(char **names, int64_t count)
{
    int64_t strangers = 0;
    for (int64_t i = 0; i < count; i++)
        strangers += strncmp(names[i], "prepare.json.", 13) != 0;
    return strangers;
}

/* A first run: the folder must not hold something else. */
static mn_status begin(const preparing *work, const char *path, mn_error *error)
{
    const char *out = work->config->out;
    char **names;
    int64_t count;
    mn__string text = {0};
    mn_status status = mn__file_make_folder(out, error);
    if (!status)
        status = mn__file_list(out, &names, &count, error);
    if (status)
        return status;
    int64_t strangers = count_strangers(names, count);
    mn__free(names);
    if (strangers > 0)
        return mn__fail(error, MN_ERROR_MISMATCH, "choose an empty or a new folder",
                        "%s: holds files already, and no data set", out);
    mn__string_printf(&text, "{\"settings\": \"%s\"}\n", work->settings.hex);
    status =
        text.failed ? fail_memory(work, error) : mn__file_write(path, text.text, text.bytes, error);
    mn__string_free(&text);
    return status;
}

/* What a killed run was writing. */
static mn_status remove_leftovers(const preparing *work, mn_error *error)
{
    const char *out = work->config->out;
    char **names;
    int64_t count;
    mn_status status = mn__file_list(out, &names, &count, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count && !status; i++) {
        size_t bytes = strlen(names[i]);
        if (bytes < 4 || strcmp(names[i] + bytes - 4, ".tmp") != 0)
            continue;
        mn__string path = {0};
        mn__string_printf(&path, "%s/%s", out, names[i]);
        status = path.failed ? fail_memory(work, error) : mn__file_remove(path.text, error);
        mn__string_free(&path);
    }
    mn__free(names);
    return status;
}

static mn_status enter_folder(preparing *work, const char *begun, const char *whole,
                              mn_error *error)
{
    if (mn__file_exists(whole))
        return check_whole(work, error);
    mn_status status =
        mn__file_exists(begun) ? check_begun(work, begun, error) : begin(work, begun, error);
    return status ? status : remove_leftovers(work, error);
}

/* ---- Reading documents -------------------------------------------------------- */

/* Gives `take` every chunk of a document; `done` counts stored bytes. */
static mn_status each_chunk(preparing *work, int64_t document, const char *what,
                            mn_status (*take)(preparing *work, void *to, int64_t bytes,
                                              mn_error *error),
                            void *to, mn_error *error)
{
    mn__document_reader *reader;
    int64_t got = 1, before = work->done;
    mn_status status = mn__document_reader_open(&reader, work->corpus, document,
                                                (mn__newlines)work->config->newlines, error);
    if (status)
        return status;
    while (!status && got > 0) {
        status = mn__document_reader_read(reader, work->chunk, CHUNK, &got, error);
        if (!status && got > 0)
            status = take(work, to, got, error);
        work->done = before + mn__document_reader_raw(reader);
        if (!status)
            status = report(work, what, error);
    }
    mn__document_reader_close(reader);
    return status;
}

/* ---- The tokenizer ------------------------------------------------------------ */

static const char *learned_kind(const mn__prepare_config *config)
{
    static const char *const kinds[] = {"characters", "words", "sentencepiece"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(config->tokenizer, kinds[i]) == 0)
            return kinds[i];
    return NULL;
}

static mn_status check_config(const mn__prepare_config *config, mn_error *error)
{
    bool trains = strcmp(config->tokenizer, "sentencepiece") == 0;
    if (config->out[0] == '\0')
        return mn__fail(error, MN_ERROR_OPTION, "set out: FOLDER", "the data set has no folder");
    if (config->data.count == 0)
        return mn__fail(error, MN_ERROR_OPTION, "set data: [TYPE=]PATH[@SPLIT]",
                        "there is nothing to prepare");
    if (trains && config->train_vocab == 0)
        return mn__fail(error, MN_ERROR_OPTION, "set train_vocab: 32000, or name a .model file",
                        "a SentencePiece vocabulary of what size?");
    if (!trains && config->train_vocab > 0)
        return mn__fail(error, MN_ERROR_OPTION, "set tokenizer: sentencepiece",
                        "train_vocab is for SentencePiece, the tokenizer is \"%s\"",
                        config->tokenizer);
    return MN_OK;
}

static mn_status learn_chunk(preparing *work, void *to, int64_t bytes, mn_error *error)
{
    return mn__tokenizer_builder_feed(to, work->chunk, bytes, error);
}

static mn_status learn_documents(preparing *work, mn__tokenizer_builder *builder, bool all,
                                 mn_error *error)
{
    int64_t learned = 0;
    mn_status status = MN_OK;
    for (int64_t i = 0; i < work->corpus->count && !status; i++) {
        const mn__corpus_document *document = &work->corpus->documents[i];
        if (!all && document->split != MN__SPLIT_TRAIN)
            continue;
        status = each_chunk(work, i, "learning the vocabulary", learn_chunk, builder, error);
        if (!status)
            status = mn__tokenizer_builder_end_document(builder, error);
        if (status)
            mn__error_prefix(error, "%s", document->name);
        learned++;
    }
    if (!status && learned == 0)
        status = mn__fail(error, MN_ERROR_OPTION, "set train_on: all, or name a tokenizer's folder",
                          "there is no training split to learn a vocabulary from");
    work->done = 0;
    return status;
}

static mn_status learn_tokenizer(preparing *work, mn_error *error)
{
    const mn__prepare_config *config = work->config;
    const char *kind = learned_kind(config);
    mn__tokenizer_builder *builder;
    mn__tokenizer_plan plan = {.vocab = config->train_vocab,
                               .unigram = config->train_model == 1,
                               .train_bytes = config->train_bytes};
    mn_status status = mn__tokenizer_builder_new(&builder, kind, plan, error);
    if (status)
        return status;
    bool all = config->train_on == 1 || strcmp(kind, "characters") == 0;
    status = learn_documents(work, builder, all, error);
    if (status) {
        mn__tokenizer_builder_free(builder);
        return status;
    }
    return mn__tokenizer_builder_end(builder, &work->tokenizer, error);
}

/* The tokenizer in the folder: of the interrupted run, or made now. */
static mn_status settle_tokenizer(preparing *work, mn_error *error)
{
    const char *out = work->config->out;
    mn__string path = {0};
    mn__string_printf(&path, "%s/tokenizer.json", out);
    mn_status status = path.failed ? fail_memory(work, error) : MN_OK;
    bool saved = !status && mn__file_exists(path.text);
    mn__string_free(&path);
    if (!status && !work->tokenizer)
        status =
            saved ? mn__tokenizer_load(&work->tokenizer, out, error) : learn_tokenizer(work, error);
    if (!status && !saved)
        status = mn__tokenizer_save(work->tokenizer, out, error);
    return status;
}

/* ---- Shards ------------------------------------------------------------------- */

static mn_status open_shard(preparing *work, mn_error *error)
{
    char *path = mn__shard_path(work->config->out, work->shard, "ids");
    work->hash = mn__hash_new();
    mn_status status =
        path && work->hash ? mn__writer_open(&work->writer, path, error) : fail_memory(work, error);
    mn__free(path);
    mn__string_clear(&work->lines);
    work->tokens = 0;
    return status;
}

/* First the ids, then the table that says that they are all there. */
static mn_status close_shard(preparing *work, mn_error *error)
{
    mn__string file = {0};
    mn__writer *writer = work->writer;
    work->writer = NULL;
    mn__hash_text ids = mn__hash_end(work->hash);
    work->hash = NULL;
    mn_status status = mn__writer_commit(writer, error);
    char *path = mn__shard_path(work->config->out, work->shard, "json");
    mn__shard_table_end(&file, &work->lines, ids);
    if (!status)
        status = !path || file.failed || work->lines.failed
                     ? fail_memory(work, error)
                     : mn__file_write(path, file.text, file.bytes, error);
    mn__free(path);
    mn__string_free(&file);
    work->shard++;
    return status;
}

static void pack(void *out, const int32_t *ids, int64_t count, int width)
{
    for (int64_t i = 0; i < count; i++)
        if (width == 1)
            ((uint8_t *)out)[i] = (uint8_t)ids[i];
        else if (width == 2)
            ((uint16_t *)out)[i] = (uint16_t)ids[i];
        else
            ((uint32_t *)out)[i] = (uint32_t)ids[i];
}

/* Writes the ids that the encoder has made, and forgets them. */
static mn_status write_ids(preparing *work, mn_error *error)
{
    int width = mn__shard_id_bytes(work->tokenizer->vocab);
    int64_t bytes = work->ids.count * width;
    mn__string_clear(&work->packed);
    if (!mn__string_reserve(&work->packed, bytes))
        return fail_memory(work, error);
    pack(work->packed.text, work->ids.id, work->ids.count, width);
    mn__writer_write(work->writer, work->packed.text, bytes);
    mn__hash_add(work->hash, work->packed.text, bytes);
    work->tokens += work->ids.count;
    mn__ids_clear(&work->ids);
    return MN_OK;
}

/* What is counted while a document is read. */
typedef struct counting {
    mn__dataset_document document;
    mn__utf8_counts counts;
    mn__hash *hash;
} counting;

static mn_status encode_chunk(preparing *work, void *to, int64_t bytes, mn_error *error)
{
    counting *count = to;
    count->document.bytes += bytes;
    mn__utf8_count(&count->counts, work->chunk, bytes);
    mn__hash_add(count->hash, work->chunk, bytes);
    mn_status status = mn__encoder_feed(&work->encoder, work->chunk, bytes, &work->ids, error);
    return status ? status : write_ids(work, error);
}

static mn_status encode_document(preparing *work, int64_t index, counting *count, mn_error *error)
{
    mn_status status = each_chunk(work, index, "tokenizing", encode_chunk, count, error);
    if (!status)
        status = mn__encoder_end(&work->encoder, &work->ids, error);
    if (status) {
        mn__error_prefix(error, "%s", count->document.name);
        return status;
    }
    mn__utf8_count_end(&count->counts);
    return write_ids(work, error);
}

static mn_status add_document(preparing *work, int64_t index, mn_error *error)
{
    const mn__corpus_document *from = &work->corpus->documents[index];
    counting count = {.hash = mn__hash_new()};
    mn__dataset_document *document = &count.document;
    int64_t tokens = work->tokens, done = work->done;
    document->name = from->name;
    document->title = from->title;
    document->split = from->split;
    if (!count.hash)
        return fail_memory(work, error);
    mn_status status = encode_document(work, index, &count, error);
    document->hash = mn__hash_end(count.hash);
    document->raw_bytes = work->done - done;
    document->characters = count.counts.characters;
    document->words = count.counts.words;
    document->tokens = work->tokens - tokens;
    work->result.empty_documents += document->tokens == 0;
    mn__shard_table_add(&work->lines, document);
    return status;
}

/* Finished shards of an interrupted run; *next: the first document after them. */
static mn_status keep_shards(preparing *work, int64_t *next, mn_error *error)
{
    mn_status status = MN_OK;
    for (*next = 0;; work->shard++) {
        mn__arena arena;
        mn__shard_table table;
        char *path = mn__shard_path(work->config->out, work->shard, "json");
        bool finished = path && mn__file_exists(path);
        mn__free(path);
        if (!path)
            return fail_memory(work, error);
        if (!finished)
            break;
        mn__arena_init(&arena, 1 << 16);
        status = mn__shard_table_read(&table, &arena, work->config->out, work->shard, error);
        for (int64_t i = 0; !status && i < table.count; i++) {
            work->done += table.documents[i].raw_bytes;
            work->result.empty_documents += table.documents[i].tokens == 0;
        }
        *next += table.count;
        mn__arena_free(&arena);
        if (status)
            return status;
    }
    work->result.kept_shards = work->shard;
    return status;
}

static mn_status write_shards(preparing *work, mn_error *error)
{
    int64_t next;
    mn_status status = keep_shards(work, &next, error);
    mn__encoder_begin(&work->encoder, work->tokenizer);
    for (int64_t i = next; i < work->corpus->count && !status; i++) {
        if (!work->writer)
            status = open_shard(work, error);
        if (!status)
            status = add_document(work, i, error);
        bool last = i == work->corpus->count - 1;
        if (!status && (last || work->tokens >= work->config->shard_tokens))
            status = close_shard(work, error);
    }
    return status;
}

/* ---- The end -------------------------------------------------------------------- */

static mn_status write_header(preparing *work, mn_error *error)
{
    mn__arena arena;
    mn__dataset_header header = {.newlines = (mn__newlines)work->config->newlines,
                                 .id_bytes = mn__shard_id_bytes(work->tokenizer->vocab),
                                 .settings = work->settings.hex,
                                 .shards = work->shard};
    int64_t tokens = 0;
    memcpy(header.published_words, work->corpus->published_words, sizeof header.published_words);
    mn__arena_init(&arena, 1 << 16);
    header.tables = mn__arena_calloc(&arena, work->shard, (int64_t)sizeof *header.tables);
    mn_status status = header.tables ? MN_OK : fail_memory(work, error);
    for (int64_t i = 0; i < work->shard && !status; i++) {
        mn__shard_table table;
        status = mn__shard_table_read(&table, &arena, work->config->out, i, error);
        header.tables[i] = table.table;
        tokens += table.tokens;
    }
    if (!status && tokens == 0)
        status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: every document is empty",
                          work->config->data.items[0]);
    if (!status)
        status = mn__dataset_header_write(&header, work->config->out, error);
    mn__arena_free(&arena);
    return status;
}

static mn_status open_inputs(preparing *work, mn_error *error)
{
    const mn__prepare_config *config = work->config;
    mn__corpus_options options = {
        .validation = config->validation, .test = config->test, .one = config->one};
    mn_status status =
        mn__corpus_open(&work->corpus, config->data.items, config->data.count, options, error);
    if (!status && !learned_kind(config))
        status = mn__tokenizer_load(&work->tokenizer, config->tokenizer, error);
    if (status)
        return status;
    work->total = mn__corpus_bytes(work->corpus);
    return hash_settings(work, error);
}

static mn_status run(preparing *work, const char *begun, const char *whole, mn_error *error)
{
    mn_status status = open_inputs(work, error);
    if (!status)
        status = enter_folder(work, begun, whole, error);
    if (status || work->result.already_whole)
        return status;
    status = settle_tokenizer(work, error);
    if (!status)
        status = write_shards(work, error);
    if (!status)
        status = write_header(work, error);
    return status ? status : mn__file_remove(begun, error);
}

static void finish(preparing *work)
{
    mn__writer_abort(work->writer);
    if (work->hash)
        mn__hash_end(work->hash);
    mn__string_free(&work->lines);
    mn__encoder_free(&work->encoder);
    mn__ids_free(&work->ids);
    mn__string_free(&work->packed);
    mn__free(work->chunk);
    mn__tokenizer_free(work->tokenizer);
    mn__corpus_close(work->corpus);
}

mn_status mn__prepare(const mn__prepare_config *config, const mn__progress *progress,
                      mn__prepare_result *result, mn_error *error)
{
    preparing work = {.config = config, .progress = progress};
    mn__string begun = {0}, whole = {0};
    mn_status status = check_config(config, error);
    if (status)
        return status;
    work.chunk = mn__malloc(CHUNK);
    mn__string_printf(&begun, "%s/prepare.json", config->out);
    mn__string_printf(&whole, "%s/dataset.json", config->out);
    status = work.chunk && !begun.failed && !whole.failed
                 ? run(&work, begun.text, whole.text, error)
                 : fail_memory(&work, error);
    if (result)
        *result = work.result;
    finish(&work);
    mn__string_free(&begun);
    mn__string_free(&whole);
    return status;
}
