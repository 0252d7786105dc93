"""The PyTorch peer of `bench train`: the same three models, written plainly and run as fast as
PyTorch lets them on this machine. A worker: one JSON line in, one JSON line out.

  {"model": "a", "precision": "f32", "threads": 2}
      the first line; may have "variants": [...], those to try, and "limit": seconds, after which
      no further one is tried (600)
      -> {"ready": true, "variant": "...", "tried": {variant: tokens/s or why not}, ...}
  step N
      -> {"steps": N, "seconds": ..., "cpu_seconds": ..., "tokens_per_s": ...,
          "best_tokens_per_s": (of the fastest step), "loss": ...}
  quit

Models (all byte or GPT-2 vocabularies, no dropout, AdamW with clipping at 1.0):
  a  6 layers, width 384, 6 heads, vocabulary 256, batch 8 x 1024
  b  GPT-2's shape: 12 layers, width 768, 12 heads, vocabulary 50304, tied, batch 4 x 1024
  c  Transformer-XL: 12 layers, width 512, 8 heads, feed-forward 2048, vocabulary 256,
     segment 512, memory 512 (full), batch 8

Precisions: f32; bf16 (float32 master weights, products in bfloat16). A variant names how it is
run: `eager` or `compile` (torch.compile); `autocast` or `master` (bfloat16 weights beside float32
masters); `chunked` the loss by torch's linear_cross_entropy; for c, how the position term meets the
softmax: `sdpa` as a float mask of scaled_dot_product_attention, `plain` as written in the paper,
`merged` with one product a head for all rows and the sum inside the content product. (Flex
attention has no backward pass on CPUs.) Each variant is timed for a few steps after warming up,
and the one with the fastest step is kept; one alone is not timed.

It is no training program: data are random, nothing is saved.
"""
import json
import math
import os
import sys
import time

# PyTorch's CPU allocator is malloc. Kept from returning memory to the system after each step,
# it saves page faults; a peer that is as fast as it can be gets that.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
          "MALLOC_TOP_PAD_": str(64 << 20), "MALLOC_ARENA_MAX": "2"}
if __name__ == "__main__" and any(os.environ.get(k) != v for k, v in MALLOC.items()):
    os.environ.update(MALLOC)
    os.execv(sys.executable, [sys.executable] + sys.argv)

import torch
import torch.nn as nn
import torch.nn.functional as F

MODELS = {
    "a": dict(kind="gpt", layers=6, width=384, heads=6, vocabulary=256, rows=8, tokens=1024),
    "b": dict(kind="gpt", layers=12, width=768, heads=12, vocabulary=50304, rows=4, tokens=1024),
    "c": dict(kind="xl", layers=12, width=512, heads=8, vocabulary=256, rows=8, tokens=512,
              memory=512),
}
VARIANTS = {  # the likeliest winners first
    ("a", "f32"): ["eager", "compile"],
    ("a", "bf16"): ["autocast-compile", "master-compile", "master-eager", "autocast-eager"],
    ("b", "f32"): ["eager", "compile", "eager-chunked"],
    ("b", "bf16"): ["autocast-compile", "master-compile", "master-eager", "master-eager-chunked",
                    "autocast-eager"],
    ("c", "f32"): ["merged-eager", "merged-compile", "sdpa-compile", "plain-eager"],
    ("c", "bf16"): ["merged-master-compile", "merged-autocast-compile", "merged-master-eager",
                    "sdpa-master-compile", "plain-master-compile"],
}
WARM_STEPS, TRIAL_STEPS = 1, 3


class FeedForward(nn.Module):
    def __init__(self, width, activation):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activation = activation

    def forward(self, x):
        return self.down(self.activation(self.up(x)))


def gelu(x):
    return F.gelu(x, approximate="tanh")


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = FeedForward(width, gelu)

    def forward(self, x):
        rows, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(rows, tokens, 3, self.heads, -1).unbind(2)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2),
                                           v.transpose(1, 2), is_causal=True)
        x = x + self.output(y.transpose(1, 2).reshape(rows, tokens, width))
        return x + self.feed_forward(self.norm2(x))


def head_loss(x, weight, targets, chunked):
    if chunked:
        return F.linear_cross_entropy(x.flatten(0, 1), weight, targets.flatten(),
                                      options=nn.LinearCrossEntropyOptions())
    return F.cross_entropy(F.linear(x, weight).flatten(0, 1).float(), targets.flatten())


