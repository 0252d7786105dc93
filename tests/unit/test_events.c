/* TensorBoard event files: checksums, framing, messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "train/events.h"

/* RFC 3720, B.4. */
static void test_crc32c(void **state)
{
    (void)state;
    unsigned char bytes[32] = {0};
    assert_int_equal(mn__crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(mn__crc32c(bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        bytes[i] = (unsigned char)i;
    assert_int_equal(mn__crc32c(bytes, 32), 0x46dd794e);
    assert_int_equal(mn__crc32c("123456789", 9), 0xe3069283);
}

static uint64_t number(const char *text, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | (unsigned char)text[i];
    return value;
}

/* Checks the record at `at` and returns its data and length; *next is behind it. */
static const char *record(const mn__string *file, int64_t at, int64_t *bytes, int64_t *next)
{
    const char *text = file->text + at;
    *bytes = (int64_t)number(text, 8);
    assert_int_equal(number(text + 8, 4), mn__crc32c_masked(text, 8));
    assert_true(at + 12 + *bytes + 4 <= file->bytes);
    assert_int_equal(number(text + 12 + *bytes, 4), mn__crc32c_masked(text + 12, *bytes));
    *next = at + 12 + *bytes + 4;
    return text + 12;
}

static void test_records(void **state)
{
    (void)state;
    mn__string file = {0};
    mn__events_begin(&file, 1.5);
    mn__events_scalar(&file, 2.5, 300, "train/loss", 0.25f);
    int64_t bytes, next;
    const char *data = record(&file, 0, &bytes, &next);
    static const char version[] = "\x09\0\0\0\0\0\0\xf8\x3f"
                                  "\x1a\x0d"
                                  "brain.Event:2";
    assert_int_equal(bytes, sizeof version - 1);
    assert_memory_equal(data, version, sizeof version - 1);
    data = record(&file, next, &bytes, &next);
    static const char scalar[] = "\x09\0\0\0\0\0\0\x04\x40"
                                 "\x10\xac\x02"
                                 "\x2a\x13\x0a\x11\x0a\x0a"
                                 "train/loss"
                                 "\x15\0\0\x80\x3e";
    assert_int_equal(bytes, sizeof scalar - 1);
    assert_memory_equal(data, scalar, sizeof scalar - 1);
    assert_int_equal(next, file.bytes);
    mn__string_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
