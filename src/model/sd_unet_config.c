/* SPDX-License-Identifier: MIT
 *
 * What a config.json says of a UNet (diffusers: models/unets/unet_2d_condition.py, UNet2DConditionModel.__init__) or of the
 * half of one that a ControlNet is. Numbers are given once for all levels, or as a list with one for each level, or, how many
 * transformer blocks there are, as lists of lists with one for each layer, those of the way up in a key of their own.
 */
#include "model/sd_unet.h"

#include <string.h>

/* Keys of the class that no checkpoint of these models sets to anything else. `value` NULL: null or false. */
static alloy_status check_unused(ay_ctx *cx, const char *what, const json_t *j) {
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"class_embed_type", NULL},
        {"num_class_embeds", NULL},
        {"encoder_hid_dim", NULL},
        {"encoder_hid_dim_type", NULL},
        {"num_attention_heads", NULL},
        {"dual_cross_attention", NULL},
        {"center_input_sample", NULL},
        {"timestep_post_act", NULL},
        {"time_embedding_dim", NULL},
        {"time_embedding_act_fn", NULL},
        {"cross_attention_norm", NULL},
        {"resnet_skip_time_act", NULL},
        {"class_embeddings_concat", NULL},
        {"time_embedding_type", "positional"},
        {"attention_type", "default"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const json_t *v = json_object_get(j, rows[i].key);
        const char *s = json_string_value(v);
        if (!v || (!rows[i].value && (json_is_null(v) || json_is_false(v))) ||
            (rows[i].value && s && strcmp(s, rows[i].value) == 0))
            continue;
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known here with this value; only %s is", what, rows[i].key,
                       rows[i].value ? rows[i].value : "null");
    }
    static const char *const ones[] = {"mid_block_scale_factor", "resnet_out_scale_factor"};
    for (int i = 0; i < 2; i++) {
        double v;
        AY_TRY(ay_json_num_or(cx, what, j, ones[i], -1e9, 1e9, 1, &v));
        if (v != 1) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s %g is not known here, only 1", what, ones[i], v);
    }
    return ALLOY_OK;
}

/* ---- levels ------------------------------------------------------------------------------------------------------------ */

/* One number for all levels, or a list with one for each. */
static alloy_status per_level(ay_ctx *cx, const char *what, const json_t *j, const char *key, int64_t most, int64_t dflt, int levels,
                              int64_t *out) {
    int n = levels;
    if (json_is_array(json_object_get(j, key))) {
        AY_TRY(ay_json_ints(cx, what, j, key, 1, most, AY_UNET_LEVELS, out, &n));
    } else {
        AY_TRY(ay_json_int_or(cx, what, j, key, 1, most, dflt, &out[0]));
        for (int i = 1; i < levels; i++) out[i] = out[0];
    }
    if (n != levels)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s lists %d numbers, expected %d, one for each block", what, key, n,
                       levels);
    return ALLOY_OK;
}

static alloy_status block_types(ay_ctx *cx, const char *what, const json_t *j, const char *key, const char *with,
                                const char *without, int levels, bool *attention) {
    const json_t *a = json_object_get(j, key);
    if (!json_is_array(a) || (int)json_array_size(a) != levels) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s must list %d block types, as many as block_out_channels", what, key,
                       levels);
    }
    for (int i = 0; i < levels; i++) {
        const char *s = json_string_value(json_array_get(a, (size_t)i));
        attention[i] = s && strcmp(s, with) == 0;
        if (!attention[i] && (!s || strcmp(s, without) != 0)) {
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s has \"%s\"; %s and %s are known", what, key, s ? s : "?", with,
                           without);
        }
    }
    return ALLOY_OK;
}

static alloy_status read_depth(ay_ctx *cx, const char *what, const char *key, const json_t *v, int64_t *out) {
    int64_t n = json_is_integer(v) ? json_integer_value(v) : -1; /* 0: of a level without attention, as a rule */
    if (n < 0 || n > 100)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %s has an entry that is no number from 0 to 100", what, key);
    *out = n;
    return ALLOY_OK;
}

