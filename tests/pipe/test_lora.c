/* SPDX-License-Identifier: MIT
 *
 * Adapters baked into small checkpoints, against diffusers and PEFT and the definitions of LyCORIS (tests/reference/lora.py):
 * every changed weight, and pictures; what is said of what does not fit.
 */
#include "../support/flux_case.h"
#include "../support/hashweights.h"
#include "../support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const cases[] = {"peft_sd15", "old_sd2", "lycoris_sd15", "kohya_sdxl", "peft_dora_flux", "bfl_flux"};
enum { CASES = sizeof cases / sizeof cases[0], MOST = 4 };

typedef struct lora_case {
    json_t *j;
    ay_flux_case base;
    alloy_lora loras[MOST];
    int n, keys[MOST];
    const char *checkpoint;
} lora_case;

static double number(const json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }
static const char *text(const json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }

/* The checkpoint and the adapters' files in the test's folder. */
static void open_case(ay_test *t, const char *name, lora_case *c) {
    *c = (lora_case){.n = 0};
    const char *dir = ay_test_golden(t, ay_sprintf(t->arena, "lora/%s", name));
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, dir, "case.json"), &c->j));
    const json_t *files = json_object_get(c->j, "files"), *f;
    size_t i;
    json_array_foreach(files, i, f) {
        const char *path = ay_test_path(t, ay_sprintf(t->arena, "%zu.safetensors", i));
        assert_ok(t->cx, ay_hash_write(t->cx, ay_test_join(t, dir, text(f, "file")), path));
        c->loras[c->n] = (alloy_lora){path, number(f, "strength"), number(f, "text_strength")};
        c->keys[c->n++] = ay_flux_number(f, "keys");
    }
    c->base = (ay_flux_case){ay_strdup(t->arena, text(c->j, "base")), false,
                             strcmp(text(c->j, "family"), "flux") == 0 ? NULL : ay_strdup(t->arena, text(c->j, "family"))};
    c->checkpoint = ay_flux_checkpoint(t, &c->base);
}

static alloy_status convert(ay_test *t, const char *checkpoint, const char *quantization, const alloy_lora *loras, int n, const char *name) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = name;
    o.quantization = quantization;
    o.loras = loras;
    o.num_loras = n;
    o.force = true;
    o.image_size = (alloy_size){32, 32};
    o.text_length = 17;
    return alloy_convert(t->cx, checkpoint, &o);
}

static const char *convert_case(ay_test *t, const lora_case *c, const char *quantization) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    json_t *j = ay_flux_pictures(t, &c->base);
    o.output_dir = ay_test_path(t, "out");
    o.name = quantization;
    o.quantization = quantization;
    o.loras = c->loras;
    o.num_loras = c->n;
    o.image_size = (alloy_size){ay_flux_number(c->j, "width"), ay_flux_number(c->j, "height")};
    o.text_length = ay_flux_number(j, "text_length");
    json_decref(j);
    assert_ok(t->cx, alloy_convert(t->cx, c->checkpoint, &o));
    return ay_test_join(t, o.output_dir, quantization);
}

/* The float32 numbers of one weight of a package, in the arena. */
static const float *weight(ay_test *t, const char *model, const json_t *manifest, const char *name, int64_t *n) {
    const char *dot = strchr(name, '.'), *part = ay_strndup(t->arena, name, (size_t)(dot - name));
    const json_t *component = json_object_get(json_object_get(manifest, "components"), part), *w;
    size_t i, size;
    json_array_foreach(json_object_get(component, "weights"), i, w) {
        if (strcmp(text(w, "name"), dot + 1) != 0) continue;
        const char *path = ay_sprintf(t->arena, "%s/%s/Data/com.apple.CoreML/weights/weight.bin", model, text(component, "package"));
        const char *bytes = ay_test_read(t, path, &size);
        uint64_t record[3]; /* sentinel and type, bytes, where */
        memcpy(record, bytes + (size_t)number(w, "offset"), sizeof record);
        *n = (int64_t)(record[1] / sizeof(float));
        return (const float *)(const void *)(bytes + record[2]);
    }
    print_message("no weight %s\n", name);
    fail();
    return NULL;
}

