/* SPDX-License-Identifier: MIT
 *
 * The CPU engine: compiles a graph whose PARAMs are bound into a program (steps, slab offsets, a known peak) and runs it.
 */
#ifndef AY_CPU_H
#define AY_CPU_H

#include "ir/ir.h"

typedef struct ay_program ay_program;

typedef struct ay_compile_opts {
    bool emulate_f16;      /* execute node by node, rounding every float16-typed value after each, counting overflows */
    bool keep_as_is;       /* no raising, no fusion: for tests of the plain path */
    const void *map;       /* the mapped file that weights lie in, if they do: read ahead, and given back when memory is short */
    size_t map_bytes;
    size_t memory_limit;   /* bytes of the process in memory, the mapped file's pages among them; 0: none */
    size_t *least;         /* set to the limit that would do, whether it is met or not; may be NULL */
    size_t band_from;      /* bytes of a picture from which convolutions take their input in bands; 0: as measured best */
    bool int8_activations; /* layers of int8 and int4 weights quantise their input and multiply in integers */
} ay_compile_opts;

typedef struct ay_step_profile {
    const char *what;  /* "linear 3072x12288 f16" */
    const char *scope;
    double seconds;
    double flops; /* 2 x multiply-adds of products, convolutions, attention in float32 arithmetic */
    double int8_ops, int4_ops; /* in integers; with weights of int8 and palettes, and with weights of int4 */
    double bytes;           /* read and written, each operand once */
    int64_t calls;
} ay_step_profile;

/** The graph may be freed afterwards; the bytes its weights and consts point to must outlive the program. */
alloy_status ay_cpu_compile(ay_ctx *cx, const ay_graph *g, const ay_compile_opts *opts, ay_program **out);
void ay_program_free(ay_program **p);
size_t ay_program_peak(const ay_program *p); /* bytes of slab + scratch + packed weights, known before running */
/** Inputs by name, any float dtype (converted); outputs by name into the caller's memory, converted to out[i].type.dtype.
 *  A missing, unknown or misshapen input is one sentence. Honours cx->stop within one tile. Bit-identical for any number
 *  of threads. */
alloy_status ay_program_run(ay_ctx *cx, ay_program *p, const ay_tensor *in, int n_in, ay_tensor *out, int n_out);
size_t ay_program_streamed(const ay_program *p); /* bytes of weights that the memory limit has each run read again */
void ay_program_rest(ay_program *p); /* gives the slab's pages back to the system until the next run */
int64_t ay_program_overflows(const ay_program *p); /* emulate_f16: values that left half's range in the last run */
void ay_program_profile(ay_program *p, bool on);
/** The next run is done twice, and only the second time counts: pages are touched and caches filled by then. */
void ay_program_warm_up(ay_program *p);
double ay_program_wall(const ay_program *p); /* seconds of the profiled runs, from call to return */
int ay_program_steps(const ay_program *p, const ay_step_profile **rows);

#endif
