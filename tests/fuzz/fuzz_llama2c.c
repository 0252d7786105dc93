/* Fuzzing llama2.c's files: any bytes as a checkpoint or, where the first is odd, as a
 * tokenizer.bin. It is opened or refused with a message, with allocations failing, too. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/pretrained.h"
#include "text/tokenizer.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* A file of that ending, of this process. */
static const char *bin_path(void)
{
    static char folder[] = "/tmp/fuzz-XXXXXX", path[64];
    if (!*path) {
        must(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/model.bin", folder);
    }
    return path;
}

static void open_model(const char *path, int64_t failing)
{
    mn_error error = {0};
    mn__device device;
    mn__pretrained model;
    must(mn__device_open(&device, NULL) == MN_OK);
    mn__memory_fail_nth(failing);
    mn_status status = mn__pretrained_open(&model, &device, path, 0, &error);
    mn__memory_fail_nth(0);
    must(status == MN_OK || error.message[0]);
    if (status == MN_OK)
        mn__pretrained_close(&model);
    mn__device_close(&device);
}

static void open_tokenizer(const char *path, int64_t failing)
{
    mn_error error = {0};
    mn__tokenizer *tokenizer;
    mn__memory_fail_nth(failing);
    mn_status status = mn__tokenizer_load(&tokenizer, path, &error);
    mn__memory_fail_nth(0);
    must(status == MN_OK || error.message[0]);
    if (status == MN_OK)
        mn__tokenizer_free(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    FILE *file = fopen(bin_path(), "wb");
    must(file && fwrite(data + 2, 1, size - 2, file) == size - 2 && fclose(file) == 0);
    (data[0] % 2 ? open_tokenizer : open_model)(bin_path(), data[1]);
    return 0;
}
