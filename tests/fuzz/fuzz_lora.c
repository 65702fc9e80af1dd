/* SPDX-License-Identifier: MIT
 *
 * Adapter files: the bytes say which tensors of which layers there are, of what shapes and numbers. Whatever opens and fits can be
 * read in full, in pieces of any size, and comes to the same in one piece.
 */
#include "source/lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good) {
    if (!good) __builtin_trap();
}

static const char *const layers[] = {"lora_unet_a", "unet.a", "b.c", "lora_unet_b_c", "base_model.model.unet.d", "e_f", "lora_te_a", "x"};
static const char *const endings[] = {
    ".lora_up.weight", ".lora_down.weight", ".lora_mid.weight", ".alpha", ".lora_A.weight", ".lora_B.weight", "_lora.up.weight", ".hada_w1_a",
    ".hada_w1_b", ".hada_t1", ".hada_w2_a", ".hada_w2_b", ".hada_t2", ".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a",
    ".lokr_w2_b", ".lokr_t2", ".dora_scale", ".lora_magnitude_vector", ".diff", ".diff_b", ".lora_B.bias", ".w_norm", ".b_norm", ".oft_blocks",
};
enum { LAYERS = sizeof layers / sizeof layers[0], ENDINGS = sizeof endings / sizeof endings[0], MOST = 24, NUMBERS = 4096 };

typedef struct bytes {
    const uint8_t *p;
    size_t n;
} bytes;

static unsigned next(bytes *b) {
    if (b->n == 0) return 0;
    b->n--;
    return *b->p++;
}

static const char *temp(const char *kind) {
    static char path[2][64];
    char *p = path[kind[0] == 'l'];
    snprintf(p, sizeof path[0], "%s/fuzz-%s-%d.safetensors", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", kind, (int)getpid());
    return p;
}

/* Whole layers, so that what fits is met often: O and I are the layer's, o and i half of them, C its columns, k its kernel. */
static const struct {
    const char *ending, *dims;
} wholes[][7] = {
    {{".lora_up.weight", "Or11"}, {".lora_down.weight", "rIkk"}, {".alpha", ""}, {".dora_scale", "O111"}},
    {{".lora_B.weight", "Or"}, {".lora_A.weight", "rIkk"}, {".lora_magnitude_vector", "O"}, {".lora_B.bias", "O"}},
    {{".lora_up.weight", "Or11"}, {".lora_down.weight", "rI11"}, {".lora_mid.weight", "rrkk"}, {".dora_scale", "1I11"}},
    {{".hada_w1_a", "Or"}, {".hada_w1_b", "rC"}, {".hada_w2_a", "Or"}, {".hada_w2_b", "rC"}, {".dora_scale", "1I"}, {".alpha", "1"}},
    {{".hada_w1_a", "rO"}, {".hada_w1_b", "rI"}, {".hada_t1", "rrkk"}, {".hada_w2_a", "rO"}, {".hada_w2_b", "rI"}, {".hada_t2", "rrkk"}},
    {{".lokr_w1", "22"}, {".lokr_w2", "oikk"}, {".alpha", ""}, {".dora_scale", "O1"}},
    {{".lokr_w1_a", "2r"}, {".lokr_w1_b", "r2"}, {".lokr_t2", "rrkk"}, {".lokr_w2_a", "ro"}, {".lokr_w2_b", "ri"}, {".dora_scale", "1I11"}},
    {{".diff", "OIkk"}, {".diff_b", "O"}},
    {{".w_norm", "O"}, {".b_norm", "O"}},
};
enum { WHOLES = sizeof wholes / sizeof wholes[0] };

static int64_t dim_of(char code, int layer, int64_t rank) {
    static const int64_t outs[] = {4, 6, 4, 6}, ins[] = {6, 4, 6, 1}, kernels[] = {1, 1, 3, 1};
    switch (code) {
    case 'O': return outs[layer];
    case 'I': return ins[layer];
    case 'o': return outs[layer] / 2;
    case 'i': return ins[layer] / 2;
    case 'C': return ins[layer] * kernels[layer] * kernels[layer];
    case 'k': return kernels[layer];
    case 'r': return rank;
    default: return code - '0';
    }
}

/* One layer with all its tensors, of which at most one has a dimension that does not fit. */
static int whole_layer(bytes *b, char (*names)[96], ay_tensor *t, int n, float *numbers) {
    static const char *const known[] = {"lora_unet_a", "unet.b.c", "d", "lora_unet_e_f"};
    unsigned layer = next(b) % 4, form = next(b) % WHOLES, bad = next(b) % 32, leave = next(b) % 16;
    int64_t rank = 1 + next(b) % 5;
    for (int k = 0; k < n; k++) {
        if (strncmp(names[k], known[layer], strlen(known[layer])) == 0) return n; /* it has something already */
    }
    for (unsigned i = 0; i < 7 && wholes[form][i].ending && n < MOST; i++) {
        ay_type type = {AY_F32, (int)strlen(wholes[form][i].dims), {0}};
        if (i == leave) continue;
        for (int d = 0; d < type.rank; d++) type.dim[d] = dim_of(wholes[form][i].dims[d], (int)layer, rank);
        if (i == bad && type.rank) type.dim[0]++;
        snprintf(names[n], sizeof names[n], "%s%s", known[layer], wholes[form][i].ending);
        t[n] = (ay_tensor){names[n], type, numbers};
        n++;
    }
    return n;
}

/* A file of tensors that the bytes describe; false if none. */
static bool write_lora(ay_ctx *cx, bytes *b) {
    static float numbers[NUMBERS];
    char names[MOST][96];
    ay_tensor t[MOST];
    const char *metadata[] = {"lora_adapter_metadata", "{\"unet.lora_alpha\": 3, \"unet.alpha_pattern\": {\"a\": 2}, \"unet.use_rslora\": true}", NULL};
    int n = 0, count = (int)(next(b) % MOST) + 1, flags = (int)next(b);
    for (int i = 0; i < NUMBERS; i++) numbers[i] = (float)(i % 17 - 8) / 8;
    if (flags % 32 == 1) numbers[3] = 1.0f / 0.0f;
    for (int i = 0; flags & 4 && i < 4 && b->n; i++) n = whole_layer(b, names, t, n, numbers);
    for (int i = 0; !(flags & 4) && i < count && b->n; i++) {
        snprintf(names[n], sizeof names[n], "%s%s", layers[next(b) % LAYERS], endings[next(b) % ENDINGS]);
        bool twice = false;
        for (int k = 0; k < n; k++) twice |= strcmp(names[k], names[n]) == 0;
        if (twice) continue;
        ay_type type = {AY_F32, (int)(next(b) % 5), {0}};
        for (int d = 0; d < type.rank; d++) type.dim[d] = next(b) % 13;
        if (ay_type_count(&type) > NUMBERS) continue;
        t[n] = (ay_tensor){names[n], type, numbers};
        n++;
    }
    return n && ay_st_write(cx, temp("lora"), t, n, flags & 2 ? metadata : NULL) == ALLOY_OK;
}

/* Four layers: a matrix, one behind a dot with a bias, a convolution, a norm. */
static ay_graph *model(ay_ctx *cx) {
    ay_graph *g = ay_graph_new(cx);
    ay_val x = ay_input(g, "x", ay_shape(AY_F32, 2, 1, 6));
    x = ay_linear_layer(g, "a", x, 4, false);
    ay_push(g, "b");
    x = ay_linear_layer(g, "c", x, 6, true);
    ay_pop(g);
    ay_val d = ay_conv2d_layer(g, "d", ay_reshape(g, x, 4, 1, 6, 1, 1), 4, 3, 1, 1, true);
    ay_push(g, "e_f");
    ay_val w = ay_param(g, "weight", ay_shape(AY_F32, 1, 6)), bias = ay_param(g, "bias", ay_shape(AY_F32, 1, 6));
    x = ay_layer_norm(g, x, w, bias, 1e-5);
    ay_pop(g);
    ay_set_output(g, "y", x);
    ay_set_output(g, "z", d);
    return g;
}

static bool write_checkpoint(ay_ctx *cx, const ay_graph *g) {
    static float numbers[NUMBERS];
    ay_tensor t[MOST];
    int n = 0;
    for (int i = 0; i < NUMBERS; i++) numbers[i] = (float)(i % 11 - 5) / 4;
    for (int i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op == AY_OP_PARAM) t[n++] = (ay_tensor){g->nodes[i].name, g->nodes[i].type, numbers};
    }
    return ay_st_write(cx, temp("base"), t, n, NULL) == ALLOY_OK;
}

