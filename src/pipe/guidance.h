/* SPDX-License-Identifier: MIT
 *
 * Classifier-free guidance: a denoiser asked for the prompt and for the negative prompt, in one call or two.
 */
#ifndef AY_GUIDANCE_H
#define AY_GUIDANCE_H

#include "pipe/denoise.h"

enum { AY_POSITIVE, AY_NEGATIVE };

typedef struct ay_guidance ay_guidance;
struct ay_guidance {
    bool guided; /* else the prompt alone is asked for */
    float scale;
    int64_t n, seen; /* numbers of what the model predicts, and of the sample it reads, for one picture */
    /** The denoiser for `count` prompts from `which` on: inputs and answer have as many rows, at->sample too. */
    alloy_status (*call)(void *user, const ay_moment *at, int which, int count, float *answer);
    void *user;
    bool apart; /* always in two calls */
    int count;  /* prompts a call, from opening on */
    float *guess, *sample; /* [2, n], [2, seen] */
};

/** Opens the denoiser and decides how many prompts it takes a call. To be closed also after a failure. */
alloy_status ay_guidance_open(ay_stage *x, const char *package, const ay_denoiser *d, ay_guidance *g, ay_component **c);
void ay_guidance_close(ay_guidance *g);
/** negative + scale * (prompt - negative), or the prompt's prediction where there is no guidance. */
alloy_status ay_guidance_predict(ay_guidance *g, const ay_moment *at, float *answer);

#endif
