/* SPDX-License-Identifier: MIT
 *
 * A parameter's numbers with its adapters, in float32. Adapters of several files act one after another in the order of the
 * files: a difference, times the strength, is added to what is there. DoRA then scales each row (or column) of the sum to the
 * norm it has learned. What a strength is to it depends on who wrote it: PEFT (lora_magnitude_vector) scales the sum with the
 * weakened difference (peft/tuners/lora/layer.py, Linear.merge); with LyCORIS' norms (dora_scale) the whole change is weakened
 * (ComfyUI, weight_decompose; LyCORIS, functional/general.py, apply_dora_scale).
 */
#include "source/lora_internal.h"

#include "base/isa.h"
#include "base/pool.h"
#include "quant/weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = 8, BLOCK_COLS = 512 };

/* ---- differences ------------------------------------------------------------------------------------------------------ */

static void multiply(const lora_matrix *a, const lora_matrix *b, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out) {
    ay_isa isa = ay_isa_best();
    ay_product_fn fn = ay_product_c;
#if defined(__x86_64__)
    if (ay_isa_allows(isa, AY_ISA_AVX512)) fn = ay_product_avx512;
    else if (ay_isa_allows(isa, AY_ISA_AVX2)) fn = ay_product_avx2;
#else
    (void)isa;
#endif
    fn(a->x + row * a->cols, a->cols, b->x + col, b->cols, b->rows, rows, cols, out, cols);
}

static void kronecker(const lora_matrix *a, const lora_matrix *b, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out) {
    for (int64_t i = 0; i < rows; i++) {
        const float *left = a->x + (row + i) / b->rows * a->cols, *right = b->x + (row + i) % b->rows * b->cols;
        for (int64_t j = 0; j < cols;) { /* one number of the left factor at a time */
            int64_t c = col + j, at = c % b->cols, n = ay_min_i64(b->cols - at, cols - j);
            for (int64_t k = 0; k < n; k++) out[i * cols + j + k] = left[c / b->cols] * right[at + k];
            j += n;
        }
    }
}

static void whole(const lora_term *t, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out) {
    const lora_module *m = t->patch->module;
    int64_t width = t->patch->bias ? 1 : m->cols;
    for (int64_t i = 0; i < rows; i++)
        ay_convert_to_f32(t->diff->type.dtype, ay_st_data(m->file->st, t->diff), (row + i) * width + col, cols, out + i * cols);
}

/* Rows of the module, not of the parameter. */
static void difference(const lora_term *t, int64_t row, int64_t rows, int64_t col, int64_t cols, float *out) {
    float other[BLOCK_ROWS * BLOCK_COLS];
    switch (t->form) {
    case FORM_LOW_RANK: multiply(&t->a[0], &t->b[0], row, rows, col, cols, out); break;
    case FORM_HADAMARD:
        multiply(&t->a[0], &t->b[0], row, rows, col, cols, out);
        multiply(&t->a[1], &t->b[1], row, rows, col, cols, other);
        for (int64_t i = 0; i < rows * cols; i++) out[i] *= other[i];
        break;
    case FORM_KRONECKER: kronecker(&t->a[0], &t->a[1], row, rows, col, cols, out); break;
    default: whole(t, row, rows, col, cols, out);
    }
}

/* x [rows, cols] of the parameter from (row, col), lines `ld` apart. */
static void apply_term(const lora_term *t, int64_t all_rows, int64_t row, int64_t rows, int64_t col, int64_t cols, float *x, int64_t ld) {
    float d[BLOCK_ROWS * BLOCK_COLS], before[BLOCK_ROWS * BLOCK_COLS];
    for (int64_t i = 0; t->blend != 1 && i < rows; i++) memcpy(before + i * cols, x + i * ld, (size_t)cols * sizeof *x);
    for (int64_t done = 0; done < rows;) { /* in runs that are runs of the module too */
        int64_t at = row + done, n = rows - done, half = all_rows / 2, from = at + t->patch->offset;
        if (t->patch->swapped) {
            n = ay_min_i64(n, at < half ? half - at : all_rows - at);
            from = at < half ? at + half : at - half;
        }
        difference(t, from, n, col, cols, d);
        for (int64_t i = 0; i < n; i++) {
            float *line = x + (done + i) * ld;
            for (int64_t j = 0; j < cols; j++) line[j] += t->scale * d[i * cols + j];
        }
        done += n;
    }
    for (int64_t i = 0; t->by_row && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) x[i * ld + j] *= t->by_row[row + i];
    }
    for (int64_t i = 0; t->by_column && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) x[i * ld + j] *= t->by_column[col + j];
    }
    for (int64_t i = 0; t->blend != 1 && i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) x[i * ld + j] = before[i * cols + j] + t->blend * (x[i * ld + j] - before[i * cols + j]);
    }
}

