/* SPDX-License-Identifier: MIT
 *
 * What a profile says, as a table: operations of one kind and shape together, the longest first, each beside the ceiling that
 * binds it.
 */
#include "cli.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct line {
    const char *what, *scope;
    double seconds, flops, int8_ops, int4_ops, bytes; /* of all calls */
    int64_t calls;
    int count; /* operations gathered here */
} line;

typedef struct ceilings { double fma, int8, int4, memory; } ceilings; /* a second */

static double number(const json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }

static ceilings ceilings_of(const json_t *report) {
    const json_t *c = json_object_get(report, "ceilings");
    double copy = number(c, "copy_gbs"), read = number(c, "read_gbs");
    return (ceilings){1e9 * number(c, "fma_gflops"), 1e9 * number(c, "int8_gops"), 1e9 * number(c, "int4_gops"),
                      1e9 * (copy > read ? copy : read)};
}

static double time_of(double work, double rate) { return rate > 0 ? work / rate : 0; }

static double work_of(const line *l) { return l->flops + l->int8_ops + l->int4_ops; }

/* What the arithmetic that most of the work is done in is called, and its rate. */
static const char *arithmetic(const line *l) {
    return l->int4_ops > l->int8_ops + l->flops ? "int4" : l->int8_ops > l->flops ? "int8" : "FMA";
}
static const char *rate_unit(const line *l) { return l->int8_ops + l->int4_ops > l->flops ? "GOP/s  " : "GFLOP/s"; }

/* The least time the machine could need. */
static double least(const ceilings *c, const line *l) {
    double compute = time_of(l->flops, c->fma) + time_of(l->int8_ops, c->int8) + time_of(l->int4_ops, c->int4);
    double move = time_of(l->bytes, c->memory);
    return compute > move ? compute : move;
}

