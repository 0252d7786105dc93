/* Chat templates: errors that name what is wrong, bounds, memory, and those of a model's
 * folder. What they print is compared with the reference in tests/golden/test_template.c. */
#include "unit/faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "support/failing.h"
#include "support/folder.h"
#include "text/chat.h"

static json_t *json_of(const char *text)
{
    json_t *json;
    mn_error error;
    if (mn__json_parse("test", text, (int64_t)strlen(text), &json, &error))
        fail_msg("%s", error.message);
    return json;
}

static mn_status render(const char *template, const char *input, mn__string *out, mn_error *error)
{
    mn__template *tmpl;
    json_t *variables = json_of(input);
    mn_status status =
        mn__template_parse(&tmpl, "model", template, (int64_t)strlen(template), error);
    if (!status)
        status = mn__template_render(tmpl, variables, 0, out, error);
    mn__template_free(tmpl);
    json_decref(variables);
    return status;
}

static void check_fails(const char *template, mn_status code, const char *message)
{
    mn__string out = {0};
    mn_error error = {0};
    mn_status status = render(template, "{\"n\": 1, \"s\": \"abc\"}", &out, &error);
    if (status != code || strcmp(error.message, message) != 0)
        fail_msg("%.60s: %s '%s'", template, mn_status_name(status), error.message);
    assert_non_null(strstr(error.hint, "--raw"));
    assert_int_equal(out.bytes, 0);
    mn__string_free(&out);
}

static void names_what_is_not_supported(void **state)
{
    (void)state;
    const mn_status code = MN_ERROR_UNSUPPORTED;
    check_fails("a\n{% include 'x' %}", code,
                "model, line 2: the statement 'include' is not supported");
    check_fails("{% block x %}{% endblock %}", code,
                "model, line 1: the statement 'block' is not supported");
    check_fails("{% call f() %}{% endcall %}", code,
                "model, line 1: the statement 'call' is not supported");
    check_fails("{% for x in [] recursive %}{% endfor %}", code,
                "model, line 1: recursive loops are not supported");
    check_fails("{% set x | upper %}a{% endset %}", code,
                "model, line 1: a filter on a block of set is not supported");
    check_fails("{% macro f() %}{{ caller() }}{% endmacro %}", code,
                "model, line 1: a macro cannot use caller");
    check_fails("{{ range(*[1]) }}", code, "model, line 1: arguments by * or ** are not supported");
    check_fails("\n\n{{ s | urlize }}", code,
                "model, line 3: the filter 'urlize' is not supported");
    check_fails("{{ s is filter }}", code, "model, line 1: the test 'filter' is not supported");
    check_fails("{{ s.zfill(3) }}", code,
                "model, line 1: the method 'zfill' of a string is not supported");
    check_fails("{{ {}.pop() }}", code, "model, line 1: there is no function or method 'pop'");
    check_fails("{{ lipsum() }}", code, "model, line 1: there is no function or method 'lipsum'");
    check_fails("{{ s | tojson(default=1) }}", code,
                "model, line 1: the filter 'tojson' has no argument 'default'");
    check_fails("{{ '\xC3\x9F' | upper }}", code,
                "model, line 1: the upper case of U+00DF is not known");
    check_fails("{{ range }}", code, "model, line 1: a function cannot be printed");
}

static void names_what_is_wrong(void **state)
{
    (void)state;
    const mn_status code = MN_ERROR_FORMAT;
    check_fails("{{ n", code, "model, line 1: a tag has no end \"}}\"");
    check_fails("a\n{% if n", code, "model, line 2: a tag has no end \"%}\"");
    check_fails("{# a", code, "model, line 1: a comment has no end \"#}\"");
    check_fails("{% raw %}", code, "model, line 1: a raw block has no {% endraw %}");
    check_fails("{{ 'a }}", code, "model, line 1: a string has no end");
    check_fails("{{ '\\ud800' }}", code,
                "model, line 1: a string has an escape that is no character");
    check_fails("{{ 99999999999999999999 }}", code, "model, line 1: a number is too large");
    check_fails("{{ (1] }}", code, "model, line 1: a closing bracket has no opening one");
    check_fails("{{ n ! }}", code, "model, line 1: the character '!' has no place here");
    check_fails("{% if n %}\n\na", code,
                "model, line 3: the template ends where 'endif' should be");
    check_fails("{% endfor %}", code, "model, line 1: 'endfor' where another statement should be");
    check_fails("{{ n n }}", code, "model, line 1: 'n' where \"}}\" should be");
    check_fails("{{ n == }}", code, "model, line 1: \"}}\" where an expression should be");
    check_fails("{% continue %}", code, "model, line 1: continue outside a loop");
    check_fails("\n{{ x.y }}", code, "model, line 2: 'x' is undefined");
    check_fails("{{ s.x.y }}", code, "model, line 1: 'x' is undefined");
    check_fails("{{ s + n }}", code,
                "model, line 1: '+' does not work on a string and a whole number");
    check_fails("{{ n // 0 }}", code, "model, line 1: a division by 0");
    check_fails("{{ 9223372036854775807 + n }}", code, "model, line 1: a number is too large");
    check_fails("{{ 10 ** 100 }}", code, "model, line 1: a number is too large");
    check_fails("{% set s.x = 1 %}", code,
                "model, line 1: 's' is a string: only a namespace's attributes can be set");
    check_fails("{% for a, b in [[1]] %}{% endfor %}", code, "model, line 1: 1 values for 2 names");
    check_fails("{{ raise_exception('alternate, please') }}", MN_ERROR_MISMATCH,
                "model, line 1: the template refuses this conversation: alternate, please");
}

