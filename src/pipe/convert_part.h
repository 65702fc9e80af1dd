/* SPDX-License-Identifier: MIT
 *
 * Writing one component of a model: a package, or a chain of packages where one would be too large; a function for each
 * size.
 */
#ifndef AY_CONVERT_PART_H
#define AY_CONVERT_PART_H

#include "pass/pass.h"
#include "pipe/convert_journal.h"
#include "pipe/convert_quant.h"

/** What the options come to (convert_form.c). */
typedef struct ay_convert_form {
    ay_dtype precision;
    const char *quantization; /* as alloy.json names it */
    ay_quant_kind kind;
    ay_target target;
} ay_convert_form;
alloy_status ay_convert_check(ay_ctx *cx, const alloy_convert_options *o, ay_convert_form *out);

typedef struct ay_part_work {
    ay_ctx *cx;
    const ay_model_part *part;
    const ay_source *from;
    ay_part_quant *quant;
    ay_graph *graphs[AY_MAX_SIZES]; /* of the part's functions */
    ay_chain chains[AY_MAX_SIZES];  /* how they are cut */
    const char *dir;                /* where packages go */
    ay_target target;
    ay_journal *journal;
    void (*passed)(void *user, const char *stage, uint64_t bytes); /* of the checkpoint, done with; NULL: by an earlier run */
    void *user;
} ay_part_work;

/** Decides where the graphs are cut so that no package has more than `limit` bytes (0: they are not cut); *links: packages. */
alloy_status ay_part_cut(ay_part_work *w, ay_arena *arena, uint64_t limit, int *links);
/** Writes the packages; *entry: what alloy.json says of the component. */
alloy_status ay_part_write(ay_part_work *w, bool quantized, json_t **entry);
/** Bytes of the checkpoint behind a PARAM; 0 for what is not in it by that name (factors). */
uint64_t ay_part_source_bytes(const ay_source *from, const ay_model_part *part, const ay_node *param);
uint64_t ay_part_weight_bytes(const ay_weight *w);

#endif
