/* SPDX-License-Identifier: MIT
 *
 * Pipelines: what calls what. A row says which components a pipeline class has, what sizes they need, and how a prompt
 * becomes a picture; converting, running and describing are the same code for every row.
 *
 *   convert.c   checkpoint -> model folder               exec.c      one component, ready to run
 *   single.c    what a checkpoint of one file is
 *   manifest.c  alloy.json                               run.c       model folder + prompt -> pictures
 *   sched*.c    timesteps and steps, one list            pipe_*.c    one pipeline family each
 *   validate.c  model folders and packages, checked
 *   denoise.c   the loop between noise and picture       image_input.c   pictures a run starts from
 *   latents.c   what is around that loop                 memory.c   whether a run has room, before it begins
 */
#ifndef AY_PIPE_H
#define AY_PIPE_H

#include "base/rng.h"
#include "coreml/coreml.h"
#include "cpu/cpu.h"
#include "io/io.h"
#include "model/model.h"
#include "source/lora.h"
#include "source/source.h"
#include "token/token.h"

/* ---- the list -------------------------------------------------------------------------------------------------------- */

/** One component of a pipeline: where its weights are in a checkpoint folder, what it is called in a model folder. */
typedef struct ay_part_row {
    const char *package;    /* "Transformer": Transformer.mlpackage, and the key in alloy.json; NULL ends the list */
    const char *folder;     /* "transformer" in the checkpoint */
    const char *graph_kind; /* which graph of the class */
    bool optional;          /* left out when the checkpoint has no such folder */
} ay_part_row;

typedef struct ay_request ay_request;
typedef struct ay_model ay_model;
typedef struct ay_model_part ay_model_part;

/** Where a component's tensors may be in a checkpoint of one file. */
typedef struct ay_file_part {
    const char *folder;     /* as in ay_part_row; NULL ends the list */
    const char *class_name; /* which architecture */
    const char *prefix;     /* of its tensors' names */
    bool flat;              /* the names behind it have no dots: EMA copies */
    const char *facts;      /* JSON: what the published configuration says beyond the shapes, for want of a base; or NULL */
} ay_file_part;

/** A tensor that says something about the schedule by being there. */
typedef struct ay_file_hint {
    const char *tensor, *key, *value; /* value as JSON; tensor NULL ends the list */
} ay_file_hint;

/** A tensor by which a file says that its weights are not to be taken as they are. */
typedef struct ay_file_refusal {
    const char *tensor, *reason; /* tensor NULL ends the list */
} ay_file_refusal;

/** What a pipeline can do besides pictures from text. */
typedef struct ay_tasks {
    double image_strength; /* how much of a given picture changes where the request does not say; 0: it takes none */
    double mask_strength;  /* the same where a mask says what to paint */
    bool clip_skip;        /* layers of its text encoders can be left out */
    const char *controlled; /* the package that takes a control net's results; NULL: none does */
} ay_tasks;

typedef struct ay_pipe_row {
    const char *class_name; /* _class_name of model_index.json */
    const char *const *also; /* classes of the same components, for other tasks; NULL-terminated or NULL */
    const char *type;       /* what list-models shows */
    bool single;            /* one model's folder, with its config.json and no model_index.json, without text and scheduler */
    const ay_part_row *parts;
    const char *const *tokenizers; /* folders to copy, NULL-terminated */
    const char *upcast; /* parts whose configuration says this are float32 throughout; may be NULL */
    /** Fills what the caller left 0 in w, h, text, and the model's prediction defaults (steps, guidance_scale) as JSON. */
    alloy_status (*defaults)(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction);
    /** The sizes one component is built for; a picture that does not fit is a sentence that says which sizes do. */
    alloy_status (*sizes)(ay_ctx *cx, const ay_model *m, const ay_part_row *part, int w, int h, int text, ay_sizes *out);
    alloy_status (*run)(ay_ctx *cx, ay_model *m, ay_request *r);
    /** Of checkpoints of one file (single.c): the first row's folder is the component that tells the pipeline, if file_fits takes
     *  its configuration (NULL: any). The first row of a folder that fits the file counts. May be NULL. */
    const ay_file_part *file_parts;
    bool (*file_fits)(const json_t *config);
    const ay_file_hint *file_hints;
    const ay_file_refusal *file_refusals; /* may be NULL */
    /** Looks at one component's numbers for what no name or shape says, and warns where they contradict the settings. May be NULL. */
    void (*file_doubts)(ay_ctx *cx, const ay_model *m, const ay_model_part *part, const ay_source *tensors, const char *file);
    ay_tasks tasks;
    /** Pixels that width and height are multiples of; NULL: 8. */
    alloy_status (*unit)(ay_ctx *cx, const ay_model *m, int64_t *out);
} ay_pipe_row;

