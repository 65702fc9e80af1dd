/* SPDX-License-Identifier: MIT
 *
 * Types a float32 graph for half precision, in two walks. The first decides in what each node computes: by the first rule
 * that matches it, else float16, except that ops which only move elements follow their input. The second copies the graph,
 * keeping for each float value up to two forms (float16, float32) and making the missing one by a cast when first asked.
 */
#include "ir/graph.h"
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

enum { HALF, FULL, FORMS };
static const ay_dtype dtype_of[FORMS] = {AY_F16, AY_F32};

typedef struct state {
    ay_rewrite r;
    const ay_precision *how;
    unsigned char *form;        /* of each old node: in what it computes, or is stored */
    unsigned char *need;        /* of each old value: bit HALF, bit FULL: forms its readers ask for */
    ay_val (*value)[FORMS];     /* of each old value */
} state;

static bool is_float(const ay_node *n) { return ay_dtype_is_float(n->type.dtype); }

static bool glob(const char *pattern, const char *text) {
    const char *star = NULL, *again = NULL;
    while (*text) {
        if (*pattern == '*') star = ++pattern, again = text;
        else if (*pattern == *text) pattern++, text++;
        else if (star) pattern = star, text = ++again;
        else return false;
    }
    while (*pattern == '*') pattern++;
    return !*pattern;
}

static const ay_precision_rule *rule_of(const ay_precision *how, const ay_node *n) {
    for (const ay_precision_rule *r = how ? how->rules : NULL; r && r->scope; r++) {
        if ((r->op == AY_OP_COUNT || r->op == n->op) && glob(r->scope, n->scope)) return r;
    }
    return NULL;
}

/* ---- first walk: in what each node computes ------------------------------------------------------------------------ */

static bool is_listed(const ay_precision *how, const char *name) {
    for (const char *const *p = how ? how->f32_inputs : NULL; p && *p; p++) {
        if (strcmp(*p, name) == 0) return true;
    }
    return false;
}

/* Ops that hand elements on without computing on them; comparisons follow as well: their result is exact either way. */
static bool follows(ay_op op) {
    switch (op) {
    case AY_OP_RESHAPE: case AY_OP_PERMUTE: case AY_OP_EXPAND: case AY_OP_SLICE: case AY_OP_CONCAT: case AY_OP_PAD:
    case AY_OP_REVERSE: case AY_OP_GATHER: case AY_OP_GATHER_ALONG: case AY_OP_CAST: case AY_OP_ARGMAX: case AY_OP_TOPK:
    case AY_OP_EQ: case AY_OP_NE: case AY_OP_LT: case AY_OP_LE: case AY_OP_GT: case AY_OP_GE: return true;
    default: return false;
    }
}

static bool is_flexible(const ay_node *n) { return n->op == AY_OP_CONST || n->op == AY_OP_PARAM; }

static int form_of(const state *s, const ay_graph *g, ay_val v) {
    const ay_node *n = &g->nodes[v];
    if (n->op == AY_OP_INPUT) return (s->how && s->how->io_f32) || is_listed(s->how, n->name) ? FULL : HALF;
    if (is_flexible(n)) return HALF;
    const ay_precision_rule *rule = rule_of(s->how, n);
    if (rule) return rule->dtype == AY_F32 ? FULL : HALF;
    for (int i = 0; follows(n->op) && i < n->n_in; i++) {
        const ay_node *in = &g->nodes[n->in[i]];
        if (is_float(in) && !is_flexible(in) && s->form[n->in[i]] == FULL && (n->op != AY_OP_CAST || !is_float(n)))
            return FULL;
        if (n->op == AY_OP_CAST && is_float(in) && is_float(n)) return s->form[n->in[i]];
    }
    return HALF;
}

/* The weights and biases of products stay in half precision where the product itself is float32: they hold most of a
 * package's bytes, and Core ML takes them in another type than x (linear, conv, conv_transpose of its opset 7). */
static bool is_product_weight(const ay_node *n, int i, const ay_node *in) {
    bool product = n->op == AY_OP_LINEAR || n->op == AY_OP_CONV || n->op == AY_OP_CONV_TRANSPOSE;
    return product && i > 0 && in->op == AY_OP_PARAM;
}

static void decide(state *s, const ay_graph *g) {
    for (ay_val v = 0; v < g->n_nodes; v++) {
        const ay_node *n = &g->nodes[v];
        s->form[v] = (unsigned char)form_of(s, g, v);
        for (int i = 0; i < n->n_in; i++) {
            int f = is_product_weight(n, i, &g->nodes[n->in[i]]) ? HALF : s->form[v];
            s->need[n->in[i]] |= (unsigned char)(1u << f);
        }
    }
    for (int i = 0; i < g->n_outputs; i++) {
        ay_val v = g->outputs[i].value;
        s->need[v] |= (unsigned char)(1u << (s->how && s->how->io_f32 ? FULL : s->form[v]));
    }
    for (ay_val v = 0; v < g->n_nodes; v++) { /* a parameter read only by float32 stays float32 */
        if (g->nodes[v].op == AY_OP_PARAM && s->need[v] == 1u << FULL) s->form[v] = FULL;
    }
}

/* ---- second walk: values in the forms asked for -------------------------------------------------------------------- */

