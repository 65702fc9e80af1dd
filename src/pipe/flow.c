/* SPDX-License-Identifier: MIT
 *
 * Flow matching with Euler steps, number for number as diffusers' FlowMatchEulerDiscreteScheduler computes it: float32
 * arithmetic in the order of its expressions (schedulers/scheduling_flow_match_euler_discrete.py, set_timesteps), and the
 * shift by picture size of pipelines/flux/pipeline_flux.py, calculate_shift.
 */
#include "pipe/pipe.h"

#include <math.h>
#include <string.h>

typedef struct flow_config {
    double shift, base_shift, max_shift, terminal;
    int64_t train_steps, base_len, max_len;
    bool dynamic, karras, exponential, beta, invert, stochastic;
    const char *shift_type;
} flow_config;

static alloy_status read_config(ay_ctx *cx, const json_t *j, flow_config *c) {
    const char *what = "scheduler_config.json", *name;
    const double big = 1e9;
    AY_TRY(ay_json_str_or(cx, what, j, "_class_name", "FlowMatchEulerDiscreteScheduler", &name));
    if (strcmp(name, "FlowMatchEulerDiscreteScheduler") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: scheduler \"%s\" does not fit a flow-matching model; FlowMatchEulerDiscreteScheduler does",
                       what, name);
    }
    AY_TRY(ay_json_num_or(cx, what, j, "shift", 0, big, 1.0, &c->shift));
    AY_TRY(ay_json_num_or(cx, what, j, "base_shift", -big, big, 0.5, &c->base_shift));
    AY_TRY(ay_json_num_or(cx, what, j, "max_shift", -big, big, 1.15, &c->max_shift));
    AY_TRY(ay_json_num_or(cx, what, j, "shift_terminal", 0, 1, 0, &c->terminal));
    AY_TRY(ay_json_int_or(cx, what, j, "num_train_timesteps", 1, 1000000, 1000, &c->train_steps));
    AY_TRY(ay_json_int_or(cx, what, j, "base_image_seq_len", 0, 1 << 30, 256, &c->base_len));
    AY_TRY(ay_json_int_or(cx, what, j, "max_image_seq_len", 0, 1 << 30, 4096, &c->max_len));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_dynamic_shifting", false, &c->dynamic));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_karras_sigmas", false, &c->karras));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_exponential_sigmas", false, &c->exponential));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_beta_sigmas", false, &c->beta));
    AY_TRY(ay_json_bool_or(cx, what, j, "invert_sigmas", false, &c->invert));
    AY_TRY(ay_json_bool_or(cx, what, j, "stochastic_sampling", false, &c->stochastic));
    AY_TRY(ay_json_str_or(cx, what, j, "time_shift_type", "exponential", &c->shift_type));
    if (c->stochastic || c->invert) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known here; set it to false", what,
                       c->stochastic ? "stochastic_sampling" : "invert_sigmas");
    }
    if (c->max_len == c->base_len) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: base_image_seq_len equals max_image_seq_len", what);
    return ALLOY_OK;
}

/* 1 / N ... each entry as numpy.linspace computes it: start + i * step in double, the last one exact */
static void linspace(double from, double to, int n, float *out) {
    double step = n > 1 ? (to - from) / (n - 1) : 0;
    for (int i = 0; i < n; i++) {
        double v = i * step;
        out[i] = (float)(i == n - 1 && n > 1 ? to : from + v);
    }
}

static void shift_sigmas(const flow_config *c, double mu, float *s, int n) {
    float e = (float)exp(mu), m = (float)mu, shift = (float)c->shift, less = (float)(c->shift - 1);
    bool linear = strcmp(c->shift_type, "linear") == 0;
    for (int i = 0; i < n; i++) {
        if (!c->dynamic) {
            float top = shift * s[i], low = less * s[i];
            s[i] = top / (1.0f + low);
        } else {
            float top = linear ? m : e, inverse = 1.0f / s[i];
            s[i] = top / (top + (inverse - 1.0f));
        }
    }
}

