"""Tiny tokenizers of every layout that src/text reads, trained here by the `tokenizers` package, with
what the package makes of odd texts: tests/golden/tokenizers/<name>.json, read by
tests/golden/test_tokenizers.c. Each holds {"tokenizer": the file, "vectors": [[text, ids, decoded]],
"around": [ids before, ids after]}; decoded is null where invalid UTF-8 was mended on the way.

Vocabularies in other files lie in tests/golden/vocabularies, the vectors beside them in
<name>.json: of tiktoken for bytes.ranks, of SentencePiece for its scores in llama.gguf.

    python tests/golden/make_tokenizers.py  # tokenizers, sentencepiece, protobuf, tiktoken, gguf
"""
import base64
import io
import json
import os
import random
import sys
import tempfile
import unicodedata

import gguf
import sentencepiece
import tiktoken
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))

PROSE = [
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age",
    "of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season",
    "of Light, it was the season of Darkness, it was the spring of hope, it was the winter of",
    "despair, we had everything before us, we had nothing before us, we were all going direct to",
    "Heaven, we were all going direct the other way. They'll say it's what we've done; I'm sure",
    "they'd don't, in 1859 or 12345 and 2023.  Über naïve façades: 你好世界, こんにちは, привет мир 😀 🦙",
    "    for i in range(100):\n        print(i, '\t', i * i)\n\n\nreturn   the    spaces",
]
POOLS = [
    "abcdefghij XYZ the of was", "  \t\n\r\u00a0\u2003\u0085\v\f", "0123456789",
    "!?.,;:'\"()-_$+<>|`~^@#", "éüñçÅß", "\u0301\u0308\u0327", "你好世界中文", "日本カナ한글",
    "😀🦙👩\u200d👧👍🏽", "приветАБВ", "½²³¹٣४Ⅷ①", "▁▁ ", "ſİı\u212aΩ", "ﬁＡ①㎏", "\u200b\ufeff\u00ad",
    "नमस्ते", "\x01\x7f", "\u180e",
]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")


def texts(count, specials):
    rnd = random.Random(1)

    def noise():
        parts = []
        for _ in range(rnd.randint(1, 8)):
            pool = rnd.choice(POOLS)
            parts.append("".join(rnd.choice(pool) for _ in range(rnd.randint(1, 5))))
        return "".join(parts)

    out = ["", " ", "  ", "\n", "a", " a", "  a  b ", "It's we'LL THEY'RE don't I'm 'S", *PROSE]
    for i in range(count):
        text = noise()
        if specials and i % 3 == 0:
            text += rnd.choice(specials) + rnd.choice(["", " ", "\n", "a"]) + noise()
        out.append(text)
    return out


def write(name, tokenizer, folder, count=60):
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    vectors = []
    for text in texts(count, specials):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        vectors.append([text, ids, None if "\ufffd" in decoded else decoded])
    whole = tokenizer.encode("", add_special_tokens=True).ids
    if name.endswith("_after"):
        around = [[], whole]
    else:
        around = [whole, []]
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer": json.loads(tokenizer.to_str()), "vectors": vectors,
                   "around": around}, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


def train_bytes(pre_tokenizer, normalizer=None, vocab=330, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(PROSE, trainer)
    return tokenizer


def split(regex):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False,
                                                             use_regex=False)])


def gpt2(folder):
    tokenizer = train_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (8, 4, 2)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    write("gpt2", tokenizer, folder)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    write("gpt2_prefix_space", tokenizer, folder, 20)


def llama3(folder):
    tokenizer = train_bytes(split(LLAMA3), ignore_merges=True)
    # A token that no merges lead to: only ignore_merges finds it.
    data = json.loads(tokenizer.to_str())
    data["model"]["vocab"]["Heaven"] = len(data["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A",
                                      special_tokens=[("<|begin_of_text|>", begin)])])
    write("llama3", tokenizer, folder)


def qwen2(folder):
    tokenizer = train_bytes(split(QWEN2), normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>"])
    write("qwen2", tokenizer, folder)


def other_regex(folder):
    tokenizer = train_bytes(split(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+"
                                  r"|\s*[\r\n]|\s+(?!\S)|\s+"), vocab=300)
    write("other_regex", tokenizer, folder, 40)


def falcon(folder):
    tokenizer = train_bytes(pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]))
    tokenizer.add_special_tokens([">>TITLE<<", "<|endoftext|>"])
    write("falcon", tokenizer, folder)


