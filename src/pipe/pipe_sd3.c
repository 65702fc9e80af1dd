/* SPDX-License-Identifier: MIT
 *
 * Stable Diffusion 3 and 3.5 (diffusers: pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py). The
 * last but one layers of two CLIP encoders stand side by side, filled up with zeros to T5's width; T5's sequence follows
 * after them. T5 may be absent: its tokens are zeros then. The two pooled vectors in a row modulate the transformer, which
 * is asked once a step for the prompt and, where guidance is above 1, for the negative prompt.
 */
#include "pipe/guidance.h"
#include "pipe/prompt.h"

#include <stdlib.h>
#include <string.h>

static const ay_part_row parts[] = {
    {"TextEncoder", "text_encoder", "", false},
    {"TextEncoder2", "text_encoder_2", "", false},
    {"TextEncoder3", "text_encoder_3", "", true},
    {"Transformer", "transformer", "", false},
    {"VAEDecoder", "vae", "decoder", false},
    {"VAEEncoder", "vae", "encoder", false},
    {NULL, NULL, NULL, false},
};
static const char *const also[] = {"StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline", NULL};
static const char *const tokenizers[] = {"tokenizer", "tokenizer_2", "tokenizer_3", NULL};

/* ---- what the configurations say ------------------------------------------------------------------------------------- */

typedef struct sd3_facts {
    int64_t factor, patch;           /* pixels per latent, latents per patch, a side */
    int64_t channels;                /* of the latents */
    int64_t side;                    /* the default picture's, in latents */
    int64_t clip_length;             /* tokens of both CLIP encoders */
    int64_t dim[2], pooled[2];       /* widths of their layers and of their pooled vectors */
    int64_t joint, t5;               /* widths of what the transformer reads, and of T5's layers; 0: no T5 */
    double scaling, shift;
} sd3_facts;

static alloy_status read_clip(ay_ctx *cx, const ay_model *m, int i, sd3_facts *f) {
    static const char *const names[] = {"TextEncoder", "TextEncoder2"};
    static const char file[] = "text encoder config";
    const ay_model_part *p = ay_model_find(m, names[i]);
    int64_t positions;
    AY_TRY(ay_json_int(cx, file, p->config, "hidden_size", 1, 1 << 16, &f->dim[i]));
    AY_TRY(ay_json_int_or(cx, file, p->config, "projection_dim", 1, 1 << 16, 512, &f->pooled[i]));
    AY_TRY(ay_json_int_or(cx, file, p->config, "max_position_embeddings", 1, 1 << 20, 77, &positions));
    if (strcmp(p->arch->class_name, "CLIPTextModelWithProjection") != 0) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s is a %s; this pipeline needs CLIPTextModelWithProjection", p->row->folder, p->arch->class_name);
    }
    /* both are padded to what the first tokenizer says, which may be less than there are positions for */
    if (p->sizes.text_length > 0) positions = ay_min_i64(positions, p->sizes.text_length);
    else if (m->token_limits[0] > 0) positions = ay_min_i64(positions, m->token_limits[0]);
    f->clip_length = i ? ay_min_i64(f->clip_length, positions) : positions;
    return ALLOY_OK;
}

static alloy_status check_widths(ay_ctx *cx, const ay_model_part *t, const sd3_facts *f) {
    int64_t pooled, vae = f->channels, in, out;
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "pooled_projection_dim", 1, 1 << 20, 2048, &pooled));
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "in_channels", 1, 65536, 16, &in));
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "out_channels", 1, 65536, json_object_get(t->config, "out_channels") ? in : 16, &out));
    if (in != vae || out != vae) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the transformer takes %lld channels and gives %lld, the VAE's latents have %lld", (long long)in,
                       (long long)out, (long long)vae);
    }
    if (pooled != f->pooled[0] + f->pooled[1]) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the transformer reads pooled text of width %lld, the text encoders give %lld and %lld",
                       (long long)pooled, (long long)f->pooled[0], (long long)f->pooled[1]);
    }
    if (f->dim[0] + f->dim[1] > f->joint || (f->t5 && f->t5 != f->joint)) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the transformer reads text of width %lld, the text encoders give %lld and %lld side by side, then %lld",
                       (long long)f->joint, (long long)f->dim[0], (long long)f->dim[1], (long long)f->t5);
    }
    return ALLOY_OK;
}

