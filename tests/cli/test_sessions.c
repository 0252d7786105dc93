/* The verbs of sessions on small random models that are made here: read, ask, chat. Each call
 * is a process of its own, so that what is the same is the same across processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/document.h"
#include "support/folder.h"
#include "support/small_model.h"

static const char *folder;

static int make(void **state)
{
    static char text[8000];
    folder_make(state);
    folder = *state;
    small_model_make(folder_path(folder, "llama"), "llama", 1, small_model_chat);
    small_model_make(folder_path(folder, "other"), "llama", 2, small_model_chat);
    small_model_make(folder_path(folder, "mistral"), "mistral", 1, small_model_chat);
    small_model_make(folder_path(folder, "bare"), "llama", 1, NULL);
    small_gguf_make(folder_path(folder, "llama.gguf"), 1, small_model_chat, -1);
    small_gguf_make(folder_path(folder, "bare.gguf"), 1, NULL, -1);
    for (int i = 0; i < 60; i++)
        sprintf(text + strlen(text), "Line %d: the river runs to the sea.\n", i * i);
    text[1500] = '\0';
    folder_write(folder_path(folder, "book.txt"), text, -1);
    text[1400] = 'X';
    folder_write(folder_path(folder, "edited.txt"), text, -1);
    text[700] = '\0';
    folder_write(folder_path(folder, "part.txt"), text, -1);
    memset(text, 'a', 3000);
    text[3000] = '\0';
    folder_write(folder_path(folder, "long.txt"), text, -1);
    folder_write(folder_path(folder, "empty.txt"), "", 0);
    return 0;
}

/* Runs a shell command in the folder, `mneme` being the program: its exit status is as wanted
 * and its output contains the words. The output, to be freed. */
static char *expect(int status, const char *words, const char *command)
{
    char line[2048];
    const char *out = folder_path(folder, "out");
    snprintf(line, sizeof line,
             "cd '%s' && export OMP_WAIT_POLICY=passive && program='%s/mneme' && "
             "mneme() { \"$program\" \"$@\"; } && (%s) "
             ">'%s' 2>&1 </dev/null",
             folder, MNEME_BINARY_DIR, command, out);
    int got = system(line);
    int64_t bytes;
    char *text = folder_read(out, &bytes);
    if (!WIFEXITED(got) || WEXITSTATUS(got) != status ||
        !memmem(text, (size_t)bytes, words, strlen(words)))
        fail_msg("%s: status %d, wanted %d and '%s':\n%s", command, WEXITSTATUS(got), status, words,
                 text);
    return text;
}

static void check(int status, const char *words, const char *command)
{
    free(expect(status, words, command));
}

/* A whole number of what a command prints as JSON. */
static int64_t number(const char *command, const char *key)
{
    char *text = expect(0, "{", command);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_integer(json_object_get(root, key)));
    int64_t value = json_integer_value(json_object_get(root, key));
    json_decref(root);
    free(text);
    return value;
}

/* The answer of a command that prints JSON; to be freed. */
static char *answer(const char *command)
{
    char *text = expect(0, "{", command);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    char *copy = strdup(json_string_value(json_object_get(root, "answer")));
    assert_non_null(copy);
    json_decref(root);
    free(text);
    return copy;
}

static void check_same_file(const char *a, const char *b)
{
    int64_t bytes, others;
    char *one = folder_read(folder_path(folder, "%s", a), &bytes);
    char *other = folder_read(folder_path(folder, "%s", b), &others);
    assert_int_equal(bytes, others);
    assert_memory_equal(one, other, (size_t)bytes);
    free(one);
    free(other);
}

#define READ "mneme read --threads 1 --model "
#define ASK  "mneme ask --threads 1 --tokens 12 "

/* ---- Reading ----------------------------------------------------------------------------------
 */

