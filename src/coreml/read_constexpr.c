/* SPDX-License-Identifier: MIT
 *
 * Reading constants and the constexpr operations of both generations (iOS16: parameters are attributes; iOS18: inputs).
 * What ay_weight can say stays compressed in the mapped file; sparse forms and chained palettes are decoded into the graph's
 * memory. Semantics: coremltools' mil/ops/defs/iOS16/constexpr_ops.py and iOS18/compression.py.
 */
#include "coreml/read.h"

#include <stdlib.h>
#include <string.h>

static ay_val constant(ay_mop *o) {
    const AyMil__Value *v = ay_mil_attribute(o->op, "val");
    if (o->n_out != 1) return ay_mfail(o, ALLOY_E_FORMAT, "it has %d outputs", o->n_out);
    if (!v) return ay_mfail(o, ALLOY_E_FORMAT, "attribute val is missing");
    ay_mdecode(o, "val", v, &o->out[0]);
    return AY_NO_VALUE;
}

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

/** Parameter `key` as plain numbers with no empty dim. */
static const ay_raw *numbers(ay_mop *o, const char *key) {
    const ay_raw *raw = ay_mvalue_raw(o, ay_marg(o, key));
    if (raw && raw->count < 1) return ay_mnull(o, ALLOY_E_FORMAT, "%s is empty", key);
    return raw;
}
static const ay_raw *numbers_opt(ay_mop *o, const char *key) { return ay_mhas(o, key) ? numbers(o, key) : NULL; }

static bool is_scale(ay_dtype t) { return t == AY_F16 || t == AY_F32; }
static bool is_code(ay_dtype t) { return t == AY_I4 || t == AY_U4 || t == AY_I8 || t == AY_U8; }
static bool is_index(ay_dtype t) { return t == AY_U1 || t == AY_U2 || t == AY_U3 || t == AY_U4 || t == AY_U6 || t == AY_U8; }
static bool is_entry(ay_dtype t) { return is_scale(t) || t == AY_I8 || t == AY_U8; }

static bool need(ay_mop *o, const char *key, const ay_raw *raw, bool (*ok)(ay_dtype)) {
    if (ay_mbad(o) || !raw) return false;
    if (!ok(raw->dtype)) ay_mfail(o, ALLOY_E_UNSUPPORTED, "%s is of %s", key, ay_dtype_name(raw->dtype));
    return !ay_mbad(o);
}

static ay_weight *new_weight(ay_mop *o, ay_store store, const ay_raw *data, ay_dtype value) {
    ay_weight *w = ay_alloc(o->r->g->arena, sizeof *w);
    if (!w) return ay_mnull(o, ALLOY_E_NOMEM, "out of memory");
    w->store = store;
    w->rank = data->rank;
    memcpy(w->dim, data->dim, sizeof w->dim);
    w->value_dtype = value;
    w->data_dtype = data->dtype;
    w->data = data->data;
    return w;
}

static void set_weight(ay_mop *o, ay_weight *w) {
    if (!w || ay_mbad(o)) return;
    ay_mvalue *v = &o->out[0];
    v->kind = AY_M_WEIGHT;
    v->weight = w;
    if (ay_dtype_is_float(w->value_dtype)) return;
    const ay_raw *raw = ay_mvalue_raw(o, v); /* a table of integers: plain */
    if (raw) ay_mset_raw(v, raw);
}

/** Element `j` of `src` becomes element `i` of `dst` (zeroed before); types of 1 to 8 bits lie packed, lowest bit first. */
static void copy_element(ay_dtype t, void *dst, int64_t i, const void *src, int64_t j) {
    int bits = ay_dtype_bits(t);
    if (bits >= 8) {
        memcpy((uint8_t *)dst + i * (bits / 8), (const uint8_t *)src + j * (bits / 8), (size_t)bits / 8);
        return;
    }
    for (int b = 0; b < bits; b++) {
        int64_t from = j * bits + b, to = i * bits + b;
        int bit = ((const uint8_t *)src)[from / 8] >> (from % 8) & 1;
        ((uint8_t *)dst)[to / 8] |= (uint8_t)(bit << (to % 8));
    }
}

