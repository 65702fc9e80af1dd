# SPDX-License-Identifier: MIT
"""Golden data for SDXL's refiner: a small one, with the second text encoder alone and an aesthetic score, through diffusers.

    python tests/reference/refiner.py            # rewrites tests/golden/refiner/
    python tests/reference/refiner.py --save DIR # also writes it as a checkpoint folder

Its pictures start from tests/golden/tasks/scene.png (tasks.py). Inputs of the components that are hashes of their names are
not stored (sd3.py). `chain`: the first part of the steps by the sdxl case of sd.py, the rest by the refiner.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLImg2ImgPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import hashweights
import sd

ROOT = os.path.join(sd.HERE, "..", "golden", "refiner", "refiner")
SCENE = os.path.join(sd.HERE, "..", "golden", "tasks", "scene.png")

CASE = dict(
    dtype="F16",
    unet=dict(sample_size=8, block_out_channels=(16, 32, 32), layers_per_block=1, cross_attention_dim=32, attention_head_dim=[2, 4, 4],
              norm_num_groups=8, use_linear_projection=True, transformer_layers_per_block=2, addition_embed_type="text_time",
              addition_time_embed_dim=8, projection_class_embeddings_input_dim=32 + 40,
              down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
    clip=dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", projection_dim=32),
    vae=sd.CASES["sdxl"]["vae"],
    size=(32, 32),
)
PICTURES = [dict(prompt="a red circle", negative_prompt="a star", strength=0.6, seed=3, steps=6, guidance_scale=6.0),
            dict(prompt="two green squares", strength=0.4, seed=4, steps=8, guidance_scale=5.0),
            dict(prompt="a blue triangle", strength=0.9, seed=5, steps=4, guidance_scale=1.0)]
CHAIN = dict(prompt="a purple diamond", negative_prompt="red", seed=6, steps=10, guidance_scale=5.0, width=32, height=40, split=0.7)


def build():
    t = sd.TOKENIZER
    n = len(CASE["vae"]["block_out_channels"])
    config = CLIPTextConfig(vocab_size=len(t), max_position_embeddings=t.model_max_length, bos_token_id=t.bos_token_id,
                            eos_token_id=t.eos_token_id, pad_token_id=t.pad_token_id, **CASE["clip"])
    models = dict(unet=UNet2DConditionModel(**CASE["unet"]), text_encoder_2=CLIPTextModelWithProjection(config),
                  vae=AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n, **CASE["vae"]))
    for name, m in models.items():
        m.eval().requires_grad_(False)
        hashweights.fill(m, sd.GAINS[name])
        m.to(sd.TYPES[CASE["dtype"]]).to(torch.float32)
    pipe = StableDiffusionXLImg2ImgPipeline(text_encoder=None, tokenizer=None, tokenizer_2=t, requires_aesthetics_score=True,
                                            force_zeros_for_empty_prompt=False, add_watermarker=False,
                                            scheduler=EulerDiscreteScheduler(**sd.BETAS, timestep_spacing="leading", steps_offset=1), **models)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def component_io(pipe):
    w, h = CASE["size"]

    def rand(name, *shape):
        hashed.append(name)
        return torch.from_numpy(hashweights.values(name, shape, [("*", shape[-1] ** 0.5)]))

    hashed = []
    ids = sd.TOKENIZER("a red circle", padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    out = pipe.text_encoder_2(ids, output_hidden_states=True)
    io = {"TextEncoder2.input_ids": ids, "TextEncoder2.last_hidden_state": out.last_hidden_state,
          "TextEncoder2.hidden_states_penultimate": out.hidden_states[-2], "TextEncoder2.text_embeds": out.text_embeds}
    args = dict(sample=rand("UNet.sample", 1, 4, h // 4, w // 4), encoder_hidden_states=rand("UNet.encoder_hidden_states", 1, 77, 32),
                timestep=torch.tensor([731.0]))
    added = dict(text_embeds=rand("UNet.text_embeds", 1, 32), time_ids=torch.tensor([[float(h), w, 0, 0, 6]]))
    io |= {"UNet." + k: v for k, v in (args | added).items()}
    io["UNet.noise_pred"] = pipe.unet(**args, added_cond_kwargs=added, return_dict=False)[0]
    io["VAEDecoder.sample"] = pipe.vae.decode(rand("VAEDecoder.z", 1, 4, h // 4, w // 4), return_dict=False)[0]
    d = pipe.vae.encode(rand("VAEEncoder.x", 1, 3, h, w)).latent_dist
    io["VAEEncoder.mean"], io["VAEEncoder.logvar"] = torch.chunk(d.parameters, 2, dim=1)
    return {k: (v.to(torch.int32) if not v.is_floating_point() else v).clone().contiguous() for k, v in io.items() if k not in hashed}


def generator(seed):
    return torch.Generator("cpu").manual_seed(seed)


def pictures(pipe):
    scene = Image.open(SCENE)
    scene = scene.resize((scene.width // 8 * 8, scene.height // 8 * 8), Image.LANCZOS)
    rows, images = [], []
    for i, p in enumerate(PICTURES):
        s = dict(p)
        images.append(pipe(image=scene, num_inference_steps=s.pop("steps"), generator=generator(s.pop("seed")), **s).images[0])
        rows.append(dict(p, file=f"{i}.png"))
    base = sd.build(sd.CASES["sdxl"])
    base.set_progress_bar_config(disable=True)
    s = dict(CHAIN)
    seed, split, size = s.pop("seed"), s.pop("split"), {k: s.pop(k) for k in ("width", "height")}
    s["num_inference_steps"] = s.pop("steps")
    latents = base(**s, **size, denoising_end=split, output_type="latent", generator=generator(seed)).images
    images.append(pipe(**s, image=latents, denoising_start=split, generator=generator(seed)).images[0])
    for i, im in enumerate(images):
        a = np.asarray(im).astype(np.float64)
        print(f"  {i}: {im.size}, standard deviation {a.std():.1f}")
        assert a.std() >= 25, "flat pictures prove nothing"
        im.save(os.path.join(ROOT, f"{i}.png"))
    with open(os.path.join(ROOT, "pictures.json"), "w") as f:
        json.dump(dict(text_length=77, width=CASE["size"][0], height=CASE["size"][1], pictures=rows, chain=dict(CHAIN, file=f"{len(PICTURES)}.png")), f, indent=1)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    torch.set_num_threads(1)
    save = sys.argv[2] if sys.argv[1:2] == ["--save"] else None
    shutil.rmtree(ROOT, ignore_errors=True)
    pipe = build()
    tmp = os.path.join(save or ROOT, "refiner" if save else "tmp")
    pipe.save_pretrained(tmp)
    for part in ["unet", "text_encoder_2", "vae", "scheduler"]:
        os.makedirs(os.path.join(ROOT, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        shutil.copy(os.path.join(tmp, part, config), os.path.join(ROOT, part, config))
        if part != "scheduler":
            hashweights.write_manifest(os.path.join(ROOT, part, "manifest.txt"), getattr(pipe, part), CASE["dtype"], sd.GAINS[part])
    shutil.copy(os.path.join(tmp, "model_index.json"), ROOT)
    if not save:
        shutil.rmtree(tmp)
    save_file(component_io(pipe), os.path.join(ROOT, "io.safetensors"))
    pictures(pipe)
