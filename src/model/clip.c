/* SPDX-License-Identifier: MIT
 *
 * The CLIP text encoder (transformers: CLIPTextModel, CLIPTextModelWithProjection; models/clip/modeling_clip.py), in the
 * sizes L, H and bigG: a causal pre-norm transformer over learned positions.
 *
 *   input_ids int32 [B, T] -> last_hidden_state [B, T, D], hidden_states_penultimate [B, T, D] (before the last layer),
 *                             pooler_output [B, D]  (in the projected class text_embeds [B, P] instead)
 *
 * What people get wrong: pooling takes the first end token, but configurations with eos_token_id 2 (written before
 * transformers fixed it) take the position of the largest id instead.
 */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct clip_config {
    int64_t vocab, dim, inner, layers, heads, positions, projection, eos;
    double eps;
    const char *act;
    bool projected;
} clip_config;

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    clip_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    const char *act;
    AY_TRY(ay_json_int(cx, what, j, "vocab_size", 1, 1 << 24, &c->vocab));
    AY_TRY(ay_json_int(cx, what, j, "hidden_size", 1, 1 << 16, &c->dim));
    AY_TRY(ay_json_int(cx, what, j, "intermediate_size", 1, 1 << 20, &c->inner));
    AY_TRY(ay_json_int(cx, what, j, "num_hidden_layers", 1, 1000, &c->layers));
    AY_TRY(ay_json_int(cx, what, j, "num_attention_heads", 1, 1024, &c->heads));
    AY_TRY(ay_json_int_or(cx, what, j, "max_position_embeddings", 1, 1 << 20, 77, &c->positions));
    AY_TRY(ay_json_int_or(cx, what, j, "projection_dim", 0, 1 << 16, 512, &c->projection));
    AY_TRY(ay_json_int_or(cx, what, j, "eos_token_id", 0, 1 << 24, 49407, &c->eos));
    AY_TRY(ay_json_num_or(cx, what, j, "layer_norm_eps", 0, 1, 1e-5, &c->eps));
    AY_TRY(ay_json_str_or(cx, what, j, "hidden_act", "quick_gelu", &act));
    if (!ay_activation_known(act)) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: hidden_act \"%s\" is not known", what, act);
    if (c->dim % c->heads) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: hidden_size %lld is not a multiple of num_attention_heads %lld", what, (long long)c->dim,
                       (long long)c->heads);
    }
    c->act = ay_strdup(arena, act);
    if (!c->act) return ay_nomem(cx);
    *out = c;
    return ALLOY_OK;
}

static alloy_status configure_projected(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    AY_TRY(configure(cx, arena, what, j, out));
    ((clip_config *)*out)->projected = true;
    return ALLOY_OK;
}

static ay_val norm(ay_graph *g, const clip_config *c, const char *name, ay_val x) {
    ay_push(g, "%s", name);
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, c->dim)), b = ay_param(g, "bias", ay_shape(AY_F32, 1, c->dim));
    x = ay_layer_norm(g, x, w, b, c->eps);
    ay_pop(g);
    return x;
}

static ay_val layer(ay_graph *g, const clip_config *c, ay_val x, ay_val mask) {
    ay_val n = norm(g, c, "layer_norm1", x);
    ay_push(g, "self_attn");
    ay_val q = ay_split_heads(g, ay_linear_layer(g, "q_proj", n, c->dim, true), c->heads);
    ay_val k = ay_split_heads(g, ay_linear_layer(g, "k_proj", n, c->dim, true), c->heads);
    ay_val v = ay_split_heads(g, ay_linear_layer(g, "v_proj", n, c->dim, true), c->heads);
    ay_val o = ay_attend(g, q, k, v, mask, 1.0 / sqrt((double)(c->dim / c->heads)));
    o = ay_linear_layer(g, "out_proj", o, c->dim, true);
    ay_pop(g);
    x = ay_add(g, x, o);
    n = norm(g, c, "layer_norm2", x);
    ay_push(g, "mlp");
    n = ay_activation(g, c->act, ay_linear_layer(g, "fc1", n, c->inner, true));
    n = ay_linear_layer(g, "fc2", n, c->dim, true);
    ay_pop(g);
    return ay_add(g, x, n);
}

