/* SPDX-License-Identifier: MIT
 *
 * Runs that start from pictures: image to image, inpainting with and without a checkpoint made for it, against diffusers
 * (tests/reference/tasks.py); and what does not go together.
 */
#include "../support/flux_case.h"
#include "../support/support.h"
#include "pipe/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

/* A model folder is converted once for all runs of a test. */
typedef struct converted {
    ay_flux_case c;
    const char *dir;
} converted;

static const char *model_of(ay_test *t, const json_t *run, const char *quantization, converted *all) {
    const char *family = json_string_value(json_object_get(run, "family")), *name = json_string_value(json_object_get(run, "case"));
    for (int i = 0; i < MOST; i++) {
        if (all[i].dir && strcmp(all[i].c.name, name) == 0) return all[i].dir;
        if (all[i].dir) continue;
        all[i].c = (ay_flux_case){name, false, family};
        if (strcmp(family, "flux") == 0) all[i].c.family = NULL;
        return all[i].dir = ay_flux_convert(t, &all[i].c, quantization, "macos14");
    }
    fail_msg("more than %d models", MOST);
    return NULL;
}

static const char *file_of(ay_test *t, const json_t *run, const char *key) {
    const char *name = json_string_value(json_object_get(run, key));
    return name ? ay_sprintf(t->arena, "%s/%s", ay_test_golden(t, "tasks"), name) : NULL;
}

static void read_options(ay_test *t, const json_t *run, alloy_run_options *o) {
    const json_t *n = json_object_get(run, "num_images"), *strength = json_object_get(run, "strength");
    ay_check_run_options(run, ay_test_path(t, "picture-%d.png"), o);
    o->image = file_of(t, run, "image");
    o->mask = file_of(t, run, "mask");
    if (n) o->num_images = (int)json_integer_value(n);
    if (strength) o->strength = json_number_value(strength);
    o->clip_skip = ay_flux_number(run, "clip_skip");
}

static json_t *all_runs(ay_test *t) {
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, ay_sprintf(t->arena, "%s/pictures.json", ay_test_golden(t, "tasks")), &j));
    return j;
}

static void check_pictures(ay_test *t, const char *quantization, double bound) {
    json_t *runs = all_runs(t), *run, *file;
    converted all[MOST] = {0};
    size_t i, k;
    json_array_foreach(runs, i, run) {
        alloy_run_options o;
        if (json_object_get(run, "control_image")) continue; /* test_control.c */
        read_options(t, run, &o);
        const char *dir = model_of(t, run, quantization, all);
        assert_ok(t->cx, alloy_run(t->cx, dir, &o));
        json_array_foreach(json_object_get(run, "files"), k, file) {
            const char *name = json_string_value(file);
            ay_image got, want;
            ay_check_read_rgb(t, ay_test_path(t, ay_sprintf(t->arena, "picture-%d.png", (int)k + 1)), &got);
            ay_check_read_rgb(t, ay_sprintf(t->arena, "%s/%s", ay_test_golden(t, "tasks"), name), &want);
            double v = ay_image_psnr(&got, &want);
            print_message("%s %s %s: PSNR %.1f dB\n", json_string_value(json_object_get(run, "case")), quantization, name, v);
            assert_true(v >= bound);
            ay_image_free(&got);
            ay_image_free(&want);
        }
    }
    assert_true(i >= 9);
    json_decref(runs);
}

static void test_pictures_float32(void **state) { check_pictures(*state, "float32", 55); }
static void test_pictures_float16(void **state) { check_pictures(*state, "float16", 40); }

/* Brackets in any order, against tests/reference/prompts.py; empty phrases are none. */
static void test_phrases(void **state) {
    ay_test *t = *state;
    json_t *all, *row, *want;
    size_t i, k;
    assert_ok(t->cx, ay_json_read(t->cx, ay_sprintf(t->arena, "%s/phrases.json", ay_test_golden(t, "tasks")), &all));
    json_array_foreach(all, i, row) {
        const char *text = json_string_value(json_array_get(row, 0));
        ay_phrase *got;
        int n, at = 0;
        assert_ok(t->cx, ay_prompt_phrases(t->cx, text, t->arena, &got, &n));
        json_array_foreach(json_array_get(row, 1), k, want) {
            const char *words = json_string_value(json_array_get(want, 0));
            double weight = json_number_value(json_array_get(want, 1));
            if (!*words) continue;
            if (at >= n || strcmp(got[at].text, words) != 0 || fabs(got[at].weight - weight) > 1e-12)
                fail_msg("\"%s\": phrase %d is \"%s\" with %g, expected \"%s\" with %g", text, at, at < n ? got[at].text : "missing",
                         at < n ? got[at].weight : 0, words, weight);
            at++;
        }
        assert_int_equal(at, n);
    }
    assert_true(i > 100);
    json_decref(all);
    char *deep = ay_alloc(t->arena, 2001);
    memset(deep, '(', 2000);
    ay_phrase *none;
    int n;
    assert_fails(t->cx, ay_prompt_phrases(t->cx, deep, t->arena, &none, &n), ALLOY_E_USAGE, "more than 256 brackets");
}

