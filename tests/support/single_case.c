/* SPDX-License-Identifier: MIT
 *
 * One-file checkpoints for tests, see single_case.h.
 */
#include "single_case.h"

#include "source/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 8, MAX_OLD = 4 };

/* The files of a component folder, opened once. */
typedef struct folders {
    const char *root, *name[MAX_PARTS];
    ay_source *source[MAX_PARTS];
    int n;
} folders;

typedef struct keep {
    char *bytes;
    size_t n;
} keep;

static alloy_status take(void *user, const void *bytes, size_t n) {
    keep *k = user;
    memcpy(k->bytes + k->n, bytes, n);
    k->n += n;
    return ALLOY_OK;
}

/* The tensor "folder/name" as it lies there. */
static ay_tensor read_tensor(ay_test *t, folders *f, const char *text) {
    static const ay_arch plain = {.class_name = "", .graph_kind = ""};
    const char *slash = strchr(text, '/'), *folder = ay_strndup(t->arena, text, (size_t)(slash - text));
    int i = 0;
    while (i < f->n && strcmp(f->name[i], folder) != 0) i++;
    if (i == f->n) {
        f->name[f->n++] = folder;
        assert_ok(t->cx, ay_source_open(t->cx, ay_test_join(t, f->root, folder), &f->source[i]));
    }
    ay_names names = ay_source_names(f->source[i]);
    const ay_type *type = names.find(&names, slash + 1);
    if (!type) fail_msg("no tensor %s", text);
    keep k = {ay_alloc(t->arena, ay_dtype_bytes(type->dtype, ay_type_count(type)) + 1), 0};
    assert_ok(t->cx, ay_source_stream(t->cx, f->source[i], &plain, slash + 1, type, type->dtype, take, &k, NULL));
    return (ay_tensor){NULL, *type, k.bytes};
}

static void swap_halves(ay_test *t, ay_tensor *x) {
    size_t n = ay_dtype_bytes(x->type.dtype, ay_type_count(&x->type)), half = n / 2;
    char *to = ay_alloc(t->arena, n);
    memcpy(to, (char *)x->data + half, half);
    memcpy(to + half, x->data, half);
    x->data = to;
}

static void transpose(ay_test *t, ay_tensor *x) {
    size_t w = (size_t)ay_dtype_bits(x->type.dtype) / 8, rows = (size_t)x->type.dim[0], cols = (size_t)x->type.dim[1];
    char *to = ay_alloc(t->arena, rows * cols * w);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) memcpy(to + (c * rows + r) * w, (char *)x->data + (r * cols + c) * w, w);
    }
    x->data = to;
    x->type.dim[0] = (int64_t)cols;
    x->type.dim[1] = (int64_t)rows;
}

static ay_tensor concat(ay_test *t, const ay_tensor *x, int n) {
    ay_tensor all = x[0];
    size_t bytes = 0, at = 0;
    all.type.dim[0] = 0;
    for (int i = 0; i < n; i++) {
        all.type.dim[0] += x[i].type.dim[0];
        bytes += ay_dtype_bytes(x[i].type.dtype, ay_type_count(&x[i].type));
    }
    char *to = ay_alloc(t->arena, bytes);
    for (int i = 0; i < n; i++) {
        size_t b = ay_dtype_bytes(x[i].type.dtype, ay_type_count(&x[i].type));
        memcpy(to + at, x[i].data, b);
        at += b;
    }
    all.data = to;
    return all;
}

static void add_row(ay_test *t, ay_single_case *c, folders *f, const char *op, const char *name, char *const *old, int n, const char *end) {
    ay_tensor x[MAX_OLD];
    for (int i = 0; i < n; i++) x[i] = read_tensor(t, f, ay_sprintf(t->arena, "%s%s", old[i], end));
    ay_tensor made = n > 1 ? concat(t, x, n) : x[0];
    if (strcmp(op, "swap") == 0) swap_halves(t, &made);
    if (strcmp(op, "t") == 0) transpose(t, &made);
    if (strcmp(op, "1x1") == 0 && made.type.rank == 2) made.type.rank = 4, made.type.dim[2] = made.type.dim[3] = 1;
    ay_single_add(c, ay_sprintf(t->arena, "%s%s", name, end), made.type, made.data);
}

