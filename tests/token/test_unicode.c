/* SPDX-License-Identifier: MIT
 *
 * Every code point as Hugging Face's tokenizers see it: normal forms (alone and between marks, which shows its combining
 * class), lower case, and its kind in regular expressions. tests/reference/tokens.py unicode made the hashes.
 */
#include "../support/token_strings.h"
#include "token/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PATTERNS = 8 };
static const char *const patterns[PATTERNS] = {"\\p{L}+", "\\p{N}+", "\\s+", "\\p{Lu}+", "\\p{Ll}+", "\\p{M}+", "\\p{P}+",
                                               "\\p{S}+"};

typedef struct rest { const char *s; uint64_t h; } rest;
static bool hash_rest(void *user, size_t begin, size_t end, bool match) {
    rest *r = user;
    if (!match) r->h = token_hash(r->h, r->s + begin, end - begin);
    return true;
}

static uint64_t hash_forms(const ay_buf *text, uint64_t h) {
    ay_buf b = {0};
    for (int form = 0; form < 5; form++) {
        b.len = 0;
        if (form < 4) assert_true(ay_normal_form((ay_form)form, text->data, text->len, &b));
        else ay_lowercase(text->data, text->len, &b);
        h = token_hash(h, b.data, b.len);
    }
    ay_buf_free(&b);
    return h;
}

/* Normal forms and lower case of each code point alone and between marks, and what is left without each kind. */
static uint64_t hash_block(ay_ctx *cx, ay_regex *const re[PATTERNS], int32_t base) {
    ay_buf alone = {0}, marked = {0}, all = {0}, dense = {0};
    for (int32_t c = base; c < base + 0x400; c++) {
        char s[4];
        if (c >= 0xd800 && c < 0xe000) continue;
        size_t n = ay_utf8_put(c, s);
        ay_buf_add(&all, s, n);
        ay_buf_add(&alone, s, n);
        ay_buf_add(&alone, "\n", 1);
        ay_buf_add(&marked, "a\xcc\x81", 3);
        ay_buf_add(&marked, s, n);
        ay_buf_add(&marked, "\xcc\xa3\n", 3);
        if (!ay_is_space(c)) ay_buf_add(&dense, s, n);
    }
    rest r = {all.data, hash_forms(&marked, hash_forms(&alone, TOKEN_HASH))};
    for (int i = 0; i < PATTERNS; i++)
        assert_int_equal(ay_regex_parts(cx, re[i], all.data, all.len, hash_rest, &r), ALLOY_OK);
    uint64_t h = token_hash(r.h, dense.data, dense.len);
    ay_buf_free(&alone);
    ay_buf_free(&marked);
    ay_buf_free(&all);
    ay_buf_free(&dense);
    return h;
}

static void every_code_point(void **state) {
    ay_ctx *cx = NULL;
    ay_buf gold = {0};
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    assert_int_equal(ay_file_read(cx, "tests/golden/unicode.bin", 1 << 20, &gold), ALLOY_OK);
    assert_int_equal(gold.len, 8 * 0x110000 / 0x400);
    ay_load ld = {cx, "test", ay_arena_new()};
    ay_regex *re[PATTERNS];
    for (int i = 0; i < PATTERNS; i++) assert_int_equal(ay_regex_new(&ld, patterns[i], &re[i]), ALLOY_OK);
    int wrong = 0;
    for (int32_t base = 0; base < 0x110000; base += 0x400) {
        uint64_t h = hash_block(cx, re, base), want;
        memcpy(&want, gold.data + base / 0x400 * 8, 8);
        if (h != want) print_message("U+%04X to U+%04X differ\n", (unsigned)base, (unsigned)base + 0x3ff), wrong++;
    }
    assert_int_equal(wrong, 0);
    ay_arena_free(ld.arena);
    ay_buf_free(&gold);
    ay_ctx_close(&cx);
}

static void utf8(void **state) {
    static const struct { const char *s; size_t n; ptrdiff_t bad; } rows[] = {
        {"", 0, -1}, {"a\0b", 3, -1}, {"\xf4\x8f\xbf\xbf", 4, -1}, {"\xed\x9f\xbf\xee\x80\x80", 6, -1},
        {"ab\x80", 3, 2}, {"a\xc3", 2, 1}, {"\xe2\x82", 2, 0}, {"\xf0\x9f\x98", 3, 0}, {"\xc0\x80", 2, 0}, {"\xe0\x80\x80",
                                                                                                            3, 0},
        {"\xed\xa0\x80", 3, 0}, {"\xf4\x90\x80\x80", 4, 0}, {"x\xff", 2, 1}, {"\xf8\x88\x80\x80\x80", 5, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) assert_int_equal(ay_utf8_check(rows[i].s, rows[i].n),
                                                                             rows[i].bad);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_code_point), cmocka_unit_test(utf8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
