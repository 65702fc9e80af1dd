/* SPDX-License-Identifier: MIT
 *
 * Stable Diffusion 1, 2 and XL, text to picture (diffusers: pipelines/stable_diffusion/pipeline_stable_diffusion.py,
 * pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl.py): one UNet call a step for the prompt and, where guidance
 * is above 1, one for the negative prompt. XL joins the last but one layer of two text encoders, and tells its UNet the
 * pooled vector of the second and the picture's size.
 */
#include "pipe/pipe.h"
#include "pipe/sched.h"

#include <stdlib.h>
#include <string.h>

static const ay_part_row parts[] = {
    {"TextEncoder", "text_encoder", "", false}, {"Unet", "unet", "", false}, {"VAEDecoder", "vae", "decoder", false},
    {"VAEEncoder", "vae", "encoder", false},    {NULL, NULL, NULL, false},
};
static const ay_part_row parts_xl[] = {
    {"TextEncoder", "text_encoder", "", false}, {"TextEncoder2", "text_encoder_2", "", false}, {"Unet", "unet", "", false},
    {"VAEDecoder", "vae", "decoder", false},    {"VAEEncoder", "vae", "encoder", false},       {NULL, NULL, NULL, false},
};
static const char *const tokenizers[] = {"tokenizer", NULL};
static const char *const tokenizers_xl[] = {"tokenizer", "tokenizer_2", NULL};

/* ---- what the configurations say ----------------------------------------------------------------------- */

typedef struct sd_facts {
    bool xl;
    int64_t factor;        /* pixels per latent */
    int64_t channels;      /* of the latents */
    int64_t positions;     /* of the text encoders */
    int64_t dim[2], cross; /* widths of the text encoders' layers, and of what the UNet reads */
    int64_t pooled;        /* width of text_embeds */
    double scaling;
} sd_facts;

static alloy_status missing(ay_ctx *cx, const ay_model *m, const char *package) {
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s is missing; convert the checkpoint again without --components",
                   m->dir ? m->dir : "checkpoint", package);
}

static alloy_status read_text_facts(ay_ctx *cx, const ay_model *m, sd_facts *f) {
    static const char *const names[] = {"TextEncoder", "TextEncoder2"};
    f->positions = INT64_MAX;
    for (int i = 0; i < (f->xl ? 2 : 1); i++) {
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

static alloy_status read_facts(ay_ctx *cx, const ay_model *m, sd_facts *f) {
    *f = (sd_facts){.xl = m->row->parts == parts_xl};
    const ay_model_part *vae = ay_model_find(m, "VAEDecoder"), *unet = ay_model_find(m, "Unet");
    const char *vae_file = "vae config", *unet_file = "unet config";
    int64_t in_channels, width, time_dim;
    if (!vae || !unet) return missing(cx, m, vae ? "Unet" : "VAEDecoder");
    AY_TRY(read_text_facts(cx, m, f));
    AY_TRY(ay_json_int_or(cx, unet_file, unet->config, "in_channels", 1, 1024, 4, &in_channels));
    AY_TRY(ay_json_int_or(cx, unet_file, unet->config, "cross_attention_dim", 1, 1 << 16, 1280, &f->cross));
    AY_TRY(ay_json_int(cx, vae_file, vae->config, "latent_channels", 1, 4096, &f->channels));
    AY_TRY(ay_json_num_or(cx, vae_file, vae->config, "scaling_factor", 1e-9, 1e9, 0.18215, &f->scaling));
    f->factor = (int64_t)1 << (json_array_size(json_object_get(vae->config, "block_out_channels")) - 1);
    const json_t *mean = json_object_get(vae->config, "latents_mean");
    if (mean && !json_is_null(mean))
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: latents_mean is not known here; only null is", vae_file);
    if (in_channels != f->channels) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED,
                       "the UNet takes %lld channels and the VAE gives %lld: only text-to-picture checkpoints are known, "
                       "not ones for inpainting or editing",
                       (long long)in_channels, (long long)f->channels);
    }
    if (f->cross != f->dim[0] + f->dim[1]) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "the UNet reads text of width %lld, the text encoders give %lld",
                       (long long)f->cross, (long long)(f->dim[0] + f->dim[1]));
    }
    if (!f->xl) return ALLOY_OK;
    AY_TRY(ay_json_int(cx, unet_file, unet->config, "projection_class_embeddings_input_dim", 1, 1 << 20, &width));
    AY_TRY(ay_json_int(cx, unet_file, unet->config, "addition_time_embed_dim", 1, 1 << 16, &time_dim));
    if (width != f->pooled + 6 * time_dim) {
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "the UNet reads %lld added numbers, expected text_embeds' %lld and six times %lld", (long long)width,
                       (long long)f->pooled, (long long)time_dim);
    }
    return ALLOY_OK;
}

