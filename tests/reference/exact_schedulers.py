# SPDX-License-Identifier: MIT
"""How far diffusers' schedulers in float32 are from themselves in float64, and alloy from both, for settings drawn at random.

    python tests/reference/exact_schedulers.py float32 DIR && python tests/reference/exact_schedulers.py float64 DIR
    for p in float32 float64; do ALLOY_ROOT=DIR/$p build/tests/pipe/test_sched | grep 'Scheduler.*: [0-9]' >DIR/$p.txt; done
    python tests/reference/exact_schedulers.py compare DIR

float64 means all of it: betas, sigmas, samples. The model (a sine, as in schedulers.py) is asked at float32's timesteps in
both, so that a timestep which rounds to another whole number is not taken for an error. Nothing here is stored.
"""
import json
import os
import random
import statistics
import sys

import diffusers
import numpy as np
import torch
from safetensors.torch import load_file, save_file

SINGLE = torch.float32
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
NAMES = ["DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DDIMScheduler", "EulerDiscreteScheduler"]


def draw(rng):
    name = rng.choice(NAMES)
    a = dict(SD, prediction_type=rng.choice(["epsilon", "v_prediction"]))
    if name != "DPMSolverSinglestepScheduler":
        a["timestep_spacing"] = rng.choice(["linspace", "leading", "trailing"])
        if rng.random() < 0.6:
            a |= dict(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    if "DPM" in name or "UniPC" in name:
        a |= dict(solver_order=rng.choice([2, 3, 3, 3]), final_sigmas_type=rng.choice(["zero", "sigma_min"]))
        a |= dict(solver_type=rng.choice(["bh1", "bh2"])) if "UniPC" in name else dict(algorithm_type="dpmsolver++")
        spread = rng.choice([None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"])
        a |= {spread: True} if spread else {}
    return name, a


def run(s, steps, seed, double, times):
    s.set_timesteps(steps)
    if hasattr(s, "set_begin_index"):
        s.set_begin_index(0)
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator("cpu").manual_seed(seed), dtype=SINGLE)
    x = (x.double() if double else x) * s.init_noise_sigma
    rows = [x]
    for i, t in enumerate(s.timesteps):
        out = torch.sin(s.scale_model_input(x, t).double() + float(t if times is None else times[i]) / 1000)
        x = s.step(out if double else out.float(), t, x).prev_sample
        rows.append(x)
    return torch.cat(rows).reshape(-1, 16)[:, ::4].to(SINGLE), (s.timesteps.to(SINGLE) if times is None else times)


def trajectories(folder, double):
    """Settings that diffusers itself does not survive are left out; float64 takes float32's."""
    rng, cases, tensors = random.Random(5), [], {}
    asked = [draw(rng) for _ in range(240)]
    single = os.path.join(folder, "float32/tests/golden/schedulers")
    kept = json.load(open(os.path.join(folder, "kept.json"))) if double else range(len(asked))
    known = load_file(os.path.join(single, "trajectories.safetensors")) if double else {}
    if double:
        torch.float32, np.float32 = torch.float64, np.float64
        torch.set_default_dtype(torch.float64)
    used = []
    for k in kept:
        name, a = asked[k]
        make, n = getattr(diffusers, name), len(cases)
        try:
            rows = {steps: run(make(**a), steps, n, double, known.get(f"{n}.{steps}.t")) for steps in (10, 25, 50)}
        except (IndexError, ValueError):
            rows = {0: (torch.tensor(np.nan), None)}
        if not all(r.isfinite().all() and r.abs().max() < 1e6 for r, _ in rows.values()):
            assert not double
            continue
        used.append(k)
        config = json.loads(make(**a).to_json_string().replace("-Infinity", "null"))
        cases.append(dict(config=config, tokens=1024, even=False, name=None))
        for steps, (r, t) in rows.items():
            tensors[f"{n}.{steps}"], tensors[f"{n}.{steps}.t"] = r.contiguous(), t.contiguous()
    out = os.path.join(folder, "float64/tests/golden/schedulers") if double else single
    os.makedirs(out, exist_ok=True)
    save_file(tensors, os.path.join(out, "trajectories.safetensors"))
    json.dump(cases, open(os.path.join(out, "cases.json"), "w"))
    if not double:
        json.dump(used, open(os.path.join(folder, "kept.json"), "w"))


def compare(folder):
    place = os.path.join(folder, "{}/tests/golden/schedulers/{}")
    a, b = (load_file(place.format(p, "trajectories.safetensors")) for p in ("float32", "float64"))
    cases = json.load(open(place.format("float32", "cases.json")))
    said = [[float(line.rsplit(" ", 1)[1]) for line in open(os.path.join(folder, p + ".txt"))] for p in ("float32", "float64")]
    rows = []
    for i in range(len(cases)):
        pairs = [(a[f"{i}.{n}"].double(), b[f"{i}.{n}"].double()) for n in (10, 25, 50)]
        own = max((((x - y) ** 2).sum(1) / (y**2).sum(1)).sqrt().max().item() for x, y in pairs)
        rows.append((said[0][i], own, said[1][i], i))
    for r in sorted(rows, reverse=True)[:20]:
        c = cases[r[3]]["config"]
        print("alloy to diffusers %.1e, diffusers to float64 %.1e, alloy to float64 %.1e" % r[:3], c["_class_name"], c.get("solver_order"),
              "zero SNR" if c.get("rescale_betas_zero_snr") else "", c.get("timestep_spacing"))
    print(len(rows), "settings; beyond 1e-5 of diffusers:", sum(r[0] > 1e-5 for r in rows), "; medians to float64: diffusers %.2e, alloy %.2e"
          % tuple(statistics.median(r[k] for r in rows) for k in (1, 2)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "compare":
        compare(sys.argv[2])
    else:
        trajectories(sys.argv[2], sys.argv[1] == "float64")
