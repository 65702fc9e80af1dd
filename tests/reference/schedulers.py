# SPDX-License-Identifier: MIT
"""Golden trajectories of diffusers' schedulers: tests/golden/schedulers/.

    python tests/reference/schedulers.py

The model is sin(x + t / 1000), computed in double and rounded to float32; the sample is 16 numbers (enough for torch's
vectorised noise) from a generator seeded with the case's number. cases.json lists scheduler_config.json of every case;
trajectories.safetensors holds "CASE.STEPS" [1 + calls, 16], the first sample first, and "CASE.STEPS.t" [calls].

Square roots are rounded correctly here: some builds of torch are one unit off in the last place. With a first sigma of 4096
(rescaling to zero signal) that unit is 5e-5 of the last sample of ten steps; elsewhere it is nothing.
"""
import json
import os

import diffusers
import torch
from safetensors.torch import save_file

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "schedulers")
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
V = dict(prediction_type="v_prediction")
X = dict(prediction_type="sample")
ZERO = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", **V)
KARRAS = dict(use_karras_sigmas=True)

CASES = [
    ("EulerDiscreteScheduler", dict(SD, timestep_spacing="leading", steps_offset=1)),
    ("EulerDiscreteScheduler", dict(V)),
    ("EulerDiscreteScheduler", dict(SD, timestep_spacing="trailing", **X)),
    ("EulerDiscreteScheduler", dict(SD, **KARRAS)),
    ("EulerDiscreteScheduler", dict(SD, use_exponential_sigmas=True, final_sigmas_type="sigma_min")),
    ("EulerDiscreteScheduler", dict(SD, **ZERO)),
    ("DDIMScheduler", dict(SD, clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
    ("DDIMScheduler", dict(V)),
    ("DDIMScheduler", dict(SD, timestep_spacing="linspace", clip_sample_range=1.5, **X)),
    ("DDIMScheduler", dict(SD, clip_sample=False, **ZERO)),
    ("PNDMScheduler", dict(SD, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)),
    ("PNDMScheduler", dict(SD, skip_prk_steps=True, timestep_spacing="trailing", **V)),
    ("PNDMScheduler", dict(SD, skip_prk_steps=True, set_alpha_to_one=True, timestep_spacing="linspace")),
    ("EulerAncestralDiscreteScheduler", dict(SD, timestep_spacing="leading", steps_offset=1)),
    ("EulerAncestralDiscreteScheduler", dict(SD, timestep_spacing="trailing", **V)),
    ("HeunDiscreteScheduler", dict(SD)),
    ("HeunDiscreteScheduler", dict(timestep_spacing="leading", steps_offset=1, **V)),
    ("HeunDiscreteScheduler", dict(SD, clip_sample=True, **KARRAS)),
    ("DPMSolverMultistepScheduler", dict(SD)),
    ("DPMSolverMultistepScheduler", dict(SD, timestep_spacing="leading", steps_offset=1, **V)),
    ("DPMSolverMultistepScheduler", dict(SD, **KARRAS)),
    ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver++")),
    ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver++", solver_type="heun", **KARRAS)),
    ("DPMSolverMultistepScheduler", dict(SD, solver_order=3, timestep_spacing="trailing", final_sigmas_type="sigma_min")),
    ("DPMSolverMultistepScheduler", dict(SD, solver_type="heun", euler_at_final=True, **X)),
    ("DPMSolverMultistepScheduler", dict(SD, solver_order=3, algorithm_type="sde-dpmsolver++", use_exponential_sigmas=True)),
    ("UniPCMultistepScheduler", dict(SD)),
    ("UniPCMultistepScheduler", dict(SD, solver_order=3, solver_type="bh1", final_sigmas_type="sigma_min", timestep_spacing="leading", steps_offset=1, **V)),
    ("UniPCMultistepScheduler", dict(SD, solver_order=3, final_sigmas_type="sigma_min", **KARRAS)),
    ("LCMScheduler", dict(SD)),
    ("LCMScheduler", dict(SD, clip_sample=True, timestep_scaling=5.0, **V)),
]


root, power = torch.Tensor.sqrt, torch.Tensor.__pow__
torch.Tensor.sqrt = lambda x: root(x.double()).to(x.dtype)
torch.Tensor.__pow__ = lambda x, e: torch.Tensor.sqrt(x) if isinstance(e, float) and e == 0.5 else power(x, e)


def run(scheduler, steps, seed):
    g = torch.Generator("cpu").manual_seed(seed)
    scheduler.set_timesteps(steps)
    x = torch.randn(1, 16, generator=g) * scheduler.init_noise_sigma
    rows = [x]
    for t in scheduler.timesteps:
        y = scheduler.scale_model_input(x, t)
        out = torch.sin(y.double() + float(t) / 1000).float()
        takes = "generator" in scheduler.step.__code__.co_varnames
        x = scheduler.step(out, t, x, **(dict(generator=g) if takes else {})).prev_sample
        rows.append(x)
    return torch.cat(rows), scheduler.timesteps.float()


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    torch.set_num_threads(1)
    os.makedirs(ROOT, exist_ok=True)
    tensors, configs = {}, []
    for i, (name, args) in enumerate(CASES):
        config = json.loads(getattr(diffusers, name)(**args).to_json_string().replace("-Infinity", "null"))
        configs.append(config)
        for steps in (10, 25, 50):
            rows, t = run(getattr(diffusers, name)(**args), steps, i)
            assert rows.isfinite().all()
            tensors[f"{i}.{steps}"], tensors[f"{i}.{steps}.t"] = rows.contiguous(), t.contiguous()
    save_file(tensors, os.path.join(ROOT, "trajectories.safetensors"))
    with open(os.path.join(ROOT, "cases.json"), "w") as f:
        json.dump(configs, f, indent=1)
