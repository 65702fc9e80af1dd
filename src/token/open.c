/* SPDX-License-Identifier: MIT
 *
 * A tokenizer folder to a tokenizer. The vocabulary comes from tokenizer.json, else spiece.model, else vocab.json with
 * merges.txt; the pipeline from the family that tokenizer_config.json names (family.c), else from tokenizer.json itself.
 */
#include "token/special.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 1 << 28 };

typedef struct opening {
    ay_ctx *cx;
    ay_tokenizer *t;
    const ay_token_file *file;
    const char *dir;
    const ay_family *family;
    json_t *config, *special, *added, *tokenizer, *vocab;
    ay_charsmap *charsmap;
    ay_added *spiece;
    size_t n_spiece, cap_spiece;
} opening;

static ay_load load_of(const opening *op, ay_token_kind kind) {
    return (ay_load){op->cx, op->file[kind].name, op->t->arena};
}
static bool there(const opening *op, ay_token_kind kind) { return op->file[kind].data != NULL; }

/* ---- JSON ---------------------------------------------------------------------------------------------------------- */

/* "model_max_length": 1000000000000000019884624838656 stands in many configurations for "no limit"; no integer holds it. */
static void tame_integers(char *s, size_t n) {
    for (size_t i = 0, run; i < n; i += run) {
        run = 1;
        if (s[i] == '"') {
            while (i + run < n && s[i + run] != '"') run += s[i + run] == '\\' ? 2 : 1;
            run++;
        } else if (s[i] >= '0' && s[i] <= '9') {
            while (i + run < n && s[i + run] >= '0' && s[i + run] <= '9') run++;
            bool part = (i && strchr(".eE", s[i - 1])) || (i + run < n && s[i + run] && strchr(".eE", s[i + run]));
            if (run < 19 || part) continue;
            memset(s + i, ' ', run);
            memcpy(s + i, "1e30", 4);
        }
    }
}

static alloy_status read_json(opening *op, ay_token_kind kind, json_t **out) {
    const ay_token_file *f = &op->file[kind];
    if (!f->data) return ALLOY_OK;
    if (kind != AY_TF_CONFIG) return ay_json_parse(op->cx, f->name, f->data, f->size, out);
    char *copy = malloc(f->size + 1);
    if (!copy) return ay_nomem(op->cx);
    memcpy(copy, f->data, f->size);
    tame_integers(copy, f->size);
    alloy_status st = ay_json_parse(op->cx, f->name, copy, f->size, out);
    free(copy);
    return st;
}

static alloy_status must_be_object(const opening *op, ay_token_kind kind, const json_t *v) {
    if (!v || json_is_object(v)) return ALLOY_OK;
    return ay_fail(op->cx, ALLOY_E_FORMAT, "%s: not a JSON object", op->file[kind].name);
}

/* JSON text of a family's row. */
static alloy_status parse_row(ay_load *ld, const char *text, json_t **out) {
    return ay_json_parse(ld->cx, ld->what, text, strlen(text), out);
}

/* ---- vocabulary and model ------------------------------------------------------------------------------------------ */

static alloy_status bpe_from_tokenizer(ay_load *ld, const json_t *model, const ay_family *f, ay_model **out) {
    ay_bpe_options o = {0};
    const json_t *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    if (f) {
        o = (ay_bpe_options){.unk = f->unk_in_model ? f->unk : NULL, .suffix = f->suffix};
        return ay_bpe_new(ld, vocab, ld->what, NULL, 0, merges, &o, out);
    }
    bool fallback;
    double dropout;
    const char *prefix;
    AY_TRY(ay_json_str_or(ld->cx, ld->what, model, "unk_token", NULL, &o.unk));
    AY_TRY(ay_json_str_or(ld->cx, ld->what, model, "end_of_word_suffix", "", &o.suffix));
    AY_TRY(ay_json_str_or(ld->cx, ld->what, model, "continuing_subword_prefix", "", &prefix));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, model, "fuse_unk", false, &o.fuse_unk));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, model, "ignore_merges", false, &o.ignore_merges));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, model, "byte_fallback", false, &fallback));
    AY_TRY(ay_json_num_or(ld->cx, ld->what, model, "dropout", 0, 1, 0, &dropout));
    if (fallback || dropout > 0 || *prefix)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: a BPE model with %s is not known here", ld->what,
                       fallback ? "byte_fallback" : dropout > 0 ? "dropout" : "continuing_subword_prefix");
    return ay_bpe_new(ld, vocab, ld->what, NULL, 0, merges, &o, out);
}

