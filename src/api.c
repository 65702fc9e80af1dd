/* SPDX-License-Identifier: MIT
 *
 * include/alloy.h over the folders below it: option structs of any age, the context, and nothing else.
 */
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

const char *alloy_version(void) { return ALLOY_VERSION; }

void alloy_free(void *p) { free(p); }

/* A caller built against an older header has a shorter struct: what it lacks keeps its default. */
static void take_options(void *to, size_t mine, const void *from, size_t theirs) {
    if (from) memcpy(to, from, theirs < mine ? theirs : mine);
}

void alloy_ctx_options_init(alloy_ctx_options *o) { *o = (alloy_ctx_options){.size = sizeof *o}; }
void alloy_convert_options_init(alloy_convert_options *o) { *o = (alloy_convert_options){.size = sizeof *o}; }
void alloy_run_options_init(alloy_run_options *o) { *o = (alloy_run_options){.size = sizeof *o, .guidance_scale = -1, .num_images = 1, .strength = -1, .control_strength = 1, .control_end = 1}; }
void alloy_bench_options_init(alloy_bench_options *o) { *o = (alloy_bench_options){.size = sizeof *o, .runs = 3}; }
void alloy_predict_options_init(alloy_predict_options *o) { *o = (alloy_predict_options){.size = sizeof *o}; }

alloy_status alloy_ctx_open(const alloy_ctx_options *given, alloy_ctx **out) {
    alloy_ctx_options o;
    alloy_ctx_options_init(&o);
    take_options(&o, sizeof o, given, given ? given->size : 0);
    alloy_status st = ay_ctx_open(o.threads, out);
    if (st != ALLOY_OK) return st;
    (*out)->log = o.log;
    (*out)->progress = o.progress;
    (*out)->user = o.user;
    if ((*out)->notice[0]) ay_log(*out, AY_LOG_WARN, "%s", (*out)->notice);
    return ALLOY_OK;
}

void alloy_ctx_close(alloy_ctx **ctx) { ay_ctx_close(ctx); }
const char *alloy_error(const alloy_ctx *ctx) { return ay_error_text(ctx); }
void alloy_stop(alloy_ctx *ctx) { atomic_store_explicit(&ctx->stop, 1, memory_order_relaxed); }

static alloy_status begin(alloy_ctx *ctx, const void *required) {
    return required ? ALLOY_OK : ay_fail(ctx, ALLOY_E_USAGE, "a path is missing");
}

alloy_status alloy_convert(alloy_ctx *ctx, const char *source, const alloy_convert_options *given) {
    alloy_convert_options o;
    alloy_convert_options_init(&o);
    take_options(&o, sizeof o, given, given ? given->size : 0);
    if (o.report) *o.report = NULL;
    AY_TRY(begin(ctx, source));
    return ay_convert(ctx, source, &o);
}

alloy_status alloy_run(alloy_ctx *ctx, const char *model, const alloy_run_options *given) {
    alloy_run_options o;
    alloy_run_options_init(&o);
    take_options(&o, sizeof o, given, given ? given->size : 0);
    if (o.report) *o.report = NULL;
    AY_TRY(begin(ctx, model));
    return ay_run(ctx, model, &o);
}

alloy_status alloy_predict(alloy_ctx *ctx, const char *package, const char *input, const char *output, const alloy_predict_options *given) {
    alloy_predict_options o;
    alloy_predict_options_init(&o);
    take_options(&o, sizeof o, given, given ? given->size : 0);
    if (o.report) *o.report = NULL;
    AY_TRY(begin(ctx, package));
    AY_TRY(begin(ctx, input));
    AY_TRY(begin(ctx, output));
    return ay_predict(ctx, package, input, output, &o);
}

alloy_status alloy_validate(alloy_ctx *ctx, const char *path, alloy_finding_fn fn, void *user, int *findings) {
    int mine;
    AY_TRY(begin(ctx, path));
    return ay_validate_path(ctx, path, fn, user, findings ? findings : &mine);
}

alloy_status alloy_info(alloy_ctx *ctx, const char *path, char **json) {
    AY_TRY(begin(ctx, path));
    if (!json) return ay_fail(ctx, ALLOY_E_USAGE, "nowhere to put the answer: json is NULL");
    return ay_info(ctx, path, json);
}

alloy_status alloy_list_models(alloy_ctx *ctx, const char *dir, char **json) {
    AY_TRY(begin(ctx, dir));
    if (!json) return ay_fail(ctx, ALLOY_E_USAGE, "nowhere to put the answer: json is NULL");
    return ay_list_models(ctx, dir, json);
}

alloy_status alloy_bench(alloy_ctx *ctx, const char *model, const alloy_bench_options *given, char **json) {
    alloy_bench_options o;
    alloy_bench_options_init(&o);
    take_options(&o, sizeof o, given, given ? given->size : 0);
    if (!json) return ay_fail(ctx, ALLOY_E_USAGE, "nowhere to put the answer: json is NULL");
    *json = NULL;
    return ay_bench(ctx, model, &o, json);
}
