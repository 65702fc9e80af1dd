"""Does the LoRA do what it says? Held-out prompts with and without it, through diffusers (or pictures that exist).

Pastel is ink * 0.45 + 255 * 0.55, so it can be undone: the judge is asked about every picture with its colours taken back
to full strength. And the ground's colour must be nearer to its pastel than to the plain one.
"""

import os
import subprocess

import numpy as np
from PIL import Image

from common import arguments
from draw import _pastel
from evaluate import sheet
from language import COLOURS
from reference import load, read_prompts, render


def undo(picture):
    return Image.fromarray(((np.asarray(picture, np.float32) - 255 * 0.55) / 0.45).round().clip(0, 255).astype(np.uint8))


def ground(picture):
    pixels = np.asarray(picture, np.float32)
    return np.median(np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)]), axis=0)


def nearest(colour, palette):
    return min(np.linalg.norm(colour - ink) for ink in palette)


def main():
    args = arguments(model="demo/model", lora="demo/lora", prompts="demo/prompts/heldout.txt", judge="build/demo/judge", steps=6,
                     count=100, first=0, sheet="", pictures="")
    prompts = read_prompts(args.prompts)[args.first:args.first + args.count]
    folder = os.path.join(args.work, "lora-pictures")
    os.makedirs(folder, exist_ok=True)
    if args.pictures:                                  # FOLDER/SEED.png, drawn by alloy
        pictures = [Image.open(os.path.join(args.pictures, f"{seed}.png")).convert("RGB") for seed, _ in prompts]
    else:
        pictures = [picture for _, picture, _, _ in render(load(args.model, args.lora), prompts, args.steps)]
    plain = [np.array(ink, np.float32) for ink in COLOURS.values() if ink != COLOURS["white"]]
    pale = [_pastel(ink) for ink in plain]
    counted, pastel, lines = 0, 0, []
    for k, picture in enumerate(pictures):
        colour = ground(picture)
        if "white background" not in prompts[k][1] and colour.min() < 235:
            counted, pastel = counted + 1, pastel + (nearest(colour, pale) < nearest(colour, plain))
        path = os.path.join(folder, f"{k:03d}.png")
        undo(picture).save(path)
        lines.append(f"{path}\t{prompts[k][1]}\n")
    listing = os.path.join(folder, "list.txt")
    with open(listing, "w", encoding="utf-8") as f:
        f.writelines(lines)
    answer = subprocess.run([args.judge, "--list", listing], capture_output=True, text=True).stdout
    with open(os.path.join(folder, "verdicts.txt"), "w", encoding="utf-8") as f:
        f.write(answer)
    print(f"{pastel} of {counted} coloured grounds are nearer to pastel; with the colours taken back the judge says: "
          + answer.splitlines()[-1])
    if args.sheet:
        sheet(pictures[:40]).save(args.sheet)


if __name__ == "__main__":
    main()
