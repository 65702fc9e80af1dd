/* SPDX-License-Identifier: MIT
 *
 * Adapters of low rank (LoRA and its kin: LoCon, LoHa, LoKr, DoRA, whole differences), baked into a checkpoint's numbers on
 * their way to a package. Mechanism only: how a layer may be called is the models' to say (ay_arch.namings, lora_aliases).
 *
 *   lora.c        files: which tensors belong to one layer, by the endings of their names (the table of formats)
 *   lora_form.c   what the tensors of one layer make: shapes, rank, scale, factors as float32
 *   lora_match.c  which parameter of which component a layer is, and what is said about it
 *   lora_apply.c  numbers: blocks of differences, DoRA's norms
 *   product*.c    thin matrix products
 */
#ifndef AY_LORA_H
#define AY_LORA_H

#include "source/source.h"

typedef struct ay_loras ay_loras;
typedef struct ay_lora_param ay_lora_param;

/** Opens and checks the files; every number in them is finite afterwards. */
alloy_status ay_loras_open(ay_ctx *cx, const alloy_lora *loras, int n, ay_loras **out);
void ay_loras_close(ay_loras **l);

/** Finds the layers of the component in `folder`, whose graph is `g`; from now on `s` reads as its parameters with them. A
 *  layer of another shape is a failure that says so. `l` outlives `s`. */
alloy_status ay_loras_attach(ay_ctx *cx, ay_loras *l, ay_source *s, const ay_arch *arch, const void *cfg, const char *folder,
                             const ay_graph *g);
/** The model has a component in `folder`, which is not converted: what is for it counts as left out. */
void ay_loras_leave_out(ay_loras *l, const char *folder);
/** After every component: says what was applied and what was not. A file of which nothing was is a failure. */
alloy_status ay_loras_report(ay_ctx *cx, const ay_loras *l);
/** File names, hashes, strengths and counts, as alloy.json keeps them. */
json_t *ay_loras_json(const ay_loras *l);

/* ---- for origin.c and source.c ---------------------------------------------------------------------------------------- */

typedef struct ay_lora_part ay_lora_part; /* one component's parameters with adapters */
void ay_source_adapt(ay_source *s, const ay_lora_part *p);
ay_lora_param *ay_lora_find(const ay_lora_part *p, const char *name);
/** What tells these adapters and strengths from others, for hashes. */
const char *ay_lora_stamp(const ay_lora_part *p);
/** Reads the factors, and the norms of DoRA. Once before, and once after, everything that is read of the parameter. */
alloy_status ay_lora_prepare(ay_ctx *cx, ay_lora_param *p);
void ay_lora_release(ay_lora_param *p);
/** Elements [begin, begin + count) of the parameter as the checkpoint has them, in place. Any thread. */
void ay_lora_apply(const ay_lora_param *p, int64_t begin, int64_t count, float *x);

#endif
