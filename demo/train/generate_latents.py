"""What the transformer makes of the last steps: true latents with a little noise, and its answer to them, in one step.

train_decoder.py --generated takes these beside true latents, so that the decoder knows the transformer's own small errors.
"""

import json
import os

import torch

from common import arguments
from encode_latents import training_pair
from language import phrase, rng_for
from models import load_tokenizers, tokens
from resume_flow import load_flow
from train_flow import SHOWN_STEPS, pack


def unpack(latents):
    """[B, 64, 32] back to [B, 8, 16, 16]"""
    return latents.view(-1, 8, 8, 8, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 8, 16, 16)


@torch.no_grad()
def main():
    args = arguments(model="demo/model", flow="resumed.pt", latents="latents.pt", out="generated.pt", count=4000, batch=50, seed=10)
    tokenizers = load_tokenizers(args.model)
    flow = load_flow(args.model, tokenizers)
    flow.load_state_dict(torch.load(os.path.join(args.work, args.flow))["average"])
    data = torch.load(os.path.join(args.work, args.latents))
    true, parts = data["latents"][:args.count].float(), []
    with open(args.model + "/vae/config.json", encoding="utf-8") as f:
        vae = json.load(f)
    scale, shift = vae["scaling_factor"], vae["shift_factor"]
    packed, generator = pack((true - shift) * scale), torch.Generator().manual_seed(args.seed)
    for k in range(0, args.count, args.batch):
        clean = packed[k:k + args.batch]
        scenes = [training_pair(data["seed"], data["first"] + k + j)[0] for j in range(len(clean))]
        pooled, words = flow.encode(*tokens(*tokenizers, [phrase(rng_for("generated", args.seed, k + j), s) for j, s in enumerate(scenes)], 32))
        sigma = (torch.randint(1, 4, (len(clean),), generator=generator).clamp(max=2)) / SHOWN_STEPS
        noise = torch.randn(clean.shape, generator=generator)
        answer = flow.velocity(torch.lerp(clean, noise, sigma[:, None, None]), sigma, pooled, words)
        parts.append(torch.lerp(clean, noise, sigma[:, None, None]) - sigma[:, None, None] * answer)
    made = unpack(torch.cat(parts)) / scale + shift
    print("error", (made - true).std().item() * scale)
    torch.save({"latents": made.half(), "seed": data["seed"], "first": data["first"]}, os.path.join(args.work, args.out))


if __name__ == "__main__":
    main()
