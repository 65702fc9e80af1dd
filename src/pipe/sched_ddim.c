/* SPDX-License-Identifier: MIT
 *
 * DDIM, and PNDM with or without its Runge-Kutta start (without, it is called PLMS); schedulers/scheduling_ddim.py and
 * scheduling_pndm.py of diffusers. The sample keeps unit variance; steps go from one training step to another.
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

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
    double *t, eta;
    AY_TRY(ay_sched_read_clip(cx, s, config, true));
    /* no setting of the class: an argument of its steps, 0 unless a pipeline is told otherwise */
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, config, "eta", 0, 1, 0, &eta));
    AY_TRY(whole_timesteps(cx, s, &t));
    s->eta = (float)eta;
    s->calls = s->steps;
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = (float)t[i];
    return ay_sched_keep(cx, s, 3);
}

enum { PICTURE, NOISE, DRAWN }; /* in kept[] */

static void ddim_predict(ay_sched *s, float a, float b, const float *model, const float *sample) {
    float *picture = s->kept[PICTURE], *noise = s->kept[NOISE];
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k], x = sample[k];
        picture[k] = noise[k] = m;
        if (s->prediction == AY_PREDICTS_NOISE) {
            picture[k] = (x - b * m) / a;
        } else if (s->prediction == AY_PREDICTS_SAMPLE) {
            noise[k] = (x - a * m) / b;
        } else {
            picture[k] = a * x - b * m;
            noise[k] = a * m + b * x;
        }
    }
    ay_sched_limit(s, picture);
}

static void ddim_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t t = (int64_t)s->timesteps[i];
    float alpha = s->alphas[t], before = alpha_before(s, t - s->train_steps / s->steps);
    float variance = (1 - before) / (1 - alpha) * (1 - alpha / before), drawn = s->eta > 0 ? s->eta * sqrtf(variance) : 0;
    float a_before = sqrtf(before), b_before = sqrtf(1 - before - drawn * drawn);
    ddim_predict(s, sqrtf(alpha), sqrtf(1 - alpha), model, sample);
    if (s->eta > 0) ay_rng_normal(rng, s->kept[DRAWN], (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        sample[k] = a_before * s->kept[PICTURE][k] + b_before * s->kept[NOISE][k];
        if (s->eta > 0) sample[k] += drawn * s->kept[DRAWN][k];
    }
}

/* ---- PNDM ----------------------------------------------------------------------------------------------------- */

enum { HISTORY = 4, FIRST_SAMPLE = 4, MIXED = 5 }; /* in kept[]: the last answers, newest first; the first sample; the mix */

/* The Runge-Kutta start: the first three steps take four calls each, at their ends and halfway. t: [steps], high to low. */
static alloy_status runge_kutta_timesteps(ay_ctx *cx, ay_sched *s, const double *t) {
    int n = s->steps, calls = 12 + n - 3;
    double half = (double)(s->train_steps / n / 2);
    if (n < 4) return ay_fail(cx, ALLOY_E_USAGE, "%d steps: pndm with its Runge-Kutta start has 4 at least", n);
    s->timesteps = ay_alloc(s->arena, (size_t)calls * sizeof *s->timesteps);
    if (!s->timesteps) return ay_nomem(cx);
    for (int i = 0; i < 3; i++) {
        float *at = s->timesteps + 4 * i;
        at[0] = (float)t[i];
        at[1] = at[2] = (float)(t[i + 1] + half);
        at[3] = (float)t[i + 1];
    }
    for (int i = 3; i < n; i++) s->timesteps[9 + i] = (float)t[i];
    s->calls = calls;
    return ALLOY_OK;
}

static alloy_status pndm_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    double *t;
    bool skip;
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "skip_prk_steps", false, &skip));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "set_alpha_to_one", false, &s->alpha_to_one));
    if (s->prediction == AY_PREDICTS_SAMPLE) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": prediction_type \"sample\" is not known for pndm");
    }
    AY_TRY(whole_timesteps(cx, s, &t));
    AY_TRY(ay_sched_keep(cx, s, AY_SCHED_KEPT));
    s->order = skip ? 0 : 12; /* calls of the start */
    if (!skip) return runge_kutta_timesteps(cx, s, t);
    /* the second timestep twice: the first step is made again once its end is known */
    s->calls = s->steps > 1 ? s->steps + 1 : 1;
    for (int i = 0; i < s->calls; i++) s->timesteps[i] = (float)t[i < 2 ? ay_min_i64(i, s->steps - 1) : i - 1];
    return ALLOY_OK;
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

static void runge_kutta_step(ay_sched *s, int i, const float *model, float *sample) {
    static const float share[] = {1 / 6.0f, 1 / 3.0f, 1 / 3.0f, 1 / 6.0f};
    int64_t half = s->train_steps / s->steps / 2, t = (int64_t)s->timesteps[i / 4 * 4], to = (int64_t)s->timesteps[i] - (i % 2 ? 0 : half);
    float *sum = s->kept[MIXED];
    size_t bytes = (size_t)s->n * sizeof(float);
    if (i % 4 == 0) {
        memcpy(ay_sched_rotate(s, HISTORY), model, bytes);
        memcpy(s->kept[FIRST_SAMPLE], sample, bytes);
        memset(sum, 0, bytes);
    }
    for (int64_t k = 0; k < s->n; k++) sum[k] += share[i % 4] * model[k];
    transfer(s, t, to, i % 4 == 3 ? sum : model, s->kept[FIRST_SAMPLE], sample);
    s->counter++;
}

static void pndm_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    int64_t stride = s->train_steps / s->steps, t = (int64_t)s->timesteps[i], to = t - stride;
    float *mixed = s->kept[MIXED];
    size_t bytes = (size_t)s->n * sizeof(float);
    if (i < s->order) {
        runge_kutta_step(s, i, model, sample);
        return;
    }
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

const ay_sched_row ay_sched_ddim = {.class_name = "DDIMScheduler",
                                    .name = "ddim",
                                    .label = "DDIM",
                                    .kind = AY_SCHED_NOISE,
                                    .has = AY_HAS_SPACING | AY_HAS_ZERO_SNR | AY_HAS_THRESHOLD,
                                    .spacing = "leading",
                                    .betas = "linear",
                                    .beta_start = 0.0001,
                                    .beta_end = 0.02,
                                    .begin = ddim_begin,
                                    .step = ddim_step};
const ay_sched_row ay_sched_pndm = {.class_name = "PNDMScheduler",
                                    .name = "pndm",
                                    .label = "PLMS",
                                    .kind = AY_SCHED_NOISE,
                                    .has = AY_HAS_SPACING,
                                    .spacing = "leading",
                                    .betas = "linear",
                                    .beta_start = 0.0001,
                                    .beta_end = 0.02,
                                    .begin = pndm_begin,
                                    .step = pndm_step};
