/* safetensors: a round trip, every rule of the format broken in turn, every
 * prefix of a file and every byte flipped. */
#include "unit/faults.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/safetensors.h"
#include "base/string.h"

static const char path[] = "test-safetensors.safetensors";

static const float weights[6] = {1, 2, 3, 4, 5, 6};
static const unsigned char mask[3] = {1, 0, 1};
static const uint64_t steps[1] = {UINT64_C(1) << 63};
static const uint16_t scalar[1] = {0x3F80};

static const mn__safetensor tensors[] = {
    {"mask", "U8", 1, {3}, mask, 3},
    {"layer.0.weight", "F32", 2, {2, 3}, weights, 24},
    {"scalar \"\xC3\xA9\"", "BF16", 0, {0}, scalar, 2},
    {"steps", "U64", 1, {1}, steps, 8},
    {"empty", "F32", 2, {0, 5}, weights, 0},
};
enum { COUNT = sizeof tensors / sizeof *tensors };
static const char *const metadata[] = {"format", "mneme", "a \"key\"", "line\nend", NULL};

static void keeps_everything(void **state)
{
    (void)state;
    assert_int_equal(mn__safetensors_write(path, tensors, COUNT, metadata, NULL), MN_OK);
    mn__safetensors *file;
    assert_int_equal(mn__safetensors_open(&file, path, NULL), MN_OK);
    assert_int_equal(mn__safetensors_count(file), COUNT);
    for (int i = 0; i < COUNT; i++) {
        const mn__safetensor *tensor = mn__safetensors_at(file, i);
        assert_string_equal(tensor->name, tensors[i].name);
        assert_string_equal(tensor->dtype, tensors[i].dtype);
        assert_int_equal(tensor->rank, tensors[i].rank);
        assert_memory_equal(tensor->size, tensors[i].size, sizeof tensor->size);
        assert_int_equal(tensor->bytes, tensors[i].bytes);
        assert_memory_equal(tensor->data, tensors[i].data, (size_t)tensor->bytes);
        int element = mn__safetensors_bits(tensor->dtype) / 8;
        assert_int_equal((uintptr_t)tensor->data % (uintptr_t)element, 0);
        assert_ptr_equal(mn__safetensors_find(file, tensors[i].name), tensor);
    }
    assert_null(mn__safetensors_find(file, "other"));
    assert_string_equal(mn__safetensors_metadata(file, "a \"key\""), "line\nend");
    assert_null(mn__safetensors_metadata(file, "other"));
    mn__safetensors_close(file);
    mn__safetensors_close(NULL);
}

static void writes_nothing_at_all_too(void **state)
{
    (void)state;
    assert_int_equal(mn__safetensors_write(path, NULL, 0, NULL, NULL), MN_OK);
    mn__safetensors *file;
    assert_int_equal(mn__safetensors_open(&file, path, NULL), MN_OK);
    assert_int_equal(mn__safetensors_count(file), 0);
    assert_null(mn__safetensors_find(file, "x"));
    assert_null(mn__safetensors_metadata(file, "x"));
    mn__safetensors_close(file);
}

static void refuses_to_write_nonsense(void **state)
{
    (void)state;
    const mn__safetensor wrong[] = {
        {"x", "F32", 1, {3}, weights, 13}, {"x", "F33", 1, {3}, weights, 12},
        {"x", "F32", 9, {0}, weights, 0},  {"x", "F32", 2, {INT64_MAX, INT64_MAX}, weights, 4},
        {"x", "F4", 1, {3}, weights, 1},
    };
    mn_error error;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(mn__safetensors_write(path, &wrong[i], 1, NULL, &error),
                         MN_ERROR_MISMATCH);
    const mn__safetensor twice[] = {tensors[0], tensors[1], tensors[0]};
    assert_int_equal(mn__safetensors_write(path, twice, 3, NULL, &error), MN_ERROR_MISMATCH);
    assert_non_null(strstr(error.message, "two tensors are called 'mask'"));
}

/* Writes a file of this header, `spaces` and this many data bytes. */
static void put_file(const char *header, int spaces, int64_t data_bytes)
{
    mn__string text = {0};
    uint64_t length = strlen(header) + (uint64_t)spaces;
    for (int i = 0; i < 8; i++)
        mn__string_printf(&text, "%c", (char)(length >> 8 * i));
    mn__string_printf(&text, "%s%*s", header, spaces, "");
    for (int64_t i = 0; i < data_bytes; i++)
        mn__string_add(&text, &(char){(char)i}, 1);
    assert_int_equal(mn__file_write(path, text.text, text.bytes, NULL), MN_OK);
    mn__string_free(&text);
}

static mn_status open_and_close(mn_error *error)
{
    mn__safetensors *file;
    mn_status status = mn__safetensors_open(&file, path, error);
    if (!status)
        mn__safetensors_close(file);
    return status;
}

