/* SPDX-License-Identifier: MIT
 *
 * Inference of result types: the table from op to function, elementwise ops, reductions. Every op of ops.def has a row.
 * After the op's own rule, one check for all: the result must be a type a graph may hold.
 */
#include "ir/infer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

alloy_status ay_infer_fail(const ay_graph *g, const ay_node *n, const char *fmt, ...) {
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: %s", ay_op_get(n->op)->name, text);
}

alloy_status ay_infer_same_dtype(const ay_graph *g, const ay_node *n, int i, int j) {
    const ay_type *a = ay_in_type(g, n, i), *b = ay_in_type(g, n, j);
    if (a->dtype == b->dtype) return ALLOY_OK;
    return ay_infer_fail(g, n, "inputs %d and %d differ in element type: %s and %s; cast one of them", i, j,
                         ay_dtype_name(a->dtype), ay_dtype_name(b->dtype));
}

alloy_status ay_infer_float(const ay_graph *g, const ay_node *n, int i) {
    char text[160];
    if (ay_dtype_is_float(ay_in_type(g, n, i)->dtype)) return ALLOY_OK;
    return ay_infer_fail(g, n, "input %d must be a float tensor, found %s", i, ay_type_text(ay_in_type(g, n, i), text));
}

bool ay_broadcast(const ay_type *a, const ay_type *b, ay_type *out) {
    int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t dim[AY_MAX_RANK];
    for (int i = 0; i < rank; i++) {
        int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
        if (da != db && da != 1 && db != 1) return false;
        dim[i] = da == 1 ? db : da;
    }
    out->rank = rank;
    memcpy(out->dim, dim, (size_t)rank * sizeof dim[0]);
    return true;
}

bool ay_type_valid(const ay_graph *g, const ay_type *t, const char *what) {
    char text[160];
    if ((unsigned)t->dtype >= AY_DTYPE_COUNT || t->dtype == AY_NONE) {
        ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: no element type, or as many dims as its rank says were not given", what);
        return false;
    }
    const ay_dtype refused[] = {AY_F64, AY_I64, AY_U64, AY_U32, AY_F8E4M3, AY_F8E5M2};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (t->dtype != refused[i]) continue;
        ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: values of a graph cannot be %s; use float32 or int32", what,
                ay_dtype_name(t->dtype));
        return false;
    }
    if (t->rank < 0 || t->rank > AY_MAX_RANK) {
        ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: rank %d is outside of 0 to %d", what, t->rank, AY_MAX_RANK);
        return false;
    }
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] >= 1) continue;
        ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: dim %d of %s is not positive", what, i, ay_type_text(t, text));
        return false;
    }
    int64_t count = ay_type_count(t);
    if (count < 0 || count > AY_MAX_COUNT) {
        ay_fail(g->cx, ALLOY_E_MISMATCH, "%s: %s has more than 2^38 elements", what, ay_type_text(t, text));
        return false;
    }
    return true;
}

/* ---- elementwise --------------------------------------------------------------------------------------------------- */

static alloy_status unary_float(const ay_graph *g, ay_node *n) {
    AY_TRY(ay_infer_float(g, n, 0));
    n->type = *ay_in_type(g, n, 0);
    return ALLOY_OK;
}

static alloy_status number(const ay_graph *g, const ay_node *n, int i) {
    if (ay_in_type(g, n, i)->dtype != AY_BOOL) return ALLOY_OK;
    return ay_infer_fail(g, n, "input %d must be a tensor of numbers, found bool", i);
}

static alloy_status unary_number(const ay_graph *g, ay_node *n) {
    AY_TRY(number(g, n, 0));
    n->type = *ay_in_type(g, n, 0);
    return ALLOY_OK;
}

static alloy_status boolean(const ay_graph *g, const ay_node *n, int i) {
    if (ay_in_type(g, n, i)->dtype == AY_BOOL) return ALLOY_OK;
    return ay_infer_fail(g, n, "input %d must be bool, found %s", i, ay_dtype_name(ay_in_type(g, n, i)->dtype));
}

static alloy_status unary_bool(const ay_graph *g, ay_node *n) {
    AY_TRY(boolean(g, n, 0));
    n->type = *ay_in_type(g, n, 0);
    return ALLOY_OK;
}

