/* SPDX-License-Identifier: MIT
 *
 * Pieces that several architectures share unchanged: attention plumbing, timestep embeddings, small MLPs, activations.
 */
#include "model/model.h"

#include <math.h>
#include <string.h>

ay_val ay_split_heads(ay_graph *g, ay_val x, int64_t heads) {
    int64_t width = ay_dim(g, x, -1);
    if (heads <= 0 || width % heads != 0) {
        return ay_graph_fail(g, ALLOY_E_MISMATCH, "width %lld is not a multiple of %lld attention heads", (long long)width, (long long)heads);
    }
    return ay_reshape(g, x, 4, ay_dim(g, x, 0), ay_dim(g, x, 1), heads, width / heads);
}

ay_val ay_attend(ay_graph *g, ay_val q, ay_val k, ay_val v, ay_val mask, double scale) {
    int64_t batch = ay_dim(g, q, 0), length = ay_dim(g, q, 1), width = ay_dim(g, q, 2) * ay_dim(g, v, 3);
    ay_val o = ay_sdpa(g, ay_permute(g, q, 4, 0, 2, 1, 3), ay_permute(g, k, 4, 0, 2, 1, 3), ay_permute(g, v, 4, 0, 2, 1, 3), mask, scale);
    return ay_reshape(g, ay_permute(g, o, 4, 0, 2, 1, 3), 3, batch, length, width);
}

/* exp(x) as torch gives it on x86, where Intel's vector mathematics is within 0.51 units in the last place but does not round
 * correctly. Listed are the arguments for which it takes the other neighbour (found by comparing all frequencies of 128, 160
 * and 256). One unit matters: timesteps and guidance arrive multiplied by 1000, and at guidance 10 it turns an angle by 3e-4. */
static float frequency(float x) {
    static const struct {
        float x, value;
    } rounded[] = {
        {-0x1.ba18aap-1f, 0x1.afd136p-2f}, {-0x1.e825e6p+2f, 0x1.fe9f5ap-12f}, {-0x1.290d36p-2f, 0x1.7f13a0p-1f},
        {-0x1.d791c6p-4f, 0x1.c8520cp-1f}, {-0x1.3577aap+1f, 0x1.6d0e70p-4f},
    };
    for (size_t i = 0; i < sizeof rounded / sizeof rounded[0]; i++) {
        if (rounded[i].x == x) return rounded[i].value;
    }
    return (float)exp((double)x);
}

ay_val ay_timestep_embedding(ay_graph *g, ay_val t, int64_t dim, bool flip, double downscale_freq_shift, double scale) {
    /* diffusers/models/embeddings.py, get_timestep_embedding: frequencies exp(-ln(10000) * i / (half - shift)), in float32 */
    float freq[2048];
    int64_t half = dim / 2;
    if (dim % 2 != 0 || half < 1 || half > 2048) return ay_graph_fail(g, ALLOY_E_UNSUPPORTED, "timestep embedding of width %lld", (long long)dim);
    for (int64_t i = 0; i < half; i++) { /* each operation rounds to float32, as the tensor's do */
        float exponent = (float)-log(10000.0) * (float)i;
        freq[i] = frequency(exponent / (float)((double)half - downscale_freq_shift));
    }
    ay_val angle = ay_mul(g, ay_reshape(g, t, 2, ay_dim(g, t, 0), (int64_t)1), ay_const_f32s(g, freq, 2, (int64_t[]){1, half}));
    if (scale != 1.0) angle = ay_muls(g, angle, scale);
    ay_val s = ay_unary(g, AY_OP_SIN, angle), c = ay_unary(g, AY_OP_COS, angle);
    return flip ? ay_concat(g, -1, 2, c, s) : ay_concat(g, -1, 2, s, c);
}

ay_val ay_mlp_silu(ay_graph *g, const char *name, ay_val x, int64_t hidden, int64_t out) {
    ay_push(g, "%s", name);
    ay_val h = ay_linear_layer(g, "linear_1", x, hidden, true);
    h = ay_linear_layer(g, "linear_2", ay_unary(g, AY_OP_SILU, h), out, true);
    ay_pop(g);
    return h;
}

ay_val ay_chunk(ay_graph *g, ay_val mod, int64_t dim, int i) {
    return ay_reshape(g, ay_slice(g, mod, 1, i * dim, (i + 1) * dim), 3, ay_dim(g, mod, 0), (int64_t)1, dim);
}

ay_val ay_modulate(ay_graph *g, ay_val normed, ay_val shift, ay_val scale) {
    return ay_add(g, ay_mul(g, normed, ay_adds(g, scale, 1.0)), shift);
}

ay_val ay_gated(ay_graph *g, ay_val residual, ay_val gate, ay_val x) { return ay_add(g, residual, ay_mul(g, gate, x)); }

ay_val ay_feed_forward(ay_graph *g, const char *name, ay_val x) {
    int64_t dim = ay_dim(g, x, -1);
    ay_push(g, "%s.net", name);
    ay_val h = ay_gelu(g, ay_linear_layer(g, "0.proj", x, 4 * dim, true), AY_GELU_TANH);
    h = ay_linear_layer(g, "2", h, dim, true);
    ay_pop(g);
    return h;
}

/* transformers/activations.py, ACT2FN */
typedef struct activation_row {
    const char *name;
    ay_op op;
    ay_gelu_mode mode;
} activation_row;

static const activation_row activations[] = {
    {"gelu", AY_OP_GELU, AY_GELU_EXACT},          {"gelu_new", AY_OP_GELU, AY_GELU_TANH},
    {"gelu_pytorch_tanh", AY_OP_GELU, AY_GELU_TANH}, {"gelu_fast", AY_OP_GELU, AY_GELU_TANH},
    {"quick_gelu", AY_OP_GELU, AY_GELU_SIGMOID},  {"silu", AY_OP_SILU, AY_GELU_EXACT},
    {"swish", AY_OP_SILU, AY_GELU_EXACT},         {"relu", AY_OP_MAX, AY_GELU_EXACT},
};

static const activation_row *activation_find(const char *name) {
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++) {
        if (strcmp(activations[i].name, name) == 0) return &activations[i];
    }
    return NULL;
}

bool ay_activation_known(const char *name) { return activation_find(name) != NULL; }

ay_val ay_activation(ay_graph *g, const char *name, ay_val x) {
    const activation_row *row = activation_find(name);
    if (!row) return ay_graph_fail(g, ALLOY_E_UNSUPPORTED, "activation \"%s\" is not known", name);
    if (row->op == AY_OP_GELU) return ay_gelu(g, x, row->mode);
    if (row->op == AY_OP_MAX) return ay_binary(g, AY_OP_MAX, x, ay_const_f32(g, 0));
    return ay_unary(g, row->op, x);
}