static alloy_status read_facts(ay_ctx *cx, const ay_model *m, sd3_facts *f) {
    static const char *const needed[] = {"TextEncoder", "TextEncoder2", "Transformer", "VAEDecoder"};
    const ay_model_part *vae = ay_model_find(m, "VAEDecoder"), *t = ay_model_find(m, "Transformer"), *t5 = ay_model_find(m, "TextEncoder3");
    *f = (sd3_facts){0};
    for (int i = 0; i < 4; i++) {
        if (ay_model_find(m, needed[i])) continue;
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s is missing; convert the checkpoint again without --components", m->dir ? m->dir : "checkpoint", needed[i]);
    }
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "patch_size", 1, 64, 2, &f->patch));
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "sample_size", 1, 16384, 128, &f->side));
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "joint_attention_dim", 1, 1 << 20, 4096, &f->joint));
    AY_TRY(ay_json_int(cx, "vae config", vae->config, "latent_channels", 1, 65536, &f->channels));
    AY_TRY(ay_json_num_or(cx, "vae config", vae->config, "scaling_factor", 1e-9, 1e9, 0.18215, &f->scaling));
    AY_TRY(ay_json_num_or(cx, "vae config", vae->config, "shift_factor", -1e9, 1e9, 0, &f->shift));
    if (t5) AY_TRY(ay_json_int(cx, "text_encoder_3 config", t5->config, "d_model", 1, 1 << 16, &f->t5));
    f->factor = (int64_t)1 << (json_array_size(json_object_get(vae->config, "block_out_channels")) - 1);
    for (int i = 0; i < 2; i++) AY_TRY(read_clip(cx, m, i, f));
    return check_widths(cx, t, f);
}

static alloy_status defaults(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction) {
    sd3_facts f;
    AY_TRY(read_facts(cx, m, &f));
    int side = (int)ay_min_i64(f.side * f.factor, 16384);
    if (!*w) *w = *h ? *h : side;
    if (!*h) *h = *w;
    if (!*text) *text = 256; /* max_sequence_length of the pipeline, whether there is a T5 or not */
    json_object_set_new(prediction, "steps", json_integer(28));
    json_object_set_new(prediction, "guidance_scale", json_real(7.0));
    return ALLOY_OK;
}

static alloy_status unit(ay_ctx *cx, const ay_model *m, int64_t *out) {
    sd3_facts f;
    AY_TRY(read_facts(cx, m, &f));
    *out = f.patch * f.factor;
    return ALLOY_OK;
}

static alloy_status sizes(ay_ctx *cx, const ay_model *m, const ay_part_row *part, int w, int h, int text, ay_sizes *out) {
    sd3_facts f;
    AY_TRY(read_facts(cx, m, &f));
    int64_t unit = f.patch * f.factor, most = 16384 / unit * unit, side = 0;
    const ay_model_part *t = ay_model_find(m, "Transformer");
    AY_TRY(ay_json_int_or(cx, "transformer config", t->config, "pos_embed_max_size", 0, 16384,
                          json_object_get(t->config, "pos_embed_max_size") ? 0 : 96, &side)); /* null: no table, no end */
    if (side) most = ay_min_i64(most, side * unit);
    if (w < unit || h < unit || w % unit || h % unit || w > most || h > most) {
        int64_t near_w = ay_min_i64(ay_max_i64((w + unit / 2) / unit, 1) * unit, most), near_h = ay_min_i64(ay_max_i64((h + unit / 2) / unit, 1) * unit, most);
        return ay_fail(cx, ALLOY_E_USAGE, "%dx%d: width and height must be multiples of %lld, from %lld to %lld; %lldx%lld fits", w, h,
                       (long long)unit, (long long)unit, (long long)most, (long long)near_w, (long long)near_h);
    }
    if (text < 1 || text > 4096) return ay_fail(cx, ALLOY_E_USAGE, "a text length of %d tokens: from 1 to 4096 can be asked for", text);
    *out = (ay_sizes){.batch = 1};
    if (strcmp(part->package, "TextEncoder3") == 0) {
        out->text_length = text;
    } else if (strncmp(part->package, "TextEncoder", 11) == 0) {
        out->text_length = f.clip_length;
    } else {
        out->latent_width = w / f.factor;
        out->latent_height = h / f.factor;
        if (strcmp(part->package, "Transformer") == 0) out->text_length = f.clip_length + text;
    }
    return ALLOY_OK;
}

/* ---- text ----------------------------------------------------------------------------------------------------------------- */

typedef struct sd3_run {
    ay_stage s;
    ay_arena *arena;
    sd3_facts f;
    int64_t h, w, tokens; /* latents; text tokens of all encoders */
    const ay_denoiser *denoiser;
    float *embeds[2], *pooled[2]; /* [tokens, joint], [pooled[0] + pooled[1]]; the negative prompt's lie behind the prompt's */
    ay_component *transformer;
    ay_guidance guidance;
} sd3_run;

