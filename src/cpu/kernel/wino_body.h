/* SPDX-License-Identifier: MIT
 *
 * Winograd's F(4x4, 3x3) over simd.h: Y = A' [(G g G') * (B' d B)] A, the products between pointwise, so that 16 pixels cost
 * 36 multiplications a channel instead of 144. A, B and G are Toom and Cook's for the points 0, +-3/4, +-3/2 and infinity:
 * their rounding error is half that of the usual 0, +-1, +-2 (docs/numerics.md), and of their constants only G's are rounded.
 * With points +-a and +-b, a column x of six becomes
 *   a^2 b^2 x0 - (a^2 + b^2) x2 + x4,  (x4 - b^2 x2) +- a (x3 - b^2 x1),  (x4 - a^2 x2) +- b (x3 - a^2 x1),
 *   a^2 b^2 x1 - (a^2 + b^2) x3 + x5.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/simd.h"

#define PA 0.75f
#define PB 1.5f
#define AA (PA * PA)
#define BB (PB * PB)
enum { IN = AY_WINO_IN, OUT = AY_WINO_OUT };

/** B' of a column, in place. */
AY_INLINE void spread(vf x[IN]) {
    vf aa = v_set(AA), bb = v_set(BB), both = v_set(AA * BB), sum = v_set(AA + BB), a = v_set(PA), b = v_set(PB);
    vf ea = v_fnma(bb, x[2], x[4]), oa = v_fnma(bb, x[1], x[3]), eb = v_fnma(aa, x[2], x[4]), ob = v_fnma(aa, x[1], x[3]);
    x[0] = v_fma(both, x[0], v_fnma(sum, x[2], x[4]));
    x[5] = v_fma(both, x[1], v_fnma(sum, x[3], x[5]));
    x[1] = v_fma(a, oa, ea);
    x[2] = v_fnma(a, oa, ea);
    x[3] = v_fma(b, ob, eb);
    x[4] = v_fnma(b, ob, eb);
}

/** A' of a column: m of six to the first four. */
AY_INLINE void gather(vf m[IN]) {
    vf sa = v_add(m[1], m[2]), da = v_sub(m[1], m[2]), sb = v_add(m[3], m[4]), db = v_sub(m[3], m[4]);
    m[0] = v_add(m[0], v_add(sa, sb));
    m[1] = v_fma(v_set(PA), da, v_mul(v_set(PB), db));
    m[2] = v_fma(v_set(AA), sa, v_mul(v_set(BB), sb));
    m[3] = v_add(v_fma(v_set(AA * PA), da, v_mul(v_set(BB * PB), db)), m[5]);
}

/** G of three taps. */
AY_INLINE void widen(const vf g[3], vf u[IN]) {
    const float na = 1 / (2 * AA * (AA - BB)), nb = 1 / (2 * BB * (BB - AA));
    vf ea = v_mul(v_fma(v_set(AA), g[2], g[0]), v_set(na)), eb = v_mul(v_fma(v_set(BB), g[2], g[0]), v_set(nb));
    vf oa = v_mul(g[1], v_set(PA * na)), ob = v_mul(g[1], v_set(PB * nb));
    u[0] = v_mul(g[0], v_set(1 / (AA * BB)));
    u[1] = v_add(ea, oa);
    u[2] = v_sub(ea, oa);
    u[3] = v_add(eb, ob);
    u[4] = v_sub(eb, ob);
    u[5] = g[2];
}

/* LOADS vectors, SPAN numbers are a piece's row. */
enum { PIECES = VL >= AY_WINO_PIECES ? AY_WINO_PIECES : 1, LOADS = 4 / PIECES, SPAN = LOADS * VL };

static void input(const ay_wino_from *from, float *v, int64_t step) {
    vf d[IN][IN];
    AY_UNROLL for (int r = 0; r < IN; r++) {
        vf t[IN], more[4];
        AY_UNROLL for (int i = 0; i < 4; i++) {
            const ay_wino_from *f = from + i / LOADS;
            t[i] = v_load(f->x + r * f->pitch + i % LOADS * VL);
            more[i] = v_load(f->tail + r * f->pitch + i % LOADS * VL);
        }
        v_fours(t);
        v_fours(more);
        t[4] = more[0];
        t[5] = more[1];
        spread(t);
        AY_UNROLL for (int i = 0; i < IN; i++) d[r][i] = t[i];
    }
    AY_UNROLL for (int i = 0; i < IN; i++) {
        vf t[IN];
        AY_UNROLL for (int r = 0; r < IN; r++) t[r] = d[r][i];
        spread(t);
        AY_UNROLL for (int r = 0; r < IN; r++) v_store(v + (r * IN + i) * step, t[r]);
    }
}

static void edge(const float *x, int64_t pitch, int top, int bottom, int left, int right, float *room) {
    for (int r = 0; r < IN; r++) {
        int lo = r >= top && r < bottom ? left : right;
        AY_UNROLL for (int i = 0; i < LOADS; i++) {
            int at = i * VL;
            v_store(room + r * SPAN + at, v_load_between(x + r * pitch + at, lo - at, right - at));
            at += OUT;
            v_store(room + (IN + r) * SPAN + i * VL, v_load_between(x + r * pitch + at, lo - at, right - at));
        }
    }
}

static void output(const float *m, int64_t step, float bias, const ay_wino_to *to) {
    vf d[OUT][IN];
    AY_UNROLL for (int i = 0; i < IN; i++) {
        vf t[IN];
        AY_UNROLL for (int r = 0; r < IN; r++) t[r] = v_load(m + (r * IN + i) * step);
        gather(t);
        AY_UNROLL for (int r = 0; r < OUT; r++) d[r][i] = t[r];
    }
    AY_UNROLL for (int r = 0; r < OUT; r++) {
        gather(d[r]);
        v_fours(d[r]);
        AY_UNROLL for (int i = 0; i < 4; i++) {
            const ay_wino_to *t = to + i / LOADS;
            int64_t at = r * t->pitch + i % LOADS * VL;
            vf y = v_add(d[r][i], v_set(bias));
            if (t->residual) y = v_add(y, v_load(t->residual + at));
            v_store(t->y + at, y);
        }
    }
}

static void weights(int n, const float *t, float *u, int64_t step) {
    for (int at = 0; at < n; at += VL) {
        vf d[3][IN];
        AY_UNROLL for (int r = 0; r < 3; r++) {
            vf g[3];
            AY_UNROLL for (int i = 0; i < 3; i++) g[i] = v_load(t + (r * 3 + i) * n + at);
            widen(g, d[r]);
        }
        AY_UNROLL for (int i = 0; i < IN; i++) {
            vf g[3] = {d[0][i], d[1][i], d[2][i]}, w[IN];
            widen(g, w);
            AY_UNROLL for (int r = 0; r < IN; r++) v_store(u + (r * IN + i) * step + at, w[r]);
        }
    }
}
