/* SPDX-License-Identifier: MIT
 *
 * Graph to MIL: the table with one row per op, and the walk over a function. Elementwise ops are nothing but a name per
 * class of dtype; the others have a function in emit_*.c. Which parameters are written, and that all of them are, follows
 * what coremltools serialises, because the closed compiler on a Mac insists on it.
 */
#include "coreml/emit.h"

#include "base/half.h"

#include <stdio.h>
#include <string.h>

typedef struct emit_row {
    ay_emit_fn fn;                           /* NULL: elementwise, by name */
    const char *on_float, *on_int, *on_bool; /* MIL op for inputs of that class; NULL: MIL has none; "=": the value itself */
    bool (*keeps)(ay_target target, const ay_graph *g, const ay_node *n); /* composites: whether MIL takes it whole */
    double epsilon; /* > 0: the op has an epsilon parameter; tiny, for our ops have none */
} emit_row;

static void op_input(ay_emitter *e) { e->value[e->at] = ay_emit_node(e)->name; }

static void op_lowered(ay_emitter *e) {
    ay_emit_fail(e, ALLOY_E_INTERNAL, "%s should have been lowered before it is written",
                 ay_op_get(ay_emit_node(e)->op)->name);
}

static bool always(ay_target target, const ay_graph *g, const ay_node *n) { return true; }

static bool keeps_upsample(ay_target target, const ay_graph *g, const ay_node *n) {
    return !n->attr.upsample.bilinear && n->type.rank >= 3;
}

/* MIL broadcasts no batch dims here, and has no rank 2 form. */
static bool keeps_sdpa(ay_target target, const ay_graph *g, const ay_node *n) {
    if (target < AY_TARGET_MACOS15 || n->type.rank < 3 || n->type.rank > 5) return false;
    for (int i = 0; i < 3; i++) {
        const ay_type *t = ay_type_of(g, n->in[i]);
        if (t->rank != n->type.rank) return false;
        for (int d = 0; d < t->rank - 2; d++)
            if (t->dim[d] != n->type.dim[d]) return false;
    }
    return true;
}