static void stretch(const flow_config *c, float *s, int n) {
    float scale = (1.0f - s[n - 1]) / (float)(1 - c->terminal);
    for (int i = 0; i < n; i++) s[i] = 1.0f - (1.0f - s[i]) / scale;
}

/* The p-quantile of the beta distribution with both parameters `a`: its median is 1/2, and up to there the power series of
 * the incomplete beta function, x^a * sum (1-a)_k / k! * x^k / (a+k), gains a binary digit a term (Abramowitz and Stegun,
 * 26.5.4 with 15.1.1); the rest is its mirror image. */
static double beta_quantile(double p, double a) {
    if (p > 0.5) return 1 - beta_quantile(1 - p, a);
    double low = 0, high = 0.5, complete = tgamma(a) * tgamma(a) / tgamma(2 * a);
    for (int i = 0; i < 200 && low < high; i++) {
        double x = (low + high) / 2, term = 1, sum = 1 / a;
        for (int k = 1; k < 64; k++) {
            term *= x * (k - a) / k;
            sum += term / (a + k);
        }
        if (pow(x, a) * sum < p * complete) low = x;
        else high = x;
    }
    return low;
}

/* Between the first and last sigma: in the seventh root (Karras et al. 2022), in the logarithm, or by the beta distribution's
 * quantiles (Lee et al. 2024, "Beta Sampling is All You Need"). */
static void respace(const flow_config *c, float *s, int n) {
    double high = s[0], low = s[n - 1];
    if (c->karras) {
        double rho = 7.0, a = pow(low, 1 / rho), b = pow(high, 1 / rho);
        for (int i = 0; i < n; i++) s[i] = (float)pow(b + (n > 1 ? (double)i / (n - 1) : 0) * (a - b), rho);
    } else if (c->beta && !c->exponential) {
        for (int i = 0; i < n; i++) s[i] = (float)(low + beta_quantile(n > 1 ? 1 - (double)i / (n - 1) : 1, 0.6) * (high - low));
    } else {
        double a = log(high), b = log(low);
        for (int i = 0; i < n; i++) s[i] = (float)exp(n > 1 ? a + (b - a) * i / (n - 1) : a);
    }
}

alloy_status ay_flow_schedule(ay_ctx *cx, ay_arena *arena, const json_t *config, int steps, int64_t tokens, ay_flow *out) {
    flow_config c = {0};
    AY_TRY(read_config(cx, config, &c));
    if (steps < 1 || steps > 4096) return ay_fail(cx, ALLOY_E_USAGE, "%d steps: between 1 and 4096 can be asked for", steps);
    out->steps = steps;
    out->sigmas = ay_alloc(arena, (size_t)(steps + 1) * sizeof(float));
    out->timesteps = ay_alloc(arena, (size_t)steps * sizeof(float));
    if (!out->sigmas || !out->timesteps) return ay_nomem(cx);
    linspace(1.0, 1.0 / steps, steps, out->sigmas);
    double slope = (c.max_shift - c.base_shift) / (double)(c.max_len - c.base_len);
    double mu = (double)tokens * slope + (c.base_shift - slope * (double)c.base_len);
    shift_sigmas(&c, mu, out->sigmas, steps);
    if (c.terminal > 0) stretch(&c, out->sigmas, steps);
    if (c.karras || c.exponential || c.beta) respace(&c, out->sigmas, steps);
    for (int i = 0; i < steps; i++) {
        if (!isfinite(out->sigmas[i])) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "scheduler_config.json: its settings give no finite noise level for step %d of %d", i + 1, steps);
        }
    }
    for (int i = 0; i < steps; i++) out->timesteps[i] = out->sigmas[i] * (float)c.train_steps;
    out->sigmas[steps] = 0;
    return ALLOY_OK;
}

void ay_flow_step(const ay_flow *f, int i, const float *velocity, float *sample, int64_t n) {
    float dt = f->sigmas[i + 1] - f->sigmas[i];
    for (int64_t k = 0; k < n; k++) {
        float move = dt * velocity[k];
        sample[k] += move;
    }
}
