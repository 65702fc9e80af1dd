/* SPDX-License-Identifier: MIT
 *
 * Runs a backend's array of passes in order. Without NDEBUG each is followed by the verifier, and the sentence says which
 * pass broke the graph.
 */
#include "pass/pass.h"

alloy_status ay_passes_run(ay_graph *g, const ay_pass *rows, int n) {
    for (int i = 0; i < n; i++) {
        AY_TRY(ay_check_stop(g->cx));
        AY_TRY(rows[i].run(g, rows[i].arg));
#ifndef NDEBUG
        alloy_status st = ay_graph_verify(g);
        if (st) {
            ay_fail_prefix(g->cx, "after pass %s: ", rows[i].name);
            return st;
        }
#endif
    }
    return ALLOY_OK;
}
