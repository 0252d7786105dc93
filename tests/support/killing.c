/* Children that train, and are killed: this same program, started again with
 * `child FOLDER RUN`. */
#include "support/killing.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "support/folder.h"
#include "support/training.h"

static int kills_wanted;

/* A checkpoint at every step: it is being written most of the time. */
static training child_training(const char *folder, const char *run)
{
    static const char *const overrides[] = {"train.steps=120",        "train.checkpoint_every=1",
                                            "train.validate_every=7", "train.validation_tokens=64",
                                            "data.segment=8",         NULL};
    return (training){.folder = folder, .run = run, .overrides = overrides, .resume = true};
}

static int child(const char *folder, const char *run)
{
    mn_error error;
    training how = child_training(folder, run);
    if (training_run(&how, NULL, &error) == MN_OK)
        return 0;
    fprintf(stderr, "%s: %s\n", run, error.message);
    return 1;
}

static pid_t start(const char *folder, const char *run)
{
    pid_t id = fork();
    if (id == 0) {
        execl("/proc/self/exe", "training", "child", folder, run, (char *)NULL);
        _exit(127);
    }
    assert_true(id > 0);
    return id;
}

static int count_temporary(const char *folder, const char *run)
{
    char **names;
    int64_t count;
    int temporary = 0;
    if (mn__file_list(folder_path(folder, "%s", run), &names, &count, NULL) != MN_OK)
        return 0;
    for (int64_t i = 0; i < count; i++)
        temporary += strstr(names[i], "last.safetensors.") != NULL;
    mn__free(names);
    return temporary;
}

static void wait_microseconds(long microseconds)
{
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* Until the child ends, or has trained for a while and is writing. */
static void wait_for_writing(const char *folder, const char *run, long microseconds)
{
    wait_microseconds(microseconds);
    for (int i = 0; i < 100000 && count_temporary(folder, run) == 0; i++)
        wait_microseconds(20);
}

static void test_killed(void **state)
{
    const char *folder = *state;
    mn__random_key key = {.seed = (uint64_t)time(NULL)};
    printf("seed %llu\n", (unsigned long long)key.seed);
    assert_int_equal(child(folder, "whole"), 0);
    int killed = 0, while_writing = 0, status = 0;
    for (int i = 0;; i++) {
        pid_t id = start(folder, "killed");
        long delay = (long)mn__random_below(key, (uint64_t)i, 900000);
        if (killed < kills_wanted && i % 2)
            wait_for_writing(folder, "killed", delay);
        else if (killed < kills_wanted)
            wait_microseconds(delay);
        if (killed < kills_wanted)
            kill(id, SIGKILL);
        assert_int_equal(waitpid(id, &status, 0), id);
        if (!WIFSIGNALED(status))
            break;
        killed++;
        while_writing += count_temporary(folder, "killed") > 0;
    }
    assert_int_equal(status, 0);
    printf("killed %d times, %d of them in the middle of a checkpoint\n", killed, while_writing);
    assert_true(while_writing > 0);
    training_compare(folder, "whole", "killed");
    assert_int_equal(count_temporary(folder, "killed"), 0);
}

static int setup(void **state)
{
    int status = folder_make(state);
    training_make(*state);
    return status;
}

int killing_main(int argc, char **argv, int kills)
{
    if (argc == 4 && !strcmp(argv[1], "child"))
        return child(argv[2], argv[3]);
    kills_wanted = kills;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
