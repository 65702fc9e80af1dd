/* SPDX-License-Identifier: MIT
 *
 * Matrix products: linear and matmul become one or a few calls of the gemm driver. The leading dims of all operands are
 * merged as far as their strides allow: usually the whole of x is one [M, K] and the weight is read once. What does not
 * merge is a batch (float32 operands) or a loop (a weight, a gate that varies by sample).
 */
#include "cpu/plan.h"

#include <string.h>

enum { LOOPS = AY_MAX_RANK };

/* Operands that advance with the leading dims. */
enum { A, B, C, GATE, RES, N_OPERANDS };

typedef struct product_args {
    ay_gemm_batch g;
    int n_loops;
    int64_t loop[LOOPS], stride[N_OPERANDS][LOOPS]; /* elements */
    ay_weight w;
    bool has_w;
    size_t a8_bytes; /* > 0: a is quantised, this much for each round of the loops */
    ay_ref a, b, bias, gate, residual, c;
} product_args;

static const float *at(const float *p, int64_t off) { return p ? p + off : NULL; }

static alloy_status run_product(ay_run *r, const ay_step *s) {
    const product_args *p = s->args;
    ay_gemm_batch g = p->g;
    const float *a = ay_at(r, p->a), *b = ay_at(r, p->b), *gate = ay_at(r, p->gate), *res = ay_at(r, p->residual);
    float *c = ay_at(r, p->c);
    g.one.bias = ay_at(r, p->bias);
    g.one.w = p->has_w ? &p->w : NULL;
    int64_t total = 1;
    for (int i = 0; i < p->n_loops; i++) total *= p->loop[i];
    for (int64_t i = 0; i < total; i++) {
        int64_t off[N_OPERANDS] = {0}, rest = i;
        for (int d = p->n_loops - 1; d >= 0; d--) {
            for (int o = 0; o < N_OPERANDS; o++) off[o] += rest % p->loop[d] * p->stride[o][d];
            rest /= p->loop[d];
        }
        g.one.a = p->a8_bytes ? NULL : at(a, off[A]);
        g.one.b = at(b, off[B]);
        g.one.gate = at(gate, off[GATE]);
        g.one.residual = at(res, off[RES]);
        g.one.c = c + off[C];
        if (p->a8_bytes) ay_gemm_i8_run(&r->ex, &g.one, (const char *)ay_at(r, p->a) + (size_t)i * p->a8_bytes);
        else if (g.batch == 1) ay_gemm_run(&r->ex, &g.one);
        else ay_gemm_batch_run(&r->ex, &g);
        if (ay_stopped(r->cx)) break;
    }
    return ALLOY_OK;
}

/* ---- planning ---------------------------------------------------------------------------------------------------- */

/* Leading dims of one product: dims and the strides of every operand over them, innermost last; M is the last. */
typedef struct lead {
    int n;
    int64_t dim[AY_MAX_RANK], s[N_OPERANDS][AY_MAX_RANK];
} lead;

/* Drops dims of 1 and merges neighbours that follow on in every operand. The last dim (M) stays last. */
static void merge_lead(lead *l) {
    lead o = {.n = 0};
    for (int i = 0; i < l->n; i++) {
        if (l->dim[i] == 1 && !(i == l->n - 1 && o.n == 0)) continue;
        bool merge = o.n > 0;
        for (int k = 0; k < N_OPERANDS && merge; k++) merge = o.s[k][o.n - 1] == l->s[k][i] * l->dim[i];
        if (!merge) o.dim[o.n++] = 1;
        o.dim[o.n - 1] *= l->dim[i];
        for (int k = 0; k < N_OPERANDS; k++) o.s[k][o.n - 1] = l->s[k][i];
    }
    *l = o;
}

static void lead_set(lead *l, int operand, const ay_view *v, int n) {
    for (int i = 0; i < n; i++) l->s[operand][i] = v->dim[i] == 1 ? 0 : v->stride[i];
}

typedef struct operands {
    ay_val x; /* the value that a is a view of */
    ay_view a, b, c, bias, gate, residual; /* buf -1: none. a [lead.., M, K], c [lead.., M, N], b [lead.., K, N] */
    bool has_w;
    ay_weight w;
    int64_t k, n;
} operands;

