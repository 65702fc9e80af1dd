/* SPDX-License-Identifier: MIT
 *
 * What this machine could do at most, measured when asked: shares of it are only true of the same minute.
 */
#ifndef AY_CPU_CEILING_H
#define AY_CPU_CEILING_H

#include "base/base.h"

typedef struct ay_ceilings {
    double f32;  /* GFLOP/s of float32 multiply-adds, all threads of the context's pool */
    double i8;   /* GOP/s of int8 products and sums; where the level has no instructions for them: f32 */
    double i4;   /* of four-bit weights */
    double copy; /* GB/s, read and written, far beyond the caches */
    double read; /* GB/s */
    int threads;
} ay_ceilings;

/** Takes about `seconds`; needs 64 MB for as long. */
alloy_status ay_ceilings_measure(ay_ctx *cx, double seconds, ay_ceilings *out);

#endif
