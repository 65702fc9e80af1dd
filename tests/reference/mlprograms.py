# SPDX-License-Identifier: MIT
"""What ML Programs give, computed by torch in float64 from the program as coremltools loads it. Independent of alloy.

    python tests/reference/mlprograms.py PACKAGE... > tests/golden/mlprograms/NAME.txt

For each package: `package NAME`, then its inputs (`input NAME kind dims`; the numbers are drawn on both sides from the same
hash), then its outputs (`output NAME kind dims norm projections.. : samples..`). norm is the root of the mean square;
a projection is the mean of y[i] * w[i] over all elements with w in [-1, 1) from a hash, so that every element counts; samples
are single elements at equal distances. NaN counts as 0 in projections and must be NaN in samples.

Nothing is rounded to half: the values are what float32 arithmetic should give for the program whatever its types say.
"""
import math
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types

MASK = (1 << 64) - 1
SAMPLES, PROJECTIONS = 24, 2


def bits(seed, count):
    """splitmix64 of a counter, one 64-bit word per element"""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(seed)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def name_seed(name):
    h = 1469598103934665603
    for c in name.encode():
        h = ((h ^ c) * 1099511628211) & MASK
    return h


def draw(name, kind, shape):
    b = bits(name_seed(name), int(np.prod(shape, dtype=np.int64)))
    if kind == "i32":  # 1 .. 9
        v = (b % np.uint64(9)).astype(np.int64) + 1
    else:  # multiples of 1/1024 in [-2, 2), exact in half precision; [1/16, 2) for inputs called p
        v = (b >> np.uint64(52)).astype(np.float64) / 1024 - 2
        if name == "p":
            v = np.maximum(np.abs(v), 1 / 16)
    return torch.from_numpy(v).reshape(shape)


def weight_of(seed, count):
    return (bits(seed, count) >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1


# ---- the ops --------------------------------------------------------------------------------------------------------

def same_pad(kind, n, k, s):
    total = max(0, s * math.ceil(n / s) - n + k - s)
    half = total // 2
    return (total - half, half) if kind == "same_lower" else (half, total - half)


def window_pads(a, x, k, s):
    n = len(k)
    kind = a.get("pad_type", "valid")
    if kind == "custom":
        return [(int(a["pad"][2 * i]), int(a["pad"][2 * i + 1])) for i in range(n)]
    if kind == "valid":
        return [(0, 0)] * n
    return [same_pad(kind, x.shape[2 + i], k[i], s[i]) for i in range(n)]


def flat_pads(p):
    return [v for lo_hi in reversed(p) for v in lo_hi]


def ints(a, key, n, default=1):
    return [int(v) for v in a[key]] if a.get(key) is not None else [default] * n


def conv(a):
    x, w = a["x"], a["weight"].double()
    n = x.dim() - 2
    s, d = ints(a, "strides", n), ints(a, "dilations", n)
    reach = [(w.shape[2 + i] - 1) * d[i] + 1 for i in range(n)]
    x = F.pad(x, flat_pads(window_pads(a, x, reach, s)))
    return (F.conv1d, F.conv2d, F.conv3d)[n - 1](x, w, a.get("bias"), s, 0, d, int(a.get("groups", 1)))


def conv_transpose(a):
    x, w = a["x"], a["weight"]
    n = x.dim() - 2
    s, d = ints(a, "strides", n), ints(a, "dilations", n)
    y = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1](x, w, None, s, 0, 0, int(a.get("groups", 1)), d)
    pads = [0] * 2 * n
    if a.get("pad_type") == "custom":
        pads = [int(v) for v in a["pad"]]
    for i in range(n):
        full = y.shape[2 + i]
        size = full - pads[2 * i] - pads[2 * i + 1]
        if a.get("pad_type") == "same":
            size = x.shape[2 + i] * s[i]
            pads[2 * i] = max(0, full - size) // 2
        if a.get("output_shape") is not None:
            size = int(a["output_shape"][2 + i])
        grow = max(0, pads[2 * i] + size - full)
        y = torch.cat([y, torch.zeros(*y.shape[:2 + i], grow, *y.shape[3 + i:], dtype=y.dtype)], 2 + i)
        y = y.narrow(2 + i, pads[2 * i], size)
    return y if a.get("bias") is None else y + a["bias"].reshape(1, -1, *[1] * n)


