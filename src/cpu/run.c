/* SPDX-License-Identifier: MIT
 *
 * Running a program: match the caller's arrays with the ports, then step after step. Nothing is allocated here. An input
 * whose numbers lie as the engine holds them is read where it is.
 */
#include "base/fs.h"
#include "cpu/convert.h"
#include "cpu/plan.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK = 1 << 14 };

typedef struct port_args {
    int port;
    int64_t count;
    ay_ref at;
} port_args;

typedef struct port_job {
    const ay_port *port;
    const ay_tensor *t;
    unsigned char *data;
    int64_t count;
} port_job;

static void input_tile(void *arg, int64_t tile, int thread) {
    const port_job *j = arg;
    int64_t begin = tile * CHUNK, n = ay_min_i64(CHUNK, j->count - begin);
    ay_convert_to_kind(j->port->kind, j->t->type.dtype, j->t->data, begin, n,
                       j->data + (size_t)begin * ay_kind_size(j->port->kind));
}

static void output_tile(void *arg, int64_t tile, int thread) {
    const port_job *j = arg;
    int64_t begin = tile * CHUNK, n = ay_min_i64(CHUNK, j->count - begin);
    ay_convert_from_kind(j->port->kind, j->data + (size_t)begin * ay_kind_size(j->port->kind), j->t->type.dtype, begin, n,
                         j->t->data);
}

static alloy_status run_input(ay_run *r, const ay_step *s) {
    const port_args *a = s->args;
    const ay_port *port = &r->p->inputs[a->port];
    const ay_tensor *t = r->p->run_in[a->port];
    if (r->p->bufs[a->at.buf].base == t->data) return ALLOY_OK;
    port_job j = {port, t, ay_at(r, a->at), a->count};
    ay_parallel(r->ex.pool, ay_div_up(a->count, CHUNK), input_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

static alloy_status run_output(ay_run *r, const ay_step *s) {
    const port_args *a = s->args;
    const ay_tensor *t = r->p->run_out[a->port];
    if (!t) return ALLOY_OK; /* not asked for */
    port_job j = {&r->p->outputs[a->port], t, ay_at(r, a->at), a->count};
    ay_parallel(r->ex.pool, ay_div_up(a->count, CHUNK), output_tile, &j, r->ex.stop);
    return ALLOY_OK;
}

static alloy_status add_port_step(ay_plan *pl, ay_step_fn run, int port, const ay_view *v, const char *name) {
    port_args a = {.port = port, .count = ay_view_count(v)};
    ay_step *s = ay_step_add(pl, run, &a, sizeof a);
    if (!s) return ay_nomem(pl->cx);
    ((port_args *)s->args)->at = run == run_input ? ay_step_write(s, v) : ay_step_read(s, v);
    s->bytes = 8.0 * (double)a.count;
    ay_step_what(pl, s, "%s %s", run == run_input ? "input" : "output", name);
    return ALLOY_OK;
}

alloy_status ay_add_input_step(ay_plan *pl, int port, const ay_view *v) {
    AY_TRY(add_port_step(pl, run_input, port, v, pl->p->inputs[port].name));
    return pl->emulate && pl->p->inputs[port].type.dtype == AY_F16 ? ay_add_round_step(pl, v) : ALLOY_OK;
}

alloy_status ay_add_output_step(ay_plan *pl, int port, const ay_view *v) {
    return add_port_step(pl, run_output, port, v, pl->p->outputs[port].name);
}

/* ---- matching ---------------------------------------------------------------------------------------------------- */

static int find_port(const ay_port *ports, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(ports[i].name, name) == 0) return i;
    return -1;
}

static alloy_status unknown(ay_ctx *cx, const char *what, const char *name, const ay_port *ports, int n) {
    char list[512];
    size_t len = 0;
    list[0] = 0;
    for (int i = 0; i < n && len < sizeof list; i++)
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", ports[i].name);
    return ay_fail(cx, ALLOY_E_USAGE, "there is no %s named %s: the program has %s", what, name, n ? list : "none");
}

static alloy_status check_tensor(ay_ctx *cx, const char *what, const ay_tensor *t, const ay_port *port) {
    char found[160], want[160];
    bool same = t->type.rank == port->type.rank;
    for (int i = 0; same && i < t->type.rank; i++) same = t->type.dim[i] == port->type.dim[i];
    if (!same)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s %s is %s, expected %s", what, port->name, ay_type_text(&t->type, found),
                       ay_type_text(&port->type, want));
    if (ay_dtype_bits(t->type.dtype) < 8)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s %s is %s: give whole bytes, such as %s", what, port->name,
                       ay_type_text(&t->type, found), ay_dtype_name(port->type.dtype));
    if (!t->data) return ay_fail(cx, ALLOY_E_USAGE, "%s %s has no memory", what, port->name);
    return ALLOY_OK;
}

