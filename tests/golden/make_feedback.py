"""Golden fixture of a small model with Block-Recurrent feedback (Hutchins et al. 2022, arXiv
2203.07852, section 4, in the form of the authors' code): feedback.safetensors.

Three layers as in make_block_recurrent.py, the middle one recurrent. The whole stack runs window
by window; every layer cross-attends to the keys and values of the states with which the recurrent
layer enters the window. logits = N(x) embedding^T, loss = mean over all tokens. Row 1 begins
another document at window 2. Nothing is cut. Names are those of the program's parameters.
"""
import torch

from fixture import Random, gradients, leaves, nll, prefixed, save
from make_block_recurrent import (C, attend, bucket, heads, linear, make_weights, next_state, norm)

GATE, FORM, WINDOWS, VOCABULARY, RECURRENT = "lstm", "skip", 4, 13, 1
PLACES = {"token.norm.weight": "attention.norm.gain",
          "token.feed_forward_norm.weight": "feed_forward.norm.gain",
          "token.feed_forward.up.weight": "feed_forward.up.weight",
          "token.feed_forward.down.weight": "feed_forward.down.weight",
          "state.norm.weight": "attention.state.norm.gain"}


def place(layer, name):
    return f"layers.{layer}." + PLACES.get(name, "attention." + name)


def make_model(random):
    weights, names = {}, []
    for layer in range(3):
        own = {name: tensor for name, tensor in make_weights(GATE, FORM, random).items()
               if layer == RECURRENT or name.startswith("token.")}
        names.append(list(own))
        weights.update({place(layer, name): tensor for name, tensor in own.items()})
    weights["embedding.weight"] = random.normal(VOCABULARY, C["width"])
    weights["final_norm.gain"] = random.normal(C["width"], scale=0.1, mean=1.0)
    return weights, names


def run_layer(w, x, keys, values, states, recurrent, c):
    """One window of one layer; `states` are the keys and values of the recurrent states."""
    window = C["window"]
    distance = window + torch.arange(window)[:, None] - torch.arange(2 * window)[None]
    seen = (distance >= 1) & (distance <= window)
    bias = w["token.position.weight"][bucket(distance)].permute(2, 0, 1)
    y = norm(w, "token.norm", x)
    own_keys, own_values = heads(w, "token.key", y), heads(w, "token.value", y, False)
    k, v = torch.cat([keys, own_keys], 1), torch.cat([values, own_values], 1)
    own = attend(heads(w, "token.query", y), k, v, w["token.scale"], bias, seen)
    cross = attend(heads(w, "token.cross_query", y), *states, w["token.cross_scale"])
    h = x + linear(w, "token.output", torch.cat([own, cross], 2).flatten(2))
    inner = torch.relu(linear(w, "token.feed_forward.up", norm(w, "token.feed_forward_norm", h)))
    out = h + linear(w, "token.feed_forward.down", inner)
    if recurrent:
        z = norm(w, "state.norm", c) + w["state.ids"]
        own = attend(heads(w, "state.query", z), *states, w["state.scale"])
        cross = attend(heads(w, "state.cross_query", z), k, v, w["state.cross_scale"])
        c = next_state(w, GATE, FORM, c, torch.cat([own, cross], 2).flatten(2))
    return out, own_keys, own_values, c


def main():
    random = Random(811)
    weights, names = make_model(random)
    window, rows = C["window"], C["rows"]
    ids = random.ids(VOCABULARY, WINDOWS, rows, window)
    targets = random.ids(VOCABULARY, WINDOWS, rows, window)
    start = torch.zeros(WINDOWS, rows, dtype=torch.long)
    start[0], start[2, 1] = 1, 1
    w = leaves(weights, torch.float64)
    own = [{name: w[place(layer, name)] for name in names[layer]} for layer in range(3)]
    shape = (rows, window, C["heads"], C["head_width"])
    keys = [torch.zeros(shape, dtype=torch.float64) for _ in range(3)]
    values = [torch.zeros(shape, dtype=torch.float64) for _ in range(3)]
    c = torch.zeros(rows, C["states"], C["width"], dtype=torch.float64)
    tensors, total = dict(ids=ids, targets=targets, start=start), 0
    for n in range(WINDOWS):
        fresh = start[n] == 1
        c = torch.where(fresh[:, None, None], own[RECURRENT]["state.initial"], c)
        z = norm(own[RECURRENT], "state.norm", c) + own[RECURRENT]["state.ids"]
        states = (heads(own[RECURRENT], "state.key", z),
                  heads(own[RECURRENT], "state.value", z, False))
        x = w["embedding.weight"][ids[n]]
        for layer in range(3):
            keys[layer] = keys[layer].masked_fill(fresh[:, None, None, None], 0)
            values[layer] = values[layer].masked_fill(fresh[:, None, None, None], 0)
            x, keys[layer], values[layer], c = run_layer(own[layer], x, keys[layer],
                                                         values[layer], states,
                                                         layer == RECURRENT, c)
        y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + C["norm_epsilon"])
        logits = (y * w["final_norm.gain"]) @ w["embedding.weight"].T
        tensors[f"logits.{n}"] = logits
        tensors[f"state.{n}"] = c
        total = total + nll(logits, targets[n]).mean() / WINDOWS
    tensors["loss"] = total[None]
    tensors.update(prefixed("weight.", weights))
    tensors.update(prefixed("gradient.", gradients(total, w)))
    save("feedback", tensors, config=dict(C, gate=GATE, form=FORM, recurrent=RECURRENT))


if __name__ == "__main__":
    main()
