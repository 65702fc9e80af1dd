/* SPDX-License-Identifier: MIT
 *
 * From a MIL program to a graph: walks the operations of one function, looks each up in the families' tables, and checks
 * every result against the type that the program declares for it. How single operations read is in read_*.c.
 */
#include "coreml/read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ------------------------------------------------------------------------------------------------------- */

static size_t name_hash(const char *name) {
    uint64_t h = 1469598103934665603u; /* FNV-1a */
    for (const char *c = name; *c; c++) h = (h ^ (unsigned char)*c) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

/** The slot of `name`, or the free one where it belongs. */
static size_t name_slot(const ay_reader *r, const char *name) {
    size_t i = name_hash(name) & (r->n_slots - 1);
    while (r->slots[i] && strcmp(r->values[r->slots[i] - 1].name, name) != 0) i = (i + 1) & (r->n_slots - 1);
    return i;
}

ay_mvalue *ay_mfind(const ay_reader *r, const char *name) {
    uint32_t s = r->slots[name_slot(r, name)];
    return s ? &r->values[s - 1] : NULL;
}

static alloy_status add_value(ay_reader *r, const ay_mvalue *v) {
    size_t slot = name_slot(r, v->name);
    if (r->slots[slot] || !v->name[0])
        return ay_fail(r->cx, ALLOY_E_FORMAT, "two values are called \"%.100s\"", v->name);
    r->values[r->n_values++] = *v;
    r->slots[slot] = (uint32_t)r->n_values;
    return ALLOY_OK;
}

/** Room for every value the function can make, so that pointers to values stay good. */
static alloy_status make_table(ay_reader *r, const AyMil__Function *fn, const AyMil__Block *block) {
    size_t n = fn->n_inputs;
    for (size_t i = 0; i < block->n_operations; i++) n += block->operations[i]->n_outputs;
    if (n > (size_t)1 << 30) return ay_fail(r->cx, ALLOY_E_FORMAT, "the program has %zu values", n);
    r->n_slots = 16;
    while (r->n_slots < 2 * n) r->n_slots *= 2;
    r->values = calloc(n + 1, sizeof *r->values);
    r->slots = calloc(r->n_slots, sizeof *r->slots);
    return r->values && r->slots ? ALLOY_OK : ay_nomem(r->cx);
}

/* ---- failing ----------------------------------------------------------------------------------------------------- */

ay_val ay_mfail(ay_mop *o, alloy_status code, const char *fmt, ...) {
    if (ay_mbad(o)) return AY_NO_VALUE;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    o->r->status = code;
    return ay_graph_fail(o->r->g, code, "%s", text); /* so that what the row's function still builds changes nothing */
}

bool ay_mbad(const ay_mop *o) { return o->r->status != ALLOY_OK || ay_graph_status(o->r->g) != ALLOY_OK; }

/* ---- one operation ----------------------------------------------------------------------------------------------- */

static const ay_mrow *find_row(const char *type) {
    static const ay_mtable *const tables[] = {&ay_read_constexpr, &ay_read_elementwise, &ay_read_matrix, &ay_read_shape,
                                              &ay_read_reduce,    &ay_read_gather,      &ay_read_image};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (int i = 0; i < tables[t]->n; i++)
            if (strcmp(tables[t]->rows[i].type, type) == 0) return &tables[t]->rows[i];
    return NULL;
}

/** A result must be what the program says it is; unknown dims may be anything. */
static void check_result(ay_mop *o, int i) {
    ay_mvalue *v = &o->out[i];
    ay_type want, got = {0};
    char a[160], b[160];
    if (v->kind == AY_M_STRING || ay_mbad(o)) return;
    if (v->kind == AY_M_NONE) {
        ay_mfail(o, ALLOY_E_FORMAT, "it makes no output %d (%s)", i, v->name);
        return;
    }
    if (v->kind == AY_M_NODE) got = *ay_mtype(o, v->node);
    else if (v->kind == AY_M_RAW && v->raw.rank <= AY_MAX_RANK) {
        got = (ay_type){.dtype = v->raw.dtype, .rank = v->raw.rank};
        memcpy(got.dim, v->raw.dim, sizeof got.dim);
    } else if (v->kind == AY_M_WEIGHT) {
        got = (ay_type){.dtype = v->weight->value_dtype, .rank = v->weight->rank};
        memcpy(got.dim, v->weight->dim, sizeof got.dim);
    } else return; /* a palette of high rank: only constexpr operations look at it, and they check */
    if (!ay_mdeclared(o, i, &want)) {
        ay_mfail(o, ALLOY_E_UNSUPPORTED, "output %s is not a tensor of rank 0 to %d", v->name, AY_MAX_RANK);
        return;
    }
    bool same = want.rank == got.rank && want.dtype == got.dtype;
    for (int d = 0; same && d < want.rank; d++) same = want.dim[d] < 0 || want.dim[d] == got.dim[d];
    if (!same)
        ay_mfail(o, ALLOY_E_MISMATCH, "the program declares output %.100s as %s, its inputs make it %s", v->name,
                 ay_type_text(&want, a), ay_type_text(&got, b));
}

static void run_row(ay_mop *o) {
    ay_reader *r = o->r;
    int before = r->g->n_nodes;
    ay_val first = o->row->read(o);
    if (ay_mbad(o)) return;
    if (first != AY_NO_VALUE && o->n_out) {
        o->out[0].kind = AY_M_NODE;
        o->out[0].node = first;
    }
    const char *scope = r->g->n_nodes > before ? ay_strdup(r->g->arena, o->name) : NULL; /* may outlive the package */
    for (int i = before; scope && i < r->g->n_nodes; i++)
        if (r->g->nodes[i].op != AY_OP_PARAM) r->g->nodes[i].scope = scope;
    for (int i = 0; i < o->n_out; i++) check_result(o, i);
}

static alloy_status read_operation(ay_reader *r, const AyMil__Operation *op) {
    const AyMil__Value *nv = ay_mil_attribute(op, "name");
    const char *name = nv ? ay_mil_string(nv) : NULL;
    if (!name) name = op->n_outputs ? op->outputs[0]->name : op->type;
    ay_mop o = {.r = r, .op = op, .name = name, .row = find_row(op->type)};
    if (op->n_outputs > 100000)
        return ay_fail(r->cx, ALLOY_E_FORMAT, "operation %.100s has %zu outputs", name, op->n_outputs);
    o.n_out = (int)op->n_outputs;
    o.out = ay_alloc(r->g->arena, ((size_t)o.n_out + 1) * sizeof *o.out);
    if (!o.out) return ay_nomem(r->cx);
    for (int i = 0; i < o.n_out; i++) o.out[i] = (ay_mvalue){.name = op->outputs[i]->name, .node = AY_NO_VALUE};
    if (!o.row)
        ay_mfail(&o, ALLOY_E_UNSUPPORTED, op->n_blocks ? "control flow is not supported: every shape and step must be static"
                                                       : "alloy does not know this type of operation");
    else run_row(&o);
    if (!r->status) r->status = ay_graph_status(r->g);
    for (int i = 0; i < o.n_out && !r->status; i++) r->status = add_value(r, &o.out[i]);
    if (r->status) ay_fail_prefix(r->cx, "operation %.100s (%.60s): ", name, op->type);
    return r->status;
}

/* ---- a function -------------------------------------------------------------------------------------------------- */

static alloy_status read_inputs(ay_reader *r, const AyMil__Function *fn) {
    for (size_t i = 0; i < fn->n_inputs; i++) {
        const AyMil__NamedValueType *in = fn->inputs[i];
        ay_type t;
        if (!in->type || in->type->type_case == AY_MIL__VALUE_TYPE__TYPE__NOT_SET)
            return ay_fail(r->cx, ALLOY_E_FORMAT, "input %.100s has no type", in->name);
        if (in->type->type_case == AY_MIL__VALUE_TYPE__TYPE_STATE_TYPE)
            return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "input %.100s is a state; alloy runs programs without states",
                           in->name);
        if (in->type->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !in->type->tensor_type)
            return ay_fail(r->cx, ALLOY_E_UNSUPPORTED, "input %.100s is not a tensor", in->name);
        if (!ay_mil_type_get(in->type->tensor_type, &t))
            return ay_fail(r->cx, ALLOY_E_UNSUPPORTED,
                           "input %.100s has a flexible shape, or more than %d dims; alloy needs fixed shapes: convert "
                           "it for one size",
                           in->name, AY_MAX_RANK);
        ay_mvalue v = {.name = in->name, .kind = AY_M_NODE, .node = ay_input(r->g, in->name, t)};
        AY_TRY(ay_graph_status(r->g));
        AY_TRY(add_value(r, &v));
    }
    return ALLOY_OK;
}

