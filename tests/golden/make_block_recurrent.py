"""Golden fixtures of one Block-Recurrent Transformer layer (Hutchins et al. 2022, arXiv
2203.07852): block_recurrent_{fixed,lstm}_{dual,single,skip}.safetensors.

Blocks of W tokens, one after the other. With n(y) = y / sqrt(sum y^2 + 1e-6) on every query and
key, and the mean-square norm N without mean or bias:
  states   z = N_s(c) + ids;  k_s, v_s, q_s, q_s2 = projections of z
  tokens   y = N_x(x);        k_x, v_x, q_x, q_x2 = projections of y
  keys of a block: those of the block before (zeros, visible, before a document) and its own
  tokens:  self  = softmax((q_x . k_x + T5 bias) |scale|), token i sees i-W .. i-1, not itself
           cross = softmax(q_x2 . k_s |cross_scale|) of the incoming state
           h = x + [self, cross] W_o;  out = h + FFN(N_f(h))
  states:  y = [softmax(q_s . k_s |scale|), softmax(q_s2 . k_x |cross_scale|) over all 2W keys]
    skip     c' = gate(c, y W_o; y)
    dual     a = gate(c, y W_o; y);  c' = gate2(a, relu(N_f(a) W_1) W_2; the relu's value)
    single   c' = gate(c, tanh(relu(y W_1) W_2); the relu's value)
  gate(c, z; e): fixed  g c + (1 - g) z, g = sigmoid(bias)
                 lstm   sigmoid(e W_f + b_f + 1) c + sigmoid(e W_i + b_i - 1) z
See README.md for names and shapes.
"""
import math

import torch

from fixture import Random, gradients, leaves, prefixed, save

C = dict(width=16, heads=2, head_width=8, feed_forward=24, states=6, window=5, blocks=3, rows=2,
         buckets=32, far=128, norm_epsilon=1e-6)


def make_weights(gate, form, random):
    w, width, inner, hidden = {}, C["width"], C["heads"] * C["head_width"], C["feed_forward"]

    def linear(name, out, into):
        w[name + ".weight"] = random.normal(out, into, scale=into ** -0.5)

    def gated(name, into):
        if gate == "fixed":
            w[name + ".bias"] = random.normal(width, scale=0.5)
            return
        for part in ("forget", "input"):
            linear(f"{name}.{part}", width, into)
            w[f"{name}.{part}.bias"] = random.normal(width, scale=0.1)

    for side in ("token", "state"):
        w[side + ".norm.weight"] = random.normal(width, scale=0.1, mean=1.0)
        for part in ("query", "cross_query", "key", "value"):
            linear(f"{side}.{part}", inner, width)
        for part in ("scale", "cross_scale"):
            w[f"{side}.{part}"] = random.normal(C["heads"], scale=0.5, mean=2.0)
    w["token.scale"][1] *= -1  # the absolute value counts
    w["token.position.weight"] = random.normal(C["buckets"], C["heads"])
    w["state.ids"] = random.normal(C["states"], width)
    w["state.initial"] = random.normal(C["states"], width, scale=0.5)
    for side in ("token", "state"):
        if side == "token" or form != "single":
            linear(side + ".output", width, 2 * inner)
        if side == "token" or form == "dual":
            w[side + ".feed_forward_norm.weight"] = random.normal(width, scale=0.1, mean=1.0)
        if side == "token" or form != "skip":
            into = 2 * inner if side == "state" and form == "single" else width
            linear(side + ".feed_forward.up", hidden, into)
            linear(side + ".feed_forward.down", width, hidden)
    if form != "single":
        gated("state.attention_gate", 2 * inner)
    if form != "skip":
        gated("state.feed_forward_gate", hidden)
    return w


def norm(w, name, x):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + C["norm_epsilon"]) * w[name + ".weight"]


def heads(w, name, x, unit=True):
    y = (x @ w[name + ".weight"].T).view(*x.shape[:-1], C["heads"], C["head_width"])
    return y / torch.sqrt((y * y).sum(-1, keepdim=True) + 1e-6) if unit else y


def attend(q, k, v, scale, bias=None, seen=None):
    """q [B,T,H,D], k and v [B,S,H,D], scale [H], bias [H,T,S], seen [T,S]."""
    score = torch.einsum("bihd,bjhd->bhij", q, k)
    score = (score if bias is None else score + bias) * scale.abs()[:, None, None]
    if seen is not None:
        score = score.masked_fill(~seen, -math.inf)
    return torch.einsum("bhij,bjhd->bihd", score.softmax(-1), v)


