#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Models that coremltools itself compressed, at random, run by alloy.

    compressed.py ALLOY COUNT [SEED]
    compressed.py ALLOY NUMBER SEED FOLDER     (one of these, kept in FOLDER)

Draws small models (linear, convolutions over 1, 2 and 3 dimensions, tables of embeddings), compresses them with
coremltools.optimize.coreml in every way it has (linear per tensor, channel and block; palettes by uniform, k-means and
unique values, grouped, of vectors, with scales; sparse by threshold, magnitude and n:m; and joint forms), and compares
`alloy predict` with numpy over the weights that coremltools computes from the compressed constants. Needs coremltools,
numpy, scikit-learn, safetensors; nothing of it is stored.
"""
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
import coremltools as ct  # noqa: E402
import coremltools.optimize as cto  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.frontend.milproto.load import load  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

oc = cto.coreml


def cfg(op):
    return oc.OptimizationConfig(global_config=op)


def draw_model(rng, opset):
    """A function of x with up to three layers whose weights can be compressed, in float32."""
    kind = rng.choice(["linear", "conv1", "conv2", "conv3", "gather", "two"])
    heavy = rng.random() < 0.3
    def w(*shape):
        a = rng.standard_t(4, shape) if heavy else rng.standard_normal(shape)
        return (a * 0.3).astype(np.float32)
    o, i = int(rng.choice([8, 16, 24, 64])), int(rng.choice([16, 32, 48, 64, 128]))
    if kind in ("linear", "two"):
        W, b = w(o, i), w(o)
        V = w(16, o)
        @mb.program(input_specs=[mb.TensorSpec(shape=(3, i))], opset_version=opset)
        def prog(x):
            y = mb.linear(x=x, weight=W, bias=b, name="first")
            return mb.linear(x=mb.relu(x=y), weight=V, name="second") if kind == "two" else y
        return prog, (3, i), "x"
    if kind == "gather":
        T = w(4 * o, i)
        @mb.program(input_specs=[mb.TensorSpec(shape=(5,), dtype=ct.converters.mil.mil.types.int32)], opset_version=opset)
        def prog(ids):
            return mb.gather(x=T, indices=ids, axis=0, name="first")
        return prog, (5,), "ids"
    n = int(kind[-1])
    k = int(rng.choice([1, 3]))
    W = w(o, i, *[k] * n)
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, i) + (5,) * n)], opset_version=opset)
    def prog(x):
        return mb.conv(x=x, weight=W, name="first")
    return prog, (1, i) + (5,) * n, "x"


def draw_linear(rng, new):
    dtype = rng.choice(["int8", "uint8"] + (["int4", "uint4"] if new else []))
    how = {"mode": rng.choice(["linear", "linear_symmetric"]), "dtype": dtype, "weight_threshold": 0}
    grain = rng.choice(["per_tensor", "per_channel"] + (["per_block"] if new else []))
    how["granularity"] = grain
    if grain == "per_block":
        how["block_size"] = int(rng.choice([8, 16, 32]))
    return cfg(oc.OpLinearQuantizerConfig(**how)), how


def draw_palette(rng, new):
    how = {"mode": rng.choice(["kmeans", "uniform"]), "nbits": int(rng.choice([1, 2, 3, 4, 6, 8] if new else [1, 2, 4, 6, 8])), "weight_threshold": 0}
    if new and rng.random() < 0.6:
        how["granularity"] = "per_grouped_channel"
        how["group_size"] = int(rng.choice([4, 8]))
        how["channel_axis"] = int(rng.choice([0, 1]))
        if rng.random() < 0.4:
            how["enable_per_channel_scale"] = True
    if new and how["mode"] == "kmeans" and how["nbits"] <= 4 and rng.random() < 0.35:
        how["cluster_dim"] = int(rng.choice([2, 4]))
    return cfg(oc.OpPalettizerConfig(**how)), how


def draw_prune(rng):
    if rng.random() < 0.5:
        how = {"threshold": float(rng.choice([0.1, 0.2])), "minimum_sparsity_percentile": 0.05, "weight_threshold": 0}
        return cfg(oc.OpThresholdPrunerConfig(**how)), how
    how = {"target_sparsity": float(rng.choice([0.3, 0.6])), "weight_threshold": 0}
    return cfg(oc.OpMagnitudePrunerConfig(**how)), how


def compress(rng, model, new):
    forms = ["linear", "palette", "sparse"] + (["sparse+palette", "sparse+linear", "palette+linear"] if new else [])
    form = rng.choice(forms)
    said = [str(form)]
    for k, step in enumerate(form.split("+")):
        joint = {"joint_compression": True} if k else {}
        if step == "linear":
            c, how = draw_linear(rng, new)
            if form == "palette+linear":  # the table's entries become integers
                how = {"mode": "linear_symmetric", "dtype": str(rng.choice(["int8", "uint8"])), "weight_threshold": 0, "granularity": "per_tensor"}
                c = cfg(oc.OpLinearQuantizerConfig(**how))
            model = oc.linear_quantize_weights(model, c, **joint)
        elif step == "palette":
            c, how = draw_palette(rng, new)
            model = oc.palettize_weights(model, c, **joint)
        else:
            c, how = draw_prune(rng)
            model = oc.prune_weights(model, c)
        said.append(str({k: str(v) for k, v in how.items() if k != "weight_threshold"}))
    return model, " ".join(said)


def values_of(prog):
    out = {}
    for op in prog.functions["main"].operations:
        if op.op_type == "const":
            out[op.outputs[0].name] = op.outputs[0].val
        elif op.op_type.startswith("constexpr_"):
            if getattr(op, "lut", None) is not None and op.lut.val is None:  # the table is compressed itself
                from coremltools.optimize import _utils as optimize_utils
                v = optimize_utils.lut_to_dense(op.indices.val, out[op.lut.name], op.vector_axis.val if op.vector_axis is not None else None)
            else:
                v = op.materialized_val_inference()
            for o, val in zip(op.outputs, v if isinstance(v, (tuple, list)) else [v]):
                out[o.name] = val
    return out


def conv(x, w, b):
    n = w.ndim - 2
    win = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=tuple(range(2, 2 + n)))  # [1, i, out.., k..]
    k = "abc"[:n]
    p = "pqr"[:n]
    return np.einsum(f"zi{p}{k},oi{k}->zo{p}", win, w) + (b.reshape((1, -1) + (1,) * n) if b is not None else 0)


def run(prog, feed):
    """The program in float64 over the weights as coremltools decompresses them."""
    v = {k: np.asarray(x, np.float64) if np.asarray(x).dtype.kind == "f" else x for k, x in values_of(prog).items()}
    v.update(feed)
    get = lambda op, key: v[op.inputs[key].name] if op.inputs.get(key) is not None else None
    f = prog.functions["main"]
    for op in f.operations:
        if op.op_type == "const" or op.op_type.startswith("constexpr_"):
            continue
        x, y = get(op, "x"), None
        if op.op_type == "linear":
            y = x @ get(op, "weight").T + (get(op, "bias") if get(op, "bias") is not None else 0)
        elif op.op_type == "conv":
            y = conv(x, get(op, "weight"), get(op, "bias"))
        elif op.op_type == "relu":
            y = np.maximum(x, 0)
        elif op.op_type == "gather":
            y = x[get(op, "indices")]
        elif op.op_type == "mul":
            y = x * get(op, "y")
        elif op.op_type == "add":
            y = x + get(op, "y")
        elif op.op_type == "greater_equal":
            y = x >= get(op, "y")
        elif op.op_type == "select":
            y = np.where(get(op, "cond"), get(op, "a"), get(op, "b"))
        elif op.op_type in ("cast", "identity"):
            y = x
        elif op.op_type == "reshape":
            y = x.reshape(get(op, "shape"))
        else:
            raise RuntimeError(f"no rule for {op.op_type}")
        v[op.outputs[0].name] = y
    return {o.name: v[o.name] for o in f.outputs}


def one(alloy, rng, folder):
    new = rng.random() < 0.7
    opset, target = (ct.target.iOS18, ct.target.macOS15) if new else (ct.target.iOS16, ct.target.macOS13)
    half = rng.random() < 0.5
    prog, shape, name = draw_model(rng, opset)
    model = ct.convert(prog, convert_to="mlprogram", minimum_deployment_target=target, skip_model_load=True,
                       compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32)
    try:
        model, said = compress(rng, model, new)
    except Exception as e:  # not every combination exists in coremltools
        return None, f"{type(e).__name__}: {str(e)[:90]}"
    path = folder / "m.mlpackage"
    subprocess.run(["rm", "-rf", path])
    model.save(str(path))
    spec = ct.utils.load_spec(str(path))
    back = load(model_spec=spec, specification_version=spec.specificationVersion, file_weights_dir=str(path / "Data/com.apple.CoreML/weights"))
    x = rng.integers(0, 8, shape).astype(np.int32) if name == "ids" else rng.standard_normal(shape).astype(np.float32)
    save_file({name: x}, folder / "in.safetensors")
    r = subprocess.run([alloy, "predict", path, "--input", folder / "in.safetensors", "--output", folder / "out.safetensors", "-q"], capture_output=True, text=True)
    kinds = sorted({op.op_type for op in back.functions["main"].operations if op.op_type.startswith("constexpr_")})
    said = f"{'+'.join(k[10:] for k in kinds) or 'plain'} {shape} {said}"
    if r.returncode:
        return False, f"{said}: status {r.returncode}: {r.stderr.strip()}"
    x = x.astype(np.float16) if half and name == "x" else x
    want, got = run(back, {name: x.astype(np.float64) if name == "x" else x}), load_file(folder / "out.safetensors")
    for k, w in want.items():
        e = np.linalg.norm(got[k].astype(np.float64) - w) / max(np.linalg.norm(w), 1e-9)
        if got[k].shape != w.shape or not e < (1.5e-3 if half else 2e-6):
            return False, f"{said}: relative error {e:.3g}"
    v = subprocess.run([alloy, "validate", path, "-q"], capture_output=True, text=True)
    return (True, said) if v.returncode == 0 else (False, said + ": validate: " + (v.stdout + v.stderr).strip()[:300])


def main():
    if len(sys.argv) > 4:  # one of them, kept in a folder
        Path(sys.argv[4]).mkdir(exist_ok=True)
        print(one(sys.argv[1], np.random.default_rng(int(sys.argv[3]) * 100000 + int(sys.argv[2])), Path(sys.argv[4])))
        return
    alloy, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    good = bad = none = 0
    kinds = {}
    with tempfile.TemporaryDirectory() as d:
        for i in range(count):
            ok, said = one(alloy, np.random.default_rng(seed * 100000 + i), Path(d))
            if ok is None:
                none += 1
            elif ok:
                good += 1
                kinds[said.split()[0]] = kinds.get(said.split()[0], 0) + 1
            else:
                bad += 1
                print(f"FAIL {seed}:{i} {said}", flush=True)
    print(f"{good} agree, {bad} do not, {none} combinations that coremltools has not")
    for k, n in sorted(kinds.items()):
        print(f"  {n:4} {k}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
