/* SPDX-License-Identifier: MIT
 *
 * Quantised model folders of the small FLUX.1 checkpoints: pictures near the float32 ones, the package's own program and the
 * graph built anew at one, the same bytes twice, nothing for the validator to say.
 */
#include "../support/flux_case.h"
#include "../support/support.h"
#include "pipe/pipe.h"

#include <math.h>
#include <string.h>

typedef struct form {
    const char *quantization, *target;
    int palette;
    int64_t limit;
} form;

static const char *convert(ay_test *t, const ay_flux_case *c, const form *f) {
    alloy_convert_options o;
    json_t *j = ay_flux_pictures(t, c);
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = ay_sprintf(t->arena, "%s-%s-%s-%d", c->name, f->quantization ? f->quantization : "palette",
                        f->target ? f->target : "default", f->palette);
    o.quantization = f->quantization;
    o.target = f->target;
    o.palette = f->palette;
    o.size_limit = f->limit;
    o.force = true;
    o.image_size = (alloy_size){ay_flux_number(j, "width"), ay_flux_number(j, "height")};
    o.text_length = ay_flux_number(j, "text_length");
    json_decref(j);
    assert_ok(t->cx, alloy_convert(t->cx, ay_flux_checkpoint(t, c), &o));
    return ay_test_join(t, o.output_dir, o.name);
}

static double psnr(const ay_image *a, const ay_image *b) {
    double sum = 0;
    size_t n = (size_t)a->width * (size_t)a->height * 3;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 3);
    assert_int_equal(b->channels, 3);
    for (size_t i = 0; i < n; i++) sum += ((double)a->pixels[i] - b->pixels[i]) * ((double)a->pixels[i] - b->pixels[i]);
    return sum > 0 ? 10 * log10(255.0 * 255.0 / (sum / (double)n)) : 200;
}

/* The golden pictures, also at sizes the folder was not converted for: those run the graph built anew. */
static void check_pictures(ay_test *t, const ay_flux_case *c, const form *f, double bound) {
    const char *dir = convert(t, c, f), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, c), *p;
    size_t i;
    json_array_foreach(json_object_get(j, "pictures"), i, p) {
        alloy_run_options o;
        ay_image want, got;
        alloy_run_options_init(&o);
        o.prompt = json_string_value(json_object_get(p, "prompt"));
        o.seed = (uint64_t)ay_flux_number(p, "seed");
        o.steps = ay_flux_number(p, "steps");
        o.guidance_scale = json_number_value(json_object_get(p, "guidance_scale"));
        o.image_size = (alloy_size){ay_flux_number(p, "width"), ay_flux_number(p, "height")};
        o.output = out;
        assert_ok(t->cx, alloy_run(t->cx, dir, &o));
        assert_ok(t->cx, ay_image_read(t->cx,
                                       ay_sprintf(t->arena, "%s/%s/%s", ay_test_golden(t, "flux"), c->name,
                                                  json_string_value(json_object_get(p, "file"))),
                                       1 << 24, &want));
        assert_ok(t->cx, ay_image_read(t->cx, out, 1 << 24, &got));
        double v = psnr(&got, &want);
        print_message("%s %s %s palette %d %dx%d: PSNR %.1f dB\n", c->name, f->quantization ? f->quantization : "",
                      f->target ? f->target : "", f->palette, o.image_size.width, o.image_size.height, v);
        assert_true(v >= bound);
        ay_image_free(&want);
        ay_image_free(&got);
    }
    json_decref(j);
}

static const form int8_14 = {"int8", NULL, 0, 0}, int8_15 = {"int8", "macos15", 0, 0}, int4_14 = {"int4", "macos14", 0, 0},
                  int4_15 = {"int4", NULL, 0, 0}, palette6 = {NULL, NULL, 6, 0}, palette8 = {NULL, "macos15", 8, 0};

static void test_pictures_int8(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], &int8_14, 35);
    check_pictures(*state, &ay_flux_cases[0], &int8_15, 35);
}
/* Hashed weights in narrow nets: GGUF's Q4_0 leaves the worst of these pictures at 24.6 dB (docs/numerics.md). */
static void test_pictures_int4(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], &int4_15, 22);
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], &int4_14, 22);
}
static void test_pictures_palettes(void **state) {
    check_pictures(*state, &ay_flux_cases[0], &palette6, 35);
    check_pictures(*state, &ay_flux_cases[0], &palette8, 40);
}