static void apply_terms(const ay_lora_param *p, int64_t row, int64_t rows, int64_t col, int64_t cols, float *x, int64_t ld) {
    for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
        for (int64_t j = 0; j < cols; j += BLOCK_COLS) {
            int64_t r = ay_min_i64(BLOCK_ROWS, rows - i), c = ay_min_i64(BLOCK_COLS, cols - j);
            for (int k = 0; k < p->ready; k++)
                apply_term(&p->terms[k], ay_lora_rows(&p->type), row + i, r, col + j, c, x + i * ld + j, ld);
        }
    }
}

void ay_lora_apply(const ay_lora_param *p, int64_t begin, int64_t count, float *x) {
    int64_t rows = ay_lora_rows(&p->type), width = rows ? ay_type_count(&p->type) / rows : 0;
    while (count > 0 && width > 0) { /* the rest of a row, whole rows, the beginning of a row */
        int64_t row = begin / width, col = begin % width, n = ay_min_i64(count, width - col), full = col == 0 ? count / width : 0;
        if (full > 0) n = full * width;
        apply_terms(p, row, full > 0 ? full : 1, col, full > 0 ? width : n, x, width);
        x += n;
        begin += n;
        count -= n;
    }
}

/* ---- DoRA's norms ------------------------------------------------------------------------------------------------------- */

typedef struct norm_job {
    const ay_lora_param *p;
    const ay_origin *from;
    int64_t rows, width;
    double *sums; /* squares, of each row or of each column */
} norm_job;

enum { NORM_TILE = 64 };

static void row_norms(void *arg, int64_t tile, int thread) {
    norm_job *j = arg;
    float x[BLOCK_COLS];
    for (int64_t r = tile * NORM_TILE; r < ay_min_i64((tile + 1) * NORM_TILE, j->rows); r++) {
        for (int64_t c = 0; c < j->width; c += BLOCK_COLS) {
            int64_t n = ay_min_i64(BLOCK_COLS, j->width - c);
            ay_origin_read(j->from, r * j->width + c, n, x);
            apply_terms(j->p, r, 1, c, n, x, n);
            for (int64_t k = 0; k < n; k++) j->sums[r] += (double)x[k] * (double)x[k];
        }
    }
}

static void column_norms(void *arg, int64_t tile, int thread) {
    norm_job *j = arg;
    float x[BLOCK_ROWS * NORM_TILE];
    int64_t c = tile * NORM_TILE, n = ay_min_i64(NORM_TILE, j->width - c);
    for (int64_t r = 0; r < j->rows; r += BLOCK_ROWS) {
        int64_t m = ay_min_i64(BLOCK_ROWS, j->rows - r);
        for (int64_t i = 0; i < m; i++) ay_origin_read(j->from, (r + i) * j->width + c, n, x + i * n);
        apply_terms(j->p, r, m, c, n, x, n);
        for (int64_t i = 0; i < m; i++) {
            for (int64_t k = 0; k < n; k++) j->sums[c + k] += (double)x[i * n + k] * (double)x[i * n + k];
        }
    }
}

/* Squares of the parameter with its ready terms, added to `sums`. */
static alloy_status add_squares(ay_ctx *cx, const ay_lora_param *p, lora_norm norm, double *sums) {
    ay_origin o;
    norm_job j = {.p = p, .from = &o, .rows = ay_lora_rows(&p->type), .sums = sums};
    if (!ay_source_find(p->part->source, p->part->arch, p->name, &p->type, &o) || !o.fits)
        return ay_fail(cx, ALLOY_E_INTERNAL, "no tensor \"%s\"", p->name);
    o.lora = NULL;
    j.width = ay_type_count(&p->type) / j.rows;
    bool rows = norm == NORM_ROWS;
    ay_parallel(cx->pool, ay_div_up(rows ? j.rows : j.width, NORM_TILE), rows ? row_norms : column_norms, &j, &cx->stop);
    return ay_check_stop(cx);
}

static alloy_status row_factors(ay_ctx *cx, const ay_lora_param *p, lora_term *t) {
    int64_t rows = ay_lora_rows(&p->type);
    const lora_module *m = t->patch->module;
    const ay_st_tensor *g = m->role[ROLE_MAGNITUDE] ? m->role[ROLE_MAGNITUDE] : m->role[ROLE_DORA_SCALE];
    float *by_row = malloc((size_t)rows * sizeof *by_row);
    double *sums = calloc((size_t)rows, sizeof *sums);
    alloy_status st = by_row && sums ? add_squares(cx, p, NORM_ROWS, sums) : ay_nomem(cx);
    for (int64_t i = 0; st == ALLOY_OK && i < rows; i++) {
        int64_t half = rows / 2, from = t->patch->swapped ? (i < half ? i + half : i - half) : i + t->patch->offset;
        float learned;
        ay_convert_to_f32(g->type.dtype, ay_st_data(m->file->st, g), from, 1, &learned);
        by_row[i] = sums[i] > 0 ? (float)((double)learned / sqrt(sums[i])) : 0;
    }
    free(sums);
    t->by_row = by_row;
    return st;
}

