/* SPDX-License-Identifier: MIT
 *
 * Pictures that a run starts from: read, checked against each other and against what the pipeline's row says it takes, made
 * the run's size as diffusers' VaeImageProcessor does, turned into latents by the VAE's encoder.
 */
#include "pipe/control.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PIXELS = 1 << 28 };

/* ---- reading -------------------------------------------------------------------------------------------------------- */

/* Where the picture is transparent: 255. */
static alloy_status mask_of_alpha(ay_ctx *cx, const char *path, const ay_image *picture, ay_image *mask) {
    size_t n = (size_t)picture->width * (size_t)picture->height;
    if (picture->channels != 4) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: has no transparent parts that --mask alpha could paint; give a mask file, or a picture with an "
                       "alpha channel", path);
    }
    *mask = (ay_image){picture->width, picture->height, 1, malloc(n)};
    if (!mask->pixels) return ay_nomem(cx);
    for (size_t i = 0; i < n; i++) mask->pixels[i] = (uint8_t)(255 - picture->pixels[4 * i + 3]);
    return ALLOY_OK;
}

static alloy_status read_mask(ay_ctx *cx, const alloy_run_options *o, ay_inputs *in) {
    if (strcmp(o->mask, "alpha") == 0) return mask_of_alpha(cx, o->image, &in->picture, &in->mask_image);
    AY_TRY(ay_image_read(cx, o->mask, MAX_PIXELS, &in->mask_image));
    if (in->mask_image.width == in->picture.width && in->mask_image.height == in->picture.height) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_USAGE, "%s: the mask is %dx%d, but the picture %s is %dx%d; both must have the same size", o->mask,
                   in->mask_image.width, in->mask_image.height, o->image, in->picture.width, in->picture.height);
}

static alloy_status check_control(ay_ctx *cx, const ay_model *m, const alloy_run_options *o) {
    if (!o->control_image != !o->controlnet) {
        return o->controlnet ? ay_fail(cx, ALLOY_E_USAGE, "--controlnet: say what it is to see with --control-image")
                             : ay_fail(cx, ALLOY_E_USAGE, "--control-image needs a ControlNet: convert its folder with \"alloy convert\" and give that "
                                       "model folder with --controlnet");
    }
    if (!o->controlnet) return ALLOY_OK;
    if (!m->row->tasks.controlled) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: no ControlNet is known for this pipeline (%s); leave --controlnet out", m->dir, m->row->class_name);
    }
    if (!isfinite(o->control_strength) || fabs(o->control_strength) > 1000) {
        return ay_fail(cx, ALLOY_E_USAGE, "a control strength of %g: from 0 to 1000 can be asked for", o->control_strength);
    }
    if (!(o->control_start >= 0 && o->control_start < o->control_end && o->control_end <= 1)) {
        return ay_fail(cx, ALLOY_E_USAGE, "a ControlNet from %g to %g of the steps: the start must be at least 0 and below the end, which is at most 1",
                       o->control_start, o->control_end);
    }
    return ALLOY_OK;
}

/* "canny" or "canny:100:200" */
static alloy_status preprocess(ay_ctx *cx, const char *how, ay_image *im) {
    double low = 100, high = 200; /* what diffusers' and ControlNet's examples take */
    char end;
    if (!how) return ALLOY_OK;
    if (strcmp(how, "canny") != 0 && (sscanf(how, "canny:%lf:%lf%c", &low, &high, &end) != 2 || !(low >= 0 && low <= 1e6 && high >= 0 && high <= 1e6))) {
        return ay_fail(cx, ALLOY_E_USAGE, "--control-preprocess \"%s\" is not known; canny and canny:LOW:HIGH (such as canny:100:200) are", how);
    }
    return ay_canny(cx, im, low, high);
}

/* What does not go together, before anything is read. */
static alloy_status check_options(ay_ctx *cx, const ay_model *m, const alloy_run_options *o) {
    const ay_tasks *t = &m->row->tasks;
    if (o->mask && !o->image) return ay_fail(cx, ALLOY_E_USAGE, "--mask says which part of a picture to paint; give the picture with --image");
    if (o->strength >= 0 && !o->image) {
        return ay_fail(cx, ALLOY_E_USAGE, "--strength says how much of a picture to change; give the picture with --image");
    }
    if (o->strength > 1 || isnan(o->strength)) {
        return ay_fail(cx, ALLOY_E_USAGE, "a strength of %g: from 0 (hardly changed) to 1 (made anew) can be asked for", o->strength);
    }
    if (o->image && t->image_strength == 0) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: this pipeline (%s) takes no picture to start from; leave --image out", m->dir,
                       m->row->class_name);
    }
    return check_control(cx, m, o);
}

/* The picture's own size where none is asked for, cut to what the model can make; of pictures with more than four times
 * the pixels the model was converted for, about that many. */
static void own_size(const ay_model *m, const ay_image *im, int64_t unit, const alloy_size *asked, ay_request *r) {
    double pixels = (double)im->width * im->height, most = (double)m->width * m->height, scale = pixels > 4 * most ? sqrt(most / pixels) : 1;
    if (!asked->width) r->width = (int)ay_max_i64((int64_t)(im->width * scale) / unit * unit, unit);
    if (!asked->height) r->height = (int)ay_max_i64((int64_t)(im->height * scale) / unit * unit, unit);
}

static alloy_status read_control(ay_ctx *cx, const alloy_run_options *o, ay_request *r) {
    ay_image *im = &r->in.control;
    AY_TRY(ay_image_rgb(cx, im));
    AY_TRY(ay_image_resize(cx, im, r->width, r->height));
    AY_TRY(preprocess(cx, o->control_preprocess, im));
    return ay_image_rgb(cx, im);
}

