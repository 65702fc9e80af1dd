/* SPDX-License-Identifier: MIT
 *
 * Running a component: one program, or a chain in which what a program gives under the name of a later one's input is handed
 * on, in float32 as the engine holds it, so that a chain computes what the whole does, but for the last bits where the engine
 * fuses within a program what a border takes apart.
 */
#include "pipe/component.h"

#include <string.h>

static ay_tensor *find(ay_tensor *t, int n, const char *name) {
    for (int i = 0; i < n; i++) {
        if (strcmp(t[i].name, name) == 0) return &t[i];
    }
    return NULL;
}

/* The output of a link before k with this name: what link k reads under it. */
static ay_tensor *given_before(const ay_component *c, int k, const char *name) {
    while (k-- > 0) {
        ay_tensor *t = find(c->links[k].outputs, c->links[k].n_outputs, name);
        if (t) return t;
    }
    return NULL;
}

/* ---- what is handed on -------------------------------------------------------------------------------------------------- */

static bool same_shape(const ay_type *a, const ay_type *b) {
    bool same = a->rank == b->rank && ay_dtype_is_float(a->dtype) == ay_dtype_is_float(b->dtype);
    for (int i = 0; same && i < a->rank; i++) same = a->dim[i] == b->dim[i];
    return same;
}

static alloy_status hand_on(ay_ctx *cx, ay_component *c, int k, ay_tensor *in, ay_tensor *from) {
    char a[160], b[160];
    if (!same_shape(&in->type, &from->type)) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "package %d of the chain takes %s as %s, and is given %s; convert the model again", k + 1, in->name,
                       ay_type_text(&in->type, a), ay_type_text(&from->type, b));
    }
    if (!from->data) {
        from->type.dtype = ay_dtype_is_float(from->type.dtype) ? AY_F32 : AY_I32;
        size_t bytes = ay_dtype_bytes(from->type.dtype, ay_type_count(&from->type));
        from->data = ay_alloc(c->arena, bytes);
        if (!from->data) return ay_nomem(cx);
        c->carried += bytes;
    }
    in->type = from->type;
    in->data = from->data;
    c->chain = true;
    return ALLOY_OK;
}

static alloy_status wire(ay_ctx *cx, ay_component *c) {
    for (int k = 0; k < c->n_links; k++) {
        ay_link *l = &c->links[k];
        for (int i = 0; i < l->n_inputs; i++) {
            ay_tensor *from = given_before(c, k, l->inputs[i].name), *known = find(c->inputs, c->n_inputs, l->inputs[i].name);
            if (from) {
                AY_TRY(hand_on(cx, c, k, &l->inputs[i], from));
            } else if (known && !ay_type_equal(&known->type, &l->inputs[i].type)) {
                return ay_fail(cx, ALLOY_E_MISMATCH, "two packages of the chain take %s as different types; convert the model again", known->name);
            } else if (!known) {
                c->inputs[c->n_inputs++] = l->inputs[i];
            }
        }
    }
    for (int k = 0; k < c->n_links; k++) {
        for (int i = 0; i < c->links[k].n_outputs; i++) {
            if (!c->links[k].outputs[i].data) c->outputs[c->n_outputs++] = c->links[k].outputs[i];
        }
    }
    return ALLOY_OK;
}

alloy_status ay_component_join(ay_ctx *cx, ay_component *c) {
    size_t n_in = 1, n_out = 1;
    for (int k = 0; k < c->n_links; k++) {
        ay_link *l = &c->links[k];
        l->in = ay_alloc(c->arena, ((size_t)l->n_inputs + 1) * sizeof *l->in);
        l->out = ay_alloc(c->arena, ((size_t)l->n_outputs + 1) * sizeof *l->out);
        if (!l->in || !l->out) return ay_nomem(cx);
        n_in += (size_t)l->n_inputs;
        n_out += (size_t)l->n_outputs;
    }
    c->inputs = ay_alloc(c->arena, n_in * sizeof *c->inputs);
    c->outputs = ay_alloc(c->arena, n_out * sizeof *c->outputs);
    return c->inputs && c->outputs ? wire(cx, c) : ay_nomem(cx);
}

/* ---- running -------------------------------------------------------------------------------------------------------------- */

