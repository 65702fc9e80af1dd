# SPDX-License-Identifier: MIT
"""The small packages of tests/golden/mlprograms: programs built with coremltools' own builder so that every op and every
compressed form the reader knows occurs in a file that alloy did not write.

    python tests/reference/mlprograms_make.py tests/golden/mlprograms

mlprograms.py then computes what they should give.
"""
import json
import os
import shutil
import sys

import numpy as np
import coremltools as ct
import coremltools.optimize as cto
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

rng = np.random.default_rng(7)
f32, i32 = types.fp32, types.int32
TARGET = {16: ct.target.iOS16, 17: ct.target.iOS17, 18: ct.target.iOS18}


def normal(*shape, scale=1.0, dtype=np.float32):
    return (rng.standard_normal(shape) * scale).astype(np.float16).astype(dtype)


def program(opset, inputs, body):
    specs = [mb.TensorSpec(shape=s, dtype=t) for _, s, t in inputs]
    names = ", ".join(n for n, _, _ in inputs)
    scope = {"body": body}  # the builder takes the names of inputs from the function's signature
    exec(f"def main({names}):\n    return body({names})", scope)
    return mb.program(input_specs=specs, opset_version=TARGET[opset])(scope["main"])


def save(out, name, opset, inputs, body, half=False, change=None):
    prog = program(opset, inputs, body)
    keep = ct.PassPipeline.EMPTY
    m = ct.convert(prog, convert_to="mlprogram", minimum_deployment_target=TARGET[opset], pass_pipeline=keep, skip_model_load=True,
                   compute_precision=ct.precision.FLOAT32)
    if change:
        m = change(m)
    path = os.path.join(out, name + ".mlpackage")
    shutil.rmtree(path, ignore_errors=True)
    m.save(path)
    manifest = os.path.join(path, "Manifest.json")
    del m
    tidy(manifest)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs)
    print(name, size)


def tidy(manifest):
    """Fixed identifiers, so that making the packages again changes nothing that matters; no empty folder, which git loses."""
    m = json.load(open(manifest))
    weights = os.path.join(os.path.dirname(manifest), "Data/com.apple.CoreML/weights")
    if os.path.isdir(weights) and not os.listdir(weights):
        os.rmdir(weights)
    if not os.path.isdir(weights):
        m["itemInfoEntries"] = {k: v for k, v in m["itemInfoEntries"].items() if v["name"] != "weights"}
    new = {}
    for i, (k, v) in enumerate(sorted(m["itemInfoEntries"].items(), key=lambda e: e[1]["name"])):
        uid = "00000000-0000-4000-8000-%012d" % i
        new[uid] = v
        if k == m["rootModelIdentifier"]:
            m["rootModelIdentifier"] = uid
    m["itemInfoEntries"] = new
    json.dump(m, open(manifest, "w"), indent=1, sort_keys=True)


