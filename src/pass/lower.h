/* SPDX-License-Identifier: MIT
 *
 * Between lower.c and lower_image.c: the state of a lowering and the way to write a composite inside another's lowering.
 */
#ifndef AY_LOWER_H
#define AY_LOWER_H

#include "ir/graph.h"
#include "pass/pass.h"

typedef struct ay_lowering {
    ay_graph *g;                /* the list being written */
    const ay_lower_rule *rule; /* may be NULL: keeps nothing */
} ay_lowering;

/** The composite as a node if the rule keeps it, else lowered. */
ay_val ay_lower_emit(const ay_lowering *l, ay_op op, const ay_val *in, int n_in, const ay_attr *attr);
/** Lowers n (inputs and type are those of the new list). */
ay_val ay_lower_node(const ay_lowering *l, const ay_node *n);

ay_val ay_lower_upsample(const ay_lowering *l, const ay_node *n);
ay_val ay_lower_conv_transpose(const ay_lowering *l, const ay_node *n);

#endif
