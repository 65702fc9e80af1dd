/* SPDX-License-Identifier: MIT
 *
 * One MIL operation at a time: its name in the model's own words, its arguments, the `const` operations its parameters
 * need. Arguments are sorted by parameter name, so that the same graph always gives the same bytes.
 */
#include "coreml/emit.h"

#include "base/half.h"

#include <string.h>

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* "transformer_blocks.0.attn.to_q": the layer whose weight this is, or NULL. */
static const char *layer_words(ay_emitter *e, const ay_node *n) {
    static const ay_op layers[] = {AY_OP_LINEAR, AY_OP_CONV, AY_OP_CONV_TRANSPOSE, AY_OP_LAYER_NORM};
    static const char tail[] = ".weight";
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        if (n->op != layers[i] || n->n_in < 2) continue;
        const ay_node *w = &e->g->nodes[n->in[1]];
        if (w->op == AY_OP_CAST) w = &e->g->nodes[w->in[0]];
        size_t len = w->op == AY_OP_PARAM ? strlen(w->name) : 0;
        if (len >= sizeof tail && strcmp(w->name + len - (sizeof tail - 1), tail) == 0)
            return ay_strndup(e->arena, w->name, len - (sizeof tail - 1));
    }
    return NULL;
}

/* What an operation of this node is called before it is made unique. */
static const char *node_words(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    const char *layer = layer_words(e, n);
    if (layer) return layer;
    const char *own = n->name ? n->name : ay_op_get(n->op)->name;
    return n->op != AY_OP_PARAM && n->scope && *n->scope ? ay_sprintf(e->arena, "%s_%s", n->scope, own) : own;
}

/* ---- begin, arguments, end --------------------------------------------------------------------------------------- */

