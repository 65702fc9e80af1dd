/* SPDX-License-Identifier: MIT
 *
 * Byte-pair encoding: a word begins as its characters, and the pair of neighbours with the lowest rank is merged until no
 * pair has one. Pairs wait in a heap by (rank, place) over a linked list of symbols, so that a word of n characters costs
 * n log n (tokenizers/src/models/bpe/word.rs; entries that a merge made stale are told by the id they would make).
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ID = (1 << 24) - 1, DIRECT = 512 /* the byte alphabet lies below U+0144 */ };

typedef struct merge { uint64_t pair; uint32_t rank; int32_t id; } merge; /* id < 0: an empty slot */

typedef struct bpe {
    ay_model base;
    ay_vocab vocab;
    merge *merges;
    size_t cap; /* power of two */
    int32_t unk; /* -1: none */
    const char *suffix;
    bool fuse_unk, ignore_merges;
    int32_t direct[DIRECT], direct_last[DIRECT]; /* ids of one-character strings, without and with the suffix */
} bpe;

static merge *merge_slot(const bpe *b, uint64_t pair) {
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    for (size_t i = (size_t)(h ^ h >> 32) & (b->cap - 1);; i = (i + 1) & (b->cap - 1)) {
        merge *m = &b->merges[i];
        if (m->id < 0 || m->pair == pair) return m;
    }
}

static const merge *merge_of(const bpe *b, int32_t left, int32_t right) {
    const merge *m = merge_slot(b, (uint64_t)(uint32_t)left << 32 | (uint32_t)right);
    return m->id < 0 ? NULL : m;
}

/* ---- encoding ------------------------------------------------------------------------------------------------------ */

typedef struct symbol { int32_t id, prev, next, alive; } symbol;
typedef struct candidate { uint32_t rank; int32_t at, id; } candidate;
typedef struct word { symbol *sym; candidate *heap; int32_t n; size_t queued; } word;

static bool before(const candidate *a, const candidate *b) { return a->rank != b->rank ? a->rank < b->rank : a->at < b->at; }

static void push(word *w, const merge *m, int32_t at) {
    if (!m) return;
    candidate c = {m->rank, at, m->id};
    size_t i = w->queued++;
    for (size_t up; i > 0 && before(&c, &w->heap[up = (i - 1) / 2]); i = up) w->heap[i] = w->heap[up];
    w->heap[i] = c;
}

static candidate pop(word *w) {
    candidate top = w->heap[0], c = w->heap[--w->queued];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < w->queued; i = k) {
        if (k + 1 < w->queued && before(&w->heap[k + 1], &w->heap[k])) k++;
        if (!before(&w->heap[k], &c)) break;
        w->heap[i] = w->heap[k];
    }
    w->heap[i] = c;
    return top;
}

static void merge_all(const bpe *b, word *w) {
    for (int32_t i = 0; i + 1 < w->n; i++) push(w, merge_of(b, w->sym[i].id, w->sym[i + 1].id), i);
    while (w->queued) {
        candidate c = pop(w);
        symbol *left = &w->sym[c.at];
        if (!left->alive || left->next < 0) continue;
        symbol *right = &w->sym[left->next];
        const merge *m = merge_of(b, left->id, right->id);
        if (!m || m->id != c.id) continue; /* stale */
        left->id = c.id;
        left->next = right->next;
        right->alive = 0;
        if (left->next >= 0) w->sym[left->next].prev = c.at;
        if (left->prev >= 0) push(w, merge_of(b, w->sym[left->prev].id, left->id), left->prev);
        if (left->next >= 0) push(w, merge_of(b, left->id, w->sym[left->next].id), c.at);
    }
}

static void add_symbol(word *w, int32_t id) {
    w->sym[w->n] = (symbol){id, w->n - 1, -1, 1};
    if (w->n) w->sym[w->n - 1].next = w->n;
    w->n++;
}

/* The id of the character s[0, n), with the suffix if it is the word's last; -1: not in the vocabulary. */
static int32_t character(const bpe *b, int32_t c, const char *s, size_t n, bool last) {
    if (c < DIRECT) return last ? b->direct_last[c] : b->direct[c];
    size_t k = last ? strlen(b->suffix) : 0;
    if (k == 0) return ay_vocab_find(&b->vocab, s, n);
    char text[64]; /* open() keeps the suffix short */
    memcpy(text, s, n);
    memcpy(text + n, b->suffix, k);
    return ay_vocab_find(&b->vocab, text, n + k);
}

