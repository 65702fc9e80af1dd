/* SPDX-License-Identifier: MIT
 *
 * Kernels of the CPU engine: the micro-kernels in family_isa.c files, chosen through the ordered row tables in kernels.c,
 * and the drivers above them that block, pack and thread (gemm.c, attn.c, conv.c, norm.c, elt.c). Activations are float32
 * in memory, row-major; weights are read through ay_weight in whatever storage the mapped file has.
 */
#ifndef AY_KERNEL_H
#define AY_KERNEL_H

#include "base/base.h"
#include "base/isa.h"
#include "base/pool.h"
#include "quant/weight.h"

typedef enum ay_act {
    AY_ACT_NONE,
    AY_ACT_GELU_TANH,
    AY_ACT_GELU_ERF,
    AY_ACT_GELU_SIGMOID,
    AY_ACT_SILU,
    AY_ACT_RELU,
    AY_ACT_SIGMOID,
    AY_ACT_TANH
} ay_act;

/** How a driver runs: pool, instruction set, stop flag, and scratch (one block a thread, sized by the *_scratch call). */
typedef struct ay_exec {
    ay_pool *pool;
    ay_isa isa;
    atomic_int *stop;
    void *scratch; /* 64-byte aligned; threads * per_thread + shared bytes, laid out by the driver */
    size_t scratch_bytes;
} ay_exec;

/** C[m, n] = residual + gate[n] * act( A[m, k] * B + bias[n] )   (each of residual, gate, bias optional)
 *  c must not overlap a, b or residual (sums pass through it); the elementwise and row functions below may work in place.
 *  B is either a weight [n, k] (PyTorch linear: out, in) in any storage, or float32 b: [n, k] if b_trans else [k, n]. */
typedef struct ay_gemm {
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const ay_weight *w; /* rank 2 [n, k] (or any rank with the same row-major [n, k] view) */
    const float *b;
    int64_t ldb;
    bool b_trans;
    float alpha; /* scales A*B before bias; 1 for layers */
    const float *bias, *gate, *residual;
    int64_t ldr;
    ay_act act;
    float *c;
    int64_t ldc;
} ay_gemm;
size_t ay_gemm_scratch(ay_isa isa, int threads, const ay_gemm *g); /* from m, n, k, storage only */
void ay_gemm_run(const ay_exec *ex, const ay_gemm *g);
/** `batch` independent float32 products, threaded over batch and tiles; strides in elements (0: shared). */
typedef struct ay_gemm_batch {
    ay_gemm one;
    int64_t batch, stride_a, stride_b, stride_c;
} ay_gemm_batch;
size_t ay_gemm_batch_scratch(ay_isa isa, int threads, const ay_gemm_batch *g);
void ay_gemm_batch_run(const ay_exec *ex, const ay_gemm_batch *g);

/** Fused attention: o = softmax(q k^T * scale + mask) v, never storing the score matrix. Strides in elements, so q/k/v may
 *  lie as [B, H, L, D] or [B, L, H, D]. mask: float32 added, broadcast by zero strides, or NULL; read fastest where one
 *  query's number lies beside the next one's. A query whose every key is masked by -inf gives zeros. o must not overlap q, k, v. */
typedef struct ay_attn {
    int64_t batch, heads, lq, lk, d, dv;
    const float *q, *k, *v;
    int64_t qs[3], ks[3], vs[3]; /* batch, head, row */
    const float *mask;
    int64_t ms[4]; /* batch, head, query, key */
    float scale;
    float *o;
    int64_t os[3];
} ay_attn;
size_t ay_attn_scratch(ay_isa isa, int threads, const ay_attn *a);
void ay_attn_run(const ay_exec *ex, const ay_attn *a);

/** Convolution over up to 3 spatial dims (unused leading dims are 1), NCDHW, weight [O, C/groups, KD, KH, KW]. y must not
 *  overlap x; it may be the residual itself where there is no activation. Channels may lie further apart than a picture is
 *  large, so that a band of rows is a convolution of its own: x_plane and y_plane, 0 where they follow one another. */
typedef struct ay_conv {
    int64_t n, c, o, groups;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3];
    const float *x;
    const ay_weight *w;
    const float *wf;              /* when the weight is a computed value */
    const float *bias, *residual; /* residual lies as y does */
    ay_act act;
    float *y;
    int64_t x_plane, y_plane; /* elements from channel to channel */
    enum { AY_CONV_BEST, AY_CONV_DIRECT, AY_CONV_WINO, AY_CONV_WINO_SLAB, AY_CONV_WINO_FEW } how; /* the last two: for checks */
} ay_conv;
size_t ay_conv_scratch(ay_isa isa, int threads, const ay_conv *c);
void ay_conv_run(const ay_exec *ex, const ay_conv *c);
/** wino.c: 3 x 3 with stride 1 by Winograd's method; whether it can be; what it is expected to take, in cycles of one thread,
 *  where a micro-kernel multiplies nr numbers a cycle; whether that is less than the direct product takes. */
bool ay_wino_can(const ay_conv *c);
double ay_wino_cycles(ay_isa isa, const ay_conv *c);
bool ay_wino_pays(ay_isa isa, const ay_conv *c);
size_t ay_wino_scratch(ay_isa isa, int threads, const ay_conv *c);
void ay_wino_run(const ay_exec *ex, const ay_conv *c);

