/* SPDX-License-Identifier: MIT
 *
 * Emission of products, windows, norms and attention: the ops with weights or with parameters of their own.
 */
#include "coreml/emit.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

/* ---- products ---------------------------------------------------------------------------------------------------- */

static AyMil__Operation *begin_matmul(ay_emitter *e, const char *x, const char *y, bool tx, bool ty) {
    AyMil__Operation *op = ay_emit_begin(e, "matmul", NULL);
    ay_emit_arg(e, op, "x", x);
    ay_emit_arg(e, op, "y", y);
    ay_emit_bool(e, op, "transpose_x", tx);
    ay_emit_bool(e, op, "transpose_y", ty);
    return op;
}

void ay_emit_op_matmul(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!ay_emit_domain(e, 0, ay_domain_number)) return;
    ay_emit_result(e, begin_matmul(e, ay_emit_name(e, 0), ay_emit_name(e, 1), n->attr.matmul.ta, n->attr.matmul.tb), NULL,
                   false);
}

/* `linear` wants constant weights and x of rank 2 or 3 (rank 1 too, but no converter writes it). Other ranks are folded into
 * [rows, K] around it; computed weights become a matmul. */
void ay_emit_op_linear(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e), *w = ay_emit_in(e, 1);
    bool has_bias = n->n_in > 2;
    bool constant = ay_emit_is_const(e, n->in[1]) && (!has_bias || ay_emit_is_const(e, n->in[2]));
    const char *x = ay_emit_name(e, 0);
    ay_type from = ay_emit_in(e, 0)->type, to = n->type;
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    bool fold = constant ? from.rank < 2 || from.rank > 3 : from.rank < 2;
    if (fold) {
        int64_t rows = ay_type_count(&from) / from.dim[from.rank - 1];
        ay_type flat = {.dtype = from.dtype, .rank = 2, .dim = {rows, from.dim[from.rank - 1]}};
        x = ay_emit_reshape(e, x, &flat);
        to = (ay_type){.dtype = n->type.dtype, .rank = 2, .dim = {rows, w->type.dim[0]}};
    }
    AyMil__Operation *op;
    if (constant) {
        op = ay_emit_begin(e, "linear", NULL);
        ay_emit_arg(e, op, "x", x);
        ay_emit_arg(e, op, "weight", ay_emit_name(e, 1));
        if (has_bias)
            ay_emit_arg(e, op, "bias", ay_emit_name(e, 2));
        else
            ay_emit_zeros(e, op, "bias", w->type.dtype, w->type.dim[0]);
    } else {
        op = begin_matmul(e, x, ay_emit_name(e, 1), false, true);
        if (has_bias) {
            const char *product = ay_emit_end(e, op, &to);
            op = ay_emit_begin(e, "add", NULL);
            ay_emit_arg(e, op, "x", product);
            ay_emit_arg(e, op, "y", ay_emit_name(e, 2));
        }
    }
    if (fold) {
        const char *product = ay_emit_end(e, op, &to);
        op = ay_emit_begin(e, "reshape", NULL);
        ay_emit_arg(e, op, "x", product);
        ay_emit_ints(e, op, "shape", n->type.rank, n->type.dim);
    }
    ay_emit_result(e, op, NULL, false);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

/* before and after of each spatial dim in turn */
static void emit_pads(ay_emitter *e, AyMil__Operation *op, int spatial, const int64_t *before, const int64_t *after) {
    int64_t pad[6];
    for (int i = 0; i < spatial; i++) {
        pad[2 * i] = before[i];
        pad[2 * i + 1] = after[i];
    }
    ay_emit_str(e, op, "pad_type", "custom");
    ay_emit_ints(e, op, "pad", 2 * spatial, pad);
}

static AyMil__Operation *begin_conv(ay_emitter *e, const char *mil, bool bias, const int64_t *after) {
    const ay_node *n = ay_emit_node(e);
    int spatial = n->type.rank - 2;
    AyMil__Operation *op = ay_emit_begin(e, mil, NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_arg(e, op, "weight", ay_emit_name(e, 1));
    if (bias) ay_emit_arg(e, op, "bias", ay_emit_name(e, 2));
    ay_emit_ints(e, op, "strides", spatial, n->attr.conv.stride);
    emit_pads(e, op, spatial, n->attr.conv.before, after);
    ay_emit_ints(e, op, "dilations", spatial, n->attr.conv.dilation);
    ay_emit_int(e, op, "groups", n->attr.conv.groups);
    return op;
}

void ay_emit_op_conv(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    bool dilated = false;
    for (int i = 0; i < n->type.rank - 2; i++) dilated |= n->attr.conv.dilation[i] != 1;
    if (dilated && !ay_emit_is_const(e, n->in[1]))
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "a dilated convolution needs a constant weight in Core ML, this one is computed");
    if (ay_emit_domain(e, 0, ay_domain_float))
        ay_emit_result(e, begin_conv(e, "conv", n->n_in > 2, n->attr.conv.after), NULL, false);
}

