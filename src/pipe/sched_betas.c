/* SPDX-License-Identifier: MIT
 *
 * What noise schedules share: their configuration, betas, spacing of timesteps, sigmas (schedulers/scheduling_*.py of
 * diffusers, __init__ and set_timesteps, which repeat each other).
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

/* ---- betas --------------------------------------------------------------------------------------------------- */

/* So that the last one has no signal left at all (scheduling_ddim.py, rescale_zero_terminal_snr): betas anew. */
static void rescale_zero_snr(float *betas, int64_t n) {
    double product = 1;
    float before = 1, last;
    for (int64_t i = 0; i < n; i++) product *= 1.0f - betas[i];
    last = sqrtf((float)product);
    float first = sqrtf(1.0f - betas[0]), stretch = first / (first - last);
    product = 1;
    for (int64_t i = 0; i < n; i++) {
        product *= 1.0f - betas[i];
        float root = (sqrtf((float)product) - last) * stretch, bar = root * root;
        betas[i] = 1.0f - bar / before;
        before = bar;
    }
}

enum { LINEAR, SCALED_LINEAR, COSINE, EXP };

/* torch.linspace: the second half from the end, product and sum rounded once */
static void even_betas(float *betas, int64_t n, double from, double to, bool scaled) {
    float a = (float)(scaled ? sqrt(from) : from), b = (float)(scaled ? sqrt(to) : to), step = n > 1 ? (b - a) / (float)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++) {
        float v = i < n / 2 ? fmaf(step, (float)i, a) : fmaf(-step, (float)(n - 1 - i), b);
        betas[i] = scaled ? v * v : v;
    }
}

/* What is left of the signal at time t of 0 to 1 (betas_for_alpha_bar). */
static double alpha_bar(int schedule, double t) {
    if (schedule == EXP) return exp(t * -12.0);
    double c = cos((t + 0.008) / 1.008 * 3.14159265358979323846 / 2);
    return c * c;
}

static alloy_status trained_betas(ay_ctx *cx, ay_sched *s, const json_t *list) {
    int64_t n = (int64_t)json_array_size(list);
    if (n != s->train_steps) {
        return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": trained_betas lists %lld numbers, expected num_train_timesteps, %lld", (long long)n,
                       (long long)s->train_steps);
    }
    s->alphas = ay_alloc(s->arena, (size_t)n * sizeof *s->alphas);
    if (!s->alphas) return ay_nomem(cx);
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        double b = json_is_number(v) ? json_number_value(v) : -1;
        if (!(b > 0 && b < 1)) return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": trained_betas has an entry that is no number between 0 and 1, at %lld", (long long)i);
        s->alphas[i] = (float)b;
    }
    return ALLOY_OK;
}

static alloy_status read_alphas(ay_ctx *cx, ay_sched *s, const json_t *j) {
    static const char *const schedules[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
    static const char *const schedules_exp[] = {"linear", "scaled_linear", "squaredcos_cap_v2", "exp", NULL};
    const ay_sched_row *r = s->row;
    const json_t *trained = json_object_get(j, "trained_betas");
    double from, to, product = 1;
    int schedule;
    AY_TRY(ay_sched_word(cx, j, "beta_schedule", r->betas, r->has & AY_HAS_EXP_BETAS ? schedules_exp : schedules, &schedule));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "beta_start", 1e-9, 0.999, r->beta_start, &from));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "beta_end", 1e-9, 0.999, r->beta_end, &to));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "num_train_timesteps", 2, 100000, 1000, &s->train_steps));
    s->cosine_betas = schedule == COSINE;
    if (trained && !json_is_null(trained)) {
        AY_TRY(trained_betas(cx, s, trained));
    } else {
        double n = (double)s->train_steps;
        s->alphas = ay_alloc(s->arena, (size_t)s->train_steps * sizeof *s->alphas);
        if (!s->alphas) return ay_nomem(cx);
        if (schedule < COSINE) even_betas(s->alphas, s->train_steps, from, to, schedule == SCALED_LINEAR);
        for (int64_t i = 0; i < s->train_steps && schedule >= COSINE; i++) {
            s->alphas[i] = (float)fmin(1 - alpha_bar(schedule, (double)(i + 1) / n) / alpha_bar(schedule, (double)i / n), 0.999);
        }
    }
    if (s->zero_snr) rescale_zero_snr(s->alphas, s->train_steps);
    for (int64_t i = 0; i < s->train_steps; i++) s->alphas[i] = (float)(product *= 1.0f - s->alphas[i]);
    return ALLOY_OK;
}

