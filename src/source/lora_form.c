/* SPDX-License-Identifier: MIT
 *
 * What the tensors of one layer make. Shapes and scales are LyCORIS' and PEFT's (github.com/KohakuBlueleaf/LyCORIS,
 * lycoris/functional and lycoris/modules; peft/tuners/{lora,loha,lokr}/layer.py): a layer's difference is a matrix
 * [rows, columns] whose columns are the inputs, for a convolution times its kernel.
 */
#include "source/lora_internal.h"

#include "quant/weight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* a b, with `mid` (of CP-decomposed convolutions) between them: [rows, r] ([r, r2, kernel]) [r2, columns]. LyCORIS has a the
 * other way round, [r, rows], where there is a mid in LoHa and LoKr. */
typedef struct pair_row {
    lora_role a, b, mid; /* ROLES: none */
    bool a_across;       /* where there is a mid */
} pair_row;
static const pair_row low_rank = {ROLE_UP, ROLE_DOWN, ROLE_MID, false}, hadamard1 = {ROLE_W1A, ROLE_W1B, ROLE_T1, true},
                      hadamard2 = {ROLE_W2A, ROLE_W2B, ROLE_T2, true}, kron1 = {ROLE_K1A, ROLE_K1B, ROLES, false},
                      kron2 = {ROLE_K2A, ROLE_K2B, ROLE_KT2, true};

static const lora_role firsts[] = {ROLE_UP, ROLE_DOWN, ROLE_MID, ROLE_W1A, ROLE_W1B, ROLE_T1, ROLE_W2A, ROLE_W2B, ROLE_T2, ROLE_K1,
                                   ROLE_K1A, ROLE_K1B, ROLE_K2, ROLE_K2A, ROLE_K2B, ROLE_KT2, ROLE_DIFF};
static const lora_form forms[] = {FORM_LOW_RANK, FORM_LOW_RANK, FORM_LOW_RANK, FORM_HADAMARD, FORM_HADAMARD, FORM_HADAMARD,
                                  FORM_HADAMARD, FORM_HADAMARD, FORM_HADAMARD, FORM_KRONECKER, FORM_KRONECKER, FORM_KRONECKER,
                                  FORM_KRONECKER, FORM_KRONECKER, FORM_KRONECKER, FORM_KRONECKER, FORM_DIFF};

static int64_t first_dim(const ay_st_tensor *t) { return t->type.rank ? t->type.dim[0] : 1; }
static int64_t row_len(const ay_st_tensor *t) { return first_dim(t) ? ay_type_count(&t->type) / first_dim(t) : 0; }

static alloy_status damaged(ay_ctx *cx, const lora_module *m, const ay_st_tensor *t, const ay_st_tensor *u) {
    char a[160], b[160];
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s and \"%s\" is %s: these do not belong together; the file is damaged",
                   m->file->path, t->name, ay_type_text(&t->type, a), u->name, ay_type_text(&u->type, b));
}

static alloy_status alone(ay_ctx *cx, const lora_module *m, const char *what) {
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" lacks %s; the file is damaged or was cut", m->file->path, m->name, what);
}

static alloy_status describe_pair(ay_ctx *cx, const lora_module *m, const pair_row *p, int64_t *rows, int64_t *cols, int64_t *rank) {
    const ay_st_tensor *a = m->role[p->a], *b = m->role[p->b], *mid = p->mid == ROLES ? NULL : m->role[p->mid];
    if (!a || !b) return alone(cx, m, "one of the factors that its other tensors go with");
    if (ay_type_count(&a->type) == 0 || ay_type_count(&b->type) == 0 || (mid && ay_type_count(&mid->type) == 0)) {
        char text[160];
        const ay_st_tensor *t = ay_type_count(&a->type) ? b : a;
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s: a rank of 0 makes no difference; the file is damaged", m->file->path,
                       t->name, ay_type_text(&t->type, text));
    }
    bool across = mid && p->a_across;
    int64_t outer = across ? first_dim(a) : row_len(a), inner = first_dim(b), kernel = 1;
    if (mid) {
        if (mid->type.rank < 2) return damaged(cx, m, mid, b);
        kernel = ay_type_count(&mid->type) / (mid->type.dim[0] * mid->type.dim[1]);
        if (mid->type.dim[0] != outer) return damaged(cx, m, mid, a);
        if (mid->type.dim[1] != inner) return damaged(cx, m, mid, b);
    } else if (outer != inner) {
        return damaged(cx, m, a, b);
    }
    *rows = across ? row_len(a) : first_dim(a);
    *cols = row_len(b) * kernel;
    *rank = inner;
    return ALLOY_OK;
}