static bool mask_bit(const void *mask, int64_t i) { return ((const uint8_t *)mask)[i / 8] >> (i % 8) & 1; }

static int64_t mask_count(const void *mask, int64_t n) {
    int64_t set = 0;
    for (int64_t i = 0; i < n; i++) set += mask_bit(mask, i);
    return set;
}

/* ---- linear codes ------------------------------------------------------------------------------------------------ */

/** `raw`, one number or `count` of them, as `count`; NULL after a failure. */
static const void *repeated(ay_mop *o, const char *key, const ay_raw *raw, int64_t count) {
    if (raw->count == count) return raw->data;
    if (raw->count != 1)
        return ay_mnull(o, ALLOY_E_MISMATCH, "%s has %lld numbers, expected 1 or %lld", key, (long long)raw->count,
                        (long long)count);
    void *mem = ay_mmake(o, count, raw->dtype);
    for (int64_t i = 0; mem && i < count; i++) copy_element(raw->dtype, mem, i, raw->data, 0);
    return mem;
}

static bool all_zero(const ay_raw *raw) {
    const uint8_t *p = raw->data;
    size_t n = ay_dtype_bytes(raw->dtype, raw->count);
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

/* scale * (q - zero_point), both numbers or vectors along one axis */
static ay_val affine_dequantize(ay_mop *o) {
    const ay_raw *q = numbers(o, "quantized_data"), *zero = numbers(o, "zero_point"), *scale = numbers(o, "scale");
    int64_t axis = ay_mint(o, "axis");
    if (!need(o, "quantized_data", q, is_code) || !need(o, "scale", scale, is_scale) || !zero) return AY_NO_VALUE;
    if (q->rank > AY_MAX_RANK || (zero->dtype != q->dtype && !ay_dtype_is_float(zero->dtype)))
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "data of %s and rank %d with zero points of %s", ay_dtype_name(q->dtype),
                        q->rank, ay_dtype_name(zero->dtype));
    int a = q->rank ? ay_maxis(o, "axis", axis, q->rank) : 0;
    bool no_zero = all_zero(zero);
    int64_t n = scale->count > 1 || (zero->count > 1 && !no_zero) ? (q->rank ? q->dim[a] : 1) : 1;
    ay_weight *w = ay_mbad(o) ? NULL : new_weight(o, AY_STORE_BLOCK, q, scale->dtype);
    if (!w) return AY_NO_VALUE;
    for (int i = 0; i < q->rank; i++) w->scale_dim[i] = i == a ? n : 1;
    w->scale_dtype = scale->dtype;
    w->scale = repeated(o, "scale", scale, n);
    w->offset_dtype = no_zero ? AY_NONE : zero->dtype;
    w->offset = no_zero ? NULL : repeated(o, "zero_point", zero, n);
    set_weight(o, w);
    return AY_NO_VALUE;
}

/** Scale must have data's rank and divide its dims; offset the shape of scale. */
static bool check_blocks(ay_mop *o, const ay_raw *data, const ay_raw *scale, const ay_raw *offset) {
    bool ok = scale->rank == data->rank;
    for (int i = 0; ok && i < data->rank; i++) ok = data->dim[i] % scale->dim[i] == 0;
    if (!ok) return ay_mfalse(o, ALLOY_E_MISMATCH, "the shape of scale does not divide the shape of data");
    for (int i = 0; offset && i < data->rank && ok; i++) ok = offset->rank == scale->rank && offset->dim[i] == scale->dim[i];
    if (!ok) return ay_mfalse(o, ALLOY_E_MISMATCH, "offset has not the shape of scale");
    if (offset && offset->dtype != data->dtype && !is_scale(offset->dtype))
        return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "offset is of %s, data of %s", ay_dtype_name(offset->dtype),
                         ay_dtype_name(data->dtype));
    return true;
}