/** Images come as pixels, not as numbers: the description says so, the program does not. */
static alloy_status check_images(ay_package *p, const char *function) {
    for (int i = 0; i < p->info.n_functions; i++) {
        const ay_package_function *f = &p->info.functions[i];
        if (strcmp(f->name, function) != 0) continue;
        for (int k = 0; k < f->n_inputs; k++)
            if (f->inputs[k].type.dtype == AY_NONE)
                return ay_fail(p->cx, ALLOY_E_UNSUPPORTED,
                               "input %.100s is an image or another kind that is no array; alloy takes arrays only",
                               f->inputs[k].name);
    }
    return ALLOY_OK;
}

static alloy_status read_outputs(ay_reader *r, const AyMil__Block *block) {
    if (block->n_outputs == 0) return ay_fail(r->cx, ALLOY_E_FORMAT, "the function has no outputs");
    for (size_t i = 0; i < block->n_outputs; i++) {
        ay_mvalue *v = ay_mfind(r, block->outputs[i]);
        if (!v) return ay_fail(r->cx, ALLOY_E_FORMAT, "output %.100s is made by no operation", block->outputs[i]);
        AyMil__Operation none = AY_MIL__OPERATION__INIT;
        ay_mop o = {.r = r, .op = &none, .name = v->name};
        ay_val node = ay_mvalue_node(&o, v);
        if (r->status) return r->status;
        ay_set_output(r->g, v->name, node);
        AY_TRY(ay_graph_status(r->g));
    }
    return ALLOY_OK;
}

