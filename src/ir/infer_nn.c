/* SPDX-License-Identifier: MIT
 *
 * Inference for products, windows and composites: what networks are made of.
 */
#include "ir/infer.h"

#include <inttypes.h>
#include <math.h>

static alloy_status floats(const ay_graph *g, const ay_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        AY_TRY(ay_infer_float(g, n, i));
        if (i) AY_TRY(ay_infer_same_dtype(g, n, 0, i));
    }
    return ALLOY_OK;
}

/* x, and weight and bias that may be stored in another float type than x (as MIL's products allow from opset 7 on). */
static alloy_status product_floats(const ay_graph *g, const ay_node *n) {
    for (int i = 0; i < n->n_in; i++) {
        AY_TRY(ay_infer_float(g, n, i));
        if (i > 1) AY_TRY(ay_infer_same_dtype(g, n, 1, i));
    }
    return ALLOY_OK;
}

/* Two shapes that should have met. */
static alloy_status clash(const ay_graph *g, const ay_node *n, const ay_type *x, const ay_type *y, const char *why) {
    char a[160], b[160];
    return ay_infer_fail(g, n, "%s and %s: %s", ay_type_text(x, a), ay_type_text(y, b), why);
}

static alloy_status vector_of(const ay_graph *g, const ay_node *n, int i, int64_t length, const char *what) {
    char text[160];
    const ay_type *t = ay_in_type(g, n, i);
    if (t->rank == 1 && t->dim[0] == length) return ALLOY_OK;
    return ay_infer_fail(g, n, "%s must be [%" PRId64 "], found %s", what, length, ay_type_text(t, text));
}

/* Broadcasts all but the last two dims of x and y; `out` gets rank and those dims. */
static bool batch_dims(const ay_type *x, const ay_type *y, ay_type *out) {
    ay_type a = *x, b = *y;
    a.rank -= 2;
    b.rank -= 2;
    if (!ay_broadcast(&a, &b, out)) return false;
    out->rank += 2;
    return true;
}

alloy_status ay_infer_matmul(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0), *y = ay_in_type(g, n, 1);
    if (x->dtype == AY_BOOL) return ay_infer_fail(g, n, "inputs must be tensors of numbers, found bool");
    AY_TRY(ay_infer_same_dtype(g, n, 0, 1));
    if (x->rank < 2 || y->rank < 2) return clash(g, n, x, y, "both need at least rank 2");
    bool ta = n->attr.matmul.ta, tb = n->attr.matmul.tb;
    int64_t kx = x->dim[x->rank - (ta ? 2 : 1)], ky = y->dim[y->rank - (tb ? 1 : 2)];
    ay_type out = {.dtype = x->dtype};
    if (kx != ky) {
        return clash(g, n, x, y, ta ? (tb ? "inner dims differ (both transposed)" : "inner dims differ (first transposed)")
                                    : (tb ? "inner dims differ (second transposed)" : "inner dims differ"));
    }
    if (!batch_dims(x, y, &out)) return clash(g, n, x, y, "leading dims do not broadcast");
    out.dim[out.rank - 2] = x->dim[x->rank - (ta ? 1 : 2)];
    out.dim[out.rank - 1] = y->dim[y->rank - (tb ? 2 : 1)];
    n->type = out;
    return ALLOY_OK;
}

/* Window numbers in sane ranges, so that no product below can overflow. */
static bool sane(int64_t v, int64_t least) { return v >= least && v <= (1 << 24); }

static alloy_status spatial_rank(const ay_graph *g, const ay_node *n, const ay_type *x) {
    char text[160];
    if (ay_spatial(x) >= 1 && ay_spatial(x) <= 3) return ALLOY_OK;
    return ay_infer_fail(g, n, "input must be [N, C] and 1 to 3 spatial dims, found %s", ay_type_text(x, text));
}