/* [1, 1, T, T]: -10000 above the diagonal. Far enough for softmax to give exact zeros, and well inside half's range. */
static ay_val causal_mask(ay_graph *g, int64_t length) {
    int64_t dim[4] = {1, 1, length, length};
    float *m = ay_alloc(g->arena, (size_t)(length * length) * sizeof *m);
    if (!m) return ay_graph_fail(g, ALLOY_E_NOMEM, "causal mask of %lld tokens", (long long)length);
    for (int64_t i = 0; i < length; i++) {
        for (int64_t k = i + 1; k < length; k++) m[i * length + k] = -10000.0f;
    }
    return ay_const_f32s(g, m, 4, dim);
}

/* The row of x [B, T, D] at the first end token (or the largest id) of ids [B, T]: [B, D]. */
static ay_val pool(ay_graph *g, const clip_config *c, ay_val ids, ay_val x) {
    int64_t batch = ay_dim(g, ids, 0);
    ay_val score = ids;
    if (c->eos != 2) score = ay_cast(g, ay_binary(g, AY_OP_EQ, ids, ay_const_i32(g, (int32_t)c->eos)), AY_I32);
    ay_attr attr = {.reduce = {.n = 1, .axes = {1}, .keep = false, .largest = true}};
    ay_val at = ay_node_add(g, AY_OP_ARGMAX, &score, 1, &attr, NULL); /* [B] */
    attr = (ay_attr){.gather = {.axis = 1, .batch_dims = 1}};
    ay_val in[2] = {x, ay_reshape(g, at, 2, batch, (int64_t)1)};
    return ay_reshape(g, ay_node_add(g, AY_OP_GATHER, in, 2, &attr, NULL), 2, batch, c->dim);
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const clip_config *c = cfg;
    int64_t batch = s->batch > 0 ? s->batch : 1, length = s->text_length > 0 ? s->text_length : c->positions;
    if (length > c->positions) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "a text of %lld tokens: this encoder has %lld positions", (long long)length, (long long)c->positions);
        return;
    }
    ay_val ids = ay_input(g, "input_ids", ay_shape(AY_I32, 2, batch, length));
    ay_push(g, "text_model");
    ay_push(g, "embeddings");
    ay_val x = ay_gather(g, ay_param(g, "token_embedding.weight", ay_shape(AY_F32, 2, c->vocab, c->dim)), ids, 0);
    ay_val pos = ay_param(g, "position_embedding.weight", ay_shape(AY_F32, 2, c->positions, c->dim));
    x = ay_add(g, x, ay_slice(g, pos, 0, 0, length));
    ay_pop(g);
    if (s->skip < 0 || s->skip >= c->layers) {
        ay_graph_fail(g, ALLOY_E_USAGE, "%lld layers of the text encoder to skip: it has %lld, so that 0 to %lld can be", (long long)s->skip,
                      (long long)c->layers, (long long)(c->layers - 1));
        return;
    }
    ay_val mask = causal_mask(g, length), shown = x, before = x;
    for (int64_t i = 0; i < c->layers; i++) {
        ay_push(g, "encoder.layers.%lld", (long long)i);
        if (i + s->skip < c->layers) before = x;
        x = layer(g, c, x, mask);
        if (i + s->skip < c->layers) shown = x;
        ay_pop(g);
    }
    shown = norm(g, c, "final_layer_norm", shown);
    ay_val pooled = pool(g, c, ids, s->skip ? norm(g, c, "final_layer_norm", x) : shown); /* always of the last layer */
    ay_pop(g);
    ay_set_output(g, "last_hidden_state", shown);
    ay_set_output(g, "hidden_states_penultimate", before);
    if (c->projected) {
        ay_set_output(g, "text_embeds", ay_linear_layer(g, "text_projection", pooled, c->projection, false));
    } else {
        ay_set_output(g, "pooler_output", pooled);
    }
}

