/* SPDX-License-Identifier: MIT
 *
 * Ids against Hugging Face's, on every string of the generator: the small tokenizers of tests/data/tokenizers/ always, the
 * real vocabularies where ../shared/data/tokenizers has them. TOKEN_SHOW=n prints the ids of string n.
 */
#include "../support/token_strings.h"
#include "token/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/data/tokenizers/"
#define REAL "../shared/data/tokenizers/"

typedef struct row { const char *golden, *dir; int strings, vocab, pad, length; bool alone; } row;

/* vocab, pad (-1: none), length (0: not said) as transformers says them; alone: tokenizer.json without its configuration */
static const row small_rows[] = {
    {"small_clip", DATA "clip", 2048, 1062, 1061, 77, false},
    {"small_clip_pad", DATA "clip_pad", 2048, 1062, 0, 77, false},
    {"small_qwen", DATA "qwen", 2048, 857, 852, 0, false},
    {"small_bpe_file", DATA "bpe_file", 2048, 857, -1, 0, false},
    {"small_t5", DATA "t5", 2048, 364, 0, 512, false},
    {"small_spiece", DATA "spiece", 2048, 364, 0, 512, false},
    {"small_unigram_file", DATA "unigram_file", 2048, 364, -1, 0, false},
    {"small_mixed_bpe", DATA "mixed_bpe", 2048, 953, -1, 0, false},
    {"small_mixed_unigram", DATA "mixed_unigram", 2048, 620, -1, 0, false},
};
static const row real_rows[] = {
    {"clip", REAL "clip", TOKEN_STRINGS, 49408, 49407, 8192, false},
    {"t5", REAL "t5", TOKEN_STRINGS, 32100, 0, 512, false},
    {"t5_file", REAL "t5", TOKEN_STRINGS, 32100, -1, 0, true},
    {"qwen2.5", REAL "qwen2.5", TOKEN_STRINGS, 151669, 151643, 131072, false},
};

static alloy_status open_row(ay_ctx *cx, const row *r, ay_tokenizer **t) {
    if (!r->alone) return ay_tokenizer_open(cx, r->dir, t);
    char path[256];
    ay_buf b = {0};
    snprintf(path, sizeof path, "%s/tokenizer.json", r->dir);
    alloy_status st = ay_file_read(cx, path, 1 << 28, &b);
    ay_token_file file[AY_TF_COUNT] = {[AY_TF_CONFIG] = {.name = "none"}, [AY_TF_TOKENIZER] = {path, b.data, b.len}};
    if (st == ALLOY_OK) st = ay_tokenizer_open_files(cx, r->dir, file, t);
    ay_buf_free(&b);
    return st;
}

static void check_row(const row *r) {
    ay_ctx *cx = NULL;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    char path[256];
    snprintf(path, sizeof path, "tests/golden/tokens_%s.bin", r->golden);
    ay_buf gold = {0};
    assert_int_equal(ay_file_read(cx, path, 1 << 20, &gold), ALLOY_OK);
    ay_tokenizer *t = NULL;
    if (open_row(cx, r, &t) != ALLOY_OK) fail_msg("%s", ay_error_text(cx));
    assert_int_equal(ay_tokenizer_vocab(t), r->vocab);
    assert_int_equal(ay_tokenizer_pad_id(t), r->pad);
    assert_int_equal(ay_tokenizer_max_length(t), r->length);
    token_strings *ts = token_strings_open(DATA "atoms.txt");
    assert_non_null(ts);
    size_t padded = ay_tokenizer_pad_id(t) >= 0 ? (size_t)r->strings / 8 : 0;
    assert_int_equal(gold.len, 4 + 8 * (1 + (size_t)r->strings + padded));
    const uint64_t *want = (const uint64_t *)(void *)(gold.data + 4 + 8);
    uint64_t text_hash = TOKEN_HASH, all;
    memcpy(&all, gold.data + 4, 8);
    int wrong = 0, first = -1;
    const char *show = getenv("TOKEN_SHOW");
    for (int i = 0; i < r->strings; i++) {
        size_t n;
        const char *s = token_string(ts, i, &n);
        text_hash = token_hash(text_hash, s, n);
        for (int pad = 0; pad <= (padded && i % 8 == 0); pad++) {
            int32_t *ids, *mask;
            int count;
            ay_encode_options o = {true, pad ? 77 : INT32_MAX, pad};
            if (ay_tokenizer_encode(cx, t, s, n, &o, &ids, &mask, &count) != ALLOY_OK) fail_msg("string %d: %s", i,
                                                                                                ay_error_text(cx));
            int32_t k = count;
            uint64_t h = token_hash(token_hash(TOKEN_HASH, &k, 4), ids, 4 * (size_t)count), w;
            if (pad) h = token_hash(token_hash(h, &k, 4), mask, 4 * (size_t)count);
            memcpy(&w, want + (pad ? r->strings + i / 8 : i), 8);
            if (h != w && !wrong++) first = i;
            if (show && atoi(show) == i && !pad) {
                printf("%s %d:", r->golden, i);
                for (int j = 0; j < count && j < 60; j++) printf(" %d", ids[j]);
                printf("\n");
            }
            if (h != w && show && atoi(show) < 0) printf("%s differs at %d%s\n", r->golden, i, pad ? " (padded)" : "");
            free(ids);
            free(mask);
        }
    }
    if (text_hash != all) fail_msg("the generators made different strings: golden data and test do not belong together");
    if (wrong) fail_msg("%s: %d of %d strings have other ids than Hugging Face gives; the first is number %d", r->golden,
                        wrong, r->strings, first);
    token_strings_close(ts);
    ay_tokenizer_close(&t);
    ay_buf_free(&gold);
    ay_ctx_close(&cx);
}

static void small(void **state) {
    for (size_t i = 0; i < sizeof small_rows / sizeof *small_rows; i++) check_row(&small_rows[i]);
}

static void real(void **state) {
    if (ay_path_kind_of(REAL "t5/tokenizer.json") != AY_PATH_FILE) {
        printf("skipped: the real vocabularies are not in " REAL "\n");
        skip();
    }
    for (size_t i = 0; i < sizeof real_rows / sizeof *real_rows; i++) check_row(&real_rows[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(small), cmocka_unit_test(real)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
