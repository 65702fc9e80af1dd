/* SPDX-License-Identifier: MIT
 *
 * Which tokens are added to a tokenizer, and with which properties: the sum of tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json, tokenizer.json and the family's defaults, joined in the order in which
 * transformers 5 joins them (tokenization_utils_base.py, _from_pretrained; tokenization_utils_tokenizers.py, __init__). The
 * order decides: CLIP's "<|startoftext|>" ends up normalized and "<|endoftext|>" not, and SDXL's "!" is a special token
 * because it pads.
 */
#include "token/special.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const attributes[AY_NAMED] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                 "pad_token", "cls_token", "mask_token"};

static ay_added plain(const char *text) {
    return (ay_added){.text = text, .n = strlen(text), .special = true};
}

/* A string, or {"content": ..., "lstrip": ...}. In an object, normalized is the opposite of special when it is not said. */
static alloy_status read_token(ay_load *ld, const json_t *v, bool special, ay_added *out) {
    if (json_is_string(v)) return *out = plain(json_string_value(v)), ALLOY_OK;
    *out = (ay_added){0};
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "content", &out->text));
    out->n = strlen(out->text);
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "single_word", false, &out->single_word));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "lstrip", false, &out->lstrip));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "rstrip", false, &out->rstrip));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "special", false, &out->special));
    if (special) out->special = true;
    return ay_json_bool_or(ld->cx, ld->what, v, "normalized", !out->special, &out->normalized);
}

typedef struct numbered { int64_t id; int order; ay_added token; } numbered;
typedef struct decoder { numbered *v; size_t n, cap; bool failed; } decoder;

static void decoder_add(decoder *d, int64_t id, const ay_added *token) {
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 64;
        numbered *more = realloc(d->v, cap * sizeof *more);
        if (!more) {
            d->failed = true;
            return;
        }
        d->v = more;
        d->cap = cap;
    }
    d->v[d->n] = (numbered){id, (int)d->n, *token};
    d->n++;
}

static int by_id(const void *a, const void *b) {
    const numbered *x = a, *y = b;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : x->order - y->order; /* a later one of the same id comes later */
}

static alloy_status bad_id(ay_load *ld, const char *name) {
    return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the added token \"%.60s\" has no id from 0 to 16777215", ld->what, name);
}

/* tokenizer_config.json's {"49406": {"content": ...}} */
static alloy_status from_config(ay_load *ld, const json_t *object, decoder *d) {
    const char *key;
    json_t *v;
    ay_added token;
    json_object_foreach((json_t *)object, key, v) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*end || end == key || id < 0 || id >= 1 << 24) return bad_id(ld, key);
        AY_TRY(read_token(ld, v, false, &token));
        decoder_add(d, id, &token);
    }
    return ALLOY_OK;
}

/* added_tokens.json's {"<token>": 49408} */
static alloy_status from_added(ay_load *ld, const json_t *object, const ay_special *sp, decoder *d) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)object, key, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= 1 << 24) return bad_id(ld, key);
        bool special = false;
        for (int i = 0; i < AY_NAMED; i++) special |= sp->named[i].text && strcmp(sp->named[i].text, key) == 0;
        for (size_t i = 0; i < sp->n_extra; i++) special |= strcmp(sp->extra[i].text, key) == 0;
        ay_added token = {.text = key, .n = strlen(key), .normalized = !special, .special = special};
        decoder_add(d, json_integer_value(v), &token);
    }
    return ALLOY_OK;
}

/* tokenizer.json's [{"id": 0, "content": ...}] */
static alloy_status from_tokenizer(ay_load *ld, const json_t *list, decoder *d) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        ay_added token;
        int64_t id;
        AY_TRY(ay_json_int(ld->cx, ld->what, json_array_get(list, i), "id", 0, (1 << 24) - 1, &id));
        AY_TRY(read_token(ld, json_array_get(list, i), false, &token));
        decoder_add(d, id, &token);
    }
    return ALLOY_OK;
}

/* ---- the named ones and the extra ones ----------------------------------------------------------------------------- */

static alloy_status extra_add(ay_load *ld, ay_special *sp, const ay_added *token) {
    if (sp->n_extra == sp->cap_extra) {
        size_t cap = sp->cap_extra ? sp->cap_extra * 2 : 128;
        ay_added *more = realloc(sp->extra, cap * sizeof *more);
        if (!more) return ay_nomem(ld->cx);
        sp->extra = more;
        sp->cap_extra = cap;
    }
    sp->extra[sp->n_extra++] = *token;
    return ALLOY_OK;
}

/* A list of tokens, or an object of name: token. */
static alloy_status extras(ay_load *ld, ay_special *sp, const json_t *v, bool special) {
    ay_added token;
    const char *key;
    json_t *member;
    for (size_t i = 0; i < json_array_size(v); i++) {
        AY_TRY(read_token(ld, json_array_get(v, i), special, &token));
        AY_TRY(extra_add(ld, sp, &token));
    }
    if (json_is_object(v)) json_object_foreach((json_t *)v, key, member) {
        AY_TRY(read_token(ld, member, special, &token));
        AY_TRY(extra_add(ld, sp, &token));
    }
    return ALLOY_OK;
}

static bool filled(const json_t *v) { return json_array_size(v) > 0 || json_object_size(v) > 0; }

