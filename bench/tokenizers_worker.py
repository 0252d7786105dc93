"""The peer of `bench tokenize`: the tokenizers package on one thread. A worker: one line in, one
JSON line out.

  {"tokenizer": "tokenizer.json", "files": ["a.txt", ...]}
      the first line -> {"ready": true, "tokenizers": "0.23.3", "variant": "...", "tried": {variant:
      seconds}, "ids": how many all files are}
  encode
      -> {"seconds": ...}: every file once

A peer that is as fast as it can be gets the fastest of whole files and of pieces of several sizes
(which cut words: the ids are then not counted).
"""
import json
import os
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers  # noqa: E402


def main():
    args = json.loads(sys.stdin.readline())
    tokenizer = tokenizers.Tokenizer.from_file(args["tokenizer"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = []
    for path in args["files"]:
        with open(path, encoding="utf-8", newline="") as file:
            texts.append(file.read())
    cut = {"whole files": texts}
    for size in (65536, 4096):
        cut[f"pieces of {size} characters"] = [
            text[i:i + size] for text in texts for i in range(0, len(text), size)]

    def seconds(variant):
        start = time.perf_counter()
        tokenizer.encode_batch_fast(cut[variant], add_special_tokens=False)
        return time.perf_counter() - start

    ids = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    tried = {variant: seconds(variant) for variant in cut}
    best = min(tried, key=tried.get)
    print(json.dumps({"ready": True, "tokenizers": tokenizers.__version__, "variant": best,
                      "tried": {name: round(s, 3) for name, s in tried.items()}, "ids": ids}),
          flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": seconds(best)}), flush=True)


main()
