/* SPDX-License-Identifier: MIT
 *
 * Compressed checkpoints, GGUF and scaled float8: the packages are those of the same numbers in float32.
 */
#include "../support/gguf_write.h"
#include "../support/single_case.h"
#include "base/half.h"
#include "quant/blocks.h"

#include <stdio.h>
#include <string.h>

static const char denoiser[] = "model.diffusion_model.";

static void convert(ay_test *t, const char *source, const char *base, const char *name, const char *quantization) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = name;
    o.base = base;
    o.quantization = quantization;
    o.image_size = (alloy_size){32, 32};
    o.text_length = 24;
    o.force = true;
    assert_ok(t->cx, alloy_convert(t->cx, source, &o));
}

static const char *out(ay_test *t, const char *name) { return ay_test_join(t, ay_test_path(t, "out"), name); }

/* The denoiser's tensors without their prefix. */
static ay_single_case take_denoiser(ay_test *t, const ay_single_case *c) {
    ay_single_case d = {ay_alloc(t->arena, (size_t)(3 * c->n + 1) * sizeof *d.tensors), 0};
    for (int i = 0; i < c->n; i++) {
        if (strncmp(c->tensors[i].name, denoiser, sizeof denoiser - 1) != 0) continue;
        ay_single_add(&d, c->tensors[i].name + sizeof denoiser - 1, c->tensors[i].type, c->tensors[i].data);
    }
    assert_true(d.n > 10);
    return d;
}

static void check(ay_test *t, const char *compressed, const ay_single_case *numbers, const char *folder) {
    const char *plain = ay_single_write(t, numbers, "plain.safetensors", "", "");
    for (int q = 0; q < 2; q++) {
        static const char *const kinds[] = {"float32", "int8"};
        convert(t, plain, folder, "plain", kinds[q]);
        convert(t, compressed, folder, "compressed", kinds[q]);
        ay_single_same_packages(t, out(t, "plain"), out(t, "compressed"));
    }
}

/* Every packed type whose blocks the rows are multiples of, in turn. */
static void test_gguf(void **state) {
    ay_test *t = *state;
    const ay_flux_case cases[] = {{"a", false, NULL}, {"sd15", false, "sd"}};
    static const char *const rules[] = {"flux_a", "sd15"};
    uint64_t seed = 3;
    for (int k = 0; k < 2; k++) {
        const char *folder = ay_flux_checkpoint(t, &cases[k]), *path = ay_test_path(t, "denoiser.gguf");
        ay_single_case c = ay_single_make(t, rules[k], folder, 0), packed = take_denoiser(t, &c), numbers = take_denoiser(t, &c);
        ay_block *blocks = ay_alloc(t->arena, (size_t)packed.n * sizeof *blocks);
        int used = 0;
        for (int i = 0; i < packed.n; i++) {
            ay_type *type = &packed.tensors[i].type;
            int64_t n = ay_type_count(type);
            if (type->rank < 2 || type->dim[type->rank - 1] % 32) continue;
            blocks[i] = (ay_block)(AY_BLOCK_Q4_0 + used++ % (type->dim[type->rank - 1] % 256 ? 5 : 10));
            packed.tensors[i].data = ay_gguf_random(t, blocks[i], n, &seed);
            numbers.tensors[i].data = ay_alloc(t->arena, (size_t)n * 4);
            ay_blocks_read(blocks[i], packed.tensors[i].data, 0, n, numbers.tensors[i].data);
        }
        assert_true(used >= 10);
        ay_gguf_write(t, path, packed.tensors, blocks, packed.n);
        check(t, path, &numbers, folder);
    }
}

/* A text encoder in llama.cpp's names in the place of the folder's. */
static void test_gguf_text_encoder(void **state) {
    ay_test *t = *state;
    const ay_flux_case a = {"a", false, NULL};
    const char *folder = ay_flux_checkpoint(t, &a);
    ay_single_case c = ay_single_make(t, "t5_llama", folder, 0);
    convert(t, folder, NULL, "plain", "float16");
    assert_int_equal(remove(ay_test_join(t, folder, "text_encoder_2/model.safetensors")), 0);
    ay_gguf_write(t, ay_test_join(t, folder, "text_encoder_2/t5-encoder.gguf"), c.tensors, NULL, c.n);
    convert(t, folder, NULL, "compressed", "float16");
    ay_single_same_packages(t, out(t, "plain"), out(t, "compressed"));
}

static void test_scaled_float8(void **state) {
    ay_test *t = *state;
    const ay_flux_case a = {"a", false, NULL};
    const char *folder = ay_flux_checkpoint(t, &a);
    ay_single_case c = ay_single_make(t, "flux_a", folder, 0), packed = take_denoiser(t, &c), numbers = take_denoiser(t, &c);
    uint64_t seed = 9;
    int n = packed.n;
    for (int i = 0; i < n; i++) {
        ay_tensor *x = &packed.tensors[i];
        size_t name = strlen(x->name);
        int64_t count = ay_type_count(&x->type);
        if (x->type.rank != 2 || name < 8 || strcmp(x->name + name - 7, ".weight") != 0) continue;
        uint8_t *codes = ay_alloc(t->arena, (size_t)count);
        float *values = ay_alloc(t->arena, (size_t)count * 4), *scale = ay_alloc(t->arena, 16);
        *scale = 0.001f * (1.5f + ay_test_uniform(&seed));
        for (int64_t k = 0; k < count; k++) {
            codes[k] = (uint8_t)ay_test_random(&seed);
            if ((codes[k] & 127) == 127) codes[k] = 0; /* NaN */
            values[k] = ay_f8e4m3_to_f32(codes[k]) * *scale;
        }
        x->type.dtype = AY_F8E4M3;
        x->data = codes;
        numbers.tensors[i].data = values;
        ay_single_add(&packed, ay_sprintf(t->arena, "%.*s.scale_weight", (int)name - 7, x->name), (ay_type){AY_F32, 1, {1}}, scale);
    }
    uint8_t marker[2] = {0, 0};
    ay_single_add(&packed, "scaled_fp8", (ay_type){AY_F8E4M3, 1, {2}}, marker);
    check(t, ay_single_write(t, &packed, "scaled.safetensors", "", ""), &numbers, folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_gguf), AY_TEST(test_gguf_text_encoder), AY_TEST(test_scaled_float8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
