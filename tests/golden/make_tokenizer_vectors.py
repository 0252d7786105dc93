"""What the reference tokenizers make of odd texts with the published vocabularies, which are not in
this repository: tests/data/vectors/<name>.json, [[text, ids], ...], read by
tests/data/test_tokenizer_files.c. FOLDER holds phi2, phi3, falcon, t5 (tokenizer.json), gpt2
(encoder.json, vocab.bpe), llama2 and llama3 (tokenizer.model), qwen2 (qwen.tiktoken,
tokenizer_config.json).

    python tests/golden/make_tokenizer_vectors.py FOLDER    # tokenizers, tiktoken, sentencepiece
"""
import base64
import json
import os
import random
import sys
import unicodedata

import sentencepiece
import tiktoken
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PROSE = [
    "", " ", "\n", "a", " a", "  a  b ",
    "Call me Ishmael. Some years ago--never mind how long precisely--having little or no money in my "
    "purse, and nothing particular to interest me on shore, I thought I would sail about a little.",
    "\"It's what THEY'RE saying, isn't it?\" — she'd've said; we'LL see…  \n\n\n   “Ça va?”\r\n\r\n",
    "def f(x):\n\treturn [i ** 2 for i in range(x) if i % 3 == 0]  # 1234567 0x1F\n",
    "Füße über naïve façades; e\u0301 versus é; ﬁ ① ㎏ Ａ ½ ²",
    "你好，世界。日本語のテキスト。한국어 문장입니다.", "Привет, мир! שלום עולם ابجد हवज़ नमस्ते ไทย",
    "😀🦙👩\u200d👩\u200d👧\u200d👦👍🏽🇫🇷 \U000e0067", "\ufeffmark \u200b\u00ad\u2060 \u00a0\u2003\u3000 \u0085 \x01\x7f",
    "        indented\t\ttwice    ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=" * 70, "1" * 40, "\n" * 9 + " \n \t\n", "▁ ▁▁ <0x41> <unk>",
    "Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz antidisestablishmentarianism",
]
POOLS = [
    "abcdefghij XYZ the of was", "  \t\n\r\u00a0\u2003\u0085\v\f", "0123456789",
    "!?.,;:'\"()-_$+<>|`~^@#", "éüñçÅß", "\u0301\u0308\u0327", "你好世界中文", "日本カナ한글",
    "😀🦙👩\u200d👧👍🏽", "приветАБВ", "½²³¹٣४Ⅷ①", "▁▁ ", "ſİı\u212aΩ", "ﬁＡ①㎏", "\u200b\ufeff\u00ad",
    "नमस्ते", "\x01\x7f", "\u180e", "ابجد", "        ",
]


def texts(specials):
    rnd = random.Random(2)

    def noise():
        parts = []
        for _ in range(rnd.randint(1, 9)):
            pool = rnd.choice(POOLS)
            parts.append("".join(rnd.choice(pool) for _ in range(rnd.randint(1, 6))))
        return "".join(parts)

    out = list(PROSE)
    for i in range(60):
        text = noise()
        if specials and i % 3 == 0:
            text += rnd.choice(specials) + rnd.choice(["", " ", "\n", "a"]) + noise()
        out.append(text)
    return out


def store(name, encode, specials=()):
    folder = os.path.join(HERE, "..", "data", "vectors")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
        json.dump([[text, encode(text)] for text in texts(specials)], file, ensure_ascii=True,
                  separators=(",", ":"))
        file.write("\n")


def by_tokenizers(name, tokenizer):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    store(name, lambda text: tokenizer.encode(text, add_special_tokens=False).ids, specials)


def by_tiktoken(name, path, regex, specials, normal=lambda text: text):
    with open(path, "rb") as file:
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in file}
    reference = tiktoken.Encoding(name, pat_str=regex, mergeable_ranks=ranks,
                                  special_tokens=specials)
    store(name, lambda text: reference.encode(normal(text), allowed_special="all"), list(specials))


def main():
    folder = sys.argv[1]
    for name in ("phi2", "phi3", "falcon", "t5"):
        by_tokenizers(name, Tokenizer.from_file(os.path.join(folder, name, "tokenizer.json")))
    gpt2 = Tokenizer(models.BPE.from_file(os.path.join(folder, "gpt2", "encoder.json"),
                                          os.path.join(folder, "gpt2", "vocab.bpe")))
    gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    gpt2.decoder = decoders.ByteLevel()
    gpt2.add_special_tokens(["<|endoftext|>"])
    by_tokenizers("gpt2", gpt2)
    by_tiktoken("llama3", os.path.join(folder, "llama3", "tokenizer.model"), LLAMA3,
                {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|eot_id|>": 128009,
                 "<|start_header_id|>": 128006, "<|reserved_special_token_250|>": 128255})
    with open(os.path.join(folder, "qwen2", "tokenizer_config.json"), encoding="utf-8") as file:
        added = json.load(file)["added_tokens_decoder"]
    by_tiktoken("qwen2", os.path.join(folder, "qwen2", "qwen.tiktoken"),
                LLAMA3.replace("{1,3}", ""), {t["content"]: int(i) for i, t in added.items()},
                lambda text: unicodedata.normalize("NFC", text))
    llama2 = sentencepiece.SentencePieceProcessor(
        model_file=os.path.join(folder, "llama2", "tokenizer.model"))
    store("llama2", llama2.encode)


main()
