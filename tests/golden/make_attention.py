"""Golden fixtures of the attention operation: attention.safetensors.

One softmax over several groups of keys. Query i stands at position offset + i in the
coordinates of a group, in which key j stands at j; distance = offset + i - j.

  score = (q . k + XL or Shaw term) * scale          XL: u . k + (q + v) . r[min(distance, limit)]
  score = (score + ALiBi or T5 term) * scales[h] + bias[key]
  p     = softmax over all visible keys of all groups and the sink (a logit without value)
  out   = sum p (value + Shaw's value term)

A query that sees nothing gives out = 0, lse = -inf. The sibling `gathered` has K keys of each
query's own. See README.md for names and shapes.
"""
import math

import torch

from fixture import Random, save

B, T, S, H, G, D = 2, 9, 14, 4, 2, 8
MASKS = ("none", "causal", "strict", "band", "band_strict", "segmented")


def t5_bucket(distance, buckets, far):
    """T5's one-sided buckets: half exact, half logarithmic up to `far`."""
    exact = buckets // 2
    n = distance.clamp(min=0)
    large = exact + (torch.log(n.clamp(min=1).double() / exact) / math.log(far / exact)
                     * (buckets - exact)).floor().long()
    return torch.where(n < exact, n, large.clamp(max=buckets - 1))


def visible(group, g, queries, keys):
    """[B,T,S]: which keys each query sees."""
    distance = group["offset"] + torch.arange(queries)[:, None] - torch.arange(keys)[None]
    mask, window = group["mask"], group.get("window", 0)
    seen = {"none": distance == distance, "causal": distance >= 0, "strict": distance >= 1,
            "band": (distance >= 0) & (distance < window),
            "band_strict": (distance >= 1) & (distance <= window),
            "segmented": distance >= 0}[mask].expand(B, queries, keys).clone()
    if mask == "segmented":
        seen &= g["query_segment"][:, :, None] == g["key_segment"][:, None, :]
    at = torch.arange(keys)[None, None]
    if "first" in g:
        seen &= (at >= g["first"][:, None, None]) & (at < g["length"][:, None, None])
    if "keep" in g:
        seen &= g["keep"][:, None, :] != 0
    return seen, distance


def attend(case, x):
    """x: the case's tensors by name. Returns out, lse, group_mass, key_mass of each group."""
    q, heads = x["queries"], x["queries"].shape[2]
    scores, values, distances = [], [], []
    for n, group in enumerate(case["groups"]):
        g = {name.removesuffix(f".{n}"): t for name, t in x.items() if name.endswith(f".{n}")}
        share = heads // g["keys"].shape[2]
        k, v = (g[name].repeat_interleave(share, 2) for name in ("keys", "values"))
        seen, distance = visible(group, g, q.shape[1], k.shape[1])
        score = torch.einsum("bihd,bjhd->bhij", q, k)
        limit = group.get("limit", 0)
        if group["position"] == "xl":
            r = g["relative"][distance.clamp(0, limit)]
            score = torch.einsum("bihd,bjhd->bhij", q + g["u"], k) \
                + torch.einsum("bihd,ijhd->bhij", q + g["v"], r)
        if group["position"] == "shaw":
            row = limit + distance.clamp(-limit, limit)
            score = score + torch.einsum("bihd,ijd->bhij", q, g["shaw_keys"][row])
        score = score * case["scale"]
        if group["position"] == "alibi":
            score = score - g["slopes"][:, None, None] * distance
        if group["position"] == "t5":
            bucket = t5_bucket(distance, g["table"].shape[0], group["far"])
            score = score + g["table"][bucket].permute(2, 0, 1)
        if "scales" in x:
            score = score * x["scales"][:, None, None]
        if "bias" in g:
            score = score + g["bias"].repeat_interleave(share, 1)[:, :, None, :]
        scores.append(score.masked_fill(~seen[:, None], -math.inf))
        values.append((v, g["shaw_values"][limit + distance.clamp(-limit, limit)]
                       if "shaw_values" in g else None))
    every = torch.cat(scores, -1)
    if "sink" in x:
        every = torch.cat([every, x["sink"][:, None, None].expand(*every.shape[:3], 1)], -1)
    none = torch.isinf(every).all(-1, keepdim=True)
    safe = every.masked_fill(none, 0.0)
    lse = safe.logsumexp(-1)
    p = torch.exp(safe - lse[..., None]).masked_fill(none, 0.0)
    out, mass, key_mass, start = 0, [], [], 0
    valid = torch.ones(B, q.shape[1], dtype=torch.bool)
    if "valid" in x:
        valid = torch.arange(q.shape[1])[None] < x["valid"][:, None]
    p = p * valid[:, None, :, None]
    for score, (v, v_term) in zip(scores, values):
        part = p[..., start:start + score.shape[-1]]
        start += score.shape[-1]
        out = out + torch.einsum("bhij,bjhd->bihd", part, v)
        if v_term is not None:
            out = out + torch.einsum("bhij,ijd->bihd", part, v_term)
        mass.append(part.sum(-1))
        key_mass.append(part.sum(2))
    unseen = none[..., 0] | ~valid[:, None]
    return out, lse.masked_fill(unseen, -math.inf), torch.stack(mass, -1), key_mass


