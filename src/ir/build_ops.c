/* SPDX-License-Identifier: MIT
 *
 * Builders in the words of model files. Each fills attributes and calls ay_node_add; none holds an error check of its own
 * unless inference could not see the mistake. An input that should be there and is AY_NO_VALUE is reported by inference.
 */
#include "ir/graph.h"
#include "quant/weight.h"

#include <string.h>

static ay_val add1(ay_graph *g, ay_op op, ay_val x, const ay_attr *attr) { return ay_node_add(g, op, &x, 1, attr, NULL); }

/* x and up to two optional inputs; a later one without the earlier is a mistake. */
static ay_val add_optional(ay_graph *g, ay_op op, ay_val x, ay_val w, ay_val b, const ay_attr *attr) {
    if (b != AY_NO_VALUE && w == AY_NO_VALUE)
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "%s: bias without weight", ay_op_get(op)->name);
    ay_val in[3] = {x, w, b};
    return ay_node_add(g, op, in, b != AY_NO_VALUE ? 3 : w != AY_NO_VALUE ? 2 : 1, attr, NULL);
}

ay_val ay_unary(ay_graph *g, ay_op op, ay_val x) { return add1(g, op, x, NULL); }

ay_val ay_binary(ay_graph *g, ay_op op, ay_val x, ay_val y) { return ay_node_add(g, op, (ay_val[]){x, y}, 2, NULL, NULL); }

ay_val ay_add(ay_graph *g, ay_val x, ay_val y) { return ay_binary(g, AY_OP_ADD, x, y); }
ay_val ay_sub(ay_graph *g, ay_val x, ay_val y) { return ay_binary(g, AY_OP_SUB, x, y); }
ay_val ay_mul(ay_graph *g, ay_val x, ay_val y) { return ay_binary(g, AY_OP_MUL, x, y); }
ay_val ay_div(ay_graph *g, ay_val x, ay_val y) { return ay_binary(g, AY_OP_DIV, x, y); }

ay_val ay_const_like(ay_graph *g, ay_val x, double s) {
    if (g->status || x < 0 || x >= g->n_nodes) return AY_NO_VALUE; /* the op that follows reports it */
    ay_dtype t = ay_type_of(g, x)->dtype;
    if (t == AY_I32) return ay_const_i32(g, (int32_t)s);
    uint64_t bits = 0;
    float f = (float)s;
    ay_convert_from_f32(t, &f, 1, &bits);
    return ay_const_data(g, ay_shape(t, 0), &bits);
}

ay_val ay_adds(ay_graph *g, ay_val x, double s) { return ay_add(g, x, ay_const_like(g, x, s)); }
ay_val ay_muls(ay_graph *g, ay_val x, double s) { return ay_mul(g, x, ay_const_like(g, x, s)); }

ay_val ay_where(ay_graph *g, ay_val cond, ay_val a, ay_val b) {
    return ay_node_add(g, AY_OP_WHERE, (ay_val[]){cond, a, b}, 3, NULL, NULL);
}

ay_val ay_cast(ay_graph *g, ay_val x, ay_dtype t) {
    if (!g->status && x >= 0 && x < g->n_nodes && ay_type_of(g, x)->dtype == t) return x;
    return ay_node_add(g, AY_OP_CAST, &x, 1, NULL, &(ay_type){.dtype = t});
}

ay_val ay_reduce(ay_graph *g, ay_op op, ay_val x, int axis, bool keep) {
    return add1(g, op, x, &(ay_attr){.reduce = {.n = 1, .axes = {axis}, .keep = keep, .largest = true}});
}

ay_val ay_matmul(ay_graph *g, ay_val x, ay_val y, bool tx, bool ty) {
    return ay_node_add(g, AY_OP_MATMUL, (ay_val[]){x, y}, 2, &(ay_attr){.matmul = {tx, ty}}, NULL);
}

ay_val ay_linear(ay_graph *g, ay_val x, ay_val w, ay_val bias_or_none) {
    return ay_node_add(g, AY_OP_LINEAR, (ay_val[]){x, w, bias_or_none}, bias_or_none == AY_NO_VALUE ? 2 : 3, NULL, NULL);
}

