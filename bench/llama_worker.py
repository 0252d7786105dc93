"""The peer of `bench read`: llama.cpp (the llama-cpp-python package, built here for this processor).
A worker: one line in, one JSON line out.

  {"model": "folder of a qwen2", "threads": 2, "tokens": most of a context}
      the first line; the folder receives llama-f16.gguf, llama-bf16.gguf, llama-q8_0.gguf and
      llama-q4_0.gguf, where they are not there yet
      -> {"ready": true, "version": "...", "variant": "...", "tried": {variant: tokens/s}}
  weights f16|q8_0|q4_0
      the model in these; what was read before is still there -> {"weights": ...}
  prompt N
      -> {"seconds": ..., "logits": [of the last token, the first few]}: reads N tokens anew
  generate N
      -> {"seconds": ...}: N tokens after the last, one by one; then they are forgotten
  quit

Variants: the model in F16 or BF16 and physical batches of 512 or 2,048 tokens, with flash attention
or without. The fastest at 2,048 tokens is kept for all that follows ("f16" then stands for the
faster of the two). Token i of a prompt is (i * 7919 + 13) % 50021.
"""
import ctypes
import itertools
import json
import os
import sys
import time

import gguf
import llama_cpp as llama
import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def bf16_bytes(folder):
    """Tensors of model.safetensors: name -> uint16 array. numpy has no bfloat16: read as bytes."""
    path = os.path.join(folder, "model.safetensors")
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    data = np.memmap(path, np.uint8, "r", 8 + size)
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            yield name, data[begin:end].view(np.uint16).reshape(tensor["shape"])


def write_gguf(folder, kind, path):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    out = gguf.GGUFWriter(path + ".new", "qwen2")
    out.add_block_count(config["num_hidden_layers"])
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_vocab_size(config["vocab_size"])
    out.add_tokenizer_model("no_vocab")
    out.add_file_type(llama.LLAMA_FTYPE_MOSTLY_F16 if kind == "f16"
                      else llama.LLAMA_FTYPE_MOSTLY_BF16)
    for name, bits in bf16_bytes(folder):
        values = (bits.astype(np.uint32) << 16).view(np.float32)
        if values.ndim == 1:
            out.add_tensor(gguf_name(name), values)
        elif kind == "f16":
            out.add_tensor(gguf_name(name), values.astype(np.float16))
        else:
            out.add_tensor(gguf_name(name), np.ascontiguousarray(bits).view(np.uint8),
                           raw_dtype=gguf.GGMLQuantizationType.BF16)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    os.replace(path + ".new", path)


def quantise(folder, kind, path, threads):
    options = llama.llama_model_quantize_default_params()
    options.nthread = threads
    options.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    source = os.path.join(folder, "llama-f16.gguf")
    if llama.llama_model_quantize(source.encode(), (path + ".new").encode(),
                                  ctypes.byref(options)):
        sys.exit(f"llama.cpp cannot make {path}")
    os.replace(path + ".new", path)


class Model:
    def __init__(self, args):
        self.args, self.model, self.context, self.weights = args, None, None, {}
        for kind in ("f16", "bf16", "q8_0", "q4_0"):
            path = os.path.join(args["model"], f"llama-{kind}.gguf")
            self.weights[kind] = path
            if os.path.exists(path):
                continue
            if "q" in kind:
                quantise(args["model"], kind, path, args["threads"])
            else:
                write_gguf(args["model"], kind, path)

    def close(self):
        if self.model:
            llama.llama_free(self.context)
            llama.llama_model_free(self.model)
        self.model = self.context = None

    def open(self, kind, batch, flash):
        """A context with nothing in it."""
        self.close()
        options = llama.llama_model_default_params()
        self.model = llama.llama_model_load_from_file(self.weights[kind].encode(), options)
        options = llama.llama_context_default_params()
        options.n_ctx = self.args["tokens"]
        options.n_batch = options.n_ubatch = batch
        options.n_threads = options.n_threads_batch = self.args["threads"]
        options.flash_attn_type = int(flash)
        self.context = llama.llama_init_from_model(self.model, options)
        if not self.context:
            sys.exit("llama.cpp cannot open the model")
        self.read, self.batch, self.flash = 0, batch, flash

    def decode(self, ids):
        array = (llama.llama_token * len(ids))(*ids)
        if llama.llama_decode(self.context, llama.llama_batch_get_one(array, len(ids))):
            sys.exit("llama.cpp cannot decode")
        self.read += len(ids)

    def logits(self):
        return llama.llama_get_logits_ith(self.context, -1)

    def prompt(self, count):
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        self.read = 0
        start = time.perf_counter()
        for first in range(0, count, self.batch):
            self.decode([(i * 7919 + 13) % 50021
                         for i in range(first, min(first + self.batch, count))])
        logits = self.logits()[:8]
        return time.perf_counter() - start, logits

    def generate(self, count):
        """The vocabulary is not searched for the largest: ours is not, either."""
        read = self.read
        start = time.perf_counter()
        for i in range(count):
            self.decode([(i * 104729 + 7) % 50021])
            self.logits()[0]
        seconds = time.perf_counter() - start
        llama.llama_memory_seq_rm(llama.llama_get_memory(self.context), 0, read, -1)
        self.read = read
        return seconds

    def change(self, kind):
        """Other weights; keys and values stay, which saves reading them again."""
        size = llama.llama_state_seq_get_size(self.context, 0)
        kept = (ctypes.c_uint8 * size)()
        llama.llama_state_seq_get_data(self.context, kept, size, 0)
        read = self.read
        self.open(kind, self.batch, self.flash)
        if read and not llama.llama_state_seq_set_data(self.context, kept, size, 0):
            sys.exit("llama.cpp cannot take over its keys and values")
        self.read = read


def main():
    # What it prints goes elsewhere: answers are on a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    args = json.loads(sys.stdin.readline())
    llama.llama_backend_init()
    model = Model(args)
    tried = {}
    forms = list(itertools.product(("f16", "bf16"), (512, 2048), (False, True)))
    for kind, batch, flash in forms:
        model.open(kind, batch, flash)
        model.prompt(32)
        name = f"{kind}, batches of {batch}{', flash attention' if flash else ''}"
        tried[name] = round(2048 / model.prompt(2048)[0], 1)
    best = max(tried, key=tried.get)
    kind, batch, flash = forms[list(tried).index(best)]
    model.open(kind, batch, flash)
    answer(ready=True, version=llama.__version__, variant=best, tried=tried)
    for line in sys.stdin:
        verb, _, rest = line.strip().partition(" ")
        if verb == "prompt":
            seconds, logits = model.prompt(int(rest))
            answer(seconds=seconds, logits=logits)
        elif verb == "generate":
            answer(seconds=model.generate(int(rest)))
        elif verb == "weights":
            model.change(kind if rest == "f16" else rest)
            answer(weights=rest)
        else:
            break
    model.close()


main()
