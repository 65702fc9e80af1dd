# SPDX-License-Identifier: MIT
"""Golden results of single ops, made by torch in float64 and rounded to float32 once.

    python tests/reference/ops.py > tests/golden/ops/ops.txt

One case a line: op, attributes as the C reader (tests/support/golden_ops.c) knows them, inputs by kind and shape, and the
result's numbers as hexadecimal float32 or int32 words. Inputs are not stored: both sides draw them from the same hash of
(case number, input number, element number).
"""
import sys
import numpy as np
import torch
import torch.nn.functional as F

MASK = (1 << 64) - 1
cases = 0
last = None


def bits(case, which, count):
    """splitmix64 of a counter, one 64-bit word per element."""
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) + np.uint64(case * 1000003 + which * 8191 + 1)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def draw(case, which, spec):
    kind, shape = spec
    b = bits(case, which, int(np.prod(shape, dtype=np.int64)))
    if kind == "f32":  # multiples of 1/64 in [-2, 2)
        v = (b >> np.uint64(56)).astype(np.float64) / 64 - 2
    elif kind == "pos":  # (0, 4]
        v = ((b >> np.uint64(56)).astype(np.float64) + 1) / 64
    elif kind == "bool":
        v = (b >> np.uint64(63)).astype(bool)
    else:  # i32:lo:hi, both included
        lo, hi = map(int, kind[4:].split(":"))
        v = ((b >> np.uint64(32)) % np.uint64(hi - lo + 1)).astype(np.int32) + np.int32(lo)
    return torch.from_numpy(v).reshape(shape)


def text(v):
    if isinstance(v, bool):
        return str(int(v))
    return ",".join(text(i) for i in v) if isinstance(v, (tuple, list)) else str(v)


def case(op, fn, *specs, **attr):
    """specs: (kind, shape); fn takes the drawn tensors."""
    global cases
    inputs = [draw(cases, i, s) for i, s in enumerate(specs)]
    y = fn(*inputs)
    y = y if isinstance(y, torch.Tensor) else torch.from_numpy(np.asarray(y))
    attr.setdefault("want", tuple(y.shape)) if op in ("reshape", "expand", "slice") else None
    words = [op] + [f"{k}={text(v)}" for k, v in attr.items()] + [f"in={k}[{text(tuple(s))}]" for k, s in specs]
    a = np.ascontiguousarray(y.numpy())
    kind = "bool" if a.dtype == bool else "i32" if a.dtype.kind == "i" else "f32"
    a = a.astype({"bool": np.uint8, "i32": np.int32, "f32": np.float32}[kind])
    words.append(f"out={kind}[{text(tuple(y.shape))}]")
    print(" ".join(words) + " : " + (a.tobytes().hex() if kind == "bool" else " ".join(f"{w:x}" for w in a.reshape(-1).view(np.uint32))))
    cases += 1


def f(*shape):
    return ("f32", shape)