ay_val ay_linear_layer(ay_graph *g, const char *name, ay_val x, int64_t out, bool bias) {
    if (g->status) return AY_NO_VALUE;
    ay_dtype t = x < 0 || x >= g->n_nodes ? AY_F32 : ay_type_of(g, x)->dtype;
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(t, 2, out, ay_dim(g, x, -1)));
    ay_val b = bias ? ay_param(g, "bias", ay_shape(t, 1, out)) : AY_NO_VALUE;
    ay_val y = ay_linear(g, x, w, b);
    ay_pop(g);
    return y;
}

ay_val ay_conv2d_layer(ay_graph *g, const char *name, ay_val x, int64_t out, int kernel, int stride, int pad, bool bias) {
    if (g->status) return AY_NO_VALUE;
    ay_dtype t = x < 0 || x >= g->n_nodes ? AY_F32 : ay_type_of(g, x)->dtype;
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(t, 4, out, ay_dim(g, x, 1), kernel, kernel));
    ay_val b = bias ? ay_param(g, "bias", ay_shape(t, 1, out)) : AY_NO_VALUE;
    ay_attr a = {
        .conv = {.stride = {stride, stride}, .dilation = {1, 1}, .before = {pad, pad}, .after = {pad, pad}, .groups = 1}};
    ay_val y = ay_node_add(g, AY_OP_CONV, (ay_val[]){x, w, b}, bias ? 3 : 2, &a, NULL);
    ay_pop(g);
    return y;
}

ay_val ay_layer_norm(ay_graph *g, ay_val x, ay_val w_or_none, ay_val b_or_none, double eps) {
    return add_optional(g, AY_OP_LAYER_NORM, x, w_or_none, b_or_none,
                        &(ay_attr){.norm = {.n = 1, .axes = {-1}, .eps = eps}});
}

ay_val ay_rms_norm(ay_graph *g, ay_val x, ay_val w_or_none, double eps) {
    return add_optional(g, AY_OP_RMS_NORM, x, w_or_none, AY_NO_VALUE, &(ay_attr){.norm = {.eps = eps}});
}

ay_val ay_group_norm(ay_graph *g, ay_val x, int64_t groups, ay_val w, ay_val b, double eps) {
    return add_optional(g, AY_OP_GROUP_NORM, x, w, b, &(ay_attr){.norm = {.groups = groups, .eps = eps}});
}

ay_val ay_softmax(ay_graph *g, ay_val x, int axis) { return add1(g, AY_OP_SOFTMAX, x, &(ay_attr){.axis = axis}); }

ay_val ay_gelu(ay_graph *g, ay_val x, ay_gelu_mode mode) { return add1(g, AY_OP_GELU, x, &(ay_attr){.gelu = {mode}}); }

ay_val ay_sdpa(ay_graph *g, ay_val q, ay_val k, ay_val v, ay_val mask_or_none, double scale) {
    ay_val in[4] = {q, k, v, mask_or_none};
    return ay_node_add(g, AY_OP_SDPA, in, mask_or_none == AY_NO_VALUE ? 3 : 4, &(ay_attr){.sdpa = {scale}}, NULL);
}

ay_val ay_rope(ay_graph *g, ay_val x, ay_val cos, ay_val sin, bool interleaved) {
    return ay_node_add(g, AY_OP_ROPE, (ay_val[]){x, cos, sin}, 3, &(ay_attr){.rope = {interleaved}}, NULL);
}

/* ---- movement ------------------------------------------------------------------------------------------------------ */

static ay_val add_shaped(ay_graph *g, ay_op op, ay_val x, int rank, const int64_t *dim, const ay_attr *attr) {
    ay_type want = {.rank = rank};
    for (int i = 0; i < rank && i < AY_MAX_RANK; i++) want.dim[i] = dim[i];
    return ay_node_add(g, op, &x, 1, attr, &want);
}

ay_val ay_reshape_to(ay_graph *g, ay_val x, int rank, const int64_t *dim) {
    return add_shaped(g, AY_OP_RESHAPE, x, rank, dim, NULL);
}

ay_val ay_expand_to(ay_graph *g, ay_val x, int rank, const int64_t *dim) {
    return add_shaped(g, AY_OP_EXPAND, x, rank, dim, NULL);
}

