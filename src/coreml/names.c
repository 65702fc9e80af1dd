/* SPDX-License-Identifier: MIT
 *
 * Identifiers of a MIL function: made valid, kept unique. The reserved words are those that coremltools renames
 * (converters/mil/mil/passes/defs/preprocess.py, NameSanitizer and its callers).
 */
#include "coreml/names.h"

#include <string.h>

void ay_names_init(ay_names *m, ay_arena *arena) { *m = (ay_names){.arena = arena}; }

static size_t hash(const void *key, size_t len) {
    const unsigned char *p = key;
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/* The key's slot, or the empty one where it would go; cap is a power of two and never full. */
static struct ay_name_slot *find(const ay_names *m, const void *key, size_t len) {
    for (size_t i = hash(key, len);; i++) {
        struct ay_name_slot *s = &m->slots[i & (m->cap - 1)];
        if (!s->key || (s->len == len && memcmp(s->key, key, len) == 0)) return s;
    }
}

static bool grow(ay_names *m) {
    ay_names old = *m;
    m->cap = old.cap ? old.cap * 2 : 256;
    m->slots = ay_alloc(m->arena, m->cap * sizeof *m->slots); /* the old table stays in the arena: at most as much again */
    if (!m->slots) {
        *m = old;
        return false;
    }
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].key) *find(m, old.slots[i].key, old.slots[i].len) = old.slots[i];
    return true;
}

void **ay_names_at(ay_names *m, const void *key, size_t len, bool *fresh) {
    *fresh = false;
    if (m->n * 2 >= m->cap && !grow(m)) return NULL;
    struct ay_name_slot *s = find(m, key, len);
    if (!s->key) {
        char *copy = ay_alloc(m->arena, len + 1);
        if (!copy) return NULL;
        memcpy(copy, key, len);
        *s = (struct ay_name_slot){.key = copy, .len = len};
        m->n++;
        *fresh = true;
    }
    return &s->value;
}

void *ay_names_get(const ay_names *m, const void *key, size_t len) { return m->cap ? find(m, key, len)->value : NULL; }

/* ---- identifiers ------------------------------------------------------------------------------------------------- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool ay_name_reserved(const char *s) {
    static const char *const words[] = {"any",   "bool",  "program", "func",  "tensor", "list",   "dict",   "tuple",
                                        "true",  "false", "string",  "bf16",  "fp16",   "fp32",   "fp64",   "int8",
                                        "int16", "int32", "int64",   "uint8", "uint16", "uint32", "uint64", "state"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(s, words[i]) == 0) return true;
    return false;
}

bool ay_name_valid(const char *s) {
    if (!is_letter(*s)) return false;
    for (const char *p = s; *p; p++)
        if (!is_letter(*p) && !is_digit(*p)) return false;
    return !ay_name_reserved(s);
}

const char *ay_name_fresh(ay_names *m, const char *words) {
    char *base = ay_sprintf(m->arena, "%s%s", is_letter(*words) ? "" : "_", words);
    if (!base) return NULL;
    for (char *p = base; *p; p++)
        if (!is_letter(*p) && !is_digit(*p)) *p = '_';
    if (ay_name_reserved(base) && !(base = ay_sprintf(m->arena, "%s_", base))) return NULL;
    bool fresh;
    void **at = ay_names_at(m, base, strlen(base), &fresh);
    if (!at) return NULL;
    if (fresh) return base;
    for (size_t i = (size_t)*at + 1;; i++) { /* the value counts how many were made from this base */
        char *name = ay_sprintf(m->arena, "%s_%zu", base, i);
        if (!name || !ay_names_at(m, name, strlen(name), &fresh)) return NULL;
        if (fresh) {
            *ay_names_at(m, base, strlen(base), &fresh) = (void *)i; /* `at` may have moved */
            return name;
        }
    }
}
