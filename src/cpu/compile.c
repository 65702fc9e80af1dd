/* SPDX-License-Identifier: MIT
 *
 * From graph to program: the engine's own copy of the graph, passes, fusion, placing, then one walk in which every op's
 * row adds its steps, then the memory plan.
 */
#include "cpu/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BAND_FROM = 24 << 20 };  /* bytes: about where a picture no longer lies in a last cache */
enum { KEEP_FLOOR = 1 << 20 }; /* small tables kept as float32: this much at least, else 5 % of the weights' bytes */

alloy_status ay_plan_fail(const ay_plan *pl, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *scope = pl->at >= 0 ? pl->g->nodes[pl->at].scope : NULL;
    if (scope && *scope) return ay_fail(pl->cx, ALLOY_E_UNSUPPORTED, "in %s: %s", scope, text);
    return ay_fail(pl->cx, ALLOY_E_UNSUPPORTED, "%s", text);
}

int ay_plan_buffer(ay_plan *pl, ay_home home, size_t bytes, void *base) {
    ay_program *p = pl->p;
    if (p->n_bufs == p->cap_bufs) {
        int cap = p->cap_bufs ? p->cap_bufs * 2 : 256;
        ay_buffer *more = realloc(p->bufs, (size_t)cap * sizeof *more);
        if (!more) return -1;
        p->bufs = more;
        p->cap_bufs = cap;
    }
    p->bufs[p->n_bufs] = (ay_buffer){.home = home, .bytes = bytes, .first = -1, .last = -1, .base = base, .merged = -1};
    return p->n_bufs++;
}

