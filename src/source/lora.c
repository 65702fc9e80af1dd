/* SPDX-License-Identifier: MIT
 *
 * Adapter files: every tensor is a layer's name and an ending that says what it is to the layer. Whatever stands before the
 * ending, with dots or with underscores, is matched elsewhere, so endings and names combine freely.
 */
#include "source/lora_internal.h"

#include "base/sha256.h"
#include "quant/weight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table of formats: the longest ending that fits counts --------------------------------------------------------- */

static const struct {
    const char *ending;
    lora_role role;
} endings[] = {
    /* kohya-ss/sd-scripts networks/lora.py, LyCORIS lycoris/modules/locon.py */
    {".lora_up.weight", ROLE_UP},
    {".lora_down.weight", ROLE_DOWN},
    {".lora_mid.weight", ROLE_MID},
    {".lora_up.bias", ROLE_UP_BIAS},
    {".alpha", ROLE_ALPHA},
    /* PEFT, with and without the adapter's name (peft/utils/save_and_load.py) */
    {".lora_B.weight", ROLE_UP},
    {".lora_A.weight", ROLE_DOWN},
    {".lora_B.default.weight", ROLE_UP},
    {".lora_A.default.weight", ROLE_DOWN},
    {".lora_B", ROLE_UP},
    {".lora_A", ROLE_DOWN},
    {".lora_B.bias", ROLE_UP_BIAS},
    {".lora_magnitude_vector", ROLE_MAGNITUDE},
    {".lora_magnitude_vector.weight", ROLE_MAGNITUDE},
    {".lora_magnitude_vector.default.weight", ROLE_MAGNITUDE},
    /* diffusers before PEFT (diffusers/utils/state_dict_utils.py), and what XLabs writes after a layer's name of its own */
    {".lora.up.weight", ROLE_UP},
    {".lora.down.weight", ROLE_DOWN},
    {"_lora.up.weight", ROLE_UP},
    {"_lora.down.weight", ROLE_DOWN},
    {".lora_linear_layer.up.weight", ROLE_UP},
    {".lora_linear_layer.down.weight", ROLE_DOWN},
    {".up.weight", ROLE_UP},
    {".down.weight", ROLE_DOWN},
    /* LyCORIS lycoris/modules/{loha,lokr,full,norms}.py */
    {".hada_w1_a", ROLE_W1A},
    {".hada_w1_b", ROLE_W1B},
    {".hada_t1", ROLE_T1},
    {".hada_w2_a", ROLE_W2A},
    {".hada_w2_b", ROLE_W2B},
    {".hada_t2", ROLE_T2},
    {".lokr_w1", ROLE_K1},
    {".lokr_w1_a", ROLE_K1A},
    {".lokr_w1_b", ROLE_K1B},
    {".lokr_w2", ROLE_K2},
    {".lokr_w2_a", ROLE_K2A},
    {".lokr_w2_b", ROLE_K2B},
    {".lokr_t2", ROLE_KT2},
    {".dora_scale", ROLE_DORA_SCALE},
    {".diff", ROLE_DIFF},
    {".diff_b", ROLE_DIFF_B},
    {".w_norm", ROLE_DIFF},
    {".b_norm", ROLE_DIFF_B},
};

/* What training code wraps around the model it trains. */
static const char *const wrappers[] = {"base_model.model.", "_orig_mod.", "module."};

/* Adapters that turn a weight instead of adding to it: PEFT's and LyCORIS' (lycoris/modules/{diag_oft,boft}.py, peft/tuners/{oft,boft}). */
static const char *const turning[] = {".oft_blocks", ".oft_diag", ".oft_R.", ".oft_r.", ".oft_R", ".oft_r", ".boft_R", ".boft_s", ".boft_P"};

static alloy_status refuse_turning(ay_ctx *cx, const lora_file *f) {
    for (int i = 0; i < f->st->n; i++) {
        for (size_t k = 0; k < sizeof turning / sizeof turning[0]; k++) {
            if (!strstr(f->st->tensors[i].name, turning[k])) continue;
            return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" is of an OFT or BOFT adapter, which turns weights; these are not supported, but LoRA, LoCon, LoHa, "
                           "LoKr, DoRA and whole differences are", f->path, f->st->tensors[i].name);
        }
    }
    return ALLOY_OK;
}

typedef struct entry {
    const char *module; /* with dots */
    lora_role role;
    const ay_st_tensor *tensor;
} entry;

static int ending_of(const char *name, size_t *at) {
    int best = -1;
    size_t n = strlen(name), longest = 0;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t m = strlen(endings[i].ending);
        if (m > longest && m < n && strcmp(name + n - m, endings[i].ending) == 0) best = (int)i, longest = m;
    }
    *at = n - longest;
    return best;
}

/* "base_model.model.unet.conv_in" to "unet_conv_in" */
static const char *key_of(ay_arena *a, const char *module) {
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < sizeof wrappers / sizeof wrappers[0]; i++) {
            size_t n = strlen(wrappers[i]);
            if (strncmp(module, wrappers[i], n) == 0) module += n, again = true;
        }
    }
    char *key = ay_strdup(a, module);
    for (char *c = key; c && *c; c++) {
        if (*c == '.') *c = '_';
    }
    return key;
}

