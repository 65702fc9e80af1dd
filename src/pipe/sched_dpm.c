/* SPDX-License-Identifier: MIT
 *
 * DPM-Solver and DPM-Solver++ with their stochastic forms, multistep and singlestep (schedulers/
 * scheduling_dpmsolver_multistep.py and scheduling_dpmsolver_singlestep.py of diffusers), in float32 as there. The sample
 * keeps unit variance; earlier predictions, m0 (newest), m1, m2, say how the picture (in DPM-Solver: the noise) bends in
 * lambda = log(alpha / sigma). Multistep starts every step where the last one ended; singlestep starts two or three steps
 * from the same sample, each with one prediction more.
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

enum { ORDERS = 3, NOISE = 3, BLOCK_SAMPLE = 4 }; /* kept[0..2]: predictions; then what the method needs */
enum { PLUS, PLUS_SDE, PLAIN, PLAIN_SDE, DEIS }; /* algorithm_type */

/* ---- where the schedule is ------------------------------------------------------------------------------------------ */

ay_place ay_sched_place(const ay_sched *s, int i) {
    float sigma = s->sigmas[i];
    ay_place p = {1 - sigma, sigma, 0};
    if (!s->flow_sigmas) {
        p.alpha = 1 / sqrtf(sigma * sigma + 1);
        p.sigma = sigma * p.alpha;
    }
    p.lambda = logf(p.alpha) - logf(p.sigma);
    return p;
}

const float *ay_sched_convert(ay_sched *s, int i, const float *model, const float *sample, float *out) {
    ay_place p = ay_sched_place(s, i);
    float sigma = s->sigmas[i];
    for (int64_t k = 0; k < s->n; k++) {
        float m = model[k], x = sample[k];
        if (s->noise_form) {
            if (s->prediction == AY_PREDICTS_SAMPLE) m = (x - p.alpha * m) / p.sigma;
            if (s->prediction == AY_PREDICTS_VELOCITY) m = p.alpha * m + p.sigma * x;
        } else {
            if (s->prediction == AY_PREDICTS_NOISE) m = (x - p.sigma * m) / p.alpha;
            if (s->prediction == AY_PREDICTS_VELOCITY) m = p.alpha * x - p.sigma * m;
            if (s->prediction == AY_PREDICTS_FLOW) m = x - sigma * m;
        }
        out[k] = m;
    }
    if (!s->threshold) return out;
    for (int64_t k = 0; k < s->n && s->noise_form; k++) out[k] = (sample[k] - p.sigma * out[k]) / p.alpha;
    ay_sched_limit(s, out);
    for (int64_t k = 0; k < s->n && s->noise_form; k++) out[k] = (sample[k] - p.alpha * out[k]) / p.sigma;
    return out;
}

/* ---- beginning -------------------------------------------------------------------------------------------------------- */

static double picture_shift(const ay_sched *s, const json_t *j) {
    double base = 0.5, most = 1.15, from = 256, to = 4096, *const out[] = {&base, &most, &from, &to};
    static const char *const keys[] = {"base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"};
    for (int i = 0; i < 4; i++) {
        const json_t *v = json_object_get(j, keys[i]);
        if (json_is_number(v)) *out[i] = json_number_value(v);
    }
    double slope = (most - base) / (to - from);
    return (s->ask ? (double)s->ask->tokens : 0) * slope + (base - slope * from);
}

/* Even in the velocity's own time, shifted towards noise; timesteps are cut to whole numbers. */
static alloy_status flow_sigmas(ay_ctx *cx, ay_sched *s, const json_t *j, double *t) {
    int n = s->steps;
    bool dynamic;
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_dynamic_shifting", false, &dynamic));
    double shift = dynamic ? exp(picture_shift(s, j)) : s->flow_shift;
    s->sigmas = ay_alloc(s->arena, (size_t)(n + 1) * sizeof *s->sigmas);
    if (!s->sigmas) return ay_nomem(cx);
    for (int i = 0; i < n; i++) {
        double sigma = 1 - ay_linspace(1, 1 / (double)s->train_steps, n + 1, n - i);
        sigma = shift * sigma / (1 + (shift - 1) * sigma);
        s->sigmas[i] = (float)sigma;
        t[i] = floor(sigma * (double)s->train_steps);
        if (!isfinite(sigma)) return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": its settings give no finite noise level for step %d of %d", i + 1, n);
    }
    float a = s->alphas[0];
    s->sigmas[n] = s->ends_at_min ? sqrtf((1 - a) / a) : 0;
    return ALLOY_OK;
}

