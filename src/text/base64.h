/* Base64 (RFC 4648, section 4), reading. */
#ifndef MN__TEXT_BASE64_H
#define MN__TEXT_BASE64_H

#include <stdbool.h>

#include "base/string.h"

/* Appends what text stands for; false where it is no base64 with its padding. */
bool mn__base64_decode(const char *text, int64_t bytes, mn__string *out);

#endif
