/* SPDX-License-Identifier: MIT
 *
 * Speed of the kernels, each figure beside the machine's own ceiling measured in the same run: multiply-adds against a
 * loop that never leaves the registers, memory against a plain copy, products against OpenBLAS (its kernels for this
 * processor named by hand: left alone, it takes some virtual machines for an SSE3 chip) and oneDNN in interleaved pairs.
 *
 *   bench_kernels [--quick] [--only=gemm|i8|attn|conv|vec] [--threads=N | --cpu-time]
 */
#include "cpu/kernel/i8.h"
#include "cpu/kernel/peak.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef void (*sgemm_fn)(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                         const float *b, int ldb, float beta, float *c, int ldc);

/* oneDNN's row-major C = alpha op(A) op(B) + beta C (dnnl.h). */
typedef int (*dnnl_fn)(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                       const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* The same of integers: C = A (B - 0) + 0, A uint8, B int8, C int32. */
typedef int (*dnnl_int_fn)(char ta, char tb, char offsetc, int64_t m, int64_t n, int64_t k, float alpha, const uint8_t *a, int64_t lda,
                           uint8_t ao, const int8_t *b, int64_t ldb, int8_t bo, float beta, int32_t *c, int64_t ldc, const int32_t *co);

typedef struct bench {
    ay_exec ex;
    int threads, pairs;
    clockid_t clock;   /* the wall's, or with --cpu-time this process's own: steadier on a shared machine, one thread only */
    double seconds;    /* least time of one measurement */
    double peak, copy; /* GFLOP/s, GB/s of all threads */
    const char *only;
    sgemm_fn sgemm;
    dnnl_fn dnnl;
    dnnl_int_fn dnnl_int;
    float *room; /* big buffers for everyone */
    size_t room_floats;
} bench;

static double now(const bench *b) {
    struct timespec t;
    clock_gettime(b->clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *pages(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "bench_kernels: no %zu bytes of memory\n", bytes);
        exit(1);
    }
    return p;
}

/* ---- timing: a thing is a function of (bench, argument) ----------------------------------------------------------- */

typedef void (*work_fn)(bench *b, void *arg);

static double once(bench *b, work_fn fn, void *arg) {
    double t0 = now(b), t;
    int runs = 0;
    do {
        fn(b, arg);
        runs++;
        t = now(b) - t0;
    } while (t < b->seconds);
    return t / runs;
}

static int by_size(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_size);
    return v[n / 2];
}

static double timed(bench *b, work_fn fn, void *arg) {
    double t[16];
    for (int i = 0; i < b->pairs; i++) t[i] = once(b, fn, arg);
    return median(t, b->pairs);
}

/* ---- ceilings ----------------------------------------------------------------------------------------------------- */

enum { PEAK_ROUNDS = 50000 };
static void peak_tile(void *arg, int64_t tile, int thread) { ay_peak_pick(((bench *)arg)->ex.isa)->f32(PEAK_ROUNDS); }
static void peak_run(bench *b, void *arg) { ay_parallel(b->ex.pool, b->threads * 8, peak_tile, b, NULL); }
static double peak_now(bench *b) {
    return 1e-9 * ay_peak_pick(b->ex.isa)->f32(1) * PEAK_ROUNDS * b->threads * 8 / once(b, peak_run, NULL);
}

/** Sums of integer products with weights of so many bits; where the level has none, float multiply-adds. */
static ay_peak_fn int_peak(const bench *b, int bits) {
    const ay_peak_row *row = ay_peak_pick(b->ex.isa);
    return bits == 4 && row->i4 ? row->i4 : row->i8 ? row->i8 : row->f32;
}
static void i8_peak_tile(void *arg, int64_t tile, int thread) { int_peak(arg, 8)(PEAK_ROUNDS); }
static void i4_peak_tile(void *arg, int64_t tile, int thread) { int_peak(arg, 4)(PEAK_ROUNDS); }
static void i8_peak_run(bench *b, void *arg) { ay_parallel(b->ex.pool, b->threads * 8, i8_peak_tile, b, NULL); }
static void i4_peak_run(bench *b, void *arg) { ay_parallel(b->ex.pool, b->threads * 8, i4_peak_tile, b, NULL); }
static double int_peak_now(bench *b, int bits) {
    return 1e-9 * int_peak(b, bits)(1) * PEAK_ROUNDS * b->threads * 8 / once(b, bits == 4 ? i4_peak_run : i8_peak_run, NULL);
}

