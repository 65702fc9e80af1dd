/* SPDX-License-Identifier: MIT
 *
 * Bad input to converting and running: each gives one sentence with its status, and leaves nothing half-written.
 */
#include "../support/flux_case.h"
#include "pipe/pipe.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- making things wrong ---------------------------------------------------------------------------------------------- */

static void set_key(ay_test *t, const char *file, const char *key, json_t *value) {
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, file, &j));
    if (value) json_object_set_new(j, key, value);
    else json_object_del(j, key);
    assert_ok(t->cx, ay_json_write(t->cx, file, j));
    json_decref(j);
}

/* The attempt fails as said, in one message without a line break (a list of tensors may follow one), and neither the model
 * folder nor its work in progress is there afterwards. */
static void refuses(ay_test *t, const char *source, const alloy_convert_options *given, alloy_status status, const char *part) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    if (given) o = *given;
    if (!o.output_dir) o.output_dir = ay_test_path(t, "out");
    o.name = "m";
    if (!o.text_length) o.text_length = 8;
    if (!o.image_size.width) o.image_size = (alloy_size){32, 32};
    assert_fails(t->cx, alloy_convert(t->cx, source, &o), status, part);
    assert_int_equal(ay_path_kind_of(ay_test_join(t, o.output_dir, "m")), AY_PATH_NONE);
    assert_int_equal(ay_path_kind_of(ay_test_join(t, o.output_dir, "m.partial")), AY_PATH_NONE);
}

static const char *weights_of(ay_test *t, const char *source) { return ay_test_join(t, source, "transformer/diffusion_pytorch_model.safetensors"); }

static void replace(ay_test *t, const char *path, const char *from, const char *to) {
    size_t n, m = strlen(from);
    char *bytes = ay_test_read(t, path, &n);
    assert_int_equal(m, strlen(to));
    for (size_t i = 0; i + m <= n; i++) {
        if (memcmp(bytes + i, from, m) != 0) continue;
        memcpy(bytes + i, to, m);
        ay_test_write(t, path, bytes, n);
        return;
    }
    fail_msg("%s: no \"%s\" to replace", path, from);
}

/* ---- sources ---------------------------------------------------------------------------------------------------------------- */

static void test_sources_that_are_none(void **state) {
    ay_test *t = *state;
    const char *empty = ay_test_path(t, "empty"), *file = ay_test_path(t, "file.safetensors");
    assert_ok(t->cx, ay_mkdirs(t->cx, empty));
    ay_test_write(t, file, "", 0);
    refuses(t, ay_test_path(t, "absent"), NULL, ALLOY_E_IO, "absent: no such file or folder");
    refuses(t, empty, NULL, ALLOY_E_FORMAT, "model_index.json");
    refuses(t, file, NULL, ALLOY_E_FORMAT, "file.safetensors: is empty");
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *index = ay_test_join(t, source, "model_index.json");
    refuses(t, index, NULL, ALLOY_E_FORMAT, "model_index.json: is text (JSON) without tensors");
    set_key(t, index, "_class_name", json_string("TimeMachinePipeline"));
    refuses(t, source, NULL, ALLOY_E_UNSUPPORTED, "\"TimeMachinePipeline\" is not known; known are: FluxPipeline");
    set_key(t, index, "_class_name", NULL);
    refuses(t, source, NULL, ALLOY_E_MISMATCH, "\"_class_name\" is missing");
    ay_test_write(t, index, "{\"_class_name\": ", 16);
    refuses(t, source, NULL, ALLOY_E_FORMAT, "model_index.json");
}

