/* SPDX-License-Identifier: MIT
 *
 * Packages: any manifest, model file and weight file give a graph whose weights can be read, or one sentence.
 *
 * The first byte says how the rest is used. 0: the parts themselves, as [u16 manifest length][u24 model length] manifest,
 * model, weights. n: the (n - 1)-th package of tests/golden/mlprograms with edits,
     5 bytes each: a 24-bit place (the top bit:
 * in the weight file), what to do, a byte. So a run without a corpus reaches deep; it starts in the repository's root.
 */
#include "coreml/package.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SEEDS = 12 };
static const char *const names[SEEDS] = {"elementwise", "images", "matrices", "newer", "opt18_lut4_int8", "opt18_lut4_scale",
                                         "opt18_sparse_int8", "opt18_sparse_lut4", "reductions", "shapes", "weights16",
                                             "weights18"};
static struct { ay_buf spec, weights; bool tried; } seeds[SEEDS];

static void load_seed(ay_ctx *cx, int i) {
    char path[160];
    if (seeds[i].tried) return;
    seeds[i].tried = true;
    snprintf(path, sizeof path, "tests/golden/mlprograms/%s.mlpackage/Data/com.apple.CoreML/model.mlmodel", names[i]);
    ay_file_read(cx, path, 1 << 20, &seeds[i].spec);
    snprintf(path, sizeof path, "tests/golden/mlprograms/%s.mlpackage/Data/com.apple.CoreML/weights/weight.bin", names[i]);
    ay_file_read(cx, path, 1 << 20, &seeds[i].weights);
}

/** Applies edits to a copy; every part the reader sees is its own allocation, so that reading past it shows. */
static uint8_t *edited(const ay_buf *from, bool weights, const uint8_t *e, size_t n, size_t *len) {
    uint8_t *p = malloc(from->len + n + 1);
    if (from->len) memcpy(p, from->data, from->len);
    *len = from->len;
    for (; n >= 5 && *len; e += 5, n -= 5) {
        size_t at = ((size_t)e[0] | (size_t)e[1] << 8 | (size_t)(e[2] & 0x7f) << 16) % *len;
        if ((e[2] >> 7) != weights) continue;
        switch (e[3] % 5) {
        case 0: p[at] = e[4]; break;
        case 1: p[at] ^= (uint8_t)(1 << (e[4] & 7)); break;
        case 2: /* one more */
            memmove(p + at + 1, p + at, *len - at);
            p[at] = e[4];
            ++*len;
            break;
        case 3: /* some fewer */
            if (*len - at > e[4]) memmove(p + at, p + at + e[4], *len - at - e[4]), *len -= e[4];
            break;
        default: *len = at + 1; break;
        }
    }
    return realloc(p, *len ? *len : 1);
}

static uint8_t *copied(const uint8_t *from, size_t n) {
    uint8_t *p = malloc(n ? n : 1);
    if (n) memcpy(p, from, n);
    return p;
}

/** First and last numbers of every weight, so that what the graph points to is really there. */
static void touch_weights(const ay_graph *g) {
    float x[8];
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op != AY_OP_PARAM) continue;
        int64_t count = ay_type_count(&n->type), part = ay_min_i64(count, 8);
        ay_weight_read(n->weight, 0, part, x);
        ay_weight_read(n->weight, count - part, part, x);
    }
}

static void read_package(ay_ctx *cx, const uint8_t *spec, size_t n_spec, const uint8_t *weights, size_t n_weights) {
    static int32_t ones[64];
    ay_package *p;
    ay_graph *g = NULL;
    ay_tensor known[8];
    int n = 0;
    alloy_status s = ay_package_from_bytes(cx, "fuzz", spec, n_spec, n_weights ? weights : NULL, n_weights, &p);
    if (s == ALLOY_OK) {
        const ay_package_info *info = ay_package_describe(p);
        for (int i = 0; i < 64; i++) ones[i] = 1;
        for (int i = 0; i < info->functions[0].n_inputs && n < 8; i++) {
            known[n] = info->functions[0].inputs[i];
            known[n].data = ones;
            int64_t count = known[n].type.rank < 0 ? -1 : ay_type_count(&known[n].type);
            n += known[n].type.dtype == AY_I32 && count >= 0 && count <= 64;
        }
        s = ay_package_graph_known(p, NULL, known, n, &g);
        if (s == ALLOY_OK && ay_graph_verify(g) != ALLOY_OK) __builtin_trap();
        if (s == ALLOY_OK) touch_weights(g);
    }
    if (s != ALLOY_OK && (g || strncmp(ay_error_text(cx), "fuzz", 4) != 0) && s != ALLOY_E_NOMEM) __builtin_trap();
    ay_graph_free(g);
    ay_package_close(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ay_ctx *cx; /* one for all runs: opening one starts threads */
    if (!cx && ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    if (size < 6) return 0;
    uint8_t *spec, *weights;
    size_t n_spec, n_weights;
    if (data[0] % (SEEDS + 1)) {
        int i = data[0] % (SEEDS + 1) - 1;
        load_seed(cx, i);
        spec = edited(&seeds[i].spec, false, data + 1, size - 1, &n_spec);
        weights = edited(&seeds[i].weights, true, data + 1, size - 1, &n_weights);
    } else {
        size_t n_manifest = data[1] | (size_t)data[2] << 8, rest = size - 6;
        n_spec = data[3] | (size_t)data[4] << 8 | (size_t)data[5] << 16;
        if (n_manifest > rest) n_manifest = rest;
        if (n_spec > rest - n_manifest) n_spec = rest - n_manifest;
        n_weights = rest - n_manifest - n_spec;
        uint8_t *manifest = copied(data + 6, n_manifest);
        ay_arena *a = ay_arena_new();
        const char *model, *folder;
        if (ay_manifest_parse(cx, "fuzz", (const char *)manifest, n_manifest, a, &model, &folder) == ALLOY_OK &&
            (!model || strstr(model, "..") == model))
            __builtin_trap();
        ay_arena_free(a);
        free(manifest);
        spec = copied(data + 6 + n_manifest, n_spec);
        weights = copied(data + 6 + n_manifest + n_spec, n_weights);
    }
    read_package(cx, spec, n_spec, weights, n_weights);
    free(spec);
    free(weights);
    return 0;
}
