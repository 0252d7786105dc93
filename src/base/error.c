/* Errors: filling in mn_error. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *mn_status_name(mn_status status)
{
    switch (status) {
#define ERROR_NAME(name, exit_status, meaning) \
    case MN_ERROR_##name:                      \
        return "MN_ERROR_" #name;
        MN_ERROR_MAP(ERROR_NAME)
#undef ERROR_NAME
    }
    return "unknown";
}

const char *mn_status_meaning(mn_status status)
{
    switch (status) {
#define ERROR_MEANING(name, exit_status, meaning) \
    case MN_ERROR_##name:                         \
        return meaning;
        MN_ERROR_MAP(ERROR_MEANING)
#undef ERROR_MEANING
    }
    return "unknown";
}

static void set_hint(mn_error *error, mn_status code, const char *hint)
{
    error->code = code;
    snprintf(error->hint, sizeof error->hint, "%s", hint ? hint : "");
}

mn_status mn__fail(mn_error *error, mn_status code, const char *hint, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        set_hint(error, code, hint);
    }
    return code;
}

static const char *usual_hint(int why)
{
    switch (why) {
    case ENOSPC:
    case EDQUOT: /* of a user */
    case EFBIG:  /* a limit on files */
        return "free some space on that disk, or write elsewhere";
    case ENOENT:
        return "is the name right?";
    case EACCES:
    case EPERM:
    case EROFS:
        return "look at who may read and write there";
    default:
        return NULL;
    }
}

mn_status mn__fail_errno(mn_error *error, const char *hint, const char *format, ...)
{
    int why = errno;
    mn_status code = why == ENOMEM ? MN_ERROR_MEMORY : MN_ERROR_IO;
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        if (length >= 0 && (size_t)length < sizeof error->message)
            snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s",
                     strerror(why));
        set_hint(error, code, hint ? hint : usual_hint(why));
    }
    return code;
}

void mn__error_clear(mn_error *error)
{
    if (error)
        *error = (mn_error){.code = MN_OK};
}

void mn__error_hint(mn_error *error, const char *hint)
{
    if (error && !*error->hint)
        snprintf(error->hint, sizeof error->hint, "%s", hint);
}

void mn__error_prefix(mn_error *error, const char *format, ...)
{
    if (!error)
        return;
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof error->message)
        snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s", old);
}
