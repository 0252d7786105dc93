/* The program on a run that is trained here in a second: eval, generate, report;
 * and the report's page, drawn by a headless Chromium. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

#include "support/folder.h"
#include "train/trainer.h"

static const char *folder;

static void write_texts(void)
{
    static const char *const words[] = {"the ", "river ", "runs ", "<b>", "to\n", "caf\xc3\xa9 "};
    for (int d = 0; d < 10; d++) {
        char text[6000] = "";
        uint32_t k = (uint32_t)d;
        for (uint32_t i = 0; i < 500; i++, k = k * 7 + i + 1)
            strcat(text, words[k % 6]);
        folder_write(folder_path(folder, "texts/%d.txt", d), text, -1);
    }
}

static int make(void **state)
{
    folder_make(state);
    folder = *state;
    write_texts();
    char recipe[1024];
    snprintf(recipe, sizeof recipe,
             "model: {depth: 1, width: 16, heads: 2}\n"
             "attention: {type: xl, memory: 16}\n"
             "data: {corpus: ['%s'], validation: 0.2, test: 0.2, style: documents, batch: 4, "
             "segment: 16}\n"
             "schedule: {rate: 1e-2}\n"
             "train: {steps: 20, log_every: 5, validate_every: 10, threads: 1, precision: f32}\n",
             folder_path(folder, "texts"));
    folder_write(folder_path(folder, "recipe.yaml"), recipe, -1);
    const mn__train_call call = {.recipe = folder_path(folder, "recipe.yaml"),
                                 .folder = folder_path(folder, "run")};
    mn_error error;
    if (mn__train(&call, NULL, NULL, &error) != MN_OK)
        fail_msg("%s", error.message);
    return 0;
}

static char *read_text(const char *path)
{
    int64_t bytes;
    return folder_read(path, &bytes);
}

/* Runs a shell command in the folder, `mneme` being the program: its exit status
 * is as wanted and its output contains the words. The output, to be freed. */
static char *expect(int status, const char *words, const char *command)
{
    const char *out = folder_path(folder, "out");
    char line[2048];
    snprintf(line, sizeof line,
             "cd '%s' && export OMP_WAIT_POLICY=passive && mneme() { '%s/mneme' \"$@\"; } && (%s) "
             ">'%s' 2>&1",
             folder, MNEME_BINARY_DIR, command, out);
    int got = system(line);
    char *text = read_text(out);
    if (!WIFEXITED(got) || WEXITSTATUS(got) != status || !strstr(text, words))
        fail_msg("%s: status %d, wanted %d and '%s':\n%s", command, WEXITSTATUS(got), status, words,
                 text);
    return text;
}

static void check(int status, const char *words, const char *command)
{
    free(expect(status, words, command));
}

static void evaluates(void **state)
{
    (void)state;
    check(0, "by position", "mneme eval run");
    check(0, "the state carried", "mneme eval run");
    check(0, "cleared before each", "mneme eval run --cleared");
    check(0, "strictly causal", "mneme eval run");
    check(0, "CPU level baseline", "MNEME_CPU=baseline; export MNEME_CPU; mneme eval run");
    check(0, "slides by 5", "mneme eval run --window 20 --stride 5");
    check(0, "memory: 64", "mneme eval run --set attention.memory=64");
    check(0, "\"word_perplexity\"", "mneme eval run --json");
    check(0, "kind,name,from,to", "mneme eval run --csv");
    check(0, "split all", "mneme eval run --split all");
    check(0, "0.txt", "mneme eval run --data texts/0.txt");
    check(0, "", "mneme eval run --out table && grep -q 'token ppl' table");
    check(0, "document,position,token,nats", "mneme eval run --tokens t.csv >table && cat t.csv");
}

/* What is known is not read again, and comes to the same. */
static void resumes(void **state)
{
    (void)state;
    char *names = expect(0, "", "mneme eval run --csv | sed -n 's/^documents,\\([^,]*\\).*/\\1/p'");
    names[strcspn(names, "\n")] = '\0';
    char command[256];
    snprintf(command, sizeof command, "rm -rf run/eval; mneme eval run --rows 1 --documents %s",
             names);
    check(0, "all", command);
    char *resumed = expect(0, "total", "mneme eval run --rows 1 --json");
    char *whole = expect(0, "total", "rm -rf run/eval; mneme eval run --rows 1 --json");
    assert_string_equal(resumed, whole);
    free(names);
    free(resumed);
    free(whole);
}

static void probes(void **state)
{
    (void)state;
    check(0, "step 5",
          "mneme train recipe.yaml --run knn --set train.steps=5 --set "
          "train.validate_every=0 --set 'attention={type: knn, window: 16, "
          "memory: 48, neighbours: 4}'");
    check(0, "layer 0, head 1, a memory of 48 tokens", "mneme probe retrieved knn --head 1");
    check(0, "1000  ", "mneme probe retrieved knn --at 1000 --tokens 1");
    char *found = expect(0, "", "mneme probe retrieved knn --at 1000 --tokens 3 --json");
    json_t *result = json_loads(found, 0, NULL);
    assert_non_null(result);
    assert_int_equal(json_array_size(json_object_get(result, "tokens")), 3);
    json_decref(result);
    free(found);
    check(0, "layer 0  memory", "mneme probe attention-mass run");
    char *masses = expect(0, "", "mneme probe attention-mass run --json");
    assert_non_null(strstr(masses, "\"queries\""));
    free(masses);
    check(2, "no document is long enough", "mneme probe attention-mass run --limit 8");
    check(2, "no document nowhere", "mneme probe attention-mass run --document nowhere");
    check(2, "the probes are: retrieved, attention-mass", "mneme probe minds knn");
    check(0, "memory: 96", "mneme eval knn --set attention.memory=96"); /* not as trained */
    check(0, "memory: 0", "mneme eval knn --set attention.memory=0");
    check(2, "wants WHAT RUN", "mneme probe retrieved");
    check(2, "no layer 1 of 1", "mneme probe retrieved knn --layer 1");
    check(7, "no kNN memory", "mneme probe retrieved run");
    check(2, "nothing is remembered yet", "mneme probe retrieved knn --at 0 --tokens 2");
    check(2, "no document nowhere", "mneme probe retrieved knn --document nowhere");
}

