/* SPDX-License-Identifier: MIT
 *
 * Checkpoint weights: their bytes stream into the weight file part by part (a checkpoint may be larger than memory), and the
 * program gets a `const`, or a constexpr_* operation for quantised storage. A target before macOS 15 has per-tensor and
 * per-channel integers and one-table palettes, written as attributes; macOS 15 has blocks and grouped palettes, as inputs.
 */
#include "coreml/emit.h"

#include <string.h>

/* ---- checkpoint weights ------------------------------------------------------------------------------------------ */

typedef struct part_sink {
    ay_emitter *e;
    uint8_t *keep; /* also kept here when the part is to stand in the program */
    size_t kept, room;
} part_sink;

static alloy_status part_put(void *user, const void *bytes, size_t n) {
    part_sink *s = user;
    AY_TRY(ay_weight_writer_put(s->e->blobs, bytes, n));
    if (s->keep && n <= s->room - s->kept) memcpy(s->keep + s->kept, bytes, n);
    s->kept += n;
    return ay_check_stop(s->e->cx);
}

/* Shape of one part as the weight file sees it. */
static ay_type part_type(const ay_weight *w, ay_part part) {
    ay_type t = {.rank = w->rank};
    for (int i = 0; i < w->rank; i++) t.dim[i] = part == AY_PART_DATA ? w->dim[i] : w->scale_dim[i];
    t.dtype = part == AY_PART_DATA ? w->data_dtype : part == AY_PART_SCALE ? w->scale_dtype : w->offset_dtype;
    if (part == AY_PART_DATA && w->store == AY_STORE_LUT && w->lut_dim[w->rank + 1] > 1)
        t.dim[w->vector_axis] /= w->lut_dim[w->rank + 1];
    return t;
}

static int64_t part_count(const ay_weight *w, ay_part part) {
    if (part != AY_PART_LUT) {
        ay_type t = part_type(w, part);
        return ay_type_count(&t);
    }
    int64_t n = 1;
    for (int i = 0; i < w->rank + 2; i++)
        if (w->lut_dim[i] < 1 || __builtin_mul_overflow(n, w->lut_dim[i], &n)) return -1;
    return n;
}

static bool has_part(const ay_weight *w, ay_part part) {
    return part == AY_PART_DATA || (w->store == AY_STORE_BLOCK && part == AY_PART_SCALE) ||
           (w->store == AY_STORE_BLOCK && part == AY_PART_OFFSET && w->offset_dtype != AY_NONE) ||
           (w->store == AY_STORE_LUT && part == AY_PART_LUT);
}

static const void *part_pointer(const ay_weight *w, ay_part part) {
    return part == AY_PART_DATA ? w->data : part == AY_PART_SCALE ? w->scale : part == AY_PART_OFFSET ? w->offset : w->lut;
}

/* Palettes of macOS 14 hold their indices as plain bytes. */
static bool packed_indices(const ay_emitter *e, const ay_weight *w, ay_part part) {
    return part == AY_PART_DATA && w->store == AY_STORE_LUT && !ay_emit_macos15(e);
}

/* Whether it was in the file before. */
static bool store_part(ay_emitter *e, const ay_node *n, ay_part part, ay_stored *s) {
    const ay_weight *w = n->weight;
    ay_dtype dtype = part == AY_PART_LUT ? w->lut_dtype : part_type(w, part).dtype;
    int64_t count = part_count(w, part);
    size_t bytes = count < 0 ? SIZE_MAX : ay_dtype_bytes(dtype, count);
    if (bytes == SIZE_MAX) {
        ay_emit_fail(e, ALLOY_E_MISMATCH, "weight %s has an impossible size", n->name);
        return false;
    }
    bool packed = packed_indices(e, w, part);
    part_sink sink = {.e = e, .room = bytes};
    if (!ay_emit_in_file(e, packed ? AY_U8 : dtype, packed ? (int64_t)bytes : count))
        s->immediate[part] = sink.keep = ay_emit_alloc(e, bytes + 1);
    /* What stands in the program lies in the file too: alloy.json's table binds every weight by its place there. */
    if (ay_emit_ok(e))
        e->status =
            ay_weight_writer_begin(e->blobs, packed ? AY_U8 : dtype, packed ? (int64_t)bytes : count, &s->offset[part]);
    bool kept = ay_emit_ok(e) && ay_weight_writer_kept(e->blobs);
    if (kept) {
        e->status = ay_weight_writer_skip(e->blobs, sink.keep);
    } else if (ay_emit_ok(e)) {
        ay_sink out = {.put = part_put, .user = &sink};
        const void *at = part_pointer(w, part);
        if (at)
            e->status = part_put(&sink, at, bytes);
        else if (e->opts->source.stream)
            e->status = e->opts->source.stream(e->opts->source.user, n, part, &out);
        else
            ay_emit_fail(e, ALLOY_E_USAGE, "weight %s has no bytes and there is no source for them", n->name);
    }
    if (ay_emit_ok(e)) e->status = ay_weight_writer_end(e->blobs, n->name);
    return kept;
}

