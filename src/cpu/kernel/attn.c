/* SPDX-License-Identifier: MIT
 *
 * Fused attention. A tile is a run of queries of one head; keys and values pass by in blocks, packed once a block for all
 * of those queries. Scores are computed turned, s [keys][queries] = K q^T, so that the softmax runs down the columns and the
 * panel feeds the second product, o^T [dv][queries] = V^T p, as it stands. The running maximum and sum per query follow
 * Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018). The block of keys has one size whatever the
 * number of threads, so results do not depend on it.
 */
#include "cpu/kernel/mm.h"

#include <math.h>
#include <string.h>

enum {
    KEYS = 256,            /* of a block, about, at most */
    KEY_FLOATS = 98304,    /* of a block of keys and values, which stays in the second cache: 384 KB */
    QUERY_FLOATS = 1 << 19 /* of a run of queries and their results: they stream past, and a long run packs keys seldom */
};

typedef struct layout {
    const ay_pack_row *pack;
    const ay_attn_row *row;
    int64_t keys, run;                               /* keys in a block, queries in a tile (whole panels) */
    int64_t runs;                                    /* tiles of one head */
    int height;                                      /* of a panel of values */
    size_t q, o, k, v, s, mask, sums, panel, total; /* floats */
} layout;

typedef struct job {
    const ay_attn *a;
    layout l;
    float *scratch;
} job;

static layout lay_out(ay_isa isa, int threads, const ay_attn *a) {
    layout l = {.pack = ay_pack_pick(isa), .row = ay_attn_pick(isa)};
    int64_t nr = l.row->width, mr = l.row->keys, both = ay_max_i64(1, a->d + a->dv);
    l.keys = ay_max_i64(1, ay_min_i64(KEYS + mr - 1, KEY_FLOATS / both) / mr) * mr; /* 256 at once, not 252 and 4 */
    l.run = ay_max_i64(1, QUERY_FLOATS / both / nr) * nr;
    while (l.run > 2 * nr && a->batch * a->heads * ay_div_up(a->lq, l.run) < 4 * (int64_t)threads)
        l.run = ay_round_up(l.run / 2, nr);
    l.runs = ay_div_up(a->lq, l.run);
    l.run = ay_round_up(ay_div_up(a->lq, ay_max_i64(1, l.runs)), nr);
    l.height = (int)ay_max_i64(1, ay_div_up(a->dv, ay_max_i64(1, ay_div_up(a->dv, mr))));
    l.q = (size_t)ay_round_up(l.run * a->d, 16);
    l.o = (size_t)ay_round_up(l.run * a->dv, 16);
    l.k = (size_t)ay_round_up(l.keys * a->d, 16);
    l.v = (size_t)ay_round_up(l.keys * a->dv, 16);
    l.s = (size_t)ay_round_up(l.keys * nr, 16);
    l.mask = a->mask ? l.s : 0;
    l.sums = (size_t)ay_round_up(l.run, 16);
    l.panel = (size_t)ay_round_up(nr, 16);
    l.total = l.q + l.o + l.k + l.v + l.s + l.mask + 2 * l.sums + 2 * l.panel;
    return l;
}

size_t ay_attn_scratch(ay_isa isa, int threads, const ay_attn *a) {
    return lay_out(isa, threads, a).total * sizeof(float) * (size_t)threads;
}

/** A tile's scratch and place. */
typedef struct place {
    const ay_attn *a;
    const layout *l;
    int64_t b, h, q0, queries;
    float *q, *o, *k, *v, *s, *mask, *top, *sum, *before, *shrink;
} place;

/** The panel of queries from i of the run on: how many there are, and how wide it is. */
static int cols_at(const place *t, int64_t i) { return (int)ay_min_i64(t->l->row->width, t->queries - i); }
static int width_at(const place *t, int64_t i) {
    const ay_attn_row *row = t->l->row;
    return cols_at(t, i) <= row->narrow ? row->narrow : row->width;
}

/** Where nothing is added to scores they are made for powers of two: the factor of e goes with the scale. */
static void pack_queries(const place *t, int64_t i) {
    const ay_attn *a = t->a;
    float by = a->mask ? a->scale : (float)((double)a->scale * 1.4426950408889634);
    int cols = cols_at(t, i), width = width_at(t, i);
    const float *q = a->q + t->b * a->qs[0] + t->h * a->qs[1] + (t->q0 + i) * a->qs[2];
    t->l->pack->turn(AY_F32, q, a->qs[2], cols, width, a->d, t->q + i * a->d);
    t->l->row->scale(width * a->d, t->q + i * a->d, by);
    for (int64_t c = i; c < i + width; c++) {
        t->top[c] = -INFINITY;
        t->sum[c] = 0;
    }
}

/** Keys and values a few at a time: rows that lie a power of two apart share so few places of a cache that a whole block's would
 *  drive one another out. */
