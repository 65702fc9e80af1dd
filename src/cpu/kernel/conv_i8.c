/* SPDX-License-Identifier: MIT
 *
 * Convolution in eight-bit integers, as the product pixels x channels: rows are output pixels, whose blocks the
 * micro-kernel reads where they lie in the quantised picture; for kernels that cannot they are copied side by side. Sums
 * gather in scratch; at the end they are turned, channels over pixels, and finished on their way to y.
 */
#include "cpu/kernel/i8.h"

#include <string.h>

enum {
    PASS = 18,          /* blocks of 32 along k in a pass, in whole blocks of channels: two of 3 x 3 taps */
    MT = 384, NT = 320, /* a tile's sums: 480 KiB */
    LEAST = 64,
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
    int64_t room, all, stride; /* blocks of channels there is room for in x; blocks there are, over taps; bytes from block to block */
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
    p.rows = p.kernel->at[0] ? 0 : (size_t)ay_round_up(p.mt * p.pass * AY_I8_RECORD, 64);
    p.panel = (size_t)(p.pass * AY_I8_BLOCK * nr);
    p.scales = (size_t)ay_round_up(p.pass * nr * 4, 64);
    p.stage = ay_i8_stage_bytes(p.kernel, p.pass);
    p.finish = (size_t)ay_round_up(p.nt * 4, 64);
    p.sums = (size_t)ay_round_up(p.mt * (p.kernel->at[0] ? nr : p.nt) * 4, 64);
    p.where = (size_t)ay_round_up(p.taps * p.mt * 4, 64);
    return p;
}

bool ay_conv_i8_can(const ay_conv *c) {
    ay_i8_weight w;
    return c->w && c->groups == 1 && c->o >= 16 && c->c % AY_I8_BLOCK == 0 && volume(c->kernel) <= 64 &&
           volume(c->in) < INT32_MAX / AY_I8_RECORD && ay_i8_weight_of(c->w, c->o, c->c, volume(c->kernel), &w);
}

size_t ay_conv_i8_scratch(ay_isa isa, int threads, const ay_conv *c) {
    plan p = plan_of(isa, threads, c);
    return per_thread(&p) * (size_t)threads + 64;
}

/** Where in a block of the picture output pixels at .. at + count read at each tap: outside, the zeros behind the last pixel.
 *  `where`: [taps][count]. */
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
            where[t * count + i] = (int32_t)(inside ? to : j->p.plane) * AY_I8_RECORD;
        }
    }
}

/** One panel of rows side by side, nb blocks from the picture x on. */
static void gather(const job *j, const char *x, const int32_t *where, int64_t count, int rows, int64_t nb, char *out) {
    for (int64_t b = 0; b < nb; b++, out += rows * AY_I8_RECORD) {
        const int32_t *at = where + b % j->p.taps * count;
        const char *from = x + b / j->p.taps * j->stride;
        for (int i = 0; i < rows; i++) memcpy(out + i * AY_I8_RECORD, from + at[i], AY_I8_RECORD);
    }
}

typedef struct scratch {
    char *rows;
    uint8_t *panel;
    float *scales, *finish, *sums;
    int8_t *stage;
    int32_t *where;
} scratch;

/** What a tile is: pixels m0 .. m0 + m of picture `at`, channels o0 .. o1. */
typedef struct tile {
    int64_t at, m0, m, o0, o1;
    const char *x;
    const float *row_scale; /* of channel o0 on, or NULL */
} tile;

static int64_t y_at(const job *j, const tile *t, int64_t o) {
    return (t->at * j->c->o + o) * (j->c->y_plane ? j->c->y_plane : j->p.pixels) + t->m0;
}

/** All rows of a tile, nb blocks from b0 on, against a panel of channels; sums [m][nr]. */
static void strip(const job *j, const scratch *s, const tile *t, int64_t b0, int64_t nb, const float *scale, float *sums) {
    const plan *p = &j->p;
    const ay_gemm_i8_row *k = p->kernel;
    ay_i8_places a = {.from = t->x + b0 / p->taps * j->stride, .taps = p->taps, .pitch = t->m, .stride = j->stride};
    for (int64_t at = 0; at < t->m; at += k->mr) {
        int64_t rows = ay_min_i64(k->mr, t->m - at);
        a.offset = s->where + at;
        if (k->at[0]) k->at[rows - 1](nb, &a, s->panel, scale, sums + at * k->nr, k->nr, b0 > 0);
        else k->height[rows - 1](nb, s->rows + at * nb * AY_I8_RECORD, s->panel, scale, sums + at * k->nr, k->nr, b0 > 0);
    }
}

