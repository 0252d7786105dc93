/* GGUF: a file made by hand with every type of value, each rule broken in turn,
 * every prefix of the file and every byte flipped. */
#include "unit/faults.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/gguf.h"
#include "base/string.h"

/* A file in memory: thousands of damaged ones are written. */
static int memory_file;
static char path[64];

/* ---- Making files ---------------------------------------------------------- */

static void put(mn__string *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        mn__string_add(out, &(char){(char)(value >> 8 * i)}, 1);
}

static void put_text(mn__string *out, const char *text)
{
    put(out, strlen(text), 8);
    mn__string_puts(out, text);
}

static void put_key(mn__string *out, const char *key, mn__gguf_type type)
{
    put_text(out, key);
    put(out, type, 4);
}

static void put_header(mn__string *out, unsigned version, uint64_t tensors, uint64_t values)
{
    mn__string_puts(out, "GGUF");
    put(out, version, 4);
    put(out, tensors, 8);
    put(out, values, 8);
}

static void put_tensor(mn__string *out, const char *name, int rank, const uint64_t *sizes,
                       unsigned type, uint64_t offset)
{
    put_text(out, name);
    put(out, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++)
        put(out, sizes[i], 8);
    put(out, type, 4);
    put(out, offset, 8);
}

static void pad(mn__string *out, int64_t alignment)
{
    while (out->bytes % alignment)
        put(out, 0, 1);
}

/* Every type of value, three tensors of 24, 64 and 68 bytes. */
static mn__string make_file(void)
{
    mn__string out = {0};
    put_header(&out, 3, 3, 15);
    put_key(&out, "u8", MN__GGUF_U8), put(&out, 200, 1);
    put_key(&out, "i8", MN__GGUF_I8), put(&out, 0xFE, 1);
    put_key(&out, "u16", MN__GGUF_U16), put(&out, 60000, 2);
    put_key(&out, "i16", MN__GGUF_I16), put(&out, 0xFFFD, 2);
    put_key(&out, "u32", MN__GGUF_U32), put(&out, 4000000000, 4);
    put_key(&out, "i32", MN__GGUF_I32), put(&out, 0xFFFFFFFC, 4);
    put_key(&out, "f32", MN__GGUF_F32), put(&out, 0x3FC00000, 4);
    put_key(&out, "bool", MN__GGUF_BOOL), put(&out, 1, 1);
    put_key(&out, "text", MN__GGUF_STRING), put_text(&out, "some text");
    put_key(&out, "u64", MN__GGUF_U64), put(&out, UINT64_MAX, 8);
    put_key(&out, "i64", MN__GGUF_I64), put(&out, UINT64_MAX - 4, 8);
    put_key(&out, "f64", MN__GGUF_F64), put(&out, 0x4004000000000000, 8);
    put_key(&out, "numbers", MN__GGUF_ARRAY), put(&out, MN__GGUF_I16, 4), put(&out, 2, 8);
    put(&out, 0xFFFF, 2), put(&out, 7, 2);
    put_key(&out, "texts", MN__GGUF_ARRAY), put(&out, MN__GGUF_STRING, 4), put(&out, 2, 8);
    put_text(&out, "a"), put_text(&out, "");
    put_key(&out, "nested", MN__GGUF_ARRAY), put(&out, MN__GGUF_ARRAY, 4), put(&out, 1, 8);
    put(&out, MN__GGUF_BOOL, 4), put(&out, 2, 8), put(&out, 0x0001, 2);
    put_tensor(&out, "b.weight", 2, (uint64_t[]){32, 2}, 8, 96);
    put_tensor(&out, "a.weight", 2, (uint64_t[]){3, 2}, 0, 0);
    put_tensor(&out, "c.bias", 1, (uint64_t[]){16}, 0, 32);
    pad(&out, 32);
    for (int i = 0; i < 96 + 68; i++)
        put(&out, (uint64_t)i, 1);
    return out;
}

static void put_file(const char *bytes, int64_t count)
{
    assert_int_equal(ftruncate(memory_file, 0), 0);
    assert_int_equal(pwrite(memory_file, bytes, (size_t)count, 0), count);
}

