/* SPDX-License-Identifier: MIT
 *
 * Reference evaluation: movement. Elements are 4 bytes or 1 and are never looked at.
 */
#include "ir/eval.h"

#include <stdlib.h>
#include <string.h>

void ay_row_strides(const ay_type *t, int64_t stride[AY_MAX_RANK]) {
    int64_t s = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        stride[i] = s;
        s *= t->dim[i];
    }
}

void ay_walk_start(ay_walk *w, const ay_type *over) {
    memset(w, 0, sizeof *w);
    w->rank = over->rank;
    memcpy(w->dim, over->dim, sizeof w->dim);
}

int ay_walk_operand(ay_walk *w, const ay_type *t) {
    int64_t stride[AY_MAX_RANK];
    ay_row_strides(t, stride);
    for (int i = 0; i < t->rank; i++) w->stride[w->operands][i + w->rank - t->rank] = t->dim[i] == 1 ? 0 : stride[i];
    return w->operands++;
}

void ay_walk_next(ay_walk *w) {
    for (int d = w->rank - 1; d >= 0; d--) {
        for (int k = 0; k < w->operands; k++) w->offset[k] += w->stride[k][d];
        if (++w->at[d] < w->dim[d]) return;
        w->at[d] = 0;
        for (int k = 0; k < w->operands; k++) w->offset[k] -= w->stride[k][d] * w->dim[d];
    }
}

ay_split ay_split_at(const ay_type *t, int axis) {
    ay_split s = {1, t->dim[axis], 1};
    for (int i = 0; i < axis; i++) s.outer *= t->dim[i];
    for (int i = axis + 1; i < t->rank; i++) s.inner *= t->dim[i];
    return s;
}

static void copy_one(const ay_array *to, int64_t i, const ay_array *from, int64_t j, size_t size) {
    memcpy((char *)to->data + (size_t)i * size, (const char *)from->data + (size_t)j * size, size);
}

alloy_status ay_eval_reshape(const ay_call *c) {
    memcpy(c->out->data, c->in[0]->data, (size_t)c->out->count * ay_held_size(c->out->type.dtype));
    return ALLOY_OK;
}

/* Permute, expand, slice, reverse: the result walks over the input with strides of its own. */
alloy_status ay_eval_strided(const ay_call *c) {
    const ay_node *n = c->n;
    const ay_type *x = &c->in[0]->type;
    size_t size = ay_held_size(x->dtype);
    int64_t stride[AY_MAX_RANK];
    ay_walk w;
    ay_walk_start(&w, &c->out->type);
    ay_row_strides(x, stride);
    if (n->op == AY_OP_EXPAND) ay_walk_operand(&w, x);
    else w.operands = 1;
    for (int i = 0; n->op == AY_OP_PERMUTE && i < x->rank; i++) w.stride[0][i] = stride[n->attr.permute.perm[i]];
    for (int i = 0; n->op == AY_OP_SLICE && i < x->rank; i++) {
        w.stride[0][i] = stride[i] * n->attr.slice.stride[i];
        w.offset[0] += stride[i] * n->attr.slice.begin[i];
    }
    for (int i = 0; n->op == AY_OP_REVERSE && i < x->rank; i++) w.stride[0][i] = stride[i];
    for (int i = 0; n->op == AY_OP_REVERSE && i < n->attr.reduce.n; i++) {
        int axis = n->attr.reduce.axes[i];
        w.stride[0][axis] = -stride[axis];
        w.offset[0] += stride[axis] * (x->dim[axis] - 1);
    }
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) copy_one(c->out, i, c->in[0], w.offset[0], size);
    return ALLOY_OK;
}

alloy_status ay_eval_concat(const ay_call *c) {
    size_t size = ay_held_size(c->out->type.dtype);
    ay_split to = ay_split_at(&c->out->type, c->n->attr.axis);
    int64_t done = 0;
    for (int k = 0; k < c->n->n_in; k++) {
        ay_split from = ay_split_at(&c->in[k]->type, c->n->attr.axis);
        size_t bytes = (size_t)(from.size * from.inner) * size;
        for (int64_t o = 0; o < from.outer; o++) {
            memcpy((char *)c->out->data + (size_t)((o * to.size + done) * to.inner) * size,
                   (char *)c->in[k]->data + (size_t)o * bytes, bytes);
        }
        done += from.size;
    }
    return ALLOY_OK;
}

