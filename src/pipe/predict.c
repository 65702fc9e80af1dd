/* SPDX-License-Identifier: MIT
 *
 * One prediction of any ML Program package, from a safetensors file to a safetensors file.
 */
#include "pipe/pipe.h"

#include <stdlib.h>
#include <string.h>

static alloy_status run_component(ay_ctx *cx, ay_component *c, const char *in_path, const ay_tensor *in, int n_in, const char *out_path) {
    int n_out;
    const ay_tensor *types = ay_component_outputs(c, &n_out);
    ay_arena *a = ay_arena_new();
    ay_tensor *out = a ? ay_alloc(a, (size_t)(n_out + 1) * sizeof *out) : NULL;
    alloy_status st = out ? ALLOY_OK : ay_nomem(cx);
    for (int i = 0; i < n_out && st == ALLOY_OK; i++) {
        out[i] = types[i];
        out[i].data = ay_alloc(a, ay_dtype_bytes(out[i].type.dtype, ay_type_count(&out[i].type)));
        if (!out[i].data) st = ay_nomem(cx);
    }
    if (st == ALLOY_OK) {
        st = ay_component_run(cx, c, in, n_in, out, n_out);
        if (st == ALLOY_E_USAGE) st = ALLOY_E_MISMATCH; /* what is wrong is in the file, not in the command */
        if (st == ALLOY_E_MISMATCH) ay_fail_prefix(cx, "%s: ", in_path);
    }
    if (st == ALLOY_OK) st = ay_st_write(cx, out_path, out, n_out, NULL);
    ay_arena_free(a);
    return st;
}

/* {"seconds", and with profile "ceilings", "profile": {PACKAGE: [...]}, "profile_wall_s"}: as run's report has them. */
static alloy_status report(ay_ctx *cx, const char *package, const ay_component *c, double seconds, const alloy_predict_options *o) {
    if (!o->report) return ALLOY_OK;
    json_t *j = json_pack("{s:f}", "seconds", seconds);
    if (o->emulate) json_object_set_new(j, "overflows", json_integer((json_int_t)ay_component_overflows(c)));
    if (o->profile) {
        const char *name = strrchr(package, '/');
        name = name && name[1] ? name + 1 : package;
        json_object_set_new(j, "ceilings", ay_ceilings_json(cx, 0.6));
        json_object_set_new(j, "profile", json_pack("{s:o}", name, ay_component_profile(c)));
        json_object_set_new(j, "profile_wall_s", json_pack("{s:f}", name, ay_component_wall(c)));
    }
    *o->report = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(j);
    return *o->report ? ALLOY_OK : ay_nomem(cx);
}

static alloy_status predict(ay_ctx *cx, const char *package, const ay_safetensors *s, const char *out, const alloy_predict_options *o) {
    ay_exec_options exec = {.profile = o->profile};
    ay_component *c = NULL;
    double start = ay_now();
    AY_TRY(ay_check_compute_units(cx, o->compute_units));
    AY_TRY(ay_check_emulate(cx, o->emulate, &exec.emulate_f16));
    AY_TRY(ay_check_activations(cx, o->activations, &exec));
    AY_TRY(ay_path_check_output(cx, out));
    ay_tensor *in = calloc((size_t)s->n + 1, sizeof *in);
    if (!in) return ay_nomem(cx);
    for (int i = 0; i < s->n; i++) in[i] = (ay_tensor){s->tensors[i].name, s->tensors[i].type, (void *)ay_st_data(s, &s->tensors[i])};
    alloy_status st = ay_component_open_package(cx, package, o->function, in, s->n, &exec, &c);
    if (st == ALLOY_OK) st = run_component(cx, c, s->path, in, s->n, out);
    if (st == ALLOY_OK && o->overflows) *o->overflows = ay_component_overflows(c);
    if (st == ALLOY_OK) st = report(cx, package, c, ay_now() - start, o);
    ay_component_close(&c);
    free(in);
    return st;
}

alloy_status ay_predict(ay_ctx *cx, const char *package, const char *in, const char *out, const alloy_predict_options *o) {
    ay_safetensors *s = NULL;
    AY_TRY(ay_st_open(cx, in, &s));
    alloy_status st = predict(cx, package, s, out, o);
    ay_st_close(&s);
    return st;
}
