/* SPDX-License-Identifier: MIT
 *
 * Windows over space: convolution (the kernel's driver), transposed convolution, pooling and upsampling (plain loops, one
 * channel a tile). 1, 2 or 3 spatial dims; missing leading ones are 1.
 */
#include "cpu/plan.h"

#include <math.h>
#include <string.h>

/* The spatial dims of t (from axis 2) in the last places of three. */
static void spatial(const int64_t *dim, int rank, int64_t out[3]) {
    for (int i = 0; i < 3; i++) out[i] = i < 5 - rank ? 1 : dim[i - (5 - rank) + 2];
}

static void attr3(const int64_t *from, int rank, int64_t missing, int64_t out[3]) {
    for (int i = 0; i < 3; i++) out[i] = i < 5 - rank ? missing : from[i - (5 - rank)];
}

typedef struct conv_args {
    ay_conv c;
    ay_weight w;
    bool has_w, int8; /* int8: x is the quantised picture */
    ay_ref x, wf, bias, residual, y;
} conv_args;

static alloy_status run_conv(ay_run *r, const ay_step *s) {
    const conv_args *p = s->args;
    ay_conv c = p->c;
    c.x = ay_at(r, p->x);
    c.w = p->has_w ? &p->w : NULL;
    c.wf = ay_at(r, p->wf);
    c.bias = ay_at(r, p->bias);
    c.residual = ay_at(r, p->residual);
    c.y = ay_at(r, p->y);
    if (p->int8) ay_conv_i8_run(&r->ex, &c, c.x);
    else ay_conv_run(&r->ex, &c);
    return ALLOY_OK;
}

static void conv_shape(const ay_node *n, const ay_view *x, const ay_type *w, ay_conv *c) {
    int rank = x->rank;
    c->n = x->dim[0];
    c->c = x->dim[1];
    c->o = n->type.dim[1];
    c->groups = n->attr.conv.groups;
    spatial(x->dim, rank, c->in);
    spatial(n->type.dim, rank, c->out);
    spatial(w->dim, rank, c->kernel);
    attr3(n->attr.conv.stride, rank, 1, c->stride);
    attr3(n->attr.conv.dilation, rank, 1, c->dilation);
    attr3(n->attr.conv.before, rank, 0, c->before);
}

static alloy_status optional(ay_plan *pl, ay_val v, ay_view *out) {
    out->buf = -1;
    return v == AY_NO_VALUE ? ALLOY_OK : ay_plan_dense(pl, v, out);
}

/* Operands of conv and conv_transpose. */
static alloy_status conv_operands(ay_plan *pl, const ay_fused *f, conv_args *a, ay_view v[5]) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    AY_TRY(ay_plan_dense(pl, n->in[0], &v[0]));
    v[1].buf = -1;
    a->has_w = ay_plan_weight(pl, n->in[1], &a->w);
    if (!a->has_w) AY_TRY(ay_plan_dense(pl, n->in[1], &v[1]));
    AY_TRY(optional(pl, n->n_in > 2 ? n->in[2] : f->bias, &v[2]));
    AY_TRY(optional(pl, f->residual, &v[3]));
    AY_TRY(ay_plan_out(pl, f, &v[4]));
    conv_shape(n, &v[0], ay_type_of(pl->g, n->in[1]), &a->c);
    a->c.act = f->act;
    return ALLOY_OK;
}

static ay_step *add_conv(ay_plan *pl, ay_step_fn run, const conv_args *a, const ay_view v[5]) {
    ay_step *s = ay_step_add(pl, run, a, sizeof *a);
    if (!s) return NULL;
    conv_args *p = (conv_args *)s->args;
    p->x = ay_step_read(s, &v[0]);
    p->wf = ay_step_read(s, &v[1]);
    p->bias = ay_step_read(s, &v[2]);
    /* sums may begin with the residual, unless an activation stands between */
    p->residual = run == run_conv && p->c.act == AY_ACT_NONE ? ay_step_read_inplace(s, &v[3]) : ay_step_read(s, &v[3]);
    p->y = ay_step_write(s, &v[4]);
    if (p->has_w) {
        p->c.w = &p->w;
        ay_step_weight(s, &p->w);
    }
    const ay_conv *c = &p->c;
    double taps = (double)(c->kernel[0] * c->kernel[1] * c->kernel[2]);
    *ay_step_ops(s, p->int8 ? &p->w : NULL) = 2 * taps * (double)(c->c / c->groups) * (double)ay_view_count(&v[4]);
    s->bytes = 4.0 * (double)(c->n * c->c * c->in[0] * c->in[1] * c->in[2] + ay_view_count(&v[4])) +
               4 * taps * (double)(c->o * c->c / c->groups);
    ay_step_what(pl, s, "%s %lldx%lldx%lld %lld->%lld to %lldx%lldx%lld%s", s->what, (long long)c->kernel[0],
                 (long long)c->kernel[1], (long long)c->kernel[2], (long long)c->c, (long long)c->o, (long long)c->out[0],
                 (long long)c->out[1], (long long)c->out[2], p->int8 ? " in int8" : "");
    return s;
}

