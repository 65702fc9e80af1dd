/* SPDX-License-Identifier: MIT
 *
 * Attention over simd.h, on panels whose columns are queries: maxima and sums run down the columns, so no number ever crosses
 * lanes, and the panel is at once what the second product takes as its operand. The including file defines MR, how many rows a
 * tile of sums has, and NV, how many vectors a row; panels of one vector are for the last few queries.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/vmath.h"

#include <math.h>

/** acc [rows][nv] = a b, a [k][rows], b [k][nv * VL]. */
AY_INLINE void product(const int rows, const int nv, int64_t k, const float *a, const float *b, vf acc[MR][NV]) {
    AY_UNROLL for (int i = 0; i < rows; i++) {
        AY_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = v_set(0);
    }
    for (int64_t p = 0; p < k; p++, a += rows, b += nv * VL) {
        vf bv[NV];
        AY_UNROLL for (int v = 0; v < nv; v++) bv[v] = v_load(b + v * VL);
        AY_UNROLL for (int i = 0; i < rows; i++) {
            vf av = v_set(a[i]);
            AY_UNROLL for (int v = 0; v < nv; v++) acc[i][v] = v_fma(av, bv[v], acc[i][v]);
        }
    }
}

AY_INLINE void score(const int rows, const int nv, int64_t tiles, int64_t d, const float *k, const float *q,
                     const ay_attn_mask *mask, float *s, float *top) {
    const float *panel = mask->panel, *key = mask->key;
    for (; tiles > 0; tiles--, k += rows * d) {
        vf acc[MR][NV], most[NV];
        for (int64_t i = 0; panel && tiles > 1 && i < rows; i++) { /* the next tile's: rows too far apart to be foreseen */
            __builtin_prefetch(panel + (rows + i) * mask->pitch);
            __builtin_prefetch(panel + (rows + i) * mask->pitch + nv * VL - 1);
        }
        product(rows, nv, d, k, q, acc);
        AY_UNROLL for (int v = 0; v < nv; v++) most[v] = v_load(top + v * VL);
        AY_UNROLL for (int i = 0; i < rows; i++, s += nv * VL) {
            AY_UNROLL for (int v = 0; v < nv; v++) {
                if (panel) acc[i][v] = v_add(acc[i][v], v_load(panel + v * VL));
                if (key) acc[i][v] = v_add(acc[i][v], v_set(*key));
                v_store(s + v * VL, acc[i][v]);
                most[v] = v_max(most[v], acc[i][v]);
            }
            if (panel) panel += mask->pitch;
            if (key) key++;
        }
        AY_UNROLL for (int v = 0; v < nv; v++) v_store(top + v * VL, most[v]);
    }
}

AY_INLINE void blend(const int rows, const int nv, int64_t tiles, int64_t keys, const float *v, const float *s,
                     const float *shrink, float *o) {
    for (; tiles > 0; tiles--, v += rows * keys) {
        vf acc[MR][NV];
        product(rows, nv, keys, v, s, acc);
        AY_UNROLL for (int i = 0; i < rows; i++, o += nv * VL) {
            AY_UNROLL for (int c = 0; c < nv; c++) {
                if (shrink) acc[i][c] = v_fma(v_load(o + c * VL), v_load(shrink + c * VL), acc[i][c]);
                v_store(o + c * VL, acc[i][c]);
            }
        }
    }
}

/* Tiles of every height, so that the last keys and the last values cost what they are, for whole panels and for thin ones. */
typedef void (*score_fn)(int64_t tiles, int64_t d, const float *k, const float *q, const ay_attn_mask *mask, float *s,
                         float *top);
typedef void (*blend_fn)(int64_t tiles, int64_t keys, const float *v, const float *s, const float *shrink, float *o);
#define SCORE(name, r, nv)                                                                                                  \
    static void name(int64_t n, int64_t d, const float *k, const float *q, const ay_attn_mask *m, float *s, float *top) {   \
        score(r, nv, n, d, k, q, m, s, top);                                                                                \
    }
#define BLEND(name, r, nv)                                                                                                  \
    static void name(int64_t n, int64_t keys, const float *v, const float *s, const float *shrink, float *o) {              \
        blend(r, nv, n, keys, v, s, shrink, o);                                                                             \
    }
