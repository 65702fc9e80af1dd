/* SPDX-License-Identifier: MIT
 *
 * Convolution of a large picture in bands of rows: the rows a band needs are made in scratch (normalised and activated, or
 * upsampled) while they lie in the cache, those that the next band needs too are carried over, and each band is a convolution
 * of its own. So what a convolution reads is gone before the next band is made, and its result may lie in the picture's own
 * place. Where both go by the same method, the sums are
 * those over the whole picture, number for number (bands are a multiple of Winograd's tiles).
 */
#include "cpu/plan.h"
#include "cpu/kernel/rows.h"

#include <string.h>

enum {
    BAND_BYTES = 4 << 20, /* a thread */
    MOST_BANDS_BYTES = 64 << 20,
    INT8_BYTES = 8 << 20, /* for any number of threads: what is quantised together decides on scales */
    ROWS = 8              /* a band is a multiple of these */
};

typedef struct band_args {
    ay_conv c;         /* as over the whole input, made in one piece */
    ay_weight w, pair_w;
    int64_t rows, cap; /* output rows a band; input rows there is room for */
    int64_t fh, fw;    /* upsampling of x on its way to the convolution; else 1 */
    bool normed;
    ay_act act;
    bool pair;
    int64_t pair_o;
    bool int8, pair_int8; /* products in integers: each band is quantised by itself */
    size_t picture_bytes, raw_bytes, a8_bytes; /* parts of the scratch before the convolution's own */
    ay_ref x, scale, shift, bias, residual, y, pair_bias, pair_y;
} band_args;

/* ---- running --------------------------------------------------------------------------------------------------------- */

typedef struct fill_job {
    const band_args *a;
    const ay_norm_row *row;
    const float *x, *scale, *shift; /* of one sample */
    float *picture, *raw;
    void *a8;
    int64_t lo, hi;                 /* rows of the convolution's input that the band needs */
    int64_t was_lo, was_hi;         /* those that are there already */
    int64_t raw_lo, raw_hi;         /* pair: rows of x */
} fill_job;

