/* SPDX-License-Identifier: MIT
 *
 * Checking one operation's parameters against the table of MIL operations (mil_ops.def): known, there, constant where they
 * must be, of a dtype the operation takes; and the few rules about ranks and words that only show on a Mac.
 */
#include "coreml/validate.h"

#include <stdlib.h>
#include <string.h>

typedef struct op_row {
    const char *type;
    int opset;
    const char *params;
} op_row;
typedef struct domain {
    char letter;
    uint64_t bits;
} domain;

#define BIT(t) ((uint64_t)1 << AY_MIL__DATA_TYPE__##t)
#define DOMAIN(c, b)
#define MIL(type, opset, params) {type, opset, params},
static const op_row op_rows[] = {
#include "coreml/mil_ops.def"
};
#undef DOMAIN
#undef MIL
#define DOMAIN(c, b) {c, b},
#define MIL(type, opset, params)
static const domain domains[] = {
#include "coreml/mil_ops.def"
};
#undef DOMAIN
#undef MIL

/* Words a parameter may hold, where the closed compiler has a list. */
static const struct {
    const char *type, *param, *words;
} word_rows[] = {
    {"conv", "pad_type", " valid same custom same_lower "},
    {"conv_transpose", "pad_type", " valid same custom "},
    {"avg_pool", "pad_type", " valid same custom same_lower "},
    {"max_pool", "pad_type", " valid same custom same_lower "},
    {"pad", "mode", " constant reflect replicate "},
    {"gelu", "mode", " EXACT TANH_APPROXIMATION SIGMOID_APPROXIMATION "},
    {"cast", "dtype", " fp16 fp32 int32 bool int8 uint8 int16 uint16 "},
    {"constexpr_cast", "output_dtype", " fp32 "},
    {"quantize", "output_dtype", " int8 uint8 "},
    {"topk", "output_indices_dtype", " int32 uint16 "},
    {"reduce_argmax", "output_dtype", " int32 uint16 "},
    {"reduce_argmin", "output_dtype", " int32 uint16 "},
};

/* Ranks of x beyond which the closed compiler refuses. */
static const struct {
    const char *type, *param;
    size_t least, most;
} rank_rows[] = {
    {"linear", "x", 1, 3},
    {"conv", "x", 3, 5},
    {"conv_transpose", "x", 3, 5},
    {"instance_norm", "x", 3, 4},
    {"batch_norm", "x", 3, 5},
    {"l2_norm", "x", 3, 5},
    {"pixel_shuffle", "x", 4, 4},
    {"pixel_unshuffle", "x", 4, 4},
    {"space_to_depth", "x", 4, 4},
    {"depth_to_space", "x", 4, 4},
    {"avg_pool", "x", 3, 5},
    {"max_pool", "x", 3, 5},
    {"matmul", "x", 1, 5},
    {"upsample_nearest_neighbor", "x", 3, 5},
    {"upsample_bilinear", "x", 3, 5},
    {"scaled_dot_product_attention", "query", 3, 5},
};

/* ---- the table --------------------------------------------------------------------------------------------------- */

static int by_type(const void *key, const void *row) { return strcmp(key, ((const op_row *)row)->type); }

/* The newest row of that type not above `opset`; *oldest: the opset that brought it, 0 when nothing did. */
static const op_row *find_row(const char *type, int opset, int *oldest) {
    static const size_t n = sizeof op_rows / sizeof *op_rows;
    const op_row *r = bsearch(type, op_rows, n, sizeof *op_rows, by_type), *best = NULL;
    *oldest = 0;
    if (!r) return NULL;
    while (r > op_rows && strcmp(r[-1].type, type) == 0) r--;
    *oldest = r->opset;
    for (; r < op_rows + n && strcmp(r->type, type) == 0; r++)
        if (r->opset <= opset) best = r;
    return best;
}

typedef struct param {
    char name[64];
    char letter;
    int group;
    bool optional, constant, variadic;
} param;

