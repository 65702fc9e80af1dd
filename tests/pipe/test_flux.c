/* SPDX-License-Identifier: MIT
 *
 * FLUX.1 from a checkpoint folder to pixels, against diffusers (tests/reference/flux.py). Each case's checkpoint is written
 * anew from its manifests; its weights are hashes of their names.
 */
#include "../support/flux_case.h"
#include "../support/hashweights.h"
#include "../support/support.h"
#include "base/rng.h"
#include "pipe/pipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- components ------------------------------------------------------------------------------------------------------- */

static void test_components_float32(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_components(*state, &ay_flux_cases[i], "float32", "macos14", false, 1e-5);
}
static void test_components_float16(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_components(*state, &ay_flux_cases[i], "float16", "macos14", false, 3e-3);
    ay_check_components(*state, &ay_flux_cases[0], "float16", "macos15", false, 3e-3);
}
static void test_components_emulated(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_components(*state, &ay_flux_cases[i], "float16", "macos14", true, 1e-2);
}

/* ---- pictures ------------------------------------------------------------------------------------------------------------ */

static void test_pictures_float32(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_pictures(*state, &ay_flux_cases[i], "float32", NULL, 60);
}
static void test_pictures_float16(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_pictures(*state, &ay_flux_cases[i], "float16", NULL, 40);
}
static void test_pictures_emulated(void **state) {
    for (int i = 0; i < AY_FLUX_CASES; i++) ay_check_pictures(*state, &ay_flux_cases[i], "float16", "float16", 35);
}

/* What should change a picture does; what should not does not. */
static void test_what_changes_a_picture(void **state) {
    ay_test *t = *state;
    const ay_flux_case *c = &ay_flux_cases[1];
    const char *dir = ay_flux_convert(t, c, "float32", "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, c);
    alloy_run_options o;
    ay_image first;
    ay_check_run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    ay_check_read_rgb(t, out, &first);
    assert_true(ay_check_psnr(t, dir, &o, &first) >= 200);
    alloy_run_options other = o;
    other.prompt = "two red stars";
    double v = ay_check_psnr(t, dir, &other, &first);
    print_message("another prompt: %.1f dB\n", v);
    assert_true(v < 30);
    other = o;
    other.seed++;
    assert_true(ay_check_psnr(t, dir, &other, &first) < 30);
    other = o;
    other.guidance_scale = 9;
    v = ay_check_psnr(t, dir, &other, &first);
    print_message("another guidance: %.1f dB\n", v);
    assert_true(v < 30);
    /* one block of three: its projections grow by a half, by another gain for the hashes of their names */
    size_t n;
    const char *manifest = ay_sprintf(t->arena, "%s/%s/transformer/manifest.txt", ay_test_golden(t, "flux"), c->name);
    char *rows = ay_test_read(t, manifest, &n), *changed = ay_sprintf(t->arena, "@gain transformer_blocks.1.*weight 1.8\n%s", rows);
    ay_test_write(t, ay_test_path(t, "manifest.txt"), changed, strlen(changed));
    const char *checkpoint = ay_test_path(t, c->name);
    assert_ok(t->cx, ay_hash_write(t->cx, ay_test_path(t, "manifest.txt"),
                                   ay_test_join(t, checkpoint, "transformer/diffusion_pytorch_model.safetensors")));
    alloy_convert_options co;
    alloy_convert_options_init(&co);
    co.output_dir = ay_test_path(t, "out");
    co.name = "block";
    co.quantization = "float32";
    co.image_size = o.image_size;
    co.text_length = ay_flux_number(j, "text_length");
    assert_ok(t->cx, alloy_convert(t->cx, checkpoint, &co));
    v = ay_check_psnr(t, ay_test_path(t, "out/block"), &o, &first);
    print_message("another block: %.1f dB\n", v);
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
    ay_check_run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    ay_check_read_rgb(t, out, &first);
    char *bytes = ay_test_read(t, model, &n);
    int changed = 0;
    for (size_t i = 0; i + 6 < n; i++) { /* field 1, length 4: the type of an operation */
        if (memcmp(bytes + i, "\x0a\x04silu", 6) == 0) memcpy(bytes + i + 2, "tanh", 4), changed++;
        if (changed) break;
    }
    assert_int_equal(changed, 1);
    ay_test_write(t, model, bytes, n);
    double v = ay_check_psnr(t, dir, &o, &first);
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
        ay_check_run_options(json_array_get(json_object_get(j, "pictures"), 1), ay_test_path(t, "p.png"), &o);
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
    ay_check_run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
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