def pool(a, kind):
    """by windows, one after another: nothing shared with the engine's way"""
    x = a["x"]
    n = x.dim() - 2
    k = [int(v) for v in a["kernel_sizes"]]
    s = ints(a, "strides", n)
    pads = window_pads(a, x, k, s)
    ceil_mode = bool(a.get("ceil_mode", False))
    exclude = kind == "avg" and bool(a.get("exclude_padding_from_average", False))
    inside = torch.ones(x.shape[2:], dtype=torch.float64)
    fill = -math.inf if kind == "max" else 0.0
    xp, counted = F.pad(x, flat_pads(pads), value=fill), F.pad(inside, flat_pads(pads), value=0.0 if exclude else 1.0)
    out = []
    for i in range(n):
        room = x.shape[2 + i] + sum(pads[i]) - k[i]
        o = room // s[i] + 1
        if ceil_mode:
            o = (room + s[i] - 1) // s[i] + 1
            if sum(pads[i]) > 0 and (o - 1) * s[i] >= x.shape[2 + i] + sum(pads[i]) / 2:
                o -= 1
        out.append(o)
    y = torch.empty(*x.shape[:2], *out, dtype=torch.float64)
    for pos in np.ndindex(*out):
        cut = tuple(slice(pos[i] * s[i], pos[i] * s[i] + k[i]) for i in range(n))
        part, c = xp[(..., *cut)].flatten(2), counted[cut].sum()
        y[(..., *pos)] = part.amax(2) if kind == "max" else part.square().sum(2).sqrt() if kind == "l2" else part.sum(2) / c
    return y


