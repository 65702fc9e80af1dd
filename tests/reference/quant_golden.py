# SPDX-License-Identifier: MIT
"""Golden data for tests/quant: number formats by torch, stored weights by coremltools' own decompression.
Rewrites tests/golden/convert.txt and tests/golden/weights.safetensors.

    python tests/reference/quant_golden.py
"""
import json
import os

import numpy as np
import torch
from coremltools.converters.mil.mil.ops.defs.iOS18.compression import constexpr_blockwise_shift_scale, constexpr_lut_to_dense
from safetensors.numpy import save_file

from hashweights import digest

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
FLOATS = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
SAMPLES = 1 << 18


def bits(x):
    """float32 bits, every NaN as one."""
    x = x.to(torch.float32).numpy()
    return np.where(np.isnan(x), np.uint32(0x7FC00000), x.view(np.uint32))


def convert_golden():
    with open(os.path.join(GOLDEN, "convert.txt"), "w") as f:
        f.write("# made by tests/reference/quant_golden.py: digests of every code decoded, and of floats encoded and decoded\n")
        for name, dtype in FLOATS.items():
            width = torch.empty(0, dtype=dtype).element_size()
            codes = torch.from_numpy(np.arange(256**width, dtype=np.uint8 if width == 1 else np.uint16))
            f.write(f"decode {name} {digest(0, bits(codes.view(dtype))):016x}\n")
            pattern = (np.arange(SAMPLES, dtype=np.uint64) * 2654435761 & 0xFFFFFFFF).astype(np.uint32)
            samples = torch.from_numpy(pattern.view(np.float32))
            near = torch.from_numpy((np.arange(SAMPLES, dtype=np.float64) / SAMPLES * 16 - 8).astype(np.float32))
            both = torch.cat([samples, near, near * 2.0**-12, near * 2.0**13])
            f.write(f"encode {name} {digest(0, bits(both.to(dtype))):016x}\n")


def pack(codes, nbits):
    """Least significant bit first, element after element."""
    flat = codes.reshape(-1).astype(np.int64) & ((1 << nbits) - 1)
    b = ((flat[:, None] >> np.arange(nbits)) & 1).astype(np.uint8).reshape(-1)
    return np.packbits(b, bitorder="little")


def weights_golden():
    rng = np.random.default_rng(20260101)
    tensors, cases = {}, []

    def add(case, value, **parts):
        name = f"case{len(cases):02d}"
        for part, data in parts.items():
            if data is not None:
                tensors[f"{name}.{part}"] = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8).copy()
        tensors[f"{name}.value"] = np.ascontiguousarray(value.astype(np.float32))
        cases.append(case)

    signed = {"int8": (-60, 61), "int4": (-8, 8)}
    unsigned = {"uint8": (0, 256), "uint4": (0, 16)}
    block = [
        ("int8", (6, 10), (6, 1), "float16", None),
        ("int8", (6, 10), (1, 1), "float32", "int8"),
        ("int4", (5, 64), (5, 2), "float16", None),
        ("int4", (7, 96), (7, 3), "float16", "int4"),
        ("uint4", (4, 6, 5), (2, 3, 1), "float32", "uint4"),
        ("uint8", (3, 4, 3, 3), (3, 1, 1, 1), "float16", "uint8"),
        ("int8", (4, 9), (1, 9), "float16", "int8"),
        ("uint8", (4, 9), (4, 9), "float32", "float32"),
        ("int8", (2, 6, 4, 8), (1, 3, 2, 4), "float32", "float32"),
        ("float16", (8, 6), (4, 3), "float16", None),
        ("int8", (12,), (4,), "float16", "float16"),
    ]
    for dtype, dim, sdim, sdtype, odtype in block:
        if dtype == "float16":
            data = rng.standard_normal(dim).astype(np.float16)
            stored = data
        else:
            lo, hi = {**signed, **unsigned}[dtype]
            data = rng.integers(lo, hi, dim)
            stored = pack(data, 4) if dtype.endswith("int4") else data.astype(dtype)
        scale = (rng.random(sdim) * 0.1 + 0.01).astype(sdtype)
        offset = stored_offset = None
        if odtype:
            if odtype.startswith("float"):
                offset = stored_offset = rng.standard_normal(sdim).astype(odtype)
            else:
                lo, hi = {**signed, **unsigned}[odtype]
                offset = rng.integers(lo, hi, sdim)
                stored_offset = pack(offset, 4) if odtype.endswith("int4") else offset.astype(odtype)
        # float32, so that data - offset cannot wrap as it does in small integers; the result in the scale's type
        wide = lambda x: None if x is None else x.astype(np.float32)
        value = constexpr_blockwise_shift_scale.decompress(wide(data), wide(scale), wide(offset)).astype(sdtype)
        add(
            dict(store="block", dim=dim, data=dtype, scale_dim=sdim, scale=sdtype, offset=odtype, value=sdtype),
            value, data=stored, scale=scale, offset=stored_offset,
        )

    lut = [
        (1, (5, 7), (1, 1), 1, None, "float16"),
        (2, (4, 6), (4, 1), 1, None, "float16"),
        (3, (6, 7), (2, 1), 1, None, "float32"),
        (4, (8, 12), (4, 1), 1, None, "float16"),
        (6, (9, 11), (1, 1), 1, None, "float16"),
        (8, (16, 20), (2, 5), 1, None, "float32"),
        (4, (4, 6, 10), (2, 3, 5), 1, None, "float16"),
        (3, (6, 4, 3, 3), (3, 2, 1, 1), 1, None, "float16"),
        (6, (5, 9), (5, 3), 1, None, "int8"),
        (2, (6, 8), (3, 1), 4, 0, "float16"),
        (4, (6, 8), (1, 2), 2, 1, "float16"),
        (3, (4, 6, 5), (2, 3, 1), 3, 1, "float32"),
        (8, (4, 5), (1, 1), 2, 0, "uint8"),
    ]
    for nbits, idim, gdim, vec, axis, dtype in lut:
        indices = rng.integers(0, 1 << nbits, idim).astype(np.uint8)
        shape = gdim + (1 << nbits, vec)
        table = rng.integers(-100 if dtype == "int8" else 0, 120, shape) if "int" in dtype else rng.standard_normal(shape)
        table = table.astype(dtype)
        value = constexpr_lut_to_dense.decompress(indices, table, None if axis is None else np.int32(axis))
        add(
            dict(store="lut", dim=value.shape, data=f"uint{nbits}", lut_dim=shape, lut=dtype, axis=axis or 0, value=dtype),
            value, data=pack(indices, nbits), lut=table,
        )
    save_file(tensors, os.path.join(GOLDEN, "weights.safetensors"), metadata={"cases": json.dumps(cases)})


convert_golden()
weights_golden()
