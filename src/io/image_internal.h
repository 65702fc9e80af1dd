/* SPDX-License-Identifier: MIT
 *
 * Between image.c and png.c.
 */
#ifndef AY_IO_IMAGE_INTERNAL_H
#define AY_IO_IMAGE_INTERNAL_H

#include "io/io_internal.h"

/* libjpeg's header wants size_t and FILE before it: io_internal.h brings both. */

/** Checks the size and allocates. */
alloy_status ay_image_alloc(ay_ctx *cx, const char *what, int64_t w, int64_t h, int channels, int64_t max_pixels,
                            ay_image *out);
alloy_status ay_png_read(ay_ctx *cx, const char *what, const void *bytes, size_t n, int64_t max_pixels, ay_image *out);

#endif
