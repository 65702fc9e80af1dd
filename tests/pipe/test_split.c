/* SPDX-License-Identifier: MIT
 *
 * UNets in the Neural Engine's layout (convert --attention split-einsum), against diffusers' numbers of tests/reference/sd.py:
 * the package's own program, pictures of its size and, from graphs built anew, of others; stored in every way.
 */
#include "../support/flux_case.h"
#include "../support/support.h"

#include <math.h>
#include <string.h>

static const ay_flux_case cases[] = {{"sd15", false, "sd"}, {"sd2", false, "sd"}, {"sdxl", true, "sd"}};
enum { CASES = 3 };

static void options(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target, alloy_convert_options *o) {
    json_t *j = ay_flux_pictures(t, c);
    alloy_convert_options_init(o);
    o->output_dir = ay_test_path(t, "out");
    o->name = ay_sprintf(t->arena, "%s-%s", c->name, quantization);
    o->quantization = quantization;
    o->target = target;
    o->attention = "split-einsum";
    o->image_size = (alloy_size){ay_flux_number(j, "width"), ay_flux_number(j, "height")};
    o->text_length = ay_flux_number(j, "text_length");
    json_decref(j);
}

static const char *convert(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target) {
    alloy_convert_options o;
    options(t, c, quantization, target, &o);
    assert_ok(t->cx, alloy_convert(t->cx, ay_flux_checkpoint(t, c), &o));
    return ay_test_join(t, o.output_dir, o.name);
}

/* The UNet's golden inputs as a file for alloy_predict, the golden result as numbers. */
static const float *golden(ay_test *t, const ay_flux_case *c, const char *inputs, int64_t *n) {
    ay_safetensors *io;
    ay_tensor in[8];
    int k = 0;
    float *want = NULL;
    assert_ok(t->cx, ay_st_open(t->cx, ay_flux_golden(t, c, "io.safetensors"), &io));
    for (int i = 0; i < io->n; i++) {
        const ay_st_tensor *s = &io->tensors[i];
        if (strncmp(s->name, "UNet.", 5) != 0) continue;
        if (strcmp(s->name, "UNet.noise_pred") != 0) {
            in[k++] = (ay_tensor){s->name + 5, s->type, (void *)(uintptr_t)ay_st_data(io, s)};
            continue;
        }
        *n = ay_type_count(&s->type);
        want = ay_alloc(t->arena, (size_t)*n * sizeof *want);
        memcpy(want, ay_st_data(io, s), (size_t)*n * sizeof *want);
    }
    assert_ok(t->cx, ay_st_write(t->cx, inputs, in, k, NULL));
    ay_st_close(&io);
    return want;
}

static double error(ay_test *t, const ay_flux_case *c, const char *model, const char *emulate) {
    const char *inputs = ay_test_path(t, "in.safetensors"), *outputs = ay_test_path(t, "out.safetensors");
    int64_t n = 0;
    const float *want = golden(t, c, inputs, &n);
    alloy_predict_options o;
    ay_safetensors *got;
    alloy_predict_options_init(&o);
    o.emulate = emulate;
    assert_ok(t->cx, alloy_predict(t->cx, ay_test_join(t, model, "UNet.mlpackage"), inputs, outputs, &o));
    assert_ok(t->cx, ay_st_open(t->cx, outputs, &got));
    const ay_st_tensor *s = ay_st_find(got, "noise_pred");
    assert_non_null(s);
    assert_int_equal(ay_type_count(&s->type), n);
    float *x = ay_alloc(t->arena, (size_t)n * sizeof *x);
    ay_convert_to_f32(s->type.dtype, ay_st_data(got, s), 0, n, x);
    double d = 0, w = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)x[i] - want[i]) * ((double)x[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    ay_st_close(&got);
    return sqrt(d / w);
}

static double worst_picture(ay_test *t, const ay_flux_case *c, const char *model) {
    json_t *j = ay_flux_pictures(t, c), *p;
    size_t i;
    double least = 200;
    json_array_foreach(json_object_get(j, "pictures"), i, p) {
        alloy_run_options o;
        ay_image want;
        ay_check_run_options(p, ay_test_path(t, "picture.png"), &o);
        ay_check_read_rgb(t, ay_flux_golden(t, c, json_string_value(json_object_get(p, "file"))), &want);
        least = fmin(least, ay_check_psnr(t, model, &o, &want));
        ay_image_free(&want);
    }
    json_decref(j);
    return least;
}

static void test_float32(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const char *model = convert(t, &cases[i], "float32", NULL);
        double e = error(t, &cases[i], model, NULL), p = worst_picture(t, &cases[i], model);
        print_message("%s: %.1e, %.1f dB\n", cases[i].name, e, p);
        assert_true(e <= 1e-4 && p >= 55);
    }
}

static void test_float16(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const char *model = convert(t, &cases[i], "float16", NULL);
        double e = error(t, &cases[i], model, NULL), h = error(t, &cases[i], model, "float16"), p = worst_picture(t, &cases[i], model);
        print_message("%s: %.1e, rounded after every operation %.1e, %.1f dB\n", cases[i].name, e, h, p);
        assert_true(e <= 3e-3 && h <= 1e-2 && p >= 40);
    }
}

/* The same weights in the same bits as in the plain layout, so the same pictures. */
static void test_quantized(void **state) {
    ay_test *t = *state;
    static const char *const kinds[][2] = {{"int8", "macos14"}, {"int4", "macos14"}, {"int4", "macos15"}};
    for (int i = 0; i < 3; i++) {
        const char *split = convert(t, &cases[0], kinds[i][0], kinds[i][1]);
        alloy_convert_options o;
        options(t, &cases[0], kinds[i][0], kinds[i][1], &o);
        o.attention = "plain";
        o.name = "plain";
        o.force = true;
        assert_ok(t->cx, alloy_convert(t->cx, ay_test_path(t, cases[0].name), &o));
        double e = error(t, &cases[0], split, NULL), f = error(t, &cases[0], ay_test_path(t, "out/plain"), NULL);
        print_message("%s for %s: %.3e, plain %.3e\n", kinds[i][0], kinds[i][1], e, f);
        assert_true(fabs(e - f) <= 0.02 * f);
        assert_ok(t->cx, ay_remove_tree(t->cx, split));
    }
}

static void test_refusals(void **state) {
    ay_test *t = *state;
    alloy_convert_options o;
    options(t, &cases[0], "float32", NULL, &o);
    const char *dir = ay_flux_checkpoint(t, &cases[0]);
    o.attention = "round";
    assert_fails(t->cx, alloy_convert(t->cx, dir, &o), ALLOY_E_USAGE, "plain and split-einsum are");
    options(t, &ay_flux_cases[0], "float32", NULL, &o);
    assert_fails(t->cx, alloy_convert(t->cx, ay_flux_checkpoint(t, &ay_flux_cases[0]), &o), ALLOY_E_USAGE, "leave --attention out");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_float32), AY_TEST(test_float16), AY_TEST(test_quantized), AY_TEST(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
