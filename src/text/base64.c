/* Base64, reading. */
#include "text/base64.h"

static int value_of(char digit)
{
    if (digit >= 'A' && digit <= 'Z')
        return digit - 'A';
    if (digit >= 'a' && digit <= 'z')
        return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9')
        return digit - '0' + 52;
    return digit == '+' ? 62 : digit == '/' ? 63 : -1;
}

bool mn__base64_decode(const char *text, int64_t bytes, mn__string *out)
{
    if (bytes % 4 != 0)
        return false;
    for (int64_t at = 0; at < bytes; at += 4) {
        int padding = at + 4 == bytes ? (text[at + 3] == '=') + (text[at + 2] == '=') : 0;
        if (padding == 2 && text[at + 3] != '=')
            return false;
        unsigned group = 0;
        for (int i = 0; i < 4; i++) {
            int value = i >= 4 - padding ? 0 : value_of(text[at + i]);
            if (value < 0)
                return false;
            group = group << 6 | (unsigned)value;
        }
        char three[3] = {(char)(group >> 16), (char)(group >> 8), (char)group};
        mn__string_add(out, three, 3 - padding);
    }
    return true;
}
