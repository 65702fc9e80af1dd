/* SPDX-License-Identifier: MIT
 *
 * Puts PNG pictures of one size side by side on a contact sheet: sheet OUT.png COLUMNS PICTURE.png ...
 * and, with --show, prints a PNG to a terminal that can draw pictures (kitty, iTerm2, sixel).
 */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GAP = 4 };

typedef struct picture {
    png_uint_32 width, height;
    unsigned char *rgb;
} picture;

static int read_picture(const char *path, picture *p) {
    png_image im = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&im, path)) return fprintf(stderr, "sheet: %s: %s\n", path, im.message), 1;
    im.format = PNG_FORMAT_RGB;
    *p = (picture){im.width, im.height, malloc(PNG_IMAGE_SIZE(im))};
    if (!p->rgb) return png_image_free(&im), 1;
    if (!png_image_finish_read(&im, NULL, p->rgb, 0, NULL)) return fprintf(stderr, "sheet: %s: %s\n", path, im.message), 1;
    return 0;
}

static int make_sheet(const char *out, int columns, int n, char **paths) {
    picture sheet = {0};
    int rows = (n + columns - 1) / columns;
    for (int i = 0; i < n; i++) {
        picture p = {0};
        if (read_picture(paths[i], &p)) return 1;
        if (i == 0) {
            sheet.width = (png_uint_32)columns * (p.width + GAP) + GAP;
            sheet.height = (png_uint_32)rows * (p.height + GAP) + GAP;
            sheet.rgb = malloc((size_t)sheet.width * sheet.height * 3);
            if (!sheet.rgb) return 1;
            memset(sheet.rgb, 255, (size_t)sheet.width * sheet.height * 3);
        }
        size_t left = GAP + (size_t)(i % columns) * (p.width + GAP), top = GAP + (size_t)(i / columns) * (p.height + GAP);
        if (left + p.width > sheet.width || top + p.height > sheet.height) return fprintf(stderr, "sheet: %s: another size\n", paths[i]), 1;
        for (png_uint_32 y = 0; y < p.height; y++) {
            memcpy(sheet.rgb + ((top + y) * sheet.width + left) * 3, p.rgb + (size_t)y * p.width * 3, (size_t)p.width * 3);
        }
        free(p.rgb);
    }
    png_image im = {.version = PNG_IMAGE_VERSION, .width = sheet.width, .height = sheet.height, .format = PNG_FORMAT_RGB};
    int ok = png_image_write_to_file(&im, out, 0, sheet.rgb, 0, NULL);
    if (!ok) fprintf(stderr, "sheet: %s: %s\n", out, im.message);
    free(sheet.rgb);
    return !ok;
}

/* ---- terminals ------------------------------------------------------------------------------------------------------- */

static void base64(const unsigned char *b, size_t n, size_t chunk, const char *first, const char *more, const char *last, const char *end) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t at = 0; at < n; at += chunk) {
        size_t stop = at + chunk < n ? at + chunk : n;
        fputs(at == 0 ? first : stop < n ? more : last, stdout);
        for (size_t i = at; i < stop; i += 3) {
            unsigned v = (unsigned)b[i] << 16 | (i + 1 < n ? (unsigned)b[i + 1] << 8 : 0) | (i + 2 < n ? b[i + 2] : 0);
            putchar(digits[v >> 18]);
            putchar(digits[v >> 12 & 63]);
            putchar(i + 1 < n ? digits[v >> 6 & 63] : '=');
            putchar(i + 2 < n ? digits[v & 63] : '=');
        }
        fputs(end, stdout);
    }
}

/* Colours in steps of a fifth: 216 of them, six rows of pixels at a time. "1;1 says that pixels are square. */
static void sixel(const picture *p) {
    printf("\033Pq\"1;1;%u;%u", (unsigned)p->width, (unsigned)p->height);
    for (int c = 0; c < 216; c++) printf("#%d;2;%d;%d;%d", c, c / 36 * 20, c / 6 % 6 * 20, c % 6 * 20);
    for (png_uint_32 top = 0; top < p->height; top += 6) {
        for (int c = 0; c < 216; c++) {
            int any = 0;
            for (png_uint_32 x = 0; x < p->width; x++) {
                int bits = 0;
                for (png_uint_32 y = top; y < top + 6 && y < p->height; y++) {
                    const unsigned char *q = p->rgb + ((size_t)y * p->width + x) * 3;
                    if ((q[0] + 25) / 51 * 36 + (q[1] + 25) / 51 * 6 + (q[2] + 25) / 51 == c) bits |= 1 << (y - top);
                }
                if (bits && !any) {
                    any = 1;
                    printf("#%d", c);
                    for (png_uint_32 k = 0; k < x; k++) putchar('?');
                }
                if (any) putchar('?' + bits);
            }
            if (any) putchar('$');
        }
        putchar('-');
    }
    printf("\033\\\n");
}

static int show(const char *path) {
    const char *program = getenv("TERM_PROGRAM"), *term = getenv("TERM");
    FILE *f = fopen(path, "rb");
    if (!f || !term) return f ? fclose(f), 0 : 1;
    unsigned char *bytes = malloc(1 << 22);
    size_t n = bytes ? fread(bytes, 1, 1 << 22, f) : 0;
    fclose(f);
    if (strstr(term, "kitty") || getenv("KITTY_WINDOW_ID") || (program && strcmp(program, "ghostty") == 0)) {
        base64(bytes, n, 3072, n > 3072 ? "\033_Ga=T,f=100,m=1;" : "\033_Ga=T,f=100;", "\033_Gm=1;", "\033_Gm=0;", "\033\\");
        printf("\n");
    } else if (program && (strcmp(program, "iTerm.app") == 0 || strcmp(program, "WezTerm") == 0)) {
        printf("\033]1337;File=inline=1;size=%zu:", n);
        base64(bytes, n, n, "", "", "", "");
        printf("\a\n");
    } else if (strstr(term, "sixel") || strstr(term, "mlterm") || strstr(term, "foot")) {
        picture p = {0};
        if (read_picture(path, &p) == 0) sixel(&p);
        free(p.rgb);
    }
    free(bytes);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--show") == 0) return show(argv[2]);
    if (argc >= 4 && atoi(argv[2]) > 0) return make_sheet(argv[1], atoi(argv[2]), argc - 3, argv + 3);
    fprintf(stderr, "usage: sheet OUT.png COLUMNS PICTURE.png ...    or: sheet --show PICTURE.png\n");
    return 2;
}
