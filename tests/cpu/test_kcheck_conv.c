/* SPDX-License-Identifier: MIT
 *
 * kcheck of convolution: kernels, strides, dilations, paddings (also uneven, also wider than the picture), groups, one to
 * three dimensions, pictures narrower and wider than a panel, channels with room between them, sums onto the residual; the direct
 * product and, where it can be, Winograd's method.
 */
#include "kcheck.h"

typedef struct problem {
    ay_conv c;
    ay_weight w;
    double *want, *bound;
    double (*v)[36], (*u)[36]; /* Winograd: bounds of what is transformed */
    int64_t y_count;
    bool whole, onto; /* onto: y holds the residual before */
    int64_t x_plane, y_plane;
} problem;

static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

/* Absolute values of the transformations' matrices: sums of them bound what a pixel of a tile adds to each of its results. */
static const double wino_b[6][6] = {{1.265625, 0, 2.8125, 0, 1, 0}, {0, 1.6875, 2.25, .75, 1, 0}, {0, 1.6875, 2.25, .75, 1, 0},
                                    {0, .84375, .5625, 1.5, 1, 0}, {0, .84375, .5625, 1.5, 1, 0}, {0, 1.265625, 0, 2.8125, 0, 1}};
static const double wino_g[6][3] = {{1 / 1.265625, 0, 0}, {128 / 243., 96 / 243., 72 / 243.}, {128 / 243., 96 / 243., 72 / 243.},
                                    {32 / 243., 48 / 243., 72 / 243.}, {32 / 243., 48 / 243., 72 / 243.}, {0, 0, 1}};
static const double wino_a[4][6] = {{1, 1, 1, 1, 1, 0}, {0, .75, .75, 1.5, 1.5, 0}, {0, .5625, .5625, 2.25, 2.25, 0},
                                    {0, .421875, .421875, 3.375, 3.375, 1}};

/* out [rows][..] = |m| in |m|', m [6][n], in [n][n]. */
static void wino_abs(const double *m, int n, const double *in, double out[36]) {
    for (int i = 0; i < 36; i++) {
        out[i] = 0;
        for (int k = 0; k < n * n; k++) out[i] += m[i / 6 * n + k / n] * m[i % 6 * n + k % n] * in[k];
    }
}

/* |v| <= B'|d|B of each tile and channel, |u| <= G|g|G' of each pair of channels. */
static void wino_bounds(problem *p, const float *w) {
    const ay_conv *c = &p->c;
    int64_t down = ay_div_up(c->out[1], 4), across = ay_div_up(c->out[2], 4);
    p->v = malloc((size_t)(c->n * down * across * c->c) * sizeof *p->v);
    p->u = malloc((size_t)(c->o * c->c) * sizeof *p->u);
    for (int64_t i = 0; i < c->n * down * across * c->c; i++) {
        int64_t ch = i % c->c, tile = i / c->c, n = tile / across / down;
        double d[36];
        for (int k = 0; k < 36; k++) {
            int64_t y = tile / across % down * 4 + k / 6 - c->before[1], x = tile % across * 4 + k % 6 - c->before[2];
            bool in = y >= 0 && y < c->in[1] && x >= 0 && x < c->in[2];
            d[k] = in ? fabs((double)c->x[(n * c->c + ch) * p->x_plane + y * c->in[2] + x]) : 0;
        }
        wino_abs(&wino_b[0][0], 6, d, p->v[i]);
    }
    for (int64_t i = 0; i < c->o * c->c; i++) {
        double g[9];
        for (int k = 0; k < 9; k++) g[k] = fabs((double)w[i * 9 + k]);
        wino_abs(&wino_g[0][0], 3, g, p->u[i]);
    }
}

/* Each product goes into the sum with |A'| |A|, and a rounding error is at most so large times its count: one a channel and
 * at most 6 in each of the three transformations. */
