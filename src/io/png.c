/* SPDX-License-Identifier: MIT
 *
 * PNG over libpng: decoding to 8 bits a channel, encoding with text chunks, and reading those back. libpng reports errors by
 * longjmp, so everything that must be freed lives in a job struct outside the function that calls setjmp.
 *
 * Text: tEXt is Latin-1 and is what other tools read; text beyond Latin-1 goes into iTXt (UTF-8), as Pillow does it.
 */
#include "io/image_internal.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

enum { MAX_TEXT = 1 << 24, MAX_CHUNKS = 1000 }; /* of one chunk, and in number */

typedef struct png_job {
    png_structp png;
    png_infop info;
    char text[200]; /* libpng's words */
    ay_ctx *cx;
    const char *what;
    const unsigned char *bytes; /* reading */
    size_t n, at;
    ay_buf encoded; /* writing */
    png_bytepp rows;
    png_textp chunks;
    int n_chunks;
    ay_arena *arena;
    alloy_status status;
} png_job;

static void on_error(png_structp png, png_const_charp text) {
    png_job *job = png_get_error_ptr(png);
    snprintf(job->text, sizeof job->text, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static void take_bytes(png_structp png, png_bytep to, size_t n) {
    png_job *job = png_get_io_ptr(png);
    if (n > job->n - job->at) png_error(png, "it is cut short");
    memcpy(to, job->bytes + job->at, n);
    job->at += n;
}

/* Chunks (length, type, data, checksum) up to IEND lie within the file: libpng allocates what a length claims. */
static bool chunks_fit(const unsigned char *b, size_t n) {
    for (size_t at = 8;;) {
        if (n - at < 12) return false;
        size_t len = (size_t)b[at] << 24 | (size_t)b[at + 1] << 16 | (size_t)b[at + 2] << 8 | b[at + 3];
        if (len > n - at - 12) return false;
        if (memcmp(b + at + 4, "IEND", 4) == 0) return true;
        at += 12 + len;
    }
}

static bool begin_read(png_job *job) {
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    if (!job->info) return false;
    png_set_read_fn(job->png, job, take_bytes);
    png_set_chunk_malloc_max(job->png, MAX_TEXT);
    png_set_chunk_cache_max(job->png, MAX_CHUNKS);
    return true;
}

static void end_read(png_job *job) {
    if (job->png) png_destroy_read_struct(&job->png, &job->info, NULL);
    free(job->rows);
}

static alloy_status decode(png_job *job, int64_t max_pixels, ay_image *out) {
    png_structp png = job->png;
    png_read_info(png, job->info);
    bool trns = png_get_valid(png, job->info, PNG_INFO_tRNS) != 0;
    bool alpha = trns || (png_get_color_type(png, job->info) & PNG_COLOR_MASK_ALPHA);
    bool color = png_get_color_type(png, job->info) & PNG_COLOR_MASK_COLOR; /* palettes are colour too */
    png_set_expand(png);                                                    /* palette, 1-2-4 bits and tRNS to full */
    png_set_strip_16(png); /* the high byte, as Pillow takes it */
    if (alpha) png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    AY_TRY(ay_image_alloc(job->cx, job->what, png_get_image_width(png, job->info), png_get_image_height(png, job->info),
                          alpha   ? 4
                          : color ? 3
                                  : 1,
                          max_pixels, out));
    png_read_update_info(png, job->info);
    size_t stride = (size_t)out->width * (size_t)out->channels;
    if (png_get_rowbytes(png, job->info) != stride)
        return ay_fail(job->cx, ALLOY_E_INTERNAL, "%s: unexpected row size", job->what);
    job->rows = malloc((size_t)out->height * sizeof *job->rows);
    if (!job->rows) return ay_nomem(job->cx);
    for (int y = 0; y < out->height; y++) job->rows[y] = out->pixels + (size_t)y * stride;
    png_read_image(png, job->rows);
    png_read_end(png, NULL);
    return ALLOY_OK;
}

alloy_status ay_png_read(ay_ctx *cx, const char *what, const void *bytes, size_t n, int64_t max_pixels, ay_image *out) {
    png_job *job = calloc(1, sizeof *job);
    if (!job) return ay_nomem(cx);
    job->cx = cx;
    job->what = what;
    job->bytes = bytes;
    job->n = n;
    *out = (ay_image){0};
    if (!chunks_fit(bytes, n)) job->status = ay_fail(cx, ALLOY_E_FORMAT, "%s: the PNG file is damaged or cut short", what);
    else if (!begin_read(job)) job->status = ay_nomem(cx);
    else if (setjmp(png_jmpbuf(job->png)) == 0) job->status = decode(job, max_pixels, out);
    else job->status = ay_fail(cx, ALLOY_E_FORMAT, "%s: the PNG file is damaged: %s", what, job->text);
    alloy_status s = job->status;
    end_read(job);
    free(job);
    if (s != ALLOY_OK) ay_image_free(out);
    return s;
}

/* ---- text chunks --------------------------------------------------------------------------------------------------- */

static char *latin1_to_utf8(ay_arena *a, const char *s) {
    char *out = ay_alloc(a, strlen(s) * 2 + 1), *p = out;
    if (!out) return NULL;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x80) *p++ = (char)c;
        else {
            *p++ = (char)(0xc0 | c >> 6);
            *p++ = (char)(0x80 | (c & 0x3f));
        }
    }
    return out;
}

