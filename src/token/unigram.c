/* SPDX-License-Identifier: MIT
 *
 * The unigram model: of all ways to cut a piece into strings of the vocabulary, the one whose scores sum highest (Viterbi
 * over byte positions; strings are found by a trie, so that a position costs at most the longest string). A character that
 * no string covers is unknown and costs ten less than the lowest score; neighbouring unknowns become one. The first of
 * equal sums wins, as in tokenizers/src/models/unigram/model.rs (encode_optimized), whose double arithmetic this repeats.
 */
#include "token/tok.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIECES = 1 << 24 };

struct ay_unigram {
    ay_model base;
    ay_trie trie;
    double *score; /* [cap] by id */
    int cap;
    double unk_score, min_score;
    int32_t unk; /* -1: none */
    bool byte_fallback;
    int32_t byte_id[256]; /* "<0x00>" ..; -1: not there */
};

/* The best way to the end of a byte position: which string ends here and where it begins (-1: none yet). */
typedef struct way { double score; int32_t from, id; } way;

static void reach(way *to, double score, int32_t from, int32_t id) {
    if (to->from >= 0 && !(score > to->score)) return;
    *to = (way){score, from, id};
}

static alloy_status forward(ay_ctx *cx, const ay_unigram *u, const char *s, size_t n, way *best) {
    for (size_t at = 0, next; at < n; at = next) {
        next = at;
        ay_utf8_next(s, n, &next);
        double here = best[at].score;
        bool alone = false; /* the character is a string of its own */
        uint32_t node = 0;
        for (size_t k = at; k < n && (node = ay_trie_step(&u->trie, node, (uint8_t)s[k])) != 0; k++) {
            int32_t id = u->trie.value[node];
            if (id < 0) continue;
            reach(&best[k + 1], u->score[id] + here, (int32_t)at, id);
            if (k + 1 == next) alone = true;
        }
        if (alone) continue;
        if (u->unk < 0)
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "the tokenizer has no token for \"%.*s\" and none for the unknown",
                           (int)(next - at), s + at);
        reach(&best[next], u->unk_score + here, (int32_t)at, u->unk);
    }
    return ALLOY_OK;
}

/* An unknown stretch: a string of the vocabulary after all, its bytes, or the unknown token. Ids are put in reverse. */
static void put_unknown(const ay_unigram *u, const char *s, size_t n, ay_ids *out) {
    int32_t id = ay_trie_find(&u->trie, s, n);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = u->byte_id[(uint8_t)s[i]] >= 0;
    if (!bytes) ay_ids_add(out, id >= 0 ? id : u->unk);
    for (size_t i = n; i > 0 && bytes; i--) ay_ids_add(out, u->byte_id[(uint8_t)s[i - 1]]);
}

static alloy_status unigram_encode(ay_ctx *cx, const ay_model *model, const char *s, size_t n, ay_scratch *scratch,
                                   ay_ids *out) {
    const ay_unigram *u = (const ay_unigram *)model;
    way *best = ay_scratch_get(scratch, (n + 1) * sizeof *best);
    if (!best) return ay_nomem(cx);
    for (size_t i = 0; i <= n; i++) best[i] = (way){0, -1, 0};
    AY_TRY(forward(cx, u, s, n, best));
    size_t first = out->n, end = n, unknown_end = 0; /* unknown_end: of an unknown stretch that may grow to the left */
    while (end > 0) {
        const way *w = &best[end];
        if (w->id == u->unk) {
            if (!unknown_end) unknown_end = end;
        } else {
            if (unknown_end) put_unknown(u, s + end, unknown_end - end, out);
            unknown_end = 0;
            ay_ids_add(out, w->id);
        }
        end = (size_t)w->from;
    }
    if (unknown_end) put_unknown(u, s, unknown_end, out);
    if (out->failed) return ay_nomem(cx);
    for (size_t i = first, k = out->n; i + 1 < k; i++) {
        int32_t t = out->v[i];
        out->v[i] = out->v[--k];
        out->v[k] = t;
    }
    return ALLOY_OK;
}

static int32_t unigram_find(const ay_model *model, const char *s, size_t n) {
    return ay_trie_find(&((const ay_unigram *)model)->trie, s, n);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

ay_unigram *ay_unigram_begin(ay_load *ld) {
    ay_unigram *u = ay_alloc(ld->arena, sizeof *u);
    if (!u) return NULL;
    u->base = (ay_model){.type = "Unigram", .find = unigram_find, .encode = unigram_encode};
    u->trie.arena = ld->arena;
    u->min_score = INFINITY;
    return u;
}

alloy_status ay_unigram_piece(ay_load *ld, ay_unigram *u, const char *s, size_t n, double score) {
    if (n > AY_MAX_TOKEN_BYTES || u->base.size == MAX_PIECES)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: piece %d has %zu bytes; at most %d pieces of at most %d bytes are "
                       "taken", ld->what, u->base.size, n, MAX_PIECES, AY_MAX_TOKEN_BYTES);
    if (!isfinite(score) || ay_utf8_check(s, n) >= 0)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: piece %d is not text with a finite score", ld->what, u->base.size);
    if (u->base.size == u->cap) {
        int cap = u->cap ? u->cap * 2 : 1024;
        double *more = ay_alloc(ld->arena, (size_t)cap * sizeof *more);
        if (!more) return ay_nomem(ld->cx);
        if (u->cap) memcpy(more, u->score, (size_t)u->cap * sizeof *more);
        u->score = more;
        u->cap = cap;
    }
    u->score[u->base.size] = score;
    if (score < u->min_score) u->min_score = score;
    if (n && !ay_trie_add(&u->trie, s, n, u->base.size)) return ay_nomem(ld->cx);
    u->base.size++;
    return ALLOY_OK;
}

alloy_status ay_unigram_json(ay_load *ld, ay_unigram *u, const json_t *vocab) {
    if (!json_is_array(vocab))
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the vocabulary of a Unigram model is not a list of [piece, score]",
                       ld->what);
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *v = json_array_get(vocab, i), *s = json_array_get(v, 0), *score = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_string(s) || !json_is_number(score))
            return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: piece %zu of the vocabulary is not [piece, score]", ld->what, i);
        AY_TRY(ay_unigram_piece(ld, u, json_string_value(s), json_string_length(s), json_number_value(score)));
    }
    return ALLOY_OK;
}

alloy_status ay_unigram_end(ay_load *ld, ay_unigram *u, int64_t unk_id, bool byte_fallback, ay_model **out) {
    *out = NULL;
    if (!u->trie.nodes) return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the vocabulary is empty", ld->what);
    if (unk_id >= u->base.size)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the unknown token's id is %lld, but the vocabulary has %d pieces",
                       ld->what, (long long)unk_id, u->base.size);
    u->unk = unk_id < 0 ? -1 : (int32_t)unk_id;
    u->unk_score = u->min_score - 10.0;
    u->base.top = u->base.size - 1;
    u->byte_fallback = byte_fallback;
    for (int b = 0; b < 256; b++) {
        char name[8];
        int n = snprintf(name, sizeof name, "<0x%02X>", b);
        u->byte_id[b] = ay_trie_find(&u->trie, name, (size_t)n);
    }
    *out = &u->base;
    return ALLOY_OK;
}
