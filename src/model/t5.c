/* SPDX-License-Identifier: MIT
 *
 * The T5 encoder (transformers: T5EncoderModel, models/t5/modeling_t5.py): pre-norm with RMS norms, no biases, attention
 * that is not scaled but has a learned bias by bucketed distance (one table, in the first block, shared by all).
 *
 *   input_ids int32 [B, T] -> last_hidden_state [B, T, D]
 *
 * Padding is not masked: the diffusion pipelines feed padded prompts without a mask. The buckets' indices [T, T] are a
 * constant of the graph.
 */
#include "model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct t5_config {
    int64_t vocab, dim, head_dim, inner, layers, heads, buckets, max_distance;
    double eps;
    const char *act;
    bool gated;
} t5_config;

static alloy_status configure(ay_ctx *cx, ay_arena *arena, const char *what, const json_t *j, void **out) {
    t5_config *c = ay_alloc(arena, sizeof *c);
    if (!c) return ay_nomem(cx);
    const char *ff, *act;
    AY_TRY(ay_json_int(cx, what, j, "vocab_size", 1, 1 << 24, &c->vocab));
    AY_TRY(ay_json_int(cx, what, j, "d_model", 1, 1 << 16, &c->dim));
    AY_TRY(ay_json_int(cx, what, j, "d_kv", 1, 4096, &c->head_dim));
    AY_TRY(ay_json_int(cx, what, j, "d_ff", 1, 1 << 20, &c->inner));
    AY_TRY(ay_json_int(cx, what, j, "num_layers", 1, 1000, &c->layers));
    AY_TRY(ay_json_int(cx, what, j, "num_heads", 1, 1024, &c->heads));
    AY_TRY(ay_json_int_or(cx, what, j, "relative_attention_num_buckets", 4, 65536, 32, &c->buckets));
    AY_TRY(ay_json_int_or(cx, what, j, "relative_attention_max_distance", 2, 1 << 20, 128, &c->max_distance));
    AY_TRY(ay_json_num_or(cx, what, j, "layer_norm_epsilon", 0, 1, 1e-6, &c->eps));
    /* "relu", "gelu", "gated-gelu" ...; and gated-gelu has always meant the tanh form (T5Config) */
    AY_TRY(ay_json_str_or(cx, what, j, "feed_forward_proj", "relu", &ff));
    c->gated = strncmp(ff, "gated-", 6) == 0;
    act = c->gated ? ff + 6 : ff;
    if (strcmp(ff, "gated-gelu") == 0) act = "gelu_new";
    if (!ay_activation_known(act)) return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: feed_forward_proj \"%s\" is not known", what, ff);
    if (c->buckets / 4 >= c->max_distance) {
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: relative_attention_max_distance %lld is too small for %lld buckets", what,
                       (long long)c->max_distance, (long long)c->buckets);
    }
    c->act = ay_strdup(arena, act);
    if (!c->act) return ay_nomem(cx);
    *out = c;
    return ALLOY_OK;
}

/* T5Attention._relative_position_bucket, bidirectional; float32 logarithms, as torch computes them. */
static int32_t bucket(const t5_config *c, int64_t relative) {
    int64_t half = c->buckets / 2, exact = half / 2, at = relative > 0 ? half : 0, d = llabs(relative);
    if (d < exact) return (int32_t)(at + d);
    float far = logf((float)d / (float)exact) / (float)log((double)c->max_distance / (double)exact) * (float)(half - exact);
    return (int32_t)(at + ay_min_i64(exact + (int64_t)far, half - 1));
}

/* [1, heads, T, T] */
static ay_val position_bias(ay_graph *g, const t5_config *c, int64_t length) {
    int32_t *at = ay_alloc(g->arena, (size_t)(length * length) * sizeof *at);
    if (!at) return ay_graph_fail(g, ALLOY_E_NOMEM, "position buckets of %lld tokens", (long long)length);
    for (int64_t q = 0; q < length; q++) {
        for (int64_t k = 0; k < length; k++) at[q * length + k] = bucket(c, k - q);
    }
    ay_push(g, "encoder.block.0.layer.0.SelfAttention");
    ay_val table = ay_param(g, "relative_attention_bias.weight", ay_shape(AY_F32, 2, c->buckets, c->heads));
    ay_val bias = ay_gather(g, table, ay_const_data(g, ay_shape(AY_I32, 2, length, length), at), 0); /* [T, T, heads] */
    bias = ay_reshape(g, ay_permute(g, bias, 3, 2, 0, 1), 4, (int64_t)1, c->heads, length, length);
    ay_pop(g);
    return bias;
}

static ay_val norm(ay_graph *g, const t5_config *c, const char *name, ay_val x) {
    ay_push(g, "%s", name);
    x = ay_rms_norm(g, x, ay_param(g, "weight", ay_shape(AY_F32, 1, c->dim)), c->eps);
    ay_pop(g);
    return x;
}

