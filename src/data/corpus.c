/* Corpora: names, the list of documents, and splits for those that have none. */
#include "data/corpus.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "data/corpus_types.h"
#include "data/document.h"
#include "data/source.h"

/* In the order in which a path is tried. */
const mn__corpus_type *const mn__corpus_types[] = {
    &mn__corpus_enwik,
    &mn__corpus_wikitext,
    &mn__corpus_text,
    &mn__corpus_pg19,
    &mn__corpus_folder,
    &mn__corpus_tree,
    NULL,
};

static const char *const split_names[MN__SPLITS] = {"train", "validation", "test"};

const char *mn__split_name(mn__split split)
{
    assert(split < MN__SPLITS);
    return split_names[split];
}

bool mn__split_named(const char *name, mn__split *split)
{
    if (strcmp(name, "valid") == 0)
        name = split_names[MN__SPLIT_VALIDATION];
    for (int i = 0; i < MN__SPLITS; i++)
        if (strcmp(name, split_names[i]) == 0) {
            *split = (mn__split)i;
            return true;
        }
    return false;
}

const char *mn__corpus_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

bool mn__corpus_ends_in(const char *text, const char *ending)
{
    size_t bytes = strlen(text), tail = strlen(ending);
    return bytes >= tail && strcmp(text + bytes - tail, ending) == 0;
}

static mn_status fail_memory(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", path);
}

/* ---- The list ------------------------------------------------------------- */

/* Room for one more element; the array, moved or not, or NULL. */
static void *grow(void *array, int64_t count, int64_t *capacity, int64_t each)
{
    if (count < *capacity)
        return array;
    int64_t more = 2 * *capacity + 64;
    void *moved = mn__realloc(array, mn__size_product(more, each));
    if (moved)
        *capacity = more;
    return moved;
}

mn_status mn__corpus_add_document(mn__corpus *corpus, const char *name, const char *title,
                                  mn__split split, mn_error *error)
{
    mn__corpus_document *moved =
        grow(corpus->documents, corpus->count, &corpus->capacity, (int64_t)sizeof *moved);
    const char *own_name = mn__arena_strdup(&corpus->arena, name);
    const char *own_title = mn__arena_strdup(&corpus->arena, title);
    if (moved)
        corpus->documents = moved;
    if (!moved || !own_name || !own_title)
        return fail_memory(name, error);
    corpus->documents[corpus->count++] = (mn__corpus_document){
        .name = own_name, .title = own_title, .split = split, .first_part = corpus->part_count};
    return MN_OK;
}

static mn_status push_part(mn__corpus *corpus, mn__corpus_part part, mn_error *error)
{
    assert(corpus->count > 0);
    mn__corpus_document *document = &corpus->documents[corpus->count - 1];
    mn__corpus_part *moved =
        grow(corpus->parts, corpus->part_count, &corpus->part_capacity, (int64_t)sizeof *moved);
    const char *own_path = mn__arena_strdup(&corpus->arena, part.path);
    if (moved)
        corpus->parts = moved;
    if (!moved || !own_path)
        return fail_memory(part.path, error);
    part.path = own_path;
    corpus->parts[corpus->part_count++] = part;
    document->parts++;
    document->bytes = part.bytes < 0 || document->bytes < 0 ? -1 : document->bytes + part.bytes;
    return MN_OK;
}

mn_status mn__corpus_add_part(mn__corpus *corpus, const char *path, int64_t offset, int64_t bytes,
                              mn_error *error)
{
    mn_status status = MN_OK;
    if (bytes < 0 && !mn__source_is_compressed(path)) {
        status = mn__file_size(path, &bytes, error);
        bytes -= offset;
    }
    const mn__corpus_part part = {.path = path, .offset = offset, .bytes = bytes};
    return status ? status : push_part(corpus, part, error);
}

mn_status mn__corpus_add_file(mn__corpus *corpus, const char *path, mn_error *error)
{
    mn__document_kind kind = MN__DOCUMENT_TEXT;
    mn_status status = MN_OK;
    if (!mn__source_is_compressed(path))
        status = mn__document_recognise(path, &kind, error);
    if (!status && kind == MN__DOCUMENT_TEXT)
        return mn__corpus_add_part(corpus, path, 0, -1, error);
    if (!status)
        status = mn__document_readable(path, kind, error);
    const mn__corpus_part part = {.path = path, .bytes = -1, .converted = true};
    return status ? status : push_part(corpus, part, error);
}

