/* SPDX-License-Identifier: MIT
 *
 * The one list of schedulers, choosing from it, and what the methods share.
 */
#include "pipe/sched.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const ay_sched_row ay_sched_flow_euler, ay_sched_flow_heun, ay_sched_flow_lcm, ay_sched_euler, ay_sched_euler_ancestral,
    ay_sched_heun, ay_sched_ddim, ay_sched_pndm, ay_sched_lcm, ay_sched_tcd, ay_sched_dpm, ay_sched_dpm_karras, ay_sched_dpm_sde,
    ay_sched_dpm_sde_karras, ay_sched_dpm_single, ay_sched_dpm_single_karras, ay_sched_2s_ancestral, ay_sched_2s_ancestral_karras,
    ay_sched_unipc;

static const ay_sched_row *const rows[] = {
    &ay_sched_flow_euler,     &ay_sched_flow_heun,  &ay_sched_flow_lcm,          &ay_sched_euler,        &ay_sched_euler_ancestral,
    &ay_sched_heun,           &ay_sched_ddim,       &ay_sched_pndm,              &ay_sched_dpm,          &ay_sched_dpm_karras,
    &ay_sched_dpm_sde,        &ay_sched_dpm_sde_karras, &ay_sched_dpm_single,    &ay_sched_dpm_single_karras,
    &ay_sched_2s_ancestral,   &ay_sched_2s_ancestral_karras, &ay_sched_unipc,    &ay_sched_lcm,          &ay_sched_tcd,
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

const ay_sched_row *const *ay_sched_list(int *n) {
    *n = N_ROWS;
    return rows;
}

/* ---- choosing --------------------------------------------------------------------------------------------- */

static ay_sched_kind kind_of(const json_t *config) {
    const char *class_name = json_string_value(json_object_get(config, "_class_name"));
    const char *predicts = json_string_value(json_object_get(config, "prediction_type"));
    bool flow = !class_name || strncmp(class_name, "FlowMatch", 9) == 0 || json_is_true(json_object_get(config, "use_flow_sigmas")) ||
                (predicts && strcmp(predicts, "flow_prediction") == 0);
    return flow ? AY_SCHED_FLOW : AY_SCHED_NOISE;
}

alloy_status ay_sched_choose(ay_ctx *cx, const json_t *config, const char *name, const ay_sched_row **out) {
    const char *own = json_string_value(json_object_get(config, "_class_name"));
    if (!own) own = "FlowMatchEulerDiscreteScheduler";
    ay_sched_kind kind = kind_of(config);
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
                                     AY_SCHED_FILE ": scheduler \"%s\" is not known; choose one with --scheduler: %s",
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
    s->flows = kind_of(config) == AY_SCHED_FLOW;
    s->steps = steps;
    s->n = n;
    s->pictures = 1;
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

/* Which form it has follows from what the method keeps: flow matching mixes; methods that scale their sample add sigmas to
 * it; the others keep its variance, by their sigmas, or by the training step where they have none. */
void ay_sched_add_noise(const ay_sched *s, int i, const float *picture, const float *noise, float *out, int64_t n) {
    float keep = 1, add = 0;
    if (s->flows && (s->flow_sigmas || !(s->row->kind & AY_SCHED_NOISE))) {
        add = s->sigmas[i];
        keep = 1.0f - add;
    } else if (s->row->scale) {
        add = s->sigmas[i];
    } else if (s->sigmas) {
        keep = 1 / sqrtf(s->sigmas[i] * s->sigmas[i] + 1);
        add = s->sigmas[i] * keep;
    } else {
        float alpha = s->alphas[(int64_t)s->timesteps[i]];
        keep = sqrtf(alpha);
        add = sqrtf(1 - alpha);
    }
    for (int64_t k = 0; k < n; k++) out[k] = keep * picture[k] + add * noise[k];
}

/* ---- reading settings --------------------------------------------------------------------------------------------- */

alloy_status ay_sched_word(ay_ctx *cx, const json_t *j, const char *key, const char *dflt, const char *const *names, int *out) {
    const char *s;
    ay_buf known = {0};
    AY_TRY(ay_json_str_or(cx, AY_SCHED_FILE, j, key, dflt, &s));
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], s) == 0) {
            *out = i;
            ay_buf_free(&known);
            return ALLOY_OK;
        }
        ay_buf_printf(&known, "%s%s", i ? ", " : "", names[i]);
    }
    alloy_status st = ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": %s \"%s\" is not known here; known are: %s", key, s,
                              known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

