/* SPDX-License-Identifier: MIT
 *
 * FLUX.1, text to picture (diffusers: pipelines/flux/pipeline_flux.py): CLIP's pooled vector and T5's sequence condition
 * one transformer call a step; latents are packed two by two into its sequence; no classifier-free guidance, the dev model
 * takes its guidance as a number.
 */
#include "pipe/pipe.h"

#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

static const ay_part_row parts[] = {
    {"TextEncoder", "text_encoder", "", false},
    {"TextEncoder2", "text_encoder_2", "", false},
    {"Transformer", "transformer", "", false},
    {"VAEDecoder", "vae", "decoder", false},
    {"VAEEncoder", "vae", "encoder", false},
    {NULL, NULL, NULL, false},
};
static const char *const tokenizers[] = {"tokenizer", "tokenizer_2", NULL};

/* ---- what the configurations say ----------------------------------------------------------------------------------- */

typedef struct flux_facts {
    int64_t factor;   /* pixels per latent */
    int64_t channels; /* of the latents */
    int64_t clip_length;
    double scaling, shift;
    bool guidance;
} flux_facts;

static alloy_status read_facts(ay_ctx *cx, const ay_model *m, flux_facts *f) {
    const ay_model_part *vae = ay_model_find(m, "VAEDecoder"), *t = ay_model_find(m, "Transformer"), *clip = ay_model_find(m, "TextEncoder");
    if (!vae || !t || !clip) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s is missing; convert the checkpoint again without --components", m->dir ? m->dir : "checkpoint",
                       !vae ? "VAEDecoder" : !t ? "Transformer" : "TextEncoder");
    }
    int64_t in_channels;
    AY_TRY(ay_json_int(cx, "transformer config", t->config, "in_channels", 4, 65536, &in_channels));
    AY_TRY(ay_json_int(cx, "vae config", vae->config, "latent_channels", 1, 65536, &f->channels));
    AY_TRY(ay_json_bool_or(cx, "transformer config", t->config, "guidance_embeds", false, &f->guidance));
    AY_TRY(ay_json_num_or(cx, "vae config", vae->config, "scaling_factor", 1e-9, 1e9, 1.0, &f->scaling));
    AY_TRY(ay_json_num_or(cx, "vae config", vae->config, "shift_factor", -1e9, 1e9, 0.0, &f->shift));
    AY_TRY(ay_json_int_or(cx, "text_encoder config", clip->config, "max_position_embeddings", 1, 1 << 20, 77, &f->clip_length));
    /* prompts are padded and cut to what the tokenizer says, which may be less than the encoder has positions for */
    if (clip->sizes.text_length > 0) f->clip_length = clip->sizes.text_length;
    else if (m->token_limits[0] > 0) f->clip_length = ay_min_i64(f->clip_length, m->token_limits[0]);
    f->factor = (int64_t)1 << (json_array_size(json_object_get(vae->config, "block_out_channels")) - 1);
    if (in_channels != 4 * f->channels) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the transformer takes %lld channels, but the VAE's %lld latent channels pack into %lld",
                       (long long)in_channels, (long long)f->channels, (long long)(4 * f->channels));
    }
    return ALLOY_OK;
}

static alloy_status defaults(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction) {
    flux_facts f;
    AY_TRY(read_facts(cx, m, &f));
    int side = (int)(128 * f.factor); /* diffusers: default_sample_size = 128 latents */
    if (!*w) *w = *h ? *h : side;
    if (!*h) *h = *w;
    if (!*text) {
        *text = f.guidance ? 512 : 256; /* what dev and schnell were trained with (black-forest-labs/flux) */
        if (m->token_limits[1] > 0 && m->token_limits[1] < *text) *text = m->token_limits[1];
    }
    json_object_set_new(prediction, "steps", json_integer(f.guidance ? 28 : 4));
    json_object_set_new(prediction, "guidance_scale", json_real(f.guidance ? 3.5 : 0.0));
    return ALLOY_OK;
}

static alloy_status sizes(ay_ctx *cx, const ay_model *m, const ay_part_row *part, int w, int h, int text, ay_sizes *out) {
    flux_facts f;
    AY_TRY(read_facts(cx, m, &f));
    int64_t unit = 2 * f.factor;
    if (w < unit || h < unit || w % unit || h % unit || w > 16384 || h > 16384) {
        int64_t near_w = ay_min_i64(ay_max_i64((w + unit / 2) / unit, 1) * unit, 16384), near_h = ay_min_i64(ay_max_i64((h + unit / 2) / unit, 1) * unit, 16384);
        return ay_fail(cx, ALLOY_E_USAGE, "%dx%d: width and height must be multiples of %lld, from %lld to 16384; %lldx%lld fits", w, h,
                       (long long)unit, (long long)unit, (long long)near_w, (long long)near_h);
    }
    if (text < 1 || text > 4096) return ay_fail(cx, ALLOY_E_USAGE, "a text length of %d tokens: from 1 to 4096 can be asked for", text);
    *out = (ay_sizes){.batch = 1};
    if (strcmp(part->package, "TextEncoder") == 0) {
        out->text_length = f.clip_length;
    } else if (strcmp(part->package, "TextEncoder2") == 0) {
        out->text_length = text;
    } else {
        out->latent_width = w / f.factor;
        out->latent_height = h / f.factor;
        if (strcmp(part->package, "Transformer") == 0) out->text_length = text;
    }
    return ALLOY_OK;
}