def elementwise(x, p, b, i):
    """x mixed signs [2, 3, 4], p positive, b = x > 0, i integers"""
    o = []
    for f in ("abs", "ceil", "floor", "round", "sign", "erf", "exp", "exp2", "sin", "cos", "tan", "tanh", "sinh", "cosh", "square",
              "relu", "relu6", "sigmoid", "silu", "softplus", "softsign"):
        o.append(getattr(mb, f)(x=x, name="y_" + f))
    for f in ("log", "rsqrt", "inverse"):
        o.append(getattr(mb, f)(x=p, epsilon=np.float32(0.125), name="y_" + f))
        o.append(getattr(mb, f)(x=p, name="y_%s_default" % f))
    o.append(mb.sqrt(x=p, name="y_sqrt"))
    o.append(mb.atanh(x=mb.mul(x=x, y=np.float32(0.4)), name="y_atanh"))
    for m in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"):
        o.append(mb.gelu(x=x, mode=m, name="y_gelu_" + m.split("_")[0].lower()))
    a, c = np.float32(0.3), np.float32(0.7)
    o.append(mb.clip(x=x, alpha=-a, beta=c, name="y_clip"))
    o.append(mb.threshold(x=x, alpha=a, name="y_threshold"))
    o.append(mb.leaky_relu(x=x, alpha=a, name="y_leaky_relu"))
    o.append(mb.elu(x=x, alpha=a, name="y_elu"))
    o.append(mb.clamped_relu(x=x, alpha=a, beta=c, name="y_clamped_relu"))
    o.append(mb.linear_activation(x=x, alpha=a, beta=c, name="y_linear_activation"))
    o.append(mb.sigmoid_hard(x=x, alpha=a, beta=c, name="y_sigmoid_hard"))
    o.append(mb.scaled_tanh(x=x, alpha=a, beta=c, name="y_scaled_tanh"))
    o.append(mb.thresholded_relu(x=x, alpha=a, name="y_thresholded_relu"))
    x4 = mb.expand_dims(x=x, axes=[3])
    o.append(mb.prelu(x=x4, alpha=np.array([0.1, 0.2, 0.3], np.float32), name="y_prelu"))
    o.append(mb.softplus_parametric(x=x, alpha=np.array([0.5, 1, 2], np.float32), beta=np.array([1, 2, 0.5], np.float32), name="y_softplus_parametric"))
    for f in ("add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum"):
        o.append(getattr(mb, f)(x=x, y=p, name="y_" + f))
    o.append(mb.pow(x=p, y=x, name="y_pow"))
    row = mb.slice_by_index(x=p, begin=[0, 0, 0], end=[1, 1, 4], squeeze_mask=[True, True, False])
    o.append(mb.add(x=x, y=row, name="y_add_broadcast"))
    bits = {}
    for f in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal"):
        bits[f] = getattr(mb, f)(x=mb.round(x=x), y=mb.round(x=p))
        o.append(mb.cast(x=bits[f], dtype="fp32", name="y_" + f))
    for f in ("logical_and", "logical_or", "logical_xor"):
        o.append(mb.cast(x=getattr(mb, f)(x=b, y=bits["less"]), dtype="int32", name="y_" + f))
    o.append(mb.cast(x=mb.logical_not(x=b), dtype="int32", name="y_logical_not"))
    o.append(mb.select(cond=b, a=x, b=p, name="y_select"))
    o.append(mb.cast(x=x, dtype="int32", name="y_cast_int32"))
    o.append(mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="int32", name="y_cast_bool"))
    o.append(mb.cast(x=mb.cast(x=mb.mul(x=x, y=np.float32(50)), dtype="int8"), dtype="fp32", name="y_cast_int8"))
    o.append(mb.cast(x=i, dtype="fp32", name="y_cast_fp32"))
    o.append(mb.add(x=mb.mul(x=i, y=i), y=np.int32(-7), name="y_int_math"))
    o.append(mb.floor_div(x=mb.sub(x=i, y=np.int32(4)), y=np.int32(3), name="y_int_floor_div"))
    o.append(mb.mod(x=mb.sub(x=i, y=np.int32(4)), y=np.int32(3), name="y_int_mod"))
    q = mb.quantize(input=x, scale=np.float32(0.017), zero_point=np.int8(5), output_dtype="int8")
    o.append(mb.dequantize(input=q, scale=np.float32(0.017), zero_point=np.int8(5), name="y_dequantize"))
    s, z = np.array([0.02, 0.01, 0.03], np.float32), np.array([100, 120, 140], np.uint8)
    q = mb.quantize(input=x, scale=s, zero_point=z, axis=1, output_dtype="uint8")
    o.append(mb.dequantize(input=q, scale=s, zero_point=z, axis=1, name="y_dequantize_axis"))
    o.append(mb.dequantize(input=mb.quantize(input=x, scale=np.float32(0.02), output_dtype="int8"), scale=np.float32(0.02), name="y_dequantize_symmetric"))
    return tuple(o)


def elementwise_main(x, p, i):
    return elementwise(x, p, mb.greater(x=x, y=np.float32(0)), i)


