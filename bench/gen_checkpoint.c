/* SPDX-License-Identifier: MIT
 *
 * Writes a checkpoint folder with random bfloat16 weights for any configuration alloy knows, for measuring what size does:
 *
 *   build/bench/gen_checkpoint DIR TOKENIZERS [--model FOLDER] [--set FOLDER.KEY=JSON ...]
 *   build/bench/gen_checkpoint big demo/model --set transformer.num_layers=6 --set transformer.num_single_layers=8
 *
 * FOLDER (default bench/models/flux1) is a checkpoint folder without weights: model_index.json and each component's
 * config.json. TOKENIZERS holds the tokenizer folders the pipeline wants. --set changes one number of one configuration;
 * --double N, --single N, --t5-layers N and --dev are short for the depths and the guidance of the default model.
 * Standard deviations are those of trained models, about 0.02. Full depth of the default is 24 GB for the transformer and
 * 9.5 GB for the T5 encoder.
 */
#include "pipe/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SETS = 64 };

typedef struct gen {
    ay_ctx *cx;
    ay_arena *a;
    const char *dir, *model;
    const ay_pipe_row *row;
    const char *sets[MOST_SETS];
    int n_sets;
    uint16_t *noise; /* NOISE numbers, normal with deviation 0.02, as bfloat16 */
} gen;
enum { NOISE = 1 << 22 };