typedef struct span {
    char *from, *to;
    size_t each;
} span;
static void copy_tile(void *arg, int64_t tile, int thread) {
    span *s = arg;
    memcpy(s->to + (size_t)tile * s->each, s->from + (size_t)tile * s->each, s->each);
}
static void copy_run(bench *b, void *arg) { ay_parallel(b->ex.pool, b->threads * 8, copy_tile, arg, NULL); }

static void ceilings(bench *b) {
    span s = {(char *)b->room, (char *)(b->room + b->room_floats / 2),
              b->room_floats * 2 / (size_t)(b->threads * 8) / 64 * 64};
    b->peak = peak_now(b);
    b->copy = 2e-9 * (double)s.each * b->threads * 8 / timed(b, copy_run, &s);
    printf("ceilings, %d threads, level %s: %.0f GFLOP/s, %.0f GOP/s of int8 and %.0f of int4 weights in registers, %.1f GB/s "
           "copying (read + written)\n",
           b->threads, ay_isa_name(b->ex.isa), b->peak, int_peak_now(b, 8), int_peak_now(b, 4), b->copy);
}

static void need_scratch(bench *b, size_t bytes) {
    if (bytes <= b->ex.scratch_bytes) return;
    if (b->ex.scratch) munmap(b->ex.scratch, b->ex.scratch_bytes);
    b->ex.scratch = pages(bytes);
    b->ex.scratch_bytes = bytes;
}

/** Times a thing beside the ceiling in pairs and prints the beginning of its line. */
static void share(bench *b, work_fn fn, void *arg, double gflop) {
    double ours[16], part[16];
    for (int i = 0; i < b->pairs; i++) {
        ours[i] = once(b, fn, arg);
        part[i] = gflop / ours[i] / peak_now(b);
    }
    double s = median(ours, b->pairs);
    printf("  %9.3f ms %7.1f GFLOP/s %4.0f %% of FMA", s * 1e3, gflop / s, 100 * median(part, b->pairs));
}

/* Numbers between -0.5 and 0.5, none of them an outlier: how long quantising takes depends on that. */
static void fill(float *to, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = (float)((uint64_t)i * 2654435761u % 1024) * 0x1p-10f - 0.5f;
}

/* ---- matrix products ---------------------------------------------------------------------------------------------- */

static void gemm_run(bench *b, void *arg) { ay_gemm_run(&b->ex, arg); }
static void blas_run(bench *b, void *arg) {
    const ay_gemm *g = arg;
    b->sgemm(101, 111, 112, (int)g->m, (int)g->n, (int)g->k, 1, g->a, (int)g->k, g->b, (int)g->k, 0, g->c, (int)g->n);
}

static void dnnl_run(bench *b, void *arg) {
    const ay_gemm *g = arg;
    b->dnnl('N', 'T', g->m, g->n, g->k, 1, g->a, g->k, g->b, g->k, 0, g->c, g->n);
}

/* A library's threads look out for more work for a while after each call (OpenBLAS: 2^26 ticks of the clock) and would share the
 * cores with whatever is timed next. */
static void let_them_sleep(void) { usleep(40000); }

/** The same product by a library, in pairs with ours: its median rate and the median of the ratios. */
typedef struct rival {
    const char *name;
    work_fn run;
    double times[16], ratio[16];
} rival;

static void print_rivals(const bench *b, rival *r, int n, double flops) {
    for (int i = 0; i < n; i++)
        printf("  %.2f x %s (%.0f)", median(r[i].ratio, b->pairs), r[i].name, flops / median(r[i].times, b->pairs));
}

