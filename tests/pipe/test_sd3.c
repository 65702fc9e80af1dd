/* SPDX-License-Identifier: MIT
 *
 * Stable Diffusion 3 and 3.5 from a checkpoint folder to pixels, against diffusers (tests/reference/sd3.py).
 */
#include "../support/flux_case.h"
#include "../support/support.h"

#include <stdlib.h>
#include <string.h>

static const ay_flux_case cases[] = {{"medium3", false, "sd3"}, {"medium35", true, "sd3"}, {"large35", false, "sd3"}};
enum { CASES = 3 };

static void test_components_float32(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float32", "macos14", false, 1e-5);
}
static void test_components_float16(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float16", "macos14", false, 3e-3);
}
static void test_components_emulated(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_components(*state, &cases[i], "float16", "macos14", true, 1e-2);
}
static void test_pictures_float32(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_pictures(*state, &cases[i], "float32", NULL, 55);
}
static void test_pictures_float16(void **state) {
    for (int i = 0; i < CASES; i++) ay_check_pictures(*state, &cases[i], "float16", NULL, 40);
}

/* Queries and keys so large that their products leave half's range: kept in float32 where they are not normalised, nothing
 * overflows; without the rule much does. */
static void test_large_attention(void **state) {
    static const ay_keep_rule none[] = {{NULL, AY_OP_COUNT, AY_NONE, NULL}};
    static const char *const louder[] = {"*attn.to_q.weight", "*attn.to_k.weight", "*attn.add_q_proj.weight", "*attn.add_k_proj.weight", NULL};
    ay_test *t = *state;
    const char *dir = ay_flux_checkpoint(t, &cases[0]);
    ay_hash_louder(t, &cases[0], dir, "transformer", louder, 300);
    ay_check_overflows(t, dir, "Transformer", none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_components_float32), AY_TEST(test_components_float16), AY_TEST(test_components_emulated),
        AY_TEST(test_pictures_float32),   AY_TEST(test_pictures_float16),
        AY_TEST(test_large_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
