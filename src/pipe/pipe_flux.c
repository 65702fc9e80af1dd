/* SPDX-License-Identifier: MIT
 *
 * FLUX.1 (diffusers: pipelines/flux/pipeline_flux.py): CLIP's pooled vector and T5's sequence condition
 * one transformer call a step; latents are packed two by two into its sequence; no classifier-free guidance, the dev model
 * takes its guidance as a number.
 */
#include "pipe/denoise.h"
#include "pipe/prompt.h"

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
static const char *const also[] = {"FluxImg2ImgPipeline", "FluxInpaintPipeline", NULL};
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

static alloy_status unit(ay_ctx *cx, const ay_model *m, int64_t *out) {
    flux_facts f;
    AY_TRY(read_facts(cx, m, &f));
    *out = 2 * f.factor;
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
static void pack(const ay_denoiser *d, const float *latents, float *packed) {
    int64_t c = d->channels, h = d->height, w = d->width;
    for (int64_t y = 0; y < h / 2; y++) {
        for (int64_t x = 0; x < w / 2; x++) {
            for (int64_t k = 0; k < c * 4; k++) {
                *packed++ = latents[((k / 4) * h + 2 * y + (k / 2) % 2) * w + 2 * x + k % 2];
            }
        }
    }
}

static void unpack(const ay_denoiser *d, const float *packed, float *latents) {
    int64_t c = d->channels, h = d->height, w = d->width;
    for (int64_t y = 0; y < h / 2; y++) {
        for (int64_t x = 0; x < w / 2; x++) {
            for (int64_t k = 0; k < c * 4; k++) {
                latents[((k / 4) * h + 2 * y + (k / 2) % 2) * w + 2 * x + k % 2] = *packed++;
            }
        }
    }
}

/* ---- running ---------------------------------------------------------------------------------------------------------------- */

typedef struct flux_run {
    ay_stage s;
    ay_arena *arena;
    flux_facts f;
    int64_t h, w, tokens, text; /* latents, packed tokens, text tokens */
    int64_t joint_dim, pooled_dim;
    float *embeds, *pooled;     /* [T, joint], [pooled] */
    ay_component *transformer;
    float *img_ids, *txt_ids;   /* [tokens, 3], [T, 3] */
} flux_run;

/* Encoders are opened, used and released one after another, before the denoiser loads. Weights act on words, so not on CLIP's
 * vector of the whole text. */
static alloy_status encode(flux_run *x, const char *package, const char *tokenizer, int64_t length, const char *output, ay_type type, float **out) {
    ay_prompt p;
    ay_component *c = NULL;
    AY_TRY(ay_prompt_read_cut(x->s.cx, x->s.m, tokenizer, x->s.r->o->prompt, (int)length, true, x->arena, &p));
    *out = ay_alloc(x->arena, ay_dtype_bytes(AY_F32, ay_type_count(&type)));
    if (!*out) return ay_nomem(x->s.cx);
    alloy_status st = ay_stage_open(&x->s, package, &c);
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, length), p.ids}, result = {output, type, *out};
    if (st == ALLOY_OK) st = ay_component_run(x->s.cx, c, &in, 1, &result, 1);
    ay_stage_close(&x->s, package, &c);
    if (st == ALLOY_OK && p.weighted && type.rank == 3) ay_prompt_weigh(p.weights, length, type.dim[2], *out);
    return st;
}

static alloy_status encode_prompt(flux_run *x) {
    double start = ay_now();
    ay_progress(x->s.cx, "text", 0, 2);
    AY_TRY(encode(x, "TextEncoder", "tokenizer", x->f.clip_length, "pooler_output", ay_shape(AY_F32, 2, (int64_t)1, x->pooled_dim), &x->pooled));
    ay_progress(x->s.cx, "text", 1, 2);
    AY_TRY(encode(x, "TextEncoder2", "tokenizer_2", x->text, "last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, x->text, x->joint_dim),
                  &x->embeds));
    ay_progress(x->s.cx, "text", 2, 2);
    json_object_set_new(x->s.r->report, "encode_s", json_real(ay_now() - start));
    return ALLOY_OK;
}