static void gemm_row(bench *b, int64_t m, int64_t n, int64_t k, ay_dtype t) {
    float *a = b->room, *w = a + m * k, *c = w + n * k;
    ay_weight weight = {
        .store = AY_STORE_PLAIN, .rank = 2, .dim = {n, k}, .value_dtype = t, .data_dtype = t, .data = w + n * k / 2};
    if (!ay_dtype_is_float(t)) { /* blocks of 64 along k, or for unsigned ones a palette */
        weight.store = t == AY_U4 || t == AY_U6 || t == AY_U8 ? AY_STORE_LUT : AY_STORE_BLOCK;
        weight.scale_dtype = weight.lut_dtype = AY_F16;
        weight.scale = weight.lut = a;
        weight.scale_dim[0] = n, weight.scale_dim[1] = k / 64;
        weight.lut_dim[0] = weight.lut_dim[1] = weight.lut_dim[3] = 1, weight.lut_dim[2] = 1 << ay_dtype_bits(t);
    }
    ay_gemm g = {.m = m, .n = n, .k = k, .a = a, .lda = k, .w = &weight, .alpha = 1, .c = c, .ldc = n};
    ay_gemm blas = g;
    if (t == AY_F32) weight.data = w;
    blas.b = w;
    need_scratch(b, ay_gemm_scratch(b->ex.isa, b->threads, &g));
    double flops = 2e-9 * (double)m * (double)n * (double)k, ours[16], peak[16];
    rival rivals[2];
    int n_rivals = 0;
    if (b->sgemm) rivals[n_rivals++] = (rival){.name = "OpenBLAS float32", .run = blas_run};
    if (b->dnnl) rivals[n_rivals++] = (rival){.name = "oneDNN float32", .run = dnnl_run};
    for (int i = 0; i < b->pairs; i++) {
        if (n_rivals) let_them_sleep();
        ours[i] = once(b, gemm_run, &g);
        peak[i] = flops / ours[i] / peak_now(b);
        for (int r = 0; r < n_rivals; r++) {
            let_them_sleep();
            rivals[r].times[i] = once(b, rivals[r].run, &blas);
            rivals[r].ratio[i] = rivals[r].times[i] / ours[i];
        }
    }
    double bytes = 1e-9 * (double)ay_dtype_bytes(t, n * k), s = median(ours, b->pairs);
    printf("  %5lld x %5lld x %5lld  %-8s %9.3f ms %7.1f GFLOP/s %4.0f %% of FMA", (long long)m, (long long)n, (long long)k,
           ay_dtype_name(t), s * 1e3, flops / s, 100 * median(peak, b->pairs));
    if (m <= 16) printf("  weight read at %.1f GB/s", bytes / s);
    print_rivals(b, rivals, n_rivals, flops);
    printf("\n");
    fflush(stdout);
}

/* m, n, k of FLUX.1's two streams and joined blocks at 512 and 1024 pixels, SDXL and SD 1.5's feed-forward and attention,
 * T5-XXL's feed-forward: twelve */
static const int64_t shapes[][3] = {{1280, 12288, 3072}, {256, 10240, 1280}, {1024, 1280, 1280},  {256, 3072, 3072},
                                    {1024, 3072, 3072},  {1280, 3072, 15360}, {1024, 3072, 12288}, {4608, 12288, 3072},
                                    {1024, 10240, 1280}, {1024, 1280, 5120},  {256, 10240, 4096},  {256, 4096, 10240}};

static void bench_gemm(bench *b, bool quick) {
    printf("products [m, k] x [n, k] transposed: m x n x k\n");
    for (int i = 0; i < (quick ? 4 : 12); i++) {
        gemm_row(b, shapes[i][0], shapes[i][1], shapes[i][2], AY_F16);
        gemm_row(b, shapes[i][0], shapes[i][1], shapes[i][2], AY_F32);
    }
    gemm_row(b, 1536, 3072, 3072, AY_I8);
    gemm_row(b, 1536, 3072, 3072, AY_I4);
    gemm_row(b, 1536, 3072, 3072, AY_U4);
    gemm_row(b, 1536, 3072, 3072, AY_U6);
    gemm_row(b, 1536, 3072, 3072, AY_U8);
    gemm_row(b, 1, 18432, 3072, AY_I4);
    gemm_row(b, 1, 18432, 3072, AY_I8);
    gemm_row(b, 1, 18432, 3072, AY_F16);
    gemm_row(b, 1, 18432, 3072, AY_F32);
    gemm_row(b, 16, 3072, 3072, AY_F16);
}

/* ---- products in eight-bit integers, quantising the activations included -------------------------------------------- */

typedef struct i8_product {
    ay_gemm g;
    ay_a8 a8;
} i8_product;

