/* Fuzzing GGUF: any bytes as a file. An accepted file is read to its last byte,
 * so that a wrong bound shows under the address sanitizer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/gguf.h"

static unsigned visit_value(const mn__gguf_value *value)
{
    unsigned sum = 0;
    if (value->type == MN__GGUF_STRING)
        for (int64_t i = 0; i < value->as.text.bytes; i++)
            sum += (unsigned char)value->as.text.text[i];
    if (value->type != MN__GGUF_ARRAY)
        return sum;
    for (int64_t i = 0; i < value->as.array.count; i++) {
        int64_t whole;
        double number;
        if (value->as.array.type == MN__GGUF_ARRAY)
            sum += visit_value(&value->as.array.items[i]);
        else if (value->as.array.type == MN__GGUF_STRING)
            sum += (unsigned)value->as.array.texts[i].bytes;
        else
            sum += mn__gguf_item_int(value, i, &whole) + mn__gguf_item_float(value, i, &number);
    }
    return sum;
}

static unsigned visit(const mn__gguf *file)
{
    unsigned sum = 0;
    for (int64_t i = 0; i < mn__gguf_value_count(file); i++)
        sum += visit_value(mn__gguf_value_at(file, i));
    for (int64_t i = 0; i < mn__gguf_tensor_count(file); i++) {
        const mn__gguf_tensor *tensor = mn__gguf_tensor_at(file, i);
        for (int64_t j = 0; j < tensor->bytes; j++)
            sum += ((const unsigned char *)tensor->data)[j];
        if (mn__gguf_find_tensor(file, tensor->name) != tensor)
            abort();
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int memory = memfd_create("fuzz", MFD_CLOEXEC);
    if (memory < 0 || write(memory, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    mn__gguf *file;
    mn_error error = {0};
    unsigned sum = 0;
    if (mn__gguf_open(&file, path, &error) == MN_OK) {
        sum = visit(file);
        mn__gguf_close(file);
    } else if (error.message[0] == '\0') {
        abort();
    }
    close(memory);
    return sum == UINT32_MAX;
}
