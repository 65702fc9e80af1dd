/* SPDX-License-Identifier: MIT
 *
 * kcheck of fused attention: sizes, both memory orders, masks of every broadcast, everything masked, huge scores, NaN.
 */
#include "kcheck.h"

typedef enum mask_kind { NO_MASK, KEY_MASK, FULL_MASK, HEAD_MASK, TURNED_MASK, MASKS } mask_kind;

typedef struct problem {
    ay_attn a;
    double *want, *bound;
    int64_t o_count;
} problem;

/** Strides over [B, H, L, D] or [B, L, H, D], rows a little apart; returns how many numbers that spans. */
static int64_t lay(int64_t s[3], int64_t b, int64_t h, int64_t l, int64_t d, bool heads_inside) {
    int64_t pad = kc_between(0, 3);
    s[2] = (d + pad) * (heads_inside ? h : 1);
    s[1] = heads_inside ? d + pad : l * (d + pad);
    s[0] = h * l * (d + pad);
    return (b - 1) * s[0] + (h - 1) * s[1] + (l - 1) * s[2] + d;
}

static void make_mask(problem *p, mask_kind kind) {
    ay_attn *a = &p->a;
    static const int uses[MASKS][3] = {{0, 0, 0}, {1, 0, 0}, {0, 0, 1}, {1, 1, 1}, {0, 1, 1}};
    if (kind == NO_MASK) return;
    int64_t n = a->lk, full = a->lq * a->lk;
    a->ms[3] = 1;
    if (uses[kind][2]) a->ms[2] = a->lk, n = full;
    if (kind == TURNED_MASK) a->ms[2] = 1, a->ms[3] = a->lq;
    if (uses[kind][1]) a->ms[1] = n, n *= a->heads;
    if (uses[kind][0]) a->ms[0] = n, n *= a->batch;
    float *m = kc_floats(n);
    for (int64_t i = 0; i < n; i++) m[i] = kc_next() % 4 == 0 ? -INFINITY : kc_real();
    if (kind == FULL_MASK) {
        for (int64_t i = 0; i < a->lk; i++) m[i] = -INFINITY; /* the first query sees nothing */
    }
    a->mask = m;
}

static void reference_row(problem *p, int64_t b, int64_t h, int64_t row, double *e) {
    const ay_attn *a = &p->a;
    const float *q = a->q + b * a->qs[0] + h * a->qs[1] + row * a->qs[2];
    double top = -INFINITY, sum = 0, size = 0, largest = 0;
    for (int64_t i = 0; i < a->lk; i++) {
        const float *k = a->k + b * a->ks[0] + h * a->ks[1] + i * a->ks[2];
        double dot = 0, all = 0;
        for (int64_t c = 0; c < a->d; c++) dot += (double)q[c] * (double)k[c], all += fabs((double)q[c] * (double)k[c]);
        e[i] = dot * (double)a->scale;
        size = fmax(size, all * fabs((double)a->scale));
        if (a->mask) e[i] += (double)a->mask[b * a->ms[0] + h * a->ms[1] + row * a->ms[2] + i * a->ms[3]];
        if (e[i] > top) top = e[i];
    }
    for (int64_t i = 0; i < a->lk; i++) sum += e[i] = top > -INFINITY ? exp(e[i] - top) : e[i] != e[i] ? NAN : 0;
    for (int64_t i = 0; i < a->lk; i++) {
        const float *v = a->v + b * a->vs[0] + h * a->vs[1] + i * a->vs[2];
        for (int64_t c = 0; c < a->dv; c++) largest = fmax(largest, fabs((double)v[c]));
    }
    for (int64_t c = 0; c < a->dv; c++) {
        double o = 0;
        for (int64_t i = 0; i < a->lk; i++) o += e[i] * (double)a->v[b * a->vs[0] + h * a->vs[1] + i * a->vs[2] + c];
        int64_t to = b * a->os[0] + h * a->os[1] + row * a->os[2] + c;
        p->want[to] = sum == 0 ? 0 : o / sum;
        p->bound[to] = KC_EPS * largest * (2.5 * ((double)a->d + 4) * size + 12 + (double)a->lk);
    }
}

static void reference(problem *p) {
    double *e = malloc((size_t)p->a.lk * sizeof *e);
    for (int64_t i = 0; i < p->o_count; i++) p->bound[i] = -1;
    for (int64_t r = 0; r < p->a.batch * p->a.heads * p->a.lq; r++) {
        reference_row(p, r / p->a.lq / p->a.heads, r / p->a.lq % p->a.heads, r % p->a.lq, e);
    }
    free(e);
}