/* A negative crop (torch's output_padding) adds rows that only the bias reaches: zeros are padded on before it is added. */
static void conv_transpose_padded(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    int spatial = n->type.rank - 2;
    int64_t after[3], pad[2 * AY_MAX_RANK] = {0};
    ay_type inner = n->type, column = {.dtype = n->type.dtype, .rank = n->type.rank, .dim = {1, n->type.dim[1], 1, 1, 1}};
    for (int i = 0; i < spatial; i++) {
        after[i] = ay_max_i64(n->attr.conv.after[i], 0);
        pad[2 * (i + 2) + 1] = after[i] - n->attr.conv.after[i];
        inner.dim[i + 2] -= pad[2 * (i + 2) + 1];
    }
    const char *y = ay_emit_end(e, begin_conv(e, "conv_transpose", false, after), &inner);
    AyMil__Operation *op = ay_emit_begin(e, "pad", NULL);
    ay_emit_arg(e, op, "x", y);
    ay_emit_ints(e, op, "pad", 2 * n->type.rank, pad);
    ay_emit_str(e, op, "mode", "constant");
    ay_emit_num(e, op, "constant_val", n->type.dtype, 0);
    if (n->n_in > 2) {
        y = ay_emit_end(e, op, &n->type);
        const char *bias = ay_emit_reshape(e, ay_emit_name(e, 2), &column);
        op = ay_emit_begin(e, "add", NULL);
        ay_emit_arg(e, op, "x", y);
        ay_emit_arg(e, op, "y", bias);
    }
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_conv_transpose(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    bool grows = false;
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    for (int i = 0; i < n->type.rank - 2; i++) grows |= n->attr.conv.after[i] < 0;
    if (grows)
        conv_transpose_padded(e);
    else
        ay_emit_result(e, begin_conv(e, "conv_transpose", n->n_in > 2, n->attr.conv.after), NULL, false);
}

void ay_emit_op_pool(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    int spatial = n->type.rank - 2;
    bool average = n->attr.pool.average;
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    AyMil__Operation *op = ay_emit_begin(e, average ? "avg_pool" : "max_pool", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "kernel_sizes", spatial, n->attr.pool.kernel);
    ay_emit_ints(e, op, "strides", spatial, n->attr.pool.stride);
    emit_pads(e, op, spatial, n->attr.pool.before, n->attr.pool.after);
    if (average) ay_emit_bool(e, op, "exclude_padding_from_average", !n->attr.pool.count_padding);
    ay_emit_bool(e, op, "ceil_mode", false);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_upsample(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    if (n->attr.upsample.bilinear) {
        ay_emit_fail(e, ALLOY_E_INTERNAL, "bilinear upsampling should have been lowered before it is written");
        return;
    }
    AyMil__Operation *op = ay_emit_begin(e, "upsample_nearest_neighbor", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_int(e, op, "scale_factor_height", n->attr.upsample.fh);
    ay_emit_int(e, op, "scale_factor_width", n->attr.upsample.fw);
    ay_emit_result(e, op, NULL, false);
}

/* ---- norms, activations, attention ------------------------------------------------------------------------------- */

/* An epsilon that half precision would make 0 becomes half's smallest number: a constant row must not give 0/0. */
static double epsilon_for(ay_dtype t, double eps) {
    return t == AY_F16 && eps > 0 && ay_f32_to_f16((float)eps) == 0 ? (double)ay_f16_to_f32(1) : eps;
}

void ay_emit_op_layer_norm(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    const ay_type *x = &ay_emit_in(e, 0)->type;
    int64_t axes[AY_MAX_RANK];
    bool last = true; /* the axes are the trailing ones: then they are counted from the end, as converters write them */
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    for (int i = 0; i < n->attr.norm.n; i++) last &= n->attr.norm.axes[i] == x->rank - n->attr.norm.n + i;
    for (int i = 0; i < n->attr.norm.n; i++) axes[i] = n->attr.norm.axes[i] - (last ? x->rank : 0);
    bool constant = true;
    for (int i = 1; i < n->n_in; i++) constant &= ay_emit_is_const(e, n->in[i]);
    AyMil__Operation *op = ay_emit_begin(e, "layer_norm", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "axes", n->attr.norm.n, axes);
    if (constant && n->n_in > 1) ay_emit_arg(e, op, "gamma", ay_emit_name(e, 1));
    if (constant && n->n_in > 2) ay_emit_arg(e, op, "beta", ay_emit_name(e, 2));
    ay_emit_num(e, op, "epsilon", x->dtype, epsilon_for(x->dtype, n->attr.norm.eps));
    if (constant || !ay_emit_ok(e)) {
        ay_emit_result(e, op, NULL, false);
        return;
    }
    const char *y = ay_emit_end(e, op, &n->type); /* computed weights: scaled and shifted behind the op */
    for (int i = 1; i < n->n_in; i++) {
        const ay_type *w = &ay_emit_in(e, i)->type;
        ay_type wide = {.dtype = w->dtype, .rank = x->rank};
        for (int d = 0; d < x->rank; d++) wide.dim[d] = 1;
        for (int d = 0; d < n->attr.norm.n; d++) wide.dim[n->attr.norm.axes[d]] = w->dim[d];
        const char *name = last ? ay_emit_name(e, i) : ay_emit_reshape(e, ay_emit_name(e, i), &wide);
        op = ay_emit_begin(e, i == 1 ? "mul" : "add", NULL);
        ay_emit_arg(e, op, "x", y);
        ay_emit_arg(e, op, "y", name);
        if (i + 1 == n->n_in)
            ay_emit_result(e, op, NULL, false);
        else
            y = ay_emit_end(e, op, &n->type);
    }
}

void ay_emit_op_softmax(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    AyMil__Operation *op = ay_emit_begin(e, "softmax", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_int(e, op, "axis", n->attr.axis == n->type.rank - 1 ? -1 : n->attr.axis);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_gelu(ay_emitter *e) {
    static const char *const modes[] = {
        [AY_GELU_EXACT] = "EXACT", [AY_GELU_TANH] = "TANH_APPROXIMATION", [AY_GELU_SIGMOID] = "SIGMOID_APPROXIMATION"};
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    AyMil__Operation *op = ay_emit_begin(e, "gelu", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_str(e, op, "mode", modes[ay_emit_node(e)->attr.gelu.mode]);
    ay_emit_result(e, op, NULL, false);
}

/* The op scales by 1/sqrt(E) and knows no other factor: any other is put on q. */
void ay_emit_op_sdpa(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    const ay_type *q = &ay_emit_in(e, 0)->type;
    double factor = n->attr.sdpa.scale * sqrt((double)q->dim[q->rank - 1]);
    const char *query = ay_emit_name(e, 0);
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    if (fabs(factor - 1) > 1e-6) {
        AyMil__Operation *mul = ay_emit_begin(e, "mul", NULL);
        ay_emit_arg(e, mul, "x", query);
        ay_emit_num(e, mul, "y", q->dtype, factor);
        query = ay_emit_end(e, mul, q);
    }
    AyMil__Operation *op = ay_emit_begin(e, "scaled_dot_product_attention", NULL);
    ay_emit_arg(e, op, "query", query);
    ay_emit_arg(e, op, "key", ay_emit_name(e, 1));
    ay_emit_arg(e, op, "value", ay_emit_name(e, 2));
    if (n->n_in > 3) { /* its last dim must be that of the keys, also where it would broadcast */
        const ay_type *mask = &ay_emit_in(e, 3)->type;
        ay_type full = *mask;
        const ay_type *k = &ay_emit_in(e, 1)->type;
        full.rank = full.rank < 2 ? 2 : full.rank;
        for (int i = 0; i < full.rank; i++)
            full.dim[i] = i < full.rank - mask->rank ? 1 : mask->dim[i - (full.rank - mask->rank)];
        full.dim[full.rank - 1] = k->dim[k->rank - 2];
        ay_emit_arg(e, op, "attn_mask", ay_emit_expand(e, ay_emit_name(e, 3), mask, &full));
    }
    ay_emit_result(e, op, NULL, false);
}

/* ---- along one axis ---------------------------------------------------------------------------------------------- */

void ay_emit_op_argmax(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!ay_emit_domain(e, 0, ay_domain_number)) return;
    AyMil__Operation *op = ay_emit_begin(e, n->attr.reduce.largest ? "reduce_argmax" : "reduce_argmin", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_int(e, op, "axis", n->attr.reduce.axes[0]);
    ay_emit_bool(e, op, "keep_dims", n->attr.reduce.keep);
    ay_emit_str(e, op, "output_dtype", "int32");
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_cumsum(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!ay_emit_domain(e, 0, ay_domain_number)) return;
    AyMil__Operation *op = ay_emit_begin(e, "cumsum", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_int(e, op, "axis", n->attr.scan.axis);
    ay_emit_bool(e, op, "exclusive", n->attr.scan.exclusive);
    ay_emit_bool(e, op, "reverse", n->attr.scan.reverse);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_topk(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    ay_type other = n->type; /* values and indices come together; a node is one of the two */
    other.dtype = n->attr.topk.indices ? ay_emit_in(e, 0)->type.dtype : AY_I32;
    if (!ay_emit_domain(e, 0, ay_domain_number)) return;
    AyMil__Operation *op = ay_emit_begin(e, "topk", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_int(e, op, "k", n->attr.topk.k);
    ay_emit_int(e, op, "axis", n->attr.topk.axis);
    ay_emit_bool(e, op, "ascending", !n->attr.topk.largest);
    ay_emit_bool(e, op, "sort", true);
    ay_emit_bool(e, op, "return_indices", true);
    ay_emit_str(e, op, "output_indices_dtype", "int32");
    ay_emit_result(e, op, &other, n->attr.topk.indices);
}
