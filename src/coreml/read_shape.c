/* SPDX-License-Identifier: MIT
 *
 * Reading operations that move elements or make them from shapes: reshape, transpose, concat, split, slices, tile, pad,
 * fill, range, masks. Formulas: coremltools' mil/ops/defs (tensor_transformation.py, tensor_operation.py).
 */
#include "coreml/read.h"

#include <math.h>
#include <string.h>

#define G (o->r->g)

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

/* 0 takes the dim of x: at the same place before iOS17, counted from the right since then (1 where x has none) */
static ay_val reshape(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t dim[AY_MAX_RANK];
    int n = ay_mints(o, "shape", dim, AY_MAX_RANK);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (n < 0) return ay_mfail(o, ALLOY_E_FORMAT, "parameter shape is missing");
    const ay_type t = *ay_mtype(o, x);
    for (int i = 0; i < n; i++) {
        int from = o->r->opset >= 7 ? t.rank - n + i : i;
        if (dim[i] == 0 && o->r->opset < 7 && n != t.rank)
            return ay_mfail(o, ALLOY_E_FORMAT, "shape holds 0 but has not x's rank");
        if (dim[i] == 0) dim[i] = from >= 0 ? t.dim[from] : 1;
    }
    return ay_reshape_to(G, x, n, dim);
}

static ay_val transpose(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    int rank = ay_mtype(o, x)->rank;
    int64_t perm[AY_MAX_RANK];
    ay_attr at = {0};
    if (!ay_mints_need(o, "perm", perm, rank, AY_MAX_RANK) || !ay_maxes(o, "perm", perm, rank, rank)) return AY_NO_VALUE;
    for (int i = 0; i < rank; i++) at.permute.perm[i] = (int)perm[i];
    return rank ? ay_node_add(G, AY_OP_PERMUTE, &x, 1, &at, NULL) : x;
}

static ay_val expand_dims(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t axes[AY_MAX_RANK], dim[AY_MAX_RANK] = {0};
    int n = ay_mints(o, "axes", axes, AY_MAX_RANK);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (n < 0 || t.rank + n > AY_MAX_RANK)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "%d axes for a value of rank %d", n, t.rank);
    if (!ay_maxes(o, "axes", axes, n, t.rank + n)) return AY_NO_VALUE;
    for (int i = 0; i < n; i++) dim[axes[i]] = 1;
    for (int i = 0, from = 0; i < t.rank + n; i++)
        if (dim[i] == 0) dim[i] = t.dim[from++];
    return ay_reshape_to(G, x, t.rank + n, dim);
}

/* only dims of 1 go, also when another is named */
static ay_val squeeze(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t axes[AY_MAX_RANK], dim[AY_MAX_RANK];
    bool named[AY_MAX_RANK] = {false};
    int n = ay_mints(o, "axes", axes, AY_MAX_RANK), rank = 0;
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (n > 0 && !ay_maxes(o, "axes", axes, n, t.rank)) return AY_NO_VALUE;
    for (int i = 0; i < n; i++) named[axes[i]] = true;
    for (int i = 0; i < t.rank; i++)
        if (t.dim[i] != 1 || (n >= 0 && !named[i])) dim[rank++] = t.dim[i];
    return ay_reshape_to(G, x, rank, dim);
}

static ay_val flatten2d(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    int64_t axis = ay_mint_or(o, "axis", 1), before = 1;
    if (axis < 0) axis += t.rank;
    if (axis < 0 || axis > t.rank)
        return ay_mfail(o, ALLOY_E_FORMAT, "axis is %lld for a value of rank %d", (long long)axis, t.rank);
    for (int i = 0; i < axis; i++) before *= t.dim[i];
    return ay_reshape(G, x, 2, before, -1);
}

