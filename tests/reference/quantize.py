# SPDX-License-Identifier: MIT
"""alloy's quantisers beside others, by what they themselves compute.

    python tests/reference/quantize.py errors BUILD        relative errors beside coremltools' and GGUF's (docs/numerics.md)
    python tests/reference/quantize.py packages BUILD      coremltools' values of every compressed constant, bit for bit
    python tests/reference/quantize.py kinds BUILD         the same of every kind as the weight of every layer, ranks 2 to 5
    python tests/reference/quantize.py pictures BUILD DIR [N]  pictures of the small checkpoints (made by flux.py --save DIR) with
                                                           the transformer and the text encoders in GGUF's Q4_0 and Q8_0, and
                                                           alloy's; with N seeds each
    python tests/reference/quantize.py search              how near few trial scales come to a dense search (int4)

BUILD is the folder of `make tests`. Needs numpy; coremltools for the first three, gguf for errors, diffusers for pictures.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def relative(x, y):
    return float(np.sqrt(((x - y) ** 2).sum() / (x**2).sum()))


# ---- errors -------------------------------------------------------------------------------------------------------------


def weights(rows=512, cols=2048):
    rng = np.random.default_rng(7)
    normal = rng.standard_normal((rows, cols)).astype(np.float32) * 0.02
    outliers = normal.copy()
    outliers[:, ::97] *= 12  # some input channels
    outliers[::61] *= 20  # and some output channels
    return {
        "normal": normal,
        "Laplace": rng.laplace(size=(rows, cols)).astype(np.float32) * 0.02,
        "Student t, 4": rng.standard_t(4, (rows, cols)).astype(np.float32) * 0.02,
        "outlier channels": outliers,
    }


def by_coremltools(w, dtype, block):
    """Through a program of one linear layer, so that nothing is asked of coremltools but its public interface."""
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, w.shape[1]))], opset_version=ct.target.iOS18)
    def prog(x):
        return mb.linear(x=x, weight=w.astype(np.float32), name="y")

    model = ct.convert(prog, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT16, skip_model_load=True)
    how = dict(granularity="per_channel") if block is None else dict(granularity="per_block", block_size=block)
    config = cto.OptimizationConfig(global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=dtype, weight_threshold=0, **how))
    model = cto.linear_quantize_weights(model, config)
    for op in model._mil_program.functions["main"].operations:
        if op.op_type == "constexpr_blockwise_shift_scale":
            return op.materialized_val_inference().astype(np.float32)
    raise SystemExit("coremltools did not quantise the weight")


def by_coremltools_palette(w, bits):
    import coremltools as ct
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, w.shape[1]))], opset_version=ct.target.iOS18)
    def prog(x):
        return mb.linear(x=x, weight=w.astype(np.float32), name="y")

    model = ct.convert(prog, minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT16, skip_model_load=True)
    config = cto.OptimizationConfig(global_config=cto.OpPalettizerConfig(mode="kmeans", nbits=bits, weight_threshold=0))
    model = cto.palettize_weights(model, config)
    for op in model._mil_program.functions["main"].operations:
        if op.op_type == "constexpr_lut_to_dense":
            return op.materialized_val_inference().astype(np.float32)
    raise SystemExit("coremltools did not make a palette")


def by_gguf(w, kind):
    import gguf

    t = getattr(gguf.GGMLQuantizationType, kind)
    return gguf.quants.dequantize(gguf.quants.quantize(w, t), t).reshape(w.shape)


def q4_k(w):
    """Q4_K's grid (two 6-bit numbers for 32 values under a half pair for 256), fitted by alternating least squares."""
    x = w.reshape(-1, 8, 32).astype(np.float64)
    lo = np.minimum(x.min(2), 0)
    scale, least = np.maximum((x.max(2) - lo) / 15, 1e-12), -lo
    for _ in range(20):
        q = np.clip(np.rint((x + least[..., None]) / scale[..., None]), 0, 15)
        mq, mx = q.mean(2), x.mean(2)
        var = (q * q).mean(2) - mq * mq
        slope = np.where(var > 0, ((q * x).mean(2) - mq * mx) / np.where(var > 0, var, 1), scale)
        scale, least = np.maximum(slope, 1e-12), np.maximum(slope * mq - mx, 0)
    d, m = scale.max(1) / 63, least.max(1) / 63
    d, m = d.astype(np.float16).astype(np.float64)[:, None], m.astype(np.float16).astype(np.float64)[:, None]
    s, o = np.clip(np.rint(scale / d), 1, 63) * d, np.clip(np.rint(least / np.maximum(m, 1e-12)), 0, 63) * m
    q = np.clip(np.rint((x + o[..., None]) / s[..., None]), 0, 15)
    return (q * s[..., None] - o[..., None]).reshape(w.shape)


