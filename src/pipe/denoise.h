/* SPDX-License-Identifier: MIT
 *
 * From a pipeline's denoiser to pictures: noise or a given picture, the scheduler's steps, masks, the decoder. A pipeline
 * says how its model is called; what a picture to start from or a mask changes is done here, for all of them.
 */
#ifndef AY_DENOISE_H
#define AY_DENOISE_H

#include "pipe/pipe.h"
#include "pipe/sched.h"

/** One call of the denoiser for one picture. */
typedef struct ay_moment {
    int index, count; /* which of how many calls this run makes */
    float timestep;
    const float *sample; /* latents as the scheduler shows them, in the denoiser's layout (and mask, masked picture behind) */
} ay_moment;

typedef struct ay_denoiser ay_denoiser;
struct ay_denoiser {
    int64_t channels, height, width; /* of the latents of one picture */
    double scaling, shift;           /* between them and the VAE's: (z - shift) * scaling */
    const ay_flow_ask *ask;          /* may be NULL */
    bool reads_mask;                 /* takes mask [1, h, w] and masked latents [C, h, w] behind its sample's channels */
    /** [C, h, w] to the layout the denoiser works in, and back; NULL: it is the same. */
    void (*pack)(const ay_denoiser *d, const float *planes, float *packed);
    void (*unpack)(const ay_denoiser *d, const float *packed, float *planes);
    alloy_status (*open)(void *user); /* the components, after all others are closed */
    /** What the model predicts, guidance included, as the scheduler is to see it. */
    alloy_status (*predict)(void *user, const ay_moment *at, float *answer);
    void (*close)(void *user); /* also after an open that failed */
    void *user;
};
/** Pictures of the request, from noise to their files. */
alloy_status ay_denoise(ay_stage *x, const ay_denoiser *d);

/* ---- pictures that a run starts from (image_input.c) -------------------------------------------------------------- */

/** The given picture's latents [C, h, w], drawn from what the encoder says of them; `masked`: without what is painted. */
alloy_status ay_inputs_encode(ay_stage *x, const ay_denoiser *d, bool masked, ay_rng *rng, float *latents);
/** The mask at the latents' size, 1 where it paints. */
void ay_inputs_mask(const ay_inputs *in, int64_t height, int64_t width, float *mask);

#endif