/* static here, so its result is numbers */
static ay_val shape(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o) || o->n_out < 1) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    int32_t *v = ay_mmake(o, t.rank, AY_I32);
    if (!v) return AY_NO_VALUE;
    for (int i = 0; i < t.rank; i++) v[i] = (int32_t)ay_min_i64(t.dim[i], INT32_MAX);
    ay_mset_raw(&o->out[0], &(ay_raw){.dtype = AY_I32, .rank = 1, .dim = {t.rank}, .count = t.rank, .data = v});
    return AY_NO_VALUE;
}

/* ---- joining and cutting ----------------------------------------------------------------------------------------- */

/** All values with a new dim of 1 at `axis`, then joined there. */
static ay_val stacked(ay_mop *o, int n, const ay_val *v, int axis) {
    ay_val *one = ay_alloc(G->arena, (size_t)n * sizeof *one);
    if (!one) return ay_mfail(o, ALLOY_E_NOMEM, "out of memory");
    const ay_type t = *ay_mtype(o, v[0]);
    int64_t dim[AY_MAX_RANK];
    if (t.rank == AY_MAX_RANK) return ay_mfail(o, ALLOY_E_UNSUPPORTED, "the result's rank passes %d", AY_MAX_RANK);
    for (int i = 0; i <= t.rank; i++) dim[i] = i == axis ? 1 : t.dim[i - (i > axis)];
    for (int i = 0; i < n; i++) one[i] = ay_reshape_to(G, v[i], t.rank + 1, dim);
    return ay_concat_n(G, axis, n, one);
}

static ay_val stack(ay_mop *o) {
    ay_val *v = NULL;
    int n = ay_mnodes(o, "values", &v);
    if (ay_mbad(o)) return AY_NO_VALUE;
    int axis = ay_maxis(o, "axis", ay_mint(o, "axis"), ay_mtype(o, v[0])->rank + 1);
    return ay_mbad(o) ? AY_NO_VALUE : stacked(o, n, v, axis);
}

static ay_val concat(ay_mop *o) {
    ay_val *v = NULL;
    int n = ay_mnodes(o, "values", &v);
    bool interleave = ay_mbool_or(o, "interleave", false);
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_type t = *ay_mtype(o, v[0]);
    if (t.rank == 0) return stacked(o, n, v, 0); /* scalars join to a vector */
    int axis = ay_maxis(o, "axis", ay_mint(o, "axis"), t.rank);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (!interleave) return ay_concat_n(G, axis, n, v);
    ay_val s = stacked(o, n, v, axis + 1); /* [.., d, n, ..] read as [.., d * n, ..] */
    t.dim[axis] *= n;
    return ay_reshape_to(G, s, t.rank, t.dim);
}

static ay_val split(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    int axis = ay_maxis(o, "axis", ay_mint(o, "axis"), t.rank);
    int n = o->n_out;
    int64_t *sizes = ay_alloc(G->arena, ((size_t)n + 1) * sizeof *sizes);
    if (!sizes) return ay_mfail(o, ALLOY_E_NOMEM, "out of memory");
    int given = ay_mints(o, "split_sizes", sizes, n);
    int64_t parts = ay_mint_or(o, "num_splits", given);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (n < 1 || parts != n || (given >= 0 && given != n))
        return ay_mfail(o, ALLOY_E_MISMATCH, "%d outputs for %lld parts", n, (long long)parts);
    if (given < 0 && t.dim[axis] % n)
        return ay_mfail(o, ALLOY_E_MISMATCH, "dim %d is %lld, which %d parts do not divide", axis, (long long)t.dim[axis],
                        n);
    int64_t begin[AY_MAX_RANK] = {0}, count[AY_MAX_RANK];
    memcpy(count, t.dim, sizeof count);
    for (int i = 0; i < n; i++) {
        count[axis] = given < 0 ? t.dim[axis] / n : sizes[i];
        if (count[axis] < 1 || count[axis] > t.dim[axis] - begin[axis])
            return ay_mfail(o, ALLOY_E_MISMATCH, "part %d has %lld of dim %d's %lld", i, (long long)count[axis], axis,
                            (long long)t.dim[axis]);
        o->out[i].kind = AY_M_NODE;
        o->out[i].node = ay_mslice(o, x, begin, NULL, count);
        begin[axis] += count[axis];
    }
    if (begin[axis] != t.dim[axis])
        return ay_mfail(o, ALLOY_E_MISMATCH, "split_sizes add up to %lld, dim %d is %lld", (long long)begin[axis], axis,
                        (long long)t.dim[axis]);
    return AY_NO_VALUE;
}

