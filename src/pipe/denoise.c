/* SPDX-License-Identifier: MIT
 *
 * The loop between noise and picture, the same for every pipeline: where it starts (noise, or a picture with noise on it),
 * the calls of the denoiser, what a mask keeps, the decoder. Pictures of one call are one batch to the scheduler, so that
 * they draw their noise as a batch in diffusers does, and go through the model one after another.
 */
#include "pipe/denoise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- where it starts ------------------------------------------------------------------------------------------------ */

typedef struct start {
    int begin, end; /* the first call, and one past the last */
    float *noise; /* [N, n]; the first noise */
    float *clean; /* [n]; the picture's latents, or NULL */
    float *keeps; /* [n]; 1 where a mask paints, 0 where it keeps; NULL: no mask, or the denoiser reads it */
    float *behind; /* [1 + C, h, w]: mask and masked picture, for denoisers that read them */
    float *sample; /* [2 * C + 1, h, w]: what those see */
} start;

static void free_start(start *s) {
    free(s->noise);
    free(s->clean);
    free(s->keeps);
    free(s->behind);
    free(s->sample);
}

static int64_t numbers(const ay_denoiser *d) { return d->channels * d->height * d->width; }

/* get_timesteps of the img2img pipelines: the flow-matching ones round the steps up, the others down. */
static alloy_status first_call(ay_ctx *cx, const ay_sched *sched, double strength, int *begin) {
    int n = sched->steps, skipped;
    if (sched->flows) skipped = (int)fmax(n - fmin(n * strength, n), 0);
    else skipped = n - (int)fmin((int)(n * strength), n);
    if (skipped >= n) {
        return ay_fail(cx, ALLOY_E_USAGE, "a strength of %g leaves none of %d steps to make; ask for at least %.2g, or for more steps", strength,
                       n, ceil(100.0 / n) / 100);
    }
    *begin = skipped * (sched->row->twice ? 2 : 1);
    return ALLOY_OK;
}

/* The part of the steps that is asked for, by timesteps as diffusers cuts them (denoising_end of
 * pipeline_stable_diffusion_xl.py, denoising_start of pipeline_stable_diffusion_xl_img2img.py). */
static alloy_status cut(ay_ctx *cx, const ay_sched *sched, const alloy_run_options *o, start *s) {
    double train = (double)sched->train_steps, from = o->denoising_start, to = o->denoising_end;
    int n = sched->calls, left = 0, made = 0;
    s->end = n;
    if (from == 0 && to == 0) return ALLOY_OK;
    if (!(from >= 0 && from < 1 && to >= 0 && to <= 1) || (to > 0 && from >= to)) {
        return ay_fail(cx, ALLOY_E_USAGE, "steps from %g to %g: --denoising-start and --denoising-end are shares from 0 to 1, in this order", from, to);
    }
    if (sched->flows) return ay_fail(cx, ALLOY_E_USAGE, "--denoising-start and --denoising-end are for models that predict noise; this one predicts a velocity");
    if (from > 0 && (!o->latents || o->image)) return ay_fail(cx, ALLOY_E_USAGE, "--denoising-start goes on from what another run left with --save-latents; give it with --latents, without --image");
    for (int i = 0; i < n; i++) left += sched->timesteps[i] < (float)rint(train - from * train);
    for (int i = 0; i < n; i++) made += sched->timesteps[i] >= (float)rint(train - to * train);
    if (from > 0) s->begin = n - left - (sched->row->twice && left % 2 == 0);
    if (to > 0 && to < 1) s->end = made;
    if (s->begin < 0) s->begin = 0;
    return s->begin < s->end ? ALLOY_OK : ay_fail(cx, ALLOY_E_USAGE, "steps from %g to %g: none of %d lies there; ask for more steps", from, to > 0 ? to : 1, sched->steps);
}

/* Mask and masked picture, which some denoisers read behind their sample's channels. The masked picture's latents are drawn
 * either way, as diffusers does. */