/* Reads one "name:LETTER GROUP FLAGS" and moves on; false at the end. */
static bool next_param(const char **at, param *p) {
    const char *s = *at;
    while (*s == ' ') s++;
    if (!*s) return false;
    size_t n = strcspn(s, ":");
    *p = (param){.letter = '-'};
    memcpy(p->name, s, n < sizeof p->name ? n : sizeof p->name - 1);
    s += n + 1;
    p->variadic = *s == '*';
    if (!p->variadic) {
        p->letter = *s++;
        p->group = *s - '0';
    }
    for (s++; *s && *s != ' '; s++) {
        p->optional |= *s == '?';
        p->constant |= *s == 'c';
    }
    *at = s;
    return true;
}

static uint64_t domain_bits(char letter) {
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++)
        if (domains[i].letter == letter) return domains[i].bits;
    return UINT64_MAX;
}

/* ---- one binding ------------------------------------------------------------------------------------------------- */

/* What the binding gives, as far as it is a tensor; the literal where it is known. */
static const AyMil__ValueType *bound_type(ay_check *c, const char *name, const AyMil__Binding *b, const param *p,
                                          bool literals, const AyMil__Value **literal) {
    *literal = NULL;
    if (b->binding_case == AY_MIL__BINDING__BINDING_VALUE) {
        if (!literals)
            ay_check_warn(c, "parameter %s is bound to a literal; converters bind it by name to a const operation", name);
        ay_check_value(c, name, b->value);
        *literal = b->value;
        return b->value->type;
    }
    if (b->binding_case != AY_MIL__BINDING__BINDING_NAME) {
        ay_check_error(c, "parameter %s is bound to nothing", name);
        return NULL;
    }
    const ay_seen *s = ay_names_get(&c->values, b->name, strlen(b->name));
    if (!s) {
        ay_check_error(c, "parameter %s is bound to %.100s, which no operation before this one makes", name, b->name);
        return NULL;
    }
    *literal = s->literal;
    if (p->constant && !s->constant && !s->compressed)
        ay_check_error(c, "parameter %s must be constant and is bound to %.100s, which is computed", name, b->name);
    return s->type;
}

static void check_words(ay_check *c, const char *type, const char *name, const AyMil__Value *literal) {
    const char *s = ay_mil_string(literal);
    for (size_t i = 0; s && i < sizeof word_rows / sizeof *word_rows; i++) {
        if (strcmp(word_rows[i].type, type) != 0 || strcmp(word_rows[i].param, name) != 0) continue;
        const char *padded = ay_sprintf(c->arena, " %s ", s);
        if (padded && (strchr(s, ' ') || !strstr(word_rows[i].words, padded)))
            ay_check_error(c, "parameter %s is \"%.60s\", expected one of%s", name, s, word_rows[i].words);
    }
}

static void check_rank(ay_check *c, const char *type, const char *name, size_t rank) {
    for (size_t i = 0; i < sizeof rank_rows / sizeof *rank_rows; i++)
        if (strcmp(rank_rows[i].type, type) == 0 && strcmp(rank_rows[i].param, name) == 0 &&
            (rank < rank_rows[i].least || rank > rank_rows[i].most))
            ay_check_error(c, "parameter %s[0] has invalid rank %zu, expected [%zu, %zu]", name, rank, rank_rows[i].least,
                           rank_rows[i].most);
}

static void check_param(ay_check *c, const AyMil__Operation *op, const param *p, const AyMil__Binding *b, bool literals,
                        int groups[10]) {
    const AyMil__Value *literal;
    const AyMil__ValueType *t = bound_type(c, p->name, b, p, literals, &literal);
    if (!t || t->type_case != AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE || !t->tensor_type) return;
    int dtype = (int)t->tensor_type->data_type;
    if (p->letter != '-' && (dtype < 0 || dtype > 63 || !(domain_bits(p->letter) >> dtype & 1)))
        ay_check_error(c, "parameter %s is %s, a type this operation does not take at CoreML%d", p->name,
                       ay_check_type_text(c, t), c->opset);
    if (p->group > 0 && p->group < 10) {
        if (groups[p->group] && groups[p->group] != dtype)
            ay_check_error(c, "parameter %s is %s; its element type must equal that of its fellow parameters", p->name,
                           ay_check_type_text(c, t));
        groups[p->group] = dtype;
    }
    check_words(c, op->type, p->name, literal);
    check_rank(c, op->type, p->name, t->tensor_type->n_dimensions);
}

