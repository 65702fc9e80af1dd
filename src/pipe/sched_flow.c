/* SPDX-License-Identifier: MIT
 *
 * Flow matching: Euler, Heun and LCM steps, number for number as diffusers computes them, in the order of its expressions
 * (schedulers/scheduling_flow_match_euler_discrete.py, _heun_discrete.py, _lcm.py), and the shift by picture size of
 * pipelines/flux/pipeline_flux.py, calculate_shift.
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

typedef struct flow_config {
    double shift, base_shift, max_shift, terminal;
    int64_t train_steps, base_len, max_len;
    bool dynamic, karras, exponential, beta, invert, stochastic;
    bool even; /* sigmas from the pipeline, in float32 */
    const char *shift_type;
} flow_config;

static alloy_status read_config(ay_ctx *cx, const json_t *j, flow_config *c) {
    static const char *const refused[] = {"scale_factors", NULL};
    const double big = 1e9;
    double shift;
    AY_TRY(ay_sched_refuse(cx, j, refused));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "flow_shift", 0, big, 1.0, &shift)); /* what other classes call it */
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "shift", 0, big, shift, &c->shift));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "base_shift", -big, big, 0.5, &c->base_shift));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "max_shift", -big, big, 1.15, &c->max_shift));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "shift_terminal", 0, 1, 0, &c->terminal));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "num_train_timesteps", 1, 1000000, 1000, &c->train_steps));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "base_image_seq_len", 0, 1 << 30, 256, &c->base_len));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "max_image_seq_len", 0, 1 << 30, 4096, &c->max_len));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_dynamic_shifting", false, &c->dynamic));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_karras_sigmas", false, &c->karras));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_exponential_sigmas", false, &c->exponential));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_beta_sigmas", false, &c->beta));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "invert_sigmas", false, &c->invert));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "stochastic_sampling", false, &c->stochastic));
    AY_TRY(ay_json_str_or(cx, AY_SCHED_FILE, j, "time_shift_type", "exponential", &c->shift_type));
    if (strcmp(c->shift_type, "exponential") != 0 && strcmp(c->shift_type, "linear") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": time_shift_type \"%s\" is not known here; known are: exponential, linear", c->shift_type);
    }
    AY_TRY(ay_sched_one_spacing(cx, c->karras, c->exponential, c->beta));
    if (c->max_len == c->base_len) return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": base_image_seq_len equals max_image_seq_len");
    return ALLOY_OK;
}

/* One operation's result: the reference computes on float32 arrays where the pipeline gives the sigmas, else on doubles. */
static double rounded(const flow_config *c, double v) { return c->even ? (float)v : v; }

/* Evenly from 1 to 1 / steps; or between the first and the last training step's sigma, which are shifted already. */
static void first_sigmas(const flow_config *c, double *s, int n) {
    double last = (float)(1.0f / (float)c->train_steps), high = 1, low = last, train = (double)c->train_steps;
    if (!c->dynamic) { /* float32, as the class keeps them */
        float shift = (float)c->shift, less = (float)(c->shift - 1), l = (float)last;
        high = shift / (1.0f + less);
        low = shift * l / (1.0f + less * l);
    }
    for (int i = 0; i < n; i++) {
        s[i] = c->even ? (float)ay_linspace(1.0, 1.0 / n, n, i) : ay_linspace(high * train, low * train, n, i) / train;
    }
}

static void shift_sigmas(const flow_config *c, double mu, double *s, int n) {
    double e = rounded(c, strcmp(c->shift_type, "linear") == 0 ? mu : exp(mu)), shift = rounded(c, c->shift), less = rounded(c, c->shift - 1);
    for (int i = 0; i < n; i++) {
        if (!c->dynamic) {
            double top = rounded(c, shift * s[i]), low = rounded(c, less * s[i]);
            s[i] = rounded(c, top / rounded(c, 1 + low));
        } else {
            double inverse = rounded(c, 1 / s[i]);
            s[i] = rounded(c, e / rounded(c, e + rounded(c, inverse - 1)));
        }
    }
}

static void stretch(const flow_config *c, double *s, int n) {
    double scale = rounded(c, rounded(c, 1 - s[n - 1]) / rounded(c, 1 - c->terminal));
    for (int i = 0; i < n; i++) s[i] = rounded(c, 1 - rounded(c, rounded(c, 1 - s[i]) / scale));
}

/* Between the first and last sigma: in the seventh root (Karras et al. 2022), in the logarithm, or by the beta distribution's
 * quantiles (Lee et al. 2024, "Beta Sampling is All You Need"). */
static void respace(const flow_config *c, double *s, int n) {
    double high = s[0], low = s[n - 1], a = 1 / 7.0;
    for (int i = 0; i < n; i++) {
        if (c->karras) s[i] = pow(pow(high, a) + ay_linspace(0, 1, n, i) * (pow(low, a) - pow(high, a)), 7);
        else if (c->exponential) s[i] = exp(ay_linspace(log(high), log(low), n, i));
        else s[i] = low + ay_beta_quantile(1 - ay_linspace(0, 1, n, i), 0.6) * (high - low);
    }
}

static alloy_status finish(ay_ctx *cx, const flow_config *c, const double *s, ay_flow *out) {
    float train = (float)c->train_steps;
    for (int i = 0; i < out->steps; i++) {
        if (!isfinite(s[i])) {
            return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": its settings give no finite noise level for step %d of %d", i + 1, out->steps);
        }
        out->sigmas[i] = c->invert ? 1.0f - (float)s[i] : (float)s[i];
        out->timesteps[i] = out->sigmas[i] * train;
    }
    out->sigmas[out->steps] = c->invert ? 1 : 0;
    return ALLOY_OK;
}

