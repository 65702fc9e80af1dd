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
    const char *const *others; /* prefixes of what is no business of this part, NULL-terminated; or NULL */
    bool scaled; /* some weight of these files has factors beside it */
    const ay_naming *naming;
    const void *cfg;
    const struct ay_lora_part *lora; /* adapters of this component, or NULL */
};

/** Whether the name is of what belongs to a scaled weight, or to how it was quantised: no parameter of its own. */
bool ay_source_beside(const char *name);
/** Looks for such weights in a file just opened, and refuses those that are more than factors away from their numbers. */
alloy_status ay_source_check_scaled(ay_ctx *cx, ay_source *s, const ay_safetensors *f);
/** The tensor of this name behind the prefix. */
const ay_st_tensor *ay_source_tensor(const ay_source *s, const char *name, const ay_safetensors **file);

#endif
