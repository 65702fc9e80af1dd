"""Goes on training the decoder alone: sharper edges, and calm under the small errors of generated latents.

The encoder stays as it is, so that latents and transformer stay valid.
"""

import os
import time

import torch

from common import Average, Log, arguments, cosine, save_atomically
from draw import SIDE
from encode_latents import load_vae
from language import rng_for
from train_vae import batch, edge_weight


def main():
    args = arguments(steps=3300, batch=8, rate=1e-3, noise=0.15, free=0.1, seed=5, save_seconds=120)
    torch.manual_seed(args.seed)
    vae = load_vae(os.path.join(args.work, "vae.pt")).to(memory_format=torch.channels_last)
    spread = torch.load(os.path.join(args.work, "latents.pt"))["std"]
    decoder = vae.decoder.requires_grad_(True)
    average, optimizer = Average(decoder), torch.optim.AdamW(decoder.parameters(), lr=args.rate, betas=(0.9, 0.99))
    path, step, spent = os.path.join(args.work, "decoder.pt"), 0, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        decoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights, average.steps = state["decoder"], state["step"]
        step, spent = state["step"], state["spent"]
    log, saved, began = Log(os.path.join(args.work, "decoder.csv"), ["loss", "l1"]), time.time(), time.time() - spent
    while step < args.steps:
        rng, generator = rng_for("decoder", args.seed, step), torch.Generator().manual_seed(args.seed * 1000003 + step)
        x = batch(rng, args.batch, SIDE, args.free).to(memory_format=torch.channels_last)
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, args.steps, args.rate, args.rate / 50, 50)
        with torch.no_grad():
            latents = vae.encode(x).latent_dist.mode()
            amount = args.noise * spread * torch.rand(len(x), 1, 1, 1, generator=generator) ** 2
            latents = latents + amount * torch.randn(latents.shape, generator=generator)
        error = (vae.decode(latents).sample - x).abs()
        loss = (edge_weight(x) * (error + error ** 2)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update(decoder)
        log.add(loss.item(), error.mean().item())
        step += 1
        if step % 50 == 0:
            log.write(step, time.time() - began)
        if time.time() - saved > args.save_seconds or step == args.steps:
            saved = time.time()
            state = {"model": decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                     "decoder": average.weights, "spent": time.time() - began}
            state["average"] = dict(vae.state_dict(), **{"decoder." + k: v for k, v in average.weights.items()})
            save_atomically(state, path)


if __name__ == "__main__":
    main()
