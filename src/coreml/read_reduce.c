/* SPDX-License-Identifier: MIT
 *
 * Reading operations that look along axes: reductions, softmax, normalisations, running sums, sorting.
 * Defaults and formulas: coremltools' mil/ops/defs (reduction.py, normalization.py, tensor_operation.py).
 */
#include "coreml/read.h"

#include <math.h>
#include <string.h>

#define G (o->r->g)

/* ---- reductions -------------------------------------------------------------------------------------------------- */

typedef struct span { int n, axes[AY_MAX_RANK]; int64_t count; } span;

/** The axes named by `axes` (all when absent) of x, ascending, and how many elements they span. */
static span get_span(ay_mop *o, ay_val x) {
    span s = {.count = 1};
    if (ay_mbad(o)) return s;
    const ay_type t = *ay_mtype(o, x);
    int64_t axes[AY_MAX_RANK];
    bool in[AY_MAX_RANK] = {false};
    int n = ay_mints(o, "axes", axes, AY_MAX_RANK);
    if (n > 0 && !ay_maxes(o, "axes", axes, n, t.rank)) return s;
    for (int i = 0; i < t.rank; i++) in[i] = n < 0;
    for (int i = 0; i < n; i++) in[axes[i]] = true;
    for (int i = 0; i < t.rank; i++)
        if (in[i]) s.axes[s.n++] = i, s.count *= t.dim[i];
    return s;
}

static ay_val reduce_by(ay_mop *o, ay_op op, ay_val x, const span *s, bool keep) {
    if (s->n == 0 || ay_mbad(o)) return x;
    ay_attr at = {0};
    at.reduce.n = s->n;
    memcpy(at.reduce.axes, s->axes, sizeof s->axes);
    at.reduce.keep = keep;
    return ay_node_add(G, op, &x, 1, &at, NULL);
}

static ay_val reduce(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    span s = get_span(o, x);
    return reduce_by(o, (ay_op)o->row->op, x, &s, ay_mbool_or(o, "keep_dims", false));
}

static ay_val mean_of(ay_mop *o, ay_val x, const span *s, bool keep) {
    ay_val sum = reduce_by(o, AY_OP_SUM, x, s, keep);
    if (ay_mbad(o) || s->count == 1) return sum;
    return ay_muls(G, sum, 1.0 / (double)s->count);
}

static ay_val reduce_mean(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    span s = get_span(o, x);
    return mean_of(o, x, &s, ay_mbool_or(o, "keep_dims", false));
}

enum { SUM_SQUARE, L2_NORM, L1_NORM, LOG_SUM };
static ay_val reduce_formed(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    span s = get_span(o, x);
    bool keep = ay_mbool_or(o, "keep_dims", false);
    int form = o->row->arg;
    if (form == L1_NORM) x = ay_unary(G, AY_OP_ABS, x);
    if (form == SUM_SQUARE || form == L2_NORM) x = ay_mul(G, x, x);
    ay_val y = reduce_by(o, AY_OP_SUM, x, &s, keep);
    if (form == L2_NORM) return ay_unary(G, AY_OP_SQRT, y);
    return form == LOG_SUM ? ay_unary(G, AY_OP_LOG, y) : y;
}

/* m + log(sum(e^(x - m))) with m the maximum */
static ay_val reduce_log_sum_exp(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    span s = get_span(o, x);
    bool keep = ay_mbool_or(o, "keep_dims", false);
    ay_val m = reduce_by(o, AY_OP_RMAX, x, &s, true);
    ay_val e = ay_unary(G, AY_OP_EXP, ay_sub(G, x, m));
    ay_val y = ay_add(G, ay_unary(G, AY_OP_LOG, reduce_by(o, AY_OP_SUM, e, &s, true)), m);
    return keep ? y : reduce_by(o, AY_OP_SUM, y, &s, false); /* drops dims of 1 */
}

static ay_dtype index_dtype(ay_mop *o, const char *key) {
    const char *name = ay_mstring_or(o, key, "int32");
    const ay_mil_dtype *row = ay_mil_by_name(name);
    if (row && !ay_dtype_is_float(row->dtype)) return row->dtype;
    if (strcmp(name, "i32") && strcmp(name, "i16") && strcmp(name, "ui16"))
        ay_mfail(o, ALLOY_E_UNSUPPORTED, "%s is \"%.40s\"", key, name);
    return strcmp(name, "i16") == 0 ? AY_I16 : strcmp(name, "ui16") == 0 ? AY_U16 : AY_I32;
}

static ay_val reduce_arg(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr at = {0};
    at.reduce.n = 1;
    at.reduce.axes[0] = ay_maxis(o, "axis", ay_mint_or(o, "axis", -1), ay_mtype(o, x)->rank);
    at.reduce.keep = ay_mbool_or(o, "keep_dims", false);
    at.reduce.largest = o->row->arg;
    ay_val y = ay_node_add(G, AY_OP_ARGMAX, &x, 1, &at, NULL);
    return ay_cast(G, y, index_dtype(o, "output_dtype"));
}