/* ---- Bounds ----------------------------------------------------------------------------- */

static mn__string repeated(const char *before, const char *what, int64_t times, const char *after)
{
    mn__string all = {0};
    mn__string_puts(&all, before);
    for (int64_t i = 0; i < times; i++)
        mn__string_puts(&all, what);
    mn__string_puts(&all, after);
    assert_false(all.failed);
    return all;
}

static void check_repeated_fails(const char *before, const char *what, int64_t times,
                                 const char *after, const char *message)
{
    mn__string template = repeated(before, what, times, after);
    check_fails(template.text, MN_ERROR_FORMAT, message);
    mn__string_free(&template);
}

/* Each would run for ever, or take all memory; a second or two is what they may take. */
static void ends_hostile_templates(void **state)
{
    (void)state;
    const char *work = "model, line 1: the template does not come to an end";
    const char *memory = "model, line 1: the template wants too much memory";
    const char *depth = "model, line 1: values or calls are nested too deep";
    mn__string out = {0};
    mn_error error = {0};
    int64_t peak = mn__memory_now().bytes;
    struct timespec begin, end;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
    mn_status status =
        render("{% for i in range(100000) %}{% for j in range(100000) %}{% if i %}{% endif %}"
               "{% endfor %}{% endfor %}",
               "{}", &out, &error);
    assert_int_equal(status, MN_ERROR_FORMAT);
    check_fails("{% set ns = namespace(x='a') %}{% for i in range(99) %}"
                "{% set ns.x = ns.x + ns.x %}{% endfor %}",
                MN_ERROR_FORMAT, memory);
    check_fails("{{ 'abcdefgh' * 1000000000000 }}", MN_ERROR_FORMAT, work);
    check_fails("{{ 'abcdefgh' * 9223372036854775807 }}", MN_ERROR_FORMAT, work);
    check_fails("{% set s = 'a' * 1000000 %}{% for i in range(90) %}{{ s }}{% endfor %}",
                MN_ERROR_FORMAT, "model, line 1: the template prints too much");
    check_fails("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", MN_ERROR_FORMAT, depth);
    check_fails("{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}", MN_ERROR_FORMAT,
                depth);
    check_fails("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}"
                "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
                MN_ERROR_FORMAT, depth);
    check_fails("{% set ns = namespace(x=[]) %}{% for i in range(1000) %}"
                "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x == [ns.x] }}",
                MN_ERROR_FORMAT, depth);
    check_fails("{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
                "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
                MN_ERROR_FORMAT, work);
    check_fails("{{ [1] | tojson(indent=100000000000) }}", MN_ERROR_FORMAT, memory);
    check_fails("{{ 'a' | indent(100000000000, true) }}", MN_ERROR_FORMAT, work);
    check_fails("{{ range(100001) }}", MN_ERROR_FORMAT,
                "model, line 1: range has over 100000 items");
    check_fails("{{ strftime_now('%99999999Y') }}", MN_ERROR_FORMAT,
                "model, line 1: strftime_now was asked for over 254 bytes");
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
    assert_true(end.tv_sec - begin.tv_sec < 60); /* 14 of them, slowed by sanitizers */
    assert_true(mn__memory_now().peak_bytes - peak < INT64_C(1) << 30);
    mn__string_free(&out);
}

