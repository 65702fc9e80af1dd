/* SPDX-License-Identifier: MIT
 *
 * Reference evaluation: products, convolutions, pooling. Every output element is one sum in double, in the order of the
 * formula; the loops keep the output's row innermost so that tests on real shapes stay bearable.
 */
#include "ir/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- matmul: one product [m, k] x [k, n] with any strides ---------------------------------------------------------- */

typedef struct product {
    int64_t m, n, k;
    int64_t xm, xk, yk, yn; /* strides */
} product;

static void multiply_f(const product *p, const float *x, const float *y, float *out, double *acc) {
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) acc[j] = 0;
        for (int64_t k = 0; k < p->k; k++) {
            double a = x[i * p->xm + k * p->xk];
            const float *row = y + k * p->yk;
            for (int64_t j = 0; j < p->n; j++) acc[j] += a * row[j * p->yn];
        }
        for (int64_t j = 0; j < p->n; j++) out[i * p->n + j] = (float)acc[j];
    }
}

static void multiply_i(const product *p, const int32_t *x, const int32_t *y, int32_t *out) {
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            uint32_t acc = 0;
            for (int64_t k = 0; k < p->k; k++)
                acc += (uint32_t)x[i * p->xm + k * p->xk] * (uint32_t)y[k * p->yk + j * p->yn];
            out[i * p->n + j] = (int32_t)acc;
        }
    }
}

/* The leading dims of t as a shape of elements `step` apart: walk operand strides over matrices. */
static void add_batches(ay_walk *w, const ay_type *t) {
    int64_t stride[AY_MAX_RANK];
    int slot = w->operands++, lead = t->rank - 2;
    ay_row_strides(t, stride);
    for (int i = 0; i < lead; i++) w->stride[slot][i + w->rank - lead] = t->dim[i] == 1 ? 0 : stride[i];
}

alloy_status ay_eval_matmul(const ay_call *c) {
    const ay_array *x = c->in[0], *y = c->in[1];
    const ay_type *tx = &x->type, *ty = &y->type;
    bool ta = c->n->attr.matmul.ta, tb = c->n->attr.matmul.tb;
    int64_t xc = tx->dim[tx->rank - 1], yc = ty->dim[ty->rank - 1];
    ay_type batch = c->out->type;
    product p = {.m = batch.dim[batch.rank - 2], .n = batch.dim[batch.rank - 1], .k = ta ? tx->dim[tx->rank - 2] : xc};
    p.xm = ta ? 1 : xc;
    p.xk = ta ? xc : 1;
    p.yk = tb ? 1 : yc;
    p.yn = tb ? yc : 1;
    double *acc = malloc((size_t)p.n * sizeof *acc);
    if (!acc) return ay_nomem(c->cx);
    batch.rank -= 2;
    ay_walk w;
    ay_walk_start(&w, &batch);
    add_batches(&w, tx);
    add_batches(&w, ty);
    int64_t batches = ay_type_count(&batch);
    for (int64_t b = 0; b < batches; b++, ay_walk_next(&w)) {
        int64_t to = b * p.m * p.n;
        if (ay_dtype_is_float(tx->dtype))
            multiply_f(&p, ay_f(x) + w.offset[0], ay_f(y) + w.offset[1], ay_f(c->out) + to, acc);
        else multiply_i(&p, ay_i(x) + w.offset[0], ay_i(y) + w.offset[1], ay_i(c->out) + to);
    }
    free(acc);
    return ALLOY_OK;
}

/* x [rows, K] times w [N, K] transposed, plus bias */
alloy_status ay_eval_linear(const ay_call *c) {
    int64_t n = c->in[1]->type.dim[0], k = c->in[1]->type.dim[1];
    product p = {.m = 1, .n = n, .k = k, .xm = k, .xk = 1, .yk = 1, .yn = k};
    double *acc = malloc((size_t)n * sizeof *acc);
    if (!acc) return ay_nomem(c->cx);
    for (int64_t i = 0; i < c->out->count / n; i++) {
        float *out = ay_f(c->out) + i * n;
        for (int64_t j = 0; j < n; j++) {
            const float *x = ay_f(c->in[0]) + i * p.xm, *w = ay_f(c->in[1]) + j * p.yn;
            acc[j] = c->n->n_in > 2 ? ay_f(c->in[2])[j] : 0;
            for (int64_t q = 0; q < k; q++) acc[j] += (double)x[q] * w[q];
        }
        for (int64_t j = 0; j < n; j++) out[j] = (float)acc[j];
    }
    free(acc);
    return ALLOY_OK;
}

