/* SPDX-License-Identifier: MIT
 *
 * Weights from a mapped file when memory is short. The order in which a program reads its weights is known, so nothing is
 * guessed: as many of the first as fit stay mapped for good, the rest are read ahead while earlier steps compute, and given
 * back as soon as their step is done. (Dropping the oldest instead would drop everything in every run: each weight is read
 * once a run, in the same order.) What is given back stays in the system's page cache as long as the system has room.
 */
#include "cpu/plan.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLACK = 16 << 20 }; /* stacks, the pages around what is read, the report */

/* One stored part of a weight. */
typedef struct span {
    const unsigned char *data;
    size_t bytes;
} span;

static int spans_of(const ay_weight *w, span out[4]) {
    const span all[] = {{w->data, ay_weight_data_bytes(w)}, {w->scale, ay_weight_scale_bytes(w)},
                        {w->offset, ay_weight_offset_bytes(w)}, {w->lut, ay_weight_lut_bytes(w)}};
    int n = 0;
    for (int i = 0; i < 4; i++)
        if (all[i].data && all[i].bytes) out[n++] = all[i];
    return n;
}

static bool is_mapped(const ay_program *p, const span *s) {
    return s->data >= p->map && s->bytes <= p->map_bytes && (size_t)(s->data - p->map) <= p->map_bytes - s->bytes;
}

void ay_step_weight(ay_step *s, const ay_weight *w) {
    if (s->n_weights < AY_STEP_WEIGHTS) s->weights[s->n_weights++] = w;
}

static size_t step_bytes(const ay_program *p, const ay_step *s) {
    size_t bytes = 0;
    for (int i = 0; i < s->n_weights; i++) {
        span part[4];
        int n = spans_of(s->weights[i], part);
        for (int k = 0; k < n; k++)
            if (is_mapped(p, &part[k])) bytes += part[k].bytes;
    }
    return bytes;
}

/* Bytes of this process in memory now; 0 where the system does not tell. */
static size_t resident_now(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    long total, pages = 0;
    if (!f) return 0;
    if (fscanf(f, "%ld %ld", &total, &pages) != 2) pages = 0;
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

alloy_status ay_plan_stream(ay_ctx *cx, ay_program *p, size_t limit, size_t *least) {
    size_t all = 0, largest = 0, own = p->slab_bytes + resident_now() + SLACK;
    for (int i = 0; i < p->n_steps; i++) {
        size_t bytes = step_bytes(p, &p->steps[i]);
        all += bytes;
        if (bytes > largest) largest = bytes;
    }
    if (least) *least = own + largest;
    if (!limit || own + all <= limit) return ALLOY_OK;
    if (own + largest > limit)
        return ay_fail(cx, ALLOY_E_NOMEM,
                       "a memory limit of %.0f MB is too small: %.0f MB are needed here for values and whatever else is not a weight, "
                       "and %.0f MB for the largest weight; give %.0f MB, or ask for a smaller size",
                       (double)limit / 1e6, (double)own / 1e6, (double)largest / 1e6, (double)(own + largest) / 1e6 + 1);
    size_t room = limit - own - largest, kept = 0;
    for (int i = 0; i < p->n_steps; i++) {
        size_t bytes = step_bytes(p, &p->steps[i]);
        p->steps[i].drops = bytes > 0 && kept + bytes > room;
        if (!p->steps[i].drops) kept += bytes;
        else p->streamed += bytes;
    }
    ay_log(cx, AY_LOG_DEBUG, "memory limit: %.0f MB of weights stay, %.0f MB are read again in each run", (double)kept / 1e6,
           (double)p->streamed / 1e6);
    return ALLOY_OK;
}

/* ---- running --------------------------------------------------------------------------------------------------------- */

/* Pages wholly inside, for giving back; all that are touched, for reading ahead. */
static void advise(const ay_program *p, const ay_step *s, int advice) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < s->n_weights; i++) {
        span part[4];
        int n = spans_of(s->weights[i], part);
        for (int k = 0; k < n; k++) {
            if (!is_mapped(p, &part[k])) continue;
            uintptr_t from = (uintptr_t)part[k].data & ~(uintptr_t)(page - 1), to = (uintptr_t)part[k].data + part[k].bytes;
            to = (to + page - 1) & ~(uintptr_t)(page - 1); /* a neighbour's page is only read again */
            madvise((void *)from, to - from, advice);
        }
    }
}

static bool worth_reading(const ay_program *p, const ay_step *s) {
    enum { SMALL = 1 << 20 };
    return s->n_weights > 0 && (p->runs == 0 || s->drops) && step_bytes(p, s) >= SMALL;
}

void ay_stream_before(ay_program *p, int step) {
    if (!p->map || (p->runs > 0 && !p->streamed)) return;
    if (p->ahead <= step) p->ahead = step + 1;
    for (size_t bytes = 0; p->ahead < p->n_steps && bytes == 0; p->ahead++) { /* one weight further than what is being read */
        const ay_step *s = &p->steps[p->ahead];
        if (!worth_reading(p, s)) continue;
        bytes = step_bytes(p, s);
        advise(p, s, MADV_WILLNEED);
    }
}

void ay_stream_after(const ay_program *p, const ay_step *s) {
    if (s->drops) advise(p, s, MADV_DONTNEED);
}