static alloy_status bpe_encode(ay_ctx *cx, const ay_model *model, const char *s, size_t n, ay_scratch *scratch,
                               ay_ids *out) {
    const bpe *b = (const bpe *)model;
    int32_t whole = b->ignore_merges ? ay_vocab_find(&b->vocab, s, n) : -1;
    if (whole >= 0) return ay_ids_add(out, whole), out->failed ? ay_nomem(cx) : ALLOY_OK;
    /* at most n symbols; each merge takes one away and queues two pairs at most */
    word w = {.sym = ay_scratch_get(scratch, n * sizeof(symbol) + 3 * n * sizeof(candidate))};
    if (!w.sym) return ay_nomem(cx);
    w.heap = (candidate *)(void *)(w.sym + n);
    bool unknown = false; /* an unknown character waits, so that the next may join it */
    for (size_t i = 0, at; i < n;) {
        at = i;
        int32_t c = ay_utf8_next(s, n, &i);
        int32_t id = character(b, c, s + at, i - at, i == n);
        if (unknown && (id >= 0 || !b->fuse_unk)) add_symbol(&w, b->unk), unknown = false;
        if (id >= 0) add_symbol(&w, id);
        else unknown = b->unk >= 0;
    }
    if (unknown) add_symbol(&w, b->unk);
    merge_all(b, &w);
    for (int32_t i = 0; i < w.n; i++)
        if (w.sym[i].alive) ay_ids_add(out, w.sym[i].id);
    return out->failed ? ay_nomem(cx) : ALLOY_OK;
}

static int32_t bpe_find(const ay_model *model, const char *s, size_t n) {
    return ay_vocab_find(&((const bpe *)model)->vocab, s, n);
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static alloy_status read_vocab(ay_load *ld, bpe *b, const json_t *vocab) {
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the vocabulary is not an object of token: id", ld->what);
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)vocab, key, v) {
        size_t n = strlen(key);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v) || id < 0 || id > MAX_ID)
            return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the token \"%.60s\" has no id from 0 to %d", ld->what, key, MAX_ID);
        if (n > AY_MAX_TOKEN_BYTES)
            return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: a token of %zu bytes; at most %d are taken", ld->what, n,
                           AY_MAX_TOKEN_BYTES);
        if (!ay_vocab_add(&b->vocab, key, n, (int32_t)id)) return ay_nomem(ld->cx);
        if (id > b->base.top) b->base.top = (int32_t)id;
    }
    b->base.size = (int)b->vocab.used;
    return ALLOY_OK;
}

static alloy_status reserve_merges(ay_load *ld, bpe *b, size_t count) {
    b->cap = 64;
    while (b->cap < count * 2) b->cap *= 2;
    b->merges = ay_alloc(ld->arena, b->cap * sizeof *b->merges);
    if (!b->merges) return ay_nomem(ld->cx);
    for (size_t i = 0; i < b->cap; i++) b->merges[i].id = -1;
    return ALLOY_OK;
}

static alloy_status add_merge(ay_load *ld, bpe *b, const char *what, uint32_t rank, const char *l, size_t nl, const char *r,
                              size_t nr) {
    char both[2 * AY_MAX_TOKEN_BYTES];
    const char *absent = NULL;
    int32_t left = ay_vocab_find(&b->vocab, l, nl), right = ay_vocab_find(&b->vocab, r, nr), id = -1;
    size_t n = nl;
    if (left < 0) absent = l;
    else if (right < 0) absent = r, n = nr;
    else { /* both are in the vocabulary, so no longer than AY_MAX_TOKEN_BYTES */
        memcpy(both, l, nl);
        memcpy(both + nl, r, nr);
        n = nl + nr;
        id = ay_vocab_find(&b->vocab, both, n);
        if (id < 0) absent = both;
    }
    if (absent)
        return ay_fail(ld->cx, ALLOY_E_MISMATCH, "%s: merge %u needs the token \"%.*s\", which the vocabulary does not "
                       "have; take both files from the same model", what, rank + 1, (int)(n > 60 ? 60 : n), absent);
    *merge_slot(b, (uint64_t)(uint32_t)left << 32 | (uint32_t)right) =
        (merge){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, rank, id};
    return ALLOY_OK;
}

