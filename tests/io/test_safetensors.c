/* SPDX-License-Identifier: MIT
 *
 * safetensors: round trips, and every way in which a file can be wrong, each with its sentence.
 */
#include "../support/support.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

/* A file of this header (its length in front) and `data` bytes; `cut` bytes are missing at the end. */
static const char *make(ay_test *t, const char *header, size_t data, size_t cut) {
    ay_buf b = {0};
    uint64_t n = strlen(header);
    const char *path = ay_test_path(t, "m.safetensors");
    ay_buf_add(&b, &n, 8);
    ay_buf_add(&b, header, n);
    for (size_t i = 0; i < data; i++) ay_buf_add(&b, "\x01", 1);
    ay_test_write(t, path, b.data, b.len - cut);
    ay_buf_free(&b);
    return path;
}

static void refused(ay_test *t, const char *header, size_t data, size_t cut, alloy_status status, const char *part) {
    ay_safetensors *st = NULL;
    const char *path = make(t, header, data, cut);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), status, part);
    assert_contains(ay_error_text(t->cx), "m.safetensors: ");
    assert_null(st);
}

static void test_round_trip(void **state) {
    ay_test *t = *state;
    float f[6] = {1, 2, 3, 4, 5, 6};
    uint16_t h[4] = {9, 8, 7, 6};
    uint8_t e[3] = {1, 2, 3};
    double d = 0.5;
    const ay_tensor in[] = {{"w\"\\\n\xc3\xa9", {AY_F16, 2, {2, 2}}, h},
                            {"b", {AY_F32, 3, {1, 2, 3}}, f},
                            {"a", {AY_F8E4M3, 1, {3}}, e},
                            {"s", {AY_F64, 0, {0}}, &d},
                            {"none", {AY_I64, 2, {0, 7}}, NULL}};
    const char *const meta[] = {"format", "pt", "k\"", "v\n", NULL};
    const char *path = ay_test_path(t, "m.safetensors");
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_write(t->cx, path, in, 5, meta));
    assert_ok(t->cx, ay_st_open(t->cx, path, &st));
    assert_int_equal(st->n, 5);
    for (int i = 0; i < 5; i++) {
        const ay_st_tensor *x = ay_st_find(st, in[i].name);
        assert_non_null(x);
        assert_true(ay_type_equal(&x->type, &in[i].type));
        assert_memory_equal(ay_st_data(st, x), in[i].data ? in[i].data : "", x->bytes);
        assert_int_equal(x->offset * 8 % (uint64_t)ay_dtype_bits(x->type.dtype), 0); /* aligned to its elements */
    }
    for (int i = 1; i < st->n; i++) assert_true(strcmp(st->tensors[i - 1].name, st->tensors[i].name) < 0);
    assert_null(ay_st_find(st, "c"));
    assert_true(strcmp(st->metadata[0], "format") == 0 || strcmp(st->metadata[2], "format") == 0);
    assert_null(st->metadata[4]);
    ay_st_close(&st);
    assert_null(st);
    ay_st_close(&st);
    size_t n, n2;
    char *first = ay_test_read(t, path, &n);
    const ay_tensor turned[] = {in[4], in[2], in[0], in[3], in[1]};
    assert_ok(t->cx, ay_st_write(t->cx, path, turned, 5, meta)); /* the order of the call does not matter */
    assert_memory_equal(ay_test_read(t, path, &n2), first, n);
    assert_int_equal(n, n2);
}

static void test_no_tensors(void **state) {
    ay_test *t = *state;
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_write(t->cx, ay_test_path(t, "x"), NULL, 0, NULL));
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_path(t, "x"), &st));
    assert_int_equal(st->n, 0);
    assert_null(st->metadata[0]);
    assert_null(ay_st_find(st, ""));
    ay_st_close(&st);
}

#define T1 "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

static void test_bad_files(void **state) {
    ay_test *t = *state;
    ay_safetensors *st;
    const char *path = ay_test_path(t, "m.safetensors");
    ay_test_write(t, path, "", 0);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), ALLOY_E_FORMAT, "empty");
    ay_test_write(t, path, "1234567", 7);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), ALLOY_E_FORMAT, "only 7 bytes");
    ay_test_write(t, path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), ALLOY_E_FORMAT, "18446744073709551615 bytes, but only 2 follow");
    ay_test_write(t, path, "\0\0\0\0\0\0\0\0", 8);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), ALLOY_E_FORMAT, "\"{\"");
    ay_test_write(t, path, "PK\3\4 this is a pickle", 22);
    assert_fails(t->cx, ay_st_open(t->cx, path, &st), ALLOY_E_FORMAT, "no safetensors file");
    assert_fails(t->cx, ay_st_open(t->cx, ay_test_path(t, "none"), &st), ALLOY_E_IO, "none");
    assert_fails(t->cx, ay_st_open(t->cx, t->dir, &st), ALLOY_E_IO, "folder");
    refused(t, T1 "}", 8, 1, ALLOY_E_FORMAT,
            "tensor \"a\" (float32[2]): its data ends at byte 8 of the data, of which only 7");
    refused(t, T1 "}", 9, 0, ALLOY_E_FORMAT, "1 bytes that belong to no tensor");
    refused(t, T1, 8, 0, ALLOY_E_FORMAT, "line 1, column");
    refused(t, "[1]", 0, 0, ALLOY_E_FORMAT, "\"{\"");
    refused(t, T1 ",\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, 0, ALLOY_E_FORMAT, "duplicate");
}

