/* GPT-2's alphabet: bytes that are printable in Latin-1 are themselves, the others follow from
 * U+0100 in order. */
#include "text/byte_alphabet.h"

#include "text/utf8.h"

static bool is_itself(uint32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* The others in order: 0..32 are U+0100.., 127..160 follow, 173 is the last. */
uint32_t mn__byte_character(unsigned char byte)
{
    if (is_itself(byte))
        return byte;
    return 0x100u + (byte <= 32 ? byte : byte <= 160 ? byte - 127u + 33u : 67u);
}

int mn__character_byte(uint32_t code)
{
    if (code < 0x100)
        return is_itself(code) ? (int)code : -1;
    uint32_t place = code - 0x100;
    if (place <= 32)
        return (int)place;
    return place < 67 ? (int)(place - 33 + 127) : place == 67 ? 173 : -1;
}

void mn__bytes_to_alphabet(const char *bytes, int64_t count, mn__string *out)
{
    for (int64_t i = 0; i < count; i++) {
        char text[4];
        mn__string_add(out, text,
                       mn__utf8_encode(mn__byte_character((unsigned char)bytes[i]), text));
    }
}

bool mn__alphabet_to_bytes(const char *text, int64_t bytes, mn__string *out)
{
    int64_t before = out->bytes;
    for (int64_t at = 0; at < bytes;) {
        uint32_t code;
        int length = mn__utf8_decode(text + at, bytes - at, &code);
        int byte = length > 0 ? mn__character_byte(code) : -1;
        if (byte < 0) {
            out->bytes = before;
            return false;
        }
        mn__string_add(out, &(char){(char)byte}, 1);
        at += length;
    }
    return true;
}
