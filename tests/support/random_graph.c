/* SPDX-License-Identifier: MIT
 *
 * See random_graph.h. Attributes are drawn without regard to whether they fit: inference judges each candidate, and what it
 * refuses is left out; so the drawing also shows that inference survives anything.
 */
#include "random_graph.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NODES = 60, MOST_ELEMENTS = 4096 };

typedef struct maker {
    ay_graph *g;
    const uint8_t *p;
    size_t n, at;
    bool smooth;
    int params;
} maker;

static unsigned draw(maker *m, unsigned below) {
    unsigned v = m->at < m->n ? m->p[m->at++] : 0;
    return below ? v % below : v;
}

static bool done(const maker *m) { return m->at >= m->n || m->g->n_nodes >= MOST_NODES || m->g->status; }

/* Numbers in [-2, 2) that follow from the place in the byte string only. */
static void fill(maker *m, float *to, int64_t count) {
    uint32_t x = 2463534242u + (uint32_t)m->at * 7919u;
    for (int64_t i = 0; i < count; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        to[i] = (float)(x >> 24) / 64 - 2;
    }
}

static ay_type shape(maker *m, ay_dtype t) {
    static const int64_t sizes[] = {1, 2, 3, 4, 6, 8};
    ay_type type = {.dtype = t, .rank = 1 + (int)draw(m, 4)};
    for (int i = 0; i < type.rank; i++) type.dim[i] = sizes[draw(m, 6)];
    return type;
}

static ay_val pick(maker *m) { return (ay_val)draw(m, (unsigned)m->g->n_nodes); }

/* A value of dtype t, looking back from a random place; AY_NO_VALUE if there is none. */
static ay_val pick_dtype(maker *m, ay_dtype t) {
    int n = m->g->n_nodes, from = pick(m);
    for (int i = 0; i < n; i++) {
        ay_val v = (from + n - i) % n;
        if (m->g->nodes[v].type.dtype == t) return v;
    }
    return AY_NO_VALUE;
}

static ay_val param(maker *m, int rank, const int64_t *dim) {
    char name[16];
    ay_type t = {.dtype = AY_F32, .rank = rank};
    for (int i = 0; i < rank; i++) t.dim[i] = dim[i];
    int64_t count = ay_type_count(&t);
    if (count < 1 || count > MOST_ELEMENTS) return AY_NO_VALUE;
    snprintf(name, sizeof name, "w%d", m->params++);
    ay_val v = ay_param(m->g, name, t);
    float *data = v == AY_NO_VALUE ? NULL : ay_alloc(m->g->arena, (size_t)count * 4);
    if (!data) return AY_NO_VALUE;
    fill(m, data, count);
    m->g->nodes[v].weight->data = data;
    return v;
}

static void draw_windows(maker *m, ay_attr *a, bool pool) {
    for (int i = 0; i < 3; i++) {
        int64_t *stride = pool ? &a->pool.stride[i] : &a->conv.stride[i];
        *stride = 1 + draw(m, 3);
        *(pool ? &a->pool.kernel[i] : &a->conv.dilation[i]) = 1 + draw(m, 3);
        *(pool ? &a->pool.before[i] : &a->conv.before[i]) = draw(m, 3);
        *(pool ? &a->pool.after[i] : &a->conv.after[i]) = draw(m, 3);
    }
    if (pool) a->pool.average = m->smooth || draw(m, 2), a->pool.count_padding = draw(m, 2);
    else a->conv.groups = 1 + draw(m, 2);
}