def reductions(x, y, k):
    """x [2, 3, 4, 5], y [2, 3, 8]"""
    o = []
    for f in ("sum", "mean", "max", "min", "prod", "sum_square", "l2_norm", "l1_norm", "log_sum_exp"):
        o.append(getattr(mb, "reduce_" + f)(x=x, axes=[1, -1], keep_dims=False, name="s_" + f))
        o.append(getattr(mb, "reduce_" + f)(x=y, keep_dims=True, name="s_%s_all" % f))
    o.append(mb.reduce_log_sum(x=mb.exp(x=x), axes=[0], keep_dims=False, name="r_log_sum"))
    o.append(mb.reduce_argmax(x=x, axis=2, keep_dims=False, name="r_argmax"))
    o.append(mb.reduce_argmin(x=x, axis=-1, keep_dims=True, name="r_argmin"))
    o.append(mb.reduce_sum(x=k, axes=[1], keep_dims=False, name="r_int_sum"))
    o.append(mb.softmax(x=x, axis=1, name="r_softmax"))
    g, b = normal(4, 5), normal(4, 5)
    o.append(mb.layer_norm(x=x, axes=[2, 3], gamma=g, beta=b, epsilon=np.float32(1e-3), name="r_layer_norm"))
    o.append(mb.layer_norm(x=x, axes=[1], gamma=normal(3), beta=normal(3), name="r_layer_norm_channels"))
    o.append(mb.layer_norm(x=x, axes=[1, 3], name="r_layer_norm_plain"))
    o.append(mb.layer_norm(x=y, axes=[-1], gamma=normal(8), name="r_layer_norm_gamma"))
    o.append(mb.instance_norm(x=x, gamma=normal(3), beta=normal(3), epsilon=np.float32(1e-3), name="r_instance_norm"))
    o.append(mb.instance_norm(x=y, name="r_instance_norm_3"))
    o.append(mb.batch_norm(x=x, mean=normal(3), variance=np.abs(normal(3)) + np.float32(0.5), gamma=normal(3), beta=normal(3),
                           epsilon=np.float32(1e-3), name="r_batch_norm"))
    o.append(mb.batch_norm(x=y, mean=normal(3), variance=np.abs(normal(3)) + np.float32(0.5), name="r_batch_norm_plain"))
    o.append(mb.l2_norm(x=x, epsilon=np.float32(1e-3), name="r_l2_norm"))
    o.append(mb.l2_norm(x=y, name="r_l2_norm_3"))
    o.append(mb.local_response_norm(x=x, size=3, alpha=np.float32(0.5), beta=np.float32(0.75), k=np.float32(1.5), name="r_local_response_norm"))
    for e in (False, True):
        for r in (False, True):
            o.append(mb.cumsum(x=x, axis=2, exclusive=e, reverse=r, name="r_cumsum_%d%d" % (e, r)))
    a, b = mb.topk(x=y, k=3, axis=-1, ascending=False, sort=True, return_indices=True)
    o += [mb.identity(x=a, name="r_topk"), mb.identity(x=b, name="r_topk_at")]
    a, b = mb.topk(x=y, k=2, axis=1, ascending=True)
    o += [mb.identity(x=a, name="r_topk_low"), mb.identity(x=b, name="r_topk_low_at")]
    o.append(mb.argsort(x=y, axis=-1, ascending=True, name="r_argsort"))
    o.append(mb.argsort(x=y, axis=2, ascending=False, name="r_argsort_down"))
    return tuple(o)