static const emit_row rows[AY_OP_COUNT] = {
    [AY_OP_INPUT] = {.fn = op_input},
    [AY_OP_PARAM] = {.fn = ay_emit_op_param},
    [AY_OP_CONST] = {.fn = ay_emit_op_const},

    [AY_OP_ABS] = {.on_float = "abs", .on_int = "abs"},
    [AY_OP_EXP] = {.on_float = "exp"},
    [AY_OP_LOG] = {.on_float = "log", .epsilon = 1e-45},
    [AY_OP_SQRT] = {.on_float = "sqrt"},
    [AY_OP_RSQRT] = {.on_float = "rsqrt", .epsilon = 1e-12},
    [AY_OP_SIN] = {.on_float = "sin"},
    [AY_OP_COS] = {.on_float = "cos"},
    [AY_OP_TANH] = {.on_float = "tanh"},
    [AY_OP_ERF] = {.on_float = "erf"},
    [AY_OP_FLOOR] = {.on_float = "floor", .on_int = "="},
    [AY_OP_CEIL] = {.on_float = "ceil", .on_int = "="},
    [AY_OP_ROUND] = {.on_float = "round", .on_int = "="},
    [AY_OP_SIGN] = {.on_float = "sign", .on_int = "sign"},
    [AY_OP_NOT] = {.on_bool = "logical_not"},
    [AY_OP_CAST] = {.fn = ay_emit_op_cast},

    [AY_OP_ADD] = {.on_float = "add", .on_int = "add"},
    [AY_OP_SUB] = {.on_float = "sub", .on_int = "sub"},
    [AY_OP_MUL] = {.on_float = "mul", .on_int = "mul", .on_bool = "logical_and"},
    [AY_OP_DIV] = {.on_float = "real_div", .on_int = "floor_div"},
    [AY_OP_MOD] = {.on_float = "mod", .on_int = "mod"},
    [AY_OP_MAX] = {.on_float = "maximum", .on_int = "maximum", .on_bool = "logical_or"},
    [AY_OP_MIN] = {.on_float = "minimum", .on_int = "minimum", .on_bool = "logical_and"},
    [AY_OP_POW] = {.on_float = "pow", .on_int = "pow"},
    [AY_OP_EQ] = {.on_float = "equal", .on_int = "equal"},
    [AY_OP_NE] = {.on_float = "not_equal", .on_int = "not_equal", .on_bool = "logical_xor"},
    [AY_OP_LT] = {.on_float = "less", .on_int = "less"},
    [AY_OP_LE] = {.on_float = "less_equal", .on_int = "less_equal"},
    [AY_OP_GT] = {.on_float = "greater", .on_int = "greater"},
    [AY_OP_GE] = {.on_float = "greater_equal", .on_int = "greater_equal"},
    [AY_OP_AND] = {.on_bool = "logical_and"},
    [AY_OP_OR] = {.on_bool = "logical_or"},
    [AY_OP_XOR] = {.on_bool = "logical_xor"},
    [AY_OP_WHERE] = {.fn = ay_emit_op_where},

    [AY_OP_SUM] = {.fn = ay_emit_op_reduce, .on_float = "reduce_sum", .on_int = "reduce_sum"},
    [AY_OP_RMAX] = {.fn = ay_emit_op_reduce, .on_float = "reduce_max", .on_int = "reduce_max"},
    [AY_OP_RMIN] = {.fn = ay_emit_op_reduce, .on_float = "reduce_min", .on_int = "reduce_min"},
    [AY_OP_PROD] = {.fn = ay_emit_op_reduce, .on_float = "reduce_prod", .on_int = "reduce_prod"},
    [AY_OP_ARGMAX] = {.fn = ay_emit_op_argmax},
    [AY_OP_CUMSUM] = {.fn = ay_emit_op_cumsum},
    [AY_OP_TOPK] = {.fn = ay_emit_op_topk},

    [AY_OP_MATMUL] = {.fn = ay_emit_op_matmul},
    [AY_OP_CONV] = {.fn = ay_emit_op_conv},
    [AY_OP_POOL] = {.fn = ay_emit_op_pool},

    [AY_OP_RESHAPE] = {.fn = ay_emit_op_reshape},
    [AY_OP_PERMUTE] = {.fn = ay_emit_op_permute},
    [AY_OP_EXPAND] = {.fn = ay_emit_op_expand},
    [AY_OP_SLICE] = {.fn = ay_emit_op_slice},
    [AY_OP_CONCAT] = {.fn = ay_emit_op_concat},
    [AY_OP_PAD] = {.fn = ay_emit_op_pad},
    [AY_OP_REVERSE] = {.fn = ay_emit_op_reverse},
    [AY_OP_GATHER] = {.fn = ay_emit_op_gather},
    [AY_OP_GATHER_ALONG] = {.fn = ay_emit_op_gather},

    [AY_OP_LINEAR] = {.fn = ay_emit_op_linear, .keeps = always},
    [AY_OP_SIGMOID] = {.on_float = "sigmoid", .keeps = always},
    [AY_OP_SILU] = {.on_float = "silu", .keeps = always},
    [AY_OP_GELU] = {.fn = ay_emit_op_gelu, .keeps = always},
    [AY_OP_SOFTMAX] = {.fn = ay_emit_op_softmax, .keeps = always},
    [AY_OP_RMS_NORM] = {.fn = op_lowered},
    [AY_OP_LAYER_NORM] = {.fn = ay_emit_op_layer_norm, .keeps = always},
    [AY_OP_GROUP_NORM] = {.fn = op_lowered},
    [AY_OP_ROPE] = {.fn = op_lowered},
    [AY_OP_SDPA] = {.fn = ay_emit_op_sdpa, .keeps = keeps_sdpa},
    [AY_OP_UPSAMPLE] = {.fn = ay_emit_op_upsample, .keeps = keeps_upsample},
    [AY_OP_CONV_TRANSPOSE] = {.fn = ay_emit_op_conv_transpose, .keeps = always},
    [AY_OP_DEQUANT] = {.fn = op_lowered},
};

bool ay_emit_keeps(ay_target target, const ay_graph *g, const ay_node *n) {
    return rows[n->op].keeps && rows[n->op].keeps(target, g, n);
}

/* ---- failures and memory ----------------------------------------------------------------------------------------- */

void ay_emit_fail(ay_emitter *e, alloy_status code, const char *fmt, ...) {
    if (!ay_emit_ok(e)) return;
    va_list ap;
    va_start(ap, fmt);
    char text[600];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (e->g && e->at >= 0 && e->at < e->g->n_nodes) {
        const ay_node *n = ay_emit_node(e);
        e->status = ay_fail(e->cx, code, "function %s, %s%s%s: %s", e->function, n->scope ? n->scope : "",
                            n->scope && *n->scope ? ", " : "", n->name ? n->name : ay_op_get(n->op)->name, text);
    } else {
        e->status = ay_fail(e->cx, code, "function %s: %s", e->function, text);
    }
}

