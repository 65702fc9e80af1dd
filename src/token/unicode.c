/* SPDX-License-Identifier: MIT
 *
 * Unicode as Hugging Face's tokenizers see it, over utf8proc. Their libraries stand at different versions of Unicode
 * (normal forms at 9, regular expressions at 16, upper and lower case at 17), so that the few hundred code points where a
 * system's utf8proc or PCRE2 may say something else are listed here. Ids then do not depend on the system's libraries;
 * tests/token/test_unicode.c compares every code point.
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct range { int32_t lo, hi; } range;

/* Marks and compositions that came after Unicode 9: normal forms leave them where they are, as if they were letters. */
static const range after_9[] = {
    {0x7fd, 0x7fd}, {0x897, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c}, {0xeba, 0xeba},
    {0x1715, 0x1715}, {0x1abf, 0x1aff}, {0x1df6, 0x1dfa}, {0x32ff, 0x32ff}, {0xa7f1, 0xa7f4}, {0xa82c, 0xa82c},
    {0xab69, 0xab69}, {0x105c0, 0x105ff}, {0x10781, 0x107ba}, {0x10d24, 0x10d27}, {0x10d40, 0x10d8f},
    {0x10eab, 0x10eac}, {0x10ec2, 0x10ec7}, {0x10efa, 0x10eff}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85},
    {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x11380, 0x113ff}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11938, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99},
    {0x11b60, 0x11b6f}, {0x11d42, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16100, 0x1613f},
    {0x16d40, 0x16d7f}, {0x16ff0, 0x16ff1}, {0x1ccd6, 0x1ccf9}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5d0, 0x1e5ff},
    {0x1e6c0, 0x1e6ff}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

/* What Unicode 15 and 16 added, which an older PCRE2 does not know, and what Unicode 17 added, which a newer one knows (CN:
 * not assigned yet, for Hugging Face). U+180E is white space to PCRE2 and to nobody else. */