def matrices(x, y, v, im, vol, seq):
    """x [2, 3, 4, 5], y [2, 3, 5, 6], v [5], im [2, 4, 7, 9], vol [1, 2, 4, 5, 6], seq [2, 4, 11]"""
    o = []
    o.append(mb.matmul(x=x, y=y, name="m_mm"))
    o.append(mb.matmul(x=x, y=mb.transpose(x=y, perm=[0, 1, 3, 2]), transpose_y=True, name="m_mm_ty"))
    o.append(mb.matmul(x=mb.transpose(x=x, perm=[0, 1, 3, 2]), y=y, transpose_x=True, name="m_mm_tx"))
    o.append(mb.matmul(x=x, y=normal(1, 5, 7), name="m_mm_broadcast"))
    o.append(mb.matmul(x=v, y=normal(5, 3), name="m_mm_vector"))
    w = normal(7, 5)
    x3 = mb.reshape(x=x, shape=[2, 12, 5])
    o.append(mb.linear(x=x3, weight=w, bias=normal(7), name="m_linear"))
    o.append(mb.linear(x=v, weight=w, name="m_linear_vector"))
    e = mb.transpose(x=y, perm=[0, 2, 1, 3])
    o.append(mb.einsum(values=(mb.transpose(x=x, perm=[0, 2, 1, 3]), e), equation="nchw,nwhu->nchu", name="m_einsum"))
    o.append(mb.einsum(values=(mb.reshape(x=v, shape=[1, 1, 5]), mb.reshape(x=y, shape=[5, 6, 6])), equation="abc,cbd->abd", name="m_einsum_3"))
    for t in ("valid", "same", "same_lower"):
        o.append(mb.conv(x=im, weight=normal(6, 4, 3, 2), pad_type=t, strides=[2, 3], dilations=[1, 2], name="m_c_" + t))
    o.append(mb.conv(x=im, weight=normal(8, 2, 3, 3), bias=normal(8), pad_type="custom", pad=[1, 0, 2, 1], groups=2, name="m_c_custom"))
    o.append(mb.conv(x=im, weight=normal(4, 1, 2, 2), groups=4, name="m_c_depthwise"))
    o.append(mb.conv(x=seq, weight=normal(5, 4, 4), pad_type="same", strides=[3], name="m_c_1d"))
    o.append(mb.conv(x=vol, weight=normal(3, 2, 2, 3, 2), bias=normal(3), pad_type="same", strides=[1, 2, 1], name="m_c_3d"))
    o.append(mb.conv_transpose(x=im, weight=normal(4, 3, 3, 2), strides=[2, 3], bias=normal(3), name="m_ct"))
    o.append(mb.conv_transpose(x=im, weight=normal(4, 2, 4, 4), strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 2], groups=2, name="m_ct_custom"))
    o.append(mb.conv_transpose(x=im, weight=normal(4, 2, 3, 3), strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], output_shape=[2, 2, 14, 18],
                               name="m_ct_shape"))
    o.append(mb.conv_transpose(x=seq, weight=normal(4, 3, 4), strides=[2], dilations=[2], name="m_ct_1d"))
    for t in ("valid", "same"):
        o.append(mb.max_pool(x=im, kernel_sizes=[3, 2], strides=[2, 2], pad_type=t, name="m_mp_" + t))
        o.append(mb.avg_pool(x=im, kernel_sizes=[3, 2], strides=[2, 2], pad_type=t, name="m_ap_" + t))
    for ex in (False, True):
        for c in (False, True):
            o.append(mb.avg_pool(x=im, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=c,
                                 exclude_padding_from_average=ex, name="m_ap_%d%d" % (ex, c)))
    o.append(mb.max_pool(x=im, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid", ceil_mode=True, name="m_mp_ceil"))
    o.append(mb.max_pool(x=im, kernel_sizes=[2, 2], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1], ceil_mode=True, name="m_mp_ceil_pad"))
    o.append(mb.l2_pool(x=im, kernel_sizes=[2, 2], strides=[1, 2], pad_type="custom", pad=[0, 1, 1, 0], name="m_l2_pool"))
    o.append(mb.avg_pool(x=vol, kernel_sizes=[2, 2, 2], strides=[2, 1, 2], pad_type="valid", name="m_ap_3d"))
    o.append(mb.max_pool(x=seq, kernel_sizes=[3], strides=[2], pad_type="same_lower", name="m_mp_1d"))
    return tuple(o)


def shapes(x, y, k):
    """x [2, 3, 4, 5], y [2, 3, 4, 5], k int [2, 3]"""
    o = []
    o.append(mb.reshape(x=x, shape=[0, -1, 5], name="s_reshape"))
    o.append(mb.reshape(x=x, shape=[5, 0, 0, 2], name="s_reshape_zero"))
    o.append(mb.transpose(x=x, perm=[-1, 0, 2, 1], name="s_transpose"))
    o.append(mb.expand_dims(x=k, axes=[0, -1], name="s_expand_dims"))
    one = mb.reduce_sum(x=x, axes=[0, 2], keep_dims=True)
    o.append(mb.squeeze(x=one, axes=[0, -2], name="s_squeeze"))
    o.append(mb.squeeze(x=one, name="s_squeeze_all"))
    o.append(mb.concat(values=(x, y, x), axis=-2, name="s_concat"))
    o.append(mb.concat(values=(x, y), axis=1, interleave=True, name="s_concat_interleave"))
    for n, v in enumerate(mb.split(x=x, num_splits=2, axis=2)):
        o.append(mb.identity(x=v, name="s_split_%d" % n))
    for n, v in enumerate(mb.split(x=x, split_sizes=[1, 3, 1], axis=-1)):
        o.append(mb.identity(x=v, name="s_split_sizes_%d" % n))
    o.append(mb.stack(values=(x, y), axis=-1, name="s_stack"))
    b, e = [0, 2, -3, 0], [2, 0, 4, 5]
    o.append(mb.slice_by_index(x=x, begin=b, end=e, stride=[1, -1, 2, 1], name="s_slice"))
    o.append(mb.slice_by_index(x=x, begin=[1, 2, 3, 4], end=[0, 0, 0, 0], stride=[-1, -2, -1, 3], begin_mask=[True, False, True, True],
                               end_mask=[True, True, True, True], name="s_slice_masks"))
    o.append(mb.slice_by_index(x=x, begin=[1, -1, 0, 1], end=[0, 0, 3, 4], squeeze_mask=[True, True, False, False], name="s_slice_squeeze"))
    o.append(mb.slice_by_size(x=x, begin=[0, 1, 0, 2], size=[-1, 2, 3, -1], name="s_slice_size"))
    at = mb.slice_by_index(x=mb.minimum(x=k, y=np.int32(2)), begin=[0, 0], end=[1, 1], squeeze_mask=[True, False])
    zero = np.zeros(1, np.int32)
    begin = mb.concat(values=(zero, zero, at, zero), axis=0)
    o.append(mb.slice_by_size(x=x, begin=begin, size=[2, 3, 2, 5], name="s_slice_size_dynamic"))
    o.append(mb.reverse(x=x, axes=[1, -1], name="s_reverse"))
    o.append(mb.reverse(x=x, name="s_reverse_all"))
    o.append(mb.tile(x=x, reps=[2, 1, 3, 2], name="s_tile"))
    o.append(mb.pad(x=x, pad=[1, 2, 0, 3], mode="constant", constant_val=np.float32(1.5), name="s_pad"))
    o.append(mb.pad(x=x, pad=[1, 2, 2, 1], mode="reflect", constant_val=np.float32(0), name="s_pad_reflect"))
    o.append(mb.pad(x=x, pad=[0, 1, 3, 2, 1, 1], mode="replicate", constant_val=np.float32(0), name="s_pad_replicate"))
    sh = mb.shape(x=x)
    half = mb.floor_div(x=sh, y=np.int32(2))
    o.append(mb.fill(shape=half, value=np.float32(2.5), name="s_fill"))
    o.append(mb.fill_like(ref_tensor=x, value=np.int32(3), name="s_fill_like"))
    d = mb.gather(x=sh, indices=np.array([3, 1, 0], np.int32), axis=0, batch_dims=0, validate_indices=False)
    o.append(mb.reshape(x=mb.slice_by_index(x=x, begin=[0, 0, 0, 0], end=[2, 3, 1, 5]), shape=d, name="s_reshape_gathered"))
    o.append(mb.add(x=mb.range_1d(start=np.float32(-1), end=np.float32(0.9), step=np.float32(0.25)), y=np.float32(0), name="s_range"))
    o.append(mb.add(x=mb.range_1d(start=np.int32(9), end=np.int32(0), step=np.int32(-2)), y=np.int32(0), name="s_range_down"))
    o.append(mb.band_part(x=x, lower=1, upper=0, name="s_band"))
    o.append(mb.band_part(x=x, lower=-1, upper=2, name="s_band_upper"))
    o.append(mb.one_hot(indices=k, one_hot_vector_size=10, axis=1, on_value=np.float32(2), off_value=np.float32(-1), name="s_one_hot"))
    o.append(mb.one_hot(indices=k, one_hot_vector_size=10, name="s_one_hot_int"))
    o.append(mb.flatten2d(x=x, axis=2, name="s_flatten2d"))
    o.append(mb.sliding_windows(x=x, axis=-1, size=3, stride=2, name="s_sliding_windows"))
    two = mb.mod(x=k, y=np.int32(2))
    o.append(mb.gather(x=x, indices=two, axis=2, batch_dims=0, validate_indices=False, name="s_gather"))
    o.append(mb.gather(x=x, indices=two, axis=2, batch_dims=1, validate_indices=False, name="s_gather_batch"))
    along = np.array(rng.integers(0, 4, (2, 3, 6, 5)), np.int32)
    o.append(mb.gather_along_axis(x=x, indices=along, axis=2, validate_indices=False, name="s_gather_along"))
    nd = np.array([[[0, 2], [1, 1]], [[1, 0], [0, 1]], [[1, 2], [0, 0]]], np.int32)
    o.append(mb.gather_nd(x=x, indices=nd, batch_dims=0, validate_indices=False, name="s_gather_nd"))
    nd = np.array([[[0, 3], [2, 1]], [[1, 0], [0, 2]]], np.int32)
    o.append(mb.gather_nd(x=x, indices=nd, batch_dims=1, validate_indices=False, name="s_gather_nd_batch"))
    return tuple(o)


def images(x, y):
    """x [1, 8, 4, 6], y [1, 2, 5, 7]"""
    o = []
    o.append(mb.pixel_shuffle(x=x, upscale_factor=2, name="i_pixel_shuffle"))
    o.append(mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2), name="i_pixel_unshuffle"))
    o.append(mb.space_to_depth(x=x, block_size=2, name="i_space_to_depth"))
    o.append(mb.depth_to_space(x=x, block_size=2, name="i_depth_to_space"))
    o.append(mb.upsample_nearest_neighbor(x=y, scale_factor_height=2, scale_factor_width=3, name="i_nearest"))
    o.append(mb.upsample_nearest_neighbor(x=y, scale_factor_height=np.float32(1.5), scale_factor_width=np.float32(2.5), name="i_nearest_part"))
    o.append(mb.resize_nearest_neighbor(x=y, target_size_height=10, target_size_width=4, name="i_r_nearest"))
    for a in (True, False):
        o.append(mb.upsample_bilinear(x=y, scale_factor_height=2, scale_factor_width=3, align_corners=a, name="i_b_%d" % a))
        o.append(mb.upsample_bilinear(x=y, scale_factor_height=np.float32(1.5), scale_factor_width=np.float32(2.5), align_corners=a,
                                      name="i_b_part_%d" % a))
    o.append(mb.upsample_bilinear(x=y, scale_factor_height=3, scale_factor_width=2, align_corners=False, half_pixel_centers=False, name="i_b_corner"))
    for m in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS"):
        o.append(mb.resize_bilinear(x=y, target_size_height=8, target_size_width=3, sampling_mode=m, name="i_r_" + m.lower()))
    o.append(mb.resize_bilinear(x=y, target_size_height=1, target_size_width=1, sampling_mode="ALIGN_CORNERS", name="i_r_one"))
    o.append(mb.resize(x=y, shape=[10, 0], resized_dims=np.uint32(2), interpolation_mode="LINEAR", sampling_mode="UNALIGN_CORNERS", name="i_r_linear"))
    o.append(mb.resize(x=y, shape=[1, 0, 10, 21], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR", name="i_r_nn"))
    return tuple(o)


def newer(q, k, v, m, x, u):
    """iOS18: attention and slice_update"""
    o = []
    o.append(mb.scaled_dot_product_attention(query=q, key=k, value=v, name="n_sdpa"))
    o.append(mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=m, name="n_sdpa_mask"))
    o.append(mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mb.greater(x=m, y=np.float32(-0.5)), name="n_sdpa_bool"))
    o.append(mb.slice_update(x=x, update=u, begin=[0, 1, 0], end=[2, 3, 4], name="n_slice_update"))
    o.append(mb.slice_update(x=x, update=u, begin=[0, 0, 7], end=[2, 4, -9], stride=[1, 2, -2], begin_mask=[True, False, False], name="n_slice_update_stride"))
    o.append(mb.slice_update(x=x, update=mb.reshape(x=u, shape=[4, 4]), begin=[1, 0, 2], end=[0, 0, 6], end_mask=[False, True, False],
                             squeeze_mask=[True, False, False], name="n_slice_update_squeeze"))
    o.append(mb.reshape(x=x, shape=[4, 0, 4], name="n_reshape"))
    return tuple(o)