/* ---- one operation ----------------------------------------------------------------------------------------------- */

/* iOS 16's constexpr operations hold their parameters as attributes; affine_dequantize was never redefined. */
static bool params_in_attributes(const ay_check *c, const char *type) {
    return strncmp(type, "constexpr_", 10) == 0 && (c->opset < 8 || strcmp(type, "constexpr_affine_dequantize") == 0);
}

static void check_arguments(ay_check *c, const AyMil__Operation *op, const op_row *row) {
    bool constexpr_op = strncmp(op->type, "constexpr_", 10) == 0;
    int groups[10] = {0};
    const char *at = row->params;
    param p;
    while (next_param(&at, &p)) {
        const AyMil__Argument *arg = ay_mil_argument(op, p.name);
        if (!arg) {
            if (!p.optional) ay_check_error(c, "Required param '%s' is missing", p.name);
            continue;
        }
        if (!p.variadic && arg->n_arguments != 1)
            ay_check_error(c, "parameter %s has %zu values, it takes one", p.name, arg->n_arguments);
        if (p.variadic && arg->n_arguments == 0) ay_check_error(c, "parameter %s has no values", p.name);
        for (size_t i = 0; i < arg->n_arguments && (p.variadic || i < 1); i++)
            check_param(c, op, &p, arg->arguments[i], constexpr_op, groups);
    }
}

static void check_attribute_params(ay_check *c, const AyMil__Operation *op, const op_row *row) {
    const char *at = row->params;
    int groups[10] = {0};
    param p;
    if (op->n_inputs) ay_check_error(c, "its parameters belong into attributes, at CoreML%d", c->opset);
    while (next_param(&at, &p)) {
        AyMil__Value *v = (AyMil__Value *)(uintptr_t)ay_mil_attribute(op, p.name);
        AyMil__Binding b = AY_MIL__BINDING__INIT;
        b.binding_case = AY_MIL__BINDING__BINDING_VALUE;
        b.value = v;
        if (v)
            check_param(c, op, &p, &b, true, groups);
        else if (!p.optional)
            ay_check_error(c, "Required param '%s' is missing", p.name);
    }
}

static bool has_param(const op_row *row, const char *name) {
    const char *at = row->params;
    param p;
    while (next_param(&at, &p))
        if (strcmp(p.name, name) == 0) return true;
    return false;
}

static const AyMil__Value *literal_of(const ay_check *c, const AyMil__Operation *op, const char *name) {
    const AyMil__Argument *a = ay_mil_argument(op, name);
    if (!a || a->n_arguments != 1) return NULL;
    if (a->arguments[0]->binding_case == AY_MIL__BINDING__BINDING_VALUE) return a->arguments[0]->value;
    if (a->arguments[0]->binding_case != AY_MIL__BINDING__BINDING_NAME) return NULL;
    const ay_seen *s = ay_names_get(&c->values, a->arguments[0]->name, strlen(a->arguments[0]->name));
    return s ? s->literal : NULL;
}

static bool literal_true(const AyMil__Value *v) {
    return v && v->value_case == AY_MIL__VALUE__VALUE_IMMEDIATE_VALUE &&
           v->immediate_value->value_case == AY_MIL__IMMEDIATE_VALUE__VALUE_TENSOR &&
           v->immediate_value->tensor->value_case == AY_MIL__TENSOR_VALUE__VALUE_BOOLS &&
           v->immediate_value->tensor->bools->n_values == 1 && v->immediate_value->tensor->bools->values[0];
}

