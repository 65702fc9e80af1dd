/* SPDX-License-Identifier: MIT
 *
 * Several sizes in one package, and components cut into chains of packages: the same bits as packages of one size give, and
 * what whole packages give but for the last bits (the engine fuses within a package only), for every family, kind of storage
 * and target, at sizes that were converted and at others.
 */
#include "../support/flux_case.h"
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

typedef struct family {
    ay_flux_case c;
    alloy_size sizes[3]; /* the first two are converted */
    int text_length;
} family;

static const family families[] = {
    {{"a", false, NULL}, {{32, 32}, {48, 32}, {32, 64}}, 8},
    {{"sd15", false, "sd"}, {{32, 32}, {40, 24}, {24, 32}}, 77},
    {{"sdxl", true, "sd"}, {{32, 32}, {40, 24}, {24, 32}}, 77},
};
enum { FAMILIES = 3 };

static void options(ay_test *t, const family *f, const char *name, alloy_convert_options *o) {
    alloy_convert_options_init(o);
    o->output_dir = ay_test_path(t, "out");
    o->name = name;
    o->image_size = f->sizes[0];
    o->text_length = f->text_length;
    o->target = "macos15";
    o->force = true;
}

static const char *convert(ay_test *t, const char *source, const alloy_convert_options *o) {
    assert_ok(t->cx, alloy_convert(t->cx, source, o));
    const char *dir = ay_test_join(t, o->output_dir, o->name);
    int findings;
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_int_equal(findings, 0);
    return dir;
}

/* The latents and the picture that a model makes. */
static void run(ay_test *t, const char *model, alloy_size size, float **latents, int64_t *n, unsigned char **pixels, size_t *m) {
    alloy_run_options o;
    ay_image im = {0};
    ay_safetensors *s;
    alloy_run_options_init(&o);
    o.prompt = "a red circle";
    o.steps = 2;
    o.seed = 3;
    o.image_size = size;
    o.save_latents = ay_test_path(t, "latents.safetensors");
    o.output = ay_test_path(t, "p.png");
    assert_ok(t->cx, alloy_run(t->cx, model, &o));
    assert_ok(t->cx, ay_st_open(t->cx, o.save_latents, &s));
    const ay_st_tensor *l = ay_st_find(s, "latents");
    assert_non_null(l);
    *n = ay_type_count(&l->type);
    *latents = ay_alloc(t->arena, l->bytes);
    memcpy(*latents, ay_st_data(s, l), l->bytes);
    ay_st_close(&s);
    assert_ok(t->cx, ay_image_read(t->cx, o.output, 1 << 24, &im));
    *m = (size_t)im.width * (size_t)im.height * (size_t)im.channels;
    *pixels = ay_alloc(t->arena, *m + 1);
    memcpy(*pixels, im.pixels, *m);
    ay_image_free(&im);
}

/* Equal, or (`bound` > 0) nearly. */
static void same_results(ay_test *t, const char *a, const char *b, alloy_size size, double bound) {
    float *x, *y;
    unsigned char *p, *q;
    int64_t n, m;
    size_t u, v;
    double error = 0, norm = 0;
    run(t, a, size, &x, &n, &p, &u);
    run(t, b, size, &y, &m, &q, &v);
    assert_true(n == m && u == v);
    for (int64_t i = 0; i < n; i++) {
        error += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        norm += (double)x[i] * x[i];
    }
    if (!(error <= bound * bound * norm)) fail_msg("%s and %s have other latents at %dx%d: %g", a, b, size.width, size.height, error / norm);
    for (size_t i = 0; i < u; i++) {
        if (abs(p[i] - q[i]) > (bound > 0)) fail_msg("%s and %s have other pictures at %dx%d", a, b, size.width, size.height);
    }
}

static size_t weight_size(ay_test *t, const char *package) {
    size_t n;
    ay_test_read(t, ay_test_join(t, package, "Data/com.apple.CoreML/weights/weight.bin"), &n);
    return n;
}

static size_t package_size(ay_test *t, const char *package) {
    size_t n, m;
    ay_test_read(t, ay_test_join(t, package, "Data/com.apple.CoreML/model.mlmodel"), &n);
    ay_test_read(t, ay_test_join(t, package, "Manifest.json"), &m);
    return n + m + weight_size(t, package);
}

/* ---- several sizes --------------------------------------------------------------------------------------------------- */