/** scale * (data - offset) as plain numbers of scale's type, for any rank and for float data. */
static bool decode_blocks(ay_mop *o, const ay_raw *data, const ay_raw *scale, const ay_raw *offset, ay_raw *out) {
    *out = *data;
    out->dtype = scale->dtype;
    out->mapped = false;
    uint8_t *mem = ay_mmake(o, data->count, scale->dtype);
    out->data = mem;
    int64_t at[AY_RAW_RANK] = {0};
    size_t size = (size_t)ay_dtype_bits(scale->dtype) / 8;
    for (int64_t i = 0; mem && i < data->count; i++) {
        int64_t b = 0;
        float x, s, z = 0;
        for (int d = 0; d < data->rank; d++) b = b * scale->dim[d] + at[d] / (data->dim[d] / scale->dim[d]);
        ay_convert_to_f32(data->dtype, data->data, i, 1, &x);
        ay_convert_to_f32(scale->dtype, scale->data, b, 1, &s);
        if (offset) ay_convert_to_f32(offset->dtype, offset->data, b, 1, &z);
        x = s * (x - z);
        ay_convert_from_f32(scale->dtype, &x, 1, mem + (size_t)i * size);
        for (int d = data->rank - 1; d >= 0 && ++at[d] == data->dim[d]; d--) at[d] = 0;
    }
    return mem != NULL;
}

static ay_val blockwise_shift_scale(ay_mop *o) {
    const ay_raw *data = numbers(o, "data"), *scale = numbers(o, "scale"), *offset = numbers_opt(o, "offset");
    if (!data || !need(o, "scale", scale, is_scale) || (!is_scale(data->dtype) && !need(o, "data", data, is_code)))
        return AY_NO_VALUE;
    if (ay_mbad(o) || !check_blocks(o, data, scale, offset)) return AY_NO_VALUE;
    if (is_scale(data->dtype) || data->rank > AY_MAX_RANK) {
        ay_raw raw;
        if (decode_blocks(o, data, scale, offset, &raw)) ay_mset_raw(&o->out[0], &raw);
        return AY_NO_VALUE;
    }
    ay_weight *w = new_weight(o, AY_STORE_BLOCK, data, scale->dtype);
    if (!w) return AY_NO_VALUE;
    memcpy(w->scale_dim, scale->dim, sizeof w->scale_dim);
    w->scale_dtype = scale->dtype;
    w->scale = scale->data;
    w->offset_dtype = offset ? offset->dtype : AY_NONE;
    w->offset = offset ? offset->data : NULL;
    set_weight(o, w);
    return AY_NO_VALUE;
}

/* ---- palettes ---------------------------------------------------------------------------------------------------- */

/** A palette weight over indices of the value's shape (before vectors are laid out); checks everything. */
static ay_weight *palette(ay_mop *o, const ay_raw *indices, const ay_raw *lut, int64_t vector_axis) {
    if (!need(o, "indices", indices, is_index) || !need(o, "lut", lut, is_entry)) return NULL;
    int rank = indices->rank;
    bool ok = rank <= AY_MAX_RANK && lut->rank == rank + 2 && lut->dim[rank] == (int64_t)1 << ay_dtype_bits(indices->dtype);
    for (int i = 0; ok && i < rank; i++) ok = indices->dim[i] % lut->dim[i] == 0;
    int64_t vec = ok ? lut->dim[rank + 1] : 1, axis = vector_axis < 0 ? vector_axis + rank : vector_axis;
    if (!ok)
        return ay_mnull(o, ALLOY_E_MISMATCH, "lut must be [groups.., %d, vector], groups dividing the indices' dims",
                        1 << ay_dtype_bits(indices->dtype));
    if (vec > 1 && (axis < 0 || axis >= rank))
        return ay_mnull(o, ALLOY_E_MISMATCH, "vector_axis is %lld for rank %d", (long long)vector_axis, rank);
    ay_weight *w = new_weight(o, AY_STORE_LUT, indices, lut->dtype);
    if (!w) return NULL;
    w->vector_axis = vec > 1 ? (int)axis : 0;
    if (vec > 1 && __builtin_mul_overflow(w->dim[axis], vec, &w->dim[axis]))
        return ay_mnull(o, ALLOY_E_FORMAT, "too large");
    memcpy(w->lut_dim, lut->dim, sizeof w->lut_dim);
    w->lut_dtype = lut->dtype;
    w->lut = lut->data;
    return w;
}