static alloy_status describe_hadamard(ay_ctx *cx, lora_module *m, int64_t *rank) {
    int64_t rows, cols, other;
    AY_TRY(describe_pair(cx, m, &hadamard1, &m->rows, &m->cols, rank));
    AY_TRY(describe_pair(cx, m, &hadamard2, &rows, &cols, &other));
    return rows == m->rows && cols == m->cols ? ALLOY_OK : damaged(cx, m, m->role[ROLE_W1A], m->role[ROLE_W2A]);
}

/* One factor of a Kronecker product. */
static alloy_status describe_factor(ay_ctx *cx, const lora_module *m, lora_role whole, const pair_row *p, int64_t *rows, int64_t *cols,
                                    int64_t *rank) {
    const ay_st_tensor *t = m->role[whole];
    if (!t) return describe_pair(cx, m, p, rows, cols, rank);
    *rows = first_dim(t);
    *cols = row_len(t);
    return *cols ? ALLOY_OK : alone(cx, m, "numbers in one of its factors");
}

static alloy_status describe_kronecker(ay_ctx *cx, lora_module *m, int64_t *rank) {
    int64_t rows, cols;
    AY_TRY(describe_factor(cx, m, ROLE_K1, &kron1, &m->rows, &m->cols, rank));
    AY_TRY(describe_factor(cx, m, ROLE_K2, &kron2, &rows, &cols, rank));
    if (m->rows > INT64_MAX / rows || m->cols > INT64_MAX / cols)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is of no size that a layer has; the file is damaged", m->file->path, m->name);
    m->rows *= rows;
    m->cols *= cols;
    return ALLOY_OK;
}

/* ---- scale ----------------------------------------------------------------------------------------------------------- */

/* PEFT's pattern: the layer's name, or its end behind a dot. */
static const json_t *pattern_value(const json_t *patterns, const char *layer) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)patterns, key, v) {
        size_t n = strlen(key), have = strlen(layer);
        if (n && n <= have && strcmp(layer + have - n, key) == 0 && (n == have || layer[have - n - 1] == '.')) return v;
    }
    return NULL;
}

/* "lora_alpha" as a file's adapter configuration has it for this layer; diffusers puts the component before each key. */
static const json_t *setting(const lora_module *m, const char *key, const char **layer) {
    const char *dot = strchr(m->name, '.');
    *layer = m->name;
    if (!m->file->config_prefixed) return json_object_get(m->file->config, key);
    char full[256];
    if (!dot || snprintf(full, sizeof full, "%.*s.%s", (int)(dot - m->name), m->name, key) >= (int)sizeof full) return NULL;
    *layer = dot + 1;
    return json_object_get(m->file->config, full);
}

static double scale_of_config(const lora_module *m, int64_t rank) {
    const char *layer;
    const json_t *alpha = setting(m, "lora_alpha", &layer), *each = pattern_value(setting(m, "alpha_pattern", &layer), layer);
    if (json_is_number(each)) alpha = each;
    if (!json_is_number(alpha)) alpha = setting(m, "alpha", &layer); /* LoHa's and LoKr's word for it */
    if (!json_is_number(alpha)) return 1;
    bool root = json_is_true(setting(m, "use_rslora", &layer));
    return json_number_value(alpha) / (root ? sqrt((double)rank) : (double)rank);
}

static alloy_status describe_scale(ay_ctx *cx, lora_module *m, int64_t rank) {
    const ay_st_tensor *t = m->role[ROLE_ALPHA];
    m->scale = 1;
    if (rank < 1 && !t) return ALLOY_OK;
    if (!t) {
        m->scale = scale_of_config(m, rank);
        return ALLOY_OK;
    }
    float alpha = 0;
    if (ay_type_count(&t->type) != 1) {
        char text[160];
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s, expected one number; the file is damaged", m->file->path, t->name,
                       ay_type_text(&t->type, text));
    }
    ay_convert_to_f32(t->type.dtype, ay_st_data(m->file->st, t), 0, 1, &alpha);
    if (rank > 0) m->scale = (double)alpha / (double)rank;
    return ALLOY_OK;
}

