/* Generation. */
#include "eval/generate.h"

#include <string.h>

#include "base/progress.h"
#include "reader/limit.h"
#include "text/utf8.h"

typedef struct generation {
    mn__run *run;
    const mn__generate_config *config;
    mn__generated *generated;
    mn__reading *reading;
    mn__sampler sampler;
    mn__utf8_stream stream;
    mn__string waiting; /* text not handed on yet */
} generation;

/* ---- Stop strings ------------------------------------------------------------------- */

/* The first stop string in what waits: where it begins, or -1. */
static int64_t find_stop(generation *work)
{
    int64_t first = -1;
    for (int64_t i = 0; i < work->config->stop.count && work->waiting.bytes; i++) {
        const char *stop = work->config->stop.items[i];
        const char *at =
            *stop ? memmem(work->waiting.text, (size_t)work->waiting.bytes, stop, strlen(stop))
                  : NULL;
        if (at && (first < 0 || at - work->waiting.text < first)) {
            first = at - work->waiting.text;
            work->generated->stopped_by = stop;
        }
    }
    return first;
}

/* How many of the last bytes begin a stop string. */
static int64_t may_stop(const generation *work)
{
    int64_t most = 0;
    for (int64_t i = 0; i < work->config->stop.count; i++) {
        const char *stop = work->config->stop.items[i];
        int64_t bytes = (int64_t)strlen(stop) - 1;
        bytes = bytes < work->waiting.bytes ? bytes : work->waiting.bytes;
        while (bytes > most &&
               memcmp(work->waiting.text + work->waiting.bytes - bytes, stop, (size_t)bytes) != 0)
            bytes--;
        most = bytes > most ? bytes : most;
    }
    return most;
}

static mn_status hand_on(generation *work, int64_t bytes, mn_error *error)
{
    if (work->waiting.failed)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the text");
    if (bytes == 0)
        return MN_OK;
    if (!work->config->emit(work->config->user, work->waiting.text, bytes))
        return mn__fail(error, MN_ERROR_INTERRUPTED, NULL, "stopped after %lld tokens",
                        (long long)work->generated->tokens);
    memmove(work->waiting.text, work->waiting.text + bytes, (size_t)(work->waiting.bytes - bytes));
    work->waiting.bytes -= bytes;
    return MN_OK;
}

/* A stop string's first byte may be within a character only if the string is no
 * valid UTF-8; the cut is then moved to the character's start. */
static int64_t whole_characters(const generation *work, int64_t bytes)
{
    return bytes > 0 ? mn__utf8_valid(work->waiting.text, bytes) : 0;
}

static mn_status take_text(generation *work, bool last, mn_error *error)
{
    int64_t stop = find_stop(work);
    int64_t bytes = stop >= 0 ? stop
                    : last    ? work->waiting.bytes
                              : work->waiting.bytes - may_stop(work);
    return hand_on(work, whole_characters(work, bytes), error);
}

/* ---- Tokens ----------------------------------------------------------------------------- */

static bool is_end(const mn__run *run, int32_t id)
{
    for (int64_t i = 0; i < run->end_count; i++)
        if (run->ends[i] == id)
            return true;
    return false;
}

static mn_status next_token(generation *work, mn_error *error)
{
    const mn__tokenizer *tokenizer = work->run->tokenizer;
    mn__generated *generated = work->generated;
    const float *logits = mn__reading_logits(work->reading, error);
    if (!logits)
        return error ? error->code : MN_ERROR_MEMORY;
    int32_t id = mn__sampler_next(&work->sampler, logits);
    if (id < 0)
        return mn__fail(error, MN_ERROR_NUMBER, "was the training stable? try f32",
                        "the logits of token %lld are not finite", (long long)generated->tokens);
    if (is_end(work->run, id)) {
        generated->ended = true;
        return MN_OK;
    }
    int64_t bytes;
    const char *piece = mn__tokenizer_piece(tokenizer, id, &bytes);
    bool strip = generated->tokens == 0 && work->config->prompt_bytes == 0 &&
                 tokenizer->strip_first_space && bytes > 0 && *piece == ' ';
    if (!work->config->hide_special || !tokenizer->special || !tokenizer->special[id])
        mn__utf8_stream_feed(&work->stream, piece + strip, bytes - strip, &work->waiting);
    generated->tokens++;
    mn_status status = take_text(work, false, error);
    bool more = !generated->stopped_by && generated->tokens < work->config->tokens;
    generated->unread = id;
    if (status == MN_OK && more) {
        status = mn__reading_add(work->reading, &id, 1, error);
        generated->unread = status == MN_OK ? -1 : id;
    }
    return status;
}

