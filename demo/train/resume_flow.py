"""Goes on training demo/model itself, where no optimiser's state was kept, for as long as there is time.

Errors count by what they do to the picture: directions of the latent space by how strongly the decoder answers to them
(decoder_metric), tokens by what stands on them, so that the few tokens of a small star are not lost among flat ground.
The learning rate warms up anew and falls to nothing by --until (local time, HH:MM): by the clock and not by steps, since
the machine is shared and its speed varies. Loss, sigmas and optimisers are those of train_flow.py; the scenes are drawn
with less freedom (encode_latents.py --freedom), and those that the judge rejects most are shown more often.
"""

import os
import time

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel

from common import Average, Log, arguments, cosine, save_atomically, seconds_until
from encode_latents import training_pair
from language import SIZES, phrase, rng_for
from models import load_tokenizers, tokens
from train_flow import Flow, draw_sigmas, make_optimizer, pack, plain_attention

SHARP = {"star": 1.0, "cross": 0.6, "square": 0.25, "triangle": 0.3, "ring": 0.3, "circle": 0.0}


def hardness(scene):
    """how often a scene is picked: corners are harder than curves, and harder still when small"""
    return 1 + sum(SHARP[t.shape] * {"small": 2.0, "medium": 1.0, "big": 0.7}[t.size] for t in scene.things) / len(scene.things)


CARE = {"small": 5.0, "medium": 3.0, "big": 1.5}


def token_care(scene):
    """[64] how much each token's error counts: 1 on the ground, more where a thing stands"""
    middle = (torch.arange(8) + 0.5) * 16
    care = torch.ones(8, 8)
    for thing in scene.things:
        reach = SIZES[thing.size] * 1.1 + 8
        inside = ((middle - thing.y).abs() < reach)[:, None] & ((middle - thing.x).abs() < reach)[None]
        care = torch.where(inside, torch.full((), 1 + CARE[thing.size] * (0.6 + SHARP[thing.shape])), care)
    return care.flatten()


def decoder_metric(vae, latents, floor=0.1):
    """[32, 32] a root of the mean of J^T J, J the decoder's Jacobian: error @ root is about the error in the picture

    J^T u for random pictures u of independent noise has that mean; the floor keeps the directions that show nothing.
    """
    generator, total = torch.Generator().manual_seed(0), torch.zeros(32, 32)
    for k in range(0, 256, 16):
        z = latents[k:k + 16].clone().requires_grad_(True)
        picture = vae.decode(z).sample
        probe = torch.randn(picture.shape, generator=generator)
        g = pack(torch.autograd.grad((picture * probe).sum(), z)[0]).reshape(-1, 32)
        total += g.T @ g
    values, vectors = torch.linalg.eigh(total)
    values = (values / values.mean()).clamp(floor)
    return vectors * (values / values.mean()).sqrt()


def load_flow(model, tokenizers):
    flow = Flow(tokenizers)
    kept = dict(torch_dtype=torch.float32)
    flow.transformer.load_state_dict(FluxTransformer2DModel.from_pretrained(model, subfolder="transformer", **kept).state_dict())
    flow.clip.load_state_dict(CLIPTextModel.from_pretrained(model + "/text_encoder", **kept).state_dict())
    flow.t5.load_state_dict(T5EncoderModel.from_pretrained(model + "/text_encoder_2", **kept).state_dict())
    return flow


def load_latents(args):
    parts = [torch.load(os.path.join(args.work, name)) for name in args.latents.split(",")]
    scenes = [training_pair(p["seed"], p["first"] + k)[0] for p in parts for k in range(len(p["latents"]))]
    return torch.cat([p["latents"] for p in parts]).float(), scenes


def main():
    args = arguments(model="demo/model", latents="latents.pt", until="23:59", rate=1.5e-3, text_rate=0.3, seed=7, batch=64,
                     long_share=0.3, warm=100, average=0.998, floor=0.01, save_seconds=240)
    torch.manual_seed(args.seed)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    tokenizers = load_tokenizers(args.model)
    flow = load_flow(args.model, tokenizers)
    vae = AutoencoderKL.from_pretrained(args.model, subfolder="vae", torch_dtype=torch.float32).requires_grad_(False)
    latents, scenes = load_latents(args)
    metric = decoder_metric(vae, latents[:256])
    latents = pack((latents - vae.config.shift_factor) * vae.config.scaling_factor)
    care = torch.stack([token_care(s) for s in scenes])
    care_mean = care.mean()
    weights = torch.tensor([hardness(s) for s in scenes])
    optimizers = make_optimizer(flow, args.rate, args.text_rate)
    average, step, spent = Average(flow, args.average), 0, 0.0
    path = os.path.join(args.work, "resumed.pt")
    if os.path.exists(path):
        state = torch.load(path)
        flow.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        average.weights, average.steps, step, spent = state["average"], state["step"], state["step"], state["spent"]
    log = Log(os.path.join(args.work, "resumed.csv"), ["weighed", "loss", "loss_pure_noise", "loss_last_step", "rate"])
    began = saved = time.time()
    total = spent + seconds_until(args.until)
    while (clock := spent + time.time() - began) < total:
        rng, generator = rng_for("resumed", args.seed, step), torch.Generator().manual_seed(args.seed * 1000003 + step)
        pick = torch.multinomial(weights, args.batch, generator=generator).tolist()
        length = 32 if clock > 0.6 * total or rng.random() < args.long_share else 20
        ids = tokens(*tokenizers, [phrase(rng, scenes[k]) for k in pick], length)
        clean, sigma = latents[pick], draw_sigmas(args.batch, generator)
        noise = torch.randn(clean.shape, generator=generator)
        rate = cosine(clock, total, args.rate, args.rate * args.floor, 0) * min(1.0, (step + 1) / args.warm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            answer = flow.velocity(torch.lerp(clean, noise, sigma[:, None, None]), sigma, *flow.encode(*ids))
        error = answer.float() - (noise - clean)
        weighed = (error @ metric).square().mean(2) * care[pick]
        loss, error = weighed.mean() / care_mean, error.detach().square().mean((1, 2))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update(flow)
        blind, last = sigma == 1, sigma < 0.2
        log.add(loss.item(), error.mean().item(), *(error[m].mean().item() if m.any() else error.mean().item() for m in (blind, last)), rate)
        step += 1
        if step % 50 == 0:
            log.write(step, spent + time.time() - began)
        if time.time() - saved > args.save_seconds:
            saved = time.time()
            save(flow, optimizers, average, step, spent + time.time() - began, path)
    save(flow, optimizers, average, step, spent + time.time() - began, path)


def save(flow, optimizers, average, step, spent, path):
    save_atomically({"model": flow.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step,
                     "average": average.weights, "spent": spent}, path)


if __name__ == "__main__":
    main()
