/* Fuzzing config.json: any bytes as one. What is accepted makes a decoder on a counting
 * device, or says why not; a refusal has a message. */
#include <stdint.h>
#include <stdlib.h>

#include "model/decoder.h"
#include "model/family.h"

/* Layers are alike: more of them only take time. */
enum { LAYERS_MOST = 6 };

static void must(bool condition)
{
    if (!condition)
        abort();
}

static bool is_small(const mn__config *config)
{
    const mn__yaml_node *depth = mn__yaml_get(mn__yaml_get(config->recipe, "model"), "depth");
    return depth && depth->text && strtoll(depth->text, NULL, 10) <= LAYERS_MOST;
}

static void make_decoder(const mn__config *config)
{
    mn_error error = {0};
    mn__device device;
    mn__params params;
    mn__decoder *decoder;
    must(mn__device_open_counting(&device, NULL) == MN_OK);
    mn__params_init(&params, &device, 0);
    mn_status status =
        mn__decoder_new(&decoder, &params, mn__yaml_get(config->recipe, "model"),
                        mn__yaml_get(config->recipe, "attention"), config->vocabulary, 512, &error);
    must(status == MN_OK || error.message[0]);
    mn__decoder_free(decoder);
    mn__params_free(&params);
    mn__device_close(&device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *root;
    mn__arena arena;
    mn__config config;
    mn_error error = {0};
    if (mn__json_parse("config.json", (const char *)data, (int64_t)size, &root, &error) != MN_OK) {
        must(error.message[0]);
        return 0;
    }
    mn__arena_init(&arena, 0);
    mn_status status =
        mn__config_read(&config, &arena, "config.json", root, size % 2 ? 0 : 40, &error);
    must(status == MN_OK || error.message[0]);
    if (status == MN_OK && is_small(&config))
        make_decoder(&config);
    mn__arena_free(&arena);
    json_decref(root);
    return 0;
}
