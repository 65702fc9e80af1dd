# SPDX-License-Identifier: MIT
"""Checkpoints of one file: how the small checkpoints of tests/golden/{flux,sd,refiner,tasks} are written by the code these models were
published with, as rules that tests/support/single_case.c applies.

    python tests/reference/single.py    # rewrites tests/golden/single/

The names are those of the original code (CompVis/stable-diffusion, Stability-AI/generative-models, lllyasviel/ControlNet,
black-forest-labs/flux, mlfoundations/open_clip); each file so made is put through diffusers' own conversion (loaders/single_file_utils.py), which
must give back every tensor of the checkpoint folder, bit for bit.

A line is: OP NAME FOLDER/NAME ... ; OP is "=" (as it is), "cat" (one after another along the first dimension), "swap" (halves
exchanged), "t" (transposed), "1x1" (with two dimensions of one more). NAME ending in ".*" stands for .weight and .bias.
"""
import json
import os
import re

import torch
from diffusers import ControlNetModel
from diffusers.loaders import single_file_utils as sf

import hashweights

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden")


def folder_tensors(case, folder):
    """The checkpoint folder's tensors of one component, with numbers that tell them apart."""
    out = {}
    for line in open(os.path.join(GOLDEN, case, folder, "manifest.txt")):
        if line[0] not in "#@":
            name, _, dims = line.split()
            out[name] = torch.randn([int(d) for d in dims.split(",")] if dims != "-" else [])
    return out


def config(case, folder):
    return json.load(open(os.path.join(GOLDEN, case, folder, "config.json")))


# ---- original names ----------------------------------------------------------------------------------------------------

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0", "conv2": "out_layers.3",
          "conv_shortcut": "skip_connection"}
UNET = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2", "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}


def unet_rows(tensors, cfg, folder="unet"):
    n = len(cfg["block_out_channels"])
    per = [p + 1 for p in (cfg["layers_per_block"] if isinstance(cfg["layers_per_block"], list) else [cfg["layers_per_block"]] * n)]
    rows = []
    for name in tensors:
        module, end = name.rsplit(".", 1)
        m = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", module)
        mid = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", module)
        if m:
            way, i, kind, k, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
            mine = per[i] if way == "down" else per[n - 1 - i]
            at = 1 + sum(per[:i]) if way == "down" else sum(per[n - i:])
            row = "input_blocks" if way == "down" else "output_blocks"
            if kind == "resnets":
                new = f"{row}.{at + k}.0.{RESNET[rest]}"
            elif kind == "attentions":
                new = f"{row}.{at + k}.1.{rest}"
            elif kind == "downsamplers":
                new = f"{row}.{at + mine - 1}.0.op"
            else:
                attends = any(t.startswith(f"up_blocks.{i}.attentions.") for t in tensors)
                new = f"{row}.{at + mine - 1}.{2 if attends else 1}.conv"
        elif mid:
            k = int(mid[2])
            new = f"middle_block.{2 * k}.{RESNET[mid[3]]}" if mid[1] == "resnets" else f"middle_block.1.{mid[3]}"
        else:
            new = UNET.get(module, module)
        rows.append(("=", f"{new}.{end}", [f"{folder}/{name}"]))
    return rows


def vae_rows(tensors, cfg, folder="vae"):
    levels = len(cfg["block_out_channels"])
    rows = []
    for name in tensors:
        new = re.sub(r"decoder\.up_blocks\.(\d+)\.", lambda m: f"decoder.up.{levels - 1 - int(m[1])}.", name)
        new = re.sub(r"encoder\.down_blocks\.(\d+)\.", r"encoder.down.\1.", new)
        new = re.sub(r"mid_block\.resnets\.(\d)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", new)
        for a, b in [(".resnets.", ".block."), ("conv_shortcut", "nin_shortcut"), ("downsamplers.0.", "downsample."), ("upsamplers.0.", "upsample."),
                     ("mid_block.attentions.0.", "mid.attn_1."), ("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"),
                     ("to_out.0", "proj_out"), ("conv_norm_out", "norm_out")]:
            new = new.replace(a, b)
        attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", new)
        rows.append(("1x1" if attention else "=", new, [f"{folder}/{name}"]))
    return rows


