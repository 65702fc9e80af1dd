/* SPDX-License-Identifier: MIT
 *
 * Between infer.c and the files that infer by kind of op. An inference function reads the types of the inputs and the
 * canonical attributes of `n`, and fills n->type, which on entry holds what the builder wanted (or zero).
 */
#ifndef AY_INFER_H
#define AY_INFER_H

#include "ir/graph.h"

typedef alloy_status (*ay_infer_fn)(const ay_graph *g, ay_node *n);

static inline const ay_type *ay_in_type(const ay_graph *g, const ay_node *n, int i) { return &g->nodes[n->in[i]].type; }
/** ALLOY_E_MISMATCH with "op: sentence". */
alloy_status ay_infer_fail(const ay_graph *g, const ay_node *n, const char *fmt, ...) AY_PRINTF(3, 4);
/** The same dtype on both inputs, or a sentence. */
alloy_status ay_infer_same_dtype(const ay_graph *g, const ay_node *n, int i, int j);
alloy_status ay_infer_float(const ay_graph *g, const ay_node *n, int i);
static inline bool ay_is_int(ay_dtype t) { return t != AY_BOOL && t != AY_NONE && !ay_dtype_is_float(t); }

/* infer_shape.c: movement */
alloy_status ay_infer_reshape(const ay_graph *g, ay_node *n);
alloy_status ay_infer_permute(const ay_graph *g, ay_node *n);
alloy_status ay_infer_expand(const ay_graph *g, ay_node *n);
alloy_status ay_infer_slice(const ay_graph *g, ay_node *n);
alloy_status ay_infer_concat(const ay_graph *g, ay_node *n);
alloy_status ay_infer_pad(const ay_graph *g, ay_node *n);
alloy_status ay_infer_reverse(const ay_graph *g, ay_node *n);
alloy_status ay_infer_gather(const ay_graph *g, ay_node *n);
alloy_status ay_infer_gather_along(const ay_graph *g, ay_node *n);
/* infer_nn.c: products, windows, composites */
alloy_status ay_infer_matmul(const ay_graph *g, ay_node *n);
alloy_status ay_infer_conv(const ay_graph *g, ay_node *n);
alloy_status ay_infer_conv_transpose(const ay_graph *g, ay_node *n);
alloy_status ay_infer_pool(const ay_graph *g, ay_node *n);
alloy_status ay_infer_linear(const ay_graph *g, ay_node *n);
alloy_status ay_infer_softmax(const ay_graph *g, ay_node *n);
alloy_status ay_infer_gelu(const ay_graph *g, ay_node *n);
alloy_status ay_infer_rms_norm(const ay_graph *g, ay_node *n);
alloy_status ay_infer_layer_norm(const ay_graph *g, ay_node *n);
alloy_status ay_infer_group_norm(const ay_graph *g, ay_node *n);
alloy_status ay_infer_rope(const ay_graph *g, ay_node *n);
alloy_status ay_infer_sdpa(const ay_graph *g, ay_node *n);
alloy_status ay_infer_upsample(const ay_graph *g, ay_node *n);
alloy_status ay_infer_dequant(const ay_graph *g, ay_node *n);

#endif