/* ---- the whole ---------------------------------------------------------------------------------------------------------- */

static alloy_status describe_norm(ay_ctx *cx, lora_module *m) {
    const ay_st_tensor *t = m->role[ROLE_MAGNITUDE] ? m->role[ROLE_MAGNITUDE] : m->role[ROLE_DORA_SCALE];
    if (!t) return ALLOY_OK;
    if (m->form == FORM_NONE) return alone(cx, m, "the factors that its norms go with");
    int64_t n = ay_type_count(&t->type), kernel = m->role[ROLE_DORA_SCALE] && m->cols % ay_max_i64(n, 1) == 0 ? m->cols / ay_max_i64(n, 1) : 0;
    /* PEFT's are of rows, [rows] or [1, rows, 1, 1]. LyCORIS has [rows, 1, ..] or, of columns, [1, inputs, 1, ..] */
    if (n == m->rows && (m->role[ROLE_MAGNITUDE] || first_dim(t) == n)) m->norm = NORM_ROWS;
    else if (kernel > 0 && first_dim(t) == 1) m->norm = NORM_COLUMNS;
    else {
        char text[160];
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s, which fits neither the %lld outputs nor the %lld inputs of the layer",
                       m->file->path, t->name, ay_type_text(&t->type, text), (long long)m->rows, (long long)m->cols);
    }
    return ALLOY_OK;
}

static alloy_status describe_bias(ay_ctx *cx, lora_module *m) {
    const ay_st_tensor *t = m->role[ROLE_DIFF_B] ? m->role[ROLE_DIFF_B] : m->role[ROLE_UP_BIAS];
    m->bias = t ? ay_type_count(&t->type) : 0;
    if (t && m->bias == 0) return alone(cx, m, "numbers in its bias");
    return ALLOY_OK;
}

alloy_status ay_lora_describe(ay_ctx *cx, lora_module *m) {
    int64_t rank = 0;
    alloy_status st = ALLOY_OK;
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0] && m->form == FORM_NONE; i++) {
        if (m->role[firsts[i]]) m->form = forms[i];
    }
    if (m->form == FORM_LOW_RANK) st = describe_pair(cx, m, &low_rank, &m->rows, &m->cols, &rank);
    if (m->form == FORM_HADAMARD) st = describe_hadamard(cx, m, &rank);
    if (m->form == FORM_KRONECKER) st = describe_kronecker(cx, m, &rank);
    if (m->form == FORM_DIFF) {
        m->rows = first_dim(m->role[ROLE_DIFF]);
        m->cols = row_len(m->role[ROLE_DIFF]);
        if (!m->cols) st = alone(cx, m, "numbers in its difference");
    }
    if (st == ALLOY_OK) st = describe_bias(cx, m);
    if (st == ALLOY_OK && m->form == FORM_NONE && !m->bias) st = alone(cx, m, "the factors that its other tensors go with");
    if (st == ALLOY_OK) st = describe_scale(cx, m, rank);
    return st == ALLOY_OK ? describe_norm(cx, m) : st;
}

/* ---- factors --------------------------------------------------------------------------------------------------------- */

static alloy_status read_matrix(ay_ctx *cx, const lora_module *m, const ay_st_tensor *t, bool across, lora_matrix *out) {
    int64_t r = first_dim(t), c = row_len(t);
    *out = (lora_matrix){malloc((size_t)(r * c) * sizeof(float)), across ? c : r, across ? r : c};
    float *row = across ? malloc((size_t)c * sizeof(float)) : NULL;
    if (!out->x || (across && !row)) {
        free(row);
        return ay_nomem(cx);
    }
    if (!across) ay_convert_to_f32(t->type.dtype, ay_st_data(m->file->st, t), 0, r * c, out->x);
    for (int64_t i = 0; across && i < r; i++) {
        ay_convert_to_f32(t->type.dtype, ay_st_data(m->file->st, t), i * c, c, row);
        for (int64_t k = 0; k < c; k++) out->x[k * r + i] = row[k];
    }
    free(row);
    return ALLOY_OK;
}

