/* SPDX-License-Identifier: MIT
 *
 * Where the numbers of one parameter come from, and those numbers: slices, swapped halves and transposes of a file's tensors,
 * read where they lie in the map.
 */
#include "source/lora.h"
#include "source/source_internal.h"

#include "base/half.h"
#include "base/pool.h"
#include "quant/blocks.h"
#include "quant/weight.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which elements ------------------------------------------------------------------------------------------------ */

/* Equal from dimension `from` on, but for trailing dimensions of one: a 1x1 convolution may stand where a linear layer is
 * asked for. */
static bool same_shape(const ay_type *a, const ay_type *b, int from) {
    int n = a->rank < b->rank ? a->rank : b->rank;
    for (int i = from; i < n; i++) {
        if (a->dim[i] != b->dim[i]) return false;
    }
    for (int i = n; i < a->rank; i++) {
        if (a->dim[i] != 1) return false;
    }
    for (int i = n; i < b->rank; i++) {
        if (b->dim[i] != 1) return false;
    }
    return true;
}

/* The whole tensor. */
static ay_view view_of(const ay_st_tensor *t) {
    ay_view v = {.rank = t->type.rank};
    int64_t step = 1;
    for (int i = v.rank - 1; i >= 0; i--) {
        v.dim[i] = t->type.dim[i];
        v.stride[i] = t->stride ? t->stride[i] : step;
        step *= v.dim[i];
    }
    return v;
}

static bool is_dense(const ay_view *v) {
    int64_t step = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->dim[i] != 1 && v->stride[i] != step) return false;
        step *= v->dim[i];
    }
    return true;
}

static ay_view rows(ay_view v, int64_t begin, int64_t n) {
    v.first += begin * v.stride[0];
    v.dim[0] = n;
    return v;
}

/* The views that make a parameter of type `want` of the tensor; false if none can. */
static bool make_views(const ay_type *want, const ay_recipe *r, ay_origin *o) {
    ay_view all = view_of(o->tensor);
    const ay_type *t = &o->tensor->type;
    int64_t n = want->rank ? want->dim[0] : 1, have = t->rank ? t->dim[0] : 1;
    o->n = 1;
    switch (r->take) {
    case AY_TAKE_ALL: o->view[0] = all; return same_shape(t, want, 0);
    case AY_TAKE_PART:
    case AY_TAKE_LAST:
        if (t->rank < 1 || want->rank < 1 || !same_shape(t, want, 1)) return false;
        if (n > have || (r->take == AY_TAKE_PART && (r->part < 0 || r->part >= have / ay_max_i64(n, 1)))) return false;
        o->view[0] = rows(all, r->take == AY_TAKE_LAST ? have - n : r->part * n, n);
        return true;
    case AY_TAKE_SWAPPED:
        if (t->rank < 1 || n % 2 || !same_shape(t, want, 0)) return false;
        o->n = 2;
        o->view[0] = rows(all, n / 2, n / 2);
        o->view[1] = rows(all, 0, n / 2);
        return true;
    case AY_TAKE_TRANSPOSED:
        if (t->rank != 2 || want->rank != 2 || t->dim[0] != want->dim[1] || t->dim[1] != want->dim[0]) return false;
        o->view[0] = (ay_view){.first = all.first, .rank = 2, .dim = {all.dim[1], all.dim[0]}, .stride = {all.stride[1], all.stride[0]}};
        return true;
    }
    return false;
}

/* ---- scales -------------------------------------------------------------------------------------------------------------

 * "X.scale_weight" (ComfyUI's first scaled float8 files) or "X.weight_scale" (since comfy/quant_ops.py) beside "X.weight": what
 * its numbers are multiplied by, one for all or one for each row. */

static const char *const scale_names[] = {"scale_weight", "weight_scale"};