def hf_clip_rows(tensors, folder):
    return [("=", name if name.startswith(("text_model.", "text_projection")) else "text_model." + name, [f"{folder}/{name}"]) for name in tensors]


def open_clip_rows(tensors, folder, more_layers=0):
    rows, layers = [], 0
    for name in tensors:
        new = name.removeprefix("text_model.")
        m = re.match(r"encoder\.layers\.(\d+)\.(.*)", new)
        layers = max(layers, int(m[1]) + 1) if m else layers
        if m and m[2].startswith("self_attn.q_proj"):
            end = m[2].rsplit(".", 1)[1]
            rows.append(("cat", f"transformer.resblocks.{m[1]}.attn.in_proj_{end}",
                         [f"{folder}/{name}", f"{folder}/{name.replace('q_proj', 'k_proj')}", f"{folder}/{name.replace('q_proj', 'v_proj')}"]))
        elif m and not re.match(r"self_attn\.[kv]_proj", m[2]):
            rest = m[2]
            for a, b in [("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn", "attn"), ("fc1", "c_fc"), ("fc2", "c_proj")]:
                rest = rest.replace(a, b)
            rows.append(("=", f"transformer.resblocks.{m[1]}.{rest}", [f"{folder}/{name}"]))
        elif not m:
            op = "t" if new == "text_projection.weight" else "="
            new = {"embeddings.token_embedding.weight": "token_embedding.weight", "embeddings.position_embedding.weight": "positional_embedding",
                   "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
                   "text_projection.weight": "text_projection"}[new]
            rows.append((op, new, [f"{folder}/{name}"]))
    last = [r for r in rows if r[1].startswith(f"transformer.resblocks.{layers - 1}.")]
    for i in range(more_layers):  # a last layer that is there and not used
        rows += [(op, new.replace(f"resblocks.{layers - 1}.", f"resblocks.{layers + i}."), old) for op, new, old in last]
    return rows


FLUX = [("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"), ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"), ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"), ("context_embedder", "txt_in"), ("x_embedder", "img_in"),
        ("norm1_context.linear", "txt_mod.lin"), ("norm1.linear", "img_mod.lin"), ("attn.norm_added_q.weight", "txt_attn.norm.query_norm.scale"),
        ("attn.norm_added_k.weight", "txt_attn.norm.key_norm.scale"), ("attn.to_add_out", "txt_attn.proj"), ("attn.to_out.0", "img_attn.proj"),
        ("ff_context.net.0.proj", "txt_mlp.0"), ("ff_context.net.2", "txt_mlp.2"), ("ff.net.0.proj", "img_mlp.0"), ("ff.net.2", "img_mlp.2")]


