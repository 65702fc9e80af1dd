/* SPDX-License-Identifier: MIT
 *
 * Whether a run has room. What a component needs beside its weights is known when its program is made, which takes no part
 * of a step's time; so all are made once before the first of them runs, where a limit is given or the picture is larger than
 * what the model was converted for.
 */
#include "pipe/pipe.h"

#include <string.h>

enum { MARGIN = 8 << 20 }; /* what the process will have grown by then: texts, latents, pictures */

static bool takes_part(const ay_model_part *p, const ay_request *r) {
    return strcmp(p->row->package, "VAEEncoder") != 0 || r->in.picture.pixels;
}

alloy_status ay_run_fits(ay_ctx *cx, const ay_model *m, const ay_request *r) {
    ay_exec_options o = r->exec;
    const char *largest = NULL;
    size_t least, most = 0;
    bool short_of = false;
    if (!o.memory_limit && (int64_t)r->width * r->height <= (int64_t)m->width * m->height) return ALLOY_OK;
    o.least = &least;
    for (int i = 0; i < m->n_parts; i++) {
        const char *package = m->parts[i].row->package;
        ay_component *c = NULL;
        ay_sizes s;
        if (!takes_part(&m->parts[i], r)) continue;
        AY_TRY(m->row->sizes(cx, m, m->parts[i].row, r->width, r->height, m->text_length, &s));
        least = 0;
        alloy_status st = ay_component_open(cx, m, package, &s, &o, &c);
        ay_component_close(&c);
        if (st != ALLOY_OK && !(st == ALLOY_E_NOMEM && o.memory_limit && least > o.memory_limit)) {
            if (st == ALLOY_E_NOMEM) ay_fail_prefix(cx, "%dx%d, %s: ", r->width, r->height, package);
            return st;
        }
        short_of |= st != ALLOY_OK;
        if (least > most) largest = package;
        if (least > most) most = least;
    }
    if (!short_of) return ALLOY_OK;
    return ay_fail(cx, ALLOY_E_NOMEM, "a memory limit of %.0f MB is too small: most is needed by %s, %.0f MB for its values and its largest weight; give %.0f MB, "
                   "or ask for a smaller size", (double)o.memory_limit / 1e6, largest, (double)most / 1e6, (double)(most + MARGIN) / 1e6 + 1);
}
