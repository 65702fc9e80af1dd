/* SPDX-License-Identifier: MIT
 *
 * Files of tensors, whatever their format: opening by first bytes, closing, finding.
 */
#include "io/io_internal.h"

#include <stdlib.h>
#include <string.h>

alloy_status ay_tensors_over(ay_ctx *cx, const char *path, const char *format, ay_map map, bool borrowed,
                             alloy_status (*parse)(ay_ctx *cx, ay_safetensors *st), ay_safetensors **out) {
    *out = NULL;
    ay_safetensors *st = calloc(1, sizeof *st);
    ay_arena *arena = ay_arena_new();
    if (!st || !arena) {
        free(st);
        ay_arena_free(arena);
        if (!borrowed) ay_map_close(&map);
        return ay_nomem(cx);
    }
    st->map = map;
    st->borrowed = borrowed;
    st->arena = arena;
    st->format = format;
    st->path = ay_strdup(arena, path);
    alloy_status s = st->path ? parse(cx, st) : ay_nomem(cx);
    if (s != ALLOY_OK) ay_st_close(&st);
    *out = st;
    return s;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const ay_st_tensor *)a)->name, ((const ay_st_tensor *)b)->name);
}

alloy_status ay_tensors_sort(ay_ctx *cx, ay_safetensors *st) {
    char show[160];
    if (st->n) qsort(st->tensors, (size_t)st->n, sizeof *st->tensors, by_name);
    for (int i = 1; i < st->n; i++) {
        if (strcmp(st->tensors[i].name, st->tensors[i - 1].name) == 0) {
            return ay_fail(cx, ALLOY_E_FORMAT, "%s: has two tensors of the name \"%s\"; the file is damaged", st->path,
                           ay_show(st->tensors[i].name, show, sizeof show));
        }
    }
    return ALLOY_OK;
}

/* ---- by first bytes ---------------------------------------------------------------------------------------------------- */

static alloy_status refuse_json(ay_ctx *cx, const char *path, ay_safetensors **out) {
    return ay_fail(cx, ALLOY_E_FORMAT, "%s: is text (JSON) without tensors; give the folder it belongs to, or a file of weights", path);
}

/* The last row takes what no other does: safetensors begin with a length. */
static const struct {
    const char *magic;
    size_t n;
    alloy_status (*open)(ay_ctx *cx, const char *path, ay_safetensors **out);
} formats[] = {
    {"GGUF", 4, ay_gguf_open},
    {"PK\3\4", 4, ay_torch_open},
    {"\x80\x02", 2, ay_torch_open}, /* a pickle; the length of a safetensors header that begins so ends in zeros */
    {"{\n", 2, refuse_json},
    {"{\"", 2, refuse_json},
    {"", 0, ay_st_open},
};

alloy_status ay_tensors_open(ay_ctx *cx, const char *path, ay_safetensors **out) {
    ay_map map;
    *out = NULL;
    AY_TRY(ay_map_open(cx, path, &map));
    bool json = map.size > 8 && map.data[8] == '{'; /* a safetensors header, whatever its length looks like */
    size_t i = 0;
    while (formats[i].n && (json || map.size < formats[i].n || memcmp(map.data, formats[i].magic, formats[i].n) != 0)) i++;
    ay_map_close(&map);
    return formats[i].open(cx, path, out);
}

void ay_st_close(ay_safetensors **s) {
    if (!s || !*s) return;
    if (!(*s)->borrowed) ay_map_close(&(*s)->map);
    ay_arena_free((*s)->arena);
    free(*s);
    *s = NULL;
}

const ay_st_tensor *ay_st_find(const ay_safetensors *s, const char *name) {
    int lo = 0, hi = s->n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, c = strcmp(s->tensors[mid].name, name);
        if (c == 0) return &s->tensors[mid];
        if (c < 0) lo = mid + 1;
        else hi = mid;
    }
    return NULL;
}
