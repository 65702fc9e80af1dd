/* SPDX-License-Identifier: MIT
 *
 * The list of a zip archive (PKWARE, APPNOTE.TXT 6.3.10: 4.3.7 local header, 4.3.12 central directory, 4.3.14 to 4.3.16 its
 * ends, 4.5.3 the zip64 field). Members are not unpacked: what is read of them are their bytes as they lie in the file.
 */
#include "io/io_internal.h"

#include <string.h>

typedef struct zip_reader {
    ay_ctx *cx;
    const char *what;
    const uint8_t *bytes;
    size_t n;
} zip_reader;

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return (uint32_t)u16(p) | (uint32_t)u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

static alloy_status damaged(const zip_reader *z, const char *why) {
    return ay_fail(z->cx, ALLOY_E_FORMAT, "%s: %s; the archive is cut short or damaged, fetch it again", z->what, why);
}

/* Whether [at, at + n) is in the file. */
static bool inside(const zip_reader *z, uint64_t at, uint64_t n) { return at <= z->n && n <= z->n - at; }

typedef struct zip_end {
    uint64_t count, bytes, at; /* of the central directory */
} zip_end;

static alloy_status read_end64(const zip_reader *z, size_t end, zip_end *e) {
    const uint8_t *locator = z->bytes + end - 20;
    if (end < 20 || u32(locator) != 0x07064b50) return damaged(z, "its zip64 locator is missing");
    uint64_t at = u64(locator + 8);
    if (!inside(z, at, 56) || u32(z->bytes + at) != 0x06064b50) return damaged(z, "its zip64 end is not where it should be");
    *e = (zip_end){u64(z->bytes + at + 32), u64(z->bytes + at + 40), u64(z->bytes + at + 48)};
    return ALLOY_OK;
}

static alloy_status read_end(const zip_reader *z, zip_end *e) {
    if (z->n < 22) return damaged(z, "it is too short for a zip archive");
    size_t at = z->n - 22, lowest = z->n > 22 + 65535 ? z->n - 22 - 65535 : 0;
    while (u32(z->bytes + at) != 0x06054b50 || u16(z->bytes + at + 20) != z->n - at - 22) {
        if (at == lowest) return damaged(z, "it has no list of its members at its end");
        at--;
    }
    const uint8_t *p = z->bytes + at;
    *e = (zip_end){u16(p + 10), u32(p + 12), u32(p + 16)};
    if (e->count == 0xffff || e->bytes == 0xffffffff || e->at == 0xffffffff) AY_TRY(read_end64(z, at, e));
    if (!inside(z, e->at, e->bytes) || e->count > e->bytes / 46) return damaged(z, "the list of its members does not fit into the file");
    return ALLOY_OK;
}

/* Sizes that need 64 bits are in a field of their own, in this order, those alone that are all ones in the entry. */
static alloy_status read_extra(const zip_reader *z, const uint8_t *p, size_t n, uint64_t *whole, uint64_t *packed, uint64_t *at) {
    uint64_t *const out[] = {whole, packed, at};
    while (n >= 4) {
        size_t size = u16(p + 2), k = 0;
        if (size > n - 4) break;
        for (int i = 0; u16(p) == 1 && i < 3; i++) {
            if (*out[i] != 0xffffffff) continue;
            if (k + 8 > size) return damaged(z, "a member's zip64 field is too short");
            *out[i] = u64(p + 4 + k);
            k += 8;
        }
        if (u16(p) == 1) return ALLOY_OK;
        p += 4 + size;
        n -= 4 + size;
    }
    return ALLOY_OK;
}

static alloy_status read_member(const zip_reader *z, const uint8_t *p, size_t rest, ay_arena *a, ay_zip_member *m, size_t *length) {
    char show[160];
    if (rest < 46 || u32(p) != 0x02014b50) return damaged(z, "an entry of the list of its members is broken");
    size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
    *length = 46 + name + extra + comment;
    if (*length > rest) return damaged(z, "an entry of the list of its members is cut off");
    uint64_t packed = u32(p + 20), whole = u32(p + 24), at = u32(p + 42);
    AY_TRY(read_extra(z, p + 46 + name, extra, &whole, &packed, &at));
    m->name = ay_strndup(a, (const char *)p + 46, name);
    if (!m->name) return ay_nomem(z->cx);
    m->method = u16(p + 10);
    if (u16(p + 8) & 1) {
        return ay_fail(z->cx, ALLOY_E_UNSUPPORTED, "%s: its member \"%s\" is encrypted", z->what, ay_show(m->name, show, sizeof show));
    }
    if (!inside(z, at, 30) || u32(z->bytes + at) != 0x04034b50) return damaged(z, "a member is not where the list says");
    m->offset = at + 30 + u16(z->bytes + at + 26) + u16(z->bytes + at + 28);
    m->bytes = packed;
    if (!inside(z, m->offset, packed) || (m->method == 0 && packed != whole)) return damaged(z, "a member does not fit into the file");
    return ALLOY_OK;
}

alloy_status ay_zip_read(ay_ctx *cx, const char *what, const uint8_t *bytes, size_t n, ay_arena *a, ay_zip *out) {
    zip_reader z = {cx, what, bytes, n};
    zip_end e = {0, 0, 0};
    *out = (ay_zip){NULL, 0, 0};
    AY_TRY(read_end(&z, &e));
    if (e.count > INT32_MAX / 2) return damaged(&z, "it lists more members than there can be");
    out->members = ay_alloc(a, (size_t)(e.count + 1) * sizeof *out->members);
    if (!out->members) return ay_nomem(cx);
    out->list_at = e.at;
    const uint8_t *p = bytes + e.at;
    for (size_t rest = (size_t)e.bytes, length = 0; out->n < (int)e.count; p += length, rest -= length) {
        AY_TRY(read_member(&z, p, rest, a, &out->members[out->n], &length));
        out->n++;
    }
    return ALLOY_OK;
}

const ay_zip_member *ay_zip_find(const ay_zip *z, const char *name) {
    for (int i = 0; i < z->n; i++) {
        if (strcmp(z->members[i].name, name) == 0) return &z->members[i];
    }
    return NULL;
}
