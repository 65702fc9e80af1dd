/* SPDX-License-Identifier: MIT
 *
 * The blocked matrix product: loops around the micro-kernel after Goto and van de Geijn, "Anatomy of High-Performance Matrix
 * Multiplication" (2008). A block of A [mc][kc] stays in the second cache, panels of B [kc][nr] stream past it.
 */
#include "cpu/kernel/mm.h"

#include <string.h>

enum {
    KC = 512,         /* depth of a pass: long enough to make the traffic on C negligible ... */
    KC_WIDE = 1024,   /* ... for panels of 32 columns, which AVX-512 is through with sooner */
    A_FLOATS = 98304, /* 384 KiB of the second cache, which has 512 KiB or more; with AVX-512 a MiB or more */
    A_FLOATS_WIDE = 131072,
    NT = 768,         /* B of a tile: 1.5 or 3 MiB of the third cache a thread */
    MT = 1024,
    PACKING = 20, /* multiply-adds in the time that packing one number takes */
};

/* Parts of a tile's largest sides that are tried. */
static const int cuts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};
enum { N_CUTS = sizeof cuts / sizeof *cuts };

void ay_panel_turned(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn, float *dst) {
    o->row->turn(AY_F32, o->f + at * o->ld + k0, o->ld, count, width, kn, dst);
}

void ay_panel_rows(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn, float *dst) {
    o->row->rows(o->f + k0 * o->ld + at, o->ld, count, width, kn, dst);
}

void ay_panel_weight(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn, float *dst) {
    enum { STEP = 64 };
    int64_t first = o->w_first + at;
    if (ay_weight_is_direct(o->w)) {
        o->row->turn(o->w->data_dtype, ay_weight_at(o->w, first * o->k + k0), o->k, count, width, kn, dst);
        return;
    }
    float t[AY_MAX_NR][STEP]; /* 8 KiB, in the first cache */
    for (int64_t p = 0; p < kn; p += STEP) {
        int64_t n = ay_min_i64(STEP, kn - p);
        for (int i = 0; i < count; i++) ay_unpack_row(o->row, o->w, o->k, first + i, k0 + p, n, t[i]);
        o->row->turn(AY_F32, t[0], STEP, count, width, n, dst + p * width);
    }
}

/** What the threads need for all tiles, in multiply-adds a unit of k. */
static double time_of(int threads, int64_t tiles, int64_t mt, int64_t nt) {
    const double late = 0.1; /* of a tile: threads are not equally quick, so they do not finish together */
    return ((double)ay_div_up(tiles, threads) + late) * (double)(mt * nt + PACKING * (mt + nt));
}

ay_mm_plan ay_mm_plan_make(ay_isa isa, int threads, int64_t batch, int64_t m, int64_t n, int64_t k) {
    ay_mm_plan p = {.kernel = ay_gemm_f32_pick(isa), .pack = ay_pack_pick(isa)};
    int64_t mr = p.kernel->mr, nr = p.kernel->nr;
    double best = 0;
    k = ay_max_i64(1, k);
    bool wide = nr > 16;
    p.kc = ay_div_up(k, ay_div_up(k, wide ? KC_WIDE : KC));
    for (int i = 0; i < N_CUTS; i++) {
        for (int j = 0; j < N_CUTS; j++) {
            int64_t mt = ay_even(m, MT / cuts[i], mr), nt = ay_even(n, NT / cuts[j], nr), tiles_m = ay_div_up(m, mt), tiles_n = ay_div_up(n, nt);
            double time = time_of(threads, batch * tiles_m * tiles_n, mt, nt);
            if (best > 0 && time >= best) continue;
            best = time;
            p.mt = mt, p.nt = nt, p.tiles_m = tiles_m, p.tiles_n = tiles_n;
        }
    }
    p.mc = ay_min_i64(p.mt, ay_max_i64(mr, (wide ? A_FLOATS_WIDE : A_FLOATS) / p.kc / mr * mr));
    p.mc = ay_even(p.mt, p.mc, mr);
    p.a_floats = (size_t)ay_round_up(p.mc * p.kc, 16);
    p.b_floats = (size_t)ay_round_up(p.nt * p.kc, 16);
    return p;
}