def elementwise():
    unary = dict(abs=torch.abs, exp=torch.exp, sin=torch.sin, cos=torch.cos, tanh=torch.tanh, erf=torch.erf, floor=torch.floor,
                 ceil=torch.ceil, round=torch.round, sign=torch.sign, sigmoid=torch.sigmoid, silu=F.silu)
    for op, fn in unary.items():
        case(op, fn, f(2, 9))
    for op, fn in dict(log=torch.log, sqrt=torch.sqrt, rsqrt=torch.rsqrt).items():
        case(op, fn, ("pos", (2, 9)))
    case("gelu", F.gelu, f(3, 7), gelu="exact")
    case("gelu", lambda x: F.gelu(x, approximate="tanh"), f(3, 7), gelu="tanh")
    case("gelu", lambda x: x * torch.sigmoid(1.702 * x), f(3, 7), gelu="sigmoid")
    case("abs", torch.abs, ("i32:-9:9", (7,)))
    case("sign", torch.sign, ("i32:-2:2", (7,)))
    case("not", torch.logical_not, ("bool", (9,)))
    case("cast", lambda x: (x * 1).to(torch.int32), f(11), to="i32")
    case("cast", lambda x: x != 0, ("i32:-1:1", (11,)), to="bool")
    case("cast", lambda x: x.double(), ("bool", (5,)), to="f32")
    case("cast", lambda x: x.double(), ("i32:-1000:1000", (5,)), to="f32")
    shapes = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)), ((3, 1), (2, 1, 5)), ((), (2, 2)), ((2, 1, 3), (1, 4, 1))]
    binary = dict(add=torch.add, sub=torch.sub, mul=torch.mul, max=torch.maximum, min=torch.minimum)
    for i, (op, fn) in enumerate(binary.items()):
        case(op, fn, f(*shapes[i][0]), f(*shapes[i][1]))
        case(op, fn, ("i32:-9:9", (3, 1)), ("i32:-9:9", (4,)))
    case("div", torch.div, f(2, 3, 4), ("pos", (3, 1)))
    case("div", lambda x, y: torch.div(x, y, rounding_mode="floor"), ("i32:-20:20", (4, 5)), ("i32:1:7", (5,)))
    case("mod", torch.remainder, f(2, 3, 4), ("pos", (3, 1)))
    case("mod", torch.remainder, ("i32:-20:20", (4, 5)), ("i32:1:7", (5,)))
    case("mod", torch.remainder, ("i32:-20:20", (4, 5)), ("i32:-7:-1", (5,)))
    case("pow", torch.pow, ("pos", (3, 4)), f(4))
    case("pow", torch.pow, ("i32:-5:5", (3, 4)), ("i32:0:5", (4,)))
    comparisons = dict(eq=torch.eq, ne=torch.ne, lt=torch.lt, le=torch.le, gt=torch.gt, ge=torch.ge)
    for op, fn in comparisons.items():
        case(op, fn, ("i32:-2:2", (3, 4)), ("i32:-2:2", (4,)))
        case(op, fn, f(2, 1, 3), f(2, 1))
    for op, fn in {"and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor}.items():
        case(op, fn, ("bool", (3, 4)), ("bool", (4,)))
    case("where", torch.where, ("bool", (3, 1)), f(2, 1, 4), f(3, 4))
    case("where", torch.where, ("bool", (2, 3, 1)), ("i32:0:9", (4,)), ("i32:0:9", ()))


def reductions():
    for op, fn in dict(sum=torch.sum, rmax=torch.amax, rmin=torch.amin).items():
        case(op, lambda x: fn(x, (1,)), f(2, 5, 3), axes=(1,))
        case(op, lambda x: fn(x, (0, 2), keepdim=True), f(2, 5, 3), axes=(-1, 0), keep=True)
        case(op, lambda x: fn(x, (0, 1)).to(torch.int32), ("i32:-9:9", (2, 5)), axes=(0, 1))
    case("prod", lambda x: torch.prod(x, -1), f(2, 3, 4), axes=(-1,))
    case("prod", lambda x: torch.prod(torch.prod(x, 0, keepdim=True), 2, keepdim=True), f(2, 3, 2), axes=(2, 0), keep=True)
    case("argmax", lambda x: torch.argmax(x, 1).int(), f(3, 8), axes=(1,), largest=True)
    case("argmax", lambda x: torch.argmin(x, 0, keepdim=True).int(), f(5, 4), axes=(-2,), keep=True, largest=False)
    case("argmax", lambda x: np.argmax(x.numpy(), -1).astype(np.int32), ("i32:0:2", (4, 6)), axes=(-1,), largest=True)
    case("cumsum", lambda x: torch.cumsum(x, 1), f(2, 5, 2), axis=1)
    case("cumsum", lambda x: torch.cumsum(x, -1) - x, f(2, 6), axis=-1, exclusive=True)
    case("cumsum", lambda x: torch.flip(torch.cumsum(torch.flip(x, [0]), 0), [0]), f(5, 2), axis=0, reverse=True)
    case("cumsum", lambda x: torch.cumsum(x, -1).int(), ("i32:-5:5", (2, 6)), axis=-1)
    for largest in (True, False):
        case("topk", lambda x: torch.topk(x, 3, 1, largest).values, f(2, 7, 2), axis=1, k=3, largest=largest)
        order = lambda x: np.argsort(-x.numpy() if largest else x.numpy(), -1, kind="stable")[:, :4].astype(np.int32)
        case("topk", order, ("i32:0:3", (3, 8)), axis=-1, k=4, largest=largest, indices=True)


def products():
    mm = lambda ta, tb: lambda x, y: torch.matmul(x.mT if ta else x, y.mT if tb else y)
    case("matmul", mm(False, False), f(3, 4), f(4, 5), ta=False, tb=False)
    case("matmul", mm(True, False), f(2, 4, 3), f(4, 5), ta=True, tb=False)
    case("matmul", mm(False, True), f(3, 4), f(2, 1, 5, 4), ta=False, tb=True)
    case("matmul", mm(True, True), f(2, 1, 4, 3), f(3, 2, 4), ta=True, tb=True)
    case("matmul", lambda x, y: torch.matmul(x, y), ("i32:-9:9", (2, 3)), ("i32:-9:9", (3, 2)), ta=False, tb=False)
    case("linear", F.linear, f(2, 3, 5), f(4, 5), f(4))
    case("linear", F.linear, f(5), f(4, 5))
    case("linear", F.linear, f(2, 1, 3, 5), f(1, 5), f(1))


def convolutions():
    def conv(x, w, b=None, stride=(1,), dilation=(1,), before=(0,), after=(0,), groups=1):
        pads = [p for pair in reversed(list(zip(before, after))) for p in pair]
        fn = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(stride)]
        return fn(F.pad(x, pads), w, b, stride, 0, dilation, groups)

    def go(*specs, **a):
        case("conv", lambda *t: conv(*t, **a), *specs, **a)

    go(f(2, 3, 9), f(4, 3, 3), f(4), stride=(1,), dilation=(1,), before=(1,), after=(1,), groups=1)
    go(f(1, 4, 9), f(6, 2, 3), stride=(2,), dilation=(2,), before=(0,), after=(3,), groups=2)
    go(f(1, 3, 6, 5), f(2, 3, 3, 3), f(2), stride=(1, 1), dilation=(1, 1), before=(1, 1), after=(1, 1), groups=1)
    go(f(2, 4, 7, 8), f(4, 1, 3, 2), f(4), stride=(2, 3), dilation=(2, 1), before=(2, 0), after=(1, 1), groups=4)
    go(f(1, 4, 5, 4), f(6, 2, 1, 1), stride=(1, 1), dilation=(1, 1), before=(0, 0), after=(0, 0), groups=2)
    go(f(1, 2, 4, 5, 3), f(3, 2, 2, 3, 2), f(3), stride=(1, 2, 1), dilation=(1, 1, 2), before=(1, 0, 1), after=(0, 1, 1), groups=1)

    def back(x, w, b=None, stride=(1,), dilation=(1,), before=(0,), after=(0,), groups=1):
        fn = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}[len(stride)]
        y = fn(x, w, None, stride, 0, 0, groups, dilation)
        pads = [-p for pair in reversed(list(zip(before, after))) for p in pair]
        y = F.pad(y, pads)
        return y if b is None else y + b.reshape((-1,) + (1,) * len(stride))

    def tr(*specs, **a):
        case("conv_transpose", lambda *t: back(*t, **a), *specs, **a)

    tr(f(1, 3, 5), f(3, 2, 4), f(2), stride=(2,), dilation=(1,), before=(1,), after=(1,), groups=1)
    tr(f(1, 2, 4), f(2, 2, 2), stride=(3,), dilation=(2,), before=(0,), after=(-2,), groups=1)
    tr(f(2, 2, 3, 4), f(2, 3, 3, 3), f(3), stride=(2, 1), dilation=(1, 1), before=(1, 1), after=(0, 1), groups=1)
    tr(f(1, 4, 3, 3), f(4, 2, 2, 3), f(4), stride=(2, 2), dilation=(1, 2), before=(0, 3), after=(1, 2), groups=2)
    tr(f(1, 2, 2, 3, 2), f(2, 1, 2, 2, 3), f(1), stride=(2, 1, 2), dilation=(1, 1, 1), before=(0, 1, 1), after=(1, 0, 1), groups=1)
    tr(f(1, 1, 4), f(1, 1, 1), f(1), stride=(2,), dilation=(1,), before=(2,), after=(0,), groups=1)


