/* Conversations. */
#include "eval/conversation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/evaluation.h"
#include "eval/overrides.h"
#include "eval/turn.h"
#include "model/pretrained.h"
#include "reader/limit.h"
#include "reader/session_file.h"

static mn_status no_memory(mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a conversation");
}

/* ---- Opening the model ------------------------------------------------------------------- */

static mn__weights weights_of(const mn__manner *manner)
{
    return manner->weights ? (mn__weights)manner->weights : MN__WEIGHTS_AUTO;
}

static mn_status open_run(mn__conversation *conversation, mn__device *device, mn_error *error)
{
    const mn__manner *manner = &conversation->manner;
    mn__string_list overrides;
    mn_status status = mn__overrides_make(&overrides, &conversation->arena, manner->model,
                                          &manner->set, manner->window, manner->stretch, error);
    const mn__dtype asked = manner->precision == 2 ? MN__BF16 : MN__F32;
    const mn__run_how how = {.overrides = overrides.items,
                             .override_count = overrides.count,
                             .weights = weights_of(manner),
                             .compute = manner->precision ? &asked : NULL};
    if (status == MN_OK)
        status = mn__run_open_as(&conversation->run, device, manner->model, &how, error);
    if (status != MN_OK)
        return status;
    status = mn__run_compute(&conversation->run, &conversation->compute, error);
    if (status == MN_OK)
        status = mn__decoder_keep(conversation->run.decoder, manner->cache, error);
    if (manner->precision)
        conversation->compute = asked;
    return status;
}

static mn_status open_chat(mn__conversation *conversation, mn_error *error)
{
    const mn__manner *manner = &conversation->manner;
    if (manner->raw || !mn__pretrained_is(manner->model))
        return MN_OK;
    mn_status status = mn__chat_open(&conversation->chat, manner->model, error);
    if (status != MN_OK) {
        conversation->chat = NULL;
        mn__error_hint(error, "--raw does without a chat template");
    }
    return status;
}

/* From the root. A file keeps its own name, which says what it is, where it is a link to one
 * that has another. */
static const char *whole_path(mn__arena *arena, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    bool folder = mn__file_is_folder(path);
    const char *start = folder ? path : mn__arena_printf(arena, "%.*s.", (int)(name - path), path);
    char *whole = start ? realpath(start, NULL) : NULL;
    const char *out = !start   ? NULL
                      : !whole ? mn__arena_strdup(arena, path)
                      : folder ? mn__arena_strdup(arena, whole)
                               : mn__arena_printf(arena, "%s/%s", whole, name);
    free(whole);
    return out;
}

/* Of the manner, all but the model's path is borrowed. */
static mn_status take_manner(mn__conversation *conversation, const mn__manner *manner,
                             mn_error *error)
{
    conversation->manner = *manner;
    conversation->manner.model = whole_path(&conversation->arena, manner->model);
    return conversation->manner.model ? MN_OK : no_memory(error);
}

static mn_status open_reading(mn__conversation *conversation, int64_t capacity, mn_error *error)
{
    const mn__reading_options options = {
        .capacity = capacity, .chunk = conversation->run.segment, .compute = conversation->compute};
    return mn__reading_open(&conversation->reading, conversation->run.decoder,
                            &conversation->run.params, &options, error);
}

static mn_status open_model(mn__conversation *conversation, mn__device *device, mn_error *error)
{
    mn_status status = open_run(conversation, device, error);
    return status == MN_OK ? open_chat(conversation, error) : status;
}

mn_status mn__conversation_open(mn__conversation *conversation, mn__device *device,
                                const mn__manner *manner, const char *path, mn_error *error)
{
    *conversation = (mn__conversation){.path = path};
    mn__arena_init(&conversation->arena, 1 << 12);
    mn_status status = take_manner(conversation, manner, error);
    if (status == MN_OK)
        status = open_model(conversation, device, error);
    if (status == MN_OK)
        status = open_reading(conversation, 1, error);
    if (status != MN_OK)
        mn__conversation_close(conversation);
    return status;
}

