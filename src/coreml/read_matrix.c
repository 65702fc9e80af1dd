/* SPDX-License-Identifier: MIT
 *
 * Reading products and windows: linear, matmul, einsum, attention, convolutions, pooling.
 * Padding and output sizes: coremltools' mil/ops/defs/_utils.py (aggregated_pad and others), conv.py, pool.py.
 */
#include "coreml/read.h"

#include <math.h>
#include <string.h>

#define G (o->r->g)

/* parameters may be of another float type than x since iOS17 */
static ay_val like(ay_mop *o, ay_val v, ay_val x) {
    return v == AY_NO_VALUE || ay_mbad(o) ? v : ay_cast(G, v, ay_mtype(o, x)->dtype);
}

static ay_val linear(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), w = like(o, ay_mnode(o, "weight"), x), b = like(o, ay_mnode_opt(o, "bias"), x);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (ay_dtype_is_float(ay_mtype(o, x)->dtype)) return ay_linear(G, x, w, b);
    ay_val y = ay_matmul(G, x, w, false, true); /* of integers */
    return b == AY_NO_VALUE ? y : ay_add(G, y, b);
}

/* numpy's rule: a vector becomes a matrix with a dim of 1, which the result loses again */
static ay_val matmul(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), y = ay_mnode(o, "y");
    bool tx = ay_mbool_or(o, "transpose_x", false), ty = ay_mbool_or(o, "transpose_y", false);
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_mvalue *right = ay_marg_opt(o, "y");
    if (right && right->kind != AY_M_NODE) y = like(o, y, x); /* a constant takes the type of what it meets */
    else x = like(o, x, y);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type xt = *ay_mtype(o, x), yt = *ay_mtype(o, y);
    if (xt.rank == 0 || yt.rank == 0) return ay_mfail(o, ALLOY_E_MISMATCH, "a scalar has no rows");
    if (xt.rank == 1) x = ay_reshape(G, x, 2, 1, xt.dim[0]), tx = false;
    if (yt.rank == 1) y = ay_reshape(G, y, 2, yt.dim[0], 1), ty = false;
    ay_val z = ay_matmul(G, x, y, tx, ty);
    if (ay_mbad(o) || (xt.rank > 1 && yt.rank > 1)) return z;
    ay_type t = *ay_mtype(o, z);
    if (yt.rank == 1) t.rank--; /* [.., M, 1] to [.., M] */
    if (xt.rank == 1) {         /* [.., 1, N] to [.., N] */
        if (yt.rank > 1) t.dim[t.rank - 2] = t.dim[t.rank - 1];
        t.rank--;
    }
    return ay_reshape_to(G, z, t.rank, t.dim);
}

/* ---- einsum ------------------------------------------------------------------------------------------------------ */

/** Labels of one operand: their number, and where each letter stands (-1: nowhere). */
typedef struct labels { int n; int at[128]; char label[AY_MAX_RANK]; } labels;

