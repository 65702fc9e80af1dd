/* SPDX-License-Identifier: MIT
 *
 * See hashweights.h. Files are written in pieces, so a checkpoint of any size needs a few MB of memory.
 */
#include "hashweights.h"

#include "base/fs.h"
#include "quant/weight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16, MAX_MANIFEST = 1 << 26 };

/* ---- values -------------------------------------------------------------------------------------------------------- */

uint64_t ay_splitmix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t ay_fnv1a64(const char *text) {
    uint64_t h = 0xcbf29ce484222325u;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001b3u;
    return h;
}

/* "*" and "?"; on a mismatch the last star takes one character more. */
static bool matches(const char *pattern, const char *name) {
    const char *star = NULL, *from = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            from = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star;
            name = ++from;
        } else return false;
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

static bool ends_in(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

void ay_hash_values(const char *name, const ay_type *type, const ay_gain *gains, int n_gains, int64_t begin, int64_t count,
                    float *out) {
    double gain = 1, base = 0, scale;
    for (int i = 0; i < n_gains; i++) {
        if (!matches(gains[i].pattern, name)) continue;
        gain = gains[i].gain;
        break;
    }
    if (type->rank == 1 && (ends_in(name, "weight") || ends_in(name, "scale"))) {
        base = 1;
        scale = 0.1 * gain;
    } else if (ends_in(name, "bias")) scale = 0.05 * gain;
    else {
        double fan_in = 1;
        for (int i = 1; i < type->rank; i++) fan_in *= (double)type->dim[i];
        scale = sqrt(3.0) * gain / sqrt(fan_in);
    }
    uint64_t h = ay_fnv1a64(name) + (uint64_t)begin;
    for (int64_t i = 0; i < count; i++) {
        double u = (double)(ay_splitmix64(h + (uint64_t)i) >> 40) * 0x1p-23 - 1;
        out[i] = (float)(base + scale * u);
    }
}

/* ---- manifests ----------------------------------------------------------------------------------------------------- */

typedef struct entry {
    const char *name, *dtype_text;
    ay_type type;
    uint64_t bytes;
} entry;

typedef struct manifest {
    ay_arena *arena;
    entry *entries;
    ay_gain *gains;
    int n, n_gains;
} manifest;

static ay_dtype dtype_of(const char *s) {
    static const struct {
        const char *text;
        ay_dtype dtype;
    } rows[] = {{"F32", AY_F32}, {"F16", AY_F16}, {"BF16", AY_BF16}, {"F8_E4M3", AY_F8E4M3}, {"F8_E5M2", AY_F8E5M2}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].text, s) == 0) return rows[i].dtype;
    }
    return AY_NONE;
}

static bool parse_dims(const char *s, ay_type *t) {
    if (strcmp(s, "-") == 0) return true;
    for (;;) {
        char *end;
        if (t->rank == AY_MAX_RANK) return false;
        t->dim[t->rank++] = strtoll(s, &end, 10);
        if (end == s || (*end && *end != ',')) return false;
        if (*end == 0) return true;
        s = end + 1;
    }
}

static bool parse_line(manifest *m, char *line) {
    char *save = NULL, *a = strtok_r(line, " \t\r", &save), *b = strtok_r(NULL, " \t\r", &save),
         *c = strtok_r(NULL, " \t\r", &save);
    if (!a || a[0] == '#') return true;
    if (!b || !c) return false;
    if (strcmp(a, "@gain") == 0) {
        m->gains[m->n_gains++] = (ay_gain){b, strtod(c, NULL)};
        return true;
    }
    entry *e = &m->entries[m->n++];
    *e = (entry){.name = a, .dtype_text = b};
    e->type.dtype = dtype_of(b);
    if (e->type.dtype == AY_NONE || !parse_dims(c, &e->type) || ay_type_count(&e->type) < 0) return false;
    e->bytes = ay_dtype_bytes(e->type.dtype, ay_type_count(&e->type));
    return true;
}

static alloy_status read_manifest(ay_ctx *cx, const char *path, ay_arena *arena, manifest *m) {
    ay_buf b = {0};
    *m = (manifest){.arena = arena};
    alloy_status s = ay_file_read(cx, path, MAX_MANIFEST, &b);
    char *text = s == ALLOY_OK ? ay_strndup(arena, b.data, b.len) : NULL;
    ay_buf_free(&b);
    AY_TRY(s);
    size_t lines = 1;
    for (const char *p = text; p && *p; p++) lines += *p == '\n';
    m->entries = ay_alloc(arena, lines * sizeof *m->entries);
    m->gains = ay_alloc(arena, lines * sizeof *m->gains);
    if (ay_arena_failed(arena)) return ay_nomem(cx);
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *copy = ay_strdup(arena, line);
        if (!parse_line(m, line)) return ay_fail(cx, ALLOY_E_FORMAT, "%s: cannot understand the line \"%s\"", path, copy);
    }
    return ALLOY_OK;
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

