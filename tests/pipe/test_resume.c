/* SPDX-License-Identifier: MIT
 *
 * A conversion that was ended goes on after the last whole tensor and gives the bytes of one that was not: wherever it
 * ended, whatever became of its work folder, and only with the settings and the checkpoint it was begun with.
 */
#include "../support/flux_case.h"
#include "pipe/convert_journal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct run {
    alloy_ctx *cx;
    int stop_at, calls; /* of progress; 0: never */
    char said[400];     /* of going on or starting over */
} run;

static void progress(void *user, const char *stage, double done, double total) {
    run *r = user;
    if (++r->calls >= r->stop_at && r->stop_at) alloy_stop(r->cx);
}

static void listen(void *user, alloy_log_level level, const char *text) {
    run *r = user;
    if (strstr(text, "resuming after") || strstr(text, "starting over")) snprintf(r->said, sizeof r->said, "%s", text);
}

static alloy_status convert(ay_test *t, const char *source, const alloy_convert_options *o, int stop_at, run *r) {
    alloy_ctx_options co;
    *r = (run){.stop_at = stop_at};
    alloy_ctx_options_init(&co);
    co.progress = progress;
    co.log = listen;
    co.user = r;
    co.threads = 2;
    assert_int_equal(alloy_ctx_open(&co, &r->cx), ALLOY_OK);
    alloy_status st = alloy_convert(r->cx, source, o);
    if (st != ALLOY_OK && st != ALLOY_E_CANCELLED) print_message("%s\n", alloy_error(r->cx));
    alloy_ctx_close(&r->cx);
    return st;
}

static void options(ay_test *t, const char *name, const char *quantization, alloy_convert_options *o) {
    alloy_convert_options_init(o);
    o->output_dir = ay_test_path(t, "out");
    o->name = name;
    o->quantization = quantization;
    o->image_size = (alloy_size){32, 32};
    o->text_length = 8;
    o->components = "TextEncoder,TextEncoder2,Transformer";
    o->force = true;
}

/* Every file of both folders has the same bytes, but for the model's name in alloy.json. */
static void same_folder(ay_test *t, const char *a, const char *b) {
    char **x, **y;
    int n, m;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, a, &x, &n));
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, b, &y, &m));
    assert_int_equal(n, m);
    for (int i = 0; i < n; i++) {
        assert_string_equal(x[i], y[i]);
        const char *p = ay_test_join(t, a, x[i]), *q = ay_test_join(t, b, y[i]);
        if (ay_path_kind_of(p) == AY_PATH_DIR) {
            same_folder(t, p, q);
            continue;
        }
        size_t s, u;
        char *c = ay_test_read(t, p, &s), *d = ay_test_read(t, q, &u);
        if (strcmp(x[i], "alloy.json") == 0) {
            char *name = strstr(d, "\"name\": \"x\"");
            assert_non_null(name);
            memcpy(name, "\"name\": \"r\"", 11);
        }
        if (s != u || memcmp(c, d, s) != 0) fail_msg("%s and %s differ", p, q);
    }
}

static const char *work(ay_test *t) { return ay_test_path(t, "out/x.partial"); }

static void test_stopped_anywhere(void **state) {
    static const char *const kinds[] = {"int4", "float16"};
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    alloy_convert_options o;
    run r;
    for (int k = 0; k < 2; k++) {
        options(t, "r", kinds[k], &o);
        assert_int_equal(convert(t, source, &o, 0, &r), ALLOY_OK);
        o.name = "x";
        int resumed = 0;
        for (int at = 1, st = ALLOY_E_CANCELLED; st != ALLOY_OK; at += 37) { /* each goes on where the one before was stopped */
            st = (int)convert(t, source, &o, at % 60 + 1, &r);
            resumed += strstr(r.said, "resuming") != NULL;
            assert_true(st == ALLOY_OK || st == ALLOY_E_CANCELLED);
            assert_null(strstr(r.said, "starting over"));
            assert_true(at < 37 * 200);
        }
        assert_true(resumed > 3);
        assert_int_equal(ay_path_kind_of(work(t)), AY_PATH_NONE);
        same_folder(t, ay_test_path(t, "out/r"), ay_test_path(t, "out/x"));
    }
}

/* ---- damage ----------------------------------------------------------------------------------------------------------- */

static const char *weights(ay_test *t, const char *package) {
    return ay_sprintf(t->arena, "%s/%s.mlpackage/Data/com.apple.CoreML/weights/weight.bin", work(t), package);
}

static void flip(ay_test *t, const char *path, double where) {
    size_t n;
    char *bytes = ay_test_read(t, path, &n);
    bytes[(size_t)(where * (double)(n - 1))] ^= 4;
    ay_test_write(t, path, bytes, n);
}

static void cut(ay_test *t, const char *path, double where) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, (off_t)(where * (double)st.st_size)), 0);
}

