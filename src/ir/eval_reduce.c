/* SPDX-License-Identifier: MIT
 *
 * Reference evaluation: reductions, running sums, the k largest. Sums of floats are kept in double.
 */
#include "ir/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The running value of one result: `first` starts it. */
static double step_f(ay_op op, double acc, double v, bool first) {
    if (first) return v;
    switch (op) {
    case AY_OP_SUM: return acc + v;
    case AY_OP_PROD: return acc * v;
    case AY_OP_RMAX: return acc > v || isnan(acc) ? acc : v;
    default: return acc < v || isnan(acc) ? acc : v;
    }
}

static int32_t step_i(ay_op op, int32_t acc, int32_t v, bool first) {
    if (first) return v;
    switch (op) {
    case AY_OP_SUM: return (int32_t)((uint32_t)acc + (uint32_t)v);
    case AY_OP_PROD: return (int32_t)((uint32_t)acc * (uint32_t)v);
    case AY_OP_RMAX: return acc > v ? acc : v;
    default: return acc < v ? acc : v;
    }
}

/* The shape of the result with reduced dims as 1, so that it broadcasts over the input. */
static ay_type kept_shape(const ay_node *n, const ay_type *x) {
    ay_type t = *x;
    for (int i = 0; i < n->attr.reduce.n; i++) t.dim[n->attr.reduce.axes[i]] = 1;
    return t;
}

alloy_status ay_eval_reduce(const ay_call *c) {
    const ay_array *x = c->in[0];
    bool is_float = ay_dtype_is_float(x->type.dtype);
    ay_type kept = kept_shape(c->n, &x->type);
    double *acc = calloc((size_t)c->out->count, sizeof *acc);
    char *begun = calloc((size_t)c->out->count, 1);
    if (acc && begun) {
        ay_walk w;
        ay_walk_start(&w, &x->type);
        ay_walk_operand(&w, &kept);
        for (int64_t i = 0; i < x->count; i++, ay_walk_next(&w)) {
            int64_t o = w.offset[0];
            if (is_float) acc[o] = step_f(c->n->op, acc[o], ay_f(x)[i], !begun[o]);
            else ay_i(c->out)[o] = step_i(c->n->op, ay_i(c->out)[o], ay_i(x)[i], !begun[o]);
            begun[o] = 1;
        }
        for (int64_t o = 0; is_float && o < c->out->count; o++) ay_f(c->out)[o] = (float)acc[o];
    }
    bool ok = acc && begun;
    free(acc);
    free(begun);
    return ok ? ALLOY_OK : ay_nomem(c->cx);
}

static double number(const ay_array *a, int64_t i) { return ay_dtype_is_float(a->type.dtype) ? ay_f(a)[i] : ay_i(a)[i]; }

/* Whether a comes before b: NaN is the largest of all, as in torch. */
static bool before(double a, double b, bool largest) {
    if (isnan(a) || isnan(b)) return largest ? isnan(a) && !isnan(b) : isnan(b) && !isnan(a);
    return largest ? a > b : a < b;
}

alloy_status ay_eval_argmax(const ay_call *c) {
    const ay_array *x = c->in[0];
    ay_split s = ay_split_at(&x->type, c->n->attr.reduce.axes[0]);
    for (int64_t o = 0; o < s.outer; o++) {
        for (int64_t i = 0; i < s.inner; i++) {
            int64_t best = 0, base = o * s.size * s.inner + i;
            for (int64_t j = 1; j < s.size; j++) {
                if (before(number(x, base + j * s.inner), number(x, base + best * s.inner), c->n->attr.reduce.largest))
                    best = j;
            }
            ay_i(c->out)[o * s.inner + i] = (int32_t)best;
        }
    }
    return ALLOY_OK;
}

alloy_status ay_eval_cumsum(const ay_call *c) {
    const ay_array *x = c->in[0];
    bool is_float = ay_dtype_is_float(x->type.dtype), exclusive = c->n->attr.scan.exclusive;
    ay_split s = ay_split_at(&x->type, c->n->attr.scan.axis);
    for (int64_t row = 0; row < s.outer * s.inner; row++) {
        int64_t base = row / s.inner * s.size * s.inner + row % s.inner;
        double sum = 0;
        uint32_t whole = 0;
        for (int64_t j = 0; j < s.size; j++) {
            int64_t i = base + (c->n->attr.scan.reverse ? s.size - 1 - j : j) * s.inner;
            double old = sum;
            uint32_t old_whole = whole;
            if (is_float) sum += ay_f(x)[i];
            else whole += (uint32_t)ay_i(x)[i];
            if (is_float) ay_f(c->out)[i] = (float)(exclusive ? old : sum);
            else ay_i(c->out)[i] = (int32_t)(exclusive ? old_whole : whole);
        }
    }
    return ALLOY_OK;
}

typedef struct ranked { double value; int32_t index; bool largest; } ranked;

static int by_rank(const void *pa, const void *pb) {
    const ranked *a = pa, *b = pb;
    if (before(a->value, b->value, a->largest)) return -1;
    if (before(b->value, a->value, a->largest)) return 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

alloy_status ay_eval_topk(const ay_call *c) {
    const ay_array *x = c->in[0];
    ay_split s = ay_split_at(&x->type, c->n->attr.topk.axis);
    int64_t k = c->n->attr.topk.k;
    ranked *rows = malloc((size_t)s.size * sizeof *rows);
    if (!rows) return ay_nomem(c->cx);
    for (int64_t row = 0; row < s.outer * s.inner; row++) {
        int64_t o = row / s.inner, i = row % s.inner;
        for (int64_t j = 0; j < s.size; j++) {
            rows[j] = (ranked){number(x, (o * s.size + j) * s.inner + i), (int32_t)j, c->n->attr.topk.largest};
        }
        qsort(rows, (size_t)s.size, sizeof *rows, by_rank);
        for (int64_t j = 0; j < k; j++) {
            int64_t to = (o * k + j) * s.inner + i;
            if (c->n->attr.topk.indices) ay_i(c->out)[to] = rows[j].index;
            else if (ay_dtype_is_float(x->type.dtype)) ay_f(c->out)[to] = (float)rows[j].value;
            else ay_i(c->out)[to] = (int32_t)rows[j].value;
        }
    }
    free(rows);
    return ALLOY_OK;
}