alloy_status ay_infer_conv(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0), *w = ay_in_type(g, n, 1);
    AY_TRY(product_floats(g, n));
    AY_TRY(spatial_rank(g, n, x));
    int64_t groups = n->attr.conv.groups;
    if (groups < 1 || x->dim[1] % groups || w->rank != x->rank || w->dim[0] % groups || w->dim[1] != x->dim[1] / groups) {
        char a[160], b[160];
        return ay_infer_fail(g, n, "%s with weight %s in %" PRId64 " groups: weight must be [O, C/groups, kernel...]",
                             ay_type_text(x, a), ay_type_text(w, b), groups);
    }
    if (n->n_in > 2) AY_TRY(vector_of(g, n, 2, w->dim[0], "bias"));
    ay_type out = {.dtype = x->dtype, .rank = x->rank, .dim = {x->dim[0], w->dim[0]}};
    for (int i = 0; i < ay_spatial(x); i++) {
        int64_t s = n->attr.conv.stride[i], d = n->attr.conv.dilation[i], b = n->attr.conv.before[i],
                a = n->attr.conv.after[i];
        if (!sane(s, 1) || !sane(d, 1) || !sane(b, 0) || !sane(a, 0) || !sane(w->dim[2 + i], 1)) {
            return ay_infer_fail(g, n, "stride %" PRId64 ", dilation %" PRId64 ", padding %" PRId64 " and %" PRId64
                                       " of spatial dim %d are out of range", s, d, b, a, i);
        }
        int64_t room = x->dim[2 + i] + b + a - (d * (w->dim[2 + i] - 1) + 1);
        if (room < 0) return clash(g, n, x, w, "the padded input is smaller than the kernel");
        out.dim[2 + i] = room / s + 1;
    }
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_conv_transpose(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0), *w = ay_in_type(g, n, 1);
    AY_TRY(product_floats(g, n));
    AY_TRY(spatial_rank(g, n, x));
    int64_t groups = n->attr.conv.groups, channels;
    if (groups < 1 || w->rank != x->rank || w->dim[0] != x->dim[1] || x->dim[1] % groups ||
        __builtin_mul_overflow(w->dim[1], groups, &channels)) {
        char a[160], b[160];
        return ay_infer_fail(g, n, "%s with weight %s in %" PRId64 " groups: weight must be [C, O/groups, kernel...]",
                             ay_type_text(x, a), ay_type_text(w, b), groups);
    }
    if (n->n_in > 2) AY_TRY(vector_of(g, n, 2, channels, "bias"));
    ay_type out = {.dtype = x->dtype, .rank = x->rank, .dim = {x->dim[0], channels}};
    for (int i = 0; i < ay_spatial(x); i++) {
        int64_t s = n->attr.conv.stride[i], d = n->attr.conv.dilation[i], b = n->attr.conv.before[i],
                a = n->attr.conv.after[i];
        /* a negative crop after is torch's output_padding: rows that only the bias reaches */
        if (!sane(s, 1) || !sane(d, 1) || !sane(b, 0) || !sane(a, 1 - ay_max_i64(s, d)) || !sane(w->dim[2 + i], 1) ||
            !sane(x->dim[2 + i], 1)) {
            return ay_infer_fail(g, n, "stride %" PRId64 ", dilation %" PRId64 ", crop %" PRId64 " and %" PRId64
                                       " of spatial dim %d are out of range", s, d, b, a, i);
        }
        out.dim[2 + i] = (x->dim[2 + i] - 1) * s + d * (w->dim[2 + i] - 1) + 1 - b - a;
        if (out.dim[2 + i] < 1) return clash(g, n, x, w, "nothing is left after the crop");
    }
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_pool(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(floats(g, n));
    AY_TRY(spatial_rank(g, n, x));
    ay_type out = *x;
    for (int i = 0; i < ay_spatial(x); i++) {
        int64_t k = n->attr.pool.kernel[i], s = n->attr.pool.stride[i], b = n->attr.pool.before[i],
                a = n->attr.pool.after[i];
        /* padding below the kernel: then every window has at least one real element */
        if (!sane(k, 1) || !sane(s, 1) || b < 0 || b >= k || a < 0 || a >= k || x->dim[2 + i] + b + a < k) {
            return ay_infer_fail(g, n, "window %" PRId64 ", stride %" PRId64 ", padding %" PRId64 " and %" PRId64
                                       " do not fit spatial dim %d of %s", k, s, b, a, i, ay_type_text(x, text));
        }
        out.dim[2 + i] = (x->dim[2 + i] + b + a - k) / s + 1;
    }
    n->type = out;
    return ALLOY_OK;
}

