/* SPDX-License-Identifier: MIT
 *
 * Canny's edges, pixel for pixel as OpenCV finds them (modules/imgproc/src/canny.cpp): 3x3 Sobel derivatives over repeated
 * borders, of a colour picture those of the channel with the steepest slope; |dx| + |dy| as the slope; what is no maximum across
 * its direction is dropped; from slopes above `high`, edges go on along neighbours above `low`.
 */
#include "pipe/control.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TAN_22 = 13573 }; /* of 22.5 degrees, times 2^15 */

typedef struct slopes {
    int w, h;
    int *size;     /* [h + 2, w + 2], zeros around */
    int *dx, *dy;  /* [h, w] */
    uint8_t *mark; /* [h + 2, w + 2]: 0 may be an edge, 1 is none, 2 is one */
} slopes;

static int at(const ay_image *im, int y, int x, int c) {
    y = y < 0 ? 0 : y >= im->height ? im->height - 1 : y;
    x = x < 0 ? 0 : x >= im->width ? im->width - 1 : x;
    return im->pixels[((size_t)y * (size_t)im->width + (size_t)x) * (size_t)im->channels + (size_t)c];
}

static void measure(const ay_image *im, slopes *s) {
    for (int y = 0; y < s->h; y++) {
        for (int x = 0; x < s->w; x++) {
            size_t i = (size_t)y * (size_t)s->w + (size_t)x, k = (size_t)(y + 1) * (size_t)(s->w + 2) + (size_t)(x + 1);
            for (int c = 0; c < im->channels; c++) {
                int dx = at(im, y - 1, x + 1, c) + 2 * at(im, y, x + 1, c) + at(im, y + 1, x + 1, c) - at(im, y - 1, x - 1, c) -
                         2 * at(im, y, x - 1, c) - at(im, y + 1, x - 1, c);
                int dy = at(im, y + 1, x - 1, c) + 2 * at(im, y + 1, x, c) + at(im, y + 1, x + 1, c) - at(im, y - 1, x - 1, c) -
                         2 * at(im, y - 1, x, c) - at(im, y - 1, x + 1, c);
                if (c && abs(dx) + abs(dy) <= s->size[k]) continue;
                s->dx[i] = dx;
                s->dy[i] = dy;
                s->size[k] = abs(dx) + abs(dy);
            }
        }
    }
}

/* Whether the slope at k is a maximum across the edge; of equal ones the first counts. */
static bool is_maximum(const slopes *s, size_t i, size_t k) {
    int row = s->w + 2, m = s->size[k], dx = s->dx[i], dy = s->dy[i];
    const int *p = s->size + k;
    int64_t x = abs(dx), y = (int64_t)abs(dy) << 15, flat = x * TAN_22;
    if (y < flat) return m > p[-1] && m >= p[1];
    if (y > flat + (x << 16)) return m > p[-row] && m >= p[row];
    int side = (dx ^ dy) < 0 ? -1 : 1;
    return m > p[-row - side] && m > p[row + side];
}

static void follow(slopes *s, size_t *stack, size_t n) {
    int row = s->w + 2;
    while (n) {
        size_t k = stack[--n];
        for (int dy = -1; dy <= 1; dy++) {
            for (int dx = -1; dx <= 1; dx++) {
                size_t to = (size_t)((int64_t)k + dy * row + dx);
                if (s->mark[to]) continue;
                s->mark[to] = 2;
                stack[n++] = to;
            }
        }
    }
}

static void trace(slopes *s, int low, int high, size_t *stack) {
    size_t n = 0;
    memset(s->mark, 1, (size_t)(s->w + 2) * (size_t)(s->h + 2));
    for (int y = 0; y < s->h; y++) {
        for (int x = 0; x < s->w; x++) {
            size_t i = (size_t)y * (size_t)s->w + (size_t)x, k = (size_t)(y + 1) * (size_t)(s->w + 2) + (size_t)(x + 1);
            if (s->size[k] <= low || !is_maximum(s, i, k)) continue;
            s->mark[k] = s->size[k] > high ? 2 : 0;
            if (s->mark[k] == 2) stack[n++] = k;
        }
    }
    follow(s, stack, n);
}

alloy_status ay_canny(ay_ctx *cx, ay_image *im, double low, double high) {
    slopes s = {.w = im->width, .h = im->height};
    size_t n = (size_t)s.w * (size_t)s.h, around = (size_t)(s.w + 2) * (size_t)(s.h + 2);
    s.size = calloc(around, sizeof *s.size);
    s.dx = calloc(n, sizeof *s.dx);
    s.dy = calloc(n, sizeof *s.dy);
    s.mark = malloc(around);
    size_t *stack = malloc(n * sizeof *stack); /* each pixel is put there once */
    bool room = s.size && s.dx && s.dy && s.mark && stack;
    if (room) {
        measure(im, &s);
        trace(&s, (int)floor(low < high ? low : high), (int)floor(low < high ? high : low), stack);
        for (size_t i = 0; i < n; i++) {
            im->pixels[i] = s.mark[(i / (size_t)s.w + 1) * (size_t)(s.w + 2) + i % (size_t)s.w + 1] == 2 ? 255 : 0;
        }
        im->channels = 1;
    }
    free(s.size);
    free(s.dx);
    free(s.dy);
    free(s.mark);
    free(stack);
    return room ? ALLOY_OK : ay_nomem(cx);
}
