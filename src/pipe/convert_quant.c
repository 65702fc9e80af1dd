/* SPDX-License-Identifier: MIT
 *
 * Quantisation of one component while it is converted, see convert_quant.h. Nothing of a tensor is held but the scales or
 * the table of the one being written.
 */
#include "pipe/convert_quant.h"

#include "pass/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which parameter is stored how ---------------------------------------------------------------------------------- */

/* What is left in float16 whatever the model: by shape. First match wins. */
static const struct {
    int rank;         /* at most */
    int64_t elements; /* fewer than */
    int64_t row;      /* a row of fewer than */
    const char *reason;
} by_shape[] = {
    {1, INT64_MAX, INT64_MAX, "norms and biases: small, and every output carries their error whole"},
    {AY_MAX_RANK, 2048, INT64_MAX, "so small that nothing is saved"},
    {AY_MAX_RANK, INT64_MAX, 16, "rows so short that their scales would weigh as much as what they save"},
};

enum { USED_PRODUCT = 1, USED_TABLE = 2, USED_OTHERWISE = 4 };

static unsigned use_of(const ay_node *n, int input) {
    if ((n->op == AY_OP_LINEAR || n->op == AY_OP_CONV) && input == 1) return USED_PRODUCT;
    if (n->op == AY_OP_GATHER && input == 0 && n->attr.gather.axis == 0 && n->attr.gather.batch_dims == 0) return USED_TABLE;
    return USED_OTHERWISE;
}

static const char *reason_by_shape(const ay_type *t) {
    int64_t count = ay_type_count(t);
    for (size_t i = 0; i < sizeof by_shape / sizeof by_shape[0]; i++) {
        if (t->rank <= by_shape[i].rank && count < by_shape[i].elements &&
            (t->rank < 2 || count / t->dim[0] < by_shape[i].row)) {
            return by_shape[i].reason;
        }
    }
    return NULL;
}

static bool has_8_bits(ay_quant_kind k) { return k == AY_QUANT_INT8 || k == AY_QUANT_PALETTE8; }

static void decide(ay_part_quant *q, ay_quant_kind kind, const ay_arch *arch, const ay_node *n, unsigned uses,
                   ay_quant_record *r) {
    *r = (ay_quant_record){.name = n->name, .type = n->type, .weight = *n->weight};
    ay_quant_kind asked = kind;
    if (kind == AY_QUANT_NONE) return;
    for (const ay_quant_rule *rule = arch->quant_keep; rule && rule->name && !r->reason; rule++) {
        if (!ay_glob(rule->name, n->name)) continue;
        r->reason = rule->reason;
        if (rule->least != AY_I8) return;
        if (!has_8_bits(kind)) kind = AY_QUANT_INT8;
    }
    const char *shape = reason_by_shape(&n->type);
    if (shape) r->reason = shape;
    else if (uses & USED_OTHERWISE) r->reason = "not only the weight of a product or a table of embeddings";
    if (shape || (uses & USED_OTHERWISE)) return;
    if (uses & USED_TABLE && ay_quant_is_palette(kind))
        kind = AY_QUANT_INT8, r->reason = "a table has no product to take factors out of";
    ay_part_quant_set(q, r, kind);
    if (r->kind != kind) r->reason = "no block of 32 divides its input channels";
    if (r->kind == asked) r->reason = NULL;
}

void ay_part_quant_set(ay_part_quant *q, ay_quant_record *r, ay_quant_kind kind) {
    r->factors = NULL;
    if (!ay_quant_storage(&kind, &r->type, &r->weight)) kind = AY_QUANT_NONE, r->weight = ay_weight_plain(&r->type, NULL);
    else if (ay_quant_is_palette(kind)) r->factors = ay_factors_name(q->arena, r->name);
    r->kind = kind;
}

int64_t ay_quant_record_bytes(const ay_quant_record *r) {
    const ay_weight *w = &r->weight;
    size_t factors = r->factors ? ay_dtype_bytes(w->value_dtype, w->dim[0]) : 0;
    return (int64_t)(ay_weight_data_bytes(w) + ay_weight_scale_bytes(w) + ay_weight_lut_bytes(w) + factors);
}

char *ay_factors_name(ay_arena *arena, const char *weight) { return ay_sprintf(arena, "%s.scale", weight); }

static const char *factors_of(void *user, ay_graph *g, const char *name) {
    const ay_part_quant *q = user;
    for (int i = 0; i < q->n; i++) {
        if (strcmp(q->records[i].name, name) == 0) return q->records[i].factors;
    }
    return NULL;
}

alloy_status ay_part_quant_plan(ay_ctx *cx, ay_arena *arena, ay_quant_kind kind, const ay_arch *arch, const ay_graph *g,
                                ay_part_quant *q) {
    *q = (ay_part_quant){.cx = cx, .arena = arena};
    unsigned *uses = ay_alloc(arena, (size_t)(g->n_nodes + 1) * sizeof *uses);
    q->records = ay_alloc(arena, (size_t)(g->n_nodes + 1) * sizeof *q->records);
    if (!uses || !q->records) return ay_nomem(cx);
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        for (int k = 0; k < n->n_in; k++) uses[n->in[k]] |= use_of(n, k);
    }
    for (int i = 0; i < g->n_outputs; i++) uses[g->outputs[i].value] |= USED_OTHERWISE;
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op == AY_OP_PARAM) decide(q, kind, arch, n, uses[i], &q->records[q->n++]);
    }
    return ay_arena_failed(arena) ? ay_nomem(cx) : ALLOY_OK;
}