static const char *read_labels(const char *s, labels *l) {
    l->n = 0;
    memset(l->at, -1, sizeof l->at);
    for (; (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == ' '; s++) {
        if (*s == ' ') continue;
        if (l->n == AY_MAX_RANK || l->at[(int)*s] >= 0) return NULL; /* too many, or a diagonal */
        l->at[(int)*s] = l->n;
        l->label[l->n++] = *s;
    }
    return s;
}

static ay_val permuted(ay_mop *o, ay_val x, int n, const int *perm) {
    bool same = true;
    for (int i = 0; i < n; i++) same = same && perm[i] == i;
    if (same || ay_mbad(o)) return x;
    ay_attr at = {0};
    memcpy(at.permute.perm, perm, (size_t)n * sizeof *perm);
    return ay_node_add(G, AY_OP_PERMUTE, &x, 1, &at, NULL);
}

static ay_val shaped(ay_mop *o, ay_val x, int rank, const int64_t *dim) {
    if (x == AY_NO_VALUE || ay_mbad(o)) return AY_NO_VALUE;
    const ay_type *t = ay_mtype(o, x);
    bool same = t->rank == rank && memcmp(t->dim, dim, (size_t)rank * sizeof *dim) == 0;
    return same ? x : ay_reshape_to(G, x, rank, dim);
}

/** Sums out the labels that only this operand has. */
static ay_val sum_alone(ay_mop *o, ay_val x, labels *l, const labels *other, const labels *out) {
    ay_attr at = {0};
    labels kept;
    char text[AY_MAX_RANK + 1];
    int n = 0;
    for (int i = 0; i < l->n; i++) {
        int c = l->label[i];
        if (other->at[c] < 0 && out->at[c] < 0) at.reduce.axes[at.reduce.n++] = i;
        else text[n++] = l->label[i];
    }
    text[n] = 0;
    if (at.reduce.n == 0) return x;
    read_labels(text, &kept);
    *l = kept;
    return ay_node_add(G, AY_OP_SUM, &x, 1, &at, NULL);
}

/** x as [shared.., rows, inner] where the last two are products of the groups `rows` and `inner` of its labels. */
static ay_val as_matrices(ay_mop *o, ay_val x, const labels *l, const char *shared, const char *rows, const char *inner) {
    int perm[AY_MAX_RANK], n = 0;
    int64_t dim[AY_MAX_RANK], groups[2] = {1, 1};
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    int batch = (int)strlen(shared);
    if (batch + 2 > AY_MAX_RANK)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "%d shared dims, at most %d are supported", batch, AY_MAX_RANK - 2);
    for (const char *c = shared; *c; c++) dim[n] = t.dim[l->at[(int)*c]], perm[n++] = l->at[(int)*c];
    for (const char *c = rows; *c; c++) groups[0] *= t.dim[l->at[(int)*c]], perm[n++] = l->at[(int)*c];
    for (const char *c = inner; *c; c++) groups[1] *= t.dim[l->at[(int)*c]], perm[n++] = l->at[(int)*c];
    dim[batch] = groups[0];
    dim[batch + 1] = groups[1];
    return shaped(o, permuted(o, x, n, perm), batch + 2, dim);
}

/** Dims of the letters in `group` from whichever operand has them larger (a dim of 1 broadcasts). */
static void group_dims(const char *group, const labels *a, const ay_type *at, const labels *b, const ay_type *bt,
                       labels *order, int64_t *dim) {
    for (const char *c = group; *c; c++) {
        int64_t da = a->at[(int)*c] >= 0 ? at->dim[a->at[(int)*c]] : 1,
                db = b->at[(int)*c] >= 0 ? bt->dim[b->at[(int)*c]] : 1;
        dim[order->n] = ay_max_i64(da, db);
        order->at[(int)*c] = order->n;
        order->label[order->n++] = *c;
    }
}