def flux_rows(tensors, folder="transformer"):
    rows = []
    for name in tensors:
        end = name.rsplit(".", 1)[1]
        at = lambda *names: [f"{folder}/{name.replace('to_q', n).replace('add_q_proj', n)}" for n in names]
        single = re.match(r"single_transformer_blocks\.(\d+)\.(.*)", name)
        double = re.match(r"transformer_blocks\.(\d+)\.(.*)", name)
        if single:
            b, rest = f"single_blocks.{single[1]}.", single[2]
            if rest.startswith("attn.to_q."):
                mlp = f"{folder}/single_transformer_blocks.{single[1]}.proj_mlp.{end}"
                rows.append(("cat", f"{b}linear1.{end}", at("to_q", "to_k", "to_v") + [mlp]))
            for a, new in [("norm.linear", "modulation.lin"), ("attn.norm_q.weight", "norm.query_norm.scale"),
                           ("attn.norm_k.weight", "norm.key_norm.scale"), ("proj_out", "linear2")]:
                if rest.startswith(a):
                    rows.append(("=", b + rest.replace(a, new), [f"{folder}/{name}"]))
        elif double and re.match(r"attn\.(to|add)_q", double[2]):
            if "add_q" in name:
                rows.append(("cat", f"double_blocks.{double[1]}.txt_attn.qkv.{end}", at("add_q_proj", "add_k_proj", "add_v_proj")))
            else:
                rows.append(("cat", f"double_blocks.{double[1]}.img_attn.qkv.{end}", at("to_q", "to_k", "to_v")))
        elif double and re.match(r"attn\.(to|add)_[kv]", double[2]):
            continue
        elif double:
            rest = double[2].replace("attn.norm_q.weight", "img_attn.norm.query_norm.scale").replace("attn.norm_k.weight", "img_attn.norm.key_norm.scale")
            for a, b in FLUX:
                if rest.startswith(a):
                    rest = b + rest[len(a):]
                    break
            rows.append(("=", f"double_blocks.{double[1]}.{rest}", [f"{folder}/{name}"]))
        elif name.startswith("norm_out.linear"):
            rows.append(("swap", f"final_layer.adaLN_modulation.1.{end}", [f"{folder}/{name}"]))
        elif name.startswith("proj_out"):
            rows.append(("=", f"final_layer.linear.{end}", [f"{folder}/{name}"]))
        else:
            new = next(b + name[len(a):] for a, b in FLUX if name.startswith(a))
            rows.append(("=", new, [f"{folder}/{name}"]))
    return rows


MMDIT = [("pos_embed.pos_embed", "pos_embed"), ("pos_embed.proj", "x_embedder.proj"), ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
         ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"), ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
         ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"), ("context_embedder", "context_embedder"), ("proj_out", "final_layer.linear"),
         ("norm_out.linear", "final_layer.adaLN_modulation.1")]
JOINT = [("attn.norm_added_q", "context_block.attn.ln_q"), ("attn.norm_added_k", "context_block.attn.ln_k"), ("attn.norm_q", "x_block.attn.ln_q"),
         ("attn.norm_k", "x_block.attn.ln_k"), ("attn2.norm_q", "x_block.attn2.ln_q"), ("attn2.norm_k", "x_block.attn2.ln_k"),
         ("attn.to_out.0", "x_block.attn.proj"), ("attn.to_add_out", "context_block.attn.proj"), ("attn2.to_out.0", "x_block.attn2.proj"),
         ("norm1_context.linear", "context_block.adaLN_modulation.1"), ("norm1.linear", "x_block.adaLN_modulation.1"),
         ("ff_context.net.0.proj", "context_block.mlp.fc1"), ("ff_context.net.2", "context_block.mlp.fc2"), ("ff.net.0.proj", "x_block.mlp.fc1"),
         ("ff.net.2", "x_block.mlp.fc2")]


def mmdit_rows(tensors, cfg, folder="transformer"):
    rows = []
    for name in tensors:
        m = re.match(r"transformer_blocks\.(\d+)\.(.*)", name)
        end = name.rsplit(".", 1)[1]
        if m and re.match(r"attn2?\.(to|add)_[kv]", m[2]):
            continue
        if m and re.match(r"attn2?\.(to_q|add_q_proj)\.", m[2]):
            stream = "context_block.attn" if "add_q" in name else "x_block." + m[2].split(".")[0]
            names = [name.replace("to_q", f"to_{k}").replace("add_q_proj", f"add_{k}_proj") for k in "qkv"]
            rows.append(("cat", f"joint_blocks.{m[1]}.{stream}.qkv.{end}", [f"{folder}/{n}" for n in names]))
            continue
        rest, table = (m[2], JOINT) if m else (name, MMDIT)
        new = next(b + rest[len(a):] for a, b in table if rest == a or rest.startswith(a + "."))
        last = m and int(m[1]) == cfg["num_layers"] - 1 and rest.startswith("norm1_context")
        rows.append(("swap" if last or rest.startswith("norm_out") else "=", f"joint_blocks.{m[1]}.{new}" if m else new, [f"{folder}/{name}"]))
    return rows


