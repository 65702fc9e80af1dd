/* SPDX-License-Identifier: MIT
 *
 * Cuts a graph into a chain of graphs that together compute the same, see pass.h. The order that follows from the outputs
 * alone may compute what depends on little (a block's modulation, say) long before its block, so nodes are sorted by block
 * first: blocks by how far their last node is from the outputs, nodes of one block as they were, and nothing before what it
 * reads. What depends on no input (weights, casts of weights, tables) belongs to no link and is made in each that reads it.
 */
#include "ir/graph.h"
#include "pass/pass.h"

#include <stdlib.h>
#include <string.h>

/* ---- order ------------------------------------------------------------------------------------------------------------ */

/* "blocks.3.attn.to_q": the first 8 characters; "time_embed.linear": the first 10. */
static size_t block_length(const char *scope) {
    for (const char *p = scope; *p; p++) {
        size_t digits = p > scope && p[-1] == '.' ? strspn(p, "0123456789") : 0;
        if (digits && (p[digits] == '.' || !p[digits])) return (size_t)(p - scope) + digits;
    }
    return strcspn(scope, ".");
}

static const char *scope_of(const ay_node *n) { return n->scope ? n->scope : ""; }

static bool same_block(const ay_node *a, const ay_node *b) {
    const char *s = scope_of(a), *t = scope_of(b);
    size_t n = block_length(s);
    return n == block_length(t) && strncmp(s, t, n) == 0;
}

typedef struct ranked {
    ay_val v;
    int block; /* the block's distance from the outputs, made larger where an input's is less */
} ranked;

static int by_block(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    return x->block != y->block ? (x->block > y->block ? -1 : 1) : x->v < y->v ? -1 : x->v > y->v;
}

/* How far each node is from the outputs, at most; -1: no output needs it. */
static void distances(const ay_graph *g, int *far) {
    for (int v = 0; v < g->n_nodes; v++) far[v] = -1;
    for (int i = 0; i < g->n_outputs; i++) far[g->outputs[i].value] = 0;
    for (int v = g->n_nodes - 1; v >= 0; v--) {
        for (int i = 0; i < g->nodes[v].n_in && far[v] >= 0; i++) {
            int *u = &far[g->nodes[v].in[i]];
            if (*u < far[v] + 1) *u = far[v] + 1;
        }
    }
}

static alloy_status rank(const ay_graph *g, ay_arena *a, const ay_chain *s, int *far, ranked *r) {
    int *block = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *block);
    ay_val *first = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *first); /* of each block seen */
    int n_blocks = 0, *of = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *of);
    if (!block || !first || !of) return ay_nomem(g->cx);
    for (int i = 0; i < s->n; i++) {
        ay_val v = s->order[i];
        int b = *scope_of(&g->nodes[v]) ? n_blocks - 1 : -1; /* what has no scope is no block: each for itself */
        while (b >= 0 && !same_block(&g->nodes[first[b]], &g->nodes[v])) b--;
        if (b < 0) {
            b = n_blocks++;
            first[b] = v;
            block[b] = far[v];
        }
        if (far[v] < block[b]) block[b] = far[v];
        of[v] = b;
    }
    for (int i = 0; i < s->n; i++) {
        ay_val v = s->order[i];
        int own = block[of[v]];
        for (int k = 0; k < g->nodes[v].n_in; k++) {
            ay_val u = g->nodes[v].in[k];
            if (s->link[u] == 0 && far[u] < own) own = far[u]; /* far[] of nodes passed is their rank by now */
        }
        r[i] = (ranked){v, own};
        far[v] = own;
    }
    return ALLOY_OK;
}

