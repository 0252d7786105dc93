/* Turns of a conversation. */
#include "eval/turn.h"

#include <string.h>
#include <time.h>

/* Stand where messages will. */
static const char answer_mark[] = "[mneme-answer]", question_mark[] = "[mneme-question]";

static mn_status encode(const mn__tokenizer *tokenizer, const mn__string *text, mn__ids *ids,
                        mn_error *error)
{
    if (text->failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a text");
    mn_status status =
        text->bytes ? mn__tokenizer_encode(tokenizer, text->text, text->bytes, ids, error) : MN_OK;
    if (status == MN_OK && ids->failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a text's tokens");
    return status;
}

/* A template's text of marks: what stands before the last message's, and after it. */
struct frame {
    mn__string text;
    const char *before, *after;
    int64_t before_bytes;
};

/* later: an answer was given, and `before` begins after it. */
static mn_status make_frame(const mn__chat *chat, bool later, struct frame *frame, mn_error *error)
{
    json_t *messages = later ? json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "role", "user",
                                         "content", "text", "role", "assistant", "content",
                                         answer_mark, "role", "user", "content", question_mark)
                             : json_pack("[{s:s, s:s}]", "role", "user", "content", question_mark);
    *frame = (struct frame){0};
    if (!messages)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a conversation");
    const mn__chat_request request = {
        .messages = messages, .answer = true, .now = (int64_t)time(NULL)};
    mn_status status = mn__chat_render(chat, &request, &frame->text, error);
    json_decref(messages);
    if (status != MN_OK) {
        mn__error_hint(error, "--raw does without the template");
        return status;
    }
    const char *answer = later && frame->text.text ? strstr(frame->text.text, answer_mark) : NULL;
    frame->before = answer ? answer + sizeof answer_mark - 1 : frame->text.text;
    const char *question = frame->before ? strstr(frame->before, question_mark) : NULL;
    if (!question || (later && !answer))
        return mn__fail(error, MN_ERROR_UNSUPPORTED, "--raw does without the template",
                        "the model's chat template does not show messages as they are");
    frame->before_bytes = question - frame->before;
    frame->after = question + sizeof question_mark - 1;
    return MN_OK;
}

static void add_before(const mn__turns *turns, mn__ids *ids)
{
    for (int64_t i = 0; i < turns->before->count; i++)
        mn__ids_add(ids, turns->before->id[i]);
}

mn_status mn__turn_text(const mn__turns *turns, const char *text, int64_t bytes, mn__ids *ids,
                        mn_error *error)
{
    const mn__chat *chat = turns->chat;
    mn__string whole = {0};
    struct frame frame = {0};
    mn_status status = chat ? make_frame(chat, false, &frame, error) : MN_OK;
    if (status == MN_OK) {
        if (!chat)
            add_before(turns, ids);
        mn__string_add(&whole, frame.before, frame.before_bytes);
        mn__string_add(&whole, text, bytes);
        mn__string_puts(&whole, chat ? "\n\n" : "");
        status = encode(turns->tokenizer, &whole, ids, error);
    }
    mn__string_free(&whole);
    mn__string_free(&frame.text);
    return status;
}

mn_status mn__turn_question(const mn__turns *turns, mn__turn_place place, const char *question,
                            int64_t bytes, mn__ids *ids, mn_error *error)
{
    const mn__chat *chat = turns->chat;
    mn__string whole = {0};
    struct frame frame = {0};
    mn_status status = chat ? make_frame(chat, place == MN__TURN_LATER, &frame, error) : MN_OK;
    if (status == MN_OK) {
        if (!chat && place == MN__TURN_ALONE)
            add_before(turns, ids);
        if (chat && place != MN__TURN_FIRST)
            mn__string_add(&whole, frame.before, frame.before_bytes);
        mn__string_add(&whole, question, bytes);
        mn__string_puts(&whole, chat ? frame.after : "");
        status = encode(turns->tokenizer, &whole, ids, error);
    }
    mn__string_free(&whole);
    mn__string_free(&frame.text);
    return status;
}
