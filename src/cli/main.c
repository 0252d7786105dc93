/* mneme, the program: finds the verb, reads its options, prints its error. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/args.h"
#include "cli/help.h"
#include "cli/terminal.h"

static void print_log(void *user, mn__log_level level, const char *message)
{
    (void)user;
    mn__terminal_clear();
    fprintf(stderr, "mneme: %s%s\n", level == MN__LOG_WARNING ? "warning: " : "", message);
}

static int exit_status(mn_status status)
{
    switch (status) {
#define EXIT_STATUS(name, exit_status, meaning) \
    case MN_ERROR_##name:                       \
        return exit_status;
        MN_ERROR_MAP(EXIT_STATUS)
#undef EXIT_STATUS
    }
    return EXIT_FAILURE;
}

/* What could not be written to standard output is an error too. */
static int finish(mn_status status, mn_error *error)
{
    mn__terminal_clear();
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == MN_OK)
        status = mn__fail_errno(error, "is the disk full?", "cannot write to standard output");
    if (status != MN_OK) {
        fprintf(stderr, "mneme: %s\n", error->message);
        if (*error->hint)
            fprintf(stderr, "       %s\n", error->hint);
    }
    return exit_status(status);
}

static mn_status run_verb(const mn__verb *verb, int argc, char **argv, mn_error *error)
{
    mn__arena arena;
    mn__arena_init(&arena, 1 << 14);
    mn__call call = {.verb = verb, .arena = &arena, .progress = mn__terminal_progress()};
    bool help;
    mn_status status = mn__args_parse(&call, argc, argv, &help, error);
    if (status == MN_OK && help) {
        mn__string text = {0};
        mn__help_verb(verb, &text);
        status = mn__print(&text, error);
    } else if (status == MN_OK) {
        status = verb->run(&call, error);
    }
    mn__arena_free(&arena);
    return status;
}

int main(int argc, char **argv)
{
    mn_error error = {.code = MN_OK};
    const char *word = argc > 1 ? argv[1] : "";
    mn__log_set(print_log, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a limit on files is an error of write(), as a full disk is */
    if (!strcmp(word, "--version")) {
        printf("mneme %s (%s)\n", mn_version(), mn_build());
        return finish(MN_OK, &error);
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h"))
        word = "help";
    if (argc < 2)
        return finish(mn__fail(&error, MN_ERROR_USAGE, "mneme help lists the verbs",
                               "say what to do: mneme VERB"),
                      &error);
    const mn__verb *verb = mn__verb_find(word);
    if (!verb)
        return finish(mn__verb_unknown(word, &error), &error);
    return finish(run_verb(verb, argc - 2, argv + 2, &error), &error);
}
