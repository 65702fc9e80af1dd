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

enum {
    KEYS = 256,          /* of a block, at most */
    KEY_FLOATS = 65536,  /* of a block of keys and values: a quarter of a megabyte of the second cache */
    QUERY_FLOATS = 98304 /* of a run of queries and their results */
};

typedef struct layout {
    const ay_gemm_f32_row *g;
    const ay_pack_row *pack;
    const ay_attn_row *row;
    int64_t keys, run;                        /* keys in a block, queries in a tile (whole panels) */
    int64_t runs;                             /* tiles of one head */
    int height;                               /* of a panel of values */
    size_t q, o, k, v, s, mask, stats, total; /* floats */
} layout;

typedef struct job {
    const ay_attn *a;
    layout l;
    float *scratch;
} job;

static layout lay_out(ay_isa isa, int threads, const ay_attn *a) {
    layout l = {.g = ay_gemm_f32_pick(isa), .pack = ay_pack_pick(isa), .row = ay_attn_pick(isa)};
    int64_t nr = l.g->nr, mr = l.g->mr, both = ay_max_i64(1, a->d + a->dv);
    l.keys = ay_max_i64(1, ay_min_i64(KEYS + mr - 1, KEY_FLOATS / both) / mr) * mr; /* 256 at once, not 252 and 4 */
    l.run = ay_max_i64(1, QUERY_FLOATS / both / nr) * nr;
    l.run = ay_min_i64(l.run, 12 * nr);
    while (l.run > 2 * nr && a->batch * a->heads * ay_div_up(a->lq, l.run) < 4 * (int64_t)threads)
        l.run = ay_round_up(l.run / 2, nr);
    l.runs = ay_div_up(a->lq, l.run);
    l.run = ay_round_up(ay_div_up(a->lq, ay_max_i64(1, l.runs)), nr);
    l.height = (int)ay_max_i64(1, ay_div_up(a->dv, ay_max_i64(1, ay_div_up(a->dv, mr))));
    l.q = (size_t)ay_round_up(l.run * a->d, 16);
    l.o = (size_t)ay_round_up(l.run * a->dv, 16);
    l.k = (size_t)ay_round_up(l.keys * a->d, 16);
    l.v = (size_t)ay_round_up(l.keys * a->dv, 16);
    l.s = (size_t)(l.keys * nr);
    l.mask = a->mask ? l.s : 0;
    l.stats = (size_t)ay_round_up(2 * l.run + nr, 16);
    l.total = l.q + l.o + l.k + l.v + l.s + l.mask + l.stats;
    l.total = (size_t)ay_round_up((int64_t)l.total, 16);
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
    float *q, *o, *k, *v, *s, *mask, *top, *sum, *shrink;
} place;

static void pack_queries(const place *t) {
    const ay_attn *a = t->a;
    int64_t nr = t->l->g->nr;
    const float *q = a->q + t->b * a->qs[0] + t->h * a->qs[1] + t->q0 * a->qs[2];
    for (int64_t i = 0; i < t->queries; i += nr) {
        t->l->pack->turn(AY_F32, q + i * a->qs[2], a->qs[2], (int)ay_min_i64(nr, t->queries - i), (int)nr, a->d,
                         t->q + i * a->d);
    }
    for (int64_t i = 0; i < t->l->run; i++) {
        t->top[i] = -INFINITY;
        t->sum[i] = 0;
    }
}

static void pack_keys(const place *t, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    int64_t mr = t->l->g->mr, height = t->l->height;
    const float *k = a->k + t->b * a->ks[0] + t->h * a->ks[1] + k0 * a->ks[2];
    const float *v = a->v + t->b * a->vs[0] + t->h * a->vs[1] + k0 * a->vs[2];
    for (int64_t i = 0; i < keys; i += mr) {
        int rows = (int)ay_min_i64(mr, keys - i);
        t->l->pack->turn(AY_F32, k + i * a->ks[2], a->ks[2], rows, rows, a->d, t->k + i * a->d);
    }
    for (int64_t i = 0; i < a->dv; i += height) {
        int cols = (int)ay_min_i64(height, a->dv - i);
        t->l->pack->rows(v + i, a->vs[2], cols, cols, keys, t->v + i * keys);
    }
}