static uint64_t next(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static void fill_noise(uint16_t *noise) {
    uint64_t s = 88172645463325252u;
    for (int i = 0; i < NOISE; i++) { /* a sum of twelve uniforms is near enough to a normal */
        double sum = -6;
        for (int k = 0; k < 12; k++) sum += (double)(next(&s) >> 40) / (1 << 24);
        float v = (float)(0.02 * sum);
        uint32_t u;
        memcpy(&u, &v, 4);
        noise[i] = (uint16_t)(u >> 16);
    }
}

static alloy_status put_tensor(gen *g, ay_writer *w, const ay_node *n) {
    int64_t left = ay_type_count(&n->type);
    uint64_t at = 0;
    for (const char *p = n->name; *p; p++) at = at * 131 + (unsigned char)*p;
    static const uint16_t one = 0x3f80;
    if (n->type.rank == 1 && strstr(n->name, "norm") && strstr(n->name, "weight")) {
        for (; left > 0; left--) AY_TRY(ay_writer_put(w, &one, 2));
        return ALLOY_OK;
    }
    while (left > 0) { /* a different stretch of the noise for every piece */
        int64_t from = (int64_t)(next(&at) % (NOISE / 2)), count = ay_min_i64(left, NOISE / 2);
        AY_TRY(ay_writer_put(w, g->noise + from, (size_t)count * 2));
        left -= count;
    }
    return ALLOY_OK;
}

static alloy_status write_params(gen *g, const ay_graph *graph, const ay_graph *second, const char *path) {
    const ay_graph *graphs[2] = {graph, second};
    ay_buf header = {0};
    uint64_t offset = 0;
    ay_writer *w = NULL;
    ay_buf_printf(&header, "{");
    for (int k = 0; k < 2 && graphs[k]; k++) {
        for (int i = 0; i < graphs[k]->n_nodes; i++) {
            const ay_node *n = &graphs[k]->nodes[i];
            if (n->op != AY_OP_PARAM) continue;
            uint64_t bytes = 2 * (uint64_t)ay_type_count(&n->type);
            ay_buf_printf(&header, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[", header.len > 1 ? "," : "", n->name);
            for (int d = 0; d < n->type.rank; d++) ay_buf_printf(&header, d ? ",%lld" : "%lld", (long long)n->type.dim[d]);
            ay_buf_printf(&header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset, (unsigned long long)(offset + bytes));
            offset += bytes;
        }
    }
    ay_buf_printf(&header, "}");
    while (header.len % 8) ay_buf_printf(&header, " ");
    uint64_t len = header.len;
    alloy_status st = ay_writer_open(g->cx, path, false, &w);
    if (st == ALLOY_OK) st = ay_writer_put(w, &len, 8);
    if (st == ALLOY_OK) st = ay_writer_put(w, header.data, header.len);
    for (int k = 0; k < 2 && graphs[k]; k++) {
        for (int i = 0; i < graphs[k]->n_nodes && st == ALLOY_OK; i++) {
            if (graphs[k]->nodes[i].op == AY_OP_PARAM) st = put_tensor(g, w, &graphs[k]->nodes[i]);
        }
    }
    ay_buf_free(&header);
    alloy_status closed = w ? ay_writer_close(&w, false) : ALLOY_OK;
    return st != ALLOY_OK ? st : closed;
}

static alloy_status make_graph(gen *g, const ay_arch *arch, const char *what, const json_t *config, ay_graph **out) {
    void *cfg;
    ay_sizes s = {.latent_height = 8, .latent_width = 8, .text_length = 8};
    AY_TRY(arch->configure(g->cx, g->a, what, config, &cfg));
    *out = ay_graph_new(g->cx);
    if (!*out) return ay_nomem(g->cx);
    arch->build(*out, cfg, &s);
    return ay_graph_status(*out);
}

/* --set FOLDER.KEY=JSON onto the configuration of FOLDER. */
static alloy_status change(gen *g, const char *folder, json_t *config) {
    size_t n = strlen(folder);
    for (int i = 0; i < g->n_sets; i++) {
        const char *set = g->sets[i], *equals = strchr(set, '=');
        if (strncmp(set, folder, n) != 0 || set[n] != '.' || !equals) continue;
        json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
        if (!value) return ay_fail(g->cx, ALLOY_E_USAGE, "--set %s: \"%s\" is not JSON", set, equals + 1);
        json_object_set_new(config, ay_sprintf(g->a, "%.*s", (int)(equals - set - (long)n - 1), set + n + 1), value);
    }
    return ALLOY_OK;
}

/* The parameters of every graph that the pipeline makes of one folder (a VAE's decoder and encoder) go to one file. */
static alloy_status write_weights(gen *g, const char *folder, const char *class_name, const json_t *config, const char *file) {
    ay_graph *graphs[2] = {NULL, NULL};
    int n = 0;
    alloy_status st = ALLOY_OK;
    for (const ay_part_row *p = g->row->parts; p->package && st == ALLOY_OK && n < 2; p++) {
        if (strcmp(p->folder, folder) != 0) continue;
        const ay_arch *arch = ay_arch_find(class_name, p->graph_kind);
        if (!arch) st = ay_fail(g->cx, ALLOY_E_UNSUPPORTED, "%s: %s is not known", folder, class_name);
        else st = make_graph(g, arch, folder, config, &graphs[n++]);
    }
    if (st == ALLOY_OK && n) st = write_params(g, graphs[0], graphs[1], file);
    for (int i = 0; i < n; i++) ay_graph_free(graphs[i]);
    return st;
}

static alloy_status write_part(gen *g, const char *folder, const char *class_name, bool transformers) {
    char *dir = ay_path_join(g->a, g->dir, folder), *from = ay_sprintf(g->a, "%s/%s/config.json", g->model, folder);
    json_t *config = NULL;
    AY_TRY(ay_mkdirs(g->cx, dir));
    AY_TRY(ay_json_read(g->cx, from, &config));
    alloy_status st = change(g, folder, config);
    char *text = json_dumps(config, JSON_INDENT(1));
    if (st == ALLOY_OK) st = text ? ay_file_write(g->cx, ay_path_join(g->a, dir, "config.json"), text, strlen(text)) : ay_nomem(g->cx);
    free(text);
    const char *file = transformers ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
    if (st == ALLOY_OK) st = write_weights(g, folder, class_name, config, ay_path_join(g->a, dir, file));
    json_decref(config);
    return st;
}

static alloy_status copy_folder(gen *g, const char *from, const char *name) {
    char **files, *src = ay_path_join(g->a, from, name), *dst = ay_path_join(g->a, g->dir, name);
    int n;
    AY_TRY(ay_mkdirs(g->cx, dst));
    AY_TRY(ay_list_dir(g->cx, g->a, src, &files, &n));
    for (int i = 0; i < n; i++) AY_TRY(ay_file_copy(g->cx, ay_path_join(g->a, src, files[i]), ay_path_join(g->a, dst, files[i])));
    return ALLOY_OK;
}

static alloy_status generate(gen *g, const char *tokenizers) {
    char *path = ay_path_join(g->a, g->model, "model_index.json");
    json_t *index = NULL, *entry;
    const char *name, *class_name;
    AY_TRY(ay_json_read(g->cx, path, &index));
    AY_TRY(ay_json_str(g->cx, path, index, "_class_name", &class_name));
    g->row = ay_pipe_find(class_name);
    if (!g->row) return ay_fail(g->cx, ALLOY_E_UNSUPPORTED, "%s: %s is not a pipeline known here", path, class_name);
    AY_TRY(ay_mkdirs(g->cx, g->dir));
    AY_TRY(ay_file_copy(g->cx, path, ay_path_join(g->a, g->dir, "model_index.json")));
    AY_TRY(copy_folder(g, g->model, "scheduler"));
    for (int i = 0; g->row->tokenizers[i]; i++) AY_TRY(copy_folder(g, tokenizers, g->row->tokenizers[i]));
    alloy_status st = ALLOY_OK;
    json_object_foreach(index, name, entry) {
        const char *library = json_string_value(json_array_get(entry, 0)), *part = json_string_value(json_array_get(entry, 1));
        if (st == ALLOY_OK && library && part) st = write_part(g, name, part, strcmp(library, "transformers") == 0);
    }
    json_decref(index);
    return st;
}

/* Words of earlier versions. */
static const struct { const char *word, *set; } shorthands[] = {
    {"--double", "transformer.num_layers"}, {"--single", "transformer.num_single_layers"}, {"--t5-layers", "text_encoder_2.num_layers"}};

static bool parse(gen *g, int argc, char **argv) {
    for (int i = 3; i < argc && g->n_sets < MOST_SETS; i++) {
        bool known = false;
        if (strcmp(argv[i], "--dev") == 0) {
            g->sets[g->n_sets++] = "transformer.guidance_embeds=true";
            continue;
        }
        if (i + 1 == argc) return false;
        for (size_t k = 0; k < sizeof shorthands / sizeof *shorthands; k++) {
            if (strcmp(argv[i], shorthands[k].word) != 0) continue;
            g->sets[g->n_sets++] = ay_sprintf(g->a, "%s=%s", shorthands[k].set, argv[i + 1]);
            known = true;
        }
        if (strcmp(argv[i], "--model") == 0) g->model = argv[i + 1];
        else if (strcmp(argv[i], "--set") == 0) g->sets[g->n_sets++] = argv[i + 1];
        else if (!known) return false;
        i++;
    }
    return argc >= 3;
}

int main(int argc, char **argv) {
    gen g = {.dir = argc > 1 ? argv[1] : NULL, .model = "bench/models/flux1", .a = ay_arena_new(), .noise = malloc(NOISE * 2)};
    if (ay_ctx_open(1, &g.cx) != ALLOY_OK || !g.a || !g.noise) return 1;
    if (!parse(&g, argc, argv)) {
        fprintf(stderr, "usage: gen_checkpoint DIR TOKENIZERS [--model FOLDER] [--set FOLDER.KEY=JSON ...]\n");
        return 2;
    }
    fill_noise(g.noise);
    alloy_status st = generate(&g, argv[2]);
    if (st != ALLOY_OK) fprintf(stderr, "gen_checkpoint: %s\n", ay_error_text(g.cx));
    free(g.noise);
    ay_arena_free(g.a);
    ay_ctx_close(&g.cx);
    return st == ALLOY_OK ? 0 : 1;
}
