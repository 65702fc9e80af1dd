/* SPDX-License-Identifier: MIT
 *
 * Palettes: one table for a whole tensor and, where the graph has room for it, a factor for each row. Three passes:
 *   1. the root mean square of every row, which is the first guess of its factor;
 *   2. a histogram of the numbers in units of their row's size, by their half-precision code (65536 of them), weighted by
 *      the square of the factor since that is what an error there costs;
 *   3. every number to the nearest entry, and then the factor that fits these entries best.
 * Between 2 and 3 the table is found: in one dimension k-means has an exact solution by dynamic programming. It runs over
 * 2048 cells, placed as an optimal quantiser of 2048 levels would place them (cube root of the density, Panter and Dite),
 * and Lloyd's iteration over all codes takes off what the cells' borders cost.
 *
 * Factors are at most about 1: the product before them is as large as the largest row's, so half precision holds it.
 */
#include "quant/quantize.h"

#include "base/half.h"
#include "base/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CODES = 1 << 16, CELLS = 2048, LEVELS = 256, SAMPLES = 1 << 23, ONE = 1 << 24 };

typedef struct palette {
    const ay_weight *w;
    int64_t row_len;
    bool half, factors;
    int k;
    double unit;          /* root mean square of the largest row */
    double *size;         /* of every row: sum of squares, then root mean square */
    float *factor;        /* of every row */
    float *error2;        /* of every row */
    uint64_t *count;      /* [threads][CODES] */
    float entry[LEVELS];  /* in units */
    float stored[LEVELS]; /* as the table holds them */
    uint8_t *nearest;     /* [CODES] */
} palette;

/* ---- pass 1 and 2 -------------------------------------------------------------------------------------------------- */

static double row_square(const float *x, int64_t n) {
    double s[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int k = 0; k < 4; k++) s[k] += (double)x[i + k] * (double)x[i + k];
    }
    for (; i < n; i++) s[0] += (double)x[i] * (double)x[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

static void size_tile(void *arg, int64_t first, int64_t n, const float *x, uint8_t *out, float *scratch, int thread) {
    palette *p = arg;
    for (int64_t r = 0; r < n; r++) p->size[first + r] = row_square(x + r * p->row_len, p->row_len);
}

/* Half codes of a row in its own units, into `codes`. */
static void row_codes(const palette *p, int64_t row, const float *x, float *scratch, uint16_t *codes) {
    double size = (double)p->factor[row] * p->unit;
    float inv = size > 1e-30 ? (float)(1 / size) : 0;
    for (int64_t i = 0; i < p->row_len; i++) {
        float u = x[i] * inv;
        u = u > 65504.0f ? 65504.0f : u;
        scratch[i] = u < -65504.0f ? -65504.0f : u;
    }
    ay_convert_from_f32(AY_F16, scratch, p->row_len, codes);
}

static void count_tile(void *arg, int64_t first, int64_t n, const float *x, uint8_t *out, float *scratch, int thread) {
    const palette *p = arg;
    uint64_t *count = p->count + (size_t)thread * CODES;
    uint16_t *codes = (uint16_t *)(scratch + p->row_len);
    for (int64_t r = 0; r < n; r++) {
        double f = p->factor[first + r];
        uint64_t weight = (uint64_t)(f * f * ONE + 0.5); /* whole numbers: sums do not depend on the order */
        if (!weight) continue;
        row_codes(p, first + r, x + r * p->row_len, scratch, codes);
        for (int64_t i = 0; i < p->row_len; i++) count[codes[i]] += weight;
    }
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

/* The codes that occur, by value, and their sums before each. */
typedef struct points {
    int n;
    float *v;          /* ascending */
    double *w, *s, *q; /* [n + 1]: weight, weight v, weight v v of all before */
} points;

static double cost(const points *p, int a, int b) {
    double w = p->w[b] - p->w[a], s = p->s[b] - p->s[a];
    return w > 0 ? p->q[b] - p->q[a] - s * s / w : 0;
}

static void points_from(const uint64_t *count, points *p) {
    p->n = 0;
    p->w[0] = p->s[0] = p->q[0] = 0;
    for (int i = 0; i < CODES; i++) { /* from the most negative: ffff, fffe ... 8000, then 0000 ... */
        int code = i < CODES / 2 ? CODES - 1 - i : i - CODES / 2;
        if (!count[code]) continue;
        double v = (double)ay_f16_to_f32((uint16_t)code), w = (double)count[code];
        p->v[p->n++] = (float)v;
        p->w[p->n] = p->w[p->n - 1] + w;
        p->s[p->n] = p->s[p->n - 1] + w * v;
        p->q[p->n] = p->q[p->n - 1] + w * v * v;
    }
}

/* Borders of at most CELLS cells over the points: cell c is points [at[c], at[c + 1]). */
static int cells_of(const points *p, int *at) {
    double total = 0, sum = 0;
    int n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < p->n; i++) {
            double width = (i + 1 < p->n ? p->v[i + 1] : p->v[i]) - (i > 0 ? p->v[i - 1] : p->v[i]);
            double part = cbrt((p->w[i + 1] - p->w[i]) * width * width);
            if (pass == 0) total += part;
            else {
                if (n == 0 || sum >= total * n / CELLS) at[n++] = i;
                sum += part;
                if (n == CELLS) break;
            }
        }
    }
    at[n] = p->n;
    return n;
}

