/* SPDX-License-Identifier: MIT
 *
 * alloy bench: kernels at the shapes of real models, or one step of a model, beside the ceilings measured in the same run.
 * A model's step is what `run` does: the same components, profiled, but for the first run of each, in which the pages of its
 * weights are touched for the first time (`run --profile` counts that too).
 */
#include "pipe/pipe.h"

#include "base/isa.h"
#include "cpu/bench.h"
#include "cpu/ceiling.h"

#include <string.h>

enum { DEFAULT_RUNS = 3 };

static json_t *ceilings_object(ay_ctx *cx, const ay_ceilings *c) {
    return json_pack("{s:i, s:s, s:f, s:f, s:f, s:f, s:f}", "threads", c->threads, "isa", ay_isa_name((ay_isa)cx->isa), "fma_gflops", c->f32,
                     "int8_gops", c->i8, "int4_gops", c->i4, "copy_gbs", c->copy, "read_gbs", c->read);
}

json_t *ay_ceilings_json(ay_ctx *cx, double seconds) {
    ay_ceilings c;
    return ay_ceilings_measure(cx, seconds, &c) == ALLOY_OK ? ceilings_object(cx, &c) : NULL;
}

/* The higher of two measurements: whatever else runs on a machine only makes it look slower. */
static void raise_to(ay_ceilings *c, const ay_ceilings *later) {
    if (later->f32 > c->f32) c->f32 = later->f32;
    if (later->i8 > c->i8) c->i8 = later->i8;
    if (later->i4 > c->i4) c->i4 = later->i4;
    if (later->copy > c->copy) c->copy = later->copy;
    if (later->read > c->read) c->read = later->read;
}

static alloy_status bench_rows(ay_ctx *cx, const alloy_bench_options *o, json_t *list) {
    int n, done = 0;
    ay_bench_rows(&n);
    for (int i = 0; i < n; i++) {
        char name[96], what[192];
        ay_step_profile p = {0};
        ay_bench_row_name(ay_bench_row_at(i), name);
        if (o->only && !strstr(name, o->only)) continue;
        ay_progress(cx, "kernels", i, n);
        AY_TRY(ay_bench_row_run(cx, ay_bench_row_at(i), o->runs ? o->runs : DEFAULT_RUNS, what, &p));
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "what", what, "scope", name, "seconds", p.seconds,
                                              "flops", p.flops, "int8_ops", p.int8_ops, "int4_ops", p.int4_ops, "bytes", p.bytes, "calls", (json_int_t)1));
        done++;
    }
    ay_progress(cx, "kernels", n, n);
    return done ? ALLOY_OK : ay_fail(cx, ALLOY_E_USAGE, "no kernel is called \"%s\": alloy bench without --only lists them", o->only);
}

static alloy_status bench_kernels(ay_ctx *cx, const alloy_bench_options *o, char **json) {
    ay_ceilings before, after;
    json_t *list = json_array();
    alloy_status st = list ? ay_ceilings_measure(cx, 0.8, &before) : ay_nomem(cx);
    if (st == ALLOY_OK) st = bench_rows(cx, o, list);
    if (st == ALLOY_OK) st = ay_ceilings_measure(cx, 0.8, &after);
    if (st == ALLOY_OK) {
        raise_to(&before, &after);
        json_t *all = json_pack("{s:o, s:{s:O}}", "ceilings", ceilings_object(cx, &before), "profile", "kernels", list);
        *json = all ? json_dumps(all, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(all);
        if (!*json) st = ay_nomem(cx);
    }
    json_decref(list);
    return st;
}

alloy_status ay_bench(ay_ctx *cx, const char *model, const alloy_bench_options *o, char **json) {
    if (o->runs < 0 || o->runs > 64) return ay_fail(cx, ALLOY_E_USAGE, "%d runs: between 1 and 64 can be asked for", o->runs);
    if (!model) return bench_kernels(cx, o, json);
    alloy_run_options r = {.size = sizeof r, .prompt = "a fox in the snow", .image_size = o->image_size, .guidance_scale = -1, .strength = -1,
                           .num_images = 1, .steps = o->runs ? o->runs : 1, .profile = true, .report = json};
    return ay_run_warm(cx, model, &r);
}
