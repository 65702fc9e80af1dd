/* SPDX-License-Identifier: MIT
 *
 * UniPC (schedulers/scheduling_unipc_multistep.py of diffusers), in float32 as there: a multistep predictor, and a corrector
 * that makes the step before again once the model has answered at its end.
 */
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

enum { ORDERS = 3, LAST_SAMPLE = 3, NOW = 4 }; /* kept[0..2]: predictions; then what the method needs */

static double shifted(double sigma, double shift) { return shift * sigma / (1 + (shift - 1) * sigma); }

/* exp(mu) of the picture's size, or mu itself (time_shift_type) */
static alloy_status dynamic_shift(ay_ctx *cx, const ay_sched *s, const json_t *j, double *shift) {
    static const char *const types[] = {"exponential", "linear", NULL};
    double base, most;
    int64_t from, to;
    int type;
    AY_TRY(ay_sched_word(cx, j, "time_shift_type", "exponential", types, &type));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "base_shift", -1e9, 1e9, 0.5, &base));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "max_shift", -1e9, 1e9, 1.15, &most));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "base_image_seq_len", 0, 1 << 30, 256, &from));
    AY_TRY(ay_json_int_or(cx, AY_SCHED_FILE, j, "max_image_seq_len", 0, 1 << 30, 4096, &to));
    if (from == to) return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": base_image_seq_len equals max_image_seq_len");
    double slope = (most - base) / (double)(to - from), mu = (s->ask ? (double)s->ask->tokens : 0) * slope + (base - slope * (double)from);
    *shift = type == 1 ? mu : exp(mu);
    return ALLOY_OK;
}

/* Even in the velocity's own time, shifted towards noise. Respaced ones (Karras) are noise over signal, made a share of both. */
static alloy_status flow_sigmas(ay_ctx *cx, ay_sched *s, const json_t *j) {
    int n = s->steps;
    bool dynamic;
    double terminal, shift = s->flow_shift, last = 1;
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, j, "use_dynamic_shifting", false, &dynamic));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, j, "shift_terminal", 0, 1, 0, &terminal));
    if (dynamic) AY_TRY(dynamic_shift(cx, s, j, &shift));
    for (int i = n - 1; i >= 0; i--) { /* from the last, which says how far all are stretched */
        double sigma = s->sigmas[i];
        if (s->karras) {
            sigma = sigma / (sigma + 1);
        } else {
            sigma = shifted(ay_linspace(1, 1 / (double)s->train_steps, n + 1, i), shift);
            if (i == n - 1) last = (1 - sigma) / (1 - terminal);
            if (terminal > 0) sigma = 1 - (1 - sigma) / last;
            if (i == 0 && fabs(sigma - 1) < 1e-6) sigma -= 1e-6; /* some signal, so that its logarithm is a number */
        }
        if (!isfinite(sigma)) return ay_fail(cx, ALLOY_E_MISMATCH, AY_SCHED_FILE ": its settings give no finite noise level for step %d of %d", i + 1, n);
        s->sigmas[i] = (float)sigma;
        s->timesteps[i] = (float)floor(sigma * (double)s->train_steps);
    }
    return ALLOY_OK;
}

