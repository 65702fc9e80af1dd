/* SPDX-License-Identifier: MIT
 *
 * Products of quantised activations with quantised weights. A tile of C goes through k in passes; in a pass each strip of nr
 * columns is unpacked once, into the first cache, and all rows of the tile stream past it. Sums gather in scratch, strip by
 * strip one row behind the other, and go to C when they are finished: rows of C are far apart, often a power of two, where
 * caches keep few. Every sum runs over k in the same order however the work is split.
 */
#include "cpu/kernel/i8.h"

enum {
    PASS = 16,          /* blocks of 32 along k: a strip of 32 columns is 16 KiB then */
    MT = 384, NT = 320, /* a tile: with PASS, 240 KiB of codes and 480 KiB of sums in the second cache */
    TILES_A_THREAD = 6, /* so that threads finish together */
    LEAST_ROWS = 5      /* fewer rows go through float dot products, which read the weight once */
};

typedef struct plan {
    const ay_gemm_i8_row *kernel;
    int64_t blocks, pass, mt, nt, tiles_m, tiles_n;
    size_t panel, scales, stage, row_scales, sums; /* bytes a thread */
} plan;

typedef struct job {
    const ay_gemm *g;
    ay_i8_weight w;
    plan p;
    const ay_pack_row *pack;
    const ay_a8_row *a8;
    const ay_a8_head *head;
    const char *a;
    int64_t room, all; /* blocks there is room for in a, and there are */
    char *scratch;
} job;

static size_t per_thread(const plan *p) { return p->panel + p->scales + p->stage + p->row_scales + p->sums; }

static plan plan_of(ay_isa isa, int threads, const ay_gemm *g) {
    int64_t m = g->m, n = g->n;
    plan p = {.kernel = ay_gemm_i8_for(isa, g->w), .blocks = ay_div_up(g->k, AY_I8_BLOCK)};
    p.pass = ay_div_up(p.blocks, ay_div_up(p.blocks, PASS));
    int64_t nr = p.kernel->nr, nt = NT;
    p.mt = ay_even(m, MT, p.kernel->mr);
    p.tiles_m = ay_div_up(m, p.mt);
    do { /* narrower tiles cost nothing but one reading more of the activations */
        p.nt = ay_even(n, nt, nr);
        p.tiles_n = ay_div_up(n, p.nt);
        nt = p.nt / 2;
    } while (p.tiles_m * p.tiles_n < (int64_t)threads * TILES_A_THREAD && p.nt > 2 * nr);
    p.panel = (size_t)(p.pass * AY_I8_BLOCK * nr);
    p.scales = (size_t)ay_round_up(p.pass * nr * 4, 64);
    p.stage = ay_i8_stage_bytes(p.kernel, p.pass);
    p.row_scales = (size_t)ay_round_up(p.nt * 4, 64);
    p.sums = (size_t)ay_round_up(p.mt * p.nt * 4, 64);
    return p;
}

bool ay_gemm_i8_can(const ay_gemm *g) {
    ay_i8_weight w;
    return g->w && g->m >= LEAST_ROWS && g->n >= 16 && g->k >= AY_I8_BLOCK && ay_i8_weight_of(g->w, g->n, g->k, 1, &w);
}

size_t ay_gemm_i8_scratch(ay_isa isa, int threads, const ay_gemm *g) {
    plan p = plan_of(isa, threads, g);
    return per_thread(&p) * (size_t)threads + 64;
}

/** A strip of `cols` columns of C from n on. */
typedef struct strip {
    int64_t m0, m1, n;
    int cols;
    const float *row_scale; /* of these columns, or NULL */
    float *sums;            /* [m1 - m0][nr]; where there is one pass, of one panel of rows after the other */
} strip;

static void finish(const job *j, const strip *s, int64_t m, int64_t rows, const float *sums) {
    const ay_gemm *g = j->g;
    int64_t n = s->n;
    ay_finish f = {.alpha = g->alpha,
                   .scale = s->row_scale,
                   .bias = g->bias ? g->bias + n : NULL,
                   .gate = g->gate ? g->gate + n : NULL,
                   .residual = g->residual ? g->residual + m * g->ldr + n : NULL,
                   .act = g->act};
    j->pack->finish_panel(&f, rows, s->cols, sums, j->p.kernel->nr, g->c + m * g->ldc + n, g->ldc, g->ldr);
}

/** A strip in one pass: its rows against the panel of blocks b0 .. b0 + nb (doubled ones count on). */
static void pass_run(const job *j, const strip *s, int64_t b0, int64_t nb, const uint8_t *b, const float *scale) {
    const ay_gemm_i8_row *k = j->p.kernel;
    bool last = b0 + nb == j->all;
    for (int64_t m = s->m0; m < s->m1; m += k->mr) {
        int64_t rows = ay_min_i64(k->mr, s->m1 - m);
        float *sums = s->sums + (b0 > 0 || !last ? (m - s->m0) * k->nr : 0);
        k->height[rows - 1](nb, j->a + (m * j->room + b0 * rows) * AY_I8_RECORD, b, scale, sums, k->nr, b0 > 0);
        if (last) finish(j, s, m, rows, sums);
    }
}

static void tile_run(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t m0 = tile % p->tiles_m * p->mt, m1 = ay_min_i64(j->g->m, m0 + p->mt), n0 = tile / p->tiles_m * p->nt,
            n1 = ay_min_i64(j->g->n, n0 + p->nt), nr = p->kernel->nr;
    char *scratch = j->scratch + (size_t)thread * per_thread(p), *row_scales = scratch + p->panel + p->scales + p->stage;
    uint8_t *b = (uint8_t *)scratch;
    float *scale = j->w.run ? (float *)(scratch + p->panel) : NULL, *row_scale = j->w.run ? NULL : (float *)row_scales;
    float *sums = (float *)(row_scales + p->row_scales);
    ay_i8_panel make = {&j->w, p->kernel, j->a8, j->pack, (int8_t *)scratch + p->panel + p->scales};
    if (row_scale) ay_i8_row_scales(&j->w, n0, n1 - n0, row_scale);
    for (int64_t b0 = 0, nb; b0 < j->all; b0 += nb) {
        bool again = b0 >= p->blocks;
        nb = ay_min_i64(p->pass, (again ? j->all : p->blocks) - b0);
        for (int64_t n = n0; n < n1; n += nr) {
            int cols = (int)ay_min_i64(nr, n1 - n);
            strip s = {m0, m1, n, cols, row_scale ? row_scale + (n - n0) : NULL, sums + (n - n0) * p->mt};
            if (again) ay_i8_panel_doubled(&make, n, cols, j->head, b0 - p->blocks, nb, b, scale);
            else ay_i8_panel_make(&make, n, cols, b0, nb, b, scale);
            pass_run(j, &s, b0, nb, b, scale);
        }
    }
}

void ay_gemm_i8_run(const ay_exec *ex, const ay_gemm *g, const void *a8) {
    job j = {.g = g, .pack = ay_pack_pick(ex->isa), .a8 = ay_a8_pick(ex->isa), .head = a8, .scratch = ex->scratch};
    if (g->m <= 0 || g->n <= 0 || !ay_i8_weight_of(g->w, g->n, g->k, 1, &j.w)) return;
    j.a = (const char *)a8 + ay_a8_head_bytes(g->k);
    j.room = ay_a8_room(g->k);
    j.all = ay_a8_blocks(g->k) + j.head->n;
    j.p = plan_of(ex->isa, ay_pool_threads(ex->pool), g);
    ay_parallel(ex->pool, j.p.tiles_m * j.p.tiles_n, tile_run, &j, ex->stop);
}