static void bounds_nesting_of_the_text(void **state)
{
    (void)state;
    const char *deep = "model, line 1: this is nested too deep";
    check_repeated_fails("{{ ", "(", 101, "", "model, line 1: brackets are nested too deep");
    check_repeated_fails("{{ ", "not ", 10000, "n }}", deep);
    check_repeated_fails("{{ ", "-", 10000, "n }}", deep);
    check_repeated_fails("{{ ", "n if n else ", 10000, "n }}", deep);
    check_repeated_fails("", "{% if n %}", 10000, "", deep);
    check_repeated_fails("", "{% macro f() %}", 10000, "", deep);
    check_repeated_fails("{{ n", " + n", 10000, " }}",
                         "model, line 1: values or calls are nested too deep");
    check_repeated_fails("{{ s", "|trim", 10000, " }}",
                         "model, line 1: values or calls are nested too deep");
    check_repeated_fails("{{ s", ".x", 10000, " }}",
                         "model, line 1: values or calls are nested too deep");
    check_repeated_fails("", "x", (1 << 20) + 1, "",
                         "model: a template of 1048577 bytes is over the limit of 1 MiB");
    check_fails("a\xFF", MN_ERROR_FORMAT, "model: byte 1 is not UTF-8");
    mn__string all = repeated("{{ 'a'", "~'a'", 10000, " }}"), out = {0};
    mn_error error;
    assert_int_equal(render(all.text, "{}", &out, &error), MN_OK); /* flat: no depth */
    assert_int_equal(out.bytes, 10001);
    mn__string_free(&all);
    mn__string_free(&out);
}

/* A long document in a message is no hostile template. */
static void takes_long_messages(void **state)
{
    (void)state;
    const int64_t bytes = 8 << 20;
    char *book = malloc((size_t)bytes + 1);
    assert_non_null(book);
    memset(book, 'x', (size_t)bytes);
    book[bytes] = '\0';
    json_t *variables = json_pack("{s:[{s:s}]}", "messages", "content", book);
    const char *text = "{% for m in messages %}{{ '<' + m.content | trim + '>' + '\n' }}"
                       "{{ m.content | length }}{% if 'y' in m.content %}!{% endif %}"
                       "{{ m.content[:3] }}{% endfor %}";
    mn__template *tmpl;
    mn__string out = {0};
    mn_error error;
    assert_int_equal(mn__template_parse(&tmpl, "t", text, (int64_t)strlen(text), &error), MN_OK);
    if (mn__template_render(tmpl, variables, 0, &out, &error))
        fail_msg("%s", error.message);
    assert_int_equal(out.bytes, bytes + 3 + 7 + 3);
    mn__string_free(&out);
    mn__template_free(tmpl);
    json_decref(variables);
    free(book);
}

/* ---- Memory ------------------------------------------------------------------------------- */

static const char everything[] =
    "{% macro f(a, b=[1, 'x']) %}{% for x in b if x %}{{ a ~ x }}{% else %}{% endfor %}"
    "{% endmacro %}{% set ns = namespace(k=1) %}{% set ns.k = ns.k + 1 %}"
    "{% set t %}{{ f(s) }}{% endset %}{{ t | upper | replace('A', 'b') | trim }}"
    "{{ {'a': [1.5, none, 'x'], 'b': t[::-1]} | tojson(indent=2) }}{{ [s, (1,), {'k': ns.k}] }}"
    "{{ s.split('b') | map('upper') | join('-') }}{{ s[0] ~ s['upper']() }}{{ 'a' 'b' }}"
    "{{ people | selectattr('age', 'gt', 1) | sort(attribute='age') | list | length }}"
    "{{ strftime_now('%Y') }}{{ range(3) | list }}{{ d.items() | list }}{{ s.replace('a', 'b') }}";

static mn_status all_of_it(void *user, mn_error *error)
{
    mn__template *tmpl;
    mn__string out = {0};
    mn_status status =
        mn__template_parse(&tmpl, "t", everything, (int64_t)sizeof everything - 1, error);
    if (!status)
        status = mn__template_render(tmpl, user, 0, &out, error);
    mn__template_free(tmpl);
    mn__string_free(&out);
    return status;
}

static void test_allocations(void **state)
{
    (void)state;
    json_t *input = json_of("{\"s\": \"abc\", \"d\": {\"k\": 1},"
                            " \"people\": [{\"age\": 3}, {\"age\": 2}]}");
    mn_error error;
    if (all_of_it(input, &error))
        fail_msg("%s", error.message);
    assert_true(failing_each("a template", all_of_it, input, true, NULL) > 100);
    json_decref(input);
}

/* ---- Chats ------------------------------------------------------------------------------------
 */

static const char plain[] = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
                            "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
                            "{{ 'T' if tools else 'N' }}{{ thinking | default('-') }}";

static mn_status open_and_render(void *user, mn_error *error)
{
    mn__chat *chat;
    mn__string out = {0};
    const char *folder = user;
    json_t *messages = json_of("[{\"role\": \"user\", \"content\": \"Hi\"}]");
    const mn__chat_request request = {.messages = messages, .answer = true};
    mn_status status = mn__chat_open(&chat, folder, error);
    if (!status)
        status = mn__chat_render(chat, &request, &out, error);
    if (!status)
        assert_string_equal(out.text, "<s>[user]Hi[assistant]N-");
    mn__chat_free(chat);
    mn__string_free(&out);
    json_decref(messages);
    return status;
}

