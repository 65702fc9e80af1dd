"""Pictures of prompts through diffusers' own FluxPipeline, unmodified: what alloy's are compared with.

The prompt file holds one prompt a line, or seed<TAB>prompt. Written for line k: NNN.png, and with --arrays the
starting noise, the final latents (both packed, as the transformer sees them) and the text encoders' answers as NNN.npz.
"""

import os

import numpy as np
import torch
from diffusers import FluxPipeline

from common import arguments

MAX_WORDS = 32          # T5 tokens, what the tokenizer's model_max_length says


def read_prompts(path, seed=0):
    out = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                number, _, text = line.rpartition("\t")
                out.append((int(number) if number else seed + len(out), text))
    return out


def start_noise(pipe, seed, side):
    """what the pipeline itself would draw for this seed"""
    generator = torch.Generator().manual_seed(seed)
    return pipe.prepare_latents(1, pipe.transformer.config.in_channels // 4, side, side, torch.float32, "cpu", generator)[0]


@torch.no_grad()
def render(pipe, prompts, steps, side=128, batch=25):
    """Yields (index, PIL picture, final packed latents, starting noise)."""
    for k in range(0, len(prompts), batch):
        part = prompts[k:k + batch]
        noise = torch.cat([start_noise(pipe, seed, side) for seed, _ in part])
        latents = pipe([text for _, text in part], height=side, width=side, num_inference_steps=steps,
                       max_sequence_length=MAX_WORDS, latents=noise, output_type="latent").images
        scale, shift = pipe.vae.config.scaling_factor, pipe.vae.config.shift_factor
        grid = pipe._unpack_latents(latents, side, side, pipe.vae_scale_factor) / scale + shift
        pictures = pipe.image_processor.postprocess(pipe.vae.decode(grid, return_dict=False)[0])
        for j, picture in enumerate(pictures):
            yield k + j, picture, latents[j].numpy(), noise[j].numpy()


def load(model, lora=""):
    pipe = FluxPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if lora:
        pipe.load_lora_weights(lora)
    return pipe


def main():
    args = arguments(model="demo/model", prompts="demo/prompts/demo.txt", out="build/demo-reference", steps=4, side=128,
                     seed=0, arrays=0, lora="")
    os.makedirs(args.out, exist_ok=True)
    prompts, pipe = read_prompts(args.prompts, args.seed), load(args.model, args.lora)
    for k, picture, latents, noise in render(pipe, prompts, args.steps, args.side):
        path = os.path.join(args.out, f"{k:03d}")
        picture.save(path + ".png")
        if args.arrays:
            words, pooled, _ = pipe.encode_prompt(prompts[k][1], None, max_sequence_length=MAX_WORDS)
            np.savez(path + ".npz", noise=noise, latents=latents, words=words.detach().numpy(),
                     pooled=pooled.detach().numpy(), picture=np.asarray(picture))
        print(f"{path}.png\t{prompts[k][1]}", flush=True)


if __name__ == "__main__":
    main()