static void test_bad_tensors(void **state) {
    ay_test *t = *state;
    static const struct {
        const char *entry, *part;
        alloy_status status;
    } rows[] = {
        {"7", "not an object", ALLOY_E_FORMAT},
        {"{\"shape\":[2],\"data_offsets\":[0,8]}", "no \"dtype\"", ALLOY_E_FORMAT},
        {"{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}", "no \"dtype\"", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,8]}", "element type F4", ALLOY_E_UNSUPPORTED},
        {"{\"dtype\":\"F32\",\"data_offsets\":[0,8]}", "no \"shape\"", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2.5],\"data_offsets\":[0,8]}", "not an integer", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}", "negative", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,2],\"data_offsets\":[0,8]}", "7 dimensions", ALLOY_E_UNSUPPORTED},
        {"{\"dtype\":\"F32\",\"shape\":[1000000000000,1000000000000],\"data_offsets\":[0,8]}", "more elements",
         ALLOY_E_FORMAT},
        {"{\"dtype\":\"F64\",\"shape\":[4611686018427387904],\"data_offsets\":[0,8]}", "needs", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}", "float32[3] needs 12 bytes, its data_offsets give 8",
         ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2]}", "data_offsets", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}", "data_offsets", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}", "data_offsets", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[\"0\",8]}", "data_offsets", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}", "[8, 0] are no range", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}", "[-8, 0] are no range", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}", "only 8", ALLOY_E_FORMAT},
        {"{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}", "4 bytes that belong to no tensor", ALLOY_E_FORMAT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *header = ay_sprintf(t->arena, "{\"layer.weight\":%s}", rows[i].entry);
        refused(t, header, 8, 0, rows[i].status, rows[i].part);
        assert_contains(ay_error_text(t->cx), "tensor \"layer.weight\"");
    }
}

static void test_bad_cover(void **state) {
    ay_test *t = *state;
#define B(begin, end, n) ",\"b\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[" #begin "," #end "]}}"
    refused(t, T1 B(7, 9, 2), 9, 0, ALLOY_E_FORMAT, "tensors \"a\" and \"b\" overlap");
    refused(t, T1 B(0, 8, 8), 8, 0, ALLOY_E_FORMAT, "overlap");
    refused(t, T1 B(2, 4, 2), 8, 0, ALLOY_E_FORMAT, "overlap");
    refused(t, T1 B(9, 10, 1), 10, 0, ALLOY_E_FORMAT, "tensor \"b\": before it are 1 bytes");
    refused(t, T1 B(4, 4, 0), 8, 0, ALLOY_E_FORMAT, "overlap"); /* even an empty one may not lie inside another */
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, make(t, T1 B(8, 8, 0), 8, 0), &st));
    ay_st_close(&st);
    assert_ok(t->cx, ay_st_open(t->cx, make(t, T1 B(8, 11, 3), 11, 0), &st)); /* the header's odd length moves the data */
    assert_int_equal(ay_st_find(st, "b")->bytes, 3);
    ay_st_close(&st);
#undef B
}

static void test_metadata(void **state) {
    ay_test *t = *state;
    refused(t, T1 ",\"__metadata__\":{\"a\":5}}", 8, 0, ALLOY_E_FORMAT, "__metadata__");
    refused(t, T1 ",\"__metadata__\":[]}", 8, 0, ALLOY_E_FORMAT, "__metadata__");
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, make(t, T1 ",\"__metadata__\":{\"a\":\"5\"}}   ", 8, 0), &st));
    assert_string_equal(st->metadata[1], "5");
    assert_int_equal(st->n, 1);
    ay_st_close(&st);
}

/* Names out of the file do not break the sentence. */
static void test_hostile_names(void **state) {
    ay_test *t = *state;
    ay_buf b = {0};
    ay_buf_printf(&b, "{\"\\n\\u001b[31m");
    for (int i = 0; i < 100000; i++) ay_buf_printf(&b, "\xc3\xa9");
    ay_buf_printf(&b, "\":5}");
    refused(t, b.data, 0, 0, ALLOY_E_FORMAT, "??[31m\xc3\xa9");
    const char *text = ay_error_text(t->cx);
    assert_true(strlen(text) < 1000 && !strchr(text, '\n') && !strchr(text, '\x1b'));
    assert_contains(text, "\xc3\xa9...\"");
    ay_buf_free(&b);
}

static void test_write_refusals(void **state) {
    ay_test *t = *state;
    float f[2] = {1, 2};
    const ay_tensor twice[] = {{"a", {AY_F32, 1, {2}}, f}, {"a", {AY_F32, 1, {2}}, f}}, odd = {"o", {AY_I4, 1, {4}}, f};
    const char *path = ay_test_path(t, "m.safetensors");
    assert_fails(t->cx, ay_st_write(t->cx, path, twice, 2, NULL), ALLOY_E_INTERNAL, "\"a\"");
    assert_fails(t->cx, ay_st_write(t->cx, path, &odd, 1, NULL), ALLOY_E_INTERNAL, "int4");
    assert_int_equal(ay_path_kind_of(path), AY_PATH_NONE);
    assert_fails(t->cx, ay_st_write(t->cx, ay_test_path(t, "no/m"), twice, 1, NULL), ALLOY_E_IO, "no/m");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_round_trip),    AY_TEST(test_no_tensors),    AY_TEST(test_bad_files),
                                       AY_TEST(test_bad_tensors),   AY_TEST(test_bad_cover),     AY_TEST(test_metadata),
                                       AY_TEST(test_hostile_names), AY_TEST(test_write_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
