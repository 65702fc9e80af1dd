/* SPDX-License-Identifier: MIT
 *
 * Schedulers: at which timesteps a model is called, and how its answers move the sample. One list for all models, by the
 * class names of diffusers and by short names; settings come from the checkpoint's scheduler_config.json.
 *
 *   ay_sched_open -> for i < calls: ay_sched_scale, the model at timesteps[i], ay_sched_step
 *
 *   sched.c        the list, choosing, what the methods share     sched_euler.c  steps in sigma: Euler, Heun, DPM++ 2S a
 *   sched_betas.c  configuration, betas, spacing, sigmas          sched_dpm.c    DPM-Solver, multistep and singlestep
 *   sched_flow.c   flow matching: Euler, Heun, LCM                sched_unipc.c  UniPC
 *   sched_ddim.c   DDIM, PNDM                                     sched_lcm.c    LCM, TCD
 */
#ifndef AY_SCHED_H
#define AY_SCHED_H

#include "pipe/pipe.h"

typedef struct ay_sched ay_sched;

/** What a model predicts: noise (or what follows from it), or a velocity between picture and noise. */
typedef enum ay_sched_kind { AY_SCHED_NOISE = 1, AY_SCHED_FLOW = 2 } ay_sched_kind;

/** Settings that not every class has: a class passes over those of others, as diffusers does. */
enum {
    AY_HAS_SPACING = 1,     /* timestep_spacing, steps_offset */
    AY_HAS_RESPACE = 2,     /* use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, sigma_min, sigma_max */
    AY_HAS_FINAL = 4,       /* final_sigmas_type */
    AY_HAS_ZERO_SNR = 8,    /* rescale_betas_zero_snr */
    AY_HAS_LAMBDA_CLIP = 16,/* lambda_min_clipped */
    AY_HAS_LU = 32,         /* use_lu_lambdas */
    AY_HAS_FLOW = 64,       /* use_flow_sigmas, flow_shift */
    AY_HAS_THRESHOLD = 128, /* thresholding, dynamic_thresholding_ratio, sample_max_value */
    AY_HAS_EDM = 256,       /* timestep_type, interpolation_type */
    AY_HAS_EXP_BETAS = 512, /* beta_schedule "exp" */
};

typedef struct ay_sched_row {
    const char *class_name; /* in diffusers */
    const char *name;       /* on the command line */
    const char *label;      /* in a picture's settings, in the words of other tools */
    unsigned kind;          /* of models it is for, ay_sched_kind; several may be */
    unsigned has;           /* AY_HAS_* */
    const char *spacing;    /* timestep_spacing where the configuration has none */
    const char *betas;      /* beta_schedule, the same */
    double beta_start, beta_end;
    bool twice;             /* the model is called twice a step */
    /** Fills calls, timesteps, sigmas, init_sigma from the configuration read so far. */
    alloy_status (*begin)(ay_ctx *cx, ay_sched *s, const json_t *config);
    /** What the model is to see of the sample; NULL: the sample. */
    void (*scale)(const ay_sched *s, int i, const float *sample, float *out);
    /** Moves `sample` by the model's answer; ones that add noise draw it from `rng`. */
    void (*step)(ay_sched *s, int i, const float *model, float *sample, ay_rng *rng);
} ay_sched_row;

typedef enum ay_prediction { AY_PREDICTS_NOISE, AY_PREDICTS_VELOCITY, AY_PREDICTS_SAMPLE, AY_PREDICTS_FLOW } ay_prediction;
typedef enum ay_spacing { AY_SPACING_LEADING, AY_SPACING_TRAILING, AY_SPACING_LINSPACE } ay_spacing;

enum { AY_SCHED_KEPT = 6 };

