/* SPDX-License-Identifier: MIT
 *
 * Pictures: every kind against Pillow's decoding (tests/golden/pictures.safetensors), PNG with text there and back, damaged
 * and cut files, size limits.
 */
#include "../support/support.h"
#include "io/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ay_safetensors *open_golden(ay_test *t) {
    ay_safetensors *st;
    assert_ok(t->cx, ay_st_open(t->cx, ay_test_golden(t, "pictures.safetensors"), &st));
    return st;
}

/* A file out of the golden data, in memory of exactly its size (free it). */
static void *file_of(ay_safetensors *st, const char *name, size_t *n) {
    char key[64];
    snprintf(key, sizeof key, "%s.file", name);
    const ay_st_tensor *f = ay_st_find(st, key);
    assert_non_null(f);
    void *copy = malloc(f->bytes);
    memcpy(copy, ay_st_data(st, f), f->bytes);
    *n = f->bytes;
    return copy;
}

static void test_against_pillow(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    int pictures = 0;
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *want = &st->tensors[i];
        char name[64];
        const char *dot = strstr(want->name, ".pixels");
        if (!dot) continue;
        snprintf(name, sizeof name, "%.*s", (int)(dot - want->name), want->name);
        size_t n;
        void *file = file_of(st, name, &n);
        ay_image im;
        assert_ok(t->cx, ay_image_parse(t->cx, name, file, n, 13 * 19, &im));
        if (im.height != want->type.dim[0] || im.width != want->type.dim[1] || im.channels != want->type.dim[2])
            fail_msg("%s: %d x %d in %d channels", name, im.width, im.height, im.channels);
        /* what loses something may be decoded with other roundings by another release of the library */
        int tolerance = strstr(name, "jpeg") ? 3 : strstr(name, "lossy") ? 4 : 0;
        const uint8_t *pixels = ay_st_data(st, want);
        for (size_t k = 0; k < want->bytes; k++) {
            if (abs(im.pixels[k] - pixels[k]) > tolerance)
                fail_msg("%s: byte %zu is %d where %d was expected", name, k, im.pixels[k], pixels[k]);
        }
        ay_image_free(&im);
        free(file);
        pictures++;
    }
    assert_true(pictures >= 15);
    ay_st_close(&st);
}

static const char *value_of(char **text, const char *key) {
    for (; text[0]; text += 2) {
        if (strcmp(text[0], key) == 0) return text[1];
    }
    return NULL;
}

static void test_text_by_pillow(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    size_t n;
    void *file = file_of(st, "png-rgb", &n);
    char **text;
    assert_ok(t->cx, ay_png_text_parse(t->cx, "x", file, n, t->arena, &text));
    assert_string_equal(value_of(text, "parameters"), "a fox\nSteps: 4, Seed: 7");
    assert_string_equal(value_of(text, "Comment"), "caf\xc3\xa9");
    assert_string_equal(value_of(text, "more"), "\xe7\x8b\x90\xe7\x8b\xb8 in the snow");
    assert_int_equal(strlen(value_of(text, "packed")), 250);
    free(file);
    file = file_of(st, "jpeg-rgb", &n);
    assert_fails(t->cx, ay_png_text_parse(t->cx, "x.jpg", file, n, t->arena, &text), ALLOY_E_FORMAT, "x.jpg: is no PNG");
    free(file);
    ay_st_close(&st);
}

static void test_png_round_trip(void **state) {
    ay_test *t = *state;
    const char *path = ay_test_path(t, "out.png");
    static const char *const text[] = {"parameters", "a fox, Seed: 7\nSize: 31x17",
                                       "prompt",     "\xe7\x8b\x90 <&> \xf0\x9f\xa6\x8a",
                                       "latin",      "caf\xc3\xa9",
                                       "empty",      "",
                                       NULL};
    for (int channels = 1; channels <= 4; channels++) {
        ay_image im = {31, 17, channels, malloc((size_t)(31 * 17 * channels))}, back;
        uint64_t seed = 3;
        for (int i = 0; i < 31 * 17 * channels; i++) im.pixels[i] = (uint8_t)ay_test_random(&seed);
        if (channels == 2) {
            assert_fails(t->cx, ay_png_write(t->cx, path, &im, text), ALLOY_E_INTERNAL, "2 channels");
            ay_image_free(&im);
            continue;
        }
        assert_ok(t->cx, ay_png_write(t->cx, path, &im, text));
        assert_ok(t->cx, ay_image_read(t->cx, path, 31 * 17, &back));
        assert_true(back.width == 31 && back.height == 17 && back.channels == channels);
        assert_memory_equal(back.pixels, im.pixels, (size_t)(31 * 17 * channels));
        ay_image_free(&back);
        char **got;
        assert_ok(t->cx, ay_png_text(t->cx, path, t->arena, &got));
        for (int i = 0; text[i]; i += 2) assert_string_equal(value_of(got, text[i]), text[i + 1]);
        size_t n, n2;
        char *first = ay_test_read(t, path, &n);
        assert_non_null(memmem(first, n, "tEXtparameters", 14)); /* as other tools look for it */
        assert_non_null(memmem(first, n, "iTXtprompt", 10));
        assert_ok(t->cx, ay_png_write(t->cx, path, &im, text));
        assert_memory_equal(ay_test_read(t, path, &n2), first, n); /* the same picture gives the same bytes */
        ay_image_free(&im);
    }
}

