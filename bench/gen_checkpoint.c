/* SPDX-License-Identifier: MIT
 *
 * Writes a checkpoint folder of full FLUX.1 shapes with random bfloat16 weights, for measuring what size does:
 *
 *   build/bench/gen_checkpoint DIR TOKENIZERS [--double 19] [--single 38] [--t5-layers 24] [--dev]
 *
 * TOKENIZERS is a folder that holds tokenizer/ and tokenizer_2/. Standard deviations are those of trained models, about
 * 0.02. Full depth is 24 GB for the transformer and 9.5 GB for the T5 encoder.
 */
#include "pipe/pipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char index_json[] =
    "{\"_class_name\": \"FluxPipeline\", \"transformer\": [\"diffusers\", \"FluxTransformer2DModel\"], \"text_encoder\": [\"transformers\", "
    "\"CLIPTextModel\"], \"text_encoder_2\": [\"transformers\", \"T5EncoderModel\"], \"vae\": [\"diffusers\", \"AutoencoderKL\"]}";
static const char scheduler_json[] =
    "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"num_train_timesteps\": 1000, \"shift\": 1.0, \"use_dynamic_shifting\": false}";
static const char clip_json[] = "{\"architectures\": [\"CLIPTextModel\"], \"vocab_size\": 49408, \"hidden_size\": 768, \"intermediate_size\": 3072, "
                                "\"num_hidden_layers\": 12, \"num_attention_heads\": 12, \"max_position_embeddings\": 77, \"hidden_act\": "
                                "\"quick_gelu\", \"eos_token_id\": 2}";
static const char t5_json[] = "{\"architectures\": [\"T5EncoderModel\"], \"vocab_size\": 32128, \"d_model\": 4096, \"d_kv\": 64, \"d_ff\": 10240, "
                              "\"num_layers\": %d, \"num_heads\": 64, \"feed_forward_proj\": \"gated-gelu\"}";
static const char vae_json[] = "{\"_class_name\": \"AutoencoderKL\", \"latent_channels\": 16, \"block_out_channels\": [128, 256, 512, 512], "
                               "\"layers_per_block\": 2, \"norm_num_groups\": 32, \"scaling_factor\": 0.3611, \"shift_factor\": 0.1159, "
                               "\"use_quant_conv\": false, \"use_post_quant_conv\": false}";
static const char flux_json[] = "{\"_class_name\": \"FluxTransformer2DModel\", \"in_channels\": 64, \"num_layers\": %d, \"num_single_layers\": %d, "
                                "\"attention_head_dim\": 128, \"num_attention_heads\": 24, \"joint_attention_dim\": 4096, "
                                "\"pooled_projection_dim\": 768, \"guidance_embeds\": %s, \"axes_dims_rope\": [16, 56, 56]}";

typedef struct gen {
    ay_ctx *cx;
    ay_arena *a;
    const char *dir;
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

static alloy_status make_graph(gen *g, const char *class_name, const char *kind, const char *config, ay_graph **out) {
    json_t *j = NULL;
    void *cfg;
    ay_sizes s = {.latent_height = 8, .latent_width = 8, .text_length = 8};
    AY_TRY(ay_json_parse(g->cx, class_name, config, strlen(config), &j));
    const ay_arch *arch = ay_arch_find(class_name, kind);
    AY_TRY(arch->configure(g->cx, g->a, class_name, j, &cfg));
    json_decref(j);
    *out = ay_graph_new(g->cx);
    if (!*out) return ay_nomem(g->cx);
    arch->build(*out, cfg, &s);
    return ay_graph_status(*out);
}

static alloy_status write_part(gen *g, const char *folder, const char *class_name, const char *kind, const char *kind2, const char *config,
                               const char *file) {
    char *dir = ay_path_join(g->a, g->dir, folder);
    ay_graph *one = NULL, *two = NULL;
    AY_TRY(ay_mkdirs(g->cx, dir));
    AY_TRY(ay_file_write(g->cx, ay_path_join(g->a, dir, "config.json"), config, strlen(config)));
    alloy_status st = make_graph(g, class_name, kind, config, &one);
    if (st == ALLOY_OK && kind2) st = make_graph(g, class_name, kind2, config, &two);
    if (st == ALLOY_OK) st = write_params(g, one, two, ay_path_join(g->a, dir, file));
    ay_graph_free(one);
    ay_graph_free(two);
    return st;
}

static alloy_status copy_tokenizer(gen *g, const char *from, const char *name) {
    char **files, *src = ay_path_join(g->a, from, name), *dst = ay_path_join(g->a, g->dir, name);
    int n;
    AY_TRY(ay_mkdirs(g->cx, dst));
    AY_TRY(ay_list_dir(g->cx, g->a, src, &files, &n));
    for (int i = 0; i < n; i++) AY_TRY(ay_file_copy(g->cx, ay_path_join(g->a, src, files[i]), ay_path_join(g->a, dst, files[i])));
    return ALLOY_OK;
}

static alloy_status generate(gen *g, const char *tokenizers, int layers, int single, int t5_layers, bool dev) {
    AY_TRY(ay_mkdirs(g->cx, ay_path_join(g->a, g->dir, "scheduler")));
    AY_TRY(ay_file_write(g->cx, ay_path_join(g->a, g->dir, "model_index.json"), index_json, strlen(index_json)));
    AY_TRY(ay_file_write(g->cx, ay_path_join(g->a, g->dir, "scheduler/scheduler_config.json"), scheduler_json, strlen(scheduler_json)));
    AY_TRY(copy_tokenizer(g, tokenizers, "tokenizer"));
    AY_TRY(copy_tokenizer(g, tokenizers, "tokenizer_2"));
    AY_TRY(write_part(g, "text_encoder", "CLIPTextModel", "", NULL, clip_json, "model.safetensors"));
    AY_TRY(write_part(g, "text_encoder_2", "T5EncoderModel", "", NULL, ay_sprintf(g->a, t5_json, t5_layers), "model.safetensors"));
    AY_TRY(write_part(g, "vae", "AutoencoderKL", "decoder", "encoder", vae_json, "diffusion_pytorch_model.safetensors"));
    return write_part(g, "transformer", "FluxTransformer2DModel", "", NULL, ay_sprintf(g->a, flux_json, layers, single, dev ? "true" : "false"),
                      "diffusion_pytorch_model.safetensors");
}

int main(int argc, char **argv) {
    int layers = 19, single = 38, t5_layers = 24;
    bool dev = false;
    for (int i = 3; i < argc; i++) {
        if (strcmp(argv[i], "--dev") == 0) dev = true;
        else if (i + 1 < argc && strcmp(argv[i], "--double") == 0) layers = atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--single") == 0) single = atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--t5-layers") == 0) t5_layers = atoi(argv[++i]);
    }
    if (argc < 3) {
        fprintf(stderr, "usage: gen_checkpoint DIR TOKENIZERS [--double 19] [--single 38] [--t5-layers 24] [--dev]\n");
        return 2;
    }
    gen g = {.dir = argv[1], .a = ay_arena_new(), .noise = malloc(NOISE * 2)};
    if (ay_ctx_open(1, &g.cx) != ALLOY_OK || !g.a || !g.noise) return 1;
    fill_noise(g.noise);
    alloy_status st = generate(&g, argv[2], layers, single, t5_layers, dev);
    if (st != ALLOY_OK) fprintf(stderr, "gen_checkpoint: %s\n", ay_error_text(g.cx));
    free(g.noise);
    ay_arena_free(g.a);
    ay_ctx_close(&g.cx);
    return st == ALLOY_OK ? 0 : 1;
}