/* ---- latents -------------------------------------------------------------------------------------------------------------- */

/* [C, h, w] to [h/2 * w/2, C * 4] and back (pipeline_flux.py, _pack_latents, _unpack_latents) */
static void pack(const float *latents, int64_t c, int64_t h, int64_t w, float *packed) {
    for (int64_t y = 0; y < h / 2; y++) {
        for (int64_t x = 0; x < w / 2; x++) {
            for (int64_t k = 0; k < c * 4; k++) {
                *packed++ = latents[((k / 4) * h + 2 * y + (k / 2) % 2) * w + 2 * x + k % 2];
            }
        }
    }
}

static void unpack(const float *packed, int64_t c, int64_t h, int64_t w, float *latents) {
    for (int64_t y = 0; y < h / 2; y++) {
        for (int64_t x = 0; x < w / 2; x++) {
            for (int64_t k = 0; k < c * 4; k++) {
                latents[((k / 4) * h + 2 * y + (k / 2) % 2) * w + 2 * x + k % 2] = *packed++;
            }
        }
    }
}

static alloy_status initial_noise(ay_ctx *cx, const ay_request *r, const flux_facts *f, int64_t h, int64_t w, float *noise, int count) {
    size_t n = (size_t)(f->channels * h * w);
    if (!r->o->latents) {
        ay_rng rng;
        ay_rng_seed(&rng, r->o->seed);
        ay_rng_normal(&rng, noise, n * (size_t)count);
        return ALLOY_OK;
    }
    ay_safetensors *s = NULL;
    AY_TRY(ay_st_open(cx, r->o->latents, &s));
    const ay_st_tensor *t = ay_st_find(s, "latents");
    ay_type want = ay_shape(t ? t->type.dtype : AY_F32, 4, (int64_t)count, f->channels, h, w);
    alloy_status st = ALLOY_OK;
    char a[160], b[160];
    if (!t) st = ay_fail(cx, ALLOY_E_MISMATCH, "%s: has no tensor \"latents\"", r->o->latents);
    else if (!ay_type_equal(&t->type, &want) || !ay_dtype_is_float(want.dtype)) {
        st = ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"latents\" is %s, expected %s for %dx%d pixels", r->o->latents, ay_type_text(&t->type, a),
                     ay_type_text(&want, b), r->width, r->height);
    } else {
        ay_convert_to_f32(t->type.dtype, ay_st_data(s, t), 0, (int64_t)n * count, noise);
    }
    ay_st_close(&s);
    return st;
}

/* ---- running ---------------------------------------------------------------------------------------------------------------- */

typedef struct flux_run {
    ay_ctx *cx;
    ay_model *m;
    ay_request *r;
    ay_arena *arena;
    flux_facts f;
    int64_t h, w, tokens, text; /* latents, packed tokens, text tokens */
    int64_t joint_dim, pooled_dim;
    float *embeds, *pooled;     /* [T, joint], [pooled] */
    size_t peak;
} flux_run;

static alloy_status open_part(flux_run *x, const char *package, ay_component **c) {
    ay_sizes s;
    const ay_model_part *p = ay_model_find(x->m, package);
    if (!p) return ay_fail(x->cx, ALLOY_E_MISMATCH, "%s: has no %s; convert the checkpoint again without --components", x->m->dir, package);
    AY_TRY(sizes(x->cx, x->m, p->row, x->r->width, x->r->height, (int)x->text, &s));
    AY_TRY(ay_component_open(x->cx, x->m, package, &s, &x->r->exec, c));
    if (ay_component_peak(*c) > x->peak) x->peak = ay_component_peak(*c);
    return ALLOY_OK;
}

static void close_part(flux_run *x, const char *package, ay_component **c) {
    if (!*c) return;
    if (x->r->exec.profile) {
        json_t *all = json_object_get(x->r->report, "profile");
        if (!all) json_object_set_new(x->r->report, "profile", all = json_object());
        json_object_set_new(all, package, ay_component_profile(*c));
    }
    if (x->r->exec.emulate_f16 && ay_component_overflows(*c)) {
        ay_log(x->cx, AY_LOG_WARN, "%s: %lld values left half's range", package, (long long)ay_component_overflows(*c));
    }
    ay_component_close(c);
}

