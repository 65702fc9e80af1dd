/* SPDX-License-Identifier: MIT
 *
 * Graphs drawn from bytes: the same bytes give the same graph, with bound parameters and input data. Used with seeded bytes
 * by the tests of passes and with libFuzzer's by tests/fuzz/fuzz_graph.c.
 */
#ifndef RANDOM_GRAPH_H
#define RANDOM_GRAPH_H

#include "ir/ir.h"

typedef struct random_graph {
    ay_graph *g;
    int n_in, n_out;
    ay_tensor in[4];  /* data in the graph's arena */
    ay_tensor out[3]; /* no data */
} random_graph;

/** With `smooth`, only ops through which a small error stays small, so that rearranged arithmetic can be compared. */
bool random_graph_make(ay_ctx *cx, const uint8_t *bytes, size_t n, bool smooth, random_graph *out);
/** Evaluates `g` (the graph itself or what passes made of it) for the same inputs and outputs; data[i] on the heap. */
alloy_status random_graph_eval(const random_graph *r, const ay_graph *g, void *data[3]);
/** Compares two results: 0 exact (NaN equals NaN), else within tol of the largest magnitude; tensors with numbers that are
 *  not finite or beyond 1e4 are not judged when tol > 0. Says where they differ. */
bool random_graph_equal(const random_graph *r, void *const a[3], void *const b[3], double tol);
void random_graph_free_data(void *data[3]);

#endif