/* The next character of valid UTF-8 (RFC 3629: no overlong forms, no surrogates); -1 where it is not. */
static int32_t next_char(const unsigned char **s) {
    const unsigned char *p = *s;
    if (p[0] < 0x80) return *s = p + 1, p[0];
    int more = p[0] >= 0xc2 && p[0] < 0xe0 ? 1 : (p[0] & 0xf0) == 0xe0 ? 2 : p[0] >= 0xf0 && p[0] < 0xf5 ? 3 : 0;
    if (!more) return -1;
    int32_t c = p[0] & (0x3f >> more);
    for (int i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80) return -1;
        c = c << 6 | (p[i] & 0x3f);
    }
    if ((more == 2 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (more == 3 && (c < 0x10000 || c > 0x10ffff))) return -1;
    *s = p + more + 1;
    return c;
}

/* UTF-8 as Latin-1 in the arena; *fits is whether all of it can be said so, *valid whether it is UTF-8 at all. */
static char *utf8_to_latin1(ay_arena *a, const char *s, bool *fits, bool *valid) {
    const unsigned char *p = (const unsigned char *)s;
    char *out = ay_alloc(a, strlen(s) + 1), *q = out;
    *fits = *valid = true;
    while (out && *p && *valid) {
        int32_t c = next_char(&p);
        if (c < 0) *valid = false;
        else if (c > 0xff || (c >= 0x7f && c < 0xa0)) *fits = false; /* 7f to 9f are controls in Latin-1 */
        else *q++ = (char)c;
    }
    return out;
}

static alloy_status collect_text(png_job *job, char ***text) {
    png_textp t;
    int n = 0;
    png_read_info(job->png, job->info);
    png_start_read_image(job->png);
    png_read_end(job->png, job->info); /* passes over the picture; chunks behind it count too */
    png_get_text(job->png, job->info, &t, &n);
    *text = ay_alloc(job->arena, ((size_t)n * 2 + 1) * sizeof **text);
    if (!*text) return ay_nomem(job->cx);
    for (int i = 0; i < n; i++) {
        bool utf8 = t[i].compression >= PNG_ITXT_COMPRESSION_NONE;
        const char *value = t[i].text ? t[i].text : "";
        (*text)[2 * i] = latin1_to_utf8(job->arena, t[i].key);
        (*text)[2 * i + 1] = utf8 ? ay_strdup(job->arena, value) : latin1_to_utf8(job->arena, value);
    }
    return ay_arena_failed(job->arena) ? ay_nomem(job->cx) : ALLOY_OK;
}

alloy_status ay_png_text_parse(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_arena *arena, char ***text) {
    *text = NULL;
    if (n < 8 || memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) != 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: is no PNG file", what);
    png_job *job = calloc(1, sizeof *job);
    if (!job) return ay_nomem(cx);
    job->cx = cx;
    job->what = what;
    job->bytes = bytes;
    job->n = n;
    job->arena = arena;
    if (!chunks_fit(bytes, n)) job->status = ay_fail(cx, ALLOY_E_FORMAT, "%s: the PNG file is damaged or cut short", what);
    else if (!begin_read(job)) job->status = ay_nomem(cx);
    else if (setjmp(png_jmpbuf(job->png)) == 0) job->status = collect_text(job, text);
    else job->status = ay_fail(cx, ALLOY_E_FORMAT, "%s: the PNG file is damaged: %s", what, job->text);
    alloy_status s = job->status;
    end_read(job);
    free(job);
    return s;
}

