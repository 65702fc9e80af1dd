/* SPDX-License-Identifier: MIT
 *
 * Pre-tokenizers: pieces to pieces, in the order of the file. One row a type: its name in tokenizer.json, how its object is
 * read, what it does to one piece (tokenizers/src/pre_tokenizers/). Types that no row knows are refused by name.
 */
#include "token/tok.h"

#include <stdlib.h>
#include <string.h>

typedef alloy_status (*pretok_parse)(ay_load *ld, const json_t *v, ay_pretok *step);
typedef alloy_status (*pretok_run)(ay_ctx *cx, const ay_pretok *step, const char *s, size_t n, bool first, ay_pieces *out);
struct ay_pretok_type { const char *name; pretok_parse parse; pretok_run run; };

void ay_pieces_clear(ay_pieces *p) {
    p->text.len = 0;
    p->n = 0;
}

void ay_pieces_free(ay_pieces *p) {
    ay_buf_free(&p->text);
    free(p->p);
    *p = (ay_pieces){0};
}

void ay_pieces_add(ay_pieces *p, const char *s, size_t n, int32_t id, bool first) {
    if (n == 0 || p->failed) return;
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        ay_piece *more = realloc(p->p, cap * sizeof *more);
        if (!more) {
            p->failed = true;
            return;
        }
        p->p = more;
        p->cap = cap;
    }
    p->p[p->n++] = (ay_piece){p->text.len, n, id, first};
    ay_buf_add(&p->text, s, n);
    p->failed |= p->text.failed;
}

static alloy_status done(ay_ctx *cx, const ay_pieces *out) { return out->failed ? ay_nomem(cx) : ALLOY_OK; }

/* ---- splitting by matches ------------------------------------------------------------------------------------------ */

/* Stretches that match and those between, on their way to pieces: [begin, end) is held back until its end is known. */
typedef struct splitting {
    const char *s;
    ay_pieces *out;
    ay_behavior behavior;
    bool invert, first, held, last_match;
    size_t begin, end;
} splitting;

static void put(splitting *sp, size_t begin, size_t end) {
    ay_pieces_add(sp->out, sp->s + begin, end - begin, -1, sp->first && begin == 0);
}

static bool split_part(void *user, size_t begin, size_t end, bool match) {
    splitting *sp = user;
    match ^= sp->invert;
    switch (sp->behavior) {
    case AY_REMOVED:
        if (!match) put(sp, begin, end);
        break;
    case AY_ISOLATED: put(sp, begin, end); break;
    case AY_MERGED_PREVIOUS: /* the first of several matches joins what stands before it */
        if (sp->held && !(match && !sp->last_match)) put(sp, sp->begin, sp->end);
        if (!sp->held || !(match && !sp->last_match)) sp->begin = begin;
        sp->held = true;
        break;
    case AY_MERGED_NEXT: /* the last of several matches joins what stands behind it */
        if (sp->held && !(sp->last_match && !match)) put(sp, sp->begin, sp->end);
        if (!sp->held || !(sp->last_match && !match)) sp->begin = begin;
        sp->held = true;
        break;
    }
    sp->end = end;
    sp->last_match = match;
    return !sp->out->failed;
}

static void split_end(splitting *sp) {
    if (sp->held) put(sp, sp->begin, sp->end);
}

static void literal_parts(const char *s, size_t n, const char *word, ay_part_fn part, void *user) {
    size_t k = strlen(word), at = 0;
    while (at < n) {
        const char *hit = memmem(s + at, n - at, word, k);
        size_t begin = hit ? (size_t)(hit - s) : n;
        if (begin > at) part(user, at, begin, false);
        if (hit) part(user, begin, begin + k, true);
        at = hit ? begin + k : n;
    }
}

/* Every code point for which `is` holds is a match of its own. */
static void char_parts(const char *s, size_t n, bool (*is)(int32_t), ay_part_fn part, void *user) {
    size_t begin = 0;
    for (size_t i = 0, at; i < n;) {
        at = i;
        if (!is(ay_utf8_next(s, n, &i))) continue;
        if (at > begin) part(user, begin, at, false);
        part(user, at, i, true);
        begin = i;
    }
    if (begin < n) part(user, begin, n, false);
}

/* ---- what they do -------------------------------------------------------------------------------------------------- */

static alloy_status run_split(ay_ctx *cx, const ay_pretok *step, const char *s, size_t n, bool first, ay_pieces *out) {
    splitting sp = {.s = s, .out = out, .behavior = step->behavior, .invert = step->invert, .first = first};
    if (step->regex) AY_TRY(ay_regex_parts(cx, step->regex, s, n, split_part, &sp));
    else literal_parts(s, n, step->pattern, split_part, &sp);
    split_end(&sp);
    return done(cx, out);
}

