/* SPDX-License-Identifier: MIT
 *
 * Stands in for passes that are still being written, so that the engine links: each does nothing. Goes as they come.
 */
#include "pass/pass.h"

#define PENDING(name) \
    __attribute__((weak)) alloy_status name(ay_graph *g, void *arg) { return ALLOY_OK; }

PENDING(ay_pass_raise)
