/* Models of the public interface: opened, described, planned with; their texts and tokens. */
#include <string.h>

#include "api/own.h"
#include "base/memory.h"
#include "base/threads.h"
#include "eval/evaluation.h"
#include "eval/turn.h"
#include "model/pretrained.h"
#include "reader/limit.h"
#include "reader/plan.h"

void mn_free(void *memory)
{
    mn__free(memory);
}

/* ---- Opening -------------------------------------------------------------------------- */

static mn_status read_precision(const char *name, mn__dtype *compute, mn_error *error)
{
    *compute = !strcmp(name, "bf16") ? MN__BF16 : MN__F32;
    if (*compute == MN__BF16 || !strcmp(name, "f32"))
        return MN_OK;
    return mn__fail(error, MN_ERROR_OPTION, "products are in f32 or bf16", "precision '%s'", name);
}

/* One of first.., named by name_of; fails where `name` is none of them. */
static mn_status read_name(const char *what, const char *name, const char *(*name_of)(int),
                           int first, int end, int *choice, mn_error *error)
{
    mn__string names = {0};
    for (*choice = first; *choice < end && strcmp(name_of(*choice), name) != 0; ++*choice)
        mn__string_printf(&names, " %s", name_of(*choice));
    mn_status status = *choice < end
                           ? MN_OK
                           : mn__fail(error, MN_ERROR_OPTION, "leave it out for the usual",
                                      "%s '%s' are none of%s", what, name,
                                      names.text ? names.text : " those known");
    mn__string_free(&names);
    return status;
}

static const char *weights_name(int weights)
{
    return mn__weights_name((mn__weights)weights);
}

static const char *kept_name(int kept)
{
    return mn__kept_name((mn__kept)kept);
}

/* On a device, which may be a counting one. */
static mn_status open_run(mn__run *run, mn__dtype *compute, mn__device *device, const char *path,
                          const mn_model_options *options, mn_error *error)
{
    mn__dtype asked = MN__F32;
    mn__run_how how = {.overrides = options->settings, .override_count = options->setting_count};
    int weights = MN__WEIGHTS_AUTO, cache = MN__KEPT_AS_COMPUTED;
    mn_status status = MN_OK;
    if (options->precision) {
        status = read_precision(options->precision, &asked, error);
        how.compute = &asked;
    }
    if (status == MN_OK && options->weights)
        status = read_name("weights", options->weights, weights_name, MN__WEIGHTS_F32,
                           MN__WEIGHTS_AUTO, &weights, error);
    if (status == MN_OK && options->cache)
        status = read_name("keys and values", options->cache, kept_name, MN__KEPT_F32,
                           MN__KEPT_INT8 + 1, &cache, error);
    how.weights = (mn__weights)weights;
    if (status == MN_OK)
        status = mn__run_open_as(run, device, path, &how, error);
    if (status != MN_OK)
        return status;
    status = mn__run_compute(run, compute, error);
    if (options->precision)
        *compute = asked;
    if (status == MN_OK)
        status = mn__decoder_keep(run->decoder, (mn__kept)cache, error);
    if (status == MN_OK && options->tokens > 0)
        status = mn__run_plan(run, options->tokens, error);
    if (status != MN_OK)
        mn__run_close(run);
    return status;
}

/* A model without a template is one all the same; a template that is damaged is one that is not
 * there, and why is said when it is wanted. */
static mn_status open_chat(mn_model *model, const char *path, mn_error *error)
{
    mn_error *why = &model->no_chat;
    if (!mn__pretrained_is(path)) {
        mn__fail(why, MN_ERROR_UNSUPPORTED, NULL, "%s: a run has no chat template", path);
    } else if (mn__chat_open(&model->chat, path, why) != MN_OK) {
        model->chat = NULL;
        if (why->code == MN_ERROR_MEMORY)
            return mn__fail(error, MN_ERROR_MEMORY, NULL, "%s", why->message);
    }
    mn__error_hint(why, "use MN_TURN_RAW and MN_TURN_ON");
    return MN_OK;
}

static mn_status check_options(const mn_model_options *options, mn_error *error)
{
    if (options->threads >= 0 && options->tokens >= 0 && options->setting_count >= 0 &&
        (options->settings || options->setting_count == 0))
        return MN_OK;
    return mn__fail(error, MN_ERROR_USAGE, "0 is the usual", "an option of a model is negative");
}

static const mn_model_options usual;

mn_status mn_model_open(mn_model **out, const char *path, const mn_model_options *options,
                        mn_error *error)
{
    *out = NULL;
    options = options ? options : &usual;
    mn_status status = check_options(options, error);
    if (status != MN_OK)
        return status;
    mn_model *model = mn__calloc(1, sizeof *model);
    if (!model)
        return mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a model");
    mn__threads_set(options->threads);
    status = mn__device_open(&model->device, error);
    if (status == MN_OK) {
        status = open_run(&model->run, &model->compute, &model->device, path, options, error);
        if (status == MN_OK && (status = open_chat(model, path, error)) != MN_OK)
            mn__run_close(&model->run);
        if (status != MN_OK)
            mn__device_close(&model->device);
    }
    if (status == MN_OK)
        *out = model;
    else
        mn__free(model);
    return status;
}

void mn_model_free(mn_model *model)
{
    if (!model)
        return;
    mn__chat_free(model->chat);
    mn__run_close(&model->run);
    mn__device_close(&model->device);
    mn__free(model);
}

