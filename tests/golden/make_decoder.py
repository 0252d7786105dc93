"""Golden fixtures of plain decoders: decoder_{llama,gpt,post}.safetensors.

  llama  pre-norm RMS, SwiGLU, RoPE, two query heads a key-value head, free head, no biases
  gpt    pre-norm LayerNorm, GELU (tanh form), learned positions, biases, tied head (GPT-2)
  post   norm after the residual sum, ReLU, learned positions, no biases in attention,
         embedding scaled by sqrt(C), tied head (the first Transformer's decoder)

See README.md for names and shapes.
"""
import math

import torch

from fixture import (Adam, Random, clip, float32_error, gradients, leaves, nll, prefixed, save)

BASE = dict(layers=2, width=32, heads=4, key_value_heads=4, head_width=8, feed_forward=56,
            vocabulary=48, rows=2, tokens=17)
VARIANTS = {
    "llama": dict(BASE, key_value_heads=2, norm="rms", norm_place="pre", norm_epsilon=1e-6,
                  activation="swiglu", attention_bias=False, feed_forward_bias=False,
                  positions="rope", rope_base=10000.0, head="free", embedding_scale=1.0),
    "gpt": dict(BASE, norm="layer", norm_place="pre", norm_epsilon=1e-5,
                activation="gelu_tanh", attention_bias=True, feed_forward_bias=True,
                positions="learned", head="tied", embedding_scale=1.0),
    "post": dict(BASE, norm="layer", norm_place="post", norm_epsilon=1e-5,
                 activation="relu", attention_bias=False, feed_forward_bias=True,
                 positions="learned", head="tied", embedding_scale=math.sqrt(32)),
}
TRAINING = dict(steps=10, optimizer="adamw", rate=1e-3, beta1=0.9, beta2=0.95, epsilon=1e-8,
                decay=0.1, clip=1.0)


def make_weights(c, random):
    w = {}

    def linear(name, out, into, bias):
        w[name + ".weight"] = random.normal(out, into, scale=into ** -0.5)
        if bias:
            w[name + ".bias"] = random.normal(out, scale=0.1)

    def norm(name):
        w[name + ".weight"] = random.normal(c["width"], scale=0.1, mean=1.0)
        if c["norm"] == "layer":
            w[name + ".bias"] = random.normal(c["width"], scale=0.1)

    width, keys = c["width"], c["key_value_heads"] * c["head_width"]
    w["embedding.weight"] = random.normal(c["vocabulary"], width, scale=0.2)
    if c["positions"] == "learned":
        w["position.weight"] = random.normal(c["tokens"], width, scale=0.5)
    for i in range(c["layers"]):
        at = f"layers.{i}."
        norm(at + "attention_norm")
        linear(at + "attention.query", c["heads"] * c["head_width"], width, c["attention_bias"])
        linear(at + "attention.key", keys, width, c["attention_bias"])
        linear(at + "attention.value", keys, width, c["attention_bias"])
        linear(at + "attention.output", width, c["heads"] * c["head_width"], c["attention_bias"])
        norm(at + "feed_forward_norm")
        if c["activation"] == "swiglu":
            linear(at + "feed_forward.gate", c["feed_forward"], width, c["feed_forward_bias"])
        linear(at + "feed_forward.up", c["feed_forward"], width, c["feed_forward_bias"])
        linear(at + "feed_forward.down", width, c["feed_forward"], c["feed_forward_bias"])
    if c["norm_place"] == "pre":
        norm("norm")
    if c["head"] == "free":
        linear("head", c["vocabulary"], width, False)
    return w


def linear(w, name, x):
    y = x @ w[name + ".weight"].T
    return y + w[name + ".bias"] if name + ".bias" in w else y


def norm(w, name, x, c):
    if c["norm"] == "rms":
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["norm_epsilon"]) \
            * w[name + ".weight"]
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + c["norm_epsilon"]) \
        * w[name + ".weight"] + w[name + ".bias"]


