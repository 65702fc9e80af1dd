/* SPDX-License-Identifier: MIT
 *
 * Between pictures and the vectors of tiles that Winograd's transformations take (wino_body.h). A vector comes in pieces of tiles
 * side by side. Most pieces lie inside the picture and are read and written there; of those at its border the pixels outside are
 * zeros; the tiles of a few, which go on in the next row or end with the last one, are brought together one by one.
 */
#include "cpu/kernel/wino.h"

#include <string.h>

enum {
    IN = AY_WINO_IN,
    OUT = AY_WINO_OUT,
    PIECES = AY_WINO_PIECES,
    MOST_SPAN = AY_WINO_LANES * OUT / PIECES, /* numbers in a row of a piece */
    ROOM = 2 * IN * MOST_SPAN,
    VECTORS = 16 /* looked up in one go */
};

ay_wino_grid ay_wino_grid_of(ay_isa isa, const ay_conv *c) {
    ay_wino_grid g = {.c = c, .row = ay_wino_pick(isa), .pack = ay_pack_pick(isa)};
    g.down = ay_div_up(c->out[1], OUT);
    g.across = ay_div_up(c->out[2], OUT);
    g.tiles = c->n * g.down * g.across;
    g.plane = c->x_plane ? c->x_plane : c->in[1] * c->in[2];
    g.y_plane = c->y_plane ? c->y_plane : c->out[1] * c->out[2];
    return g;
}

static int pieces_of(const ay_wino_row *row) { return row->lanes >= PIECES ? PIECES : 1; }

/** Where some tiles one behind the other in a row of tiles stand. */
typedef struct run {
    int64_t n, picture, y, x; /* how many; result that the first begins with */
} run;
static run run_at(const ay_wino_grid *g, int64_t tile, int64_t most) {
    int64_t in_row = tile % g->across, row = tile / g->across;
    return (run){ay_min_i64(most, g->across - in_row), row / g->down, row % g->down * OUT, in_row * OUT};
}

/* ---- input --------------------------------------------------------------------------------------------------------- */

typedef struct piece {
    enum { INSIDE, EDGE, BROKEN } kind;
    int64_t tile, at;             /* the first; its first pixel, from the first channel's first on */
    int top, bottom, left, right; /* what of the pixels is in the picture */
} piece;

static int between(int64_t x, int64_t most) { return (int)ay_max_i64(0, ay_min_i64(x, most)); }

static piece piece_of(const ay_wino_grid *g, int64_t tile, int64_t n) {
    const ay_conv *c = g->c;
    piece p = {.kind = BROKEN, .tile = tile};
    if (tile >= g->tiles) return p;
    run r = run_at(g, tile, n);
    if (r.n < n) return p;
    int64_t y = r.y - c->before[1], x = r.x - c->before[2], wide = OUT * (n + 1);
    p.at = r.picture * c->c * g->plane + y * c->in[2] + x;
    p.top = between(-y, IN);
    p.bottom = between(c->in[1] - y, IN);
    p.right = between(c->in[2] - x, wide);
    p.left = between(-x, p.right);
    p.kind = p.top == 0 && p.bottom == IN && p.left == 0 && p.right == wide ? INSIDE : EDGE;
    return p;
}

/** `n` numbers of row y of a channel from column x on, zeros where there is no picture. */
static void clipped(const ay_conv *c, const float *channel, int64_t y, int64_t x, int64_t n, float *dst) {
    int64_t lo = ay_min_i64(n, ay_max_i64(0, -x)), hi = ay_max_i64(lo, ay_min_i64(n, c->in[2] - x));
    if (y < 0 || y >= c->in[1]) lo = hi = n;
    for (int64_t i = 0; i < lo; i++) dst[i] = 0;
    if (hi > lo) memcpy(dst + lo, channel + y * c->in[2] + x + lo, (size_t)(hi - lo) * sizeof *dst);
    for (int64_t i = hi; i < n; i++) dst[i] = 0;
}

/** Rows of a broken piece of n tiles. */
static void collect(const ay_wino_grid *g, int64_t channel, int64_t tile, int64_t n, float *room) {
    const ay_conv *c = g->c;
    for (int64_t at = 0; at < n;) {
        run r = {n - at, 0, INT32_MAX, 0};
        if (tile + at < g->tiles) r = run_at(g, tile + at, n - at);
        const float *from = c->x + (r.picture * c->c + channel) * g->plane;
        for (int64_t i = 0; i < IN; i++) {
            int64_t y = r.y - c->before[1] + i, x = r.x - c->before[2];
            float *to = room + (i * n + at) * OUT;
            clipped(c, from, y, x, r.n * OUT, to);
            clipped(c, from, y, x + OUT, r.n * OUT, to + IN * n * OUT);
        }
        at += r.n;
    }
}

static void input_of(const ay_wino_grid *g, const piece *p, int64_t n, int64_t channel, float *v, int64_t step) {
    const ay_conv *c = g->c;
    const float *x = c->x + channel * g->plane;
    int64_t next = channel + 1 < c->c ? g->plane : 0, span = n * OUT;
    ay_wino_from from[PIECES];
    _Alignas(64) float rooms[PIECES][ROOM];
    for (int i = 0; i < pieces_of(g->row); i++) {
        float *room = rooms[i];
        from[i] = (ay_wino_from){room, room + IN * span, span};
        if (p[i].kind == BROKEN) {
            collect(g, channel, p[i].tile, n, room);
            continue;
        }
        const float *at = x + p[i].at, *ahead = at + next + span; /* the processor cannot guess it: rows are far apart */
        for (int r = p[i].top; r < p[i].bottom; r++) __builtin_prefetch(ahead + r * c->in[2]);
        if (p[i].kind == INSIDE) from[i] = (ay_wino_from){at, at + OUT, c->in[2]};
        else g->row->edge(at, c->in[2], p[i].top, p[i].bottom, p[i].left, p[i].right, room);
    }
    g->row->input(from, v, step);
}

