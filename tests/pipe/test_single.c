/* SPDX-License-Identifier: MIT
 *
 * Checkpoints of one file, in the names of the code each model was published with: the packages are those of the folder.
 */
#include "../support/single_case.h"
#include "../support/torch_write.h"
#include "pipe/pipe.h"

#include <stdio.h>
#include <string.h>

typedef struct one {
    ay_flux_case folder;
    const char *rules, *type, *denoiser;
} one;

static const one cases[] = {
    {{"a", false, NULL}, "flux_a", "flux", "model.diffusion_model."},  {{"b", false, NULL}, "flux_b", "flux", "model.diffusion_model."},
    {{"sd15", false, "sd"}, "sd15", "sd", "model.diffusion_model."},   {{"sd2", false, "sd"}, "sd2", "sd", "model.diffusion_model."},
    {{"sdxl", true, "sd"}, "sdxl", "sdxl", "model.diffusion_model."},
    {{"medium3", false, "sd3"}, "sd3_medium3", "sd3", "model.diffusion_model."},
    {{"medium35", true, "sd3"}, "sd3_medium35", "sd3", "model.diffusion_model."},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static alloy_status convert(ay_test *t, const char *source, const char *base, const char *name, const char *quantization) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = name;
    o.base = base;
    o.quantization = quantization;
    o.image_size = (alloy_size){32, 32};
    o.text_length = 24;
    o.force = true;
    return alloy_convert(t->cx, source, &o);
}

static const char *out(ay_test *t, const char *name) { return ay_test_join(t, ay_test_path(t, "out"), name); }

static void test_same_packages(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const char *folder = ay_flux_checkpoint(t, &cases[i].folder);
        ay_single_case c = ay_single_make(t, cases[i].rules, folder, 0);
        const char *file = ay_single_write(t, &c, "model.safetensors", "", "");
        print_message("%s: %d tensors in one file\n", cases[i].rules, c.n);
        static const char *const kinds[] = {"float32", "float16", "int4"};
        const char *kind = kinds[i % 3];
        assert_ok(t->cx, convert(t, folder, NULL, "folder", kind));
        assert_ok(t->cx, convert(t, file, folder, "file", kind));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    }
}

/* The denoiser alone, with its prefix or without; everything else is the base's. */
static void test_denoiser_alone(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const char *folder = ay_flux_checkpoint(t, &cases[i].folder);
        ay_single_case c = ay_single_make(t, cases[i].rules, folder, 0);
        assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
        const char *file = ay_single_write(t, &c, "denoiser.safetensors", cases[i].denoiser, i % 2 ? "" : cases[i].denoiser);
        assert_ok(t->cx, convert(t, file, folder, "file", "float16"));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    }
}