static void reads(void **state)
{
    (void)state;
    /* <s><|user|>, 1500 bytes, an empty line */
    assert_int_equal(number(READ "llama book.txt --session a.mns --json", "read"), 1504);
    assert_int_equal(number(READ "llama book.txt --session a.mns --json", "reused"), 1504);
    assert_int_equal(number(READ "llama book.txt --session a.mns --json", "read"), 0);
    check(0, "1,504 tokens, 0 of them read now and 1,504 before",
          READ "llama book.txt --session a.mns");
    check(0, "1,501 tokens", READ "llama book.txt --session raw.mns --raw");
    check(0, "1,504 tokens", READ "mistral book.txt --session window.mns");
    check(9, "another text", READ "llama edited.txt --session a.mns");
    check(0, "1,504 of them read now", READ "llama edited.txt --session a.mns --replace");
    check(0, "1,504 of them read now", READ "llama book.txt --session a.mns --replace");
    check(9, "other weights", READ "other book.txt --session a.mns");
    check(9, "precision F32, not BF16", READ "llama book.txt --session a.mns --precision bf16");
    check(9, "other options", READ "llama book.txt --session a.mns --window 100");
    check(7, "--raw", READ "bare book.txt --session b.mns");
    check(0, "without a chat template", READ "bare book.txt --session b.mns --raw");
    check(5, "empty.txt is empty", READ "llama empty.txt --session c.mns");
    check(4, "nowhere", READ "llama nowhere.txt --session c.mns");
    check(2, "--session", READ "llama book.txt");
    check(2, "--model", "mneme read book.txt --session c.mns");
    check(5, "book.txt", READ "llama part.txt --session book.txt");
}

/* What people have books in: the text in them is what is read. A format that the build was made
 * without is refused by name, and so are pictures of pages, before the model is opened. */
static void reads_documents(void **state)
{
    const char *const pages[] = {"First page.", "Second page."}, *const scanned[] = {"", ""};
    folder_write(folder_path(folder, "book.md"), "# The *river*\n", -1);
    folder_write(folder_path(folder, "book.html"), "<h1>The</h1><p>river <b>runs</b>", -1);
    folder_write(folder_path(folder, "html.txt"), "The\n\nriver runs\n", -1);
    folder_write(folder_path(folder, "pdf.txt"), "First page.\nSecond page.\n", -1);
    folder_write(folder_path(folder, "epub.txt"), "One\n\nFirst.\n\nTwo \xC3\xA4.\n", -1);
    document_make_epub(*state, "book.epub", NULL, NULL, 0, NULL);
    document_make_pdf(*state, "book.pdf", pages, 2, "");
    document_make_pdf(*state, "scan.pdf", scanned, 2, "");
    /* Markdown as it stands: <s>, 14 bytes */
    assert_int_equal(number(READ "llama book.md --session md.mns --raw --json", "read"), 15);
    static const struct {
        const char *kind, *lacks;
    } kinds[] = {
#ifdef MN__HAVE_LIBXML2
        {"html", NULL},
        {"epub", NULL},
#else
        {"html", "made without libxml2"},
        {"epub", "made without libxml2"},
#endif
#ifdef MN__HAVE_POPPLER
        {"pdf", NULL},
#else
        {"pdf", "made without poppler-glib"},
#endif
    };
    for (int i = 0; i < 3; i++) {
        char line[512];
        snprintf(line, sizeof line, READ "llama book.%s --session %s.mns", kinds[i].kind,
                 kinds[i].kind);
        if (kinds[i].lacks) {
            check(7, kinds[i].lacks, line);
            continue;
        }
        check(0, "tokens/s", line);
        snprintf(line, sizeof line, READ "llama %s.txt --session plain.%s.mns", kinds[i].kind,
                 kinds[i].kind);
        check(0, "tokens/s", line);
        char one[64], other[64];
        snprintf(one, sizeof one, "%s.mns", kinds[i].kind);
        snprintf(other, sizeof other, "plain.%s.mns", kinds[i].kind);
        check_same_file(one, other);
    }
    check(7, kinds[2].lacks ? kinds[2].lacks : "no text in its 2 pages",
          READ "nowhere scan.pdf --session scan.mns");
    check(1, "", "test -e scan.mns");
}

