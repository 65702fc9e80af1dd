/* SPDX-License-Identifier: MIT
 *
 * Between the dtypes of files and callers and the three kinds of numbers the engine holds.
 */
#ifndef AY_CPU_CONVERT_H
#define AY_CPU_CONVERT_H

#include "cpu/view.h"

/** Elements [begin, begin + count) of `from` into `out` (float32, int32 or bytes 0/1). int64 saturates to int32. */
void ay_convert_to_kind(ay_kind kind, ay_dtype t, const void *from, int64_t begin, int64_t count, void *out);
/** `count` numbers held as `kind`, written as elements [begin, begin + count) of an array of dtype t (whole bytes only). */
void ay_convert_from_kind(ay_kind kind, const void *from, ay_dtype t, int64_t begin, int64_t count, void *out);
/** Whether numbers of dtype t lie in memory as the engine holds `kind`, so that they can be used where they are. */
bool ay_kind_is_native(ay_kind kind, ay_dtype t, const void *data);

#endif