/* ---- Reading --------------------------------------------------------------- */

static mn__gguf *open_good(void)
{
    mn__string text = make_file();
    put_file(text.text, text.bytes);
    mn__string_free(&text);
    mn__gguf *file;
    mn_error error;
    if (mn__gguf_open(&file, path, &error))
        fail_msg("%s", error.message);
    return file;
}

static void reads_every_type(void **state)
{
    (void)state;
    mn__gguf *file = open_good();
    static const struct {
        const char *key;
        int64_t value;
    } whole[] = {{"u8", 200},         {"i8", -2},  {"u16", 60000}, {"i16", -3},
                 {"u32", 4000000000}, {"i32", -4}, {"i64", -5}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        int64_t value = 0;
        assert_int_equal(mn__gguf_int(file, whole[i].key, &value, NULL), MN_OK);
        assert_int_equal(value, whole[i].value);
    }
    double number = 0;
    bool yes = false;
    const char *text;
    assert_int_equal(mn__gguf_float(file, "f32", &number, NULL), MN_OK);
    assert_true(number == 1.5);
    assert_int_equal(mn__gguf_float(file, "f64", &number, NULL), MN_OK);
    assert_true(number == 2.5);
    assert_int_equal(mn__gguf_float(file, "i8", &number, NULL), MN_OK);
    assert_true(number == -2);
    assert_int_equal(mn__gguf_bool(file, "bool", &yes, NULL), MN_OK);
    assert_true(yes);
    assert_int_equal(mn__gguf_string(file, "text", &text, NULL), MN_OK);
    assert_string_equal(text, "some text");
    assert_int_equal(mn__gguf_version(file), 3);
    assert_int_equal(mn__gguf_value_count(file), 15);
    assert_string_equal(mn__gguf_value_at(file, 8)->key, "text");
    assert_true(mn__gguf_find_value(file, "u64")->as.u == UINT64_MAX);
    mn__gguf_close(file);
    mn__gguf_close(NULL);
}

static void reads_arrays(void **state)
{
    (void)state;
    mn__gguf *file = open_good();
    const mn__gguf_value *array;
    int64_t whole = 0;
    double number = 0;
    assert_int_equal(mn__gguf_array(file, "numbers", MN__GGUF_I16, &array, NULL), MN_OK);
    assert_int_equal(array->as.array.count, 2);
    assert_true(mn__gguf_item_int(array, 0, &whole));
    assert_int_equal(whole, -1);
    assert_true(mn__gguf_item_float(array, 1, &number));
    assert_true(number == 7);
    assert_int_equal(mn__gguf_array(file, "texts", MN__GGUF_STRING, &array, NULL), MN_OK);
    assert_int_equal(array->as.array.texts[0].bytes, 1);
    assert_memory_equal(array->as.array.texts[0].text, "a", 1);
    assert_int_equal(array->as.array.texts[1].bytes, 0);
    assert_false(mn__gguf_item_int(array, 0, &whole));
    assert_int_equal(mn__gguf_array(file, "nested", MN__GGUF_ARRAY, &array, NULL), MN_OK);
    const mn__gguf_value *inner = &array->as.array.items[0];
    assert_int_equal(inner->as.array.count, 2);
    assert_true(mn__gguf_item_int(inner, 0, &whole));
    assert_int_equal(whole, 1);
    mn__gguf_close(file);
}