static void read_all(ay_ctx *cx, const ay_source *s, const ay_arch *arch, const ay_graph *g, unsigned step) {
    float whole[NUMBERS], pieces[NUMBERS];
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        ay_origin o;
        if (n->op != AY_OP_PARAM) continue;
        check(ay_source_find(s, arch, n->name, &n->type, &o) && o.fits);
        int64_t count = ay_type_count(&n->type);
        if (ay_origin_begin(cx, &o) == ALLOY_OK) {
            ay_origin_read(&o, 0, count, whole);
            for (int64_t at = 0; at < count; at += step) ay_origin_read(&o, at, ay_min_i64(step, count - at), pieces + at);
            check(memcmp(whole, pieces, (size_t)count * sizeof *whole) == 0);
        }
        ay_origin_end(&o);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const ay_arch arch = {.class_name = "Fuzzed", .graph_kind = ""};
    bytes b = {data, size};
    ay_ctx *cx;
    if (ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    ay_graph *g = model(cx);
    check(ay_graph_status(g) == ALLOY_OK);
    int n = 1 + (int)(next(&b) % 2);
    unsigned step = 1 + next(&b) % 40;
    alloy_lora l[2] = {{temp("lora"), 0.75, 0.5}, {temp("lora"), -1.25, 0}};
    ay_source *s = NULL;
    ay_loras *loras = NULL;
    if (write_lora(cx, &b) && write_checkpoint(cx, g) && ay_source_open_file(cx, temp("base"), &s) == ALLOY_OK) {
        alloy_status st = ay_loras_open(cx, l, n, &loras);
        check((st == ALLOY_OK) == (loras != NULL));
        if (loras) st = ay_loras_attach(cx, loras, s, &arch, NULL, "unet", g);
        if (st == ALLOY_OK) {
            ay_loras_leave_out(loras, "text_encoder");
            st = ay_loras_report(cx, loras);
            json_decref(ay_loras_json(loras));
            read_all(cx, s, &arch, g, step);
        }
        check(st == ALLOY_OK || *ay_error_text(cx));
    }
    ay_source_close(&s);
    ay_loras_close(&loras);
    ay_graph_free(g);
    unlink(temp("lora"));
    unlink(temp("base"));
    ay_ctx_close(&cx);
    return 0;
}