void mn__conversation_close(mn__conversation *conversation)
{
    mn__reading_close(&conversation->reading);
    mn__chat_free(conversation->chat);
    if (conversation->run.folder)
        mn__run_close(&conversation->run);
    mn__arena_free(&conversation->arena);
    *conversation = (mn__conversation){0};
}

/* ---- Files ------------------------------------------------------------------------------- */

static const char *const precisions[] = {"run", "f32", "bf16"};

/* What the file says beside the reading, as one JSON object. */
static json_t *describe(const mn__conversation *conversation)
{
    const mn__manner *manner = &conversation->manner;
    json_t *settings = json_array();
    for (int64_t i = 0; settings && i < manner->set.count; i++)
        if (json_array_append_new(settings, json_string(manner->set.items[i])) != 0) {
            json_decref(settings);
            settings = NULL;
        }
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "model", manner->model,
                     "set", settings, "precision", precisions[manner->precision], "weights",
                     mn__weights_name(weights_of(manner)), "cache", mn__kept_name(manner->cache),
                     "raw", conversation->chat == NULL, "window", (json_int_t)manner->window,
                     "stretch", (json_int_t)manner->stretch, "turns",
                     (json_int_t)conversation->turns, "planned", (json_int_t)conversation->planned);
}

mn_status mn__conversation_save(mn__conversation *conversation, mn_error *error)
{
    json_t *described = describe(conversation);
    char *text = described ? json_dumps(described, JSON_COMPACT) : NULL;
    json_decref(described);
    if (!text)
        return no_memory(error);
    const char *metadata[] = {"conversation", text, "tokenizer",
                              conversation->run.tokenizer->fingerprint.hex, NULL};
    const char *fingerprint = mn__run_fingerprint(&conversation->run, error);
    mn_status status = fingerprint ? mn__reading_save(&conversation->reading, conversation->path,
                                                      fingerprint, metadata, error)
                                   : MN_ERROR_MEMORY;
    free(text);
    if (status == MN_OK)
        status = mn__file_size(conversation->path, &conversation->saved_bytes, error);
    return status;
}

static mn_status read_settings(mn__conversation *conversation, mn__json array, mn_error *error)
{
    mn__string_list *list = &conversation->manner.set;
    int64_t count = (int64_t)json_array_size(array.value);
    const char **items = mn__arena_calloc(&conversation->arena, count + 1, sizeof *items);
    for (int64_t i = 0; items && i < count; i++) {
        const char *text = json_string_value(json_array_get(array.value, (size_t)i));
        if (!text)
            return mn__fail(error, MN_ERROR_FORMAT, "read the text again",
                            "%s: a setting is no text", array.file);
        if (!(items[i] = mn__arena_strdup(&conversation->arena, text)))
            return no_memory(error);
    }
    *list = (mn__string_list){.items = items, .count = count};
    return items ? MN_OK : no_memory(error);
}

static const char *precision_name(int precision)
{
    return precisions[precision];
}

static const char *kept_name(int kept)
{
    return mn__kept_name((mn__kept)kept);
}

static const char *weights_name(int weights)
{
    return mn__weights_name((mn__weights)weights);
}

/* One of first..last, by its name. */
static mn_status read_choice(mn__json object, const char *key, const char *(*name_of)(int),
                             int first, int last, int *choice, mn_error *error)
{
    const char *name;
    mn_status status = mn__json_string(object, key, MN__JSON_REQUIRED, &name, error);
    if (status != MN_OK)
        return status;
    for (*choice = first; *choice <= last; ++*choice)
        if (!strcmp(name_of(*choice), name))
            return MN_OK;
    return mn__fail(error, MN_ERROR_FORMAT, "read the text again", "%s: %s '%s'", object.file, key,
                    name);
}

