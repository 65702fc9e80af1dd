# SPDX-License-Identifier: MIT
"""Packages as other people make them: torch modules, traced and converted with coremltools' default pipeline, which merges
permutes, moves scales and takes norms apart in its own ways. Blocks in the words of diffusers, transformers and
ml-stable-diffusion; the numbers are torch's.

    python tests/reference/traced.py tests/golden/traced
"""
import os
import sys
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import coremltools as ct
from safetensors.numpy import save_file

from mlprograms_make import tidy

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
torch.manual_seed(5)
L, D, H = 12, 32, 4
E = D // H


def heads(x):
    return x.view(1, L, H, E).transpose(1, 2)


def joined(y):
    return y.transpose(1, 2).reshape(1, L, D)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))
        self.t5_weight = nn.Parameter(torch.rand(D) + 0.5)
        self.ln = nn.LayerNorm(D, elementwise_affine=False, eps=1e-6)
        self.mod = nn.Linear(D, 2 * D)
        self.geglu_in, self.geglu_out = nn.Linear(D, 4 * D), nn.Linear(2 * D, D)
        self.gn, self.conv = nn.GroupNorm(4, D), nn.Conv2d(D, 8, 3, padding=1)
        self.rms = nn.RMSNorm(D, eps=1e-6)

    def rotary(self, x, cos, sin):  # transformers' rotate_half
        return x * cos + torch.cat((-x[..., E // 2:], x[..., :E // 2]), -1) * sin

    def rotary_pairs(self, x, cos, sin):  # diffusers' apply_rotary_emb
        real, imag = x.reshape(1, H, L, E // 2, 2).unbind(-1)
        return x * cos + torch.stack([-imag, real], dim=-1).flatten(3) * sin

    def forward(self, x, mask, cos, sin, picture):
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        s = E ** -0.5
        o = {}
        o["sdpa"] = joined(F.scaled_dot_product_attention(q, k, v))
        o["sdpa_mask"] = joined(F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        o["plain"] = joined((q @ k.transpose(-1, -2) * s).softmax(-1) @ v)
        o["scaled_q"] = joined(((q * s) @ k.transpose(-1, -2) + mask).softmax(-1) @ v)
        o["filled"] = joined((q @ k.transpose(-1, -2) * s).masked_fill(mask < -0.2, -1e4).softmax(-1) @ v)
        o["einsum"] = joined(torch.einsum("bhqk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bhqk", q, k) * s).softmax(-1), v))
        q3, k3, v3 = (t.reshape(H, L, E) for t in (q, k, v))
        w = torch.baddbmm(torch.empty(H, L, L), q3, k3.transpose(-1, -2), beta=0, alpha=s).softmax(-1)
        o["baddbmm"] = joined(torch.bmm(w, v3).view(1, H, L, E))
        # ml-stable-diffusion, attention.py: pictures as [B, C, 1, S], one head at a time, or all with queries as columns
        qs, ks, vs = self.q(x).transpose(1, 2).unsqueeze(2), self.k(x).transpose(1, 2).unsqueeze(2), self.v(x).transpose(1, 2).unsqueeze(2)
        kt, parts = ks.transpose(1, 3), []
        for h in range(H):
            r = slice(h * E, (h + 1) * E)
            w = torch.einsum("bchq,bkhc->bkhq", qs[:, r], kt[:, :, :, r]) * s
            parts.append(torch.einsum("bkhq,bchk->bchq", w.softmax(dim=1), vs[:, r]))
        o["split"] = torch.cat(parts, dim=1)
        mq, mk, mv = (t.reshape(1, H, E, L) for t in (qs, ks, vs))
        w = (torch.einsum("bhcq,bhck->bhqk", mq, mk) * s).softmax(dim=3)
        o["original"] = torch.einsum("bhqk,bhck->bhcq", w, mv).contiguous().view(1, D, 1, L)
        o["rotary"] = self.rotary(q, cos, sin)
        o["rotary_pairs"] = self.rotary_pairs(q, cos, sin)
        var = x.pow(2).mean(-1, keepdim=True)
        o["t5_norm"] = self.t5_weight * (x * torch.rsqrt(var + 1e-6))
        o["rms_norm"] = self.rms(x)
        scale, shift = self.mod(F.silu(x[:, 0])).chunk(2, dim=1)
        o["modulated"] = self.ln(x) * (1 + scale[:, None]) + shift[:, None]
        a, b = self.geglu_in(x).chunk(2, dim=-1)
        o["geglu"] = self.geglu_out(a * F.gelu(b)) + x
        o["quick_gelu"] = x * torch.sigmoid(1.702 * x)
        o["new_gelu"] = F.gelu(x, approximate="tanh")
        o["group_norm"] = self.conv(F.silu(self.gn(picture)))
        o["upsampled"] = F.interpolate(picture, scale_factor=2.0, mode="nearest")
        o["hard"] = F.hardswish(x) + F.leaky_relu(x, 0.2)
        return tuple(o.values()), list(o)


class Traced(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, *a):
        return self.m(*a)[0]


def main(out):
    os.makedirs(out, exist_ok=True)
    m = Blocks().eval()
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(p.half().float())
    given = {"x": torch.randn(1, L, D), "mask": torch.randn(1, 1, L, L), "cos": torch.randn(L, E), "sin": torch.randn(L, E),
             "picture": torch.randn(1, D, 6, 4)}
    given = {k: v.half().float() for k, v in given.items()}
    got, names = m(*given.values())
    traced = torch.jit.trace(Traced(m), tuple(given.values()), check_trace=False)
    for name, target, precision in (("traced17", ct.target.iOS17, ct.precision.FLOAT32), ("traced18", ct.target.iOS18, ct.precision.FLOAT16)):
        half = precision == ct.precision.FLOAT16
        p = ct.convert(traced, inputs=[ct.TensorType(name=k, shape=v.shape, dtype=np.float32) for k, v in given.items()],
                       outputs=[ct.TensorType(name="y_" + n, dtype=np.float32) for n in names], convert_to="mlprogram",
                       minimum_deployment_target=target, compute_precision=precision, skip_model_load=True)
        path = os.path.join(out, name + ".mlpackage")
        p.save(path)
        tidy(os.path.join(path, "Manifest.json"))
        print(name, sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs), "half" if half else "")
    save_file({**{k: v.numpy() for k, v in given.items()}, **{"y_" + n: v.detach().contiguous().numpy() for n, v in zip(names, got)}},
              os.path.join(out, "values.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