static int by_time(const void *a, const void *b) {
    double x = ((const line *)a)->seconds, y = ((const line *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void add(line *l, const json_t *row) {
    int64_t calls = json_integer_value(json_object_get(row, "calls"));
    l->seconds += number(row, "seconds");
    l->flops += number(row, "flops") * (double)calls;
    l->int8_ops += number(row, "int8_ops") * (double)calls;
    l->int4_ops += number(row, "int4_ops") * (double)calls;
    l->bytes += number(row, "bytes") * (double)calls;
    if (calls > l->calls) l->calls = calls;
    l->count++;
}

/* Rows gathered by `what`, or by its first word; NULL when out of memory. */
static line *gather(const json_t *rows, bool by_kind, size_t *n) {
    line *lines = calloc(json_array_size(rows) + 1, sizeof *lines);
    size_t i;
    json_t *row;
    *n = 0;
    if (!lines) return NULL;
    json_array_foreach(rows, i, row) {
        const char *what = json_string_value(json_object_get(row, "what"));
        if (!what) continue;
        size_t len = by_kind ? strcspn(what, " ") : strlen(what), k = 0;
        while (k < *n && (strncmp(lines[k].what, what, len) != 0 || (by_kind ? strcspn(lines[k].what, " ") : strlen(lines[k].what)) != len)) k++;
        if (k == *n) lines[(*n)++] = (line){.what = what, .scope = json_string_value(json_object_get(row, "scope"))};
        add(&lines[k], row);
    }
    qsort(lines, *n, sizeof *lines, by_time);
    return lines;
}

static line sum_of(const line *lines, size_t n) {
    line s = {0};
    for (size_t i = 0; i < n; i++) {
        s.seconds += lines[i].seconds;
        s.flops += lines[i].flops;
        s.int8_ops += lines[i].int8_ops;
        s.int4_ops += lines[i].int4_ops;
        s.bytes += lines[i].bytes;
        s.count += lines[i].count;
        if (lines[i].calls > s.calls) s.calls = lines[i].calls;
    }
    return s;
}

/* Milliseconds of one run, share of the whole, rate, share of the ceiling that binds. */
static void print_line(const ceilings *c, const line *l, double all, const char *what, int width) {
    double calls = l->calls > 0 ? (double)l->calls : 1, s = l->seconds > 0 ? l->seconds : 1e-12, work = work_of(l);
    printf("  %10.3f ms %5.1f %%  ", 1e3 * l->seconds / calls, all > 0 ? 100 * l->seconds / all : 0);
    if (work > 0) printf("%8.1f %s", 1e-9 * work / s, rate_unit(l));
    else printf("%8.1f GB/s   ", 1e-9 * l->bytes / s);
    if (c->fma > 0) printf(" %4.0f %%", 100 * least(c, l) / s);
    printf("  %4dx %.*s\n", l->count, width, what);
}

static void print_package(const ceilings *c, const char *package, const json_t *rows, const json_t *wall, int most) {
    size_t n, kinds;
    line *lines = gather(rows, false, &n), *kind = gather(rows, true, &kinds);
    if (lines && kind) {
        line all = sum_of(lines, n);
        double calls = all.calls > 0 ? (double)all.calls : 1, whole = json_number_value(wall), ideal = 0;
        for (size_t i = 0; i < n; i++) ideal += least(c, &lines[i]);
        printf("%s: %.3f s in %d operations", package, all.seconds / calls, all.count);
        if (all.calls > 1) printf(", mean of %lld runs", (long long)all.calls);
        if (whole > 0) printf("; %.1f %% of %.3f s of the clock", 100 * all.seconds / whole, whole / calls);
        if (c->fma > 0 && all.seconds > 0) printf("; %.0f %% of the ceilings", 100 * ideal / all.seconds);
        if (c->fma > 0 && all.flops > 0 && all.int8_ops + all.int4_ops == 0) printf(" (%.0f %% of FMA)", 100 * all.flops / c->fma / all.seconds);
        printf("\n");
        for (size_t i = 0; i < kinds; i++) {
            if (kind[i].seconds >= 0.002 * all.seconds) print_line(c, &kind[i], all.seconds, kind[i].what, (int)strcspn(kind[i].what, " "));
        }
        printf("  by operation and shape:\n");
        for (size_t i = 0; i < n && (most == 0 || i < (size_t)most); i++) print_line(c, &lines[i], all.seconds, lines[i].what, 256);
    }
    free(lines);
    free(kind);
}

/* Kernels are no whole: each by itself, in the order of the list. */
static void print_kernels(const ceilings *c, const json_t *rows) {
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) {
        line l = {.what = json_string_value(json_object_get(row, "what"))};
        double s = number(row, "seconds");
        add(&l, row);
        printf("%10.3f ms ", 1e3 * s);
        if (s <= 0) s = 1e-12;
        if (work_of(&l) > 0) printf("%8.1f %s", 1e-9 * work_of(&l) / s, rate_unit(&l));
        else printf("%8.1f GB/s   ", 1e-9 * l.bytes / s);
        double move = c->memory > 0 ? l.bytes / c->memory : 0, all = least(c, &l);
        const char *unit = all <= move ? "memory" : arithmetic(&l);
        printf(" %4.0f %% of %-6s  %-44s %s\n", 100 * all / s, unit, l.what, json_string_value(json_object_get(row, "scope")));
    }
}

void cli_print_profile(const char *report, int most) {
    json_t *j = json_loads(report, 0, NULL), *rows;
    const json_t *c = json_object_get(j, "ceilings");
    ceilings limit = ceilings_of(j);
    const char *package;
    if (c) {
        printf("ceilings, %lld threads, level %s: %.0f GFLOP/s of float32 multiply-adds", (long long)json_integer_value(json_object_get(c, "threads")),
               json_string_value(json_object_get(c, "isa")), number(c, "fma_gflops"));
        printf(", %.0f GOP/s in int8, %.0f with int4 weights", number(c, "int8_gops"), number(c, "int4_gops"));
        printf(", %.1f GB/s copying (read and written), %.1f GB/s reading\n", number(c, "copy_gbs"), number(c, "read_gbs"));
    }
    json_object_foreach(json_object_get(j, "profile"), package, rows) {
        const json_t *wall = json_object_get(json_object_get(j, "profile_wall_s"), package);
        if (wall) print_package(&limit, package, rows, wall, most);
        else print_kernels(&limit, rows);
    }
    json_decref(j);
}
