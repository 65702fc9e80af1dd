/* SPDX-License-Identifier: MIT
 *
 * Shared by the files of src/source only.
 */
#ifndef AY_SOURCE_INTERNAL_H
#define AY_SOURCE_INTERNAL_H

#include "source/source.h"

struct ay_source {
    ay_arena *arena;
    char *dir; /* or the file, for sentences */
    ay_safetensors **files;
    int n_files;
    const char *prefix; /* "" unless focused */
    bool flat;
    const ay_naming *naming;
    const void *cfg;
};

/** The tensor of this name behind the prefix. */
const ay_st_tensor *ay_source_tensor(const ay_source *s, const char *name, const ay_safetensors **file);

#endif
