/* SPDX-License-Identifier: MIT
 *
 * Attributes by class: canonical form (so that equal attributes are equal bytes) and text. One table says which member of
 * ay_attr an op uses; inference (infer_*.c) checks the values themselves.
 */
#include "ir/graph.h"
#include "ir/infer.h"

#include <inttypes.h>
#include <string.h>

static const unsigned char kinds[AY_OP_COUNT] = {
    [AY_OP_SUM] = AY_ATTR_REDUCE,       [AY_OP_RMAX] = AY_ATTR_REDUCE,  [AY_OP_RMIN] = AY_ATTR_REDUCE,
    [AY_OP_PROD] = AY_ATTR_REDUCE,      [AY_OP_ARGMAX] = AY_ATTR_REDUCE, [AY_OP_CUMSUM] = AY_ATTR_SCAN,
    [AY_OP_TOPK] = AY_ATTR_TOPK,        [AY_OP_MATMUL] = AY_ATTR_MATMUL, [AY_OP_CONV] = AY_ATTR_CONV,
    [AY_OP_POOL] = AY_ATTR_POOL,        [AY_OP_PERMUTE] = AY_ATTR_PERMUTE, [AY_OP_SLICE] = AY_ATTR_SLICE,
    [AY_OP_CONCAT] = AY_ATTR_AXIS,      [AY_OP_PAD] = AY_ATTR_PAD,      [AY_OP_REVERSE] = AY_ATTR_REDUCE,
    [AY_OP_GATHER] = AY_ATTR_GATHER,    [AY_OP_GATHER_ALONG] = AY_ATTR_GATHER, [AY_OP_GELU] = AY_ATTR_GELU,
    [AY_OP_SOFTMAX] = AY_ATTR_AXIS,     [AY_OP_RMS_NORM] = AY_ATTR_NORM, [AY_OP_LAYER_NORM] = AY_ATTR_NORM,
    [AY_OP_GROUP_NORM] = AY_ATTR_NORM,  [AY_OP_ROPE] = AY_ATTR_ROPE,    [AY_OP_SDPA] = AY_ATTR_SDPA,
    [AY_OP_UPSAMPLE] = AY_ATTR_UPSAMPLE, [AY_OP_CONV_TRANSPOSE] = AY_ATTR_CONV, [AY_OP_DEQUANT] = AY_ATTR_AXIS,
};

ay_attr_kind ay_attr_kind_of(ay_op op) { return (unsigned)op < AY_OP_COUNT ? (ay_attr_kind)kinds[op] : AY_ATTR_NONE; }

static bool fix_axis(int rank, int *axis) {
    if (*axis < 0) *axis += rank;
    return *axis >= 0 && *axis < rank;
}

static alloy_status axis_error(const ay_graph *g, const ay_node *n, int axis) {
    char text[160];
    return ay_infer_fail(g, n, "axis %d is outside of %s", axis, ay_type_text(ay_in_type(g, n, 0), text));
}

/* Copies a list of axes into a zeroed attribute: in range, no axis twice; sorted when the order means nothing. */
static alloy_status canon_axes(const ay_graph *g, const ay_node *n, int rank, int count, const int *from, int *to,
                               bool sort) {
    if (count < 0 || count > rank) {
        char text[160];
        return ay_infer_fail(g, n, "%d axes for %s", count, ay_type_text(ay_in_type(g, n, 0), text));
    }
    unsigned seen = 0;
    for (int i = 0; i < count; i++) {
        int axis = from[i];
        if (!fix_axis(rank, &axis)) return axis_error(g, n, from[i]);
        if (seen & 1u << axis) return ay_infer_fail(g, n, "axis %d is named twice", axis);
        seen |= 1u << axis;
        int j = i;
        for (; sort && j > 0 && to[j - 1] > axis; j--) to[j] = to[j - 1];
        to[j] = axis;
    }
    return ALLOY_OK;
}

static alloy_status canon_norm(const ay_graph *g, ay_node *n, int rank, ay_attr *to) {
    const ay_attr *from = &n->attr;
    to->norm.eps = from->norm.eps;
    if (n->op == AY_OP_GROUP_NORM) to->norm.groups = from->norm.groups;
    if (n->op != AY_OP_LAYER_NORM) return ALLOY_OK;
    to->norm.n = from->norm.n;
    return canon_axes(g, n, rank, from->norm.n, from->norm.axes, to->norm.axes, false);
}

static void canon_windows(const ay_node *n, int spatial, ay_attr *to) {
    const ay_attr *from = &n->attr;
    spatial = spatial < 0 ? 0 : spatial > 3 ? 3 : spatial;
    for (int i = 0; i < spatial; i++) {
        if (n->op == AY_OP_POOL) {
            to->pool.kernel[i] = from->pool.kernel[i];
            to->pool.stride[i] = from->pool.stride[i];
            to->pool.before[i] = from->pool.before[i];
            to->pool.after[i] = from->pool.after[i];
        } else {
            to->conv.stride[i] = from->conv.stride[i];
            to->conv.dilation[i] = from->conv.dilation[i];
            to->conv.before[i] = from->conv.before[i];
            to->conv.after[i] = from->conv.after[i];
        }
    }
    if (n->op == AY_OP_POOL) {
        to->pool.average = from->pool.average;
        to->pool.count_padding = from->pool.average && from->pool.count_padding;
    } else {
        to->conv.groups = from->conv.groups;
    }
}