alloy_status ay_sched_begin_solver(ay_ctx *cx, ay_sched *s, const json_t *config, bool lower_order_final) {
    int64_t order;
    bool respaced = s->karras || s->lu || s->exponential || s->beta;
    if (s->spacing == AY_SPACING_TRAILING && s->last_step < s->train_steps && !respaced && !s->flow_sigmas) { /* what is clipped takes steps along */
        s->steps = (int)ceil((double)s->last_step / ((double)s->train_steps / s->steps) - 1e-9);
    }
    double *t = ay_alloc(s->arena, (size_t)s->steps * sizeof *t);
    s->timesteps = ay_alloc(s->arena, (size_t)s->steps * sizeof *s->timesteps);
    if (!t || !s->timesteps) return ay_nomem(cx);
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, config, "solver_order", 1, ORDERS, 2, &order));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "lower_order_final", lower_order_final, &s->lower_order_final));
    s->order = (int)order;
    ay_sched_space(s, s->steps, true, true, t);
    if (s->flow_sigmas && !respaced) AY_TRY(flow_sigmas(cx, s, config, t));
    else AY_TRY(ay_sched_sigmas(cx, s, t, true));
    s->calls = s->steps;
    for (int i = 0; i < s->steps; i++) s->timesteps[i] = (float)t[i];
    return ay_sched_keep(cx, s, BLOCK_SAMPLE + 1);
}

static alloy_status read_algorithm(ay_ctx *cx, ay_sched *s, const json_t *config) {
    static const char *const algorithms[] = {"dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis", NULL};
    static const char *const solvers[] = {"midpoint", "heun", "logrho", "bh1", "bh2", NULL}; /* others' are read as midpoint */
    int solver;
    AY_TRY(ay_sched_word(cx, config, "algorithm_type", "dpmsolver++", algorithms, &s->algorithm));
    AY_TRY(ay_sched_word(cx, config, "solver_type", "midpoint", solvers, &solver));
    if (s->algorithm == DEIS) s->algorithm = PLUS;
    if (s->sde) s->algorithm = s->algorithm == PLAIN ? PLAIN_SDE : s->algorithm == PLUS ? PLUS_SDE : s->algorithm;
    s->sde = s->algorithm == PLUS_SDE || s->algorithm == PLAIN_SDE;
    s->noise_form = s->algorithm == PLAIN || s->algorithm == PLAIN_SDE;
    s->heun_solver = solver == 1;
    if (!s->noise_form) return ALLOY_OK;
    if (!s->ends_at_min) return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": algorithm_type %s needs final_sigmas_type \"sigma_min\"", algorithms[s->algorithm]);
    if (s->prediction == AY_PREDICTS_FLOW) return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": algorithm_type %s is not for flow_prediction", algorithms[s->algorithm]);
    return ALLOY_OK;
}

static alloy_status begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "euler_at_final", false, &s->euler_at_final));
    AY_TRY(read_algorithm(cx, s, config));
    AY_TRY(ay_sched_begin_solver(cx, s, config, true));
    if (s->algorithm == PLAIN_SDE && s->order > 2) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": solver_order 3 is not known for sde-dpmsolver; 1 and 2 are");
    }
    return ALLOY_OK;
}

static void choose_karras(ay_sched *s) {
    s->karras = true;
    s->exponential = s->beta = false;
}
static alloy_status begin_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    choose_karras(s);
    return begin(cx, s, config);
}
static alloy_status begin_sde(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->sde = true;
    return begin(cx, s, config);
}
static alloy_status begin_sde_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    s->sde = true;
    choose_karras(s);
    return begin(cx, s, config);
}

/* ---- one step ------------------------------------------------------------------------------------------------------------ */

/* How the coming step weighs the sample, the first prediction, its first and second differences, and noise. */
typedef struct weights {
    float sample, d0, d1, d2, noise;
} weights;