static alloy_status open_transformer(void *user) {
    flux_run *x = user;
    x->img_ids = ay_alloc(x->arena, (size_t)(x->tokens * 3) * sizeof(float));
    x->txt_ids = ay_alloc(x->arena, (size_t)(x->text * 3) * sizeof(float));
    if (!x->img_ids || !x->txt_ids) return ay_nomem(x->s.cx);
    for (int64_t i = 0; i < x->tokens; i++) {
        x->img_ids[3 * i + 1] = (float)(i / (x->w / 2));
        x->img_ids[3 * i + 2] = (float)(i % (x->w / 2));
    }
    return ay_stage_open(&x->s, "Transformer", &x->transformer);
}

static void close_transformer(void *user) {
    flux_run *x = user;
    ay_stage_close(&x->s, "Transformer", &x->transformer);
}

static alloy_status predict(void *user, const ay_moment *at, float *velocity) {
    flux_run *x = user;
    float timestep = at->timestep / 1000.0f, guidance = (float)x->s.r->guidance_scale;
    ay_type type = ay_shape(AY_F32, 3, (int64_t)1, x->tokens, 4 * x->f.channels);
    ay_tensor in[] = {
        {"hidden_states", type, (void *)at->sample},
        {"encoder_hidden_states", ay_shape(AY_F32, 3, (int64_t)1, x->text, x->joint_dim), x->embeds},
        {"pooled_projections", ay_shape(AY_F32, 2, (int64_t)1, x->pooled_dim), x->pooled},
        {"timestep", ay_shape(AY_F32, 1, (int64_t)1), &timestep},
        {"img_ids", ay_shape(AY_F32, 2, x->tokens, (int64_t)3), x->img_ids},
        {"txt_ids", ay_shape(AY_F32, 2, x->text, (int64_t)3), x->txt_ids},
        {"guidance", ay_shape(AY_F32, 1, (int64_t)1), &guidance},
    };
    ay_tensor out = {"sample", type, velocity};
    return ay_component_run(x->s.cx, x->transformer, in, x->f.guidance ? 7 : 6, &out, 1);
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    flux_run x = {.s = {.cx = cx, .m = m, .r = r, .text = m->text_length}, .text = m->text_length};
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
    const ay_flow_ask ask = {x.tokens, .even = true};
    const ay_denoiser d = {.channels = x.f.channels,
                           .height = x.h,
                           .width = x.w,
                           .scaling = x.f.scaling,
                           .shift = x.f.shift,
                           .ask = &ask,
                           .pack = pack,
                           .unpack = unpack,
                           .open = open_transformer,
                           .predict = predict,
                           .close = close_transformer,
                           .user = &x};
    alloy_status st = x.arena ? encode_prompt(&x) : ay_nomem(cx);
    if (st == ALLOY_OK) st = ay_denoise(&x.s, &d);
    json_object_set_new(r->report, "peak_bytes", json_integer((json_int_t)x.s.peak));
    ay_arena_free(x.arena);
    return st;
}

/* One file: the transformer as Black Forest Labs publish it, or ComfyUI's checkpoints with everything in them. */
static const ay_file_part file_parts[] = {
    {"transformer", "FluxTransformer2DModel", "model.diffusion_model.", false, NULL},
    {"transformer", "FluxTransformer2DModel", "", false, NULL},
    {"text_encoder", "CLIPTextModel", "text_encoders.clip_l.transformer.", false, NULL},
    {"text_encoder_2", "T5EncoderModel", "text_encoders.t5xxl.transformer.", false, NULL},
    /* black-forest-labs/FLUX.1-schnell, vae/config.json */
    {"vae", "AutoencoderKL", "vae.", false, "{\"scaling_factor\": 0.3611, \"shift_factor\": 0.1159}"},
    {"vae", "AutoencoderKL", "first_stage_model.", false, "{\"scaling_factor\": 0.3611, \"shift_factor\": 0.1159}"},
    {NULL, NULL, NULL, false, NULL},
};

const ay_pipe_row ay_pipe_flux = {
    .class_name = "FluxPipeline",
    .also = also,
    .type = "flux",
    .tasks = {.image_strength = 0.6, .mask_strength = 0.6},
    .unit = unit,
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts,
};