/* ---- composites ---------------------------------------------------------------------------------------------------- */

alloy_status ay_infer_linear(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0), *w = ay_in_type(g, n, 1);
    AY_TRY(product_floats(g, n));
    if (x->rank < 1 || w->rank != 2 || w->dim[1] != x->dim[x->rank - 1]) {
        return clash(g, n, x, w, "weight must be [out, in] with the input's last dim as in");
    }
    if (n->n_in > 2) AY_TRY(vector_of(g, n, 2, w->dim[0], "bias"));
    ay_type out = *x;
    out.dim[x->rank - 1] = w->dim[0];
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_softmax(const ay_graph *g, ay_node *n) {
    AY_TRY(floats(g, n));
    n->type = *ay_in_type(g, n, 0);
    return ALLOY_OK;
}

alloy_status ay_infer_gelu(const ay_graph *g, ay_node *n) {
    if ((unsigned)n->attr.gelu.mode > AY_GELU_SIGMOID)
        return ay_infer_fail(g, n, "no mode has number %d", (int)n->attr.gelu.mode);
    return ay_infer_softmax(g, n);
}

static alloy_status norm_eps(const ay_graph *g, const ay_node *n) {
    AY_TRY(floats(g, n));
    if (n->attr.norm.eps >= 0 && isfinite(n->attr.norm.eps)) return ALLOY_OK;
    return ay_infer_fail(g, n, "eps = %g must be finite and not negative", n->attr.norm.eps);
}

alloy_status ay_infer_rms_norm(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(norm_eps(g, n));
    if (x->rank < 1) return ay_infer_fail(g, n, "a scalar has no last dim");
    if (n->n_in > 1) AY_TRY(vector_of(g, n, 1, x->dim[x->rank - 1], "weight"));
    n->type = *x;
    return ALLOY_OK;
}

alloy_status ay_infer_layer_norm(const ay_graph *g, ay_node *n) {
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(norm_eps(g, n));
    if (n->attr.norm.n < 1) return ay_infer_fail(g, n, "no axis to normalise over");
    ay_type part = {.dtype = x->dtype, .rank = n->attr.norm.n};
    for (int i = 0; i < part.rank; i++) {
        part.dim[i] = x->dim[n->attr.norm.axes[i]];
        if (i && n->attr.norm.axes[i] <= n->attr.norm.axes[i - 1]) return ay_infer_fail(g, n, "axes must ascend");
    }
    for (int i = 1; i < n->n_in; i++) {
        if (!ay_type_equal(ay_in_type(g, n, i), &part)) {
            return clash(g, n, ay_in_type(g, n, i), &part, i == 1 ? "weight must have the shape of the axes"
                                                                   : "bias must have the shape of the axes");
        }
    }
    n->type = *x;
    return ALLOY_OK;
}

alloy_status ay_infer_group_norm(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(norm_eps(g, n));
    int64_t groups = n->attr.norm.groups;
    if (x->rank < 2 || groups < 1 || x->dim[1] % groups) {
        return ay_infer_fail(g, n, "%s in %" PRId64 " groups: must be [N, C, ...] with C a multiple of the groups",
                             ay_type_text(x, text), groups);
    }
    for (int i = 1; i < n->n_in; i++) AY_TRY(vector_of(g, n, i, x->dim[1], i == 1 ? "weight" : "bias"));
    n->type = *x;
    return ALLOY_OK;
}

alloy_status ay_infer_rope(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(floats(g, n));
    if (x->rank < 1 || x->dim[x->rank - 1] % 2) {
        return ay_infer_fail(g, n, "%s must have an even last dim", ay_type_text(x, text));
    }
    for (int i = 1; i < 3; i++) {
        ay_type met = {.dtype = x->dtype};
        if (!ay_broadcast(x, ay_in_type(g, n, i), &met) || !ay_type_equal(&met, x)) {
            return clash(g, n, x, ay_in_type(g, n, i),
                         i == 1 ? "cos does not broadcast to the input" : "sin does not broadcast to the input");
        }
    }
    n->type = *x;
    return ALLOY_OK;
}