static int split(char *line, char **word, int max) {
    int n = 0;
    for (char *p = strtok(line, " "); p && n < max; p = strtok(NULL, " ")) word[n++] = p;
    return n;
}

static bool cut_star(char *text) {
    size_t n = strlen(text);
    if (n < 2 || strcmp(text + n - 2, ".*") != 0) return false;
    text[n - 2] = 0;
    return true;
}

ay_single_case ay_single_make(ay_test *t, const char *name, const char *folder, int more) {
    folders f = {.root = folder};
    ay_single_case c = {NULL, 0};
    char *rules = ay_test_read(t, ay_sprintf(t->arena, "%s/%s.txt", ay_test_golden(t, "single"), name), NULL);
    size_t lines = 0;
    for (const char *p = rules; (p = strchr(p, '\n')); p++) lines++;
    c.tensors = ay_alloc(t->arena, (2 * lines + (size_t)more) * sizeof *c.tensors);
    for (char *line = rules, *next; line && *line; line = next) {
        char *word[MAX_OLD + 2] = {NULL};
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        int n = split(line, word, MAX_OLD + 2);
        assert_true(n >= 3);
        bool both = cut_star(word[1]);
        for (int i = 2; i < n; i++) assert_int_equal(cut_star(word[i]), both);
        add_row(t, &c, &f, word[0], word[1], word + 2, n - 2, both ? ".weight" : "");
        if (both) add_row(t, &c, &f, strcmp(word[0], "1x1") == 0 ? "=" : word[0], word[1], word + 2, n - 2, ".bias");
    }
    for (int i = 0; i < f.n; i++) ay_source_close(&f.source[i]);
    return c;
}

void ay_single_add(ay_single_case *c, const char *name, ay_type type, void *data) { c->tensors[c->n++] = (ay_tensor){name, type, data}; }

const char *ay_single_write(ay_test *t, const ay_single_case *c, const char *file, const char *prefix, const char *put) {
    ay_tensor *some = ay_alloc(t->arena, (size_t)(c->n + 1) * sizeof *some);
    int n = 0;
    size_t cut = strlen(prefix);
    for (int i = 0; i < c->n; i++) {
        if (strncmp(c->tensors[i].name, prefix, cut) != 0) continue;
        some[n] = c->tensors[i];
        some[n++].name = ay_sprintf(t->arena, "%s%s", put, c->tensors[i].name + cut);
    }
    const char *path = ay_test_path(t, file);
    assert_ok(t->cx, ay_st_write(t->cx, path, some, n, NULL));
    return path;
}

static void same_files(ay_test *t, const char *a, const char *b) {
    char **names, **other;
    int n, m;
    if (ay_path_kind_of(a) == AY_PATH_DIR) {
        assert_ok(t->cx, ay_list_dir(t->cx, t->arena, a, &names, &n));
        assert_ok(t->cx, ay_list_dir(t->cx, t->arena, b, &other, &m));
        assert_int_equal(n, m);
        for (int i = 0; i < n; i++) same_files(t, ay_test_join(t, a, names[i]), ay_test_join(t, b, names[i]));
        return;
    }
    size_t na, nb;
    char *x = ay_test_read(t, a, &na), *y = ay_test_read(t, b, &nb);
    if (na != nb || memcmp(x, y, na) != 0) fail_msg("%s and %s differ", a, b);
}

static int count_packages(ay_test *t, const char *dir) {
    char **names;
    int n, packages = 0;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, dir, &names, &n));
    for (int i = 0; i < n; i++) packages += strstr(names[i], ".mlpackage") != NULL;
    return packages;
}

void ay_single_same_packages(ay_test *t, const char *a, const char *b) {
    char **names;
    int n;
    assert_ok(t->cx, ay_list_dir(t->cx, t->arena, a, &names, &n));
    for (int i = 0; i < n; i++) {
        if (strstr(names[i], ".mlpackage")) same_files(t, ay_test_join(t, a, names[i]), ay_test_join(t, b, names[i]));
    }
    assert_true(count_packages(t, a) >= 1);
    assert_int_equal(count_packages(t, a), count_packages(t, b));
}
