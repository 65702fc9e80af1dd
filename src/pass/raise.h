/* SPDX-License-Identifier: MIT
 *
 * Between raise.c and the files of patterns. A pattern looks at the value just copied into the new list, whose inputs are
 * raised already, and returns the value that replaces it, or AY_NO_VALUE. What it leaves behind unused, dce drops.
 */
#ifndef AY_RAISE_H
#define AY_RAISE_H

#include "ir/graph.h"
#include "pass/pass.h"

typedef ay_val (*ay_raise_fn)(ay_graph *g, ay_val v);

static inline bool ay_is(const ay_graph *g, ay_val v, ay_op op) { return v >= 0 && g->nodes[v].op == op; }
static inline ay_val ay_arg(const ay_graph *g, ay_val v, int i) { return g->nodes[v].in[i]; }

/** A const whose elements are all one number. */
bool ay_raise_scalar(const ay_graph *g, ay_val v, double *value);
/** v = op(x, c), for ADD and MUL in either order; SUB and DIV are understood as adding -c and multiplying by 1/c. */
bool ay_raise_by_const(const ay_graph *g, ay_val v, ay_op op, ay_val *x, double *c);
/** v = x * x or x ^ 2. */
bool ay_raise_square(const ay_graph *g, ay_val v, ay_val *x);
/** v = mean of x over axes, dims kept, written as a sum times 1/n or a sum of x times 1/n. */
bool ay_raise_mean(const ay_graph *g, ay_val v, ay_val *x, const ay_attr **reduce);
/** v = d / sqrt(w + eps) in either of its forms: d * rsqrt(..) or d / sqrt(..). Tried for both orders through `which`. */
bool ay_raise_over_root(const ay_graph *g, ay_val v, int which, ay_val *d, ay_val *w, double *eps);
/** Equal up to rounding of b to half precision. */
static inline bool ay_close(double a, double b) {
    double slack = 6e-4 * (b < 0 ? -b : b);
    return a - b <= slack && b - a <= slack;
}
/** A parameter or const, be it under reshapes and casts. */
bool ay_raise_is_stored(const ay_graph *g, ay_val v);
/** Through casts between float types / through reshapes. */
ay_val ay_raise_uncast(const ay_graph *g, ay_val v);
ay_val ay_raise_unshape(const ay_graph *g, ay_val v);
/** Appends the composite if inference takes it and its type is that of v; else AY_NO_VALUE and no error. */
ay_val ay_raise_emit(ay_graph *g, ay_val v, ay_op op, const ay_val *in, int n_in, const ay_attr *attr);

/* raise_elt.c */
ay_val ay_raise_sigmoid(ay_graph *g, ay_val v);
ay_val ay_raise_silu(ay_graph *g, ay_val v);
ay_val ay_raise_gelu(ay_graph *g, ay_val v);
ay_val ay_raise_softmax(ay_graph *g, ay_val v);
ay_val ay_raise_upsample(ay_graph *g, ay_val v);
/* raise_norm.c */
ay_val ay_raise_rms_norm(ay_graph *g, ay_val v);
ay_val ay_raise_layer_norm(ay_graph *g, ay_val v);
ay_val ay_raise_group_norm(ay_graph *g, ay_val v);
ay_val ay_raise_norm_weight(ay_graph *g, ay_val v); /* norm(x) * w */
ay_val ay_raise_norm_bias(ay_graph *g, ay_val v);   /* norm(x, w) + b */
ay_val ay_raise_norm_cast(ay_graph *g, ay_val v);   /* half(norm(full(x))) */
/* raise_attn.c */
ay_val ay_raise_linear(ay_graph *g, ay_val v);
ay_val ay_raise_linear_bias(ay_graph *g, ay_val v);
ay_val ay_raise_linear_shape(ay_graph *g, ay_val v); /* a linear of one row, reshaped around */
ay_val ay_raise_rope(ay_graph *g, ay_val v);
/* raise_sdpa.c */
ay_val ay_raise_permute(ay_graph *g, ay_val v);      /* permute(permute(x)) */
ay_val ay_raise_sink_permute(ay_graph *g, ay_val v); /* scaling and softmax of permuted scores, permuted afterwards */
ay_val ay_raise_sdpa(ay_graph *g, ay_val v);
ay_val ay_raise_sdpa_scale(ay_graph *g, ay_val v);   /* of a q or k that was scaled before */

#endif
