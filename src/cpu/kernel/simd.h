/* SPDX-License-Identifier: MIT
 *
 * One vocabulary over the vector units, so that an algorithm is written once in a family_body.h and compiled once a level
 * by family_isa.c. `vf` holds VL floats, `vm` is a mask of lanes. Everything is static inline: no code of one level can be
 * linked into another's. A file that wants plain C on any machine defines AY_SIMD_C first (then VL is 1).
 * v_max(a, b) and v_min(a, b) give b where either is NaN (NEON: NaN), so v_max(limit, x) lets a NaN x through.
 */
#ifndef AY_KERNEL_SIMD_H
#define AY_KERNEL_SIMD_H

#include "base/base.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Before a loop of a small constant count that must become straight code, its array registers. */
#if defined(__clang__)
#define AY_UNROLL _Pragma("clang loop unroll(full)")
#else
#define AY_UNROLL _Pragma("GCC unroll 16")
#endif

/* The last lanes of a row: n in 1 .. VL. v_loadn leaves the others 0, v_storen leaves their memory untouched. */

#if defined(AY_SIMD_C)
#include "cpu/kernel/simd_scalar.h"
#elif defined(__AVX512F__)
#include "cpu/kernel/simd_x512.h"
#elif defined(__AVX2__)
#include "cpu/kernel/simd_x256.h"
#elif defined(__aarch64__)
#include "cpu/kernel/simd_arm.h"
#endif

#endif