/* The scales of a tensor, where it has some; false if they are none that its rows can be multiplied by. */
static bool find_scales(const ay_source *s, ay_origin *o) {
    static const char end[] = ".weight";
    char name[512];
    size_t n = strlen(o->tensor->name);
    if (!s->scaled || n < sizeof end || n + 16 > sizeof name || strcmp(o->tensor->name + n - (sizeof end - 1), end) != 0) return true;
    memcpy(name, o->tensor->name, n);
    for (size_t i = 0; i < sizeof scale_names / sizeof scale_names[0]; i++) {
        strcpy(name + n - (sizeof end - 2), scale_names[i]);
        const ay_st_tensor *t = ay_st_find(o->file, name);
        if (!t) continue;
        int64_t rows = o->found.rank ? o->found.dim[0] : 1, k = ay_type_count(&t->type);
        o->scales = t;
        o->n_scales = k;
        return ay_dtype_is_float(t->type.dtype) && !t->stride && (k == 1 || (k == rows && (t->type.rank < 1 || t->type.dim[0] == rows)));
    }
    return true;
}

static void scale_elements(const ay_origin *o, int64_t begin, int64_t count, float *out) {
    const void *data = ay_st_data(o->file, o->scales);
    int64_t row = o->n_scales > 1 ? ay_type_count(&o->found) / o->n_scales : INT64_MAX;
    while (count > 0) {
        float scale;
        int64_t n = o->n_scales > 1 ? ay_min_i64(count, row - begin % row) : count;
        ay_convert_to_f32(o->scales->type.dtype, data, o->n_scales > 1 ? begin / row : 0, 1, &scale);
        for (int64_t i = 0; i < n; i++) out[i] *= scale;
        out += n;
        begin += n;
        count -= n;
    }
}

/* ---- finding ----------------------------------------------------------------------------------------------------------- */

/* The matrix that stands for one that is left out: no bytes of any file. */
static bool find_identity(const ay_source *s, const char *name, const ay_type *type, ay_origin *out) {
    static const ay_st_tensor none = {.name = "the identity"};
    if (!s->naming || !s->naming->identity || strcmp(s->naming->identity, name) != 0 || type->rank != 2) return false;
    *out = (ay_origin){.file = s->files[0], .tensor = &none, .found = *type, .type = *type, .identity = true};
    out->found.dtype = out->type.dtype = AY_F32;
    out->fits = type->dim[0] == type->dim[1];
    return true;
}

bool ay_source_find(const ay_source *s, const ay_arch *arch, const char *name, const ay_type *type, ay_origin *out) {
    ay_recipe r;
    for (int k = 0; ay_recipe_of(arch, s->naming, s->cfg, name, k, &r); k++) {
        *out = (ay_origin){.n = 0};
        out->tensor = ay_source_tensor(s, r.name, &out->file);
        if (!out->tensor) continue;
        out->found = out->type = out->tensor->type;
        out->type.rank = type->rank;
        memcpy(out->type.dim, type->dim, sizeof type->dim);
        out->fits = make_views(type, &r, out) && find_scales(s, out);
        if (!out->fits) out->n = 0;
        for (int i = 0; i < out->n; i++) out->view[i].dense = is_dense(&out->view[i]);
        out->lora = ay_lora_find(s->lora, name);
        return true;
    }
    if (!find_identity(s, name, type, out)) return false;
    out->lora = ay_lora_find(s->lora, name);
    return true;
}

/* ---- numbers --------------------------------------------------------------------------------------------------------- */

/* Elements of the tensor, by their place in the file. */
static void read_elements(const ay_origin *o, int64_t begin, int64_t count, float *out) {
    const void *data = ay_st_data(o->file, o->tensor);
    if (o->tensor->block) ay_blocks_read(o->tensor->block, data, begin, count, out);
    else ay_convert_to_f32(o->found.dtype, data, begin, count, out);
    if (o->n_scales) scale_elements(o, begin, count, out);
}

static int64_t view_count(const ay_view *v) {
    int64_t n = 1;
    for (int i = 0; i < v->rank; i++) n *= v->dim[i];
    return n;
}

/* Elements [begin, begin + count) of a view whose rows lie apart or across. */
static void read_strided(const ay_origin *o, const ay_view *v, int64_t begin, int64_t count, float *out) {
    int last = v->rank - 1;
    while (count > 0) {
        int64_t rest = begin / v->dim[last], in_row = begin % v->dim[last], at = v->first;
        for (int i = last - 1; i >= 0; i--) {
            at += rest % v->dim[i] * v->stride[i];
            rest /= v->dim[i];
        }
        int64_t n = ay_min_i64(count, v->dim[last] - in_row);
        if (v->stride[last] == 1) read_elements(o, at + in_row, n, out);
        else {
            for (int64_t i = 0; i < n; i++) read_elements(o, at + (in_row + i) * v->stride[last], 1, out + i);
        }
        out += n;
        begin += n;
        count -= n;
    }
}