static alloy_status unigram_from_tokenizer(ay_load *ld, const json_t *model, const ay_family *f, ay_model **out) {
    int64_t unk = f ? f->unk_id : -1;
    bool fallback = false;
    if (!f) AY_TRY(ay_json_int_or(ld->cx, ld->what, model, "unk_id", 0, INT32_MAX, -1, &unk));
    if (!f) AY_TRY(ay_json_bool_or(ld->cx, ld->what, model, "byte_fallback", false, &fallback));
    ay_unigram *u = ay_unigram_begin(ld);
    if (!u) return ay_nomem(ld->cx);
    AY_TRY(ay_unigram_json(ld, u, json_object_get(model, "vocab")));
    return ay_unigram_end(ld, u, unk, fallback, out);
}

/* The first charsmap of the file's normalizer, which is all that a family takes from it. */
static alloy_status charsmap_from_tokenizer(opening *op, ay_load *ld) {
    const json_t *v = json_object_get(op->tokenizer, "normalizer"), *list = json_object_get(v, "normalizers");
    size_t n = json_is_array(list) ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_is_array(list) ? json_array_get(list, i) : v;
        const char *type = json_string_value(json_object_get(one, "type"));
        const json_t *map = json_object_get(one, "precompiled_charsmap");
        if (!type || strcmp(type, "Precompiled") != 0 || !json_is_string(map)) continue;
        return ay_charsmap_base64(ld, json_string_value(map), json_string_length(map), &op->charsmap);
    }
    return ALLOY_OK;
}

static alloy_status open_tokenizer_json(opening *op) {
    ay_load ld = load_of(op, AY_TF_TOKENIZER);
    const json_t *model = json_object_get(op->tokenizer, "model");
    const char *type;
    AY_TRY(ay_json_str_or(op->cx, ld.what, model, "type", json_is_array(json_object_get(model, "vocab")) ? "Unigram" : "BPE",
                          &type));
    if (op->family && strcmp(op->family->model, type) != 0)
        return ay_fail(op->cx, ALLOY_E_MISMATCH, "%s: a %.40s model, but a %s has a %s model", ld.what, type,
                       op->family->name, op->family->model);
    if (op->family && op->family->charsmap) AY_TRY(charsmap_from_tokenizer(op, &ld));
    if (strcmp(type, "BPE") == 0) return bpe_from_tokenizer(&ld, model, op->family, &op->t->model);
    if (strcmp(type, "Unigram") == 0) return unigram_from_tokenizer(&ld, model, op->family, &op->t->model);
    return ay_fail(op->cx, ALLOY_E_UNSUPPORTED, "%s: a model of type \"%.60s\"; BPE and Unigram are known here", ld.what,
                   type);
}

typedef struct piece_sink { opening *op; ay_load *ld; ay_unigram *u; } piece_sink;

static alloy_status take_piece(void *user, const char *s, size_t n, double score, int type) {
    piece_sink *sink = user;
    opening *op = sink->op;
    AY_TRY(ay_unigram_piece(sink->ld, sink->u, s, n, score));
    if (type != AY_SPIECE_CONTROL && type != AY_SPIECE_USER) return ALLOY_OK;
    if (op->n_spiece == op->cap_spiece) {
        size_t cap = op->cap_spiece ? op->cap_spiece * 2 : 32;
        ay_added *more = realloc(op->spiece, cap * sizeof *more);
        if (!more) return ay_nomem(op->cx);
        op->spiece = more;
        op->cap_spiece = cap;
    }
    char *text = ay_strndup(op->t->arena, s, n); /* a NUL inside would shorten it: no such token can be asked for */
    if (!text) return ay_nomem(op->cx);
    op->spiece[op->n_spiece++] = (ay_added){.text = text, .n = strlen(text), .special = type == AY_SPIECE_CONTROL};
    return ALLOY_OK;
}