/* One merge as text: two tokens with one space between. */
static alloy_status add_line(ay_load *ld, bpe *b, const char *what, uint32_t rank, const char *line, size_t n) {
    const char *space = memchr(line, ' ', n);
    size_t nl = space ? (size_t)(space - line) : n;
    if (!space || memchr(space + 1, ' ', n - nl - 1))
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: merge %u is \"%.*s\"; two tokens with one space between were expected",
                       what, rank + 1, (int)(n > 60 ? 60 : n), line);
    return add_merge(ld, b, what, rank, line, nl, space + 1, n - nl - 1);
}

static alloy_status merges_text(ay_load *ld, bpe *b, const char *what, const char *text, size_t n) {
    ptrdiff_t bad = ay_utf8_check(text, n);
    if (bad >= 0) return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: not UTF-8 at byte %td", what, bad);
    size_t lines = 1;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    AY_TRY(reserve_merges(ld, b, lines));
    uint32_t rank = 0;
    for (size_t i = 0; i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t next = end ? (size_t)(end - text) + 1 : n, k = (end ? next - 1 : n) - i;
        if (end && k && text[i + k - 1] == '\r') k--;
        if (!(k >= 8 && memcmp(text + i, "#version", 8) == 0)) AY_TRY(add_line(ld, b, what, rank++, text + i, k));
        i = next;
    }
    return ALLOY_OK;
}

static alloy_status merges_list(ay_load *ld, bpe *b, const char *what, const json_t *list) {
    if (!json_is_array(list)) return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: \"merges\" is not a list", what);
    AY_TRY(reserve_merges(ld, b, json_array_size(list)));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const json_t *l = json_array_get(v, 0), *r = json_array_get(v, 1); /* NULL where v is no list */
        if (json_is_string(v)) AY_TRY(add_line(ld, b, what, (uint32_t)i, json_string_value(v), json_string_length(v)));
        else if (json_array_size(v) == 2 && json_is_string(l) && json_is_string(r))
            AY_TRY(add_merge(ld, b, what, (uint32_t)i, json_string_value(l), json_string_length(l), json_string_value(r),
                             json_string_length(r)));
        else return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: merge %zu is not a pair of tokens", what, i + 1);
    }
    return ALLOY_OK;
}

alloy_status ay_bpe_new(ay_load *ld, const json_t *vocab, const char *merges_what, const char *text, size_t n,
                        const json_t *list, const ay_bpe_options *o, ay_model **out) {
    *out = NULL;
    bpe *b = ay_alloc(ld->arena, sizeof *b);
    if (!b) return ay_nomem(ld->cx);
    b->base = (ay_model){.type = "BPE", .find = bpe_find, .encode = bpe_encode};
    b->vocab.arena = ld->arena;
    b->fuse_unk = o->fuse_unk;
    b->ignore_merges = o->ignore_merges;
    b->suffix = ay_strdup(ld->arena, o->suffix ? o->suffix : "");
    if (!b->suffix) return ay_nomem(ld->cx);
    if (strlen(b->suffix) > 32)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: an end_of_word_suffix of more than 32 bytes", ld->what);
    AY_TRY(read_vocab(ld, b, vocab));
    AY_TRY(text ? merges_text(ld, b, merges_what, text, n) : merges_list(ld, b, merges_what, list));
    b->unk = o->unk ? ay_vocab_find(&b->vocab, o->unk, strlen(o->unk)) : -1;
    if (o->unk && b->unk < 0)
        return ay_fail(ld->cx, ALLOY_E_MISMATCH, "%s: the vocabulary does not have the unknown token \"%.60s\"", ld->what,
                       o->unk);
    for (int32_t c = 0; c < DIRECT; c++) {
        char s[64];
        size_t k = ay_utf8_put(c, s);
        b->direct[c] = ay_vocab_find(&b->vocab, s, k);
        memcpy(s + k, b->suffix, strlen(b->suffix));
        b->direct_last[c] = ay_vocab_find(&b->vocab, s, k + strlen(b->suffix));
    }
    *out = &b->base;
    return ALLOY_OK;
}