static int by_module(const void *x, const void *y) {
    const entry *a = x, *b = y;
    int c = strcmp(a->module, b->module);
    return c ? c : (int)a->role - (int)b->role;
}

static int by_key(const void *x, const void *y) {
    const lora_module *a = x, *b = y;
    int c = strcmp(a->key, b->key);
    return c ? c : strcmp(a->name, b->name);
}

/* ---- one file --------------------------------------------------------------------------------------------------------- */

static alloy_status group(ay_ctx *cx, ay_arena *a, lora_file *f, entry *e, int n) {
    qsort(e, (size_t)n, sizeof *e, by_module);
    f->modules = ay_alloc(a, (size_t)(n + 1) * sizeof *f->modules);
    if (!f->modules) return ay_nomem(cx);
    for (int i = 0; i < n; i++) {
        lora_module *m = f->n ? &f->modules[f->n - 1] : NULL;
        if (!m || strcmp(m->name, e[i].module) != 0) {
            m = &f->modules[f->n++];
            *m = (lora_module){.name = e[i].module, .key = key_of(a, e[i].module), .file = f};
            if (!m->key) return ay_nomem(cx);
        }
        if (m->role[e[i].role])
            return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" and \"%s\" are the same part of one layer; leave one out", f->path,
                           m->role[e[i].role]->name, e[i].tensor->name);
        m->role[e[i].role] = e[i].tensor;
    }
    qsort(f->modules, (size_t)f->n, sizeof *f->modules, by_key);
    for (int i = 0; i < f->n; i++) {
        f->modules[i].index = i;
        AY_TRY(ay_lora_describe(cx, &f->modules[i]));
    }
    return ALLOY_OK;
}

/* PyTorch's files may hold views, GGUF's have blocks: what is read here is row after row of numbers. */
static alloy_status check_layout(ay_ctx *cx, const lora_file *f) {
    for (int i = 0; i < f->st->n; i++) {
        const ay_st_tensor *t = &f->st->tensors[i];
        if (!t->stride && t->block == AY_BLOCK_NONE) continue;
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" is stored %s, which is not known of LoRA files; save it as safetensors", f->path, t->name,
                       t->stride ? "as a view of another tensor" : "in blocks");
    }
    return ALLOY_OK;
}

static alloy_status sort_tensors(ay_ctx *cx, ay_arena *a, lora_file *f) {
    AY_TRY(refuse_turning(cx, f));
    entry *e = malloc((size_t)(f->st->n + 1) * sizeof *e);
    f->strange = ay_alloc(a, (size_t)(f->st->n + 1) * sizeof *f->strange);
    alloy_status st = e && f->strange ? ALLOY_OK : ay_nomem(cx);
    int n = 0;
    for (int i = 0; st == ALLOY_OK && i < f->st->n; i++) {
        const ay_st_tensor *t = &f->st->tensors[i];
        size_t at;
        int k = ending_of(t->name, &at);
        if (k < 0) {
            f->strange[f->n_strange++] = t->name;
            continue;
        }
        e[n] = (entry){ay_strndup(a, t->name, at), endings[k].role, t};
        if (!e[n].module) st = ay_nomem(cx);
        else if (!ay_dtype_is_float(t->type.dtype) && e[n].role != ROLE_ALPHA)
            st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" is of type %s, which holds no weights", f->path, t->name,
                         ay_dtype_name(t->type.dtype));
        n++;
    }
    if (st == ALLOY_OK && n == 0)
        st = ay_fail(cx, ALLOY_E_MISMATCH, "%s: none of its %d tensors has a name that LoRA files use (such as \"%s\"); it is no LoRA", f->path,
                     f->st->n, f->st->n ? f->st->tensors[0].name : "");
    if (st == ALLOY_OK) st = group(cx, a, f, e, n);
    free(e);
    return st;
}

/* Every number is looked at once, for the hash and so that no NaN turns up in a picture. */
static alloy_status check_numbers(ay_ctx *cx, const lora_file *f) {
    enum { PIECE = 4096 };
    float x[PIECE];
    for (int i = 0; i < f->st->n; i++) {
        const ay_st_tensor *t = &f->st->tensors[i];
        int64_t n = ay_type_count(&t->type);
        for (int64_t at = 0; ay_dtype_is_float(t->type.dtype) && at < n; at += PIECE) {
            int64_t m = ay_min_i64(PIECE, n - at);
            ay_convert_to_f32(t->type.dtype, ay_st_data(f->st, t), at, m, x);
            for (int64_t k = 0; k < m; k++) {
                if (!isfinite(x[k]))
                    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" has %g at element %lld; the file is damaged, or its training failed", f->path,
                                   t->name, (double)x[k], (long long)(at + k));
            }
        }
        AY_TRY(ay_check_stop(cx));
    }
    return ALLOY_OK;
}