static mn_status read_choices(mn__manner *manner, mn__json object, mn_error *error)
{
    int kept = MN__KEPT_AS_COMPUTED;
    mn_status status =
        read_choice(object, "precision", precision_name, 0, 2, &manner->precision, error);
    if (status == MN_OK)
        status = read_choice(object, "weights", weights_name, MN__WEIGHTS_F32, MN__WEIGHTS_AUTO,
                             &manner->weights, error);
    if (status == MN_OK)
        status = read_choice(object, "cache", kept_name, MN__KEPT_AS_COMPUTED, MN__KEPT_INT8, &kept,
                             error);
    if (status == MN_OK)
        manner->cache = (mn__kept)kept;
    return status;
}

/* The values stay the object's. */
static mn_status read_manner(mn__conversation *conversation, mn__json object, mn_error *error)
{
    mn__manner *manner = &conversation->manner;
    mn__json settings;
    mn_status status = mn__json_string(object, "model", MN__JSON_REQUIRED, &manner->model, error);
    if (status == MN_OK)
        status = mn__json_array(object, "set", MN__JSON_REQUIRED, &settings, error);
    if (status == MN_OK)
        status = read_settings(conversation, settings, error);
    if (status == MN_OK)
        status = read_choices(manner, object, error);
    if (status == MN_OK)
        status = mn__json_bool(object, "raw", MN__JSON_REQUIRED, &manner->raw, error);
    if (status == MN_OK)
        status = mn__json_int(object, "window", MN__JSON_REQUIRED, &manner->window, error);
    if (status == MN_OK)
        status = mn__json_int(object, "stretch", MN__JSON_REQUIRED, &manner->stretch, error);
    if (status == MN_OK)
        status = mn__json_int(object, "turns", MN__JSON_REQUIRED, &conversation->turns, error);
    if (status == MN_OK)
        status = mn__json_int(object, "planned", MN__JSON_REQUIRED, &conversation->planned, error);
    if (status == MN_OK && (manner->window < 0 || manner->stretch < 0 || conversation->turns < 0))
        status = mn__fail(error, MN_ERROR_FORMAT, "read the text again", "%s: a number is negative",
                          object.file);
    return status;
}

/* Into a reading with room for `room` tokens more, and `least` in all. */
static mn_status load_reading(mn__conversation *conversation, const mn__safetensors *file,
                              int64_t room, int64_t least, mn_error *error)
{
    int64_t tokens = mn__reading_file_tokens(file), most = mn__limit_of(&conversation->run);
    int64_t capacity = tokens + room < most ? tokens + room : tokens > most ? tokens : most;
    capacity = capacity > least ? capacity : least;
    mn_status status = mn__session_file_check_tokenizer(
        file, conversation->path, conversation->run.tokenizer->fingerprint.hex, error);
    if (status == MN_OK) {
        mn__reading_close(&conversation->reading);
        status = open_reading(conversation, capacity > 0 ? capacity : 1, error);
    }
    const char *fingerprint =
        status == MN_OK ? mn__run_fingerprint(&conversation->run, error) : NULL;
    if (status == MN_OK)
        status = fingerprint ? mn__reading_take(&conversation->reading, file, conversation->path,
                                                fingerprint, error)
                             : MN_ERROR_MEMORY;
    return status;
}

static mn_status parse_description(const mn__safetensors *file, const char *path, json_t **root,
                                   mn_error *error)
{
    const char *text = mn__safetensors_metadata(file, "conversation");
    if (!text)
        return mn__fail(error, MN_ERROR_FORMAT, "give a file that `mneme read` has written",
                        "%s holds a session, but no conversation", path);
    return mn__json_parse(path, text, (int64_t)strlen(text), root, error);
}

static mn_status load(mn__conversation *conversation, mn__device *device, const char *model,
                      int64_t room, const mn__safetensors *file, const json_t *root,
                      mn_error *error)
{
    mn__json object = {conversation->path, root};
    mn_status status = read_manner(conversation, object, error);
    mn__manner manner = conversation->manner;
    if (model)
        manner.model = model;
    if (status == MN_OK)
        status = take_manner(conversation, &manner, error);
    if (status == MN_OK)
        status = open_model(conversation, device, error);
    return status == MN_OK ? load_reading(conversation, file, room, 0, error) : status;
}