static alloy_status cast(const ay_graph *g, ay_node *n) {
    ay_dtype t = n->type.dtype;
    if ((unsigned)t >= AY_DTYPE_COUNT || t == AY_NONE) return ay_infer_fail(g, n, "no element type asked for");
    n->type = *ay_in_type(g, n, 0);
    n->type.dtype = t;
    return ALLOY_OK;
}

static alloy_status shapes_meet(const ay_graph *g, ay_node *n, int i, int j, ay_type *out) {
    char a[160], b[160];
    if (ay_broadcast(ay_in_type(g, n, i), ay_in_type(g, n, j), out)) return ALLOY_OK;
    return ay_infer_fail(g, n, "%s and %s do not broadcast", ay_type_text(ay_in_type(g, n, i), a),
                         ay_type_text(ay_in_type(g, n, j), b));
}

static alloy_status binary_number(const ay_graph *g, ay_node *n) {
    AY_TRY(number(g, n, 0));
    AY_TRY(ay_infer_same_dtype(g, n, 0, 1));
    ay_type out = {.dtype = ay_in_type(g, n, 0)->dtype};
    AY_TRY(shapes_meet(g, n, 0, 1, &out));
    n->type = out;
    return ALLOY_OK;
}

static alloy_status equality(const ay_graph *g, ay_node *n) {
    AY_TRY(ay_infer_same_dtype(g, n, 0, 1));
    ay_type out = {.dtype = AY_BOOL};
    AY_TRY(shapes_meet(g, n, 0, 1, &out));
    n->type = out;
    return ALLOY_OK;
}

static alloy_status compare(const ay_graph *g, ay_node *n) {
    AY_TRY(number(g, n, 0));
    return equality(g, n);
}

static alloy_status logic(const ay_graph *g, ay_node *n) {
    AY_TRY(boolean(g, n, 0));
    AY_TRY(boolean(g, n, 1));
    return equality(g, n);
}

static alloy_status where(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    AY_TRY(boolean(g, n, 0));
    AY_TRY(ay_infer_same_dtype(g, n, 1, 2));
    ay_type out = {.dtype = ay_in_type(g, n, 1)->dtype};
    AY_TRY(shapes_meet(g, n, 1, 2, &out));
    if (!ay_broadcast(&out, ay_in_type(g, n, 0), &out)) {
        return ay_infer_fail(g, n, "condition %s does not broadcast with %s", ay_type_text(ay_in_type(g, n, 0), a),
                             ay_type_text(&out, b));
    }
    n->type = out;
    return ALLOY_OK;
}

/* ---- reductions ---------------------------------------------------------------------------------------------------- */

static alloy_status reduce(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(number(g, n, 0));
    if (n->attr.reduce.n < 1) return ay_infer_fail(g, n, "no axis to reduce over");
    if (n->op == AY_OP_ARGMAX && n->attr.reduce.n != 1)
        return ay_infer_fail(g, n, "takes one axis, found %d", n->attr.reduce.n);
    ay_type out = {.dtype = n->op == AY_OP_ARGMAX ? AY_I32 : x->dtype};
    for (int i = 0, next = 0; i < x->rank; i++) {
        bool gone = next < n->attr.reduce.n && n->attr.reduce.axes[next] == i;
        next += gone;
        if (!gone) out.dim[out.rank++] = x->dim[i];
        else if (n->attr.reduce.keep) out.dim[out.rank++] = 1;
    }
    n->type = out;
    return ALLOY_OK;
}

static alloy_status topk(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    int64_t k = n->attr.topk.k;
    AY_TRY(number(g, n, 0));
    if (k < 1 || k > x->dim[n->attr.topk.axis]) {
        return ay_infer_fail(g, n, "k = %" PRId64 " along axis %d of %s", k, n->attr.topk.axis, ay_type_text(x, text));
    }
    n->type = *x;
    n->type.dim[n->attr.topk.axis] = k;
    if (n->attr.topk.indices) n->type.dtype = AY_I32;
    return ALLOY_OK;
}

