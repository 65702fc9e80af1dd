/* SPDX-License-Identifier: MIT
 *
 * Reading and writing weight.bin (see weightfile.h). The writer streams: no blob is ever whole in memory, and the count in
 * the header is patched when the file closes. Layout facts: coremltools' mlmodel/src/MILBlob.
 */
#include "coreml/weightfile.h"

#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

static uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t get_u64(const uint8_t *p) { return get_u32(p) | (uint64_t)get_u32(p + 4) << 32; }
static void put_u32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static void put_u64(uint8_t *p, uint64_t v) {
    for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

alloy_status ay_blob_header(ay_ctx *cx, const char *path, const uint8_t *file, size_t size, uint32_t *count) {
    if (size < AY_BLOB_HEADER)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: a weight file starts with a header of 64 bytes, this one has %zu; the file is cut off", path,
                       size);
    uint32_t version = get_u32(file + 4);
    if (version != AY_BLOB_VERSION)
        return ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: weight file version %u found, version 2 expected", path, version);
    *count = get_u32(file);
    return ALLOY_OK;
}

alloy_status ay_blob_read(ay_ctx *cx, const char *path, const uint8_t *file, size_t size, uint64_t meta, ay_blob *out) {
    *out = (ay_blob){.meta = meta};
    if (meta < AY_BLOB_HEADER || meta % AY_BLOB_ALIGN != 0)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: blob offset %llu found, expected a multiple of 64 that is at least 64", path,
                       (unsigned long long)meta);
    if (meta > size || size - meta < AY_BLOB_META)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: blob offset %llu is past the end of the file (%zu bytes); the file is cut off or the "
                       "program belongs to another weight file",
                       path, (unsigned long long)meta, size);
    const uint8_t *m = file + meta;
    if (get_u32(m) != AY_BLOB_SENTINEL)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: no blob at offset %llu: mark 0x%08x found, 0xdeadbeef expected", path,
                       (unsigned long long)meta, get_u32(m));
    out->code = get_u32(m + 4);
    out->bytes = get_u64(m + 8);
    out->offset = get_u64(m + 16);
    uint64_t padding = get_u64(m + 24);
    const ay_mil_dtype *row = ay_mil_by_blob(out->code > 255 ? 0 : (int)out->code);
    if (!row)
        return ay_fail(cx, ALLOY_E_FORMAT, "%s: blob at offset %llu has unknown element type code %u", path,
                       (unsigned long long)meta, out->code);
    out->dtype = row->dtype;
    if (out->offset % AY_BLOB_ALIGN != 0 || out->offset < AY_BLOB_HEADER + AY_BLOB_META || out->offset > size ||
        out->bytes > size - out->offset)
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: blob at offset %llu claims %llu bytes at %llu, the file has %zu (data starts at "
                       "multiples of 64)",
                       path, (unsigned long long)meta, (unsigned long long)out->bytes, (unsigned long long)out->offset,
                       size);
    uint64_t bits = (uint64_t)ay_dtype_bits(out->dtype);
    if (padding > 7 || out->bytes > UINT64_MAX / 8 || padding > out->bytes * 8 || (out->bytes * 8 - padding) % bits != 0 ||
        (8 % bits == 0 && padding % bits != 0))
        return ay_fail(cx, ALLOY_E_FORMAT,
                       "%s: blob at offset %llu has %llu bytes with %llu padding bits, which is no whole number of "
                       "%s elements",
                       path, (unsigned long long)meta, (unsigned long long)out->bytes, (unsigned long long)padding,
                       ay_dtype_name(out->dtype));
    out->padding_bits = (uint32_t)padding;
    return ALLOY_OK;
}

int64_t ay_blob_count(const ay_blob *b) {
    return (int64_t)((b->bytes * 8 - b->padding_bits) / (uint64_t)ay_dtype_bits(b->dtype));
}

/* ---- fingerprints ------------------------------------------------------------------------------------------------- */

struct ay_weight_writer {
    ay_ctx *cx;
    ay_writer *file;
    char *path;
    ay_weight_print print;
    uint64_t pos, kept; /* before `kept` everything is in the file already */
    uint64_t left;      /* bytes the open blob still lacks */
    uint32_t count;
};

/* Four lanes of multiply and rotate, several GB/s, for a cryptographic hash over 24 GB would take longer than the writing. */
static void print_block(ay_weight_print *f, const uint8_t *p) {
    for (int i = 0; i < 4; i++) {
        uint64_t v = (f->lane[i] ^ get_u64(p + 8 * i)) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio, odd */
        f->lane[i] = (v << 31 | v >> 33) + (uint64_t)i + 1;
    }
}