static void fails(ay_test *t, const char *dir, const alloy_run_options *o, const char *words) {
    assert_int_not_equal(alloy_run(t->cx, dir, o), ALLOY_OK);
    assert_contains(alloy_error(t->cx), words);
}

static void test_what_does_not_go_together(void **state) {
    ay_test *t = *state;
    static const ay_flux_case sd15 = {"sd15", false, "sd"}, inpaint = {"inpaint", false, "tasks"};
    const char *dir = ay_flux_convert(t, &sd15, "float16", "macos14"), *scene = ay_sprintf(t->arena, "%s/scene.png", ay_test_golden(t, "tasks"));
    const char *mask = ay_sprintf(t->arena, "%s/mask.png", ay_test_golden(t, "tasks")), *golden = ay_flux_golden(t, &sd15, "32x32.png");
    alloy_run_options o, good;
    alloy_run_options_init(&good);
    good.prompt = "a red circle";
    good.output = ay_test_path(t, "picture.png");
    good.steps = 2;
    good.image = scene;
    o = good, o.strength = 1.5;
    fails(t, dir, &o, "a strength of 1.5: from 0 (hardly changed) to 1");
    o = good, o.strength = 0.4;
    fails(t, dir, &o, "leaves none of 2 steps to make; ask for at least 0.5");
    o = good, o.clip_skip = 2;
    fails(t, dir, &o, "2 layers of the text encoder to skip: it has 2, so that 0 to 1 can be");
    o = good, o.image = NULL, o.strength = 0.5;
    fails(t, dir, &o, "give the picture with --image");
    o = good, o.image = NULL, o.mask = mask;
    fails(t, dir, &o, "give the picture with --image");
    o = good, o.mask = golden;
    fails(t, dir, &o, "the mask is 32x32, but the picture");
    o = good, o.mask = "alpha";
    fails(t, dir, &o, "has no transparent parts");
    o = good, o.image = ay_test_path(t, "none.png");
    fails(t, dir, &o, "none.png");
    ay_test_write(t, o.image, "\x89PNG\r\n\x1a\nnot at all", 18);
    fails(t, dir, &o, "the PNG file is damaged");
    ay_test_write(t, o.image, "text", 4);
    fails(t, dir, &o, "is no PNG, JPEG or WebP picture");
    dir = ay_flux_convert(t, &inpaint, "float16", "macos14");
    o = good;
    fails(t, dir, &o, "this checkpoint is for inpainting; give it a picture and a mask");
}

/* A transparent part of the picture as the mask, which is how a picture is extended beyond its edges. */
static void test_mask_from_alpha(void **state) {
    ay_test *t = *state;
    static const ay_flux_case sd15 = {"sd15", false, "sd"};
    const char *dir = ay_flux_convert(t, &sd15, "float32", "macos14"), *see_through = ay_test_path(t, "alpha.png"), *mask = ay_test_path(t, "mask.png");
    ay_image im = {48, 32, 4, malloc((size_t)48 * 32 * 4)}, white = {48, 32, 1, malloc((size_t)48 * 32)}, first;
    for (int i = 0; i < 48 * 32; i++) {
        white.pixels[i] = i % 48 >= 32 ? 255 : 0;
        im.pixels[4 * i] = (uint8_t)(5 * (i % 48));
        im.pixels[4 * i + 1] = 90;
        im.pixels[4 * i + 2] = (uint8_t)(7 * (i / 48));
        im.pixels[4 * i + 3] = (uint8_t)(255 - white.pixels[i]);
    }
    assert_ok(t->cx, ay_png_write(t->cx, see_through, &im, NULL));
    assert_ok(t->cx, ay_png_write(t->cx, mask, &white, NULL));
    alloy_run_options o;
    alloy_run_options_init(&o);
    o.prompt = "a red circle";
    o.output = ay_test_path(t, "picture.png");
    o.steps = 3;
    o.image = see_through;
    o.mask = mask;
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    ay_check_read_rgb(t, o.output, &first);
    assert_int_equal(first.width, 48);
    assert_int_equal(first.height, 32);
    o.mask = "alpha";
    assert_true(ay_check_psnr(t, dir, &o, &first) >= 200);
    ay_image_free(&first);
    ay_image_free(&white);
    ay_image_free(&im);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_pictures_float32),
        AY_TEST(test_pictures_float16),
        AY_TEST(test_phrases),
        AY_TEST(test_what_does_not_go_together),
        AY_TEST(test_mask_from_alpha),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
