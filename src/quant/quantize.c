/* SPDX-License-Identifier: MIT
 *
 * Quantising one weight: its rows are cut into tiles, which all cores work on while the tiles before them are written.
 * Memory is a few tiles for each thread, whatever the weight's size.
 */
#include "quant/quantize.h"

#include "base/half.h"
#include "base/isa.h"
#include "base/pool.h"
#include "quant/convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

float ay_quant_round(float x, bool half) { return half ? ay_f16_to_f32(ay_f32_to_f16(x)) : x; }
void ay_quant_store(const float *x, int64_t n, bool half, void *out) {
    ay_convert_from_f32(half ? AY_F16 : AY_F32, x, n, out);
}

void ay_quantized_free(ay_quantized *q) {
    free(q->scale);
    free(q->lut);
    free(q->factor);
    *q = (ay_quantized){0};
}

/* ---- geometry ------------------------------------------------------------------------------------------------------ */

bool ay_quant_storage(ay_quant_kind *kind, const ay_type *type, ay_weight *w) {
    int64_t count = ay_type_count(type);
    if (*kind == AY_QUANT_NONE || type->rank < 2 || type->rank > 5 || count < 1) return false;
    if (type->dtype != AY_F16 && type->dtype != AY_F32) return false;
    *w = (ay_weight){.rank = type->rank, .value_dtype = type->dtype};
    memcpy(w->dim, type->dim, sizeof w->dim);
    for (int i = 0; i < AY_MAX_RANK; i++) w->scale_dim[i] = i < w->rank && !ay_quant_is_palette(*kind);
    if (ay_quant_is_palette(*kind)) {
        static const ay_dtype codes[] = {
            [AY_QUANT_PALETTE4] = AY_U4, [AY_QUANT_PALETTE6] = AY_U6, [AY_QUANT_PALETTE8] = AY_U8};
        w->store = AY_STORE_LUT;
        w->data_dtype = codes[*kind];
        w->lut_dtype = type->dtype;
        for (int i = 0; i < w->rank; i++) w->lut_dim[i] = 1;
        w->lut_dim[w->rank] = (int64_t)1 << ay_dtype_bits(w->data_dtype);
        w->lut_dim[w->rank + 1] = 1;
        return true;
    }
    int64_t block = type->dtype == AY_F32 && w->dim[1] % 64 == 0 ? 64 : 32;
    if (w->dim[1] % block != 0) *kind = AY_QUANT_INT8;
    w->store = AY_STORE_BLOCK;
    w->scale_dtype = type->dtype;
    w->scale_dim[0] = w->dim[0];
    w->data_dtype = *kind == AY_QUANT_INT8 ? AY_I8 : AY_I4;
    if (*kind == AY_QUANT_INT4) w->scale_dim[1] = w->dim[1] / block;
    return true;
}

/* ---- tiles --------------------------------------------------------------------------------------------------------- */

enum { TILE = 1 << 15, TILES_PER_THREAD = 4 };

typedef struct batch {
    const ay_quant_pass *p;
    int64_t tile_rows, first, n; /* rows of one tile; tiles [first, first + n) */
    uint8_t *out, *before;       /* what is being made, what the batch before made */
    size_t before_bytes;
    float *scratch;
    size_t scratch_floats; /* of one thread */
    alloy_status written;
} batch;

static size_t row_bits(const ay_quant_pass *p, int64_t rows) { return (size_t)(rows * p->row_len) * (size_t)p->bits; }

/* Tile 0 is the writing of the batch before. */
static void run_tile(void *arg, int64_t tile, int thread) {
    batch *b = arg;
    const ay_quant_pass *p = b->p;
    if (tile == 0) {
        if (b->before_bytes) b->written = p->put(p->put_user, b->before, b->before_bytes);
        return;
    }
    int64_t first = (b->first + tile - 1) * p->every * b->tile_rows, n = ay_min_i64(b->tile_rows, p->n_rows - first);
    float *x = b->scratch + (size_t)thread * b->scratch_floats;
    p->rows->read(p->rows->user, first * p->row_len, n * p->row_len, x);
    p->tile(p->arg, first, n, x, b->out + row_bits(p, (tile - 1) * b->tile_rows) / 8, x + b->tile_rows * p->row_len, thread);
}

static alloy_status run_batches(batch *b, int64_t tiles, int64_t per_batch) {
    const ay_quant_pass *p = b->p;
    ay_ctx *cx = p->cx;
    for (b->first = 0; b->first < tiles; b->first += per_batch) {
        b->n = ay_min_i64(per_batch, tiles - b->first);
        ay_parallel(cx->pool, b->n + 1, run_tile, b, &cx->stop);
        AY_TRY(ay_check_stop(cx));
        AY_TRY(b->written);
        int64_t begin = b->first * p->every * b->tile_rows,
                end = ay_min_i64((b->first + b->n) * p->every * b->tile_rows, p->n_rows);
        uint8_t *made = b->out;
        b->out = b->before;
        b->before = made;
        int64_t rows = ay_min_i64(b->n * b->tile_rows, p->n_rows - begin);
        b->before_bytes = p->put && p->bits ? (row_bits(p, rows) + 7) / 8 : 0;
        if (p->rows->passed) p->rows->passed(p->rows->user, begin * p->row_len, end * p->row_len, p->last);
    }
    return b->before_bytes ? p->put(p->put_user, b->before, b->before_bytes) : ALLOY_OK;
}