int64_t mn__corpus_bytes(const mn__corpus *corpus)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < corpus->count; i++) {
        if (corpus->documents[i].bytes < 0)
            return -1;
        bytes += corpus->documents[i].bytes;
    }
    return bytes;
}

/* ---- Splits ----------------------------------------------------------------- */

/* The first line's end at or after `offset`. */
static mn_status next_line_end(const mn__corpus_part *whole, int64_t *offset, mn_error *error)
{
    mn__source *source;
    mn__string line = {0};
    mn_status status = whole->converted
                           ? mn__source_open_document(&source, whole->path, *offset, -1, error)
                           : mn__source_open(&source, whole->path, *offset, -1, error);
    if (status)
        return status;
    status = mn__source_line(source, &line, error);
    *offset += line.bytes;
    mn__string_free(&line);
    mn__source_close(source);
    return status;
}

/* The piece of a document, one file, that a split gets. */
static mn_status add_piece(mn__corpus *corpus, const mn__corpus_document *whole,
                           mn__corpus_part piece, mn__split split, mn_error *error)
{
    const char *name = mn__arena_printf(&corpus->arena, "%s/%s", whole->name, split_names[split]);
    if (!name)
        return fail_memory(piece.path, error);
    mn_status status = mn__corpus_add_document(corpus, name, whole->title, split, error);
    return status ? status : push_part(corpus, piece, error);
}

/* The last document, one file, becomes up to three: train, validation, test. */
static mn_status cut_document(mn__corpus *corpus, mn_error *error)
{
    mn__corpus_document whole = corpus->documents[corpus->count - 1];
    mn__corpus_part part = corpus->parts[whole.first_part];
    int64_t bytes;
    mn_status status = part.converted ? mn__source_document_size(part.path, &bytes, error)
                                      : mn__source_size(part.path, &bytes, error);
    if (status)
        return status;
    double train = 1 - corpus->options.validation - corpus->options.test;
    int64_t ends[MN__SPLITS + 1] = {0, llround(train * (double)bytes),
                                    llround((train + corpus->options.validation) * (double)bytes),
                                    bytes};
    for (int i = 1; i < MN__SPLITS && !status; i++)
        if (ends[i] > 0 && ends[i] < bytes)
            status = next_line_end(&part, &ends[i], error);
    corpus->count--;
    corpus->part_count--;
    for (int i = 0; i < MN__SPLITS && !status; i++) {
        part.offset = ends[i];
        part.bytes = ends[i + 1] - ends[i];
        if (part.bytes != 0)
            status = add_piece(corpus, &whole, part, (mn__split)i, error);
    }
    return status;
}

/* Every so-many-th document: the i-th where the share's running sum passes a
 * whole number, so that they are spread evenly and do not depend on chance. */
static bool is_drawn(int64_t i, double share)
{
    return floor((double)(i + 1) * share) > floor((double)i * share);
}

static void share_out(mn__corpus *corpus, int64_t first)
{
    double validation = corpus->options.validation, test = corpus->options.test;
    int64_t left = 0;
    for (int64_t i = first; i < corpus->count; i++) {
        mn__corpus_document *document = &corpus->documents[i];
        if (is_drawn(i - first, validation))
            document->split = MN__SPLIT_VALIDATION;
        else if (is_drawn(left++, test / (1 - validation)))
            document->split = MN__SPLIT_TEST;
    }
}

static mn_status split_documents(mn__corpus *corpus, int64_t first, const char *path,
                                 mn_error *error)
{
    if (corpus->options.validation <= 0 && corpus->options.test <= 0)
        return MN_OK;
    if (corpus->count - first > 1) {
        share_out(corpus, first);
        return MN_OK;
    }
    if (corpus->documents[first].parts > 1)
        return mn__fail(error, MN_ERROR_OPTION, "leave out `one`, or name the splits by @SPLIT",
                        "%s: one document of many files is not cut into splits", path);
    return cut_document(corpus, error);
}

/* ---- Opening ---------------------------------------------------------------- */

typedef struct corpus_name {
    const mn__corpus_type *type;
    char *path;
    bool has_split;
    mn__split split;
} corpus_name;

/* "type" of "type=path"; NULL where the name begins with no known type. */
static const mn__corpus_type *named_type(const char *name, int64_t *bytes)
{
    const char *equals = strchr(name, '=');
    *bytes = equals ? equals - name : 0;
    for (int i = 0; equals && mn__corpus_types[i]; i++)
        if (strlen(mn__corpus_types[i]->name) == (size_t)*bytes &&
            strncmp(mn__corpus_types[i]->name, name, (size_t)*bytes) == 0)
            return mn__corpus_types[i];
    return NULL;
}

