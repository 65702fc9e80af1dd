/* SPDX-License-Identifier: MIT
 *
 * Winograd's convolution of few tiles (wino.c): small pictures of many channels, where turning and transforming weights is most of
 * the work. There the tiles are the rows of the product and the output channels its columns: M [tiles, O] = V [tiles, C] *
 * U [C, O], so that no lane is idle, and U exists only for a block of input channels at a time, which stays in the second cache.
 * The weight is read once.
 */
#include "cpu/kernel/wino.h"

#include <math.h>
#include <string.h>

enum {
    POINTS = AY_WINO_POINTS,
    IN = AY_WINO_IN,
    OUT = AY_WINO_OUT,
    PIECES = AY_WINO_PIECES,
    KC = 64,         /* input channels of a block, at most */
    PAD = 16,        /* floats between points: the last vector of a panel sticks out, and not all begin on one place of the cache */
    CHANNELS = 16,   /* whose taps are turned in one go */
    MOST_V_BYTES = 8 << 20
};

typedef struct plan {
    const ay_gemm_f32_row *kernel;
    ay_wino_grid grid;
    int64_t rows, panels; /* tiles of a panel, the last may have fewer */
    int64_t kc, blocks;   /* input channels of a block */
    int64_t wide, high;   /* of a picture with zeros around it */
    int64_t v_point, v_panel, u_point, m_point, t_point; /* floats */
    size_t v_floats, u_floats, m_floats, t_floats, stage_floats;
} plan;

static plan plan_of(ay_isa isa, const ay_conv *c) {
    plan p = {.kernel = ay_gemm_f32_pick(isa), .grid = ay_wino_grid_of(isa, c)};
    int64_t tiles = p.grid.tiles, lanes = p.grid.row->lanes, nr = p.kernel->nr;
    p.panels = ay_div_up(tiles, p.kernel->mr);
    p.rows = ay_div_up(tiles, p.panels);
    p.blocks = ay_div_up(c->c, KC);
    p.kc = ay_div_up(c->c, p.blocks);
    p.wide = (p.grid.across + 1) * OUT;
    p.high = p.grid.down * OUT + IN - OUT;
    p.v_point = ay_round_up(p.kc * p.rows, 16) + PAD;
    p.v_panel = POINTS * p.v_point;
    p.u_point = p.kc * nr + PAD;
    p.m_point = tiles * nr + PAD;
    p.t_point = lanes * nr + PAD;
    p.v_floats = (size_t)(p.blocks * p.panels * p.v_panel);
    p.u_floats = (size_t)(POINTS * p.u_point);
    p.m_floats = (size_t)(POINTS * p.m_point);
    int64_t padded = c->n * p.high * p.wide, taps = 9 * CHANNELS * nr;
    p.t_floats = (size_t)ay_round_up(ay_max_i64(POINTS * p.t_point, ay_max_i64(padded, taps)), 16);
    p.stage_floats = (size_t)(nr * tiles * OUT * OUT);
    return p;
}

static size_t own_floats(const plan *p) { return p->u_floats + p->m_floats + p->t_floats + p->stage_floats; }

size_t ay_wino_few_scratch(ay_isa isa, int threads, const ay_conv *c) {
    plan p = plan_of(isa, c);
    return (p.v_floats + own_floats(&p) * (size_t)threads) * sizeof(float);
}

/** Below four rows a micro-kernel waits for its own sums. */
double ay_wino_few_cycles(ay_isa isa, const ay_conv *c) {
    plan p = plan_of(isa, c);
    if (p.v_floats * sizeof(float) > MOST_V_BYTES) return INFINITY;
    double in = (double)c->c, out = (double)c->o, rows = (double)(p.panels * ay_max_i64(p.rows, 4));
    return in * out * (POINTS * rows / p.kernel->nr * 1.1 + 12) + 65 * (double)p.grid.tiles * (in + out);
}

typedef struct job {
    const ay_conv *c;
    plan p;
    float *v, *own;
} job;

/* ---- input --------------------------------------------------------------------------------------------------------- */

