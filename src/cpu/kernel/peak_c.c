/* SPDX-License-Identifier: MIT
 *
 * What portable C reaches: vectors of four that the compiler turns into whatever it has.
 */
#include "cpu/kernel/peak.h"

typedef float quad __attribute__((vector_size(16)));

static double f32(int64_t rounds) {
    quad s[12], x = {0.5f, 0.5f, 0.5f, 0.5f};
    for (int i = 0; i < 12; i++) s[i] = x;
    for (int64_t r = 0; r < rounds; r++) {
        x[0] = (float)(r & 1);
        s[0] += x * x, s[1] += x * x, s[2] += x * x, s[3] += x * x, s[4] += x * x, s[5] += x * x;
        s[6] += x * x, s[7] += x * x, s[8] += x * x, s[9] += x * x, s[10] += x * x, s[11] += x * x;
    }
    volatile float keep = 0;
    for (int i = 0; i < 12; i++) keep = keep + s[i][0];
    return 12.0 * 8 * (double)rounds;
}

const ay_peak_row ay_peak_c = {"c", AY_ISA_C, f32, NULL, NULL};