/* ---- slices ------------------------------------------------------------------------------------------------------ */

typedef struct window {
    int64_t begin[AY_MAX_RANK], stride[AY_MAX_RANK], count[AY_MAX_RANK];
    bool gone[AY_MAX_RANK];
} window;

static void flags(ay_mop *o, const char *key, int rank, bool *out) {
    int64_t v[AY_MAX_RANK] = {0};
    if (ay_mhas(o, key)) ay_mints_need(o, key, v, rank, AY_MAX_RANK);
    for (int i = 0; i < rank; i++) out[i] = v[i] != 0;
}

/** begin, end, stride and masks of slice_by_index and slice_update, as numpy reads them. */
static bool get_window(ay_mop *o, const ay_type *t, window *w) {
    int64_t begin[AY_MAX_RANK], end[AY_MAX_RANK];
    bool no_begin[AY_MAX_RANK], no_end[AY_MAX_RANK];
    int rank = t->rank;
    if (!ay_mints_need(o, "begin", begin, rank, AY_MAX_RANK) || !ay_mints_need(o, "end", end, rank, AY_MAX_RANK))
        return false;
    for (int i = 0; i < rank; i++) w->stride[i] = 1;
    if (ay_mhas(o, "stride")) ay_mints_need(o, "stride", w->stride, rank, AY_MAX_RANK);
    flags(o, "begin_mask", rank, no_begin);
    flags(o, "end_mask", rank, no_end);
    flags(o, "squeeze_mask", rank, w->gone);
    for (int i = 0; i < rank && !ay_mbad(o); i++) {
        int64_t d = t->dim[i], s = w->stride[i], b = begin[i], e = end[i];
        if (w->gone[i]) {
            if (no_begin[i]) b = 0;
            if (b < -d || b >= d)
                return ay_mfalse(o, ALLOY_E_MISMATCH, "begin is %lld in dim %d of %lld", (long long)b, i, (long long)d);
            w->begin[i] = b < 0 ? b + d : b;
            w->stride[i] = w->count[i] = 1;
            continue;
        }
        if (s == 0 || s < -INT32_MAX || s > INT32_MAX)
            return ay_mfalse(o, ALLOY_E_FORMAT, "stride is %lld", (long long)s);
        int64_t least = s < 0 ? -1 : 0, most = s < 0 ? d - 1 : d;
        b = no_begin[i] ? (s < 0 ? d - 1 : 0) : ay_max_i64(least, ay_min_i64(most, b < 0 ? b + d : b));
        e = no_end[i] ? (s < 0 ? -1 : d) : ay_max_i64(least, ay_min_i64(most, e < 0 ? e + d : e));
        int64_t n = s > 0 ? ay_div_up(e - b, s) : ay_div_up(b - e, -s);
        if ((s > 0 ? e <= b : b <= e) || n < 1)
            return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "nothing is left of dim %d (%lld) between %lld and %lld by %lld", i,
                             (long long)d, (long long)begin[i], (long long)end[i], (long long)s);
        w->begin[i] = b;
        w->count[i] = n;
    }
    return !ay_mbad(o);
}

static ay_val slice_by_index(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    window w;
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (!get_window(o, &t, &w)) return AY_NO_VALUE;
    ay_val y = ay_mslice(o, x, w.begin, w.stride, w.count);
    int64_t dim[AY_MAX_RANK];
    int rank = 0;
    for (int i = 0; i < t.rank; i++)
        if (!w.gone[i]) dim[rank++] = w.count[i];
    return rank == t.rank ? y : ay_reshape_to(G, y, rank, dim);
}

