# SPDX-License-Identifier: MIT
"""Every type of GGUF that is read, as the gguf package writes it, and the numbers it dequantises them to.

    python tests/reference/gguf_files.py    # rewrites tests/golden/gguf/

The packed bytes are random, but for the float16 scales, which are kept finite: every bit of every field counts. single/t5_llama.txt has
llama.cpp's names of a T5 encoder's tensors, from the gguf package's own map.
"""
import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "golden", "gguf")

# type: where its float16 numbers are in a block
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}


def packed(rng, kind, rows, blocks):
    _, size = gguf.GGML_QUANT_SIZES[kind]
    b = rng.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    for at in HALVES[kind]:
        d = np.float16(rng.standard_normal(rows * blocks) * np.exp(rng.uniform(-9, 1, rows * blocks)))
        d[0] = np.float16(6e-8)  # subnormal
        b[:, at : at + 2] = d.view(np.uint8).reshape(-1, 2)
    return b.reshape(rows, blocks * size)


def main():
    os.makedirs(ROOT, exist_ok=True)
    rng = np.random.default_rng(11)
    w = gguf.GGUFWriter(os.path.join(ROOT, "types.gguf"), "flux")
    w.add_quantization_version(2)
    w.add_file_type(7)
    w.add_string("general.name", "types")
    w.add_array("some.texts", ["a", "b\u00e4"])
    w.add_array("some.numbers", [1.5, 2.5])
    w.add_bool("some.truth", True)
    want = {}
    for name, x in [("f32", rng.standard_normal((3, 5)).astype(np.float32)), ("f16", rng.standard_normal((2, 3, 4)).astype(np.float16)),
                    ("one", rng.standard_normal(7).astype(np.float32))]:
        w.add_tensor(name, x)
        want[name] = x.astype(np.float32)
    x = rng.standard_normal((4, 6)).astype(np.float32)
    bf16 = gguf.quants.quantize(x, Q.BF16)
    w.add_tensor("bf16", bf16, raw_dtype=Q.BF16)
    want["bf16"] = gguf.quants.dequantize(bf16, Q.BF16)
    for kind in HALVES:
        large = gguf.GGML_QUANT_SIZES[kind][0] == 256
        b = packed(rng, kind, 2 if large else 5, 2 if large else 3)
        w.add_tensor(kind.name.lower(), b, raw_dtype=kind)
        want[kind.name.lower()] = gguf.quants.dequantize(b, kind).astype(np.float32)
    b = packed(rng, Q.Q4_K, 3, 1)  # a convolution [16, 16, 3, 1] written as rows of 256
    w.add_array("comfy.gguf.orig_shape.conv.weight", [16, 16, 3, 1])
    w.add_tensor("conv.weight", b, raw_dtype=Q.Q4_K)
    want["conv.weight"] = gguf.quants.dequantize(b, Q.Q4_K).reshape(16, 16, 3, 1).astype(np.float32)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    save_file(want, os.path.join(ROOT, "types.safetensors"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 99)
    with open(os.path.join(ROOT, "..", "single", "t5_llama.txt"), "w") as f:
        for line in open(os.path.join(HERE, "..", "golden", "flux", "a", "text_encoder_2", "manifest.txt")):
            if line[0] not in "#@":
                old = line.split()[0]
                new = names.get_name(old, try_suffixes=(".weight",))
                f.write(f"= {new} text_encoder_2/{old}\n")


if __name__ == "__main__":
    main()