/* Both ways of running one package come to the same numbers. */
static void check_routes(ay_test *t, const ay_flux_case *c, const form *f) {
    static const char *const packages[] = {"TextEncoder", "TextEncoder2", "Transformer", "VAEDecoder", "VAEEncoder"};
    const char *dir = convert(t, c, f);
    ay_safetensors *io;
    ay_model *m;
    assert_ok(t->cx,
              ay_st_open(t->cx, ay_sprintf(t->arena, "%s/%s/io.safetensors", ay_test_golden(t, "flux"), c->name), &io));
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    for (size_t i = 0; i < sizeof packages / sizeof packages[0]; i++) {
        const ay_model_part *part = ay_model_find(m, packages[i]);
        ay_tensor in[8], out[2][4];
        int n_in, n_out;
        for (int way = 0; way < 2; way++) {
            ay_component *p;
            assert_ok(t->cx,
                      (way ? ay_component_rebuild : ay_component_open)(t->cx, m, packages[i], &part->sizes, NULL, &p));
            const ay_tensor *ins = ay_component_inputs(p, &n_in), *outs = ay_component_outputs(p, &n_out);
            for (int k = 0; k < n_in; k++) {
                const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "%s.%s", packages[i], ins[k].name));
                assert_non_null(s);
                in[k] = (ay_tensor){ay_strdup(t->arena, ins[k].name), s->type, (void *)(uintptr_t)ay_st_data(io, s)};
            }
            for (int k = 0; k < n_out; k++) {
                out[way][k] = outs[k];
                out[way][k].name = ay_strdup(t->arena, outs[k].name);
                out[way][k].type.dtype = AY_F32;
                out[way][k].data = ay_alloc(t->arena, ay_dtype_bytes(AY_F32, ay_type_count(&out[way][k].type)));
            }
            assert_ok(t->cx, ay_component_run(t->cx, p, in, n_in, out[way], n_out));
            ay_component_close(&p);
        }
        for (int k = 0; k < n_out; k++) {
            const float *a = out[0][k].data, *b = out[1][k].data;
            double d = 0, n = 0;
            for (int64_t e = 0; e < ay_type_count(&out[0][k].type); e++)
                d += ((double)a[e] - b[e]) * ((double)a[e] - b[e]), n += (double)a[e] * a[e];
            print_message("%s %s: program against graph %.1e\n", f->quantization ? f->quantization : "palette", packages[i],
                          sqrt(d / n));
            assert_true(sqrt(d / n) <= 1e-3);
        }
    }
    ay_model_close(&m);
    ay_st_close(&io);
}

static void test_routes(void **state) {
    check_routes(*state, &ay_flux_cases[0], &int8_14);
    check_routes(*state, &ay_flux_cases[0], &int4_14);
    check_routes(*state, &ay_flux_cases[1], &int4_15);
    check_routes(*state, &ay_flux_cases[2], &palette6);
}

static void finding(void *user, bool warning, const char *text) { print_message("%s\n", text); }

static void test_same_bytes_and_valid(void **state) {
    ay_test *t = *state;
    const form *forms[] = {&int8_14, &int8_15, &int4_14, &int4_15, &palette6, &palette8};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        static const char *const files[] = {"alloy.json", "Transformer.mlpackage/Manifest.json",
                                            "VAEDecoder.mlpackage/Manifest.json"};
        size_t n[3], m;
        char *bytes[3];
        const char *dir = convert(t, &ay_flux_cases[1], forms[i]);
        int findings = 0;
        assert_ok(t->cx, alloy_validate(t->cx, dir, finding, NULL, &findings));
        assert_int_equal(findings, 0);
        for (int k = 0; k < 3; k++) bytes[k] = ay_test_read(t, ay_test_join(t, dir, files[k]), &n[k]);
        convert(t, &ay_flux_cases[1], forms[i]);
        for (int k = 0; k < 3; k++) {
            char *again = ay_test_read(t, ay_test_join(t, dir, files[k]), &m);
            assert_int_equal(m, n[k]);
            assert_memory_equal(again, bytes[k], m);
        }
    }
}

/* The table at the end: what is quantised, how well, and why the rest is not. */
static void test_table(void **state) {
    ay_test *t = *state;
    json_t *j, *g, *part;
    size_t i;
    int kept = 0, blocks = 0;
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, convert(t, &ay_flux_cases[0], &int4_15), "alloy.json"), &j));
    assert_string_equal(json_string_value(json_object_get(j, "quantization")), "int4");
    assert_string_equal(json_string_value(json_object_get(j, "target")), "macos15");
    part = json_object_get(json_object_get(j, "components"), "Transformer");
    part = json_object_get(part, "quantization");
    assert_non_null(part);
    json_array_foreach(json_object_get(part, "groups"), i, g) {
        const char *store = json_string_value(json_object_get(g, "store")),
                   *name = json_string_value(json_object_get(g, "tensors"));
        double bits = json_number_value(json_object_get(g, "bits_per_weight"));
        if (strcmp(store, "int4 in blocks of 32") == 0) {
            blocks++;
            assert_true(bits == 4.5);
            assert_in_range((int)(1000 * json_number_value(json_object_get(g, "relative_error"))), 40, 120);
        }
        if (strcmp(name, "x_embedder.weight") == 0) {
            kept++;
            assert_string_equal(store, "float16");
            assert_contains(json_string_value(json_object_get(g, "reason")), "projection");
        }
    }
    assert_int_equal(kept, 1);
    assert_true(blocks >= 10);
    json_decref(j);
}

static int64_t folder_bytes(ay_test *t, const char *dir) {
    char **names;
    int n;
    int64_t sum = 0;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, dir, &names, &n));
    for (int i = 0; i < n; i++) {
        const char *path = ay_test_join(t, dir, names[i]);
        size_t bytes = 0;
        if (ay_path_kind_of(path) == AY_PATH_DIR) sum += folder_bytes(t, path);
        else ay_test_read(t, path, &bytes);
        sum += (int64_t)bytes;
    }
    return sum;
}

