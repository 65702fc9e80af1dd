/* SPDX-License-Identifier: MIT
 *
 * SentencePiece's precompiled_charsmap, decoded and applied as Hugging Face's tokenizers apply it:
 *
 *     uint32 trie_bytes | trie: uint32 units[trie_bytes / 4] | replacements, UTF-8, each ended by NUL
 *
 * The trie is a Darts double array (https://github.com/s-yata/darts-clone, include/darts.h): a unit holds a label, an offset
 * to its children (shifted by 8 if bit 9 is set) and a leaf flag; the child under NUL holds the place of the replacement.
 * What is looked up is a whole grapheme cluster shorter than six bytes, and the *shortest* entry that begins it replaces
 * all of it; otherwise each code point is looked up alone. (spm_precompiled, src/lib.rs, which says itself that it is odd.)
 */
#include "token/tok.h"

#include <string.h>

struct ay_charsmap {
    const char *what;
    uint32_t *unit;
    size_t units;
    const char *text;
    size_t bytes;
};

enum { MAX_CHARSMAP = 64 << 20, CLUSTER_BYTES = 6 };

static uint32_t u32_le(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

alloy_status ay_charsmap_new(ay_load *ld, const void *bytes, size_t n, ay_charsmap **out) {
    const uint8_t *p = bytes;
    *out = NULL;
    if (n > MAX_CHARSMAP)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: a charsmap of %zu bytes; at most %d were expected", ld->what, n,
                       MAX_CHARSMAP);
    size_t trie = n >= 4 ? u32_le(p) : 0;
    if (n < 8 || trie < 4 || trie % 4 != 0 || trie > n - 4)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the precompiled_charsmap has %zu bytes and says that %zu of them are "
                       "its trie; a multiple of 4 that fits was expected", ld->what, n, trie);
    ay_charsmap *map = ay_alloc(ld->arena, sizeof *map);
    if (!map) return ay_nomem(ld->cx);
    map->what = ay_strdup(ld->arena, ld->what);
    map->units = trie / 4;
    map->unit = ay_alloc(ld->arena, trie);
    map->bytes = n - 4 - trie;
    map->text = ay_strndup(ld->arena, (const char *)p + 4 + trie, map->bytes);
    if (!map->what || !map->unit || !map->text) return ay_nomem(ld->cx);
    for (size_t i = 0; i < map->units; i++) map->unit[i] = u32_le(p + 4 + 4 * i);
    ptrdiff_t bad = ay_utf8_check(map->text, map->bytes);
    if (bad >= 0)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the precompiled_charsmap's replacements are not UTF-8 at byte %td",
                       ld->what, bad);
    *out = map;
    return ALLOY_OK;
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

alloy_status ay_charsmap_base64(ay_load *ld, const char *text, size_t n, ay_charsmap **out) {
    *out = NULL;
    size_t end = n;
    while (end > 0 && n - end < 2 && text[end - 1] == '=') end--;
    ay_buf b = {0};
    uint32_t word = 0;
    bool bad = n % 4 != 0 || n / 4 * 3 > MAX_CHARSMAP;
    for (size_t i = 0; i < end && !bad; i++) {
        int d = base64_digit(text[i]);
        bad = d < 0;
        word = word << 6 | (uint32_t)(d & 63);
        if (i % 4 == 3 || i + 1 == end) {
            size_t digits = i % 4 + 1;
            word <<= 6 * (4 - digits);
            uint8_t three[3] = {(uint8_t)(word >> 16), (uint8_t)(word >> 8), (uint8_t)word};
            ay_buf_add(&b, three, digits - 1);
            word = 0;
        }
    }
    alloy_status st;
    if (bad) st = ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the precompiled_charsmap is not base64", ld->what);
    else if (b.failed) st = ay_nomem(ld->cx);
    else st = ay_charsmap_new(ld, b.data, b.len, out);
    ay_buf_free(&b);
    return st;
}

/* The place of the replacement for the shortest entry that begins s; -1: none; -2: the trie points outside itself. */
static ptrdiff_t look_up(const ay_charsmap *map, const char *s, size_t n) {
    size_t at = 0;
    uint32_t u = map->unit[0];
    at ^= (size_t)(u >> 10) << ((u & 0x200) >> 6);
    for (size_t i = 0; i < n && s[i]; i++) {
        at ^= (uint8_t)s[i];
        if (at >= map->units) return -2;
        u = map->unit[at];
        if ((u & 0x800000ffu) != (uint8_t)s[i]) return -1;
        at ^= (size_t)(u >> 10) << ((u & 0x200) >> 6);
        if (u >> 8 & 1) return at < map->units ? (ptrdiff_t)(map->unit[at] & 0x7fffffffu) : -2;
    }
    return -1;
}

/* 1: replaced; 0: not in the map; -1: the map is broken. */
static int replace(const ay_charsmap *map, const char *s, size_t n, ay_buf *out) {
    ptrdiff_t at = look_up(map, s, n);
    if (at == -1) return 0;
    if (at < 0 || (size_t)at > map->bytes || ((uint8_t)map->text[at] & 0xc0) == 0x80) return -1;
    const char *end = memchr(map->text + at, 0, map->bytes - (size_t)at);
    ay_buf_add(out, map->text + at, end ? (size_t)(end - (map->text + at)) : map->bytes - (size_t)at);
    return 1;
}

alloy_status ay_charsmap_run(ay_ctx *cx, const ay_charsmap *map, const char *s, size_t n, ay_buf *out) {
    for (size_t i = 0, end; i < n; i = end) {
        end = ay_grapheme_end(s, n, i);
        int done = end - i < CLUSTER_BYTES ? replace(map, s + i, end - i, out) : 0;
        for (size_t k = i, next; done == 0 && k < end; k = next) {
            next = k;
            ay_utf8_next(s, n, &next);
            int one = replace(map, s + k, next - k, out);
            if (one == 0) ay_buf_add(out, s + k, next - k);
            if (one < 0) done = -1;
        }
        if (done < 0)
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: the precompiled_charsmap is damaged: its trie points outside of "
                           "itself; take the file from the model's source again", map->what);
    }
    return out->failed ? ay_nomem(cx) : ALLOY_OK;
}
