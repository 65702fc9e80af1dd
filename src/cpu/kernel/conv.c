/* SPDX-License-Identifier: MIT
 *
 * Convolution: plain form, one output channel of one picture at a time.
 */
#include "cpu/kernel/act.h"

typedef struct job {
    const ay_conv *c;
    float *rows;
} job;

static int64_t per_out(const ay_conv *c) { return c->c / c->groups * c->kernel[0] * c->kernel[1] * c->kernel[2]; }

size_t ay_conv_scratch(ay_isa isa, int threads, const ay_conv *c) { return (size_t)threads * (size_t)per_out(c) * sizeof(float) + 64; }

static float at(const ay_conv *c, const float *x, const float *w, const int64_t p[3]) {
    float sum = 0;
    int64_t cg = c->c / c->groups, in[3];
    for (int64_t ch = 0; ch < cg; ch++, x += c->in[0] * c->in[1] * c->in[2]) {
        for (int64_t i = 0; i < c->kernel[0] * c->kernel[1] * c->kernel[2]; i++, w++) {
            int64_t k[3] = {i / c->kernel[2] / c->kernel[1], i / c->kernel[2] % c->kernel[1], i % c->kernel[2]};
            bool inside = true;
            for (int d = 0; d < 3; d++) {
                in[d] = p[d] * c->stride[d] + k[d] * c->dilation[d] - c->before[d];
                inside = inside && in[d] >= 0 && in[d] < c->in[d];
            }
            if (inside) sum += *w * x[(in[0] * c->in[1] + in[1]) * c->in[2] + in[2]];
        }
    }
    return sum;
}

static void channel(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_conv *c = j->c;
    int64_t n = tile / c->o, o = tile % c->o, k = per_out(c), g = o / (c->o / c->groups), pixels = c->out[0] * c->out[1] * c->out[2];
    const float *x = c->x + (n * c->c + g * (c->c / c->groups)) * c->in[0] * c->in[1] * c->in[2], *w = c->wf ? c->wf + o * k : NULL;
    if (!w) {
        float *row = j->rows + thread * k;
        ay_weight_read(c->w, o * k, k, row);
        w = row;
    }
    for (int64_t i = 0; i < pixels; i++) {
        int64_t p[3] = {i / c->out[2] / c->out[1], i / c->out[2] % c->out[1], i % c->out[2]}, to = tile * pixels + i;
        float v = ay_act1(c->act, at(c, x, w, p) + (c->bias ? c->bias[o] : 0));
        c->y[to] = c->residual ? v + c->residual[to] : v;
    }
}

void ay_conv_run(const ay_exec *ex, const ay_conv *c) {
    job j = {c, ex->scratch};
    ay_parallel(ex->pool, c->n * c->o, channel, &j, ex->stop);
}