static void i8_run(bench *b, void *arg) {
    i8_product *p = arg;
    ay_a8_run(&b->ex, &p->a8);
    ay_gemm_i8_run(&b->ex, &p->g, p->a8.out);
}

static void dnnl_int_run(bench *b, void *arg) {
    const ay_gemm *g = arg;
    b->dnnl_int('N', 'T', 'F', g->m, g->n, g->k, 1, (const uint8_t *)g->a, g->k, 0, (const int8_t *)g->b, g->k, 0, 0, (int32_t *)(void *)g->c,
                g->n, (const int32_t[]){0});
}

/** A product of quantised activations, beside OpenBLAS in floats and oneDNN in integers; the libraries' weights are read as
 *  they stand in the room, and oneDNN is given activations that are bytes already. */
static void i8_row(bench *b, int64_t m, int64_t n, int64_t k, ay_dtype t) {
    float *a = b->room, *c = a + m * k, *rest = c + m * n;
    int64_t run = t == AY_I4 ? 32 : k;
    char *data = (char *)rest, *scales = data + ay_dtype_bytes(t, n * k), *a8 = scales + n * k / run * 2;
    ay_weight w = {.store = AY_STORE_BLOCK, .rank = 2, .dim = {n, k}, .value_dtype = AY_F16, .data_dtype = t, .data = data,
                   .scale_dtype = AY_F16, .scale_dim = {n, k / run}, .scale = scales};
    if (t == AY_U4) {
        w.store = AY_STORE_LUT;
        w.lut_dtype = AY_F16;
        w.lut = a;
        w.lut_dim[0] = w.lut_dim[1] = w.lut_dim[3] = 1, w.lut_dim[2] = 16;
    }
    i8_product p = {.g = {.m = m, .n = n, .k = k, .w = &w, .alpha = 1, .c = c, .ldc = n}, .a8 = {m, k, a, k, ay_i8_tolerance(&w), a8}};
    ay_gemm theirs = {.m = m, .n = n, .k = k, .a = a, .b = rest, .c = c};
    fill(a, m * k); /* where the row before has left its results */
    for (int64_t i = 0; i < n * k / run; i++) memcpy(scales + 2 * i, &(uint16_t){0x2000}, 2);
    need_scratch(b, ay_gemm_i8_scratch(b->ex.isa, b->threads, &p.g));
    need_scratch(b, ay_a8_scratch(b->ex.isa, m, k));
    double ours[16], peak[16], fma[16], gop = 2e-9 * (double)m * (double)n * (double)k;
    int bits = t == AY_I4 ? 4 : 8, n_rivals = 0;
    rival rivals[2];
    if (b->sgemm) rivals[n_rivals++] = (rival){.name = "OpenBLAS float32", .run = blas_run};
    if (b->dnnl_int) rivals[n_rivals++] = (rival){.name = "oneDNN u8 x s8", .run = dnnl_int_run};
    for (int i = 0; i < b->pairs; i++) {
        if (n_rivals) let_them_sleep();
        ours[i] = once(b, i8_run, &p);
        peak[i] = gop / ours[i] / int_peak_now(b, bits);
        fma[i] = gop / ours[i] / peak_now(b);
        for (int r = 0; r < n_rivals; r++) {
            let_them_sleep();
            rivals[r].times[i] = once(b, rivals[r].run, &theirs);
            rivals[r].ratio[i] = rivals[r].times[i] / ours[i];
        }
    }
    double s = median(ours, b->pairs);
    printf("  %5lld x %5lld x %5lld  %-8s %9.3f ms %7.1f GOP/s %4.0f %% of int%d %4.0f %% of FMA", (long long)m, (long long)n, (long long)k,
           t == AY_U4 ? "palette" : ay_dtype_name(t), s * 1e3, gop / s, 100 * median(peak, b->pairs), bits, 100 * median(fma, b->pairs));
    print_rivals(b, rivals, n_rivals, gop);
    printf("\n");
    fflush(stdout);
}

static void bench_i8(bench *b, bool quick) {
    printf("products in eight-bit integers, quantising the activations included: m x n x k\n");
    for (int i = 0; i < (quick ? 4 : 12); i++) {
        i8_row(b, shapes[i][0], shapes[i][1], shapes[i][2], AY_I8);
        i8_row(b, shapes[i][0], shapes[i][1], shapes[i][2], AY_I4);
    }
    i8_row(b, 4096, 320, 320, AY_I8); /* SD 1.5 at its largest picture */
    i8_row(b, 4096, 2560, 320, AY_I8);
    i8_row(b, 1536, 3072, 3072, AY_U4);
}