static void draw_attr(maker *m, ay_op op, int rank, ay_attr *a) {
    int axis = (int)draw(m, 8) - 4;
    memset(a, 0, sizeof *a);
    switch (op) {
    case AY_OP_SUM: case AY_OP_RMAX: case AY_OP_RMIN: case AY_OP_PROD: case AY_OP_ARGMAX: case AY_OP_REVERSE:
        a->reduce.n = 1 + (int)draw(m, 2);
        for (int i = 0; i < 2; i++) a->reduce.axes[i] = axis + i;
        a->reduce.keep = draw(m, 2);
        a->reduce.largest = draw(m, 2);
        break;
    case AY_OP_CUMSUM:
        a->scan.axis = axis, a->scan.exclusive = draw(m, 2), a->scan.reverse = draw(m, 2);
        break;
    case AY_OP_TOPK:
        a->topk.axis = axis, a->topk.k = draw(m, 4), a->topk.largest = draw(m, 2), a->topk.indices = draw(m, 2);
        break;
    case AY_OP_PERMUTE: {
        int turn = (int)draw(m, 6);
        for (int i = 0; i < rank; i++) a->permute.perm[i] = (i + turn) % rank;
        break;
    }
    case AY_OP_PAD:
        for (int i = 0; i < rank; i++) a->pad.before[i] = draw(m, 3), a->pad.after[i] = draw(m, 3);
        a->pad.mode = (ay_pad_mode)draw(m, 3);
        a->pad.value = 1.5;
        break;
    case AY_OP_SLICE:
        for (int i = 0; i < rank; i++) a->slice.begin[i] = draw(m, 3), a->slice.stride[i] = (int)draw(m, 4) - 1;
        break;
    case AY_OP_MATMUL: a->matmul.ta = draw(m, 2), a->matmul.tb = draw(m, 2); break;
    case AY_OP_CONV: case AY_OP_CONV_TRANSPOSE: draw_windows(m, a, false); break;
    case AY_OP_POOL: draw_windows(m, a, true); break;
    case AY_OP_GATHER: case AY_OP_GATHER_ALONG: a->gather.axis = axis, a->gather.batch_dims = (int)draw(m, 2); break;
    case AY_OP_CONCAT: case AY_OP_SOFTMAX: a->axis = axis; break;
    case AY_OP_RMS_NORM: case AY_OP_LAYER_NORM: case AY_OP_GROUP_NORM:
        a->norm.n = 1 + (int)draw(m, 2);
        for (int i = 0; i < 2; i++) a->norm.axes[i] = (axis < 0 ? axis : -1) + i;
        a->norm.groups = 1 + draw(m, 3);
        a->norm.eps = 0.05;
        break;
    case AY_OP_GELU: a->gelu.mode = (ay_gelu_mode)draw(m, 3); break;
    case AY_OP_ROPE: a->rope.interleaved = draw(m, 2); break;
    case AY_OP_SDPA: a->sdpa.scale = 0.25 * (1 + draw(m, 4)); break;
    case AY_OP_UPSAMPLE:
        a->upsample.fh = 1 + draw(m, 3), a->upsample.fw = 1 + draw(m, 3), a->upsample.bilinear = draw(m, 2);
        a->upsample.align_corners = draw(m, 2), a->upsample.half_pixel = draw(m, 2);
        break;
    default: break;
    }
}

/* The shape wanted of reshape, expand, slice: something near the input's. */
static void draw_want(maker *m, ay_op op, const ay_type *x, ay_type *want) {
    *want = *x;
    if (op == AY_OP_CAST) want->dtype = draw(m, 2) ? AY_I32 : AY_F32;
    if (op == AY_OP_SLICE) {
        for (int i = 0; i < x->rank; i++) want->dim[i] = 1 + draw(m, 3);
    } else if (op == AY_OP_EXPAND) {
        want->rank += x->rank < 5;
        for (int i = want->rank - 1; i > 0; i--)
            want->dim[i] = x->dim[i - (want->rank - x->rank)] == 1 ? 1 + draw(m, 3) : x->dim[i - (want->rank - x->rank)];
        want->dim[0] = want->rank > x->rank ? 1 + draw(m, 3) : x->dim[0];
    } else if (op == AY_OP_RESHAPE && x->rank) {
        int at = (int)draw(m, (unsigned)x->rank), kind = (int)draw(m, 3);
        if (kind == 0 && x->rank < 5) { /* split one dim by 2 */
            for (int i = x->rank; i > at; i--) want->dim[i] = want->dim[i - 1];
            want->dim[at] = 2;
            want->dim[at + 1] = -1;
            want->rank++;
        } else if (kind == 1 && at > 0) { /* merge with the dim before */
            want->dim[at - 1] *= want->dim[at];
            for (int i = at; i + 1 < x->rank; i++) want->dim[i] = want->dim[i + 1];
            want->rank--;
        } else {
            want->rank = 2;
            want->dim[0] = x->dim[0];
            want->dim[1] = -1;
        }
    }
}

