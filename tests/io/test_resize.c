/* SPDX-License-Identifier: MIT
 *
 * Pictures made ready for models, against Pillow (tests/reference/resize.py): resized and gray to the byte, upright by EXIF.
 */
#include "../support/support.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

static ay_safetensors *open_golden(ay_test *t) {
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, "resize.safetensors"), &st));
    return st;
}

static const ay_st_tensor *tensor(ay_test *t, ay_safetensors *st, const char *stem, int i, const char *end) {
    return ay_st_find(st, ay_sprintf(t->arena, "%s%d%s", stem, i, end));
}

static void same(const ay_image *im, ay_safetensors *st, const ay_st_tensor *want, int tolerance) {
    assert_int_equal(im->height, want->type.dim[0]);
    assert_int_equal(im->width, want->type.dim[1]);
    assert_int_equal((size_t)im->width * (size_t)im->height * (size_t)im->channels, want->bytes);
    const uint8_t *p = ay_st_data(st, want);
    for (size_t i = 0; i < want->bytes; i++) {
        if (abs(im->pixels[i] - p[i]) > tolerance) fail_msg("%s: byte %zu is %d, expected %d", want->name, i, im->pixels[i], p[i]);
    }
}

static void test_resize(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    int i = 0;
    for (const ay_st_tensor *in; (in = tensor(t, st, "", i, ".in")); i++) {
        const ay_st_tensor *out = tensor(t, st, "", i, ".out");
        ay_image im = {(int)in->type.dim[1], (int)in->type.dim[0], (int)in->type.dim[2], malloc(in->bytes)};
        memcpy(im.pixels, ay_st_data(st, in), in->bytes);
        assert_ok(t->cx, ay_image_resize(t->cx, &im, (int)out->type.dim[1], (int)out->type.dim[0]));
        same(&im, st, out, 0);
        ay_image_gray(&im);
        same(&im, st, tensor(t, st, "", i, ".gray"), 0);
        assert_ok(t->cx, ay_image_rgb(t->cx, &im));
        assert_int_equal(im.channels, 3);
        ay_image_free(&im);
    }
    assert_true(i >= 8);
    ay_st_close(&st);
}

static void test_orientation(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    static const char *const kinds[] = {"exif", "png", "webp", "deep"}; /* deep: 16 bits, not turned */
    for (int k = 0; k < 4; k++) {
        for (int i = 1; i <= (k < 3 ? 8 : 2); i++) {
            const ay_st_tensor *file = tensor(t, st, kinds[k], i, ".file");
            ay_image im;
            assert_ok(t->cx, ay_image_parse(t->cx, kinds[k], ay_st_data(st, file), file->bytes, 1 << 20, &im));
            same(&im, st, tensor(t, st, kinds[k], i, ".pixels"), k ? 0 : 3); /* JPEG libraries round differently */
            ay_image_free(&im);
        }
    }
    ay_st_close(&st);
}

/* White shows through, and an EXIF segment that is cut anywhere is no orientation but no harm either. */
static void test_transparency_and_damage(void **state) {
    ay_test *t = *state;
    ay_image im = {3, 1, 4, malloc(12)};
    memcpy(im.pixels, (uint8_t[]){10, 20, 30, 255, 10, 20, 30, 0, 0, 255, 100, 128}, 12);
    assert_ok(t->cx, ay_image_rgb(t->cx, &im));
    assert_memory_equal(im.pixels, ((uint8_t[]){10, 20, 30, 255, 255, 255, 127, 255, 177}), 9);
    ay_image_free(&im);
    ay_safetensors *st = open_golden(t);
    static const char *const kinds[] = {"exif", "png", "webp"};
    for (int k = 0; k < 3; k++) {
        const ay_st_tensor *file = tensor(t, st, kinds[k], 6, ".file");
        unsigned char *bytes = malloc(file->bytes);
        for (size_t at = 12; at < file->bytes; at++) {
            for (int v = 0; v < 256; v += 51) {
                memcpy(bytes, ay_st_data(st, file), file->bytes);
                bytes[at] = (unsigned char)v;
                if (ay_image_parse(t->cx, kinds[k], bytes, file->bytes, 1 << 16, &im) == ALLOY_OK) ay_image_free(&im);
            }
        }
        free(bytes);
    }
    ay_st_close(&st);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_resize), AY_TEST(test_orientation), AY_TEST(test_transparency_and_damage)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
