/* SPDX-License-Identifier: MIT
 *
 * Stable Diffusion 1, 2 and XL (diffusers: pipelines/stable_diffusion/pipeline_stable_diffusion.py,
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py): the UNet is asked once a step for the prompt and, where
 * guidance is above 1, for the negative prompt. XL joins the last but one layer of two text encoders, and tells its UNet the
 * pooled vector of the second and the picture's size. XL's refiner has the second encoder only, starts from a picture, and
 * is told how pleasing the picture is to be instead of its final size.
 */
#include "pipe/control.h"
#include "pipe/guidance.h"
#include "pipe/prompt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The class of distilled models, whose defaults are its own (pipelines/latent_consistency_models/). */
static const char consistency[] = "LatentConsistencyModelPipeline";

static const ay_part_row parts[] = {
    {"TextEncoder", "text_encoder", "", false}, {"UNet", "unet", "", false}, {"VAEDecoder", "vae", "decoder", false},
    {"VAEEncoder", "vae", "encoder", false},    {NULL, NULL, NULL, false},
};
static const ay_part_row parts_xl[] = {
    {"TextEncoder", "text_encoder", "", true},  {"TextEncoder2", "text_encoder_2", "", false}, {"UNet", "unet", "", false},
    {"VAEDecoder", "vae", "decoder", false},    {"VAEEncoder", "vae", "encoder", false},       {NULL, NULL, NULL, false},
};
static const char *const also[] = {"StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionControlNetPipeline", consistency,
                                   "LatentConsistencyModelImg2ImgPipeline", NULL};
static const char *const also_xl[] = {"StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline", "StableDiffusionXLControlNetPipeline", NULL};
static const char *const tokenizers[] = {"tokenizer", NULL};
static const char *const tokenizers_xl[] = {"tokenizer", "tokenizer_2", NULL};

/* ---- what the configurations say ----------------------------------------------------------------------- */

typedef struct sd_facts {
    bool xl;
    int first, encoders;   /* text encoders: from `first` to before `encoders` */
    int64_t ids;           /* numbers about the picture: 6, or a refiner's 5 */
    bool ids_open;         /* the UNet's configuration could be read as a refiner's */
    int64_t cond;          /* width of timestep_cond, which tells a distilled UNet the guidance; 0: it is not told */
    int64_t factor;        /* pixels per latent */
    int64_t channels;      /* of the latents */
    int64_t positions;     /* of the text encoders */
    int64_t dim[2], cross; /* widths of the text encoders' layers, and of what the UNet reads */
    int64_t pooled;        /* width of text_embeds */
    double scaling;
    bool inpainting;       /* the UNet reads a mask and a masked picture behind its sample */
} sd_facts;

static alloy_status missing(ay_ctx *cx, const ay_model *m, const char *package) {
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s is missing; convert the checkpoint again without --components",
                   m->dir ? m->dir : "checkpoint", package);
}

static alloy_status read_text_facts(ay_ctx *cx, const ay_model *m, sd_facts *f) {
    static const char *const names[] = {"TextEncoder", "TextEncoder2"};
    f->positions = INT64_MAX;
    f->first = f->xl && !ay_model_find(m, names[0]);
    f->encoders = f->xl ? 2 : 1;
    for (int i = f->first; i < f->encoders; i++) {
        const ay_model_part *p = ay_model_find(m, names[i]);
        int64_t positions;
        if (!p) return missing(cx, m, names[i]);
        AY_TRY(ay_json_int(cx, "text encoder config", p->config, "hidden_size", 1, 1 << 16, &f->dim[i]));
        AY_TRY(ay_json_int_or(cx, "text encoder config", p->config, "max_position_embeddings", 1, 1 << 20, 77, &positions));
        f->positions = ay_min_i64(f->positions, positions);
        if (i == 1)
            AY_TRY(ay_json_int_or(cx, "text encoder config", p->config, "projection_dim", 1, 1 << 16, 512, &f->pooled));
        if (i == 1 && strcmp(p->arch->class_name, "CLIPTextModelWithProjection") != 0) {
            return ay_fail(cx, ALLOY_E_MISMATCH, "text_encoder_2 is a %s; this pipeline needs CLIPTextModelWithProjection",
                           p->arch->class_name);
        }
    }
    return ALLOY_OK;
}