/* second: d1 is of a step with no third prediction, where `heun_solver` makes a difference; else of third order */
static weights plus_weights(const ay_sched *s, ay_place to, ay_place from, bool second) {
    float h = to.lambda - from.lambda, a = to.alpha, keep = to.sigma / from.sigma;
    weights w = {keep, 0, 0, 0, 0};
    if (s->algorithm == PLUS_SDE) {
        float less = 1 - expf(-2.0f * h);
        w = (weights){keep * expf(-h), a * less, 0.5f * (a * less), 0, to.sigma * sqrtf(less)};
        if (!second || s->heun_solver) w.d1 = a * (less / (-2.0f * h) + 1);
        if (!second) w.d2 = a * ((less - 2.0f * h) / (2.0f * h * (2.0f * h)) - 0.5f);
    } else {
        float less = expf(-h) - 1;
        w = (weights){keep, -(a * less), -0.5f * (a * less), 0, 0};
        if (!second || s->heun_solver) w.d1 = a * (less / h + 1);
        if (!second) w.d2 = -(a * ((less + h) / (h * h) - 0.5f));
    }
    return w;
}

static weights plain_weights(const ay_sched *s, ay_place to, ay_place from, bool second) {
    float h = to.lambda - from.lambda, sigma = to.sigma, more = expf(h) - 1, twice = s->algorithm == PLAIN_SDE ? 2 : 1;
    weights w = {to.alpha / from.alpha, -twice * (sigma * more), -(twice == 2 ? sigma * more : 0.5f * (sigma * more)), 0, 0};
    if (!second || s->heun_solver) w.d1 = -twice * (sigma * (more / h - 1));
    if (!second) w.d2 = -(sigma * ((more - h) / (h * h) - 0.5f));
    if (twice == 2) w.noise = sigma * sqrtf(expf(2 * h) - 1);
    return w;
}

/* sample = the weighted sum; d1 and d2 may be NULL. */
static void combine(ay_sched *s, weights w, const float *from, const float *d0, const float *d1, const float *d2, float *sample) {
    const float *noise = s->kept[NOISE];
    for (int64_t k = 0; k < s->n; k++) {
        float x = w.sample * from[k] + w.d0 * d0[k];
        if (d1) x += w.d1 * d1[k];
        if (d2) x += w.d2 * d2[k];
        sample[k] = s->sde ? x + w.noise * noise[k] : x;
    }
}

static weights weights_of(const ay_sched *s, ay_place to, ay_place from, bool second) {
    return s->noise_form ? plain_weights(s, to, from, second) : plus_weights(s, to, from, second);
}

static int multistep_order(const ay_sched *s, int i) {
    bool few = s->lower_order_final && s->calls < 15;
    if (i == s->calls - 1 && (s->euler_at_final || few || !s->ends_at_min)) return 1;
    int order = (int)ay_min_i64(s->order, s->n_kept); /* the newest is kept already */
    return i == s->calls - 2 && few && order > 2 ? 2 : order;
}

static void multistep(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    const float *m0 = ay_sched_convert(s, i, model, sample, ay_sched_rotate(s, ORDERS)), *m1 = s->kept[1], *m2 = s->kept[2];
    float *noise = s->kept[NOISE];
    int order = multistep_order(s, i);
    ay_place to = ay_sched_place(s, i + 1), from = ay_sched_place(s, i);
    weights w = weights_of(s, to, from, order < 3);
    float h = to.lambda - from.lambda, before = order > 1 ? from.lambda - ay_sched_place(s, i - 1).lambda : 1, r0 = before / h;
    float r1 = order > 2 ? (ay_sched_place(s, i - 1).lambda - ay_sched_place(s, i - 2).lambda) / h : 1;
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

/* ---- singlestep: blocks of one, two, three steps from the same sample ------------------------------------------------------- */

/* get_order_list: 1, 2, (3,) 1, 2 ... ; the end is of lower order where the steps do not fill whole blocks or end at zero. */
static alloy_status plan_orders(ay_ctx *cx, ay_sched *s) {
    int n = s->calls, order = s->order;
    bool lower = s->lower_order_final || n % order || !s->ends_at_min;
    s->orders = ay_alloc(s->arena, (size_t)n * sizeof *s->orders);
    if (!s->orders) return ay_nomem(cx);
    for (int i = 0; i < n; i++) s->orders[i] = i % order + 1;
    if (lower && n % order == 0 && order > 1) { /* the last block gives up its highest */
        s->orders[n - 1] = 1;
        if (order == 3) s->orders[n - 2] = 2;
    }
    if (!s->ends_at_min) s->orders[n - 1] = 1;
    return ALLOY_OK;
}

static alloy_status begin_single(ay_ctx *cx, ay_sched *s, const json_t *config) {
    AY_TRY(read_algorithm(cx, s, config));
    if (s->algorithm == PLAIN_SDE) return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": algorithm_type sde-dpmsolver is not known for singlestep solvers");
    if (s->noise_form && s->threshold) return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": thresholding with algorithm_type dpmsolver is not known for singlestep solvers");
    AY_TRY(ay_sched_begin_solver(cx, s, config, false));
    return plan_orders(cx, s);
}
static alloy_status begin_single_karras(ay_ctx *cx, ay_sched *s, const json_t *config) {
    choose_karras(s);
    return begin_single(cx, s, config);
}