/* begin may be known only when the model runs: then each dim is gathered at begin + 0, 1, 2 .. */
static ay_val slice_by_size(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t begin[AY_MAX_RANK] = {0}, size[AY_MAX_RANK];
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    ay_mvalue *bv = ay_marg(o, "begin");
    const float *f = NULL;
    int64_t n = 0;
    if (!ay_mints_need(o, "size", size, t.rank, AY_MAX_RANK)) return AY_NO_VALUE;
    bool known = ay_mvalue_known(o, bv, &f, &n);
    if (known) ay_mints_need(o, "begin", begin, t.rank, AY_MAX_RANK);
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_val at = known ? AY_NO_VALUE : ay_mvalue_node(o, bv);
    if (!known && (ay_mbad(o) || ay_mtype(o, at)->rank != 1 || ay_mtype(o, at)->dim[0] != t.rank))
        return ay_mfail(o, ALLOY_E_MISMATCH, "begin must have %d numbers", t.rank);
    for (int i = 0; i < t.rank; i++) {
        if (begin[i] < 0) begin[i] += t.dim[i];
        if (begin[i] < 0 || begin[i] > t.dim[i])
            return ay_mfail(o, ALLOY_E_MISMATCH, "begin leaves dim %d of %lld", i, (long long)t.dim[i]);
        if (size[i] == -1) size[i] = known ? t.dim[i] - begin[i] : 0;
        if (size[i] < 1 || size[i] > t.dim[i] - begin[i])
            return ay_mfail(o, ALLOY_E_MISMATCH, "%lld of dim %d (%lld) from %lld", (long long)size[i], i,
                            (long long)t.dim[i], (long long)begin[i]);
    }
    if (known) return ay_mslice(o, x, begin, NULL, size);
    for (int i = 0; i < t.rank; i++)
        if (size[i] != t.dim[i])
            x = ay_gather(G, x, ay_add(G, ay_cast(G, ay_slice(G, at, 0, i, i + 1), AY_I32), ay_marange(o, 0, size[i])),
                          i);
    return x;
}

/** x with s - 1 zeros after each element along `axis` (for slice_update by a stride). */
static ay_val spread(ay_mop *o, ay_val x, int axis, int64_t s) {
    const ay_type t = *ay_mtype(o, x);
    ay_type out = t;
    int64_t before = 1, after = 1;
    for (int i = 0; i < t.rank; i++) *(i < axis ? &before : &after) *= i == axis ? 1 : t.dim[i];
    ay_attr at = {0};
    at.pad.after[2] = s - 1;
    ay_val y = ay_reshape(G, x, 4, before, t.dim[axis], 1, after);
    y = ay_node_add(G, AY_OP_PAD, &y, 1, &at, NULL);
    out.dim[axis] = t.dim[axis] * s;
    y = ay_reshape_to(G, y, t.rank, out.dim);
    int64_t begin[AY_MAX_RANK] = {0};
    out.dim[axis] -= s - 1;
    return ay_mslice(o, y, begin, NULL, out.dim);
}

/** True where dim `axis` of a window lies, as a vector that broadcasts along it. */
static ay_val inside(ay_mop *o, const ay_type *t, int axis, int64_t begin, int64_t stride, int64_t count) {
    uint8_t *m = ay_mmake(o, t->dim[axis], AY_BOOL);
    if (!m) return AY_NO_VALUE;
    for (int64_t i = 0; i < count; i++) m[begin + i * stride] = 1;
    ay_type mt = {.dtype = AY_BOOL, .rank = t->rank};
    for (int i = 0; i < t->rank; i++) mt.dim[i] = i == axis ? t->dim[i] : 1;
    return ay_const_data(G, mt, m);
}

