/* SPDX-License-Identifier: MIT
 *
 * 3 x 3 convolution with stride 1 by Winograd's F(4x4, 3x3): Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks" (2015). The picture is cut into tiles of 4 x 4 results. For each of 36 points there is a product M [O, tiles] =
 * U [O, C] * V [C, tiles]; U comes from the taps, V from the 6 x 6 pixels under a tile, the results from M (wino_body.h).
 *
 * A slab of V, of as many tiles as the third cache holds, is made by all threads. Then each job takes some output channels
 * and tiles: their M stays in the second cache and is turned into results at once. U is 36 / 9 of the weight in float32, so
 * it is made once a call only where all of it is small; else each job makes what it needs of it, for all tiles of a slab.
 * Every sum over channels is one job's, in the same order whatever the threads. Few tiles go another way: wino_few.c.
 */
#include "cpu/kernel/wino.h"

#include <math.h>
#include <string.h>

enum {
    POINTS = AY_WINO_POINTS,
    KC = 192,                 /* depth of a pass: sums of passes are more accurate than one, and the speed is the same */
    V_BYTES = 4 << 20,        /* of a slab, for each thread */
    MOST_V_BYTES = 64 << 20,
    LEAST_TILES = 64,         /* of a slab: what making U is spread over */
    U_BYTES = 4 << 20,        /* whole weights up to this for each thread are transformed once, */
    U_JOB_BYTES = 3 << 19,    /* else so much of them at a time: most of it stays in the second cache while V streams past */
    JOB_TILES = 64, JOB_CHANNELS = 48,    /* M is 442 KiB at most, */
    ONCE_TILES = 32, ONCE_CHANNELS = 96,  /* also where U is there already: then V should be read few times */
    JOBS = 4,                 /* that a thread should have */
    PAD = 16,                 /* floats between points, so that 36 of them do not fall on the same place of the cache */
    CHANNELS = 32             /* channels transformed in one go */
};

typedef struct plan {
    const ay_gemm_f32_row *kernel;
    ay_wino_grid grid;
    int64_t slab, job_tiles;     /* tiles: multiples of nr */
    int64_t job_o;               /* channels of a job: a multiple of mr */
    int64_t part, parts;         /* tiles of a slab that a job goes through; how many such there are */
    bool u_once;
    int64_t v_point, v_panel, u_point, u_panel, m_point; /* floats */
    size_t v_floats, u_floats, m_floats, own_floats;     /* own: of each thread */
} plan;

bool ay_wino_can(const ay_conv *c) {
    bool can = c->n > 0 && c->c > 0 && c->o > 0 && c->out[1] > 0 && c->out[2] > 0;
    can = can && c->groups == 1 && c->kernel[0] == 1 && c->in[0] == 1 && c->out[0] == 1 && c->before[0] == 0;
    for (int d = 1; d < 3; d++) can = can && c->kernel[d] == 3 && c->stride[d] == 1 && c->dilation[d] == 1;
    return can;
}

static int64_t even(int64_t size, int64_t most, int64_t unit) {
    int64_t parts = ay_div_up(size, ay_max_i64(unit, most / unit * unit));
    return ay_round_up(ay_div_up(size, ay_max_i64(1, parts)), unit);
}