static void print_add(ay_weight_print *f, const uint8_t *p, size_t n) {
    while (n) {
        if (f->n_rest == 0 && n >= 32) {
            for (; n >= 32; p += 32, n -= 32) print_block(f, p);
            continue;
        }
        size_t take = 32 - f->n_rest < n ? 32 - f->n_rest : n;
        memcpy(f->rest + f->n_rest, p, take);
        f->n_rest += (uint32_t)take;
        p += take;
        n -= take;
        if (f->n_rest < 32) return;
        print_block(f, f->rest);
        f->n_rest = 0;
    }
}

static void print_end(const ay_weight_print *f, uint8_t digest[32]) {
    ay_sha256 sha;
    uint8_t lanes[32];
    for (int i = 0; i < 4; i++) put_u64(lanes + 8 * i, f->lane[i]);
    ay_sha256_init(&sha);
    ay_sha256_add(&sha, lanes, sizeof lanes);
    ay_sha256_add(&sha, f->rest, f->n_rest);
    ay_sha256_end(&sha, digest);
}

/* ---- how far a file has come -------------------------------------------------------------------------------------- */

void ay_weight_mark_digest(const ay_weight_mark *m, uint8_t digest[32]) { print_end(&m->print, digest); }

/* The count in the header is known last, so the header is left out of the fingerprint. */
static alloy_status add_from_file(ay_ctx *cx, ay_weight_mark *m, const ay_map *map, uint64_t end) {
    const size_t step = (size_t)16 << 20;
    while (m->pos < end) {
        AY_TRY(ay_check_stop(cx));
        size_t n = end - m->pos < step ? (size_t)(end - m->pos) : step;
        print_add(&m->print, map->data + m->pos, n);
        ay_map_drop(map, (size_t)m->pos, n);
        m->pos += n;
    }
    return ALLOY_OK;
}

alloy_status ay_weight_file_digest(ay_ctx *cx, const ay_map *map, uint8_t digest[32]) {
    ay_weight_mark m = {.pos = AY_BLOB_HEADER};
    AY_TRY(add_from_file(cx, &m, map, map->size));
    print_end(&m.print, digest);
    return ALLOY_OK;
}