typedef struct layers {
    const points *p;
    const int *at;
    const double *before; /* best error of cells [0, i) with one cluster fewer */
    double *now;
    uint16_t *from; /* where the last cluster begins */
} layers;

/* Best split for cells [lo, hi) of this layer, knowing that it lies in [a, b]: borders move one way only. */
static void fill_layer(const layers *l, int lo, int hi, int a, int b) {
    if (lo >= hi) return;
    int mid = (lo + hi) / 2, best = a;
    double least = HUGE_VAL;
    for (int j = a; j <= b && j <= mid; j++) {
        double e = l->before[j] + cost(l->p, l->at[j], l->at[mid]);
        if (e < least) least = e, best = j;
    }
    l->now[mid] = least;
    l->from[mid] = (uint16_t)best;
    fill_layer(l, lo, mid, a, best);
    fill_layer(l, mid + 1, hi, best, b);
}

/* Exact k-means of the cells; borders of clusters as points. */
static bool best_borders(const points *p, const int *at, int n, int k, int *border) {
    double *error = malloc((size_t)(n + 1) * 2 * sizeof *error);
    uint16_t *from = malloc((size_t)(n + 1) * (size_t)k * sizeof *from);
    if (error && from) {
        double *before = error, *now = error + n + 1;
        for (int i = 0; i <= n; i++) before[i] = cost(p, at[0], at[i]);
        for (int c = 1; c < k; c++) {
            layers l = {p, at, before, now, from + (size_t)c * (size_t)(n + 1)};
            fill_layer(&l, 0, n + 1, 0, n);
            double *t = before;
            before = now;
            now = t;
        }
        border[k] = p->n;
        int end = n;
        for (int c = k - 1; c > 0; c--) {
            end = from[(size_t)c * (size_t)(n + 1) + (size_t)end];
            border[c] = at[end];
        }
        border[0] = 0;
    }
    bool ok = error && from;
    free(error);
    free(from);
    return ok;
}

static int first_above(const points *p, double v) {
    int lo = 0, hi = p->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if ((double)p->v[mid] > v) hi = mid;
        else lo = mid + 1;
    }
    return lo;
}

/* Entries are the means between borders, borders the middles between entries, until nothing moves. */
static void lloyd(const points *p, int k, int *border, float *entry) {
    for (int round = 0; round < 100; round++) {
        bool moved = false;
        for (int c = 0; c < k; c++) {
            double w = p->w[border[c + 1]] - p->w[border[c]];
            if (w > 0) entry[c] = (float)((p->s[border[c + 1]] - p->s[border[c]]) / w);
            else entry[c] = c > 0 ? entry[c - 1] : p->n ? p->v[0] : 0;
        }
        for (int c = 1; c < k; c++) {
            int b = first_above(p, 0.5 * ((double)entry[c - 1] + (double)entry[c]));
            b = b < border[c - 1] ? border[c - 1] : b;
            moved |= b != border[c];
            border[c] = b;
        }
        if (!moved) break;
    }
}

