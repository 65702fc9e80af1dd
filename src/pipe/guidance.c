/* SPDX-License-Identifier: MIT
 *
 * Prompt and negative prompt in one call of a graph built for two pictures, or in two calls of the graph for one. One call
 * unpacks and reads each weight once for both: faster where a picture has few latents, and where a memory limit leaves
 * weights to be read again in every call. For larger pictures it is no faster and needs almost twice the values. The
 * figures are in docs/speed-log.md ("Guidance"), bench/guidance.c measures them. A package is for one picture: one call
 * means the graph built anew over its weights, as for another size.
 */
#include "pipe/guidance.h"

#include <stdlib.h>
#include <string.h>

enum { FEW = 32 * 32 }; /* latents up to which one call was faster for every model and storage measured */

static alloy_status open_for(ay_stage *x, const char *package, int count, ay_component **c) {
    x->batch = count;
    alloy_status st = ay_stage_open(x, package, c);
    x->batch = 0;
    return st;
}

/* How many prompts a call takes, and the component for that many. */
static alloy_status choose(ay_stage *x, const char *package, bool one, bool few, ay_guidance *g, ay_component **c) {
    g->count = 1;
    if (one || !few) AY_TRY(open_for(x, package, 1, c));
    if (one || (!few && !ay_component_streamed(*c))) return ALLOY_OK;
    /* the values of two pictures must leave the limit room for the largest weight, else it is as for one */
    ay_component *alone = *c;
    *c = NULL;
    alloy_status st = open_for(x, package, 2, c);
    if (st == ALLOY_E_NOMEM && x->r->exec.memory_limit) {
        *c = alone;
        return alone ? ALLOY_OK : open_for(x, package, 1, c);
    }
    ay_component_close(&alone);
    g->count = 2;
    return st;
}

alloy_status ay_guidance_open(ay_stage *x, const char *package, const ay_denoiser *d, ay_guidance *g, ay_component **c) {
    /* emulation shows what the package's own operations do */
    bool one = !g->guided || g->apart || x->r->exec.emulate_f16;
    g->guess = malloc((size_t)(2 * g->n) * sizeof *g->guess);
    g->sample = malloc((size_t)(2 * g->seen) * sizeof *g->sample);
    if (!g->guess || !g->sample) return ay_nomem(x->cx);
    AY_TRY(choose(x, package, one, d->height * d->width <= FEW, g, c));
    if (g->guided) json_object_set_new(x->r->report, "prompts_a_call", json_integer(g->count));
    return ALLOY_OK;
}

void ay_guidance_close(ay_guidance *g) {
    free(g->guess);
    free(g->sample);
    g->guess = g->sample = NULL;
}

alloy_status ay_guidance_predict(ay_guidance *g, const ay_moment *at, float *answer) {
    if (!g->guided) return g->call(g->user, at, AY_POSITIVE, 1, answer);
    ay_moment both = *at;
    if (g->count == 2) {
        for (int i = 0; i < 2; i++) memcpy(g->sample + i * g->seen, at->sample, (size_t)g->seen * sizeof *g->sample);
        both.sample = g->sample;
    }
    for (int which = 0; which < 2; which += g->count) AY_TRY(g->call(g->user, &both, which, g->count, g->guess + which * g->n));
    const float *with = g->guess, *away = g->guess + g->n;
    for (int64_t k = 0; k < g->n; k++) answer[k] = away[k] + g->scale * (with[k] - away[k]);
    return ALLOY_OK;
}