/** The `shape` of the iOS16 forms: what the packed vector unpacks to. */
static bool packed_shape(ay_mop *o, ay_raw *raw) {
    int n = ay_mints(o, "shape", raw->dim, AY_MAX_RANK);
    if (ay_mbad(o) || n < 0) return ay_mfalse(o, ALLOY_E_FORMAT, "shape is missing");
    raw->rank = n;
    raw->count = 1;
    for (int i = 0; i < n; i++)
        if (raw->dim[i] < 1 || __builtin_mul_overflow(raw->count, raw->dim[i], &raw->count) || raw->count > (int64_t)1 << 40)
            return ay_mfalse(o, ALLOY_E_FORMAT, "shape holds %lld", (long long)raw->dim[i]);
    return true;
}

static ay_val lut_to_dense_packed(ay_mop *o) {
    static const ay_dtype by_bits[9] = {[1] = AY_U1, [2] = AY_U2, [4] = AY_U4, [6] = AY_U6, [8] = AY_U8};
    const ay_raw *packed = numbers(o, "indices"), *entries = numbers(o, "lut");
    ay_raw indices = {0};
    if (!packed || !entries || !packed_shape(o, &indices)) return AY_NO_VALUE;
    int bits = 0;
    while (bits < 8 && (int64_t)1 << bits < entries->count) bits++;
    if ((int64_t)1 << bits != entries->count || !by_bits[bits])
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "a lut of %lld entries", (long long)entries->count);
    indices.dtype = by_bits[bits];
    indices.data = packed->data;
    if (packed->dtype != AY_U8 || (size_t)packed->count != ay_dtype_bytes(indices.dtype, indices.count))
        return ay_mfail(o, ALLOY_E_MISMATCH, "indices has %lld bytes, %lld indices of %d bits need %zu",
                        (long long)packed->count, (long long)indices.count, bits,
                        ay_dtype_bytes(indices.dtype, indices.count));
    ay_raw lut = *entries;
    lut.rank = indices.rank + 2;
    for (int i = 0; i < indices.rank; i++) lut.dim[i] = 1;
    lut.dim[indices.rank] = entries->count;
    lut.dim[indices.rank + 1] = 1;
    set_weight(o, palette(o, &indices, &lut, 0));
    return AY_NO_VALUE;
}

static ay_val lut_to_dense(ay_mop *o) {
    if (ay_mhas(o, "shape")) return lut_to_dense_packed(o);
    const ay_raw *indices = numbers(o, "indices"), *lut = numbers(o, "lut");
    int64_t axis = ay_mint_or(o, "vector_axis", AY_MAX_RANK);
    if (ay_mbad(o) || !indices || !lut) return AY_NO_VALUE;
    set_weight(o, palette(o, indices, lut, axis));
    return AY_NO_VALUE;
}

/* ---- sparse ------------------------------------------------------------------------------------------------------ */

/** Nonzero values laid out where the mask has its bits. `mem` is zeroed and large enough. */
static void scatter(const ay_raw *nonzero, const void *mask, int64_t count, void *mem) {
    for (int64_t i = 0, k = 0; i < count; i++)
        if (mask_bit(mask, i)) copy_element(nonzero->dtype, mem, i, nonzero->data, k++);
}

static bool check_sparse(ay_mop *o, const ay_raw *nonzero, const void *mask, int64_t count) {
    int64_t set = mask_count(mask, count);
    if (nonzero->rank == 1 && nonzero->count == set) return true;
    return ay_mfalse(o, ALLOY_E_MISMATCH, "the mask has %lld bits set, but there are %lld values", (long long)set,
                     (long long)nonzero->count);
}

