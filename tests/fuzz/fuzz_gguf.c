/* SPDX-License-Identifier: MIT
 *
 * Any bytes as GGUF: an error sentence, or tensors inside the file that can be read.
 */
#include "io/io.h"
#include "quant/blocks.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good) {
    if (!good) __builtin_trap();
}

static void walk(const ay_safetensors *st, size_t size) {
    volatile uint64_t sum = 0;
    for (int i = 0; i < st->n; i++) {
        const ay_st_tensor *t = &st->tensors[i];
        int64_t n = ay_type_count(&t->type);
        check(t->offset <= size && t->bytes <= size - t->offset && n >= 0);
        check(i == 0 || strcmp(st->tensors[i - 1].name, t->name) < 0);
        const uint8_t *p = ay_st_data(st, t);
        for (size_t k = 0; k < t->bytes; k++) sum += p[k];
        float out[300];
        if (t->block && n) ay_blocks_read(t->block, p, n > 300 ? n - 300 : 0, ay_min_i64(n, 300), out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ay_ctx *cx;
    ay_safetensors *st;
    if (size < 8 || ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    uint8_t *copy = malloc(size);
    memcpy(copy, data, size);
    if (data[0] & 1) memcpy(copy, "GGUF\3\0\0\0", 8); /* so that what follows is looked at */
    alloy_status s = ay_gguf_open_bytes(cx, "fuzz", copy, size, &st);
    check((s == ALLOY_OK) == (st != NULL));
    if (st) walk(st, size);
    else check(strncmp(ay_error_text(cx), "fuzz: ", 6) == 0);
    ay_st_close(&st);
    free(copy);
    ay_ctx_close(&cx);
    return 0;
}
