/* SPDX-License-Identifier: MIT
 *
 * A ControlNet, of a folder (config.json and its weights, no model_index.json) or one file, as a model folder of its own. It
 * makes no pictures: runs of its base model take it with --controlnet.
 */
#include "pipe/pipe.h"

static const ay_part_row parts[] = {{"ControlNet", "", "", false}, {NULL, NULL, NULL, false}};
static const char *const tokenizers[] = {NULL};

static alloy_status defaults(ay_ctx *cx, const ay_model *m, int *w, int *h, int *text, json_t *prediction) {
    const ay_model_part *p = ay_model_find(m, "ControlNet");
    int side = json_is_string(json_object_get(p->config, "addition_embed_type")) ? 1024 : 512; /* what the bases are trained for */
    if (!*w) *w = *h ? *h : side;
    if (!*h) *h = *w;
    if (!*text) *text = 77;
    return ALLOY_OK;
}

static alloy_status sizes(ay_ctx *cx, const ay_model *m, const ay_part_row *part, int w, int h, int text, ay_sizes *out) {
    const json_t *steps = json_object_get(ay_model_find(m, "ControlNet")->config, "conditioning_embedding_out_channels");
    int64_t factor = (int64_t)1 << (json_array_size(steps) ? json_array_size(steps) - 1 : 3), unit = ay_max_i64(8, factor);
    if (w < unit || h < unit || w % unit || h % unit || w > 16384 || h > 16384) {
        return ay_fail(cx, ALLOY_E_USAGE, "%dx%d: width and height must be multiples of %lld, from %lld to 16384", w, h, (long long)unit,
                       (long long)unit);
    }
    if (text < 1 || text > 4096) return ay_fail(cx, ALLOY_E_USAGE, "a text length of %d tokens: from 1 to 4096 can be asked for", text);
    *out = (ay_sizes){.batch = 1, .latent_height = h / factor, .latent_width = w / factor, .text_length = text};
    return ALLOY_OK;
}

static alloy_status run(ay_ctx *cx, ay_model *m, ay_request *r) {
    return ay_fail(cx, ALLOY_E_USAGE, "%s: is a ControlNet, which makes no pictures by itself; run its base model with --controlnet %s --control-image FILE",
                   m->dir, m->dir);
}

/* lllyasviel/ControlNet's own files hold the base model beside it; others hold it alone, with that prefix or without. */
static const ay_file_part file_parts[] = {
    {"", "ControlNetModel", "control_model.", false, NULL},
    {"", "ControlNetModel", "", false, NULL},
    {NULL, NULL, NULL, false, NULL},
};
static const ay_file_refusal file_refusals[] = {
    {"difference", "its weights are differences to those of the model it was trained on; a ControlNet's own weights are needed"},
    {"lora_controlnet", "it is a Control-LoRA, of factors that change its base model's weights; a whole ControlNet is needed"},
    {NULL, NULL},
};

const ay_pipe_row ay_pipe_controlnet = {
    .class_name = "ControlNetModel",
    .type = "controlnet",
    .single = true,
    .parts = parts,
    .tokenizers = tokenizers,
    .defaults = defaults,
    .sizes = sizes,
    .run = run,
    .file_parts = file_parts,
    .file_refusals = file_refusals,
};
