/* Fuzzing safetensors: any bytes as a file. An accepted file is read to its
 * last byte, so that a wrong bound shows under the address sanitizer. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int memory = memfd_create("fuzz", MFD_CLOEXEC);
    if (memory < 0 || write(memory, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    mn__safetensors *file;
    mn_error error = {0};
    if (mn__safetensors_open(&file, path, &error)) {
        if (error.message[0] == '\0')
            abort();
        close(memory);
        return 0;
    }
    unsigned sum = 0;
    for (int64_t i = 0; i < mn__safetensors_count(file); i++) {
        const mn__safetensor *tensor = mn__safetensors_at(file, i);
        for (int64_t j = 0; j < tensor->bytes; j++)
            sum += ((const unsigned char *)tensor->data)[j];
        if (mn__safetensors_find(file, tensor->name) != tensor)
            abort();
    }
    mn__safetensors_close(file);
    close(memory);
    return sum == UINT32_MAX;
}