/* The denoiser without its prefix, beside components that have theirs. */
static void test_denoiser_without_prefix(void **state) {
    ay_test *t = *state;
    const char *folder = ay_flux_checkpoint(t, &cases[0].folder);
    ay_single_case c = ay_single_make(t, cases[0].rules, folder, 0);
    for (int i = 0; i < c.n; i++) {
        if (strncmp(c.tensors[i].name, cases[0].denoiser, strlen(cases[0].denoiser)) == 0) c.tensors[i].name += strlen(cases[0].denoiser);
    }
    assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
    assert_ok(t->cx, convert(t, ay_single_write(t, &c, "bare.safetensors", "", ""), folder, "file", "float16"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

/* "model.diffusion_model.input_blocks.0.0.weight" to "model_ema.diffusion_modelinput_blocks00weight" */
static const char *ema_name(ay_test *t, const char *name) {
    char *text = ay_sprintf(t->arena, "model_ema.diffusion_model%s", name + strlen("model.diffusion_model.")), *to = text + strlen("model_ema.");
    for (const char *s = to; *s; s++) {
        if (*s != '.') *to++ = *s;
    }
    *to = 0;
    return text;
}

static void test_averages(void **state) {
    ay_test *t = *state;
    const char *folder = ay_flux_checkpoint(t, &cases[2].folder);
    ay_single_case c = ay_single_make(t, "sd15", folder, 1000), only = {ay_alloc(t->arena, 2000 * sizeof *only.tensors), 0};
    assert_ok(t->cx, convert(t, folder, NULL, "folder", "float32"));
    int n = c.n;
    for (int i = 0; i < n; i++) {
        const ay_tensor *x = &c.tensors[i];
        bool unet = strncmp(x->name, "model.diffusion_model.", 22) == 0;
        ay_single_add(&only, unet ? ema_name(t, x->name) : x->name, x->type, x->data);
        if (!unet) continue;
        float *zeros = ay_alloc(t->arena, ay_dtype_bytes(x->type.dtype, ay_type_count(&x->type)));
        ay_single_add(&c, ema_name(t, x->name), x->type, zeros); /* beside the weights themselves, which count */
    }
    float steps = 1;
    ay_single_add(&only, "model_ema.num_updates", (ay_type){AY_F32, 0, {0}}, &steps);
    ay_single_add(&only, "alphas_cumprod", (ay_type){AY_F32, 1, {1}}, &steps);
    assert_ok(t->cx, convert(t, ay_single_write(t, &c, "both.safetensors", "", ""), folder, "file", "float32"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    assert_ok(t->cx, convert(t, ay_single_write(t, &only, "only.safetensors", "", ""), folder, "file", "float32"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

/* The same tensors as torch.save writes them: a checkpoint of one file, and a component folder's .bin. */
static void test_pickles(void **state) {
    ay_test *t = *state;
    for (int i = 2; i < 5; i++) {
        const char *folder = ay_flux_checkpoint(t, &cases[i].folder), *file = ay_test_path(t, "model.ckpt");
        ay_single_case c = ay_single_make(t, cases[i].rules, folder, 0);
        assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
        ay_torch_write(t, file, c.tensors, c.n, i == 2);
        assert_ok(t->cx, convert(t, file, folder, "file", "float16"));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    }
    const char *folder = ay_flux_checkpoint(t, &cases[3].folder), *from = ay_test_join(t, folder, "text_encoder/model.safetensors");
    ay_safetensors *st;
    assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
    assert_ok(t->cx, ay_st_open(t->cx, from, &st));
    ay_tensor *x = ay_alloc(t->arena, (size_t)st->n * sizeof *x);
    for (int i = 0; i < st->n; i++) x[i] = (ay_tensor){st->tensors[i].name, st->tensors[i].type, (void *)(uintptr_t)ay_st_data(st, &st->tensors[i])};
    ay_torch_write(t, ay_test_join(t, folder, "text_encoder/pytorch_model.bin"), x, st->n, false);
    ay_st_close(&st);
    assert_int_equal(remove(from), 0);
    assert_ok(t->cx, convert(t, folder, NULL, "file", "float16"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

/* A text encoder whose file leaves its projection out has the identity there. */
static void test_left_out_projection(void **state) {
    ay_test *t = *state;
    static const char name[] = "text_encoders.clip_l.transformer.text_projection.weight";
    const char *folder = ay_flux_checkpoint(t, &cases[5].folder);
    ay_single_case c = ay_single_make(t, cases[5].rules, folder, 0);
    int at = 0;
    while (strcmp(c.tensors[at].name, name) != 0) at++;
    ay_type *type = &c.tensors[at].type;
    int64_t n = type->dim[1];
    type->dim[0] = n;
    type->dtype = AY_F32;
    c.tensors[at].data = ay_alloc(t->arena, (size_t)(n * n) * 4);
    for (int64_t i = 0; i < n; i++) ((float *)c.tensors[at].data)[i * n + i] = 1;
    assert_ok(t->cx, convert(t, ay_single_write(t, &c, "with.safetensors", "", ""), folder, "folder", "float16"));
    c.tensors[at].name = "elsewhere";
    assert_ok(t->cx, convert(t, ay_single_write(t, &c, "without.safetensors", "", ""), folder, "file", "float16"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

/* Marker tensors change the schedule that the base has. */
static void test_markers(void **state) {
    ay_test *t = *state;
    const char *folder = ay_flux_checkpoint(t, &cases[4].folder);
    ay_single_case c = ay_single_make(t, "sdxl", folder, 2);
    float none = 0;
    ay_single_add(&c, "v_pred", (ay_type){AY_F32, 1, {0}}, &none);
    ay_single_add(&c, "ztsnr", (ay_type){AY_F32, 1, {0}}, &none);
    assert_ok(t->cx, convert(t, ay_single_write(t, &c, "v.safetensors", "", ""), folder, "file", "float16"));
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, out(t, "file"), "alloy.json"), &j));
    const json_t *s = json_object_get(j, "scheduler");
    assert_string_equal(json_string_value(json_object_get(s, "prediction_type")), "v_prediction");
    assert_true(json_is_true(json_object_get(s, "rescale_betas_zero_snr")));
    json_decref(j);
}

static json_t *info(ay_test *t, const char *path) {
    char *text = NULL;
    json_t *j = NULL;
    assert_ok(t->cx, alloy_info(t->cx, path, &text));
    assert_ok(t->cx, ay_json_parse(t->cx, path, text, strlen(text), &j));
    alloy_free(text);
    return j;
}

/* What a file is, also of one whose ending says something else. */
static void test_info(void **state) {
    ay_test *t = *state;
    static const char *const pipelines[] = {"FluxPipeline", "FluxPipeline", "StableDiffusionPipeline", "StableDiffusionPipeline",
                                            "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "StableDiffusion3Pipeline"};
    static const int components[] = {4, 4, 3, 3, 4, 5, 4};
    for (int i = 0; i < CASES; i++) {
        const char *folder = ay_flux_checkpoint(t, &cases[i].folder), *file = ay_test_path(t, "model.ckpt");
        ay_single_case c = ay_single_make(t, cases[i].rules, folder, 0);
        assert_ok(t->cx, ay_rename(t->cx, ay_single_write(t, &c, "model.safetensors", "", ""), file));
        json_t *j = info(t, file), *parts = json_object_get(j, "components"), *p;
        int64_t sum = 0;
        size_t k;
        assert_string_equal(json_string_value(json_object_get(j, "kind")), "safetensors");
        assert_string_equal(json_string_value(json_object_get(j, "pipeline")), pipelines[i]);
        assert_string_equal(json_string_value(json_object_get(j, "type")), cases[i].type);
        assert_int_equal(json_array_size(parts), components[i]);
        json_array_foreach(parts, k, p) sum += json_integer_value(json_object_get(p, "parameters"));
        assert_int_equal(sum, json_integer_value(json_object_get(j, "parameters")));
        json_decref(j);
    }
    json_t *j = info(t, ay_test_golden(t, "gguf/types.gguf"));
    assert_string_equal(json_string_value(json_object_get(j, "kind")), "gguf");
    assert_null(json_object_get(j, "pipeline"));
    assert_contains(json_string_value(json_object_get(j, "note")), "of no model that alloy knows");
    json_decref(j);
}

static void fails(ay_test *t, const char *file, const char *base, alloy_status status, const char *words) {
    assert_int_equal(convert(t, file, base, "bad", "float16"), status);
    print_message("%s\n", alloy_error(t->cx));
    assert_contains(alloy_error(t->cx), words);
    assert_int_equal(ay_path_kind_of(out(t, "bad")), AY_PATH_NONE);
}

static void test_what_is_refused(void **state) {
    ay_test *t = *state;
    const char *flux = ay_flux_checkpoint(t, &cases[0].folder), *sd = ay_flux_checkpoint(t, &cases[2].folder);
    ay_single_case c = ay_single_make(t, "sd15", sd, 1);
    const char *file = ay_single_write(t, &c, "model.safetensors", "", "");
    fails(t, file, NULL, ALLOY_E_USAGE, "give --base FOLDER");
    fails(t, file, flux, ALLOY_E_MISMATCH, "is a flux model");
    fails(t, file, ay_test_path(t, "none"), ALLOY_E_IO, "no such file");
    fails(t, file, file, ALLOY_E_USAGE, "--base takes a diffusers folder");
    fails(t, sd, sd, ALLOY_E_USAGE, "--base is for a checkpoint of one file");
    fails(t, ay_single_write(t, &c, "vae.safetensors", "first_stage_model.", ""), sd, ALLOY_E_UNSUPPORTED, "nothing but the component AutoencoderKL");
    fails(t, ay_single_write(t, &c, "other.safetensors", "first_stage_model.", "x."), sd, ALLOY_E_UNSUPPORTED, "of no model that alloy knows");
    ay_single_add(&c, "model.diffusion_model.more.weight", c.tensors[0].type, c.tensors[0].data);
    fails(t, ay_single_write(t, &c, "more.safetensors", "", ""), sd, ALLOY_E_MISMATCH, "unused: model.diffusion_model.more.weight");
    c.n -= 2;
    const char *last = c.tensors[c.n].name;
    fails(t, ay_single_write(t, &c, "less.safetensors", "", ""), sd, ALLOY_E_MISMATCH, "1 missing");
    print_message("without %s\n", last);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_same_packages), AY_TEST(test_denoiser_alone), AY_TEST(test_denoiser_without_prefix), AY_TEST(test_averages), AY_TEST(test_pickles), AY_TEST(test_left_out_projection), AY_TEST(test_markers), AY_TEST(test_info), AY_TEST(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
