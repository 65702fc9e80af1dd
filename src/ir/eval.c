/* SPDX-License-Identifier: MIT
 *
 * The reference evaluator: the table from op to function, held values and their conversions, and the walk over a graph that
 * frees each value after its last use.
 */
#include "ir/eval.h"
#include "base/half.h"
#include "quant/weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const ay_eval_fn table[AY_OP_COUNT] = {
    [AY_OP_ABS] = ay_eval_unary,         [AY_OP_EXP] = ay_eval_unary,
    [AY_OP_LOG] = ay_eval_unary,         [AY_OP_SQRT] = ay_eval_unary,
    [AY_OP_RSQRT] = ay_eval_unary,       [AY_OP_SIN] = ay_eval_unary,
    [AY_OP_COS] = ay_eval_unary,         [AY_OP_TANH] = ay_eval_unary,
    [AY_OP_ERF] = ay_eval_unary,         [AY_OP_FLOOR] = ay_eval_unary,
    [AY_OP_CEIL] = ay_eval_unary,        [AY_OP_ROUND] = ay_eval_unary,
    [AY_OP_SIGN] = ay_eval_unary,        [AY_OP_NOT] = ay_eval_unary,
    [AY_OP_CAST] = ay_eval_cast,         [AY_OP_ADD] = ay_eval_binary,
    [AY_OP_SUB] = ay_eval_binary,        [AY_OP_MUL] = ay_eval_binary,
    [AY_OP_DIV] = ay_eval_binary,        [AY_OP_MOD] = ay_eval_binary,
    [AY_OP_MAX] = ay_eval_binary,        [AY_OP_MIN] = ay_eval_binary,
    [AY_OP_POW] = ay_eval_binary,        [AY_OP_EQ] = ay_eval_compare,
    [AY_OP_NE] = ay_eval_compare,        [AY_OP_LT] = ay_eval_compare,
    [AY_OP_LE] = ay_eval_compare,        [AY_OP_GT] = ay_eval_compare,
    [AY_OP_GE] = ay_eval_compare,        [AY_OP_AND] = ay_eval_compare,
    [AY_OP_OR] = ay_eval_compare,        [AY_OP_XOR] = ay_eval_compare,
    [AY_OP_WHERE] = ay_eval_where,       [AY_OP_SUM] = ay_eval_reduce,
    [AY_OP_RMAX] = ay_eval_reduce,       [AY_OP_RMIN] = ay_eval_reduce,
    [AY_OP_PROD] = ay_eval_reduce,       [AY_OP_ARGMAX] = ay_eval_argmax,
    [AY_OP_CUMSUM] = ay_eval_cumsum,     [AY_OP_TOPK] = ay_eval_topk,
    [AY_OP_MATMUL] = ay_eval_matmul,     [AY_OP_CONV] = ay_eval_conv,
    [AY_OP_POOL] = ay_eval_pool,         [AY_OP_RESHAPE] = ay_eval_reshape,
    [AY_OP_PERMUTE] = ay_eval_strided,   [AY_OP_EXPAND] = ay_eval_strided,
    [AY_OP_SLICE] = ay_eval_strided,     [AY_OP_CONCAT] = ay_eval_concat,
    [AY_OP_PAD] = ay_eval_pad,           [AY_OP_REVERSE] = ay_eval_strided,
    [AY_OP_GATHER] = ay_eval_gather,     [AY_OP_GATHER_ALONG] = ay_eval_gather_along,
    [AY_OP_LINEAR] = ay_eval_linear,     [AY_OP_SIGMOID] = ay_eval_unary,
    [AY_OP_SILU] = ay_eval_unary,        [AY_OP_GELU] = ay_eval_unary,
    [AY_OP_SOFTMAX] = ay_eval_softmax,   [AY_OP_RMS_NORM] = ay_eval_norm,
    [AY_OP_LAYER_NORM] = ay_eval_norm,   [AY_OP_GROUP_NORM] = ay_eval_norm,
    [AY_OP_ROPE] = ay_eval_rope,         [AY_OP_SDPA] = ay_eval_sdpa,
    [AY_OP_UPSAMPLE] = ay_eval_upsample, [AY_OP_CONV_TRANSPOSE] = ay_eval_conv_transpose,
    [AY_OP_DEQUANT] = ay_eval_dequant,
};

alloy_status ay_eval_node(const ay_call *c) {
    if ((unsigned)c->n->op >= AY_OP_COUNT || !table[c->n->op]) {
        return ay_fail(c->cx, ALLOY_E_INTERNAL, "%s cannot be evaluated", ay_op_get(c->n->op)->name);
    }
    return table[c->n->op](c);
}

/* ---- held values and dense memory ---------------------------------------------------------------------------------- */

