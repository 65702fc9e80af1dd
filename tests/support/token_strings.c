/* SPDX-License-Identifier: MIT
 *
 * The generator of token_strings.h. Every line has its twin in tests/reference/tokens.py: change both or neither.
 */
#include "token_strings.h"

#include "base/fs.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS, CONTRACTIONS, EMOJI, SPECIAL, CASE, SPACE, ODD, MARKS, DIGITS, BLOCKS, LISTS, MAX_ATOMS = 512 };
static const char *const names[LISTS] = {"words", "contractions", "emoji", "special", "case",
                                         "space", "odd", "marks", "digits", "blocks"};
typedef struct atom { const char *s; size_t n; uint32_t lo, hi; } atom;

struct token_strings {
    ay_arena *arena;
    atom list[LISTS][MAX_ATOMS];
    int n[LISTS];
    ay_buf out;
    uint64_t state;
};

uint64_t token_hash(uint64_t h, const void *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3u;
    return h;
}

static void put_char(ay_buf *b, uint32_t c) {
    char s[4];
    size_t n = 0;
    if (c < 0x80) s[n++] = (char)c;
    else if (c < 0x800) s[n++] = (char)(0xc0 | c >> 6), s[n++] = (char)(0x80 | (c & 63));
    else if (c < 0x10000) {
        s[n++] = (char)(0xe0 | c >> 12);
        s[n++] = (char)(0x80 | (c >> 6 & 63));
        s[n++] = (char)(0x80 | (c & 63));
    } else {
        s[n++] = (char)(0xf0 | c >> 18);
        s[n++] = (char)(0x80 | (c >> 12 & 63));
        s[n++] = (char)(0x80 | (c >> 6 & 63));
        s[n++] = (char)(0x80 | (c & 63));
    }
    ay_buf_add(b, s, n);
}

static void read_line(token_strings *ts, int list, const char *line, size_t n) {
    atom *a = &ts->list[list][ts->n[list]++];
    if (list >= MARKS) {
        char *end;
        a->lo = (uint32_t)strtoul(line, &end, 16);
        a->hi = (uint32_t)strtoul(end, NULL, 16);
        return;
    }
    ay_buf b = {0};
    for (size_t i = 0; i < n;) {
        if (line[i] == '\\' && i + 1 < n && line[i + 1] == 'x') {
            char *end;
            put_char(&b, (uint32_t)strtoul(line + i + 2, &end, 16));
            i = (size_t)(end - line) + 1;
        } else ay_buf_add(&b, line + i++, 1);
    }
    a->s = ay_strndup(ts->arena, b.data, b.len);
    a->n = b.len;
    ay_buf_free(&b);
}

token_strings *token_strings_open(const char *path) {
    ay_ctx *cx = NULL;
    ay_buf text = {0};
    if (ay_ctx_open(1, &cx) != ALLOY_OK) return NULL;
    alloy_status st = ay_file_read(cx, path, 1 << 20, &text);
    ay_ctx_close(&cx);
    token_strings *ts = st == ALLOY_OK ? calloc(1, sizeof *ts) : NULL;
    if (!ts) return ay_buf_free(&text), NULL;
    ts->arena = ay_arena_new();
    int list = -1;
    for (char *line = text.data, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        size_t n = (size_t)(end - line);
        if (list < 0 && *line == '#') continue;
        bool heading = false;
        for (int k = 0; k < LISTS && *line == '['; k++)
            if (n == strlen(names[k]) + 2 && strncmp(line + 1, names[k], n - 2) == 0) list = k, heading = true;
        if (!heading && list >= 0 && ts->n[list] < MAX_ATOMS) read_line(ts, list, line, n);
    }
    ay_buf_free(&text);
    return ts;
}

void token_strings_close(token_strings *ts) {
    if (!ts) return;
    ay_arena_free(ts->arena);
    ay_buf_free(&ts->out);
    free(ts);
}

static uint32_t below(token_strings *ts, uint32_t n) { /* splitmix64 */
    uint64_t z = ts->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32) % n;
}

