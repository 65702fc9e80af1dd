/* SPDX-License-Identifier: MIT
 *
 * The UNet's configuration (sd_unet_config.c), shared by its graph (sd_unet.c) and by the names of its checkpoints (sd_unet_names.c).
 */
#ifndef AY_SD_UNET_H
#define AY_SD_UNET_H

#include "model/model.h"

enum { AY_UNET_LEVELS = 8, AY_UNET_LAYERS = 16, AY_UNET_SKIPS = 1 + AY_UNET_LEVELS * (AY_UNET_LAYERS + 1), AY_UNET_HEADS = 256 };

typedef struct ay_unet_level {
    int64_t channels, heads, layers; /* layers: resnets on the way down; up there is one more */
    int64_t down_depth[AY_UNET_LAYERS + 1], up_depth[AY_UNET_LAYERS + 1]; /* of each layer's transformer: how many blocks */
    bool down_attention, up_attention; /* of this level; up blocks are listed from the last level to the first */
    bool only_cross;                   /* a transformer block's first attention reads the text too */
} ay_unet_level;

typedef enum ay_unet_middle { AY_UNET_MIDDLE_ATTENTION, AY_UNET_MIDDLE_RESNET, AY_UNET_MIDDLE_NONE } ay_unet_middle;

typedef struct ay_unet_config {
    int64_t in_channels, out_channels, groups, cross_dim, conv_in, conv_out, down_pad;
    ay_unet_level level[AY_UNET_LEVELS];
    int levels;
    ay_unet_middle middle;
    int64_t mid_depth, cond_dim; /* cond_dim: width of timestep_cond, 0 where there is none */
    double eps, freq_shift;
    const char *act;
    bool linear, flip, upcast, text_time, scale_shift;
    bool split; /* the layout of sd_unet_split.c */
    int64_t time_dim, added_dim, ids; /* of text_time: width of one number's embedding; of them all behind text_embeds; how many */
} ay_unet_config;

/* ---- names of checkpoints and what their shapes say (sd_unet_names.c) ------------------------------------------------ */

extern const ay_naming ay_sd_unet_namings[];
typedef struct ay_unet_shapes {
    int levels;
    int64_t cross, channels[AY_UNET_LEVELS], layers[AY_UNET_LEVELS]; /* layers: on the way down */
    int64_t down[AY_UNET_LEVELS][AY_UNET_LAYERS + 1], up[AY_UNET_LEVELS][AY_UNET_LAYERS + 1]; /* of each layer of a level: transformer blocks; 0: none */
    int64_t mid;
    ay_unet_middle middle;
    bool linear, only_cross[AY_UNET_LEVELS];
} ay_unet_shapes;
/** In the names of the original code, and in diffusers': false if it is no such model. */
bool ay_unet_shapes_ldm(const ay_names *n, ay_unet_shapes *s);
bool ay_unet_shapes_own(const ay_names *n, ay_unet_shapes *s);
/** What UNets and control nets have in common of their config.json. `in`, `added` (may be NULL): the weights of the first
 *  convolution and of what reads the added numbers. */
json_t *ay_unet_shapes_json(const ay_unet_shapes *s, const char *class_name, const ay_type *in, const ay_type *added, const json_t *base);
extern const char *const ay_unet_same[];
/* The names that lie outside of all blocks, of both. */
#define AY_UNET_LDM_ALIASES                                                                                                         \
    {"conv_in.*", "input_blocks.0.0.*", AY_TAKE_ALL, 0}, {"time_embedding.linear_1.*", "time_embed.0.*", AY_TAKE_ALL, 0},             \
        {"time_embedding.linear_2.*", "time_embed.2.*", AY_TAKE_ALL, 0}, {"add_embedding.linear_1.*", "label_emb.0.0.*", AY_TAKE_ALL, 0}, \
        {"add_embedding.linear_2.*", "label_emb.0.2.*", AY_TAKE_ALL, 0}
/** An ay_naming's rename of an ay_unet_config's blocks to the original code's. */
bool ay_unet_rename_ldm(const void *cfg, const char *name, char *text, size_t cap);

/* sd_unet_split.c */
/** Text [B, T, D] as [B, D, 1, T]. */
ay_val ay_unet_split_text(ay_graph *g, ay_val text);
/** What is between a transformer's norm and its residual sum, of x [B, C, h, w]. */
ay_val ay_unet_split_blocks(ay_graph *g, const ay_unet_config *c, const ay_unet_level *l, int64_t depth, ay_val x, ay_val text);
/* ---- the half that goes down, which a control net copies (sd_unet.c) ------------------------------------------------ */

/** What a graph has come to on the way. */
typedef struct ay_unet_state {
    ay_val x, temb, text;
    ay_val skips[AY_UNET_SKIPS];
    int n_skips;
} ay_unet_state;
/** `up`: the configuration has up blocks. (sd_unet_config.c) */
alloy_status ay_sd_unet_read(ay_ctx *cx, const char *what, const json_t *j, bool up, ay_unet_config *c);
/** The inputs that both have in common, the time embedding, conv_in; false where sizes cannot be. */
bool ay_sd_unet_enter(ay_graph *g, const ay_unet_config *c, const ay_sizes *sizes, ay_unet_state *s);
/** Down blocks, whose results are kept in skips beside x as it is now, and the mid block. */
void ay_sd_unet_down(ay_graph *g, const ay_unet_config *c, ay_unet_state *s);
extern const ay_keep_rule ay_sd_unet_keep[];
extern const char *const ay_sd_unet_f32_inputs[];

#endif
