# SPDX-License-Identifier: MIT
"""Golden pictures of tasks beyond text to picture: image to image, inpainting, ControlNet, prompts with weights, through
diffusers' pipelines; and edges as OpenCV finds them.

    python tests/reference/tasks.py            # rewrites tests/golden/tasks/
    python tests/reference/tasks.py --save DIR # also writes the inpainting checkpoint as a folder

pictures.json lists what to run: `case` is a folder of tests/golden/FAMILY, or of tests/golden/tasks where that is the family
(a checkpoint of its own, see sd.py), the rest are the settings of a run; `files` are the pictures it must come to. The
pictures given to runs are drawn here.
"""
import json
import os
import shutil
import sys

import cv2
import numpy as np
import torch
from diffusers import (ControlNetModel, FluxImg2ImgPipeline, FluxInpaintPipeline, FluxPipeline, StableDiffusion3Img2ImgPipeline,
                       StableDiffusion3InpaintPipeline, StableDiffusion3Pipeline, StableDiffusionImg2ImgPipeline,
                       StableDiffusionControlNetInpaintPipeline, StableDiffusionControlNetPipeline, StableDiffusionInpaintPipeline,
                       StableDiffusionPipeline, StableDiffusionXLControlNetPipeline,
                       StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline)
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

import flux
import hashweights
import prompts
import sd
import sd3

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "tasks")

INPAINT = dict(sd.CASES["sd15"], unet=dict(sd.CASES["sd15"]["unet"], in_channels=9), pictures=[], size=(32, 32))

# the inpainting pipeline takes transformers of 16 channels only
MEDIUM = sd3.CASES["medium3"]
SD3_16 = dict(MEDIUM, transformer=dict(MEDIUM["transformer"], in_channels=16, out_channels=16), vae=dict(MEDIUM["vae"], latent_channels=16), pictures=[])

LONG = ", ".join(["a large blue triangle left of a small yellow star", "three white rings above two green squares", "one orange cross"] * 4)

# family, case, task, settings of the run (those not for diffusers are taken out below)
RUNS = [
    ("sd", "sd15", "image", dict(prompt="a red circle", negative_prompt="a star", image="scene.png", strength=0.7, seed=3, steps=7, guidance_scale=6.0)),
    ("sd", "sd15", "image", dict(prompt="two green squares", image="scene.png", strength=0.55, seed=4, steps=5, guidance_scale=1.0, num_images=2)),
    ("sd", "sd2", "mask", dict(prompt="a big blue triangle", negative_prompt="red", image="scene.png", mask="mask.png", strength=0.8, seed=5, steps=6,
                               guidance_scale=4.0, width=40, height=24)),
    ("tasks", "inpaint", "mask", dict(prompt="a red circle", image="scene.png", mask="mask.png", seed=6, steps=5, guidance_scale=5.0, width=48, height=32)),
    ("tasks", "inpaint", "mask", dict(prompt="a yellow star", negative_prompt="", image="scene.png", mask="mask.png", strength=0.6, seed=7, steps=5,
                                      guidance_scale=7.5, width=32, height=40)),
    ("sd", "sdxl", "image", dict(prompt="a purple diamond", image="scene.png", strength=0.5, seed=8, steps=6, guidance_scale=5.0)),
    ("sd", "sdxl", "mask", dict(prompt="a green circle", image="scene.png", mask="mask.png", strength=0.9999, seed=9, steps=5, guidance_scale=6.0,
                                width=48, height=32, num_images=2)),
    ("flux", "b", "image", dict(prompt="a blue square", image="scene.png", strength=0.6, seed=10, steps=5, guidance_scale=3.5, width=32, height=48)),
    ("flux", "c", "mask", dict(prompt="a red circle", image="scene.png", mask="mask.png", strength=0.85, seed=11, steps=4, guidance_scale=2.0,
                               width=48, height=32)),
    ("sd3", "medium3", "image", dict(prompt="a blue square", negative_prompt="red", image="scene.png", strength=0.7, seed=12, steps=5, guidance_scale=4.0,
                                     width=48, height=32)),
    ("sd", "sd15", "text", dict(prompt="a (red:1.4) circle on a [blue] ((background))", negative_prompt="(a star:0.6", seed=14, steps=5, guidance_scale=5.0,
                                width=32, height=32)),
    ("sd", "sd15", "text", dict(prompt=LONG + " (two \\(green\\) squares:1.3)", negative_prompt="a star", seed=15, steps=4, guidance_scale=4.0, width=32,
                                height=24)),
    ("sd", "sdxl", "text", dict(prompt="[" + LONG + "] (a purple diamond)", seed=16, steps=4, guidance_scale=5.0, width=32, height=32)),
    ("sd", "sdxl", "text", dict(prompt="a green circle", negative_prompt=LONG, seed=17, steps=4, guidance_scale=5.0, width=24, height=32)),
    ("sd", "sd2", "text", dict(prompt="three white rings", negative_prompt="red", clip_skip=2, seed=18, steps=4, guidance_scale=4.0, width=32, height=32)),
    ("sd", "sdxl", "text", dict(prompt="a green circle", negative_prompt="red", clip_skip=1, seed=19, steps=4, guidance_scale=5.0, width=32, height=32)),
]
# ControlNets: a base among sd.py's cases, what it does not take over from there
NETS = {"sd15": dict(conditioning_embedding_out_channels=(8, 16)),
        "sdxl": dict(conditioning_embedding_out_channels=(8, 16, 16), controlnet_conditioning_channel_order="bgr")}