static alloy_status run_space(ay_ctx *cx, const ay_pretok *step, const char *s, size_t n, bool first, ay_pieces *out) {
    splitting sp = {.s = s, .out = out, .behavior = AY_REMOVED, .first = first};
    char_parts(s, n, ay_is_space, split_part, &sp);
    return done(cx, out);
}

/* Spaces become `mark`, one is put in front as the scheme says, and every mark begins a piece. */
static alloy_status run_metaspace(ay_ctx *cx, const ay_pretok *step, const char *s, size_t n, bool first, ay_pieces *out) {
    ay_buf b = {0};
    size_t k = strlen(step->mark);
    bool marked = n > 0 && (s[0] == ' ' || (n >= k && memcmp(s, step->mark, k) == 0));
    if (!marked && (step->prepend == 2 || (step->prepend == 1 && first))) ay_buf_add(&b, step->mark, k);
    for (size_t i = 0, run; i < n; i += run) {
        const char *space = memchr(s + i, ' ', n - i);
        run = space ? (size_t)(space - (s + i)) : n - i;
        ay_buf_add(&b, s + i, run);
        if (space) ay_buf_add(&b, step->mark, k), run++;
    }
    if (b.failed) {
        ay_buf_free(&b);
        return ay_nomem(cx);
    }
    splitting sp = {.s = b.data, .out = out, .behavior = AY_MERGED_NEXT, .first = first};
    if (step->split) {
        literal_parts(b.data, b.len, step->mark, split_part, &sp);
        split_end(&sp);
    } else ay_pieces_add(out, b.data, b.len, -1, first);
    ay_buf_free(&b);
    return done(cx, out);
}

/* GPT-2's alphabet: each byte is a character that can be seen; the 68 that cannot stand from U+0100 on. */
static int32_t byte_char(uint8_t b) {
    if ((b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae) return b;
    if (b <= ' ') return 0x100 + b;
    return b <= 0xa0 ? 0x100 + 33 + (b - 0x7f) : 0x100 + 67;
}

typedef struct byte_parts { const char *s; ay_pieces *out; ay_buf *line; bool first; } byte_parts;

static bool byte_part(void *user, size_t begin, size_t end, bool match) {
    byte_parts *p = user;
    p->line->len = 0;
    for (size_t i = begin; i < end; i++) {
        char c[4];
        ay_buf_add(p->line, c, ay_utf8_put(byte_char((uint8_t)p->s[i]), c));
    }
    if (!p->line->failed) ay_pieces_add(p->out, p->line->data, p->line->len, -1, p->first && begin == 0);
    p->out->failed |= p->line->failed;
    return !p->out->failed;
}

static alloy_status run_bytes(ay_ctx *cx, const ay_pretok *step, const char *s, size_t n, bool first, ay_pieces *out) {
    ay_buf line = {0}, spaced = {0};
    if (step->prefix_space && s[0] != ' ') {
        ay_buf_add(&spaced, " ", 1);
        ay_buf_add(&spaced, s, n);
        if (spaced.failed) return ay_buf_free(&spaced), ay_nomem(cx);
        s = spaced.data;
        n = spaced.len;
    }
    byte_parts p = {s, out, &line, first};
    alloy_status st = ALLOY_OK;
    if (step->regex) st = ay_regex_parts(cx, step->regex, s, n, byte_part, &p);
    else byte_part(&p, 0, n, true);
    ay_buf_free(&line);
    ay_buf_free(&spaced);
    return st == ALLOY_OK ? done(cx, out) : st;
}

/* ---- how they are read --------------------------------------------------------------------------------------------- */

static alloy_status parse_split(ay_load *ld, const json_t *v, ay_pretok *step) {
    static const struct { const char *name; ay_behavior behavior; } names[] = {
        {"Removed", AY_REMOVED},
        {"Isolated", AY_ISOLATED},
        {"MergedWithPrevious", AY_MERGED_PREVIOUS},
        {"MergedWithNext", AY_MERGED_NEXT},
    };
    const char *s;
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "invert", false, &step->invert));
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "behavior", &s));
    size_t i = 0;
    while (i < sizeof names / sizeof *names && strcmp(s, names[i].name) != 0) i++;
    if (i == sizeof names / sizeof *names)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the split behavior \"%.60s\" is not known here", ld->what, s);
    step->behavior = names[i].behavior;
    const json_t *pattern = json_object_get(v, "pattern");
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    if (literal && *literal) {
        step->pattern = ay_strdup(ld->arena, literal);
        return step->pattern ? ALLOY_OK : ay_nomem(ld->cx);
    }
    AY_TRY(ay_json_str(ld->cx, ld->what, pattern, "Regex", &s));
    return ay_regex_new(ld, s, &step->regex);
}

