# SPDX-License-Identifier: MIT
"""Golden data for FLUX.1: small configurations, their weights made from hashes of names, through diffusers' FluxPipeline.

    python tests/reference/flux.py            # rewrites tests/golden/flux/
    python tests/reference/flux.py --save DIR # also writes each case as a checkpoint folder, by save_pretrained

Each case folder has what a checkpoint folder has, with manifest.txt (names, dtypes, shapes; see hashweights.py) where the
weights would be; io.safetensors: inputs and float32 outputs of every component; pictures NAME.png with the prompt, seed,
steps, guidance and size of each in pictures.json. Weights are rounded to the dtype the case stores before anything runs.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

import hashweights

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "flux")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

TOKENIZER = AutoTokenizer.from_pretrained(os.path.join(ROOT, "tokenizer"))
TOKENIZER_2 = AutoTokenizer.from_pretrained(os.path.join(ROOT, "tokenizer_2"))

# A picture of a net with hashed weights is flat unless the last layers are turned up: gains by name.
GAINS = {
    "transformer": [("proj_out.weight", 3.0), ("*norm*.linear.weight", 1.5), ("*", 1.2)],
    "text_encoder": [("*", 1.5)],
    "text_encoder_2": [("shared.weight", 20.0), ("*", 1.3)],
    "vae": [("decoder.conv_out.weight", 1.0), ("*", 1.3)],
}

# What a scheduler's configuration may ask for, each as sigmas and timesteps by steps and tokens of the picture.
SCHEDULES = [
    (dict(shift=1.0), 4, 4096),
    (dict(shift=3.0), 1, 64),
    (dict(shift=0.5, num_train_timesteps=500), 7, 64),
    (dict(use_dynamic_shifting=True), 28, 4096),
    (dict(use_dynamic_shifting=True, base_shift=0.1, max_shift=2.0, base_image_seq_len=16, max_image_seq_len=64), 5, 45),
    (dict(use_dynamic_shifting=True, time_shift_type="linear"), 6, 1024),
    (dict(use_dynamic_shifting=True, shift_terminal=0.02), 5, 256),
    (dict(shift=3.0, shift_terminal=0.1, use_karras_sigmas=True), 6, 64),
    (dict(use_karras_sigmas=True), 1, 64),
    (dict(shift=2.0, use_exponential_sigmas=True), 8, 64),
    (dict(use_dynamic_shifting=True, use_beta_sigmas=True), 9, 2304),
    (dict(shift=3.0, use_beta_sigmas=True), 1, 64),
    (dict(use_beta_sigmas=True), 50, 64),
]

CASES = {
    # schnell's form: no guidance, static shift 1
    "a": dict(
        dtype="F32",
        transformer=dict(in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
                         joint_attention_dim=48, pooled_projection_dim=40, guidance_embeds=False, axes_dims_rope=(8, 12, 12)),
        clip=dict(hidden_size=40, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, hidden_act="quick_gelu"),
        t5=dict(d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"),
        vae=dict(block_out_channels=(16, 32), latent_channels=4, norm_num_groups=8, layers_per_block=1, scaling_factor=0.3611,
                 shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        scheduler=dict(shift=1.0, use_dynamic_shifting=False),
        clip_prefix="", text_length=24, size=(32, 32),
        pictures=[("32x32", "a red circle on a blue background", 7, 4, 0.0, 32, 32), ("48x32", "two green squares", 8, 2, 0.0, 48, 32),
                  ("20x44", "a small yellow star", 9, 3, 0.0, 20, 44)],
    ),
    # dev's form: guidance, shift by picture size; names as transformers 4 wrote them
    "b": dict(
        dtype="BF16",
        transformer=dict(in_channels=64, num_layers=2, num_single_layers=1, attention_head_dim=16, num_attention_heads=3,
                         joint_attention_dim=64, pooled_projection_dim=32, guidance_embeds=True, axes_dims_rope=(4, 6, 6)),
        clip=dict(hidden_size=32, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", eos_token_id=2),
        t5=dict(d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu",
                relative_attention_num_buckets=16, relative_attention_max_distance=20),
        vae=dict(block_out_channels=(8, 16, 16), latent_channels=16, norm_num_groups=4, layers_per_block=2, scaling_factor=0.5,
                 shift_factor=0.2, use_quant_conv=False, use_post_quant_conv=False),
        scheduler=dict(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096),
        clip_prefix="text_model.", text_length=40, guidance=3.5, size=(64, 48),
        pictures=[("64x48", "a big blue triangle to the left", 1, 5, 3.5, 64, 48), ("40x72", "three white rings, black background", 2, 3, 1.5, 40, 72),
                  ("64x64", "", 3, 2, 7.0, 64, 64)],
    ),
    # one kind of block only, wide head, static shift 3, quant convolutions, ungated T5; CLIP with more positions than its
    # tokenizer fills, and a prompt that both tokenizers must cut
    "c": dict(
        dtype="F16",
        transformer=dict(in_channels=32, num_layers=2, num_single_layers=0, attention_head_dim=48, num_attention_heads=1,
                         joint_attention_dim=32, pooled_projection_dim=24, guidance_embeds=True, axes_dims_rope=(16, 16, 16)),
        clip=dict(hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=3, hidden_act="gelu",
                  max_position_embeddings=96),
        t5=dict(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, feed_forward_proj="relu"),
        vae=dict(block_out_channels=(8, 8, 16, 16), latent_channels=8, norm_num_groups=8, layers_per_block=1, scaling_factor=0.18215,
                 mid_block_add_attention=False, use_quant_conv=True, use_post_quant_conv=True, shift_factor=0.0),
        scheduler=dict(shift=3.0, use_dynamic_shifting=False),
        clip_prefix="", text_length=17, guidance=30.0, size=(64, 64),
        pictures=[("64x64", "a purple diamond", 4, 4, 3.5, 64, 64), ("96x48", "a GREEN circle; and a red SQUARE, " * 12, 5, 2, 0.0, 96, 48),
                  ("48x80", "one large orange cross above", 6, 3, 10.0, 48, 80)],
    ),
}


def build(case):
    clip = dict(vocab_size=len(TOKENIZER), max_position_embeddings=TOKENIZER.model_max_length, bos_token_id=TOKENIZER.bos_token_id,
                eos_token_id=TOKENIZER.eos_token_id, pad_token_id=TOKENIZER.pad_token_id)
    clip = CLIPTextModel(CLIPTextConfig(**{**clip, **case["clip"]}))
    t5 = T5EncoderModel(T5Config(vocab_size=len(TOKENIZER_2), **case["t5"]))
    n = len(case["vae"]["block_out_channels"])
    vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n, **case["vae"])
    models = {"transformer": FluxTransformer2DModel(**case["transformer"]), "text_encoder": clip, "text_encoder_2": t5, "vae": vae}
    for name, m in models.items():
        m.eval().requires_grad_(False)
        prefix = case["clip_prefix"] if name == "text_encoder" else ""
        hashweights.fill(m, GAINS[name], prefix)
        m.to(TYPES[case["dtype"]]).to(torch.float32)
    return FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(**case["scheduler"]), tokenizer=TOKENIZER, tokenizer_2=TOKENIZER_2, **models)


def component_io(pipe, case):
    """Inputs made from hashes, outputs by the reference, for the size the case converts for."""
    w, h = case["size"]
    factor = 2 ** (len(case["vae"]["block_out_channels"]) - 1)
    lh, lw, text = h // factor, w // factor, case["text_length"]
    t = case["transformer"]
    rand = lambda name, *shape: torch.from_numpy(hashweights.values(name, shape, [("*", shape[-1] ** 0.5)]))
    ids = lambda tok, n: tok("a red circle and 2 blue squares", padding="max_length", max_length=n, truncation=True, return_tensors="pt").input_ids
    io = {}
    io["TextEncoder.input_ids"] = ids(TOKENIZER, TOKENIZER.model_max_length)
    out = pipe.text_encoder(io["TextEncoder.input_ids"], output_hidden_states=True)
    io["TextEncoder.hidden_states_penultimate"] = out.hidden_states[-2]
    io["TextEncoder.last_hidden_state"], io["TextEncoder.pooler_output"] = out.last_hidden_state, out.pooler_output
    io["TextEncoder2.input_ids"] = ids(TOKENIZER_2, text)
    io["TextEncoder2.last_hidden_state"] = pipe.text_encoder_2(io["TextEncoder2.input_ids"])[0]
    args = dict(
        hidden_states=rand("hidden", 1, lh // 2 * (lw // 2), t["in_channels"]),
        encoder_hidden_states=rand("encoder", 1, text, t["joint_attention_dim"]),
        pooled_projections=rand("pooled", 1, t["pooled_projection_dim"]),
        timestep=torch.tensor([0.731]),
        img_ids=FluxPipeline._prepare_latent_image_ids(1, lh // 2, lw // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(text, 3),
    )
    if t["guidance_embeds"]:
        args["guidance"] = torch.tensor([case["guidance"]])
    io |= {"Transformer." + k: v for k, v in args.items()}
    io["Transformer.sample"] = pipe.transformer(**args, return_dict=False)[0]
    io["VAEDecoder.z"] = rand("z", 1, case["vae"]["latent_channels"], lh, lw)
    io["VAEDecoder.sample"] = pipe.vae.decode(io["VAEDecoder.z"], return_dict=False)[0]
    io["VAEEncoder.x"] = rand("x", 1, 3, h, w)
    d = pipe.vae.encode(io["VAEEncoder.x"]).latent_dist
    io["VAEEncoder.mean"], io["VAEEncoder.logvar"] = torch.chunk(d.parameters, 2, dim=1)
    return {k: (v.to(torch.int32) if not v.is_floating_point() else v).contiguous() for k, v in io.items()}


def pictures(pipe, case, folder):
    rows = []
    for name, prompt, seed, steps, guidance, w, h in case["pictures"]:
        im = pipe(prompt, width=w, height=h, num_inference_steps=steps, guidance_scale=guidance, max_sequence_length=case["text_length"],
                  generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        a = np.asarray(im).astype(np.float64)
        print(f"  {name}: mean {a.mean():.1f}, standard deviation {a.std():.1f}, clipped {((a == 0) | (a == 255)).mean():.2f}")
        assert a.std() >= 30, "flat pictures prove nothing: turn the gains up"
        im.save(os.path.join(folder, name + ".png"))
        rows.append(dict(file=name + ".png", prompt=prompt, seed=seed, steps=steps, guidance_scale=guidance, width=w, height=h))
    with open(os.path.join(folder, "pictures.json"), "w") as f:
        json.dump(dict(text_length=case["text_length"], width=case["size"][0], height=case["size"][1], pictures=rows), f, indent=1)


def write(name, case, save):
    folder = os.path.join(ROOT, name)
    shutil.rmtree(folder, ignore_errors=True)
    pipe = build(case)
    pipe.set_progress_bar_config(disable=True)
    tmp = os.path.join(save or folder, name if save else "tmp")
    pipe.save_pretrained(tmp)
    for part in ("transformer", "text_encoder", "text_encoder_2", "vae", "scheduler"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        shutil.copy(os.path.join(tmp, part, config), os.path.join(folder, part, config))
        if part != "scheduler":
            hashweights.write_manifest(os.path.join(folder, part, "manifest.txt"), getattr(pipe, part), case["dtype"], GAINS[part],
                                       case["clip_prefix"] if part == "text_encoder" else "")
    shutil.copy(os.path.join(tmp, "model_index.json"), folder)
    if not save:
        shutil.rmtree(tmp)
    save_file(component_io(pipe, case), os.path.join(folder, "io.safetensors"))
    pictures(pipe, case, folder)


def write_schedules():
    rows = []
    for config, steps, tokens in SCHEDULES:
        s = FlowMatchEulerDiscreteScheduler(**config)
        mu = calculate_shift(tokens, s.config.base_image_seq_len, s.config.max_image_seq_len, s.config.base_shift, s.config.max_shift)
        s.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        config = {k: v for k, v in s.config.items() if not k.startswith("_")}
        rows.append(dict(config=config, steps=steps, tokens=tokens, sigmas=s.sigmas.tolist(), timesteps=s.timesteps.tolist()))
    with open(os.path.join(ROOT, "schedules.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    save = sys.argv[2] if sys.argv[1:2] == ["--save"] else None
    torch.set_num_threads(1)
    write_schedules()
    for name, case in CASES.items():
        print(name)
        write(name, case, save)
