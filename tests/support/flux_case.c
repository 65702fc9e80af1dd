/* SPDX-License-Identifier: MIT
 *
 * Small checkpoints for tests, see flux_case.h.
 */
#include "flux_case.h"

#include "hashweights.h"
#include "io/io.h"

#include <string.h>


const ay_flux_case ay_flux_cases[AY_FLUX_CASES] = {{"a", false, NULL}, {"b", false, NULL}, {"c", true, NULL}};
/* ---- the checkpoint ------------------------------------------------------------------------------------------------- */

const char *ay_test_join(ay_test *t, const char *a, const char *b) { return ay_path_join(t->arena, a, b); }

static void copy_file(ay_test *t, const char *from, const char *to, const char *name) {
    assert_ok(t->cx, ay_file_copy(t->cx, ay_test_join(t, from, name), ay_test_join(t, to, name)));
}

static void copy_dir(ay_test *t, const char *from, const char *to) {
    char **names;
    int n;
    assert_ok(t->cx, ay_mkdirs(t->cx, to));
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, from, &names, &n));
    for (int i = 0; i < n; i++) copy_file(t, from, to, names[i]);
}

const char *ay_flux_golden(ay_test *t, const ay_flux_case *c, const char *name) {
    return ay_sprintf(t->arena, "%s/%s/%s", ay_test_golden(t, c->family ? c->family : "flux"), c->name, name);
}

static bool exists(const char *path) { return ay_path_kind_of(path) != AY_PATH_NONE; }

const char *ay_flux_checkpoint(ay_test *t, const ay_flux_case *c) {
    static const char *const parts[] = {"transformer", "unet", "text_encoder", "text_encoder_2", "text_encoder_3", "vae"};
    const char *tokens = ay_test_golden(t, "flux"), *from = ay_flux_golden(t, c, ""), *to = ay_test_path(t, c->name);
    assert_ok(t->cx, ay_mkdirs(t->cx, to));
    copy_file(t, from, to, "model_index.json");
    copy_dir(t, ay_test_join(t, from, "scheduler"), ay_test_join(t, to, "scheduler"));
    copy_dir(t, ay_test_join(t, tokens, "tokenizer"), ay_test_join(t, to, "tokenizer"));
    copy_dir(t, ay_test_join(t, tokens, c->family ? "tokenizer" : "tokenizer_2"), ay_test_join(t, to, "tokenizer_2"));
    if (exists(ay_test_join(t, from, "text_encoder_3"))) copy_dir(t, ay_test_join(t, tokens, "tokenizer_2"), ay_test_join(t, to, "tokenizer_3"));
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const char *stem = strstr(parts[i], "text") ? "model" : "diffusion_pytorch_model", *dir = ay_test_join(t, to, parts[i]);
        const char *manifest = ay_test_join(t, ay_test_join(t, from, parts[i]), "manifest.txt");
        if (!exists(manifest)) continue;
        assert_ok(t->cx, ay_mkdirs(t->cx, dir));
        copy_file(t, ay_test_join(t, from, parts[i]), dir, "config.json");
        if (c->shards) assert_ok(t->cx, ay_hash_write_shards(t->cx, manifest, dir, stem, 40000));
        else assert_ok(t->cx, ay_hash_write(t->cx, manifest, ay_sprintf(t->arena, "%s/%s.safetensors", dir, stem)));
    }
    return to;
}

json_t *ay_flux_pictures(ay_test *t, const ay_flux_case *c) {
    json_t *j;
    assert_ok(t->cx, ay_json_read(t->cx, ay_flux_golden(t, c, "pictures.json"), &j));
    return j;
}

int ay_flux_number(const json_t *j, const char *key) { return (int)json_integer_value(json_object_get(j, key)); }

const char *ay_flux_convert(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target) {
    alloy_convert_options o;
    json_t *j = ay_flux_pictures(t, c);
    alloy_convert_options_init(&o);
    o.output_dir = ay_test_path(t, "out");
    o.name = ay_sprintf(t->arena, "%s-%s-%s", c->name, quantization, target);
    o.quantization = quantization;
    o.target = target;
    o.image_size = (alloy_size){ay_flux_number(j, "width"), ay_flux_number(j, "height")};
    o.text_length = ay_flux_number(j, "text_length");
    json_decref(j);
    const char *checkpoint = ay_flux_checkpoint(t, c);
    assert_ok(t->cx, alloy_convert(t->cx, checkpoint, &o));
    return ay_test_join(t, o.output_dir, o.name);
}