static void test_several_sizes(void **state) {
    static const char *const kinds[] = {"int4", "float16", "int8"};
    ay_test *t = *state;
    for (int i = 0; i < FAMILIES; i++) {
        const family *f = &families[i];
        const char *source = ay_flux_checkpoint(t, &f->c), *one[2], *both;
        alloy_convert_options o;
        for (int k = 0; k < 2; k++) {
            options(t, f, k ? "second" : "first", &o);
            o.quantization = kinds[i];
            o.image_size = f->sizes[k];
            one[k] = convert(t, source, &o);
        }
        options(t, f, "both", &o);
        o.quantization = kinds[i];
        o.image_size = (alloy_size){0, 0};
        o.target = NULL;
        o.sizes = f->sizes;
        o.num_sizes = 2;
        both = convert(t, source, &o);
        for (int k = 0; k < 2; k++) same_results(t, both, one[k], f->sizes[k], 0);
        same_results(t, both, one[0], f->sizes[2], 0);
        ay_model *m;
        assert_ok(t->cx, ay_model_open(t->cx, both, &m));
        for (int k = 0; k < m->n_parts; k++) {
            char *name = ay_sprintf(t->arena, "%s.mlpackage", m->parts[k].row->package);
            size_t n = weight_size(t, ay_test_join(t, both, name)), was = weight_size(t, ay_test_join(t, one[0], name));
            assert_true(n <= was + 65536);
            assert_int_equal(m->parts[k].n_functions, strstr(name, "TextEncoder") ? 1 : 2);
        }
        ay_model_close(&m);
    }
}

/* The functions by name: of predict, of info; and a name that is none. */
static void test_functions(void **state) {
    ay_test *t = *state;
    const family *f = &families[0];
    alloy_convert_options o;
    alloy_predict_options p;
    char *json;
    options(t, f, "m", &o);
    o.sizes = f->sizes;
    o.num_sizes = 2;
    const char *dir = convert(t, ay_flux_checkpoint(t, &f->c), &o), *package = ay_test_join(t, dir, "VAEDecoder.mlpackage");
    assert_ok(t->cx, alloy_info(t->cx, dir, &json));
    assert_contains(json, "size_32x32");
    assert_contains(json, "size_48x32");
    alloy_free(json);
    ay_package *pk;
    assert_ok(t->cx, ay_package_open(t->cx, package, &pk));
    const ay_package_info *info = ay_package_describe(pk);
    assert_string_equal(info->default_function, "size_32x32");
    for (int k = 0; k < 2; k++) {
        ay_tensor z = info->functions[k].inputs[0];
        int64_t n = ay_type_count(&z.type);
        z.type.dtype = AY_F32;
        z.data = ay_alloc(t->arena, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++) ((float *)z.data)[i] = (float)(i % 7) - 3;
        assert_ok(t->cx, ay_st_write(t->cx, ay_test_path(t, "in.safetensors"), &z, 1, NULL));
        alloy_predict_options_init(&p);
        p.function = info->functions[k].name;
        assert_ok(t->cx, alloy_predict(t->cx, package, ay_test_path(t, "in.safetensors"), ay_test_path(t, "out.safetensors"), &p));
        ay_safetensors *s;
        assert_ok(t->cx, ay_st_open(t->cx, ay_test_path(t, "out.safetensors"), &s));
        const ay_st_tensor *y = ay_st_find(s, "sample");
        assert_non_null(y);
        assert_int_equal(y->type.dim[3], strstr(p.function, "48") ? 48 : 32);
        ay_st_close(&s);
        p.function = NULL; /* the default takes the first size only */
        alloy_status st = alloy_predict(t->cx, package, ay_test_path(t, "in.safetensors"), ay_test_path(t, "out.safetensors"), &p);
        assert_int_equal(st, strstr(info->functions[k].name, "32x32") ? ALLOY_OK : ALLOY_E_MISMATCH);
    }
    p.function = "size_1x1";
    assert_fails(t->cx, alloy_predict(t->cx, package, ay_test_path(t, "in.safetensors"), ay_test_path(t, "out.safetensors"), &p), ALLOY_E_MISMATCH,
                 "has no function");
    ay_package_close(&pk);
}

/* ---- chains ---------------------------------------------------------------------------------------------------------- */