alloy_status ay_chain_order(const ay_graph *g, ay_arena *a, ay_chain *s) {
    *s = (ay_chain){.n_links = 1};
    size_t n = (size_t)g->n_nodes + 1;
    s->order = ay_alloc(a, n * sizeof *s->order);
    s->link = ay_alloc(a, n * sizeof *s->link);
    s->begin = ay_alloc(a, n * sizeof *s->begin);
    ranked *r = ay_alloc(a, n * sizeof *r);
    int *far = ay_alloc(a, n * sizeof *far);
    if (!s->order || !s->link || !s->begin || !r || !far) return ay_nomem(g->cx);
    distances(g, far);
    for (int v = 0; v < g->n_nodes; v++) {
        const ay_node *x = &g->nodes[v];
        s->link[v] = -1;
        for (int k = 0; k < x->n_in; k++) {
            if (s->link[x->in[k]] == 0 || g->nodes[x->in[k]].op == AY_OP_INPUT) s->link[v] = 0;
        }
        if (far[v] < 0) s->link[v] = -1;
        if (s->link[v] == 0) s->order[s->n++] = v;
    }
    AY_TRY(rank(g, a, s, far, r));
    qsort(r, (size_t)s->n, sizeof *r, by_block);
    for (int i = 0; i < s->n; i++) s->order[i] = r[i].v;
    s->begin[1] = s->n;
    return ALLOY_OK;
}

static void number_links(ay_chain *s) {
    for (int k = 0; k < s->n_links; k++) {
        for (int i = s->begin[k]; i < s->begin[k + 1]; i++) s->link[s->order[i]] = k;
    }
}

/* ---- borders ------------------------------------------------------------------------------------------------------------ */

static uint64_t weight_bytes(const ay_weight *w) {
    return ay_weight_data_bytes(w) + ay_weight_scale_bytes(w) + ay_weight_offset_bytes(w) + ay_weight_lut_bytes(w) + 256; /* records, padding */
}

/* Bytes that computing `v` adds to a link: its own and those of constants that the link has not had (mark[] == link). */
static uint64_t cost(const ay_graph *g, const ay_chain *s, ay_val v, int *mark, int link, uint64_t node_bytes) {
    uint64_t sum = node_bytes;
    const ay_node *n = &g->nodes[v];
    if (n->op == AY_OP_PARAM) sum += weight_bytes(n->weight);
    if (n->op == AY_OP_CONST) sum += ay_dtype_bytes(n->type.dtype, ay_type_count(&n->type)) + 256;
    for (int i = 0; i < n->n_in; i++) {
        ay_val u = n->in[i];
        if (s->link[u] >= 0 || g->nodes[u].op == AY_OP_INPUT || mark[u] == link) continue;
        mark[u] = link;
        sum += cost(g, s, u, mark, link, node_bytes);
    }
    return sum;
}

static bool fits_package(const ay_type *t) {
    return (t->dtype == AY_F16 || t->dtype == AY_F32 || t->dtype == AY_I32) && t->rank >= 1 && t->rank <= 5;
}

/* What a border before place i of the order is worth: 0, none; 1, inside a block; 2, between blocks. last[]: the place of the
 * last reader of each node. */
static int *border_worth(const ay_graph *g, ay_arena *a, const ay_chain *s) {
    int *place = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *place), *last = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *last);
    int *bad = ay_alloc(a, ((size_t)s->n + 2) * sizeof *bad), *worth = ay_alloc(a, ((size_t)s->n + 2) * sizeof *worth);
    if (!place || !last || !bad || !worth) return NULL;
    for (int i = 0; i < s->n; i++) place[s->order[i]] = i;
    for (int i = 0; i < s->n; i++) {
        const ay_node *n = &g->nodes[s->order[i]];
        for (int k = 0; k < n->n_in; k++) {
            if (s->link[n->in[k]] >= 0) last[n->in[k]] = i; /* places ascend */
        }
    }
    for (int i = 0; i < s->n; i++) { /* a value that no package takes spans the borders (i, last]: +1 there, -1 behind */
        ay_val v = s->order[i];
        if (fits_package(&g->nodes[v].type) || last[v] <= i) continue;
        bad[i + 1]++;
        bad[last[v] + 1]--;
    }
    for (int i = 1, open = 0; i < s->n; i++) {
        const ay_node *before = &g->nodes[s->order[i - 1]], *behind = &g->nodes[s->order[i]];
        open += bad[i];
        if (!open && strcmp(scope_of(before), scope_of(behind)) != 0) worth[i] = same_block(before, behind) ? 1 : 2;
    }
    return worth;
}

