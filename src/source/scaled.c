/* SPDX-License-Identifier: MIT
 *
 * Quantised checkpoints as ComfyUI writes them (comfy/ops.py, comfy/quant_ops.py, QUANTIZATION.md): float8 weights with factors
 * beside them. Older files have a tensor "scaled_fp8" and "X.scale_weight"; newer ones "X.comfy_quant", the bytes of a JSON
 * object that says the format, and "X.weight_scale", or the same objects in the metadata. What stands for activations
 * (scale_input, input_scale) is of no use here.
 */
#include "source/source_internal.h"

#include <stdio.h>
#include <string.h>

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

bool ay_source_beside(const char *name) {
    static const char *const ends[] = {".scale_weight", ".weight_scale", ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (ends_with(name, ends[i])) return true;
    }
    return false;
}

/* The formats whose weights are their numbers times their factors. */
static bool plain_format(const char *format) { return strcmp(format, "float8_e4m3fn") == 0 || strcmp(format, "float8_e5m2") == 0; }

static alloy_status check_format(ay_ctx *cx, const ay_safetensors *f, const char *layer, const json_t *j) {
    const char *format = json_string_value(json_object_get(j, "format"));
    if (format && plain_format(format)) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: the weights of \"%s\" are stored as %s; of ComfyUI's quantised formats float8_e4m3fn and float8_e5m2 are read",
                   f->path, layer, format ? format : "something without a format's name");
}

static alloy_status check_object(ay_ctx *cx, const ay_safetensors *f, const ay_st_tensor *t) {
    json_t *j = NULL;
    if (t->type.dtype != AY_U8 || t->bytes > 65536 || t->stride) {
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: \"%s\" should be a short text of bytes that says how a weight is quantised", f->path, t->name);
    }
    AY_TRY(ay_json_parse(cx, f->path, ay_st_data(f, t), t->bytes, &j));
    char layer[160];
    snprintf(layer, sizeof layer, "%.*s", (int)ay_min_i64((int64_t)(strlen(t->name) - strlen(".comfy_quant")), 150), t->name);
    alloy_status st = check_format(cx, f, layer, j);
    json_decref(j);
    return st;
}

static alloy_status check_metadata(ay_ctx *cx, const ay_safetensors *f) {
    for (const char *const *m = f->metadata; m && m[0]; m += 2) {
        json_t *j = NULL, *v;
        const char *layer;
        alloy_status st = ALLOY_OK;
        if (strcmp(m[0], "_quantization_metadata") != 0) continue;
        AY_TRY(ay_json_parse(cx, f->path, m[1], strlen(m[1]), &j));
        json_object_foreach(json_object_get(j, "layers"), layer, v) {
            if (st == ALLOY_OK) st = check_format(cx, f, layer, v);
        }
        json_decref(j);
        if (st != ALLOY_OK) return st;
    }
    return ALLOY_OK;
}

alloy_status ay_source_check_scaled(ay_ctx *cx, ay_source *s, const ay_safetensors *f) {
    AY_TRY(check_metadata(cx, f));
    for (int i = 0; i < f->n; i++) {
        const char *name = f->tensors[i].name;
        if (ends_with(name, ".comfy_quant")) AY_TRY(check_object(cx, f, &f->tensors[i]));
        s->scaled |= ends_with(name, ".scale_weight") || ends_with(name, ".weight_scale");
    }
    return ALLOY_OK;
}
