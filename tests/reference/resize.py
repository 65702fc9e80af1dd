# SPDX-License-Identifier: MIT
"""Golden data for pictures made ready for models: Pillow's LANCZOS resize, gray, EXIF orientation, 16 bits (tests/golden/resize.safetensors).

    python tests/reference/resize.py     # Pillow 13 or later: earlier ones always resize rows first
"""
import io
import os

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = [(23, 17, 31, 29), (30, 24, 11, 7), (9, 28, 26, 6), (12, 5, 12, 13), (20, 27, 7, 27), (1, 9, 4, 3), (40, 33, 39, 21), (40, 33, 30, 25)]

rng = np.random.default_rng(20)
out = {}
for i, (w, h, to_w, to_h) in enumerate(SIZES):
    channels = 1 if i % 3 == 2 else 3
    a = rng.integers(0, 256, (h, w, channels), dtype=np.uint8)
    im = Image.fromarray(a.squeeze(-1) if channels == 1 else a).resize((to_w, to_h), Image.LANCZOS)
    out[f"{i}.in"] = torch.from_numpy(a)
    out[f"{i}.out"] = torch.from_numpy(np.array(im).reshape(to_h, to_w, channels))
    out[f"{i}.gray"] = torch.from_numpy(np.array(im.convert("L")))
small = Image.fromarray(np.kron(rng.integers(0, 256, (2, 3, 3), dtype=np.uint8), np.ones((8, 8, 1), dtype=np.uint8)))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    small.save(file, "JPEG", exif=exif, quality=90)
    upright = ImageOps.exif_transpose(Image.open(file))
    out[f"exif{orientation}.file"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    out[f"exif{orientation}.pixels"] = torch.from_numpy(np.array(upright))
for orientation in range(1, 9):  # in a PNG's chunk; in a WebP's, which some begin as a JPEG's segment
    for kind, options in (("png", dict(format="PNG")), ("webp", dict(format="WEBP", lossless=True))):
        exif = Image.Exif()
        exif[0x112] = orientation
        file = io.BytesIO()
        small.save(file, exif=exif if orientation % 2 else exif.tobytes(), **options)
        out[f"{kind}{orientation}.file"] = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
        out[f"{kind}{orientation}.pixels"] = torch.from_numpy(np.array(ImageOps.exif_transpose(Image.open(file)).convert("RGB")))
deep = rng.integers(0, 65536, (8, 9, 4), dtype=np.uint16)  # 16 bits a channel; Pillow cannot write them
for name, a in (("deep1", deep[..., :3]), ("deep2", deep)):
    file = cv2.imencode(".png", a)[1].tobytes()
    out[f"{name}.file"] = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    out[f"{name}.pixels"] = torch.from_numpy(np.array(Image.open(io.BytesIO(file))))
save_file({k: v.contiguous() for k, v in out.items()}, os.path.join(HERE, "..", "golden", "resize.safetensors"))
