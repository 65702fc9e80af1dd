/* SPDX-License-Identifier: MIT
 *
 * Bytes in, structure out: safetensors, PyTorch's files, GGUF, JSON (over jansson), pictures (over libpng, libjpeg, libwebp). Nothing is trusted.
 */
#ifndef AY_IO_H
#define AY_IO_H

#include "base/base.h"
#include "base/fs.h"

#include <jansson.h>

/* ---- JSON: a whole file, depth- and size-limited, duplicate keys refused; errors name file, line, column ----------- */
alloy_status ay_json_read(ay_ctx *cx, const char *path, json_t **out); /* decref by the caller */
alloy_status ay_json_parse(ay_ctx *cx, const char *what, const char *text, size_t n, json_t **out);
alloy_status ay_json_write(ay_ctx *cx, const char *path, const json_t *v); /* sorted as inserted, 2-space indent, atomic */
/** A path or other outside text as a JSON string: what is no UTF-8 becomes U+FFFD. NULL: no memory. */
json_t *ay_json_text(const char *s);
/** The same as text in `a`. */
char *ay_utf8(ay_arena *a, const char *s);
/* Typed members: a missing key, a wrong type or a value outside [lo, hi] is one sentence naming `what` (the file). */
alloy_status ay_json_int(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi,
                         int64_t *out);
/* null counts as missing */
alloy_status ay_json_int_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi,
                            int64_t dflt, int64_t *out);
alloy_status ay_json_num_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, double lo, double hi,
                            double dflt, double *out);
alloy_status ay_json_bool_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, bool dflt, bool *out);
alloy_status ay_json_str(ay_ctx *cx, const char *what, const json_t *obj, const char *key, const char **out); /* borrowed */
alloy_status ay_json_str_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, const char *dflt,
                            const char **out);
alloy_status ay_json_ints(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi, int max,
                          int64_t *out, int *n);

/* ---- files of tensors: safetensors, and the other formats in the same structs --------------------------------------- */
typedef struct ay_st_tensor {
    const char *name;
    ay_type type;
    uint64_t offset; /* in the file */
    size_t bytes;    /* from there to the last element's end */
    const int64_t *stride; /* in elements, by dimension; NULL: row-major */
    ay_block block;        /* packed in blocks, which the last dimension is a multiple of; type.dtype is what they stand for */
} ay_st_tensor;
typedef struct ay_safetensors {
    const char *path;
    const char *format; /* "safetensors", "pytorch" or "gguf" */
    ay_map map;
    ay_arena *arena;
    ay_st_tensor *tensors; /* sorted by name, bytewise */
    int n;
    const char **metadata; /* key, value, ..., NULL */
    uint64_t header_at;    /* the part of the file that names the tensors */
    size_t header_bytes;
    bool borrowed; /* the bytes are the caller's, not a map */
} ay_safetensors;
/** Any of the formats, told by its first bytes. */
alloy_status ay_tensors_open(ay_ctx *cx, const char *path, ay_safetensors **out);
/** A checkpoint that torch.save wrote (.pt, .pth, .ckpt, .bin): the zip form and the one before it. Its pickle is read by a
 *  machine that knows tensors, numbers, texts and containers; anything else in it is refused by name, and nothing is run. */
alloy_status ay_torch_open(ay_ctx *cx, const char *path, ay_safetensors **out);
alloy_status ay_torch_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out);
/** GGUF, versions 2 and 3: plain numbers and the blocks of ay_block. */
alloy_status ay_gguf_open(ay_ctx *cx, const char *path, ay_safetensors **out);
alloy_status ay_gguf_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out);
/** safetensors: maps and checks everything: header length, JSON, dtypes, shapes against offsets, overlaps, ends. */
alloy_status ay_st_open(ay_ctx *cx, const char *path, ay_safetensors **out);
/** The same over bytes that stay the caller's; `what` names them in sentences. */
alloy_status ay_st_open_bytes(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_safetensors **out);
void ay_st_close(ay_safetensors **s);
const ay_st_tensor *ay_st_find(const ay_safetensors *s, const char *name);
static inline const void *ay_st_data(const ay_safetensors *s, const ay_st_tensor *t) { return s->map.data + t->offset; }
/** Writes tensors (data set) to a new file, atomically. metadata: key, value, ..., NULL; or NULL. */
alloy_status ay_st_write(ay_ctx *cx, const char *path, const ay_tensor *t, int n, const char *const *metadata);

/* ---- pictures ------------------------------------------------------------------------------------------------------ */
typedef struct ay_image {
    int width, height;
    int channels;    /* 1 gray, 3 RGB, 4 RGBA */
    uint8_t *pixels; /* [height, width, channels], malloc'd */
} ay_image;
void ay_image_free(ay_image *im);
/** PNG, JPEG or WebP by content; at most `max_pixels`. */
alloy_status ay_image_read(ay_ctx *cx, const char *path, int64_t max_pixels, ay_image *out);
/** The same over bytes in memory; `what` names them in sentences. */
alloy_status ay_image_parse(ay_ctx *cx, const char *what, const void *bytes, size_t n, int64_t max_pixels, ay_image *out);
/** Three channels: gray three times, transparent parts over white. */
alloy_status ay_image_rgb(ay_ctx *cx, ay_image *im);
/** One channel; transparency is dropped. */
void ay_image_gray(ay_image *im);
/** As Pillow's resize with its LANCZOS filter, to the byte. */
alloy_status ay_image_resize(ay_ctx *cx, ay_image *im, int width, int height);
/** Upright, by EXIF's orientation, 1 to 8; other numbers change nothing. */
alloy_status ay_image_orient(ay_ctx *cx, ay_image *im, int orientation);
/** text: keyword, value, ..., NULL as iTXt/tEXt chunks (UTF-8). Atomic. */
alloy_status ay_png_write(ay_ctx *cx, const char *path, const ay_image *im, const char *const *text);
/** The text chunks of a PNG: keyword, value, ..., NULL in `arena`. */
alloy_status ay_png_text(ay_ctx *cx, const char *path, ay_arena *arena, char ***text);
alloy_status ay_png_text_parse(ay_ctx *cx, const char *what, const void *bytes, size_t n, ay_arena *arena, char ***text);
#endif