/* The mistake the macros can make: a rank that is not the number of what follows it. */
static bool count_wrong(ay_graph *g, const char *what, int64_t said, int given) {
    if (g->status || said == given) return g->status != ALLOY_OK;
    ay_graph_fail(g, ALLOY_E_INTERNAL, "%s: %d numbers follow a count of %lld", what, given, (long long)said);
    return true;
}

ay_val ay_reshape_list(ay_graph *g, ay_val x, int n, const int64_t *rank_then_dims) {
    if (count_wrong(g, "reshape", rank_then_dims[0], n)) return AY_NO_VALUE;
    return ay_reshape_to(g, x, n, rank_then_dims + 1);
}

ay_val ay_permute_list(ay_graph *g, ay_val x, int n, const int *rank_then_axes) {
    if (count_wrong(g, "permute", rank_then_axes[0], n)) return AY_NO_VALUE;
    if (x >= 0 && x < g->n_nodes && ay_type_of(g, x)->rank != n) {
        char text[160];
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "permute: %d axes for %s", n, ay_type_text(ay_type_of(g, x), text));
    }
    ay_attr a = {0};
    for (int i = 0; i < n && i < AY_MAX_RANK; i++) a.permute.perm[i] = rank_then_axes[i + 1];
    return add1(g, AY_OP_PERMUTE, x, &a);
}

ay_val ay_concat_n(ay_graph *g, int axis, int n, const ay_val *v) {
    return ay_node_add(g, AY_OP_CONCAT, v, n, &(ay_attr){.axis = axis}, NULL);
}

ay_val ay_concat_list(ay_graph *g, int axis, int n, const ay_val *n_then_values) {
    if (count_wrong(g, "concat", n_then_values[0], n)) return AY_NO_VALUE;
    return ay_concat_n(g, axis, n, n_then_values + 1);
}

ay_val ay_slice(ay_graph *g, ay_val x, int axis, int64_t begin, int64_t end) {
    if (g->status) return AY_NO_VALUE;
    if (x < 0 || x >= g->n_nodes) return ay_graph_fail(g, ALLOY_E_MISMATCH, "slice: input 0 is missing");
    ay_type want = *ay_type_of(g, x);
    int at = axis < 0 ? axis + want.rank : axis;
    char text[160];
    if (at < 0 || at >= want.rank)
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "slice: axis %d is outside of %s", axis, ay_type_text(&want, text));
    int64_t size = want.dim[at];
    int64_t from = begin < 0 ? begin + size : begin, to = end == INT64_MAX ? size : end < 0 ? end + size : end;
    if (from < 0 || to > size || from >= to) {
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "slice: [%lld, %lld) of axis %d of %s is empty or outside",
                             (long long)begin, (long long)(end == INT64_MAX ? size : end), axis, ay_type_text(&want, text));
    }
    ay_attr a = {0};
    for (int i = 0; i < want.rank; i++) a.slice.stride[i] = 1;
    a.slice.begin[at] = from;
    want.dim[at] = to - from;
    return ay_node_add(g, AY_OP_SLICE, &x, 1, &a, &want);
}

ay_val ay_gather(ay_graph *g, ay_val x, ay_val indices, int axis) {
    return ay_node_add(g, AY_OP_GATHER, (ay_val[]){x, indices}, 2, &(ay_attr){.gather = {.axis = axis}}, NULL);
}

ay_val ay_pad2d(ay_graph *g, ay_val x, int64_t top, int64_t bottom, int64_t left, int64_t right) {
    if (g->status) return AY_NO_VALUE;
    int rank = x < 0 || x >= g->n_nodes ? 0 : ay_type_of(g, x)->rank;
    if (rank < 2) return ay_graph_fail(g, ALLOY_E_MISMATCH, "pad: the last two dims of a tensor of rank %d", rank);
    ay_attr a = {0};
    a.pad.before[rank - 2] = top;
    a.pad.after[rank - 2] = bottom;
    a.pad.before[rank - 1] = left;
    a.pad.after[rank - 1] = right;
    return add1(g, AY_OP_PAD, x, &a);
}

ay_val ay_upsample_nearest(ay_graph *g, ay_val x, int64_t fh, int64_t fw) {
    return add1(g, AY_OP_UPSAMPLE, x, &(ay_attr){.upsample = {.fh = fh, .fw = fw}});
}
