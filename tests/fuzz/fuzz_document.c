/* Fuzzing documents: the first byte says whether the rest is HTML or an EPUB. It ends, gives
 * UTF-8 for HTML and a message for what it refuses, and all memory back when an allocation
 * fails. Without libxml2 there is nothing to fuzz: all is refused. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/memory.h"
#include "data/document.h"
#include "text/utf8.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void read_it(const uint8_t *data, size_t size, const char *path)
{
    mn__string text = {0};
    mn_error error = {0};
    mn_status status = data[0] & 1 ? mn__document_epub(path, &text, &error)
                                   : mn__document_html("fuzz", (const char *)data + 1,
                                                       (int64_t)size - 1, &text, &error);
    must(status == MN_OK || error.message[0] != '\0');
    must(mn__utf8_valid(text.text ? text.text : "", text.bytes) == text.bytes);
    mn__string_free(&text);
    must(mn__memory_now().blocks == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    if (size == 0)
        return 0;
    int memory = memfd_create("fuzz", MFD_CLOEXEC);
    must(memory >= 0 && write(memory, data + 1, size - 1) == (ssize_t)size - 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    read_it(data, size, path);
    mn__memory_fail_nth(1 + (int64_t)(size * 7 % 31));
    read_it(data, size, path);
    mn__memory_fail_nth(0);
    close(memory);
    return 0;
}
