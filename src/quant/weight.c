/* SPDX-License-Identifier: MIT
 *
 * Reading weights as they are stored. Scales and palette groups form a grid over the weight; dimensions are first merged
 * so that the usual grids (per tensor, per channel, per block of a row) become one dimension and are read in long runs.
 */
#include "quant/weight.h"

#include <string.h>

enum { CHUNK = 512 };

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

/* ---- the grid of scales or palettes -------------------------------------------------------------------------------- */

/* dim[i] elements lie in part[i] equal parts; neighbours are merged where that leaves the linear part index the same:
 * where the right one is in one part, or the left one in parts of one element. */
typedef struct grid {
    int rank;
    int64_t dim[AY_MAX_RANK], part[AY_MAX_RANK];
} grid;

static grid make_grid(const int64_t *dim, const int64_t *part, int rank) {
    grid g = {.rank = 1, .dim = {1}, .part = {1}};
    for (int i = 0; i < rank; i++) {
        int last = g.rank - 1;
        if (part[i] == 1 || g.part[last] == g.dim[last]) {
            g.dim[last] *= dim[i];
            g.part[last] *= part[i];
        } else {
            g.dim[g.rank] = dim[i];
            g.part[g.rank++] = part[i];
        }
    }
    return g;
}

/* Where element `i` of the grid lies: its part's linear index at the beginning of its row, and its place in the row. */
static int64_t grid_row(const grid *g, int64_t i, int64_t *in_row) {
    int last = g->rank - 1;
    int64_t row = i / g->dim[last], index = 0, stride = g->part[last];
    *in_row = i % g->dim[last];
    for (int d = last - 1; d >= 0; d--) {
        index += row % g->dim[d] / (g->dim[d] / g->part[d]) * stride;
        row /= g->dim[d];
        stride *= g->part[d];
    }
    return index;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* What the op gives is a number of type value_dtype. */
static void round_to(ay_dtype t, float *x, int64_t n) {
    uint16_t half[CHUNK];
    if (t != AY_F16 && t != AY_BF16) return;
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t m = ay_min_i64(CHUNK, n - i);
        ay_convert_from_f32(t, x + i, m, half);
        ay_convert_to_f32(t, half, 0, m, x + i);
    }
}

/* out[0 .. n) holds codes of one row, the first at place `at` of the row; parts are `run` long, the row's first is `part`. */
static void scale_row(const ay_weight *w, int64_t part, int64_t at, int64_t run, int64_t n, float *out) {
    float scale[CHUNK], offset[CHUNK];
    int64_t first = part + at / run, skip = at % run;
    while (n > 0) {
        int64_t parts = ay_min_i64(CHUNK, ay_div_up(skip + n, run));
        ay_convert_to_f32(w->scale_dtype, w->scale, first, parts, scale);
        if (w->offset_dtype != AY_NONE && w->offset) ay_convert_to_f32(w->offset_dtype, w->offset, first, parts, offset);
        else memset(offset, 0, (size_t)parts * sizeof offset[0]);
        if (run == 1) {
            for (int64_t i = 0; i < parts; i++) out[i] = scale[i] * (out[i] - offset[i]);
            out += parts;
            n -= parts;
        } else {
            for (int64_t p = 0; p < parts; p++) {
                int64_t m = ay_min_i64(run - skip, n);
                float s = scale[p], o = offset[p];
                for (int64_t i = 0; i < m; i++) out[i] = s * (out[i] - o);
                out += m;
                n -= m;
                skip = 0;
            }
        }
        first += parts;
    }
}

static void read_block(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    grid g = make_grid(w->dim, w->scale_dim, w->rank);
    int64_t row_len = g.dim[g.rank - 1], run = row_len / g.part[g.rank - 1];
    ay_convert_to_f32(w->data_dtype, w->data, begin, count, out);
    for (int64_t done = 0; done < count;) {
        int64_t at, part = grid_row(&g, begin + done, &at), n = ay_min_i64(row_len - at, count - done);
        scale_row(w, part, at, run, n, out + done);
        done += n;
    }
    round_to(w->value_dtype, out, count);
}

/* Replaces the n indices in x by the entries of palette `group`. */
static void look_up(const ay_weight *w, int64_t group, int64_t n, float *x) {
    float table[256];
    int64_t k = w->lut_dim[w->rank];
    if (n < k / 4) { /* a palette per few numbers: not worth expanding it */
        for (int64_t i = 0; i < n; i++) ay_convert_to_f32(w->lut_dtype, w->lut, group * k + (int64_t)x[i], 1, &x[i]);
        return;
    }
    ay_convert_to_f32(w->lut_dtype, w->lut, group * k, k, table);
    for (int64_t i = 0; i < n; i++) x[i] = table[(int)x[i]];
}

static void read_lut(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    grid g = make_grid(w->dim, w->lut_dim, w->rank);
    int64_t row_len = g.dim[g.rank - 1], run = row_len / g.part[g.rank - 1];
    ay_convert_to_f32(w->data_dtype, w->data, begin, count, out);
    for (int64_t done = 0; done < count;) {
        int64_t at, part = grid_row(&g, begin + done, &at), n = ay_min_i64(run - at % run, count - done);
        look_up(w, part + at / run, n, out + done);
        done += n;
    }
}

/* Vectors of `vec` numbers along one axis: [outer, dim / vec indices, inner]; element by element. */
static void read_lut_vectors(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    int axis = w->vector_axis;
    int64_t k = w->lut_dim[w->rank], vec = w->lut_dim[w->rank + 1], dim[AY_MAX_RANK];
    memcpy(dim, w->dim, sizeof dim);
    dim[axis] /= vec;
    grid g = make_grid(dim, w->lut_dim, w->rank);
    int64_t inner = count_of(w->dim + axis + 1, w->rank - axis - 1), run = g.dim[g.rank - 1] / g.part[g.rank - 1];
    for (int64_t i = 0; i < count; i++) {
        int64_t e = begin + i, in = e % inner, along = e / inner % w->dim[axis], outer = e / inner / w->dim[axis], at;
        int64_t index = (outer * dim[axis] + along / vec) * inner + in;
        int64_t group = grid_row(&g, index, &at);
        float code;
        ay_convert_to_f32(w->data_dtype, w->data, index, 1, &code);
        ay_convert_to_f32(w->lut_dtype, w->lut, ((group + at / run) * k + (int64_t)code) * vec + along % vec, 1, &out[i]);
    }
}

void ay_weight_read(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    if (count <= 0) return;
    switch (w->store) {
    case AY_STORE_PLAIN: ay_convert_to_f32(w->data_dtype, w->data, begin, count, out); return;
    case AY_STORE_BLOCK: read_block(w, begin, count, out); return;
    case AY_STORE_LUT:
        if (w->lut_dim[w->rank + 1] > 1) read_lut_vectors(w, begin, count, out);
        else read_lut(w, begin, count, out);
    }
}
