/* SPDX-License-Identifier: MIT
 *
 * Strips of a picture, channel after channel, into the panels of the blocked product, over simd.h. Positions outside the
 * picture are masked in the load, so borders cost what the inside costs.
 */
#include "cpu/kernel/rows.h"
#include "cpu/kernel/simd.h"

static void strip_inside(const ay_strip *s) {
    const float *src = s->src;
    float *dst = s->dst;
    if (s->len == 2 * VL) {
        for (int64_t c = 0; c < s->n; c++, src += s->src_step, dst += s->dst_step) {
            v_store(dst, v_load(src));
            v_store(dst + VL, v_load(src + VL));
        }
        return;
    }
    for (int64_t c = 0; c < s->n; c++, src += s->src_step, dst += s->dst_step) {
        int i = 0;
        for (; i + VL <= s->len; i += VL) v_store(dst + i, v_load(src + i));
        for (; i < s->len; i++) dst[i] = src[i];
    }
}

static void strip_border(const ay_strip *s) {
    const float *src = s->src;
    float *dst = s->dst;
    for (int64_t c = 0; c < s->n; c++, src += s->src_step, dst += s->dst_step) {
        int i = 0;
        for (; i + VL <= s->len; i += VL) v_store(dst + i, v_load_between(src + i, s->lo - i, s->hi - i));
        for (; i < s->len; i++) dst[i] = i >= s->lo && i < s->hi ? src[i] : 0.0f;
    }
}

static void strip(const ay_strip *s) {
    if (s->step == 1 && s->lo == 0 && s->hi == s->len) {
        strip_inside(s);
    } else if (s->step == 1 && s->lo < s->hi) {
        strip_border(s);
    } else {
        const float *src = s->src;
        float *dst = s->dst;
        for (int64_t c = 0; c < s->n; c++, src += s->src_step, dst += s->dst_step) {
            for (int i = 0; i < s->len; i++) dst[i] = i >= s->lo && i < s->hi ? src[i * s->step] : 0.0f;
        }
    }
}