static void test_damaged_weights(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *path = weights_of(t, source);
    size_t n;
    char *good = ay_test_read(t, path, &n), *bad = malloc(n);
    assert_non_null(bad);
    ay_test_write(t, path, good, 0);
    refuses(t, source, NULL, ALLOY_E_FORMAT, "diffusion_pytorch_model.safetensors");
    ay_test_write(t, path, good, n / 2);
    refuses(t, source, NULL, ALLOY_E_FORMAT, "diffusion_pytorch_model.safetensors");
    ay_test_write(t, path, good, n - 1);
    refuses(t, source, NULL, ALLOY_E_FORMAT, "diffusion_pytorch_model.safetensors");
    memcpy(bad, good, n);
    memset(bad, 0xff, 7); /* a header of 2^56 bytes and more */
    ay_test_write(t, path, bad, n);
    refuses(t, source, NULL, ALLOY_E_FORMAT, "header");
    ay_test_write(t, path, good, n);
    replace(t, path, "\"F32\"", "\"I32\"");
    refuses(t, source, NULL, ALLOY_E_MISMATCH, "wrong dtype");
    ay_test_write(t, path, good, n);
    replace(t, path, "\"F32\"", "\"Q99\"");
    refuses(t, source, NULL, ALLOY_E_UNSUPPORTED, "Q99");
    ay_test_write(t, path, good, n);
    replace(t, path, "proj_out.bias", "proj_out.bios"); /* one missing and one unused, in one message */
    refuses(t, source, NULL, ALLOY_E_MISMATCH, "1 missing, 0 of another shape, 0 of a dtype that holds no weights, 1 unused");
    refuses(t, source, NULL, ALLOY_E_MISMATCH, "proj_out.bios");
    assert_ok(t->cx, ay_remove_tree(t->cx, path));
    refuses(t, source, NULL, ALLOY_E_IO, "no .safetensors file");
    free(bad);
}

static void test_shards(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[2]), *dir = ay_test_join(t, source, "transformer");
    const char *index = ay_test_join(t, dir, "diffusion_pytorch_model.safetensors.index.json");
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.image_size = (alloy_size){64, 64};
    json_t *j, *v;
    const char *name;
    assert_ok(t->cx, ay_json_read(t->cx, index, &j));
    const char *shard = ay_strdup(t->arena, json_string_value(json_object_iter_value(json_object_iter(json_object_get(j, "weight_map")))));
    assert_ok(t->cx, ay_rename(t->cx, ay_test_join(t, dir, shard), ay_test_path(t, "away")));
    refuses(t, source, &o, ALLOY_E_IO, "missing, but");
    assert_ok(t->cx, ay_rename(t->cx, ay_test_path(t, "away"), ay_test_join(t, dir, shard)));
    static const char *const leaving[] = {"../../secret.safetensors", "/etc/passwd", "..", "a.bin"};
    for (int i = 0; i < 4; i++) {
        json_object_foreach(json_object_get(j, "weight_map"), name, v) json_string_set(v, leaving[i]);
        assert_ok(t->cx, ay_json_write(t->cx, index, j));
        refuses(t, source, &o, ALLOY_E_FORMAT, "a shard must be a .safetensors file in the same folder");
    }
    json_decref(j);
}