static alloy_status open_spiece(opening *op) {
    ay_load ld = load_of(op, AY_TF_SPIECE);
    const ay_token_file *f = &op->file[AY_TF_SPIECE];
    if (!op->family) op->family = ay_family_by_probe("Unigram", NULL);
    if (!op->family || strcmp(op->family->model, "Unigram") != 0)
        return ay_fail(op->cx, ALLOY_E_UNSUPPORTED, "%s: a sentencepiece model, which %s does not read", f->name,
                       op->family ? op->family->name : "no tokenizer known here");
    ay_unigram *u = ay_unigram_begin(&ld);
    if (!u) return ay_nomem(op->cx);
    piece_sink sink = {op, &ld, u};
    ay_spiece_info info;
    AY_TRY(ay_spiece_read(&ld, f->data, f->size, &(ay_spiece_hooks){take_piece, &sink}, &info));
    if (info.model_type != 1)
        return ay_fail(op->cx, ALLOY_E_UNSUPPORTED, "%s: a sentencepiece model of type %d; 1 (unigram) was expected",
                       f->name, info.model_type);
    int64_t extra;
    AY_TRY(ay_json_int_or(op->cx, op->file[AY_TF_CONFIG].name, op->config, "extra_ids", 0, 1000, op->family->extra_ids,
                          &extra));
    for (int64_t i = extra - 1; i >= 0; i--) {
        char name[32];
        int n = snprintf(name, sizeof name, "<extra_id_%d>", (int)i);
        AY_TRY(ay_unigram_piece(&ld, u, name, (size_t)n, 0.0));
    }
    if (info.charsmap_bytes) AY_TRY(ay_charsmap_new(&ld, info.charsmap, info.charsmap_bytes, &op->charsmap));
    return ay_unigram_end(&ld, u, op->family->unk_id, false, &op->t->model);
}

static alloy_status open_vocab_and_merges(opening *op) {
    ay_load ld = load_of(op, AY_TF_VOCAB);
    const ay_token_file *merges = &op->file[AY_TF_MERGES];
    AY_TRY(read_json(op, AY_TF_VOCAB, &op->vocab));
    if (!merges->data)
        return ay_fail(op->cx, ALLOY_E_IO, "%s: there is a vocab.json without a merges.txt; both are needed", op->dir);
    if (!op->family) op->family = ay_family_by_probe("BPE", op->vocab);
    if (!op->family || strcmp(op->family->model, "BPE") != 0)
        return ay_fail(op->cx, ALLOY_E_UNSUPPORTED, "%s: which kind of tokenizer this vocabulary belongs to cannot be "
                       "told; a tokenizer_config.json with its tokenizer_class or a tokenizer.json is needed", ld.what);
    ay_bpe_options o = {.unk = op->family->unk_in_model ? op->family->unk : NULL, .suffix = op->family->suffix};
    const char *unk = json_string_value(json_object_get(op->config, "unk_token"));
    if (o.unk && unk) o.unk = unk;
    return ay_bpe_new(&ld, op->vocab, merges->name, merges->data, merges->size, NULL, &o, &op->t->model);
}

/* ---- pipeline ------------------------------------------------------------------------------------------------------ */

static alloy_status row_pipeline(opening *op) {
    ay_load ld = load_of(op, AY_TF_CONFIG);
    ld.what = op->family->name;
    json_t *v = NULL;
    alloy_status st = ALLOY_OK;
    if (op->family->normalizer) {
        st = parse_row(&ld, op->family->normalizer, &v);
        if (st == ALLOY_OK) st = ay_norms_parse(&ld, v, &op->t->norms);
        json_decref(v);
    } else if (op->charsmap) st = ay_norms_charsmap(&ld, op->charsmap, &op->t->norms);
    v = NULL;
    if (st == ALLOY_OK && op->family->pre_tokenizer) {
        st = parse_row(&ld, op->family->pre_tokenizer, &v);
        if (st == ALLOY_OK) st = ay_pretoks_parse(&ld, v, &op->t->pretoks);
        json_decref(v);
    }
    return st;
}

static alloy_status pipeline(opening *op) {
    if (op->family) return row_pipeline(op);
    ay_load ld = load_of(op, AY_TF_TOKENIZER);
    AY_TRY(ay_norms_parse(&ld, json_object_get(op->tokenizer, "normalizer"), &op->t->norms));
    return ay_pretoks_parse(&ld, json_object_get(op->tokenizer, "pre_tokenizer"), &op->t->pretoks);
}

