/* SPDX-License-Identifier: MIT
 *
 * The list of the loops that measure the ceilings.
 */
#include "cpu/kernel/peak.h"

extern const ay_peak_row ay_peak_c;
#if defined(__x86_64__)
extern const ay_peak_row ay_peak_avx2, ay_peak_avxvnni, ay_peak_avx512, ay_peak_vnni;
static const ay_peak_row *const list[] = {&ay_peak_c, &ay_peak_avx2, &ay_peak_avxvnni, &ay_peak_avx512, &ay_peak_vnni};
#elif defined(__aarch64__)
extern const ay_peak_row ay_peak_neon, ay_peak_dotprod;
static const ay_peak_row *const list[] = {&ay_peak_c, &ay_peak_neon, &ay_peak_dotprod};
#else
static const ay_peak_row *const list[] = {&ay_peak_c};
#endif

const ay_peak_row *const *ay_peak_rows(int *n) {
    *n = (int)(sizeof list / sizeof *list);
    return list;
}

const ay_peak_row *ay_peak_pick(ay_isa isa) {
    int n;
    const ay_peak_row *const *rows = ay_peak_rows(&n);
    while (n > 1 && !ay_isa_allows(isa, rows[n - 1]->isa)) n--;
    return rows[n - 1];
}
