/* SPDX-License-Identifier: MIT
 *
 * The search for scales in plain C, for machines without a file of their own: one number at a time.
 */
enum { V = 1 };
#define VEC float
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SET(s) ((float)(s))
#define ADD(a, b) ((a) + (b))
#define SUB(a, b) ((a) - (b))
#define MUL(a, b) ((a) * (b))
#define DIV(a, b) ((a) / (b))
#define MIN(a, b) least(a, b)
#define MAX(a, b) most_of(a, b)
#define ABS(a) __builtin_fabsf(a)
#define ROUND(a) (((a) + 12582912.0f) - 12582912.0f) /* 1.5 * 2^23: the sum has no bits after the point; ties to even */
#define IF_ABOVE(a, b, x, y) ((a) > (b) ? (x) : (y))

static inline float least(float a, float b) { return a < b ? a : b; }
static inline float most_of(float a, float b) { return a > b ? a : b; }

#include "quant/quantize_search.h"

const ay_quant_level ay_quant_level_c = {.int4 = runs4, .int8 = runs8};
