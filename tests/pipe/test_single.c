/* SPDX-License-Identifier: MIT
 *
 * Checkpoints of one file, in the names of the code each model was published with: the packages are those of the folder.
 */
#include "../support/single_case.h"
#include "../support/torch_write.h"
#include "base/half.h"
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
    {{"refiner", false, "refiner"}, "refiner", "sdxl", "model.diffusion_model."},
    {{"lcm", false, "sd"}, "lcm", "sd", "model.diffusion_model."},     {{"cut", false, "sd"}, "cut", "sdxl", "model.diffusion_model."},
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

/* The denoiser's own file of a diffusers folder. */
static void test_denoiser_of_a_folder(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const ay_flux_case c = {cases[i].folder.name, false, cases[i].folder.family};
        const char *folder = ay_flux_checkpoint(t, &c), *file = ay_test_path(t, "alone.safetensors");
        const char *unet = ay_test_join(t, folder, "unet/diffusion_pytorch_model.safetensors");
        if (ay_path_kind_of(unet) == AY_PATH_NONE) unet = ay_test_join(t, folder, "transformer/diffusion_pytorch_model.safetensors");
        assert_ok(t->cx, ay_file_copy(t->cx, unet, file));
        assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
        assert_ok(t->cx, convert(t, file, folder, "file", "float16"));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    }
}

/* A folder's UNet with nine channels in, as checkpoints for inpainting have it. */
static void make_inpainting(ay_test *t, const char *folder) {
    const char *config = ay_test_join(t, folder, "unet/config.json"), *file = ay_test_join(t, folder, "unet/diffusion_pytorch_model.safetensors");
    ay_safetensors *st;
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, config, &j));
    json_object_set_new(j, "in_channels", json_integer(9));
    assert_ok(t->cx, ay_json_write(t->cx, config, j));
    json_decref(j);
    assert_ok(t->cx, ay_st_open(t->cx, file, &st));
    ay_tensor *x = ay_alloc(t->arena, (size_t)st->n * sizeof *x);
    for (int i = 0; i < st->n; i++) {
        x[i] = (ay_tensor){ay_strdup(t->arena, st->tensors[i].name), st->tensors[i].type, NULL};
        bool first = strcmp(x[i].name, "conv_in.weight") == 0;
        if (first) x[i].type.dim[1] = 9;
        size_t bytes = ay_dtype_bytes(x[i].type.dtype, ay_type_count(&x[i].type));
        char *data = x[i].data = ay_alloc(t->arena, bytes + 1);
        for (size_t k = 0; k < bytes; k++) data[k] = ((const char *)ay_st_data(st, &st->tensors[i]))[first ? k % st->tensors[i].bytes : k];
        if (first) memset(data, 0, ay_dtype_bytes(x[i].type.dtype, 40)); /* so that no two input channels are the same */
    }
    int n = st->n;
    ay_st_close(&st);
    assert_ok(t->cx, ay_st_write(t->cx, file, x, n, NULL));
}

static void test_inpainting(void **state) {
    ay_test *t = *state;
    for (int i = 2; i < 5; i++) {
        const ay_flux_case plain = {cases[i].folder.name, false, cases[i].folder.family};
        const char *folder = ay_flux_checkpoint(t, &plain);
        make_inpainting(t, folder);
        ay_single_case c = ay_single_make(t, cases[i].rules, folder, 0);
        assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
        assert_ok(t->cx, convert(t, ay_single_write(t, &c, "model.safetensors", "", ""), folder, "file", "float16"));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
        const char *ordinary = ay_flux_checkpoint(t, &plain); /* made anew in the same place: four channels, which the file's word overrides */
        assert_ok(t->cx, convert(t, ay_test_path(t, "model.safetensors"), ordinary, "file", "float16"));
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

static void keep_warnings(void *user, alloy_log_level level, const char *line) {
    if (level == ALLOY_LOG_WARN) ay_buf_printf(user, "%s\n", line);
}

static const char *prediction_of(ay_test *t, const char *name) {
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, out(t, name), "alloy.json"), &j));
    const char *s = json_string_value(json_object_get(json_object_get(j, "scheduler"), "prediction_type"));
    s = s ? ay_strdup(t->arena, s) : "none";
    json_decref(j);
    return s;
}

/* Whether it predicts noise or velocity is in no file of version 2: the base's word, --prediction-type over it, and a warning
 * where the numbers look otherwise. */