# ---- files -------------------------------------------------------------------------------------------------------------

def apply(rows, folders):
    """The file's tensors."""
    out = {}
    for op, new, old in rows:
        t = [folders[o.split("/", 1)[0]][o.split("/", 1)[1]] for o in old]
        out[new] = {"=": lambda: t[0], "cat": lambda: torch.cat(t), "swap": lambda: torch.cat(t[0].chunk(2)[::-1]), "t": lambda: t[0].T.contiguous(),
                    "1x1": lambda: t[0][:, :, None, None]}[op]()
    return out


def prefixed(prefix, rows):
    return [(op, prefix + new, old) for op, new, old in rows]


def same(got, want, what):
    want = {k.removeprefix("text_model."): v for k, v in want.items()}
    got = {k.removeprefix("text_model."): v for k, v in got.items() if v is not None}
    missing, other = want.keys() - got.keys(), [k for k in want if k in got and not torch.equal(got[k].reshape(want[k].shape), want[k])]
    assert not missing and not other, (what, sorted(missing)[:5], other[:5])
    print(f"  {what}: {len(want)} tensors come back")


class TextModel:
    """What convert_open_clip_checkpoint asks a model for."""
    def __init__(self, cfg):
        self.config = type("Config", (), cfg)


def check(rows, folders, configs, open_clip):
    file = apply(rows, folders)
    whole = "unet" in folders and not isinstance(configs["unet"]["layers_per_block"], list) and not configs["unet"]["time_cond_proj_dim"]
    if whole:  # diffusers knows no models cut or distilled in this form
        same(sf.convert_ldm_unet_checkpoint(dict(file), configs["unet"]), folders["unet"], "unet")
    if "transformer" in folders and "norm_out.linear.weight" in folders["transformer"] and "pos_embed.proj.weight" in folders["transformer"]:
        alone = {k: v for k, v in file.items() if k.startswith("model.diffusion_model.")}
        same(sf.convert_sd3_transformer_checkpoint_to_diffusers(alone), folders["transformer"], "transformer")
    elif "transformer" in folders:
        keep, sf.torch.split = torch.split, lambda t, sizes, dim=0: keep(t, (lambda w: (w, w, w, 4 * w))(t.shape[0] // 7), dim)  # it knows one width
        alone = {k: v for k, v in file.items() if not k.startswith(("vae.", "text_encoders."))}
        same(sf.convert_flux_transformer_checkpoint_to_diffusers(alone), folders["transformer"], "transformer")
        sf.torch.split = keep
    same(sf.convert_ldm_vae_checkpoint(dict(file), configs["vae"]), folders["vae"], "vae")
    for folder, prefix in open_clip.items():
        cfg = dict(configs[folder])
        if prefix + "text_projection" in file and cfg["hidden_size"] != file[prefix + "text_projection"].shape[0]:
            raise AssertionError("the projection is transposed")
        got = sf.convert_open_clip_checkpoint(TextModel(cfg), dict(file), prefix)
        want = dict(folders[folder])
        got = {k: v for k, v in got.items() if k.removeprefix("text_model.") in {w.removeprefix("text_model.") for w in want}}
        same(got, want, folder)


def write(name, rows):
    lines, done = [], set()
    by_new = {new: (op, old) for op, new, old in rows}
    for op, new, old in rows:
        if new in done:
            continue
        stem = new.removesuffix(".weight")
        other = by_new.get(stem + ".bias") if stem != new else None
        if other and other[0] == op and [o.removesuffix(".bias") for o in other[1]] == [o.removesuffix(".weight") for o in old]:
            lines.append(" ".join([op, stem + ".*"] + [o.removesuffix(".weight") + ".*" for o in old]))
            done |= {new, stem + ".bias"}
        else:
            lines.append(" ".join([op, new] + old))
            done.add(new)
    os.makedirs(os.path.join(GOLDEN, "single"), exist_ok=True)
    with open(os.path.join(GOLDEN, "single", name + ".txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


def load(case, parts):
    return {p: folder_tensors(case, p) for p in parts}, {p: config(case, p) for p in parts}


def sd(case, clip):
    folders, configs = load(f"sd/{case}", ["unet", "vae", "text_encoder"])
    rows = prefixed("model.diffusion_model.", unet_rows(folders["unet"], configs["unet"])) + prefixed("first_stage_model.", vae_rows(folders["vae"], configs["vae"]))
    if clip == "hf":
        rows += prefixed("cond_stage_model.transformer.", hf_clip_rows(folders["text_encoder"], "text_encoder"))
        check(rows, folders, configs, {})
        same(sf.convert_ldm_clip_checkpoint(apply(rows, folders)), folders["text_encoder"], "text_encoder")
    else:
        rows += prefixed("cond_stage_model.model.", open_clip_rows(folders["text_encoder"], "text_encoder", more_layers=1))
        check(rows, folders, configs, {"text_encoder": "cond_stage_model.model."})
    write(case, rows)


def sdxl(case="sdxl"):
    folders, configs = load(f"sd/{case}", ["unet", "vae", "text_encoder", "text_encoder_2"])
    rows = prefixed("model.diffusion_model.", unet_rows(folders["unet"], configs["unet"])) + prefixed("first_stage_model.", vae_rows(folders["vae"], configs["vae"]))
    rows += prefixed("conditioner.embedders.0.transformer.", hf_clip_rows(folders["text_encoder"], "text_encoder"))
    rows += prefixed("conditioner.embedders.1.model.", open_clip_rows(folders["text_encoder_2"], "text_encoder_2"))
    check(rows, folders, configs, {"text_encoder_2": "conditioner.embedders.1.model."})
    same(sf.convert_ldm_clip_checkpoint(apply(rows, folders)), folders["text_encoder"], "text_encoder")
    write(case, rows)


def refiner():
    folders, configs = load("refiner/refiner", ["unet", "vae", "text_encoder_2"])
    rows = prefixed("model.diffusion_model.", unet_rows(folders["unet"], configs["unet"])) + prefixed("first_stage_model.", vae_rows(folders["vae"], configs["vae"]))
    rows += prefixed("conditioner.embedders.0.model.", open_clip_rows(folders["text_encoder_2"], "text_encoder_2"))
    check(rows, folders, configs, {"text_encoder_2": "conditioner.embedders.0.model."})
    write("refiner", rows)


def cldm_rows(tensors, cfg, folder):
    """lllyasviel/ControlNet, cldm/cldm.py: ControlNet."""
    steps = len(cfg["conditioning_embedding_out_channels"])
    hints = {"conv_in": 0, "conv_out": 2 * (2 * steps - 1)} | {f"blocks.{i}": 2 * (i + 1) for i in range(2 * (steps - 1))}
    rows = []
    for name in tensors:
        module, end = name.rsplit(".", 1)
        down = re.match(r"controlnet_down_blocks\.(\d+)$", module)
        if module.startswith("controlnet_cond_embedding."):
            rows.append(("=", f"input_hint_block.{hints[module.split('.', 1)[1]]}.{end}", [f"{folder}/{name}"]))
        elif down:
            rows.append(("=", f"zero_convs.{down[1]}.0.{end}", [f"{folder}/{name}"]))
        elif module == "controlnet_mid_block":
            rows.append(("=", f"middle_block_out.0.{end}", [f"{folder}/{name}"]))
        else:
            rows += unet_rows({name: tensors[name]}, cfg, folder)
    return rows


# Control nets of the published rules of heads, groups and steps, whose configurations shapes tell.
NETS = {"net15": dict(block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), layers_per_block=1, cross_attention_dim=32),
        "netxl": dict(block_out_channels=(32, 64, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), layers_per_block=1,
                      cross_attention_dim=56, attention_head_dim=(1, 1, 1), transformer_layers_per_block=(1, 1, 2), use_linear_projection=True,
                      addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=32 + 6 * 256),
        "netbare": dict(block_out_channels=(32, 64), down_block_types=("DownBlock2D", "DownBlock2D"), layers_per_block=1, cross_attention_dim=2048,
                        mid_block_type="UNetMidBlock2D", addition_embed_type="text_time", addition_time_embed_dim=256,
                        projection_class_embeddings_input_dim=32 + 6 * 256)}


def control(name, case, own):
    if own:
        m = ControlNetModel(**own)
        folder = os.path.join(GOLDEN, case)
        m.save_config(folder)
        hashweights.write_manifest(os.path.join(folder, "manifest.txt"), m)
    tensors, cfg = folder_tensors(case, "."), config(case, ".")
    rows = cldm_rows(tensors, cfg, name)
    if own:  # diffusers knows four steps, and leaves out what a net of XL has beside
        want = {k: v for k, v in tensors.items() if not k.startswith("add_embedding.")}
        for prefix in ["", "control_model."]:
            same(sf.convert_controlnet_checkpoint(apply(prefixed(prefix, rows), {name: tensors}), cfg), want, name)
    write("control_" + name, prefixed("control_model.", rows))


def flux(case):
    folders, configs = load(f"flux/{case}", ["transformer", "vae", "text_encoder", "text_encoder_2"])
    rows = prefixed("model.diffusion_model.", flux_rows(folders["transformer"])) + prefixed("vae.", vae_rows(folders["vae"], configs["vae"]))
    rows += prefixed("text_encoders.clip_l.transformer.", hf_clip_rows(folders["text_encoder"], "text_encoder"))
    rows += prefixed("text_encoders.t5xxl.transformer.", [("=", n, ["text_encoder_2/" + n]) for n in folders["text_encoder_2"]])
    check(rows, folders, configs, {})
    write("flux_" + case, rows)


def sd3(case):
    folders, configs = load(f"sd3/{case}", ["transformer", "vae", "text_encoder", "text_encoder_2"])
    rows = prefixed("model.diffusion_model.", mmdit_rows(folders["transformer"], configs["transformer"]))
    rows += prefixed("first_stage_model.", vae_rows(folders["vae"], configs["vae"]))
    for folder, name in [("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")]:
        rows += prefixed(f"text_encoders.{name}.transformer.", hf_clip_rows(folders[folder], folder))
    check(rows, folders, configs, {})
    if os.path.exists(os.path.join(GOLDEN, "sd3", case, "text_encoder_3")):
        rows += prefixed("text_encoders.t5xxl.transformer.", [("=", n, ["text_encoder_3/" + n]) for n in folder_tensors(f"sd3/{case}", "text_encoder_3")])
    write("sd3_" + case, rows)


if __name__ == "__main__":
    torch.manual_seed(0)
    for case, clip in [("sd15", "hf"), ("sd2", "open"), ("lcm", "hf")]:
        print(case)
        sd(case, clip)
    for case in ["sdxl", "cut"]:
        print(case)
        sdxl(case)
    print("refiner")
    refiner()
    for case in ["sd15", "sdxl"]:
        control(f"net-{case}", f"tasks/controlnet-{case}", None)
    for name, own in NETS.items():
        print(name)
        control(name, f"single/{name}", own)
    for case in "ab":
        print("flux", case)
        flux(case)
    for case in ["medium3", "medium35"]:
        print("sd3", case)
        sd3(case)
