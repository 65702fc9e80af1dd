/* SPDX-License-Identifier: MIT
 *
 * Random graphs for the engine's tests: networks in the shape of transformers and decoders, and tangles of movement and
 * elementwise ops that no model would write. Weights are bound to random numbers owned by the case.
 */
#ifndef ENGINE_GRAPHS_H
#define ENGINE_GRAPHS_H

#include "support.h"
#include "ir/ir.h"

typedef struct graph_case {
    ay_graph *g;
    ay_arena *arena;
    ay_tensor in[8], out[4], want[4];
    int n_in, n_out;
} graph_case;

typedef ay_graph *(*graph_fn)(ay_ctx *cx, uint64_t *seed, ay_dtype t);
/** dtype of activations and weights: float32, or float16 for emulation. */
ay_graph *graph_joint_blocks(ay_ctx *cx, uint64_t *seed, ay_dtype t); /* two streams, joint attention, then single blocks */
ay_graph *graph_encoder(ay_ctx *cx, uint64_t *seed, ay_dtype t);        /* masked attention, gated or plain feed-forward */
ay_graph *graph_decoder(ay_ctx *cx, uint64_t *seed, ay_dtype t);        /* convolutions, group norm, upsampling, attention */
ay_graph *graph_tangle(ay_ctx *cx, uint64_t *seed, ay_dtype t);         /* anything on anything */

ay_graph *graph_epilogues(ay_ctx *cx, uint64_t *seed, ay_dtype t);      /* what may follow a product or norm, and what may not */
ay_graph *graph_tables(ay_ctx *cx, uint64_t *seed, ay_dtype t);         /* small parts of large tables */
ay_graph *graph_integers(ay_ctx *cx, uint64_t *seed, ay_dtype t);       /* integers, truth values and their ways to floats */

/** Binds weights, makes inputs, evaluates the reference (rounding float16 values where `half`). */
void graph_case_make(graph_case *c, ay_ctx *cx, graph_fn make, uint64_t seed, ay_dtype t, bool half, int64_t *overflows);
void graph_case_free(graph_case *c);
/** Relative L2 distance between out and want over all outputs. */
double graph_case_error(const graph_case *c);

static inline int pick(uint64_t *seed, int n) { return (int)(ay_test_random(seed) >> 33) % n; }

#endif