class Gpt(nn.Module):
    """Pre-LayerNorm, GELU, learned positions, biases, tied head."""

    def __init__(self, c, chunked):
        super().__init__()
        self.chunked = chunked
        self.embedding = nn.Embedding(c["vocabulary"], c["width"])
        self.position = nn.Embedding(c["tokens"], c["width"])
        self.blocks = nn.ModuleList(GptBlock(c["width"], c["heads"]) for _ in range(c["layers"]))
        self.norm = nn.LayerNorm(c["width"])

    def forward(self, ids, targets, memory):
        x = self.embedding(ids) + self.position.weight
        for block in self.blocks:
            x = block(x)
        return head_loss(self.norm(x), self.embedding.weight, targets, self.chunked), memory


class XlBlock(nn.Module):
    """Transformer-XL, norm after the sum: [(q+u).k + (q+v).Wr R_d] / sqrt(D)."""

    def __init__(self, width, heads, form):
        super().__init__()
        self.heads, self.form = heads, form
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.relative = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, F.relu)

    def shift(self, score):
        """[B,H,T,S] by distance S-1..0 -> by key; what lands on future keys is masked later."""
        rows, heads, tokens, keys = score.shape
        return F.pad(score, (1, 0)).view(rows, heads, keys + 1, tokens)[:, :, 1:] \
            .reshape(rows, heads, tokens, keys)

    def merged(self, content, position, k, value, r, mask):
        """All [B,.,H,D] -> [B,T,H,D], by way of scores [H,B,T,S]."""
        rows, tokens, heads, depth = content.shape
        score = torch.bmm(position.permute(2, 0, 1, 3).reshape(heads, rows * tokens, depth),
                          r.permute(1, 2, 0))
        score = self.shift(score.view(heads, rows, tokens, -1)) + mask
        by_head = [t.permute(2, 0, 1, 3).reshape(heads * rows, -1, depth)
                   for t in (content, k, value)]
        score = torch.baddbmm(score.flatten(0, 1).to(by_head[0].dtype), by_head[0],
                              by_head[1].transpose(1, 2))
        y = torch.bmm(score.softmax(-1).to(by_head[2].dtype), by_head[2])
        return y.view(heads, rows, tokens, depth).permute(1, 2, 0, 3)

    def forward(self, x, memory, sinusoid, u, v, mask):
        rows, tokens, width = x.shape
        depth = width // self.heads
        q = self.query(x).view(rows, tokens, self.heads, depth)
        k, value = self.key_value(torch.cat([memory, x], 1)) \
            .view(rows, -1, 2, self.heads, depth).unbind(2)
        r = self.relative(sinusoid).view(-1, self.heads, depth)
        scale = 1 / math.sqrt(depth)
        if self.form == "merged":
            y = self.merged((q + u) * scale, (q + v) * scale, k, value, r, mask)
        else:
            position = self.shift(((q + v) * scale).transpose(1, 2) @ r.permute(1, 2, 0)) + mask
            content, k, value = (t.transpose(1, 2) for t in (q + u, k, value))
            if self.form == "sdpa":
                y = F.scaled_dot_product_attention(content, k, value, attn_mask=position)
            else:
                score = (content * scale) @ k.transpose(2, 3) + position
                y = score.softmax(-1).to(value.dtype) @ value
            y = y.transpose(1, 2)
        x = self.norm1(x + self.output(y.reshape(rows, tokens, width)))
        return self.norm2(x + self.feed_forward(x))