def packed_bits(values, bits):
    v = np.asarray(values, np.uint8).reshape(-1)
    flat = ((v[:, None] >> np.arange(bits)) & 1).astype(np.uint8).reshape(-1)
    return np.packbits(flat, bitorder="little")


def weights16(x):
    """The iOS16 forms, by the builder: parameters of every shape they may have. x [3, 24]"""
    o = []
    q = rng.integers(-128, 128, (8, 24)).astype(np.int8)
    u = rng.integers(0, 256, (8, 24)).astype(np.uint8)
    f = np.float32

    def lin(w, name):
        o.append(mb.linear(x=x, weight=w, bias=np.zeros(8, f), name=name))
    lin(mb.constexpr_affine_dequantize(quantized_data=q, zero_point=np.int8(0), scale=f(0.01), axis=0), "w_affine")
    lin(mb.constexpr_affine_dequantize(quantized_data=u, zero_point=np.uint8(130), scale=(rng.random(8) * 0.02).astype(f), axis=0), "w_affine_scale")
    lin(mb.constexpr_affine_dequantize(quantized_data=u, zero_point=rng.integers(100, 150, 24).astype(np.uint8), scale=f(0.01), axis=1), "w_affine_zero")
    lin(mb.constexpr_affine_dequantize(quantized_data=q, zero_point=rng.integers(-5, 5, 8).astype(np.int8), scale=(rng.random(8) * 0.02).astype(f), axis=-2),
        "w_affine_both")
    for bits in (1, 2, 4, 6, 8):
        idx = packed_bits(rng.integers(0, 1 << bits, 192), bits)
        lut = normal(1 << bits, scale=0.1) if bits != 4 else normal(16, scale=0.1)
        lin(mb.constexpr_lut_to_dense(indices=idx, lut=lut, shape=np.array([8, 24], np.uint32)), "w_lut_%d" % bits)
    mask = rng.random(192) < 0.4
    mask[:3] = True
    nz = normal(int(mask.sum()), scale=0.1)
    lin(mb.constexpr_sparse_to_dense(nonzero_data=nz, mask=np.packbits(mask, bitorder="little"), shape=np.array([8, 24], np.uint32)), "w_sparse")
    lin(mb.constexpr_cast(source_val=normal(8, 24, scale=0.1, dtype=np.float16), output_dtype="fp32"), "w_cast")
    return tuple(o)


