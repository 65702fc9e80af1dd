/* SPDX-License-Identifier: MIT
 *
 * Packages written from small graphs: the same input gives the same bytes, blobs are shared, what a target cannot say and a
 * full disk are sentences. (That each op and storage is written rightly: test_validate.c.) With a folder as argument, all
 * cases are written there for check_packages.py, which asks coremltools about them.
 */
#include "cases.h"

#include "base/sha256.h"
#include "coreml/weightfile.h"

#include <signal.h>
#include <sys/resource.h>

/* The float values of every weight of the graph beside the package: what constexprs must come to. */
static alloy_status write_values(ay_test *t, const char *path, const ay_graph *g) {
    ay_tensor list[32];
    int n = 0;
    for (int i = 0; i < g->n_nodes && n < 32; i++) {
        const ay_node *p = &g->nodes[i];
        if (p->op != AY_OP_PARAM) continue;
        ay_weight w = *p->weight;
        size_t bytes;
        w.data = part_bytes(t->arena, p, AY_PART_DATA, &bytes);
        if (w.store == AY_STORE_BLOCK) w.scale = part_bytes(t->arena, p, AY_PART_SCALE, &bytes);
        if (w.store == AY_STORE_BLOCK && w.offset_dtype != AY_NONE)
            w.offset = part_bytes(t->arena, p, AY_PART_OFFSET, &bytes);
        if (w.store == AY_STORE_LUT) w.lut = part_bytes(t->arena, p, AY_PART_LUT, &bytes);
        list[n] = (ay_tensor){.name = p->name, .type = p->type};
        list[n].type.dtype = AY_F32;
        list[n].data = ay_alloc(t->arena, (size_t)ay_type_count(&p->type) * 4 + 4);
        ay_weight_read(&w, 0, ay_type_count(&p->type), list[n].data);
        n++;
    }
    return ay_st_write(t->cx, path, list, n, NULL);
}

static int write_pair(ay_test *t, const char *dir, const char *name, ay_graph *g, ay_target target) {
    const char *path = ay_path_join(t->arena, dir, ay_sprintf(t->arena, "%s.mlpackage", name));
    const char *values = ay_path_join(t->arena, dir, ay_sprintf(t->arena, "%s.safetensors", name));
    bool ok = write_one(t, path, g, target) == ALLOY_OK && write_values(t, values, g) == ALLOY_OK;
    if (!ok) {
        fprintf(stderr, "%s: %s\n", name, ay_error_text(t->cx));
        (void)ay_remove_tree(t->cx, path);
    }
    ay_graph_free(g);
    return !ok;
}

/* How many could not be written. */
static int write_everything(ay_test *t, const char *dir) {
    static const ay_dtype types[] = {AY_F32, AY_F16};
    int failed = 0;
    for (int k = 0; k < 4; k++) {
        ay_target target = (ay_target)(k / 2);
        const char *tail = ay_sprintf(t->arena, "%s_macos%d", k % 2 ? "f16" : "f32", 14 + k / 2);
        for (int i = 0; i < N_CASES; i++)
            failed += write_pair(t, dir, ay_sprintf(t->arena, "%s_%s", cases[i].name, tail),
                                 case_graph(t->cx, i, types[k % 2]), target);
        for (int i = 0; i < N_STORAGES; i++)
            if (!storages[i].only15 || target == AY_TARGET_MACOS15)
                failed += write_pair(t, dir, ay_sprintf(t->arena, "%s_%s", storages[i].name, tail),
                                     storage_graph(t->cx, &storages[i], types[k % 2]), target);
    }
    return failed;
}

