"""Trains the autoencoder: 128 x 128 pictures to 16 x 16 latents of 8 channels."""

import os
import time

import numpy as np
import torch
from diffusers import AutoencoderKL

from common import Average, Log, arguments, cosine, save_atomically
from draw import SIDE, draw, free_drawing
from language import rng_for, training_scene


def make_vae():
    channels = (8, 16, 32, 64)
    levels = len(channels)
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=8, sample_size=SIDE, block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1, norm_num_groups=4, use_quant_conv=False, use_post_quant_conv=False)


def picture(rng, free, freedom):
    if rng.random() < free:
        return free_drawing(rng)
    return draw(rng, training_scene(rng), rng.choices(["", "outlined", "pastel"], [0.8, 0.1, 0.1])[0], freedom)


def batch(rng, count, side, free=0.25, freedom=1.0):
    out = np.empty((count, side, side, 3), np.float32)
    for k in range(count):
        x, y = (rng.randrange(0, SIDE - side + 1) for _ in range(2))
        full = picture(rng, free, freedom)
        for _ in range(3):                      # prefer pieces with something on them
            if full[y:y + side, x:x + side].std(axis=(0, 1)).max() > 3:
                break
            x, y = (rng.randrange(0, SIDE - side + 1) for _ in range(2))
        out[k] = full[y:y + side, x:x + side]
    return torch.from_numpy(out).permute(0, 3, 1, 2) / 127.5 - 1


def edge_weight(x):
    """1 on flat ground, up to 5 where the picture changes"""
    change = torch.nn.functional.max_pool2d(x, 3, 1, 1) + torch.nn.functional.max_pool2d(-x, 3, 1, 1)
    return 1 + 4 * change.amax(1, keepdim=True).clamp(0, 1)


def main():
    args = arguments(steps=3000, small_steps=2000, batch=8, rate=2e-3, kl=4e-4, seed=1, save_seconds=120)
    torch.manual_seed(args.seed)
    vae = make_vae().to(memory_format=torch.channels_last)
    average = Average(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    path, step, spent = os.path.join(args.work, "vae.pt"), 0, 0.0
    if os.path.exists(path):
        state = torch.load(path, weights_only=False)
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights, average.steps = state["average"], state["step"]
        step, spent = state["step"], state["spent"]
    log, saved, began = Log(os.path.join(args.work, "vae.csv"), ["loss", "l1", "kl"]), time.time(), time.time() - spent
    while step < args.steps:
        rng = rng_for("vae", args.seed, step)
        small = step < args.small_steps
        x = batch(rng, args.batch * (2 if small else 1), SIDE // 2 if small else SIDE)
        x = x.to(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, args.steps, args.rate, args.rate / 40, 100)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        error = (y - x).abs()
        kl = 0.5 * (posterior.mean ** 2 + posterior.var - 1 - posterior.logvar).mean()
        loss = (edge_weight(x) * (error + error ** 2)).mean() + args.kl * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae)
        log.add(loss.item(), error.mean().item(), kl.item())
        step += 1
        if step % 100 == 0:
            log.write(step, time.time() - began)
        if time.time() - saved > args.save_seconds or step == args.steps:
            saved = time.time()
            save_atomically({"model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                             "average": average.weights, "spent": time.time() - began}, path)


if __name__ == "__main__":
    main()
