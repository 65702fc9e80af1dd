/* SPDX-License-Identifier: MIT
 *
 * Compressed checkpoints, GGUF and scaled float8: the packages are those of the same numbers in float32.
 */
#include "../support/gguf_write.h"
#include "../support/single_case.h"
#include "base/half.h"
#include "quant/blocks.h"

#include <stdio.h>
#include <stdlib.h>
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

static void check(ay_test *t, const char *compressed, const ay_single_case *numbers, const char *folder, int kinds_of) {
    const char *plain = ay_single_write(t, numbers, "plain.safetensors", "", "");
    for (int q = 0; q < kinds_of; q++) {
        static const char *const kinds[] = {"float32", "int8"};
        convert(t, plain, folder, "plain", kinds[q]);
        convert(t, compressed, folder, "compressed", kinds[q]);
        ay_single_same_packages(t, out(t, "plain"), out(t, "compressed"));
    }
}

/* Packs what can be packed, every type in turn, into `packed`, and the same numbers in float32 into `numbers`; returns the blocks. */
static ay_block *pack(ay_test *t, ay_single_case *packed, ay_single_case *numbers, uint64_t *seed) {
    ay_block *blocks = ay_alloc(t->arena, (size_t)packed->n * sizeof *blocks);
    int used = 0, convolutions = 0;
    for (int i = 0; i < packed->n; i++) {
        const ay_type *type = &packed->tensors[i].type;
        int64_t n = ay_type_count(type), row = type->rank ? type->dim[type->rank - 1] : 1;
        bool whole = row % 32 == 0, rows = !whole && n % 256 == 0;
        if (type->rank < 2 || (!whole && !rows)) continue;
        blocks[i] = (ay_block)(AY_BLOCK_Q4_0 + used++ % (whole && row % 256 ? 5 : 10));
        convolutions += rows;
        packed->tensors[i].data = ay_gguf_random(t, blocks[i], n, seed);
        numbers->tensors[i].type.dtype = AY_F32;
        numbers->tensors[i].data = ay_alloc(t->arena, (size_t)n * 4);
        ay_blocks_read(blocks[i], packed->tensors[i].data, 0, n, numbers->tensors[i].data);
    }
    print_message("%d of %d tensors packed, %d of them in rows of 256\n", used, packed->n, convolutions);
    assert_true(used >= 10);
    return blocks;
}

/* A denoiser alone, as city96's tools write it: the original names, bare. */
static void test_gguf(void **state) {
    ay_test *t = *state;
    const ay_flux_case cases[] = {{"a", false, NULL}, {"sd15", false, "sd"}, {"sd2", false, "sd"}, {"sdxl", false, "sd"}, {"medium35", false, "sd3"}};
    static const char *const rules[] = {"flux_a", "sd15", "sd2", "sdxl", "sd3_medium35"};
    uint64_t seed = 3;
    for (int k = 0; k < 5; k++) {
        const char *folder = ay_flux_checkpoint(t, &cases[k]), *path = ay_test_path(t, "denoiser.gguf");
        ay_single_case c = ay_single_make(t, rules[k], folder, 0), packed = take_denoiser(t, &c), numbers = take_denoiser(t, &c);
        ay_gguf_write(t, path, packed.tensors, pack(t, &packed, &numbers, &seed), packed.n);
        check(t, path, &numbers, folder, k < 2 ? 2 : 1);
    }
}

/* A folder's text encoder behind a prefix, in transformers' names, as stable-diffusion.cpp has it. */
static void add_encoder(ay_test *t, ay_single_case *c, const char *folder, const char *part, const char *prefix) {
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, ay_sprintf(t->arena, "%s/%s/model.safetensors", folder, part), &st));
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *x = &st->tensors[i];
        ay_type type = x->type;
        size_t bytes = x->bytes, size = (size_t)ay_dtype_bits(type.dtype) / 8;
        char *data = ay_alloc(t->arena, bytes);
        const char *from = ay_st_data(st, x), *name = strncmp(x->name, "text_model.", 11) == 0 ? x->name + 11 : x->name;
        memcpy(data, from, bytes);
        if (strcmp(name, "text_projection.weight") == 0) { /* OpenCLIP's way round */
            int64_t rows = type.dim[0], columns = type.dim[1];
            name = "text_projection";
            for (int64_t r = 0; r < rows; r++) {
                for (int64_t k = 0; k < columns; k++) memcpy(data + (size_t)(k * rows + r) * size, from + (size_t)(r * columns + k) * size, size);
            }
            type.dim[0] = columns;
            type.dim[1] = rows;
        }
        ay_single_add(c, ay_sprintf(t->arena, "%stext_model.%s", prefix, name), type, data);
    }
    ay_st_close(&st);
}

