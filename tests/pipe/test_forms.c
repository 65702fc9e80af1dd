/* SPDX-License-Identifier: MIT
 *
 * Every component of every family in every stored form: written, and nothing found in it. With a folder as argument the
 * models are left there, for coremltools to look at (tests/coreml/check.sh).
 */
#include "../support/flux_case.h"
#include "../support/support.h"

#include <stdio.h>
#include <string.h>

static const ay_flux_case cases[] = {
    {"sd15", false, "sd"}, {"sd2", false, "sd"}, {"sdxl", false, "sd"}, {"medium3", false, "sd3"}, {"medium35", false, "sd3"}, {"large35", false, "sd3"},
    {"refiner", false, "refiner"}, {"inpaint", false, "tasks"},
};
static const struct {
    const char *quantization, *target;
} forms[] = {{"float16", "macos14"}, {"int8", "macos14"}, {"int4", "macos14"}, {"int4", "macos15"}};
enum { CASES = sizeof cases / sizeof cases[0], FORMS = sizeof forms / sizeof forms[0] };

static const char *folder; /* where to leave the models; NULL: nowhere */

static void print_finding(void *user, bool warning, const char *line) {
    if (!warning) print_message("%s\n", line);
}

static void test_forms(void **state) {
    ay_test *t = *state;
    for (int i = 0; i < CASES; i++) {
        const char *checkpoint = ay_flux_checkpoint(t, &cases[i]);
        json_t *j = ay_flux_pictures(t, &cases[i]);
        for (int k = 0; k < FORMS; k++) {
            alloy_convert_options o;
            int findings = 0;
            alloy_convert_options_init(&o);
            o.output_dir = folder ? folder : ay_test_path(t, "out");
            o.name = ay_sprintf(t->arena, "%s-%s-%s", cases[i].name, forms[k].quantization, forms[k].target);
            o.quantization = forms[k].quantization;
            o.target = forms[k].target;
            o.image_size = (alloy_size){ay_flux_number(j, "width"), ay_flux_number(j, "height")};
            o.text_length = ay_flux_number(j, "text_length");
            assert_ok(t->cx, alloy_convert(t->cx, checkpoint, &o));
            assert_ok(t->cx, alloy_validate(t->cx, ay_test_join(t, o.output_dir, o.name), print_finding, NULL, &findings));
            assert_int_equal(findings, 0);
        }
        json_decref(j);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {AY_TEST(test_forms)};
    folder = argc > 1 ? argv[1] : NULL;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
