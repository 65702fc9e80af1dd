"""Trains the pastel LoRA: the same scenes, drawn in pale colours, through low-rank additions to the transformer."""

import os
import time

import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from common import Log, arguments, cosine
from encode_latents import training_pair
from language import phrase, rng_for
from models import tokens
from resume_flow import decoder_metric, token_care
from train_flow import draw_sigmas, image_ids, pack, plain_attention

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "proj_mlp",
           "proj_out"]


def main():
    args = arguments(model="demo/model", latents="pastel.pt", out="demo/lora", steps=700, batch=32, rate=3e-3, rank=8,
                     seed=6, init="")
    torch.manual_seed(args.seed)
    torch.nn.functional.scaled_dot_product_attention = plain_attention
    pipe = FluxPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    for part in (pipe.transformer, pipe.text_encoder, pipe.text_encoder_2, pipe.vae):
        part.requires_grad_(False)
    blocks = [f"{n}" for n, m in pipe.transformer.named_modules()
              if isinstance(m, torch.nn.Linear) and "transformer_blocks" in n and any(n.endswith(t) for t in TARGETS)]
    pipe.transformer.add_adapter(LoraConfig(r=args.rank, lora_alpha=args.rank, init_lora_weights="gaussian",
                                            target_modules=blocks))
    if args.init:                              # one trained on earlier weights
        earlier = {k.removeprefix("transformer."): v.float() for k, v in load_file(args.init).items()}
        set_peft_model_state_dict(pipe.transformer, earlier)
    weights = [p for p in pipe.transformer.parameters() if p.requires_grad]
    data = torch.load(os.path.join(args.work, args.latents))
    metric = decoder_metric(pipe.vae, data["latents"][:256].float())
    latents = pack((data["latents"].float() - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor)
    scenes = [training_pair(data["seed"], data["first"] + k)[0] for k in range(len(latents))]
    care = torch.stack([token_care(s) for s in scenes])
    optimizer = torch.optim.AdamW(weights, lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    log, began, places = Log(os.path.join(args.work, "lora.csv"), ["loss"]), time.time(), image_ids()
    for step in range(args.steps):
        rng, generator = rng_for("lora", args.seed, step), torch.Generator().manual_seed(args.seed * 1000003 + step)
        pick = [rng.randrange(len(scenes)) for _ in range(args.batch)]
        clip_ids, t5_ids = tokens(pipe.tokenizer, pipe.tokenizer_2, [phrase(rng, scenes[k]) for k in pick], 32)
        clean, sigma = latents[pick], draw_sigmas(args.batch, generator)
        noise = torch.randn(clean.shape, generator=generator)
        with torch.no_grad():
            pooled, words = pipe.text_encoder(clip_ids).pooler_output, pipe.text_encoder_2(t5_ids)[0]
        with torch.autocast("cpu", torch.bfloat16):
            answer = pipe.transformer(
                hidden_states=torch.lerp(clean, noise, sigma[:, None, None]), timestep=sigma, pooled_projections=pooled,
                encoder_hidden_states=words, txt_ids=torch.zeros(words.shape[1], 3), img_ids=places,
                return_dict=False)[0]
        error = (answer.float() - (noise - clean)) @ metric
        loss = (error.square().mean(2) * care[pick]).mean() / care.mean()
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, args.steps, args.rate, args.rate / 50, 30)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        log.add(loss.item())
        if (step + 1) % 25 == 0:
            log.write(step + 1, time.time() - began)
    layers = {k: v.to(torch.bfloat16).contiguous() for k, v in get_peft_model_state_dict(pipe.transformer).items()}
    FluxPipeline.save_lora_weights(args.out, transformer_lora_layers=layers, weight_name="pastel.safetensors")


if __name__ == "__main__":
    main()