def pools():
    def pool(x, kernel, stride, before, after, average, count_padding=False):
        fns = {1: (F.max_pool1d, F.avg_pool1d), 2: (F.max_pool2d, F.avg_pool2d), 3: (F.max_pool3d, F.avg_pool3d)}[len(kernel)]
        pads = [p for pair in reversed(list(zip(before, after))) for p in pair]
        if not average:
            return fns[0](F.pad(x, pads, value=-torch.inf), kernel, stride)
        y = fns[1](F.pad(x, pads), kernel, stride)
        return y if count_padding else y / fns[1](F.pad(torch.ones_like(x), pads), kernel, stride)

    def go(spec, **a):
        case("pool", lambda x: pool(x, **a), spec, **a)

    go(f(1, 2, 9), kernel=(3,), stride=(2,), before=(1,), after=(0,), average=False)
    go(f(2, 2, 5, 6), kernel=(2, 3), stride=(2, 1), before=(1, 2), after=(0, 1), average=False)
    go(f(2, 2, 5, 6), kernel=(2, 3), stride=(2, 1), before=(1, 2), after=(0, 1), average=True, count_padding=False)
    go(f(2, 2, 5, 6), kernel=(3, 3), stride=(1, 2), before=(1, 1), after=(1, 1), average=True, count_padding=True)
    go(f(1, 2, 4, 3, 5), kernel=(2, 2, 3), stride=(2, 1, 2), before=(0, 1, 1), after=(0, 1, 1), average=True, count_padding=False)
    go(f(1, 1, 4, 3, 5), kernel=(2, 2, 2), stride=(1, 1, 2), before=(0, 0, 0), after=(0, 0, 1), average=False)