static ay_val sparse_to_dense(ay_mop *o) {
    const ay_raw *nonzero = numbers(o, "nonzero_data"), *mask = numbers(o, "mask");
    ay_raw dense = {0};
    if (!nonzero || !mask) return AY_NO_VALUE;
    if (ay_mhas(o, "shape")) {
        if (!packed_shape(o, &dense)) return AY_NO_VALUE;
        if (mask->dtype != AY_U8 || (size_t)mask->count != ay_dtype_bytes(AY_U1, dense.count))
            return ay_mfail(o, ALLOY_E_MISMATCH, "mask has %lld bytes for %lld values", (long long)mask->count,
                            (long long)dense.count);
    } else {
        if (mask->dtype != AY_U1)
            return ay_mfail(o, ALLOY_E_UNSUPPORTED, "mask is of %s, expected uint1", ay_dtype_name(mask->dtype));
        dense = *mask;
    }
    dense.dtype = nonzero->dtype;
    dense.mapped = false;
    if (!check_sparse(o, nonzero, mask->data, dense.count)) return AY_NO_VALUE;
    void *mem = ay_mmake(o, dense.count, dense.dtype);
    if (!mem) return AY_NO_VALUE;
    scatter(nonzero, mask->data, dense.count, mem);
    dense.data = mem;
    dense.mapped = true; /* a weight like any other: a PARAM over our memory */
    ay_mset_raw(&o->out[0], &dense);
    return AY_NO_VALUE;
}

/** The values of `w` where `mask` (of w's shape) has its bits, as output 1; the mask as output 0. */
static void set_sparse(ay_mop *o, const ay_weight *w, const ay_raw *mask) {
    const ay_dtype t = w->value_dtype;
    int64_t set = mask_count(mask->data, mask->count), size = ay_dtype_bits(t) / 8;
    uint8_t *mem = ay_mmake(o, set, t);
    float part[256];
    for (int64_t i = 0, k = 0; mem && i < mask->count; i += 256) {
        int64_t n = ay_min_i64(256, mask->count - i);
        ay_weight_read(w, i, n, part);
        for (int64_t j = 0; j < n; j++)
            if (mask_bit(mask->data, i + j)) ay_convert_from_f32(t, &part[j], 1, mem + k++ * size);
    }
    if (!mem) return;
    ay_mset_raw(&o->out[0], mask);
    ay_mset_raw(&o->out[1], &(ay_raw){.dtype = t, .rank = 1, .dim = {set}, .count = set, .data = mem});
}

/** Mask and values of a sparse operation, the values laid out dense in `*mem` (malloc'd). */
static bool get_sparse(ay_mop *o, const char *mask_key, const char *key, const ay_raw **mask, ay_raw *dense, void **mem) {
    *mem = NULL;
    *mask = numbers(o, mask_key);
    const ay_raw *nonzero = numbers(o, key);
    if (o->n_out != 2) return ay_mfalse(o, ALLOY_E_FORMAT, "it has %d outputs, expected 2", o->n_out);
    if (!*mask || !nonzero) return false;
    if ((*mask)->dtype != AY_U1)
        return ay_mfalse(o, ALLOY_E_UNSUPPORTED, "%s is of %s, expected uint1", mask_key, ay_dtype_name((*mask)->dtype));
    if (!check_sparse(o, nonzero, (*mask)->data, (*mask)->count)) return false;
    *dense = **mask;
    dense->dtype = nonzero->dtype;
    *mem = calloc(1, ay_dtype_bytes(dense->dtype, dense->count));
    if (!*mem) return ay_mfalse(o, ALLOY_E_NOMEM, "out of memory");
    scatter(nonzero, (*mask)->data, dense->count, *mem);
    dense->data = *mem;
    return true;
}

