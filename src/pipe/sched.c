/* SPDX-License-Identifier: MIT
 *
 * The one list of schedulers, and what they share: betas, spacing of timesteps, sigmas (schedulers/scheduling_*.py of
 * diffusers, __init__ and set_timesteps, which repeat each other).
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

extern const ay_sched_row ay_sched_flow_euler, ay_sched_flow_heun, ay_sched_flow_lcm, ay_sched_euler, ay_sched_euler_ancestral, ay_sched_heun, ay_sched_ddim, ay_sched_pndm,
    ay_sched_lcm, ay_sched_dpm, ay_sched_dpm_karras, ay_sched_dpm_sde, ay_sched_dpm_sde_karras, ay_sched_unipc;

static const ay_sched_row *const rows[] = {
    &ay_sched_flow_euler, &ay_sched_flow_heun, &ay_sched_flow_lcm, &ay_sched_euler, &ay_sched_euler_ancestral, &ay_sched_heun,    &ay_sched_ddim,
    &ay_sched_pndm,  &ay_sched_dpm,   &ay_sched_dpm_karras,      &ay_sched_dpm_sde, &ay_sched_dpm_sde_karras,
    &ay_sched_unipc, &ay_sched_lcm,
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

const ay_sched_row *const *ay_sched_list(int *n) {
    *n = N_ROWS;
    return rows;
}

/* ---- choosing --------------------------------------------------------------------------------------------- */

static ay_sched_kind kind_of(const json_t *config, const char *class_name) {
    const char *predicts = json_string_value(json_object_get(config, "prediction_type"));
    bool flow = strncmp(class_name, "FlowMatch", 9) == 0 || json_is_true(json_object_get(config, "use_flow_sigmas")) ||
                (predicts && strcmp(predicts, "flow_prediction") == 0);
    return flow ? AY_SCHED_FLOW : AY_SCHED_NOISE;
}

alloy_status ay_sched_choose(ay_ctx *cx, const json_t *config, const char *name, const ay_sched_row **out) {
    const char *own = json_string_value(json_object_get(config, "_class_name"));
    if (!own) own = "FlowMatchEulerDiscreteScheduler";
    ay_sched_kind kind = kind_of(config, own);
    const char *wanted = name ? name : own;
    for (int i = 0; i < N_ROWS; i++) {
        if (!(rows[i]->kind & kind) ||
            (strcmp(rows[i]->class_name, wanted) != 0 && (!name || strcmp(rows[i]->name, name) != 0)))
            continue;
        *out = rows[i];
        return ALLOY_OK;
    }
    ay_buf known = {0};
    for (int i = 0; i < N_ROWS; i++) {
        if (rows[i]->kind & kind) ay_buf_printf(&known, "%s%s", known.len ? ", " : "", rows[i]->name);
    }
    alloy_status st = name ? ay_fail(cx, ALLOY_E_USAGE, "scheduler \"%s\" is not known for this model; known are: %s", name,
                                     known.data ? known.data : "")
                           : ay_fail(cx, ALLOY_E_UNSUPPORTED,
                                     "scheduler_config.json: scheduler \"%s\" is not known; choose one with --scheduler: %s",
                                     own, known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

alloy_status ay_sched_open(ay_ctx *cx, ay_arena *arena, const json_t *config, const char *name, int steps, int64_t n,
                           const ay_flow_ask *ask, ay_sched **out) {
    ay_sched *s = ay_alloc(arena, sizeof *s);
    if (!s) return ay_nomem(cx);
    AY_TRY(ay_sched_choose(cx, config, name, &s->row));
    if (steps < 1 || steps > 4096) return ay_fail(cx, ALLOY_E_USAGE, "%d steps: between 1 and 4096 can be asked for", steps);
    s->arena = arena;
    s->steps = steps;
    s->n = n;
    s->ask = ask;
    s->init_sigma = 1;
    if (s->row->kind & AY_SCHED_NOISE) AY_TRY(ay_sched_read_betas(cx, s, config));
    AY_TRY(s->row->begin(cx, s, config));
    s->ask = NULL;
    *out = s;
    return ALLOY_OK;
}

void ay_sched_start(ay_sched *s) { s->counter = s->n_kept = 0; }

void ay_sched_scale(const ay_sched *s, int i, const float *sample, float *out) {
    if (s->row->scale) s->row->scale(s, i, sample, out);
    else memcpy(out, sample, (size_t)s->n * sizeof *out);
}

void ay_sched_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    s->row->step(s, i, model, sample, rng);
}

alloy_status ay_sched_twice(ay_ctx *cx, ay_sched *s, const float *t, const float *sigmas) {
    int calls = 2 * s->steps - 1;
    float *times = ay_alloc(s->arena, (size_t)calls * sizeof *times), *twice = ay_alloc(s->arena, (size_t)(calls + 1) * sizeof *twice);
    if (!times || !twice) return ay_nomem(cx);
    for (int i = 0; i < calls; i++) { /* 0, 1, 1, 2, 2, ... */
        times[i] = t[(i + 1) / 2];
        twice[i] = sigmas[(i + 1) / 2];
    }
    twice[calls] = sigmas[s->steps];
    s->timesteps = times;
    s->sigmas = twice;
    s->calls = calls;
    return ALLOY_OK;
}

alloy_status ay_sched_keep(ay_ctx *cx, ay_sched *s, int count) {
    for (int i = 0; i < count; i++) {
        s->kept[i] = ay_alloc(s->arena, (size_t)s->n * sizeof(float));
        if (!s->kept[i]) return ay_nomem(cx);
    }
    return ALLOY_OK;
}

float *ay_sched_rotate(ay_sched *s, int count) {
    float *oldest = s->kept[count - 1];
    memmove(s->kept + 1, s->kept, (size_t)(count - 1) * sizeof s->kept[0]);
    if (s->n_kept < count) s->n_kept++;
    return s->kept[0] = oldest;
}

/* ---- betas --------------------------------------------------------------------------------------------------- */

static const char what[] = "scheduler_config.json";

static alloy_status choice(ay_ctx *cx, const json_t *j, const char *key, const char *dflt, const char *const *names,
                           int *out) {
    const char *s;
    ay_buf known = {0};
    AY_TRY(ay_json_str_or(cx, what, j, key, dflt, &s));
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], s) == 0) {
            *out = i;
            ay_buf_free(&known);
            return ALLOY_OK;
        }
        ay_buf_printf(&known, "%s%s", i ? ", " : "", names[i]);
    }
    alloy_status st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s \"%s\" is not known here; known are: %s", what, key, s,
                              known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

