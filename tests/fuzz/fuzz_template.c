/* Fuzzing chat templates: any bytes as a template over a small conversation. It ends, prints
 * UTF-8 and the same twice, fails with a message, and gives all memory back when an
 * allocation fails on the way. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/template.h"
#include "text/utf8.h"

static const char input[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" Be brief. \"},"
    " {\"role\": \"user\", \"content\": \"na\xC3\xAFve \xE6\x97\xA5\", \"n\": [1, 2.5, null]},"
    " {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{\"function\": {\"name\": "
    "\"f\","
    " \"arguments\": {\"a\": true}}}]}], \"tools\": null, \"bos_token\": \"<s>\","
    " \"eos_token\": \"</s>\", \"add_generation_prompt\": true, \"n\": 7, \"x\": -2.5}";

static void must(bool condition)
{
    if (!condition)
        abort();
}

static mn_status render(const uint8_t *data, size_t size, const json_t *variables, mn__string *out)
{
    mn_error error = {0};
    mn__template *tmpl;
    mn_status status = mn__template_parse(&tmpl, "fuzz", (const char *)data, (int64_t)size, &error);
    if (!status)
        status = mn__template_render(tmpl, variables, 0, out, &error);
    must(status == MN_OK || error.message[0] != '\0');
    mn__template_free(tmpl);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *variables = json_loads(input, 0, NULL);
    mn__string once = {0}, twice = {0};
    must(variables != NULL);
    mn_status status = render(data, size, variables, &once);
    must(mn__utf8_valid(once.text ? once.text : "", once.bytes) == once.bytes);
    must(status == MN_OK || once.bytes == 0);
    mn__memory_fail_nth(1 + (int64_t)(size * 7 % 61));
    mn_status failed = render(data, size, variables, &twice);
    bool met = mn__memory_fail_nth(0) == 0;
    must(met ? failed == MN_OK || failed == MN_ERROR_MEMORY || failed == status : failed == status);
    must(failed != MN_OK || (once.bytes == twice.bytes &&
                             (!once.bytes || !memcmp(once.text, twice.text, (size_t)once.bytes))));
    mn__string_free(&once);
    mn__string_free(&twice);
    must(mn__memory_now().blocks == 0);
    json_decref(variables);
    return 0;
}
