/* SPDX-License-Identifier: MIT
 *
 * What pipelines share between noise and picture: the first noise, components opened for a request's size and released
 * again, the decoder.
 */
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

/* An object of the report, made when first asked for. */
static json_t *section(ay_stage *x, const char *name) {
    json_t *j = json_object_get(x->r->report, name);
    if (!j) json_object_set_new(x->r->report, name, j = json_object());
    return j;
}

alloy_status ay_stage_open(ay_stage *x, const char *package, ay_component **c) {
    ay_sizes s;
    const ay_model_part *p = ay_model_find(x->m, package);
    if (!p)
        return ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: has no %s; convert the checkpoint again without --components",
                       x->m->dir, package);
    AY_TRY(x->m->row->sizes(x->cx, x->m, p->row, x->r->width, x->r->height, x->text, &s));
    double start = ay_now();
    s.skip = x->skip;
    if (x->batch) s.batch = x->batch;
    const char *controlled = x->m->row->tasks.controlled;
    s.control = x->r->in.control.pixels && controlled && strcmp(controlled, package) == 0;
    AY_TRY(ay_component_open(x->cx, x->m, package, &s, &x->r->exec, c));
    json_object_set_new(section(x, "open_s"), package, json_real(ay_now() - start));
    if (ay_component_peak(*c) > x->peak) x->peak = ay_component_peak(*c);
    return ALLOY_OK;
}

void ay_stage_close(ay_stage *x, const char *package, ay_component **c) {
    if (!*c) return;
    if (x->r->exec.profile) {
        json_object_set_new(section(x, "profile"), package, ay_component_profile(*c));
        json_object_set_new(section(x, "profile_wall_s"), package, json_real(ay_component_wall(*c)));
    }
    if (x->r->exec.emulate_f16 && ay_component_overflows(*c)) {
        ay_log(x->cx, AY_LOG_WARN, "%s: %lld values left half's range", package, (long long)ay_component_overflows(*c));
    }
    ay_component_close(c);
}

alloy_status ay_latents_noise(ay_stage *x, int64_t c, int64_t h, int64_t w, float *noise, ay_rng *rng) {
    const alloy_run_options *o = x->r->o;
    int64_t count = o->num_images, n = count * c * h * w;
    if (!o->latents) {
        ay_rng_normal(rng, noise, (size_t)n);
        return ALLOY_OK;
    }
    ay_safetensors *s = NULL;
    AY_TRY(ay_st_open(x->cx, o->latents, &s));
    const ay_st_tensor *t = ay_st_find(s, "latents");
    ay_type want = ay_shape(t ? t->type.dtype : AY_F32, 4, count, c, h, w);
    alloy_status st = ALLOY_OK;
    char a[160], b[160];
    if (!t) {
        st = ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: has no tensor \"latents\"", o->latents);
    } else if (!ay_type_equal(&t->type, &want) || !ay_dtype_is_float(want.dtype)) {
        st = ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: \"latents\" is %s, expected %s for %dx%d pixels", o->latents,
                     ay_type_text(&t->type, a), ay_type_text(&want, b), x->r->width, x->r->height);
    } else {
        ay_convert_to_f32(t->type.dtype, ay_st_data(s, t), 0, n, noise);
    }
    ay_st_close(&s);
    return st;
}

alloy_status ay_latents_save(ay_stage *x, int64_t c, int64_t h, int64_t w, const float *latents) {
    if (!x->r->o->save_latents) return ALLOY_OK;
    ay_tensor t = {"latents", ay_shape(AY_F32, 4, (int64_t)x->r->o->num_images, c, h, w), (void *)latents};
    return ay_st_write(x->cx, x->r->o->save_latents, &t, 1, NULL);
}

alloy_status ay_latents_decode(ay_stage *x, int64_t c, int64_t h, int64_t w, double scaling, double shift, float *latents) {
    int64_t n = c * h * w, width = x->r->width, height = x->r->height;
    int count = x->r->o->num_images;
    float *planes = malloc((size_t)3 * (size_t)width * (size_t)height * sizeof *planes);
    ay_component *decoder = NULL;
    double start = ay_now();
    alloy_status st = planes ? ay_stage_open(x, "VAEDecoder", &decoder) : ay_nomem(x->cx);
    for (int i = 0; i < count && st == ALLOY_OK; i++) {
        float *z = latents + i * n;
        for (int64_t k = 0; k < n; k++) {
            float v = z[k] / (float)scaling;
            z[k] = v + (float)shift;
        }
        ay_tensor in = {"z", ay_shape(AY_F32, 4, (int64_t)1, c, h, w), z};
        ay_tensor out = {"sample", ay_shape(AY_F32, 4, (int64_t)1, (int64_t)3, height, width), planes};
        ay_image im = {0};
        ay_progress(x->cx, "decode", i, count);
        st = ay_component_run(x->cx, decoder, &in, 1, &out, 1);
        if (st == ALLOY_OK) st = ay_planes_to_image(x->cx, planes, (int)width, (int)height, &im);
        if (st == ALLOY_OK) st = x->r->take(x->r->user, x->cx, i, &im);
        ay_image_free(&im);
    }
    if (st == ALLOY_OK) ay_progress(x->cx, "decode", count, count);
    json_object_set_new(x->r->report, "decode_s", json_real(ay_now() - start));
    ay_stage_close(x, "VAEDecoder", &decoder);
    free(planes);
    return st;
}