static double wino_bound(const problem *p, int64_t n, int64_t o, const int64_t at[3]) {
    const ay_conv *c = &p->c;
    int64_t down = ay_div_up(c->out[1], 4), across = ay_div_up(c->out[2], 4);
    int64_t tile = (n * down + at[1] / 4) * across + at[2] / 4;
    double all = 0;
    for (int64_t ch = 0; ch < c->c; ch++) {
        for (int i = 0; i < 36; i++)
            all += wino_a[at[1] % 4][i / 6] * wino_a[at[2] % 4][i % 6] * p->u[o * c->c + ch][i] * p->v[tile * c->c + ch][i];
    }
    return KC_EPS * ((double)c->c + 18) * all;
}

static void reference_pixel(problem *p, int64_t n, int64_t o, int64_t pixel, const float *row) {
    const ay_conv *c = &p->c;
    int64_t cg = c->c / c->groups, g = o / (c->o / c->groups), to = (n * c->o + o) * p->y_plane + pixel;
    int64_t at[3] = {pixel / c->out[2] / c->out[1], pixel / c->out[2] % c->out[1], pixel % c->out[2]};
    double sum = 0, size = 0;
    for (int64_t ch = 0; ch < cg; ch++) {
        const float *x = c->x + (n * c->c + g * cg + ch) * p->x_plane;
        for (int64_t t = 0; t < volume(c->kernel); t++) {
            int64_t k[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1], t % c->kernel[2]}, in[3];
            bool ok = true;
            for (int d = 0; d < 3; d++) {
                in[d] = at[d] * c->stride[d] + k[d] * c->dilation[d] - c->before[d];
                ok = ok && in[d] >= 0 && in[d] < c->in[d];
            }
            double v =
                ok ? (double)x[(in[0] * c->in[1] + in[1]) * c->in[2] + in[2]] * (double)row[ch * volume(c->kernel) + t] : 0;
            sum += v;
            size += fabs(v);
        }
    }
    if (c->bias) sum += (double)c->bias[o], size += fabs((double)c->bias[o]);
    double v = kc_act(c->act, sum), bound = KC_EPS * 1.2 * ((double)(cg * volume(c->kernel)) + 12) * size;
    if (c->how != AY_CONV_DIRECT) bound = wino_bound(p, n, o, at);
    if (c->act != AY_ACT_NONE) bound += KC_EPS * (12 * fabs(v) + 4 * (1 + size));
    if (c->residual) v += (double)c->residual[to];
    p->want[to] = v;
    p->bound[to] = p->whole && c->act == AY_ACT_NONE && c->how == AY_CONV_DIRECT ? 0 : bound + KC_EPS * 2 * fabs(v);
}

static void run_all(problem *p, const char *what) {
    ay_isa levels[AY_ISA_COUNT];
    int n = kc_levels(levels);
    float *first = malloc((size_t)p->y_count * sizeof *first);
    for (int i = 0; i < n * KC_THREADS; i++) {
        ay_isa isa = levels[i / KC_THREADS];
        int t = i % KC_THREADS + 1, mark = kc.n;
        size_t bytes = ay_conv_scratch(isa, t, &p->c);
        p->c.y = kc_floats(p->y_count);
        ay_exec ex = {kc.pool[t], isa, NULL, kc_scratch(bytes), bytes};
        memset(ex.scratch, 0xff, bytes);
        for (int64_t e = 0; e < p->y_count; e++) p->c.y[e] = p->c.residual ? p->c.residual[e] : -77;
        ay_conv c = p->c;
        if (p->onto) c.residual = c.y;
        ay_conv_run(&ex, &c);
        for (int64_t e = 0; e < p->y_count && t == 1; e++) kc_near(what, isa, e, p->want[e], p->c.y[e], p->bound[e]);
        if (t == 1) memcpy(first, p->c.y, (size_t)p->y_count * sizeof *first);
        else kc_same(what, isa, t, first, p->c.y, p->y_count);
        kc_done();
        kc.n = mark;
    }
    free(first);
}