const ay_pipe_row *ay_pipe_find(const char *class_name);
const ay_pipe_row *const *ay_pipe_list(int *n);

/* ---- a model: a checkpoint folder being converted, or a model folder being run ---------------------------------------- */

enum { AY_MAX_PARTS = 16, AY_MAX_TOKENIZERS = 4, AY_MAX_SIZES = 16, AY_MAX_LINKS = 256 };

/** A function of a part's packages and the sizes it is for. */
typedef struct ay_part_function {
    const char *name;
    ay_sizes sizes;
} ay_part_function;

struct ay_model_part {
    const ay_part_row *row;
    const ay_arch *arch;
    const json_t *config; /* borrowed from the manifest */
    void *cfg;            /* the architecture's own struct */
    ay_sizes sizes;       /* what the package was converted for: functions[0] */
    ay_part_function functions[AY_MAX_SIZES];
    int n_functions;
    int n_links; /* packages that run one after another; 1: the part is one */
    bool upcast; /* values leave half's range: float32 throughout */
};

/** The name of a part's package: "Transformer", or "Transformer_2of5" for link 1 of a chain. In `a`; NULL: no memory. */
char *ay_part_package(ay_arena *a, const ay_model_part *part, int link);

struct ay_model {
    ay_arena *arena;
    char *dir;       /* the model folder; NULL while converting */
    json_t *json;    /* alloy.json */
    const ay_pipe_row *row;
    ay_model_part parts[AY_MAX_PARTS];
    int n_parts;
    const json_t *scheduler; /* scheduler_config.json */
    int width, height, text_length;
    const json_t *index; /* while converting: model_index.json */
    int token_limits[AY_MAX_TOKENIZERS]; /* while converting: the longest text each of the row's tokenizers names; 0: none */
    ay_dtype precision; /* AY_F16 or AY_F32 */
};

alloy_status ay_model_open(ay_ctx *cx, const char *dir, ay_model **out);
void ay_model_close(ay_model **m);
/** By package name; NULL when this model has no such part. */
const ay_model_part *ay_model_find(const ay_model *m, const char *package);
/** Not when its text encoder ("text_encoder_3" of "tokenizer_3") is an optional one that this model has not. */
bool ay_tokenizer_needed(const ay_model *m, const char *tokenizer);
/** Reads class and configuration of one part from its config JSON (borrowed) and adds it to the model. `what` names the file;
 *  `loaded_as` (may be NULL) is the class the pipeline loads it with. */
alloy_status ay_model_add_part(ay_ctx *cx, ay_model *m, const ay_part_row *row, const char *what, const json_t *config,
                               const char *loaded_as);
/** The storage of every PARAM as alloy.json keeps it: name, dtype, shape, offsets in weight.bin. */
json_t *ay_weight_table(const ay_weight_entry *e, int n);

/** Builds the graph of a part for `sizes`, checks it against its checkpoint (when `source` is not NULL), and types it for
 *  `precision`. */
alloy_status ay_part_graph(ay_ctx *cx, const ay_model_part *part, const ay_sizes *sizes, ay_dtype precision, const ay_source *source,
                           ay_graph **out);

/* ---- one component, ready to run ------------------------------------------------------------------------------------------ */

typedef struct ay_component ay_component;
typedef struct ay_exec_options {
    bool emulate_f16;
    bool profile;
    bool warm_up;        /* every program's first run is done twice, and the profile has the second */
    size_t memory_limit; /* bytes of the process in memory; 0: none */
    size_t *least;       /* set to the limit that would do; may be NULL */
    bool int8_activations;
} ay_exec_options;

/** At the size it was converted for, the package's own MIL program; at another, the graph built anew with the package's
 *  weights bound by name. */
alloy_status ay_component_open(ay_ctx *cx, const ay_model *m, const char *package, const ay_sizes *sizes, const ay_exec_options *o,
                               ay_component **out);
/** The second way in any case: the model's graph for `sizes`, the package's weights. */
alloy_status ay_component_rebuild(ay_ctx *cx, const ay_model *m, const char *package, const ay_sizes *sizes, const ay_exec_options *o,
                                  ay_component **out);