alloy_status ay_part_quant_apply(ay_part_quant *q, ay_graph *g) {
    bool any = false;
    if (ay_arena_failed(q->arena)) return ay_nomem(q->cx);
    for (int i = 0, k = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op != AY_OP_PARAM) continue;
        *g->nodes[i].weight = q->records[k].weight;
        any |= q->records[k++].factors != NULL;
    }
    ay_factors f = {factors_of, q};
    return any ? ay_pass_factors(g, &f) : ALLOY_OK;
}

/* ---- bytes ----------------------------------------------------------------------------------------------------------- */

static const ay_quant_record *find(const ay_part_quant *q, const char *name, bool factors) {
    for (int i = 0; i < q->n; i++) {
        const ay_quant_record *r = &q->records[i];
        const char *is = factors ? r->factors : r->name;
        if (r->kind != AY_QUANT_NONE && is && strcmp(is, name) == 0) return r;
    }
    return NULL;
}

bool ay_part_quant_has(const ay_part_quant *q, const ay_node *param) {
    return find(q, param->name, false) || find(q, param->name, true);
}

typedef struct rows_of {
    ay_origin from;
    ay_sink *out;
    void (*passed)(void *user, uint64_t bytes);
    void *user;
} rows_of;

static void read_rows(void *user, int64_t begin, int64_t count, float *out) {
    const rows_of *r = user;
    ay_origin_read(&r->from, begin, count, out);
}

static void rows_passed(void *user, int64_t begin, int64_t end, bool last) {
    const rows_of *r = user;
    ay_origin_drop(&r->from, begin, end);
    if (last && r->passed) r->passed(r->user, ay_origin_bytes(&r->from, begin, end));
}

static alloy_status put_data(void *user, const void *bytes, size_t n) {
    const rows_of *r = user;
    return r->out ? r->out->put(r->out->user, bytes, n) : ALLOY_OK;
}

static alloy_status quantize(ay_part_quant *q, rows_of *r, const ay_quant_record *record) {
    ay_quant_rows rows = {read_rows, rows_passed, r};
    ay_quantized_free(&q->parts);
    q->at = NULL;
    alloy_status st = ay_origin_begin(q->cx, &r->from);
    if (st == ALLOY_OK) st = ay_quantize(q->cx, record->name, &record->weight, record->factors != NULL, &rows, put_data, r, &q->parts);
    ay_origin_end(&r->from);
    if (st != ALLOY_OK) {
        if (st != ALLOY_E_CANCELLED) ay_fail_prefix(q->cx, r->from.lora ? "%s with the adapters of --lora: " : "%s: ", r->from.file->path);
        return st;
    }
    q->at = record;
    q->records[record - q->records].error2 = q->parts.error2;
    q->records[record - q->records].norm2 = q->parts.norm2;
    return ALLOY_OK;
}

alloy_status ay_part_quant_stream(ay_part_quant *q, const ay_source *from, const ay_arch *arch, const ay_node *param,
                                  ay_part part, ay_sink *out, void (*passed)(void *user, uint64_t bytes), void *user) {
    const ay_quant_record *factors = find(q, param->name, true), *r = factors ? factors : find(q, param->name, false);
    bool data = !factors && part == AY_PART_DATA;
    rows_of rows = {.out = data ? out : NULL, .passed = data ? passed : NULL, .user = user};
    if (!ay_source_find(from, arch, r->name, &r->type, &rows.from)) return ay_fail(q->cx, ALLOY_E_MISMATCH, "no tensor \"%s\"", r->name);
    if (data || q->at != r) AY_TRY(quantize(q, &rows, r));
    if (data) return ALLOY_OK;
    const ay_weight *w = &r->weight;
    if (factors) return out->put(out->user, q->parts.factor, ay_dtype_bytes(w->value_dtype, w->dim[0]));
    if (part == AY_PART_SCALE) return out->put(out->user, q->parts.scale, ay_weight_scale_bytes(w));
    return out->put(out->user, q->parts.lut, ay_weight_lut_bytes(w));
}

void ay_part_quant_errors(ay_part_quant *q, const char *param, bool set, double *error2, double *norm2) {
    const ay_quant_record *r = find(q, param, false);
    if (!r) {
        if (!set) *error2 = *norm2 = 0;
        return;
    }
    ay_quant_record *mine = &q->records[r - q->records];
    if (set) mine->error2 = *error2, mine->norm2 = *norm2;
    else *error2 = mine->error2, *norm2 = mine->norm2;
}

