/* SPDX-License-Identifier: MIT
 *
 * The row tables beyond kernel.h's: each family of vector kernels is one row per instruction-set level, filled in by the
 * family_isa.c files and listed in kernels.c. Drivers, kcheck and the benchmark read them through the *_rows and *_pick
 * calls. Picking takes the last row of the highest level that the cap allows.
 */
#ifndef AY_KERNEL_ROWS_H
#define AY_KERNEL_ROWS_H

#include "cpu/kernel/kernel.h"

/* ---- elementwise: contiguous numbers; operations with one input ignore y; out may be x or y ----------------------- */
typedef void (*ay_elt_fn)(int64_t n, const float *x, const float *y, float *out);
typedef struct ay_elt_row {
    const char *name;
    ay_isa isa;
    ay_elt_fn fn[AY_ELT_COUNT];
    void (*gated)(ay_act act, int64_t n, const float *x, const float *y, float *out);
    int64_t (*round_f16)(int64_t n, float *x); /* returns how many finite numbers became infinite */
} ay_elt_row;
const ay_elt_row *const *ay_elt_rows(int *n);
const ay_elt_row *ay_elt_pick(ay_isa isa);

/* ---- packing: what stands between memory and the micro-kernels ---------------------------------------------------- */

/** What happens to a finished row of sums: c = residual + gate * act(alpha * scale * c + bias). */
typedef struct ay_finish {
    float alpha;
    const float *scale, *bias, *gate; /* along the row, or NULL */
    const float *residual;    /* the same row of it, or NULL */
    float bias_all;           /* added to every number of the row */
    ay_act act;
} ay_finish;

typedef struct ay_pack_row {
    const char *name;
    ay_isa isa;
    /** Panel dst [k][width] from `rows` <= width rows of k numbers (float32, float16 or bfloat16, ld elements apart); the
     *  columns past `rows` become 0. */
    void (*turn)(ay_dtype t, const void *src, int64_t ld, int rows, int width, int64_t k, float *dst);
    /** Panel dst [k][width] from k rows of `cols` <= width numbers, ld apart. */
    void (*rows)(const float *src, int64_t ld, int cols, int width, int64_t k, float *dst);
    /** out = (code - offset) * scale of n codes: int8, uint8, int4, uint4 from code number `begin` on. */
    void (*codes)(ay_dtype t, int64_t n, const void *src, int64_t begin, float scale, float offset, float *out);
    /** Entries of a table of 2^bits numbers, bits 4, 6 or 8, by n codes from code number `begin` on. */
    void (*lookup)(int bits, const float *table, int64_t n, const uint8_t *src, int64_t begin, float *out);
    void (*finish)(const ay_finish *f, int64_t n, float *c);
    /** The same of the first n numbers of `rows` rows of c [rows][width], width a multiple of the lanes, to rows of out. */
    void (*finish_panel)(const ay_finish *f, int64_t rows, int64_t n, const float *c, int64_t width, float *out, int64_t ldo, int64_t ldr);
    /** The same of `rows` columns of out: out [n][rows], rows ldo apart as those of the residual. */
    void (*finish_turned)(const ay_finish *f, int64_t rows, int64_t n, const float *c, int64_t width, float *out, int64_t ldo);
    /** y [m][n] = x [n][m], rows xs and ys apart; y is written forward, a few rows of it side by side. */
    void (*transpose)(int64_t m, int64_t n, const float *x, int64_t xs, float *y, int64_t ys);
} ay_pack_row;
const ay_pack_row *const *ay_pack_rows(int *n);
const ay_pack_row *ay_pack_pick(ay_isa isa);

/* ---- dot products: few rows of a against rows of a weight as it lies in the file ---------------------------------- */
enum { AY_DOT_M = 4, AY_DOT_N = 4 };
/** out[i * AY_DOT_N + j] = a row i . w row j, for m, n in 1..4; w is float32, float16 or bfloat16. */
typedef struct ay_dot_row {
    const char *name;
    ay_isa isa;
    void (*dot)(ay_dtype t, int m, int n, int64_t k, const float *a, int64_t lda, const void *w, int64_t ldw, float *out);
    /** out[i * AY_DOT_N] = a row i . one row of int8 or int4 codes with a scale for each `run` of them; k is a multiple of 64,
     *  run of 32. */
    void (*codes)(ay_dtype t, int m, int64_t k, const float *a, int64_t lda, const void *w, int64_t run, const float *scale,
                  float *out);
} ay_dot_row;
const ay_dot_row *const *ay_dot_rows(int *n);
const ay_dot_row *ay_dot_pick(ay_isa isa);

/* ---- attention: score panels s [keys][width], one column a query ---------------------------------------------------- */

/** What is added to scores: a panel whose rows lie `pitch` apart, or one number a key, or neither. */
typedef struct ay_attn_mask {
    const float *panel;
    int64_t pitch;
    const float *key;
} ay_attn_mask;