/* ---- attention ---------------------------------------------------------------------------------------------------- */

static void attn_run(bench *b, void *arg) { ay_attn_run(&b->ex, arg); }

typedef struct attn_shape {
    int64_t lq, lk, heads, d;
    bool bias; /* a number for each query and key of each head, as T5 adds them */
} attn_shape;

static void attn_row(bench *b, attn_shape s) {
    int64_t wide = s.heads * s.d, nq = s.lq * wide, nk = s.lk * wide;
    ay_attn a = {.batch = 1,
                 .heads = s.heads,
                 .lq = s.lq,
                 .lk = s.lk,
                 .d = s.d,
                 .dv = s.d,
                 .q = b->room,
                 .k = b->room + nq,
                 .v = b->room + nq + nk,
                 .o = b->room + nq + 2 * nk,
                 .scale = 0.1f};
    int64_t *strides[] = {a.qs, a.ks, a.vs, a.os};
    for (int i = 0; i < 4; i++) strides[i][0] = i == 1 || i == 2 ? nk : nq, strides[i][1] = s.d, strides[i][2] = wide;
    if (s.bias) {
        a.mask = a.o + nq;
        a.ms[1] = s.lq * s.lk, a.ms[2] = 1, a.ms[3] = s.lq;
    }
    need_scratch(b, ay_attn_scratch(b->ex.isa, b->threads, &a));
    share(b, attn_run, &a, 4e-9 * (double)s.lq * (double)s.lk * (double)wide);
    printf("  %lld x %lld tokens x %lld heads x %lld%s\n", (long long)s.lq, (long long)s.lk, (long long)s.heads, (long long)s.d,
           s.bias ? ", bias" : "");
    fflush(stdout);
}

static void bench_attn(bench *b, bool quick) {
    static const attn_shape shapes_of_models[] = {
        {4096, 4096, 8, 40, false},   {1024, 1024, 8, 80, false}, {256, 256, 8, 160, false}, /* SD 1.5, */
        {4096, 77, 8, 40, false},     {1024, 77, 8, 80, false},   {256, 77, 8, 160, false},  /* to the text, */
        {77, 77, 12, 64, false},      {4096, 4096, 1, 512, false},                           /* its text, its pictures */
        {256, 256, 64, 64, true},     {1536, 1536, 24, 128, false}, {4608, 4608, 24, 128, false}, /* FLUX.1 */
    };
    int n = (int)(sizeof shapes_of_models / sizeof *shapes_of_models);
    printf("attention: queries x keys\n");
    for (int i = 0; i < n - quick; i++) attn_row(b, shapes_of_models[i]);
}

/* ---- convolution -------------------------------------------------------------------------------------------------- */

static void conv_run(bench *b, void *arg) { ay_conv_run(&b->ex, arg); }

typedef struct i8_conv {
    ay_conv c;
    ay_a8_picture q;
} i8_conv;

static void conv_i8_run(bench *b, void *arg) {
    i8_conv *p = arg;
    ay_a8_picture_run(&b->ex, &p->q);
    ay_conv_i8_run(&b->ex, &p->c, p->q.out);
}