mn_status mn__conversation_load(mn__conversation *conversation, mn__device *device,
                                const char *path, const char *model, int64_t room, mn_error *error)
{
    mn__safetensors *file;
    json_t *root;
    *conversation = (mn__conversation){0};
    mn_status status = mn__session_file_open(&file, path, error);
    if (status != MN_OK)
        return status;
    status = parse_description(file, path, &root, error);
    if (status == MN_OK) {
        conversation->path = path;
        mn__arena_init(&conversation->arena, 1 << 12);
        status = load(conversation, device, model, room, file, root, error);
        json_decref(root);
        if (status != MN_OK)
            mn__conversation_close(conversation);
    }
    mn__safetensors_close(file);
    return status;
}

/* ---- Reading ----------------------------------------------------------------------------- */

static mn__turns turns_of(const mn__conversation *conversation)
{
    return (mn__turns){.chat = conversation->chat,
                       .tokenizer = conversation->run.tokenizer,
                       .before = &conversation->run.before};
}

/* What was read before of the same text; *turns: answers that follow it. */
static mn_status resume(mn__conversation *conversation, const mn__ids *text, int64_t *turns,
                        mn_error *error)
{
    mn__safetensors *file;
    json_t *root = NULL;
    mn_status status = mn__session_file_open(&file, conversation->path, error);
    if (status != MN_OK)
        return status;
    status = parse_description(file, conversation->path, &root, error);
    if (status == MN_OK)
        status = mn__json_int((mn__json){conversation->path, root}, "turns", MN__JSON_REQUIRED,
                              turns, error);
    if (status == MN_OK)
        status = load_reading(conversation, file, 0, text->count, error);
    json_decref(root);
    mn__safetensors_close(file);
    if (status != MN_OK)
        return status;
    const mn__ids *old = &conversation->reading.ids;
    int64_t least = old->count < text->count ? old->count : text->count;
    if (least == 0 || !memcmp(old->id, text->id, (size_t)least * sizeof *old->id))
        return MN_OK;
    return mn__fail(
        error, MN_ERROR_MISMATCH, "name another session, or let it begin anew with --replace",
        "%s holds another text, or this one as it was before it changed", conversation->path);
}

/* Progress that saves on its way. */
struct saving {
    mn__conversation *conversation;
    const mn__progress *progress;
    double every, last;
    mn_status status;
    mn_error error;
};

static bool report_and_save(void *user, const char *what, int64_t done, int64_t total,
                            const char *note)
{
    struct saving *saving = user;
    if (saving->every > 0 && mn__clock() - saving->last >= saving->every) {
        saving->status = mn__conversation_save(saving->conversation, &saving->error);
        saving->last = mn__clock();
    }
    return saving->status == MN_OK &&
           mn__progress_report(saving->progress, what, done, total, note);
}

static mn_status read_on(mn__conversation *conversation, const mn__ids *text, int64_t save_seconds,
                         const mn__progress *progress, mn__sync *sync, mn_error *error)
{
    struct saving saving = {.conversation = conversation,
                            .progress = progress,
                            .every = (double)save_seconds,
                            .last = mn__clock()};
    const mn__progress own = {.report = report_and_save, .user = &saving};
    mn__reading *reading = &conversation->reading;
    conversation->planned = text->count;
    mn_status status = mn__reading_reserve(reading, text->count - reading->ids.count, error);
    if (status == MN_OK)
        status = mn__reading_sync(reading, text->id, text->count, "reading", &own, sync, error);
    if (saving.status != MN_OK) {
        if (error)
            *error = saving.error;
        return saving.status;
    }
    if (status != MN_OK && status != MN_ERROR_INTERRUPTED)
        return status;
    mn_error stopped = error ? *error : (mn_error){0};
    mn_status saved = mn__conversation_save(conversation, error);
    if (saved != MN_OK)
        return saved;
    if (status != MN_OK && error) {
        *error = stopped;
        snprintf(error->hint, sizeof error->hint,
                 "what was read is in %.300s: the same command goes on", conversation->path);
    }
    return status;
}

