/* The table of families of pretrained models, as transformers has them. */
#include "model/family.h"

#include <stddef.h>
#include <string.h>

/* A key, a recipe's option of model, and what holds where the key is missing. */
#define KEY(kind, key, option, fallback)                  \
    {                                                     \
        key, MN__KEY_##kind, option, fallback, NULL, NULL \
    }
#define CHOICE(key, option, fallback, yes, no)       \
    {                                                \
        key, MN__KEY_BOOL, option, fallback, yes, no \
    }
#define KEYS_END                                  \
    {                                             \
        NULL, MN__KEY_END, NULL, NULL, NULL, NULL \
    }
/* A tensor of ours and one, or two, of theirs. */
#define NAME(kind, our, their)                           \
    {                                                    \
        MN__NAMING_##kind, {our, NULL}, {their, NULL}, 0 \
    }
#define PAIR(kind, our, one, other)                     \
    {                                                   \
        MN__NAMING_##kind, {our, NULL}, {one, other}, 0 \
    }
#define NAMES_END                                     \
    {                                                 \
        MN__NAMING_END, {NULL, NULL}, {NULL, NULL}, 0 \
    }

/* clang-format off */

/* ---- Llama and what is built as it is ------------------------------------------------- */

/* h += o(attention(rms(h))); h += down(silu(gate(n)) up(n)), n = rms(h) */
#define LLAMA_OPTIONS "norm: rms, gated: true, positions: rope"
#define LLAMA_KEYS \
    KEY(INT, "hidden_size", "width", NULL), \
    KEY(INT, "intermediate_size", "hidden", NULL), \
    KEY(INT, "num_hidden_layers", "depth", NULL), \
    KEY(INT, "num_attention_heads", "heads", NULL), \
    KEY(INT, "num_key_value_heads", "kv_heads", "0"), \
    KEY(ACTIVATION, "hidden_act", "activation", "silu"), \
    KEY(BOOL, "tie_word_embeddings", "tied", "false")

static const mn__family_key llama_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "0"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-6"),
    KEY(BOOL, "attention_bias", "attention_bias", "false"),
    KEY(BOOL, "mlp_bias", "bias", "false"),
    KEYS_END,
};

#define LLAMA_ENDS \
    NAME(TABLE, "embedding", "embed_tokens"), \
    NAME(NORM, "final_norm", "norm"), \
    NAME(TABLE, "head", "lm_head")
#define LLAMA_NORMS \
    NAME(NORM, "layers.#.attention.norm", "layers.#.input_layernorm"), \
    NAME(NORM, "layers.#.feed_forward.norm", "layers.#.post_attention_layernorm")
#define LLAMA_ATTENTION \
    NAME(LINEAR, "layers.#.attention.query", "layers.#.self_attn.q_proj"), \
    PAIR(LINEAR, "layers.#.attention.key_value", \
                 "layers.#.self_attn.k_proj", "layers.#.self_attn.v_proj"), \
    NAME(LINEAR, "layers.#.attention.out", "layers.#.self_attn.o_proj")
#define LLAMA_UP \
    PAIR(LINEAR, "layers.#.feed_forward.up", "layers.#.mlp.gate_proj", "layers.#.mlp.up_proj")
#define LLAMA_DOWN \
    NAME(LINEAR, "layers.#.feed_forward.down", "layers.#.mlp.down_proj")

static const mn__naming llama_names[] = {
    LLAMA_ENDS, LLAMA_NORMS, LLAMA_ATTENTION, LLAMA_UP, LLAMA_DOWN, NAMES_END,
};

/* Frequencies that old versions saved with the weights. */
static const char *const llama_spare[] = {".rotary_emb.inv_freq", NULL};

static const mn__family llama = {
    .type = "llama",
    .architecture = "LlamaForCausalLM",
    .help = "Llama 1 to 3.2, Yi, SmolLM",
    .keys = llama_keys,
    .options = LLAMA_OPTIONS,
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 1,
    .names = llama_names,
    .prefix = "model.",
    .spare = llama_spare,
};

static const mn__family_key mistral_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "0"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-6"),
    KEYS_END,
};

