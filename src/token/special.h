/* SPDX-License-Identifier: MIT
 *
 * Between open.c and special.c: from a tokenizer's files to its added and special tokens.
 */
#ifndef AY_SPECIAL_H
#define AY_SPECIAL_H

#include "token/tok.h"

enum { AY_NAMED = 7, AY_BOS = 0, AY_EOS = 1, AY_UNK = 2, AY_PAD = 4 };

/** Texts point into the JSON and the family's row. */
typedef struct ay_special {
    ay_added named[AY_NAMED]; /* text NULL: there is none */
    ay_added *extra;
    size_t n_extra, cap_extra;
} ay_special;

/** JSON may be NULL. spiece: control and user-defined pieces of a sentencepiece model. */
typedef struct ay_special_sources {
    const ay_family *family;
    const json_t *config, *special, *added, *tokenizer;
    const ay_added *spiece;
    size_t n_spiece;
} ay_special_sources;

alloy_status ay_special_add(ay_load *ld, const ay_special_sources *src, ay_tokenizer *t, ay_special *sp);
void ay_special_free(ay_special *sp); /* in any case */

#endif