static void singlestep(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    ay_sched_convert(s, i, model, sample, ay_sched_rotate(s, ORDERS));
    float *m0 = s->kept[0], *m1 = s->kept[1], *m2 = s->kept[2], *start = s->kept[BLOCK_SAMPLE];
    int order = (int)ay_min_i64(s->orders[i], s->n_kept);
    if (order == 1) memcpy(start, sample, (size_t)s->n * sizeof *start);
    ay_place to = ay_sched_place(s, i + 1), from = ay_sched_place(s, i + 1 - order);
    weights w = weights_of(s, to, from, order < 3);
    float h = to.lambda - from.lambda, r0 = (ay_sched_place(s, i).lambda - from.lambda) / h;
    float r1 = order > 2 ? (ay_sched_place(s, i - 1).lambda - from.lambda) / h : 1;
    if (s->sde) ay_rng_normal(rng, s->kept[NOISE], (size_t)s->n);
    if (order == 1) {
        combine(s, w, start, m0, NULL, NULL, sample);
        return;
    }
    for (int64_t k = 0; k < s->n; k++) {
        const float *first = order == 2 ? m1 : m2;
        float far = (1 / r0) * (m0[k] - first[k]), d1 = far, x = w.sample * start[k] + w.d0 * first[k];
        if (order > 2 && s->heun_solver) {
            float near = (1 / r1) * (m1[k] - first[k]);
            d1 = (r0 * near - r1 * far) / (r0 - r1);
            x += w.d1 * d1 + w.d2 * (2 * (far - near) / (r0 - r1));
        } else {
            x += w.d1 * d1;
        }
        sample[k] = s->sde ? x + w.noise * s->kept[NOISE][k] : x;
    }
}

#define DPM_ROW(class_is, short_name, text, has_what, begin_is, step_is)                                                                 \
    {                                                                                                                                     \
        .class_name = class_is, .name = short_name, .label = text, .kind = AY_SCHED_NOISE | AY_SCHED_FLOW,                                \
        .has = AY_HAS_RESPACE | AY_HAS_FINAL | AY_HAS_LAMBDA_CLIP | AY_HAS_FLOW | AY_HAS_THRESHOLD | (has_what), .spacing = "linspace",   \
        .betas = "linear", .beta_start = 0.0001, .beta_end = 0.02, .begin = begin_is, .step = step_is                                     \
    }
#define MULTI(short_name, text, begin_is) \
    DPM_ROW("DPMSolverMultistepScheduler", short_name, text, AY_HAS_SPACING | AY_HAS_ZERO_SNR | AY_HAS_LU, begin_is, multistep)
#define SINGLE(short_name, text, begin_is) DPM_ROW("DPMSolverSinglestepScheduler", short_name, text, 0, begin_is, singlestep)

const ay_sched_row ay_sched_dpm = MULTI("dpmpp_2m", "DPM++ 2M", begin);
const ay_sched_row ay_sched_dpm_karras = MULTI("dpmpp_2m_karras", "DPM++ 2M Karras", begin_karras);
const ay_sched_row ay_sched_dpm_sde = MULTI("dpmpp_2m_sde", "DPM++ 2M SDE", begin_sde);
const ay_sched_row ay_sched_dpm_sde_karras = MULTI("dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras", begin_sde_karras);
const ay_sched_row ay_sched_dpm_single = SINGLE("dpmpp_2s", "DPM++ 2S", begin_single);
const ay_sched_row ay_sched_dpm_single_karras = SINGLE("dpmpp_2s_karras", "DPM++ 2S Karras", begin_single_karras);