def typed(a, t):
    return np.asarray(a).astype(types.nptype_from_builtin(t))


def weights18(x, im):
    """The iOS18 forms. x [3, 24], im [1, 8, 5, 5]"""
    from coremltools.converters.mil.mil.types import np_int4_dtype, np_uint1_dtype, np_uint2_dtype, np_uint3_dtype, np_uint4_dtype, np_uint6_dtype
    o = []
    f = np.float32
    uint = {1: np_uint1_dtype, 2: np_uint2_dtype, 3: np_uint3_dtype, 4: np_uint4_dtype, 6: np_uint6_dtype, 8: np.uint8}

    def lin(w, name):
        o.append(mb.linear(x=x, weight=w, bias=np.zeros(8, f), name=name))

    def codes(lo, hi, t, shape=(8, 24)):
        return rng.integers(lo, hi, shape).astype(t)

    def scale(*shape):
        return (rng.random(shape) * 0.02 + 0.001).astype(f)
    lin(mb.constexpr_blockwise_shift_scale(data=codes(-8, 8, np_int4_dtype), scale=scale(8, 3)), "z_int4_block")
    lin(mb.constexpr_blockwise_shift_scale(data=codes(0, 16, np_uint4_dtype), scale=scale(8, 3), offset=codes(0, 16, np_uint4_dtype, (8, 3))), "z_uint4_offset")
    lin(mb.constexpr_blockwise_shift_scale(data=codes(-128, 128, np.int8), scale=scale(8, 1), offset=normal(8, 1)), "z_int8_float_offset")
    lin(mb.constexpr_blockwise_shift_scale(data=codes(0, 256, np.uint8), scale=scale(2, 1), offset=codes(0, 256, np.uint8, (2, 1))), "z_uint8_rows")
    lin(mb.constexpr_blockwise_shift_scale(data=normal(8, 24), scale=scale(1, 4)), "z_float_data")
    for bits in (1, 2, 3, 4, 6, 8):
        lin(mb.constexpr_lut_to_dense(indices=codes(0, 1 << bits, uint[bits]), lut=normal(1, 1, 1 << bits, 1, scale=0.1)), "z_l_%d" % bits)
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 16, np_uint4_dtype), lut=normal(4, 1, 16, 1, scale=0.1)), "z_l_rows")
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 8, np_uint3_dtype), lut=normal(2, 3, 8, 1, scale=0.1)), "z_l_both")
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 4, np_uint2_dtype, (4, 24)), lut=normal(1, 1, 4, 2, scale=0.1), vector_axis=np.int32(0)), "z_l_vector_0")
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 16, np_uint4_dtype, (8, 6)), lut=normal(2, 1, 16, 4, scale=0.1), vector_axis=np.int32(1)), "z_l_vector_1")
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 4, np_uint2_dtype, (4, 24)), lut=normal(2, 2, 4, 2, scale=0.1), vector_axis=np.int32(-2)), "z_l_vector_groups")
    lut8 = mb.constexpr_blockwise_shift_scale(data=rng.integers(-128, 128, (2, 1, 16, 1)).astype(np.int8), scale=scale(2, 1, 1, 1))
    lin(mb.constexpr_lut_to_dense(indices=codes(0, 16, np_uint4_dtype), lut=lut8), "z_l_int8")
    mask = (rng.random((8, 24)) < 0.4).astype(np_uint1_dtype)
    n = int(np.count_nonzero(mask))
    lin(mb.constexpr_sparse_to_dense(nonzero_data=normal(n, scale=0.1), mask=mask), "z_s")
    m, v = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=rng.integers(0, 16, n).astype(np_uint4_dtype), lut=normal(2, 1, 16, 1, scale=0.1))
    lin(mb.constexpr_sparse_to_dense(nonzero_data=v, mask=m), "z_s_lut")
    vm = (rng.random((4, 24)) < 0.4).astype(np_uint1_dtype)
    vn = int(np.count_nonzero(vm))
    m, v = mb.constexpr_lut_to_sparse(indices_mask=vm, indices_nonzero_data=rng.integers(0, 4, vn).astype(np_uint2_dtype), lut=normal(1, 1, 4, 2, scale=0.1),
                                      vector_axis=np.int32(0))
    lin(mb.constexpr_sparse_to_dense(nonzero_data=v, mask=m), "z_s_vector")
    m, v = mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=rng.integers(-8, 8, n).astype(np_int4_dtype), scale=scale(8, 2))
    lin(mb.constexpr_sparse_to_dense(nonzero_data=v, mask=m), "z_s_int4")
    m, v = mb.constexpr_sparse_blockwise_shift_scale(data_mask=mask, nonzero_data=rng.integers(0, 256, n).astype(np.uint8), scale=scale(8, 1),
                                                     offset=rng.integers(100, 156, (8, 1)).astype(np.uint8))
    lin(mb.constexpr_sparse_to_dense(nonzero_data=v, mask=m), "z_s_uint8")
    lin(mb.constexpr_cast(source_val=normal(8, 24, scale=0.1, dtype=np.float16), output_dtype="fp32"), "z_cast")
    w = mb.constexpr_blockwise_shift_scale(data=codes(-8, 8, np_int4_dtype, (6, 8, 3, 3)), scale=scale(6, 2, 1, 1))
    o.append(mb.conv(x=im, weight=w, pad_type="same", name="z_conv_int4"))
    w = mb.constexpr_lut_to_dense(indices=codes(0, 8, np_uint3_dtype, (6, 8, 3, 3)), lut=normal(3, 1, 1, 1, 8, 1, scale=0.1))
    o.append(mb.conv(x=im, weight=w, pad_type="same", name="z_conv_lut"))
    return tuple(o)


