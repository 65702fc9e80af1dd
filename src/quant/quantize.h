/* SPDX-License-Identifier: MIT
 *
 * Quantisers: rows of float numbers in, the parts of an ay_weight out, streamed. A row is everything behind dimension 0:
 * what one output channel or one token reads. Scales and palettes are chosen to minimise the squared error of what is stored
 * (rounded scales and all), not from the largest value alone. The bytes do not depend on threads or instruction sets.
 *
 *   quantize.c          geometry, tiles over all cores, blocks and rows
 *   quantize_palette.c  palettes, exact in one dimension
 *   quantize_search.h   the search for one scale, over vectors of any width
 *   quantize_{c,avx2,avx512,neon}.c  that search at each level
 */
#ifndef AY_QUANTIZE_H
#define AY_QUANTIZE_H

#include "quant/weight.h"

typedef enum ay_quant_kind {
    AY_QUANT_NONE,     /* plain numbers */
    AY_QUANT_INT8,     /* int8 in [-127, 127], one scale for each row */
    AY_QUANT_INT4,     /* int4 in [-8, 7], one scale of either sign for each block of a row */
    AY_QUANT_PALETTE4, /* indices into one table of 16 for the whole tensor, and one factor for each row outside of it */
    AY_QUANT_PALETTE6, /* 64 */
    AY_QUANT_PALETTE8  /* 256 */
} ay_quant_kind;

static inline bool ay_quant_is_palette(ay_quant_kind k) { return k >= AY_QUANT_PALETTE4; }

/** How `kind` stores a weight of this type, without pointers; *kind changes to INT8 where no block of INT4 divides the
 *  shape. Blocks are 32 input channels for float16 values and 64 for float32 values, whose scales are twice as large, so
 *  that a scale costs half a bit; over convolution kernels a block has all their elements. False: the shape has no rows. */
bool ay_quant_storage(ay_quant_kind *kind, const ay_type *type, ay_weight *w);

/** Where the numbers come from. */
typedef struct ay_quant_rows {
    /** Elements [begin, begin + count) in row-major order; called from any thread. */
    void (*read)(void *user, int64_t begin, int64_t count, float *out);
    /** Elements before `end` are done with in this pass; `last`: in every pass. From the calling thread; may be NULL. */
    void (*passed)(void *user, int64_t begin, int64_t end, bool last);
    void *user;
} ay_quant_rows;

/** Takes the DATA part, in order, in pieces; called from one thread at a time, not always the same. */
typedef alloy_status (*ay_quant_put)(void *user, const void *bytes, size_t n);

/** The other parts as they are stored, malloc'd, and how well they do. */
typedef struct ay_quantized {
    void *scale;          /* BLOCK: scale_dim numbers of scale_dtype */
    void *lut;            /* LUT: the table in lut_dtype */
    void *factor;         /* LUT: one number of value_dtype for each row; all 1 unless asked for */
    double error2, norm2; /* sums over all elements of (stored - given)^2 and given^2 */
} ay_quantized;
void ay_quantized_free(ay_quantized *q);

/** Quantises `w` as ay_quant_storage described it. With `factors`, every row of a palette has a factor of its own. Numbers
 *  that are not finite, or that half cannot hold where the values are half, are an error that says which. */
alloy_status ay_quantize(ay_ctx *cx, const char *name, const ay_weight *w, bool factors, const ay_quant_rows *rows,
                         ay_quant_put put, void *user, ay_quantized *out);

/* ---- between the files of the quantisers --------------------------------------------------------------------------- */

/** The best scale for each of `n` runs of `len` numbers: codes as bytes to `q` (packed in pairs for 4 bits), scales as they
 *  are stored to `scale`, sums of squares added to *error2 and *norm2. `scratch`: 16 * len floats. `half`: scales and values
 *  are float16. A run of zeros has scale 1. */
typedef void (*ay_quant_runs_fn)(const float *x, int64_t n, int64_t len, bool half, uint8_t *q, float *scale, double *error2,
                                 double *norm2, float *scratch);
typedef struct ay_quant_level {
    ay_quant_runs_fn int4; /* len a multiple of 2 */
    ay_quant_runs_fn int8;
} ay_quant_level;
extern const ay_quant_level ay_quant_level_c, ay_quant_level_avx2, ay_quant_level_avx512, ay_quant_level_neon;

/** One pass over all rows by tiles: `tile` sees rows [first, first + n) as floats and writes `bytes_per_row` * n bytes to
 *  `out`, which go to `put` in order (put NULL: nothing is written). */
typedef struct ay_quant_pass {
    ay_ctx *cx;
    const char *name;
    const ay_weight *w;
    const ay_quant_rows *rows;
    int64_t n_rows, row_len;
    int bits;      /* of one code; 0: nothing is written */
    int64_t every; /* only every so many-th tile is read; 1: all */
    bool last;
    ay_quant_put put;
    void *put_user;
    size_t extra; /* floats of scratch a thread has beyond the rows */
    void (*tile)(void *arg, int64_t first, int64_t n, const float *x, uint8_t *out, float *scratch, int thread);
    void *arg;
} ay_quant_pass;
alloy_status ay_quant_run(const ay_quant_pass *p);
alloy_status ay_quant_palette(ay_ctx *cx, const char *name, const ay_weight *w, bool factors, const ay_quant_rows *rows,
                              ay_quant_put put, void *user, ay_quantized *out);
/** Nearest to the stored number: half or float. */
float ay_quant_round(float x, bool half);
void ay_quant_store(const float *x, int64_t n, bool half, void *out);

#endif
