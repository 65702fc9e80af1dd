/* SPDX-License-Identifier: MIT
 *
 * Operands of steps: values as they lie or row-major, consts, and weights. A weight that a product, convolution or gather
 * reads is left in the mapped file (ay_plan_weight); any other use needs numbers: where the file already has them as the
 * engine holds them they are used in place, small ones are made once at compile, large ones by a step in each run.
 */
#include "cpu/convert.h"
#include "cpu/plan.h"

#include <string.h>

enum {
    KEEP_BYTES = 256 << 10, /* the largest table kept as float32 with the program */
    WEIGHT_TILE = 1 << 14   /* elements a tile of a weight step */
};

alloy_status ay_plan_new(ay_plan *pl, ay_kind kind, int rank, const int64_t *dim, ay_view *out) {
    ay_view v = {.kind = kind, .rank = rank};
    memcpy(v.dim, dim, (size_t)rank * sizeof *dim);
    ay_view_set_dense(&v);
    v.buf = ay_plan_buffer(pl, AY_HOME_SLAB, (size_t)ay_view_count(&v) * ay_kind_size(kind), NULL);
    if (v.buf < 0) return ay_nomem(pl->cx);
    *out = v;
    return ALLOY_OK;
}

void ay_plan_set_view(ay_plan *pl, ay_val v, const ay_view *view) {
    pl->val[v].view = *view;
    pl->val[v].ready = true;
}

alloy_status ay_plan_out(ay_plan *pl, const ay_fused *f, ay_view *out) {
    const ay_type *t = ay_type_of(pl->g, f->result);
    if (pl->val[f->result].placed) *out = pl->val[f->result].place;
    else AY_TRY(ay_plan_new(pl, ay_kind_of(t->dtype), t->rank, t->dim, out));
    ay_plan_set_view(pl, f->result, out);
    return ALLOY_OK;
}

