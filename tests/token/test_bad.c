/* SPDX-License-Identifier: MIT
 *
 * Tokenizer files that are not what they should be: each gives its status and one sentence that names the file and what is
 * wrong. Files come from a small tokenizer, one of them replaced. The end cuts every file of every tokenizer short and turns
 * bytes over, which may give anything but a crash (the sanitizers watch).
 */
#include "token/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DATA "tests/data/tokenizers/"
static const char *const names[AY_TF_COUNT] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                               "tokenizer.json", "spiece.model", "vocab.json", "merges.txt"};

typedef struct folder { ay_buf b[AY_TF_COUNT]; ay_token_file f[AY_TF_COUNT]; } folder;

static void load(ay_ctx *cx, const char *dir, folder *d) {
    *d = (folder){0};
    for (int i = 0; i < AY_TF_COUNT; i++) {
        char path[256];
        snprintf(path, sizeof path, DATA "%s/%s", dir, names[i]);
        d->f[i].name = names[i];
        if (ay_path_kind_of(path) != AY_PATH_FILE) continue;
        assert_int_equal(ay_file_read(cx, path, 1 << 20, &d->b[i]), ALLOY_OK);
        d->f[i].data = d->b[i].data;
        d->f[i].size = d->b[i].len;
    }
}

static void unload(folder *d) {
    for (int i = 0; i < AY_TF_COUNT; i++) ay_buf_free(&d->b[i]);
}

static alloy_status encode(ay_ctx *cx, const ay_tokenizer *t, const char *s, size_t n, ay_encode_options o, int *count) {
    int32_t *ids = NULL, *mask = NULL;
    alloy_status st = ay_tokenizer_encode(cx, t, s, n, &o, &ids, &mask, count);
    assert_true(st == ALLOY_OK ? ids != NULL && mask != NULL : ids == NULL && mask == NULL && *count == 0);
    free(ids);
    free(mask);
    return st;
}

typedef struct row { const char *dir; ay_token_kind kind; const char *text; alloy_status want; const char *says; } row;

#define UNI(body) "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"<unk>\",0],[\"a\",-1]]}," body "}"
#define BPE(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"
#define TEN(s) s s s s s s s s s s