/* Null counts as absent. */
alloy_status ay_sched_refuse(ay_ctx *cx, const json_t *j, const char *const *keys) {
    for (; *keys; keys++) {
        const json_t *v = json_object_get(j, *keys);
        if (v && !json_is_null(v) && !json_is_false(v)) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known here; take it out or choose another --scheduler",
                           what, *keys);
        }
    }
    return ALLOY_OK;
}

alloy_status ay_sched_one_spacing(ay_ctx *cx, bool karras, bool exponential, bool beta) {
    if (karras + exponential + beta <= 1) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: only one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas can be true", what);
}

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

static alloy_status make_alphas(ay_ctx *cx, ay_sched *s, double from, double to, bool scaled) {
    int64_t n = s->train_steps;
    s->alphas = ay_alloc(s->arena, (size_t)n * sizeof *s->alphas);
    if (!s->alphas) return ay_nomem(cx);
    float a = (float)(scaled ? sqrt(from) : from), b = (float)(scaled ? sqrt(to) : to),
          step = n > 1 ? (b - a) / (float)(n - 1) : 0;
    for (int64_t i = 0; i < n; i++) { /* torch.linspace: the second half from the end, product and sum rounded once */
        float v = i < n / 2 ? fmaf(step, (float)i, a) : fmaf(-step, (float)(n - 1 - i), b);
        s->alphas[i] = scaled ? v * v : v;
    }
    if (s->zero_snr) rescale_zero_snr(s->alphas, n);
    double product = 1;
    for (int64_t i = 0; i < n; i++) s->alphas[i] = (float)(product *= 1.0f - s->alphas[i]);
    return ALLOY_OK;
}

alloy_status ay_sched_read_betas(ay_ctx *cx, ay_sched *s, const json_t *j) {
    static const char *const predictions[] = {"epsilon", "v_prediction", "sample", NULL};
    static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
    static const char *const schedules[] = {"linear", "scaled_linear", NULL};
    static const char *const finals[] = {"zero", "sigma_min", NULL};
    static const char *const refused[] = {"trained_betas",   "thresholding", "use_beta_sigmas", "use_lu_lambdas",
                                          "use_flow_sigmas", "sigma_min",    "sigma_max", "lambda_min_clipped",       NULL};
    const ay_sched_row *r = s->row;
    static const char *const interpolations[] = {"linear", NULL};
    static const char *const types[] = {"discrete", NULL};
    int prediction, spacing, schedule, final, only;
    double from, to;
    AY_TRY(ay_sched_refuse(cx, j, refused));
    AY_TRY(choice(cx, j, "interpolation_type", "linear", interpolations, &only));
    AY_TRY(choice(cx, j, "timestep_type", "discrete", types, &only));
    AY_TRY(choice(cx, j, "prediction_type", "epsilon", predictions, &prediction));
    AY_TRY(choice(cx, j, "timestep_spacing", r->spacing, spacings, &spacing));
    AY_TRY(choice(cx, j, "beta_schedule", r->betas, schedules, &schedule));
    AY_TRY(choice(cx, j, "final_sigmas_type", "zero", finals, &final));
    AY_TRY(ay_json_num_or(cx, what, j, "beta_start", 1e-9, 0.999, r->beta_start, &from));
    AY_TRY(ay_json_num_or(cx, what, j, "beta_end", 1e-9, 0.999, r->beta_end, &to));
    AY_TRY(ay_json_int_or(cx, what, j, "num_train_timesteps", 1, 1000000, 1000, &s->train_steps));
    AY_TRY(ay_json_int_or(cx, what, j, "steps_offset", 0, 1000, 0, &s->offset));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_karras_sigmas", false, &s->karras));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_exponential_sigmas", false, &s->exponential));
    AY_TRY(ay_json_bool_or(cx, what, j, "rescale_betas_zero_snr", false, &s->zero_snr));
    s->zero_snr = s->zero_snr && r->rescales;
    AY_TRY(ay_json_bool_or(cx, what, j, "set_alpha_to_one", true, &s->alpha_to_one));
    s->prediction = (ay_prediction)prediction;
    s->spacing = (ay_spacing)spacing;
    s->ends_at_min = final == 1;
    if (s->steps >= s->train_steps) {
        return ay_fail(cx, ALLOY_E_USAGE, "%d steps: this scheduler has fewer than its %lld training steps to give",
                       s->steps, (long long)s->train_steps);
    }
    if (s->offset >= s->train_steps)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: steps_offset is beyond num_train_timesteps", what);
    return make_alphas(cx, s, from, to, schedule == 1);
}

