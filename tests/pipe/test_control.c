/* SPDX-License-Identifier: MIT
 *
 * ControlNets: their packages and the pictures they lead to against diffusers, edges against OpenCV (tests/reference/tasks.py),
 * and what does not go together.
 */
#include "../support/flux_case.h"
#include "../support/hashweights.h"
#include "../support/support.h"
#include "pipe/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const ay_flux_case sd15 = {"sd15", false, "sd"}, sdxl = {"sdxl", false, "sd"};

static const char *golden(ay_test *t, const char *name) { return ay_sprintf(t->arena, "%s/%s", ay_test_golden(t, "tasks"), name); }

/* The ControlNet's folder made anew and converted, at its base's size. */
static const char *convert_net(ay_test *t, const ay_flux_case *base, const char *quantization) {
    const char *from = golden(t, ay_sprintf(t->arena, "controlnet-%s", base->name)), *name = ay_sprintf(t->arena, "net-%s-%s", base->name, quantization);
    const char *to = ay_test_path(t, name);
    alloy_convert_options o;
    json_t *j;
    assert_ok(t->cx, ay_mkdirs(t->cx, to));
    assert_ok(t->cx, ay_file_copy(t->cx, ay_test_join(t, from, "config.json"), ay_test_join(t, to, "config.json")));
    assert_ok(t->cx, ay_hash_write(t->cx, ay_test_join(t, from, "manifest.txt"), ay_test_join(t, to, "diffusion_pytorch_model.safetensors")));
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, from, "pictures.json"), &j));
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = name;
    o.quantization = quantization;
    o.image_size = (alloy_size){ay_flux_number(j, "width"), ay_flux_number(j, "height")};
    json_decref(j);
    assert_ok(t->cx, alloy_convert(t->cx, to, &o));
    return ay_test_join(t, o.output_dir, o.name);
}

/* ---- packages ---------------------------------------------------------------------------------------------------------- */

static void check_package(ay_test *t, const ay_flux_case *base, const char *quantization, double bound) {
    const char *dir = convert_net(t, base, quantization);
    ay_safetensors *io;
    ay_model *m;
    ay_component *c;
    ay_tensor in[16], out[64];
    int n_in, n_out;
    double worst = 0;
    assert_ok(t->cx, ay_st_open(t->cx, golden(t, ay_sprintf(t->arena, "controlnet-%s/io.safetensors", base->name)), &io));
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    assert_ok(t->cx, ay_component_open(t->cx, m, "ControlNet", &m->parts[0].sizes, NULL, &c));
    const ay_tensor *ins = ay_component_inputs(c, &n_in), *outs = ay_component_outputs(c, &n_out);
    for (int i = 0; i < n_in; i++) {
        const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "ControlNet.%s", ins[i].name));
        assert_non_null(s);
        in[i] = (ay_tensor){ins[i].name, s->type, (void *)ay_st_data(io, s)};
    }
    for (int i = 0; i < n_out; i++) {
        out[i] = outs[i];
        out[i].type.dtype = AY_F32;
        out[i].data = ay_alloc(t->arena, (size_t)ay_type_count(&outs[i].type) * sizeof(float));
    }
    assert_ok(t->cx, ay_component_run(t->cx, c, in, n_in, out, n_out));
    for (int i = 0; i < n_out; i++) {
        const ay_st_tensor *s = ay_st_find(io, ay_sprintf(t->arena, "ControlNet.%s", outs[i].name));
        double d = 0, w = 0;
        assert_non_null(s);
        assert_int_equal(ay_type_count(&s->type), ay_type_count(&outs[i].type));
        for (int64_t k = 0; k < ay_type_count(&s->type); k++) {
            double want = ((const float *)ay_st_data(io, s))[k], got = ((const float *)out[i].data)[k];
            d += (got - want) * (got - want);
            w += want * want;
        }
        if (!(sqrt(d / w) <= worst)) worst = sqrt(d / w);
    }
    print_message("controlnet-%s %s: %d results, error %.2e\n", base->name, quantization, n_out, worst);
    assert_true(n_out >= 7 && worst <= bound);
    ay_component_close(&c);
    ay_model_close(&m);
    ay_st_close(&io);
}

static void test_packages(void **state) {
    const ay_flux_case *cases[] = {&sd15, &sdxl};
    for (int i = 0; i < 2; i++) {
        check_package(*state, cases[i], "float32", 1e-4);
        check_package(*state, cases[i], "float16", 3e-3);
    }
}

/* ---- pictures ---------------------------------------------------------------------------------------------------------- */

static const char *name_of(ay_test *t, const json_t *run, const char *key) {
    const char *name = json_string_value(json_object_get(run, key));
    return name ? golden(t, name) : NULL;
}

static void read_options(ay_test *t, const json_t *run, const char *net, alloy_run_options *o) {
    const json_t *strength = json_object_get(run, "control_strength"), *end = json_object_get(run, "control_end");
    ay_check_run_options(run, ay_test_path(t, "picture.png"), o);
    o->controlnet = net;
    o->control_image = name_of(t, run, "control_image");
    o->image = name_of(t, run, "image");
    o->mask = name_of(t, run, "mask");
    if (json_object_get(run, "strength")) o->strength = json_number_value(json_object_get(run, "strength"));
    if (strength) o->control_strength = json_number_value(strength);
    if (end) o->control_end = json_number_value(end);
    o->control_start = json_number_value(json_object_get(run, "control_start"));
}

