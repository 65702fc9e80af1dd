/* SPDX-License-Identifier: MIT
 *
 * Schedulers against diffusers' own, over 10, 25 and 50 steps of a model that is a sine (tests/reference/schedulers.py).
 */
#include "../support/support.h"
#include "pipe/sched.h"

#include <math.h>
#include <string.h>

enum { N = 16, EACH = 4 }; /* golden rows hold every fourth number of a sample */

static const char *text_of(const json_t *config, const char *key) {
    const char *s = json_string_value(json_object_get(config, key));
    return s ? s : "";
}

/* The largest relative L2 error of a sample on the way. */
static double trajectory_error(ay_test *t, const json_t *row, int number, int steps, const ay_safetensors *golden) {
    const ay_st_tensor *rows = ay_st_find(golden, ay_sprintf(t->arena, "%d.%d", number, steps));
    const ay_st_tensor *times = ay_st_find(golden, ay_sprintf(t->arena, "%d.%d.t", number, steps));
    assert_non_null(rows);
    assert_non_null(times);
    const float *want = ay_st_data(golden, rows), *want_t = ay_st_data(golden, times);
    ay_sched *s;
    const ay_flow_ask ask = {json_integer_value(json_object_get(row, "tokens")), json_is_true(json_object_get(row, "even"))};
    const char *name = json_string_value(json_object_get(row, "name"));
    assert_ok(t->cx, ay_sched_open(t->cx, t->arena, json_object_get(row, "config"), name, steps, N, &ask, &s));
    assert_int_equal(s->calls, times->type.dim[0]);
    float x[N], seen[N], answer[N];
    double worst = 0;
    ay_rng rng;
    for (int again = 0; again < 2; again++) { /* a second picture starts from nothing */
        ay_rng_seed(&rng, (uint64_t)number);
        ay_rng_normal(&rng, x, N);
        for (int k = 0; k < N; k++) x[k] *= s->init_sigma;
        ay_sched_start(s);
        for (int i = 0; i <= s->calls; i++) {
            double d = 0, w = 0;
            for (int k = 0; k < N / EACH; k++) {
                double v = want[i * (N / EACH) + k];
                d += (x[k * EACH] - v) * (x[k * EACH] - v);
                w += v * v;
            }
            double e = isfinite(d) ? sqrt(d / w) : HUGE_VAL;
            worst = e > worst ? e : worst;
            if (i == s->calls) break;
            if (fabsf(s->timesteps[i] - want_t[i]) > 1e-3f) print_message("call %d: timestep %g, expected %g\n", i, s->timesteps[i], want_t[i]);
            assert_true(fabsf(s->timesteps[i] - want_t[i]) <= 1e-3f);
            ay_sched_scale(s, i, x, seen);
            for (int k = 0; k < N; k++) answer[k] = (float)sin((double)seen[k] + (double)s->timesteps[i] / 1000);
            ay_sched_step(s, i, answer, x, &rng);
        }
    }
    return worst;
}

static void test_trajectories(void **state) {
    ay_test *t = *state;
    static const int steps[] = {10, 25, 50};
    const char *dir = ay_test_golden(t, "schedulers");
    ay_safetensors *golden;
    json_t *cases, *row;
    size_t i;
    double all = 0;
    assert_ok(t->cx, ay_json_read(t->cx, ay_path_join(t->arena, dir, "cases.json"), &cases));
    assert_ok(t->cx, ay_st_open(t->cx, ay_path_join(t->arena, dir, "trajectories.safetensors"), &golden));
    assert_true(json_array_size(cases) >= 60);
    json_array_foreach(cases, i, row) {
        const json_t *config = json_object_get(row, "config");
        double worst = 0;
        for (int k = 0; k < 3; k++) worst = fmax(worst, trajectory_error(t, row, (int)i, steps[k], golden));
        print_message("%2zu %s %s %s: %.1e\n", i, text_of(config, "_class_name"), text_of(config, "prediction_type"),
                      text_of(config, "timestep_spacing"), worst);
        all = fmax(all, worst);
    }
    assert_true(all <= 1e-5);
    ay_st_close(&golden);
    json_decref(cases);
}