/* The error of all quantised weights of the transformer, and what the folder weighs: more room, less error. */
static void test_size_limit(void **state) {
    ay_test *t = *state;
    const form *least[] = {&int4_15, &int4_14};
    for (int i = 0; i < 2; i++) {
        double error[4];
        int64_t bytes[4];
        form f = *least[i];
        for (int k = 0; k < 4; k++) {
            json_t *j;
            f.limit = k ? (int64_t[]){0, 2500000, 2700000, 1 << 30}[k] : 0;
            const char *dir = convert(t, &ay_flux_cases[0], &f);
            assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, dir, "alloy.json"), &j));
            json_t *part = json_object_get(json_object_get(json_object_get(j, "components"), "Transformer"), "quantization");
            error[k] = json_number_value(json_object_get(part, "relative_error"));
            bytes[k] = folder_bytes(t, dir);
            print_message("limit %lld: folder %lld, error %.4f\n", (long long)f.limit, (long long)bytes[k], error[k]);
            if (f.limit) assert_true(bytes[k] <= f.limit);
            json_decref(j);
        }
        assert_true(error[1] < error[0] && error[2] < error[1] && error[3] == 0);
        assert_true(bytes[1] > bytes[0] && bytes[2] > bytes[1]);
    }
}

static void test_options(void **state) {
    ay_test *t = *state;
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    const char *from = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    o.quantization = "int3";
    assert_fails(t->cx, alloy_convert(t->cx, from, &o), ALLOY_E_USAGE, "int8 and int4");
    o.quantization = NULL;
    o.palette = 5;
    assert_fails(t->cx, alloy_convert(t->cx, from, &o), ALLOY_E_USAGE, "4, 6 or 8");
    o.palette = 4;
    o.quantization = "int4";
    assert_fails(t->cx, alloy_convert(t->cx, from, &o), ALLOY_E_USAGE, "one of them");
    o.palette = 0;
    o.size_limit = 1000;
    assert_fails(t->cx, alloy_convert(t->cx, from, &o), ALLOY_E_USAGE, "with the fewest bits they are");
    o.quantization = "float16";
    assert_fails(t->cx, alloy_convert(t->cx, from, &o), ALLOY_E_USAGE, "needs --quantization");
}

/* For tests/reference/quantize.py: packages of every form in DIR/FORM/, with what alloy reads from their compressed weights
 * beside each as NAME.safetensors. */
static int write_packages(const char *to) {
    static const struct {
        const char *name;
        const form *form;
    } forms[] = {{"int8-14", &int8_14}, {"int8-15", &int8_15},      {"int4-14", &int4_14},
                 {"int4-15", &int4_15}, {"palette6-14", &palette6}, {"palette8-15", &palette8}};
    void *state;
    if (ay_test_setup(&state)) return 1;
    ay_test *t = state;
    for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
        const char *dir = convert(t, &ay_flux_cases[1], forms[f].form);
        ay_model *m;
        assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
        for (int i = 0; i < m->n_parts; i++) {
            const char *package = m->parts[i].row->package;
            ay_package *p;
            ay_graph *g;
            assert_ok(t->cx, ay_package_open(t->cx, ay_sprintf(t->arena, "%s/%s.mlpackage", dir, package), &p));
            assert_ok(t->cx, ay_package_graph(p, NULL, &g));
            ay_tensor *out = ay_alloc(t->arena, (size_t)g->n_nodes * sizeof *out);
            int n = 0;
            for (int k = 0; k < g->n_nodes; k++) {
                const ay_node *node = &g->nodes[k];
                if (node->op != AY_OP_PARAM || node->weight->store == AY_STORE_PLAIN) continue;
                out[n] = (ay_tensor){node->name, node->type,
                                     ay_alloc(t->arena, ay_dtype_bytes(AY_F32, ay_type_count(&node->type)))};
                out[n].type.dtype = AY_F32;
                ay_weight_read(node->weight, 0, ay_type_count(&node->type), out[n++].data);
            }
            assert_ok(t->cx, ay_st_write(t->cx, ay_sprintf(t->arena, "%s/%s.safetensors", dir, package), out, n, NULL));
            ay_graph_free(g);
            ay_package_close(&p);
        }
        ay_model_close(&m);
        assert_ok(t->cx, ay_mkdirs(t->cx, to));
        assert_ok(t->cx, ay_rename(t->cx, dir, ay_sprintf(t->arena, "%s/%s", to, forms[f].name)));
    }
    return ay_test_teardown(&state);
}

int main(int argc, char **argv) {
    if (argc == 2) return write_packages(argv[1]);
    const struct CMUnitTest tests[] = {
        AY_TEST(test_pictures_int8),        AY_TEST(test_pictures_int4),
        AY_TEST(test_pictures_palettes),    AY_TEST(test_routes),
        AY_TEST(test_same_bytes_and_valid), AY_TEST(test_table),
        AY_TEST(test_size_limit),           AY_TEST(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