enum { LU, LL, LM, LO, MN, MC, ND, NO, PD, PO, SM, SO, CF, CN };
static const struct kind { int32_t lo, hi; int kind; } after_14[] = {
    {0x88f, 0x88f, CN}, {0x897, 0x897, MN}, {0xc5c, 0xc5c, CN}, {0xcdc, 0xcdc, CN}, {0xcf3, 0xcf3, MC},
    {0xece, 0xece, MN}, {0x180e, 0x180e, CF}, {0x1acf, 0x1aeb, CN}, {0x1b4e, 0x1b4f, PO}, {0x1b7f, 0x1b7f, PO},
    {0x1c89, 0x1c89, LU}, {0x1c8a, 0x1c8a, LL}, {0x20c1, 0x20c1, CN}, {0x2427, 0x2429, SO}, {0x2b96, 0x2b96, CN},
    {0x2ffc, 0x2fff, SO}, {0x31e4, 0x31e5, SO}, {0x31ef, 0x31ef, SO}, {0xa7cb, 0xa7cc, LU}, {0xa7cd, 0xa7cd, LL},
    {0xa7ce, 0xa7cf, CN}, {0xa7d2, 0xa7d2, CN}, {0xa7d4, 0xa7d4, CN}, {0xa7da, 0xa7da, LU}, {0xa7db, 0xa7db, LL},
    {0xa7dc, 0xa7dc, LU}, {0xa7f1, 0xa7f1, CN}, {0x105c0, 0x105f3, LO}, {0x10940, 0x1095f, CN},
    {0x10d40, 0x10d49, ND}, {0x10d4a, 0x10d4d, LO}, {0x10d4e, 0x10d4e, LM}, {0x10d4f, 0x10d4f, LO},
    {0x10d50, 0x10d65, LU}, {0x10d69, 0x10d6d, MN}, {0x10d6e, 0x10d6e, PD}, {0x10d6f, 0x10d6f, LM},
    {0x10d70, 0x10d85, LL}, {0x10d8e, 0x10d8f, SM}, {0x10ec2, 0x10ec4, LO}, {0x10ec5, 0x10ec7, CN},
    {0x10ed0, 0x10ed8, CN}, {0x10efa, 0x10efb, CN}, {0x10efc, 0x10eff, MN}, {0x1123f, 0x11240, LO},
    {0x11241, 0x11241, MN}, {0x11380, 0x11389, LO}, {0x1138b, 0x1138b, LO}, {0x1138e, 0x1138e, LO},
    {0x11390, 0x113b5, LO}, {0x113b7, 0x113b7, LO}, {0x113b8, 0x113ba, MC}, {0x113bb, 0x113c0, MN},
    {0x113c2, 0x113c2, MC}, {0x113c5, 0x113c5, MC}, {0x113c7, 0x113ca, MC}, {0x113cc, 0x113cd, MC},
    {0x113ce, 0x113ce, MN}, {0x113cf, 0x113cf, MC}, {0x113d0, 0x113d0, MN}, {0x113d1, 0x113d1, LO},
    {0x113d2, 0x113d2, MN}, {0x113d3, 0x113d3, LO}, {0x113d4, 0x113d5, PO}, {0x113d7, 0x113d8, PO},
    {0x113e1, 0x113e2, MN}, {0x116d0, 0x116e3, ND}, {0x1171e, 0x1171e, MC}, {0x11b00, 0x11b09, PO},
    {0x11b60, 0x11b67, CN}, {0x11bc0, 0x11be0, LO}, {0x11be1, 0x11be1, PO}, {0x11bf0, 0x11bf9, ND},
    {0x11db0, 0x11def, CN}, {0x11f00, 0x11f01, MN}, {0x11f02, 0x11f02, LO}, {0x11f03, 0x11f03, MC},
    {0x11f04, 0x11f10, LO}, {0x11f12, 0x11f33, LO}, {0x11f34, 0x11f35, MC}, {0x11f36, 0x11f3a, MN},
    {0x11f3e, 0x11f3f, MC}, {0x11f40, 0x11f40, MN}, {0x11f41, 0x11f41, MC}, {0x11f42, 0x11f42, MN},
    {0x11f43, 0x11f4f, PO}, {0x11f50, 0x11f59, ND}, {0x11f5a, 0x11f5a, MN}, {0x1342f, 0x1342f, LO},
    {0x13439, 0x1343f, CF}, {0x13440, 0x13440, MN}, {0x13441, 0x13446, LO}, {0x13447, 0x13455, MN},
    {0x13460, 0x143fa, LO}, {0x16100, 0x1611d, LO}, {0x1611e, 0x16129, MN}, {0x1612a, 0x1612c, MC},
    {0x1612d, 0x1612f, MN}, {0x16130, 0x16139, ND}, {0x16d40, 0x16d42, LM}, {0x16d43, 0x16d6a, LO},
    {0x16d6b, 0x16d6c, LM}, {0x16d6d, 0x16d6f, PO}, {0x16d70, 0x16d79, ND}, {0x16ea0, 0x16ed3, CN},
    {0x16ff2, 0x16fff, CN}, {0x187f8, 0x187ff, CN}, {0x18cff, 0x18cff, LO}, {0x18d09, 0x18d1e, CN},
    {0x18d80, 0x18df2, CN}, {0x1b132, 0x1b132, LO}, {0x1b155, 0x1b155, LO}, {0x1cc00, 0x1ccef, SO},
    {0x1ccf0, 0x1ccf9, ND}, {0x1ccfa, 0x1ccfc, CN}, {0x1cd00, 0x1ceb3, SO}, {0x1ceba, 0x1cef0, CN},
    {0x1d2c0, 0x1d2d3, NO}, {0x1df25, 0x1df2a, LL}, {0x1e030, 0x1e06d, LM}, {0x1e08f, 0x1e08f, MN},
    {0x1e4d0, 0x1e4ea, LO}, {0x1e4eb, 0x1e4eb, LM}, {0x1e4ec, 0x1e4ef, MN}, {0x1e4f0, 0x1e4f9, ND},
    {0x1e5d0, 0x1e5ed, LO}, {0x1e5ee, 0x1e5ef, MN}, {0x1e5f0, 0x1e5f0, LO}, {0x1e5f1, 0x1e5fa, ND},
    {0x1e5ff, 0x1e5ff, PO}, {0x1e6c0, 0x1e6ff, CN}, {0x1f6d8, 0x1f6d8, CN}, {0x1f6dc, 0x1f6dc, SO},
    {0x1f774, 0x1f776, SO}, {0x1f777, 0x1f77a, CN}, {0x1f77b, 0x1f77f, SO}, {0x1f7d9, 0x1f7d9, SO},
    {0x1f8b2, 0x1f8bb, SO}, {0x1f8c0, 0x1f8c1, SO}, {0x1f8d0, 0x1f8d8, CN}, {0x1fa54, 0x1fa57, CN},
    {0x1fa75, 0x1fa77, SO}, {0x1fa87, 0x1fa89, SO}, {0x1fa8a, 0x1fa8a, CN}, {0x1fa8e, 0x1fa8e, CN},
    {0x1fa8f, 0x1fa8f, SO}, {0x1faad, 0x1faaf, SO}, {0x1fabb, 0x1fabf, SO}, {0x1fac6, 0x1fac6, SO},
    {0x1fac8, 0x1fac8, CN}, {0x1facd, 0x1facd, CN}, {0x1face, 0x1facf, SO}, {0x1fada, 0x1fadc, SO},
    {0x1fadf, 0x1fadf, SO}, {0x1fae8, 0x1fae9, SO}, {0x1faea, 0x1faea, CN}, {0x1faef, 0x1faef, CN},
    {0x1faf7, 0x1faf8, SO}, {0x1fbcb, 0x1fbef, SO}, {0x1fbfa, 0x1fbfa, CN}, {0x2b739, 0x2b739, LO},
    {0x2b73a, 0x2b73f, CN}, {0x2ebf0, 0x2ee5d, LO}, {0x31350, 0x323af, LO}, {0x323b0, 0x33479, CN},
};

