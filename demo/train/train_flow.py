"""Trains the transformer, and with it both text encoders, to turn noise into the latents of what a prompt says.

Straight-line flow matching in the pipeline's own convention: x = (1 - sigma) latent + sigma noise, the transformer is
given sigma as its timestep and answers noise - latent. Most sigmas are those that 4, 6 and 8 steps visit, and many
are 1, where what the picture shows is decided.
"""

import os
import time

import torch
from torch import nn

from common import Average, Log, arguments, cosine, save_atomically
from encode_latents import training_pair
from language import phrase, rng_for
from models import load_tokenizers, make_clip, make_t5, make_transformer, tokens

SHOWN_STEPS = 6         # what `make demo` runs
SHOWN_SIGMAS = torch.arange(1, SHOWN_STEPS + 1) / SHOWN_STEPS
OTHER_SIGMAS = torch.tensor(sorted({k / n for n in (4, 5, 7, 8) for k in range(1, n + 1)}))


def pack(latents):
    """[B, 8, 16, 16] to the transformer's [B, 64, 32]: one token for each 2 x 2 latents"""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def image_ids(rows=8, columns=8):
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)[None]
    return ids.view(-1, 3)


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
    """softmax(q k) v as it is written: for a hundred tokens twice as fast on a CPU as the fused kernel's backward pass"""
    scores = query * (scale or query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores + attn_mask
    if is_causal:
        scores = scores + torch.full(scores.shape[-2:], -1e9).triu(1)
    return scores.softmax(-1).to(value.dtype) @ value


class Flow(nn.Module):
    """Text encoders and transformer as one module, so that they train, average and save together."""

    def __init__(self, tokenizers):
        super().__init__()
        self.clip, self.t5, self.transformer = make_clip(tokenizers[0]), make_t5(tokenizers[1]), make_transformer()
        self.register_buffer("img_ids", image_ids(), persistent=False)

    def encode(self, clip_ids, t5_ids):
        return self.clip(clip_ids).pooler_output, self.t5(t5_ids)[0]

    def velocity(self, x, sigma, pooled, words):
        return self.transformer(hidden_states=x, timestep=sigma, pooled_projections=pooled,
                                encoder_hidden_states=words, txt_ids=torch.zeros(words.shape[1], 3),
                                img_ids=self.img_ids, return_dict=False)[0]


def draw_sigmas(count, generator):
    """half of them what the shown number of steps visits, a fifth pure noise, the rest other numbers' and any at all"""
    free = torch.rand(count, generator=generator).clamp(1e-3, 1)
    shown, other = (s[torch.randint(len(s), (count,), generator=generator)] for s in (SHOWN_SIGMAS, OTHER_SIGMAS))
    pick = torch.rand(count, generator=generator)
    picked = torch.where(pick < 0.7, shown, torch.where(pick < 0.88, other, free))
    return torch.where(pick < 0.2, torch.ones(count), picked)


def make_optimizer(flow, rate, text_rate):
    """Muon for the transformer's inner matrices, AdamW for everything else."""
    inner = [p for n, p in flow.transformer.named_parameters() if "transformer_blocks" in n and p.ndim == 2]
    known = {id(p) for p in inner}
    outer = [p for p in flow.transformer.parameters() if id(p) not in known]
    text = list(flow.clip.parameters()) + list(flow.t5.parameters())
    muon = torch.optim.Muon(inner, lr=rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW([{"params": outer, "scale": 1.0}, {"params": text, "scale": text_rate}], lr=rate,
                             betas=(0.9, 0.98), weight_decay=0.01)
    return [muon, adam]


def main():
    args = arguments(model="demo/model", latents="latents.pt", steps=6500, batch=32, rate=3e-3, text_rate=0.3, seed=4,
                     save_seconds=240, stop=0, long_share=0.15, compiled=1)
    torch.manual_seed(args.seed)
    tokenizers = load_tokenizers(args.model)
    parts = [torch.load(os.path.join(args.work, name)) for name in args.latents.split(",")]
    latents = pack(torch.cat([(p["latents"].float() - parts[0]["mean"]) / parts[0]["std"] for p in parts]))
    scenes = [training_pair(p["seed"], p["first"] + k)[0] for p in parts for k in range(len(p["latents"]))]
    flow = Flow(tokenizers)
    optimizers = make_optimizer(flow, args.rate, args.text_rate)
    path, step, spent = os.path.join(args.work, "flow.pt"), 0, 0.0
    start = torch.load(path if os.path.exists(path) else os.path.join(args.work, "text.pt"))
    if os.path.exists(path):
        flow.load_state_dict(start["model"])
        for optimizer, state in zip(optimizers, start["optimizers"]):
            optimizer.load_state_dict(state)
        step, spent = start["step"], start["spent"]
    else:
        heads = {k: v for k, v in start["average"].items() if not k.startswith("heads.")}
        missing, unexpected = flow.load_state_dict(heads, strict=False)
        assert not unexpected and all(k.startswith("transformer.") for k in missing)
    average = Average(flow, 0.996)
    if step:
        average.weights, average.steps = start["average"], step
    log, saved, began = Log(os.path.join(args.work, "flow.csv"), ["loss", "loss_pure_noise"]), time.time(), time.time() - spent
    if args.compiled:
        flow.transformer.compile(dynamic=False)
    while step < (args.stop or args.steps):
        rng, generator = rng_for("flow", args.seed, step), torch.Generator().manual_seed(args.seed * 1000003 + step)
        pick = [rng.randrange(len(scenes)) for _ in range(args.batch)]
        ids = tokens(*tokenizers, [phrase(rng, scenes[k]) for k in pick], 32 if rng.random() < args.long_share else 20)
        clean = latents[pick]
        noise = torch.randn(clean.shape, generator=generator)
        sigma = draw_sigmas(args.batch, generator)
        mixed = torch.lerp(clean, noise, sigma[:, None, None])
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = cosine(step, args.steps, args.rate, args.rate / 100, 200) * group.get("scale", 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            answer = flow.velocity(mixed, sigma, *flow.encode(*ids))
        error = (answer.float() - (noise - clean)).square().mean((1, 2))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        error.mean().backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update(flow)
        blind = sigma == 1
        log.add(error.mean().item(), error[blind].mean().item() if blind.any() else error.mean().item())
        step += 1
        if step % 50 == 0:
            log.write(step, time.time() - began)
        if time.time() - saved > args.save_seconds or step == (args.stop or args.steps):
            saved = time.time()
            save_atomically({"model": flow.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step,
                             "average": average.weights, "spent": time.time() - began}, path)


if __name__ == "__main__":
    main()
