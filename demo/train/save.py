"""Puts the trained parts together as demo/model: averaged weights in bf16, in diffusers' own folder layout."""

import json
import os

import torch

from common import arguments
from models import load_tokenizers, save_pipeline
from train_flow import Flow
from train_vae import make_vae


def main():
    args = arguments(model="demo/model", flow="flow.pt", vae="vae.pt", latents="latents.pt")      # after resume_flow.py and
    # train_decoder.py: --flow resumed.pt --vae decoder.pt --latents ""
    tokenizers = load_tokenizers(args.model)
    flow, vae = Flow(tokenizers), make_vae()
    trained = torch.load(os.path.join(args.work, args.flow))
    flow.load_state_dict(trained["average"])
    vae.load_state_dict(torch.load(os.path.join(args.work, args.vae), weights_only=False)["average"])
    if args.latents:
        data = torch.load(os.path.join(args.work, args.latents))
        scale, shift = round(1 / data["std"], 5), round(data["mean"], 5)
    else:                                      # training went on from a saved model: its latents' scale stays
        with open(os.path.join(args.model, "vae", "config.json"), encoding="utf-8") as f:
            kept = json.load(f)
        scale, shift = kept["scaling_factor"], kept["shift_factor"]
    vae.register_to_config(scaling_factor=scale, shift_factor=shift)
    save_pipeline(args.model, tokenizers, flow.clip, flow.t5, vae, flow.transformer)
    total = sum(os.path.getsize(os.path.join(at, f)) for at, _, files in os.walk(args.model) for f in files)
    print(f"step {trained['step']}: {args.model}, {total / 1e6:.2f} MB", json.dumps(dict(vae.config), default=str))


if __name__ == "__main__":
    main()