static const ay_keep_rule keep[] = {
    {"text_model.encoder.layers.*", AY_OP_ADD, AY_F32, "the residual stream: sums of many layers, one rounding each in half"},
    {"*", AY_OP_LAYER_NORM, AY_F32, "reads the residual stream"},
    {NULL, AY_OP_COUNT, AY_NONE, NULL},
};

/* transformers 5 saves CLIPTextModel without the prefix that every earlier version wrote. */
static const ay_alias aliases[] = {{"text_model.*", "*", AY_TAKE_ALL, 0}, {NULL, NULL, AY_TAKE_ALL, 0}};
static const char *const ignore[] = {"*position_ids", "text_projection.weight", NULL};

/* ---- how OpenCLIP writes it (mlfoundations/open_clip, src/open_clip/transformer.py): q, k, v as one product, the projection
 * as a matrix that stands behind its vector. Stable Diffusion 2 and XL's checkpoints hold the encoder so. ------------------ */

static const ay_alias open_aliases[] = {
    {"text_model.embeddings.token_embedding.weight", "token_embedding.weight", AY_TAKE_ALL, 0},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding", AY_TAKE_ALL, 0},
    {"text_model.encoder.layers.*.layer_norm1.*", "transformer.resblocks.*.ln_1.*", AY_TAKE_ALL, 0},
    {"text_model.encoder.layers.*.layer_norm2.*", "transformer.resblocks.*.ln_2.*", AY_TAKE_ALL, 0},
    {"text_model.encoder.layers.*.self_attn.q_proj.*", "transformer.resblocks.*.attn.in_proj_*", AY_TAKE_PART, 0},
    {"text_model.encoder.layers.*.self_attn.k_proj.*", "transformer.resblocks.*.attn.in_proj_*", AY_TAKE_PART, 1},
    {"text_model.encoder.layers.*.self_attn.v_proj.*", "transformer.resblocks.*.attn.in_proj_*", AY_TAKE_PART, 2},
    {"text_model.encoder.layers.*.self_attn.out_proj.*", "transformer.resblocks.*.attn.out_proj.*", AY_TAKE_ALL, 0},
    {"text_model.encoder.layers.*.mlp.fc1.*", "transformer.resblocks.*.mlp.c_fc.*", AY_TAKE_ALL, 0},
    {"text_model.encoder.layers.*.mlp.fc2.*", "transformer.resblocks.*.mlp.c_proj.*", AY_TAKE_ALL, 0},
    {"text_model.final_layer_norm.*", "ln_final.*", AY_TAKE_ALL, 0},
    {"text_projection.weight", "text_projection", AY_TAKE_TRANSPOSED, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const open_keys[] = {"transformer.resblocks.0.attn.in_proj_weight", "token_embedding.weight", "positional_embedding", NULL};
static const char *const open_ignore[] = {"*position_ids", "logit_scale", "attn_mask", "text_projection", "visual.*", "transformer.resblocks.*", NULL};
static const char *const open_ignore_projected[] = {"*position_ids", "logit_scale", "attn_mask", "visual.*", NULL};
/* transformers' own names, and the same without text_model. */
static const char *const own_keys[] = {"text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.self_attn.q_proj.weight", NULL};
static const char *const bare_keys[] = {"embeddings.token_embedding.weight", "encoder.layers.0.self_attn.q_proj.weight", NULL};

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

typedef struct clip_shapes {
    const ay_type *tokens, *positions, *inner, *projection; /* [vocab, D], [P, D], [I, D], [P, D] or as found */
    int64_t layers;
    const char *act;
} clip_shapes;

/* The activation is OpenAI's quick form in CLIP-L and the exact one in OpenCLIP's; every published encoder has heads of 64
 * numbers (open_clip, model_configs/ViT-H-14.json, ViT-bigG-14.json; openai/clip-vit-large-patch14, config.json). */
static json_t *config_of(const clip_shapes *s, const char *class_name, int64_t projection, const json_t *base) {
    int64_t width = dim(s->tokens, 1);
    if (!width || !s->positions || !s->inner || !s->layers) return NULL;
    json_t *j = json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I}", "architectures", class_name, "model_type", "clip_text_model", "vocab_size",
                          (json_int_t)dim(s->tokens, 0), "hidden_size", (json_int_t)width, "intermediate_size", (json_int_t)dim(s->inner, 0),
                          "num_hidden_layers", (json_int_t)s->layers, "max_position_embeddings", (json_int_t)dim(s->positions, 0));
    if (j && projection) json_object_set_new(j, "projection_dim", json_integer(projection));
    if (j && !json_object_get(base, "num_attention_heads")) {
        json_object_set_new(j, "num_attention_heads", json_integer(ay_max_i64(width / 64, 1)));
    }
    if (j && !json_object_get(base, "hidden_act")) json_object_set_new(j, "hidden_act", json_string(s->act));
    return j;
}