static void test_prediction(void **state) {
    ay_test *t = *state;
    static const char probe[] = "model.diffusion_model.output_blocks.5.1.transformer_blocks.0.norm1.bias";
    const char *folder = ay_flux_checkpoint(t, &cases[3].folder);
    ay_single_case c = ay_single_make(t, "sd2", folder, 2);
    alloy_convert_options o;
    ay_buf said = {0};
    int at = 0;
    while (at < c.n && strcmp(c.tensors[at].name, probe) != 0) at++;
    assert_true(at < c.n);
    int64_t n = c.tensors[at].type.dim[0];
    c.tensors[at].type.dtype = AY_F32;
    float *v = c.tensors[at].data = ay_alloc(t->arena, (size_t)n * sizeof *v);
    ay_log_fn log = t->cx->log;
    void *user = t->cx->user;
    t->cx->log = keep_warnings;
    t->cx->user = &said;
    for (int wide = 0; wide < 2; wide++) {
        for (int64_t i = 0; i < n; i++) v[i] = 0.5f + (wide ? 0.1f : 0.08f) * (i % 2 ? 1.0f : -1.0f); /* its deviation */
        const char *file = ay_single_write(t, &c, "v2.safetensors", "", "");
        for (int velocity = 0; velocity < 2; velocity++) {
            const char *settings = ay_test_join(t, folder, "scheduler/scheduler_config.json"), *want = velocity ? "v_prediction" : "epsilon";
            json_t *j;
            assert_ok(t->cx, ay_json_read(t->cx, settings, &j));
            json_object_set_new(j, "prediction_type", json_string(want));
            assert_ok(t->cx, ay_json_write(t->cx, settings, j));
            json_decref(j);
            ay_buf_free(&said);
            assert_ok(t->cx, convert(t, file, folder, "file", "float16"));
            assert_string_equal(prediction_of(t, "file"), want);
            assert_int_equal(said.data && strstr(said.data, "if pictures show noise, convert with --prediction-type") != NULL, velocity != wide);
        }
        alloy_convert_options_init(&o);
        o.output_dir = ay_test_path(t, "out");
        o.name = "file";
        o.base = folder;
        o.image_size = (alloy_size){32, 32};
        o.prediction_type = "epsilon";
        o.force = true;
        ay_buf_free(&said);
        assert_ok(t->cx, alloy_convert(t->cx, file, &o));
        assert_string_equal(prediction_of(t, "file"), "epsilon");
        assert_null(said.data);
    }
    t->cx->log = log;
    t->cx->user = user;
    ay_buf_free(&said);
    o.prediction_type = "velocity";
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "v2.safetensors"), &o), ALLOY_E_USAGE, "epsilon, v_prediction and sample are");
    o.prediction_type = "epsilon";
    o.base = NULL;
    assert_fails(t->cx, alloy_convert(t->cx, ay_flux_checkpoint(t, &cases[0].folder), &o), ALLOY_E_USAGE, "all flux models predict the same");
}

/* What other programs put beside the weights. */
typedef struct extra {
    const char *name;
    ay_dtype dtype;
    int64_t n;
} extra;
static const extra extras15[] = {
    {"cond_stage_model.transformer.text_model.embeddings.position_ids", AY_I64, 77}, {"model_ema.decay", AY_F32, 1}, {"model_ema.num_updates", AY_I64, 1},
    {"alphas_cumprod", AY_F32, 10}, {"betas", AY_F32, 10}, {"cond_stage_model.logit_scale", AY_F32, 1},
    {"cond_stage_model.transformer.text_projection.weight", AY_F32, 4}, {"embedding_manager.x", AY_F32, 1}, {NULL, AY_NONE, 0}};
static const extra extras2[] = {
    {"cond_stage_model.model.logit_scale", AY_F32, 1}, {"cond_stage_model.model.text_projection", AY_F32, 16}, {"cond_stage_model.model.attn_mask", AY_F32, 16},
    {"model_ema.decay", AY_F32, 1}, {"sqrt_alphas_cumprod", AY_F32, 10}, {NULL, AY_NONE, 0}};
static const extra extras_xl[] = {
    {"denoiser.sigmas", AY_F32, 1000}, {"conditioner.embedders.0.transformer.text_model.embeddings.position_ids", AY_I64, 77},
    {"conditioner.embedders.1.model.logit_scale", AY_F32, 1}, {"conditioner.embedders.1.model.attn_mask", AY_F32, 16},
    {"conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids", AY_I64, 77}, {"conditioner.embedders.0.logit_scale", AY_F32, 1},
    {"conditioner.embedders.0.text_projection", AY_F32, 16}, {NULL, AY_NONE, 0}};

static void test_extras(void **state) {
    ay_test *t = *state;
    const struct {
        int at;
        const extra *extras;
    } rows[] = {{2, extras15}, {3, extras2}, {4, extras_xl}};
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        const char *folder = ay_flux_checkpoint(t, &cases[rows[k].at].folder);
        ay_single_case c = ay_single_make(t, cases[rows[k].at].rules, folder, 16);
        for (const extra *e = rows[k].extras; e->name; e++) {
            ay_single_add(&c, e->name, (ay_type){e->dtype, 1, {e->n}}, ay_alloc(t->arena, (size_t)e->n * 8));
        }
        assert_ok(t->cx, convert(t, folder, NULL, "folder", "float16"));
        assert_ok(t->cx, convert(t, ay_single_write(t, &c, "extras.safetensors", "", ""), folder, "file", "float16"));
        ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
    }
}