static float value(bool whole) { return whole ? (float)kc_between(-3, 3) : kc_real(); }

/** Output sizes and `before` are set by the caller; weights come as float32, float16 or a computed value by chance. */
static void problem_run(ay_conv c) {
    if (kc_left_out()) return;
    static const int hows[] = {AY_CONV_DIRECT, AY_CONV_WINO_SLAB, AY_CONV_WINO_FEW};
    problem p = {.c = c, .whole = kc_coin(), .x_plane = volume(c.in), .y_plane = volume(c.out)};
    if (kc_coin()) p.c.x_plane = p.x_plane += kc_between(0, 9);
    if (kc_coin()) p.c.y_plane = p.y_plane += kc_between(0, 9);
    int64_t k = c.c / c.groups * volume(c.kernel), nx = (c.n * c.c - 1) * p.x_plane + volume(c.in);
    p.y_count = (c.n * c.o - 1) * p.y_plane + volume(c.out);
    float *x = kc_floats(nx), *w = kc_floats(c.o * k), *seen = malloc((size_t)(c.o * k) * sizeof *seen);
    for (int64_t i = 0; i < nx; i++) x[i] = value(p.whole);
    for (int64_t i = 0; i < c.o * k; i++) seen[i] = w[i] = value(p.whole);
    p.c.x = x;
    p.w = (ay_weight){
        .store = AY_STORE_PLAIN, .rank = 2, .dim = {c.o, k}, .value_dtype = AY_F32, .data_dtype = AY_F32, .data = w};
    if (kc_coin()) {
        uint16_t *h = kc_bytes((size_t)(c.o * k) * 2);
        for (int64_t i = 0; i < c.o * k; i++) seen[i] = ay_f16_to_f32(h[i] = ay_f32_to_f16(w[i]));
        p.w.data_dtype = AY_F16;
        p.w.data = h;
    }
    if (p.w.data_dtype == AY_F32 && kc_coin()) p.c.wf = w;
    else p.c.w = &p.w;
    if (kc_coin()) p.c.bias = kc_matrix(1, c.o, c.o, p.whole);
    if (kc_coin()) p.c.residual = kc_matrix(1, p.y_count, p.y_count, p.whole);
    if (kc_coin()) p.c.act = (ay_act)kc_between(0, AY_ACT_TANH);
    p.c.how = !ay_wino_can(&c) ? AY_CONV_DIRECT : hows[kc_between(0, 2)];
    if (p.c.how != AY_CONV_DIRECT) wino_bounds(&p, seen);
    p.onto = p.c.residual && p.c.act == AY_ACT_NONE && kc_coin();
    p.want = calloc((size_t)p.y_count, sizeof *p.want);
    p.bound = calloc((size_t)p.y_count, sizeof *p.bound);
    for (int64_t i = 0; i < p.y_count; i++) {
        int64_t o = i / p.y_plane % c.o;
        if (i % p.y_plane < volume(c.out)) reference_pixel(&p, i / p.y_plane / c.o, o, i % p.y_plane, seen + o * k);
        else p.want[i] = p.c.residual ? (double)p.c.residual[i] : -77; /* between the channels nothing is touched */
    }
    char what[220];
    snprintf(what, sizeof what, "%s n=%d c=%d o=%d groups=%d in=%dx%dx%d kernel=%dx%dx%d stride=%d,%d,%d before=%d,%d,%d",
             p.c.how == AY_CONV_DIRECT ? "conv" : p.c.how == AY_CONV_WINO_FEW ? "Winograd's conv of few tiles" : "Winograd's conv", (int)c.n, (int)c.c, (int)c.o, (int)c.groups, (int)c.in[0], (int)c.in[1], (int)c.in[2], (int)c.kernel[0],
             (int)c.kernel[1], (int)c.kernel[2], (int)c.stride[0], (int)c.stride[1], (int)c.stride[2], (int)c.before[0],
             (int)c.before[1], (int)c.before[2]);
    run_all(&p, what);
    kc_done();
    free(seen);
    free(p.want);
    free(p.bound);
    free(p.v);
    free(p.u);
}