static void add_entry(ay_emitter *e, const ay_node *n, const ay_stored *s) {
    if (!e->entry_arena) return;
    if (e->n_entries == e->cap_entries) {
        int cap = e->cap_entries ? e->cap_entries * 2 : 256;
        ay_weight_entry *list = ay_alloc(e->entry_arena, (size_t)cap * sizeof *list);
        if (list && e->n_entries) memcpy(list, e->entries, (size_t)e->n_entries * sizeof *list);
        if (list) e->entries = list;
        e->cap_entries = list ? cap : e->n_entries;
    }
    const char *name = ay_strdup(e->entry_arena, n->name);
    if (!name || e->n_entries == e->cap_entries) {
        if (ay_emit_ok(e)) e->status = ay_nomem(e->cx);
        return;
    }
    ay_weight_entry *entry = &e->entries[e->n_entries++];
    *entry = (ay_weight_entry){.name = name, .weight = s->weight};
    memcpy(entry->offset, s->offset, sizeof entry->offset);
}

/* Where the node's weight lies: written now, or before for another function. */
static const ay_stored *store_weight(ay_emitter *e, const ay_node *n) {
    ay_weight bare = *n->weight;
    ay_buf key = {0};
    bool fresh = false;
    bare.data = bare.scale = bare.offset = bare.lut = NULL;
    ay_buf_printf(&key, "%s", n->name);
    ay_buf_add(&key, "", 1);
    ay_buf_printf(&key, "%d %d %d %d %d %d %d", bare.store, bare.value_dtype, bare.data_dtype, bare.scale_dtype,
                  bare.offset_dtype, bare.lut_dtype, bare.vector_axis);
    for (int i = 0; i < bare.rank; i++)
        ay_buf_printf(&key, " %lld/%lld/%lld", (long long)bare.dim[i], (long long)bare.scale_dim[i],
                      (long long)bare.lut_dim[i]);
    void **at = key.failed ? NULL : ay_names_at(&e->stored, key.data, key.len, &fresh);
    ay_buf_free(&key);
    if (!at) {
        if (ay_emit_ok(e)) e->status = ay_nomem(e->cx);
        return NULL;
    }
    if (!fresh) return *at;
    ay_stored *s = ay_emit_alloc(e, sizeof *s);
    *at = s;
    if (!s) return NULL;
    s->weight = bare;
    bool kept = false;
    for (int part = AY_PART_DATA; part <= AY_PART_LUT && ay_emit_ok(e); part++)
        if (has_part(&bare, (ay_part)part)) kept = store_part(e, n, (ay_part)part, s);
    if (ay_emit_ok(e) && e->opts->source.whole) {
        ay_weight_mark mark = {0};
        if (!kept) e->status = ay_weight_writer_mark(e->blobs, &mark);
        if (ay_emit_ok(e)) e->status = e->opts->source.whole(e->opts->source.user, n, &mark, kept);
    }
    if (ay_emit_ok(e)) add_entry(e, n, s);
    return s;
}

/* ---- parts as values of the program ------------------------------------------------------------------------------ */

static AyMil__Value *shaped(ay_emitter *e, const ay_stored *s, ay_part part, ay_dtype dtype, int rank, const int64_t *dim) {
    if (!ay_emit_ok(e)) return NULL;
    return s->immediate[part] ? ay_emit_immediate(e, dtype, rank, dim, s->immediate[part])
                              : ay_emit_blob(e, dtype, rank, dim, s->offset[part]);
}

static AyMil__Value *part_value(ay_emitter *e, const ay_stored *s, ay_part part) {
    ay_type t = part_type(&s->weight, part);
    return shaped(e, s, part, t.dtype, t.rank, t.dim);
}