static json_t *derive_hf(const ay_names *n, const char *before, const char *class_name, const json_t *base) {
    char layers[64];
    snprintf(layers, sizeof layers, "%sencoder.layers.", before);
    clip_shapes s = {.tokens = ay_names_find(n, "%sembeddings.token_embedding.weight", before),
                     .positions = ay_names_find(n, "%sembeddings.position_embedding.weight", before),
                     .inner = ay_names_find(n, "%s0.mlp.fc1.weight", layers),
                     .projection = ay_names_find(n, "text_projection.weight"),
                     .layers = ay_names_count(n, layers, ".self_attn.q_proj.weight"),
                     .act = dim(ay_names_find(n, "%sembeddings.token_embedding.weight", before), 1) > 768 ? "gelu" : "quick_gelu"};
    bool projected = strcmp(class_name, "CLIPTextModelWithProjection") == 0;
    int64_t told = json_integer_value(json_object_get(base, "num_hidden_layers")); /* fewer: the rest is for the check to find unused */
    if (!projected && told > 0 && told < s.layers) s.layers = told;
    return config_of(&s, class_name, s.projection || !projected ? dim(s.projection, 0) : dim(s.tokens, 1), base);
}

static clip_shapes open_shapes(const ay_names *n) {
    return (clip_shapes){.tokens = ay_names_find(n, "token_embedding.weight"),
                         .positions = ay_names_find(n, "positional_embedding"),
                         .inner = ay_names_find(n, "transformer.resblocks.0.mlp.c_fc.weight"),
                         .projection = ay_names_find(n, "text_projection"),
                         .layers = ay_names_count(n, "transformer.resblocks.", ".attn.in_proj_weight"),
                         .act = "gelu"};
}

static json_t *derive_own(const ay_names *n, const json_t *base) { return derive_hf(n, "text_model.", "CLIPTextModel", base); }
static json_t *derive_bare(const ay_names *n, const json_t *base) { return derive_hf(n, "", "CLIPTextModel", base); }
static json_t *derive_own_projected(const ay_names *n, const json_t *base) { return derive_hf(n, "text_model.", "CLIPTextModelWithProjection", base); }
static json_t *derive_bare_projected(const ay_names *n, const json_t *base) { return derive_hf(n, "", "CLIPTextModelWithProjection", base); }

/* Without the projection it is Stable Diffusion 2's, which stops before the last layer (ldm/modules/encoders/modules.py,
 * FrozenOpenCLIPEmbedder, layer "penultimate"): diffusers leaves that layer out. */
static json_t *derive_open(const ay_names *n, const json_t *base) {
    clip_shapes s = open_shapes(n);
    int64_t told = json_integer_value(json_object_get(base, "num_hidden_layers"));
    s.layers = told > 0 && told <= s.layers ? told : s.layers - 1;
    return config_of(&s, "CLIPTextModel", 0, base);
}
static json_t *derive_open_projected(const ay_names *n, const json_t *base) {
    clip_shapes s = open_shapes(n);
    return config_of(&s, "CLIPTextModelWithProjection", dim(s.projection, 1), base);
}

static const char *const same[] = {"hidden_size", "intermediate_size", "vocab_size", NULL};

