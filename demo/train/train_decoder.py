"""Goes on training the decoder alone: sharper edges, and calm under the small errors of generated latents.

The encoder stays as it is, so that latents and transformer stay valid. The learning rate falls to nothing by --until.
"""

import json
import os
import time

import numpy as np
import torch

from common import Average, ConvMuon, Log, arguments, cosine, save_atomically, seconds_until
from draw import SIDE
from encode_latents import load_vae, training_pair
from language import rng_for
from train_vae import batch, edge_weight


def generated_pictures(made, pick):
    """pictures, and what the transformer makes of their latents (generate_latents.py)"""
    drawn = np.stack([training_pair(made["seed"], made["first"] + k)[1]("", 0.4) for k in pick])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2) / 127.5 - 1, made["latents"][pick].float()


def main():
    args = arguments(model="demo/model", until="23:59", batch=8, rate=2e-3, warm=15, average=0.995, noise=0.15, square=4.0,
                     flaw=0.12, far=10.0, free=0.1, freedom=0.7, seed=9, generated="", save_seconds=120)
    torch.manual_seed(args.seed)
    vae = load_vae(os.path.join(args.work, "vae.pt")).to(memory_format=torch.channels_last)
    with open(args.model + "/vae/config.json", encoding="utf-8") as f:
        spread = 1 / json.load(f)["scaling_factor"]
    decoder = vae.decoder.requires_grad_(True)
    average = Average(decoder, args.average)
    optimizers = [ConvMuon([p for p in decoder.parameters() if p.ndim > 1], args.rate),
                  torch.optim.AdamW([p for p in decoder.parameters() if p.ndim < 2], lr=args.rate, betas=(0.9, 0.99))]
    path, step, spent = os.path.join(args.work, "decoder.pt"), 0, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        decoder.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        average.weights, average.steps = state["decoder"], state["step"]
        step, spent = state["step"], state["spent"]
    made = torch.load(os.path.join(args.work, args.generated)) if args.generated else None
    half, hard = args.batch // 2, []
    log, began = Log(os.path.join(args.work, "decoder.csv"), ["loss", "l1"]), time.time() - spent
    saved, total = time.time(), spent + seconds_until(args.until)
    while (clock := time.time() - began) < total:
        rng, generator = rng_for("decoder", args.seed, step), torch.Generator().manual_seed(args.seed * 1000003 + step)
        x = batch(rng, args.batch, SIDE, args.free, args.freedom).to(memory_format=torch.channels_last)
        rate = cosine(clock, total, args.rate, args.rate / 50, 0) * min(1.0, (step + 1) / args.warm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mode()
            amount = args.noise * spread * torch.rand(len(x), 1, 1, 1, generator=generator) ** 2
            latents = latents + amount * torch.randn(latents.shape, generator=generator)
            if made:
                again = [len(hard) > 30 and rng.random() < 0.4 for _ in range(half)]
                pick = [rng.choice(hard) if a else rng.randrange(len(made["latents"])) for a in again]
                x[:half], latents[:half] = generated_pictures(made, pick)
        error = (vae.decode(latents).sample - x).abs()
        weight = edge_weight(x)
        far = ((error.square().sum(1) + 1e-6).sqrt() - args.flaw).relu() * (weight[:, 0] < 1.2)     # specks on even ground
        loss = (weight * (error + args.square * error ** 2)).mean() + args.far * far.square().mean()
        if made:                                   # the pictures with the worst flaws come again
            flaws = far[:half].detach().square().sum((1, 2))
            hard = (hard + [k for k, flaw in zip(pick, flaws) if flaw > 0.5])[-300:]
        decoder.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update(decoder)
        log.add(loss.item(), error.mean().item())
        step += 1
        if step % 50 == 0:
            log.write(step, time.time() - began)
        if time.time() - saved > args.save_seconds:
            saved = time.time()
            save(vae, decoder, optimizers, average, step, time.time() - began, path)
    save(vae, decoder, optimizers, average, step, time.time() - began, path)


def save(vae, decoder, optimizers, average, step, spent, path):
    state = {"model": decoder.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step,
             "decoder": average.weights, "spent": spent}
    state["average"] = dict(vae.state_dict(), **{"decoder." + k: v for k, v in average.weights.items()})
    save_atomically(state, path)


if __name__ == "__main__":
    main()