/* How b lies: [K, N] with unit stride along N, or [N, K] (transposed) along K; false when it is neither. */
static bool b_layout(const ay_view *b, bool *trans, int64_t *ld) {
    int64_t k = b->dim[b->rank - 2], n = b->dim[b->rank - 1], sk = b->stride[b->rank - 2], sn = b->stride[b->rank - 1];
    if (sn == 1 || n == 1) return *trans = false, *ld = k == 1 ? n : sk, n == 1 ? sk > 0 : *ld >= n || k == 1;
    if (sk == 1 || k == 1) return *trans = true, *ld = sn, *ld >= k;
    return false;
}

static void fill_product(const operands *op, const ay_fused *f, product_args *p) {
    int n = op->c.rank - 1; /* lead dims and M */
    lead l = {.n = n};
    memcpy(l.dim, op->c.dim, sizeof l.dim);
    lead_set(&l, A, &op->a, n);
    lead_set(&l, C, &op->c, n);
    if (op->b.buf >= 0) lead_set(&l, B, &op->b, n - 1);
    if (op->gate.buf >= 0) lead_set(&l, GATE, &op->gate, n);
    if (op->residual.buf >= 0) lead_set(&l, RES, &op->residual, n);
    merge_lead(&l);
    /* A vector of lead dims for a gate or b that varies along what became M cannot be one product: then M is 1. */
    if (l.s[B][l.n - 1] != 0 || l.s[GATE][l.n - 1] != 0) {
        l.dim[l.n] = 1;
        for (int k = 0; k < N_OPERANDS; k++) l.s[k][l.n] = k == A ? op->k : k == C || k == RES ? op->n : 0;
        l.n++;
    }
    int m = l.n - 1;
    ay_gemm *g = &p->g.one;
    *g = (ay_gemm){.m = l.dim[m], .n = op->n, .k = op->k, .lda = l.s[A][m], .ldc = l.s[C][m], .ldr = l.s[RES][m],
                   .alpha = (float)f->alpha, .act = f->act};
    if (l.dim[m] == 1) g->lda = op->k, g->ldc = op->n, g->ldr = op->n;
    if (!op->has_w) b_layout(&op->b, &g->b_trans, &g->ldb);
    p->g.batch = 1;
    int loops = m;
    if (!op->has_w && m > 0 && op->gate.buf < 0 && op->residual.buf < 0) { /* the innermost of the rest is the batch */
        loops = m - 1;
        p->g.batch = l.dim[loops];
        p->g.stride_a = l.s[A][loops];
        p->g.stride_b = l.s[B][loops];
        p->g.stride_c = l.s[C][loops];
    }
    p->n_loops = loops;
    for (int i = 0; i < loops; i++) {
        p->loop[i] = l.dim[i];
        for (int k = 0; k < N_OPERANDS; k++) p->stride[k][i] = l.s[k][i];
    }
}

static const char *storage_name(const ay_weight *w) {
    static const char *const name[] = {[AY_STORE_PLAIN] = "", [AY_STORE_BLOCK] = " block", [AY_STORE_LUT] = " palette"};
    return name[w->store];
}

/* Quantises a where the product can be done in integers. */
static alloy_status quantise(ay_plan *pl, product_args *p, operands *op) {
    if (!pl->int8 || !op->has_w || p->g.batch != 1) return ALLOY_OK;
    ay_gemm g = p->g.one;
    g.w = &op->w;
    if (!ay_gemm_i8_can(&g) || !ay_i8_is_accurate(&op->w)) return ALLOY_OK;
    ay_a8_form form = {.m = g.m, .k = g.k, .lda = g.lda, .n_loops = p->n_loops,
                       .tolerance = (double)ay_i8_tolerance(&op->w)};
    for (int i = 0; i < p->n_loops; i++) form.loop[i] = p->loop[i], form.stride[i] = p->stride[A][i];
    ay_view x = op->a;
    AY_TRY(ay_plan_a8(pl, op->x, &x, &form, &op->a));
    p->a8_bytes = ay_a8_bytes(g.m, g.k);
    return ALLOY_OK;
}

