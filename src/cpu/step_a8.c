/* SPDX-License-Identifier: MIT
 *
 * Activations to eight bits, once for all the products and convolutions that read the same value in the same way (queries,
 * keys and values of a layer).
 */
#include "cpu/plan.h"

#include <string.h>

typedef struct a8_args {
    ay_a8_form form;
    ay_ref x, out;
} a8_args;

static alloy_status run_a8(ay_run *r, const ay_step *s) {
    const a8_args *p = s->args;
    const ay_a8_form *f = &p->form;
    const float *x = ay_at(r, p->x);
    char *out = ay_at(r, p->out);
    if (f->picture) {
        ay_a8_picture_run(&r->ex, &(ay_a8_picture){.n = f->m, .c = f->k, .plane = f->plane, .x = x, .tolerance = (float)f->tolerance, .out = out});
        return ALLOY_OK;
    }
    int64_t total = 1;
    for (int i = 0; i < f->n_loops; i++) total *= f->loop[i];
    for (int64_t i = 0; i < total && !ay_stopped(r->cx); i++) {
        int64_t off = 0, rest = i;
        for (int d = f->n_loops - 1; d >= 0; d--) {
            off += rest % f->loop[d] * f->stride[d];
            rest /= f->loop[d];
        }
        ay_a8_run(&r->ex, &(ay_a8){f->m, f->k, x + off, f->lda, (float)f->tolerance, out + (size_t)i * ay_a8_bytes(f->m, f->k)});
    }
    return ALLOY_OK;
}

alloy_status ay_plan_a8(ay_plan *pl, ay_val v, const ay_view *x, const ay_a8_form *form, ay_view *out) {
    ay_value_plan *vp = &pl->val[v];
    ay_a8_form key = *form;
    key.buf = x->buf;
    key.off = x->off;
    if (vp->a8 && memcmp(&vp->a8->form, &key, sizeof key) == 0) return *out = vp->a8->view, ALLOY_OK;
    int64_t rows = form->m;
    for (int i = 0; i < form->n_loops; i++) rows *= form->loop[i];
    size_t bytes = form->picture ? ay_a8_picture_bytes(form->m, form->plane, form->k)
                                 : (size_t)(rows / ay_max_i64(1, form->m)) * ay_a8_bytes(form->m, form->k);
    AY_TRY(ay_plan_new(pl, AY_KIND_U8, 1, (const int64_t[]){(int64_t)bytes}, out));
    a8_args args = {.form = key};
    ay_step *s = ay_step_add(pl, run_a8, &args, sizeof args);
    ay_a8_made *made = ay_alloc(pl->arena, sizeof *made);
    if (!s || !made) return ay_nomem(pl->cx);
    a8_args *a = (a8_args *)(uintptr_t)s->args;
    a->x = ay_step_read(s, x);
    a->out = ay_step_write(s, out);
    double count = (double)(form->picture ? form->m * form->plane : rows) * (double)form->k;
    s->bytes = 4 * count + (double)bytes;
    ay_step_what(pl, s, "to int8 %g x %lld", count / (double)form->k, (long long)form->k);
    made->form = key;
    made->view = *out;
    vp->a8 = made;
    size_t scratch = form->picture ? ay_a8_picture_scratch(form->m, form->k, form->plane)
                                   : ay_a8_scratch((ay_isa)pl->cx->isa, form->m, form->k);
    return ay_step_scratch(pl, s, scratch);
}