def behaviors(folder):
    """Each behaviour of a split, and what may stand around a byte-level cut."""
    for behavior in ("merged_with_previous", "merged_with_next", "contiguous", "removed"):
        tokenizer = train_bytes(pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(r"[\s\d]"), behavior),
            pre_tokenizers.Punctuation(behavior if behavior != "removed" else "isolated"),
            pre_tokenizers.Digits(individual_digits=behavior != "contiguous"),
            pre_tokenizers.Split(" of", behavior),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), vocab=280)
        write("split_" + behavior, tokenizer, folder, 20)
    tokenizer = train_bytes(pre_tokenizers.Sequence([
        pre_tokenizers.Whitespace(),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), vocab=280)
    write("whitespace", tokenizer, folder, 20)


def characters(normalizer, pre_tokenizer, decoder, name, folder, bytes_=True, vocab=460, after=None,
               added=(), count=60):
    """Characters, with bytes for those that are missing, or an unknown token."""
    byte_tokens = ["<0x%02X>" % i for i in range(256)] if bytes_ else []
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=bytes_))
    tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    trainer = trainers.BpeTrainer(vocab_size=vocab, show_progress=False, limit_alphabet=80,
                                  special_tokens=["<unk>", "<s>", "</s>", *byte_tokens])
    tokenizer.train_from_iterator([" ".join(PROSE[:5])] + PROSE[:5], trainer)
    # The trainer's special tokens are found in texts, bytes too; in the published files, three are.
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [dict(t, normalized=True) for t in data["added_tokens"] if t["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_tokens(list(added))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=after or "<s> $A", special_tokens=[("<s>", 1), ("</s>", 2)])
    write(name, tokenizer, folder, count)


def llama2(folder):
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    decode = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(),
                                decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    characters(prepend, None, decode, "llama2", folder)
    characters(prepend, None, decode, "phi3", folder, added=[
        AddedToken("<|user|>", rstrip=True, normalized=False, special=True),
        AddedToken("<|left|>", lstrip=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("<|user", normalized=False)])
    for scheme in ("first", "never", "always"):
        characters(None, pre_tokenizers.Metaspace("▁", scheme, split=scheme != "first"),
                   # (which takes all marks of the first token away)
                   decode if scheme == "first" else decoders.Metaspace("▁", scheme),
                   "metaspace_" + scheme, folder, count=25,
                   added=[AddedToken("<|user|>", normalized=False, special=True)])
    characters(normalizers.Replace(" ", "▁"), None, decode, "unknown", folder, bytes_=False)


def forms(folder):
    """Normalizers, one after the other."""
    decode = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    for name, normalizer in {
            "nfd_accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
            "nfkc_lowercase": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
            "nfkd_strip": normalizers.Sequence([normalizers.NFKD(), normalizers.Strip()]),
            "strip_left": normalizers.Sequence([normalizers.Strip(left=True, right=False),
                                                normalizers.Replace(Regex(r"\s{2,}|\d"), "#")]),
            "nfc": normalizers.NFC()}.items():
        characters(normalizer, None, decode, name, folder, vocab=360, count=25)


def charsmap():
    """A small map, trained: SentencePiece's own hold 200 KB."""
    rules = [("41", "61"), ("C4", "61 65"), ("FF21", "61"), ("2460", "31"), ("66 69", "FB01"),
             ("3000", "20"), ("09", "20"), ("E9", "65"), ("65 0301", "65"), ("AD", "")]
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.writelines(f"{source}\t{target}\n" for source, target in rules)
        file.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(PROSE * 5), model_writer=model, vocab_size=110,
            normalization_rule_tsv=file.name, hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


def unigram(folder):
    proto = charsmap()
    vocab = [(p.piece, p.score) for p in proto.pieces]
    for name, fallback in (("t5_after", False), ("unigram_bytes_after", True)):
        pieces = vocab + ([("<0x%02X>" % i, -20.0) for i in range(256)] if fallback else [])
        tokenizer = Tokenizer(models.Unigram(pieces, 0, fallback))
        tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),
                                                           pre_tokenizers.Metaspace()])
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<extra_id_0>"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))])
        write(name, tokenizer, folder)


def store(folder, name, vectors):
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
        json.dump(vectors, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")


def alphabet_bytes():
    """GPT-2's alphabet: character to byte."""
    itself = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in itself]
    return {chr(b): b for b in itself} | {chr(256 + i): b for i, b in enumerate(others)}


def ranks(folder):
    tokenizer = train_bytes(split(LLAMA3), vocab=360)
    to_byte = alphabet_bytes()
    tokens = [bytes(to_byte[c] for c in tokenizer.id_to_token(i)) for i in range(360)]
    tokens = sorted(tokens[:256]) + tokens[256:]
    with open(os.path.join(folder, "bytes.ranks"), "wb") as file:
        for rank, token in enumerate(tokens):
            file.write(base64.b64encode(token) + b" %d\n" % rank)
    for name, regex in (("llama3", LLAMA3), ("qwen", QWEN2), ("glm4", LLAMA3)):
        reference = tiktoken.Encoding(name, pat_str=regex, special_tokens={}, mergeable_ranks={
            token: rank for rank, token in enumerate(tokens)})
        vectors = []
        for text in texts(40, []):
            normal = unicodedata.normalize("NFC", text) if name == "qwen" else text
            vectors.append([text, reference.encode_ordinary(normal)])
        store(folder, name, vectors)


def write_gguf(path, model, tokens, types, scores=None, merges=None, pre=None):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores:
        writer.add_token_scores(scores)
    if merges:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def gguf_llama(folder):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(PROSE[:6]), model_writer=model, vocab_size=400, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=1.0, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    reference = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    write_gguf(os.path.join(folder, "llama.gguf"), "llama", [p.piece for p in proto.pieces],
               [p.type for p in proto.pieces], scores=[p.score for p in proto.pieces])
    store(folder, "llama", [[text, reference.encode(text)] for text in texts(40, [])])


def gguf_qwen(folder):
    tokenizer = train_bytes(split(QWEN2), normalizers.NFC(), vocab=300)
    data = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(data["vocab"], key=data["vocab"].get) + ["<|im_end|>"]
    write_gguf(os.path.join(folder, "qwen2.gguf"), "gpt2", tokens, [1] * 300 + [3], pre="qwen2",
               merges=[" ".join(m) for m in data["merges"]])
    tokenizer.add_special_tokens(["<|im_end|>"])
    store(folder, "qwen2", [[text, tokenizer.encode(text).ids]
                            for text in texts(30, ["<|im_end|>"])])


def main():
    folder = os.path.join(HERE, "tokenizers")
    other = os.path.join(HERE, "vocabularies")
    os.makedirs(folder, exist_ok=True)
    os.makedirs(other, exist_ok=True)
    for make in (gpt2, llama3, qwen2, other_regex, falcon, behaviors, llama2, forms, unigram):
        make(folder)
    for make in (ranks, gguf_llama, gguf_qwen):
        make(other)


main()