static void test_configurations(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *config = ay_test_join(t, source, "transformer/config.json");
    size_t n;
    char *good = ay_test_read(t, config, &n);
    static const struct {
        const char *key;
        json_int_t value;
        alloy_status status;
        const char *part;
    } rows[] = {
        {"num_layers", -1, ALLOY_E_MISMATCH, "num_layers"},
        {"num_layers", 1000000000000, ALLOY_E_MISMATCH, "num_layers"},
        {"num_attention_heads", 0, ALLOY_E_MISMATCH, "num_attention_heads"},
        {"attention_head_dim", 1000000000000, ALLOY_E_MISMATCH, "attention_head_dim"},
        {"attention_head_dim", 40, ALLOY_E_MISMATCH, "axes_dims_rope"},
        {"joint_attention_dim", 0, ALLOY_E_MISMATCH, "joint_attention_dim"},
        {"joint_attention_dim", 64, ALLOY_E_MISMATCH, "context_embedder.weight: found float32[64, 48], expected [64, 64]"},
        {"num_layers", 2, ALLOY_E_MISMATCH, "missing: transformer_blocks.1.attn.to_q.weight"},
        {"num_single_layers", 1, ALLOY_E_MISMATCH, "unused: single_transformer_blocks.1.proj_out.weight"},
        {"in_channels", 32, ALLOY_E_MISMATCH, "latent channels"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        set_key(t, config, rows[i].key, json_integer(rows[i].value));
        refuses(t, source, NULL, rows[i].status, rows[i].part);
        ay_test_write(t, config, good, n);
    }
    set_key(t, config, "in_channels", NULL);
    refuses(t, source, NULL, ALLOY_E_MISMATCH, "in_channels");
    ay_test_write(t, config, good, n);
    set_key(t, config, "_class_name", json_string("SomethingElse"));
    refuses(t, source, NULL, ALLOY_E_UNSUPPORTED, "SomethingElse");
    assert_ok(t->cx, ay_remove_tree(t->cx, config));
    refuses(t, source, NULL, ALLOY_E_IO, "config.json");
}

static void test_options(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.quantization = "int3";
    refuses(t, source, &o, ALLOY_E_USAGE, "int3");
    o.quantization = NULL;
    o.target = "macos9";
    refuses(t, source, &o, ALLOY_E_USAGE, "macos9");
    o.target = NULL;
    o.components = "Transformer,Hyperdrive";
    refuses(t, source, &o, ALLOY_E_USAGE, "\"Hyperdrive\" is not one of");
    o.components = NULL;
    o.image_size = (alloy_size){30, 33};
    refuses(t, source, &o, ALLOY_E_USAGE, "multiples of 4, from 4 to 16384; 32x32 fits");
    o.image_size = (alloy_size){32, 32};
    o.text_length = 100000;
    refuses(t, source, &o, ALLOY_E_USAGE, "100000 tokens");
    o.text_length = 8;
    o.type = "sdxl";
    refuses(t, source, &o, ALLOY_E_MISMATCH, "not sdxl");
    o.type = NULL;
    o.output_dir = ay_test_join(t, source, "model_index.json/out"); /* below a file */
    refuses(t, source, &o, ALLOY_E_IO, "model_index.json");
}

/* ---- where it cannot be written ------------------------------------------------------------------------------------------- */

static void test_full_disk(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    struct rlimit old, small = {20000, 20000};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    refuses(t, source, NULL, ALLOY_E_IO, "weight.bin");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
}

static void test_folders_without_permission(void **state) {
    ay_test *t = *state;
    if (geteuid() == 0) ay_test_skip("root may write everywhere");
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *closed = ay_test_path(t, "closed");
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    assert_ok(t->cx, ay_mkdirs(t->cx, closed));
    o.output_dir = closed;
    chmod(closed, 0555);
    refuses(t, source, &o, ALLOY_E_IO, "closed");
    chmod(closed, 0755);
    chmod(ay_test_join(t, source, "vae"), 0);
    refuses(t, source, NULL, ALLOY_E_IO, "vae");
    chmod(ay_test_join(t, source, "vae"), 0755);
}

static void test_existing_folders(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14");
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = ay_path_base(dir);
    o.image_size = (alloy_size){32, 32};
    o.text_length = 8;
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o), ALLOY_E_USAGE, "--force");
    o.force = true;
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_sprintf(t->arena, "%s.partial/rubbish", dir))); /* a killed conversion's */
    assert_ok(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o));
    assert_int_equal(ay_path_kind_of(ay_sprintf(t->arena, "%s.partial", dir)), AY_PATH_NONE);
    int findings;
    assert_ok(t->cx, alloy_validate(t->cx, dir, NULL, NULL, &findings));
    assert_int_equal(findings, 0);
}

/* ---- running ------------------------------------------------------------------------------------------------------------------ */

static void fails_to_run(ay_test *t, const char *dir, const alloy_run_options *o, alloy_status status, const char *part) {
    assert_fails(t->cx, alloy_run(t->cx, dir, o), status, part);
    assert_int_equal(ay_path_kind_of(ay_test_path(t, "p.png")), AY_PATH_NONE);
}

