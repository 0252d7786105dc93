/* Fuzzing a session's file: a good one, whose bytes the input changes (an offset of four bytes
 * and a value each), without its checksum; or, after an 'R', the input as the file. What is
 * taken is read on, gone back in and saved; a refusal has a message. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/threads.h"
#include "reader/reading.h"

enum { V = 19, SEGMENT = 8, CHUNK = 8, TOKENS = 21, CAPACITY = 48 };

/* Attentions of every kind of state: one that grows, windows, memories. */
static const char recipe[] =
    "model: {depth: 4, width: 8, heads: 2, initial_deviation: 0.5, layers: [\n"
    "  {layers: [1], type: window, window: 5},\n"
    "  {layers: [2], type: xl, memory: 6},\n"
    "  {layers: [3], type: compressive, memory: 8, compressed: 4, rate: 2}]}\n"
    "attention: {type: full}\n";

static struct {
    mn__arena arena;
    mn__device device;
    mn__params params;
    mn__decoder *decoder;
    mn__reading reading;
    char *file;
    int64_t bytes;
} f;

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void open_all(void)
{
    mn__yaml_node *root;
    int32_t ids[TOKENS];
    mn_error error = {0};
    char path[] = "/tmp/fuzz-session-XXXXXX";
    const mn__reading_options options = {.capacity = CAPACITY, .chunk = CHUNK, .compute = MN__F32};
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = 7 * i % V;
    mn__threads_set(1);
    mn__arena_init(&f.arena, 0);
    must(mn__yaml_parse(&f.arena, "r", recipe, (int64_t)strlen(recipe), &root, NULL) == MN_OK);
    must(mn__device_open(&f.device, NULL) == MN_OK);
    mn__params_init(&f.params, &f.device, 3);
    must(mn__decoder_new(&f.decoder, &f.params, mn__yaml_get(root, "model"),
                         mn__yaml_get(root, "attention"), V, SEGMENT, &error) == MN_OK);
    must(mn__reading_open(&f.reading, f.decoder, &f.params, &options, &error) == MN_OK);
    must(mn__reading_add(&f.reading, ids, TOKENS, &error) == MN_OK);
    int number = mkstemp(path);
    must(number >= 0 && close(number) == 0);
    must(mn__reading_save(&f.reading, path, "weights", NULL, &error) == MN_OK);
    must(mn__file_read(path, 0, &f.file, &f.bytes, &error) == MN_OK);
    must(unlink(path) == 0);
    char *check = memmem(f.file, (size_t)f.bytes, "\"check\"", 7);
    must(check);
    check[1] = 'k'; /* not compared any more */
}

/* Goes on with what was taken. */
static void use(void)
{
    mn_error error = {0};
    int64_t count = f.reading.ids.count;
    int32_t ids[CHUNK] = {1, 2, 3};
    int64_t more = count + CHUNK <= CAPACITY ? CHUNK : CAPACITY - count;
    must(mn__reading_add(&f.reading, ids, more, &error) == MN_OK || error.message[0]);
    if (f.reading.ids.count > 0)
        must(mn__reading_logits(&f.reading, &error) || error.message[0]);
    must(mn__reading_rewind(&f.reading, f.reading.ids.count / 2, NULL, &error) == MN_OK ||
         error.message[0]);
    must(mn__reading_save(&f.reading, "/dev/null/nowhere", "weights", NULL, &error) != MN_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    mn_error error = {0};
    mn__safetensors *file;
    if (!f.file)
        open_all();
    bool whole = size > 0 && data[0] == 'R';
    int64_t bytes = whole ? (int64_t)size - 1 : f.bytes;
    char *copy = mn__malloc(bytes);
    must(copy);
    memcpy(copy, whole ? (const char *)data + 1 : f.file, (size_t)bytes);
    for (size_t i = 0; !whole && i + 5 <= size; i += 5) {
        uint32_t offset;
        memcpy(&offset, data + i, sizeof offset);
        copy[offset % (uint32_t)bytes] = (char)data[i + 4];
    }
    int memory = memfd_create("fuzz", MFD_CLOEXEC);
    must(memory >= 0 && write(memory, copy, (size_t)bytes) == bytes);
    mn__free(copy);
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    mn_status status = mn__safetensors_open(&file, path, &error);
    if (status == MN_OK) {
        status = mn__reading_take(&f.reading, file, path, "weights", &error);
        mn__safetensors_close(file);
    }
    must(status == MN_OK || error.message[0]);
    if (status == MN_OK)
        use();
    close(memory);
    return 0;
}
