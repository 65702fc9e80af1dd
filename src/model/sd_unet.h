/* SPDX-License-Identifier: MIT
 *
 * The UNet's configuration, shared by its graph (sd_unet.c) and by the names of its checkpoints (sd_unet_names.c).
 */
#ifndef AY_SD_UNET_H
#define AY_SD_UNET_H

#include "model/model.h"

enum { AY_UNET_LEVELS = 8, AY_UNET_LAYERS = 16, AY_UNET_SKIPS = 1 + AY_UNET_LEVELS * (AY_UNET_LAYERS + 1), AY_UNET_HEADS = 256 };

typedef struct ay_unet_level {
    int64_t channels, heads, depth;    /* depth: transformer blocks of one attention */
    bool down_attention, up_attention; /* of this level; up blocks are listed from the last level to the first */
} ay_unet_level;

typedef struct ay_unet_config {
    int64_t in_channels, out_channels, layers, groups, cross_dim, conv_in, conv_out, down_pad;
    ay_unet_level level[AY_UNET_LEVELS];
    int levels;
    double eps, freq_shift;
    bool linear, flip, upcast, text_time;
    bool split; /* the layout of sd_unet_split.c */
    int64_t time_dim, text_dim, ids; /* of text_time: width of one number's embedding, of text_embeds; how many numbers */
} ay_unet_config;

extern const ay_naming ay_sd_unet_namings[];

/* sd_unet_split.c */
/** Text [B, T, D] as [B, D, 1, T]. */
ay_val ay_unet_split_text(ay_graph *g, ay_val text);
/** What is between a transformer's norm and its residual sum, of x [B, C, h, w]. */
ay_val ay_unet_split_blocks(ay_graph *g, const ay_unet_config *c, const ay_unet_level *l, ay_val x, ay_val text);
/* ---- the half that goes down, which a control net copies (sd_unet.c) ------------------------------------------------ */

/** What a graph has come to on the way. */
typedef struct ay_unet_state {
    ay_val x, temb, text;
    ay_val skips[AY_UNET_SKIPS];
    int n_skips;
} ay_unet_state;
/** `up`: the configuration has up blocks. */
alloy_status ay_sd_unet_read(ay_ctx *cx, const char *what, const json_t *j, bool up, ay_unet_config *c);
/** The inputs that both have in common, the time embedding, conv_in; false where sizes cannot be. */
bool ay_sd_unet_enter(ay_graph *g, const ay_unet_config *c, const ay_sizes *sizes, ay_unet_state *s);
/** Down blocks, whose results are kept in skips beside x as it is now, and the mid block. */
void ay_sd_unet_down(ay_graph *g, const ay_unet_config *c, ay_unet_state *s);
extern const ay_keep_rule ay_sd_unet_keep[];
extern const char *const ay_sd_unet_f32_inputs[];

#endif