/* One of each kind that every PCRE2 knows, of three and of four bytes. */
static const int32_t known[][2] = {
    [LU] = {0xa640, 0x10400}, [LL] = {0xa641, 0x10428}, [LM] = {0x3005, 0x16b40}, [LO] = {0x4e00, 0x20000},
    [MN] = {0x302a, 0x1d167}, [MC] = {0x903, 0x1d165},  [ND] = {0x966, 0x1d7ce},  [NO] = {0x2070, 0x10107},
    [PD] = {0x2010, 0x10ead}, [PO] = {0x2020, 0x10100}, [SM] = {0x2200, 0x1d6c1}, [SO] = {0x2300, 0x1f600},
    [CF] = {0x200b, 0xe0001}, [CN] = {0xfdd0, 0x1fffe},
};

/* Lower case of Unicode 16 and 17. */
static const struct lower { int32_t lo, hi, to; } lower_after_15[] = {
    {0x1c89, 0x1c89, 0x1c8a}, {0xa7cb, 0xa7cb, 0x264}, {0xa7cc, 0xa7cc, 0xa7cd}, {0xa7ce, 0xa7ce, 0xa7cf},
    {0xa7d2, 0xa7d2, 0xa7d3}, {0xa7d4, 0xa7d4, 0xa7d5}, {0xa7da, 0xa7da, 0xa7db}, {0xa7dc, 0xa7dc, 0x19b},
    {0x10d50, 0x10d65, 0x10d70}, {0x16ea0, 0x16eb8, 0x16ebb},
};

/* Marks of Unicode 16 and 17 that continue a grapheme cluster. Longer ones cannot matter: see ay_charsmap_run. */
static const range extend_after_15[] = {{0x897, 0x897}, {0x1acf, 0x1add}, {0x1ae0, 0x1aeb}};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool in_ranges(const range *r, size_t n, int32_t c) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > r[mid].hi) lo = mid + 1;
        else hi = mid;
    }
    return lo < n && c >= r[lo].lo;
}

ptrdiff_t ay_utf8_check(const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        if ((uint8_t)s[i] < 0x80) {
            i++;
            continue;
        }
        int32_t c;
        ptrdiff_t k = utf8proc_iterate((const uint8_t *)s + i, (ptrdiff_t)(n - i), &c);
        if (k <= 0) return (ptrdiff_t)i;
        i += (size_t)k;
    }
    return -1;
}

int32_t ay_utf8_next(const char *s, size_t n, size_t *at) {
    const uint8_t *p = (const uint8_t *)s + *at;
    size_t left = n - *at;
    if (p[0] < 0x80 || left < 2) return ++*at, p[0];
    if (p[0] < 0xe0 || left < 3) return *at += 2, (p[0] & 0x1f) << 6 | (p[1] & 0x3f);
    if (p[0] < 0xf0 || left < 4) return *at += 3, (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f);
    *at += 4;
    return (p[0] & 0x07) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}

size_t ay_utf8_put(int32_t c, char *out) { return (size_t)utf8proc_encode_char(c, (uint8_t *)out); }