/* ---- windows: everything as three spatial dims, missing ones of size 1 --------------------------------------------- */

typedef struct window {
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], before[3];
} window;

static window window_of(const ay_call *c, const int64_t *kernel) {
    const ay_type *x = &c->in[0]->type, *y = &c->out->type;
    window w;
    int spatial = ay_spatial(x);
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - spatial);
        bool real = from >= 0;
        w.in[i] = real ? x->dim[2 + from] : 1;
        w.out[i] = real ? y->dim[2 + from] : 1;
        w.kernel[i] = real ? kernel[from] : 1;
        bool pool = c->n->op == AY_OP_POOL;
        w.stride[i] = !real ? 1 : pool ? c->n->attr.pool.stride[from] : c->n->attr.conv.stride[from];
        w.dilation[i] = !real || pool ? 1 : c->n->attr.conv.dilation[from];
        w.before[i] = !real ? 0 : pool ? c->n->attr.pool.before[from] : c->n->attr.conv.before[from];
    }
    return w;
}

static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

/* Output positions lo .. hi - 1 of dim d whose tap k falls inside the input. */
static void reach(const window *w, int d, int64_t k, int64_t *lo, int64_t *hi) {
    int64_t shift = k * w->dilation[d] - w->before[d]; /* input = output * stride + shift */
    *lo = shift >= 0 ? 0 : ay_div_up(-shift, w->stride[d]);
    *hi = w->in[d] - shift <= 0 ? 0 : ay_min_i64(w->out[d], ay_div_up(w->in[d] - shift, w->stride[d]));
}

/* acc [out] += tap (kd, kh, kw) of one channel: x [in] times the weight v. */
static void conv_tap(const window *w, const int64_t k[3], const float *x, double v, double *acc) {
    int64_t lo[3], hi[3];
    for (int d = 0; d < 3; d++) reach(w, d, k[d], &lo[d], &hi[d]);
    int64_t shift = k[2] * w->dilation[2] - w->before[2];
    for (int64_t a = lo[0]; a < hi[0]; a++) {
        int64_t ia = a * w->stride[0] + k[0] * w->dilation[0] - w->before[0];
        for (int64_t b = lo[1]; b < hi[1]; b++) {
            int64_t ib = b * w->stride[1] + k[1] * w->dilation[1] - w->before[1];
            const float *from = x + (ia * w->in[1] + ib) * w->in[2];
            double *to = acc + (a * w->out[1] + b) * w->out[2];
            for (int64_t i = lo[2]; i < hi[2]; i++) to[i] += v * from[i * w->stride[2] + shift];
        }
    }
}

static void for_taps(const window *w, const float *x, const float *weight, double *acc,
                     void (*tap)(const window *, const int64_t *, const float *, double, double *)) {
    int64_t k[3];
    for (k[0] = 0; k[0] < w->kernel[0]; k[0]++) {
        for (k[1] = 0; k[1] < w->kernel[1]; k[1]++) {
            for (k[2] = 0; k[2] < w->kernel[2]; k[2]++) tap(w, k, x, *weight++, acc);
        }
    }
}

static void finish_plane(const ay_call *c, int64_t channel, const double *acc, int64_t size, float *out) {
    double bias = c->n->n_in > 2 ? ay_f(c->in[2])[channel] : 0;
    for (int64_t i = 0; i < size; i++) out[i] = (float)(acc[i] + bias);
}

alloy_status ay_eval_conv(const ay_call *c) {
    const ay_type *x = &c->in[0]->type, *wt = &c->in[1]->type;
    window w = window_of(c, wt->dim + 2);
    int64_t in = volume(w.in), out = volume(w.out), taps = volume(w.kernel);
    int64_t per_group = wt->dim[1], outs = wt->dim[0], group_outs = outs / c->n->attr.conv.groups;
    double *acc = malloc((size_t)out * sizeof *acc);
    if (!acc) return ay_nomem(c->cx);
    for (int64_t plane = 0; plane < x->dim[0] * outs; plane++) {
        int64_t batch = plane / outs, o = plane % outs, first = o / group_outs * per_group;
        if (ay_stopped(c->cx)) break;
        memset(acc, 0, (size_t)out * sizeof *acc);
        for (int64_t q = 0; q < per_group; q++) {
            const float *from = ay_f(c->in[0]) + (batch * x->dim[1] + first + q) * in;
            for_taps(&w, from, ay_f(c->in[1]) + (o * per_group + q) * taps, acc, conv_tap);
        }
        finish_plane(c, o, acc, out, ay_f(c->out) + plane * out);
    }
    free(acc);
    return ay_check_stop(c->cx);
}

