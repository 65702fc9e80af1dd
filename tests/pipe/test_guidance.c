/* SPDX-License-Identifier: MIT
 *
 * Classifier-free guidance in one call and in two: the same numbers, each where it is meant to be. What is right of either
 * is told by the families' own tests against diffusers, whose small pictures take one call.
 */
#include "../support/flux_case.h"
#include "../support/support.h"
#include "pipe/guidance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the denoisers, for two pictures and for one ----------------------------------------------------------------------- */

static void fill(ay_tensor *t, uint64_t *seed) {
    t->type.dtype = AY_F32;
    for (int64_t i = 0; i < ay_type_count(&t->type); i++) {
        ((float *)t->data)[i] = t->type.rank == 1 ? 500.0f : ay_test_uniform(seed);
    }
}

/* Two different pictures in one call against each by itself. */
static void same_for_two(ay_test *t, const ay_flux_case *c, const char *package) {
    const char *dir = ay_flux_convert(t, c, "float32", "macos14");
    ay_component *k[2];
    ay_tensor in[16], out, one[16];
    uint64_t seed = 7;
    ay_model *m;
    int n, n_out;
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    for (int i = 0; i < 2; i++) {
        ay_sizes s = ay_model_find(m, package)->sizes;
        s.batch = i + 1;
        assert_ok(t->cx, ay_component_rebuild(t->cx, m, package, &s, NULL, &k[i]));
    }
    const ay_tensor *ins = ay_component_inputs(k[1], &n);
    for (int i = 0; i < n; i++) {
        in[i] = ins[i];
        in[i].data = ay_alloc(t->arena, (size_t)ay_type_count(&in[i].type) * sizeof(float));
        fill(&in[i], &seed);
    }
    out = ay_component_outputs(k[1], &n_out)[0];
    out.type.dtype = AY_F32;
    int64_t half = ay_type_count(&out.type) / 2;
    float *both = ay_alloc(t->arena, (size_t)(2 * half) * sizeof *both), *alone = ay_alloc(t->arena, (size_t)half * sizeof *alone);
    out.data = both;
    assert_ok(t->cx, ay_component_run(t->cx, k[1], in, n, &out, 1));
    for (int which = 0; which < 2; which++) {
        double d = 0, w = 0;
        for (int i = 0; i < n; i++) {
            one[i] = in[i];
            one[i].type.dim[0] = 1;
            one[i].data = (float *)in[i].data + which * ay_type_count(&one[i].type);
        }
        out.type.dim[0] = 1;
        out.data = alone;
        assert_ok(t->cx, ay_component_run(t->cx, k[0], one, n, &out, 1));
        for (int64_t i = 0; i < half; i++) {
            d += pow((double)both[which * half + i] - alone[i], 2);
            w += pow((double)alone[i], 2);
        }
        print_message("%s: picture %d of two %.1e from itself alone\n", c->name, which, sqrt(d / w));
        assert_true(w > 0 && d <= 1e-10 * w);
    }
    for (int i = 0; i < 2; i++) ay_component_close(&k[i]);
    ay_model_close(&m);
}

static void test_one_call_is_two(void **state) {
    static const ay_flux_case sd = {"sd15", false, "sd"}, xl = {"sdxl", false, "sd"}, sd3 = {"medium35", true, "sd3"};
    same_for_two(*state, &sd, "UNet");
    same_for_two(*state, &xl, "UNet");
    same_for_two(*state, &sd3, "Transformer");
}

/* ---- what is made of two answers ----------------------------------------------------------------------------------------- */

typedef struct fake {
    int calls;
    const float *want;
} fake;

/* Answers the sample for the prompt, ten times that for the negative prompt. */
static alloy_status answer(void *user, const ay_moment *at, int which, int count, float *out) {
    fake *f = user;
    for (int i = 0; i < 3 * count; i++) {
        assert_true(at->sample[i] == f->want[i % 3]);
        out[i] = at->sample[i] * (which + i / 3 ? 10.0f : 1.0f);
    }
    f->calls++;
    return ALLOY_OK;
}

static void test_answers(void **state) {
    static const float sample[3] = {1, -2, 0.5f};
    for (int count = 1; count <= 2; count++) {
        float guess[6], doubled[6], out[3];
        fake f = {0, sample};
        ay_guidance g = {.guided = true, .scale = 3, .n = 3, .seen = 3, .call = answer, .user = &f, .count = count, .guess = guess, .sample = doubled};
        const ay_moment at = {0, 1, 500, sample};
        assert_int_equal(ay_guidance_predict(&g, &at, out), ALLOY_OK);
        assert_int_equal(f.calls, 3 - count);
        for (int i = 0; i < 3; i++) assert_true(out[i] == 10 * sample[i] + 3 * (sample[i] - 10 * sample[i]));
        g.guided = false;
        assert_int_equal(ay_guidance_predict(&g, &at, out), ALLOY_OK);
        assert_int_equal(f.calls, 4 - count);
        assert_memory_equal(out, sample, sizeof sample);
    }
}

/* ---- which of both a run takes ------------------------------------------------------------------------------------------- */

/* Calls for both prompts as the report says them; 0: there is no guidance. */
static int prompts_a_call(ay_test *t, const char *dir, int side, double guidance, const char *emulate) {
    char *report = NULL;
    alloy_run_options o;
    alloy_run_options_init(&o);
    o.prompt = "a fox";
    o.image_size = (alloy_size){side, 32};
    o.steps = 1;
    o.guidance_scale = guidance;
    o.emulate = emulate;
    o.report = &report;
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
    json_t *j = json_loads(report, 0, NULL);
    int n = (int)json_integer_value(json_object_get(j, "prompts_a_call"));
    json_decref(j);
    alloy_free(report);
    return n;
}

static void test_choice(void **state) {
    ay_test *t = *state;
    static const ay_flux_case c = {"sd15", false, "sd"};
    const char *dir = ay_flux_convert(t, &c, "float16", "macos14");
    ay_model *m;
    ay_sizes s;
    assert_ok(t->cx, ay_model_open(t->cx, dir, &m));
    assert_ok(t->cx, m->row->sizes(t->cx, m, ay_model_find(m, "UNet")->row, 512, 512, 16, &s));
    int factor = 512 / (int)s.latent_width, most = 32 * 32 / (32 / factor) * factor; /* pixels a side beside 32 */
    ay_model_close(&m);
    assert_int_equal(prompts_a_call(t, dir, 32, 5, NULL), 2);
    assert_int_equal(prompts_a_call(t, dir, most, 5, NULL), 2);
    assert_int_equal(prompts_a_call(t, dir, most + 32, 5, NULL), 1);
    assert_int_equal(prompts_a_call(t, dir, 32, 1, NULL), 0);
    assert_int_equal(prompts_a_call(t, dir, 32, 5, "float16"), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_one_call_is_two), AY_TEST(test_answers), AY_TEST(test_choice)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
