/* SPDX-License-Identifier: MIT
 *
 * Prompts with weights, and longer than a text encoder, as AUTOMATIC1111's web UI reads them (modules/prompt_parser.py,
 * parse_prompt_attention; modules/sd_hijack_clip.py, process_tokens; modules/sd_emphasis.py, "Original"): phrases are
 * tokenized by themselves, their tokens fill chunks that the encoder reads one by one, and the layers' numbers are
 * multiplied by the weights, then all by what keeps their mean. Two things of it are left out: chunks are not ended early at
 * a comma, and BREAK is a word. T5 is read by the same rule, as Forge does it (backend/text_processing/t5_engine.py), in one chunk.
 */
#include "pipe/prompt.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CHUNKS = 32, MOST_BRACKETS = 256 };

/* ---- brackets ------------------------------------------------------------------------------------------------------- */

typedef struct parser {
    ay_ctx *cx;
    ay_arena *arena;
    ay_phrase *phrases;
    int n, cap;
    int open[2][MOST_BRACKETS], depth[2]; /* round, square: where their contents begin */
    ay_buf text;                          /* of the phrase being read */
    bool numbers;                         /* a weight is written as a number */
} parser;

static alloy_status end_phrase(parser *p) {
    if (!p->text.len) return ALLOY_OK;
    if (p->n == p->cap) {
        int cap = p->cap ? 2 * p->cap : 16;
        ay_phrase *grown = ay_alloc(p->arena, (size_t)cap * sizeof *grown);
        if (!grown) return ay_nomem(p->cx);
        if (p->n) memcpy(grown, p->phrases, (size_t)p->n * sizeof *grown);
        p->phrases = grown;
        p->cap = cap;
    }
    p->phrases[p->n] = (ay_phrase){ay_sprintf(p->arena, "%.*s", (int)p->text.len, p->text.data), 1};
    if (!p->phrases[p->n].text || p->text.failed) return ay_nomem(p->cx);
    p->n++;
    p->text.len = 0;
    return ALLOY_OK;
}

static alloy_status open_bracket(parser *p, int kind) {
    AY_TRY(end_phrase(p));
    if (p->depth[kind] == MOST_BRACKETS) {
        return ay_fail(p->cx, ALLOY_E_USAGE, "the prompt has more than %d brackets within each other; write \"\\(\" where one is meant as text",
                       MOST_BRACKETS);
    }
    p->open[kind][p->depth[kind]++] = p->n;
    return ALLOY_OK;
}

static alloy_status close_bracket(parser *p, int kind, double weight) {
    AY_TRY(end_phrase(p));
    for (int i = p->open[kind][--p->depth[kind]]; i < p->n; i++) p->phrases[i].weight *= weight;
    return ALLOY_OK;
}

/* ":1.2)" as a weight and its length; 0: it is none. */
static int read_weight(const char *s, double *weight) {
    char number[64];
    const char *p = s + 1 + strspn(s + 1, " \t\r\n");
    size_t sign = *p == '+' || *p == '-', n = sign + strspn(p + sign, "0123456789.");
    const char *end = p + n + strspn(p + n, " \t\r\n");
    char *stop;
    if (*end != ')' || n == sign || n >= sizeof number) return 0;
    memcpy(number, p, n);
    number[n] = 0;
    *weight = strtod(number, &stop);
    return *stop ? 0 : (int)(end + 1 - s);
}

static alloy_status parse(parser *p, const char *s) {
    static const double by[2] = {1.1, 1 / 1.1};
    double weight;
    int n;
    while (*s) {
        if (*s == '\\' && s[1] && strchr("()[]\\", s[1])) {
            ay_buf_add(&p->text, s + 1, 1);
            s += 2;
        } else if (*s == '(' || *s == '[') {
            AY_TRY(open_bracket(p, *s++ == '['));
        } else if (*s == ':' && p->depth[0] && (n = read_weight(s, &weight))) {
            AY_TRY(close_bracket(p, 0, weight));
            p->numbers = true;
            s += n;
        } else if ((*s == ')' && p->depth[0]) || (*s == ']' && p->depth[1])) {
            int kind = *s++ == ']';
            AY_TRY(close_bracket(p, kind, by[kind]));
        } else {
            ay_buf_add(&p->text, s++, 1);
        }
    }
    AY_TRY(end_phrase(p));
    for (int kind = 0; kind < 2; kind++) { /* what was never closed counts to the end */
        while (p->depth[kind]) AY_TRY(close_bracket(p, kind, by[kind]));
    }
    return ALLOY_OK;
}