def group(mask="causal", offset=S - T, position="none", **more):
    return dict(mask=mask, offset=offset, position=position, **more)


def build():
    """name -> (what the whole call has, its groups, how to draw its tensors)"""
    cases = {}

    def add(name, *groups, size=(T, S), kv=G, scale=D ** -0.5, extra=(), sizes=None, stretch=1.0):
        cases[name] = dict(scale=scale, groups=list(groups), size=size, kv=kv, extra=extra,
                           sizes=sizes or [size[1]] * len(groups), stretch=stretch)

    add("none", group("none"))
    add("causal", group(offset=0), size=(T, T))
    add("causal_offset", group())
    add("one_head_of_keys", group(), kv=1)
    add("every_head_its_keys", group(), kv=H)
    add("strict", group("strict", 0), size=(T, T))  # the first query sees nothing
    add("band", group("band", window=4))
    add("band_strict", group("band_strict", window=4))
    add("segmented", group("segmented", 0), size=(T, T), extra=("segments",))
    add("lengths", group(), extra=("lengths", "keep", "valid"))
    add("empty_row", group("none"), extra=("empty",))
    add("alibi", group(position="alibi"))
    add("t5", group(position="t5", far=128), size=(5, 140))
    cases["t5"]["groups"][0]["offset"] = 135
    add("xl", group(position="xl", limit=S - 1))
    add("xl_clamped", group(position="xl", limit=6))
    add("xl_band", group("band", position="xl", limit=13, window=5))
    add("shaw", group(position="shaw", limit=3))
    add("shaw_both_ways", group("none", position="shaw", limit=4))
    add("bias", group("none"), extra=("bias",))
    add("scales", group(position="t5", far=16), scale=1.0, extra=("scales",))
    add("sink", group("strict", 0), size=(T, T), extra=("sink",))
    add("large", group(), stretch=12.0)
    add("two_groups", group("none", 0), group(position="xl", limit=S - 1), sizes=[6, S],
        extra=("bias",))
    add("three_groups", group("none", 20, "xl", limit=19), group(position="alibi"),
        group("band", 0, "shaw", window=5, limit=3), sizes=[7, S, T],
        extra=("scales", "sink", "bias", "lengths"))
    return cases