alloy_status ay_weight_mark_find(ay_ctx *cx, const char *path, const uint64_t *pos, const uint8_t (*digest)[32], int n, int *good,
                                 ay_weight_mark *mark) {
    ay_map map;
    ay_weight_mark at = {.pos = AY_BLOB_HEADER};
    *good = 0;
    if (ay_path_kind_of(path) != AY_PATH_FILE || ay_path_is_link(path)) return ALLOY_OK;
    AY_TRY(ay_map_open(cx, path, &map));
    alloy_status st = ALLOY_OK;
    for (int i = 0; i < n && st == ALLOY_OK && pos[i] >= at.pos && pos[i] <= map.size; i++) {
        uint8_t found[32];
        st = add_from_file(cx, &at, &map, pos[i]);
        print_end(&at.print, found);
        if (st != ALLOY_OK || memcmp(found, digest[i], sizeof found) != 0) break;
        *mark = at;
        *good = i + 1;
    }
    ay_map_close(&map);
    return st;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static alloy_status emit(ay_weight_writer *w, const void *bytes, size_t n) {
    if (w->pos < w->kept) {
        if (n > w->kept - w->pos) return ay_fail(w->cx, ALLOY_E_INTERNAL, "%s: what was written before ends within a weight", w->path);
        w->pos += n;
        return ALLOY_OK;
    }
    print_add(&w->print, bytes, n);
    w->pos += n;
    return ay_writer_put(w->file, bytes, n);
}

static alloy_status open_file(ay_weight_writer *w, const ay_weight_mark *from) {
    static const uint8_t header[AY_BLOB_HEADER];
    w->pos = AY_BLOB_HEADER;
    if (!from) {
        AY_TRY(ay_writer_open(w->cx, w->path, false, &w->file));
        return ay_writer_put(w->file, header, sizeof header); /* filled in at the end */
    }
    w->kept = from->pos;
    w->print = from->print;
    return ay_writer_reopen(w->cx, w->path, from->pos, &w->file);
}

alloy_status ay_weight_writer_open(ay_ctx *cx, const char *path, const ay_weight_mark *from, ay_weight_writer **out) {
    *out = NULL;
    ay_weight_writer *w = calloc(1, sizeof *w);
    if (!w) return ay_nomem(cx);
    w->cx = cx;
    w->path = malloc(strlen(path) + 1);
    if (w->path) strcpy(w->path, path);
    alloy_status s = w->path ? open_file(w, from) : ay_nomem(cx);
    if (s != ALLOY_OK) {
        ay_weight_writer_abandon(&w);
        return s;
    }
    *out = w;
    return ALLOY_OK;
}

alloy_status ay_weight_writer_begin(ay_weight_writer *w, ay_dtype dtype, int64_t count, uint64_t *meta) {
    static const uint8_t zeros[AY_BLOB_ALIGN];
    const ay_mil_dtype *row = ay_mil_by_dtype(dtype);
    size_t bytes = count < 0 ? SIZE_MAX : ay_dtype_bytes(dtype, count);
    if (!row || row->blob == 0 || bytes == SIZE_MAX)
        return ay_fail(w->cx, ALLOY_E_UNSUPPORTED, "a weight file cannot hold %lld elements of %s", (long long)count,
                       ay_dtype_name(dtype));
    uint64_t pos = w->pos;
    if (pos % AY_BLOB_ALIGN) AY_TRY(emit(w, zeros, (size_t)(AY_BLOB_ALIGN - pos % AY_BLOB_ALIGN)));
    *meta = w->pos;
    uint8_t m[AY_BLOB_META] = {0};
    put_u32(m, AY_BLOB_SENTINEL);
    put_u32(m + 4, (uint32_t)row->blob);
    put_u64(m + 8, bytes);
    put_u64(m + 16, *meta + AY_BLOB_META);
    put_u64(m + 24, (uint64_t)bytes * 8 - (uint64_t)count * (uint64_t)ay_dtype_bits(dtype));
    w->left = bytes;
    w->count++;
    return emit(w, m, sizeof m);
}

alloy_status ay_weight_writer_put(ay_weight_writer *w, const void *bytes, size_t n) {
    if (n > w->left)
        return ay_fail(w->cx, ALLOY_E_INTERNAL, "a weight gave %llu bytes more than its shape has",
                       (unsigned long long)(n - w->left));
    w->left -= n;
    return emit(w, bytes, n);
}

bool ay_weight_writer_kept(const ay_weight_writer *w) { return w->pos < w->kept; }

alloy_status ay_weight_writer_skip(ay_weight_writer *w, void *bytes) {
    uint64_t n = w->left;
    if (n > w->kept - w->pos) return ay_fail(w->cx, ALLOY_E_INTERNAL, "%s: what was written before ends within a weight", w->path);
    if (bytes) AY_TRY(ay_writer_read_at(w->file, w->pos, bytes, (size_t)n));
    w->pos += n;
    w->left = 0;
    return ALLOY_OK;
}

alloy_status ay_weight_writer_mark(ay_weight_writer *w, ay_weight_mark *mark) {
    *mark = (ay_weight_mark){.pos = w->pos, .print = w->print};
    return ay_writer_flush(w->file);
}

alloy_status ay_weight_writer_end(ay_weight_writer *w, const char *name) {
    if (w->left)
        return ay_fail(w->cx, ALLOY_E_INTERNAL, "weight %s gave %llu bytes fewer than its shape has", name,
                       (unsigned long long)w->left);
    return ALLOY_OK;
}

uint32_t ay_weight_writer_count(const ay_weight_writer *w) { return w->count; }

alloy_status ay_weight_writer_close(ay_weight_writer **wp, uint8_t digest[32]) {
    ay_weight_writer *w = *wp;
    uint8_t header[8];
    put_u32(header, w->count);
    put_u32(header + 4, AY_BLOB_VERSION);
    alloy_status s = ay_writer_put_at(w->file, 0, header, sizeof header);
    alloy_status closed = ay_writer_close(&w->file, true);
    print_end(&w->print, digest);
    free(w->path);
    free(w);
    *wp = NULL;
    return s != ALLOY_OK ? s : closed;
}

void ay_weight_writer_abandon(ay_weight_writer **wp) {
    if (!*wp) return;
    if ((*wp)->file) {
        ay_ctx *cx = (*wp)->cx;
        alloy_status code = cx->code;
        char *message = cx->message; /* the first failure is the one to tell; closing may add another */
        cx->message = NULL;
        (void)ay_writer_close(&(*wp)->file, false);
        if (message) {
            free(cx->message);
            cx->message = message;
            cx->code = code;
        }
    }
    free((*wp)->path);
    free(*wp);
    *wp = NULL;
}
