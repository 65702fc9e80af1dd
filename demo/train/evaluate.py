"""Renders the held-out prompts through diffusers at several step counts and asks the judge about every picture."""

import math
import os
import subprocess

import numpy as np
from PIL import Image

from common import arguments
from reference import load, read_prompts, render


def sheet(pictures, columns=10):
    """one picture of many, 4 pixels apart"""
    side, rows = pictures[0].size[0], math.ceil(len(pictures) / columns)
    out = np.full((rows * (side + 4) - 4, columns * (side + 4) - 4, 3), 128, np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * (side + 4), k % columns * (side + 4)
        out[y:y + side, x:x + side] = np.asarray(picture)
    return Image.fromarray(out)


def main():
    args = arguments(model="demo/model", prompts="demo/prompts/heldout.txt", judge="build/judge", steps="4,6,8",
                     count=300, sheet="", out="")
    out = args.out or os.path.join(args.work, "pictures")
    prompts, pipe = read_prompts(args.prompts)[:args.count], load(args.model)
    for steps in (int(s) for s in args.steps.split(",")):
        folder, shown = os.path.join(out, str(steps)), []
        os.makedirs(folder, exist_ok=True)
        listing = os.path.join(folder, "list.txt")
        with open(listing, "w", encoding="utf-8") as f:
            for k, picture, _, _ in render(pipe, prompts, steps):
                picture.save(os.path.join(folder, f"{k:03d}.png"))
                f.write(f"{os.path.join(folder, f'{k:03d}.png')}\t{prompts[k][1]}\n")
                shown.append(picture)
        answer = subprocess.run([args.judge, "--list", listing], capture_output=True, text=True)
        with open(os.path.join(folder, "verdicts.txt"), "w", encoding="utf-8") as f:
            f.write(answer.stdout)
        print(f"{steps} steps: {answer.stdout.splitlines()[-1]} {answer.stderr.strip()}", flush=True)
        if args.sheet:
            sheet(shown[:100]).save(args.sheet.replace(".png", f"-{steps}.png"))


if __name__ == "__main__":
    main()
