/* SPDX-License-Identifier: MIT
 *
 * See support.h.
 */
#include "support.h"

#include "hashweights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ay_test_setup(void **state) {
    ay_test *t = calloc(1, sizeof *t);
    if (!t || ay_ctx_open(2, &t->cx) != ALLOY_OK || !(t->arena = ay_arena_new())) return -1;
    const char *tmp = getenv("TMPDIR");
    char *dir = ay_sprintf(t->arena, "%s/alloy-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    t->dir = dir ? mkdtemp(dir) : NULL;
    *state = t;
    return t->dir ? 0 : -1;
}

int ay_test_teardown(void **state) {
    ay_test *t = *state;
    alloy_status s = ay_remove_tree(t->cx, t->dir);
    if (s != ALLOY_OK) fprintf(stderr, "%s\n", ay_error_text(t->cx));
    ay_arena_free(t->arena);
    ay_ctx_close(&t->cx);
    free(t);
    return s == ALLOY_OK ? 0 : -1;
}

const char *ay_test_path(ay_test *t, const char *name) { return ay_path_join(t->arena, t->dir, name); }

static const char *root_path(ay_test *t, const char *name) {
    const char *root = getenv("ALLOY_ROOT");
    return ay_path_join(t->arena, root && *root ? root : ".", name);
}

const char *ay_test_golden(ay_test *t, const char *name) {
    return ay_path_join(t->arena, root_path(t, "tests/golden"), name);
}

const char *ay_test_shared(ay_test *t, const char *name) {
    const char *shared = getenv("ALLOY_SHARED");
    const char *path = ay_path_join(t->arena, shared && *shared ? shared : root_path(t, "../shared"), name);
    return ay_path_kind_of(path) == AY_PATH_NONE ? NULL : path;
}

void ay_test_skip(const char *why) {
    print_message("skipped: %s\n", why);
    skip();
}

void ay_test_write(ay_test *t, const char *path, const void *bytes, size_t n) {
    assert_ok(t->cx, ay_file_write(t->cx, path, bytes, n));
}

char *ay_test_read(ay_test *t, const char *path, size_t *n) {
    ay_buf b = {0};
    assert_ok(t->cx, ay_file_read(t->cx, path, (size_t)1 << 30, &b));
    char *copy = ay_strndup(t->arena, b.data, b.len);
    if (n) *n = b.len;
    ay_buf_free(&b);
    return copy;
}

uint64_t ay_test_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

float ay_test_uniform(uint64_t *state) { return (float)(ay_test_random(state) >> 40) * 0x1p-23f - 1.0f; }

uint64_t ay_test_digest(uint64_t h, const void *words, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, (const unsigned char *)words + i * 4, 4);
        h += ay_splitmix64((uint64_t)i << 32 | w);
    }
    return ay_splitmix64(h + n);
}

void ay_assert_status(ay_ctx *cx, alloy_status got, alloy_status want, const char *part, const char *file, int line) {
    const char *text = ay_error_text(cx);
    if (got != want) {
        print_error("status %d where %d was expected: %s\n", got, want, got == ALLOY_OK ? "(it went well)" : text);
        _fail(file, line);
    }
    if (part) ay_assert_contains(text, part, file, line);
}

void ay_assert_contains(const char *text, const char *part, const char *file, int line) {
    if (text && strstr(text, part)) return;
    print_error("\"%s\"\n   does not contain \"%s\"\n", text ? text : "(null)", part);
    _fail(file, line);
}
