/* Fuzzing GGUF as a model: any bytes as such a file. It is opened and loaded, with what is
 * quantised as it lies there, or refused with a message. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/pretrained.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

/* A file of that ending, of this process. */
static const char *model_path(void)
{
    static char folder[] = "/tmp/fuzz-XXXXXX", path[64];
    if (!*path) {
        must(mkdtemp(folder));
        snprintf(path, sizeof path, "%s/model.gguf", folder);
    }
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mn_error error = {0};
    mn__device device;
    mn__pretrained model;
    FILE *file = fopen(model_path(), "wb");
    must(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
    must(mn__device_open(&device, NULL) == MN_OK);
    mn__weights weights = size % 2 ? MN__WEIGHTS_MASTERS : MN__WEIGHTS_F32;
    mn_status status =
        mn__pretrained_open_as(&model, &device, model_path(), 0, weights, true, &error);
    must(status == MN_OK || error.message[0]);
    if (status == MN_OK)
        mn__pretrained_close(&model);
    mn__device_close(&device);
    return 0;
}