/* A text longer than the window: nothing is cut off, three ways are named, two work here. */
static void longer_than_the_window(void **state)
{
    (void)state;
    static const char *const words[] = {"3004 tokens, 956 more than the window of 2048",
                                        "the first 956",
                                        "1.47 times closer",
                                        "MiB of keys and values",
                                        "--window 2048",
                                        "--stretch 3004",
                                        "mneme train"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        check(9, words[i], READ "llama long.txt --session long.mns");
    check(1, "", "test -e long.mns");
    check(0, "3,004 tokens", READ "llama long.txt --session window.mns --replace --window 300");
    check(0, "reused 3,004", ASK "--session window.mns 'Why?'");
    check(0, "3,004 tokens", READ "llama long.txt --session long.mns --stretch 3100");
    check(0, "reused 3,004", ASK "--session long.mns 'Why?'");
    check(9, "more than the window of 3100", ASK "--session long.mns --tokens 100 'Why?'");
    check(2, "reads 2048 tokens without", READ "llama book.txt --session x.mns --stretch 2000");
    /* every layer of this one sees a window alone */
    check(0, "3,004 tokens", READ "mistral long.txt --session sliding.mns");
}

/* What one process has read of a text another one reads on. That a text stopped at any chunk comes
 * to the same bytes is tests/model/test_conversation.c's. */
static void goes_on(void **state)
{
    (void)state;
    check(0, "1,501 of them", READ "llama book.txt --session whole.mns --raw");
    check(0, "1,401 of them",
          "head -c 1400 book.txt >start.txt; " READ "llama start.txt --session parts.mns --raw");
    check(0, "100 of them read now in", READ "llama book.txt --session parts.mns --raw");
    char *whole = answer(ASK "--session whole.mns --json 'Why?'");
    char *parts = answer(ASK "--session parts.mns --json 'Why?'");
    assert_string_equal(whole, parts);
    free(whole);
    free(parts);
    /* a reading of some twenty seconds, told to stop after one */
    check(10, "the same command goes on",
          "for i in 1 2 3 4 5 6 7 8 9 10; do cat book.txt; done >ten.txt; "
          "for i in 1 2 3 4 5 6 7 8 9 10; do cat ten.txt; done >hundred.txt; "
          "for i in 1 2 3 4 5 6 7 8 9 10; do cat hundred.txt; done >ten.txt; "
          "for i in 1 2 3 4; do cat ten.txt; done >huge.txt; "
          "\"$program\" read --threads 1 --model mistral huge.txt --session huge.mns & "
          "pid=$!; sleep 1; kill -INT $pid; wait $pid");
    check(0, "answered", ASK "--session huge.mns 'Why?'");
    check(0, "of 6,000,004 tokens of its text", ASK "--session huge.mns 'Why?'");
    check(0, "mneme session", "mneme inspect huge.mns");
}

/* A model is named in the same way by all verbs. */
static void named_by_model(void **state)
{
    (void)state;
    check(0, "a pretrained model, llama", "mneme inspect --model llama");
    check(0, "a session's file", "mneme plan --model llama --tokens 300");
    check(0, "by position", "mneme eval --model llama --data text=book.txt --threads 1");
    check(0, "by position", "mneme eval llama --data text=book.txt --threads 1 --window 64");
    check(0, "\"prompt_tokens\": 3",
          "mneme generate --model llama --prompt Why --tokens 3 --threads 1 --json");
    check(9, "window of 2048",
          "mneme generate --model llama --prompt Why --tokens 2046 --threads 1");
    check(2, "'llama' and --model other name the same thing",
          "mneme generate llama --model other --prompt Why");
    check(2, "'llama' and --model other", "mneme inspect llama --model other");
    check(2, "wants RUN", "mneme eval --data text=book.txt");
    check(2, "wants WHAT RUN", "mneme probe --model llama");
    check(0, "--model TEXT", "mneme help eval");
}

/* One file is read, asked and talked to as the folder of the same model is. */
static void gguf(void **state)
{
    (void)state;
    check(0, "1,504 tokens", READ "llama book.txt --session folder.mns");
    check(0, "1,504 tokens", READ "llama.gguf book.txt --session file.mns");
    char *folders = answer(ASK "--session folder.mns --json 'Why?'");
    char *files = answer(ASK "--session file.mns --json 'Why?'");
    assert_string_equal(folders, files);
    free(folders);
    free(files);
    check(0, "", "echo 'Why?' | mneme chat --model llama.gguf --threads 1 --tokens 5");
    check(0, "1,504 tokens",
          "cp llama.gguf blob; ln -s blob linked.gguf; " READ
          "linked.gguf book.txt --session linked.mns");
    check(0, "answered", ASK "--session linked.mns 'Why?'");
    check(7, "no chat template", READ "bare.gguf book.txt --session bare.mns");
    check(0, "1,501 tokens", READ "bare.gguf book.txt --session bare.mns --raw");
}

/* A document longer than the window is scored by no way that reads beyond it. */
static void evaluates_long_texts(void **state)
{
    (void)state;
#define EVAL "mneme eval --threads 1 --data text=long.txt --model "
    static const char *const words[] = {"3000 tokens, 952 more than the window of 2048",
                                        "--window 2048", "--stretch 3000", "mneme train"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        check(9, words[i], EVAL "llama");
    check(9, "a part of", EVAL "llama --window 2500");
    check(0, "slides by 512", EVAL "llama --window 1024");
    check(0, "cleared before each", EVAL "llama --cleared");
    check(0, "scaling: yarn", EVAL "llama --stretch 3000 --json");
    check(9, "more than the window of 2999", EVAL "llama --stretch 2999");
    check(0, "by position", EVAL "llama --set attention.type=window --set attention.window=99");
    check(0, "by position", EVAL "mistral");
    check(9, "--stretch 3004", "mneme generate llama --file long.txt --tokens 3 --threads 1");
    check(0, "\"prompt_tokens\": 3000",
          "mneme generate llama --file long.txt --tokens 3 --threads 1 --json --stretch 3004");
    check(0, "\"prompt_tokens\": 3000",
          "mneme generate llama --file long.txt --tokens 3 --threads 1 --json --window 99");
#undef EVAL
}

/* What is known of a model that is one file is kept beside it, and found again. */
static void evaluates_a_file(void **state)
{
    (void)state;
    check(0, "by position", "mneme eval llama.gguf --data text=book.txt --threads 1");
    check(0, "1", "ls llama.gguf.eval/carried-*.json | wc -l");
    check(0, "data-", "ls llama.gguf.eval");
    char *first = expect(0, "{", "mneme eval llama.gguf --data text=book.txt --json --threads 1");
    char *again = expect(0, "{", "mneme eval llama.gguf --data text=book.txt --json --threads 1");
    assert_string_equal(first, again);
    json_t *root = json_loads(first, 0, NULL);
    const json_t *total = json_object_get(root, "total");
    assert_int_equal(json_integer_value(json_object_get(total, "tokens")), 1500);
    json_decref(root);
    free(first);
    free(again);
}

/* ---- Asking -----------------------------------------------------------------------------------
 */

static void asks(void **state)
{
    (void)state;
    check(0, "", READ "llama book.txt --session q.mns && cp q.mns before.mns");
    check(0, "reused 1,504 tokens, read 6, dropped 0; answered with", ASK "--session q.mns 'Why?'");
    check_same_file("q.mns", "before.mns");
    /* again, in another process: the same; and the same as without a file between */
    char *first = answer(ASK "--session q.mns --json 'Why?'");
    char *again = answer(ASK "--session q.mns --json 'Why?'");
    assert_string_equal(first, again);
    char *other = answer(ASK "--session q.mns --json 'What is in line 4?'");
    assert_string_not_equal(first, other);
    free(first);
    free(again);
    free(other);
    check_same_file("q.mns", "before.mns");
    /* kept: the next question comes after the answer */
    int64_t said = number(ASK "--session q.mns --keep --json 'Why?'", "tokens");
    assert_int_equal(number(ASK "--session q.mns --json 'So?'", "reused"), 1504 + 6 + said);
    check(0, "1,504 before", READ "llama book.txt --session q.mns");
    check(0, "", "mv llama moved");
    check(4, "llama", ASK "--session q.mns 'Why?'");
    check(0, "answered", ASK "--session q.mns --model moved 'Why?'");
    check(9, "other weights", ASK "--session q.mns --model other 'Why?'");
    check(0, "", "mv moved llama");
    check(9, "window of 2048", ASK "--session q.mns --tokens 1000 'Why?'");
    check(2, "question is empty", ASK "--session q.mns ''");
    check(2, "--session", ASK "'Why?'");
    check(5, "book.txt", ASK "--session book.txt 'Why?'");
    check(5, "cut.mns", "head -c 20000 q.mns >cut.mns; " ASK "--session cut.mns 'Why?'");
    /* raw: the question as it is typed */
    check(0, "reused 1,501 tokens, read 4, dropped 0",
          READ "llama book.txt --raw --session raw.mns && " ASK "--session raw.mns 'Why?'");
}

/* ---- Keys and values in fewer bits --------------------------------------------------------------
 */

/* In a session they are as large as is said, go on in another process to the same answer, and
 * are none of another precision. */
static void caches(void **state)
{
    (void)state;
    static const char *const kept[] = {"f32", "bf16", "int8"};
    static const char *const said[] = {"weights kept as f32, or as filed, keys and values in F32",
                                       "keys and values in BF16", "keys and values in INT8"};
    int64_t before = INT64_MAX;
    for (int i = 0; i < 3; i++) {
        char line[512];
        snprintf(line, sizeof line,
                 READ "llama book.txt --session c.mns --replace --json --cache %s", kept[i]);
        int64_t bytes = number(line, "bytes");
        assert_true(i == 2 || bytes < before); /* heads of 8 numbers, in blocks of 32 */
        before = bytes;
        check(0, said[i], "mneme inspect c.mns");
        char *first = answer(ASK "--session c.mns --json 'Why?'");
        char *again = answer(ASK "--session c.mns --json 'Why?'");
        assert_string_equal(first, again);
        free(first);
        free(again);
        snprintf(line, sizeof line, READ "llama book.txt --session c.mns --cache %s",
                 kept[(i + 1) % 3]);
        check(9, "keeps keys and values in", line);
        snprintf(line, sizeof line, READ "llama book.txt --session c.mns --cache %s", kept[i]);
        check(0, "1,504 before", line);
    }
    /* what is stopped and gone on with is what was read at once */
    check(0, "1,501 of them", READ "llama book.txt --session whole8.mns --raw --cache int8");
    check(0, "1,401 of them",
          "head -c 1400 book.txt >start.txt; " READ
          "llama start.txt --session parts8.mns --raw --cache int8");
    check(0, "100 of them read now in",
          READ "llama book.txt --session parts8.mns --raw --cache int8");
    char *whole = answer(ASK "--session whole8.mns --json 'Why?'");
    char *parts = answer(ASK "--session parts8.mns --json 'Why?'");
    assert_string_equal(whole, parts);
    free(whole);
    free(parts);
    /* a window, a conversation, and what is not to be had */
    check(0, "1,504 tokens", READ "mistral book.txt --session c8.mns --cache int8");
    check(0, "reused 1,504", ASK "--session c8.mns 'Why?'");
    check(0, "reused 0",
          "echo 'Why?' | mneme chat --tokens 5 --model llama --session d8.mns"
          " --cache int8");
    check(0, "keys and values in INT8", "mneme inspect d8.mns");
    check(2, "says itself", "mneme chat --session d8.mns --cache bf16");
    check(2, "auto|f32|bf16|int8", READ "llama book.txt --session e.mns --cache int4");
    check(0, "", "mneme generate llama --prompt 'Why?' --tokens 4 --cache int8");
}

/* ---- Talking ----------------------------------------------------------------------------------
 */

#define CHAT "mneme chat --threads 1 --tokens 12 "

static void talks(void **state)
{
    (void)state;
    check(0, "reused 0 tokens, read 8,", "echo 'Why?' | " CHAT "--model llama");
    check(2, "--model", CHAT);
    check(0, "", READ "llama book.txt --session t.mns && cp t.mns u.mns && cp t.mns v.mns");
    check(0, "reused 1,504 tokens, read 6,", "echo 'Why?' | " CHAT "--session t.mns");
    /* the same turns by `ask`, to the same bytes */
    check(0, "", ASK "--session u.mns --keep 'Why?'");
    check_same_file("t.mns", "u.mns");
    check(0, "", "printf 'Why?\\nSo?\\n' | " CHAT "--session v.mns");
    check(0, "", ASK "--session u.mns --keep 'So?'");
    check_same_file("v.mns", "u.mns");
    /* undone, it is as if it had not been asked */
    check(0, "the last question is forgotten",
          "printf 'Who?\\n/undo\\nWhat?\\n' | " CHAT "--session t.mns >undone");
    check(0, "", "cp v.mns w.mns; printf 'How?\\n/undo\\n' | " CHAT "--session w.mns");
    check_same_file("w.mns", "v.mns");
    check(0, "nothing was asked", "echo /undo | " CHAT "--session w.mns");
    check(0, "/quit ends", "printf '/help\\n/quit\\nWhy?\\n' | " CHAT "--session w.mns || echo no");
    check(0, "reused 0", "printf 'Why?\\n' | " CHAT "--model llama --session new.mns");
    check(0, "answered", ASK "--session new.mns 'So?'");
    check(2, "says itself", CHAT "--session new.mns --window 9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads),
        cmocka_unit_test(reads_documents),
        cmocka_unit_test(longer_than_the_window),
        cmocka_unit_test(goes_on),
        cmocka_unit_test(named_by_model),
        cmocka_unit_test(gguf),
        cmocka_unit_test(evaluates_a_file),
        cmocka_unit_test(evaluates_long_texts),
        cmocka_unit_test(asks),
        cmocka_unit_test(caches),
        cmocka_unit_test(talks),
    };
    return cmocka_run_group_tests(tests, make, folder_remove);
}
