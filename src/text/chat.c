/* Chat templates of models, and the variables that they are given. */
#include "text/chat.h"

#include <string.h>

#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/template_own.h"

enum { MOST_TEMPLATE = 1 << 20 };
#define GGUF_TEMPLATE "tokenizer.chat_template"

struct mn__chat {
    mn__template *plain, *tools; /* tools: for requests with tools, or NULL */
    json_t *tokens;              /* name to text, or to a list of texts */
    char *name;
};

static mn_status no_memory(const char *name, mn_error *error)
{
    return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s: out of memory", name);
}

static mn_status no_template(const char *path, mn_error *error)
{
    return mn__fail(error, MN_ERROR_UNSUPPORTED, mn__jinja_hint,
                    "%s: this model has no chat template", path);
}

/* ---- Special tokens -------------------------------------------------------------------- */

/* "text" or {"content": "text"}; NULL for anything else. */
static json_t *token_text(json_t *token)
{
    json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;
    return json_is_string(text) ? text : NULL;
}

static mn_status add_token(mn__chat *chat, const char *key, json_t *token, mn_error *error)
{
    if (json_object_get(chat->tokens, key))
        return MN_OK;
    json_t *text = token_text(token);
    if (text)
        return json_object_set(chat->tokens, key, text) ? no_memory(chat->name, error) : MN_OK;
    if (!json_is_array(token) || strcmp(key, "additional_special_tokens") != 0)
        return MN_OK;
    json_t *list = json_array(), *item;
    size_t i;
    bool failed = !list;
    json_array_foreach(token, i, item)
    {
        text = token_text(item);
        if (text)
            failed |= json_array_append(list, text) != 0;
    }
    failed |= json_object_set(chat->tokens, key, list) != 0;
    json_decref(list);
    return failed ? no_memory(chat->name, error) : MN_OK;
}

/* The tokens of tokenizer_config.json or special_tokens_map.json that are not there yet. */
static mn_status add_tokens(mn__chat *chat, const json_t *config, mn_error *error)
{
    static const char *const names[] = {
        "bos_token", "eos_token", "unk_token",  "sep_token",
        "pad_token", "cls_token", "mask_token", "additional_special_tokens",
    };
    mn_status status = MN_OK;
    for (size_t i = 0; !status && i < sizeof names / sizeof *names; i++)
        status = add_token(chat, names[i], json_object_get(config, names[i]), error);
    return status;
}

/* ---- Opening ------------------------------------------------------------------------------- */

static mn_status chat_make(mn__chat **chat, const char *name, mn_error *error)
{
    mn__chat *made = mn__calloc(1, (int64_t)sizeof *made);
    *chat = NULL;
    if (!made)
        return no_memory(name, error);
    made->name = mn__strdup(name);
    made->tokens = json_object();
    *chat = made;
    return made->name && made->tokens ? MN_OK : no_memory(name, error);
}

void mn__chat_free(mn__chat *chat)
{
    if (!chat)
        return;
    mn__template_free(chat->plain);
    mn__template_free(chat->tools);
    json_decref(chat->tokens);
    mn__free(chat->name);
    mn__free(chat);
}

/* Frees a chat that failed. */
static mn_status finish(mn__chat **chat, mn_status status)
{
    if (status) {
        mn__chat_free(*chat);
        *chat = NULL;
    }
    return status;
}

mn_status mn__chat_new(mn__chat **chat, const char *name, const char *text, int64_t bytes,
                       const json_t *tokens, mn_error *error)
{
    mn_status status = chat_make(chat, name, error);
    if (!status)
        status = mn__template_parse(&(*chat)->plain, name, text, bytes, error);
    if (!status && tokens)
        status = add_tokens(*chat, tokens, error);
    return finish(chat, status);
}

static mn_status parse_json(mn__template **tmpl, const char *name, const json_t *text,
                            mn_error *error)
{
    return mn__template_parse(tmpl, name, json_string_value(text),
                              (int64_t)json_string_length(text), error);
}

/* `chat_template` of tokenizer_config.json: a text, or a list of {"name", "template"}. */
static mn_status parse_config(mn__chat *chat, const json_t *templates, mn_error *error)
{
    size_t i;
    json_t *item;
    if (json_is_string(templates))
        return parse_json(&chat->plain, chat->name, templates, error);
    mn_status status = MN_OK;
    json_array_foreach(templates, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *text = json_object_get(item, "template");
        if (status || !name || !json_is_string(text))
            continue;
        if (strcmp(name, "default") == 0 && !chat->plain)
            status = parse_json(&chat->plain, chat->name, text, error);
        else if (strcmp(name, "tool_use") == 0 && !chat->tools)
            status = parse_json(&chat->tools, chat->name, text, error);
    }
    return status;
}

/* A file of the folder, parsed; NULL where it is not there. */
static mn_status read_config(const char *folder, const char *file, json_t **config, mn_error *error)
{
    mn__string path = {0};
    *config = NULL;
    mn__string_printf(&path, "%s/%s", folder, file);
    mn_status status = MN_OK;
    if (path.failed)
        status = no_memory(folder, error);
    else if (mn__file_exists(path.text))
        status = mn__json_read(path.text, config, error);
    mn__string_free(&path);
    return status;
}

static mn_status read_tokens(mn__chat *chat, const char *folder, mn_error *error)
{
    json_t *config;
    mn_status status = read_config(folder, "special_tokens_map.json", &config, error);
    if (!status && config)
        status = add_tokens(chat, config, error);
    json_decref(config);
    return status;
}