static void read_views(const ay_origin *o, int64_t begin, int64_t count, float *out) {
    for (int64_t i = 0; o->identity && i < count; i++) out[i] = (begin + i) % (o->type.dim[1] + 1) == 0 ? 1.0f : 0.0f;
    for (int i = 0; i < o->n && count > 0; i++) {
        const ay_view *v = &o->view[i];
        int64_t all = view_count(v), n = ay_min_i64(count, all - begin);
        if (n > 0) {
            if (v->dense) read_elements(o, v->first + begin, n, out);
            else read_strided(o, v, begin, n, out);
            out += n;
            count -= n;
            begin += n;
        }
        begin -= all;
    }
}

void ay_origin_read(const ay_origin *o, int64_t begin, int64_t count, float *out) {
    read_views(o, begin, count, out);
    if (o->lora) ay_lora_apply(o->lora, begin, count, out);
}

alloy_status ay_origin_begin(ay_ctx *cx, const ay_origin *o) { return o->lora ? ay_lora_prepare(cx, o->lora) : ALLOY_OK; }

void ay_origin_end(const ay_origin *o) {
    if (o->lora) ay_lora_release(o->lora);
}

uint64_t ay_origin_bytes(const ay_origin *o, int64_t begin, int64_t end) {
    int64_t n = ay_block_elements(o->tensor->block);
    if (o->identity) return 0;
    if (o->tensor->block) return (uint64_t)(ay_div_up(end, n) - ay_div_up(begin, n)) * (uint64_t)ay_block_bytes(o->tensor->block);
    return ay_dtype_bytes(o->found.dtype, end) - ay_dtype_bytes(o->found.dtype, begin);
}

void ay_origin_drop(const ay_origin *o, int64_t begin, int64_t end) {
    int64_t all = ay_type_count(&o->found);
    for (int i = 0; i < o->n; i++) {
        const ay_view *v = &o->view[i];
        int64_t n = view_count(v), from = ay_max_i64(begin, 0), to = ay_min_i64(end, n);
        if (from < to && v->dense) {
            uint64_t at = ay_origin_bytes(o, 0, v->first + from);
            ay_map_drop(&o->file->map, o->tensor->offset + at, ay_origin_bytes(o, 0, v->first + to) - at);
        } else if (to == n && from < to && all > 0) {
            ay_map_drop(&o->file->map, o->tensor->offset, o->tensor->bytes); /* its pages were read in no order */
        }
        begin -= n;
        end -= n;
    }
}

/* ---- streams --------------------------------------------------------------------------------------------------------- */

enum { PIECE = 1 << 18 }; /* elements converted by one tile */

typedef struct convert_job {
    const ay_origin *from;
    ay_dtype to;
    uint8_t *out;
    int64_t begin, count; /* elements */
    float *scratch;       /* PIECE floats a thread */
    atomic_llong beyond;  /* index of a finite value that left half's range, or -1 */
} convert_job;

static void convert_tile(void *arg, int64_t tile, int thread) {
    convert_job *j = arg;
    int64_t at = tile * PIECE, n = ay_min_i64(PIECE, j->count - at);
    float *f = j->scratch + (size_t)thread * PIECE;
    ay_origin_read(j->from, j->begin + at, n, f);
    ay_convert_from_f32(j->to, f, n, j->out + ay_dtype_bytes(j->to, at));
    if (j->to != AY_F16) return;
    float peak = 0;
    for (int64_t i = 0; i < n; i++) peak = fabsf(f[i]) > peak && isfinite(f[i]) ? fabsf(f[i]) : peak;
    if (peak < 65520.0f) return;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(f[i]) && fabsf(f[i]) >= 65520.0f) atomic_store(&j->beyond, j->begin + at + i);
    }
}

