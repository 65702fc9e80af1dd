# SPDX-License-Identifier: MIT
"""Golden data for adapters: small checkpoints of sd.py and flux.py with adapters whose numbers are hashes of their names.

    python tests/reference/lora.py          # rewrites tests/golden/lora/

A case is a folder with FILE.txt for each adapter (a manifest as in hashweights.py), case.json (which checkpoint, strengths, a
picture's settings), merged.safetensors (for every changed tensor its norm and two projections in float64) and picture.png.
What diffusers can load it loads and fuses (peft_*, old_*); the other forms are merged here by the definitions of LyCORIS
(lycoris/functional, lycoris/modules/*.py: get_weight) and ComfyUI (comfy/weight_adapter: strength of DoRA), in float64.
"""
import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file

import flux
import hashweights
import sd

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "lora")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
PACKAGES = {"unet": "UNet", "transformer": "Transformer", "text_encoder": "TextEncoder", "text_encoder_2": "TextEncoder2"}


def pick(name, n, salt=""):
    return int(hashweights.splitmix64(np.array([hashweights.fnv1a64(name + salt)], np.uint64))[0] >> np.uint64(33)) % n


class File:
    """One adapter: names, types and shapes; numbers come from the names."""

    def __init__(self, gains, strength, text_strength=None):
        self.gains, self.strength = gains, strength
        self.text = strength if text_strength is None else text_strength
        self.tensors = {}

    def add(self, name, dtype, *shape):
        x = torch.from_numpy(hashweights.values(name, shape, self.gains)).to(TYPES[dtype])
        self.tensors[name] = (dtype, shape, x)
        return x.double()

    def manifest(self):
        lines = [f"@gain {p} {g!r}" for p, g in self.gains]
        return "\n".join(lines + [f"{n} {d} {','.join(map(str, s)) or '-'}" for n, (d, s, _) in self.tensors.items()]) + "\n"

    def save(self, path):
        save_file({n: x.contiguous() for n, (_, _, x) in self.tensors.items()}, path)


# ---- forms: a layer's tensors, and the difference that they make --------------------------------------------------------

def low_rank(f, key, shape, r, dtype, ends=(".lora_up.weight", ".lora_down.weight")):
    tail = [1, 1] if len(shape) == 4 else []
    up, down = f.add(key + ends[0], dtype, shape[0], r, *tail), f.add(key + ends[1], dtype, r, *shape[1:])
    return up.flatten(1) @ down.flatten(1), r


def tucker(f, key, shape, r, dtype):
    up, down = f.add(key + ".lora_up.weight", dtype, shape[0], r, 1, 1), f.add(key + ".lora_down.weight", dtype, r, shape[1], 1, 1)
    mid = f.add(key + ".lora_mid.weight", dtype, r, r, *shape[2:])
    return torch.einsum("mnkl,ni,om->oikl", mid, down.flatten(1), up.flatten(1)), r


def loha(f, key, shape, r, dtype):
    n = int(np.prod(shape[1:]))
    if len(shape) == 4 and shape[2] > 1:
        part = lambda i: torch.einsum("ijkl,jr,ip->prkl", f.add(f"{key}.hada_t{i}", dtype, r, r, *shape[2:]),
                                      f.add(f"{key}.hada_w{i}_b", dtype, r, shape[1]), f.add(f"{key}.hada_w{i}_a", dtype, r, shape[0]))
    else:
        part = lambda i: f.add(f"{key}.hada_w{i}_a", dtype, shape[0], r) @ f.add(f"{key}.hada_w{i}_b", dtype, r, n)
    return part(1) * part(2), r


