/* mneme read: a text is read into a session (eval/conversation.h). */
#include "base/memory.h"
#include "base/threads.h"
#include "cli/cli.h"
#include "cli/help.h"
#include "cli/table.h"
#include "eval/conversation.h"

typedef struct read_options {
    const char *model, *session;
    mn__string_list set;
    int64_t threads, window, stretch, save_every;
    int precision; /* run | f32 | bf16 */
    bool raw, replace, json;
} read_options;

#define OPTIONS read_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, model, "", "the folder of a pretrained model, or of a run"),
    MN__STRING(OPTIONS, session, "", "the file that what was read is kept in"),
    MN__INT(OPTIONS, window, "0", 0, 1e9, "a token sees so many before it; 0: as the model has it"),
    MN__INT(OPTIONS, stretch, "0", 0, 1e9, "scale positions, to read a text of so many tokens"),
    MN__BOOL(OPTIONS, raw, "false", "the text alone, without the model's chat template"),
    MN__BOOL(OPTIONS, replace, "false", "begin anew, whatever the session holds"),
    MN__INT(OPTIONS, save_every, "600", 0, 1e9, "seconds between saves on the way; 0: none"),
    MN__LIST(OPTIONS, set, "", "a.b=c: reads otherwise than it was trained, attention.memory=1k"),
    MN__INT(OPTIONS, threads, "0", 0, 4096, "how many compute; 0: what the container allows"),
    MN__ENUM(OPTIONS, precision, "run", "run|f32|bf16", "of products; run: as it was trained"),
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

static mn_status read_text(mn__call *call, mn__conversation *conversation, mn_error *error)
{
    const read_options *options = call->options;
    char *text;
    int64_t bytes;
    mn__read_report report;
    mn_status status = mn__file_read(call->operands[0], 0, &text, &bytes, error);
    if (status != MN_OK)
        return status;
    if (bytes == 0)
        status = mn__fail(error, MN_ERROR_FORMAT, "name a file with a text", "%s is empty",
                          call->operands[0]);
    else
        status = mn__conversation_read(conversation, text, bytes, options->replace,
                                       options->save_every, call->progress, &report, error);
    mn__free(text);
    return status == MN_OK ? print(conversation, &report, options->json, error) : status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const read_options *options = call->options;
    if (!*options->model || !*options->session)
        return mn__fail(
            error, MN_ERROR_USAGE, "mneme read --model FOLDER TEXT --session FILE", "say which %s",
            *options->model ? "file to keep it in: --session" : "model is to read: --model");
    const mn__manner manner = {.model = options->model,
                               .set = options->set,
                               .precision = options->precision,
                               .raw = options->raw,
                               .window = options->window,
                               .stretch = options->stretch};
    mn__device device;
    mn__conversation conversation;
    mn__threads_set((int)options->threads);
    mn_status status = mn__device_open(&device, error);
    if (status != MN_OK)
        return status;
    status = mn__conversation_open(&conversation, &device, &manner, options->session, error);
    if (status == MN_OK) {
        status = read_text(call, &conversation, error);
        mn__conversation_close(&conversation);
    }
    mn__device_close(&device);
    return status;
}

const mn__verb mn__verb_read = {
    .name = "read",
    .operands = "TEXT",
    .least = 1,
    .most = 1,
    .summary = "read a long text once, into a session that can be asked",
    .details = "Reads a text file with a pretrained model or a run, and keeps what the model then\n"
               "knows of it in a file. What was interrupted goes on by the same command. A text\n"
               "longer than the model's window is refused, with what can be done.\n\n"
               "  mneme read --model Llama-3.2-1B-Instruct book.txt --session book.mns\n"
               "  mneme ask --session book.mns 'Who is the lodger?'",
    .tables = tables,
    .options_bytes = sizeof(read_options),
    .run = run,
};
