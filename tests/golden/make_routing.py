"""Golden fixture of one Routing Transformer attention layer (Roy et al. 2020, arXiv 2003.05997,
in the authors' published, not strictly causal form): routing.safetensors.

The first `routing_heads` heads route, the others are block-local; one projection each for q, k
and v (no biases; no norm or residual sum here). Routing heads, with LN a layer norm without gain
or bias:
  x = LN(q), keys = x (shared);  s_ic = x_i . centroid_c
  members of c = the `window` positions of highest s_.c over the whole sequence, in order
  o = softmax(causal by rank: x_i . x_j + x_i . a_key[i - j]) (v_j + a_value[i - j])
                                      (i, j ranks within the cluster; no scale)
  output of a position = sum of its o over the clusters that hold it / (their number + 0.01)
  auxiliary = 2 beta mean (x - nearest centroid)^2   (query and key terms, equal as shared)
Local heads: block b sees itself and the block before, causally; q scaled by D^-0.5; Shaw terms.
Running averages, from the hard nearest centroid of every position, after the loss:
  count = decay count + (1 - decay) n;  sum = decay sum + (1 - decay) sum x
  centroid = sum / ((count + 1e-5) / (total + clusters 1e-5) total)
See README.md for names and shapes.
"""
import math

import torch

from fixture import Random, gradients, leaves, prefixed, save

C = dict(width=32, routing_heads=2, local_heads=2, head_width=8, clusters=4, window=6, block=6,
         max_relative=5, rows=2, tokens=24, beta=0.1, decay=0.9, norm_epsilon=1e-6)


def layer_norm(x):
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + C["norm_epsilon"])


def shaw(table, queries, keys, offset=0):
    """Rows of a [2 limit + 1, D] table by the clipped distance offset + i - j: [T,S,D]."""
    limit = C["max_relative"]
    distance = offset + torch.arange(queries)[:, None] - torch.arange(keys)[None]
    return table[limit + distance.clamp(-limit, limit)]


def attend(q, k, v, seen, a_key, a_value):
    """q [...,T,D], k and v [...,S,D], seen [T,S], a_key and a_value [T,S,D] -> [...,T,D]."""
    score = q @ k.transpose(-1, -2) + torch.einsum("...id,ijd->...ij", q, a_key)
    p = score.masked_fill(~seen, -math.inf).softmax(-1)
    return p @ v + torch.einsum("...ij,ijd->...id", p, a_value)


def routing(w, q, v, centroids):
    """q, v [B,H,T,D] of the routing heads -> output, auxiliary loss, statistics."""
    rows, heads, tokens, depth = q.shape
    x, window = layer_norm(q), C["window"]
    near = torch.einsum("bhtd,hcd->bhct", x, centroids)
    index = near.topk(window, -1).indices.sort(-1).values  # [B,H,clusters,window]
    gap = near.sort(-1, descending=True).values
    margin = (gap[..., window - 1] - gap[..., window]).min()

    def gather(y):
        at = index[..., None].expand(*index.shape, depth)
        return y[:, :, None].expand(-1, -1, index.shape[2], -1, -1).gather(3, at)

    seen = torch.ones(window, window, dtype=torch.bool).tril()
    o = attend(gather(x), gather(x), gather(v), seen,
               shaw(w["routing.relative_key.weight"], window, window),
               shaw(w["routing.relative_value.weight"], window, window))
    flat = index.flatten(2)[..., None].expand(-1, -1, -1, depth)
    total = torch.zeros_like(q).scatter_add(2, flat, o.flatten(2, 3))
    count = torch.zeros_like(q).scatter_add(2, flat, torch.ones_like(o).flatten(2, 3))

    nearest = near.argmax(2)  # [B,H,T]
    best = near.sort(2, descending=True).values
    margin = min(margin, (best[:, :, 0] - best[:, :, 1]).min())
    assert margin > 1e-4, "a choice too close to call in float32: take another seed"
    mean = centroids[torch.arange(heads)[None, :, None], nearest]
    auxiliary = 2 * C["beta"] * ((x - mean) ** 2).mean()
    hot = torch.nn.functional.one_hot(nearest, C["clusters"]).to(q.dtype)
    statistics = dict(count=hot.sum((0, 2)), sum=torch.einsum("bhtc,bhtd->hcd", hot, x))
    return total / (count + 1e-2), auxiliary, statistics, index, nearest


