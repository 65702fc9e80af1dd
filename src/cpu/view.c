/* SPDX-License-Identifier: MIT
 *
 * Arithmetic on strides: what reshape, permute, slice and expand see without moving anything.
 */
#include "cpu/view.h"

ay_kind ay_kind_of(ay_dtype t) {
    if (t == AY_BOOL) return AY_KIND_U8;
    return ay_dtype_is_float(t) ? AY_KIND_F32 : AY_KIND_I32;
}

int64_t ay_view_count(const ay_view *v) {
    int64_t n = 1;
    for (int i = 0; i < v->rank; i++) n *= v->dim[i];
    return n;
}

void ay_view_set_dense(ay_view *v) {
    int64_t s = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        v->stride[i] = s;
        s *= v->dim[i];
    }
}

bool ay_view_is_dense(const ay_view *v) {
    int64_t s = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->dim[i] != 1 && v->stride[i] != s) return false;
        s *= v->dim[i];
    }
    return true;
}

bool ay_view_order(const ay_view *v, int order[AY_MAX_RANK]) {
    int n = 0;
    for (int i = 0; i < v->rank; i++)
        if (v->dim[i] == 1) order[n++] = i; /* dims of 1 first: their strides say nothing */
    int ones = n;
    for (int i = 0; i < v->rank; i++) { /* insertion sort, stable: equal strides keep their order */
        if (v->dim[i] == 1) continue;
        int j = n++;
        for (; j > ones && v->stride[order[j - 1]] < v->stride[i]; j--) order[j] = order[j - 1];
        order[j] = i;
    }
    int64_t s = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->dim[order[i]] != 1 && v->stride[order[i]] != s) return false;
        s *= v->dim[order[i]];
    }
    return true;
}

ay_view ay_view_permuted(const ay_view *v, const int *perm) {
    ay_view out = *v;
    for (int i = 0; i < v->rank; i++) {
        out.dim[i] = v->dim[perm[i]];
        out.stride[i] = v->stride[perm[i]];
    }
    return out;
}

/* Groups of old dims and of new dims with equal products are matched; inside a group the old dims must be one uniform run.
 */
bool ay_view_reshape(const ay_view *v, int rank, const int64_t *dim, ay_view *out) {
    ay_view o = *v;
    o.rank = rank;
    for (int i = 0; i < rank; i++) o.dim[i] = dim[i];
    int64_t od[AY_MAX_RANK], os[AY_MAX_RANK];
    int on = 0;
    for (int i = 0; i < v->rank; i++)
        if (v->dim[i] != 1) od[on] = v->dim[i], os[on++] = v->stride[i];
    int i = 0, j = 0;
    while (i < on && j < rank) {
        int64_t p = od[i], q = dim[j];
        int i1 = i + 1, j1 = j + 1;
        while (p != q) {
            if (p < q) {
                if (i1 >= on) return false;
                if (os[i1 - 1] != os[i1] * od[i1]) return false;
                p *= od[i1++];
            } else {
                if (j1 >= rank) return false;
                q *= dim[j1++];
            }
        }
        int64_t s = os[i1 - 1];
        for (int k = j1 - 1; k >= j; k--) {
            o.stride[k] = s;
            s *= dim[k];
        }
        i = i1;
        j = j1;
    }
    if (i < on) return false;
    for (; j < rank; j++) { /* only dims of 1 are left */
        if (dim[j] != 1) return false;
        o.stride[j] = 1;
    }
    *out = o;
    return true;
}

ay_view ay_view_broadcast(const ay_view *v, int rank, const int64_t *dim) {
    ay_view o = *v;
    o.rank = rank;
    for (int i = 0; i < rank; i++) {
        int k = i - (rank - v->rank);
        o.dim[i] = dim[i];
        o.stride[i] = k < 0 || v->dim[k] == 1 ? 0 : v->stride[k];
    }
    return o;
}

ay_view ay_view_with_lead(const ay_view *v, int rank, const int64_t *dim) {
    int64_t want[AY_MAX_RANK];
    for (int i = 0; i < rank; i++) want[i] = i < rank - 2 ? dim[i] : v->dim[v->rank - (rank - i)];
    ay_view o = ay_view_broadcast(v, rank, want);
    for (int i = rank - 2; i < rank; i++) o.stride[i] = v->stride[v->rank - (rank - i)];
    return o;
}

ay_view ay_view_sliced(const ay_view *v, const int64_t *begin, const int64_t *step, const int64_t *dim) {
    ay_view o = *v;
    for (int i = 0; i < v->rank; i++) {
        o.off += begin[i] * v->stride[i];
        o.stride[i] = step[i] * v->stride[i];
        o.dim[i] = dim[i];
    }
    return o;
}

bool ay_view_merge(const ay_view *v, int first, int last, int64_t *count, int64_t *stride) {
    int64_t n = 1, s = 0;
    bool any = false;
    for (int i = last - 1; i >= first; i--) {
        if (v->dim[i] == 1) continue;
        if (!any) s = v->stride[i];
        else if (v->stride[i] != s * n) return false;
        n *= v->dim[i];
        any = true;
    }
    *count = n;
    *stride = s;
    return true;
}

bool ay_view_same(const ay_view *a, const ay_view *b) {
    if (a->buf != b->buf || a->off != b->off || a->rank != b->rank) return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i] || (a->dim[i] != 1 && a->stride[i] != b->stride[i])) return false;
    return true;
}
