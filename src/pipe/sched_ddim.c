/* SPDX-License-Identifier: MIT
 *
 * DDIM (eta 0), PNDM without its Runge-Kutta start, which is called PLMS, and LCM (schedulers/scheduling_ddim.py,
 * scheduling_pndm.py and scheduling_lcm.py of diffusers). The sample keeps unit variance; steps go from one training
 * step to another.
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

static const char what[] = "scheduler_config.json";

/* What is left of the picture before a training step; below the first one: all, or as much as after the first. */
static float alpha_before(const ay_sched *s, int64_t t) {
    return t >= 0 ? s->alphas[t] : s->alpha_to_one ? 1.0f : s->alphas[0];
}

static alloy_status whole_timesteps(ay_ctx *cx, ay_sched *s, double **t) {
    *t = ay_alloc(s->arena, (size_t)s->steps * sizeof **t);
    s->timesteps = ay_alloc(s->arena, (size_t)(s->steps + 1) * sizeof *s->timesteps);
    if (!*t || !s->timesteps) return ay_nomem(cx);
    ay_sched_space(s, s->steps, true, false, *t);
    return ALLOY_OK;
}

/* ---- DDIM ----------------------------------------------------------------------------------------------------- */

static alloy_status ddim_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double *t, range;
    bool clip;
    AY_TRY(ay_json_bool_or(cx, what, config, "clip_sample", true, &clip));
    AY_TRY(ay_json_num_or(cx, what, config, "clip_sample_range", 1e-6, 1e6, 1, &range));
    AY_TRY(whole_timesteps(cx, s, &t));
    s->clip = clip ? (float)range : 0;
    s->calls = s->steps;
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = (float)t[i];
    return ALLOY_OK;
}

static void ddim_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t t = (int64_t)s->timesteps[i];
    float alpha = s->alphas[t], before = alpha_before(s, t - s->train_steps / s->steps);
    float a = sqrtf(alpha), b = sqrtf(1 - alpha), a_before = sqrtf(before), b_before = sqrtf(1 - before);
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k], x = sample[k], picture = m, noise = m;
        if (s->prediction == AY_PREDICTS_NOISE) {
            picture = (x - b * m) / a;
        } else if (s->prediction == AY_PREDICTS_SAMPLE) {
            noise = (x - a * m) / b;
        } else {
            picture = a * x - b * m;
            noise = a * m + b * x;
        }
        if (s->clip > 0) picture = picture < -s->clip ? -s->clip : picture > s->clip ? s->clip : picture;
        sample[k] = a_before * picture + b_before * noise;
    }
}

/* ---- PNDM ----------------------------------------------------------------------------------------------------- */

enum { HISTORY = 4, FIRST_SAMPLE = 4, MIXED = 5 }; /* in kept[]: the last answers, newest first; the first sample; the mix */

static alloy_status pndm_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double *t;
    bool skip;
    AY_TRY(ay_json_bool_or(cx, what, config, "skip_prk_steps", false, &skip));
    AY_TRY(ay_json_bool_or(cx, what, config, "set_alpha_to_one", false, &s->alpha_to_one));
    if (!skip) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: skip_prk_steps false is not known here; set it to true", what);
    if (s->prediction == AY_PREDICTS_SAMPLE) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: prediction_type \"sample\" is not known for pndm", what);
    }
    AY_TRY(whole_timesteps(cx, s, &t));
    /* the second timestep twice: the first step is made again once its end is known */
    s->calls = s->steps > 1 ? s->steps + 1 : 1;
    for (int i = 0; i < s->calls; i++) s->timesteps[i] = (float)t[i < 2 ? ay_min_i64(i, s->steps - 1) : i - 1];
    return ay_sched_keep(cx, s, AY_SCHED_KEPT);
}

/* Formula (9) of the PNDM paper (arXiv 2202.09778): from training step t to `to`. */
static void transfer(const ay_sched *s, int64_t t, int64_t to, const float *model, const float *from, float *sample) {
    float alpha = alpha_before(s, t), before = alpha_before(s, to), beta = 1 - alpha, beta_before = 1 - before;
    float keep = sqrtf(before / alpha), below = alpha * sqrtf(beta_before) + sqrtf(alpha * beta * before);
    float a = sqrtf(alpha), b = sqrtf(beta), change = before - alpha;
    for (int64_t k = 0; k < s->n; k++) {
        float m = s->prediction == AY_PREDICTS_VELOCITY ? a * model[k] + b * from[k] : model[k];
        sample[k] = keep * from[k] - change * m / below;
    }
}

