/* SPDX-License-Identifier: MIT
 *
 * Pictures in: the kind is told from the first bytes; PNG is in png.c, JPEG (libjpeg) and WebP (libwebp) are here. The size
 * that a header claims is checked before anything is allocated for it.
 */
#include "io/image_internal.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <webp/decode.h>

enum { MAX_SCANS = 200 }; /* of a progressive JPEG: each costs a pass over the picture, and a file can hold thousands */

void ay_image_free(ay_image *im) {
    free(im->pixels);
    *im = (ay_image){0};
}

alloy_status ay_image_alloc(ay_ctx *cx, const char *what, int64_t w, int64_t h, int channels, int64_t max_pixels,
                            ay_image *out) {
    if (w < 1 || h < 1 || w > INT32_MAX || h > INT32_MAX)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: a picture of %lld x %lld pixels cannot be", what, (long long)w,
                       (long long)h);
    if (w * h > max_pixels)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: the picture has %lld x %lld pixels; at most %lld in all are allowed",
                       what, (long long)w, (long long)h, (long long)max_pixels);
    *out = (ay_image){(int)w, (int)h, channels, malloc((size_t)w * (size_t)h * (size_t)channels)};
    return out->pixels ? ALLOY_OK : ay_nomem(cx);
}

/* ---- JPEG ---------------------------------------------------------------------------------------------------------- */

typedef struct jpeg_job {
    struct jpeg_decompress_struct dec;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    bool truncated;
    char text[JMSG_LENGTH_MAX];
    ay_ctx *cx;
    const char *what;
    const unsigned char *bytes;
    size_t n;
    int64_t max_pixels;
    ay_image *out;
    unsigned char *row; /* of a CMYK picture */
    int orientation;
    alloy_status status;
} jpeg_job;

static void jpeg_fail(j_common_ptr c) {
    jpeg_job *job = c->client_data;
    c->err->format_message(c, job->text);
    longjmp(job->back, 1);
}

static void jpeg_message(j_common_ptr c, int level) { /* level -1: a warning about the data */
    jpeg_job *job = c->client_data;
    if (level < 0 && c->err->msg_code == JWRN_JPEG_EOF) job->truncated = true;
}

static void jpeg_progress(j_common_ptr c) {
    jpeg_job *job = c->client_data;
    if (c->is_decompressor && job->dec.input_scan_number > MAX_SCANS) {
        strcpy(job->text, "it has too many scans");
        longjmp(job->back, 1);
    }
}

/* Adobe's writers store CMYK inverted: 255 is no ink. */
static void cmyk_to_rgb(const unsigned char *in, unsigned char *out, int width, bool inverted) {
    for (int x = 0; x < width; x++, in += 4, out += 3) {
        for (int c = 0; c < 3; c++) {
            int light = inverted ? in[c] : 255 - in[c], key = inverted ? in[3] : 255 - in[3];
            out[c] = (unsigned char)((light * key + 127) / 255);
        }
    }
}

static unsigned number(const unsigned char *p, int bytes, bool little) {
    unsigned v = 0;
    for (int i = 0; i < bytes; i++) v = v << 8 | p[little ? bytes - 1 - i : i];
    return v;
}

/* Tag 0x112 of the first directory in EXIF data, which is a TIFF file; 1 where there is none. */
static int exif_orientation(const unsigned char *p, size_t n) {
    if (n < 8) return 1;
    bool little = p[0] == 'I';
    size_t at = number(p + 4, 4, little);
    if (at > n || n - at < 2) return 1;
    size_t entries = number(p + at, 2, little);
    at += 2;
    for (size_t i = 0; i < entries && n - at >= 12; i++, at += 12) {
        if (number(p + at, 2, little) == 0x112 && number(p + at + 2, 2, little) == 3) return (int)number(p + at + 8, 2, little);
    }
    return 1;
}

/* Of a JPEG's segment. */
static int segment_orientation(const unsigned char *p, size_t n) {
    return n < 6 || memcmp(p, "Exif\0\0", 6) != 0 ? 1 : exif_orientation(p + 6, n - 6);
}

/* Of the chunk that a PNG ("eXIf": length, type, data, checksum) or a WebP ("EXIF": type, length, data, padded to even) may
 * have. Some programs begin it as a JPEG's segment begins. */
static int chunk_orientation(const unsigned char *b, size_t n, bool riff) {
    for (size_t at = riff ? 12 : 8; n - at >= 12;) {
        const unsigned char *data = b + at + 8, *type = b + at + (riff ? 0 : 4);
        size_t len = number(b + at + (riff ? 4 : 0), 4, riff), left = n - at - 8, tail = riff ? len % 2 : 4;
        if (len > left || left - len < tail) return 1;
        if (memcmp(type, riff ? "EXIF" : "eXIf", 4) == 0)
            return len > 6 && memcmp(data, "Exif\0\0", 6) == 0 ? segment_orientation(data, len) : exif_orientation(data, len);
        at += 8 + len + tail;
    }
    return 1;
}