def grid(mode, n, k):
    i = torch.arange(k, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        p = i * ((n - 1) / (k - 1)) if k > 1 else torch.full((1,), (n - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0, dtype=torch.float64)
    elif mode == "DEFAULT":
        p = i * ((n - n / k) / (k - 1)) if k > 1 else i
    elif mode == "OFFSET_CORNERS":
        p = 0.5 * max(1, n - 1) / k + i * (max(1, n - 1) / k)
    else:
        p = (i + 0.5) * n / k - 0.5
    return p.clamp(0, n - 1)


def linear_axis(x, axis, k, mode):
    """a matrix of weights against the axis"""
    n = x.shape[axis]
    p = grid(mode, n, k)
    m = (1 - (p[:, None] - torch.arange(n)[None, :]).abs()).clamp(min=0)
    return torch.movedim(torch.movedim(x, axis, -1) @ m.T, -1, axis)


def nearest_axis(x, axis, k):
    at = (torch.arange(k) * x.shape[axis]) // k
    return x.index_select(axis, at)


def resize(a):
    x, dims = a["x"], int(a["resized_dims"])
    sizes = [int(v) for v in a["shape"]][-dims:]
    for i, k in enumerate(sizes):
        axis = x.dim() - dims + i
        k = k or x.shape[axis]
        x = linear_axis(x, axis, k, a.get("sampling_mode", "DEFAULT")) if a.get("interpolation_mode", "LINEAR") == "LINEAR" else nearest_axis(x, axis, k)
    return x


def upsample(a, linear):
    x = a["x"]
    h, w = (math.floor(float(a.get("scale_factor_" + d, 1)) * x.shape[i]) for d, i in (("height", -2), ("width", -1)))
    if not linear:
        return nearest_axis(nearest_axis(x, -2, h), -1, w)
    align = bool(a.get("align_corners", True))
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if a.get("half_pixel_centers") in (None, True) else "DEFAULT"
    return linear_axis(linear_axis(x, -2, h, mode), -1, w, mode)


def resize_to(a, linear):
    h, w = int(a.get("target_size_height", 1)), int(a.get("target_size_width", 1))
    if not linear:
        return nearest_axis(nearest_axis(a["x"], -2, h), -1, w)
    mode = a.get("sampling_mode", "DEFAULT")
    return linear_axis(linear_axis(a["x"], -2, h, mode), -1, w, mode)


def axes_of(a):
    return tuple(int(v) for v in a["axes"]) if a.get("axes") is not None else tuple(range(a["x"].dim()))


def prod(x, axes, keep):
    for i in sorted((v % x.dim() for v in axes), reverse=True):
        x = x.prod(i, keepdim=keep)
    return x


def reduce(a, f):
    return f(a["x"], axes_of(a), bool(a.get("keep_dims", False)))


def norm_params(a, x, axes):
    shape = [x.shape[i] if i in axes else 1 for i in range(x.dim())]
    g = a["gamma"].reshape(shape) if a.get("gamma") is not None else 1.0
    b = a["beta"].reshape(shape) if a.get("beta") is not None else 0.0
    return g, b


def layer_norm(a):
    x = a["x"]
    axes = tuple(v % x.dim() for v in axes_of(a))
    g, b = norm_params(a, x, axes)
    c = x - x.mean(axes, keepdim=True)
    return c / (c.square().mean(axes, keepdim=True) + float(a.get("epsilon", 1e-5))).sqrt() * g + b


def instance_norm(a):
    x = a["x"]
    axes = tuple(range(2, x.dim()))
    g, b = norm_params(a, x, (1,))
    c = x - x.mean(axes, keepdim=True)
    return c / (c.square().mean(axes, keepdim=True) + float(a.get("epsilon", 1e-5))).sqrt() * g + b


def batch_norm(a):
    x = a["x"]
    g, b = norm_params(a, x, (1,))
    ch = lambda v: v.reshape(1, -1, *[1] * (x.dim() - 2))
    return (x - ch(a["mean"])) / (ch(a["variance"]) + float(a.get("epsilon", 1e-5))).sqrt() * g + b


def local_response_norm(a):
    x, size = a["x"], int(a["size"])
    return F.local_response_norm(x, size, float(a.get("alpha", 1e-4)), float(a.get("beta", 0.75)), float(a.get("k", 1.0)))


def np_slice(a, shape):
    n = len(shape)
    get = lambda key, d: [bool(v) for v in a[key]] if a.get(key) is not None else [d] * n
    b, e = [int(v) for v in a["begin"]], [int(v) for v in a["end"]]
    s = [int(v) for v in a["stride"]] if a.get("stride") is not None else [1] * n
    bm, em, sq = get("begin_mask", False), get("end_mask", False), get("squeeze_mask", False)
    return tuple((0 if bm[i] else b[i]) if sq[i] else slice(None if bm[i] else b[i], None if em[i] else e[i], s[i]) for i in range(n))


def slice_update(a):
    y = a["x"].numpy().copy()
    y[np_slice(a, y.shape)] = a["update"].numpy()
    return torch.from_numpy(y)


def slice_by_size(a):
    x = a["x"]
    for i, (b, n) in enumerate(zip(a["begin"].tolist(), a["size"].tolist())):
        b = int(b) % x.shape[i]
        x = x.narrow(i, b, x.shape[i] - b if n == -1 else int(n))
    return x


def reshape(a):
    x, s = a["x"], [int(v) for v in a["shape"]]
    for i, v in enumerate(s):
        j = i - len(s) + x.dim()
        if v == 0:
            s[i] = x.shape[j] if j >= 0 else 1
    return x.reshape(s)


def squeeze(a):
    x = a["x"]
    axes = [int(v) % x.dim() for v in a["axes"]] if a.get("axes") is not None else range(x.dim())
    return x.reshape([n for i, n in enumerate(x.shape) if not (i in axes and n == 1)])


def expand_dims(a):
    x = a["x"]
    rank = x.dim() + len(a["axes"])
    for i in sorted(int(v) % rank for v in a["axes"]):
        x = x.unsqueeze(i)
    return x


def concat(a):
    v, axis = a["values"], int(a["axis"])
    if not a.get("interleave"):
        return torch.cat(v, axis)
    axis %= v[0].dim()
    return torch.stack(v, axis + 1).flatten(axis, axis + 1)


def split(a):
    x, axis = a["x"], int(a["axis"])
    if a.get("split_sizes") is not None:
        return torch.split(x, [int(v) for v in a["split_sizes"]], axis)
    return torch.chunk(x, int(a["num_splits"]), axis)


def pad(a):
    x, p = a["x"].numpy(), [int(v) for v in a["pad"]]
    widths = [(0, 0)] * (x.ndim - len(p) // 2) + list(zip(p[::2], p[1::2]))
    mode = a.get("mode", "constant")
    if mode == "constant":
        return torch.from_numpy(np.pad(x, widths, constant_values=float(a.get("constant_val", 0))))
    return torch.from_numpy(np.pad(x, widths, mode="edge" if mode == "replicate" else "reflect"))


def gather(a):
    x, at = a["x"].numpy(), a["indices"].numpy()
    axis, batch = int(a.get("axis", 0)) % a["x"].dim(), int(a.get("batch_dims", 0) or 0)
    if batch == 0:
        return torch.from_numpy(np.take(x, at, axis))
    lead = x.shape[:batch]
    parts = [np.take(x[i], at[i], axis - batch) for i in np.ndindex(*lead)]
    return torch.from_numpy(np.stack(parts).reshape(lead + parts[0].shape))


def gather_nd(a):
    x, at = a["x"].numpy(), a["indices"].numpy()
    batch = int(a.get("batch_dims", 0) or 0)
    lead = x.shape[:batch]
    parts = [x[i][tuple(np.moveaxis(at[i], -1, 0))] for i in np.ndindex(*lead)]
    return torch.from_numpy(np.stack(parts).reshape(lead + parts[0].shape))


def band(a):
    x = a["x"]
    m, n = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])[None, :]
    lo, up = int(a.get("lower", -1)), int(a.get("upper", -1))
    keep = ((lo < 0) | (m - n <= lower_or(lo))) & ((up < 0) | (n - m <= lower_or(up)))
    return torch.where(keep, x, torch.zeros_like(x))


def lower_or(v):
    return v if v >= 0 else 1 << 40


def one_hot(a):
    size, axis = int(a["one_hot_vector_size"]), int(a.get("axis", -1))
    y = F.one_hot(a["indices"].long(), size)
    on, off = scalar(a.get("on_value", 1)), scalar(a.get("off_value", 0))
    y = torch.where(y == 1, torch.as_tensor(on), torch.as_tensor(off))
    return torch.movedim(y, -1, axis)


def scalar(v):
    return v.item() if hasattr(v, "item") else v


def cumsum(a):
    x, axis = a["x"], int(a.get("axis", 0))
    if a.get("reverse"):
        x = x.flip(axis)
    y = x.cumsum(axis)
    if a.get("exclusive"):
        y = y - x
    return y.flip(axis) if a.get("reverse") else y


def order(x, axis, ascending):
    return torch.argsort(x if ascending else -x, dim=axis, stable=True)


def topk(a):
    x, axis, k = a["x"], int(a.get("axis", -1)), int(a.get("k", 1))
    at = order(x, axis, bool(a.get("ascending", False))).narrow(axis, 0, k)
    return torch.gather(x, axis, at), at


def blocks(x, f, form):
    n, c, h, w = x.shape
    if form == "shuffle":
        return F.pixel_shuffle(x, f)
    if form == "unshuffle":
        return F.pixel_unshuffle(x, f)
    y = torch.empty(n, c * f * f, h // f, w // f, dtype=x.dtype) if form == "depth" else torch.empty(n, c // f // f, h * f, w * f, dtype=x.dtype)
    for i in range(f):
        for j in range(f):  # block position before channel
            at = (i * f + j)
            if form == "depth":
                y[:, at * c:(at + 1) * c] = x[:, :, i::f, j::f]
            else:
                y[:, :, i::f, j::f] = x[:, at * (c // f // f):(at + 1) * (c // f // f)]
    return y


def along(v, x, axis):
    if not torch.is_tensor(v) or v.dim() == 0:
        return v if v is not None else 0
    shape = [1] * x.dim()
    shape[int(axis)] = -1
    return v.reshape(shape)


def quantize(a):
    x = a["input"]
    lo, hi = (-128, 127) if str(a["output_dtype"]).endswith("int8") and not str(a["output_dtype"]).startswith("u") else (0, 255)
    q = torch.round(x / along(a["scale"], x, a.get("axis"))) + along(a.get("zero_point"), x, a.get("axis"))
    return q.clamp(lo, hi)


def dequantize(a):
    x = a["input"]
    return (x - along(a.get("zero_point"), x, a.get("axis"))).double() * along(a["scale"], x, a.get("axis"))


def sdpa(a):
    q, k, v, m = a["query"], a["key"], a["value"], a.get("attn_mask")
    s = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if m is not None:
        s = s.masked_fill(~m, -math.inf) if m.dtype == torch.bool else s + m
    return torch.softmax(s, -1) @ v


def gelu(a):
    x, m = a["x"], a.get("mode", "EXACT")
    if m == "EXACT":
        return F.gelu(x)
    return F.gelu(x, approximate="tanh") if m == "TANH_APPROXIMATION" else x * torch.sigmoid(1.702 * x)


def cast(a):
    x, t = a["x"], a["dtype"]
    if t in ("fp16", "fp32"):
        return x.double()
    return x != 0 if t == "bool" else x.double().trunc().long()


def real_div(a):
    x, y = a["x"], a["y"]
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def floor_div(a):
    return torch.div(a["x"], a["y"], rounding_mode="floor")


def eps(default):
    return lambda a: float(a.get("epsilon", default))


def arange(a):
    s, e, d = (float(scalar(a[k])) for k in ("start", "end", "step"))
    v = torch.arange(s, e, d, dtype=torch.float64)
    return v if a["#float"] else v.long()


def windows(a):
    x, axis = a["x"], int(a["axis"])
    axis %= x.dim()
    y = x.unfold(axis, int(a["size"]), int(a.get("stride", 1)))  # the window comes last
    return torch.movedim(y, -1, axis + 1)


def np_matmul(a):
    x, y = a["x"], a["y"]
    if a.get("transpose_x"):
        x = x.transpose(-1, -2)
    if a.get("transpose_y"):
        y = y.transpose(-1, -2)
    return x @ y


X = lambda f: lambda a: f(a["x"])
XY = lambda f: lambda a: f(a["x"], a["y"])
AB = lambda f: lambda a: f(a["x"], a["alpha"], a.get("beta"))
chan = lambda v, x: v.reshape(1, -1, *[1] * (x.dim() - 2))
OPS = {
    "abs": X(torch.abs), "ceil": X(torch.ceil), "floor": X(torch.floor), "round": X(torch.round), "sign": X(torch.sign), "erf": X(torch.erf),
    "exp": X(torch.exp), "exp2": X(torch.exp2), "sin": X(torch.sin), "cos": X(torch.cos), "tan": X(torch.tan), "tanh": X(torch.tanh),
    "sinh": X(torch.sinh), "cosh": X(torch.cosh), "atanh": X(torch.atanh), "square": X(torch.square), "sqrt": X(torch.sqrt), "relu": X(torch.relu),
    "relu6": X(F.relu6), "sigmoid": X(torch.sigmoid), "silu": X(F.silu), "softplus": X(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "softsign": X(F.softsign), "logical_not": X(torch.logical_not), "identity": X(lambda x: x),
    "log": lambda a: torch.log(a["x"] + eps(1e-45)(a)), "rsqrt": lambda a: torch.rsqrt(a["x"] + eps(1e-12)(a)),
    "inverse": lambda a: 1 / (a["x"] + eps(1e-4)(a)), "gelu": gelu, "cast": cast,
    "clip": AB(lambda x, a, b: torch.minimum(torch.maximum(x, a), b)), "threshold": AB(lambda x, a, b: torch.maximum(x, a)),
    "leaky_relu": AB(lambda x, a, b: torch.where(x < 0, x * a, x)), "elu": AB(lambda x, a, b: torch.where(x < 0, a * torch.expm1(x), x)),
    "clamped_relu": AB(lambda x, a, b: torch.minimum(torch.where(x < 0, x * a, x), b)), "linear_activation": AB(lambda x, a, b: x * a + b),
    "sigmoid_hard": AB(lambda x, a, b: (x * a + b).clamp(0, 1)), "scaled_tanh": AB(lambda x, a, b: a * torch.tanh(b * x)),
    "thresholded_relu": AB(lambda x, a, b: torch.where(x >= a, x, 0.0)), "prelu": AB(lambda x, a, b: torch.where(x < 0, x * chan(a, x), x)),
    "softplus_parametric": AB(lambda x, a, b: chan(a, x) * torch.log1p(torch.exp(chan(b, x) * x))),
    "add": XY(torch.add), "sub": XY(torch.sub), "mul": XY(torch.mul), "maximum": XY(torch.maximum), "minimum": XY(torch.minimum), "pow": XY(torch.pow),
    "mod": XY(torch.remainder), "real_div": real_div, "floor_div": floor_div, "equal": XY(torch.eq), "not_equal": XY(torch.ne), "less": XY(torch.lt),
    "less_equal": XY(torch.le), "greater": XY(torch.gt), "greater_equal": XY(torch.ge), "logical_and": XY(torch.logical_and),
    "logical_or": XY(torch.logical_or), "logical_xor": XY(torch.logical_xor), "select": lambda a: torch.where(a["cond"], a["a"], a["b"]),
    "quantize": quantize, "dequantize": dequantize,
    "reduce_sum": lambda a: reduce(a, lambda x, d, k: x.sum(d, k)), "reduce_mean": lambda a: reduce(a, lambda x, d, k: x.mean(d, k)),
    "reduce_max": lambda a: reduce(a, lambda x, d, k: x.amax(d, k)), "reduce_min": lambda a: reduce(a, lambda x, d, k: x.amin(d, k)),
    "reduce_prod": lambda a: reduce(a, prod), "reduce_sum_square": lambda a: reduce(a, lambda x, d, k: x.square().sum(d, k)),
    "reduce_l2_norm": lambda a: reduce(a, lambda x, d, k: x.square().sum(d, k).sqrt()), "reduce_l1_norm": lambda a: reduce(a, lambda x, d, k: x.abs().sum(d, k)),
    "reduce_log_sum": lambda a: reduce(a, lambda x, d, k: x.sum(d, k).log()), "reduce_log_sum_exp": lambda a: reduce(a, lambda x, d, k: torch.logsumexp(x, d, k)),
    "reduce_argmax": lambda a: torch.argmax(a["x"], int(a.get("axis", -1)), bool(a.get("keep_dims", False))),
    "reduce_argmin": lambda a: torch.argmin(a["x"], int(a.get("axis", -1)), bool(a.get("keep_dims", False))),
    "softmax": lambda a: torch.softmax(a["x"], int(a.get("axis", -1))), "layer_norm": layer_norm, "instance_norm": instance_norm,
    "batch_norm": batch_norm, "local_response_norm": local_response_norm,
    "l2_norm": lambda a: a["x"] / (a["x"].square().sum((-3, -2, -1), keepdim=True) + eps(1e-6)(a)).sqrt(),
    "cumsum": cumsum, "topk": topk, "argsort": lambda a: order(a["x"], int(a.get("axis", -1)), bool(a.get("ascending", False))),
    "linear": lambda a: a["x"] @ a["weight"].T + (a["bias"] if a.get("bias") is not None else 0), "matmul": np_matmul,
    "einsum": lambda a: torch.einsum(a["equation"], *a["values"]), "scaled_dot_product_attention": sdpa, "conv": conv, "conv_transpose": conv_transpose,
    "max_pool": lambda a: pool(a, "max"), "avg_pool": lambda a: pool(a, "avg"), "l2_pool": lambda a: pool(a, "l2"),
    "reshape": reshape, "transpose": lambda a: a["x"].permute([int(v) % a["x"].dim() for v in a["perm"]]), "expand_dims": expand_dims, "squeeze": squeeze,
    "flatten2d": lambda a: a["x"].reshape(math.prod(a["x"].shape[:int(a["axis"])]), -1), "shape": lambda a: torch.tensor(a["x"].shape),
    "concat": concat, "stack": lambda a: torch.stack(a["values"], int(a["axis"])), "split": split,
    "slice_by_index": lambda a: torch.from_numpy(np.ascontiguousarray(a["x"].numpy()[np_slice(a, a["x"].shape)])), "slice_by_size": slice_by_size,
    "slice_update": slice_update, "reverse": lambda a: a["x"].flip(axes_of(a)), "tile": lambda a: a["x"].repeat([int(v) for v in a["reps"]]), "pad": pad,
    "fill": lambda a: torch.full([int(v) for v in a["shape"]], scalar(a.get("value", 0.0))),
    "fill_like": lambda a: torch.full(a["ref_tensor"].shape, scalar(a.get("value", 0.0))), "range_1d": arange, "band_part": band, "one_hot": one_hot,
    "sliding_windows": windows, "gather": gather, "gather_nd": gather_nd,
    "gather_along_axis": lambda a: torch.from_numpy(np.take_along_axis(a["x"].numpy(), a["indices"].numpy(), int(a.get("axis", 0)))),
    "pixel_shuffle": lambda a: blocks(a["x"], int(a["upscale_factor"]), "shuffle"), "pixel_unshuffle": lambda a: blocks(a["x"], int(a["downscale_factor"]), "unshuffle"),
    "space_to_depth": lambda a: blocks(a["x"], int(a["block_size"]), "depth"), "depth_to_space": lambda a: blocks(a["x"], int(a["block_size"]), "space"),
    "upsample_nearest_neighbor": lambda a: upsample(a, False), "upsample_bilinear": lambda a: upsample(a, True),
    "resize_nearest_neighbor": lambda a: resize_to(a, False), "resize_bilinear": lambda a: resize_to(a, True), "resize": resize,
}


# ---- walking ----------------------------------------------------------------------------------------------------------

def tensor(v):
    """a constant as torch computes with it here: floats as float64, integers as int64"""
    if isinstance(v, str):
        return v
    v = np.asarray(v)
    if v.dtype.kind == "U":
        return str(v)
    if v.dtype.kind == "b":
        return torch.from_numpy(np.array(v))
    return torch.from_numpy(np.array(v.astype(np.float64 if v.dtype.kind == "f" else np.int64)))


def run(fn, inputs):
    env = dict(inputs)

    def value(var):
        if var.name in env:
            return env[var.name]
        return tensor(var.val)
    for op in fn.operations:
        if op.op_type == "const":
            env[op.outputs[0].name] = tensor(op.outputs[0].val)
            continue
        if op.op_type.startswith("constexpr_"):
            if op.op_type == "constexpr_lut_to_dense" and op.lut.val is None:  # a palette that is compressed itself
                r = type(op).decompress(op.indices.val, env[op.lut.name].numpy(), op.vector_axis.val if op.vector_axis is not None else None)
            else:
                r = op.materialized_val_inference()
            for o, v in zip(op.outputs, r if isinstance(r, tuple) else (r,)):
                env[o.name] = tensor(np.asarray(v))
            continue
        a = {}
        for k, v in op.inputs.items():
            if v is not None:
                a[k] = [value(i) for i in v] if isinstance(v, (list, tuple)) else value(v)
        a["#float"] = types.is_float(op.outputs[0].dtype)
        r = OPS[op.op_type](a)
        for o, v in zip(op.outputs, r if isinstance(r, (tuple, list)) else (r,)):
            env[o.name] = v
    return [(o.name, env[o.name]) for o in fn.outputs]


def fix_pads(spec):
    """coremltools writes the default constant_val of pad as float32 beside a float16 x, and then refuses to load it"""
    for fn in spec.mlProgram.functions.values():
        block = fn.block_specializations[fn.opset]
        made = {o.outputs[0].name: o for o in block.operations if o.outputs}
        for op in block.operations:
            if op.type != "pad" or "constant_val" not in op.inputs:
                continue
            c = made[op.inputs["constant_val"].arguments[0].name]
            t = c.attributes["val"].type.tensorType
            x = made.get(op.inputs["x"].arguments[0].name)
            if t.dataType == 11 and op.outputs[0].type.tensorType.dataType == 10:
                number = np.float16(c.attributes["val"].immediateValue.tensor.floats.values[0])
                for where in (t, c.outputs[0].type.tensorType):
                    where.dataType = 10
                c.attributes["val"].immediateValue.tensor.Clear()
                c.attributes["val"].immediateValue.tensor.bytes.values = number.tobytes()


def open_package(path):
    """loaded from a copy: opening rewrites the manifest"""
    with tempfile.TemporaryDirectory() as tmp:
        copy = os.path.join(tmp, "m.mlpackage")
        shutil.copytree(path, copy)
        spec = ct.utils.load_spec(copy)
        fix_pads(spec)
        return load(model_spec=spec, specification_version=spec.specificationVersion,
                    file_weights_dir=os.path.join(copy, "Data/com.apple.CoreML/weights"))


def kind_of(t):
    return "f16" if t == types.fp16 else "f32" if t == types.fp32 else "i32"


def dims(shape):
    return ",".join(str(int(v)) for v in shape) or "-"


def report(path, out):
    fn = open_package(path).functions["main"]
    name = os.path.basename(path.rstrip("/")).removesuffix(".mlpackage")
    out.write("package %s\n" % name)
    inputs = {}
    for n, v in fn.inputs.items():
        kind = kind_of(v.dtype)
        out.write("input %s %s %s\n" % (n, kind, dims(v.shape)))
        inputs[n] = draw(n, "i32" if kind == "i32" else "f32", tuple(v.shape))
    declared = {o.name: o.dtype for o in fn.outputs}
    for n, y in run(fn, inputs):
        v = y.double().numpy().reshape(-1)
        kind = kind_of(declared[n])
        clean = np.where(np.isnan(v), 0, v)
        norm = math.sqrt(float(np.mean(np.square(clean)))) if v.size else 0
        proj = ["%.9g" % float(np.mean(clean * weight_of(name_seed(n) + p + 1, v.size))) for p in range(PROJECTIONS)]
        step = max(1, v.size // SAMPLES)
        out.write("output %s %s %s %.9g %s : %s\n" % (n, kind, dims(y.shape), norm, " ".join(proj), " ".join("%.9g" % s for s in v[::step][:SAMPLES])))


if __name__ == "__main__":
    torch.manual_seed(0)
    for p in sys.argv[1:]:
        report(p, sys.stdout)
