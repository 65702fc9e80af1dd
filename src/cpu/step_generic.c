/* SPDX-License-Identifier: MIT
 *
 * Elementwise steps for everything that is not float to float: integers, truth values, comparisons, where, casts, dequant.
 * One loop over strided operands of any kind through doubles, which hold every float32 and int32 exactly.
 */
#include "cpu/plan.h"

#include <math.h>
#include <string.h>

enum { TILE = 1 << 13 };

typedef double (*generic_fn)(double x, double y, double z);

static uint32_t bits(double x) { return (uint32_t)(int64_t)x; }
static double wrap(double x) { return (int32_t)bits(x); }

#define FN(name, expr) static double name(double x, double y, double z) { return (expr); }
/* integers wrap as two's complement; division by zero gives 0 */
FN(f_add, (int32_t)(bits(x) + bits(y))) FN(f_sub, (int32_t)(bits(x) - bits(y))) FN(f_mul, (int32_t)(bits(x) * bits(y)))
FN(f_int_div, y == 0 ? 0 : wrap(floor(x / y))) FN(f_int_mod, y == 0 ? 0 : x - floor(x / y) * y)
FN(f_max, x > y ? x : y) FN(f_min, x < y ? x : y)
FN(f_eq, x == y) FN(f_ne, x != y) FN(f_lt, x < y) FN(f_le, x <= y) FN(f_gt, x > y) FN(f_ge, x >= y)
FN(f_and, x != 0 && y != 0) FN(f_or, x != 0 || y != 0) FN(f_xor, (x != 0) != (y != 0)) FN(f_not, x == 0)
FN(f_where, x != 0 ? y : z) FN(f_same, x) FN(f_abs, wrap(fabs(x))) FN(f_sign, x > 0 ? 1 : x < 0 ? -1 : x)
FN(f_dequant, (x - z) * y) FN(f_dequant0, x *y)
#undef FN

static double f_pow(double x, double y, double z) {
    uint32_t r = 1, base = bits(x);
    if (y < 0) return x == 1 ? 1 : x == -1 ? (bits(y) % 2 ? -1 : 1) : 0;
    for (uint32_t e = bits(y); e; e >>= 1, base *= base)
        if (e & 1) r *= base;
    return (int32_t)r;
}

static generic_fn fn_of(ay_op op) {
    static const generic_fn fn[AY_OP_COUNT] = {
        [AY_OP_ADD] = f_add, [AY_OP_SUB] = f_sub, [AY_OP_MUL] = f_mul, [AY_OP_DIV] = f_int_div, [AY_OP_MOD] = f_int_mod,
        [AY_OP_MAX] = f_max, [AY_OP_MIN] = f_min, [AY_OP_POW] = f_pow, [AY_OP_EQ] = f_eq, [AY_OP_NE] = f_ne,
        [AY_OP_LT] = f_lt, [AY_OP_LE] = f_le, [AY_OP_GT] = f_gt, [AY_OP_GE] = f_ge, [AY_OP_AND] = f_and, [AY_OP_OR] = f_or,
        [AY_OP_XOR] = f_xor, [AY_OP_NOT] = f_not, [AY_OP_WHERE] = f_where, [AY_OP_CAST] = f_same, [AY_OP_ABS] = f_abs,
        [AY_OP_SIGN] = f_sign, [AY_OP_FLOOR] = f_same, [AY_OP_CEIL] = f_same, [AY_OP_ROUND] = f_same,
    };
    return fn[op];
}

typedef struct generic_args {
    generic_fn fn;
    int n_in, rank;
    int64_t dim[AY_MAX_RANK], stride[3][AY_MAX_RANK], count;
    ay_kind kind[3], out_kind;
    double low, high; /* of the integer type the result stands for */
    ay_ref in[3], out;
} generic_args;

typedef struct generic_job {
    const generic_args *a;
    const void *in[3];
    void *out;
} generic_job;

static double load(ay_kind kind, const void *p, int64_t i) {
    if (kind == AY_KIND_F32) return ((const float *)p)[i];
    if (kind == AY_KIND_I32) return ((const int32_t *)p)[i];
    return ((const unsigned char *)p)[i] != 0;
}

static void store(const generic_args *a, void *p, int64_t i, double v) {
    if (a->out_kind == AY_KIND_F32) ((float *)p)[i] = (float)v;
    else if (a->out_kind == AY_KIND_U8) ((unsigned char *)p)[i] = v != 0;
    else ((int32_t *)p)[i] = v != v ? 0 : v <= a->low ? (int32_t)a->low : v >= a->high ? (int32_t)a->high : (int32_t)v;
}