static void test_requests(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14");
    alloy_run_options good, o;
    alloy_run_options_init(&good);
    good.prompt = "a red circle";
    good.output = ay_test_path(t, "p.png");
    good.steps = 1;
    fails_to_run(t, ay_test_path(t, "absent"), &good, ALLOY_E_IO, "no such folder");
    fails_to_run(t, ay_test_path(t, "a"), &good, ALLOY_E_FORMAT, "alloy convert");
    o = good, o.prompt = NULL;
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "--prompt");
    o = good, o.prompt = "a \xff circle";
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "UTF-8");
    o = good, o.image_size = (alloy_size){50, 37};
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "multiples of 4, from 4 to 16384; 52x36 fits");
    o = good, o.steps = 100000;
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "100000 steps");
    o = good, o.num_images = -3;
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "-3 pictures");
    o = good, o.scheduler = "dowsing";
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "dowsing");
    o = good, o.compute_units = "abacus";
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "abacus");
    o = good, o.emulate = "float12";
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "float12");
    o = good, o.negative_prompt = "blur";
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, "negative");
    o = good, o.output = ay_test_path(t, "p.gif");
    fails_to_run(t, dir, &o, ALLOY_E_USAGE, ".png");
    o = good, o.output = ay_test_path(t, "nowhere/p.png");
    fails_to_run(t, dir, &o, ALLOY_E_IO, "nowhere");
    o = good, o.latents = ay_test_path(t, "absent.safetensors");
    fails_to_run(t, dir, &o, ALLOY_E_IO, "absent.safetensors");
    float few[4] = {0};
    ay_tensor latents = {"latents", {AY_F32, 4, {1, 1, 2, 2}}, few};
    o = good, o.latents = ay_test_path(t, "few.safetensors");
    assert_ok(t->cx, ay_st_write(t->cx, o.latents, &latents, 1, NULL));
    fails_to_run(t, dir, &o, ALLOY_E_MISMATCH, "\"latents\" is float32[1, 1, 2, 2], expected float32[1, 4, 16, 16]");
}

static void test_damaged_model_folders(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14"), *manifest = ay_test_join(t, dir, "alloy.json");
    const char *package = ay_test_join(t, dir, "Transformer.mlpackage/Data/com.apple.CoreML");
    const char *weights = ay_test_join(t, package, "weights/weight.bin"), *model = ay_test_join(t, package, "model.mlmodel");
    alloy_run_options o;
    alloy_run_options_init(&o);
    o.prompt = "a red circle";
    o.output = ay_test_path(t, "p.png");
    o.steps = 1;
    size_t n, w, m;
    char *good = ay_test_read(t, manifest, &n), *bytes = ay_test_read(t, weights, &w), *program = ay_test_read(t, model, &m);
    ay_test_write(t, manifest, good, n / 3);
    fails_to_run(t, dir, &o, ALLOY_E_FORMAT, "alloy.json");
    ay_test_write(t, manifest, good, n);
    set_key(t, manifest, "format", json_integer(99));
    fails_to_run(t, dir, &o, ALLOY_E_UNSUPPORTED, "format 99");
    ay_test_write(t, manifest, good, n);
    set_key(t, manifest, "components", NULL);
    fails_to_run(t, dir, &o, ALLOY_E_FORMAT, "components");
    ay_test_write(t, manifest, good, n);
    ay_test_write(t, weights, bytes, w / 2);
    fails_to_run(t, dir, &o, ALLOY_E_FORMAT, "Transformer.mlpackage");
    char *info; /* what was gathered up to there is freed: sanitizers look */
    assert_fails(t->cx, alloy_info(t->cx, dir, &info), ALLOY_E_FORMAT, "Transformer.mlpackage");
    assert_null(info);
    ay_test_write(t, weights, bytes, w);
    ay_test_write(t, model, program, m / 2);
    fails_to_run(t, dir, &o, ALLOY_E_FORMAT, "not a Core ML model");
    ay_test_write(t, model, program, m);
    o.image_size = (alloy_size){48, 32}; /* built anew: the weight table is what binds */
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, manifest, &j));
    json_t *table = json_object_get(json_object_get(json_object_get(j, "components"), "Transformer"), "weights");
    json_object_set_new(json_array_get(table, 0), "offset", json_integer(65));
    assert_ok(t->cx, ay_json_write(t->cx, manifest, j));
    json_decref(j);
    fails_to_run(t, dir, &o, ALLOY_E_FORMAT, "65");
    ay_test_write(t, manifest, good, n);
    replace(t, manifest, "proj_out.bias", "proj_out.bios");
    fails_to_run(t, dir, &o, ALLOY_E_MISMATCH, "has no \"");
    ay_test_write(t, manifest, good, n);
    assert_ok(t->cx, alloy_run(t->cx, dir, &o));
}