static const ay_naming namings[] = {
    {.name = "transformers", .keys = own_keys, .derive = derive_own, .same = same},
    {.name = "OpenCLIP", .keys = open_keys, .aliases = open_aliases, .ignore = open_ignore, .derive = derive_open, .same = same},
    {.name = "transformers", .keys = bare_keys, .derive = derive_bare, .same = same},
    {.name = NULL},
};
/* leejet/stable-diffusion.cpp, model.cpp, convert_open_clip_to_hf_clip: transformers' names, but for the projection, whose numbers
 * stay OpenCLIP's. */
static const ay_alias cpp_aliases[] = {{"text_projection.weight", "text_model.text_projection", AY_TAKE_TRANSPOSED, 0}, {NULL, NULL, AY_TAKE_ALL, 0}};
static const char *const cpp_keys[] = {"text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.self_attn.q_proj.weight",
                                       "text_model.text_projection", NULL};
static const char *const cpp_ignore[] = {"*position_ids", "*logit_scale", NULL};
static json_t *derive_cpp(const ay_names *n, const json_t *base) {
    json_t *j = derive_own_projected(n, base);
    if (j) json_object_set_new(j, "projection_dim", json_integer(dim(ay_names_find(n, "text_model.text_projection"), 1)));
    return j;
}
/* Stable Diffusion 3's files hold CLIP-L without its projection, which is the identity there (Stability-AI/sd3-ref,
 * other_impls.py, SDClipModel). */
static const ay_naming namings_projected[] = {
    {.name = "stable-diffusion.cpp", .keys = cpp_keys, .aliases = cpp_aliases, .ignore = cpp_ignore, .derive = derive_cpp, .same = same},
    {.name = "transformers", .keys = own_keys, .derive = derive_own_projected, .same = same, .identity = "text_projection.weight"},
    {.name = "OpenCLIP", .keys = open_keys, .aliases = open_aliases, .ignore = open_ignore_projected, .derive = derive_open_projected, .same = same},
    {.name = "transformers", .keys = bare_keys, .derive = derive_bare_projected, .same = same},
    {.name = NULL},
};

/* diffusers before PEFT called the projections as its own attention does; ComfyUI's names of the encoders. */
#define LORA_ALIASES                                                                                                     \
    {"*.self_attn.q_proj.*", "*.self_attn.to_q.*", AY_TAKE_ALL, 0}, {"*.self_attn.k_proj.*", "*.self_attn.to_k.*", AY_TAKE_ALL, 0},       \
        {"*.self_attn.v_proj.*", "*.self_attn.to_v.*", AY_TAKE_ALL, 0}, {"*.self_attn.out_proj.*", "*.self_attn.to_out.*", AY_TAKE_ALL, 0}
static const ay_alias lora_aliases[] = {
    LORA_ALIASES,
    {"*", "clip_l.transformer.*", AY_TAKE_ALL, 0},
    {"*", "clip_h.transformer.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const ay_alias lora_aliases_projected[] = {
    LORA_ALIASES,
    {"*", "clip_g.transformer.*", AY_TAKE_ALL, 0},
    {"*", "clip_l.transformer.*", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};

static const ay_quant_rule quant_keep[] = {
    {"*position_embedding.weight", AY_F16, "small, and added to every token"},
    {"*token_embedding.weight", AY_I8, "a row is a token: nothing averages its error"},
    {NULL, AY_NONE, NULL},
};

const ay_arch ay_arch_clip_text = {
    .class_name = "CLIPTextModel", .graph_kind = "", .configure = configure, .build = build, .keep = keep, .aliases = aliases, .ignore = ignore,
    .quant_keep = quant_keep, .namings = namings, .lora_aliases = lora_aliases};
const ay_arch ay_arch_clip_text_projected = {.class_name = "CLIPTextModelWithProjection",
                                             .graph_kind = "",
                                             .configure = configure_projected,
                                             .build = build,
                                             .keep = keep,
                                             .aliases = aliases,
                                             .ignore = ignore,
                                             .quant_keep = quant_keep,
                                             .namings = namings_projected,
    .lora_aliases = lora_aliases_projected};