static void errors_name_file_and_key(void **state)
{
    (void)state;
    mn__gguf *file = open_good();
    mn_error error;
    int64_t whole;
    const mn__gguf_value *array;
    assert_int_equal(mn__gguf_int(file, "other", &whole, &error), MN_ERROR_FORMAT);
    assert_int_equal(strncmp(error.message, path, strlen(path)), 0);
    assert_non_null(strstr(error.message, ": 'other' is missing: a whole number"));
    assert_int_equal(mn__gguf_int(file, "text", &whole, &error), MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, ": 'text' is no whole number"));
    assert_int_equal(mn__gguf_int(file, "u64", &whole, &error), MN_ERROR_FORMAT); /* too large */
    assert_int_equal(mn__gguf_bool(file, "u8", &(bool){0}, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn__gguf_float(file, "bool", &(double){0}, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn__gguf_string(file, "u8", &(const char *){0}, &error), MN_ERROR_FORMAT);
    assert_int_equal(mn__gguf_array(file, "texts", MN__GGUF_F32, &array, &error), MN_ERROR_FORMAT);
    mn__gguf_close(file);
}

static void reads_the_directory(void **state)
{
    (void)state;
    mn__gguf *file = open_good();
    assert_int_equal(mn__gguf_tensor_count(file), 3);
    assert_string_equal(mn__gguf_tensor_at(file, 0)->name, "b.weight");
    const mn__gguf_tensor *b = mn__gguf_find_tensor(file, "b.weight");
    assert_string_equal(b->type_name, "Q8_0");
    assert_int_equal(b->type, 8);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->size[0], 2);
    assert_int_equal(b->size[1], 32);
    assert_int_equal(b->bytes, 68);
    assert_int_equal(((const unsigned char *)b->data)[1], 97);
    const mn__gguf_tensor *a = mn__gguf_find_tensor(file, "a.weight");
    assert_int_equal(a->bytes, 24);
    assert_int_equal((uintptr_t)a->data % 32, 0);
    assert_null(mn__gguf_find_tensor(file, "other"));
    mn__gguf_close(file);
}

/* ---- Broken files ---------------------------------------------------------- */

/* Frees `text` after putting it into the file. */
static void expect(mn__string text, mn_status expected, const char *message)
{
    mn__gguf *file;
    mn_error error = {0};
    put_file(text.text, text.bytes);
    mn__string_free(&text);
    mn_status status = mn__gguf_open(&file, path, &error);
    if (status == MN_OK)
        mn__gguf_close(file);
    if (status != expected || !strstr(error.message, message))
        fail_msg("%s '%s' instead of '%s'", mn_status_name(status), error.message, message);
}

static mn__string one_value(const char *key, mn__gguf_type type, uint64_t value, int bytes)
{
    mn__string text = {0};
    put_header(&text, 3, 0, 1);
    put_key(&text, key, type);
    put(&text, value, bytes);
    return text;
}

static mn__string one_tensor(int rank, uint64_t first, uint64_t second, unsigned type,
                             uint64_t offset, int data_bytes)
{
    mn__string text = {0};
    put_header(&text, 2, 1, 0);
    put_tensor(&text, "t", rank, (uint64_t[9]){first, second}, type, offset);
    pad(&text, 32);
    for (int i = 0; i < data_bytes; i++)
        put(&text, 0, 1);
    return text;
}

static mn__string two_tensors(const char *second, uint64_t offset)
{
    mn__string text = {0};
    put_header(&text, 3, 2, 0);
    put_tensor(&text, "t", 1, (uint64_t[]){16}, 0, 0);
    put_tensor(&text, second, 1, (uint64_t[]){8}, 0, offset);
    pad(&text, 32);
    for (int i = 0; i < 128; i++)
        put(&text, 0, 1);
    return text;
}

static mn__string header_only(unsigned version, uint64_t tensors, uint64_t values)
{
    mn__string text = {0};
    put_header(&text, version, tensors, values);
    return text;
}

static void refuses_wrong_headers(void **state)
{
    (void)state;
    mn__string text = {0};
    mn__string_puts(&text, "GGML0000");
    expect(text, MN_ERROR_FORMAT, "not a GGUF file");
    expect(header_only(3, 0, 0), MN_OK, "");
    expect(header_only(1, 0, 0), MN_ERROR_UNSUPPORTED, "version 1");
    expect(header_only(4, 0, 0), MN_ERROR_UNSUPPORTED, "version 4");
    expect(header_only(0x03000000, 0, 0), MN_ERROR_UNSUPPORTED, "big-endian");
    expect(header_only(3, UINT64_MAX, 0), MN_ERROR_FORMAT, "a count exceeds the file");
    expect(header_only(3, 0, 1), MN_ERROR_FORMAT, "a count exceeds the file");
}

