/* GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies write
 * their tokens (space is U+0120, the newline U+010A). */
#ifndef MN__TEXT_BYTE_ALPHABET_H
#define MN__TEXT_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/string.h"

/* The character of a byte. */
uint32_t mn__byte_character(unsigned char byte);
/* The byte of a character, or -1. */
int mn__character_byte(uint32_t code);
/* Appends bytes written in the alphabet, as UTF-8. */
void mn__bytes_to_alphabet(const char *bytes, int64_t count, mn__string *out);
/* Appends the bytes that text stands for; false, and nothing is added, where a character of it is
 * not in the alphabet. */
bool mn__alphabet_to_bytes(const char *text, int64_t bytes, mn__string *out);

#endif