static alloy_status begin(ay_ctx *cx, ay_sched *s, const json_t *config) {
    static const char *const solvers[] = {"bh2", "bh1", "midpoint", "heun", "logrho", NULL}; /* others' are read as bh2 */
    const json_t *off = json_object_get(config, "disable_corrector"), *item;
    size_t i;
    bool predict, respaced = s->karras || s->exponential || s->beta;
    int solver;
    AY_TRY(ay_sched_word(cx, config, "solver_type", "bh2", solvers, &solver));
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "predict_x0", true, &predict));
    json_array_foreach(off, i, item) {
        json_int_t at = json_integer_value(item);
        if (!json_is_integer(item) || at < 0 || at > 63) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": disable_corrector lists steps from 0 to 63");
        }
        s->uncorrected |= (uint64_t)1 << at;
    }
    s->bh1 = solver == 1;
    s->noise_form = !predict;
    s->threshold = s->threshold && predict; /* the class limits pictures only */
    bool flow = s->flow_sigmas && (s->karras || !respaced), own = s->flow_sigmas;
    s->flow_sigmas = false; /* by the schedule of betas first; what takes its place comes after */
    AY_TRY(ay_sched_begin_solver(cx, s, config, true));
    s->flow_sigmas = own;
    if (flow) AY_TRY(flow_sigmas(cx, s, config));
    if (s->ends_at_min && (respaced || flow)) s->sigmas[s->steps] = s->sigmas[s->steps - 1];
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
    ay_place to = ay_sched_place(s, from + 1), at = ay_sched_place(s, from);
    float h = to.lambda - at.lambda, hh = s->noise_form ? h : -h, phi = expm1f(hh), k1 = phi / hh - 1, b_h = s->bh1 ? hh : phi, factorial = 1;
    float rk[ORDERS] = {0};
    double r[ORDERS][ORDERS], rho[ORDERS] = {0};
    for (int i = 1; i < order; i++) rk[i - 1] = (ay_sched_place(s, from - i).lambda - at.lambda) / h;
    rk[order - 1] = 1;
    for (int i = 0; i < order; i++) {
        for (int k = 0; k < order; k++) r[i][k] = i == 0 ? 1 : i == 1 ? rk[k] : rk[k] * rk[k];
        rho[i] = k1 * factorial / b_h;
        factorial *= (float)(i + 2);
        k1 = k1 / hh - 1 / factorial;
    }
    if (now ? order == 1 : order == 2) rho[0] = 0.5;
    else solve(now ? order : order - 1, r, rho);
    float keep = s->noise_form ? to.alpha / at.alpha : to.sigma / at.sigma, share = s->noise_form ? to.sigma : to.alpha;
    for (int64_t k = 0; k < s->n; k++) {
        float m0 = m[0][k], bend = now ? (float)rho[order - 1] * (now[k] - m0) : 0;
        for (int i = 1; i < order; i++) bend += (float)rho[i - 1] * ((m[i][k] - m0) / rk[i - 1]);
        x[k] = keep * x[k] - share * phi * m0;
        if (now || order > 1) x[k] -= share * b_h * bend; /* b_h may be infinite at the end, where nothing bends */
    }
}

/* Corrects the sample by the new answer, as if the step before had known it, then predicts the next. */
static void unipc_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng) {
    float *last = s->kept[LAST_SAMPLE], *now = s->kept[NOW];
    size_t bytes = (size_t)s->n * sizeof(float);
    bool corrects = s->n_kept > 0 && i > 0 && !(i <= 64 && s->uncorrected >> (i - 1) & 1);
    ay_sched_convert(s, i, model, sample, now);
    if (corrects) { /* `counter`: the order of the step before */
        unipc_move(s, i - 1, s->counter, s->kept, now, last);
        memcpy(sample, last, bytes);
    }
    memcpy(ay_sched_rotate(s, ORDERS), now, bytes);
    int order = s->lower_order_final ? (int)ay_min_i64(s->order, s->calls - i) : s->order;
    s->counter = (int)ay_min_i64(order, s->n_kept);
    memcpy(last, sample, bytes);
    unipc_move(s, i, s->counter, s->kept, NULL, sample);
}

const ay_sched_row ay_sched_unipc = {.class_name = "UniPCMultistepScheduler",
                                     .name = "unipc",
                                     .label = "UniPC",
                                     .kind = AY_SCHED_NOISE | AY_SCHED_FLOW,
                                     .has = AY_HAS_SPACING | AY_HAS_RESPACE | AY_HAS_FINAL | AY_HAS_ZERO_SNR | AY_HAS_FLOW | AY_HAS_THRESHOLD,
                                     .spacing = "linspace",
                                     .betas = "linear",
                                     .beta_start = 0.0001,
                                     .beta_end = 0.02,
                                     .begin = begin,
                                     .step = unipc_step};