/* int8 or uint8 with one scale, or one for each index of one axis: what macOS 14 can say. */
static void affine_dequantize(ay_emitter *e, const ay_stored *s) {
    const ay_weight *w = &s->weight;
    int64_t n = 1;
    int axis = 0;
    bool fits = w->data_dtype == AY_I8 || w->data_dtype == AY_U8;
    for (int i = 0; i < w->rank; i++) {
        if (w->scale_dim[i] == 1) continue;
        fits &= n == 1 && w->scale_dim[i] == w->dim[i];
        axis = i;
        n = w->scale_dim[i];
    }
    if (w->offset_dtype != AY_NONE) fits &= w->offset_dtype == w->data_dtype || w->offset_dtype == AY_F32;
    if (!fits) {
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "%s weights in blocks need macOS 15; macOS 14 has int8 and uint8 with one scale, or one for "
                     "each output channel",
                     ay_dtype_name(w->data_dtype));
        return;
    }
    const uint8_t zero[4] = {0};
    int rank = n > 1;
    AyMil__Operation *op = ay_emit_begin(e, "constexpr_affine_dequantize", NULL);
    ay_emit_attribute(e, op, "quantized_data", part_value(e, s, AY_PART_DATA));
    ay_emit_attribute(e, op, "scale", shaped(e, s, AY_PART_SCALE, w->scale_dtype, rank, &n));
    ay_emit_attribute(e, op, "zero_point",
                      w->offset_dtype == AY_NONE ? ay_emit_immediate(e, w->data_dtype, 0, NULL, zero)
                                                 : shaped(e, s, AY_PART_OFFSET, w->offset_dtype, rank, &n));
    ay_emit_attribute(e, op, "axis", ay_emit_immediate(e, AY_I32, 0, NULL, &(int32_t){axis}));
    ay_emit_result(e, op, NULL, false);
}

static void blockwise(ay_emitter *e, const ay_stored *s) {
    AyMil__Operation *op = ay_emit_begin(e, "constexpr_blockwise_shift_scale", NULL);
    ay_emit_literal(e, op, "data", part_value(e, s, AY_PART_DATA));
    ay_emit_literal(e, op, "scale", part_value(e, s, AY_PART_SCALE));
    if (s->weight.offset_dtype != AY_NONE) ay_emit_literal(e, op, "offset", part_value(e, s, AY_PART_OFFSET));
    ay_emit_result(e, op, NULL, false);
}

static void packed_palette(ay_emitter *e, const ay_stored *s) {
    const ay_weight *w = &s->weight;
    uint32_t shape[AY_MAX_RANK];
    bool one = w->lut_dim[w->rank + 1] == 1 && w->data_dtype != AY_U3;
    for (int i = 0; i < w->rank; i++) {
        one &= w->lut_dim[i] == 1;
        shape[i] = (uint32_t)w->dim[i];
    }
    if (!one) {
        ay_emit_fail(e, ALLOY_E_UNSUPPORTED,
                     "palettes in groups, of vectors or of 3 bits need macOS 15; macOS 14 has one table of 2, 4, "
                     "16, 64 or 256 entries for each weight");
        return;
    }
    int64_t rank = w->rank, bytes = (int64_t)ay_dtype_bytes(w->data_dtype, part_count(w, AY_PART_DATA));
    AyMil__Operation *op = ay_emit_begin(e, "constexpr_lut_to_dense", NULL);
    ay_emit_attribute(e, op, "indices", shaped(e, s, AY_PART_DATA, AY_U8, 1, &bytes));
    ay_emit_attribute(e, op, "lut", shaped(e, s, AY_PART_LUT, w->lut_dtype, 1, &w->lut_dim[w->rank]));
    ay_emit_attribute(e, op, "shape", ay_emit_immediate(e, AY_U32, 1, &rank, shape));
    ay_emit_result(e, op, NULL, false);
}

static void palette(ay_emitter *e, const ay_stored *s) {
    const ay_weight *w = &s->weight;
    AyMil__Operation *op = ay_emit_begin(e, "constexpr_lut_to_dense", NULL);
    ay_emit_literal(e, op, "indices", part_value(e, s, AY_PART_DATA));
    ay_emit_literal(e, op, "lut", shaped(e, s, AY_PART_LUT, w->lut_dtype, w->rank + 2, w->lut_dim));
    if (w->lut_dim[w->rank + 1] > 1)
        ay_emit_literal(e, op, "vector_axis", ay_emit_immediate(e, AY_I32, 0, NULL, &(int32_t){w->vector_axis}));
    ay_emit_result(e, op, NULL, false);
}