/* Of one level, `layers` of them: `v` is one number or a list. */
static alloy_status level_depths(ay_ctx *cx, const char *what, const char *key, const json_t *v, int64_t layers, int64_t *out) {
    for (int64_t k = 0; k < layers; k++) {
        const json_t *one = json_is_array(v) ? json_array_get(v, (size_t)k) : v;
        AY_TRY(read_depth(cx, what, key, one, &out[k]));
    }
    if (json_is_array(v) && (int64_t)json_array_size(v) != layers)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s lists %zu numbers for a block of %lld layers", what, key, json_array_size(v),
                       (long long)layers);
    return ALLOY_OK;
}

/* How many transformer blocks there are, on the way down and up and in the middle, which has the last level's. */
static alloy_status read_depths(ay_ctx *cx, const char *what, const json_t *j, bool ups, ay_unet_config *c) {
    static const char key[] = "transformer_layers_per_block", key_up[] = "reverse_transformer_layers_per_block";
    const json_t *down = json_object_get(j, key), *up = json_object_get(j, key_up);
    const bool reversed = up && !json_is_null(up);
    int n = c->levels;
    if ((json_is_array(down) && (int)json_array_size(down) != n) || (reversed && (int)json_array_size(up) != n))
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s must have %d entries, one for each block", what, reversed ? key_up : key, n);
    for (int i = 0; i < n; i++) {
        ay_unet_level *l = &c->level[i];
        const json_t *v = json_is_array(down) ? json_array_get(down, (size_t)i) : down;
        const json_t *w = reversed ? json_array_get(up, (size_t)(n - 1 - i)) : v;
        for (int64_t k = 0; k <= AY_UNET_LAYERS; k++) l->down_depth[k] = l->up_depth[k] = 1;
        if (v) AY_TRY(level_depths(cx, what, key, v, l->layers, l->down_depth));
        if (!reversed && json_is_array(v) && ups)
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %s has lists in it, so %s must say what the up blocks have", what, key, key_up);
        if (w && ups) AY_TRY(level_depths(cx, what, reversed ? key_up : key, w, l->layers + 1, l->up_depth));
    }
    c->mid_depth = c->level[n - 1].down_depth[0];
    return ALLOY_OK;
}

static alloy_status read_only_cross(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    const json_t *v = json_object_get(j, "only_cross_attention");
    if (json_is_array(v) && (int)json_array_size(v) != c->levels)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: only_cross_attention must have %d entries, one for each block", what, c->levels);
    for (int i = 0; i < c->levels; i++)
        c->level[i].only_cross = json_is_true(json_is_array(v) ? json_array_get(v, (size_t)i) : v);
    return ALLOY_OK;
}

static alloy_status check_level(ay_ctx *cx, const char *what, const ay_unet_config *c, int i) {
    const ay_unet_level *l = &c->level[i];
    bool attends = l->down_attention || l->up_attention || (i == c->levels - 1 && c->middle == AY_UNET_MIDDLE_ATTENTION);
    if (l->channels % c->groups) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: %lld channels cannot be split into norm_num_groups %lld", what,
                       (long long)l->channels, (long long)c->groups);
    }
    if (attends && l->channels % l->heads) {
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "%s: %lld channels are not a multiple of attention_head_dim %lld, which counts heads", what,
                       (long long)l->channels, (long long)l->heads);
    }
    return ALLOY_OK;
}

/* The text has one width, whatever is listed. */
static alloy_status read_cross(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    int64_t cross[AY_UNET_LEVELS];
    AY_TRY(per_level(cx, what, j, "cross_attention_dim", 1 << 16, 1280, c->levels, cross));
    c->cross_dim = cross[0];
    for (int i = 1; i < c->levels; i++) {
        if (cross[i] != cross[0])
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: cross_attention_dim lists %lld and %lld; all blocks read the same text", what,
                           (long long)cross[0], (long long)cross[i]);
    }
    return ALLOY_OK;
}

