/* SPDX-License-Identifier: MIT
 *
 * What every pipeline's run has in common: the request against the model folder's defaults, token ids, pixels, PNG files
 * with the settings inside them, the report.
 */
#include "pipe/pipe.h"
#include "pipe/sched.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

alloy_status ay_check_compute_units(ay_ctx *cx, const char *units) {
    static const char *const known[] = {"all", "cpu", "gpu", "ane"};
    for (int i = 0; units && i < 4; i++) {
        if (strcmp(units, known[i]) != 0) continue;
        if (i < 2) return ALLOY_OK;
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "compute units \"%s\" need Core ML, which this version does not call; \"cpu\" runs here", units);
    }
    return units ? ay_fail(cx, ALLOY_E_USAGE, "compute units \"%s\" are not known; cpu, gpu, ane and all are", units) : ALLOY_OK;
}

alloy_status ay_check_emulate(ay_ctx *cx, const char *emulate, bool *on) {
    *on = emulate != NULL;
    if (!emulate || strcmp(emulate, "float16") == 0) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_USAGE, "emulation of \"%s\" is not known; float16 is", emulate);
}

alloy_status ay_check_activations(ay_ctx *cx, const char *activations, ay_exec_options *exec) {
    if (!activations) return ALLOY_OK;
    exec->int8_activations = strcmp(activations, "int8") == 0;
    if (exec->int8_activations && exec->emulate_f16)
        return ay_fail(cx, ALLOY_E_USAGE, "emulation computes with float activations; leave \"int8\" out");
    if (exec->int8_activations || strcmp(activations, "float") == 0) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_USAGE, "activations \"%s\" are not known; int8 and float are", activations);
}

alloy_status ay_tokenize(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, ay_arena *arena, int32_t **ids) {
    char *dir = ay_path_join(arena, m->dir, folder);
    ay_tokenizer *t = NULL;
    ay_encode_options o = {.special = true, .max_length = length, .pad = true};
    int32_t *got = NULL;
    int n = 0;
    if (!dir) return ay_nomem(cx);
    AY_TRY(ay_tokenizer_open(cx, dir, &t));
    alloy_status st = ay_tokenizer_encode(cx, t, text, strlen(text), &o, &got, NULL, &n);
    ay_tokenizer_close(&t);
    if (st == ALLOY_OK && n != length) {
        st = ay_fail(cx, ALLOY_E_INTERNAL, "%s: %d tokens where %d were asked for", dir, n, length);
    } else if (st == ALLOY_OK) {
        *ids = ay_alloc(arena, (size_t)length * sizeof **ids);
        if (*ids) memcpy(*ids, got, (size_t)length * sizeof **ids);
        else st = ay_nomem(cx);
    }
    free(got);
    return st;
}

alloy_status ay_planes_to_image(ay_ctx *cx, const float *planes, int width, int height, ay_image *out) {
    size_t n = (size_t)width * (size_t)height;
    *out = (ay_image){width, height, 3, malloc(n * 3)};
    if (!out->pixels) return ay_nomem(cx);
    for (size_t i = 0; i < n * 3; i++) {
        float v = planes[(i % 3) * n + i / 3] / 2 + 0.5f;
        v = v > 0 ? v < 1 ? v : 1 : 0; /* NaN becomes black */
        out->pixels[i] = (uint8_t)lrintf(v * 255.0f);
    }
    return ALLOY_OK;
}

/* ---- pictures to files ---------------------------------------------------------------------------------------------------- */

typedef struct taker {
    const ay_model *m;
    const ay_request *r;
} taker;

/* "fox.png" is "fox-2.png" for the second of several; a %d in the path is filled in instead. */
static char *picture_path(ay_arena *a, const char *output, int index, int count) {
    const char *mark = strstr(output, "%d");
    if (mark) return ay_sprintf(a, "%.*s%d%s", (int)(mark - output), output, index + 1, mark + 2);
    if (count == 1) return ay_strdup(a, output);
    const char *dot = strrchr(ay_path_base(output), '.');
    int stem = dot ? (int)(dot - output) : (int)strlen(output);
    return ay_sprintf(a, "%.*s-%d%s", stem, output, index + 1, dot ? dot : "");
}

