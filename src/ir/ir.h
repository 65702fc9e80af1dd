/* SPDX-License-Identifier: MIT
 *
 * The graph: what a model file builds, what passes rewrite, what every backend compiles. Neutral (it is not MIL), static
 * in every shape, one result per node, nodes in topological order. A value is the index of the node that makes it.
 *
 * Building is sticky: the first error is kept with the scope it happened in, every later call does nothing and returns
 * AY_NO_VALUE, and whoever asked for the graph checks once with ay_graph_status().
 */
#ifndef AY_IR_H
#define AY_IR_H

#include "base/base.h"
#include "quant/weight.h"

typedef int32_t ay_val;
#define AY_NO_VALUE ((ay_val)-1)

typedef enum ay_op {
#define OP(e, name, lo, hi, cls, doc) AY_OP_##e,
#include "ir/ops.def"
#undef OP
    AY_OP_COUNT
} ay_op;

typedef enum ay_op_class { AY_CLASS_LEAF, AY_CLASS_CORE, AY_CLASS_COMPOSITE } ay_op_class;
typedef struct ay_op_info {
    const char *name;
    int least, most; /* inputs; most -1: any number */
    ay_op_class cls;
    const char *doc;
} ay_op_info;
const ay_op_info *ay_op_get(ay_op op);

typedef enum ay_pad_mode { AY_PAD_CONSTANT, AY_PAD_REFLECT, AY_PAD_REPLICATE } ay_pad_mode;
typedef enum ay_gelu_mode { AY_GELU_EXACT, AY_GELU_TANH, AY_GELU_SIGMOID } ay_gelu_mode;

/** Typed attributes, one member per class of op. All axes are already non-negative. */
typedef union ay_attr {
    int axis;                                                                        /* concat, softmax, dequant */
    struct { int n; int axes[AY_MAX_RANK]; bool keep; bool largest; } reduce;         /* sum rmax rmin prod argmax reverse */
    struct { int axis; bool exclusive, reverse; } scan;                               /* cumsum */
    struct { int axis; int64_t k; bool largest; bool indices; } topk;
    struct { int perm[AY_MAX_RANK]; } permute;
    struct { int64_t begin[AY_MAX_RANK], stride[AY_MAX_RANK]; } slice;
    struct { int64_t before[AY_MAX_RANK], after[AY_MAX_RANK]; ay_pad_mode mode; double value; } pad;
    struct { bool ta, tb; } matmul;
    struct { int64_t stride[3], dilation[3], before[3], after[3], groups; } conv; /* conv_transpose: before/after crop */
    struct { int64_t kernel[3], stride[3], before[3], after[3]; bool average, count_padding; } pool;
    struct { int axis, batch_dims; } gather; /* gather_along: axis */
    struct { int n; int axes[AY_MAX_RANK]; int64_t groups; double eps; } norm;
    struct { ay_gelu_mode mode; } gelu;
    struct { bool interleaved; } rope;
    struct { double scale; } sdpa;
    struct { int64_t fh, fw; bool bilinear, align_corners, half_pixel; } upsample;
} ay_attr;

typedef struct ay_node {
    ay_op op;
    ay_type type; /* of the result */
    ay_attr attr;
    int n_in;
    ay_val *in;         /* in the graph's arena */
    const char *name;   /* INPUT, PARAM: required and unique among their kind; else a hint or NULL */
    const char *scope;  /* "transformer_blocks.3.attn": the model's own words; "" at the top */
    const void *data;   /* CONST: the numbers, of `type`; owned by the arena or by whoever outlives the graph */
    ay_weight *weight;  /* PARAM: how it is stored; `data` inside may be NULL until bound; never NULL after building */
} ay_node;

typedef struct ay_output { const char *name; ay_val value; } ay_output;

typedef struct ay_graph {
    ay_ctx *cx;
    ay_arena *arena;
    ay_node *nodes;
    int n_nodes, cap_nodes;
    ay_output *outputs;
    int n_outputs, cap_outputs;
    alloy_status status; /* sticky; the sentence is on cx */
    const char *scope;
    struct ay_scope *scopes; /* what ay_pop returns to; graph.h */
    ay_val *names;           /* open hash of INPUT and PARAM nodes by name; graph.h */
    int n_names, cap_names;
} ay_graph;