static const row rows[] = {
    {"clip", AY_TF_VOCAB, "", ALLOY_E_FORMAT, "vocab.json"},
    {"clip", AY_TF_VOCAB, "{\"a\":0", ALLOY_E_FORMAT, "not valid JSON"},
    {"clip", AY_TF_VOCAB, "[\"a\"]", ALLOY_E_FORMAT, "not an object of token: id"},
    {"clip", AY_TF_VOCAB, "{\"a\":\"0\"}", ALLOY_E_FORMAT, "\"a\" has no id"},
    {"clip", AY_TF_VOCAB, "{\"a\":-1}", ALLOY_E_FORMAT, "has no id from 0"},
    {"clip", AY_TF_VOCAB, "{\"a\":4294967296}", ALLOY_E_FORMAT, "has no id from 0"},
    {"clip", AY_TF_VOCAB, "{\"a\":1.5}", ALLOY_E_FORMAT, "has no id from 0"},
    {"clip", AY_TF_VOCAB, "{\"a\":0}", ALLOY_E_MISMATCH, "merge 1 needs the token"},
    {"clip", AY_TF_MERGES, "a\n", ALLOY_E_FORMAT, "merge 1 is \"a\""},
    {"clip", AY_TF_MERGES, "#version: 0.2\na b c\n", ALLOY_E_FORMAT, "one space between"},
    {"clip", AY_TF_MERGES, "#version: 0.2\ni n\n\n", ALLOY_E_FORMAT, "merge 2 is \"\""},
    {"clip", AY_TF_MERGES, "zz a\n", ALLOY_E_MISMATCH, "\"zz\", which the vocabulary does not have"},
    {"clip", AY_TF_MERGES, "a zz\n", ALLOY_E_MISMATCH, "\"zz\", which the vocabulary does not have"},
    {"clip", AY_TF_MERGES, "Q Z\n", ALLOY_E_MISMATCH, "\"QZ\", which the vocabulary does not have"},
    {"clip", AY_TF_MERGES, "\xff a\n", ALLOY_E_FORMAT, "not UTF-8 at byte 0"},
    {"clip", AY_TF_CONFIG, "[]", ALLOY_E_FORMAT, "not a JSON object"},
    {"clip", AY_TF_CONFIG, "{\"tokenizer_class\":\"BertTokenizer\"}", ALLOY_E_UNSUPPORTED, "\"BertTokenizer\" is not "
                                                                                           "known here (CLIP"},
    {"clip", AY_TF_CONFIG, "{\"tokenizer_class\":7}", ALLOY_E_MISMATCH, "tokenizer_class"},
    {"clip", AY_TF_CONFIG, "{\"tokenizer_class\":\"T5Tokenizer\"}", ALLOY_E_UNSUPPORTED, "vocab.json"},
    {"clip", AY_TF_CONFIG, "{\"unk_token\":\"nope\"}", ALLOY_E_MISMATCH, "unknown token \"nope\""},
    {"clip", AY_TF_CONFIG, "{\"model_max_length\":\"77\"}", ALLOY_E_MISMATCH, "model_max_length"},
    {"clip", AY_TF_CONFIG, "{\"padding_side\":\"up\"}", ALLOY_E_MISMATCH, "padding_side"},
    {"clip", AY_TF_CONFIG, "{\"added_tokens_decoder\":{\"x\":{\"content\":\"!\"}}}", ALLOY_E_FORMAT, "\"x\" has no id"},
    {"clip", AY_TF_CONFIG, "{\"added_tokens_decoder\":{\"1\":{\"lstrip\":true}}}", ALLOY_E_MISMATCH, "content"},
    {"clip", AY_TF_CONFIG, "{\"added_tokens_decoder\":{\"1\":{\"content\":\"!\",\"lstrip\":1}}}", ALLOY_E_MISMATCH,
     "lstrip"},
    {"clip", AY_TF_SPECIAL, "{\"bos_token\":3}", ALLOY_E_FORMAT, "content"},
    {"clip", AY_TF_SPECIAL, "{\"bos_token\":null}", ALLOY_E_MISMATCH, "needs the bos_token"},
    {"clip", AY_TF_ADDED, "{\"<new>\":\"x\"}", ALLOY_E_FORMAT, "\"<new>\" has no id"},
    {"t5", AY_TF_CONFIG, "{\"tokenizer_class\":\"CLIPTokenizer\"}", ALLOY_E_MISMATCH, "a CLIPTokenizer has a BPE model"},
    {"spiece", AY_TF_CONFIG, "{\"extra_ids\":-1}", ALLOY_E_MISMATCH, "extra_ids"},
    {"t5", AY_TF_TOKENIZER, "{}", ALLOY_E_MISMATCH, "tokenizer.json"},
    {"t5", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", ALLOY_E_FORMAT,
     "unknown token's id is 2"},
    {"unigram_file", AY_TF_TOKENIZER, TEN(TEN("[")) TEN(TEN("]")), ALLOY_E_FORMAT, "nested more than"},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", ALLOY_E_UNSUPPORTED,
     "\"WordPiece\""},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ALLOY_E_FORMAT,
     "vocabulary is empty"},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", ALLOY_E_FORMAT,
     "list of [piece, score]"},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[1,2]]}}", ALLOY_E_FORMAT, "piece 0"},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"unk_id\":9,\"vocab\":[[\"a\",2]]}}",
     ALLOY_E_FORMAT, "id is 9"},
    {"unigram_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"Unigram\",\"unk_id\":\"0\",\"vocab\":[[\"a\",2]]}}",
     ALLOY_E_MISMATCH, "unk_id"},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"normalizer\":{\"type\":\"Rot13\"}"), ALLOY_E_UNSUPPORTED,
     "normalizer \"Rot13\""},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"normalizer\":{}"), ALLOY_E_MISMATCH, "type"},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"normalizer\":{\"type\":\"Sequence\"}"), ALLOY_E_FORMAT, "normalizers"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"Regex\":\"(\"}}"),
     ALLOY_E_UNSUPPORTED, "regular expression ( cannot be used"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"Regex\":\"a*\"}}"),
     ALLOY_E_UNSUPPORTED, "matches nothing at all"},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"A?==\"}"),
     ALLOY_E_FORMAT,
     "not base64"},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":null}"),
     ALLOY_E_MISMATCH,
     "precompiled_charsmap"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"/////wAAAAA=\"}"),
     ALLOY_E_FORMAT, "says that 4294967295 of them"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAAAAAAD/\"}"),
     ALLOY_E_FORMAT, "replacements are not UTF-8 at byte 0"},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"pre_tokenizer\":{\"type\":\"Punctuation\"}"), ALLOY_E_UNSUPPORTED,
     "\"Punctuation\""},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"),
     ALLOY_E_FORMAT, "one character"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"last\"}"),
     ALLOY_E_UNSUPPORTED, "\"last\""},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}"),
     ALLOY_E_FORMAT, "add_prefix_space is false"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Shuffled\",\"pattern\":{\"String\":\"a\"}}"),
     ALLOY_E_UNSUPPORTED, "\"Shuffled\""},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"post_processor\":{\"type\":\"Sealing\"}"), ALLOY_E_UNSUPPORTED, "\"Sealing\""},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
     ALLOY_E_FORMAT, "single"},
    {"unigram_file", AY_TF_TOKENIZER,
     UNI("\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",-1],\"sep\":[\"a\",1]}"),
     ALLOY_E_FORMAT, "\"cls\""},
    {"unigram_file", AY_TF_TOKENIZER, UNI("\"added_tokens\":[{\"content\":\"x\"}]"), ALLOY_E_MISMATCH, "id"},
    {"bpe_file", AY_TF_TOKENIZER, BPE("{\"a\":0}", "[\"a\"]"), ALLOY_E_FORMAT, "merge 1 is \"a\""},
    {"bpe_file", AY_TF_TOKENIZER, BPE("{\"a\":0}", "[[\"a\"]]"), ALLOY_E_FORMAT, "merge 1 is not a pair"},
    {"bpe_file", AY_TF_TOKENIZER, BPE("{\"a\":0}", "[[\"a\",\"a\"]]"), ALLOY_E_MISMATCH, "\"aa\", which"},
    {"bpe_file", AY_TF_TOKENIZER, BPE("{\"a\":0}", "{}"), ALLOY_E_FORMAT, "\"merges\" is not a list"},
    {"bpe_file", AY_TF_TOKENIZER, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}",
     ALLOY_E_UNSUPPORTED, "byte_fallback"},
    {"spiece", AY_TF_SPIECE, "", ALLOY_E_FORMAT, "not a sentencepiece model"},
    {"spiece", AY_TF_SPIECE, "\x0a\x7f", ALLOY_E_FORMAT, "not a sentencepiece model"},
    {"spiece", AY_TF_SPIECE, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ALLOY_E_FORMAT, "not a sentencepiece model"},
    {"spiece", AY_TF_SPIECE, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ALLOY_E_FORMAT, "not a sentencepiece model"},
    {"spiece", AY_TF_SPIECE, "\x12\x02\x18\x02", ALLOY_E_UNSUPPORTED, "of type 2"},
    {"spiece", AY_TF_SPIECE, "\x0a\x08\x0a\x01" "a" "\x15\xff\xff\xff\x7f", ALLOY_E_FORMAT, "finite score"},
    {"spiece", AY_TF_SPIECE, "\x0a\x03\x0a\x01\xff", ALLOY_E_FORMAT, "piece 0 is not text"},
    {"spiece", AY_TF_SPIECE, "\x1a\x04\x12\x02\x61\x62", ALLOY_E_FORMAT, "charsmap"},
};

