/* SPDX-License-Identifier: MIT
 *
 * See gguf_write.h.
 */
#include "gguf_write.h"

#include "base/half.h"

#include <stdio.h>
#include <string.h>

static void put(ay_buf *b, uint64_t v, int bytes) {
    for (int i = 0; i < bytes; i++, v >>= 8) ay_buf_add(b, (char[]){(char)v}, 1);
}

static void put_text(ay_buf *b, const char *s) {
    put(b, strlen(s), 8);
    ay_buf_add(b, s, strlen(s));
}

static uint32_t type_of(ay_dtype d, ay_block block) {
    static const uint8_t blocks[AY_BLOCK_COUNT] = {0, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14};
    return block ? blocks[block] : d == AY_F16 ? 1 : d == AY_BF16 ? 30 : 0;
}

static size_t bytes_of(const ay_tensor *x, ay_block block) {
    int64_t n = ay_type_count(&x->type);
    return block ? (size_t)(n / ay_block_elements(block) * ay_block_bytes(block)) : ay_dtype_bytes(x->type.dtype, n);
}

/* Rows that are no whole blocks are written as rows of 256, with the true shape among the settings. */
static bool reshaped(const ay_tensor *x, ay_block block) { return block && x->type.dim[x->type.rank - 1] % ay_block_elements(block); }

static void put_shape(ay_buf *b, const ay_tensor *x) {
    char key[300];
    snprintf(key, sizeof key, "comfy.gguf.orig_shape.%s", x->name);
    put_text(b, key);
    put(b, 9, 4);
    put(b, 5, 4);
    put(b, (uint64_t)x->type.rank, 8);
    for (int d = 0; d < x->type.rank; d++) put(b, (uint64_t)x->type.dim[d], 4);
}

void ay_gguf_write(ay_test *t, const char *path, const ay_tensor *x, const ay_block *blocks, int n) {
    ay_buf b = {0};
    uint64_t at = 0, settings = 1;
    for (int i = 0; blocks && i < n; i++) settings += reshaped(&x[i], blocks[i]);
    put(&b, 0x46554747, 4);
    put(&b, 3, 4);
    put(&b, (uint64_t)n, 8);
    put(&b, settings, 8);
    put_text(&b, "general.architecture");
    put(&b, 8, 4);
    put_text(&b, "test");
    for (int i = 0; blocks && i < n; i++) {
        if (reshaped(&x[i], blocks[i])) put_shape(&b, &x[i]);
    }
    for (int i = 0; i < n; i++) {
        ay_block block = blocks ? blocks[i] : AY_BLOCK_NONE;
        ay_type type = x[i].type;
        if (reshaped(&x[i], block)) type = (ay_type){type.dtype, 2, {ay_type_count(&type) / 256, 256}};
        put_text(&b, x[i].name);
        put(&b, (uint64_t)type.rank, 4);
        for (int d = type.rank - 1; d >= 0; d--) put(&b, (uint64_t)type.dim[d], 8);
        put(&b, type_of(type.dtype, block), 4);
        put(&b, at, 8);
        at += (bytes_of(&x[i], block) + 31) / 32 * 32;
    }
    while (b.len % 32) put(&b, 0, 1);
    for (int i = 0; i < n; i++) {
        ay_buf_add(&b, x[i].data, bytes_of(&x[i], blocks ? blocks[i] : AY_BLOCK_NONE));
        while (b.len % 32) put(&b, 0, 1);
    }
    assert_false(b.failed);
    ay_test_write(t, path, b.data, b.len);
    ay_buf_free(&b);
}

void *ay_gguf_random(ay_test *t, ay_block block, int64_t elements, uint64_t *seed) {
    /* where the float16 numbers of a block are */
    static const int halves[AY_BLOCK_COUNT][2] = {{0, 0}, {0, 0}, {0, 2}, {0, 0}, {0, 2}, {0, 0}, {80, 82}, {108, 108}, {0, 2}, {0, 2}, {208, 208}};
    size_t size = (size_t)ay_block_bytes(block), n = (size_t)(elements / ay_block_elements(block));
    uint8_t *p = ay_alloc(t->arena, n * size);
    for (size_t i = 0; i < n * size; i++) p[i] = (uint8_t)ay_test_random(seed);
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) {
            uint16_t h = ay_f32_to_f16(0.002f * ay_test_uniform(seed));
            memcpy(p + i * size + halves[block][k], &h, 2);
        }
    }
    return p;
}