void *ay_emit_alloc(ay_emitter *e, size_t bytes) {
    void *p = ay_emit_ok(e) ? ay_alloc(e->arena, bytes) : NULL;
    if (!p && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
    return p;
}

/* ---- types ------------------------------------------------------------------------------------------------------- */

const ay_dtype ay_domain_float[] = {AY_F32, AY_F16, AY_NONE};
const ay_dtype ay_domain_number[] = {AY_F32, AY_F16, AY_I32, AY_NONE};
const ay_dtype ay_domain_move[] = {AY_F32, AY_F16, AY_I32, AY_I16, AY_U16, AY_I8, AY_U8, AY_BOOL, AY_NONE};

ay_type ay_emit_type(ay_emitter *e, const ay_type *t) {
    ay_type r = *t;
    char text[160];
    if (r.rank > 5)
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "%s has rank %d; Core ML takes at most rank 5, so split the op into steps of lower rank",
                     ay_type_text(t, text), r.rank);
    for (int i = 0; i < r.rank && r.rank <= AY_MAX_RANK; i++)
        if (r.dim[i] < 1 || r.dim[i] > INT32_MAX)
            ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "%s has a dimension that Core ML does not take (1 to 2147483647)",
                         ay_type_text(t, text));
    const ay_mil_dtype *row = ay_mil_by_dtype(r.dtype);
    if (!row || !row->name[0])
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "a value of type %s has no place in a Core ML program; cast it to float16, float32 or int32",
                     ay_dtype_name(r.dtype));
    return r;
}

AyMil__ValueType *ay_emit_value_type(ay_emitter *e, ay_dtype dtype, int rank, const int64_t *dim) {
    AyMil__ValueType *v = ay_emit_alloc(e, sizeof *v);
    AyMil__TensorType *t = ay_emit_alloc(e, sizeof *t);
    AyMil__Dimension **d = ay_emit_alloc(e, (size_t)(rank + 1) * sizeof *d);
    const ay_mil_dtype *row = ay_mil_by_dtype(dtype);
    if (!v || !t || !d) return NULL;
    ay_mil__value_type__init(v);
    ay_mil__tensor_type__init(t);
    v->type_case = AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE;
    v->tensor_type = t;
    t->data_type = row ? (AyMil__DataType)row->mil : AY_MIL__DATA_TYPE__STRING;
    t->rank = rank;
    t->n_dimensions = (size_t)rank;
    t->dimensions = d;
    for (int i = 0; i < rank; i++) {
        AyMil__ConstantDimension *c = ay_emit_alloc(e, sizeof *c);
        if (!(d[i] = ay_emit_alloc(e, sizeof **d)) || !c) return NULL;
        ay_mil__dimension__init(d[i]);
        ay_mil__constant_dimension__init(c);
        d[i]->dimension_case = AY_MIL__DIMENSION__DIMENSION_CONSTANT;
        d[i]->constant = c;
        c->size = (uint64_t)dim[i];
    }
    return v;
}

bool ay_emit_domain(ay_emitter *e, int i, const ay_dtype *allowed) {
    ay_type t = ay_emit_type(e, &ay_emit_in(e, i)->type);
    for (const ay_dtype *a = allowed; *a != AY_NONE; a++)
        if (*a == t.dtype) return ay_emit_ok(e);
    ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "Core ML has no %s of %s; cast the input first",
                 ay_op_get(ay_emit_node(e)->op)->name, ay_dtype_name(t.dtype));
    return false;
}

bool ay_emit_is_const(const ay_emitter *e, ay_val v) {
    const ay_node *n = &e->g->nodes[v];
    if (n->op == AY_OP_CAST && n->type.dtype == AY_F32) {
        const ay_node *p = &e->g->nodes[n->in[0]];
        return p->op == AY_OP_PARAM && p->type.dtype == AY_F16 && p->weight->store == AY_STORE_PLAIN;
    }
    return n->op == AY_OP_PARAM || n->op == AY_OP_CONST;
}

/* ---- elementwise ops --------------------------------------------------------------------------------------------- */