def draw(case, random):
    queries, keys = case["size"]
    x = {"queries": random.normal(B, queries, H, D, scale=case["stretch"])}
    extra = case["extra"]
    if "scales" in extra:
        x["scales"] = random.normal(H, scale=0.3, mean=1.2)
    if "sink" in extra:
        x["sink"] = random.normal(H)
    if "valid" in extra:
        x["valid"] = torch.tensor([queries, queries - 3])
    for n, group in enumerate(case["groups"]):
        keys = case["sizes"][n]
        x[f"keys.{n}"] = random.normal(B, keys, case["kv"], D, scale=case["stretch"])
        x[f"values.{n}"] = random.normal(B, keys, case["kv"], D)
        if group["position"] == "alibi":
            x[f"slopes.{n}"] = torch.tensor([2.0 ** (-8 * (h + 1) / H) for h in range(H)],
                                            dtype=torch.float64)
        if group["position"] == "t5":
            x[f"table.{n}"] = random.normal(32 if group["far"] == 128 else 8, H)
        if group["position"] == "xl":
            x[f"relative.{n}"] = random.normal(group["limit"] + 1, H, D)
            x[f"u.{n}"], x[f"v.{n}"] = random.normal(H, D), random.normal(H, D)
        if group["position"] == "shaw":
            x[f"shaw_keys.{n}"] = random.normal(2 * group["limit"] + 1, D)
            x[f"shaw_values.{n}"] = random.normal(2 * group["limit"] + 1, D)
        if "bias" in extra:
            x[f"bias.{n}"] = random.normal(B, case["kv"], keys)
        if "lengths" in extra:
            x[f"first.{n}"] = torch.tensor([0, 2])
            x[f"length.{n}"] = torch.tensor([keys - 1, keys])
        if "empty" in extra:
            x[f"first.{n}"] = torch.tensor([0, 0])
            x[f"length.{n}"] = torch.tensor([keys, 0])
        if "keep" in extra:
            keep = torch.ones(B, keys, dtype=torch.int64)
            keep[0, 3] = keep[1, 4:7] = 0
            x[f"keep.{n}"] = keep
        if "segments" in extra:
            x[f"query_segment.{n}"] = x[f"key_segment.{n}"] = \
                torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0, 1, 1, 1]])
    return x


def gathered(x, scale):
    """Keys and values [B T,H,K,D] of each query's own; an index < 0 hides one."""
    q = x["queries"]
    k, v = (x[name].view(B, q.shape[1], *x[name].shape[1:]) for name in ("keys", "values"))
    score = torch.einsum("bthd,bthkd->bhtk", q, k) * scale * x["scales"][:, None, None]
    score = score.masked_fill((x["index"] < 0).transpose(1, 2), -math.inf)
    none = torch.isinf(score).all(-1, keepdim=True)
    safe = score.masked_fill(none, 0.0)
    p = safe.softmax(-1).masked_fill(none, 0.0)
    return torch.einsum("bhtk,bthkd->bthd", p, v), safe.logsumexp(-1) \
        .masked_fill(none[..., 0], -math.inf)


def make_gathered(random, count=5):
    x = {"queries": random.normal(B, T, H, D), "keys": random.normal(B * T, H, count, D),
         "values": random.normal(B * T, H, count, D),
         "scales": random.normal(H, scale=0.3, mean=1.2)}
    x["index"] = random.ids(100, B, T, H, count)
    x["index"][0, 2, :, 1:3] = x["index"][1, 4, 2] = -1  # the last sees nothing
    floats = {n: t.requires_grad_() for n, t in x.items() if t.is_floating_point()}
    out, lse = gathered(x, D ** -0.5)
    d_out = random.normal(*out.shape)
    grads = torch.autograd.grad((out * d_out).sum(), list(floats.values()))
    return dict(x, out=out, lse=lse, d_out=d_out,
                **{f"gradient.{n}": g for n, g in zip(floats, grads)})


def main():
    random, tensors, described = Random(401), {}, {}
    for name, case in build().items():
        x = draw(case, random)
        floats = {n: t.requires_grad_() for n, t in x.items()
                  if t.is_floating_point() and not n.startswith("slopes")}
        out, lse, group_mass, key_mass = attend(case, x)
        assert torch.isfinite(out).all()
        d_out = random.normal(*out.shape)
        grads = torch.autograd.grad((out * d_out).sum(), list(floats.values()))
        result = dict(x, out=out, lse=lse, group_mass=group_mass, d_out=d_out)
        result.update({f"key_mass.{n}": m for n, m in enumerate(key_mass)})
        result.update({f"gradient.{n}": g for n, g in zip(floats, grads)})
        assert all(torch.isfinite(g).all() for g in grads), name
        tensors.update({f"{name}.{n}": t for n, t in result.items()})
        described[name] = dict(scale=case["scale"], groups=case["groups"])
    tensors["t5_buckets.32.128"] = t5_bucket(torch.arange(200), 32, 128)
    tensors["t5_buckets.8.16"] = t5_bucket(torch.arange(200), 8, 16)
    tensors.update({f"gathered.{n}": t for n, t in make_gathered(random).items()})
    save("attention", tensors, cases=described)


if __name__ == "__main__":
    main()
