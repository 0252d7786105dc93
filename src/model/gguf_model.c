/* GGUF files in the words of transformers. */
#include "model/gguf_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Metadata -------------------------------------------------------------------------- */

struct reader {
    mn__gguf *file;
    const char *path, *architecture;
    json_t *root;
    mn_error *error;
};

static mn_status unsupported(const struct reader *r, const char *hint, const char *what,
                             const char *value)
{
    return mn__fail(r->error, MN_ERROR_UNSUPPORTED, hint, "%s: %s %s is not supported", r->path,
                    what, value);
}

/* "llama.block_count"; false where the file lacks it. */
static bool key_of(const struct reader *r, const char *name, char key[96])
{
    snprintf(key, 96, "%s.%s", r->architecture, name);
    return mn__gguf_find_value(r->file, key);
}

static mn_status put_int(struct reader *r, const char *name, bool required, const char *as)
{
    char key[96];
    int64_t value = 0;
    if (!key_of(r, name, key) && !required)
        return MN_OK;
    mn_status status = mn__gguf_int(r->file, key, &value, r->error);
    if (status == MN_OK)
        json_object_set_new(r->root, as, json_integer((json_int_t)value));
    return status;
}

static mn_status put_float(struct reader *r, const char *name, bool required, const char *as)
{
    char key[96];
    double value = 0;
    if (!key_of(r, name, key) && !required)
        return MN_OK;
    mn_status status = mn__gguf_float(r->file, key, &value, r->error);
    if (status == MN_OK)
        json_object_set_new(r->root, as, json_real(value));
    return status;
}

/* Where the file has it, it must be this. */
static mn_status check_int(const struct reader *r, const char *name, int64_t wanted)
{
    char key[96], digits[32];
    int64_t value = wanted;
    mn_status status = key_of(r, name, key) ? mn__gguf_int(r->file, key, &value, r->error) : MN_OK;
    snprintf(digits, sizeof digits, "of %lld", (long long)value);
    return status == MN_OK && value != wanted ? unsupported(r, NULL, key, digits) : status;
}

/* Factors that divide the frequencies, as Llama 3.1's are: longrope's, for any length. */
static mn_status put_factors(struct reader *r, const mn__gguf_tensor *tensor)
{
    json_t *factors = json_array();
    if (strcmp(tensor->type_name, "F32") || tensor->rank != 1) {
        json_decref(factors);
        return unsupported(r, NULL, "rope_freqs of type", tensor->type_name);
    }
    for (int64_t i = 0; i < tensor->size[0]; i++) {
        float factor;
        memcpy(&factor, (const char *)tensor->data + i * 4, sizeof factor);
        json_array_append_new(factors, json_real((double)factor));
    }
    json_object_set_new(r->root, "rope_scaling",
                        json_pack("{s:s, s:O, s:o, s:f, s:f, s:O}", "type", "longrope",
                                  "short_factor", factors, "long_factor", factors, "factor", 1.0,
                                  "attention_factor", 1.0, "original_max_position_embeddings",
                                  json_object_get(r->root, "max_position_embeddings")));
    return MN_OK;
}

static mn_status put_scaling(struct reader *r)
{
    char key[96], factor_key[96];
    const char *type = "none";
    double factor = 1;
    const mn__gguf_tensor *factors = mn__gguf_find_tensor(r->file, "rope_freqs.weight");
    mn_status status = key_of(r, "rope.scaling.type", key)
                           ? mn__gguf_string(r->file, key, &type, r->error)
                           : MN_OK;
    if (status != MN_OK)
        return status;
    if (factors && !strcmp(type, "none"))
        return put_factors(r, factors);
    if (!strcmp(type, "none"))
        return MN_OK;
    if (factors || (strcmp(type, "linear") && strcmp(type, "yarn")))
        return unsupported(r, "types are none, linear and yarn", key, type);
    key_of(r, "rope.scaling.factor", factor_key);
    status = mn__gguf_float(r->file, factor_key, &factor, r->error);
    if (status != MN_OK)
        return status;
    json_object_set_new(r->root, "rope_scaling",
                        json_pack("{s:s, s:f}", "type", type, "factor", factor));
    int64_t original = 0;
    if (!strcmp(type, "yarn") && key_of(r, "rope.scaling.original_context_length", key)) {
        status = mn__gguf_int(r->file, key, &original, r->error);
        json_object_set_new(json_object_get(r->root, "rope_scaling"),
                            "original_max_position_embeddings", json_integer((json_int_t)original));
    }
    return status;
}

static mn_status put_sizes(struct reader *r)
{
    mn_status status = put_int(r, "embedding_length", true, "hidden_size");
    if (status == MN_OK)
        status = put_int(r, "feed_forward_length", true, "intermediate_size");
    if (status == MN_OK)
        status = put_int(r, "block_count", true, "num_hidden_layers");
    if (status == MN_OK)
        status = put_int(r, "context_length", true, "max_position_embeddings");
    if (status == MN_OK)
        status = put_int(r, "attention.head_count", true, "num_attention_heads");
    if (status == MN_OK)
        status = put_int(r, "attention.head_count_kv", false, "num_key_value_heads");
    if (status == MN_OK)
        status = put_int(r, "attention.key_length", false, "head_dim");
    if (status == MN_OK)
        status = put_float(r, "attention.layer_norm_rms_epsilon", true, "rms_norm_eps");
    return status == MN_OK ? put_float(r, "rope.freq_base", false, "rope_theta") : status;
}

