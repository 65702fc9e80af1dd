"""Gives both text encoders a head start: they learn to say what is where, before any picture is made.

Small heads, thrown away afterwards, must name the thing in each of nine places and the background: one linear layer
on CLIP's pooled output, one layer of cross-attention on T5's. The transformer then trains both further.
"""

import os
import time

import torch
from torch import nn

from common import Average, Log, arguments, cosine, save_atomically
from language import COLOURS, SHAPES, SIZES, phrase, rng_for, training_scene
from models import CLIP_WIDTH, T5_WIDTH, load_tokenizers, make_clip, make_t5, tokens

FIELDS = [(SHAPES, "shape"), (list(COLOURS), "colour"), (list(SIZES), "size")]
WIDTHS = [1 + len(values) for values, _ in FIELDS]
PLACES = 9


def place(thing):
    return int(thing.y // 43) * 3 + int(thing.x // 43)


def labels(scenes):
    """[count, 9, 3] of shape, colour and size (0: nothing there) and [count] of backgrounds"""
    what = torch.zeros(len(scenes), PLACES, len(FIELDS), dtype=torch.long)
    for k, scene in enumerate(scenes):
        for thing in scene.things:
            for f, (values, name) in enumerate(FIELDS):
                what[k, place(thing), f] = 1 + values.index(getattr(thing, name))
    return what, torch.tensor([list(COLOURS).index(s.background) for s in scenes])


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.pooled = nn.Linear(CLIP_WIDTH, PLACES * sum(WIDTHS) + len(COLOURS))
        self.queries = nn.Parameter(torch.randn(PLACES + 1, T5_WIDTH) * 0.5)
        self.attention = nn.MultiheadAttention(T5_WIDTH, 4, batch_first=True)
        self.things, self.ground = nn.Linear(T5_WIDTH, sum(WIDTHS)), nn.Linear(T5_WIDTH, len(COLOURS))

    def forward(self, pooled, words):
        flat = self.pooled(pooled)
        seen = self.attention(self.queries.expand(len(words), -1, -1), words, words, need_weights=False)[0]
        return ((flat[:, :-len(COLOURS)].unflatten(1, (PLACES, -1)), flat[:, -len(COLOURS):]),
                (self.things(seen[:, :PLACES]), self.ground(seen[:, PLACES])))


def judge_heads(guesses, what, ground):
    """loss, and the share of prompts understood in full"""
    things, back = guesses
    loss, right = nn.functional.cross_entropy(back, ground), back.argmax(-1) == ground
    for f, part in enumerate(things.split(WIDTHS, dim=-1)):
        loss = loss + 3 * nn.functional.cross_entropy(part.flatten(0, 1), what[..., f].flatten())
        right = right & (part.argmax(-1) == what[..., f]).all(-1)
    return loss, right.float().mean().item()


def main():
    args = arguments(model="demo/model", steps=2500, batch=192, rate=3e-3, seed=2, save_seconds=120)
    torch.manual_seed(args.seed)
    tokenizers = load_tokenizers(args.model)
    nets = nn.ModuleDict({"clip": make_clip(tokenizers[0]), "t5": make_t5(tokenizers[1]), "heads": Heads()})
    average = Average(nets, 0.998)
    optimizer = torch.optim.AdamW(nets.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=1e-3)
    path, step, spent = os.path.join(args.work, "text.pt"), 0, 0.0
    if os.path.exists(path):
        state = torch.load(path)
        nets.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.weights, average.steps = state["average"], state["step"]
        step, spent = state["step"], state["spent"]
    log, saved, began = Log(os.path.join(args.work, "text.csv"), ["loss", "clip", "t5"]), time.time(), time.time() - spent
    while step < args.steps:
        rng = rng_for("text", args.seed, step)
        scenes = [training_scene(rng) for _ in range(args.batch)]
        ids = tokens(*tokenizers, [phrase(rng, s) for s in scenes], rng.choice([20, 20, 24, 32]))
        what, ground = labels(scenes)
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, args.steps, args.rate, args.rate / 50, 100)
        by_clip, by_t5 = nets["heads"](nets["clip"](ids[0]).pooler_output, nets["t5"](ids[1])[0])
        (loss_a, right_a), (loss_b, right_b) = judge_heads(by_clip, what, ground), judge_heads(by_t5, what, ground)
        optimizer.zero_grad(set_to_none=True)
        (loss_a + loss_b).backward()
        torch.nn.utils.clip_grad_norm_(nets.parameters(), 1.0)
        optimizer.step()
        average.update(nets)
        log.add((loss_a + loss_b).item(), right_a, right_b)
        step += 1
        if step % 50 == 0:
            log.write(step, time.time() - began)
        if time.time() - saved > args.save_seconds or step == args.steps:
            saved = time.time()
            save_atomically({"model": nets.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                             "average": average.weights, "spent": time.time() - began}, path)


if __name__ == "__main__":
    main()