def signed_and_offset(w):
    """int4 in blocks of 32 with an offset of 16 bits beside the scale (5 bits a weight), by alternating least squares."""
    x = w.reshape(-1, 32).astype(np.float64)
    lo, scale = x.min(1), (x.max(1) - x.min(1)) / 15
    for _ in range(20):
        q = np.clip(np.rint((x - lo[:, None]) / scale[:, None]), 0, 15)
        mq, mx = q.mean(1), x.mean(1)
        scale = ((q * x).mean(1) - mq * mx) / ((q * q).mean(1) - mq * mq)
        lo = mx - scale * mq
    return (q * scale[:, None] + lo[:, None]).reshape(w.shape)


def errors(build):
    from safetensors.numpy import load_file, save_file

    data = weights()
    with tempfile.TemporaryDirectory() as d:
        save_file(data, f"{d}/in.safetensors")
        subprocess.run([f"{build}/tests/quant/test_quantize", f"{d}/in.safetensors", f"{d}/out.safetensors"], check=True)
        ours = load_file(f"{d}/out.safetensors")
    rows = [
        ("8.01", "alloy int8 by row", lambda n, w: ours[f"{n} int8"]),
        ("8.01", "coremltools int8 per channel", lambda n, w: by_coremltools(w, "int8", None)),
        ("8.00", "alloy palette of 256, factors", lambda n, w: ours[f"{n} palette8"]),
        ("8.50", "GGUF Q8_0", lambda n, w: by_gguf(w, "Q8_0")),
        ("6.00", "alloy palette of 64, factors", lambda n, w: ours[f"{n} palette6"]),
        ("4.50", "alloy int4 in blocks of 32", lambda n, w: ours[f"{n} int4"]),
        ("4.50", "coremltools int4 per block of 32", lambda n, w: by_coremltools(w, "int4", 32)),
        ("4.50", "GGUF Q4_0", lambda n, w: by_gguf(w, "Q4_0")),
        ("4.50", "Q4_K's grid, fitted", lambda n, w: q4_k(w)),
        ("5.00", "int4 in blocks of 32 with offsets", lambda n, w: signed_and_offset(w)),
        ("4.01", "alloy palette of 16, factors", lambda n, w: ours[f"{n} palette4"]),
        ("4.00", "coremltools palette of 16", lambda n, w: by_coremltools_palette(w, 4)),
    ]
    print("| bits | how | " + " | ".join(data) + " |")
    print("|---|---|" + "---|" * len(data))
    for bits, name, f in rows:
        cells = []
        for n, w in data.items():
            try:
                cells.append(f"{100 * relative(w, f(n, w)):.3f} %")
            except ImportError as e:
                cells.append(f"({e.name} is not installed)")
        print(f"| {bits} | {name} | " + " | ".join(cells) + " |", flush=True)


# ---- packages -----------------------------------------------------------------------------------------------------------


