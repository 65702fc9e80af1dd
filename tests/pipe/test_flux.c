/* SPDX-License-Identifier: MIT
 *
 * FLUX.1 from a checkpoint folder to pixels, against diffusers (tests/reference/flux.py). Each case's checkpoint is written
 * anew from its manifests; its weights are hashes of their names.
 */
#include "../support/flux_case.h"
#include "../support/support.h"
#include "base/rng.h"
#include "pipe/pipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const packages[] = {"TextEncoder", "TextEncoder2", "Transformer", "VAEDecoder", "VAEEncoder"};

/* ---- components ------------------------------------------------------------------------------------------------------- */

static double relative(const float *got, const float *want, int64_t n) {
    double d = 0, w = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return isfinite(d) ? sqrt(d / w) : HUGE_VAL;
}

/* Runs one component on the golden inputs; the largest relative L2 error of its outputs against `want` (or the golden
 * outputs when NULL), results in `got` (may be NULL). */
static double component_error(ay_test *t, ay_component *c, const ay_safetensors *io, const char *package, ay_tensor *got, const ay_tensor *want) {
    int n_in, n_out;
    const ay_tensor *ins = ay_component_inputs(c, &n_in), *outs = ay_component_outputs(c, &n_out);
    ay_tensor in[8], out[4];
    double worst = 0;
    for (int i = 0; i < n_in; i++) {
        const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "%s.%s", package, ins[i].name));
        assert_non_null(s);
        in[i] = (ay_tensor){ins[i].name, s->type, (void *)ay_st_data(io, s)};
    }
    for (int i = 0; i < n_out; i++) {
        out[i] = outs[i];
        out[i].type.dtype = AY_F32;
        out[i].data = ay_alloc(t->arena, ay_dtype_bytes(AY_F32, ay_type_count(&out[i].type)));
    }
    assert_ok(t->cx, ay_component_run(t->cx, c, in, n_in, out, n_out));
    for (int i = 0; i < n_out; i++) {
        const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "%s.%s", package, outs[i].name));
        assert_non_null(s);
        assert_int_equal(ay_type_count(&s->type), ay_type_count(&out[i].type));
        double e = relative(out[i].data, want ? want[i].data : ay_st_data(io, s), ay_type_count(&s->type));
        if (e > worst) worst = e;
        if (got) got[i] = out[i];
    }
    return worst;
}

static void check_components(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target, bool emulate, double bound) {
    const char *dir = ay_flux_convert(t, c, quantization, target);
    ay_safetensors *io;
    ay_model *m;
    ay_exec_options exec = {.emulate_f16 = emulate};
    assert_ok(t->cx, ay_st_open(t->cx, ay_sprintf(t->arena, "%s/%s/io.safetensors", ay_test_golden(t, "flux"), c->name), &io));
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    for (size_t i = 0; i < sizeof packages / sizeof packages[0]; i++) {
        ay_component *own, *anew;
        ay_tensor got[4];
        const ay_model_part *part = ay_model_find(m, packages[i]);
        assert_ok(t->cx, ay_component_open(t->cx, m, packages[i], &part->sizes, &exec, &own));
        assert_ok(t->cx, ay_component_rebuild(t->cx, m, packages[i], &part->sizes, &exec, &anew));
        double e = component_error(t, own, io, packages[i], got, NULL), same = component_error(t, anew, io, packages[i], NULL, got);
        print_message("%s %-8s %s%s %-12s error %.2e, program against graph %.2e\n", c->name, quantization, target, emulate ? " emulated" : "",
                      packages[i], e, same);
        assert_true(e <= bound);
        if (!emulate) assert_true(same <= (strcmp(quantization, "float32") == 0 ? 1e-5 : 1e-3));
        ay_component_close(&own);
        ay_component_close(&anew);
    }
    ay_model_close(&m);
    ay_st_close(&io);
}

static void test_components_float32(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_components(*state, &ay_flux_cases[i], "float32", "macos14", false, 1e-4);
}
static void test_components_float16(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_components(*state, &ay_flux_cases[i], "float16", "macos14", false, 3e-3);
    check_components(*state, &ay_flux_cases[0], "float16", "macos15", false, 3e-3);
}
static void test_components_emulated(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_components(*state, &ay_flux_cases[i], "float16", "macos14", true, 1e-2);
}

