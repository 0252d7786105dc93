/* mneme chat: questions and answers, one after the other (eval/conversation.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/threads.h"
#include "cli/talk.h"
#include "cli/terminal.h"

typedef struct chat_options {
    mn__talk talk; /* first */
    const char *model, *session;
    mn__string_list set;
    int64_t window, stretch;
    int precision;
    int weights; /* mn__weights; 0: auto */
    int cache;   /* mn__kept */
    bool raw;
} chat_options;

#define OPTIONS chat_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, model, "", "a pretrained model's folder or GGUF file, or a run's folder"),
    MN__STRING(OPTIONS, session, "",
               "go on from this file, and save to it at the end; it may be new"),
    MN__BOOL(OPTIONS, raw, "false", "a new session: without the model's chat template"),
    MN__INT(OPTIONS, window, "0", 0, 1e9, "a new session: a token sees so many before it"),
    MN__INT(OPTIONS, stretch, "0", 0, 1e9, "a new session: positions scaled to so many tokens"),
    MN__LIST(OPTIONS, set, "", "a new session: a.b=c, otherwise than it was trained"),
    MN__ENUM(OPTIONS, precision, "run", "run|f32|bf16", "a new session: of products"),
    MN__ENUM(OPTIONS, weights, "auto", "auto|f32|f16|bf16|int8|int4",
             "a new session: kept so; auto: of a pretrained model as products are"),
    MN__ENUM(OPTIONS, cache, "auto", "auto|f32|bf16|int8",
             "a new session: keys and values are kept so; auto: as products are"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {own, mn__talk_options, NULL};

/* Where each turn began, for /undo. */
struct turns {
    int64_t *began;
    int64_t count, capacity;
};

static mn_status remember(struct turns *turns, int64_t tokens, mn_error *error)
{
    if (turns->count == turns->capacity) {
        int64_t capacity = 2 * turns->capacity + 16;
        int64_t *began = realloc(turns->began, (size_t)capacity * sizeof *began);
        if (!began)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a turn");
        turns->began = began;
        turns->capacity = capacity;
    }
    turns->began[turns->count++] = tokens;
    return MN_OK;
}

static mn_status undo(mn__conversation *conversation, struct turns *turns, mn_error *error)
{
    if (turns->count == 0) {
        fprintf(stderr, "nothing was asked in this chat\n");
        return MN_OK;
    }
    mn__sync sync;
    mn_status status =
        mn__reading_rewind(&conversation->reading, turns->began[--turns->count], &sync, error);
    if (status != MN_OK)
        return status;
    conversation->turns--;
    fprintf(stderr, "the last question is forgotten: dropped %lld tokens, read %lld again\n",
            (long long)sync.dropped, (long long)sync.read);
    return MN_OK;
}

static mn_status take_line(const chat_options *options, mn__conversation *conversation,
                           struct turns *turns, const char *line, bool *more, mn_error *error)
{
    if (!strcmp(line, "/quit"))
        *more = false;
    else if (!strcmp(line, "/undo"))
        return undo(conversation, turns, error);
    else if (*line == '/')
        fprintf(stderr, "/undo forgets the last question and its answer, /quit ends\n");
    if (!*line || *line == '/')
        return MN_OK;
    mn__talk_out out = {0};
    mn__answer answer;
    mn_status status = remember(turns, conversation->reading.ids.count, error);
    if (status == MN_OK)
        status = mn__talk_ask(&options->talk, conversation, line, &out, &answer, error);
    if (status == MN_OK)
        mn__talk_report(&answer);
    return status;
}

/* Lines to the end of standard input, to /quit, or to Ctrl-C. */
static mn_status talk(const chat_options *options, mn__conversation *conversation, mn_error *error)
{
    struct turns turns = {0};
    char *line = NULL;
    size_t capacity = 0;
    bool more = true, prompts = isatty(STDIN_FILENO) == 1;
    mn_status status = MN_OK;
    while (more && status == MN_OK && !mn__terminal_stopped()) {
        if (prompts)
            fprintf(stderr, "> ");
        ssize_t bytes = getline(&line, &capacity, stdin);
        if (bytes < 0)
            break;
        if (bytes > 0 && line[bytes - 1] == '\n')
            line[bytes - 1] = '\0';
        status = take_line(options, conversation, &turns, line, &more, error);
    }
    free(line);
    free(turns.began);
    return status == MN_ERROR_INTERRUPTED ? MN_OK : status;
}

static mn_status open_conversation(const chat_options *options, mn__device *device,
                                   mn__conversation *conversation, mn_error *error)
{
    const char *path = *options->session ? options->session : NULL;
    const mn__manner manner = {.model = options->model,
                               .set = options->set,
                               .precision = options->precision,
                               .weights = options->weights,
                               .cache = (mn__kept)options->cache,
                               .raw = options->raw,
                               .window = options->window,
                               .stretch = options->stretch};
    if (path && mn__file_exists(path))
        return mn__conversation_load(conversation, device, path,
                                     *options->model ? options->model : NULL,
                                     mn__talk_room(&options->talk, ""), error);
    return mn__conversation_open(conversation, device, &manner, path, error);
}

static mn_status run(mn__call *call, mn_error *error)
{
    const chat_options *options = call->options;
    bool old = *options->session && mn__file_exists(options->session);
    if (!*options->model && !old)
        return mn__fail(error, MN_ERROR_USAGE, "mneme chat --model FOLDER [--session FILE]",
                        "say which model answers: --model");
    if (old && (options->raw || options->window || options->stretch || options->set.count ||
                options->precision || options->weights || options->cache))
        return mn__fail(error, MN_ERROR_USAGE, "leave these options out",
                        "%s says itself how its model is opened", options->session);
    mn__device device;
    mn__conversation conversation;
    mn__threads_set((int)options->talk.threads);
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = open_conversation(options, &device, &conversation, error);
    if (status == MN_OK) {
        mn__talk_warn(&conversation);
        status = talk(options, &conversation, error);
        mn_status saved = conversation.path && conversation.turns
                              ? mn__conversation_save(&conversation, status ? NULL : error)
                              : MN_OK;
        status = status == MN_OK ? saved : status;
        mn__conversation_close(&conversation);
    }
    mn__device_close(&device);
    return status;
}

const mn__verb mn__verb_chat = {
    .name = "chat",
    .operands = "",
    .least = 0,
    .most = 0,
    .summary = "talk with a model, about a session's text or without one",
    .details = "Each line is a question. /undo forgets the last one and its answer; /quit, the\n"
               "end of the input or Ctrl-C ends. With --session, all of it is kept.\n\n"
               "  mneme chat --model Llama-3.2-1B-Instruct\n"
               "  mneme chat --session book.mns",
    .tables = tables,
    .options_bytes = sizeof(chat_options),
    .run = run,
};
