/* SPDX-License-Identifier: MIT
 *
 * The engine's table: one row an op. A new op needs a row here and a builder; nothing else in the engine knows ops by name
 * except the patterns of fuse.c.
 */
#include "cpu/plan.h"

#define ELT1 {.build = ay_build_unary, .writes = ay_writes_gapless, .keeps_layout = true}
#define ELT1_GATED {.build = ay_build_unary, .writes = ay_writes_gapless, .keeps_layout = true, .fuses = AY_FUSE_GATED}
#define ELT2 {.build = ay_build_binary, .writes = ay_writes_gapless, .keeps_layout = true}
#define GENERIC {.build = ay_build_generic, .writes = ay_writes_dense}
#define VIEW {.is_view = true}
#define DENSE(fn) {.build = fn, .writes = ay_writes_dense}

const ay_row *ay_row_get(ay_op op) {
    static const ay_row rows[AY_OP_COUNT] = {
        [AY_OP_ABS] = ELT1, [AY_OP_EXP] = ELT1, [AY_OP_LOG] = ELT1, [AY_OP_SQRT] = ELT1, [AY_OP_RSQRT] = ELT1,
        [AY_OP_SIN] = ELT1, [AY_OP_COS] = ELT1, [AY_OP_ERF] = ELT1, [AY_OP_FLOOR] = ELT1, [AY_OP_CEIL] = ELT1,
        [AY_OP_ROUND] = ELT1, [AY_OP_SIGN] = ELT1,
        [AY_OP_TANH] = ELT1_GATED, [AY_OP_SIGMOID] = ELT1_GATED, [AY_OP_SILU] = ELT1_GATED, [AY_OP_GELU] = ELT1_GATED,
        [AY_OP_NOT] = GENERIC, [AY_OP_CAST] = DENSE(ay_build_cast),

        [AY_OP_ADD] = ELT2, [AY_OP_SUB] = ELT2, [AY_OP_MUL] = ELT2, [AY_OP_DIV] = ELT2, [AY_OP_MOD] = ELT2,
        [AY_OP_MAX] = ELT2, [AY_OP_MIN] = ELT2, [AY_OP_POW] = ELT2,
        [AY_OP_EQ] = GENERIC, [AY_OP_NE] = GENERIC, [AY_OP_LT] = GENERIC, [AY_OP_LE] = GENERIC, [AY_OP_GT] = GENERIC,
        [AY_OP_GE] = GENERIC, [AY_OP_AND] = GENERIC, [AY_OP_OR] = GENERIC, [AY_OP_XOR] = GENERIC, [AY_OP_WHERE] = GENERIC,

        [AY_OP_SUM] = DENSE(ay_build_reduce), [AY_OP_RMAX] = DENSE(ay_build_reduce), [AY_OP_RMIN] = DENSE(ay_build_reduce),
        [AY_OP_PROD] = DENSE(ay_build_reduce), [AY_OP_ARGMAX] = DENSE(ay_build_argmax),
        [AY_OP_CUMSUM] = DENSE(ay_build_cumsum), [AY_OP_TOPK] = DENSE(ay_build_topk),

        [AY_OP_MATMUL] = {.build = ay_build_matmul, .writes = ay_writes_product,
                          .fuses = AY_FUSE_ACT | AY_FUSE_GATE | AY_FUSE_RESIDUAL | AY_FUSE_BIAS},
        [AY_OP_LINEAR] = {.build = ay_build_linear, .writes = ay_writes_product,
                          .fuses = AY_FUSE_ACT | AY_FUSE_GATE | AY_FUSE_RESIDUAL | AY_FUSE_BIAS},
        [AY_OP_CONV] = {.build = ay_build_conv, .writes = ay_writes_dense, .fuses = AY_FUSE_ACT | AY_FUSE_RESIDUAL},
        [AY_OP_CONV_TRANSPOSE] = DENSE(ay_build_conv_transpose), [AY_OP_POOL] = DENSE(ay_build_pool),
        [AY_OP_UPSAMPLE] = DENSE(ay_build_upsample),

        [AY_OP_RESHAPE] = VIEW, [AY_OP_PERMUTE] = VIEW, [AY_OP_EXPAND] = VIEW, [AY_OP_SLICE] = VIEW, [AY_OP_REVERSE] = VIEW,
        [AY_OP_CONCAT] = {.build = ay_build_concat, .writes = ay_writes_any}, [AY_OP_PAD] = DENSE(ay_build_pad),
        [AY_OP_GATHER] = DENSE(ay_build_gather), [AY_OP_GATHER_ALONG] = DENSE(ay_build_gather_along),

        [AY_OP_SOFTMAX] = {.build = ay_build_softmax, .writes = ay_writes_rows, .keeps_layout = true},
        [AY_OP_RMS_NORM] = {.build = ay_build_norm, .writes = ay_writes_rows, .keeps_layout = true, .fuses = AY_FUSE_MOD},
        [AY_OP_LAYER_NORM] = {.build = ay_build_norm, .writes = ay_writes_rows, .keeps_layout = true, .fuses = AY_FUSE_MOD},
        [AY_OP_GROUP_NORM] = {.build = ay_build_group_norm, .writes = ay_writes_dense, .fuses = AY_FUSE_ACT},
        [AY_OP_ROPE] = {.build = ay_build_rope, .writes = ay_writes_rows, .keeps_layout = true},
        [AY_OP_SDPA] = {.build = ay_build_sdpa, .writes = ay_writes_sdpa},
        [AY_OP_DEQUANT] = DENSE(ay_build_dequant),
    };
    return &rows[op];
}

bool ay_writes_dense(const ay_plan *pl, const ay_fused *f, const ay_view *target) { return ay_view_is_dense(target); }
bool ay_writes_any(const ay_plan *pl, const ay_fused *f, const ay_view *target) { return true; }

bool ay_writes_gapless(const ay_plan *pl, const ay_fused *f, const ay_view *target) {
    int order[AY_MAX_RANK];
    return ay_kind_of(ay_type_of(pl->g, f->result)->dtype) == AY_KIND_F32 ? ay_view_order(target, order)
                                                                          : ay_view_is_dense(target);
}

/* Rows along the last dim, in any order of rows; along other axes only what ends row-major, modulated rows only in order. */
bool ay_writes_rows(const ay_plan *pl, const ay_fused *f, const ay_view *target) {
    const ay_node *n = ay_plan_node(pl, f->anchor);
    int order[AY_MAX_RANK], last = target->rank - 1;
    bool dense = ay_view_is_dense(target), modulated = f->scale != AY_NO_VALUE || f->shift != AY_NO_VALUE;
    bool rows = last >= 0 && ay_view_order(target, order) && order[last] == last && !modulated;
    if (n->op == AY_OP_SOFTMAX) return n->attr.axis == last && (rows || dense);
    if (n->op == AY_OP_RMS_NORM || n->op == AY_OP_ROPE) return rows || dense;
    for (int i = 0; i < n->attr.norm.n; i++)
        if (n->attr.norm.axes[i] != n->type.rank - n->attr.norm.n + i) return false;
    return dense || (rows && n->attr.norm.n == 1);
}