/** A channel of all pictures, where only zeros were before. */
static void pad(const job *j, int64_t channel, float *to) {
    const ay_conv *c = j->c;
    const plan *p = &j->p;
    int64_t left = ay_min_i64(c->before[2], p->wide), top = ay_min_i64(c->before[1], p->high);
    int64_t width = ay_min_i64(c->in[2], p->wide - left), rows = ay_min_i64(c->in[1], p->high - top);
    for (int64_t n = 0; n < c->n; n++) {
        const float *from = c->x + (n * c->c + channel) * p->grid.plane;
        float *at = to + (n * p->high + top) * p->wide + left;
        for (int64_t r = 0; r < rows; r++) memcpy(at + r * p->wide, from + r * c->in[2], (size_t)width * sizeof *at);
    }
}

/** Where a tile's first pixel is in padded pictures. */
static int64_t padded_at(const plan *p, int64_t tile) {
    int64_t row = tile / p->grid.across;
    return (row / p->grid.down * p->high + row % p->grid.down * OUT) * p->wide + tile % p->grid.across * OUT;
}

/** Up to a vector of tiles, in the order of lanes. */
static void input_of(const job *j, const float *padded, int64_t tile, int64_t count, float *v) {
    const plan *p = &j->p;
    int64_t lanes = p->grid.row->lanes, pieces = ay_min_i64(lanes, PIECES), span = lanes / pieces * OUT;
    _Alignas(64) float room[PIECES][2 * IN * AY_WINO_LANES];
    ay_wino_from from[PIECES];
    for (int64_t i = 0; i < pieces; i++) from[i] = (ay_wino_from){room[i], room[i] + IN * span, span};
    for (int64_t l = 0; l < count; l++) {
        const float *at = padded + padded_at(p, tile + l);
        float *to = room[l % pieces] + l / pieces * OUT;
        for (int64_t r = 0; r < IN; r++, at += p->wide, to += span) {
            memcpy(to, at, OUT * sizeof *to);
            memcpy(to + IN * span, at + OUT, OUT * sizeof *to);
        }
    }
    p->grid.row->input(from, v, p->v_point);
}

static void input_tile(void *arg, int64_t block, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t c0 = block * p->kc, c1 = ay_min_i64(j->c->c, c0 + p->kc), lanes = p->grid.row->lanes;
    float *padded = j->own + (size_t)thread * own_floats(p) + p->u_floats + p->m_floats;
    memset(padded, 0, p->t_floats * sizeof *padded);
    for (int64_t ch = c0; ch < c1; ch++) {
        pad(j, ch, padded);
        for (int64_t i = 0; i < p->panels; i++) {
            int64_t first = i * p->rows, rows = ay_min_i64(p->rows, p->grid.tiles - first);
            float *v = j->v + (block * p->panels + i) * p->v_panel + (ch - c0) * rows;
            for (int64_t at = 0; at < rows; at += lanes) input_of(j, padded, first + at, ay_min_i64(lanes, rows - at), v + at);
        }
    }
}

/* ---- product ------------------------------------------------------------------------------------------------------- */

/** U of nr output channels from o on and input channels c0 .. c1; those that are not there are zeros. */
static void make_u(const job *j, int64_t o, int64_t c0, int64_t c1, float *u, float *taps) {
    const ay_conv *c = j->c;
    const plan *p = &j->p;
    int64_t k = c->c * 9;
    int nr = p->kernel->nr, n = (int)ay_min_i64(nr, c->o - o);
    ay_operand w = {.panel = ay_panel_weight, .row = p->grid.pack, .w = c->w, .k = k};
    if (c->wf) w = (ay_operand){.panel = ay_panel_turned, .row = p->grid.pack, .f = c->wf, .ld = k};
    for (int64_t at = c0; at < c1; at += CHANNELS) {
        int64_t cn = ay_min_i64(CHANNELS, c1 - at);
        w.panel(&w, o, n, nr, at * 9, cn * 9, taps);
        for (int64_t i = 0; i < cn; i++) p->grid.row->weights(nr, taps + i * 9 * nr, u + (at - c0 + i) * nr, p->u_point);
    }
}