#define TILES(r)                                                                                                            \
    SCORE(score_##r, r, NV)                                                                                                 \
    SCORE(thin_score_##r, r, 1)                                                                                             \
    BLEND(blend_##r, r, NV)                                                                                                 \
    BLEND(thin_blend_##r, r, 1)
HEIGHTS(TILES)

#define NAME_SCORE(r) score_##r,
#define NAME_THIN_SCORE(r) thin_score_##r,
#define NAME_BLEND(r) blend_##r,
#define NAME_THIN_BLEND(r) thin_blend_##r,
static const score_fn score_tiles[2][MR] = {{HEIGHTS(NAME_SCORE)}, {HEIGHTS(NAME_THIN_SCORE)}};
static const blend_fn blend_tiles[2][MR] = {{HEIGHTS(NAME_BLEND)}, {HEIGHTS(NAME_THIN_BLEND)}};

static void scale(int64_t n, float *x, float by) {
    for (int64_t i = 0; i < n; i += VL) v_store(x + i, v_mul(v_load(x + i), v_set(by)));
}

static void scores(int64_t keys, int width, int64_t d, const float *k, const float *q, const ay_attn_mask *mask, float *s,
                   float *top) {
    const score_fn *tiles = score_tiles[width == VL];
    int64_t whole = keys / MR, left = keys % MR, done = whole * MR;
    tiles[MR - 1](whole, d, k, q, mask, s, top);
    if (left == 0) return;
    ay_attn_mask rest = *mask;
    if (rest.panel) rest.panel += done * rest.pitch;
    if (rest.key) rest.key += done;
    tiles[left - 1](1, d, k + done * d, q, &rest, s + done * width, top);
}

static void mix(int64_t keys, int width, int64_t dv, int height, const float *v, const float *s, const float *shrink,
                float *o) {
    const blend_fn *tiles = blend_tiles[width == VL];
    int64_t left = dv % height, done = dv - left;
    tiles[height - 1](dv / height, keys, v, s, shrink, o);
    if (left > 0) tiles[left - 1](1, keys, v + done * keys, s, shrink, o + done * width);
}

AY_INLINE vf weight(const bool binary, vf score, vf top) {
    vf y = v_sub(score, top);
    return v_exp2_down(binary ? y : v_mul(y, v_set(1.44269504f)));
}

AY_INLINE void soften_as(const bool binary, int64_t keys, int width, float *s, const float *before, const float *top,
                         float *sum, float *shrink) {
    for (int c = 0; c < width; c += VL) {
        vf now = v_load(top + c);
        vf base = v_sel(v_lt(v_set(-INFINITY), now), now, v_set(0)); /* all masked so far: e^(-inf - 0), not -inf + inf */
        vf less = weight(binary, v_load(before + c), base), total = v_mul(v_load(sum + c), less), odd = v_set(0);
        float *at = s + c;
        int64_t p = 0;
        for (; p + 2 <= keys; p += 2, at += 2 * width) {
            vf e = weight(binary, v_load(at), base), f = weight(binary, v_load(at + width), base);
            v_store(at, e);
            v_store(at + width, f);
            total = v_add(total, e);
            odd = v_add(odd, f);
        }
        if (p < keys) {
            vf e = weight(binary, v_load(at), base);
            v_store(at, e);
            total = v_add(total, e);
        }
        v_store(sum + c, v_add(total, odd));
        v_store(shrink + c, less);
    }
}

static void soften(bool binary, int64_t keys, int width, float *s, const float *before, const float *top, float *sum,
                   float *shrink) {
    if (binary) soften_as(true, keys, width, s, before, top, sum, shrink);
    else soften_as(false, keys, width, s, before, top, sum, shrink);
}

static void unturn(int64_t rows, int width, int cols, const float *o, const float *sum, float *out, int64_t ld) {
    for (int c = 0; c < cols; c += VL) {
        vf total = v_load(sum + c), some = v_set(0);
        some = v_sel(v_or(v_lt(v_set(0), total), v_isnan(total)), v_div(v_set(1.0f), total), some);
        int n = cols - c < VL ? cols - c : VL;
        for (int64_t r = 0; r < rows; r += VL) {
            int left = rows - r < VL ? (int)(rows - r) : VL;
            vf t[VL], copy[VL];
            AY_UNROLL for (int i = 0; i < VL; i++) t[i] = i < left ? v_mul(v_load(o + (r + i) * width + c), some) : v_set(0);
            v_transpose(t);
            AY_UNROLL for (int i = 0; i < VL; i++) copy[i] = t[i];
            for (int i = 0; i < n; i++) {
                float *to = out + (c + i) * ld + r;
                if (left == VL) v_store(to, copy[i]);
                else v_storen(to, copy[i], left);
            }
        }
    }
}

#define ROW(name, isa) {name, isa, MR, NV * VL, VL, scale, scores, soften, mix, unturn}
