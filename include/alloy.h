/* SPDX-License-Identifier: MIT
 *
 * alloy: diffusion checkpoints to Core ML packages, and those packages to pictures.
 *
 * This is the only public header. In the order one uses it:
 *
 *     alloy_ctx *ctx = NULL;
 *     if (alloy_ctx_open(NULL, &ctx) != ALLOY_OK) return 1;
 *
 *     alloy_convert_options co;
 *     alloy_convert_options_init(&co);
 *     co.output_dir = "out";
 *     if (alloy_convert(ctx, "FLUX.1-schnell", &co) != ALLOY_OK) puts(alloy_error(ctx));
 *
 *     alloy_run_options ro;
 *     alloy_run_options_init(&ro);
 *     ro.prompt = "a fox in the snow";
 *     ro.output = "fox.png";
 *     if (alloy_run(ctx, "out/FLUX.1-schnell", &ro) != ALLOY_OK) puts(alloy_error(ctx));
 *
 *     alloy_ctx_close(&ctx);
 *
 * Every function returns a status; the sentence that explains a failure is alloy_error(ctx). A context is used by one
 * thread at a time, except for alloy_stop(), which any thread and any signal handler may call.
 */
#ifndef ALLOY_H
#define ALLOY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ALLOY_API __attribute__((visibility("default")))
#else
#define ALLOY_API
#endif

#define ALLOY_VERSION "0.1.0"

/** What a call came to. The numbers are part of the interface and do not change. */
typedef enum alloy_status {
    ALLOY_OK = 0,
    ALLOY_E_NOMEM = 1,       /**< memory could not be had */
    ALLOY_E_IO = 2,          /**< the operating system refused: not found, no permission, disk full */
    ALLOY_E_FORMAT = 3,      /**< bytes that are not what they claim to be */
    ALLOY_E_UNSUPPORTED = 4, /**< well formed, but nothing here knows how to do it */
    ALLOY_E_MISMATCH = 5,    /**< well formed, but not what was needed: shapes, names, sizes */
    ALLOY_E_USAGE = 6,       /**< the caller's arguments are wrong */
    ALLOY_E_CANCELLED = 7,   /**< alloy_stop() was called */
    ALLOY_E_INTERNAL = 8     /**< a bug in alloy */
} alloy_status;

/** Everything alloy keeps between calls: threads, the last error, the stop flag. */
typedef struct alloy_ctx alloy_ctx;

ALLOY_API const char *alloy_version(void);

/* ---- context ------------------------------------------------------------------------------------------------------- */

typedef enum alloy_log_level { ALLOY_LOG_ERROR, ALLOY_LOG_WARN, ALLOY_LOG_INFO, ALLOY_LOG_DEBUG } alloy_log_level;
/** One line, without its newline. */
typedef void (*alloy_log_fn)(void *user, alloy_log_level level, const char *line);
/** `done` of `total` (bytes or steps; total <= 0: unknown) of the work called `stage`. Called from the calling thread. */
typedef void (*alloy_progress_fn)(void *user, const char *stage, double done, double total);

typedef struct alloy_ctx_options {
    size_t size;                /**< sizeof this struct; set by the init function */
    int threads;                /**< 0: one per core this process may use */
    alloy_log_fn log;           /**< may be NULL */
    alloy_progress_fn progress; /**< may be NULL */
    void *user;                 /**< handed to both */
} alloy_ctx_options;
ALLOY_API void alloy_ctx_options_init(alloy_ctx_options *o);
/** `o` may be NULL. */
ALLOY_API alloy_status alloy_ctx_open(const alloy_ctx_options *o, alloy_ctx **out);
ALLOY_API void alloy_ctx_close(alloy_ctx **ctx);
/** The sentence of the last failure, "" if there was none. Valid until the next call on this context. */
ALLOY_API const char *alloy_error(const alloy_ctx *ctx);
/** Asks the running call to return ALLOY_E_CANCELLED as soon as it can. Safe in signal handlers and from any thread.
 *  The context stays stopped: its later calls come to the same. Open another to go on. */
ALLOY_API void alloy_stop(alloy_ctx *ctx);
/** Frees text that alloy handed out. NULL is fine. */
ALLOY_API void alloy_free(void *p);