/* ---- configuration ------------------------------------------------------------------------------------------------ */

/* Settings of the classes that respace sigmas. */
static alloy_status read_respacing(ay_ctx *cx, ay_sched *s, const json_t *j) {
    static const char *const finals[] = {"zero", "sigma_min", NULL};
    static const char *const interpolations[] = {"linear", "log_linear", NULL};
    static const char *const types[] = {"discrete", "continuous", NULL};
    unsigned has = s->row->has;
    int which = 0;
    s->sigma_min = s->sigma_max = NAN;
    if (has & AY_HAS_RESPACE) {
        AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_karras_sigmas", false, &s->karras));
        AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_exponential_sigmas", false, &s->exponential));
        AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_beta_sigmas", false, &s->beta));
        AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "sigma_min", 1e-9, 1e9, NAN, &s->sigma_min));
        AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "sigma_max", 1e-9, 1e9, NAN, &s->sigma_max));
        AY_TRY(ay_sched_one_spacing(cx, s->karras, s->exponential, s->beta));
    }
    if (has & AY_HAS_LU) AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_lu_lambdas", false, &s->lu));
    if (has & AY_HAS_FINAL) AY_TRY(ay_sched_word(cx, j, "final_sigmas_type", "zero", finals, &which));
    s->ends_at_min = which == 1;
    if (!(has & AY_HAS_EDM)) return ALLOY_OK;
    AY_TRY(ay_sched_word(cx, j, "interpolation_type", "linear", interpolations, &which));
    s->log_linear = which == 1;
    AY_TRY(ay_sched_word(cx, j, "timestep_type", "discrete", types, &which));
    s->continuous = which == 1 && s->prediction == AY_PREDICTS_VELOCITY;
    return ALLOY_OK;
}

/* A velocity between picture and noise: the checkpoint's own class calls the shift flow_shift, FlowMatch* call it shift. */
static alloy_status read_flow(ay_ctx *cx, ay_sched *s, const json_t *j) {
    double shift;
    bool given = json_is_true(json_object_get(j, "use_flow_sigmas")), foreign = !json_object_get(j, "use_flow_sigmas");
    if (!(s->row->has & AY_HAS_FLOW) || !s->flows) return ALLOY_OK;
    s->flow_sigmas = given || foreign;
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "shift", 0, 1e9, 1, &shift));
    return ay_json_num_or(cx, AY_SCHED_FILE, j, "flow_shift", 0, 1e9, shift, &s->flow_shift);
}

static alloy_status read_threshold(ay_ctx *cx, ay_sched *s, const json_t *j) {
    double ratio, most;
    if (!(s->row->has & AY_HAS_THRESHOLD)) return ALLOY_OK;
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "thresholding", false, &s->threshold));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "dynamic_thresholding_ratio", 0, 1, 0.995, &ratio));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "sample_max_value", 1e-6, 1e9, 1, &most));
    s->threshold_ratio = (float)ratio;
    s->threshold_most = (float)most;
    return ALLOY_OK;
}

/* Steps of so little signal that nothing is to be seen are left out: lambda below lambda_min_clipped. */
static alloy_status clip_lambda(ay_ctx *cx, ay_sched *s, const json_t *j) {
    double least;
    s->last_step = s->train_steps;
    if (!(s->row->has & AY_HAS_LAMBDA_CLIP)) return ALLOY_OK;
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "lambda_min_clipped", -1e9, 1e9, -INFINITY, &least));
    while (s->last_step > 1) {
        float a = s->alphas[s->last_step - 1];
        if (logf(sqrtf(a)) - logf(sqrtf(1 - a)) >= (float)least) break;
        s->last_step--;
    }
    return ALLOY_OK;
}