#define ENTRY(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void enforces_the_rules(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int64_t data_bytes;
        mn_status status;
        const char *message;
    } cases[] = {
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "}", 4, MN_OK, ""},
        {"{" ENTRY("b", "U8", "[2]", "[2,4]") "," ENTRY("a", "U8", "[2]", "[0,2]") "}", 4, MN_OK,
         ""},
        {"{" ENTRY("a", "F4", "[2,3]", "[0,3]") "}", 3, MN_OK, ""},
        {"{" ENTRY("a", "U8", "[]", "[0,1]") "}", 1, MN_OK, ""},
        {"{}", 0, MN_OK, ""},
        {"{}", 1, MN_ERROR_FORMAT, "1 bytes after the last tensor"},
        {"", 0, MN_ERROR_FORMAT, "no JSON object"},
        {"[]", 0, MN_ERROR_FORMAT, "no JSON object"},
        {" {}", 0, MN_ERROR_FORMAT, "no JSON object"},
        {"{\"a\":", 0, MN_ERROR_FORMAT, "not valid JSON"},
        {"{\"a\":3}", 0, MN_ERROR_FORMAT, "'a': no dtype"},
        {"{\"a\":{\"dtype\":\"U8\"}}", 0, MN_ERROR_FORMAT, "'a': no shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, MN_ERROR_FORMAT, "'a': data_offsets"},
        {"{" ENTRY("a", "U8", "[4]", "[0,5]") "}", 5, MN_ERROR_FORMAT, "do not agree"},
        {"{" ENTRY("a", "F4", "[3]", "[0,1]") "}", 1, MN_ERROR_FORMAT, "do not agree"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "}", 3, MN_ERROR_FORMAT, "outside of the file"},
        {"{" ENTRY("a", "U8", "[4]", "[-4,0]") "}", 4, MN_ERROR_FORMAT, "outside of the file"},
        {"{" ENTRY("a", "U8", "[4]", "[4,0]") "}", 4, MN_ERROR_FORMAT, "outside of the file"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4.0]") "}", 4, MN_ERROR_FORMAT, "two whole numbers"},
        {"{" ENTRY("a", "U8", "[4]", "[0,2,4]") "}", 4, MN_ERROR_FORMAT, "two whole numbers"},
        {"{" ENTRY("a", "U8", "[-4]", "[0,4]") "}", 4, MN_ERROR_FORMAT, "no whole number"},
        {"{" ENTRY("a", "U8", "[4.0]", "[0,4]") "}", 4, MN_ERROR_FORMAT, "no whole number"},
        {"{" ENTRY("a", "U8", "4", "[0,4]") "}", 4, MN_ERROR_FORMAT, "no shape"},
        {"{" ENTRY("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, MN_ERROR_FORMAT,
         "do not agree"},
        {"{" ENTRY("a", "U8", "[99999999999999999999]", "[0,4]") "}", 4, MN_ERROR_FORMAT,
         "a size is no whole number"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("a", "U8", "[4]", "[4,8]") "}", 8,
         MN_ERROR_FORMAT, "not valid JSON: duplicate"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[0,4]") "}", 4,
         MN_ERROR_FORMAT, "overlaps"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[2,6]") "}", 6,
         MN_ERROR_FORMAT, "overlaps"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[4]", "[5,9]") "}", 9,
         MN_ERROR_FORMAT, "hole"},
        {"{" ENTRY("a", "U8", "[4]", "[1,5]") "}", 5, MN_ERROR_FORMAT, "hole"},
        {"{" ENTRY("a", "U8", "[4]", "[0,4]") "," ENTRY("b", "U8", "[0]", "[2,2]") "}", 4,
         MN_ERROR_FORMAT, "overlaps"},
        {"{" ENTRY("a", "Q8", "[4]", "[0,4]") "}", 4, MN_ERROR_UNSUPPORTED, "unknown dtype 'Q8'"},
        {"{" ENTRY("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, MN_ERROR_UNSUPPORTED,
         "9 dimensions"},
        {"{\"__metadata__\":3}", 0, MN_ERROR_FORMAT, "__metadata__ is no object"},
        {"{\"__metadata__\":{\"k\":3}}", 0, MN_ERROR_FORMAT, "__metadata__ 'k' is no string"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mn_error error = {0};
        put_file(cases[i].header, (int)(i % 9), cases[i].data_bytes);
        mn_status status = open_and_close(&error);
        if (status != cases[i].status || !strstr(error.message, cases[i].message))
            fail_msg("%s: %s, '%s'", cases[i].header, mn_status_name(status), error.message);
        if (status)
            assert_non_null(strstr(error.message, path));
    }
}

/* Floats that start at an odd byte come as aligned copies. */
static void aligns_what_the_file_does_not(void **state)
{
    (void)state;
    const char *header = "{" ENTRY("a", "F32", "[2]", "[0,8]") "}";
    int spaces = (int)(8 - strlen(header) % 8) + 3;
    put_file(header, spaces, 8);
    mn__safetensors *file;
    assert_int_equal(mn__safetensors_open(&file, path, NULL), MN_OK);
    const mn__safetensor *tensor = mn__safetensors_at(file, 0);
    assert_int_equal((uintptr_t)tensor->data % 4, 0);
    assert_memory_equal(tensor->data, "\0\1\2\3\4\5\6\7", 8);
    mn__safetensors_close(file);
}