static alloy_status put_named(opening *op, const ay_special *sp, int which, bool after) {
    const char *text = sp->named[which].text;
    int32_t id = text ? ay_added_find(&op->t->added, op->t->model, text) : -1;
    if (id < 0)
        return ay_fail(op->cx, ALLOY_E_MISMATCH, "%s: a %s needs the %s, which its files do not have", op->dir,
                       op->family ? op->family->name : "tokenizer", which == AY_BOS ? "bos_token" : "eos_token");
    if (after) op->t->after[op->t->n_after++] = id;
    else op->t->before[op->t->n_before++] = id;
    return ALLOY_OK;
}

/* What stands around a text: the family's words, else the file's post_processor, else what the configuration asks for. */
static alloy_status surroundings(opening *op, const ay_special *sp) {
    const char *words = op->family ? op->family->sequence : NULL;
    if (!words && op->tokenizer) {
        ay_load ld = load_of(op, AY_TF_TOKENIZER);
        return ay_template_parse(&ld, json_object_get(op->tokenizer, "post_processor"), op->t);
    }
    bool bos = words && strncmp(words, "bos ", 4) == 0, eos = words && strstr(words, " eos");
    if (!words) {
        const char *name = op->file[AY_TF_CONFIG].name;
        AY_TRY(ay_json_bool_or(op->cx, name, op->config, "add_bos_token", false, &bos));
        AY_TRY(ay_json_bool_or(op->cx, name, op->config, "add_eos_token", false, &eos));
        bos = bos && sp->named[AY_BOS].text;
        eos = eos && sp->named[AY_EOS].text;
    }
    if (bos) AY_TRY(put_named(op, sp, AY_BOS, false));
    if (eos) AY_TRY(put_named(op, sp, AY_EOS, true));
    return ALLOY_OK;
}

static alloy_status side(opening *op, const char *key, bool *left) {
    const char *s;
    AY_TRY(ay_json_str_or(op->cx, op->file[AY_TF_CONFIG].name, op->config, key, "right", &s));
    *left = strcmp(s, "left") == 0;
    if (*left || strcmp(s, "right") == 0) return ALLOY_OK;
    return ay_fail(op->cx, ALLOY_E_MISMATCH, "%s: \"%s\" is \"%.40s\"; left or right was expected",
                   op->file[AY_TF_CONFIG].name, key, s);
}

static alloy_status finish(opening *op, const ay_special *sp) {
    ay_tokenizer *t = op->t;
    ay_load ld = load_of(op, AY_TF_CONFIG);
    double length;
    AY_TRY(ay_json_bool_or(op->cx, ld.what, op->config, "split_special_tokens", false, &t->added.split_special));
    AY_TRY(ay_added_finish(&ld, &t->added, &t->norms));
    AY_TRY(surroundings(op, sp));
    t->pad_id = sp->named[AY_PAD].text ? ay_added_find(&t->added, t->model, sp->named[AY_PAD].text) : -1;
    AY_TRY(ay_json_num_or(op->cx, ld.what, op->config, "model_max_length", -1e300, 1e300, 0, &length));
    t->max_length = length >= 1 && length < 1 << 24 ? (int)length : 0;
    AY_TRY(side(op, "padding_side", &t->pad_left));
    return side(op, "truncation_side", &t->truncate_left);
}

static alloy_status choose_family(opening *op) {
    const char *name;
    AY_TRY(ay_json_str_or(op->cx, op->file[AY_TF_CONFIG].name, op->config, "tokenizer_class", NULL, &name));
    op->family = ay_family_of_class(name);
    if (op->family || !name || op->tokenizer) return ALLOY_OK; /* a tokenizer.json speaks for any class */
    ay_buf known = {0};
    ay_family_names(&known);
    alloy_status st = ay_fail(op->cx, ALLOY_E_UNSUPPORTED, "%s: the tokenizer_class \"%.60s\" is not known here (%s are); a "
                              "tokenizer.json in the folder would do", op->file[AY_TF_CONFIG].name, name,
                              known.data ? known.data : "");
    ay_buf_free(&known);
    return st;
}