static void stop_at_step(void *user, const char *stage, double done, double total) {
    if (strcmp(stage, "steps") == 0 && done < total) alloy_stop(*(alloy_ctx **)user);
}

static void test_stop(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14");
    alloy_ctx *cx;
    alloy_ctx_options co;
    alloy_run_options o;
    alloy_ctx_options_init(&co);
    co.progress = stop_at_step;
    co.user = &cx;
    assert_int_equal(alloy_ctx_open(&co, &cx), ALLOY_OK);
    alloy_run_options_init(&o);
    o.prompt = "a red circle";
    o.output = ay_test_path(t, "p.png");
    o.steps = 4;
    assert_int_equal(alloy_run(cx, dir, &o), ALLOY_E_CANCELLED);
    assert_int_equal(ay_path_kind_of(o.output), AY_PATH_NONE);
    alloy_convert_options v;
    alloy_convert_options_init(&v);
    v.output_dir = ay_test_path(t, "out");
    v.name = "stopped";
    v.image_size = (alloy_size){32, 32};
    v.text_length = 8;
    assert_int_equal(alloy_convert(cx, ay_test_path(t, "a"), &v), ALLOY_E_CANCELLED);
    assert_int_equal(ay_path_kind_of(ay_test_path(t, "out/stopped")), AY_PATH_NONE);
    assert_int_equal(ay_path_kind_of(ay_test_path(t, "out/stopped.partial")), AY_PATH_NONE);
    int findings;
    assert_int_equal(alloy_validate(cx, dir, NULL, NULL, &findings), ALLOY_E_CANCELLED);
    assert_string_equal(alloy_error(cx), "stopped on request");
    alloy_ctx_close(&cx);
}

/* What --force may take the place of, what a name may be, and who is working on what. */
static void test_places(void **state) {
    ay_test *t = *state;
    const char *dir = ay_flux_convert(t, &ay_flux_cases[0], "float16", "macos14"), *letter = ay_test_path(t, "out/precious/letter");
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.image_size = (alloy_size){32, 32};
    o.text_length = 8;
    o.force = true;
    o.name = "precious";
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_test_path(t, "out/precious")));
    ay_test_write(t, letter, "x", 1);
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o), ALLOY_E_USAGE, "is no model folder");
    assert_int_equal(ay_path_kind_of(letter), AY_PATH_FILE);
    o.name = "x.partial";
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o), ALLOY_E_USAGE, ".partial");
    o.name = ay_path_base(dir);
    int lock;
    const char *partial = ay_sprintf(t->arena, "%s.partial", dir);
    assert_ok(t->cx, ay_work_begin(t->cx, partial, &lock)); /* as another process would */
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o), ALLOY_E_IO, "another alloy is writing it");
    assert_int_equal(ay_path_kind_of(partial), AY_PATH_DIR);
    ay_work_end(&lock);
    char *report = NULL;
    o.report = &report;
    assert_ok(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o));
    assert_non_null(strstr(report, ay_path_base(dir)));
    alloy_free(report);
    o.output_dir = "";
    assert_fails(t->cx, alloy_convert(t->cx, ay_test_path(t, "a"), &o), ALLOY_E_USAGE, "no name");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(test_sources_that_are_none),
        AY_TEST(test_damaged_weights),
        AY_TEST(test_shards),
        AY_TEST(test_configurations),
        AY_TEST(test_options),
        AY_TEST(test_full_disk),
        AY_TEST(test_folders_without_permission),
        AY_TEST(test_existing_folders),
        AY_TEST(test_requests),
        AY_TEST(test_damaged_model_folders),
        AY_TEST(test_stop),
        AY_TEST(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