/* ---- spacing --------------------------------------------------------------------------------------------------- */

void ay_sched_space(const ay_sched *s, int count, bool whole, bool plus_one, double *t) {
    int64_t n = s->train_steps;
    int points = count + (plus_one ? 1 : 0);
    for (int i = 0; i < count; i++) {
        int up = points - 1 - i; /* place in the ascending list */
        if (s->spacing == AY_SPACING_LINSPACE) {
            double step = points > 1 ? (double)(n - 1) / (points - 1) : 0;
            t[i] = points > 1 && up == points - 1 ? (double)(n - 1) : up * step;
            t[i] = whole ? rint(t[i]) : (float)t[i];
        } else if (s->spacing == AY_SPACING_LEADING) {
            t[i] = (double)(up * (n / points) + s->offset);
        } else {
            t[i] = rint((double)n - i * ((double)n / count)) - 1;
        }
        if (t[i] > (double)(n - 1)) t[i] = (double)(n - 1); /* an offset beyond what there is */
        if (t[i] < 0) t[i] = 0;
    }
}

/* sigma of every training step, float32 */
static float sigma_at(const ay_sched *s, int64_t i) { return sqrtf((1.0f - s->alphas[i]) / s->alphas[i]); }

/* The timestep whose sigma it would be, between neighbours in the logarithm (_sigma_to_t). */
static double sigma_to_t(const ay_sched *s, double sigma) {
    double at = log(sigma > 1e-10 ? sigma : 1e-10);
    int64_t low = 0, high = s->train_steps - 1;
    while (low + 1 < high) { /* sigmas rise */
        int64_t mid = (low + high) / 2;
        if (logf(sigma_at(s, mid)) <= at) low = mid;
        else high = mid;
    }
    double a = logf(sigma_at(s, low)), b = logf(sigma_at(s, low + 1)), w = (a - at) / (a - b);
    w = w < 0 ? 0 : w > 1 ? 1 : w;
    return (1 - w) * (double)low + w * (double)(low + 1);
}

alloy_status ay_sched_sigmas(ay_ctx *cx, ay_sched *s, double *t, bool whole) {
    int n = s->steps;
    double *v = ay_alloc(s->arena, (size_t)n * sizeof *v);
    s->sigmas = ay_alloc(s->arena, (size_t)(n + 1) * sizeof *s->sigmas);
    if (!v || !s->sigmas) return ay_nomem(cx);
    if (s->zero_snr) s->alphas[s->train_steps - 1] = 0x1p-24f; /* not quite 0, so that the first sigma is a number */
    for (int i = 0; i < n; i++) {
        int64_t low = (int64_t)t[i], high = ay_min_i64(low + 1, s->train_steps - 1);
        double a = sigma_at(s, low), b = sigma_at(s, high);
        v[i] = a + (b - a) * (t[i] - (double)low);
    }
    double high = whole ? sigma_at(s, s->train_steps - 1) : v[0], low = whole ? sigma_at(s, 0) : v[n - 1];
    for (int i = 0; i < n && (s->karras || s->exponential); i++) {
        double at = n > 1 ? (double)i / (n - 1) : 0,
               a = 1 / 7.0; /* even in the seventh root (Karras et al. 2022) or the logarithm */
        v[i] = s->karras ? pow(pow(high, a) + at * (pow(low, a) - pow(high, a)), 7.0)
                         : exp(log(high) + at * (log(low) - log(high)));
        t[i] = sigma_to_t(s, v[i]);
        if (whole) t[i] = s->karras ? rint(t[i]) : floor(t[i]);
    }
    for (int i = 0; i < n; i++) s->sigmas[i] = (float)v[i];
    s->sigmas[n] = s->ends_at_min ? sigma_at(s, 0) : 0;
    return ALLOY_OK;
}