/* ---- pictures ------------------------------------------------------------------------------------------------------------ */

static double psnr(const ay_image *a, const ay_image *b) {
    double sum = 0;
    size_t n = (size_t)a->width * (size_t)a->height * 3;
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, 3);
    assert_int_equal(b->channels, 3);
    for (size_t i = 0; i < n; i++) {
        double d = (double)a->pixels[i] - b->pixels[i];
        sum += d * d;
    }
    return sum > 0 ? 10 * log10(255.0 * 255.0 / (sum / (double)n)) : 200;
}

static void read_rgb(ay_test *t, const char *path, ay_image *im) {
    assert_ok(t->cx, ay_image_read(t->cx, path, 1 << 24, im));
    if (im->channels == 3) return;
    assert_int_equal(im->channels, 4);
    for (int64_t i = 0; i < (int64_t)im->width * im->height; i++) memmove(im->pixels + 3 * i, im->pixels + 4 * i, 3);
    im->channels = 3;
}

static void run_options(const json_t *p, const char *output, alloy_run_options *o) {
    alloy_run_options_init(o);
    o->prompt = json_string_value(json_object_get(p, "prompt"));
    o->seed = (uint64_t)ay_flux_number(p, "seed");
    o->steps = ay_flux_number(p, "steps");
    o->guidance_scale = json_number_value(json_object_get(p, "guidance_scale"));
    o->image_size = (alloy_size){ay_flux_number(p, "width"), ay_flux_number(p, "height")};
    o->output = output;
}

/* The picture that `o` asks for against `want`. */
static double picture_psnr(ay_test *t, const char *model, const alloy_run_options *o, const ay_image *want) {
    ay_image im;
    assert_ok(t->cx, alloy_run(t->cx, model, o));
    read_rgb(t, o->output, &im);
    double v = psnr(&im, want);
    ay_image_free(&im);
    return v;
}

static void check_pictures(ay_test *t, const ay_flux_case *c, const char *quantization, const char *emulate, double bound) {
    const char *dir = ay_flux_convert(t, c, quantization, "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, c), *p;
    size_t i;
    json_array_foreach(json_object_get(j, "pictures"), i, p) {
        alloy_run_options o;
        ay_image want;
        run_options(p, out, &o);
        o.emulate = emulate;
        read_rgb(t, ay_sprintf(t->arena, "%s/%s/%s", ay_test_golden(t, "flux"), c->name, json_string_value(json_object_get(p, "file"))), &want);
        double v = picture_psnr(t, dir, &o, &want);
        print_message("%s %s%s %dx%d: PSNR %.1f dB\n", c->name, quantization, emulate ? " emulated" : "", o.image_size.width, o.image_size.height, v);
        assert_true(v >= bound);
        ay_image_free(&want);
    }
    json_decref(j);
}

static void test_pictures_float32(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], "float32", NULL, 60);
}
static void test_pictures_float16(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], "float16", NULL, 40);
}
static void test_pictures_emulated(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) check_pictures(*state, &ay_flux_cases[i], "float16", "float16", 35);
}