static alloy_status add_product(ay_plan *pl, const ay_fused *f, operands *op) {
    product_args args = {.w = op->w, .has_w = op->has_w};
    fill_product(op, f, &args);
    AY_TRY(quantise(pl, &args, op));
    ay_step *s = ay_step_add(pl, run_product, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    product_args *p = (product_args *)s->args;
    p->a = ay_step_read(s, &op->a);
    p->b = ay_step_read(s, &op->b);
    p->bias = ay_step_read(s, &op->bias);
    p->gate = ay_step_read(s, &op->gate);
    p->residual = ay_step_read(s, &op->residual); /* never in place: long products gather partial sums in c */
    p->c = ay_step_write(s, &op->c);
    if (op->has_w) {
        p->g.one.w = &p->w;
        ay_step_weight(s, &p->w);
    }
    size_t scratch = p->a8_bytes         ? ay_gemm_i8_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &p->g.one)
                     : p->g.batch == 1 ? ay_gemm_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &p->g.one)
                                     : ay_gemm_batch_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &p->g);
    double rows = (double)ay_view_count(&op->c) / (double)op->n;
    *ay_step_ops(s, p->a8_bytes ? &p->w : NULL) = 2 * rows * (double)op->k * (double)op->n;
    s->bytes = 4 * rows * (double)(op->k + op->n) +
               (op->has_w ? (double)ay_weight_data_bytes(&op->w) : 4.0 * (double)(op->k * op->n));
    if (op->has_w) ay_step_what(pl, s, "%s %lldx%lld %s%s, %g rows%s", s->what, (long long)op->k, (long long)op->n,
                                ay_dtype_name(op->w.data_dtype), storage_name(&op->w), rows,
                                p->a8_bytes ? " in int8" : "");
    else
        ay_step_what(pl, s, "%s %lldx%lldx%lld, batch %lld", s->what, (long long)p->g.one.m, (long long)op->k,
                     (long long)op->n, (long long)p->g.batch);
    return ay_step_scratch(pl, s, scratch);
}

/* Whether rows are contiguous along K and do not overlap: what the driver takes as A or residual. */
static bool are_rows(const ay_view *a) {
    int64_t k = a->dim[a->rank - 1], step = a->stride[a->rank - 1];
    bool fine = step == 1 || k == 1;
    for (int i = 0; i < a->rank - 1 && fine; i++) fine = a->dim[i] == 1 || a->stride[i] >= k || a->stride[i] == 0;
    return fine && !(a->rank > 1 && a->dim[a->rank - 2] != 1 && a->stride[a->rank - 2] == 0);
}

/* Value v as such rows: as it lies, else its row-major copy, which is shared with others that need one. */
static alloy_status rows_of(ay_plan *pl, ay_val v, ay_view *a) {
    AY_TRY(ay_plan_view(pl, v, a));
    return are_rows(a) ? ALLOY_OK : ay_plan_dense(pl, v, a);
}

/* Adds a dim of 1 in front (a vector as one row). */
static void as_row(ay_view *v) {
    v->rank = 2;
    v->dim[1] = v->dim[0];
    v->stride[1] = v->stride[0];
    v->dim[0] = 1;
    v->stride[0] = v->dim[1];
}

static alloy_status vector_operand(ay_plan *pl, ay_val v, ay_view *out) {
    out->buf = -1;
    return v == AY_NO_VALUE ? ALLOY_OK : ay_plan_dense(pl, v, out);
}

/* bias, gate, residual, result: common to both ops. */
static alloy_status epilogue(ay_plan *pl, const ay_fused *f, ay_val bias, operands *op) {
    AY_TRY(vector_operand(pl, bias == AY_NO_VALUE ? f->bias : bias, &op->bias));
    op->gate.buf = op->residual.buf = -1;
    const ay_type *t = ay_type_of(pl->g, f->result);
    if (f->gate != AY_NO_VALUE) {
        AY_TRY(ay_plan_view(pl, f->gate, &op->gate));
        op->gate = ay_view_broadcast(&op->gate, t->rank, t->dim);
        if (op->gate.stride[t->rank - 1] != 1 && op->n != 1) {
            AY_TRY(ay_plan_dense(pl, f->gate, &op->gate));
            op->gate = ay_view_broadcast(&op->gate, t->rank, t->dim);
        }
        for (int i = 0; i < t->rank - 1; i++) /* so that merging sees "the same for all rows" */
            if (op->gate.stride[i] == 0) op->gate.dim[i] = 1;
    }
    if (f->residual != AY_NO_VALUE) {
        AY_TRY(rows_of(pl, f->residual, &op->residual));
    }
    AY_TRY(ay_plan_out(pl, f, &op->c));
    if (op->c.rank == 1) {
        as_row(&op->c);
        if (op->residual.buf >= 0) as_row(&op->residual);
        if (op->gate.buf >= 0) as_row(&op->gate);
    }
    return ALLOY_OK;
}

