/* SPDX-License-Identifier: MIT
 *
 * Added tokens: strings that are cut out of a text before the model sees it ("</s>", "<|endoftext|>"), either from the text
 * as it came or, if `normalized`, from the normalized one. Leftmost and longest first
 * (tokenizers/src/tokenizer/added_vocabulary.rs).
 */
#include "token/tok.h"

#include <string.h>

int32_t ay_added_find(const ay_added_set *set, const ay_model *m, const char *text) {
    size_t n = strlen(text);
    int32_t at = ay_vocab_find(&set->index, text, n);
    return at >= 0 ? set->token[at].id : m->find(m, text, n);
}

alloy_status ay_added_add(ay_load *ld, ay_added_set *set, const ay_model *m, const ay_added *token) {
    if (token->n == 0) return ALLOY_OK;
    if (token->n > AY_MAX_TOKEN_BYTES || set->n >= 1 << 20)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: added token %d has %zu bytes; at most %d tokens of at most %d bytes "
                       "are taken", ld->what, set->n + 1, token->n, 1 << 20, AY_MAX_TOKEN_BYTES);
    int32_t at = ay_vocab_find(&set->index, token->text, token->n);
    if (at < 0) {
        if (set->n == set->cap) {
            int cap = set->cap ? set->cap * 2 : 64;
            ay_added *more = ay_alloc(ld->arena, (size_t)cap * sizeof *more);
            if (!more) return ay_nomem(ld->cx);
            if (set->n) memcpy(more, set->token, (size_t)set->n * sizeof *more);
            set->token = more;
            set->cap = cap;
        }
        at = set->n;
        if (!ay_vocab_add(&set->index, token->text, token->n, at)) return ay_nomem(ld->cx);
        int32_t id = m->find(m, token->text, token->n);
        if (id < 0) { /* ids go on after the model's and after those given out */
            if (set->next_id < m->size) set->next_id = m->size;
            id = set->next_id++;
        } else if (id >= m->size && id >= set->next_id) set->next_id = id + 1;
        if (id > set->top) set->top = id;
        set->token[at].id = id;
        set->n++;
    }
    int32_t id = set->token[at].id;
    const char *text = ay_strndup(ld->arena, token->text, token->n);
    if (!text) return ay_nomem(ld->cx);
    set->token[at] = *token;
    set->token[at].text = text;
    set->token[at].id = id;
    return ALLOY_OK;
}

alloy_status ay_added_finish(ay_load *ld, ay_added_set *set, const ay_norms *norms) {
    ay_buf normal = {0}, spare = {0};
    alloy_status st = ALLOY_OK;
    set->raw.arena = set->normal.arena = ld->arena;
    for (int i = 0; i < set->n && st == ALLOY_OK; i++) {
        const ay_added *t = &set->token[i];
        if (!t->normalized) {
            if (!ay_trie_add(&set->raw, t->text, t->n, i)) st = ay_nomem(ld->cx);
            continue;
        }
        st = ay_norms_run(ld->cx, norms, t->text, t->n, &normal, &spare);
        if (st == ALLOY_OK && normal.len && !ay_trie_add(&set->normal, normal.data, normal.len, i)) st = ay_nomem(ld->cx);
    }
    ay_buf_free(&normal);
    ay_buf_free(&spare);
    return st;
}

static bool word_before(const char *s, size_t at) {
    size_t i = at;
    while (i > 0 && ((uint8_t)s[--i] & 0xc0) == 0x80) {}
    return at > 0 && ay_is_word(ay_utf8_next(s, at, &i));
}

static bool word_after(const char *s, size_t n, size_t at) { return at < n && ay_is_word(ay_utf8_next(s, n, &at)); }

static size_t space_before(const char *s, size_t at) {
    while (at > 0) {
        size_t i = at;
        while (i > 0 && ((uint8_t)s[--i] & 0xc0) == 0x80) {}
        size_t k = i;
        if (!ay_is_space(ay_utf8_next(s, at, &k))) break;
        at = i;
    }
    return at;
}

static size_t space_after(const char *s, size_t n, size_t at) {
    for (size_t i = at; at < n; at = i)
        if (!ay_is_space(ay_utf8_next(s, n, &i))) break;
    return at;
}

/* The longest token that begins at s[at]: its place, or -1; *end behind it. */
static int32_t longest(const ay_trie *trie, const char *s, size_t n, size_t at, size_t *end) {
    int32_t found = -1;
    uint32_t node = 0;
    for (size_t i = at; i < n && (node = ay_trie_step(trie, node, (uint8_t)s[i])) != 0; i++) {
        if (trie->value[node] < 0) continue;
        found = trie->value[node];
        *end = i + 1;
    }
    return found;
}

void ay_added_split(const ay_added_set *set, const ay_trie *trie, const char *s, size_t n, bool base, ay_pieces *out) {
    size_t done = 0; /* what is already given out; a stripped space may lie behind a later match's beginning */
    for (size_t at = 0, end = 0; trie->nodes && at < n;) {
        int32_t found = longest(trie, s, n, at, &end);
        if (found < 0) {
            at++;
            continue;
        }
        const ay_added *t = &set->token[found];
        size_t begin = at, stop = end;
        at = end;
        if (set->split_special && t->special) continue;
        if (t->single_word && (word_before(s, begin) || word_after(s, n, stop))) continue;
        if (t->lstrip) begin = space_before(s, begin);
        if (t->rstrip) stop = space_after(s, n, stop);
        if (done < begin) ay_pieces_add(out, s + done, begin - done, -1, base && done == 0);
        if (begin < stop) ay_pieces_add(out, s + begin, stop - begin, t->id, base && begin == 0);
        done = stop;
    }
    if (done < n) ay_pieces_add(out, s + done, n - done, -1, base && done == 0);
}