def compare(folder):
    """Every compressed constant of the packages below the folder: coremltools' numbers against alloy's, bit for bit."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load
    from safetensors.numpy import load_file

    total, users = {}, {"linear", "conv", "gather"}
    for path in sorted(Path(folder).rglob("*.mlpackage")):
        spec = ct.utils.load_spec(str(path))
        prog = load(model_spec=spec, specification_version=spec.specificationVersion,
                    file_weights_dir=str(path / "Data/com.apple.CoreML/weights"))
        prog.validate(check_essential_scope=False)
        ours, seen = load_file(path.with_suffix(".safetensors")), 0
        for op in prog.functions["main"].operations:
            if op.op_type in ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "constexpr_lut_to_dense"):
                theirs = op.materialized_val_inference().astype(np.float32)
                mine = ours[op.outputs[0].name]
                assert theirs.shape == mine.shape and np.array_equal(theirs.view(np.uint32), mine.view(np.uint32)), \
                    f"{path}: {op.outputs[0].name} differs"
                user = next((u.op_type for u in op.outputs[0].child_ops if u.op_type in users), "another")
                key = (op.op_type, f"CoreML{spec.specificationVersion - 1}", user, len(mine.shape))
                total[key] = total.get(key, 0) + 1
                seen += 1
        assert seen == len(ours), f"{path}: {len(ours)} compressed weights, {seen} seen by coremltools"
    for (kind, opset, user, rank), n in sorted(total.items()):
        print(f"{kind} ({opset}), {user}, rank {rank}: {n} equal bit for bit")


def packages(build):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([f"{build}/tests/pipe/test_quantized", f"{d}/p"], check=True)
        compare(f"{d}/p")


def kinds(build):
    with tempfile.TemporaryDirectory() as d:
        subprocess.run([f"{build}/tests/quant/test_kinds", d], check=True)
        compare(d)


# ---- pictures -----------------------------------------------------------------------------------------------------------


ALLOY_FORMS = {"int8": ["--quantization", "int8"], "int4": ["--quantization", "int4"], "int4 macos14": ["--quantization", "int4", "--target", "macos14"]}


def psnr(image, want):
    mse = ((np.asarray(image, np.float64) - np.asarray(want, np.float64)) ** 2).mean()
    return 10 * np.log10(255**2 / max(mse, 1e-9))


def drawn_by_alloy(alloy, checkpoint, spec, jobs, options):
    from PIL import Image

    with tempfile.TemporaryDirectory() as out:
        size = ["--text-length", str(spec["text_length"]), "--width", str(spec["width"]), "--height", str(spec["height"])]
        subprocess.run([alloy, "convert", checkpoint, "-q", "--output-dir", out, "--name", "m", *size, *options], check=True)
        for p, seed in jobs:
            subprocess.run([alloy, "run", f"{out}/m", "-q", "--prompt", p["prompt"], "--seed", str(seed), "--steps", str(p["steps"]),
                            "--guidance-scale", str(p["guidance_scale"]), "--width", str(p["width"]), "--height", str(p["height"]),
                            "--output", f"{out}/o.png"], check=True, stdout=subprocess.DEVNULL)
            yield Image.open(f"{out}/o.png").convert("RGB")


def pictures(build, folder, seeds=1):
    """One seed: the pictures that are stored. More: 100, 101 ... of each of them, beside diffusers' in float32."""
    import fnmatch
    import json

    import torch
    from diffusers import FluxPipeline

    golden = Path(__file__).resolve().parent.parent / "golden" / "flux"
    keep = ["x_embedder*", "context_embedder*", "proj_out*", "time_text_embed*", "norm_out*", "shared*", "*embed_tokens*", "*embedding*",
            "*relative_attention_bias*"]

    def draw(pipe, spec, jobs):
        return [pipe(p["prompt"], width=p["width"], height=p["height"], num_inference_steps=p["steps"], guidance_scale=p["guidance_scale"],
                     max_sequence_length=spec["text_length"], generator=torch.Generator("cpu").manual_seed(seed)).images[0] for p, seed in jobs]

    def show(case, how, images, want):
        v = np.array([psnr(i, w) for i, w in zip(images, want)])
        by = v.reshape(3, -1).mean(1)
        print(f"{case} {how}: mean {v.mean():.1f}, least {v.min():.1f} dB; of each picture {by[0]:.1f} {by[1]:.1f} {by[2]:.1f}", flush=True)

    for case in "abc":
        spec = json.loads((golden / case / "pictures.json").read_text())
        jobs = [(p, s) for p in spec["pictures"] for s in (range(100, 100 + int(seeds)) if int(seeds) > 1 else [p["seed"]])]
        want = []
        for kind in (None, "Q8_0", "Q4_0"):
            pipe = FluxPipeline.from_pretrained(f"{folder}/{case}", torch_dtype=torch.float32)
            pipe.set_progress_bar_config(disable=True)
            with torch.no_grad():
                for part in (pipe.transformer, pipe.text_encoder, pipe.text_encoder_2):
                    for name, p in part.named_parameters():
                        if kind and p.ndim == 2 and p.shape[1] % 32 == 0 and p.numel() >= 2048 and not any(fnmatch.fnmatch(name, k) for k in keep):
                            p.copy_(torch.from_numpy(np.array(by_gguf(p.numpy(), kind))))
            images = draw(pipe, spec, jobs)
            if kind:
                show(case, kind, images, want)
            else:
                want = images
        for how, options in ALLOY_FORMS.items():
            show(case, how, drawn_by_alloy(f"{build}/alloy", f"{folder}/{case}", spec, jobs, options), want)


# ---- search -------------------------------------------------------------------------------------------------------------


def search(_=None):
    """Eight trial scales, as src/quant/quantize_search.h takes them, against 150 of both signs."""
    rng = np.random.default_rng(1)
    n = 20000

    def best(x, trials):
        m = x[np.arange(n), np.abs(x).argmax(1)]
        gain, scale = np.full(n, -1.0), np.zeros(n)
        for a in trials:
            q = np.rint(np.clip(x * (-a / m)[:, None], -8, 7))
            s, b = (x * q).sum(1), np.maximum((q * q).sum(1), 1e-9)
            scale = np.where(s * s / b > gain, s / b, scale)
            gain = np.maximum(gain, s * s / b)
        scale = scale.astype(np.float16).astype(np.float64)[:, None]
        return scale * np.rint(np.clip(x / scale, -8, 7))

    for name, x in (("normal", rng.standard_normal((n, 32))), ("Laplace", rng.laplace(size=(n, 32))), ("Student t, 3", rng.standard_t(3, (n, 32)))):
        dense = np.concatenate([np.arange(5.5, 13, 0.1), -np.arange(5.5, 13, 0.1)])
        print(f"{name}: 8 trials {100 * relative(x, best(x, np.linspace(6.9, 9.4, 8))):.3f} %, 150 of both signs {100 * relative(x, best(x, dense)):.3f} %")


if __name__ == "__main__":
    {"errors": errors, "packages": packages, "kinds": kinds, "pictures": pictures, "search": search}[sys.argv[1]](*sys.argv[2:])