static void check_weights(ay_test *t, const lora_case *c, const char *name, const char *model) {
    ay_safetensors *want;
    json_t *manifest;
    double worst = 0;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, ay_sprintf(t->arena, "lora/%s/merged.safetensors", name)), &want));
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, model, "alloy.json"), &manifest));
    const json_t *loras = json_object_get(manifest, "loras");
    for (int i = 0; i < c->n; i++) {
        assert_int_equal(ay_flux_number(json_array_get(loras, (size_t)i), "keys"), c->keys[i]);
        assert_int_equal(ay_flux_number(json_array_get(loras, (size_t)i), "applied"), c->keys[i]);
    }
    for (int i = 0; i < want->n; i++) {
        int64_t n;
        const char *full = want->tensors[i].name;
        const float *w = weight(t, model, manifest, full, &n);
        double probe[3], got[3] = {0};
        float *h = malloc((size_t)n * sizeof *h);
        memcpy(probe, ay_st_data(want, &want->tensors[i]), sizeof probe);
        for (int64_t k = 0; k < n; k++) got[0] += (double)w[k] * w[k];
        got[0] = sqrt(got[0]);
        for (int p = 0; p < 2; p++) {
            ay_type type = {AY_F32, 2, {1, n}};
            ay_hash_values(ay_sprintf(t->arena, "%s#%d", full, p), &type, NULL, 0, 0, n, h);
            for (int64_t k = 0; k < n; k++) got[1 + p] += (double)w[k] * h[k];
        }
        free(h);
        double error = 0;
        for (int p = 0; p < 3; p++) error = fmax(error, fabs(got[p] - probe[p]) / probe[0]);
        worst = fmax(worst, error);
        if (error > 1e-6) print_message("%s: %g %g %g, expected %g %g %g\n", full, got[0], got[1], got[2], probe[0], probe[1], probe[2]);
    }
    print_message("%s: %d weights, worst %.1e\n", name, want->n, worst);
    assert_true(worst <= 1e-6);
    json_decref(manifest);
    ay_st_close(&want);
}

static void check_picture(ay_test *t, const lora_case *c, const char *name, const char *model, double bound) {
    alloy_run_options o;
    ay_image want;
    ay_check_run_options(c->j, ay_test_path(t, "picture.png"), &o);
    ay_check_read_rgb(t, ay_test_golden(t, ay_sprintf(t->arena, "lora/%s/picture.png", name)), &want);
    double psnr = ay_check_psnr(t, model, &o, &want);
    print_message("%s: %.1f dB\n", name, psnr);
    assert_true(psnr >= bound);
    ay_image_free(&want);
}

static void test_weights_and_pictures(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        lora_case c;
        open_case(t, cases[i], &c);
        const char *model = convert_case(t, &c, "float32");
        check_weights(t, &c, cases[i], model);
        check_picture(t, &c, cases[i], model, 55);
        assert_ok(t->cx, ay_remove_tree(t->cx, ay_test_path(t, "out")));
        json_decref(c.j);
    }
}

/* Adapters come before rounding and quantising, and change the hash of what was converted. */
static void test_storage(void **state) {
    ay_test *t = *state;
    static const struct {
        const char *quantization;
        double bound;
    } rows[] = {{"float16", 40}, {"int8", 30}, {"int4", 14}};
    lora_case c;
    open_case(t, "lycoris_sd15", &c);
    for (int i = 0; i < 3; i++) check_picture(t, &c, "lycoris_sd15", convert_case(t, &c, rows[i].quantization), rows[i].bound);
    json_t *with, *without;
    const char *hash[2];
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_path(t, "out/float16/alloy.json"), &with));
    assert_ok(t->cx, convert(t, c.checkpoint, "float16", NULL, 0, "plain"));
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_path(t, "out/plain/alloy.json"), &without));
    for (int i = 0; i < 2; i++) hash[i] = text(json_object_get(json_object_get(i ? with : without, "components"), "UNet"), "source_sha256");
    assert_string_not_equal(hash[0], hash[1]);
    assert_null(json_object_get(without, "loras"));
    json_decref(with);
    json_decref(without);
    json_decref(c.j);
}