static ay_val sparse_blockwise_shift_scale(ay_mop *o) {
    const ay_raw *scale = numbers(o, "scale"), *offset = numbers_opt(o, "offset"), *mask;
    ay_raw dense, out;
    void *mem;
    bool ok = get_sparse(o, "data_mask", "nonzero_data", &mask, &dense, &mem) && need(o, "scale", scale, is_scale);
    ok = ok && (is_scale(dense.dtype) || need(o, "nonzero_data", &dense, is_code)) && check_blocks(o, &dense, scale, offset);
    if (ok && dense.rank > AY_MAX_RANK) ok = ay_mfalse(o, ALLOY_E_UNSUPPORTED, "rank %d", dense.rank);
    if (ok && decode_blocks(o, &dense, scale, offset, &out)) {
        ay_type t = {.dtype = out.dtype, .rank = out.rank};
        memcpy(t.dim, out.dim, sizeof t.dim);
        ay_weight w = ay_weight_plain(&t, out.data);
        set_sparse(o, &w, mask);
    }
    free(mem);
    return AY_NO_VALUE;
}

/** The mask with each bit repeated `vec` times along `axis`. */
static bool widen_mask(ay_mop *o, const ay_raw *mask, int axis, int64_t vec, ay_raw *out) {
    *out = *mask;
    if (vec == 1) return true;
    out->mapped = false;
    out->dim[axis] *= vec;
    out->count *= vec;
    uint8_t *mem = ay_mmake(o, out->count, AY_U1);
    int64_t after = 1;
    for (int i = axis + 1; i < mask->rank; i++) after *= mask->dim[i];
    for (int64_t i = 0; mem && i < out->count; i++) /* i = (before * dim * vec + position) * after + rest */
        if (mask_bit(mask->data, i / after / vec * after + i % after)) mem[i / 8] |= (uint8_t)(1 << (i % 8));
    out->data = mem;
    return mem != NULL;
}

static ay_val lut_to_sparse(ay_mop *o) {
    const ay_raw *lut = numbers(o, "lut"), *mask;
    int64_t axis = ay_mint_or(o, "vector_axis", AY_MAX_RANK);
    ay_raw dense, wide;
    void *mem;
    bool ok = lut && get_sparse(o, "indices_mask", "indices_nonzero_data", &mask, &dense, &mem);
    if (!lut) mem = NULL;
    ay_weight *w = ok ? palette(o, &dense, lut, axis) : NULL;
    if (w && widen_mask(o, mask, w->vector_axis, w->lut_dim[w->rank + 1], &wide)) set_sparse(o, w, &wide);
    free(mem);
    return AY_NO_VALUE;
}

/* float16 numbers that count as float32 */
static ay_val constexpr_cast(ay_mop *o) {
    const ay_raw *x = numbers(o, "source_val");
    const char *to = ay_mstring_or(o, "output_dtype", NULL);
    if (ay_mbad(o) || !x) return AY_NO_VALUE;
    if (strcmp(to, "fp32") || !is_scale(x->dtype) || x->rank > AY_MAX_RANK)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "from %s to \"%.40s\"; only float16 to fp32 is known",
                        ay_dtype_name(x->dtype), to);
    set_weight(o, new_weight(o, AY_STORE_PLAIN, x, AY_F32));
    return AY_NO_VALUE;
}

static const ay_mrow rows[] = {
    {"const", constant, 0, 0},
    {"constexpr_affine_dequantize", affine_dequantize, 0, 0},
    {"constexpr_blockwise_shift_scale", blockwise_shift_scale, 0, 0},
    {"constexpr_lut_to_dense", lut_to_dense, 0, 0},
    {"constexpr_sparse_to_dense", sparse_to_dense, 0, 0},
    {"constexpr_lut_to_sparse", lut_to_sparse, 0, 0},
    {"constexpr_sparse_blockwise_shift_scale", sparse_blockwise_shift_scale, 0, 0},
    {"constexpr_cast", constexpr_cast, 0, 0},
};
const ay_mtable ay_read_constexpr = {rows, sizeof rows / sizeof *rows};