static alloy_status defaults(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction) {
    sd_facts f;
    const ay_model_part *unet = ay_model_find(m, "Unet");
    AY_TRY(read_facts(cx, m, &f));
    int64_t sample = json_integer_value(json_object_get(unet->config, "sample_size")); /* a list or none: 0 */
    if (sample < 1 || sample > 2048) sample = f.xl ? 128 : 64;
    int side = (int)(sample * f.factor);
    if (!*w) *w = *h ? *h : side;
    if (!*h) *h = *w;
    if (!*text) *text = (int)f.positions;
    json_object_set_new(prediction, "steps", json_integer(50));
    json_object_set_new(prediction, "guidance_scale", json_real(f.xl ? 5.0 : 7.5));
    if (f.xl) { /* an absent negative prompt is zeros, not the empty text */
        json_object_set_new(prediction, "zero_negative",
                            json_boolean(!json_is_false(json_object_get(m->index, "force_zeros_for_empty_prompt"))));
    }
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
    if (text < 3 || text > f.positions) {
        return ay_fail(cx, ALLOY_E_USAGE, "a text length of %d tokens: from 3 to %lld can be asked for", text,
                       (long long)f.positions);
    }
    *out = (ay_sizes){.batch = 1};
    if (strncmp(part->package, "TextEncoder", 11) != 0) {
        out->latent_width = w / f.factor;
        out->latent_height = h / f.factor;
    }
    if (strncmp(part->package, "VAE", 3) != 0) out->text_length = text;
    return ALLOY_OK;
}

/* ---- text ---------------------------------------------------------------------------------------------------- */

enum { POSITIVE, NEGATIVE };

typedef struct sd_run {
    ay_stage s;
    ay_arena *arena;
    sd_facts f;
    int64_t h, w;
    bool guided;
    bool zero_negative;
    float *embeds[2], *pooled[2]; /* [T, cross], [pooled] */
} sd_run;

/* One encoder for one prompt; columns [at, at + dim) of the prompt's embeds. */
static alloy_status encode_one(sd_run *x, ay_component *c, int encoder, const char *prompt, int which) {
    int64_t text = x->s.text, dim = x->f.dim[encoder], at = encoder ? x->f.dim[0] : 0;
    int32_t *ids;
    float *hidden = ay_alloc(x->arena, (size_t)(text * dim) * sizeof *hidden);
    AY_TRY(ay_tokenize(x->s.cx, x->s.m, encoder ? "tokenizer_2" : "tokenizer", prompt, (int)text, x->arena, &ids));
    if (!hidden) return ay_nomem(x->s.cx);
    ay_tensor in = {"input_ids", ay_shape(AY_I32, 2, (int64_t)1, text), ids};
    ay_tensor out[2] = {
        {x->f.xl ? "hidden_states_penultimate" : "last_hidden_state", ay_shape(AY_F32, 3, (int64_t)1, text, dim), hidden},
        {"text_embeds", ay_shape(AY_F32, 2, (int64_t)1, x->f.pooled), x->pooled[which]},
    };
    AY_TRY(ay_component_run(x->s.cx, c, &in, 1, out, encoder ? 2 : 1));
    for (int64_t i = 0; i < text; i++)
        memcpy(x->embeds[which] + i * x->f.cross + at, hidden + i * dim, (size_t)dim * sizeof *hidden);
    return ALLOY_OK;
}

