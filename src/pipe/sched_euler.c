/* SPDX-License-Identifier: MIT
 *
 * Steps in sigma: Euler, Euler ancestral, Heun (schedulers/scheduling_euler_discrete.py, scheduling_heun_discrete.py and
 * scheduling_euler_ancestral_discrete.py of diffusers), in float32 and in the order of their expressions; and DPM++ 2S
 * ancestral, which diffusers has not: that one is k-diffusion's (sampling.py, sample_dpmpp_2s_ancestral). The sample
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
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = s->continuous ? 0.25f * logf(s->sigmas[i]) : (float)t[i];
    float top = s->sigmas[0];
    s->init_sigma = s->spacing == AY_SPACING_LEADING ? sqrtf(top * top + 1) : top;
    return ALLOY_OK;
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

/* ---- ancestral: a step beyond the next sigma, and noise to come back to it ------------------------------------------ */

typedef struct fork {
    float down, up;
} fork;

static fork ancestral(float sigma, float next) {
    float from = sigma * sigma, to = next * next;
    fork f = {.up = sqrtf(to * (from - to) / from)};
    f.down = sqrtf(to - f.up * f.up);
    return f;
}

static void add_noise(ay_sched *s, float up, float *sample, ay_rng *rng) {
    float *noise = s->kept[0];
    ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) sample[k] += noise[k] * up;
}

static void step_ancestral(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    fork f = ancestral(s->sigmas[i], s->sigmas[i + 1]);
    move(s, i, f.down, model, sample);
    add_noise(s, f.up, sample, rng);
}

static alloy_status begin_ancestral(ay_ctx *cx, ay_sched *s, const json_t *config) {
    if (s->prediction == AY_PREDICTS_SAMPLE) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": prediction_type \"sample\" is not known for euler_ancestral");
    }
    AY_TRY(ay_sched_keep(cx, s, 1));
    return begin(cx, s, config);
}

/* ---- Heun: every step but the last is made again with the mean of both ends' directions ------------------------- */

enum { FIRST_SAMPLE, FIRST_DIRECTION }; /* in kept[] */

static alloy_status heun_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(ay_sched_read_clip(cx, s, config, false));
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

/* ---- DPM++ 2S ancestral ------------------------------------------------------------------------------------------ */

/* Halfway in the logarithm between sigma and where the step ends below the next one, at next^2 / sigma, the model is asked
 * once more: that is the next sigma itself. The last step ends at 0 and is Euler's. sigmas: [calls + 1], one for each call. */
static alloy_status two_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(begin(cx, s, config));
    int n = s->steps, calls = 0;
    float *t = ay_alloc(s->arena, (size_t)(2 * n) * sizeof *t), *sigmas = ay_alloc(s->arena, (size_t)(2 * n + 1) * sizeof *sigmas);
    if (!t || !sigmas) return ay_nomem(cx);
    for (int i = 0; i < n; i++) {
        t[calls] = s->timesteps[i];
        sigmas[calls++] = s->sigmas[i];
        if (i == n - 1) break;
        t[calls] = s->timesteps[i + 1];
        sigmas[calls++] = s->sigmas[i + 1];
    }
    sigmas[calls] = s->sigmas[n];
    s->timesteps = t;
    s->sigmas = sigmas;
    s->calls = calls;
    return ay_sched_keep(cx, s, 2);
}

static alloy_status two_begin_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->karras = true;
    s->exponential = s->beta = false;
    return two_begin(cx, s, config);
}

/* From the sample at `sigma` to `to`, with the picture predicted anywhere between (DPM-Solver++ of first order). */
static void solve(const ay_sched *s, float sigma, float to, float seen, const float *model, const float *at, const float *from, float *out) {
    float keep = to / sigma, add = -expm1f(logf(to) - logf(sigma));
    for (int64_t k = 0; k < s->n; k++) out[k] = keep * from[k] + add * predicted(s, seen, model[k], at[k]);
}

static void two_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    float *from = s->kept[1];
    bool second = s->counter == 1, last = i == s->calls - 1;
    if (!second && last) {
        move(s, i, s->sigmas[i + 1], model, sample);
    } else if (!second) {
        for (int64_t k = 0; k < s->n; k++) from[k] = sample[k];
        solve(s, s->sigmas[i], s->sigmas[i + 1], s->sigmas[i], model, from, from, sample);
        s->counter = 1;
    } else {
        fork f = ancestral(s->sigmas[i - 1], s->sigmas[i + 1]);
        solve(s, s->sigmas[i - 1], f.down, s->sigmas[i], model, sample, from, sample);
        if (s->sigmas[i + 1] > 0) add_noise(s, f.up, sample, rng);
        s->counter = 0;
    }
}

#define SIGMA_ROW(class_is, short_name, text, has_what)                                                                        \
    .class_name = class_is, .name = short_name, .label = text, .kind = AY_SCHED_NOISE, .has = AY_HAS_SPACING | (has_what),     \
    .spacing = "linspace", .betas = "linear", .beta_end = 0.02, .scale = scale

const ay_sched_row ay_sched_euler = {SIGMA_ROW("EulerDiscreteScheduler", "euler", "Euler",
                                               AY_HAS_RESPACE | AY_HAS_FINAL | AY_HAS_ZERO_SNR | AY_HAS_EDM),
                                     .beta_start = 0.0001, .begin = begin, .step = step};
const ay_sched_row ay_sched_euler_ancestral = {SIGMA_ROW("EulerAncestralDiscreteScheduler", "euler_ancestral", "Euler a", AY_HAS_ZERO_SNR),
                                               .beta_start = 0.0001, .begin = begin_ancestral, .step = step_ancestral};
const ay_sched_row ay_sched_heun = {.class_name = "HeunDiscreteScheduler", .name = "heun", .label = "Heun", .kind = AY_SCHED_NOISE,
                                    .has = AY_HAS_SPACING | AY_HAS_RESPACE | AY_HAS_EXP_BETAS, .spacing = "linspace", .betas = "linear",
                                    .beta_start = 0.00085, .beta_end = 0.012, .twice = true, .begin = heun_begin, .scale = scale, .step = heun_step};
/* No class of diffusers: named as k-diffusion names its function, with Euler's settings. */
const ay_sched_row ay_sched_2s_ancestral = {SIGMA_ROW("sample_dpmpp_2s_ancestral", "dpmpp_2s_ancestral", "DPM++ 2S a",
                                                      AY_HAS_RESPACE | AY_HAS_ZERO_SNR),
                                            .beta_start = 0.0001, .twice = true, .begin = two_begin, .step = two_step};
const ay_sched_row ay_sched_2s_ancestral_karras = {SIGMA_ROW("sample_dpmpp_2s_ancestral", "dpmpp_2s_ancestral_karras", "DPM++ 2S a Karras",
                                                             AY_HAS_RESPACE | AY_HAS_ZERO_SNR),
                                                   .beta_start = 0.0001, .twice = true, .begin = two_begin_karras, .step = two_step};
