/* mneme generate: a prompt goes on (eval/generate.h). */
#include "eval/generate.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "cli/open.h"
#include "cli/table.h"
#include "cli/terminal.h"

typedef struct generate_options {
    mn__run_use use; /* first */
    const char *model, *prompt, *file;
    int64_t tokens;
    double temperature;
    int64_t top_k;
    double top_p, min_p;
    mn__string_list stop;
    int64_t seed;
    bool json;
} generate_options;

#define OPTIONS generate_options
static const mn__option own[] = {
    MN__STRING(OPTIONS, model, "", "names RUN, in the operand's place"),
    MN__INT(mn__run_use, window, "0", 0, 1e9,
            "a token sees so many before it; 0: as the model has it"),
    MN__STRING(OPTIONS, prompt, "", "the text to go on with"),
    MN__STRING(OPTIONS, file, "", "the same, from a file"),
    MN__INT(OPTIONS, tokens, "256", 1, 1e9, "how many at most"),
    MN__FLOAT(OPTIONS, temperature, "0.8", 0, 1e6, "0: always the most probable token"),
    MN__INT(OPTIONS, top_k, "0", 0, 1e9, "choose among the k most probable; 0: all"),
    MN__FLOAT(OPTIONS, top_p, "1", 0, 1, "among the most probable that sum to this"),
    MN__FLOAT(OPTIONS, min_p, "0", 0, 1, "among those of this share of the most probable's"),
    MN__LIST(OPTIONS, stop, "", "end before this text"),
    MN__INT(OPTIONS, seed, "1", 0, 1e18, "another seed, another text"),
    MN__BOOL(OPTIONS, json, "false", "print one JSON object when it is done"),
    MN__OPTIONS_END,
};
#undef OPTIONS
static const mn__option *const tables[] = {mn__run_options, own, NULL};

typedef struct printing {
    const mn__progress *progress;
    mn__string text; /* for --json */
    bool json;
    int64_t bytes;
} printing;

static bool emit(void *user, const char *text, int64_t bytes)
{
    printing *out = user;
    out->bytes += bytes;
    if (out->json) {
        mn__string_add(&out->text, text, bytes);
        return mn__progress_report(out->progress, "generating", out->bytes, 0, NULL);
    }
    fwrite(text, 1, (size_t)bytes, stdout);
    fflush(stdout);
    return !mn__terminal_stopped();
}

static mn_status print_json(mn__run *run, const generate_options *options,
                            const mn__generate_config *config, const mn__generated *generated,
                            const mn__string *text, mn_error *error)
{
    const char *stopped_by = generated->stopped_by;
    return mn__table_json(
        json_pack("{s:s, s:s, s:I, s:s%, s:s%, s:I, s:I, s:s?, s:b, s:I, s:f, s:f}", "run",
                  run->folder, "model", mn__run_fingerprint(run, error), "step",
                  (json_int_t)run->step, "prompt", config->prompt, (size_t)config->prompt_bytes,
                  "text", text->text ? text->text : "", (size_t)text->bytes, "prompt_tokens",
                  (json_int_t)generated->prompt_tokens, "tokens", (json_int_t)generated->tokens,
                  "stopped_by", stopped_by, "ended", generated->ended, "seed",
                  (json_int_t)options->seed, "prompt_seconds", generated->prompt_seconds, "seconds",
                  generated->seconds),
        error);
}

static mn_status generate(mn__call *call, mn__opened *opened, const char *prompt, int64_t bytes,
                          mn_error *error)
{
    const generate_options *options = call->options;
    printing out = {.progress = call->progress, .json = options->json};
    const mn__generate_config config = {.prompt = prompt,
                                        .prompt_bytes = bytes,
                                        .tokens = options->tokens,
                                        .sample = {.temperature = options->temperature,
                                                   .top_k = options->top_k,
                                                   .top_p = options->top_p,
                                                   .min_p = options->min_p,
                                                   .seed = options->seed},
                                        .stop = options->stop,
                                        .compute = opened->compute,
                                        .emit = emit,
                                        .user = &out};
    mn__generated generated;
    mn_status status = mn__generate(&opened->run, &config, &generated, error);
    if (status == MN_OK && options->json)
        status = print_json(&opened->run, options, &config, &generated, &out.text, error);
    else if (!options->json)
        putchar('\n');
    mn__string_free(&out.text);
    return status;
}

static mn_status run(mn__call *call, mn_error *error)
{
    const generate_options *options = call->options;
    if (*options->prompt && *options->file)
        return mn__fail(error, MN_ERROR_USAGE, "give one of them",
                        "--prompt and --file contradict each other");
    char *text = NULL;
    int64_t bytes = (int64_t)strlen(options->prompt);
    mn_status status =
        *options->file ? mn__file_read(options->file, 0, &text, &bytes, error) : MN_OK;
    mn__opened opened;
    if (status == MN_OK)
        status = mn__opened_open(&opened, call->operands[0], &options->use, error);
    if (status == MN_OK) {
        status = generate(call, &opened, text ? text : options->prompt, bytes, error);
        mn__opened_close(&opened);
    }
    mn__free(text);
    return status;
}

const mn__verb mn__verb_generate = {
    .name = "generate",
    .operands = "RUN",
    .least = 1,
    .most = 1,
    .model = true,
    .summary = "let a model go on with a text",
    .details = "Prints what the model adds to the prompt, as it comes. RUN may be a pretrained\n"
               "model, a folder or a GGUF file (llama, qwen2): then the text may end of itself,\n"
               "before --tokens.\n\n"
               "  mneme generate runs/xl --prompt 'It was' --tokens 500 --top-p 0.95\n"
               "  mneme generate --model Qwen2.5-0.5B --weights int8 --prompt 'It was'",
    .tables = tables,
    .options_bytes = sizeof(generate_options),
    .run = run,
};