/* Every third tensor in each of three dtypes, and the VAE left out, against the same numbers in float32. */
static void test_mixed(void **state) {
    ay_test *t = *state;
    static const ay_dtype kinds[] = {AY_F16, AY_BF16, AY_F8E4M3};
    const char *folder = ay_flux_checkpoint(t, &cases[4].folder);
    ay_single_case c = ay_single_make(t, "sdxl", folder, 0), mixed = {ay_alloc(t->arena, (size_t)c.n * sizeof *c.tensors), 0}, plain = mixed;
    plain.tensors = ay_alloc(t->arena, (size_t)c.n * sizeof *c.tensors);
    for (int i = 0; i < c.n; i++) {
        const ay_tensor *x = &c.tensors[i];
        if (strncmp(x->name, "first_stage_model.", 18) == 0) continue;
        int64_t n = ay_type_count(&x->type);
        ay_type type = x->type, f32 = x->type;
        float *v = ay_alloc(t->arena, (size_t)n * sizeof *v);
        type.dtype = kinds[i % 3];
        f32.dtype = AY_F32;
        void *small = ay_alloc(t->arena, ay_dtype_bytes(type.dtype, n) + 1);
        ay_convert_to_f32(x->type.dtype, x->data, 0, n, v);
        ay_convert_from_f32(type.dtype, v, n, small);
        ay_convert_to_f32(type.dtype, small, 0, n, v);
        ay_single_add(&mixed, x->name, type, small);
        ay_single_add(&plain, x->name, f32, v);
    }
    assert_true(mixed.n > 400 && mixed.n < c.n);
    assert_ok(t->cx, convert(t, ay_single_write(t, &plain, "plain.safetensors", "", ""), folder, "folder", "float32"));
    assert_ok(t->cx, convert(t, ay_single_write(t, &mixed, "mixed.safetensors", "", ""), folder, "file", "float32"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
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
                                            "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "StableDiffusion3Pipeline",
                                            "StableDiffusionXLPipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline"};
    static const int components[] = {4, 4, 3, 3, 4, 5, 4, 3, 3, 4};
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
    fails(t, file, NULL, ALLOY_E_USAGE, "which has no tokenizer and no scheduler settings; give --base FOLDER");
    fails(t, ay_single_write(t, &c, "alone.safetensors", "model.diffusion_model.", ""), NULL, ALLOY_E_USAGE, "which has no text_encoder, vae, tokenizer and no");
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
    c.n /= 4;
    fails(t, ay_single_write(t, &c, "half.safetensors", "", ""), sd, ALLOY_E_UNSUPPORTED, "begins like UNet2DConditionModel in the names of LDM, but its 149 tensors are no whole one");
}

/* A base of the other kind of two that differ in their text encoders alone: SDXL and its refiner. */
static void test_refiner_and_base(void **state) {
    ay_test *t = *state;
    const char *xl = ay_flux_checkpoint(t, &cases[4].folder), *refiner = ay_flux_checkpoint(t, &cases[7].folder), *index[2], *encoder;
    index[0] = ay_test_join(t, xl, "model_index.json");
    index[1] = ay_test_join(t, refiner, "model_index.json");
    ay_single_case whole = ay_single_make(t, "refiner", refiner, 0), c = ay_single_make(t, "sdxl", xl, 0);
    encoder = ay_test_join(t, refiner, "text_encoder");
    assert_ok(t->cx, ay_file_copy(t->cx, index[1], ay_test_path(t, "index.json")));
    assert_ok(t->cx, ay_file_copy(t->cx, index[0], index[1])); /* with the UNet's configuration of the right kind */
    assert_ok(t->cx, ay_mkdirs(t->cx, encoder));
    assert_ok(t->cx, ay_file_copy(t->cx, ay_test_join(t, xl, "text_encoder/config.json"), ay_test_join(t, encoder, "config.json")));
    fails(t, ay_single_write(t, &whole, "refiner.safetensors", "", ""), refiner, ALLOY_E_MISMATCH, "give --base the refiner's folder");
    assert_ok(t->cx, ay_file_copy(t->cx, ay_test_path(t, "index.json"), index[0]));
    fails(t, ay_single_write(t, &c, "unet.safetensors", "model.diffusion_model.", ""), xl, ALLOY_E_MISMATCH, "text_encoder is missing");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_same_packages), AY_TEST(test_denoiser_alone), AY_TEST(test_denoiser_of_a_folder), AY_TEST(test_inpainting), AY_TEST(test_denoiser_without_prefix), AY_TEST(test_averages), AY_TEST(test_pickles), AY_TEST(test_left_out_projection), AY_TEST(test_markers), AY_TEST(test_info), AY_TEST(test_what_is_refused), AY_TEST(test_refiner_and_base), AY_TEST(test_prediction), AY_TEST(test_extras), AY_TEST(test_mixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
