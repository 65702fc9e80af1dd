/* SPDX-License-Identifier: MIT
 *
 * Views: where the elements of a value lie inside a buffer. Reshape, permute, slice, expand and casts between float types
 * are views of their operand and cost nothing when run; the functions here say what can be seen without a copy.
 */
#ifndef AY_CPU_VIEW_H
#define AY_CPU_VIEW_H

#include "base/base.h"

/** How the engine holds a value: every float dtype as float32, every integer as int32, bool as one byte. */
typedef enum ay_kind { AY_KIND_F32, AY_KIND_I32, AY_KIND_U8 } ay_kind;

typedef struct ay_view {
    int buf; /* index into ay_program.bufs */
    ay_kind kind;
    int rank;
    int64_t dim[AY_MAX_RANK];
    int64_t off;                 /* elements from the buffer's start */
    int64_t stride[AY_MAX_RANK]; /* elements */
} ay_view;

ay_kind ay_kind_of(ay_dtype t);
static inline size_t ay_kind_size(ay_kind k) { return k == AY_KIND_U8 ? 1 : 4; }
int64_t ay_view_count(const ay_view *v);

/** Row-major strides for the dims it has. */
void ay_view_set_dense(ay_view *v);
/** Row-major without gaps (dims of 1 may have any stride). */
bool ay_view_is_dense(const ay_view *v);
/** The axes from the slowest to the fastest in memory; true when the elements lie without gaps in that order. */
bool ay_view_order(const ay_view *v, int order[AY_MAX_RANK]);
/** The same axes (sorted so) for any view, packed or not, as `order` says. */
ay_view ay_view_permuted(const ay_view *v, const int *perm);
/** The same elements under other dims, if strides can say it. */
bool ay_view_reshape(const ay_view *v, int rank, const int64_t *dim, ay_view *out);
/** numpy broadcasting to these dims: stride 0 where repeated. The caller has checked that it fits. */
ay_view ay_view_broadcast(const ay_view *v, int rank, const int64_t *dim);
/** The same for all dims but the last two, which stay: an operand of a batched product. */
ay_view ay_view_with_lead(const ay_view *v, int rank, const int64_t *dim);
ay_view ay_view_sliced(const ay_view *v, const int64_t *begin, const int64_t *step, const int64_t *dim);
/** Dims [first, last) seen as one dim of uniform stride. */
bool ay_view_merge(const ay_view *v, int first, int last, int64_t *count, int64_t *stride);
/** Same buffer, place and order (strides of dims of 1 do not count). */
bool ay_view_same(const ay_view *a, const ay_view *b);

#endif