static void put_code(token_strings *ts, uint32_t c) { put_char(&ts->out, c >= 0xd800 && c < 0xe000 ? 0x20 : c); }
static void put_atom(token_strings *ts, int list) {
    const atom *a = &ts->list[list][below(ts, (uint32_t)ts->n[list])];
    ay_buf_add(&ts->out, a->s, a->n);
}
static void put_of(token_strings *ts, const atom *a) { put_code(ts, a->lo + below(ts, a->hi - a->lo + 1)); }
static void put_range(token_strings *ts, int list) { put_of(ts, &ts->list[list][below(ts, (uint32_t)ts->n[list])]); }
static void put_space(token_strings *ts, uint32_t odds) {
    if (below(ts, odds) == 0) put_code(ts, 0x20);
}

static void put_any(token_strings *ts) {
    switch (below(ts, 10)) {
    case 0: put_atom(ts, CONTRACTIONS); break;
    case 1: put_atom(ts, EMOJI); break;
    case 2: put_atom(ts, SPECIAL); break;
    case 3: put_atom(ts, CASE); break;
    case 4: put_atom(ts, SPACE); break;
    case 5: put_atom(ts, ODD); break;
    case 6: put_range(ts, MARKS); break;
    case 7: put_range(ts, DIGITS); break;
    case 8: put_range(ts, BLOCKS); break;
    default: put_atom(ts, WORDS); break;
    }
}

static void put_one(token_strings *ts, int kind, const atom *block) {
    switch (kind) {
    case 0: put_atom(ts, WORDS), put_code(ts, 0x20); break;
    case 1: put_of(ts, block); break;
    case 2: put_range(ts, BLOCKS), put_space(ts, 4); break;
    case 3: put_atom(ts, EMOJI), put_space(ts, 3); break;
    case 4: put_code(ts, 0x61 + below(ts, 26)), put_range(ts, MARKS), put_space(ts, 6); break;
    case 5: put_atom(ts, SPACE), put_atom(ts, WORDS); break;
    case 6: put_atom(ts, SPECIAL), put_space(ts, 2); break;
    case 7: put_code(ts, below(ts, 0x110000)); break;
    case 8: put_atom(ts, CASE), put_space(ts, 2); break;
    case 9: put_code(ts, 0x3040 + below(ts, 0x6fc0)); break;
    case 10: put_range(ts, DIGITS), put_space(ts, 5); break;
    case 11: put_atom(ts, SPACE), put_atom(ts, CONTRACTIONS), put_atom(ts, WORDS); break;
    case 12: put_atom(ts, ODD), put_code(ts, 0xe000 + below(ts, 0x1900)); break;
    case 13: put_of(ts, block), put_range(ts, MARKS); break;
    case 14: put_code(ts, 0x20 + below(ts, 95)); break;
    default: put_any(ts); break;
    }
}

const char *token_string(token_strings *ts, int i, size_t *len) {
    ts->out.len = 0;
    ts->state = (uint64_t)i * 0x2545f4914f6cdd1du + 1;
    int kind = i % 16;
    const atom *block = &ts->list[BLOCKS][i / 16 % ts->n[BLOCKS]];
    if (i == 0) goto done; /* the empty string */
    uint32_t count = i < TOKEN_STRINGS - 32 ? 1 + below(ts, 24) : 10000; /* the last are long */
    if (i >= TOKEN_STRINGS - 16) { /* and some of those repeat one thing */
        put_one(ts, kind, block);
        size_t n = ts->out.len;
        for (uint32_t k = 1; k < 4000; k++) {
            char copy[256];
            memcpy(copy, ts->out.data, n);
            ay_buf_add(&ts->out, copy, n);
        }
        goto done;
    }
    if (below(ts, 8) == 0) put_atom(ts, SPACE);
    for (uint32_t k = 0; k < count; k++) put_one(ts, kind, block);
done:
    ay_buf_add(&ts->out, "", 0);
    *len = ts->out.len;
    return ts->out.data;
}
