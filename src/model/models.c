/* SPDX-License-Identifier: MIT
 *
 * The one list of architectures, and the pattern matcher their rules use.
 */
#include "model/model.h"

#include <string.h>

extern const ay_arch ay_arch_flux, ay_arch_clip_text, ay_arch_clip_text_projected, ay_arch_t5_encoder, ay_arch_vae_kl_decoder,
    ay_arch_vae_kl_encoder, ay_arch_sd_unet, ay_arch_sd_controlnet, ay_arch_sd3;

static const ay_arch *const rows[] = {
    &ay_arch_flux,
    &ay_arch_clip_text,
    &ay_arch_clip_text_projected,
    &ay_arch_t5_encoder,
    &ay_arch_vae_kl_decoder,
    &ay_arch_vae_kl_encoder,
    &ay_arch_sd_unet,
    &ay_arch_sd_controlnet,
    &ay_arch_sd3,
};

const ay_arch *const *ay_arch_list(int *n) {
    *n = (int)(sizeof rows / sizeof rows[0]);
    return rows;
}

const ay_arch *ay_arch_find(const char *class_name, const char *graph_kind) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i]->class_name, class_name) == 0 && strcmp(rows[i]->graph_kind, graph_kind) == 0) return rows[i];
    }
    return NULL;
}

bool ay_glob(const char *pattern, const char *text) {
    const char *star = NULL, *resume = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star) { /* let the last star take one character more */
            pattern = star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}