/** m [point][tile][nr] (+)= V * U of one block. */
static void multiply(const job *j, int64_t o, int64_t block, const float *u, float *m) {
    const plan *p = &j->p;
    int64_t nr = p->kernel->nr, c0 = block * p->kc, kn = ay_min_i64(p->kc, j->c->c - c0);
    const float *v = j->v + block * p->panels * p->v_panel;
    for (int64_t point = 0; point < POINTS; point++) {
        for (int64_t i = 0; i < p->panels; i++) {
            int64_t first = i * p->rows, rows = ay_min_i64(p->rows, p->grid.tiles - first);
            p->kernel->height[rows - 1](kn, v + i * p->v_panel + point * p->v_point, u + point * p->u_point,
                                        m + point * p->m_point + first * nr, nr, block > 0);
        }
    }
}

/* ---- output -------------------------------------------------------------------------------------------------------- */

/** Whole pictures of `count` channels into stage [channel][picture][rows][columns], as large as the tiles are. */
static void assemble(const job *j, int64_t count, const float *m, float *turned, float *stage) {
    const plan *p = &j->p;
    const ay_wino_grid *g = &p->grid;
    int64_t lanes = g->row->lanes, pieces = ay_min_i64(lanes, PIECES), span = lanes / pieces * OUT, nr = p->kernel->nr;
    int64_t wide = g->across * OUT;
    _Alignas(64) float room[PIECES][OUT * AY_WINO_LANES];
    ay_wino_to to[PIECES];
    for (int64_t i = 0; i < pieces; i++) to[i] = (ay_wino_to){room[i], NULL, span};
    for (int64_t t = 0; t < g->tiles; t += lanes) {
        int64_t n = ay_min_i64(lanes, g->tiles - t);
        for (int64_t i = 0; i < POINTS; i++)
            g->pack->turn(AY_F32, m + i * p->m_point + t * nr, nr, (int)n, (int)lanes, count, turned + i * p->t_point);
        for (int64_t o = 0; o < count; o++) {
            g->row->output(turned + o * lanes, p->t_point, 0, to);
            for (int64_t l = 0; l < n; l++) {
                const float *from = room[l % pieces] + l / pieces * OUT;
                float *at = stage + o * g->tiles * OUT * OUT + (t + l) / g->across * OUT * wide + (t + l) % g->across * OUT;
                for (int64_t r = 0; r < OUT; r++) memcpy(at + r * wide, from + r * span, OUT * sizeof *at);
            }
        }
    }
}

/** Bias, activation, residual, and into the pictures of channel o. */
static void place(const job *j, int64_t o, float *stage) {
    const ay_conv *c = j->c;
    const ay_wino_grid *g = &j->p.grid;
    ay_finish f = {.alpha = 1, .bias_all = c->bias ? c->bias[o] : 0, .act = c->act};
    int64_t rows = c->out[1], width = c->out[2], wide = g->across * OUT;
    if (width == wide) width *= rows, rows = 1; /* one behind the other */
    for (int64_t n = 0; n < c->n; n++) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t to = (n * c->o + o) * g->y_plane + r * c->out[2];
            float *line = stage + (n * g->down * OUT + r) * wide;
            if (c->residual) f.residual = c->residual + to;
            g->pack->finish(&f, width, line);
            memcpy(c->y + to, line, (size_t)width * sizeof *line);
        }
    }
}

static void product_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    int64_t o = tile * p->kernel->nr, count = ay_min_i64(p->kernel->nr, j->c->o - o);
    float *u = j->own + (size_t)thread * own_floats(p), *m = u + p->u_floats, *t = m + p->m_floats, *stage = t + p->t_floats;
    for (int64_t b = 0; b < p->blocks; b++) {
        make_u(j, o, b * p->kc, ay_min_i64(j->c->c, (b + 1) * p->kc), u, t);
        multiply(j, o, b, u, m);
    }
    assemble(j, count, m, t, stage);
    for (int64_t i = 0; i < count; i++) place(j, o + i, stage + i * p->grid.tiles * OUT * OUT);
}

void ay_wino_few_run(const ay_exec *ex, const ay_conv *c) {
    job j = {.c = c, .p = plan_of(ex->isa, c), .v = ex->scratch};
    j.own = j.v + j.p.v_floats;
    ay_parallel(ex->pool, j.p.blocks, input_tile, &j, ex->stop);
    ay_parallel(ex->pool, ay_div_up(c->o, j.p.kernel->nr), product_tile, &j, ex->stop);
}