/* Integers of 32 bits and more do not pass through float, which would round them. */
static int64_t int_at(ay_dtype t, const void *from, int64_t i) {
    int64_t wide;
    int32_t narrow;
    float f;
    if (t == AY_I64) return memcpy(&wide, (const char *)from + (size_t)i * 8, 8), wide;
    if (t == AY_I32) return memcpy(&narrow, (const char *)from + (size_t)i * 4, 4), narrow;
    ay_convert_to_f32(t, from, i, 1, &f);
    return isnan(f) ? 0 : f >= 2147483648.0f ? INT32_MAX : f <= -2147483648.0f ? INT32_MIN : (int64_t)f;
}

void ay_hold(const ay_array *to, ay_dtype from_dtype, const void *from) {
    if (ay_dtype_is_float(to->type.dtype)) {
        ay_convert_to_f32(from_dtype, from, 0, to->count, to->data);
        return;
    }
    for (int64_t i = 0; i < to->count; i++) {
        float f = 0;
        int64_t v = 0;
        if (to->type.dtype == AY_BOOL || from_dtype == AY_BOOL) ay_convert_to_f32(from_dtype, from, i, 1, &f), v = f != 0;
        else v = int_at(from_dtype, from, i);
        if (to->type.dtype == AY_BOOL) ay_b(to)[i] = (uint8_t)v;
        else ay_i(to)[i] = v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
    }
}

void ay_unhold(const ay_array *from, ay_dtype to_dtype, void *to) {
    ay_dtype t = from->type.dtype;
    if (ay_dtype_is_float(t)) {
        ay_convert_from_f32(to_dtype, ay_f(from), from->count, to);
    } else if (to_dtype == t && (t == AY_I32 || t == AY_BOOL)) {
        memcpy(to, from->data, (size_t)from->count * ay_held_size(t));
    } else if (to_dtype == AY_I64) {
        for (int64_t i = 0; i < from->count; i++) {
            int64_t v = t == AY_BOOL ? ay_b(from)[i] : ay_i(from)[i];
            memcpy((char *)to + (size_t)i * 8, &v, 8);
        }
    } else {
        enum { CHUNK = 64 }; /* a multiple of 8 elements: pieces of packed types begin on whole bytes */
        for (int64_t i = 0; i < from->count; i += CHUNK) {
            float f[CHUNK];
            int64_t n = ay_min_i64(CHUNK, from->count - i);
            for (int64_t j = 0; j < n; j++) f[j] = t == AY_BOOL ? ay_b(from)[i + j] : (float)ay_i(from)[i + j];
            ay_convert_from_f32(to_dtype, f, n, (char *)to + ay_dtype_bytes(to_dtype, i));
        }
    }
}

/* ---- the walk over a graph ----------------------------------------------------------------------------------------- */

typedef struct run {
    const ay_graph *g;
    const ay_tensor *in;
    int n_in;
    ay_array *values;
    int *uses; /* readers still to come */
    bool round_f16;
    int64_t overflows;
} run;

static alloy_status value_alloc(run *r, ay_val v) {
    ay_array *a = &r->values[v];
    a->type = r->g->nodes[v].type;
    a->count = ay_type_count(&a->type);
    a->data = calloc((size_t)a->count, ay_held_size(a->type.dtype));
    return a->data ? ALLOY_OK : ay_nomem(r->g->cx);
}

static void release(run *r, ay_val v) {
    if (--r->uses[v] > 0) return;
    free(r->values[v].data);
    r->values[v].data = NULL;
}

static bool same_shape(const ay_type *a, const ay_type *b) {
    return a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

static alloy_status load_input(run *r, const ay_node *n, const ay_array *to) {
    char a[160], b[160];
    for (int i = 0; i < r->n_in; i++) {
        if (strcmp(r->in[i].name, n->name) != 0) continue;
        if (!same_shape(&r->in[i].type, &n->type)) {
            return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "input \"%s\" is %s, the graph takes %s", n->name,
                           ay_type_text(&r->in[i].type, a), ay_type_text(&n->type, b));
        }
        ay_hold(to, r->in[i].type.dtype, r->in[i].data);
        return ALLOY_OK;
    }
    return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "input \"%s\" (%s) is missing", n->name, ay_type_text(&n->type, a));
}

static alloy_status load_param(run *r, const ay_node *n, const ay_array *to) {
    const ay_weight *w = n->weight;
    if (!w || !w->data || (w->store == AY_STORE_BLOCK && !w->scale) || (w->store == AY_STORE_LUT && !w->lut)) {
        return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "parameter \"%s\" has no data bound to it", n->name);
    }
    if (ay_dtype_is_float(n->type.dtype)) ay_weight_read(w, 0, to->count, to->data);
    else if (w->store == AY_STORE_PLAIN) ay_hold(to, w->data_dtype, w->data);
    else return ay_fail(r->g->cx, ALLOY_E_UNSUPPORTED, "parameter \"%s\" is compressed and used as integers", n->name);
    return ALLOY_OK;
}

