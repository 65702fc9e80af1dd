/* SPDX-License-Identifier: MIT
 *
 * What exec.c and chain.c share: a component is one program, or several that hand values on.
 */
#ifndef AY_COMPONENT_H
#define AY_COMPONENT_H

#include "pipe/pipe.h"

/** One package and what of it is executed. */
typedef struct ay_link {
    ay_package *package; /* holds weights */
    ay_graph *graph;     /* holds those that had to be decoded (sparse ones, joint forms) */
    ay_program *program; /* NULL: only holds weights, for the program of link 0 */
    ay_tensor *inputs, *outputs; /* of the program; data: where a value that is handed on lies, NULL for the caller's */
    int n_inputs, n_outputs;
    ay_tensor *in, *out; /* room for one run's arguments */
} ay_link;

struct ay_component {
    ay_arena *arena;
    ay_link *links;
    int n_links;
    bool chain;                  /* values are handed on */
    ay_tensor *inputs, *outputs; /* of the whole */
    int n_inputs, n_outputs;
    size_t carried; /* bytes of values that are handed on */
};

/** Without links opened; to be closed also after a failure. */
alloy_status ay_component_new(ay_ctx *cx, int n_links, ay_component **out);
/** Fills the link's inputs and outputs from its graph. */
alloy_status ay_component_ports(ay_ctx *cx, ay_arena *a, const ay_graph *g, ay_link *l);
/** Once all links have their programs: finds what is handed on, and what the whole takes and gives. */
alloy_status ay_component_join(ay_ctx *cx, ay_component *c);

#endif