/* Inputs beside the first: weights of the right shape for what takes weights, else other values. */
static int draw_inputs(maker *m, ay_op op, ay_val x, ay_val *in) {
    const ay_type t = *ay_type_of(m->g, x);
    int last = t.rank - 1, extra = (int)draw(m, 3);
    in[0] = x;
    switch (op) {
    case AY_OP_LINEAR:
        in[1] = t.rank ? param(m, 2, (int64_t[]){1 + draw(m, 6), t.dim[last]}) : AY_NO_VALUE;
        in[2] = extra ? param(m, 1, &m->g->nodes[in[1] < 0 ? 0 : in[1]].type.dim[0]) : AY_NO_VALUE;
        return extra ? 3 : 2;
    case AY_OP_CONV: case AY_OP_CONV_TRANSPOSE: {
        int64_t dim[AY_MAX_RANK] = {1 + draw(m, 4), 1 + draw(m, 4), 1 + draw(m, 3), 1 + draw(m, 3), 1 + draw(m, 3)};
        if (t.rank < 3) return 0;
        dim[op == AY_OP_CONV ? 1 : 0] = t.dim[1];
        in[1] = param(m, t.rank, dim);
        in[2] = param(m, 1, &dim[op == AY_OP_CONV ? 0 : 1]);
        return extra ? 3 : 2;
    }
    case AY_OP_RMS_NORM:
        in[1] = t.rank ? param(m, 1, &t.dim[last]) : AY_NO_VALUE;
        return 1 + (extra > 0);
    case AY_OP_LAYER_NORM:
        in[1] = in[2] = t.rank ? param(m, 1, &t.dim[last]) : AY_NO_VALUE;
        return 1 + extra;
    case AY_OP_GROUP_NORM:
        in[1] = in[2] = t.rank > 1 ? param(m, 1, &t.dim[1]) : AY_NO_VALUE;
        return 1 + extra;
    case AY_OP_ROPE:
        in[1] = param(m, 1, &t.dim[last > 0 ? last : 0]);
        in[2] = param(m, 1, &t.dim[last > 0 ? last : 0]);
        return 3;
    case AY_OP_SDPA:
        in[1] = in[2] = draw(m, 2) ? x : pick_dtype(m, AY_F32);
        in[3] = pick_dtype(m, draw(m, 2) ? AY_F32 : AY_BOOL);
        return extra ? 3 : 4;
    case AY_OP_WHERE:
        in[0] = pick_dtype(m, AY_BOOL);
        in[1] = x;
        in[2] = pick_dtype(m, AY_F32);
        return 3;
    case AY_OP_GATHER: case AY_OP_GATHER_ALONG: in[1] = pick_dtype(m, AY_I32); return 2;
    case AY_OP_CONCAT:
        for (int i = 1; i <= extra; i++) in[i] = draw(m, 2) ? x : pick_dtype(m, t.dtype);
        return 1 + extra;
    default: break;
    }
    if (ay_op_get(op)->least == 2) {
        in[1] = extra == 0 ? ay_const_f32(m->g, (int)draw(m, 5) - 2) : draw(m, 4) ? pick_dtype(m, t.dtype) : x;
        if (draw(m, 2)) in[0] = in[1], in[1] = x;
        return 2;
    }
    return 1;
}

/* Ops that jump, or make small errors large. */
static bool rough(ay_op op) {
    switch (op) {
    case AY_OP_EXP: case AY_OP_LOG: case AY_OP_SQRT: case AY_OP_RSQRT: case AY_OP_FLOOR: case AY_OP_CEIL: case AY_OP_ROUND:
    case AY_OP_SIGN:
    case AY_OP_NOT:
    case AY_OP_CAST:
    case AY_OP_DIV:
    case AY_OP_MOD:
    case AY_OP_POW:
    case AY_OP_EQ:
    case AY_OP_NE:
    case AY_OP_LT:
    case AY_OP_LE:
    case AY_OP_GT:
    case AY_OP_GE:
    case AY_OP_AND:
    case AY_OP_OR:
    case AY_OP_XOR:
    case AY_OP_ARGMAX:
    case AY_OP_TOPK: case AY_OP_PROD: case AY_OP_DEQUANT: return true;
    default: return false;
    }
}

static void add_node(maker *m) {
    ay_op op = (ay_op)(AY_OP_CONST + 1 + (int)draw(m, AY_OP_COUNT - AY_OP_CONST - 1));
    ay_val in[5], x = pick(m);
    ay_attr attr;
    ay_type want;
    bool twin = draw(m, 6) == 0; /* an earlier node's op on the same inputs: what merging must tell apart */
    const ay_node *from = &m->g->nodes[x];
    int n_in = from->n_in;
    twin = twin && n_in > 0 && n_in <= 5;
    if (twin) {
        op = from->op;
        memcpy(in, from->in, (size_t)n_in * sizeof *in);
        x = in[0];
    }
    if (m->smooth && rough(op)) return;
    if (!twin) n_in = draw_inputs(m, op, x, in);
    if (m->g->status || n_in < 1) return;
    draw_attr(m, op, ay_type_of(m->g, x)->rank, &attr);
    draw_want(m, op, ay_type_of(m->g, x), &want);
    bool wants = op == AY_OP_RESHAPE || op == AY_OP_EXPAND || op == AY_OP_SLICE || op == AY_OP_CAST;
    if (!wants) memset(&want, 0, sizeof want);
    ay_node n = {.op = op, .type = want, .attr = attr, .n_in = n_in, .in = in, .scope = ""};
    if (ay_infer(m->g, &n) || ay_type_count(&n.type) > MOST_ELEMENTS) return;
    ay_push(m->g, "s%d", m->g->n_nodes % 4);
    ay_node_add(m->g, op, in, n_in, &attr, wants ? &want : NULL);
    ay_pop(m->g);
}

