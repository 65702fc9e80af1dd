/* SPDX-License-Identifier: MIT
 *
 * Normalizers: string to string, in the order of the file. One row a type: its name in tokenizer.json, how its object is
 * read, what it does (tokenizers/src/normalizers/). Types that no row knows are refused by name.
 */
#include "token/tok.h"

#include <string.h>

typedef alloy_status (*norm_parse)(ay_load *ld, const json_t *v, ay_norm *step);
typedef alloy_status (*norm_run)(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out);
struct ay_norm_type { const char *name; norm_parse parse; norm_run run; };

static alloy_status done(ay_ctx *cx, const ay_buf *out) { return out->failed ? ay_nomem(cx) : ALLOY_OK; }

/* ---- what they do -------------------------------------------------------------------------------------------------- */

static alloy_status run_form(ay_ctx *cx, ay_form form, const char *s, size_t n, ay_buf *out) {
    return ay_normal_form(form, s, n, out) ? ALLOY_OK : ay_nomem(cx);
}
static alloy_status run_nfc(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    return run_form(cx, AY_NFC, s, n, out);
}
static alloy_status run_nfd(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    return run_form(cx, AY_NFD, s, n, out);
}
static alloy_status run_nfkc(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    return run_form(cx, AY_NFKC, s, n, out);
}
static alloy_status run_nfkd(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    return run_form(cx, AY_NFKD, s, n, out);
}

/* Sentencepiece's nmt rule without the normal form: control characters vanish, odd spaces become plain ones. */
static alloy_status run_nmt(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    for (size_t i = 0, at; i < n;) {
        at = i;
        int32_t c = ay_utf8_next(s, n, &i);
        if ((c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f) continue;
        bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
                     c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
        if (space) ay_buf_add(out, " ", 1);
        else ay_buf_add(out, s + at, i - at);
    }
    return done(cx, out);
}

static alloy_status run_lowercase(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    ay_lowercase(s, n, out);
    return done(cx, out);
}

static alloy_status run_strip(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    size_t begin = 0, end = 0;
    bool inside = false;
    for (size_t i = 0, at; i < n;) {
        at = i;
        if (ay_is_space(ay_utf8_next(s, n, &i))) continue;
        if (!inside) begin = at;
        inside = true;
        end = i;
    }
    if (!step->left) begin = 0;
    if (!step->right) end = n;
    if (!inside && (step->left || step->right)) begin = end = 0; /* nothing but space */
    ay_buf_add(out, s + begin, end - begin);
    return done(cx, out);
}

static alloy_status run_prepend(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    if (n) ay_buf_add(out, step->text, strlen(step->text));
    ay_buf_add(out, s, n);
    return done(cx, out);
}

typedef struct replacing { const char *s, *text; ay_buf *out; } replacing;
static bool replace_part(void *user, size_t begin, size_t end, bool match) {
    replacing *r = user;
    if (match) ay_buf_add(r->out, r->text, strlen(r->text));
    else ay_buf_add(r->out, r->s + begin, end - begin);
    return !r->out->failed;
}

static alloy_status run_replace(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    if (step->regex) {
        replacing r = {s, step->text, out};
        AY_TRY(ay_regex_parts(cx, step->regex, s, n, replace_part, &r));
        return done(cx, out);
    }
    size_t k = strlen(step->pattern);
    for (const char *end = s + n, *hit; s < end; s = hit + k) {
        hit = memmem(s, (size_t)(end - s), step->pattern, k);
        ay_buf_add(out, s, (size_t)((hit ? hit : end) - s));
        if (!hit) break;
        ay_buf_add(out, step->text, strlen(step->text));
    }
    return done(cx, out);
}

static alloy_status run_charsmap(ay_ctx *cx, const ay_norm *step, const char *s, size_t n, ay_buf *out) {
    return ay_charsmap_run(cx, step->map, s, n, out);
}

/* ---- how they are read --------------------------------------------------------------------------------------------- */

static alloy_status parse_strip(ay_load *ld, const json_t *v, ay_norm *step) {
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "strip_left", false, &step->left));
    return ay_json_bool_or(ld->cx, ld->what, v, "strip_right", false, &step->right);
}