void ay_wino_input(const ay_wino_grid *g, int64_t first, int64_t count, int64_t c0, int64_t c1, float *v, int64_t step,
                   int64_t width) {
    int64_t lanes = g->row->lanes, pieces = pieces_of(g->row), n = lanes / pieces;
    piece p[VECTORS * PIECES];
    for (int64_t some; count > 0; first += some, count -= some, v += some) {
        some = ay_min_i64(count, VECTORS * lanes);
        for (int64_t i = 0; i * n < some; i++) p[i] = piece_of(g, first + i * n, n);
        for (int64_t ch = c0; ch < c1; ch++) {
            for (int64_t at = 0; at < some; at += lanes) input_of(g, p + at / n, n, ch, v + ch * width + at, step);
        }
    }
}

/* ---- output -------------------------------------------------------------------------------------------------------- */

/** Results of a piece that is not written where it belongs, from rows of n tiles; what is to be added is, if there is no activation. */
static void scatter(const ay_wino_grid *g, int64_t o, int64_t tile, int64_t n, float *lines) {
    const ay_conv *c = g->c;
    ay_finish f = {.alpha = 1};
    for (int64_t at = 0; at < n && tile + at < g->tiles;) {
        run r = run_at(g, tile + at, n - at);
        int64_t width = ay_min_i64(r.n * OUT, c->out[2] - r.x);
        for (int64_t i = 0; i < OUT && r.y + i < c->out[1]; i++) {
            int64_t to = (r.picture * c->o + o) * g->y_plane + (r.y + i) * c->out[2] + r.x;
            float *line = lines + (i * n + at) * OUT;
            if (c->residual && c->act == AY_ACT_NONE) {
                f.residual = c->residual + to;
                g->pack->finish(&f, width, line);
            }
            memcpy(c->y + to, line, (size_t)width * sizeof *line);
        }
        at += r.n;
    }
}

/** Activation, and what is added after it, where the results are. */
static void activate(const ay_wino_grid *g, int64_t o, int64_t first, int64_t count) {
    const ay_conv *c = g->c;
    ay_finish f = {.alpha = 1, .act = c->act};
    for (int64_t at = 0; at < count && first + at < g->tiles;) {
        run r = run_at(g, first + at, count - at);
        for (int64_t i = 0; i < OUT && r.y + i < c->out[1]; i++) {
            int64_t to = (r.picture * c->o + o) * g->y_plane + (r.y + i) * c->out[2] + r.x;
            if (c->residual) f.residual = c->residual + to;
            g->pack->finish(&f, ay_min_i64(r.n * OUT, c->out[2] - r.x), c->y + to);
        }
        at += r.n;
    }
}

/** Of results, in the first channel; -1: not all in one row, or not all wanted. */
static int64_t place_of(const ay_wino_grid *g, int64_t tile, int64_t n) {
    const ay_conv *c = g->c;
    if (tile >= g->tiles) return -1;
    run r = run_at(g, tile, n);
    bool whole = r.n == n && r.y + OUT <= c->out[1] && r.x + n * OUT <= c->out[2];
    return whole ? r.picture * c->o * g->y_plane + r.y * c->out[2] + r.x : -1;
}

static void output_of(const ay_wino_grid *g, const int64_t *place, int64_t n, int64_t tile, int64_t o, const float *m,
                      int64_t step) {
    const ay_conv *c = g->c;
    const float *residual = c->act == AY_ACT_NONE ? c->residual : NULL;
    int64_t next = o + 1 < c->o ? g->y_plane : 0, span = n * OUT;
    ay_wino_to to[PIECES];
    _Alignas(64) float rooms[PIECES][OUT * MOST_SPAN];
    for (int i = 0; i < pieces_of(g->row); i++) {
        int64_t at = place[i] + o * g->y_plane;
        to[i] = (ay_wino_to){rooms[i], NULL, span};
        if (place[i] < 0) continue;
        to[i] = (ay_wino_to){c->y + at, residual ? residual + at : NULL, c->out[2]};
        for (int r = 0; r < OUT; r++) {
            int64_t ahead = next + r * c->out[2] + span - 1;
            __builtin_prefetch(to[i].y + ahead, 1);
            if (residual && residual != c->y) __builtin_prefetch(to[i].residual + ahead);
        }
    }
    g->row->output(m, step, c->bias ? c->bias[o] : 0, to);
    for (int i = 0; i < pieces_of(g->row); i++)
        if (place[i] < 0) scatter(g, o, tile + i * n, n, rooms[i]);
}

void ay_wino_output(const ay_wino_grid *g, int64_t first, int64_t count, int64_t o0, int64_t o1, const float *m,
                    int64_t step, int64_t width) {
    int64_t lanes = g->row->lanes, pieces = pieces_of(g->row), n = lanes / pieces, place[VECTORS * PIECES];
    for (int64_t some; count > 0; first += some, count -= some, m += some) {
        some = ay_min_i64(count, VECTORS * lanes);
        for (int64_t i = 0; i * n < ay_round_up(some, lanes); i++) place[i] = place_of(g, first + i * n, n);
        for (int64_t o = o0; o < o1; o++) {
            for (int64_t at = 0; at < some; at += lanes)
                output_of(g, place + at / n, n, first + at, o, m + (o - o0) * width + at, step);
            if (g->c->act != AY_ACT_NONE) activate(g, o, first, some);
        }
    }
}
