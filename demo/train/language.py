"""The demo's little language: what can be said, how it is said, and what is kept out of training.

A scene is plain data: a background colour and one to four objects. `phrase` says a scene in one of many
wordings; `held_out` names the combinations that no training picture ever shows.
"""

import random
import zlib
from dataclasses import dataclass, field

COLOURS = {
    "red": (214, 36, 40),
    "orange": (247, 136, 18),
    "yellow": (252, 222, 48),
    "green": (32, 158, 72),
    "blue": (36, 84, 214),
    "purple": (140, 52, 176),
    "white": (246, 246, 244),
    "black": (20, 20, 24),
}
SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"]
SIZES = {"small": 14.0, "medium": 19.0, "big": 24.5}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
GRID = {"left": 32.0, "top": 32.0, "centre": 64.0, "right": 96.0, "bottom": 96.0}

SHAPE_WORDS = {
    "circle": [("circle", "circles"), ("disc", "discs"), ("dot", "dots")],
    "square": [("square", "squares"), ("box", "boxes")],
    "triangle": [("triangle", "triangles")],
    "star": [("star", "stars")],
    "cross": [("cross", "crosses"), ("plus", "pluses")],
    "ring": [("ring", "rings"), ("hoop", "hoops")],
}
SIZE_WORDS = {"small": ["small", "small", "tiny", "little"], "big": ["big", "big", "large", "huge"],
              "medium": ["", "", "medium"]}
TOP_WORDS = {"top": ["top", "top", "upper"], "bottom": ["bottom", "bottom", "lower"]}

HELD_PAIRS = {("purple", "star"), ("orange", "cross")}
LAYOUTS = {2: [(32, 64), (96, 64)], 3: [(64, 32), (32, 96), (96, 96)], 4: [(32, 32), (96, 32), (32, 96), (96, 96)]}


@dataclass
class Thing:
    shape: str
    colour: str
    size: str
    column: str = "centre"
    row: str = "centre"
    x: float = 64.0
    y: float = 64.0


@dataclass
class Scene:
    kind: str                     # "one", "pair" or "many"
    background: str
    things: list = field(default_factory=list)
    relation: str = ""            # pair: "left", "right", "above", "below" (first thing to the second), or "and"


def _kept_out(key):
    return zlib.crc32(key.encode()) % 8 == 0


def has_held_pair(scene):
    return any((t.colour, t.shape) in HELD_PAIRS for t in scene.things)


def held_out(scene):
    """True for the combinations that training never sees."""
    if has_held_pair(scene):
        return True
    first = scene.things[0]
    if scene.kind == "one":
        return _kept_out(f"{first.colour} {first.shape} on {scene.background}")
    if scene.kind == "pair":
        second = scene.things[1]
        return _kept_out(f"{first.colour} {first.shape} with {second.colour} {second.shape}")
    return _kept_out(f"{len(scene.things)} {first.colour} {first.shape}")


def random_scene(rng):
    kind = rng.choices(["one", "pair", "many"], [0.35, 0.4, 0.25])[0]
    background = rng.choice(list(COLOURS))
    inks = [c for c in COLOURS if c != background]
    sizes = list(SIZES)
    if kind == "one":
        thing = Thing(rng.choice(SHAPES), rng.choice(inks), rng.choice(sizes))
        if rng.random() < 0.75:
            thing.column = rng.choice(["left", "centre", "right"])
            thing.row = rng.choice(["top", "centre", "bottom"])
        thing.x, thing.y = GRID[thing.column], GRID[thing.row]
        return Scene(kind, background, [thing])
    if kind == "many":
        number = rng.choice([2, 3, 4])
        shape, ink, size = rng.choice(SHAPES), rng.choice(inks), rng.choice(sizes)
        return Scene(kind, background, [Thing(shape, ink, size, x=x, y=y) for x, y in LAYOUTS[number]])
    while True:
        a, b = (Thing(rng.choice(SHAPES), rng.choice(inks), rng.choice(sizes)) for _ in range(2))
        if (a.shape, a.colour) != (b.shape, b.colour):
            break
    relation = rng.choice(["left", "right", "above", "below", "and"])
    near, far = 32.0, 96.0
    if relation in ("left", "and"):
        a.column, a.x, b.column, b.x = "left", near, "right", far
    elif relation == "right":
        a.column, a.x, b.column, b.x = "right", far, "left", near
    elif relation == "above":
        a.row, a.y, b.row, b.y = "top", near, "bottom", far
    else:
        a.row, a.y, b.row, b.y = "bottom", far, "top", near
    return Scene(kind, background, [a, b], relation)


