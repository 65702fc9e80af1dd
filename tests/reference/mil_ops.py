#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints src/coreml/mil_ops.def: which parameters each MIL operation has, from coremltools' registry of operations.

A parameter that coremltools calls optional is nevertheless written by it whenever it has a default value, and the closed
compiler on a Mac insists on several of them; so only parameters whose default is None may be left out.
"""
import inspect
import logging
import re
import string

logging.disable(logging.WARNING)
from coremltools.converters.mil.mil import types  # noqa: E402
from coremltools.converters.mil.mil.input_type import TupleInputType  # noqa: E402
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry  # noqa: E402

NAMES = {"fp16": "FLOAT16", "fp32": "FLOAT32", "fp64": "FLOAT64", "bool": "BOOL", "string": "STRING", "int8": "INT8", "int16": "INT16",
         "int32": "INT32", "int64": "INT64", "int4": "INT4", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
         "uint6": "UINT6", "uint4": "UINT4", "uint3": "UINT3", "uint2": "UINT2", "uint1": "UINT1"}
SKIP = {"_const_symbolic", "make_list", "list_read", "list_write", "list_gather", "list_scatter", "list_length", "coreml_update_state"}
# coremltools leaves these out although the class gives them a default
LEFT_OUT = {("slice_by_index", "stride"), ("slice_by_index", "begin_mask"), ("slice_by_index", "end_mask"),
            ("slice_by_index", "squeeze_mask"), ("slice_update", "stride"), ("slice_update", "begin_mask"),
            ("slice_update", "end_mask"), ("slice_update", "squeeze_mask"), ("topk", "output_indices_dtype"),
            ("quantize", "axis"), ("dequantize", "axis"), ("quantize", "zero_point"), ("dequantize", "zero_point"),
            ("batch_norm", "gamma"), ("batch_norm", "beta")}

letters, order = {}, []


def letter(dtypes):
    key = frozenset(NAMES[types.builtin_to_string(t)] for t in dtypes if types.builtin_to_string(t) in NAMES)
    if key not in letters:
        letters[key] = (string.ascii_lowercase + string.ascii_uppercase)[len(letters)]
        order.append(key)
    return letters[key]


def defaults(cls):
    """Names with a default that is not None, over the class and those it extends."""
    out = {}
    for c in reversed(cls.__mro__):
        if "default_inputs" in c.__dict__:
            src = re.sub(r"\s+", " ", inspect.getsource(c.__dict__["default_inputs"]))
            if "super()" not in src:
                out = {}
            for call in re.findall(r"DefaultInputs\((.*?)\)(?: *$| *#| *\+| *return| *if)", src + " "):
                for name, value in re.findall(r"(\w+) ?= ?([^=,]+)", call):
                    out[name] = value.strip() != "None"
    return {k for k, v in out.items() if v}


def row(op, cls):
    spec, groups, parts = cls.input_spec.input_types, {}, []
    have = defaults(cls)
    for name, t in spec.items():
        if name.startswith("_"):
            continue
        flags = ""
        if isinstance(t, TupleInputType) or "Tuple" in type(t).__name__:
            parts.append(f"{name}:*")
            continue
        domain, group = getattr(t, "type_domain", None), 0
        if isinstance(domain, str):
            group = groups.setdefault(domain, len(groups) + 1)
            domain = cls.type_domains[domain]
        elif getattr(t, "type_domain_id", None) in cls.type_domains:
            group = groups.setdefault(t.type_domain_id, len(groups) + 1)
            domain = cls.type_domains[t.type_domain_id]
        code = letter(domain) if domain else "-"
        if t.optional and not (name in have and (op, name) not in LEFT_OUT):
            flags += "?"
        if t.const:
            flags += "c"
        parts.append(f"{name}:{code}{group}{flags}")
    return " ".join(parts)


rows = []
for op, versions in sorted(SSAOpRegistry.core_ops.items()):
    if op in SKIP or op.startswith(("const", "cond", "while_loop", "custom", "classify")) and not op.startswith("constexpr_"):
        continue
    last = None
    for target, cls in sorted(versions.items(), key=lambda kv: kv[0].value):
        opset = max(target.value - 1, 5)  # spec 6 is CoreML5, the first with programs
        text = row(op, cls)
        if text != last:
            rows.append((op, opset, text))
        last = text

print("""/* SPDX-License-Identifier: MIT
 *
 * MIL operations and their parameters, by the opset (CoreML5 ... CoreML8) that brought or changed them. Made by
 * tests/reference/mil_ops.py from coremltools' registry; not to be edited.
 *
 * DOMAIN(letter, dtypes)     which element types a parameter takes
 * MIL(op, opset, params)     name:LETTER GROUP FLAGS; parameters of one group other than 0 share their element type; "?": may
 *                            be left out; "c": must be constant; "name:*": any number of values; letter "-": any type
 */""")
for key in order:
    print(f"DOMAIN('{letters[key]}', {' | '.join('BIT(' + k + ')' for k in sorted(key)) or '0'})")
for op, opset, text in rows:
    line = f'MIL("{op}", {opset}, "{text}")'
    if len(line) <= 124:
        print(line)
        continue
    words, lines = text.split(" "), [""]
    for w in words:
        if len(lines[-1]) + len(w) > 110:
            lines.append("")
        lines[-1] += w + " "
    lines[-1] = lines[-1].rstrip()
    print(f'MIL("{op}", {opset},')
    print("\n".join(f'    "{x}"' for x in lines) + ")")
