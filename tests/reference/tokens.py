# SPDX-License-Identifier: MIT
"""Golden token ids, from Hugging Face's transformers and tokenizers, and the small tokenizers that the tests run everywhere.

    python tests/reference/tokens.py train [clip qwen t5 mixed] # tests/data/tokenizers/*: trained on the text below
    python tests/reference/tokens.py unicode                    # tests/golden/unicode.bin
    python tests/reference/tokens.py cases                      # tests/golden/token_cases.json
    python tests/reference/tokens.py golden [FOLDER]            # tests/golden/tokens_*.bin; FOLDER holds clip, t5, qwen2.5

A golden file is "AYTG", then uint64: the hash of all strings; for each string the hash of its ids; for every eighth string
the hash of its ids and attention mask padded and truncated to 77. Hashes are FNV-1a over little-endian int32, the count first.
"""
import base64
import json
import os
import re
import struct
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data", "tokenizers")
GOLDEN = os.path.join(HERE, "..", "golden")
STRINGS = 10240 + 32
M64 = (1 << 64) - 1
FNV = 0xCBF29CE484222325


def fnv(h, data):
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & M64
    return h


# ---- the generator: the twin of tests/support/token_strings.c ------------------------------------------------------------

class Strings:
    def __init__(self, path):
        self.lists = {}
        name = None
        for line in open(path, encoding="utf-8", newline="\n").read().split("\n")[:-1]:
            if name is None and line.startswith("#"):
                continue
            m = re.fullmatch(r"\[([a-z]+)\]", line)
            if m and m.group(1) in ("words", "contractions", "emoji", "special", "case", "space", "odd", "marks", "digits", "blocks"):
                name = m.group(1)
                self.lists[name] = []
            elif name in ("marks", "digits", "blocks"):
                lo, hi = line.split()
                self.lists[name].append((int(lo, 16), int(hi, 16)))
            elif name:
                self.lists[name].append(re.sub(r"\\x([0-9a-f]+);", lambda h: chr(int(h.group(1), 16)), line))

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & M64
        z = self.state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
        return ((z ^ z >> 31) >> 32) % n

    def code(self, c):
        self.out.append(" " if 0xD800 <= c < 0xE000 else chr(c))

    def atom(self, name):
        self.out.append(self.lists[name][self.below(len(self.lists[name]))])

    def of(self, r):
        self.code(r[0] + self.below(r[1] - r[0] + 1))

    def range(self, name):
        self.of(self.lists[name][self.below(len(self.lists[name]))])

    def space(self, odds):
        if self.below(odds) == 0:
            self.code(0x20)

    def any(self):
        k = self.below(10)
        if 6 <= k <= 8:
            self.range(("marks", "digits", "blocks")[k - 6])
        else:
            self.atom(("contractions", "emoji", "special", "case", "space", "odd")[k] if k < 6 else "words")

    def one(self, kind, block):
        if kind == 0:
            self.atom("words"), self.code(0x20)
        elif kind == 1:
            self.of(block)
        elif kind == 2:
            self.range("blocks"), self.space(4)
        elif kind == 3:
            self.atom("emoji"), self.space(3)
        elif kind == 4:
            self.code(0x61 + self.below(26)), self.range("marks"), self.space(6)
        elif kind == 5:
            self.atom("space"), self.atom("words")
        elif kind == 6:
            self.atom("special"), self.space(2)
        elif kind == 7:
            self.code(self.below(0x110000))
        elif kind == 8:
            self.atom("case"), self.space(2)
        elif kind == 9:
            self.code(0x3040 + self.below(0x6FC0))
        elif kind == 10:
            self.range("digits"), self.space(5)
        elif kind == 11:
            self.atom("space"), self.atom("contractions"), self.atom("words")
        elif kind == 12:
            self.atom("odd"), self.code(0xE000 + self.below(0x1900))
        elif kind == 13:
            self.of(block), self.range("marks")
        elif kind == 14:
            self.code(0x20 + self.below(95))
        else:
            self.any()

    def string(self, i):
        self.out = []
        self.state = (i * 0x2545F4914F6CDD1D + 1) & M64
        kind, blocks = i % 16, self.lists["blocks"]
        block = blocks[i // 16 % len(blocks)]
        if i == 0:
            return ""
        count = 1 + self.below(24) if i < STRINGS - 32 else 10000
        if i >= STRINGS - 16:
            self.one(kind, block)
            return "".join(self.out) * 4000
        if self.below(8) == 0:
            self.atom("space")
        for _ in range(count):
            self.one(kind, block)
        return "".join(self.out)


# ---- small tokenizers ----------------------------------------------------------------------------------------------------

TEXT = """
alloy reads a checkpoint, builds the graph of every component and writes it as a package that runs on its own. A prompt
becomes tokens, the tokens become numbers, the numbers become a picture: a fox in the snow, a red boat on a quiet lake, the
old lighthouse at dusk, three lemons on a blue plate. It's what we'd call a pipeline; they've called it that since the first
sampler ran, and I'll say it isn't magic, it's arithmetic. Numbers such as 1, 12, 123 and 3.14 come apart into digits. The
text encoders don't agree on how to cut words: one keeps the end of a word in mind, another marks its beginning. Weights are
mapped, never copied; activations live in one slab whose size is known before the run. Painting, photograph, watercolour,
sketch, portrait, landscape, macro, cinematic lighting, highly detailed, soft shadows, golden hour, wide angle, bokeh.
Ein Fuchs läuft durch den Schnee, der Himmel ist grün und weiß, die Straße ist leer; un renard traverse la forêt enneigée,
où l'été était doux; el niño pequeño mañana verá la montaña; в лесу живёт лиса, снег лежит на ветвях; η αλεπού είναι στο χιόνι.
狐は雪の中を走る。森の中に狐がいます。雪 中 の 狐 絵 を 描く。 여우가 눈 속을 걷는다. 😀 👍 🏔 the end of the sentence.
"""
SPECIAL = dict(single_word=False, lstrip=False, rstrip=False)


def write(folder, name, value):
    os.makedirs(os.path.join(DATA, folder), exist_ok=True)
    with open(os.path.join(DATA, folder, name), "w", encoding="utf-8", newline="\n") as f:
        json.dump(value, f, ensure_ascii=False, indent=1) if not isinstance(value, str) else f.write(value)
        f.write("" if isinstance(value, str) else "\n")


def train_bpe(suffix, normalizer, pre_tokenizer, size, specials):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    tk = Tokenizer(models.BPE(end_of_word_suffix=suffix))
    tk.normalizer, tk.pre_tokenizer = normalizer, pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tr = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, end_of_word_suffix=suffix, show_progress=False,
                             special_tokens=[])
    tk.train_from_iterator(TEXT.strip().split("\n") * 3, tr)
    model = json.loads(tk.to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    tokens = [*alphabet, *(c + suffix for c in alphabet if suffix)]
    tokens += [m.replace(" ", "") for m in merges]
    vocab = {}
    for t in tokens + specials:
        vocab.setdefault(t, len(vocab))
    return vocab, merges


def train_clip():
    from transformers import CLIPTokenizer
    t = CLIPTokenizer()._tokenizer
    end = "<|endoftext|>"
    vocab, merges = train_bpe("</w>", t.normalizer, t.pre_tokenizer, 1100, ["<|startoftext|>", end])
    config = {"bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end, "pad_token": end, "model_max_length": 77,
              "tokenizer_class": "CLIPTokenizer"}
    named = {k: {"content": config[k], "normalized": True, **SPECIAL} for k in ("bos_token", "eos_token", "unk_token")}
    for folder in ("clip", "clip_pad"):
        write(folder, "vocab.json", vocab)
        write(folder, "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
    write("clip", "tokenizer_config.json", config)
    write("clip", "special_tokens_map.json", {**named, "pad_token": end})
    decoder = {str(vocab[t]): {"content": t, "normalized": t != "!", "special": True, **SPECIAL}
               for t in ("!", "<|startoftext|>", end)}
    write("clip_pad", "tokenizer_config.json", {**config, "pad_token": "!", "added_tokens_decoder": decoder})


def train_qwen():
    from transformers import Qwen2Tokenizer
    t = Qwen2Tokenizer()._tokenizer
    vocab, merges = train_bpe("", t.normalizer, t.pre_tokenizer, 900, [])
    added = [{"id": len(vocab) + i, "content": c, "normalized": False, "special": i < 3, **SPECIAL}
             for i, c in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"])]
    t.add_special_tokens([])
    pipe = json.loads(t.to_str())
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab}
    for folder, pairs in (("qwen", [m.split(" ") for m in merges]), ("bpe_file", merges)):
        write(folder, "tokenizer.json", {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": pipe["normalizer"],
            "pre_tokenizer": pipe["pre_tokenizer"],
            "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "decoder": pipe["decoder"], "model": {**model, "merges": pairs}})
    decoder = {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}
    write("qwen", "tokenizer_config.json", {
        "add_bos_token": False, "added_tokens_decoder": decoder, "additional_special_tokens": ["<|im_start|>"],
        "eos_token": "<|im_end|>", "bos_token": None, "pad_token": "<|endoftext|>", "unk_token": None,
        "model_max_length": 1000000000000000019884624838656, "tokenizer_class": "Qwen2TokenizerFast"})


def charsmap_rules():
    """A few dozen rules of the kinds that nmt_nfkc has: full width, ligatures, compositions, spaces, things that vanish."""
    rules = {chr(c): " " for c in (9, 10, 13, 0xA0, 0x2003, 0x3000, 0x200B, 0xFEFF)}
    rules.update({chr(c): "" for c in (1, 2, 0x7F, 0xAD)})
    rules.update({chr(0xFF01 + i): chr(0x21 + i) for i in range(94)})
    rules.update({"ﬁ": "fi", "ﬀ": "ff", "½": "1⁄2", "²": "2", "ª": "a", "…": "...", "™": "TM", "㎏": "kg", "№": "No", "\u212b": "\u00c5",
                  "Ⅷ": "VIII", "ﾊﾟ": "パ", "ﾊ": "ハ", "ｶﾞ": "ガ", "ｶ": "カ"})
    for base, mark, whole in (("e", "\u0301", "é"), ("a", "\u0302", "â"), ("â", "\u0323", "ậ"), ("e", "\u0323", "ẹ"),
                              ("ẹ", "\u0302", "ệ"), ("u", "\u0308", "ü"), ("o", "\u0308", "ö"), ("n", "\u0303", "ñ")):
        rules[base + mark] = whole
    return rules


def train_t5():
    import sentencepiece as spm
    from transformers import T5Tokenizer
    with tempfile.TemporaryDirectory() as d:
        with open(f"{d}/rules.tsv", "w", encoding="utf-8") as f:
            for k, v in charsmap_rules().items():
                f.write(" ".join(f"{ord(c):X}" for c in k) + "\t" + " ".join(f"{ord(c):X}" for c in v) + "\n")
        with open(f"{d}/text.txt", "w", encoding="utf-8") as f:
            f.write(TEXT.strip() + "\n")
        spm.SentencePieceTrainer.train(
            input=f"{d}/text.txt", model_prefix=f"{d}/spiece", vocab_size=600, model_type="unigram", pad_id=0, eos_id=1, unk_id=2,
            bos_id=-1, normalization_rule_tsv=f"{d}/rules.tsv", character_coverage=1.0, minloglevel=2, num_threads=1,
            user_defined_symbols=["<mark>"], hard_vocab_limit=False)
        os.makedirs(os.path.join(DATA, "spiece"), exist_ok=True)
        from transformers.convert_slow_tokenizer import import_protobuf
        model = import_protobuf().ModelProto()
        model.ParseFromString(open(f"{d}/spiece.model", "rb").read())
        for field in ("input", "model_prefix"):  # names of files that are gone
            model.trainer_spec.ClearField(field)
        model.normalizer_spec.ClearField("normalization_rule_tsv")
        with open(os.path.join(DATA, "spiece", "spiece.model"), "wb") as f:
            f.write(model.SerializeToString())
    write("spiece", "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 100})
    tk = T5Tokenizer.from_pretrained(os.path.join(DATA, "spiece"))
    pipe = json.loads(tk.backend_tokenizer.to_str())
    charsmap = pipe["normalizer"]
    file = {**pipe, "added_tokens": [a for a in pipe["added_tokens"] if a["content"] != "<mark>"], "normalizer": {
        "type": "Sequence", "normalizers": [charsmap, {"type": "Strip", "strip_left": False, "strip_right": True},
                                            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True, "prepend_scheme": "first"}}
    for folder in ("t5", "unigram_file"):
        write(folder, "tokenizer.json", json.dumps(file, ensure_ascii=False) + "\n")
    write("t5", "tokenizer_config.json", {"tokenizer_class": "T5TokenizerFast", "eos_token": "</s>", "pad_token": "<pad>",
                                          "unk_token": "<unk>", "extra_ids": 100, "model_max_length": 512})


def train_mixed():
    """Everything else that a tokenizer.json may say here: no model has these pipelines, every part has some model."""
    with open(os.path.join(DATA, "bpe_file", "tokenizer.json"), encoding="utf-8") as f:
        bpe = json.load(f)
    with open(os.path.join(DATA, "t5", "tokenizer.json"), encoding="utf-8") as f:
        uni = json.load(f)
    n = len(bpe["model"]["vocab"])
    flags = [("<mask>", dict(lstrip=True)), ("<end>", dict(rstrip=True)), ("fox", dict(single_word=True)),
             ("<both>", dict(lstrip=True, rstrip=True)), ("Zürich", dict(normalized=True)), ("!", dict(normalized=True, rstrip=True)),
             ("!!", dict()), ("the", dict()), ("th", dict()), (" mars", dict(lstrip=True)), ("</s>", dict(lstrip=True, special=True)),
             ("a", dict(single_word=True)), ("ﬁ", dict(normalized=True)), ("<|endoftext|>", dict(special=True))]
    bpe["added_tokens"] = [{"id": n + i, "content": c, "normalized": False, "special": False, **SPECIAL, **k}
                           for i, (c, k) in enumerate(flags)]
    bpe["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Nmt"}, {"type": "NFKD"}, {"type": "Strip", "strip_left": True, "strip_right": False},
        {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "\u0301"}, "content": "'"},
                                             {"type": "Replace", "pattern": {"Regex": "(?i)o(?=[a-m])|e{2,3}"}, "content": "0"}]},
        {"type": "Lowercase"}, {"type": "NFKC"}, {"type": "Prepend", "prepend": "~ "}]}
    bpe["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": False},
        {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        {"type": "Split", "pattern": {"Regex": "[.!?]"}, "behavior": "MergedWithNext", "invert": False},
        {"type": "Split", "pattern": {"Regex": "\\p{P}"}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}]}
    bpe["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                                  {"SpecialToken": {"id": "E", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"B": {"id": "B", "ids": [5, 6], "tokens": ["a", "b"]}, "E": {"id": "E", "ids": [7], "tokens": ["c"]}}}]}
    used = {c for m in bpe["model"]["merges"] for c in m}
    for token in sorted(c for c in bpe["model"]["vocab"] if len(c) == 1 and c not in used and c != "!")[::3]:  # unknown, fused
        bpe["model"]["vocab"]["gone" + token] = bpe["model"]["vocab"].pop(token)
    bpe["model"].update(unk_token="!", fuse_unk=True, ignore_merges=True)
    bpe["model"]["vocab"]["Ġphotograph"] = n + 100
    write("mixed_bpe", "tokenizer.json", bpe)
    uni["normalizer"] = {"type": "Sequence", "normalizers": [uni["normalizer"]["normalizers"][0], {"type": "NFC"},
                                                             {"type": "Strip", "strip_left": True, "strip_right": True}]}
    uni["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "Split", "pattern": {"Regex": "[^ ]*a[^ ]*"}, "behavior": "Removed", "invert": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}]}
    uni["post_processor"] = {"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<pad>", 0]}
    uni["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0] for b in range(256)]
    uni["model"]["byte_fallback"] = True
    write("mixed_unigram", "tokenizer.json", json.dumps(uni, ensure_ascii=False) + "\n")


# ---- golden ---------------------------------------------------------------------------------------------------------------

def hash_ids(*lists):
    h = FNV
    for ids in lists:
        h = fnv(h, struct.pack(f"<{len(ids) + 1}i", len(ids), *ids))
    return h


def golden(name, tk, strings, count, text_hash):
    out = [struct.pack("<Q", text_hash)]
    for i in range(count):
        out.append(struct.pack("<Q", hash_ids(tk(strings[i], verbose=False)["input_ids"])))
    if tk.pad_token is not None:
        for i in range(0, count, 8):
            e = tk(strings[i], padding="max_length", max_length=77, truncation=True)
            out.append(struct.pack("<Q", hash_ids(e["input_ids"], e["attention_mask"])))
    with open(os.path.join(GOLDEN, f"tokens_{name}.bin"), "wb") as f:
        f.write(b"AYTG" + b"".join(out))
    print(name, "vocab", len(tk), "pad", tk.pad_token_id)


def main_golden(folder):
    from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerFast, T5TokenizerFast
    from transformers.utils import logging
    logging.set_verbosity_error()
    gen = Strings(os.path.join(DATA, "atoms.txt"))
    strings = [gen.string(i) for i in range(STRINGS)]
    hashes = {}
    for count in (2048, STRINGS):
        h = FNV
        for s in strings[:count]:
            h = fnv(h, s.encode())
        hashes[count] = h
    from_file = lambda d: PreTrainedTokenizerFast(tokenizer_file=os.path.join(d, "tokenizer.json"))
    small = {"clip": CLIPTokenizer.from_pretrained, "clip_pad": CLIPTokenizer.from_pretrained, "t5": T5TokenizerFast.from_pretrained,
             "spiece": T5TokenizerFast.from_pretrained, "qwen": AutoTokenizer.from_pretrained, "unigram_file": from_file,
             "bpe_file": from_file, "mixed_bpe": from_file, "mixed_unigram": from_file}
    for name, load in small.items():
        golden("small_" + name, load(os.path.join(DATA, name)), strings, 2048, hashes[2048])
    if folder:
        big = {"clip": ("clip", CLIPTokenizer.from_pretrained), "t5": ("t5", T5TokenizerFast.from_pretrained),
               "qwen2.5": ("qwen2.5", AutoTokenizer.from_pretrained), "t5_file": ("t5", from_file)}
        for name, (sub, load) in big.items():
            golden(name, load(os.path.join(folder, sub)), strings, STRINGS, hashes[STRINGS])


def unigram_file(vocab, **extra):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": None, "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": False},
            **extra}


def cases():
    """(class, folder to start from, {file: what stands in it instead}, texts, arguments of the call)"""
    read = lambda *name: json.load(open(os.path.join(DATA, *name), encoding="utf-8"))
    clip, qwen, t5 = (read(d, "tokenizer_config.json") for d in ("clip", "qwen", "t5"))
    cut, config, texts = dict(max_length=6, truncation=True), "tokenizer_config.json", ["a fox in the snow, the old lighthouse", "a", ""]
    im_end = {**qwen["added_tokens_decoder"], "854": {**qwen["added_tokens_decoder"]["854"], "lstrip": True, "special": False}}
    few = {"vocab.json": {"a": 0, "b": 1, "ab": 2, "Ġthe": 3, "Ġ": 4}, "merges.txt": "a b\n", "tokenizer.json": None}
    yield "Qwen2Tokenizer", "qwen", {**few, config: {"add_bos_token": True, "bos_token": "<b>", "add_eos_token": True}}, ["ab a", ""], {}
    yield "Qwen2Tokenizer", "qwen", {**few, config: {"add_bos_token": True, "add_eos_token": True}}, ["ab a"], {}
    yield "Qwen2Tokenizer", "qwen", {**few, config: {"bos_token": "<b>"}}, ["ab<|endoftext|>"], {}
    yield "Qwen2Tokenizer", "qwen", {**few, config: {}}, ["ab<|endoftext|>"], {}
    yield "Qwen2Tokenizer", "qwen", {config: {**qwen, "added_tokens_decoder": im_end}}, ["a  <|im_end|> b <tool_call>"], {}
    yield "CLIPTokenizer", "clip", {config: None, "special_tokens_map.json": None}, ["A fox <|endoftext|>!"], {}
    yield "CLIPTokenizer", "clip", {config: None}, ["A fox <|STARTOFTEXT|>! <|EndOfText|> x <|endoftext|>"], {}
    yield "CLIPTokenizer", "clip", {"special_tokens_map.json": None}, ["<|StartOfText|>a<|endoftext|>"], {}
    yield "CLIPTokenizer", "clip", {config: {**clip, "split_special_tokens": True}}, ["a <|endoftext|> b <|startoftext|>"], {}
    eos = {"__type": "AddedToken", "content": "<|endoftext|>", **SPECIAL, "normalized": True}
    yield "CLIPTokenizer", "clip", {config: {**clip, "eos_token": eos, "unk_token": eos, "pad_token": eos, "split_special_tokens": True},
                                    "special_tokens_map.json": None}, ["a <|endoftext|> b"], {}
    for side in ("padding_side", "truncation_side"):
        yield "CLIPTokenizer", "clip", {config: {**clip, side: "left"}}, texts, dict(padding="max_length", **cut)
        yield "T5TokenizerFast", "t5", {config: {**t5, side: "left"}}, texts, dict(padding="max_length", **cut)
    yield "CLIPTokenizer", "clip", {}, texts, dict(cut, add_special_tokens=False)
    yield "CLIPTokenizer", "clip", {}, texts, dict(max_length=2, truncation=True)
    yield "T5TokenizerFast", "t5", {}, texts, dict(max_length=1, truncation=True)
    yield "CLIPTokenizer", "clip", {"added_tokens.json": {"<new>": 1062, "snow": 1063}}, ["a <new>SNOW<NEW>snow"], {}
    yield "CLIPTokenizer", "clip", {"special_tokens_map.json": {"additional_special_tokens": ["fox", "<x>"]}}, ["a fox <X><x>"], {}
    yield "CLIPTokenizer", "clip", {config: {**clip, "image_token": "<im>", "model_max_length": 10 ** 30}}, ["a <im> <IM>"], {}
    yield "CLIPTokenizer", "clip", {config: {**clip, "extra_special_tokens": {"x_token": "<x>"}, "mask_token": "<m>"}}, ["a <x><m>"], {}
    yield "CLIPTokenizer", "clip", {config: {**clip, "pad_token": {"__type": "AddedToken", "content": "<p>", **SPECIAL, "rstrip": True,
                                                                   "normalized": False}}}, ["a <p>  b"], dict(padding="max_length", **cut)
    yield "T5TokenizerFast", "spiece", {config: None}, ["a <mark> fox</s> <extra_id_7>."], {}
    yield "T5TokenizerFast", "t5", {}, ["x\u00aa\u1acfb \u00aa\u0301 \u00aa\u0897 e\u0301\u0301", "\uff41\u0308\r\nu\u0308"], {}
    yield "file", "mixed_bpe", {}, ["<end>  \t <mask>x<both> <both>", "  <mask>", "a<end> ", " mars mars</s>  </s>", "fox foxes afox fox"], {}
    vocab = [["<unk>", -3.0], ["pq", -0.5], ["st", -0.5], ["p", -8.0], ["qrs", -8.0], ["t", -2.5]]
    yield "file", None, {"tokenizer.json": unigram_file(vocab)}, ["pqrst", "rr", "prt"], {}
    yield "file", None, {"tokenizer.json": unigram_file([["<unk>", 200.0], ["Z<unk>", -1.0], ["a", -1.0]])}, ["aZ<unk>a", "ZZ<unk>"], {}
    same = [["<unk>", 0.0], ["a", -1.0], ["aa", -2.0], ["aaa", -3.0], ["a", -1.5], ["b", -2.0], ["ab", -3.5]]
    yield "file", None, {"tokenizer.json": unigram_file(same)}, ["aaaaaaa", "aabab", "ba"], {}


def main_cases():
    """tests/golden/token_cases.json: small matters, each with the files it changes."""
    import transformers
    transformers.utils.logging.set_verbosity_error()
    out = []
    for name, folder, files, texts, call in cases():
        with tempfile.TemporaryDirectory() as d:
            if folder:
                shutil.copytree(os.path.join(DATA, folder), d, dirs_exist_ok=True)
            for file, value in files.items():
                path = os.path.join(d, file)
                if value is None:
                    os.path.exists(path) and os.remove(path)
                else:
                    open(path, "w", encoding="utf-8").write(value if isinstance(value, str) else json.dumps(value))
            if name == "file":
                tk = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(d, "tokenizer.json"))
            else:
                tk = getattr(transformers, name).from_pretrained(d)
            for text in texts:
                e = tk(text, **call)
                out.append({"folder": folder, "files": {k: v if v is None or isinstance(v, str) else json.dumps(v) for k, v in files.items()},
                            "text": text, "special": call.get("add_special_tokens", True), "pad": "padding" in call,
                            "max_length": call.get("max_length", 2 ** 31 - 1), "ids": e["input_ids"], "mask": e["attention_mask"]})
    with open(os.path.join(GOLDEN, "token_cases.json"), "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")