static void generic_tile(void *arg, int64_t tile, int thread) {
    const generic_job *j = arg;
    const generic_args *a = j->a;
    int64_t at = tile * TILE, end = ay_min_i64(a->count, at + TILE), idx[AY_MAX_RANK], off[3] = {0, 0, 0};
    int64_t rest = at;
    for (int d = a->rank - 1; d >= 0; d--) {
        idx[d] = rest % a->dim[d];
        rest /= a->dim[d];
        for (int k = 0; k < a->n_in; k++) off[k] += idx[d] * a->stride[k][d];
    }
    for (; at < end; at++) {
        double v[3] = {0, 0, 0};
        for (int k = 0; k < a->n_in; k++) v[k] = load(a->kind[k], j->in[k], off[k]);
        store(a, j->out, at, a->fn(v[0], v[1], v[2]));
        for (int d = a->rank - 1; d >= 0; d--) {
            for (int k = 0; k < a->n_in; k++) off[k] += a->stride[k][d];
            if (++idx[d] < a->dim[d]) break;
            for (int k = 0; k < a->n_in; k++) off[k] -= a->dim[d] * a->stride[k][d];
            idx[d] = 0;
        }
    }
}

static alloy_status run_generic(ay_run *r, const ay_step *s) {
    const generic_args *a = s->args;
    generic_job j = {.a = a, .out = ay_at(r, a->out)};
    for (int k = 0; k < a->n_in; k++) j.in[k] = ay_at(r, a->in[k]);
    ay_parallel(r->ex.pool, ay_div_up(a->count, TILE), generic_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

/* The values an integer dtype can take, within the engine's int32. */
static void int_range(ay_dtype t, double *low, double *high) {
    int bits = ay_dtype_bits(t);
    bool is_unsigned = t >= AY_U64 && t <= AY_U1;
    *low = is_unsigned ? 0 : bits >= 32 ? INT32_MIN : -(double)(1 << (bits - 1));
    *high = bits >= 32 ? INT32_MAX : (double)((1 << (is_unsigned ? bits : bits - 1)) - 1);
}

/* in[] are already broadcast to the dims of out, which is row-major. */
static alloy_status add_generic(ay_plan *pl, generic_fn fn, ay_dtype dtype, int n_in, const ay_view *in,
                                const ay_view *out) {
    generic_args a = {.fn = fn, .n_in = n_in, .rank = out->rank, .count = ay_view_count(out), .out_kind = out->kind};
    memcpy(a.dim, out->dim, sizeof a.dim);
    for (int k = 0; k < n_in; k++) {
        a.kind[k] = in[k].kind;
        memcpy(a.stride[k], in[k].stride, sizeof a.stride[k]);
    }
    if (out->kind == AY_KIND_I32) int_range(dtype, &a.low, &a.high);
    ay_step *s = ay_step_add(pl, run_generic, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    generic_args *kept = (generic_args *)s->args;
    for (int k = 0; k < n_in; k++) kept->in[k] = ay_step_read(s, &in[k]);
    kept->out = ay_step_write(s, out);
    s->bytes = 4.0 * (double)a.count * (n_in + 1);
    ay_step_what(pl, s, "%s x%lld", s->what, (long long)a.count);
    return ALLOY_OK;
}

alloy_status ay_build_generic(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view in[3], out;
    generic_fn fn = fn_of(n->op);
    if (!fn || n->n_in > 3)
        return ay_plan_fail(pl, "%s is not defined for %s", ay_op_get(n->op)->name, ay_dtype_name(n->type.dtype));
    for (int k = 0; k < n->n_in; k++) {
        ay_view x;
        AY_TRY(ay_plan_view(pl, n->in[k], &x));
        in[k] = ay_view_broadcast(&x, n->type.rank, n->type.dim);
    }
    AY_TRY(ay_plan_out(pl, f, &out));
    return add_generic(pl, fn, n->op == AY_OP_CAST ? n->type.dtype : AY_I32, n->n_in, in, &out); /* only a cast clips */
}

/* Casts that move no numbers are views and do not come here; what is left changes the kind, or is to be rounded. */
alloy_status ay_build_cast(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    if (ay_kind_of(n->type.dtype) != AY_KIND_F32 || ay_kind_of(ay_type_of(pl->g, n->in[0])->dtype) != AY_KIND_F32)
        return ay_build_generic(pl, f);
    ay_view x, out;
    AY_TRY(ay_plan_view(pl, n->in[0], &x));
    AY_TRY(ay_plan_out(pl, f, &out));
    return ay_add_copy_step(pl, &x, &out);
}

/** A float32 or int32 copy of `x` in the other kind (masks for attention, indices). */
alloy_status ay_plan_as_kind(ay_plan *pl, const ay_view *x, ay_kind kind, ay_view *out) {
    if (x->kind == kind) return *out = *x, ALLOY_OK;
    AY_TRY(ay_plan_new(pl, kind, x->rank, x->dim, out));
    return add_generic(pl, f_same, kind == AY_KIND_F32 ? AY_F32 : AY_I32, 1, x, out);
}

static double mask_of_bool(double x, double y, double z) { return x != 0 ? 0 : -INFINITY; }

alloy_status ay_plan_mask(ay_plan *pl, const ay_view *x, ay_view *out) {
    if (x->kind == AY_KIND_F32) return *out = *x, ALLOY_OK;
    AY_TRY(ay_plan_new(pl, AY_KIND_F32, x->rank, x->dim, out));
    return add_generic(pl, mask_of_bool, AY_F32, 1, x, out);
}

/* (x - zero_point) * scale; both scalars or one number for each place along attr.axis. */
alloy_status ay_build_dequant(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view in[3], out;
    for (int k = 0; k < n->n_in; k++) {
        ay_view x;
        AY_TRY(ay_plan_view(pl, n->in[k], &x));
        if (k > 0 && x.rank == 1) {
            int64_t step = x.stride[0];
            x = ay_view_broadcast(&(ay_view){.buf = x.buf, .kind = x.kind, .off = x.off}, n->type.rank, n->type.dim);
            x.stride[n->attr.axis] = step;
        } else {
            x = ay_view_broadcast(&x, n->type.rank, n->type.dim);
        }
        in[k] = x;
    }
    AY_TRY(ay_plan_out(pl, f, &out));
    return add_generic(pl, n->n_in == 3 ? f_dequant : f_dequant0, n->type.dtype, n->n_in, in, &out);
}

/* ---- integer matmul: rare, exact --------------------------------------------------------------------------------- */

typedef struct int_matmul_args {
    int rank;
    int64_t dim[AY_MAX_RANK], as[AY_MAX_RANK], bs[AY_MAX_RANK], k, ak, bk, count;
    ay_ref a, b, c;
} int_matmul_args;

static alloy_status run_int_matmul(ay_run *r, const ay_step *s) {
    const int_matmul_args *m = s->args;
    const int32_t *a = ay_at(r, m->a), *b = ay_at(r, m->b);
    int32_t *c = ay_at(r, m->c);
    for (int64_t i = 0; i < m->count; i++) {
        int64_t rest = i, ao = 0, bo = 0;
        for (int d = m->rank - 1; d >= 0; d--) {
            ao += rest % m->dim[d] * m->as[d];
            bo += rest % m->dim[d] * m->bs[d];
            rest /= m->dim[d];
        }
        uint32_t sum = 0; /* wraps, as int32 products elsewhere do */
        for (int64_t k = 0; k < m->k; k++) sum += (uint32_t)a[ao + k * m->ak] * (uint32_t)b[bo + k * m->bk];
        c[i] = (int32_t)sum;
        if ((i & 1023) == 0 && ay_stopped(r->cx)) break;
    }
    return ALLOY_OK;
}

alloy_status ay_build_int_matmul(ay_plan *pl, const ay_fused *f) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    ay_view a, b, c;
    AY_TRY(ay_plan_view(pl, n->in[0], &a));
    AY_TRY(ay_plan_view(pl, n->in[1], &b));
    AY_TRY(ay_plan_out(pl, f, &c));
    a = ay_view_with_lead(&a, c.rank, c.dim);
    b = ay_view_with_lead(&b, c.rank, c.dim);
    int last = c.rank - 1, ka = n->attr.matmul.ta ? last - 1 : last, kb = n->attr.matmul.tb ? last : last - 1;
    int_matmul_args m = {.rank = c.rank, .k = a.dim[ka], .ak = a.stride[ka], .bk = b.stride[kb], .count = ay_view_count(&c)};
    memcpy(m.dim, c.dim, sizeof m.dim);
    memcpy(m.as, a.stride, sizeof m.as);
    memcpy(m.bs, b.stride, sizeof m.bs);
    m.as[last - 1] = a.stride[n->attr.matmul.ta ? last : last - 1];
    m.as[last] = m.bs[last - 1] = 0;
    m.bs[last] = b.stride[n->attr.matmul.tb ? last - 1 : last];
    ay_step *s = ay_step_add(pl, run_int_matmul, &m, sizeof m);
    if (!s) return ay_nomem(pl->cx);
    int_matmul_args *kept = (int_matmul_args *)s->args;
    kept->a = ay_step_read(s, &a);
    kept->b = ay_step_read(s, &b);
    kept->c = ay_step_write(s, &c);
    s->flops = 2.0 * (double)m.count * (double)m.k;
    return ALLOY_OK;
}
