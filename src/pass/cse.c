/* SPDX-License-Identifier: MIT
 *
 * Common subexpressions: nodes with equal op, type, attributes and inputs become one, also CONSTs of equal content. Inputs
 * and parameters are unique by name already. One hash table, one walk.
 */
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

/* Consts above this size are compared by address only: tables of megabytes are not worth hashing. */
enum { CONST_BYTES = 1 << 16 };

static uint64_t mix(uint64_t h, const void *p, size_t n) {
    const unsigned char *b = p;
    for (; n >= 8; n -= 8, b += 8) {
        uint64_t w;
        memcpy(&w, b, 8);
        h = (h ^ w) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    for (; n; n--, b++) h = (h ^ *b) * 0x100000001B3u;
    return h ^ h >> 32;
}

static size_t const_bytes(const ay_node *n) {
    size_t bytes = ay_dtype_bytes(n->type.dtype, ay_type_count(&n->type));
    return n->op == AY_OP_CONST && bytes <= CONST_BYTES ? bytes : 0;
}

static uint64_t node_hash(const ay_node *n, const ay_val *in) {
    int64_t head[3] = {n->op, n->type.dtype, n->type.rank};
    uint64_t h = mix(mix(0, head, sizeof head), n->type.dim, (size_t)n->type.rank * sizeof n->type.dim[0]);
    h = mix(mix(h, &n->attr, sizeof n->attr), in, (size_t)n->n_in * sizeof *in);
    return n->op == AY_OP_CONST ? mix(h, n->data, const_bytes(n)) : h;
}

static bool same(const ay_node *a, const ay_node *b, const ay_val *b_in) {
    if (a->op != b->op || a->n_in != b->n_in || !ay_type_equal(&a->type, &b->type)) return false;
    if (memcmp(&a->attr, &b->attr, sizeof a->attr) != 0) return false;
    if (a->op == AY_OP_CONST) {
        size_t bytes = const_bytes(a);
        return a->data == b->data || (bytes && memcmp(a->data, b->data, bytes) == 0);
    }
    return memcmp(a->in, b_in, (size_t)a->n_in * sizeof *b_in) == 0;
}

typedef struct table {
    ay_val *slot;
    uint64_t *hash;
    size_t mask;
} table;

/* The new value equal to the old node v, copied if there is none yet. */
static void unify(ay_rewrite *r, table *t, ay_val v, ay_val **in, int *cap_in) {
    const ay_node *n = &r->old[v];
    if (n->op == AY_OP_INPUT || n->op == AY_OP_PARAM) {
        ay_rewrite_copy(r, v);
        return;
    }
    if (n->n_in > *cap_in) {
        ay_val *p = realloc(*in, (size_t)n->n_in * 2 * sizeof *p);
        if (!p) {
            r->g->status = ay_nomem(r->g->cx);
            return;
        }
        *in = p;
        *cap_in = 2 * n->n_in;
    }
    for (int i = 0; i < n->n_in; i++) (*in)[i] = r->map[n->in[i]];
    uint64_t h = node_hash(n, *in);
    size_t i = (size_t)h & t->mask;
    for (; t->slot[i] != AY_NO_VALUE; i = (i + 1) & t->mask) {
        if (t->hash[i] != h || !same(ay_node_of(r->g, t->slot[i]), n, *in)) continue;
        r->map[v] = t->slot[i];
        return;
    }
    t->slot[i] = ay_rewrite_copy(r, v);
    t->hash[i] = h;
}

alloy_status ay_pass_cse(ay_graph *g, void *arg) {
    if (g->status) return g->status;
    size_t cap = 64;
    while (cap < 2 * (size_t)g->n_nodes) cap *= 2;
    table t = {malloc(cap * sizeof *t.slot), malloc(cap * sizeof *t.hash), cap - 1};
    int cap_in = 16;
    ay_val *in = malloc((size_t)cap_in * sizeof *in);
    alloy_status st = ALLOY_OK;
    if (!t.slot || !t.hash || !in) {
        st = ay_nomem(g->cx);
    } else {
        for (size_t i = 0; i < cap; i++) t.slot[i] = AY_NO_VALUE;
        ay_rewrite r;
        st = ay_rewrite_begin(&r, g);
        for (ay_val v = 0; !g->status && v < r.n_old; v++) unify(&r, &t, v, &in, &cap_in);
        if (!st) st = ay_rewrite_end(&r);
    }
    free(t.slot);
    free(t.hash);
    free(in);
    return st;
}