alloy_status ay_infer_sdpa(const ay_graph *g, ay_node *n) {
    const ay_type *q = ay_in_type(g, n, 0), *k = ay_in_type(g, n, 1), *v = ay_in_type(g, n, 2);
    for (int i = 0; i < 3; i++) {
        AY_TRY(ay_infer_float(g, n, i));
        AY_TRY(ay_infer_same_dtype(g, n, 0, i));
    }
    if (!isfinite(n->attr.sdpa.scale)) return ay_infer_fail(g, n, "scale = %g is not finite", n->attr.sdpa.scale);
    if (q->rank < 2 || k->rank < 2 || v->rank < 2) return clash(g, n, q, k, "q, k and v need at least rank 2");
    if (q->dim[q->rank - 1] != k->dim[k->rank - 1]) return clash(g, n, q, k, "the last dims of q and k differ");
    if (k->dim[k->rank - 2] != v->dim[v->rank - 2]) return clash(g, n, k, v, "k and v differ in length");
    ay_type logits = {.dtype = q->dtype}, out = {.dtype = q->dtype};
    if (!batch_dims(q, k, &logits)) return clash(g, n, q, k, "leading dims do not broadcast");
    logits.dim[logits.rank - 2] = q->dim[q->rank - 2];
    logits.dim[logits.rank - 1] = k->dim[k->rank - 2];
    if (!batch_dims(&logits, v, &out)) return clash(g, n, &logits, v, "leading dims do not broadcast");
    out.dim[out.rank - 2] = q->dim[q->rank - 2];
    out.dim[out.rank - 1] = v->dim[v->rank - 1];
    if (n->n_in > 3) {
        const ay_type *mask = ay_in_type(g, n, 3);
        ay_type met = {.dtype = q->dtype};
        if (mask->dtype != AY_BOOL) AY_TRY(ay_infer_same_dtype(g, n, 0, 3));
        if (!ay_broadcast(&logits, mask, &met) || !ay_type_equal(&met, &logits)) {
            return clash(g, n, &logits, mask, "the mask does not broadcast to the logits");
        }
    }
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_upsample(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    AY_TRY(floats(g, n));
    int64_t fh = n->attr.upsample.fh, fw = n->attr.upsample.fw;
    if (x->rank < 2 || !sane(fh, 1) || !sane(fw, 1)) {
        return ay_infer_fail(g, n, "%s by %" PRId64 " and %" PRId64 ": needs rank 2 and whole factors",
                             ay_type_text(x, text), fh, fw);
    }
    n->type = *x;
    if (__builtin_mul_overflow(x->dim[x->rank - 2], fh, &n->type.dim[x->rank - 2]) ||
        __builtin_mul_overflow(x->dim[x->rank - 1], fw, &n->type.dim[x->rank - 1])) {
        return ay_infer_fail(g, n, "%s grows out of bounds", ay_type_text(x, text));
    }
    return ALLOY_OK;
}

alloy_status ay_infer_dequant(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    if (!ay_is_int(x->dtype)) return ay_infer_fail(g, n, "input must be of integers, found %s", ay_type_text(x, text));
    AY_TRY(ay_infer_float(g, n, 1));
    for (int i = 1; i < n->n_in; i++) {
        const ay_type *t = ay_in_type(g, n, i);
        if (t->rank == 0 && (i == 1 || ay_in_type(g, n, 1)->rank == 0)) continue;
        AY_TRY(vector_of(g, n, i, x->rank ? x->dim[n->attr.axis] : 1, i == 1 ? "scale" : "zero point"));
    }
    if (n->n_in > 2 && ay_in_type(g, n, 2)->dtype != x->dtype) AY_TRY(ay_infer_same_dtype(g, n, 1, 2));
    n->type = *x;
    n->type.dtype = ay_in_type(g, n, 1)->dtype;
    return ALLOY_OK;
}
