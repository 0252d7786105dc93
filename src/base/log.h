/* Messages from the library: given to a sink that the program sets; with none
 * set they are dropped. The library itself never prints. */
#ifndef MN__BASE_LOG_H
#define MN__BASE_LOG_H

#include "base/error.h"

typedef enum mn__log_level { MN__LOG_INFO, MN__LOG_WARNING } mn__log_level;
typedef void (*mn__log_sink)(void *user, mn__log_level level, const char *message);

void mn__log_set(mn__log_sink sink, void *user);
void mn__log_info(const char *format, ...) MN__PRINTF(1, 2);
void mn__log_warning(const char *format, ...) MN__PRINTF(1, 2);

#endif