/* ---- what is said ------------------------------------------------------------------------------------------------------ */

typedef struct row {
    const char *name;
    ay_type type;
    float first; /* the first number; the others are 0.01 */
} row;

static const char *write_lora(ay_test *t, const char *name, const row *rows, int n, const char *const *metadata) {
    ay_tensor tensors[8];
    const char *path = ay_test_path(t, name);
    for (int i = 0; i < n; i++) {
        int64_t count = ay_type_count(&rows[i].type);
        float *x = ay_alloc(t->arena, (size_t)(count + 1) * sizeof *x);
        for (int64_t k = 0; k < count; k++) x[k] = k ? 0.01f : rows[i].first;
        tensors[i] = (ay_tensor){rows[i].name, rows[i].type, x};
    }
    assert_ok(t->cx, ay_st_write(t->cx, path, tensors, n, metadata));
    return path;
}

#define SHAPE1(a) {AY_F32, 1, {a}}
#define SHAPE2(a, b) {AY_F32, 2, {a, b}}
#define SCALAR {AY_F32, 0, {0}}
#define Q "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"

static void test_refusals(void **state) {
    ay_test *t = *state;
    static const ay_flux_case base = {"sd15", false, "sd"};
    static const struct {
        row rows[4];
        int n;
        const char *words;
    } bad[] = {
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}, {Q ".alpha", SCALAR, NAN}}, 3, "alpha\" has nan at element 0"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), INFINITY}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}}, 2, "lora_up.weight\" has inf"},
        {{{Q ".lora_up.weight", SHAPE2(16, 0), 1}, {Q ".lora_down.weight", SHAPE2(0, 16), 1}}, 2, "a rank of 0"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(3, 16), 1}}, 2, "do not belong together"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}}, 1, "lacks one of the factors"},
        {{{Q ".alpha", SCALAR, 1}}, 1, "lacks the factors"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}, {Q ".alpha", SHAPE1(2), 1}}, 3, "expected one number"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}, {Q ".dora_scale", SHAPE2(5, 1), 1}}, 3, "neither the 16 outputs"},
        {{{Q ".lora_up.weight", SHAPE2(32, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 24), 1}}, 2,
         "a difference of 32 x 24, but \"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight\" of this model's unet is [16, 16]"},
        {{{Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}, {Q ".lora_A.weight", SHAPE2(2, 16), 1}}, 3, "the same part of one layer"},
        {{{"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", SHAPE2(16, 2), 1}, {"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", SHAPE2(2, 16), 1}}, 2,
         "none of its 2 keys belongs to a layer of this model (\"lora_unet_double_blocks_0_img_attn_proj\")"},
        {{{"conv_in.weight", SHAPE2(16, 2), 1}}, 1, "it is no LoRA"},
        {{{Q ".hada_w1_a", SHAPE2(16, 2), 1}, {Q ".hada_w1_b", SHAPE2(2, 16), 1}}, 2, "lacks one of the factors"},
        {{{Q ".lokr_w1", SHAPE2(4, 4), 1}, {Q ".lokr_w2", SHAPE2(4, 8), 1}}, 2, "a difference of 16 x 32"},
        {{{Q ".diff", SHAPE2(16, 0), 1}}, 1, "lacks numbers"},
    };
    const char *checkpoint = ay_flux_checkpoint(t, &base);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const alloy_lora l = {write_lora(t, "bad.safetensors", bad[i].rows, bad[i].n, NULL), 1, 1};
        assert_int_equal(convert(t, checkpoint, "float16", &l, 1, "bad"), ALLOY_E_MISMATCH);
        print_message("%s\n", alloy_error(t->cx));
        assert_contains(alloy_error(t->cx), bad[i].words);
        assert_contains(alloy_error(t->cx), "bad.safetensors");
        assert_int_equal(ay_path_kind_of(ay_test_path(t, "out/bad")), AY_PATH_NONE);
        assert_int_equal(ay_path_kind_of(ay_test_path(t, "out/bad.partial")), AY_PATH_NONE);
    }
    const alloy_lora gone = {ay_test_path(t, "gone.safetensors"), 1, 1}, folder = {t->dir, 1, 1};
    const alloy_lora view = {ay_test_golden(t, "torch/lora_view.pt"), 1, 1};
    assert_fails(t->cx, convert(t, checkpoint, "float16", &view, 1, "bad"), ALLOY_E_UNSUPPORTED, "stored as a view of another tensor");
    assert_fails(t->cx, convert(t, checkpoint, "float16", &gone, 1, "bad"), ALLOY_E_IO, "gone.safetensors");
    assert_fails(t->cx, convert(t, checkpoint, "float16", &folder, 1, "bad"), ALLOY_E_IO, "no pytorch_lora_weights.safetensors is in this folder");
}

