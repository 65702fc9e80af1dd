"""Writes demo/prompts/heldout.txt: 300 prompts and seeds, every one of a combination that training never showed."""

import os

from common import arguments
from language import has_held_pair, held_out_scene, phrase, rng_for


def main():
    args = arguments(out="demo/prompts", count=300)
    rng, said, lines = rng_for("held out prompts"), set(), []
    while len(lines) < args.count:
        scene, wants_pair = held_out_scene(rng), len(lines) % 8 == 0
        if has_held_pair(scene) != wants_pair:      # one in eight holds a colour and shape never shown together
            continue
        prompt = phrase(rng, scene)
        if prompt not in said:
            said.add(prompt)
            lines.append(f"{1000 + len(lines)}\t{prompt}\n")
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "heldout.txt"), "w", encoding="utf-8") as f:
        f.write("# seed<TAB>prompt; every one is of a combination kept out of training\n" + "".join(lines))


if __name__ == "__main__":
    main()
