/* SPDX-License-Identifier: MIT
 *
 * Steps in sigma: Euler, Euler ancestral, Heun (schedulers/scheduling_euler_discrete.py, scheduling_heun_discrete.py and
 * scheduling_euler_ancestral_discrete.py of diffusers), in float32 and in the order of their expressions. The sample
 * carries noise of standard deviation sigma; the model sees it divided to unit variance.
 */
#include "pipe/sched.h"

#include <math.h>

static alloy_status begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double *t = ay_alloc(s->arena, (size_t)s->steps * sizeof *t);
    s->timesteps = ay_alloc(s->arena, (size_t)s->steps * sizeof *s->timesteps);
    if (!t || !s->timesteps) return ay_nomem(cx);
    ay_sched_space(s, s->steps, false, false, t);
    AY_TRY(ay_sched_sigmas(cx, s, t, false));
    s->calls = s->steps;
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = (float)t[i];
    float top = s->sigmas[0];
    s->init_sigma = s->spacing == AY_SPACING_LEADING ? sqrtf(top * top + 1) : top;
    return ALLOY_OK;
}

static alloy_status begin_ancestral(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->karras = s->exponential = s->ends_at_min = false; /* the class has neither */
    if (s->prediction == AY_PREDICTS_SAMPLE) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED,
                       "scheduler_config.json: prediction_type \"sample\" is not known for euler_ancestral");
    }
    return begin(cx, s, config);
}

static void scale(const ay_sched *s, int i, const float *sample, float *out) {
    float by = sqrtf(s->sigmas[i] * s->sigmas[i] + 1);
    for (int64_t k = 0; k < s->n; k++) out[k] = sample[k] / by;
}

/* The picture that the model sees behind one number of the noise. */
static float predicted(const ay_sched *s, float sigma, float model, float sample) {
    if (s->prediction == AY_PREDICTS_SAMPLE) return model;
    if (s->prediction == AY_PREDICTS_NOISE) return sample - sigma * model;
    float square = sigma * sigma + 1;
    return model * (-sigma / sqrtf(square)) + sample / square;
}

static void move(const ay_sched *s, int i, float to, const float *model, float *sample) {
    float sigma = s->sigmas[i], dt = to - sigma;
    for (int64_t k = 0; k < s->n; k++) {
        float derivative = (sample[k] - predicted(s, sigma, model[k], sample[k])) / sigma;
        sample[k] += derivative * dt;
    }
}

static void step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    move(s, i, s->sigmas[i + 1], model, sample);
}

static void step_ancestral(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    float from = s->sigmas[i] * s->sigmas[i], to = s->sigmas[i + 1] * s->sigmas[i + 1];
    float up = sqrtf(to * (from - to) / from), down = sqrtf(to - up * up);
    float *noise = s->kept[0];
    move(s, i, down, model, sample);
    ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) sample[k] += noise[k] * up;
}

static alloy_status begin_with_noise(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(ay_sched_keep(cx, s, 1));
    return begin_ancestral(cx, s, config);
}

/* ---- Heun: every step but the last is made again with the mean of both ends' directions ------------------------- */

enum { FIRST_SAMPLE, FIRST_DIRECTION }; /* in kept[] */

static alloy_status heun_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double range;
    bool clip;
    AY_TRY(ay_json_bool_or(cx, "scheduler_config.json", config, "clip_sample", false, &clip));
    AY_TRY(ay_json_num_or(cx, "scheduler_config.json", config, "clip_sample_range", 1e-6, 1e6, 1, &range));
    s->ends_at_min = false; /* the class has it not */
    s->clip = clip ? (float)range : 0;
    AY_TRY(begin(cx, s, config));
    AY_TRY(ay_sched_twice(cx, s, s->timesteps, s->sigmas));
    return ay_sched_keep(cx, s, 2);
}

static void heun_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    bool first = i % 2 == 0;
    float *from = s->kept[FIRST_SAMPLE], *direction = s->kept[FIRST_DIRECTION];
    float sigma = s->sigmas[i], dt = first ? s->sigmas[i + 1] - sigma : sigma - s->sigmas[i - 1];
    for (int64_t k = 0; k < s->n; k++) {
        float picture = predicted(s, sigma, model[k], sample[k]);
        if (s->clip > 0) picture = picture < -s->clip ? -s->clip : picture > s->clip ? s->clip : picture;
        float d = (sample[k] - picture) / sigma;
        if (first) {
            from[k] = sample[k];
            direction[k] = d;
            sample[k] += d * dt;
        } else {
            sample[k] = from[k] + (direction[k] + d) / 2 * dt;
        }
    }
}

const ay_sched_row ay_sched_euler = {.class_name = "EulerDiscreteScheduler",
                                     .name = "euler",
                                     .kind = AY_SCHED_NOISE,
                                     .label = "Euler",
                                     .spacing = "linspace",
                                     .betas = "linear",
                                     .beta_start = 0.0001,
                                     .beta_end = 0.02,
                                     .rescales = true,
                                     .begin = begin,
                                     .scale = scale,
                                     .step = step};
const ay_sched_row ay_sched_euler_ancestral = {.class_name = "EulerAncestralDiscreteScheduler",
                                               .name = "euler_ancestral",
                                               .kind = AY_SCHED_NOISE,
                                               .label = "Euler a",
                                               .spacing = "linspace",
                                               .betas = "linear",
                                               .beta_start = 0.0001,
                                               .beta_end = 0.02,
                                               .rescales = true,
                                               .begin = begin_with_noise,
                                               .scale = scale,
                                               .step = step_ancestral};
const ay_sched_row ay_sched_heun = {.class_name = "HeunDiscreteScheduler",
                                    .name = "heun",
                                    .kind = AY_SCHED_NOISE,
                                    .label = "Heun",
                                    .spacing = "linspace",
                                    .betas = "linear",
                                    .beta_start = 0.00085,
                                    .beta_end = 0.012,
                                    .begin = heun_begin,
                                    .scale = scale,
                                    .step = heun_step};
