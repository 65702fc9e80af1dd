/* SPDX-License-Identifier: MIT
 *
 * Noise schedules against diffusers' FlowMatchEulerDiscreteScheduler, as FluxPipeline calls it (tests/reference/flux.py).
 */
#include "../support/support.h"
#include "pipe/pipe.h"

#include <jansson.h>
#include <math.h>

/* Both are float32 numbers; one may be the other's neighbour where a power was taken. */
static void check_numbers(const char *what, size_t row, const json_t *want, const float *got, size_t n) {
    assert_int_equal(json_array_size(want), n);
    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i));
        if (fabs(got[i] - w) > 1.2e-7 * fabs(w)) print_message("row %zu, %s %zu: %.9g, expected %.9g\n", row, what, i, got[i], w);
        assert_true(fabs(got[i] - w) <= 1.2e-7 * fabs(w));
    }
}

static void test_schedules(void **state) {
    ay_test *t = *state;
    json_t *rows, *row;
    size_t i;
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_golden(t, "flux/schedules.json"), &rows));
    assert_true(json_array_size(rows) >= 10);
    json_array_foreach(rows, i, row) {
        ay_flow f = {0};
        int steps = (int)json_integer_value(json_object_get(row, "steps"));
        const ay_flow_ask ask = {json_integer_value(json_object_get(row, "tokens")), .even = true};
        assert_ok(t->cx, ay_flow_schedule(t->cx, t->arena, json_object_get(row, "config"), steps, &ask, &f));
        assert_int_equal(f.steps, steps);
        check_numbers("sigma", i, json_object_get(row, "sigmas"), f.sigmas, (size_t)steps + 1);
        check_numbers("timestep", i, json_object_get(row, "timesteps"), f.timesteps, (size_t)steps);
    }
    json_decref(rows);
}

static const ay_flow_ask even = {64, .even = true};

/* What would give another picture than the reference is refused, not ignored. */
static void test_refused(void **state) {
    ay_test *t = *state;
    static const char *const bad[][2] = {{"{\"scale_factors\": [0.5]}", "scale_factors"},
                                         {"{\"time_shift_type\": \"cubic\"}", "cubic"},
                                         {"{\"use_karras_sigmas\": true, \"use_beta_sigmas\": true}", "only one of"}};
    for (int i = 0; i < 3; i++) {
        ay_flow f;
        json_t *config = json_loads(bad[i][0], 0, NULL);
        assert_int_not_equal(ay_flow_schedule(t->cx, t->arena, config, 4, &even, &f), ALLOY_OK);
        assert_contains(ay_error_text(t->cx), bad[i][1]);
        json_decref(config);
    }
}

/* Where the reference's own arithmetic fails (a negative number's logarithm, 0 / 0), no picture of NaN comes out. */
static void test_no_numbers(void **state) {
    ay_test *t = *state;
    ay_flow f;
    json_t *config = json_pack("{s:b, s:s, s:f, s:i, s:i, s:b}", "use_dynamic_shifting", 1, "time_shift_type", "linear", "base_shift", 0.1,
                               "base_image_seq_len", 16, "max_image_seq_len", 64, "use_exponential_sigmas", 1);
    assert_fails(t->cx, ay_flow_schedule(t->cx, t->arena, config, 3, &(ay_flow_ask){1, .even = true}, &f), ALLOY_E_MISMATCH, "no finite noise level for step 1 of 3");
    assert_ok(t->cx, ay_flow_schedule(t->cx, t->arena, config, 3, &even, &f));
    json_decref(config);
    config = json_pack("{s:f}", "shift_terminal", 0.02);
    assert_fails(t->cx, ay_flow_schedule(t->cx, t->arena, config, 1, &even, &f), ALLOY_E_MISMATCH, "no finite noise level for step 1 of 1");
    json_decref(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_schedules),
        AY_TEST(test_refused),
        AY_TEST(test_no_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
