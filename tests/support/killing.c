/* Children that train, and are killed: this same program, started again with
 * `child FOLDER RUN`. */
#include "support/killing.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
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

/* A checkpoint at every step, and a dozen steps for each kill. */
static training child_training(const char *folder, const char *run)
{
    static char steps[32];
    static const char *const overrides[] = {steps,
                                            "train.checkpoint_every=1",
                                            "train.validate_every=7",
                                            "train.validation_tokens=64",
                                            "data.segment=8",
                                            NULL};
    snprintf(steps, sizeof steps, "train.steps=%d", 40 + 12 * kills_wanted);
    return (training){
        .folder = folder, .run = run, .overrides = overrides, .resume = true, .pause = 2000};
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
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        execl("/proc/self/exe", "training", "child", folder, run, (char *)NULL);
        _exit(127);
    }
    assert_true(id > 0);
    return id;
}

static int count_temporary(const char *run_folder)
{
    char **names;
    int64_t count;
    int temporary = 0;
    if (mn__file_list(run_folder, &names, &count, NULL) != MN_OK)
        return 0; /* killed before there was a folder */
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

static bool has_ended(pid_t id)
{
    siginfo_t info = {.si_pid = 0};
    return waitid(P_PID, (id_t)id, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

static struct stat look(const char *path)
{
    struct stat info = {0};
    (void)stat(path, &info);
    return info;
}

/* Until the child has made so many checkpoints, or ended. */
static void wait_for_steps(pid_t id, const char *checkpoint, int64_t steps)
{
    ino_t last = look(checkpoint).st_ino;
    while (steps > 0 && !has_ended(id)) {
        ino_t now = look(checkpoint).st_ino;
        steps -= now != last;
        last = now;
        wait_microseconds(20);
    }
}

/* The i-th kill: at any time, between steps, or in the middle of a checkpoint:
 * there the file grows to a size at which the system ends the child (SIGXFSZ). */
static void kill_child(pid_t id, const char *checkpoint, int i, mn__random_key key)
{
    int64_t some = (int64_t)mn__random_below(key, (uint64_t)i, 1 << 30);
    if (i % 3 > 0)
        wait_for_steps(id, checkpoint, 1 + some % 8);
    if (i % 3 < 2) {
        wait_microseconds(some % (i % 3 == 0 ? 400000 : 3000));
        kill(id, SIGKILL);
        return;
    }
    rlim_t size = (rlim_t)look(checkpoint).st_size;
    rlim_t most = size / 2 + (rlim_t)some % (size / 2);
    (void)prlimit(id, RLIMIT_FSIZE, &(struct rlimit){most, most}, NULL);
}

static void test_killed(void **state)
{
    const char *folder = *state, *run = folder_path(folder, "killed");
    const char *checkpoint = folder_path(folder, "killed/last.safetensors");
    mn__random_key key = {.seed = (uint64_t)time(NULL)};
    printf("seed %llu\n", (unsigned long long)key.seed);
    assert_int_equal(child(folder, "whole"), 0);
    int killed = 0, while_writing = 0, status = 0;
    for (int i = 0;; i++) {
        pid_t id = start(folder, "killed");
        if (i < kills_wanted)
            kill_child(id, checkpoint, i, key);
        assert_int_equal(waitpid(id, &status, 0), id);
        if (!WIFSIGNALED(status))
            break;
        killed++;
        while_writing += WTERMSIG(status) == SIGXFSZ && count_temporary(run) > 0;
    }
    assert_int_equal(status, 0);
    printf("killed %d times, %d of them in the middle of a checkpoint\n", killed, while_writing);
    assert_true(killed > 2 && while_writing > 0);
    training_compare(folder, "whole", "killed");
    assert_int_equal(count_temporary(run), 0);
}

static int setup(void **state)
{
    int status = folder_make(state);
    training_make(*state);
    return status;
}

int killing_main(int argc, char **argv, int kills)
{
    kills_wanted = kills;
    if (argc == 4 && !strcmp(argv[1], "child"))
        return child(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_killed)};
    return cmocka_run_group_tests(tests, setup, folder_remove);
}