/* A form that looks ahead has no probability of a token that is not there yet. */
static mn_status check_form(const mn__decoder *decoder, mn_error *error)
{
    if (!mn__decoder_looks_ahead(decoder))
        return MN_OK;
    return mn__fail(error, MN_ERROR_UNSUPPORTED,
                    "choose its attention's strictly causal form with --set attention...",
                    "the model looks ahead, as its attention is set: it cannot generate");
}

static mn_status go_on(generation *work, mn_error *error)
{
    mn__generated *generated = work->generated;
    double begin = mn__clock();
    mn_status status = MN_OK;
    while (status == MN_OK && !generated->stopped_by && !generated->ended &&
           generated->tokens < work->config->tokens)
        status = next_token(work, error);
    generated->seconds = mn__clock() - begin;
    if (status != MN_OK || generated->stopped_by)
        return status;
    mn__utf8_stream_end(&work->stream, &work->waiting);
    return take_text(work, true, error);
}

mn_status mn__generate_on(mn__run *run, mn__reading *reading, const mn__generate_config *config,
                          mn__generated *generated, mn_error *error)
{
    generation work = {.run = run, .config = config, .generated = generated, .reading = reading};
    *generated = (mn__generated){.prompt_seconds = generated->prompt_seconds,
                                 .prompt_tokens = generated->prompt_tokens,
                                 .unread = -1};
    mn_status status = check_form(run->decoder, error);
    if (status == MN_OK)
        status = mn__sampler_open(&work.sampler, &config->sample, run->tokenizer->vocab, error);
    if (status == MN_OK)
        status = go_on(&work, error);
    mn__sampler_close(&work.sampler);
    mn__string_free(&work.waiting);
    return status;
}

mn_status mn__generate_within(mn__run *run, mn__reading *reading, const mn__generate_config *config,
                              mn__generated *generated, mn_error *error)
{
    mn_error last;
    mn_status status = mn__generate_on(run, reading, config, generated, error);
    if (generated->unread < 0 || (status != MN_OK && status != MN_ERROR_INTERRUPTED) ||
        mn__reading_add(reading, &generated->unread, 1, &last) == MN_OK)
        return status;
    if (error)
        *error = last;
    return last.code;
}

/* ---- From a prompt ------------------------------------------------------------------------ */

/* *tokens: of the prompt itself. */
static mn_status encode_prompt(const mn__run *run, const mn__generate_config *config, mn__ids *ids,
                               int64_t *tokens, mn_error *error)
{
    for (int64_t i = 0; i < run->before.count; i++)
        mn__ids_add(ids, run->before.id[i]);
    mn_status status =
        mn__tokenizer_encode(run->tokenizer, config->prompt, config->prompt_bytes, ids, error);
    *tokens = ids->count - run->before.count;
    if (status == MN_OK && ids->count == 0) /* something has to be gone on with */
        mn__ids_add(ids, run->tokenizer->start);
    if (status == MN_OK && ids->failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for the prompt");
    return status;
}

static mn_status generate(mn__run *run, const mn__ids *prompt, const mn__generate_config *config,
                          mn__generated *generated, mn_error *error)
{
    mn__reading reading;
    const mn__reading_options options = {.capacity = prompt->count + config->tokens,
                                         .chunk = run->segment,
                                         .compute = config->compute};
    mn_status status = mn__reading_open(&reading, run->decoder, &run->params, &options, error);
    if (status != MN_OK)
        return status;
    double begin = mn__clock();
    status = mn__reading_add(&reading, prompt->id, prompt->count, error);
    generated->prompt_seconds = mn__clock() - begin;
    if (status == MN_OK)
        status = mn__generate_on(run, &reading, config, generated, error);
    mn__reading_close(&reading);
    return status;
}

mn_status mn__generate(mn__run *run, const mn__generate_config *config, mn__generated *generated,
                       mn_error *error)
{
    mn__ids prompt = {0};
    *generated = (mn__generated){0};
    mn_status status = check_form(run->decoder, error);
    if (status == MN_OK)
        status = encode_prompt(run, config, &prompt, &generated->prompt_tokens, error);
    if (status == MN_OK)
        status = mn__run_plan(run, prompt.count + config->tokens, error);
    if (status == MN_OK)
        status = mn__limit_check(run, "the prompt and what follows it",
                                 prompt.count + config->tokens, config->compute, error);
    if (status == MN_OK)
        status = generate(run, &prompt, config, generated, error);
    mn__ids_free(&prompt);
    return status;
}
