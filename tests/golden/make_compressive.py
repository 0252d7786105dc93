"""Golden fixture of one Compressive Transformer attention sublayer (Rae et al. 2019, arXiv
1911.05507, in the form of the authors' Sonnet code): compressive.safetensors.

  h = LN(x);  keys and values from [cm ; m ; h], which are not normed again;  y = x + A W_o
  slot j of cm:     [(q + u) . k + (q + v_c) . W_rc R_d] / sqrt(D),  d = n_cm + i - j
  slot j of [m;h]:  [(q + u) . k + (q + v)   . W_r  R_d] / sqrt(D),  d = n_m + i - j, causal
  one softmax over all; memories start as zeros, all visible
  old = the oldest T rows of [m ; h];  new = conv(old), kernel and stride c, no bias
  m' = the last n_m rows of [m ; h];  cm' = the last n_cm rows of [cm ; new]
  auxiliary = mean (A(q, old) - A(q, new))^2,  A(q, s) = softmax(q (s W_k)^T / sqrt(D)) (s W_v)
              per head, with old, q, W_k, W_v as constants
See README.md for names and shapes.
"""
import math

import torch

from fixture import Random, gradients, leaves, prefixed, save

C = dict(width=16, heads=2, head_width=8, segment=9, memory=12, compressed=5, rate=3, rows=2,
         segments=3, norm_epsilon=1e-5)


def make_weights(random):
    width, inner = C["width"], C["heads"] * C["head_width"]
    w = {"norm.weight": random.normal(width, scale=0.1, mean=1.0),
         "norm.bias": random.normal(width, scale=0.1)}
    for part in ("query", "key", "value", "relative", "relative_compressed"):
        w[part + ".weight"] = random.normal(inner, width, scale=width ** -0.5)
    w["output.weight"] = random.normal(width, inner, scale=inner ** -0.5)
    for part in ("content_bias", "position_bias", "position_bias_compressed"):
        w[part] = random.normal(C["heads"], C["head_width"], scale=0.5)
    w["compress.weight"] = random.normal(width, C["rate"] * width,
                                         scale=(C["rate"] * width) ** -0.5)
    return w


def heads(w, name, x):
    return (x @ w[name + ".weight"].T).view(*x.shape[:-1], C["heads"], C["head_width"])


def sinusoid(distance, width):
    angle = distance[..., None] * 10000 ** (-torch.arange(0, width, 2, dtype=distance.dtype)
                                            / width)
    return torch.cat([angle.sin(), angle.cos()], -1)


def score(w, q, rows, slots, suffix):
    """Scores [B,H,T,S] of q for rows [B,S,C]; query i stands at slots + i, row j at j."""
    distance = slots + torch.arange(q.shape[1])[:, None] - torch.arange(rows.shape[1])[None]
    r = heads(w, "relative" + suffix, sinusoid(distance.clamp(min=0).double(), C["width"]))
    s = torch.einsum("bihd,bjhd->bhij", q + w["content_bias"], heads(w, "key", rows)) \
        + torch.einsum("bihd,ijhd->bhij", q + w["position_bias" + suffix], r)
    return (s / math.sqrt(C["head_width"])).masked_fill(distance < 0, -math.inf)


def compress(w, old):
    """old [B,T,C] -> [B,T/c,C]; the weight reads c rows laid end to end."""
    count = old.shape[1] // C["rate"]
    rows = old[:, :count * C["rate"]].reshape(old.shape[0], count, -1)
    return rows @ w["compress.weight"].T


def content_attention(w, q, rows):
    s = torch.einsum("bihd,bjhd->bhij", q, heads(w, "key", rows)) / math.sqrt(C["head_width"])
    return torch.einsum("bhij,bjhd->bihd", s.softmax(-1), heads(w, "value", rows))


def forward(w, x, m, cm):
    """x [B,T,C], m [B,n_m,C], cm [B,n_cm,C] -> y, parts for the memory and the loss."""
    h = x - x.mean(-1, keepdim=True)
    h = h / torch.sqrt((h * h).mean(-1, keepdim=True) + C["norm_epsilon"]) \
        * w["norm.weight"] + w["norm.bias"]
    q = heads(w, "query", h)
    both = torch.cat([m, h], 1)
    s = torch.cat([score(w, q, cm, C["compressed"], "_compressed"),
                   score(w, q, both, C["memory"], "")], -1)
    v = heads(w, "value", torch.cat([cm, both], 1))
    y = torch.einsum("bhij,bjhd->bihd", s.softmax(-1), v).flatten(2)
    return x + y @ w["output.weight"].T, q, both


def auxiliary(w, q, old):
    """The attention-reconstruction loss; only the compression learns from it."""
    fixed = {name: t.detach() for name, t in w.items()}
    q, old = q.detach(), old.detach()
    gap = content_attention(fixed, q, old) - content_attention(fixed, q, compress(w, old))
    return (gap * gap).mean()


def advance(w, both, cm, through):
    """The next memories. through: 'nothing' cuts all gradients, 'compression' lets them reach
    the compression's weight alone, 'everything' cuts none."""
    if through != "everything":
        both, cm = both.detach(), cm if through == "compression" else cm.detach()
    new = compress(w, both[:, :C["segment"]])
    if through == "nothing":
        new = new.detach()
    return both[:, -C["memory"]:], torch.cat([cm, new], 1)[:, -C["compressed"]:]


def main():
    random = Random(701)
    weights = make_weights(random)
    shape = (C["segments"], C["rows"], C["segment"], C["width"])
    xs, d_outs = random.normal(*shape), random.normal(*shape)
    tensors = {"x": xs, "d_out": d_outs}
    tensors.update(prefixed("weight.", weights))
    m = torch.zeros(C["rows"], C["memory"], C["width"], dtype=torch.float64)
    cm = torch.zeros(C["rows"], C["compressed"], C["width"], dtype=torch.float64)
    saved = []
    for s in range(C["segments"]):
        saved.append((m, cm))
        w = leaves(dict(weights, x=xs[s]), torch.float64)
        y, q, both = forward(w, w["x"], m, cm)
        task = gradients((y * d_outs[s]).sum(), w)
        w = leaves(dict(weights, x=xs[s]), torch.float64)
        y, q, both = forward(w, w["x"], m, cm)
        loss = auxiliary(w, q, both[:, :C["segment"]])
        aux = gradients(loss, w)
        assert all((g == 0).all() for n, g in aux.items() if n != "compress.weight")
        assert (task["compress.weight"] == 0).all() and (loss == 0) == (s == 0)
        m, cm = advance(w, both, cm, "nothing")
        tensors.update({f"out.{s}": y, f"auxiliary.{s}": loss[None], f"memory.{s}": m,
                        f"compressed.{s}": cm,
                        f"gradient_auxiliary.{s}.compress.weight": aux["compress.weight"]})
        tensors.update(prefixed(f"gradient.{s}.", {n: g for n, g in task.items()
                                                   if n != "compress.weight"}))
    # Segments 1 and 2 unrolled together, from the state after segment 0.
    for through in ("compression", "everything"):
        m, cm = saved[1]
        w = leaves(dict(weights, x=xs[1:]), torch.float64)
        total = 0
        for s in (1, 2):
            y, q, both = forward(w, w["x"][s - 1], m, cm)
            m, cm = advance(w, both, cm, through)
            total = total + (y * d_outs[s]).sum()
        grads = gradients(total, w)
        assert (grads["compress.weight"] != 0).any()
        tensors.update(prefixed(f"through_{through}.", grads))
    save("compressive", tensors, config=C)


if __name__ == "__main__":
    main()
