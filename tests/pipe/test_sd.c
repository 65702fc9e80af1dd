/* SPDX-License-Identifier: MIT
 *
 * Stable Diffusion 1, 2 and XL from a checkpoint folder to pixels, against diffusers (tests/reference/sd.py).
 */
#include "../support/flux_case.h"
#include "../support/support.h"

#include <stdlib.h>
#include <string.h>

static const ay_flux_case cases[] = {{"sd15", false, "sd"}, {"sd2", false, "sd"}, {"sdxl", true, "sd"}, {"lcm", false, "sd"}, {"cut", true, "sd"}};
enum { CASES = 5 };

static void test_components_float32(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float32", "macos14", false, 1e-4);
}
static void test_components_float16(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float16", "macos14", false, 3e-3);
}
static void test_components_emulated(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float16", "macos14", true, 1e-2);
}
static void test_pictures_float32(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_pictures(*state, &cases[i], "float32", NULL, 55);
}
static void test_pictures_float16(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_pictures(*state, &cases[i], "float16", NULL, 40);
}

/* What should change a picture does. */
static void test_what_changes_a_picture(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &cases[2], "float32", "macos14"), *out = ay_test_path(t, "picture.png");
    json_t *j = ay_flux_pictures(t, &cases[2]);
    alloy_run_options o;
    ay_image first;
    ay_check_run_options(json_array_get(json_object_get(j, "pictures"), 0), out, &o);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    ay_check_read_rgb(t, out, &first);
    assert_true(ay_check_psnr(t, dir, &o, &first) >= 200);
    alloy_run_options other[6] = {o, o, o, o, o, o};
    const char *const names[] = {"prompt", "negative prompt", "empty negative prompt", "seed", "guidance", "scheduler"};
    other[0].prompt = "two red stars";
    other[1].negative_prompt = "two red stars";
    other[2].negative_prompt = "";
    other[3].seed++;
    other[4].guidance_scale = 1;
    other[5].scheduler = "ddim";
    for (int i = 0; i < 6; i++) {
        double v = ay_check_psnr(t, dir, &other[i], &first);
        print_message("another %s: %.1f dB\n", names[i], v);
        assert_true(v < 45);
    }
    ay_image_free(&first);
    json_decref(j);
}

static void fails(ay_test *t, const char *dir, const alloy_run_options *o, const char *words) {
    assert_int_equal(alloy_run(t->cx, dir, o), ALLOY_E_USAGE);
    assert_contains(alloy_error(t->cx), words);
}

static void test_what_is_refused(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &cases[0], "float16", "macos14");
    alloy_run_options o, good;
    alloy_run_options_init(&good);
    good.prompt = "a red circle";
    good.output = ay_test_path(t, "picture.png");
    o = good, o.scheduler = "dowsing";
    fails(t, dir, &o, "known are: euler, euler_ancestral, heun, ddim, pndm, dpmpp_2m");
    o = good, o.image_size = (alloy_size){36, 32};
    fails(t, dir, &o, "40x32 fits");
    o = good, o.steps = 1000;
    fails(t, dir, &o, "1000 steps");
}

/* Keys that would change what is computed are refused by name. */
static void test_configurations(void **state) {
    ay_test *t = *state;
    static const struct {
        const char *key, *value;
    } bad[] = {
        {"time_cond_proj_dim", "-1"},
        {"class_embed_type", "\"timestep\""},
        {"addition_embed_type", "\"image\""},
        {"resnet_time_scale_shift", "\"spatial\""},
        {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\""},
        {"down_block_types", "[\"AttnDownBlock2D\", \"DownBlock2D\", \"DownBlock2D\", \"DownBlock2D\"]"},
        {"attention_head_dim", "[4, 4]"},
        {"in_channels", "7"},
        {"act_fn", "\"mish\""},
        {"layers_per_block", "[1, 2]"},
        {"cross_attention_dim", "[32, 32, 16, 32]"},
        {"transformer_layers_per_block", "[[1], [1], [1], [1]]"},
        {"reverse_transformer_layers_per_block", "[[1], [1], [1], [1]]"},
        {"only_cross_attention", "[true]"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *dir = ay_flux_checkpoint(t, &cases[0]), *file = ay_test_join(t, dir, "unet/config.json");
        json_t *j, *v = json_loads(bad[i].value, JSON_DECODE_ANY, NULL);
        alloy_convert_options o;
        assert_ok(t->cx, ay_json_read(t->cx, file, &j));
        json_object_set_new(j, bad[i].key, v);
        assert_ok(t->cx, ay_json_write(t->cx, file, j));
        json_decref(j);
        alloy_convert_options_init(&o);
        o.output_dir = ay_test_path(t, "out");
        o.name = "bad";
        assert_int_not_equal(alloy_convert(t->cx, dir, &o), ALLOY_OK);
        print_message("%s\n", alloy_error(t->cx));
        assert_contains(alloy_error(t->cx), i == 7 ? "takes 7 channels" : bad[i].key);
        assert_int_equal(ay_path_kind_of(ay_test_join(t, o.output_dir, "bad")), AY_PATH_NONE);
    }
}

/* As many transformer blocks as XL's first level, which attends to nothing, is sometimes said to have. */
static void test_no_blocks(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_checkpoint(t, &cases[2]), *file = ay_test_join(t, dir, "unet/config.json");
    json_t *j;
    alloy_convert_options o;
    assert_ok(t->cx, ay_json_read(t->cx, file, &j));
    json_object_set_new(j, "transformer_layers_per_block", json_pack("[i, i, i]", 0, 1, 2));
    assert_ok(t->cx, ay_json_write(t->cx, file, j));
    json_decref(j);
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.components = "UNet";
    assert_ok(t->cx, alloy_convert(t->cx, dir, &o));
}

/* A decoder whose residuals leave half's range: in float32 where the pipeline minds force_upcast. */
static void test_upcast_vae(void **state) {
    static const ay_keep_rule none[] = {{NULL, AY_OP_COUNT, AY_NONE, NULL}};
    static const char *const louder[] = {"decoder.mid_block.resnets.0.conv2.weight", "decoder.up_blocks.0.resnets.0.conv2.weight", NULL};
    ay_test *t = *state;
    const char *dir = ay_flux_checkpoint(t, &cases[2]);
    ay_hash_louder(t, &cases[2], dir, "vae", louder, 4e5);
    assert_ok(t->cx, ay_remove_tree(t->cx, ay_test_join(t, dir, "vae/diffusion_pytorch_model.safetensors.index.json")));
    ay_check_overflows(t, dir, "VAEDecoder", none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_components_float32), AY_TEST(test_components_float16), AY_TEST(test_components_emulated),
        AY_TEST(test_pictures_float32),   AY_TEST(test_pictures_float16),   AY_TEST(test_what_changes_a_picture),
        AY_TEST(test_what_is_refused),    AY_TEST(test_configurations), AY_TEST(test_no_blocks), AY_TEST(test_upcast_vae),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
