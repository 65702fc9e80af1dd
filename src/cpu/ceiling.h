/* SPDX-License-Identifier: MIT
 *
 * What this machine could do at most, measured when asked: shares of it are only true of the same minute.
 */
#ifndef AY_CPU_CEILING_H
#define AY_CPU_CEILING_H

#include "base/base.h"

typedef struct ay_ceilings {
    double f32;  /* GFLOP/s of float32 multiply-adds, all threads of the context's pool */
    double i8;   /* GOP/s of int8 products and sums; 0: this level has no instruction for them */
    double copy; /* GB/s, read and written, far beyond the caches */
    double read; /* GB/s */
    int threads;
} ay_ceilings;

/** Takes about `seconds`; needs 64 MB for as long. */
alloy_status ay_ceilings_measure(ay_ctx *cx, double seconds, ay_ceilings *out);

/** Seconds that the binding ceiling allows for so much work: float operations, int8 operations, bytes. */
double ay_ceilings_least(const ay_ceilings *c, double flops, double int8_ops, double bytes);

#endif