def movement():
    case("reshape", lambda x: x.reshape(4, 6), f(2, 3, 4), want=(4, -1))
    case("reshape", lambda x: x.reshape(1), f(), want=(1,))
    case("permute", lambda x: x.permute(2, 0, 1), f(2, 3, 4), perm=(2, 0, 1))
    case("permute", lambda x: x.permute(0, 3, 1, 4, 2), f(1, 2, 3, 2, 2), perm=(0, -2, 1, -1, 2))
    case("permute", lambda x: x.permute(1, 0), ("bool", (3, 4)), perm=(1, 0))
    case("expand", lambda x: x.expand(3, 2, 4), f(2, 1))
    case("expand", lambda x: x.expand(2, 3), ("bool", (3,)))
    case("slice", lambda x: torch.flip(x[1:2, 0:5:2, 1:4], [2]), f(3, 5, 4), begin=(1, 0, 3), stride=(1, 2, -1))
    case("slice", lambda x: x[2:6], ("i32:0:99", (8,)), begin=(2,), stride=(1,))
    case("concat", lambda *t: torch.cat(t, 1), f(2, 1, 3), f(2, 4, 3), f(2, 2, 3), axis=1)
    case("concat", lambda *t: torch.cat(t, -1), ("bool", (2, 2)), ("bool", (2, 3)), axis=-1)
    case("concat", lambda *t: torch.cat(t, 0), f(2), axis=0)
    case("pad", lambda x: F.pad(x, (2, 1, 0, 3), value=1.5), f(2, 2, 3), before=(0, 0, 2), after=(0, 3, 1), mode="constant", value=1.5)
    case("pad", lambda x: F.pad(x, (2, 3), value=-7), ("i32:0:9", (2, 2)), before=(0, 2), after=(0, 3), mode="constant", value=-7)
    case("pad", lambda x: F.pad(x, (2, 1, 1, 2), mode="reflect"), f(1, 2, 3, 4), before=(0, 0, 1, 2), after=(0, 0, 2, 1), mode="reflect")
    case("pad", lambda x: F.pad(x, (5, 1, 0, 4), mode="replicate"), f(1, 1, 2, 3), before=(0, 0, 0, 5), after=(0, 0, 4, 1), mode="replicate")
    case("pad", lambda x: np.pad(x.numpy(), [(2, 2), (0, 1)], mode="reflect"), f(3, 2), before=(2, 0), after=(2, 1), mode="reflect")
    case("reverse", lambda x: torch.flip(x, [0, 2]), f(2, 3, 4), axes=(-1, 0))
    take = lambda axis: lambda x, i: np.take(x.numpy(), i.numpy(), axis)
    case("gather", take(0), f(5, 3), ("i32:0:4", (2, 2)), axis=0)
    case("gather", take(-1), f(2, 5), ("i32:-5:4", (3,)), axis=-1)
    case("gather", take(1), ("bool", (2, 4, 3)), ("i32:0:3", ()), axis=1)
    batched = lambda x, i: np.stack([np.take(a, b, 0) for a, b in zip(x.numpy(), i.numpy())])
    case("gather", batched, f(3, 5, 2), ("i32:-2:4", (3, 4)), axis=1, batch_dims=1)
    batched2 = lambda x, i: np.stack([np.take(a, b, 1) for a, b in zip(x.numpy(), i.numpy())])
    case("gather", batched2, f(2, 3, 4), ("i32:0:3", (2, 2, 2)), axis=2, batch_dims=1)
    along = lambda axis: lambda x, i: np.take_along_axis(x.numpy(), np.where(i.numpy() < 0, i.numpy() + x.shape[axis], i.numpy()), axis)
    case("gather_along", along(1), f(2, 5, 2), ("i32:0:4", (2, 3, 2)), axis=1)
    case("gather_along", along(0), f(4, 3), ("i32:-4:3", (6, 3)), axis=-2)