typedef struct ay_attn_row {
    const char *name;
    ay_isa isa;
    int keys, width, narrow; /* the largest tile of sums; panels are `width` queries wide, the last perhaps only `narrow` */
    void (*scale)(int64_t n, float *x, float by); /* x times by; n is a multiple of narrow */
    /** s = k q + mask: k in panels [d][this.keys], the last as high as keys are left; q [d][width]. top [width] is raised to
     *  the largest seen. */
    void (*scores)(int64_t keys, int width, int64_t d, const float *k, const float *q, const ay_attn_mask *mask, float *s,
                   float *top);
    /** Scores become e^(score - top), or 2^(score - top) where they come in binary. sum [width], which had `before` for its
     *  top, counts on; shrink [width] is what earlier results must be multiplied by. */
    void (*soften)(bool binary, int64_t keys, int width, float *s, const float *before, const float *top, float *sum,
                   float *shrink);
    /** o [dv][width] = o * shrink (NULL: 0) + v s: v in panels [keys][height], the last as high as rows are left. */
    void (*mix)(int64_t keys, int width, int64_t dv, int height, const float *v, const float *s, const float *shrink,
                float *o);
    /** out [cols][rows] (ld apart) = o [rows][width] turned, column c over sum[c]; where nothing was summed: 0. */
    void (*unturn)(int64_t rows, int width, int cols, const float *o, const float *sum, float *out, int64_t ld);
} ay_attn_row;
const ay_attn_row *const *ay_attn_rows(int *n);
const ay_attn_row *ay_attn_pick(ay_isa isa);

/* ---- convolution: from pictures to panels ------------------------------------------------------------------------- */

/** For each of n channels, `len` numbers go to dst (channels dst_step apart): 0 for positions before lo and from hi on, else
 *  src[position * step] (channels src_step apart; only positions lo .. hi - 1 may be read). */
typedef struct ay_strip {
    int64_t n;
    const float *src;
    int64_t src_step, step;
    float *dst;
    int64_t dst_step;
    int len, lo, hi;
} ay_strip;
typedef struct ay_conv_row {
    const char *name;
    ay_isa isa;
    void (*strip)(const ay_strip *s);
} ay_conv_row;
const ay_conv_row *const *ay_conv_rows(int *n);
const ay_conv_row *ay_conv_pick(ay_isa isa);

/* ---- convolution by tiles of 4 x 4 pixels (wino.c): the three transformations ------------------------------------- */
enum { AY_WINO_IN = 6, AY_WINO_OUT = 4, AY_WINO_POINTS = AY_WINO_IN * AY_WINO_IN, AY_WINO_PIECES = 4 };
/** A vector of tiles comes in AY_WINO_PIECES pieces of the same number of tiles, or in one if it has fewer tiles than that. A
 *  piece's tiles stand side by side: row r of their pixels is at x[r * pitch] .., and again from the fifth on at tail[r * pitch]. */
typedef struct ay_wino_from {
    const float *x, *tail;
    int64_t pitch;
} ay_wino_from;
/** Where a piece's results go, and what is added to them, or NULL; rows `pitch` apart. */
typedef struct ay_wino_to {
    float *y;
    const float *residual;
    int64_t pitch;
} ay_wino_to;
/** `lanes` tiles at once: in v and m, tile q of piece i stands in lane q * pieces + i. `step`: from point to point. */
typedef struct ay_wino_row {
    const char *name;
    ay_isa isa;
    int lanes;
    /** v[point * step + lane] of a vector of tiles. */
    void (*input)(const ay_wino_from *from, float *v, int64_t step);
    /** Six rows of a piece into room, for an ay_wino_from with x = room, tail = room + 6 * 4 * tiles and pitch = 4 * tiles: of
     *  x[r * pitch + i] those with top <= r < bottom and left <= i < right, else 0. Only those are read. */
    void (*edge)(const float *x, int64_t pitch, int top, int bottom, int left, int right, float *room);
    /** Four rows of four pixels of each tile from m[point * step + lane], plus bias and residual. */
    void (*output)(const float *m, int64_t step, float bias, const ay_wino_to *to);
    /** u[point * step + i], i < n, from taps t [9][n]; as many numbers as a vector has lanes may be read and written from the
     *  last on. */
    void (*weights)(int n, const float *t, float *u, int64_t step);
} ay_wino_row;
const ay_wino_row *const *ay_wino_rows(int *n);
const ay_wino_row *ay_wino_pick(ay_isa isa);

/* ---- rows of numbers: normalisation, softmax, rotary embedding ---------------------------------------------------- */

/** What becomes of a row once its mean and 1 / deviation are known: ((x - mean) * by * w + b) * (scale + one) + shift, each
 *  of the four optional. */
typedef struct ay_affine {
    float mean, by;
    const float *w, *b, *scale, *shift;
    float one;
    const float *next; /* as many numbers that will be read next, or NULL */
} ay_affine;
typedef struct ay_norm_row {
    const char *name;
    ay_isa isa;
    /** Mean of n numbers and the sum of squared distances from it (rms: from 0, and the mean is 0). */
    void (*moments)(bool rms, int64_t n, const float *x, double *mean, double *squares);
    void (*affine)(const ay_affine *a, int64_t n, const float *x, float *y);
    void (*scaled)(ay_act act, int64_t n, const float *x, float w, float b, float *y); /* y = act(x * w + b) */
    void (*softmax)(int64_t n, const float *x, float *y);
    void (*rope_pairs)(int64_t d, const float *x, const float *cos, const float *sin, float *out);
    void (*rope_halves)(int64_t d, const float *x, const float *cos, const float *sin, float *out);
} ay_norm_row;
const ay_norm_row *const *ay_norm_rows(int *n);
const ay_norm_row *ay_norm_pick(ay_isa isa);

#endif