/* Encoders are opened, used and released one after another, before the denoiser loads. */
static alloy_status encode(flux_run *x, const char *package, const char *tokenizer, int64_t length, const char *output, ay_type type, float **out) {
    int32_t *ids;
    ay_component *c = NULL;
    AY_TRY(ay_tokenize(x->cx, x->m, tokenizer, x->r->o->prompt, (int)length, x->arena, &ids));
    *out = ay_alloc(x->arena, ay_dtype_bytes(AY_F32, ay_type_count(&type)));
    if (!*out) return ay_nomem(x->cx);
    alloy_status st = open_part(x, package, &c);
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, length), ids}, result = {output, type, *out};
    if (st == ALLOY_OK) st = ay_component_run(x->cx, c, &in, 1, &result, 1);
    close_part(x, package, &c);
    return st;
}

static alloy_status encode_prompt(flux_run *x) {
    double start = ay_now();
    ay_progress(x->cx, "text", 0, 2);
    AY_TRY(encode(x, "TextEncoder", "tokenizer", x->f.clip_length, "pooler_output", ay_shape(AY_F32, 2, (int64_t)1, x->pooled_dim), &x->pooled));
    ay_progress(x->cx, "text", 1, 2);
    AY_TRY(encode(x, "TextEncoder2", "tokenizer_2", x->text, "last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, x->text, x->joint_dim),
                  &x->embeds));
    ay_progress(x->cx, "text", 2, 2);
    json_object_set_new(x->r->report, "encode_s", json_real(ay_now() - start));
    return ALLOY_OK;
}

typedef struct flux_loop {
    ay_flow flow;
    float *img_ids, *txt_ids, *velocity;
    ay_tensor in[7];
    int n_in;
    float timestep, guidance;
} flux_loop;

static alloy_status prepare_loop(flux_run *x, flux_loop *l) {
    AY_TRY(ay_flow_schedule(x->cx, x->arena, x->m->scheduler, x->r->steps, x->tokens, &l->flow));
    l->img_ids = ay_alloc(x->arena, (size_t)(x->tokens * 3) * sizeof(float));
    l->txt_ids = ay_alloc(x->arena, (size_t)(x->text * 3) * sizeof(float));
    l->velocity = ay_alloc(x->arena, (size_t)(x->tokens * 4 * x->f.channels) * sizeof(float));
    if (!l->img_ids || !l->txt_ids || !l->velocity) return ay_nomem(x->cx);
    for (int64_t i = 0; i < x->tokens; i++) {
        l->img_ids[3 * i + 1] = (float)(i / (x->w / 2));
        l->img_ids[3 * i + 2] = (float)(i % (x->w / 2));
    }
    l->guidance = (float)x->r->guidance_scale;
    ay_tensor in[] = {
        {"hidden_states", ay_shape(AY_F32, 3, (int64_t)1, x->tokens, 4 * x->f.channels), NULL},
        {"encoder_hidden_states", ay_shape(AY_F32, 3, (int64_t)1, x->text, x->joint_dim), x->embeds},
        {"pooled_projections", ay_shape(AY_F32, 2, (int64_t)1, x->pooled_dim), x->pooled},
        {"timestep", ay_shape(AY_F32, 1, (int64_t)1), &l->timestep},
        {"img_ids", ay_shape(AY_F32, 2, x->tokens, (int64_t)3), l->img_ids},
        {"txt_ids", ay_shape(AY_F32, 2, x->text, (int64_t)3), l->txt_ids},
        {"guidance", ay_shape(AY_F32, 1, (int64_t)1), &l->guidance},
    };
    memcpy(l->in, in, sizeof in);
    l->n_in = x->f.guidance ? 7 : 6;
    return ALLOY_OK;
}

/* packed [S, C * 4], in place */
static alloy_status denoise(flux_run *x, flux_loop *l, ay_component *c, float *packed, int picture) {
    json_t *times = json_object_get(x->r->report, "steps_s");
    int64_t n = x->tokens * 4 * x->f.channels;
    l->in[0].data = packed;
    for (int i = 0; i < l->flow.steps; i++) {
        double start = ay_now();
        ay_tensor out = {"sample", l->in[0].type, l->velocity};
        l->timestep = l->flow.timesteps[i] / 1000.0f;
        AY_TRY(ay_component_run(x->cx, c, l->in, l->n_in, &out, 1));
        ay_flow_step(&l->flow, i, l->velocity, packed, n);
        json_array_append_new(times, json_real(ay_now() - start));
        ay_progress(x->cx, "steps", picture * l->flow.steps + i + 1, (double)l->flow.steps * x->r->o->num_images);
    }
    return ALLOY_OK;
}

