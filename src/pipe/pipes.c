/* SPDX-License-Identifier: MIT
 *
 * The one list of pipelines.
 */
#include "pipe/pipe.h"

#include <string.h>

extern const ay_pipe_row ay_pipe_flux, ay_pipe_sd, ay_pipe_sdxl, ay_pipe_sd3, ay_pipe_controlnet;

static const ay_pipe_row *const rows[] = {
    &ay_pipe_flux,
    &ay_pipe_sd,
    &ay_pipe_sdxl,
    &ay_pipe_sd3,
    &ay_pipe_controlnet,
};

const ay_pipe_row *const *ay_pipe_list(int *n) {
    *n = (int)(sizeof rows / sizeof rows[0]);
    return rows;
}

const ay_pipe_row *ay_pipe_find(const char *class_name) {
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i]->class_name, class_name) == 0) return rows[i];
        for (const char *const *also = rows[i]->also; also && *also; also++) {
            if (strcmp(*also, class_name) == 0) return rows[i];
        }
    }
    return NULL;
}