static ay_val attention(ay_graph *g, const t5_config *c, ay_val x, ay_val bias) {
    int64_t width = c->heads * c->head_dim;
    ay_push(g, "SelfAttention");
    ay_val q = ay_split_heads(g, ay_linear_layer(g, "q", x, width, false), c->heads);
    ay_val k = ay_split_heads(g, ay_linear_layer(g, "k", x, width, false), c->heads);
    ay_val v = ay_split_heads(g, ay_linear_layer(g, "v", x, width, false), c->heads);
    ay_val o = ay_linear_layer(g, "o", ay_attend(g, q, k, v, bias, 1.0), c->dim, false);
    ay_pop(g);
    return o;
}

static ay_val feed_forward(ay_graph *g, const t5_config *c, ay_val x) {
    ay_push(g, "DenseReluDense");
    ay_val h;
    if (c->gated) {
        h = ay_activation(g, c->act, ay_linear_layer(g, "wi_0", x, c->inner, false));
        h = ay_mul(g, h, ay_linear_layer(g, "wi_1", x, c->inner, false));
    } else {
        h = ay_activation(g, c->act, ay_linear_layer(g, "wi", x, c->inner, false));
    }
    h = ay_linear_layer(g, "wo", h, c->dim, false);
    ay_pop(g);
    return h;
}

static void build(ay_graph *g, const void *cfg, const ay_sizes *s) {
    const t5_config *c = cfg;
    int64_t batch = s->batch > 0 ? s->batch : 1, length = s->text_length;
    if (length < 1 || length > 65536) {
        ay_graph_fail(g, ALLOY_E_MISMATCH, "a text of %lld tokens: 1 to 65536 can be encoded", (long long)length);
        return;
    }
    ay_val ids = ay_input(g, "input_ids", ay_shape(AY_I32, 2, batch, length));
    ay_val x = ay_gather(g, ay_param(g, "shared.weight", ay_shape(AY_F32, 2, c->vocab, c->dim)), ids, 0);
    ay_val bias = position_bias(g, c, length);
    for (int64_t i = 0; i < c->layers; i++) {
        ay_push(g, "encoder.block.%lld", (long long)i);
        ay_push(g, "layer.0");
        x = ay_add(g, x, attention(g, c, norm(g, c, "layer_norm", x), bias));
        ay_pop(g);
        ay_push(g, "layer.1");
        x = ay_add(g, x, feed_forward(g, c, norm(g, c, "layer_norm", x)));
        ay_pop(g);
        ay_pop(g);
    }
    ay_push(g, "encoder");
    x = norm(g, c, "final_layer_norm", x);
    ay_pop(g);
    ay_set_output(g, "last_hidden_state", x);
}

static const ay_keep_rule keep[] = {
    {"*.DenseReluDense*", AY_OP_COUNT, AY_F32, "the gated product and its projection pass 65504 in T5 v1.1 (transformers keeps wo in float32)"},
    {"*.SelfAttention*", AY_OP_SDPA, AY_F32, "logits are not scaled: hundreds, where half has steps of a quarter"},
    {"*.SelfAttention*", AY_OP_COUNT, AY_F16, NULL},
    {"encoder.block.*", AY_OP_ADD, AY_F32, "the residual stream carries the feed-forward's large values"},
    {"*", AY_OP_RMS_NORM, AY_F32, "reads the residual stream; squares overflow beyond 256"},
    {NULL, AY_OP_COUNT, AY_NONE, NULL},
};

/* Some checkpoints hold the tied embedding under its second name, or under both. */
static const ay_alias aliases[] = {{"shared.weight", "encoder.embed_tokens.weight", AY_TAKE_ALL, 0}, {NULL, NULL, AY_TAKE_ALL, 0}};
static const char *const ignore[] = {"encoder.embed_tokens.weight", "decoder.*", "lm_head.weight", NULL};

/* ---- llama.cpp's names (gguf-py, gguf/tensor_mapping.py and constants.py, architecture t5encoder) ------------------------- */