/* ---- convert --------------------------------------------------------------------------------------------------------- */

typedef struct alloy_size {
    int width, height; /**< pixels */
} alloy_size;

/** A LoRA (or LoHa, LoKr, DoRA ...) to be baked into the weights. */
typedef struct alloy_lora {
    const char *path;     /**< a safetensors file, or the folder that diffusers or PEFT saved it to */
    double strength;      /**< 1: as it was trained; 0: not at all */
    double text_strength; /**< the same for what it has for text encoders */
} alloy_lora;

/** Strings and arrays are borrowed for the call. Zero and NULL mean the model's own default. */
typedef struct alloy_convert_options {
    size_t size;
    const char *output_dir;   /**< "converted" */
    const char *name;         /**< the folder inside; default: the last part of the source's path */
    const char *quantization; /**< "float16" (default), "float32", "int8", "int4" */
    const char *type;         /**< a model type as list-models shows it: checked against what was detected; chosen where a file holds two */
    const char *target;       /**< "macos14" or "macos15"; default: macos15 for int4 and for several sizes, else macos14 */
    alloy_size image_size;    /**< pixels */
    int text_length;          /**< tokens of the long text encoder */
    const char *components;   /**< comma-separated package names; default: all */
    bool force;               /**< replace an existing model folder */
    bool skip_validation;
    int palette;              /**< instead of `quantization`: palettes of 4, 6 or 8 bits; 0: none */
    char **report;            /**< JSON about what was written (path, type, sizes); alloy_free() it. May be NULL */
    int64_t size_limit;       /**< bytes of the whole folder: more bits than `quantization` says, where they help most; 0: none */
    const char *base;         /**< when the source is one file: a diffusers folder for what it lacks (tokenizers, scheduler ...) */
    const alloy_lora *loras;  /**< applied in this order */
    int num_loras;
    const alloy_size *sizes;  /**< instead of image_size: the first is the default, each is a function of the packages (macOS 15) */
    int num_sizes;
    int64_t max_package_size; /**< bytes of one package: larger components become chains of packages; 0: none */
    const char *attention;    /**< "plain" (default) or "split-einsum", the Neural Engine's layout, for UNets */
    bool controlnet;          /**< the denoiser's package takes the results of a ControlNet; runs with one work without it too */
    const char *prediction_type; /**< what the denoiser predicts where the scheduler's settings say otherwise: "epsilon", "v_prediction", "sample" */
} alloy_convert_options;
ALLOY_API void alloy_convert_options_init(alloy_convert_options *o);
/** Converts the checkpoint `source`, a diffusers folder or one file, to OUTPUT_DIR/NAME/. Nothing appears under that name until it is
 *  whole. A conversion that was stopped or killed goes on after the last whole tensor when the same is asked for again. */
ALLOY_API alloy_status alloy_convert(alloy_ctx *ctx, const char *source, const alloy_convert_options *o);

/* ---- run --------------------------------------------------------------------------------------------------------------- */

