/* SPDX-License-Identifier: MIT
 *
 * A control net beside a denoiser: a model folder of its own, whose results the denoiser adds to its own on the way up.
 */
#ifndef AY_CONTROL_H
#define AY_CONTROL_H

#include "pipe/denoise.h"

enum { AY_CONTROL_MOST = 160 };

typedef struct ay_control {
    ay_model *m;
    ay_component *c;
    int batch;                       /* samples a call */
    float *picture;                  /* [batch, 3, H, W], 0 to 1 */
    ay_tensor out[AY_CONTROL_MOST];  /* what it gives */
    ay_tensor in[AY_CONTROL_MOST];   /* the same numbers under the names of the denoiser's inputs */
    int n;
    double strength, from, to;
} ay_control;

/** Opens the request's control net for `batch` latents of d's size and `text` tokens, after checking that it belongs to the denoiser
 *  `base`. To be closed also after a failure. */
alloy_status ay_control_open(ay_stage *x, const ay_model_part *base, const ay_denoiser *d, int64_t text, int batch, ay_control *out);
void ay_control_close(ay_stage *x, ay_control *c);
/** Runs it with the denoiser's inputs (the first of which is the sample) where this call of the run wants it; else gives zeros. */
alloy_status ay_control_run(ay_stage *x, ay_control *c, const ay_moment *at, const ay_tensor *inputs, int n);
/** Edges of an RGB or gray picture, white on black, by Canny's method as OpenCV's cv2.Canny with a 3x3 Sobel operator finds them
 *  (canny.c). The picture becomes gray. */
alloy_status ay_canny(ay_ctx *cx, ay_image *im, double low, double high);

#endif
