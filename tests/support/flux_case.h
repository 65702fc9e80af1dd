/* SPDX-License-Identifier: MIT
 *
 * Small checkpoints for tests: folders made anew from tests/golden/FAMILY/CASE (tests/reference/FAMILY.py), weights from the
 * hashes of their names; and what is checked of every family.
 */
#ifndef AY_FLUX_CASE_H
#define AY_FLUX_CASE_H

#include "io/io.h"
#include "model/model.h"
#include "support.h"

#include <jansson.h>

typedef struct ay_flux_case {
    const char *name;
    bool shards;
    const char *family; /* its folder in tests/golden; NULL: "flux" */
} ay_flux_case;

enum { AY_FLUX_CASES = 3 };
extern const ay_flux_case ay_flux_cases[AY_FLUX_CASES];

const char *ay_test_join(ay_test *t, const char *a, const char *b);
/** Writes the case's checkpoint into the test's folder; returns its path. */
const char *ay_flux_checkpoint(ay_test *t, const ay_flux_case *c);
/** Path of a file of the case in tests/golden. */
const char *ay_flux_golden(ay_test *t, const ay_flux_case *c, const char *name);
/** pictures.json of the case; decref it. */
json_t *ay_flux_pictures(ay_test *t, const ay_flux_case *c);
int ay_flux_number(const json_t *j, const char *key);
/** Converts the case at its own size; returns the model folder. */
const char *ay_flux_convert(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target);

/* ---- checks (pipe_check.c) ------------------------------------------------------------------------------------------- */

/** Every package of the converted case on the golden inputs: the relative L2 error of its outputs is at most `bound`, and
 *  the program and the graph built anew agree. */
void ay_check_components(ay_test *t, const ay_flux_case *c, const char *quantization, const char *target, bool emulate, double bound);
/** Every picture of the case, at the same seed, has at least `bound` dB of PSNR. */
void ay_check_pictures(ay_test *t, const ay_flux_case *c, const char *quantization, const char *emulate, double bound);
/** The settings of one picture in pictures.json. */
void ay_check_run_options(const json_t *picture, const char *output, alloy_run_options *o);
/** Weights of one part of a checkpoint written anew, those that match `patterns` (NULL-terminated) times `gain`. */
void ay_hash_louder(ay_test *t, const ay_flux_case *c, const char *checkpoint, const char *part, const char *const *patterns, double gain);
/** Converts at float16 and runs one package, emulated: no value leaves half's range by the model's own rules, many do by
 *  `rules` in their place. */
void ay_check_overflows(ay_test *t, const char *checkpoint, const char *package, const ay_keep_rule *rules);
/** PSNR in dB, 200 for equal pictures, of what `o` asks for. */
double ay_check_psnr(ay_test *t, const char *model, const alloy_run_options *o, const ay_image *want);
/** In dB, 200 for equal pictures. */
double ay_image_psnr(const ay_image *a, const ay_image *b);
void ay_check_read_rgb(ay_test *t, const char *path, ay_image *im);

#endif