static alloy_status write_tensor(ay_ctx *cx, ay_writer *w, const manifest *m, const entry *e) {
    float *values = malloc(CHUNK * sizeof *values);
    void *bytes = malloc(CHUNK * sizeof *values);
    alloy_status s = values && bytes ? ALLOY_OK : ay_nomem(cx);
    int64_t count = ay_type_count(&e->type);
    for (int64_t i = 0; i < count && s == ALLOY_OK; i += CHUNK) {
        int64_t n = ay_min_i64(CHUNK, count - i);
        ay_hash_values(e->name, &e->type, m->gains, m->n_gains, i, n, values);
        ay_convert_from_f32(e->type.dtype, values, n, bytes);
        s = ay_writer_put(w, bytes, ay_dtype_bytes(e->type.dtype, n));
    }
    free(values);
    free(bytes);
    return s;
}

static alloy_status write_file(ay_ctx *cx, const manifest *m, int first, int count, const char *path) {
    ay_buf h = {0};
    ay_writer *w;
    uint64_t at = 0, len;
    ay_buf_printf(&h, "........{\"__metadata__\":{\"format\":\"pt\"}");
    for (int i = first; i < first + count; i++) {
        const entry *e = &m->entries[i];
        ay_buf_printf(&h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name, e->dtype_text);
        for (int d = 0; d < e->type.rank; d++) ay_buf_printf(&h, d ? ",%lld" : "%lld", (long long)e->type.dim[d]);
        ay_buf_printf(&h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + e->bytes));
        at += e->bytes;
    }
    ay_buf_printf(&h, "}");
    while (!h.failed && h.len % 8) ay_buf_add(&h, " ", 1);
    if (h.failed) return ay_nomem(cx);
    len = h.len - 8;
    memcpy(h.data, &len, 8);
    alloy_status s = ay_writer_open(cx, path, false, &w);
    if (s == ALLOY_OK) {
        s = ay_writer_put(w, h.data, h.len);
        for (int i = first; i < first + count && s == ALLOY_OK; i++) s = write_tensor(cx, w, m, &m->entries[i]);
        alloy_status closed = ay_writer_close(&w, false);
        if (s == ALLOY_OK) s = closed;
    }
    ay_buf_free(&h);
    return s;
}

alloy_status ay_hash_write(ay_ctx *cx, const char *path_of_manifest, const char *path) {
    manifest m;
    ay_arena *arena = ay_arena_new();
    if (!arena) return ay_nomem(cx);
    alloy_status s = read_manifest(cx, path_of_manifest, arena, &m);
    if (s == ALLOY_OK) s = write_file(cx, &m, 0, m.n, path);
    ay_arena_free(arena);
    return s;
}

/* One past the last tensor of the shard that begins with `first`. */
static int shard_end(const manifest *m, int first, uint64_t shard_bytes) {
    uint64_t sum = 0;
    int i = first;
    do sum += m->entries[i++].bytes;
    while (i < m->n && sum + m->entries[i].bytes <= shard_bytes);
    return i;
}

static alloy_status write_shards(ay_ctx *cx, const manifest *m, const char *dir, const char *stem, uint64_t shard_bytes) {
    int shards = 0, shard = 0;
    uint64_t total = 0;
    ay_buf index = {0};
    for (int i = 0; i < m->n; i = shard_end(m, i, shard_bytes)) shards++;
    for (int i = 0; i < m->n; i++) total += m->entries[i].bytes;
    ay_buf_printf(&index, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {", (unsigned long long)total);
    alloy_status s = ALLOY_OK;
    for (int i = 0, end; i < m->n && s == ALLOY_OK; i = end) {
        end = shard_end(m, i, shard_bytes);
        char *file = ay_sprintf(m->arena, "%s-%05d-of-%05d.safetensors", stem, ++shard, shards);
        char *path = file ? ay_path_join(m->arena, dir, file) : NULL;
        if (!path) s = ay_nomem(cx);
        for (int k = i; k < end; k++)
            ay_buf_printf(&index, "%s\n    \"%s\": \"%s\"", k ? "," : "", m->entries[k].name, file);
        if (s == ALLOY_OK) s = write_file(cx, m, i, end - i, path);
    }
    ay_buf_printf(&index, "\n  }\n}\n");
    char *path = ay_sprintf(m->arena, "%s/%s.safetensors.index.json", dir, stem);
    if (s == ALLOY_OK) s = index.failed || !path ? ay_nomem(cx) : ay_file_write(cx, path, index.data, index.len);
    ay_buf_free(&index);
    return s;
}

alloy_status ay_hash_write_shards(ay_ctx *cx, const char *path_of_manifest, const char *dir, const char *stem,
                                  uint64_t shard_bytes) {
    manifest m;
    ay_arena *arena = ay_arena_new();
    if (!arena) return ay_nomem(cx);
    alloy_status s = read_manifest(cx, path_of_manifest, arena, &m);
    if (s == ALLOY_OK) s = write_shards(cx, &m, dir, stem, shard_bytes);
    ay_arena_free(arena);
    return s;
}
