/* SPDX-License-Identifier: MIT
 *
 * Architectures. Each is one file that reads a configuration, builds a graph from it for the sizes asked for, and says what
 * must not be computed in half precision. Each is one row in models.c; nothing else in alloy knows a model's name.
 */
#ifndef AY_MODEL_H
#define AY_MODEL_H

#include "io/io.h"
#include "ir/ir.h"

/** Sizes a graph is built for. A field an architecture has no use for is ignored. */
typedef struct ay_sizes {
    int64_t batch;         /* pictures at once; 0 counts as 1 */
    int64_t latent_height; /* of the latent picture [C, h, w], before any packing */
    int64_t latent_width;
    int64_t frames;        /* latent frames; 0 counts as 1 */
    int64_t text_length;   /* tokens */
} ay_sizes;

/** Names in a checkpoint that differ from the ones the graph asks for. */
typedef struct ay_alias {
    const char *name;  /* as the graph has it: a prefix if it ends in '*', the rest is carried over */
    const char *found; /* as the checkpoint may have it, the same way */
} ay_alias;

/** Keep in float32 where a float16 package is made: nodes by scope pattern and op (AY_OP_COUNT: any). First match wins. */
typedef struct ay_keep_rule {
    const char *scope; /* NULL ends the list */
    ay_op op;
    ay_dtype dtype;
    const char *reason;
} ay_keep_rule;

/** What quantisation leaves alone, or leaves more bits: by parameter name, before the rules by shape. First match wins. */
typedef struct ay_quant_rule {
    const char *name; /* glob; NULL ends the list */
    ay_dtype least;   /* AY_F16: not quantised; AY_I8: 8 bits */
    const char *reason;
} ay_quant_rule;

typedef struct ay_arch {
    const char *class_name; /* as config.json calls it: _class_name or architectures[0] */
    const char *graph_kind; /* which graph of the class: "" or "encoder" / "decoder" */
    /** Parses a config.json into the architecture's own struct in `arena`; `what` names the file in errors. */
    alloy_status (*configure)(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *config, void **cfg);
    /** Builds the float32 graph; errors are sticky in the graph. */
    void (*build)(ay_graph *g, const void *cfg, const ay_sizes *s);
    const ay_keep_rule *keep;
    const char *const *f32_inputs; /* NULL-terminated or NULL: inputs that stay float32 */
    const ay_alias *aliases;       /* name NULL ends; may be NULL */
    const char *const *ignore;     /* glob patterns of checkpoint tensors that are rightly unused */
    const ay_quant_rule *quant_keep; /* may be NULL */
} ay_arch;

/** The architecture of a class (and kind), or NULL. */
const ay_arch *ay_arch_find(const char *class_name, const char *graph_kind);
const ay_arch *const *ay_arch_list(int *n);

/** '*' matches any run of characters, also an empty one. */
bool ay_glob(const char *pattern, const char *text);

/* ---- pieces that several architectures share unchanged (blocks.c) -------------------------------------------------- */

/** [B, S, heads*d] to [B, S, heads, d]. */
ay_val ay_split_heads(ay_graph *g, ay_val x, int64_t heads);
/** q, k, v [B, S, H, D] to [B, S, H*D]. */
ay_val ay_attend(ay_graph *g, ay_val q, ay_val k, ay_val v, ay_val mask, double scale);
/** Sinusoidal embedding of t [B] in float32: [B, dim], cosines first when flip (diffusers' get_timestep_embedding). */
ay_val ay_timestep_embedding(ay_graph *g, ay_val t, int64_t dim, bool flip, double downscale_freq_shift, double scale);
/** linear_1, silu, linear_2 inside the scope `name`. */
ay_val ay_mlp_silu(ay_graph *g, const char *name, ay_val x, int64_t hidden, int64_t out);
/** Activation by the name transformers gives it; unknown names are a graph error. */
ay_val ay_activation(ay_graph *g, const char *name, ay_val x);
bool ay_activation_known(const char *name);

#endif
