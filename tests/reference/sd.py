# SPDX-License-Identifier: MIT
"""Golden data for Stable Diffusion 1, 2 and XL: small configurations, weights from hashes of names, through diffusers.

    python tests/reference/sd.py                    # rewrites tests/golden/sd/
    python tests/reference/sd.py --save DIR         # also writes each case as a checkpoint folder, by save_pretrained
    python tests/reference/sd.py --only NAME ...    # these cases

Each case folder is as flux.py's: a checkpoint folder with manifest.txt where the weights would be, io.safetensors with
inputs and float32 outputs of every component, pictures. The tokenizer is the small CLIP one of tests/golden/flux.
"""
import json
import os
import shutil
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, LatentConsistencyModelPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler, PNDMScheduler
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import hashweights

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "sd")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TOKENIZER = AutoTokenizer.from_pretrained(os.path.join(HERE, "..", "golden", "flux", "tokenizer"))

GAINS = {
    "unet": [("conv_out.weight", 1.5), ("*", 1.2)],
    "text_encoder": [("*", 1.5)],
    "text_encoder_2": [("*", 1.5)],
    "vae": [("decoder.conv_out.weight", 1.0), ("*", 1.3)],
}
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

CASES = {
    # Stable Diffusion 1: convolutions around the attentions, heads counted once for all levels, four levels
    "sd15": dict(
        dtype="F32",
        unet=dict(sample_size=16, block_out_channels=(16, 16, 24, 24), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
                  norm_num_groups=8,
                  down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3),
        clips=[dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, hidden_act="quick_gelu")],
        vae=dict(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=8, layers_per_block=1, scaling_factor=0.18215),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        size=(32, 32),
        pictures=[("32x32", "a red circle on a blue background", "", 7, 6, 7.5, 32, 32),
                  ("40x24", "two green squares", "a yellow star", 8, 5, 4.0, 40, 24), ("24x32", "a small yellow star", None, 9, 4, 1.0, 24, 32)],
    ),
    # Stable Diffusion 2: linear layers around the attentions, heads by level, velocity prediction
    "sd2": dict(
        dtype="F16",
        unet=dict(sample_size=8, block_out_channels=(16, 32), layers_per_block=2, cross_attention_dim=24, attention_head_dim=[2, 4],
                  norm_num_groups=4, use_linear_projection=True, upcast_attention=True,
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
        clips=[dict(hidden_size=24, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", eos_token_id=2)],
        vae=dict(block_out_channels=(8, 8, 16), latent_channels=4, norm_num_groups=4, layers_per_block=1, scaling_factor=0.18215),
        scheduler=DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        size=(32, 48),
        pictures=[("32x48", "a big blue triangle to the left", "red", 1, 5, 7.5, 32, 48), ("40x40", "three white rings", None, 2, 3, 3.0, 40, 40)],
    ),
    # Stable Diffusion XL: two text encoders, sizes told to the UNet, no attention at the first level
    "sdxl": dict(
        dtype="BF16",
        unet=dict(sample_size=8, block_out_channels=(16, 32, 32), layers_per_block=1, cross_attention_dim=56, attention_head_dim=[2, 4, 4],
                  norm_num_groups=8, use_linear_projection=True, transformer_layers_per_block=[1, 1, 2], addition_embed_type="text_time",
                  addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 48,
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
        clips=[dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, hidden_act="quick_gelu"),
               dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, hidden_act="gelu", projection_dim=24)],
        vae=dict(block_out_channels=(8, 16, 16), latent_channels=4, norm_num_groups=8, layers_per_block=1, scaling_factor=0.13025,
                 force_upcast=True),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        size=(32, 32),
        pictures=[("32x32", "a purple diamond", None, 4, 5, 5.0, 32, 32),
                  ("48x24", "a GREEN circle; and a red SQUARE", "one large orange cross", 5, 4, 7.0, 48, 24)],
    ),
    # Distilled to few steps: the guidance is told to the UNet, nothing but a resnet in the middle
    "lcm": dict(
        dtype="F32",
        unet=dict(sample_size=8, block_out_channels=(16, 24), layers_per_block=1, cross_attention_dim=32, attention_head_dim=2, norm_num_groups=4,
                  time_cond_proj_dim=12, mid_block_type="UNetMidBlock2D",
                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D")),
        clips=[dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, hidden_act="quick_gelu")],
        vae=dict(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=8, layers_per_block=1, scaling_factor=0.18215),
        scheduler=LCMScheduler(**BETAS), pipeline=LatentConsistencyModelPipeline,
        size=(32, 32),
        pictures=[("32x32", "a red circle", None, 3, 4, 8.5, 32, 32), ("24x40", "two green squares", None, 6, 2, 3.0, 24, 40)],
    ),
    # Cut: layers and transformer blocks counted for each block, and again on the way up, nothing in the middle; and what else
    # the class can be told. Sizes of XL that might be a refiner's: 24 + 32 + 5 * 8 is 48 + 6 * 8
    "cut": dict(
        dtype="F32",
        unet=dict(sample_size=8, block_out_channels=(16, 24, 32), layers_per_block=[2, 1, 3], cross_attention_dim=[56, 56, 56],
                  attention_head_dim=[2, 3, 4], norm_num_groups=8, use_linear_projection=True, act_fn="gelu", downsample_padding=0,
                  resnet_time_scale_shift="scale_shift", only_cross_attention=[False, True, False], mid_block_type=None,
                  transformer_layers_per_block=[1, [2], [1, 2, 1]], reverse_transformer_layers_per_block=[[2, 1, 1, 2], [1, 2], 1],
                  addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + 48,
                  down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                  up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")),
        clips=[dict(hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, hidden_act="quick_gelu"),
               dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, hidden_act="gelu", projection_dim=48)],
        vae=dict(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=8, layers_per_block=1, scaling_factor=0.13025),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        size=(32, 32),
        pictures=[("32x48", "a purple diamond", "red", 7, 4, 5.0, 32, 48)],
    ),
}


def build(case):
    clips = []
    for i, c in enumerate(case["clips"]):
        config = CLIPTextConfig(vocab_size=len(TOKENIZER), max_position_embeddings=TOKENIZER.model_max_length,
                                bos_token_id=TOKENIZER.bos_token_id, **{"eos_token_id": TOKENIZER.eos_token_id, **c},
                                pad_token_id=TOKENIZER.pad_token_id)
        clips.append((CLIPTextModelWithProjection if i else CLIPTextModel)(config))
    n = len(case["vae"]["block_out_channels"])
    vae = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n, **case["vae"])
    models = {"unet": UNet2DConditionModel(**case["unet"]), "text_encoder": clips[0], "vae": vae}
    if len(clips) == 2:
        models["text_encoder_2"] = clips[1]
    for name, m in models.items():
        m.eval().requires_grad_(False)
        hashweights.fill(m, GAINS[name])
        m.to(TYPES[case["dtype"]]).to(torch.float32)
    if len(clips) == 2:
        return StableDiffusionXLPipeline(scheduler=case["scheduler"], tokenizer=TOKENIZER, tokenizer_2=TOKENIZER, add_watermarker=False, **models)
    return case.get("pipeline", StableDiffusionPipeline)(scheduler=case["scheduler"], tokenizer=TOKENIZER, safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False, **models)


