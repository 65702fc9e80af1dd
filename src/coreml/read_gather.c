/* SPDX-License-Identifier: MIT
 *
 * Reading operations that pick elements by index. Formulas: coremltools' mil/ops/defs (scatter_gather.py).
 */
#include "coreml/read.h"

#include <string.h>

#define G (o->r->g)

static ay_val gather(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), at = ay_mnode(o, "indices");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr a = {0};
    a.gather.axis = ay_maxis(o, "axis", ay_mint_or(o, "axis", 0), ay_mtype(o, x)->rank);
    int64_t batch = ay_mint_or(o, "batch_dims", 0);
    if (batch < 0) batch += ay_mtype(o, at)->rank;
    if (batch < 0 || batch > AY_MAX_RANK) return ay_mfail(o, ALLOY_E_FORMAT, "batch_dims is %lld", (long long)batch);
    a.gather.batch_dims = (int)batch;
    return ay_node_add(G, AY_OP_GATHER, (ay_val[]){x, at}, 2, &a, NULL);
}

static ay_val gather_along_axis(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), at = ay_mnode(o, "indices");
    if (ay_mbad(o)) return AY_NO_VALUE;
    ay_attr a = {0};
    a.gather.axis = ay_maxis(o, "axis", ay_mint_or(o, "axis", 0), ay_mtype(o, x)->rank);
    return ay_node_add(G, AY_OP_GATHER_ALONG, (ay_val[]){x, at}, 2, &a, NULL);
}

/* index `j` of the last dim of `at` ([.., k] to [..]), negative ones counted from the end of `dim` */
static ay_val one_index(ay_mop *o, ay_val at, int j, int64_t dim, bool wrap) {
    ay_val i = ay_slice(G, at, -1, j, j + 1);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, i);
    i = ay_reshape_to(G, i, t.rank - 1, t.dim);
    if (!wrap) return i;
    ay_val up = ay_add(G, i, ay_const_i32(G, (int32_t)ay_min_i64(dim, INT32_MAX)));
    return ay_where(G, ay_binary(G, AY_OP_LT, i, ay_const_i32(G, 0)), up, i);
}

/* the k indexed dims are one dim, and the k indices one index into it */
static ay_val gather_nd(ay_mop *o) {
    ay_val x = ay_mnode(o, "x"), at = ay_mnode(o, "indices"), flat = AY_NO_VALUE;
    int64_t batch = ay_mint_or(o, "batch_dims", 0);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x), it = *ay_mtype(o, at);
    int64_t k = it.rank ? it.dim[it.rank - 1] : 0;
    if (k < 1 || batch < 0 || batch >= it.rank || batch + k > t.rank)
        return ay_mfail(o, ALLOY_E_MISMATCH, "%lld indices and %lld batch dims do not fit x of rank %d", (long long)k,
                        (long long)batch, t.rank);
    at = ay_cast(G, at, AY_I32);
    int b = (int)batch, n = (int)k;
    int64_t dim[AY_MAX_RANK], stride = 1;
    for (int j = n - 1; j >= 0; j--) {
        ay_val i = one_index(o, at, j, t.dim[b + j], n > 1);
        if (stride > INT32_MAX) return ay_mfail(o, ALLOY_E_UNSUPPORTED, "the indexed dims have more than 2^31 elements");
        if (stride > 1) i = ay_mul(G, i, ay_const_i32(G, (int32_t)stride));
        flat = flat == AY_NO_VALUE ? i : ay_add(G, flat, i);
        stride *= t.dim[b + j];
    }
    int rank = 0;
    for (int i = 0; i < b; i++) dim[rank++] = t.dim[i];
    dim[rank++] = stride;
    for (int i = b + n; i < t.rank; i++) dim[rank++] = t.dim[i];
    ay_attr a = {0};
    a.gather.axis = a.gather.batch_dims = b;
    return ay_node_add(G, AY_OP_GATHER, (ay_val[]){ay_reshape_to(G, x, rank, dim), flat}, 2, &a, NULL);
}

/* windows of `size` along an axis, `stride` apart: [.., d, ..] to [.., windows, size, ..] */
static ay_val sliding_windows(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t size = ay_mint(o, "size"), stride = ay_mint_or(o, "stride", 1);
    if (ay_mbad(o)) return AY_NO_VALUE;
    int axis = ay_maxis(o, "axis", ay_mint(o, "axis"), ay_mtype(o, x)->rank);
    int64_t d = ay_dim(G, x, axis);
    if (ay_mbad(o)) return AY_NO_VALUE;
    if (size < 1 || stride < 1 || size > d)
        return ay_mfail(o, ALLOY_E_MISMATCH, "size %lld and stride %lld for a dim of %lld", (long long)size,
                        (long long)stride, (long long)d);
    int64_t n = (d - size) / stride + 1;
    int32_t *v = ay_mmake(o, n * size, AY_I32);
    if (!v) return AY_NO_VALUE;
    for (int64_t i = 0; i < n * size; i++) v[i] = (int32_t)(i / size * stride + i % size);
    return ay_gather(G, x, ay_const_data(G, ay_shape(AY_I32, 2, n, size), v), axis);
}

static const ay_mrow rows[] = {
    {"gather", gather, 0, 0},
    {"gather_along_axis", gather_along_axis, 0, 0},
    {"gather_nd", gather_nd, 0, 0},
    {"sliding_windows", sliding_windows, 0, 0},
};
const ay_mtable ay_read_gather = {rows, sizeof rows / sizeof *rows};
