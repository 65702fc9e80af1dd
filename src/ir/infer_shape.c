/* SPDX-License-Identifier: MIT
 *
 * Inference for ops that move elements and compute nothing: reshape, permute, expand, slice, concat, pad, gather.
 */
#include "ir/infer.h"

#include <inttypes.h>

/* What the builder wanted, with the dtype of the input; false when its rank is out of range. */
static bool wanted(const ay_graph *g, const ay_node *n, ay_type *out) {
    *out = n->type;
    out->dtype = ay_in_type(g, n, 0)->dtype;
    return out->rank >= 0 && out->rank <= AY_MAX_RANK;
}

alloy_status ay_infer_reshape(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    const ay_type *x = ay_in_type(g, n, 0);
    ay_type out;
    if (!wanted(g, n, &out)) return ay_infer_fail(g, n, "rank %d is outside of 0 to %d", n->type.rank, AY_MAX_RANK);
    int64_t count = ay_type_count(x), known = 1;
    int free_dim = -1;
    bool fits = true;
    for (int i = 0; i < out.rank; i++) {
        if (out.dim[i] == -1 && free_dim < 0) free_dim = i;
        else if (out.dim[i] < 1 || __builtin_mul_overflow(known, out.dim[i], &known)) fits = false;
    }
    if (fits && free_dim >= 0 && count % known == 0) out.dim[free_dim] = count / known;
    else if (free_dim >= 0 || known != count) fits = false;
    if (!fits)
        return ay_infer_fail(g, n, "%s cannot become %s: the numbers of elements differ", ay_type_text(x, a),
                             ay_type_text(&out, b));
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_permute(const ay_graph *g, ay_node *n) {
    ay_type out = *ay_in_type(g, n, 0);
    for (int i = 0; i < out.rank; i++) out.dim[i] = ay_in_type(g, n, 0)->dim[n->attr.permute.perm[i]];
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_expand(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    ay_type want, met;
    bool ok = wanted(g, n, &want) && ay_broadcast(ay_in_type(g, n, 0), &want, &met) && met.rank == want.rank;
    for (int i = 0; ok && i < want.rank; i++) ok = met.dim[i] == want.dim[i];
    if (!ok) {
        if (want.rank < 0 || want.rank > AY_MAX_RANK) want.rank = 0;
        return ay_infer_fail(g, n, "%s cannot be expanded to %s", ay_type_text(ay_in_type(g, n, 0), a),
                             ay_type_text(&want, b));
    }
    n->type = want;
    return ALLOY_OK;
}

alloy_status ay_infer_slice(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    const ay_type *x = ay_in_type(g, n, 0);
    ay_type want;
    if (!wanted(g, n, &want) || want.rank != x->rank) {
        return ay_infer_fail(g, n, "%s to a result of rank %d: slicing keeps the rank", ay_type_text(x, a), n->type.rank);
    }
    for (int i = 0; i < x->rank; i++) {
        int64_t begin = n->attr.slice.begin[i], stride = n->attr.slice.stride[i], count = want.dim[i], last;
        bool ok = count >= 1 && stride != 0 && begin >= 0 && begin < x->dim[i] &&
                  !__builtin_mul_overflow(count - 1, stride, &last) && !__builtin_add_overflow(begin, last, &last) &&
                  last >= 0 && last < x->dim[i];
        if (ok) continue;
        return ay_infer_fail(g, n, "%s to %s: %" PRId64 " elements from %" PRId64 " by %" PRId64 " leave dim %d",
                             ay_type_text(x, a), ay_type_text(&want, b), count, begin, stride, i);
    }
    n->type = want;
    return ALLOY_OK;
}

alloy_status ay_infer_concat(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    ay_type out = *ay_in_type(g, n, 0);
    int axis = n->attr.axis;
    for (int i = 1; i < n->n_in; i++) {
        const ay_type *x = ay_in_type(g, n, i);
        AY_TRY(ay_infer_same_dtype(g, n, 0, i));
        bool ok = x->rank == out.rank;
        for (int d = 0; ok && d < out.rank; d++) ok = d == axis || x->dim[d] == out.dim[d];
        if (!ok) {
            return ay_infer_fail(g, n, "%s and %s (input %d) differ outside of axis %d",
                                 ay_type_text(ay_in_type(g, n, 0), a), ay_type_text(x, b), i, axis);
        }
        if (__builtin_add_overflow(out.dim[axis], x->dim[axis], &out.dim[axis])) return ay_infer_fail(g, n, "too long");
    }
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_pad(const ay_graph *g, ay_node *n) {
    char text[160];
    const ay_type *x = ay_in_type(g, n, 0);
    ay_type out = *x;
    if ((unsigned)n->attr.pad.mode > AY_PAD_REPLICATE)
        return ay_infer_fail(g, n, "no mode has number %d", (int)n->attr.pad.mode);
    for (int i = 0; i < x->rank; i++) {
        int64_t before = n->attr.pad.before[i], after = n->attr.pad.after[i];
        int64_t most = n->attr.pad.mode == AY_PAD_REFLECT ? x->dim[i] - 1 : AY_MAX_COUNT;
        if (before < 0 || after < 0 || before > most || after > most) {
            return ay_infer_fail(g, n, "%" PRId64 " before and %" PRId64 " after dim %d of %s: must be 0 to %" PRId64,
                                 before, after, i, ay_type_text(x, text), most);
        }
        out.dim[i] += before + after;
    }
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_reverse(const ay_graph *g, ay_node *n) {
    if (n->attr.reduce.n < 1) return ay_infer_fail(g, n, "no axis to reverse");
    n->type = *ay_in_type(g, n, 0);
    return ALLOY_OK;
}

static alloy_status integer(const ay_graph *g, const ay_node *n, int i) {
    ay_dtype t = ay_in_type(g, n, i)->dtype;
    return ay_is_int(t)
               ? ALLOY_OK
               : ay_infer_fail(g, n, "input %d holds indices and must be of integers, found %s", i, ay_dtype_name(t));
}

alloy_status ay_infer_gather(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    const ay_type *x = ay_in_type(g, n, 0), *at = ay_in_type(g, n, 1);
    int axis = n->attr.gather.axis, batch = n->attr.gather.batch_dims;
    AY_TRY(integer(g, n, 1));
    bool ok = batch >= 0 && batch <= axis && batch <= at->rank;
    for (int i = 0; ok && i < batch; i++) ok = x->dim[i] == at->dim[i];
    if (!ok) {
        return ay_infer_fail(g, n, "%s by %s along axis %d: %d batch dims do not fit", ay_type_text(x, a),
                             ay_type_text(at, b), axis, batch);
    }
    ay_type out = {.dtype = x->dtype};
    if (x->rank - 1 + at->rank - batch > AY_MAX_RANK) {
        return ay_infer_fail(g, n, "%s by %s: the result's rank passes %d", ay_type_text(x, a), ay_type_text(at, b),
                             AY_MAX_RANK);
    }
    for (int i = 0; i < axis; i++) out.dim[out.rank++] = x->dim[i];
    for (int i = batch; i < at->rank; i++) out.dim[out.rank++] = at->dim[i];
    for (int i = axis + 1; i < x->rank; i++) out.dim[out.rank++] = x->dim[i];
    n->type = out;
    return ALLOY_OK;
}

alloy_status ay_infer_gather_along(const ay_graph *g, ay_node *n) {
    char a[160], b[160];
    const ay_type *x = ay_in_type(g, n, 0), *at = ay_in_type(g, n, 1);
    AY_TRY(integer(g, n, 1));
    bool ok = x->rank == at->rank;
    for (int i = 0; ok && i < x->rank; i++) ok = i == n->attr.gather.axis || x->dim[i] == at->dim[i];
    if (!ok) {
        return ay_infer_fail(g, n, "%s by %s: must agree but for axis %d", ay_type_text(x, a), ay_type_text(at, b),
                             n->attr.gather.axis);
    }
    n->type = *at;
    n->type.dtype = x->dtype;
    return ALLOY_OK;
}