static alloy_status hash_file(ay_ctx *cx, lora_file *f) {
    const size_t step = (size_t)16 << 20;
    ay_sha256 h;
    uint8_t digest[32];
    ay_sha256_init(&h);
    for (size_t at = 0; at < f->st->map.size; at += step) {
        size_t n = f->st->map.size - at < step ? f->st->map.size - at : step;
        ay_sha256_add(&h, f->st->map.data + at, n);
        AY_TRY(ay_check_stop(cx));
    }
    ay_sha256_end(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(f->hash + 2 * i, 3, "%02x", digest[i]);
    ay_map_drop(&f->st->map, 0, f->st->map.size);
    return ALLOY_OK;
}

/* Where alphas may stand but in tensors: diffusers keeps PEFT's configuration in the header's metadata, PEFT itself in a file
 * beside. Anything else there is trainers' talk. */
static alloy_status read_config(ay_ctx *cx, ay_arena *a, lora_file *f) {
    for (const char **m = f->st->metadata; m && m[0] && m[1]; m += 2) {
        if (strcmp(m[0], "lora_adapter_metadata") != 0) continue;
        f->config_prefixed = true;
        return ay_json_parse(cx, f->path, m[1], strlen(m[1]), &f->config);
    }
    const char *base = ay_path_base(f->path);
    if (strncmp(base, "adapter_model.", 14) != 0) return ALLOY_OK;
    char *dir = ay_strndup(a, f->path, (size_t)(base - f->path));
    char *path = dir ? ay_path_join(a, *dir ? dir : ".", "adapter_config.json") : NULL;
    if (!path) return ay_nomem(cx);
    return ay_path_kind_of(path) == AY_PATH_FILE ? ay_json_read(cx, path, &f->config) : ALLOY_OK;
}

/* A folder stands for the file that diffusers or PEFT saves in it. */
static alloy_status find_path(ay_ctx *cx, ay_arena *a, const char *given, const char **path) {
    static const char *const names[] = {"pytorch_lora_weights.safetensors", "adapter_model.safetensors", "pytorch_lora_weights.bin", "adapter_model.bin"};
    *path = ay_strdup(a, given);
    if (!*path) return ay_nomem(cx);
    ay_path_kind kind = ay_path_kind_of(given);
    if (kind == AY_PATH_NONE) return ay_path_fail(cx, given);
    for (int i = 0; kind == AY_PATH_DIR && i < 4; i++) {
        *path = ay_path_join(a, given, names[i]);
        if (!*path) return ay_nomem(cx);
        if (ay_path_kind_of(*path) == AY_PATH_FILE) return ALLOY_OK;
    }
    return kind == AY_PATH_DIR ? ay_fail(cx, ALLOY_E_IO, "%s: no %s is in this folder; name the LoRA's file", given, names[0]) : ALLOY_OK;
}

static alloy_status open_file(ay_ctx *cx, ay_arena *a, const alloy_lora *given, lora_file *f) {
    f->strength = given->strength;
    f->text_strength = given->text_strength;
    if (!isfinite(f->strength) || !isfinite(f->text_strength))
        return ay_fail(cx, ALLOY_E_USAGE, "%s: the strength of a LoRA must be a number", given->path);
    AY_TRY(find_path(cx, a, given->path, &f->path));
    AY_TRY(ay_tensors_open(cx, f->path, &f->st));
    AY_TRY(check_layout(cx, f));
    AY_TRY(read_config(cx, a, f));
    AY_TRY(sort_tensors(cx, a, f));
    AY_TRY(check_numbers(cx, f));
    return hash_file(cx, f);
}

/* ---- all of them ------------------------------------------------------------------------------------------------------ */

alloy_status ay_loras_open(ay_ctx *cx, const alloy_lora *loras, int n, ay_loras **out) {
    ay_loras *l = calloc(1, sizeof *l);
    *out = l;
    if (!l) return ay_nomem(cx);
    l->arena = ay_arena_new();
    l->files = l->arena ? ay_alloc(l->arena, (size_t)(n + 1) * sizeof *l->files) : NULL;
    alloy_status st = l->files ? ALLOY_OK : ay_nomem(cx);
    for (int i = 0; i < n && st == ALLOY_OK; i++) {
        l->n = i + 1;
        l->files[i].order = i;
        st = open_file(cx, l->arena, &loras[i], &l->files[i]);
    }
    if (st != ALLOY_OK) ay_loras_close(out);
    return st;
}

void ay_loras_close(ay_loras **loras) {
    ay_loras *l = *loras;
    *loras = NULL;
    if (!l) return;
    for (int i = 0; i < l->n_parts; i++) {
        for (int k = 0; k < l->parts[i]->n; k++) ay_lora_release(&l->parts[i]->params[k]);
    }
    free(l->parts);
    for (int i = 0; i < l->n; i++) {
        for (int k = 0; k < l->files[i].n; k++) free(l->files[i].modules[k].column_norms);
        ay_st_close(&l->files[i].st);
        json_decref(l->files[i].config);
    }
    ay_arena_free(l->arena);
    free(l);
}