void ay_part_quant_close(ay_part_quant *q) {
    ay_quantized_free(&q->parts);
    q->at = NULL;
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static char *store_text(ay_arena *a, const ay_weight *w) {
    if (w->store == AY_STORE_PLAIN) return ay_sprintf(a, "%s", ay_dtype_name(w->data_dtype));
    if (w->store == AY_STORE_LUT) return ay_sprintf(a, "%lld-entry palette", (long long)w->lut_dim[w->rank]);
    if (w->scale_dim[1] == 1) return ay_sprintf(a, "%s by row", ay_dtype_name(w->data_dtype));
    return ay_sprintf(a, "%s in blocks of %lld", ay_dtype_name(w->data_dtype), (long long)(w->dim[1] / w->scale_dim[1]));
}

/* "blocks.12.attn.to_q.weight" to "blocks.*.attn.to_q.weight" */
static char *group_text(ay_arena *a, const char *name) {
    char *out = ay_strdup(a, name), *to = out;
    for (const char *s = name; out && *s;) {
        size_t n = strspn(s, "0123456789"), before = s == name || s[-1] == '.';
        if (n && before && (s[n] == '.' || !s[n])) {
            *to++ = '*';
            s += n;
        } else *to++ = *s++;
    }
    if (out) *to = 0;
    return out;
}

typedef struct group {
    const char *tensors, *store, *reason;
    bool quantized;
    int64_t count, weights, bytes;
    double error2, norm2;
} group;

static void add(group *g, const ay_quant_record *r) {
    const ay_weight *w = &r->weight;
    int64_t n = 1;
    for (int i = 0; i < w->rank; i++) n *= w->dim[i];
    g->count++;
    g->weights += n;
    g->bytes += ay_quant_record_bytes(r);
    g->error2 += r->error2;
    g->norm2 += r->norm2;
}

static double bits_of(const group *g) { return g->weights ? 8.0 * (double)g->bytes / (double)g->weights : 0; }
static double error_of(const group *g) { return g->norm2 > 0 ? sqrt(g->error2 / g->norm2) : 0; }

static json_t *group_json(const group *g) {
    json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "tensors", g->tensors, "store", g->store, "count",
                          (json_int_t)g->count, "weights", (json_int_t)g->weights, "bytes", (json_int_t)g->bytes,
                          "bits_per_weight", bits_of(g));
    if (g->quantized) json_object_set_new(j, "relative_error", json_real(error_of(g)));
    if (g->reason) json_object_set_new(j, "reason", json_string(g->reason));
    return j;
}

/* Groups in the order of their first tensor. What is not quantised for its shape alone is one group for each reason. */
static int make_groups(ay_part_quant *q, group *groups) {
    int n = 0;
    for (int i = 0; i < q->n; i++) {
        const ay_quant_record *r = &q->records[i];
        bool shape = r->kind == AY_QUANT_NONE && r->reason && r->reason == reason_by_shape(&r->type);
        const char *tensors = shape ? "(by shape)" : group_text(q->arena, r->name),
                   *store = store_text(q->arena, &r->weight);
        if (!tensors || !store) return -1;
        int k = 0;
        while (k < n && (strcmp(groups[k].tensors, tensors) != 0 || strcmp(groups[k].store, store) != 0 ||
                         groups[k].reason != r->reason))
            k++;
        if (k == n)
            groups[n++] = (group){
                .tensors = tensors, .store = store, .reason = r->reason, .quantized = r->kind != AY_QUANT_NONE};
        add(&groups[k], r);
    }
    return n;
}

json_t *ay_part_quant_table(ay_part_quant *q, const char *package) {
    group *groups = ay_alloc(q->arena, (size_t)(q->n + 1) * sizeof *groups), all = {0}, quantized = {0};
    int n = groups ? make_groups(q, groups) : -1;
    json_t *list = json_array();
    ay_log(q->cx, AY_LOG_INFO, "%-56s %-20s %10s %7s %9s", package, "stored as", "weights", "bits", "error");
    for (int i = 0; i < n; i++) {
        const group *g = &groups[i];
        char error[16] = "";
        if (g->quantized) snprintf(error, sizeof error, "%.3f %%", 100 * error_of(g));
        ay_log(q->cx, AY_LOG_INFO, "  %-54s %-20s %9.2fM %7.2f %9s", g->tensors, g->store, (double)g->weights / 1e6,
               bits_of(g), error);
        json_array_append_new(list, group_json(g));
    }
    for (int i = 0; i < q->n; i++) {
        add(&all, &q->records[i]);
        if (q->records[i].kind != AY_QUANT_NONE) add(&quantized, &q->records[i]);
    }
    ay_log(q->cx, AY_LOG_INFO,
           "  %.2f bits per weight, %.2f over the quantised ones, whose relative error is %.3f %%; %.1f MB", bits_of(&all),
           bits_of(&quantized), 100 * error_of(&quantized), (double)all.bytes / 1e6);
    return json_pack("{s:f, s:f, s:f, s:o}", "bits_per_weight", bits_of(&all), "quantized_bits_per_weight",
                     bits_of(&quantized), "relative_error", error_of(&quantized), "groups", list);
}