size_t ay_mm_plan_scratch(const ay_mm_plan *p) { return (p->a_floats + p->b_floats) * sizeof(float); }

/** One micro-tile that sticks out on the right: into a small square first. */
static void ragged(ay_gemm_f32_fn fn, int nr, int64_t k, const float *a, const float *b, int rows, int cols, float *c,
                   int64_t ldc, bool accumulate) {
    _Alignas(64) float t[AY_MAX_MR * AY_MAX_NR];
    fn(k, a, b, t, nr, false);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols; j++) c[i * ldc + j] = accumulate ? c[i * ldc + j] + t[i * nr + j] : t[i * nr + j];
    }
}

/** C [m][n] (+)= packed A [m][kn] * packed B [kn][n]. */
static void block(const ay_gemm_f32_row *g, int64_t m, int64_t n, int64_t kn, const float *a, const float *b, float *c,
                  int64_t ldc, bool accumulate) {
    for (int64_t j = 0; j < n; j += g->nr) {
        int cols = (int)ay_min_i64(g->nr, n - j);
        for (int64_t i = 0; i < m; i += g->mr) {
            int rows = (int)ay_min_i64(g->mr, m - i);
            float *to = c + i * ldc + j;
            if (cols == g->nr) g->height[rows - 1](kn, a + i * kn, b + j * kn, to, ldc, accumulate);
            else ragged(g->height[rows - 1], g->nr, kn, a + i * kn, b + j * kn, rows, cols, to, ldc, accumulate);
        }
    }
}

static void finish_rows(const ay_mm_plan *p, const ay_mm *mm, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    ay_finish f = mm->finish;
    if (f.residual == mm->c) f.residual = NULL; /* the sums began with it */
    bool nothing = f.alpha == 1.0f && !f.bias && !f.gate && !f.residual && !mm->bias_m && f.act == AY_ACT_NONE;
    if (nothing) return;
    if (f.bias) f.bias += n0;
    if (f.gate) f.gate += n0;
    for (int64_t i = m0; i < m1; i++) {
        if (f.residual) f.residual = mm->finish.residual + i * mm->ldr + n0;
        f.bias_all = mm->bias_m ? mm->bias_m[i] : 0;
        p->pack->finish(&f, n1 - n0, mm->c + i * mm->ldc + n0);
    }
}

void ay_mm_tile(const ay_mm_plan *p, const ay_mm *mm, int64_t tile, float *scratch) {
    int64_t m0 = tile % p->tiles_m * p->mt, m1 = ay_min_i64(mm->m, m0 + p->mt);
    int64_t n0 = tile / p->tiles_m * p->nt, n1 = ay_min_i64(mm->n, n0 + p->nt);
    int mr = p->kernel->mr, nr = p->kernel->nr;
    float *a = scratch, *b = scratch + p->a_floats;
    bool onto = mm->finish.residual == mm->c; /* c holds what is to be added: no activation, no gate, alpha 1 */
    if (mm->k <= 0) {
        for (int64_t i = m0; i < m1 && !onto; i++) memset(mm->c + i * mm->ldc + n0, 0, (size_t)(n1 - n0) * sizeof(float));
        finish_rows(p, mm, m0, m1, n0, n1);
    }
    for (int64_t k0 = 0; k0 < mm->k; k0 += p->kc) {
        int64_t kn = ay_min_i64(p->kc, mm->k - k0);
        for (int64_t j = n0; j < n1; j += nr) {
            mm->b.panel(&mm->b, j, (int)ay_min_i64(nr, n1 - j), nr, k0, kn, b + (j - n0) * kn);
        }
        for (int64_t i0 = m0; i0 < m1; i0 += p->mc) {
            int64_t i1 = ay_min_i64(m1, i0 + p->mc);
            for (int64_t i = i0; i < i1; i += mr) {
                int rows = (int)ay_min_i64(mr, i1 - i);
                mm->a.panel(&mm->a, i, rows, rows, k0, kn, a + (i - i0) * kn);
            }
            block(p->kernel, i1 - i0, n1 - n0, kn, a, b, mm->c + i0 * mm->ldc + n0, mm->ldc, k0 > 0 || onto);
            if (k0 + kn == mm->k) finish_rows(p, mm, i0, i1, n0, n1);
        }
    }
}