static alloy_status find_table(ay_ctx *cx, palette *t, const uint64_t *count) {
    points p = {.v = malloc(CODES * sizeof *p.v), .w = malloc((CODES + 1) * 3 * sizeof *p.w)};
    int *at = malloc((CELLS + 1) * sizeof *at), border[LEVELS + 1];
    alloy_status st = p.v && p.w && at ? ALLOY_OK : ay_nomem(cx);
    if (st == ALLOY_OK) {
        p.s = p.w + CODES + 1;
        p.q = p.s + CODES + 1;
        points_from(count, &p);
        int n = cells_of(&p, at);
        if (best_borders(&p, at, n, t->k, border)) lloyd(&p, t->k, border, t->entry);
        else st = ay_nomem(cx);
    }
    free(p.v);
    free(p.w);
    free(at);
    return st;
}

/* The nearest entry for every half code. */
static void map_codes(palette *t) {
    for (int i = 0; i < t->k; i++) t->stored[i] = ay_quant_round((float)((double)t->entry[i] * t->unit), t->half);
    for (int sign = 0; sign < 2; sign++) {
        for (int m = 0; m <= 0x7c00; m++) { /* up to infinity */
            int code = m | sign << 15, lo = 0, hi = t->k - 1;
            double v = (double)ay_f16_to_f32((uint16_t)(m == 0x7c00 ? code - 1 : code)) * t->unit;
            while (lo < hi) { /* the last entry whose lower border is not above v */
                int mid = (lo + hi + 1) / 2;
                if (0.5 * ((double)t->stored[mid - 1] + (double)t->stored[mid]) <= v) lo = mid;
                else hi = mid - 1;
            }
            t->nearest[code] = (uint8_t)lo;
        }
    }
}

/* ---- pass 3 -------------------------------------------------------------------------------------------------------- */

static void pack(const uint8_t *index, int64_t n, int bits, uint8_t *out) {
    unsigned held = 0, have = 0;
    for (int64_t i = 0; i < n; i++) {
        held |= (unsigned)index[i] << have;
        for (have += (unsigned)bits; have >= 8; have -= 8, held >>= 8) *out++ = (uint8_t)held;
    }
    if (have) *out = (uint8_t)held;
}

/* The factor that fits best, and the squared error with it as it is stored. */
static void fit_row(palette *p, int64_t row, const float *x, const uint8_t *index) {
    enum { N = 8 };
    float xe[N] = {0}, ee[N] = {0}, xx[N] = {0};
    double sxe = 0, see = 0, sxx = 0;
    for (int64_t i = 0; i < p->row_len; i++) {
        float e = p->stored[index[i]];
        xe[i % N] += x[i] * e;
        ee[i % N] += e * e;
        xx[i % N] += x[i] * x[i];
    }
    for (int i = 0; i < N; i++) sxe += xe[i], see += ee[i], sxx += xx[i];
    if (p->factors) p->factor[row] = see > 0 && p->factor[row] > 0 ? ay_quant_round((float)(sxe / see), p->half) : 0;
    double f = p->factor[row], error = sxx - 2 * f * sxe + f * f * see;
    p->error2[row] = (float)(error > 0 ? error : 0);
}

static void assign_tile(void *arg, int64_t first, int64_t n, const float *x, uint8_t *out, float *scratch, int thread) {
    palette *p = arg;
    uint16_t *codes = (uint16_t *)(scratch + p->row_len);
    uint8_t *index = (uint8_t *)(scratch + 2 * p->row_len);
    for (int64_t r = 0; r < n; r++) {
        const float *row = x + r * p->row_len;
        uint8_t *at = index + r * p->row_len;
        row_codes(p, first + r, row, scratch, codes);
        for (int64_t i = 0; i < p->row_len; i++) at[i] = p->nearest[codes[i]];
        fit_row(p, first + r, row, at);
    }
    pack(index, n * p->row_len, ay_dtype_bits(p->w->data_dtype), out);
}

