/* SPDX-License-Identifier: MIT
 *
 * Reading operations on images: blocks between channels and pixels, and resizing. The sampling grids are those that
 * coremltools documents in mil/ops/defs/iOS15/image_resizing.py; blocks follow TensorFlow (space_to_depth, depth_to_space:
 * the block's position comes before the channel) and PyTorch (pixel_shuffle, pixel_unshuffle: after it).
 */
#include "coreml/read.h"

#include <math.h>
#include <string.h>

#define G (o->r->g)

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

enum { SHUFFLE, UNSHUFFLE, TO_DEPTH, TO_SPACE };

static ay_val blocks(ay_mop *o) {
    static const char *const keys[] = {"upscale_factor", "downscale_factor", "block_size", "block_size"};
    static const int perms[4][6] = {
        [SHUFFLE] = {0, 1, 4, 2, 5, 3},   /* [N, C, f, f, H, W] to [N, C, H, f, W, f] */
        [UNSHUFFLE] = {0, 1, 3, 5, 2, 4}, /* [N, C, H, f, W, f] to [N, C, f, f, H, W] */
        [TO_DEPTH] = {0, 3, 5, 1, 2, 4},  /* [N, C, H, f, W, f] to [N, f, f, C, H, W] */
        [TO_SPACE] = {0, 3, 4, 1, 5, 2},  /* [N, f, f, C, H, W] to [N, C, H, f, W, f] */
    };
    int form = o->row->arg;
    ay_val x = ay_mnode(o, "x");
    int64_t f = ay_mint(o, keys[form]);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (t.rank != 4 || f < 1 || f > 65536)
        return ay_mfail(o, ALLOY_E_MISMATCH, "x of rank %d by %lld; rank 4 is needed", t.rank, (long long)f);
    int64_t n = t.dim[0], c = t.dim[1], h = t.dim[2], w = t.dim[3], ff = f * f;
    bool up = form == SHUFFLE || form == TO_SPACE;
    if (up ? c % ff : h % f || w % f)
        return ay_mfail(o, ALLOY_E_MISMATCH, "[%lld, %lld, %lld, %lld] cannot be cut by %lld", (long long)n, (long long)c,
                        (long long)h, (long long)w, (long long)f);
    ay_val y = form == SHUFFLE    ? ay_reshape(G, x, 6, n, c / ff, f, f, h, w)
               : form == TO_SPACE ? ay_reshape(G, x, 6, n, f, f, c / ff, h, w)
                                  : ay_reshape(G, x, 6, n, c, h / f, f, w / f, f);
    ay_attr at = {0};
    memcpy(at.permute.perm, perms[form], sizeof perms[form]);
    y = ay_node_add(G, AY_OP_PERMUTE, &y, 1, &at, NULL);
    return up ? ay_reshape(G, y, 4, n, c / ff, h * f, w * f) : ay_reshape(G, y, 4, n, c * ff, h / f, w / f);
}

/* ---- resizing ---------------------------------------------------------------------------------------------------- */

typedef enum grid { GRID_STRICT, GRID_ALIGN, GRID_DEFAULT, GRID_OFFSET, GRID_UNALIGN } grid;
static const char *const grid_names[] = {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS",
                                         "UNALIGN_CORNERS"};

/** Where output i of `out` lies between the inputs 0 .. in - 1. */
static double grid_point(grid m, int64_t i, int64_t in, int64_t out) {
    double n = (double)in, k = (double)out, p = 0, d = fmax(1, n - 1) / k;
    switch (m) {
    case GRID_STRICT: p = out > 1 ? (double)i * (n - 1) / (k - 1) : 0; break;
    case GRID_ALIGN: p = out > 1 ? (double)i * (n - 1) / (k - 1) : (n - 1) / 2; break;
    case GRID_DEFAULT: p = (double)i * n / k; break; /* (n - n / k) / (k - 1) is n / k */
    case GRID_OFFSET: p = 0.5 * d + (double)i * d; break;
    case GRID_UNALIGN: p = ((double)i + 0.5) * n / k - 0.5; break;
    }
    return fmin(n - 1, fmax(0, p));
}

