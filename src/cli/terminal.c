/* The line of progress, and Ctrl-C. */
#include "cli/terminal.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static volatile sig_atomic_t stop_wanted;
static struct {
    bool tty, shown, said_stop;
    double last; /* when the line was written */
    char what[64];
} terminal;

static void on_signal(int number)
{
    if (stop_wanted) {
        signal(number, SIG_DFL);
        raise(number);
    }
    stop_wanted = 1;
}

static int columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static void write_line(const char *what, int64_t done, int64_t total, const char *note)
{
    char line[512];
    int length = snprintf(line, sizeof line, "%s", what);
    if (total > 0)
        length += snprintf(line + length, sizeof line - (size_t)length, " %3d%%",
                           (int)(100.0 * (double)done / (double)total));
    if (note && length < (int)sizeof line)
        snprintf(line + length, sizeof line - (size_t)length, "  %s", note);
    if (terminal.tty)
        fprintf(stderr, "\r\033[K%.*s", columns() - 1, line);
    else
        fprintf(stderr, "%s\n", line);
    fflush(stderr);
    terminal.shown = terminal.tty;
}

static bool report(void *user, const char *what, int64_t done, int64_t total, const char *note)
{
    (void)user;
    double now = mn__clock(), pause = terminal.tty ? 0.1 : 10.0;
    bool changed = strncmp(terminal.what, what, sizeof terminal.what - 1) != 0;
    if (stop_wanted && !terminal.said_stop) {
        mn__terminal_clear();
        fprintf(stderr, "stopping; once more ends it at once\n");
        terminal.said_stop = true;
    }
    if (now - terminal.last >= pause || (changed && terminal.tty)) {
        snprintf(terminal.what, sizeof terminal.what, "%s", what);
        write_line(what, done, total, note);
        terminal.last = now;
    }
    return !stop_wanted;
}

const mn__progress *mn__terminal_progress(void)
{
    static const mn__progress progress = {.report = report};
    struct sigaction action = {.sa_handler = on_signal};
    terminal.tty = isatty(STDERR_FILENO) == 1;
    terminal.last = mn__clock();
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &progress;
}

bool mn__terminal_stopped(void)
{
    return stop_wanted != 0;
}

void mn__terminal_clear(void)
{
    if (terminal.shown)
        fprintf(stderr, "\r\033[K");
    terminal.shown = false;
}
