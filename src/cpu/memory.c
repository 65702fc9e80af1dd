/* SPDX-License-Identifier: MIT
 *
 * The memory plan: when each buffer is first and last touched, which results take over the place of a dying operand, and
 * an offset for each in one slab: largest first, each in the tightest gap among those alive at the same time.
 */
#include "cpu/plan.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

static size_t padded(size_t n) { return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

static int root(const ay_program *p, int b) {
    while (p->bufs[b].merged >= 0) b = p->bufs[b].merged;
    return b;
}

/* Where buffer b begins in its root. */
static size_t place_of(const ay_program *p, int b) {
    size_t at = 0;
    for (; p->bufs[b].merged >= 0; b = p->bufs[b].merged) at += p->bufs[b].merged_at;
    return at;
}

static void lifetimes(ay_program *p) {
    for (int i = 0; i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_io; k++) {
            ay_buffer *b = &p->bufs[p->steps[i].io[k].buf];
            if (b->first < 0) b->first = i;
            b->last = b->until = i;
        }
}

/* Whether a and b have bytes in common, by their places in one root. */
static bool share(const ay_program *p, int a, size_t from, size_t bytes, int b) {
    if (root(p, a) != root(p, b)) return false;
    size_t at = place_of(p, b);
    return at < from + bytes && from < at + p->bufs[b].bytes;
}

/* Nobody else who lies in [from, from + bytes) of the operand's root lives beyond this step. Those who joined it are found
 * among the buffers made since: a root and what took over from it are few. */
static bool free_after(const ay_program *p, const int *joined, int n_joined, int operand, size_t from, size_t bytes, int step) {
    int r = root(p, operand);
    if (p->bufs[r].last > step && share(p, operand, from, bytes, r)) return false;
    for (int i = 0; i < n_joined; i++)
        if (p->bufs[joined[i]].last > step && share(p, operand, from, bytes, joined[i])) return false;
    return true;
}

/* The result may take the place of operand `k`, or the part of it that is meant for it: dying here, read by this step only
 * element for element. */
static bool can_take_over(const ay_program *p, const int *joined, int n_joined, int step, int k, const ay_step_io *write) {
    const ay_step *s = &p->steps[step];
    const ay_buffer *out = &p->bufs[write->buf], *b = &p->bufs[s->io[k].buf];
    if (s->io[k].write || !s->io[k].inplace || b->home != AY_HOME_SLAB) return false;
    if (write->parted ? write->part % ALIGN || write->part + out->bytes > b->bytes : padded(b->bytes) != padded(out->bytes))
        return false;
    size_t from = place_of(p, s->io[k].buf) + write->part;
    if (p->bufs[root(p, s->io[k].buf)].home != AY_HOME_SLAB) return false;
    if (!free_after(p, joined, n_joined, s->io[k].buf, from, out->bytes, step)) return false;
    for (int i = 0; i < s->n_io; i++) {
        if (i == k || !share(p, s->io[k].buf, from, out->bytes, s->io[i].buf)) continue;
        if (s->io[i].write || !s->io[i].inplace) return false;
    }
    return true;
}

static void join(ay_program *p, int out, int operand, size_t part) {
    int r = root(p, operand);
    p->bufs[out].merged = operand;
    p->bufs[out].merged_at = part;
    if (p->bufs[out].last > p->bufs[r].until) p->bufs[r].until = p->bufs[out].last;
}

static void merge_inplace(ay_program *p, int *joined) {
    int n_joined = 0;
    for (int i = 0; i < p->n_steps; i++) {
        const ay_step *s = &p->steps[i];
        for (int k = 0; k < s->n_io; k++) {
            ay_buffer *out = &p->bufs[s->io[k].buf];
            if (!s->io[k].write || !s->io[k].inplace || out->home != AY_HOME_SLAB || out->first != i || out->merged >= 0)
                continue;
            for (int j = 0; j < s->n_io; j++) {
                if (!can_take_over(p, joined, n_joined, i, j, &s->io[k])) continue;
                join(p, s->io[k].buf, s->io[j].buf, s->io[k].part);
                joined[n_joined++] = s->io[k].buf;
                break;
            }
        }
        while (n_joined > 0 && p->bufs[joined[n_joined - 1]].last <= i) n_joined--; /* mostly the last to come goes first */
    }
}

/* ---- offsets ------------------------------------------------------------------------------------------------------------ */

/* A stretch of bytes and of steps that belongs to somebody: a root with all that took over its whole place, or one of
 * several that share a place in parts. All stretches of one root are placed together. */
typedef struct stretch {
    int root, first, last;
    size_t at, bytes; /* within the root's place */
    size_t offset;
} stretch;

static int by_size(const void *a, const void *b) {
    const stretch *x = a, *y = b;
    if (x->bytes + x->at != y->bytes + y->at) return x->bytes + x->at > y->bytes + y->at ? -1 : 1;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : x->root < y->root ? -1 : 1;
}

static bool alive_together(const stretch *a, const stretch *b) { return a->first <= b->last && b->first <= a->last; }

/* placed[] is sorted by offset. */
static size_t find_gap(stretch *const *placed, int n, const stretch *b) {
    size_t end = 0, best = SIZE_MAX, best_room = SIZE_MAX, need = padded(b->bytes);
    for (int i = 0; i < n; i++) {
        const stretch *o = placed[i];
        if (!alive_together(o, b)) continue;
        if (o->offset >= end + need && o->offset - end < best_room) {
            best = end;
            best_room = o->offset - end;
        }
        size_t o_end = o->offset + padded(o->bytes);
        if (o_end > end) end = o_end;
    }
    return best != SIZE_MAX ? best : end;
}

static bool fits_at(stretch *const *placed, int n, const stretch *own, int n_own, size_t base) {
    for (int k = 0; k < n_own; k++)
        for (int i = 0; i < n; i++) {
            size_t from = base + own[k].at, to = from + padded(own[k].bytes);
            if (alive_together(placed[i], &own[k]) && placed[i]->offset < to && from < placed[i]->offset + padded(placed[i]->bytes))
                return false;
        }
    return true;
}

/* Several stretches with one base: the lowest at which none meets anybody. Bases worth trying end at somebody. */
static size_t find_base(stretch *const *placed, int n, const stretch *own, int n_own) {
    size_t best = SIZE_MAX;
    if (fits_at(placed, n, own, n_own, 0)) return 0;
    for (int k = 0; k < n_own; k++)
        for (int i = 0; i < n; i++) {
            size_t end = placed[i]->offset + padded(placed[i]->bytes);
            if (end < own[k].at || end - own[k].at >= best) continue;
            if (fits_at(placed, n, own, n_own, end - own[k].at)) best = end - own[k].at;
        }
    return best;
}

static void insert(stretch **placed, int *n, stretch *s) {
    int at = (*n)++;
    for (; at > 0 && placed[at - 1]->offset > s->offset; at--) placed[at] = placed[at - 1];
    placed[at] = s;
}

/* Roots whose place is shared in parts get a stretch for each part; `parts` counts the buffers of such a root. */
static void count_parts(const ay_program *p, int *parts) {
    for (int i = 0; i < p->n_bufs; i++) {
        int r = root(p, i);
        if (p->bufs[i].merged >= 0 && (place_of(p, i) > 0 || padded(p->bufs[i].bytes) != padded(p->bufs[r].bytes))) parts[r] = 1;
    }
}

static int make_stretches(const ay_program *p, const int *parts, stretch *all) {
    int n = 0;
    for (int i = 0; i < p->n_bufs; i++) {
        const ay_buffer *b = &p->bufs[i];
        int r = root(p, i);
        if (b->home == AY_HOME_FIXED || b->first < 0 || (b->merged >= 0 && !parts[r])) continue;
        all[n++] = (stretch){.root = r, .first = b->first, .last = parts[r] ? b->last : b->until, .at = place_of(p, i), .bytes = b->bytes};
    }
    return n;
}

/* The largest first; the stretches of a shared root when its own turn comes, which is first: it is the largest of them. */
static void place_all(ay_program *p, const int *parts, stretch *all, int n, stretch **placed, stretch *own) {
    int n_placed = 0;
    for (int i = 0; i < n; i++) {
        stretch *s = &all[i];
        int r = s->root;
        if (!parts[r]) {
            s->offset = p->bufs[r].offset = find_gap(placed, n_placed, s);
            insert(placed, &n_placed, s);
            continue;
        }
        int n_own = 0;
        for (int k = i; k < n; k++)
            if (all[k].root == r) own[n_own++] = all[k];
        if (p->bufs[r].offset != SIZE_MAX) continue; /* placed with an earlier one */
        size_t base = p->bufs[r].offset = find_base(placed, n_placed, own, n_own);
        for (int k = i; k < n; k++) {
            if (all[k].root != r) continue;
            all[k].offset = base + all[k].at;
            insert(placed, &n_placed, &all[k]);
        }
    }
}

static alloy_status place_buffers(ay_ctx *cx, ay_program *p) {
    size_t room = (size_t)p->n_bufs + 1, sum = 0;
    stretch *all = malloc(2 * room * sizeof *all), **placed = malloc(room * sizeof *placed);
    int *parts = calloc(room, sizeof *parts);
    alloy_status st = all && placed && parts ? ALLOY_OK : ay_nomem(cx);
    for (int i = 0; i < p->n_bufs && st == ALLOY_OK; i++) {
        const ay_buffer *b = &p->bufs[i];
        p->bufs[i].offset = SIZE_MAX;
        if (b->home == AY_HOME_FIXED || b->merged >= 0 || b->first < 0) continue;
        if (b->bytes > SIZE_MAX / 4 || (sum += padded(b->bytes)) > SIZE_MAX / 4)
            st = ay_fail(cx, ALLOY_E_NOMEM, "the graph's values do not fit into memory: use a smaller size");
    }
    if (st == ALLOY_OK) {
        count_parts(p, parts);
        int n = make_stretches(p, parts, all);
        qsort(all, (size_t)n, sizeof *all, by_size);
        place_all(p, parts, all, n, placed, all + room);
        for (int i = 0; i < p->n_bufs; i++) {
            ay_buffer *b = &p->bufs[i];
            if (b->merged >= 0) b->offset = p->bufs[root(p, i)].offset + place_of(p, i);
            if (b->home == AY_HOME_FIXED || b->first < 0) b->offset = 0;
            else if (b->offset + padded(b->bytes) > p->slab_bytes) p->slab_bytes = b->offset + padded(b->bytes);
        }
    }
    free(all);
    free(placed);
    free(parts);
    return st;
}

alloy_status ay_plan_memory(ay_ctx *cx, ay_program *p) {
    for (int i = 0; i < p->n_steps; i++)
        if (p->steps[i].n_io > AY_STEP_IO)
            return ay_fail(cx, ALLOY_E_INTERNAL, "step %s has too many operands", p->steps[i].what);
    int *joined = malloc(((size_t)p->n_bufs + 1) * sizeof *joined);
    if (!joined) return ay_nomem(cx);
    lifetimes(p);
    merge_inplace(p, joined);
    free(joined);
    return place_buffers(cx, p);
}

/* Between first and last touch nobody else's bytes: lifetimes are counted anew, not taken from the plan. */
bool ay_plan_memory_ok(const ay_program *p) {
    unsigned char *seen = calloc((size_t)p->n_bufs + 1, 1);
    bool ok = seen != NULL;
    int *first = malloc(((size_t)p->n_bufs + 1) * 2 * sizeof *first), *last = first ? first + p->n_bufs : NULL;
    ok = ok && first;
    for (int i = 0; ok && i < p->n_bufs; i++) first[i] = last[i] = -1;
    for (int i = 0; ok && i < p->n_steps; i++)
        for (int k = 0; k < p->steps[i].n_io; k++) {
            int b = p->steps[i].io[k].buf;
            if (first[b] < 0) first[b] = i;
            last[b] = i;
        }
    for (int i = 0; ok && i < p->n_bufs; i++) {
        const ay_buffer *a = &p->bufs[i];
        if (a->home == AY_HOME_FIXED || first[i] < 0) continue;
        ok = a->offset % ALIGN == 0 && a->offset + a->bytes <= p->slab_bytes;
        for (int j = 0; ok && j < i; j++) {
            const ay_buffer *b = &p->bufs[j];
            if (b->home == AY_HOME_FIXED || first[j] < 0) continue;
            bool apart = a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset;
            /* an update in place: the one begins in the very step where the other ends */
            bool handed = (a->merged >= 0 && first[i] == last[j]) || (b->merged >= 0 && first[j] == last[i]);
            if (first[i] <= last[j] && first[j] <= last[i] && !apart && !handed) ok = false;
        }
    }
    free(seen);
    free(first);
    return ok;
}
