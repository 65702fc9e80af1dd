#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Asks coremltools about packages that alloy wrote.

    check_packages.py FOLDER [NAME...]

For each NAME.mlpackage in FOLDER: the specification loads, the MIL loader accepts it (type inference of every op), the
program validates and is free of what the converter calls invalid, compressed constants come to the numbers in
NAME.safetensors (if that is there), and writing the loaded program again gives every operation the same parameters, so that
nothing is missing that coremltools would have written. Runs on Linux; needs `pip install coremltools numpy`.
"""
import json
import logging
import re
import struct
import sys
from pathlib import Path

import numpy as np

logging.disable(logging.WARNING)
import coremltools as ct  # noqa: E402
from coremltools.converters.mil.converter import mil_convert  # noqa: E402
from coremltools.converters.mil.frontend.milproto.load import load  # noqa: E402


def read_safetensors(path):
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            out[name] = np.frombuffer(raw[8 + n + a : 8 + n + b], "<f4").reshape(t["shape"])
    return out


def functions(spec):
    for name, f in spec.mlProgram.functions.items():
        yield name, f, f.block_specializations[f.opset]


def by_output(spec):
    """(function, output name) -> (op type, set of parameter names, values of constants)"""
    out = {}
    for fname, _, block in functions(spec):
        for op in block.operations:
            names = set(op.inputs) | (set(op.attributes) - {"name"})
            for o in op.outputs:
                out[fname, o.name] = (op.type, names)
    return out


def check_description(spec):
    described = {f.name: f for f in spec.description.functions} or {"main": spec.description}
    for name, f, block in functions(spec):
        d = described[name]
        assert [i.name for i in f.inputs] == [i.name for i in d.input], "inputs differ from the description"
        assert list(block.outputs) == [o.name for o in d.output], "outputs differ from the description"


def check_constants(prog, values):
    """Compressed constants come to the numbers that were compressed."""
    found = 0
    for f in prog.functions.values():
        for op in f.operations:
            if op.op_type == "const" or op.op_type.startswith("constexpr_"):
                key = op.outputs[0].name
                if key not in values:
                    continue
                got = op.outputs[0].val if op.op_type == "const" else op.materialized_val_inference()
                want = values[key]
                assert got.shape == want.shape, f"{key}: shape {got.shape}, expected {want.shape}"
                error = np.max(np.abs(got.astype(np.float64) - want)) if want.size else 0
                # one rounding of the product to the constant's own dtype
                bound = 2e-3 if got.dtype == np.float16 else 1e-6
                assert error <= bound * max(1.0, float(np.max(np.abs(want)))), f"{key}: {op.op_type} is off by {error}"
                found += 1
    return found


def check(path):
    spec = ct.utils.load_spec(str(path))
    weights = path / "Data/com.apple.CoreML/weights"
    version = spec.specificationVersion
    check_description(spec)
    prog = load(model_spec=spec, specification_version=version, file_weights_dir=str(weights))
    prog.validate(check_essential_scope=False)
    prog._check_early_error_out_for_invalid_program()
    beside = path.with_suffix(".safetensors")
    values = read_safetensors(beside) if beside.exists() else {}
    keys = [re.sub("[^A-Za-z0-9_]", "_", k) for k in values]
    values = {k: v for k, v in zip(keys, values.values()) if keys.count(k) == 1}  # others were numbered
    found = check_constants(prog, values)
    several = len(spec.description.functions) > 0
    if several:  # as coremltools.models.utils.save_multifunction does
        prog.default_function_name = spec.description.defaultFunctionName
        prog.export_as_multifunction = True
        assert prog.default_function_name in prog.functions, "the default function is not among the functions"
    again = mil_convert(prog, convert_to="mlprogram", convert_from="milinternal", specification_version=version,
                        model_description=None if several else spec.description, pass_pipeline=ct.PassPipeline.EMPTY,
                        skip_model_load=True, compute_units=ct.ComputeUnit.CPU_ONLY,
                        export_multi_functions=several).get_spec()
    if several:
        assert {f.name for f in again.description.functions} == {f.name for f in spec.description.functions}
        assert again.description.defaultFunctionName == spec.description.defaultFunctionName
    ours, theirs = by_output(spec), by_output(again)
    for key, (op, names) in theirs.items():
        if key not in ours:
            continue
        assert ours[key][0] == op, f"{key}: {ours[key][0]} came back as {op}"
        assert ours[key][1] == names, f"{key}: {op} has {sorted(ours[key][1])}, coremltools writes {sorted(names)}"
    missing = [k for k in ours if k not in theirs and ours[k][0] != "const"]
    assert not missing, f"lost on the way through coremltools: {missing}"
    ops = {t for t, _ in ours.values()}
    return ops, found


def main():
    folder = Path(sys.argv[1])
    names = sys.argv[2:] or sorted(p.stem for p in folder.glob("*.mlpackage"))
    if not names:
        sys.exit(f"{folder}: no packages there")
    failed, seen, constants = 0, set(), 0
    for name in names:
        try:
            ops, found = check(folder / f"{name}.mlpackage")
            seen |= ops
            constants += found
        except Exception as e:  # any failure is a finding about this package
            failed += 1
            print(f"  FAIL  {name}: {type(e).__name__}: {str(e)[:600]}")
    print(f"{len(names) - failed} packages passed, {failed} failed; {len(seen)} kinds of operations, {constants} constants compared")
    print("operations:", " ".join(sorted(seen)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