def lokr(f, key, shape, r, dtype):
    small = [next(k for k in (4, 3, 2, 1) if n % k == 0) for n in shape[:2]]
    rest = [shape[0] // small[0], shape[1] // small[1]]
    kernel = list(shape[2:])
    kind, rank = pick(key, 4), r
    w1 = f.add(key + ".lokr_w1_a", dtype, small[0], r) @ f.add(key + ".lokr_w1_b", dtype, r, small[1]) if kind == 3 else \
        f.add(key + ".lokr_w1", dtype, *small)
    if kind == 0:
        w2, rank = f.add(key + ".lokr_w2", dtype, *rest, *kernel), None
    elif kernel and kind == 1:
        w2 = torch.einsum("ijkl,jr,ip->prkl", f.add(key + ".lokr_t2", dtype, r, r, *kernel), f.add(key + ".lokr_w2_b", dtype, r, rest[1]),
                          f.add(key + ".lokr_w2_a", dtype, r, rest[0]))
    else:
        w2 = f.add(key + ".lokr_w2_a", dtype, rest[0], r) @ f.add(key + ".lokr_w2_b", dtype, r, int(np.prod([rest[1]] + kernel)))
    if kernel:
        w1, w2 = w1[:, :, None, None], w2.reshape(*rest, *kernel)
    return torch.kron(w1.contiguous(), w2.contiguous()), rank


def layer(f, key, weight, bias, strength):
    """Adds some adapter for a layer to the file; its weight and bias (None: unchanged) afterwards."""
    shape, dtype, r = tuple(weight.shape), ("F32", "F16", "BF16")[pick(key, 3, "type")], (1, 2, 3)[pick(key, 3, "rank")]
    w = weight.double()
    if len(shape) == 1:
        w = w + strength * f.add(key + ".w_norm", dtype, *shape)
        return w, None if bias is None else bias.double() + strength * f.add(key + ".b_norm", dtype, *bias.shape)
    kind = pick(key, 8)
    if kind == 7:
        w = w + strength * f.add(key + ".diff", dtype, *shape)
        return w, None if bias is None else bias.double() + strength * f.add(key + ".diff_b", dtype, *bias.shape)
    wide = len(shape) == 4 and shape[2] > 1
    form = {0: low_rank, 1: tucker if wide else low_rank, 2: loha, 3: loha, 4: lokr, 5: lokr, 6: low_rank}[kind]
    delta, rank = form(f, key, shape, r, dtype)
    if pick(key, 4, "alpha"):
        alpha = f.add(key + ".alpha", "F32").item()
        delta = delta * (alpha / rank if rank else 1)
    delta = delta.reshape(shape)
    dora = pick(key, 6, "dora")
    if dora > 1:
        return w + strength * delta, None
    flat = (w + delta).flatten(1) if dora else (w + delta).transpose(0, 1).flatten(1)
    norm = flat.norm(dim=1).reshape((-1, *[1] * (len(shape) - 1)) if dora else (1, -1, *[1] * (len(shape) - 2)))
    return w + strength * ((w + delta) * (f.add(key + ".dora_scale", dtype, *norm.shape) / norm) - w), None


# ---- names ------------------------------------------------------------------------------------------------------------------

def ldm_name(unet, name):
    """A UNet's layer as CompVis' code counts its blocks."""
    layers = unet.config.layers_per_block + 1
    inner = dict(norm1="in_layers.0", conv1="in_layers.2", time_emb_proj="emb_layers.1", norm2="out_layers.0", conv2="out_layers.3",
                 conv_shortcut="skip_connection")
    outer = dict(conv_in="input_blocks.0.0", conv_norm_out="out.0", conv_out="out.2")
    outer |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
              "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    if name in outer:
        return outer[name]
    part, *rest = name.split(".")
    if part == "mid_block":
        kind, k, tail = rest[0], int(rest[1]), ".".join(rest[2:])
        return f"middle_block.{1 if kind == 'attentions' else 2 * k}.{inner.get(tail, tail) if kind == 'resnets' else tail}"
    i, kind, k, tail = int(rest[0]), rest[1], int(rest[2]), ".".join(rest[3:])
    tail = inner.get(tail, tail) if kind == "resnets" else tail
    if part == "down_blocks":
        return f"input_blocks.{i * layers + layers}.0.op" if kind == "downsamplers" else \
            f"input_blocks.{1 + i * layers + k}.{int(kind == 'attentions')}.{tail}"
    if kind == "upsamplers":
        return f"output_blocks.{i * layers + layers - 1}.{2 if hasattr(unet.up_blocks[i], 'attentions') else 1}.{tail}"
    return f"output_blocks.{i * layers + k}.{int(kind == 'attentions')}.{tail}"


def bfl_layers(transformer):
    """Layers of Black Forest Labs' own code, and the ones of diffusers that they are made of."""
    for i in range(len(transformer.transformer_blocks)):
        b, t = f"double_blocks.{i}.", f"transformer_blocks.{i}."
        for stream, qkv, out, ff, norm in (("img", ("to_q", "to_k", "to_v"), "to_out.0", "ff", "norm1"),
                                           ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context", "norm1_context")):
            yield f"{b}{stream}_attn.qkv", [f"{t}attn.{x}" for x in qkv]
            yield f"{b}{stream}_attn.proj", [f"{t}attn.{out}"]
            yield f"{b}{stream}_mlp.0", [f"{t}{ff}.net.0.proj"]
            yield f"{b}{stream}_mlp.2", [f"{t}{ff}.net.2"]
            yield f"{b}{stream}_mod.lin", [f"{t}{norm}.linear"]
    for i in range(len(transformer.single_transformer_blocks)):
        b, t = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        yield b + "linear1", [t + x for x in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
        yield b + "linear2", [t + "proj_out"]
        yield b + "modulation.lin", [t + "norm.linear"]
    yield "img_in", ["x_embedder"]
    yield "txt_in", ["context_embedder"]
    yield "final_layer.linear", ["proj_out"]
    yield "final_layer.adaLN_modulation.1", ["norm_out.linear"]


# ---- cases ---------------------------------------------------------------------------------------------------------------------

def parts(pipe):
    return {n: getattr(pipe, n) for n in PACKAGES if getattr(pipe, n, None) is not None}


def set_layer(module, weight, bias):
    module.weight.data = weight.float().reshape(module.weight.shape)
    if bias is not None:
        module.bias.data = bias.float()


def by_modules(pipe, f, begin, name_of, some):
    """Adapters on layers under the names that `name_of` gives them."""
    for part, model in parts(pipe).items():
        if part not in begin:
            continue
        for name, m in model.named_modules():
            if getattr(m, "weight", None) is None or isinstance(m, torch.nn.Embedding) or pick(name, some, part + str(f.strength)):
                continue
            key = begin[part] + name_of(part, name)
            set_layer(m, *layer(f, key, m.weight.data, getattr(m, "bias", None), f.text if part.startswith("text") else f.strength))


def text_name(name):
    return name if name.startswith("text_") else "text_model." + name


def lycoris(pipe, f):
    begin = dict(unet="lora_unet_", text_encoder="lora_te_")
    by_modules(pipe, f, begin, lambda part, n: (n if part == "unet" else text_name(n)).replace(".", "_"), 3)


def kohya_ldm(pipe, f):
    begin = dict(unet="lora_unet_", text_encoder="lora_te1_", text_encoder_2="lora_te2_")
    by_modules(pipe, f, begin, lambda part, n: (ldm_name(pipe.unet, n) if part == "unet" else text_name(n)).replace(".", "_"), 4)


def bfl(pipe, f):
    modules = dict(pipe.transformer.named_modules())
    for name, names in bfl_layers(pipe.transformer):
        ms = [modules[n] for n in names]
        swap = (lambda x: torch.cat(x.chunk(2)[::-1])) if "adaLN" in name else (lambda x: x)
        w, b = layer(f, "diffusion_model." + name, swap(torch.cat([m.weight.data for m in ms])), swap(torch.cat([m.bias.data for m in ms])), f.strength)
        at = 0
        w, b = swap(w), None if b is None else swap(b)
        for m in ms:
            n = m.weight.shape[0]
            set_layer(m, w[at:at + n], None if b is None else b[at:at + n])
            at += n


def diffusers_fuses(pipe, f):
    with tempfile.TemporaryDirectory() as d:
        f.save(os.path.join(d, "x.safetensors"))
        pipe.load_lora_weights(d, weight_name="x.safetensors")
    for part in parts(pipe):
        if part in pipe._lora_loadable_modules:
            pipe.fuse_lora(components=[part], lora_scale=f.text if part.startswith("text") else f.strength)
    pipe.unload_lora_weights()


def peft(pipe, f, dora=False, some=3, texts=True):
    for part, model in parts(pipe).items():
        if part.startswith("text") and (not texts or part not in pipe._lora_loadable_modules):
            continue
        for name, m in model.named_modules():
            if not isinstance(m, (torch.nn.Linear, torch.nn.Conv2d)) or pick(name, some, part) or name == "proj_out":
                continue
            key, r, dtype = f"{part}.{name}", 1 + pick(name, 3, "rank"), ("F32", "F16", "BF16")[pick(name, 3, "type")]
            low_rank(f, key, tuple(m.weight.shape), r, dtype, (".lora_B.weight", ".lora_A.weight"))
            if dora:
                f.add(key + ".lora_magnitude_vector", "F32", m.weight.shape[0])
    diffusers_fuses(pipe, f)


def peft_dora(pipe, f):
    peft(pipe, f, dora=True, some=4, texts=False)


def old_diffusers(pipe, f):
    """Names from before PEFT: attention processors in the UNet, lora_linear_layer in the text encoder."""
    for name, m in pipe.unet.named_modules():
        head, _, last = name.rpartition(".attn1.")
        if last in ("to_q", "to_k", "to_v", "to_out.0"):
            low_rank(f, f"unet.{head}.attn1.processor.{last.split('.')[0]}_lora", tuple(m.weight.shape), 2, "F16", (".up.weight", ".down.weight"))
    for name, m in pipe.text_encoder.named_modules():
        last = name.rpartition(".")[2]
        if last in ("q_proj", "out_proj"):
            low_rank(f, f"text_encoder.{text_name(name).replace('q_proj', 'to_q').replace('out_proj', 'to_out')}_lora", tuple(m.weight.shape), 2, "F32",
                     (".up.weight", ".down.weight"))
        if last in ("fc1", "fc2"):
            low_rank(f, f"text_encoder.{text_name(name)}.lora_linear_layer", tuple(m.weight.shape), 1, "F32", (".up.weight", ".down.weight"))
    diffusers_fuses(pipe, f)


GAINS = [("*.alpha", 1.5), ("*dora_scale", 1.0), ("*_norm", 0.1), ("*.diff", 0.1), ("*.diff_b", 0.1), ("*lokr*", 0.5), ("*hada*", 0.6),
         ("*magnitude*", 1.2), ("*", 0.35)]
CASES = {
    "peft_sd15": (sd, "sd15", [(peft, File(GAINS, 0.8, 0.5))]),
    "old_sd2": (sd, "sd2", [(old_diffusers, File(GAINS, -0.7))]),
    "lycoris_sd15": (sd, "sd15", [(lycoris, File(GAINS, 1.0, 0.25)), (lycoris, File(GAINS, 0.6))]),
    "kohya_sdxl": (sd, "sdxl", [(kohya_ldm, File(GAINS, 0.75, 1.25))]),
    "peft_dora_flux": (flux, "a", [(peft_dora, File(GAINS, 0.9))]),
    "bfl_flux": (flux, "b", [(bfl, File(GAINS, 0.7))]),
}


def probe(name, x):
    x = x.double().flatten().numpy()
    rows = [hashweights.values(f"{name}#{i}", (1, x.size)).astype(np.float64).flatten() for i in range(2)]
    return torch.tensor([np.sqrt((x * x).sum())] + [(x * r).sum() for r in rows], dtype=torch.float64)


def write(name, family, base, adapters):
    folder = os.path.join(ROOT, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    case = family.CASES[base]
    pipe = family.build(case)
    before = {p: {k: v.clone() for k, v in m.state_dict().items()} for p, m in parts(pipe).items()}
    files = []
    for i, (make, f) in enumerate(adapters):
        make(pipe, f)
        files.append(dict(file=f"{i}.txt", strength=f.strength, text_strength=f.text, keys=len(f.tensors)))
        with open(os.path.join(folder, f"{i}.txt"), "w") as out:
            out.write(f.manifest())
    merged = {}
    for p, m in parts(pipe).items():
        for k, v in m.state_dict().items():
            if not torch.equal(v, before[p][k]):
                full = f"{PACKAGES[p]}.{text_name(k) if 'CLIP' in type(m).__name__ else k}"
                merged[full] = probe(full, v)
    save_file(merged, os.path.join(folder, "merged.safetensors"))
    pipe.set_progress_bar_config(disable=True)
    width, height, steps = case["size"][0], case["size"][1], 4
    guidance = dict(guidance_scale=4.0) if family is sd else dict(guidance_scale=3.5, max_sequence_length=case["text_length"])
    im = pipe("a red circle on a blue background", width=width, height=height, num_inference_steps=steps, **guidance,
              generator=torch.Generator("cpu").manual_seed(11)).images[0]
    a = np.asarray(im).astype(np.float64)
    print(f"{name}: {len(merged)} tensors changed, picture {a.mean():.1f} +- {a.std():.1f}, clipped {((a == 0) | (a == 255)).mean():.2f}")
    assert a.std() >= 25, "flat pictures prove nothing"
    im.save(os.path.join(folder, "picture.png"))
    with open(os.path.join(folder, "case.json"), "w") as out:
        json.dump(dict(family="sd" if family is sd else "flux", base=base, files=files, prompt="a red circle on a blue background", seed=11, steps=steps,
                       guidance_scale=guidance["guidance_scale"], width=width, height=height), out, indent=1)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    torch.set_num_threads(1)
    import transformers.integrations.peft as integration
    integration.check_peft_version = lambda **_: None  # a newer PEFT is asked for than what is used of it needs
    for name, (family, base, adapters) in CASES.items():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            write(name, family, base, adapters)