static void test_png_refusals(void **state) {
    ay_test *t = *state;
    uint8_t pixels[3] = {1, 2, 3};
    ay_image im = {1, 1, 3, pixels};
    const char *path = ay_test_path(t, "x.png");
    const char *const bad_value[] = {"k", "a\xff", NULL}, *const bad_key[] = {"\xe7\x8b\x90", "v", NULL},
                      *const no_key[] = {"", "v", NULL};
    const char *const overlong[] = {"k", "\xc0\x80", NULL}, *const surrogate[] = {"k", "\xed\xa0\x80", NULL};
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, bad_value), ALLOY_E_USAGE, "UTF-8");
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, overlong), ALLOY_E_USAGE, "UTF-8");
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, surrogate), ALLOY_E_USAGE, "UTF-8");
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, bad_key), ALLOY_E_USAGE, "keyword");
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, no_key), ALLOY_E_USAGE, "keyword");
    assert_fails(t->cx, ay_png_write(t->cx, ay_test_path(t, "no/x.png"), &im, NULL), ALLOY_E_IO, "no/x.png");
    assert_int_equal(ay_path_kind_of(path), AY_PATH_NONE);
    im.width = 0;
    assert_fails(t->cx, ay_png_write(t->cx, path, &im, NULL), ALLOY_E_INTERNAL, "0 x 1");
}

/* Cut anywhere: a sentence, never a picture (the last bytes of some kinds carry nothing and may be missing). */
static void test_cut_files(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    static const struct {
        const char *name;
        size_t spare;
    } rows[] = {{"png-rgb", 0},          {"png-palette", 0},   {"jpeg-rgb", 2},
                {"jpeg-progressive", 2}, {"webp-lossless", 1}, {"webp-lossy", 1}};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        size_t n;
        char *file = file_of(st, rows[r].name, &n);
        for (size_t keep = 0; keep + rows[r].spare < n; keep += keep < 64 ? 1 : 17) {
            ay_image im;
            char *part = malloc(keep + 1);
            memcpy(part, file, keep);
            alloy_status s = ay_image_parse(t->cx, "cut", part, keep, 1000, &im);
            if (s != ALLOY_E_FORMAT) fail_msg("%s cut after %zu of %zu bytes: status %d", rows[r].name, keep, n, s);
            assert_contains(ay_error_text(t->cx), "cut: ");
            assert_null(im.pixels);
            free(part);
        }
        free(file);
    }
    ay_st_close(&st);
}

static void test_limits(void **state) {
    ay_test *t = *state;
    ay_safetensors *st = open_golden(t);
    static const char *const names[] = {"png-rgb", "jpeg-rgb", "webp-lossy"};
    ay_image im;
    size_t n;
    for (int i = 0; i < 3; i++) {
        void *file = file_of(st, names[i], &n);
        assert_fails(t->cx, ay_image_parse(t->cx, "p", file, n, 13 * 19 - 1, &im), ALLOY_E_UNSUPPORTED,
                     "19 x 13 pixels; at most 246");
        assert_null(im.pixels);
        free(file);
    }
    unsigned char *png = file_of(st, "png-rgb", &n);
    memcpy(png + 33, "\x7b\x00\x23\x69", 4); /* the second chunk claims 2 GB: refused, not allocated */
    assert_fails(t->cx, ay_image_parse(t->cx, "p", png, n, 1000, &im), ALLOY_E_FORMAT, "cut short");
    free(png);
    void *file = file_of(st, "animated", &n);
    assert_fails(t->cx, ay_image_parse(t->cx, "p", file, n, 1000, &im), ALLOY_E_UNSUPPORTED, "animated");
    free(file);
    assert_fails(t->cx, ay_image_parse(t->cx, "p", "", 0, 1000, &im), ALLOY_E_FORMAT, "empty");
    assert_fails(t->cx, ay_image_parse(t->cx, "p", "G", 1, 1000, &im), ALLOY_E_FORMAT, "47 00 00 00");
    assert_fails(t->cx, ay_image_parse(t->cx, "p", "GIF89a......", 12, 1000, &im), ALLOY_E_FORMAT, "47 49 46 38");
    assert_fails(t->cx, ay_image_read(t->cx, t->dir, 1000, &im), ALLOY_E_IO, "folder");
    ay_st_close(&st);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_against_pillow), AY_TEST(test_text_by_pillow),
                                       AY_TEST(test_png_round_trip), AY_TEST(test_png_refusals),
                                       AY_TEST(test_cut_files),      AY_TEST(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
