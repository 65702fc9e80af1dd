/* SPDX-License-Identifier: MIT
 *
 * Multistep methods: DPM-Solver++ with its stochastic form, and UniPC (schedulers/scheduling_dpmsolver_multistep.py and
 * scheduling_unipc_multistep.py of diffusers), in float32 as there. The sample keeps unit variance; earlier predictions of
 * the picture, m0 (newest), m1, m2, say how it bends in lambda = log(alpha / sigma).
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

static const char what[] = "scheduler_config.json";

enum { ORDERS = 3, NOISE = 3, LAST_SAMPLE = 3, NOW = 4 }; /* kept[0..2]: predictions; then what the method needs */

typedef struct place {
    float alpha, sigma, lambda;
} place;

static place place_of(const ay_sched *s, int i) {
    place p;
    p.alpha = 1 / sqrtf(s->sigmas[i] * s->sigmas[i] + 1);
    p.sigma = s->sigmas[i] * p.alpha;
    p.lambda = logf(p.alpha) - logf(p.sigma); /* infinite at the end */
    return p;
}

static alloy_status begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    int64_t order;
    double *t = ay_alloc(s->arena, (size_t)s->steps * sizeof *t);
    s->timesteps = ay_alloc(s->arena, (size_t)s->steps * sizeof *s->timesteps);
    if (!t || !s->timesteps) return ay_nomem(cx);
    AY_TRY(ay_json_int_or(cx, what, config, "solver_order", 1, ORDERS, 2, &order));
    AY_TRY(ay_json_bool_or(cx, what, config, "lower_order_final", true, &s->lower_order_final));
    s->order = (int)order;
    ay_sched_space(s, s->steps, true, true, t);
    AY_TRY(ay_sched_sigmas(cx, s, t, true));
    s->calls = s->steps;
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = (float)t[i];
    return ay_sched_keep(cx, s, NOW + 1);
}

/* The model's answer as a picture. */
static const float *predict(ay_sched *s, int i, const float *model, const float *sample, float *out) {
    place p = place_of(s, i);
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k];
        if (s->prediction == AY_PREDICTS_NOISE) m = (sample[k] - p.sigma * m) / p.alpha;
        if (s->prediction == AY_PREDICTS_VELOCITY) m = p.alpha * sample[k] - p.sigma * m;
        out[k] = m;
    }
    return out;
}

/* ---- DPM-Solver++ --------------------------------------------------------------------------------------------- */

static alloy_status dpm_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    const char *algorithm, *solver;
    AY_TRY(ay_json_str_or(cx, what, config, "algorithm_type", "dpmsolver++", &algorithm));
    AY_TRY(ay_json_str_or(cx, what, config, "solver_type", "midpoint", &solver));
    AY_TRY(ay_json_bool_or(cx, what, config, "euler_at_final", false, &s->euler_at_final));
    bool sde = strcmp(algorithm, "sde-dpmsolver++") == 0;
    if (!sde && strcmp(algorithm, "dpmsolver++") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED,
                       "%s: algorithm_type \"%s\" is not known here; dpmsolver++ and sde-dpmsolver++ are", what, algorithm);
    }
    s->sde |= sde;
    s->heun_solver = strcmp(solver, "heun") == 0;
    return begin(cx, s, config);
}
static alloy_status dpm_begin_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->karras = true;
    return dpm_begin(cx, s, config);
}
static alloy_status dpm_begin_sde(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->sde = true;
    return dpm_begin(cx, s, config);
}
static alloy_status dpm_begin_sde_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->sde = s->karras = true;
    return dpm_begin(cx, s, config);
}

/* How the coming step weighs the sample, the newest prediction, its first and second differences, and noise. */
typedef struct weights {
    float sample, d0, d1, d2, noise;
} weights;

