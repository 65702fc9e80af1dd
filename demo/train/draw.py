"""Draws scenes: 128 x 128, anti-aliased from exact distances, with a little freedom in place, size and colour."""

import math

import numpy as np

from language import COLOURS, SHAPES, SIZES

SIDE = 128


def _polygon(points):
    return np.array(points, dtype=np.float32)


def _star():
    out = []
    for k in range(10):
        radius = 1.22 if k % 2 == 0 else 0.62
        angle = math.pi * k / 5
        out.append((radius * math.sin(angle), -radius * math.cos(angle) + 0.06))
    return _polygon(out)


# Corners in units of the size's radius, y down. The judge knows the same outlines.
POLYGONS = {
    "square": _polygon([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
    "triangle": _polygon([(0, -1.05), (1.1, 0.9), (-1.1, 0.9)]),
    "star": _star(),
    "cross": _polygon([(-.36, -1.05), (.36, -1.05), (.36, -.36), (1.05, -.36), (1.05, .36), (.36, .36), (.36, 1.05),
                       (-.36, 1.05), (-.36, .36), (-1.05, .36), (-1.05, -.36), (-.36, -.36)]),
}
RING_HOLE = 0.56


def _polygon_distance(px, py, corners):
    """signed distance to a closed outline, negative inside"""
    best = np.full(px.shape, 1e9, np.float32)
    inside = np.zeros(px.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0)):
        ex, ey, wx, wy = bx - ax, by - ay, px - ax, py - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        if ay != by:
            inside ^= ((ay > py) != (by > py)) & (px < ex * (py - ay) / ey + ax)
    best = np.sqrt(best)
    return np.where(inside, -best, best)


def distance(shape, radius, px, py, turn=0.0):
    """signed distance in pixels from points given relative to the shape's centre"""
    if shape == "circle":
        return np.hypot(px, py) - radius
    if shape == "ring":
        middle, half = radius * (1 + RING_HOLE) / 2, radius * (1 - RING_HOLE) / 2
        return np.abs(np.hypot(px, py) - middle) - half
    corners = POLYGONS[shape] * radius
    if turn:
        c, s = math.cos(turn), math.sin(turn)
        corners = corners @ np.array([[c, s], [-s, c]], np.float32)
    return _polygon_distance(px, py, corners)


def paint(picture, shape, radius, x, y, ink, turn=0.0, outline=None):
    """Blends one shape into a float picture [SIDE, SIDE, 3]; outline is (ink, width) or None."""
    reach = radius * 1.35 + 3
    x0, x1 = max(0, int(x - reach)), min(SIDE, int(x + reach) + 2)
    y0, y1 = max(0, int(y - reach)), min(SIDE, int(y + reach) + 2)
    if x0 >= x1 or y0 >= y1:
        return
    py, px = np.mgrid[y0:y1, x0:x1].astype(np.float32) + 0.5
    d = distance(shape, radius, px - x, py - y, turn)
    view = picture[y0:y1, x0:x1]
    cover = np.clip(0.5 - d, 0, 1)[..., None]
    view += cover * (np.asarray(ink, np.float32) - view)
    if outline:
        cover = np.clip(0.5 - (np.abs(d + outline[1] / 2) - outline[1] / 2), 0, 1)[..., None]
        view += cover * (np.asarray(outline[0], np.float32) - view)


def _tint(rng, colour, amount=7):
    return np.array([min(255, max(0, v + rng.uniform(-amount, amount))) for v in COLOURS[colour]], np.float32)


def _pastel(ink):
    return ink * 0.45 + 255 * 0.55


def draw(rng, scene, style="", freedom=1.0):
    """The picture of a scene as float32 [SIDE, SIDE, 3] in 0..255; style is "", "outlined" or "pastel".

    freedom scales how far place, size and colour stray from what the scene says: 1 for the autoencoder and the judge's
    own test, less for the transformer, whose pictures are the sharper the less of a scene is left to chance.
    """
    tint, push, swell = 7 * freedom, 2.5 * freedom, 0.04 * freedom
    ground = _tint(rng, scene.background, tint)
    shared = _tint(rng, scene.things[0].colour, tint)
    stretch = rng.uniform(1 - swell, 1 + swell)
    if style == "pastel":
        ground = _pastel(ground)
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = ground
    for k, thing in enumerate(scene.things):
        ink = shared if scene.kind == "many" or k == 0 else _tint(rng, thing.colour, tint)
        radius = SIZES[thing.size] * (stretch if scene.kind == "many" else rng.uniform(1 - swell, 1 + swell))
        x, y = thing.x + rng.uniform(-push, push), thing.y + rng.uniform(-push, push)
        outline = None
        if style == "outlined":
            dark = ground.mean() < 70
            outline = ((250, 250, 250) if dark else (10, 10, 12), 3.0)
        paint(picture, thing.shape, radius, x, y, _pastel(ink) if style == "pastel" else ink, outline=outline)
    return picture


def free_drawing(rng):
    """A picture without a prompt, for the autoencoder: any colours, places and turns."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)

    def ink():
        if rng.random() < 0.5:
            return _tint(rng, rng.choice(list(COLOURS)), 12)
        return np.array([rng.uniform(0, 255) for _ in range(3)], np.float32)
    picture[:] = ink()
    for _ in range(rng.choice([1, 2, 3, 4, 5])):
        outline = ((ink()), rng.uniform(2, 4)) if rng.random() < 0.25 else None
        paint(picture, rng.choice(SHAPES), rng.uniform(10, 30), rng.uniform(10, 118), rng.uniform(10, 118), ink(),
              rng.uniform(-0.3, 0.3) if rng.random() < 0.5 else 0.0, outline)
    return picture
