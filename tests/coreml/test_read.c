/* SPDX-License-Identifier: MIT
 *
 * Reading packages that alloy did not write: each program of tests/golden/mlprograms (made by coremltools) and of the
 * outside packages is read, evaluated, and held against what torch computed (tests/reference/mlprograms.py); and what is
 * broken or not supported gives one sentence.
 */
#include "../support/support.h"

#include "coreml/coreml.h"
#include "cpu/cpu.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- golden lines ------------------------------------------------------------------------------------------------ */

enum { MAX_TENSORS = 96, SAMPLES = 24 };

typedef struct wanted {
    char name[80];
    ay_type type;
    double norm, projection[2], sample[SAMPLES];
    int n_samples;
} wanted;

typedef struct program {
    char name[80];
    int n_in, n_out;
    wanted in[16], out[MAX_TENSORS];
} program;

static uint64_t mix(uint64_t z) { /* splitmix64 of a counter */
    z *= 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t name_seed(const char *name) {
    uint64_t h = 1469598103934665603u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h;
}

static const char *word(const char *s, char *out, size_t cap) {
    size_t n = 0;
    while (*s == ' ') s++;
    for (; *s && *s != ' ' && *s != '\n'; s++)
        if (n + 1 < cap) out[n++] = *s;
    out[n] = 0;
    return s;
}

/** "NAME kind dims" after the first word. */
static const char *read_type(const char *s, wanted *w) {
    char kind[16], dims[80];
    s = word(s, w->name, sizeof w->name);
    s = word(s, kind, sizeof kind);
    s = word(s, dims, sizeof dims);
    w->type = (ay_type){.dtype = strcmp(kind, "f16") == 0 ? AY_F16 : strcmp(kind, "i32") == 0 ? AY_I32 : AY_F32};
    for (const char *d = dims; isdigit((unsigned char)*d);) {
        char *end;
        w->type.dim[w->type.rank++] = strtoll(d, &end, 10);
        d = *end == ',' ? end + 1 : end;
    }
    return s;
}

static void read_output(const char *s, wanted *w) {
    char *end;
    s = read_type(s, w);
    w->norm = strtod(s, &end);
    w->projection[0] = strtod(end, &end);
    w->projection[1] = strtod(end, &end);
    s = strchr(end, ':') + 1;
    while (w->n_samples < SAMPLES) {
        double v = strtod(s, &end);
        if (end == s) break;
        w->sample[w->n_samples++] = v;
        s = end;
        if (*s == '\n') break;
    }
}

/** The next program of a golden file; false at its end. */
static bool next_program(const char **text, program *p) {
    *p = (program){0};
    const char *s = *text;
    while (*s) {
        const char *line = s, *end = strchr(s, '\n');
        if (strncmp(line, "package ", 8) == 0) {
            if (p->name[0]) break;
            word(line + 8, p->name, sizeof p->name);
        } else if (strncmp(line, "input ", 6) == 0) {
            assert_true(p->n_in < 16);
            read_type(line + 6, &p->in[p->n_in++]);
        } else if (strncmp(line, "output ", 7) == 0) {
            assert_true(p->n_out < MAX_TENSORS);
            read_output(line + 7, &p->out[p->n_out++]);
        }
        s = end ? end + 1 : s + strlen(s);
    }
    *text = s;
    return p->name[0] != 0;
}

/** The numbers of an input: int32 1 .. 9, or multiples of 1/1024 in [-2, 2); [1/16, 2) for one called p. */
static void *draw(ay_arena *a, const wanted *w, ay_dtype dtype) {
    int64_t n = ay_type_count(&w->type);
    float *f = ay_alloc(a, (size_t)n * sizeof *f);
    uint64_t seed = name_seed(w->name);
    for (int64_t i = 0; i < n; i++) {
        uint64_t b = mix(seed + (uint64_t)i);
        if (w->type.dtype == AY_I32) f[i] = (float)(b % 9 + 1);
        else f[i] = (float)(b >> 52) / 1024 - 2;
        if (strcmp(w->name, "p") == 0) f[i] = fmaxf(fabsf(f[i]), 1 / 16.0f);
    }
    void *out = ay_alloc(a, ay_dtype_bytes(dtype, n));
    ay_convert_from_f32(dtype, f, n, out);
    return out;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static int bad;

static void check(const program *p, const wanted *w, const float *y, const char *how, double tol) {
    int64_t n = ay_type_count(&w->type), step = ay_max_i64(1, n / SAMPLES);
    double least = tol * fmax(w->norm, 1e-3), sum[2] = {0};
    if (w->type.dtype == AY_I32) least = 0;
    for (int k = 0; k < w->n_samples; k++) {
        double got = y[k * step], want = w->sample[k];
        bool same = isnan(want) ? isnan(got) : got == want || fabs(got - want) <= least + tol * fabs(want);
        if (same) continue;
        if (bad++ < 20)
            print_error("%s %s, output %s[%lld]: found %.9g, expected %.9g\n", how, p->name, w->name,
                        (long long)(k * step), got, want);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) {
            double weight = (double)(mix(name_seed(w->name) + (uint64_t)k + 1 + (uint64_t)i) >> 40) / (1 << 23) - 1;
            if (!isnan(y[i])) sum[k] += y[i] * weight / (double)n;
        }
    for (int k = 0; k < 2; k++)
        if (!(fabs(sum[k] - w->projection[k]) <= fmax(least, tol * fmax(w->norm, 1e-3))) && bad++ < 20)
            print_error("%s %s, output %s: projection %d is %.9g, expected %.9g\n", how, p->name, w->name, k, sum[k],
                        w->projection[k]);
}

/** Reads the package as a graph; one whose shapes hang on integer inputs gets their numbers. */
static ay_graph *read_graph(ay_test *t, ay_package *pkg, const ay_tensor *in, int n_in) {
    ay_graph *g = NULL;
    alloy_status st = ay_package_graph(pkg, NULL, &g);
    if (st == ALLOY_E_UNSUPPORTED && strstr(ay_error_text(t->cx), "known only when"))
        st = ay_package_graph_known(pkg, NULL, in, n_in, &g);
    if (st) print_error("%s\n", ay_error_text(t->cx));
    assert_int_equal(st, ALLOY_OK);
    assert_ok(t->cx, ay_graph_verify(g));
    return g;
}

/** Half-precision weights that are stored compressed: the engine multiplies codes and scales in float32, where a constant of
 *  the program is rounded to half first (so says its type). */
static bool rounds_weights(const ay_graph *g) {
    for (int i = 0; i < g->n_nodes; i++) {
        const ay_node *n = &g->nodes[i];
        if (n->op == AY_OP_PARAM && n->weight->store != AY_STORE_PLAIN && n->weight->value_dtype == AY_F16) return true;
    }
    return false;
}

static void run_program(ay_test *t, const char *path, const program *p, double tol) {
    ay_package *pkg;
    ay_tensor in[16], out[MAX_TENSORS];
    assert_ok(t->cx, ay_package_open(t->cx, path, &pkg));
    for (int i = 0; i < p->n_in; i++)
        in[i] = (ay_tensor){p->in[i].name, p->in[i].type, draw(t->arena, &p->in[i], p->in[i].type.dtype)};
    ay_graph *g = read_graph(t, pkg, in, p->n_in);
    assert_int_equal(g->n_outputs, p->n_out);
    for (int i = 0; i < p->n_out; i++) {
        const ay_type *got = ay_type_of(g, g->outputs[i].value);
        assert_string_equal(g->outputs[i].name, p->out[i].name);
        if (!ay_type_equal(got, &p->out[i].type)) {
            char a[160], b[160];
            print_error("%s, output %s is %s, expected %s\n", p->name, p->out[i].name, ay_type_text(got, a),
                        ay_type_text(&p->out[i].type, b));
            bad++;
        }
        out[i] = (ay_tensor){p->out[i].name, p->out[i].type, NULL};
        out[i].type.dtype = AY_F32;
        out[i].data = ay_alloc(t->arena, (size_t)ay_type_count(&out[i].type) * 4);
    }
    assert_ok(t->cx, ay_eval(g, in, p->n_in, out, p->n_out, false, NULL));
    for (int i = 0; i < p->n_out; i++) check(p, &p->out[i], out[i].data, "evaluated", tol);
    ay_program *prog;
    assert_ok(t->cx, ay_cpu_compile(t->cx, g, NULL, &prog));
    for (int i = 0; i < p->n_out; i++) memset(out[i].data, 0xff, (size_t)ay_type_count(&out[i].type) * 4);
    assert_ok(t->cx, ay_program_run(t->cx, prog, in, p->n_in, out, p->n_out));
    for (int i = 0; i < p->n_out; i++) check(p, &p->out[i], out[i].data, "compiled", rounds_weights(g) ? 2e-3 : tol);
    ay_program_free(&prog);
    ay_graph_free(g);
    ay_package_close(&pkg);
}

static int run_file(ay_test *t, const char *golden, const char *folder) {
    const char *text = ay_test_read(t, ay_test_golden(t, golden), NULL);
    static program p;
    int n = 0;
    bad = 0;
    for (; next_program(&text, &p); n++) run_program(t, ay_sprintf(t->arena, "%s/%s.mlpackage", folder, p.name), &p, 2e-5);
    assert_int_equal(bad, 0);
    return n;
}

static void programs_of_our_making(void **state) {
    ay_test *t = *state;
    assert_int_equal(run_file(t, "mlprograms/own.txt", ay_test_golden(t, "mlprograms")), 12);
}

static void programs_of_others(void **state) {
    ay_test *t = *state;
    const char *folder = ay_test_shared(t, "data/packages");
    if (!folder) ay_test_skip("the outside packages are not here");
    assert_int_equal(run_file(t, "mlprograms/shared.txt", folder), 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        AY_TEST(programs_of_our_making),
        AY_TEST(programs_of_others),
    };
    return cmocka_run_group_tests_name("coreml/read", tests, NULL, NULL);
}