def local(w, q, k, v):
    """q, k, v [B,H,T,D] of the local heads."""
    block, out = C["block"], []
    for start in range(0, q.shape[2], block):
        first = max(0, start - block)
        keys = slice(first, start + block)
        size = start + block - first
        seen = (start - first + torch.arange(block)[:, None]) >= torch.arange(size)[None]
        out.append(attend(q[:, :, start:start + block] * C["head_width"] ** -0.5, k[:, :, keys],
                          v[:, :, keys], seen,
                          shaw(w["local.relative_key.weight"], block, size, start - first),
                          shaw(w["local.relative_value.weight"], block, size, start - first)))
    return torch.cat(out, 2)


def forward(w, x, centroids):
    rows, tokens, _ = x.shape
    n = C["routing_heads"]

    def heads(name):
        return (x @ w[name + ".weight"].T).view(rows, tokens, -1, C["head_width"]).transpose(1, 2)

    q, k, v = heads("query"), heads("key"), heads("value")
    routed, auxiliary, statistics, index, nearest = routing(w, q[:, :n], v[:, :n], centroids)
    y = torch.cat([routed, local(w, q[:, n:], k, v[:, n:])], 1)
    out = y.transpose(1, 2).reshape(rows, tokens, -1) @ w["output.weight"].T
    return out, auxiliary, statistics, index, nearest


def main():
    random = Random(501)
    heads = C["routing_heads"] + C["local_heads"]
    inner, width, depth = heads * C["head_width"], C["width"], C["head_width"]
    weights = {}
    for name, out, into in (("query", inner, width), ("value", inner, width),
                            ("key", C["local_heads"] * depth, width), ("output", width, inner)):
        weights[name + ".weight"] = random.normal(out, into, scale=into ** -0.5)
    for side in ("routing", "local"):
        for part in ("key", "value"):
            weights[f"{side}.relative_{part}.weight"] = \
                random.normal(2 * C["max_relative"] + 1, depth, scale=0.3)
    buffers = dict(centroids=layer_norm(random.normal(2, C["clusters"], depth)).float().double(),
                   counts=random.normal(2, C["clusters"], scale=0.5, mean=10.0))
    buffers["sums"] = (buffers["centroids"] * buffers["counts"][..., None]).float().double()
    x = random.normal(C["rows"], C["tokens"], width)
    d_out = random.normal(C["rows"], C["tokens"], width)

    w = leaves(dict(weights, x=x), torch.float64)
    out, auxiliary, statistics, index, nearest = forward(w, w["x"], buffers["centroids"])
    task = gradients((out * d_out).sum(), w)
    w = leaves(dict(weights, x=x), torch.float64)
    aux = gradients(forward(w, w["x"], buffers["centroids"])[1], w)

    keep = C["decay"]
    counts = keep * buffers["counts"] + (1 - keep) * statistics["count"]
    sums = keep * buffers["sums"] + (1 - keep) * statistics["sum"]
    total = counts.sum(-1, keepdim=True)
    smooth = (counts + 1e-5) / (total + C["clusters"] * 1e-5) * total
    tensors = dict(x=x, d_out=d_out, out=out, auxiliary=auxiliary[None], index=index,
                   nearest=nearest)
    tensors.update(prefixed("weight.", weights))
    tensors.update(prefixed("buffer.", buffers))
    tensors.update(prefixed("statistics.", statistics))
    tensors.update(prefixed("after.", dict(counts=counts, sums=sums,
                                           centroids=sums / smooth[..., None])))
    tensors.update(prefixed("gradient.", task))
    tensors.update(prefixed("gradient_auxiliary.", aux))
    save("routing", tensors, config=C)


if __name__ == "__main__":
    main()
