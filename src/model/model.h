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
    int64_t skip;          /* layers at a text encoder's end whose results are not shown; other than sizes, not kept in files */
    int64_t control;       /* 1: a denoiser takes what a control net gives */
    int64_t numbers;       /* told to a denoiser about the picture, where its configuration can be read in two ways; else 0 */
} ay_sizes;

typedef struct ay_arch ay_arch;

/* ---- names in checkpoints (naming.c) ------------------------------------------------------------------------------- */

/** What of a checkpoint's tensor a parameter is. */
typedef enum ay_take {
    AY_TAKE_ALL,
    AY_TAKE_PART,      /* rows [part * n, (part + 1) * n) of the first dimension, n the parameter's own: fused q, k, v */
    AY_TAKE_LAST,      /* its last n rows */
    AY_TAKE_SWAPPED,   /* the second half of the rows, then the first */
    AY_TAKE_TRANSPOSED /* a matrix, columns for rows */
} ay_take;

/** A name in a checkpoint that differs from the one the graph asks for. Every '*' stands for any text, and is carried over
 *  in order. */
typedef struct ay_alias {
    const char *name;  /* as the graph has it; NULL ends a list */
    const char *found; /* as the checkpoint may have it */
    ay_take take;
    int part; /* of AY_TAKE_PART */
} ay_alias;

/** How one parameter lies in a checkpoint. */
typedef struct ay_recipe {
    char name[256];
    ay_take take;
    int part;
} ay_recipe;

/** Tensors by name, for telling from their shapes what a checkpoint is. Names are the naming's own, without prefix. */
typedef struct ay_names {
    const ay_type *(*find)(const struct ay_names *n, const char *name);
    const void *user;
} ay_names;
/** The tensor's type, or NULL. The name is formatted. */
const ay_type *ay_names_find(const ay_names *n, const char *fmt, ...) AY_PRINTF(2, 3);
/** How many there are: the first i from 0 for which there is no tensor BEFORE i AFTER. */
int64_t ay_names_count(const ay_names *n, const char *before, const char *after);

/** One way in which an architecture's checkpoints are written by somebody: the names, and what their shapes say. */
typedef struct ay_naming {
    const char *name;        /* "LDM": for people; NULL ends a list */
    const char *const *keys; /* tensors that every such checkpoint has, and no other naming's; NULL ends */
    /** Where blocks are counted otherwise: the name of a parameter as the aliases below take it. NULL: the graph's own. */
    bool (*rename)(const void *cfg, const char *name, char *text, size_t cap);
    const ay_alias *aliases;   /* the first that the checkpoint has a tensor for; NULL: the architecture's own */
    const char *const *ignore; /* as the architecture's; NULL: those */
    const char *identity;      /* a square matrix that is the identity where a checkpoint leaves it out; or NULL */
    /** config.json as the shapes tell it: what they do not say and `base` does is left out, and for what neither says the
     *  published models' values are taken. NULL: these shapes are no such model. `base` (may be NULL) is a config.json of a
     *  model with the same values under the keys `same`. */
    json_t *(*derive)(const ay_names *tensors, const json_t *base);
    const char *const *same; /* NULL ends; may be NULL */
} ay_naming;

/** The k-th way in which a checkpoint may hold the parameter `name`: 0 is that name itself (as rename() has it), from 1 on the
 *  aliases that match; false where there is no further one. `naming` may be NULL: the architecture's own names. */
bool ay_recipe_of(const ay_arch *arch, const ay_naming *naming, const void *cfg, const char *name, int k, ay_recipe *out);
/** Whether the naming's keys are all there. */
bool ay_naming_fits(const ay_naming *naming, const ay_names *tensors);

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

struct ay_arch {
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
    const ay_naming *namings; /* how others write its checkpoints; name NULL ends; may be NULL */
    const char *const *layouts; /* other layouts that configure() takes under AY_ATTENTION_KEY; NULL-terminated or NULL */
    const char *first_layer; /* the weight that reads the sample's channels, of which variants (inpainting) have more; may be NULL */
    const ay_alias *lora_aliases; /* names that only trainers of adapters give its layers; name NULL ends; may be NULL */
};

/** Where a model folder's configuration says which layout a graph is built in, if it is not the plain one. */
#define AY_ATTENTION_KEY "alloy_attention"

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
/** Of what a timestep says [B, n * dim], the i-th of n: [B, 1, dim]. */
ay_val ay_chunk(ay_graph *g, ay_val mod, int64_t dim, int i);
/** normed * (1 + scale) + shift */
ay_val ay_modulate(ay_graph *g, ay_val normed, ay_val shift, ay_val scale);
/** residual + gate * x */
ay_val ay_gated(ay_graph *g, ay_val residual, ay_val gate, ay_val x);
/** "net.0.proj" to four times the width, gelu (tanh), "net.2" back, inside the scope `name`. */
ay_val ay_feed_forward(ay_graph *g, const char *name, ay_val x);
/** Activation by the name transformers gives it; unknown names are a graph error. */
ay_val ay_activation(ay_graph *g, const char *name, ay_val x);
bool ay_activation_known(const char *name);

#endif