/* The text that AUTOMATIC1111's web UI writes under "parameters", which most tools read. */
static char *settings_text(ay_arena *a, const taker *t, int index) {
    const ay_request *r = t->r;
    const char *name = json_string_value(json_object_get(t->m->json, "name"));
    const char *negative = r->o->negative_prompt, *strength = r->in.picture.pixels ? ay_sprintf(a, ", Denoising strength: %g", r->in.strength) : "";
    return ay_sprintf(a, "%s%s%s\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %dx%d%s, Model: %s, Version: alloy %s%s", r->o->prompt,
                      negative && *negative ? "\nNegative prompt: " : "", negative ? negative : "", r->steps,
                      r->sampler, r->guidance_scale, (unsigned long long)r->o->seed, r->width, r->height, strength ? strength : "",
                      name ? name : "", ALLOY_VERSION, r->o->num_images > 1 ? ay_sprintf(a, ", Picture: %d", index + 1) : "");
}

static alloy_status take_picture(void *user, ay_ctx *cx, int index, const ay_image *im) {
    taker *t = user;
    if (!t->r->o->output) return ALLOY_OK;
    ay_arena *a = ay_arena_new();
    if (!a) return ay_nomem(cx);
    char *path = picture_path(a, t->r->o->output, index, t->r->o->num_images), *settings = settings_text(a, t, index);
    const char *text[] = {"parameters", settings, NULL};
    alloy_status st = path && settings ? ay_png_write(cx, path, im, text) : ay_nomem(cx);
    if (st == ALLOY_OK) json_array_append_new(json_object_get(t->r->report, "files"), ay_json_text(path));
    ay_arena_free(a);
    return st;
}

/* ---- the request ------------------------------------------------------------------------------------------------------------- */

static alloy_status fill_request(ay_ctx *cx, const ay_model *m, const alloy_run_options *o, ay_request *r) {
    const json_t *p = json_object_get(m->json, "prediction");
    int64_t steps;
    double guidance;
    const ay_sched_row *sched;
    if (!o->prompt) return ay_fail(cx, ALLOY_E_USAGE, "no prompt: say what the picture should show with --prompt");
    if (o->num_images < 1 || o->num_images > 10000) return ay_fail(cx, ALLOY_E_USAGE, "%d pictures: from 1 to 10000 can be asked for", o->num_images);
    if (o->steps < 0 || o->steps > 4096) return ay_fail(cx, ALLOY_E_USAGE, "%d steps: between 1 and 4096 can be asked for", o->steps);
    if (o->clip_skip < 0) return ay_fail(cx, ALLOY_E_USAGE, "%d layers of the text encoder to skip: from 0 can be asked for", o->clip_skip);
    if (o->clip_skip && !m->row->tasks.clip_skip) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: this pipeline (%s) has no text encoder that --clip-skip could shorten; leave it out", m->dir,
                       m->row->class_name);
    }
    if (o->image_size.width < 0 || o->image_size.height < 0) return ay_fail(cx, ALLOY_E_USAGE, "sizes cannot be negative");
    AY_TRY(ay_sched_choose(cx, m->scheduler, o->scheduler, &sched));
    r->sampler = sched->label;
    if (!isfinite(o->guidance_scale) || o->guidance_scale > 1000) {
        return ay_fail(cx, ALLOY_E_USAGE, "a guidance scale of %g: from 0 to 1000 can be asked for", o->guidance_scale);
    }
    AY_TRY(ay_check_compute_units(cx, o->compute_units));
    AY_TRY(ay_check_emulate(cx, o->emulate, &r->exec.emulate_f16));
    r->exec.int8_activations = !r->exec.emulate_f16;
    AY_TRY(ay_check_activations(cx, o->activations, &r->exec));
    AY_TRY(ay_json_int_or(cx, "alloy.json", p, "steps", 1, 4096, 20, &steps));
    AY_TRY(ay_json_num_or(cx, "alloy.json", p, "guidance_scale", 0, 1000, 0, &guidance));
    r->steps = o->steps ? o->steps : (int)steps;
    r->guidance_scale = o->guidance_scale >= 0 ? o->guidance_scale : guidance;
    r->width = o->image_size.width ? o->image_size.width : m->width;
    r->height = o->image_size.height ? o->image_size.height : m->height;
    r->exec.profile = o->profile;
    if (o->memory_limit < 0) return ay_fail(cx, ALLOY_E_USAGE, "a memory limit cannot be negative");
    r->exec.memory_limit = (size_t)o->memory_limit;
    return ay_inputs_read(cx, m, o, r);
}