static void widen(int64_t n, int64_t by, const float *x, float *y) {
    if (by == 2) {
        for (int64_t i = 0; i < n; i++) {
            float two[2] = {x[i], x[i]};
            memcpy(y + 2 * i, two, sizeof two);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < by; k++) *y++ = x[i];
}

/* Rows [from, to) of channel c of the convolution's input. */
static void make_rows(const fill_job *j, int64_t c, int64_t from, int64_t to, float *dst) {
    const band_args *a = j->a;
    int64_t width = a->c.in[2], w = width / a->fw, h = a->c.in[1] / a->fh;
    const float *plane = j->x + c * h * w;
    if (a->normed) {
        j->row->scaled(a->act, (to - from) * width, plane + from * width, j->scale[c], j->shift[c], dst);
        return;
    }
    for (int64_t r = from; r < to; r++, dst += width) {
        if (r > from && r % a->fh != 0) memcpy(dst, dst - width, (size_t)width * sizeof *dst); /* the same row of x */
        else widen(w, a->fw, plane + r / a->fh * w, dst);
    }
}

/* One channel: what the band before left, then new rows. */
static void fill_tile(void *arg, int64_t c, int thread) {
    const fill_job *j = arg;
    int64_t width = j->a->c.in[2], kept = ay_max_i64(0, j->was_hi - j->lo);
    float *to = j->picture + c * j->a->cap * width;
    if (kept > 0) memmove(to, to + (j->lo - j->was_lo) * width, (size_t)(kept * width) * sizeof *to);
    make_rows(j, c, j->lo + kept, j->hi, to + kept * width);
    if (!j->raw) return;
    int64_t n = (j->raw_hi - j->raw_lo) * width;
    memcpy(j->raw + c * j->a->rows * width, j->x + (c * j->a->c.in[1] + j->raw_lo) * width, (size_t)n * sizeof *to);
}

typedef struct sample { /* pointers of one picture of the batch */
    const float *x, *scale, *shift, *bias, *residual, *pair_bias;
    float *y, *pair_y;
} sample;

/* The convolution, in integers after its input was quantised into `a8`, or in floats. */
static void multiply(const ay_exec *ex, bool int8, const ay_conv *c, void *a8) {
    if (!int8) {
        ay_conv_run(ex, c);
        return;
    }
    ay_a8_picture_run(ex, &(ay_a8_picture){.n = 1, .c = c->c, .plane = c->in[1] * c->in[2], .pitch = c->x_plane, .x = c->x,
                                           .tolerance = ay_i8_tolerance(c->w), .out = a8});
    ay_conv_i8_run(ex, c, a8);
}

static void run_pair(const ay_exec *ex, const band_args *a, const sample *s, const float *raw, int64_t r0, int64_t n, void *a8) {
    int64_t width = a->c.in[2];
    ay_conv c = {.n = 1, .c = a->c.c, .o = a->pair_o, .groups = 1, .in = {1, n, width}, .out = {1, n, width},
                 .kernel = {1, 1, 1}, .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .x = raw, .w = &a->pair_w,
                 .bias = s->pair_bias, .y = s->pair_y + r0 * width, .x_plane = a->rows * width, .y_plane = a->c.in[1] * width};
    multiply(ex, a->pair_int8, &c, a8);
}

static void run_band(const ay_exec *ex, fill_job *j, const sample *s, int64_t r0, int64_t r1) {
    const band_args *a = j->a;
    int64_t stride = a->c.stride[1], reach = (a->c.kernel[1] - 1) * a->c.dilation[1] + 1, out_w = a->c.out[2];
    int64_t first = r0 * stride - a->c.before[1], end = (r1 - 1) * stride - a->c.before[1] + reach;
    j->lo = ay_min_i64(ay_max_i64(0, first), a->c.in[1]);
    j->hi = ay_max_i64(j->lo, ay_min_i64(end, a->c.in[1]));
    j->raw_lo = r0;
    j->raw_hi = r1;
    ay_parallel(ex->pool, a->c.c, fill_tile, j, ex->stop);
    j->was_lo = j->lo;
    j->was_hi = j->hi;
    ay_conv c = a->c;
    c.n = 1;
    c.in[1] = j->hi - j->lo;
    c.out[1] = r1 - r0;
    c.before[1] = j->lo - first;
    c.x = j->picture;
    c.x_plane = a->cap * a->c.in[2];
    c.w = &a->w;
    c.bias = s->bias;
    c.residual = s->residual ? s->residual + r0 * out_w : NULL;
    c.y = s->y + r0 * out_w;
    c.y_plane = a->c.out[1] * out_w;
    multiply(ex, a->int8, &c, j->a8);
    if (j->raw) run_pair(ex, a, s, j->raw, r0, r1 - r0, j->a8);
}

static alloy_status run_bands(ay_run *r, const ay_step *s) {
    const band_args *a = s->args;
    char *scratch = r->ex.scratch;
    ay_exec ex = r->ex;
    size_t before = a->picture_bytes + a->raw_bytes + a->a8_bytes;
    ex.scratch = scratch + before;
    ex.scratch_bytes -= before;
    const float *x = ay_at(r, a->x), *scale = ay_at(r, a->scale), *shift = ay_at(r, a->shift), *res = ay_at(r, a->residual);
    float *y = ay_at(r, a->y);
    int64_t in = a->c.in[1] / a->fh * (a->c.in[2] / a->fw), out = a->c.out[1] * a->c.out[2];
    for (int64_t n = 0; n < a->c.n; n++) {
        sample one = {.x = x + n * a->c.c * in, .scale = scale ? scale + n * a->c.c : NULL, .shift = shift ? shift + n * a->c.c : NULL,
                      .bias = ay_at(r, a->bias), .residual = res ? res + n * a->c.o * out : NULL, .y = y + n * a->c.o * out,
                      .pair_bias = ay_at(r, a->pair_bias), .pair_y = ay_at(r, a->pair_y)};
        fill_job j = {.a = a, .row = ay_norm_pick(ex.isa), .x = one.x, .scale = one.scale, .shift = one.shift,
                      .picture = (float *)(void *)scratch,
                      .a8 = scratch + a->picture_bytes + a->raw_bytes,
                      .raw = a->pair ? (float *)(void *)(scratch + a->picture_bytes) : NULL};
        for (int64_t r0 = 0; r0 < a->c.out[1] && !ay_stopped(r->cx); r0 += a->rows)
            run_band(&ex, &j, &one, r0, ay_min_i64(a->c.out[1], r0 + a->rows));
    }
    return ALLOY_OK;
}

/* ---- statistics of the group norm before ------------------------------------------------------------------------------- */

typedef struct moments_args {
    ay_group_norm_args a;
    ay_ref x, w, b, scale, shift;
} moments_args;

static alloy_status run_moments(ay_run *r, const ay_step *s) {
    const moments_args *p = s->args;
    ay_group_norm_args a = p->a;
    a.x = ay_at(r, p->x);
    a.w = ay_at(r, p->w);
    a.b = ay_at(r, p->b);
    ay_group_moments_run(&r->ex, &a, ay_at(r, p->scale), ay_at(r, p->shift));
    return ALLOY_OK;
}

static alloy_status add_moments(ay_plan *pl, const ay_node *n, const ay_view *x, ay_view *scale, ay_view *shift) {
    ay_view w = {.buf = -1}, b = {.buf = -1};
    int64_t all = ay_view_count(x), dim[2] = {x->dim[0], x->dim[1]};
    if (n->n_in > 1) AY_TRY(ay_plan_dense(pl, n->in[1], &w));
    if (n->n_in > 2) AY_TRY(ay_plan_dense(pl, n->in[2], &b));
    AY_TRY(ay_plan_new(pl, AY_KIND_F32, 2, dim, scale));
    AY_TRY(ay_plan_new(pl, AY_KIND_F32, 2, dim, shift));
    moments_args args = {.a = {.n = dim[0], .c = dim[1], .s = all / dim[0] / dim[1], .groups = n->attr.norm.groups,
                               .eps = n->attr.norm.eps}};
    ay_step *s = ay_step_add(pl, run_moments, &args, sizeof args);
    if (!s) return ay_nomem(pl->cx);
    moments_args *p = (moments_args *)s->args;
    p->x = ay_step_read(s, x);
    p->w = ay_step_read(s, &w);
    p->b = ay_step_read(s, &b);
    p->scale = ay_step_write(s, scale);
    p->shift = ay_step_write(s, shift);
    s->bytes = 4.0 * (double)all;
    ay_step_what(pl, s, "group_norm statistics %lldx%lldx%lld", (long long)args.a.n, (long long)args.a.c, (long long)args.a.s);
    return ALLOY_OK;
}

/* ---- planning ------------------------------------------------------------------------------------------------------------ */

typedef struct operands {
    ay_view x, scale, shift, bias, residual, y, pair_bias, pair_y; /* buf -1: none */
} operands;

static alloy_status optional(ay_plan *pl, ay_val v, ay_view *out) {
    out->buf = -1;
    return v == AY_NO_VALUE ? ALLOY_OK : ay_plan_dense(pl, v, out);
}

static void fill_args(const ay_plan *pl, const ay_fused *f, const operands *o, band_args *a) {
    const ay_node *n = ay_plan_node(pl, f->anchor), *made = ay_plan_node(pl, f->before);
    const ay_type *in = ay_type_of(pl->g, n->in[0]), *w = ay_type_of(pl->g, n->in[1]);
    ay_conv *c = &a->c;
    *c = (ay_conv){.n = in->dim[0], .c = in->dim[1], .o = n->type.dim[1], .groups = 1, .act = f->act,
                   .in = {1, in->dim[2], in->dim[3]}, .out = {1, n->type.dim[2], n->type.dim[3]},
                   .kernel = {1, w->dim[2], w->dim[3]}, .stride = {1, n->attr.conv.stride[0], n->attr.conv.stride[1]},
                   .dilation = {1, n->attr.conv.dilation[0], n->attr.conv.dilation[1]},
                   .before = {0, n->attr.conv.before[0], n->attr.conv.before[1]}};
    a->normed = made->op == AY_OP_GROUP_NORM;
    a->act = f->before_act;
    a->fh = a->normed ? 1 : made->attr.upsample.fh;
    a->fw = a->normed ? 1 : made->attr.upsample.fw;
    ay_plan_weight(pl, n->in[1], &a->w);
    a->int8 = ay_plan_conv_int8(pl, n, &a->w);
    if (f->pair == AY_NO_VALUE) return;
    const ay_node *pair = ay_plan_node(pl, f->pair);
    a->pair = true;
    a->pair_o = pair->type.dim[1];
    ay_plan_weight(pl, pair->in[1], &a->pair_w);
    a->pair_int8 = ay_plan_conv_int8(pl, pair, &a->pair_w);
}

/* Rows a band: enough that the product of each is a large one, few enough that they stay in the cache. */
static void size_bands(const ay_plan *pl, band_args *a) {
    const ay_conv *c = &a->c;
    int64_t reach = (c->kernel[1] - 1) * c->dilation[1] + 1, row = c->c * c->in[2] * 4;
    int64_t room = ay_min_i64(MOST_BANDS_BYTES, (int64_t)BAND_BYTES * ay_plan_threads(pl));
    if (a->int8 || a->pair_int8) room = INT8_BYTES;
    int64_t rows = (room / row - reach) / c->stride[1] / ROWS * ROWS;
    a->rows = ay_min_i64(c->out[1], ay_max_i64(ROWS, rows));
    a->cap = ay_min_i64(c->in[1], (a->rows - 1) * c->stride[1] + reach);
    a->picture_bytes = (size_t)ay_div_up(a->cap * row, 64) * 64;
    a->raw_bytes = a->pair ? (size_t)ay_div_up(a->rows * row, 64) * 64 : 0;
    a->a8_bytes = a->int8 || a->pair_int8 ? (size_t)ay_round_up((int64_t)ay_a8_picture_bytes(1, a->cap * c->in[2], c->c), 64) : 0;
}

static size_t scratch_of(const ay_plan *pl, bool int8, const ay_conv *c) {
    ay_isa isa = (ay_isa)pl->cx->isa;
    if (!int8) return ay_conv_scratch(isa, ay_plan_threads(pl), c);
    size_t a8 = ay_a8_picture_scratch(1, c->c, c->in[1] * c->in[2]), conv = ay_conv_i8_scratch(isa, ay_plan_threads(pl), c);
    return a8 > conv ? a8 : conv;
}

/* Of one band: its geometry decides how a product is cut. */
static size_t conv_scratch(const ay_plan *pl, const band_args *a) {
    ay_conv c = a->c;
    c.n = 1;
    c.w = &a->w;
    size_t most = 0;
    for (int64_t left = a->c.out[1] % a->rows, i = 0; i < 2; i++) { /* a whole band, and the last */
        c.out[1] = i ? left : a->rows;
        c.in[1] = ay_min_i64(a->cap, a->c.in[1]);
        if (c.out[1] == 0) continue;
        size_t bytes = scratch_of(pl, a->int8, &c);
        if (a->pair) {
            ay_conv one = c;
            one.o = a->pair_o;
            one.kernel[1] = one.kernel[2] = 1;
            one.before[1] = one.before[2] = 0;
            one.in[1] = one.out[1] = c.out[1];
            one.w = &a->pair_w;
            size_t more = scratch_of(pl, a->pair_int8, &one);
            if (more > bytes) bytes = more;
        }
        if (bytes > most) most = bytes;
    }
    return most;
}

static void note(ay_plan *pl, ay_step *s, const band_args *a) {
    const ay_conv *c = &a->c;
    double taps = (double)(c->kernel[1] * c->kernel[2]), out = (double)(c->n * c->out[1] * c->out[2]);
    *ay_step_ops(s, a->int8 ? &a->w : NULL) += 2 * out * (double)c->c * (double)c->o * taps;
    *ay_step_ops(s, a->pair_int8 ? &a->pair_w : NULL) += 2 * out * (double)c->c * (double)a->pair_o;
    s->bytes = 4.0 * ((double)(c->n * c->c * (c->in[1] / a->fh) * (c->in[2] / a->fw)) + out * (double)(c->o + a->pair_o));
    ay_step_what(pl, s, "conv 1x%lldx%lld%s %lld->%lld to 1x%lldx%lld, %s in bands%s", (long long)c->kernel[1],
                 (long long)c->kernel[2], a->pair ? " and 1x1x1" : "", (long long)c->c, (long long)(c->o + a->pair_o),
                 (long long)c->out[1], (long long)c->out[2], a->normed ? "normalised" : "upsampled", a->int8 ? ", in int8" : "");
}

bool ay_plan_conv_int8(const ay_plan *pl, const ay_node *n, const ay_weight *w) {
    const ay_type *x = ay_type_of(pl->g, n->in[0]), *t = ay_type_of(pl->g, n->in[1]);
    if (!pl->int8 || x->rank != 4 || n->attr.conv.groups != 1) return false;
    ay_conv c = {.n = x->dim[0], .c = x->dim[1], .o = n->type.dim[1], .groups = 1, .in = {1, x->dim[2], x->dim[3]},
                 .out = {1, n->type.dim[2], n->type.dim[3]}, .kernel = {1, t->dim[2], t->dim[3]}, .w = w};
    return ay_conv_i8_can(&c) && ay_i8_is_accurate(w);
}

/* Whether the result may lie where x lay: rows are written only after they were taken in, and nothing is larger. */
static bool keeps_place(const band_args *a) {
    const ay_conv *c = &a->c;
    return a->fh == 1 && a->fw == 1 && c->n == 1 && c->in[1] == c->out[1] && c->in[2] == c->out[2] &&
           c->stride[1] == 1 && c->before[1] <= (c->kernel[1] - 1) * c->dilation[1];
}

static alloy_status add_step(ay_plan *pl, const operands *o, const band_args *a) {
    ay_step *s = ay_step_add(pl, run_bands, a, sizeof *a);
    if (!s) return ay_nomem(pl->cx);
    band_args *p = (band_args *)s->args;
    p->x = keeps_place(a) ? ay_step_read_inplace(s, &o->x) : ay_step_read(s, &o->x);
    p->scale = ay_step_read(s, &o->scale);
    p->shift = ay_step_read(s, &o->shift);
    p->bias = ay_step_read(s, &o->bias);
    p->residual = a->c.act == AY_ACT_NONE && !a->pair ? ay_step_read_inplace(s, &o->residual) : ay_step_read(s, &o->residual);
    p->pair_bias = ay_step_read(s, &o->pair_bias);
    p->y = a->pair ? ay_step_write_part(s, &o->y, 0) : ay_step_write(s, &o->y);
    if (a->pair) p->pair_y = ay_step_write_part(s, &o->pair_y, (size_t)ay_view_count(&o->y) * 4);
    else p->pair_y = AY_NO_REF;
    ay_step_weight(s, &p->w);
    if (a->pair) ay_step_weight(s, &p->pair_w);
    note(pl, s, a);
    return ay_step_scratch(pl, s, a->picture_bytes + a->raw_bytes + a->a8_bytes + conv_scratch(pl, a));
}

alloy_status ay_build_band(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor), *made = ay_plan_node(pl, f->before);
    operands o = {.scale.buf = -1, .shift.buf = -1, .pair_bias.buf = -1, .pair_y.buf = -1};
    band_args a = {.fh = 1, .fw = 1};
    AY_TRY(ay_plan_dense(pl, made->in[0], &o.x));
    AY_TRY(optional(pl, n->n_in > 2 ? n->in[2] : f->bias, &o.bias));
    AY_TRY(optional(pl, f->residual, &o.residual));
    if (made->op == AY_OP_GROUP_NORM) AY_TRY(add_moments(pl, made, &o.x, &o.scale, &o.shift));
    AY_TRY(ay_plan_out(pl, f, &o.y));
    fill_args(pl, f, &o, &a);
    if (a.pair) {
        ay_fused alone = ay_fused_alone(f->pair);
        const ay_node *pair = ay_plan_node(pl, f->pair);
        if (pair->n_in > 2) AY_TRY(ay_plan_dense(pl, pair->in[2], &o.pair_bias));
        AY_TRY(ay_plan_out(pl, &alone, &o.pair_y));
    }
    size_bands(pl, &a);
    return add_step(pl, &o, &a);
}
