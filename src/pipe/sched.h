/* SPDX-License-Identifier: MIT
 *
 * Schedulers: at which timesteps a model is called, and how its answers move the sample. One list for all models, by the
 * class names of diffusers and by short names; settings come from the checkpoint's scheduler_config.json.
 *
 *   ay_sched_open -> for i < calls: ay_sched_scale, the model at timesteps[i], ay_sched_step
 */
#ifndef AY_SCHED_H
#define AY_SCHED_H

#include "pipe/pipe.h"

typedef struct ay_sched ay_sched;

/** What a model predicts: noise (or what follows from it), or a velocity between picture and noise. */
typedef enum ay_sched_kind { AY_SCHED_NOISE = 1, AY_SCHED_FLOW = 2 } ay_sched_kind;

typedef struct ay_sched_row {
    const char *class_name; /* in diffusers */
    const char *name;       /* on the command line */
    const char *label;      /* in a picture's settings, in the words of other tools */
    unsigned kind;          /* of models it is for, ay_sched_kind; several may be */
    const char *spacing;    /* timestep_spacing where the configuration has none */
    const char *betas;      /* beta_schedule, the same */
    double beta_start, beta_end;
    bool rescales; /* the class has rescale_betas_zero_snr */
    /** Fills calls, timesteps, sigmas, init_sigma from the configuration read so far. */
    alloy_status (*begin)(ay_ctx *cx, ay_sched *s, const json_t *config);
    /** What the model is to see of the sample; NULL: the sample. */
    void (*scale)(const ay_sched *s, int i, const float *sample, float *out);
    /** Moves `sample` by the model's answer; ones that add noise draw it from `rng`. */
    void (*step)(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng);
} ay_sched_row;

typedef enum ay_prediction { AY_PREDICTS_NOISE, AY_PREDICTS_VELOCITY, AY_PREDICTS_SAMPLE } ay_prediction;
typedef enum ay_spacing { AY_SPACING_LEADING, AY_SPACING_TRAILING, AY_SPACING_LINSPACE } ay_spacing;

enum { AY_SCHED_KEPT = 6 };

struct ay_sched {
    const ay_sched_row *row;
    ay_arena *arena;
    int steps;        /* asked for */
    int calls;        /* of the model: more than steps where a method needs more */
    int64_t n;        /* numbers in one sample */
    const ay_flow_ask *ask; /* may be NULL; only while beginning */
    float *timesteps; /* [calls] */
    float *sigmas;    /* noise over signal, the last one where it ends; [steps + 1] (or what the method says) */
    float init_sigma; /* the first noise is multiplied with it */
    /* from scheduler_config.json */
    int64_t train_steps, offset;
    float *alphas; /* products of 1 - beta, [train_steps] */
    ay_prediction prediction;
    ay_spacing spacing;
    bool karras, exponential, ends_at_min, alpha_to_one, zero_snr;
    float clip; /* 0: predicted samples are not clipped */
    int order;
    bool sde, heun_solver, lower_order_final, euler_at_final, bh1;
    double scaling; /* of timesteps, in consistency models' boundary condition */
    /* of the picture being made */
    float *kept[AY_SCHED_KEPT]; /* [n] each, as `keep` asked for */
    int n_kept, counter;
    ay_flow flow;
};

const ay_sched_row *const *ay_sched_list(int *n);
/** The row for a model whose scheduler_config.json is `config`: `name` (class or short name) when not NULL, else the
 *  configuration's own. A name that does not fit the model is a sentence that lists those that do. */
alloy_status ay_sched_choose(ay_ctx *cx, const json_t *config, const char *name, const ay_sched_row **out);
/** In `arena`. `ask`, for flow matching, may be NULL. */
alloy_status ay_sched_open(ay_ctx *cx, ay_arena *arena, const json_t *config, const char *name, int steps, int64_t n,
                           const ay_flow_ask *ask, ay_sched **out);
/** Before each picture. */
void ay_sched_start(ay_sched *s);
void ay_sched_scale(const ay_sched *s, int i, const float *sample, float *out);
void ay_sched_step(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng);

/* ---- shared by the methods (sched.c) ---------------------------------------------------------------------------- */

/** alphas, prediction, spacing and the like of noise schedules given by betas. */
alloy_status ay_sched_read_betas(ay_ctx *cx, ay_sched *s, const json_t *config);
/** `count` timesteps, high to low, as t (rounded to whole numbers if asked). `plus_one`: spaced for count + 1, the lowest
 *  left out (multistep methods). */
void ay_sched_space(const ay_sched *s, int count, bool whole, bool plus_one, double *t);
/** sigmas[steps + 1] at the timesteps t[steps], respaced if the configuration says so, and then t after them. `whole`, for
 *  the multistep methods: timesteps are whole numbers, and respacing goes from the first to the last training step. */
alloy_status ay_sched_sigmas(ay_ctx *cx, ay_sched *s, double *t, bool whole);
/** Settings that would change the picture and are not known here: refused unless null or false. */
alloy_status ay_sched_refuse(ay_ctx *cx, const json_t *config, const char *const *keys);
/** At most one way of respacing sigmas. */
alloy_status ay_sched_one_spacing(ay_ctx *cx, bool karras, bool exponential, bool beta);
/** The p-quantile of the beta distribution with both parameters `a` (sched_flow.c). */
double ay_beta_quantile(double p, double a);
/** calls = 2 * steps - 1: every timestep t[steps] but the first twice, and sigmas[steps + 1] likewise but for the end. */
alloy_status ay_sched_twice(ay_ctx *cx, ay_sched *s, const float *t, const float *sigmas);
alloy_status ay_sched_keep(ay_ctx *cx, ay_sched *s, int count);
/** The oldest of the first `count` kept becomes the newest, kept[0], which is returned to be filled. */
float *ay_sched_rotate(ay_sched *s, int count);

#endif
