/* SPDX-License-Identifier: MIT
 *
 * What test programs share: a context with a folder of its own that vanishes afterwards, golden files, data that may be
 * absent, and checks that show the sentence when a call went otherwise than expected.
 */
#ifndef AY_TEST_SUPPORT_H
#define AY_TEST_SUPPORT_H

/* cmocka wants these first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/fs.h"

/** One test's surroundings: `*state` of a cmocka test that uses ay_test_setup and ay_test_teardown. */
typedef struct ay_test {
    ay_ctx *cx;
    ay_arena *arena;
    const char *dir; /* a fresh folder under TMPDIR */
} ay_test;
int ay_test_setup(void **state);
int ay_test_teardown(void **state);
#define AY_TEST(f) cmocka_unit_test_setup_teardown(f, ay_test_setup, ay_test_teardown)

/** dir/name of this test's folder. */
const char *ay_test_path(ay_test *t, const char *name);
/** tests/golden/NAME; tests run in the repository's root, or where ALLOY_ROOT says that it is. */
const char *ay_test_golden(ay_test *t, const char *name);
/** NAME in the folder of outside data (ALLOY_SHARED, else ../shared beside the repository); NULL if it is not there. */
const char *ay_test_shared(ay_test *t, const char *name);
/** Ends this test as skipped, with a word. */
void ay_test_skip(const char *why);

void ay_test_write(ay_test *t, const char *path, const void *bytes, size_t n);
char *ay_test_read(ay_test *t, const char *path, size_t *n); /* in the arena, NUL-terminated; n may be NULL */

/** The same numbers on every machine: xorshift over a state that must not be 0. */
uint64_t ay_test_random(uint64_t *state);
/** Uniform in [-1, 1). */
float ay_test_uniform(uint64_t *state);
/** An order-dependent sum of hashes of 32-bit words, to begin with 0; `digest` in tests/reference/hashweights.py. */
uint64_t ay_test_digest(uint64_t h, const void *words, size_t n);

#define assert_ok(cx, call) ay_assert_status(cx, call, ALLOY_OK, NULL, __FILE__, __LINE__)
/** The call fails with this status and a sentence that contains `part`. */
#define assert_fails(cx, call, status, part) ay_assert_status(cx, call, status, part, __FILE__, __LINE__)
void ay_assert_status(ay_ctx *cx, alloy_status got, alloy_status want, const char *part, const char *file, int line);
#define assert_contains(text, part) ay_assert_contains(text, part, __FILE__, __LINE__)
void ay_assert_contains(const char *text, const char *part, const char *file, int line);

#endif