static alloy_status read_middle(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    static const char *const names[] = {"UNetMidBlock2DCrossAttn", "UNetMidBlock2D"}; /* null: there is none */
    const json_t *v = json_object_get(j, "mid_block_type");
    const char *s = v ? json_string_value(v) : names[0];
    c->middle = AY_UNET_MIDDLE_NONE;
    if (v && json_is_null(v)) return ALLOY_OK;
    for (int i = 0; i < 2 && s; i++) {
        if (strcmp(s, names[i]) != 0) continue;
        c->middle = i ? AY_UNET_MIDDLE_RESNET : AY_UNET_MIDDLE_ATTENTION;
        return ALLOY_OK;
    }
    return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: mid_block_type \"%s\" is not known here; %s, %s and null are", what, s ? s : "?", names[0], names[1]);
}

static alloy_status read_levels(ay_ctx *cx, const char *what, const json_t *j, bool ups, ay_unet_config *c) {
    int64_t channels[AY_UNET_LEVELS], heads[AY_UNET_LEVELS], layers[AY_UNET_LEVELS];
    bool down[AY_UNET_LEVELS], up[AY_UNET_LEVELS] = {false};
    AY_TRY(ay_json_ints(cx, what, j, "block_out_channels", 1, 65536, AY_UNET_LEVELS, channels, &c->levels));
    int n = c->levels;
    if (n < 1) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: block_out_channels is empty", what);
    AY_TRY(per_level(cx, what, j, "attention_head_dim", 1 << 16, 8, n, heads));
    AY_TRY(per_level(cx, what, j, "layers_per_block", AY_UNET_LAYERS, 2, n, layers));
    AY_TRY(block_types(cx, what, j, "down_block_types", "CrossAttnDownBlock2D", "DownBlock2D", n, down));
    if (ups) AY_TRY(block_types(cx, what, j, "up_block_types", "CrossAttnUpBlock2D", "UpBlock2D", n, up));
    for (int i = 0; i < n; i++) {
        c->level[i] = (ay_unet_level){.channels = channels[i], .heads = heads[i], .layers = layers[i], .down_attention = down[i], .up_attention = up[n - 1 - i]};
        AY_TRY(check_level(cx, what, c, i));
    }
    AY_TRY(read_cross(cx, what, j, c));
    AY_TRY(read_depths(cx, what, j, ups, c));
    AY_TRY(read_only_cross(cx, what, j, c));
    return channels[0] % 2 || channels[0] > 4096
               ? ay_fail(cx, ALLOY_E_MISMATCH, "%s: block_out_channels begins with %lld, expected an even number to 4096",
                         what, (long long)channels[0])
               : ALLOY_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

/* AY_ATTENTION_KEY is alloy's own: no checkpoint has it, a converted model's configuration may. */
static alloy_status read_layout(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    const char *layout;
    AY_TRY(ay_json_str_or(cx, what, j, AY_ATTENTION_KEY, "plain", &layout));
    c->split = strcmp(layout, "split-einsum") == 0;
    if (!c->split && strcmp(layout, "plain") != 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: " AY_ATTENTION_KEY " \"%s\" is not known; plain and split-einsum are", what, layout);
    for (int i = 0; c->split && i < c->levels; i++) {
        if (c->level[i].heads > AY_UNET_HEADS)
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: %lld heads, at most %d can be split", what, (long long)c->level[i].heads, AY_UNET_HEADS);
    }
    return ALLOY_OK;
}

static alloy_status read_conditions(ay_ctx *cx, const char *what, const json_t *j, bool ups, ay_unet_config *c) {
    const char *type = json_string_value(json_object_get(j, "addition_embed_type"));
    int64_t width;
    if (!type && (!json_object_get(j, "addition_embed_type") || json_is_null(json_object_get(j, "addition_embed_type"))))
        return ALLOY_OK;
    if (!type || strcmp(type, "text_time") != 0) {
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: addition_embed_type \"%s\" is not known here, only text_time", what,
                       type ? type : "?");
    }
    c->text_time = true;
    AY_TRY(ay_json_int(cx, what, j, "addition_time_embed_dim", 2, 4096, &c->time_dim));
    AY_TRY(ay_json_int(cx, what, j, "projection_class_embeddings_input_dim", 1, 1 << 20, &width));
    /* Six numbers about sizes; a refiner's five come with one text encoder, whose width is then text_embeds' too. Widths can
     * agree by chance: then ay_sizes.numbers tells. */
    c->ids = ups && c->cross_dim + 5 * c->time_dim == width ? 5 : 6;
    c->added_dim = width;
    if (c->time_dim % 2 || width <= c->ids * c->time_dim) {
        return ay_fail(cx, ALLOY_E_MISMATCH,
                       "%s: projection_class_embeddings_input_dim %lld does not hold six times addition_time_embed_dim %lld",
                       what, (long long)width, (long long)c->time_dim);
    }
    return ALLOY_OK;
}