static void files(void **state) {
    ay_ctx *cx = NULL;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        folder d;
        load(cx, rows[i].dir, &d);
        d.f[rows[i].kind].data = rows[i].text;
        d.f[rows[i].kind].size = strlen(rows[i].text);
        ay_tokenizer *t = (ay_tokenizer *)&d; /* must become NULL */
        alloy_status st = ay_tokenizer_open_files(cx, "FOLDER", d.f, &t);
        if (st != rows[i].want || !strstr(ay_error_text(cx), rows[i].says) || t)
            fail_msg("%s with %s = %.60s: status %d, \"%s\"; expected %d, \"%s\"", rows[i].dir, names[rows[i].kind],
                     rows[i].text, st,
                     ay_error_text(cx), rows[i].want, rows[i].says);
        unload(&d);
    }
    ay_ctx_close(&cx);
}

static void folders(void **state) {
    ay_ctx *cx = NULL;
    ay_tokenizer *t;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    assert_int_equal(ay_tokenizer_open(cx, DATA "absent", &t), ALLOY_E_IO);
    assert_non_null(strstr(ay_error_text(cx), "absent: not a folder"));
    assert_int_equal(ay_tokenizer_open(cx, DATA "atoms.txt", &t), ALLOY_E_IO);
    assert_int_equal(ay_tokenizer_open(cx, "tests/golden", &t), ALLOY_E_IO);
    assert_non_null(strstr(ay_error_text(cx), "no tokenizer here"));
    folder d;
    load(cx, "clip", &d);
    d.f[AY_TF_MERGES].data = NULL;
    assert_int_equal(ay_tokenizer_open_files(cx, "FOLDER", d.f, &t), ALLOY_E_IO);
    assert_non_null(strstr(ay_error_text(cx), "without a merges.txt"));
    unload(&d);
    ay_ctx_close(&cx);
}