struct ay_sched {
    const ay_sched_row *row;
    ay_arena *arena;
    bool flows;       /* the model predicts a velocity between picture and noise */
    int steps;        /* asked for */
    int calls;        /* of the model: more than steps where a method needs more */
    int64_t n;        /* numbers in one sample */
    int64_t pictures; /* in it, equally large; 1 unless set after opening */
    const ay_flow_ask *ask; /* may be NULL; only while beginning */
    float *timesteps; /* [calls] */
    float *sigmas;    /* noise over signal, the last one where it ends; [steps + 1] (or what the method says) */
    float init_sigma; /* the first noise is multiplied with it */
    /* from scheduler_config.json */
    int64_t train_steps, offset, last_step; /* last_step: one past the highest timestep in use */
    float *alphas; /* products of 1 - beta, [train_steps] */
    ay_prediction prediction;
    ay_spacing spacing;
    bool karras, exponential, beta, lu, flow_sigmas, cosine_betas;
    bool ends_at_min, alpha_to_one, zero_snr, continuous, log_linear;
    double sigma_min, sigma_max; /* NaN: the schedule's own */
    double flow_shift;
    float clip; /* 0: predicted samples are not clipped */
    bool threshold;
    float threshold_ratio, threshold_most;
    int order, algorithm;
    int *orders; /* of each call, where they are planned */
    bool heun_solver, lower_order_final, euler_at_final, bh1, noise_form;
    bool sde;           /* asked for by the row's name */
    uint64_t uncorrected; /* steps without corrector */
    double scaling;     /* of timesteps, in consistency models' boundary condition */
    float eta;          /* share of noise that is drawn anew */
    /* of the picture being made */
    float *kept[AY_SCHED_KEPT]; /* [n] each, as `keep` asked for */
    float *sorted;              /* [n], for thresholds */
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
/** `picture` [n] with as much of `noise` as a sample has before call `i` (add_noise, scale_noise). */
void ay_sched_add_noise(const ay_sched *s, int i, const float *picture, const float *noise, float *out, int64_t n);

/* ---- shared by the methods (sched.c) ---------------------------------------------------------------------------- */

/** What errors call the file. */
#define AY_SCHED_FILE "scheduler_config.json"
/** Settings that would change the picture and are not known here: refused unless null or false. */
alloy_status ay_sched_refuse(ay_ctx *cx, const json_t *config, const char *const *keys);
/** Which of `names` (NULL-terminated) the setting is; another word is a sentence that lists them. */
alloy_status ay_sched_word(ay_ctx *cx, const json_t *config, const char *key, const char *dflt, const char *const *names, int *out);
/** At most one way of respacing sigmas. */
alloy_status ay_sched_one_spacing(ay_ctx *cx, bool karras, bool exponential, bool beta);
/** clip_sample, clip_sample_range */
alloy_status ay_sched_read_clip(ay_ctx *cx, ay_sched *s, const json_t *config, bool dflt);
/** calls = 2 * steps - 1: every timestep t[steps] but the first twice, and sigmas[steps + 1] likewise but for the end. */
alloy_status ay_sched_twice(ay_ctx *cx, ay_sched *s, const float *t, const float *sigmas);
alloy_status ay_sched_keep(ay_ctx *cx, ay_sched *s, int count);
/** The oldest of the first `count` kept becomes the newest, kept[0], which is returned to be filled. */
float *ay_sched_rotate(ay_sched *s, int count);
/** A predicted picture [n] brought into range, as the configuration has it: by thresholds or by clipping. */
void ay_sched_limit(ay_sched *s, float *picture);

/* ---- configuration and sigmas (sched_betas.c) --------------------------------------------------------------------- */

/** alphas, prediction, spacing and the like of noise schedules given by betas. */
alloy_status ay_sched_read_betas(ay_ctx *cx, ay_sched *s, const json_t *config);
/** `count` timesteps, high to low, as t (rounded to whole numbers if asked). `plus_one`: spaced for count + 1, the lowest
 *  left out (multistep methods). */
void ay_sched_space(const ay_sched *s, int count, bool whole, bool plus_one, double *t);
/** sigmas[steps + 1] at the timesteps t[steps], respaced if the configuration says so, and then t after them. `whole`, for
 *  the multistep methods: timesteps are whole numbers, and respacing goes from the first to the last training step. */
alloy_status ay_sched_sigmas(ay_ctx *cx, ay_sched *s, double *t, bool whole);
/** The timestep that has this sigma, between neighbours in the logarithm. */
double ay_sched_sigma_to_t(const ay_sched *s, double sigma);
/** The p-quantile of the beta distribution with both parameters `a`. */
double ay_beta_quantile(double p, double a);
/** numpy.linspace: start + i * step in double, the last one exact. */
double ay_linspace(double from, double to, int n, int i);

/* ---- signal and noise at a place of the schedule (sched_dpm.c) ------------------------------------------------------ */

typedef struct ay_place {
    float alpha, sigma, lambda; /* lambda = log(alpha / sigma); infinite at the end */
} ay_place;
ay_place ay_sched_place(const ay_sched *s, int i);
/** The model's answer as a picture [n], or, where the method works on noise, as noise. */
const float *ay_sched_convert(ay_sched *s, int i, const float *model, const float *sample, float *out);
/** What multistep and singlestep methods begin with: timesteps, sigmas, what is kept. */
alloy_status ay_sched_begin_solver(ay_ctx *cx, ay_sched *s, const json_t *config, bool lower_order_final);

#endif