static ay_val einsum(ay_mop *o) {
    const char *eq = ay_mstring_or(o, "equation", NULL);
    ay_val *v = NULL;
    int n = ay_mnodes(o, "values", &v);
    labels a, b, out;
    if (ay_mbad(o)) return AY_NO_VALUE;
    const char *s = read_labels(eq, &a);
    s = s && *s == ',' ? read_labels(s + 1, &b) : NULL;
    s = s && s[0] == '-' && s[1] == '>' ? read_labels(s + 2, &out) : NULL;
    if (!s || *s || n != 2)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "equation \"%.60s\" of %d values; two are supported, without diagonals",
                        eq, n);
    if (ay_mtype(o, v[0])->rank != a.n || ay_mtype(o, v[1])->rank != b.n)
        return ay_mfail(o, ALLOY_E_MISMATCH, "equation \"%.60s\" does not have the ranks of its values", eq);
    for (int i = 0; i < out.n; i++)
        if (a.at[(int)out.label[i]] < 0 && b.at[(int)out.label[i]] < 0)
            return ay_mfail(o, ALLOY_E_MISMATCH, "equation \"%.60s\": no value has the output's %c", eq, out.label[i]);
    ay_val x = sum_alone(o, v[0], &a, &b, &out), y = sum_alone(o, v[1], &b, &a, &out);
    if (ay_mbad(o)) return AY_NO_VALUE;
    char shared[8] = "", rows[8] = "", cols[8] = "", inner[8] = ""; /* letters: in both and out, of x, of y, summed */
    for (int i = 0; i < a.n; i++) {
        int c = a.label[i];
        char *to = b.at[c] < 0 ? rows : out.at[c] < 0 ? inner : shared;
        to[strlen(to)] = (char)c;
    }
    for (int i = 0; i < b.n; i++)
        if (a.at[(int)b.label[i]] < 0) cols[strlen(cols)] = b.label[i];
    const ay_type xt = *ay_mtype(o, x), yt = *ay_mtype(o, y);
    labels order = {0};
    int64_t dim[AY_MAX_RANK];
    int perm[AY_MAX_RANK];
    group_dims(shared, &a, &xt, &b, &yt, &order, dim);
    if (strlen(shared) + strlen(rows) + strlen(cols) > AY_MAX_RANK)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "equation \"%.60s\" has too many dims", eq);
    group_dims(rows, &a, &xt, &b, &yt, &order, dim);
    group_dims(cols, &a, &xt, &b, &yt, &order, dim);
    ay_val z = ay_matmul(G, as_matrices(o, x, &a, shared, rows, inner), as_matrices(o, y, &b, shared, inner, cols), false,
                         false);
    for (int i = 0; i < out.n; i++) perm[i] = order.at[(int)out.label[i]];
    return permuted(o, shaped(o, z, order.n, dim), out.n, perm);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static ay_val sdpa(ay_mop *o) {
    ay_val q = ay_mnode(o, "query"), k = ay_mnode(o, "key"), v = ay_mnode(o, "value"), mask = ay_mnode_opt(o, "attn_mask");
    if (ay_mbad(o)) return AY_NO_VALUE;
    return ay_sdpa(G, q, k, v, mask, 1.0 / sqrt((double)ay_dim(G, q, -1)));
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

enum { LARGEST = 1 << 24 }; /* of kernel, stride, dilation, padding: keeps every product below far from overflow */

/** `n` numbers for the spatial dims, or `fallback` for each. */
static bool spatial(ay_mop *o, const char *key, int n, int64_t fallback, int64_t least, int64_t *out) {
    int got = ay_mints(o, key, out, 6);
    if (ay_mbad(o)) return false;
    if (got < 0)
        for (int i = 0; i < n; i++) out[i] = fallback;
    else if (got != n) return ay_mfalse(o, ALLOY_E_MISMATCH, "%s has %d numbers, expected %d", key, got, n);
    for (int i = 0; i < n; i++)
        if (out[i] < least || out[i] > LARGEST)
            return ay_mfalse(o, ALLOY_E_FORMAT, "%s holds %lld", key, (long long)out[i]);
    return true;
}

/** Padding before and after each of `n` spatial dims `in`, for effective kernels `k`. */
static bool padding(ay_mop *o, int n, const int64_t *in, const int64_t *k, const int64_t *stride, int64_t *before,
                    int64_t *after) {
    const char *type = ay_mstring_or(o, "pad_type", "valid");
    int64_t pad[6] = {0};
    bool lower = strcmp(type, "same_lower") == 0, same = lower || strcmp(type, "same") == 0,
         custom = strcmp(type, "custom") == 0;
    if (!same && !custom && strcmp(type, "valid") != 0)
        return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "pad_type is \"%.40s\"", type);
    if (custom && !spatial(o, "pad", 2 * n, 0, 0, pad)) return false;
    for (int i = 0; i < n; i++) {
        if (same) {
            int64_t total = ay_max_i64(0, stride[i] * ay_div_up(in[i], stride[i]) - in[i] + k[i] - stride[i]);
            pad[2 * i] = lower ? total - total / 2 : total / 2;
            pad[2 * i + 1] = total - pad[2 * i];
        }
        before[i] = pad[2 * i];
        after[i] = pad[2 * i + 1];
    }
    return !ay_mbad(o);
}