static weights dpm_weights(const ay_sched *s, place to, place from, int order) {
    float h = to.lambda - from.lambda, a = to.alpha, keep = to.sigma / from.sigma;
    weights w = {keep, 0, 0, 0, 0};
    if (s->sde) {
        float e = expf(-2.0f * h), less = 1 - e;
        w = (weights){keep * expf(-h), a * less, 0.5f * (a * less), 0, to.sigma * sqrtf(less)};
        if (order == 3 || s->heun_solver) w.d1 = a * (less / (-2.0f * h) + 1);
        if (order == 3) w.d2 = a * ((less - 2.0f * h) / (2.0f * h * (2.0f * h)) - 0.5f);
    } else {
        float less = expf(-h) - 1;
        w = (weights){keep, -(a * less), -0.5f * (a * less), 0, 0};
        if (order == 3 || s->heun_solver) w.d1 = a * (less / h + 1);
        if (order == 3) w.d2 = -(a * ((less + h) / (h * h) - 0.5f));
    }
    return w;
}

static int dpm_order(const ay_sched *s, int i) {
    bool few = s->lower_order_final && s->calls < 15;
    if (i == s->calls - 1 && (s->euler_at_final || few || !s->ends_at_min)) return 1;
    int order = (int)ay_min_i64(s->order, s->n_kept); /* the newest is kept already */
    return i == s->calls - 2 && few && order > 2 ? 2 : order;
}

static void dpm_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    const float *m0 = predict(s, i, model, sample, ay_sched_rotate(s, ORDERS)), *m1 = s->kept[1], *m2 = s->kept[2];
    float *noise = s->kept[NOISE];
    int order = dpm_order(s, i);
    place to = place_of(s, i + 1), from = place_of(s, i);
    weights w = dpm_weights(s, to, from, order);
    float h = to.lambda - from.lambda, before = order > 1 ? from.lambda - place_of(s, i - 1).lambda : 1, r0 = before / h;
    float r1 = order > 2 ? (place_of(s, i - 1).lambda - place_of(s, i - 2).lambda) / h : 1;
    if (s->sde) ay_rng_normal(rng, noise, (size_t)s->n);
    for (int64_t k = 0; k < s->n; k++) {
        float x = w.sample * sample[k] + w.d0 * m0[k];
        if (order > 1) {
            float near = (1 / r0) * (m0[k] - m1[k]), d1 = near;
            if (order > 2) {
                float bend = near - (1 / r1) * (m1[k] - m2[k]);
                d1 = near + (r0 / (r0 + r1)) * bend;
                x += w.d2 * ((1 / (r0 + r1)) * bend);
            }
            x += w.d1 * d1;
        }
        sample[k] = s->sde ? x + w.noise * noise[k] : x;
    }
}

/* ---- UniPC ----------------------------------------------------------------------------------------------------- */

static alloy_status unipc_begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    const char *solver;
    bool predict;
    AY_TRY(ay_json_str_or(cx, what, config, "solver_type", "bh2", &solver));
    AY_TRY(ay_json_bool_or(cx, what, config, "predict_x0", true, &predict));
    if (!predict || json_array_size(json_object_get(config, "disable_corrector"))) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known here with this value", what,
                       predict ? "disable_corrector" : "predict_x0");
    }
    s->bh1 = strcmp(solver, "bh1") == 0;
    AY_TRY(begin(cx, s, config));
    if (s->ends_at_min && (s->karras || s->exponential)) s->sigmas[s->steps] = s->sigmas[s->steps - 1];
    return ALLOY_OK;
}

/* r x = b for n <= 3, by elimination with the largest pivot. */
static void solve(int n, double r[ORDERS][ORDERS], double *b) {
    for (int c = 0; c < n; c++) {
        int p = c;
        for (int i = c + 1; i < n; i++) p = fabs(r[i][c]) > fabs(r[p][c]) ? i : p;
        for (int k = 0; k < n; k++) {
            double t = r[c][k];
            r[c][k] = r[p][k];
            r[p][k] = t;
        }
        double t = b[c];
        b[c] = b[p];
        b[p] = t;
        for (int i = 0; i < n; i++) {
            double f = i == c ? 0 : r[i][c] / r[c][c];
            for (int k = c; k < n; k++) r[i][k] -= f * r[c][k];
            b[i] -= f * b[c];
        }
    }
    for (int i = 0; i < n; i++) b[i] /= r[i][i];
}