static void refuses_wrong_values(void **state)
{
    (void)state;
    expect(one_value("k", MN__GGUF_U8, 1, 1), MN_OK, "");
    expect(one_value("k", MN__GGUF_BOOL, 2, 1), MN_ERROR_FORMAT, "neither 0 nor 1 'k'");
    expect(one_value("k", (mn__gguf_type)13, 2, 8), MN_ERROR_FORMAT, "unknown type");
    expect(one_value("k", MN__GGUF_U64, 0, 7), MN_ERROR_FORMAT, "ends inside");
    expect(one_value("k", MN__GGUF_STRING, 1, 8), MN_ERROR_FORMAT, "exceeds the file");
    expect(one_value("general.alignment", MN__GGUF_U32, 64, 4), MN_OK, "");
    expect(one_value("general.alignment", MN__GGUF_U32, 48, 4), MN_ERROR_FORMAT, "power of two");
    expect(one_value("general.alignment", MN__GGUF_U32, 0, 4), MN_ERROR_FORMAT, "power of two");
    expect(one_value("general.alignment", MN__GGUF_F32, 0, 4), MN_ERROR_FORMAT, "whole number");
    mn__string text = {0};
    put_header(&text, 3, 0, 2);
    for (int i = 0; i < 2; i++)
        put_key(&text, "k", MN__GGUF_U8), put(&text, 1, 1);
    expect(text, MN_ERROR_FORMAT, "the same key twice: 'k'");
    text = one_value("k", MN__GGUF_ARRAY, MN__GGUF_U16, 4);
    put(&text, INT64_MAX, 8);
    expect(text, MN_ERROR_FORMAT, "exceeds the file");
    text = one_value("k", MN__GGUF_ARRAY, MN__GGUF_BOOL, 4);
    put(&text, 1, 8), put(&text, 2, 1);
    expect(text, MN_ERROR_FORMAT, "neither 0 nor 1");
    text = one_value("k", MN__GGUF_ARRAY, MN__GGUF_ARRAY, 4);
    for (int i = 0; i < 20; i++)
        put(&text, 1, 8), put(&text, MN__GGUF_ARRAY, 4);
    expect(text, MN_ERROR_FORMAT, "nested too deep");
    text = header_only(3, 0, 1);
    put(&text, 3, 8), mn__string_add(&text, "a\0b", 3), put(&text, 0, 5);
    expect(text, MN_ERROR_FORMAT, "NUL inside");
}

static void refuses_wrong_tensors(void **state)
{
    (void)state;
    const uint64_t huge = UINT64_C(1) << 62;
    expect(one_tensor(2, 3, 2, 0, 0, 24), MN_OK, "");
    expect(one_tensor(0, 0, 0, 0, 0, 4), MN_OK, "");
    expect(one_tensor(1, 0, 0, 0, 0, 0), MN_OK, "");
    expect(one_tensor(2, 3, 2, 0, 0, 23), MN_ERROR_FORMAT, "too short for: 't'");
    expect(one_tensor(2, 3, 2, 0, 32, 24), MN_ERROR_FORMAT, "too short for: 't'");
    expect(one_tensor(2, 3, 2, 0, 4, 64), MN_ERROR_FORMAT, "misaligned tensor 't'");
    expect(one_tensor(1, 31, 0, 8, 0, 64), MN_ERROR_FORMAT, "impossible size");
    expect(one_tensor(2, huge, huge, 0, 0, 64), MN_ERROR_FORMAT, "impossible size");
    expect(one_tensor(1, huge, 0, 0, 0, 64), MN_ERROR_FORMAT, "impossible size");
    expect(one_tensor(1, UINT64_MAX, 0, 0, 0, 64), MN_ERROR_FORMAT, "impossible size");
    expect(one_tensor(1, 4, 0, 0, UINT64_MAX - 31, 64), MN_ERROR_FORMAT, "impossible offset");
    expect(one_tensor(1, 4, 0, 0, INT64_MAX - 31, 64), MN_ERROR_FORMAT, "too short");
    expect(one_tensor(1, 4, 0, 4, 0, 64), MN_ERROR_UNSUPPORTED, "'t' has the unknown type 4");
    expect(one_tensor(1, 4, 0, 1000, 0, 64), MN_ERROR_UNSUPPORTED, "unknown type 1000");
    expect(one_tensor(5, 1, 1, 0, 0, 64), MN_ERROR_FORMAT, "too many dimensions");
    expect(two_tensors("u", 64), MN_OK, "");
    expect(two_tensors("u", 96), MN_OK, ""); /* a hole is allowed */
    expect(two_tensors("u", 32), MN_ERROR_FORMAT, "overlaps another: 'u'");
    expect(two_tensors("t", 64), MN_ERROR_FORMAT, "the same name twice: 't'");
}