static void write_config(const char *folder, const char *rest)
{
    mn__string text = {0};
    mn__string_printf(&text, "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": null%s", rest);
    folder_write(folder_path(folder, "tokenizer_config.json"), text.text, text.bytes);
    mn__string_free(&text);
}

static void opens_folders(void **state)
{
    mn_error error;
    char *folder = *state;
    mn__string rest = {0};
    assert_int_equal(open_and_render(folder, &error), MN_ERROR_UNSUPPORTED); /* empty */
    assert_non_null(strstr(error.message, "this model has no chat template"));
    assert_non_null(strstr(error.hint, "--raw"));
    write_config(folder, ", \"chat_template\": null}");
    assert_int_equal(open_and_render(folder, &error), MN_ERROR_UNSUPPORTED);
    mn__string_puts(&rest, ", \"chat_template\": ");
    mn__string_json(&rest, plain, (int64_t)sizeof plain - 1);
    mn__string_puts(&rest, "}");
    write_config(folder, rest.text);
    if (open_and_render(folder, &error))
        fail_msg("%s", error.message);
    assert_true(failing_each("a chat", open_and_render, folder, true, NULL) > 20);
    /* The file goes first, the token comes from the other file. */
    write_config(folder, ", \"bos_token\": 1}");
    assert_int_equal(open_and_render(folder, &error), MN_ERROR_FORMAT); /* a key twice */
    folder_write(folder_path(folder, "tokenizer_config.json"), "{\"chat_template\": \"no\"}", -1);
    folder_write(folder_path(folder, "special_tokens_map.json"), "{\"bos_token\": \"<s>\"}", -1);
    folder_write(folder_path(folder, "chat_template.jinja"), plain, -1);
    if (open_and_render(folder, &error))
        fail_msg("%s", error.message);
    folder_write(folder_path(folder, "chat_template.jinja"), "{% x %}", -1);
    assert_int_equal(open_and_render(folder, &error), MN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "chat_template.jinja, line 1: the statement 'x'"));
    mn__string_free(&rest);
}

static void check_request(const mn__chat *chat, const mn__chat_request *request, const char *wanted)
{
    mn__string out = {0};
    mn_error error;
    if (mn__chat_render(chat, request, &out, &error))
        fail_msg("%s", error.message);
    assert_string_equal(out.text, wanted);
    mn__string_free(&out);
}

static void chooses_templates_and_variables(void **state)
{
    char *folder = *state;
    folder_remove_all(folder_path(folder, "chat_template.jinja"));
    folder_remove_all(folder_path(folder, "special_tokens_map.json"));
    mn__string rest = {0};
    mn__string_puts(&rest, ", \"chat_template\": [{\"name\": \"tool_use\", \"template\":"
                           " \"{{ tools | length }}{{ bos_token }}\"}, {\"name\": \"default\","
                           " \"template\": ");
    mn__string_json(&rest, plain, (int64_t)sizeof plain - 1);
    mn__string_puts(&rest, "}]}");
    write_config(folder, rest.text);
    mn__chat *chat;
    mn_error error;
    mn__string out = {0};
    if (mn__chat_open(&chat, folder, &error))
        fail_msg("%s", error.message);
    json_t *messages = json_of("[{\"role\": \"user\", \"content\": \"a\"}]"),
           *tools = json_of("[{}]"), *none = json_of("[]"),
           *more = json_of("{\"thinking\": true, \"bos_token\": \"B\"}"),
           *wrong = json_of("[{\"role\": \"user\"}, {\"content\": \"a\"}]");
    check_request(chat, &(mn__chat_request){.messages = messages}, "<s>[user]aN-");
    check_request(chat, &(mn__chat_request){.messages = messages, .tools = none}, "<s>[user]aN-");
    check_request(chat, &(mn__chat_request){.messages = messages, .tools = tools}, "1<s>");
    check_request(chat, &(mn__chat_request){.messages = messages, .more = more}, "B[user]aNTrue");
    assert_int_equal(mn__chat_render(chat, &(mn__chat_request){.messages = wrong}, &out, &error),
                     MN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "message 2 has no role"));
    assert_int_equal(mn__chat_render(chat, &(mn__chat_request){.messages = more}, &out, &error),
                     MN_ERROR_FORMAT);
    json_decref(messages);
    json_decref(tools);
    json_decref(none);
    json_decref(more);
    json_decref(wrong);
    mn__string_free(&rest);
    mn__chat_free(chat);
}

int main(void)
{
    setenv("TZ", "UTC", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_what_is_not_supported),
        cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(ends_hostile_templates),
        cmocka_unit_test(bounds_nesting_of_the_text),
        cmocka_unit_test(takes_long_messages),
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(opens_folders),
        cmocka_unit_test(chooses_templates_and_variables),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
