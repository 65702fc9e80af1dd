/* SPDX-License-Identifier: MIT
 *
 * ControlNets of one file: the original code's names, alone or beside their base model, and diffusers'; the packages are those
 * of the folder.
 */
#include "../support/hashweights.h"
#include "../support/single_case.h"
#include "../support/torch_write.h"
#include "pipe/pipe.h"

#include <string.h>

static const ay_flux_case base15 = {"sd15", false, "sd"};

/* Nets whose configuration the published rules tell from shapes, and those of the pictures, for which it must be a base's. */
typedef struct net {
    const char *name, *golden;
    bool told;
} net;
static const net nets[] = {
    {"net15", "single/net15", true},
    {"netxl", "single/netxl", true},
    {"netbare", "single/netbare", true}, /* without any attention, as the small ones for SDXL */
    {"net-sd15", "tasks/controlnet-sd15", false},
    {"net-sdxl", "tasks/controlnet-sdxl", false},
};
enum { NETS = sizeof nets / sizeof nets[0] };

static const char *make_folder(ay_test *t, const net *x) {
    const char *from = ay_test_golden(t, x->golden), *to = ay_test_path(t, x->name);
    assert_ok(t->cx, ay_mkdirs(t->cx, to));
    assert_ok(t->cx, ay_file_copy(t->cx, ay_test_join(t, from, "config.json"), ay_test_join(t, to, "config.json")));
    assert_ok(t->cx, ay_hash_write(t->cx, ay_test_join(t, from, "manifest.txt"), ay_test_join(t, to, "diffusion_pytorch_model.safetensors")));
    return to;
}

/* The net's tensors behind "control_model.". */
static ay_single_case make_case(ay_test *t, const net *x, int more) {
    return ay_single_make(t, ay_sprintf(t->arena, "control_%s", x->name), ay_test_path(t, ""), more);
}

static alloy_status convert_as(ay_test *t, const char *source, const char *base, const char *name, const char *type) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = name;
    o.base = base;
    o.type = type;
    o.image_size = (alloy_size){64, 48};
    o.controlnet = true;
    o.force = true;
    return alloy_convert(t->cx, source, &o);
}
static alloy_status convert(ay_test *t, const char *source, const char *base, const char *name) { return convert_as(t, source, base, name, NULL); }

static const char *out(ay_test *t, const char *name) { return ay_test_join(t, ay_test_path(t, "out"), name); }

