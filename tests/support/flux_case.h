/* SPDX-License-Identifier: MIT
 *
 * Small FLUX.1 checkpoints for tests: folders made anew from tests/golden/flux/CASE (tests/reference/flux.py), weights from
 * the hashes of their names.
 */
#ifndef AY_FLUX_CASE_H
#define AY_FLUX_CASE_H

#include "support.h"

#include <jansson.h>

typedef struct ay_flux_case {
    const char *name;
    bool shards;
} ay_flux_case;

enum { AY_FLUX_CASES = 3 };
extern const ay_flux_case ay_flux_cases[AY_FLUX_CASES];

const char *ay_test_join(ay_test *t, const char *a, const char *b);
/** Writes the case's checkpoint into the test's folder; returns its path. */
const char *ay_flux_checkpoint(ay_test *t, const ay_flux_case *c);
/** pictures.json of the case; decref it. */
json_t *ay_flux_pictures(ay_test *t, const ay_flux_case *c);
int ay_flux_number(const json_t *j, const char *key);
/** Converts the case at its own size; returns the model folder. */
const char *ay_flux_convert(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target);

#endif