/* the update is spread and padded to x's shape, then chosen where the window is */
static ay_val slice_update(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), u = ay_mnode(o, "update"), mask = AY_NO_VALUE;
    window w;
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (!get_window(o, &t, &w)) return AY_NO_VALUE;
    ay_attr at = {0}, flip = {0};
    u = ay_reshape_to(G, u, t.rank, w.count); /* dims that squeeze_mask takes away come back */
    for (int i = 0; i < t.rank && !ay_mbad(o); i++) {
        int64_t s = w.stride[i] < 0 ? -w.stride[i] : w.stride[i];
        if (w.stride[i] < 0) {
            flip.reduce.axes[flip.reduce.n++] = i;
            w.begin[i] += (w.count[i] - 1) * w.stride[i];
        }
        if (s > 1 && w.count[i] > 1) u = spread(o, u, i, s);
        at.pad.before[i] = w.begin[i];
        at.pad.after[i] = t.dim[i] - w.begin[i] - ((w.count[i] - 1) * s + 1);
        if (w.count[i] == t.dim[i]) continue;
        ay_val m = inside(o, &t, i, w.begin[i], s, w.count[i]);
        mask = mask == AY_NO_VALUE ? m : ay_binary(G, AY_OP_AND, mask, m);
    }
    if (flip.reduce.n) u = ay_node_add(G, AY_OP_REVERSE, &u, 1, &flip, NULL);
    if (mask == AY_NO_VALUE || ay_mbad(o)) return u;
    u = ay_node_add(G, AY_OP_PAD, &u, 1, &at, NULL);
    return ay_where(G, mask, u, x);
}

static ay_val reverse(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t axes[AY_MAX_RANK];
    int n = ay_mints(o, "axes", axes, AY_MAX_RANK);
    if (ay_mbad(o)) return AY_NO_VALUE;
    int rank = ay_mtype(o, x)->rank;
    if (n > 0 && !ay_maxes(o, "axes", axes, n, rank)) return AY_NO_VALUE;
    ay_attr at = {0};
    at.reduce.n = n < 0 ? rank : n;
    for (int i = 0; i < at.reduce.n; i++) at.reduce.axes[i] = n < 0 ? i : (int)axes[i];
    return at.reduce.n ? ay_node_add(G, AY_OP_REVERSE, &x, 1, &at, NULL) : x;
}

/* ---- growing ----------------------------------------------------------------------------------------------------- */

/* one axis at a time: [a, d] as [a, 1, d], expanded to [a, r, d], read as [a, r * d] */
static ay_val tile(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t reps[AY_MAX_RANK];
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_type t = *ay_mtype(o, x);
    if (!ay_mints_need(o, "reps", reps, t.rank, AY_MAX_RANK)) return AY_NO_VALUE;
    for (int i = t.rank - 1; i >= 0 && !ay_mbad(o); i--) {
        int64_t before = 1, part = 1;
        if (reps[i] == 1) continue;
        if (reps[i] < 1 || reps[i] > ((int64_t)1 << 40) / t.dim[i])
            return ay_mfail(o, ALLOY_E_FORMAT, "reps holds %lld", (long long)reps[i]);
        for (int k = 0; k < t.rank; k++) *(k < i ? &before : &part) *= t.dim[k];
        ay_val y = ay_reshape(G, x, 3, before, 1, part);
        x = ay_expand_to(G, y, 3, (int64_t[]){before, reps[i], part});
        t.dim[i] *= reps[i];
        x = ay_reshape_to(G, x, t.rank, t.dim);
        if (!ay_mbad(o)) t = *ay_mtype(o, x);
    }
    return x;
}