static void conv_i8_row(bench *b, ay_conv a, ay_dtype t) {
    int64_t side = a.in[2], k = a.c * a.kernel[1] * a.kernel[2], run = t == AY_I4 ? 32 : a.c;
    float *y = b->room + a.c * side * side;
    char *data = (char *)(y + a.o * a.out[1] * a.out[2]), *scales = data + a.o * k;
    ay_weight w = {.store = AY_STORE_BLOCK, .rank = 4, .dim = {a.o, a.c, a.kernel[1], a.kernel[2]}, .value_dtype = AY_F16,
                   .data_dtype = t, .data = data, .scale_dtype = AY_F16, .scale_dim = {a.o, a.c / run, 1, 1}, .scale = scales};
    a.w = &w;
    a.y = y;
    i8_conv p = {a, {.n = 1, .c = a.c, .plane = side * side, .x = a.x, .tolerance = ay_i8_tolerance(&w), .out = scales + a.o * a.c}};
    need_scratch(b, ay_a8_picture_scratch(1, a.c, side * side));
    need_scratch(b, ay_conv_i8_scratch(b->ex.isa, b->threads, &a));
    double ours[16], part[16], gop = 2e-9 * (double)a.o * (double)k * (double)(a.out[1] * a.out[2]);
    for (int i = 0; i < b->pairs; i++) {
        ours[i] = once(b, conv_i8_run, &p);
        part[i] = gop / ours[i] / int_peak_now(b, t == AY_I4 ? 4 : 8);
    }
    double s = median(ours, b->pairs);
    printf("  %9.3f ms %7.1f GOP/s %4.0f %% of integer products, %s\n", s * 1e3, gop / s, 100 * median(part, b->pairs), ay_dtype_name(t));
    fflush(stdout);
}

static void conv_row(bench *b, int64_t c, int64_t o, int64_t side, int64_t kernel, int64_t stride) {
    int64_t out = side / stride, k = c * kernel * kernel;
    ay_weight w = {.store = AY_STORE_PLAIN,
                   .rank = 2,
                   .dim = {o, k},
                   .value_dtype = AY_F16,
                   .data_dtype = AY_F16,
                   .data = b->room + c * side * side};
    ay_conv a = {.n = 1,
                 .c = c,
                 .o = o,
                 .groups = 1,
                 .in = {1, side, side},
                 .out = {1, out, out},
                 .kernel = {1, kernel, kernel},
                 .stride = {1, stride, stride},
                 .dilation = {1, 1, 1},
                 .before = {0, kernel / 2, kernel / 2},
                 .x = b->room,
                 .w = &w,
                 .y = b->room + c * side * side + o * k};
    need_scratch(b, ay_conv_scratch(b->ex.isa, b->threads, &a));
    share(b, conv_run, &a, 2e-9 * (double)o * (double)k * (double)out * (double)out);
    printf("  %lld -> %lld at %lld x %lld, %lld x %lld, stride %lld\n", (long long)c, (long long)o, (long long)side,
           (long long)side, (long long)kernel, (long long)kernel, (long long)stride);
    fflush(stdout);
    if (c % 32 == 0 && o >= 16) {
        conv_i8_row(b, a, AY_I8);
        conv_i8_row(b, a, AY_I4);
    }
}

static void bench_conv(bench *b, bool quick) {
    printf("convolution (weights float16)\n");
    conv_row(b, 512, 512, 64, 3, 1);
    conv_row(b, 320, 320, 64, 3, 1);
    conv_row(b, 1280, 1280, 8, 3, 1);
    conv_row(b, 320, 320, 64, 3, 2);
    conv_row(b, 320, 640, 64, 1, 1);
    if (quick) return;
    conv_row(b, 256, 256, 256, 3, 1);
    conv_row(b, 128, 128, 512, 3, 1);
    conv_row(b, 128, 3, 512, 3, 1);
    conv_row(b, 16, 512, 64, 3, 1);
}

/* ---- what memory limits ------------------------------------------------------------------------------------------- */

enum {
    V_ADD,
    V_SILU,
    V_GELU,
    V_EXP,
    V_ROW_ADD,
    V_LAYER_NORM,
    V_GROUP_NORM,
    V_SOFTMAX,
    V_ROPE,
    V_HEADS,
    V_TURN,
    V_ROUND,
    V_SIN,
    V_KINDS
};
static const char *const vec_names[] = {"add",
                                        "silu",
                                        "gelu (tanh)",
                                        "exp",
                                        "add a row to rows",
                                        "layer norm, modulated",
                                        "group norm + silu",
                                        "softmax",
                                        "rope",
                                        "[L, H, D] to [H, L, D]",
                                        "[C, P] to [P, C]",
                                        "round to half",
                                        "sin"};
enum { ROWS = 2048, WIDTH = 3072 };

typedef struct vec {
    int kind;
} vec;