/* Whole files as stable-diffusion.cpp wrote them before it kept names: text encoders are all cond_stage_model. */
static void test_gguf_whole(void **state) {
    ay_test *t = *state;
    const ay_flux_case xl = {"sdxl", false, "sd"};
    const char *folder = ay_flux_checkpoint(t, &xl), *path = ay_test_path(t, "whole.gguf");
    ay_single_case c = ay_single_make(t, "sdxl", folder, 0), whole = {ay_alloc(t->arena, (size_t)(2 * c.n + 200) * sizeof *c.tensors), 0};
    for (int i = 0; i < c.n; i++) {
        if (strncmp(c.tensors[i].name, "conditioner.", 12) != 0) ay_single_add(&whole, c.tensors[i].name, c.tensors[i].type, c.tensors[i].data);
    }
    add_encoder(t, &whole, folder, "text_encoder", "cond_stage_model.transformer.");
    add_encoder(t, &whole, folder, "text_encoder_2", "cond_stage_model.1.transformer.");
    ay_gguf_write(t, path, whole.tensors, NULL, whole.n);
    convert(t, folder, NULL, "plain", "float16");
    for (int i = 0; i < 2; i++) { /* the file's encoders, not the base's */
        assert_int_equal(remove(ay_test_join(t, folder, i ? "text_encoder_2/model.safetensors" : "text_encoder/model.safetensors")), 0);
    }
    convert(t, path, folder, "compressed", "float16");
    ay_single_same_packages(t, out(t, "plain"), out(t, "compressed"));
}

/* What cannot be told of such files is refused: which way round a projection lies, and a layer that the base does not have. */
static void test_gguf_refused(void **state) {
    ay_test *t = *state;
    const ay_flux_case sd3 = {"medium3", false, "sd3"}, sd2 = {"sd2", false, "sd"};
    const char *path = ay_test_path(t, "refused.gguf"), *folder = ay_flux_checkpoint(t, &sd3);
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.base = folder;
    ay_single_case c = ay_single_make(t, "sd3_medium3", folder, 0);
    for (int i = 0; i < c.n; i++) {
        if (strcmp(c.tensors[i].name, "text_encoders.clip_g.transformer.text_projection.weight") == 0)
            c.tensors[i].name = "text_encoders.clip_g.transformer.text_model.text_projection";
    }
    ay_gguf_write(t, path, c.tensors, NULL, c.n);
    assert_fails(t->cx, alloy_convert(t->cx, path, &o), ALLOY_E_UNSUPPORTED, "which way round");
    folder = o.base = ay_flux_checkpoint(t, &sd2);
    c = ay_single_make(t, "sd2", folder, 200);
    int n = 0;
    for (int i = 0; i < c.n; i++) {
        if (strncmp(c.tensors[i].name, "cond_stage_model.", 17) != 0) c.tensors[n++] = c.tensors[i];
    }
    c.n = n;
    add_encoder(t, &c, folder, "text_encoder", "cond_stage_model.transformer.");
    int all = c.n, last = 0;
    static const char layer[] = "cond_stage_model.transformer.text_model.encoder.layers.";
    for (int i = 0; i < all; i++) {
        if (strncmp(c.tensors[i].name, layer, sizeof layer - 1) == 0 && atoi(c.tensors[i].name + sizeof layer - 1) > last) last = atoi(c.tensors[i].name + sizeof layer - 1);
    }
    for (int i = 0; i < all; i++) {
        const char *rest = c.tensors[i].name + sizeof layer - 1;
        if (strncmp(c.tensors[i].name, layer, sizeof layer - 1) != 0 || atoi(rest) != last) continue;
        ay_single_add(&c, ay_sprintf(t->arena, "%s%d%s", layer, last + 1, strchr(rest, '.')), c.tensors[i].type, c.tensors[i].data);
    }
    ay_gguf_write(t, path, c.tensors, NULL, c.n);
    o.image_size = (alloy_size){32, 32};
    assert_fails(t->cx, alloy_convert(t->cx, path, &o), ALLOY_E_MISMATCH, "16 unused");
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
    check(t, ay_single_write(t, &packed, "scaled.safetensors", "", ""), &numbers, folder, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_gguf), AY_TEST(test_gguf_whole), AY_TEST(test_gguf_refused), AY_TEST(test_gguf_text_encoder), AY_TEST(test_scaled_float8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
