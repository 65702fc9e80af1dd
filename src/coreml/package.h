/* SPDX-License-Identifier: MIT
 *
 * An opened package as the reader, the description and the fuzzer see it: the unpacked model message, the weight file's
 * bytes, and one arena for what outlives a single graph.
 */
#ifndef AY_COREML_PACKAGE_H
#define AY_COREML_PACKAGE_H

#include "coreml/coreml.h"
#include "coreml/weightfile.h"

struct ay_package {
    ay_ctx *cx;
    ay_arena *arena;
    const char *path;       /* for sentences */
    AyMil__Model *model;
    ay_map spec_map, weight_map; /* empty when opened from bytes */
    size_t spec_size;
    const uint8_t *weights; /* weight.bin, NULL when the package has none */
    size_t weights_size;
    ay_package_info info;
};

/** Where the manifest says the parts lie: paths relative to Data/, checked not to leave the package. weights may be NULL. */
alloy_status ay_manifest_parse(ay_ctx *cx, const char *path, const char *text, size_t size, ay_arena *arena,
                               const char **model, const char **weights);
/** A package from its parts in memory (which must outlive it): what ay_package_open does once the files are mapped. */
alloy_status ay_package_from_bytes(ay_ctx *cx, const char *path, const uint8_t *spec, size_t spec_size,
                                   const uint8_t *weights, size_t weights_size, ay_package **out);
/** Fills p->info from p->model; allocated in p->arena. */
alloy_status ay_package_info_fill(ay_package *p);
/** The block of one function (NULL: the default) that runs under its opset. */
alloy_status ay_package_function_find(ay_package *p, const char *name, const AyMil__Function **fn,
                                      const AyMil__Block **block, const char **found);

#endif