static void finish(const job *j, const tile *t, int64_t o, const float *sums) {
    const ay_conv *c = j->c;
    int64_t to = y_at(j, t, o), plane = c->y_plane ? c->y_plane : j->p.pixels, nr = j->p.kernel->nr;
    ay_finish f = {.alpha = 1,
                   .scale = t->row_scale ? t->row_scale + (o - t->o0) : NULL,
                   .bias = c->bias ? c->bias + o : NULL,
                   .residual = c->residual ? c->residual + to : NULL,
                   .act = c->act};
    j->pack->finish_turned(&f, t->m, ay_min_i64(nr, t->o1 - o), sums, nr, c->y + to, plane);
}

/** One pass of one strip. */
static void pass_run(const job *j, const scratch *s, const tile *t, int64_t o, int64_t b0, int64_t nb, float *sums) {
    const plan *p = &j->p;
    int cols = (int)ay_min_i64(p->kernel->nr, t->o1 - o);
    ay_i8_panel make = {&j->w, p->kernel, j->a8, j->pack, s->stage};
    float *scales = j->w.run ? s->scales : NULL;
    if (b0 >= p->blocks) ay_i8_panel_doubled(&make, o, cols, j->head, (b0 - p->blocks) / p->taps, nb / p->taps, s->panel, scales);
    else ay_i8_panel_make(&make, o, cols, b0, nb, s->panel, scales);
    strip(j, s, t, b0, nb, scales, sums);
    if (b0 + nb == j->all) finish(j, t, o, sums);
}

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

/** How many blocks a pass from b0 on takes: doubled ones begin a new one. */
static int64_t pass_blocks(const job *j, int64_t b0) { return ay_min_i64(j->p.pass, (b0 >= j->p.blocks ? j->all : j->p.blocks) - b0); }

static void conv_tile(void *arg, int64_t number, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t tiles = p->tiles_m * p->tiles_n, in = number % tiles, nr = p->kernel->nr, mr = p->kernel->mr;
    scratch s = scratch_of(j, thread);
    tile t = {.at = number / tiles, .m0 = in % p->tiles_m * p->mt, .o0 = in / p->tiles_m * p->nt};
    t.m = ay_min_i64(p->pixels - t.m0, p->mt);
    t.o1 = ay_min_i64(j->c->o, t.o0 + p->nt);
    t.x = j->x + t.at * j->room * j->stride;
    places(j, t.m0, t.m, s.where);
    if (!j->w.run) {
        ay_i8_row_scales(&j->w, t.o0, t.o1 - t.o0, s.finish);
        t.row_scale = s.finish;
    }
    if (p->kernel->at[0]) { /* the picture's part stays in the second cache, a strip's sums in the first */
        for (int64_t o = t.o0; o < t.o1; o += nr) {
            for (int64_t b0 = 0, nb; b0 < j->all; b0 += nb) pass_run(j, &s, &t, o, b0, nb = pass_blocks(j, b0), s.sums);
        }
        return;
    }
    for (int64_t b0 = 0, nb; b0 < j->all; b0 += nb) {
        nb = pass_blocks(j, b0);
        for (int64_t i = 0; i < t.m; i += mr)
            gather(j, t.x + b0 / p->taps * j->stride, s.where + i, t.m, (int)ay_min_i64(mr, t.m - i), nb, s.rows + i * nb * AY_I8_RECORD);
        for (int64_t o = t.o0; o < t.o1; o += nr) pass_run(j, &s, &t, o, b0, nb, s.sums + (o - t.o0) * p->mt);
    }
}

void ay_conv_i8_run(const ay_exec *ex, const ay_conv *c, const void *x8) {
    job j = {.c = c, .pack = ay_pack_pick(ex->isa), .a8 = ay_a8_pick(ex->isa), .head = x8, .scratch = ex->scratch};
    j.p = plan_of(ex->isa, ay_pool_threads(ex->pool), c);
    j.x = (const char *)x8 + ay_a8_head_bytes(c->c);
    j.room = ay_a8_room(c->c);
    j.stride = (j.p.plane + 1) * AY_I8_RECORD;
    j.all = j.p.blocks + j.head->n * j.p.taps;
    if (j.p.pixels <= 0 || c->o <= 0 || !ay_i8_weight_of(c->w, c->o, c->c, j.p.taps, &j.w)) return;
    ay_parallel(ex->pool, c->n * j.p.tiles_m * j.p.tiles_n, conv_tile, &j, ex->stop);
}
