/* SPDX-License-Identifier: MIT
 *
 * What is put around the ids of a text: tokenizer.json's post_processor, as far as one sequence goes
 * (tokenizers/src/processors/).
 */
#include "token/tok.h"

#include <string.h>

static alloy_status put(ay_load *ld, ay_tokenizer *t, bool after, int64_t id) {
    int *n = after ? &t->n_after : &t->n_before;
    if (*n == AY_MAX_TEMPLATE)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: more than %d special tokens around a text", ld->what,
                       AY_MAX_TEMPLATE);
    (after ? t->after : t->before)[(*n)++] = (int32_t)id;
    return ALLOY_OK;
}

/* "special_tokens": {"</s>": {"ids": [1], ...}} */
static alloy_status put_special(ay_load *ld, ay_tokenizer *t, const json_t *v, const json_t *piece, bool after) {
    const char *name;
    int64_t ids[AY_MAX_TEMPLATE];
    int n;
    AY_TRY(ay_json_str(ld->cx, ld->what, piece, "id", &name));
    const json_t *token = json_object_get(json_object_get(v, "special_tokens"), name);
    AY_TRY(ay_json_ints(ld->cx, ld->what, token, "ids", 0, (1 << 24) - 1, AY_MAX_TEMPLATE, ids, &n));
    for (int i = 0; i < n; i++) AY_TRY(put(ld, t, after, ids[i]));
    return ALLOY_OK;
}

static alloy_status parse_template(ay_load *ld, const json_t *v, ay_tokenizer *t) {
    const json_t *single = json_object_get(v, "single");
    bool after = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        const json_t *sequence = json_object_get(json_array_get(single, i), "Sequence");
        const char *which = json_string_value(json_object_get(sequence, "id"));
        if (special) AY_TRY(put_special(ld, t, v, special, after));
        else if (which && strcmp(which, "A") == 0 && !after) after = true;
        else return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: item %zu of the template \"single\" is not a special token "
                            "and not the one text", ld->what, i);
    }
    if (!after) return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the template \"single\" is not a list with a text in it",
                               ld->what);
    return ALLOY_OK;
}

/* RobertaProcessing and BertProcessing: "cls": ["<s>", 0], "sep": ["</s>", 2] */
static alloy_status parse_pair(ay_load *ld, const json_t *v, ay_tokenizer *t) {
    static const char *const keys[2] = {"cls", "sep"};
    for (int i = 0; i < 2; i++) {
        const json_t *id = json_array_get(json_object_get(v, keys[i]), 1);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= 1 << 24)
            return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: the post_processor's \"%s\" is not [token, id]", ld->what, keys[i]);
        AY_TRY(put(ld, t, i, json_integer_value(id)));
    }
    return ALLOY_OK;
}

static alloy_status parse_one(ay_load *ld, const json_t *v, ay_tokenizer *t) {
    const char *type;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "type", &type));
    if (strcmp(type, "ByteLevel") == 0) return ALLOY_OK; /* moves offsets, which nobody asks for */
    if (strcmp(type, "TemplateProcessing") == 0) return parse_template(ld, v, t);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) return parse_pair(ld, v, t);
    return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the post_processor \"%.60s\" is not known here", ld->what, type);
}

alloy_status ay_template_parse(ay_load *ld, const json_t *v, ay_tokenizer *t) {
    t->n_before = t->n_after = 0;
    if (!v || json_is_null(v)) return ALLOY_OK;
    const char *type;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "type", &type));
    if (strcmp(type, "Sequence") != 0) return parse_one(ld, v, t);
    const json_t *list = json_object_get(v, "processors");
    for (size_t i = 0; i < json_array_size(list); i++) AY_TRY(parse_one(ld, json_array_get(list, i), t));
    return ALLOY_OK;
}
