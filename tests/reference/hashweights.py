# SPDX-License-Identifier: MIT
"""Weights made from the hash of a tensor's name: the same numbers as tests/support/hashweights.{h,c}; the rule is told
there. Reference models are filled with them, so that golden outputs need no stored weights.

    from hashweights import fill, write_manifest
    fill(model, gains=[("*.wo.weight", 4.0)])                          # a torch module, in place
    write_manifest("tiny.txt", model, "F16", gains=[...])              # for the C side
    python hashweights.py check                                        # rewrites tests/golden/hashweights.txt
"""
import math
import os
import re
import sys

import numpy as np

MASK = (1 << 64) - 1


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def splitmix64(x):
    """Of a uint64 array."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def digest(h, words):
    """ay_test_digest of an array of 4-byte numbers."""
    w = np.ascontiguousarray(words).reshape(-1).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        s = splitmix64((np.arange(w.size, dtype=np.uint64) << np.uint64(32)) | w).sum(dtype=np.uint64)
        return int(splitmix64(np.array([np.uint64(h) + s + np.uint64(w.size)], np.uint64))[0])


def gain_of(name, gains):
    for pattern, gain in gains or ():
        regex = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
        if re.fullmatch(regex, name, re.S):
            return float(gain)
    return 1.0


def values(name, shape, gains=None):
    """The tensor as a float32 numpy array."""
    count = math.prod(shape)
    gain = gain_of(name, gains)
    base = 0.0
    if len(shape) == 1 and name.endswith(("weight", "scale")):
        base, scale = 1.0, 0.1 * gain
    elif name.endswith("bias"):
        scale = 0.05 * gain
    else:
        scale = math.sqrt(3.0) * gain / math.sqrt(float(math.prod(shape[1:])))
    with np.errstate(over="ignore"):
        x = splitmix64(np.uint64(fnv1a64(name)) + np.arange(count, dtype=np.uint64))
    u = (x >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    return (base + scale * u).astype(np.float32).reshape(shape)


def fill(module, gains=None, prefix=""):
    """Sets every parameter of a torch module, in its own type; names are those of its state_dict after `prefix`."""
    import torch

    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(torch.from_numpy(values(prefix + name, tuple(p.shape), gains)))
    return module


def fill_buffer(module, name, gains=None):
    """The same for one buffer that is saved with the weights."""
    import torch

    b = module.get_buffer(name)
    b.copy_(torch.from_numpy(values(name, tuple(b.shape), gains)))


def write_manifest(path, module, dtype="F32", gains=None, prefix="", buffers=()):
    """The tensors that fill() and fill_buffer() set, as a manifest for ay_hash_write."""
    with open(path, "w") as f:
        for pattern, gain in gains or ():
            f.write(f"@gain {pattern} {gain!r}\n")
        for name, p in [*module.named_parameters(), *((b, module.get_buffer(b)) for b in buffers)]:
            f.write(f"{prefix + name} {dtype} {','.join(map(str, p.shape)) or '-'}\n")


def check(path):
    """Golden digests over names, shapes, gains and types for tests/quant/test_hashweights.c."""
    import torch

    types = {
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
    gains = [("*.wo.weight", 40.0), ("blocks.?.norm*", 2.5), ("blocks.1*", 0.5)]
    tensors = [
        ("blocks.0.attn.to_q.weight", (64, 48)),
        ("blocks.0.attn.to_q.bias", (64,)),
        ("blocks.0.norm.weight", (48,)),
        ("blocks.10.conv.weight", (16, 8, 3, 3)),
        ("blocks.2.wo.weight", (32, 16)),
        ("single.scale", (24,)),
        ("logit_scale", ()),
        ("relative_attention_bias.weight", (32, 4)),
    ]
    with open(path, "w") as f:
        f.write("# made by tests/reference/hashweights.py: NAME DTYPE DIMS, then the digest of the values read back as float32\n")
        for pattern, gain in gains:
            f.write(f"@gain {pattern} {gain!r}\n")
        for i, (name, shape) in enumerate(tensors):
            for text, dtype in types.items():
                v = torch.from_numpy(values(f"{name}", shape, gains)).to(dtype).to(torch.float32)
                f.write(f"{name} {text} {','.join(map(str, shape)) or '-'} {digest(0, v.numpy()):016x}\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["check"]:
        sys.exit(__doc__)
    check(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "hashweights.txt"))