static const mn__family mistral = {
    .type = "mistral",
    .architecture = "MistralForCausalLM",
    .help = "Mistral",
    .keys = mistral_keys,
    .options = LLAMA_OPTIONS,
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 1,
    .window = MN__WINDOW_ALL,
    .window_fallback = 4096,
    .names = llama_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* Biases of queries, keys and values alone; the later layers may have a window. */
static const mn__family_key qwen2_keys[] = {
    LLAMA_KEYS,
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-6"),
    KEYS_END,
};

static const mn__family qwen2 = {
    .type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .help = "Qwen 1.5, 2 and 2.5",
    .keys = qwen2_keys,
    .options = LLAMA_OPTIONS ", attention_bias: inputs",
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 1,
    .window = MN__WINDOW_LAYERS,
    .window_fallback = 4096,
    .names = llama_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* Norms over the heads of queries and keys; heads of a width of their own. */
static const mn__family_key qwen3_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "128"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-6"),
    KEY(BOOL, "attention_bias", "attention_bias", "false"),
    KEYS_END,
};

static const mn__naming qwen3_names[] = {
    LLAMA_ENDS,
    LLAMA_NORMS,
    LLAMA_ATTENTION,
    NAME(NORM, "layers.#.attention.query_norm", "layers.#.self_attn.q_norm"),
    NAME(NORM, "layers.#.attention.key_norm", "layers.#.self_attn.k_norm"),
    LLAMA_UP,
    LLAMA_DOWN,
    NAMES_END,
};

static const mn__family qwen3 = {
    .type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .help = "Qwen 3",
    .keys = qwen3_keys,
    .options = LLAMA_OPTIONS ", head_norm: true",
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 1,
    .window = MN__WINDOW_LAYERS,
    .window_fallback = 4096,
    .names = qwen3_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* Queries, keys and values are one matrix, and so are gate and up. */
static const mn__family_key phi3_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "0"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-5"),
    KEYS_END,
};

#define FUSED_UP NAME(LINEAR, "layers.#.feed_forward.up", "layers.#.mlp.gate_up_proj")

static const mn__naming phi3_names[] = {
    LLAMA_ENDS,
    LLAMA_NORMS,
    {MN__NAMING_LINEAR, {"layers.#.attention.query", "layers.#.attention.key_value"},
                        {"layers.#.self_attn.qkv_proj", NULL}, 0},
    NAME(LINEAR, "layers.#.attention.out", "layers.#.self_attn.o_proj"),
    FUSED_UP,
    LLAMA_DOWN,
    NAMES_END,
};

static const mn__family phi3 = {
    .type = "phi3",
    .architecture = "Phi3ForCausalLM",
    .help = "Phi-3, Phi-4",
    .keys = phi3_keys,
    .options = LLAMA_OPTIONS,
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 1,
    .partial_key = true,
    .window = MN__WINDOW_ALL,
    .names = phi3_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* Half of each head turns, in neighbouring pairs; gate and up are one matrix. */
static const mn__family_key glm_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "128"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1.5625e-07"),
    CHOICE("attention_bias", "attention_bias", "inputs", "inputs", "false"),
    KEYS_END,
};

static const mn__naming glm_names[] = {
    LLAMA_ENDS, LLAMA_NORMS, LLAMA_ATTENTION, FUSED_UP, LLAMA_DOWN, NAMES_END,
};

static const mn__family glm = {
    .type = "glm",
    .architecture = "GlmForCausalLM",
    .help = "GLM-4 9B, as transformers has it",
    .keys = glm_keys,
    .options = LLAMA_OPTIONS ", rope_interleaved: true",
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 0.5,
    .partial_key = true,
    .names = glm_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* GLM's with norms after its sublayers too. Its post_attention_layernorm is, as Llama's,
 * the one before the feed-forward. */
static const mn__naming glm4_names[] = {
    LLAMA_ENDS,
    LLAMA_NORMS,
    NAME(NORM, "layers.#.attention.after", "layers.#.post_self_attn_layernorm"),
    NAME(NORM, "layers.#.feed_forward.after", "layers.#.post_mlp_layernorm"),
    LLAMA_ATTENTION,
    FUSED_UP,
    LLAMA_DOWN,
    NAMES_END,
};

static const mn__family glm4 = {
    .type = "glm4",
    .architecture = "Glm4ForCausalLM",
    .help = "GLM-4 0414, GLM-Z1",
    .keys = glm_keys,
    .options = LLAMA_OPTIONS ", rope_interleaved: true, norm_place: both",
    .context = "max_position_embeddings",
    .rope = true,
    .partial = 0.5,
    .partial_key = true,
    .names = glm4_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* Llama's with some layers that have no positions. */
static const mn__family_key smollm3_keys[] = {
    LLAMA_KEYS,
    KEY(INT, "head_dim", "head_width", "0"),
    KEY(FLOAT, "rms_norm_eps", "norm_epsilon", "1e-6"),
    KEY(BOOL, "attention_bias", "attention_bias", "false"),
    KEY(BOOL, "mlp_bias", "bias", "false"),
    KEY(FALSE, "use_sliding_window", NULL, ""),
    KEYS_END,
};

static const mn__family smollm3 = {
    .type = "smollm3",
    .architecture = "SmolLM3ForCausalLM",
    .help = "SmolLM3",
    .keys = smollm3_keys,
    .options = LLAMA_OPTIONS,
    .context = "max_position_embeddings",
    .rope = true,
    .unturned = true,
    .partial = 1,
    .names = llama_names,
    .prefix = "model.",
    .spare = llama_spare,
};

/* GLM-4 as its authors' code has it: other names, and queries, keys and values in one. */
static const mn__family_key chatglm_keys[] = {
    KEY(INT, "hidden_size", "width", NULL),
    KEY(INT, "ffn_hidden_size", "hidden", NULL),
    KEY(INT, "num_layers", "depth", NULL),
    KEY(INT, "num_attention_heads", "heads", NULL),
    KEY(INT, "multi_query_group_num", "kv_heads", NULL),
    KEY(INT, "kv_channels", "head_width", NULL),
    KEY(FLOAT, "layernorm_epsilon", "norm_epsilon", "1e-5"),
    CHOICE("add_qkv_bias", "attention_bias", "false", "inputs", "false"),
    KEY(BOOL, "tie_word_embeddings", "tied", "false"),
    KEY(TRUE, "multi_query_attention", NULL, NULL),
    KEY(TRUE, "original_rope", NULL, NULL),
    KEY(TRUE, "rmsnorm", NULL, ""),
    KEY(TRUE, "post_layer_norm", NULL, ""),
    KEY(FALSE, "add_bias_linear", NULL, ""),
    KEY(FALSE, "apply_residual_connection_post_layernorm", NULL, ""),
    KEYS_END,
};

static const mn__naming chatglm_names[] = {
    NAME(TABLE, "embedding", "embedding.word_embeddings"),
    NAME(NORM, "final_norm", "encoder.final_layernorm"),
    NAME(TABLE, "head", "output_layer"),
    NAME(NORM, "layers.#.attention.norm", "encoder.layers.#.input_layernorm"),
    NAME(NORM, "layers.#.feed_forward.norm", "encoder.layers.#.post_attention_layernorm"),
    {MN__NAMING_LINEAR, {"layers.#.attention.query", "layers.#.attention.key_value"},
                        {"encoder.layers.#.self_attention.query_key_value", NULL}, 0},
    NAME(LINEAR, "layers.#.attention.out", "encoder.layers.#.self_attention.dense"),
    NAME(LINEAR, "layers.#.feed_forward.up", "encoder.layers.#.mlp.dense_h_to_4h"),
    NAME(LINEAR, "layers.#.feed_forward.down", "encoder.layers.#.mlp.dense_4h_to_h"),
    NAMES_END,
};

static const char *const chatglm_spare[] = {".rotary_pos_emb.inv_freq", NULL};

static const mn__family chatglm = {
    .type = "chatglm",
    .help = "GLM-4 9B, as its authors' code has it",
    .keys = chatglm_keys,
    .options = LLAMA_OPTIONS ", activation: silu, rope_interleaved: true",
    .context = "seq_length",
    .vocabulary = "padded_vocab_size",
    .rope = true,
    .ratio = "rope_ratio",
    .partial = 0.5,
    .names = chatglm_names,
    .prefix = "transformer.",
    .spare = chatglm_spare,
};

/* ---- GPT-2 ------------------------------------------------------------------------------ */

/* Weights are [in, out]; queries, keys and values are one of them. */
static const mn__family_key gpt2_keys[] = {
    KEY(INT, "n_embd", "width", NULL),
    KEY(INT, "n_inner", "hidden", "0"),
    KEY(INT, "n_layer", "depth", NULL),
    KEY(INT, "n_head", "heads", NULL),
    KEY(INT, "n_positions", "max_positions", NULL),
    KEY(ACTIVATION, "activation_function", "activation", "gelu_tanh"),
    KEY(FLOAT, "layer_norm_epsilon", "norm_epsilon", "1e-5"),
    KEY(BOOL, "tie_word_embeddings", "tied", "true"),
    KEY(TRUE, "scale_attn_weights", NULL, ""),
    KEY(FALSE, "scale_attn_by_inverse_layer_idx", NULL, ""),
    KEY(FALSE, "add_cross_attention", NULL, ""),
    KEYS_END,
};

static const mn__naming gpt2_names[] = {
    NAME(TABLE, "embedding", "wte"),
    NAME(TABLE, "positions", "wpe"),
    NAME(NORM, "final_norm", "ln_f"),
    NAME(TABLE, "head", "lm_head"),
    NAME(NORM, "layers.#.attention.norm", "h.#.ln_1"),
    {MN__NAMING_TURNED, {"layers.#.attention.query", "layers.#.attention.key_value"},
                        {"h.#.attn.c_attn", NULL}, 0},
    NAME(TURNED, "layers.#.attention.out", "h.#.attn.c_proj"),
    NAME(NORM, "layers.#.feed_forward.norm", "h.#.ln_2"),
    NAME(TURNED, "layers.#.feed_forward.up", "h.#.mlp.c_fc"),
    NAME(TURNED, "layers.#.feed_forward.down", "h.#.mlp.c_proj"),
    NAMES_END,
};

/* Causal masks that old versions saved. */
static const char *const gpt2_spare[] = {".attn.bias", ".attn.masked_bias", NULL};

static const mn__family gpt2 = {
    .type = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .help = "GPT-2",
    .keys = gpt2_keys,
    .options = "norm: layer, positions: learned, bias: true, attention_bias: true",
    .context = "n_positions",
    .names = gpt2_names,
    .prefix = "transformer.",
    .spare = gpt2_spare,
};

/* ---- OPT -------------------------------------------------------------------------------- */

/* Positions count from 2 on: two rows of their table are for padding. */
static const mn__family_key opt_keys[] = {
    KEY(INT, "hidden_size", "width", NULL),
    KEY(INT, "ffn_dim", "hidden", NULL),
    KEY(INT, "num_hidden_layers", "depth", NULL),
    KEY(INT, "num_attention_heads", "heads", NULL),
    KEY(INT, "max_position_embeddings", "max_positions", NULL),
    KEY(ACTIVATION, "activation_function", "activation", "relu"),
    KEY(BOOL, "enable_bias", "bias", "true"),
    KEY(BOOL, "enable_bias", "attention_bias", "true"),
    CHOICE("do_layer_norm_before", "norm_place", "pre", "pre", "post"),
    CHOICE("_remove_final_layer_norm", "final_norm", "true", "false", "true"),
    KEY(BOOL, "tie_word_embeddings", "tied", "true"),
    KEY(WIDTH, "word_embed_proj_dim", NULL, ""),
    KEY(TRUE, "layer_norm_elementwise_affine", NULL, ""),
    KEYS_END,
};

static const mn__naming opt_names[] = {
    NAME(TABLE, "embedding", "decoder.embed_tokens"),
    {MN__NAMING_TABLE, {"positions", NULL}, {"decoder.embed_positions", NULL}, 2},
    NAME(NORM, "final_norm", "decoder.final_layer_norm"),
    NAME(TABLE, "head", "lm_head"),
    NAME(NORM, "layers.#.attention.norm", "decoder.layers.#.self_attn_layer_norm"),
    NAME(LINEAR, "layers.#.attention.query", "decoder.layers.#.self_attn.q_proj"),
    PAIR(LINEAR, "layers.#.attention.key_value",
                 "decoder.layers.#.self_attn.k_proj", "decoder.layers.#.self_attn.v_proj"),
    NAME(LINEAR, "layers.#.attention.out", "decoder.layers.#.self_attn.out_proj"),
    NAME(NORM, "layers.#.feed_forward.norm", "decoder.layers.#.final_layer_norm"),
    NAME(LINEAR, "layers.#.feed_forward.up", "decoder.layers.#.fc1"),
    NAME(LINEAR, "layers.#.feed_forward.down", "decoder.layers.#.fc2"),
    NAMES_END,
};

static const char *const opt_spare[] = {NULL};

static const mn__family opt = {
    .type = "opt",
    .architecture = "OPTForCausalLM",
    .help = "OPT (not 350m, whose embeddings are projected)",
    .keys = opt_keys,
    .options = "norm: layer, positions: learned, norm_epsilon: 1e-5",
    .context = "max_position_embeddings",
    .names = opt_names,
    .prefix = "model.",
    .spare = opt_spare,
};

/* clang-format on */

/* ---- The table -------------------------------------------------------------------------- */

const mn__family *const mn__families[] = {&llama, &mistral, &qwen2,   &qwen3, &phi3, &glm,
                                          &glm4,  &chatglm, &smollm3, &gpt2,  &opt,  NULL};

const mn__family *mn__family_find(const char *type)
{
    for (const mn__family *const *each = mn__families; *each; each++)
        if (!strcmp((*each)->type, type))
            return *each;
    return NULL;
}
