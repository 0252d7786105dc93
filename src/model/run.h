/* Run folders: what a recipe produces, and how it is opened again; and pretrained models
 * (model/pretrained.h), opened as if they were runs.
 *
 *   recipe.yaml          as resolved, overrides included
 *   tokenizer/           see text/tokenizer.h
 *   last.safetensors     weights, buffers, moments, attention state; the trainer's
 *                        counters in its metadata: one file, so that a
 *                        checkpoint is whole or absent
 *   best.safetensors     weights and buffers of the best validation
 *   metrics.jsonl, events.out.tfevents.*, samples/, report.html */
#ifndef MN__MODEL_RUN_H
#define MN__MODEL_RUN_H

#include "base/ahead.h"
#include "base/hash.h"
#include "model/decoder.h"
#include "model/family.h"
#include "text/tokenizer.h"

typedef struct mn__run {
    mn__arena arena;       /* the recipe's nodes */
    mn__yaml_node *recipe; /* root mapping */
    const char *folder;
    const char *tokenizer_path; /* where it was loaded from */
    mn__tokenizer *tokenizer;
    mn__params params;
    mn__decoder *decoder;
    int64_t segment;
    int64_t context;   /* tokens of the longest text that the model is for; 0: not known */
    int64_t end_count; /* of ids at which generation ends; 0 of what was trained here */
    const int32_t *ends;
    mn__ids before; /* what stands before every text: of what was trained here the tokenizer's
                     * start; of a pretrained model what its tokenizer adds by default, which
                     * may be nothing */
    bool plans;     /* mn__run_plan has a say */
    const mn__family *family; /* of a pretrained model, else NULL */
    char weights_file[32];    /* "best.safetensors", "last.safetensors" or "model.safetensors" */
    char fingerprint[33];     /* of that file's weights, once asked for: mn__run_fingerprint */
    int64_t step;             /* the update at which they were written; 0 of a pretrained model */
    mn__ahead ahead;          /* a pretrained model's files, asked for while others are read */
} mn__run;

/* Opens a run for evaluation or generation: the best weights if there are any,
 * else the last. `overrides`: "a.b=c" each, as --set; so that memory length may
 * differ from training. The device is the caller's and outlives the run. A folder without
 * recipe.yaml and with config.json is a pretrained model: its recipe is made from
 * config.json, with data.segment 512 and train.precision f32, and its tokenizer is its
 * tokenizer.json or, where there is none, tokenizer.model. GGUF files hold theirs; that of a
 * checkpoint of llama2.c is the tokenizer.bin beside it. */
mn_status mn__run_open(mn__run *run, mn__device *device, const char *folder,
                       const char *const *overrides, int64_t override_count, mn_error *error);
/* The same with more said of how. Weights are taken in the form asked for, AUTO being that
 * of the products' type for a pretrained model and masters for a run; MN_ERROR_OPTION where
 * products in `compute` do not read that form. */
typedef struct mn__run_how {
    const char *const *overrides;
    int64_t override_count;
    mn__weights weights;
    const mn__dtype *compute; /* NULL: as the recipe's train.precision says */
    const char *tokenizer;    /* a pretrained model's, from elsewhere; NULL: its own */
} mn__run_how;
mn_status mn__run_open_as(mn__run *run, mn__device *device, const char *folder,
                          const mn__run_how *how, mn_error *error);
void mn__run_close(mn__run *run);
/* XXH3 over the weights, "0f3a...": the first call reads all of them. NULL when memory is
 * short. */
const char *mn__run_fingerprint(mn__run *run, mn_error *error);
/* Rotary frequencies that depend on the length of a text (nn/rope.h) are made for one of so many
 * tokens, before anything is read. Nothing happens to other models, to those that were trained
 * here, and where an override has said model.rope_length. */
mn_status mn__run_plan(mn__run *run, int64_t tokens, mn_error *error);

/* All parameters and buffers as named tensors that point into params, which are masters. */
mn_status mn__params_list(const mn__params *params, mn__arena *arena, mn__safetensor **tensors,
                          int64_t *count, mn_error *error);
/* Reads values by name: every parameter and buffer must be there, of its size. */
mn_status mn__params_load(mn__params *params, const mn__safetensors *file, mn_error *error);
/* XXH3 over names, sizes and values, or of a pretrained model's that are held over names,
 * types and bytes of its tensors; "" when memory is short. */
mn__hash_text mn__params_fingerprint(const mn__params *params);

#endif
