/* SPDX-License-Identifier: MIT
 *
 * Convolution as an implicit matrix product: Y [O, pixels] = W [O, C * taps] * X [C * taps, pixels], where the panels of X
 * are packed from the picture as a tile needs them and exist nowhere else. 1 x 1 convolutions read the picture as it is.
 * Where Winograd's method is expected to be faster, wino.c takes over.
 */
#include "cpu/kernel/mm.h"

/** One picture and group; what the panel function needs to know. */
typedef struct picture {
    const ay_conv *c;
    const ay_conv_row *row;
    const float *x;      /* first channel of the group */
    int64_t taps, plane; /* kernel volume; elements from channel to channel */
} picture;

typedef struct job {
    const ay_conv *c;
    ay_mm_plan plan;
    const ay_conv_row *row;
    char *scratch;
    int64_t taps, pixels, plane, y_plane; /* kernel and output volume; elements from channel to channel of x, of y */
    bool as_it_is;               /* every output pixel reads the input pixel of the same number */
} job;

static int64_t volume(const int64_t d[3]) { return d[0] * d[1] * d[2]; }

static ay_mm_plan plan_of(ay_isa isa, int threads, const ay_conv *c) {
    return ay_mm_plan_make(isa, threads, c->n * c->groups, c->o / c->groups, volume(c->out),
                           c->c / c->groups * volume(c->kernel));
}

static bool by_wino(ay_isa isa, const ay_conv *c) {
    return c->how == AY_CONV_BEST ? ay_wino_pays(isa, c) : c->how != AY_CONV_DIRECT;
}

size_t ay_conv_scratch(ay_isa isa, int threads, const ay_conv *c) {
    if (by_wino(isa, c)) return ay_wino_scratch(isa, threads, c);
    ay_mm_plan p = plan_of(isa, threads, c);
    return ay_mm_plan_scratch(&p) * (size_t)threads;
}

/** Which of `len` output positions from `at` on read inside the input, for the tap at `tap`, along dimension d. */
static void inside(const ay_conv *c, int d, int64_t at, int64_t tap, int len, ay_strip *s) {
    int64_t first = at * c->stride[d] + tap * c->dilation[d] - c->before[d]; /* of position 0 */
    int64_t lo = first >= 0 ? 0 : ay_div_up(-first, c->stride[d]);
    int64_t hi = c->in[d] - first <= 0 ? 0 : ay_div_up(c->in[d] - first, c->stride[d]);
    s->hi = (int)ay_min_i64(hi, len);
    s->lo = (int)ay_min_i64(lo, s->hi);
    s->src += first;
    s->step = c->stride[d];
}

/** One run of output pixels (a row or a part of it) of one tap, for all channels that lie in k0 .. k0 + kn. */
static void run_of_tap(const picture *p, const int64_t out[3], int len, int64_t tap, int64_t k0, int64_t kn, int width,
                       float *dst) {
    const ay_conv *c = p->c;
    int64_t first = k0 > tap ? ay_div_up(k0 - tap, p->taps) : 0; /* the first channel whose k is at least k0 */
    int64_t k = first * p->taps + tap;
    if (k >= k0 + kn) return;
    int64_t t[3] = {tap / c->kernel[2] / c->kernel[1], tap / c->kernel[2] % c->kernel[1], tap % c->kernel[2]};
    int64_t z = out[0] * c->stride[0] + t[0] * c->dilation[0] - c->before[0],
            y = out[1] * c->stride[1] + t[1] * c->dilation[1] - c->before[1];
    ay_strip s = {.n = ay_div_up(k0 + kn - k, p->taps),
                  .src = p->x,
                  .src_step = p->plane,
                  .step = 1,
                  .dst = dst + (k - k0) * width,
                  .dst_step = p->taps * width,
                  .len = len};
    if (z >= 0 && z < c->in[0] && y >= 0 && y < c->in[1]) {
        s.src = p->x + first * p->plane + (z * c->in[1] + y) * c->in[2];
        inside(c, 2, out[2], t[2], len, &s);
    }
    p->row->strip(&s);
}

static void panel_picture(const ay_operand *o, int64_t at, int count, int width, int64_t k0, int64_t kn, float *dst) {
    const picture *p = o->more;
    const int64_t *size = p->c->out;
    for (int done = 0; done < width;) {
        int64_t i = at + done, out[3] = {i / size[2] / size[1], i / size[2] % size[1], i % size[2]};
        int len = (int)ay_min_i64(size[2] - out[2], count - done);
        if (done >= count) { /* past the last pixel: zeros, by standing outside the picture */
            len = width - done;
            out[0] = INT32_MAX;
        }
        for (int64_t tap = 0; tap < p->taps; tap++) run_of_tap(p, out, len, tap, k0, kn, width, dst + done);
        done += len;
    }
}

static void conv_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_conv *c = j->c;
    int64_t tiles = j->plan.tiles_m * j->plan.tiles_n, at = tile / tiles, g = at % c->groups, og = c->o / c->groups,
            k = c->c / c->groups * j->taps;
    picture p = {c, j->row, c->x + at * (c->c / c->groups) * j->plane, j->taps, j->plane};
    ay_mm mm = {.m = og, .n = j->pixels, .k = k, .c = c->y + at * og * j->y_plane, .ldc = j->y_plane, .ldr = j->y_plane};
    if (c->wf) mm.a = (ay_operand){.panel = ay_panel_turned, .row = j->plan.pack, .f = c->wf + g * og * k, .ld = k};
    else mm.a = (ay_operand){.panel = ay_panel_weight, .row = j->plan.pack, .w = c->w, .k = k, .w_first = g * og};
    if (j->as_it_is) mm.b = (ay_operand){.panel = ay_panel_rows, .row = j->plan.pack, .f = p.x, .ld = j->plane};
    else mm.b = (ay_operand){.panel = panel_picture, .more = &p};
    mm.finish = (ay_finish){.alpha = 1, .residual = c->residual ? c->residual + at * og * j->y_plane : NULL, .act = c->act};
    mm.bias_m = c->bias ? c->bias + g * og : NULL;
    ay_mm_tile(&j->plan, &mm, tile % tiles, (float *)(j->scratch + (size_t)thread * ay_mm_plan_scratch(&j->plan)));
}

void ay_conv_run(const ay_exec *ex, const ay_conv *c) {
    if (by_wino(ex->isa, c)) {
        ay_wino_run(ex, c);
        return;
    }
    job j = {.c = c,
             .plan = plan_of(ex->isa, ay_pool_threads(ex->pool), c),
             .row = ay_conv_pick(ex->isa),
             .scratch = ex->scratch};
    j.taps = volume(c->kernel);
    j.pixels = volume(c->out);
    j.plane = c->x_plane ? c->x_plane : volume(c->in);
    j.y_plane = c->y_plane ? c->y_plane : j.pixels;
    if (j.pixels <= 0 || c->o <= 0) return;
    j.as_it_is = j.taps == 1;
    for (int d = 0; d < 3; d++) j.as_it_is = j.as_it_is && c->stride[d] == 1 && c->before[d] == 0 && c->in[d] == c->out[d];
    ay_parallel(ex->pool, c->n * c->groups * j.plan.tiles_m * j.plan.tiles_n, conv_tile, &j, ex->stop);
}
