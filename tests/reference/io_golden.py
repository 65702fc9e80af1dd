# SPDX-License-Identifier: MIT
"""Golden data for tests/io: small pictures of every kind, written and decoded by Pillow.
Rewrites tests/golden/pictures.safetensors: NAME.file holds a file's bytes, NAME.pixels [h, w, channels] what it decodes to.

    python tests/reference/io_golden.py
"""
import io
import os

import numpy as np
from PIL import Image, PngImagePlugin
from safetensors.numpy import save_file

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "pictures.safetensors")


def main():
    y, x = np.mgrid[0:13, 0:19]
    rgb = np.stack([x * 13, y * 19, (x * y) % 256], -1).astype(np.uint8)
    alpha = ((x + y) * 8).astype(np.uint8)
    rgba = np.concatenate([rgb, alpha[..., None]], -1)
    tensors = {}

    def add(name, image, mode, **options):
        f = io.BytesIO()
        image.save(f, **options)
        tensors[f"{name}.file"] = np.frombuffer(f.getvalue(), np.uint8).copy()
        pixels = np.asarray(Image.open(io.BytesIO(f.getvalue())).convert(mode))
        tensors[f"{name}.pixels"] = np.ascontiguousarray(pixels.reshape(13, 19, -1))

    color, gray = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "a fox\nSteps: 4, Seed: 7")
    text.add_text("Comment", "caf\u00e9")
    text.add_itxt("more", "\u72d0\u72f8 in the snow", zip=True)
    text.add_text("packed", "word " * 50, zip=True)
    add("png-rgb", color, "RGB", format="PNG", pnginfo=text)
    add("png-rgba", Image.fromarray(rgba), "RGBA", format="PNG")
    add("png-gray", gray, "L", format="PNG")
    add("png-gray-alpha", Image.merge("LA", [gray, Image.fromarray(alpha)]), "RGBA", format="PNG")
    add("png-one-bit", gray.point(lambda v: 255 * (v > 100)).convert("1"), "L", format="PNG")
    palette = color.quantize(16)
    add("png-palette", palette, "RGB", format="PNG")
    add("png-palette-clear", palette, "RGBA", format="PNG", transparency=3)
    add("jpeg-rgb", color, "RGB", format="JPEG", quality=90)
    add("jpeg-progressive", color, "RGB", format="JPEG", quality=90, progressive=True, subsampling=0)
    add("jpeg-gray", gray, "L", format="JPEG", quality=90)
    add("webp-lossless", color, "RGB", format="WEBP", lossless=True)
    add("webp-alpha", Image.fromarray(rgba), "RGBA", format="WEBP", lossless=True, exact=True)
    add("webp-lossy", color, "RGB", format="WEBP", quality=90)

    # 16 bits a channel, whose high bytes are the picture: scaling gives the same 8 bits
    f = io.BytesIO()
    Image.fromarray((rgb[..., 0].astype(np.uint16) * 257)).save(f, format="PNG")
    tensors["png-16-bit.file"] = np.frombuffer(f.getvalue(), np.uint8).copy()
    tensors["png-16-bit.pixels"] = np.ascontiguousarray(rgb[..., :1])

    # four inks: Pillow writes them as Adobe does, inverted
    cmyk = color.convert("CMYK")
    f = io.BytesIO()
    cmyk.save(f, format="JPEG", quality=95, subsampling=0)
    back = np.asarray(Image.open(io.BytesIO(f.getvalue()))).astype(np.int32)
    light = (255 - back[..., :3]) * (255 - back[..., 3:])
    tensors["jpeg-cmyk.file"] = np.frombuffer(f.getvalue(), np.uint8).copy()
    tensors["jpeg-cmyk.pixels"] = np.ascontiguousarray(((light + 127) // 255).astype(np.uint8))

    f = io.BytesIO()
    color.save(f, format="WEBP", save_all=True, append_images=[gray.convert("RGB")], lossless=True)
    tensors["animated.file"] = np.frombuffer(f.getvalue(), np.uint8).copy()
    save_file(tensors, OUT)


main()
