/* SPDX-License-Identifier: MIT
 *
 * What the options of a conversion come to: how weights are stored, for which target, in how many sizes.
 */
#include "pipe/convert_part.h"

#include <string.h>

/* What --quantization takes: how each target stores it, and which target it is written for unless one is named. */
static const struct {
    const char *name;
    ay_dtype precision;
    ay_quant_kind kind[2]; /* by ay_target */
    ay_target target;
} quantizations[] = {
    {"float16", AY_F16, {AY_QUANT_NONE, AY_QUANT_NONE}, AY_TARGET_MACOS14},
    {"float32", AY_F32, {AY_QUANT_NONE, AY_QUANT_NONE}, AY_TARGET_MACOS14},
    {"int8", AY_F16, {AY_QUANT_INT8, AY_QUANT_INT8}, AY_TARGET_MACOS14},
    {"int4", AY_F16, {AY_QUANT_PALETTE4, AY_QUANT_INT4}, AY_TARGET_MACOS15},
};
static const struct {
    int bits;
    const char *name;
    ay_quant_kind kind;
} palettes[] = {{4, "palette4", AY_QUANT_PALETTE4}, {6, "palette6", AY_QUANT_PALETTE6}, {8, "palette8", AY_QUANT_PALETTE8}};

static alloy_status check_quantization(ay_ctx *cx, const alloy_convert_options *o, ay_convert_form *v) {
    enum { N = sizeof quantizations / sizeof quantizations[0], P = sizeof palettes / sizeof palettes[0] };
    const char *q = o->quantization ? o->quantization : "float16";
    size_t i = 0, k = 0;
    while (i < N && strcmp(q, quantizations[i].name) != 0) i++;
    if (i == N) return ay_fail(cx, ALLOY_E_USAGE, "quantization \"%s\" is not known; float16, float32, int8 and int4 are", q);
    v->precision = quantizations[i].precision;
    v->quantization = quantizations[i].name;
    v->target = o->palette ? AY_TARGET_MACOS14 : quantizations[i].target;
    if (o->target && strcmp(o->target, "macos15") == 0) v->target = AY_TARGET_MACOS15;
    else if (o->target && strcmp(o->target, "macos14") == 0) v->target = AY_TARGET_MACOS14;
    else if (o->target) return ay_fail(cx, ALLOY_E_USAGE, "target \"%s\" is not known; macos14 and macos15 are", o->target);
    v->kind = quantizations[i].kind[v->target];
    if (!o->palette) return ALLOY_OK;
    if (o->quantization) return ay_fail(cx, ALLOY_E_USAGE, "--palette and --quantization each say how to store weights; give one of them");
    while (k < P && palettes[k].bits != o->palette) k++;
    if (k == P) return ay_fail(cx, ALLOY_E_USAGE, "palettes have 4, 6 or 8 bits, not %d", o->palette);
    v->kind = palettes[k].kind;
    v->quantization = palettes[k].name;
    return ALLOY_OK;
}

/* Several sizes are functions of one package, which macOS 15 brought. */
static alloy_status check_sizes(ay_ctx *cx, const alloy_convert_options *o, ay_convert_form *v) {
    if (o->num_sizes < 0 || o->num_sizes > AY_MAX_SIZES) return ay_fail(cx, ALLOY_E_USAGE, "%d sizes: at most %d can share a package", o->num_sizes, AY_MAX_SIZES);
    for (int i = 0; i < o->num_sizes; i++) {
        if (o->sizes[i].width < 1 || o->sizes[i].height < 1) return ay_fail(cx, ALLOY_E_USAGE, "a size of %dx%d pixels is none", o->sizes[i].width, o->sizes[i].height);
    }
    if (o->num_sizes < 2) return ALLOY_OK;
    if (o->target && v->target < AY_TARGET_MACOS15) {
        return ay_fail(cx, ALLOY_E_USAGE, "several sizes in one package need --target macos15; for macOS 14 convert one size (run makes others from it)");
    }
    v->target = AY_TARGET_MACOS15;
    return ALLOY_OK;
}

alloy_status ay_convert_check(ay_ctx *cx, const alloy_convert_options *o, ay_convert_form *v) {
    AY_TRY(check_quantization(cx, o, v));
    if (o->attention && strcmp(o->attention, "plain") != 0 && strcmp(o->attention, "split-einsum") != 0) {
        return ay_fail(cx, ALLOY_E_USAGE, "attention \"%s\" is not known; plain and split-einsum are", o->attention);
    }
    if (o->image_size.width < 0 || o->image_size.height < 0 || o->text_length < 0 || o->size_limit < 0 || o->max_package_size < 0) {
        return ay_fail(cx, ALLOY_E_USAGE, "sizes cannot be negative");
    }
    return check_sizes(cx, o, v);
}