def block(x):
    """What coremltools.optimize compresses: a linear layer and a convolution, float32"""
    h = mb.linear(x=x, weight=normal(16, 24, scale=0.2), name="l1")
    im = mb.reshape(x=mb.gelu(x=h, mode="TANH_APPROXIMATION"), shape=[1, 8, 4, 2])
    return mb.conv(x=im, weight=normal(8, 8, 2, 2, scale=0.2), pad_type="same", name="c1")


def optimised(out):
    oc = cto.coreml
    cfg = lambda op: oc.OptimizationConfig(global_config=op)
    x = [("x", (1, 4, 24), f32)]
    lin = lambda **k: lambda m: oc.linear_quantize_weights(m, cfg(oc.OpLinearQuantizerConfig(weight_threshold=0, **k)))
    pal = lambda **k: lambda m: oc.palettize_weights(m, cfg(oc.OpPalettizerConfig(weight_threshold=0, **k)))
    prune = lambda **k: lambda m: oc.prune_weights(m, cfg(oc.OpThresholdPrunerConfig(weight_threshold=0, threshold=0.15, minimum_sparsity_percentile=0.1, **k)))
    save(out, "opt18_lut4_scale", 18, x, block, change=pal(mode="kmeans", nbits=4, granularity="per_grouped_channel", group_size=8, enable_per_channel_scale=True))
    joint = lambda m: oc.linear_quantize_weights(prune()(m), cfg(oc.OpLinearQuantizerConfig(weight_threshold=0, mode="linear_symmetric")), joint_compression=True)
    save(out, "opt18_sparse_int8", 18, x, block, change=joint)
    joint = lambda m: oc.palettize_weights(prune()(m), cfg(oc.OpPalettizerConfig(weight_threshold=0, mode="kmeans", nbits=4)), joint_compression=True)
    save(out, "opt18_sparse_lut4", 18, x, block, change=joint)
    joint = lambda m: oc.linear_quantize_weights(pal(mode="kmeans", nbits=4)(m), cfg(oc.OpLinearQuantizerConfig(weight_threshold=0, mode="linear_symmetric", granularity="per_tensor")),
                                                 joint_compression=True)
    save(out, "opt18_lut4_int8", 18, x, block, change=joint)