def bucket(distance):
    """T5's buckets; the window here is too short to leave the exact half."""
    assert distance.max() < C["buckets"] // 2
    return distance.clamp(min=0)


def gate(w, name, kind, c, z, e):
    if kind == "fixed":
        g = torch.sigmoid(w[name + ".bias"])
        return g * c + (1 - g) * z
    forget = torch.sigmoid(e @ w[name + ".forget.weight"].T + w[name + ".forget.bias"] + 1)
    enter = torch.sigmoid(e @ w[name + ".input.weight"].T + w[name + ".input.bias"] - 1)
    return forget * c + enter * z


def linear(w, name, x):
    return x @ w[name + ".weight"].T


def next_state(w, kind, form, c, y):
    if form == "single":
        e = torch.relu(linear(w, "state.feed_forward.up", y))
        z = torch.tanh(linear(w, "state.feed_forward.down", e))
        return gate(w, "state.feed_forward_gate", kind, c, z, e)
    a = gate(w, "state.attention_gate", kind, c, linear(w, "state.output", y), y)
    if form == "skip":
        return a
    e = torch.relu(linear(w, "state.feed_forward.up", norm(w, "state.feed_forward_norm", a)))
    return gate(w, "state.feed_forward_gate", kind, a, linear(w, "state.feed_forward.down", e), e)


def forward(w, kind, form, x, c, keys, values):
    """x [B,N,C], c [B,states,C], keys and values of the block before [B,W,H,D]."""
    window, out, states = C["window"], [], []
    distance = window + torch.arange(window)[:, None] - torch.arange(2 * window)[None]
    seen = (distance >= 1) & (distance <= window)
    bias = w["token.position.weight"][bucket(distance)].permute(2, 0, 1)
    for block in x.split(window, 1):
        y = norm(w, "token.norm", block)
        own_keys, own_values = heads(w, "token.key", y), heads(w, "token.value", y, False)
        k, v = torch.cat([keys, own_keys], 1), torch.cat([values, own_values], 1)
        keys, values = own_keys, own_values
        z = norm(w, "state.norm", c) + w["state.ids"]
        k_s, v_s = heads(w, "state.key", z), heads(w, "state.value", z, False)

        own = attend(heads(w, "token.query", y), k, v, w["token.scale"], bias, seen)
        cross = attend(heads(w, "token.cross_query", y), k_s, v_s, w["token.cross_scale"])
        h = block + linear(w, "token.output", torch.cat([own, cross], 2).flatten(2))
        inner = torch.relu(linear(w, "token.feed_forward.up",
                                  norm(w, "token.feed_forward_norm", h)))
        out.append(h + linear(w, "token.feed_forward.down", inner))

        own = attend(heads(w, "state.query", z), k_s, v_s, w["state.scale"])
        cross = attend(heads(w, "state.cross_query", z), k, v, w["state.cross_scale"])
        c = next_state(w, kind, form, c, torch.cat([own, cross], 2).flatten(2))
        states.append(c)
    return torch.cat(out, 1), states, keys, values


def make(kind, form, seed):
    random = Random(seed)
    weights = make_weights(kind, form, random)
    x = random.normal(C["rows"], C["blocks"] * C["window"], C["width"])
    d_out = random.normal(*x.shape)
    # Row 0 starts a document, row 1 goes on with one.
    before = dict(state=random.normal(C["rows"], C["states"], C["width"], scale=0.5),
                  keys=random.normal(C["rows"], C["window"], C["heads"], C["head_width"],
                                     scale=C["head_width"] ** -0.5),
                  values=random.normal(C["rows"], C["window"], C["heads"], C["head_width"]))
    for tensor in before.values():
        tensor[0] = 0
    w = leaves(dict(weights, x=x), torch.float64)
    start = torch.tensor([1, 0])
    c = torch.where(start[:, None, None] == 1, w["state.initial"], before["state"])
    out, states, keys, values = forward(w, kind, form, w["x"], c, before["keys"],
                                        before["values"])
    grads = gradients((out * d_out).sum(), w)
    tensors = dict(x=x, d_out=d_out, start=start, out=out)
    tensors.update(prefixed("before.", before))
    tensors.update({f"state.{i}": s for i, s in enumerate(states)})
    tensors.update({"after.keys": keys, "after.values": values})
    tensors.update(prefixed("weight.", weights))
    tensors.update(prefixed("gradient.", grads))
    save(f"block_recurrent_{kind}_{form}", tensors, config=dict(C, gate=kind, form=form))


if __name__ == "__main__":
    for number, (a, b) in enumerate((a, b) for a in ("fixed", "lstm")
                                    for b in ("dual", "single", "skip")):
        make(a, b, 601 + number)