static mn_status read_file(mn__chat *chat, const char *path, mn_error *error)
{
    char *text;
    int64_t bytes;
    mn_status status = mn__file_read(path, MOST_TEMPLATE, &text, &bytes, error);
    if (status)
        return status;
    status = mn__template_parse(&chat->plain, path, text, bytes, error);
    mn__free(text);
    return status;
}

static mn_status open_folder(mn__chat *chat, const char *folder, mn_error *error)
{
    json_t *config;
    mn__string path = {0};
    mn_status status = read_config(folder, "tokenizer_config.json", &config, error);
    if (!status && config)
        status = add_tokens(chat, config, error);
    if (!status)
        status = read_tokens(chat, folder, error);
    mn__string_printf(&path, "%s/chat_template.jinja", folder);
    if (!status && path.failed)
        status = no_memory(folder, error);
    if (!status && mn__file_exists(path.text))
        status = read_file(chat, path.text, error);
    else if (!status)
        status = parse_config(chat, json_object_get(config, "chat_template"), error);
    if (!status && !chat->plain)
        status = no_template(folder, error);
    mn__string_free(&path);
    json_decref(config);
    return status;
}

/* A GGUF file names its special tokens by their ids. */
static mn_status add_gguf_tokens(mn__chat *chat, const mn__gguf *file, mn_error *error)
{
    static const char *const named[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                           {"eos_token", "tokenizer.ggml.eos_token_id"}};
    const mn__gguf_value *tokens;
    mn_status status =
        mn__gguf_array(file, "tokenizer.ggml.tokens", MN__GGUF_STRING, &tokens, error);
    for (size_t i = 0; !status && i < sizeof named / sizeof *named; i++) {
        int64_t id;
        if (!mn__gguf_find_value(file, named[i][1]))
            continue;
        status = mn__gguf_int(file, named[i][1], &id, error);
        if (!status && (id < 0 || id >= tokens->as.array.count))
            status = mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: %s %lld is no token's", chat->name,
                              named[i][1], (long long)id);
        if (status)
            break;
        const mn__gguf_text *text = &tokens->as.array.texts[id];
        if (json_object_set_new(chat->tokens, named[i][0],
                                json_stringn(text->text, (size_t)text->bytes)))
            status = no_memory(chat->name, error);
    }
    return status;
}

static mn_status open_gguf(mn__chat *chat, const char *path, mn_error *error)
{
    mn__gguf *file;
    const char *text;
    mn_status status = mn__gguf_open(&file, path, error);
    if (status)
        return status;
    if (!mn__gguf_find_value(file, GGUF_TEMPLATE))
        status = no_template(path, error);
    if (!status)
        status = mn__gguf_string(file, GGUF_TEMPLATE, &text, error);
    if (!status)
        status = mn__template_parse(&chat->plain, chat->name, text, (int64_t)strlen(text), error);
    if (!status)
        status = add_gguf_tokens(chat, file, error);
    mn__gguf_close(file);
    return status;
}

mn_status mn__chat_open(mn__chat **chat, const char *path, mn_error *error)
{
    bool gguf = mn__gguf_is_model(path);
    mn__string name = {0};
    *chat = NULL;
    mn__string_printf(&name, "%s%s", path,
                      gguf ? ": " GGUF_TEMPLATE : "/tokenizer_config.json: chat_template");
    mn_status status = name.failed ? no_memory(path, error) : chat_make(chat, name.text, error);
    mn__string_free(&name);
    if (!status)
        status = gguf ? open_gguf(*chat, path, error) : open_folder(*chat, path, error);
    return finish(chat, status);
}

/* ---- Rendering
 * ----------------------------------------------------------------------------------- */

static mn_status check_messages(const mn__chat *chat, const json_t *messages, mn_error *error)
{
    if (!json_is_array(messages))
        return mn__fail(error, MN_ERROR_FORMAT, NULL, "%s: the messages are no list", chat->name);
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!json_is_string(json_object_get(json_array_get(messages, i), "role")))
            return mn__fail(error, MN_ERROR_FORMAT,
                            "a message is like {\"role\": \"user\", \"content\": \"Hello\"}",
                            "%s: message %zu has no role", chat->name, i + 1);
    return MN_OK;
}

/* Sets a borrowed value; Jansson counts references in the value, so that const must go. */
static bool set(json_t *variables, const char *key, const json_t *value)
{
    return json_object_set(variables, key, (json_t *)(uintptr_t)value) == 0;
}

mn_status mn__chat_render(const mn__chat *chat, const mn__chat_request *request, mn__string *out,
                          mn_error *error)
{
    mn_status status = check_messages(chat, request->messages, error);
    if (status)
        return status;
    bool tools = request->tools && json_array_size(request->tools) > 0;
    json_t *variables = json_copy(chat->tokens);
    bool made =
        variables && set(variables, "messages", request->messages) &&
        set(variables, "tools", tools ? request->tools : json_null()) &&
        set(variables, "documents", json_null()) &&
        set(variables, "add_generation_prompt", json_boolean(request->answer)) &&
        (!request->more || json_object_update(variables, (json_t *)(uintptr_t)request->more) == 0);
    status = made ? mn__template_render(tools && chat->tools ? chat->tools : chat->plain, variables,
                                        request->now, out, error)
                  : no_memory(chat->name, error);
    json_decref(variables);
    return status;
}
