/* SPDX-License-Identifier: MIT
 *
 * A map from strings to pointers in an arena, and MIL identifiers: letters, digits and underscores, no reserved word,
 * each once in a function.
 */
#ifndef AY_COREML_NAMES_H
#define AY_COREML_NAMES_H

#include "base/base.h"

typedef struct ay_names {
    ay_arena *arena;
    struct ay_name_slot { const char *key; size_t len; void *value; } *slots;
    size_t n, cap;
} ay_names;

void ay_names_init(ay_names *m, ay_arena *arena);
/** The place of the key's value, made (value NULL, *fresh true) when it is not there; NULL when out of memory. Keys are
 *  bytes and are copied. */
void **ay_names_at(ay_names *m, const void *key, size_t len, bool *fresh);
/** The value, or NULL when the key is not there. */
void *ay_names_get(const ay_names *m, const void *key, size_t len);

/** Whether `s` is an identifier that Core ML takes: [A-Za-z_][A-Za-z0-9_]* and no reserved word. */
bool ay_name_valid(const char *s);
bool ay_name_reserved(const char *s);
/** A valid identifier made from `words` ('.' and all else become '_') that the map has not had; entered into it. */
const char *ay_name_fresh(ay_names *m, const char *words);

#endif