/* What should change a picture does; what should not does not. */
static void test_what_changes_a_picture(void **state) {
    ay_test *t = *state;
    const ay_flux_case *c = &ay_flux_cases[1];
    const char *dir = ay_flux_convert(t, c, "float32", "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, c);
    alloy_run_options o;
    ay_image first;
    run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    read_rgb(t, out, &first);
    assert_true(picture_psnr(t, dir, &o, &first) >= 200);
    alloy_run_options other = o;
    other.prompt = "two red stars";
    double v = picture_psnr(t, dir, &other, &first);
    print_message("another prompt: %.1f dB\n", v);
    assert_true(v < 30);
    other = o;
    other.seed++;
    assert_true(picture_psnr(t, dir, &other, &first) < 30);
    other = o;
    other.guidance_scale = 9;
    v = picture_psnr(t, dir, &other, &first);
    print_message("another guidance: %.1f dB\n", v);
    assert_true(v < 30);
    ay_image_free(&first);
    json_decref(j);
}

/* At its own size a folder runs the package's own program: a byte changed there changes the picture. */
static void test_runs_the_package(void **state) {
    ay_test *t = *state;
    const ay_flux_case *c = &ay_flux_cases[0];
    const char *dir = ay_flux_convert(t, c, "float32", "macos14"), *out = ay_test_path(t, "picture.png");
    const char *model = ay_test_join(t, dir, "Transformer.mlpackage/Data/com.apple.CoreML/model.mlmodel");
    json_t *j = ay_flux_pictures(t, c);
    alloy_run_options o;
    ay_image first;
    size_t n;
    run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    read_rgb(t, out, &first);
    char *bytes = ay_test_read(t, model, &n);
    int changed = 0;
    for (size_t i = 0; i + 6 < n; i++) { /* field 1, length 4: the type of an operation */
        if (memcmp(bytes + i, "\x0a\x04silu", 6) == 0) memcpy(bytes + i + 2, "tanh", 4), changed++;
        if (changed) break;
    }
    assert_int_equal(changed, 1);
    ay_test_write(t, model, bytes, n);
    double v = picture_psnr(t, dir, &o, &first);
    print_message("one silu made tanh: %.1f dB\n", v);
    assert_true(v < 40);
    ay_image_free(&first);
    json_decref(j);
}

static void test_same_bits_for_any_threads(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14");
    json_t *j = ay_flux_pictures(t, &ay_flux_cases[0]);
    char *bytes[3];
    size_t n[3];
    for (int threads = 1; threads <= 3; threads++) {
        alloy_ctx_options co;
        alloy_ctx *cx;
        alloy_run_options o;
        alloy_ctx_options_init(&co);
        co.threads = threads;
        assert_int_equal(alloy_ctx_open(&co, &cx), ALLOY_OK);
        run_options(json_array_get(json_object_get(j, "pictures"), 1), ay_test_path(t, "p.png"), &o);
        o.save_latents = ay_test_path(t, "latents.safetensors");
        assert_ok(cx, alloy_run(cx, dir, &o));
        bytes[threads - 1] = ay_test_read(t, o.save_latents, &n[threads - 1]);
        alloy_ctx_close(&cx);
        assert_int_equal(n[0], n[threads - 1]);
        assert_memory_equal(bytes[0], bytes[threads - 1], n[0]);
    }
    json_decref(j);
}

/* The same checkpoint gives the same bytes. */
static void test_same_packages(void **state) {
    ay_test *t = *state;
    size_t n[2];
    char *bytes[2];
    for (int i = 0; i < 2; i++) {
        const char *dir = ay_flux_convert(t, &ay_flux_cases[2], "float16", "macos14");
        bytes[i] = ay_test_read(t, ay_test_join(t, dir, "Transformer.mlpackage/Manifest.json"), &n[i]);
        assert_ok(t->cx, ay_remove_tree(t->cx, dir));
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
}

/* --latents takes the noise, --save-latents gives what is decoded; the settings are in the picture. */
static void test_latents_and_settings(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float32", "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, &ay_flux_cases[0]);
    alloy_run_options o;
    run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    size_t n, m;
    char *first = ay_test_read(t, out, &n);
    float noise[4 * 16 * 16];
    ay_rng r;
    ay_rng_seed(&r, o.seed);
    ay_rng_normal(&r, noise, sizeof noise / sizeof noise[0]);
    ay_tensor latents = {"latents", {AY_F32, 4, {1, 4, 16, 16}}, noise};
    o.latents = ay_test_path(t, "noise.safetensors");
    assert_ok(t->cx, ay_st_write(t->cx, o.latents, &latents, 1, NULL));
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    char *second = ay_test_read(t, out, &m);
    assert_int_equal(n, m);
    assert_memory_equal(first, second, n);
    char **text;
    assert_ok(t->cx, ay_png_text(t->cx, out, t->arena, &text));
    assert_string_equal(text[0], "parameters");
    assert_contains(text[1], "a red circle on a blue background\nSteps: 4, Sampler: Euler");
    assert_contains(text[1], "Seed: 7, Size: 32x32");
    json_decref(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_components_float32),
        AY_TEST(test_components_float16),
        AY_TEST(test_components_emulated),
        AY_TEST(test_pictures_float32),
        AY_TEST(test_pictures_float16),
        AY_TEST(test_pictures_emulated),
        AY_TEST(test_what_changes_a_picture),
        AY_TEST(test_runs_the_package),
        AY_TEST(test_same_bits_for_any_threads),
        AY_TEST(test_same_packages),
        AY_TEST(test_latents_and_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
