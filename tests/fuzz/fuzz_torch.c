/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a PyTorch checkpoint, and as the pickle of one: an error sentence or tensors inside the file.
 */
#include "base/base.h"
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An archive with data.pkl = the bytes and a storage "0" of 16 bytes. */
static uint8_t *wrap(const uint8_t *data, size_t size, size_t *n) {
    static const char *const names[] = {"a/data.pkl", "a/data/0"};
    static const uint8_t zeros[16];
    const uint8_t *bytes[] = {data, zeros};
    size_t length[] = {size, 16}, at[2], k = 0;
    uint8_t *z = calloc(1, size + 512);
    if (!z) return NULL;
    for (int i = 0; i < 2; i++) {
        uint32_t l = (uint32_t)length[i];
        at[i] = k;
        memcpy(z + k, "PK\3\4", 4);
        memcpy(z + k + 18, &l, 4);
        memcpy(z + k + 22, &l, 4);
        z[k + 26] = (uint8_t)strlen(names[i]);
        memcpy(z + k + 30, names[i], strlen(names[i]));
        k += 30 + strlen(names[i]);
        if (l) memcpy(z + k, bytes[i], l);
        k += l;
    }
    uint32_t list = (uint32_t)k, list_n;
    for (int i = 0; i < 2; i++) {
        uint32_t l = (uint32_t)length[i], a = (uint32_t)at[i];
        memcpy(z + k, "PK\1\2", 4);
        memcpy(z + k + 20, &l, 4);
        memcpy(z + k + 24, &l, 4);
        z[k + 28] = (uint8_t)strlen(names[i]);
        memcpy(z + k + 42, &a, 4);
        memcpy(z + k + 46, names[i], strlen(names[i]));
        k += 46 + strlen(names[i]);
    }
    list_n = (uint32_t)k - list;
    memcpy(z + k, "PK\5\6", 4);
    z[k + 8] = z[k + 10] = 2;
    memcpy(z + k + 12, &list_n, 4);
    memcpy(z + k + 16, &list, 4);
    *n = k + 22;
    return z;
}

static void check(ay_ctx *cx, const uint8_t *bytes, size_t n) {
    ay_safetensors *st;
    if (ay_torch_open_bytes(cx, "fuzz", bytes, n, &st) != ALLOY_OK) {
        if (!*ay_error_text(cx)) abort();
        return;
    }
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *t = &st->tensors[i];
        if (t->offset > n || t->bytes > n - t->offset || ay_type_count(&t->type) < 0) abort();
        volatile uint8_t touch = 0;
        for (size_t k = 0; k < t->bytes; k += 61) touch ^= bytes[t->offset + k];
        if (ay_st_find(st, t->name) != t) abort();
    }
    ay_st_close(&st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ay_ctx *cx;
    if (!cx && ay_ctx_open(1, &cx) != ALLOY_OK) abort();
    uint8_t *copy = malloc(size + 1); /* of exactly this length for the sanitizer */
    if (!copy) return 0;
    uint8_t *exact = realloc(copy, size ? size : 1);
    if (!exact) abort();
    if (size) memcpy(exact, data, size);
    check(cx, exact, size);
    free(exact);
    if (size > 1 << 20) return 0;
    size_t n;
    uint8_t *z = wrap(data, size, &n);
    if (z) check(cx, z, n);
    free(z);
    return 0;
}
