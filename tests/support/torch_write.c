/* SPDX-License-Identifier: MIT
 *
 * See torch_write.h. Checksums are left zero: nothing here reads them.
 */
#include "torch_write.h"

#include <stdio.h>
#include <string.h>

static void put(ay_buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++, v >>= 8) ay_buf_add(b, (char[]){(char)v}, 1);
}

static void put_header(ay_buf *b, const ay_member *m, bool central, uint64_t at, bool wide) {
    size_t name = strlen(m->name);
    put(b, central ? 0x02014b50 : 0x04034b50, 4);
    if (central) put(b, 0, 2);
    put(b, 0, 2 + 2 + 2); /* version, flags, method */
    put(b, 0, 2 + 2 + 4); /* time, date, checksum */
    put(b, wide && central ? 0xffffffff : m->n, 4);
    put(b, wide && central ? 0xffffffff : m->n, 4);
    put(b, name, 2);
    put(b, wide && central ? 28 : 0, 2);
    if (central) {
        put(b, 0, 2 + 2 + 2 + 4);
        put(b, wide ? 0xffffffff : at, 4);
    }
    ay_buf_add(b, m->name, name);
    if (wide && central) {
        put(b, 1, 2);
        put(b, 24, 2);
        put(b, m->n, 8);
        put(b, m->n, 8);
        put(b, at, 8);
    }
}

const void *ay_torch_zip(ay_test *t, const ay_member *m, int n, bool zip64, size_t *bytes) {
    ay_buf b = {0};
    uint64_t *at = ay_alloc(t->arena, (size_t)n * sizeof *at);
    for (int i = 0; i < n; i++) {
        at[i] = b.len;
        put_header(&b, &m[i], false, 0, false);
        ay_buf_add(&b, m[i].bytes, m[i].n);
    }
    uint64_t list = b.len;
    for (int i = 0; i < n; i++) put_header(&b, &m[i], true, at[i], zip64);
    uint64_t end = b.len;
    if (zip64) {
        put(&b, 0x06064b50, 4);
        put(&b, 44, 8);
        put(&b, 0, 2 + 2 + 4 + 4);
        put(&b, (uint64_t)n, 8);
        put(&b, (uint64_t)n, 8);
        put(&b, end - list, 8);
        put(&b, list, 8);
        put(&b, 0x07064b50, 4);
        put(&b, 0, 4);
        put(&b, end, 8);
        put(&b, 1, 4);
    }
    put(&b, 0x06054b50, 4);
    put(&b, 0, 4);
    put(&b, zip64 ? 0xffff : (uint64_t)n, 2);
    put(&b, zip64 ? 0xffff : (uint64_t)n, 2);
    put(&b, zip64 ? 0xffffffff : end - list, 4);
    put(&b, zip64 ? 0xffffffff : list, 4);
    put(&b, 0, 2);
    char *out = ay_alloc(t->arena, b.len + 1);
    memcpy(out, b.data, b.len);
    *bytes = b.len;
    ay_buf_free(&b);
    return out;
}

static void put_text(ay_buf *b, const char *s) {
    ay_buf_add(b, "X", 1);
    put(b, strlen(s), 4);
    ay_buf_add(b, s, strlen(s));
}

static void put_int(ay_buf *b, int64_t v) {
    ay_buf_add(b, "\x8a\x08", 2);
    put(b, (uint64_t)v, 8);
}

static const char *storage_of(ay_dtype d) {
    switch (d) {
    case AY_F16: return "HalfStorage";
    case AY_BF16: return "BFloat16Storage";
    case AY_I64: return "LongStorage";
    default: return "FloatStorage";
    }
}

static void put_tensor(ay_buf *b, const ay_tensor *x, int key) {
    char text[16];
    int64_t stride[AY_MAX_RANK], step = 1;
    snprintf(text, sizeof text, "%d", key);
    put_text(b, x->name);
    ay_buf_printf(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(b, "storage");
    ay_buf_printf(b, "ctorch\n%s\n", storage_of(x->type.dtype));
    put_text(b, text);
    put_text(b, "cpu");
    put_int(b, ay_type_count(&x->type));
    ay_buf_add(b, "tQK\0(", 5);
    for (int i = x->type.rank - 1; i >= 0; i--) stride[i] = step, step *= x->type.dim[i];
    for (int i = 0; i < x->type.rank; i++) put_int(b, x->type.dim[i]);
    ay_buf_add(b, "t(", 2);
    for (int i = 0; i < x->type.rank; i++) put_int(b, stride[i]);
    ay_buf_printf(b, "t\x89" "ccollections\nOrderedDict\n)RtR");
}

void ay_torch_write(ay_test *t, const char *path, const ay_tensor *x, int n, bool nested) {
    ay_buf b = {0};
    ay_member *m = ay_alloc(t->arena, (size_t)(n + 2) * sizeof *m);
    ay_buf_add(&b, "\x80\x02", 2);
    if (nested) {
        ay_buf_add(&b, "}(", 2);
        put_text(&b, "global_step");
        put_int(&b, 470000);
        put_text(&b, "state_dict");
    }
    ay_buf_add(&b, "}(", 2);
    for (int i = 0; i < n; i++) {
        put_tensor(&b, &x[i], i);
        m[i + 2] = (ay_member){ay_sprintf(t->arena, "archive/data/%d", i), x[i].data, ay_dtype_bytes(x[i].type.dtype, ay_type_count(&x[i].type))};
    }
    ay_buf_add(&b, nested ? "uu." : "u.", nested ? 3 : 2);
    m[0] = (ay_member){"archive/data.pkl", b.data, b.len};
    m[1] = (ay_member){"archive/byteorder", "little", 6};
    size_t bytes;
    const void *zip = ay_torch_zip(t, m, n + 2, false, &bytes);
    ay_test_write(t, path, zip, bytes);
    ay_buf_free(&b);
}