static alloy_status parse_metaspace(ay_load *ld, const json_t *v, ay_pretok *step) {
    const char *s;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "replacement", &s));
    size_t n = strlen(s), at = 0;
    if (n) ay_utf8_next(s, n, &at);
    if (n == 0 || at != n)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: Metaspace's replacement is \"%.20s\"; one character was expected",
                       ld->what, s);
    memcpy(step->mark, s, n);
    AY_TRY(ay_json_str_or(ld->cx, ld->what, v, "prepend_scheme", "always", &s));
    step->prepend = strcmp(s, "never") == 0 ? 0 : strcmp(s, "first") == 0 ? 1 : strcmp(s, "always") == 0 ? 2 : -1;
    if (step->prepend < 0)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: Metaspace's prepend_scheme is \"%.60s\"; never, first or always "
                       "was expected", ld->what, s);
    bool add;
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "add_prefix_space", true, &add));
    if (!add && step->prepend)
        return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: Metaspace's add_prefix_space is false, but its prepend_scheme is not "
                       "never", ld->what);
    return ay_json_bool_or(ld->cx, ld->what, v, "split", true, &step->split);
}

static alloy_status parse_bytes(ay_load *ld, const json_t *v, ay_pretok *step) {
    bool use_regex;
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "add_prefix_space", true, &step->prefix_space));
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "use_regex", true, &use_regex));
    if (!use_regex) return ALLOY_OK;
    return ay_regex_new(ld, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
                        &step->regex);
}

static alloy_status parse_digits(ay_load *ld, const json_t *v, ay_pretok *step) {
    bool each;
    AY_TRY(ay_json_bool_or(ld->cx, ld->what, v, "individual_digits", false, &each));
    step->behavior = AY_ISOLATED;
    return ay_regex_new(ld, each ? "\\p{N}" : "\\p{N}+", &step->regex);
}

static const struct ay_pretok_type types[] = {
    {"ByteLevel", parse_bytes, run_bytes},
    {"Digits", parse_digits, run_split},
    {"Metaspace", parse_metaspace, run_metaspace},
    {"Split", parse_split, run_split},
    {"WhitespaceSplit", NULL, run_space},
};

static alloy_status parse_one(ay_load *ld, const json_t *v, ay_pretoks *out, int depth) {
    const char *type;
    AY_TRY(ay_json_str(ld->cx, ld->what, v, "type", &type));
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(v, "pretokenizers");
        if (!json_is_array(list) || depth > 4)
            return ay_fail(ld->cx, ALLOY_E_FORMAT, "%s: a pre_tokenizer Sequence without a list of \"pretokenizers\", or "
                           "one nested too deep", ld->what);
        for (size_t i = 0; i < json_array_size(list); i++) AY_TRY(parse_one(ld, json_array_get(list, i), out, depth + 1));
        return ALLOY_OK;
    }
    if (out->n == AY_MAX_STEPS)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: more than %d pre-tokenizers", ld->what, AY_MAX_STEPS);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i].name) != 0) continue;
        ay_pretok *step = &out->step[out->n];
        *step = (ay_pretok){.type = &types[i]};
        if (types[i].parse) AY_TRY(types[i].parse(ld, v, step));
        out->n++;
        return ALLOY_OK;
    }
    return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the pre_tokenizer \"%.60s\" is not known here", ld->what, type);
}

alloy_status ay_pretoks_parse(ay_load *ld, const json_t *v, ay_pretoks *out) {
    out->n = 0;
    return !v || json_is_null(v) ? ALLOY_OK : parse_one(ld, v, out, 0);
}

alloy_status ay_pretoks_run(ay_ctx *cx, const ay_pretoks *steps, ay_pieces *pieces, ay_pieces *spare) {
    for (int i = 0; i < steps->n; i++) {
        const ay_pretok *step = &steps->step[i];
        ay_pieces_clear(spare);
        for (size_t k = 0; k < pieces->n; k++) {
            const ay_piece *p = &pieces->p[k];
            const char *s = pieces->text.data + p->at;
            if (p->id >= 0) ay_pieces_add(spare, s, p->n, p->id, p->first);
            else AY_TRY(step->type->run(cx, step, s, p->n, p->first, spare));
        }
        if (spare->failed) return ay_nomem(cx);
        ay_pieces t = *pieces;
        *pieces = *spare;
        *spare = t;
    }
    return ALLOY_OK;
}