/* The constant of a padding in held form. */
static void pad_value(ay_dtype t, double v, void *to) {
    float f = (float)v;
    int32_t i = v >= 2147483647.0 ? INT32_MAX : v > -2147483648.0 ? (int32_t)v : INT32_MIN;
    uint8_t b = v != 0;
    if (ay_dtype_is_float(t)) memcpy(to, &f, 4);
    else if (t == AY_BOOL) memcpy(to, &b, 1);
    else memcpy(to, &i, 4);
}

alloy_status ay_eval_pad(const ay_call *c) {
    const ay_type *x = &c->in[0]->type;
    size_t size = ay_held_size(x->dtype);
    int64_t stride[AY_MAX_RANK];
    char constant[4];
    ay_walk w;
    pad_value(x->dtype, c->n->attr.pad.value, constant);
    ay_row_strides(x, stride);
    ay_walk_start(&w, &c->out->type);
    for (int64_t i = 0; i < c->out->count; i++, ay_walk_next(&w)) {
        int64_t from = 0;
        bool outside = false;
        for (int d = 0; d < x->rank; d++) {
            int64_t j = w.at[d] - c->n->attr.pad.before[d], last = x->dim[d] - 1;
            outside |= j < 0 || j > last;
            if (c->n->attr.pad.mode == AY_PAD_REFLECT) j = j < 0 ? -j : j > last ? 2 * last - j : j;
            else j = j < 0 ? 0 : j > last ? last : j;
            from += j * stride[d];
        }
        if (outside && c->n->attr.pad.mode == AY_PAD_CONSTANT)
            memcpy((char *)c->out->data + (size_t)i * size, constant, size);
        else copy_one(c->out, i, c->in[0], from, size);
    }
    return ALLOY_OK;
}

/* Index i of the indices, counted from the end when negative; -1 with a sentence when outside. */
static int64_t index_at(const ay_call *c, int64_t i, int axis) {
    char text[160];
    int64_t size = c->in[0]->type.dim[axis], v = ay_i(c->in[1])[i];
    int64_t at = v < 0 ? v + size : v;
    if (at >= 0 && at < size) return at;
    ay_fail(c->cx, ALLOY_E_MISMATCH, "%s%s%s: index %lld is outside of axis %d of %s", ay_op_get(c->n->op)->name,
            *c->n->scope ? " in " : "", c->n->scope, (long long)v, axis, ay_type_text(&c->in[0]->type, text));
    return -1;
}

/* x [batch, outer, size, inner], indices [batch, picks] -> [batch, outer, picks, inner] */
alloy_status ay_eval_gather(const ay_call *c) {
    const ay_type *x = &c->in[0]->type, *at = &c->in[1]->type;
    int axis = c->n->attr.gather.axis, batch_dims = c->n->attr.gather.batch_dims;
    size_t size = ay_held_size(x->dtype);
    int64_t batch = 1, outer = 1, inner = ay_split_at(x, axis).inner, picks = 1, to = 0;
    for (int i = 0; i < batch_dims; i++) batch *= x->dim[i];
    for (int i = batch_dims; i < axis; i++) outer *= x->dim[i];
    for (int i = batch_dims; i < at->rank; i++) picks *= at->dim[i];
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t o = 0; o < outer; o++) {
            for (int64_t p = 0; p < picks; p++, to += inner) {
                int64_t j = index_at(c, b * picks + p, axis);
                if (j < 0) return c->cx->code;
                int64_t from = ((b * outer + o) * x->dim[axis] + j) * inner;
                memcpy((char *)c->out->data + (size_t)to * size, (char *)c->in[0]->data + (size_t)from * size,
                       (size_t)inner * size);
            }
        }
    }
    return ALLOY_OK;
}

alloy_status ay_eval_gather_along(const ay_call *c) {
    const ay_type *x = &c->in[0]->type;
    int axis = c->n->attr.gather.axis;
    size_t size = ay_held_size(x->dtype);
    ay_split from = ay_split_at(x, axis), to = ay_split_at(&c->out->type, axis);
    for (int64_t i = 0; i < c->out->count; i++) {
        int64_t o = i / (to.size * to.inner), inner = i % to.inner, j = index_at(c, i, axis);
        if (j < 0) return c->cx->code;
        copy_one(c->out, i, c->in[0], (o * from.size + j) * from.inner + inner, size);
    }
    return ALLOY_OK;
}