static alloy_status canon_into(const ay_graph *g, ay_node *n, int rank, ay_attr *to) {
    const ay_attr *from = &n->attr;
    switch (ay_attr_kind_of(n->op)) {
    case AY_ATTR_NONE: break;
    case AY_ATTR_AXIS:
        to->axis = from->axis;
        if (n->op == AY_OP_DEQUANT && ay_in_type(g, n, 1)->rank == 0) to->axis = 0; /* a scalar scale reads no axis */
        else if (!fix_axis(rank, &to->axis)) return axis_error(g, n, from->axis);
        break;
    case AY_ATTR_REDUCE:
        to->reduce.n = from->reduce.n;
        to->reduce.keep = n->op != AY_OP_REVERSE && from->reduce.keep;
        to->reduce.largest = n->op == AY_OP_ARGMAX && from->reduce.largest;
        return canon_axes(g, n, rank, from->reduce.n, from->reduce.axes, to->reduce.axes, true);
    case AY_ATTR_SCAN:
        to->scan.axis = from->scan.axis;
        to->scan.exclusive = from->scan.exclusive;
        to->scan.reverse = from->scan.reverse;
        if (!fix_axis(rank, &to->scan.axis)) return axis_error(g, n, from->scan.axis);
        break;
    case AY_ATTR_TOPK:
        to->topk.axis = from->topk.axis;
        to->topk.k = from->topk.k;
        to->topk.largest = from->topk.largest;
        to->topk.indices = from->topk.indices;
        if (!fix_axis(rank, &to->topk.axis)) return axis_error(g, n, from->topk.axis);
        break;
    case AY_ATTR_PERMUTE: return canon_axes(g, n, rank, rank, from->permute.perm, to->permute.perm, false);
    case AY_ATTR_SLICE:
        for (int i = 0; i < rank; i++) {
            to->slice.begin[i] = from->slice.begin[i];
            to->slice.stride[i] = from->slice.stride[i];
        }
        break;
    case AY_ATTR_PAD:
        for (int i = 0; i < rank; i++) {
            to->pad.before[i] = from->pad.before[i];
            to->pad.after[i] = from->pad.after[i];
        }
        to->pad.mode = from->pad.mode;
        to->pad.value = from->pad.mode == AY_PAD_CONSTANT ? from->pad.value : 0;
        break;
    case AY_ATTR_MATMUL:
        to->matmul.ta = from->matmul.ta;
        to->matmul.tb = from->matmul.tb;
        break;
    case AY_ATTR_CONV:
    case AY_ATTR_POOL: canon_windows(n, rank - 2, to); break;
    case AY_ATTR_GATHER:
        to->gather.axis = from->gather.axis;
        to->gather.batch_dims = n->op == AY_OP_GATHER ? from->gather.batch_dims : 0;
        if (!fix_axis(rank, &to->gather.axis)) return axis_error(g, n, from->gather.axis);
        break;
    case AY_ATTR_NORM: return canon_norm(g, n, rank, to);
    case AY_ATTR_GELU: to->gelu.mode = from->gelu.mode; break;
    case AY_ATTR_ROPE: to->rope.interleaved = from->rope.interleaved; break;
    case AY_ATTR_SDPA: to->sdpa.scale = from->sdpa.scale; break;
    case AY_ATTR_UPSAMPLE:
        to->upsample.fh = from->upsample.fh;
        to->upsample.fw = from->upsample.fw;
        to->upsample.bilinear = from->upsample.bilinear;
        to->upsample.align_corners = from->upsample.bilinear && from->upsample.align_corners;
        to->upsample.half_pixel = to->upsample.bilinear && !to->upsample.align_corners && from->upsample.half_pixel;
        break;
    }
    return ALLOY_OK;
}

alloy_status ay_attr_canon(const ay_graph *g, ay_node *n) {
    ay_attr to;
    memset(&to, 0, sizeof to);
    AY_TRY(canon_into(g, n, n->n_in ? ay_in_type(g, n, 0)->rank : 0, &to));
    memcpy(&n->attr, &to, sizeof to);
    return ALLOY_OK;
}

/* ---- text ---------------------------------------------------------------------------------------------------------- */

static void put_i64s(ay_buf *out, const char *name, int n, const int64_t *v) {
    ay_buf_printf(out, " %s=[", name);
    for (int i = 0; i < n; i++) ay_buf_printf(out, i ? ",%" PRId64 : "%" PRId64, v[i]);
    ay_buf_printf(out, "]");
}