/** A convolution over the last `dims` dimensions, the rest by chance; widths of the picture as given. */
static ay_conv any(int dims, int64_t width, int64_t kernel) {
    int64_t groups = kc_coin() ? 1 : kc_between(1, 4);
    ay_conv c = {.n = kc_between(1, 2), .c = groups * kc_between(1, 5), .o = groups * kc_between(1, 9), .groups = groups};
    for (int d = 0; d < 3; d++) {
        bool used = d >= 3 - dims;
        c.in[d] = !used ? 1 : d == 2 ? width : kc_between(1, 9);
        c.kernel[d] = !used ? 1 : d == 2 ? kernel : kc_between(1, 3);
        c.stride[d] = used && kc_coin() ? kc_between(1, 3) : 1;
        c.dilation[d] = used && kc_coin() ? kc_between(1, 3) : 1;
        c.before[d] = used ? kc_between(0, 4) : 0;
        int64_t after = used ? kc_between(0, 4) : 0, reach = (c.kernel[d] - 1) * c.dilation[d] + 1;
        while (c.in[d] + c.before[d] + after < reach) after++;
        c.out[d] = (c.in[d] + c.before[d] + after - reach) / c.stride[d] + 1;
    }
    return c;
}

static void test_sizes(void **state) {
    for (int64_t s = 1; s <= 70; s++) {
        for (int dims = 1; dims <= 3; dims++) problem_run(any(dims, s, kc_between(1, 5)));
    }
}

static ay_conv square(int64_t c, int64_t o, int64_t side, int64_t kernel, int64_t stride, int64_t before) {
    int64_t out = (side + 2 * before - kernel) / stride + 1;
    return (ay_conv){.n = 1,
                     .c = c,
                     .o = o,
                     .groups = 1,
                     .in = {1, side, side},
                     .out = {1, out, out},
                     .kernel = {1, kernel, kernel},
                     .stride = {1, stride, stride},
                     .dilation = {1, 1, 1},
                     .before = {0, before, before}};
}

/* Winograd's method or not by chance: tiles that end inside, slabs and jobs of several kinds, two pictures, any padding. */
static void test_three_by_three(void **state) {
    for (int64_t s = 1; s <= 70; s += kc_between(1, 3)) {
        ay_conv c = {.n = kc_between(1, 3), .c = kc_between(1, 36), .o = kc_between(1, 20), .groups = 1, .in = {1, kc_between(1, 20), s},
                     .kernel = {1, 3, 3}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .before = {0, kc_between(0, 3), kc_between(0, 3)}};
        c.out[0] = 1;
        for (int d = 1; d < 3; d++) c.out[d] = ay_max_i64(1, c.in[d] + c.before[d] + kc_between(0, 3) - 2);
        problem_run(c);
    }
}

static void test_shapes_of_models(void **state) {
    problem_run(square(48, 40, 33, 3, 1, 1)); /* several passes over k, panels across rows */
    problem_run(square(96, 30, 32, 1, 1, 0));
    problem_run(square(3, 70, 32, 3, 1, 1));
    problem_run(square(64, 3, 40, 3, 1, 1));
    problem_run(square(3, 40, 56, 14, 14, 0)); /* patches */
    problem_run(square(20, 24, 31, 3, 2, 1));
    ay_conv c = square(36, 36, 17, 3, 1, 1);
    c.groups = 36;
    problem_run(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_three_by_three), cmocka_unit_test(test_shapes_of_models)};
    kc_start(3);
    int failed = cmocka_run_group_tests_name("kcheck convolution", tests, NULL, NULL);
    kc_end();
    return failed;
}