static void vec_run(bench *b, void *arg) {
    int64_t n = (int64_t)ROWS * WIDTH, over = 0;
    float *x = b->room, *y = x + n, *out = y + n, *row = out + n;
    ay_elt_args e = {.op = AY_ELT_ADD, .rank = 2, .dim = {ROWS, WIDTH}, .x = x, .xs = {WIDTH, 1}, .out = out};
    ay_norm norm = {.rows = ROWS,
                    .d = WIDTH,
                    .x = x,
                    .y = out,
                    .scale = row,
                    .shift = row + WIDTH,
                    .rows_per_mod = ROWS,
                    .mod_plus_one = true,
                    .eps = 1e-6};
    ay_group_norm_args g = {
        .n = 1, .c = 512, .s = n / 512, .groups = 32, .x = x, .w = row, .b = row, .y = out, .eps = 1e-6, .act = AY_ACT_SILU};
    ay_rope_args r = {.rank = 3,
                      .dim = {ROWS, 24, 128},
                      .x = x,
                      .cos = y,
                      .sin = y + ROWS * 128,
                      .xs = {WIDTH, 128, 1},
                      .cs = {128, 0, 1},
                      .interleaved = true,
                      .out = out};
    ay_copy_args heads = {
        .rank = 3, .dim = {24, ROWS, 128}, .x = x, .xs = {128, WIDTH, 1}, .y = out, .ys = {ROWS * 128, 128, 1}, .size = 4};
    ay_copy_args turn = {.rank = 2, .dim = {WIDTH, ROWS}, .x = x, .xs = {1, WIDTH}, .y = out, .ys = {ROWS, 1}, .size = 4};
    switch (((vec *)arg)->kind) {
    case V_ADD: e.y = y, e.ys[0] = WIDTH, e.ys[1] = 1, ay_elt_run(&b->ex, &e); break;
    case V_SILU: e.op = AY_ELT_SILU, ay_elt_run(&b->ex, &e); break;
    case V_GELU: e.op = AY_ELT_GELU_TANH, ay_elt_run(&b->ex, &e); break;
    case V_EXP: e.op = AY_ELT_EXP, ay_elt_run(&b->ex, &e); break;
    case V_SIN: e.op = AY_ELT_SIN, ay_elt_run(&b->ex, &e); break;
    case V_ROW_ADD: e.y = row, e.ys[1] = 1, ay_elt_run(&b->ex, &e); break;
    case V_LAYER_NORM: ay_norm_run(&b->ex, &norm); break;
    case V_GROUP_NORM: ay_group_norm_run(&b->ex, &g); break;
    case V_SOFTMAX: ay_softmax_run(&b->ex, ROWS, WIDTH, x, out); break;
    case V_ROPE: ay_rope_run(&b->ex, &r); break;
    case V_HEADS: ay_copy_run(&b->ex, &heads); break;
    case V_TURN: ay_copy_run(&b->ex, &turn); break;
    case V_ROUND: ay_round_f16_run(&b->ex, n, out, &over); break;
    default: break;
    }
}

static void bench_vec(bench *b) {
    int64_t n = (int64_t)ROWS * WIDTH;
    span s = {(char *)b->room, (char *)(b->room + n), (size_t)n * 4 / (size_t)(b->threads * 8) / 64 * 64};
    printf("what memory limits, on %d x %d numbers: share of copying as many bytes\n", ROWS, WIDTH);
    for (int kind = 0; kind < V_KINDS; kind++) {
        double ours[16], part[16], bytes = (double)n * (kind == V_ADD ? 12 : 8);
        vec v = {kind};
        for (int i = 0; i < b->pairs; i++) {
            ours[i] = once(b, vec_run, &v);
            part[i] = once(b, copy_run, &s) * bytes / (double)(2 * s.each * (size_t)(b->threads * 8)) / ours[i];
        }
        double t = median(ours, b->pairs);
        printf("  %9.3f ms %7.2f GB/s %4.0f %% of copying  %s\n", t * 1e3, bytes / t * 1e-9, 100 * median(part, b->pairs),
               vec_names[kind]);
    }
}

/* ---- set-up ------------------------------------------------------------------------------------------------------- */

