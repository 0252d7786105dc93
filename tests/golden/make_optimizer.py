"""Golden fixtures of optimisers and schedules: optimizer.safetensors.

Parameters: `matrix` [128,130], `small` [24,40], `vector` [33], `zero` [16] (starts at zero).
The gradient of step t = 1..10 is gradient.NAME[(t - 1) % 2] * gradient_scale[t - 1]; the scales
are powers of two, so that the product is exact.

Adafactor (Shazeer and Stern 2018) without momentum, with parameter scale, no clipping of the
gradient. Step t, rate rho, b = 1 - t^-0.8, e1 = 1e-30, e2 = 1e-3:
  factored:   R = b R + (1-b) mean_columns(G^2 + e1), C = b C + (1-b) mean_rows(G^2 + e1),
              V = R C^T / mean(R)
  otherwise:  V = b V + (1-b) (G^2 + e1)
  U = G / sqrt(V);  U /= max(1, RMS(U) / 1.0);  X -= rho max(e2, RMS(X)) U
`adafactor` factors matrices whose two sizes are at least 128, `adafactor_all` all matrices.

Schedules at step t = 1, 2, ... with warm-up w, N steps, rate p, floor f, start s:
  warm-up            s + (p - s) min(1, t / w)
  cosine             after it f + (p - f) (1 + cos(pi min(1, (t - w) / (N - w)))) / 2
  rsqrt              p / sqrt(max(t, w)) times min(1, t / w)
  rsqrt_normalized   p sqrt(w / max(t, w)), flat until w
"""
import math

import torch

from fixture import Adam, Random, save

STEPS = 10
ADAMS = {
    "adam": dict(beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0, rate=1e-3),
    "adamw": dict(beta1=0.9, beta2=0.95, epsilon=1e-8, decay=0.1, rate=1e-3),
}
ADAFACTORS = {"adafactor": dict(factor_from=128, rate=0.01),
              "adafactor_all": dict(factor_from=1, rate=0.01)}
SCHEDULES = {
    "cosine": dict(kind="cosine", rate=3e-4, floor=1e-6, start=1e-6, warmup=40, steps=1000),
    "cosine_plain": dict(kind="cosine", rate=2.5e-4, floor=0.0, start=0.0, warmup=0, steps=1000),
    "rsqrt": dict(kind="rsqrt", rate=1.0, start=0.0, warmup=100),
    "rsqrt_normalized": dict(kind="rsqrt_normalized", rate=0.01, warmup=100),
    "constant": dict(kind="constant", rate=1e-3, start=0.0, warmup=40),
}


def rms(x):
    return torch.sqrt((x * x).mean())


def adafactor(x, grads, rate, factor_from, decay=0.8, e1=1e-30, e2=1e-3, threshold=1.0):
    """Yields the parameter after each step, and at the end of the run its second moments."""
    x = x.clone()
    factored = x.dim() == 2 and min(x.shape) >= factor_from
    rows = torch.zeros(x.shape[0], dtype=x.dtype)
    columns = torch.zeros(x.shape[-1], dtype=x.dtype)
    second = torch.zeros_like(x)
    after = []
    for t, g in enumerate(grads, 1):
        b = 1 - t ** -decay
        square = g * g + e1
        if factored:
            rows = b * rows + (1 - b) * square.mean(1)
            columns = b * columns + (1 - b) * square.mean(0)
            v = rows[:, None] * columns[None] / rows.mean()
        else:
            v = second = b * second + (1 - b) * square
        u = g / torch.sqrt(v)
        u = u / torch.clamp(rms(u) / threshold, min=1.0)
        x = x - rate * torch.clamp(rms(x), min=e2) * u
        after.append(x)
    moments = dict(rows=rows, columns=columns) if factored else dict(second=second)
    return after, moments


def schedule(c, t):
    w, p = c["warmup"], c["rate"]
    ramp = min(1.0, t / w) if w else 1.0
    if c["kind"] == "rsqrt":
        return p / math.sqrt(max(t, w)) * ramp
    if c["kind"] == "rsqrt_normalized":
        return p * math.sqrt(w / max(t, w))
    if c["kind"] == "cosine" and t > w:
        part = min(1.0, (t - w) / (c["steps"] - w))
        return c["floor"] + (p - c["floor"]) * (1 + math.cos(math.pi * part)) / 2
    return c["start"] + (p - c["start"]) * ramp


def main():
    random = Random(301)
    shapes = dict(matrix=(128, 130), small=(24, 40), vector=(33,), zero=(16,))
    start = {n: random.normal(*s, scale=0.05) for n, s in shapes.items()}
    start["zero"] = torch.zeros(16, dtype=torch.float64)
    pairs = {n: random.normal(2, *s, scale=0.1) * torch.exp(random.normal(*s)).float().double()
             for n, s in shapes.items()}
    pairs = {n: g.float().double() for n, g in pairs.items()}
    scale = torch.tensor([1, 0.5, 4, 0.25, 1, 2, 0.125, 1, 8, 0.5], dtype=torch.float64)
    tensors = {"gradient_scale": scale}
    tensors.update({f"start.{n}": x for n, x in start.items()})
    tensors.update({f"gradient.{n}": g for n, g in pairs.items()})

    def grads(name):
        return [pairs[name][t % 2] * scale[t] for t in range(STEPS)]

    for kind, c in ADAFACTORS.items():
        for name, x in start.items():
            if kind == "adafactor_all" and name != "small":
                continue  # only it differs
            after, moments = adafactor(x, grads(name), c["rate"], c["factor_from"])
            tensors.update({f"{kind}.1.{name}": after[0], f"{kind}.10.{name}": after[-1]})
            tensors.update({f"{kind}.moments.{m}.{name}": v for m, v in moments.items()})
    for kind, c in ADAMS.items():
        adam = Adam(c["beta1"], c["beta2"], c["epsilon"], c["decay"])
        weights = {n: start[n].clone() for n in ("small", "vector", "zero")}
        for t in range(STEPS):
            adam.update(weights, {n: grads(n)[t] for n in weights}, c["rate"])
            if t in (0, STEPS - 1):
                tensors.update({f"{kind}.{t + 1}.{n}": w.clone() for n, w in weights.items()})
    at = [1, 2, 10, 39, 40, 41, 99, 100, 101, 250, 500, 999, 1000, 1500]
    tensors["schedule.steps"] = torch.tensor(at)
    for name, c in SCHEDULES.items():
        tensors[f"schedule.{name}"] = torch.tensor([schedule(c, t) for t in at],
                                                   dtype=torch.float64)
    save("optimizer", tensors, adam=ADAMS, adafactor=ADAFACTORS, schedules=SCHEDULES)


if __name__ == "__main__":
    main()
