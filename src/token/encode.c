/* SPDX-License-Identifier: MIT
 *
 * Text to ids: added tokens out, normalize, cut, model, then truncate, put the special tokens around and pad, in the order
 * of tokenizers/src/tokenizer/mod.rs. Nothing in the tokenizer is written to, so that threads may share one.
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 24, MAX_LENGTH = 1 << 24 };

typedef struct working { ay_pieces a, b; ay_buf normal, spare; ay_scratch scratch; ay_ids ids; } working;

/* The text as pieces in w->a: tokens that were added, and normalized stretches between. */
static alloy_status cut_out_added(ay_ctx *cx, const ay_tokenizer *t, const char *text, size_t len, working *w) {
    ay_added_split(&t->added, &t->added.raw, text, len, true, &w->b);
    for (size_t i = 0; i < w->b.n && !w->b.failed; i++) {
        const ay_piece *p = &w->b.p[i];
        const char *s = w->b.text.data + p->at;
        if (p->id >= 0) {
            ay_pieces_add(&w->a, s, p->n, p->id, p->first);
            continue;
        }
        AY_TRY(ay_norms_run(cx, &t->norms, s, p->n, &w->normal, &w->spare));
        if (w->normal.len)
            ay_added_split(&t->added, &t->added.normal, w->normal.data, w->normal.len, p->first, &w->a);
    }
    return w->a.failed || w->b.failed ? ay_nomem(cx) : ALLOY_OK;
}

/* ids of the whole text; stops early once there are `enough`. */
static alloy_status to_ids(ay_ctx *cx, const ay_tokenizer *t, const char *text, size_t len, size_t enough, working *w) {
    AY_TRY(cut_out_added(cx, t, text, len, w));
    AY_TRY(ay_pretoks_run(cx, &t->pretoks, &w->a, &w->b));
    for (size_t i = 0; i < w->a.n && w->ids.n < enough; i++) {
        const ay_piece *p = &w->a.p[i];
        if (p->id >= 0) ay_ids_add(&w->ids, p->id);
        else AY_TRY(t->model->encode(cx, t->model, w->a.text.data + p->at, p->n, &w->scratch, &w->ids));
        if (i % 4096 == 0) AY_TRY(ay_check_stop(cx));
    }
    return w->ids.failed ? ay_nomem(cx) : ALLOY_OK;
}

static alloy_status lay_out(ay_ctx *cx, const ay_tokenizer *t, const ay_encode_options *o, size_t limit, const ay_ids *ids,
                            int32_t **out, int32_t **mask, int *count) {
    size_t before = o->special ? (size_t)t->n_before : 0, after = o->special ? (size_t)t->n_after : 0, n = ids->n, skip = 0;
    if (limit && n > limit - before - after) {
        n = limit - before - after;
        skip = t->truncate_left ? ids->n - n : 0;
    }
    size_t used = before + n + after, total = o->pad && used < limit ? limit : used;
    if (total > INT32_MAX) return ay_fail(cx, ALLOY_E_USAGE, "the text has %zu tokens; fewer than 2^31 are taken", total);
    int32_t *v = malloc((total + 1) * sizeof *v), *m = mask ? malloc((total + 1) * sizeof *m) : NULL;
    if (!v || (mask && !m)) {
        free(v);
        free(m);
        return ay_nomem(cx);
    }
    size_t at = t->pad_left ? total - used : 0;
    for (size_t i = 0; i < total; i++) {
        v[i] = t->pad_id;
        if (m) m[i] = i >= at && i < at + used;
    }
    if (before) memcpy(v + at, t->before, before * sizeof *v);
    if (n) memcpy(v + at + before, ids->v + skip, n * sizeof *v);
    if (after) memcpy(v + at + before + n, t->after, after * sizeof *v);
    *out = v;
    if (mask) *mask = m;
    *count = (int)total;
    return ALLOY_OK;
}

alloy_status ay_tokenizer_encode(ay_ctx *cx, const ay_tokenizer *t, const char *text, size_t len, const ay_encode_options *o,
                                 int32_t **out, int32_t **mask, int *count) {
    *out = NULL;
    if (mask) *mask = NULL;
    *count = 0;
    if (len > MAX_TEXT)
        return ay_fail(cx, ALLOY_E_USAGE, "the text has %zu bytes; a tokenizer takes at most %d", len, MAX_TEXT);
    ptrdiff_t bad = ay_utf8_check(text, len);
    if (bad >= 0)
        return ay_fail(cx, ALLOY_E_USAGE, "the text is not UTF-8: byte 0x%02x at position %td",
                       (unsigned)(uint8_t)text[bad], bad);
    int limit = o->max_length ? o->max_length : t->max_length, around = o->special ? t->n_before + t->n_after : 0;
    if (limit < 0 || (limit && limit < around))
        return ay_fail(cx, ALLOY_E_USAGE, "max_length is %d; the %d special tokens alone need more", limit, around);
    if (o->pad && (t->pad_id < 0 || limit == 0 || limit > MAX_LENGTH))
        return ay_fail(cx, ALLOY_E_USAGE, t->pad_id < 0 ? "this tokenizer has no padding token (wanted length %d)"
                                                        : "padding needs a max_length of at most 2^24 (found %d)", limit);
    working w = {0};
    size_t enough = limit && !t->truncate_left ? (size_t)(limit - around) : SIZE_MAX;
    alloy_status st = to_ids(cx, t, text, len, enough, &w);
    if (st == ALLOY_OK) st = lay_out(cx, t, o, (size_t)limit, &w.ids, out, mask, count);
    ay_pieces_free(&w.a);
    ay_pieces_free(&w.b);
    ay_buf_free(&w.normal);
    ay_buf_free(&w.spare);
    free(w.scratch.p);
    free(w.ids.v);
    return st;
}

int ay_tokenizer_vocab(const ay_tokenizer *t) {
    return 1 + (t->added.top > t->model->top ? t->added.top : t->model->top);
}
int ay_tokenizer_pad_id(const ay_tokenizer *t) { return t->pad_id; }
int ay_tokenizer_max_length(const ay_tokenizer *t) { return t->max_length; }