/* What the weight says of itself must hold together before its bytes are asked for. */
static bool weight_sound(ay_emitter *e, const ay_node *n) {
    const ay_weight *w = n->weight;
    bool ok = w->rank == n->type.rank && w->value_dtype == n->type.dtype;
    for (int i = 0; ok && i < w->rank; i++) ok = w->dim[i] == n->type.dim[i];
    if (ok && w->store == AY_STORE_PLAIN) ok = w->data_dtype == w->value_dtype;
    if (ok && w->store == AY_STORE_BLOCK) {
        ok = w->scale_dtype == w->value_dtype && !(w->data_dtype == AY_F16 || w->data_dtype == AY_F32);
        for (int i = 0; ok && i < w->rank; i++) ok = w->scale_dim[i] > 0 && w->dim[i] % w->scale_dim[i] == 0;
    }
    if (ok && w->store == AY_STORE_LUT) {
        int64_t vec = w->lut_dim[w->rank + 1];
        int bits = ay_dtype_bits(w->data_dtype);
        ok = w->lut_dtype == w->value_dtype && bits <= 8 && w->lut_dim[w->rank] == (int64_t)1 << bits && vec > 0 &&
             (vec == 1 || (w->vector_axis >= 0 && w->vector_axis < w->rank && w->dim[w->vector_axis] % vec == 0));
        for (int i = 0; ok && i < w->rank; i++) ok = w->lut_dim[i] > 0 && w->dim[i] % w->lut_dim[i] == 0;
    }
    if (!ok)
        ay_emit_fail(e, ALLOY_E_MISMATCH,
                     "weight %s is stored as %s and used as %s with a shape that does not fit its storage", n->name,
                     ay_dtype_name(w->data_dtype), ay_dtype_name(n->type.dtype));
    return ok;
}

/* Whether nothing but casts to float32 reads this half weight: then each cast stands for it as a constexpr_cast. */
static bool only_cast(const ay_emitter *e) {
    bool any = false;
    if (ay_emit_node(e)->type.dtype != AY_F16 || ay_emit_node(e)->weight->store != AY_STORE_PLAIN) return false;
    for (int i = 0; i < e->g->n_outputs; i++)
        if (e->g->outputs[i].value == e->at) return false;
    for (int i = e->at + 1; i < e->g->n_nodes; i++) {
        const ay_node *n = &e->g->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] != e->at) continue;
            if (n->op != AY_OP_CAST || n->type.dtype != AY_F32) return false;
            any = true;
        }
    }
    return any;
}

void ay_emit_op_param(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e);
    if (!weight_sound(e, n)) return;
    const ay_stored *s = store_weight(e, n);
    if (!s || !ay_emit_ok(e)) return;
    if (s->weight.store == AY_STORE_BLOCK)
        (ay_emit_macos15(e) ? blockwise : affine_dequantize)(e, s);
    else if (s->weight.store == AY_STORE_LUT)
        (ay_emit_macos15(e) ? palette : packed_palette)(e, s);
    else if (!only_cast(e))
        e->value[e->at] = ay_emit_const_value(e, NULL, &n->type, part_value(e, s, AY_PART_DATA));
}

void ay_emit_op_cast(ay_emitter *e) {
    const ay_node *n = ay_emit_node(e), *x = ay_emit_in(e, 0);
    ay_type from = ay_emit_type(e, &x->type), to = ay_emit_type(e, &n->type);
    if (from.dtype == to.dtype) {
        ay_emit_alias(e, ay_emit_name(e, 0));
        return;
    }
    if (x->op == AY_OP_PARAM && ay_emit_is_const(e, e->at)) { /* stays a constant, as weights of layers must */
        const ay_stored *s = store_weight(e, x);
        AyMil__Operation *op = s ? ay_emit_begin(e, "constexpr_cast", NULL) : NULL;
        void (*put)(ay_emitter *, AyMil__Operation *, const char *, AyMil__Value *) =
            ay_emit_macos15(e) ? ay_emit_literal : ay_emit_attribute;
        if (!op) return;
        put(e, op, "source_val", part_value(e, s, AY_PART_DATA));
        put(e, op, "output_dtype", ay_emit_string_value(e, "fp32"));
        ay_emit_result(e, op, NULL, false);
        return;
    }
    if (!ay_emit_domain(e, 0, ay_domain_move)) return;
    AyMil__Operation *op = ay_emit_begin(e, "cast", NULL);
    ay_emit_arg(e, op, "x", ay_emit_name(e, 0));
    ay_emit_str(e, op, "dtype", ay_mil_by_dtype(to.dtype)->name);
    ay_emit_result(e, op, NULL, false);
}