/* The tap of a transposed convolution: input position i adds to output i * stride + k * dilation - crop. */
static void transpose_tap(const window *w, const int64_t k[3], const float *x, double v, double *acc) {
    for (int64_t a = 0; a < w->in[0]; a++) {
        int64_t oa = a * w->stride[0] + k[0] * w->dilation[0] - w->before[0];
        for (int64_t b = 0; b < w->in[1] && oa >= 0 && oa < w->out[0]; b++) {
            int64_t ob = b * w->stride[1] + k[1] * w->dilation[1] - w->before[1];
            for (int64_t i = 0; i < w->in[2] && ob >= 0 && ob < w->out[1]; i++) {
                int64_t oi = i * w->stride[2] + k[2] * w->dilation[2] - w->before[2];
                if (oi < 0 || oi >= w->out[2]) continue;
                acc[(oa * w->out[1] + ob) * w->out[2] + oi] += v * x[(a * w->in[1] + b) * w->in[2] + i];
            }
        }
    }
}

alloy_status ay_eval_conv_transpose(const ay_call *c) {
    const ay_type *x = &c->in[0]->type, *wt = &c->in[1]->type;
    window w = window_of(c, wt->dim + 2);
    int64_t in = volume(w.in), out = volume(w.out), taps = volume(w.kernel);
    int64_t groups = c->n->attr.conv.groups, ins = x->dim[1], group_outs = wt->dim[1], outs = groups * group_outs;
    double *acc = malloc((size_t)out * sizeof *acc);
    if (!acc) return ay_nomem(c->cx);
    for (int64_t plane = 0; plane < x->dim[0] * outs; plane++) {
        int64_t batch = plane / outs, o = plane % outs, group = o / group_outs;
        memset(acc, 0, (size_t)out * sizeof *acc);
        for (int64_t q = group * (ins / groups); q < (group + 1) * (ins / groups); q++) {
            const float *weight = ay_f(c->in[1]) + (q * group_outs + o % group_outs) * taps;
            for_taps(&w, ay_f(c->in[0]) + (batch * ins + q) * in, weight, acc, transpose_tap);
        }
        finish_plane(c, o, acc, out, ay_f(c->out) + plane * out);
    }
    free(acc);
    return ALLOY_OK;
}

/* One window of one plane. */
static double pool_at(const ay_call *c, const window *w, const float *x, const int64_t at[3]) {
    double sum = 0, best = -INFINITY;
    int64_t real = 0, lo[3], hi[3];
    for (int d = 0; d < 3; d++) {
        int64_t from = at[d] * w->stride[d] - w->before[d];
        lo[d] = ay_max_i64(from, 0);
        hi[d] = ay_min_i64(from + w->kernel[d], w->in[d]);
    }
    for (int64_t a = lo[0]; a < hi[0]; a++) {
        for (int64_t b = lo[1]; b < hi[1]; b++) {
            for (int64_t i = lo[2]; i < hi[2]; i++, real++) {
                double v = x[(a * w->in[1] + b) * w->in[2] + i];
                sum += v;
                best = v > best || isnan(v) ? v : best;
            }
        }
    }
    if (!c->n->attr.pool.average) return best;
    return sum / (double)(c->n->attr.pool.count_padding ? volume(w->kernel) : real);
}

alloy_status ay_eval_pool(const ay_call *c) {
    const ay_type *x = &c->in[0]->type;
    window w = window_of(c, c->n->attr.pool.kernel);
    int64_t in = volume(w.in), at[3];
    float *out = ay_f(c->out);
    for (int64_t plane = 0; plane < x->dim[0] * x->dim[1]; plane++) {
        const float *from = ay_f(c->in[0]) + plane * in;
        for (at[0] = 0; at[0] < w.out[0]; at[0]++) {
            for (at[1] = 0; at[1] < w.out[1]; at[1]++) {
                for (at[2] = 0; at[2] < w.out[2]; at[2]++) *out++ = (float)pool_at(c, &w, from, at);
            }
        }
    }
    return ALLOY_OK;
}