/* What the families' tables cannot say has to be as usual. */
static mn_status check_usual(struct reader *r)
{
    json_int_t heads = json_integer_value(json_object_get(r->root, "num_attention_heads"));
    json_int_t width = json_integer_value(json_object_get(r->root, "hidden_size"));
    const json_t *own = json_object_get(r->root, "head_dim");
    int64_t head = own ? json_integer_value(own) : heads > 0 ? width / heads : 0;
    if (!strcmp(r->architecture, "qwen2") && own && heads > 0 && head != width / heads)
        return unsupported(r, NULL, "a head_dim of its own in", r->architecture);
    mn_status status = check_int(r, "attention.value_length", head);
    if (status == MN_OK)
        status = check_int(r, "rope.dimension_count", head);
    return status == MN_OK ? check_int(r, "expert_count", 0) : status;
}

/* Where a text ends, and where the file says so a turn, which a chat's answers end with. */
static mn_status put_ends(struct reader *r)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.eot_token_id"};
    json_t *ends = json_array();
    mn_status status = MN_OK;
    for (int i = 0; i < 2 && status == MN_OK; i++) {
        int64_t end;
        if (!mn__gguf_find_value(r->file, keys[i]))
            continue;
        status = mn__gguf_int(r->file, keys[i], &end, r->error);
        if (status == MN_OK)
            json_array_append_new(ends, json_integer((json_int_t)end));
    }
    if (json_array_size(ends))
        json_object_set(r->root, "eos_token_id", ends);
    json_decref(ends);
    return status;
}

static mn_status put_rest(struct reader *r)
{
    const mn__gguf_tensor *table = mn__gguf_find_tensor(r->file, "token_embd.weight");
    if (!table || table->rank != 2)
        return mn__fail(r->error, MN_ERROR_MISMATCH, "give the file of a whole model",
                        "%s: no model, it holds no token_embd.weight", r->path);
    json_object_set_new(r->root, "vocab_size", json_integer((json_int_t)table->size[0]));
    json_object_set_new(r->root, "tie_word_embeddings",
                        json_boolean(!mn__gguf_find_tensor(r->file, "output.weight")));
    return put_ends(r);
}

mn_status mn__gguf_config(mn__gguf *file, const char *path, json_t **root, bool *interleaved,
                          mn_error *error)
{
    struct reader r = {.file = file, .path = path, .root = json_object(), .error = error};
    mn_status status = mn__gguf_string(file, "general.architecture", &r.architecture, error);
    if (status == MN_OK && strcmp(r.architecture, "llama") && strcmp(r.architecture, "qwen2"))
        status = unsupported(&r, "known here are llama and qwen2; or fetch its safetensors",
                             "architecture", r.architecture);
    if (status == MN_OK)
        json_object_set_new(r.root, "model_type", json_string(r.architecture));
    if (status == MN_OK)
        status = put_sizes(&r);
    if (status == MN_OK)
        status = check_usual(&r);
    if (status == MN_OK)
        status = put_scaling(&r);
    if (status == MN_OK)
        status = put_rest(&r);
    if (status != MN_OK) {
        json_decref(r.root);
        r.root = NULL;
    }
    *interleaved = status == MN_OK && !strcmp(r.architecture, "llama");
    *root = r.root;
    return status;
}

/* ---- Tensors ---------------------------------------------------------------------------- */

/* "blk.3.attn_q.weight" is "model.layers.3.self_attn.q_proj.weight"; others keep their name. */
static char *name_of(mn__arena *arena, const char *name)
{
    static const char *const ends[][2] = {{"token_embd.weight", "model.embed_tokens.weight"},
                                          {"output_norm.weight", "model.norm.weight"},
                                          {"output.weight", "lm_head.weight"}};
    static const char *const parts[][2] = {
        {"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"},
        {"attn_q", "self_attn.q_proj"},   {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (!strcmp(name, ends[i][0]))
            return mn__arena_strdup(arena, ends[i][1]);
    char *rest = NULL;
    long layer = strncmp(name, "blk.", 4) ? -1 : strtol(name + 4, &rest, 10);
    for (size_t i = 0; layer >= 0 && *rest == '.' && i < sizeof parts / sizeof *parts; i++) {
        size_t length = strlen(parts[i][0]);
        if (!strncmp(rest + 1, parts[i][0], length) && rest[1 + length] == '.')
            return mn__arena_printf(arena, "model.layers.%ld.%s%s", layer, parts[i][1],
                                    rest + 1 + length);
    }
    return mn__arena_strdup(arena, name);
}

mn_status mn__gguf_tensors(const mn__gguf *file, mn__arena *arena, mn__safetensor **tensors,
                           int64_t *count, mn_error *error)
{
    int64_t all = mn__gguf_tensor_count(file);
    bool whole = (*tensors = mn__arena_calloc(arena, all, sizeof **tensors));
    *count = 0;
    for (int64_t i = 0; whole && i < all; i++) {
        const mn__gguf_tensor *from = mn__gguf_tensor_at(file, i);
        if (!strcmp(from->name, "rope_freqs.weight")) /* the configuration's */
            continue;
        mn__safetensor *to = &(*tensors)[(*count)++];
        *to = (mn__safetensor){.name = name_of(arena, from->name),
                               .dtype = from->type_name,
                               .rank = from->rank,
                               .data = from->data,
                               .bytes = from->bytes};
        memcpy(to->size, from->size, sizeof from->size);
        whole = to->name;
    }
    return whole ? MN_OK : mn__fail(error, MN_ERROR_MEMORY, NULL, "no memory for names of tensors");
}
