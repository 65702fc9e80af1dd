/* SPDX-License-Identifier: MIT
 *
 * Classifier-free guidance as two calls of a denoiser, or as one call of a graph built for two pictures: seconds of each, in
 * turns, and the values each needs.
 *
 *   build/bench/guidance FOLDER [--size WxH] [--runs N] [--threads N] [--memory-limit MB] [--cold]
 *
 * --cold has the weights read from the disk in each call: what a limit gave back is dropped from the system's cache too.
 */
#include "pipe/pipe.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_INPUTS = 16, MOST_RUNS = 32 };

typedef struct side {
    ay_component *c;
    ay_tensor in[MOST_INPUTS], out;
    int n_in;
    double seconds[MOST_RUNS];
} side;

/* Inputs in [-1, 1] that repeat for each picture; a step's time does not hang on them. */
static alloy_status fill(ay_ctx *cx, ay_arena *a, side *s) {
    const ay_tensor *in = ay_component_inputs(s->c, &s->n_in);
    int n_out;
    const ay_tensor *out = ay_component_outputs(s->c, &n_out);
    for (int i = 0; i < s->n_in && i < MOST_INPUTS; i++) {
        int64_t n = ay_type_count(&in[i].type), each = n / (in[i].type.rank ? in[i].type.dim[0] : 1);
        float *p = ay_alloc(a, (size_t)n * sizeof *p);
        if (!p) return ay_nomem(cx);
        for (int64_t k = 0; k < n; k++) p[k] = in[i].type.rank == 1 ? 500.0f : (float)((k % each * 7919) % 2003) / 1001.5f - 1;
        s->in[i] = in[i];
        s->in[i].type.dtype = AY_F32;
        s->in[i].data = p;
    }
    s->out = out[0];
    s->out.type.dtype = AY_F32;
    s->out.data = ay_alloc(a, (size_t)ay_type_count(&s->out.type) * sizeof(float));
    return s->out.data ? ALLOY_OK : ay_nomem(cx);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void forget(const char *weights) {
    int fd = weights ? open(weights, O_RDONLY) : -1;
    if (fd < 0) return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

/* `weights`: a file to be dropped from the cache before each call, or NULL. */
static alloy_status measure(ay_ctx *cx, side *s, int runs, const char *weights) {
    for (int r = -1; r < runs; r++) { /* the first, which touches the weights, is not counted */
        for (int k = 0; k < 2; k++) {
            double took = 0;
            for (int pass = k; pass < 2; pass++) {
                forget(weights);
                double start = ay_now();
                AY_TRY(ay_component_run(cx, s[k].c, s[k].in, s[k].n_in, &s[k].out, 1));
                took += ay_now() - start;
            }
            if (r >= 0) s[k].seconds[r] = took;
        }
    }
    const float *one = s[0].out.data, *two = s[1].out.data;
    double most = 0, scale = 0;
    for (int64_t i = 0, n = ay_type_count(&s[0].out.type); i < 2 * n; i++) {
        double d = (double)two[i] - one[i % n];
        most += d * d;
        scale += (double)one[i % n] * one[i % n];
    }
    for (int k = 0; k < 2; k++) qsort(s[k].seconds, (size_t)runs, sizeof(double), ascending);
    double a = s[0].seconds[runs / 2], b = s[1].seconds[runs / 2];
    printf("two calls %.3f s (%.3f to %.3f), one of two %.3f s (%.3f to %.3f): %.3f of the time; values %.1f and %.1f MB; relative difference %.1e\n",
           a, s[0].seconds[0], s[0].seconds[runs - 1], b, s[1].seconds[0], s[1].seconds[runs - 1], b / a, (double)ay_component_peak(s[0].c) / 1e6,
           (double)ay_component_peak(s[1].c) / 1e6, scale > 0 ? sqrt(most / scale) : 0);
    return ALLOY_OK;
}

static alloy_status run(ay_ctx *cx, ay_arena *a, const char *dir, int w, int h, int runs, bool cold, const ay_exec_options *exec) {
    ay_model *m = NULL;
    side s[2] = {{0}};
    AY_TRY(ay_model_open(cx, dir, &m));
    const ay_model_part *part = ay_model_find(m, "UNet") ? ay_model_find(m, "UNet") : ay_model_find(m, "Transformer");
    alloy_status st = part ? ALLOY_OK : ay_fail(cx, ALLOY_E_USAGE, "%s: no denoiser in it", dir);
    for (int k = 0; k < 2 && st == ALLOY_OK; k++) {
        ay_sizes sizes;
        st = m->row->sizes(cx, m, part->row, w ? w : m->width, h ? h : m->height, m->text_length, &sizes);
        sizes.batch = k + 1;
        if (st == ALLOY_OK) st = ay_component_rebuild(cx, m, part->row->package, &sizes, exec, &s[k].c);
        if (st == ALLOY_OK) st = fill(cx, a, &s[k]);
    }
    char *weights = st == ALLOY_OK && cold ? ay_sprintf(a, "%s/%s.mlpackage/Data/com.apple.CoreML/weights/weight.bin", dir, part->row->package) : NULL;
    if (st == ALLOY_OK) st = measure(cx, s, runs, weights);
    for (int k = 0; k < 2; k++) ay_component_close(&s[k].c);
    ay_model_close(&m);
    return st;
}

int main(int argc, char **argv) {
    int w = 0, h = 0, runs = 3, threads = 0;
    bool cold = false;
    ay_exec_options o = {.int8_activations = true};
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--cold") == 0) cold = true;
        else if (i + 1 < argc && strcmp(argv[i], "--size") == 0) sscanf(argv[++i], "%dx%d", &w, &h);
        else if (i + 1 < argc && strcmp(argv[i], "--runs") == 0) runs = atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--threads") == 0) threads = atoi(argv[++i]);
        else if (i + 1 < argc && strcmp(argv[i], "--memory-limit") == 0) o.memory_limit = (size_t)atoi(argv[++i]) * 1000000;
    }
    ay_ctx *cx = NULL;
    ay_arena *a = ay_arena_new();
    if (argc < 2 || runs < 1 || runs > MOST_RUNS || !a || ay_ctx_open(threads, &cx) != ALLOY_OK) {
        fprintf(stderr, "usage: guidance FOLDER [--size WxH] [--runs N] [--threads N] [--memory-limit MB] [--cold]\n");
        return 2;
    }
    alloy_status st = run(cx, a, argv[1], w, h, runs, cold, &o);
    if (st != ALLOY_OK) fprintf(stderr, "guidance: %s\n", ay_error_text(cx));
    ay_arena_free(a);
    ay_ctx_close(&cx);
    return st == ALLOY_OK ? 0 : 1;
}
