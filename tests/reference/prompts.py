# SPDX-License-Identifier: MIT
"""Prompts with weights and of any length, over transformers alone: what AUTOMATIC1111's web UI makes of them.

Written from its documentation and behaviour (prompt_parser.py, sd_hijack_clip.py, sd_emphasis.py "Original"), apart from two
things alloy leaves out too: no chunk ends early at a comma, and BREAK is a word.
"""
import re

import torch

TOKEN = re.compile(r"\\[()\[\]\\]|:\s*[+-]?[.\d]+\s*\)|[()\[\]]|[^\\()\[\]:]+|[\\:]")


def read(text):
    """[(phrase, weight)], neighbours of one weight joined; and whether a weight is written as a number."""
    out, round_, square, numbers = [], [], [], False

    def close(stack, by):
        for p in out[stack.pop():]:
            p[1] *= by

    for t in TOKEN.findall(text):
        if len(t) == 2 and t[0] == "\\":
            out.append([t[1], 1.0])
        elif t == "(":
            round_.append(len(out))
        elif t == "[":
            square.append(len(out))
        elif t[0] == ":" and t[-1] == ")" and round_:
            close(round_, float(t[1:-1]))
            numbers = True
        elif t == ")" and round_:
            close(round_, 1.1)
        elif t == "]" and square:
            close(square, 1 / 1.1)
        else:
            out.append([t, 1.0])
    while round_:
        close(round_, 1.1)
    while square:
        close(square, 1 / 1.1)
    joined = []
    for t, w in out:
        if joined and joined[-1][1] == w:
            joined[-1][0] += t
        else:
            joined.append([t, w])
    return joined, numbers


def phrases(text):
    return read(text)[0]


def chunks(tokenizer, text, least=1):
    """ids and weights, [chunks, model_max_length] each."""
    n = tokenizer.model_max_length
    ids, weights = [], []
    for t, w in phrases(text):
        got = tokenizer(t, add_special_tokens=False, truncation=False).input_ids
        ids += got
        weights += [w] * len(got)
    rows = []
    for i in range(max(least, -(-len(ids) // (n - 2)), 1)):
        a, b = ids[i * (n - 2):(i + 1) * (n - 2)], weights[i * (n - 2):(i + 1) * (n - 2)]
        pad = n - 2 - len(a)
        rows.append(([tokenizer.bos_token_id] + a + [tokenizer.eos_token_id] + [tokenizer.pad_token_id] * pad, [1.0] + b + [1.0] * (pad + 1)))
    return torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])


def encode(tokenizer, encoder, text, least, layer, norm):
    """[1, chunks * n, dim] of hidden layer `layer` from the end, and the pooled vector of the first chunk."""
    ids, weights = chunks(tokenizer, text, least)
    parts, pooled = [], None
    for i in range(len(ids)):
        o = encoder(ids[i:i + 1], output_hidden_states=True)
        pooled = o[0] if pooled is None else pooled
        z = o.hidden_states[-layer]
        if norm:
            z = encoder.final_layer_norm(z) if hasattr(encoder, "final_layer_norm") else encoder.text_model.final_layer_norm(z)
        if (weights[i] != 1).any():
            before = z.mean()
            z = z * weights[i][None, :, None]
            z = z * (before / z.mean())
        parts.append(z)
    return torch.cat(parts, 1), pooled


def embeds(pipe, prompt, negative, clip_skip=0):
    """The keyword arguments that take the place of prompt and negative_prompt."""
    xl = getattr(pipe, "text_encoder_2", None) is not None
    pairs = [(pipe.tokenizer, pipe.text_encoder)] + ([(pipe.tokenizer_2, pipe.text_encoder_2)] if xl else [])
    zero = xl and negative is None and pipe.config.force_zeros_for_empty_prompt
    texts = [prompt] + ([] if zero else [negative or ""])
    least = max(len(chunks(t, x)[0]) for t, _ in pairs for x in texts)
    out = {}
    for which, text, skip in (("", prompt, clip_skip), ("negative_", negative or "", 0)):
        got = [encode(t, e, text, least, skip + (2 if xl else 1), not xl) for t, e in pairs]
        out[which + "prompt_embeds"] = torch.cat([g[0] for g in got], -1)
        if xl:
            out[which + "pooled_prompt_embeds"] = got[1][1]
    if zero:
        out = {k: torch.zeros_like(v) if k.startswith("negative") else v for k, v in out.items()}
    return out


# ---- one chunk: Stable Diffusion 3's encoders and FLUX.1's, T5 as Forge reads it (backend/text_processing/t5_engine.py) ----------

def fixed(tokenizer, text, n, only_numbers):
    """ids [1, n], and weights [n] or None where no weight is other than 1. only_numbers: without one, brackets are text."""
    got, numbers = read(text)
    if only_numbers and not numbers:
        got = [[text, 1.0]]
    if all(w == 1 for _, w in got):
        whole = "".join(t for t, _ in got)
        return tokenizer(whole, padding="max_length", max_length=n, truncation=True, return_tensors="pt").input_ids, None
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None and tokenizer("").input_ids[0] == tokenizer.bos_token_id else []
    ids, weights = [], []
    for t, w in got:
        new = tokenizer(t, add_special_tokens=False, truncation=False).input_ids
        ids += new
        weights += [w] * len(new)
    room = n - 1 - len(start)
    ids, weights = start + ids[:room] + [tokenizer.eos_token_id], [1.0] * len(start) + weights[:room] + [1.0]
    pad = n - len(ids)
    return torch.tensor([ids + [tokenizer.pad_token_id] * pad]), torch.tensor(weights + [1.0] * pad)


def weigh(z, weights):
    if weights is None:
        return z
    scaled = z * weights[None, :, None]
    return scaled * (z.mean() / scaled.mean())


def embeds_flux(pipe, prompt, length):
    clip_ids, _ = fixed(pipe.tokenizer, prompt, pipe.tokenizer.model_max_length, True)
    ids, weights = fixed(pipe.tokenizer_2, prompt, length, True)
    return dict(pooled_prompt_embeds=pipe.text_encoder(clip_ids).pooler_output, prompt_embeds=weigh(pipe.text_encoder_2(ids)[0], weights))


def embeds_sd3(pipe, prompt, negative, length):
    out, width = {}, pipe.transformer.config.joint_attention_dim
    for which, text in (("", prompt), ("negative_", negative or "")):
        layers, pooled = [], []
        for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)):
            ids, weights = fixed(tokenizer, text, tokenizer.model_max_length, False)
            o = encoder(ids, output_hidden_states=True)
            layers.append(weigh(o.hidden_states[-2], weights))
            pooled.append(o.text_embeds)
        rows = torch.nn.functional.pad(torch.cat(layers, -1), (0, width - sum(z.shape[-1] for z in layers)))
        t5 = torch.zeros(1, length, width)
        if pipe.text_encoder_3 is not None:
            ids, weights = fixed(pipe.tokenizer_3, text, length, False)
            t5 = weigh(pipe.text_encoder_3(ids)[0], weights)
        out[which + "prompt_embeds"] = torch.cat([rows, t5], 1)
        out[which + "pooled_prompt_embeds"] = torch.cat(pooled, -1)
    return out