static void add_input(maker *m, random_graph *r, ay_dtype t) {
    static const char *const names[] = {"a", "b", "c", "d"};
    ay_tensor *x = &r->in[r->n_in];
    *x = (ay_tensor){names[r->n_in], shape(m, t), NULL};
    r->n_in++;
    ay_input(m->g, x->name, x->type);
    int64_t count = ay_type_count(&x->type);
    float *f = ay_alloc(m->g->arena, (size_t)count * 4);
    x->data = ay_alloc(m->g->arena, (size_t)count * 4);
    if (!f || !x->data) return;
    fill(m, f, count);
    for (int64_t i = 0; i < count; i++) {
        if (t == AY_F32) ((float *)x->data)[i] = f[i];
        else if (t == AY_I32) ((int32_t *)x->data)[i] = (int32_t)f[i];
        else ((uint8_t *)x->data)[i] = f[i] > 0;
    }
}

bool random_graph_make(ay_ctx *cx, const uint8_t *bytes, size_t n, bool smooth, random_graph *out) {
    static const char *const names[] = {"y0", "y1", "y2"};
    maker m = {.g = ay_graph_new(cx), .p = bytes, .n = n, .smooth = smooth};
    *out = (random_graph){.g = m.g};
    if (!m.g) return false;
    add_input(&m, out, AY_F32);
    add_input(&m, out, AY_F32);
    add_input(&m, out, AY_I32);
    add_input(&m, out, AY_BOOL);
    while (!done(&m)) add_node(&m);
    for (int i = 0; i < 3 && i < m.g->n_nodes && !m.g->status; i++) {
        ay_val v = m.g->n_nodes - 1 - i * (1 + (int)(n % 3));
        if (v < 0) break;
        out->out[i] = (ay_tensor){names[i], m.g->nodes[v].type, NULL};
        out->n_out++;
        ay_set_output(m.g, names[i], v);
    }
    return m.g->status == ALLOY_OK;
}

alloy_status random_graph_eval(const random_graph *r, const ay_graph *g, void *data[3]) {
    ay_tensor out[3];
    for (int i = 0; i < 3; i++) data[i] = NULL;
    for (int i = 0; i < r->n_out; i++) {
        out[i] = r->out[i];
        out[i].data = data[i] = malloc((size_t)ay_type_count(&out[i].type) * 4);
    }
    return ay_eval(g, r->in, r->n_in, out, r->n_out, false, NULL);
}

void random_graph_free_data(void *data[3]) {
    for (int i = 0; i < 3; i++) free(data[i]);
}

static bool judged(const ay_type *t, const float *a, double *most) {
    *most = 0.1; /* below this, cancellation */
    for (int64_t i = 0; i < ay_type_count(t); i++) {
        if (!isfinite(a[i]) || fabs((double)a[i]) > 1e4) return false;
        *most = fmax(*most, fabs((double)a[i]));
    }
    return true;
}

bool random_graph_equal(const random_graph *r, void *const a[3], void *const b[3], double tol) {
    for (int k = 0; k < r->n_out; k++) {
        const ay_type *t = &r->out[k].type;
        int64_t count = ay_type_count(t);
        double most;
        if (t->dtype != AY_F32) {
            if (memcmp(a[k], b[k], (size_t)count * (t->dtype == AY_BOOL ? 1 : 4)) == 0) continue;
            fprintf(stderr, "%s differs\n", r->out[k].name);
            return false;
        }
        if (tol > 0 && !judged(t, a[k], &most)) continue;
        for (int64_t i = 0; i < count; i++) {
            float x = ((float *)a[k])[i], y = ((float *)b[k])[i];
            if (x == y || (isnan(x) && isnan(y)) || (tol > 0 && fabs((double)x - y) <= tol * most)) continue;
            fprintf(stderr, "%s, element %d: %.9g became %.9g\n", r->out[k].name, (int)i, (double)x, (double)y);
            return false;
        }
    }
    return true;
}
