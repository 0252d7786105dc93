"""Golden folders of pretrained models: pretrained/FAMILY/{config.json, model*.safetensors,
expected.safetensors}.

Of each family a tiny model with random weights, which transformers reads from the folder, as
it would one that was downloaded: `ids` [T] and `logits` [T, V], float32. pretrained/llama has
a config.VARIANT.json for each way of stretching rotary positions, and of every fourth token
`logits.VARIANT`; texts go beyond the length at which these begin to differ. Needs torch, transformers,
safetensors:

    python make_pretrained.py [FAMILY...]
"""
import json
import os
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pretrained")
TOKENS, VOCABULARY = 48, 61

LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=32,
             intermediate_size=44, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, hidden_act="silu", max_position_embeddings=64,
             rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False,
             attention_bias=False, mlp_bias=False, vocab_size=VOCABULARY, bos_token_id=1,
             eos_token_id=2)

LONG = dict(rope_type="longrope", short_factor=[1.0, 1.1, 1.3, 1.7],
            long_factor=[1.2, 2.0, 5.5, 16.0], original_max_position_embeddings=16)

# What a variant changes; a length, where it is not all the tokens.
VARIANTS = {
    "linear": dict(rope_scaling=dict(type="linear", factor=4.0)),
    "dynamic": dict(rope_scaling=dict(type="dynamic", factor=2.0), max_position_embeddings=16),
    "llama3": dict(rope_theta=500.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16)),
    "yarn": dict(rope_scaling=dict(rope_type="yarn", factor=4.0,
                                   original_max_position_embeddings=16)),
    "yarn_scaled": dict(rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=8,
        beta_slow=0.5, mscale=0.8, mscale_all_dim=0.3, truncate=False)),
    "longrope": dict(rope_scaling=LONG),
    "parameters": dict(rope_theta=None, rope_parameters=dict(
        rope_type="yarn", rope_theta=200.0, factor=4.0, attention_factor=1.25,
        original_max_position_embeddings=16)),
}

# The configuration, the type of the stored weights, and in how many files.
FAMILIES = {
    "llama": (LLAMA, torch.float16, 1),
    "mistral": (dict(LLAMA, model_type="mistral", architectures=["MistralForCausalLM"],
                     head_dim=12, sliding_window=9), torch.bfloat16, 1),
    "qwen2": (dict(LLAMA, model_type="qwen2", architectures=["Qwen2ForCausalLM"],
                   rope_theta=1000000.0, rms_norm_eps=1e-6, use_sliding_window=True,
                   sliding_window=11, max_window_layers=1, num_hidden_layers=3),
              torch.bfloat16, 3),
    "qwen3": (dict(LLAMA, model_type="qwen3", architectures=["Qwen3ForCausalLM"], head_dim=16,
                   rope_theta=1000000.0, tie_word_embeddings=True, rms_norm_eps=1e-6),
              torch.bfloat16, 1),
    "phi3": (dict(LLAMA, model_type="phi3", architectures=["Phi3ForCausalLM"], sliding_window=40,
                  original_max_position_embeddings=16, pad_token_id=0,
                  partial_rotary_factor=0.75, rope_scaling=dict(
                      type="longrope", short_factor=[1.0, 1.1, 1.3],
                      long_factor=[1.2, 2.0, 5.5])), torch.bfloat16, 1),
    "glm": (dict(LLAMA, model_type="glm", architectures=["GlmForCausalLM"], head_dim=16,
                 rope_theta=250000.0,
                 attention_bias=True, rms_norm_eps=1.5625e-07, pad_token_id=0),
            torch.bfloat16, 1),
    "glm4": (dict(LLAMA, model_type="glm4", architectures=["Glm4ForCausalLM"], head_dim=12,
                  partial_rotary_factor=0.5, attention_bias=False, pad_token_id=0),
             torch.bfloat16, 1),
    "gpt2": (dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=32, n_layer=2,
                  n_head=4, n_positions=50, n_ctx=50, n_inner=None, vocab_size=VOCABULARY,
                  activation_function="gelu_new", layer_norm_epsilon=1e-5, bos_token_id=1,
                  eos_token_id=1, resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1),
             torch.bfloat16, 1),
    "opt": (dict(model_type="opt", architectures=["OPTForCausalLM"], hidden_size=32, ffn_dim=40,
                 num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=50,
                 activation_function="relu", do_layer_norm_before=True, word_embed_proj_dim=32,
                 vocab_size=VOCABULARY, bos_token_id=2, eos_token_id=2, pad_token_id=1),
            torch.bfloat16, 1),
    "opt_post": (dict(model_type="opt", architectures=["OPTForCausalLM"], hidden_size=32,
                      ffn_dim=40, num_hidden_layers=2, num_attention_heads=4,
                      max_position_embeddings=50, do_layer_norm_before=False, enable_bias=False,
                      vocab_size=VOCABULARY, pad_token_id=1), torch.float32, 1),
    "smollm3": (dict(LLAMA, model_type="smollm3", architectures=["SmolLM3ForCausalLM"],
                     no_rope_layers=[1, 0, 1], num_hidden_layers=3, tie_word_embeddings=True,
                     use_sliding_window=False, pad_token_id=0), torch.bfloat16, 1),
}


