/* SPDX-License-Identifier: MIT
 *
 * The weights that tests make from names: equal to what tests/reference/hashweights.py makes, in every element type, as
 * one file and in shards.
 */
#include "../support/hashweights.h"
#include "../support/support.h"
#include "io/io.h"
#include "quant/weight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The golden lines of one element type as a manifest (a 4th field is ignored there). */
static const char *manifest_of(ay_test *t, const char *dtype, int *lines) {
    char *text = ay_test_read(t, ay_test_golden(t, "hashweights.txt"), NULL), *save = NULL;
    ay_buf b = {0};
    *lines = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char tag[32];
        snprintf(tag, sizeof tag, " %s ", dtype);
        if (line[0] != '@' && !strstr(line, tag)) continue;
        ay_buf_printf(&b, "%s\n", line);
        *lines += line[0] != '@';
    }
    const char *path = ay_test_path(t, dtype);
    ay_test_write(t, path, b.data, b.len);
    ay_buf_free(&b);
    return path;
}

/* Every tensor of an opened file has the digest of its golden line. */
static int check_file(ay_test *t, const char *path, const char *dtype) {
    char *text = ay_test_read(t, ay_test_golden(t, "hashweights.txt"), NULL), *save = NULL;
    ay_safetensors *st;
    int found = 0;
    assert_ok(t->cx, ay_st_open(t->cx, path, &st));
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[100], type[20], dims[50];
        unsigned long long digest;
        if (sscanf(line, "%99s %19s %49s %llx", name, type, dims, &digest) != 4 || strcmp(type, dtype) != 0) continue;
        const ay_st_tensor *x = ay_st_find(st, name);
        if (!x) continue;
        int64_t n = ay_type_count(&x->type);
        float *f = ay_alloc(t->arena, (size_t)n * sizeof *f);
        ay_convert_to_f32(x->type.dtype, ay_st_data(st, x), 0, n, f);
        if (ay_test_digest(0, f, (size_t)n) != digest) fail_msg("%s as %s differs from the reference", name, dtype);
        found++;
    }
    assert_int_equal(found, st->n);
    ay_st_close(&st);
    return found;
}

static void test_against_python(void **state) {
    ay_test *t = *state;
    static const char *const dtypes[] = {"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"};
    for (size_t i = 0; i < 5; i++) {
        int lines;
        const char *manifest = manifest_of(t, dtypes[i], &lines), *out = ay_test_path(t, "out.safetensors");
        assert_ok(t->cx, ay_hash_write(t->cx, manifest, out));
        assert_int_equal(check_file(t, out, dtypes[i]), lines);
        assert_true(lines >= 8);
    }
}

static void test_shards(void **state) {
    ay_test *t = *state;
    int lines, found = 0, files = 0, count;
    char **names;
    const char *manifest = manifest_of(t, "F16", &lines), *dir = ay_test_path(t, "model");
    assert_ok(t->cx, ay_mkdirs(t->cx, dir));
    assert_ok(t->cx, ay_hash_write_shards(t->cx, manifest, dir, "m", 3000));
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, dir, &names, &count));
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], "m.safetensors.index.json") == 0) continue;
        found += check_file(t, ay_path_join(t->arena, dir, names[i]), "F16");
        files++;
    }
    assert_int_equal(found, lines);
    assert_true(files > 2);
    json_t *index;
    assert_ok(t->cx, ay_json_read(t->cx, ay_path_join(t->arena, dir, "m.safetensors.index.json"), &index));
    assert_int_equal(json_object_size(json_object_get(index, "weight_map")), lines);
    json_decref(index);
}

static void test_bad_manifest(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "bad");
    ay_test_write(t, path, "a.weight F17 2,3\n", 17);
    assert_fails(t->cx, ay_hash_write(t->cx, path, ay_test_path(t, "x")), ALLOY_E_FORMAT, "a.weight F17 2,3");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_against_python), AY_TEST(test_shards), AY_TEST(test_bad_manifest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