static alloy_status stream_converted(ay_ctx *cx, const ay_origin *o, ay_dtype dtype, ay_put_fn put, void *user, uint64_t *done) {
    int threads = ay_pool_threads(cx->pool);
    int64_t total = ay_type_count(&o->type), batch = (int64_t)PIECE * ay_min_i64(4 * threads, 32);
    convert_job j = {.from = o, .to = dtype, .beyond = -1};
    j.scratch = malloc((size_t)threads * PIECE * sizeof(float));
    j.out = malloc(ay_dtype_bytes(dtype, ay_min_i64(batch, total)) + 1);
    alloy_status st = j.scratch && j.out ? ALLOY_OK : ay_nomem(cx);
    for (int64_t at = 0; at < total && st == ALLOY_OK; at += batch) {
        j.begin = at;
        j.count = ay_min_i64(batch, total - at);
        ay_parallel(cx->pool, ay_div_up(j.count, PIECE), convert_tile, &j, &cx->stop);
        st = ay_check_stop(cx);
        long long beyond = atomic_load(&j.beyond);
        if (st == ALLOY_OK && beyond >= 0) {
            float v, without;
            ay_origin alone = *o;
            alone.lora = NULL;
            ay_origin_read(o, beyond, 1, &v);
            ay_origin_read(&alone, beyond, 1, &without);
            if (o->lora && fabsf(without) < 65520.0f) {
                st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "the adapters of --lora make \"%s\" %g at element %lld, beyond float16's 65504 (%s has %g there); lower "
                             "their strengths, or convert with --quantization float32", o->tensor->name, (double)v, beyond, o->file->path, (double)without);
            } else {
                st = ay_fail(cx, ALLOY_E_UNSUPPORTED, "%s: \"%s\" has %g at element %lld, beyond float16's 65504; convert with --quantization float32",
                             o->file->path, o->tensor->name, (double)v, beyond);
            }
        }
        if (st == ALLOY_OK) st = put(user, j.out, ay_dtype_bytes(dtype, j.count));
        ay_origin_drop(o, at, at + j.count);
        if (done) *done += ay_origin_bytes(o, at, at + j.count);
    }
    free(j.scratch);
    free(j.out);
    return st;
}

/* The bytes themselves, where the file has what the package stores. */
static alloy_status stream_view(ay_ctx *cx, const ay_origin *o, const ay_view *v, ay_put_fn put, void *user, uint64_t *done) {
    const size_t step = (size_t)16 << 20, at = ay_dtype_bytes(o->found.dtype, v->first), bytes = ay_dtype_bytes(o->found.dtype, view_count(v));
    for (size_t k = 0; k < bytes; k += step) {
        size_t n = bytes - k < step ? bytes - k : step;
        AY_TRY(put(user, (const uint8_t *)ay_st_data(o->file, o->tensor) + at + k, n));
        ay_map_drop(&o->file->map, o->tensor->offset + at + k, n);
        if (done) *done += n;
        AY_TRY(ay_check_stop(cx));
    }
    return ALLOY_OK;
}

alloy_status ay_origin_stream(ay_ctx *cx, const ay_origin *o, ay_dtype dtype, ay_put_fn put, void *user, uint64_t *done) {
    bool as_it_is = o->found.dtype == dtype && !o->tensor->block && !o->n_scales && !o->identity && !o->lora;
    for (int i = 0; i < o->n; i++) as_it_is &= o->view[i].dense;
    if (!as_it_is) {
        alloy_status st = ay_origin_begin(cx, o);
        if (st == ALLOY_OK) st = stream_converted(cx, o, dtype, put, user, done);
        ay_origin_end(o);
        return st;
    }
    for (int i = 0; i < o->n; i++) AY_TRY(stream_view(cx, o, &o->view[i], put, user, done));
    return ALLOY_OK;
}

alloy_status ay_source_stream(ay_ctx *cx, const ay_source *s, const ay_arch *arch, const char *name, const ay_type *type, ay_dtype dtype,
                              ay_put_fn put, void *user, uint64_t *done) {
    ay_origin o;
    if (!ay_source_find(s, arch, name, type, &o)) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: no tensor \"%s\"", s->dir, name);
    if (!o.fits) return ay_fail(cx, ALLOY_E_MISMATCH, "%s: \"%s\" has another shape than the graph asks for", s->dir, name);
    return ay_origin_stream(cx, &o, dtype, put, user, done);
}
