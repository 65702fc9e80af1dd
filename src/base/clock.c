/* SPDX-License-Identifier: MIT
 *
 * The clock: for waiting, for profiles and for the times in reports.
 */
#include "base/base.h"

#include <time.h>

double ay_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
