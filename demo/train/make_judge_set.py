"""Draws the judge's own test: sheets of pictures, and for each its prompt and prompts that differ in one attribute.

Written: sheet-N.png (100 pictures each, ten a row) and prompts.txt, one line a picture in the sheets' order:
the true prompt, then the false ones, between tabs.
"""

import copy
import os

import numpy as np
from PIL import Image

from common import arguments
from draw import SIDE, draw
from language import COLOURS, LAYOUTS, SHAPES, Thing, phrase, random_scene, rng_for

OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def other(rng, values, *taken):
    return rng.choice([v for v in values if v not in taken])


def change(rng, scene, what):
    """The scene with one attribute changed, or None where it has no such attribute; and words that must be said."""
    scene = copy.deepcopy(scene)
    things = scene.things if scene.kind == "many" else [rng.choice(scene.things)]
    first, words = things[0], ""
    if what == "colour":
        new = other(rng, COLOURS, first.colour, scene.background)
        for thing in things:
            thing.colour = new
    elif what == "shape":
        new = other(rng, SHAPES, first.shape)
        for thing in things:
            thing.shape = new
    elif what == "size":
        new = other(rng, ("small", "big"), first.size)
        for thing in things:
            thing.size = new
    elif what == "background":
        scene.background = words = other(rng, COLOURS, scene.background, *(t.colour for t in scene.things))
    elif what == "count" and scene.kind != "pair":
        number = other(rng, LAYOUTS, len(scene.things))
        scene.kind, first.column, first.row = "many", "centre", "centre"
        scene.things = [Thing(first.shape, first.colour, first.size, x=x, y=y) for x, y in LAYOUTS[number]]
    elif what == "place" and scene.kind == "one":
        places = [(c, r) for c in ("left", "centre", "right") for r in ("top", "centre", "bottom")]
        first.column, first.row = other(rng, places, ("centre", "centre"), (first.column, first.row))
    elif what == "place" and scene.relation in OPPOSITE:
        scene.relation = OPPOSITE[scene.relation]
    else:
        return None, words
    return scene, words


def false_prompts(rng, scene):
    out = []
    for what in ("colour", "shape", "size", "background", "count", "place"):
        changed, words = change(rng, scene, what)
        if changed is None:
            continue
        prompt = phrase(rng, changed)
        while words not in prompt:
            prompt = phrase(rng, changed)
        out.append(prompt)
    return out


def main():
    args = arguments(out="demo/judge/drawn", sheets=4)
    os.makedirs(args.out, exist_ok=True)
    lines = []
    for sheet in range(args.sheets):
        pixels = np.empty((10 * SIDE, 10 * SIDE, 3), np.uint8)
        for k in range(100):
            rng = rng_for("judge set", sheet, k)
            scene = random_scene(rng)
            y, x = k // 10 * SIDE, k % 10 * SIDE
            pixels[y:y + SIDE, x:x + SIDE] = draw(rng, scene).round().clip(0, 255)
            lines.append("\t".join([phrase(rng, scene)] + false_prompts(rng, scene)) + "\n")
        Image.fromarray(pixels).save(os.path.join(args.out, f"sheet-{sheet}.png"), optimize=True)
    with open(os.path.join(args.out, "prompts.txt"), "w", encoding="utf-8") as f:
        f.writelines(lines)


if __name__ == "__main__":
    main()
