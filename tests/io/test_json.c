/* SPDX-License-Identifier: MIT
 *
 * JSON: what is refused, with line and column, and the typed members.
 */
#include "../support/support.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

static void refused(ay_test *t, const char *text, size_t n, const char *part) {
    json_t *v = (json_t *)t;
    char *copy = malloc(n + 1); /* exactly as long as said */
    memcpy(copy, text, n);
    assert_fails(t->cx, ay_json_parse(t->cx, "m/config.json", copy, n, &v), ALLOY_E_FORMAT, part);
    assert_contains(ay_error_text(t->cx), "m/config.json: ");
    assert_null(v);
    free(copy);
}

static void test_refusals(void **state) {
    ay_test *t = *state;
#define REFUSED(text, part) refused(t, text, sizeof text - 1, part)
    REFUSED("", "empty");
    REFUSED("{\n  \"a\": 1,\n  \"b\" 2\n}", "line 3, column ");
    REFUSED("{\"a\": 1,\n \"\xc3\xa9\": x}", "line 2, column 7");
    REFUSED("{\"a\": 1, \"a\": 2}", "duplicate");
    REFUSED("{\"a\": 1} x", "line 1, column 10");
    REFUSED("{\"a\": \"\xff\"}", "byte 0xff");
    REFUSED("{\"a\": \"x\\u0000y\"}", "u0000");
    REFUSED("{\"a\": 1e999}", "real number overflow");
    REFUSED("{\"a\": 99999999999999999999}", "too big integer");
    REFUSED("{\"a\": \"no end", "line 1");
    REFUSED("{\"a\": NaN}", "line 1, column 9: not valid JSON: invalid token near 'NaN'");
    REFUSED("123", "line 1");
    REFUSED("\0\0\0", "line 1");
#undef REFUSED
}

/* Python's words for infinite numbers are read as null where they stand for numbers, and left alone in text. */
static void test_infinite(void **state) {
    ay_test *t = *state;
    static const char text[] = "{\"a\": -Infinity, \"b\": [Infinity,-Infinity], \"-Infinity\": \"\\\"Infinity\", \"c\": -1}";
    static const char *const bad[] = {"{\"a\": -Infinit", "{\"a\": Infinity", "{\"a\": -", "{\"a\": Infinite}"};
    const char *path = ay_test_path(t, "infinite.json");
    json_t *v;
    ay_test_write(t, path, text, sizeof text - 1);
    assert_ok(t->cx, ay_json_read(t->cx, path, &v));
    assert_true(json_is_null(json_object_get(v, "a")));
    assert_true(json_is_null(json_array_get(json_object_get(v, "b"), 1)));
    assert_string_equal(json_string_value(json_object_get(v, "-Infinity")), "\"Infinity");
    assert_int_equal(json_integer_value(json_object_get(v, "c")), -1);
    json_decref(v);
    for (int i = 0; i < 4; i++) {
        ay_test_write(t, path, bad[i], strlen(bad[i]));
        assert_int_equal(ay_json_read(t->cx, path, &v), ALLOY_E_FORMAT);
    }
}

static void test_depth(void **state) {
    ay_test *t = *state;
    enum { N = 200000 };
    char *text = ay_alloc(t->arena, N + 1);
    json_t *v;
    memset(text, '[', N);
    refused(t, text, N, "line 1, column 65: JSON nested more than 64 deep");
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    assert_ok(t->cx, ay_json_parse(t->cx, "x", text, 128, &v));
    json_decref(v);
    strcpy(text, "{\"");
    memset(text + 2, '[', 1000); /* within a string nothing nests, whatever is escaped */
    strcpy(text + 1002, "\\\"[[\\\\\": \"}\"}");
    assert_ok(t->cx, ay_json_parse(t->cx, "x", text, strlen(text), &v));
    json_decref(v);
}

