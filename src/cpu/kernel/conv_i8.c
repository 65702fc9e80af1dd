/* SPDX-License-Identifier: MIT
 *
 * Convolution in eight-bit integers, as the product pixels x channels: rows are output pixels, gathered block by block from
 * the quantised picture, whose pixels lie there with all their channels, so a block is one copy. A tile's sums stay in
 * scratch; at its end they are turned, channels over pixels, and finished on their way to y.
 */
#include "cpu/kernel/i8.h"

#include <string.h>

enum {
    PASS = 16,          /* blocks of 32 along k in a pass, or all taps of one block of channels */
    MT = 384, NT = 320, /* a tile's sums: 480 KiB */
    LEAST = 64,
    CHUNK_P = 64, CHUNK_O = 16 /* what is turned at a time */
};

typedef struct plan {
    const ay_gemm_i8_row *kernel;
    int64_t pixels, plane, taps, blocks, pass, mt, nt, tiles_m, tiles_n;
    size_t rows, panel, scales, stage, finish, sums, where; /* bytes a thread */
} plan;

typedef struct job {
    const ay_conv *c;
    ay_i8_weight w;
    plan p;
    const ay_pack_row *pack;
    const ay_a8_row *a8;
    const ay_a8_head *head;
    const char *x;
    int64_t room, all; /* blocks of channels there is room for in x; blocks there are, over taps */
    char *scratch;
} job;

static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

static size_t per_thread(const plan *p) { return p->rows + p->panel + p->scales + p->stage + p->finish + p->sums + p->where; }

/** Largest side not above `most` that cuts `size` into `parts` or more, rounded up to whole micro-tiles. */
static int64_t side(int64_t size, int64_t parts, int64_t unit) { return ay_round_up(ay_div_up(size, parts), unit); }

/** What a split costs, in multiply-adds: the tiles that one thread gets, each with what unpacking weights costs for every
 *  row of pixels it lacks, and gathering pixels for every column. Few tiles finish unevenly. */
static double cost(const ay_conv *c, const plan *p, int threads) {
    enum { UNPACK = 38, GATHER = 19 };
    int64_t tiles = c->n * p->tiles_m * p->tiles_n, rounds = ay_div_up(tiles, threads);
    return (double)(rounds * p->mt * p->nt) * (1 + (double)UNPACK / (double)p->mt + (double)GATHER / (double)p->nt) *
           (1 + 0.05 / (double)rounds);
}

static void split(const ay_conv *c, int threads, plan *p) {
    double best = 0;
    for (int64_t pm = ay_div_up(p->pixels, MT); pm <= ay_max_i64(ay_div_up(p->pixels, MT), ay_div_up(p->pixels, LEAST)); pm++) {
        for (int64_t pn = ay_div_up(c->o, NT); pn <= ay_max_i64(ay_div_up(c->o, NT), ay_div_up(c->o, LEAST)); pn++) {
            plan t = *p;
            t.mt = side(p->pixels, pm, p->kernel->mr);
            t.nt = side(c->o, pn, p->kernel->nr);
            t.tiles_m = ay_div_up(p->pixels, t.mt);
            t.tiles_n = ay_div_up(c->o, t.nt);
            double now = cost(c, &t, threads);
            if (best == 0 || now < best) best = now, *p = t;
        }
        if (pm > 64 * threads) break; /* huge pictures have tiles enough */
    }
}

static plan plan_of(ay_isa isa, int threads, const ay_conv *c) {
    plan p = {.kernel = ay_gemm_i8_for(isa, c->w), .pixels = volume(c->out), .plane = volume(c->in), .taps = volume(c->kernel)};
    int64_t nr = p.kernel->nr, channels = c->c / AY_I8_BLOCK, passes;
    p.blocks = channels * p.taps;
    passes = ay_div_up(channels, ay_max_i64(1, PASS / p.taps));
    p.pass = ay_div_up(channels, passes) * p.taps;
    split(c, threads, &p);
    p.rows = (size_t)ay_round_up(p.mt * p.pass * AY_I8_RECORD, 64);
    p.panel = (size_t)(p.pass * AY_I8_BLOCK * nr);
    p.scales = (size_t)ay_round_up(p.pass * nr * 4, 64);
    p.stage = ay_i8_stage_bytes(p.kernel, p.pass);
    p.finish = (size_t)ay_round_up((p.nt + CHUNK_P * CHUNK_O) * 4, 64);
    p.sums = (size_t)ay_round_up(p.mt * p.nt * 4, 64);
    p.where = (size_t)ay_round_up(p.taps * p.mt * 4, 64);
    return p;
}