/* ---- where alphas may stand ----------------------------------------------------------------------------------------------- */

static const char *hash_of(ay_test *t, const char *name) {
    json_t *j;
    int64_t n;
    const char *model = ay_test_path(t, ay_sprintf(t->arena, "out/%s", name));
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_join(t, model, "alloy.json"), &j));
    const float *w = weight(t, model, j, "UNet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", &n);
    json_decref(j);
    return ay_sprintf(t->arena, "%016llx", (unsigned long long)ay_test_digest(0, w, (size_t)n));
}

static void test_alphas(void **state) {
    ay_test *t = *state;
    static const ay_flux_case base = {"sd15", false, "sd"};
    static const char layer[] = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    const char *checkpoint = ay_flux_checkpoint(t, &base);
    const char *up = ay_sprintf(t->arena, "unet.%s.lora_B.weight", layer), *down = ay_sprintf(t->arena, "unet.%s.lora_A.weight", layer);
    const row rows[] = {{Q ".lora_up.weight", SHAPE2(16, 4), 2}, {Q ".lora_down.weight", SHAPE2(4, 16), 3}, {Q ".alpha", SCALAR, 6}};
    const row peft[] = {{up, SHAPE2(16, 4), 2}, {down, SHAPE2(4, 16), 3}};
    const char *const own[] = {"lora_adapter_metadata", "{\"unet.r\": 4, \"unet.lora_alpha\": 6}", NULL};
    const char *const pattern[] = {"ss_network_alpha", "999", "lora_adapter_metadata",
                                   "{\"unet.r\": 4, \"unet.lora_alpha\": 1, \"unet.alpha_pattern\": {\"attn1.to_k\": 2, \"attn1.to_q\": 6}}", NULL};
    const char *const rooted[] = {"lora_adapter_metadata", "{\"unet.r\": 4, \"unet.lora_alpha\": 3, \"unet.use_rslora\": true}", NULL};
    const char *const *const metadata[] = {own, pattern, rooted};
    alloy_lora l = {write_lora(t, "alpha.safetensors", rows, 3, NULL), 1, 1};
    assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "alpha"));
    for (int i = 0; i < 3; i++) {
        l.path = write_lora(t, "peft.safetensors", peft, 2, metadata[i]);
        assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "other"));
        assert_string_equal(hash_of(t, "alpha"), hash_of(t, "other"));
    }
    l.path = ay_test_golden(t, "torch/lora.pt"); /* as torch.save writes it */
    assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "other"));
    assert_string_equal(hash_of(t, "alpha"), hash_of(t, "other"));
    const char config[] = "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6}";
    row wrapped[] = {peft[0], peft[1]};
    wrapped[0].name = ay_sprintf(t->arena, "base_model.model.%s.lora_B.weight", layer);
    wrapped[1].name = ay_sprintf(t->arena, "base_model.model.%s.lora_A.weight", layer);
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_test_path(t, "adapter")));
    write_lora(t, "adapter/adapter_model.safetensors", wrapped, 2, NULL);
    ay_test_write(t, ay_test_path(t, "adapter/adapter_config.json"), config, strlen(config));
    l.path = ay_test_path(t, "adapter");
    assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "other"));
    assert_string_equal(hash_of(t, "alpha"), hash_of(t, "other"));
    l.path = write_lora(t, "half.safetensors", peft, 2, NULL); /* no alpha anywhere: as it is; 1.5 is 6 over the rank */
    l.strength = 1.5;
    assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "other"));
    assert_string_equal(hash_of(t, "alpha"), hash_of(t, "other"));
    l.strength = 0;
    assert_ok(t->cx, convert(t, checkpoint, "float32", &l, 1, "nothing"));
    assert_ok(t->cx, convert(t, checkpoint, "float32", NULL, 0, "plain"));
    assert_string_equal(hash_of(t, "plain"), hash_of(t, "nothing"));
    assert_string_not_equal(hash_of(t, "plain"), hash_of(t, "alpha"));
}

