/* SPDX-License-Identifier: MIT
 *
 * Products in eight-bit integers: activations as int8 codes with a scale for each row and block of 32 along k, weights as
 * int8 codes unpacked from whatever the file stores, sums in int32 inside a block and in float32 across blocks. The
 * micro-kernels are gemm_i8_*.c, what packs for them a8_*.c; the drivers are gemm_i8.c and conv_i8.c.
 */
#ifndef AY_KERNEL_I8_H
#define AY_KERNEL_I8_H

#include "cpu/kernel/mm.h"

enum {
    AY_I8_BLOCK = 32,     /* numbers along k that share a scale of the activations */
    AY_I8_RECORD = 40,    /* bytes of a block: 32 codes, scale, correction */
    AY_I8_MAX_MR = 12,
    AY_I8_MAX_NR = 32,
    AY_I8_OFFSET = 128    /* what kernels of unsigned weights add to the codes; the correction takes it off again */
};

/* ---- micro-kernels ------------------------------------------------------------------------------------------------ */

/** c [rows][nr] (+)= a * b over `blocks` blocks of 32.
 *  a: [block][row] records: 32 int8 codes, their float scale, an int32 correction = -128 * sum of the codes.
 *  b: for each block codes [32 / group][nr][group], their lowest `bits` bits xor `flip`; scale: [block][nr], or NULL for 1. */
typedef void (*ay_gemm_i8_fn)(int64_t blocks, const void *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,
                              bool accumulate);
/** Records that are not side by side: block k of row i is at from + offset[k % taps * pitch + i] + k / taps * stride. */
typedef struct ay_i8_places {
    const char *from;
    const int32_t *offset;
    int64_t taps, pitch, stride;
} ay_i8_places;
typedef void (*ay_gemm_i8_at_fn)(int64_t blocks, const ay_i8_places *a, const uint8_t *b, const float *scale, float *c, int64_t ldc,
                                 bool accumulate);
typedef struct ay_gemm_i8_row {
    const char *name;
    ay_isa isa;
    int mr, nr, group;
    int bits;     /* of the widest codes it takes, 8 or 4; rows of one level have the same mr */
    uint8_t flip; /* half their range: the kernel multiplies unsigned weights (code + flip) and wants the correction */
    ay_gemm_i8_fn height[AY_I8_MAX_MR]; /* height[r - 1]: r rows */
    ay_gemm_i8_at_fn at[AY_I8_MAX_MR];  /* the same of records where they lie; all or none */
} ay_gemm_i8_row;
const ay_gemm_i8_row *const *ay_gemm_i8_rows(int *n);
const ay_gemm_i8_row *ay_gemm_i8_pick(ay_isa isa); /* for codes of any width */
/** The row for this weight: of the same level, perhaps for narrower codes. */
const ay_gemm_i8_row *ay_gemm_i8_for(ay_isa isa, const ay_weight *w);

/* ---- activations and codes ---------------------------------------------------------------------------------------- */

/** Rows of codes, `pitch` bytes apart: bytes, to be taken xor `flip`; or of four bits, the lower half of a byte first, to be
 *  taken through a table of 16. */
typedef struct ay_code_rows {
    const uint8_t *at;
    int64_t pitch;
    int count;
    uint8_t flip;
    const int8_t *table; /* NULL: bytes */
} ay_code_rows;
typedef struct ay_a8_row {
    const char *name;
    ay_isa isa;
    /** `blocks` blocks of one row of contiguous numbers, records `step` bytes apart. A block that is not finite gets the
     *  scale NaN. Adds to noise[block] and power[block] the square of the scale and the squares of the numbers but the
     *  largest. `next`: what the next call will read. */
    void (*row)(int64_t blocks, const float *x, const float *next, char *out, int64_t step, float *noise, float *power);
    /** What the record of a block leaves of its numbers. */
    void (*rest)(const float *x, const char *record, float *out);
    /** One block (32 numbers, `plane` apart) of each of `n` neighbouring pixels, records `step` bytes apart; the same sums
     *  to stats[0] and stats[1]. `next`: the first pixel of the next call. */
    void (*pixels)(int64_t n, const float *x, const float *next, int64_t plane, char *out, int64_t step, float *stats);
    /** n four-bit codes, the lower half of a byte first, through a table of 16. */
    void (*lut16)(const int8_t lut[16], int64_t n, const uint8_t *src, int8_t *out);
    /** Panel dst [n / 4][nr][4] from rows of n codes, n a multiple of 32; what stands for rows past `count` is open. */
    void (*turn)(const ay_code_rows *rows, int nr, int64_t n, uint8_t *dst);
    /** 32 channels of `taps` numbers each, four neighbours in a group, [8 * taps][nr][4], become taps of 32 channels,
     *  [taps][8][nr][4]. nr is a multiple of 8. */
    void (*taps_first)(int64_t taps, int64_t nr, const uint8_t *from, uint8_t *to);
} ay_a8_row;
const ay_a8_row *const *ay_a8_rows(int *n);
const ay_a8_row *ay_a8_pick(ay_isa isa);