static void flip_weights(ay_test *t) { flip(t, weights(t, "Transformer"), 0.5); }
static void flip_first(ay_test *t) { flip(t, weights(t, "TextEncoder"), 0.01); }
static void cut_weights(ay_test *t) { cut(t, weights(t, "Transformer"), 0.4); }
static void no_weights(ay_test *t) { assert_int_equal(unlink(weights(t, "TextEncoder2")), 0); }
static void longer_weights(ay_test *t) {
    size_t n;
    const char *path = weights(t, "Transformer");
    char *bytes = ay_test_read(t, path, &n), *more = ay_alloc(t->arena, n + 5000);
    memcpy(more, bytes, n);
    ay_test_write(t, path, more, n + 5000);
}
static void flip_journal(ay_test *t) { flip(t, ay_test_join(t, work(t), "journal"), 0.7); }
static void cut_journal(ay_test *t) { cut(t, ay_test_join(t, work(t), "journal"), 0.6); }
static void no_journal(ay_test *t) { assert_int_equal(unlink(ay_test_join(t, work(t), "journal")), 0); }
static void empty_journal(ay_test *t) { cut(t, ay_test_join(t, work(t), "journal"), 0); }
static void linked_weights(ay_test *t) {
    const char *path = weights(t, "Transformer"), *other = ay_test_path(t, "elsewhere");
    size_t n;
    char *bytes = ay_test_read(t, path, &n);
    ay_test_write(t, other, bytes, n);
    assert_int_equal(unlink(path), 0);
    ay_test_write(t, ay_test_path(t, "before"), bytes, n);
    assert_int_equal(symlink(other, path), 0);
}
static void rubbish(ay_test *t) {
    assert_ok(t->cx, ay_mkdirs(t->cx, ay_test_join(t, work(t), "VAEDecoder.mlpackage/Data")));
    ay_test_write(t, ay_test_join(t, work(t), "alloy.json"), "{", 1);
}
static void nothing(ay_test *t) {}

static void test_damaged_work(void **state) {
    static const struct {
        void (*damage)(ay_test *t);
        bool resumes;
    } cases[] = {{nothing, true},      {flip_weights, true}, {flip_first, false}, {cut_weights, true},  {no_weights, true}, {longer_weights, true},
                 {flip_journal, true}, {cut_journal, true},  {no_journal, false}, {empty_journal, false}, {linked_weights, true}, {rubbish, true}};
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]);
    alloy_convert_options o;
    run r;
    options(t, "r", "int4", &o);
    assert_int_equal(convert(t, source, &o, 0, &r), ALLOY_OK);
    int most = r.calls * 3 / 5;
    o.name = "x";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(convert(t, source, &o, most, &r), ALLOY_E_CANCELLED);
        assert_int_equal(ay_path_kind_of(weights(t, "Transformer")), AY_PATH_FILE);
        cases[i].damage(t);
        assert_int_equal(convert(t, source, &o, 0, &r), ALLOY_OK);
        if (!strstr(r.said, cases[i].resumes ? "resuming after" : "starting over")) fail_msg("case %zu: said \"%s\"", i, r.said);
        same_folder(t, ay_test_path(t, "out/r"), ay_test_path(t, "out/x"));
    }
    size_t n, m;
    char *after = ay_test_read(t, ay_test_path(t, "elsewhere"), &n), *before = ay_test_read(t, ay_test_path(t, "before"), &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n); /* nothing was written through the link */
}

/* ---- what it belongs to ------------------------------------------------------------------------------------------------ */

static void test_other_settings(void **state) {
    ay_test *t = *state;
    const char *source = ay_flux_checkpoint(t, &ay_flux_cases[0]), *file = ay_test_join(t, source, "transformer/diffusion_pytorch_model.safetensors");
    alloy_convert_options o;
    run r;
    for (int i = 0; i < 7; i++) {
        options(t, "x", "int8", &o);
        assert_int_equal(convert(t, source, &o, 60, &r), ALLOY_E_CANCELLED);
        if (i == 1) o.quantization = "int4";
        if (i == 2) o.target = "macos15";
        if (i == 3) o.components = "TextEncoder,TextEncoder2";
        if (i == 4) o.image_size.width = 48;
        if (i == 5) o.text_length = 9;
        if (i == 6) {
            size_t n;
            char *bytes = ay_test_read(t, file, &n); /* the same header, another number */
            bytes[n - 1] ^= 1;
            usleep(20000);
            ay_test_write(t, file, bytes, n);
        }
        assert_int_equal(convert(t, source, &o, 0, &r), ALLOY_OK);
        assert_contains(r.said, i == 0 ? "resuming after" : "of other settings, another source or another version; starting over");
        int findings;
        assert_ok(t->cx, alloy_validate(t->cx, ay_test_path(t, "out/x"), NULL, NULL, &findings));
        assert_int_equal(findings, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {AY_TEST(test_stopped_anywhere), AY_TEST(test_damaged_work), AY_TEST(test_other_settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
