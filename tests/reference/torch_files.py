# SPDX-License-Identifier: MIT
"""Small checkpoints as torch.save writes them, and the same tensors as safetensors.

    python tests/reference/torch_files.py    # rewrites tests/golden/torch/

Every form that torch has for a tensor of a state_dict: strided, offset, shared and empty ones, parameters, every dtype that
holds weights; the zip form and the one before it; the dictionary itself, under "state_dict" among other things, and a module's.
"""
import os

import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "torch")


def tensors():
    x = torch.randn(4, 6)
    y = torch.randn(3, 2, 5).half()
    return {
        "plain": x, "transposed": x.t(), "block": x[1:3, 2:5], "every_second": x[::2, ::3], "column": x[:, 4], "again": x,
        "parameter": torch.nn.Parameter(torch.randn(3, 2)), "permuted": y.permute(2, 0, 1), "half": y[1], "scalar": torch.tensor(3.5),
        "one": torch.randn(1, 1, 3)[:, :, 1:2], "spread": torch.randn(3, 1).expand(3, 4), "empty": torch.zeros(0, 3), "bf16": torch.randn(7).bfloat16(),
        "f64": torch.randn(2, 2).double(), "i64": torch.arange(5), "i32": torch.arange(3, dtype=torch.int32), "u8": torch.arange(4, dtype=torch.uint8),
        "i8": torch.arange(-2, 2, dtype=torch.int8), "i16": torch.arange(2, dtype=torch.int16), "bool": torch.tensor([True, False]),
        "e4m3": torch.randn(9).to(torch.float8_e4m3fn), "e5m2": torch.randn(9).to(torch.float8_e5m2)[2:7],
        "a name of some length, with dots.and \u00fcmlauts": torch.randn(2),
    }


if __name__ == "__main__":
    torch.manual_seed(3)
    os.makedirs(ROOT, exist_ok=True)
    path = lambda name: os.path.join(ROOT, name)
    t = tensors()
    save_file({k: v.detach().clone().contiguous() for k, v in t.items()}, path("tensors.safetensors"))
    torch.save(t, path("zip.pt"))
    torch.save(t, path("before.pt"), _use_new_zipfile_serialization=False)
    torch.save(t, path("protocol4.pt"), pickle_protocol=4)
    training = {"epoch": 3, "global_step": 470000, "lr": 1e-4, "big": 1 << 80, "none": None, "yes": True, "note": "text", "betas": (0.9, 0.999),
                "list": [1, [2.5]], "state_dict": t, "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}]}
    torch.save(training, path("training.ckpt"))
    # an adapter as old trainers saved it, and one of which half is a view; the numbers are test_lora.c's
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    up, down = torch.full((16, 4), 0.01), torch.full((4, 16), 0.01)
    up[0, 0], down[0, 0] = 2, 3
    torch.save({layer + ".lora_up.weight": up, layer + ".lora_down.weight": down, layer + ".alpha": torch.tensor(6.0)}, path("lora.pt"))
    torch.save({layer + ".lora_up.weight": down.t(), layer + ".lora_down.weight": down}, path("lora_view.pt"))
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    torch.save(module.state_dict(), path("module.pt"))
    save_file(module.state_dict(), path("module.safetensors"))