static const ay_alias llama_aliases[] = {
    {"shared.weight", "token_embd.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.SelfAttention.q.weight", "enc.blk.*.attn_q.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.SelfAttention.k.weight", "enc.blk.*.attn_k.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.SelfAttention.v.weight", "enc.blk.*.attn_v.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.SelfAttention.o.weight", "enc.blk.*.attn_o.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.SelfAttention.relative_attention_bias.weight", "enc.blk.*.attn_rel_b.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.0.layer_norm.weight", "enc.blk.*.attn_norm.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.1.layer_norm.weight", "enc.blk.*.ffn_norm.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.1.DenseReluDense.wi_0.weight", "enc.blk.*.ffn_gate.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.1.DenseReluDense.wi_1.weight", "enc.blk.*.ffn_up.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.1.DenseReluDense.wi.weight", "enc.blk.*.ffn_up.weight", AY_TAKE_ALL, 0},
    {"encoder.block.*.layer.1.DenseReluDense.wo.weight", "enc.blk.*.ffn_down.weight", AY_TAKE_ALL, 0},
    {"encoder.final_layer_norm.weight", "enc.output_norm.weight", AY_TAKE_ALL, 0},
    {NULL, NULL, AY_TAKE_ALL, 0},
};
static const char *const llama_keys[] = {"enc.blk.0.attn_q.weight", "enc.blk.0.attn_rel_b.weight", "token_embd.weight", NULL};
static const char *const llama_ignore[] = {"dec.*", "output.weight", NULL};
static const char *const own_keys[] = {"encoder.block.0.layer.0.SelfAttention.q.weight",
                                       "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", NULL};

static int64_t dim(const ay_type *t, int i) { return t && i < t->rank ? t->dim[i] : 0; }

typedef struct t5_shapes {
    const ay_type *tokens, *q, *bias, *inner; /* [V, D], [heads * d, D], [buckets, heads], [I, D] */
    bool gated;
    int64_t layers;
} t5_shapes;

static json_t *config_of(const t5_shapes *s, const json_t *base) {
    int64_t heads = dim(s->bias, 1);
    if (!s->tokens || !s->inner || !heads || dim(s->q, 0) % heads) return NULL;
    json_t *j = json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "architectures", "T5EncoderModel", "model_type", "t5", "vocab_size",
                          (json_int_t)dim(s->tokens, 0), "d_model", (json_int_t)dim(s->tokens, 1), "d_kv", (json_int_t)(dim(s->q, 0) / heads),
                          "d_ff", (json_int_t)dim(s->inner, 0), "num_layers", (json_int_t)s->layers, "num_heads", (json_int_t)heads,
                          "relative_attention_num_buckets", (json_int_t)dim(s->bias, 0));
    /* version 1.1, which the diffusion models use, gates with gelu; the first version is a relu */
    if (j && !json_object_get(base, "feed_forward_proj")) json_object_set_new(j, "feed_forward_proj", json_string(s->gated ? "gated-gelu" : "relu"));
    return j;
}

static json_t *derive_llama(const ay_names *n, const json_t *base) {
    t5_shapes s = {ay_names_find(n, "token_embd.weight"), ay_names_find(n, "enc.blk.0.attn_q.weight"), ay_names_find(n, "enc.blk.0.attn_rel_b.weight"),
                   ay_names_find(n, "enc.blk.0.ffn_up.weight"), ay_names_find(n, "enc.blk.0.ffn_gate.weight") != NULL,
                   ay_names_count(n, "enc.blk.", ".attn_q.weight")};
    return config_of(&s, base);
}

static json_t *derive_own(const ay_names *n, const json_t *base) {
    static const char block[] = "encoder.block.0.layer.";
    t5_shapes s = {ay_names_find(n, "shared.weight"), ay_names_find(n, "%s0.SelfAttention.q.weight", block),
                   ay_names_find(n, "%s0.SelfAttention.relative_attention_bias.weight", block), ay_names_find(n, "%s1.DenseReluDense.wi_1.weight", block),
                   true, ay_names_count(n, "encoder.block.", ".layer.0.SelfAttention.q.weight")};
    if (!s.tokens) s.tokens = ay_names_find(n, "encoder.embed_tokens.weight");
    if (!s.inner) s.inner = ay_names_find(n, "%s1.DenseReluDense.wi.weight", block), s.gated = false;
    return config_of(&s, base);
}

static const char *const same[] = {"d_model", "d_ff", "num_heads", NULL};

static const ay_naming namings[] = {
    {.name = "transformers", .keys = own_keys, .derive = derive_own, .same = same},
    {.name = "llama.cpp", .keys = llama_keys, .aliases = llama_aliases, .ignore = llama_ignore, .derive = derive_llama, .same = same},
    {.name = NULL},
};

/* ComfyUI's name of the encoder. */
static const ay_alias lora_aliases[] = {{"*", "t5xxl.transformer.*", AY_TAKE_ALL, 0}, {NULL, NULL, AY_TAKE_ALL, 0}};

static const ay_quant_rule quant_keep[] = {
    {"*relative_attention_bias.weight", AY_F16, "added to every attention logit of every layer"},
    {"shared.weight", AY_I8, "a row is a token: nothing averages its error"},
    {NULL, AY_NONE, NULL},
};

const ay_arch ay_arch_t5_encoder = {
    .class_name = "T5EncoderModel", .graph_kind = "", .configure = configure, .build = build, .keep = keep, .aliases = aliases, .ignore = ignore, .quant_keep = quant_keep, .namings = namings, .lora_aliases = lora_aliases};
