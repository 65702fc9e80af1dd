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

#ifdef __cplusplus
}
#endif
#endif