static void generates(void **state)
{
    (void)state;
    char *one = expect(0, "", "mneme generate run --prompt the --tokens 40 --seed 3");
    char *two = expect(0, "", "mneme generate run --prompt the --tokens 40 --seed 3");
    char *other = expect(0, "", "mneme generate run --prompt the --tokens 40 --seed 4");
    assert_string_equal(one, two);
    assert_string_not_equal(one, other);
    free(one);
    free(two);
    free(other);
    check(0, "\"tokens\": 7", "mneme generate run --tokens 7 --json");
    /* a stop string is not printed, nor what follows it */
    check(0, "\"stopped_by\": \" \"", "mneme generate run --tokens 4000 --json --stop ' '");
    check(0, "done",
          "mneme generate run --tokens 400 --stop e --stop r >o; "
          "! grep -q '[er]' o && echo done");
    /* bytes that are no text never come out */
    check(0, "done",
          "mneme generate run --tokens 300 --temperature 9 >o; "
          "iconv -f utf-8 -t utf-8 o >/dev/null && echo done");
    check(0, "\"prompt\": \"caf\xc3\xa9\"",
          "printf 'caf\xc3\xa9' >p; mneme generate run --file p "
          "--tokens 1 --json");
}

static void inspects(void **state)
{
    (void)state;
    check(0, "best.safetensors of step", "mneme inspect run");
    check(0, "\nlayer 0: [xl, feed_forward]\n", "mneme inspect run");
    check(0, "\"kind\": \"run\"", "mneme inspect run --json");
    check(0, "\"[xl, feed_forward]\"", "mneme inspect run --json");
    check(0, "attention sublayers", "mneme plan recipe.yaml");
    check(0, "\"attention_sublayers\": 2",
          "mneme plan recipe.yaml --set 'model.block=[attention, attention]' --json");
    check(0, "a tokenizer", "mneme inspect run/tokenizer");
}

static void refuses(void **state)
{
    (void)state;
    check(4, "mneme train", "mneme eval texts");
    check(4, "nowhere", "mneme eval nowhere");
    check(4, "nowhere", "mneme eval run --data nowhere");
    check(2, "contradict", "mneme eval run --window 8 --cleared");
    check(2, "longer than", "mneme eval run --window 8 --stride 9");
    check(2, "--window W", "mneme eval run --stride 9");
    check(2, "contradict", "mneme eval run --json --csv");
    check(2, "no document 'x'", "mneme eval run --documents x");
    check(2, "no split", "mneme eval run --split x");
    check(3, "no meaning", "mneme eval run --set train.steps=3");
    check(3, "memory", "mneme eval run --set attention.memoory=3");
    check(9, "another tokenizer",
          "mneme prepare texts --out chars --tokenizer characters >o && "
          "mneme eval run --data chars");
    check(7, "attention xl keeps its state as it is computed, not in int8",
          "mneme generate run --tokens 3 --cache int8");
    check(7, "attention xl keeps", "mneme eval run --cache bf16");
    check(2, "contradict", "mneme generate run --prompt a --file b");
    check(2, "temperature", "mneme generate run --temperature -1");
    check(2, "no document", "mneme report run --document x");
    check(5, "run/eval",
          "for f in run/eval/carried*; do echo '{' >$f; done; mneme eval run; "
          "s=$?; rm -r run/eval; exit $s");
}

static void reports(void **state)
{
    (void)state;
    check(0, "", "mneme eval run && mneme eval run --cleared");
    check(0, "run/report.html", "mneme report run --passage 200");
    check(0, "two.html", "mneme report run run --out two.html --passage 0");
    char *page = read_text(folder_path(folder, "run/report.html"));
    assert_null(strstr(page, "src=")); /* one file, no network */
    assert_null(strstr(page, "<link"));
    assert_null(strstr(page, "{{DATA}}"));
    assert_null(strstr(page, "<b>")); /* the text's own, in the data, is escaped */
    free(page);
}

static void draws(void **state)
{
    (void)state;
    if (system("command -v chromium >/dev/null 2>&1") != 0) {
        if (getenv("CI"))
            fail_msg("in CI there must be a chromium");
        print_message("skipped: there is no chromium here to draw the report\n");
        skip();
    }
    check(0, "data-drawn=\"yes\"",
          "chromium --headless --no-sandbox --disable-gpu --virtual-time-budget=5000 --dump-dom "
          "\"file://$PWD/run/report.html\" 2>/dev/null | tee dom");
    check(0, "What memory did", "cat dom");
    check(0, "state carried, memory 16", "cat dom");
    check(0, "done", "[ $(grep -o '<svg' dom | wc -l) -eq 2 ] && echo done");
    check(0, "done", "grep -q 'rgba(var(--help)' dom && echo done");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluates), cmocka_unit_test(resumes),  cmocka_unit_test(probes),
        cmocka_unit_test(generates), cmocka_unit_test(inspects), cmocka_unit_test(refuses),
        cmocka_unit_test(reports),   cmocka_unit_test(draws),
    };
    return cmocka_run_group_tests(tests, make, folder_remove);
}