/* Quantises x where the convolution can be done in integers. */
static alloy_status quantise(ay_plan *pl, const ay_fused *f, conv_args *a, ay_view v[5]) {
    ay_conv c = a->c;
    c.w = &a->w;
    if (!pl->int8 || !a->has_w || !ay_conv_i8_can(&c) || !ay_i8_is_accurate(&a->w)) return ALLOY_OK;
    ay_a8_form form = {.picture = 1, .m = c.n, .k = c.c, .plane = c.in[0] * c.in[1] * c.in[2],
                       .tolerance = (double)ay_i8_tolerance(&a->w)};
    ay_view x = v[0];
    a->int8 = true;
    return ay_plan_a8(pl, ay_plan_node(pl, f->anchor)->in[0], &x, &form, &v[0]);
}

alloy_status ay_build_conv(ay_plan *pl, const ay_fused *f) {
    if (f->before != AY_NO_VALUE) return ay_build_band(pl, f);
    conv_args a = {0};
    ay_view v[5];
    AY_TRY(conv_operands(pl, f, &a, v));
    AY_TRY(quantise(pl, f, &a, v));
    ay_step *s = add_conv(pl, run_conv, &a, v);
    if (!s) return ay_nomem(pl->cx);
    static const float there;
    ay_conv sized = ((const conv_args *)s->args)->c;
    if (!a.has_w) sized.wf = &there; /* the driver asks only whether the weight is a computed one */
    if (a.int8) return ay_step_scratch(pl, s, ay_conv_i8_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &sized));
    return ay_step_scratch(pl, s, ay_conv_scratch((ay_isa)pl->cx->isa, ay_plan_threads(pl), &sized));
}

/* ---- transposed convolution -------------------------------------------------------------------------------------- */

typedef struct transpose_job {
    const ay_conv *c;
    const float *w, *x, *bias;
    float *y;
} transpose_job;

/* The sum that reaches output place p from input channels of its group: w [C, O/groups, K]. */
static float gather_taps(const transpose_job *j, int64_t n, int64_t o, const int64_t p[3]) {
    const ay_conv *c = j->c;
    int64_t cg = c->c / c->groups, og = c->o / c->groups, g = o / og;
    int64_t pixels = c->in[0] * c->in[1] * c->in[2], taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
    double sum = 0;
    for (int64_t t = 0; t < taps; t++) {
        int64_t k[3] = {t / c->kernel[2] / c->kernel[1], t / c->kernel[2] % c->kernel[1], t % c->kernel[2]}, at = 0;
        bool hit = true;
        for (int d = 0; d < 3 && hit; d++) {
            int64_t q = p[d] + c->before[d] - k[d] * c->dilation[d];
            hit = q >= 0 && q % c->stride[d] == 0 && q / c->stride[d] < c->in[d];
            at = at * c->in[d] + q / c->stride[d];
        }
        if (!hit) continue;
        for (int64_t i = g * cg; i < (g + 1) * cg; i++)
            sum += (double)j->x[(n * c->c + i) * pixels + at] * j->w[(i * og + o % og) * taps + t];
    }
    return (float)(sum + (j->bias ? j->bias[o] : 0));
}

/* One row of the innermost dim a tile. */
static void transpose_tile(void *arg, int64_t tile, int thread) {
    const transpose_job *j = arg;
    const ay_conv *c = j->c;
    int64_t row = tile % (c->out[0] * c->out[1]), plane = tile / (c->out[0] * c->out[1]);
    for (int64_t i = 0; i < c->out[2]; i++)
        j->y[tile * c->out[2] + i] =
            gather_taps(j, plane / c->o, plane % c->o, (int64_t[]){row / c->out[1], row % c->out[1], i});
}

