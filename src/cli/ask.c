/* mneme ask: a question about what a session has read (eval/conversation.h). */
#include <stdio.h>

#include "base/threads.h"
#include "cli/table.h"
#include "cli/talk.h"

typedef struct ask_options {
    mn__talk talk; /* first */
    const char *session, *model;
    bool keep, json;
} ask_options;

#define OPTIONS ask_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, session, "", "the file that `mneme read` has written"),
    MN__STRING(OPTIONS, model, "", "the model's folder, where it has moved"),
    MN__BOOL(OPTIONS, keep, "false", "add the question and its answer to the session"),
    MN__BOOL(OPTIONS, json, "false", "print one JSON object when it is done"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {own, mn__talk_options, NULL};

static mn_status print_json(mn__conversation *conversation, const mn__answer *answer,
                            const char *question, const mn__string *text, bool kept,
                            mn_error *error)
{
    const mn__generated *generated = &answer->generated;
    const mn__sync *sync = &answer->sync;
    return mn__table_json(
        json_pack("{s:s, s:s, s:s, s:s%, s:I, s:I, s:I, s:I, s:s?, s:b, s:b, s:f, s:f}", "session",
                  conversation->path, "model", mn__run_fingerprint(&conversation->run, error),
                  "question", question, "answer", text->text ? text->text : "", (size_t)text->bytes,
                  "reused", (json_int_t)sync->reused, "read", (json_int_t)sync->read, "dropped",
                  (json_int_t)sync->dropped, "tokens", (json_int_t)generated->tokens, "stopped_by",
                  generated->stopped_by, "ended", generated->ended, "kept", kept,
                  "question_seconds", answer->question_seconds, "seconds", generated->seconds),
        error);
}

static mn_status ask(const mn__call *call, mn__conversation *conversation, mn_error *error)
{
    const ask_options *options = call->options;
    mn__string text = {0};
    mn__talk_out out = {.text = options->json ? &text : NULL};
    mn__answer answer;
    const char *question = call->operands[0];
    mn_status status = mn__talk_ask(&options->talk, conversation, question, &out, &answer, error);
    if (status == MN_OK && options->keep)
        status = mn__conversation_save(conversation, error);
    if (status == MN_OK && text.failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for an answer");
    if (status == MN_OK && options->json)
        status = print_json(conversation, &answer, question, &text, options->keep, error);
    else if (status == MN_OK)
        mn__talk_report(&answer);
    mn__string_free(&text);
    return status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const ask_options *options = call->options;
    if (!*options->session || !*call->operands[0])
        return mn__fail(error, MN_ERROR_USAGE, "mneme ask --session FILE QUESTION",
                        *options->session ? "the question is empty"
                                          : "say which session is asked: --session");
    mn__device device;
    mn__conversation conversation;
    mn__threads_set((int)options->talk.threads);
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__conversation_load(&conversation, &device, options->session,
                                   *options->model ? options->model : NULL,
                                   mn__talk_room(&options->talk, call->operands[0]), error);
    if (status == MN_OK) {
        mn__talk_warn(&conversation);
        status = ask(call, &conversation, error);
        mn__conversation_close(&conversation);
    }
    mn__device_close(&device);
    return status;
}

const mn__verb mn__verb_ask = {
    .name = "ask",
    .operands = "QUESTION",
    .least = 1,
    .most = 1,
    .summary = "ask a session about what it has read",
    .details = "Opens the model that read the text, reads the question after it, and prints the\n"
               "answer as it comes. The session stays as it was, so that each question is the\n"
               "first; --keep makes it a conversation.\n\n"
               "  mneme ask --session book.mns 'Who is the lodger?'",
    .tables = tables,
    .options_bytes = sizeof(ask_options),
    .run = run,
};