def rope(x, base):
    """Turns pairs (d, d + D/2) of x [B,T,H,D] by position * base^(-2d/D)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] \
        * base ** (-torch.arange(half, dtype=x.dtype) / half)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attention(w, at, x, c):
    rows, tokens, _ = x.shape
    q = linear(w, at + ".query", x).view(rows, tokens, c["heads"], c["head_width"])
    k = linear(w, at + ".key", x).view(rows, tokens, c["key_value_heads"], c["head_width"])
    v = linear(w, at + ".value", x).view(rows, tokens, c["key_value_heads"], c["head_width"])
    if c["positions"] == "rope":
        q, k = rope(q, c["rope_base"]), rope(k, c["rope_base"])
    share = c["heads"] // c["key_value_heads"]
    k, v = k.repeat_interleave(share, 2), v.repeat_interleave(share, 2)
    score = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(c["head_width"])
    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weight = score.masked_fill(future, -math.inf).softmax(-1)
    y = torch.einsum("bhij,bjhd->bihd", weight, v).reshape(rows, tokens, -1)
    return linear(w, at + ".output", y)


def feed_forward(w, at, x, c):
    up = linear(w, at + ".up", x)
    if c["activation"] == "swiglu":
        gate = linear(w, at + ".gate", x)
        up = gate * torch.sigmoid(gate) * up
    elif c["activation"] == "gelu_tanh":
        up = 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up ** 3)))
    else:
        up = torch.relu(up)
    return linear(w, at + ".down", up)


def forward(w, ids, c):
    """ids [B,T] -> logits [B,T,V] and the residual stream before each layer and after the last."""
    x = w["embedding.weight"][ids] * c["embedding_scale"]
    if c["positions"] == "learned":
        x = x + w["position.weight"][:ids.shape[1]]
    hidden = [x]
    for i in range(c["layers"]):
        for part, work in (("attention", attention), ("feed_forward", feed_forward)):
            at = f"layers.{i}.{part}"
            if c["norm_place"] == "pre":
                x = x + work(w, at, norm(w, at + "_norm", x, c), c)
            else:
                x = norm(w, at + "_norm", x + work(w, at, x, c), c)
        hidden.append(x)
    if c["norm_place"] == "pre":
        x = norm(w, "norm", x, c)
    head = w["head.weight"] if c["head"] == "free" else w["embedding.weight"]
    return x @ head.T, hidden


def train(weights, ids, targets, c, dtype, decays):
    w = leaves(weights, dtype)
    adam = Adam(TRAINING["beta1"], TRAINING["beta2"], TRAINING["epsilon"], TRAINING["decay"],
                decays)
    losses, norms = [], []
    for step in range(TRAINING["steps"]):
        loss = nll(forward(w, ids[step], c)[0], targets[step]).mean()
        grads = gradients(loss, w)
        norms.append(clip(grads, TRAINING["clip"]).detach())
        losses.append(loss.detach())
        adam.update(w, grads, TRAINING["rate"])
    return dict(losses=torch.stack(losses), norms=torch.stack(norms)), w


def without_noise(final, c):
    """A key's bias moves every score of a query alike: its gradient is rounding noise, which
    Adam blows up to full steps. Without RoPE its final value means nothing."""
    drop = c["attention_bias"] and c["positions"] != "rope"
    return {k: v for k, v in final.items() if not (drop and k.endswith("attention.key.bias"))}


def make(name, c, seed):
    random = Random(seed)
    weights = make_weights(c, random)
    shape = (c["rows"], c["tokens"])
    data = dict(ids=random.ids(c["vocabulary"], *shape),
                targets=random.ids(c["vocabulary"], *shape),
                loss_weights=torch.rand(shape, generator=torch.Generator().manual_seed(seed))
                .float().double())
    data["loss_weights"][0, 3:6] = 0
    data["loss_weights"][1, -4:] = 0

    def one_pass(dtype):
        w = leaves(weights, dtype)
        logits, hidden = forward(w, data["ids"], c)
        each = nll(logits, data["targets"])
        lw = data["loss_weights"].to(dtype)
        total = (each * lw).sum()
        out = dict(logits=logits, nll=each, loss_sum=total[None], loss_mean=total[None] / lw.sum())
        out.update({f"hidden.{i}": h for i, h in enumerate(hidden)})
        return out, gradients(total / lw.sum(), w)

    # A stream with something to learn: a noisy fixed permutation of the vocabulary.
    steps = TRAINING["steps"]
    successor = torch.from_numpy(random.generator.permutation(c["vocabulary"]))
    stream = random.ids(c["vocabulary"], steps, c["rows"], c["tokens"] + 1)
    for t in range(1, c["tokens"] + 1):
        keep = torch.from_numpy(random.generator.random((steps, c["rows"])) < 0.8)
        stream[:, :, t] = torch.where(keep, successor[stream[:, :, t - 1]], stream[:, :, t])
    ids, targets = stream[:, :, :-1].contiguous(), stream[:, :, 1:].contiguous()

    out, grads = one_pass(torch.float64)
    out32, grads32 = one_pass(torch.float32)
    everything, matrices = lambda w: True, lambda w: w.dim() > 1
    curve, final = train(weights, ids, targets, c, torch.float64, everything)
    curve32, final32 = train(weights, ids, targets, c, torch.float32, everything)
    curve_m, final_m = train(weights, ids, targets, c, torch.float64, matrices)
    final, final_m = without_noise(final, c), without_noise(final_m, c)
    error = dict(logits=float32_error({"l": out["logits"]}, {"l": out32["logits"]}),
                 gradients=float32_error(grads, grads32),
                 losses=float32_error({"l": curve["losses"]}, {"l": curve32["losses"]}),
                 final=float32_error(final, final32))
    tensors = dict(data, **out)
    tensors.update(prefixed("weight.", weights))
    tensors.update(prefixed("gradient.", grads))
    tensors.update({"training.ids": ids, "training.targets": targets,
                    "training.losses": curve["losses"], "training.norms": curve["norms"],
                    "training_matrices.losses": curve_m["losses"]})
    tensors.update(prefixed("final.", final))
    tensors.update(prefixed("final_matrices.", final_m))
    save("decoder_" + name, tensors, config=c, training=TRAINING, float32_error=error)
    print("   losses", [round(x, 4) for x in curve["losses"].tolist()], error)


if __name__ == "__main__":
    for number, (variant, config) in enumerate(VARIANTS.items()):
        make(variant, config, seed=101 + number)
