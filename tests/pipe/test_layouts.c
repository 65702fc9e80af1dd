/* SPDX-License-Identifier: MIT
 *
 * Checkpoint folders that are laid out otherwise than save_pretrained does today, and still are what diffusers loads.
 */
#include "../support/flux_case.h"
#include "pipe/pipe.h"

#include <string.h>
#include <unistd.h>

static alloy_status convert(ay_test *t, const char *source) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = "m";
    o.force = true;
    o.quantization = "float32";
    o.image_size = (alloy_size){32, 32};
    o.text_length = 8;
    return alloy_convert(t->cx, source, &o);
}

static void set_architecture(ay_test *t, const char *config, const char *name) {
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, config, &j));
    if (name) json_object_set_new(j, "architectures", json_pack("[s]", name));
    else json_object_del(j, "architectures");
    assert_ok(t->cx, ay_json_write(t->cx, config, j));
    json_decref(j);
}

/* model_index.json says as what a text encoder is loaded, whatever it was saved from; and the folder opens again. */
static void test_class_of_the_pipeline(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *config = ay_test_join(t, source, "text_encoder_2/config.json");
    static const char *const saved[] = {"T5ForConditionalGeneration", NULL};
    for (int i = 0; i < 2; i++) {
        set_architecture(t, config, saved[i]);
        assert_ok(t->cx, convert(t, source));
        ay_model *m;
        assert_ok(t->cx, ay_model_open(t->cx, ay_test_path(t, "out/m"), &m));
        assert_string_equal(ay_model_find(m, "TextEncoder2")->arch->class_name, "T5EncoderModel");
        ay_model_close(&m);
    }
    const char *index = ay_test_join(t, source, "model_index.json");
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, index, &j));
    json_object_del(j, "text_encoder_2");
    assert_ok(t->cx, ay_json_write(t->cx, index, j));
    json_decref(j);
    assert_fails(t->cx, convert(t, source), ALLOY_E_FORMAT, "neither _class_name nor architectures");
}

/* The weights have the names that save_pretrained gives, so other files beside them are no question; two others are one. */
static void test_weights_beside_others(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *dir = ay_test_join(t, source, "transformer");
    const char *own = ay_test_join(t, dir, "diffusion_pytorch_model.safetensors"), *other = ay_test_join(t, dir, "flux1.safetensors");
    ay_test_write(t, other, "not weights at all", 18);
    ay_test_write(t, ay_test_join(t, dir, "a.safetensors"), "nor these", 9);
    ay_test_write(t, ay_test_join(t, dir, "diffusion_pytorch_model.bin"), "nor these", 9);
    assert_ok(t->cx, convert(t, source));
    assert_ok(t->cx, ay_rename(t->cx, own, ay_test_join(t, dir, "b.safetensors")));
    assert_fails(t->cx, convert(t, source), ALLOY_E_MISMATCH, "could be the weights; leave one");
}

/* A download cache keeps the files elsewhere, under their hashes, and links to them. */
static void test_links(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    static const char *const files[] = {"model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
                                        "tokenizer/tokenizer_config.json", "tokenizer_2/tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *file = ay_test_join(t, source, files[i]), *blob = ay_test_path(t, ay_sprintf(t->arena, "blob%zu", i));
        assert_ok(t->cx, ay_rename(t->cx, file, blob));
        assert_int_equal(symlink(blob, file), 0);
    }
    assert_ok(t->cx, convert(t, source));
    assert_int_equal(ay_path_kind_of(ay_test_path(t, "out/m/tokenizer/tokenizer_config.json")), AY_PATH_FILE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_class_of_the_pipeline),
        AY_TEST(test_weights_beside_others),
        AY_TEST(test_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
