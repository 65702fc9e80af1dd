/* SPDX-License-Identifier: MIT
 *
 * Mixed precision under a size: every weight starts with the fewest bits its rules allow and is given more where that takes
 * off the most error for its bytes, until the limit is reached. Errors are measured on sample rows of each weight: squared
 * error relative to the weight's own size, times its number of elements. Steps are taken along the convex hull of (bytes,
 * error), so that what comes out is the best mix but for what is left over at the end.
 */
#include "pipe/convert_quant.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLE_ROWS = 48, STEPS = 4 };

/* What may follow each kind. */
static const ay_quant_kind ladder[][STEPS] = {
    [AY_QUANT_INT8] = {AY_QUANT_INT8, AY_QUANT_NONE},
    [AY_QUANT_INT4] = {AY_QUANT_INT4, AY_QUANT_INT8, AY_QUANT_NONE},
    [AY_QUANT_PALETTE4] = {AY_QUANT_PALETTE4, AY_QUANT_PALETTE6, AY_QUANT_INT8, AY_QUANT_NONE},
    [AY_QUANT_PALETTE6] = {AY_QUANT_PALETTE6, AY_QUANT_PALETTE8, AY_QUANT_NONE},
    [AY_QUANT_PALETTE8] = {AY_QUANT_PALETTE8, AY_QUANT_NONE},
};

typedef struct item {
    ay_quant_record *record;
    int n, at; /* steps, the one taken */
    ay_quant_kind kind[STEPS];
    int64_t bytes[STEPS];
    double error[STEPS];
} item;

typedef struct sample {
    ay_origin from;
    int64_t rows, row_len, every; /* of the sample: row i is row i * every of the tensor */
} sample;

static void read_sample(void *user, int64_t begin, int64_t count, float *out) {
    const sample *s = user;
    while (count > 0) {
        int64_t row = begin / s->row_len, at = begin % s->row_len, n = ay_min_i64(count, s->row_len - at);
        ay_origin_read(&s->from, row * s->every * s->row_len + at, n, out);
        begin += n;
        out += n;
        count -= n;
    }
}

static alloy_status drop(void *user, const void *bytes, size_t n) { return ALLOY_OK; }

/* Squared relative error of the kind on sample rows. */
static alloy_status measure(ay_ctx *cx, const ay_quant_record *r, ay_quant_kind kind, const sample *s, double *error) {
    ay_type type = r->type;
    ay_weight w;
    ay_quantized q;
    ay_quant_rows rows = {read_sample, NULL, (void *)(uintptr_t)s};
    type.dim[0] = s->rows;
    *error = 0;
    if (!ay_quant_storage(&kind, &type, &w)) return ALLOY_OK;
    AY_TRY(ay_quantize(cx, r->name, &w, ay_quant_is_palette(kind), &rows, drop, NULL, &q));
    *error = q.norm2 > 0 ? q.error2 / q.norm2 : 0;
    ay_quantized_free(&q);
    return ALLOY_OK;
}

static alloy_status measure_steps(ay_part_quant *q, ay_quant_record *r, const sample *s, item *it) {
    int64_t count = ay_type_count(&r->type);
    for (int k = 0; k < STEPS; k++) {
        ay_quant_record step = *r;
        ay_part_quant_set(q, &step, ladder[r->kind][k]);
        it->kind[it->n] = ladder[r->kind][k];
        it->bytes[it->n] = ay_quant_record_bytes(&step);
        AY_TRY(measure(q->cx, r, it->kind[it->n], s, &it->error[it->n]));
        it->error[it->n] *= (double)count;
        it->n++;
        if (ladder[r->kind][k] == AY_QUANT_NONE) break;
    }
    return ALLOY_OK;
}

static alloy_status make_item(ay_part_quant *q, ay_quant_record *r, const ay_source *from, const ay_arch *arch, item *it) {
    sample s = {.rows = 0};
    if (!ay_source_find(from, arch, r->name, &r->type, &s.from)) return ay_fail(q->cx, ALLOY_E_MISMATCH, "no tensor \"%s\"", r->name);
    int64_t count = ay_type_count(&r->type), rows = r->type.dim[0];
    s.rows = ay_min_i64(rows, SAMPLE_ROWS);
    s.every = rows / s.rows;
    s.row_len = count / rows;
    *it = (item){.record = r};
    alloy_status st = ay_origin_begin(q->cx, &s.from);
    if (st == ALLOY_OK) st = measure_steps(q, r, &s, it);
    ay_origin_end(&s.from);
    ay_origin_drop(&s.from, 0, count);
    return st == ALLOY_OK ? ay_check_stop(q->cx) : st;
}

/* The best step from where the item is, in error taken off for each byte; 0: none that fits. */
static double best_step(const item *it, int64_t room, int *to) {
    double best = 0;
    for (int k = it->at + 1; k < it->n; k++) {
        int64_t cost = it->bytes[k] - it->bytes[it->at];
        double gain = (it->error[it->at] - it->error[k]) / (double)ay_max_i64(cost, 1);
        if (cost <= room && gain > best) best = gain, *to = k;
    }
    return best;
}

static void spend(item *items, int n, int64_t room) {
    for (;;) {
        int who = -1, where = 0;
        double best = 0;
        for (int i = 0; i < n; i++) {
            int to = 0;
            double gain = best_step(&items[i], room, &to);
            if (gain > best) best = gain, who = i, where = to;
        }
        if (who < 0) return;
        room -= items[who].bytes[where] - items[who].bytes[items[who].at];
        items[who].at = where;
    }
}

alloy_status ay_quant_fit(ay_part_quant *const *q, const ay_source *const *from, const ay_arch *const *arch, int n_parts,
                          uint64_t limit) {
    ay_ctx *cx = q[0]->cx;
    int n = 0, most = 0;
    int64_t least = 0;
    for (int p = 0; p < n_parts; p++) most += q[p]->n;
    item *items = calloc((size_t)most + 1, sizeof *items);
    alloy_status st = items ? ALLOY_OK : ay_nomem(cx);
    for (int p = 0; p < n_parts && st == ALLOY_OK; p++) {
        for (int i = 0; i < q[p]->n && st == ALLOY_OK; i++) {
            ay_quant_record *r = &q[p]->records[i];
            least += ay_quant_record_bytes(r);
            if (r->kind != AY_QUANT_NONE) st = make_item(q[p], r, from[p], arch[p], &items[n++]);
        }
    }
    if (st == ALLOY_OK && (uint64_t)least > limit) {
        st = ay_fail(
            cx, ALLOY_E_USAGE,
            "--size-limit leaves %.6g MB for the weights, and with the fewest bits they are %.6g MB; raise it, or convert "
            "fewer --components",
            (double)limit / 1e6, (double)least / 1e6);
    }
    if (st == ALLOY_OK) spend(items, n, (int64_t)(limit - (uint64_t)least));
    for (int p = 0, i = 0; p < n_parts && st == ALLOY_OK; p++) {
        for (int k = 0; k < q[p]->n; k++) {
            if (i == n || items[i].record != &q[p]->records[k]) continue;
            if (items[i].at) {
                ay_part_quant_set(q[p], items[i].record, items[i].kind[items[i].at]);
                items[i].record->reason = "the size limit left room for it";
            }
            i++;
        }
    }
    free(items);
    return st;
}
