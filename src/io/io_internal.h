/* SPDX-License-Identifier: MIT
 *
 * Shared by the files of src/io only.
 */
#ifndef AY_IO_INTERNAL_H
#define AY_IO_INTERNAL_H

#include "io/io.h"

#include <stdio.h>

/** Text out of a file, made fit for a sentence: control characters become "?", what is too long ends in "...". */
const char *ay_show(const char *s, char *out, size_t size);

#endif
