/* SPDX-License-Identifier: MIT
 *
 * JSON over jansson. A scan before the parser bounds the nesting; duplicate keys are refused; integers beyond 64 bits and
 * text that is not UTF-8 are refused by jansson. The typed members turn "what a config says" into a number in a known
 * range or one sentence that names the file and the key.
 */
#include "io/io_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_BYTES = 1 << 28 }; /* config and tokenizer files are a few levels deep and a few ten MB large */

/* The first place where the nesting exceeds MAX_DEPTH; -1 if there is none. Strings are skipped, nothing else is judged. */
static ptrdiff_t too_deep(const char *s, size_t n) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') in_string = true;
        else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return (ptrdiff_t)i;
        } else if (c == '}' || c == ']') depth--;
    }
    return -1;
}

static void line_and_column(const char *s, size_t at, int *line, int *column) {
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (s[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)s[i] & 0xc0) != 0x80) ++*column; /* characters, not bytes */
    }
}

/* Text out of a file for a sentence: control characters and broken ends replaced. Returns `out`. */
const char *ay_show(const char *s, char *out, size_t size) {
    size_t n = 0;
    for (; s[n] && n + 4 < size; n++) out[n] = (unsigned char)s[n] < 32 || s[n] == 127 ? '?' : s[n];
    if (s[n]) {
        while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80) n--; /* not in the middle of a character */
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n] = 0;
    return out;
}

alloy_status ay_json_parse(ay_ctx *cx, const char *what, const char *text, size_t n, json_t **out) {
    *out = NULL;
    char show[160];
    if (n > MAX_BYTES)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: %zu bytes are too many for JSON (at most %d)", what, n, MAX_BYTES);
    if (n == 0) return ay_fail(cx, ALLOY_E_FORMAT, "%s: is empty where JSON was expected", what);
    int line, column;
    ptrdiff_t deep = too_deep(text, n);
    if (deep >= 0) {
        line_and_column(text, (size_t)deep, &line, &column);
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: line %d, column %d: JSON nested more than %d deep", what, line, column,
                       MAX_DEPTH);
    }
    json_error_t err;
    errno = 0;
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &err);
    /* jansson takes a failed allocation for bad syntax or leaves a character out, unsaid; malloc leaves its word in errno */
    if (errno == ENOMEM || (!*out && json_error_code(&err) == json_error_out_of_memory)) {
        json_decref(*out);
        *out = NULL;
        return ay_nomem(cx);
    }
    if (*out) return ALLOY_OK;
    size_t at = err.position > 0 && (size_t)err.position <= n ? (size_t)err.position : 0;
    line_and_column(text, at ? at - 1 : 0, &line, &column); /* jansson stands behind what it refuses */
    return ay_fail(cx, ALLOY_E_FORMAT, "%s: line %d, column %d: not valid JSON: %s", what, line, column,
                   ay_show(err.text, show, sizeof show));
}

/* Python's json module writes infinite numbers as words that JSON has not (a scheduler's "lambda_min_clipped": -Infinity):
 * no bound, which is what null says. In place, so that lines and columns stay. */
static void infinite_to_null(char *s, size_t n) {
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string && s[i] == '\\') i++;
        else if (s[i] == '"') in_string = !in_string;
        else if (!in_string && (s[i] == '-' || s[i] == 'I')) {
            size_t sign = s[i] == '-', length = sign + 8;
            if (n - i < length || memcmp(s + i + sign, "Infinity", 8) != 0) continue;
            memcpy(s + i, "null     ", length);
            i += length - 1;
        }
    }
}

alloy_status ay_json_read(ay_ctx *cx, const char *path, json_t **out) {
    ay_buf b = {0};
    *out = NULL;
    alloy_status s = ay_file_read(cx, path, MAX_BYTES, &b);
    if (s == ALLOY_OK) infinite_to_null(b.data, b.len);
    if (s == ALLOY_OK) s = ay_json_parse(cx, path, b.data, b.len, out);
    ay_buf_free(&b);
    return s;
}

static int add_text(const char *bytes, size_t n, void *buf) {
    ay_buf_add(buf, bytes, n);
    return ((ay_buf *)buf)->failed ? -1 : 0;
}

alloy_status ay_json_write(ay_ctx *cx, const char *path, const json_t *v) {
    ay_buf b = {0};
    errno = 0;
    int rc = json_dump_callback(v, add_text, &b, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY);
    ay_buf_add(&b, "\n", 1);
    alloy_status s;
    if (b.failed || (rc != 0 && errno == ENOMEM)) s = ay_nomem(cx);
    else if (rc != 0) s = ay_fail(cx, ALLOY_E_INTERNAL, "%s: a value cannot be written as JSON", path);
    else s = ay_file_write(cx, path, b.data, b.len);
    ay_buf_free(&b);
    return s;
}

