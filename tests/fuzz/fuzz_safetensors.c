/* SPDX-License-Identifier: MIT
 *
 * safetensors files: whatever opens can be read in full, is in order and covers its data exactly.
 */
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good) {
    if (!good) __builtin_trap();
}

static void walk(const ay_safetensors *st, const uint8_t *data, size_t size) {
    uint64_t sum = 0, bytes = 0, n;
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *t = &st->tensors[i];
        check(i == 0 || strcmp(st->tensors[i - 1].name, t->name) < 0);
        check(ay_st_find(st, t->name) == t);
        check(ay_dtype_bytes(t->type.dtype, ay_type_count(&t->type)) == t->bytes);
        const uint8_t *p = ay_st_data(st, t);
        for (size_t k = 0; k < t->bytes; k++) sum += p[k]; /* the sanitizer watches */
        bytes += t->bytes;
    }
    memcpy(&n, data, 8);
    check(bytes == size - 8 - n && sum <= 255 * bytes);
    for (int i = 0; st->metadata[i]; i++) check(strlen(st->metadata[i]) < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ay_ctx *cx;
    ay_safetensors *st;
    if (size < 8 || ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    /* The first 8 bytes are a header length: made to fit most of the time, so that what follows is looked at. */
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    uint64_t n;
    memcpy(&n, data, 8);
    if (n > size && (n & 7) != 7) {
        n %= size - 7;
        memcpy(copy, &n, 8);
    }
    alloy_status s = ay_st_open_bytes(cx, "fuzz", copy, size, &st);
    check((s == ALLOY_OK) == (st != NULL));
    if (st) walk(st, copy, size);
    else check(strncmp(ay_error_text(cx), "fuzz: ", 6) == 0);
    ay_st_close(&st);
    free(copy);
    ay_ctx_close(&cx);
    return 0;
}