static alloy_status read_function(ay_reader *r, const char *function) {
    const AyMil__Function *fn;
    const AyMil__Block *block;
    const char *found;
    AY_TRY(ay_package_function_find(r->p, function, &fn, &block, &found));
    if (strncmp(fn->opset, "CoreML", 6) != 0 || fn->opset[6] < '5' || fn->opset[6] > '9' || fn->opset[7])
        return ay_fail(r->cx, ALLOY_E_UNSUPPORTED,
                       "function %.100s is of the opset \"%.40s\"; known are CoreML5 to CoreML9", found, fn->opset);
    r->opset = fn->opset[6] - '0';
    AY_TRY(check_images(r->p, found));
    AY_TRY(make_table(r, fn, block));
    AY_TRY(read_inputs(r, fn));
    for (size_t i = 0; i < block->n_operations; i++) {
        if (i % 256 == 0) AY_TRY(ay_check_stop(r->cx));
        AY_TRY(read_operation(r, block->operations[i]));
    }
    return read_outputs(r, block);
}

alloy_status ay_package_graph_known(ay_package *p, const char *function, const ay_tensor *known, int n_known,
                                    ay_graph **out) {
    *out = NULL;
    ay_reader r = {.cx = p->cx, .p = p, .g = ay_graph_new(p->cx), .known = known, .n_known = n_known};
    if (!r.g) return ay_nomem(p->cx);
    r.made_limit = ((uint64_t)64 << 20) + 32 * ((uint64_t)p->spec_size + p->weights_size);
    alloy_status st = read_function(&r, function);
    if (st) ay_fail_prefix(p->cx, "%s: ", p->path);
    if (!st) st = ay_graph_status(r.g);
    free(r.values);
    free(r.slots);
    if (st) ay_graph_free(r.g);
    else *out = r.g;
    return st;
}

alloy_status ay_package_graph(ay_package *p, const char *function, ay_graph **out) {
    return ay_package_graph_known(p, function, NULL, 0, out);
}
