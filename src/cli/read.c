/* mneme read: a text is read into a session (eval/conversation.h). */
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/help.h"
#include "cli/table.h"
#include "data/document.h"
#include "eval/conversation.h"

typedef struct read_options {
    const char *model, *session;
    mn__string_list set;
    int64_t threads, window, stretch, save_every;
    int precision; /* run | f32 | bf16 */
    int weights;   /* mn__weights; 0: auto */
    int cache;     /* mn__kept */
    bool raw, replace, json;
} read_options;

#define OPTIONS read_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, model, "", "a pretrained model's folder or GGUF file, or a run's folder"),
    MN__STRING(OPTIONS, session, "", "the file that what was read is kept in"),
    MN__INT(OPTIONS, window, "0", 0, 1e9, "a token sees so many before it; 0: as the model has it"),
    MN__INT(OPTIONS, stretch, "0", 0, 1e9, "scale positions, to read a text of so many tokens"),
    MN__BOOL(OPTIONS, raw, "false", "the text alone, without the model's chat template"),
    MN__BOOL(OPTIONS, replace, "false", "begin anew, whatever the session holds"),
    MN__INT(OPTIONS, save_every, "600", 0, 1e9, "seconds between saves on the way; 0: none"),
    MN__LIST(OPTIONS, set, "", "a.b=c: reads otherwise than it was trained, attention.memory=1k"),
    MN__INT(OPTIONS, threads, "0", 0, 4096, "how many compute; 0: what the container allows"),
    MN__ENUM(OPTIONS, precision, "run", "run|f32|bf16", "of products; run: as it was trained"),
    MN__ENUM(OPTIONS, weights, "auto", "auto|f32|f16|bf16|int8|int4",
             "kept so; auto: of a pretrained model as products are"),
    MN__ENUM(OPTIONS, cache, "auto", "auto|f32|bf16|int8",
             "keys and values are kept so, here and in the session; auto: as products are"),
    MN__BOOL(OPTIONS, json, "false", "print one JSON object when it is done"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {own, NULL};

static mn_status print(mn__conversation *conversation, const mn__read_report *report, bool json,
                       mn_error *error)
{
    const mn__sync *sync = &report->sync;
    if (json)
        return mn__table_json(
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:b}", "session",
                      conversation->path, "folder", conversation->manner.model, "model",
                      mn__run_fingerprint(&conversation->run, error), "tokens",
                      (json_int_t)report->tokens, "reused", (json_int_t)sync->reused, "read",
                      (json_int_t)sync->read, "dropped", (json_int_t)sync->dropped, "bytes",
                      (json_int_t)conversation->saved_bytes, "seconds", report->seconds, "raw",
                      conversation->chat == NULL),
            error);
    mn__string text = {0};
    mn__string_printf(&text, "%s: ", conversation->path);
    mn__table_integer(&text, report->tokens);
    mn__string_puts(&text, " tokens, ");
    mn__table_integer(&text, sync->read);
    mn__string_puts(&text, " of them read now");
    if (sync->read)
        mn__string_printf(&text, " in %.1f s (%.0f tokens/s)", report->seconds,
                          (double)sync->read / report->seconds);
    mn__string_puts(&text, " and ");
    mn__table_integer(&text, sync->reused);
    mn__string_printf(&text, " before; %.1f MiB%s\n", (double)conversation->saved_bytes / (1 << 20),
                      conversation->chat ? "" : ", without a chat template");
    return mn__print(&text, error);
}

static mn_status read_text(mn__call *call, const mn__string *text, mn__device *device,
                           mn_error *error)
{
    const read_options *options = call->options;
    const mn__manner manner = {.model = options->model,
                               .set = options->set,
                               .precision = options->precision,
                               .weights = options->weights,
                               .cache = (mn__kept)options->cache,
                               .raw = options->raw,
                               .window = options->window,
                               .stretch = options->stretch};
    mn__conversation conversation;
    mn__read_report report;
    mn_status status =
        mn__conversation_open(&conversation, device, &manner, options->session, error);
    if (status != MN_OK)
        return status;
    status = mn__conversation_read(&conversation, text->text, text->bytes, options->replace,
                                   options->save_every, call->progress, &report, error);
    if (status == MN_OK)
        status = print(&conversation, &report, options->json, error);
    mn__conversation_close(&conversation);
    return status;
}

/* The text comes first: what cannot be read is said before a model is opened. */
static mn_status run(mn__call *call, mn_error *error)
{
    const read_options *options = call->options;
    if (!*options->model || !*options->session)
        return mn__fail(
            error, MN_ERROR_USAGE, "mneme read --model FOLDER TEXT --session FILE", "say which %s",
            *options->model ? "file to keep it in: --session" : "model is to read: --model");
    mn__string text = {0};
    mn__device device;
    mn_status status = mn__document_text(call->operands[0], &text, error);
    if (status == MN_OK && text.bytes == 0)
        status = mn__fail(error, MN_ERROR_FORMAT, "name a file with a text", "%s is empty",
                          call->operands[0]);
    mn__threads_set((int)options->threads);
    if (status == MN_OK)
        status = mn__device_open(&device, error);
    if (status == MN_OK) {
        status = read_text(call, &text, &device, error);
        mn__device_close(&device);
    }
    mn__string_free(&text);
    return status;
}

const mn__verb mn__verb_read = {
    .name = "read",
    .operands = "TEXT",
    .least = 1,
    .most = 1,
    .summary = "read a long text once, into a session that can be asked",
    .details =
        "Reads a text with a pretrained model or a run, and keeps what the model then knows\n"
        "of it in a file. TEXT is plain text or Markdown, which are read as they stand, or\n"
        "HTML, EPUB or PDF, of which the text is read. What was interrupted goes on by the\n"
        "same command. A text longer than the model's window is refused, with what can be\n"
        "done.\n\n"
        "  mneme read --model Llama-3.2-1B-Instruct book.txt --session book.mns\n"
        "  mneme ask --session book.mns 'Who is the lodger?'",
    .tables = tables,
    .options_bytes = sizeof(read_options),
    .run = run,
};