/* A leaf's type is what its maker said. */
static alloy_status leaf(const ay_graph *g, ay_node *n) { return ALLOY_OK; }

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static const ay_infer_fn table[AY_OP_COUNT] = {
    [AY_OP_INPUT] = leaf,
    [AY_OP_PARAM] = leaf,
    [AY_OP_CONST] = leaf,
    [AY_OP_ABS] = unary_number,
    [AY_OP_EXP] = unary_float,
    [AY_OP_LOG] = unary_float,
    [AY_OP_SQRT] = unary_float,
    [AY_OP_RSQRT] = unary_float,
    [AY_OP_SIN] = unary_float,
    [AY_OP_COS] = unary_float,
    [AY_OP_TANH] = unary_float,
    [AY_OP_ERF] = unary_float,
    [AY_OP_FLOOR] = unary_number,
    [AY_OP_CEIL] = unary_number,
    [AY_OP_ROUND] = unary_number,
    [AY_OP_SIGN] = unary_number,
    [AY_OP_NOT] = unary_bool,
    [AY_OP_CAST] = cast,
    [AY_OP_ADD] = binary_number,
    [AY_OP_SUB] = binary_number,
    [AY_OP_MUL] = binary_number,
    [AY_OP_DIV] = binary_number,
    [AY_OP_MOD] = binary_number,
    [AY_OP_MAX] = binary_number,
    [AY_OP_MIN] = binary_number,
    [AY_OP_POW] = binary_number,
    [AY_OP_EQ] = equality,
    [AY_OP_NE] = equality,
    [AY_OP_LT] = compare,
    [AY_OP_LE] = compare,
    [AY_OP_GT] = compare,
    [AY_OP_GE] = compare,
    [AY_OP_AND] = logic,
    [AY_OP_OR] = logic,
    [AY_OP_XOR] = logic,
    [AY_OP_WHERE] = where,
    [AY_OP_SUM] = reduce,
    [AY_OP_RMAX] = reduce,
    [AY_OP_RMIN] = reduce,
    [AY_OP_PROD] = reduce,
    [AY_OP_ARGMAX] = reduce,
    [AY_OP_CUMSUM] = unary_number,
    [AY_OP_TOPK] = topk,
    [AY_OP_MATMUL] = ay_infer_matmul,
    [AY_OP_CONV] = ay_infer_conv,
    [AY_OP_POOL] = ay_infer_pool,
    [AY_OP_RESHAPE] = ay_infer_reshape,
    [AY_OP_PERMUTE] = ay_infer_permute,
    [AY_OP_EXPAND] = ay_infer_expand,
    [AY_OP_SLICE] = ay_infer_slice,
    [AY_OP_CONCAT] = ay_infer_concat,
    [AY_OP_PAD] = ay_infer_pad,
    [AY_OP_REVERSE] = ay_infer_reverse,
    [AY_OP_GATHER] = ay_infer_gather,
    [AY_OP_GATHER_ALONG] = ay_infer_gather_along,
    [AY_OP_LINEAR] = ay_infer_linear,
    [AY_OP_SIGMOID] = unary_float,
    [AY_OP_SILU] = unary_float,
    [AY_OP_GELU] = ay_infer_gelu,
    [AY_OP_SOFTMAX] = ay_infer_softmax,
    [AY_OP_RMS_NORM] = ay_infer_rms_norm,
    [AY_OP_LAYER_NORM] = ay_infer_layer_norm,
    [AY_OP_GROUP_NORM] = ay_infer_group_norm,
    [AY_OP_ROPE] = ay_infer_rope,
    [AY_OP_SDPA] = ay_infer_sdpa,
    [AY_OP_UPSAMPLE] = ay_infer_upsample,
    [AY_OP_CONV_TRANSPOSE] = ay_infer_conv_transpose,
    [AY_OP_DEQUANT] = ay_infer_dequant,
};

alloy_status ay_infer(const ay_graph *g, ay_node *n) {
    if ((unsigned)n->op >= AY_OP_COUNT || !table[n->op])
        return ay_fail(g->cx, ALLOY_E_INTERNAL, "no op has number %d", (int)n->op);
    const ay_op_info *info = ay_op_get(n->op);
    if (n->n_in < info->least || (info->most >= 0 && n->n_in > info->most)) {
        char range[32] = "or more";
        if (info->most >= 0) snprintf(range, sizeof range, "to %d", info->most);
        return ay_infer_fail(g, n, "%d inputs given, takes %d %s", n->n_in, info->least, range);
    }
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0 || n->in[i] >= g->n_nodes) return ay_infer_fail(g, n, "input %d is missing", i);
    }
    AY_TRY(ay_attr_canon(g, n));
    AY_TRY(table[n->op](g, n));
    for (int i = n->type.rank; i >= 0 && i < AY_MAX_RANK; i++) n->type.dim[i] = 0; /* equal types are equal bytes */
    return ay_type_valid(g, &n->type, info->name) ? ALLOY_OK : g->cx->code;
}