static alloy_status named_from(ay_load *ld, ay_special *sp, const json_t *object, bool special) {
    for (int i = 0; i < AY_NAMED; i++) {
        const json_t *v = json_object_get(object, attributes[i]);
        if (json_is_null(v)) sp->named[i] = (ay_added){0};
        else if (v) AY_TRY(read_token(ld, v, special, &sp->named[i]));
    }
    const json_t *list = json_object_get(object, "extra_special_tokens");
    if (!filled(list) && sp->n_extra == 0) list = json_object_get(object, "additional_special_tokens");
    return extras(ld, sp, list, special);
}

/* Keys such as "image_token": model-specific names, special too. */
static alloy_status other_named(ay_load *ld, ay_special *sp, const json_t *config) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)config, key, v) {
        size_t n = strlen(key);
        bool known = n < 6 || strcmp(key + n - 6, "_token") != 0 || !json_is_string(v);
        for (int i = 0; i < AY_NAMED; i++) known |= strcmp(key, attributes[i]) == 0;
        if (known) continue;
        ay_added token = plain(json_string_value(v));
        AY_TRY(extra_add(ld, sp, &token));
    }
    return ALLOY_OK;
}

static alloy_status collect(ay_load *ld, const ay_special_sources *src, ay_special *sp, decoder *d) {
    const ay_family *f = src->family;
    const char *dflt[AY_NAMED] = {f ? f->bos : NULL, f ? f->eos : NULL, f ? f->unk : NULL, NULL, f ? f->pad : NULL};
    for (int i = 0; i < AY_NAMED; i++) sp->named[i] = dflt[i] ? plain(dflt[i]) : (ay_added){0};
    AY_TRY(named_from(ld, sp, src->config, false));
    const json_t *listed = json_object_get(src->config, "added_tokens_decoder");
    if (listed) AY_TRY(from_config(ld, listed, d));
    else {
        AY_TRY(named_from(ld, sp, src->special, true));
        AY_TRY(from_added(ld, src->added, sp, d));
        AY_TRY(from_tokenizer(ld, json_object_get(src->tokenizer, "added_tokens"), d));
    }
    if (d->failed) return ay_nomem(ld->cx);
    if (sp->n_extra == 0)
        for (size_t i = 0; i < src->n_spiece; i++) AY_TRY(extra_add(ld, sp, &src->spiece[i]));
    return other_named(ld, sp, src->config);
}

/* ---- adding -------------------------------------------------------------------------------------------------------- */

static alloy_status add_new(ay_load *ld, ay_tokenizer *t, const ay_added *token, int known, bool named) {
    if (!token->text || token->n == 0) return ALLOY_OK;
    int32_t at = ay_vocab_find(&t->added.index, token->text, token->n);
    if (at >= 0 && at < known) return ALLOY_OK;
    ay_added copy = *token;
    if (named) copy.special = true;
    return ay_added_add(ld, &t->added, t->model, &copy);
}

static alloy_status add_extra_ids(ay_load *ld, const ay_family *f, ay_tokenizer *t, int known) {
    for (int i = 0; f && i < f->extra_ids; i++) {
        char name[32];
        ay_added token = {.text = name, .special = true};
        token.n = (size_t)snprintf(name, sizeof name, "<extra_id_%d>", i);
        if (t->model->find(t->model, name, token.n) >= 0) AY_TRY(add_new(ld, t, &token, known, true));
    }
    return ALLOY_OK;
}

static alloy_status add_all(ay_load *ld, const ay_special_sources *src, const ay_special *sp, decoder *d, ay_tokenizer *t) {
    const json_t *own = src->family ? NULL : json_object_get(src->tokenizer, "added_tokens");
    decoder file = {0}; /* the file's own tokens come first where the file is the tokenizer */
    alloy_status st = from_tokenizer(ld, own, &file);
    for (size_t i = 0; i < file.n && st == ALLOY_OK; i++) st = ay_added_add(ld, &t->added, t->model, &file.v[i].token);
    if (file.failed) st = ay_nomem(ld->cx);
    free(file.v);
    AY_TRY(st);
    if (d->n) qsort(d->v, d->n, sizeof *d->v, by_id);
    for (size_t i = 0; i < d->n; i++) {
        ay_added token = d->v[i].token;
        for (int k = 0; k < AY_NAMED; k++)
            token.special |= sp->named[k].text && strcmp(sp->named[k].text, token.text) == 0;
        AY_TRY(ay_added_add(ld, &t->added, t->model, &token));
    }
    int known = t->added.n;
    for (int i = 0; i < AY_NAMED; i++) AY_TRY(add_new(ld, t, &sp->named[i], known, true));
    for (size_t i = 0; i < sp->n_extra; i++) AY_TRY(add_new(ld, t, &sp->extra[i], known, false));
    AY_TRY(add_extra_ids(ld, src->family, t, known));
    if (!src->family || !src->family->special_again) return ALLOY_OK;
    for (size_t i = 0; i < AY_NAMED + sp->n_extra; i++) {
        const char *text = i < AY_NAMED ? sp->named[i].text : sp->extra[i - AY_NAMED].text;
        ay_added token = plain(text ? text : "");
        AY_TRY(ay_added_add(ld, &t->added, t->model, &token));
    }
    return ALLOY_OK;
}

alloy_status ay_special_add(ay_load *ld, const ay_special_sources *src, ay_tokenizer *t, ay_special *sp) {
    decoder d = {0};
    *sp = (ay_special){0};
    alloy_status st = collect(ld, src, sp, &d);
    if (st == ALLOY_OK) st = add_all(ld, src, sp, &d, t);
    free(d.v);
    return st;
}

void ay_special_free(ay_special *sp) {
    free(sp->extra);
    *sp = (ay_special){0};
}