alloy_status ay_sched_read_betas(ay_ctx *cx, ay_sched *s, const json_t *j) {
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample", "flow_prediction", NULL};
    static const char *const predictions_noise[] = {"epsilon", "v_prediction", "sample", NULL};
    static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
    static const char *const refused[] = {"solver_p", NULL};
    const ay_sched_row *r = s->row;
    int prediction, spacing = AY_SPACING_LINSPACE;
    bool flow = s->flows;
    AY_TRY(ay_sched_refuse(cx, j, refused));
    AY_TRY(ay_sched_word(cx, j, "prediction_type", flow ? "flow_prediction" : "epsilon", flow ? predictions : predictions_noise, &prediction));
    s->prediction = (ay_prediction)prediction;
    if (r->has & AY_HAS_SPACING) {
        AY_TRY(ay_sched_word(cx, j, "timestep_spacing", r->spacing, spacings, &spacing));
        AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "steps_offset", 0, 1000, 0, &s->offset));
    }
    s->spacing = (ay_spacing)spacing;
    if (r->has & AY_HAS_ZERO_SNR) AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "rescale_betas_zero_snr", false, &s->zero_snr));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "set_alpha_to_one", true, &s->alpha_to_one));
    AY_TRY(read_respacing(cx, s, j));
    AY_TRY(read_threshold(cx, s, j));
    AY_TRY(read_flow(cx, s, j));
    AY_TRY(read_alphas(cx, s, j));
    AY_TRY(clip_lambda(cx, s, j));
    if (s->steps >= s->train_steps) {
        return ay_fail(cx, ALLOY_E_USAGE, "%d steps: this scheduler has fewer than its %lld training steps to give",
                       s->steps, (long long)s->train_steps);
    }
    if (s->offset >= s->train_steps)
        return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": steps_offset is beyond num_train_timesteps");
    return ALLOY_OK;
}

/* ---- spacing --------------------------------------------------------------------------------------------------- */

double ay_linspace(double from, double to, int n, int i) {
    if (n > 1 && i == n - 1) return to;
    return from + i * (n > 1 ? (to - from) / (n - 1) : 0);
}

void ay_sched_space(const ay_sched *s, int count, bool whole, bool plus_one, double *t) {
    int64_t n = s->last_step;
    int points = count + (plus_one ? 1 : 0);
    for (int i = 0; i < count; i++) {
        int up = points - 1 - i; /* place in the ascending list */
        if (s->spacing == AY_SPACING_LINSPACE) {
            t[i] = ay_linspace(0, (double)(n - 1), points, up);
            t[i] = whole ? rint(t[i]) : (float)t[i];
        } else if (s->spacing == AY_SPACING_LEADING) {
            t[i] = (double)(up * (n / points) + s->offset);
        } else {
            t[i] = rint((double)n - i * ((double)s->train_steps / count)) - 1;
        }
        if (t[i] > (double)(s->train_steps - 1)) t[i] = (double)(s->train_steps - 1); /* an offset beyond what there is */
        if (t[i] < 0) t[i] = 0;
    }
}

/* ---- sigmas ------------------------------------------------------------------------------------------------------ */

/* sigma of every training step, float32 */
static float sigma_at(const ay_sched *s, int64_t i) { return sqrtf((1.0f - s->alphas[i]) / s->alphas[i]); }

double ay_sched_sigma_to_t(const ay_sched *s, double sigma) {
    double at = log(sigma > 1e-10 ? sigma : 1e-10);
    int64_t low = s->train_steps - 2;
    while (low > 0 && logf(sigma_at(s, low)) > at) low--; /* the last below: sigmas rise, but for rounding */
    double a = logf(sigma_at(s, low)), b = logf(sigma_at(s, low + 1)), w = (a - at) / (a - b);
    w = w < 0 ? 0 : w > 1 ? 1 : w;
    return (1 - w) * (double)low + w * (double)(low + 1);
}

