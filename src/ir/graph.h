/* SPDX-License-Identifier: MIT
 *
 * What the files of src/ir and src/pass share beyond ir.h: raw appending, the name table, and the classes of attributes
 * from which canonical form, printing, hashing and checking are derived.
 */
#ifndef AY_GRAPH_H
#define AY_GRAPH_H

#include "ir/ir.h"

/** No value of a graph has more elements than this (2^38: a terabyte of float32); keeps every product inside int64_t. */
#define AY_MAX_COUNT ((int64_t)1 << 38)

typedef struct ay_scope {
    struct ay_scope *outer;
    const char *text; /* what g->scope was before the push */
} ay_scope;

/** Appends a finished node (inputs already in the arena) without any check; AY_NO_VALUE when out of memory. */
ay_val ay_graph_append(ay_graph *g, const ay_node *n);
/** The INPUT or PARAM of that name, or AY_NO_VALUE. */
ay_val ay_graph_find(const ay_graph *g, ay_op leaf, const char *name);
/** Rebuilds the name table after nodes were renumbered. */
alloy_status ay_graph_rehash(ay_graph *g);

/** A scalar const of x's own element type. */
ay_val ay_const_like(ay_graph *g, ay_val x, double value);

/** Which member of ay_attr an op uses. */
typedef enum ay_attr_kind {
    AY_ATTR_NONE, AY_ATTR_AXIS, AY_ATTR_REDUCE, AY_ATTR_SCAN, AY_ATTR_TOPK, AY_ATTR_PERMUTE, AY_ATTR_SLICE, AY_ATTR_PAD,
    AY_ATTR_MATMUL, AY_ATTR_CONV, AY_ATTR_POOL, AY_ATTR_GATHER, AY_ATTR_NORM, AY_ATTR_GELU, AY_ATTR_ROPE, AY_ATTR_SDPA,
    AY_ATTR_UPSAMPLE
} ay_attr_kind;
ay_attr_kind ay_attr_kind_of(ay_op op);

/** Makes n->attr canonical: axes non-negative (reduction axes sorted), everything the op does not read zero, so that equal
 *  attributes are equal bytes. Fails on axes outside the input's rank. */
alloy_status ay_attr_canon(const ay_graph *g, ay_node *n);
void ay_attr_print(const ay_node *n, ay_buf *out);

/** Spatial dims of CONV, POOL, CONV_TRANSPOSE: rank of the input less two. */
static inline int ay_spatial(const ay_type *x) { return x->rank - 2; }

/** numpy broadcasting of shapes (dtype untouched); false when they do not fit. */
bool ay_broadcast(const ay_type *a, const ay_type *b, ay_type *out);

/** A type that a graph may hold: known dtype, rank and dims in range. False with a sentence on g->cx that starts with
 *  `what`. */
bool ay_type_valid(const ay_graph *g, const ay_type *t, const char *what);

#endif