static alloy_status encode_prompts(sd_run *x) {
    static const char *const packages[] = {"TextEncoder", "TextEncoder2"};
    const alloy_run_options *o = x->s.r->o;
    int encoders = x->f.xl ? 2 : 1;
    double start = ay_now();
    for (int which = 0; which < 2; which++) { /* ay_alloc gives zeros */
        x->embeds[which] = ay_alloc(x->arena, (size_t)(x->s.text * x->f.cross) * sizeof(float));
        x->pooled[which] = ay_alloc(x->arena, (size_t)(x->f.pooled + 1) * sizeof(float));
        if (!x->embeds[which] || !x->pooled[which]) return ay_nomem(x->s.cx);
    }
    for (int i = 0; i < encoders; i++) { /* opened, used and released one after another, before the denoiser loads */
        ay_component *c = NULL;
        ay_progress(x->s.cx, "text", i, encoders);
        alloy_status st = ay_stage_open(&x->s, packages[i], &c);
        if (st == ALLOY_OK) st = encode_one(x, c, i, o->prompt, POSITIVE);
        if (st == ALLOY_OK && x->guided && (o->negative_prompt || !x->zero_negative)) {
            st = encode_one(x, c, i, o->negative_prompt ? o->negative_prompt : "", NEGATIVE);
        }
        ay_stage_close(&x->s, packages[i], &c);
        AY_TRY(st);
    }
    ay_progress(x->s.cx, "text", encoders, encoders);
    json_object_set_new(x->s.r->report, "encode_s", json_real(ay_now() - start));
    return ALLOY_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

typedef struct sd_loop {
    ay_sched *sched;
    float *scaled, *guess[2]; /* [C, h, w] each */
    float timestep, time_ids[6];
    ay_tensor in[5];
    int n_in;
} sd_loop;

static alloy_status prepare_loop(sd_run *x, sd_loop *l) {
    int64_t n = x->f.channels * x->h * x->w;
    AY_TRY(ay_sched_open(x->s.cx, x->arena, x->s.m->scheduler, x->s.r->o->scheduler, x->s.r->steps, n, NULL, &l->sched));
    l->scaled = ay_alloc(x->arena, (size_t)n * sizeof(float));
    for (int i = 0; i < 2; i++) l->guess[i] = ay_alloc(x->arena, (size_t)n * sizeof(float));
    if (!l->scaled || !l->guess[0] || !l->guess[1]) return ay_nomem(x->s.cx);
    l->time_ids[0] = l->time_ids[4] = (float)x->s.r->height; /* original size, crop's corner, target size */
    l->time_ids[1] = l->time_ids[5] = (float)x->s.r->width;
    ay_tensor in[] = {
        {"sample", ay_shape(AY_F32, 4, (int64_t)1, x->f.channels, x->h, x->w), l->scaled},
        {"timestep", ay_shape(AY_F32, 1, (int64_t)1), &l->timestep},
        {"encoder_hidden_states", ay_shape(AY_F32, 3, (int64_t)1, (int64_t)x->s.text, x->f.cross), NULL},
        {"text_embeds", ay_shape(AY_F32, 2, (int64_t)1, x->f.pooled), NULL},
        {"time_ids", ay_shape(AY_F32, 2, (int64_t)1, (int64_t)6), l->time_ids},
    };
    memcpy(l->in, in, sizeof in);
    l->n_in = x->f.xl ? 5 : 3;
    return ALLOY_OK;
}

/* latents [C, h, w], in place */
static alloy_status denoise(sd_run *x, sd_loop *l, ay_component *c, float *latents, int picture, ay_rng *rng) {
    ay_sched *sched = l->sched;
    float guidance = (float)x->s.r->guidance_scale;
    for (int64_t k = 0; k < sched->n; k++) latents[k] *= sched->init_sigma;
    ay_sched_start(sched);
    for (int i = 0; i < sched->calls; i++) {
        double start = ay_now();
        l->timestep = sched->timesteps[i];
        ay_sched_scale(sched, i, latents, l->scaled);
        for (int which = POSITIVE; which <= (x->guided ? NEGATIVE : POSITIVE); which++) {
            ay_tensor out = {"noise_pred", l->in[0].type, l->guess[which]};
            l->in[2].data = x->embeds[which];
            l->in[3].data = x->pooled[which];
            AY_TRY(ay_component_run(x->s.cx, c, l->in, l->n_in, &out, 1));
        }
        for (int64_t k = 0; x->guided && k < sched->n; k++) {
            float away = l->guess[NEGATIVE][k];
            l->guess[POSITIVE][k] = away + guidance * (l->guess[POSITIVE][k] - away);
        }
        ay_sched_step(sched, i, l->guess[POSITIVE], latents, rng);
        json_array_append_new(json_object_get(x->s.r->report, "steps_s"), json_real(ay_now() - start));
        ay_progress(x->s.cx, "steps", picture * sched->calls + i + 1, (double)sched->calls * x->s.r->o->num_images);
    }
    return ALLOY_OK;
}

static alloy_status pictures(sd_run *x) {
    int count = x->s.r->o->num_images;
    int64_t n = x->f.channels * x->h * x->w;
    float *latents = malloc((size_t)(n * count) * sizeof *latents);
    sd_loop l = {0};
    ay_component *c = NULL;
    ay_rng rng;
    alloy_status st = latents ? ay_latents_noise(&x->s, x->f.channels, x->h, x->w, latents, &rng) : ay_nomem(x->s.cx);
    if (st == ALLOY_OK) st = prepare_loop(x, &l);
    if (st == ALLOY_OK) st = ay_stage_open(&x->s, "Unet", &c);
    json_object_set_new(x->s.r->report, "steps_s", json_array());
    for (int i = 0; i < count && st == ALLOY_OK; i++) st = denoise(x, &l, c, latents + i * n, i, &rng);
    ay_stage_close(&x->s, "Unet", &c);
    if (st == ALLOY_OK) st = ay_latents_save(&x->s, x->f.channels, x->h, x->w, latents);
    if (st == ALLOY_OK) st = ay_latents_decode(&x->s, x->f.channels, x->h, x->w, x->f.scaling, 0, latents);
    free(latents);
    return st;
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    sd_run x = {.s = {cx, m, r, m->text_length, 0}, .guided = r->guidance_scale > 1};
    ay_sizes s;
    AY_TRY(read_facts(cx, m, &x.f));
    AY_TRY(sizes(cx, m, ay_model_find(m, "Unet")->row, r->width, r->height, m->text_length, &s));
    AY_TRY(
        ay_json_bool_or(cx, "alloy.json", json_object_get(m->json, "prediction"), "zero_negative", false, &x.zero_negative));
    x.h = s.latent_height;
    x.w = s.latent_width;
    x.arena = ay_arena_new();
    alloy_status st = x.arena ? encode_prompts(&x) : ay_nomem(cx);
    if (st == ALLOY_OK) st = pictures(&x);
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
    {"vae", "AutoencoderKL", "first_stage_model.", false, "{\"scaling_factor\": 0.18215}"}, /* v1-inference.yaml, scale_factor */
    {"vae", "AutoencoderKL", "vae.", false, "{\"scaling_factor\": 0.18215}"},
    {NULL, NULL, NULL, false, NULL},
};
static const ay_file_part file_parts_xl[] = {
    {"unet", "UNet2DConditionModel", "model.diffusion_model.", false, NULL},
    {"unet", "UNet2DConditionModel", "", false, NULL},
    {"text_encoder", "CLIPTextModel", "conditioner.embedders.0.transformer.", false, NULL},
    {"text_encoder_2", "CLIPTextModelWithProjection", "conditioner.embedders.1.model.", false, NULL},
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

static bool file_fits(const json_t *unet, const ay_names *tensors) { return !json_is_string(json_object_get(unet, "addition_embed_type")); }

/* The refiner's only text encoder is the other models' second one. */
static bool file_fits_xl(const json_t *unet, const ay_names *tensors) {
    return json_is_string(json_object_get(unet, "addition_embed_type")) && !ay_names_find(tensors, "conditioner.embedders.0.model.positional_embedding");
}

const ay_pipe_row ay_pipe_sd = {
    .class_name = "StableDiffusionPipeline",
    .type = "sd",
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts,
    .file_fits = file_fits,
    .file_hints = file_hints,
};
const ay_pipe_row ay_pipe_sdxl = {
    .class_name = "StableDiffusionXLPipeline",
    .type = "sdxl",
    .parts = parts_xl,
    .tokenizers = tokenizers_xl,
    .upcast = "force_upcast", /* as the reference does */
    .defaults = defaults,
    .sizes = sizes,
    .run = run,    .file_parts = file_parts_xl,
    .file_fits = file_fits_xl,
    .file_hints = file_hints,
};
