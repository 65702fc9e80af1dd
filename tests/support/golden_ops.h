/* SPDX-License-Identifier: MIT
 *
 * Reader of tests/golden/ops/ops.txt (made by tests/reference/ops.py): one case of one op, its inputs drawn from the same
 * hash as in Python, its result as torch computed it.
 */
#ifndef GOLDEN_OPS_H
#define GOLDEN_OPS_H

#include "ir/ir.h"

#include <stdio.h>

#define GOLDEN_OPS "tests/golden/ops/ops.txt"

typedef struct golden {
    int number;
    ay_op op;
    ay_attr attr;
    ay_type want; /* rank -1: the op needs none */
    int n_in;
    ay_tensor in[5]; /* named "0", "1", ..; data on the heap */
    ay_tensor out;   /* named "y" */
} golden;

/** Reads the next case; false at the end of the file. Aborts the test program on a line it does not understand. */
bool golden_next(FILE *f, golden *c);
void golden_free(golden *c);
/** The case as a graph with inputs "0", "1", .. and output "y". */
ay_graph *golden_graph(ay_ctx *cx, const golden *c);
/** The same with inputs from number `stored` on as CONSTs. */
ay_graph *golden_graph_stored(ay_ctx *cx, const golden *c, int stored);
/** Evaluates g with the case's inputs; the result, of the case's type, into `got` (heap). */
alloy_status golden_eval(const ay_graph *g, golden *c, void **got);
/** Whether got equals the case's result: integers and bool exactly, floats within tol * max(1, |x|). Says where not. */
bool golden_equal(const golden *c, const void *got, double tol);

#endif
