/* SPDX-License-Identifier: MIT
 *
 * Passes: each takes a graph and rewrites it in place, one pass, one file. A backend's pipeline is an array of rows.
 */
#ifndef AY_PASS_H
#define AY_PASS_H

#include "ir/ir.h"

typedef struct ay_pass {
    const char *name;
    alloy_status (*run)(ay_graph *g, void *arg);
    void *arg;
} ay_pass;
/** Runs them in order, verifying after each when built without NDEBUG. */
alloy_status ay_passes_run(ay_graph *g, const ay_pass *rows, int n);

alloy_status ay_pass_order(ay_graph *g, void *arg); /* the order that follows from the outputs alone; drops what none needs */
alloy_status ay_pass_dce(ay_graph *g, void *arg);  /* drops what no output needs (inputs stay) */
alloy_status ay_pass_cse(ay_graph *g, void *arg);  /* equal nodes become one */
alloy_status ay_pass_fold(ay_graph *g, void *arg); /* evaluates what depends on CONST only (up to 64 KB), drops no-ops */
/** Lowers composites. arg: const ay_lower_rule *; a composite stays whole when rule->keeps(rule, g, node) says so. */
typedef struct ay_lower_rule {
    bool (*keeps)(const struct ay_lower_rule *rule, const ay_graph *g, const ay_node *n);
    void *user;
} ay_lower_rule;
alloy_status ay_pass_lower(ay_graph *g, void *arg);
/** Raises MIL's decomposed forms back to composites: rms_norm, group_norm, layer_norm, rope, sdpa, silu, gelu. */
alloy_status ay_pass_raise(ay_graph *g, void *arg);

/** Types a float32 graph for half precision. Every float value becomes float16 except where a rule keeps float32; ops that
 *  only move elements (reshape, slice, concat ...) and comparisons follow their input unless a rule names them; casts are
 *  put at the borders and shared; PARAMs follow their consumers (a param used by both sides is stored float16 and cast), and
 *  bound float32 bytes are converted into the graph's arena, so type first and bind afterwards where weights are large.
 *  A rule matches nodes by op (AY_OP_COUNT: any) and by scope pattern ('*' any run of characters). First match wins. */
typedef struct ay_precision_rule {
    const char *scope;  /* glob over "scope" of the node */
    ay_op op;
    ay_dtype dtype;     /* AY_F16 or AY_F32 */
    const char *reason; /* printed by info -v and kept in docs */
} ay_precision_rule;
typedef struct ay_precision {
    const ay_precision_rule *rules; /* ends with scope NULL; may be NULL */
    bool io_f32;                    /* inputs and outputs stay float32 whatever is inside */
    const char *const *f32_inputs;  /* inputs that stay float32 in any case (timestep, ids); NULL-terminated or NULL */
} ay_precision;
alloy_status ay_pass_precision(ay_graph *g, void *arg); /* arg: const ay_precision * */

/** Linear layers and convolutions whose weight has factors become product, mul, add. arg: const ay_factors *. */
typedef struct ay_factors {
    /** The name of the parameter with the factors of weight `name` (in g's arena or longer-lived), or NULL. */
    const char *(*name)(void *user, ay_graph *g, const char *name);
    void *user;
} ay_factors;
alloy_status ay_pass_factors(ay_graph *g, void *arg);

/* ---- cutting a graph into a chain (chain.c) -------------------------------------------------------------------------- */

/** The nodes that compute something from inputs, in an order in which blocks (scopes up to their first number) lie together,
 *  and where the chain is cut: link k computes order[begin[k]] up to order[begin[k + 1]]. */
typedef struct ay_chain {
    ay_val *order; /* n of them */
    int *link;     /* [nodes of the graph] the link that computes it; -1: inputs, and what depends on none: made where it is used */
    int *begin;    /* [n_links + 1] */
    int n, n_links;
} ay_chain;
/** One link of everything; memory of `a`. */
alloy_status ay_chain_order(const ay_graph *g, ay_arena *a, ay_chain *s);
/** Cuts at borders of blocks, and inside of blocks only where one alone is too large, so that no link has more than `limit`
 *  bytes of weights and, counted as `node_bytes` a node, program. What crosses a border has a type that packages take. */
alloy_status ay_chain_at_most(const ay_graph *g, ay_arena *a, ay_chain *s, uint64_t limit, uint64_t node_bytes);
/** Cuts where the same model's graph of another size was cut. */
alloy_status ay_chain_like(const ay_graph *g, ay_arena *a, ay_chain *s, const ay_graph *other, const ay_chain *how);
/** One link as a graph of its own: reads inputs of the whole and values "carried_N" of links before, gives outputs of the
 *  whole and what later links read. Shares data with `g`. */
alloy_status ay_chain_take(const ay_graph *g, const ay_chain *s, int link, ay_graph **out);

/** Helper for passes: builds a new node list while mapping old values to new ones. */
typedef struct ay_rewrite {
    ay_graph *g;      /* being rewritten: nodes appended here are the new list */
    ay_node *old;     /* the list before */
    int n_old;
    ay_val *map;      /* old value -> new value; AY_NO_VALUE: dropped */
} ay_rewrite;
alloy_status ay_rewrite_begin(ay_rewrite *r, ay_graph *g);
ay_val ay_rewrite_copy(ay_rewrite *r, ay_val old); /* copies node `old` with mapped inputs, sets the map */
alloy_status ay_rewrite_end(ay_rewrite *r);        /* remaps outputs, frees */

#endif
