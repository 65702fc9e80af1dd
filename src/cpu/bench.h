/* SPDX-License-Identifier: MIT
 *
 * Kernels at the shapes of real models, each as the engine itself would run it: a graph of one operation, compiled and
 * timed by its own profile.
 */
#ifndef AY_CPU_BENCH_H
#define AY_CPU_BENCH_H

#include "cpu/cpu.h"

typedef struct ay_bench_row ay_bench_row;
const ay_bench_row *ay_bench_rows(int *n);
const ay_bench_row *ay_bench_row_at(int i);
/** "linear 3072x12288 int4, 1536 rows" into text of at least 96 bytes. */
const char *ay_bench_row_name(const ay_bench_row *r, char *text);
/** Median seconds of `runs` runs after one that is not counted; operations, bytes as the engine says them, sums over its
 *  steps, if there are several. `what`: at least 192 bytes, for the name of the step that counts most. */
alloy_status ay_bench_row_run(ay_ctx *cx, const ay_bench_row *r, int runs, char *what, ay_step_profile *out);

#endif