static alloy_status read_all(ay_ctx *cx, const ay_model *m, const alloy_run_options *o, ay_request *r) {
    ay_inputs *in = &r->in;
    int64_t unit = 8;
    if (m->row->unit) AY_TRY(m->row->unit(cx, m, &unit));
    if (o->control_image) AY_TRY(ay_image_read(cx, o->control_image, MAX_PIXELS, &in->control));
    if (o->image) AY_TRY(ay_image_read(cx, o->image, MAX_PIXELS, &in->picture));
    if (o->mask) AY_TRY(read_mask(cx, o, in));
    own_size(m, o->image ? &in->picture : &in->control, unit, &o->image_size, r);
    if (o->control_image) AY_TRY(read_control(cx, o, r));
    if (!o->image) return ALLOY_OK;
    in->strength = o->strength >= 0 ? o->strength : o->mask ? m->row->tasks.mask_strength : m->row->tasks.image_strength;
    AY_TRY(ay_image_rgb(cx, &in->picture));
    AY_TRY(ay_image_resize(cx, &in->picture, r->width, r->height));
    if (!o->mask) return ALLOY_OK;
    if (in->mask_image.channels == 4) { /* transparency of a mask means nothing, as in Pillow's conversion */
        size_t n = (size_t)in->mask_image.width * (size_t)in->mask_image.height;
        for (size_t i = 0; i < n; i++) memmove(in->mask_image.pixels + 3 * i, in->mask_image.pixels + 4 * i, 3);
        in->mask_image.channels = 3;
    }
    AY_TRY(ay_image_resize(cx, &in->mask_image, r->width, r->height));
    ay_image_gray(&in->mask_image);
    in->mask = in->mask_image.pixels;
    return ALLOY_OK;
}

alloy_status ay_inputs_read(ay_ctx *cx, const ay_model *m, const alloy_run_options *o, ay_request *r) {
    AY_TRY(check_options(cx, m, o));
    if (!o->image && !o->control_image) return ALLOY_OK;
    if (r->width < 1 || r->height < 1 || r->width > 16384 || r->height > 16384) {
        return ay_fail(cx, ALLOY_E_USAGE, "%dx%d: width and height can be up to 16384", r->width, r->height);
    }
    return read_all(cx, m, o, r);
}

void ay_inputs_free(ay_inputs *in) {
    ay_image_free(&in->picture);
    ay_image_free(&in->mask_image);
    ay_image_free(&in->control);
    in->mask = NULL;
}

/* ---- as numbers ------------------------------------------------------------------------------------------------------ */

/* diffusers' binarize: half gray and more is painted. */
static bool paints(uint8_t v) { return v >= 128; }

void ay_inputs_mask(const ay_inputs *in, int64_t height, int64_t width, float *mask) {
    int64_t fy = in->picture.height / height, fx = in->picture.width / width;
    for (int64_t y = 0; y < height; y++) { /* nearest neighbour: the upper left of every block */
        for (int64_t x = 0; x < width; x++) mask[y * width + x] = paints(in->mask[y * fy * in->picture.width + x * fx]);
    }
}

/* [3, H, W] from -1 to 1. */
static void planes_of(const ay_inputs *in, bool masked, float *planes) {
    size_t n = (size_t)in->picture.width * (size_t)in->picture.height;
    for (size_t i = 0; i < 3 * n; i++) {
        float v = (float)in->picture.pixels[(i % n) * 3 + i / n] / 255.0f;
        planes[i] = masked && paints(in->mask[i % n]) ? 0 : 2.0f * v - 1.0f;
    }
}

alloy_status ay_inputs_encode(ay_stage *x, const ay_denoiser *d, bool masked, ay_rng *rng, float *latents) {
    const ay_inputs *in = &x->r->in;
    int64_t n = d->channels * d->height * d->width, w = in->picture.width, h = in->picture.height;
    float *planes = malloc((size_t)(3 * w * h) * sizeof *planes), *mean = malloc((size_t)(2 * n) * sizeof *mean);
    ay_component *c = NULL;
    double began = ay_now();
    alloy_status st = planes && mean ? ay_stage_open(x, "VAEEncoder", &c) : ay_nomem(x->cx);
    ay_type type = ay_shape(AY_F32, 4, (int64_t)1, d->channels, d->height, d->width);
    ay_tensor image = {"x", ay_shape(AY_F32, 4, (int64_t)1, (int64_t)3, h, w), planes};
    ay_tensor out[2] = {{"mean", type, mean}, {"logvar", type, mean ? mean + n : NULL}};
    if (st == ALLOY_OK) {
        planes_of(in, masked, planes);
        st = ay_component_run(x->cx, c, &image, 1, out, 2);
    }
    if (st == ALLOY_OK) { /* DiagonalGaussianDistribution.sample */
        ay_rng_normal(rng, latents, (size_t)n);
        for (int64_t k = 0; k < n; k++) {
            float logvar = mean[n + k] < -30 ? -30 : mean[n + k] > 20 ? 20 : mean[n + k];
            float drawn = mean[k] + expf(0.5f * logvar) * latents[k];
            latents[k] = (drawn - (float)d->shift) * (float)d->scaling;
        }
    }
    ay_stage_close(x, "VAEEncoder", &c);
    json_object_set_new(x->r->report, "image_s",
                        json_real(json_number_value(json_object_get(x->r->report, "image_s")) + ay_now() - began));
    free(planes);
    free(mean);
    return st;
}