/* Every row is found by both its names, for the models it is for; rows that only set one thing set it. */
static void test_names(void **state) {
    ay_test *t = *state;
    int n;
    const ay_sched_row *const *rows = ay_sched_list(&n), *found;
    json_t *flow = json_pack("{s:s}", "_class_name", "FlowMatchEulerDiscreteScheduler"),
           *noise = json_pack("{s:s}", "_class_name", "DDIMScheduler");
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) {
            const json_t *config = k ? flow : noise;
            bool fits = rows[i]->kind & (k ? AY_SCHED_FLOW : AY_SCHED_NOISE), taken = false;
            for (int other = 0; other < n && !fits; other++) { /* by the same name for the other kind */
                taken |= strcmp(rows[other]->name, rows[i]->name) == 0 && rows[other]->kind & (k ? AY_SCHED_FLOW : AY_SCHED_NOISE);
            }
            if (taken) continue;
            assert_int_equal(ay_sched_choose(t->cx, config, rows[i]->name, &found), fits ? ALLOY_OK : ALLOY_E_USAGE);
            if (!fits) continue;
            assert_ptr_equal(found, rows[i]);
            assert_ok(t->cx, ay_sched_choose(t->cx, config, rows[i]->class_name, &found));
            assert_string_equal(found->class_name, rows[i]->class_name);
        }
    }
    ay_sched *s;
    assert_ok(t->cx, ay_sched_open(t->cx, t->arena, noise, "dpmpp_2m_sde_karras", 5, N, NULL, &s));
    assert_true(s->karras && s->sde);
    assert_ok(t->cx, ay_sched_open(t->cx, t->arena, noise, "dpmpp_2m", 5, N, NULL, &s));
    assert_true(!s->karras && !s->sde);
    json_decref(flow);
    json_decref(noise);
}

static void test_what_is_refused(void **state) {
    ay_test *t = *state;
    static const struct {
        const char *config, *words;
        int steps;
    } bad[] = {
        {"{\"_class_name\": \"Dowsing\"}", "Dowsing", 5},
        {"{\"_class_name\": \"EulerDiscreteScheduler\", \"timestep_type\": \"cyclic\"}", "timestep_type", 5},
        {"{\"_class_name\": \"EulerDiscreteScheduler\", \"use_karras_sigmas\": true, \"use_beta_sigmas\": true}", "only one of", 5},
        {"{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"aura\"}", "aura", 5},
        {"{\"_class_name\": \"DDIMScheduler\", \"timestep_spacing\": \"wide\"}", "wide", 5},
        {"{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"round\"}", "round", 5},
        {"{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.1]}", "trained_betas", 5},
        {"{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"flow_prediction\"}", "DDIMScheduler", 5},
        {"{\"_class_name\": \"DDIMScheduler\"}", "1000 steps", 1000},
        {"{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": -3}", "num_train_timesteps", 5},
        {"{\"_class_name\": \"PNDMScheduler\"}", "3 steps", 3},
        {"{\"_class_name\": \"LCMScheduler\"}", "51 steps", 51},
        {"{\"_class_name\": \"TCDScheduler\"}", "51 steps", 51},
        {"{\"_class_name\": \"DPMSolverSinglestepScheduler\", \"algorithm_type\": \"dpmsolver\"}", "sigma_min", 5},
        {"{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"unheard\"}", "unheard", 5},
        {"{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_p\": \"x\"}", "solver_p", 5},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *j = json_loads(bad[i].config, 0, NULL);
        ay_sched *s;
        assert_non_null(j);
        assert_int_not_equal(ay_sched_open(t->cx, t->arena, j, NULL, bad[i].steps, N, NULL, &s), ALLOY_OK);
        assert_contains(alloy_error(t->cx), bad[i].words);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_trajectories),
        AY_TEST(test_names),
        AY_TEST(test_what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
