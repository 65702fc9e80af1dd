/* SPDX-License-Identifier: MIT
 *
 * Names in checkpoints: the patterns of alias tables, and finding tensors by formatted names. The tables are the models'.
 */
#include "model/model.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STARS = 6 };

typedef struct span {
    const char *text;
    size_t n;
} span;

/* Whether `text` is of the pattern; what each star stood for (the shortest that fits) goes to `stars`. */
static bool capture(const char *pattern, const char *text, span *stars, int n) {
    while (*pattern && *pattern != '*' && *pattern == *text) pattern++, text++;
    if (*pattern != '*') return !*pattern && !*text;
    if (n == MAX_STARS) return false;
    for (size_t len = 0;; len++) {
        stars[n] = (span){text, len};
        if (capture(pattern + 1, text + len, stars, n + 1)) return true;
        if (!text[len]) return false;
    }
}

static bool substitute(const char *pattern, const span *stars, char *out, size_t cap) {
    size_t at = 0;
    for (int star = 0; *pattern; pattern++) {
        span s = *pattern == '*' ? stars[star++] : (span){pattern, 1};
        if (at + s.n >= cap) return false;
        memcpy(out + at, s.text, s.n);
        at += s.n;
    }
    out[at] = 0;
    return true;
}

static bool apply(const ay_alias *a, const char *name, ay_recipe *r) {
    span stars[MAX_STARS] = {{NULL, 0}};
    r->take = a->take;
    r->part = a->part;
    return capture(a->name, name, stars, 0) && substitute(a->found, stars, r->name, sizeof r->name);
}

bool ay_recipe_of(const ay_arch *arch, const ay_naming *naming, const void *cfg, const char *name, int k, ay_recipe *out) {
    char renamed[sizeof out->name];
    if (naming && naming->rename && naming->rename(cfg, name, renamed, sizeof renamed)) name = renamed;
    *out = (ay_recipe){.take = AY_TAKE_ALL};
    if (k-- == 0) return snprintf(out->name, sizeof out->name, "%s", name) < (int)sizeof out->name;
    const ay_alias *a = naming && naming->aliases ? naming->aliases : arch->aliases;
    for (; a && a->name; a++) {
        if (apply(a, name, out) && k-- == 0) return true;
    }
    return false;
}

bool ay_naming_fits(const ay_naming *naming, const ay_names *tensors) {
    for (const char *const *k = naming->keys; *k; k++) {
        if (!tensors->find(tensors, *k)) return false;
    }
    return true;
}

const ay_type *ay_names_find(const ay_names *n, const char *fmt, ...) {
    char name[256];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return len > 0 && len < (int)sizeof name ? n->find(n, name) : NULL;
}

int64_t ay_names_count(const ay_names *n, const char *before, const char *after) {
    int64_t i = 0;
    while (i < 10000 && ay_names_find(n, "%s%lld%s", before, (long long)i, after)) i++;
    return i;
}