static alloy_status start_masked(ay_stage *x, const ay_denoiser *d, ay_rng *rng, start *s) {
    int64_t plane = d->height * d->width, n = numbers(d);
    const ay_inputs *in = &x->r->in;
    float *mask = malloc((size_t)plane * sizeof *mask), *masked = malloc((size_t)n * sizeof *masked);
    s->keeps = malloc((size_t)n * sizeof *s->keeps);
    alloy_status st = mask && masked && s->keeps ? ALLOY_OK : ay_nomem(x->cx);
    if (st == ALLOY_OK) ay_inputs_mask(in, d->height, d->width, mask);
    if (st == ALLOY_OK && !d->reads_mask) {
        ay_rng_normal(rng, masked, (size_t)n);
        for (int64_t c = 0; c < d->channels; c++) memcpy(masked + c * plane, mask, (size_t)plane * sizeof *mask);
        if (d->pack) d->pack(d, masked, s->keeps);
        else memcpy(s->keeps, masked, (size_t)n * sizeof *masked);
    } else if (st == ALLOY_OK) {
        free(s->keeps);
        s->keeps = NULL;
        s->behind = malloc((size_t)(plane + n) * sizeof *s->behind);
        s->sample = malloc((size_t)(plane + 2 * n) * sizeof *s->sample);
        st = s->behind && s->sample ? ay_inputs_encode(x, d, true, rng, s->behind + plane) : ay_nomem(x->cx);
        if (st == ALLOY_OK) memcpy(s->behind, mask, (size_t)plane * sizeof *mask);
    }
    free(mask);
    free(masked);
    return st;
}

/* Draws in diffusers' order: the picture's latents, the noise, the masked picture's latents. latents [N, n], in the
 * denoiser's layout. */