/* XL's UNet reads both encoders, its refiner's the second alone: what of a base folder does not go with a file. */
static alloy_status check_encoders(ay_ctx *cx, const ay_model *m, const sd_facts *f) {
    if (f->first && f->cross != f->dim[1]) {
        if (m->dir) return missing(cx, m, "TextEncoder");
        return ay_fail(cx, ALLOY_E_MISMATCH, "the UNet reads text of width %lld and text_encoder_2 gives %lld: text_encoder is missing, which a refiner's folder does not have",
                       (long long)f->cross, (long long)f->dim[1]);
    }
    if (f->xl && !f->first && f->cross == f->dim[1]) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the UNet is a refiner's, which reads text_encoder_2 alone (width %lld), but there is a text_encoder too; give --base the refiner's folder",
                       (long long)f->cross);
    }
    return ALLOY_OK;
}

static alloy_status read_facts(ay_ctx *cx, const ay_model *m, sd_facts *f) {
    *f = (sd_facts){.xl = m->row->parts == parts_xl};
    const ay_model_part *vae = ay_model_find(m, "VAEDecoder"), *unet = ay_model_find(m, "UNet");
    const char *vae_file = "vae config", *unet_file = "unet config";
    int64_t in_channels, width, time_dim;
    if (!vae || !unet) return missing(cx, m, vae ? "UNet" : "VAEDecoder");
    AY_TRY(read_text_facts(cx, m, f));
    AY_TRY(ay_json_int_or(cx, unet_file, unet->config, "in_channels", 1, 1024, 4, &in_channels));
    const json_t *cross = json_object_get(unet->config, "cross_attention_dim"); /* a list has the same number everywhere */
    AY_TRY(ay_json_int_or(cx, unet_file, unet->config, "time_cond_proj_dim", 0, 4096, 0, &f->cond));
    f->cross = json_is_array(cross) ? json_integer_value(json_array_get(cross, 0)) : cross && !json_is_null(cross) ? json_integer_value(cross) : 1280;
    AY_TRY(ay_json_int(cx, vae_file, vae->config, "latent_channels", 1, 4096, &f->channels));
    AY_TRY(ay_json_num_or(cx, vae_file, vae->config, "scaling_factor", 1e-9, 1e9, 0.18215, &f->scaling));
    f->factor = (int64_t)1 << (json_array_size(json_object_get(vae->config, "block_out_channels")) - 1);
    const json_t *mean = json_object_get(vae->config, "latents_mean");
    if (mean && !json_is_null(mean))
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: latents_mean is not known here; only null is", vae_file);
    f->inpainting = in_channels == 2 * f->channels + 1;
    if (in_channels != f->channels && !f->inpainting) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED,
                       "the UNet takes %lld channels and the VAE gives %lld: only checkpoints for text and pictures (%lld) and "
                       "for inpainting (%lld) are known",
                       (long long)in_channels, (long long)f->channels, (long long)f->channels, (long long)(2 * f->channels + 1));
    }
    AY_TRY(check_encoders(cx, m, f));
    if (f->cross != f->dim[0] + f->dim[1]) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the UNet reads text of width %lld, the text encoders give %lld",
                       (long long)f->cross, (long long)(f->dim[0] + f->dim[1]));
    }
    if (!f->xl) return ALLOY_OK;
    AY_TRY(ay_json_int(cx, unet_file, unet->config, "projection_class_embeddings_input_dim", 1, 1 << 20, &width));
    AY_TRY(ay_json_int(cx, unet_file, unet->config, "addition_time_embed_dim", 1, 1 << 16, &time_dim));
    f->ids = f->first && width == f->pooled + 5 * time_dim ? 5 : 6;
    f->ids_open = f->ids == 6 && width == f->cross + 5 * time_dim;
    if (width != f->pooled + f->ids * time_dim) {
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "the UNet reads %lld added numbers, expected text_embeds' %lld and %s times %lld", (long long)width,
                       (long long)f->pooled, f->first ? "five or six" : "six", (long long)time_dim);
    }
    return ALLOY_OK;
}