def main(out):
    os.makedirs(out, exist_ok=True)
    save(out, "elementwise", 17, [("x", (2, 3, 4), f32), ("p", (2, 3, 4), f32), ("i", (2, 3), i32)], elementwise_main)
    save(out, "reductions", 17, [("x", (2, 3, 4, 5), f32), ("y", (2, 3, 8), f32), ("k", (2, 3), i32)], reductions)
    save(out, "matrices", 17, [("x", (2, 3, 4, 5), f32), ("y", (2, 3, 5, 6), f32), ("v", (5,), f32), ("im", (2, 4, 7, 9), f32),
                               ("vol", (1, 2, 4, 5, 6), f32), ("seq", (2, 4, 11), f32)], matrices)
    save(out, "shapes", 17, [("x", (2, 3, 4, 5), f32), ("y", (2, 3, 4, 5), f32), ("k", (2, 3), i32)], shapes)
    save(out, "images", 17, [("x", (1, 8, 4, 6), f32), ("y", (1, 2, 5, 7), f32)], images)
    save(out, "newer", 18, [("q", (2, 3, 4, 8), f32), ("k", (2, 3, 6, 8), f32), ("v", (2, 3, 6, 5), f32), ("m", (1, 4, 6), f32),
                            ("x", (2, 4, 8), f32), ("u", (2, 2, 4), f32)], newer)
    save(out, "weights16", 17, [("x", (3, 24), f32)], weights16)
    save(out, "weights18", 18, [("x", (3, 24), f32), ("im", (1, 8, 5, 5), f32)], weights18)
    optimised(out)


if __name__ == "__main__":
    main(sys.argv[1])