/* [r, r2, kernel] over [r2, inputs]: [r, inputs * kernel] */
static alloy_status through_mid(ay_ctx *cx, const lora_module *m, const ay_st_tensor *mid, lora_matrix *b) {
    lora_matrix t;
    alloy_status st = read_matrix(cx, m, mid, false, &t);
    int64_t r2 = b->rows, inputs = b->cols, kernel = t.cols / r2;
    float *x = st == ALLOY_OK ? calloc((size_t)(t.rows * inputs * kernel), sizeof *x) : NULL;
    if (st == ALLOY_OK && !x) st = ay_nomem(cx);
    for (int64_t i = 0; st == ALLOY_OK && i < t.rows; i++) {
        for (int64_t k = 0; k < r2; k++) {
            const float *tap = t.x + i * t.cols + k * kernel, *in = b->x + k * inputs;
            float *out = x + i * inputs * kernel;
            for (int64_t c = 0; c < inputs; c++) {
                for (int64_t q = 0; q < kernel; q++) out[c * kernel + q] += tap[q] * in[c];
            }
        }
    }
    free(t.x);
    if (st != ALLOY_OK) return st;
    free(b->x);
    *b = (lora_matrix){x, t.rows, inputs * kernel};
    return ALLOY_OK;
}

static alloy_status read_pair(ay_ctx *cx, const lora_module *m, const pair_row *p, lora_matrix *a, lora_matrix *b) {
    const ay_st_tensor *mid = p->mid == ROLES ? NULL : m->role[p->mid];
    AY_TRY(read_matrix(cx, m, m->role[p->a], mid && p->a_across, a));
    AY_TRY(read_matrix(cx, m, m->role[p->b], false, b));
    return mid ? through_mid(cx, m, mid, b) : ALLOY_OK;
}

/* A factor of a Kronecker product as one matrix in a[i]. */
static alloy_status read_factor(ay_ctx *cx, const lora_module *m, lora_role whole, const pair_row *p, lora_matrix *a) {
    if (m->role[whole]) return read_matrix(cx, m, m->role[whole], false, a);
    lora_matrix left = {0}, right = {0};
    alloy_status st = read_pair(cx, m, p, &left, &right);
    if (st == ALLOY_OK) {
        *a = (lora_matrix){malloc((size_t)(left.rows * right.cols) * sizeof(float)), left.rows, right.cols};
        if (a->x) ay_product_c(left.x, left.cols, right.x, right.cols, left.cols, left.rows, right.cols, a->x, right.cols);
        else st = ay_nomem(cx);
    }
    free(left.x);
    free(right.x);
    return st;
}

void ay_lora_free_term(lora_term *t) {
    for (int i = 0; i < 2; i++) {
        free(t->a[i].x);
        free(t->b[i].x);
    }
    free(t->by_row);
    *t = (lora_term){.patch = NULL};
}

alloy_status ay_lora_read_term(ay_ctx *cx, const lora_patch *p, lora_term *t) {
    const lora_module *m = p->module;
    *t = (lora_term){.patch = p, .form = p->bias ? FORM_DIFF : m->form, .scale = (float)(p->strength * m->scale), .blend = 1};
    if (m->role[ROLE_DORA_SCALE] && !p->bias) t->scale = (float)m->scale, t->blend = (float)p->strength;
    alloy_status st = ALLOY_OK;
    if (p->bias) {
        t->diff = m->role[ROLE_DIFF_B] ? m->role[ROLE_DIFF_B] : m->role[ROLE_UP_BIAS];
        if (m->role[ROLE_DIFF_B]) t->scale = (float)p->strength;
    } else if (m->form == FORM_DIFF) {
        t->diff = m->role[ROLE_DIFF];
    } else if (m->form == FORM_LOW_RANK) {
        st = read_pair(cx, m, &low_rank, &t->a[0], &t->b[0]);
    } else if (m->form == FORM_HADAMARD) {
        st = read_pair(cx, m, &hadamard1, &t->a[0], &t->b[0]);
        if (st == ALLOY_OK) st = read_pair(cx, m, &hadamard2, &t->a[1], &t->b[1]);
    } else {
        st = read_factor(cx, m, ROLE_K1, &kron1, &t->a[0]);
        if (st == ALLOY_OK) st = read_factor(cx, m, ROLE_K2, &kron2, &t->a[1]);
    }
    return st;
}