/* Neighbours of one weight are one phrase: their words may belong together. */
static alloy_status merge(parser *p) {
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        if (n && p->phrases[n - 1].weight == p->phrases[i].weight) {
            char *joined = ay_sprintf(p->arena, "%s%s", p->phrases[n - 1].text, p->phrases[i].text);
            if (!joined) return ay_nomem(p->cx);
            p->phrases[n - 1].text = joined;
        } else {
            p->phrases[n++] = p->phrases[i];
        }
    }
    p->n = n;
    return ALLOY_OK;
}

static alloy_status phrases_of(ay_ctx *cx, const char *text, ay_arena *arena, ay_phrase **out, int *n, bool *numbers) {
    parser *p = calloc(1, sizeof *p);
    if (!p) return ay_nomem(cx);
    p->cx = cx;
    p->arena = arena;
    alloy_status st = parse(p, text);
    if (st == ALLOY_OK) st = merge(p);
    *out = p->phrases;
    *n = p->n;
    *numbers = p->numbers;
    ay_buf_free(&p->text);
    free(p);
    return st;
}

alloy_status ay_prompt_phrases(ay_ctx *cx, const char *text, ay_arena *arena, ay_phrase **out, int *n) {
    bool numbers;
    return phrases_of(cx, text, arena, out, n, &numbers);
}

/* ---- tokens --------------------------------------------------------------------------------------------------------- */

typedef struct tokens {
    ay_buf ids, weights; /* int32 and float, one of each a token */
} tokens;

static alloy_status add_phrase(ay_ctx *cx, const ay_tokenizer *t, const ay_phrase *phrase, tokens *all) {
    ay_encode_options o = {.max_length = INT32_MAX};
    int32_t *ids = NULL;
    int n = 0;
    AY_TRY(ay_tokenizer_encode(cx, t, phrase->text, strlen(phrase->text), &o, &ids, NULL, &n));
    float weight = (float)phrase->weight;
    ay_buf_add(&all->ids, ids, (size_t)n * sizeof *ids);
    for (int i = 0; i < n; i++) ay_buf_add(&all->weights, &weight, sizeof weight);
    free(ids);
    return all->ids.failed || all->weights.failed ? ay_nomem(cx) : ALLOY_OK;
}

/* Every chunk is what the tokenizer makes of an empty text, with tokens in between. */
static alloy_status fill_chunks(ay_ctx *cx, const ay_tokenizer *t, const tokens *all, int length, ay_arena *arena, ay_prompt *out) {
    ay_encode_options o = {.special = true, .max_length = length, .pad = true};
    int32_t *empty = NULL;
    int n = 0, total = (int)(all->ids.len / sizeof(int32_t)), room = length - 2;
    AY_TRY(ay_tokenizer_encode(cx, t, "", 0, &o, &empty, NULL, &n));
    out->ids = ay_alloc(arena, (size_t)(out->chunks * length) * sizeof *out->ids);
    out->weights = ay_alloc(arena, (size_t)(out->chunks * length) * sizeof *out->weights);
    alloy_status st = n != length ? ay_fail(cx, ALLOY_E_INTERNAL, "%d tokens where %d were asked for", n, length)
                      : out->ids && out->weights ? ALLOY_OK
                                                 : ay_nomem(cx);
    for (int c = 0; c < out->chunks && st == ALLOY_OK; c++) {
        int32_t *ids = out->ids + c * length;
        float *weights = out->weights + c * length;
        int have = (int)ay_max_i64(0, ay_min_i64(total - (int64_t)c * room, room));
        memcpy(ids, empty, (size_t)length * sizeof *ids);
        for (int i = 0; i < length; i++) weights[i] = 1;
        if (!have) continue;
        memcpy(ids + 1, (const int32_t *)(const void *)all->ids.data + (size_t)c * (size_t)room, (size_t)have * sizeof *ids);
        memcpy(weights + 1, (const float *)(const void *)all->weights.data + (size_t)c * (size_t)room, (size_t)have * sizeof *weights);
        ids[1 + have] = empty[1]; /* the closing token; then padding as in the empty text */
        for (int i = 0; i < have; i++) out->weighted |= weights[1 + i] != 1;
    }
    free(empty);
    return st;
}

static alloy_status read(ay_ctx *cx, const ay_tokenizer *t, const char *text, int length, int chunks, ay_arena *arena, tokens *all,
                         ay_prompt *out) {
    ay_phrase *phrases;
    int n;
    *out = (ay_prompt){0};
    if (length < 3) return ay_fail(cx, ALLOY_E_MISMATCH, "text of %d tokens has no room for words", length);
    AY_TRY(ay_prompt_phrases(cx, text, arena, &phrases, &n));
    for (int i = 0; i < n; i++) AY_TRY(add_phrase(cx, t, &phrases[i], all));
    int64_t total = (int64_t)(all->ids.len / sizeof(int32_t)), room = length - 2;
    if (total > room * MOST_CHUNKS) {
        return ay_fail(cx, ALLOY_E_USAGE, "the prompt has %lld tokens; at most %lld are read", (long long)total, (long long)(room * MOST_CHUNKS));
    }
    out->chunks = (int)ay_max_i64(chunks, ay_max_i64(1, (total + room - 1) / room));
    return fill_chunks(cx, t, all, length, arena, out);
}