alloy_status ay_quant_run(const ay_quant_pass *p) {
    ay_ctx *cx = p->cx;
    int threads = ay_pool_threads(cx->pool);
    int64_t whole = row_bits(p, 1) % 8 == 0 ? 1 : 8; /* rows after which codes end with a byte */
    batch b = {.p = p, .written = ALLOY_OK};
    b.tile_rows = ay_max_i64(1, TILE / p->row_len / whole) * whole;
    int64_t tiles = ay_div_up(ay_div_up(p->n_rows, b.tile_rows), p->every), per_batch = (int64_t)threads * TILES_PER_THREAD;
    b.scratch_floats = (size_t)(b.tile_rows * p->row_len) + p->extra;
    size_t out = row_bits(p, per_batch * b.tile_rows) / 8 + 8;
    b.scratch = calloc((size_t)threads, b.scratch_floats * sizeof(float));
    b.out = malloc(out);
    b.before = malloc(out);
    alloy_status st = b.scratch && b.out && b.before ? run_batches(&b, tiles, per_batch) : ay_nomem(cx);
    free(b.scratch);
    free(b.out);
    free(b.before);
    return st;
}

/* ---- one scale for each run ---------------------------------------------------------------------------------------- */

static const ay_quant_level *level_of(const ay_ctx *cx) {
#if defined(__x86_64__)
    if (ay_isa_allows((ay_isa)cx->isa, AY_ISA_AVX512)) return &ay_quant_level_avx512;
    if (ay_isa_allows((ay_isa)cx->isa, AY_ISA_AVX2)) return &ay_quant_level_avx2;
#elif defined(__aarch64__)
    if (ay_isa_allows((ay_isa)cx->isa, AY_ISA_NEON)) return &ay_quant_level_neon;
#endif
    return &ay_quant_level_c;
}

typedef struct blocks {
    ay_quant_runs_fn search;
    const ay_weight *w;
    int64_t run, runs_per_row;
    float *scale;           /* of every run */
    double *error2, *norm2; /* of every row's tile, added up in order afterwards */
} blocks;

static void block_tile(void *arg, int64_t first, int64_t n, const float *x, uint8_t *out, float *scratch, int thread) {
    const blocks *b = arg;
    (void)thread;
    b->search(x, n * b->runs_per_row, b->run, b->w->value_dtype == AY_F16, out, b->scale + first * b->runs_per_row,
              &b->error2[first], &b->norm2[first], scratch);
}

/* Which number cannot be stored, said with its place: looked for when the sum of squares leaves room for one. */
static alloy_status check_range(ay_ctx *cx, const char *name, const ay_weight *w, const ay_quant_rows *rows, int64_t count) {
    enum { PIECE = 4096 };
    float x[PIECE], most = w->value_dtype == AY_F16 ? 65504.0f : 1e18f;
    for (int64_t at = 0; at < count; at += PIECE) {
        int64_t n = ay_min_i64(PIECE, count - at);
        rows->read(rows->user, at, n, x);
        for (int64_t i = 0; i < n; i++) {
            if (fabsf(x[i]) <= most) continue;
            return ay_fail(cx, ALLOY_E_UNSUPPORTED,
                           "\"%s\" has %g at element %lld, which cannot be quantised (the largest that can is %g); "
                           "convert with --quantization float32",
                           name, (double)x[i], (long long)(at + i), (double)most);
        }
    }
    return ALLOY_OK;
}

static alloy_status quantize_blocks(ay_ctx *cx, const char *name, const ay_weight *w, int64_t count,
                                    const ay_quant_rows *rows, ay_quant_put put, void *user, ay_quantized *out) {
    int64_t n = w->dim[0], len = count / n, runs = w->scale_dim[1];
    size_t n_scales = (size_t)(n * runs), size = (size_t)ay_dtype_bits(w->scale_dtype) / 8;
    blocks b = {.w = w, .run = len / runs, .runs_per_row = runs};
    b.search = w->data_dtype == AY_I8 ? level_of(cx)->int8 : level_of(cx)->int4;
    b.scale = malloc(n_scales * sizeof *b.scale);
    b.error2 = calloc((size_t)n, 2 * sizeof *b.error2);
    out->scale = malloc(n_scales * size);
    alloy_status st = b.scale && b.error2 && out->scale ? ALLOY_OK : ay_nomem(cx);
    if (st == ALLOY_OK) {
        b.norm2 = b.error2 + n;
        ay_quant_pass p = {.cx = cx,
                           .name = name,
                           .w = w,
                           .rows = rows,
                           .n_rows = n,
                           .row_len = len,
                           .bits = ay_dtype_bits(w->data_dtype),
                           .every = 1,
                           .last = true,
                           .put = put,
                           .put_user = user,
                           .extra = (size_t)(16 * b.run + 32),
                           .tile = block_tile,
                           .arg = &b};
        st = ay_quant_run(&p);
    }
    if (st == ALLOY_OK) {
        for (int64_t i = 0; i < n; i++) {
            out->error2 += b.error2[i];
            out->norm2 += b.norm2[i];
        }
        ay_quant_store(b.scale, (int64_t)n_scales, w->scale_dtype == AY_F16, out->scale);
    }
    free(b.scale);
    free(b.error2);
    return st;
}

alloy_status ay_quantize(ay_ctx *cx, const char *name, const ay_weight *w, bool factors, const ay_quant_rows *rows,
                         ay_quant_put put, void *user, ay_quantized *out) {
    *out = (ay_quantized){0};
    int64_t count = 1;
    for (int i = 0; i < w->rank; i++) count *= w->dim[i];
    alloy_status st = w->store == AY_STORE_LUT ? ay_quant_palette(cx, name, w, factors, rows, put, user, out)
                                               : quantize_blocks(cx, name, w, count, rows, put, user, out);
    if (st == ALLOY_OK && !(out->norm2 < 65504.0 * 65504.0 && isfinite(out->error2)))
        st = check_range(cx, name, w, rows, count);
    if (st != ALLOY_OK) ay_quantized_free(out);
    return st;
}