NET_GAINS = [("controlnet_cond_embedding.conv_out.weight", 3.0), ("controlnet_down_blocks*", 0.7), ("*", 1.2)]
RUNS += [
    ("sd", "sd15", "control", dict(prompt="a red circle", negative_prompt="a star", control_image="scene.png", control_strength=0.8, seed=22, steps=5,
                                   guidance_scale=5.0)),
    ("sd", "sdxl", "control", dict(prompt="two green squares", control_image="scene.png", control_start=0.2, control_end=0.7, seed=23, steps=6,
                                   guidance_scale=4.0, width=32, height=32)),
    ("sd", "sd15", "control_mask", dict(prompt="a red circle", image="scene.png", mask="mask.png", control_image="scene.png", control_strength=1.0, strength=0.8, seed=24, steps=5,
                                        guidance_scale=1.0, width=48, height=32)),
]
RUNS += [
    ("tasks", "sd3-16", "image", dict(prompt="a blue square", image="scene.png", strength=0.5, seed=26, steps=6, guidance_scale=5.0, width=32, height=48, num_images=2)),
    ("tasks", "sd3-16", "mask", dict(prompt="a red circle", negative_prompt="a star", image="scene.png", mask="mask.png", strength=0.8, seed=27, steps=6,
                                     guidance_scale=4.0, width=48, height=32)),
    ("tasks", "sd3-16", "mask", dict(prompt="a green star", image="scene.png", mask="mask.png", strength=0.6, seed=28, steps=5, guidance_scale=1.0,
                                     width=32, height=32, num_images=2)),
    ("sd3", "medium3", "text", dict(prompt="a (red:1.5) circle on a [blue] ((background))", negative_prompt="(a star:0.6", seed=29, steps=5, guidance_scale=5.0,
                                    width=32, height=32)),
    ("sd3", "medium35", "text", dict(prompt="(" + LONG + ":1.4)", negative_prompt="\\(red\\)", seed=30, steps=4, guidance_scale=4.0, width=48, height=32)),
    ("flux", "b", "text", dict(prompt="a (big:1.6) blue [triangle] (to the \\(left\\))", seed=31, steps=4, guidance_scale=3.5, width=32, height=48)),
    ("flux", "c", "text", dict(prompt="a purple (diamond), \\(large) [", seed=32, steps=4, guidance_scale=3.5, width=48, height=48)),
    ("flux", "c", "text", dict(prompt="(a purple diamond:0.5) " + LONG, seed=33, steps=3, guidance_scale=3.5, width=48, height=32)),
]
CLASSES = {"sd": dict(control=StableDiffusionControlNetPipeline, control_mask=StableDiffusionControlNetInpaintPipeline, text=StableDiffusionPipeline, image=StableDiffusionImg2ImgPipeline, mask=StableDiffusionInpaintPipeline),
           "sdxl": dict(control=StableDiffusionXLControlNetPipeline, text=StableDiffusionXLPipeline, image=StableDiffusionXLImg2ImgPipeline, mask=StableDiffusionXLInpaintPipeline),
           "sd3": dict(text=StableDiffusion3Pipeline, image=StableDiffusion3Img2ImgPipeline, mask=StableDiffusion3InpaintPipeline),
           "flux": dict(text=FluxPipeline, image=FluxImg2ImgPipeline, mask=FluxInpaintPipeline)}


