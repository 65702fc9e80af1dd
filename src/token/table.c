/* SPDX-License-Identifier: MIT
 *
 * The two tables that the models stand on, and the small growing things: strings to ids by hash, byte prefixes to values
 * by a trie whose edges lie in one hash table (T5's 32,100 pieces: about 80,000 edges, built in a few milliseconds).
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>

void *ay_scratch_get(ay_scratch *s, size_t bytes) {
    if (bytes <= s->cap) return s->p;
    size_t cap = bytes < 4096 ? 4096 : bytes + bytes / 2;
    void *p = malloc(cap);
    if (!p) return NULL;
    free(s->p);
    s->p = p;
    s->cap = cap;
    return p;
}

void ay_ids_add(ay_ids *ids, int32_t id) {
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? ids->cap * 2 : 64;
        int32_t *v = ids->failed ? NULL : realloc(ids->v, cap * sizeof *v);
        if (!v) {
            ids->failed = true;
            return;
        }
        ids->v = v;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
}

/* ---- vocabulary ---------------------------------------------------------------------------------------------------- */

static uint32_t hash_bytes(const char *s, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; s += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, s, n);
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h ^ h >> 32);
}

static struct ay_vocab_slot *vocab_slot(const ay_vocab *v, const char *s, size_t n, uint32_t hash) {
    for (size_t i = hash & (v->cap - 1);; i = (i + 1) & (v->cap - 1)) {
        struct ay_vocab_slot *e = &v->slot[i];
        if (!e->s || (e->hash == hash && e->n == n && memcmp(e->s, s, n) == 0)) return e;
    }
}

static bool vocab_grow(ay_vocab *v) {
    ay_vocab bigger = *v;
    bigger.cap = v->cap ? v->cap * 2 : 64;
    bigger.slot = ay_alloc(v->arena, bigger.cap * sizeof *bigger.slot);
    if (!bigger.slot) return false;
    for (size_t i = 0; i < v->cap; i++)
        if (v->slot[i].s) *vocab_slot(&bigger, v->slot[i].s, v->slot[i].n, v->slot[i].hash) = v->slot[i];
    *v = bigger; /* the old table stays in the arena: all of them together are as large as the last */
    return true;
}

bool ay_vocab_add(ay_vocab *v, const char *s, size_t n, int32_t id) {
    if (n > UINT32_MAX) return false;
    if (v->used * 3 >= v->cap * 2 && !vocab_grow(v)) return false;
    uint32_t hash = hash_bytes(s, n);
    struct ay_vocab_slot *e = vocab_slot(v, s, n, hash);
    if (!e->s) {
        if (n + 1 > v->chunk_left) { /* strings lie packed: the arena alone would round each up to 16 bytes */
            size_t bytes = n + 1 > 65536 ? n + 1 : 65536;
            v->chunk = ay_alloc(v->arena, bytes);
            v->chunk_left = v->chunk ? bytes : 0;
            if (!v->chunk) return false;
        }
        memcpy(v->chunk, s, n);
        e->s = v->chunk;
        e->n = (uint32_t)n;
        e->hash = hash;
        v->chunk += n + 1; /* NUL between, the arena is zeroed */
        v->chunk_left -= n + 1;
        v->used++;
    }
    e->id = id;
    return true;
}

int32_t ay_vocab_find(const ay_vocab *v, const char *s, size_t n) {
    if (!v->used || n > UINT32_MAX) return -1;
    const struct ay_vocab_slot *e = vocab_slot(v, s, n, hash_bytes(s, n));
    return e->s ? e->id : -1;
}

/* ---- trie ---------------------------------------------------------------------------------------------------------- */

static void edge_put(ay_trie *t, uint32_t key, uint32_t to) {
    size_t i = (uint32_t)(key * 0x9e3779b1u) >> t->shift;
    while (t->edge[i].to) i = (i + 1) & (t->cap - 1);
    t->edge[i].key = key;
    t->edge[i].to = to;
}

static bool trie_grow(ay_trie *t) {
    ay_trie old = *t;
    if (old.cap > UINT32_MAX / 4) return false;
    t->cap = old.cap ? old.cap * 2 : 64;
    t->shift = old.cap ? old.shift - 1 : 26;
    t->edge = ay_alloc(t->arena, t->cap * sizeof *t->edge);
    if (!t->edge) return *t = old, false;
    for (size_t i = 0; i < old.cap; i++)
        if (old.edge[i].to) edge_put(t, old.edge[i].key, old.edge[i].to);
    return true;
}

static bool node_new(ay_trie *t, uint32_t *out) {
    if (t->nodes == t->cap_nodes) {
        uint32_t cap = t->cap_nodes ? t->cap_nodes * 2 : 64;
        int32_t *value = ay_alloc(t->arena, cap * sizeof *value);
        if (!value) return false;
        if (t->nodes) memcpy(value, t->value, t->nodes * sizeof *value);
        t->value = value;
        t->cap_nodes = cap;
    }
    if (t->nodes >= 1u << 24) return false; /* the key has 24 bits for a node */
    t->value[t->nodes] = -1;
    *out = t->nodes++;
    return true;
}

bool ay_trie_add(ay_trie *t, const char *s, size_t n, int32_t value) {
    uint32_t node = 0, next;
    if (!t->nodes && (!node_new(t, &node) || !trie_grow(t))) return false;
    for (size_t i = 0; i < n; i++, node = next) {
        next = ay_trie_step(t, node, (uint8_t)s[i]);
        if (next) continue;
        if (t->used * 2 >= t->cap && !trie_grow(t)) return false;
        if (!node_new(t, &next)) return false;
        edge_put(t, node << 8 | (uint8_t)s[i], next);
        t->used++;
    }
    t->value[node] = value;
    return true;
}

int32_t ay_trie_find(const ay_trie *t, const char *s, size_t n) {
    if (!t->nodes) return -1;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = ay_trie_step(t, node, (uint8_t)s[i]);
        if (!node) return -1;
    }
    return t->value[node];
}
