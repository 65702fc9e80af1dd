/* SPDX-License-Identifier: MIT
 *
 * The table of element types, and what follows from a type: bytes, text, equality.
 */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

typedef struct dtype_row {
    const char *name;
    int bits;
    bool is_float;
} dtype_row;

static const dtype_row rows[AY_DTYPE_COUNT] = {
    [AY_NONE] = {"none", 0, false},
    [AY_F64] = {"float64", 64, true},
    [AY_F32] = {"float32", 32, true},
    [AY_F16] = {"float16", 16, true},
    [AY_BF16] = {"bfloat16", 16, true},
    [AY_F8E4M3] = {"float8_e4m3fn", 8, true},
    [AY_F8E5M2] = {"float8_e5m2", 8, true},
    [AY_I64] = {"int64", 64, false},
    [AY_I32] = {"int32", 32, false},
    [AY_I16] = {"int16", 16, false},
    [AY_I8] = {"int8", 8, false},
    [AY_I4] = {"int4", 4, false},
    [AY_U64] = {"uint64", 64, false},
    [AY_U32] = {"uint32", 32, false},
    [AY_U16] = {"uint16", 16, false},
    [AY_U8] = {"uint8", 8, false},
    [AY_U6] = {"uint6", 6, false},
    [AY_U4] = {"uint4", 4, false},
    [AY_U3] = {"uint3", 3, false},
    [AY_U2] = {"uint2", 2, false},
    [AY_U1] = {"uint1", 1, false},
    [AY_BOOL] = {"bool", 8, false},
};

/* ggml, src/ggml-common.h: block_q4_0 and those after it */
static const struct {
    const char *name;
    int elements, bytes;
} blocks[AY_BLOCK_COUNT] = {
    [AY_BLOCK_NONE] = {"none", 1, 0},
    [AY_BLOCK_Q4_0] = {"Q4_0", 32, 2 + 16},
    [AY_BLOCK_Q4_1] = {"Q4_1", 32, 4 + 16},
    [AY_BLOCK_Q5_0] = {"Q5_0", 32, 2 + 4 + 16},
    [AY_BLOCK_Q5_1] = {"Q5_1", 32, 4 + 4 + 16},
    [AY_BLOCK_Q8_0] = {"Q8_0", 32, 2 + 32},
    [AY_BLOCK_Q2_K] = {"Q2_K", 256, 16 + 64 + 4},
    [AY_BLOCK_Q3_K] = {"Q3_K", 256, 32 + 64 + 12 + 2},
    [AY_BLOCK_Q4_K] = {"Q4_K", 256, 4 + 12 + 128},
    [AY_BLOCK_Q5_K] = {"Q5_K", 256, 4 + 12 + 32 + 128},
    [AY_BLOCK_Q6_K] = {"Q6_K", 256, 128 + 64 + 16 + 2},
};

const char *ay_block_name(ay_block b) { return blocks[(unsigned)b < AY_BLOCK_COUNT ? b : AY_BLOCK_NONE].name; }
int ay_block_elements(ay_block b) { return blocks[(unsigned)b < AY_BLOCK_COUNT ? b : AY_BLOCK_NONE].elements; }
int ay_block_bytes(ay_block b) { return blocks[(unsigned)b < AY_BLOCK_COUNT ? b : AY_BLOCK_NONE].bytes; }

static const dtype_row *row_of(ay_dtype t) { return &rows[(unsigned)t < AY_DTYPE_COUNT ? t : AY_NONE]; }

const char *ay_dtype_name(ay_dtype t) { return row_of(t)->name; }
int ay_dtype_bits(ay_dtype t) { return row_of(t)->bits; }
bool ay_dtype_is_float(ay_dtype t) { return row_of(t)->is_float; }

size_t ay_dtype_bytes(ay_dtype t, int64_t count) {
    size_t bits = (size_t)ay_dtype_bits(t);
    if (count < 0 || (bits && (uint64_t)count > (SIZE_MAX - 7) / bits)) return SIZE_MAX;
    return ((size_t)count * bits + 7) / 8;
}

int64_t ay_type_count(const ay_type *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 0 || __builtin_mul_overflow(n, t->dim[i], &n)) return -1;
    }
    return n;
}

char *ay_type_text(const ay_type *t, char *text) {
    int n = snprintf(text, 160, "%s[", ay_dtype_name(t->dtype));
    for (int i = 0; i < t->rank && n < 130; i++) n += snprintf(text + n, (size_t)(160 - n), i ? ", %lld" : "%lld", (long long)t->dim[i]);
    snprintf(text + n, (size_t)(160 - n), "]");
    return text;
}

bool ay_type_equal(const ay_type *a, const ay_type *b) {
    return a->dtype == b->dtype && a->rank == b->rank && memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}