def draw():
    """Two pictures of one size that no model has: what is given, and which part of it to paint."""
    y, x = np.mgrid[0:40, 0:52]
    a = np.stack([127 + 120 * np.sin(x / 7), 127 + 120 * np.cos(y / 5), 3 * x + 2 * y], -1)
    scene = Image.fromarray(a.clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(scene).ellipse([8, 6, 30, 28], fill=(230, 40, 30))
    mask = Image.new("L", scene.size, 0)
    ImageDraw.Draw(mask).rectangle([20, 10, 45, 34], fill=255)
    ImageDraw.Draw(mask).ellipse([2, 20, 18, 38], fill=140)
    scene.save(os.path.join(ROOT, "scene.png"))
    mask.save(os.path.join(ROOT, "mask.png"))


def write_phrases():
    """What brackets come to, for texts of their characters in any order."""
    rng = np.random.default_rng(21)
    pieces = ["(", ")", "[", "]", ":1.2)", ": 0.5 )", ":-1)", ":)", ":", "\\(", "\\)", "\\[", "\\\\", " ", "red", "a star", ", ", "1.5", "\u00e9"]
    texts = ["", "a", "((a))", "(a (b:0.5) c:2)", "[a [b]", "a)", "a]", "(a]", "[a)", "(:1.2)", "()", "a (b", "a:1.2)"]
    texts += ["".join(rng.choice(pieces, rng.integers(1, 14))) for _ in range(120)]
    with open(os.path.join(ROOT, "phrases.json"), "w") as f:
        json.dump([[t, prompts.phrases(t)] for t in texts], f)


def net(case):
    base = sd.CASES[case]
    keys = ("block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim", "norm_num_groups", "down_block_types",
            "use_linear_projection", "transformer_layers_per_block", "addition_embed_type", "addition_time_embed_dim",
            "projection_class_embeddings_input_dim")
    m = ControlNetModel(**{k: base["unet"][k] for k in keys if k in base["unet"]}, **NETS[case])
    m.eval().requires_grad_(False)
    hashweights.fill(m, NET_GAINS)
    return m.to(sd.TYPES[base["dtype"]]).to(torch.float32)


def write_net(case):
    """A ControlNet's folder, with manifest.txt where its weights would be, and inputs and outputs of its package."""
    folder = os.path.join(ROOT, "controlnet-" + case)
    m = net(case)
    m.save_config(folder)
    hashweights.write_manifest(os.path.join(folder, "manifest.txt"), m, sd.CASES[case]["dtype"], NET_GAINS)
    w, h = sd.CASES[case]["size"]
    u, factor = sd.CASES[case]["unet"], 2 ** (len(NETS[case]["conditioning_embedding_out_channels"]) - 1)
    rand = lambda name, *shape: torch.from_numpy(hashweights.values(name, shape, [("*", shape[-1] ** 0.5)]))
    args = dict(sample=rand("sample", 1, 4, h // factor, w // factor), timestep=torch.tensor([731.0]),
                encoder_hidden_states=rand("encoder", 1, 77, u["cross_attention_dim"]), controlnet_cond=rand("cond", 1, 3, h, w))
    added = dict(text_embeds=rand("pooled", 1, 24), time_ids=torch.tensor([[float(h), w, 0, 0, h, w]])) if case == "sdxl" else {}
    down, mid = m(**args, added_cond_kwargs=added or None, return_dict=False)
    io = {f"ControlNet.down_block_res_samples_{i}": v for i, v in enumerate(down)} | {"ControlNet.mid_block_res_sample": mid}
    io |= {"ControlNet." + k: v for k, v in (args | added).items()}
    save_file({k: v.clone().contiguous() for k, v in io.items()}, os.path.join(folder, "io.safetensors"))
    with open(os.path.join(folder, "pictures.json"), "w") as f:
        json.dump(dict(text_length=77, width=w, height=h, pictures=[]), f)


def write_edges():
    """cv2.Canny on the scene, on a gray picture and on noise, at several thresholds."""
    rng = np.random.default_rng(25)
    scene = np.array(Image.open(os.path.join(ROOT, "scene.png")))
    noise = Image.fromarray(rng.integers(0, 256, (37, 45, 3), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    pictures = {"scene": scene, "gray": np.array(Image.fromarray(scene).convert("L"))[..., None], "noise": np.array(noise), "dot": scene[:1, :1]}
    out = {}
    for name, a in pictures.items():
        out[name] = torch.from_numpy(a)
        for low, high in [(100, 200), (30, 60), (250, 120), (0, 0)]:
            out[f"{name}.{low}.{high}"] = torch.from_numpy(cv2.Canny(np.ascontiguousarray(a), low, high))
    save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(ROOT, "edges.safetensors"))


def pipeline(family, case, task):
    if family == "flux":
        pipe = flux.build(flux.CASES[case])
        return CLASSES["flux"][task](**{k: v for k, v in pipe.components.items() if k not in ("image_encoder", "feature_extractor")})
    if family == "sd3" or case == "sd3-16":
        pipe = sd3.build(SD3_16 if case == "sd3-16" else sd3.CASES[case])
        return CLASSES["sd3"][task](**{k: v for k, v in pipe.components.items() if k not in ("image_encoder", "feature_extractor")})
    extra = {"controlnet": net(case)} if task.startswith("control") else {}
    pipe = sd.build(INPAINT if family == "tasks" else sd.CASES[case])
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    if case == "sdxl":
        return CLASSES["sdxl"][task](**{**pipe.components, "scheduler": scheduler, **extra}, add_watermarker=False)
    return CLASSES["sd"][task](**{**pipe.components, "scheduler": scheduler, **extra}, requires_safety_checker=False)


def run(index, family, case, task, settings):
    s = dict(settings)
    image = Image.open(os.path.join(ROOT, s.pop("image"))) if "image" in s else None
    control = Image.open(os.path.join(ROOT, s.pop("control_image"))) if "control_image" in s else None
    args = dict(num_inference_steps=s.pop("steps"), generator=torch.Generator("cpu").manual_seed(s.pop("seed")),
                num_images_per_prompt=s.pop("num_images", 1))
    if "mask" in s:
        args["mask_image"] = Image.open(os.path.join(ROOT, s.pop("mask")))
    elif image and "width" not in s:  # these take the picture's own size, cut to a multiple of eight
        image = image.resize((image.width // 8 * 8, image.height // 8 * 8), Image.LANCZOS)
    text = flux.CASES[case]["text_length"] if family == "flux" else SD3_16["text"] if case == "sd3-16" else sd3.CASES[case]["text"] if family == "sd3" else 0
    if text:
        args["max_sequence_length"] = text
    pipe = pipeline(family, case, task)
    pipe.set_progress_bar_config(disable=True)
    if image:
        args["image"] = image
    if control:
        if "width" not in s:
            control = control.resize((control.width // 8 * 8, control.height // 8 * 8), Image.LANCZOS)
        args["control_image" if image else "image"] = control
        args |= {to: s.pop(key) for key, to in (("control_strength", "controlnet_conditioning_scale"), ("control_start", "control_guidance_start"),
                                                ("control_end", "control_guidance_end")) if key in s}
    if task == "text" and family == "flux":
        args |= prompts.embeds_flux(pipe, s.pop("prompt"), text)
    elif task == "text" and family == "sd3":
        args |= prompts.embeds_sd3(pipe, s.pop("prompt"), s.pop("negative_prompt", None), text)
    elif task == "text" and (case != "sdxl" or "clip_skip" not in s):  # diffusers knows no weights, and its clip_skip needs transformers 4
        args |= prompts.embeds(pipe, s.pop("prompt"), s.pop("negative_prompt", None), s.pop("clip_skip", 0))
    files, late = [], isinstance(pipe, StableDiffusion3InpaintPipeline)
    images = pipe(**args, **s, **(dict(output_type="latent") if late else {})).images
    if late:  # diffusers 0.42 decodes here without the VAE's shift, which its other pipelines of this model add
        images = pipe.vae.decode(images / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor, return_dict=False)[0]
        images = pipe.image_processor.postprocess(images)
    for k, im in enumerate(images):
        a = np.asarray(im).astype(np.float64)
        files.append(f"{index:02}{'abcd'[k]}.png")
        print(f"  {files[-1]} {family}/{case} {task}: {im.size}, standard deviation {a.std():.1f}")
        assert a.std() >= 25, "flat pictures prove nothing"
        im.save(os.path.join(ROOT, files[-1]))
    return dict(family=family, case=case, files=files, **settings)


def write_checkpoint(name, case, family, class_name, save):
    """A checkpoint of its own, as sd.py and sd3.py write them, without pictures."""
    folder = os.path.join(ROOT, name)
    pipe = family.build(case)
    tmp = os.path.join(save or folder, name if save else "tmp")
    pipe.save_pretrained(tmp)
    for part in [p for p in [*family.GAINS, "scheduler"] if getattr(pipe, p, None) is not None]:
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        shutil.copy(os.path.join(tmp, part, config), os.path.join(folder, part, config))
        if part != "scheduler":
            hashweights.write_manifest(os.path.join(folder, part, "manifest.txt"), getattr(pipe, part), case["dtype"], family.GAINS[part],
                                       buffers=["pos_embed.pos_embed"] if part == "transformer" else [])
    with open(os.path.join(tmp, "model_index.json")) as f:
        index = json.load(f)
    with open(os.path.join(folder, "model_index.json"), "w") as f:  # as checkpoints for this task have it
        json.dump(index | {"_class_name": class_name}, f, indent=2)
    if not save:
        shutil.rmtree(tmp)
    with open(os.path.join(folder, "pictures.json"), "w") as f:
        json.dump(dict(text_length=case.get("text", 77), width=case["size"][0], height=case["size"][1], pictures=[]), f)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    torch.set_num_threads(1)
    shutil.rmtree(ROOT, ignore_errors=True)
    os.makedirs(ROOT)
    draw()
    write_phrases()
    write_edges()
    for case in NETS:
        write_net(case)
    save = sys.argv[2] if sys.argv[1:2] == ["--save"] else None
    write_checkpoint("inpaint", INPAINT, sd, "StableDiffusionInpaintPipeline", save)
    write_checkpoint("sd3-16", SD3_16, sd3, "StableDiffusion3InpaintPipeline", save)
    with open(os.path.join(ROOT, "pictures.json"), "w") as f:
        json.dump([run(i, *r) for i, r in enumerate(RUNS)], f, indent=1)
