/* SPDX-License-Identifier: MIT
 *
 * SDXL's refiner: from a picture, and in the place of the base model's last steps; against diffusers
 * (tests/reference/refiner.py).
 */
#include "../support/flux_case.h"
#include "../support/support.h"

#include <string.h>

static const ay_flux_case refiner = {"refiner", false, "refiner"}, base = {"sdxl", false, "sd"};

static void test_components_float32(void **state) { ay_check_components(*state, &refiner, "float32", "macos14", false, 1e-5); }
static void test_components_emulated(void **state) { ay_check_components(*state, &refiner, "float16", "macos14", true, 1e-2); }

static void check_pictures(ay_test *t, const char *quantization, double bound) {
    const char *dir = ay_flux_convert(t, &refiner, quantization, "macos14"), *scene = ay_sprintf(t->arena, "%s/scene.png", ay_test_golden(t, "tasks"));
    json_t *j = ay_flux_pictures(t, &refiner), *p;
    size_t i;
    json_array_foreach(json_object_get(j, "pictures"), i, p) {
        alloy_run_options o;
        ay_image want;
        ay_check_run_options(p, ay_test_path(t, "picture.png"), &o);
        o.image = scene;
        o.strength = json_number_value(json_object_get(p, "strength"));
        ay_check_read_rgb(t, ay_flux_golden(t, &refiner, json_string_value(json_object_get(p, "file"))), &want);
        double v = ay_check_psnr(t, dir, &o, &want);
        print_message("refiner %s %zu: PSNR %.1f dB\n", quantization, i, v);
        assert_true(v >= bound);
        ay_image_free(&want);
    }
    json_decref(j);
}
static void test_pictures(void **state) {
    check_pictures(*state, "float32", 55);
    check_pictures(*state, "float16", 40);
}

/* The base model's first steps, the refiner's last. */
static void test_chain(void **state) {
    ay_test *t = *state;
    const char *first = ay_flux_convert(t, &base, "float32", "macos14"), *second = ay_flux_convert(t, &refiner, "float32", "macos14");
    const char *latents = ay_test_path(t, "latents.safetensors");
    json_t *j = ay_flux_pictures(t, &refiner), *chain = json_object_get(j, "chain");
    alloy_run_options o;
    ay_image want;
    ay_check_run_options(chain, ay_test_path(t, "picture.png"), &o);
    o.denoising_end = json_number_value(json_object_get(chain, "split"));
    o.save_latents = latents;
    assert_ok(t->cx, alloy_run(t->cx, first, &o));
    o.denoising_start = o.denoising_end;
    o.denoising_end = 0;
    o.save_latents = NULL;
    o.latents = latents;
    ay_check_read_rgb(t, ay_flux_golden(t, &refiner, json_string_value(json_object_get(chain, "file"))), &want);
    double v = ay_check_psnr(t, second, &o, &want);
    print_message("base and refiner: PSNR %.1f dB\n", v);
    assert_true(v >= 55);
    ay_image_free(&want);
    json_decref(j);
}

static void fails(ay_test *t, const char *dir, const alloy_run_options *o, const char *words) {
    assert_int_equal(alloy_run(t->cx, dir, o), ALLOY_E_USAGE);
    assert_contains(alloy_error(t->cx), words);
}

static void test_refused(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &refiner, "float16", "macos14");
    alloy_run_options o, good;
    alloy_run_options_init(&good);
    good.prompt = "a red circle";
    good.output = ay_test_path(t, "picture.png");
    o = good;
    fails(t, dir, &o, "refines pictures");
    o = good, o.denoising_start = 0.8;
    fails(t, dir, &o, "--latents");
    o = good, o.denoising_start = 0.8, o.denoising_end = 0.5, o.latents = "none";
    fails(t, dir, &o, "in this order");
    o = good, o.denoising_start = 1.5;
    fails(t, dir, &o, "shares from 0 to 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_components_float32), AY_TEST(test_components_emulated), AY_TEST(test_pictures), AY_TEST(test_chain), AY_TEST(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