static alloy_status defaults(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction) {
    sd_facts f;
    const ay_model_part *unet = ay_model_find(m, "UNet");
    AY_TRY(read_facts(cx, m, &f));
    int64_t sample = json_integer_value(json_object_get(unet->config, "sample_size")); /* a list or none: 0 */
    if (sample < 1 || sample > 2048) sample = f.xl ? 128 : 64;
    int side = (int)(sample * f.factor);
    if (!*w) *w = *h ? *h : side;
    if (!*h) *h = *w;
    if (!*text) *text = (int)f.positions;
    const char *class_name = json_string_value(json_object_get(m->index, "_class_name"));
    bool few = class_name && strcmp(class_name, consistency) == 0;
    json_object_set_new(prediction, "steps", json_integer(few ? 4 : 50));
    json_object_set_new(prediction, "guidance_scale", json_real(few ? 8.5 : f.xl ? 5.0 : 7.5));
    if (f.xl) { /* an absent negative prompt is zeros, not the empty text */
        json_object_set_new(prediction, "zero_negative",
                            json_boolean(!json_is_false(json_object_get(m->index, "force_zeros_for_empty_prompt"))));
    }
    return ALLOY_OK;
}

static alloy_status unit(ay_ctx *cx, const ay_model *m, int64_t *out) {
    sd_facts f;
    AY_TRY(read_facts(cx, m, &f));
    *out = ay_max_i64(8, f.factor);
    return ALLOY_OK;
}

static alloy_status sizes(ay_ctx *cx, const ay_model *m, const ay_part_row *part, int w, int h, int text, ay_sizes *out) {
    sd_facts f;
    AY_TRY(read_facts(cx, m, &f));
    int64_t unit = ay_max_i64(8, f.factor);
    if (w < unit || h < unit || w % unit || h % unit || w > 16384 || h > 16384) {
        int64_t near_w = ay_min_i64(ay_max_i64((w + unit / 2) / unit, 1) * unit, 16384);
        int64_t near_h = ay_min_i64(ay_max_i64((h + unit / 2) / unit, 1) * unit, 16384);
        return ay_fail(cx, ALLOY_E_USAGE,
                       "%dx%d: width and height must be multiples of %lld, from %lld to 16384; %lldx%lld fits", w, h,
                       (long long)unit, (long long)unit, (long long)near_w, (long long)near_h);
    }
    bool encoder = strncmp(part->package, "TextEncoder", 11) == 0; /* the UNet may read several chunks */
    if (text < 3 || (encoder && text > f.positions)) {
        return ay_fail(cx, ALLOY_E_USAGE, "a text length of %d tokens: from 3 to %lld can be asked for", text,
                       (long long)f.positions);
    }
    *out = (ay_sizes){.batch = 1};
    if (!encoder) {
        out->latent_width = w / f.factor;
        out->latent_height = h / f.factor;
    }
    if (strncmp(part->package, "VAE", 3) != 0) out->text_length = text;
    if (strcmp(part->package, "UNet") == 0 && f.ids_open) out->numbers = f.ids;
    return ALLOY_OK;
}

/* ---- text ---------------------------------------------------------------------------------------------------- */

typedef struct sd_run {
    ay_stage s;
    ay_arena *arena;
    sd_facts f;
    int64_t h, w;
    bool zero_negative;
    int chunks;
    ay_prompt prompt[2][2];       /* of both prompts, for each encoder */
    float *embeds[2], *pooled[2]; /* [chunks * T, cross], [pooled]; the negative prompt's lie behind the prompt's */
    ay_component *unet;
    ay_control control;
    const ay_denoiser *denoiser;
    ay_guidance guidance;
    float time_ids[12];     /* [2, ids] */
    float *cond;            /* [f.cond] */
} sd_run;

/* One encoder for one prompt; columns [at, at + dim) of the prompt's embeds. The pooled vector is the first chunk's. */
static alloy_status encode_one(sd_run *x, ay_component *c, int encoder, int which) {
    int64_t length = x->s.text, dim = x->f.dim[encoder], at = encoder ? x->f.dim[0] : 0;
    const ay_prompt *p = &x->prompt[which][encoder];
    float *hidden = ay_alloc(x->arena, (size_t)(length * dim) * sizeof *hidden), *unused = ay_alloc(x->arena, (size_t)(x->f.pooled + 1) * sizeof *unused);
    if (!hidden || !unused) return ay_nomem(x->s.cx);
    for (int k = 0; k < p->chunks; k++) {
        ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, length), p->ids + k * length};
        ay_tensor out[2] = {
            {x->f.xl ? "hidden_states_penultimate" : "last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, length, dim), hidden},
            {"text_embeds", ay_shape(AY_F32, 2, (int64_t)1, x->f.pooled), k ? unused : x->pooled[which]},
        };
        AY_TRY(ay_component_run(x->s.cx, c, &in, 1, out, encoder ? 2 : 1));
        if (p->weighted) ay_prompt_weigh(p->weights + k * length, length, dim, hidden);
        for (int64_t i = 0; i < length; i++)
            memcpy(x->embeds[which] + (k * length + i) * x->f.cross + at, hidden + i * dim, (size_t)dim * sizeof *hidden);
    }
    return ALLOY_OK;
}