static void add_attribute(ay_emitter *e, AyMil__Operation *op, const char *key, AyMil__Value *v) {
    AyMil__ValueEntry *entry = ay_emit_alloc(e, sizeof *entry);
    AyMil__ValueEntry **list = ay_emit_alloc(e, (op->n_attributes + 1) * sizeof *list);
    if (!entry || !list || !v) return;
    ay_mil__value_entry__init(entry);
    entry->key = ay_strdup(e->arena, key);
    entry->value = v;
    size_t at = op->n_attributes;
    while (at > 0 && strcmp(op->attributes[at - 1]->key, key) > 0) at--;
    if (op->n_attributes) {
        memcpy(list, op->attributes, at * sizeof *list);
        memcpy(list + at + 1, op->attributes + at, (op->n_attributes - at) * sizeof *list);
    }
    list[at] = entry;
    op->attributes = list;
    op->n_attributes++;
    if (!entry->key && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
}

AyMil__Operation *ay_emit_begin(ay_emitter *e, const char *type, const char *stem) {
    AyMil__Operation *op = ay_emit_alloc(e, sizeof *op);
    if (!op) return NULL;
    ay_mil__operation__init(op);
    if (!stem) stem = node_words(e);
    const char *name = stem ? ay_name_fresh(&e->names, stem) : NULL;
    op->type = ay_strdup(e->arena, type);
    if (!name || !op->type) {
        if (ay_emit_ok(e)) e->status = ay_nomem(e->cx);
        return NULL;
    }
    add_attribute(e, op, "name", ay_emit_string_value(e, name));
    return op;
}

const char *ay_emit_op_name(const AyMil__Operation *op) { return ay_mil_string(ay_mil_attribute(op, "name")); }

void ay_emit_attribute(ay_emitter *e, AyMil__Operation *op, const char *key, AyMil__Value *v) {
    if (op && ay_emit_ok(e)) add_attribute(e, op, key, v);
}

static void add_argument(ay_emitter *e, AyMil__Operation *op, const char *param, AyMil__Argument *arg) {
    AyMil__ArgumentEntry *entry = ay_emit_alloc(e, sizeof *entry);
    AyMil__ArgumentEntry **list = ay_emit_alloc(e, (op->n_inputs + 1) * sizeof *list);
    if (!entry || !list) return;
    ay_mil__argument_entry__init(entry);
    entry->key = ay_strdup(e->arena, param);
    entry->value = arg;
    size_t at = op->n_inputs;
    while (at > 0 && strcmp(op->inputs[at - 1]->key, param) > 0) at--;
    if (op->n_inputs) {
        memcpy(list, op->inputs, at * sizeof *list);
        memcpy(list + at + 1, op->inputs + at, (op->n_inputs - at) * sizeof *list);
    }
    list[at] = entry;
    op->inputs = list;
    op->n_inputs++;
    if (!entry->key && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
}

static AyMil__Argument *new_argument(ay_emitter *e, size_t n) {
    AyMil__Argument *arg = ay_emit_alloc(e, sizeof *arg);
    AyMil__Binding **list = ay_emit_alloc(e, (n + 1) * sizeof *list);
    if (!arg || !list) return NULL;
    ay_mil__argument__init(arg);
    arg->arguments = list;
    arg->n_arguments = n;
    for (size_t i = 0; i < n; i++) {
        if (!(list[i] = ay_emit_alloc(e, sizeof **list))) return NULL;
        ay_mil__binding__init(list[i]);
    }
    return arg;
}

void ay_emit_args(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const char *const *values) {
    AyMil__Argument *arg = op && ay_emit_ok(e) ? new_argument(e, (size_t)n) : NULL;
    if (!arg) return;
    for (int i = 0; i < n; i++) {
        if (!values[i]) {
            ay_emit_fail(e, ALLOY_E_INTERNAL, "parameter %s of %s has no value", param, op->type);
            return;
        }
        arg->arguments[i]->binding_case = AY_MIL__BINDING__BINDING_NAME;
        arg->arguments[i]->name = ay_strdup(e->arena, values[i]);
        if (!arg->arguments[i]->name && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    }
    add_argument(e, op, param, arg);
}

void ay_emit_arg(ay_emitter *e, AyMil__Operation *op, const char *param, const char *value) {
    ay_emit_args(e, op, param, 1, &value);
}

void ay_emit_literal(ay_emitter *e, AyMil__Operation *op, const char *param, AyMil__Value *v) {
    AyMil__Argument *arg = op && v && ay_emit_ok(e) ? new_argument(e, 1) : NULL;
    if (!arg) return;
    arg->arguments[0]->binding_case = AY_MIL__BINDING__BINDING_VALUE;
    arg->arguments[0]->value = v;
    add_argument(e, op, param, arg);
}

static AyMil__NamedValueType *new_output(ay_emitter *e, const char *name, const ay_type *type) {
    AyMil__NamedValueType *o = ay_emit_alloc(e, sizeof *o);
    if (!o) return NULL;
    ay_mil__named_value_type__init(o);
    o->name = ay_strdup(e->arena, name);
    o->type = ay_emit_value_type(e, type->dtype, type->rank, type->dim);
    if (!o->name && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    return o;
}

static void append(ay_emitter *e, AyMil__Operation *op, int n, AyMil__NamedValueType *a, AyMil__NamedValueType *b) {
    op->outputs = ay_emit_alloc(e, 2 * sizeof *op->outputs);
    if (e->n_ops == e->cap_ops) {
        size_t cap = e->cap_ops ? e->cap_ops * 2 : 1024;
        AyMil__Operation **ops = ay_emit_alloc(e, cap * sizeof *ops);
        if (!ops) return;
        if (e->n_ops) memcpy(ops, e->ops, e->n_ops * sizeof *ops);
        e->ops = ops;
        e->cap_ops = cap;
    }
    if (!op->outputs) return;
    op->outputs[0] = a;
    op->outputs[1] = b;
    op->n_outputs = (size_t)n;
    e->ops[e->n_ops++] = op;
}

const char *ay_emit_end(ay_emitter *e, AyMil__Operation *op, const ay_type *type) {
    if (!op || !ay_emit_ok(e)) return NULL;
    ay_type t = type->dtype == AY_NONE ? *type : ay_emit_type(e, type); /* NONE: a string */
    AyMil__NamedValueType *o = new_output(e, ay_emit_op_name(op), &t);
    if (o) append(e, op, 1, o, NULL);
    return o && ay_emit_ok(e) ? o->name : NULL;
}

void ay_emit_result(ay_emitter *e, AyMil__Operation *op, const ay_type *extra, bool extra_first) {
    if (!op || !ay_emit_ok(e)) return;
    ay_type t = ay_emit_type(e, &ay_emit_node(e)->type);
    const char *name = e->result[e->at] ? e->result[e->at] : ay_emit_op_name(op);
    AyMil__NamedValueType *o = new_output(e, name, &t), *x = NULL;
    if (extra) {
        const char *stem = ay_sprintf(e->arena, "%s_unused", ay_emit_op_name(op));
        const char *unused = stem ? ay_name_fresh(&e->names, stem) : NULL;
        x = unused ? new_output(e, unused, extra) : NULL;
        if (!x && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    }
    if (!ay_emit_ok(e)) return;
    append(e, op, extra ? 2 : 1, extra && extra_first ? x : o, extra && extra_first ? o : x);
    e->value[e->at] = o->name;
}

void ay_emit_alias(ay_emitter *e, const char *value) {
    if (!e->result[e->at]) {
        e->value[e->at] = value;
        return;
    }
    AyMil__Operation *op = ay_emit_begin(e, "identity", NULL);
    ay_emit_arg(e, op, "x", value);
    ay_emit_result(e, op, NULL, false);
}

/* ---- parameters with known values -------------------------------------------------------------------------------- */

/* "OP_axis_0", as coremltools names them. */
static const char *param_stem(ay_emitter *e, const AyMil__Operation *op, const char *param) {
    return ay_sprintf(e->arena, "%s_%s_0", ay_emit_op_name(op), param);
}

static void emit_param(ay_emitter *e, AyMil__Operation *op, const char *param, const ay_type *t, const void *data) {
    const char *stem = op && ay_emit_ok(e) ? param_stem(e, op, param) : NULL;
    if (stem) ay_emit_arg(e, op, param, ay_emit_const(e, stem, t, data));
}

void ay_emit_int(ay_emitter *e, AyMil__Operation *op, const char *param, int64_t v) {
    int32_t value = (int32_t)v;
    if (v != value) ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "parameter %s is %lld, past 32 bits", param, (long long)v);
    emit_param(e, op, param, &(ay_type){.dtype = AY_I32}, &value);
}

void ay_emit_ints(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const int64_t *v) {
    int32_t *values = ay_emit_alloc(e, (size_t)(n + 1) * sizeof *values);
    for (int i = 0; values && i < n; i++) {
        values[i] = (int32_t)v[i];
        if (v[i] != values[i])
            ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "parameter %s has %lld, past 32 bits", param, (long long)v[i]);
    }
    if (values) emit_param(e, op, param, &(ay_type){.dtype = AY_I32, .rank = 1, .dim = {n}}, values);
}

void ay_emit_bool(ay_emitter *e, AyMil__Operation *op, const char *param, bool v) {
    uint8_t value = v;
    emit_param(e, op, param, &(ay_type){.dtype = AY_BOOL}, &value);
}

void ay_emit_bools(ay_emitter *e, AyMil__Operation *op, const char *param, int n, const bool *v) {
    uint8_t values[AY_MAX_RANK * 2] = {0};
    for (int i = 0; i < n && i < AY_MAX_RANK * 2; i++) values[i] = v[i];
    emit_param(e, op, param, &(ay_type){.dtype = AY_BOOL, .rank = 1, .dim = {n}}, values);
}

void ay_emit_str(ay_emitter *e, AyMil__Operation *op, const char *param, const char *v) {
    const char *stem = op && ay_emit_ok(e) ? param_stem(e, op, param) : NULL;
    if (stem) ay_emit_arg(e, op, param, ay_emit_const_string(e, stem, v));
}

void ay_emit_num(ay_emitter *e, AyMil__Operation *op, const char *param, ay_dtype dtype, double v) {
    union {
        float f;
        uint16_t h;
        int32_t i;
    } value = {0};
    if (dtype == AY_F32)
        value.f = (float)v;
    else if (dtype == AY_F16)
        value.h = ay_f32_to_f16((float)v);
    else if (dtype == AY_I32)
        value.i = (int32_t)v;
    else
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "parameter %s cannot be of type %s", param, ay_dtype_name(dtype));
    emit_param(e, op, param, &(ay_type){.dtype = dtype}, &value);
}

void ay_emit_zeros(ay_emitter *e, AyMil__Operation *op, const char *param, ay_dtype dtype, int64_t n) {
    void *zeros = ay_emit_alloc(e, ay_dtype_bytes(dtype, n) + 1);
    if (zeros) emit_param(e, op, param, &(ay_type){.dtype = dtype, .rank = 1, .dim = {n}}, zeros);
}

/* ---- small steps around an op ------------------------------------------------------------------------------------ */

static const char *helper_stem(ay_emitter *e, const char *what) {
    const char *words = ay_emit_ok(e) ? node_words(e) : NULL;
    return words ? ay_sprintf(e->arena, "%s_%s", words, what) : NULL;
}

const char *ay_emit_reshape(ay_emitter *e, const char *x, const ay_type *to) {
    AyMil__Operation *op = ay_emit_begin(e, "reshape", helper_stem(e, "reshape"));
    ay_emit_arg(e, op, "x", x);
    ay_emit_ints(e, op, "shape", to->rank, to->dim);
    return ay_emit_end(e, op, to);
}

const char *ay_emit_transpose(ay_emitter *e, const char *x, const ay_type *to, const int64_t *perm) {
    AyMil__Operation *op = ay_emit_begin(e, "transpose", helper_stem(e, "transpose"));
    ay_emit_arg(e, op, "x", x);
    ay_emit_ints(e, op, "perm", to->rank, perm);
    return ay_emit_end(e, op, to);
}

const char *ay_emit_binary(ay_emitter *e, const char *mil, const char *x, const char *y, const ay_type *to) {
    AyMil__Operation *op = ay_emit_begin(e, mil, helper_stem(e, mil));
    ay_emit_arg(e, op, "x", x);
    ay_emit_arg(e, op, "y", y);
    return ay_emit_end(e, op, to);
}

const char *ay_emit_expand(ay_emitter *e, const char *x, const ay_type *from, const ay_type *to) {
    ay_type t = *to;
    int64_t reps[AY_MAX_RANK], axes[AY_MAX_RANK] = {0, 1, 2, 3, 4, 5};
    bool same = true;
    for (int i = 0; i < to->rank; i++) { /* t: from's shape with ones in front; reps: what is missing to `to` */
        int at = i - (to->rank - from->rank);
        t.dim[i] = at < 0 ? 1 : from->dim[at];
        reps[i] = to->dim[i] / t.dim[i];
        same &= reps[i] == 1;
    }
    AyMil__Operation *op;
    if (from->rank == 0 && to->rank > 0) { /* reshape has no scalars */
        op = ay_emit_begin(e, "expand_dims", helper_stem(e, "expand_dims"));
        ay_emit_arg(e, op, "x", x);
        ay_emit_ints(e, op, "axes", to->rank, axes);
        x = ay_emit_end(e, op, &t);
    } else if (from->rank != to->rank) {
        x = ay_emit_reshape(e, x, &t);
    }
    if (same) return x;
    op = ay_emit_begin(e, "tile", helper_stem(e, "tile"));
    ay_emit_arg(e, op, "x", x);
    ay_emit_ints(e, op, "reps", to->rank, reps);
    return ay_emit_end(e, op, to);
}