static plan plan_of(ay_isa isa, int threads, const ay_conv *c) {
    plan p = {.kernel = ay_gemm_f32_pick(isa), .grid = ay_wino_grid_of(isa, c)};
    int64_t mr = p.kernel->mr, nr = p.kernel->nr;
    int64_t tile_bytes = POINTS * 4 * ay_max_i64(1, c->c), room = ay_min_i64(MOST_V_BYTES, (int64_t)V_BYTES * threads);
    p.u_once = c->o * tile_bytes <= (int64_t)U_BYTES * threads;
    p.slab = even(p.grid.tiles, ay_max_i64(LEAST_TILES, room / tile_bytes), nr);
    p.job_tiles = even(p.slab, p.u_once ? ONCE_TILES : JOB_TILES, nr);
    p.slab = ay_round_up(p.slab, p.job_tiles);
    int64_t most = p.u_once ? ONCE_CHANNELS : ay_min_i64(JOB_CHANNELS, ay_max_i64(mr, U_JOB_BYTES / tile_bytes));
    int64_t runs = p.slab / p.job_tiles;
    if (c->o * (p.u_once ? runs : 1) < most * JOBS * threads) most = ay_max_i64(mr, most / 2); /* so that threads finish together */
    p.job_o = even(c->o, most, mr);
    int64_t jobs = ay_div_up(c->o, p.job_o);
    p.part = p.job_tiles * (p.u_once ? 1 : ay_div_up(runs, ay_min_i64(runs, ay_div_up(JOBS * threads, jobs))));
    p.parts = ay_div_up(p.slab, p.part);
    p.v_point = ay_round_up(c->c * nr, 16) + PAD;
    p.v_panel = POINTS * p.v_point;
    p.u_point = ay_round_up(c->c * mr, 16) + PAD; /* the last vector may stick out */
    p.u_panel = POINTS * p.u_point;
    p.m_point = ay_round_up(p.job_o * p.job_tiles, 16) + PAD;
    p.v_floats = (size_t)(p.slab / nr * p.v_panel);
    size_t u = (size_t)(ay_div_up(p.u_once ? c->o : p.job_o, mr) * p.u_panel);
    p.u_floats = p.u_once ? u : 0;
    int64_t taps = ay_round_up(9 * CHANNELS * mr + AY_WINO_LANES, 16);
    p.m_floats = (size_t)ay_max_i64(POINTS * p.m_point, taps);
    p.own_floats = p.m_floats + (p.u_once ? 0 : u);
    return p;
}

/* ---- how, and whether ---------------------------------------------------------------------------------------------- */

static double slab_cycles(ay_isa isa, const ay_conv *c) {
    plan p = plan_of(isa, 2, c); /* never by the number of threads: the result would depend on it */
    double nr = p.kernel->nr, lanes = p.grid.row->lanes, in = (double)c->c, out = (double)c->o, slow = 8 / lanes;
    double times = p.u_once ? 1 : (double)ay_div_up(p.grid.tiles, p.slab), tiles = (double)ay_round_up(p.grid.tiles, p.kernel->nr);
    return in * out * (POINTS * tiles / nr * 1.05 + 25 * slow * times) + slow * tiles * (45 * out + 50 * in);
}

static bool by_few(ay_isa isa, const ay_conv *c) {
    if (c->how == AY_CONV_WINO_SLAB || c->how == AY_CONV_WINO_FEW) return c->how == AY_CONV_WINO_FEW;
    return ay_wino_few_cycles(isa, c) < slab_cycles(isa, c);
}

double ay_wino_cycles(ay_isa isa, const ay_conv *c) { return fmin(ay_wino_few_cycles(isa, c), slab_cycles(isa, c)); }

bool ay_wino_pays(ay_isa isa, const ay_conv *c) {
    if (!ay_wino_can(c)) return false;
    double in = (double)c->c, pixels = (double)(c->n * c->out[1] * c->out[2]), nr = ay_gemm_f32_pick(isa)->nr;
    double direct = in * (double)c->o * (9 * pixels / nr * 1.03 + 15) + 12 * in * pixels;
    return 1.1 * ay_wino_cycles(isa, c) < direct;
}

size_t ay_wino_scratch(ay_isa isa, int threads, const ay_conv *c) {
    if (by_few(isa, c)) return ay_wino_few_scratch(isa, threads, c);
    plan p = plan_of(isa, threads, c);
    return (p.v_floats + p.u_floats + p.own_floats * (size_t)threads) * sizeof(float);
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

typedef struct job {
    const ay_conv *c;
    plan p;
    int64_t first, count; /* tiles of the slab */
    float *v, *u, *own;
} job;

/** A panel's tiles of some channels. */
static void input_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t blocks = ay_div_up(j->c->c, CHANNELS), panel = tile / blocks, nr = p->kernel->nr, c0 = tile % blocks * CHANNELS;
    int64_t c1 = ay_min_i64(j->c->c, c0 + CHANNELS);
    ay_wino_input(&p->grid, j->first + panel * nr, nr, c0, c1, j->v + panel * p->v_panel, p->v_point, nr);
}