static void limits_the_header(void **state)
{
    (void)state;
    mn_error error;
    assert_int_equal(mn__file_write(path, "\x01\xE1\xF5\x05\0\0\0\0{}", 10, NULL), MN_OK);
    assert_int_equal(open_and_close(&error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "a header of 100000001 bytes"));
    assert_int_equal(mn__file_write(path, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10, NULL), MN_OK);
    assert_int_equal(open_and_close(&error), MN_ERROR_FORMAT);
    assert_int_equal(mn__file_write(path, "", 0, NULL), MN_OK);
    assert_int_equal(open_and_close(&error), MN_ERROR_FORMAT);
    assert_int_equal(mn__safetensors_open(&(mn__safetensors *){0}, "none", &error), MN_ERROR_IO);
}

/* A file in memory: thousands of damaged ones are written. */
static void put_bytes(int file, const char *bytes, int64_t count)
{
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(pwrite(file, bytes, (size_t)count, 0), count);
}

/* Opens whatever the file is; where it is valid, reads all of it. */
static mn_status visit_file(const char *name)
{
    mn__safetensors *file;
    mn_error error = {0};
    mn_status status = mn__safetensors_open(&file, name, &error);
    if (status) {
        assert_true(status == MN_ERROR_FORMAT || status == MN_ERROR_UNSUPPORTED);
        assert_int_equal(error.code, status);
        return status;
    }
    unsigned sum = 0;
    for (int64_t i = 0; i < mn__safetensors_count(file); i++) {
        const mn__safetensor *tensor = mn__safetensors_at(file, i);
        for (int64_t j = 0; j < tensor->bytes; j++)
            sum += ((const unsigned char *)tensor->data)[j];
        assert_ptr_equal(mn__safetensors_find(file, tensor->name), tensor);
    }
    mn__safetensors_close(file);
    return sum < UINT32_MAX ? MN_OK : MN_ERROR_FORMAT;
}

static void survives_damage(void **state)
{
    (void)state;
    char *whole, name[64];
    int64_t bytes;
    int memory = memfd_create("safetensors", MFD_CLOEXEC);
    snprintf(name, sizeof name, "/proc/self/fd/%d", memory);
    assert_int_equal(mn__safetensors_write(path, tensors, COUNT, metadata, NULL), MN_OK);
    assert_int_equal(mn__file_read(path, 0, &whole, &bytes, NULL), MN_OK);
    for (int64_t length = 0; length < bytes; length++) {
        put_bytes(memory, whole, length);
        assert_int_not_equal(visit_file(name), MN_OK);
    }
    int refused = 0;
    for (int64_t i = 0; i < bytes; i++)
        for (int flip = 1; flip < 256; flip = flip == 1 ? 0x80 : flip == 0x80 ? 0xFF : 256) {
            whole[i] = (char)(whole[i] ^ flip);
            put_bytes(memory, whole, bytes);
            refused += visit_file(name) != MN_OK;
            whole[i] = (char)(whole[i] ^ flip);
        }
    assert_true(refused > 500);
    put_bytes(memory, whole, bytes);
    assert_int_equal(visit_file(name), MN_OK);
    close(memory);
    mn__free(whole);
}

static mn_status write_and_read(void)
{
    mn_error error;
    mn_status status = mn__safetensors_write(path, tensors, COUNT, metadata, &error);
    return status ? status : open_and_close(&error);
}

/* Ours, that is: Jansson asserts where one of its own fails inside a string. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    CHECK_EVERY_ALLOCATION(write_and_read());
    put_file("{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 0, 8);
    CHECK_EVERY_ALLOCATION(open_and_close(NULL));
}

static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    int64_t needed, old, now;
    assert_int_equal(mn__safetensors_write(path, tensors, 2, NULL, NULL), MN_OK);
    assert_int_equal(mn__file_size(path, &needed, NULL), MN_OK);
    assert_int_equal(mn__safetensors_write(path, tensors, COUNT, metadata, NULL), MN_OK);
    assert_int_equal(mn__file_size(path, &old, NULL), MN_OK);
    for (int64_t room = 0; room < needed; room += 20) {
        mn__file_fail_write_after(room);
        assert_int_equal(mn__safetensors_write(path, tensors, 2, NULL, NULL), MN_ERROR_IO);
        mn__file_fail_write_after(-1);
        assert_int_equal(open_and_close(NULL), MN_OK);
        assert_int_equal(mn__file_size(path, &now, NULL), MN_OK);
        assert_int_equal(now, old);
    }
    mn__file_fail_write_after(needed);
    assert_int_equal(mn__safetensors_write(path, tensors, 2, NULL, NULL), MN_OK);
    mn__file_fail_write_after(-1);
}

static int remove_file(void **state)
{
    (void)state;
    return mn__file_remove(path, NULL) != MN_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_everything),
        cmocka_unit_test(writes_nothing_at_all_too),
        cmocka_unit_test(refuses_to_write_nonsense),
        cmocka_unit_test(enforces_the_rules),
        cmocka_unit_test(aligns_what_the_file_does_not),
        cmocka_unit_test(limits_the_header),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
    };
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
