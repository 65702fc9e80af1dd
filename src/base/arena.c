/* SPDX-License-Identifier: MIT
 *
 * Arenas (chunks in a list, each twice the last up to 1 MB) and growing byte strings.
 */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct chunk {
    struct chunk *next;
    size_t used, cap;
    _Alignas(16) unsigned char bytes[];
} chunk;

struct ay_arena {
    chunk *head;
    size_t next_cap;
    bool failed;
};

ay_arena *ay_arena_new(void) {
    ay_arena *a = calloc(1, sizeof *a);
    if (a) a->next_cap = 4096;
    return a;
}

void ay_arena_free(ay_arena *a) {
    if (!a) return;
    for (chunk *c = a->head; c;) {
        chunk *next = c->next;
        free(c);
        c = next;
    }
    free(a);
}

void *ay_alloc(ay_arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - 64 - sizeof(chunk)) {
        a->failed = true;
        return NULL;
    }
    size_t need = (bytes + 15) & ~(size_t)15;
    chunk *c = a->head;
    if (!c || c->cap - c->used < need) {
        size_t cap = need > a->next_cap ? need : a->next_cap;
        c = calloc(1, sizeof *c + cap);
        if (!c) {
            a->failed = true;
            return NULL;
        }
        c->cap = cap;
        if (a->head && need > a->next_cap) { /* a large one of its own: keep filling the current chunk afterwards */
            c->next = a->head->next;
            a->head->next = c;
        } else {
            c->next = a->head;
            a->head = c;
            if (a->next_cap < ((size_t)1 << 20)) a->next_cap *= 2;
        }
    }
    void *p = c->bytes + c->used;
    c->used += need;
    return p;
}

char *ay_strndup(ay_arena *a, const char *s, size_t n) {
    char *p = ay_alloc(a, n + 1);
    if (p) memcpy(p, s, n);
    return p;
}

char *ay_strdup(ay_arena *a, const char *s) { return ay_strndup(a, s, strlen(s)); }

char *ay_sprintf(ay_arena *a, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : ay_alloc(a, (size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

bool ay_arena_failed(const ay_arena *a) { return a->failed; }

bool ay_arena_owns(const ay_arena *a, const void *p) {
    uintptr_t at = (uintptr_t)p;
    for (const chunk *c = a->head; c; c = c->next)
        if (at >= (uintptr_t)c->bytes && at < (uintptr_t)c->bytes + c->cap) return true;
    return false;
}

static bool reserve(ay_buf *b, size_t more) {
    if (b->failed) return false;
    if (more >= SIZE_MAX - b->len - 1) return b->failed = true, false;
    size_t need = b->len + more + 1;
    if (need <= b->cap) return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = realloc(b->data, cap);
    if (!p) return b->failed = true, false;
    b->data = p;
    b->cap = cap;
    return true;
}

void ay_buf_add(ay_buf *b, const void *bytes, size_t n) {
    if (!reserve(b, n)) return;
    if (n) memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
}

void ay_buf_printf(ay_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void ay_buf_free(ay_buf *b) {
    free(b->data);
    *b = (ay_buf){0};
}