static void test_chains(void **state) {
    static const struct {
        const char *quantization, *target;
        int palette, sizes;
    } kinds[] = {{"int4", "macos15", 0, 2}, {"float16", "macos14", 0, 1}, {NULL, "macos14", 4, 1}, {"float32", "macos15", 0, 2}};
    ay_test *t = *state;
    for (int i = 0; i < 4; i++) {
        const family *f = &families[i % FAMILIES];
        const char *source = ay_flux_checkpoint(t, &f->c), *whole, *cut;
        alloy_convert_options o;
        size_t largest = 0;
        options(t, f, "whole", &o);
        o.quantization = kinds[i].quantization;
        o.target = kinds[i].target;
        o.palette = kinds[i].palette;
        if (kinds[i].sizes > 1) {
            o.sizes = f->sizes;
            o.num_sizes = 2;
        }
        whole = convert(t, source, &o);
        ay_model *m;
        assert_ok(t->cx, ay_model_open(t->cx, whole, &m));
        for (int k = 0; k < m->n_parts; k++) {
            size_t n = package_size(t, ay_sprintf(t->arena, "%s/%s.mlpackage", whole, m->parts[k].row->package));
            largest = n > largest ? n : largest;
        }
        ay_model_close(&m);
        o.name = "cut";
        o.max_package_size = (int64_t)largest * 2 / 3;
        cut = convert(t, source, &o);
        int links = 0;
        assert_ok(t->cx, ay_model_open(t->cx, cut, &m));
        for (int k = 0; k < m->n_parts; k++) {
            for (int l = 0; l < m->parts[k].n_links; l++, links++) {
                size_t n = package_size(t, ay_sprintf(t->arena, "%s/%s.mlpackage", cut, ay_part_package(t->arena, &m->parts[k], l)));
                if (n > (size_t)o.max_package_size) fail_msg("a package of %zu bytes, %lld allowed", n, (long long)o.max_package_size);
            }
        }
        assert_true(links > m->n_parts);
        ay_model_close(&m);
        print_message("%s: %d packages of at most %lld bytes\n", f->c.name, links, (long long)o.max_package_size);
        for (int k = 0; k < 3; k++) same_results(t, whole, cut, f->sizes[k], k < 2 && k < kinds[i].sizes ? 1e-5 : 0);
    }
}

/* A chain that does not fit together is said, by validate and by run. */
static void test_damaged_chain(void **state) {
    ay_test *t = *state;
    const family *f = &families[0];
    alloy_convert_options o;
    alloy_run_options r;
    int findings;
    options(t, f, "m", &o);
    o.components = "TextEncoder,TextEncoder2,Transformer,VAEDecoder";
    o.max_package_size = 250000;
    const char *dir = convert(t, ay_flux_checkpoint(t, &f->c), &o);
    ay_model *m;
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    int n = ay_model_find(m, "Transformer")->n_links;
    ay_model_close(&m);
    assert_true(n >= 2);
    const char *first = ay_sprintf(t->arena, "%s/Transformer_1of%d.mlpackage", dir, n), *second = ay_sprintf(t->arena, "%s/Transformer_2of%d.mlpackage", dir, n);
    alloy_run_options_init(&r);
    r.prompt = "x";
    r.steps = 1;
    r.output = ay_test_path(t, "p.png");
    const char *file = ay_test_join(t, first, "Data/com.apple.CoreML/weights/weight.bin"); /* one bit, which no number tells */
    size_t size;
    char *bytes = ay_test_read(t, file, &size);
    bytes[size / 2] ^= 1;
    ay_test_write(t, file, bytes, size);
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_int_equal(findings, 1);
    bytes[size / 2] ^= 1;
    ay_test_write(t, file, bytes, size);
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_int_equal(findings, 0);
    assert_ok(t->cx, ay_rename(t->cx, second, ay_test_path(t, "away")));
    assert_fails(t->cx, alloy_run(t->cx, dir, &r), ALLOY_E_IO, "no such package");
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_int_equal(findings, 1);
    assert_ok(t->cx, ay_rename(t->cx, first, second)); /* the wrong one in its place */
    assert_ok(t->cx, ay_rename(t->cx, ay_test_path(t, "away"), first));
    assert_int_not_equal(alloy_run(t->cx, dir, &r), ALLOY_OK);
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_true(findings > 0);
}

static void test_refused(void **state) {
    ay_test *t = *state;
    const family *f = &families[0];
    alloy_size many[20];
    const char *source = ay_flux_checkpoint(t, &f->c);
    alloy_convert_options o;
    for (int i = 0; i < 20; i++) many[i] = (alloy_size){32 * (i + 1), 32};
    options(t, f, "m", &o);
    o.sizes = many;
    o.num_sizes = 2;
    o.target = "macos14";
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "need --target macos15");
    o.target = "macos15";
    o.num_sizes = 20;
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "20 sizes");
    o.num_sizes = 2;
    many[1].width = 33;
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "33x32");
    many[1].width = -4;
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "-4x32");
    o.num_sizes = 0;
    o.max_package_size = 70000;
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "raise --max-package-size");
    o.max_package_size = 7;
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), ALLOY_E_USAGE, "hold no package");
    o.max_package_size = 0;
    many[1] = many[0];
    o.num_sizes = 2; /* twice the same is one */
    convert(t, source, &o);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_several_sizes), AY_TEST(test_functions), AY_TEST(test_chains), AY_TEST(test_damaged_chain),
                                       AY_TEST(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