static ay_tokenizer *open_small(ay_ctx *cx, const char *dir) {
    char path[128];
    ay_tokenizer *t;
    snprintf(path, sizeof path, DATA "%s", dir);
    if (ay_tokenizer_open(cx, path, &t) != ALLOY_OK) fail_msg("%s", ay_error_text(cx));
    return t;
}

static void texts(void **state) {
    ay_ctx *cx = NULL;
    int n;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    ay_tokenizer *t = open_small(cx, "clip"), *bare = open_small(cx, "bpe_file");
    assert_int_equal(encode(cx, t, "ab\xff", 3, (ay_encode_options){.special = true}, &n), ALLOY_E_USAGE);
    assert_non_null(strstr(ay_error_text(cx), "not UTF-8: byte 0xff at position 2"));
    assert_int_equal(encode(cx, t, "a", 1, (ay_encode_options){.special = true, .max_length = 1}, &n), ALLOY_E_USAGE);
    assert_non_null(strstr(ay_error_text(cx), "special tokens alone need more"));
    assert_int_equal(encode(cx, t, "a", 1, (ay_encode_options){.max_length = -5}, &n), ALLOY_E_USAGE);
    assert_int_equal(encode(cx, t, "a", 1, (ay_encode_options){.max_length = INT32_MAX, .pad = true}, &n), ALLOY_E_USAGE);
    assert_int_equal(encode(cx, bare, "a", 1, (ay_encode_options){.max_length = 9, .pad = true}, &n), ALLOY_E_USAGE);
    assert_non_null(strstr(ay_error_text(cx), "no padding token"));
    static char big[(1 << 24) + 1];
    assert_int_equal(encode(cx, t, big, sizeof big, (ay_encode_options){.special = true}, &n), ALLOY_E_USAGE);
    assert_non_null(strstr(ay_error_text(cx), "at most"));
    assert_int_equal(encode(cx, t, "a fox", 5, (ay_encode_options){.special = true, .max_length = 2}, &n), ALLOY_OK);
    assert_int_equal(n, 2);
    assert_int_equal(encode(cx, t, "", 0, (ay_encode_options){.pad = true}, &n), ALLOY_OK);
    assert_int_equal(n, 77);
    atomic_store(&cx->stop, 1);
    assert_int_equal(encode(cx, t, "a fox", 5, (ay_encode_options){.special = true}, &n), ALLOY_E_CANCELLED);
    ay_tokenizer_close(&t);
    ay_tokenizer_close(&bare);
    ay_tokenizer_close(&bare);
    ay_ctx_close(&cx);
}

