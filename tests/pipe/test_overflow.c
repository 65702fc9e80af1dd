/* SPDX-License-Identifier: MIT
 *
 * Half precision's range: a T5 encoder whose feed-forward passes 65504 overflows when everything is typed float16, and is
 * right when the architecture's rules keep what they keep. (That its float32 form is right, test_flux.c shows.)
 */
#include "../support/flux_case.h"
#include "../support/hashweights.h"
#include "pass/pass.h"
#include "pipe/pipe.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 24, DIM = 48 };

static ay_graph *t5_graph(ay_test *t, const ay_arch **arch) {
    json_t *config;
    void *cfg;
    ay_sizes s = {.text_length = TOKENS};
    assert_ok(t->cx, ay_json_read(t->cx, ay_test_golden(t, "flux/a/text_encoder_2/config.json"), &config));
    *arch = ay_arch_find("T5EncoderModel", "");
    assert_ok(t->cx, (*arch)->configure(t->cx, t->arena, "config", config, &cfg));
    json_decref(config);
    ay_graph *g = ay_graph_new(t->cx);
    (*arch)->build(g, cfg, &s);
    assert_ok(t->cx, ay_graph_status(g));
    static const ay_gain gains[] = {{"*.wi_0.weight", 400}, {"*.wi_1.weight", 400}, {"*.wo.weight", 2}, {"shared.weight", 7}};
    for (int i = 0; i < g->n_nodes; i++) {
        ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        int64_t count = ay_type_count(&n->type);
        float *w = ay_alloc(t->arena, (size_t)count * sizeof *w);
        assert_non_null(w);
        ay_hash_values(n->name, &n->type, gains, 4, 0, count, w);
        n->weight->data = w;
    }
    return g;
}

/* Emulated on the engine; the relative error against `want`, overflows in *overflows. */
static double emulated(ay_test *t, const ay_graph *g, const ay_tensor *in, const float *want, int64_t *overflows) {
    static float got[TOKENS * DIM];
    ay_compile_opts o = {.emulate_f16 = true};
    ay_program *p;
    ay_tensor out = {"last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, (int64_t)TOKENS, (int64_t)DIM), got};
    assert_ok(t->cx, ay_cpu_compile(t->cx, g, &o, &p));
    assert_ok(t->cx, ay_program_run(t->cx, p, in, 1, &out, 1));
    *overflows = ay_program_overflows(p);
    ay_program_free(&p);
    double d = 0, w = 0;
    for (int i = 0; i < TOKENS * DIM; i++) {
        d += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        w += (double)want[i] * want[i];
    }
    return isfinite(d) ? sqrt(d / w) : HUGE_VAL;
}

static void test_feed_forward(void **state) {
    ay_test *t = *state;
    const ay_arch *arch;
    ay_graph *full = t5_graph(t, &arch), *plain = t5_graph(t, &arch), *ruled = t5_graph(t, &arch);
    int32_t ids[TOKENS];
    static float want[TOKENS * DIM];
    for (int i = 0; i < TOKENS; i++) ids[i] = (i * 37 + 5) % 100;
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, (int64_t)TOKENS), ids};
    ay_tensor out = {"last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, (int64_t)TOKENS, (int64_t)DIM), want};
    assert_ok(t->cx, ay_eval(full, &in, 1, &out, 1, false, NULL));

    ay_precision none = {0};
    assert_ok(t->cx, ay_pass_precision(plain, &none));
    ay_precision_rule rules[32] = {{0}};
    for (int i = 0; arch->keep[i].scope; i++) {
        rules[i] = (ay_precision_rule){arch->keep[i].scope, arch->keep[i].op, arch->keep[i].dtype, arch->keep[i].reason};
    }
    ay_precision how = {.rules = rules};
    assert_ok(t->cx, ay_pass_precision(ruled, &how));

    int64_t over_plain, over_ruled;
    double e_plain = emulated(t, plain, &in, want, &over_plain), e_ruled = emulated(t, ruled, &in, want, &over_ruled);
    print_message("all float16: %lld overflows, error %.2e; by the rules: %lld, error %.2e\n", (long long)over_plain, e_plain,
                  (long long)over_ruled, e_ruled);
    assert_true(over_plain > 0 && e_plain > 0.1);
    assert_true(over_ruled == 0 && e_ruled < 1e-2);
    ay_graph_free(full);
    ay_graph_free(plain);
    ay_graph_free(ruled);
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_feed_forward)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