static void pack_keys(const place *t, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    int64_t mr = t->l->row->keys, height = t->l->height;
    const float *k = a->k + t->b * a->ks[0] + t->h * a->ks[1] + k0 * a->ks[2];
    const float *v = a->v + t->b * a->vs[0] + t->h * a->vs[1] + k0 * a->vs[2];
    for (int64_t i = 0; i < keys; i += mr) {
        int rows = (int)ay_min_i64(mr, keys - i);
        t->l->pack->turn(AY_F32, k + i * a->ks[2], a->ks[2], rows, rows, a->d, t->k + i * a->d);
        for (int64_t c = 0; c < a->dv; c += height) {
            int cols = (int)ay_min_i64(height, a->dv - c);
            t->l->pack->rows(v + i * a->vs[2] + c, a->vs[2], cols, cols, rows, t->v + c * keys + i * cols);
        }
    }
}

/** One number a key, for every query: into t->mask. */
static void pack_key_mask(const place *t, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    const float *m = a->mask + t->b * a->ms[0] + t->h * a->ms[1] + k0 * a->ms[3];
    for (int64_t p = 0; p < keys; p++) t->mask[p] = m[p * a->ms[3]];
}

/** What is added to the scores of a panel of queries: where it lies, if it lies turned like them, or in t->mask. */
static ay_attn_mask panel_mask(const place *t, int64_t i, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    if (!a->mask) return (ay_attn_mask){0};
    if (a->ms[2] == 0) return (ay_attn_mask){.key = t->mask};
    int cols = cols_at(t, i), width = width_at(t, i);
    const float *m = a->mask + t->b * a->ms[0] + t->h * a->ms[1] + (t->q0 + i) * a->ms[2] + k0 * a->ms[3];
    if (a->ms[2] == 1 && cols == width) return (ay_attn_mask){.panel = m, .pitch = a->ms[3]};
    if (a->ms[3] == 1) {
        t->l->pack->turn(AY_F32, m, a->ms[2], cols, width, keys, t->mask);
    } else if (a->ms[2] == 1) {
        t->l->pack->rows(m, a->ms[3], cols, width, keys, t->mask);
    } else {
        for (int64_t p = 0; p < keys; p++) {
            for (int64_t c = 0; c < width; c++) t->mask[p * width + c] = c < cols ? m[c * a->ms[2] + p * a->ms[3]] : 0;
        }
    }
    return (ay_attn_mask){.panel = t->mask, .pitch = width};
}

/** One panel of queries (at i of the run) against the packed block of keys. */
static void panel(const place *t, int64_t i, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    const ay_attn_row *row = t->l->row;
    int width = width_at(t, i), cols = cols_at(t, i);
    bool first = k0 == 0, last = k0 + keys == a->lk;
    float *o = t->o + i * a->dv, *out = a->o + t->b * a->os[0] + t->h * a->os[1] + (t->q0 + i) * a->os[2];
    if (first) pack_queries(t, i);
    ay_attn_mask mask = panel_mask(t, i, k0, keys);
    memcpy(t->before, t->top + i, (size_t)width * sizeof *t->before);
    row->scores(keys, width, a->d, t->k, t->q + i * a->d, &mask, t->s, t->top + i);
    row->soften(!a->mask, keys, width, t->s, t->before, t->top + i, t->sum + i, t->shrink);
    row->mix(keys, width, a->dv, t->l->height, t->v, t->s, first ? NULL : t->shrink, o);
    if (last) row->unturn(a->dv, width, cols, o, t->sum + i, out, a->os[2]);
}

static void attn_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_attn *a = j->a;
    const layout *l = &j->l;
    int64_t run = tile % l->runs, head = tile / l->runs;
    place t = {.a = a, .l = l, .b = head / a->heads, .h = head % a->heads, .q0 = run * l->run};
    t.queries = ay_min_i64(l->run, a->lq - t.q0);
    t.q = j->scratch + (size_t)thread * l->total;
    t.o = t.q + l->q, t.k = t.o + l->o, t.v = t.k + l->k, t.s = t.v + l->v, t.mask = t.s + l->s;
    t.top = t.mask + l->mask, t.sum = t.top + l->sums, t.before = t.sum + l->sums, t.shrink = t.before + l->panel;
    for (int64_t k0 = 0; k0 < a->lk; k0 += l->keys) {
        int64_t keys = ay_min_i64(l->keys, a->lk - k0);
        pack_keys(&t, k0, keys);
        if (a->mask && a->ms[2] == 0) pack_key_mask(&t, k0, keys);
        for (int64_t i = 0; i < t.queries; i += l->row->width) panel(&t, i, k0, keys);
    }
}

void ay_attn_run(const ay_exec *ex, const ay_attn *a) {
    if (a->lq <= 0 || a->lk <= 0) return;
    job j = {a, lay_out(ex->isa, ay_pool_threads(ex->pool), a), ex->scratch};
    ay_parallel(ex->pool, a->batch * a->heads * j.l.runs, attn_tile, &j, ex->stop);
}