ay_graph *ay_graph_new(ay_ctx *cx); /* NULL when out of memory */
void ay_graph_free(ay_graph *g);
alloy_status ay_graph_status(const ay_graph *g);
ay_graph *ay_graph_clone(const ay_graph *g); /* weights' bytes and CONST data are shared, structures copied */
/** Records the first error of building ("in SCOPE: ..."); returns AY_NO_VALUE. */
ay_val ay_graph_fail(ay_graph *g, alloy_status code, const char *fmt, ...) AY_PRINTF(3, 4);

static inline const ay_node *ay_node_of(const ay_graph *g, ay_val v) { return &g->nodes[v]; }
static inline const ay_type *ay_type_of(const ay_graph *g, ay_val v) { return &g->nodes[v].type; }
/** Safe on AY_NO_VALUE (returns 0): a model file may ask for dims without checking. Negative axis counts from the end. */
int64_t ay_dim(const ay_graph *g, ay_val v, int axis);

/* ---- building (build.c). Axes may be negative. --------------------------------------------------------------------- */

/* Lists of dims are written `ay_reshape(g, x, 3, 1, -1, 64)`: rank, then that many integers of any type (these are macros
 * over compound literals, so that each is converted to int64_t and the count is checked against the rank). */
#define AY_LIST_I64(...) (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)) - 1, (const int64_t[]){__VA_ARGS__}
#define AY_LIST_INT(...) (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)) - 1, (const int[]){__VA_ARGS__}
#define AY_LIST_VAL(...) (int)(sizeof((const ay_val[]){__VA_ARGS__}) / sizeof(ay_val)) - 1, (const ay_val[]){__VA_ARGS__}

/** Enters "outer.name" until the matching pop; printf-style. */
void ay_push(ay_graph *g, const char *fmt, ...) AY_PRINTF(2, 3);
void ay_pop(ay_graph *g);

/** ay_shape(AY_F32, 3, 1, 77, 768). A count that differs from the rank gives dtype AY_NONE, which every use refuses. */
#define ay_shape(t, ...) ay_shape_list(t, AY_LIST_I64(__VA_ARGS__))
ay_type ay_shape_list(ay_dtype t, int n, const int64_t *rank_then_dims);
ay_val ay_input(ay_graph *g, const char *name, ay_type type);
/** A weight named "scope.name" (or `name` alone at the top), plain storage of type.dtype. Asking twice for one name gives
 *  one value; asking with another shape is an error. */
ay_val ay_param(ay_graph *g, const char *name, ay_type type);
ay_val ay_const_data(ay_graph *g, ay_type type, const void *data); /* copies */
ay_val ay_const_f32(ay_graph *g, double value);                    /* scalar float32 */
ay_val ay_const_i32(ay_graph *g, int32_t value);                   /* scalar int32 */
ay_val ay_const_f32s(ay_graph *g, const float *values, int rank, const int64_t *dim);
void ay_set_output(ay_graph *g, const char *name, ay_val v);

/** The general way: appends a node after inferring its type from inputs and attributes. `want` gives the shape where the
 *  op needs one (RESHAPE, EXPAND, SLICE) and the dtype where it needs one (CAST); else NULL. */
ay_val ay_node_add(ay_graph *g, ay_op op, const ay_val *in, int n_in, const ay_attr *attr, const ay_type *want);