static alloy_status match_inputs(ay_ctx *cx, ay_program *p, const ay_tensor *in, int n_in) {
    for (int i = 0; i < p->n_inputs; i++) p->run_in[i] = NULL;
    for (int i = 0; i < n_in; i++) {
        int at = find_port(p->inputs, p->n_inputs, in[i].name);
        if (at < 0) return unknown(cx, "input", in[i].name, p->inputs, p->n_inputs);
        if (p->run_in[at]) return ay_fail(cx, ALLOY_E_USAGE, "input %s is given twice", in[i].name);
        AY_TRY(check_tensor(cx, "input", &in[i], &p->inputs[at]));
        p->run_in[at] = &in[i];
    }
    for (int i = 0; i < p->n_inputs; i++) {
        char want[160];
        const ay_port *port = &p->inputs[i];
        if (!p->run_in[i])
            return ay_fail(cx, ALLOY_E_USAGE, "input %s is missing: give %s", port->name, ay_type_text(&port->type, want));
        if (port->buf < 0) continue;
        const ay_tensor *t = p->run_in[i];
        ay_buffer *b = &p->bufs[port->buf];
        bool there =
            ay_kind_is_native(port->kind, t->type.dtype, t->data) && !(p->rounds_inputs && port->type.dtype == AY_F16);
        b->base = there ? t->data : p->slab + b->offset;
    }
    return ALLOY_OK;
}

static alloy_status match_outputs(ay_ctx *cx, ay_program *p, ay_tensor *out, int n_out) {
    for (int i = 0; i < p->n_outputs; i++) p->run_out[i] = NULL;
    for (int i = 0; i < n_out; i++) {
        int at = find_port(p->outputs, p->n_outputs, out[i].name);
        if (at < 0) return unknown(cx, "output", out[i].name, p->outputs, p->n_outputs);
        if (p->run_out[at]) return ay_fail(cx, ALLOY_E_USAGE, "output %s is asked for twice", out[i].name);
        AY_TRY(check_tensor(cx, "output", &out[i], &p->outputs[at]));
        p->run_out[at] = &out[i];
    }
    return ALLOY_OK;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static alloy_status run_steps(ay_run *r) {
    ay_program *p = r->p;
    double before = p->profiling ? ay_now() : 0;
    for (int i = 0; i < p->n_steps; i++) {
        const ay_step *s = &p->steps[i];
        r->ex.scratch = ay_at(r, s->scratch);
        r->ex.scratch_bytes = s->scratch_bytes;
        ay_stream_before(p, i);
        AY_TRY(s->run(r, s));
        ay_stream_after(p, s);
        AY_TRY(ay_check_stop(r->cx));
        if (!p->profiling) continue;
        double after = ay_now();
        p->profile[i].seconds += after - before;
        p->profile[i].calls++;
        before = after;
    }
    return ALLOY_OK;
}

alloy_status ay_program_run(ay_ctx *cx, ay_program *p, const ay_tensor *in, int n_in, ay_tensor *out, int n_out) {
    double start = p->profiling ? ay_now() : 0;
    AY_TRY(ay_check_stop(cx));
    if (ay_pool_threads(cx->pool) != p->threads || cx->isa != p->isa)
        return ay_fail(cx, ALLOY_E_USAGE,
                       "the program was compiled for %d threads and %s: compile it again for this context", p->threads,
                       ay_isa_name((ay_isa)p->isa));
    AY_TRY(match_inputs(cx, p, in, n_in));
    AY_TRY(match_outputs(cx, p, out, n_out));
    ay_run r = {.cx = cx, .p = p, .ex = {.pool = cx->pool, .isa = (ay_isa)cx->isa, .stop = &cx->stop}};
    if (p->warm_up) {
        p->ahead = 0;
        bool profiling = p->profiling;
        p->profiling = p->warm_up = false;
        alloy_status st = run_steps(&r);
        p->profiling = profiling;
        if (st != ALLOY_OK) return st;
        start = ay_now();
    }
    p->overflows = 0;
    p->ahead = 0;
    AY_TRY(run_steps(&r));
    p->runs++;
    if (p->profiling) p->wall += ay_now() - start;
    return ALLOY_OK;
}

size_t ay_program_peak(const ay_program *p) { return p->slab_bytes + p->fixed_bytes; }
size_t ay_program_streamed(const ay_program *p) { return p->streamed; }
void ay_program_rest(ay_program *p) { ay_memory_rest(p->slab, p->slab_bytes); }
int64_t ay_program_overflows(const ay_program *p) { return p->overflows; }

void ay_program_profile(ay_program *p, bool on) {
    for (int i = 0; on && !p->profiling && i < p->n_steps; i++) {
        p->profile[i].seconds = 0;
        p->profile[i].calls = 0;
    }
    if (on && !p->profiling) p->wall = 0;
    p->profiling = on;
}

void ay_program_warm_up(ay_program *p) { p->warm_up = true; }

double ay_program_wall(const ay_program *p) { return p->wall; }

int ay_program_steps(const ay_program *p, const ay_step_profile **rows) {
    if (rows) *rows = p->profile;
    return p->n_steps;
}