def randomise(model, seed):
    """Weights at which no part is small beside another."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            scale, mean = 0.2, 0.0 if name.endswith("bias") else 1.0
        elif "embed" in name or "wte" in name or "wpe" in name:
            scale, mean = 1.0, 0.0
        else:
            scale, mean = 1.5 * parameter.shape[-1] ** -0.5, 0.0
        parameter.data = mean + scale * noise


def save_weights(folder, weights, files):
    if files == 1:
        save_file(weights, os.path.join(folder, "model.safetensors"), metadata=dict(format="pt"))
        return
    names = sorted(weights)
    table = {}
    for i in range(files):
        file = f"model-{i + 1:05}-of-{files:05}.safetensors"
        part = {name: weights[name] for name in names[i::files]}
        save_file(part, os.path.join(folder, file), metadata=dict(format="pt"))
        table.update({name: file for name in part})
    total = sum(w.numel() * w.element_size() for w in weights.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump(dict(metadata=dict(total_size=total), weight_map=table), out, indent=1)


def write_config(path, config):
    with open(path, "w") as out:
        json.dump({k: v for k, v in config.items() if v is not None}, out, indent=1)
        out.write("\n")


def logits(folder, ids):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(ids[None]).logits[0].float().contiguous()


def variant_logits(folder, config, ids):
    """As of the same folder with another config.json."""
    with tempfile.TemporaryDirectory() as other:
        shutil.copy(os.path.join(folder, "model.safetensors"), other)
        write_config(os.path.join(other, "config.json"), config)
        return logits(other, ids)


def make(name, config, dtype, files, seed):
    folder = os.path.join(HERE, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    write_config(os.path.join(folder, "config.json"), config)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(folder))
    randomise(model, seed)
    tied = model.config.tie_word_embeddings
    weights = {k: v.detach().to(dtype).contiguous() for k, v in model.state_dict().items()
               if not (tied and k == "lm_head.weight")}
    save_weights(folder, weights, files)
    ids = torch.randint(0, VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(seed))
    expected = dict(ids=ids.int(), logits=logits(folder, ids))
    if name == "llama":
        for variant, changes in VARIANTS.items():
            other = dict(config, **changes)
            write_config(os.path.join(folder, f"config.{variant}.json"), other)
            expected["logits." + variant] = variant_logits(folder, other, ids)[3::4].contiguous()
        few = ids[:16]
        expected["logits.longrope_short"] = variant_logits(
            folder, dict(config, **VARIANTS["longrope"]), few)[3::4].contiguous()
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    plain = expected["logits"]
    print(name, "largest logit", plain.abs().max().item(),
          {k: round((v - plain[3:4 * len(v):4]).abs().max().item(), 3) for k, v in expected.items()
           if k.startswith("logits.")},
          sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)), "bytes")


def make_chatglm():
    """GLM-4 as its authors' code has it: the folder `glm` in that code's names and order of
    rows, with the base 10000 by its ratio; the logits are the same."""
    folder, source = os.path.join(HERE, "chatglm"), os.path.join(HERE, "glm")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(source, "config.json")) as file:
        glm = json.load(file)
    write_config(os.path.join(folder, "config.json"), dict(
        model_type="chatglm", architectures=["ChatGLMModel"], add_bias_linear=False,
        add_qkv_bias=glm["attention_bias"], apply_residual_connection_post_layernorm=False,
        ffn_hidden_size=glm["intermediate_size"], hidden_size=glm["hidden_size"],
        kv_channels=glm["head_dim"], layernorm_epsilon=glm["rms_norm_eps"],
        multi_query_attention=True, multi_query_group_num=glm["num_key_value_heads"],
        num_attention_heads=glm["num_attention_heads"], num_hidden_layers=2, num_layers=2,
        original_rope=True, padded_vocab_size=VOCABULARY, post_layer_norm=True, rmsnorm=True,
        rope_ratio=glm["rope_theta"] / 10000, seq_length=glm["max_position_embeddings"],
        tie_word_embeddings=False, vocab_size=VOCABULARY, eos_token_id=[2, 3]))
    w = load_file(os.path.join(source, "model.safetensors"))
    out = {"embedding.word_embeddings.weight": w["model.embed_tokens.weight"],
           "encoder.final_layernorm.weight": w["model.norm.weight"],
           "output_layer.weight": w["lm_head.weight"]}
    for i in range(2):
        ours, theirs = f"model.layers.{i}.", f"encoder.layers.{i}."
        for part in ("weight", "bias"):
            out[theirs + "self_attention.query_key_value." + part] = torch.cat(
                [w[ours + f"self_attn.{x}_proj.{part}"] for x in "qkv"])
        for a, b in (("self_attention.dense", "self_attn.o_proj"),
                     ("mlp.dense_h_to_4h", "mlp.gate_up_proj"),
                     ("mlp.dense_4h_to_h", "mlp.down_proj"),
                     ("input_layernorm", "input_layernorm"),
                     ("post_attention_layernorm", "post_attention_layernorm")):
            out[theirs + a + ".weight"] = w[ours + b + ".weight"]
    save_weights(folder, {"transformer." + k: v for k, v in out.items()}, 1)
    shutil.copy(os.path.join(source, "expected.safetensors"), folder)


if __name__ == "__main__":
    for number, (family, (config, dtype, files)) in enumerate(FAMILIES.items()):
        if len(sys.argv) == 1 or family in sys.argv[1:]:
            make(family, config, dtype, files, seed=301 + number)
    if len(sys.argv) == 1 or "chatglm" in sys.argv[1:]:
        make_chatglm()