static ay_val pad(ay_mop *o) {
    static const char *const modes[] = {"constant", "reflect", "replicate"};
    ay_val x = ay_mnode(o, "x");
    int64_t p[2 * AY_MAX_RANK];
    int n = ay_mints(o, "pad", p, 2 * AY_MAX_RANK);
    const char *mode = ay_mstring_or(o, "mode", "constant");
    ay_attr at = {0};
    if (ay_mbad(o)) return AY_NO_VALUE;
    int rank = ay_mtype(o, x)->rank, first = rank - n / 2, m = 0;
    if (n < 0 || n % 2 || first < 0)
        return ay_mfail(o, ALLOY_E_FORMAT, "pad has %d numbers for a value of rank %d", n, rank);
    while (m < 3 && strcmp(mode, modes[m])) m++;
    if (m == 3) return ay_mfail(o, ALLOY_E_UNSUPPORTED, "mode is \"%.40s\"", mode);
    at.pad.mode = (ay_pad_mode)m;
    at.pad.value = m == 0 ? ay_mfloat_or(o, "constant_val", 0) : 0;
    bool any = false;
    for (int i = 0; i < n / 2; i++) {
        at.pad.before[first + i] = p[2 * i];
        at.pad.after[first + i] = p[2 * i + 1];
        any = any || p[2 * i] || p[2 * i + 1];
    }
    return any ? ay_node_add(G, AY_OP_PAD, &x, 1, &at, NULL) : x;
}

static ay_val fill(ay_mop *o) {
    int64_t dim[AY_MAX_RANK];
    int n = -1;
    if (o->row->arg) {
        ay_val ref = ay_mnode(o, "ref_tensor");
        if (ay_mbad(o)) return AY_NO_VALUE;
        n = ay_mtype(o, ref)->rank;
        memcpy(dim, ay_mtype(o, ref)->dim, sizeof dim);
    } else n = ay_mints(o, "shape", dim, AY_MAX_RANK);
    if (!ay_mbad(o) && n < 0) return ay_mfail(o, ALLOY_E_FORMAT, "parameter shape is missing");
    ay_val v = ay_mhas(o, "value") ? ay_mnode(o, "value") : ay_mscalar(o, AY_F32, 0);
    if (ay_mbad(o) || n == 0) return v;
    if (ay_mtype(o, v)->rank) v = ay_reshape_to(G, v, 0, dim);
    return ay_expand_to(G, v, n, dim);
}

/* ---- from shapes ------------------------------------------------------------------------------------------------- */

static ay_val range_1d(ay_mop *o) {
    const char *const keys[] = {"start", "end", "step"};
    double v[3];
    ay_type t;
    for (int i = 0; i < 3; i++) {
        ay_mvalue *m = ay_marg(o, keys[i]);
        const float *f = NULL;
        int64_t n = 0;
        if (ay_mbad(o)) return AY_NO_VALUE;
        if (!ay_mvalue_known(o, m, &f, &n) || n != 1)
            return ay_mfail(o, ALLOY_E_UNSUPPORTED,
                            "%s depends on numbers that are known only when the model runs; alloy needs static shapes",
                            keys[i]);
        v[i] = f[0];
    }
    if (ay_mbad(o) || o->n_out < 1 || !ay_mdeclared(o, 0, &t))
        return ay_mfail(o, ALLOY_E_FORMAT, "it has no output of a known type");
    double count = ceil((v[1] - v[0]) / v[2]);
    if (!(count >= 1 && count <= 1e9))
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "from %g to %g by %g there are no numbers, or too many", v[0], v[1],
                        v[2]);
    float *f = ay_mmake(o, (int64_t)count, AY_F32);
    uint8_t *data = f ? ay_mmake(o, (int64_t)count, t.dtype) : NULL;
    if (!data) return AY_NO_VALUE;
    for (int64_t i = 0; i < (int64_t)count; i++) f[i] = (float)(v[0] + (double)i * v[2]);
    ay_convert_from_f32(t.dtype, f, (int64_t)count, data);
    ay_mset_raw(&o->out[0],
                &(ay_raw){.dtype = t.dtype, .rank = 1, .dim = {(int64_t)count}, .count = (int64_t)count, .data = data});
    return AY_NO_VALUE;
}