static alloy_status keep(ay_load *ld, const char *s, const char **out) {
    *out = ay_strdup(ld->arena, s);
    return *out ? ALLOY_OK : ay_nomem(ld->cx);
}

static alloy_status parse_prepend(ay_load *ld, const json_t *v, ay_norm *step) {
    const char *s;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "prepend", &s));
    return keep(ld, s, &step->text);
}

static alloy_status parse_replace(ay_load *ld, const json_t *v, ay_norm *step) {
    const char *s;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "content", &s));
    AY_TRY(keep(ld, s, &step->text));
    const json_t *pattern = json_object_get(v, "pattern");
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    if (literal && *literal) return keep(ld, literal, &step->pattern);
    AY_TRY(ay_json_str(ld->cx, ld->what, pattern, "Regex", &s));
    return ay_regex_new(ld, s, &step->regex);
}

static alloy_status parse_charsmap(ay_load *ld, const json_t *v, ay_norm *step) {
    const char *s;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "precompiled_charsmap", &s));
    return ay_charsmap_base64(ld, s, strlen(s), &step->map);
}

static const struct ay_norm_type types[] = {
    {"Precompiled", parse_charsmap, run_charsmap}, /* first: ay_norms_charsmap takes it from here */
    {"NFC", NULL, run_nfc},
    {"NFD", NULL, run_nfd},
    {"NFKC", NULL, run_nfkc},
    {"NFKD", NULL, run_nfkd},
    {"Nmt", NULL, run_nmt},
    {"Lowercase", NULL, run_lowercase},
    {"Strip", parse_strip, run_strip},
    {"Prepend", parse_prepend, run_prepend},
    {"Replace", parse_replace, run_replace},
};

static alloy_status parse_one(ay_load *ld, const json_t *v, ay_norms *out, int depth);

static alloy_status parse_sequence(ay_load *ld, const json_t *v, ay_norms *out, int depth) {
    const json_t *list = json_object_get(v, "normalizers");
    if (!json_is_array(list) || depth > 4)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: a normalizer Sequence without a list of \"normalizers\", or one nested "
                       "too deep", ld->what);
    for (size_t i = 0; i < json_array_size(list); i++) AY_TRY(parse_one(ld, json_array_get(list, i), out, depth + 1));
    return ALLOY_OK;
}

static alloy_status parse_one(ay_load *ld, const json_t *v, ay_norms *out, int depth) {
    const char *type;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "type", &type));
    if (strcmp(type, "Sequence") == 0) return parse_sequence(ld, v, out, depth);
    if (out->n == AY_MAX_STEPS)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: more than %d normalizers", ld->what, AY_MAX_STEPS);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i].name) != 0) continue;
        ay_norm *step = &out->step[out->n];
        *step = (ay_norm){.type = &types[i]};
        if (types[i].parse) AY_TRY(types[i].parse(ld, v, step));
        out->n++;
        return ALLOY_OK;
    }
    return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the normalizer \"%.60s\" is not known here", ld->what, type);
}

alloy_status ay_norms_parse(ay_load *ld, const json_t *v, ay_norms *out) {
    out->n = 0;
    return !v || json_is_null(v) ? ALLOY_OK : parse_one(ld, v, out, 0);
}

alloy_status ay_norms_charsmap(ay_load *ld, ay_charsmap *map, ay_norms *out) {
    out->step[0] = (ay_norm){.type = &types[0], .map = map};
    out->n = 1;
    return ALLOY_OK;
}

alloy_status ay_norms_run(ay_ctx *cx, const ay_norms *norms, const char *s, size_t n, ay_buf *out, ay_buf *spare) {
    out->len = 0;
    if (norms->n == 0) {
        ay_buf_add(out, s, n);
        return done(cx, out);
    }
    for (int i = 0; i < norms->n; i++) {
        if (i > 0) { /* the last result becomes what is read */
            ay_buf t = *out;
            *out = *spare;
            *spare = t;
            s = spare->data ? spare->data : "";
            n = spare->len;
        }
        out->len = 0;
        AY_TRY(norms->step[i].type->run(cx, &norms->step[i], s, n, out));
    }
    return ALLOY_OK;
}