/* ---- softmax and normalisations ---------------------------------------------------------------------------------- */

static ay_val softmax(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    return ay_mbad(o) ? x : ay_softmax(G, x, ay_maxis(o, "axis", ay_mint_or(o, "axis", -1), ay_mtype(o, x)->rank));
}

/* parameters may be of another float type than x since iOS17 */
static ay_val like(ay_mop *o, ay_val v, ay_val x) {
    return v == AY_NO_VALUE || ay_mbad(o) ? v : ay_cast(G, v, ay_mtype(o, x)->dtype);
}

/** A norm node with what there is of weight and bias; a bias alone gets a weight of ones. */
static ay_val norm_node(ay_mop *o, ay_op op, ay_val x, const ay_attr *at) {
    ay_val gamma = like(o, ay_mnode_opt(o, "gamma"), x), beta = like(o, ay_mnode_opt(o, "beta"), x);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (gamma == AY_NO_VALUE && beta != AY_NO_VALUE) {
        const ay_type t = *ay_mtype(o, beta);
        gamma = ay_expand_to(G, ay_mscalar(o, t.dtype, 1), t.rank, t.dim);
    }
    ay_val in[3] = {x, gamma, beta};
    return ay_node_add(G, op, in, beta != AY_NO_VALUE ? 3 : gamma != AY_NO_VALUE ? 2 : 1, at, NULL);
}

static ay_val layer_norm(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    span s = get_span(o, x);
    ay_attr at = {0};
    at.norm.n = s.n;
    memcpy(at.norm.axes, s.axes, sizeof s.axes);
    at.norm.eps = ay_mfloat_or(o, "epsilon", 1e-5);
    return norm_node(o, AY_OP_LAYER_NORM, x, &at);
}

static ay_val instance_norm(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    ay_attr at = {0};
    if (ay_mbad(o)) return AY_NO_VALUE;
    at.norm.groups = ay_dim(G, x, 1);
    at.norm.eps = ay_mfloat_or(o, "epsilon", 1e-5);
    return norm_node(o, AY_OP_GROUP_NORM, x, &at);
}

/* the numbers of a [C] parameter, or NULL when it is absent */
static const float *channel_numbers(ay_mop *o, const char *key, int64_t channels) {
    ay_mvalue *v = ay_marg_opt(o, key);
    const float *f = NULL;
    int64_t n = 0;
    if (!v) return NULL;
    if (!ay_mvalue_known(o, v, &f, &n)) return ay_mnull(o, ALLOY_E_UNSUPPORTED, "%s must be a constant", key);
    if (n != channels)
        return ay_mnull(o, ALLOY_E_MISMATCH, "%s has %lld numbers for %lld channels", key, (long long)n,
                        (long long)channels);
    return f;
}

/* all parameters are constants, so that x * scale + shift remains; both are float32 and the sum is taken there */
static ay_val batch_norm(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (t.rank < 2) return ay_mfail(o, ALLOY_E_MISMATCH, "x has no channels");
    int64_t c = t.dim[1], dim[AY_MAX_RANK] = {1, 1, 1, 1, 1, 1};
    const float *mean = channel_numbers(o, "mean", c), *variance = channel_numbers(o, "variance", c);
    const float *gamma = channel_numbers(o, "gamma", c), *beta = channel_numbers(o, "beta", c);
    double eps = ay_mfloat_or(o, "epsilon", 1e-5);
    if (!ay_mbad(o) && (!mean || !variance)) return ay_mfail(o, ALLOY_E_FORMAT, "mean and variance are needed");
    float *scale = ay_mmake(o, c, AY_F32), *shift = ay_mmake(o, c, AY_F32);
    if (ay_mbad(o) || !scale || !shift) return AY_NO_VALUE;
    for (int64_t i = 0; i < c; i++) {
        double s = (gamma ? gamma[i] : 1.0) / sqrt(variance[i] + eps);
        scale[i] = (float)s;
        shift[i] = (float)((beta ? beta[i] : 0.0) - mean[i] * s);
    }
    dim[1] = c;
    ay_val y = ay_mul(G, ay_cast(G, x, AY_F32), ay_mconst(o, AY_F32, t.rank, dim, scale));
    return ay_cast(G, ay_add(G, y, ay_mconst(o, AY_F32, t.rank, dim, shift)), t.dtype);
}

/* x / sqrt(sum(x^2) + eps) over the last three dims */
static ay_val l2_norm(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    int rank = ay_mtype(o, x)->rank;
    if (rank < 3) return ay_mfail(o, ALLOY_E_MISMATCH, "x has rank %d, at least 3 is needed", rank);
    span s = {.n = 3, .axes = {rank - 3, rank - 2, rank - 1}};
    ay_val y = ay_adds(G, reduce_by(o, AY_OP_SUM, ay_mul(G, x, x), &s, true), ay_mfloat_or(o, "epsilon", 1e-6));
    return ay_mul(G, x, ay_unary(G, AY_OP_RSQRT, y));
}