/* keeps x[m, n] where m - n <= lower and n - m <= upper (negative: no bound) */
static ay_val band_part(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), keep = AY_NO_VALUE;
    int64_t lower = ay_mint_or(o, "lower", -1), upper = ay_mint_or(o, "upper", -1);
    if (ay_mbad(o) || (lower < 0 && upper < 0)) return x;
    const ay_type t = *ay_mtype(o, x);
    if (t.rank < 2) return ay_mfail(o, ALLOY_E_MISMATCH, "x is no matrix");
    lower = ay_min_i64(lower, INT32_MAX), upper = ay_min_i64(upper, INT32_MAX);
    ay_val row = ay_reshape(G, ay_marange(o, 0, t.dim[t.rank - 2]), 2, -1, 1), col = ay_marange(o, 0, t.dim[t.rank - 1]);
    ay_val d = ay_sub(G, row, col); /* [M, N] */
    if (lower >= 0) keep = ay_binary(G, AY_OP_LE, d, ay_const_i32(G, (int32_t)lower));
    if (upper >= 0) {
        ay_val k = ay_binary(G, AY_OP_GE, d, ay_const_i32(G, (int32_t)-upper));
        keep = keep == AY_NO_VALUE ? k : ay_binary(G, AY_OP_AND, keep, k);
    }
    return ay_where(G, keep, x, ay_mscalar(o, t.dtype, 0));
}

static ay_val one_hot(ay_mop *o) {
    ay_val at = ay_mnode(o, "indices");
    int64_t size = ay_mint(o, "one_hot_vector_size"), axis = ay_mint_or(o, "axis", -1), dim[AY_MAX_RANK];
    ay_val on = ay_mnode_opt(o, "on_value"), off = ay_mnode_opt(o, "off_value");
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, at);
    if (t.rank == AY_MAX_RANK || size < 1 || size > INT32_MAX)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "indices of rank %d, %lld places", t.rank, (long long)size);
    int a = ay_maxis(o, "axis", axis, t.rank + 1);
    for (int i = 0; i <= t.rank; i++) dim[i] = i == a ? 1 : t.dim[i - (i > a)];
    ay_dtype like = on != AY_NO_VALUE ? ay_mtype(o, on)->dtype : off != AY_NO_VALUE ? ay_mtype(o, off)->dtype : AY_I32;
    if (on == AY_NO_VALUE) on = ay_mscalar(o, like, 1);
    if (off == AY_NO_VALUE) off = ay_mscalar(o, like, 0);
    ay_val places = ay_malong(o, ay_marange(o, 0, size), a, t.rank + 1);
    ay_val hit = ay_binary(G, AY_OP_EQ, ay_reshape_to(G, ay_cast(G, at, AY_I32), t.rank + 1, dim), places);
    return ay_where(G, hit, on, off);
}

static const ay_mrow rows[] = {
    {"reshape", reshape, 0, 0},
    {"transpose", transpose, 0, 0},
    {"expand_dims", expand_dims, 0, 0},
    {"squeeze", squeeze, 0, 0},
    {"flatten2d", flatten2d, 0, 0},
    {"shape", shape, 0, 0},
    {"stack", stack, 0, 0},
    {"concat", concat, 0, 0},
    {"split", split, 0, 0},
    {"slice_by_index", slice_by_index, 0, 0},
    {"slice_by_size", slice_by_size, 0, 0},
    {"slice_update", slice_update, 0, 0},
    {"reverse", reverse, 0, 0},
    {"tile", tile, 0, 0},
    {"pad", pad, 0, 0},
    {"fill", fill, 0, 0},
    {"fill_like", fill, 0, 1},
    {"range_1d", range_1d, 0, 0},
    {"band_part", band_part, 0, 0},
    {"one_hot", one_hot, 0, 0},
};
const ay_mtable ay_read_shape = {rows, sizeof rows / sizeof *rows};