static void same(ay_test *t, const char *file, const char *base) {
    assert_ok(t->cx, convert(t, file, base, "file"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

static void test_same_packages(void **state) {
    ay_test *t = *state;
    static const char prefix[] = "control_model.";
    for (int i = 0; i < NETS; i++) {
        const char *folder = make_folder(t, &nets[i]), *base = nets[i].told ? NULL : folder, *own = ay_test_path(t, "diffusion_pytorch_model.safetensors");
        ay_single_case c = make_case(t, &nets[i], 0);
        assert_ok(t->cx, convert(t, folder, NULL, "folder"));
        same(t, ay_single_write(t, &c, "net.safetensors", "", ""), base);
        same(t, ay_single_write(t, &c, "bare.safetensors", prefix, ""), base);
        assert_ok(t->cx, ay_file_copy(t->cx, ay_test_join(t, folder, "diffusion_pytorch_model.safetensors"), own));
        same(t, own, base);
        const char *pickle = ay_test_path(t, "net.pth");
        ay_torch_write(t, pickle, c.tensors, c.n, i == 1);
        same(t, pickle, base);
    }
}

/* The file that the original code was trained to: the base model's tensors beside the net's. */
static void test_beside_its_base(void **state) {
    ay_test *t = *state;
    const char *sd = ay_flux_checkpoint(t, &base15);
    make_folder(t, &nets[0]);
    ay_single_case all = ay_single_make(t, "sd15", sd, 400), c = make_case(t, &nets[0], 0);
    for (int i = 0; i < c.n; i++) ay_single_add(&all, c.tensors[i].name, c.tensors[i].type, c.tensors[i].data);
    const char *file = ay_single_write(t, &all, "control_sd15.safetensors", "", "");
    assert_ok(t->cx, convert(t, ay_test_path(t, nets[0].name), NULL, "folder"));
    same(t, file, NULL);
    assert_ok(t->cx, convert_as(t, sd, NULL, "folder", NULL)); /* and the model that it stands beside */
    assert_ok(t->cx, convert_as(t, file, sd, "file", "sd"));
    ay_single_same_packages(t, out(t, "folder"), out(t, "file"));
}

static void test_info(void **state) {
    ay_test *t = *state;
    char *text = NULL;
    json_t *j;
    make_folder(t, &nets[1]);
    ay_single_case c = make_case(t, &nets[1], 0);
    assert_ok(t->cx, alloy_info(t->cx, ay_single_write(t, &c, "net.safetensors", "", ""), &text));
    assert_ok(t->cx, ay_json_parse(t->cx, "info", text, strlen(text), &j));
    const json_t *part = json_array_get(json_object_get(j, "components"), 0), *steps = json_object_get(json_object_get(part, "config"), "conditioning_embedding_out_channels");
    assert_string_equal(json_string_value(json_object_get(j, "type")), "controlnet");
    assert_string_equal(json_string_value(json_object_get(part, "naming")), "cldm");
    assert_int_equal(json_array_size(steps), 4);
    assert_int_equal(json_integer_value(json_array_get(steps, 3)), 256);
    json_decref(j);
    alloy_free(text);
}

static void fails(ay_test *t, const char *file, const char *base, alloy_status status, const char *words) {
    assert_int_equal(convert(t, file, base, "bad"), status);
    print_message("%s\n", alloy_error(t->cx));
    assert_contains(alloy_error(t->cx), words);
    assert_int_equal(ay_path_kind_of(out(t, "bad")), AY_PATH_NONE);
}

static ay_single_case without(ay_test *t, const ay_single_case *c, const char *text) {
    ay_single_case some = {ay_alloc(t->arena, (size_t)(c->n + 1) * sizeof *some.tensors), 0};
    for (int i = 0; i < c->n; i++) {
        if (!strstr(c->tensors[i].name, text)) some.tensors[some.n++] = c->tensors[i];
    }
    assert_true(some.n < c->n);
    return some;
}

static void test_what_is_refused(void **state) {
    ay_test *t = *state;
    make_folder(t, &nets[0]);
    ay_single_case c = make_case(t, &nets[0], 1);
    const char *file = ay_single_write(t, &c, "net.safetensors", "", ""), *sd = ay_flux_checkpoint(t, &base15), *other = make_folder(t, &nets[4]);
    size_t bytes;
    fails(t, file, sd, ALLOY_E_MISMATCH, "is a sd model, but");
    assert_ok(t->cx, convert(t, file, other, "file")); /* a net's configuration of other widths says nothing of this one */
    ay_single_case some = without(t, &c, "middle_block.");
    fails(t, ay_single_write(t, &some, "half.safetensors", "", ""), NULL, ALLOY_E_UNSUPPORTED, "begins like ControlNetModel in the names of cldm");
    some = without(t, &c, "zero_convs.1.");
    fails(t, ay_single_write(t, &some, "one.safetensors", "", ""), NULL, ALLOY_E_MISMATCH, "missing: controlnet_down_blocks.1.bias");
    some = without(t, &c, "middle_block_out");
    fails(t, ay_single_write(t, &some, "less.safetensors", "", ""), NULL, ALLOY_E_UNSUPPORTED, "but no \"control_model.middle_block_out.0.weight\"");
    some = without(t, &c, "zero_convs");
    fails(t, ay_single_write(t, &some, "convs.safetensors", "", ""), NULL, ALLOY_E_UNSUPPORTED, "but no \"control_model.zero_convs.0.0.weight\"");
    some = without(t, &c, "input_hint_block");
    fails(t, ay_single_write(t, &some, "hint.safetensors", "control_model.", ""), NULL, ALLOY_E_UNSUPPORTED, "but no \"input_hint_block.0.weight\"");
    char *data = ay_test_read(t, file, &bytes);
    ay_test_write(t, ay_test_path(t, "cut.safetensors"), data, bytes / 2);
    fails(t, ay_test_path(t, "cut.safetensors"), NULL, ALLOY_E_FORMAT, "cut.safetensors");
    float one = 1;
    ay_single_add(&c, "difference", (ay_type){AY_F32, 0, {0}}, &one);
    fails(t, ay_single_write(t, &c, "difference.safetensors", "", ""), NULL, ALLOY_E_UNSUPPORTED, "differences to those of the model");
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_same_packages), AY_TEST(test_beside_its_base), AY_TEST(test_info), AY_TEST(test_what_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