static const char *convert_controlled(ay_test *t, const ay_flux_case *c, const char *quantization) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = ay_sprintf(t->arena, "controlled-%s-%s", c->name, quantization);
    o.quantization = quantization;
    o.image_size = (alloy_size){48, 40};
    o.controlnet = true;
    assert_ok(t->cx, alloy_convert(t->cx, ay_flux_checkpoint(t, c), &o));
    return ay_test_join(t, o.output_dir, o.name);
}

static void check_pictures(ay_test *t, const char *quantization, double bound) {
    const ay_flux_case *cases[] = {&sd15, &sdxl};
    json_t *runs, *run;
    size_t i, found = 0;
    assert_ok(t->cx, ay_json_read(t->cx, golden(t, "pictures.json"), &runs));
    for (int k = 0; k < 2; k++) {
        const char *dir = ay_flux_convert(t, cases[k], quantization, "macos14"), *net = convert_net(t, cases[k], quantization);
        const char *controlled = k ? NULL : convert_controlled(t, cases[k], quantization);
        json_array_foreach(runs, i, run) {
            alloy_run_options o;
            ay_image want;
            if (!json_object_get(run, "control_image") || strcmp(json_string_value(json_object_get(run, "case")), cases[k]->name) != 0) continue;
            read_options(t, run, net, &o);
            const char *file = json_string_value(json_array_get(json_object_get(run, "files"), 0));
            ay_check_read_rgb(t, golden(t, file), &want);
            double v = ay_check_psnr(t, dir, &o, &want), own = controlled ? ay_check_psnr(t, controlled, &o, &want) : v;
            o.controlnet = o.control_image = NULL;
            if (!o.image) o.image_size = (alloy_size){want.width, want.height};
            double without = ay_check_psnr(t, controlled ? controlled : dir, &o, &want);
            print_message("%s %s %s: PSNR %.1f dB, by a package made for it %.1f, without %.1f\n", cases[k]->name, quantization, file, v, own, without);
            assert_true(v >= bound && own >= bound && without < 40);
            ay_image_free(&want);
            found++;
        }
    }
    assert_true(found == 3);
    json_decref(runs);
}

static void test_pictures_float32(void **state) { check_pictures(*state, "float32", 55); }
static void test_pictures_float16(void **state) { check_pictures(*state, "float16", 40); }

/* ---- edges --------------------------------------------------------------------------------------------------------------- */

static void test_edges(void **state) {
    ay_test *t = *state;
    ay_safetensors *st;
    int compared = 0;
    assert_ok(t->cx, ay_st_open(t->cx, golden(t, "edges.safetensors"), &st));
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *want = &st->tensors[i];
        char name[32];
        int low, high;
        if (sscanf(want->name, "%31[a-z].%d.%d", name, &low, &high) != 3) continue;
        const ay_st_tensor *in = ay_st_find(st, name);
        assert_non_null(in);
        ay_image im = {(int)in->type.dim[1], (int)in->type.dim[0], (int)in->type.dim[2], malloc(in->bytes)};
        memcpy(im.pixels, ay_st_data(st, in), in->bytes);
        assert_ok(t->cx, ay_canny(t->cx, &im, low, high));
        assert_int_equal(im.channels, 1);
        assert_memory_equal(im.pixels, ay_st_data(st, want), want->bytes);
        ay_image_free(&im);
        compared++;
    }
    assert_int_equal(compared, 16);
    ay_st_close(&st);
}

/* ---- what does not go together ------------------------------------------------------------------------------------------------ */

static void fails(ay_test *t, const char *dir, const alloy_run_options *o, const char *words) {
    assert_int_not_equal(alloy_run(t->cx, dir, o), ALLOY_OK);
    assert_contains(alloy_error(t->cx), words);
}

static void test_what_does_not_go_together(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &sd15, "float16", "macos14"), *net = convert_net(t, &sd15, "float16"), *other = convert_net(t, &sdxl, "float16");
    const char *flux = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14");
    alloy_run_options o, good;
    alloy_run_options_init(&good);
    good.prompt = "a red circle";
    good.output = ay_test_path(t, "picture.png");
    good.steps = 2;
    good.controlnet = net;
    good.control_image = golden(t, "scene.png");
    o = good, o.control_image = NULL;
    fails(t, dir, &o, "say what it is to see with --control-image");
    o = good, o.controlnet = NULL;
    fails(t, dir, &o, "--control-image needs a ControlNet");
    o = good, o.controlnet = other;
    fails(t, dir, &o, "this ControlNet is for another base model than");
    o = good, o.controlnet = dir;
    fails(t, dir, &o, "is a sd model, not a ControlNet");
    o = good, o.controlnet = ay_test_path(t, "nowhere");
    fails(t, dir, &o, "no such folder");
    o = good, o.control_start = 0.6, o.control_end = 0.4;
    fails(t, dir, &o, "a ControlNet from 0.6 to 0.4 of the steps");
    o = good, o.control_preprocess = "depth";
    fails(t, dir, &o, "--control-preprocess \"depth\" is not known");
    o = good, o.control_image = ay_test_path(t, "none.png");
    fails(t, dir, &o, "none.png");
    fails(t, flux, &good, "no ControlNet is known for this pipeline");
    o = good, o.controlnet = o.control_image = NULL;
    fails(t, net, &o, "is a ControlNet, which makes no pictures by itself");
    o = good, o.control_preprocess = "canny:50:150";
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_packages), AY_TEST(test_pictures_float32), AY_TEST(test_pictures_float16), AY_TEST(test_edges), AY_TEST(test_what_does_not_go_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
