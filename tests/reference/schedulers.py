# SPDX-License-Identifier: MIT
"""Golden trajectories of diffusers' schedulers: tests/golden/schedulers/.

    python tests/reference/schedulers.py K_DIFFUSION # needs scipy, and the folder of the package k_diffusion, 0.1.1.post1

The model is sin(x + t / 1000), computed in double and rounded to float32; the sample is 16 numbers (enough for torch's
vectorised noise) from a generator seeded with the case's number. cases.json lists scheduler_config.json of every case, what
the pipeline says (tokens, even), and the scheduler asked for by name, if any; trajectories.safetensors holds "CASE.STEPS"
[1 + calls, 4], every fourth number of each sample, the first sample first, and "CASE.STEPS.t" [calls].

DPM++ 2S ancestral is not in diffusers: k-diffusion's own function draws it, with the sigmas of diffusers' Euler scheduler.

Square roots are rounded correctly here: some builds of torch are one unit off in the last place. With a first sigma of 4096
(rescaling to zero signal) that unit is 5e-5 of the last sample of ten steps; elsewhere it is nothing.
"""
import importlib.util
import json
import os
import sys
import types

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.schedulers.scheduling_flow_match_lcm import FlowMatchLCMScheduler
from safetensors.torch import save_file

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "schedulers")
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
V = dict(prediction_type="v_prediction")
X = dict(prediction_type="sample")
ZERO = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", **V)
KARRAS = dict(use_karras_sigmas=True)
FLOW = dict(prediction_type="flow_prediction")

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
    ("EulerDiscreteScheduler", dict(SD, use_beta_sigmas=True)),
    ("EulerDiscreteScheduler", dict(SD, timestep_type="continuous", sigma_min=0.02, sigma_max=20.0, **KARRAS, **V)),
    ("EulerDiscreteScheduler", dict(beta_schedule="squaredcos_cap_v2", interpolation_type="log_linear")),
    ("EulerDiscreteScheduler", dict(trained_betas=[0.001 + 0.0002 * i for i in range(80)], num_train_timesteps=80)),
    ("DDIMScheduler", dict(SD, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5), dict(eta=0.5)),
    ("PNDMScheduler", dict(SD, steps_offset=1)),
    ("HeunDiscreteScheduler", dict(beta_schedule="exp", use_beta_sigmas=True)),
    ("DPMSolverMultistepScheduler", dict(SD, use_lu_lambdas=True)),
    ("DPMSolverMultistepScheduler", dict(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1, **KARRAS)),
    ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="dpmsolver", solver_order=3, final_sigmas_type="sigma_min")),
    ("DPMSolverMultistepScheduler", dict(SD, algorithm_type="sde-dpmsolver", solver_type="heun", final_sigmas_type="sigma_min", **V)),
    ("DPMSolverMultistepScheduler", dict(SD, use_beta_sigmas=True, thresholding=True)),
    ("DPMSolverMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=3.0, **FLOW)),
    ("DPMSolverMultistepScheduler", dict(use_flow_sigmas=True, use_dynamic_shifting=True, algorithm_type="sde-dpmsolver++", **FLOW)),
    ("DPMSolverSinglestepScheduler", dict(SD)),
    ("DPMSolverSinglestepScheduler", dict(SD, solver_type="heun", algorithm_type="sde-dpmsolver++", **KARRAS)),
    ("DPMSolverSinglestepScheduler", dict(SD, solver_order=3, final_sigmas_type="sigma_min", **V)),
    ("DPMSolverSinglestepScheduler", dict(use_flow_sigmas=True, flow_shift=2.0, **FLOW)),
    ("UniPCMultistepScheduler", dict(SD, solver_order=3, predict_x0=False, disable_corrector=[0, 2], final_sigmas_type="sigma_min")),
    ("UniPCMultistepScheduler", dict(SD, use_beta_sigmas=True, thresholding=True, **V)),
    ("UniPCMultistepScheduler", dict(use_flow_sigmas=True, flow_shift=5.0, **FLOW)),
    ("UniPCMultistepScheduler", dict(use_flow_sigmas=True, use_dynamic_shifting=True, shift_terminal=0.1, final_sigmas_type="sigma_min", **FLOW)),
    ("UniPCMultistepScheduler", dict(use_flow_sigmas=True, **KARRAS, **FLOW)),
    ("TCDScheduler", dict(SD), dict(eta=0.0)),
    ("TCDScheduler", dict(SD, **V), dict(eta=0.3)),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=3.0)),
    ("FlowMatchEulerDiscreteScheduler", dict(use_dynamic_shifting=True, shift_terminal=0.05, stochastic_sampling=True), {}, True),
    ("FlowMatchEulerDiscreteScheduler", dict(shift=2.0, invert_sigmas=True, use_exponential_sigmas=True)),
    ("FlowMatchHeunDiscreteScheduler", dict(shift=3.0)),
    ("FlowMatchLCMScheduler", dict(shift=3.0, use_beta_sigmas=True)),
]
# DPM++ 2S ancestral over these
TWO_S = [("EulerDiscreteScheduler", dict(SD)), ("EulerDiscreteScheduler", dict(SD, timestep_spacing="trailing", **KARRAS, **V))]
TOKENS = 1024


