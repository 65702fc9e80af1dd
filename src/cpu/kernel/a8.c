/* SPDX-License-Identifier: MIT
 *
 * Quantising activations: rows of a product, pixels of a picture. One pass writes every block and sums up how much noise its
 * rounding makes; then the noisiest blocks are chosen, and a second pass writes what their codes left. The sums are kept by
 * tile and added up in order, so that the choice does not depend on threads.
 */
#include "cpu/kernel/i8.h"

#include <string.h>

enum { PIXELS = 128, PANELS = 4 }; /* a tile */
enum { SOME = 64 };                /* blocks of a panel that are written one row after the other, into the first cache */

typedef struct job {
    const ay_a8 *rows; /* one of both */
    const ay_a8_picture *picture;
    const ay_a8_row *row;
    int64_t mr, blocks, room, tiles; /* tiles: of all pictures */
    ay_a8_head *head;
    char *out;
    float *stats; /* [tile][2][blocks], then the sums [2][blocks] */
} job;

static job job_of(ay_isa isa, int64_t k, void *out, const ay_exec *ex) {
    return (job){.row = ay_a8_pick(isa),
                 .mr = ay_gemm_i8_pick(isa)->mr,
                 .blocks = ay_a8_blocks(k),
                 .room = ay_a8_room(k),
                 .head = out,
                 .out = (char *)out + ay_a8_head_bytes(k),
                 .stats = ex ? ex->scratch : NULL};
}

static size_t stats_bytes(int64_t tiles, int64_t blocks) { return (size_t)((tiles + 1) * 2 * blocks) * sizeof(float) + 64; }

/* ---- which blocks are doubled ------------------------------------------------------------------------------------- */

static void choose(const job *j, float tolerance) {
    float *noise = j->stats + j->tiles * 2 * j->blocks, *power = noise + j->blocks;
    double total = 0, all = 0, least = (double)tolerance * (double)tolerance * 12 / AY_I8_BLOCK;
    memset(noise, 0, (size_t)(2 * j->blocks) * sizeof(float));
    for (int64_t t = 0; t < j->tiles; t++) {
        for (int64_t b = 0; b < 2 * j->blocks; b++) noise[b] += j->stats[t * 2 * j->blocks + b];
    }
    for (int64_t b = 0; b < j->blocks; b++) {
        total += (double)noise[b];
        all += (double)power[b];
    }
    int32_t n = 0;
    while (n < j->room - j->blocks && total > least * all) { /* never when a number is not finite */
        int64_t top = 0;
        for (int64_t b = 1; b < j->blocks; b++) top = noise[b] > noise[top] ? b : top;
        if (noise[top] <= 0) break;
        total -= (double)noise[top];
        noise[top] = -1;
        n++;
    }
    j->head->n = 0;
    for (int64_t b = 0; b < j->blocks && n > 0; b++) {
        if (noise[b] < 0) j->head->block[j->head->n++] = (int32_t)b;
    }
}

enum { AGAIN = 16 }; /* blocks, or pixels, whose rests are quantised together */

/** What a record leaves of `count` numbers `step` apart, to out `step_out` apart. */
static void rest(const float *x, int64_t step, int64_t count, const char *record, float *out, int64_t step_out) {
    float scale;
    memcpy(&scale, record + AY_I8_BLOCK, sizeof scale);
    for (int64_t i = 0; i < count; i++) out[i * step_out] = x[i * step] - (float)((const int8_t *)record)[i] * scale;
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/** Blocks b0 .. b1 of the rows of a panel, m on. */
static void rows_panel(const job *j, int64_t m, int64_t b0, int64_t b1, float *stats) {
    const ay_a8 *q = j->rows;
    int64_t rows = ay_min_i64(j->mr, q->m - m), whole = ay_min_i64(b1, q->k / AY_I8_BLOCK);
    for (int64_t i = 0; i < rows; i++) {
        const float *x = q->a + (m + i) * q->lda + b0 * AY_I8_BLOCK, *next = i + 1 < rows ? x + q->lda : x - i * q->lda + SOME * AY_I8_BLOCK;
        char *to = j->out + (m * j->room + b0 * rows + i) * AY_I8_RECORD;
        j->row->row(whole - b0, x, next, to, rows * AY_I8_RECORD, stats + b0, stats + j->blocks + b0);
        if (whole == b1) continue;
        float last[AY_I8_BLOCK] = {0};
        memcpy(last, x + (whole - b0) * AY_I8_BLOCK, (size_t)(q->k - whole * AY_I8_BLOCK) * sizeof(float));
        j->row->row(1, last, last, to + (whole - b0) * rows * AY_I8_RECORD, 0, stats + whole, stats + j->blocks + whole);
    }
}

static void rows_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    int64_t first = tile * PANELS * j->mr, end = ay_min_i64(j->rows->m, first + PANELS * j->mr);
    float *stats = j->stats + tile * 2 * j->blocks;
    memset(stats, 0, (size_t)(2 * j->blocks) * sizeof(float));
    for (int64_t m = first; m < end; m += j->mr) {
        for (int64_t b = 0; b < j->blocks; b += SOME) rows_panel(j, m, b, ay_min_i64(j->blocks, b + SOME), stats);
    }
}