/* Null counts as absent. */
alloy_status ay_sched_refuse(ay_ctx *cx, const json_t *j, const char *const *keys) {
    for (; *keys; keys++) {
        const json_t *v = json_object_get(j, *keys);
        if (v && !json_is_null(v) && !json_is_false(v)) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, AY_SCHED_FILE ": %s is not known here; take it out or choose another --scheduler", *keys);
        }
    }
    return ALLOY_OK;
}

alloy_status ay_sched_one_spacing(ay_ctx *cx, bool karras, bool exponential, bool beta) {
    if (karras + exponential + beta <= 1) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_MISMATCH,
                   AY_SCHED_FILE ": only one of use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas can be true");
}

alloy_status ay_sched_read_clip(ay_ctx *cx, ay_sched *s, const json_t *config, bool dflt) {
    double range;
    bool clip;
    AY_TRY(ay_json_bool_or(cx, AY_SCHED_FILE, config, "clip_sample", dflt, &clip));
    AY_TRY(ay_json_num_or(cx, AY_SCHED_FILE, config, "clip_sample_range", 1e-6, 1e6, 1, &range));
    s->clip = clip ? (float)range : 0;
    return ALLOY_OK;
}

/* ---- what is kept between steps ------------------------------------------------------------------------------------- */

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
    if (s->threshold) s->sorted = ay_alloc(s->arena, (size_t)s->n * sizeof(float));
    return !s->threshold || s->sorted ? ALLOY_OK : ay_nomem(cx);
}

float *ay_sched_rotate(ay_sched *s, int count) {
    float *oldest = s->kept[count - 1];
    memmove(s->kept + 1, s->kept, (size_t)(count - 1) * sizeof s->kept[0]);
    if (s->n_kept < count) s->n_kept++;
    return s->kept[0] = oldest;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Dynamic thresholding (Imagen, arXiv 2205.11487): a quantile of the sample's own sizes takes the place of 1. As torch's
 * quantile does it, between neighbours and in float32. */
static void limit_to_quantile(ay_sched *s, float *x, int64_t n) {
    for (int64_t k = 0; k < n; k++) s->sorted[k] = fabsf(x[k]);
    qsort(s->sorted, (size_t)n, sizeof *s->sorted, ascending);
    float rank = s->threshold_ratio * (float)(n - 1), below = floorf(rank), w = rank - below;
    float a = s->sorted[(int64_t)below], b = s->sorted[ay_min_i64((int64_t)ceilf(rank), n - 1)];
    float most = w < 0.5f ? a + w * (b - a) : b - (b - a) * (1 - w);
    if (most < 1) most = 1;
    if (most > s->threshold_most) most = s->threshold_most;
    for (int64_t k = 0; k < n; k++) x[k] = (x[k] < -most ? -most : x[k] > most ? most : x[k]) / most;
}

void ay_sched_limit(ay_sched *s, float *x) {
    int64_t each = s->n / ay_max_i64(s->pictures, 1);
    for (int64_t i = 0; s->threshold && i < s->pictures; i++) limit_to_quantile(s, x + i * each, each);
    if (s->threshold) return;
    for (int64_t k = 0; s->clip > 0 && k < s->n; k++) x[k] = x[k] < -s->clip ? -s->clip : x[k] > s->clip ? s->clip : x[k];
}
