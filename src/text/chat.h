/* A model's chat template: a conversation as the text that the model was trained on. */
#ifndef MN__TEXT_CHAT_H
#define MN__TEXT_CHAT_H

#include "text/template.h"

typedef struct mn__chat mn__chat;

/* Of a Hugging Face folder: chat_template.jinja, else `chat_template` in
 * tokenizer_config.json (one, or a list of them by name: "default", and "tool_use" for
 * requests with tools); special tokens from tokenizer_config.json, then from
 * special_tokens_map.json. Of a GGUF file: tokenizer.chat_template, and special tokens by
 * their ids (tokenizer.ggml.bos_token_id). MN_ERROR_UNSUPPORTED: the model has no template, or
 * one with a statement that is not supported (text/template.h). */
mn_status mn__chat_open(mn__chat **chat, const char *path, mn_error *error);
/* The same of a template's text. tokens: an object as
 * tokenizer_config.json is, borrowed; NULL: no special tokens. `name` is for errors. */
mn_status mn__chat_new(mn__chat **chat, const char *name, const char *text, int64_t bytes,
                       const json_t *tokens, mn_error *error);
void mn__chat_free(mn__chat *chat); /* NULL is fine */

/* What a template is given, as by transformers' apply_chat_template. All is borrowed. */
typedef struct mn__chat_request {
    const json_t *messages; /* an array of {"role": ..., "content": ..., ...} */
    const json_t *tools;    /* an array of function descriptions, or NULL */
    const json_t *more;     /* an object of a template's own variables (enable_thinking), or NULL;
                             * goes before special tokens of the same name */
    bool answer;            /* end where the model's answer begins */
    int64_t now;            /* seconds since 1970 */
} mn__chat_request;

/* Appends the text, special tokens in it written out (so that it is tokenized with them and
 * without another beginning-of-text). Errors as of mn__template_render; MN_ERROR_FORMAT where
 * messages are no list of objects. */
mn_status mn__chat_render(const mn__chat *chat, const mn__chat_request *request, mn__string *out,
                          mn_error *error);

#endif