static alloy_status too_large(const ay_graph *g, const ay_node *n, uint64_t limit) {
    return ay_fail(g->cx, ALLOY_E_USAGE, "\"%s\" and what goes with it take more than the %.6g MB that a package may have; raise --max-package-size",
                   scope_of(n), (double)limit / 1e6);
}

alloy_status ay_chain_at_most(const ay_graph *g, ay_arena *a, ay_chain *s, uint64_t limit, uint64_t node_bytes) {
    int *worth = border_worth(g, a, s), *mark = ay_alloc(a, ((size_t)g->n_nodes + 1) * sizeof *mark);
    if (!worth || !mark) return ay_nomem(g->cx);
    for (int v = 0; v < g->n_nodes; v++) mark[v] = -1;
    int links = 0;
    for (int i = 0, from = 0, tries = 0; from < s->n; tries++) {
        uint64_t sum = 0;
        int at[3] = {0};
        for (i = from; i < s->n; i++) {
            if (i > from && worth[i]) at[worth[i]] = i;
            sum += cost(g, s, s->order[i], mark, tries, node_bytes);
            if (sum > limit) break;
        }
        s->begin[links++] = from;
        if (i == s->n) break;
        int to = at[2] ? at[2] : at[1];
        if (!to) return too_large(g, &g->nodes[s->order[i]], limit);
        from = to;
    }
    s->n_links = links ? links : 1;
    s->begin[s->n_links] = s->n;
    number_links(s);
    return ALLOY_OK;
}

alloy_status ay_chain_like(const ay_graph *g, ay_arena *a, ay_chain *s, const ay_graph *other, const ay_chain *how) {
    bool same = s->n == how->n;
    for (int i = 0; same && i < s->n; i++) {
        const ay_node *x = &g->nodes[s->order[i]], *y = &other->nodes[how->order[i]];
        same = x->op == y->op && strcmp(scope_of(x), scope_of(y)) == 0;
    }
    if (!same) {
        return ay_fail(g->cx, ALLOY_E_UNSUPPORTED,
                       "the model is built otherwise for the sizes asked for, so that they cannot share a chain of packages; convert them one by one");
    }
    s->begin = ay_alloc(a, ((size_t)how->n_links + 1) * sizeof *s->begin);
    if (!s->begin) return ay_nomem(g->cx);
    memcpy(s->begin, how->begin, ((size_t)how->n_links + 1) * sizeof *s->begin);
    s->n_links = how->n_links;
    number_links(s);
    return ALLOY_OK;
}

/* ---- one link --------------------------------------------------------------------------------------------------------- */

typedef struct taking {
    const ay_graph *g;
    const ay_chain *s;
    ay_graph *out;
    ay_val *map;
    int *carried; /* number of each value that crosses a border, -1: none */
} taking;

/* Numbers in the chain's order, so that they are the same for every size. */
static void number_carried(taking *t) {
    int n = 0;
    for (int v = 0; v < t->g->n_nodes; v++) t->carried[v] = -1;
    for (int v = 0; v < t->g->n_nodes; v++) {
        const ay_node *x = &t->g->nodes[v];
        if (t->s->link[v] < 0) continue;
        for (int k = 0; k < x->n_in; k++) {
            if (t->s->link[x->in[k]] >= 0 && t->s->link[x->in[k]] < t->s->link[v]) t->carried[x->in[k]] = 0;
        }
    }
    for (int i = 0; i < t->s->n; i++) {
        if (t->carried[t->s->order[i]] == 0) t->carried[t->s->order[i]] = n++;
    }
}

static const char *carried_name(taking *t, ay_val v) { return ay_sprintf(t->out->arena, "carried_%d", t->carried[v]); }

static ay_val copy(taking *t, ay_val v);