alloy_status ay_png_text(ay_ctx *cx, const char *path, ay_arena *arena, char ***text) {
    ay_map m;
    *text = NULL;
    AY_TRY(ay_map_open(cx, path, &m));
    alloy_status s = ay_png_text_parse(cx, path, m.data, m.size, arena, text);
    ay_map_close(&m);
    return s;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static void put_bytes(png_structp png, png_bytep bytes, size_t n) {
    png_job *job = png_get_io_ptr(png);
    ay_buf_add(&job->encoded, bytes, n);
    if (job->encoded.failed) png_error(png, "out of memory");
}

static void put_nothing(png_structp png) {}

/* Fills job->chunks from keyword, value, ..., NULL. */
static alloy_status make_chunks(png_job *job, const char *const *text) {
    int n = 0;
    while (text && text[2 * n] && text[2 * n + 1]) n++;
    job->chunks = ay_alloc(job->arena, ((size_t)n + 1) * sizeof *job->chunks);
    for (int i = 0; i < n && job->chunks; i++) {
        png_textp c = &job->chunks[i];
        bool fits, valid;
        c->key = utf8_to_latin1(job->arena, text[2 * i], &fits, &valid);
        if (!valid || !fits || !*text[2 * i] || (c->key && strlen(c->key) > 79))
            return ay_fail(job->cx, ALLOY_E_USAGE,
                           "%s: text number %d of the PNG has no keyword of 1 to 79 Latin characters", job->what, i + 1);
        c->text = utf8_to_latin1(job->arena, text[2 * i + 1], &fits, &valid);
        c->compression = PNG_TEXT_COMPRESSION_NONE;
        if (!valid)
            return ay_fail(job->cx, ALLOY_E_USAGE, "%s: the text \"%s\" for the PNG is not valid UTF-8", job->what, c->key);
        if (!fits) {
            c->text = ay_strdup(job->arena, text[2 * i + 1]);
            c->compression = PNG_ITXT_COMPRESSION_NONE;
            c->lang = c->lang_key = ay_strdup(job->arena, "");
        }
    }
    job->n_chunks = n;
    return ay_arena_failed(job->arena) ? ay_nomem(job->cx) : ALLOY_OK;
}

static void encode(png_job *job, const ay_image *im) {
    static const int color[5] = {0, PNG_COLOR_TYPE_GRAY, 0, PNG_COLOR_TYPE_RGB, PNG_COLOR_TYPE_RGB_ALPHA};
    png_structp png = job->png;
    png_set_write_fn(png, job, put_bytes, put_nothing);
    png_set_IHDR(png, job->info, (png_uint_32)im->width, (png_uint_32)im->height, 8, color[im->channels], PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (job->n_chunks) png_set_text(png, job->info, job->chunks, job->n_chunks);
    png_write_info(png, job->info);
    for (int y = 0; y < im->height; y++)
        png_write_row(png, im->pixels + (size_t)y * (size_t)im->width * (size_t)im->channels);
    png_write_end(png, NULL); /* NULL: the text is not written twice */
}

static alloy_status write_job(png_job *job, const ay_image *im, const char *const *text) {
    job->arena = ay_arena_new();
    if (!job->arena) return ay_nomem(job->cx);
    AY_TRY(make_chunks(job, text));
    job->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    if (!job->info) return ay_nomem(job->cx);
    if (setjmp(png_jmpbuf(job->png)) != 0)
        return job->encoded.failed
                   ? ay_nomem(job->cx)
                   : ay_fail(job->cx, ALLOY_E_INTERNAL, "%s: cannot be encoded as PNG: %s", job->what, job->text);
    encode(job, im);
    return ay_file_write(job->cx, job->what, job->encoded.data, job->encoded.len);
}

alloy_status ay_png_write(ay_ctx *cx, const char *path, const ay_image *im, const char *const *text) {
    if (im->width < 1 || im->height < 1 || (im->channels != 1 && im->channels != 3 && im->channels != 4))
        return ay_fail(cx, ALLOY_E_INTERNAL, "%s: a picture of %d x %d pixels in %d channels cannot be written", path,
                       im->width, im->height, im->channels);
    png_job *job = calloc(1, sizeof *job);
    if (!job) return ay_nomem(cx);
    job->cx = cx;
    job->what = path;
    alloy_status s = write_job(job, im, text);
    if (job->png) png_destroy_write_struct(&job->png, &job->info);
    ay_buf_free(&job->encoded);
    ay_arena_free(job->arena);
    free(job);
    return s;
}
