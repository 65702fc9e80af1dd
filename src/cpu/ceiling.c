/* SPDX-License-Identifier: MIT
 *
 * The ceilings: loops in registers, and copies and sums over more memory than caches hold. Each is measured several times
 * and the best counts: whatever else runs on the machine only ever makes it look slower.
 */
#include "cpu/ceiling.h"

#include "base/pool.h"
#include "cpu/kernel/peak.h"

#include <stdlib.h>
#include <string.h>

enum { SPAN = 32 << 20, PIECE = 1 << 20, ROUNDS = 20000, PARTS = 5 /* things measured */ };

typedef struct job {
    ay_peak_fn peak;
    unsigned char *from, *to;
    _Atomic uint64_t sink; /* so that sums are not optimised away */
} job;

static void peak_tile(void *arg, int64_t tile, int thread) {
    job *j = arg;
    j->peak(ROUNDS);
}

static void copy_tile(void *arg, int64_t tile, int thread) {
    job *j = arg;
    memcpy(j->to + tile * PIECE, j->from + tile * PIECE, PIECE);
}

static void read_tile(void *arg, int64_t tile, int thread) {
    typedef uint64_t words __attribute__((vector_size(64)));
    job *j = arg;
    const words *p = (const words *)(const void *)(j->from + tile * PIECE);
    words s = {0}, t = {0};
    for (size_t i = 0; i < PIECE / sizeof(words); i += 2) {
        s += p[i];
        t += p[i + 1];
    }
    s += t;
    atomic_fetch_add_explicit(&j->sink, s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7], memory_order_relaxed);
}

/* Most work a second in `seconds`, `amount` a run. */
static double best_rate(ay_ctx *cx, double seconds, int64_t tiles, ay_tile_fn fn, job *j, double amount) {
    double start = ay_now(), before = start, best = 0;
    int runs = 0;
    do {
        ay_parallel(cx->pool, tiles, fn, j, &cx->stop);
        double after = ay_now();
        if (after > before && amount / (after - before) > best) best = amount / (after - before);
        before = after;
    } while ((before - start < seconds || ++runs < 3) && !ay_stopped(cx));
    return best;
}

alloy_status ay_ceilings_measure(ay_ctx *cx, double seconds, ay_ceilings *out) {
    const ay_peak_row *row = ay_peak_pick((ay_isa)cx->isa);
    job j = {.from = aligned_alloc(64, 2 * (size_t)SPAN)};
    *out = (ay_ceilings){.threads = ay_pool_threads(cx->pool)};
    if (!j.from) return ay_nomem(cx);
    memset(j.from, 1, 2 * (size_t)SPAN);
    j.to = j.from + SPAN;
    double part = seconds / PARTS;
    int64_t tiles = 4 * (int64_t)out->threads;
    ay_peak_fn peaks[] = {row->f32, row->i8, row->i4};
    double *to[] = {&out->f32, &out->i8, &out->i4};
    for (int i = 0; i < 3; i++) {
        j.peak = peaks[i];
        *to[i] = j.peak ? 1e-9 * best_rate(cx, part, tiles, peak_tile, &j, j.peak(1) * ROUNDS * (double)tiles) : *to[i - 1];
    }
    out->copy = 1e-9 * best_rate(cx, part, SPAN / PIECE, copy_tile, &j, 2.0 * SPAN);
    out->read = 1e-9 * best_rate(cx, part, SPAN / PIECE, read_tile, &j, SPAN);
    free(j.from);
    return ay_check_stop(cx);
}
