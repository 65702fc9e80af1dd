/* SPDX-License-Identifier: MIT
 *
 * Emission of ops that move elements: where MIL's form is narrower than ours (scalars, padding, indices from the end,
 * conditions that broadcast), a few of its ops together say the same.
 */
#include "coreml/emit.h"

#include <string.h>

static AyMil__Operation *begin_x(ay_emitter *e, const char *mil, const char *x) {
    AyMil__Operation *op = ay_emit_domain(e, 0, ay_domain_move) ? ay_emit_begin(e, mil, NULL) : NULL;
    ay_emit_arg(e, op, "x", x);
    return op;
}

/* `reshape` has no scalars on either side; squeeze and expand_dims of all axes have. */
void ay_emit_op_reshape(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    const ay_type *x = &ay_emit_in(e, 0)->type;
    int64_t axes[AY_MAX_RANK] = {0, 1, 2, 3, 4, 5};
    if (x->rank == n->type.rank && memcmp(x->dim, n->type.dim, sizeof x->dim) == 0) {
        ay_emit_alias(e, ay_emit_name(e, 0));
        return;
    }
    bool to_scalar = n->type.rank == 0, from_scalar = x->rank == 0;
    AyMil__Operation *op = begin_x(e, to_scalar ? "squeeze" : from_scalar ? "expand_dims" : "reshape", ay_emit_name(e, 0));
    if (to_scalar || from_scalar)
        ay_emit_ints(e, op, "axes", to_scalar ? x->rank : n->type.rank, axes);
    else
        ay_emit_ints(e, op, "shape", n->type.rank, n->type.dim);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_permute(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    int64_t perm[AY_MAX_RANK];
    for (int i = 0; i < n->type.rank; i++) perm[i] = n->attr.permute.perm[i];
    AyMil__Operation *op = begin_x(e, "transpose", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "perm", n->type.rank, perm);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_expand(ay_emitter *e) {
    if (!ay_emit_domain(e, 0, ay_domain_move)) return;
    ay_emit_alias(e, ay_emit_expand(e, ay_emit_name(e, 0), &ay_emit_in(e, 0)->type, &ay_emit_node(e)->type));
}

/* Ends are exclusive. A backward slice that reaches element 0 would end at -1, which means "the last": the mask says so. */
void ay_emit_op_slice(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    int rank = n->type.rank;
    int64_t begin[AY_MAX_RANK], end[AY_MAX_RANK], stride[AY_MAX_RANK];
    bool mask[AY_MAX_RANK] = {false}, steps = false, masked = false;
    if (rank == 0) {
        ay_emit_alias(e, ay_emit_name(e, 0));
        return;
    }
    for (int i = 0; i < rank; i++) {
        begin[i] = n->attr.slice.begin[i];
        stride[i] = n->attr.slice.stride[i];
        end[i] = begin[i] + (n->type.dim[i] - 1) * stride[i] + (stride[i] > 0 ? 1 : -1);
        mask[i] = end[i] < 0;
        if (mask[i]) end[i] = 0;
        steps |= stride[i] != 1;
        masked |= mask[i];
    }
    AyMil__Operation *op = begin_x(e, "slice_by_index", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "begin", rank, begin);
    ay_emit_ints(e, op, "end", rank, end);
    if (steps) ay_emit_ints(e, op, "stride", rank, stride);
    if (masked) ay_emit_bools(e, op, "end_mask", rank, mask);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_concat(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (n->n_in == 1) {
        ay_emit_alias(e, ay_emit_name(e, 0));
        return;
    }
    const char **values = ay_emit_alloc(e, (size_t)n->n_in * sizeof *values);
    if (!values || !ay_emit_domain(e, 0, ay_domain_move)) return;
    for (int i = 0; i < n->n_in; i++) values[i] = ay_emit_name(e, i);
    AyMil__Operation *op = ay_emit_begin(e, "concat", NULL);
    ay_emit_args(e, op, "values", n->n_in, values);
    ay_emit_int(e, op, "axis", n->attr.axis);
    ay_emit_bool(e, op, "interleave", false);
    ay_emit_result(e, op, NULL, false);
}

void ay_emit_op_reverse(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    int64_t axes[AY_MAX_RANK];
    for (int i = 0; i < n->attr.reduce.n; i++) axes[i] = n->attr.reduce.axes[i];
    AyMil__Operation *op = begin_x(e, "reverse", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "axes", n->attr.reduce.n, axes);
    ay_emit_result(e, op, NULL, false);
}

/* ---- padding ----------------------------------------------------------------------------------------------------- */

static AyMil__Operation *begin_pad(ay_emitter *e, const char *x, const char *mode, int dims, const int64_t *pad,
                                   double value) {
    AyMil__Operation *op = ay_emit_begin(e, "pad", NULL);
    ay_emit_arg(e, op, "x", x);
    ay_emit_ints(e, op, "pad", 2 * dims, pad);
    ay_emit_str(e, op, "mode", mode);
    ay_emit_num(e, op, "constant_val", ay_emit_node(e)->type.dtype, value);
    return op;
}

/* reflect and replicate work on the last two dims only: each other axis is brought to the end, padded, brought back. */
void ay_emit_op_pad(ay_emitter *e) {
    static const char *const modes[] = {
        [AY_PAD_CONSTANT] = "constant", [AY_PAD_REFLECT] = "reflect", [AY_PAD_REPLICATE] = "replicate"};
    const ay_node *n = ay_emit_node(e);
    const char *mode = modes[n->attr.pad.mode], *x = ay_emit_name(e, 0);
    ay_type t = ay_emit_in(e, 0)->type;
    int rank = t.rank, first = n->attr.pad.mode == AY_PAD_CONSTANT ? 0 : rank > 2 ? rank - 2 : 0;
    int64_t pad[2 * AY_MAX_RANK];
    if (!ay_emit_domain(e, 0, ay_domain_float)) return;
    for (int axis = 0; axis < first; axis++) {
        int64_t perm[AY_MAX_RANK], one[2] = {n->attr.pad.before[axis], n->attr.pad.after[axis]};
        if (one[0] == 0 && one[1] == 0) continue;
        ay_type turned = t;
        for (int i = 0; i < rank; i++) perm[i] = i; /* swaps `axis` and the last: its own inverse */
        perm[axis] = rank - 1;
        perm[rank - 1] = axis;
        turned.dim[axis] = t.dim[rank - 1];
        turned.dim[rank - 1] = t.dim[axis];
        x = ay_emit_transpose(e, x, &turned, perm);
        turned.dim[rank - 1] += one[0] + one[1];
        x = ay_emit_end(e, begin_pad(e, x, mode, 1, one, 0), &turned);
        t.dim[axis] += one[0] + one[1];
        x = ay_emit_transpose(e, x, &t, perm);
    }
    bool rest = false;
    for (int i = first; i < rank; i++) {
        pad[2 * (i - first)] = n->attr.pad.before[i];
        pad[2 * (i - first) + 1] = n->attr.pad.after[i];
        rest |= n->attr.pad.before[i] || n->attr.pad.after[i];
    }
    if (rest)
        ay_emit_result(e, begin_pad(e, x, mode, rank - first, pad, n->attr.pad.value), NULL, false);
    else
        ay_emit_alias(e, x);
}

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static bool never_negative(const ay_emitter *e, const ay_node *at) {
    if (at->op == AY_OP_ARGMAX || at->op == AY_OP_TOPK || at->type.dtype == AY_U8 || at->type.dtype == AY_U16) return true;
    if (at->op != AY_OP_CONST || at->type.dtype != AY_I32) return false;
    for (int64_t i = 0; i < ay_type_count(&at->type); i++)
        if (((const int32_t *)at->data)[i] < 0) return false;
    return true;
}

/* Since iOS 17 a negative index is out of range: index < 0 ? index + dim : index, as coremltools' own front end writes. */
static const char *wrap_indices(ay_emitter *e, const char *indices, const ay_node *at, int64_t dim) {
    ay_type yes = at->type;
    yes.dtype = AY_BOOL;
    AyMil__Operation *op = ay_emit_begin(e, "greater_equal", NULL);
    ay_emit_arg(e, op, "x", indices);
    ay_emit_num(e, op, "y", at->type.dtype, 0);
    const char *positive = ay_emit_end(e, op, &yes);
    op = ay_emit_begin(e, "add", NULL);
    ay_emit_arg(e, op, "x", indices);
    ay_emit_num(e, op, "y", at->type.dtype, (double)dim);
    const char *wrapped = ay_emit_end(e, op, &at->type);
    op = ay_emit_begin(e, "select", NULL);
    ay_emit_arg(e, op, "cond", positive);
    ay_emit_arg(e, op, "a", indices);
    ay_emit_arg(e, op, "b", wrapped);
    return ay_emit_end(e, op, &at->type);
}

void ay_emit_op_gather(ay_emitter *e) {
    static const ay_dtype tables[] = {AY_F32, AY_F16, AY_I32, AY_I16, AY_U16, AY_I8, AY_U8, AY_NONE};
    static const ay_dtype places[] = {AY_I32, AY_U8, AY_U16, AY_NONE};
    const ay_node *n = ay_emit_node(e), *at = ay_emit_in(e, 1);
    const char *indices = ay_emit_name(e, 1);
    bool along = n->op == AY_OP_GATHER_ALONG;
    if (!ay_emit_domain(e, 0, tables) || !ay_emit_domain(e, 1, places)) return;
    if (!never_negative(e, at)) indices = wrap_indices(e, indices, at, ay_emit_in(e, 0)->type.dim[n->attr.gather.axis]);
    AyMil__Operation *op = ay_emit_begin(e, along ? "gather_along_axis" : "gather", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_arg(e, op, "indices", indices);
    ay_emit_int(e, op, "axis", n->attr.gather.axis);
    if (!along) ay_emit_int(e, op, "batch_dims", n->attr.gather.batch_dims);
    ay_emit_bool(e, op, "validate_indices", false);
    ay_emit_result(e, op, NULL, false);
}

/* `select` broadcasts in the closed compiler by rules nobody wrote down: all three get the result's shape first. */
void ay_emit_op_where(ay_emitter *e) {
    static const ay_dtype allowed[] = {AY_F32, AY_F16, AY_I32, AY_BOOL, AY_NONE};
    static const char *const params[] = {"cond", "a", "b"};
    const ay_node *n = ay_emit_node(e);
    const char *names[3];
    if (!ay_emit_domain(e, 1, allowed)) return;
    for (int i = 0; i < 3; i++) {
        const ay_node *x = ay_emit_in(e, i);
        ay_type full = n->type;
        full.dtype = x->type.dtype;
        if (x->type.rank == 0 && full.rank > 0 &&
            ay_emit_is_const(e, n->in[i])) { /* what a constant scalar is filled out with */
            AyMil__Operation *op = ay_emit_begin(e, "fill", NULL);
            ay_emit_ints(e, op, "shape", full.rank, full.dim);
            ay_emit_arg(e, op, "value", ay_emit_name(e, i));
            names[i] = ay_emit_end(e, op, &full);
        } else {
            names[i] = ay_emit_expand(e, ay_emit_name(e, i), &x->type, &full);
        }
    }
    AyMil__Operation *op = ay_emit_begin(e, "select", NULL);
    for (int i = 0; i < 3; i++) ay_emit_arg(e, op, params[i], names[i]);
    ay_emit_result(e, op, NULL, false);
}
