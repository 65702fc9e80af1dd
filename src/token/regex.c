/* SPDX-License-Identifier: MIT
 *
 * Regular expressions of tokenizer files, over PCRE2 (theirs are Oniguruma's; on the patterns that models use both agree,
 * which the tests show). The compiled pattern lives in the tokenizer's arena; matching is bounded, so that a hostile
 * pattern ends in a sentence and not in a day's work.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "token/tok.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERN = 4000, MAX_NEST = 40, MATCH_LIMIT = 2000000, HEAP_LIMIT_KB = 65536 };

struct ay_regex {
    const char *pattern;
    pcre2_code *code;
    pcre2_match_context *limits;
};

static void *arena_alloc(size_t bytes, void *arena) { return ay_alloc(arena, bytes); }
static void arena_free(void *p, void *arena) { (void)p, (void)arena; }

alloy_status ay_regex_new(ay_load *ld, const char *pattern, ay_regex **out) {
    *out = NULL;
    if (strlen(pattern) > MAX_PATTERN)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: a regular expression of %zu bytes; at most %d are taken", ld->what,
                       strlen(pattern), MAX_PATTERN);
    ay_regex *re = ay_alloc(ld->arena, sizeof *re);
    char *copy = ay_strdup(ld->arena, pattern);
    pcre2_general_context *memory = pcre2_general_context_create(arena_alloc, arena_free, ld->arena);
    pcre2_compile_context *rules = memory ? pcre2_compile_context_create(memory) : NULL;
    if (!re || !copy || !rules) return ay_nomem(ld->cx);
    pcre2_set_parens_nest_limit(rules, MAX_NEST);
    int error;
    size_t at;
    re->pattern = copy;
    re->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK, &error, &at, rules);
    if (!re->code) {
        if (error == PCRE2_ERROR_HEAP_FAILED) return ay_nomem(ld->cx);
        PCRE2_UCHAR why[128] = "";
        pcre2_get_error_message(error, why, sizeof why);
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the regular expression %.80s cannot be used: %s (at %zu)",
                       ld->what, pattern, (const char *)why, at);
    }
    uint32_t empty = 0;
    pcre2_pattern_info(re->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty)
        return ay_fail(ld->cx, ALLOY_E_UNSUPPORTED, "%s: the regular expression %.80s matches nothing at all, which would "
                       "split text everywhere", ld->what, pattern);
    re->limits = pcre2_match_context_create(memory);
    if (!re->limits) return ay_nomem(ld->cx);
    pcre2_set_match_limit(re->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(re->limits, HEAP_LIMIT_KB);
    *out = re;
    return ALLOY_OK;
}

alloy_status ay_regex_parts(ay_ctx *cx, const ay_regex *re, const char *s, size_t n, ay_part_fn part, void *user) {
    if (n == 0) return ALLOY_OK;
    ay_scratch copy = {0};
    const char *text = ay_known_kinds(s, n, &copy);
    pcre2_match_data *found = text ? pcre2_match_data_create(1, NULL) : NULL; /* groups are of no interest */
    alloy_status st = found ? ALLOY_OK : ay_nomem(cx);
    size_t at = 0;
    bool more = true;
    while (st == ALLOY_OK && more && at < n) {
        int rc = pcre2_match(re->code, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, found, re->limits);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            st = ay_fail(cx, rc == PCRE2_ERROR_NOMEMORY ? ALLOY_E_NOMEM : ALLOY_E_UNSUPPORTED,
                         "the regular expression %.80s gave up on this text (PCRE2 error %d)", re->pattern, rc);
            break;
        }
        const size_t *span = pcre2_get_ovector_pointer(found);
        size_t begin = span[0], end = span[1];
        if (begin < at || end <= begin) { /* \K and lookbehind can move the beginning */
            st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "the regular expression %.80s matches backwards", re->pattern);
            break;
        }
        if (begin > at) more = part(user, at, begin, false);
        if (more) more = part(user, begin, end, true);
        at = end;
    }
    if (st == ALLOY_OK && more && at < n) part(user, at, n, false);
    pcre2_match_data_free(found);
    free(copy.p);
    return st;
}