/** Doubled blocks e0 .. e0 + n <= AGAIN of a row: x, whose first record is at `to`, the others `step` bytes apart. */
static void row_again(const job *j, const float *x, char *to, int64_t step, int64_t e0, int64_t n) {
    float left[AGAIN * AY_I8_BLOCK] = {0}, unused[2 * AGAIN] = {0};
    for (int64_t e = 0; e < n; e++) {
        int64_t b = j->head->block[e0 + e], count = ay_min_i64(AY_I8_BLOCK, j->rows->k - b * AY_I8_BLOCK);
        float *out = left + e * AY_I8_BLOCK;
        if (count == AY_I8_BLOCK) j->row->rest(x + b * AY_I8_BLOCK, to + b * step, out);
        else rest(x + b * AY_I8_BLOCK, 1, count, to + b * step, out, 1);
    }
    j->row->row(n, left, left, to + (j->blocks + e0) * step, step, unused, unused + AGAIN);
}

static void rows_again(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_a8 *q = j->rows;
    int64_t first = tile * PANELS * j->mr, end = ay_min_i64(q->m, first + PANELS * j->mr);
    for (int64_t m = first; m < end; m++) {
        int64_t panel = m / j->mr * j->mr, rows = ay_min_i64(j->mr, q->m - panel);
        char *to = j->out + (panel * j->room + (m - panel)) * AY_I8_RECORD;
        for (int64_t e = 0; e < j->head->n; e += AGAIN)
            row_again(j, q->a + m * q->lda, to, rows * AY_I8_RECORD, e, ay_min_i64(AGAIN, j->head->n - e));
    }
}

size_t ay_a8_scratch(ay_isa isa, int64_t m, int64_t k) {
    return stats_bytes(ay_div_up(m, PANELS * ay_gemm_i8_pick(isa)->mr), ay_a8_blocks(k));
}

void ay_a8_run(const ay_exec *ex, const ay_a8 *q) {
    job j = job_of(ex->isa, q->k, q->out, ex);
    j.rows = q;
    j.tiles = ay_div_up(q->m, PANELS * j.mr);
    ay_parallel(ex->pool, j.tiles, rows_tile, &j, ex->stop);
    choose(&j, q->tolerance);
    if (j.head->n > 0) ay_parallel(ex->pool, j.tiles, rows_again, &j, ex->stop);
}

/* ---- pictures ----------------------------------------------------------------------------------------------------- */

/** Of block b of picture `at`, pixel p on. */
static char *pixel_records(const job *j, int64_t at, int64_t b, int64_t p) {
    return j->out + ((at * j->room + b) * (j->picture->plane + 1) + p) * AY_I8_RECORD;
}

static void picture_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_a8_picture *q = j->picture;
    int64_t tiles = ay_div_up(q->plane, PIXELS), at = tile / tiles, p0 = tile % tiles * PIXELS, n = ay_min_i64(PIXELS, q->plane - p0);
    int64_t pitch = q->pitch ? q->pitch : q->plane;
    float *stats = j->stats + tile * 2 * j->blocks;
    for (int64_t b = 0; b < j->blocks; b++) {
        const float *x = q->x + (at * q->c + b * AY_I8_BLOCK) * pitch + p0;
        float sums[2] = {0, 0};
        j->row->pixels(n, x, x + AY_I8_BLOCK * pitch, pitch, pixel_records(j, at, b, p0), AY_I8_RECORD, sums);
        if (p0 + n == q->plane) memset(pixel_records(j, at, b, q->plane), 0, AY_I8_RECORD);
        stats[b] = sums[0];
        stats[j->blocks + b] = sums[1];
    }
}

static void picture_again(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const ay_a8_picture *q = j->picture;
    int64_t tiles = ay_div_up(q->plane, PIXELS), at = tile / tiles, p0 = tile % tiles * PIXELS, n = ay_min_i64(PIXELS, q->plane - p0);
    int64_t pitch = q->pitch ? q->pitch : q->plane;
    for (int32_t e = 0; e < j->head->n; e++) {
        int64_t b = j->head->block[e];
        const float *x = q->x + (at * q->c + b * AY_I8_BLOCK) * pitch + p0;
        for (int64_t p = 0; p < n; p += AGAIN) {
            float left[AY_I8_BLOCK * AGAIN], unused[2] = {0, 0};
            int64_t some = ay_min_i64(AGAIN, n - p);
            for (int64_t i = 0; i < some; i++) rest(x + p + i, pitch, AY_I8_BLOCK, pixel_records(j, at, b, p0 + p + i), left + i, AGAIN);
            j->row->pixels(some, left, left, AGAIN, pixel_records(j, at, j->blocks + e, p0 + p), AY_I8_RECORD, unused);
        }
        if (p0 + n == q->plane) memset(pixel_records(j, at, j->blocks + e, q->plane), 0, AY_I8_RECORD);
    }
}

size_t ay_a8_picture_scratch(int64_t n, int64_t c, int64_t plane) { return stats_bytes(n * ay_div_up(plane, PIXELS), ay_a8_blocks(c)); }

void ay_a8_picture_run(const ay_exec *ex, const ay_a8_picture *q) {
    job j = job_of(ex->isa, q->c, q->out, ex);
    j.picture = q;
    j.tiles = q->n * ay_div_up(q->plane, PIXELS);
    ay_parallel(ex->pool, j.tiles, picture_tile, &j, ex->stop);
    choose(&j, q->tolerance);
    if (j.head->n > 0) ay_parallel(ex->pool, j.tiles, picture_again, &j, ex->stop);
}