static alloy_status run_transpose(ay_run *r, const ay_step *s) {
    const conv_args *p = s->args;
    transpose_job j = {&p->c, ay_at(r, p->wf), ay_at(r, p->x), ay_at(r, p->bias), ay_at(r, p->y)};
    ay_parallel(r->ex.pool, p->c.n * p->c.o * p->c.out[0] * p->c.out[1], transpose_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

alloy_status ay_build_conv_transpose(ay_plan *pl, const ay_fused *f) {
    conv_args a = {0};
    ay_view v[5];
    AY_TRY(conv_operands(pl, f, &a, v));
    a.has_w = false; /* read taps out of order: as numbers */
    AY_TRY(ay_plan_dense(pl, ay_plan_node(pl, f->anchor)->in[1], &v[1]));
    return add_conv(pl, run_transpose, &a, v) ? ALLOY_OK : ay_nomem(pl->cx);
}

/* ---- pooling ----------------------------------------------------------------------------------------------------- */

typedef struct pool_args {
    int64_t planes, in[3], out[3], kernel[3], stride[3], before[3], after[3];
    bool average, count_padding;
    ay_ref x, y;
} pool_args;

typedef struct pool_job {
    const pool_args *a;
    const float *x;
    float *y;
} pool_job;

static float pool_window(const pool_args *a, const float *x, const int64_t p[3]) {
    int64_t lo[3], hi[3], size = 1, real = 1;
    for (int d = 0; d < 3; d++) {
        int64_t b = p[d] * a->stride[d] - a->before[d], e = b + a->kernel[d];
        size *= ay_min_i64(e, a->in[d] + a->after[d]) - b;
        lo[d] = ay_max_i64(b, 0);
        hi[d] = ay_min_i64(e, a->in[d]);
        real *= hi[d] - lo[d];
    }
    double sum = 0, top = -INFINITY;
    for (int64_t i = lo[0]; i < hi[0]; i++)
        for (int64_t k = lo[1]; k < hi[1]; k++)
            for (int64_t l = lo[2]; l < hi[2]; l++) {
                double v = x[(i * a->in[1] + k) * a->in[2] + l];
                sum += v;
                if (v > top || v != v) top = v;
            }
    if (!a->average) return (float)top;
    return (float)(sum / (double)(a->count_padding ? size : real));
}

static void pool_tile(void *arg, int64_t tile, int thread) {
    const pool_job *j = arg;
    const pool_args *a = j->a;
    int64_t plane = tile / (a->out[0] * a->out[1]), row = tile % (a->out[0] * a->out[1]);
    for (int64_t i = 0; i < a->out[2]; i++)
        j->y[tile * a->out[2] + i] = pool_window(a, j->x + plane * a->in[0] * a->in[1] * a->in[2],
                                                 (int64_t[]){row / a->out[1], row % a->out[1], i});
}

static alloy_status run_pool(ay_run *r, const ay_step *s) {
    const pool_args *a = s->args;
    pool_job j = {a, ay_at(r, a->x), ay_at(r, a->y)};
    ay_parallel(r->ex.pool, a->planes * a->out[0] * a->out[1], pool_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

alloy_status ay_build_pool(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view x, y;
    AY_TRY(ay_plan_dense(pl, n->in[0], &x));
    AY_TRY(ay_plan_out(pl, f, &y));
    pool_args a = {
        .planes = x.dim[0] * x.dim[1], .average = n->attr.pool.average, .count_padding = n->attr.pool.count_padding};
    spatial(x.dim, x.rank, a.in);
    spatial(y.dim, x.rank, a.out);
    attr3(n->attr.pool.kernel, x.rank, 1, a.kernel);
    attr3(n->attr.pool.stride, x.rank, 1, a.stride);
    attr3(n->attr.pool.before, x.rank, 0, a.before);
    attr3(n->attr.pool.after, x.rank, 0, a.after);
    ay_step *s = ay_step_add(pl, run_pool, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((pool_args *)s->args)->x = ay_step_read(s, &x);
    ((pool_args *)s->args)->y = ay_step_write(s, &y);
    s->bytes = 4.0 * (double)(ay_view_count(&x) + ay_view_count(&y));
    return ALLOY_OK;
}
