"""Draws the logs' loss curves, one under the other, into loss.png."""

import csv
import math
import os
import sys

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 760, 220, 46
INKS = [(36, 84, 214), (214, 36, 40), (32, 158, 72), (140, 52, 176)]


def read(path):
    with open(path, newline="") as f:
        rows = list(csv.reader(f))
    kept = [k for k, name in enumerate(rows[0]) if name != "rate"]
    rows = [[row[k] for k in kept] for row in rows]
    return rows[0], [[float(v) for v in row] for row in rows[1:]]


def curve(draw, top, path):
    names, rows = read(path)
    values = [v for row in rows for v in row[2:] if v > 0]
    low, high = math.log(min(values)), math.log(max(values) * 1.1)
    last = rows[-1][0]

    def at(step, value):
        return (MARGIN + (WIDTH - 2 * MARGIN) * step / last,
                top + HEIGHT - 24 - (HEIGHT - 60) * (math.log(max(value, 1e-9)) - low) / (high - low))
    draw.rectangle([MARGIN, top + 36, WIDTH - MARGIN, top + HEIGHT - 24], outline=(180, 180, 180))
    draw.text((MARGIN, top + 8), f"{os.path.basename(path)}: {last:.0f} steps, {rows[-1][1] / 60:.0f} minutes (log scale)",
              fill=(0, 0, 0))
    for edge in (math.exp(low), math.exp(high)):
        draw.text((2, at(0, edge)[1] - 6), f"{edge:.3g}", fill=(90, 90, 90))
    for k, name in enumerate(names[2:]):
        points = [at(row[0], row[2 + k]) for row in rows if row[2 + k] > 0]
        if len(points) > 1:
            draw.line(points, fill=INKS[k], width=2)
        draw.text((MARGIN + 8 + 110 * k, top + 22), name, fill=INKS[k])


def main():
    *paths, out = sys.argv[1:]
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(paths)), "white")
    for k, path in enumerate(paths):
        curve(ImageDraw.Draw(picture), k * HEIGHT, path)
    picture.quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main()