static alloy_status begin(ay_stage *x, const ay_denoiser *d, ay_sched *sched, ay_rng *rng, float *latents, start *s) {
    const ay_inputs *in = &x->r->in;
    int64_t n = numbers(d), count = x->r->o->num_images;
    bool painted = in->mask != NULL, pure = !in->picture.pixels || (painted && in->strength == 1 && !sched->flows);
    s->noise = malloc((size_t)(n * count) * sizeof *s->noise);
    if (!s->noise) return ay_nomem(x->cx);
    if (in->picture.pixels) AY_TRY(first_call(x->cx, sched, in->strength, &s->begin));
    if (in->picture.pixels && (!pure || !d->reads_mask)) {
        s->clean = malloc((size_t)n * sizeof *s->clean);
        if (!s->clean) return ay_nomem(x->cx);
        AY_TRY(ay_inputs_encode(x, d, false, rng, latents));
        if (d->pack) d->pack(d, latents, s->clean);
        else memcpy(s->clean, latents, (size_t)n * sizeof *latents);
    }
    AY_TRY(ay_latents_noise(x, d->channels, d->height, d->width, latents, rng));
    for (int64_t i = 0; i < count; i++) {
        if (d->pack) d->pack(d, latents + i * n, s->noise + i * n);
        else memcpy(s->noise + i * n, latents + i * n, (size_t)n * sizeof *latents);
    }
    if (painted) AY_TRY(start_masked(x, d, rng, s));
    for (int64_t i = 0; i < count; i++) {
        const float *noise = s->noise + i * n;
        if (!pure) ay_sched_add_noise(sched, s->begin, s->clean, noise, latents + i * n, n);
        float scale = x->r->o->denoising_start > 0 ? 1 : sched->init_sigma; /* what another run left has its noise */
        for (int64_t k = 0; pure && k < n; k++) latents[i * n + k] = noise[k] * scale;
    }
    return ALLOY_OK;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------ */

/* Where the mask keeps the picture, its latents at the noise level of the next call. */
static void blend(const start *s, const ay_sched *sched, int next, int64_t n, int64_t count, float *scratch, float *latents) {
    for (int64_t i = 0; i < count; i++, latents += n) {
        const float *kept = s->clean;
        if (next < sched->calls) {
            ay_sched_add_noise(sched, next, s->clean, s->noise + i * n, scratch, n);
            kept = scratch;
        }
        for (int64_t k = 0; k < n; k++) latents[k] = (1 - s->keeps[k]) * kept[k] + s->keeps[k] * latents[k];
    }
}

static alloy_status loop(ay_stage *x, const ay_denoiser *d, ay_sched *sched, const start *s, ay_rng *rng, float *latents,
                         float *scaled, float *answer) {
    int64_t n = numbers(d), count = x->r->o->num_images;
    json_t *times = json_object_get(x->r->report, "steps_s");
    ay_sched_start(sched);
    for (int i = s->begin; i < s->end; i++) {
        ay_sched_scale(sched, i, latents, scaled);
        for (int64_t k = 0; k < count; k++) {
            double began = ay_now();
            ay_moment at = {i - s->begin, s->end - s->begin, sched->timesteps[i], scaled + k * n};
            if (s->behind) {
                memcpy(s->sample, at.sample, (size_t)n * sizeof *scaled);
                memcpy(s->sample + n, s->behind, (size_t)(n + d->height * d->width) * sizeof *scaled);
                at.sample = s->sample;
            }
            AY_TRY(d->predict(d->user, &at, answer + k * n));
            json_array_append_new(times, json_real(ay_now() - began));
            ay_progress(x->cx, "steps", (double)((i - s->begin) * count + k + 1), (double)((s->end - s->begin) * count));
        }
        ay_sched_step(sched, i, answer, latents, rng);
        if (s->keeps) blend(s, sched, i + 1, n, count, scaled, latents);
    }
    return ALLOY_OK;
}

static alloy_status denoise(ay_stage *x, const ay_denoiser *d, ay_arena *arena, float *latents, float *scaled, float *answer) {
    int64_t n = numbers(d), count = x->r->o->num_images;
    ay_sched *sched = NULL;
    ay_rng rng;
    start s = {0};
    ay_rng_seed(&rng, x->r->o->seed);
    alloy_status st = ay_sched_open(x->cx, arena, x->m->scheduler, x->r->o->scheduler, x->r->steps, n * count, d->ask, &sched);
    if (st == ALLOY_OK) {
        sched->pictures = count;
        st = cut(x->cx, sched, x->r->o, &s);
        if (st == ALLOY_OK) st = begin(x, d, sched, &rng, latents, &s);
    }
    json_object_set_new(x->r->report, "steps_s", json_array());
    if (st == ALLOY_OK) {
        st = d->open(d->user);
        if (st == ALLOY_OK) st = loop(x, d, sched, &s, &rng, latents, scaled, answer);
        d->close(d->user);
    }
    free_start(&s);
    for (int64_t i = 0; d->unpack && i < count && st == ALLOY_OK; i++) {
        memcpy(scaled, latents + i * n, (size_t)n * sizeof *scaled);
        d->unpack(d, scaled, latents + i * n);
    }
    return st;
}

alloy_status ay_denoise(ay_stage *x, const ay_denoiser *d) {
    size_t n = (size_t)(numbers(d) * x->r->o->num_images);
    float *latents = malloc(n * sizeof *latents), *scaled = malloc(n * sizeof *scaled), *answer = malloc(n * sizeof *answer);
    ay_arena *arena = ay_arena_new(); /* the scheduler's, gone before the decoder loads */
    alloy_status st = latents && scaled && answer && arena ? denoise(x, d, arena, latents, scaled, answer) : ay_nomem(x->cx);
    free(scaled);
    free(answer);
    ay_arena_free(arena);
    if (st == ALLOY_OK) st = ay_latents_save(x, d->channels, d->height, d->width, latents);
    if (st == ALLOY_OK) st = ay_latents_decode(x, d->channels, d->height, d->width, d->scaling, d->shift, latents);
    free(latents);
    return st;
}