root, power = torch.Tensor.sqrt, torch.Tensor.__pow__
torch.Tensor.sqrt = lambda x: root(x.double()).to(x.dtype)
torch.Tensor.__pow__ = lambda x, e: torch.Tensor.sqrt(x) if isinstance(e, float) and e == 0.5 else power(x, e)


def run(scheduler, steps, seed, extra, even):
    g = torch.Generator("cpu").manual_seed(seed)
    mu = {"mu": calculate_shift(TOKENS)} if scheduler.config.get("use_dynamic_shifting") else {}
    if even:
        scheduler.set_timesteps(sigmas=list(np.linspace(1.0, 1 / steps, steps)), **mu)
    else:
        scheduler.set_timesteps(steps, **mu)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # or two first timesteps of one whole number would begin at the second
    x = torch.randn(1, 4, 2, 2, generator=g) * getattr(scheduler, "init_noise_sigma", 1.0)
    rows = [x]
    for t in scheduler.timesteps:
        y = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        out = torch.sin(y.double() + float(t) / 1000).float()
        takes = "generator" in scheduler.step.__code__.co_varnames
        x = scheduler.step(out, t, x, **(dict(generator=g) if takes else {}), **extra).prev_sample
        rows.append(x)
    return torch.cat(rows).reshape(-1, 16), scheduler.timesteps.float()


def k_diffusion(folder):
    """Its sampling.py alone: the package's other files want what is not needed here."""
    for name in ("torchsde", "torchdiffeq", "kd", "kd.utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchdiffeq"].odeint = None
    sys.modules["kd"].__path__ = []
    sys.modules["kd"].utils = sys.modules["kd.utils"]
    sys.modules["kd.utils"].append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    spec = importlib.util.spec_from_file_location("kd.sampling", os.path.join(folder, "sampling.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_2s(sampling, scheduler, steps, seed):
    g = torch.Generator("cpu").manual_seed(seed)
    scheduler.set_timesteps(steps)
    table = np.log(np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5))
    rows, times = [], []

    def model(x, sigma):
        s = sigma[0]
        known = (scheduler.sigmas == s).nonzero()
        t = scheduler.timesteps[known[0, 0]] if len(known) else torch.tensor(scheduler._sigma_to_t(np.float64(s.item()), table)).float()
        rows.append(x)
        times.append(t)
        y = x / (s**2 + 1).sqrt()
        out = torch.sin(y.double() + float(t) / 1000).float()
        if scheduler.config.prediction_type == "epsilon":
            return x - s * out
        return out * (-s / (s**2 + 1).sqrt()) + x / (s**2 + 1)

    x = torch.randn(1, 4, 2, 2, generator=g) * scheduler.init_noise_sigma
    rows.append(sampling.sample_dpmpp_2s_ancestral(model, x, scheduler.sigmas, disable=True,
                                                   noise_sampler=lambda a, b: torch.randn(x.shape, generator=g)))
    return torch.cat(rows).reshape(-1, 16), torch.stack(times)


if __name__ == "__main__":
    os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    torch.set_num_threads(1)
    os.makedirs(ROOT, exist_ok=True)
    sampling = k_diffusion(sys.argv[1])
    tensors, cases = {}, []
    for i, (name, args, *more) in enumerate(CASES + TWO_S):
        extra, even = more[0] if more else {}, len(more) > 1
        two = i >= len(CASES)
        make = (lambda **a: FlowMatchLCMScheduler(**a)) if name == "FlowMatchLCMScheduler" else getattr(diffusers, name)
        config = json.loads(make(**args).to_json_string().replace("-Infinity", "null")) | extra
        cases.append(dict(config=config, tokens=TOKENS, even=even, name="dpmpp_2s_ancestral" if two else None))
        for steps in (10, 25, 50):
            rows, t = run_2s(sampling, make(**args), steps, i) if two else run(make(**args), steps, i, extra, even)
            assert rows.isfinite().all() and rows.abs().max() < 1e6, (name, args, steps)
            tensors[f"{i}.{steps}"], tensors[f"{i}.{steps}.t"] = rows[:, ::4].contiguous(), t.contiguous()
    save_file(tensors, os.path.join(ROOT, "trajectories.safetensors"))
    with open(os.path.join(ROOT, "cases.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