/* A pattern that would take for ever, and a charsmap whose trie points outside: known only when a text comes. */
static void late(void **state) {
    static const struct { const char *json, *text, *says; alloy_status want; } cases[] = {
        {UNI("\"normalizer\":{\"type\":\"Replace\",\"content\":\"x\",\"pattern\":{\"Regex\":\"(a+)+(a+)+(a+)+b\"}}"),
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacb", "gave up", ALLOY_E_UNSUPPORTED},
        {UNI("\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"BAAAAP////8AAAAA\"}"), "abc",
         "charsmap is damaged",
         ALLOY_E_FORMAT},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "ab", "no token for \"b\"", ALLOY_E_UNSUPPORTED},
    };
    ay_ctx *cx = NULL;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ay_token_file f[AY_TF_COUNT] = {[AY_TF_CONFIG] = {.name = "none"},
                                        [AY_TF_TOKENIZER] = {"tokenizer.json", cases[i].json, strlen(cases[i].json)}};
        ay_tokenizer *t;
        int n;
        if (ay_tokenizer_open_files(cx, "FOLDER", f, &t) != ALLOY_OK) fail_msg("%s", ay_error_text(cx));
        assert_int_equal(encode(cx, t, cases[i].text, strlen(cases[i].text), (ay_encode_options){0}, &n), cases[i].want);
        if (!strstr(ay_error_text(cx), cases[i].says)) fail_msg("case %zu: %s", i, ay_error_text(cx));
        ay_tokenizer_close(&t);
    }
    ay_ctx_close(&cx);
}

/* Every file cut short at 40 places and with single bytes turned over: opens or says why not, and then encodes or says. */
static void damaged(void **state) {
    static const char *const dirs[] = {"clip", "qwen", "spiece", "t5", "mixed_bpe", "mixed_unigram"};
    static const char text[] = "A fox's DEN, 12 ½ \xef\xac\x81 e\xcc\x81 <|endoftext|></s> \xf0\x9f\x98\x80";
    ay_ctx *cx = NULL;
    uint32_t seed = 1, opened = 0, refused = 0;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        folder d;
        load(cx, dirs[i], &d);
        for (int kind = 0; kind < AY_TF_COUNT; kind++)
            for (int k = 0; k < 80 && d.f[kind].data; k++) {
                char *copy = malloc(d.f[kind].size);
                assert_non_null(copy);
                memcpy(copy, d.f[kind].data, d.f[kind].size);
                ay_token_file f[AY_TF_COUNT];
                memcpy(f, d.f, sizeof f);
                seed = seed * 1664525 + 1013904223;
                size_t at = seed % f[kind].size;
                if (k % 2) f[kind].size = at;
                else copy[at] = (char)(copy[at] ^ 1 << (seed >> 29));
                f[kind].data = copy;
                ay_tokenizer *t;
                alloy_status st = ay_tokenizer_open_files(cx, "FOLDER", f, &t);
                int n;
                if (st == ALLOY_OK) encode(cx, t, text, sizeof text - 1, (ay_encode_options){.special = true,
                                                                                             .max_length = 40}, &n);
                st == ALLOY_OK ? opened++ : refused++;
                ay_tokenizer_close(&t);
                free(copy);
            }
        unload(&d);
    }
    assert_true(opened > 50 && refused > 300); /* both happen: the test reaches what it means to reach */
    ay_ctx_close(&cx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(files), cmocka_unit_test(folders), cmocka_unit_test(texts),
                                       cmocka_unit_test(late), cmocka_unit_test(damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