/* Opens whatever the file is; where it is valid, reads all of it. */
static mn_status visit_file(void)
{
    mn__gguf *file;
    mn_error error = {0};
    mn_status status = mn__gguf_open(&file, path, &error);
    if (status) {
        assert_true(status == MN_ERROR_FORMAT || status == MN_ERROR_UNSUPPORTED);
        assert_int_equal(error.code, status);
        return status;
    }
    unsigned sum = 0;
    for (int64_t i = 0; i < mn__gguf_tensor_count(file); i++) {
        const mn__gguf_tensor *tensor = mn__gguf_tensor_at(file, i);
        for (int64_t j = 0; j < tensor->bytes; j++)
            sum += ((const unsigned char *)tensor->data)[j];
    }
    for (int64_t i = 0; i < mn__gguf_value_count(file); i++) {
        const mn__gguf_value *value = mn__gguf_value_at(file, i);
        assert_ptr_equal(mn__gguf_find_value(file, value->key), value);
        if (value->type != MN__GGUF_ARRAY)
            continue;
        for (int64_t j = 0; j < value->as.array.count; j++) {
            double number = 0;
            mn__gguf_item_float(value, j, &number);
            sum += number > 0;
        }
    }
    mn__gguf_close(file);
    return sum < UINT32_MAX ? MN_OK : MN_ERROR_FORMAT;
}

static void survives_damage(void **state)
{
    (void)state;
    mn__string text = make_file();
    for (int64_t length = 0; length < text.bytes; length++) {
        put_file(text.text, length);
        assert_int_not_equal(visit_file(), MN_OK);
    }
    int refused = 0;
    const int flips[] = {1, 0x80, 0xFF};
    for (int64_t i = 0; i < text.bytes; i++)
        for (int f = 0; f < 3; f++) {
            text.text[i] = (char)(text.text[i] ^ flips[f]);
            put_file(text.text, text.bytes);
            refused += visit_file() != MN_OK;
            text.text[i] = (char)(text.text[i] ^ flips[f]);
        }
    assert_true(refused > 500);
    put_file(text.text, text.bytes);
    assert_int_equal(visit_file(), MN_OK);
    mn__string_free(&text);
}

static mn_status use_everything(void)
{
    mn__gguf *file;
    mn_error error;
    const char *text;
    mn_status status = mn__gguf_open(&file, path, &error);
    if (status)
        return status;
    status = mn__gguf_string(file, "text", &text, &error);
    mn__gguf_close(file);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    mn__gguf_close(open_good());
    CHECK_EVERY_ALLOCATION(use_everything());
}

static int make_file_in_memory(void **state)
{
    (void)state;
    memory_file = memfd_create("gguf", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory_file);
    return memory_file < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type),          cmocka_unit_test(reads_arrays),
        cmocka_unit_test(errors_name_file_and_key),  cmocka_unit_test(reads_the_directory),
        cmocka_unit_test(refuses_wrong_headers),     cmocka_unit_test(refuses_wrong_values),
        cmocka_unit_test(refuses_wrong_tensors),     cmocka_unit_test(survives_damage),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, make_file_in_memory, NULL);
}
