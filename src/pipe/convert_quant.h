/* SPDX-License-Identifier: MIT
 *
 * Quantisation of one component while it is converted: which parameter is stored how (rules as data), the bytes of those
 * that are not plain, and the table of what came of it.
 */
#ifndef AY_CONVERT_QUANT_H
#define AY_CONVERT_QUANT_H

#include "pipe/pipe.h"
#include "quant/quantize.h"

typedef struct ay_quant_record {
    const char *name;
    ay_type type;
    ay_quant_kind kind;
    ay_weight weight;    /* no pointers */
    const char *factors; /* parameter with a factor for each output channel, or NULL */
    const char *reason;  /* why it is not quantised, or less than asked for; or NULL */
    double error2, norm2;
} ay_quant_record;

typedef struct ay_part_quant {
    ay_ctx *cx;
    ay_arena *arena;
    ay_quant_record *records; /* every PARAM of the graph as the model built it */
    int n;
    const ay_quant_record *at; /* whose parts are held */
    ay_quantized parts;
} ay_part_quant;

/** Decides for every PARAM how it is stored. */
alloy_status ay_part_quant_plan(ay_ctx *cx, ay_arena *arena, ay_quant_kind kind, const ay_arch *arch, const ay_graph *g,
                                ay_part_quant *q);
/** Gives more bits where they help most, until all parts together have `limit` bytes of weights (convert_limit.c). */
alloy_status ay_quant_fit(ay_part_quant *const *q, const ay_source *const *from, const ay_arch *const *arch, int n_parts,
                          uint64_t limit);
/** Sets the storage in the graph and takes factors out where palettes need them. */
alloy_status ay_part_quant_apply(ay_part_quant *q, ay_graph *g);
/** Storage of one record by `kind` (NONE: plain), and its bytes. */
void ay_part_quant_set(ay_part_quant *q, ay_quant_record *r, ay_quant_kind kind);
int64_t ay_quant_record_bytes(const ay_quant_record *r);
/** Whether the part of this PARAM comes from here. */
bool ay_part_quant_has(const ay_part_quant *q, const ay_node *param);
/** Its bytes; `passed` counts source bytes done with. */
alloy_status ay_part_quant_stream(ay_part_quant *q, const ay_source *from, const ay_arch *arch, const ay_node *param,
                                  ay_part part, ay_sink *out, void (*passed)(void *user, uint64_t bytes), void *user);
/** Error and size of a parameter as the table adds them up; set: as an earlier run noted them. */
void ay_part_quant_errors(ay_part_quant *q, const char *param, bool set, double *error2, double *norm2);
void ay_part_quant_close(ay_part_quant *q);
/** Bits per weight and relative error of each group of tensors (numbers in names become *), as alloy.json keeps it; logged
 * too. */
json_t *ay_part_quant_table(ay_part_quant *q, const char *package);

/** The name of the factors of a weight. */
char *ay_factors_name(ay_arena *arena, const char *weight);

#endif