static mn_status recognise(corpus_name *name, mn_error *error)
{
    if (!mn__file_exists(name->path))
        return mn__fail_errno(error, "a corpus is named by [TYPE=]PATH[@SPLIT]", "%s", name->path);
    for (int i = 0; !name->type && mn__corpus_types[i]; i++) {
        bool yes = false;
        mn_status status = mn__corpus_types[i]->recognise(name->path, &yes, error);
        if (status)
            return status;
        if (yes)
            name->type = mn__corpus_types[i];
    }
    if (!name->type)
        return mn__fail(error, MN_ERROR_OPTION, "say which: TYPE=PATH",
                        "%s: it is not clear what kind of corpus this is", name->path);
    return MN_OK;
}

static mn_status parse_name(mn__arena *arena, const char *text, corpus_name *name, mn_error *error)
{
    int64_t bytes;
    *name = (corpus_name){.type = named_type(text, &bytes)};
    name->path = mn__arena_strdup(arena, name->type ? text + bytes + 1 : text);
    if (!name->path)
        return fail_memory(text, error);
    char *at = strrchr(name->path, '@');
    name->has_split = at && mn__split_named(at + 1, &name->split);
    if (name->has_split)
        *at = '\0';
    for (size_t end = strlen(name->path); end > 1 && name->path[end - 1] == '/';)
        name->path[--end] = '\0';
    return recognise(name, error);
}

/* Of a corpus with splits of its own that one alone: test books do not become
 * training books, nor the other way round. */
static mn_status keep_split(mn__corpus *corpus, int64_t first, const corpus_name *name,
                            mn_error *error)
{
    int64_t kept = first;
    for (int64_t i = first; i < corpus->count; i++)
        if (corpus->documents[i].split == name->split)
            corpus->documents[kept++] = corpus->documents[i];
    corpus->count = kept;
    if (kept == first)
        return mn__fail(error, MN_ERROR_OPTION, "leave out @SPLIT, or name one that it has",
                        "%s: no documents in its %s split", name->path,
                        mn__split_name(name->split));
    return MN_OK;
}

static mn_status add_corpus(mn__corpus *corpus, const char *text, mn_error *error)
{
    corpus_name name;
    int64_t first = corpus->count;
    mn_status status = parse_name(&corpus->arena, text, &name, error);
    if (!status)
        status = name.type->list(corpus, name.path, error);
    if (!status && !name.type->has_splits && !name.has_split)
        status = split_documents(corpus, first, name.path, error);
    if (status || !name.has_split)
        return status;
    if (name.type->has_splits)
        return keep_split(corpus, first, &name, error);
    for (int64_t i = first; i < corpus->count; i++)
        corpus->documents[i].split = name.split;
    return MN_OK;
}

/* A published count is of that corpus alone. */
static void check_published(mn__corpus *corpus, int64_t names)
{
    if (names > 1)
        memset(corpus->published_words, 0, sizeof corpus->published_words);
}

mn_status mn__corpus_open(mn__corpus **out, const char *const *names, int64_t count,
                          mn__corpus_options options, mn_error *error)
{
    double held_out = options.validation + options.test;
    if (!(options.validation >= 0 && options.test >= 0 && held_out < 1))
        return mn__fail(error, MN_ERROR_OPTION, NULL,
                        "shares of %g for validation and %g for test leave nothing to train on",
                        options.validation, options.test);
    mn__corpus *corpus = mn__calloc(1, sizeof *corpus);
    if (!corpus)
        return fail_memory("a corpus", error);
    mn__arena_init(&corpus->arena, 1 << 16);
    corpus->options = options;
    mn_status status = MN_OK;
    for (int64_t i = 0; i < count && !status; i++)
        status = add_corpus(corpus, names[i], error);
    if (!status && corpus->count == 0)
        status = mn__fail(error, MN_ERROR_OPTION, "name one: [TYPE=]PATH[@SPLIT]",
                          "there is no corpus to read");
    check_published(corpus, count);
    if (status)
        mn__corpus_close(corpus);
    else
        *out = corpus;
    return status;
}

void mn__corpus_close(mn__corpus *corpus)
{
    if (!corpus)
        return;
    mn__free(corpus->documents);
    mn__free(corpus->parts);
    mn__arena_free(&corpus->arena);
    mn__free(corpus);
}
