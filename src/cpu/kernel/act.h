/* SPDX-License-Identifier: MIT
 *
 * The activations one number at a time, as drivers use them where a vector form would not pay. Only `static inline`, so
 * that no code of one instruction-set level can be linked into another's.
 */
#ifndef AY_KERNEL_ACT_H
#define AY_KERNEL_ACT_H

#include "cpu/kernel/kernel.h"

#include <math.h>

static inline float ay_sigmoid1(float x) { return 1.0f / (1.0f + expf(-x)); }

static inline float ay_act1(ay_act act, float x) {
    switch (act) {
    case AY_ACT_NONE: return x;
    case AY_ACT_GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    case AY_ACT_GELU_ERF: return 0.5f * x * (1.0f + erff(x * 0.7071067812f));
    case AY_ACT_GELU_SIGMOID: return x * ay_sigmoid1(1.702f * x);
    case AY_ACT_SILU: return x * ay_sigmoid1(x);
    case AY_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case AY_ACT_SIGMOID: return ay_sigmoid1(x);
    case AY_ACT_TANH: return tanhf(x);
    }
    return x;
}

#endif