/* the nearest input: rounded where corners meet corners, else the input whose cell the point lies in */
static int32_t grid_nearest(grid m, int64_t i, int64_t in, int64_t out) {
    double p = m == GRID_UNALIGN ? floor(((double)i + 0.5) * (double)in / (double)out)
               : m == GRID_DEFAULT ? floor((double)(i * in) / (double)out)
                                   : round(grid_point(m, i, in, out));
    return (int32_t)fmin((double)(in - 1), fmax(0, p));
}

/** x resized along one axis to `out`: by index, or by two neighbours and the way between them. */
static ay_val resize_axis(ay_mop *o, ay_val x, int axis, int64_t out, bool linear, grid m) {
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    int64_t in = t.dim[axis];
    if (in == out && m != GRID_OFFSET) return x; /* the other grids then meet the input's */
    if (out < 1 || out > INT32_MAX || in > INT32_MAX)
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "from %lld to %lld", (long long)in, (long long)out);
    int32_t *lo = ay_mmake(o, out, AY_I32), *hi = ay_mmake(o, out, AY_I32);
    float *way = ay_mmake(o, out, AY_F32);
    if (!lo || !hi || !way) return AY_NO_VALUE;
    for (int64_t i = 0; i < out; i++) {
        double p = grid_point(m, i, in, out);
        lo[i] = linear ? (int32_t)floor(p) : grid_nearest(m, i, in, out);
        hi[i] = (int32_t)ay_min_i64(lo[i] + 1, in - 1);
        way[i] = (float)(p - floor(p));
    }
    ay_type index = {.dtype = AY_I32, .rank = 1, .dim = {out}};
    ay_val a = ay_gather(G, x, ay_const_data(G, index, lo), axis);
    if (!linear) return a;
    ay_val b = ay_gather(G, x, ay_const_data(G, index, hi), axis);
    ay_val w = ay_malong(o, ay_mconst(o, t.dtype, 1, &out, way), axis, t.rank);
    return ay_add(G, a, ay_mul(G, ay_sub(G, b, a), w));
}

/** The last `n` dims of x resized to `out`: whole factors as one node, the rest axis by axis in float32. */
static ay_val resized(ay_mop *o, ay_val x, int n, const int64_t *out, bool linear, grid m) {
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (n > t.rank) return ay_mfail(o, ALLOY_E_MISMATCH, "x has rank %d, %d dims are to be resized", t.rank, n);
    int64_t h = n == 2 ? t.dim[t.rank - 2] : 1, w = n == 2 ? t.dim[t.rank - 1] : 1;
    bool whole = n == 2 && ay_dtype_is_float(t.dtype) && out[0] > 0 && out[1] > 0 && out[0] % h == 0 && out[1] % w == 0;
    if (n == 2 && out[0] == h && out[1] == w && m != GRID_OFFSET) return x;
    bool grids =
        linear ? m == GRID_STRICT || m == GRID_DEFAULT || m == GRID_UNALIGN : m == GRID_DEFAULT || m == GRID_UNALIGN;
    if (whole && grids && out[0] / h <= 4096 && out[1] / w <= 4096) {
        ay_attr at = {0};
        at.upsample.fh = out[0] / h;
        at.upsample.fw = out[1] / w;
        at.upsample.bilinear = linear;
        at.upsample.align_corners = linear && m == GRID_STRICT;
        at.upsample.half_pixel = linear && m == GRID_UNALIGN;
        return ay_node_add(G, AY_OP_UPSAMPLE, &x, 1, &at, NULL);
    }
    ay_val y = linear ? ay_cast(G, x, AY_F32) : x;
    for (int i = 0; i < n; i++) y = resize_axis(o, y, t.rank - n + i, out[i], linear, m);
    return ay_mbad(o) ? AY_NO_VALUE : ay_cast(G, y, t.dtype);
}