def training_scene(rng):
    while True:
        scene = random_scene(rng)
        if not held_out(scene):
            return scene


def held_out_scene(rng):
    while True:
        scene = random_scene(rng)
        if held_out(scene):
            return scene


def _noun(rng, thing, plural=False):
    """size, colour and shape words, without the article"""
    words = [rng.choice(SIZE_WORDS[thing.size]), thing.colour]
    if rng.random() < 0.1:
        words.reverse()
    words.append(rng.choice(SHAPE_WORDS[thing.shape])[1 if plural else 0])
    return " ".join(w for w in words if w)


def _one(rng, thing):
    noun = _noun(rng, thing)
    if rng.random() < 0.15:
        return "one " + noun
    if rng.random() < 0.1:
        return noun
    return ("an " if noun[0] == "o" else "a ") + noun


def _place(rng, thing):
    """where a lone thing is, or an empty string for the middle"""
    column, row = thing.column, thing.row
    if column == row == "centre":
        return rng.choice(["", "", "", "in the middle", "in the centre", "in the center"])
    if row == "centre":
        return rng.choice(["on the ", "at the "]) + column + rng.choice(["", "", " side"])
    if column == "centre":
        return "at the " + row
    corner = rng.choice(TOP_WORDS[row]) + " " + column
    return rng.choice(["in the ", "at the "]) + corner + rng.choice(["", " corner", " corner"])


def _subject(rng, scene):
    first = scene.things[0]
    if scene.kind == "many":
        return NUMBERS[len(scene.things)] + " " + _noun(rng, first, plural=True)
    if scene.kind == "one":
        place, noun = _place(rng, first), _one(rng, first)
        if not place:
            return noun
        if rng.random() < 0.25:
            return place + rng.choice([" ", ", "]) + noun
        return noun + " " + place
    a, b = (_one(rng, t) for t in scene.things)
    if scene.relation == "and":
        return a + rng.choice([" and ", " and ", " next to ", " beside "]) + b
    if scene.relation in ("left", "right"):
        other = "right" if scene.relation == "left" else "left"
        if rng.random() < 0.3:
            return f"{a} on the {scene.relation} and {b} on the {other}"
        return a + rng.choice([" to the ", " "]) + scene.relation + " of " + b
    if rng.random() < 0.3:
        ends = ("top", "bottom") if scene.relation == "above" else ("bottom", "top")
        return f"{a} at the {ends[0]} and {b} at the {ends[1]}"
    return a + " " + rng.choice(["above", "over"] if scene.relation == "above" else ["below", "under"]) + " " + b


def default_background(scene):
    """the background of a picture whose prompt names none"""
    return "black" if any(t.colour == "white" for t in scene.things) else "white"


def phrase(rng, scene):
    """One of the many ways to say the scene."""
    subject, ground = _subject(rng, scene), scene.background
    if ground == default_background(scene) and rng.random() < 0.6:
        return subject
    article = "an" if ground[0] == "o" else "a"
    way = rng.random()
    if way < 0.45:
        return f"{subject} on {article} {ground} background"
    if way < 0.65:
        return f"{subject} on {ground}"
    if way < 0.75:
        return f"{subject}, {ground} background"
    if way < 0.85:
        return f"{subject} against {article} {ground} background"
    return f"{ground} background, {subject}"


def rng_for(*parts):
    return random.Random("|".join(str(p) for p in parts))