static alloy_status run_link(ay_ctx *cx, ay_component *c, ay_link *l, const ay_tensor *in, int n_in, ay_tensor *out, int n_out) {
    int n = 0, m = 0;
    for (int i = 0; i < l->n_inputs; i++) {
        const ay_tensor *t = l->inputs[i].data ? &l->inputs[i] : NULL;
        for (int k = 0; k < n_in && !t; k++) t = strcmp(in[k].name, l->inputs[i].name) == 0 ? &in[k] : NULL;
        if (t) l->in[n++] = *t; /* one that is missing is the program's to say */
    }
    for (int i = 0; i < l->n_outputs; i++) {
        const ay_tensor *t = l->outputs[i].data ? &l->outputs[i] : find(out, n_out, l->outputs[i].name);
        if (t) l->out[m++] = *t;
    }
    alloy_status st = ay_program_run(cx, l->program, l->in, n, l->out, m);
    ay_program_rest(l->program); /* one link's memory at a time */
    return st;
}

static alloy_status run_chain(ay_ctx *cx, ay_component *c, const ay_tensor *in, int n_in, ay_tensor *out, int n_out) {
    for (int i = 0; i < n_in; i++) {
        if (!find(c->inputs, c->n_inputs, in[i].name)) return ay_fail(cx, ALLOY_E_USAGE, "there is no input named %s", in[i].name);
    }
    for (int i = 0; i < n_out; i++) {
        if (!find(c->outputs, c->n_outputs, out[i].name)) return ay_fail(cx, ALLOY_E_USAGE, "there is no output named %s", out[i].name);
    }
    for (int k = 0; k < c->n_links; k++) AY_TRY(run_link(cx, c, &c->links[k], in, n_in, out, n_out));
    return ALLOY_OK;
}

alloy_status ay_component_run(ay_ctx *cx, ay_component *c, const ay_tensor *in, int n_in, ay_tensor *out, int n_out) {
    if (c->chain) return run_chain(cx, c, in, n_in, out, n_out);
    return ay_program_run(cx, c->links[0].program, in, n_in, out, n_out);
}

/* ---- what it is ----------------------------------------------------------------------------------------------------------- */

const ay_tensor *ay_component_outputs(const ay_component *c, int *n) {
    *n = c->n_outputs;
    return c->outputs;
}

const ay_tensor *ay_component_inputs(const ay_component *c, int *n) {
    *n = c->n_inputs;
    return c->inputs;
}

int64_t ay_component_overflows(const ay_component *c) {
    int64_t sum = 0;
    for (int k = 0; k < c->n_links; k++) sum += c->links[k].program ? ay_program_overflows(c->links[k].program) : 0;
    return sum;
}

size_t ay_component_peak(const ay_component *c) {
    size_t most = 0;
    for (int k = 0; k < c->n_links; k++) {
        size_t peak = c->links[k].program ? ay_program_peak(c->links[k].program) : 0;
        most = peak > most ? peak : most;
    }
    return most + c->carried;
}

size_t ay_component_streamed(const ay_component *c) {
    size_t sum = 0;
    for (int k = 0; k < c->n_links; k++) sum += c->links[k].program ? ay_program_streamed(c->links[k].program) : 0;
    return sum;
}

double ay_component_wall(const ay_component *c) {
    double sum = 0;
    for (int k = 0; k < c->n_links; k++) sum += c->links[k].program ? ay_program_wall(c->links[k].program) : 0;
    return sum;
}

json_t *ay_component_profile(const ay_component *c) {
    json_t *a = json_array();
    for (int k = 0; k < c->n_links; k++) {
        const ay_step_profile *rows;
        int n = c->links[k].program ? ay_program_steps(c->links[k].program, &rows) : 0;
        for (int i = 0; i < n; i++) {
            json_array_append_new(a, json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "what", rows[i].what ? rows[i].what : "", "scope",
                                               rows[i].scope ? rows[i].scope : "", "seconds", rows[i].seconds, "flops", rows[i].flops,
                                               "int8_ops", rows[i].int8_ops, "int4_ops", rows[i].int4_ops, "bytes", rows[i].bytes, "calls", (json_int_t)rows[i].calls));
        }
    }
    return a;
}