bool ay_conv_i8_can(const ay_conv *c) {
    ay_i8_weight w;
    return c->w && c->groups == 1 && c->o >= 16 && c->c % AY_I8_BLOCK == 0 && volume(c->kernel) <= 64 &&
           volume(c->in) <= INT32_MAX && ay_i8_weight_of(c->w, c->o, c->c, volume(c->kernel), &w);
}

size_t ay_conv_i8_scratch(ay_isa isa, int threads, const ay_conv *c) {
    plan p = plan_of(isa, threads, c);
    return per_thread(&p) * (size_t)threads + 64;
}

/** The input pixel that output pixel `at` reads at each tap; -1 outside. `where`: [taps][count]. */
static void places(const job *j, int64_t at, int64_t count, int32_t *where) {
    const ay_conv *c = j->c;
    for (int64_t t = 0; t < j->p.taps; t++) {
        int64_t tap[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1], t % c->kernel[2]};
        for (int64_t i = 0; i < count; i++) {
            int64_t p = at + i, out[3] = {p / c->out[2] / c->out[1], p / c->out[2] % c->out[1], p % c->out[2]}, to = 0;
            bool inside = true;
            for (int d = 0; d < 3; d++) {
                int64_t q = out[d] * c->stride[d] + tap[d] * c->dilation[d] - c->before[d];
                inside = inside && q >= 0 && q < c->in[d];
                to = to * c->in[d] + q;
            }
            where[t * count + i] = inside ? (int32_t)to : -1;
        }
    }
}

/** One panel of rows, blocks b0 .. b0 + nb, from the picture x. */
static void gather(const plan *p, int64_t room, const char *x, const int32_t *where, int64_t count, int rows, int64_t b0, int64_t nb, char *out) {
    static const char outside[AY_I8_RECORD];
    for (int64_t b = b0; b < b0 + nb; b++, out += rows * AY_I8_RECORD) {
        const int32_t *at = where + b % p->taps * count;
        const char *from = x + b / p->taps * AY_I8_RECORD;
        for (int i = 0; i < rows; i++)
            memcpy(out + i * AY_I8_RECORD, at[i] < 0 ? outside : from + at[i] * room * AY_I8_RECORD, AY_I8_RECORD);
    }
}

/** All rows of a tile against one panel of nr channels; sums [mt][nt]. */
static void strip(const plan *p, int64_t m, int64_t nb, const char *a, const uint8_t *b, const float *scale, float *sums,
                  bool accumulate) {
    const ay_gemm_i8_row *k = p->kernel;
    for (int64_t i = 0; i < m; i += k->mr) {
        int rows = (int)ay_min_i64(k->mr, m - i);
        k->height[rows - 1](nb, a + i * nb * AY_I8_RECORD, b, scale, sums + i * p->nt, p->nt, accumulate);
    }
}

/** sums [m][nt], turned, to channels o0 .. o1 of pixels m0 .. m1 of y. */
static void finish(const job *j, int64_t at, int64_t m0, int64_t m1, int64_t o0, int64_t o1, const float *sums,
                   const float *row_scale, float *t) {
    const ay_conv *c = j->c;
    ay_finish f = {.alpha = 1, .act = c->act};
    for (int64_t o = o0; o < o1; o += CHUNK_O) {
        int64_t on = ay_min_i64(CHUNK_O, o1 - o);
        for (int64_t m = m0; m < m1; m += CHUNK_P) {
            int count = (int)ay_min_i64(CHUNK_P, m1 - m);
            j->pack->turn(AY_F32, sums + (m - m0) * j->p.nt + (o - o0), j->p.nt, count, count, on, t);
            for (int64_t i = 0; i < on; i++) {
                int64_t to = (at * c->o + o + i) * (c->y_plane ? c->y_plane : j->p.pixels) + m;
                if (row_scale) f.alpha = row_scale[o - o0 + i];
                f.bias_all = c->bias ? c->bias[o + i] : 0;
                f.residual = c->residual ? c->residual + to : NULL;
                j->pack->finish(&f, count, t + i * count);
                memcpy(c->y + to, t + i * count, (size_t)count * sizeof(float));
            }
        }
    }
}