void *ay_plan_keep(ay_plan *pl, size_t bytes) {
    if (bytes > SIZE_MAX - 64) return NULL;
    unsigned char *m = ay_alloc(pl->arena, bytes + 64);
    if (!m) return NULL;
    pl->p->fixed_bytes += bytes;
    return m + (64 - (uintptr_t)m % 64) % 64;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

ay_step *ay_step_add(ay_plan *pl, ay_step_fn run, const void *args, size_t args_bytes) {
    ay_program *p = pl->p;
    if (p->n_steps == p->cap_steps) {
        int cap = p->cap_steps ? p->cap_steps * 2 : 256;
        ay_step *more = realloc(p->steps, (size_t)cap * sizeof *more);
        if (!more) return NULL;
        p->steps = more;
        p->cap_steps = cap;
    }
    void *copy = ay_alloc(pl->arena, args_bytes);
    if (!copy) return NULL;
    memcpy(copy, args, args_bytes);
    ay_step *s = &p->steps[p->n_steps++];
    *s = (ay_step){.run = run, .args = copy, .scratch = AY_NO_REF, .what = "step", .scope = ""};
    if (pl->at >= 0) {
        const ay_node *n = ay_plan_node(pl, pl->at);
        s->what = ay_op_get(n->op)->name;
        if (n->scope) s->scope = n->scope;
    }
    return s;
}

static ay_ref add_io(ay_step *s, const ay_view *v, bool write, bool inplace) {
    if (v->buf < 0) return AY_NO_REF;
    if (s->n_io < AY_STEP_IO) s->io[s->n_io++] = (ay_step_io){.buf = v->buf, .write = write, .inplace = inplace};
    else s->n_io = AY_STEP_IO + 1; /* refused by ay_plan_memory: a builder with too many operands */
    return (ay_ref){v->buf, v->off * (int64_t)ay_kind_size(v->kind)};
}

ay_ref ay_step_read(ay_step *s, const ay_view *v) { return add_io(s, v, false, false); }
ay_ref ay_step_read_inplace(ay_step *s, const ay_view *v) { return add_io(s, v, false, v->off == 0); }
ay_ref ay_step_write(ay_step *s, const ay_view *v) { return add_io(s, v, true, v->off == 0); }
ay_ref ay_step_write_part(ay_step *s, const ay_view *v, size_t at) {
    ay_ref r = ay_step_write(s, v);
    if (s->n_io <= AY_STEP_IO && s->n_io > 0) {
        s->io[s->n_io - 1].part = at;
        s->io[s->n_io - 1].parted = true;
    }
    return r;
}

alloy_status ay_step_scratch(ay_plan *pl, ay_step *s, size_t bytes) {
    if (bytes == 0) return ALLOY_OK;
    ay_view v = {.kind = AY_KIND_U8, .buf = ay_plan_buffer(pl, AY_HOME_SLAB, bytes, NULL)};
    if (v.buf < 0) return ay_nomem(pl->cx);
    s->scratch = add_io(s, &v, true, false);
    s->scratch_bytes = bytes;
    return ALLOY_OK;
}

void ay_step_what(ay_plan *pl, ay_step *s, const char *fmt, ...) {
    char text[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char *copy = ay_strdup(pl->arena, text);
    if (copy) s->what = copy;
}

/* ---- checks before planning -------------------------------------------------------------------------------------- */

static alloy_status check_weight(ay_plan *pl, const ay_node *n) {
    const ay_weight *w = n->weight;
    if (!w || !w->data || (w->store == AY_STORE_BLOCK && !w->scale) || (w->store == AY_STORE_LUT && !w->lut))
        return ay_fail(pl->cx, ALLOY_E_MISMATCH, "weight %s has no data: bind the package's weights before compiling",
                       n->name);
    int64_t have = 1, want = ay_type_count(&n->type);
    for (int i = 0; i < w->rank; i++)
        if (w->dim[i] < 0 || (w->dim[i] > 0 && have > INT64_MAX / w->dim[i]))
            return ay_plan_fail(pl, "weight %s: bad shape", n->name);
        else have *= w->dim[i];
    if (have != want)
        return ay_plan_fail(pl, "weight %s is bound to %lld elements where the graph needs %lld", n->name, (long long)have,
                            (long long)want);
    return ALLOY_OK;
}

static alloy_status check_nodes(ay_plan *pl) {
    size_t weights = 0;
    for (ay_val v = 0; v < pl->g->n_nodes; v++) {
        const ay_node *n = ay_plan_node(pl, v);
        pl->at = v;
        if (n->op == AY_OP_PARAM) {
            AY_TRY(check_weight(pl, n));
            weights += ay_weight_data_bytes(n->weight);
        }
        int64_t count = ay_type_count(&n->type);
        if (count < 0 || count > INT64_MAX / 64)
            return ay_plan_fail(pl, "%s: a value too large to hold", ay_op_get(n->op)->name);
        if (count == 0) return ay_plan_fail(pl, "%s: a value without elements cannot be computed", ay_op_get(n->op)->name);
    }
    pl->keep_limit = weights / 20 > KEEP_FLOOR ? weights / 20 : KEEP_FLOOR;
    pl->at = -1;
    return ALLOY_OK;
}

/* CONST numbers that the caller's graph owns are copied as they are: that graph may go. Others (mapped files) are not. */
static alloy_status keep_consts(ay_plan *pl, const ay_arena *callers) {
    for (int i = 0; i < pl->g->n_nodes; i++) {
        ay_node *n = &pl->g->nodes[i];
        if (n->op != AY_OP_CONST || !ay_arena_owns(callers, n->data)) continue;
        size_t bytes = ay_dtype_bytes(n->type.dtype, ay_type_count(&n->type));
        void *copy = ay_plan_keep(pl, bytes);
        if (!copy) return ay_nomem(pl->cx);
        memcpy(copy, n->data, bytes);
        n->data = copy;
    }
    return ALLOY_OK;
}

static alloy_status make_ports(ay_plan *pl) {
    ay_program *p = pl->p;
    int n = 0;
    for (int i = 0; i < pl->g->n_nodes; i++) n += pl->g->nodes[i].op == AY_OP_INPUT;
    p->inputs = ay_alloc(pl->arena, (size_t)(n + 1) * sizeof *p->inputs);
    p->outputs = ay_alloc(pl->arena, (size_t)(pl->g->n_outputs + 1) * sizeof *p->outputs);
    if (!p->inputs || !p->outputs) return ay_nomem(pl->cx);
    for (int i = 0; i < pl->g->n_nodes; i++) {
        const ay_node *d = &pl->g->nodes[i];
        if (d->op == AY_OP_INPUT) p->inputs[p->n_inputs++] = (ay_port){d->name, d->type, ay_kind_of(d->type.dtype), -1};
    }
    for (int i = 0; i < pl->g->n_outputs; i++) {
        const ay_output *o = &pl->g->outputs[i];
        const ay_type *t = ay_type_of(pl->g, o->value);
        p->outputs[p->n_outputs++] = (ay_port){o->name, *t, ay_kind_of(t->dtype), -1};
    }
    return ALLOY_OK;
}

static void count_uses(ay_plan *pl) {
    for (ay_val v = 0; v < pl->g->n_nodes; v++)
        for (int i = 0; i < pl->g->nodes[v].n_in; i++) {
            ay_value_plan *u = &pl->val[pl->g->nodes[v].in[i]];
            u->uses++;
            u->user = v;
        }
    for (int i = 0; i < pl->g->n_outputs; i++) {
        ay_value_plan *u = &pl->val[pl->g->outputs[i].value];
        u->uses++;
        u->user = AY_NO_VALUE;
        u->is_output = true;
    }
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

static alloy_status round_value(ay_plan *pl, ay_val v) {
    const ay_node *n = ay_plan_node(pl, v);
    if (!pl->emulate || n->type.dtype != AY_F16) return ALLOY_OK;
    return ay_add_round_step(pl, &pl->val[v].view);
}

static alloy_status plan_outputs(ay_plan *pl, ay_val v) {
    for (int i = 0; i < pl->g->n_outputs; i++) {
        if (pl->g->outputs[i].value != v) continue;
        ay_view d;
        AY_TRY(ay_plan_dense(pl, v, &d));
        AY_TRY(ay_add_output_step(pl, i, &d));
    }
    return ALLOY_OK;
}

static alloy_status plan_node(ay_plan *pl, ay_val v) {
    const ay_node *n = ay_plan_node(pl, v);
    const ay_row *row = ay_row_get(n->op);
    ay_value_plan *vp = &pl->val[v];
    bool leaf = n->op == AY_OP_INPUT || n->op == AY_OP_PARAM || n->op == AY_OP_CONST;
    if (!vp->absorbed && !leaf && !ay_plan_is_view(pl, n)) {
        ay_fused alone = ay_fused_alone(v);
        const ay_fused *f = vp->fused ? vp->fused : &alone;
        row = ay_row_get(ay_plan_node(pl, f->anchor)->op);
        pl->at = f->anchor;
        if (!row->build) return ay_plan_fail(pl, "%s: the CPU engine has no step for it", ay_op_get(n->op)->name);
        AY_TRY(row->build(pl, f));
        AY_TRY(round_value(pl, v));
    }
    pl->at = v;
    return vp->is_output ? plan_outputs(pl, v) : ALLOY_OK;
}

static alloy_status plan_all(ay_plan *pl, const ay_arena *callers) {
    AY_TRY(check_nodes(pl));
    AY_TRY(keep_consts(pl, callers));
    pl->val = ay_alloc(pl->arena, (size_t)(pl->g->n_nodes + 1) * sizeof *pl->val);
    if (!pl->val) return ay_nomem(pl->cx);
    AY_TRY(make_ports(pl));
    count_uses(pl);
    if (!pl->plain) {
        AY_TRY(ay_plan_fuse(pl));
        AY_TRY(ay_plan_fuse_bands(pl));
        AY_TRY(ay_plan_place(pl));
    }
    for (ay_val v = 0; v < pl->g->n_nodes; v++) AY_TRY(plan_node(pl, v));
    if (ay_arena_failed(pl->arena)) return ay_nomem(pl->cx);
    return ay_plan_memory(pl->cx, pl->p);
}

static alloy_status allocate(ay_ctx *cx, ay_program *p) {
    p->profile = calloc((size_t)p->n_steps + 1, sizeof *p->profile);
    p->run_in = calloc((size_t)p->n_inputs + 1, sizeof *p->run_in);
    p->run_out = calloc((size_t)p->n_outputs + 1, sizeof *p->run_out);
    if (!p->profile || !p->run_in || !p->run_out) return ay_nomem(cx);
    size_t there = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (p->slab_bytes > there / 4 * 3) { /* most systems would give it, and kill the program when it is used */
        return ay_fail(cx, ALLOY_E_NOMEM, "%.1f GB are needed for values, more than three quarters of this machine's %.1f GB of memory: ask for a smaller size",
                       (double)p->slab_bytes / 1e9, (double)there / 1e9);
    }
    if (p->slab_bytes) {
        p->slab = aligned_alloc(64, p->slab_bytes);
        if (!p->slab)
            return ay_fail(cx, ALLOY_E_NOMEM, "the program needs %.1f MB for its values: use a smaller size, or free memory",
                           (double)p->slab_bytes / 1e6);
    }
    for (int i = 0; i < p->n_bufs; i++)
        if (p->bufs[i].home == AY_HOME_SLAB) p->bufs[i].base = p->slab + p->bufs[i].offset;
    for (int i = 0; i < p->n_steps; i++) {
        const ay_step *s = &p->steps[i];
        p->profile[i] = (ay_step_profile){.what = s->what, .scope = s->scope, .flops = s->flops, .int8_ops = s->int8_ops,
                                            .int4_ops = s->int4_ops,                                            .bytes = s->bytes};
    }
    return ALLOY_OK;
}

static alloy_status run_passes(ay_graph *g, const ay_compile_opts *opts) {
    /* Rounding after each node means each node as it stands: nothing is folded, shared or raised then. */
    static const ay_pass plain[] = {{"dce", ay_pass_dce, NULL}};
    static const ay_pass full[] = {
        {"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL}, {"dce", ay_pass_dce, NULL},
        {"raise", ay_pass_raise, NULL}, {"fold", ay_pass_fold, NULL}, {"cse", ay_pass_cse, NULL}, {"dce", ay_pass_dce, NULL},
    };
    if (opts->emulate_f16 || opts->keep_as_is) return ay_passes_run(g, plain, 1);
    return ay_passes_run(g, full, (int)(sizeof full / sizeof *full));
}

alloy_status ay_cpu_compile(ay_ctx *cx, const ay_graph *g, const ay_compile_opts *opts, ay_program **out) {
    static const ay_compile_opts none = {0};
    *out = NULL;
    if (!opts) opts = &none;
    AY_TRY(ay_graph_status(g));
    AY_TRY(ay_graph_verify(g));
    ay_program *p = calloc(1, sizeof *p);
    if (!p) return ay_nomem(cx);
    p->threads = ay_pool_threads(cx->pool);
    p->isa = cx->isa;
    p->rounds_inputs = opts->emulate_f16;
    p->map = opts->map;
    p->map_bytes = opts->map_bytes;
    p->arena = ay_arena_new();
    p->g = ay_graph_clone(g);
    alloy_status st = p->arena && p->g ? ALLOY_OK : ay_nomem(cx);
    if (st == ALLOY_OK) {
        p->g->cx = cx;
        st = run_passes(p->g, opts);
    }
    if (st == ALLOY_OK) {
        ay_plan pl = {.cx = cx, .g = p->g, .p = p, .arena = p->arena, .at = -1,
                      .band_from = opts->band_from ? opts->band_from : BAND_FROM,
                      .emulate = opts->emulate_f16, .plain = opts->emulate_f16 || opts->keep_as_is,
                      .int8 = opts->int8_activations && !opts->emulate_f16};
        st = plan_all(&pl, g->arena);
    }
    if (st == ALLOY_OK) st = ay_plan_stream(cx, p, opts->memory_limit, opts->least);
    if (st == ALLOY_OK) st = allocate(cx, p);
    if (st != ALLOY_OK) ay_program_free(&p);
    *out = p;
    return st;
}

void ay_program_free(ay_program **pp) {
    if (!pp || !*pp) return;
    ay_program *p = *pp;
    *pp = NULL;
    free(p->slab);
    free(p->profile);
    free(p->run_in);
    free(p->run_out);
    free(p->steps);
    free(p->bufs);
    ay_arena_free(p->arena);
    ay_graph_free(p->g);
    free(p);
}