class Xl(nn.Module):
    def __init__(self, c, form):
        super().__init__()
        width, keys = c["width"], c["tokens"] + c["memory"]
        self.scale, self.slots = math.sqrt(width), c["memory"]
        self.embedding = nn.Embedding(c["vocabulary"], width)
        self.blocks = nn.ModuleList(XlBlock(width, c["heads"], form) for _ in range(c["layers"]))
        self.u = nn.Parameter(torch.zeros(c["heads"], width // c["heads"]))
        self.v = nn.Parameter(torch.zeros(c["heads"], width // c["heads"]))
        angle = torch.arange(keys - 1, -1, -1.0)[:, None] \
            * 10000 ** (-torch.arange(0, width, 2.0) / width)
        self.register_buffer("sinusoid", torch.cat([angle.sin(), angle.cos()], 1))
        future = torch.ones(c["tokens"], keys, dtype=torch.bool).triu(c["memory"] + 1)
        self.register_buffer("mask", torch.zeros(c["tokens"], keys).masked_fill(future, -1e9))

    def forward(self, ids, targets, memory):
        x = self.embedding(ids) * self.scale
        kept = []
        for block, past in zip(self.blocks, memory):
            kept.append(torch.cat([past, x.detach()], 1)[:, -self.slots:].to(past.dtype))
            x = block(x, past, self.sinusoid, self.u, self.v, self.mask)
        return head_loss(x, self.embedding.weight, targets, False), kept


class Trainer:
    def __init__(self, c, variant):
        torch.manual_seed(1)
        parts = variant.split("-")
        self.model = Gpt(c, "chunked" in parts) if c["kind"] == "gpt" else Xl(c, parts[0])
        for p in self.model.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        self.autocast = "autocast" in parts
        self.weights = self.masters = list(self.model.parameters())
        if "master" in parts:
            self.masters = [p.detach().clone() for p in self.weights]
            self.model.to(torch.bfloat16)
        self.adam = torch.optim.AdamW(self.masters, lr=3e-4, betas=(0.9, 0.95),
                                      weight_decay=0.1, fused=True)
        self.run = torch.compile(self.model) if "compile" in parts else self.model
        shape = (8, c["rows"], c["tokens"])
        self.ids = torch.randint(0, c["vocabulary"], shape)
        self.targets = torch.randint(0, c["vocabulary"], shape)
        self.per_step = c["rows"] * c["tokens"]
        self.memory, self.steps = [], 0
        if c["kind"] == "xl":
            dtype = self.weights[0].dtype
            self.memory = [torch.zeros(c["rows"], c["memory"], c["width"], dtype=dtype)
                           for _ in range(c["layers"])]

    def step(self):
        at = self.steps % len(self.ids)
        self.steps += 1
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss, self.memory = self.run(self.ids[at], self.targets[at], self.memory)
        loss.backward()
        if self.masters is not self.weights:
            for master, weight in zip(self.masters, self.weights):
                master.grad = weight.grad.float()
                weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        if self.masters is not self.weights:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)
        return loss.item()

    def timed(self, steps):
        each, cpu = [], time.process_time()
        for _ in range(steps):
            start = time.perf_counter()
            loss = self.step()
            each.append(time.perf_counter() - start)
        return dict(steps=steps, seconds=sum(each), cpu_seconds=time.process_time() - cpu,
                    tokens_per_s=steps * self.per_step / sum(each),
                    best_tokens_per_s=self.per_step / min(each), loss=loss)


def choose(c, variants, limit):
    """Times every variant; returns the fastest one's name and all the figures."""
    tried, end = {}, time.perf_counter() + limit
    for variant in variants:
        if time.perf_counter() > end:
            tried[variant] = "not tried: the time limit was reached"
            continue
        try:
            trainer = Trainer(c, variant)
            trainer.timed(WARM_STEPS)
            tried[variant] = trainer.timed(TRIAL_STEPS)["best_tokens_per_s"]
        except Exception as error:  # a variant that this PyTorch cannot run is a finding
            tried[variant] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        print(f"{variant}: {tried[variant]}", file=sys.stderr, flush=True)
        trainer = None
        torch._dynamo.reset()
    ran = {name: speed for name, speed in tried.items() if not isinstance(speed, str)}
    if not ran:
        raise SystemExit(json.dumps(dict(ready=False, tried=tried)))
    return max(ran, key=ran.get), tried


def main():
    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(request["threads"])
    c = MODELS[request["model"]]
    variants = request.get("variants") or VARIANTS[request["model"], request["precision"]]
    variant, tried = variants[0], {}
    if len(variants) > 1:
        variant, tried = choose(c, variants, request.get("limit", 600))
    trainer = Trainer(c, variant)
    trainer.timed(WARM_STEPS)
    parameters = sum(p.numel() for p in trainer.weights)
    print(json.dumps(dict(ready=True, variant=variant, tried=tried, torch=torch.__version__,
                          parameters=parameters, tokens_per_step=trainer.per_step)), flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[:1] == ["step"]:
            print(json.dumps(trainer.timed(int(words[1]))), flush=True)
        elif words[:1] == ["quit"]:
            break
        elif words:
            print(json.dumps(dict(error=f"unknown command: {line.strip()}")), flush=True)


if __name__ == "__main__":
    main()