static void test_members(void **state) {
    ay_test *t = *state;
    static const char text[] = "{\"i\": 19, \"big\": 5000000000, \"r\": 1.5, \"t\": true, \"s\": \"silu\", \"n\": null, "
                               "\"l\": [1, 2, 3], \"m\": [1, \"x\"]}";
    json_t *o;
    int64_t i, list[3];
    double d;
    bool b;
    int n;
    const char *s;
    ay_ctx *cx = t->cx;
    assert_ok(cx, ay_json_parse(cx, "c.json", text, sizeof text - 1, &o));
    assert_ok(cx, ay_json_int(cx, "c.json", o, "i", 1, 100, &i));
    assert_int_equal(i, 19);
    assert_fails(cx, ay_json_int(cx, "c.json", o, "i", 20, 100, &i), ALLOY_E_MISMATCH,
                 "c.json: \"i\" is 19; from 20 to 100 was expected");
    assert_fails(cx, ay_json_int(cx, "c.json", o, "big", 0, 1000, &i), ALLOY_E_MISMATCH, "5000000000");
    assert_fails(cx, ay_json_int(cx, "c.json", o, "r", 0, 9, &i), ALLOY_E_MISMATCH,
                 "a number with a fraction; an integer was expected");
    assert_fails(cx, ay_json_int(cx, "c.json", o, "zz", 0, 9, &i), ALLOY_E_MISMATCH, "c.json: the key \"zz\" is missing");
    assert_fails(cx, ay_json_int(cx, "c.json", o, "n", 0, 9, &i), ALLOY_E_MISMATCH, "missing");
    assert_ok(cx, ay_json_int_or(cx, "c.json", o, "n", 0, 9, 7, &i));
    assert_int_equal(i, 7);
    assert_ok(cx, ay_json_int_or(cx, "c.json", o, "zz", 0, 9, 77, &i)); /* the default need not lie in the range */
    assert_int_equal(i, 77);
    assert_fails(cx, ay_json_int_or(cx, "c.json", o, "s", 0, 9, 7, &i), ALLOY_E_MISMATCH, "\"s\" is text");
    assert_ok(cx, ay_json_num_or(cx, "c.json", o, "r", 0, 9, 7, &d));
    assert_true(d == 1.5);
    assert_ok(cx, ay_json_num_or(cx, "c.json", o, "i", 0, 99, 7, &d));
    assert_true(d == 19);
    assert_ok(cx, ay_json_num_or(cx, "c.json", o, "zz", 0, 9, 0.25, &d));
    assert_true(d == 0.25);
    assert_fails(cx, ay_json_num_or(cx, "c.json", o, "r", 2, 9, 7, &d), ALLOY_E_MISMATCH, "\"r\" is 1.5; from 2 to 9");
    assert_fails(cx, ay_json_num_or(cx, "c.json", o, "t", 2, 9, 7, &d), ALLOY_E_MISMATCH, "true or false");
    assert_ok(cx, ay_json_bool_or(cx, "c.json", o, "t", false, &b));
    assert_true(b);
    assert_ok(cx, ay_json_bool_or(cx, "c.json", o, "n", true, &b));
    assert_true(b);
    assert_fails(cx, ay_json_bool_or(cx, "c.json", o, "i", true, &b), ALLOY_E_MISMATCH, "an integer; true or false");
    assert_ok(cx, ay_json_str(cx, "c.json", o, "s", &s));
    assert_string_equal(s, "silu");
    assert_fails(cx, ay_json_str(cx, "c.json", o, "l", &s), ALLOY_E_MISMATCH, "a list; text");
    assert_fails(cx, ay_json_str(cx, "c.json", o, "zz", &s), ALLOY_E_MISMATCH, "zz");
    assert_ok(cx, ay_json_str_or(cx, "c.json", o, "zz", "gelu", &s));
    assert_string_equal(s, "gelu");
    assert_ok(cx, ay_json_ints(cx, "c.json", o, "l", 0, 9, 3, list, &n));
    assert_true(n == 3 && list[2] == 3);
    assert_fails(cx, ay_json_ints(cx, "c.json", o, "l", 0, 9, 2, list, &n), ALLOY_E_MISMATCH, "3 items; at most 2");
    assert_fails(cx, ay_json_ints(cx, "c.json", o, "l", 0, 2, 3, list, &n), ALLOY_E_MISMATCH, "is 3");
    assert_fails(cx, ay_json_ints(cx, "c.json", o, "m", 0, 2, 3, list, &n), ALLOY_E_MISMATCH, "text");
    assert_fails(cx, ay_json_ints(cx, "c.json", o, "i", 0, 2, 3, list, &n), ALLOY_E_MISMATCH, "a list of integers");
    json_t *array = json_object_get(o, "l");
    assert_fails(cx, ay_json_int(cx, "c.json", array, "i", 0, 9, &i), ALLOY_E_FORMAT, "a list was found where an object");
    assert_fails(cx, ay_json_int(cx, "c.json", NULL, "i", 0, 9, &i), ALLOY_E_FORMAT, "nothing was found");
    json_decref(o);
}

static void test_write_read(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "out.json");
    json_t *o = json_pack("{s:i, s:s, s:[f, b]}", "z", 1, "a", "\xc3\xa9\n", "l", 0.1, 1), *back;
    assert_ok(t->cx, ay_json_write(t->cx, path, o));
    assert_string_equal(
        ay_test_read(t, path, NULL),
        "{\n  \"z\": 1,\n  \"a\": \"\xc3\xa9\\n\",\n  \"l\": [\n    0.10000000000000001,\n    true\n  ]\n}\n");
    assert_ok(t->cx, ay_json_read(t->cx, path, &back));
    assert_true(json_equal(o, back));
    json_decref(back);
    assert_fails(t->cx, ay_json_write(t->cx, ay_test_path(t, "no/out.json"), o), ALLOY_E_IO, "no/out.json");
    json_decref(o);
    assert_fails(t->cx, ay_json_read(t->cx, ay_test_path(t, "none"), &back), ALLOY_E_IO, "none");
    assert_null(back);
}

/* Paths may be any bytes; JSON holds UTF-8 only. */
static void test_text(void **state) {
    ay_test *t = *state;
    static const char *const rows[][2] = {
        {"", ""}, {"plain", "plain"}, {"\xc3\xbc\xf0\x9f\xa6\x8a", "\xc3\xbc\xf0\x9f\xa6\x8a"}, {"a\xff" "b", "a\xef\xbf\xbd" "b"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"}, {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *j = ay_json_text(rows[i][0]);
        assert_non_null(j);
        assert_string_equal(json_string_value(j), rows[i][1]);
        assert_string_equal(ay_utf8(t->arena, rows[i][0]), rows[i][1]);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_refusals), AY_TEST(test_depth), AY_TEST(test_infinite), AY_TEST(test_members),
                                       AY_TEST(test_write_read), AY_TEST(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
