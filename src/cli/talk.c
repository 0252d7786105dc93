/* Answers on the terminal. */
#include "cli/talk.h"

#include <stdio.h>
#include <string.h>

#include "cli/table.h"
#include "cli/terminal.h"

#define OPTIONS mn__talk
const mn__option mn__talk_options[] = {
    MN__INT(OPTIONS, threads, "0", 0, 4096, "how many compute; 0: what the container allows"),
    MN__INT(OPTIONS, tokens, "256", 1, 1e9, "of an answer, at most"),
    MN__FLOAT(OPTIONS, temperature, "0", 0, 1e6, "0: always the most probable token"),
    MN__INT(OPTIONS, top_k, "0", 0, 1e9, "choose among the k most probable; 0: all"),
    MN__FLOAT(OPTIONS, top_p, "1", 0, 1, "among the most probable that sum to this"),
    MN__FLOAT(OPTIONS, min_p, "0", 0, 1, "among those of this share of the most probable's"),
    MN__LIST(OPTIONS, stop, "", "end an answer before this text"),
    MN__INT(OPTIONS, seed, "1", 0, 1e18, "another seed, another answer"),
    MN__OPTIONS_END,
};
#undef OPTIONS

static bool emit(void *user, const char *text, int64_t bytes)
{
    mn__talk_out *out = user;
    out->bytes += bytes;
    if (out->text) {
        mn__string_add(out->text, text, bytes);
    } else {
        fwrite(text, 1, (size_t)bytes, stdout);
        fflush(stdout);
    }
    return !mn__terminal_stopped();
}

int64_t mn__talk_room(const mn__talk *talk, const char *question)
{
    enum { TEMPLATE = 256 };
    return talk->tokens + (int64_t)strlen(question) + TEMPLATE;
}

void mn__talk_warn(const mn__conversation *conversation)
{
    int64_t read = conversation->reading.ids.count;
    mn__string text = {0};
    if (read >= conversation->planned)
        return;
    mn__string_printf(&text, "%s holds the first ", conversation->path);
    mn__table_integer(&text, read);
    mn__string_puts(&text, " of ");
    mn__table_integer(&text, conversation->planned);
    mn__string_puts(&text, " tokens of its text: `mneme read` goes on");
    fprintf(stderr, "%s\n", text.text ? text.text : "");
    mn__string_free(&text);
}

mn_status mn__talk_ask(const mn__talk *talk, mn__conversation *conversation, const char *question,
                       mn__talk_out *out, mn__answer *answer, mn_error *error)
{
    const mn__generate_config config = {.tokens = talk->tokens,
                                        .sample = {.temperature = talk->temperature,
                                                   .top_k = talk->top_k,
                                                   .top_p = talk->top_p,
                                                   .min_p = talk->min_p,
                                                   .seed = talk->seed},
                                        .stop = talk->stop,
                                        .emit = emit,
                                        .user = out};
    mn_status status = mn__conversation_ask(conversation, question, &config, answer, error);
    if (!out->text && out->bytes)
        putchar('\n');
    fflush(stdout);
    return status;
}

void mn__talk_report(const mn__answer *answer)
{
    mn__string text = {0};
    const mn__generated *generated = &answer->generated;
    mn__string_puts(&text, "reused ");
    mn__table_integer(&text, answer->sync.reused);
    mn__string_puts(&text, " tokens, read ");
    mn__table_integer(&text, answer->sync.read);
    mn__string_puts(&text, ", dropped ");
    mn__table_integer(&text, answer->sync.dropped);
    mn__string_puts(&text, "; answered with ");
    mn__table_integer(&text, generated->tokens);
    if (generated->seconds > 0 && generated->tokens > 0)
        mn__string_printf(&text, " (%.1f tokens/s)",
                          (double)generated->tokens / generated->seconds);
    mn__terminal_clear();
    fprintf(stderr, "%s\n", text.text ? text.text : "");
    mn__string_free(&text);
}