/** Any .mlpackage by path, one function. `known`: inputs by name, for programs in which shapes hang on their numbers. */
alloy_status ay_component_open_package(ay_ctx *cx, const char *path, const char *function, const ay_tensor *known, int n_known,
                                       const ay_exec_options *o, ay_component **out);
void ay_component_close(ay_component **c);
alloy_status ay_component_run(ay_ctx *cx, ay_component *c, const ay_tensor *in, int n_in, ay_tensor *out, int n_out);
/** Outputs of the program, in order: names and types (data NULL). */
const ay_tensor *ay_component_outputs(const ay_component *c, int *n);
const ay_tensor *ay_component_inputs(const ay_component *c, int *n);
int64_t ay_component_overflows(const ay_component *c);
size_t ay_component_peak(const ay_component *c);
size_t ay_component_streamed(const ay_component *c); /* bytes of weights that a memory limit has each run read again */
double ay_component_wall(const ay_component *c); /* seconds of the runs in the profile */
json_t *ay_component_profile(const ay_component *c); /* array of steps, new reference */

/* ---- a request ---------------------------------------------------------------------------------------------------------------- */

/** Pictures that a run starts from, all of the run's size (image_input.c). */
typedef struct ay_inputs {
    ay_image picture;    /* RGB; pixels NULL: none */
    ay_image mask_image; /* gray */
    const uint8_t *mask; /* its pixels: 128 and more is painted, the rest of the picture kept; NULL: none */
    double strength;     /* how much of the steps to make: 0 to 1 */
    ay_image control;    /* RGB, what a control net sees; pixels NULL: none */
} ay_inputs;

struct ay_request {
    const alloy_run_options *o;
    ay_inputs in;
    int width, height, steps;
    double guidance_scale;
    const char *sampler; /* the scheduler, as other tools write it */
    ay_exec_options exec;
    json_t *report; /* pipelines add what they did: "encode_s", "steps_s" [], "decode_s", "peak_bytes"; stages add "open_s",
                       "profile" and "profile_wall_s" by package */
    /** Takes each finished picture. */
    alloy_status (*take)(void *user, ay_ctx *cx, int index, const ay_image *im);
    void *user;
};

/* ---- a checkpoint of one file (single.c) ------------------------------------------------------------------------------------------ */

typedef struct ay_single_part {
    const ay_file_part *row;
    const ay_naming *naming;
    json_t *config;
} ay_single_part;

typedef struct ay_single {
    const ay_pipe_row *row;
    const ay_pipe_row *also; /* another pipeline whose first component is in the file; or NULL */
    ay_source *source;
    ay_single_part parts[AY_MAX_PARTS];
    int n;
    const char *prefixes[AY_MAX_PARTS + 1]; /* of the parts that have one, NULL-terminated */
} ay_single;

/** Says what the file is; where it could be several things, the one of type `type`, if there is one (may be NULL). What the
 *  shapes of a component do not tell comes from its config.json in the folder `base` (may be NULL), if that is of the same
 *  widths. To be closed also after a failure. */
alloy_status ay_single_open(ay_ctx *cx, const char *path, const char *type, const char *base, ay_single *out);
void ay_single_close(ay_single *s);
/** The component of this folder, or NULL where the file has none. */
const ay_single_part *ay_single_find(const ay_single *s, const char *folder);
/** Says which components are in the file and which come from the folder `base`. */
void ay_single_say(ay_ctx *cx, const ay_single *s, const char *path, const char *base);
/** ALLOY_OK if the file is enough by itself, else a sentence that says what it lacks. */
alloy_status ay_single_enough(ay_ctx *cx, const ay_single *s, const char *path);
/** Changes a scheduler_config.json as the file's marker tensors say. */
void ay_single_hints(const ay_single *s, json_t *scheduler);
/** Sets what the denoiser predicts in the scheduler's settings; refused where the pipeline's models all predict the same. */
alloy_status ay_prediction_type_set(ay_ctx *cx, const ay_pipe_row *row, const char *type, json_t *scheduler);
/** The tensors of one component. */
alloy_status ay_single_source(ay_ctx *cx, const ay_single *s, const ay_single_part *part, const char *path, const void *cfg, ay_source **out);