/* Length of the UTF-8 character at `s`, 0 if there is none: no overlong forms, surrogates or numbers past 0x10ffff. */
static int utf8_length(const unsigned char *s) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (n < 2) return n;
    uint32_t c = s[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

char *ay_utf8(ay_arena *a, const char *s) {
    ay_buf b = {0};
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        int n = utf8_length(p);
        ay_buf_add(&b, n ? (const char *)p : "\xef\xbf\xbd", n ? (size_t)n : 3);
        p += n ? n : 1;
    }
    char *text = b.failed ? NULL : ay_strndup(a, b.data ? b.data : "", b.len);
    ay_buf_free(&b);
    return text;
}

json_t *ay_json_text(const char *s) {
    json_t *v = json_string(s);
    if (v || !s) return v;
    ay_arena *a = ay_arena_new();
    char *text = a ? ay_utf8(a, s) : NULL;
    v = text ? json_string(text) : NULL;
    ay_arena_free(a);
    return v;
}

/* ---- typed members ------------------------------------------------------------------------------------------------- */

static const char *type_name(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "text";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE: return "true or false";
    default: return "null";
    }
}

/* The member, NULL when it is missing or null. */
static json_t *member(const json_t *obj, const char *key) {
    json_t *v = json_object_get(obj, key); /* NULL also where obj is no object */
    return v && !json_is_null(v) ? v : NULL;
}

static alloy_status missing(ay_ctx *cx, const char *what, const json_t *obj, const char *key, const char *expected) {
    if (!json_is_object(obj))
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: %s was found where an object with the key \"%s\" was expected", what,
                       obj ? type_name(obj) : "nothing", key);
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: the key \"%s\" is missing; %s was expected", what, key, expected);
}

static alloy_status wrong_type(ay_ctx *cx, const char *what, const char *key, const json_t *v, const char *expected) {
    return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %s; %s was expected", what, key, type_name(v), expected);
}

static alloy_status take_int(ay_ctx *cx, const char *what, const char *key, const json_t *v, int64_t lo, int64_t hi,
                             int64_t *out) {
    if (!json_is_integer(v)) return wrong_type(cx, what, key, v, "an integer");
    int64_t x = json_integer_value(v);
    if (x < lo || x > hi)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %lld; from %lld to %lld was expected", what, key, (long long)x,
                       (long long)lo, (long long)hi);
    *out = x;
    return ALLOY_OK;
}

alloy_status ay_json_int(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi,
                         int64_t *out) {
    json_t *v = member(obj, key);
    return v ? take_int(cx, what, key, v, lo, hi, out) : missing(cx, what, obj, key, "an integer");
}

alloy_status ay_json_int_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi,
                            int64_t dflt, int64_t *out) {
    json_t *v = member(obj, key);
    *out = dflt;
    return v ? take_int(cx, what, key, v, lo, hi, out) : ALLOY_OK;
}

alloy_status ay_json_num_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, double lo, double hi,
                            double dflt, double *out) {
    json_t *v = member(obj, key);
    *out = dflt;
    if (!v) return ALLOY_OK;
    if (!json_is_number(v)) return wrong_type(cx, what, key, v, "a number");
    double x = json_number_value(v);
    if (!(x >= lo && x <= hi))
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" is %g; from %g to %g was expected", what, key, x, lo, hi);
    *out = x;
    return ALLOY_OK;
}

alloy_status ay_json_bool_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, bool dflt, bool *out) {
    json_t *v = member(obj, key);
    *out = dflt;
    if (!v) return ALLOY_OK;
    if (!json_is_boolean(v)) return wrong_type(cx, what, key, v, "true or false");
    *out = json_is_true(v);
    return ALLOY_OK;
}

alloy_status ay_json_str(ay_ctx *cx, const char *what, const json_t *obj, const char *key, const char **out) {
    json_t *v = member(obj, key);
    if (!v) return missing(cx, what, obj, key, "text");
    if (!json_is_string(v)) return wrong_type(cx, what, key, v, "text");
    *out = json_string_value(v);
    return ALLOY_OK;
}

alloy_status ay_json_str_or(ay_ctx *cx, const char *what, const json_t *obj, const char *key, const char *dflt,
                            const char **out) {
    *out = dflt;
    return member(obj, key) ? ay_json_str(cx, what, obj, key, out) : ALLOY_OK;
}

alloy_status ay_json_ints(ay_ctx *cx, const char *what, const json_t *obj, const char *key, int64_t lo, int64_t hi, int max,
                          int64_t *out, int *n) {
    *n = 0;
    json_t *v = member(obj, key);
    if (!v) return missing(cx, what, obj, key, "a list of integers");
    if (!json_is_array(v)) return wrong_type(cx, what, key, v, "a list of integers");
    size_t len = json_array_size(v);
    if (len > (size_t)max)
        return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" has %zu items; at most %d are allowed", what, key, len, max);
    for (size_t i = 0; i < len; i++) AY_TRY(take_int(cx, what, key, json_array_get(v, i), lo, hi, &out[i]));
    *n = (int)len;
    return ALLOY_OK;
}