static alloy_status open_all(opening *op) {
    static const ay_token_kind kinds[] = {AY_TF_CONFIG, AY_TF_SPECIAL, AY_TF_ADDED, AY_TF_TOKENIZER};
    json_t **to[] = {&op->config, &op->special, &op->added, &op->tokenizer};
    for (int i = 0; i < 4; i++) {
        AY_TRY(read_json(op, kinds[i], to[i]));
        AY_TRY(must_be_object(op, kinds[i], *to[i]));
    }
    if (!op->config && !(op->config = json_object())) return ay_nomem(op->cx);
    AY_TRY(choose_family(op));
    if (op->tokenizer) AY_TRY(open_tokenizer_json(op));
    else if (there(op, AY_TF_SPIECE)) AY_TRY(open_spiece(op));
    else if (there(op, AY_TF_VOCAB)) AY_TRY(open_vocab_and_merges(op));
    else
        return ay_fail(op->cx, ALLOY_E_IO, "%s: no tokenizer here; tokenizer.json, spiece.model or vocab.json with "
                       "merges.txt was expected", op->dir);
    AY_TRY(pipeline(op));
    ay_load ld = load_of(op, AY_TF_CONFIG);
    ay_special_sources src = {op->family, op->config, op->special, op->added, op->tokenizer, op->spiece, op->n_spiece};
    ay_special sp;
    alloy_status st = ay_special_add(&ld, &src, op->t, &sp);
    if (st == ALLOY_OK) st = finish(op, &sp);
    ay_special_free(&sp);
    return st;
}

alloy_status ay_tokenizer_open_files(ay_ctx *cx, const char *dir, const ay_token_file file[AY_TF_COUNT],
                                     ay_tokenizer **out) {
    *out = NULL;
    ay_tokenizer *t = calloc(1, sizeof *t);
    if (!t || !(t->arena = ay_arena_new())) {
        free(t);
        return ay_nomem(cx);
    }
    t->added.index.arena = t->arena;
    opening op = {.cx = cx, .t = t, .file = file, .dir = dir};
    alloy_status st = open_all(&op);
    if (st == ALLOY_OK && ay_arena_failed(t->arena)) st = ay_nomem(cx);
    json_decref(op.config);
    json_decref(op.special);
    json_decref(op.added);
    json_decref(op.tokenizer);
    json_decref(op.vocab);
    free(op.spiece);
    if (st == ALLOY_OK) *out = t;
    else ay_tokenizer_close(&t);
    return st;
}

alloy_status ay_tokenizer_open(ay_ctx *cx, const char *dir, ay_tokenizer **out) {
    static const char *const names[AY_TF_COUNT] = {
        [AY_TF_CONFIG] = "tokenizer_config.json", [AY_TF_SPECIAL] = "special_tokens_map.json",
        [AY_TF_ADDED] = "added_tokens.json", [AY_TF_TOKENIZER] = "tokenizer.json",
        [AY_TF_SPIECE] = "spiece.model", [AY_TF_VOCAB] = "vocab.json", [AY_TF_MERGES] = "merges.txt",
    };
    *out = NULL;
    ay_arena *paths = ay_arena_new();
    if (!paths) return ay_nomem(cx);
    ay_buf bytes[AY_TF_COUNT] = {0};
    ay_token_file file[AY_TF_COUNT] = {0};
    alloy_status st = ALLOY_OK;
    if (ay_path_kind_of(dir) != AY_PATH_DIR)
        st = ay_fail(cx, ALLOY_E_IO, "%s: not a folder; a tokenizer's folder was expected", dir);
    for (int i = 0; i < AY_TF_COUNT && st == ALLOY_OK; i++) {
        char *path = ay_path_join(paths, dir, names[i]);
        if (!path) st = ay_nomem(cx);
        else file[i].name = path;
        bool spare = (i == AY_TF_SPIECE || i == AY_TF_VOCAB || i == AY_TF_MERGES) && file[AY_TF_TOKENIZER].data;
        if (st != ALLOY_OK || spare || ay_path_kind_of(path) == AY_PATH_NONE) continue;
        st = ay_file_read(cx, path, MAX_FILE, &bytes[i]);
        file[i].data = bytes[i].data ? bytes[i].data : "";
        file[i].size = bytes[i].len;
    }
    if (st == ALLOY_OK) st = ay_tokenizer_open_files(cx, dir, file, out);
    for (int i = 0; i < AY_TF_COUNT; i++) ay_buf_free(&bytes[i]);
    ay_arena_free(paths);
    return st;
}

void ay_tokenizer_close(ay_tokenizer **t) {
    if (!t || !*t) return;
    ay_arena_free((*t)->arena);
    free(*t);
    *t = NULL;
}