ay_val ay_unary(ay_graph *g, ay_op op, ay_val x);
ay_val ay_binary(ay_graph *g, ay_op op, ay_val x, ay_val y);
ay_val ay_add(ay_graph *g, ay_val x, ay_val y);
ay_val ay_sub(ay_graph *g, ay_val x, ay_val y);
ay_val ay_mul(ay_graph *g, ay_val x, ay_val y);
ay_val ay_div(ay_graph *g, ay_val x, ay_val y);
ay_val ay_adds(ay_graph *g, ay_val x, double s); /* + scalar of x's dtype */
ay_val ay_muls(ay_graph *g, ay_val x, double s);
ay_val ay_where(ay_graph *g, ay_val cond, ay_val a, ay_val b);
ay_val ay_cast(ay_graph *g, ay_val x, ay_dtype t); /* no node when x has it already */
ay_val ay_reduce(ay_graph *g, ay_op op, ay_val x, int axis, bool keep);
ay_val ay_matmul(ay_graph *g, ay_val x, ay_val y, bool tx, bool ty);
ay_val ay_linear(ay_graph *g, ay_val x, ay_val w, ay_val bias_or_none);
/** The layer "scope.name": params weight [out, in] and, if asked, bias [out]. */
ay_val ay_linear_layer(ay_graph *g, const char *name, ay_val x, int64_t out, bool bias);
ay_val ay_conv2d_layer(ay_graph *g, const char *name, ay_val x, int64_t out, int kernel, int stride, int pad, bool bias);
ay_val ay_layer_norm(ay_graph *g, ay_val x, ay_val w_or_none, ay_val b_or_none, double eps); /* over the last dim */
ay_val ay_rms_norm(ay_graph *g, ay_val x, ay_val w_or_none, double eps);
ay_val ay_group_norm(ay_graph *g, ay_val x, int64_t groups, ay_val w, ay_val b, double eps);
ay_val ay_softmax(ay_graph *g, ay_val x, int axis);
ay_val ay_gelu(ay_graph *g, ay_val x, ay_gelu_mode mode);
ay_val ay_sdpa(ay_graph *g, ay_val q, ay_val k, ay_val v, ay_val mask_or_none, double scale);
ay_val ay_rope(ay_graph *g, ay_val x, ay_val cos, ay_val sin, bool interleaved);
#define ay_reshape(g, x, ...) ay_reshape_list(g, x, AY_LIST_I64(__VA_ARGS__)) /* rank, dims; one may be -1 */
ay_val ay_reshape_list(ay_graph *g, ay_val x, int n, const int64_t *rank_then_dims);
ay_val ay_reshape_to(ay_graph *g, ay_val x, int rank, const int64_t *dim);
#define ay_permute(g, x, ...) ay_permute_list(g, x, AY_LIST_INT(__VA_ARGS__)) /* rank, then that many axes */
ay_val ay_permute_list(ay_graph *g, ay_val x, int n, const int *rank_then_axes);
ay_val ay_expand_to(ay_graph *g, ay_val x, int rank, const int64_t *dim);
/** [begin, end) along one axis; negative: from the end; end INT64_MAX: to the end. */
ay_val ay_slice(ay_graph *g, ay_val x, int axis, int64_t begin, int64_t end);
#define ay_concat(g, axis, ...) ay_concat_list(g, axis, AY_LIST_VAL(__VA_ARGS__)) /* n, then that many values */
ay_val ay_concat_list(ay_graph *g, int axis, int n, const ay_val *n_then_values);
ay_val ay_concat_n(ay_graph *g, int axis, int n, const ay_val *v);
ay_val ay_gather(ay_graph *g, ay_val x, ay_val indices, int axis);
ay_val ay_pad2d(ay_graph *g, ay_val x, int64_t top, int64_t bottom, int64_t left, int64_t right);
ay_val ay_upsample_nearest(ay_graph *g, ay_val x, int64_t fh, int64_t fw);

/* ---- inference, checking, printing, evaluating --------------------------------------------------------------------- */

/** Fills n->type from inputs and attributes; on entry n->type holds what `want` gave. Error sentence on g->cx. */
alloy_status ay_infer(const ay_graph *g, ay_node *n);
/** Order, arity, attribute ranges, types equal to inference, unique names, weights present. */
alloy_status ay_graph_verify(const ay_graph *g);
void ay_graph_print(const ay_graph *g, ay_buf *out);

/** Reference evaluation: naive, double accumulators, float32 values. `in` by name; fills out[i].data (caller's memory,
 *  out[i].type's bytes) for each named output. With `round_f16`, every float16-typed value is rounded to half after each
 *  node and *overflows (may be NULL) counts values that left half's range. */
alloy_status ay_eval(const ay_graph *g, const ay_tensor *in, int n_in, ay_tensor *out, int n_out, bool round_f16,
                     int64_t *overflows);

#endif