static alloy_status save_latents(flux_run *x, const float *latents, int count) {
    if (!x->r->o->save_latents) return ALLOY_OK;
    ay_tensor t = {"latents", ay_shape(AY_F32, 4, (int64_t)count, x->f.channels, x->h, x->w), (void *)latents};
    return ay_st_write(x->cx, x->r->o->save_latents, &t, 1, NULL);
}

static alloy_status decode(flux_run *x, float *latents, int count) {
    int64_t n = x->f.channels * x->h * x->w;
    float *planes = malloc((size_t)3 * (size_t)x->r->width * (size_t)x->r->height * sizeof *planes);
    ay_component *c = NULL;
    double start = ay_now();
    alloy_status st = planes ? open_part(x, "VAEDecoder", &c) : ay_nomem(x->cx);
    for (int i = 0; i < count && st == ALLOY_OK; i++) {
        float *z = latents + i * n;
        float scaling = (float)x->f.scaling, shift = (float)x->f.shift;
        for (int64_t k = 0; k < n; k++) {
            float v = z[k] / scaling;
            z[k] = v + shift;
        }
        ay_tensor in = {"z", ay_shape(AY_F32, 4, (int64_t)1, x->f.channels, x->h, x->w), z};
        ay_tensor out = {"sample", ay_shape(AY_F32, 4, (int64_t)1, (int64_t)3, (int64_t)x->r->height, (int64_t)x->r->width), planes};
        ay_image im = {0};
        ay_progress(x->cx, "decode", i, count);
        st = ay_component_run(x->cx, c, &in, 1, &out, 1);
        if (st == ALLOY_OK) st = ay_planes_to_image(x->cx, planes, x->r->width, x->r->height, &im);
        if (st == ALLOY_OK) st = x->r->take(x->r->user, x->cx, i, &im);
        ay_image_free(&im);
    }
    if (st == ALLOY_OK) ay_progress(x->cx, "decode", count, count);
    json_object_set_new(x->r->report, "decode_s", json_real(ay_now() - start));
    close_part(x, "VAEDecoder", &c);
    free(planes);
    return st;
}

static alloy_status pictures(flux_run *x) {
    int count = x->r->o->num_images;
    int64_t n = x->f.channels * x->h * x->w;
    float *latents = malloc((size_t)(n * count) * sizeof *latents), *packed = malloc((size_t)n * sizeof *packed);
    flux_loop l = {0};
    ay_component *c = NULL;
    alloy_status st = latents && packed ? ALLOY_OK : ay_nomem(x->cx);
    if (st == ALLOY_OK) st = initial_noise(x->cx, x->r, &x->f, x->h, x->w, latents, count);
    if (st == ALLOY_OK) st = prepare_loop(x, &l);
    if (st == ALLOY_OK) st = open_part(x, "Transformer", &c);
    json_object_set_new(x->r->report, "steps_s", json_array());
    for (int i = 0; i < count && st == ALLOY_OK; i++) {
        pack(latents + i * n, x->f.channels, x->h, x->w, packed);
        st = denoise(x, &l, c, packed, i);
        unpack(packed, x->f.channels, x->h, x->w, latents + i * n);
    }
    close_part(x, "Transformer", &c);
    if (st == ALLOY_OK) st = save_latents(x, latents, count);
    if (st == ALLOY_OK) st = decode(x, latents, count);
    free(latents);
    free(packed);
    return st;
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    flux_run x = {.cx = cx, .m = m, .r = r, .text = m->text_length};
    ay_sizes s;
    const ay_model_part *t = ay_model_find(m, "Transformer");
    if (r->o->negative_prompt && *r->o->negative_prompt) {
        return ay_fail(cx, ALLOY_E_USAGE, "this model has no negative prompt; leave it out");
    }
    AY_TRY(read_facts(cx, m, &x.f));
    AY_TRY(sizes(cx, m, t->row, r->width, r->height, m->text_length, &s));
    AY_TRY(ay_json_int(cx, "transformer config", t->config, "joint_attention_dim", 1, 1 << 20, &x.joint_dim));
    AY_TRY(ay_json_int(cx, "transformer config", t->config, "pooled_projection_dim", 1, 1 << 20, &x.pooled_dim));
    x.h = s.latent_height;
    x.w = s.latent_width;
    x.tokens = (x.h / 2) * (x.w / 2);
    x.arena = ay_arena_new();
    alloy_status st = x.arena ? encode_prompt(&x) : ay_nomem(cx);
    if (st == ALLOY_OK) st = pictures(&x);
    json_object_set_new(r->report, "peak_bytes", json_integer((json_int_t)x.peak));
    ay_arena_free(x.arena);
    return st;
}

const ay_pipe_row ay_pipe_flux = {
    .class_name = "FluxPipeline",
    .type = "flux",
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
};