/* Asked before the work, so that no picture is made that cannot be kept. */
static alloy_status check_outputs(ay_ctx *cx, const alloy_run_options *o) {
    const char *dot = o->output ? strrchr(ay_path_base(o->output), '.') : NULL;
    if (o->save_latents) AY_TRY(ay_path_check_output(cx, o->save_latents));
    if (!o->output) return ALLOY_OK;
    if (!dot || (strcmp(dot, ".png") != 0 && strcmp(dot, ".PNG") != 0)) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: pictures are written as PNG; give a name that ends in .png", o->output);
    }
    ay_arena *a = ay_arena_new();
    char *first = a ? picture_path(a, o->output, 0, o->num_images) : NULL;
    alloy_status st = first ? ay_path_check_output(cx, first) : ay_nomem(cx);
    ay_arena_free(a);
    return st;
}

/* JSON's integers end at 2^63 here: a larger seed is kept as text, whole. */
static json_t *seed_json(uint64_t seed) {
    char text[32];
    if (seed <= INT64_MAX) return json_integer((json_int_t)seed);
    snprintf(text, sizeof text, "%llu", (unsigned long long)seed);
    return json_string(text);
}

static alloy_status run(ay_ctx *cx, const char *dir, const alloy_run_options *o, bool warm_up) {
    ay_model *m = NULL;
    double start = ay_now();
    AY_TRY(ay_model_open(cx, dir, &m));
    ay_request r = {.o = o, .take = take_picture, .report = json_object(), .exec.warm_up = warm_up};
    taker t = {m, &r};
    r.user = &t;
    alloy_status st = r.report ? fill_request(cx, m, o, &r) : ay_nomem(cx);
    if (st == ALLOY_OK) st = check_outputs(cx, o);
    if (st == ALLOY_OK) {
        json_object_set_new(r.report, "model", ay_json_text(dir));
        json_object_set_new(r.report, "files", json_array());
        json_object_set_new(r.report, "width", json_integer(r.width));
        json_object_set_new(r.report, "height", json_integer(r.height));
        json_object_set_new(r.report, "steps", json_integer(r.steps));
        json_object_set_new(r.report, "seed", seed_json(o->seed));
        json_object_set_new(r.report, "guidance_scale", json_real(r.guidance_scale));
        st = ay_run_fits(cx, m, &r);
        if (st == ALLOY_OK) st = m->row->run(cx, m, &r);
    }
    if (st == ALLOY_OK) {
        json_object_set_new(r.report, "total_s", json_real(ay_now() - start));
        if (o->profile) json_object_set_new(r.report, "ceilings", ay_ceilings_json(cx, 0.6));
        if (o->report) *o->report = json_dumps(r.report, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        if (o->report && !*o->report) st = ay_nomem(cx);
    }
    ay_inputs_free(&r.in);
    json_decref(r.report);
    ay_model_close(&m);
    return st;
}

alloy_status ay_run(ay_ctx *cx, const char *dir, const alloy_run_options *o) { return run(cx, dir, o, false); }
alloy_status ay_run_warm(ay_ctx *cx, const char *dir, const alloy_run_options *o) { return run(cx, dir, o, true); }