static mn_status read_text(mn__conversation *conversation, const mn__ids *text, bool anew,
                           int64_t save_seconds, const mn__progress *progress, mn__sync *sync,
                           mn_error *error)
{
    int64_t turns = 0;
    mn_status status =
        mn__limit_check(&conversation->run, "the text", text->count, conversation->compute, error);
    if (status == MN_OK && !anew && mn__file_exists(conversation->path))
        status = resume(conversation, text, &turns, error);
    if (status != MN_OK)
        return status;
    int64_t old = conversation->reading.ids.count;
    if (old >= text->count) { /* and answers after it: all stays */
        *sync = (mn__sync){.how = MN__EXTENDED, .reused = text->count};
        return mn__file_size(conversation->path, &conversation->saved_bytes, error);
    }
    if (turns)
        return mn__fail(error, MN_ERROR_MISMATCH, "let it begin anew with --replace",
                        "%s already holds answers about a part of this text", conversation->path);
    return read_on(conversation, text, save_seconds, progress, sync, error);
}

mn_status mn__conversation_read(mn__conversation *conversation, const char *text, int64_t bytes,
                                bool anew, int64_t save_seconds, const mn__progress *progress,
                                mn__read_report *report, mn_error *error)
{
    mn__ids ids = {0};
    double begin = mn__clock();
    const mn__turns turns = turns_of(conversation);
    *report = (mn__read_report){0};
    mn_status status = mn__turn_text(&turns, text, bytes, &ids, error);
    report->tokens = ids.count;
    if (status == MN_OK)
        status = read_text(conversation, &ids, anew, save_seconds, progress, &report->sync, error);
    report->seconds = mn__clock() - begin;
    mn__ids_free(&ids);
    return status;
}

/* ---- Asking ------------------------------------------------------------------------------ */

/* All that was read, and the question. */
static mn_status make_question(const mn__conversation *conversation, const char *question,
                               mn__ids *ids, mn_error *error)
{
    const mn__ids *read = &conversation->reading.ids;
    mn__turn_place place = read->count == 0           ? MN__TURN_ALONE
                           : conversation->turns == 0 ? MN__TURN_FIRST
                                                      : MN__TURN_LATER;
    if (read->count) {
        int32_t *own = mn__ids_extend(ids, read->count);
        if (!own)
            return no_memory(error);
        memcpy(own, read->id, (size_t)read->count * sizeof *own);
    }
    const mn__turns turns = turns_of(conversation);
    return mn__turn_question(&turns, place, question, (int64_t)strlen(question), ids, error);
}

static mn_status answer_question(mn__conversation *conversation, const mn__ids *ids,
                                 const mn__generate_config *config, mn__answer *answer,
                                 mn_error *error)
{
    mn__reading *reading = &conversation->reading;
    mn_status status = mn__limit_check(&conversation->run, "the text with question and answer",
                                       ids->count + config->tokens, conversation->compute, error);
    if (status == MN_OK)
        status =
            mn__reading_reserve(reading, ids->count + config->tokens - reading->ids.count, error);
    double begin = mn__clock();
    if (status == MN_OK)
        status = mn__reading_sync(reading, ids->id, ids->count, "reading the question", NULL,
                                  &answer->sync, error);
    answer->question_seconds = mn__clock() - begin;
    if (status != MN_OK)
        return status;
    conversation->turns++;
    return mn__generate_within(&conversation->run, reading, config, &answer->generated, error);
}

mn_status mn__conversation_ask(mn__conversation *conversation, const char *question,
                               const mn__generate_config *config, mn__answer *answer,
                               mn_error *error)
{
    mn__ids ids = {0};
    mn__generate_config own = *config;
    *answer = (mn__answer){.generated.unread = -1};
    own.prompt_bytes = 1; /* something stands before the answer */
    own.hide_special = conversation->chat;
    mn_status status = make_question(conversation, question, &ids, error);
    if (status == MN_OK)
        status = answer_question(conversation, &ids, &own, answer, error);
    mn__ids_free(&ids);
    return status;
}