static alloy_status prepare(ay_ctx *cx, ay_lora_param *p, const lora_module *until);

/* Norms of columns run over all the parameters that a fused layer is split into. */
static alloy_status add_other(ay_ctx *cx, const ay_lora_param *other, const lora_module *m, double *sums) {
    ay_lora_param copy = *other;
    copy.terms = NULL;
    copy.ready = copy.users = 0;
    alloy_status st = prepare(cx, &copy, m);
    if (st == ALLOY_OK) st = add_squares(cx, &copy, NORM_COLUMNS, sums);
    ay_lora_release(&copy);
    return st;
}

static alloy_status column_factors(ay_ctx *cx, const ay_lora_param *p, lora_module *m) {
    const ay_st_tensor *g = m->role[ROLE_DORA_SCALE];
    int64_t width = m->cols, kernel = width / ay_type_count(&g->type);
    float *factors = malloc((size_t)width * sizeof *factors), learned;
    double *sums = calloc((size_t)width, sizeof *sums);
    alloy_status st = factors && sums ? ALLOY_OK : ay_nomem(cx);
    for (ay_lora_param **o = m->params; st == ALLOY_OK && o && *o; o++)
        st = strcmp((*o)->name, p->name) == 0 ? add_squares(cx, p, NORM_COLUMNS, sums) : add_other(cx, *o, m, sums);
    for (int64_t i = 0; st == ALLOY_OK && i < width; i += kernel) { /* an input's norm is over its whole kernel */
        double sum = 0;
        for (int64_t k = 0; k < kernel; k++) sum += sums[i + k];
        ay_convert_to_f32(g->type.dtype, ay_st_data(m->file->st, g), i / kernel, 1, &learned);
        for (int64_t k = 0; k < kernel; k++) factors[i + k] = sum > 0 ? (float)((double)learned / sqrt(sum)) : 0;
    }
    free(sums);
    if (st == ALLOY_OK) m->column_norms = factors;
    else free(factors);
    return st;
}

/* ---- before and after ------------------------------------------------------------------------------------------------------ */

/* The terms in order; with `until`, up to that module's, without its norms. */
static alloy_status prepare(ay_ctx *cx, ay_lora_param *p, const lora_module *until) {
    p->terms = calloc((size_t)p->n + 1, sizeof *p->terms);
    if (!p->terms) return ay_nomem(cx);
    for (int i = 0; i < p->n; i++) {
        lora_module *m = p->patches[i].module;
        AY_TRY(ay_lora_read_term(cx, &p->patches[i], &p->terms[i]));
        p->ready = i + 1;
        float blend = p->terms[i].blend;
        p->terms[i].blend = 1; /* norms are of the whole sum */
        if (m == until) return ALLOY_OK;
        if (!p->patches[i].bias && m->norm == NORM_ROWS) AY_TRY(row_factors(cx, p, &p->terms[i]));
        if (!p->patches[i].bias && m->norm == NORM_COLUMNS && !m->column_norms) AY_TRY(column_factors(cx, p, m));
        p->terms[i].by_column = !p->patches[i].bias && m->norm == NORM_COLUMNS ? m->column_norms : NULL;
        p->terms[i].blend = blend;
    }
    return ALLOY_OK;
}

alloy_status ay_lora_prepare(ay_ctx *cx, ay_lora_param *p) {
    if (p->users++) return ALLOY_OK;
    alloy_status st = prepare(cx, p, NULL);
    if (st != ALLOY_OK) {
        p->users = 1;
        ay_lora_release(p);
    }
    return st;
}

/* The file's pages, too, are done with. */
static void drop(const lora_module *m) {
    for (int r = 0; r < ROLES; r++) {
        if (m->role[r]) ay_map_drop(&m->file->st->map, m->role[r]->offset, m->role[r]->bytes);
    }
}

void ay_lora_release(ay_lora_param *p) {
    if (p->users > 0 && --p->users > 0) return;
    for (int i = 0; p->terms && i < p->n; i++) {
        ay_lora_free_term(&p->terms[i]);
        drop(p->patches[i].module);
    }
    free(p->terms);
    p->terms = NULL;
    p->ready = 0;
}
