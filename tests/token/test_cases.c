/* SPDX-License-Identifier: MIT
 *
 * Small matters, each a line of tests/golden/token_cases.json: a folder of tests/data/tokenizers with some files changed, a
 * text, and the ids and mask that transformers gives (tests/reference/tokens.py cases).
 */
#include "token/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[AY_TF_COUNT] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                               "tokenizer.json", "spiece.model", "vocab.json", "merges.txt"};

static bool same(const json_t *want, const int32_t *v, int n) {
    if ((int)json_array_size(want) != n) return false;
    for (int i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, (size_t)i)) != v[i]) return false;
    return true;
}

static void one(ay_ctx *cx, const json_t *c, size_t number) {
    ay_buf b[AY_TF_COUNT] = {0};
    ay_token_file f[AY_TF_COUNT];
    const char *folder = json_string_value(json_object_get(c, "folder"));
    const json_t *text = json_object_get(c, "text");
    for (int i = 0; i < AY_TF_COUNT; i++) {
        char path[256];
        const json_t *other = json_object_get(json_object_get(c, "files"), names[i]);
        snprintf(path, sizeof path, "tests/data/tokenizers/%s/%s", folder ? folder : "-", names[i]);
        if (!other && ay_path_kind_of(path) == AY_PATH_FILE) assert_int_equal(ay_file_read(cx, path, 1 << 20, &b[i]),
                                                                              ALLOY_OK);
        f[i] = (ay_token_file){names[i], other ? json_string_value(other) : b[i].data,
                               other ? json_string_length(other) : b[i].len};
    }
    ay_tokenizer *t;
    int32_t *ids, *mask;
    int n;
    int length = (int)json_integer_value(json_object_get(c, "max_length"));
    ay_encode_options o = {json_is_true(json_object_get(c, "special")), length, json_is_true(json_object_get(c, "pad"))};
    if (ay_tokenizer_open_files(cx, folder ? folder : "-", f, &t) != ALLOY_OK) fail_msg("case %zu: %s", number,
                                                                                        ay_error_text(cx));
    if (ay_tokenizer_encode(cx, t, json_string_value(text), json_string_length(text), &o, &ids, &mask, &n) != ALLOY_OK)
        fail_msg("case %zu: %s", number, ay_error_text(cx));
    if (!same(json_object_get(c, "ids"), ids, n) || !same(json_object_get(c, "mask"), mask, n)) {
        char *want = json_dumps(json_object_get(c, "ids"), 0), *said = json_dumps(text, JSON_ENCODE_ANY);
        print_message("case %zu, %s, %s: %s was expected; found", number, folder ? folder : "-", said, want);
        for (int i = 0; i < n; i++) print_message(" %d%s", ids[i], mask[i] ? "" : "p");
        print_message("\n");
        free(want);
        free(said);
        fail();
    }
    free(ids);
    free(mask);
    ay_tokenizer_close(&t);
    for (int i = 0; i < AY_TF_COUNT; i++) ay_buf_free(&b[i]);
}

static void cases(void **state) {
    ay_ctx *cx = NULL;
    json_t *all = NULL;
    assert_int_equal(ay_ctx_open(1, &cx), ALLOY_OK);
    assert_int_equal(ay_json_read(cx, "tests/golden/token_cases.json", &all), ALLOY_OK);
    assert_true(json_array_size(all) > 40);
    for (size_t i = 0; i < json_array_size(all); i++) one(cx, json_array_get(all, i), i);
    json_decref(all);
    ay_ctx_close(&cx);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