static bool bound_shape(const ay_check *c, const AyMil__Operation *op, const char *name, ay_type *t) {
    const AyMil__Argument *a = ay_mil_argument(op, name);
    if (!a || a->n_arguments != 1 || a->arguments[0]->binding_case != AY_MIL__BINDING__BINDING_NAME) return false;
    const ay_seen *s = ay_names_get(&c->values, a->arguments[0]->name, strlen(a->arguments[0]->name));
    return s && s->type && s->type->type_case == AY_MIL__VALUE_TYPE__TYPE_TENSOR_TYPE && s->type->tensor_type &&
           ay_mil_type_get(s->type->tensor_type, t);
}

/* Queries, keys and values have the same rank and the same batch dims: nothing broadcasts here. */
static void check_sdpa(ay_check *c, const AyMil__Operation *op) {
    ay_type q, k, v;
    if (!bound_shape(c, op, "query", &q) || !bound_shape(c, op, "key", &k) || !bound_shape(c, op, "value", &v)) return;
    bool same = q.rank == k.rank && q.rank == v.rank;
    for (int i = 0; same && i < q.rank - 2; i++) same = q.dim[i] == k.dim[i] && q.dim[i] == v.dim[i];
    if (!same) ay_check_error(c, "query, key and value must have the same batch dimensions");
    if (q.rank >= 3 && q.dim[0] >= 10)
        ay_check_warn(c, "batch %lld: fused attention was seen to be wrong on GPUs from batch 10 on", (long long)q.dim[0]);
}

static void check_special(ay_check *c, const AyMil__Operation *op) {
    const char *pad_type = ay_mil_string(literal_of(c, op, "pad_type"));
    if (strcmp(op->type, "split") == 0 && !ay_mil_argument(op, "num_splits") == !ay_mil_argument(op, "split_sizes"))
        ay_check_error(c, "needs one of num_splits and split_sizes");
    if (strstr(op->type, "_pool") && pad_type && strcmp(pad_type, "same") == 0 &&
        literal_true(literal_of(c, op, "ceil_mode")))
        ay_check_error(c, "ceil_mode must be False when pad_type is equal to same");
    if (strcmp(op->type, "scaled_dot_product_attention") == 0) check_sdpa(c, op);
}

void ay_check_operation(ay_check *c, const AyMil__Operation *op) {
    int oldest;
    const op_row *row = find_row(op->type, c->opset, &oldest);
    if (op->n_blocks || strcmp(op->type, "classify") == 0 || strcmp(op->type, "custom_layer") == 0 ||
        strstr(op->type, "list")) {
        ay_check_warn(c, "operations of this kind are not checked");
        return;
    }
    if (!row) {
        if (oldest)
            ay_check_error(c, "this operation came with CoreML%d, the function's opset is CoreML%d", oldest, c->opset);
        else
            ay_check_error(c, "there is no operation of this type");
        return;
    }
    for (size_t i = 0; i < op->n_inputs; i++) {
        if (!has_param(row, op->inputs[i]->key))
            ay_check_error(c, "parameter %.60s is none that this operation has at CoreML%d", op->inputs[i]->key, c->opset);
        for (size_t k = 0; k < i && k < 64; k++)
            if (strcmp(op->inputs[k]->key, op->inputs[i]->key) == 0)
                ay_check_error(c, "parameter %.60s is there twice", op->inputs[i]->key);
    }
    bool attributes = params_in_attributes(c, op->type);
    for (size_t i = 0; attributes && i < op->n_attributes; i++)
        if (strcmp(op->attributes[i]->key, "name") != 0 && !has_param(row, op->attributes[i]->key))
            ay_check_error(c, "attribute %.60s is none that this operation has", op->attributes[i]->key);
    if (attributes)
        check_attribute_params(c, op, row);
    else
        check_arguments(c, op, row);
    check_special(c, op);
}
