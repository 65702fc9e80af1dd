/* SPDX-License-Identifier: MIT
 *
 * The small checkpoint folders as one file, in the names of the original code (rules: tests/reference/single.py).
 */
#ifndef AY_SINGLE_CASE_H
#define AY_SINGLE_CASE_H

#include "flux_case.h"
#include "io/io.h"

/** The tensors of the one file, in the test's arena. */
typedef struct ay_single_case {
    ay_tensor *tensors;
    int n;
} ay_single_case;

/** Made of the checkpoint folder `folder` by tests/golden/single/NAME.txt. Room is left for `more` tensors. */
ay_single_case ay_single_make(ay_test *t, const char *name, const char *folder, int more);
void ay_single_add(ay_single_case *c, const char *name, ay_type type, void *data);
/** Writes those whose names begin with `prefix`, with `put` there instead, into the test's folder; returns the path. */
const char *ay_single_write(ay_test *t, const ay_single_case *c, const char *file, const char *prefix, const char *put);
/** Whether the packages of both model folders are the same bytes. */
void ay_single_same_packages(ay_test *t, const char *a, const char *b);

#endif