bool ay_is_space(int32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

bool ay_is_word(int32_t c) {
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC: return true;
    default: return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9);
    }
}

static bool is_ascii(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] >= 0x80) return false;
    return true;
}

/* The normal form of a stretch without code points of after_9. */
static bool normal_stretch(ay_form form, const char *s, size_t n, ay_buf *out) {
    if (is_ascii(s, n)) {
        ay_buf_add(out, s, n);
        return !out->failed;
    }
    int options = UTF8PROC_STABLE | (form == AY_NFC || form == AY_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                  (form == AY_NFKC || form == AY_NFKD ? UTF8PROC_COMPAT : 0);
    uint8_t *normal = NULL;
    ptrdiff_t k = utf8proc_map((const uint8_t *)s, (ptrdiff_t)n, &normal, (utf8proc_option_t)options);
    if (k < 0) return false;
    ay_buf_add(out, normal, (size_t)k);
    free(normal);
    return !out->failed;
}

bool ay_normal_form(ay_form form, const char *s, size_t n, ay_buf *out) {
    size_t begin = 0;
    for (size_t i = 0; i < n;) {
        size_t at = i;
        int32_t c = ay_utf8_next(s, n, &i);
        if (c < after_9[0].lo || !in_ranges(after_9, COUNT(after_9), c)) continue;
        if (!normal_stretch(form, s + begin, at - begin, out)) return false;
        ay_buf_add(out, s + at, i - at); /* nothing moves past it and nothing joins it */
        begin = i;
    }
    return normal_stretch(form, s + begin, n - begin, out);
}

void ay_lowercase(const char *s, size_t n, ay_buf *out) {
    for (size_t i = 0; i < n;) {
        char to[8];
        int32_t c = ay_utf8_next(s, n, &i);
        if (c < 0x80) {
            to[0] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            ay_buf_add(out, to, 1);
        } else if (c == 0x130) ay_buf_add(out, "i\xcc\x87", 3); /* the one lower case that is two code points */
        else {
            int32_t low = utf8proc_tolower(c);
            for (size_t k = 0; k < COUNT(lower_after_15); k++) {
                const struct lower *r = &lower_after_15[k];
                if (c >= r->lo && c <= r->hi) low = r->to + (c - r->lo);
            }
            ay_buf_add(out, to, ay_utf8_put(low, to));
        }
    }
}

static bool joins_after_15(int32_t c, int32_t d) {
    if (!in_ranges(extend_after_15, COUNT(extend_after_15), d)) return false;
    int kind = utf8proc_get_property(c)->boundclass;
    return kind != UTF8PROC_BOUNDCLASS_CR && kind != UTF8PROC_BOUNDCLASS_LF && kind != UTF8PROC_BOUNDCLASS_CONTROL;
}

size_t ay_grapheme_end(const char *s, size_t n, size_t at) {
    int32_t state = 0;
    int32_t c = ay_utf8_next(s, n, &at);
    while (at < n) {
        size_t next = at;
        int32_t d = ay_utf8_next(s, n, &next);
        if (c < 0x300 && d < 0x300 && !(c == '\r' && d == '\n')) return at; /* the usual case: nothing here joins */
        if (utf8proc_grapheme_break_stateful(c, d, &state) && !joins_after_15(c, d)) return at;
        c = d;
        at = next;
    }
    return n;
}

static const struct kind *kind_of(int32_t c) {
    size_t lo = 0, hi = COUNT(after_14);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > after_14[mid].hi) lo = mid + 1;
        else hi = mid;
    }
    return lo < COUNT(after_14) && c >= after_14[lo].lo ? &after_14[lo] : NULL;
}

const char *ay_known_kinds(const char *s, size_t n, ay_scratch *copy) {
    char *p = NULL;
    for (size_t i = 0; i < n;) {
        size_t at = i;
        if ((uint8_t)s[i] < 0xe0) { /* all of them take three or four bytes */
            i++;
            continue;
        }
        const struct kind *k = kind_of(ay_utf8_next(s, n, &i));
        if (!k) continue;
        if (!p) {
            p = ay_scratch_get(copy, n);
            if (!p) return NULL;
            memcpy(p, s, n);
        }
        char to[4];
        memcpy(p + at, to, ay_utf8_put(known[k->kind][i - at == 4], to)); /* the length stays */
    }
    return p ? p : s;
}