/* A tensor of quantised activations: the head says which blocks are there twice, the rest of what the codes leave in blocks
 * of their own behind the last. These are the blocks where one channel is so much larger than its neighbours that they drown
 * in its rounding: as many of them as it takes to bring the noise of all blocks together under `tolerance`, relative to the
 * numbers but the largest of each block, and at most half. Then the records: [panel][block][row], panels of the
 * micro-kernel's mr rows (the last one lower), or for pictures [n][block][pixel] with a pixel of zeros behind the last; always with
 * room for all blocks. */
typedef struct ay_a8_head {
    int32_t n;
    int32_t block[]; /* in rising order */
} ay_a8_head;
static inline int64_t ay_a8_blocks(int64_t k) { return ay_div_up(k, AY_I8_BLOCK); }
/** Blocks there is room for. */
static inline int64_t ay_a8_room(int64_t k) { return ay_a8_blocks(k) + (ay_a8_blocks(k) + 1) / 2; }
static inline size_t ay_a8_head_bytes(int64_t k) { return (size_t)ay_round_up(4 + (ay_a8_blocks(k) + 1) / 2 * 4, 64); }
static inline size_t ay_a8_bytes(int64_t m, int64_t k) { return ay_a8_head_bytes(k) + (size_t)(m * ay_a8_room(k)) * AY_I8_RECORD; }

static inline size_t ay_a8_picture_bytes(int64_t n, int64_t plane, int64_t c) { return ay_a8_bytes(n * (plane + 1), c); }

/** m rows of k numbers; blocks past k are filled up with zeros. */
typedef struct ay_a8 {
    int64_t m, k;
    const float *a;
    int64_t lda;
    float tolerance;
    void *out;
} ay_a8;
size_t ay_a8_scratch(ay_isa isa, int64_t m, int64_t k);
void ay_a8_run(const ay_exec *ex, const ay_a8 *q);
/** x [n, c, plane], c a multiple of 32: n * plane rows of c. */
typedef struct ay_a8_picture {
    int64_t n, c, plane;
    const float *x;
    float tolerance;
    void *out;
    int64_t pitch; /* from channel to channel of x; 0: plane */
} ay_a8_picture;
size_t ay_a8_picture_scratch(int64_t n, int64_t c, int64_t plane);
void ay_a8_picture_run(const ay_exec *ex, const ay_a8_picture *q);

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/** What noise activations may have beside weights of so few bits: their own error is about 0.7 % at eight, 8 % at four. */
static inline float ay_i8_tolerance(const ay_weight *w) { return ay_dtype_bits(w->data_dtype) > 4 ? 0.01f : 0.03f; }

/** A weight [n, c, taps] as int8 codes with scales. `run`: numbers along c that share one (a multiple of 32), or 0 when a row
 *  has only one. */
typedef struct ay_i8_weight {
    const ay_weight *w;
    int64_t n, c, taps, run;
} ay_i8_weight;
/** Whether the weight's numbers can be used as eight-bit integers as they are stored. */
bool ay_i8_weight_of(const ay_weight *w, int64_t n, int64_t c, int64_t taps, ay_i8_weight *out);
/** Whether that costs no accuracy to speak of: palettes whose numbers are close together beside the largest are left to float
 *  products. */
bool ay_i8_is_accurate(const ay_weight *w);
static inline int64_t ay_i8_blocks(const ay_i8_weight *w) { return ay_div_up(w->c, AY_I8_BLOCK) * w->taps; }
/** Blocks b0 .. b0 + nb of rows at .. at + count as one panel; blocks are counted over c, then taps: block b is tap
 *  b % taps of channels b / taps * 32 and on. scale: [nb][nr], of weights with runs. `stage`: ay_i8_stage_bytes. */
typedef struct ay_i8_panel {
    const ay_i8_weight *w;
    const ay_gemm_i8_row *kernel;
    const ay_a8_row *a8;
    const ay_pack_row *pack;
    int8_t *stage;
} ay_i8_panel;
size_t ay_i8_stage_bytes(const ay_gemm_i8_row *kernel, int64_t nb);
void ay_i8_panel_make(const ay_i8_panel *p, int64_t at, int count, int64_t b0, int64_t nb, uint8_t *dst, float *scale);
/** The same of the doubled blocks number e0 .. e0 + n of `head`: all taps of each. */
void ay_i8_panel_doubled(const ay_i8_panel *p, int64_t at, int count, const ay_a8_head *head, int64_t e0, int64_t n, uint8_t *dst, float *scale);
/** Scales of whole rows, for weights without runs. */
void ay_i8_row_scales(const ay_i8_weight *w, int64_t at, int64_t count, float *out);

/* ---- products ----------------------------------------------------------------------------------------------------- */

/** The product of kernel.h with g->a replaced by `a8` (what ay_a8_run made of it). */
size_t ay_gemm_i8_scratch(ay_isa isa, int threads, const ay_gemm *g);
void ay_gemm_i8_run(const ay_exec *ex, const ay_gemm *g, const void *a8);
/** Whether such a product exists for g (which has a weight). */
bool ay_gemm_i8_can(const ay_gemm *g);

/** The convolution of kernel.h with c->x replaced by what ay_a8_picture_run made of it; one group. */
bool ay_conv_i8_can(const ay_conv *c);
size_t ay_conv_i8_scratch(ay_isa isa, int threads, const ay_conv *c);
void ay_conv_i8_run(const ay_exec *ex, const ay_conv *c, const void *x8);

#endif