/** U of the panel of mr output channels from o on. */
static void make_panel(const job *j, int64_t o, float *u, float *room) {
    const ay_conv *c = j->c;
    const plan *p = &j->p;
    int64_t k = c->c * 9;
    int n = (int)ay_min_i64(p->kernel->mr, c->o - o);
    ay_operand w = {.panel = ay_panel_weight, .row = p->grid.pack, .w = c->w, .k = k};
    if (c->wf) w = (ay_operand){.panel = ay_panel_turned, .row = p->grid.pack, .f = c->wf, .ld = k};
    for (int64_t c0 = 0; c0 < c->c; c0 += CHANNELS) {
        int64_t cn = ay_min_i64(CHANNELS, c->c - c0);
        w.panel(&w, o, n, n, c0 * 9, cn * 9, room);
        memset(room + cn * 9 * n, 0, AY_WINO_LANES * sizeof *room); /* read with the last numbers */
        for (int64_t i = 0; i < cn; i++) p->grid.row->weights(n, room + i * 9 * n, u + (c0 + i) * n, p->u_point);
    }
}

static void weight_tile(void *arg, int64_t panel, int thread) {
    const job *j = arg;
    make_panel(j, panel * j->p.kernel->mr, j->u + panel * j->p.u_panel, j->own + (size_t)thread * j->p.own_floats);
}

/** m [point][o][tiles] of output channels o0 .. o1 and a job's tiles from the slab's `t0` on. */
static void multiply(const job *j, const float *u, int64_t o0, int64_t o1, int64_t t0, int64_t tiles, float *m) {
    const plan *p = &j->p;
    int64_t mr = p->kernel->mr, nr = p->kernel->nr, depth = j->c->c, kc = ay_div_up(depth, ay_div_up(depth, KC));
    for (int64_t point = 0; point < POINTS; point++) {
        for (int64_t k0 = 0; k0 < depth; k0 += kc) {
            int64_t kn = ay_min_i64(kc, depth - k0);
            for (int64_t t = 0; t < tiles; t += nr) {
                const float *b = j->v + (t0 + t) / nr * p->v_panel + point * p->v_point + k0 * nr;
                for (int64_t o = o0; o < o1; o += mr) {
                    int64_t rows = ay_min_i64(mr, o1 - o);
                    p->kernel->height[rows - 1](kn, u + (o - o0) / mr * p->u_panel + point * p->u_point + k0 * rows, b,
                                                m + point * p->m_point + (o - o0) * p->job_tiles + t, p->job_tiles, k0 > 0);
                }
            }
        }
    }
}

static void product_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_conv *c = j->c;
    const plan *p = &j->p;
    int64_t mr = p->kernel->mr, o0 = tile / p->parts * p->job_o, o1 = ay_min_i64(c->o, o0 + p->job_o);
    int64_t t0 = tile % p->parts * p->part, t1 = ay_min_i64(j->count, t0 + p->part);
    float *m = j->own + (size_t)thread * p->own_floats, *own_u = m + p->m_floats;
    const float *u = p->u_once ? j->u + o0 / mr * p->u_panel : own_u;
    if (t0 >= t1) return;
    for (int64_t o = o0; o < o1 && !p->u_once; o += mr) make_panel(j, o, own_u + (o - o0) / mr * p->u_panel, m);
    for (; t0 < t1; t0 += p->job_tiles) {
        int64_t n = ay_min_i64(p->job_tiles, t1 - t0);
        multiply(j, u, o0, o1, t0, n, m);
        ay_wino_output(&p->grid, j->first + t0, n, o0, o1, m, p->m_point, p->job_tiles);
    }
}

void ay_wino_run(const ay_exec *ex, const ay_conv *c) {
    if (by_few(ex->isa, c)) {
        ay_wino_few_run(ex, c);
        return;
    }
    job j = {.c = c, .p = plan_of(ex->isa, ay_pool_threads(ex->pool), c), .v = ex->scratch};
    const plan *p = &j.p;
    int64_t mr = p->kernel->mr, nr = p->kernel->nr;
    j.u = j.v + p->v_floats;
    j.own = j.u + p->u_floats;
    if (p->u_once) ay_parallel(ex->pool, ay_div_up(c->o, mr), weight_tile, &j, ex->stop);
    for (; j.first < p->grid.tiles; j.first += p->slab) {
        j.count = ay_min_i64(p->slab, p->grid.tiles - j.first);
        ay_parallel(ex->pool, ay_div_up(j.count, nr) * ay_div_up(c->c, CHANNELS), input_tile, &j, ex->stop);
        ay_parallel(ex->pool, ay_div_up(c->o, p->job_o) * p->parts, product_tile, &j, ex->stop);
    }
}