alloy_status ay_prompt_read(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, int chunks, ay_arena *arena,
                            ay_prompt *out) {
    char *dir = ay_path_join(arena, m->dir, folder);
    ay_tokenizer *t = NULL;
    tokens all = {0};
    if (!dir) return ay_nomem(cx);
    AY_TRY(ay_tokenizer_open(cx, dir, &t));
    alloy_status st = read(cx, t, text, length, chunks, arena, &all, out);
    ay_tokenizer_close(&t);
    ay_buf_free(&all.ids);
    ay_buf_free(&all.weights);
    return st;
}

/* Phrases with weights in one chunk: what the tokenizer puts around an empty text, which ends in the closing token, with as
 * many tokens in between as there is room for. */
static alloy_status fill_one(ay_ctx *cx, const ay_tokenizer *t, const char *folder, const ay_phrase *phrases, int n, int length, ay_arena *arena,
                             tokens *all, ay_prompt *out) {
    const ay_encode_options bare = {.special = true, .max_length = length}, padded = {.special = true, .max_length = length, .pad = true};
    int32_t *ends = NULL, *empty = NULL;
    int around, filled = 0;
    for (int i = 0; i < n; i++) AY_TRY(add_phrase(cx, t, &phrases[i], all));
    AY_TRY(ay_tokenizer_encode(cx, t, "", 0, &bare, &ends, NULL, &around));
    free(ends);
    AY_TRY(ay_tokenizer_encode(cx, t, "", 0, &padded, &empty, NULL, &filled));
    out->ids = ay_alloc(arena, (size_t)length * sizeof *out->ids);
    out->weights = ay_alloc(arena, (size_t)length * sizeof *out->weights);
    alloy_status st = filled != length || around < 1 ? ay_fail(cx, ALLOY_E_MISMATCH, "%s: prompts with weights need a tokenizer that closes texts and fills them up", folder)
                      : out->ids && out->weights ? ALLOY_OK
                                                 : ay_nomem(cx);
    int total = (int)(all->ids.len / sizeof(int32_t)), have = total < length - around ? total : length - around, before = around - 1;
    if (st == ALLOY_OK) {
        memcpy(out->ids, empty, (size_t)length * sizeof *empty);
        for (int i = 0; i < length; i++) out->weights[i] = 1;
        if (have) memcpy(out->ids + before, all->ids.data, (size_t)have * sizeof *out->ids);
        if (have) memcpy(out->weights + before, all->weights.data, (size_t)have * sizeof *out->weights);
        out->ids[before + have] = empty[before];
        if (have < total) ay_log(cx, AY_LOG_INFO, "%s: the prompt has %d tokens, %d are read", folder, total, have);
    }
    free(empty);
    return st;
}

alloy_status ay_prompt_read_cut(ay_ctx *cx, const ay_model *m, const char *folder, const char *text, int length, bool numbers,
                                ay_arena *arena, ay_prompt *out) {
    ay_phrase *phrases = NULL;
    ay_tokenizer *t = NULL;
    tokens all = {0};
    int n = 0;
    bool found = false;
    *out = (ay_prompt){.chunks = 1};
    alloy_status st = phrases_of(cx, text, arena, &phrases, &n, &found);
    if (numbers && !found) return ay_tokenize(cx, m, folder, text, length, arena, &out->ids); /* however many brackets it has */
    AY_TRY(st);
    for (int i = 0; i < n; i++) out->weighted |= phrases[i].weight != 1;
    if (!out->weighted) return ay_tokenize(cx, m, folder, n ? phrases[0].text : "", length, arena, &out->ids);
    char *dir = ay_path_join(arena, m->dir, folder);
    if (!dir) return ay_nomem(cx);
    AY_TRY(ay_tokenizer_open(cx, dir, &t));
    st = fill_one(cx, t, folder, phrases, n, length, arena, &all, out);
    ay_tokenizer_close(&t);
    ay_buf_free(&all.ids);
    ay_buf_free(&all.weights);
    return st;
}

/* ---- weights --------------------------------------------------------------------------------------------------------- */

void ay_prompt_weigh(const float *weights, int64_t length, int64_t dim, float *hidden) {
    double before = 0, after = 0;
    for (int64_t i = 0; i < length * dim; i++) {
        before += hidden[i];
        hidden[i] *= weights[i / dim];
        after += hidden[i];
    }
    if (after == 0) return;
    float keep = (float)(before / after);
    for (int64_t i = 0; i < length * dim; i++) hidden[i] *= keep;
}