static bool reads_negative(const sd_run *x) { return x->guidance.guided && (x->s.r->o->negative_prompt || !x->zero_negative); }

/* Both prompts, for every encoder, in equally many chunks: the shorter one is filled up with empty ones. */
static alloy_status read_prompts(sd_run *x) {
    static const char *const tokenizer[] = {"tokenizer", "tokenizer_2"};
    const alloy_run_options *o = x->s.r->o;
    const char *texts[2] = {o->prompt, o->negative_prompt ? o->negative_prompt : ""};
    x->chunks = 1;
    for (int round = 0; round < 2; round++) { /* the second knows how many chunks the longest needs */
        for (int which = 0; which <= (reads_negative(x) ? AY_NEGATIVE : AY_POSITIVE); which++) {
            for (int i = x->f.first; i < x->f.encoders; i++) {
                ay_prompt *p = &x->prompt[which][i];
                if (round && p->chunks == x->chunks) continue;
                AY_TRY(ay_prompt_read(x->s.cx, x->s.m, tokenizer[i], texts[which], x->s.text, x->chunks, x->arena, p));
                x->chunks = (int)ay_max_i64(x->chunks, p->chunks);
            }
        }
    }
    if (x->chunks > 1) ay_log(x->s.cx, AY_LOG_INFO, "the prompt is read in %d chunks of %d tokens", x->chunks, x->s.text - 2);
    int64_t n = x->chunks * x->s.text * x->f.cross;
    x->embeds[0] = ay_alloc(x->arena, (size_t)(2 * n) * sizeof(float)); /* zeros */
    x->pooled[0] = ay_alloc(x->arena, (size_t)(2 * x->f.pooled + 1) * sizeof(float));
    if (!x->embeds[0] || !x->pooled[0]) return ay_nomem(x->s.cx);
    x->embeds[1] = x->embeds[0] + n;
    x->pooled[1] = x->pooled[0] + x->f.pooled;
    return ALLOY_OK;
}

/* Opened, used and released one after another, before the denoiser loads. Skipped layers are the prompt's alone: diffusers
 * reads the negative one with all of them. */