typedef struct scratch {
    char *rows;
    uint8_t *panel;
    float *scales, *finish, *sums;
    int8_t *stage;
    int32_t *where;
} scratch;

static scratch scratch_of(const job *j, int thread) {
    char *at = j->scratch + (size_t)thread * per_thread(&j->p);
    scratch s = {.rows = at};
    s.panel = (uint8_t *)(at += j->p.rows);
    s.scales = (float *)(void *)(at += j->p.panel);
    s.stage = (int8_t *)(at += j->p.scales);
    s.finish = (float *)(void *)(at += j->p.stage);
    s.sums = (float *)(void *)(at += j->p.finish);
    s.where = (int32_t *)(void *)(at += j->p.sums);
    return s;
}

static void conv_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t tiles = p->tiles_m * p->tiles_n, at = tile / tiles, in = tile % tiles, nr = p->kernel->nr, mr = p->kernel->mr;
    int64_t m0 = in % p->tiles_m * p->mt, m = ay_min_i64(p->pixels, m0 + p->mt) - m0, o0 = in / p->tiles_m * p->nt,
            o1 = ay_min_i64(j->c->o, o0 + p->nt);
    scratch s = scratch_of(j, thread);
    const char *x = j->x + at * p->plane * j->room * AY_I8_RECORD;
    ay_i8_panel make = {&j->w, p->kernel, j->a8, j->pack, s.stage};
    float *row_scale = j->w.run ? NULL : s.finish, *scales = j->w.run ? s.scales : NULL;
    places(j, m0, m, s.where);
    if (row_scale) ay_i8_row_scales(&j->w, o0, o1 - o0, row_scale);
    for (int64_t b0 = 0, nb; b0 < j->all; b0 += nb) {
        bool again = b0 >= p->blocks;
        nb = ay_min_i64(p->pass, (again ? j->all : p->blocks) - b0);
        for (int64_t i = 0; i < m; i += mr)
            gather(p, j->room, x, s.where + i, m, (int)ay_min_i64(mr, m - i), b0, nb, s.rows + i * nb * AY_I8_RECORD);
        for (int64_t o = o0; o < o1; o += nr) {
            int cols = (int)ay_min_i64(nr, o1 - o);
            if (again) ay_i8_panel_doubled(&make, o, cols, j->head, (b0 - p->blocks) / p->taps, nb / p->taps, s.panel, scales);
            else ay_i8_panel_make(&make, o, cols, b0, nb, s.panel, scales);
            strip(p, m, nb, s.rows, s.panel, scales, s.sums + (o - o0), b0 > 0);
        }
    }
    finish(j, at, m0, m0 + m, o0, o1, s.sums, row_scale, s.finish + p->nt);
}

void ay_conv_i8_run(const ay_exec *ex, const ay_conv *c, const void *x8) {
    job j = {.c = c, .pack = ay_pack_pick(ex->isa), .a8 = ay_a8_pick(ex->isa), .head = x8, .scratch = ex->scratch};
    j.p = plan_of(ex->isa, ay_pool_threads(ex->pool), c);
    j.x = (const char *)x8 + ay_a8_head_bytes(c->c);
    j.room = ay_a8_room(c->c);
    j.all = j.p.blocks + j.head->n * j.p.taps;
    if (j.p.pixels <= 0 || c->o <= 0 || !ay_i8_weight_of(c->w, c->o, c->c, j.p.taps, &j.w)) return;
    ay_parallel(ex->pool, c->n * j.p.tiles_m * j.p.tiles_n, conv_tile, &j, ex->stop);
}