static void put_ints(ay_buf *out, const char *name, int n, const int *v) {
    ay_buf_printf(out, " %s=[", name);
    for (int i = 0; i < n; i++) ay_buf_printf(out, i ? ",%d" : "%d", v[i]);
    ay_buf_printf(out, "]");
}

static void put_flag(ay_buf *out, const char *name, bool on) {
    if (on) ay_buf_printf(out, " %s", name);
}

void ay_attr_print(const ay_node *n, ay_buf *out) {
    static const char *const pads[] = {"constant", "reflect", "replicate"}, *const gelus[] = {"exact", "tanh", "sigmoid"};
    const ay_attr *a = &n->attr;
    int rank = n->type.rank, spatial = rank > 2 ? rank - 2 : 0; /* of these ops, the result has the rank of the input */
    switch (ay_attr_kind_of(n->op)) {
    case AY_ATTR_NONE: break;
    case AY_ATTR_AXIS: ay_buf_printf(out, " axis=%d", a->axis); break;
    case AY_ATTR_REDUCE:
        put_ints(out, "axes", a->reduce.n, a->reduce.axes);
        put_flag(out, "keep", a->reduce.keep);
        put_flag(out, "smallest", n->op == AY_OP_ARGMAX && !a->reduce.largest);
        break;
    case AY_ATTR_SCAN:
        ay_buf_printf(out, " axis=%d", a->scan.axis);
        put_flag(out, "exclusive", a->scan.exclusive);
        put_flag(out, "reverse", a->scan.reverse);
        break;
    case AY_ATTR_TOPK:
        ay_buf_printf(out, " axis=%d k=%" PRId64, a->topk.axis, a->topk.k);
        put_flag(out, "smallest", !a->topk.largest);
        put_flag(out, "indices", a->topk.indices);
        break;
    case AY_ATTR_PERMUTE: put_ints(out, "perm", rank, a->permute.perm); break;
    case AY_ATTR_SLICE:
        put_i64s(out, "begin", rank, a->slice.begin);
        put_i64s(out, "stride", rank, a->slice.stride);
        break;
    case AY_ATTR_PAD:
        put_i64s(out, "before", rank, a->pad.before);
        put_i64s(out, "after", rank, a->pad.after);
        ay_buf_printf(out, " %s", pads[a->pad.mode <= AY_PAD_REPLICATE ? a->pad.mode : 0]);
        if (a->pad.mode == AY_PAD_CONSTANT) ay_buf_printf(out, "=%.9g", a->pad.value);
        break;
    case AY_ATTR_MATMUL:
        put_flag(out, "ta", a->matmul.ta);
        put_flag(out, "tb", a->matmul.tb);
        break;
    case AY_ATTR_CONV:
        put_i64s(out, "stride", spatial, a->conv.stride);
        put_i64s(out, "dilation", spatial, a->conv.dilation);
        put_i64s(out, n->op == AY_OP_CONV ? "before" : "crop_before", spatial, a->conv.before);
        put_i64s(out, n->op == AY_OP_CONV ? "after" : "crop_after", spatial, a->conv.after);
        ay_buf_printf(out, " groups=%" PRId64, a->conv.groups);
        break;
    case AY_ATTR_POOL:
        ay_buf_printf(out, " %s", a->pool.average ? "average" : "max");
        put_i64s(out, "kernel", spatial, a->pool.kernel);
        put_i64s(out, "stride", spatial, a->pool.stride);
        put_i64s(out, "before", spatial, a->pool.before);
        put_i64s(out, "after", spatial, a->pool.after);
        put_flag(out, "count_padding", a->pool.count_padding);
        break;
    case AY_ATTR_GATHER:
        ay_buf_printf(out, " axis=%d", a->gather.axis);
        if (a->gather.batch_dims) ay_buf_printf(out, " batch_dims=%d", a->gather.batch_dims);
        break;
    case AY_ATTR_NORM:
        if (n->op == AY_OP_LAYER_NORM) put_ints(out, "axes", a->norm.n, a->norm.axes);
        if (n->op == AY_OP_GROUP_NORM) ay_buf_printf(out, " groups=%" PRId64, a->norm.groups);
        ay_buf_printf(out, " eps=%.9g", a->norm.eps);
        break;
    case AY_ATTR_GELU: ay_buf_printf(out, " %s", gelus[a->gelu.mode <= AY_GELU_SIGMOID ? a->gelu.mode : 0]); break;
    case AY_ATTR_ROPE: ay_buf_printf(out, a->rope.interleaved ? " interleaved" : " halves"); break;
    case AY_ATTR_SDPA: ay_buf_printf(out, " scale=%.9g", a->sdpa.scale); break;
    case AY_ATTR_UPSAMPLE:
        ay_buf_printf(out, " by=[%" PRId64 ",%" PRId64 "] %s", a->upsample.fh, a->upsample.fw,
                      a->upsample.bilinear ? "bilinear" : "nearest");
        put_flag(out, "align_corners", a->upsample.align_corners);
        put_flag(out, "half_pixel", a->upsample.half_pixel);
        break;
    }
}
