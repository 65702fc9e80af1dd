/* SPDX-License-Identifier: MIT
 *
 * Between eval.c and the files that evaluate by kind of op; also what constant folding uses. Values are held in three ways
 * only, whatever their element type: floats as float, integers as int32_t, bool as one byte.
 */
#ifndef AY_EVAL_H
#define AY_EVAL_H

#include "ir/graph.h"

typedef struct ay_array {
    ay_type type;
    int64_t count;
    void *data;
} ay_array;

/** Bytes of one held element: 4, or 1 for bool. */
static inline size_t ay_held_size(ay_dtype t) { return t == AY_BOOL ? 1 : 4; }
static inline float *ay_f(const ay_array *a) { return a->data; }
static inline int32_t *ay_i(const ay_array *a) { return a->data; }
static inline uint8_t *ay_b(const ay_array *a) { return a->data; }

/** One node to evaluate: inputs are held arrays, out->data is allocated. */
typedef struct ay_call {
    ay_ctx *cx;
    const ay_node *n;
    const ay_array *const *in;
    ay_array *out;
} ay_call;
typedef alloy_status (*ay_eval_fn)(const ay_call *c);

/** Evaluates one node that is not a leaf. */
alloy_status ay_eval_node(const ay_call *c);
/** Between held arrays and dense memory of any element type. */
void ay_hold(const ay_array *to, ay_dtype from_dtype, const void *from);
void ay_unhold(const ay_array *from, ay_dtype to_dtype, void *to);

/* ---- walking with strides ------------------------------------------------------------------------------------------ */

/** Walks all positions of `dim` in row-major order, with the offsets of up to four operands beside it. */
typedef struct ay_walk {
    int rank, operands;
    int64_t dim[AY_MAX_RANK], at[AY_MAX_RANK], stride[4][AY_MAX_RANK], offset[4];
} ay_walk;
void ay_walk_start(ay_walk *w, const ay_type *over);
/** Adds an operand that broadcasts to what is walked over (numpy rules); returns its index. */
int ay_walk_operand(ay_walk *w, const ay_type *t);
void ay_walk_next(ay_walk *w);
void ay_row_strides(const ay_type *t, int64_t stride[AY_MAX_RANK]);

/** a->type split at `axis`: `outer` blocks of `size` rows of `inner` elements. */
typedef struct ay_split { int64_t outer, size, inner; } ay_split;
ay_split ay_split_at(const ay_type *t, int axis);

alloy_status ay_eval_unary(const ay_call *c);
alloy_status ay_eval_binary(const ay_call *c);
alloy_status ay_eval_compare(const ay_call *c);
alloy_status ay_eval_where(const ay_call *c);
alloy_status ay_eval_cast(const ay_call *c);
alloy_status ay_eval_reduce(const ay_call *c);
alloy_status ay_eval_argmax(const ay_call *c);
alloy_status ay_eval_cumsum(const ay_call *c);
alloy_status ay_eval_topk(const ay_call *c);
alloy_status ay_eval_matmul(const ay_call *c);
alloy_status ay_eval_conv(const ay_call *c);
alloy_status ay_eval_conv_transpose(const ay_call *c);
alloy_status ay_eval_pool(const ay_call *c);
alloy_status ay_eval_reshape(const ay_call *c);
alloy_status ay_eval_strided(const ay_call *c); /* permute, expand, slice, reverse */
alloy_status ay_eval_concat(const ay_call *c);
alloy_status ay_eval_pad(const ay_call *c);
alloy_status ay_eval_gather(const ay_call *c);
alloy_status ay_eval_gather_along(const ay_call *c);
alloy_status ay_eval_linear(const ay_call *c);
alloy_status ay_eval_softmax(const ay_call *c);
alloy_status ay_eval_norm(const ay_call *c); /* rms, layer, group */
alloy_status ay_eval_rope(const ay_call *c);
alloy_status ay_eval_sdpa(const ay_call *c);
alloy_status ay_eval_upsample(const ay_call *c);
alloy_status ay_eval_dequant(const ay_call *c);

#endif