static alloy_status read_words(ay_ctx *cx, const char *what, const json_t *j, ay_unet_config *c) {
    static const char *const acts[] = {"silu", "swish", "gelu", "relu", NULL};
    const char *act, *shift;
    AY_TRY(ay_json_str_or(cx, what, j, "act_fn", acts[0], &act));
    for (int i = 0; acts[i] && !c->act; i++) c->act = strcmp(act, acts[i]) == 0 ? acts[i] : NULL;
    if (!c->act) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: act_fn \"%s\" is not known here; silu, swish, gelu and relu are", what, act);
    AY_TRY(ay_json_str_or(cx, what, j, "resnet_time_scale_shift", "default", &shift));
    c->scale_shift = strcmp(shift, "scale_shift") == 0;
    if (c->scale_shift || strcmp(shift, "default") == 0) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: resnet_time_scale_shift \"%s\" is not known here; default and scale_shift are", what, shift);
}

alloy_status ay_sd_unet_read(ay_ctx *cx, const char *what, const json_t *j, bool up, ay_unet_config *c) {
    AY_TRY(check_unused(cx, what, j));
    AY_TRY(ay_json_int_or(cx, what, j, "in_channels", 1, 1024, 4, &c->in_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "out_channels", 1, 1024, 4, &c->out_channels));
    AY_TRY(ay_json_int_or(cx, what, j, "norm_num_groups", 1, 65536, 32, &c->groups));
    AY_TRY(ay_json_int_or(cx, what, j, "conv_in_kernel", 1, 15, 3, &c->conv_in));
    AY_TRY(ay_json_int_or(cx, what, j, "conv_out_kernel", 1, 15, 3, &c->conv_out));
    AY_TRY(ay_json_int_or(cx, what, j, "downsample_padding", 0, 1, 1, &c->down_pad));
    AY_TRY(ay_json_num_or(cx, what, j, "norm_eps", 0, 1, 1e-5, &c->eps));
    AY_TRY(ay_json_num_or(cx, what, j, "freq_shift", -1, 1, 0, &c->freq_shift));
    AY_TRY(ay_json_bool_or(cx, what, j, "flip_sin_to_cos", true, &c->flip));
    AY_TRY(ay_json_bool_or(cx, what, j, "use_linear_projection", false, &c->linear));
    AY_TRY(ay_json_bool_or(cx, what, j, "upcast_attention", false, &c->upcast));
    AY_TRY(ay_json_int_or(cx, what, j, "time_cond_proj_dim", 0, 4096, 0, &c->cond_dim));
    AY_TRY(read_words(cx, what, j, c));
    AY_TRY(read_middle(cx, what, j, c));
    if (c->conv_in % 2 == 0 || c->conv_out % 2 == 0)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: conv_in_kernel and conv_out_kernel must be odd", what);
    AY_TRY(read_levels(cx, what, j, up, c));
    AY_TRY(read_layout(cx, what, j, c));
    return read_conditions(cx, what, j, up, c);
}
