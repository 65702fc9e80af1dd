/* SPDX-License-Identifier: MIT
 *
 * Control nets in a run (diffusers: pipelines/controlnet/pipeline_controlnet.py and pipeline_controlnet_sd_xl.py): one call
 * before each of the denoiser's, between two shares of the steps.
 */
#include "pipe/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What both configurations must have in common for the one's results to fit the other. */
static alloy_status check_base(ay_stage *x, const char *dir, const json_t *net, const json_t *base) {
    static const char *const keys[] = {"cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type",
                                       "projection_class_embeddings_input_dim"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const json_t *a = json_object_get(net, keys[i]), *b = json_object_get(base, keys[i]);
        bool none_a = !a || json_is_null(a), none_b = !b || json_is_null(b);
        if ((none_a && none_b) || (!none_a && !none_b && json_equal((json_t *)a, (json_t *)b))) continue;
        if ((none_a || none_b) && i < 3) continue; /* not said: the published models' value */
        char *ta = none_a ? NULL : json_dumps(a, JSON_ENCODE_ANY | JSON_COMPACT), *tb = none_b ? NULL : json_dumps(b, JSON_ENCODE_ANY | JSON_COMPACT);
        alloy_status st = ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: this ControlNet is for another base model than %s: its %s is %s, the model's is %s", dir,
                                  x->m->dir, keys[i], ta ? ta : "null", tb ? tb : "null");
        free(ta);
        free(tb);
        return st;
    }
    return ALLOY_OK;
}

static alloy_status open_net(ay_stage *x, const ay_model_part *base, const ay_denoiser *d, int64_t text, int batch, ay_control *c) {
    const char *dir = x->r->o->controlnet;
    AY_TRY(ay_model_open(x->cx, dir, &c->m));
    const ay_model_part *p = ay_model_find(c->m, "ControlNet");
    if (!p) {
        return ay_fail(x->cx, ALLOY_E_USAGE, "%s: is a %s model, not a ControlNet; \"alloy convert\" makes one from a ControlNet's folder", dir,
                       c->m->row->type);
    }
    AY_TRY(check_base(x, dir, p->config, base->config));
    ay_sizes s = {.batch = batch, .latent_height = d->height, .latent_width = d->width, .text_length = text};
    AY_TRY(ay_component_open(x->cx, c->m, "ControlNet", &s, &x->r->exec, &c->c));
    if (ay_component_peak(c->c) > x->peak) x->peak = ay_component_peak(c->c);
    int n;
    const ay_tensor *in = ay_component_inputs(c->c, &n);
    for (int i = 0; i < n; i++) {
        if (strcmp(in[i].name, "controlnet_cond") != 0 || (in[i].type.dim[2] == x->r->height && in[i].type.dim[3] == x->r->width)) continue;
        return ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: this ControlNet is for another base model than %s: it reads a picture of %lldx%lld, the model makes %dx%d",
                       dir, x->m->dir, (long long)in[i].type.dim[3], (long long)in[i].type.dim[2], x->r->width, x->r->height);
    }
    return ALLOY_OK;
}

/* "down_block_res_samples_3" is added to what the denoiser calls "down_block_additional_residuals_3". */
static alloy_status prepare_tensors(ay_stage *x, ay_control *c) {
    int n;
    const ay_tensor *out = ay_component_outputs(c->c, &n);
    if (n > AY_CONTROL_MOST) return ay_fail(x->cx, ALLOY_E_UNSUPPORTED, "%s: a ControlNet with %d results", c->m->dir, n);
    for (int i = 0; i < n; i++, c->n++) {
        int number;
        c->out[i] = out[i];
        c->out[i].type.dtype = AY_F32;
        c->out[i].data = calloc((size_t)ay_type_count(&out[i].type), sizeof(float));
        if (!c->out[i].data) return ay_nomem(x->cx);
        c->in[i] = c->out[i];
        if (sscanf(out[i].name, "down_block_res_samples_%d", &number) == 1) {
            c->in[i].name = ay_sprintf(c->m->arena, "down_block_additional_residuals_%d", number);
        } else {
            c->in[i].name = "mid_block_additional_residual";
        }
        if (!c->in[i].name) return ay_nomem(x->cx);
    }
    return ALLOY_OK;
}

alloy_status ay_control_open(ay_stage *x, const ay_model_part *base, const ay_denoiser *d, int64_t text, int batch, ay_control *c) {
    const ay_image *im = &x->r->in.control;
    size_t n = (size_t)im->width * (size_t)im->height;
    *c = (ay_control){.strength = x->r->o->control_strength, .from = x->r->o->control_start, .to = x->r->o->control_end};
    c->batch = batch;
    c->picture = malloc((size_t)batch * 3 * n * sizeof *c->picture);
    if (!c->picture) return ay_nomem(x->cx);
    for (size_t k = 0; k < (size_t)batch * 3 * n; k++) {
        size_t i = k % (3 * n);
        c->picture[k] = (float)im->pixels[(i % n) * 3 + i / n] / 255.0f;
    }
    AY_TRY(open_net(x, base, d, text, batch, c));
    return prepare_tensors(x, c);
}

void ay_control_close(ay_stage *x, ay_control *c) {
    for (int i = 0; i < c->n; i++) free(c->out[i].data);
    if (c->c) ay_stage_close(x, "ControlNet", &c->c);
    ay_model_close(&c->m);
    free(c->picture);
    *c = (ay_control){0};
}

alloy_status ay_control_run(ay_stage *x, ay_control *c, const ay_moment *at, const ay_tensor *inputs, int n) {
    double done = (double)at->index / at->count, next = (double)(at->index + 1) / at->count;
    ay_tensor in[16];
    if (done < c->from || next > c->to || c->strength == 0) {
        for (int i = 0; i < c->n; i++) memset(c->out[i].data, 0, (size_t)ay_type_count(&c->out[i].type) * sizeof(float));
        return ALLOY_OK;
    }
    memcpy(in, inputs, (size_t)n * sizeof *in);
    in[n] = (ay_tensor){"controlnet_cond", ay_shape(AY_F32, 4, (int64_t)c->batch, (int64_t)3, (int64_t)x->r->height, (int64_t)x->r->width), c->picture};
    AY_TRY(ay_component_run(x->cx, c->c, in, n + 1, c->out, c->n));
    float strength = (float)c->strength;
    for (int i = 0; i < c->n && strength != 1; i++) {
        float *v = c->out[i].data;
        for (int64_t k = 0; k < ay_type_count(&c->out[i].type); k++) v[k] *= strength;
    }
    return ALLOY_OK;
}