static void test_sha256(void **state) { /* FIPS 180-4 examples; a million 'a' */
    static const struct {
        const char *text, *hex;
    } rows[] = {{"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
                {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
                {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
                {NULL, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ay_sha256 s;
        uint8_t d[32];
        char hex[65];
        ay_sha256_init(&s);
        if (rows[i].text) ay_sha256_add(&s, rows[i].text, strlen(rows[i].text));
        for (int k = 0; !rows[i].text && k < 100000; k++) ay_sha256_add(&s, "aaaaaaaaaa", 10);
        ay_sha256_end(&s, d);
        for (int k = 0; k < 32; k++) snprintf(hex + 2 * k, 3, "%02x", d[k]);
        assert_string_equal(hex, rows[i].hex);
    }
}

static const char *const package_files[] = {"Manifest.json", "Data/com.apple.CoreML/model.mlmodel",
                                            "Data/com.apple.CoreML/weights/weight.bin"};

static void test_same_bytes(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < 2; i++) {
        ay_graph *g = storage_graph(t->cx, &storages[0], AY_F16);
        assert_ok(t->cx, write_one(t, ay_test_path(t, i ? "b.mlpackage" : "a.mlpackage"), g, AY_TARGET_MACOS14));
        ay_graph_free(g);
    }
    for (int i = 0; i < 3; i++) {
        size_t na, nb;
        char *a = ay_test_read(t, ay_path_join(t->arena, ay_test_path(t, "a.mlpackage"), package_files[i]), &na);
        char *b = ay_test_read(t, ay_path_join(t->arena, ay_test_path(t, "b.mlpackage"), package_files[i]), &nb);
        assert_int_equal(na, nb);
        assert_memory_equal(a, b, na);
    }
    /* other weights, other identifiers */
    ay_graph *g = storage_graph(t->cx, &storages[2], AY_F16);
    assert_ok(t->cx, write_one(t, ay_test_path(t, "c.mlpackage"), g, AY_TARGET_MACOS14));
    ay_graph_free(g);
    assert_string_not_equal(ay_test_read(t, ay_test_path(t, "a.mlpackage/Manifest.json"), NULL),
                            ay_test_read(t, ay_test_path(t, "c.mlpackage/Manifest.json"), NULL));
}

/* One weight used by two functions lies in the file once, and the table says where. */
static void test_functions(void **state) {
    ay_test *t = *state;
    ay_graph *g[2];
    for (int i = 0; i < 2; i++) {
        g[i] = ay_graph_new(t->cx);
        ay_val x = ay_linear_layer(g[i], "proj", in(g[i], S(AY_F16, 2, 3 + i, 24)), 16, true);
        ay_set_output(g[i], "y", ay_linear_layer(g[i], i ? "second" : "first", x, 2, false));
    }
    ay_function f[2] = {{"small", g[0]}, {"large", g[1]}};
    ay_package_options o = {.target = AY_TARGET_MACOS15, .source = {.stream = stream_part, .user = t}};
    ay_weight_entry *entries;
    int n;
    const char *path = ay_test_path(t, "two.mlpackage");
    assert_ok(t->cx, ay_package_write(t->cx, path, f, 2, &o, t->arena, &entries, &n));
    assert_int_equal(n, 4);
    size_t size;
    const uint8_t *file = (const uint8_t *)ay_test_read(t, ay_path_join(t->arena, path, package_files[2]), &size);
    uint32_t count;
    assert_ok(t->cx, ay_blob_header(t->cx, "weight.bin", file, size, &count));
    assert_int_equal(count, 4); /* the zero biases have two elements and stand in the program */
    for (int i = 0; i < n; i++) {
        ay_blob b;
        assert_ok(t->cx, ay_blob_read(t->cx, "weight.bin", file, size, entries[i].offset[AY_PART_DATA], &b));
        assert_int_equal(b.dtype, AY_F16);
        assert_null(entries[i].weight.data);
    }
    o.target = AY_TARGET_MACOS14;
    assert_fails(t->cx, ay_package_write(t->cx, ay_test_path(t, "no.mlpackage"), f, 2, &o, t->arena, NULL, NULL),
                 ALLOY_E_UNSUPPORTED, "macOS 15");
    for (int i = 0; i < 2; i++) ay_graph_free(g[i]);
}

static alloy_status broken_stream(void *user, const ay_node *n, ay_part part, ay_sink *out) {
    ay_test *t = user;
    return ay_fail(t->cx, ALLOY_E_IO, "shard 3 went away");
}
static alloy_status short_stream(void *user, const ay_node *n, ay_part part, ay_sink *out) {
    return out->put(out->user, "abc", 3);
}
static alloy_status long_stream(void *user, const ay_node *n, ay_part part, ay_sink *out) {
    char many[4096] = {0};
    return out->put(out->user, many, sizeof many);
}

static void refuse(ay_test *t, ay_graph *g, ay_target target, ay_weight_source source, alloy_status status,
                   const char *part) {
    ay_function f = {"main", g};
    ay_package_options o = {.target = target, .source = source};
    const char *path = ay_test_path(t, "refused.mlpackage");
    assert_ok(t->cx, ay_graph_status(g));
    assert_fails(t->cx, ay_package_write(t->cx, path, &f, 1, &o, t->arena, NULL, NULL), status, part);
    assert_ok(t->cx, ay_remove_tree(t->cx, path));
    ay_graph_free(g);
}

static void test_refusals(void **state) {
    ay_test *t = *state;
    ay_weight_source good = {.stream = stream_part, .user = t};
    for (int i = 0; i < N_STORAGES; i++)
        if (storages[i].only15)
            refuse(t, storage_graph(t->cx, &storages[i], AY_F16), AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "macOS 15");
    refuse(t, storage_graph(t->cx, &storages[0], AY_F16), AY_TARGET_MACOS14, (ay_weight_source){.stream = broken_stream, .user = t},
           ALLOY_E_IO, "shard 3");
    refuse(t, storage_graph(t->cx, &storages[0], AY_F16), AY_TARGET_MACOS14, (ay_weight_source){.stream = short_stream, .user = t},
           ALLOY_E_INTERNAL, "fewer");
    refuse(t, storage_graph(t->cx, &storages[0], AY_F16), AY_TARGET_MACOS14, (ay_weight_source){.stream = long_stream, .user = t},
           ALLOY_E_INTERNAL, "more");
    refuse(t, storage_graph(t->cx, &storages[0], AY_F16), AY_TARGET_MACOS14, (ay_weight_source){.stream = NULL}, ALLOY_E_USAGE,
           "proj.weight");

    ay_graph *g = ay_graph_new(t->cx);
    ay_val six = ay_reshape(g, in(g, S(AY_F32, 2, 4, 16)), 6, 2, 2, 2, 2, 2, 2);
    ay_set_output(g, "y", ay_reshape(g, ay_permute(g, six, 6, 0, 3, 1, 4, 2, 5), 1, 64));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "rank 6");
    g = ay_graph_new(t->cx);
    ay_set_output(g, "y", ay_binary(g, AY_OP_GT, in(g, S(AY_F32, 1, 4)), in(g, S(AY_F32, 1, 4))));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "output y is bool[4]");
    g = ay_graph_new(t->cx);
    ay_set_output(g, "y", ay_unary(g, AY_OP_EXP, ay_input(g, "x", (ay_type){.dtype = AY_F32})));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "at least one dimension");
    g = ay_graph_new(t->cx);
    ay_set_output(g, "y", ay_unary(g, AY_OP_EXP, ay_input(g, "not a name", S(AY_F32, 1, 4))));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "\"not a name\"");
    g = ay_graph_new(t->cx);
    ay_set_output(g, "y", ay_add(g, in(g, S(AY_BF16, 1, 4)), in(g, S(AY_BF16, 1, 4))));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_UNSUPPORTED, "bfloat16");
    g = ay_graph_new(t->cx);
    ay_set_output(g, "x", ay_unary(g, AY_OP_EXP, ay_input(g, "x", S(AY_F32, 1, 4))));
    refuse(t, g, AY_TARGET_MACOS14, good, ALLOY_E_MISMATCH, "called \"x\"");
    g = storage_graph(t->cx, &storages[0], AY_F16);
    ay_function f = {"main", g};
    ay_package_options o = {.target = AY_TARGET_MACOS14, .source = good};
    assert_fails(t->cx, ay_package_write(t->cx, t->dir, &f, 1, &o, t->arena, NULL, NULL), ALLOY_E_USAGE, "is there already");
    ay_graph_free(g);
}

