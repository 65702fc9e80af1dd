/* SPDX-License-Identifier: MIT
 *
 * Weights as they are stored: sizes of their parts, and whether the parts fit together. Reading them is in weight_read.c.
 */
#include "quant/weight.h"

#include <string.h>

/* ---- sizes --------------------------------------------------------------------------------------------------------- */

static int64_t count_of(const int64_t *dim, int rank) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++) {
        if (dim[i] < 0 || __builtin_mul_overflow(n, dim[i], &n)) return -1;
    }
    return n;
}

size_t ay_weight_data_bytes(const ay_weight *w) {
    int64_t n = count_of(w->dim, w->rank), vec = w->store == AY_STORE_LUT ? w->lut_dim[w->rank + 1] : 1;
    return ay_dtype_bytes(w->data_dtype, vec > 1 ? n / vec : n);
}

size_t ay_weight_scale_bytes(const ay_weight *w) {
    return w->store == AY_STORE_BLOCK ? ay_dtype_bytes(w->scale_dtype, count_of(w->scale_dim, w->rank)) : 0;
}

size_t ay_weight_offset_bytes(const ay_weight *w) {
    return w->store == AY_STORE_BLOCK ? ay_dtype_bytes(w->offset_dtype, count_of(w->scale_dim, w->rank)) : 0;
}

size_t ay_weight_lut_bytes(const ay_weight *w) {
    return w->store == AY_STORE_LUT ? ay_dtype_bytes(w->lut_dtype, count_of(w->lut_dim, w->rank + 2)) : 0;
}

ay_weight ay_weight_plain(const ay_type *type, const void *data) {
    ay_weight w = {
        .store = AY_STORE_PLAIN, .rank = type->rank, .value_dtype = type->dtype, .data_dtype = type->dtype, .data = data};
    memcpy(w.dim, type->dim, (size_t)type->rank * sizeof w.dim[0]);
    return w;
}

/* ---- checking ------------------------------------------------------------------------------------------------------ */

static bool divides(const int64_t *dim, const int64_t *part, int rank, int *bad) {
    for (int i = 0; i < rank; i++) {
        *bad = i;
        if (part[i] < 1 || dim[i] < 1 || dim[i] % part[i] != 0) return false;
    }
    return true;
}

static bool is_one_of(ay_dtype t, const ay_dtype *list) {
    for (; *list != AY_NONE; list++) {
        if (t == *list) return true;
    }
    return false;
}

static alloy_status check_block(ay_ctx *cx, const char *name, const ay_weight *w) {
    static const ay_dtype scales[] = {AY_F16, AY_F32, AY_BF16, AY_NONE};
    int d = 0;
    if (!is_one_of(w->scale_dtype, scales))
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "weight \"%s\": scales of type %s; float16 or float32 was expected", name,
                       ay_dtype_name(w->scale_dtype));
    if (w->rank > 0 && !divides(w->dim, w->scale_dim, w->rank, &d))
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "weight \"%s\": dimension %d has %lld elements, which %lld scales do not divide", name, d,
                       (long long)w->dim[d], (long long)w->scale_dim[d]);
    return ALLOY_OK;
}

static alloy_status check_lut(ay_ctx *cx, const char *name, const ay_weight *w) {
    static const ay_dtype indices[] = {AY_U1, AY_U2, AY_U3, AY_U4, AY_U6, AY_U8, AY_NONE};
    static const ay_dtype entries[] = {AY_F16, AY_F32, AY_BF16, AY_I8, AY_U8, AY_NONE};
    int64_t dim[AY_MAX_RANK] = {0}, k = w->lut_dim[w->rank], vec = w->lut_dim[w->rank + 1];
    if (!is_one_of(w->data_dtype, indices) || !is_one_of(w->lut_dtype, entries))
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "weight \"%s\": a palette of %s with indices of %s is not supported", name,
                       ay_dtype_name(w->lut_dtype), ay_dtype_name(w->data_dtype));
    if (k != (int64_t)1 << ay_dtype_bits(w->data_dtype))
        return ay_fail(cx, ALLOY_E_MISMATCH, "weight \"%s\": a palette of %lld entries for indices of %s; %d were expected",
                       name, (long long)k, ay_dtype_name(w->data_dtype), 1 << ay_dtype_bits(w->data_dtype));
    memcpy(dim, w->dim, sizeof dim);
    if (vec < 1)
        return ay_fail(cx, ALLOY_E_MISMATCH, "weight \"%s\": palette entries of %lld numbers", name, (long long)vec);
    if (vec > 1) {
        int a = w->vector_axis;
        if (a < 0 || a >= w->rank || dim[a] % vec != 0)
            return ay_fail(cx, ALLOY_E_MISMATCH,
                           "weight \"%s\": palette vectors of %lld numbers do not fit along dimension %d", name,
                           (long long)vec, a);
        dim[a] /= vec;
    }
    int d = 0;
    if (w->rank > 0 && !divides(dim, w->lut_dim, w->rank, &d))
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "weight \"%s\": dimension %d has %lld indices, which %lld palettes do not divide", name, d,
                       (long long)dim[d], (long long)w->lut_dim[d]);
    return ALLOY_OK;
}

alloy_status ay_weight_check(ay_ctx *cx, const char *name, const ay_weight *w) {
    if (w->rank < 0 || w->rank > AY_MAX_RANK)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "weight \"%s\": %d dimensions; at most %d are supported", name, w->rank,
                       AY_MAX_RANK);
    if (ay_dtype_bits(w->data_dtype) == 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "weight \"%s\": unknown element type", name);
    if (count_of(w->dim, w->rank) < 0 || ay_weight_data_bytes(w) == SIZE_MAX)
        return ay_fail(cx, ALLOY_E_MISMATCH, "weight \"%s\": its shape is negative or too large", name);
    if (w->store == AY_STORE_BLOCK) return check_block(cx, name, w);
    if (w->store == AY_STORE_LUT) {
        if (count_of(w->lut_dim, w->rank + 2) < 0 || ay_weight_lut_bytes(w) == SIZE_MAX)
            return ay_fail(cx, ALLOY_E_MISMATCH, "weight \"%s\": the shape of its palettes is negative or too large", name);
        return check_lut(cx, name, w);
    }
    return ALLOY_OK;
}