/* Encoder 0 or 1 on one prompt: columns of the first rows of its embeds, and its part of the pooled vector. */
static alloy_status encode_clip(sd3_run *x, ay_component *c, int encoder, const char *prompt, int which) {
    int64_t length = x->f.clip_length, dim = x->f.dim[encoder], at = encoder ? x->f.dim[0] : 0;
    ay_prompt p;
    float *hidden = ay_alloc(x->arena, (size_t)(length * dim) * sizeof *hidden);
    AY_TRY(ay_prompt_read_cut(x->s.cx, x->s.m, encoder ? "tokenizer_2" : "tokenizer", prompt, (int)length, false, x->arena, &p));
    if (!hidden) return ay_nomem(x->s.cx);
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, length), p.ids};
    ay_tensor out[2] = {
        {"hidden_states_penultimate", ay_shape(AY_F32, 3, (int64_t)1, length, dim), hidden},
        {"text_embeds", ay_shape(AY_F32, 2, (int64_t)1, x->f.pooled[encoder]), x->pooled[which] + (encoder ? x->f.pooled[0] : 0)},
    };
    AY_TRY(ay_component_run(x->s.cx, c, &in, 1, out, 2));
    if (p.weighted) ay_prompt_weigh(p.weights, length, dim, hidden);
    for (int64_t i = 0; i < length; i++) memcpy(x->embeds[which] + i * x->f.joint + at, hidden + i * dim, (size_t)dim * sizeof *hidden);
    return ALLOY_OK;
}

/* The rows after CLIP's. */
static alloy_status encode_t5(sd3_run *x, ay_component *c, const char *prompt, int which) {
    ay_prompt p;
    int64_t length = x->s.text;
    float *rows = x->embeds[which] + x->f.clip_length * x->f.joint;
    AY_TRY(ay_prompt_read_cut(x->s.cx, x->s.m, "tokenizer_3", prompt, (int)length, false, x->arena, &p));
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, length), p.ids};
    ay_tensor out = {"last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, length, x->f.joint), rows};
    AY_TRY(ay_component_run(x->s.cx, c, &in, 1, &out, 1));
    if (p.weighted) ay_prompt_weigh(p.weights, length, x->f.joint, rows);
    return ALLOY_OK;
}