static alloy_status compute(run *r, const ay_node *n, ay_array *out) {
    if (n->op == AY_OP_INPUT) return load_input(r, n, out);
    if (n->op == AY_OP_PARAM) return load_param(r, n, out);
    if (n->op == AY_OP_CONST) {
        ay_hold(out, n->type.dtype, n->data);
        return ALLOY_OK;
    }
    const ay_array *few[8], **in = n->n_in > 8 ? malloc((size_t)n->n_in * sizeof *in) : few;
    if (!in) return ay_nomem(r->g->cx);
    for (int i = 0; i < n->n_in; i++) in[i] = &r->values[n->in[i]];
    alloy_status st = ay_eval_node(&(ay_call){r->g->cx, n, in, out});
    if (in != few) free(in);
    return st;
}

static void round_half(run *r, const ay_array *a) {
    for (int64_t i = 0; i < a->count; i++) {
        float before = ay_f(a)[i], after = ay_f16_to_f32(ay_f32_to_f16(before));
        r->overflows += isfinite(before) && !isfinite(after);
        ay_f(a)[i] = after;
    }
}

static alloy_status check_names(const run *r, const ay_tensor *out, int n_out) {
    for (int i = 0; i < r->n_in; i++) {
        if (ay_graph_find(r->g, AY_OP_INPUT, r->in[i].name) != AY_NO_VALUE) continue;
        return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "the graph has no input \"%s\"", r->in[i].name);
    }
    for (int i = 0; i < n_out; i++) {
        char a[160], b[160];
        int k = 0;
        while (k < r->g->n_outputs && strcmp(r->g->outputs[k].name, out[i].name) != 0) k++;
        if (k == r->g->n_outputs) return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "the graph has no output \"%s\"", out[i].name);
        const ay_type *t = ay_type_of(r->g, r->g->outputs[k].value);
        if (!same_shape(t, &out[i].type)) {
            return ay_fail(r->g->cx, ALLOY_E_MISMATCH, "output \"%s\" is %s, asked for as %s", out[i].name,
                           ay_type_text(t, a), ay_type_text(&out[i].type, b));
        }
    }
    return ALLOY_OK;
}

/* Counts readers of what the asked outputs need: nodes with none are not evaluated. */
static void count_uses(run *r, const ay_tensor *out, int n_out) {
    const ay_graph *g = r->g;
    for (int k = 0; k < g->n_outputs; k++) {
        for (int i = 0; i < n_out; i++) r->uses[g->outputs[k].value] += strcmp(out[i].name, g->outputs[k].name) == 0;
    }
    for (ay_val v = g->n_nodes - 1; v >= 0; v--) {
        for (int i = 0; r->uses[v] && i < g->nodes[v].n_in; i++) r->uses[g->nodes[v].in[i]]++;
    }
}

static alloy_status run_all(run *r, const ay_tensor *out, int n_out) {
    const ay_graph *g = r->g;
    for (ay_val v = 0; v < g->n_nodes; v++) {
        const ay_node *n = &g->nodes[v];
        if (!r->uses[v]) continue;
        AY_TRY(ay_check_stop(g->cx));
        AY_TRY(value_alloc(r, v));
        AY_TRY(compute(r, n, &r->values[v]));
        if (r->round_f16 && n->type.dtype == AY_F16) round_half(r, &r->values[v]);
        for (int i = 0; i < n->n_in; i++) release(r, n->in[i]);
    }
    for (int k = 0; k < g->n_outputs; k++) {
        for (int i = 0; i < n_out; i++) {
            if (strcmp(out[i].name, g->outputs[k].name) == 0)
                ay_unhold(&r->values[g->outputs[k].value], out[i].type.dtype, out[i].data);
        }
    }
    return ALLOY_OK;
}

alloy_status ay_eval(const ay_graph *g, const ay_tensor *in, int n_in, ay_tensor *out, int n_out, bool round_f16,
                     int64_t *overflows) {
    run r = {.g = g, .in = in, .n_in = n_in, .round_f16 = round_f16};
    if (overflows) *overflows = 0;
    if (g->status) return g->status;
    AY_TRY(check_names(&r, out, n_out));
    r.values = calloc((size_t)g->n_nodes + 1, sizeof *r.values);
    r.uses = calloc((size_t)g->n_nodes + 1, sizeof *r.uses);
    alloy_status st = ALLOY_OK;
    if (!r.values || !r.uses) {
        st = ay_nomem(g->cx);
    } else {
        count_uses(&r, out, n_out);
        st = run_all(&r, out, n_out);
    }
    for (ay_val v = 0; r.values && v < g->n_nodes; v++) free(r.values[v].data);
    free(r.values);
    free(r.uses);
    if (overflows) *overflows = r.overflows;
    return st;
}