/** Rows of `d` numbers: y = (x - mean?) / sqrt(var + eps) * (w?) + (b?), then * (1 + scale?) + shift?  (modulation rows are
 *  chosen by row / rows_per_mod; mod_plus_one adds the 1). rms: no mean. */
typedef struct ay_norm {
    int64_t rows, d;
    const float *x;
    float *y;
    const float *w, *b;
    const float *scale, *shift;
    int64_t rows_per_mod, mod_stride;
    bool mod_plus_one, rms;
    double eps;
} ay_norm;
void ay_norm_run(const ay_exec *ex, const ay_norm *n);
/** x [n, c, s]: groups, then y = norm * w[c] + b[c], then act. */
typedef struct ay_group_norm_args {
    int64_t n, c, s, groups;
    const float *x, *w, *b;
    float *y;
    double eps;
    ay_act act;
} ay_group_norm_args;
void ay_group_norm_run(const ay_exec *ex, const ay_group_norm_args *a);
/** What it would multiply and add, [n, c] each: y = act(x * scale[c] + shift[c]). */
void ay_group_moments_run(const ay_exec *ex, const ay_group_norm_args *a, float *scale, float *shift);
void ay_softmax_run(const ay_exec *ex, int64_t rows, int64_t d, const float *x, float *y); /* over the last dim */

/** Elementwise with numpy broadcasting: up to 6 dims, strides in elements (0 where broadcast). */
typedef enum ay_elt {
    AY_ELT_ADD,
    AY_ELT_SUB,
    AY_ELT_MUL,
    AY_ELT_DIV,
    AY_ELT_MAX,
    AY_ELT_MIN,
    AY_ELT_POW,
    AY_ELT_MOD, /* two inputs */
    AY_ELT_COPY,
    AY_ELT_ABS,
    AY_ELT_EXP,
    AY_ELT_LOG,
    AY_ELT_SQRT,
    AY_ELT_RSQRT,
    AY_ELT_SIN,
    AY_ELT_COS,
    AY_ELT_TANH,
    AY_ELT_ERF,
    AY_ELT_FLOOR,
    AY_ELT_CEIL,
    AY_ELT_ROUND,
    AY_ELT_SIGN,
    AY_ELT_SIGMOID,
    AY_ELT_SILU,
    AY_ELT_GELU_EXACT,
    AY_ELT_GELU_TANH,
    AY_ELT_GELU_SIGMOID,
    AY_ELT_COUNT
} ay_elt;
typedef struct ay_elt_args {
    ay_elt op;
    int rank;
    int64_t dim[AY_MAX_RANK];
    const float *x, *y;
    int64_t xs[AY_MAX_RANK], ys[AY_MAX_RANK]; /* out is dense row-major */
    float *out;
} ay_elt_args;
void ay_elt_run(const ay_exec *ex, const ay_elt_args *a);
/** Strided copy (permute, slice, expand, reverse, concat parts) of 1, 2, 4 or 8-byte elements, cache-blocked. */
typedef struct ay_copy_args {
    int rank;
    int64_t dim[AY_MAX_RANK];
    const void *x;
    int64_t xs[AY_MAX_RANK];
    void *y;
    int64_t ys[AY_MAX_RANK];
    int size;
} ay_copy_args;
void ay_copy_run(const ay_exec *ex, const ay_copy_args *a);
/** Rotary embedding: x, out [outer, rows, inner?]: see attr.rope. cos/sin given by strides over the dims of x. */
typedef struct ay_rope_args {
    int rank;
    int64_t dim[AY_MAX_RANK];
    const float *x, *cos, *sin;
    int64_t xs[AY_MAX_RANK], cs[AY_MAX_RANK];
    bool interleaved;
    float *out;
} ay_rope_args;
void ay_rope_run(const ay_exec *ex, const ay_rope_args *a);
/** out = act(x) * y: rows of n numbers, out's one after the other, x's and y's ldx and ldy apart. */
void ay_gated_rows_run(const ay_exec *ex, ay_act act, int64_t rows, int64_t n, const float *x, int64_t ldx, const float *y,
                       int64_t ldy, float *out);
/** out[i] = act(x[i]) * y[i], contiguous. */
void ay_gated_run(const ay_exec *ex, ay_act act, int64_t n, const float *x, const float *y, float *out);
void ay_round_f16_run(const ay_exec *ex, int64_t n, float *x, int64_t *overflows); /* in place: through half and back */

/* ---- rows: the registration of every micro-kernel; dispatch, kcheck and bench read the same tables (kernels.c) ---- */

/** acc tile of mr x nr from packed panels: a [k][mr], b [k][nr]; c (+)= a*b. height[r - 1] does the same for r < mr rows,
 *  with a [k][r]. */
typedef void (*ay_gemm_f32_fn)(int64_t k, const float *a, const float *b, float *c, int64_t ldc, bool accumulate);
enum { AY_MAX_MR = 16, AY_MAX_NR = 32 };
typedef struct ay_gemm_f32_row {
    const char *name;
    ay_isa isa;
    int mr, nr;
    ay_gemm_f32_fn fn, height[AY_MAX_MR];
} ay_gemm_f32_row;
const ay_gemm_f32_row *const *ay_gemm_f32_rows(int *n);
const ay_gemm_f32_row *ay_gemm_f32_pick(ay_isa isa);

#endif