/** x's spatial rank, 1 to 3, or 0 after a failure. */
static int spatial_rank(ay_mop *o, ay_val x) {
    if (ay_mbad(o)) return 0;
    int rank = ay_mtype(o, x)->rank;
    if (rank >= 3 && rank <= 5) return rank - 2;
    ay_mfail(o, ALLOY_E_MISMATCH, "x has rank %d, expected 3 to 5", rank);
    return 0;
}

/** Strides, dilations, groups and the kernel's reach (dilated). */
static bool conv_common(ay_mop *o, const ay_type *wt, int n, ay_attr *at, int64_t *reach) {
    if (wt->rank != n + 2) return ay_mfalse(o, ALLOY_E_MISMATCH, "weight has rank %d, expected %d", wt->rank, n + 2);
    if (!spatial(o, "strides", n, 1, 1, at->conv.stride) || !spatial(o, "dilations", n, 1, 1, at->conv.dilation))
        return false;
    at->conv.groups = ay_mint_or(o, "groups", 1);
    for (int i = 0; i < n; i++) {
        if (wt->dim[2 + i] > LARGEST)
            return ay_mfalse(o, ALLOY_E_FORMAT, "the kernel has %lld rows", (long long)wt->dim[2 + i]);
        reach[i] = (wt->dim[2 + i] - 1) * at->conv.dilation[i] + 1;
    }
    return !ay_mbad(o);
}

static ay_val conv(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), w = like(o, ay_mnode(o, "weight"), x), b = like(o, ay_mnode_opt(o, "bias"), x);
    int n = spatial_rank(o, x);
    ay_attr at = {0};
    int64_t reach[3];
    if (!n) return AY_NO_VALUE;
    const ay_type xt = *ay_mtype(o, x), wt = *ay_mtype(o, w);
    if (!conv_common(o, &wt, n, &at, reach)) return AY_NO_VALUE;
    if (!padding(o, n, xt.dim + 2, reach, at.conv.stride, at.conv.before, at.conv.after)) return AY_NO_VALUE;
    ay_val in[3] = {x, w, b};
    return ay_node_add(G, AY_OP_CONV, in, b == AY_NO_VALUE ? 2 : 3, &at, NULL);
}

/* the crop is what the full result has too much: by padding, by "same" (out = in * stride), or by output_shape */
static ay_val conv_transpose(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), w = like(o, ay_mnode(o, "weight"), x), b = like(o, ay_mnode_opt(o, "bias"), x);
    int n = spatial_rank(o, x);
    ay_attr at = {0};
    int64_t reach[3], out[5], pad[6] = {0};
    if (!n) return AY_NO_VALUE;
    const ay_type xt = *ay_mtype(o, x), wt = *ay_mtype(o, w);
    if (!conv_common(o, &wt, n, &at, reach)) return AY_NO_VALUE;
    const char *type = ay_mstring_or(o, "pad_type", "valid");
    bool same = strcmp(type, "same") == 0, custom = strcmp(type, "custom") == 0, given = ay_mhas(o, "output_shape");
    if (!same && !custom && strcmp(type, "valid") != 0)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "pad_type is \"%.40s\"", type);
    if (custom && !spatial(o, "pad", 2 * n, 0, 0, pad)) return AY_NO_VALUE;
    if (given && !ay_mints_need(o, "output_shape", out, n + 2, 5)) return AY_NO_VALUE;
    for (int i = 0; i < n; i++) {
        int64_t full = (xt.dim[2 + i] - 1) * at.conv.stride[i] + reach[i];
        int64_t size = given ? out[2 + i] : same ? xt.dim[2 + i] * at.conv.stride[i] : full - pad[2 * i] - pad[2 * i + 1];
        if (size < 1 || size > full + LARGEST)
            return ay_mfail(o, ALLOY_E_MISMATCH, "the output has %lld rows in spatial dim %d", (long long)size, i);
        at.conv.before[i] = same ? ay_max_i64(0, full - size) / 2 : pad[2 * i];
        at.conv.after[i] = full - size - at.conv.before[i];
    }
    ay_val in[3] = {x, w, b};
    return ay_node_add(G, AY_OP_CONV_TRANSPOSE, in, b == AY_NO_VALUE ? 2 : 3, &at, NULL);
}

