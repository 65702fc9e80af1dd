"""Makes both tokenizers from the demo's own language: a byte-level BPE (CLIP) and a unigram model (T5)."""

import collections
import io
import json
import math
import os
import string

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from transformers import CLIPTokenizer, T5TokenizerFast

from common import arguments
from language import phrase, random_scene, rng_for

CLIP_LENGTH, T5_LENGTH = 77, 32
SPARE_WORDS = ("the and with of on in at to from by is are that there picture image photo drawing painting grey gray pink "
               "brown cyan heart diamond oval rectangle outlined pastel style five six between inside outside behind "
               "front near far left right").split()


def byte_letters():
    """The printable letter that stands for each byte in a byte-level BPE, in the order vocabularies list them."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + len(letters) - len(plain))
    return letters


def learn_merges(words):
    """Merges until every word is one symbol, the most frequent pair first."""
    splits = {w: list(w[:-1]) + [w[-1] + "</w>"] for w in words}
    merges = []
    while True:
        pairs = collections.Counter()
        for w, parts in splits.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[w]
        if not pairs:
            return merges
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        for parts in splits.values():
            k = 0
            while k + 1 < len(parts):
                if (parts[k], parts[k + 1]) == best:
                    parts[k:k + 2] = ["".join(best)]
                k += 1


def make_clip(lines, folder):
    words = collections.Counter(w.strip(",") for line in lines for w in line.split())
    words.update(SPARE_WORDS)
    merges = learn_merges(words)
    symbols = list(byte_letters().values())
    pieces = symbols + [s + "</w>" for s in symbols] + ["".join(m) for m in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {p: k for k, p in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_LENGTH)
    tokenizer.save_pretrained(folder)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def add_whole_words(proto, lines):
    """Every word of the language becomes one piece; the learnt smaller pieces stay for words it does not know."""
    counts = collections.Counter(w for line in lines for w in line.replace(",", " ").split())
    counts.update(SPARE_WORDS)
    known, total = {p.piece for p in proto.pieces}, sum(counts.values())
    for piece in proto.pieces[3:]:
        piece.score -= 4
        word = piece.piece[1:]
        if piece.piece[0] == "\u2581" and word in counts:
            piece.score = math.log(counts[word] / total)
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if "\u2581" + word not in known:
            proto.pieces.add(piece="\u2581" + word, score=math.log(count / total))


def make_t5(lines, folder):
    letters = [" ".join(string.ascii_lowercase), " ".join(string.digits), " ".join(string.punctuation),
               string.ascii_lowercase, string.ascii_lowercase[::-1], string.digits]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines + letters * 3 + SPARE_WORDS * 40), model_writer=model, model_type="unigram",
        vocab_size=240, hard_vocab_limit=False, character_coverage=1.0, normalization_rule_name="nmt_nfkc_cf",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    add_whole_words(proto, lines)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "spiece.model"), "wb") as f:
        f.write(proto.SerializeToString())
    vocab = [(p.piece, p.score) for p in proto.pieces]
    tokenizer = T5TokenizerFast(vocab=vocab, _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap,
                                extra_ids=0, model_max_length=T5_LENGTH)
    tokenizer.save_pretrained(folder)


def main():
    args = arguments(model="demo/model")
    rng = rng_for("tokenizers")
    lines = [phrase(rng, random_scene(rng)) for _ in range(6000)]
    make_clip(lines, os.path.join(args.model, "tokenizer"))
    make_t5(lines, os.path.join(args.model, "tokenizer_2"))


if __name__ == "__main__":
    main()