#define SHAPE4(a, b, c, d) {AY_F32, 4, {a, b, c, d}}

/* An adapter of the plain model on the one for inpainting: its first convolution has other input channels and is left out, with a
 * word; the rest counts. One that has nothing else is for another model. */
static void test_other_input(void **state) {
    ay_test *t = *state;
    static const ay_flux_case inpaint = {"inpaint", false, "tasks"};
    static const row rows[] = {{"lora_unet_conv_in.lora_up.weight", SHAPE4(16, 2, 1, 1), 1}, {"lora_unet_conv_in.lora_down.weight", SHAPE4(2, 4, 3, 3), 1},
                               {Q ".lora_up.weight", SHAPE2(16, 2), 1}, {Q ".lora_down.weight", SHAPE2(2, 16), 1}};
    const char *checkpoint = ay_flux_checkpoint(t, &inpaint);
    const alloy_lora both = {write_lora(t, "both.safetensors", rows, 4, NULL), 1, 1}, rest = {write_lora(t, "rest.safetensors", rows + 2, 2, NULL), 1, 1};
    const alloy_lora first = {write_lora(t, "first.safetensors", rows, 2, NULL), 1, 1};
    assert_ok(t->cx, convert(t, checkpoint, "float16", &both, 1, "both"));
    assert_ok(t->cx, convert(t, checkpoint, "float16", &rest, 1, "rest"));
    assert_ok(t->cx, convert(t, checkpoint, "float16", NULL, 0, "none"));
    assert_string_equal(hash_of(t, "both"), hash_of(t, "rest"));
    assert_string_not_equal(hash_of(t, "both"), hash_of(t, "none"));
    assert_fails(t->cx, convert(t, checkpoint, "float16", &first, 1, "first"), ALLOY_E_MISMATCH, "made for another number of input channels");
}

static void test_kinds_refused(void **state) {
    ay_test *t = *state;
    static const ay_flux_case base = {"sd15", false, "sd"};
    static const char *const names[] = {Q ".oft_blocks", Q ".oft_diag", Q ".oft_R.default.weight", Q ".boft_R"};
    const char *checkpoint = ay_flux_checkpoint(t, &base);
    for (int i = 0; i < 4; i++) {
        const row rows[] = {{names[i], SHAPE2(16, 2), 1}};
        const alloy_lora l = {write_lora(t, "oft.safetensors", rows, 1, NULL), 1, 1};
        assert_fails(t->cx, convert(t, checkpoint, "float16", &l, 1, "oft"), ALLOY_E_UNSUPPORTED, "OFT or BOFT");
    }
}

/* Who is to blame where numbers leave half's range. */
static void test_overflow_is_the_adapters(void **state) {
    ay_test *t = *state;
    static const ay_flux_case base = {"sd15", false, "sd"};
    static const row rows[] = {{Q ".lora_up.weight", SHAPE2(16, 2), 1e6f}, {Q ".lora_down.weight", SHAPE2(2, 16), 1e3f}};
    const char *checkpoint = ay_flux_checkpoint(t, &base);
    const alloy_lora l = {write_lora(t, "loud.safetensors", rows, 2, NULL), 1, 1};
    assert_fails(t->cx, convert(t, checkpoint, "float16", &l, 1, "loud"), ALLOY_E_UNSUPPORTED, "the adapters of --lora make \"down_blocks.0");
    assert_int_not_equal(convert(t, checkpoint, "int8", &l, 1, "loud"), ALLOY_OK);
    assert_contains(alloy_error(t->cx), "the adapters of --lora");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_weights_and_pictures), AY_TEST(test_storage), AY_TEST(test_refusals), AY_TEST(test_alphas),
                                        AY_TEST(test_other_input), AY_TEST(test_kinds_refused), AY_TEST(test_overflow_is_the_adapters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
