/* SPDX-License-Identifier: MIT
 *
 * Pictures made ready for models, byte for byte as Pillow does it (src/libImaging/Resample.c, Convert.c): resampling with
 * Lanczos' filter in two passes of 8-bit numbers and 22-bit weights, gray by ITU-R 601-2.
 */
#include "io/io.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- channels ------------------------------------------------------------------------------------------------------ */

alloy_status ay_image_rgb(ay_ctx *cx, ay_image *im) {
    size_t n = (size_t)im->width * (size_t)im->height;
    if (im->channels == 3) return ALLOY_OK;
    uint8_t *out = malloc(n * 3);
    if (!out) return ay_nomem(cx);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = im->pixels + i * (size_t)im->channels;
        for (int k = 0; k < 3; k++) {
            /* over white, rounded */
            out[3 * i + (size_t)k] = im->channels == 1 ? p[0] : (uint8_t)((p[k] * p[3] + 255 * (255 - p[3]) + 127) / 255);
        }
    }
    free(im->pixels);
    im->pixels = out;
    im->channels = 3;
    return ALLOY_OK;
}

void ay_image_gray(ay_image *im) {
    size_t n = (size_t)im->width * (size_t)im->height;
    for (size_t i = 0; i < n && im->channels != 1; i++) {
        const uint8_t *p = im->pixels + i * (size_t)im->channels;
        im->pixels[i] = (uint8_t)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
    }
    im->channels = 1;
}

/* ---- turning -------------------------------------------------------------------------------------------------------- */

alloy_status ay_image_orient(ay_ctx *cx, ay_image *im, int orientation) {
    if (orientation < 2 || orientation > 8) return ALLOY_OK;
    bool swapped = orientation > 4; /* 5 to 8: rows become columns */
    int w = im->width, h = im->height, c = im->channels, ow = swapped ? h : w, oh = swapped ? w : h;
    uint8_t *out = malloc((size_t)w * (size_t)h * (size_t)c);
    if (!out) return ay_nomem(cx);
    /* which corner the first row and column of the file belong to (EXIF 2.3, tag 274) */
    bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    for (int y = 0; y < oh; y++) {
        for (int x = 0; x < ow; x++) {
            int sx = swapped ? y : x, sy = swapped ? x : y;
            if (flip_x) sx = w - 1 - sx;
            if (flip_y) sy = h - 1 - sy;
            memcpy(out + ((size_t)y * (size_t)ow + (size_t)x) * (size_t)c,
                   im->pixels + ((size_t)sy * (size_t)w + (size_t)sx) * (size_t)c, (size_t)c);
        }
    }
    free(im->pixels);
    *im = (ay_image){ow, oh, c, out};
    return ALLOY_OK;
}

/* ---- resampling ------------------------------------------------------------------------------------------------------ */

enum { PRECISION = 32 - 8 - 2 };

static double sinc(double x) { return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI); }
static double lanczos(double x) { return x > -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

/* For every place of the new line: which places of the old one it is made of, and their weights. */
typedef struct taps {
    int *first, *count;
    int32_t *weight; /* [out, most] */
    int most;
} taps;

static void free_taps(taps *t) {
    free(t->first);
    free(t->count);
    free(t->weight);
}

static alloy_status make_taps(ay_ctx *cx, int in, int out, taps *t) {
    double scale = (double)in / out, stretch = scale < 1 ? 1 : scale, support = 3 * stretch;
    t->most = (int)ceil(support) * 2 + 1;
    t->first = malloc((size_t)out * sizeof *t->first);
    t->count = malloc((size_t)out * sizeof *t->count);
    t->weight = calloc((size_t)out * (size_t)t->most, sizeof *t->weight);
    double *w = malloc((size_t)t->most * sizeof *w);
    if (!t->first || !t->count || !t->weight || !w) {
        free(w);
        return ay_nomem(cx);
    }
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0, inverse = 1 / stretch;
        int from = (int)(center - support + 0.5), to = (int)(center + support + 0.5);
        from = from < 0 ? 0 : from;
        to = to > in ? in : to;
        for (int k = from; k < to; k++) sum += w[k - from] = lanczos((k - center + 0.5) * inverse);
        for (int k = 0; k < to - from; k++) {
            double v = (sum != 0 ? w[k] / sum : w[k]) * (1 << PRECISION);
            t->weight[(size_t)i * (size_t)t->most + (size_t)k] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        t->first[i] = from;
        t->count[i] = to - from;
    }
    free(w);
    return ALLOY_OK;
}

static uint8_t clip8(int32_t v) {
    v >>= PRECISION;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* One number of a line: `step` bytes between its places. */
static uint8_t weigh(const uint8_t *in, size_t step, const int32_t *w, int n) {
    int32_t sum = 1 << (PRECISION - 1);
    for (int k = 0; k < n; k++) sum += in[(size_t)k * step] * w[k];
    return clip8(sum);
}

static alloy_status resample(ay_ctx *cx, const ay_image *im, int size, bool columns, ay_image *out) {
    taps t = {0};
    size_t c = (size_t)im->channels;
    *out = columns ? (ay_image){im->width, size, im->channels, NULL} : (ay_image){size, im->height, im->channels, NULL};
    size_t in_row = (size_t)im->width * c, out_row = (size_t)out->width * c;
    out->pixels = malloc(out_row * (size_t)out->height);
    alloy_status st = out->pixels ? make_taps(cx, columns ? im->height : im->width, size, &t) : ay_nomem(cx);
    for (int y = 0; y < out->height && st == ALLOY_OK; y++) {
        uint8_t *to = out->pixels + (size_t)y * out_row;
        for (size_t x = 0; x < out_row; x++) {
            size_t i = columns ? (size_t)y : x / c;
            const uint8_t *from = columns ? im->pixels + (size_t)t.first[i] * in_row + x
                                          : im->pixels + (size_t)y * in_row + (size_t)t.first[i] * c + x % c;
            to[x] = weigh(from, columns ? in_row : c, t.weight + i * (size_t)t.most, t.count[i]);
        }
        st = ay_check_stop(cx);
    }
    free_taps(&t);
    if (st != ALLOY_OK) ay_image_free(out);
    return st;
}

static alloy_status resize_axis(ay_ctx *cx, ay_image *im, int size, bool columns) {
    ay_image out;
    if (size == (columns ? im->height : im->width)) return ALLOY_OK;
    AY_TRY(resample(cx, im, size, columns, &out));
    ay_image_free(im);
    *im = out;
    return ALLOY_OK;
}

alloy_status ay_image_resize(ay_ctx *cx, ay_image *im, int width, int height) {
    /* which pass comes first shows in the last bits: rows, but columns where the height shrinks by far more (Pillow 13) */
    bool columns_first = height < im->height && im->height - (int64_t)height > 2 * ((int64_t)im->width - width);
    AY_TRY(resize_axis(cx, im, columns_first ? height : width, columns_first));
    return resize_axis(cx, im, columns_first ? width : height, !columns_first);
}