/* `count` numbers of dtype `from` as dtype `to`, in the arena; finite values stay finite in half precision. */
static const void *converted(ay_graph *g, ay_dtype from, const void *data, int64_t count, ay_dtype to) {
    enum { CHUNK = 1024 };
    char *out = ay_alloc(g->arena, ay_dtype_bytes(to, count));
    float f[CHUNK];
    for (int64_t i = 0; out && i < count; i += CHUNK) {
        int64_t n = ay_min_i64(CHUNK, count - i);
        ay_convert_to_f32(from, data, i, n, f);
        for (int64_t j = 0; to == AY_F16 && j < n; j++) {
            if (f[j] > 65504 && f[j] <= 3.4028235e38f) f[j] = 65504;
            if (f[j] < -65504 && f[j] >= -3.4028235e38f) f[j] = -65504;
        }
        ay_convert_from_f32(to, f, n, out + ay_dtype_bytes(to, i));
    }
    if (!out) g->status = ay_nomem(g->cx);
    return out;
}

static void store_part(ay_graph *g, ay_dtype *dtype, const void **data, int64_t count, ay_dtype to) {
    if (*dtype != AY_F32) return;
    if (*data) *data = converted(g, *dtype, *data, count, to);
    *dtype = to;
}

/* The weight producing dtype `t`: plain float32 numbers, scales and palettes become `t` (bound ones are converted). */
static ay_weight *typed_weight(ay_graph *g, const ay_weight *from, ay_dtype t) {
    ay_weight *w = ay_alloc(g->arena, sizeof *w);
    if (!w) {
        g->status = ay_nomem(g->cx);
        return NULL;
    }
    *w = *from;
    w->value_dtype = t;
    if (t == AY_F32) return w;
    int64_t values = 1, scales = 1, entries = 1;
    for (int i = 0; i < w->rank; i++) values *= w->dim[i], scales *= w->scale_dim[i];
    for (int i = 0; i < w->rank + 2; i++) entries *= w->lut_dim[i];
    if (w->store == AY_STORE_PLAIN) store_part(g, &w->data_dtype, &w->data, values, t);
    if (w->store == AY_STORE_BLOCK) store_part(g, &w->scale_dtype, &w->scale, scales, t);
    if (w->store == AY_STORE_LUT) store_part(g, &w->lut_dtype, &w->lut, entries, t);
    return w;
}

/* A leaf in form f: inputs and parameters in the form they are stored in, consts in any. */
static ay_val leaf_as(state *s, ay_val v, int f) {
    ay_graph *g = s->r.g;
    ay_node n = s->r.old[v];
    ay_dtype t = dtype_of[f];
    if (n.op == AY_OP_CONST && n.type.dtype != t) n.data = converted(g, n.type.dtype, n.data, ay_type_count(&n.type), t);
    if (n.op == AY_OP_PARAM) n.weight = typed_weight(g, n.weight, t);
    n.type.dtype = t;
    return g->status ? AY_NO_VALUE : ay_graph_append(g, &n);
}

static ay_val value_as(state *s, ay_val v, int f) {
    ay_graph *g = s->r.g;
    if (!is_float(&s->r.old[v])) return s->r.map[v];
    if (s->value[v][f] != AY_NO_VALUE) return s->value[v][f];
    if (s->r.old[v].op == AY_OP_CONST) return s->value[v][f] = leaf_as(s, v, f);
    g->scope = s->r.old[v].scope;
    return s->value[v][f] = ay_cast(g, s->value[v][!f], dtype_of[f]);
}

static void rewrite(state *s, ay_val v) {
    ay_graph *g = s->r.g;
    ay_node n = s->r.old[v];
    int f = s->form[v];
    if (is_flexible(&n) || n.op == AY_OP_INPUT) {
        if (!is_float(&n)) ay_rewrite_copy(&s->r, v);
        else if (n.op != AY_OP_CONST) s->value[v][f] = leaf_as(s, v, f);
    } else if (n.op == AY_OP_CAST && is_float(&n) && is_float(&s->r.old[n.in[0]])) {
        for (int i = 0; i < FORMS; i++) s->value[v][i] = s->value[n.in[0]][i]; /* between floats: the forms decide now */
        s->value[v][f] = value_as(s, n.in[0], f);
    } else {
        ay_val *in = ay_alloc(g->arena, (size_t)n.n_in * sizeof *in);
        if (!in) g->status = ay_nomem(g->cx);
        for (int i = 0; in && i < n.n_in; i++) in[i] = value_as(s, n.in[i], is_product_weight(&n, i, &s->r.old[n.in[i]]) ? HALF : f);
        n.in = in;
        if (is_float(&n)) n.type.dtype = dtype_of[f];
        ay_val to = g->status ? AY_NO_VALUE : ay_graph_append(g, &n);
        if (is_float(&n)) s->value[v][f] = to;
        else s->r.map[v] = to;
    }
}

static alloy_status run(state *s, ay_graph *g) {
    decide(s, g);
    AY_TRY(ay_rewrite_begin(&s->r, g));
    for (ay_val v = 0; !g->status && v < s->r.n_old; v++) {
        s->value[v][HALF] = s->value[v][FULL] = AY_NO_VALUE;
        rewrite(s, v);
    }
    for (int i = 0; !g->status && i < g->n_outputs; i++) {
        ay_val v = g->outputs[i].value;
        if (is_float(&s->r.old[v])) s->r.map[v] = value_as(s, v, s->how && s->how->io_f32 ? FULL : s->form[v]);
    }
    return ay_rewrite_end(&s->r);
}

alloy_status ay_pass_precision(ay_graph *g, void *arg) {
    if (g->status) return g->status;
    size_t n = (size_t)g->n_nodes + 1;
    state s = {.how = arg, .form = calloc(n, 1), .need = calloc(n, 1), .value = calloc(n, sizeof *s.value)};
    alloy_status st = s.form && s.need && s.value ? run(&s, g) : ay_nomem(g->cx);
    free(s.form);
    free(s.need);
    free(s.value);
    return st;
}