/* x / (k + alpha / size * sum of the squares of `size` channels around)^beta */
static ay_val local_response_norm(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t size = ay_mint(o, "size");
    double alpha = ay_mfloat_or(o, "alpha", 1e-4), beta = ay_mfloat_or(o, "beta", 0.75), k = ay_mfloat_or(o, "k", 1);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (t.rank < 3 || t.rank > 4 || size < 1 || size > 65536)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "rank %d, size %lld", t.rank, (long long)size);
    int64_t rest = 1, flat[3];
    for (int i = 2; i < t.rank; i++) rest *= t.dim[i];
    ay_attr at = {0};
    at.pool.kernel[0] = size, at.pool.kernel[1] = 1;
    at.pool.stride[0] = at.pool.stride[1] = 1;
    at.pool.before[0] = (size - 1) / 2, at.pool.after[0] = size / 2;
    at.pool.average = at.pool.count_padding = true;
    flat[0] = t.dim[0], flat[1] = t.dim[1], flat[2] = rest; /* [N, C, S] as an image [N, 1, C, S] */
    int64_t image[4] = {flat[0], 1, flat[1], flat[2]};
    ay_val sq = ay_reshape_to(G, ay_mul(G, x, x), 4, image);
    ay_val mean = ay_reshape_to(G, ay_node_add(G, AY_OP_POOL, &sq, 1, &at, NULL), t.rank, t.dim);
    ay_val den = ay_binary(G, AY_OP_POW, ay_adds(G, ay_muls(G, mean, alpha), k), ay_mscalar(o, t.dtype, beta));
    return ay_div(G, x, den);
}

/* ---- along one axis ---------------------------------------------------------------------------------------------- */

static ay_val cumsum(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr at = {0};
    at.scan.axis = ay_maxis(o, "axis", ay_mint_or(o, "axis", 0), ay_mtype(o, x)->rank);
    at.scan.exclusive = ay_mbool_or(o, "exclusive", false);
    at.scan.reverse = ay_mbool_or(o, "reverse", false);
    return ay_node_add(G, AY_OP_CUMSUM, &x, 1, &at, NULL);
}

static ay_val topk(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr at = {0};
    at.topk.axis = ay_maxis(o, "axis", ay_mint_or(o, "axis", -1), ay_mtype(o, x)->rank);
    at.topk.k = ay_mint_or(o, "k", 1);
    at.topk.largest = !ay_mbool_or(o, "ascending", false);
    bool indices = ay_mbool_or(o, "return_indices", true);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (at.topk.k == -1) at.topk.k = ay_dim(G, x, at.topk.axis);
    if (o->n_out > 2 || (o->n_out == 2 && !indices)) return ay_mfail(o, ALLOY_E_FORMAT, "it has %d outputs", o->n_out);
    if (o->n_out == 2) {
        at.topk.indices = true;
        ay_dtype t = index_dtype(o, "output_indices_dtype");
        o->out[1].kind = AY_M_NODE;
        o->out[1].node = ay_cast(G, ay_node_add(G, AY_OP_TOPK, &x, 1, &at, NULL), t);
    }
    at.topk.indices = false;
    return ay_node_add(G, AY_OP_TOPK, &x, 1, &at, NULL);
}

static ay_val argsort(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr at = {0};
    at.topk.axis = ay_maxis(o, "axis", ay_mint_or(o, "axis", -1), ay_mtype(o, x)->rank);
    at.topk.k = ay_dim(G, x, at.topk.axis);
    at.topk.largest = !ay_mbool_or(o, "ascending", false);
    at.topk.indices = true;
    return ay_node_add(G, AY_OP_TOPK, &x, 1, &at, NULL);
}

static const ay_mrow rows[] = {
    {"reduce_sum", reduce, AY_OP_SUM, 0},
    {"reduce_max", reduce, AY_OP_RMAX, 0},
    {"reduce_min", reduce, AY_OP_RMIN, 0},
    {"reduce_prod", reduce, AY_OP_PROD, 0},
    {"reduce_mean", reduce_mean, 0, 0},
    {"reduce_sum_square", reduce_formed, 0, SUM_SQUARE},
    {"reduce_l2_norm", reduce_formed, 0, L2_NORM},
    {"reduce_l1_norm", reduce_formed, 0, L1_NORM},
    {"reduce_log_sum", reduce_formed, 0, LOG_SUM},
    {"reduce_log_sum_exp", reduce_log_sum_exp, 0, 0},
    {"reduce_argmax", reduce_arg, 0, 1},
    {"reduce_argmin", reduce_arg, 0, 0},
    {"softmax", softmax, 0, 0},
    {"layer_norm", layer_norm, 0, 0},
    {"instance_norm", instance_norm, 0, 0},
    {"batch_norm", batch_norm, 0, 0},
    {"l2_norm", l2_norm, 0, 0},
    {"local_response_norm", local_response_norm, 0, 0},
    {"cumsum", cumsum, 0, 0},
    {"topk", topk, 0, 0},
    {"argsort", argsort, 0, 0},
};
const ay_mtable ay_read_reduce = {rows, sizeof rows / sizeof *rows};