static ay_val append(taking *t, ay_val v) {
    ay_node n = t->g->nodes[v];
    ay_val *in = n.n_in ? ay_alloc(t->out->arena, (size_t)n.n_in * sizeof *in) : NULL;
    for (int i = 0; i < n.n_in && in; i++) in[i] = copy(t, n.in[i]);
    ay_weight *w = n.weight ? ay_alloc(t->out->arena, sizeof *w) : NULL;
    if ((n.n_in && !in) || (n.weight && !w)) {
        if (!t->out->status) t->out->status = ay_nomem(t->g->cx);
        return AY_NO_VALUE;
    }
    if (w) *w = *n.weight;
    n.in = in;
    n.weight = w;
    return ay_graph_append(t->out, &n);
}

/* The value in the link's graph: there already, an input, or made from constants. */
static ay_val copy(taking *t, ay_val v) {
    if (t->map[v] != AY_NO_VALUE || t->out->status) return t->map[v];
    return t->map[v] = append(t, v);
}

/* Inputs of the whole that the link reads (the first one also takes those that nobody reads), then what links before computed. */
static void add_inputs(taking *t, int link) {
    const ay_graph *g = t->g;
    unsigned char *read = ay_alloc(t->out->arena, (size_t)g->n_nodes + 1); /* 1: by this link, 2: by another */
    if (!read) return;
    for (int v = 0; v < g->n_nodes; v++) {
        for (int k = 0; k < g->nodes[v].n_in && t->s->link[v] >= 0; k++) read[g->nodes[v].in[k]] |= t->s->link[v] == link ? 1 : 2;
    }
    for (int i = 0; i < g->n_outputs; i++) {
        if (g->nodes[g->outputs[i].value].op == AY_OP_INPUT) read[g->outputs[i].value] |= link == t->s->n_links - 1 ? 1 : 2;
    }
    for (int v = 0; v < g->n_nodes; v++) {
        if (g->nodes[v].op == AY_OP_INPUT && ((read[v] & 1) || (link == 0 && !read[v]))) copy(t, v);
    }
    for (int i = 0; i < t->s->begin[link]; i++) {
        ay_val v = t->s->order[i];
        if (read[v] & 1) t->map[v] = ay_input(t->out, carried_name(t, v), g->nodes[v].type);
    }
}

static void add_outputs(taking *t, int link) {
    const ay_graph *g = t->g;
    for (int i = 0; i < g->n_outputs; i++) {
        int at = t->s->link[g->outputs[i].value];
        if ((at < 0 ? t->s->n_links - 1 : at) == link) ay_set_output(t->out, g->outputs[i].name, copy(t, g->outputs[i].value));
    }
    for (int i = t->s->begin[link]; i < t->s->begin[link + 1]; i++) {
        ay_val v = t->s->order[i];
        if (t->carried[v] >= 0) ay_set_output(t->out, carried_name(t, v), t->map[v]);
    }
}

alloy_status ay_chain_take(const ay_graph *g, const ay_chain *s, int link, ay_graph **out) {
    taking t = {.g = g, .s = s, .out = ay_graph_new(g->cx)};
    *out = NULL;
    if (!t.out) return ay_nomem(g->cx);
    t.map = ay_alloc(t.out->arena, ((size_t)g->n_nodes + 1) * sizeof *t.map);
    t.carried = ay_alloc(t.out->arena, ((size_t)g->n_nodes + 1) * sizeof *t.carried);
    alloy_status st = t.map && t.carried ? ALLOY_OK : ay_nomem(g->cx);
    if (st == ALLOY_OK) {
        for (int v = 0; v < g->n_nodes; v++) t.map[v] = AY_NO_VALUE;
        number_carried(&t);
        add_inputs(&t, link);
        for (int i = s->begin[link]; i < s->begin[link + 1]; i++) copy(&t, s->order[i]);
        add_outputs(&t, link);
        st = ay_arena_failed(t.out->arena) ? ay_nomem(g->cx) : ay_graph_status(t.out);
    }
    if (st == ALLOY_OK) st = ay_graph_verify(t.out);
    if (st == ALLOY_OK) *out = t.out;
    else ay_graph_free(t.out);
    return st;
}