static void run_all(problem *p, const char *what) {
    ay_isa levels[AY_ISA_COUNT];
    int n = kc_levels(levels);
    float *first = malloc((size_t)p->o_count * sizeof *first);
    for (int i = 0; i < n * KC_THREADS; i++) {
        ay_isa isa = levels[i / KC_THREADS];
        int t = i % KC_THREADS + 1, mark = kc.n;
        size_t bytes = ay_attn_scratch(isa, t, &p->a);
        p->a.o = kc_floats(p->o_count);
        for (int64_t e = 0; e < p->o_count; e++) p->a.o[e] = 1234.5f;
        ay_exec ex = {kc.pool[t], isa, NULL, kc_scratch(bytes), bytes};
        memset(ex.scratch, 0xff, bytes); /* NaN: nothing may be read before it was written */
        ay_attn_run(&ex, &p->a);
        for (int64_t e = 0; e < p->o_count && t == 1; e++) {
            if (p->bound[e] < 0) kc_near(what, isa, e, 1234.5, p->a.o[e], 0);
            else kc_near(what, isa, e, p->want[e], p->a.o[e], p->bound[e]);
        }
        if (t == 1) memcpy(first, p->a.o, (size_t)p->o_count * sizeof *first);
        else kc_same(what, isa, t, first, p->a.o, p->o_count);
        kc_done();
        kc.n = mark;
    }
    free(first);
}

/** `size` multiplies the queries: scores far beyond what e^x can hold. `hole`: one NaN in the keys. */
static void problem_run(int64_t b, int64_t h, int64_t lq, int64_t lk, int64_t d, int64_t dv, mask_kind mask, float size,
                        bool hole) {
    if (kc_left_out()) return;
    bool inside = kc_coin();
    problem p = {.a = {.batch = b, .heads = h, .lq = lq, .lk = lk, .d = d, .dv = dv, .scale = 1.0f / sqrtf((float)d)}};
    ay_attn *a = &p.a;
    int64_t nq = lay(a->qs, b, h, lq, d, inside), nk = lay(a->ks, b, h, lk, d, inside),
            nv = lay(a->vs, b, h, lk, dv, kc_coin());
    float *q = kc_floats(nq), *k = kc_floats(nk), *v = kc_floats(nv);
    for (int64_t i = 0; i < nq; i++) q[i] = kc_real() * size;
    for (int64_t i = 0; i < nk; i++) k[i] = kc_real();
    for (int64_t i = 0; i < nv; i++) v[i] = kc_real();
    if (hole) k[a->ks[2] * (lk / 2)] = NAN;
    a->q = q, a->k = k, a->v = v;
    make_mask(&p, mask);
    p.o_count = lay(a->os, b, h, lq, dv, inside);
    p.want = calloc((size_t)p.o_count, sizeof *p.want);
    p.bound = calloc((size_t)p.o_count, sizeof *p.bound);
    reference(&p);
    char what[160];
    snprintf(what, sizeof what, "attention b=%lld h=%lld lq=%lld lk=%lld d=%lld dv=%lld mask=%d size=%g", (long long)b,
             (long long)h, (long long)lq, (long long)lk, (long long)d, (long long)dv, (int)mask, (double)size);
    run_all(&p, what);
    kc_done();
    free(p.want);
    free(p.bound);
}

static void test_sizes(void **state) {
    for (int64_t s = 1; s <= 70; s++) {
        mask_kind m = (mask_kind)kc_between(0, MASKS - 1);
        problem_run(kc_between(1, 2), kc_between(1, 3), s, kc_between(1, 70), kc_between(1, 40), kc_between(1, 40), m, 1,
                    false);
        problem_run(kc_between(1, 2), kc_between(1, 3), kc_between(1, 70), s, kc_between(1, 40), kc_between(1, 40), m, 1,
                    false);
        problem_run(1, kc_between(1, 3), kc_between(1, 40), kc_between(1, 40), s, kc_between(1, 70), m, 1, false);
        problem_run(1, kc_between(1, 3), kc_between(1, 40), kc_between(1, 40), kc_between(1, 70), s, m, 1, false);
    }
}

static void test_many_keys(void **state) {
    for (int m = 0; m < MASKS; m++) problem_run(1, 2, 45, 600, 40, 40, (mask_kind)m, 1, false);
    problem_run(1, 1, 450, 300, 64, 64, NO_MASK, 1, false);
    problem_run(1, 2, 70, 530, 128, 128, NO_MASK, 1, false);
    problem_run(1, 1, 40, 300, 512, 512, KEY_MASK, 1, false);
}

static void test_special(void **state) {
    problem_run(1, 2, 40, 600, 24, 16, NO_MASK, 3000, false); /* one key takes all, the maximum moves from block to block */
    problem_run(1, 2, 40, 600, 24, 16, FULL_MASK, 3000, false);
    problem_run(1, 2, 40, 300, 24, 16, NO_MASK, 1, true);
    problem_run(1, 1, 3, 300, 24, 16, NO_MASK, 1e-42f, false); /* denormal queries */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_many_keys),
                                       cmocka_unit_test(test_special)};
    kc_start(2);
    int failed = cmocka_run_group_tests_name("kcheck attention", tests, NULL, NULL);
    kc_end();
    return failed;
}