def main_unicode():
    """tests/golden/unicode.bin: for each 1024 code points one hash of their normal forms, lower case
    and kinds, as Hugging Face's tokenizers see them."""
    from tokenizers import Regex, normalizers as N, pre_tokenizers as P
    steps = [N.NFC(), N.NFD(), N.NFKC(), N.NFKD(), N.Lowercase()]
    kinds = [N.Replace(Regex(r), "") for r in (r"\p{L}+", r"\p{N}+", r"\s+", r"\p{Lu}+", r"\p{Ll}+", r"\p{M}+", r"\p{P}+", r"\p{S}+")]
    out = []
    for base in range(0, 0x110000, 0x400):
        chars = [chr(c) for c in range(base, base + 0x400) if not 0xD800 <= c < 0xE000]
        h = FNV
        for text in ("".join(c + "\n" for c in chars), "".join("a\u0301" + c + "\u0323\n" for c in chars)):
            for step in steps:
                h = fnv(h, step.normalize_str(text).encode())
        for kind in kinds:
            h = fnv(h, kind.normalize_str("".join(chars)).encode())
        h = fnv(h, "".join(t for t, _ in P.WhitespaceSplit().pre_tokenize_str("".join(chars))).encode())
        out.append(struct.pack("<Q", h))
    with open(os.path.join(GOLDEN, "unicode.bin"), "wb") as f:
        f.write(b"".join(out))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        for make in (train_clip, train_qwen, train_t5, train_mixed):
            if not sys.argv[2:] or make.__name__.removeprefix("train_") in sys.argv[2:]:
                make()
    elif sys.argv[1:2] == ["golden"]:
        main_golden(sys.argv[2] if len(sys.argv) > 2 else None)
    elif sys.argv[1:2] == ["cases"]:
        main_cases()
    elif sys.argv[1:2] == ["unicode"]:
        main_unicode()
    else:
        sys.exit(__doc__)