mn_model_info mn_model_describe(const mn_model *model)
{
    const mn__run *run = &model->run;
    return (mn_model_info){.parameters = mn__params_elements(&run->params),
                           .vocabulary = mn__decoder_vocabulary(run->decoder),
                           .window = mn__limit_of(run),
                           .precision = model->compute == MN__BF16 ? "bf16" : "f32",
                           .ends = run->ends,
                           .end_count = run->end_count,
                           .chats = model->chat != NULL};
}

const char *mn_model_fingerprint(mn_model *model, mn_error *error)
{
    return mn__run_fingerprint(&model->run, error);
}

mn_status mn__model_check_length(const mn__run *run, int64_t tokens, mn__dtype compute,
                                 mn_error *error)
{
    mn_status status = mn__limit_check(run, "the text", tokens, compute, error);
    if (status == MN_ERROR_MISMATCH && error && !mn__decoder_learns_positions(run->decoder)) {
        *error->hint = '\0'; /* the command line's */
        mn__error_hint(error, "settings of the model: attention.type=window and attention.window; "
                              "or model.rope_scaling=yarn, model.rope_original and "
                              "model.rope_factor; or a model trained with a memory");
    }
    return status;
}

/* ---- Planning ------------------------------------------------------------------------- */

static mn_status estimate(mn__device *device, const char *path, const mn_model_options *options,
                          int64_t tokens, mn__read_plan *plan, mn_error *error)
{
    mn__run run;
    mn__dtype compute;
    mn_status status = open_run(&run, &compute, device, path, options, error);
    if (status != MN_OK)
        return status;
    status = options->tokens > 0 ? MN_OK : mn__run_plan(&run, tokens, error);
    if (status == MN_OK)
        status = mn__model_check_length(&run, tokens, compute, error);
    if (status == MN_OK)
        status =
            mn__read_plan_make(plan, run.decoder, &run.params, tokens, run.segment, compute, error);
    mn__run_close(&run);
    return status;
}

mn_status mn_memory_estimate(const char *path, const mn_model_options *options, int64_t tokens,
                             mn_memory *memory, mn_error *error)
{
    mn__device device;
    mn__read_plan plan;
    options = options ? options : &usual;
    mn_status status = check_options(options, error);
    if (status == MN_OK && tokens < 1)
        status = mn__fail(error, MN_ERROR_USAGE, "name a number of tokens",
                          "a plan for %lld tokens", (long long)tokens);
    if (status == MN_OK)
        status = mn__device_open_counting(&device, error);
    if (status != MN_OK)
        return status;
    status = estimate(&device, path, options, tokens, &plan, error);
    mn__device_close(&device);
    if (status == MN_OK)
        *memory = (mn_memory){.weights = plan.weights + plan.copies,
                              .state = plan.state,
                              .activations = plan.activations,
                              .total = plan.total,
                              .session = plan.session,
                              .available = plan.available};
    return status;
}

/* ---- Texts and tokens ------------------------------------------------------------------ */

static mn_status tokenize(const mn_model *model, mn_turn turn, const char *text, int64_t bytes,
                          mn__ids *ids, mn_error *error)
{
    bool raw = turn == MN_TURN_RAW || turn == MN_TURN_ON;
    const mn__turns turns = {.chat = raw ? NULL : model->chat,
                             .tokenizer = model->run.tokenizer,
                             .before = &model->run.before};
    if (!raw && !model->chat) {
        if (error)
            *error = model->no_chat;
        return model->no_chat.code;
    }
    switch (turn) {
    case MN_TURN_RAW:
    case MN_TURN_TEXT:
        return mn__turn_text(&turns, text, bytes, ids, error);
    case MN_TURN_ON:
    case MN_TURN_FIRST:
        return mn__turn_question(&turns, MN__TURN_FIRST, text, bytes, ids, error);
    case MN_TURN_LATER:
        return mn__turn_question(&turns, MN__TURN_LATER, text, bytes, ids, error);
    case MN_TURN_ALONE:
        return mn__turn_question(&turns, MN__TURN_ALONE, text, bytes, ids, error);
    }
    return mn__fail(error, MN_ERROR_USAGE, "use a value of mn_turn", "%d is no turn", (int)turn);
}

mn_status mn_tokenize(const mn_model *model, mn_turn turn, const char *text, int64_t bytes,
                      int32_t **ids, int64_t *count, mn_error *error)
{
    mn__ids own = {0};
    *ids = NULL;
    *count = 0;
    if (bytes < 0)
        return mn__fail(error, MN_ERROR_USAGE, NULL, "a text of %lld bytes", (long long)bytes);
    mn_status status = tokenize(model, turn, text, bytes, &own, error);
    if (status == MN_OK && own.failed)
        status = mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for a text's tokens");
    if (status != MN_OK) {
        mn__ids_free(&own);
        return status;
    }
    *ids = own.id;
    *count = own.count;
    return MN_OK;
}

mn_status mn_detokenize(const mn_model *model, const int32_t *ids, int64_t count, char **text,
                        int64_t *bytes, mn_error *error)
{
    mn__string own = {0};
    *text = NULL;
    *bytes = 0;
    mn__string_puts(&own, ""); /* so that there is a text */
    mn_status status = mn__tokenizer_decode(model->run.tokenizer, ids, count, &own, error);
    if (status != MN_OK) {
        mn__string_free(&own);
        return status;
    }
    *text = own.text;
    *bytes = own.bytes;
    return MN_OK;
}