/* ---- the whole ----------------------------------------------------------------------------------------------------- */

/* From sums of squares to factors; false when there is nothing but zeros (or something that is not a number). */
static void first_factors(palette *p, int64_t n, ay_quantized *out) {
    double most = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += p->size[i];
        p->size[i] = sqrt(p->size[i] / (double)p->row_len);
        most = p->size[i] > most ? p->size[i] : most;
    }
    out->norm2 = sum;
    p->unit = p->factors ? most : sqrt(sum / (double)n / (double)p->row_len);
    for (int64_t i = 0; i < n; i++) {
        p->factor[i] = !p->factors ? 1.0f : p->unit > 0 ? ay_quant_round((float)(p->size[i] / p->unit), p->half) : 0;
    }
}

static alloy_status run_passes(palette *t, ay_quant_pass *p, int threads, ay_quantized *out) {
    ay_ctx *cx = p->cx;
    p->tile = size_tile;
    AY_TRY(ay_quant_run(p));
    first_factors(t, p->n_rows, out);
    if (!isfinite(out->norm2)) return ALLOY_OK; /* the caller looks for the number */
    p->tile = count_tile;
    p->every = ay_max_i64(1, p->n_rows * p->row_len / SAMPLES);
    AY_TRY(ay_quant_run(p));
    for (int i = 1; i < threads; i++) {
        for (int k = 0; k < CODES; k++) t->count[k] += t->count[(size_t)i * CODES + (size_t)k];
    }
    AY_TRY(find_table(cx, t, t->count));
    map_codes(t);
    p->tile = assign_tile;
    p->every = 1;
    p->last = true;
    p->bits = ay_dtype_bits(p->w->data_dtype);
    AY_TRY(ay_quant_run(p));
    for (int64_t i = 0; i < p->n_rows; i++) out->error2 += (double)t->error2[i];
    ay_quant_store(t->stored, t->k, t->half, out->lut);
    ay_quant_store(t->factor, p->n_rows, t->half, out->factor);
    return ALLOY_OK;
}

alloy_status ay_quant_palette(ay_ctx *cx, const char *name, const ay_weight *w, bool factors, const ay_quant_rows *rows,
                              ay_quant_put put, void *user, ay_quantized *out) {
    int threads = ay_pool_threads(cx->pool);
    int64_t n = w->dim[0], len = 1;
    for (int i = 1; i < w->rank; i++) len *= w->dim[i];
    palette t = {
        .w = w, .row_len = len, .half = w->value_dtype == AY_F16, .factors = factors, .k = (int)w->lut_dim[w->rank]};
    ay_quant_pass p = {.cx = cx,
                       .name = name,
                       .w = w,
                       .rows = rows,
                       .n_rows = n,
                       .row_len = len,
                       .every = 1,
                       .put = put,
                       .put_user = user,
                       .arg = &t};
    p.extra = (size_t)(2 * len) + (size_t)ay_max_i64(1 << 15, 8 * len) / 4 +
              64; /* a row of numbers, of codes; a tile of indices */
    size_t size = t.half ? 2 : 4;
    t.size = malloc((size_t)n * sizeof *t.size);
    t.factor = malloc((size_t)n * 2 * sizeof *t.factor);
    t.count = calloc((size_t)threads * CODES, sizeof *t.count);
    t.nearest = calloc(CODES, 1);
    out->lut = malloc((size_t)t.k * size);
    out->factor = malloc((size_t)n * size);
    alloy_status st = ay_nomem(cx);
    if (t.size && t.factor && t.count && t.nearest && out->lut && out->factor) {
        t.error2 = t.factor + n;
        st = run_passes(&t, &p, threads, out);
    }
    free(t.size);
    free(t.factor);
    free(t.count);
    free(t.nearest);
    return st;
}