static int count_of(const char *bytes, size_t n, const char *word) {
    int found = 0;
    size_t m = strlen(word);
    for (size_t i = 0; i + m <= n; i++) found += memcmp(bytes + i, word, m) == 0 && (bytes[i + m] & 0xe0) == 0;
    return found;
}

/* A sum times 1/n becomes a mean, so that half precision need not hold the sum; a sum that is read as such stays one. */
static void test_means(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "mean.mlpackage");
    ay_graph *g = ay_graph_new(t->cx);
    size_t n;
    ay_set_output(g, "y", case_mean(g, AY_F16));
    assert_ok(t->cx, write_one(t, path, g, AY_TARGET_MACOS14));
    ay_graph_free(g);
    char *bytes = ay_test_read(t, ay_path_join(t->arena, path, "Data/com.apple.CoreML/model.mlmodel"), &n);
    assert_int_equal(count_of(bytes, n, "\x0a\x0breduce_mean"), 2); /* field 1, length 11: the type of an operation */
    assert_int_equal(count_of(bytes, n, "\x0a\x0areduce_sum"), 1);
}

/* A full disk: the sentence names the file, and nothing pretends to be whole. */
static void test_full_disk(void **state) {
    ay_test *t = *state;
    struct rlimit before, small = {4096, RLIM_INFINITY};
    ay_graph *g = ay_graph_new(t->cx);
    ay_set_output(g, "y", ay_linear_layer(g, "wide", in(g, S(AY_F32, 2, 1, 256)), 64, true));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const char *path = ay_test_path(t, "full.mlpackage");
    alloy_status s = write_one(t, path, g, AY_TARGET_MACOS14);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(s, ALLOY_E_IO);
    assert_contains(ay_error_text(t->cx), "weight.bin");
    assert_int_equal(ay_path_kind_of(ay_path_join(t->arena, path, "Manifest.json")), AY_PATH_NONE);
    ay_graph_free(g);
}

static int emit_only(const char *dir) {
    ay_test t = {.arena = ay_arena_new(), .dir = dir};
    if (ay_ctx_open(1, &t.cx) != ALLOY_OK || ay_mkdirs(t.cx, dir) != ALLOY_OK) return 1;
    int failed = write_everything(&t, dir);
    ay_ctx_close(&t.cx);
    ay_arena_free(t.arena);
    return failed != 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return emit_only(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256), AY_TEST(test_same_bytes), AY_TEST(test_functions),
        AY_TEST(test_refusals),        AY_TEST(test_full_disk), AY_TEST(test_means),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
