/* SPDX-License-Identifier: MIT
 *
 * Pictures of any kind and the text in PNGs: a picture of at most the pixels allowed, or one sentence.
 */
#include "io/io.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_PIXELS = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ay_ctx *cx;
    if (ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    ay_image im;
    alloy_status s = ay_image_parse(cx, "fuzz", data, size, MAX_PIXELS, &im);
    if ((s == ALLOY_OK) != (im.pixels != NULL)) __builtin_trap();
    if (s == ALLOY_OK) {
        if ((int64_t)im.width * im.height > MAX_PIXELS) __builtin_trap();
        unsigned sum = 0; /* the sanitizer watches */
        for (size_t i = 0; i < (size_t)im.width * (size_t)im.height * (size_t)im.channels; i++) sum += im.pixels[i];
        if (sum == 1) im.pixels[0] = 0;
    } else if (s != ALLOY_E_NOMEM && strncmp(ay_error_text(cx), "fuzz: ", 6) != 0) __builtin_trap();
    ay_image_free(&im);
    ay_arena *a = ay_arena_new();
    char **text;
    if (a && ay_png_text_parse(cx, "fuzz", data, size, a, &text) == ALLOY_OK) {
        for (int i = 0; text[i]; i++) {
            if (strlen(text[i]) > ((size_t)1 << 25)) __builtin_trap();
        }
    }
    ay_arena_free(a);
    ay_ctx_close(&cx);
    return 0;
}