def norms():
    case("softmax", lambda x: torch.softmax(x, -1), f(2, 3, 5), axis=-1)
    case("softmax", lambda x: torch.softmax(x, 0), f(4, 3), axis=0)
    rms = lambda x, w=None: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-2) * (1 if w is None else w)
    case("rms_norm", rms, f(2, 3, 8), f(8), eps=1e-2)
    case("rms_norm", rms, f(2, 8), eps=1e-2)
    case("layer_norm", lambda x, w, b: F.layer_norm(x, (6,), w, b, 1e-3), f(2, 3, 6), f(6), f(6), axes=(-1,), eps=1e-3)
    case("layer_norm", lambda x, w: F.layer_norm(x, (3, 6), w, None, 1e-3), f(2, 3, 6), f(3, 6), axes=(1, 2), eps=1e-3)
    case("layer_norm", lambda x: F.layer_norm(x.mT, (5,), None, None, 1e-5).mT, f(2, 5, 4), axes=(1,), eps=1e-5)

    def apart(x, w, b):  # axes 0 and 2, not neighbours
        m = x.mean((0, 2), keepdim=True)
        v = ((x - m) ** 2).mean((0, 2), keepdim=True)
        return (x - m) / torch.sqrt(v + 1e-5) * w[:, None, :] + b[:, None, :]
    case("layer_norm", apart, f(3, 2, 4), f(3, 4), f(3, 4), axes=(0, 2), eps=1e-5)
    case("group_norm", lambda x, w, b: F.group_norm(x, 3, w, b, 1e-6), f(2, 6, 3, 2), f(6), f(6), groups=3, eps=1e-6)
    case("group_norm", lambda x: F.group_norm(x, 1, None, None, 1e-5), f(2, 4, 3), groups=1, eps=1e-5)
    case("group_norm", lambda x, w: F.group_norm(x, 2, w, None, 1e-5), f(2, 4), f(4), groups=2, eps=1e-5)