def component_io(pipe, case):
    """Inputs made from hashes, outputs by the reference, for the size the case converts for."""
    w, h = case["size"]
    factor = 2 ** (len(case["vae"]["block_out_channels"]) - 1)
    lh, lw, u = h // factor, w // factor, case["unet"]
    rand = lambda name, *shape: torch.from_numpy(hashweights.values(name, shape, [("*", shape[-1] ** 0.5)]))
    ids = TOKENIZER("a red circle and 2 blue squares", padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    io = {}
    for i in range(len(case["clips"])):
        name = "TextEncoder" + ("2" if i else "")
        io[name + ".input_ids"] = ids
        out = (pipe.text_encoder_2 if i else pipe.text_encoder)(ids, output_hidden_states=True)
        io[name + ".last_hidden_state"], io[name + ".hidden_states_penultimate"] = out.last_hidden_state, out.hidden_states[-2]
        io[name + (".text_embeds" if i else ".pooler_output")] = out.text_embeds if i else out.pooler_output
    args = dict(sample=rand("sample", 1, 4, lh, lw), timestep=torch.tensor([731.0]),
                encoder_hidden_states=rand("encoder", 1, 77, sum(c["hidden_size"] for c in case["clips"])))
    if "time_cond_proj_dim" in u:
        args["timestep_cond"] = rand("cond", 1, u["time_cond_proj_dim"])
    added = {}
    if "addition_embed_type" in u:
        added = dict(text_embeds=rand("pooled", 1, case["clips"][1]["projection_dim"]), time_ids=torch.tensor([[float(h), w, 0, 0, h, w]]))
    io |= {"UNet." + k: v for k, v in (args | added).items()}
    io["UNet.noise_pred"] = pipe.unet(**args, added_cond_kwargs=added or None, return_dict=False)[0]
    io["VAEDecoder.z"] = rand("z", 1, 4, lh, lw)
    io["VAEDecoder.sample"] = pipe.vae.decode(io["VAEDecoder.z"], return_dict=False)[0]
    io["VAEEncoder.x"] = rand("x", 1, 3, h, w)
    d = pipe.vae.encode(io["VAEEncoder.x"]).latent_dist
    io["VAEEncoder.mean"], io["VAEEncoder.logvar"] = torch.chunk(d.parameters, 2, dim=1)
    return {k: (v.to(torch.int32) if not v.is_floating_point() else v).clone().contiguous() for k, v in io.items()}


def pictures(pipe, case, folder):
    rows = []
    for name, prompt, negative, seed, steps, guidance, w, h in case["pictures"]:
        more = {} if "pipeline" in case else dict(negative_prompt=negative)
        im = pipe(prompt, **more, width=w, height=h, num_inference_steps=steps, guidance_scale=guidance,
                  generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        a = np.asarray(im).astype(np.float64)
        print(f"  {name}: mean {a.mean():.1f}, standard deviation {a.std():.1f}, clipped {((a == 0) | (a == 255)).mean():.2f}")
        assert a.std() >= 30, "flat pictures prove nothing: turn the gains up"
        im.save(os.path.join(folder, name + ".png"))
        rows.append(dict(file=name + ".png", prompt=prompt, seed=seed, steps=steps, guidance_scale=guidance, width=w, height=h))
        if negative is not None:
            rows[-1]["negative_prompt"] = negative
    with open(os.path.join(folder, "pictures.json"), "w") as f:
        json.dump(dict(text_length=77, width=case["size"][0], height=case["size"][1], pictures=rows), f, indent=1)


def write(name, case, save):
    folder = os.path.join(ROOT, name)
    shutil.rmtree(folder, ignore_errors=True)
    pipe = build(case)
    pipe.set_progress_bar_config(disable=True)
    tmp = os.path.join(save or folder, name if save else "tmp")
    pipe.save_pretrained(tmp)
    for part in ["unet", "text_encoder", "vae", "scheduler"] + ["text_encoder_2"] * (len(case["clips"]) - 1):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        config = "scheduler_config.json" if part == "scheduler" else "config.json"
        shutil.copy(os.path.join(tmp, part, config), os.path.join(folder, part, config))
        if part != "scheduler":
            hashweights.write_manifest(os.path.join(folder, part, "manifest.txt"), getattr(pipe, part), case["dtype"], GAINS[part])
    shutil.copy(os.path.join(tmp, "model_index.json"), folder)
    if not save:
        shutil.rmtree(tmp)
    save_file(component_io(pipe, case), os.path.join(folder, "io.safetensors"))
    pictures(pipe, case, folder)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    save = sys.argv[2] if sys.argv[1:2] == ["--save"] else None
    only = sys.argv[2:] if sys.argv[1:2] == ["--only"] else CASES
    torch.set_num_threads(1)
    for name in only:
        print(name)
        write(name, CASES[name], save)