static const char *pick_mil(ay_emitter *e, const emit_row *row) {
    const ay_node *n = ay_emit_node(e);
    ay_dtype t = n->n_in ? ay_emit_type(e, &ay_emit_in(e, 0)->type).dtype : AY_F32;
    const char *mil = t == AY_F16 || t == AY_F32 ? row->on_float
                      : t == AY_I32              ? row->on_int
                      : t == AY_BOOL             ? row->on_bool
                                                 : NULL;
    if (!mil)
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED, "Core ML has no %s of %s; cast the input first", ay_op_get(n->op)->name,
                     ay_dtype_name(t));
    return mil;
}

static void op_elementwise(ay_emitter *e, const emit_row *row) {
    static const char *const params[] = {"x", "y"};
    const ay_node *n = ay_emit_node(e);
    const char *mil = pick_mil(e, row);
    if (!mil) return;
    if (strcmp(mil, "=") == 0) {
        ay_emit_alias(e, ay_emit_name(e, 0));
        return;
    }
    AyMil__Operation *op = ay_emit_begin(e, mil, NULL);
    for (int i = 0; i < n->n_in; i++) ay_emit_arg(e, op, params[i], ay_emit_name(e, i));
    if (row->epsilon > 0) ay_emit_num(e, op, "epsilon", n->type.dtype, row->epsilon);
    ay_emit_result(e, op, NULL, false);
}

/* A sum times 1/n is written as reduce_mean: whoever computes that in half precision is free to accumulate otherwise, while
 * a sum of its own must pass through a half, and is infinite long before the mean is. */
/* Whether c is 1/n as its dtype has it, n the number of elements that `sum` adds. */
static bool is_reciprocal(const ay_graph *g, const ay_node *sum, const ay_node *c) {
    int64_t count = 1;
    float found, wanted;
    if (c->op != AY_OP_CONST || ay_type_count(&c->type) != 1 || c->type.dtype != sum->type.dtype) return false;
    for (int i = 0; i < sum->attr.reduce.n; i++) count *= g->nodes[sum->in[0]].type.dim[sum->attr.reduce.axes[i]];
    wanted = (float)(1.0 / (double)count);
    if (c->type.dtype == AY_F16) wanted = ay_f16_to_f32(ay_f32_to_f16(wanted));
    ay_convert_to_f32(c->type.dtype, c->data, 0, 1, &found);
    return count > 1 && found == wanted && found > 0;
}

/* Marks the sums that nothing but such a product reads, those products, and factors that nothing else reads. */
static void find_means(ay_emitter *e, int *uses) {
    const ay_graph *g = e->g;
    for (int v = 0; v < g->n_nodes; v++) {
        const ay_node *n = &g->nodes[v];
        for (int i = 0; i < 2 && n->op == AY_OP_MUL && !e->joint[v]; i++) {
            ay_val s = n->in[i], c = n->in[1 - i];
            const ay_node *sum = &g->nodes[s];
            bool half_or_float = n->type.dtype == AY_F16 || n->type.dtype == AY_F32;
            if (sum->op != AY_OP_SUM || uses[s] != 1 || !half_or_float || !ay_type_equal(&sum->type, &n->type)) continue;
            if (!is_reciprocal(g, sum, &g->nodes[c])) continue;
            e->joint[s] = AY_JOINT_MEAN_SUM;
            e->joint[v] = AY_JOINT_MEAN_PRODUCT;
            if (--uses[c] == 0) e->joint[c] = AY_JOINT_ABSORBED;
        }
    }
}

static void find_joints(ay_emitter *e) {
    const ay_graph *g = e->g;
    int *uses = ay_emit_alloc(e, (size_t)g->n_nodes * sizeof *uses + 1);
    e->joint = ay_emit_alloc(e, (size_t)g->n_nodes + 1);
    if (!uses || !e->joint) return;
    for (int v = 0; v < g->n_nodes; v++)
        for (int i = 0; i < g->nodes[v].n_in; i++) uses[g->nodes[v].in[i]]++;
    for (int i = 0; i < g->n_outputs; i++) uses[g->outputs[i].value]++;
    find_means(e, uses);
    ay_emit_find_einsums(e, uses);
}