/** What OpenBLAS makes of this processor by itself, in a process of its own since it decides while being loaded. */
static void blas_left_alone(bench *b) {
    fflush(stdout);
    pid_t child = fork();
    if (child != 0) {
        if (child > 0) waitpid(child, NULL, 0);
        return;
    }
    unsetenv("OPENBLAS_CORETYPE");
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    char *(*core)(void) = NULL;
    if (lib) *(void **)&b->sgemm = dlsym(lib, "cblas_sgemm"), *(void **)&core = dlsym(lib, "openblas_get_corename");
    if (b->sgemm && core) {
        ay_gemm g = {.m = 512, .n = 512, .k = 512, .a = b->room, .b = b->room + 512 * 512, .c = b->room + 2 * 512 * 512};
        printf("OpenBLAS left alone takes this processor for %s: %.1f GFLOP/s on one thread\n", core(),
               2e-9 * 512 * 512 * 512 / once(b, blas_run, &g));
        fflush(stdout);
    }
    _exit(0);
}

static void find_blas(bench *b) {
    setenv("OPENBLAS_CORETYPE", ay_isa_allows(b->ex.isa, AY_ISA_AVX512) ? "SkylakeX" : "Haswell", 0);
    char n[16];
    snprintf(n, sizeof n, "%d", b->threads);
    setenv("OPENBLAS_NUM_THREADS", n, 1);
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!lib) lib = dlopen("libopenblas.so", RTLD_NOW | RTLD_LOCAL);
    if (lib) *(void **)&b->sgemm = dlsym(lib, "cblas_sgemm");
    if (!b->sgemm) {
        printf("OpenBLAS is not installed: no comparison with it\n");
        return;
    }
    char *(*core)(void);
    *(void **)&core = dlsym(lib, "openblas_get_corename");
    printf("OpenBLAS runs its kernels for %s (OPENBLAS_CORETYPE=%s)\n", core ? core() : "?", getenv("OPENBLAS_CORETYPE"));
}

static void find_dnnl(bench *b) {
    static const char *const names[] = {"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"};
    char n[16];
    void *lib = NULL;
    snprintf(n, sizeof n, "%d", b->threads);
    setenv("OMP_NUM_THREADS", n, 1);
    for (int i = 0; i < 3 && !lib; i++) lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (lib) *(void **)&b->dnnl = dlsym(lib, "dnnl_sgemm"), *(void **)&b->dnnl_int = dlsym(lib, "dnnl_gemm_u8s8s32");
    if (!b->dnnl) printf("oneDNN is not installed (libdnnl-dev): no comparison with it\n");
}

int main(int argc, char **argv) {
    bench b = {.pairs = 5, .seconds = 0.02, .clock = CLOCK_MONOTONIC};
    bool quick = false;
    int threads = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) quick = true;
        else if (strncmp(argv[i], "--only=", 7) == 0) b.only = argv[i] + 7;
        else if (strncmp(argv[i], "--threads=", 10) == 0) threads = atoi(argv[i] + 10);
        else if (strcmp(argv[i], "--cpu-time") == 0) threads = 1, b.clock = CLOCK_PROCESS_CPUTIME_ID;
        else {
            fprintf(stderr, "bench_kernels [--quick] [--only=gemm|i8|attn|conv|vec] [--threads=N | --cpu-time]\n");
            return 2;
        }
    }
    const char *cap = getenv("ALLOY_ISA");
    if (quick) b.pairs = 3;
    b.ex.isa = ay_isa_best();
    if (cap && ay_isa_from_name(cap) >= 0 && ay_isa_runs((ay_isa)ay_isa_from_name(cap)))
        b.ex.isa = (ay_isa)ay_isa_from_name(cap);
    b.room_floats = (size_t)128 << 20;
    b.room = pages(b.room_floats * sizeof(float));
    fill(b.room, (int64_t)b.room_floats);
    blas_left_alone(&b); /* before there are threads */
    b.ex.pool = ay_pool_new(threads);
    b.threads = ay_pool_threads(b.ex.pool);
    find_blas(&b);
    find_dnnl(&b);
    ceilings(&b);
    if (!b.only || strcmp(b.only, "gemm") == 0) bench_gemm(&b, quick);
    if (!b.only || strcmp(b.only, "i8") == 0) bench_i8(&b, quick);
    if (!b.only || strcmp(b.only, "attn") == 0) bench_attn(&b, quick);
    if (!b.only || strcmp(b.only, "conv") == 0) bench_conv(&b, quick);
    if (!b.only || strcmp(b.only, "vec") == 0) bench_vec(&b);
    ay_pool_free(b.ex.pool);
    return 0;
}