/** The mask of a panel of queries and a block of keys, turned like the scores: where it lies, if it lies so, or in t->mask. */
static const float *panel_mask(const place *t, int64_t q, int cols, int64_t k0, int64_t keys, int64_t *pitch) {
    const ay_attn *a = t->a;
    int64_t nr = t->l->g->nr;
    const float *m = a->mask + t->b * a->ms[0] + t->h * a->ms[1] + q * a->ms[2] + k0 * a->ms[3];
    *pitch = a->ms[3];
    if (a->ms[2] == 1 && cols == nr) return m;
    *pitch = nr;
    if (a->ms[3] == 1) {
        t->l->pack->turn(AY_F32, m, a->ms[2], cols, (int)nr, keys, t->mask);
    } else if (a->ms[2] == 1) {
        t->l->pack->rows(m, a->ms[3], cols, (int)nr, keys, t->mask);
    } else {
        for (int64_t p = 0; p < keys; p++) {
            for (int64_t c = 0; c < nr; c++) t->mask[p * nr + c] = c < cols ? m[c * a->ms[2] + p * a->ms[3]] : 0;
        }
    }
    return t->mask;
}

/** One number a key, for every query: into t->mask. */
static void pack_key_mask(const place *t, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    const float *m = a->mask + t->b * a->ms[0] + t->h * a->ms[1] + k0 * a->ms[3];
    for (int64_t p = 0; p < keys; p++) t->mask[p] = m[p * a->ms[3]];
}

/** One panel of queries (at i of the run) against the packed block of keys. */
static void panel(const place *t, int64_t i, int64_t k0, int64_t keys) {
    const ay_attn *a = t->a;
    const ay_gemm_f32_row *g = t->l->g;
    int64_t nr = g->nr, height = t->l->height;
    float *o = t->o + i * a->dv, *q = t->q + i * a->d;
    for (int64_t r = 0; r < keys; r += g->mr) {
        g->height[ay_min_i64(g->mr, keys - r) - 1](a->d, t->k + r * a->d, q, t->s + r * nr, nr, false);
    }
    bool by_key = a->mask && a->ms[2] == 0;
    int64_t pitch = 0;
    const float *mask = NULL;
    if (a->mask && !by_key) mask = panel_mask(t, t->q0 + i, (int)ay_min_i64(nr, t->queries - i), k0, keys, &pitch);
    t->l->row->soften(keys, (int)nr, t->s, a->scale, mask, pitch, by_key ? t->mask : NULL, t->top + i, t->sum + i, t->shrink);
    bool same = true;
    for (int64_t c = 0; c < nr; c++) same = same && t->shrink[c] == 1.0f;
    if (k0 > 0 && !same) t->l->row->rescale(a->dv, (int)nr, o, t->shrink);
    for (int64_t r = 0; r < a->dv; r += height) {
        g->height[ay_min_i64(height, a->dv - r) - 1](keys, t->v + r * keys, t->s, o + r * nr, nr, k0 > 0);
    }
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
    t.top = t.mask + l->mask, t.sum = t.top + l->run, t.shrink = t.sum + l->run;
    pack_queries(&t);
    for (int64_t k0 = 0; k0 < a->lk; k0 += l->keys) {
        int64_t keys = ay_min_i64(l->keys, a->lk - k0);
        pack_keys(&t, k0, keys);
        if (a->mask && a->ms[2] == 0) pack_key_mask(&t, k0, keys);
        for (int64_t i = 0; i < t.queries; i += l->g->nr) panel(&t, i, k0, keys);
    }
    for (int64_t i = 0; i < t.queries; i += l->g->nr) {
        float *out = a->o + t.b * a->os[0] + t.h * a->os[1] + (t.q0 + i) * a->os[2];
        l->row->unturn(a->dv, l->g->nr, (int)ay_min_i64(l->g->nr, t.queries - i), t.o + i * a->dv, t.sum + i, out, a->os[2]);
    }
}

void ay_attn_run(const ay_exec *ex, const ay_attn *a) {
    if (a->lq <= 0 || a->lk <= 0) return;
    job j = {a, lay_out(ex->isa, ay_pool_threads(ex->pool), a), ex->scratch};
    ay_parallel(ex->pool, a->batch * a->heads * j.l.runs, attn_tile, &j, ex->stop);
}