static alloy_status schedule(ay_ctx *cx, ay_arena *arena, const flow_config *c, int steps, double tokens, ay_flow *out) {
    if (steps < 1 || steps > 4096) return ay_fail(cx, ALLOY_E_USAGE, "%d steps: between 1 and 4096 can be asked for", steps);
    double *s = ay_alloc(arena, (size_t)steps * sizeof *s);
    out->steps = steps;
    out->stochastic = c->stochastic;
    out->sigmas = ay_alloc(arena, (size_t)(steps + 1) * sizeof(float));
    out->timesteps = ay_alloc(arena, (size_t)steps * sizeof(float));
    if (!s || !out->sigmas || !out->timesteps) return ay_nomem(cx);
    double slope = (c->max_shift - c->base_shift) / (double)(c->max_len - c->base_len);
    first_sigmas(c, s, steps);
    shift_sigmas(c, tokens * slope + (c->base_shift - slope * (double)c->base_len), s, steps);
    if (c->terminal > 0) stretch(c, s, steps);
    if (c->karras || c->exponential || c->beta) respace(c, s, steps);
    return finish(cx, c, s, out);
}

alloy_status ay_flow_schedule(ay_ctx *cx, ay_arena *arena, const json_t *config, int steps, const ay_flow_ask *ask, ay_flow *out) {
    flow_config c = {.even = ask && ask->even};
    AY_TRY(read_config(cx, config, &c));
    return schedule(cx, arena, &c, steps, ask ? (double)ask->tokens : 0, out);
}

void ay_flow_step(const ay_flow *f, int i, const float *velocity, float *sample, int64_t n) {
    float dt = f->sigmas[i + 1] - f->sigmas[i];
    for (int64_t k = 0; k < n; k++) {
        float move = dt * velocity[k];
        sample[k] += move;
    }
}

/* ---- rows of the list ------------------------------------------------------------------------------------------------- */

static alloy_status begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(ay_flow_schedule(cx, s->arena, config, s->steps, s->ask, &s->flow));
    s->calls = s->flow.steps;
    s->timesteps = s->flow.timesteps;
    s->sigmas = s->flow.sigmas;
    return ay_sched_keep(cx, s, 1);
}

/* To the picture as it is seen now, and back to the next noise level with other noise. */
static void renoise(ay_sched *s, int i, const float *velocity, float *sample, ay_rng *rng) {
    float from = s->sigmas[i], to = s->sigmas[i + 1], *noise = s->kept[0];
    ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        float moved = from * velocity[k], picture = sample[k] - moved, a = (1.0f - to) * picture, b = to * noise[k];
        sample[k] = a + b;
    }
}

static void step(ay_sched *s, int i, const float *velocity, float *sample, ay_rng *rng) {
    if (s->flow.stochastic) renoise(s, i, velocity, sample, rng);
    else ay_flow_step(&s->flow, i, velocity, sample, s->n);
}

static alloy_status begin_lcm(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(begin(cx, s, config));
    s->flow.stochastic = true;
    return ALLOY_OK;
}

/* ---- Heun: every step but the last is made again with the mean of both ends' directions ------------------------- */

enum { FIRST_SAMPLE, FIRST_DIRECTION }; /* in kept[] */

/* The class has no settings but shift, and starts from the trained range whatever the pipeline would like. */
static alloy_status begin_heun(ay_ctx *cx, ay_sched *s, const json_t *config) {
    flow_config all = {.even = false};
    AY_TRY(read_config(cx, config, &all));
    flow_config c = {.shift = all.shift, .train_steps = all.train_steps, .base_len = 0, .max_len = 1, .shift_type = "exponential"};
    AY_TRY(schedule(cx, s->arena, &c, s->steps, 0, &s->flow));
    AY_TRY(ay_sched_twice(cx, s, s->flow.timesteps, s->flow.sigmas));
    return ay_sched_keep(cx, s, 2);
}

static void step_heun(ay_sched *s, int i, const float *velocity, float *sample, ay_rng *rng) {
    bool first = i % 2 == 0;
    float *from = s->kept[FIRST_SAMPLE], *direction = s->kept[FIRST_DIRECTION];
    float sigma = s->sigmas[i], dt = first ? s->sigmas[i + 1] - sigma : sigma - s->sigmas[i - 1];
    for (int64_t k = 0; k < s->n; k++) {
        float moved = velocity[k] * sigma, picture = sample[k] - moved, d = (sample[k] - picture) / sigma;
        if (first) {
            from[k] = sample[k];
            direction[k] = d;
        } else {
            d = 0.5f * (direction[k] + d);
        }
        float move = d * dt;
        sample[k] = from[k] + move;
    }
}

const ay_sched_row ay_sched_flow_euler = {.class_name = "FlowMatchEulerDiscreteScheduler", .name = "euler", .label = "Euler",
                                          .kind = AY_SCHED_FLOW, .begin = begin, .step = step};
const ay_sched_row ay_sched_flow_heun = {.class_name = "FlowMatchHeunDiscreteScheduler", .name = "heun", .label = "Heun",
                                         .kind = AY_SCHED_FLOW, .twice = true, .begin = begin_heun, .step = step_heun};
const ay_sched_row ay_sched_flow_lcm = {.class_name = "FlowMatchLCMScheduler", .name = "lcm", .label = "LCM",
                                        .kind = AY_SCHED_FLOW, .begin = begin_lcm, .step = step};