static alloy_status encode_prompts(sd3_run *x) {
    static const char *const packages[] = {"TextEncoder", "TextEncoder2", "TextEncoder3"};
    const alloy_run_options *o = x->s.r->o;
    const char *prompts[2] = {o->prompt, o->negative_prompt ? o->negative_prompt : ""};
    int encoders = x->f.t5 ? 3 : 2;
    double start = ay_now();
    if (!x->f.t5) ay_log(x->s.cx, AY_LOG_INFO, "%s: has no TextEncoder3; prompts are read without it", x->s.m->dir);
    int64_t pooled = x->f.pooled[0] + x->f.pooled[1];
    x->embeds[0] = ay_alloc(x->arena, (size_t)(2 * x->tokens * x->f.joint) * sizeof(float)); /* zeros */
    x->pooled[0] = ay_alloc(x->arena, (size_t)(2 * pooled) * sizeof(float));
    if (!x->embeds[0] || !x->pooled[0]) return ay_nomem(x->s.cx);
    x->embeds[1] = x->embeds[0] + x->tokens * x->f.joint;
    x->pooled[1] = x->pooled[0] + pooled;
    for (int i = 0; i < encoders; i++) { /* opened, used and released one after another, before the denoiser loads */
        ay_component *c = NULL;
        ay_progress(x->s.cx, "text", i, encoders);
        alloy_status st = ay_stage_open(&x->s, packages[i], &c);
        for (int which = AY_POSITIVE; which <= (x->guidance.guided ? AY_NEGATIVE : AY_POSITIVE) && st == ALLOY_OK; which++) {
            st = i < 2 ? encode_clip(x, c, i, prompts[which], which) : encode_t5(x, c, prompts[which], which);
        }
        ay_stage_close(&x->s, packages[i], &c);
        AY_TRY(st);
    }
    ay_progress(x->s.cx, "text", encoders, encoders);
    json_object_set_new(x->s.r->report, "encode_s", json_real(ay_now() - start));
    return ALLOY_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------ */

static alloy_status open_transformer(void *user) {
    sd3_run *x = user;
    x->guidance.n = x->guidance.seen = x->f.channels * x->h * x->w;
    return ay_guidance_open(&x->s, "Transformer", x->denoiser, &x->guidance, &x->transformer);
}

static void close_transformer(void *user) {
    sd3_run *x = user;
    ay_stage_close(&x->s, "Transformer", &x->transformer);
    ay_guidance_close(&x->guidance);
}

static alloy_status call_transformer(void *user, const ay_moment *at, int which, int count, float *guess) {
    sd3_run *x = user;
    float timestep[2] = {at->timestep, at->timestep};
    int64_t b = count;
    ay_type type = ay_shape(AY_F32, 4, b, x->f.channels, x->h, x->w);
    ay_tensor in[] = {
        {"hidden_states", type, (void *)at->sample},
        {"encoder_hidden_states", ay_shape(AY_F32, 3, b, x->tokens, x->f.joint), x->embeds[which]},
        {"pooled_projections", ay_shape(AY_F32, 2, b, x->f.pooled[0] + x->f.pooled[1]), x->pooled[which]},
        {"timestep", ay_shape(AY_F32, 1, b), timestep},
    };
    ay_tensor out = {"sample", type, guess};
    return ay_component_run(x->s.cx, x->transformer, in, 4, &out, 1);
}

static alloy_status predict(void *user, const ay_moment *at, float *answer) {
    sd3_run *x = user;
    return ay_guidance_predict(&x->guidance, at, answer);
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    sd3_run x = {.s = {.cx = cx, .m = m, .r = r, .text = m->text_length}};
    x.guidance = (ay_guidance){.guided = r->guidance_scale > 1, .scale = (float)r->guidance_scale, .call = call_transformer, .user = &x};
    ay_sizes s;
    AY_TRY(read_facts(cx, m, &x.f));
    AY_TRY(sizes(cx, m, ay_model_find(m, "Transformer")->row, r->width, r->height, m->text_length, &s));
    x.h = s.latent_height;
    x.w = s.latent_width;
    x.tokens = s.text_length;
    x.arena = ay_arena_new();
    const ay_flow_ask ask = {(x.h / x.f.patch) * (x.w / x.f.patch), .even = false};
    const ay_denoiser d = {.channels = x.f.channels,
                           .height = x.h,
                           .width = x.w,
                           .scaling = x.f.scaling,
                           .shift = x.f.shift,
                           .ask = &ask,
                           .open = open_transformer,
                           .predict = predict,
                           .close = close_transformer,
                           .user = &x};
    x.denoiser = &d;
    alloy_status st = x.arena ? encode_prompts(&x) : ay_nomem(cx);
    if (st == ALLOY_OK) st = ay_denoise(&x.s, &d);
    json_object_set_new(r->report, "peak_bytes", json_integer((json_int_t)x.s.peak));
    ay_arena_free(x.arena);
    return st;
}

/* One file: Stability's own, with no, two or three text encoders in it; the VAE's factors are those of its vae/config.json. */
static const ay_file_part file_parts[] = {
    {"transformer", "SD3Transformer2DModel", "model.diffusion_model.", false, NULL},
    {"transformer", "SD3Transformer2DModel", "", false, NULL},
    {"text_encoder", "CLIPTextModelWithProjection", "text_encoders.clip_l.transformer.", false, NULL},
    {"text_encoder_2", "CLIPTextModelWithProjection", "text_encoders.clip_g.transformer.", false, NULL},
    {"text_encoder_3", "T5EncoderModel", "text_encoders.t5xxl.transformer.", false, NULL},
    {"vae", "AutoencoderKL", "first_stage_model.", false, "{\"scaling_factor\": 1.5305, \"shift_factor\": 0.0609}"},
    {"vae", "AutoencoderKL", "vae.", false, "{\"scaling_factor\": 1.5305, \"shift_factor\": 0.0609}"},
    {NULL, NULL, NULL, false, NULL},
};

/* stable-diffusion.cpp, before it kept names, had one for matrices of either way round, which are square here. */
#define WHICH_WAY "stable-diffusion.cpp's name, which does not say which way round the projection lies; give the denoiser alone, and the encoders in --base"
static const ay_file_refusal file_refusals[] = {
    {"text_encoders.clip_l.transformer.text_model.text_projection", WHICH_WAY},
    {"text_encoders.clip_g.transformer.text_model.text_projection", WHICH_WAY},
    {NULL, NULL},
};

const ay_pipe_row ay_pipe_sd3 = {
    .class_name = "StableDiffusion3Pipeline",
    .also = also,
    .type = "sd3",
    .tasks = {.image_strength = 0.6, .mask_strength = 0.6},
    .unit = unit,
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts,
    .file_refusals = file_refusals,
};
