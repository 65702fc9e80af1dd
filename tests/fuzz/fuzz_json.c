/* SPDX-License-Identifier: MIT
 *
 * JSON configs: any bytes give a value or one sentence; typed members of whatever came out do too.
 */
#include "io/io.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void members(ay_ctx *cx, const json_t *v) {
    static const char *const keys[] = {"a", "num_layers", ""};
    int64_t i, list[8];
    double d;
    bool b;
    const char *s;
    int n;
    for (size_t k = 0; k < 3; k++) {
        ay_json_int(cx, "x", v, keys[k], 1, 1000, &i);
        ay_json_int_or(cx, "x", v, keys[k], -5, 5, 3, &i);
        ay_json_num_or(cx, "x", v, keys[k], 0, 1, 0.5, &d);
        ay_json_bool_or(cx, "x", v, keys[k], true, &b);
        ay_json_str(cx, "x", v, keys[k], &s);
        ay_json_str_or(cx, "x", v, keys[k], "y", &s);
        ay_json_ints(cx, "x", v, keys[k], 0, 100, 8, list, &n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ay_ctx *cx;
    json_t *v;
    if (ay_ctx_open(1, &cx) != ALLOY_OK) return 0;
    alloy_status s = ay_json_parse(cx, "fuzz.json", (const char *)data, size, &v);
    if (s == ALLOY_OK) members(cx, v);
    if ((s == ALLOY_OK) != (v != NULL) || (s != ALLOY_OK && strncmp(ay_error_text(cx), "fuzz.json: ", 11) != 0))
        __builtin_trap();
    json_decref(v);
    ay_ctx_close(&cx);
    return 0;
}