void ay_emit_op_reduce(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    const char *mil = e->joint[e->at] == AY_JOINT_MEAN_SUM ? "reduce_mean" : pick_mil(e, &rows[n->op]);
    if (!mil) return;
    int64_t axes[AY_MAX_RANK];
    for (int i = 0; i < n->attr.reduce.n; i++) axes[i] = n->attr.reduce.axes[i];
    AyMil__Operation *op = ay_emit_begin(e, mil, NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_ints(e, op, "axes", n->attr.reduce.n, axes);
    ay_emit_bool(e, op, "keep_dims", n->attr.reduce.keep);
    ay_emit_result(e, op, NULL, false);
}

/* ---- the walk over a function ------------------------------------------------------------------------------------ */

/* Reserves names of inputs and outputs before any other takes them, and finds which node carries which output's name. */
static void reserve_names(ay_emitter *e) {
    for (int i = 0; i < e->g->n_nodes; i++) {
        const ay_node *n = &e->g->nodes[i];
        bool fresh = false;
        if (n->op != AY_OP_INPUT) continue;
        if (!ay_name_valid(n->name))
            ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                         "input name \"%s\" is not one that Core ML takes (letters, digits, underscores; not "
                         "a type's name)",
                         n->name);
        if (!ay_names_at(&e->names, n->name, strlen(n->name), &fresh) && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
        if (!fresh) ay_emit_fail(e, ALLOY_E_MISMATCH, "two inputs are called \"%s\"", n->name);
    }
    for (int i = 0; i < e->g->n_outputs; i++) {
        const ay_output *o = &e->g->outputs[i];
        const ay_op op = e->g->nodes[o->value].op;
        bool fresh = false;
        if (!ay_name_valid(o->name))
            ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                         "output name \"%s\" is not one that Core ML takes (letters, digits, underscores; not "
                         "a type's name)",
                         o->name);
        if (!ay_names_at(&e->names, o->name, strlen(o->name), &fresh) && ay_emit_ok(e)) e->status = ay_nomem(e->cx);
        if (!fresh) ay_emit_fail(e, ALLOY_E_MISMATCH, "two inputs or outputs are called \"%s\"", o->name);
        if (op != AY_OP_INPUT && op != AY_OP_CONST && op != AY_OP_PARAM && !e->result[o->value])
            e->result[o->value] = o->name;
    }
}

/* An output that is an input, a constant, or another output too: an identity gives it a value of its own. */
static void finish_outputs(ay_emitter *e, char ***outputs) {
    *outputs = ay_emit_alloc(e, (size_t)(e->g->n_outputs + 1) * sizeof **outputs);
    for (int i = 0; i < e->g->n_outputs && ay_emit_ok(e); i++) {
        const ay_output *o = &e->g->outputs[i];
        e->at = o->value;
        if (strcmp(e->value[o->value], o->name) != 0) {
            AyMil__Operation *op = ay_emit_begin(e, "identity", o->name);
            ay_emit_arg(e, op, "x", e->value[o->value]);
            e->result[o->value] = o->name;
            ay_emit_result(e, op, NULL, false);
        }
        if (ay_emit_ok(e) && !((*outputs)[i] = ay_strdup(e->arena, o->name))) e->status = ay_nomem(e->cx);
    }
}

void ay_emit_function(ay_emitter *e, const char *name, const ay_graph *g, char ***outputs) {
    e->function = name;
    e->g = g;
    e->at = -1;
    e->ops = NULL;
    e->n_ops = e->cap_ops = 0;
    ay_names_init(&e->names, e->arena);
    e->value = ay_emit_alloc(e, (size_t)g->n_nodes * sizeof *e->value + 1);
    e->result = ay_emit_alloc(e, (size_t)g->n_nodes * sizeof *e->result + 1);
    if (ay_emit_ok(e)) reserve_names(e);
    if (ay_emit_ok(e)) find_joints(e);
    for (int i = 0; i < g->n_nodes && ay_emit_ok(e); i++) {
        const emit_row *row = &rows[g->nodes[i].op];
        e->at = i;
        (void)ay_emit_type(e, &g->nodes[i].type);
        if (!ay_emit_ok(e)) break;
        if (e->joint[i] == AY_JOINT_ABSORBED) continue;
        if (e->joint[i] == AY_JOINT_MEAN_PRODUCT)
            ay_emit_alias(e, ay_emit_name(e, g->nodes[g->nodes[i].in[0]].op == AY_OP_SUM ? 0 : 1));
        else if (e->joint[i] == AY_JOINT_EINSUM)
            ay_emit_op_einsum(e);
        else if (row->fn)
            row->fn(e);
        else
            op_elementwise(e, row);
        if ((i & 255) == 0 && ay_emit_ok(e)) e->status = ay_check_stop(e->cx);
    }
    if (ay_emit_ok(e)) finish_outputs(e, outputs);
    e->at = -1;
}
