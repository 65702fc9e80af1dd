# SPDX-License-Identifier: MIT
"""Golden data for Stable Diffusion 3 and 3.5: small configurations, weights from hashes of names, through diffusers.

    python tests/reference/sd3.py            # rewrites tests/golden/sd3/
    python tests/reference/sd3.py --save DIR # also writes each case as a checkpoint folder, by save_pretrained

Each case folder is as flux.py's: a checkpoint folder with manifest.txt where the weights would be, io.safetensors with
inputs and float32 outputs of every component, pictures. Tokenizers are the small ones of tests/golden/flux. The stored
table of positions is made from its name's hash too: what is read is the checkpoint's table, not sines.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

import hashweights

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "sd3")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TOKENIZER = AutoTokenizer.from_pretrained(os.path.join(HERE, "..", "golden", "flux", "tokenizer"))
TOKENIZER_3 = AutoTokenizer.from_pretrained(os.path.join(HERE, "..", "golden", "flux", "tokenizer_2"))
PARTS = ["transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae"]

GAINS = {
    "transformer": [("pos_embed.pos_embed", 12.0), ("proj_out.weight", 1.5), ("*", 1.2)],
    "text_encoder": [("*", 1.5)],
    "text_encoder_2": [("*", 1.5)],
    "text_encoder_3": [("*", 1.2)],
    "vae": [("decoder.conv_out.weight", 1.0), ("*", 1.3)],
}

CASES = {
    # Stable Diffusion 3 medium: queries and keys as they are, shift 3, three text encoders
    "medium3": dict(
        dtype="F32",
        transformer=dict(sample_size=16, patch_size=2, num_layers=2, attention_head_dim=8, num_attention_heads=3, joint_attention_dim=64,
                         caption_projection_dim=24, pooled_projection_dim=44, in_channels=8, out_channels=8, pos_embed_max_size=12),
        clips=[dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, hidden_act="quick_gelu", projection_dim=24),
               dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", projection_dim=20)],
        t5=dict(d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4),
        vae=dict(block_out_channels=(8, 16), latent_channels=8, norm_num_groups=8, layers_per_block=1, scaling_factor=1.5305, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), text=24, size=(32, 32),
        pictures=[("32x32", "a red circle on a blue background", None, 7, 5, 7.0, 32, 32),
                  ("44x20", "two green squares", "a yellow star", 8, 4, 3.0, 44, 20), ("20x28", "a small star", None, 9, 3, 1.0, 20, 28)],
    ),
    # Stable Diffusion 3.5 medium: second attentions in the first blocks, normalised queries and keys; no T5
    "medium35": dict(
        dtype="BF16",
        transformer=dict(sample_size=8, patch_size=2, num_layers=3, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=80,
                         caption_projection_dim=32, pooled_projection_dim=48, in_channels=4, out_channels=4, pos_embed_max_size=16,
                         dual_attention_layers=(0, 1), qk_norm="rms_norm"),
        clips=[dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, hidden_act="quick_gelu", projection_dim=24),
               dict(hidden_size=40, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, hidden_act="gelu", projection_dim=24)],
        t5=None,
        vae=dict(block_out_channels=(8, 8, 16), latent_channels=4, norm_num_groups=4, layers_per_block=1, scaling_factor=1.5305, shift_factor=0.0609,
                 use_quant_conv=False, use_post_quant_conv=False),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), text=16, size=(48, 32),
        pictures=[("48x32", "a big blue triangle to the left", "red", 1, 5, 4.5, 48, 32), ("40x56", "three white rings", None, 2, 4, 6.0, 40, 56)],
    ),
    # Stable Diffusion 3.5 large: normalised, no second attentions; patches of one; a shift by picture size
    "large35": dict(
        dtype="F16",
        transformer=dict(sample_size=16, patch_size=1, num_layers=2, attention_head_dim=8, num_attention_heads=4, joint_attention_dim=56,
                         caption_projection_dim=32, pooled_projection_dim=40, in_channels=4, out_channels=4, pos_embed_max_size=24, qk_norm="rms_norm"),
        clips=[dict(hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, hidden_act="quick_gelu", projection_dim=16),
               dict(hidden_size=24, intermediate_size=64, num_hidden_layers=2, num_attention_heads=3, hidden_act="gelu", projection_dim=24)],
        t5=dict(d_model=56, d_kv=8, d_ff=64, num_layers=1, num_heads=2),
        vae=dict(block_out_channels=(16, 16), latent_channels=4, norm_num_groups=4, layers_per_block=1, scaling_factor=1.5305, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.4, max_shift=1.3, base_image_seq_len=64,
                                                  max_image_seq_len=512, use_karras_sigmas=True), text=20, size=(24, 24),
        pictures=[("24x24", "a purple diamond", None, 4, 5, 5.0, 24, 24), ("30x18", "one large orange cross", "blue", 5, 4, 7.0, 30, 18)],
    ),
}


def build(case):
    clips = []
    for c in case["clips"]:
        config = CLIPTextConfig(vocab_size=len(TOKENIZER), max_position_embeddings=TOKENIZER.model_max_length, bos_token_id=TOKENIZER.bos_token_id,
                                eos_token_id=TOKENIZER.eos_token_id, pad_token_id=TOKENIZER.pad_token_id, **c)
        clips.append(CLIPTextModelWithProjection(config))
    n = len(case["vae"]["block_out_channels"])
    models = dict(transformer=SD3Transformer2DModel(**case["transformer"]), text_encoder=clips[0], text_encoder_2=clips[1], text_encoder_3=None,
                  vae=AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n, **case["vae"]))
    if case["t5"]:
        models["text_encoder_3"] = T5EncoderModel(T5Config(vocab_size=len(TOKENIZER_3), feed_forward_proj="gated-gelu", **case["t5"]))
    for name, m in models.items():
        if m is None:
            continue
        m.eval().requires_grad_(False)
        hashweights.fill(m, GAINS[name])
        if name == "transformer":
            hashweights.fill_buffer(m, "pos_embed.pos_embed", GAINS[name])
        m.to(TYPES[case["dtype"]]).to(torch.float32)
    return StableDiffusion3Pipeline(scheduler=case["scheduler"], tokenizer=TOKENIZER, tokenizer_2=TOKENIZER,
                                    tokenizer_3=TOKENIZER_3 if case["t5"] else None, **models)


def component_io(pipe, case):
    """Outputs by the reference for the size the case converts for. Inputs that are hashes of their names are not stored."""
    w, h = case["size"]
    factor = 2 ** (len(case["vae"]["block_out_channels"]) - 1)
    lh, lw, t = h // factor, w // factor, case["transformer"]
    def rand(name, *shape):
        hashed.append(name)
        return torch.from_numpy(hashweights.values(name, shape, [("*", shape[-1] ** 0.5)]))

    hashed = []
    ids = TOKENIZER("a red circle and 2 blue squares", padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    io = {}
    for i, name in enumerate(["TextEncoder", "TextEncoder2"]):
        io[name + ".input_ids"] = ids
        out = (pipe.text_encoder_2 if i else pipe.text_encoder)(ids, output_hidden_states=True)
        io[name + ".last_hidden_state"], io[name + ".hidden_states_penultimate"] = out.last_hidden_state, out.hidden_states[-2]
        io[name + ".text_embeds"] = out.text_embeds
    if case["t5"]:
        ids = TOKENIZER_3("a red circle and 2 blue squares", padding="max_length", max_length=case["text"], truncation=True, return_tensors="pt").input_ids
        io["TextEncoder3.input_ids"], io["TextEncoder3.last_hidden_state"] = ids, pipe.text_encoder_3(ids)[0]
    args = dict(hidden_states=rand("Transformer.hidden_states", 1, t["in_channels"], lh, lw), encoder_hidden_states=rand("Transformer.encoder_hidden_states", 1, 77 + case["text"], t["joint_attention_dim"]),
                pooled_projections=rand("Transformer.pooled_projections", 1, t["pooled_projection_dim"]), timestep=torch.tensor([731.0]))
    io |= {"Transformer." + k: v for k, v in args.items()}
    io["Transformer.sample"] = pipe.transformer(**args, return_dict=False)[0]
    io["VAEDecoder.z"] = rand("VAEDecoder.z", 1, t["in_channels"], lh, lw)
    io["VAEDecoder.sample"] = pipe.vae.decode(io["VAEDecoder.z"], return_dict=False)[0]
    io["VAEEncoder.x"] = rand("VAEEncoder.x", 1, 3, h, w)
    d = pipe.vae.encode(io["VAEEncoder.x"]).latent_dist
    io["VAEEncoder.mean"], io["VAEEncoder.logvar"] = torch.chunk(d.parameters, 2, dim=1)
    return {k: (v.to(torch.int32) if not v.is_floating_point() else v).clone().contiguous() for k, v in io.items() if k not in hashed}


def pictures(pipe, case, folder):
    rows = []
    for name, prompt, negative, seed, steps, guidance, w, h in case["pictures"]:
        im = pipe(prompt, negative_prompt=negative, width=w, height=h, num_inference_steps=steps, guidance_scale=guidance,
                  max_sequence_length=case["text"], generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        a = np.asarray(im).astype(np.float64)
        print(f"  {name}: mean {a.mean():.1f}, standard deviation {a.std():.1f}, clipped {((a == 0) | (a == 255)).mean():.2f}")
        assert a.std() >= 30, "flat pictures prove nothing: turn the gains up"
        im.save(os.path.join(folder, name + ".png"))
        rows.append(dict(file=name + ".png", prompt=prompt, seed=seed, steps=steps, guidance_scale=guidance, width=w, height=h))
        if negative is not None:
            rows[-1]["negative_prompt"] = negative
    with open(os.path.join(folder, "pictures.json"), "w") as f:
        json.dump(dict(text_length=case["text"], width=case["size"][0], height=case["size"][1], pictures=rows), f, indent=1)


def write(name, case, save):
    folder = os.path.join(ROOT, name)
    shutil.rmtree(folder, ignore_errors=True)
    pipe = build(case)
    pipe.set_progress_bar_config(disable=True)
    tmp = os.path.join(save or folder, name if save else "tmp")
    pipe.save_pretrained(tmp)
    for part in PARTS + ["scheduler"]:
        if getattr(pipe, part) is None:
            continue
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        shutil.copy(os.path.join(tmp, part, config), os.path.join(folder, part, config))
        if part != "scheduler":
            buffers = ["pos_embed.pos_embed"] if part == "transformer" else []
            hashweights.write_manifest(os.path.join(folder, part, "manifest.txt"), getattr(pipe, part), case["dtype"], GAINS[part], buffers=buffers)
    shutil.copy(os.path.join(tmp, "model_index.json"), folder)
    if not save:
        shutil.rmtree(tmp)
    save_file(component_io(pipe, case), os.path.join(folder, "io.safetensors"))
    pictures(pipe, case, folder)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    save = sys.argv[2] if sys.argv[1:2] == ["--save"] else None
    torch.set_num_threads(1)
    for name, case in CASES.items():
        print(name)
        write(name, case, save)
