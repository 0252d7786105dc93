/* Turns of a conversation, piece by piece, are what the template makes of the whole; and a
 * template that does not show messages as they are is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "eval/turn.h"
#include "support/folder.h"
#include "support/model.h"
#include "support/small_model.h"

static const char *folder;
static mn__tokenizer *tokenizer;
static const mn__ids *before; /* <s> */

static int setup(void **state)
{
    mn_error error;
    int status = folder_make(state);
    folder = *state;
    small_model_make(folder_path(folder, "model"), "llama", 1, small_model_chat);
    succeed(mn__tokenizer_load(&tokenizer, folder_path(folder, "model"), &error), &error);
    before = &tokenizer->before;
    return status;
}

static int teardown(void **state)
{
    mn__tokenizer_free(tokenizer);
    return folder_remove(state);
}

static void add(mn__ids *ids, const char *text)
{
    mn_error error;
    succeed(mn__tokenizer_encode(tokenizer, text, (int64_t)strlen(text), ids, &error), &error);
}

static void check(const mn__ids *got, const char *expected)
{
    mn__ids ids = {0};
    add(&ids, expected);
    assert_int_equal(got->count, ids.count);
    assert_memory_equal(got->id, ids.id, (size_t)ids.count * sizeof *ids.id);
    mn__ids_free(&ids);
}

static void by_template(void **state)
{
    (void)state;
    mn_error error;
    mn__chat *chat;
    mn__ids ids = {0};
    succeed(mn__chat_open(&chat, folder_path(folder, "model"), &error), &error);
    succeed(mn__turn_text(&(mn__turns){chat, tokenizer, before}, "A text.", 7, &ids, &error),
            &error);
    check(&ids, "<s><|user|>A text.\n\n");
    succeed(mn__turn_question(&(mn__turns){chat, tokenizer, before}, MN__TURN_FIRST, "Why?", 4,
                              &ids, &error),
            &error);
    check(&ids, "<s><|user|>A text.\n\nWhy?<|end|><|assistant|>");
    add(&ids, "So.");
    succeed(mn__turn_question(&(mn__turns){chat, tokenizer, before}, MN__TURN_LATER, "And?", 4,
                              &ids, &error),
            &error);
    check(&ids, "<s><|user|>A text.\n\nWhy?<|end|><|assistant|>So.<|end|><|user|>And?<|end|>"
                "<|assistant|>");
    mn__ids_clear(&ids);
    succeed(mn__turn_question(&(mn__turns){chat, tokenizer, before}, MN__TURN_ALONE, "Why?", 4,
                              &ids, &error),
            &error);
    check(&ids, "<s><|user|>Why?<|end|><|assistant|>");
    mn__ids_free(&ids);
    mn__chat_free(chat);
}

static void raw(void **state)
{
    (void)state;
    mn_error error;
    mn__ids ids = {0};
    succeed(mn__turn_text(&(mn__turns){NULL, tokenizer, before}, "A text.", 7, &ids, &error),
            &error);
    succeed(mn__turn_question(&(mn__turns){NULL, tokenizer, before}, MN__TURN_FIRST, " Why?", 5,
                              &ids, &error),
            &error);
    succeed(mn__turn_question(&(mn__turns){NULL, tokenizer, before}, MN__TURN_LATER, " And?", 5,
                              &ids, &error),
            &error);
    assert_int_equal(ids.id[0], tokenizer->start);
    mn__ids rest = {.id = ids.id + 1, .count = ids.count - 1};
    check(&rest, "A text. Why? And?");
    mn__ids_clear(&ids);
    succeed(mn__turn_question(&(mn__turns){NULL, tokenizer, before}, MN__TURN_ALONE, "Why?", 4,
                              &ids, &error),
            &error);
    assert_int_equal(ids.id[0], tokenizer->start);
    mn__ids_free(&ids);
}

/* Messages in capitals, messages left out, a first answer that is dropped. */
static void refused(void **state)
{
    (void)state;
    static const char *const templates[] = {
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}", "nothing", "",
        "{{ messages[-1].content }}{{ raise_exception('no') if messages | length > 1 }}",
        "{{ messages[-1].content }}"};
    for (int i = 0; i < 5; i++) {
        mn_error error = {0};
        mn__chat *chat;
        mn__ids ids = {0};
        const char *text = templates[i];
        succeed(mn__chat_new(&chat, "t", text, (int64_t)strlen(text), NULL, &error), &error);
        mn_status first =
            mn__turn_text(&(mn__turns){chat, tokenizer, before}, "text", 4, &ids, &error);
        assert_int_equal(first, i < 3 ? MN_ERROR_UNSUPPORTED : MN_OK);
        assert_int_not_equal(mn__turn_question(&(mn__turns){chat, tokenizer, before},
                                               MN__TURN_LATER, "Why?", 4, &ids, &error),
                             MN_OK);
        assert_non_null(strstr(error.hint, "--raw"));
        mn__ids_free(&ids);
        mn__chat_free(chat);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_template),
        cmocka_unit_test(raw),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