alloy_status ay_build_linear(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    operands op = {.x = n->in[0], .b.buf = -1};
    op.k = ay_type_of(pl->g, n->in[1])->dim[1];
    op.n = ay_type_of(pl->g, n->in[1])->dim[0];
    AY_TRY(rows_of(pl, n->in[0], &op.a));
    op.has_w = ay_plan_weight(pl, n->in[1], &op.w);
    if (!op.has_w) {
        ay_view w;
        AY_TRY(ay_plan_dense(pl, n->in[1], &w));
        op.b = ay_view_permuted(&w, (const int[]){1, 0});
    }
    AY_TRY(epilogue(pl, f, n->n_in > 2 ? n->in[2] : AY_NO_VALUE, &op));
    if (op.a.rank == 1) as_row(&op.a);
    if (op.b.buf >= 0) op.b = ay_view_with_lead(&op.b, op.c.rank, op.c.dim);
    return add_product(pl, f, &op);
}

static ay_view swapped(const ay_view *v, bool swap) {
    int perm[AY_MAX_RANK];
    for (int i = 0; i < v->rank; i++) perm[i] = i;
    if (swap) {
        perm[v->rank - 1] = v->rank - 2;
        perm[v->rank - 2] = v->rank - 1;
    }
    return ay_view_permuted(v, perm);
}

/* y as a weight [N, K]: rank 2 in the file, transposed, and the same for every sample. */
static bool weight_operand(const ay_plan *pl, const ay_node *n, ay_weight *w) {
    return n->attr.matmul.tb && ay_type_of(pl->g, n->in[1])->rank == 2 && ay_plan_weight(pl, n->in[1], w);
}

alloy_status ay_build_matmul(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32) return ay_build_int_matmul(pl, f);
    operands op = {.x = n->in[0], .b.buf = -1};
    AY_TRY(ay_plan_view(pl, n->in[0], &op.a));
    op.a = swapped(&op.a, n->attr.matmul.ta);
    if (!are_rows(&op.a)) {
        ay_view from = op.a;
        AY_TRY(ay_plan_copy(pl, &from, &op.a));
    }
    op.k = op.a.dim[op.a.rank - 1];
    op.n = n->type.dim[n->type.rank - 1];
    op.has_w = weight_operand(pl, n, &op.w);
    if (!op.has_w) {
        bool trans;
        int64_t ld;
        AY_TRY(ay_plan_view(pl, n->in[1], &op.b));
        op.b = swapped(&op.b, n->attr.matmul.tb);
        if (!b_layout(&op.b, &trans, &ld)) {
            ay_view from = op.b;
            AY_TRY(ay_plan_copy(pl, &from, &op.b));
        }
    }
    AY_TRY(epilogue(pl, f, AY_NO_VALUE, &op));
    op.a = ay_view_with_lead(&op.a, op.c.rank, op.c.dim);
    if (op.b.buf >= 0) op.b = ay_view_with_lead(&op.b, op.c.rank, op.c.dim);
    return add_product(pl, f, &op);
}

/* Results whose rows are contiguous and far enough apart: a part of a concat along the last axis, a run of rows. */
bool ay_writes_product(const ay_plan *pl, const ay_fused *f, const ay_view *target) {
    int64_t n = target->dim[target->rank - 1];
    if (target->rank < 1 || (target->stride[target->rank - 1] != 1 && n != 1)) return false;
    int64_t rows, ld;
    return ay_kind_of(ay_type_of(pl->g, f->result)->dtype) == AY_KIND_F32 &&
           ay_view_merge(target, 0, target->rank - 1, &rows, &ld) && (rows == 1 || ld >= n);
}