alloy_status ay_plan_out_like(ay_plan *pl, const ay_fused *f, const ay_view *like, ay_view *out) {
    AY_TRY(ay_plan_out(pl, f, out));
    int order[AY_MAX_RANK];
    if (pl->val[f->result].placed || !ay_view_order(like, order)) return ALLOY_OK;
    int64_t s = 1;
    for (int i = like->rank - 1; i >= 0; i--) {
        out->stride[order[i]] = s;
        s *= out->dim[order[i]];
    }
    ay_plan_set_view(pl, f->result, out);
    return ALLOY_OK;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

bool ay_plan_cast_is_free(const ay_plan *pl, const ay_node *n) {
    ay_dtype from = ay_type_of(pl->g, n->in[0])->dtype, to = n->type.dtype;
    if (ay_kind_of(from) != ay_kind_of(to)) return false;
    if (!ay_dtype_is_float(to)) return from == to || to == AY_I32 || to == AY_I64; /* a narrower integer type clips */
    return !pl->emulate || to != AY_F16 || from == AY_F16;
}

bool ay_plan_weight(const ay_plan *pl, ay_val v, ay_weight *out) {
    const ay_type *type = ay_type_of(pl->g, v);
    if (!ay_dtype_is_float(type->dtype)) return false;
    const ay_node *n = ay_plan_node(pl, v);
    bool reshaped = false;
    while (n->op == AY_OP_CAST || n->op == AY_OP_RESHAPE) {
        if (n->op == AY_OP_CAST && !ay_plan_cast_is_free(pl, n)) return false;
        reshaped |= n->op == AY_OP_RESHAPE;
        n = ay_plan_node(pl, n->in[0]);
    }
    if (n->op == AY_OP_PARAM) *out = *n->weight;
    else if (n->op == AY_OP_CONST) *out = ay_weight_plain(&n->type, n->data);
    else return false;
    if (!reshaped) return true;
    if (out->store != AY_STORE_PLAIN) return false; /* blocks and palettes are counted along the stored dims */
    out->rank = type->rank;
    memcpy(out->dim, type->dim, sizeof out->dim);
    return true;
}

typedef struct weight_args {
    ay_weight w;
    ay_kind kind;
    int64_t count;
    ay_ref y;
} weight_args;

typedef struct weight_job {
    const weight_args *a;
    void *y;
} weight_job;

static void read_weight(const ay_weight *w, ay_kind kind, int64_t begin, int64_t n, void *out) {
    if (kind == AY_KIND_F32) ay_weight_read(w, begin, n, out);
    else ay_convert_to_kind(kind, w->data_dtype, w->data, begin, n, out);
}

static void weight_tile(void *arg, int64_t tile, int thread) {
    const weight_job *j = arg;
    int64_t begin = tile * WEIGHT_TILE, n = ay_min_i64(WEIGHT_TILE, j->a->count - begin);
    read_weight(&j->a->w, j->a->kind, begin, n, (char *)j->y + (size_t)begin * ay_kind_size(j->a->kind));
}

static alloy_status run_weight(ay_run *r, const ay_step *s) {
    weight_job j = {s->args, ay_at(r, ((const weight_args *)s->args)->y)};
    ay_parallel(r->ex.pool, ay_div_up(j.a->count, WEIGHT_TILE), weight_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

alloy_status ay_add_weight_step(ay_plan *pl, const ay_weight *w, const ay_view *to) {
    weight_args a = {.w = *w, .kind = to->kind, .count = ay_view_count(to)};
    ay_step *s = ay_step_add(pl, run_weight, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((weight_args *)s->args)->y = ay_step_write(s, to);
    ay_step_weight(s, &((const weight_args *)s->args)->w);
    ay_step_what(pl, s, "read weight %s x%lld", ay_dtype_name(w->data_dtype), (long long)a.count);
    s->bytes = (double)ay_weight_data_bytes(w) + 4.0 * (double)a.count;
    return ALLOY_OK;
}

static alloy_status view_of_fixed(ay_plan *pl, const ay_type *t, const void *data, ay_view *out) {
    *out = (ay_view){.kind = ay_kind_of(t->dtype), .rank = t->rank};
    memcpy(out->dim, t->dim, sizeof out->dim);
    ay_view_set_dense(out);
    size_t bytes = (size_t)ay_view_count(out) * ay_kind_size(out->kind);
    out->buf = ay_plan_buffer(pl, AY_HOME_FIXED, bytes, (void *)(uintptr_t)data);
    return out->buf < 0 ? ay_nomem(pl->cx) : ALLOY_OK;
}

static alloy_status param_view(ay_plan *pl, ay_val v, ay_view *out) {
    const ay_node *n = ay_plan_node(pl, v);
    const ay_weight *w = n->weight;
    ay_kind kind = ay_kind_of(n->type.dtype);
    bool plain = w->store == AY_STORE_PLAIN;
    if (kind != AY_KIND_F32 && !plain) return ay_plan_fail(pl, "weight %s: an integer table must be stored plain", n->name);
    size_t bytes = (size_t)ay_type_count(&n->type) * ay_kind_size(kind);
    if (plain && ay_kind_is_native(kind, w->data_dtype, w->data)) {
        AY_TRY(view_of_fixed(pl, &n->type, w->data, out));
    } else if (bytes <= KEEP_BYTES && pl->p->fixed_bytes + bytes <= pl->keep_limit) {
        void *data = ay_plan_keep(pl, bytes);
        if (!data) return ay_nomem(pl->cx);
        read_weight(w, kind, 0, ay_type_count(&n->type), data);
        AY_TRY(view_of_fixed(pl, &n->type, data, out));
    } else { /* not remembered: two users far apart would keep it in the slab all the time between */
        AY_TRY(ay_plan_new(pl, kind, n->type.rank, n->type.dim, out));
        return ay_add_weight_step(pl, w, out);
    }
    ay_plan_set_view(pl, v, out);
    return ALLOY_OK;
}

/* The view that `v` is of a parameter, through nothing but views, as if all of that lay in a buffer; false where it is none. */
static bool seen_of_param(const ay_plan *pl, ay_val v, const ay_node **param, ay_view *out) {
    const ay_node *way[8], *n = ay_plan_node(pl, v);
    int steps = 0;
    for (; n->op != AY_OP_PARAM; n = ay_plan_node(pl, n->in[0])) {
        if (steps == (int)(sizeof way / sizeof *way) || !ay_plan_is_view(pl, n)) return false;
        way[steps++] = n;
    }
    *param = n;
    *out = (ay_view){.buf = -1, .kind = ay_kind_of(n->type.dtype), .rank = n->type.rank};
    memcpy(out->dim, n->type.dim, sizeof out->dim);
    ay_view_set_dense(out);
    while (steps > 0) {
        ay_view x = *out;
        if (!ay_view_through(way[--steps], &x, out)) return false;
    }
    return true;
}

alloy_status ay_plan_part(ay_plan *pl, ay_val v, ay_view *out, bool *done) {
    const ay_node *n;
    ay_view x, part;
    *done = false;
    if (!seen_of_param(pl, v, &n, &x)) return ALLOY_OK;
    ay_weight w = *n->weight;
    int64_t span = 1, total = ay_type_count(&n->type);
    bool whole = w.store != AY_STORE_PLAIN || ay_dtype_bits(w.data_dtype) < 8 || ay_kind_is_native(x.kind, w.data_dtype, w.data) ||
                 (size_t)total * ay_kind_size(x.kind) <= KEEP_BYTES;
    for (int i = 0; i < x.rank && !whole; i++) {
        whole = x.stride[i] < 0;
        span += (x.dim[i] - 1) * x.stride[i];
    }
    if (whole || ay_view_count(&x) == 0 || span > total / 2) return ALLOY_OK;
    w.data = (const char *)w.data + (size_t)x.off * ay_dtype_bits(w.data_dtype) / 8;
    w.rank = 1;
    w.dim[0] = span;
    AY_TRY(ay_plan_new(pl, x.kind, 1, &span, &part));
    x.buf = part.buf;
    x.off = part.off;
    *out = x;
    *done = true;
    return ay_add_weight_step(pl, &w, &part);
}

static alloy_status const_view(ay_plan *pl, ay_val v, ay_view *out) {
    const ay_node *n = ay_plan_node(pl, v);
    ay_kind kind = ay_kind_of(n->type.dtype);
    int64_t count = ay_type_count(&n->type);
    const void *data = n->data;
    if (!ay_kind_is_native(kind, n->type.dtype, data)) {
        void *copy = ay_plan_keep(pl, (size_t)count * ay_kind_size(kind));
        if (!copy) return ay_nomem(pl->cx);
        ay_convert_to_kind(kind, n->type.dtype, data, 0, count, copy);
        data = copy;
    }
    AY_TRY(view_of_fixed(pl, &n->type, data, out));
    ay_plan_set_view(pl, v, out);
    return ALLOY_OK;
}

static alloy_status input_view(ay_plan *pl, ay_val v, ay_view *out) {
    const ay_node *n = ay_plan_node(pl, v);
    for (int i = 0; i < pl->p->n_inputs; i++) {
        if (strcmp(pl->p->inputs[i].name, n->name) != 0) continue;
        *out = (ay_view){.kind = ay_kind_of(n->type.dtype), .rank = n->type.rank};
        memcpy(out->dim, n->type.dim, sizeof out->dim);
        ay_view_set_dense(out);
        out->buf = ay_plan_buffer(pl, AY_HOME_INPUT, (size_t)ay_view_count(out) * ay_kind_size(out->kind), NULL);
        if (out->buf < 0) return ay_nomem(pl->cx);
        pl->p->inputs[i].buf = out->buf;
        ay_plan_set_view(pl, v, out);
        return ay_add_input_step(pl, i, out);
    }
    return ay_plan_fail(pl, "input %s is not among the graph's inputs", n->name);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

alloy_status ay_plan_view(ay_plan *pl, ay_val v, ay_view *out) {
    const ay_node *n = ay_plan_node(pl, v);
    if (pl->val[v].ready) return *out = pl->val[v].view, ALLOY_OK;
    if (n->op == AY_OP_PARAM) return param_view(pl, v, out);
    if (n->op == AY_OP_CONST) return const_view(pl, v, out);
    if (n->op == AY_OP_INPUT) return input_view(pl, v, out);
    if (ay_plan_is_view(pl, n)) {
        AY_TRY(ay_view_of_node(pl, v, out));
        if (pl->val[n->in[0]].ready) ay_plan_set_view(pl, v, out);
        return ALLOY_OK;
    }
    return ay_plan_fail(pl, "value %d (%s) is used before it is made", (int)v, ay_op_get(n->op)->name);
}

alloy_status ay_plan_copy(ay_plan *pl, const ay_view *from, ay_view *out) {
    AY_TRY(ay_plan_new(pl, from->kind, from->rank, from->dim, out));
    return ay_add_copy_step(pl, from, out);
}

alloy_status ay_plan_dense(ay_plan *pl, ay_val v, ay_view *out) {
    ay_value_plan *vp = &pl->val[v];
    if (vp->has_dense) return *out = vp->dense, ALLOY_OK;
    AY_TRY(ay_plan_view(pl, v, out));
    if (ay_view_is_dense(out)) return ALLOY_OK;
    ay_view from = *out;
    AY_TRY(ay_plan_copy(pl, &from, out));
    if (vp->ready) {
        vp->dense = *out;
        vp->has_dense = true;
    }
    return ALLOY_OK;
}