/** How far beyond its padded end the input must reach for the windows that ceil_mode adds. */
static int64_t ceil_extra(int64_t in, int64_t before, int64_t after, int64_t k, int64_t s) {
    int64_t out = (in + before + after - k + s - 1) / s + 1;
    if (before + after > 0 && (out - 1) * s >= in + (before + after) / 2) out--;
    return ay_max_i64(0, (out - 1) * s + k - in - before - after);
}

enum { POOL_MAX, POOL_AVERAGE, POOL_L2 };
static ay_val pool(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int n = spatial_rank(o, x), form = o->row->arg;
    ay_attr at = {0}, grow = {0};
    bool extra = false;
    if (!n) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (!spatial(o, "kernel_sizes", n, 0, 1, at.pool.kernel) || !spatial(o, "strides", n, 1, 1, at.pool.stride))
        return AY_NO_VALUE;
    if (!padding(o, n, t.dim + 2, at.pool.kernel, at.pool.stride, at.pool.before, at.pool.after)) return AY_NO_VALUE;
    at.pool.average = form != POOL_MAX;
    at.pool.count_padding =
        form == POOL_L2 || (form == POOL_AVERAGE && !ay_mbool_or(o, "exclude_padding_from_average", false));
    bool ceil_mode = ay_mbool_or(o, "ceil_mode", false);
    for (int i = 0; i < n && ceil_mode; i++) {
        grow.pad.before[2 + i] = at.pool.before[i];
        grow.pad.after[2 + i] = at.pool.after[i];
        int64_t more = ceil_extra(t.dim[2 + i], at.pool.before[i], at.pool.after[i], at.pool.kernel[i], at.pool.stride[i]);
        extra = extra || more > 0;
        at.pool.after[i] += more;
    }
    double area = 1;
    for (int i = 0; i < n; i++) area *= (double)at.pool.kernel[i];
    if (form == POOL_L2) x = ay_mul(G, x, x);
    if (extra && form == POOL_AVERAGE &&
        at.pool.count_padding) { /* given padding counts, what ceil_mode adds does not: so pad first */
        x = ay_node_add(G, AY_OP_PAD, &x, 1, &grow, NULL);
        for (int i = 0; i < n; i++) at.pool.after[i] -= grow.pad.after[2 + i], at.pool.before[i] = 0;
        at.pool.count_padding = false;
    }
    ay_val y = ay_node_add(G, AY_OP_POOL, &x, 1, &at, NULL);
    return form == POOL_L2 ? ay_unary(G, AY_OP_SQRT, ay_muls(G, y, area)) : y;
}

static const ay_mrow rows[] = {
    {"linear", linear, 0, 0},
    {"matmul", matmul, 0, 0},
    {"einsum", einsum, 0, 0},
    {"scaled_dot_product_attention", sdpa, 0, 0},
    {"conv", conv, 0, 0},
    {"conv_transpose", conv_transpose, 0, 0},
    {"max_pool", pool, 0, POOL_MAX},
    {"avg_pool", pool, 0, POOL_AVERAGE},
    {"l2_pool", pool, 0, POOL_L2},
};
const ay_mtable ay_read_matrix = {rows, sizeof rows / sizeof *rows};
