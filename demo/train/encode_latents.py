"""Draws the training scenes and keeps their latents: scene k is the one that `training_pair(seed, k)` draws."""

import os
import time

import numpy as np
import torch

from common import arguments
from draw import draw
from language import rng_for, training_scene
from train_vae import make_vae


def training_pair(seed, k):
    rng = rng_for("pair", seed, k)
    scene = training_scene(rng)
    return scene, lambda style="", freedom=1.0: draw(rng, scene, style, freedom)


def load_vae(path):
    vae = make_vae()
    vae.load_state_dict(torch.load(path, weights_only=False)["average"])
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def encode(vae, pictures):
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    return vae.encode(x.to(memory_format=torch.channels_last)).latent_dist.mode().contiguous()


def main():
    args = arguments(count=30000, first=0, seed=3, style="", freedom=0.4, out="latents.pt", batch=50)
    vae = load_vae(os.path.join(args.work, "vae.pt")).to(memory_format=torch.channels_last)
    parts, began = [], time.time()
    for k in range(args.first, args.first + args.count, args.batch):
        pictures = [training_pair(args.seed, k + j)[1](args.style, args.freedom) for j in range(args.batch)]
        parts.append(encode(vae, pictures).half())
        if k % 2000 == 0:
            print(k, f"{time.time() - began:.0f}s", flush=True)
    latents = torch.cat(parts)
    sample = latents.float()
    torch.save({"latents": latents, "seed": args.seed, "first": args.first,
                "mean": sample.mean().item(), "std": sample.std().item()}, os.path.join(args.work, args.out))
    print("mean", sample.mean().item(), "std", sample.std().item(), "per channel", sample.std((0, 2, 3)).tolist())


if __name__ == "__main__":
    main()
