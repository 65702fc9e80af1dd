/* SPDX-License-Identifier: MIT
 *
 * Stands in for passes that are still being written, so that the engine links: each does nothing. Goes as they come.
 */
#include "pass/pass.h"

#define PENDING(name) \
    __attribute__((weak)) alloy_status name(ay_graph *g, void *arg) { return ALLOY_OK; }

PENDING(ay_pass_dce)
PENDING(ay_pass_cse)
PENDING(ay_pass_fold)
PENDING(ay_pass_raise)
__attribute__((weak)) alloy_status ay_passes_run(ay_graph *g, const ay_pass *rows, int n) { return ALLOY_OK; }