static grid sampling(ay_mop *o) {
    const char *mode = ay_mstring_or(o, "sampling_mode", "DEFAULT");
    for (int i = 0; i < 5; i++)
        if (strcmp(mode, grid_names[i]) == 0) return (grid)i;
    ay_mfail(o, ALLOY_E_UNSUPPORTED, "sampling_mode is \"%.40s\"", mode);
    return GRID_DEFAULT;
}

/* upsample_*: factors, whole or not */
static ay_val upsample(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    double fh = ay_mfloat_or(o, "scale_factor_height", 1), fw = ay_mfloat_or(o, "scale_factor_width", 1);
    bool linear = o->row->arg, align = linear && ay_mbool_or(o, "align_corners", true);
    bool half = linear && ay_mbool_or(o, "half_pixel_centers", !align);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    if (t.rank < 2) return ay_mfail(o, ALLOY_E_MISMATCH, "x has rank %d", t.rank);
    double h = floor((double)t.dim[t.rank - 2] * fh), w = floor((double)t.dim[t.rank - 1] * fw);
    if (!(h >= 1 && w >= 1 && h < 1e9 && w < 1e9)) return ay_mfail(o, ALLOY_E_FORMAT, "factors %g and %g", fh, fw);
    if (align && half) return ay_mfail(o, ALLOY_E_UNSUPPORTED, "align_corners and half_pixel_centers exclude each other");
    int64_t out[2] = {(int64_t)h, (int64_t)w};
    return resized(o, x, 2, out, linear, align ? GRID_STRICT : half ? GRID_UNALIGN : GRID_DEFAULT);
}

/* resize_*: target sizes */
static ay_val resize_to(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t out[2] = {ay_mint_or(o, "target_size_height", 1), ay_mint_or(o, "target_size_width", 1)};
    return resized(o, x, 2, out, o->row->arg, o->row->arg ? sampling(o) : GRID_DEFAULT);
}

/* resize [iOS17]: the last `resized_dims` numbers of `shape`; 0 keeps a dim */
static ay_val resize(ay_mop *o) {
    ay_val x = ay_mnode(o, "x");
    int64_t shape[AY_MAX_RANK], dims = ay_mint(o, "resized_dims");
    int n = ay_mints(o, "shape", shape, AY_MAX_RANK);
    const char *mode = ay_mstring_or(o, "interpolation_mode", "LINEAR");
    grid m = sampling(o);
    if (ay_mbad(o)) return AY_NO_VALUE;
    const ay_type t = *ay_mtype(o, x);
    bool linear = strcmp(mode, "LINEAR") == 0;
    if (!linear && strcmp(mode, "NEAREST_NEIGHBOR"))
        return ay_mfail(o, ALLOY_E_UNSUPPORTED, "interpolation_mode is \"%.40s\"", mode);
    if (dims < 0 || dims > n || dims > t.rank)
        return ay_mfail(o, ALLOY_E_FORMAT, "resized_dims is %lld, shape has %d numbers, x rank %d", (long long)dims, n,
                        t.rank);
    int64_t *out = shape + (n - dims);
    for (int i = 0; i < dims; i++)
        if (out[i] == 0) out[i] = t.dim[t.rank - dims + i];
    return resized(o, x, (int)dims, out, linear, m);
}

static const ay_mrow rows[] = {
    {"pixel_shuffle", blocks, 0, SHUFFLE},
    {"pixel_unshuffle", blocks, 0, UNSHUFFLE},
    {"space_to_depth", blocks, 0, TO_DEPTH},
    {"depth_to_space", blocks, 0, TO_SPACE},
    {"upsample_nearest_neighbor", upsample, 0, 0},
    {"upsample_bilinear", upsample, 0, 1},
    {"resize_nearest_neighbor", resize_to, 0, 0},
    {"resize_bilinear", resize_to, 0, 1},
    {"resize", resize, 0, 0},
};
const ay_mtable ay_read_image = {rows, sizeof rows / sizeof *rows};
