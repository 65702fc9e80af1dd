/* SPDX-License-Identifier: MIT
 *
 * Reading weights as they are stored. Scales and palettes form a grid over the weight; dimensions are first merged so that
 * the usual grids (per tensor, per channel, per block of a row) become one dimension and are read in long runs. Work goes
 * in pieces that stay in the first cache while codes become numbers.
 */
#include "base/isa.h"
#include "quant/convert.h"
#include "quant/weight.h"

#include <string.h>

enum { PIECE = 2048, SCALES = 256, TABLE = 4096 };

/* ---- the grid ------------------------------------------------------------------------------------------------------ */

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

/* Consecutive elements of one part of the grid. */
typedef struct run {
    int64_t part; /* its linear index */
    int64_t len;  /* elements from the asked one to the end of the part's row */
    int64_t row;  /* elements from the asked one to the end of the grid's row */
    int64_t each; /* elements of a part along the row */
} run;

static run run_at(const grid *g, int64_t i) {
    int last = g->rank - 1;
    int64_t row_len = g->dim[last], each = row_len / g->part[last], row = i / row_len, in_row = i % row_len;
    int64_t index = 0, stride = g->part[last];
    for (int d = last - 1; d >= 0; d--) {
        index += row % g->dim[d] / (g->dim[d] / g->part[d]) * stride;
        row /= g->dim[d];
        stride *= g->part[d];
    }
    return (run){index + in_row / each, each - in_row % each, row_len - in_row, each};
}

/* ---- blocks: value = scale * (code - offset) ----------------------------------------------------------------------- */

/* x[0 .. n) holds codes of one row of the grid, beginning within the run r. */
static void scale_row(const ay_weight *w, ay_affine_fn affine, run r, int64_t n, float *x) {
    float scale[SCALES], offset[SCALES];
    bool half = w->value_dtype == AY_F16;
    int64_t first = r.part, len = r.len;
    while (n > 0) {
        int64_t parts = ay_min_i64(SCALES, n <= len ? 1 : 1 + ay_div_up(n - len, r.each));
        ay_convert_to_f32(w->scale_dtype, w->scale, first, parts, scale);
        memset(offset, 0, sizeof offset);
        if (w->offset_dtype != AY_NONE && w->offset) ay_convert_to_f32(w->offset_dtype, w->offset, first, parts, offset);
        for (int64_t p = 0; p < parts; p++) {
            int64_t m = ay_min_i64(len, n);
            affine(x, m, scale[p], offset[p], half);
            x += m;
            n -= m;
            len = r.each;
        }
        first += parts;
    }
}

static void round_to_bf16(float *x, int64_t n) {
    uint16_t h[PIECE];
    ay_convert_from_f32(AY_BF16, x, n, h);
    ay_convert_to_f32(AY_BF16, h, 0, n, x);
}

static void read_block(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    grid g = make_grid(w->dim, w->scale_dim, w->rank);
    ay_affine_fn affine = ay_affine_at(ay_isa_best());
    for (int64_t done = 0; done < count;) {
        run r = run_at(&g, begin + done);
        int64_t n = ay_min_i64(ay_min_i64(PIECE, r.row), count - done);
        ay_convert_to_f32(w->data_dtype, w->data, begin + done, n, out + done);
        scale_row(w, affine, r, n, out + done);
        if (w->value_dtype == AY_BF16) round_to_bf16(out + done, n);
        done += n;
    }
}

/* ---- palettes: value = table of the group [code][v] ---------------------------------------------------------------- */

/* The palette of one group as float32, kept while the group stays the same. Palettes that are too large, or of which only
 * a few numbers are wanted, are not expanded. */
typedef struct palette {
    const ay_weight *w;
    ay_lookup_fn lookup;
    int64_t k, vec, group;
    float table[TABLE];
} palette;

/* Replaces the n codes in x by entry v of their vectors in palette `group`. */
static void look_up(palette *p, int64_t group, int64_t v, int64_t n, float *x) {
    const ay_weight *w = p->w;
    int64_t size = p->k * p->vec;
    if (group != p->group && (size > TABLE || n < size / 4)) {
        for (int64_t i = 0; i < n; i++)
            ay_convert_to_f32(w->lut_dtype, w->lut, group * size + (int64_t)x[i] * p->vec + v, 1, &x[i]);
        return;
    }
    if (group != p->group) ay_convert_to_f32(w->lut_dtype, w->lut, group * size, size, p->table);
    p->group = group;
    if (p->vec == 1) p->lookup(x, n, p->table, (int)p->k);
    else
        for (int64_t i = 0; i < n; i++) x[i] = p->table[(int64_t)x[i] * p->vec + v];
}

static void read_scalars(palette *p, int64_t begin, int64_t count, float *out) {
    const ay_weight *w = p->w;
    grid g = make_grid(w->dim, w->lut_dim, w->rank);
    for (int64_t done = 0; done < count;) {
        run r = run_at(&g, begin + done);
        int64_t n = ay_min_i64(ay_min_i64(PIECE, r.len), count - done);
        ay_convert_to_f32(w->data_dtype, w->data, begin + done, n, out + done);
        look_up(p, r.part, 0, n, out + done);
        done += n;
    }
}

/* Vectors along one axis: values [outer, codes along it * vec, inner] from codes [outer, codes along it, inner]. */
static void read_vectors(palette *p, int64_t begin, int64_t count, float *out) {
    const ay_weight *w = p->w;
    int64_t dim[AY_MAX_RANK], inner = 1, full = w->dim[w->vector_axis];
    memcpy(dim, w->dim, sizeof dim);
    dim[w->vector_axis] /= p->vec;
    for (int d = w->vector_axis + 1; d < w->rank; d++) inner *= dim[d];
    grid g = make_grid(dim, w->lut_dim, w->rank);
    for (int64_t done = 0; done < count;) {
        int64_t e = begin + done, in = e % inner, along = e / inner % full, outer = e / inner / full;
        int64_t code = (outer * dim[w->vector_axis] + along / p->vec) * inner + in;
        run r = run_at(&g, code);
        int64_t n = ay_min_i64(ay_min_i64(inner - in, r.len), ay_min_i64(PIECE, count - done));
        ay_convert_to_f32(w->data_dtype, w->data, code, n, out + done);
        look_up(p, r.part, along % p->vec, n, out + done);
        done += n;
    }
}

static void read_lut(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    palette p; /* not cleared: the table is 16 KB */
    p.w = w;
    p.lookup = ay_lookup_at(ay_isa_best());
    p.k = w->lut_dim[w->rank];
    p.vec = w->lut_dim[w->rank + 1];
    p.group = -1;
    if (p.vec > 1) read_vectors(&p, begin, count, out);
    else read_scalars(&p, begin, count, out);
}

void ay_weight_read(const ay_weight *w, int64_t begin, int64_t count, float *out) {
    if (count <= 0) return;
    switch (w->store) {
    case AY_STORE_PLAIN: ay_convert_to_f32(w->data_dtype, w->data, begin, count, out); return;
    case AY_STORE_BLOCK: read_block(w, begin, count, out); return;
    case AY_STORE_LUT: read_lut(w, begin, count, out);
    }
}
