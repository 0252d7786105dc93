/* Messages from the library to the program's sink, one at a time. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>

#include "base/string.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static mn__log_sink sink_now;
static void *sink_user;

void mn__log_set(mn__log_sink sink, void *user)
{
    pthread_mutex_lock(&lock);
    sink_now = sink;
    sink_user = user;
    pthread_mutex_unlock(&lock);
}

static void say(mn__log_level level, const char *format, va_list arguments)
{
    pthread_mutex_lock(&lock);
    if (sink_now) {
        mn__string message = {0};
        mn__string_vprintf(&message, format, arguments);
        /* Without memory for the values, the bare format still says something. */
        sink_now(sink_user, level, message.failed ? format : message.text);
        mn__string_free(&message);
    }
    pthread_mutex_unlock(&lock);
}

void mn__log_info(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(MN__LOG_INFO, format, arguments);
    va_end(arguments);
}

void mn__log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(MN__LOG_WARNING, format, arguments);
    va_end(arguments);
}