/* The power series of the incomplete beta function, x^a * sum (1-a)_k / k! * x^k / (a+k), gains a binary digit a term up
 * to the median, 1/2 (Abramowitz and Stegun, 26.5.4 with 15.1.1); the rest is its mirror image. */
double ay_beta_quantile(double p, double a) {
    if (p > 0.5) return 1 - ay_beta_quantile(1 - p, a);
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

/* Between two sigmas, and the timesteps after them: even in the seventh root (Karras et al. 2022), in the logarithm (also
 * Lu et al. 2022), or by the beta distribution's quantiles (Lee et al. 2024). */
static void respace(const ay_sched *s, double high, double low, double *v, double *t, bool whole) {
    int n = s->steps;
    double seventh = 1 / 7.0, a = logf((float)high), b = logf((float)low);
    bool rounds = (s->karras || s->lu) && !(s->cosine_betas && s->row->has & AY_HAS_LU);
    for (int i = 0; i < n; i++) {
        if (s->karras) v[i] = pow(pow(high, seventh) + ay_linspace(0, 1, n, i) * (pow(low, seventh) - pow(high, seventh)), 7.0);
        else if (s->lu) v[i] = exp(a + ay_linspace(0, 1, n, i) * (b - a));
        else if (s->exponential) v[i] = exp(ay_linspace(log(high), log(low), n, i));
        else v[i] = low + ay_beta_quantile(1 - ay_linspace(0, 1, n, i), 0.6) * (high - low);
        t[i] = ay_sched_sigma_to_t(s, v[i]);
        if (whole) t[i] = rounds ? rint(t[i]) : floor(t[i]);
    }
}

/* The sigmas of a training step between two, or (Euler's log_linear) evenly in the logarithm, whatever the timesteps. */
static void plain_sigmas(const ay_sched *s, const double *t, double *v, double *after) {
    int n = s->steps;
    float high = logf(sigma_at(s, s->train_steps - 1)), low = logf(sigma_at(s, 0)), step = (low - high) / (float)n;
    for (int i = 0; i <= n && s->log_linear; i++) {
        float at = i < (n + 1) / 2 ? fmaf(step, (float)i, high) : fmaf(-step, (float)(n - i), low);
        *(i < n ? &v[i] : after) = expf(at);
    }
    for (int i = 0; i < n && !s->log_linear; i++) {
        int64_t below = (int64_t)t[i], above = ay_min_i64(below + 1, s->train_steps - 1);
        double a = sigma_at(s, below), b = sigma_at(s, above);
        v[i] = a + (b - a) * (t[i] - (double)below);
    }
}

alloy_status ay_sched_sigmas(ay_ctx *cx, ay_sched *s, double *t, bool whole) {
    int n = s->steps;
    double *v = ay_alloc(s->arena, (size_t)n * sizeof *v);
    s->sigmas = ay_alloc(s->arena, (size_t)(n + 1) * sizeof *s->sigmas);
    if (!v || !s->sigmas) return ay_nomem(cx);
    if (s->zero_snr) s->alphas[s->train_steps - 1] = 0x1p-24f; /* not quite 0, so that the first sigma is a number */
    double end = s->ends_at_min ? sigma_at(s, 0) : 0, after = end;
    plain_sigmas(s, t, v, &after);
    double high = whole ? sigma_at(s, s->train_steps - 1) : v[0], low = whole ? sigma_at(s, 0) : s->log_linear ? after : v[n - 1];
    if (s->karras || s->lu || s->exponential || s->beta) {
        if (isfinite(s->sigma_max) && !s->lu) high = s->sigma_max;
        if (isfinite(s->sigma_min) && !s->lu) low = s->sigma_min;
        respace(s, high, low, v, t, whole);
        after = end;
    }
    for (int i = 0; i < n; i++) s->sigmas[i] = (float)v[i];
    s->sigmas[n] = (float)after;
    return ALLOY_OK;
}