alloy_status ay_convert(ay_ctx *cx, const char *source, const alloy_convert_options *o);
/** Reads what the request names, checks it, and decides on width and height where a picture does. */
alloy_status ay_inputs_read(ay_ctx *cx, const ay_model *m, const alloy_run_options *o, ay_request *r);
void ay_inputs_free(ay_inputs *in);
alloy_status ay_run(ay_ctx *cx, const char *model, const alloy_run_options *o);
/** The same for figures: with ay_exec_options.warm_up. */
alloy_status ay_run_warm(ay_ctx *cx, const char *model, const alloy_run_options *o);
/** JSON: the ceilings of this machine and, of a model folder, every operation of one step, without one, kernels. */
alloy_status ay_bench(ay_ctx *cx, const char *model, const alloy_bench_options *o, char **json);
/** {"threads", "isa", "fma_gflops", "int8_gops", "copy_gbs", "read_gbs"}; NULL after a failure. */
json_t *ay_ceilings_json(ay_ctx *cx, double seconds);
alloy_status ay_predict(ay_ctx *cx, const char *package, const char *in, const char *out, const alloy_predict_options *o);
alloy_status ay_info(ay_ctx *cx, const char *path, char **json);
alloy_status ay_list_models(ay_ctx *cx, const char *dir, char **json);
alloy_status ay_validate_path(ay_ctx *cx, const char *path, alloy_finding_fn fn, void *user, int *findings);
/** "cpu", "gpu", "ane", "all" or NULL against what this machine has. */
alloy_status ay_check_compute_units(ay_ctx *cx, const char *units);
alloy_status ay_check_emulate(ay_ctx *cx, const char *emulate, bool *on);
/** "int8", "float", or NULL for what `exec` says. */
alloy_status ay_check_activations(ay_ctx *cx, const char *activations, ay_exec_options *exec);

/** Token ids of a prompt, padded to `length`: int32 [1, length] in `arena`. Says when the text was cut. */
alloy_status ay_tokenize(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, ay_arena *arena, int32_t **ids);
/** [-1, 1] planes [3, H, W] to 8-bit RGB, rounding half to even as diffusers' image processor does. */
alloy_status ay_planes_to_image(ay_ctx *cx, const float *planes, int width, int height, ay_image *out);

/* ---- between noise and picture (latents.c) ------------------------------------------------------------------------------------------ */

/** What the parts of one run share. */
typedef struct ay_stage {
    ay_ctx *cx;
    ay_model *m;
    ay_request *r;
    int text;    /* tokens */
    size_t peak; /* bytes, of the largest component so far */
    int skip;    /* layers at the end of a text encoder, while one is opened */
    int batch;   /* pictures a call, while a denoiser is opened; 0: 1 */
} ay_stage;
/** A component for the request's size. Closing puts its profile into the report and says what overflowed. */
alloy_status ay_stage_open(ay_stage *x, const char *package, ay_component **c);
void ay_stage_close(ay_stage *x, const char *package, ay_component **c);
/** [count, c, h, w] normal numbers from `rng`, or what --latents holds. */
alloy_status ay_latents_noise(ay_stage *x, int64_t c, int64_t h, int64_t w, float *noise, ay_rng *rng);
/** To where --save-latents says, if it does. */
alloy_status ay_latents_save(ay_stage *x, int64_t c, int64_t h, int64_t w, const float *latents);
/** latents / scaling + shift (in place) through VAEDecoder, each picture to the request. */
alloy_status ay_latents_decode(ay_stage *x, int64_t c, int64_t h, int64_t w, double scaling, double shift, float *latents);

/** Whether the components of a run have room, asked before it begins where that is not plain (memory.c). */
alloy_status ay_run_fits(ay_ctx *cx, const ay_model *m, const ay_request *r);

/* ---- flow matching (sched_flow.c) ------------------------------------------------------------------------------------------------- */

typedef struct ay_flow {
    int steps;
    float *sigmas; /* steps + 1, the last one terminal */
    float *timesteps;
    bool stochastic;
} ay_flow;
/** What a pipeline says about its picture. */
typedef struct ay_flow_ask {
    int64_t tokens; /* length of the picture's sequence, for the resolution-dependent shift */
    bool even;      /* the pipeline's own sigmas, evenly from 1 to 1 / steps; else between the trained range's ends */
} ay_flow_ask;
/** The schedule of diffusers' FlowMatchEulerDiscreteScheduler for its own configuration. In `arena`. */
alloy_status ay_flow_schedule(ay_ctx *cx, ay_arena *arena, const json_t *config, int steps, const ay_flow_ask *ask, ay_flow *out);
/** sample += (sigma[i+1] - sigma[i]) * velocity, in float32. */
void ay_flow_step(const ay_flow *f, int i, const float *velocity, float *sample, int64_t n);

#endif