typedef struct alloy_run_options {
    size_t size;
    const char *prompt;          /**< UTF-8; required */
    const char *negative_prompt; /**< for models that have one */
    const char *output;          /**< a .png path; "%d" or a number before the ending counts pictures. NULL: none is written */
    alloy_size image_size;       /**< 0: what the folder was converted for */
    int steps;                   /**< 0: the model's own */
    double guidance_scale;       /**< negative: the model's own */
    uint64_t seed;               /**< noise as torch.Generator("cpu").manual_seed(seed) gives it */
    const char *scheduler;       /**< NULL: the model's own */
    int num_images;              /**< 1 */
    const char *compute_units;   /**< "all" (default), "cpu", "gpu", "ane" */
    const char *latents;         /**< safetensors with the initial noise, or NULL */
    const char *save_latents;    /**< where the final latents go, or NULL */
    const char *emulate;         /**< "float16": round after every op, as a Mac's half precision does; or NULL */
    bool profile;                /**< fill `report` with the time of every step of the engine, and the machine's ceilings */
    char **report;               /**< JSON about what was done (times, sizes, files); alloy_free() it. May be NULL */
    int64_t memory_limit;        /**< bytes of the process in memory, weights among them: what does not fit is read again in each step; 0: none */
    const char *activations;     /**< layers of int8 and int4 weights: "int8" (default) quantises what they read and
                                      multiplies in integers, "float" does not */
    const char *image;           /**< a picture to start from (PNG, JPEG, WebP), or NULL */
    double strength;             /**< how much of it changes, 0 to 1; negative: the model's own */
    const char *mask;            /**< a picture of the same size, white where `image` is painted anew; "alpha": where it is transparent */
    int clip_skip;               /**< layers at the end of the text encoders to leave out, as diffusers counts them; 0: none */
    const char *controlnet;      /**< model folder of a ControlNet for this model, or NULL */
    const char *control_image;   /**< what it sees: a map made for it, or an ordinary picture with control_preprocess */
    const char *control_preprocess; /**< NULL, or "canny" or "canny:LOW:HIGH": edges of the picture */
    double control_strength;     /**< 1 */
    double control_start, control_end; /**< the share of the steps it takes part in: 0 to 1 */
    double denoising_start;      /**< go on from `latents` at this share of the steps, 0 to 1, as a refiner does; 0: from the beginning */
    double denoising_end;        /**< stop there and leave the rest to another model; 0: go to the end */
} alloy_run_options;
ALLOY_API void alloy_run_options_init(alloy_run_options *o);
/** Runs the converted model in folder `model`. */
ALLOY_API alloy_status alloy_run(alloy_ctx *ctx, const char *model, const alloy_run_options *o);

/* ---- packages ------------------------------------------------------------------------------------------------------------ */

typedef struct alloy_predict_options {
    size_t size;
    const char *function;      /**< NULL: the package's default */
    const char *compute_units; /**< as in alloy_run_options */
    const char *emulate;       /**< "float16" or NULL */
    int64_t *overflows;        /**< with emulate: values that left half's range. May be NULL */
    const char *activations;   /**< as in alloy_run_options, but "float" is the default */
    bool profile;              /**< the report says where the time went */
    char **report;             /**< NULL, or where JSON goes: seconds, overflows, where the time went; alloy_free() it */
} alloy_predict_options;
ALLOY_API void alloy_predict_options_init(alloy_predict_options *o);
/** One prediction of an .mlpackage (ML Program): safetensors in, safetensors out, tensors named as its inputs and outputs. */
ALLOY_API alloy_status alloy_predict(alloy_ctx *ctx, const char *package, const char *input, const char *output, const alloy_predict_options *o);

/** One finding; `warning`: worth knowing, not wrong. */
typedef void (*alloy_finding_fn)(void *user, bool warning, const char *text);
/** Checks a package or a model folder against everything that can be checked here. *findings counts what is wrong. */
ALLOY_API alloy_status alloy_validate(alloy_ctx *ctx, const char *path, alloy_finding_fn fn, void *user, int *findings);

/** What a checkpoint folder, safetensors file, package, model folder or picture is, as JSON; alloy_free() it. */
ALLOY_API alloy_status alloy_info(alloy_ctx *ctx, const char *path, char **json);
/** The converted models below a folder, as a JSON array; alloy_free() it. */
ALLOY_API alloy_status alloy_list_models(alloy_ctx *ctx, const char *dir, char **json);

/* ---- figures ------------------------------------------------------------------------------------------------------------- */

typedef struct alloy_bench_options {
    size_t size;
    alloy_size image_size; /**< of the model's step; 0: what the folder was converted for */
    int runs;              /**< how often each thing is timed; the median counts. 0: 3 */
    const char *only;      /**< part of a name: the rows that hold it; NULL: all */
} alloy_bench_options;
ALLOY_API void alloy_bench_options_init(alloy_bench_options *o);
/** Measures this machine's ceilings and, beside them, every operation of one step of the model folder `model`, or kernels at
 *  the shapes of real models where it is NULL. JSON; alloy_free() it. */
ALLOY_API alloy_status alloy_bench(alloy_ctx *ctx, const char *model, const alloy_bench_options *o, char **json);

#ifdef __cplusplus
}
#endif
#endif
