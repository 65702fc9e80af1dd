/* SPDX-License-Identifier: MIT
 *
 * Core ML packages (.mlpackage, ML Program): written from a graph, read back into a graph, checked strictly.
 */
#ifndef AY_COREML_H
#define AY_COREML_H

#include "base/fs.h"
#include "ir/ir.h"

typedef enum ay_target { AY_TARGET_MACOS14, AY_TARGET_MACOS15 } ay_target; /* spec 8 / CoreML7, spec 9 / CoreML8 */

/** Which part of a weight is asked for. */
typedef enum ay_part { AY_PART_DATA, AY_PART_SCALE, AY_PART_OFFSET, AY_PART_LUT } ay_part;

/** Takes the bytes of one weight part, in order, in pieces of any size. */
typedef struct ay_sink {
    alloy_status (*put)(void *user, const void *bytes, size_t n);
    void *user;
} ay_sink;

/** How far a weight file has come (weightfile.h). */
typedef struct ay_weight_mark ay_weight_mark;

/** Where the bytes of PARAMs come from while a package is written. Called once for each part of each distinct PARAM, in the
 *  order of their first use, so that checkpoints larger than memory can stream. The parts of one weight come one after
 *  another (DATA, SCALE, OFFSET, LUT). When `w->data` etc. are set, the writer takes those bytes itself. */
typedef struct ay_weight_source {
    alloy_status (*stream)(void *user, const ay_node *param, ay_part part, ay_sink *out);
    /** All parts of a PARAM are in the weight file, which has come as far as `mark`; `kept`: since an earlier run, nothing was
     *  streamed now. May be NULL. */
    alloy_status (*whole)(void *user, const ay_node *param, const ay_weight_mark *mark, bool kept);
    void *user;
} ay_weight_source;

/** What the writer reports for alloy.json's weight table. */
typedef struct ay_weight_entry {
    const char *name;   /* PARAM name as the checkpoint has it */
    uint64_t offset[4]; /* metadata offset in weight.bin of DATA, SCALE, OFFSET, LUT; 0: absent */
    ay_weight weight;   /* storage, shape, dtypes; no pointers */
} ay_weight_entry;

typedef struct ay_function { const char *name; const ay_graph *graph; } ay_function; /* several: multifunction, macOS 15 */

typedef struct ay_package_options {
    ay_target target;
    const char *description, *author, *license, *version;
    const char *const *metadata; /* key, value, key, value, NULL: userDefined strings */
    ay_weight_source source;
    const ay_weight_mark *from; /* how far the weight file of an ended run is whole: what is before is not written again */
    uint8_t *weight_digest; /* [32] receives ay_package_weight_digest() of what was written; may be NULL */
} ay_package_options;

/** Writes the package folder `path` (which must not exist, unless it goes on `from` somewhere). Lowers a copy of each graph to what MIL has, emits exactly the
 *  parameter sets coremltools emits, identifiers derived from the content. entries (may be NULL): allocated in `arena`. */
alloy_status ay_package_write(ay_ctx *cx, const char *path, const ay_function *fn, int n_fn, const ay_package_options *opts,
                              ay_arena *arena, ay_weight_entry **entries, int *n_entries);

/** A copy of the graph as a package for `target` would hold it: composites that MIL has not are taken apart. In *out also
 *  after a failure, then to be freed. */
alloy_status ay_package_lowered(ay_ctx *cx, const ay_graph *g, ay_target target, ay_graph **out);

/** An opened package: manifest read, program parsed, weight file mapped. Graphs made from it borrow its maps. */
typedef struct ay_package ay_package;
typedef struct ay_package_function { const char *name; int n_inputs, n_outputs; ay_tensor *inputs, *outputs; /* data NULL */ } ay_package_function;
typedef struct ay_package_info {
    int spec_version;
    const char *opset;
    const char *description, *author, *license, *version;
    int n_functions;
    const ay_package_function *functions;
    const char *default_function;
    const char *const *metadata; /* key, value, ..., NULL */
    uint64_t weight_bytes;
} ay_package_info;
alloy_status ay_package_open(ay_ctx *cx, const char *path, ay_package **out);
/** The weight file as it is mapped; NULL when there is none, or it lies in memory. */
const void *ay_package_map(const ay_package *p, size_t *bytes);
void ay_package_close(ay_package **p);
const ay_package_info *ay_package_describe(const ay_package *p);
/** The MIL program of one function (NULL: the default) as a graph, weights bound to the map. */
alloy_status ay_package_graph(ay_package *p, const char *function, ay_graph **out);
/** The same where shapes in the program depend on the numbers in some inputs: `known` gives those inputs (by name, others
 *  are ignored). The graph then holds for these numbers only. */
alloy_status ay_package_graph_known(ay_package *p, const char *function, const ay_tensor *known, int n_known, ay_graph **out);
/** The raw blob whose metadata is at `offset` (checked): for binding by alloy.json's table. */
alloy_status ay_package_blob(ay_package *p, uint64_t offset, ay_dtype *dtype, const void **data, size_t *bytes);

/** Reads the whole weight file: a digest that tells whether a byte of it has changed. Zeros: there is none. */
alloy_status ay_package_weight_digest(ay_package *p, uint8_t digest[32]);

/** Everything that can be checked here; each finding one line to `line`. *findings counts errors, *warnings the rest. */
alloy_status ay_package_validate(ay_ctx *cx, const char *path, void (*line)(void *user, bool warning, const char *text), void *user,
                                 int *findings, int *warnings);

#endif
