/* SPDX-License-Identifier: MIT
 *
 * Few-step sampling of distilled models: LCM and TCD (schedulers/scheduling_lcm.py and scheduling_tcd.py of diffusers). Each
 * step goes to the picture as it is seen now, and back to a noise level with noise drawn anew.
 */
#include "pipe/sched.h"

#include <math.h>

/* Of the `original_inference_steps` that the model was distilled for, high to low. */
static alloy_status distilled_timesteps(ay_ctx *cx, ay_sched *s, const json_t *config) {
    int64_t original;
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, config, "original_inference_steps", 1, s->train_steps, ay_min_i64(50, s->train_steps),
                          &original));
    if (s->steps > original) {
        return ay_fail(cx, ALLOY_E_USAGE, "%d steps: %s has at most the %lld it was trained with", s->steps, s->row->name,
                       (long long)original);
    }
    s->calls = s->steps;
    s->timesteps = ay_alloc(s->arena, (size_t)s->steps * sizeof *s->timesteps);
    if (!s->timesteps) return ay_nomem(cx);
    double stride = (double)original / s->steps;
    for (int i = 0; i < s->steps; i++) {
        int64_t at = original - (int64_t)floor(i * stride); /* of the trained steps 1 to original */
        s->timesteps[i] = (float)(at * (s->train_steps / original) - 1);
    }
    return ay_sched_keep(cx, s, 2);
}

enum { PICTURE, NOISE }; /* in kept[] */

static const float *picture_of(ay_sched *s, int64_t t, const float *model, const float *sample) {
    float a = sqrtf(s->alphas[t]), b = sqrtf(1 - s->alphas[t]), *picture = s->kept[PICTURE];
    for (int64_t k = 0; k < s->n; k++) {
        picture[k] = model[k];
        if (s->prediction == AY_PREDICTS_NOISE) picture[k] = (sample[k] - b * model[k]) / a;
        if (s->prediction == AY_PREDICTS_VELOCITY) picture[k] = a * sample[k] - b * model[k];
    }
    ay_sched_limit(s, picture);
    return picture;
}

/* ---- LCM ------------------------------------------------------------------------------------------------------- */

static alloy_status lcm_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, config, "timestep_scaling", 0, 1e6, 10, &s->scaling));
    AY_TRY(ay_sched_read_clip(cx, s, config, false));
    return distilled_timesteps(cx, s, config);
}

static void lcm_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t t = (int64_t)s->timesteps[i];
    bool last = i + 1 == s->calls;
    float next = last ? s->alphas[t] : s->alphas[(int64_t)s->timesteps[i + 1]], a_next = sqrtf(next), b_next = sqrtf(1 - next);
    double scaled = (double)t * s->scaling, square = scaled * scaled + 0.25;
    float skip = (float)(0.25 / square), out = (float)(scaled / sqrt(square)), *noise = s->kept[NOISE];
    const float *picture = picture_of(s, t, model, sample);
    if (!last) ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        float denoised = out * picture[k] + skip * sample[k];
        sample[k] = last ? denoised : a_next * denoised + b_next * noise[k];
    }
}

/* ---- TCD: down to a share 1 - eta of the next timestep, and up to it with noise ----------------------------------- */

static alloy_status tcd_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double eta; /* no setting of the class: an argument of its steps, for which the pipelines give 0 */
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, config, "eta", 0, 1, 0, &eta));
    s->eta = (float)(1 - eta);
    s->bh1 = eta > 0;
    return distilled_timesteps(cx, s, config);
}

static void tcd_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t t = (int64_t)s->timesteps[i];
    bool draws = s->bh1 && i + 1 < s->calls;
    float to = i + 1 < s->calls ? s->timesteps[i + 1] : 0, alpha = s->alphas[t], below = s->alphas[(int64_t)floorf(s->eta * to)];
    float a = sqrtf(alpha), b = sqrtf(1 - alpha), a_below = sqrtf(below), b_below = sqrtf(1 - below);
    float ratio = s->alphas[(int64_t)to] / below, keep = sqrtf(ratio), add = sqrtf(1 - ratio), *noise = s->kept[NOISE];
    const float *picture = picture_of(s, t, model, sample);
    if (draws) ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k], seen = m;
        if (s->prediction == AY_PREDICTS_SAMPLE) seen = (sample[k] - a * m) / b;
        if (s->prediction == AY_PREDICTS_VELOCITY) seen = a * m + b * sample[k];
        float moved = a_below * picture[k] + b_below * seen;
        sample[k] = draws ? keep * moved + add * noise[k] : moved;
    }
}

#define DISTILLED_ROW(class_is, short_name, text)                                                                                 \
    .class_name = class_is, .name = short_name, .label = text, .kind = AY_SCHED_NOISE, .spacing = "leading",                      \
    .betas = "scaled_linear", .beta_start = 0.00085, .beta_end = 0.012

const ay_sched_row ay_sched_lcm = {DISTILLED_ROW("LCMScheduler", "lcm", "LCM"), .has = AY_HAS_SPACING | AY_HAS_ZERO_SNR | AY_HAS_THRESHOLD,
                                   .begin = lcm_begin, .step = lcm_step};
const ay_sched_row ay_sched_tcd = {DISTILLED_ROW("TCDScheduler", "tcd", "TCD"), .has = AY_HAS_SPACING | AY_HAS_ZERO_SNR,
                                   .begin = tcd_begin, .step = tcd_step};
