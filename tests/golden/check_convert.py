"""Folders that `mneme convert` has written, opened by transformers: no tensor is missing or too
many, the tokenizer gives mneme's ids and texts, each token's nats are mneme's within 1e-4 of the
largest logit, and greedy texts are the same. Needs torch, transformers:

    python check_convert.py MNEME TEXT FOLDER...

MNEME: the program. TEXT: a file of which as much is read as the model is for. Ends with status 1
where something differs. Tokenizers are opened as PreTrainedTokenizerFast, which takes the file as
it is; AutoTokenizer puts a family's own way to cut text in its place for some (Qwen2, Phi-3).
"""
import csv
import json
import os
import subprocess
import sys
import tempfile

import torch
import transformers

BOUND = 1e-4
STEPS = 40


def cut(tokenizer, text, most):
    """As much of the text as is at most so many tokens."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(tokenizer(text[:middle], add_special_tokens=False)["input_ids"]) <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low]


def scored(mneme, folder, text):
    """mneme's ids of a text and the nats of each."""
    with tempfile.TemporaryDirectory() as work:
        path, table = os.path.join(work, "text.txt"), os.path.join(work, "tokens.csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        subprocess.run([mneme, "eval", folder, "--data", "text=" + path, "--tokens", table,
                        "--out", os.path.join(work, "table")], check=True)
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    return [int(r["token"]) for r in rows], torch.tensor([float(r["nats"]) for r in rows])


def said(mneme, folder, prompt):
    out = subprocess.run([mneme, "generate", folder, "--prompt", prompt, "--tokens", str(STEPS),
                          "--temperature", "0", "--json"], check=True, capture_output=True)
    return json.loads(out.stdout)["text"]


def check(mneme, text, folder):
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    context = model.config.max_position_embeddings
    faults = [f"{name}: {sorted(found[name])}" for name in
              ("missing_keys", "unexpected_keys", "mismatched_keys") if found[name]]
    text = cut(tokenizer, text, context - 1)
    ids, nats = scored(mneme, folder, text)
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    if own != ids:
        at = next((i for i, (a, b) in enumerate(zip(own, ids)) if a != b), min(len(own), len(ids)))
        faults.append(f"id {at}: {own[at:at + 4]}, and mneme's {ids[at:at + 4]}")
    if tokenizer.decode(own) != text:
        faults.append("the ids of the text do not decode to it")
    with torch.no_grad():
        logits = model.eval()(torch.tensor([[model.config.bos_token_id] + ids[:-1]])).logits[0]
    theirs = -torch.log_softmax(logits.double(), -1)[torch.arange(len(ids)), ids]
    worst, most = (theirs - nats).abs().max().item(), logits.abs().max().item()
    if not worst <= BOUND * most:
        faults.append(f"nats differ by {worst:.2g}, the largest logit is {most:.3g}")
    start = torch.tensor([[model.config.bos_token_id]
                          + tokenizer(text[:9], add_special_tokens=False)["input_ids"]])
    end = start.shape[1]
    with torch.no_grad():
        for _ in range(min(STEPS, context - end)):
            best = model(start).logits[0, -1].argmax()
            start = torch.cat([start, best[None, None]], 1)
    greedy = tokenizer.decode(start[0], skip_special_tokens=True)
    greedy = greedy[len(tokenizer.decode(start[0, :end], skip_special_tokens=True)):]
    ours = said(mneme, folder, text[:9])
    if not ours.startswith(greedy) and not greedy.startswith(ours):
        faults.append(f"greedy texts: {greedy!r}, and mneme's {ours!r}")
    print(f"{folder}: {type(model).__name__}, {len(ids)} tokens, nats within {worst:.2g}, "
          f"largest logit {most:.3g}", *(["FAILED"] + faults if faults else ["ok"]), sep="\n    ")
    return not faults


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    for folder in sys.argv[3:]:
        if not os.path.isfile(os.path.join(folder, "config.json")):
            sys.exit(f"{folder}: no model, it holds no config.json")
    with open(sys.argv[2], encoding="utf-8-sig", newline="") as file:
        whole = file.read(20000)
    results = [check(sys.argv[1], whole, folder) for folder in sys.argv[3:]]
    sys.exit(not all(results))