static void pndm_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t stride = s->train_steps / s->steps, t = (int64_t)s->timesteps[i], to = t - stride;
    float *mixed = s->kept[MIXED];
    size_t bytes = (size_t)s->n * sizeof(float);
    if (s->counter != 1) {
        memcpy(ay_sched_rotate(s, HISTORY), model, bytes);
    } else {
        to = t;
        t += stride;
    }
    const float *e0 = s->kept[0], *e1 = s->kept[1], *e2 = s->kept[2], *e3 = s->kept[3], *from = sample;
    if (s->counter == 0) memcpy(s->kept[FIRST_SAMPLE], sample, bytes);
    for (int64_t k = 0; k < s->n; k++) {
        if (s->counter == 0) mixed[k] = model[k];
        else if (s->counter == 1) mixed[k] = (model[k] + e0[k]) / 2;
        else if (s->n_kept == 2) mixed[k] = (3 * e0[k] - e1[k]) / 2;
        else if (s->n_kept == 3) mixed[k] = (23 * e0[k] - 16 * e1[k] + 5 * e2[k]) / 12;
        else mixed[k] = (float)(1.0 / 24) * (55 * e0[k] - 59 * e1[k] + 37 * e2[k] - 9 * e3[k]);
    }
    if (s->counter == 1) from = s->kept[FIRST_SAMPLE];
    transfer(s, ay_min_i64(t, s->train_steps - 1), to, mixed, from, sample);
    s->counter++;
}

/* ---- latent consistency ---------------------------------------------------------------------------------------- */

static alloy_status lcm_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    int64_t original;
    double range;
    bool clip;
    AY_TRY(ay_json_int_or(cx, what, config, "original_inference_steps", 1, s->train_steps, ay_min_i64(50, s->train_steps),
                          &original));
    AY_TRY(ay_json_num_or(cx, what, config, "timestep_scaling", 0, 1e6, 10, &s->scaling));
    AY_TRY(ay_json_bool_or(cx, what, config, "clip_sample", false, &clip));
    AY_TRY(ay_json_num_or(cx, what, config, "clip_sample_range", 1e-6, 1e6, 1, &range));
    if (s->steps > original) {
        return ay_fail(cx, ALLOY_E_USAGE, "%d steps: lcm has at most the %lld it was trained with", s->steps,
                       (long long)original);
    }
    s->clip = clip ? (float)range : 0;
    s->calls = s->steps;
    s->timesteps = ay_alloc(s->arena, (size_t)s->steps * sizeof *s->timesteps);
    if (!s->timesteps) return ay_nomem(cx);
    double stride = (double)original / s->steps;
    for (int i = 0; i < s->steps; i++) {
        int64_t at = original - (int64_t)floor(i * stride); /* of the trained steps 1 to original */
        s->timesteps[i] = (float)(at * (s->train_steps / original) - 1);
    }
    return ay_sched_keep(cx, s, 1);
}

static void lcm_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t t = (int64_t)s->timesteps[i];
    bool last = i + 1 == s->calls;
    float alpha = s->alphas[t], a = sqrtf(alpha), b = sqrtf(1 - alpha),
          next = last ? alpha : s->alphas[(int64_t)s->timesteps[i + 1]];
    double scaled = (double)t * s->scaling, square = scaled * scaled + 0.25;
    float skip = (float)(0.25 / square), out = (float)(scaled / sqrt(square)), a_next = sqrtf(next),
          b_next = sqrtf(1 - next);
    float *noise = s->kept[0];
    if (!last) ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k], x = sample[k], picture = m;
        if (s->prediction == AY_PREDICTS_NOISE) picture = (x - b * m) / a;
        if (s->prediction == AY_PREDICTS_VELOCITY) picture = a * x - b * m;
        if (s->clip > 0) picture = picture < -s->clip ? -s->clip : picture > s->clip ? s->clip : picture;
        float denoised = out * picture + skip * x;
        sample[k] = last ? denoised : a_next * denoised + b_next * noise[k];
    }
}

const ay_sched_row ay_sched_ddim = {.class_name = "DDIMScheduler",
                                    .name = "ddim",
                                    .kind = AY_SCHED_NOISE,
                                    .label = "DDIM",
                                    .spacing = "leading",
                                    .betas = "linear",
                                    .beta_start = 0.0001,
                                    .beta_end = 0.02,
                                    .rescales = true,
                                    .begin = ddim_begin,
                                    .step = ddim_step};
const ay_sched_row ay_sched_pndm = {.class_name = "PNDMScheduler",
                                    .name = "pndm",
                                    .kind = AY_SCHED_NOISE,
                                    .label = "PLMS",
                                    .spacing = "leading",
                                    .betas = "linear",
                                    .beta_start = 0.0001,
                                    .beta_end = 0.02,
                                    .begin = pndm_begin,
                                    .step = pndm_step};
const ay_sched_row ay_sched_lcm = {.class_name = "LCMScheduler",
                                   .name = "lcm",
                                   .kind = AY_SCHED_NOISE,
                                   .label = "LCM",
                                   .spacing = "leading",
                                   .betas = "scaled_linear",
                                   .beta_start = 0.00085,
                                   .beta_end = 0.012,
                                   .rescales = true,
                                   .begin = lcm_begin,
                                   .step = lcm_step};