static alloy_status encode_prompts(sd_run *x) {
    static const char *const packages[] = {"TextEncoder", "TextEncoder2"};
    int encoders = x->f.encoders;
    double start = ay_now();
    AY_TRY(read_prompts(x));
    for (int i = x->f.first; i < encoders; i++) {
        ay_component *c = NULL;
        ay_progress(x->s.cx, "text", i, encoders);
        x->s.skip = x->s.r->o->clip_skip;
        alloy_status st = ay_stage_open(&x->s, packages[i], &c);
        if (st == ALLOY_OK) st = encode_one(x, c, i, AY_POSITIVE);
        if (st == ALLOY_OK && reads_negative(x) && x->s.skip) {
            ay_stage_close(&x->s, packages[i], &c);
            x->s.skip = 0;
            st = ay_stage_open(&x->s, packages[i], &c);
        }
        if (st == ALLOY_OK && reads_negative(x)) st = encode_one(x, c, i, AY_NEGATIVE);
        ay_stage_close(&x->s, packages[i], &c);
        x->s.skip = 0;
        AY_TRY(st);
    }
    x->s.text *= x->chunks; /* what the UNet reads */
    ay_progress(x->s.cx, "text", encoders, encoders);
    json_object_set_new(x->s.r->report, "encode_s", json_real(ay_now() - start));
    return ALLOY_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* get_guidance_scale_embedding of the pipelines, in float32: sines, then cosines, of what guidance adds, in thousandths. */
static float *guidance_embedding(ay_arena *arena, int64_t dim, double guidance) {
    float *v = ay_alloc(arena, (size_t)(dim + 1) * sizeof *v), w = (float)(guidance - 1) * 1000.0f;
    int64_t half = dim / 2;
    for (int64_t i = 0; v && i < half; i++) {
        float angle = w * expf((float)i * -(logf(10000.0f) / (float)(half - 1)));
        v[i] = sinf(angle);
        v[half + i] = cosf(angle);
    }
    return v;
}

static alloy_status open_unet(void *user) {
    sd_run *x = user;
    ay_guidance *g = &x->guidance;
    g->n = x->f.channels * x->h * x->w;
    g->seen = x->f.inpainting ? 2 * g->n + x->h * x->w : g->n;
    g->apart = x->f.inpainting && x->s.r->in.control.pixels; /* a control net reads the first channels of one sample */
    x->cond = guidance_embedding(x->arena, x->f.cond, x->s.r->guidance_scale);
    if (!x->cond) return ay_nomem(x->s.cx);
    for (int i = 0; i < 2; i++) { /* original size, crop's corner, target size or score */
        float *ids = x->time_ids + i * x->f.ids;
        ids[0] = (float)x->s.r->height;
        ids[1] = (float)x->s.r->width;
        if (x->f.ids == 5) ids[4] = i == AY_POSITIVE ? 6.0f : 2.5f; /* aesthetic_score, negative_aesthetic_score */
        for (int k = 0; x->f.ids == 6 && k < 2; k++) ids[4 + k] = ids[k];
    }
    AY_TRY(ay_guidance_open(&x->s, "UNet", x->denoiser, g, &x->unet));
    if (!x->s.r->in.control.pixels) return ALLOY_OK;
    return ay_control_open(&x->s, ay_model_find(x->s.m, "UNet"), x->denoiser, x->s.text, g->count, &x->control);
}

static void close_unet(void *user) {
    sd_run *x = user;
    ay_stage_close(&x->s, "UNet", &x->unet);
    ay_control_close(&x->s, &x->control);
    ay_guidance_close(&x->guidance);
}

static alloy_status call_unet(void *user, const ay_moment *at, int which, int count, float *guess) {
    sd_run *x = user;
    float timestep[2] = {at->timestep, at->timestep};
    int64_t b = count, channels = x->f.inpainting ? 2 * x->f.channels + 1 : x->f.channels;
    ay_tensor in[6 + AY_CONTROL_MOST] = {
        {"sample", ay_shape(AY_F32, 4, b, channels, x->h, x->w), (void *)at->sample},
        {"timestep", ay_shape(AY_F32, 1, b), timestep},
        {"encoder_hidden_states", ay_shape(AY_F32, 3, b, (int64_t)x->s.text, x->f.cross), x->embeds[which]},
        {"text_embeds", ay_shape(AY_F32, 2, b, x->f.pooled), x->pooled[which]},
        {"time_ids", ay_shape(AY_F32, 2, b, x->f.ids), x->time_ids + which * x->f.ids},
    };
    ay_tensor out = {"noise_pred", ay_shape(AY_F32, 4, b, x->f.channels, x->h, x->w), guess};
    int n = x->f.xl ? 5 : 3;
    if (x->control.c) { /* it sees the latents alone, without what an inpainting UNet reads behind them */
        in[0].type.dim[1] = x->f.channels;
        AY_TRY(ay_control_run(&x->s, &x->control, at, in, n));
        in[0].type.dim[1] = channels;
        memcpy(in + n, x->control.in, (size_t)x->control.n * sizeof *in);
        n += x->control.n;
    }
    if (x->f.cond) in[n++] = (ay_tensor){"timestep_cond", ay_shape(AY_F32, 2, b, x->f.cond), x->cond};
    return ay_component_run(x->s.cx, x->unet, in, n, &out, 1);
}

static alloy_status predict(void *user, const ay_moment *at, float *answer) {
    sd_run *x = user;
    return ay_guidance_predict(&x->guidance, at, answer);
}

/* Settings that the pipelines of versions 1 and 2 correct in their schedulers' configurations (__init__: "steps_offset" and
 * "clip_sample", for inpainting "skip_prk_steps"); XL's do not. NULL: no memory. */
static json_t *corrected(const json_t *scheduler, bool painted) {
    json_t *j = json_copy((json_t *)scheduler);
    if (!j || json_object_set_new(j, "steps_offset", json_integer(1)) != 0 ||
        json_object_set_new(j, painted ? "skip_prk_steps" : "clip_sample", json_boolean(painted)) != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    sd_run x = {.s = {.cx = cx, .m = m, .r = r, .text = m->text_length}};
    x.guidance = (ay_guidance){.guided = r->guidance_scale > 1, .scale = (float)r->guidance_scale, .call = call_unet, .user = &x};
    ay_sizes s;
    AY_TRY(read_facts(cx, m, &x.f));
    AY_TRY(sizes(cx, m, ay_model_find(m, "UNet")->row, r->width, r->height, m->text_length, &s));
    if (x.f.cond) x.guidance.guided = false; /* it is told, not made of two answers */
    AY_TRY(
        ay_json_bool_or(cx, "alloy.json", json_object_get(m->json, "prediction"), "zero_negative", false, &x.zero_negative));
    if (x.f.inpainting && !r->in.mask) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: this checkpoint is for inpainting; give it a picture and a mask with --image and --mask", m->dir);
    }
    if (x.f.ids == 5 && !r->in.picture.pixels && r->o->denoising_start == 0) {
        return ay_fail(cx, ALLOY_E_USAGE, "%s: this checkpoint refines pictures; give it one with --image, or latents with --latents and --denoising-start", m->dir);
    }
    x.h = s.latent_height;
    x.w = s.latent_width;
    x.arena = ay_arena_new();
    const ay_denoiser d = {.channels = x.f.channels,
                           .height = x.h,
                           .width = x.w,
                           .scaling = x.f.scaling,
                           .reads_mask = x.f.inpainting,
                           .open = open_unet,
                           .predict = predict,
                           .close = close_unet,
                           .user = &x};
    x.denoiser = &d;
    const json_t *own = m->scheduler;
    json_t *set = x.f.xl ? NULL : corrected(own, r->in.mask);
    if (set) m->scheduler = set;
    alloy_status st = x.arena && (set || x.f.xl) ? encode_prompts(&x) : ay_nomem(cx);
    if (st == ALLOY_OK) st = ay_denoise(&x.s, &d);
    m->scheduler = own;
    json_decref(set);
    json_object_set_new(r->report, "peak_bytes", json_integer((json_int_t)x.s.peak));
    ay_arena_free(x.arena);
    return st;
}

/* ---- one file: CompVis' and Stability's own checkpoints, and those of the programs that keep their names --------------- */

static const ay_file_part file_parts[] = {
    {"unet", "UNet2DConditionModel", "model.diffusion_model.", false, NULL},
    {"unet", "UNet2DConditionModel", "", false, NULL},
    {"unet", "UNet2DConditionModel", "model_ema.diffusion_model", true, NULL}, /* where there is nothing but the averages */
    {"text_encoder", "CLIPTextModel", "cond_stage_model.transformer.", false, NULL},
    {"text_encoder", "CLIPTextModel", "cond_stage_model.model.", false, NULL},
    {"text_encoder", "CLIPTextModel", "conditioner.embedders.0.model.", false, NULL}, /* version 2 as generative-models writes it */
    {"vae", "AutoencoderKL", "first_stage_model.", false, "{\"scaling_factor\": 0.18215}"}, /* v1-inference.yaml, scale_factor */
    {"vae", "AutoencoderKL", "vae.", false, "{\"scaling_factor\": 0.18215}"},
    {NULL, NULL, NULL, false, NULL},
};
static const ay_file_part file_parts_xl[] = {
    {"unet", "UNet2DConditionModel", "model.diffusion_model.", false, NULL},
    {"unet", "UNet2DConditionModel", "", false, NULL},
    {"text_encoder", "CLIPTextModel", "conditioner.embedders.0.transformer.", false, NULL},
    {"text_encoder", "CLIPTextModel", "cond_stage_model.transformer.", false, NULL}, /* and _2: stable-diffusion.cpp's files */
    {"text_encoder_2", "CLIPTextModelWithProjection", "conditioner.embedders.1.model.", false, NULL},
    {"text_encoder_2", "CLIPTextModelWithProjection", "cond_stage_model.1.transformer.", false, NULL},
    {"text_encoder_2", "CLIPTextModelWithProjection", "conditioner.embedders.0.model.", false, NULL}, /* the refiner's only one */
    {"vae", "AutoencoderKL", "first_stage_model.", false, "{\"scaling_factor\": 0.13025, \"force_upcast\": true}"}, /* sd_xl_base.yaml */
    {"vae", "AutoencoderKL", "vae.", false, "{\"scaling_factor\": 0.13025, \"force_upcast\": true}"},
    {NULL, NULL, NULL, false, NULL},
};
/* What ComfyUI and its users mark checkpoints with (comfy/supported_models.py, model_type). */
static const ay_file_hint file_hints[] = {
    {"v_pred", "prediction_type", "\"v_prediction\""},
    {"ztsnr", "rescale_betas_zero_snr", "true"},
    {NULL, NULL, NULL},
};

static const ay_file_refusal file_refusals_xl[] = {
    {"edm_mean", "it is trained by EDM's schedule (Playground 2.5), which is not known here"}, /* comfy/supported_models.py, SDXL */
    {NULL, NULL},
};

static bool file_fits(const json_t *unet) { return !json_is_string(json_object_get(unet, "addition_embed_type")); }
static bool file_fits_xl(const json_t *unet) { return !file_fits(unet); }

/* Version 2 was published for noise and for velocity under one configuration of the network (v2-inference.yaml,
 * v2-inference-v.yaml: "parameterization"). ComfyUI tells them by how far the biases of one norm of the finest level spread
 * (comfy/supported_models.py, SD20.model_type: more than 0.09 is velocity); as good as that is, it is worth a warning. */
static void file_doubts(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const ay_source *tensors, const char *file) {
    const json_t *j = part->config, *channels = json_object_get(j, "block_out_channels");
    int64_t n = json_integer_value(json_array_get(channels, 0)), layers = json_integer_value(json_object_get(j, "layers_per_block"));
    if (strcmp(part->row->folder, "unet") != 0 || !json_is_true(json_object_get(j, "use_linear_projection")) || n < 1 || n > 65536) return;
    if (json_integer_value(json_object_get(j, "in_channels")) != 4) return; /* those for inpainting predict noise */
    char name[128];
    snprintf(name, sizeof name, "up_blocks.%d.attentions.%d.transformer_blocks.0.norm1.bias", (int)json_array_size(channels) - 1, (int)layers);
    ay_type type = ay_shape(AY_F32, 1, n);
    ay_origin o;
    float *v = malloc((size_t)n * sizeof *v);
    if (v && ay_source_find(tensors, part->arch, name, &type, &o) && o.fits && !o.lora) {
        double sum = 0, squares = 0;
        ay_origin_read(&o, 0, n, v);
        for (int64_t i = 0; i < n; i++) {
            sum += v[i];
            squares += (double)v[i] * v[i];
        }
        const char *looks = squares / (double)n - sum * sum / ((double)n * (double)n) > 0.09 * 0.09 ? "v_prediction" : "epsilon";
        const char *said = json_string_value(json_object_get(m->scheduler, "prediction_type"));
        if (strcmp(looks, said ? said : "epsilon") != 0) {
            ay_log(cx, AY_LOG_WARN, "%s: its numbers look like those of a model for %s, but the scheduler's settings say %s; if pictures show noise, convert with --prediction-type %s",
                   file, looks, said ? said : "epsilon", looks);
        }
    }
    free(v);
}

const ay_pipe_row ay_pipe_sd = {
    .class_name = "StableDiffusionPipeline",
    .also = also,
    .type = "sd",
    .tasks = {.image_strength = 0.8, .mask_strength = 1, .clip_skip = true, .controlled = "UNet"},
    .unit = unit,
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts,
    .file_fits = file_fits,
    .file_hints = file_hints,
    .file_doubts = file_doubts,
};
const ay_pipe_row ay_pipe_sdxl = {
    .class_name = "StableDiffusionXLPipeline",
    .also = also_xl,
    .type = "sdxl",
    .tasks = {.image_strength = 0.3, .mask_strength = 0.9999, .clip_skip = true, .controlled = "UNet"},
    .unit = unit,
    .parts = parts_xl,
    .tokenizers = tokenizers_xl,
    .upcast = "force_upcast", /* as the reference does */
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts_xl,
    .file_fits = file_fits_xl,
    .file_hints = file_hints,
    .file_refusals = file_refusals_xl,
};