def attention():
    def rope(interleaved):
        def fn(x, c, s):
            if interleaved:
                r = torch.stack([-x[..., 1::2], x[..., 0::2]], -1).flatten(-2)
            else:
                h = x.shape[-1] // 2
                r = torch.cat([-x[..., h:], x[..., :h]], -1)
            return x * c + r * s
        return fn
    case("rope", rope(True), f(1, 2, 3, 8), f(3, 8), f(3, 8), interleaved=True)
    case("rope", rope(False), f(2, 3, 2, 6), f(3, 1, 6), f(3, 1, 6), interleaved=False)
    case("rope", rope(True), f(3, 4), f(3, 1), f(1, 4), interleaved=True)

    def sdpa(scale):
        return lambda q, k, v, m=None: F.scaled_dot_product_attention(q, k, v, m, scale=scale)
    case("sdpa", sdpa(0.5), f(1, 2, 3, 4), f(1, 2, 5, 4), f(1, 2, 5, 6), scale=0.5)
    case("sdpa", sdpa(0.25), f(3, 4), f(5, 4), f(5, 2), scale=0.25)
    case("sdpa", sdpa(0.3), f(2, 2, 3, 4), f(2, 2, 5, 4), f(2, 2, 5, 4), f(3, 5), scale=0.3)
    case("sdpa", sdpa(0.3), f(2, 2, 3, 4), f(2, 2, 5, 4), f(2, 2, 5, 4), f(2, 1, 1, 5), scale=0.3)
    case("sdpa", sdpa(0.3), f(2, 3, 4), f(2, 5, 4), f(2, 5, 4), f(3, 1), scale=0.3)
    masked = lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, scale=1.0)
    case("sdpa", masked, f(2, 3, 4), f(2, 5, 4), f(2, 5, 4), ("bool", (2, 3, 5)), scale=1.0)
    case("sdpa", masked, f(2, 2, 3, 4), f(2, 2, 6, 4), f(2, 2, 6, 4), ("bool", (2, 1, 1, 6)), scale=1.0)


def resampling():
    case("upsample", lambda x: F.interpolate(x, scale_factor=(2, 3), mode="nearest"), f(1, 2, 3, 2), fh=2, fw=3)
    up = lambda **k: lambda x: F.interpolate(x, mode="bilinear", **k)
    case("upsample", up(scale_factor=(2, 3), align_corners=False), f(1, 2, 3, 4), fh=2, fw=3, bilinear=True, half_pixel=True)
    case("upsample", up(size=(6, 8), align_corners=True), f(2, 1, 3, 4), fh=2, fw=2, bilinear=True, align_corners=True)
    case("upsample", up(size=(4, 2), align_corners=True), f(1, 2, 1, 2), fh=4, fw=1, bilinear=True, align_corners=True)

    def asymmetric(x):  # reads at o / factor
        def along(x, axis, factor):
            n = x.shape[axis]
            at = torch.arange(n * factor, dtype=torch.float64) / factor
            at = at.clamp(max=n - 1)
            lo = at.floor().long()
            hi = (lo + 1).clamp(max=n - 1)
            t = (at - lo).reshape((-1, 1) if axis == -2 else (-1,))
            return x.index_select(axis, lo) * (1 - t) + x.index_select(axis, hi) * t
        return along(along(x, -1, 2), -2, 3)
    case("upsample", asymmetric, f(1, 2, 3, 4), fh=3, fw=2, bilinear=True)
    case("upsample", lambda x: x.repeat_interleave(2, 0).repeat_interleave(2, 1), f(3, 2), fh=2, fw=2)
    case("dequant", lambda x, s: x * s, ("i32:-128:127", (3, 4)), f())
    case("dequant", lambda x, s, z: (x - z[:, None]) * s[:, None], ("i32:-128:127", (3, 4)), f(3), ("i32:-5:5", (3,)), axis=0)
    case("dequant", lambda x, s, z: (x - z) * s, ("i32:0:255", (2, 3, 4)), f(4), f(4), axis=-1)
    case("dequant", lambda x, s, z: (x - z) * s, ("i32:0:255", (2, 3)), f(), f())


for group in (elementwise, reductions, products, convolutions, pools, movement, norms, attention, resampling):
    group()
print(f"{cases} cases", file=sys.stderr)
