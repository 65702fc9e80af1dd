/* SPDX-License-Identifier: MIT
 *
 * From graph to MIL: what the files emit_*.c share. One emitter writes one package, function after function. Emission is
 * sticky like graph building: the first failure is kept, every later call does nothing, and whoever started looks once.
 *
 * Each op of ir/ops.def has a row in the table of emit.c; a row's function appends operations (and the `const` operations
 * their parameters need) and ends with ay_emit_result, which gives the node's value its name and declared type.
 */
#ifndef AY_COREML_EMIT_H
#define AY_COREML_EMIT_H

#include "coreml/coreml.h"
#include "coreml/names.h"
#include "coreml/weightfile.h"

/** One stored weight or table: where its parts lie, and for the few that stand in the program itself, their bytes. */
typedef struct ay_stored {
    ay_weight weight;       /* no pointers */
    uint64_t offset[4];     /* by ay_part; 0: absent */
    uint8_t *immediate[4];  /* bytes of parts too small for the weight file by coremltools' rule, else NULL */
} ay_stored;

/** Nodes that are written together with others: a sum times 1/n (emit.c), an einsum (emit_einsum.c). */
typedef enum ay_emit_joint { AY_JOINT_NONE, AY_JOINT_MEAN_SUM, AY_JOINT_MEAN_PRODUCT, AY_JOINT_ABSORBED, AY_JOINT_EINSUM } ay_emit_joint;

typedef struct ay_emitter {
    ay_ctx *cx;
    ay_arena *arena; /* of the package: messages live until the model is packed */
    const ay_package_options *opts;
    alloy_status status;
    ay_weight_writer *blobs;
    ay_names stored; /* weight name and storage, or the digest of a table's bytes -> ay_stored */
    ay_weight_entry *entries; /* in the caller's arena */
    ay_arena *entry_arena;
    int n_entries, cap_entries;

    /* the function at hand */
    const char *function;
    const ay_graph *g;
    ay_names names;      /* identifiers taken */
    const char **value;  /* [n_nodes] MIL name of each node's value; NULL: not yet there */
    const char **result; /* [n_nodes] output name the value must carry, or NULL */
    unsigned char *joint; /* [n_nodes] an ay_emit_joint: which part of what several nodes are together */
    ay_val at;           /* node being emitted */
    AyMil__Operation **ops;
    size_t n_ops, cap_ops;
} ay_emitter;

/** Records the first failure, with function and node before the sentence. */
void ay_emit_fail(ay_emitter *e, alloy_status code, const char *fmt, ...) AY_PRINTF(3, 4);
/** Zeroed memory of the package's arena; sets the failure when there is none left (and then returns NULL). */
void *ay_emit_alloc(ay_emitter *e, size_t bytes);
static inline bool ay_emit_ok(const ay_emitter *e) { return e->status == ALLOY_OK; }
static inline bool ay_emit_macos15(const ay_emitter *e) { return e->opts->target >= AY_TARGET_MACOS15; }

/** Emits one whole function of a lowered graph; fills ops, value, result. Returns the block's output names in `outputs`. */
void ay_emit_function(ay_emitter *e, const char *name, const ay_graph *g, char ***outputs);
/** The type itself, after a check that MIL has it: rank at most 5, dims of 31 bits, a dtype programs know. */
ay_type ay_emit_type(ay_emitter *e, const ay_type *t);
AyMil__ValueType *ay_emit_value_type(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim); /* AY_NONE: string */

/* ---- one operation: begin, arguments, end ------------------------------------------------------------------------ */

/** Starts an operation of MIL type `type`; `stem` (NULL: the node's own words) names it. */
AyMil__Operation *ay_emit_begin(ay_emitter *e, const char *type, const char *stem);
void ay_emit_arg(ay_emitter *e, AyMil__Operation *op, const char *param, const char *value);
void ay_emit_args(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const char *const *values);
/* Parameters with known values: each a `const` operation before the op, bound by name. */
void ay_emit_int(ay_emitter *e, AyMil__Operation *op, const char *param, int64_t v);
void ay_emit_ints(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const int64_t *v);
void ay_emit_bool(ay_emitter *e, AyMil__Operation *op, const char *param, bool v);
void ay_emit_bools(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const bool *v);
void ay_emit_str(ay_emitter *e, AyMil__Operation *op, const char *param, const char *v);
void ay_emit_num(ay_emitter *e, AyMil__Operation *op, const char *param, ay_dtype dtype, double v); /* float or int scalar */
void ay_emit_zeros(ay_emitter *e, AyMil__Operation *op, const char *param, ay_dtype dtype, int64_t n);
/** Parameters of constexpr operations: literal values among the attributes (first form) or the inputs (iOS 18 form). */
void ay_emit_attribute(ay_emitter *e, AyMil__Operation *op, const char *key, AyMil__Value *v);
void ay_emit_literal(ay_emitter *e, AyMil__Operation *op, const char *param, AyMil__Value *v);
const char *ay_emit_op_name(const AyMil__Operation *op);
/** Appends it with one output of a fresh name; returns that name. */
const char *ay_emit_end(ay_emitter *e, AyMil__Operation *op, const ay_type *type);
/** Appends it as the one that makes the node's value. `extra` (NULL: none) is a second output nobody reads. */
void ay_emit_result(ay_emitter *e, AyMil__Operation *op, const ay_type *extra, bool extra_first);
/** The node's value is this value, which is there already (an identity where a function output needs its own name). */
void ay_emit_alias(ay_emitter *e, const char *value);

