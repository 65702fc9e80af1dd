"""The same prompts and seeds through alloy and through diffusers: what the judge says of both, and how far apart they are.

demo/heldout.sh KIND has drawn alloy's pictures and their list; diffusers draws from the same checkpoint in float32.
"""

import os
import subprocess

import numpy as np
from PIL import Image

from common import arguments
from reference import load, read_prompts, render


def psnr(a, b):
    error = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean()
    return 10 * np.log10(255 ** 2 / max(error, 1e-4))


def main():
    args = arguments(model="demo/model", prompts="demo/prompts/heldout.txt", build="build/demo", kinds="float16", steps=6, count=300)
    prompts, pipe = read_prompts(args.prompts)[:args.count], load(args.model)
    folder = os.path.join(args.work, f"diffusers-{args.steps}")
    os.makedirs(folder, exist_ok=True)
    listing, pictures = os.path.join(folder, "list.txt"), []
    with open(listing, "w", encoding="utf-8") as f:
        for k, picture, _, _ in render(pipe, prompts, args.steps):
            picture.save(os.path.join(folder, f"{k:03d}.png"))
            f.write(f"{folder}/{k:03d}.png\t{prompts[k][1]}\n")
            pictures.append(picture)
    answer = subprocess.run([os.path.join(args.build, "judge"), "--list", listing], capture_output=True, text=True).stdout
    verdicts = [line.split("\t")[0] for line in answer.splitlines()[:len(prompts)]]
    print(f"diffusers, float32, {args.steps} steps: {verdicts.count('accepted')} of {len(prompts)} accepted")
    for kind in args.kinds.split(","):
        at = os.path.join(args.build, f"heldout-{kind}-{args.steps}")
        with open(os.path.join(at, "verdicts.txt"), encoding="utf-8") as f:
            mine = [line.split("\t")[0] for line in f.read().splitlines()[:len(prompts)]]
        near = np.array([psnr(pictures[k], Image.open(os.path.join(at, f"{seed}.png"))) for k, (seed, _) in enumerate(prompts)])
        print(f"{kind}: {mine.count('accepted')} of {len(prompts)} accepted, {sum(a != b for a, b in zip(mine, verdicts))} verdicts differ; "
              f"PSNR against diffusers: least {near.min():.1f}, median {np.median(near):.1f} dB, "
              f"{(near >= 40).sum()} of {len(near)} at 40 dB or more")


if __name__ == "__main__":
    main()