static alloy_status jpeg_decode(jpeg_job *job) {
    struct jpeg_decompress_struct *d = &job->dec;
    jpeg_create_decompress(d);
    d->client_data = job;
    job->progress.progress_monitor = jpeg_progress;
    d->progress = &job->progress;
    jpeg_mem_src(d, job->bytes, (unsigned long)job->n);
    jpeg_save_markers(d, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(d, TRUE);
    for (jpeg_saved_marker_ptr m = d->marker_list; m && job->orientation == 1; m = m->next) {
        job->orientation = segment_orientation(m->data, m->data_length);
    }
    bool gray = d->jpeg_color_space == JCS_GRAYSCALE, cmyk = d->num_components == 4;
    d->out_color_space = gray ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
    AY_TRY(ay_image_alloc(job->cx, job->what, d->image_width, d->image_height, gray ? 1 : 3, job->max_pixels, job->out));
    jpeg_start_decompress(d);
    size_t stride = (size_t)job->out->width * (size_t)job->out->channels;
    if (cmyk && !(job->row = malloc((size_t)job->out->width * 4))) return ay_nomem(job->cx);
    while (d->output_scanline < d->output_height) {
        unsigned char *line = job->out->pixels + d->output_scanline * stride, *to = cmyk ? job->row : line;
        if (jpeg_read_scanlines(d, &to, 1) != 1) break;
        if (cmyk) cmyk_to_rgb(job->row, line, job->out->width, d->saw_Adobe_marker);
        if (ay_stopped(job->cx)) return ay_check_stop(job->cx);
    }
    jpeg_finish_decompress(d);
    if (job->truncated) return ay_fail(job->cx, ALLOY_E_FORMAT, "%s: the JPEG file is cut short", job->what);
    return ALLOY_OK;
}

static alloy_status jpeg_read(ay_ctx *cx, const char *what, const unsigned char *bytes, size_t n, int64_t max_pixels,
                              ay_image *out) {
    jpeg_job *job = calloc(1, sizeof *job);
    if (!job) return ay_nomem(cx);
    *out = (ay_image){0};
    job->cx = cx;
    job->what = what;
    job->bytes = bytes;
    job->n = n;
    job->max_pixels = max_pixels;
    job->out = out;
    job->orientation = 1;
    job->dec.err = jpeg_std_error(&job->errors);
    job->dec.client_data = job;
    job->errors.error_exit = jpeg_fail;
    job->errors.emit_message = jpeg_message;
    if (setjmp(job->back) == 0) job->status = jpeg_decode(job);
    else job->status = ay_fail(cx, ALLOY_E_FORMAT, "%s: the JPEG file is damaged: %s", what, job->text);
    alloy_status s = job->status;
    if (s == ALLOY_OK) s = ay_image_orient(cx, out, job->orientation);
    jpeg_destroy_decompress(&job->dec);
    free(job->row);
    free(job);
    if (s != ALLOY_OK) ay_image_free(out);
    return s;
}

/* ---- WebP ---------------------------------------------------------------------------------------------------------- */

static alloy_status webp_read(ay_ctx *cx, const char *what, const unsigned char *bytes, size_t n, int64_t max_pixels,
                              ay_image *out) {
    WebPBitstreamFeatures f;
    if (WebPGetFeatures(bytes, n, &f) != VP8_STATUS_OK)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: the WebP file is damaged: its header cannot be read", what);
    if (f.has_animation)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: is an animated WebP; a still picture was expected", what);
    AY_TRY(ay_image_alloc(cx, what, f.width, f.height, f.has_alpha ? 4 : 3, max_pixels, out));
    int stride = f.width * out->channels; /* WebP has at most 16383 pixels a side */
    size_t size = (size_t)stride * (size_t)f.height;
    uint8_t *done = f.has_alpha ? WebPDecodeRGBAInto(bytes, n, out->pixels, size, stride)
                                : WebPDecodeRGBInto(bytes, n, out->pixels, size, stride);
    if (done) return ALLOY_OK;
    ay_image_free(out);
    return ay_fail(cx, ALLOY_E_FORMAT, "%s: the WebP file is damaged or cut short", what);
}

/* Read, and then turned as it says. */
static alloy_status oriented(ay_ctx *cx, alloy_status read, int orientation, ay_image *out) {
    AY_TRY(read);
    alloy_status s = ay_image_orient(cx, out, orientation);
    if (s != ALLOY_OK) ay_image_free(out);
    return s;
}

/* ---- any ----------------------------------------------------------------------------------------------------------- */

alloy_status ay_image_parse(ay_ctx *cx, const char *what, const void *bytes, size_t n, int64_t max_pixels, ay_image *out) {
    const unsigned char *b = bytes;
    *out = (ay_image){0};
    if (n == 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: is empty; a picture was expected", what);
    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0) return oriented(cx, ay_png_read(cx, what, b, n, max_pixels, out), chunk_orientation(b, n, false), out);
    if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0) return jpeg_read(cx, what, b, n, max_pixels, out);
    if (n >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0)
        return oriented(cx, webp_read(cx, what, b, n, max_pixels, out), chunk_orientation(b, n, true), out);
    return ay_fail(cx, ALLOY_E_FORMAT, "%s: is no PNG, JPEG or WebP picture (it begins with the bytes %02x %02x %02x %02x)",
                   what, b[0], n > 1 ? b[1] : 0, n > 2 ? b[2] : 0, n > 3 ? b[3] : 0);
}

alloy_status ay_image_read(ay_ctx *cx, const char *path, int64_t max_pixels, ay_image *out) {
    ay_map m;
    *out = (ay_image){0};
    AY_TRY(ay_map_open(cx, path, &m));
    alloy_status s = ay_image_parse(cx, path, m.data, m.size, max_pixels, out);
    ay_map_close(&m);
    return s;
}
