"""What every training script shares: where things lie, averaged weights, checkpoints that resume, the log."""

import argparse
import csv
import math
import os
import sys
import time

import numpy as np
import torch


def arguments(**defaults):
    """Options from keyword defaults; --work is where checkpoints lie."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", default="build/demo-train", help="folder for checkpoints and caches")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    for name, value in defaults.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    torch.set_num_threads(args.threads)
    with open(os.path.join(args.work, os.path.basename(sys.argv[0]) + ".pid"), "w") as f:
        f.write(f"{os.getpid()}\n")
    return args


class Average:
    """Exponential moving average of a module's weights."""

    def __init__(self, module, decay=0.999):
        self.decay, self.steps = decay, 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        new = module.state_dict()
        floats = [k for k, v in self.weights.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.weights[k] for k in floats], [new[k] for k in floats], 1 - decay)


def save_atomically(state, path):
    torch.save(state, path + ".part")
    os.replace(path + ".part", path)


class Log:
    """A small csv of the loss, appended to, read back by plot.py."""

    def __init__(self, path, names):
        self.path, self.names, self.sums, self.count, self.start = path, names, np.zeros(len(names)), 0, time.time()
        if not os.path.exists(path):
            with open(path, "w", newline="") as f:
                csv.writer(f, lineterminator="\n").writerow(["step", "seconds"] + names)

    def add(self, *values):
        self.sums += values
        self.count += 1

    def write(self, step, seconds):
        row = self.sums / max(1, self.count)
        with open(self.path, "a", newline="") as f:
            csv.writer(f, lineterminator="\n").writerow([step, round(seconds)] + [f"{v:.5f}" for v in row])
        print(step, f"{seconds:.0f}s", " ".join(f"{n}={v:.5f}" for n, v in zip(self.names, row)), flush=True)
        self.sums[:], self.count = 0, 0


def cosine(step, total, peak, floor, warm):
    """learning rate: linear warm-up, then half a cosine from peak to floor"""
    if step < warm:
        return peak * (step + 1) / warm
    part = min(1.0, (step - warm) / max(1, total - warm))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * part))


def seconds_until(clock):
    """from now to a local time HH:MM of today"""
    now = time.localtime()
    hour, minute = (int(part) for part in clock.split(":"))
    return (hour - now.tm_hour) * 3600 + (minute - now.tm_min) * 60 - now.tm_sec


class ConvMuon(torch.optim.Optimizer):
    """Muon for convolutions, each seen as a matrix [out, in * kh * kw]: momentum made orthogonal by Newton and Schulz

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the quintic's coefficients and five
    rounds; steps are scaled to AdamW's usual size, so that one learning rate serves both.
    """

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(state["momentum"], group["momentum"]).reshape(len(p), -1)
                rows, columns = x.shape
                x = x.T if rows > columns else x
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                    square = x @ x.T
                    x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
                x = x.T if rows > columns else x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x.reshape(p.shape), alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)