/* One step of order `order` from sigmas[from] to the next: x is moved in place. `m`: predictions at `from` (newest) and
 * before; `now`: the prediction where the step ends, for the corrector, or NULL. */
static void unipc_move(const ay_sched *s, int from, int order, float *const *m, const float *now, float *x) {
    place to = place_of(s, from + 1), at = place_of(s, from);
    float h = to.lambda - at.lambda, hh = -h, phi = expm1f(hh), k1 = phi / hh - 1, b_h = s->bh1 ? hh : phi, factorial = 1;
    float rk[ORDERS] = {0};
    double r[ORDERS][ORDERS], rho[ORDERS] = {0};
    for (int i = 1; i < order; i++) rk[i - 1] = (place_of(s, from - i).lambda - at.lambda) / h;
    rk[order - 1] = 1;
    for (int i = 0; i < order; i++) {
        for (int k = 0; k < order; k++) r[i][k] = i == 0 ? 1 : i == 1 ? rk[k] : rk[k] * rk[k];
        rho[i] = k1 * factorial / b_h;
        factorial *= (float)(i + 2);
        k1 = k1 / hh - 1 / factorial;
    }
    if (now ? order == 1 : order == 2) rho[0] = 0.5;
    else solve(now ? order : order - 1, r, rho);
    for (int64_t k = 0; k < s->n; k++) {
        float m0 = m[0][k], bend = now ? (float)rho[order - 1] * (now[k] - m0) : 0;
        for (int i = 1; i < order; i++) bend += (float)rho[i - 1] * ((m[i][k] - m0) / rk[i - 1]);
        x[k] = to.sigma / at.sigma * x[k] - to.alpha * phi * m0;
        if (now || order > 1) x[k] -= to.alpha * b_h * bend; /* b_h may be infinite at the end, where nothing bends */
    }
}

/* Corrects the sample by the new answer, as if the step before had known it, then predicts the next. */
static void unipc_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    float *last = s->kept[LAST_SAMPLE], *now = s->kept[NOW];
    size_t bytes = (size_t)s->n * sizeof(float);
    predict(s, i, model, sample, now);
    if (i > 0) { /* `counter`: the order of the step before */
        unipc_move(s, i - 1, s->counter, s->kept, now, last);
        memcpy(sample, last, bytes);
    }
    memcpy(ay_sched_rotate(s, ORDERS), now, bytes);
    int order = s->lower_order_final ? (int)ay_min_i64(s->order, s->calls - i) : s->order;
    s->counter = (int)ay_min_i64(order, s->n_kept);
    memcpy(last, sample, bytes);
    unipc_move(s, i, s->counter, s->kept, NULL, sample);
}

#define DPM(short_name, text, begin_function)                                                                               \
    {                                                                                                                       \
        .class_name = "DPMSolverMultistepScheduler", .name = short_name, .kind = AY_SCHED_NOISE, .label = text, .spacing = "linspace",              \
        .betas = "linear", .beta_start = 0.0001, .beta_end = 0.02, .rescales = true, .begin = begin_function,               \
        .step = dpm_step                                                                                                    \
    }
const ay_sched_row ay_sched_dpm = DPM("dpmpp_2m", "DPM++ 2M", dpm_begin);
const ay_sched_row ay_sched_dpm_karras = DPM("dpmpp_2m_karras", "DPM++ 2M Karras", dpm_begin_karras);
const ay_sched_row ay_sched_dpm_sde = DPM("dpmpp_2m_sde", "DPM++ 2M SDE", dpm_begin_sde);
const ay_sched_row ay_sched_dpm_sde_karras = DPM("dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras", dpm_begin_sde_karras);
const ay_sched_row ay_sched_unipc = {.class_name = "UniPCMultistepScheduler",
                                     .name = "unipc",
                                     .kind = AY_SCHED_NOISE,
                                     .label = "UniPC",
                                     .spacing = "linspace",
                                     .betas = "linear",
                                     .beta_start = 0.0001,
                                     .beta_end = 0.02,
                                     .rescales = true,
                                     .begin = unipc_begin,
                                     .step = unipc_step};