/* ---- what rows ask for ------------------------------------------------------------------------------------------- */

static inline const ay_node *ay_emit_node(const ay_emitter *e) { return &e->g->nodes[e->at]; }
static inline const ay_node *ay_emit_in(const ay_emitter *e, int i) { return &e->g->nodes[ay_emit_node(e)->in[i]]; }
static inline const char *ay_emit_name(const ay_emitter *e, int i) { return e->value[ay_emit_node(e)->in[i]]; }
/** Whether MIL sees the value as a constant: PARAM, CONST, or the cast of a plain half PARAM to float. */
bool ay_emit_is_const(const ay_emitter *e, ay_val v);
/** Refuses the node when its input i is of none of these dtypes (ends with AY_NONE). */
bool ay_emit_domain(ay_emitter *e, int i, const ay_dtype *allowed);
extern const ay_dtype ay_domain_float[], ay_domain_number[], ay_domain_move[];
/** Small whole steps around an op: each appends one operation and returns its value's name. */
const char *ay_emit_reshape(ay_emitter *e, const char *x, const ay_type *to);
const char *ay_emit_transpose(ay_emitter *e, const char *x, const ay_type *to, const int64_t *perm);
const char *ay_emit_binary(ay_emitter *e, const char *mil, const char *x, const char *y, const ay_type *to);
/** numpy broadcast of x (of type `from`) to `to`; x itself when the shapes are equal. */
const char *ay_emit_expand(ay_emitter *e, const char *x, const ay_type *from, const ay_type *to);

/* ---- constants and weights (emit_const.c) ------------------------------------------------------------------------ */

/** A `const` operation holding `count` elements at `data`; immediate or in the weight file by coremltools' rule. */
const char *ay_emit_const(ay_emitter *e, const char *stem, const ay_type *type, const void *data);
const char *ay_emit_const_string(ay_emitter *e, const char *stem, const char *text);
const char *ay_emit_const_value(ay_emitter *e, const char *stem, const ay_type *type, AyMil__Value *v);
AyMil__Value *ay_emit_string_value(ay_emitter *e, const char *text);
/** A value that stands in the program / that lies at `offset` of the weight file. Rank up to 8 (palettes). */
AyMil__Value *ay_emit_immediate(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim, const void *data);
AyMil__Value *ay_emit_blob(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim, uint64_t offset);
bool ay_emit_in_file(const ay_emitter *e, ay_dtype t, int64_t count);

typedef void (*ay_emit_fn)(ay_emitter *e);
/* The rows' functions, by file. */
void ay_emit_op_const(ay_emitter *e);
void ay_emit_op_param(ay_emitter *e);
void ay_emit_op_cast(ay_emitter *e);
void ay_emit_op_linear(ay_emitter *e);
/** emit_einsum.c: marks the nodes that are einsums; `uses` counts readers of each value. */
void ay_emit_find_einsums(ay_emitter *e, const int *uses);
void ay_emit_op_einsum(ay_emitter *e);
void ay_emit_op_matmul(ay_emitter *e);
void ay_emit_op_conv(ay_emitter *e);
void ay_emit_op_conv_transpose(ay_emitter *e);
void ay_emit_op_pool(ay_emitter *e);
void ay_emit_op_layer_norm(ay_emitter *e);
void ay_emit_op_softmax(ay_emitter *e);
void ay_emit_op_gelu(ay_emitter *e);
void ay_emit_op_sdpa(ay_emitter *e);
void ay_emit_op_upsample(ay_emitter *e);
void ay_emit_op_reduce(ay_emitter *e);
void ay_emit_op_argmax(ay_emitter *e);
void ay_emit_op_cumsum(ay_emitter *e);
void ay_emit_op_topk(ay_emitter *e);
void ay_emit_op_reshape(ay_emitter *e);
void ay_emit_op_permute(ay_emitter *e);
void ay_emit_op_expand(ay_emitter *e);
void ay_emit_op_slice(ay_emitter *e);
void ay_emit_op_concat(ay_emitter *e);
void ay_emit_op_pad(ay_emitter *e);
void ay_emit_op_reverse(ay_emitter *e);
void ay_emit_op_gather(ay_emitter *e);
void ay_emit_op_where(ay_emitter *e);

/** Whether MIL takes this composite whole at this target (for ay_pass_lower). */
bool ay_emit_keeps(ay_target target, const ay_graph *g, const ay_node *n);

#endif
